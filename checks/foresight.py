"""What Kubernetes' own controllers would make of a change for certain, so that it can be weighed as a whole.

Foreseen: the endpoints of the pods that a Service selects, as its selector, its ports and the pods' labels say; that the pods of a workload go
with it, or with its replicas, and take the labels of its template; that what a Namespace or a Service holds goes with it. Not foreseen: pods
that nobody has seen yet, since nobody knows whether they would be ready. What a change holds itself is believed.
Sources: pkg/controller/endpointslice and the garbage collector of kubernetes/kubernetes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.mesh import Change
from checks.resources import (
    KIND_OF,
    Controlled,
    DaemonSet,
    EndpointConditions,
    EndpointSlice,
    Namespace,
    ObjectReference,
    Pod,
    Resource,
    Service,
    SliceEndpoint,
    SlicePort,
    Workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.mesh import Cluster, Mesh

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"
_CONTROLLER = "endpointslice-controller.k8s.io"

_Key = tuple[type[Resource], str, str]


def foreseen(mesh: Mesh, changes: Iterable[Change]) -> list[Change]:
    """These changes, and what follows from them."""
    out: list[Change] = []
    by_cluster: dict[str, list[Change]] = {}
    for c in changes:
        by_cluster.setdefault(c.cluster, []).append(c)
    for name, made in by_cluster.items():
        out += _foreseen(mesh, mesh.cluster(name), made)
    return out


def _foreseen(mesh: Mesh, cluster: Cluster, made: list[Change]) -> list[Change]:
    said: dict[_Key, Change] = {(c.kind, c.namespace, c.name): c for c in made}
    for c in made:
        for follows in _following(mesh, cluster, c):
            said.setdefault((follows.kind, follows.namespace, follows.name), follows)
    after = cluster.apply(said.values())
    for namespace, name in sorted(_reached(cluster, after, said.values())):
        for s in _slices(mesh, cluster, after, namespace, name, said):
            said.setdefault((s.kind, s.namespace, s.name), s)
    return list(said.values())


def _following(mesh: Mesh, cluster: Cluster, change: Change) -> Iterator[Change]:
    """What goes or changes together with an object."""
    old = cluster.get(change.kind, change.namespace, change.name)
    if isinstance(old, Namespace) and change.new is None:
        for kind, spaces in cluster.objects.items():
            yield from (_gone(cluster, o) for o in spaces.get(old.name, {}).values() if KIND_OF[kind].namespaced)
    elif isinstance(old, Service) and change.new is None:
        yield from (_gone(cluster, s) for s in mesh.slices(cluster, old.namespace, old.name))
    elif isinstance(old, Workload):
        yield from _of_workload(mesh, cluster, old, change)


def _of_workload(mesh: Mesh, cluster: Cluster, old: Workload, change: Change) -> Iterator[Change]:
    kind = KIND_OF[change.kind].kind
    pods = [p for p in cluster.ordered(Pod, old.namespace) if mesh.workload(cluster, p) == f"{kind} {old.name}"]
    new = change.new
    if not isinstance(new, Workload):
        yield from (_gone(cluster, p) for p in pods)
        return
    was, now = old.spec.template.metadata.labels or {}, new.spec.template.metadata.labels or {}
    # The ready ones and the older ones stay (kubernetes/kubernetes pkg/controller/controller_utils.go, ActivePodsWithRanks).
    kept = len(pods) if isinstance(old, DaemonSet) or new.wanted >= old.wanted else new.wanted
    for i, p in enumerate(sorted(pods, key=lambda p: (not p.ready, p.created, p.name))):
        if i >= kept:
            yield _gone(cluster, p)
        elif was != now:
            labels = {**{k: v for k, v in p.labels.items() if k not in was}, **now}
            yield Change(cluster.name, Pod, p.namespace, p.name, replace(p, metadata=replace(p.metadata, labels=labels)))


def _gone(cluster: Cluster, o: Resource) -> Change:
    return Change(cluster.name, type(o), o.namespace, o.name, None)


# --- endpoints -------------------------------------------------------------------------------------------------------------------


def _reached(before: Cluster, after: Cluster, said: Iterable[Change]) -> set[tuple[str, str]]:
    """The Services whose endpoints may be others now: (namespace, name)."""
    out: set[tuple[str, str]] = set()
    for c in said:
        if c.kind is Service and c.new is not None:
            out.add((c.namespace, c.name))
        elif c.kind is Pod:
            carried = [p.labels for p in (before.get(Pod, c.namespace, c.name), c.new) if isinstance(p, Pod)]
            of = after.within(Service, c.namespace).values()
            out.update((s.namespace, s.name) for s in of if any(_selects(s, labels) for labels in carried))
    return out


def _selects(service: Service, labels: Mapping[str, str]) -> bool:
    wanted = service.spec.selector
    return bool(wanted) and service.spec.type != "ExternalName" and all(labels.get(k) == v for k, v in (wanted or {}).items())


def _slices(mesh: Mesh, cluster: Cluster, after: Cluster, namespace: str, name: str, said: Mapping[_Key, Change]) -> Iterator[Change]:
    """The EndpointSlices of a Service that would change. What was wrong with them before stays: only what the change does is done."""
    old, new = cluster.get(Service, namespace, name), after.get(Service, namespace, name)
    given = any(isinstance(c.new, EndpointSlice) and (c.namespace, c.new.service) == (namespace, name) for c in said.values())
    if new is None or given or not new.spec.selector:
        return
    had = {p.name for p in cluster.ordered(Pod, namespace) if old is not None and _selects(old, p.labels)}
    have = {p.name: p for p in after.ordered(Pod, namespace) if _selects(new, p.labels) and p.status.phase not in {"Succeeded", "Failed"}}
    fresh = [p for n, p in have.items() if n not in had]
    touched = {c.name for c in said.values() if c.kind is Pod and c.namespace == namespace}
    mine = [s for s in mesh.slices(cluster, namespace, name) if s.labels.get(MANAGED_BY, _CONTROLLER) == _CONTROLLER]
    if not mine and fresh:
        labels = {SERVICE_NAME: name, MANAGED_BY: _CONTROLLER}
        families = ("IPv6", "IPv4") if any(":" in ip for ip in new.spec.cluster_ips) else ("IPv4",)
        mine = [
            EndpointSlice(metadata=Controlled(name=f"{name}-{f.lower()}", namespace=namespace, labels=labels), address_type=f)
            for f in families
        ]
    for i, s in enumerate(mine):
        joining = fresh if s.address_type not in {x.address_type for x in mine[:i]} else []
        kept = [_stands(e, new, have, touched) for e in s.endpoints or () if _target(e) in have or _target(e) not in had]
        endpoints = (*kept, *(e for p in joining if (e := _endpoint(p, new, s.address_type)) is not None))
        made = replace(s, endpoints=endpoints, ports=tuple(_ports(s, old, new, have.values())))
        if endpoints != (s.endpoints or ()) or made.ports != (s.ports or ()):
            yield Change(cluster.name, EndpointSlice, s.namespace, s.name, made)


def _target(e: SliceEndpoint) -> str:
    return e.target_ref.name if e.target_ref is not None and e.target_ref.kind == "Pod" else ""


def _stands(e: SliceEndpoint, service: Service, have: Mapping[str, Pod], touched: set[str]) -> SliceEndpoint:
    """An endpoint as its pod is now, where that changes."""
    pod = have.get(_target(e))
    return replace(e, conditions=_conditions(pod, service)) if pod is not None and pod.name in touched else e


def _conditions(pod: Pod, service: Service) -> EndpointConditions:
    going = bool(pod.metadata.deletion_timestamp)
    return EndpointConditions(
        ready=service.spec.publish_not_ready_addresses or (pod.ready and not going), serving=pod.ready, terminating=going
    )


def _endpoint(pod: Pod, service: Service, family: str) -> SliceEndpoint | None:
    """A pod as an endpoint; None while it has no address of the slice's family."""
    known = [pod.status.pod_ip, *(ip.ip for ip in pod.status.pod_ips or ())]
    address = next((a for a in known if a and (":" in a) == (family == "IPv6")), None)
    if address is None:
        return None
    aim = ObjectReference(kind="Pod", name=pod.name, namespace=pod.namespace)
    return SliceEndpoint((address,), _conditions(pod, service), pod.spec.node_name or None, None, None, aim)


def _ports(s: EndpointSlice, old: Service | None, new: Service, pods: Iterable[Pod]) -> Iterator[SlicePort]:
    """The ports of a slice: those of Service ports that stay as they are, and for the others what their targetPort is in the pods."""
    was = {p.name: p.target_port or p.port for p in old.spec.ports} if old is not None else {}
    if old is not None and was == {p.name: p.target_port or p.port for p in new.spec.ports} and (s.ports or s.endpoints):
        yield from s.ports or ()
        return
    have = {p.name or "": p for p in s.ports or ()}
    for port in new.spec.ports:
        target = port.target_port or port.port
        if port.name in have and was.get(port.name) == target:
            yield have[port.name]
            continue
        number = target if isinstance(target, int) else next((n for p in pods for n in [p.declared.get(target)] if n), None)
        if number is not None:
            yield SlicePort(port.name, number, port.protocol)
