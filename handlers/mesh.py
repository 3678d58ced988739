"""`/mesh ...`: the verbs, and the slash command."""

from __future__ import annotations

import difflib
import html
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from slack_sdk.errors import SlackApiError

from checks.diagnosis import UnknownHost
from handlers import ack, alerts, broken, clusters, escalate, explain, routes, say, silence, whatif, why
from handlers.errors import UnknownVerb, answered
from handlers.say import Asked
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper
    from templates.blocks import Message


_TOKEN = re.compile(r"<(?:(@|!)[^>]*|[^>|]*\|([^>]*)|(?:https?://)?([^>|]*))>")


class Verb(NamedTuple):
    """What people type after `/mesh`: how it is written, what it does, and who answers."""

    written: str
    does: str
    answer: Callable[[Asked], Awaitable[Message]]


async def _help(_: Asked) -> Message:
    return messages.help({verb.written: verb.does for verb in VERBS.values()})


def _looks(at: Callable[[str, Sweeper], Awaitable[Message]]) -> Callable[[Asked], Awaitable[Message]]:
    """A verb that only looks: it needs to know neither who asks nor the store."""
    return lambda asked: at(asked.words, asked.sweeper)


VERBS = {
    "why": Verb("why HOST", "why calls to a host fail, for whom, and what repairs it", _looks(why.answer)),
    "routes": Verb("routes HOST", "the rules of a host, their shares and endpoints, as callers see them", _looks(routes.answer)),
    "broken": Verb("broken", "everything that fails now, the worst first", _looks(broken.answer)),
    "whatif": Verb("whatif", "what a change would break and mend, before anybody applies it", _looks(whatif.answer)),
    "alerts": Verb("alerts", "what is open, who sees to it, and what is silenced", alerts.answer),
    "ack": Verb("ack HOST [2h]", "you see to what fires on a host", ack.answer),
    "silence": Verb("silence HOST 2h WHY", "what fires on a host is not told for some time", silence.answer),
    "escalate": Verb("escalate HOST", "the next one is asked to see to what fires on a host", escalate.answer),
    "clusters": Verb("clusters", "the registered clusters, and what cannot be read of them", _looks(clusters.answer)),
    "explain": Verb("explain CODE", "one cause of the catalogue, by code or name", _looks(explain.answer)),
    "help": Verb("help", "this list", _help),
}


def typed(text: str) -> str:
    """What a person typed, of a text as Slack passes it on: mentions gone, links as they were written, entities as characters."""
    return html.unescape(_TOKEN.sub(lambda m: " " if m[1] else m[2] or m[3] or "", text)).strip().removeprefix("/mesh").strip()


def split(text: str) -> tuple[str, str]:
    """The first word, and the rest with its lines."""
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


async def answer(asked: Asked) -> Message:
    """The answer to the words of a person; a host alone asks why. Raises what `errors.answered` knows to word."""
    word, rest = split(asked.words)
    if not word:
        return await _help(asked)
    if (verb := VERBS.get(word.lower())) is not None:
        return await verb.answer(asked._replace(words=rest.strip()))
    nearest = difflib.get_close_matches(word.lower(), VERBS, n=1)
    if not rest and not nearest:
        try:
            return await why.answer(word, asked.sweeper)
        except UnknownHost as unknown:
            if unknown.candidates:
                raise
    raise UnknownVerb(word, nearest[0] if nearest else None)


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """Answer the slash command, for the person alone."""

    @app.command("/mesh")
    async def mesh(ack: AsyncAck, command: dict[str, Any], respond: AsyncRespond, client: AsyncWebClient) -> None:
        await ack()
        text = typed(command.get("text", ""))
        if text.lower() == "whatif":
            try:
                await whatif.open_modal(command, client, sweeper)
            except SlackApiError as refused:
                # A trigger opens one modal: the same command told twice has opened it already.
                if (why := refused.response.get("error")) != "exchanged_trigger_id":
                    await say.whisper(messages.error(f"Slack did not let me open the dialog ({why}); try again."), respond)
        elif await store.once(f"command:{command['trigger_id']}"):
            await say.whisper(await say.shareable(await answered(answer(Asked(text, command["user_id"], sweeper, store))), store), respond)
