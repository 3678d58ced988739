"""`routes HOST`: the rules of a host as its callers' Envoys hold them, and its pages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from slack_sdk.errors import SlackApiError

from checks import diagnosis
from handlers import say, why
from handlers.door import Visit
from handlers.errors import Unanswerable
from templates import messages
from templates import sheet as sheets
from templates.blocks import escape
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from bot.sweep import Sweeper
    from handlers.door import About, Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """The first page of the rules; raises UnknownHost."""
    return await _page(why.host(asked.words, "routes"), asked.sweeper, 0)


async def about(asked: Asked) -> About:
    """The host that is asked about; raises UnknownHost, or Unanswerable without one."""
    return await why.about_host(why.host(asked.words, "routes"), asked.sweeper)


async def _page(host: str, sweeper: Sweeper, page: int) -> Message:
    found = await asyncio.to_thread(diagnosis.why, host, sweeper.meshes())
    return messages.routes(found.host, msgspec.to_builtins(found.routes), page)


def register(app: AsyncApp, door: Door) -> None:
    """Turn the pages: of one's own answer in its place, of one that was shared for oneself."""

    async def turn(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        page, _, host = body["actions"][0]["value"].partition(" ")

        async def turned(_: Sees) -> Message:
            return await say.shareable(await _page(host, door.sweeper, int(page)), door.store)

        told = await door.enter(Visit.click(body, context), "routes", lambda _: why.about_host(host, door.sweeper), turned)
        await say.told(told, respond, replace=bool(body["container"].get("is_ephemeral")))

    app.action(messages.PREVIOUS)(turn)
    app.action(messages.NEXT)(turn)

    @app.action(messages.SHEET)
    async def sheet(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, host, at = Visit.click(body, context), body["actions"][0]["value"], body["container"]

        async def written(_: Sees) -> Message:
            found = await asyncio.to_thread(diagnosis.why, host, door.sweeper.meshes())
            text = sheets.routes(msgspec.to_builtins(found.routes))
            name = short(found.host)
            try:
                channel, thread_ts = visit.channel, visit.thread or at["message_ts"]
                if at.get("is_ephemeral"):  # what one person alone was told has no thread
                    told = await door.client.chat_postMessage(channel=visit.user, text=escape(f"The rules of {name}, as callers see them:"))
                    channel, thread_ts = told["channel"], told["ts"]
                await door.client.files_upload_v2(
                    content=text, filename="routes.csv", title=f"The rules of {name}"[:200], channel=channel, thread_ts=thread_ts
                )
            except SlackApiError as refused:
                raise Unanswerable(f"Slack did not take the file ({refused.response.get('error')}).") from None
            return messages.done(f"All of it is in {'our direct messages' if at.get('is_ephemeral') else 'the thread'}.")

        await say.told(await door.enter(visit, "routes", lambda _: why.about_host(host, door.sweeper), written), respond)
