"""The whole bot on loopback: recorded clusters, a real Valkey, the local workspace, and the real Bolt over Socket Mode between them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs
from pydantic import SecretStr
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

import handlers
from bot.__main__ import serve
from bot.clusters import Clusters, ClusterSource, apply
from bot.incidents import Incidents
from bot.outbox import Outbox
from bot.runbook import Runner
from bot.settings import Access, Alerts, Settings
from bot.store import Store
from bot.sweep import Sweeper
from checks import resources
from checks.finding import Finding, Severity
from checks.mesh import Change, Cluster
from checks.resources import EndpointConditions, EndpointSlice
from tests.bench.population import lean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from bot.demo.slack import LocalSlack
    from bot.probes import Probe
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh
    from checks.resources import Resource
    from handlers.door import Door

RECORDED = Path(__file__).parent.parent / "bot" / "demo" / "recorded"


FINDING = Finding(
    cause="subset-empty-weighted",
    code="MESH101",
    severity=Severity.ERROR,
    cluster="east",
    resource="VirtualService mynamespace/destination",
    path="spec.http[0].route[0]",
    host="destination.mynamespace.svc.cluster.local",
    viewpoints=(),
    failing_share=0.95,
    message="Subset v1 has no endpoint.",
)
"""The article's first incident as a check says it, for tests that need no mesh."""


def alerts(**more: Any) -> Alerts:
    """Alert settings without waiting, unless said otherwise."""
    return Alerts.model_validate({"for": 0, "clear": 0, "default_channel": "#mesh", **more})


class World:
    """The registered clusters, as a test says that they are."""

    def __init__(self, *clusters: Cluster) -> None:
        self.now = clusters
        self.told: asyncio.Queue[tuple[Change, ...]] = asyncio.Queue()

    def clusters(self) -> tuple[Cluster, ...]:
        return self.now

    async def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        while True:
            yield await self.told.get()

    def become(self, changes: Sequence[Change]) -> None:
        """The clusters after changes, of which nobody is told."""
        self.now = tuple(apply(c, [change for change in changes if change.cluster == c.name]) for c in self.now)


def population(services: int) -> Cluster:
    """The benchmarks' cluster without what is broken in it."""
    found: list[Resource] = []
    objects = lean(services * 100 // 99 + 1)
    while some := list(islice(objects, 10_000)):
        kept = [o for o in some if not re.match(r"service-\d{3}17(-|$)", o["metadata"]["name"])]
        found += resources.objects(resources.parse({"apiVersion": "v1", "kind": "List", "items": kept}))
    return Cluster("east", objects=Cluster.index(found), synced=True, read_at=time.time())


def unready(s: EndpointSlice) -> Change:
    """All of its endpoints stop being ready."""
    not_ready = EndpointConditions(ready=False)
    gone = structs.replace(s, endpoints=tuple(structs.replace(e, conditions=not_ready) for e in s.endpoints or ()))
    return Change("east", EndpointSlice, s.metadata.namespace, s.metadata.name, gone)


class Bot:
    """The parts of a running bot."""

    def __init__(self, clusters: Clusters, store: Store, sweeper: Sweeper, door: Door, app: AsyncApp) -> None:
        self.clusters = clusters
        self.store = store
        self.sweeper = sweeper
        self.door = door
        self.app = app


def source(folder: Path) -> ClusterSource:
    """A folder of manifests as the cluster east."""
    return ClusterSource("east", mesh="east", path=str(folder))


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that runs until it is cancelled, in the background; what it raises is raised."""
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


@asynccontextmanager
async def running(
    slack: LocalSlack,
    redis_url: str,
    sources: Sequence[ClusterSource],
    settings: Alerts | None = None,
    *,
    watching: bool = True,
    access: Mapping[str, Any] | None = None,
    teams: Sequence[str] = (),
    probing: Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]] | None = None,
    links: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[Bot]:
    """A bot that follows `sources`; without `watching` it only answers, without `access` everybody, without `probing` it runs no runbook."""
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    app = AsyncApp(client=client, raise_error_for_unhandled_request=True, logger=logging.getLogger("bolt"))
    clusters, store = Clusters(sources, poll_s=0.1), Store(redis_url)
    settings = settings or alerts()
    sweeper = Sweeper(clusters, store, settings, links)
    door = handlers.register(
        app, sweeper, store, None if access is None else Access.model_validate(access), teams, probing or (lambda *_: ())
    )
    socket = AsyncSocketModeHandler(app, slack.app_token)
    tasks = [asyncio.create_task(clusters.run())]
    try:
        await store.open()
        assert await clusters.synced(10)
        await socket.connect_async()
        await slack.until(lambda: slack.connected)
        if watching:
            tasks += [asyncio.create_task(Incidents(store, client).run())]
            tasks += [asyncio.create_task(sweeper.run()), asyncio.create_task(Outbox(store, client, settings.default_channel).run())]
        if probing is not None:
            tasks.append(asyncio.create_task(Runner(store, sweeper, probing).run()))
        yield Bot(clusters, store, sweeper, door, app)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await socket.close_async()
        await store.close()
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


@asynccontextmanager
async def serving(slack: LocalSlack, redis_url: str, folder: Path, /, **more: Any) -> AsyncIterator[None]:
    """The bot as `meshwhy run` makes it, on the cluster that is recorded in `folder`/east; an outage is no reason for it to end."""
    settings = Settings.model_validate(
        {
            "slack": {"app_token": SecretStr(slack.app_token), "bot_token": SecretStr(slack.bot_token), "base_url": slack.base_url},
            "redis": {"url": SecretStr(redis_url), "lease": 1.0},
            "state_dir": folder,
            "clusters": [{"name": "east", "path": folder / "east"}],
            "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh"},
            **more,
        }
    )
    bot = asyncio.create_task(serve(settings))
    try:
        yield
        assert not bot.done(), bot
    finally:
        bot.cancel()
        with suppress(asyncio.CancelledError):
            await bot
