"""`changes HOST [TIME]`: how a host stood at an instant of its last day, and what changed; the slider on it, and its picture."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError

from bot import access, history
from checks import diagnosis
from checks.changed import changed
from checks.diagnosis import UnknownHost
from handlers import say, why
from handlers.door import About, Visit
from handlers.errors import Unanswerable
from templates import messages, picture, strip
from templates.blocks import escape
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """The host at the instant that is asked about, else when anything changed last; raises UnknownHost."""
    now = time.time()
    host = why.host(asked.words, "changes")
    rest = " ".join(asked.words.split()[1:])
    at = history.when(rest, now, UTC) if rest else None
    if rest and at is None:
        raise Unanswerable(f"When is {rest}? Write 14:02 (UTC), 2026-11-28T14:02 or 10m for ten minutes ago.")
    return messages.changes(await _view(host, at, now, asked.sweeper, asked.store))


async def about(asked: Asked) -> About:
    """The host that is asked about; raises UnknownHost, or Unanswerable without one."""
    return await _about(why.host(asked.words, "changes"), asked.sweeper, asked.store)


async def _about(host: str, sweeper: Sweeper, store: Store) -> About:
    """Where the host is; one that is gone by now is where it was."""
    try:
        return await why.about_host(host, sweeper)
    except UnknownHost as unknown:
        try:
            named = history.resolve(host, await history.hosts(store))[0][0]
        except (UnknownHost, RedisError, OSError):
            raise unknown from None
        return About((access.of_host(named, sweeper.meshes()),), (named,))


async def _view(word: str, at: float | None, now: float, sweeper: Sweeper, store: Store) -> dict[str, Any]:
    """The host that a word names, at an instant; raises UnknownHost, and Unanswerable while the store is away."""
    meshes = sweeper.meshes()
    try:
        try:
            found = [(host, mesh.name) for host, mesh in await asyncio.to_thread(diagnosis.resolve, word, meshes)]
        except UnknownHost:
            found = history.resolve(word, await history.hosts(store))
        pasts = [await history.past(store, mesh, host, now) for host, mesh in found]
    except (RedisError, OSError):
        raise Unanswerable("The store does not answer, which keeps the past; ask again in a minute.") from None

    def told() -> dict[str, Any]:
        try:
            lately = changed(diagnosis.why(found[0][0], meshes), meshes)
        except UnknownHost:
            lately = ()
        stops = [s for p in pasts for s in p.stops]
        return history.view(pasts, at if at is not None else max(stops, default=now), now, lately)

    return await asyncio.to_thread(told)


def register(app: AsyncApp, door: Door) -> None:
    """Move the slider: of one's own answer in its place, of one that was shared for oneself; and draw the instant."""

    def asked(body: dict[str, Any]) -> tuple[float, str]:
        at, _, host = body["actions"][0]["value"].partition(" ")
        return float(at), host

    async def move(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        at, host = asked(body)

        async def moved(_: Sees) -> Message:
            return await say.shareable(messages.changes(await _view(host, at, time.time(), door.sweeper, door.store)), door.store)

        told = await door.enter(Visit.click(body, context), "changes", lambda _: _about(host, door.sweeper, door.store), moved)
        await say.told(told, respond, replace=bool(body["container"].get("is_ephemeral")))

    for stop in messages.STOPS.values():
        app.action(stop)(move)

    @app.action(messages.DAY)
    async def draw(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        at, host = asked(body)
        visit, container = Visit.click(body, context), body["container"]

        async def drawn(_: Sees) -> Message:
            view = await _view(host, at, time.time(), door.sweeper, door.store)
            name = short(host)
            png = await asyncio.to_thread(lambda: picture.png(strip.svg(view)))
            try:
                channel, thread_ts = visit.channel, visit.thread or container["message_ts"]
                if container.get("is_ephemeral"):  # what one person alone was told has no thread
                    told = await door.client.chat_postMessage(channel=visit.user, text=escape(f"The last 24 hours of {name}:"))
                    channel, thread_ts = told["channel"], told["ts"]
                await door.client.files_upload_v2(
                    content=png,
                    filename="changes.png",
                    title=f"The last 24 hours of {name}"[:200],
                    alt_txt=strip.alt(view),
                    channel=channel,
                    thread_ts=thread_ts,
                )
            except SlackApiError as refused:
                raise Unanswerable(f"Slack did not take the picture ({refused.response.get('error')}).") from None
            return messages.done(f"It is in {'our direct messages' if container.get('is_ephemeral') else 'the thread'}.")

        await say.told(await door.enter(visit, "changes", lambda _: _about(host, door.sweeper, door.store), drawn), respond)
