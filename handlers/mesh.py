"""`/mesh ...`: the verbs, and the slash command."""

from __future__ import annotations

import difflib
import html
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from checks.diagnosis import UnknownHost
from checks.pasted import read
from handlers import ack, alerts, audit, broken, changes, clusters, escalate, explain, own, routes, runbook, say, silence, whatif, why
from handlers.door import Visit, nothing
from handlers.errors import UnknownVerb
from handlers.say import Asked
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from handlers.door import About, Door, Sees
    from handlers.errors import Told
    from templates.blocks import Message


_TOKEN = re.compile(r"<(?:(@|!)[^>]*|[^>|]*\|([^>]*)|(?:https?://)?([^>|]*))>")
_ADDRESSED = re.compile(r"\A(?:\s*<[@!][^>]*>)+")
_PERSON = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")


class Verb(NamedTuple):
    """What people type after `/mesh`: how it is written, what it does, who answers, and what it is about."""

    written: str
    does: str
    answer: Callable[[Asked], Awaitable[Message]]
    about: Callable[[Asked], Awaitable[About]] = nothing
    alone: bool = False
    """Whether the answer is for nobody but who asked."""


async def _help(_: Asked) -> Message:
    return messages.help({verb.written: verb.does for verb in VERBS.values()})


VERBS = {
    "why": Verb("why HOST", "why calls to a host fail, for whom, and what repairs it", why.answer, why.about),
    "routes": Verb("routes HOST", "the rules of a host, their shares and endpoints, as callers see them", routes.answer, routes.about),
    "changes": Verb("changes HOST [14:02]", "how a host stood in the last day, and what changed on its way", changes.answer, changes.about),
    "broken": Verb("broken", "everything that fails now, the worst first", broken.answer),
    "whatif": Verb("whatif", "what a change would break and mend, before anybody applies it", whatif.answer, whatif.about),
    "alerts": Verb(
        "alerts [--since 7d]", "what is open, who sees to it, and what is silenced; or what ended, and how long it took", alerts.answer
    ),
    "ack": Verb("ack HOST [2h]", "you see to what fires on a host", ack.answer, ack.about),
    "silence": Verb("silence HOST 2h WHY", "what fires on a host is not told for some time", silence.answer, silence.about),
    "handover": Verb("handover HOST @PERSON", "another one sees to what fires on a host", own.hand_over, own.about),
    "note": Verb("note HOST TEXT", "how it stands, on the alert and in its thread", own.note, own.about_either),
    "resolve": Verb("resolve HOST WHY", "what fires on a host is done, although it is seen still", own.resolve, own.about),
    "reopen": Verb("reopen HOST", "what was called done is told of again", own.reopen, own.about_closed),
    "incident": Verb("incident HOST", "a channel of its own for what fires on a host", own.incident, own.about),
    "escalate": Verb("escalate HOST [WHY]", "the next one is asked to see to what fires on a host", escalate.answer, escalate.about),
    "clusters": Verb("clusters", "the registered clusters, and what cannot be read of them", clusters.answer),
    "explain": Verb(
        "explain CODE or ERROR",
        "one cause of the catalogue, or what a pasted log line, body or curl output means",
        explain.answer,
        explain.about,
    ),
    "audit": Verb("audit [@PERSON] [VERB] [24h]", "what people did, and what they were refused", audit.answer, audit.about, alone=True),
    "help": Verb("help", "this list", _help),
}


def typed(text: str) -> str:
    """What a person typed, of a text as Slack passes it on: who is addressed gone, people as ids, links as they were written, entities as characters."""
    text = _PERSON.sub(r" \1 ", _ADDRESSED.sub(" ", text))
    return html.unescape(_TOKEN.sub(lambda m: " " if m[1] else m[2] or m[3] or "", text)).strip().removeprefix("/mesh").strip()


def split(text: str) -> tuple[str, str]:
    """The first word, and the rest with its lines."""
    word, *rest = text.split(maxsplit=1) or [""]
    return word, rest[0] if rest else ""


async def answer(visit: Visit, words: str, door: Door, *, share: bool = False) -> Told | None:
    """What came of the words of a person; a host alone asks why. With `share` an answer has a button to share it. None: Slack has sent it before."""
    word, rest = split(words)
    if word.lower() not in VERBS and rest and is_pasted(words):
        word, rest = "explain", words
    name, nearest = word.lower() or "help", difflib.get_close_matches(word.lower(), VERBS, n=1)
    alone = name not in VERBS and not rest and not nearest
    unknown = UnknownVerb(word, nearest[0] if nearest else None) if name not in VERBS else None
    name, rest = ("why", word) if alone else (name if name in VERBS else "help", rest.strip())
    verb = VERBS[name]

    live = ""

    def asked(sees: Sees) -> Asked:
        return Asked(rest, visit.user, visit.channel, visit.thread, door.sweeper, door.store, sees, door.may)

    async def about(sees: Sees) -> About:
        nonlocal live
        try:
            found = await verb.about(asked(sees))
            live = found.names[0] if name in {"why", "explain"} and found.names else ""
        except UnknownHost as host:
            if unknown is None or host.candidates:
                raise
            raise unknown from None
        return found

    async def work(sees: Sees) -> Message:
        if unknown is not None and not alone:
            raise unknown
        message = await verb.answer(asked(sees))
        return await say.shareable(message, door.store) if share and not verb.alone else message

    told = await door.enter(visit, name, about, work)
    return told._replace(alone=told.alone or verb.alone, live=live if told.result == "done" else "") if told is not None else None


def is_pasted(words: str) -> bool:
    """Whether words that begin with no verb are an error that somebody pasted."""
    found = read(words)
    return bool(found.flags or found.cluster or found.code or found.details or found.failure)


def register(app: AsyncApp, door: Door) -> None:
    """Answer the slash command, for the person alone."""

    @app.command("/mesh")
    async def mesh(ack: AsyncAck, command: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, text = Visit.command(command, context), typed(command.get("text", ""))
        if text.lower() == "whatif":
            told = await door.enter(visit, "whatif", nothing, lambda _: whatif.open_modal(command, door))
        else:
            told = await answer(visit, text, door, share=True)
        await say.told(told, respond)
        await runbook.follow(told, door, lambda message: say.whisper(message, respond))
