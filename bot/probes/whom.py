"""Whom to ask about one host: its callers' proxies, the worst first, gateways and waypoints, one or two servers, the ztunnels between, the istiods.

What must stay true: a bounded few, whatever the mesh's size; pods that run, and never one twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.registry import proxy_kind
from checks.resources import Pod
from checks.viewpoints import callers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from checks.answers import Viewpoint
    from checks.diagnosis import Diagnosis
    from checks.mesh import Cluster, Mesh

POPULATIONS = 3
"""Callers that see something different, of each kind (sidecars, gateways, waypoints), of which proxies are asked."""

ALIKE = 2
"""Proxies of one population: what only one of them sees (an ejection) is told apart by asking another."""

SERVERS = 2
PROXIES = 10
"""Of one cluster, of all kinds together: an Envoy of 5,000 clusters is some 9 MB once it is read."""

HOSTS = 20
_MONITORING = 15014
PROXY = "istio-proxy"


class Replica(NamedTuple):
    """One istiod: its pod, its revision, and the port at which it is monitored."""

    pod: Pod
    revision: str
    port: int


def hosts(diagnosis: Diagnosis) -> list[str]:
    """The host and those that its rules lead to, as istiod names them."""
    led = (d.envoy_cluster.split("|", 3) for r in diagnosis.routes for d in r.destinations)
    return list(dict.fromkeys([diagnosis.host, *(parts[3] for parts in led if len(parts) == 4)]))[:HOSTS]


def envoys(diagnosis: Diagnosis, mesh: Mesh, cluster: Cluster, serving: Iterable[Pod]) -> list[Pod]:
    """The pods of a cluster whose Envoys are asked: one of each population of callers, who serves there, and others that are alike."""
    populations = [_population(mesh, cluster, diagnosis.host, viewpoint)[:ALIKE] for viewpoint in _worst(diagnosis, cluster)]
    first = [pod for alike in populations for pod in alike[:1]]
    more = [pod for alike in populations for pod in alike[1:]]
    asked = [*first, *(pod for pod in serving if proxy_kind(pod) != "none"), *more]
    return list({(pod.namespace, pod.name): pod for pod in asked}.values())[:PROXIES]


def _worst(diagnosis: Diagnosis, cluster: Cluster) -> Iterator[Viewpoint]:
    """Who calls from a cluster and gets the worst, a few of each kind."""
    counted: dict[str, int] = {}
    routes = sorted(diagnosis.routes, key=lambda r: -r.failing_share)
    found = [v for f in diagnosis.findings if f.failing_share for v in f.viewpoints]
    for viewpoint in dict.fromkeys([*(r.viewpoint for r in routes if r.failing_share), *found, *(r.viewpoint for r in routes)]):
        if viewpoint.cluster == cluster.name and counted.get(viewpoint.kind, 0) < POPULATIONS:
            counted[viewpoint.kind] = counted.get(viewpoint.kind, 0) + 1
            yield viewpoint


def _population(mesh: Mesh, cluster: Cluster, host: str, viewpoint: Viewpoint) -> list[Pod]:
    """The running pods that a viewpoint stands for, as far as one template made them: that one first which stands for all."""
    if viewpoint.pod is not None:
        pod = cluster.get(Pod, viewpoint.namespace, viewpoint.pod)
        return [pod] if pod is not None and _runs(pod) else []
    caller = next((c for c in callers_of(mesh, host) if c.viewpoint == viewpoint), None)
    if caller is None or not caller.proxy.pod:
        return []
    groups = (same.pods for same in mesh.alike(cluster, viewpoint.namespace))
    group = next((same for same in groups if any(p.name == caller.proxy.pod for p in same)), [])
    return sorted(filter(_runs, group), key=lambda p: (p.name != caller.proxy.pod, not p.ready, p.name))


def _runs(pod: Pod) -> bool:
    return pod.status.phase in {"Running", ""} and not pod.metadata.deletion_timestamp


def servers(diagnosis: Diagnosis, mesh: Mesh, cluster: Cluster) -> list[Pod]:
    """One or two pods that serve the host in a cluster: one that gets requests, and one that does not where there is any."""
    routes = sorted(diagnosis.routes, key=lambda r: -r.failing_share)
    told = {e.address.rpartition(":")[0].strip("[]"): e for r in reversed(routes) for d in r.destinations for e in d.endpoints}
    here = {at: e for at, e in told.items() if not e.cluster or e.cluster in {cluster.name, mesh.cluster_id(cluster)}}
    pods = {at: p for p in (cluster.all(Pod) if here else ()) for at in p.addresses if at in here and _runs(p) and not p.spec.host_network}
    found: dict[str, Pod] = {}
    for at, pod in sorted(pods.items()):
        found.setdefault(here[at].state, pod)
    more = [pod for _, pod in sorted(pods.items()) if pod not in found.values()]
    return [*found.values(), *more][:SERVERS]


def containers(pod: Pod) -> list[str]:
    """The containers of a pod whose logs tell of calls: its proxy's, and the first one of the application's own."""
    names = [c.name for c in pod.spec.containers]
    own = next((n for n in names if n != PROXY), None)
    proxied = PROXY in names or any(c.name == PROXY for c in pod.spec.init_containers or ())
    return [*([PROXY] if proxied else []), *([own] if own is not None else [])]


def ztunnels(diagnosis: Diagnosis, cluster: Cluster, ends: Sequence[Pod]) -> list[Pod]:
    """The ztunnels of the nodes on which the host's servers and its callers run; none where nobody is in the ambient mesh."""
    ambient = any(v.kind == "ztunnel" for f in diagnosis.findings for v in f.viewpoints) or any(map(_captured, ends))
    if not ambient:
        return []
    there = sorted((p for p in cluster.all(Pod) if p.labels.get("app") == "ztunnel" and _runs(p)), key=lambda p: p.name)
    nodes = [p.spec.node_name for p in ends if _captured(p)]
    return sorted(there, key=lambda p: (p.spec.node_name not in nodes, p.name))[:SERVERS]


def _captured(pod: Pod) -> bool:
    """Whether ztunnel carries a pod's traffic (istio/istio, cni/pkg: the annotation that the node agent writes)."""
    return pod.annotations.get("ambient.istio.io/redirection") == "enabled" or proxy_kind(pod) == "waypoint"


def istiods(mesh: Mesh, cluster: Cluster, callers: Iterable[Pod]) -> list[Replica]:
    """The control plane's replicas in a cluster, those of the callers' revision first."""
    own = {p.labels.get("istio.io/rev") or p.annotations.get("istio.io/rev") or mesh.revision(cluster, p) or "default" for p in callers}
    found = []
    for pod in cluster.all(Pod):
        if pod.labels.get("app") == "istiod" and _runs(pod):
            port = pod.annotations.get("prometheus.io/port", "")  # as istioctl finds it
            revision = pod.labels.get("istio.io/rev", "default")
            found.append(Replica(pod, revision, int(port) if port.isdecimal() and 0 < int(port) < 1 << 16 else _MONITORING))
    return sorted(found, key=lambda r: (r.revision not in own, r.pod.namespace, r.pod.name))
