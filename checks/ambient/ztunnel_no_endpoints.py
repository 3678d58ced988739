"""ztunnel-no-endpoints (MESH921)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.attachment import MANAGED
from checks.case import Case, short, waits
from checks.finding import Finding, check
from checks.resources import Pod, Service
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.registry import HostService


@check("ztunnel-no-endpoints", when=through_ztunnel)
def ztunnel_no_endpoints(case: Case) -> Iterator[Finding]:
    """A service that ztunnel knows has no healthy workload.

    For a pod of the ambient mesh ztunnel chooses a ready pod that the Service selects in the same cluster. With none, it refuses the
    connection: its log says "no healthy upstream", and the caller sees a reset. Callers with a sidecar fail as well, and are told the cause.

    How to see it: `istioctl ztunnel-config service` shows 0 of N endpoints.

    How to fix it: make the pods ready, scale the workload up, or mend the Service's selector.
    """
    if ambient.explained(case):
        return
    for cluster, istiod, service in ambient.services(case):
        own = cluster.get(Service, service.namespace, service.name) if service.kubernetes else None
        # a waypoint's own Service is no destination: what it serves is told of it
        if own is None or MANAGED in own.labels or not own.spec.selector or own.spec.publish_not_ready_addresses or not own.spec.ports:
            continue
        callers = ambient.calling(case, service, cluster)
        attached = ambient.attachment(istiod, service)
        case.mesh.require(cluster, Pod)
        pods = [p for c, p in case.pods(service) if c is cluster]
        if not callers or (attached is not None and attached.waypoints) or any(map(ambient.serves, pods)):
            continue
        if _elsewhere(case, cluster, service):
            continue
        yield _finding(case, cluster, service, pods, callers=callers)


def _elsewhere(case: Case, cluster: Cluster, service: HostService) -> bool:
    """Whether another cluster has a ready pod, or a VM stands in: that is another cause, or none."""
    others = any(c is not cluster and ambient.serves(p) for c, p in case.pods(service))
    return others or any(e.health == "healthy" and not e.workload for e in case.endpoints(case.mesh.istiod(cluster.name), service))


def _finding(case: Case, cluster: Cluster, service: HostService, pods: list[Pod], *, callers: tuple[object, ...]) -> Finding:
    owners = [w for c, w in case.owners(service) if c is cluster]
    off = bool(owners) and all(w.wanted == 0 for w in owners)
    what = (
        f"{owners[0].ref} stands at 0 replicas"
        if off
        else f"none of its {len(pods)} pods is ready"
        if len(pods) > 1
        else "its only pod is not ready"
        if pods
        else "it selects no pod"
    )
    wanted = ",".join(f"{k}={v}" for k, v in (service.selector or {}).items())
    return case.finding(
        "ztunnel-no-endpoints",
        cluster=cluster.name,
        resource=owners[0].ref if off else service.sources[0][1],
        path="spec.replicas" if off else "" if pods else "spec.selector",
        message=f"Every call of {short(service.hostname)} from the ambient mesh fails: {what}, so ztunnel has nobody to send to.",
        share=1.0,
        viewpoints=callers,  # type: ignore[arg-type]
        evidence=(
            f"{service.sources[0][1]} selects {wanted}",
            *(f"{p.ref}: {'terminating' if p.metadata.deletion_timestamp else waits(p)}" for p in pods[:5]),
            *(f"{w.ref} wants {w.wanted}, {w.ready} ready" for w in owners),
        ),
        fix=f"Scale {owners[0].ref} up."
        if off
        else f"Make the pods of {short(service.hostname)} ready."
        if pods
        else "Make the selector and the labels of the pods agree.",
        commands=(
            f"istioctl ztunnel-config service --service-namespace {service.namespace}",
            f"kubectl -n {service.namespace} get pods -l '{wanted}'",
        ),
    )
