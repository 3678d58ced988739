"""The button "Share in channel": an answer that one person sees is put in front of everybody, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slack_sdk.errors import SlackApiError

from handlers import say
from handlers.door import Visit, nothing
from handlers.errors import Unanswerable
from templates import messages

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from handlers.door import Door, Sees
    from templates.blocks import Message


def register(app: AsyncApp, door: Door) -> None:
    """Share what was answered, in the thread or channel where it was asked."""

    @app.action(messages.SHARE)
    async def share(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, key = Visit.click(body, context), body["actions"][0].get("value", "")

        async def shared(_: Sees) -> Message:
            kept = await door.store.take(key)
            if kept is None:
                raise Unanswerable("This answer was shared already or is too old; ask again.")
            try:
                await say.aloud(messages.shared(kept, visit.user), door.client, visit.channel, visit.thread or None)
            except SlackApiError as refused:
                await door.store.keep(key, kept)
                why = refused.response.get("error")
                raise Unanswerable(f"I cannot write in this channel ({why}). Invite me with /invite, then share again.") from None
            return kept

        told = await door.enter(visit, "share", nothing, shared)
        await say.told(told, respond, replace=bool(body["container"].get("is_ephemeral")))
