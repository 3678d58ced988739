"""waypoint-not-ready (MESH922)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.attachment import HBONE_PORT, INGRESS, MANAGED, bound_to
from checks.case import Case, short, waits
from checks.finding import Finding, check, explained
from checks.names import service_host
from checks.resources import APIGateway, GatewayClass, Pod
from checks.when import through_ztunnel

_INGRESS = f"label {INGRESS}: gateways go through the waypoint too"

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.attachment import Attachment
    from checks.case import Branch
    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import Service


@check("waypoint-not-ready", when=(through_ztunnel, explained))
def waypoint_not_ready(case: Case) -> Iterator[Finding]:
    """The waypoint that a service uses has no ready pod, no way in, or no address yet.

    With an address and no ready pod, ztunnel sends every call there, and it fails: ztunnel's log says "no healthy upstream" of the waypoint. So
    does a gateway where the service is labelled istio.io/ingress-use-waypoint: it answers 503 (flag UH). Both look for port 15008 of the waypoint's
    Service: without it the same comes of it. A waypoint whose Gateway has no address yet is passed by: nothing fails, and its routes and policies do not apply.

    How to see it: `istioctl waypoint status`; the Service's status has condition istio.io/WaypointBound.

    How to fix it: bring the waypoint's pods up, give its Gateway a listener of protocol HBONE on port 15008, or take label istio.io/use-waypoint away.
    """
    entering = _entering(case)
    for cluster, istiod, service in ambient.services(case):
        found = ambient.attachment(istiod, service)
        callers = ambient.served(case, service, istiod)
        if found is None or not callers:
            continue
        namespace, _, name = found.wanted.partition("/")
        gateway = cluster.get(APIGateway, namespace, name)
        if gateway is None:
            continue
        if found.refused == "not ready":
            yield _passed_by(case, cluster, service, found, gateway, callers)
        elif found.refused is None:
            beside = entering.pop((istiod.cluster, service.hostname), [])
            callers = (*callers, *(v for b in beside for v in b.view.callers.viewpoints if v not in callers))
            yield from _down(case, cluster, service, found, gateway, callers)
    for branches in entering.values():
        istiod, entered = branches[0].view.ups.istiod, branches[0].upstream.service
        found = ambient.attachment(istiod, entered) if entered is not None else None
        if entered is None or found is None:
            continue
        at = tuple(dict.fromkeys(v for b in branches for v in b.view.callers.viewpoints))
        cluster = case.mesh.cluster(istiod.cluster)
        yield from _down(case, cluster, entered, found, found.waypoints[0], at, max(b.share for b in branches))


def _entering(case: Case) -> dict[tuple[str, str], list[Branch]]:
    """What gateways lead through a waypoint that has nobody, by control plane and host."""
    out: dict[tuple[str, str], list[Branch]] = {}
    for branches in case.caused("waypoint-not-ready"):
        for b in branches:
            out.setdefault((b.view.ups.istiod.cluster, b.upstream.host), []).append(b)
    return out


def _passed_by(
    case: Case, cluster: Cluster, service: HostService, found: Attachment, gateway: APIGateway, callers: tuple[Viewpoint, ...]
) -> Finding:
    said = [f"condition {c.type} is {c.status}: {c.message or c.reason}" for c in gateway.status.conditions or () if c.status != "True"]
    return case.finding(
        "waypoint-not-ready",
        cluster=cluster.name,
        resource=gateway.ref,
        path="status.addresses",
        message=f"Calls of {short(service.hostname)} pass waypoint {found.wanted} by, without its routes and policies: the waypoint has no address.",
        share=0.0,
        viewpoints=callers,
        evidence=(_labelled(found), f"{gateway.ref}: status.addresses is empty", *said),
        fix=f"Bring up the Deployment and the Service of {gateway.ref}, so that istiod gives it an address.",
        commands=(
            f"istioctl waypoint status {gateway.name} -n {gateway.namespace}",
            f"kubectl -n {gateway.namespace} describe gateways.gateway.networking.k8s.io {gateway.name}",
        ),
    )


def _down(
    case: Case,
    cluster: Cluster,
    service: HostService,
    found: Attachment,
    gateway: APIGateway,
    callers: tuple[Viewpoint, ...],
    share: float = 1.0,
) -> Iterator[Finding]:
    behind = ambient.waypoint_service(cluster, gateway)
    if behind is None or not behind.spec.selector:
        yield from _unlisted(case, cluster, service, found, gateway, behind, callers, share)
        return
    case.also.add((service_host(behind.name, behind.namespace), behind.namespace))
    case.mesh.require(cluster, Pod)
    pods = [p for p in cluster.ordered(Pod, behind.namespace) if all(p.labels.get(k) == v for k, v in (behind.spec.selector or {}).items())]
    if any(map(ambient.serves, pods)):
        if any(p.port == HBONE_PORT for p in behind.spec.ports):
            yield from _unlisted(case, cluster, service, found, gateway, behind, callers, share)
        else:
            yield from _closed(case, cluster, service, found, gateway, behind, callers, share)
        return
    owners = [
        w
        for c, w in case.mesh.workloads(behind.namespace)
        if c is cluster and all((w.spec.template.metadata.labels or {}).get(k) == v for k, v in behind.spec.selector.items())
    ]
    yield case.finding(
        "waypoint-not-ready",
        cluster=cluster.name,
        resource=owners[0].ref if owners else gateway.ref,
        path="status.readyReplicas" if owners else "",
        message=f"Every call of {short(service.hostname)} {_whence(callers)} fails: it goes through waypoint {found.wanted}, which has no ready pod.",
        share=share,
        viewpoints=callers,
        evidence=(
            _labelled(found),
            *((_INGRESS,) if any(v.kind == "gateway" for v in callers) else ()),
            *(f"{w.ref} wants {w.wanted}, {w.ready} ready" for w in owners),
            *(f"{p.ref}: {'terminating' if p.metadata.deletion_timestamp else waits(p)}" for p in pods[:5]),
            *(() if pods else (f"no pod is behind {behind.ref}",)),
        ),
        fix=f"Bring up the pods of waypoint {found.wanted}, or take label istio.io/use-waypoint off {found.labelled.ref if found.labelled else 'the Service'}.",
        commands=(
            f"istioctl waypoint status {gateway.name} -n {gateway.namespace}",
            f"kubectl -n {behind.namespace} get pods -l gateway.networking.k8s.io/gateway-name={gateway.name}",
        ),
    )


def _closed(
    case: Case,
    cluster: Cluster,
    service: HostService,
    found: Attachment,
    gateway: APIGateway,
    behind: Service,
    callers: tuple[Viewpoint, ...],
    share: float,
) -> Iterator[Finding]:
    """A waypoint without the port by which it is entered: gateways find no endpoint of it (EndpointBuilder.waypointEndpoints), ztunnel only where it is bound to another port."""
    classes = {c.name: c for c in cluster.all(GatewayClass)}
    bound = bound_to(gateway, classes) is not None
    lost = tuple(v for v in callers if v.kind == "gateway" or not bound)
    if not lost:
        return
    managed = MANAGED in behind.labels
    yield case.finding(
        "waypoint-not-ready",
        cluster=cluster.name,
        resource=gateway.ref if managed else behind.ref,
        path="spec.listeners" if managed else "spec.ports",
        message=f"Every call of {short(service.hostname)} {_whence(lost)} fails: it goes through waypoint {found.wanted}, whose Service has no port {HBONE_PORT}.",
        share=share,
        viewpoints=lost,
        evidence=(
            _labelled(found),
            *((_INGRESS,) if any(v.kind == "gateway" for v in lost) else ()),
            f"{behind.ref} has {'ports ' + ', '.join(str(p.port) for p in behind.spec.ports) if behind.spec.ports else 'no ports'}",
            *((f"{gateway.ref} listens on {', '.join(f'{li.port} ({li.protocol})' for li in gateway.spec.listeners)}",) if managed else ()),
        ),
        fix=f"Give {gateway.ref} a listener of protocol HBONE on port {HBONE_PORT}: istiod makes the Service's ports of its listeners."
        if managed
        else f"Add port {HBONE_PORT} to {behind.ref}.",
        commands=(
            f"istioctl waypoint status {gateway.name} -n {gateway.namespace}",
            f"kubectl -n {behind.namespace} get service {behind.name} -o yaml",
        ),
    )


def _unlisted(
    case: Case,
    cluster: Cluster,
    service: HostService,
    found: Attachment,
    gateway: APIGateway,
    behind: Service | None,
    callers: tuple[Viewpoint, ...],
    share: float,
) -> Iterator[Finding]:
    """A waypoint without a Service, or whose ready pods no EndpointSlice lists: gateways find it by the Service's endpoints, ztunnel by its pods."""
    lost = tuple(v for v in callers if v.kind == "gateway")
    if not lost:
        return
    why = f"of which no EndpointSlice lists a ready pod under port {HBONE_PORT}"
    seen = f"no EndpointSlice with the label of its Service lists a ready pod under the name of port {HBONE_PORT}"
    fix = f"Find out why Kubernetes makes no EndpointSlice for the Service of {gateway.ref} (kube-controller-manager), or label the one that is meant for it."
    if behind is None:
        why, seen = "which has no Service", f"no Service is behind {gateway.ref}"
        fix = f"Find out why istiod makes no Service for {gateway.ref}."
    yield case.finding(
        "waypoint-not-ready",
        cluster=cluster.name,
        resource=gateway.ref if behind is None else behind.ref,
        path="",
        message=f"Every call of {short(service.hostname)} {_whence(lost)} fails: it goes through waypoint {found.wanted}, {why}.",
        share=share,
        viewpoints=lost,
        evidence=(_labelled(found), _INGRESS, seen),
        fix=fix,
        commands=(f"kubectl -n {gateway.namespace} get services,endpointslices -l gateway.networking.k8s.io/gateway-name={gateway.name}",),
    )


def _whence(callers: tuple[Viewpoint, ...]) -> str:
    gateways = [v.kind == "gateway" for v in callers]
    return "from gateways" if all(gateways) else "from the ambient mesh and from gateways" if any(gateways) else "from the ambient mesh"


def _labelled(found: Attachment) -> str:
    return f"{found.labelled.ref if found.labelled else 'a label'} asks for waypoint {found.wanted} (label istio.io/use-waypoint)"
