"""The button "Share in channel": an answer that one person sees is put in front of everybody, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError

from handlers import say
from templates import messages

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper


def register(app: AsyncApp, _: Sweeper, store: Store) -> None:
    """Share what was answered, in the thread or channel where it was asked."""

    @app.action(messages.SHARE)
    async def share(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, client: AsyncWebClient) -> None:
        await ack()
        key, user, channel = body["actions"][0].get("value", ""), body["user"]["id"], body["channel"]["id"]
        try:
            kept = await store.take(key)
        except RedisError:
            await say.whisper(messages.error("My store does not answer, so I do not have this answer at hand; try again."), respond)
            return
        if kept is None:
            await say.whisper(messages.error("This answer was shared already or is too old; ask again."), respond)
            return
        try:
            await say.aloud(messages.shared(kept, user), client, channel, body["container"].get("thread_ts"))
        except SlackApiError as refused:
            await store.keep(key, kept)
            why = refused.response.get("error")
            told = messages.error(f"I cannot write in this channel ({why}). Invite me with /invite, then share again.")
            await say.whisper(told, respond)
        else:
            await say.whisper(kept, respond, replace=bool(body["container"].get("is_ephemeral")))
