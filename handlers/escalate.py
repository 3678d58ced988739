"""`escalate HOST [WHY]` and the button Escalate, whose dialog asks how bad it is and why: the next one is asked to see to an alert, now."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from slack_bolt.context.respond.async_respond import AsyncRespond
from slack_sdk.errors import SlackApiError

from bot.alerts import Appeal
from bot.store import Deed
from bot.tell import ESCALATE
from handlers import own, say
from handlers.ack import of_alerts, of_message, spoken
from handlers.door import Visit
from handlers.errors import Already, Unanswerable
from handlers.pasted import written
from templates import messages, owning
from templates.words import listed, short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.alerts import Alert
    from bot.settings import EscalationStep
    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import About, Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_AT_ONCE_S = 10.0  # who asks within so long after somebody else means the same step
_READ_S = 1.0  # of the 3 s in which a dialog can be opened: so long the thread is read
_SAID = 6  # lines of the thread, the last ones, that are filled in


async def answer(asked: Asked) -> Message:
    """Ask for the next step of what fires in the thread or on a host; raises Unanswerable, and Already when somebody else just did for all of it."""
    firing, why = await own.on(asked)
    escalated: list[str] = []
    held: Already | None = None
    for message in dict.fromkeys(a.message for a in firing):
        try:
            await _ask(Deed(verb="escalate", by=asked.user, at=time.time(), message=message, text=why), asked.sweeper, asked.store)
            escalated.append(message)
        except Already as by:
            held = by
    if held is not None and not escalated:
        raise held
    hosts = dict.fromkeys(short(a.finding.host) for a in firing if a.message in escalated)
    return messages.done(f"The next one is asked to see to {listed(hosts)}.")


async def about(asked: Asked) -> About:
    """What fires in the thread, or on the host that was typed; raises Unanswerable."""
    return of_alerts((await own.on(asked)).alerts)


async def _left(message: str, sweeper: Sweeper, store: Store) -> tuple[list[Alert], tuple[EscalationStep, ...]]:
    """The alerts of a message, and the steps of their escalation, of which one is left; raises Unanswerable."""
    members = await spoken(message, store, "nobody needs to be asked")
    steps = sweeper.chain(members[0].finding)
    if not steps:
        raise Unanswerable("The config names nobody to escalate to (alerts.escalation).")
    if all(a.escalated >= len(steps) for a in members):
        raise Unanswerable("Everybody whom the config names was asked already.")
    return members, steps


async def _ask(deed: Deed, sweeper: Sweeper, store: Store) -> list[Alert]:
    """Ask for the next step, once of several who do at once; raises Unanswerable, Already."""
    members, _ = await _left(deed.message, sweeper, store)
    mine = f"{deed.by} {secrets.token_hex(4)}"
    first = await store.claim(f"escalate:{deed.message}", mine, _AT_ONCE_S)
    if first != mine:
        raise Already("escalate", first.partition(" ")[0])
    await store.do(deed)
    return members


async def _tried(members: list[Alert], store: Store, client: AsyncWebClient) -> str:
    """What people said of it so far: their notes, and the last lines of the thread where Slack gives them in time."""
    lines = [n.text for n in members[0].notes]
    where = (await store.where([members[0].message])).get(members[0].message)
    with suppress(SlackApiError, TimeoutError):
        if where is not None:
            async with asyncio.timeout(_READ_S):
                found: Any = await client.conversations_replies(channel=where[0], ts=where[1], limit=200)
            people = [m for m in found.get("messages") or () if not m.get("bot_id") and m.get("ts") != where[1]]
            lines += [text for m in people[-_SAID:] if (text := " ".join(written(m).split())) and not any(n in text for n in lines)]
    return "\n".join(f"- {line}" for line in lines)


def register(app: AsyncApp, door: Door) -> None:
    """The button of an alert, and its dialog."""
    store = door.store

    @app.action(ESCALATE)
    async def escalated(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message = Visit.click(body, context), body["actions"][0]["value"]

        async def opened(_: Sees) -> None:
            members, steps = await _left(message, door.sweeper, store)
            lead = max(members, key=lambda a: a.escalated)
            to = door.sweeper.asks(min(members, key=lambda a: a.escalated))
            asked = {"who": to.to if to else "", "words": to.words if to else "", "step": lead.escalated + 1, "of": len(steps)}
            tried = await _tried(members, store, door.client)
            view = owning.escalation(asked, tried, say.kept({"message": message}, body), channel=not any(a.incident for a in members))
            await say.open_dialog(door.client, body, view)

        await say.told(await door.enter(visit, "escalate", lambda _: of_message(message, store), opened), respond)

    @app.view(owning.ESCALATION)
    async def appealed(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], context: AsyncBoltContext) -> None:
        kept, given, user = say.remembered(view), say.given(view), body["user"]["id"]
        if not given.get(owning.TEXT, "").strip():
            await ack(response_action="errors", errors={owning.TEXT: "Say why: who is asked wants to know."})
            return
        await ack()
        message = kept["message"]

        async def asked(_: Sees) -> Message:
            words = given[owning.TEXT].strip(), given.get(owning.SEVERITY, ""), given.get(owning.TRIED, "").strip()
            deed = Deed(verb="escalate", by=user, at=time.time(), message=message, text=words[0], severity=words[1], tried=words[2])
            members = await _ask(deed, door.sweeper, store)
            if owning.CHANNEL in given:
                appeal = Appeal(by=user, at=deed.at, why=words[0], severity=words[1], tried=words[2])
                with suppress(Unanswerable):  # there is one, or will be
                    await own.open_channel(members, user, door.sweeper, store, appeal)
            return messages.done("The next one is asked to see to it.")

        respond = AsyncRespond(response_url=kept["respond"], proxy=door.client.proxy, ssl=door.client.ssl)
        visit = Visit.dialog(body, context, kept["channel"])
        await say.told(await door.enter(visit, "escalate", lambda _: of_message(message, store), asked), respond)
