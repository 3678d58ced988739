"""Who calls: the sidecars of each namespace, the gateways and the waypoints of a mesh, those that see the same told apart from those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from checks.answers import Viewpoint, ViewpointKind
from checks.istiod import Istiod, Proxy
from checks.planes import REVISION
from checks.registry import REGION, ZONE, split_locality
from checks.resources import ConfigMap, DestinationRule, Namespace, Pod, ReplicaSet, Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from checks.mesh import Cluster, Mesh

WAYPOINT = "istio.io-mesh-controller"


def proxy_kind(pod: Pod) -> ViewpointKind:
    """What kind of proxy runs in a pod: waypoint, gateway, sidecar, or none."""
    if pod.labels.get("gateway.istio.io/managed") == WAYPOINT:
        return "waypoint"
    containers = [*pod.spec.containers, *(pod.spec.init_containers or ())]
    proxies = [c for c in containers if c.name == "istio-proxy"]
    if any("waypoint" in (c.args or ()) for c in proxies):
        return "waypoint"
    if any("router" in (c.args or ()) for c in proxies):
        return "gateway"
    return "sidecar" if proxies or "sidecar.istio.io/status" in pod.annotations else "none"


@dataclass(frozen=True, slots=True)
class Caller:
    """A population of proxies that see the same, and one proxy of it that stands for all.

    `ports` are those that a gateway's pod names; `told` what of the configuration's label predicates fits a sidecar's pods.
    """

    viewpoint: Viewpoint
    proxy: Proxy
    ports: tuple[tuple[str, int], ...] = ()
    told: object = None


@dataclass(frozen=True, slots=True)
class Class:
    """Callers of several namespaces for which istiod makes the same: `proxy` stands for all of them."""

    proxy: Proxy
    viewpoints: tuple[Viewpoint, ...]


def _selectors(istiod: Istiod) -> list[tuple[str, Mapping[str, str]]]:
    """Every label predicate of the configuration that tells callers apart, with the namespace that it is limited to (empty: all)."""
    selecting = [o for kind in (DestinationRule, Sidecar) for o in istiod.all(kind) if isinstance(o, DestinationRule | Sidecar)]
    found: list[tuple[str, Mapping[str, str]]] = [
        (o.namespace, o.spec.workload_selector.wanted) for o in selecting if o.spec.workload_selector
    ]
    for rules in istiod.rulesets:
        found += [("", m.source_labels) for m in rules.matches if m.source_labels]
    unique: list[tuple[str, Mapping[str, str]]] = []
    for f in found:
        if f not in unique:
            unique.append(f)
    return unique


def _workload(pod: Pod) -> str:
    """A stable name of the workload that a gateway's pod belongs to."""
    for key in ("gateway.networking.k8s.io/gateway-name", "istio", "app"):
        if pod.labels.get(key):
            return f"{key}={pod.labels[key]}"
    return pod.name


def callers(mesh: Mesh) -> list[Caller]:
    """Every population of proxies of the mesh; of a mesh without any pod that has a proxy, the namespaces that could have one."""
    parts = ((c.objects.get(Pod), *_placing(mesh, c)) for c in mesh.clusters)
    made_of = tuple(p for part in parts for p in part)

    def find() -> list[Caller]:
        found = [c for cluster in mesh.clusters for c in _callers(mesh, cluster)]
        return found or list(_imagined(mesh))

    return mesh.once(("callers",), made_of, find)


def _callers(mesh: Mesh, cluster: Cluster) -> Iterator[Caller]:
    istiod = mesh.istiod(cluster.name)
    selectors = istiod.once("selectors", lambda: _selectors(istiod))
    spaces = cluster.objects.get(Pod, {})
    for namespace in sorted(spaces):
        space = cluster.within(Pod, namespace)
        made_of = space, *_placing(mesh, cluster)
        yield from mesh.once(("callers", cluster.name, namespace), made_of, partial(_of_namespace, mesh, cluster, space, selectors))


def _placing(mesh: Mesh, cluster: Cluster) -> tuple[object, ...]:
    """What of a cluster, besides its pods, decides who its callers are: control plane, namespaces, localities, revisions."""
    return mesh.istiod(cluster.name), cluster.objects.get(Namespace), mesh.localities(cluster), mesh.planes(cluster)


def _of_namespace(mesh: Mesh, cluster: Cluster, space: Mapping[str, Pod], selectors: list[tuple[str, Mapping[str, str]]]) -> list[Caller]:
    groups: dict[tuple[ViewpointKind, object], list[Pod]] = {}
    zoned = mesh.istiod(cluster.name).once("zoned", lambda: _zoned(mesh.istiod(cluster.name)))
    for pod in space.values():
        kind = proxy_kind(pod)
        if kind == "none" or pod.metadata.deletion_timestamp:
            continue
        if kind == "sidecar":
            own = [(i, s) for i, (ns, s) in enumerate(selectors) if ns in ("", pod.namespace)]
            chosen = frozenset(i for i, s in own if all(pod.labels.get(k) == v for k, v in s.items()))
            key: object = chosen, mesh.revision(cluster, pod), mesh.locality(cluster, pod) if zoned else ""
        else:
            key = _workload(pod)
        groups.setdefault((kind, key), []).append(pod)
    sidecars = sum(kind == "sidecar" for kind, _ in groups)
    out: list[Caller] = []
    for (kind, key), members in sorted(groups.items(), key=lambda g: (g[0][0], min(p.name for p in g[1]))):
        first = min(members, key=lambda p: (not p.ready, p.name))
        selector = (
            None
            if kind == "sidecar" and sidecars == 1
            else str(key)
            if kind != "sidecar"
            else _told_apart(members, mesh.revision(cluster, first), mesh.locality(cluster, first) if zoned else "")
        )
        viewpoint = Viewpoint(cluster.name, kind, first.namespace, None, selector)
        ports = (
            () if kind == "sidecar" else tuple((p.name, p.container_port) for c in first.spec.containers for p in c.ports or () if p.name)
        )
        out.append(Caller(viewpoint, mesh.proxy(cluster, first, kind), ports, key if kind == "sidecar" else None))
    return out


def _told_apart(pods: list[Pod], revision: str, locality: str) -> str:
    """A population as labels: what all its pods share of app and version, and the control plane and the zone that are theirs alone."""
    region, zone, _ = split_locality(locality)
    placed = {REVISION: revision, REGION: "" if zone else region, ZONE: zone}
    more = "".join(f",{k}={v}" for k, v in placed.items() if v)
    shared = [
        k for k in ("app", "app.kubernetes.io/name", "version") if len({p.labels.get(k) for p in pods}) == 1 and pods[0].labels.get(k)
    ]
    return (",".join(f"{k}={pods[0].labels[k]}" for k in shared) or ",".join(sorted({p.labels.get("app", p.name) for p in pods}))) + more


def _imagined(mesh: Mesh) -> Iterator[Caller]:
    for cluster in mesh.clusters:
        istiod = mesh.istiod(cluster.name)
        spaces = {s.namespace for s in istiod.services} | {r.namespace for r in istiod.rulesets}
        for ns in sorted(spaces - {istiod.config.root_namespace} or spaces):
            proxy = Proxy("sidecar", mesh.cluster_id(cluster), ns, "", {}, network=mesh.network(cluster, "", {}))
            yield Caller(Viewpoint(cluster.name, "sidecar", ns), proxy)


def classes(mesh: Mesh, host: str) -> list[Class]:
    """The callers of the mesh grouped by what istiod makes of a host for them; one of the host's own namespace stands for its group."""
    groups: dict[object, list[Caller]] = {}
    around = _classed(mesh)
    ruled = {istiod: istiod.ruled(host) for istiod in {i for _, i, _, _ in around}}
    for c, istiod, key, plain in around:
        own = plain and c.viewpoint.namespace in ruled[istiod]
        groups.setdefault((key, c.viewpoint) if own else key, []).append(c)
    namespace = host.split(".")[1] if "." in host else ""
    out: list[Class] = []
    for members in groups.values():
        first = next((c for c in members if c.viewpoint.namespace == namespace), members[0])
        ordered = [first, *(c for c in members if c is not first)]
        out.append(Class(first.proxy, tuple(c.viewpoint for c in ordered)))
    return out


def _classed(mesh: Mesh) -> list[tuple[Caller, Istiod, object, bool]]:
    """Each caller with its control plane and its class as far as no host matters, and whether it shares that with others."""
    around = callers(mesh)
    planes = {(mesh.cluster(c.proxy.cluster).name, c.proxy.revision) for c in around}
    made_of = (*around, *(mesh.istiod(*plane) for plane in sorted(planes)))
    return mesh.once("classed", made_of, lambda: [_class(mesh, c) for c in around])


def _class(mesh: Mesh, caller: Caller) -> tuple[Caller, Istiod, object, bool]:
    """Two callers with the same key get the same from istiod, but for what DestinationRules of their own namespaces say."""
    p = caller.proxy
    cluster = mesh.cluster(p.cluster)
    istiod = mesh.istiod(cluster.name, p.revision)
    placed = (p.locality, p.node) if istiod.once("placed", lambda: _placed(istiod)) else ()
    if p.kind != "sidecar" or caller.viewpoint.selector or istiod.special(p.namespace):
        return caller, istiod, (caller.viewpoint, placed), False
    return caller, istiod, (cluster.name, p.revision, p.network, placed, caller.told), True


def _placed(istiod: Istiod) -> bool:
    """Whether any rule looks at the caller's node or locality."""
    return _zoned(istiod) or any(s.node_local for s in istiod.services)


def _zoned(istiod: Istiod) -> bool:
    """Whether any rule looks at the caller's locality: localityLbSetting.distribute does."""
    if istiod.config.locality_lb_setting.distribute:
        return True
    for r in istiod.all(DestinationRule):
        if not isinstance(r, DestinationRule):
            continue
        policies = [r.spec.traffic_policy, *(s.traffic_policy for s in r.spec.subsets or ())]
        balancers = [b for p in policies if p for b in (p.load_balancer, *(x.load_balancer for x in p.port_level_settings or ())) if b]
        if any(b.locality_lb_setting and b.locality_lb_setting.distribute for b in balancers):
            return True
    return False


# --- callers without a proxy -----------------------------------------------------------------------------------------------------

_NEVER = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
"""Namespaces that the injection webhook leaves alone (pkg/kube/inject)."""


@dataclass(frozen=True, slots=True)
class Outsider:
    """A workload that calls without a proxy. `meant` says what asks for a sidecar that it does not have; empty: outside on purpose."""

    viewpoint: Viewpoint
    workload: str
    meant: str


def outsiders(mesh: Mesh) -> list[Outsider]:
    """The workloads of every namespace that run without a proxy and outside of the ambient mesh. Jobs are left out: they come and go."""
    made_of = tuple(c.objects.get(kind) for c in mesh.clusters for kind in (Pod, Namespace, ReplicaSet, ConfigMap))

    def find() -> list[Outsider]:
        found: list[Outsider] = []
        for cluster in mesh.clusters:
            root = mesh.istiod(cluster.name).config.root_namespace
            for namespace in sorted(set(cluster.objects.get(Pod, {})) - _NEVER - {root}):
                parts = cluster.within(Pod, namespace), cluster.objects.get(Namespace), cluster.objects.get(ReplicaSet, {}).get(namespace)
                found += mesh.once(("outsiders", cluster.name, namespace), parts, partial(_outsiders, mesh, cluster, namespace))
        return found

    return mesh.once(("outsiders",), made_of, find)


def _outsiders(mesh: Mesh, cluster: Cluster, namespace: str) -> tuple[Outsider, ...]:
    around = cluster.get(Namespace, "", namespace)
    labels = around.labels if around is not None else {}
    named = [(mesh.workload(cluster, p), p) for p in cluster.ordered(Pod, namespace) if _outside(p, labels)]
    out: list[Outsider] = []
    for workload, members in groupby(sorted(named, key=lambda n: (n[0], n[1].name)), key=lambda n: n[0]):
        kind, _, name = workload.partition(" ")
        pod = next(members)[1]
        app = pod.labels.get("app") or pod.labels.get("app.kubernetes.io/name")
        viewpoint = Viewpoint(cluster.name, "none", namespace, None, f"app={app}" if app else None)
        if kind != "Job":
            out.append(Outsider(viewpoint, f"{kind} {namespace}/{name}", _meant(pod, labels, namespace)))
    return tuple(out)


def _outside(pod: Pod, namespace: Mapping[str, str]) -> bool:
    ambient = pod.annotations.get("ambient.istio.io/redirection") == "enabled"
    wanted = pod.labels.get("istio.io/dataplane-mode", namespace.get("istio.io/dataplane-mode")) == "ambient"
    ended = pod.status.phase in {"Succeeded", "Failed"} or bool(pod.metadata.deletion_timestamp)
    return proxy_kind(pod) == "none" and not ambient and not wanted and not ended


def _meant(pod: Pod, namespace: Mapping[str, str], name: str) -> str:
    """What asks for a sidecar in a pod, as the injection webhook decides (its namespaceSelector and objectSelector)."""
    own = pod.labels.get("sidecar.istio.io/inject", pod.annotations.get("sidecar.istio.io/inject", ""))
    if own == "false" or pod.spec.host_network:
        return ""
    injection, revision = namespace.get("istio-injection"), namespace.get("istio.io/rev")
    if injection == "enabled":
        return f"namespace {name} has label istio-injection=enabled"
    if injection == "disabled":
        return ""
    if revision:
        return f"namespace {name} has label istio.io/rev={revision}"
    return "its pods have label sidecar.istio.io/inject=true" if pod.labels.get("sidecar.istio.io/inject") == "true" else ""
