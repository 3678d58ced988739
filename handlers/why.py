"""`why HOST`, and the button of an alert: the diagnosis of one host."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from bot import access
from bot.alerts import State
from bot.tell import WHY
from checks import diagnosis
from handlers import say
from handlers.door import About, Visit
from handlers.errors import Unanswerable
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from bot.alerts import Alert
    from bot.sweep import Sweeper
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """The diagnosis in words; raises UnknownHost."""
    return await of(asked.words, asked.sweeper)


async def of(words: str, sweeper: Sweeper) -> Message:
    """The diagnosis of the host that these words name; raises UnknownHost."""
    told = msgspec.to_builtins(await asyncio.to_thread(diagnosis.why, host(words, "why"), sweeper.meshes()))
    return messages.why(told, links=links(told, sweeper))


def links(told: Mapping[str, Any], sweeper: Sweeper) -> list[tuple[str, str]]:
    """Where else the host of a diagnosis (as builtins) can be looked at: in the cluster of its first finding, else in the first that has such a place."""
    places = [f["cluster"] for f in told["findings"]] + [c["name"] for c in told["clusters"]]
    return next((found for place in dict.fromkeys(places) if (found := sweeper.links(told["host"], place))), [])


async def about(asked: Asked) -> About:
    """The host that is asked about; raises UnknownHost, or Unanswerable without one."""
    return await about_host(host(asked.words, "why"), asked.sweeper)


async def about_host(word: str, sweeper: Sweeper) -> About:
    """Where the host is that a word names; raises UnknownHost."""
    found = await asyncio.to_thread(diagnosis.resolve, word, sweeper.meshes())
    named = found[0][0]
    return About((access.of_host(named, (mesh for _, mesh in found)),), (named,))


def host(words: str, verb: str) -> str:
    """The host that was typed, as it was meant; raises Unanswerable without one."""
    found = words.strip().strip("`'\"<>,?.").split(" ")[0].strip("`'\"<>,?.")
    if not found:
        raise Unanswerable(f"Which host? Write /mesh {verb} HOST, for example /mesh {verb} payments.core.")
    return found


def register(app: AsyncApp, door: Door) -> None:
    """Diagnose the host of an alert anew, for whoever presses its button."""

    @app.action(WHY)
    async def why(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        alert_id = body["actions"][0]["value"]

        async def remembered() -> Alert:
            if (alert := await door.store.alert(alert_id)) is None:
                raise Unanswerable("I do not remember this alert any more; ask /mesh why HOST.")
            return alert

        async def about(_: Sees) -> About:
            finding = (await remembered()).finding
            return About((access.of_finding(finding),), (finding.host,))

        async def diagnosed(_: Sees) -> Message:
            alert = await remembered()
            if alert.state is State.FIRING and alert.told:
                await door.store.run_again(alert.message, time.time())
            return await say.shareable(await of(alert.finding.host, door.sweeper), door.store)

        await say.told(await door.enter(Visit.click(body, context), "why", about, diagnosed), respond)
