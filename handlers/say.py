"""How an answer reaches people: for one of them, or aloud; each in the fullest form that Slack takes."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError

from templates import messages
from templates.blocks import Message, actions, ladder, measure

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import Sees
    from handlers.errors import Told


_PATIENCE_S = 60.0  # an answer that comes later than that answers nobody


class Asked(NamedTuple):
    """What somebody (a Slack user's id) typed behind a verb, what answers are made from, and which places the person may look at."""

    words: str
    user: str
    sweeper: Sweeper
    store: Store
    sees: Sees


async def whisper(message: Message, respond: AsyncRespond, *, replace: bool = False) -> bool:
    """Say something to the one person who typed or clicked, and whether Slack took it; `replace` puts it in the place of what was clicked."""
    for rung in ladder(message):
        answer = await respond(text=rung.text, blocks=list(rung.blocks), response_type="ephemeral", replace_original=replace)
        if answer.status_code == 200:
            return True
    return False


async def told(answer: Told | None, respond: AsyncRespond, *, replace: bool = False) -> None:
    """Say what came of something to the one person who did it, if there is anything to say."""
    if answer is not None and answer.message is not None:
        await whisper(answer.message, respond, replace=replace and answer.result == "done")


async def aloud(message: Message, client: AsyncWebClient, channel: str, thread_ts: str | None) -> None:
    """Say something for everybody, in the fullest form that Slack takes; raises SlackApiError for what is not about the form."""
    *fuller, last = ladder(message)
    for rung in fuller:
        try:
            await _post(rung, client, channel, thread_ts)
        except SlackApiError as refused:
            if "blocks" not in str(refused.response.get("error")) and refused.response.get("error") != "msg_too_long":
                raise
        else:
            return
    await _post(last, client, channel, thread_ts)


async def aside(message: Message, client: AsyncWebClient, channel: str, user: str, thread_ts: str | None) -> None:
    """Say something in a channel to one person alone, who is told nothing where Slack does not show it to them."""
    for rung in ladder(message):
        with suppress(SlackApiError):
            await client.chat_postEphemeral(channel=channel, user=user, thread_ts=thread_ts, text=rung.text, blocks=list(rung.blocks))
            return


async def _post(message: Message, client: AsyncWebClient, channel: str, thread_ts: str | None) -> None:
    """Post it; where Slack takes no more for a while, after that while. Raises SlackApiError."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await client.chat_postMessage(
                channel=channel,
                thread_ts=thread_ts,
                text=message.text,
                blocks=list(message.blocks),
                unfurl_links=False,
                unfurl_media=False,
                parse="none",
            )
        except SlackApiError as refused:
            response: Any = refused.response
            wait = float(response.headers.get("Retry-After", 1))
            if response.get("error") != "ratelimited" or time.monotonic() + wait > until:
                raise
            await asyncio.sleep(wait)
        else:
            return


async def shareable(message: Message, store: Store) -> Message:
    """The message with a button that shares it; without one where the store cannot keep it or Slack would refuse it."""
    key = secrets.token_urlsafe(16)
    shareable = Message(message.text, (*message.blocks, *actions([("Share in channel", messages.SHARE, key, None)])))
    if not message.blocks or measure(shareable):
        return message
    with suppress(RedisError):
        await store.keep(key, message)
        return shareable
    return message
