"""`changes HOST [TIME]`: how a host stood at an instant of its last day, and what changed; the slider on it, and its picture."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
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
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

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


async def _draw(view: dict[str, Any], client: AsyncWebClient, channel: str, thread_ts: str) -> str:
    """Put the picture of an instant into a thread; its id. Raises SlackApiError."""
    png = await asyncio.to_thread(lambda: picture.png(strip.svg(view)))
    answer = await client.files_upload_v2(
        content=png,
        filename="changes.png",
        title=f"The last 24 hours of {short(view['host'])}"[:200],
        alt_txt=strip.alt(view),
        channel=channel,
        thread_ts=thread_ts,
    )
    files: Any = answer.get("files")
    return str(files[0]["id"])


async def _show(view: dict[str, Any], client: AsyncWebClient, channel: str, ts: str) -> None:
    """Let a message show an instant, with its picture as soon as Slack has processed that. Raises SlackApiError for the words alone."""
    message = messages.changes(view)
    await _edit(message, client, channel, ts)
    with suppress(SlackApiError):  # the words stand there, and the thread has the picture if Slack took it
        framed = messages.changes(view, drawn=(await _draw(view, client, channel, ts), strip.alt(view)))
        for wait in _TRIES:
            await asyncio.sleep(wait)
            try:
                await _edit(framed, client, channel, ts)
            except SlackApiError as refused:
                if "invalid" not in str(refused.response.get("error")):
                    raise
            else:
                return


async def _edit(message: Message, client: AsyncWebClient, channel: str, ts: str) -> None:
    await client.chat_update(channel=channel, ts=ts, text=message.text, blocks=list(message.blocks), parse="none")


_TRIES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds that Slack may need to process an upload


def register(app: AsyncApp, door: Door) -> None:
    """Move the slider: of one's own answer in its place, of one that was shared for oneself; and draw the instant.

    In the direct messages the picture stands in the message and moves with the slider: what one person alone was told in a channel cannot show one.
    """

    def asked(body: dict[str, Any]) -> tuple[float, str]:
        at, _, host = body["actions"][0]["value"].partition(" ")
        return float(at), host

    def refused(error: SlackApiError) -> Unanswerable:
        return Unanswerable(f"Slack did not take it ({error.response.get('error')}).")

    async def move(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        at, host = asked(body)
        visit, container = Visit.click(body, context), body["container"]
        alone = bool(container.get("is_ephemeral"))

        async def moved(_: Sees) -> Message | None:
            view = await _view(host, at, time.time(), door.sweeper, door.store)
            if alone or not visit.channel.startswith("D"):
                return await say.shareable(messages.changes(view), door.store)
            try:
                await _show(view, door.client, visit.channel, container["message_ts"])
            except SlackApiError as error:
                raise refused(error) from None
            return None

        told = await door.enter(visit, "changes", lambda _: _about(host, door.sweeper, door.store), moved)
        await say.told(told, respond, replace=alone)

    for stop in messages.STOPS.values():
        app.action(stop)(move)

    @app.action(messages.DAY)
    async def draw(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        at, host = asked(body)
        visit, container = Visit.click(body, context), body["container"]

        async def drawn(_: Sees) -> Message:
            view = await _view(host, at, time.time(), door.sweeper, door.store)
            try:
                if not container.get("is_ephemeral"):
                    await _draw(view, door.client, visit.channel, visit.thread or container["message_ts"])
                    return messages.done("It is in the thread.")
                told = await door.client.chat_postMessage(channel=visit.user, text=messages.changes(view).text, parse="none")
                await _show(view, door.client, str(told["channel"]), str(told["ts"]))
            except SlackApiError as error:
                raise refused(error) from None
            return messages.done("It is in our direct messages.")

        await say.told(await door.enter(visit, "changes", lambda _: _about(host, door.sweeper, door.store), drawn), respond)
