"""`ack HOST [2h]` and the buttons Ack and Give back: somebody sees to an alert, or does not any more."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from bot.alerts import State
from bot.settings import duration
from bot.store import Deed
from bot.tell import ACK, UNACK
from handlers import say
from handlers.errors import Unanswerable, answered
from templates import messages
from templates.words import listed, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from bot.alerts import Alert
    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.say import Asked
    from templates.blocks import Message

_KEPT_S = 7 * 86400.0  # an ack without an end


async def answer(asked: Asked) -> Message:
    """Take what fires on a host, for as long as the last word says; raises Unanswerable."""
    *host, last = asked.words.split() or [""]
    long = duration(last)
    if long is None:
        host = [*host, last]
    firing = await firing_on(" ".join(host), asked.store)
    told: Message | None = None
    for message in dict.fromkeys(a.message for a in firing):
        told = await take(message, asked.user, asked.store, long) or told
    hosts = listed(dict.fromkeys(short(a.finding.host) for a in firing))
    return told or messages.done(f"You see to {hosts}{f' for {last}' if long is not None else ''}.")


async def firing_on(word: str, store: Store) -> list[Alert]:
    """The alerts that fire on the host that was typed; raises Unanswerable with those that do fire."""
    wanted = word.strip().strip("`'\"<>,?.").lower()
    if not wanted:
        raise Unanswerable("Which host? Write it behind the word, for example /mesh ack payments.core 2h.")
    firing = [a for a in (await store.alerts()).values() if a.state is State.FIRING]
    found = [
        a
        for a in firing
        if wanted in {a.finding.host.lower(), short(a.finding.host).lower(), short(a.finding.host).partition(".")[0].lower()}
    ]
    if not found:
        names = list(dict.fromkeys(short(a.finding.host) for a in firing))
        near = difflib.get_close_matches(wanted, names, n=3) or names[:5]
        raise Unanswerable(f"Nothing fires on {wanted}. " + (f"What fires: {listed(near)}." if near else "No alert is open."))
    return found


async def take(message: str, user: str, store: Store, long: float | None) -> Message | None:
    """See to the alerts of a message; what to say when somebody else does already. Raises Unanswerable when it is resolved."""
    now = time.time()
    members = _members(await store.alerts(), message)
    if not members:
        raise Unanswerable("This alert is resolved already: nobody needs to see to it.")
    if (held := next((a.ack for a in members if a.ack is not None), None)) is not None:
        return messages.held(msgspec.to_builtins(held))
    until = None if long is None else now + long
    first = await store.claim(_claim(message, members), user, _KEPT_S if long is None else long)
    if first != user:
        return messages.held({"by": first})
    await store.do(Deed(verb="ack", by=user, at=now, message=message, until=until))
    return None


async def give_back(message: str, user: str, store: Store) -> None:
    """Nobody sees to the alerts of a message any more; raises Unanswerable when nobody did."""
    members = _members(await store.alerts(), message)
    if not any(a.ack for a in members):
        raise Unanswerable("Nobody sees to this alert." if members else "This alert is resolved already.")
    await store.release(_claim(message, members))
    await store.do(Deed(verb="unack", by=user, at=time.time(), message=message))


def _members(alerts: Mapping[str, Alert], message: str) -> list[Alert]:
    return [a for a in alerts.values() if a.message == message and a.state is State.FIRING]


def _claim(message: str, members: Sequence[Alert]) -> str:
    """What people race for: this message, since it fired last."""
    return f"ack:{message}:{min(a.fired_at or 0.0 for a in members):.3f}"


def register(app: AsyncApp, _: Sweeper, store: Store) -> None:
    """The buttons of an alert: what they do is seen in the message; only who comes too late is told so."""

    @app.action(ACK)
    async def acked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action, user = body["actions"][0], body["user"]["id"]

        async def taken() -> Message:
            return await take(action["value"], user, store, None) or messages.done("You see to it.")

        if await store.once(f"click:{user}:{action['action_ts']}"):
            await say.whisper(await answered(taken()), respond)

    @app.action(UNACK)
    async def unacked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action, user = body["actions"][0], body["user"]["id"]

        async def given() -> Message:
            await give_back(action["value"], user, store)
            return messages.done("Nobody sees to it now.")

        if await store.once(f"click:{user}:{action['action_ts']}"):
            await say.whisper(await answered(given()), respond)
