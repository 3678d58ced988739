"""The same words by @mention, which also works in threads, and in direct messages."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from bot import history
from bot.settings import duration
from handlers import mesh, pasted, runbook, say, whatif
from handlers.door import Visit
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp, AsyncBoltContext

    from handlers.door import Door

_TIMED = {"ack", "silence"}
_ABOUT = {"why", "routes", "changes", *_TIMED}
"""Verbs that mean the host of the alert in whose thread they are said."""


def _is_time(verb: str, rest: str) -> bool:
    """Whether what follows a verb is a time, and no host."""
    if verb == "changes":
        return history.when(rest, time.time(), UTC) is not None
    return verb in _TIMED and duration(rest.split(maxsplit=1)[0]) is not None


def register(app: AsyncApp, door: Door) -> None:
    """Answer mentions in a thread, and direct messages where they were written."""

    async def heard(body: dict[str, Any], context: AsyncBoltContext, thread_ts: str | None) -> None:
        event, visit = body["event"], Visit.words(body, context)
        words, files = mesh.typed(event.get("text", "")), event.get("files") or ()
        if files and words.lower() == "whatif":
            told = await whatif.of_files(visit, files, door)
        else:
            verb, rest = mesh.split(words)
            if visit.thread and not rest and verb.lower() in {"", "explain"} and not await about(visit):
                root = await pasted.root_of(visit.channel, visit.thread, door.client)
                words = f"explain {root}" if verb or mesh.is_pasted(root) else words
            elif verb.lower() in _ABOUT and (not rest or _is_time(verb.lower(), rest)):
                words = f"{verb} {await about(visit)} {rest}"
            told = await mesh.answer(visit, words, door)
        if told is None or told.message is None:
            return
        if told.alone and visit.via == "mention":
            await say.aside(told.message, door.client, visit.channel, visit.user, visit.thread or None)
        else:
            await say.aloud(told.message, door.client, visit.channel, thread_ts)
            await runbook.follow(told, door, lambda message: say.aloud(message, door.client, visit.channel, thread_ts))

    async def about(visit: Visit) -> str:
        """The host of the alert in whose thread somebody writes."""
        with suppress(RedisError):
            if visit.thread and (alert := await door.store.alert_at(visit.channel, visit.thread)) is not None:
                return short(alert.finding.host)
        return ""

    @app.event("app_mention")
    async def mentioned(body: dict[str, Any], context: AsyncBoltContext) -> None:
        event = body["event"]
        await heard(body, context, event.get("thread_ts") or event["ts"])

    @app.event("message")
    async def written(body: dict[str, Any], context: AsyncBoltContext) -> None:
        event = body["event"]
        # Only what a person writes or attaches for the bot alone; edits, joins and the bot's own words are messages too.
        if event.get("channel_type") == "im" and event.get("subtype") in {None, "file_share"} and not event.get("bot_id"):
            await heard(body, context, event.get("thread_ts"))
