"""`silence HOST 2h WHY`, and the buttons Silence and End silence: what shall not be told for some time, who said so and why."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError
from slack_bolt.context.respond.async_respond import AsyncRespond

from bot import access
from bot.alerts import OUTAGE, Silence, State, namespaces
from bot.settings import duration
from bot.store import Deed
from bot.tell import SILENCE, UNSILENCE
from checks.diagnosis import UnknownHost, resolve
from handlers import say
from handlers.ack import of_alerts, spoken
from handlers.door import About, Visit
from handlers.errors import Already, Unanswerable
from templates import messages
from templates.words import amount, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext

    from bot.alerts import Alert
    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

LONGEST_S = 30 * 86400.0
_AS_LONG_S = 60.0  # who silences the same for so little longer silences nothing more
_KNOWN_S = 86400.0  # so long it is known who ended a silence
_AT_ONCE_S = 10.0  # until a silence is in the store, of two people the first one made it
_KEYS = ("cluster", "namespace", "host", "cause", "resource")
_LONG = [("30 minutes", "1800"), ("1 hour", "3600"), ("4 hours", "14400"), ("1 day", "86400"), ("7 days", "604800")]


async def answer(asked: Asked) -> Message:
    """Silence a host, or what `key=value` words say, for the duration that follows; the rest is the reason. Raises Unanswerable, Already."""
    match, rest = _understood(asked)
    silence = _made(match, asked.user, duration(rest[0]) or 0.0, " ".join(rest[1:]))
    await _silence(silence, asked.store)
    now = await _fitting(silence, asked.store)
    among = "is" if now == 1 else "are"
    return messages.done(
        f"{messages.matchers(match)} is silent for {rest[0]}; {amount(now, 'alert')} that {'fires' if now == 1 else 'fire'} now {among} among it."
    )


async def about(asked: Asked) -> About:
    """What the words would silence; raises Unanswerable, UnknownHost."""
    return _of(_understood(asked)[0], asked.sweeper)


def _of(match: Mapping[str, str], sweeper: Sweeper) -> About:
    return About(access.of_silence(match, sweeper.meshes()), (messages.matchers(match),))


def _understood(asked: Asked) -> tuple[dict[str, str], list[str]]:
    """What to silence, and behind it for how long and why; raises Unanswerable, UnknownHost."""
    match, rest = _match(asked.words.split(), asked.sweeper)
    if not match or duration(rest[0] if rest else "") is None:
        raise Unanswerable(
            "Write what to silence, for how long and why: /mesh silence payments.core 2h database move. "
            f"Instead of a host, words such as cluster=east or cause=subset-empty-weighted do ({', '.join(_KEYS)}; * stands for anything)."
        )
    return match, rest


async def _fitting(silence: Silence, store: Store) -> int:
    """How many alerts that fire now it is about."""
    return sum(a.state is State.FIRING and silence.fits(a.finding) for a in (await store.alerts()).values())


async def _silence(silence: Silence, store: Store) -> None:
    """Put a silence into effect; raises Already when somebody else silenced the same for as long."""
    same = [s for s in (await store.silences()).values() if s.match == silence.match and s.end > silence.end - _AS_LONG_S]
    if same:
        raise Already("silence", same[0].by, same[0].until)
    first = await store.claim(f"silence:{json.dumps(silence.match, sort_keys=True)}", silence.by, _AT_ONCE_S)
    if first != silence.by:
        raise Already("silence", first)
    await store.do(Deed(verb="silence", by=silence.by, at=silence.at, silence=silence))


def _match(words: list[str], sweeper: Sweeper) -> tuple[dict[str, str], list[str]]:
    """What the first words say to silence, and the other words."""
    match: dict[str, str] = {}
    while words and (key := words[0].partition("=")[0]) in _KEYS and "=" in words[0]:
        match[key] = words[0].partition("=")[2]
        words = words[1:]
    if not match and words:
        try:
            host = resolve(words[0].strip("`'\"<>,"), sweeper.meshes())[0][0]
        except UnknownHost as unknown:
            if unknown.candidates:
                raise
            raise Unanswerable(f'No host "{unknown.word}", so there is nothing to silence.') from None
        match, words = {"host": host}, words[1:]
    return match, words


def _made(match: dict[str, str], by: str, long: float, why: str) -> Silence:
    if not 0 < long <= LONGEST_S:
        raise Unanswerable("A silence lasts 30 days at most.")
    now = time.time()
    return Silence(id=secrets.token_hex(4), match=match, by=by, at=now, until=now + long, why=why[:300])


async def _known(silence_id: str, store: Store) -> Silence:
    silence = (await store.silences()).get(silence_id)
    if silence is None:
        if (by := await store.claimed(f"unsilence:{silence_id}")) is not None:
            raise Already("unsilence", by)
        raise Unanswerable("This silence is over already.")
    return silence


async def _end(silence_id: str, user: str, store: Store) -> Message:
    """End a silence; raises Unanswerable when it is over already, and Already when somebody else just ended it."""
    silence = await _known(silence_id, store)
    first = await store.claim(f"unsilence:{silence_id}", user, _KNOWN_S)
    if first != user:
        raise Already("unsilence", first)
    await store.do(Deed(verb="unsilence", by=user, at=time.time(), silence=silence))
    return messages.done(f"{messages.matchers(silence.match)} is no longer silent.")


def _choices(alert: Alert) -> list[tuple[str, str]]:
    """What a person may silence from an alert, the least first; a modal's values are short, so they are words."""
    finding = alert.finding
    if finding.cause == OUTAGE:
        return [(f"that {finding.cluster} cannot be read", "cause cluster"), (f"everything in {finding.cluster}", "cluster")]
    choices = [(f"this cause on {short(finding.host)}", "cause host"), (f"everything on {short(finding.host)}", "host")]
    choices.append((f"{finding.code} everywhere in {finding.cluster}", "cause cluster"))
    choices += [(f"everything about namespace {n}", f"namespace {n}") for n in sorted(namespaces(finding))]
    return [*choices, (f"everything in {finding.cluster}", "cluster")]


async def _chosen(choice: str, alert_id: str, store: Store) -> dict[str, str]:
    """The matchers of what was chosen; raises Unanswerable."""
    alert = await store.alert(alert_id)
    if alert is None:
        raise Unanswerable("I do not remember this alert any more.")
    finding = alert.finding
    said = {"host": finding.host, "cause": finding.cause, "cluster": finding.cluster}
    if choice.startswith("namespace "):
        return {"cluster": finding.cluster, "namespace": choice.removeprefix("namespace ")}
    return {"cluster": finding.cluster} | {key: said[key] for key in choice.split()}


def register(app: AsyncApp, door: Door) -> None:
    """The buttons of an alert and of the list of silences, and the dialog that asks for how long and why, and then shows what it would do."""
    store = door.store

    async def speaking(message: str) -> Alert:
        return max(await spoken(message, store, "there is nothing to silence"), key=lambda a: a.finding.failing_share)

    @app.action(SILENCE)
    async def asked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        message = body["actions"][0]["value"]

        async def about(_: Sees) -> About:
            return of_alerts([await speaking(message)])

        async def opened(_: Sees) -> None:
            alert = await speaking(message)
            view = messages.silence_modal(_choices(alert), _LONG, say.kept({"alert": alert.id}, body))
            await say.open_dialog(door.client, body, view)

        await say.told(await door.enter(Visit.click(body, context), "silence", about, opened), respond)

    @app.action(UNSILENCE)
    async def ended(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, silence_id = Visit.click(body, context), body["actions"][0]["value"]

        async def about(_: Sees) -> About:
            return _of((await _known(silence_id, store)).match, door.sweeper)

        await say.told(await door.enter(visit, "unsilence", about, lambda _: _end(silence_id, visit.user, store)), respond)

    _dialog(app, door)


def _dialog(app: AsyncApp, door: Door) -> None:
    """The dialog: what is chosen is shown with its matchers, and done when that is sent off."""
    store = door.store

    @app.view(messages.SILENCED)
    async def filled(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any]) -> None:
        given = say.given(view)
        why = given.get(messages.REASON, "").strip()
        what, long = (given.get(n, "") for n in (messages.WHAT, messages.LONG))
        wrong = {name: "Choose one." for name, value in ((messages.WHAT, what), (messages.LONG, long)) if not value}
        if not why:
            wrong[messages.REASON] = "Say why: whoever reads the alert wants to know."
        if wrong:
            await ack(response_action="errors", errors=wrong)
            return
        kept = json.loads(view["private_metadata"])
        try:
            silence = _made(await _chosen(what, kept["alert"], store), body["user"]["id"], float(long), why)
            fits = await _fitting(silence, store)
        except Unanswerable as error:
            await ack(response_action="errors", errors={messages.WHAT: str(error)})
            return
        except RedisError:
            await ack(response_action="errors", errors={messages.WHAT: "My store does not answer; try again."})
            return
        again = kept | {"match": silence.match, "long": silence.end - silence.at, "why": silence.why}
        shown = messages.silence_sure(msgspec.to_builtins(silence), fits, json.dumps(again, ensure_ascii=False))
        await ack(response_action="update", view=shown)

    @app.view(messages.SILENCE_SURE)
    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], context: AsyncBoltContext) -> None:
        await ack()
        kept, user = json.loads(view["private_metadata"]), body["user"]["id"]

        async def about(_: Sees) -> About:
            return _of(kept["match"], door.sweeper)

        async def silenced(_: Sees) -> Message:
            await _silence(_made(kept["match"], user, kept["long"], kept["why"]), store)
            return messages.done(f"{messages.matchers(kept['match'])} is silent now.")

        respond = AsyncRespond(response_url=kept["respond"], proxy=door.client.proxy, ssl=door.client.ssl)
        await say.told(await door.enter(Visit.dialog(body, context, kept["channel"]), "silence", about, silenced), respond)
