"""`routes HOST`: the rules of a host as its callers' Envoys hold them, and its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from handlers import say, why
from handlers.errors import answered
from templates import messages

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from bot.store import Store
    from bot.sweep import Sweeper
    from templates.blocks import Message


async def answer(words: str, sweeper: Sweeper, page: int = 0) -> Message:
    """One page of the rules; raises UnknownHost."""
    found = await why.asked(words, sweeper, "routes")
    return messages.routes(found.host, msgspec.to_builtins(found.routes), page)


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """Turn the pages: of one's own answer in its place, of one that was shared for oneself."""

    async def turn(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action, user = body["actions"][0], body["user"]["id"]
        if await store.once(f"click:{user}:{action['action_ts']}"):
            page, _, host = action["value"].partition(" ")
            message = await say.shareable(await answered(answer(host, sweeper, int(page))), store)
            await say.whisper(message, respond, replace=bool(body["container"].get("is_ephemeral")))

    app.action(messages.PREVIOUS)(turn)
    app.action(messages.NEXT)(turn)
