"""`escalate HOST` and the button Escalate: the next one is asked to see to an alert, now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bot.alerts import State
from bot.store import Deed
from bot.tell import ESCALATE
from handlers import say
from handlers.ack import firing_on
from handlers.errors import Unanswerable, answered
from templates import messages
from templates.words import listed, short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """Ask for the next step of what fires on a host; raises Unanswerable."""
    firing = await firing_on(asked.words, asked.store)
    for message in dict.fromkeys(a.message for a in firing):
        await _ask(message, asked.user, asked.sweeper, asked.store)
    return messages.done(f"The next one is asked to see to {listed(dict.fromkeys(short(a.finding.host) for a in firing))}.")


async def _ask(message: str, user: str, sweeper: Sweeper, store: Store) -> None:
    members = [a for a in (await store.alerts()).values() if a.message == message and a.state is State.FIRING]
    if not members:
        raise Unanswerable("This alert is resolved already: nobody needs to be asked.")
    steps = sweeper.escalation
    if not steps:
        raise Unanswerable("The config names nobody to escalate to (alerts.escalation).")
    if all(a.escalated >= len(steps) for a in members):
        raise Unanswerable("Everybody whom the config names was asked already.")
    await store.do(Deed(verb="escalate", by=user, at=time.time(), message=message))


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """The button of an alert."""

    @app.action(ESCALATE)
    async def escalated(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action, user = body["actions"][0], body["user"]["id"]

        async def asked() -> Message:
            await _ask(action["value"], user, sweeper, store)
            return messages.done("The next one is asked to see to it.")

        if await store.once(f"click:{user}:{action['action_ts']}"):
            await say.whisper(await answered(asked()), respond)
