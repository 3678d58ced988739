"""What running parts show of one host, each beside what was predicted for exactly that proxy.

A check of evidence asks here; what the objects explain already is left out, since the nearest cause alone is told.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.accesslog import concerns
from checks.agreement import NOISE
from checks.case import short
from checks.resources import Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from checks.case import Branch, Case, View
    from checks.evidence import Access, AccessLog, EnvoyView, LiveCluster, LiveHost
    from checks.mesh import Cluster
    from checks.registry import IstioEndpoint


FEW = 3
"""Fewer calls than this say nothing, unless they are all that there were."""
OVER_S = 60.0
"""Calls that have succeeded for so long since the last one that failed say that it is over."""


class Held(NamedTuple):
    """A predicted destination that gets requests, and what one live Envoy holds of it (None: no cluster of that name)."""

    branch: Branch
    envoy: EnvoyView
    cluster: LiveCluster | None

    @property
    def hosts(self) -> tuple[LiveHost, ...]:
        """Its hosts; none of a cluster that takes no requests."""
        return self.cluster.hosts if self.cluster is not None and self.cluster.present else ()

    @property
    def source(self) -> str:
        """Where that was seen, and when, for people."""
        return f"{self.envoy.source}, read at {clock(self.envoy.read_at)}"


def held(case: Case) -> list[Held]:
    """The destinations of each Envoy that was read, but for those whose failing the objects explain."""

    def find() -> list[Held]:
        views = [(e, case.as_pod(e.cluster, e.namespace, e.pod)) for e in case.evidence.envoys]
        return [
            Held(b, envoy, envoy.clusters.get(b.upstream.name))
            for envoy, view in views
            if view is not None
            for b in case.of_view(view)
            if b.share > 0 and not case.explained(b)
        ]

    return case.once("held", find)


class Called(NamedTuple):
    """A predicted destination that gets requests, and what one proxy's log says of its calls."""

    branch: Branch
    log: AccessLog
    accesses: tuple[Access, ...]

    def failing(self, fails: Callable[[Access], bool]) -> Calls | None:
        """Those that failed in one way; None where none did."""
        return _some(self.branch, self.log, self.accesses, fails)


class Served(NamedTuple):
    """A predicted destination that gets requests, one of its endpoints, and what that pod's own proxy says of what it handed on to the app."""

    branch: Branch
    endpoint: IstioEndpoint
    log: AccessLog
    accesses: tuple[Access, ...]

    def failing(self, fails: Callable[[Access], bool]) -> Calls | None:
        """Those that failed in one way; of the destination's requests only those that came to this endpoint."""
        found = _some(self.branch, self.log, self.accesses, fails)
        usable = sum(e.health == "healthy" for e in self.branch.upstream.endpoints)
        return found._replace(part=found.part / max(1, usable)) if found is not None else None


class Calls(NamedTuple):
    """Calls of one destination that failed in the same way: `part` (0 to 1) of all that this log has of it."""

    branch: Branch
    log: AccessLog
    accesses: tuple[Access, ...]
    part: float

    @property
    def source(self) -> str:
        """How many they are and where that was seen, with one of the lines, for people."""
        count = sum(a.count for a in self.accesses)
        return f"{count} call{'s'[: count != 1]} in the log of {self.log.proxy} ({self.log.container}): {self.accesses[0].line}"

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The addresses that were tried."""
        return tuple(dict.fromkeys(a.upstream for a in self.accesses if a.upstream))


def _some(branch: Branch, log: AccessLog, accesses: Iterable[Access], fails: Callable[[Access], bool]) -> Calls | None:
    """The calls that failed in one way, if they are more than on any day and are not over."""
    every = list(accesses)
    found = tuple(a for a in every if fails(a))
    total, count = sum(a.count for a in every), sum(a.count for a in found)
    if not count or count / total < NOISE or (count < FEW and count != total):
        return None
    return None if over(found, every) else Calls(branch, log, found, count / total)


def over(failed: Collection[Access], every: Iterable[Access]) -> bool:
    """Whether calls that failed are past: others have succeeded for some time since the last of them."""
    last = max((a.last for a in failed), default=0.0)
    well = max((a.last for a in every if a not in failed and not a.flags and a.code < 500), default=0.0)
    return bool(last) and well - last > OVER_S


def called(case: Case) -> list[Called]:
    """The destinations that the logs which were read tell of, but for those whose failing the objects explain."""

    def find() -> list[Called]:
        out: list[Called] = []
        for log in case.evidence.logs:
            view = case.as_pod(log.cluster, log.namespace, log.pod)
            for b in case.of_view(view) if view is not None else ():
                accesses = tuple(a for a in log.accesses if a.envoy_cluster == b.upstream.name)
                if b.share > 0 and accesses and not case.explained(b):
                    out.append(Called(b, log, accesses))
        return out

    return case.once("called", find)


def unrouted(case: Case, fails: Callable[[Access], bool]) -> list[Calls]:
    """The calls that a caller's proxy ended by itself in one way, before any cluster was chosen: of each of the host's destinations the same part."""
    out: list[Calls] = []
    for log in case.evidence.logs:
        view = case.as_pod(log.cluster, log.namespace, log.pod)
        branches = case.of_view(view) if view is not None else []
        about = [a for a in log.accesses if concerns(a, case.host, {b.upstream.name for b in branches})]
        found = [_some(b, log, about, fails) for b in branches if b.share > 0 and not case.explained(b)]
        out += [calls for calls in found if calls is not None]
    return out


def served(case: Case) -> list[Served]:
    """What the proxies of the endpoints' own pods say of the calls that they handed on (`inbound|<port>||`, model.BuildInboundSubsetKey)."""

    def find() -> list[Served]:
        out: list[Served] = []
        for log in case.evidence.logs:
            for b, e in _at(case, log.cluster, log.namespace, log.pod):
                accesses = tuple(a for a in log.accesses if a.envoy_cluster.startswith(f"inbound|{e.port}|"))
                out += [Served(b, e, log, accesses)] if accesses else []
        return out

    return case.once("served", find)


def hosting(case: Case) -> list[tuple[Branch, IstioEndpoint, EnvoyView]]:
    """The Envoys that were read and that stand in an endpoint's own pod, with the destinations that the endpoint serves."""
    return [(b, e, envoy) for envoy in case.evidence.envoys for b, e in _at(case, envoy.cluster, envoy.namespace, envoy.pod)]


def _at(case: Case, cluster: str, namespace: str, name: str) -> Iterator[tuple[Branch, IstioEndpoint]]:
    """The destinations that a pod serves, whose failing the objects do not explain, with the endpoint that it is."""
    where = case.mesh.known(cluster)
    pod = where.get(Pod, namespace, name) if where is not None else None
    if where is None or pod is None:
        return
    for b in case.branches:
        if b.share > 0 and not case.explained(b):
            yield from ((b, e) for e in b.upstream.endpoints if e.cluster == case.mesh.cluster_id(where) and e.address in pod.addresses)


def failed(case: Case, fails: Callable[[Access], bool]) -> list[Calls]:
    """The calls that failed in one way, as callers' logs tell of them."""
    return [calls for c in called(case) if (calls := c.failing(fails)) is not None]


def says(access: Access, *words: str) -> bool:
    """Whether Envoy's reasons for one call hold any of these words, written in lower case with spaces."""
    said = f"{access.details} {access.failure} {access.termination}".lower().replace("_", " ")
    return any(w in said for w in words)


def refused(access: Access) -> bool:
    """Whether the connection was refused: somebody answered that nobody listens there."""
    return "UF" in access.flags and says(access, "connection refused")


def timed_out(access: Access) -> bool:
    """Whether nobody answered the attempt to connect."""
    return "UF" in access.flags and says(access, "connection timeout", "connection timed out")


def behind(case: Case, calls: Calls) -> Iterator[tuple[IstioEndpoint, Cluster, Pod]]:
    """The pods that were tried, of those that the prediction has as healthy endpoints."""
    tried = set(calls.upstreams)
    for e in calls.branch.upstream.endpoints:
        if e.health != "healthy" or e.at not in tried:
            continue
        cluster = case.mesh.cluster(e.cluster)
        pod = next((p for p in cluster.within(Pod, e.namespace).values() if e.address in p.addresses), None)
        if pod is not None:
            yield e, cluster, pod


def share(parts: Iterable[tuple[Branch, float]]) -> float:
    """The part of a rule's requests that some parts (0 to 1) of its destinations take, of the rule where it is largest."""
    sums: dict[int, float] = {}
    for branch, part in parts:
        sums[id(branch.step)] = sums.get(id(branch.step), 0.0) + branch.share * part
    return round(min(1.0, max(sums.values(), default=0.0)), 6)


def clock(seconds: float) -> str:
    """`2026-11-03 14:02:07 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def lost(calls: Iterable[Calls]) -> float:
    """The part of a rule's requests that some failing calls are, of the rule where it is largest."""
    return share((c.branch, c.part) for c in calls)


def sources(calls: Iterable[Calls]) -> Iterator[str]:
    """Where failing calls were seen, three of them."""
    yield from list(dict.fromkeys(c.source for c in calls))[:3]


def log_command(calls: Calls) -> str:
    """The kubectl command that shows them."""
    first = calls.accesses[0]
    told = first.envoy_cluster or ",".join(first.flags) or first.details
    return f"kubectl -n {calls.log.namespace} logs {calls.log.pod} -c {calls.log.container} | grep '{told}'"


def by(calls: Iterable[Calls], key: Callable[[Calls], str]) -> list[list[Calls]]:
    """Failing calls that belong to one thing, together."""
    groups: dict[str, list[Calls]] = {}
    for c in calls:
        groups.setdefault(key(c), []).append(c)
    return list(groups.values())


def where(branch: Branch) -> str:
    """A destination as people say it: `subset v1 of cart.shop`, `cart.shop`."""
    u = branch.upstream
    return f"subset {u.subset} of {short(u.host)}" if u.subset else short(u.host)


def spoken(case: Case, view: View, namespace: str, line: str) -> bool:
    """Whether a line of an app's log names the host, in one of the ways in which the app's namespace can call it."""
    hosts = [case.host]
    if case.host.endswith(suffix := f".svc.{names.DOMAIN}"):
        of = case.host.removesuffix(suffix)
        own, _, home = of.partition(".")
        hosts += [f"{of}.svc", of]
        if namespace == home or names.service_host(own, namespace) not in view.ups.istiod.by_host:
            hosts.append(own)
    return any(re.search(rf"(?<![\w.-]){re.escape(h)}(?![\w-]|\.\w)", line) for h in hosts)
