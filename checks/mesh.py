"""Mesh: all clusters of one mesh at one instant, frozen, and its few deep lookups.

A change makes a new Mesh that shares with the old one all that the change cannot reach: the control planes' view of the configuration survives
every change of pods, endpoints and workloads; what was indexed of a namespace survives every change of another.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from operator import attrgetter, is_, is_not
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from checks import names, tenancy
from checks.gatewayapi import auto_passthrough
from checks.istiod import Istiod, Proxy
from checks.planes import NEWEST, REVISION, TAG, Plane, Version, planes, proxy_versions, revision_of, told
from checks.registry import (
    GOES,
    NETWORK,
    NETWORK_GATEWAY_PORT,
    REGION,
    SUBZONE,
    ZONE,
    Health,
    HostService,
    IstioEndpoint,
    MeshConfig,
    MeshNetworks,
    WorkloadInstance,
    augment,
    entry_instance,
    is_healthy,
    locality_label,
    misread,
    pod_instance,
    proxy_kind,
    said,
    takes_mtls,
    topology,
)
from checks.resources import (
    ADDING,
    KIND_OF,
    APIGateway,
    ConfigMap,
    DaemonSet,
    Deployment,
    EndpointSlice,
    IstioRevision,
    LabelSelector,
    Malformed,
    MutatingWebhookConfiguration,
    Namespace,
    Node,
    OpenShiftRoute,
    Pod,
    ReplicaSet,
    Resource,
    Rollout,
    Service,
    ServiceEntry,
    ServiceExport,
    ServiceImport,
    ServiceMeshControlPlane,
    ServicePort,
    SliceEndpoint,
    StatefulSet,
    VirtualService,
    Workload,
    WorkloadEntry,
)
from checks.rulesets import weightless

if TYPE_CHECKING:
    from checks.answers import ViewpointKind

Objects = Mapping[type[Resource], Mapping[str, Mapping[str, Resource]]]
_R = TypeVar("_R", bound=Resource)
_T = TypeVar("_T")

_NONE: Mapping[Any, Any] = {}
"""The objects of a namespace that has none: always the same, so that what was made of them is known again."""
WORKLOADS: tuple[type[Workload], ...] = (Deployment, StatefulSet, DaemonSet, Rollout)
"""What pods are made by, and wanted by."""
RUNTIME: frozenset[type[Resource]] = frozenset(
    {*WORKLOADS, Pod, EndpointSlice, ReplicaSet, Node, WorkloadEntry, MutatingWebhookConfiguration, OpenShiftRoute}
)
"""Kinds that no control plane's view of the configuration depends on."""


class Unreadable(Exception):
    """A kind that this cluster would not show: what a lookup raises, and the runner turns into Skipped."""

    def __init__(self, kind: str, cluster: str, reason: str) -> None:
        super().__init__(f"{kind} cannot be read in {cluster}: {reason}")
        self.kind = kind
        self.cluster = cluster
        self.reason = reason


class Change(NamedTuple):
    """One object that appeared, changed (`new`) or went (`new` is None) in a cluster."""

    cluster: str
    kind: type[Resource]
    namespace: str
    name: str
    new: Resource | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was read of one cluster: objects by kind, namespace and name, and what could not be read.

    `unreadable` maps a kind's key (`virtualservices.networking.istio.io`, or `*` for the whole cluster) to the reason. `read_at` is the
    time of the last sign of life, in seconds since the epoch. `origins` maps an object's `ref` to (file, line) when it was read from files.
    """

    name: str
    mesh: str = ""
    objects: Objects = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    malformed: tuple[Malformed, ...] = ()
    origins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    read_at: float = 0.0
    synced: bool = True
    members: frozenset[str] | None = None
    """The namespaces that member rolls give to the control plane here; None: no roll says."""
    foreign: frozenset[str] = frozenset()
    """The namespaces of the same cluster that belong to other meshes, and are not looked at (checks.tenancy)."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """How many objects of which kinds were passed over in manifests, since nobody reads them."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Of what is unreadable that without which an answer is unknown: all but the kinds that only add to one."""
        return {key: reason for key, reason in self.unreadable.items() if key not in ADDING}

    @staticmethod
    def index(resources: Iterable[Resource]) -> dict[type[Resource], dict[str, dict[str, Resource]]]:
        """Objects by kind, namespace and name; a later one replaces an earlier one of the same name."""
        out: dict[type[Resource], dict[str, dict[str, Resource]]] = {}
        for r in resources:
            out.setdefault(type(r), {}).setdefault(r.namespace if KIND_OF[type(r)].namespaced else "", {})[r.name] = r
        return out

    def apply(self, changes: Iterable[Change]) -> Cluster:
        """This cluster after some changes of its objects; only the namespaces that they touch are copied."""
        objects: dict[type[Resource], Mapping[str, Mapping[str, Resource]]] = dict(self.objects)
        fresh: dict[tuple[type[Resource], str], dict[str, Resource]] = {}
        spaces: dict[type[Resource], dict[str, Mapping[str, Resource]]] = {}
        for c in changes:
            if self.foreign and (c.name if c.kind is Namespace else c.namespace) in self.foreign:
                continue
            space = c.namespace if KIND_OF[c.kind].namespaced else ""
            if c.kind not in spaces:
                spaces[c.kind] = dict(objects.get(c.kind, {}))
                objects[c.kind] = spaces[c.kind]
            inner = fresh.get((c.kind, space))
            if inner is None:
                inner = fresh[c.kind, space] = dict(spaces[c.kind].get(space, {}))
                spaces[c.kind][space] = inner
            if c.new is None:
                inner.pop(c.name, None)
            else:
                inner[c.name] = c.new
        return replace(self, objects=objects)

    def all(self, kind: type[_R]) -> Iterator[_R]:
        """Every object of a kind."""
        for space in self.objects.get(kind, {}).values():
            yield from cast("Iterable[_R]", space.values())

    def sorted(self, kind: type[_R]) -> list[_R]:
        """Every object of a kind in the order of namespaces and names."""
        return [cast("_R", o) for _, space in sorted(self.objects.get(kind, {}).items()) for _, o in sorted(space.items())]

    def within(self, kind: type[_R], namespace: str) -> Mapping[str, _R]:
        """The objects of a kind in one namespace, by name, in the order of their coming."""
        found: Mapping[str, Any] = self.objects.get(kind, _NONE).get(namespace, _NONE)
        return found

    def ordered(self, kind: type[_R], namespace: str) -> list[_R]:
        """The objects of a kind in one namespace, in the order of their names: what is said must not depend on which event came first."""
        return [o for _, o in sorted(self.within(kind, namespace).items())]

    def get(self, kind: type[_R], namespace: str, name: str) -> _R | None:
        """One object, or None."""
        return self.within(kind, namespace if KIND_OF[kind].namespaced else "").get(name)


class Alike(NamedTuple):
    """Pods of one template: the kind of their proxies, what they all carry, and they themselves."""

    kind: ViewpointKind
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pods: list[Pod]


class NetworkGateway(NamedTuple):
    """Where another network is entered: an address outside of its cluster. `cluster` is empty where meshNetworks says the address.

    `only` is the one control plane's cluster that knows it, where not all do.
    """

    network: str
    cluster: str
    address: str
    port: int
    only: str = ""


_NODE_SELECTOR = "traffic.istio.io/nodeSelector"


def told_port(service: Service) -> int:
    """The port of a network's gateway that callers are told of: 15443, or what the Service's label says."""
    said = service.labels.get(NETWORK_GATEWAY_PORT, "")
    return int(said) if said.isdigit() else 15443


def _node_addresses(cluster: Cluster, service: Service) -> Iterator[str]:
    """The outer addresses of the nodes that a NodePort Service's annotation selects (controller.updateServiceNodePortAddresses)."""
    try:
        wanted = msgspec.json.decode(service.annotations[_NODE_SELECTOR], type=dict[str, str])
    except msgspec.DecodeError:
        wanted = {}
    for n in cluster.all(Node):
        outer = next((a.address for a in n.status.addresses if a.type == "ExternalIP" and a.address), "")
        if outer and all(n.labels.get(k) == v for k, v in wanted.items()):
            yield outer


def _entries(gateway: APIGateway, cluster: str, *, config: bool) -> Iterator[NetworkGateway]:
    """Where a labelled Gateway of the Gateway API lets a network be entered: at its addresses, by listeners of auto-passthrough and HBONE (handleGatewayResource).

    One of class istio-remote stands for a gateway elsewhere: only the control plane of its own cluster heeds it.
    """
    remote = gateway.spec.gateway_class_name == "istio-remote"
    if remote and not config:
        return
    for address in gateway.spec.addresses or ():
        for li in gateway.spec.listeners if address.type in {"IPAddress", "Hostname"} else ():
            if li.protocol == "HBONE" or auto_passthrough(li, gateway.labels):
                yield NetworkGateway(gateway.labels[NETWORK], cluster, address.value, li.port, cluster if remote else "")


class Running(NamedTuple):
    """Which Istio a cluster runs: `version` of its control planes (`1.28`, empty when unknown), those of its proxies, and what that leaves open."""

    version: str
    proxies: tuple[str, ...]
    open: tuple[str, ...]


def differing(was: Mapping[str, object], now: Mapping[str, object]) -> Iterable[str]:
    """The namespaces in which a kind's objects differ between two states of a cluster; quick where hardly any do."""
    if was is now:
        return ()
    if len(was) == len(now) and all(map(is_, was, now)):
        return compress(now, map(is_not, was.values(), now.values()))
    return [ns for ns in {**was, **now} if was.get(ns) is not now.get(ns)]


@dataclass(frozen=True, slots=True, eq=False)
class _Each(Generic[_T]):
    """A value of each namespace, and what it was made of."""

    made_of: tuple[object, ...]
    parts: tuple[Mapping[str, Mapping[str, Resource]], ...]
    values: Mapping[str, _T]


class Mesh:
    """All clusters of one mesh at one instant. `read_at` is that instant, in seconds since the epoch.

    `neighbours` are the other meshes of the same instant, which calls can enter by their gateways.
    """

    def __init__(self, name: str, clusters: Iterable[Cluster], read_at: float) -> None:
        self.name = name
        self.clusters = tuple(clusters)
        self.read_at = read_at
        self.neighbours: tuple[Mesh, ...] = ()
        self._by_name = {c.name: c for c in self.clusters}
        self._istiods: dict[str, Istiod] = {}
        self._memo: dict[Any, tuple[Any, Any]] = {}
        self._under: ChainMap[Any, tuple[Any, Any]] = ChainMap()
        self._ids: dict[str, str] = {}
        self._here: dict[Hashable, Any] = {}
        self._shards: dict[tuple[str, str, str], tuple[IstioEndpoint, ...]] = {}
        self._strays: dict[tuple[str, str, str], dict[str, None]] = {}
        """Of services (cluster, namespace, name) the other namespaces whose pods their slices ever named; meshes that follow share it."""

    @staticmethod
    def of(clusters: Iterable[Cluster], read_at: float, before: Iterable[Mesh] = ()) -> tuple[Mesh, ...]:
        """One Mesh for each mesh name, in the order of their first clusters; a cluster of several meshes is taken apart.

        What was worked out of unchanged parts of earlier ones is kept.
        """
        known = {m.name: m for m in before}
        groups: dict[str, list[Cluster]] = {}
        for part in (p for c in clusters for p in tenancy.parts(c)):
            before_it = known[part.mesh].clusters if part.foreign and part.mesh in known else ()
            old = next((c for c in before_it if c.name == part.name), None)
            groups.setdefault(part.mesh, []).append(part if old is None else tenancy.kept(part, old))
        return Mesh.beside(
            known[name].replace(group, read_at) if name in known else Mesh(name, group, read_at) for name, group in groups.items()
        )

    @staticmethod
    def beside(meshes: Iterable[Mesh]) -> tuple[Mesh, ...]:
        """Meshes that were just made, each knowing the others."""
        made = tuple(meshes)
        for mesh in made:
            mesh.neighbours = tuple(m for m in made if m is not mesh)
        return made

    def apply(self, changes: Iterable[Change], read_at: float | None = None) -> Mesh:
        """This mesh after some changes. Kinds in RUNTIME leave the control planes' view as it is."""
        return self.replace(self._after(changes), read_at)

    def _after(self, changes: Iterable[Change]) -> Iterator[Cluster]:
        by_cluster: dict[str, list[Change]] = {}
        for c in changes:
            by_cluster.setdefault(c.cluster, []).append(c)
        return (c.apply(by_cluster[c.name]) if c.name in by_cluster else c for c in self.clusters)

    def imagine(self, changes: Iterable[Change]) -> Mesh:
        """This mesh after changes that nobody has made: it takes over what is known, and leaves this one's knowledge as it is."""
        return self.replace(self._after(changes), imagined=True)

    def replace(self, clusters: Iterable[Cluster], read_at: float | None = None, *, imagined: bool = False) -> Mesh:
        """The mesh of these newer states of its clusters; everything that was worked out of unchanged parts is kept."""
        new = Mesh(self.name, clusters, self.read_at if read_at is None else read_at)
        if imagined:
            new._under = ChainMap(self._memo, *self._under.maps)
        else:
            new._memo, new._under = self._memo, self._under
        new.neighbours, new._strays = self.neighbours, self._strays
        weighed = self.new_weights(new)
        if weighed is not None and self.guesses() == new.guesses():
            new._istiods = self._istiods
            if any(weighed.values()):
                made = {i: i.reweighed(known) if (known := weighed[self.cluster(i.cluster).name]) else i for i in {*self._istiods.values()}}
                new._istiods = {key: made[i] for key, i in self._istiods.items()}
        return new

    def new_weights(self, new: Mesh) -> dict[str, dict[str, VirtualService]] | None:
        """Of each cluster the VirtualServices (by ref) that say other weights in a newer mesh; None where more of the configuration differs."""
        if [c.name for c in self.clusters] != [c.name for c in new.clusters]:
            return None
        out: dict[str, dict[str, VirtualService]] = {}
        for a, b in zip(self.clusters, new.clusters, strict=True):
            found = _new_weights(a, b) if _same_plane(a, b) else None
            if found is None:
                return None
            out[a.name] = found
        return out

    def guesses(self) -> list[tuple[Plane, ...]]:
        """What is only known of control planes by their proxies, which come and go."""
        return self.now(("guesses",), lambda: [known for known in map(self.planes, self.clusters) if any(p.guessed for p in known)])

    def once(self, key: Any, made_of: Any, make: Callable[[], _T]) -> _T:
        """A value worked out once for as long as the things that it is made of are the same objects; the same object while it stays equal."""
        known = self._memo.get(key)
        if known is None and len(self._under.maps) > 1:
            known = self._under.get(key)
        if known is not None and len(known[0]) == len(made_of) and all(map(is_, known[0], made_of)):
            same: _T = known[1]
            return same
        value = make()
        if known is not None and known[1] == value:
            value = known[1]
        self._memo[key] = made_of, value
        return value

    def each(
        self, key: Any, cluster: Cluster, kinds: Sequence[type[Resource]], made_of: tuple[object, ...], make: Callable[[str], _T]
    ) -> Mapping[str, _T]:
        """A value for each namespace with objects of the first of some kinds, by name; worked out again only where its objects of these kinds, or `made_of`, are others."""
        parts = tuple(cluster.objects.get(kind, {}) for kind in kinds)

        def find() -> _Each[_T]:
            known = self._memo.get(key) or (self._under.get(key) if len(self._under.maps) > 1 else None)
            old: _Each[_T] = known[1] if known is not None else _Each((), (), {})
            same = len(old.made_of) == len(made_of) and all(map(is_, old.made_of, made_of))
            known_here = old.values if same else {}
            stale = {ns for was, now in zip(old.parts, parts, strict=False) for ns in differing(was, now)}
            if known_here.keys() == parts[0].keys():
                values = {**known_here, **{ns: make(ns) for ns in stale & known_here.keys()}}
            else:
                values = {ns: known_here[ns] if ns in known_here and ns not in stale else make(ns) for ns in sorted(parts[0])}
            return _Each(made_of, parts, values)

        return self.once(key, (*made_of, *parts), find).values

    def now(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """A value worked out once for this instant: what `once` would have to compare each time that it is asked."""
        try:
            known: _T = self._here[key]
        except KeyError:
            known = self._here[key] = make()
        return known

    # --- what could not be read ----------------------------------------------------------------------------------------------

    @staticmethod
    def unread(cluster: Cluster, *kinds: type[Resource]) -> str:
        """Why one of these kinds cannot be read in a cluster, for people; empty when all can. What a lost cluster last showed counts as read."""
        for kind in kinds:
            key = KIND_OF[kind].key
            reason = cluster.unreadable.get(key) or (cluster.unreadable.get("*") if not cluster.objects.get(kind) else None)
            if reason is not None:
                return f"{key} cannot be read in {cluster.name}: {reason}"
        return ""

    @staticmethod
    def require(cluster: Cluster, *kinds: type[Resource]) -> None:
        """Raise Unreadable unless a cluster shows these kinds: what a check calls before it concludes from something that is not there."""
        for kind in kinds:
            if Mesh.unread(cluster, kind):
                key = KIND_OF[kind].key
                raise Unreadable(key, cluster.name, cluster.unreadable.get(key) or cluster.unreadable.get("*", ""))

    # --- clusters and control planes ---------------------------------------------------------------------------------------

    def cluster(self, name: str) -> Cluster:
        """A cluster by its registered name or its CLUSTER_ID; raises KeyError."""
        found = self._by_name.get(name)
        if found is None:
            found = next((c for c in self.clusters if self.cluster_id(c) == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def known(self, name: str) -> Cluster | None:
        """A cluster by its registered name or its CLUSTER_ID, as evidence names it; None where it is none of this mesh."""
        return next((c for c in self.clusters if name in (c.name, self.cluster_id(c))), None)

    def cluster_id(self, cluster: Cluster) -> str:
        """Istiod's CLUSTER_ID in this cluster, else the registered name. Its Deployment comes first: that stays while pods come and go."""
        if cluster.name in self._ids:
            return self._ids[cluster.name]
        spaces = sorted({c.namespace for c in cluster.all(ConfigMap)} | {"istio-system"})
        made_of = tuple(cluster.objects.get(kind, {}).get(ns) for kind in (Deployment, Pod) for ns in spaces)

        def find() -> str:
            said = (i for kind in (Deployment, Pod) for ns in spaces for i in _cluster_ids(cluster.within(kind, ns)))
            return next((i for i in said if i), cluster.name)

        found = self._ids[cluster.name] = self.once(("cluster_id", cluster.name), made_of, find)
        return found

    @cached_property
    def primaries(self) -> list[Cluster]:
        """Clusters with a control plane of their own: an istiod, else (partial manifests) configuration of Istio or Gateway API; else the first."""
        running = [c for c in self.clusters if self._runs_istiod(c)]
        return running or [c for c in self.clusters if _configured(c)] or list(self.clusters[:1])

    @cached_property
    def runs_istiod(self) -> bool:
        """Whether a control plane is shown running in any of the clusters."""
        return any(map(self._runs_istiod, self.clusters))

    def _runs_istiod(self, cluster: Cluster) -> bool:
        def find() -> bool:
            among: dict[type[Resource], Callable[[str], bool]] = {
                Deployment: lambda ns: any(d.labels.get("app") == "istiod" for d in cluster.within(Deployment, ns).values()),
                Pod: lambda ns: any(same.labels.get("app") == "istiod" for same in self.alike(cluster, ns)),
            }
            return any(any(self.each(("istiod", cluster.name, kind), cluster, (kind,), (), look).values()) for kind, look in among.items())

        return self.once(("istiods", cluster.name), (cluster.objects.get(Deployment), cluster.objects.get(Pod)), find)

    def planes(self, cluster: Cluster) -> tuple[Plane, ...]:
        """The control planes that run in a cluster, by revision."""
        return self.now(("planes", cluster.name), partial(self._planes, cluster))

    def _planes(self, cluster: Cluster) -> tuple[Plane, ...]:
        installed: list[IstioRevision | ServiceMeshControlPlane] = [*cluster.all(IstioRevision), *cluster.all(ServiceMeshControlPlane)]
        named = {i.spec.namespace if isinstance(i, IstioRevision) else i.namespace for i in installed}
        spaces = sorted({c.namespace for c in cluster.all(ConfigMap)} | {"istio-system"} | named)
        made_of = (*(cluster.objects.get(kind, {}).get(ns) for kind in (Deployment, Pod) for ns in spaces), *installed)

        def find() -> tuple[Plane, ...]:
            deployments = [d for ns in spaces for d in cluster.ordered(Deployment, ns)]
            return planes(deployments, (p for ns in spaces for p in cluster.ordered(Pod, ns)), installed)

        known = self.once(("planes", cluster.name), made_of, find)
        if all(p.version is not None for p in known):
            return known
        newest: dict[str, Version] = {}
        for revision, version in self.proxies(cluster):
            newest[revision] = max(newest.get(revision, version), version)
        whole = max(newest.values(), default=None)
        guesses = (p if p.version is not None else p._replace(version=newest.get(p.revision, whole), guessed=True) for p in known)
        return self.once(("planes with guesses", cluster.name), (known, *newest.items()), lambda: tuple(guesses))

    def proxies(self, cluster: Cluster) -> frozenset[tuple[str, Version]]:
        """The releases of a cluster's proxies, each with the revision that it was injected by."""
        pods = cluster.objects.get(Pod, {})

        def find() -> frozenset[tuple[str, Version]]:
            return frozenset().union(
                *self.each(("proxies of", cluster.name), cluster, (Pod,), (), partial(self._proxies, cluster)).values()
            )

        return self.once(("proxies", cluster.name), (pods,), find)

    def _proxies(self, cluster: Cluster, namespace: str) -> frozenset[tuple[str, Version]]:
        firsts = (same.pods[0] for same in self.alike(cluster, namespace))
        return frozenset((revision_of(p), v) for p in firsts for v in proxy_versions((p,)))

    def istio(self, cluster: Cluster) -> Running:
        """Which Istio an answer about a cluster speaks for, and what that leaves open."""
        return self.now(("istio", cluster.name), partial(self._istio, cluster))

    def _istio(self, cluster: Cluster) -> Running:
        holders = self.primaries
        holder = next((c for c in holders if c.name == cluster.name), holders[0])
        known = self.planes(holder)
        around = sorted({v for _, v in self.proxies(cluster)})
        open_: list[str] = []
        where = f"the control plane of {cluster.name}" + (f" (in {holder.name})" if holder is not cluster else "")
        if not known and not around:
            open_.append(f"which Istio runs in {cluster.name} is not known: answers follow the newest")
        elif not known:
            open_.append(f"no istiod of {cluster.name} was seen, whose proxies run {_listed(around)}: answers follow the newest Istio")
        for p in known:
            name = f"{where}, revision {p.revision}," if len(known) > 1 else where
            if p.version is None:
                open_.append(f"{name} does not say its version: answers follow the newest Istio")
            elif p.guessed:
                open_.append(f"{name} does not say its version: it is taken for that of its proxies, {p.version}")
            if self._config_map(holder, p.revision) is None and KIND_OF[ConfigMap].key not in holder.unreadable:
                open_.append(f"the ConfigMap of {name} was not seen: Istio's default settings are assumed")
        said = {p.version for p in known} - {None}
        if said and set(around) - said:
            open_.append(f"proxies in {cluster.name} run {_listed(around)}: what older ones do otherwise is not considered")
        return Running(told(known), tuple(map(str, around)), tuple(open_))

    def plane(self, cluster: Cluster, revision: str = "") -> Plane:
        """The control plane of a revision in a cluster; of an unknown one, and without any, the default one; what nothing says is the newest."""
        return self.now(("plane", cluster.name, revision), partial(self._plane, cluster, revision))

    def _plane(self, cluster: Cluster, revision: str) -> Plane:
        known = {p.revision: p for p in self.planes(cluster)}
        return known.get(revision) or known.get("default") or known.get("") or next(iter(known.values()), NEWEST)

    def version(self, cluster: Cluster) -> Version | None:
        """The Istio that a cluster runs: of its istiod, else of the oldest proxy; None when nothing says."""
        own = self.plane(cluster).version
        return own or min((v for _, v in self.proxies(cluster)), default=None)

    def revision(self, cluster: Cluster, pod: Pod) -> str:
        """The control plane that a pod's proxy listens to, where there are several to choose from; else empty."""
        known = self.planes(cluster)
        if len(known) < 2:
            return ""
        own = revision_of(pod)
        own = own if any(p.revision == own for p in known) else self.tags(cluster).get(own, own)
        return own if own in {p.revision for p in known} and own != self.plane(cluster).revision else ""

    def tags(self, cluster: Cluster) -> Mapping[str, str]:
        """The revision that each revision tag of a cluster stands for (pkg/revisions/tag_watcher.go): of its webhooks, else of Services beside istiod."""
        homes = sorted({p.namespace for p in self.planes(cluster)})
        made_of = cluster.objects.get(MutatingWebhookConfiguration), *(cluster.objects.get(Service, {}).get(ns) for ns in homes)

        def find() -> dict[str, str]:
            beside = (s for ns in homes for s in cluster.ordered(Service, ns))
            tagged = [*sorted(cluster.all(MutatingWebhookConfiguration), key=lambda w: w.name), *beside]
            found: dict[str, str] = {}
            for o in tagged:
                if o.labels.get(TAG) and o.labels.get(REVISION):
                    found.setdefault(o.labels[TAG], o.labels[REVISION])
            return found

        return self.once(("tags", cluster.name), made_of, find)

    def istiod(self, cluster: str, revision: str = "") -> Istiod:
        """The control plane of a cluster's proxies: its own, else that of the first cluster that has one; of a revision, else the default one."""
        key = f"{cluster} {revision}" if revision else cluster
        known = self._istiods.get(key)
        if known is not None:
            return known
        holders = self.primaries
        holder = next((c for c in holders if c.name == cluster), holders[0])
        made = self._make_istiod(holder, revision) if holder.name == cluster else self.istiod(holder.name, revision)
        self._istiods[key] = made
        return made

    @cached_property
    def control_planes(self) -> tuple[Istiod, ...]:
        """The control plane of each cluster, once."""
        return tuple(dict.fromkeys(self.istiod(c.name) for c in self.clusters))

    def every_plane(self) -> Iterable[Istiod]:
        """Every control plane that some proxy listens to, those of revisions as well."""
        return self.control_planes if len(self._istiods) == 1 else {*self.control_planes, *self._istiods.values()}

    def istiods(self) -> object:
        """What is another object whenever any control plane's view of the configuration is."""
        return self._istiods

    def _make_istiod(self, holder: Cluster, revision: str) -> Istiod:
        ordered = [holder, *(c for c in self.clusters if c is not holder)]
        services = [(self.cluster_id(c), s) for c in ordered for s in c.sorted(Service)]
        objects = {k: holder.sorted(k) for k in holder.objects if k not in RUNTIME}
        plane = self.plane(holder, revision)
        others = [
            o for k, found in objects.items() if KIND_OF[k].group.endswith(_CONFIGURED) for o in found if not _heard(o, plane.revision)
        ]
        if others:
            unheard = set(map(id, others))
            objects = {k: [o for o in found if id(o) not in unheard] for k, found in objects.items()}
        config = self.config(holder, revision)
        left_out = {(c.name, ns) for c in ordered for ns in self._left_out(c, config)}
        if left_out:
            objects = {
                k: [o for o in found if not KIND_OF[k].namespaced or (holder.name, o.namespace) not in left_out]
                for k, found in objects.items()
            }
        ids = {self.cluster_id(c): c.name for c in ordered}
        shown = [(c, s) for c, s in services if (ids[c], s.namespace) not in left_out]
        made = Istiod(self.cluster_id(holder), objects, shown, config, plane)
        hidden = {names.service_host(s.name, s.namespace): (ids[c], s.ref) for c, s in services if (ids[c], s.namespace) in left_out}
        made.undiscovered = {h: at for h, at in hidden.items() if h not in made.by_host} if hidden else {}
        made.unheard = others
        made.exports = frozenset((self.cluster_id(c), e.namespace, e.name) for c in ordered for e in c.all(ServiceExport))
        made.imports = self._imports(ordered)
        return made

    def _imports(self, clusters: Iterable[Cluster]) -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
        """The addresses of each ServiceImport by cluster; one without an address makes no service (GetServiceImportIPs)."""
        out: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        for c in clusters:
            for i in c.all(ServiceImport):
                ips = tuple(sorted(filter(names.is_ip, i.spec.ips or ())))
                if ips:
                    out.setdefault((i.namespace, i.name), {})[self.cluster_id(c)] = ips
        return out

    @staticmethod
    def _left_out(cluster: Cluster, config: MeshConfig) -> set[str]:
        """The namespaces that a control plane does not read, since no member roll names or no discoverySelector selects them; its own is always read."""
        if cluster.members is not None:
            spaces = {ns for kind, found in cluster.objects.items() if KIND_OF[kind].namespaced for ns in found}
            return (spaces | {n.name for n in cluster.all(Namespace)}) - cluster.members - {config.root_namespace}
        selectors = [msgspec.convert(s, LabelSelector) for s in config.discovery_selectors or ()]
        if not selectors:
            return set()
        found = {n.name for n in cluster.all(Namespace) if not any(s.matches({NAME: n.name, **n.labels}) for s in selectors)}
        return found - {config.root_namespace}

    def config_map(self, cluster: Cluster, revision: str = "") -> ConfigMap | None:
        """Istiod's ConfigMap: that of its revision, else `istio`, else the first `istio-<revision>`, in the namespace where istiod runs."""
        return self.now(("config map", cluster.name, revision), partial(self._config_map, cluster, revision))

    def _config_map(self, cluster: Cluster, revision: str) -> ConfigMap | None:
        found = [c for c in cluster.all(ConfigMap) if c.name == "istio" or c.name.startswith("istio-")]
        found = [c for c in found if "mesh" in (c.data or {})]
        own = f"istio-{revision or self.plane(cluster).revision}"
        return min(found, key=lambda c: (c.name != own, c.name != "istio", c.namespace, c.name)) if found else None

    def config(self, cluster: Cluster, revision: str = "") -> MeshConfig:
        """MeshConfig of a cluster's control plane; istiod's defaults when there is none or it cannot be understood."""
        return self.now(("config", cluster.name, revision), partial(self._config, cluster, revision))

    def _config(self, cluster: Cluster, revision: str) -> MeshConfig:
        found = self.config_map(cluster, revision)

        def read() -> MeshConfig:
            try:
                config = said(found, "mesh", MeshConfig)
            except ValueError:
                config = MeshConfig()
            if found is not None and "rootNamespace" not in (found.data or {}).get("mesh", ""):
                config.root_namespace = found.namespace
            return config

        return self.once(("config", cluster.name, revision), (found,), read)

    def misread(self, cluster: Cluster) -> str:
        """That the configuration of a cluster's control plane cannot be understood, and why; empty when it can."""
        found = self.config_map(cluster)
        if found is None:
            return ""
        why = self.once(("misread", cluster.name), (found,), partial(misread, found))
        return f"{found.ref} cannot be understood: {why}" if why else ""

    def networks(self, cluster: Cluster) -> MeshNetworks:
        """MeshNetworks of a cluster's control plane."""
        return self.now(("networks", cluster.name), partial(self._networks, cluster))

    def _networks(self, cluster: Cluster) -> MeshNetworks:
        found = self.config_map(cluster)

        def read() -> MeshNetworks:
            try:
                return said(found, "meshNetworks", MeshNetworks)
            except ValueError:
                return MeshNetworks()

        return self.once(("networks", cluster.name), (found,), read)

    # --- networks and localities -------------------------------------------------------------------------------------------

    def network(self, cluster: Cluster, address: str, labels: Mapping[str, str]) -> str:
        """The network of an address: pod label, system namespace's label, meshNetworks (controller.Network)."""
        return self._around(cluster).network(address, labels)

    def _system_network(self, cluster: Cluster) -> str:
        config = self.config(cluster)
        system = cluster.get(Namespace, "", config.root_namespace) or cluster.get(Namespace, "", "istio-system")
        return system.labels.get(NETWORK, "") if system is not None else ""

    @cached_property
    def network_gateways(self) -> list[NetworkGateway]:
        """The gateways to each network: labelled Services and Gateways of every cluster and what meshNetworks says (kube/controller/network.go, model/network.go)."""
        said = [self.networks(c) for c in self.clusters]
        checked = self.plane(self.primaries[0]).checks_network_gateways
        parts = (part for c in self.clusters for part in (c.objects.get(Service), c.objects.get(APIGateway), self.cluster_id(c)))
        made_of = (*parts, *said, checked)

        def find() -> tuple[list[NetworkGateway], list[tuple[str, Service, NetworkGateway]]]:
            networks = [n for one in said for n in one.networks.items()]
            out = [NetworkGateway(name, "", g.address, g.port) for name, n in networks for g in n.gateways if g.address]
            on_nodes: list[tuple[str, Service, NetworkGateway]] = []
            for c in self.clusters:
                cid = self.cluster_id(c)
                out += [one for g in c.all(APIGateway) if NETWORK in g.labels for one in _entries(g, cid, config=c in self.primaries)]
                named = {
                    g.registry_service_name: (name, g.port)
                    for name, n in networks
                    for g in n.gateways
                    if any(e.from_registry == cid for e in n.endpoints)
                }
                for s in c.all(Service):
                    network, number = s.labels.get(NETWORK), told_port(s)
                    if network:
                        if checked and all(p.port != number for p in s.spec.ports):
                            continue
                    elif (host := names.service_host(s.name, s.namespace)) in named:
                        network, number = named[host]
                    else:
                        continue
                    addresses = [i.ip or i.hostname for i in s.status.load_balancer.ingress] if s.spec.type == "LoadBalancer" else []
                    entered = (*(a for a in addresses if a), *s.spec.external_ips)
                    if _NODE_SELECTOR in s.annotations and s.spec.type == "NodePort":
                        number = next((p.node_port for p in s.spec.ports if p.port == number and p.node_port), number)
                        if not entered:
                            on_nodes.append((c.name, s, NetworkGateway(network, cid, "", number)))
                    out += [NetworkGateway(network, cid, a, number) for a in entered]
            return sorted(set(out)), on_nodes

        found, on_nodes = self.once(("network_gateways",), made_of, find)
        if not on_nodes:
            return found
        nodes = tuple(self.cluster(name).objects.get(Node) for name, _, _ in on_nodes)

        def behind() -> list[NetworkGateway]:
            return [g._replace(address=a) for name, s, g in on_nodes for a in _node_addresses(self.cluster(name), s)]

        return sorted({*found, *self.once(("network gateways on nodes",), (found, *nodes), behind)})

    def localities(self, cluster: Cluster) -> Mapping[str, str]:
        """region/zone/subzone of each node that has one: all that is read of nodes, which report every few seconds."""

        def find() -> Mapping[str, str]:
            return {n.name: place for n in cluster.all(Node) if (place := _locality(n))}

        key = "localities", cluster.name
        return self.now(key, lambda: self.once(key, (cluster.objects.get(Node),), find))

    def locality(self, cluster: Cluster, pod: Pod) -> str:
        """region/zone/subzone of a pod: its label istio-locality, else its node's labels (controller.getPodLocality)."""
        return self._around(cluster).locality(pod)

    def proxy(self, cluster: Cluster, pod: Pod, kind: str) -> Proxy:
        """A pod's proxy as istiod knows it."""
        locality = self.locality(cluster, pod)
        network = self.network(cluster, pod.status.pod_ip, pod.labels)
        labels = augment(pod.labels, self.cluster_id(cluster), locality, pod.spec.node_name, network)
        node, ip = pod.spec.node_name, pod.status.pod_ip
        revision = self.revision(cluster, pod)
        return Proxy(kind, self.cluster_id(cluster), pod.namespace, pod.name, labels, locality, network, node, ip, revision)

    # --- endpoints ---------------------------------------------------------------------------------------------------------

    def slices(self, cluster: Cluster, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
        """The EndpointSlices of one Service."""
        space = cluster.within(EndpointSlice, namespace)

        def index() -> dict[str, tuple[EndpointSlice, ...]]:
            out: dict[str, tuple[EndpointSlice, ...]] = {}
            for _, s in sorted(space.items()):
                out[s.service] = (*out.get(s.service, ()), s)
            return out

        return self.once(("slices", cluster.name, namespace), (space,), index).get(service, ())

    def alike(self, cluster: Cluster, namespace: str) -> Sequence[Alike]:
        """The pods of a namespace, those of one template together: what all of them are by labels, annotations and containers is asked once.

        Pods that only happen to be equal may stand apart (resources.share makes what is equal one).
        """
        space = cluster.within(Pod, namespace)

        def index() -> list[Alike]:
            out: dict[tuple[int, int, int, int, bool], list[Pod]] = {}
            last: Pod | None = None
            for p in space.values():
                if last is None or not _alike(p, last):  # pods of one template mostly come one after another
                    meta, spec = p.metadata, p.spec
                    key = id(meta.labels), id(meta.annotations), id(spec.containers), id(spec.init_containers), spec.host_network
                    same = out.setdefault(key, [])
                last = p
                same.append(p)
            return [Alike(proxy_kind(some[0]), some[0].labels, some[0].annotations, some) for some in out.values()]

        return self.once(("alike", cluster.name, namespace), (space,), index)

    @staticmethod
    def workload(cluster: Cluster, pod: Pod) -> str:
        """What owns a pod, as `Deployment name`; the pod itself when nothing does."""
        return _workload(cluster, pod)

    def workloads(self, namespace: str) -> Iterator[tuple[Cluster, Workload]]:
        """What makes the pods of a namespace (WORKLOADS), in every cluster, by kind and name."""
        for c in self.clusters:
            for w in _made(c, namespace):
                yield c, w

    def labelled(self, namespace: str, key: str, value: str) -> Sequence[tuple[Cluster, Pod]]:
        """The pods of a namespace that carry a label, of every cluster, by name."""

        def index(c: Cluster) -> dict[str, list[Pod]]:
            out: dict[str, list[Pod]] = {}
            for same in self.alike(c, namespace):
                if (found := same.labels.get(key)) is not None:
                    out.setdefault(found, []).extend(same.pods)
            return out

        by_name = attrgetter("metadata.name")
        return [
            (c, p)
            for c in self.clusters
            for p in sorted(
                self.once(("labelled", c.name, namespace, key), (c.within(Pod, namespace),), partial(index, c)).get(value, ()), key=by_name
            )
        ]

    def templated(self, namespace: str, key: str, value: str) -> Sequence[tuple[Cluster, Workload]]:
        """The workloads of a namespace whose pods carry a label, of every cluster, by kind and name."""

        def index(c: Cluster) -> dict[str, list[Workload]]:
            out: dict[str, list[Workload]] = {}
            for w in _made(c, namespace):
                if (found := (w.spec.template.metadata.labels or {}).get(key)) is not None:
                    out.setdefault(found, []).append(w)
            return out

        def made_of(c: Cluster) -> tuple[object, ...]:
            return tuple(c.within(kind, namespace) for kind in WORKLOADS)

        return [
            (c, w)
            for c in self.clusters
            for w in self.once(("templated", c.name, namespace, key), made_of(c), partial(index, c)).get(value, ())
        ]

    def endpoints(self, istiod: Istiod, hostname: str, namespace: str) -> tuple[IstioEndpoint, ...]:
        """Every endpoint that istiod keeps for a host in a namespace, of every cluster and registry (EndpointIndex.ShardsForService)."""
        key = istiod.cluster, hostname, namespace
        if key in self._shards:
            return self._shards[key]
        name = hostname.partition(".")[0]
        kube = hostname == names.service_host(name, namespace)
        kube = kube or (istiod.plane.mcs_host and hostname == names.clusterset_host(name, namespace))
        parts: list[tuple[IstioEndpoint, ...]] = []
        if kube:
            parts += [self._kubernetes_shard(c, namespace, name) for c in self._by_cluster_id]
        if hostname in self._entries_by_host(istiod):
            parts.append(self._entry_shard(istiod, hostname, namespace))
        found = self._shards[key] = parts[0] if len(parts) == 1 else tuple(e for p in parts for e in p)
        return found

    def straying(self, cluster: Cluster, spaces: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The services (name, namespace) of a cluster whose slices name pods of some other namespaces."""
        for (where, namespace, name), named in self._strays.items():
            if where == cluster.name and not named.keys().isdisjoint(spaces):
                yield name, namespace

    @cached_property
    def _by_cluster_id(self) -> list[Cluster]:
        return sorted(self.clusters, key=self.cluster_id)

    def _kubernetes_shard(self, cluster: Cluster, namespace: str, name: str) -> tuple[IstioEndpoint, ...]:
        slices = self.slices(cluster, namespace, name)
        service = cluster.get(Service, namespace, name)
        strays = self._strays.get((cluster.name, namespace, name), ())
        beside = self.now(("beside slices", cluster.name, namespace), partial(self._beside_slices, cluster, namespace))
        made_of = *slices, *[cluster.objects.get(Pod, {}).get(ns) for ns in strays], service, *beside
        return self.once(("shard", cluster.name, namespace, name), made_of, lambda: self._read_slices(cluster, slices, service))

    def _beside_slices(self, cluster: Cluster, namespace: str) -> tuple[object, ...]:
        """What of a namespace decides, besides its slices and Services, what their endpoints are."""
        spaces = (cluster.objects.get(kind, _NONE).get(namespace) for kind in (Pod, WorkloadEntry, ReplicaSet))
        return *spaces, self._placing(cluster)

    def _placing(self, cluster: Cluster) -> tuple[object, ...]:
        """What of a cluster decides where every endpoint of it stands: the same object for as long as that is the same."""
        config, blind = self.config_map(cluster), bool(self.unread(cluster, Pod))
        parts = self.localities(cluster), self.cluster_id(cluster), cluster.objects.get(Namespace), config, blind
        return self.once(("placing", cluster.name), parts, lambda: parts)

    def _read_slices(self, cluster: Cluster, slices: Sequence[EndpointSlice], service: Service | None) -> tuple[IstioEndpoint, ...]:
        out: list[IstioEndpoint] = []
        seen: dict[str, set[str]] = {}
        draining = bool(service and service.labels.get(PERSISTENT))
        around = self._around(cluster)
        for s in sorted(slices, key=lambda s: s.name) if len(slices) > 1 else slices:
            if s.address_type == "FQDN":
                continue
            namespace = s.metadata.namespace
            space = cluster.within(Pod, namespace)
            ports = [(p.port or 0, p.name or "", seen.setdefault(p.name or "", set())) for p in s.ports or ()]
            for e in s.endpoints or ():
                ready = e.conditions.ready
                health: Health = "healthy" if ready or ready is None else _ill(e, draining=draining, known=service is not None)
                ref = e.target_ref
                for address in e.addresses or ():
                    if ref is None or ref.kind != "Pod":
                        pod = self._pod_at(cluster, namespace, address)
                    else:
                        if ref.namespace in ("", namespace):
                            pod = space.get(ref.name)
                        else:
                            self._strays.setdefault((cluster.name, s.namespace, s.service), {})[ref.namespace] = None
                            pod = cluster.within(Pod, ref.namespace).get(ref.name)
                        if pod is None and not self.unread(cluster, Pod):  # istiod sees those that we do not
                            continue
                    reason = "" if health == "healthy" else _why(e, health, pod)
                    shape: IstioEndpoint | None = None
                    for port, name, met in ports:
                        if address in met:
                            continue
                        met.add(address)
                        if shape is None:
                            shape = around.endpoint(pod, address, namespace, port, name, health, reason)
                            out.append(shape)
                        else:
                            out.append(shape.copy(port=port, port_name=name))
        if service is not None:
            out += self._selected_entries(cluster, service)
        return tuple(out)

    def _pod_at(self, cluster: Cluster, namespace: str, address: str) -> Pod | None:
        space = cluster.within(Pod, namespace)

        def index() -> dict[str, Pod]:
            return {p.status.pod_ip: p for _, p in sorted(space.items()) if p.status.pod_ip and p.ready}

        return self.once(("pods by address", cluster.name, namespace), (space,), index).get(address)

    def _around(self, cluster: Cluster) -> _Around:
        return self.now(
            ("around", cluster.name),
            lambda: _Around(
                cluster,
                self.cluster_id(cluster),
                self.localities(cluster),
                self.now(("system network", cluster.name), partial(self._system_network, cluster)),
                self.networks(cluster),
            ),
        )

    def _selected_entries(self, cluster: Cluster, service: Service) -> Iterator[IstioEndpoint]:
        """WorkloadEntries that a Kubernetes Service selects (kube controller.collectWorkloadInstanceEndpoints); of ports of one number they serve the first."""
        selector = service.spec.selector
        if not selector or service.spec.cluster_ip == "None" or service.spec.type == "ExternalName":
            return
        first: dict[int, ServicePort] = {}
        for p in service.spec.ports:
            first.setdefault(p.port, p)
        for we in cluster.ordered(WorkloadEntry, service.namespace):
            wi = self._entry_instance(cluster, we)
            if wi is None or wi.dns_only or any(wi.endpoint.labels.get(k) != v for k, v in selector.items()):
                continue
            for p in first.values():
                port = p.target_port if isinstance(p.target_port, int) and p.target_port else p.port
                if isinstance(p.target_port, str) and p.target_port:
                    if p.target_port not in wi.ports:
                        continue
                    port = wi.ports[p.target_port]
                elif p.name in wi.ports:
                    port = wi.ports[p.name]
                yield wi.endpoint.copy(port=port, port_name=p.name)

    def _entry_instance(self, cluster: Cluster, we: WorkloadEntry) -> WorkloadInstance | None:
        if not is_healthy(we):
            return None
        labels = {**(we.spec.labels or {}), **we.labels}
        network = we.spec.network or self.network(cluster, we.spec.address, labels)
        return entry_instance(we.spec, labels, we.namespace, we.name, self.cluster_id(cluster), network)

    def _entries_by_host(self, istiod: Istiod) -> dict[str, list[ServiceEntry]]:
        holder = self.cluster(istiod.cluster)

        def index() -> dict[str, list[ServiceEntry]]:
            out: dict[str, list[ServiceEntry]] = {}
            for e in holder.all(ServiceEntry):
                for h in e.spec.hosts or ():
                    out.setdefault(h, []).append(e)
            return out

        key = "entries by host", istiod.cluster
        return self.now(key, lambda: self.once(key, (holder.objects.get(ServiceEntry),), index))

    def _entry_shard(self, istiod: Istiod, hostname: str, namespace: str) -> tuple[IstioEndpoint, ...]:
        holder = self.cluster(istiod.cluster)
        entries = sorted(
            (e for e in self._entries_by_host(istiod).get(hostname, ()) if e.namespace == namespace),
            key=lambda e: (e.created, hostname, e.namespace, e.name),
        )
        made_of = (
            *entries,
            holder.objects.get(WorkloadEntry, {}).get(namespace),
            *(c.objects.get(kind, {}).get(namespace) for c in self.clusters for kind in (Pod, ReplicaSet)),
            *(x for c in self.clusters for x in (self.localities(c), self.cluster_id(c), c.objects.get(Namespace), self.config_map(c))),
        )
        return self.once(
            ("entry shard", istiod.cluster, namespace, hostname), made_of, lambda: tuple(self._read_entries(holder, entries, hostname))
        )

    def _read_entries(self, cluster: Cluster, entries: Iterable[ServiceEntry], hostname: str) -> Iterator[IstioEndpoint]:
        """Endpoints of all ServiceEntries of a host, oldest entry first (mergeServicesInstancesByNamespaceHost)."""
        taken: set[int | None] = set()
        for entry in entries:
            for endpoint in self._entry_endpoints(cluster, entry, hostname):
                if entry.spec.resolution == "DNS_ROUND_ROBIN" and endpoint.legacy_port in taken:
                    continue
                taken.add(endpoint.legacy_port)
                yield endpoint

    def _entry_endpoints(self, cluster: Cluster, entry: ServiceEntry, hostname: str) -> Iterator[IstioEndpoint]:
        spec = entry.spec
        dns = spec.resolution in {"DNS", "DNS_ROUND_ROBIN"}
        cid = self.cluster_id(cluster)
        if spec.workload_selector is not None:
            for wi in self._instances(cluster, entry.namespace):
                if (not wi.dns_only or dns) and all(wi.endpoint.labels.get(k) == v for k, v in spec.workload_selector.wanted.items()):
                    yield from wi.serve(entry)
        elif not spec.endpoints and dns:
            for p in spec.ports or ():
                yield IstioEndpoint(
                    hostname,
                    p.target_port or p.number,
                    p.name,
                    {},
                    "",
                    cid,
                    "",
                    "healthy",
                    tls=False,
                    workload=entry.name,
                    namespace=entry.namespace,
                    legacy_port=p.number,
                )
        else:
            for i, e in enumerate(spec.endpoints or ()):
                labels = e.labels or {}
                network = e.network or self.network(cluster, e.address, labels)
                yield from entry_instance(e, labels, entry.namespace, f"{entry.name}-{i}", cid, network).serve(entry)

    def _instances(self, cluster: Cluster, namespace: str) -> list[WorkloadInstance]:
        """Pods and WorkloadEntries that a ServiceEntry of a namespace may select, in istiod's order."""
        out = [
            pod_instance(p, self._around(c).endpoint(p, p.status.pod_ip, namespace))
            for c in self.clusters
            for p in c.within(Pod, namespace).values()
            if p.ready and p.status.pod_ip and not p.spec.host_network
        ]
        out += [wi for we in cluster.within(WorkloadEntry, namespace).values() if (wi := self._entry_instance(cluster, we)) is not None]
        return sorted(out, key=lambda w: (w.kind != "pod", w.namespace, w.name))


class _Template(NamedTuple):
    """What pods have from the template that they share: all that an endpoint says of them but its address, and where each node puts them."""

    zone: str
    workload: str
    tls: bool
    tunnel: bool
    network: str | None
    """None where their addresses decide."""
    placed: dict[str, tuple[str, Mapping[str, str]]]
    """Of each node the locality and the topology labels."""


@dataclass(slots=True, eq=False)
class _Around:
    """What of a cluster every endpoint of it has to do with: its ID, its nodes' localities, the network of its system namespace, meshNetworks."""

    cluster: Cluster
    cid: str
    localities: Mapping[str, str]
    shared: str
    networks: MeshNetworks
    templates: dict[tuple[object, ...], _Template] = field(default_factory=dict)
    """By what pods share (by id): those that a controller made."""
    last: tuple[object, object, object, object, object, str, _Template] | None = None
    """The one that was asked for last, and by what: pods of one template come one after another."""
    places: dict[tuple[str, str | None, bool], dict[str, tuple[str, Mapping[str, str]]]] = field(default_factory=dict)
    """What templates that say the same of places share (_Template.placed)."""

    def locality(self, pod: Pod) -> str:
        return locality_label(pod.labels) or self.localities.get(pod.spec.node_name, "")

    def network(self, address: str, labels: Mapping[str, str]) -> str:
        return labels.get(NETWORK) or self.shared or (self.networks.of(self.cid, address) if self.networks.networks else "")

    def endpoint(
        self,
        pod: Pod | None,
        address: str,
        namespace: str,
        port: int = 0,
        port_name: str = "",
        health: Health = "healthy",
        reason: str = "",
    ) -> IstioEndpoint:
        """An address as istiod keeps it, with what its pod says of it."""
        cid = self.cid
        if pod is None:
            network = self.network(address, {})
            placed = topology({}, cid, "", "", network)
            return IstioEndpoint(
                address, port, port_name, {}, network, cid, "", health, tls=False, namespace=namespace, reason=reason, topology=placed
            )
        meta, spec, at = pod.metadata, pod.spec, self.last
        node = spec.node_name
        if (
            at is not None
            and meta.labels is at[0]
            and meta.owner_references is at[1]
            and spec.containers is at[2]
            and meta.annotations is at[3]
            and spec.init_containers is at[4]
            and meta.namespace == at[5]
        ):  # pods of one template mostly come one after another
            zone, workload, tls, tunnel, shared, nodes = at[6]
        else:
            zone, workload, tls, tunnel, shared, nodes = self._template(pod)
        own = meta.labels or {}
        network = self.network(pod.status.pod_ip, own) if shared is None else shared
        known = nodes.get(node) if shared is not None else None
        if known is None:
            locality = zone or self.localities.get(node, "")
            known = nodes[node] = locality, topology(own, cid, locality, node, network)
        locality, placed = known
        return IstioEndpoint(
            address, port, port_name, own, network, cid, locality, health, tls, node, workload, meta.namespace, None, reason, tunnel, placed
        )

    def _template(self, pod: Pod) -> _Template:
        meta, spec = pod.metadata, pod.spec
        labels, owners, containers, notes, more = (
            meta.labels,
            meta.owner_references,
            spec.containers,
            meta.annotations,
            spec.init_containers,
        )
        key = meta.namespace, id(labels), id(owners), id(containers), id(notes), id(more)
        found = self.templates.get(key) if owners else None
        if found is None:
            tunnel = pod.annotations.get("ambient.istio.io/redirection") == "enabled"
            network = None if self.networks.networks else self.network("", pod.labels)
            zone = locality_label(pod.labels)
            placed = self.places.setdefault((zone, network, NETWORK in pod.labels), {})
            found = self.templates[key] = _Template(zone, _workload(self.cluster, pod), takes_mtls(pod), tunnel, network, placed)
        self.last = (labels, owners, containers, notes, more, meta.namespace, found) if owners else None
        return found


def _made(cluster: Cluster, namespace: str) -> Iterator[Workload]:
    """The workloads of a namespace, but for a Deployment at 0 replicas that lends a Rollout its template (Argo Rollouts, spec.workloadRef), which is the Rollout's then."""
    lent = {r.spec.workload_ref.name for r in cluster.within(Rollout, namespace).values() if r.spec.workload_ref is not None}
    for kind in WORKLOADS:
        for w in cluster.ordered(kind, namespace):
            if kind is Deployment and not w.wanted and w.name in lent:
                continue
            lender = cluster.get(Deployment, namespace, w.spec.workload_ref.name) if w.spec.workload_ref is not None else None
            yield w.of(lender.spec.template) if lender is not None else w


def _workload(cluster: Cluster, pod: Pod) -> str:
    for owner in pod.metadata.owner_references:
        if owner.kind == "ReplicaSet":
            rs = cluster.within(ReplicaSet, pod.namespace).get(owner.name)
            above = next((o for o in rs.metadata.owner_references if o.kind), None) if rs else None
            if above is not None:
                return f"{above.kind} {above.name}"
            template = pod.labels.get("pod-template-hash")
            if template and owner.name.endswith(f"-{template}"):
                return sys.intern(f"Deployment {owner.name[: -len(template) - 1]}")
        return f"{owner.kind} {owner.name}"
    return f"Pod {pod.name}"


PERSISTENT = "istio.io/persistent-session"
_CONFIGURED = ("istio.io", "gateway.networking.k8s.io")


def _alike(a: Pod, b: Pod) -> bool:
    """Whether two pods surely are of one template."""
    mine, theirs = a.spec, b.spec
    return (
        a.metadata.labels is b.metadata.labels
        and a.metadata.annotations is b.metadata.annotations
        and mine.containers is theirs.containers
        and mine.init_containers is theirs.init_containers
        and mine.host_network is theirs.host_network
    )


def _heard(o: Resource, revision: str) -> bool:
    """Whether a control plane reads an object: one that names a revision is read by this revision alone, not by its tags (LabelsInRevision).

    Of Gateways of the Gateway API the label says who deploys them; all read them (gateway/controller.go buildClient, gateway_collection.go).
    """
    return not revision or isinstance(o, APIGateway) or o.labels.get(REVISION, revision) == revision


NAME = "kubernetes.io/metadata.name"


def _cluster_ids(space: Mapping[str, Resource]) -> list[str]:
    """The CLUSTER_ID of each istiod among some Deployments or Pods, empty where it says none."""
    out: list[str] = []
    for _, o in sorted(space.items()):
        if o.labels.get("app") == "istiod":
            containers = o.spec.template.spec.containers if isinstance(o, Deployment) else o.spec.containers if isinstance(o, Pod) else ()
            out.append(next((e.value for c in containers for e in c.env or () if e.name == "CLUSTER_ID"), ""))
    return out


def _listed(versions: Iterable[Version]) -> str:
    *rest, last = map(str, versions)
    return f"{', '.join(rest)} and {last}" if rest else last


def _planes(space: Mapping[str, Resource]) -> tuple[Plane, ...]:
    """The control planes among a namespace's Deployments or pods."""
    istiods = [w for _, w in sorted(space.items()) if w.labels.get("app") == "istiod"]
    return planes((w for w in istiods if isinstance(w, Deployment)), (w for w in istiods if isinstance(w, Pod)))


def _same_plane(old: Cluster, new: Cluster) -> bool:
    """Whether nothing but VirtualServices differs of what a control plane's view is made of; where istiod runs, pods and Deployments say."""
    if (old.unreadable, old.members, old.foreign) != (new.unreadable, new.members, new.foreign) or any(
        old.objects.get(k) is not new.objects.get(k) for k in KIND_OF if k not in RUNTIME and k is not VirtualService
    ):
        return False
    for kind in (Deployment, Pod):
        was, now = old.objects.get(kind, {}), new.objects.get(kind, {})
        if was is not now:
            for ns in was.keys() | now.keys():
                if was.get(ns) is now.get(ns):
                    continue
                if _cluster_ids(was.get(ns, {})) != _cluster_ids(now.get(ns, {})) or _planes(was.get(ns, {})) != _planes(now.get(ns, {})):
                    return False
    return True


def _new_weights(old: Cluster, new: Cluster) -> dict[str, VirtualService] | None:
    """The VirtualServices (by ref) that say other weights, and nothing else; None where any says something else, appeared or went."""
    was, now = old.objects.get(VirtualService, _NONE), new.objects.get(VirtualService, _NONE)
    out: dict[str, VirtualService] = {}
    for ns in was.keys() | now.keys() if was is not now else ():
        a, b = old.within(VirtualService, ns), new.within(VirtualService, ns)
        if a is b:
            continue
        if a.keys() != b.keys():
            return None
        for name, vs in b.items():
            if vs is not a[name]:
                if weightless(a[name]) != weightless(vs):
                    return None
                out[vs.ref] = vs
    return out


def _locality(node: Node) -> str:
    region = node.labels.get(REGION) or node.labels.get("failure-domain.beta.kubernetes.io/region", "")
    zone = node.labels.get(ZONE) or node.labels.get("failure-domain.beta.kubernetes.io/zone", "")
    subzone = node.labels.get(SUBZONE, "")
    return f"{region}/{zone}/{subzone}" if region or zone or subzone else ""


def _configured(cluster: Cluster) -> bool:
    return any(any(spaces.values()) for kind, spaces in cluster.objects.items() if KIND_OF[kind].group.endswith(_CONFIGURED))


def _ill(e: SliceEndpoint, *, draining: bool, known: bool) -> Health:
    """What an endpoint is that is not ready."""
    c = e.conditions
    going = c.terminating is None or c.terminating
    if draining and known and going and (c.serving is None or c.serving):
        return "draining"
    return "terminating" if known and going else "unhealthy"


def _why(e: SliceEndpoint, health: Health, pod: Pod | None) -> str:
    """Why an endpoint is not healthy, in words, from its pod."""
    if health == "draining" or e.conditions.terminating or (pod is not None and pod.metadata.deletion_timestamp):
        return GOES
    if pod is None:
        return "not ready"
    for c in pod.status.container_statuses or ():
        waiting = c.state.waiting
        if waiting is not None and waiting.reason:
            return f"container {c.name} is waiting: {waiting.reason}"
    for c in pod.status.container_statuses or ():
        if not c.ready:
            return f"container {c.name} is not ready"
    return "the pod is not ready"


__all__ = ["Change", "Cluster", "HostService", "Mesh", "NetworkGateway", "Unreadable"]
