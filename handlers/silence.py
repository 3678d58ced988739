"""`silence HOST 2h WHY`, and the buttons Silence and End silence: what shall not be told for some time, who said so and why."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from slack_bolt.context.respond.async_respond import AsyncRespond
from slack_sdk.errors import SlackApiError

from bot.alerts import Silence, State, namespaces
from bot.settings import duration
from bot.store import Deed
from bot.tell import SILENCE, UNSILENCE
from checks.diagnosis import UnknownHost, resolve
from handlers import say
from handlers.errors import Unanswerable, answered
from templates import messages
from templates.words import amount, short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.alerts import Alert
    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.say import Asked
    from templates.blocks import Message

LONGEST_S = 30 * 86400.0
_KEYS = ("cluster", "namespace", "host", "cause", "resource")
_LONG = [("30 minutes", "1800"), ("1 hour", "3600"), ("4 hours", "14400"), ("1 day", "86400"), ("7 days", "604800")]


async def answer(asked: Asked) -> Message:
    """Silence a host, or what `key=value` words say, for the duration that follows; the rest is the reason. Raises Unanswerable."""
    match, rest = _match(asked.words.split(), asked.sweeper)
    long = duration(rest[0]) if rest else None
    if not match or long is None:
        raise Unanswerable(
            "Write what to silence, for how long and why: /mesh silence payments.core 2h database move. "
            f"Instead of a host, words such as cluster=east or cause=subset-empty-weighted do ({', '.join(_KEYS)}; * stands for anything)."
        )
    silence = _made(match, asked.user, long, " ".join(rest[1:]))
    await asked.store.do(Deed(verb="silence", by=asked.user, at=silence.at, silence=silence))
    now = [a for a in (await asked.store.alerts()).values() if a.state is State.FIRING and silence.fits(a.finding)]
    return messages.done(
        f"{messages.matchers(match)} is silent for {rest[0]}; {amount(len(now), 'alert')} that fires now is among it."
        if len(now) == 1
        else f"{messages.matchers(match)} is silent for {rest[0]}; {amount(len(now), 'alert')} that fire now are among it."
    )


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


async def end(silence_id: str, user: str, store: Store) -> Message:
    """End a silence; raises Unanswerable when it is over already."""
    silence = (await store.silences()).get(silence_id)
    if silence is None:
        raise Unanswerable("This silence is over already.")
    await store.do(Deed(verb="unsilence", by=user, at=time.time(), silence=silence))
    return messages.done(f"{messages.matchers(silence.match)} is no longer silent.")


def _choices(alert: Alert) -> list[tuple[str, str]]:
    """What a person may silence from an alert, the least first; a modal's values are short, so they are words."""
    finding = alert.finding
    choices = [(f"this cause on {short(finding.host)}", "cause host"), (f"everything on {short(finding.host)}", "host")]
    choices.append((f"{finding.code} everywhere in {finding.cluster}", "cause cluster"))
    choices += [(f"everything about namespace {n}", f"namespace {n}") for n in sorted(namespaces(finding))]
    return [*choices, (f"everything in {finding.cluster}", "cluster")]


def _chosen(choice: str, alert: Alert) -> dict[str, str]:
    finding = alert.finding
    said = {"host": finding.host, "cause": finding.cause, "cluster": finding.cluster}
    if choice.startswith("namespace "):
        return {"cluster": finding.cluster, "namespace": choice.removeprefix("namespace ")}
    return {"cluster": finding.cluster} | {key: said[key] for key in choice.split()}


def register(app: AsyncApp, _: Sweeper, store: Store) -> None:
    """The buttons of an alert and of the list of silences, and the modal that asks for how long and why."""

    async def about(message: str) -> Alert:
        alerts = [a for a in (await store.alerts()).values() if a.message == message]
        if not alerts:
            raise Unanswerable("This alert is resolved already: there is nothing to silence.")
        return max(alerts, key=lambda a: a.finding.failing_share)

    @app.action(SILENCE)
    async def asked(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, client: AsyncWebClient) -> None:
        await ack()
        action = body["actions"][0]

        async def opened() -> Message | None:
            alert = await about(action["value"])
            kept = json.dumps({"alert": alert.id, "respond": body.get("response_url", "")})
            try:
                await client.views_open(trigger_id=body["trigger_id"], view=messages.silence_modal(_choices(alert), _LONG, kept))
            except SlackApiError as refused:
                if (why := refused.response.get("error")) != "exchanged_trigger_id":
                    raise Unanswerable(f"Slack did not let me open the dialog ({why}); press it again.") from None
            return None

        told = await answered(opened())
        if told is not None:
            await say.whisper(told, respond)

    @app.view(messages.SILENCED)
    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient) -> None:
        given = {block: next(iter(values.values())) for block, values in view["state"]["values"].items()}
        why = (given.get(messages.REASON, {}).get("value") or "").strip()
        if not why:
            await ack(response_action="errors", errors={messages.REASON: "Say why: whoever reads the alert wants to know."})
            return
        await ack()
        kept, user = json.loads(view["private_metadata"]), body["user"]["id"]
        choice = given[messages.WHAT]["selected_option"]["value"]
        long = float(given[messages.LONG]["selected_option"]["value"])

        async def silenced() -> Message:
            alert = await store.alert(kept["alert"])
            if alert is None:
                raise Unanswerable("I do not remember this alert any more.")
            silence = _made(_chosen(choice, alert), user, long, why)
            await store.do(Deed(verb="silence", by=user, at=silence.at, silence=silence))
            return messages.done(f"{messages.matchers(silence.match)} is silent now.")

        if await store.once(f"view:{view['id']}:{view['hash']}"):
            respond = AsyncRespond(response_url=kept["respond"], proxy=client.proxy, ssl=client.ssl)
            await say.whisper(await answered(silenced()), respond)

    @app.action(UNSILENCE)
    async def ended(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action, user = body["actions"][0], body["user"]["id"]
        if await store.once(f"click:{user}:{action['action_ts']}"):
            await say.whisper(await answered(end(action["value"], user, store)), respond)
