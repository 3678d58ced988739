"""The same words by @mention, which also works in threads, and in direct messages."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from bot.settings import duration
from handlers import mesh, say, whatif
from handlers.errors import answered
from handlers.say import Asked
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper


_TIMED = {"ack", "silence"}
_ABOUT = {"why", "routes", "escalate", *_TIMED}
"""Verbs that mean the host of the alert in whose thread they are said."""


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """Answer mentions in a thread, and direct messages where they were written."""

    async def heard(event: dict[str, Any], client: AsyncWebClient, thread_ts: str | None) -> None:
        channel, ts = event["channel"], event["ts"]
        if not await store.once(f"said:{channel}:{ts}"):
            return
        words, files = mesh.typed(event.get("text", "")), event.get("files") or ()
        if files and words.lower() == "whatif":
            await say.aloud(await answered(whatif.of_files(files, client, sweeper)), client, channel, thread_ts)
            return
        verb, rest = mesh.split(words)
        if verb.lower() in _ABOUT and (not rest or (verb.lower() in _TIMED and duration(rest.split()[0]) is not None)):
            words = f"{verb} {await about(channel, event.get('thread_ts'))} {rest}"
        asked = Asked(words, str(event.get("user", "")), sweeper, store)
        await say.aloud(await answered(mesh.answer(asked)), client, channel, thread_ts)

    async def about(channel: str, thread_ts: str | None) -> str:
        """The host of the alert in whose thread somebody writes."""
        with suppress(RedisError):
            if thread_ts and (alert := await store.alert_at(channel, thread_ts)) is not None:
                return short(alert.finding.host)
        return ""

    @app.event("app_mention")
    async def mentioned(event: dict[str, Any], client: AsyncWebClient) -> None:
        await heard(event, client, event.get("thread_ts") or event["ts"])

    @app.event("message")
    async def written(event: dict[str, Any], client: AsyncWebClient) -> None:
        # Only what a person writes or attaches for the bot alone; edits, joins and the bot's own words are messages too.
        if event.get("channel_type") == "im" and event.get("subtype") in {None, "file_share"} and not event.get("bot_id"):
            await heard(event, client, event.get("thread_ts"))
