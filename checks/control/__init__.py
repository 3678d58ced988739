"""Control plane, delivery and proxies (MESH9xx): why a live Envoy, or an istiod, holds something else than the objects say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.accesslog import moment
from checks.agreement import compared, elsewhere, spelling
from checks.names import is_ip
from checks.registry import proxy_kind
from checks.resources import EnvoyFilter, Pod
from checks.routes import answer
from checks.seen import clock, held
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from checks.answers import Viewpoint
    from checks.case import Branch, Case, View
    from checks.evidence import EnvoyView, IstiodView, LiveCluster, LogLine, ProxySync
    from checks.finding import Finding
    from checks.istiod import Istiod, Proxy
    from checks.registry import IstioEndpoint
    from checks.seen import Held

BACKLOG_S = 10.0
"""How long a change may wait before it is pushed: PILOT_DEBOUNCE_MAX (pilot/pkg/features/tuning.go). More is a backlog."""


def filters(view: View) -> list[EnvoyFilter]:
    """The EnvoyFilters that reach a caller's proxy, in the order in which they are applied: the root namespace's first (PushContext.EnvoyFilters).

    One that names a target is for that gateway or waypoint alone, and is not counted for others.
    """
    return reaching(view.ups.istiod, view.ups.proxy)


def reaching(istiod: Istiod, proxy: Proxy) -> list[EnvoyFilter]:
    """The EnvoyFilters that reach any proxy, as `filters` has them of a caller's."""
    root = istiod.config.root_namespace
    found = [f for f in istiod.all(EnvoyFilter) if isinstance(f, EnvoyFilter) and f.namespace in {root, proxy.namespace}]
    mine = [f for f in found if _reaches(f, proxy)]
    return sorted(mine, key=lambda f: (f.spec.priority, f.namespace != root, f.created, f.name))


def _reaches(found: EnvoyFilter, proxy: Proxy) -> bool:
    if found.spec.target_refs:
        own = proxy.labels.get("gateway.networking.k8s.io/gateway-name")
        return any(ref.kind == "Gateway" and ref.name == own for ref in found.spec.target_refs)
    return found.spec.workload_selector is None or found.spec.workload_selector.matches(proxy.labels)


# --- what an Envoy holds otherwise ------------------------------------------------------------------------------------------------


class Differs(NamedTuple):
    """A destination that a live Envoy holds otherwise than the objects say: `part` (0 to 1) of its requests fails for that."""

    held: Held
    part: float
    absent: bool
    """Whether the whole cluster is missing there."""
    lacking: tuple[str, ...]
    """Ready endpoints that it does not have."""
    gone: tuple[str, ...]
    """Hosts that it sends to and that no object lists as ready."""

    @property
    def sentence(self) -> str:
        """The difference, with where it was seen."""
        h = self.held
        route = answer(h.branch.view.callers.viewpoints[0], h.branch.step)
        return f"{compared(route, route.destinations[h.branch.index], h.envoy)[1]} ({h.source})"


def differing(case: Case) -> list[Differs]:
    """The destinations whose cluster or hosts a live Envoy lacks, or has too many of; not those that it has and does not use for a reason of its own."""

    def find() -> list[Differs]:
        return [d for h in held(case) if (d := _differs(h)) is not None and settled(case, h.branch, h.envoy.read_at)]

    return case.once("differing", find)


def _differs(h: Held) -> Differs | None:
    u = h.branch.upstream
    if h.cluster is None or not h.cluster.present:
        return Differs(h, 1.0, absent=True, lacking=(), gone=()) if u.defined and not u.unseen else None
    if u.unseen or not u.endpoints or not all(is_ip(e.address) for e in u.endpoints) or h.cluster.warming:
        return None
    ready = {spelling(e.at) for e in u.endpoints if e.health == "healthy"}
    have = {spelling(host.address) for host in h.cluster.hosts}
    used = {spelling(host.address) for host in h.cluster.usable}
    lacking, gone = tuple(sorted(ready - have)), tuple(sorted(used - ready))
    if not lacking and not gone:
        return None
    return Differs(h, 1.0 if not used else len(gone) / len(used), absent=False, lacking=lacking, gone=gone)


SETTLED_S = 30.0
"""For how long endpoints must have been what they are: what differs a moment after a change is on its way."""
TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"
"""When what led to the last change of a slice happened, as Kubernetes' own controller writes it."""


WARMING_S = 10.0
"""For how long a cluster may wait for its endpoints after it was announced: every new one does, for a moment."""


def settled(case: Case, branch: Branch, read_at: float) -> bool:
    """Whether the endpoints of a destination had been what they are for a while when something was read; where nothing says, they had."""
    service = branch.upstream.service
    if service is None or not service.kubernetes:
        return True
    changed = (s.annotations.get(TRIGGERED, "") for c in case.mesh.clusters for s in case.mesh.slices(c, service.namespace, service.name))
    return all(moment(text) < read_at - SETTLED_S for text in changed if text)


def why(case: Case, d: Differs) -> str:
    """The cause of a difference, the nearest to what a person must mend; empty when what was read does not decide."""
    h = d.held
    sync = synced(case, h.envoy.cluster, h.envoy.namespace, h.envoy.pod)
    if h.cluster is not None and h.cluster.warming:
        announced = moment(h.cluster.last_updated)
        if announced and h.envoy.read_at - announced < WARMING_S:
            return ""
        return "xds-nack" if sync is not None and sync.states.get("EDS") == "ERROR" else "eds-warming"
    if (sync is not None and refused(sync)) or (h.cluster is not None and h.cluster.refused):
        return "xds-nack"
    if disconnected(case, h.envoy.cluster, h.envoy.namespace, h.envoy.pod):
        return "proxy-disconnected"
    for cause, found in of_shards(case).items():
        if any(s.branch.upstream.name == h.branch.upstream.name for s in found) and not d.absent:
            return cause
    if sync is not None and sync.states.get("CDS" if d.absent else "EDS") in {"STALE", "NOT_SENT"}:
        return "push-backlog" if any(lag(v) > BACKLOG_S for v in case.evidence.istiods) else "proxy-stale"
    if any(lag(v) > BACKLOG_S for v in case.evidence.istiods):
        return "push-backlog"
    if any(p.apply_to == "CLUSTER" for f in filters(h.branch.view) for p in f.spec.config_patches or ()):
        return "envoyfilter-route-or-cluster"
    return ""


def hit(case: Case, cause: str) -> list[EnvoyView]:
    """The Envoys that hold something otherwise for a cause, clusters or rules."""
    helds = [*(d.held for d in because(case, cause)), *(r.held for r in rerouted(case, cause))]
    return list({h.envoy.proxy: h.envoy for h in helds}.values())


def because(case: Case, cause: str) -> list[Differs]:
    """The differences that a cause explains."""
    return [d for d in differing(case) if case.once(f"why {id(d.held.branch)} {d.held.source}", lambda d=d: why(case, d)) == cause]  # type: ignore[misc]


class Rerouted(NamedTuple):
    """A rule that a live Envoy has otherwise than the objects say: `part` (0 to 1) of its requests fails for that."""

    held: Held
    part: float
    absent: tuple[str, ...]
    """The clusters that it leads to and that are not there."""
    leads: str
    filter: EnvoyFilter | None
    """The last EnvoyFilter that edits routes there."""

    @property
    def sentence(self) -> str:
        """The difference, with where it was seen."""
        step = self.held.branch.step
        where = self.leads or "nowhere: it has no rule for the host"
        lost = f", where {self.absent[0]} does not exist" if self.absent else ""
        return f"Envoy {self.held.envoy.proxy} leads {step.host}:{step.port} to {where}{lost} ({self.held.source})"


ROUTES = frozenset({"ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"})


def rerouted(case: Case, cause: str) -> list[Rerouted]:
    """The rules that live Envoys have otherwise for a cause: one that is not known to wait for istiod is an EnvoyFilter's."""
    every = case.once("rerouted", lambda: list(_rerouted(case)))
    return [r for r in every if _why_rerouted(case, r) == cause]


def _rerouted(case: Case) -> Iterator[Rerouted]:
    seen: set[tuple[int, str]] = set()
    for h in held(case):
        key = id(h.branch.step), h.source
        found = elsewhere(answer(h.branch.view.callers.viewpoints[0], h.branch.step), h.envoy) if key not in seen else None
        seen.add(key)
        if found is None:
            continue
        editing = [f for f in filters(h.branch.view) if any(p.apply_to in ROUTES for p in f.spec.config_patches or ())]
        dead = {name: part for name, part in found.items() if not _alive(h.envoy.clusters.get(name))}
        absent = tuple(name for name in dead if name not in h.envoy.clusters)
        leads = " and ".join(f"{name} ({percent(part)})" for name, part in found.items())
        yield Rerouted(h, sum(dead.values()) if found else 1.0, absent, leads, editing[-1] if editing else None)


def _why_rerouted(case: Case, r: Rerouted) -> str:
    e = r.held.envoy
    sync = synced(case, e.cluster, e.namespace, e.pod)
    if sync is not None and refused(sync):
        return "xds-nack"
    if disconnected(case, e.cluster, e.namespace, e.pod):
        return "proxy-disconnected"
    if any(lag(v) > BACKLOG_S for v in case.evidence.istiods):
        return "push-backlog"
    if sync is not None and sync.states.get("RDS") in {"STALE", "NOT_SENT"}:
        return "proxy-stale"
    return "envoyfilter-route-or-cluster" if r.filter is not None else ""


def _alive(cluster: LiveCluster | None) -> bool:
    if cluster is None or not cluster.present:
        return False
    return bool(cluster.usable) or cluster.type == "ORIGINAL_DST" or bool(cluster.hosts and cluster.panic_threshold)


def withheld(r: Rerouted) -> bool:
    """Whether a gateway leads to a cluster that istiod knows and keeps from it, since no rule of its own leads there."""
    ups = r.held.branch.view.ups
    if ups.proxy.kind != "gateway" or not ups.istiod.plane.filters_clusters:
        return False
    parts = [name.split("|", 3) for name in r.absent]
    known = [ups.of(p[3], int(p[1]), p[2]) for p in parts if len(p) == 4 and p[1].isdigit()]
    return any(u.defined for u in known)


# --- what istiods say of proxies --------------------------------------------------------------------------------------------------


def synced(case: Case, cluster: str, namespace: str, pod: str) -> ProxySync | None:
    """What the istiod that a proxy is connected to says of it; None where none of those that were read knows it."""
    where = case.mesh.known(cluster)
    names = {cluster, case.mesh.cluster_id(where)} if where is not None else {cluster}
    for view in case.evidence.istiods:
        found = (view.proxies or {}).get(f"{pod}.{namespace}")
        if found is not None and found.cluster in {"", *names}:
            return found
    return None


def refused(sync: ProxySync) -> list[str]:
    """The xDS types that a proxy refused."""
    return [kind for kind, state in sync.states.items() if state == "ERROR" and kind in {"CDS", "EDS", "LDS", "RDS"}]


def heard(case: Case, cluster: str) -> bool:
    """Whether every istiod to which a cluster's proxies may be connected has said which are: those of its control plane's cluster."""
    home = case.mesh.cluster(case.mesh.istiod(cluster).cluster)
    running = case.once(f"istiods {home.name}", lambda: {(home.name, p.namespace, p.name) for p in home.all(Pod) if _serves_xds(p)})
    said = {(v.cluster, v.namespace, v.pod) for v in case.evidence.istiods if v.proxies is not None}
    return bool(running) and running <= said


def _serves_xds(pod: Pod) -> bool:
    return pod.labels.get("app") == "istiod" and pod.ready and not pod.metadata.deletion_timestamp


def disconnected(case: Case, cluster: str, namespace: str, pod: str) -> bool:
    """Whether a proxy that runs is connected to no istiod, as all of them say, or as it says itself."""
    for e in case.evidence.proxies:
        if (e.cluster, e.namespace, e.pod) == (cluster, namespace, pod) and (e.stats or {}).get("control_plane.connected_state") == 0:
            return True
    where = case.mesh.known(cluster)
    if where is None or not heard(case, where.name) or synced(case, cluster, namespace, pod) is not None:
        return False
    found = where.get(Pod, namespace, pod)
    return found is not None and found.ready and proxy_kind(found) != "none"


def lag(view: IstiodView) -> float:
    """How long a change took on average to reach the proxies of an istiod, in seconds, while its counters were watched; 0 where nothing was pushed."""
    growth = view.growth or {}
    count = growth.get("pilot_proxy_convergence_time_count", 0.0)
    return growth.get("pilot_proxy_convergence_time_sum", 0.0) / count if count else 0.0


# --- what istiods hold otherwise --------------------------------------------------------------------------------------------------


class Shard(NamedTuple):
    """What one istiod holds of the endpoints behind a destination otherwise than the EndpointSlices say."""

    branch: Branch
    istiod: IstiodView
    lacking: tuple[IstioEndpoint, ...]
    """Ready endpoints that it does not have."""
    gone: tuple[str, ...]
    """Addresses that it has as healthy and that no slice lists as ready."""
    part: float
    """The part of the destination's requests, 0 to 1, that its proxies cannot serve for that."""

    @property
    def sentence(self) -> str:
        """The difference in words."""
        v = self.istiod
        lacks = (
            f"lacks {', '.join(e.at for e in self.lacking[:3])}{_more(self.lacking)}, which {'is' if len(self.lacking) == 1 else 'are'} ready"
            if self.lacking
            else ""
        )
        keeps = f"still has {', '.join(self.gone[:3])}{_more(self.gone)}, which no slice lists as ready" if self.gone else ""
        said = " and ".join(filter(None, (lacks, keeps)))
        return f"istiod {v.pod}.{v.namespace} {said} ({v.source}, read at {clock(v.read_at)})"


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - 3} more" if len(found) > 3 else ""


def shards(case: Case) -> list[Shard]:
    """Where the endpoints of an istiod differ from those that the slices of all its clusters give, for each destination of its own callers."""

    def find() -> list[Shard]:
        return [
            s
            for view in case.evidence.istiods
            for b in _of_its_callers(case, view)
            if b.share > 0 and not case.explained(b) and settled(case, b, view.read_at) and (s := _shard(case, view, b)) is not None
        ]

    return case.once("shards", find)


def _shard(case: Case, view: IstiodView, b: Branch) -> Shard | None:
    """How an istiod holds a destination's endpoints otherwise: by its shards, else by the clusters that it does not watch."""
    u = b.upstream
    port = u.service.port(u.port) if u.service is not None and u.service.kubernetes else None
    if port is None:
        return None
    found = (view.shards or {}).get(u.host)
    known = {spelling(e.at) for e in (*u.endpoints, *u.dropped) if e.port_name == port.name and e.health == "healthy"}
    ready = [e for e in u.endpoints if e.health == "healthy" and _pod(case, e)]
    gone: tuple[str, ...] = ()
    if found is not None:
        mine = {spelling(s.address) for s in found if s.health == "Healthy" and s.port_name in {"", port.name}}
        lacking = tuple(e for e in ready if spelling(e.at) not in mine)
        gone = tuple(sorted(mine - known)) if not u.subset else ()
    else:
        lacking = tuple(e for e in ready if view.remotes is not None and view.remotes.get(e.cluster) in {None, "timeout"})
    if not lacking and not gone:
        return None
    left = sum(e.health == "healthy" for e in u.endpoints) - len(lacking) + len(gone)
    return Shard(b, view, lacking, gone, 1.0 if not left else len(gone) / left)


def _pod(case: Case, e: IstioEndpoint) -> bool:
    """Whether an endpoint is a pod itself, and not a gateway that stands for pods of another network."""
    return bool(e.workload) and any(e.cluster == case.mesh.cluster_id(c) for c in case.mesh.clusters)


def _of_its_callers(case: Case, view: IstiodView) -> Iterator[Branch]:
    """The destinations of callers whose control plane an istiod is."""
    for b in case.branches:
        if case.mesh.cluster(b.view.ups.istiod.cluster).name == view.cluster:
            yield b


def of_shards(case: Case) -> dict[str, list[Shard]]:
    """The differences of istiods by the cause that explains them, the nearest to what a person must mend."""

    def find() -> dict[str, list[Shard]]:
        out: dict[str, list[Shard]] = {}
        for s in shards(case):
            out.setdefault(_why_shard(case, s), []).append(s)
        return out

    return case.once("of shards", find)


def _why_shard(case: Case, s: Shard) -> str:
    missing = {e.cluster for e in s.lacking}
    remotes = s.istiod.remotes
    if missing and not s.gone and remotes is not None:
        states = {remotes.get(c) for c in missing}
        if states == {None}:
            return "remote-secret-missing"
        if states == {"timeout"}:
            return "remote-sync-timeout"
    if s.lacking and any(forbidden(s.istiod)):
        return "istiod-no-rbac"
    others = [
        v
        for v in case.evidence.istiods
        if v is not s.istiod and v.cluster == s.istiod.cluster and s.branch.upstream.host in (v.shards or {})
    ]
    if any(not any(o.istiod is v and o.branch is s.branch for o in shards(case)) for v in others):
        return "istiod-shard-divergence"
    return "eds-stale-shard"


def forbidden(view: IstiodView) -> Iterator[LogLine]:
    """The lines of an istiod's log that say that the API server lets it read no endpoints or pods (client-go, tools/cache/reflector.go)."""
    for line in view.lines or ():
        if "is forbidden" in line.text and any(
            f'"{kind}"' in line.text or f"{kind}." in line.text for kind in ("endpointslices", "pods", "services", "endpoints")
        ):
            yield line


def shard_finding(
    case: Case, cause: str, found: Sequence[Shard], message: str, fix: str, evidence: Iterable[str] = (), commands: Iterable[str] = ()
) -> Finding:
    """The finding of endpoints that an istiod does not have as they are."""
    first = found[0]
    view = first.istiod
    part = _worst(found)
    return case.finding(
        cause,
        cluster=case.mesh.cluster(view.cluster).name,
        resource=f"Pod {view.namespace}/{view.pod}",
        path="",
        message=f"{f'{percent(part)} of the requests of a rule fail' if part else 'Some endpoints get no requests'}: {message}.",
        share=part,
        viewpoints=viewpoints(case, found),
        evidence=dict.fromkeys([*(s.sentence for s in found[:3]), *evidence, *(d.sentence for d in because(case, cause)[:2])]),
        fix=fix,
        commands=(*commands, f"istioctl x internal-debug endpointShardz --istio-namespace {view.namespace}"),
    )


def _worst(found: Iterable[Shard]) -> float:
    sums: dict[tuple[int, int], float] = {}
    for s in found:
        key = id(s.branch.step), id(s.istiod)
        sums[key] = sums.get(key, 0.0) + s.branch.share * s.part
    return round(min(1.0, max(sums.values(), default=0.0)), 6)


def viewpoints(case: Case, found: Iterable[Shard]) -> tuple[Viewpoint, ...]:
    """The callers that some differences of istiods concern."""
    return case.viewpoints(s.branch for s in found)


# --- what findings about one proxy say --------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A caller's proxy about which something is to be said, and how the host stands there."""

    view: View
    cluster: str
    namespace: str
    pod: str
    part: float
    said: tuple[str, ...]

    @property
    def proxy(self) -> str:
        """`web-7f.shop`."""
        return f"{self.pod}.{self.namespace}"


def told(case: Case, cause: str, cluster: str, namespace: str, pod: str, *said: str) -> Told | None:
    """A proxy with what is known of it, and what differs there for this cause; None where it does not hold the host."""
    view = case.as_pod(cluster, namespace, pod)
    if view is None:
        return None
    at = cluster, namespace, pod
    found = [d for d in because(case, cause) if (d.held.envoy.cluster, d.held.envoy.namespace, d.held.envoy.pod) == at]
    rules = [r for r in rerouted(case, cause) if (r.held.envoy.cluster, r.held.envoy.namespace, r.held.envoy.pod) == at]
    sums: dict[int, float] = {}
    for d in found:
        sums[id(d.held.branch.step)] = sums.get(id(d.held.branch.step), 0.0) + d.held.branch.share * d.part
    sums |= {id(r.held.branch.step): r.part for r in rules}  # who follows another rule comes to other clusters
    part = round(min(1.0, max(sums.values(), default=0.0)), 6)
    return Told(view, cluster, namespace, pod, part, (*said, *(r.sentence for r in rules[:2]), *(d.sentence for d in found[:2])))


def proxy_finding(case: Case, cause: str, group: Sequence[Told], what: str, fix: str, commands: Iterable[str]) -> Finding:
    """The finding of proxies that do not have what istiod would have them have."""
    worst = max(group, key=lambda t: t.part)
    who = ", ".join(t.proxy for t in group[:3]) + _more(group)
    cluster = case.mesh.cluster(worst.cluster)
    return case.finding(
        cause,
        cluster=cluster.name,
        resource=f"Pod {worst.namespace}/{worst.pod}",
        path="",
        message=f"{f'{percent(worst.part)} of the requests of a rule fail' if worst.part else 'Changes do not arrive'} at {who}: {what}.",
        share=worst.part,
        viewpoints=dict.fromkeys(v for t in group for v in t.view.callers.viewpoints),
        evidence=dict.fromkeys(line for t in group[:3] for line in t.said),
        fix=fix,
        commands=commands,
    )
