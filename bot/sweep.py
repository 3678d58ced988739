"""A change or a tick: the clusters are looked at, what was found moves its alerts on, and what is worth saying is committed for the outbox.

What must stay true: the store is the truth and this process's alerts a copy of it, which is thrown away when a commit's answer is lost; an
alert is resolved by a look that could see what it is about, never by one that could not.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from msgspec.structs import replace
from redis.exceptions import RedisError

from bot import alerts
from bot.alerts import QUIET, Alert, Event, Gone, Reason, Seen, State, Unseen
from bot.health import Pulse
from bot.store import Draft, Picture, Step
from checks import diagnosis
from checks.diagnosis import Sweep, UnknownHost
from checks.finding import Finding, Severity
from checks.mesh import Change, Mesh
from checks.resources import KIND_OF, EndpointSlice, Pod, ReplicaSet
from templates import messages, picture
from templates.words import percent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from bot.settings import Alerts, Match
    from bot.store import Store
    from checks.finding import Skipped
    from checks.mesh import Cluster
    from checks.resources import Resource
    from templates.blocks import Message

logger = logging.getLogger(__name__)

WHY = "alert_why"  # action_id of an alert's button that diagnoses its host anew; its value is the alert's id
TICK_S = 30
_MISFIRE_S = 60  # a tick that comes late is a tick all the same
_START_S = 60.0  # after a start, what has not been read yet is not told as unknown for so long
_RECENT_S = 600.0  # a change this old may still be what made an alert well
_AGAIN_S = 5.0  # after Redis was away
_CHUNK = 100  # alerts in one transaction
_FOLLOWS = (EndpointSlice, Pod, ReplicaSet)  # change because something else was done

_SERVICE = re.compile(r"^[^.]+\.([^.]+)\.svc(?:\.|$)")
_RESOURCE = re.compile(r"^(\S+) (?:([^/\s]+)/)?(\S+)$")


class Registered(Protocol):
    """What the sweep needs of bot.clusters.Clusters."""

    def clusters(self) -> tuple[Cluster, ...]:
        """What is known now."""

    def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        """What changes from now on, gathered; an empty tuple: what can be read has changed."""


class _Found(NamedTuple):
    finding: Finding
    rule: str


class _Happened(NamedTuple):
    """A change that may turn out to be what made an alert well."""

    at: float
    change: Change
    told: str


class _Seen(NamedTuple):
    """One look: when it was and at what, what fails, what could not be looked at, and what had changed just before."""

    now: float
    meshes: Mapping[str, Mesh]
    found: Mapping[str, _Found]
    skipped: tuple[Skipped, ...]
    batch: list[_Happened]

    def cluster(self, name: str) -> Cluster | None:
        """A cluster as it was looked at, by its name or its CLUSTER_ID."""
        for mesh in self.meshes.values():
            with suppress(KeyError):
                return mesh.cluster(name)
        return None


class Sweeper:
    """Looks at `clusters` on each change and each tick, and keeps the alerts of `store` as `settings` says."""

    def __init__(self, clusters: Registered, store: Store, settings: Alerts) -> None:
        self._clusters = clusters
        self._store = store
        self._settings = settings
        self._meshes: dict[str, Mesh] = {}
        self._sweeps: dict[str, Sweep] = {}
        self._alerts: dict[str, Alert] | None = None  # None: the store knows, we do not
        self._recent: deque[_Happened] = deque(maxlen=500)
        self._changes: list[Change] = []
        self._wake = asyncio.Event()
        self.pulse = Pulse()
        self._started = time.time()
        self._read: set[str] = set()  # the clusters that this process has read completely at least once

    # --- what the handlers ask ---

    def meshes(self) -> tuple[Mesh, ...]:
        """The meshes as they are known now; what was worked out of unchanged parts is kept."""
        now = time.time()
        groups: dict[str, list[Cluster]] = {}
        for cluster in self._clusters.clusters():
            groups.setdefault(cluster.mesh, []).append(cluster)
        known = self._meshes
        made = Mesh.beside(known[name].replace(group, now) if name in known else Mesh(name, group, now) for name, group in groups.items())
        self._meshes = {mesh.name: mesh for mesh in made}
        return made

    async def sweep(self) -> Sweep:
        """Every finding of every mesh."""
        _, looked = await self._look()
        sweeps = looked.values()
        return Sweep(
            hosts=sum(s.hosts for s in sweeps),
            findings=diagnosis.once(f for s in sweeps for f in s.findings),
            skipped=tuple(dict.fromkeys(k for s in sweeps for k in s.skipped)),
            clusters=tuple(c for s in sweeps for c in s.clusters),
        )

    async def _look(self) -> tuple[dict[str, Mesh], dict[str, Sweep]]:
        """The meshes as they are now and the sweep of each, worked out beside the event loop."""
        meshes, before = {mesh.name: mesh for mesh in self.meshes()}, self._sweeps
        self._sweeps = await asyncio.to_thread(lambda: {name: diagnosis.sweep(mesh, before.get(name)) for name, mesh in meshes.items()})
        return meshes, self._sweeps

    # --- the loop ---

    async def run(self) -> None:
        """Look until cancelled: at each gathered change, each tick, and when an alert has waited for as long as it must."""
        scheduler = AsyncIOScheduler(timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": _MISFIRE_S, "max_instances": 1})
        scheduler.add_job(self._tick, "interval", seconds=TICK_S, id="tick")
        scheduler.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                await self._keep_looking()
        finally:
            scheduler.shutdown(wait=False)

    async def _tick(self) -> None:
        self._wake.set()

    async def _listen(self) -> None:
        async for changes in self._clusters.changes():
            self._changes += changes
            self._wake.set()

    async def _keep_looking(self) -> None:
        self._wake.set()
        away = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S if away else self._until_due()):
                    await self._wake.wait()
            self._wake.clear()
            self.pulse.beat()
            changes, self._changes = self._changes, []
            try:
                await self.look(changes)
                away = False
            except (RedisError, OSError) as error:
                if not away:
                    logger.warning("The store cannot be reached (%s); the clusters are still watched, alerts wait.", type(error).__name__)
                away = True

    def _until_due(self) -> float | None:
        """Seconds until an alert moves on by itself, None if none will."""
        s = self._settings
        dues = [due for a in (self._alerts or {}).values() if (due := alerts.due(a, for_s=s.for_s, clear_s=s.clear_s)) is not None]
        return max(min(dues) - time.time(), 0.0) + 0.01 if dues else None

    async def look(self, changes: Iterable[Change] = ()) -> None:
        """Look once: sweep, move the alerts on, commit what is worth saying. Raises redis.RedisError when the store is away."""
        now = time.time()
        batch = [_happened(change, now) for change in changes]
        self._recent += batch
        meshes, sweeps = await self._look()
        self._read |= {c.name for m in meshes.values() for c in m.clusters if _is_live(c)}
        seen = _Seen(now, meshes, _found(meshes, sweeps), tuple(k for s in sweeps.values() for k in s.skipped), batch)
        known = await self._known(seen.found)
        self._alerts = None  # until every commit is answered, only the store knows what is so
        everything = sorted(known.keys() | seen.found.keys())
        for start in range(0, len(everything), _CHUNK):
            for key, alert in (await self._move_on(everything[start : start + _CHUNK], known, seen)).items():
                if alert is None:
                    del known[key]
                else:
                    known[key] = alert
        self._alerts = {key: alert for key, alert in known.items() if alert.state is not State.RESOLVED}

    async def _move_on(self, keys: Iterable[str], known: Mapping[str, Alert], seen: _Seen) -> dict[str, Alert | None]:
        """Step some alerts and commit them with what is to be said; the ones that changed, None for those that nobody needs to remember."""
        changed: dict[str, Alert | None] = {}
        drafts: list[Draft] = []
        steps: dict[str, list[Step]] = {}
        for key in keys:
            before = known.get(key)
            event = self._event(before, seen.found.get(key), seen)
            if event is None:
                continue
            after, reason = alerts.step(before, event, seen.now, for_s=self._settings.for_s, clear_s=self._settings.clear_s)
            if after is not before:
                changed[key] = after
            if after is not None and reason not in QUIET:
                logger.info("Alert %s %s: %s", after.id, after.finding.cause, reason.value)
                draft, steps[after.message] = await asyncio.to_thread(self._tell, before, after, reason, seen)
                drafts.append(draft)
        await self._store.commit(changed, drafts, steps, now=seen.now)
        return changed

    async def _known(self, found: Mapping[str, _Found]) -> dict[str, Alert]:
        """The open alerts, and of the resolved ones those that are found again."""
        opened = dict(await self._store.alerts() if self._alerts is None else self._alerts)
        return opened | await self._store.resolved(found.keys() - opened.keys())

    def _event(self, alert: Alert | None, found: _Found | None, seen: _Seen) -> Event | None:
        """What this look says of one alert; None if it says nothing."""
        if found is not None and (cluster := seen.cluster(found.finding.cluster)) is not None and _is_live(cluster):
            return Seen(found.finding, found.rule)
        if alert is None or alert.state is State.RESOLVED:
            return None
        why = self._why_unseen(alert.finding, seen)
        if why is not None:
            # A process that has just started has not read anything yet; that is no news about any alert.
            return None if seen.now - self._started < _START_S and why.early else Unseen(why.sentence)
        return Gone(self._what_changed(alert, seen.batch))

    def _why_unseen(self, finding: Finding, seen: _Seen) -> _Blind | None:
        """Why the absence of a finding says nothing: where it was found or felt, something could not be looked at."""
        concerned = [c for name in dict.fromkeys((finding.cluster, *_felt(finding))) if (c := seen.cluster(name)) is not None]
        if any(e.startswith("leg ") for e in finding.evidence):  # where calls go on may be decided in any other mesh
            named = {c.name for c in concerned}
            concerned += [c for m in seen.meshes.values() for c in m.clusters if c.name not in named]
        if seen.cluster(finding.cluster) is None:
            return _Blind(f"{finding.cluster} is not registered any more", early=True)
        for cluster in concerned:
            for kind, reason in sorted(cluster.unreadable.items()):
                what = f"{cluster.name} cannot be read" if kind == "*" else f"{kind} of {cluster.name} cannot be read"
                return _Blind(f"{what}: {reason}", early=cluster.name not in self._read)
            if not cluster.synced:
                return _Blind(f"{cluster.name} has not been read completely", early=cluster.name not in self._read)
            for malformed in cluster.malformed:
                if any(f" {namespace}/" in malformed.ref for namespace in _namespaces(finding)):
                    return _Blind(f"{malformed.ref} cannot be understood: {malformed.reason}", early=False)
        names = {c.name for c in concerned}
        for skipped in seen.skipped:
            if skipped.check == finding.cause and skipped.cluster in names:
                return _Blind(skipped.reason, early=False)
        return None

    def _what_changed(self, alert: Alert, batch: list[_Happened]) -> tuple[str, ...]:
        """The changes that may have made an alert well: what was done lately where it is about, and the endpoints that followed."""
        spaces = _namespaces(alert.finding)

        def near(happened: _Happened) -> bool:
            return happened.change.cluster == alert.finding.cluster and happened.change.namespace in spaces

        earliest = max(alert.since, time.time() - _RECENT_S)
        deeds = [h.told for h in self._recent if h.at >= earliest and near(h) and h.change.kind not in _FOLLOWS]
        followed = [h.told for h in batch if near(h) and h.change.kind is EndpointSlice]
        return tuple(dict.fromkeys([*deeds[-2:], *followed[-1:]]))

    # --- what is said ---

    def _tell(self, before: Alert | None, after: Alert, reason: Reason, seen: _Seen) -> tuple[Draft, list[Step]]:
        """The message of an alert as it should stand now, and the lines that its thread gets."""
        felt = (seen.cluster(name) for name in (*sorted(_felt(after.finding)), after.finding.cluster))
        place = next((c for c in felt if c is not None), None)
        mesh = None if place is None else seen.meshes.get(place.mesh)
        routes: Any = []
        others = 0
        if mesh is not None:
            with suppress(UnknownHost):
                told = diagnosis.diagnose(after.finding.host, mesh)
                routes = msgspec.to_builtins(
                    [r for r in told.routes if r.viewpoint.cluster in {after.finding.cluster, *_felt(after.finding)}]
                )
                others = max(len(told.findings) - 1, 0)
        unknown = after.unknown_since is not None
        facts = {
            "id": after.id,
            "state": "unknown" if unknown else after.state.value,
            "finding": msgspec.to_builtins(after.finding),
            "routes": routes,
            "since": after.since,
            "resolved_at": after.resolved_at,
            "ended_by": _sentence(after.well_by),
            "why": after.unknown_why,
            "picture": None,
            "others": 0 if after.state is State.RESOLVED else others,
        }
        drawing = _picture(after.finding, routes) if after.state is State.FIRING and not unknown and routes else None
        draft = Draft(
            id=after.message,
            alert=after.id,
            channel=channel(after.finding, mesh, self._settings),
            message=messages.alert(facts, actions=() if after.state is State.RESOLVED else [("Why", WHY, after.id, None)]),
            picture=drawing,
            resolved=after.state is State.RESOLVED,
        )
        lines = [_line(before, after, reason, seen.now)] if reason is not Reason.REWORDED else []
        if reason is Reason.FIRED:
            lines += messages.details(facts)
        return draft, [Step(id=f"{after.message}.{seen.now:.3f}.{i}", message=line) for i, line in enumerate(lines)]


class _Blind(NamedTuple):
    """Why nothing was seen; `early` when it may only be that nothing has been read yet."""

    sentence: str
    early: bool


def _is_live(cluster: Cluster) -> bool:
    """Whether what is known of a cluster is what it says now, and not what it said before it fell silent."""
    return cluster.synced and "*" not in cluster.unreadable


def _found(meshes: Mapping[str, Mesh], sweeps: Mapping[str, Sweep]) -> dict[str, _Found]:
    """What fails now, by the identity of its alert; of several findings with one identity the worst, with what the others say as evidence."""
    groups: dict[str, list[_Found]] = {}
    for name, swept in sweeps.items():
        for finding in swept.findings:
            if finding.severity is Severity.ERROR:
                rule = alerts.rule_of(_resource(meshes[name], finding), finding.path)
                groups.setdefault(alerts.identity(finding, rule), []).append(_Found(finding, rule))
    return {key: _worst(group) for key, group in groups.items()}


def _worst(group: list[_Found]) -> _Found:
    first, *rest = sorted(group, key=lambda f: (-f.finding.failing_share, f.finding.path))
    others = tuple(f.finding.message for f in rest if f.finding.message != first.finding.message)
    return _Found(replace(first.finding, evidence=(*first.finding.evidence, *others)), first.rule)


def _resource(mesh: Mesh, finding: Finding) -> Resource | None:
    """The object that a finding names as `Kind namespace/name`; None if it is not there."""
    named = _RESOURCE.match(finding.resource)
    if named is None:
        return None
    known = (c for m in (mesh, *mesh.neighbours) for c in m.clusters if finding.cluster in (c.name, m.cluster_id(c)))
    cluster = next(known, None)
    if cluster is None:
        return None
    kind, namespace, name = named.groups()
    spaces = (cluster.objects.get(struct, {}).get(namespace or "", {}) for struct, k in KIND_OF.items() if k.kind == kind)
    return next((space[name] for space in spaces if name in space), None)


def _namespaces(finding: Finding) -> set[str]:
    """The namespaces that a finding is about: its object's and its host's."""
    named, service = _RESOURCE.match(finding.resource), _SERVICE.match(finding.host)
    return {n for n in (named and named[2], service and service[1]) if n}


def _felt(finding: Finding) -> set[str]:
    return {v.cluster for v in finding.viewpoints}


def channel(finding: Finding, mesh: Mesh | None, settings: Alerts) -> str:
    """The channel of the first route that fits the finding, else the default."""
    labels = _labels(finding, mesh)
    return next((r.channel for r in settings.routes if _fits(r.match, finding, labels)), settings.default_channel)


def _fits(match: Match, finding: Finding, labels: list[Mapping[str, str]]) -> bool:
    return (
        (match.namespace is None or bool(_namespaces(finding) & set(match.namespace)))
        and (match.cluster is None or finding.cluster in match.cluster)
        and (match.severity is None or finding.severity == match.severity)
        and (match.cause is None or finding.cause in match.cause)
        and (match.label is None or any(match.label.items() <= some.items() for some in labels))
    )


def _labels(finding: Finding, mesh: Mesh | None) -> list[Mapping[str, str]]:
    """The labels that a route may match: of the object, of the host's Service, and of their namespaces."""
    if mesh is None:
        return []
    named = [finding.resource, *(f"Namespace {n}" for n in sorted(_namespaces(finding)))]
    if service := _SERVICE.match(finding.host):
        named.append(f"Service {service[1]}/{finding.host.partition('.')[0]}")
    objects = (_resource(mesh, replace(finding, resource=n)) for n in named)
    return [{**o.labels} for o in objects if o is not None]


def _happened(change: Change, now: float) -> _Happened:
    """A change in words: what happened to which object, when."""
    at = f"at {datetime.fromtimestamp(now, UTC):%H:%M:%S} UTC"
    if isinstance(change.new, EndpointSlice):
        ready = [e.conditions.ready is not False for e in change.new.endpoints or ()]
        told = f"{sum(ready)} of {len(ready)} endpoints of Service {change.namespace}/{change.new.service} ready {at}"
        return _Happened(now, change, told)
    kind = KIND_OF[change.kind].kind
    place = f"{kind} {change.namespace}/{change.name}" if change.namespace else f"{kind} {change.name}"
    verb = "deleted" if change.new is None else "created" if _age(change.new, now) < 60 else "changed"
    return _Happened(now, change, f"{place} was {verb} {at}")


def _age(resource: Resource, now: float) -> float:
    """Seconds since an object was made; endless if it does not say."""
    try:
        return now - datetime.fromisoformat(resource.created).timestamp()
    except ValueError:
        return float("inf")


def _sentence(changes: tuple[str, ...]) -> str:
    return "; ".join(changes) + "." if changes else ""


def _line(before: Alert | None, after: Alert, reason: Reason, now: float) -> Message:
    """One line of the thread: what happened to the alert, with its proof."""
    words, text = reason.value, after.finding.message
    match reason:
        case Reason.FIRED:
            words = "fired"
        case Reason.FIRED_AGAIN:
            words, text = "fired", f"again, {after.firings} times now: {after.finding.message}"
        case Reason.SHARE_CHANGED if before is not None:
            words, text = (
                "changed",
                f"from {percent(before.finding.failing_share)} to {percent(after.finding.failing_share)}: {after.finding.message}",
            )
        case Reason.UNKNOWN:
            words, text = "unknown", after.unknown_why
        case Reason.RESOLVED:
            words, text = "resolved", _sentence(after.well_by)
        case _:
            pass
    return messages.step({"reason": words, "at": now, "text": text})


def _picture(finding: Finding, routes: Any) -> Picture | None:
    verdict = "broken" if finding.failing_share >= 1 else "degraded"
    svg = picture.svg(finding.host, routes, verdict=verdict)
    return Picture(key=hashlib.blake2b(svg.encode(), digest_size=8).hexdigest(), svg=svg, alt=picture.alt(finding.host, routes))
