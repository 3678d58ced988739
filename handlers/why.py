"""`why HOST`, and the button of an alert: the diagnosis of one host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from bot.tell import WHY
from checks import diagnosis
from handlers import say
from handlers.errors import Unanswerable, answered
from templates import messages

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from templates.blocks import Message


async def answer(words: str, sweeper: Sweeper) -> Message:
    """The diagnosis in words; raises UnknownHost."""
    return messages.why(msgspec.to_builtins(await asked(words, sweeper, "why")))


async def asked(words: str, sweeper: Sweeper, verb: str) -> Diagnosis:
    """The diagnosis of the host that was typed; raises UnknownHost, or Unanswerable without a host."""
    host = words.strip().strip("`'\"<>,?.").split(" ")[0].strip("`'\"<>,?.")
    if not host:
        raise Unanswerable(f"Which host? Write /mesh {verb} HOST, for example /mesh {verb} payments.core.")
    return await asyncio.to_thread(diagnosis.why, host, sweeper.meshes())


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """Diagnose the host of an alert anew, for whoever presses its button."""

    async def about(alert_id: str) -> Message:
        alert = await store.alert(alert_id)
        if alert is None:
            raise Unanswerable("I do not remember this alert any more; ask /mesh why HOST.")
        return await answer(alert.finding.host, sweeper)

    @app.action(WHY)
    async def why(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        await ack()
        action = body["actions"][0]
        if await store.once(f"click:{body['user']['id']}:{action['action_ts']}"):
            await say.whisper(await say.shareable(await answered(about(action["value"])), store), respond)
