"""ambient-scope-local (MESH929)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.case import Case, short
from checks.finding import Finding, check, explained, explains
from checks.planes import NEWEST
from checks.resources import Namespace, Pod, Service
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService

_SWITCH = "AMBIENT_ENABLE_MULTI_NETWORK"


@explains("ambient-scope-local")
def _explains(_: Case, branch: Branch) -> bool:
    return branch.upstream.defined and any(r == "scope-local" and e.health == "healthy" for e, r in branch.view.ups.reach(branch.upstream))


@check("ambient-scope-local", when=(through_ztunnel, explained))
def ambient_scope_local(case: Case) -> Iterator[Finding]:
    """The ready pods of a service are in another cluster, which the caller's ambient mesh does not reach.

    Where istiod's ambient mesh spans networks (`AMBIENT_ENABLE_MULTI_NETWORK`), a Service is local unless meshConfig.serviceScopeConfigs makes it
    global, by default with label `istio.io/global: "true"` on the Service, in each cluster: every caller, with a sidecar too, is sent to
    pods of its own cluster alone, and with none there it fails. Without that switch ztunnel knows no pod of another cluster at all; callers with
    a sidecar reach them.

    How to see it: `istioctl ztunnel-config service` shows no endpoint of the other cluster.

    How to fix it: label the Service with istio.io/global=true in every cluster; without the switch, deploy the pods where they are called.
    """
    for cluster, istiod, service, beside in _asked(case):
        here = cluster.get(Service, service.namespace, service.name) if service.kubernetes else None
        calling = ambient.calling(case, service, cluster) if service.hostname == case.host else ()
        spans = istiod.plane.multi_network
        if here is None or not (calling or beside) or not (spans or _alone(case, istiod, service)):
            continue
        pods = case.pods(service)
        if any(c is cluster and ambient.serves(p) for c, p in pods):
            continue
        there = {c.name: c for c, p in pods if c is not cluster and ambient.serves(p)}
        known = [(c, s) for c in (cluster, *there.values()) if (s := c.get(Service, service.namespace, service.name)) is not None]
        local = [(c, s) for c, s in known if not _global(case, cluster, c, s)] if spans else known[:1]
        if not there or not local:
            continue
        case.mesh.require(cluster, Pod)
        by = tuple(dict.fromkeys((*calling, *case.viewpoints(beside))))
        evidence = (
            *(f"{s.ref} in {c.name} is local: no entry of serviceScopeConfigs makes it global" for c, s in local if spans),
            *(f"{sum(x is c and ambient.serves(p) for x, p in pods)} ready pods in {c.name}" for c in (cluster, *there.values())),
        )
        yield case.finding(
            "ambient-scope-local",
            cluster=local[0][0].name,
            resource=local[0][1].ref,
            path="metadata.labels[istio.io/global]" if spans else "",
            message=(
                f"Every call of {short(service.hostname)} {'from the ambient mesh of' if calling else 'from'} {cluster.name} fails: its ready pods are in "
                f"{', '.join(sorted(there))}, and {'the Service is not global' if spans else 'this ambient mesh does not reach into other clusters'}."
            ),
            share=1.0 if calling else case.share(beside),
            viewpoints=by,
            evidence=evidence if spans else (*evidence, f"istiod of {cluster.name} runs without {_SWITCH}"),
            fix=(
                f"Label {local[0][1].ref} with istio.io/global=true in {' and '.join(c.name for c, _ in local)}."
                if spans
                else f"Bring up pods of {short(service.hostname)} in {cluster.name}, or set {_SWITCH}=true for every istiod and label the Services with istio.io/global=true."
            ),
            commands=(
                f"kubectl --context {local[0][0].name} -n {service.namespace} label service {service.name} istio.io/global=true"
                if spans
                else f"kubectl --context {cluster.name} -n {service.namespace} get pods",
                f"istioctl ztunnel-config service --service-namespace {service.namespace}",
            ),
        )


def _asked(case: Case) -> Iterator[tuple[Cluster, Istiod, HostService, list[Branch]]]:
    """Each service with the cluster that it is called from, and the destinations of callers with a proxy there that have nobody."""
    out: dict[tuple[str, str], tuple[Cluster, Istiod, HostService, list[Branch]]] = {
        (c.name, s.hostname): (c, istiod, s, []) for c, istiod, s in ambient.services(case)
    }
    for branches in case.caused("ambient-scope-local"):
        for b in branches:
            cluster, service = case.mesh.cluster(b.view.ups.proxy.cluster), b.upstream.service
            if service is not None:
                out.setdefault((cluster.name, service.hostname), (cluster, b.view.ups.istiod, service, []))[3].append(b)
    yield from out.values()


def _alone(case: Case, istiod: Istiod, service: HostService) -> bool:
    """Whether it is known that ztunnel of an istiod's cluster knows its own pods alone, and nothing else stands in for a service's there."""
    attached = ambient.attachment(istiod, service)
    if istiod.plane is NEWEST or (attached is not None and attached.waypoints):
        return False
    return not any(e.health == "healthy" and not e.workload for e in case.endpoints(istiod, service))


def _global(case: Case, holder: Cluster, cluster: Cluster, service: Service) -> bool:
    around = cluster.get(Namespace, "", service.namespace)
    return case.mesh.config(holder).is_global(around.labels if around is not None else {}, service.labels)
