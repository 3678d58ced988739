"""waypoint-ref-invalid (MESH923)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.attachment import USE, WAYPOINT_FOR, attach_pod
from checks.case import Case, short
from checks.finding import Finding, check
from checks.names import nearest
from checks.resources import APIGateway, Namespace, Pod, Service
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.attachment import Attachment
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import Resource


@check("waypoint-ref-invalid", when=through_ztunnel)
def waypoint_ref_invalid(case: Case) -> Iterator[Finding]:
    """Label istio.io/use-waypoint names a waypoint that does not serve the service.

    There is no Gateway of that name, it lies in a namespace that does not let this one in (allowedRoutes), or it is for workloads only
    (istio.io/waypoint-for), or, where a pod has the label, for services only. Nothing fails: calls go without a waypoint, so the routes and policies that people rely on are not applied.

    How to see it: the Service's status has condition istio.io/WaypointBound False, with the reason.

    How to fix it: correct the label, or let the namespace in at the waypoint's listener.
    """
    for cluster, istiod, service in ambient.services(case):
        callers = ambient.served(case, service, istiod)
        for found in _asking(case, cluster, istiod, service) if callers else ():
            if found.refused is not None and found.labelled is not None and (why := _why(cluster, found)):
                yield _finding(case, cluster, service, callers, (found, found.labelled, why))


def _asking(case: Case, cluster: Cluster, istiod: Istiod, service: HostService) -> Iterator[Attachment]:
    """What the labels of the service come to, and those of pods behind it, one of each workload."""
    own = ambient.attachment(istiod, service)
    if own is not None:
        yield own
    told: set[str] = set()
    for c, pod in ambient.backends(case, service):
        if c is cluster and USE in pod.labels and (owner := case.mesh.workload(c, pod)) not in told:
            told.add(owner)
            yield attach_pod(istiod, pod)


def _finding(
    case: Case, cluster: Cluster, service: HostService, callers: tuple[Viewpoint, ...], fault: tuple[Attachment, Resource, str]
) -> Finding:
    found, labelled, why = fault
    namespace, _, name = found.wanted.partition("/")
    pod = isinstance(labelled, Pod)
    kind, _, own = case.mesh.workload(cluster, labelled).partition(" ") if isinstance(labelled, Pod) else ("", "", "")
    ref = f"{kind} {labelled.namespace}/{own}" if pod else labelled.ref
    what, _, where = ref.partition(" ")
    within, _, named = where.rpartition("/")
    known = [g.name for g in cluster.ordered(APIGateway, namespace) if "waypoint" in g.spec.gateway_class_name]
    near = nearest(name, known, 1) or tuple(known[:1])
    return case.finding(
        "waypoint-ref-invalid",
        cluster=cluster.name,
        resource=ref,
        path=f"{'spec.template.' if pod and kind != 'Pod' else ''}metadata.labels[{USE}]",
        message=f"Calls of {f'the pods of {ref}' if pod else short(service.hostname)} go without a waypoint, so its routes and policies do not apply: {why}.",
        share=0.0,
        viewpoints=callers,
        evidence=(
            f"{ref}: label {USE}={labelled.labels.get(USE, '')}",
            *((f"waypoints of namespace {namespace}: {', '.join(known)}",) if known else (f"namespace {namespace} has no waypoint",)),
        ),
        fix=f"Correct label {USE} of {ref}{f' (did you mean {near[0]}?)' if near and near[0] != name else ''}, or {'create' if why.startswith('there is no') else 'change'} Gateway {found.wanted} so that it serves {short(service.hostname)}.",
        patch=_patch(case, cluster, found, near[0]) if near and near[0] != name else None,
        commands=(
            f"kubectl{f' -n {within}' if within else ''} get {what.lower()} {named} -o yaml",
            f"istioctl waypoint list -n {namespace}",
        ),
    )


def _why(cluster: Cluster, found: Attachment) -> str:
    namespace, _, name = found.wanted.partition("/")
    gateway = cluster.get(APIGateway, namespace, name)
    if gateway is None:
        return f"there is no Gateway {found.wanted}"
    if found.refused == "namespace not allowed":
        return f"Gateway {found.wanted} does not let their namespace in (allowedRoutes)"
    if found.refused == "private":
        return f"the mesh's serviceEntryVisibility keeps it in its own namespace, and Gateway {found.wanted} is in another"
    # a namespace's label may well mean its workloads alone
    if found.refused == "traffic type" and not isinstance(found.labelled, Namespace):
        meant = "workloads" if isinstance(found.labelled, Pod) else "services"
        return f"Gateway {found.wanted} is for {gateway.labels.get(WAYPOINT_FOR, 'other traffic')} ({WAYPOINT_FOR}), not for {meant}"
    return ""


def _patch(case: Case, cluster: Cluster, found: Attachment, name: str) -> str | None:
    """The waypoint's name spelt as its Gateway is called."""
    service = found.labelled
    return case.patch(cluster.name, service, (("metadata", "labels", USE), name)) if isinstance(service, Service) else None
