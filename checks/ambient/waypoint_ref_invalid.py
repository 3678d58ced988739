"""waypoint-ref-invalid (MESH923)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.attachment import USE, WAYPOINT_FOR
from checks.case import Case, short
from checks.finding import Finding, check
from checks.names import nearest
from checks.resources import APIGateway, Namespace, Service
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.attachment import Attachment
    from checks.mesh import Cluster


@check("waypoint-ref-invalid", when=through_ztunnel)
def waypoint_ref_invalid(case: Case) -> Iterator[Finding]:
    """Label istio.io/use-waypoint names a waypoint that does not serve the service.

    There is no Gateway of that name, it lies in a namespace that does not let this one in (allowedRoutes), or it is for workloads only
    (istio.io/waypoint-for). Nothing fails: calls go without a waypoint, so the routes and policies that people rely on are not applied.

    How to see it: the Service's status has condition istio.io/WaypointBound False, with the reason.

    How to fix it: correct the label, or let the namespace in at the waypoint's listener.
    """
    for cluster, istiod, service in ambient.services(case):
        found = ambient.attachment(istiod, service)
        callers = ambient.served(case, service, istiod)
        if found is None or found.refused is None or found.labelled is None or not callers:
            continue
        why = _why(cluster, found)
        if not why:
            continue
        namespace, _, name = found.wanted.partition("/")
        known = [g.name for g in cluster.ordered(APIGateway, namespace) if "waypoint" in g.spec.gateway_class_name]
        near = nearest(name, known, 1) or tuple(known[:1])
        yield case.finding(
            "waypoint-ref-invalid",
            cluster=cluster.name,
            resource=found.labelled.ref,
            path=f"metadata.labels[{USE}]",
            message=f"Calls of {short(service.hostname)} go without a waypoint, so its routes and policies do not apply: {why}.",
            share=0.0,
            viewpoints=callers,
            evidence=(
                f"{found.labelled.ref}: label {USE}={found.labelled.labels.get(USE, '')}",
                *((f"waypoints of namespace {namespace}: {', '.join(known)}",) if known else (f"namespace {namespace} has no waypoint",)),
            ),
            fix=f"Correct label {USE} of {found.labelled.ref}{f' (did you mean {near[0]}?)' if near and near[0] != name else ''}, or change Gateway {found.wanted} so that it serves {short(service.hostname)}.",
            patch=_patch(case, cluster, found, near[0]) if near and near[0] != name else None,
            commands=(f"kubectl -n {service.namespace} get service {service.name} -o yaml", f"istioctl waypoint list -n {namespace}"),
        )


def _why(cluster: Cluster, found: Attachment) -> str:
    namespace, _, name = found.wanted.partition("/")
    gateway = cluster.get(APIGateway, namespace, name)
    if gateway is None:
        return f"there is no Gateway {found.wanted}"
    if found.refused == "namespace not allowed":
        return f"Gateway {found.wanted} does not let their namespace in (allowedRoutes)"
    # a namespace's label may well mean its workloads alone
    if found.refused == "traffic type" and not isinstance(found.labelled, Namespace):
        return f"Gateway {found.wanted} is for {gateway.labels.get(WAYPOINT_FOR, 'other traffic')} ({WAYPOINT_FOR}), not for services"
    return ""


def _patch(case: Case, cluster: Cluster, found: Attachment, name: str) -> str | None:
    """The waypoint's name spelt as its Gateway is called."""
    service = found.labelled
    return case.patch(cluster.name, service, (("metadata", "labels", USE), name)) if isinstance(service, Service) else None
