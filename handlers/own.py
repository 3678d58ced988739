"""Who sees to an alert and how it stands: `handover`, `note`, `resolve`, `reopen`, and the same from the menu of its message.

In the thread of an alert the words are about that alert; elsewhere the host comes first.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot.alerts import State
from bot.incidents import name_of
from bot.store import Deed, Incident
from bot.tell import CLOSE, HAND, INCIDENT, MORE, NOTE, REOPEN, UNTIL
from handlers import say
from handlers.ack import firing_on, of_alerts, pass_on, since, spoken, take
from handlers.door import About, Visit
from handlers.errors import Already, Unanswerable
from templates import messages, owning
from templates.words import listed, short

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext

    from bot.alerts import Alert, Appeal
    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_KNOWN_S = 7 * 86400.0  # so long it is known who called it done
_LONGEST = 600  # characters of what somebody says
_PERSON = re.compile(r"[UW][A-Z0-9]{2,24}")


class On(NamedTuple):
    """The alerts that words are about, and the words without the host."""

    alerts: list[Alert]
    words: str

    @property
    def messages(self) -> list[str]:
        """The ids of their messages."""
        return list(dict.fromkeys(a.message for a in self.alerts))

    @property
    def hosts(self) -> str:
        """What they are about, in words."""
        return listed(dict.fromkeys(short(a.finding.host) or a.finding.cluster for a in self.alerts))


async def on(asked: Asked, *, closed: bool = False) -> On:
    """What fires in the thread where it was said, else on the host that comes first; raises Unanswerable. With `closed` also what was called done."""
    message = await _thread(asked)
    if message is None:
        host, _, rest = asked.words.strip().partition(" ")
        return On(await firing_on(host, asked), rest.strip())
    done = [a for a in (await asked.store.alerts()).values() if a.message == message and a.state is State.CLOSED] if closed else []
    alerts = done or await spoken(message, asked.store, "nobody needs to do anything about it")
    first, _, rest = asked.words.strip().partition(" ")
    names = {name for a in alerts for name in (a.finding.host, short(a.finding.host)) if name}
    return On(alerts, rest.strip() if first.lower() in names else asked.words.strip())


async def _thread(asked: Asked) -> str | None:
    """The message in whose thread it was said; None elsewhere."""
    alert = await asked.store.alert_at(asked.channel, asked.thread) if asked.thread else None
    return alert.message if alert is not None else None


async def about(asked: Asked) -> About:
    """What fires in the thread, or on the host that was typed; raises Unanswerable."""
    return of_alerts((await on(asked)).alerts)


async def about_either(asked: Asked) -> About:
    """What fires, or was called done; raises Unanswerable."""
    return of_alerts((await on(asked, closed=True)).alerts)


async def about_closed(asked: Asked) -> About:
    """What somebody called done; raises Unanswerable."""
    return of_alerts(await _closed_on(asked))


# --- by words ----------------------------------------------------------------------------------------------------------------


async def hand_over(asked: Asked) -> Message:
    """Another person sees to it; raises Unanswerable."""
    meant = await on(asked)
    to = _PERSON.search(meant.words)
    if to is None:
        raise Unanswerable("To whom? Write /mesh handover HOST @PERSON, or in the thread of the alert: handover @PERSON.")
    await _may(to[0], of_alerts(meant.alerts), asked.may)
    for message in meant.messages:
        await pass_on(message, to[0], asked.user, asked.store)
    return owning.handed(meant.hosts, to[0])


async def note(asked: Asked) -> Message:
    """Say how it stands; raises Unanswerable."""
    meant = await on(asked, closed=True)
    await _note(meant, asked.user, asked.store)
    return messages.done(f"Noted on {meant.hosts}.")


async def resolve(asked: Asked) -> Message:
    """It is done; raises Unanswerable, Already."""
    meant = await on(asked)
    await _close(meant, asked.user, asked.store)
    return owning.closed(meant.hosts)


async def reopen(asked: Asked) -> Message:
    """It is not done; raises Unanswerable, Already."""
    closed = await _closed_on(asked)
    for message in dict.fromkeys(a.message for a in closed):
        await _reopen(message, asked.user, asked.store)
    return messages.done(f"{On(closed, '').hosts} is told of again.")


async def incident(asked: Asked) -> Message:
    """A channel of its own; raises Unanswerable."""
    meant = await on(asked)
    for message in meant.messages:
        await open_channel([a for a in meant.alerts if a.message == message], asked.user, asked.sweeper, asked.store)
    return messages.done(f"A channel is being opened for {meant.hosts}; its thread says when it is there.")


async def open_channel(alerts: Sequence[Alert], by: str, sweeper: Sweeper, store: Store, appeal: Appeal | None = None) -> None:
    """A channel for the alerts of a message, with who wants it, who sees to it, and who is asked by the escalation so far and next. Raises Unanswerable when there is one."""
    if any(a.incident for a in alerts):
        raise Unanswerable("It has a channel already; the message of the alert names it.")
    lead = max(alerts, key=lambda a: (a.finding.failing_share, a.id))
    chain = sweeper.chain(lead.finding)
    asked = [to.to for n in range(min(lead.escalated + 1, len(chain))) if (to := sweeper.asks(replace(lead, escalated=n))) is not None]
    people = (by, *(a.ack.by for a in alerts if a.ack is not None), *(who for who in asked if who))
    wanted = Incident(message=lead.message, name=name_of(lead), by=by, at=time.time(), people=tuple(dict.fromkeys(people)), appeal=appeal)
    if not await store.want(wanted):
        raise Unanswerable("A channel is being opened for it already.")


async def _note(meant: On, by: str, store: Store) -> None:
    if not meant.words:
        raise Unanswerable("What is to be noted? Write it behind the word: note rolling back to v1, five minutes.")
    for message in meant.messages:
        await store.do(Deed(verb="note", by=by, at=time.time(), message=message, text=meant.words[:_LONGEST]))


async def _close(meant: On, by: str, store: Store) -> None:
    """Call it done, once of several who do; raises Unanswerable without a reason, and Already."""
    if not meant.words:
        raise Unanswerable("Why is it done? Write it behind the word: resolve rolled back to v1. Whoever reads the alert wants to know.")
    for message in meant.messages:
        first = await store.claim(f"resolve:{message}:{since(a for a in meant.alerts if a.message == message)}", by, _KNOWN_S)
        if first != by:
            raise Already("resolve", first)
        await store.do(Deed(verb="close", by=by, at=time.time(), message=message, text=meant.words[:_LONGEST]))


async def _reopen(message: str, by: str, store: Store) -> None:
    closed = await _closed(message, store)
    at = max(a.closed.at for a in closed if a.closed is not None)
    first = await store.claim(f"reopen:{message}:{at:.3f}", by, _KNOWN_S)
    if first != by:
        raise Already("reopen", first)
    await store.do(Deed(verb="reopen", by=by, at=time.time(), message=message))


async def _closed(message: str, store: Store) -> list[Alert]:
    """The alerts of a message that somebody called done; raises Unanswerable when there are none."""
    return _some(a for a in (await store.alerts()).values() if a.message == message and a.state is State.CLOSED)


async def _closed_on(asked: Asked) -> list[Alert]:
    if (message := await _thread(asked)) is not None:
        return await _closed(message, asked.store)
    wanted = asked.words.strip().strip("`'\"<>,?.").lower()
    closed = [a for a in (await asked.store.alerts()).values() if a.state is State.CLOSED]
    return _some(
        a
        for a in closed
        if wanted in {a.finding.host.lower(), short(a.finding.host).lower(), short(a.finding.host).partition(".")[0].lower()}
    )


def _some(alerts: Iterable[Alert]) -> list[Alert]:
    found = list(alerts)
    if not found:
        raise Unanswerable("Nobody called this done while its fault is seen; what is gone fires again by itself when it comes back.")
    return found


async def _may(to: str, found: About, may: Callable[[str, str, About], Awaitable[bool]]) -> None:
    """Raises Unanswerable when who is handed it could do nothing about it."""
    if not await may(to, "ack", found):
        raise Unanswerable("They may not see to this: the settings (access) give them no right to it.")


# --- by the menu -------------------------------------------------------------------------------------------------------------

_VERBS = {UNTIL: "ack", HAND: "handover", NOTE: "note", CLOSE: "resolve", INCIDENT: "incident"}


def register(app: AsyncApp, door: Door) -> None:
    """The menu of an alert, the button Reopen, and the dialogs that they open."""
    store = door.store

    @app.action(MORE)
    async def chosen(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        word, _, message = str(body["actions"][0]["selected_option"]["value"]).partition(" ")

        visit = Visit.click(body, context)

        async def opened(_: Sees) -> Message | None:
            if word not in _VERBS:
                raise Unanswerable("This choice is of another version of me and does nothing any more.")
            if word == INCIDENT:
                await open_channel(await spoken(message, store, "it needs no channel"), visit.user, door.sweeper, store)
                return messages.done("A channel is being opened for it; the thread says when it is there.")
            kept = say.kept({"do": word, "message": message}, body)
            await say.open_dialog(door.client, body, owning.dialog(word, time.time(), kept))
            return None

        await say.told(
            await door.enter(Visit.click(body, context), _VERBS.get(word, "ack"), lambda _: _about(message, store), opened), respond
        )

    @app.action(REOPEN)
    async def reopened(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message = Visit.click(body, context), body["actions"][0]["value"]

        async def about(_: Sees) -> About:
            return of_alerts(await _closed(message, store))

        async def again(_: Sees) -> Message:
            await _reopen(message, visit.user, store)
            return messages.done("It is told of again.")

        await say.told(await door.enter(visit, "reopen", about, again), respond)

    _dialog(app, door)


def _dialog(app: AsyncApp, door: Door) -> None:
    store = door.store

    @app.view(owning.OWN)
    async def owned(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], context: AsyncBoltContext) -> None:
        kept, given, user = say.remembered(view), say.given(view), body["user"]["id"]
        word, message = kept["do"], kept["message"]
        wrong = _wrong(word, given, time.time())
        if wrong:
            await ack(response_action="errors", errors=wrong)
            return
        await ack()

        async def done(_: Sees) -> Message:
            meant = On(await spoken(message, store, "nobody needs to do anything about it"), given.get(owning.TEXT, ""))
            match word:
                case "until":
                    return await _until(message, user, float(given[owning.MOMENT]), store)
                case "hand":
                    await _may(given[owning.PERSON], of_alerts(meant.alerts), door.may)
                    await pass_on(message, given[owning.PERSON], user, store)
                    if meant.words:
                        await _note(meant, user, store)
                    return owning.handed(meant.hosts, given[owning.PERSON])
                case "note":
                    await _note(meant, user, store)
                    return messages.done(f"Noted on {meant.hosts}.")
                case _:
                    await _close(meant, user, store)
                    return owning.closed(meant.hosts)

        respond = AsyncRespond(response_url=kept["respond"], proxy=door.client.proxy, ssl=door.client.ssl)
        visit = Visit.dialog(body, context, kept["channel"])
        await say.told(await door.enter(visit, _VERBS[word], lambda _: _about(message, store), done), respond)


async def _until(message: str, user: str, moment: float, store: Store) -> Message:
    """See to it until a moment, also for who does so already; raises Already, Unanswerable."""
    firing = await spoken(message, store, "nobody needs to see to it")
    held = next((a.ack for a in firing if a.ack is not None), None)
    if held is not None and held.by == user:
        await pass_on(message, user, user, store, until=moment)
    else:
        await take(message, user, store, moment - time.time())
    return owning.until(moment)


async def _about(message: str, store: Store) -> About:
    return of_alerts([a for a in (await store.alerts()).values() if a.message == message and a.state is State.FIRING])


def _wrong(word: str, given: Mapping[str, str], now: float) -> dict[str, str]:
    """What is missing in a dialog, by its input."""
    wrong: dict[str, str] = {}
    if word == UNTIL and not float(given.get(owning.MOMENT) or 0) > now:
        wrong[owning.MOMENT] = "Choose a time that is to come."
    if word == HAND and not given.get(owning.PERSON):
        wrong[owning.PERSON] = "Choose a person."
    if word in {NOTE, CLOSE} and not given.get(owning.TEXT, "").strip():
        wrong[owning.TEXT] = "Write it down: whoever reads the alert wants to know."
    return wrong
