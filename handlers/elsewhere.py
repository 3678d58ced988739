"""What is asked of a mesh that another bot watches, where several share the clusters: it is handed to one that does, which answers in its own name.

What must stay true: whatever Slack sent is handed on as it came, so that the one who answers asks at the same door who may; who is handed something
looks first whether it is the right one, and else hands it on to a mesh that nobody tried yet, so that every question ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bot.tell import WHY
from checks import diagnosis
from checks.diagnosis import UnknownHost
from checks.pasted import read
from handlers import mesh, pasted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from slack_bolt.async_app import AsyncApp

    from bot.lease import Lease
    from bot.shares import Shares
    from handlers.door import Door

logger = logging.getLogger(__name__)

_EVERYTHING = "*"  # what is asked of all meshes: the one that leads knows of them all
_TRIED = "meshwhy_tried"
_OF_A_HOST, _OF_ALL = {"why", "routes", "changes"}, {"broken"}
_WAIT_S, _AGAIN_S = 2.0, 5.0


def register(app: AsyncApp, door: Door, shares: Shares, lease: Lease) -> Callable[[], Coroutine[Any, Any, None]]:
    """Hand on what others can answer; what is returned takes in what they hand to us, until it is cancelled."""

    @app.middleware
    async def hand_on(body: dict[str, Any], next: Callable[[], Awaitable[None]]) -> BoltResponse | None:  # noqa: A002 - Bolt's name
        tried = set(body.get(_TRIED, ()))
        try:
            to = await wanted(body, tried)
            if to is not None:
                handed = json.dumps({**body, _TRIED: sorted({*tried, *shares.held, to})})
                await door.store.ask(to, handed)
                return BoltResponse(status=200, body="")
        except (RedisError, OSError) as error:
            logger.warning("A question cannot be handed on: %s", type(error).__name__)
        await next()
        return None

    async def wanted(body: Mapping[str, Any], tried: set[str]) -> str | None:
        """Whom to ask instead of us; None if we answer."""
        verb, host = await _asked(body, door)
        if verb in _OF_ALL:
            return _EVERYTHING if not lease.leading and _EVERYTHING not in tried else None
        if not host:
            return None
        ours = [m for m in door.sweeper.meshes() if shares.unit(m) in shares.held]
        try:
            await asyncio.to_thread(diagnosis.resolve, host, ours)
        except UnknownHost as unknown:
            others = [unit for unit in shares.meshes if unit not in shares.held and unit not in tried]
            return others[0] if others and not unknown.ambiguous else None
        return None

    async def answer(unit: str, ident: str, question: str) -> None:
        # A name that two meshes have is answered by the first that knows it.
        await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=json.loads(question)))
        with suppress(RedisError, OSError):
            await door.store.answered(unit, ident)

    async def take() -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                units = [*shares.held, *([_EVERYTHING] if lease.leading else [])]
                try:
                    for unit, ident, question in await door.store.asked(units, shares.name, _WAIT_S):
                        group.create_task(answer(unit, ident, question))
                except (RedisError, OSError):
                    await asyncio.sleep(_AGAIN_S)
                if not units:
                    await asyncio.sleep(_WAIT_S / 4)

    return take


async def _asked(body: Mapping[str, Any], door: Door) -> tuple[str, str]:
    """The verb and the host of what somebody asks, as far as there are any."""
    if body.get("type") == "block_actions":
        action = body["actions"][0]
        alert = await door.store.alert(action.get("value", "")) if action["action_id"] == WHY else None
        return ("why", alert.finding.host) if alert is not None else ("", "")
    if body.get("type") == "message_action":
        return "explain", read(pasted.written(body["message"])).host
    event: Mapping[str, Any] = body.get("event") or {}
    words = mesh.typed(str(body.get("text") if "command" in body else event.get("text") or ""))
    verb, rest = mesh.split(words)
    if verb.lower() in _OF_ALL:
        return verb.lower(), ""
    if verb.lower() in _OF_A_HOST:
        host = rest.split()[0] if rest else ""
        if not host and event.get("thread_ts"):
            alert = await door.store.alert_at(str(event["channel"]), str(event["thread_ts"]))
            host = alert.finding.host if alert is not None else ""
        return verb.lower(), host.strip("`'\"<>,?.")
    if verb.lower() == "explain" or (rest and verb.lower() not in mesh.VERBS and mesh.is_pasted(words)):
        return "explain", read(words).host
    # A word alone that is no verb asks why.
    return ("why", verb.strip("`'\"<>,?.")) if verb and not rest and verb.lower() not in mesh.VERBS else ("", "")
