"""`ack HOST [2h]` and the buttons Ack and Give back: somebody sees to an alert, or does not any more."""

from __future__ import annotations

import difflib
import time
from typing import TYPE_CHECKING, Any

from bot import access
from bot.alerts import State
from bot.settings import duration
from bot.store import Deed
from bot.tell import ACK, UNACK
from handlers import say
from handlers.door import About, Visit
from handlers.errors import Already, Unanswerable
from templates import messages
from templates.words import listed, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from bot.alerts import Alert
    from bot.store import Store
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_KEPT_S = 7 * 86400.0  # an ack without an end


async def answer(asked: Asked) -> Message:
    """Take what fires on a host, for as long as the last word says; raises Unanswerable, and Already when somebody else sees to all of it."""
    host, last, long = _until(asked.words)
    firing = await firing_on(host, asked)
    taken: list[str] = []
    held: Already | None = None
    for message in dict.fromkeys(a.message for a in firing):
        try:
            await take(message, asked.user, asked.store, long)
            taken.append(message)
        except Already as by:
            held = by
    if held is not None and not taken:
        raise held
    hosts = listed(dict.fromkeys(short(a.finding.host) for a in firing if a.message in taken))
    return messages.done(f"You see to {hosts}{f' for {last}' if long is not None else ''}.")


async def about(asked: Asked) -> About:
    """What fires on the host that was typed; raises Unanswerable."""
    return of_alerts(await firing_on(_until(asked.words)[0], asked))


def _until(words: str) -> tuple[str, str, float | None]:
    """The host, and how long the last word says, if it says that."""
    *host, last = words.split() or [""]
    long = duration(last)
    return (" ".join(host), last, long) if long is not None else (words, "", None)


async def firing_on(word: str, asked: Asked) -> list[Alert]:
    """The alerts that fire on the host that was typed; raises Unanswerable with those that do fire, as far as the person may know."""
    wanted = word.strip().strip("`'\"<>,?.").lower()
    if not wanted:
        raise Unanswerable("Which host? Write it behind the word, for example /mesh ack payments.core 2h.")
    firing = [a for a in (await asked.store.alerts()).values() if a.state is State.FIRING]
    found = [
        a
        for a in firing
        if wanted in {a.finding.host.lower(), short(a.finding.host).lower(), short(a.finding.host).partition(".")[0].lower()}
    ]
    if not found:
        names = list(dict.fromkeys(short(a.finding.host) for a in firing if asked.sees(access.of_finding(a.finding))))
        near = difflib.get_close_matches(wanted, names, n=3) or names[:5]
        raise Unanswerable(f"Nothing fires on {wanted}. " + (f"What fires: {listed(near)}." if near else "No alert is open."))
    return found


def of_alerts(alerts: Iterable[Alert]) -> About:
    """Where alerts are: a deed about several of them needs the right to each."""
    findings = [a.finding for a in alerts]
    return About(
        tuple(dict.fromkeys(map(access.of_finding, findings))), tuple(dict.fromkeys(short(f.host) or f.resource for f in findings))
    )


async def of_message(message: str, store: Store) -> About:
    """What a message speaks for; of one that speaks for nothing any more, nothing is said."""
    return of_alerts(await members(message, store))


async def members(message: str, store: Store) -> list[Alert]:
    """The alerts of a message that fire."""
    return [a for a in (await store.alerts()).values() if a.message == message and a.state is State.FIRING]


async def spoken(message: str, store: Store, otherwise: str) -> list[Alert]:
    """The alerts of a message that fire; raises Unanswerable when it is resolved or called done, or when a newer message speaks for it."""
    known = await store.alerts()
    found = [a for a in known.values() if a.message == message and a.state is State.FIRING]
    if not found:
        if any(a.message == message and a.state is State.CLOSED for a in known.values()):
            raise Unanswerable("This alert was called done: reopen it first, if it is not.")
        again = known.get(message.rpartition("-")[0])
        if again is not None and again.state is State.FIRING and again.told:
            raise Unanswerable(
                f"This message is over: what it told of fires again since, in a newer message ({short(again.finding.host)})."
            )
        raise Unanswerable(f"This alert is resolved already: {otherwise}.")
    return found


async def take(message: str, user: str, store: Store, long: float | None) -> None:
    """See to the alerts of a message. Raises Already when somebody does, Unanswerable when it is resolved."""
    now = time.time()
    firing = await spoken(message, store, "nobody needs to see to it")
    if (held := next((a.ack for a in firing if a.ack is not None), None)) is not None:
        raise Already("ack", held.by, held.until)
    until = None if long is None else now + long
    first = await store.claim(_claim(message, firing), user, _KEPT_S if long is None else long)
    if first != user:
        raise Already("ack", first)
    await store.release(_back(message))
    await store.do(Deed(verb="ack", by=user, at=now, message=message, until=until))


async def give_back(message: str, user: str, store: Store) -> None:
    """Nobody sees to the alerts of a message any more; raises Already when somebody just gave it back, Unanswerable when nobody saw to it."""
    firing = await spoken(message, store, "nobody needs to see to it")
    if not any(a.ack for a in firing):
        if (before := await store.claimed(_back(message))) not in {None, user}:
            raise Already("unack", str(before))
        raise Unanswerable("Nobody sees to this alert.")
    first = await store.claim(_back(message), user, _KEPT_S)
    if first != user:
        raise Already("unack", first)
    await store.release(_claim(message, firing))
    await store.do(Deed(verb="unack", by=user, at=time.time(), message=message))


async def pass_on(message: str, to: str, by: str, store: Store, until: float | None = None) -> None:
    """Another person, or the same one until another time, sees to the alerts of a message. Raises Unanswerable when it is resolved."""
    firing = await spoken(message, store, "nobody needs to see to it")
    await store.release(_claim(message, firing))
    await store.claim(_claim(message, firing), to, _KEPT_S)
    await store.release(_back(message))
    await store.do(Deed(verb="hand", by=by, at=time.time(), message=message, to=to, until=until))


def _back(message: str) -> str:
    """Who gave it back, until somebody takes it again."""
    return f"unack:{message}"


def _claim(message: str, members: Sequence[Alert]) -> str:
    """What people race for: this message, since it was told last."""
    return f"ack:{message}:{since(members)}"


def since(members: Iterable[Alert]) -> str:
    """Since when the alerts of a message are told, as they fired last or were reopened."""
    return f"{min(a.told_at or a.fired_at or 0.0 for a in members):.3f}"


def register(app: AsyncApp, door: Door) -> None:
    """The buttons of an alert: what they do is seen in the message; only who comes too late is told so."""

    @app.action(ACK)
    async def acked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message = Visit.click(body, context), body["actions"][0]["value"]

        async def taken(_: Sees) -> Message:
            await take(message, visit.user, door.store, None)
            return messages.done("You see to it.")

        await say.told(await door.enter(visit, "ack", lambda _: of_message(message, door.store), taken), respond)

    @app.action(UNACK)
    async def unacked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message = Visit.click(body, context), body["actions"][0]["value"]

        async def given(_: Sees) -> Message:
            await give_back(message, visit.user, door.store)
            return messages.done("Nobody sees to it now.")

        await say.told(await door.enter(visit, "unack", lambda _: of_message(message, door.store), given), respond)
