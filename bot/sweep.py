"""A change or a tick: the clusters are looked at, what was found moves its alerts on, and what is worth saying is committed for the outbox.

What must stay true: the store is the truth and this process's alerts a copy of it, which is thrown away when a commit's answer is lost; an
alert is resolved by a look that could see what it is about, never by one that could not.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from msgspec.structs import replace
from redis.exceptions import RedisError

from bot import alerts, hours, links, metrics, pager, routing, tell
from bot.alerts import (
    OUTAGE,
    Ack,
    Acked,
    Alert,
    Appeal,
    Close,
    Closed,
    Escalated,
    Event,
    Gone,
    Handed,
    Hushed,
    Joined,
    Lapsed,
    Note,
    Noted,
    Opened,
    Reason,
    Receiver,
    Reopened,
    Seen,
    Sent,
    Silence,
    State,
    Unacked,
    Unseen,
    namespaces,
    outage,
)
from bot.clusters import ELSEWHERE, elsewhere, is_elsewhere
from bot.health import Pulse
from bot.history import History
from bot.routing import resource_of
from bot.store import RESOLVED_S, Draft, Ending, Page, Step
from bot.tell import Moved
from checks import diagnosis
from checks.diagnosis import Sweep
from checks.finding import Finding, Severity, Skipped
from checks.mesh import Change, Mesh
from checks.resources import KIND_OF, EndpointSlice, Pod, ReplicaSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from bot.routing import Routed
    from bot.settings import Alerts, Digest, EscalationStep
    from bot.shares import Overheard, Shares
    from bot.store import Deed, Heard, Store
    from checks.mesh import Cluster
    from checks.resources import Resource

logger = logging.getLogger(__name__)

TICK_S = 30
_MISFIRE_S = 60  # a tick that comes late is a tick all the same
_START_S = 60.0  # after a start, what has not been read yet is not told as unknown for so long
_RECENT_S = 600.0  # a change this old may still be what made an alert well
_AGAIN_S = 5.0  # after Redis was away
_CHUNK = 100  # alerts in one transaction
_STORM, _STORM_S = 10, 300.0  # so many new messages at once become fewer, and what comes within so long joins them
_FIRST = 250  # hosts of a storm that are looked at before anything is said; then twice as many, and so on
_LISTEN_S = 5.0  # how long one question for new deeds waits
_DIGEST_LATE_S = 6 * 3600.0  # a list of the day that comes later than this is left out
_HOUR_S = 3600.0
_FOLLOWS = (EndpointSlice, Pod, ReplicaSet)  # change because something else was done


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
    routed: dict[int, tuple[Finding, Routed]]
    away: frozenset[str]
    """The meshes that another bot looks at."""

    def cluster(self, name: str) -> Cluster | None:
        """A cluster as it was looked at, by its name or its CLUSTER_ID."""
        for mesh in self.meshes.values():
            with suppress(KeyError):
                return mesh.cluster(name)
        return None


class Sweeper:
    """Looks at `clusters` on each change and each tick, and keeps the alerts of `store` as `settings` says."""

    def __init__(self, clusters: Registered, store: Store, settings: Alerts, links: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._links = links or {}
        self._clusters = clusters
        self._store = store
        self._wake = asyncio.Event()
        self.heed(settings)
        self._meshes: dict[str, Mesh] = {}
        self._sweeps: dict[str, Sweep] = {}
        self._alerts: dict[str, Alert] | None = None  # None: the store knows, we do not
        self._silences: dict[str, Silence] | None = None  # as _alerts
        self._digested: dict[str, float] | None = None  # as _alerts
        self._deeds: list[tuple[str, Deed | None]] = []  # heard of and not yet part of what is committed
        self._heard: str | None = None  # the last deed that was heard; None: the store knows what is committed
        self._recent: deque[_Happened] = deque(maxlen=500)
        self._most = _FIRST
        self._chains: dict[str, tuple[EscalationStep, ...]] = {}  # of each alert, as the last look routed it
        self._changes: list[Change] = []
        self._gathered: dict[tuple[str, str], float] = {}  # cluster and kind -> since when (monotonic) a change of it waits
        self.history = History(store)
        """What is offered of each look, to be kept by its own `run`."""
        self.pulse = Pulse()
        self.looked_at = 0.0
        """When a look was committed last, in seconds since the epoch."""
        self._started = time.time()
        self._shares: Shares | None = None
        self._noted: deque[_Happened] = deque(maxlen=200)
        self._taken: dict[str, Overheard] = {}  # what others told, as far as it was taken in
        self._unheard: dict[str, float] = {}  # clusters of others of which nobody tells -> since when
        self.sees = (0, 0)
        """Of how many clusters the last look could read how many."""
        self._read: set[str] = set()  # the clusters that this process has read completely at least once

    def heed(self, settings: Alerts) -> None:
        """Go by these settings from the next look on, which is due now."""
        self._settings = settings
        self._wake.set()

    def chain(self, finding: Finding) -> tuple[EscalationStep, ...]:
        """The steps of the escalation that an alert of this finding takes."""
        mesh = next((m for m in self._meshes.values() if any(finding.cluster in (c.name, m.cluster_id(c)) for c in m.clusters)), None)
        return routing.route(routing.about(finding, mesh), self._settings, time.time()).escalation

    def links(
        self, host: str, cluster: str, namespace: str = "", since: float | None = None, until: float | None = None
    ) -> list[tuple[str, str]]:
        """Where else a host of a cluster (by its name or CLUSTER_ID) can be looked at, each by its name: since a fault was seen, or the last hour."""
        for mesh in self._meshes.values() if self._links else ():
            with suppress(KeyError):
                known = mesh.cluster(cluster)
                given = self._links.get(known.name.partition("/")[0], {})
                since = since if since is not None else time.time() - _HOUR_S
                return links.links(dict(given), links.About(host, namespace, mesh.cluster_id(known), since, until))
        return []

    def asks(self, alert: Alert) -> routing.Asked | None:
        """Who is asked by the next step of an alert's escalation; None when no step is left."""
        chain = self.chain(alert.finding)
        return routing.asked(chain[alert.escalated], self._settings, time.time()) if alert.escalated < len(chain) else None

    # --- what the handlers ask ---

    def meshes(self) -> tuple[Mesh, ...]:
        """The meshes as they are known now; what was worked out of unchanged parts is kept."""
        now = time.time()
        made = Mesh.of(self._clusters.clusters(), now, self._meshes.values())
        self._meshes = {mesh.name: mesh for mesh in made}
        return made

    async def sweep(self) -> Sweep:
        """Every finding of every mesh."""
        return _together(*await self._look(None))

    async def _look(self, most: int | None) -> tuple[dict[str, Mesh], dict[str, Sweep]]:
        """The meshes as they are now and the sweep of each, of `most` hosts anew, worked out beside the event loop.

        Of a mesh that another bot looks at, both are what that one told; one of which it has not told was not looked at, and says so.
        """
        meshes, before = {mesh.name: mesh for mesh in self.meshes()}, self._sweeps
        own = meshes
        if self._shares is not None:
            duty = self._shares.on_duty()
            own = {name: mesh for name, mesh in meshes.items() if self._shares.unit(mesh) in duty}
        self._sweeps = await asyncio.to_thread(swept, own, before, most)
        if self._shares is None:
            return meshes, self._sweeps
        told = [part for heard in self._shares.heard().values() for part in heard.meshes]
        gone = {unit for m, _ in told if (unit := self._shares.unit(m))}
        untold = {
            name: Mesh(name, map(elsewhere, m.clusters), m.read_at)
            for name, m in meshes.items()
            if name not in own and self._shares.unit(m) not in gone
        }
        kept = own | untold
        return kept | {m.name: m for m, _ in told}, self._sweeps | {m.name: s for m, s in told}

    # --- several bots that share the clusters (bot.shares) ---

    def share(self, shares: Shares) -> None:
        """Look only at what this bot is on duty for, and take what others tell of the rest."""
        self._shares = shares

    def looks_at(self, cluster: str) -> bool:
        """Whether this bot is the one that looks at a cluster (its name or its CLUSTER_ID)."""
        if self._shares is None:
            return True
        duty = self._shares.on_duty()
        mine = (m for m in self._meshes.values() if self._shares.unit(m) in duty)
        return any(cluster in (c.name, m.cluster_id(c)) for m in mine for c in m.clusters)

    def wake(self) -> None:
        """Look, as soon as that can be."""
        self._wake.set()

    async def glance(self) -> tuple[dict[str, Mesh], dict[str, Sweep]]:
        """The meshes that this bot looks at and what it sees, while another one keeps the alerts."""
        meshes, sweeps = await self._look(None)
        self.history.offer(time.time(), meshes, self._sweeps)
        return meshes, {name: s for name, s in sweeps.items() if name in self._sweeps}

    def note(self, changes: Iterable[Change]) -> None:
        """Remember changes for `lately`."""
        now = time.time()
        self._noted += [_happened(change, now) for change in changes]

    def lately(self, clusters: Sequence[str]) -> list[tuple[float, Change, str]]:
        """What was noted of some clusters since this was asked last."""
        found = [h for h in self._noted if h.change.cluster in clusters]
        self._noted = deque((h for h in self._noted if h.change.cluster not in clusters), maxlen=self._noted.maxlen)
        return [(h.at, h.change, h.told) for h in found]

    def _news(self) -> list[_Happened]:
        """What happened in other bots' clusters, each time once."""
        heard = self._shares.heard() if self._shares is not None else {}
        new = [_Happened(*h) for unit, one in heard.items() if self._taken.get(unit) is not one for h in one.happened]
        self._taken = dict(heard)
        return new

    # --- the loop ---

    async def run(self) -> None:
        """Look until cancelled: at each gathered change, each tick, and when an alert has waited for as long as it must.

        What somebody else committed before is read anew.
        """
        self._alerts = self._silences = self._digested = self._heard = None
        self._deeds = []
        scheduler = AsyncIOScheduler(timezone=UTC, job_defaults={"coalesce": True, "misfire_grace_time": _MISFIRE_S, "max_instances": 1})
        scheduler.add_job(self._tick, "interval", seconds=TICK_S, id="tick")
        scheduler.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._hear())
                await self._keep_looking()
        finally:
            scheduler.shutdown(wait=False)

    async def _tick(self) -> None:
        self._wake.set()

    async def _listen(self) -> None:
        async for changes in self._clusters.changes():
            self._changes += changes
            for change in changes:
                self._gathered.setdefault((change.cluster, KIND_OF[change.kind].key), time.monotonic())
            self._wake.set()

    async def _hear(self) -> None:
        """Take in what people do, as it comes; while the store is away there is nothing to hear."""
        while True:
            try:
                after = self._heard if self._heard is not None else await self._store.done()
                self._heard = after
                found = await self._store.deeds(after, wait_s=_LISTEN_S)
            except (RedisError, OSError):
                await asyncio.sleep(_AGAIN_S)
                continue
            if found and self._heard == after:  # else a commit was lost meanwhile, and all is heard anew
                self._deeds += found
                for _, deed in found:
                    metrics.DEEDS.labels(deed.verb if deed is not None else "unreadable").inc()
                self._heard = found[-1][0]
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
            gathered, self._gathered = self._gathered, {}
            try:
                with metrics.LOOK_SECONDS.time():
                    await self.look(changes)
                away = False
                self.looked_at = time.time()
                metrics.LAST_LOOK.set(self.looked_at)
                for labels, since in gathered.items():
                    metrics.WATCH_LAG.labels(*labels).set(time.monotonic() - since)
            except (RedisError, OSError) as error:
                metrics.LOOK_FAILURES.inc()
                if not away:
                    logger.warning("The store cannot be reached (%s); the clusters are still watched, alerts wait.", type(error).__name__)
                away = True

    def _until_due(self) -> float | None:
        """Seconds until an alert moves on by itself, None if none will."""
        s = self._settings
        found = (
            alerts.due(a, for_s=s.for_s, clear_s=s.clear_s, escalation=_after(self._chains.get(a.id, ())))
            for a in (self._alerts or {}).values()
        )
        dues = [due for due in found if due is not None]
        return max(min(dues) - time.time(), 0.0) + 0.01 if dues else None

    async def look(self, changes: Iterable[Change] = ()) -> None:
        """Look once: sweep, move the alerts on, commit what is worth saying. Raises redis.RedisError when the store is away."""
        now = time.time()
        batch = [*(_happened(change, now) for change in changes), *self._news()]
        self._recent += batch
        meshes, sweeps = await self._look(self._most)
        self.history.offer(now, meshes, self._sweeps)
        owed = any(s.owed for s in sweeps.values())
        self._most = 2 * self._most if owed else _FIRST
        if owed:
            self._wake.set()
        live = {c.name for m in meshes.values() for c in m.clusters if _is_live(c)}
        self._read |= live
        self.sees = len(live), sum(len(m.clusters) for m in meshes.values())
        found = _found(meshes, sweeps) | self._outages(meshes, now)
        seen = _Seen(
            now,
            meshes,
            found,
            tuple(k for s in sweeps.values() for k in s.skipped),
            batch,
            {},
            frozenset(meshes.keys() - self._sweeps.keys()),
        )
        known = await self._known(seen.found)
        before = await self._store.silences() if self._silences is None else self._silences
        self._alerts = self._silences = None  # until every commit is answered, only the store knows what is so
        deeds = list(self._deeds)
        done = [d for _, d in deeds if d is not None]
        silences = _silences(before, done, now)
        moved = await asyncio.to_thread(self._move, known, seen, done, silences)  # thousands of alerts must not hold up answers
        try:
            await self._commit(known, moved, seen, _difference(before, silences), deeds)
        except (RedisError, OSError):
            self._deeds, self._heard = [], None
            raise
        self._deeds = self._deeds[len(deeds) :]
        for key, (_, after, _) in moved.items():
            if after is None:
                known.pop(key, None)
            else:
                known[key] = after
        self._alerts = {key: alert for key, alert in known.items() if alert.state is not State.RESOLVED}
        self._silences = silences
        self._chains = {key: chain for key, chain in self._chains.items() if key in self._alerts}
        await self._digest(seen, sweeps)

    def _move(self, known: Mapping[str, Alert], seen: _Seen, deeds: Sequence[Deed], silences: Mapping[str, Silence]) -> dict[str, _Step]:
        """Step every alert; those that begin to fire join a message of the same cause, and in a storm of a wider kind."""
        standing: dict[str, tuple[Receiver, ...]] = {}
        for alert in known.values():
            standing[alert.message] = tuple({r.place: r for r in (*standing.get(alert.message, ()), *alert.places)}.values())
        for width in range(4, 0, -1):
            moved: dict[str, _Step] = {}
            speaking = self._speaking(known, seen)
            new: set[str] = set()
            for key in sorted(known.keys() | seen.found.keys()):
                found = seen.found.get(key)
                scope = self._scope(found.finding, seen) if found is not None else ()
                alone = found is None or found.finding.cause == OUTAGE
                joins = "" if alone else next((speaking[scope[:n]] for n in range(4, 0, -1) if scope[:n] in speaking), "")
                step = self._steps(known.get(key), found, joins, seen, deeds, silences, standing)
                if step is None:
                    continue
                moved[key] = step
                after = step.after
                if after is not None and after.told and any(reason is Reason.FIRED for reason, _ in step.happened):
                    if after.message not in speaking.values():
                        new.add(after.message)
                    if after.finding.cause != OUTAGE:
                        speaking.setdefault(scope[:width], after.message)
            if len(new) <= _STORM:
                break
        return self._joined(known, moved, seen.now)

    def _joined(self, known: Mapping[str, Alert], moved: dict[str, _Step], now: float) -> dict[str, _Step]:
        """Let what joined a message in this look escalate with it."""
        leads: dict[str, Alert] = {}
        for alert in known.values():
            now_is = moved[alert.id].after if alert.id in moved else alert
            if now_is is not None and now_is.state is State.FIRING and now_is.told and now_is.ack is None:
                before = leads.get(now_is.message)
                if before is None or now_is.escalated > before.escalated:
                    leads[now_is.message] = now_is
        for key, step in moved.items():
            fired = any(reason is Reason.FIRED for reason, _ in step.happened)
            if fired and step.after is not None and (lead := leads.get(step.after.message)) is not None and lead.id != key:
                after, _ = alerts.step(step.after, Joined(lead), now, for_s=0, clear_s=0)
                moved[key] = step._replace(after=after)
        return moved

    def _speaking(self, known: Mapping[str, Alert], seen: _Seen) -> dict[tuple[str, ...], str]:
        """The messages that speak now, by what their alerts have in common: channel, cluster, cause and object, or less of it after a storm."""
        out: dict[tuple[str, ...], str] = {}
        members: dict[str, list[Alert]] = {}
        for alert in known.values():
            if alert.state is State.FIRING and alert.told and alert.finding.cause != OUTAGE:
                members.setdefault(alert.message, []).append(alert)
        for message, group in sorted(members.items()):
            scopes = [self._scope(a.finding, seen) for a in group]
            common = next((scopes[0][:n] for n in range(4, 0, -1) if len({s[:n] for s in scopes}) == 1), ())
            recent = max(a.fired_at or 0.0 for a in group) > seen.now - _STORM_S
            if common and (len(common) == 4 or recent):
                out.setdefault(common, message)
        return out

    def _scope(self, finding: Finding, seen: _Seen) -> tuple[str, ...]:
        places = " ".join(r.place for r in self._routed(finding, seen).receivers)
        return places, finding.cluster, finding.cause, finding.resource

    def _routed(self, finding: Finding, seen: _Seen) -> Routed:
        """Where a finding is told now; within one look it is asked for several times."""
        found = seen.routed.get(id(finding))
        if found is None or found[0] is not finding:
            found = finding, routing.route(routing.about(finding, self._mesh(finding, seen)), self._settings, seen.now)
            seen.routed[id(finding)] = found
        return found[1]

    def _steps(
        self,
        before: Alert | None,
        found: _Found | None,
        joins: str,
        seen: _Seen,
        deeds: Sequence[Deed],
        silences: Mapping[str, Silence],
        standing: Mapping[str, tuple[Receiver, ...]],
    ) -> _Step | None:
        """One alert through everything that happened since the last look; None when nothing did."""
        events: list[tuple[Event, str]] = []
        if before is not None:
            done = ((d, _deed(d)) for d in deeds if d.message and d.message == before.message)
            events += [(event, d.by) for d, event in done if event is not None]
        finding = found.finding if found is not None else before.finding if before is not None else None
        fits = _fitting(silences, finding)
        routed = self._routed(finding, seen) if finding is not None and self._is_read(finding, seen) else None
        if fits is None:
            # What a namespace says of itself is known while it can be read; else what was known stays so.
            fits = routed.quiet if routed is not None else before.silence if before is not None and not before.silenced_by else None
        if before is not None and before.silence != fits:
            ended = next(
                (d.by for d in deeds if d.verb == "unsilence" and d.silence is not None and d.silence.id == _id(before.silence)), ""
            )
            events.append((Hushed(fits), "" if fits is not None else ended))
        looked = self._event(before, found, joins, fits, seen)
        if looked is not None:
            events.append((looked, ""))
        events.append((Lapsed(), ""))  # after the look: what is well by now is not escalated
        ident = before.id if before is not None else alerts.identity(found.finding, found.rule) if found is not None else ""
        chain = self._chains[ident] = routed.escalation if routed is not None else self._chains.get(ident, self._settings.escalation)
        after, happened = before, []
        for event, by in events:
            after, reason = alerts.step(
                after, event, seen.now, for_s=self._settings.for_s, clear_s=self._settings.clear_s, escalation=_after(chain)
            )
            happened.append((reason, by))
        if after is not None:
            taken = chain[: after.escalated]
            places = (*(routed.receivers if routed is not None else ()), *(Receiver(s.channel) for s in taken if s.channel is not None))
            there = (*standing.get(after.message, ()), *([Receiver(after.incident)] if after.incident else ()))
            sent = Sent(places, there, tuple(s.page for s in taken if s.page is not None))
            after, reason = alerts.step(after, sent, seen.now, for_s=0, clear_s=0)
            happened.append((reason, ""))
        return None if after is before else _Step(before, after, tuple(happened))

    def _is_read(self, finding: Finding, seen: _Seen) -> bool:
        """Whether what its namespaces say can be read now; a cluster that cannot be read is told of all the same."""
        cluster = seen.cluster(finding.cluster)
        return finding.cause == OUTAGE or (cluster is not None and _is_live(cluster))

    def _mesh(self, finding: Finding, seen: _Seen) -> Mesh | None:
        """The mesh whose callers feel a finding, else the one where it stands."""
        felt = (seen.cluster(name) for name in (*sorted(_felt(finding)), finding.cluster))
        place = next((c for c in felt if c is not None), None)
        return None if place is None else seen.meshes.get(place.mesh)

    async def _commit(
        self,
        known: Mapping[str, Alert],
        moved: Mapping[str, _Step],
        seen: _Seen,
        silences: Mapping[str, Silence | None],
        deeds: Sequence[tuple[str, Deed | None]],
    ) -> None:
        """Commit what changed, each message together with the alerts that it is about.

        First what is silenced, since alerts say by which silence; last which deeds are done, since a deed that is done again changes nothing.
        """
        if silences:
            await self._store.commit({}, now=seen.now, silences=silences)
        quiet = {key: step.after for key, step in moved.items() if step.told is None}
        told: dict[str, dict[str, _Step]] = {}
        for key, step in moved.items():
            if step.told is not None:
                told.setdefault(step.told.message, {})[key] = step
                for reason, _ in step.happened:
                    if reason not in alerts.QUIET:
                        logger.info("Alert %s %s: %s", key, step.told.finding.cause, reason.value)
        outages = {s.told.finding.cluster for s in moved.values() if s.told is not None and s.told.finding.cause == OUTAGE}
        outages |= {a.finding.cluster for a in known.values() if a.finding.cause == OUTAGE and a.state is State.FIRING}
        now_ = {**known, **{key: step.after for key, step in moved.items()}}
        for message, steps in told.items():
            members = sorted((a for a in now_.values() if a is not None and a.told and a.message == message), key=_badness)
            mesh = self._mesh(members[0].finding, seen)
            if mesh is not None and mesh.name in seen.away:
                mesh = None  # of what another bot looks at, its routes are not known here
            routed = self._routed(members[0].finding, seen)
            to = _places(members, routed)
            chain = self._chains.get(members[0].id, ())
            escalation = _after(chain)
            happened = [Moved(s.before, s.told, s.happened) for s in steps.values() if s.told is not None]
            joined = {
                r.place
                for m in happened
                if m.before is not None and any(reason is Reason.ROUTED for reason, _ in m.happened)
                for r in m.after.places
                if r not in m.before.places
            }
            if members[0].finding.cause == OUTAGE:
                frozen = sum(
                    a is not None and a.told and a.unknown_since is not None and a.finding.cluster == members[0].finding.cluster
                    for a in now_.values()
                )
                drafts = tell.outage(members[0], to, frozen, escalation)
            else:
                drafts = await asyncio.to_thread(tell.drafts, members, to, mesh, escalation, routed.team, self._look_on(members))
            asked = [routing.asked(s, self._settings, seen.now) for s in chain]
            lines = await asyncio.to_thread(tell.lines, happened, members, mesh, seen.now, outages, escalation, asked)
            threads = {d.id: tell.details(members, mesh) + lines if d.channel in joined else lines for d in drafts}
            over = all(a.state is State.RESOLVED for a in members)
            end = Ending(message=message, at=seen.now, team=routed.team, channel=to[0].place if to else "")
            first = dict(list(steps.items())[:_CHUNK])
            # The message says all of it with the first of its alerts: what is cut off here is found again by the next look.
            await self._store.commit(
                {k: s.after for k, s in first.items()},
                drafts,
                threads,
                now=seen.now,
                pages=_pages(members),
                runbooks=[message] if members[0].finding.cause != OUTAGE and _begins(message, steps.values(), known.values()) else (),
                chronicle={message: tell.chronicle(happened, seen.now, asked)},
                ending=[end] if over and any(reason is Reason.RESOLVED for m in happened for reason, _ in m.happened) else (),
            )
            quiet |= {k: s.after for k, s in steps.items() if k not in first}
        rest = list(quiet.items())
        for start in range(0, len(rest), _CHUNK):
            await self._store.commit(dict(rest[start : start + _CHUNK]), now=seen.now)
        if deeds:
            alerts_now = [a for a in now_.values() if a is not None]
            drafts, threads = await self._answers(
                [(i, d.heard) for i, d in deeds if d is not None and d.heard is not None], alerts_now, seen
            )
            await self._store.commit({}, drafts, threads, now=seen.now, done=deeds[-1][0])

    def _look_on(self, members: Sequence[Alert]) -> list[tuple[str, str]]:
        """Where else the worst of the alerts of a message can be looked at, at the time of its fault."""
        finding, ended = members[0].finding, all(a.state is State.RESOLVED for a in members)
        until = max((a.resolved_at or 0.0 for a in members), default=0.0) if ended else None
        return self.links(finding.host, finding.cluster, min(namespaces(finding), default=""), min(a.since for a in members), until)

    async def _answers(
        self, told: Iterable[tuple[str, Heard]], known: Sequence[Alert], seen: _Seen
    ) -> tuple[list[Draft], dict[str, list[Step]]]:
        """What is answered to Alertmanagers: in the thread of the host's alert, or where it would be told."""
        drafts: list[Draft] = []
        threads: dict[str, list[Step]] = {}
        for deed, heard in told:
            # What Alertmanager repeats every few hours is answered once; a look that begins anew answers it all the same.
            first = await self._store.claim(f"heard:{heard.key}", deed, RESOLVED_S)
            if first != deed and not heard.resolved:
                continue
            ident = f"heard-{hashlib.blake2b(heard.key.encode(), digest_size=8).hexdigest()}"
            speaking = [a for a in known if a.state is State.FIRING and a.told and a.finding.host == heard.host and a.message]
            if speaking and not heard.resolved:
                lead = max(speaking, key=lambda a: (a.finding.failing_share, a.message))
                for i, place in enumerate(lead.places or (Receiver(""),)):
                    line = Step(id=ident, message=heard.answer)
                    threads.setdefault(f"{lead.message}@{place.place}" if i else lead.message, []).append(line)
                continue
            routed = self._routed(heard.finding, seen)
            for i, place in enumerate(routed.receivers if routed.quiet is None else ()):
                name = f"{ident}@{place.place}" if i else ident
                if not heard.resolved or await self._store.work(name) is not None:
                    drafts.append(Draft(id=name, alert="", channel=place.place, message=heard.answer, resolved=True))
        return drafts, threads

    async def _digest(self, seen: _Seen, sweeps: Mapping[str, Sweep]) -> None:
        """Send the lists whose time of day has come: each once, whoever sends it, and late rather than never."""
        s = self._settings
        if not s.digests or (seen.now - self._started < _START_S and not all(c.name in self._read for c in self._clusters.clusters())):
            return
        if self._digested is None:
            self._digested = await self._store.digested()
        for digest in s.digests:
            key = repr(digest)
            due = hours.last([(digest.days, digest.at)], seen.now) or 0.0
            before = self._digested.get(key)
            if before is not None and before >= due:
                continue
            drafts = []
            if before is not None and seen.now - due <= _DIGEST_LATE_S:  # one that is new begins with its next time
                whole = _together(seen.meshes, sweeps)
                found = tuple(f for f in whole.findings if self._wanted(f, digest, seen))
                place = Receiver(digest.place or s.default_channel, digest.mention or ())
                ident = f"digest-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}-{due:.0f}"
                drafts = [await asyncio.to_thread(tell.digest, ident, replace(whole, findings=found), place, seen.now - due)]
            await self._store.commit({}, drafts, now=seen.now, digests={key: due})
            self._digested[key] = due

    def _wanted(self, finding: Finding, digest: Digest, seen: _Seen) -> bool:
        about = routing.about(finding, self._mesh(finding, seen))
        return routing.fits(digest.match, about) and routing.refused(about, self._settings, seen.now) is None

    async def _known(self, found: Mapping[str, _Found]) -> dict[str, Alert]:
        """The open alerts, and of the resolved ones those that are found again."""
        opened = dict(await self._store.alerts() if self._alerts is None else self._alerts)
        return opened | await self._store.resolved(found.keys() - opened.keys())

    def _outages(self, meshes: Mapping[str, Mesh], now: float) -> dict[str, _Found]:
        """The clusters of which nothing can be read; one that was never read has some time to come up first."""
        found = [outage(c.name, c.unreadable["*"]) for m in meshes.values() for c in m.clusters if self._is_lost(c, now)]
        return {alerts.identity(f, ""): _Found(f, "") for f in found}

    def _is_lost(self, cluster: Cluster, now: float) -> bool:
        if "*" not in cluster.unreadable or is_elsewhere(cluster):
            return self._is_unheard(cluster, now) is False
        return cluster.name in self._read or now - self._started >= _START_S

    def _is_unheard(self, cluster: Cluster, now: float) -> bool | None:
        """Of a cluster that another bot watches and nobody tells of: whether it may only be that nobody has told of it yet."""
        if not is_elsewhere(cluster):
            self._unheard.pop(cluster.name, None)
            return None
        return now - self._unheard.setdefault(cluster.name, now) < _START_S

    def _event(self, alert: Alert | None, found: _Found | None, joins: str, silence: Silence | None, seen: _Seen) -> Event | None:
        """What this look says of one alert; None if it says nothing."""
        if found is not None and found.finding.cause == OUTAGE:
            return Seen(found.finding, "", joins, silence)
        if alert is not None and alert.finding.cause == OUTAGE:
            # A process that has just started has not tried for long enough to say so, and nobody tries a cluster that is not registered any more.
            lost = seen.cluster(alert.finding.cluster)
            return Gone() if lost is not None and _is_live(lost) else None
        if found is not None and (cluster := seen.cluster(found.finding.cluster)) is not None and _is_live(cluster):
            return Seen(found.finding, found.rule, joins, silence)
        if alert is None or alert.state is State.RESOLVED:
            return None
        why = self._why_unseen(alert.finding, seen)
        if why is not None:
            # A process that has just started has not read anything yet; that is no news about any alert.
            return None if why.waiting or (seen.now - self._started < _START_S and why.early) else Unseen(why.sentence)
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
            if (waiting := self._is_unheard(cluster, seen.now)) is not None:
                return _Blind(f"no bot tells of {cluster.name}", early=True, waiting=waiting)
            for kind, reason in sorted(cluster.missing.items()):
                what = f"{cluster.name} cannot be read" if kind == "*" else f"{kind} of {cluster.name} cannot be read"
                return _Blind(f"{what}: {reason}", early=cluster.name not in self._read)
            if not cluster.synced:
                return _Blind(f"{cluster.name} has not been read completely", early=cluster.name not in self._read)
            for malformed in cluster.malformed:
                if any(f" {namespace}/" in malformed.ref for namespace in namespaces(finding)):
                    return _Blind(f"{malformed.ref} cannot be understood: {malformed.reason}", early=False)
        names = {c.name for c in concerned}
        for skipped in seen.skipped:
            if skipped.check == finding.cause and skipped.cluster in names:
                return _Blind(skipped.reason, early=False)
        return None

    def _what_changed(self, alert: Alert, batch: list[_Happened]) -> tuple[str, ...]:
        """The changes that may have made an alert well: what was done lately where it is about, and the endpoints that followed."""
        spaces = namespaces(alert.finding)

        def near(happened: _Happened) -> bool:
            return happened.change.cluster == alert.finding.cluster.partition("/")[0] and happened.change.namespace in spaces

        earliest = max(alert.since, time.time() - _RECENT_S)
        deeds = [h.told for h in self._recent if h.at >= earliest and near(h) and h.change.kind not in _FOLLOWS]
        followed = [h.told for h in batch if near(h) and h.change.kind is EndpointSlice]
        return tuple(dict.fromkeys([*deeds[-2:], *followed[-1:]]))


class _Step(NamedTuple):
    """An alert before and after a look, and what happened to it, each with the person who did it."""

    before: Alert | None
    after: Alert | None
    happened: tuple[tuple[Reason, str], ...]

    @property
    def told(self) -> Alert | None:
        """The alert, if anything of this is to be read by anybody."""
        return self.after if self.after is not None and any(reason not in alerts.QUIET for reason, _ in self.happened) else None


def swept(meshes: Mapping[str, Mesh], before: Mapping[str, Sweep], most: int | None = None) -> dict[str, Sweep]:
    """The sweep of each mesh, of `most` hosts anew. No garbage is looked for meanwhile: a sweep makes none, and millions of objects would be gone through."""
    paused = gc.isenabled()
    gc.disable()
    try:
        return {name: diagnosis.sweep(mesh, before.get(name), most=most) for name, mesh in meshes.items()}
    finally:
        if paused:
            gc.enable()


def _together(meshes: Mapping[str, Mesh], sweeps: Mapping[str, Sweep]) -> Sweep:
    """The sweeps of all meshes as one; of a mesh without one, that nobody has told of it yet."""
    found = list(sweeps.values())
    untold = [
        Skipped("*", c.name, f"{ELSEWHERE}, and has not told of it") for name, m in meshes.items() if name not in sweeps for c in m.clusters
    ]
    return Sweep(
        hosts=sum(s.hosts for s in found),
        findings=diagnosis.once(f for s in found for f in s.findings),
        skipped=(*dict.fromkeys(k for s in found for k in s.skipped), *untold),
        clusters=tuple(c for s in found for c in s.clusters),
    )


def _deed(d: Deed) -> Event | None:
    """What a person did to an alert; None for what is done to something else."""
    match d.verb:
        case "ack":
            return Acked(Ack(by=d.by, at=d.at, until=d.until))
        case "unack":
            return Unacked(d.by)
        case "hand":
            return Handed(Ack(by=d.to, at=d.at, until=d.until), d.by)
        case "note":
            return Noted(Note(by=d.by, at=d.at, text=d.text))
        case "close":
            return Closed(Close(by=d.by, at=d.at, why=d.text))
        case "reopen":
            return Reopened(d.by)
        case "escalate":
            said = Appeal(by=d.by, at=d.at, why=d.text, severity=d.severity, tried=d.tried)
            return Escalated(d.by, said if d.text or d.severity or d.tried else None)
        case "incident":
            return Opened(d.text)
        case _:
            return None


def _silences(before: Mapping[str, Silence], deeds: Iterable[Deed], now: float) -> dict[str, Silence]:
    """The silences after what people did, without those that are over."""
    found = dict(before)
    for deed in deeds:
        if deed.silence is not None and deed.verb == "silence":
            found[deed.silence.id] = deed.silence
        elif deed.silence is not None and deed.verb == "unsilence":
            found.pop(deed.silence.id, None)
    return {key: silence for key, silence in found.items() if silence.end > now}


def _begins(message: str, steps: Iterable[_Step], known: Iterable[Alert]) -> bool:
    """Whether a message begins to speak: what fires joins nothing that was told there and fires still."""
    fired = any(reason in {Reason.FIRED, Reason.FIRED_AGAIN} for s in steps for reason, _ in s.happened)
    return fired and not any(a.message == message and a.told and a.state is State.FIRING for a in known)


def _id(silence: Silence | None) -> str:
    return silence.id if silence is not None else ""


def _after(chain: Iterable[EscalationStep]) -> tuple[float, ...]:
    """When each step of an escalation is due, in seconds after the firing."""
    return tuple(step.after_s for step in chain)


def _pages(members: Sequence[Alert]) -> list[Page]:
    """How the alerts of a message, the worst first, should stand at the pagers that were asked."""
    open_ = [a for a in members if a.state not in {State.RESOLVED, State.CLOSED}]
    state: Literal["triggered", "acknowledged", "resolved"] = (
        "resolved" if not open_ else "acknowledged" if all(a.ack is not None for a in open_) else "triggered"
    )
    message = members[0].message
    return [
        Page(id=f"{message}@{name}", pager=name, key=f"meshwhy-{message}", message=message, state=state, facts=pager.facts(members))
        for name in dict.fromkeys(name for a in members for name in a.paged)
    ]


def _places(members: Sequence[Alert], now: Routed) -> tuple[Receiver, ...]:
    """Where the message of these alerts stands, the first place first; alerts of before places were kept stand where they go now."""
    known: dict[str, Receiver] = {}
    for alert in sorted(members, key=lambda a: (a.fired_at or 0.0, a.id)):
        known |= {r.place: r for r in alert.places if r.place not in known}
    return tuple(known.values()) or now.receivers


def _difference(before: Mapping[str, Silence], after: Mapping[str, Silence]) -> dict[str, Silence | None]:
    return {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _fitting(silences: Mapping[str, Silence], finding: Finding | None) -> Silence | None:
    """The silence that fits a finding for the longest time."""
    fits = [s for s in silences.values() if finding is not None and s.fits(finding)]
    return max(fits, key=lambda s: (s.end, s.id), default=None)


_LAST = {State.CLOSED: 1, State.RESOLVED: 2}


def _badness(alert: Alert) -> tuple[int, bool, float, str]:
    """The order in which a message tells its alerts: what fails and is known first, the greatest share first."""
    return _LAST.get(alert.state, 0), alert.unknown_since is not None, -alert.finding.failing_share, alert.id


class _Blind(NamedTuple):
    """Why nothing was seen; `early` when it may only be that nothing has been read yet, `waiting` when another bot may tell of it soon."""

    sentence: str
    early: bool
    waiting: bool = False


def _is_live(cluster: Cluster) -> bool:
    """Whether what is known of a cluster is what it says now, and not what it said before it fell silent."""
    return cluster.synced and "*" not in cluster.unreadable


def _found(meshes: Mapping[str, Mesh], sweeps: Mapping[str, Sweep]) -> dict[str, _Found]:
    """What fails now, by the identity of its alert; several findings with one identity are one, of the worst, with what the others say as evidence."""
    groups: dict[str, list[_Found]] = {}
    for name, swept in sweeps.items():
        for finding in swept.findings:
            if finding.severity is Severity.ERROR:
                rule = alerts.rule_of(resource_of(meshes[name], finding), finding.path)
                groups.setdefault(alerts.identity(finding, rule), []).append(_Found(finding, rule))
    return {key: _worst(group) for key, group in groups.items()}


def _worst(group: list[_Found]) -> _Found:
    """One finding for all of an alert: of one rule the shares add up, for the caller that loses most."""
    first, *rest = sorted(group, key=lambda f: (-f.finding.failing_share, f.finding.path))
    if not rest:
        return first
    share = first.finding.failing_share
    if first.rule:
        lost = (sum(f.finding.failing_share for f in group if v in f.finding.viewpoints) for f in group for v in f.finding.viewpoints)
        share = min(1.0, round(max(lost, default=share), 6))
    others = tuple(f.finding.message for f in rest if f.finding.message != first.finding.message)
    viewpoints = tuple(dict.fromkeys(v for f in (first, *rest) for v in f.finding.viewpoints))
    return _Found(
        replace(first.finding, failing_share=share, viewpoints=viewpoints, evidence=(*first.finding.evidence, *others)), first.rule
    )


def _felt(finding: Finding) -> set[str]:
    return {v.cluster for v in finding.viewpoints}


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
