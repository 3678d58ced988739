"""`meshwhy demo`: the bot as `meshwhy run` runs it, on recorded clusters, an embedded Valkey and a local Slack workspace.

What must stay true: the bot in it is the bot that talks to the real Slack, only its addresses differ. The clusters are files in the state
directory; pressing a button changes those files and nothing else. Nothing is left running or listening afterwards.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr
from redis.asyncio import Redis

from bot.clusters import Clusters, ClusterSource
from bot.demo import envoy
from bot.demo.slack import DemoButton, LocalSlack
from bot.settings import Settings
from bot.valkey import embedded
from checks import diagnosis
from checks.mesh import Mesh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

RECORDED = Path(__file__).parent / "recorded"
_DEPLOYED_AT = "2026-11-20T09:00:00Z"  # in destination-v1.yaml; the objects are as old as the click that deploys them

_CALLED, _CALLS = "destination.mynamespace", 20
_PUSH_S = 0.3  # how often the recorded cluster is looked at for what the Envoy is to hold

_DEEPEST = 75  # characters of a directory in which valkey/valkey.sock still is a unix socket's path everywhere


class East:
    """The recorded cluster east, in which v1 of the article's destination can be deployed and removed."""

    def __init__(self, folder: Path) -> None:
        self._v1 = folder / "destination-v1.yaml"
        self._touched = asyncio.Event()

    async def deploy_v1(self) -> None:
        """A person deploys v1: its Deployment, ReplicaSet, Pods and EndpointSlice are there."""
        self._touched.set()
        self._deploy()

    async def remove_v1(self) -> None:
        """A person removes v1."""
        self._touched.set()
        self._v1.unlink(missing_ok=True)

    async def turn(self, every_s: float) -> None:
        """Deploy and remove v1 by turns, until a person does it; 0 leaves it to persons."""
        while every_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._touched.wait()
                    return
            if self._v1.exists():
                self._v1.unlink()
            else:
                self._deploy()

    def _deploy(self) -> None:
        if self._v1.exists():
            return
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        # Written beside and renamed: whoever reads the cluster sees v1 whole or not at all.
        beside = self._v1.with_name(f".{self._v1.name}")
        beside.write_text((RECORDED / self._v1.name).read_text(encoding="utf-8").replace(_DEPLOYED_AT, now), encoding="utf-8")
        beside.rename(self._v1)


def place(here: Path, environ: Mapping[str, str]) -> Path:
    """Where the demo keeps its state: `.demo` here, or with other programs' state where that cannot hold a unix socket or be written."""
    near = here / ".demo"
    if len(str(near)) <= _DEEPEST and os.access(here, os.W_OK):
        return near
    return Path(environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "meshwhy" / "demo"


async def demo(
    serve: Callable[[Settings], Awaitable[None]], state: Path, *, every_s: float, port: int, say: Callable[[str, str | None], None]
) -> None:
    """Run until `serve` ends or this is cancelled. `say` gets the address of the page, and why no Envoy runs if none does; `every_s` 0 leaves the clusters to the buttons.

    Everything in `state` (absolute) is made anew, since the workspace forgets as well. Raises NoState when another demo uses it, OSError when the port is taken.
    """
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded(state / "valkey"))
        async with Redis.from_url(url) as redis:
            await redis.flushall()
        folder = state / "recorded"
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("east", "west"):
            shutil.copytree(RECORDED / name, folder / name)
        east = East(folder / "east")
        buttons = [DemoButton("Deploy v1", east.deploy_v1), DemoButton("Remove v1", east.remove_v1)]
        live: dict[str, object] = {}
        if (why := envoy.missing()) is None:
            shutil.rmtree(state / "envoy", ignore_errors=True)
            caller = await stack.enter_async_context(envoy.running(state / "envoy"))
            feed = partial(_feed, caller, ClusterSource("east", mesh="east", path=str(folder / "east")), asyncio.Lock())
            buttons.append(DemoButton(f"Send {_CALLS} requests", partial(_call, caller, feed)))
            live = {"envoys": [f"{envoy.NAMESPACE}/{envoy.POD}={caller.admin}"], "evidence": caller.saved}
        slack = LocalSlack(buttons=buttons)
        await slack.start(port=port)
        stack.push_async_callback(slack.stop)
        settings = Settings.model_validate(
            {
                "slack": {
                    "app_token": SecretStr(slack.app_token),
                    "bot_token": SecretStr(slack.bot_token),
                    "base_url": slack.base_url,
                },
                "redis": {"url": SecretStr(url)},
                "state_dir": state,
                "clusters": [{"name": "east", "path": folder / "east", **live}, {"name": "west", "path": folder / "west"}],
                "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh", "escalation": [{"after": "30m", "to": "U0KIM"}]},
            }
        )
        say(slack.page_url, why)
        beside = [asyncio.create_task(east.turn(every_s))]
        if why is None:
            beside.append(asyncio.create_task(_push(feed, Clusters([ClusterSource.registered(settings.clusters[0])], poll_s=_PUSH_S))))
        try:
            await serve(settings)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)


async def _call(caller: envoy.Caller, feed: Callable[[], Awaitable[None]]) -> str:
    """What comes of some requests to the article's host, as the page says it; the Envoy has what the recorded cluster says by then."""
    await feed()
    with suppress(TimeoutError):  # then the calls show what it has
        await caller.settled()
    return f"{await caller.call(_CALLED, _CALLS)}."


async def _feed(caller: envoy.Caller, source: ClusterSource, one_by_one: asyncio.Lock) -> None:
    """What istiod does: the caller's Envoy gets what it is to hold, as the recorded cluster is now."""
    async with one_by_one:
        now = Clusters([source], once=True)
        await now.run()
        meshes = Mesh.of(now.clusters(), time.time())
        caller.feed(await asyncio.to_thread(diagnosis.routes, meshes, None, [f"east:{envoy.NAMESPACE}/{envoy.POD}"]))


async def _push(feed: Callable[[], Awaitable[None]], clusters: Clusters) -> None:
    """Feed the caller's Envoy whenever the recorded cluster changes."""
    async with asyncio.TaskGroup() as group:
        group.create_task(clusters.run())
        await clusters.synced(10)
        changes = clusters.changes()
        while True:
            await feed()
            await anext(changes)
