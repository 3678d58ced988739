"""Who calls: the sidecars of each namespace, the gateways and the waypoints of a mesh, those that see the same told apart from those that do not."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.answers import Viewpoint, ViewpointKind
from checks.istiod import Istiod, Proxy, Scope
from checks.planes import REVISION
from checks.registry import GATEWAY_NAME, REGION, ZONE, split_locality
from checks.resources import ConfigMap, DestinationRule, Namespace, Pod, ReplicaSet, Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.mesh import Cluster, Mesh
    from checks.registry import IstioEndpoint

HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Caller:
    """A population of proxies that see the same, and one proxy of it that stands for all.

    `ports` are those that a gateway's pod names; `told` what of the configuration's label predicates fits a sidecar's pods; `beside` what
    serves on its node, where that was asked for; `families` 4 and 6, for the addresses of its pod.
    """

    viewpoint: Viewpoint
    proxy: Proxy
    ports: tuple[tuple[str, int], ...] = ()
    told: object = None
    beside: frozenset[tuple[str, str]] = frozenset()
    families: frozenset[int] = frozenset()

    @property
    def seen(self) -> object:
        """What decides what it gets: of a population of sidecars all but which of its pods stands for it, and pods come and go."""
        p = self.proxy
        if p.kind != "sidecar":
            return self
        return self.viewpoint, self.told, self.beside, self.families, p.cluster, p.network, p.revision, bool(p.pod)


@dataclass(frozen=True, slots=True)
class Class:
    """Callers of several namespaces for which istiod makes the same: `proxy` stands for all of them."""

    proxy: Proxy
    viewpoints: tuple[Viewpoint, ...]
    istiod: Istiod
    scope: Scope
    namespaces: frozenset[str]
    """Those of its viewpoints."""


def _selectors(istiod: Istiod) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
    """Every label predicate of the configuration that tells callers apart, by the namespace that it is limited to (empty: all)."""
    selecting = [o for kind in (DestinationRule, Sidecar) for o in istiod.all(kind) if isinstance(o, DestinationRule | Sidecar)]
    found: list[tuple[str, Mapping[str, str]]] = [
        (o.namespace, o.spec.workload_selector.wanted) for o in selecting if o.spec.workload_selector
    ]
    for rules in istiod.rulesets:
        found += [("", m.source_labels) for m in rules.matches if m.source_labels]
    out: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for one in {(ns, frozenset(labels.items())): (ns, labels) for ns, labels in found}.values():
        out.setdefault(one[0], []).append(one)
    return out


_NAMING = (GATEWAY_NAME, "istio", "app")


def _workload(pod: Pod) -> str:
    """A stable name of the workload that a gateway's pod belongs to."""
    for key in _NAMING:
        if pod.labels.get(key):
            return f"{key}={pod.labels[key]}"
    return pod.name


def _served(mesh: Mesh, cluster: Cluster, pod: Pod, telling: Iterable[str]) -> str:
    """A gateway's pod by all that tells it from others: those of one name may be several workloads, each with Gateways of its own."""
    told = {**{k: pod.labels.get(k) for k in telling}, REVISION: mesh.revision(cluster, pod)}
    return ",".join(f"{k}={v}" for k, v in told.items() if v) or pod.name


def _telling(mesh: Mesh, cluster: Cluster) -> tuple[str, ...]:
    """The labels by which Gateways and rules tell a gateway's pods from another's, and those that charts name them by."""
    istiod, selectors = mesh.istiod(cluster.name), _selecting(mesh, cluster)

    def find() -> tuple[str, ...]:
        asked = {k for g in istiod.gateways for k in g.spec.selector or ()}
        return tuple(sorted({*_NAMING, *asked, *(k for some in selectors.values() for _, labels in some for k in labels)}))

    return mesh.once(("telling", cluster.name), (istiod, selectors), find)


def callers(mesh: Mesh) -> list[Caller]:
    """Every population of proxies of the mesh; where no pod has one, or gateways alone do, the namespaces outside of the ambient mesh that could have one as well."""

    def find() -> list[Caller]:
        found = mesh.once(
            ("callers",), _made_of(mesh), lambda: [c for cluster in mesh.clusters for some in _callers(mesh, cluster) for c in some]
        )
        around = (c.objects.get(Pod) for c in mesh.clusters)
        return mesh.once(("peopled",), (found, mesh.runs_istiod, *mesh.control_planes, *around), lambda: _peopled(mesh, found))

    return mesh.now(("callers",), find)


def _made_of(mesh: Mesh) -> tuple[object, ...]:
    """What decides who calls."""
    return tuple(part for c in mesh.clusters for part in (c.objects.get(Pod), *_placing(mesh, c)))


def _peopled(mesh: Mesh, found: list[Caller]) -> list[Caller]:
    """The callers that were found, with those that could be there where nobody calls but gateways; gateways only where none is shown.

    Where a control plane is shown running beside its gateways, the pods that are shown are all there are: a mesh of gateways alone is common.
    """
    if any(c.viewpoint.kind != "gateway" for c in found) or (found and mesh.runs_istiod):
        return found
    return [*found, *(c for c in _imagined(mesh) if not found or c.viewpoint.kind != "gateway")]


def callers_of(mesh: Mesh, host: str) -> list[Caller]:
    """The callers as a host tells them apart: by their nodes as well where it has services that only the caller's own node serves."""
    serving = _beside(mesh, host)
    if serving is None:
        return callers(mesh)

    def find() -> list[Caller]:
        found: list[Caller] = []
        for cluster in mesh.clusters:
            selectors = _selecting(mesh, cluster)
            for namespace in sorted(cluster.objects.get(Pod, {})):
                own = [*selectors.get("", ()), *selectors.get(namespace, ())]
                found += _of_namespace(mesh, cluster, namespace, own, serving)
        return _peopled(mesh, found)

    return mesh.once(("callers of", host), (*_made_of(mesh), serving, mesh.runs_istiod, *mesh.control_planes), find)


def by_node(mesh: Mesh, host: str) -> bool:
    """Whether a host has services that only the caller's own node serves."""
    return _beside(mesh, host) is not None


_Serving = dict[tuple[str, str], frozenset[tuple[str, str]]]


def _beside(mesh: Mesh, host: str) -> _Serving | None:
    """Of each node (cluster ID, name), who serves there of the host's services that only the caller's own node serves; None where it has none."""
    some = _local(mesh)
    if not some:  # as in most meshes
        return None
    local: list[tuple[str, tuple[IstioEndpoint, ...]]] = []
    for istiod, known in some:
        for name in sorted(known & istiod.reached(host)):
            local += [(name, mesh.endpoints(istiod, s.hostname, s.namespace)) for s in istiod.by_host[name] if s.node_local]

    def serving() -> _Serving:
        found: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for name, endpoints in local:
            for e in endpoints:
                if e.health == "healthy":
                    found.setdefault((e.cluster, e.node), set()).add((name, e.workload))
        return {node: frozenset(served) for node, served in found.items()}

    return mesh.once(("beside", host), tuple(endpoints for _, endpoints in local), serving) if local else None


def node_local(mesh: Mesh, host: str) -> set[tuple[str, str]]:
    """The services, (host, namespace), that only the caller's own node serves and that rules of a host may lead to, whether any caller is led there."""
    some = _local(mesh)
    if not some:
        return set()
    names_of = ((istiod, name) for istiod, known in some for name in known & istiod.reached(host))
    return {(name, s.namespace) for istiod, name in names_of for s in istiod.by_host[name] if s.node_local}


def _local(mesh: Mesh) -> list[tuple[Istiod, frozenset[str]]]:
    return mesh.now("node local", lambda: [(i, known) for i in mesh.control_planes if (known := _node_local(i))])


def _node_local(istiod: Istiod) -> frozenset[str]:
    return istiod.once("node local", lambda: frozenset(s.hostname for s in istiod.services if s.node_local))


def _selecting(mesh: Mesh, cluster: Cluster) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
    istiod = mesh.istiod(cluster.name)
    return mesh.once(("selectors", cluster.name), (istiod,), lambda: istiod.once("selectors", lambda: _selectors(istiod)))


def _callers(mesh: Mesh, cluster: Cluster) -> Iterable[list[Caller]]:
    selectors, placing = _selecting(mesh, cluster), _placing(mesh, cluster)

    def of(namespace: str) -> list[Caller]:
        own = [*selectors.get("", ()), *selectors.get(namespace, ())]
        key = "callers", cluster.name, namespace
        made_of = cluster.within(Pod, namespace), *placing
        return mesh.once(key, made_of, lambda: _of_namespace(mesh, cluster, namespace, own))  # the same list while it says the same

    return mesh.each(("callers of", cluster.name), cluster, (Pod,), placing, of).values()


def _placing(mesh: Mesh, cluster: Cluster) -> tuple[object, ...]:
    """What of a cluster, besides its pods, decides who its callers are: what tells them apart, and where and in which network they are."""
    config = cluster.objects.get(Namespace), mesh.config_map(cluster), mesh.cluster_id(cluster)
    known = _selecting(mesh, cluster), mesh.istiod(cluster.name).zoned
    return *known, *config, mesh.localities(cluster), mesh.planes(cluster), mesh.tags(cluster), _telling(mesh, cluster)


def _of_namespace(
    mesh: Mesh, cluster: Cluster, namespace: str, selectors: list[tuple[str, Mapping[str, str]]], serving: _Serving | None = None
) -> list[Caller]:
    groups: dict[tuple[ViewpointKind, object, frozenset[tuple[str, str]]], list[Pod]] = {}
    here = mesh.cluster_id(cluster)
    zoned = mesh.istiod(cluster.name).zoned
    telling = _telling(mesh, cluster)
    alike = not selectors and not zoned and len(mesh.planes(cluster)) < 2
    for same in mesh.alike(cluster, namespace):
        kind, labels, _, pods = same
        if kind == "none":
            continue
        staying = [p for p in pods if not p.metadata.deletion_timestamp]
        if kind == "sidecar":
            chosen = frozenset((ns, *s.items()) for ns, s in selectors if all(labels.get(k) == v for k, v in s.items()))
            shared: object = chosen, "" if alike else mesh.revision(cluster, pods[0])
        if kind == "sidecar" and not zoned and not serving and staying:
            groups.setdefault((kind, (shared, ""), frozenset()), []).extend(staying)
            continue
        for pod in staying:
            key: object = (
                (shared, mesh.locality(cluster, pod) if zoned else "") if kind == "sidecar" else _served(mesh, cluster, pod, telling)
            )
            beside = serving.get((here, pod.spec.node_name), frozenset()) if serving else frozenset()
            groups.setdefault((kind, key, beside), []).append(pod)
    sidecars = sum(kind == "sidecar" for kind, _, _ in groups)
    spread = Counter((kind, key) for kind, key, _ in groups)
    namesakes = Counter({(kind, key): (kind, _workload(some[0])) for (kind, key, _), some in groups.items()}.values())
    out: list[Caller] = []
    for members in groups.values():
        members.sort(key=attrgetter("metadata.name"))
    for (kind, key, beside), members in sorted(groups.items(), key=lambda g: (g[0][0], g[1][0].name)):
        first = next((p for p in members if p.ready), members[0])
        nodes = _nodes(members) if spread[kind, key] > 1 else ""
        selector = (
            None
            if kind == "sidecar" and sidecars == 1
            else f"{_workload(first) if namesakes[kind, _workload(first)] == 1 else key}{nodes}"
            if kind != "sidecar"
            else _told_apart(members, mesh.revision(cluster, first), mesh.locality(cluster, first) if zoned else "") + nodes
        )
        viewpoint = Viewpoint(cluster.name, kind, first.namespace, None, selector)
        ports = (
            () if kind == "sidecar" else tuple((p.name, p.container_port) for c in first.spec.containers for p in c.ports or () if p.name)
        )
        told = key if kind == "sidecar" else None
        proxy = mesh.proxy(cluster, first, kind)
        if len(members) > 1:  # a sidecar opens no listener at its own address: the others of its population do
            proxy = replace(proxy, ip="")
        out.append(Caller(viewpoint, proxy, ports, told, beside, names.families(first.addresses)))
    return out


def _nodes(pods: list[Pod]) -> str:
    """The nodes of some pods as a label selector."""
    found = sorted({p.spec.node_name for p in pods if p.spec.node_name})
    return f",{HOSTNAME}={found[0]}" if len(found) == 1 else f",{HOSTNAME} in ({','.join(found)})" if found else ""


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
        spaces_of_pods = cluster.objects.get(Pod, {})
        if any(_ambient(p, _labels(cluster, ns)) for ns in spaces_of_pods for p in cluster.within(Pod, ns).values()):
            continue  # there it is ztunnel that calls
        istiod = mesh.istiod(cluster.name)
        spaces = {s.namespace for s in istiod.services} | {r.namespace for r in istiod.rulesets}
        for ns in sorted(spaces - {istiod.config.root_namespace} or spaces):
            proxy = Proxy("sidecar", mesh.cluster_id(cluster), ns, "", {}, network=mesh.network(cluster, "", {}))
            yield Caller(Viewpoint(cluster.name, "sidecar", ns), proxy)
        for ns, labels in _workloads(istiod) if mesh.cluster(istiod.cluster) is cluster else ():
            proxy = Proxy("gateway", mesh.cluster_id(cluster), ns, "", labels, network=mesh.network(cluster, "", labels))
            yield Caller(Viewpoint(cluster.name, "gateway", ns, None, ",".join(f"{k}={v}" for k, v in labels.items())), proxy)


_CHARTED = ({"istio": "ingressgateway"}, {"istio": "egressgateway"})
"""The labels of the gateways that Istio's own profiles install, beside the control plane."""


def _workloads(istiod: Istiod) -> Iterator[tuple[str, dict[str, str]]]:
    """The workloads that would serve the Gateways of a control plane's configuration: their namespaces and labels."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], dict[str, str]] = {}
    for g in istiod.gateways:
        if labels := dict(g.spec.selector or {}):
            ns = istiod.config.root_namespace if labels in _CHARTED else g.namespace
            found.setdefault((ns, frozenset(labels.items())), labels)
    for b in istiod.api.gateways:
        labels = {GATEWAY_NAME: b.name.partition("/")[2].partition("~")[0]}
        found.setdefault((b.namespace, frozenset(labels.items())), labels)
    yield from ((ns, labels) for (ns, _), labels in sorted(found.items(), key=lambda i: (i[0][0], sorted(i[0][1]))))


def classes(mesh: Mesh, host: str, *, apart: bool = False) -> tuple[list[Class], list[Class]]:
    """The callers of the mesh grouped by what istiod makes of a host for them: those that may hold something for it, and sidecars that cannot.

    One of the host's own namespace stands for its group. With `apart` those are told apart, too, who get the same DestinationRules from another
    place than others.
    """
    if by_node(mesh, host):
        around = _classed(mesh, callers_of(mesh, host))
    else:
        around = mesh.now("classed", lambda: mesh.once("classed", (callers(mesh), mesh.istiods()), lambda: _classed(mesh, callers(mesh))))
    ruled = tuple([istiod.ruled(host, apart=apart) & spaces for istiod, spaces in around.plain.items()])
    return around.classes(host, ruled)


@dataclass(slots=True, eq=False)
class _Classed:
    """The callers of a mesh by what they get from istiod as far as no host matters."""

    groups: list[_Group]
    plain: dict[Istiod, frozenset[str]]
    """The namespaces of such groups."""
    holders: tuple[dict[str, frozenset[Scope]], list[tuple[str, Scope]]]
    """The scopes that hold each lower-case host, and each wildcard with a scope that holds it (Scope.held)."""
    _known: dict[tuple[str, tuple[frozenset[str], ...]], list[Class]] = field(default_factory=dict)
    _parted: dict[object, tuple[list[Class], list[Class]]] = field(default_factory=dict)

    def classes(self, host: str, ruled: tuple[frozenset[str], ...]) -> tuple[list[Class], list[Class]]:
        """The classes that may hold something for a host, and those that cannot. `ruled`: of each control plane the namespaces that are told apart."""
        namespace = host.split(".")[1] if "." in host else ""
        holding = self._holding(host.lower())
        led = frozenset([i for i in self.plain if host not in i.by_host and i.leading(host)])  # seen through the rules that lead there
        key = namespace, ruled, holding, led
        known = self._parted.get(key)
        if known is None:
            known = self._parted[key] = [], []
            for c in self._classes(namespace, ruled):
                known[c.proxy.kind == "sidecar" and c.scope not in holding and c.istiod not in led].append(c)
        return known

    def _holding(self, host: str) -> frozenset[Scope]:
        """The scopes that may have a rule for a host (Scope.holds)."""
        held, wild = self.holders
        found = held.get(host, frozenset())
        more = [s for w, s in wild if names.matches(w, host)] if wild else ()
        return found.union(more) if more else found

    def _classes(self, namespace: str, ruled: tuple[frozenset[str], ...]) -> list[Class]:
        if (namespace, ruled) not in self._known:
            split = dict(zip(self.plain, ruled, strict=True))
            found = [c for group in self.groups for c in group.classes(namespace, split.get(group.istiod, frozenset()))]
            self._known[namespace, ruled] = [c for _, c in sorted(found, key=itemgetter(0))]
        return self._known[namespace, ruled]


@dataclass(slots=True, eq=False)
class _Group:
    """Callers that get the same from a control plane but for what DestinationRules of their own namespaces say."""

    istiod: Istiod
    members: list[Caller] = field(default_factory=list)
    viewpoints: list[Viewpoint] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Where each of them stands among all callers."""
    spaces: dict[str, list[int]] = field(default_factory=dict)
    """Which of them are of a namespace."""
    _alone: dict[int, Class] = field(default_factory=dict)

    def add(self, place: int, caller: Caller) -> None:
        """Put a caller to them."""
        self.spaces.setdefault(caller.viewpoint.namespace, []).append(len(self.members))
        self.members.append(caller)
        self.viewpoints.append(caller.viewpoint)
        self.places.append(place)

    def classes(self, namespace: str, apart: frozenset[str]) -> Iterator[tuple[int, Class]]:
        """They as classes, each with the place of its first: those of some namespaces each for itself. One of a namespace, if there is any, stands for the others."""
        if len(self.members) == 1:
            yield self.places[0], self._by_itself(0)
            return
        some = sorted(i for ns in apart for i in self.spaces.get(ns, ()))
        viewpoints = self.viewpoints.copy()
        places = self.places.copy()
        for i in reversed(some):
            yield places.pop(i), self._by_itself(i)
            del viewpoints[i]
        if len(places) == 1:
            yield places[0], self._by_itself(self.places.index(places[0]))
        elif places:
            first = self.spaces[namespace][0] if namespace in self.spaces and namespace not in apart else self.places.index(places[0])
            del viewpoints[bisect_left(places, self.places[first])]
            proxy, spaces = self.members[first].proxy, frozenset(self.spaces).difference(apart)
            yield places[0], Class(proxy, (self.viewpoints[first], *viewpoints), self.istiod, self.istiod.scope(proxy), spaces)

    def _by_itself(self, i: int) -> Class:
        if i not in self._alone:
            proxy, viewpoint = self.members[i].proxy, self.viewpoints[i]
            self._alone[i] = Class(proxy, (viewpoint,), self.istiod, self.istiod.scope(proxy), frozenset({viewpoint.namespace}))
        return self._alone[i]


def _classed(mesh: Mesh, around: Sequence[Caller]) -> _Classed:
    groups: dict[object, _Group] = {}
    plain: dict[Istiod, set[str]] = {}
    for i, c in enumerate(around):
        istiod, key, shared = _placed_in(mesh, c)
        if key not in groups:
            groups[key] = _Group(istiod)
        groups[key].add(i, c)
        plain.setdefault(istiod, set()).update({c.viewpoint.namespace} if shared else ())
    firsts = ((group.istiod, group.members[0].proxy) for group in groups.values())
    seen = dict.fromkeys(istiod.scope(proxy) for istiod, proxy in firsts if proxy.kind == "sidecar")
    holders = mesh.once("holders", tuple(seen), lambda: _holders(seen))
    return _Classed(list(groups.values()), {istiod: frozenset(spaces) for istiod, spaces in plain.items()}, holders)


def _holders(scopes: Iterable[Scope]) -> tuple[dict[str, frozenset[Scope]], list[tuple[str, Scope]]]:
    exact: dict[str, list[Scope]] = {}
    wild: list[tuple[str, Scope]] = []
    for s in scopes:
        for h in s.held[0]:
            exact.setdefault(h, []).append(s)
        wild += [(w, s) for w in s.held[1]]
    same: dict[tuple[Scope, ...], frozenset[Scope]] = {}
    return {h: same.setdefault(key := tuple(found), frozenset(key)) for h, found in exact.items()}, wild


def _placed_in(mesh: Mesh, caller: Caller) -> tuple[Istiod, object, bool]:
    """A caller's control plane and group, and whether it shares that with others: two of one group get the same from istiod, but for what DestinationRules of their own namespaces say."""
    p = caller.proxy
    cluster = mesh.cluster(p.cluster)
    istiod = mesh.istiod(cluster.name, p.revision)
    placed = p.locality if istiod.zoned else "", caller.beside
    if p.kind != "sidecar" or caller.viewpoint.selector or istiod.special(p.namespace):
        return istiod, (caller.viewpoint, placed), False
    return istiod, (cluster.name, p.revision, p.network, placed, caller.told), True


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
            never = {*_NEVER, mesh.istiod(cluster.name).config.root_namespace}
            spaces = (cluster.objects.get(Namespace),)
            every = mesh.each(("outsiders", cluster.name), cluster, (Pod, ReplicaSet), spaces, partial(_outsiders, mesh, cluster))
            found += [o for ns, some in every.items() if ns not in never for o in some]
        return found

    return mesh.once(("outsiders",), made_of, find)


def _outsiders(mesh: Mesh, cluster: Cluster, namespace: str) -> tuple[Outsider, ...]:
    labels = _labels(cluster, namespace)
    some = (same.pods for same in mesh.alike(cluster, namespace) if same.kind == "none" and not _ambient(same.pods[0], labels))
    found = [p for same in some for p in same if p.status.phase not in _ENDED and not p.metadata.deletion_timestamp]
    named = [(mesh.workload(cluster, p), p) for p in sorted(found, key=lambda p: p.name)]
    out: list[Outsider] = []
    for workload, members in groupby(sorted(named, key=lambda n: (n[0], n[1].name)), key=lambda n: n[0]):
        kind, _, name = workload.partition(" ")
        pod = next(members)[1]
        app = pod.labels.get("app") or pod.labels.get("app.kubernetes.io/name")
        viewpoint = Viewpoint(cluster.name, "none", namespace, None, f"app={app}" if app else None)
        if kind != "Job":
            out.append(Outsider(viewpoint, f"{kind} {namespace}/{name}", _meant(pod, labels, namespace)))
    return tuple(out)


_ENDED = frozenset({"Succeeded", "Failed"})


def _ambient(pod: Pod, namespace: Mapping[str, str]) -> bool:
    """Whether a pod is in the ambient mesh, or asked into it."""
    wanted = pod.labels.get("istio.io/dataplane-mode", namespace.get("istio.io/dataplane-mode")) == "ambient"
    return wanted or pod.annotations.get("ambient.istio.io/redirection") == "enabled"


def _labels(cluster: Cluster, namespace: str) -> Mapping[str, str]:
    around = cluster.get(Namespace, "", namespace)
    return around.labels if around is not None else {}


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


class Evader(NamedTuple):
    """A workload with a sidecar that some of its calls go past: `annotations` are those of its pods."""

    viewpoint: Viewpoint
    workload: str
    annotations: Mapping[str, str]

    def past(self, port: int, addresses: Iterable[str]) -> str:
        """The annotation that lets calls to a port of some addresses by; empty when the sidecar gets them (tools/istio-iptables, cmd/config.go)."""
        said = self.annotations
        if str(port) in _parts(said.get(_PAST_PORTS, "")):
            return _PAST_PORTS
        found = [ip_address(a) for a in addresses if names.is_ip(a)]
        if found and any(a in net for net in _networks(said.get(_PAST_RANGES, "")) for a in found):
            return _PAST_RANGES
        taken = said.get(_TAKEN_RANGES)
        if taken is None or "*" in _parts(taken) or not found or any(a in net for net in _networks(taken) for a in found):
            return ""
        return _TAKEN_RANGES


_PAST_PORTS, _PAST_RANGES, _TAKEN_RANGES = (
    "traffic.sidecar.istio.io/excludeOutboundPorts",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
)
_PAST = frozenset({_PAST_PORTS, _PAST_RANGES, _TAKEN_RANGES})


def _networks(text: str) -> list[IPv4Network | IPv6Network]:
    out = []
    for part in _parts(text) - {""}:
        with suppress(ValueError):
            out.append(ip_network(part, strict=False))
    return out


def evaders(mesh: Mesh) -> list[Evader]:
    """The workloads with a sidecar that some calls go past by an annotation."""

    def find() -> list[Evader]:
        every = (mesh.each(("evaders", c.name), c, (Pod, ReplicaSet), (), partial(_evaders, mesh, c)).values() for c in mesh.clusters)
        return [e for spaces in every for found in spaces for e in found]

    return mesh.once(("evaders",), tuple(c.objects.get(kind) for c in mesh.clusters for kind in (Pod, ReplicaSet)), find)


def _evaders(mesh: Mesh, cluster: Cluster, namespace: str) -> tuple[Evader, ...]:
    out: dict[str, Evader] = {}
    for same in mesh.alike(cluster, namespace):
        if same.kind == "sidecar" and not _PAST.isdisjoint(same.annotations):
            kind, _, name = mesh.workload(cluster, same.pods[0]).partition(" ")
            workload = f"{kind} {namespace}/{name}"
            out.setdefault(workload, Evader(Viewpoint(cluster.name, "sidecar", namespace), workload, same.annotations))
    return tuple(out.values())


def _parts(text: str) -> set[str]:
    return {p.strip() for p in text.split(",")}
