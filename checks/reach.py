"""Which hosts a change of configuration can mean anything to: what is looked at again to see that a patch breaks nothing else.

More hosts than needed cost time, one too few a promise: the suite holds every answer against a sweep of everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.binding import gates
from checks.legs import leads_out
from checks.resources import (
    APIRoute,
    AuthorizationPolicy,
    BackendTLSPolicy,
    DestinationRule,
    EndpointSlice,
    Gateway,
    PeerAuthentication,
    Pod,
    ReferenceGrant,
    RequestAuthentication,
    Resource,
    Service,
    ServiceEntry,
    Sidecar,
    VirtualService,
    Workload,
)
from checks.viewpoints import callers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from checks.istiod import Istiod
    from checks.mesh import Change, Mesh


def reach(before: Mesh, after: Mesh, changes: Iterable[Change], everything: Callable[[Mesh], Iterable[str]]) -> set[str]:
    """The hosts that some changes between two meshes can reach; `everything` where callers themselves change, or the kind means everybody."""
    planes = list(dict.fromkeys(m.istiod(c.name) for m in (before, after) for c in m.clusters))
    near: set[str] = set()
    for c in changes:
        old = before.cluster(c.cluster).get(c.kind, c.namespace, c.name)
        if isinstance(old, Service) and isinstance(c.new, Service) and _heard(old) == _heard(c.new):
            near.add(names.service_host(old.name, old.namespace))
            continue
        for o in (old, c.new):
            if o is not None:
                found = _of(o, planes, before, after)
                if found is None:
                    return {*everything(before), *everything(after)}
                near.update(h.lower() for h in found)
    if callers(before) != callers(after):
        return {*everything(before), *everything(after)}
    wild = [h for h in near if names.is_wildcard(h)]
    known = {*everything(before), *everything(after)}
    near.update(h for h in known if any(names.matches(w, h) for w in wild))
    near.update(h for i in planes for (h, _), through in i.entered.items() if not near.isdisjoint(through))
    for _ in range(2):  # a rule, and one that leads to its gateway
        near.update(h for i in planes for n in tuple(near) for h in i.leading(n))
    return near & known


def weighed(mesh: Mesh, changed: Iterable[str], everything: Collection[str]) -> set[str]:
    """The hosts that have rules of VirtualServices (by ref) whose weights are others, or are led to them, by a rule or through gateways; in lower case."""
    refs = set(changed)
    planes = mesh.every_plane()
    near: set[str] = set()
    for r in (r for i in planes for r in i.rulesets if r.ref in refs or any(rule.leaf in refs for rule in r.http)):
        near.update(h.lower() for h in (*r.hosts, *r.leads))
        if r.gateways != ("mesh",):
            near.update(p.service for gate in gates(mesh) for p in gate.ports)
    fresh = set(near)
    while fresh:  # who leads there, and who is meant by a wildcard of theirs
        wild = [h for h in fresh if names.is_wildcard(h)]
        fresh = {h.lower() for i in planes for n in fresh for h in i.leading(n)}
        fresh.update(h for h in everything if any(names.matches(w, h) for w in wild))
        fresh -= near
        near |= fresh
    return near


def about(change: Change, before: Mesh, after: Mesh) -> set[str] | None:
    """The hosts that the object of one change says something about, on either side of it; None: everybody's."""
    planes = list(dict.fromkeys(m.istiod(c.name) for m in (before, after) for c in m.clusters))
    near: set[str] = set()
    for o in (before.cluster(change.cluster).get(change.kind, change.namespace, change.name), change.new):
        if isinstance(o, Workload) and o.spec.workload_ref is None:  # else its pods' labels are another's to say
            carried = o.spec.template.metadata.labels or {}
            near.update(
                s.hostname
                for i in planes
                for s in i.of_namespace(o.namespace)
                if s.selector and all(carried.get(k) == v for k, v in s.selector.items())
            )
        elif o is not None:
            found = _of(o, planes, before, after)
            if found is None:
                return None
            near.update(h.lower() for h in found)
    return near


def outward(mesh: Mesh) -> set[str]:
    """The hosts whose calls may go on into another mesh."""
    if not leads_out(mesh):
        return set()
    entries = {h.lower() for c in mesh.clusters for e in c.all(ServiceEntry) for h in e.spec.hosts or ()}
    planes = dict.fromkeys(mesh.istiod(c.name) for c in mesh.clusters)
    return entries | {h for i in planes for e in entries for h in i.leading(e)}


def _of(o: Resource, planes: list[Istiod], before: Mesh, after: Mesh) -> Iterable[str] | None:
    """The hosts that an object says something about; None: everybody's."""
    match o:
        case VirtualService() | APIRoute():
            return _ruled(o, planes, (before, after))
        case DestinationRule():
            return [names.fqdn(o.spec.host, o.namespace)]
        case Service():
            host = names.service_host(o.name, o.namespace)
            entered = any(p.service == host for m in (before, after) for gate in gates(m) for p in gate.ports)
            return _listening({host}, planes) | (_at_gateways(planes) if entered else set())
        case ServiceEntry():
            return _listening(set(o.spec.hosts or ()), planes)
        case EndpointSlice():
            return [names.service_host(o.service, o.namespace)]
        case Pod() | Workload():
            return {s.hostname for i in planes for s in i.services if s.namespace == o.namespace}
        case Gateway() | ReferenceGrant():
            return _at_gateways(planes)
        case BackendTLSPolicy():
            targets = {t.name for t in o.spec.target_refs or ()}
            known = (e for m in (before, after) for c in m.clusters for e in c.within(ServiceEntry, o.namespace).values())
            behind = {h for e in known if e.name in targets for h in e.spec.hosts or ()}
            return behind.union(names.service_host(n, o.namespace) for n in targets)
        case PeerAuthentication() | AuthorizationPolicy() | RequestAuthentication():
            roots = {i.config.root_namespace for i in planes}
            return {s.hostname for i in planes for s in i.services if s.namespace == o.namespace or o.namespace in roots}
        case Sidecar():
            return _scoped(o, planes, before, after)
    return None


def _at_gateways(planes: list[Istiod]) -> set[str]:
    """The hosts that gateways have rules for, and where these lead."""
    return {h for i in planes for r in i.rulesets if r.gateways != ("mesh",) for h in (*r.hosts, *r.leads)}


def _ruled(o: Resource, planes: list[Istiod], meshes: tuple[Mesh, ...]) -> set[str]:
    """The hosts of the rules that an object holds or is a delegate of, and where they lead; of a gateway's, also who is led to that gateway."""
    out: set[str] = set()
    for r in (r for i in planes for r in i.rulesets):
        if r.ref == o.ref or any(rule.leaf == o.ref for rule in r.http):
            out.update((*r.hosts, *r.leads))
            if r.gateways != ("mesh",):
                out.update(p.service for m in meshes for gate in gates(m) for p in gate.ports)
    if isinstance(o, VirtualService):
        out.update(names.fqdn(h, o.namespace) for h in o.spec.hosts or ())
    return out


def _heard(s: Service) -> object:
    """What of a Service other hosts can feel: on which addresses and ports, and in whose listeners it is."""
    return s.spec.type, s.spec.cluster_ip, s.spec.cluster_ips, s.spec.external_name, s.spec.ports, s.annotations


def _listening(hosts: set[str], planes: list[Istiod]) -> set[str]:
    """Some hosts, those that share a TCP listener's port with them, and those whose name is theirs in another way."""
    services = [s for i in planes for s in i.services]
    ports = {p.number for s in services if s.hostname in hosts for p in s.ports if not p.http}
    out = hosts | {s.hostname for s in services if any(p.number in ports and not p.http for p in s.ports)}
    return out | {s.hostname for s in services if s.external_name in hosts or any(h in s.aliases for h in hosts)}


def _scoped(o: Sidecar, planes: list[Istiod], before: Mesh, after: Mesh) -> set[str]:
    """The hosts that callers of a Sidecar see on one side only, or by other rules."""
    out: set[str] = set()
    roots = {i.config.root_namespace for i in planes}
    for a, b in zip(callers(before), callers(after), strict=False):
        if a.viewpoint.namespace != o.namespace and o.namespace not in roots:
            continue
        seen = [(m.istiod(m.cluster(c.proxy.cluster).name, c.proxy.revision).scope(c.proxy)) for m, c in ((before, a), (after, b))]
        was, now = ({h: (s.namespace, s.ports) for h, s in scope.services.items()} for scope in seen)
        out.update(h for h in was.keys() | now.keys() if was.get(h) != now.get(h))
        rules = [{r.ref for listener in scope.listeners for r in listener.rulesets} for scope in seen]
        out.update(h for i in planes for r in i.rulesets if r.ref in rules[0] ^ rules[1] for h in (*r.hosts, *r.leads))
        if seen[0].allow_any != seen[1].allow_any:
            out.update(s.hostname for i in planes for s in i.services)
    return out
