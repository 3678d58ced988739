"""How an answer reaches people: for one of them, or aloud; each in the fullest form that Slack takes."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError

from handlers.errors import Unanswerable
from templates import messages
from templates.blocks import Block, Message, actions, ladder, measure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from slack_bolt.async_app import AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper
    from handlers.door import About, Sees
    from handlers.errors import Told


_PATIENCE_S = 60.0  # an answer that comes later than that answers nobody


class Asked(NamedTuple):
    """What somebody (a Slack user's id) typed behind a verb and where, what answers are made from, and which places the person may look at.

    `may` says whether another person may do a thing.
    """

    words: str
    user: str
    channel: str
    thread: str
    sweeper: Sweeper
    store: Store
    sees: Sees
    may: Callable[[str, str, About], Awaitable[bool]]


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


async def open_dialog(client: AsyncWebClient, body: Mapping[str, Any], view: Block) -> None:
    """Open a dialog for who clicked; raises Unanswerable where Slack does not."""
    try:
        await client.views_open(trigger_id=body["trigger_id"], view=view)
    except SlackApiError as refused:
        if (why := refused.response.get("error")) != "exchanged_trigger_id":
            raise Unanswerable(f"Slack did not let me open the dialog ({why}); press it again.") from None


def kept(what: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """What a dialog gives back of where it was opened, beside `what`."""
    return json.dumps({**what, "respond": body.get("response_url", ""), "channel": (body.get("channel") or {}).get("id", "")})


def remembered(view: Mapping[str, Any]) -> dict[str, Any]:
    """What was `kept` in a dialog."""
    return dict(json.loads(view["private_metadata"]))


def given(view: Mapping[str, Any]) -> dict[str, str]:
    """What people put into a dialog, by the name of the input; nothing for what they left empty."""
    found: dict[str, str] = {}
    for block, values in view["state"]["values"].items():
        value = next(iter(values.values()))
        chosen = value.get("value") or value.get("selected_user") or value.get("selected_date_time")
        chosen = (
            chosen or (value.get("selected_option") or {}).get("value") or ",".join(o["value"] for o in value.get("selected_options") or ())
        )
        if chosen:
            found[block] = str(chosen)
    return found


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
