"""`escalate HOST` and the button Escalate: the next one is asked to see to an alert, now."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from bot.store import Deed
from bot.tell import ESCALATE
from handlers import say
from handlers.ack import firing_on, of_alerts, of_message, spoken
from handlers.door import Visit
from handlers.errors import Already, Unanswerable
from templates import messages
from templates.words import listed, short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import About, Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_AT_ONCE_S = 10.0  # who asks within so long after somebody else means the same step


async def answer(asked: Asked) -> Message:
    """Ask for the next step of what fires on a host; raises Unanswerable, and Already when somebody else just did for all of it."""
    firing = await firing_on(asked.words, asked)
    escalated: list[str] = []
    held: Already | None = None
    for message in dict.fromkeys(a.message for a in firing):
        try:
            await _ask(message, asked.user, asked.sweeper, asked.store)
            escalated.append(message)
        except Already as by:
            held = by
    if held is not None and not escalated:
        raise held
    hosts = dict.fromkeys(short(a.finding.host) for a in firing if a.message in escalated)
    return messages.done(f"The next one is asked to see to {listed(hosts)}.")


async def about(asked: Asked) -> About:
    """What fires on the host that was typed; raises Unanswerable."""
    return of_alerts(await firing_on(asked.words, asked))


async def _ask(message: str, user: str, sweeper: Sweeper, store: Store) -> None:
    members = await spoken(message, store, "nobody needs to be asked")
    steps = sweeper.chain(members[0].finding)
    if not steps:
        raise Unanswerable("The config names nobody to escalate to (alerts.escalation).")
    if all(a.escalated >= len(steps) for a in members):
        raise Unanswerable("Everybody whom the config names was asked already.")
    mine = f"{user} {secrets.token_hex(4)}"
    first = await store.claim(f"escalate:{message}", mine, _AT_ONCE_S)
    if first != mine:
        raise Already("escalate", first.partition(" ")[0])
    await store.do(Deed(verb="escalate", by=user, at=time.time(), message=message))


def register(app: AsyncApp, door: Door) -> None:
    """The button of an alert."""

    @app.action(ESCALATE)
    async def escalated(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message = Visit.click(body, context), body["actions"][0]["value"]

        async def asked(_: Sees) -> Message:
            await _ask(message, visit.user, door.sweeper, door.store)
            return messages.done("The next one is asked to see to it.")

        await say.told(await door.enter(visit, "escalate", lambda _: of_message(message, door.store), asked), respond)
