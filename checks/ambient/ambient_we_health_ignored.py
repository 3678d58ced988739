"""ambient-we-health-ignored (MESH928)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.case import Case, short
from checks.finding import Finding, check
from checks.registry import is_healthy
from checks.resources import WorkloadEntry
from checks.subsets import percent
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.registry import HostService


@check("ambient-we-health-ignored", when=through_ztunnel)
def ambient_we_health_ignored(case: Case) -> Iterator[Finding]:
    """A WorkloadEntry whose health check fails still gets connections from ztunnel.

    A sidecar is not given an unhealthy WorkloadEntry. istiod tells ztunnel that every WorkloadEntry is healthy, whatever its condition says, so
    callers of the ambient mesh are sent to the failed machine for its part of the connections.

    How to see it: `kubectl get workloadentry -o yaml` has condition Healthy False; `istioctl ztunnel-config workload` shows it Healthy.

    How to fix it: delete the WorkloadEntry until the machine is well, or put a waypoint before the service.
    """
    if case.caused("we-unhealthy"):
        return
    for cluster, istiod, service in ambient.services(case):
        callers = ambient.calling(case, service, cluster)
        attached = ambient.attachment(istiod, service)
        if not callers or not service.selector or (attached is not None and attached.waypoints):
            continue
        ill = _ill(cluster, service)
        if not ill:
            continue
        well = {e.address for e in case.endpoints(istiod, service) if e.health == "healthy" and e.cluster == case.mesh.cluster_id(cluster)}
        share = round(len(ill) / (len(ill) + len(well - {w.spec.address for w in ill})), 6)
        yield case.finding(
            "ambient-we-health-ignored",
            cluster=cluster.name,
            resource=ill[0].ref,
            path="status.conditions",
            message=f"{percent(share)} of the connections to {short(case.host)} from the ambient mesh go to machines whose health check fails: ztunnel is not told of it.",
            share=share,
            viewpoints=callers,
            evidence=tuple(f"{w.ref} at {w.spec.address}: {_said(w)}" for w in ill[:5]),
            fix=f"Delete {' and '.join(w.ref for w in ill)} until the machine is well, or give {short(case.host)} a waypoint, which leaves unhealthy endpoints out.",
            commands=(
                f"kubectl -n {service.namespace} get workloadentries -o yaml",
                f"istioctl ztunnel-config workload --workload-namespace {service.namespace}",
            ),
        )


def _ill(cluster: Cluster, service: HostService) -> list[WorkloadEntry]:
    """The WorkloadEntries that a service selects and whose health check does not say that they are well."""
    return [
        w
        for w in cluster.ordered(WorkloadEntry, service.namespace)
        if w.spec.address
        and not is_healthy(w)
        and all({**(w.spec.labels or {}), **w.labels}.get(k) == v for k, v in (service.selector or {}).items())
    ]


def _said(entry: WorkloadEntry) -> str:
    for c in entry.status.conditions or ():
        if c.type == "Healthy":
            return f"condition Healthy is {c.status}{f': {c.message or c.reason}' if c.message or c.reason else ''}"
    return "its health check has not been heard of"
