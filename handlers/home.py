"""The App Home: what a person may see of clusters, alerts and silences, when they open it and when they have done something."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError, SlackClientError

from bot import access
from bot.recall import error_of
from handlers import alerts, clusters
from handlers.door import Visit, nothing
from handlers.errors import Denied, Stranger
from templates import home, messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext

    from bot.alerts import Alert
    from handlers.door import Door, Sees
    from templates.blocks import Block, Message

logger = logging.getLogger(__name__)

_TAKEN_S = 10.0  # so long a deed may take until the alerts show it
_LOOK_S = 0.1


class Home:
    """Publishes Homes; `url` is the workspace's, below which messages stand."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._url = ""
        self._refused: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def view(self, user: str, sees: Sees) -> Block:
        """What a person sees who may look at some places. Raises redis.RedisError."""
        door = self._door
        seen, left_out = await alerts.seen(door.store, sees)
        silences, meshes = await door.store.silences(), door.sweeper.meshes()
        links = await self._links(list(seen))
        rows = [{**alerts.row(members), "link": links.get(message, "")} for message, members in seen.items()]
        rows.sort(key=alerts.worst_first)
        quiet = sorted((s for s in silences.values() if any(sees(p) for p in access.of_silence(s.match, meshes))), key=lambda s: s.end)
        return home.home(
            {
                "at": time.time(),
                "own": [r for r in rows if r["ack"] is not None and r["ack"]["by"] == user and not r["closed"]],
                "broken": [r for r in rows if r["ack"] is None or r["ack"]["by"] != user or r["closed"]],
                "clusters": clusters.told(door.sweeper, sees),
                "silences": [{**msgspec.to_builtins(s), "link": self._of_silence(s.id, seen, links)} for s in quiet],
                "left_out": left_out,
            }
        )

    @staticmethod
    def _of_silence(ident: str, seen: dict[str, list[Alert]], links: dict[str, str]) -> str:
        """The thread of the first alert that a silence keeps quiet."""
        found = (m for m, members in seen.items() for a in members if a.silence is not None and a.silence.id == ident)
        return links.get(next(found, ""), "")

    async def _links(self, idents: Sequence[str]) -> dict[str, str]:
        """The addresses of the messages that stand in Slack, as its own permalinks are made."""
        if not self._url:
            self._url = str((await self._door.client.auth_test()).get("url") or "")
        there = await self._door.store.where(idents)
        return {i: f"{self._url}archives/{channel}/p{ts.replace('.', '')}" for i, (channel, ts) in there.items() if self._url}

    async def publish(self, user: str, view: Block) -> None:
        """Show a person their Home; what Slack refuses is logged once for each reason."""
        try:
            await self._door.client.views_publish(user_id=user, view=view)
        except SlackApiError as refused:
            why = error_of(refused)
            if why not in self._refused:
                logger.warning("Slack does not show a Home (%s).", why)
            self._refused.add(why)

    def acted(self, visit: Visit) -> None:
        """A person has done something: their Home shows it once it is so, if they look at one."""
        task = asyncio.create_task(self._follow(visit))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _follow(self, visit: Visit) -> None:
        with suppress(RedisError, OSError, SlackClientError, aiohttp.ClientError, TimeoutError, Denied, Stranger):
            if not await self._door.store.has_home(visit.user):
                return
            last, until = await self._door.store.last_deed(), time.monotonic() + _TAKEN_S
            while not _is_done(await self._door.store.done(), last) and time.monotonic() < until:  # noqa: ASYNC110 - another process may keep the alerts
                await asyncio.sleep(_LOOK_S)
            await self.publish(visit.user, await self.view(visit.user, await self._door.admit(visit, "home", nothing)))


def _is_done(done: str, deed: str) -> bool:
    """Whether a deed's id is among those that are part of what is committed."""
    return tuple(map(int, done.split("-"))) >= tuple(map(int, deed.split("-")))


def register(app: AsyncApp, door: Door) -> None:
    """Show the Home when it is opened or asked for, and after what people do."""
    homes = Home(door)
    door.acted = homes.acted

    async def shown(visit: Visit) -> None:
        made: Block | None = None

        async def looked(sees: Sees) -> Message:
            nonlocal made
            await door.store.open_home(visit.user)
            made = await homes.view(visit.user, sees)
            return messages.done("Here it is.")

        told = await door.enter(visit, "home", nothing, looked)
        if told is not None and told.message is not None:
            await homes.publish(visit.user, made if made is not None and told.result == "done" else home.sentence(told.message))

    @app.event("app_home_opened")
    async def opened(body: dict[str, Any], context: AsyncBoltContext) -> None:
        if body["event"].get("tab") == "home":
            await shown(Visit.at_home(body, context))

    @app.action(home.REFRESH)
    async def refreshed(ack: AsyncAck, body: dict[str, Any], context: AsyncBoltContext) -> None:
        await ack()
        await shown(Visit.click(body, context)._replace(via="home"))
