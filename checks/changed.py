"""What changed last of everything that calls of a host depend on, and which of these changes may be why they fail.

An object says itself who wrote it last and when (metadata.managedFields, `Written`), a ReplicaSet when its revision of a Deployment began. What
was deleted says nothing any more, and of what controllers alone write (pods, endpoints, nodes) the owners are told instead.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct

from checks.case import Case
from checks.resources import (
    KIND_OF,
    APIGateway,
    APIRoute,
    AuthorizationPolicy,
    ConfigMap,
    Deployment,
    EndpointSlice,
    EnvoyFilter,
    Gateway,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    ReplicaSet,
    RequestAuthentication,
    Resource,
    Sidecar,
    VirtualService,
    Workload,
    WorkloadEntry,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.diagnosis import Diagnosis
    from checks.mesh import Cluster, Mesh
    from checks.resources import WorkloadSelector

BEFORE_S, AFTER_S = 900.0, 60.0
"""How long before a fault was first seen a change may have made it, and by how much clocks may differ."""
_TOGETHER_S = 10.0  # a Deployment's write and the ReplicaSet that it makes are one change
_OWNED: tuple[type[Resource], ...] = (Pod, EndpointSlice, Node, ReplicaSet)
"""Kinds that controllers alone write."""
_KINDS: dict[str, tuple[type[Resource], ...]] = {}
for _struct, _kind in KIND_OF.items():
    if _struct not in _OWNED:
        _KINDS[_kind.kind] = (*_KINDS.get(_kind.kind, ()), _struct)
_REF = re.compile(
    rf"\b({'|'.join(sorted(_KINDS, key=len, reverse=True))}) ([a-z0-9][a-z0-9.-]*)(?:/([a-z0-9][a-z0-9.-]*[a-z0-9]|[a-z0-9]))?"
)


class Changed(Struct, frozen=True, kw_only=True):
    """The last change of one object: of which cluster, when (seconds since the epoch), by whom (the writing program; empty when unknown), and what.

    `what` goes on after the object's name: `was scaled to 0`. Of all changes one at most is `suspicious`.
    """

    cluster: str
    resource: str
    at: float
    by: str
    what: str
    suspicious: bool = False


def changed(diagnosis: Diagnosis, meshes: Sequence[Mesh], since: float | None = None) -> tuple[Changed, ...]:
    """The last changes of every object that a host's routes, endpoints and findings depend on, the newest first.

    `since` is when the fault was first seen, in seconds since the epoch. Suspicious is what changed within BEFORE_S before it: at that very time
    before anything else, then what a finding names; else the object where a finding stands. An object that does not say when it was written is left out.
    """
    found: dict[tuple[str, str], tuple[Cluster, Resource]] = {}
    named: dict[tuple[str, str], int] = {}

    def add(cluster: Cluster, o: Resource | None) -> None:
        if o is not None and not isinstance(o, _OWNED):
            found.setdefault((cluster.name, o.ref), (cluster, o))

    for rank, cluster, o in _named(diagnosis, meshes):
        add(cluster, o)
        named[cluster.name, o.ref] = max(rank, named.get((cluster.name, o.ref), 0))
    for mesh in meshes:
        for cluster, o in _on_the_way(diagnosis, mesh):
            add(cluster, o)
    told = [c for cluster, o in found.values() for c in _told(cluster, o)]
    told.sort(key=lambda c: (-c.at, c.cluster, c.resource))
    suspect = _suspect(told, named, since)
    return tuple(Changed(**{f: getattr(c, f) for f in c.__struct_fields__[:-1]}, suspicious=c is suspect) for c in told)


def difference(old: Resource, new: Resource, most: int = 4) -> tuple[str, ...]:
    """What differs in what is read of two states of an object, field by field: `spec.http[0].route[0].weight: 50 → 95`; `most` of it, and how much more.

    What controllers report back (status) is no difference. What is long, and annotations, are named and not quoted.
    """
    before, after = (
        {"labels": o.labels, "annotations": {k: hash(v) for k, v in o.annotations.items() if k != _REVISION}, "spec": _fields(o)}
        for o in (old, new)
    )
    found = [
        (path.removeprefix(".") if path.startswith(".spec") else f"metadata{path}", *pair) for path, *pair in _differing("", before, after)
    ]
    said = [f"{path}{_became(a, b, quoted='annotations' not in path)}" for path, a, b in found]
    return (*said[:most], *([f"and {len(said) - most} fields more"] if len(said) > most else []))


_REVISION = "deployment.kubernetes.io/revision"  # the controller's own
_LONG = 60
_ABSENT: Any = None


def _fields(o: Resource) -> Any:
    kept = {
        f.encode_name: msgspec.to_builtins(getattr(o, f.name)) for f in msgspec.structs.fields(o) if f.name not in {"metadata", "status"}
    }
    return kept["spec"] if kept.keys() == {"spec"} else kept


def _differing(path: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from _differing(f"{path}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        for i in range(max(len(a), len(b))):
            yield from _differing(f"{path}[{i}]", a[i] if i < len(a) else _ABSENT, b[i] if i < len(b) else _ABSENT)
    elif a != b:
        yield path, a, b


def _became(a: Any, b: Any, *, quoted: bool) -> str:
    """What became of a field; what is long, or not to be quoted, is not."""
    if quoted and all(not isinstance(v, dict | list | tuple) and len(str(v)) <= _LONG for v in (a, b)):
        return f": {_short(a)} → {_short(b)}"
    return " added" if a is None else " removed" if b is None else " changed"


def _short(value: Any) -> str:
    return "nothing" if value in (None, "") else str(value)


def at(timestamp: str) -> float:
    """RFC 3339 text as seconds since the epoch; 0 when it is none."""
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return 0.0


def _suspect(told: Iterable[Changed], named: Mapping[tuple[str, str], int], since: float | None) -> Changed | None:
    ranked: list[tuple[bool, bool, int, float, Changed]] = []
    for c in told:
        rank = named.get((c.cluster, c.resource), 0)
        near = since is not None and since - BEFORE_S <= c.at <= since + AFTER_S
        if near or (rank == _STANDS and (since is None or c.at <= since + AFTER_S)):
            ranked.append((near, since is not None and abs(c.at - since) <= AFTER_S, rank, c.at, c))
    return max(ranked, key=lambda r: r[:4])[4] if ranked else None


# --- which objects -------------------------------------------------------------------------------------------------------------

_STANDS, _EVIDENT = 2, 1
"""A finding stands at the object; it names it as evidence."""


def _named(diagnosis: Diagnosis, meshes: Sequence[Mesh]) -> Iterator[tuple[int, Cluster, Resource]]:
    """The objects that findings name, in their own cluster, else wherever there is one of the name."""
    clusters = [(m, c) for m in meshes for c in m.clusters]
    for f in diagnosis.findings:
        near = [c for m, c in clusters if f.cluster in (c.name, m.cluster_id(c))]
        for text, rank in ((f.resource, _STANDS), *((e, _EVIDENT) for e in (f.message, *f.evidence))):
            for kind, first, second in _REF.findall(text):
                here = [(c, o) for c in near for o in _get(c, kind, first, second)]
                elsewhere = ((c, o) for _, c in clusters for o in _get(c, kind, first, second))
                yield from ((rank, where, o) for where, o in here or elsewhere)


def _get(cluster: Cluster, kind: str, first: str, second: str) -> Iterator[Resource]:
    """The objects of a name as a `ref` writes it: `Kind namespace/name`, or `Kind name` of a kind without namespaces."""
    for struct in _KINDS[kind]:
        if KIND_OF[struct].namespaced == bool(second):
            found = cluster.get(struct, first, second) if second else cluster.get(struct, "", first)
            if found is not None:
                yield found


def _on_the_way(diagnosis: Diagnosis, mesh: Mesh) -> Iterator[tuple[Cluster, Resource]]:
    """What the routes of a host are made of in one mesh: rules, gateways, what they lead to and who runs there, and what holds for it all."""
    names_ = {c.name for c in mesh.clusters}
    routes = [r for r in diagnosis.routes if r.viewpoint.cluster in names_]
    case = Case.of(diagnosis.host, mesh)
    if not case.views and not routes and not any(diagnosis.host in i.by_host for i in mesh.control_planes):
        return
    for r in routes:
        holder = mesh.cluster(mesh.istiod(r.viewpoint.cluster).cluster)
        for ref in (r.source, *(d.destination_rule for d in r.destinations)):
            for kind, first, second in _REF.findall(ref or ""):
                for o in _get(holder, kind, first, second):
                    yield holder, o
                    yield from _around(mesh, holder, o)
    services = {id(u.service): u.service for u in case.upstreams if u.service is not None}
    services |= {id(s): s for i in mesh.control_planes for s in i.by_host.get(diagnosis.host, ())}
    spaces: dict[str, list[Mapping[str, str]]] = {}
    for s in services.values():
        for cluster_id, ref in s.sources:
            where = mesh.cluster(cluster_id)
            yield from ((where, o) for kind, first, second in _REF.findall(ref) for o in _get(where, kind, first, second))
        labels = spaces.setdefault(s.namespace, [])
        for cluster, workload in case.owners(s):
            yield cluster, workload
            labels.append(workload.spec.template.metadata.labels or {})
        for cluster in mesh.clusters:
            yield from ((cluster, e) for e in cluster.within(WorkloadEntry, s.namespace).values() if _fits(e.labels, s.selector or {}))
    for plane in mesh.control_planes:
        yield from ((mesh.cluster(plane.cluster), e) for e in case.entries(plane, diagnosis.host))
    callers = {(v.cluster, v.namespace) for v in (*(r.viewpoint for r in routes), *(v for f in diagnosis.findings for v in f.viewpoints))}
    yield from _general(mesh, spaces, callers)


def _around(mesh: Mesh, holder: Cluster, o: Resource) -> Iterator[tuple[Cluster, Resource]]:
    """What a rule hands its paths to, and the gateways that it is for, with those that run them."""
    gateways: list[tuple[str, str, str]] = []
    if isinstance(o, VirtualService):
        for rule in o.spec.http or ():
            if (d := rule.delegate) is not None and (leaf := holder.get(VirtualService, d.namespace or o.namespace, d.name)) is not None:
                yield holder, leaf
        gateways = [("Gateway", *_split(g, o.namespace)) for g in o.spec.gateways or () if g != "mesh"]
    elif isinstance(o, APIRoute):
        gateways = [(p.kind, p.namespace or o.namespace, p.name) for p in o.spec.parent_refs or () if p.kind == "Gateway"]
    for kind, namespace, name in gateways:
        for g in _get(holder, kind, namespace, name):
            yield holder, g
            wanted = g.spec.selector if isinstance(g, Gateway) else {"gateway.networking.k8s.io/gateway-name": g.name}
            if not wanted or (isinstance(g, APIGateway) and not isinstance(o, APIRoute)):
                continue
            for cluster in mesh.clusters:
                running = cluster.all(Deployment)
                yield from ((cluster, w) for w in running if _fits(w.spec.template.metadata.labels or {}, wanted))


def _split(gateway: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a gateway as a VirtualService writes it."""
    space, slash, name = gateway.rpartition("/")
    return (namespace if space in {"", "."} else space) if slash else namespace, name


def _general(
    mesh: Mesh, spaces: Mapping[str, Sequence[Mapping[str, str]]], callers: Iterable[tuple[str, str]]
) -> Iterator[tuple[Cluster, Resource]]:
    """What holds for whole namespaces or the mesh: Sidecars of callers, policies and filters at the server, the namespace, istiod and its settings."""
    for cluster in mesh.clusters:
        root = mesh.config(cluster).root_namespace
        mine = {ns for c, ns in callers if c == cluster.name}
        for ns in sorted(mine | {root}):
            yield from ((cluster, s) for s in cluster.within(Sidecar, ns).values())
            yield from ((cluster, f) for f in cluster.within(EnvoyFilter, ns).values())
        for ns, carried in spaces.items():
            yield from ((cluster, n) for n in (cluster.get(Namespace, "", ns),) if n is not None)
            for space in dict.fromkeys((ns, root)):
                for kind in (AuthorizationPolicy, PeerAuthentication, RequestAuthentication):
                    policies = cast(
                        "Iterable[AuthorizationPolicy | PeerAuthentication | RequestAuthentication]", cluster.within(kind, space).values()
                    )
                    yield from ((cluster, p) for p in policies if _selects(p.spec.selector, carried))
            yield from ((cluster, f) for f in cluster.within(EnvoyFilter, ns).values() if _selects(f.spec.workload_selector, carried))
        yield from ((cluster, c) for c in cluster.within(ConfigMap, root).values() if c.name.partition("-")[0] == "istio")
        yield from ((cluster, d) for d in cluster.within(Deployment, root).values() if d.labels.get("app") == "istiod")


def _selects(selector: WorkloadSelector | None, carried: Sequence[Mapping[str, str]]) -> bool:
    """Whether a policy is for any of some workloads, by their labels; where none is known, whether it is for everybody."""
    return selector is None or not selector.wanted or any(map(selector.matches, carried))


def _fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return bool(selector) and all(labels.get(k) == v for k, v in selector.items())


# --- what is said of one -------------------------------------------------------------------------------------------------------


def _told(cluster: Cluster, o: Resource) -> Iterator[Changed]:
    """The last change of an object, and of a Deployment its last revision."""
    written = next(iter(o.metadata.managed_fields), None)
    created = at(o.created)
    wrote = max(at(written.time), created) if written is not None else created
    by = written.manager if written is not None else ""
    newest = max(_revisions(cluster, o), key=lambda rs: (rs.revision, rs.created), default=None) if isinstance(o, Deployment) else None
    began = at(newest.created) if newest is not None and newest.revision > 1 else 0.0
    together = bool(began) and abs(began - wrote) <= _TOGETHER_S
    if wrote:
        what = _what(o, is_new=wrote - created <= 1, scaled=written is not None and written.subresource == "scale")
        if together and newest is not None:
            what += f", which began revision {newest.revision}"
        yield Changed(cluster=cluster.name, resource=o.ref, at=wrote, by=by, what=what)
    if began and not together and newest is not None:
        yield Changed(cluster=cluster.name, resource=o.ref, at=began, by="", what=f"began revision {newest.revision}, {newest.ref}")


def _what(o: Resource, *, is_new: bool, scaled: bool) -> str:
    if is_new:
        return "was created"
    if scaled and isinstance(o, Workload):
        return f"was scaled to {o.wanted}"
    return f"was changed, generation {o.metadata.generation}" if o.metadata.generation > 1 else "was changed"


def _revisions(cluster: Cluster, deployment: Deployment) -> Iterator[ReplicaSet]:
    for rs in cluster.within(ReplicaSet, deployment.namespace).values():
        if any(owner.kind == "Deployment" and owner.name == deployment.name for owner in rs.metadata.owner_references):
            yield rs
