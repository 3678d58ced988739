"""ServiceEntries and WorkloadEntries (MESH4xx), and what is said of two that define one host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from checks.case import short, spoken
from checks.registry import HostService, from_entry
from checks.resources import Pod, WorkloadEntry
from checks.seen import behind as pods_behind
from checks.seen import by, called, failed, held, log_command, lost, sources
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from checks.case import Branch, Case, View
    from checks.evidence import Access
    from checks.finding import Finding
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.resources import ServiceEntry
    from checks.seen import Called, Calls


class Pair(NamedTuple):
    """Two ServiceEntries of one namespace that define a host, as the callers of some views have them: the one that istiod keeps, and another.

    `lost` are the ports of the other one that istiod drops for these callers.
    """

    istiod: Istiod
    host: str
    kept: ServiceEntry
    other: ServiceEntry
    lost: tuple[int, ...]
    views: list[View]

    @property
    def why(self) -> str:
        """Why the one is kept, for people."""
        older = (self.kept.created, self.kept.name) <= (self.other.created, self.other.name)
        return "older, kept" if older else "exported to these callers by name, kept"


def pairs(case: Case, host: str) -> list[Pair]:
    """The pairs of ServiceEntries of one namespace that define a host; which of them is kept depends on what the caller sees.

    Namespaces where a Kubernetes Service has the host are left out.
    """
    return case.once(f"pairs {host}", lambda: list(_pairs(case, host)))


def _pairs(case: Case, host: str) -> Iterator[Pair]:
    found: dict[tuple[Istiod, str, str, tuple[int, ...]], Pair] = {}
    for view in case.views:
        istiod = view.ups.istiod
        for group in case.seen(istiod, host, view.ups.proxy.namespace).values():
            lost = case.lost_ports(istiod, host, view.ups.proxy.namespace)
            for other in group[1:]:
                gone = tuple(n for n, (_, e) in lost.items() if e is other and (host != case.host or case.asked(n)))
                key = istiod, group[0].ref, other.ref, gone
                found.setdefault(key, Pair(istiod, host, group[0], other, gone, [])).views.append(view)
    yield from found.values()


def concerned(case: Case, cause: str) -> list[str]:
    """The hosts that a cause is asked about: the case's own, and those that its rules lead to and that fail for this cause."""
    return list(dict.fromkeys([case.host, *(b.upstream.host for b in case.failing() if case.why(b) == cause)]))


def felt(case: Case, cause: str, host: str, views: Collection[View]) -> list[Branch]:
    """Failing destinations of some callers that lead to a host and that a cause explains."""
    return [b for b in case.failing() if b.upstream.host == host and b.view in views and case.why(b) == cause]


def service(istiod: Istiod, entry: ServiceEntry, host: str) -> HostService:
    """What istiod makes of one host of a ServiceEntry."""
    return next(s for s in from_entry(entry, istiod.cluster, {}) if s.hostname == host)


def disputed(kept: ServiceEntry, other: ServiceEntry) -> list[int]:
    """Ports that both ServiceEntries define, each with another protocol."""
    said = {p.number: _spoken(p.protocol) for p in kept.spec.ports or ()}
    return [p.number for p in other.spec.ports or () if said.get(p.number, _spoken(p.protocol)) != _spoken(p.protocol)]


def _spoken(protocol: str) -> str:
    """A protocol as listeners tell them apart: HTTPS and TLS are both chosen by SNI, and none is TCP."""
    return {"HTTPS": "TLS", "": "TCP"}.get(protocol.upper(), protocol.upper())


def ports(entry: ServiceEntry) -> str:
    """The ports of a ServiceEntry in words: `443 (HTTPS), 80 (HTTP)`."""
    return ", ".join(f"{p.number} ({p.protocol})" for p in entry.spec.ports or ()) or "no port"


def describe(entry: ServiceEntry) -> str:
    """A ServiceEntry as evidence: when it was made, what it says."""
    spec = entry.spec
    made = f"created {entry.created[:16].replace('T', ' ')}" if entry.created else "without a creation time"
    where = ", ".join(e.address for e in spec.endpoints or ()) or "no endpoints of its own"
    exported = f", exportTo {', '.join(spec.export_to)}" if spec.export_to else ""
    return f"{entry.ref}: {made}, resolution {spec.resolution}, ports {ports(entry)}, endpoints: {where}{exported}"


def differs(istiod: Istiod, kept: ServiceEntry, other: ServiceEntry, host: str) -> list[str]:
    """What keeps two ServiceEntries from being merged, in words."""
    a, b = service(istiod, kept, host), service(istiod, other, host)
    parts = []
    if a.resolution != b.resolution:
        parts.append(f"resolution ({kept.spec.resolution} and {other.spec.resolution})")
    if a.export_to != b.export_to:
        parts.append("exportTo")
    if a.labels != b.labels:
        parts.append("labels")
    if (a.selector or {}) != (b.selector or {}):
        parts.append("workloadSelector")
    return parts


def holder(case: Case, istiod: Istiod) -> Cluster:
    """The registered cluster whose configuration a control plane reads."""
    return case.mesh.cluster(istiod.cluster)


def together(case: Case, cause: str) -> list[list[Branch]]:
    """Failing destinations that a cause explains, all that lead to one service from one control plane together."""
    groups: dict[tuple[str, str, str], list[Branch]] = {}
    for b in case.failing():
        if case.why(b) == cause:
            service = b.upstream.service
            groups.setdefault((b.view.ups.istiod.cluster, b.upstream.host, service.namespace if service else ""), []).append(b)
    return list(groups.values())


def behind(case: Case, branch: Branch) -> list[ServiceEntry]:
    """The ServiceEntries that define a destination's port for its callers, oldest first; none for a Kubernetes Service."""
    u = branch.upstream
    if u.service is None or u.service.kubernetes:
        return []
    found = case.entries(branch.view.ups.istiod, u.host)
    return [e for e in found if e.namespace == u.service.namespace and any(p.number == u.port for p in e.spec.ports or ())]


def served(case: Case, branch: Branch) -> bool:
    """Whether istiod has any endpoint of a destination's port, of whatever subset, with an address."""
    return _served(case, branch, {})


def served_as_asked(case: Case, branch: Branch) -> bool:
    """Whether istiod has any endpoint of a destination's port that its subset asks for."""
    return _served(case, branch, asked_of(branch))


def _served(case: Case, branch: Branch, labels: Mapping[str, str]) -> bool:
    u = branch.upstream
    port = u.service.port(u.port) if u.service else None
    if u.service is None or port is None:
        return False
    found = [e for e in case.endpoints(branch.view.ups.istiod, u.service) if e.address and e.port_name == port.name]
    return any(all(e.carries(k, v) for k, v in labels.items()) for e in found)


def asked_of(branch: Branch) -> Mapping[str, str]:
    """The labels that a destination's subset asks of its endpoints."""
    u = branch.upstream
    subset = u.rule.subset(u.subset) if u.rule and u.subset else None
    return (subset.labels or {}) if subset else {}


def carried(entry: WorkloadEntry, labels: Mapping[str, str]) -> bool:
    """Whether a WorkloadEntry carries some labels."""
    have = {**(entry.spec.labels or {}), **entry.labels}
    return all(have.get(k) == v for k, v in labels.items())


def known_subset(branch: Branch) -> bool:
    """Whether a destination names no subset, or one that its DestinationRule defines."""
    u = branch.upstream
    return not u.subset or (u.rule is not None and u.rule.subset(u.subset) is not None)


def workload_entries(case: Case, istiod: Istiod, namespace: str, selector: Mapping[str, str]) -> list[WorkloadEntry]:
    """The WorkloadEntries of a namespace that carry some labels, healthy or not."""
    if not selector:
        return []
    return [w for w in holder(case, istiod).ordered(WorkloadEntry, namespace) if carried(w, selector)]


def selected_pods(case: Case, namespace: str, selector: Mapping[str, str]) -> list[Pod]:
    """The pods of a namespace, of every cluster, that carry some labels, ready or not."""
    return [
        p
        for c in case.mesh.clusters
        for p in c.ordered(Pod, namespace)
        if selector and all(p.labels.get(k) == v for k, v in selector.items())
    ]


def words(labels: Mapping[str, str]) -> str:
    """Labels as people write them: `app=vm,version=v1`."""
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "(no labels)"


# --- where a connection was first aimed at -------------------------------------------------------------------------------------


def astray(case: Case, *, kubernetes: bool) -> list[list[Calls]]:
    """Calls to hosts whose sidecar cluster sends to where a connection was first aimed at, and that were aimed elsewhere or nowhere, by service.

    No address at all is UH (Envoy's original_dst load balancer); the address of the host whose rule led there is UF.
    """
    found: list[Calls] = []
    for c in called(case):
        u = c.branch.upstream
        if u.unseen and u.service is not None and u.service.resolution == "none" and u.service.kubernetes is kubernetes:
            calls = c.failing(partial(_astray, _aimed(c)))
            found += [calls] if calls is not None else []
    return by(found, lambda c: f"{c.branch.upstream.host} {c.branch.resource}")


def _aimed(c: Called) -> frozenset[str]:
    """The addresses of the host whose rule leads elsewhere: what its callers dialled; none where the rule is the destination's own."""
    host = c.branch.step.host
    known = c.branch.view.ups.istiod.by_host.get(host, ()) if host != c.branch.upstream.host else ()
    return frozenset(v for s in known for vips in s.vips.values() for v in vips)


def _astray(aimed: frozenset[str], access: Access) -> bool:
    return "UH" in access.flags or ("UF" in access.flags and access.upstream.rpartition(":")[0] in aimed)


def astray_finding(case: Case, cause: str, group: list[Calls], why: str, fix: str) -> Finding:
    """The finding of calls that go where they were first aimed at, at the rule that leads there."""
    first = group[0]
    b = first.branch
    part = lost(group)
    aimed = ", ".join(first.upstreams[:3])
    return case.finding(
        cause,
        cluster=case.cluster_of(b),
        resource=b.resource,
        path=b.path,
        message=(
            f"{percent(part)} of the requests of a rule fail: {short(b.upstream.host)} {why}, and so its calls go to the address that they were first "
            f"aimed at, {f'which is {aimed}' if aimed else 'and they have none'}."
        ),
        share=part,
        viewpoints=case.viewpoints(c.branch for c in group),
        evidence=(
            *sources(group),
            *(
                f"Envoy {h.envoy.proxy} has {b.upstream.name} as {h.cluster.type} ({h.source})"
                for h in held(case)
                if h.branch.upstream.name == b.upstream.name and h.cluster is not None and h.cluster.type
            ),
        ),
        fix=fix,
        commands=(
            log_command(first),
            f"istioctl proxy-config cluster {first.log.pod} -n {first.log.namespace} --fqdn {b.upstream.host} -o json",
        ),
    )


# --- what is outside ------------------------------------------------------------------------------------------------------------


def outside(case: Case, fails: Callable[[Access], bool]) -> list[list[Calls]]:
    """Calls to what a ServiceEntry defines, and no pod serves, that failed in one way, by service."""
    found = [
        c
        for c in failed(case, fails)
        if c.branch.upstream.service is not None and not c.branch.upstream.service.kubernetes and not any(pods_behind(case, c))
    ]
    return by(found, lambda c: f"{c.branch.upstream.host} {c.branch.upstream.port}")


def tls(branch: Branch) -> str:
    """The TLS mode that a DestinationRule gives a destination; empty when none does."""
    own = spoken(branch)
    return own.mode if own is not None else ""
