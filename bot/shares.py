"""Several bots that share the clusters, when one process is not enough: who watches which, and what the one that leads hears of the others' clusters.

What must stay true: a mesh is watched whole, by two bots as long as there are two; one of them, that has read it, looks at it; who that is everybody
works out alike from the members in Redis (rendezvous hashing: Thaler and Ravishankar, 1998), so that a bot that comes or goes moves only its own
meshes. Nobody else is believed, and what the one who looks has not told of cannot be read, which freezes its alerts. Calls that go on into a mesh that
another bot watches are not followed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from bot import routing
from checks.diagnosis import ClusterAge, Sweep
from checks.finding import Finding, Severity, Skipped
from checks.mesh import Change, Cluster, Mesh
from checks.resources import KIND_OF, ConfigMap, Deployment, Malformed, Pod, Resource, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bot.clusters import Clusters
    from bot.lease import Lease
    from bot.store import Store
    from bot.sweep import Sweeper

logger = logging.getLogger(__name__)

WATCHERS = 2
_MEMBER_S = 10.0  # how long a member that says nothing is one
_REPORT_S = 30.0  # how long a report holds that nobody renews
_AGAIN_S = _MEMBER_S / 4
_BY_KEY = {kind.key: kind for kind in KIND_OF.values()}


class _Told(Struct, frozen=True):
    """A cluster as the bot that watches it tells of it: how well it was read, and of its objects (kind, body) those that its findings name."""

    name: str
    unreadable: dict[str, str]
    malformed: tuple[Malformed, ...]
    read_at: float
    synced: bool
    objects: tuple[tuple[str, msgspec.Raw], ...]


class _Happening(Struct, frozen=True):
    at: float
    cluster: str
    kind: str
    namespace: str
    name: str
    told: str


class _Part(Struct, frozen=True):
    """What one look found in one mesh: the registered one, or of several in its clusters each (checks.tenancy)."""

    mesh: str
    clusters: tuple[_Told, ...]
    hosts: int
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    ages: tuple[ClusterAge, ...]


class Report(Struct, frozen=True):
    """What a bot tells of a registered mesh."""

    parts: tuple[_Part, ...]
    happened: tuple[_Happening, ...] = ()


class Overheard(NamedTuple):
    """A registered mesh of another bot: its meshes, with what is needed to tell of their findings, and their sweeps; what happened there.

    `happened`: when, what, and in words.
    """

    meshes: tuple[tuple[Mesh, Sweep], ...]
    happened: tuple[tuple[float, Change, str], ...]


def order(mesh: str, members: Iterable[str]) -> list[str]:
    """The members, those first that are to watch a mesh."""
    return sorted(members, key=lambda m: hashlib.blake2b(f"{m} {mesh}".encode(), digest_size=8).digest(), reverse=True)


class Shares:
    """This bot among the members; `clusters` follows what is its share, `sweeper` looks at what it is on duty for."""

    def __init__(self, store: Store, clusters: Clusters, sweeper: Sweeper, lease: Lease, meshes: Mapping[str, Sequence[str]]) -> None:
        self.name = secrets.token_hex(6)
        self.meshes = meshes
        """The names of each mesh's clusters."""
        self.held: frozenset[str] = frozenset()
        """The meshes that this bot watches."""
        self._looking: dict[str, str] = {}  # mesh -> the member that looks at it; without those that nobody has read
        self._ready: frozenset[str] = frozenset()  # what has been read since it is held
        self._changed = asyncio.Event()
        self._store = store
        self._clusters = clusters
        self._sweeper = sweeper
        self._lease = lease
        self._heard: dict[str, tuple[str, str, Overheard]] = {}  # mesh -> who tells, the report as it came, and what it says
        self._said: dict[str, object] = {}  # mesh -> what our report in Redis says of it
        clusters.watch_only(())
        sweeper.share(self)

    def on_duty(self) -> frozenset[str]:
        """The meshes that this bot looks at."""
        return frozenset(mesh for mesh, name in self._looking.items() if name == self.name and mesh in self.held)

    def heard(self) -> dict[str, Overheard]:
        """The registered meshes that others look at, as they told of them last; one of which they have not told is not among them."""
        return {mesh: heard for mesh, (name, _, heard) in self._heard.items() if name == self._looking.get(mesh)}

    async def run(self) -> None:
        """Take part until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_part())
                group.create_task(self._tell())
                group.create_task(self._hear())
        finally:
            with suppress(RedisError, OSError):
                await asyncio.shield(self._store.leave(self.name, self.held))

    def _read(self) -> frozenset[str]:
        """The meshes of ours of which everything was read once, or is known not to be readable."""
        late = set(self._clusters.unsettled())
        self._ready = frozenset(m for m in self.held if m in self._ready or late.isdisjoint(self.meshes[m]))
        return self._ready

    async def _take_part(self) -> None:
        """Be a member, and follow what the members make our share. While Redis is away everything stays as it is."""
        while True:
            with suppress(RedisError, OSError):
                members, ready = await self._store.join(self.name, _MEMBER_S, self._read())
                held = frozenset(m for m in self.meshes if self.name in order(m, members)[:WATCHERS])
                if held != self.held:
                    logger.info("This bot watches %s now, of %d members.", ", ".join(sorted(held)) or "nothing", len(members))
                    self.held = held
                    self._clusters.watch_only([c for m in held for c in self.meshes[m]])
                first = {m: next((n for n in order(m, members) if n in ready.get(m, ())), None) for m in self.meshes}
                looking = {m: n for m, n in first.items() if n is not None}
                if looking != self._looking:
                    self._looking = looking
                    self._changed.set()
                    self._sweeper.wake()
            await asyncio.sleep(_MEMBER_S / 4 if self._read() == self.held else 0.5)

    async def _tell(self) -> None:
        """Look at what we are on duty for whenever it changes, and tell what is found; the one that leads does so by itself."""

        async def listen() -> None:
            async for changes in self._clusters.changes():
                self._sweeper.note(changes)
                self._changed.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_MEMBER_S / 4):
                        await self._changed.wait()
                self._changed.clear()
                with suppress(RedisError, OSError):
                    await self._report()

    async def _report(self) -> None:
        duty = frozenset() if self._lease.leading else self.on_duty()
        # What is left of an earlier duty would be believed with the next one, before it is told anew.
        for over in self._said.keys() - duty:
            await self._store.untell([over], self.name)
            del self._said[over]
        if not duty:
            return
        meshes, sweeps = await self._sweeper.glance()
        for unit in duty:
            mine = [meshes[name] for name in sweeps if self.unit(meshes[name]) == unit]
            if not mine:  # it was taken from us meanwhile
                continue
            now = [
                (
                    m.name,
                    sweeps[m.name].findings,
                    sweeps[m.name].skipped,
                    [(c.name, c.unreadable, c.malformed, c.synced) for c in m.clusters],
                )
                for m in mine
            ]
            if self._said.get(unit) != now or not await self._store.renew(unit, self.name, _REPORT_S):
                parts = tuple(_part(m, sweeps[m.name]) for m in mine)
                lately = tuple(
                    _Happening(at, c.cluster, KIND_OF[c.kind].key, c.namespace, c.name, told)
                    for at, c, told in self._sweeper.lately(self.meshes[unit])
                )
                if await self._store.tell(unit, self.name, msgspec.json.encode(Report(parts, lately)).decode(), _REPORT_S):
                    self._said[unit] = now

    def unit(self, mesh: Mesh) -> str:
        """The registered mesh that a mesh is, or is a part of."""
        name = mesh.clusters[0].name.partition("/")[0]
        return next((unit for unit, clusters in self.meshes.items() if name in clusters), mesh.name)

    async def _hear(self) -> None:
        """While we lead, take in what the others tell; what nobody tells any more is forgotten."""
        while True:
            if not self._lease.leading:
                self._heard.clear()
                await asyncio.sleep(0.5)
                continue
            try:
                looking = {m: n for m, n in self._looking.items() if n != self.name}
                reports = await self._store.reports(looking)
                before = {m: heard for m, heard in self._heard.items() if heard[:2] == (looking.get(m), reports.get(m))}
                fresh = {m: r for m, r in reports.items() if m not in before}
                if fresh or len(before) < len(self._heard):
                    self._heard = before | await asyncio.to_thread(_understood, fresh, looking)
                    self._sweeper.wake()
                await self._store.news(self.name, _AGAIN_S)
            except (RedisError, OSError):
                await asyncio.sleep(_AGAIN_S)


def _part(mesh: Mesh, sweep: Sweep) -> _Part:
    findings = tuple(f for f in sweep.findings if f.severity is not Severity.INFO)
    clusters = []
    for cluster in mesh.clusters:
        # Istiod says what the cluster is called; what the findings name says where they are told.
        kept: list[Resource] = [
            *cluster.all(ConfigMap),
            *(o for k in (Deployment, Pod) for o in cluster.all(k) if o.labels.get("app") == "istiod"),
        ]
        kept += [o for f in findings for o in routing.concerned(cluster, f)]
        objects = tuple((KIND_OF[type(o)].key, msgspec.Raw(msgspec.json.encode(o))) for o in {o.ref: o for o in kept}.values())
        told = _Told(cluster.name, dict(cluster.unreadable), tuple(cluster.malformed), cluster.read_at, cluster.synced, objects)
        clusters.append(told)
    return _Part(mesh.name, tuple(clusters), sweep.hosts, findings, sweep.skipped, sweep.clusters)


def _understood(reports: Mapping[str, str], looking: Mapping[str, str]) -> dict[str, tuple[str, str, Overheard]]:
    """What was told of each mesh, and by whom; not that of another version of ours which says it otherwise."""
    found = {}
    for mesh, report in reports.items():
        with suppress(msgspec.DecodeError):
            found[mesh] = looking[mesh], report, _taken(report)
    return found


def _taken(report: str) -> Overheard:
    told = msgspec.json.decode(report, type=Report)
    meshes = []
    for part in told.parts:
        clusters = []
        for c in part.clusters:
            objects = [o for key, raw in c.objects if key in _BY_KEY and isinstance(o := decode(_BY_KEY[key], bytes(raw)), Resource)]
            known = Cluster(c.name, mesh=part.mesh, objects=Cluster.index(objects), unreadable=c.unreadable, malformed=c.malformed)
            clusters.append(dataclasses.replace(known, read_at=c.read_at, synced=c.synced))
        meshes.append((Mesh(part.mesh, clusters, time.time()), Sweep(part.hosts, part.findings, part.skipped, part.ages)))
    happened = tuple((h.at, Change(h.cluster, _BY_KEY[h.kind].struct, h.namespace, h.name, None), h.told) for h in told.happened)
    return Overheard(tuple(meshes), happened)
