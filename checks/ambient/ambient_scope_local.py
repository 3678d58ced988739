"""ambient-scope-local (MESH929)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.case import Case, short
from checks.finding import Finding, check
from checks.resources import Deployment, Namespace, Pod, Service
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster

_SWITCH = "AMBIENT_ENABLE_MULTI_NETWORK"


@check("ambient-scope-local", when=through_ztunnel)
def ambient_scope_local(case: Case) -> Iterator[Finding]:
    """The ready pods of a service are in another cluster, and the service is not global there or here.

    In an ambient mesh of several clusters a Service is local unless meshConfig.serviceScopeConfigs makes it global, by default with label
    `istio.io/global: "true"` on the Service, in each cluster. A caller of the ambient mesh is sent to pods of its own cluster alone; with none
    there it fails, although callers with a sidecar reach the other cluster.

    How to see it: `istioctl ztunnel-config service` shows no endpoint of the other cluster.

    How to fix it: label the Service with istio.io/global=true in every cluster.
    """
    for cluster, _, service in ambient.services(case):
        here = cluster.get(Service, service.namespace, service.name) if service.kubernetes else None
        callers = ambient.calling(case, service, cluster)
        if here is None or not callers or not _several(cluster):
            continue
        pods = case.pods(service)
        if any(c is cluster and ambient.serves(p) for c, p in pods):
            continue
        there = {c.name: c for c, p in pods if c is not cluster and ambient.serves(p)}
        known = [(c, s) for c in (cluster, *there.values()) if (s := c.get(Service, service.namespace, service.name)) is not None]
        local = [(c, s) for c, s in known if not _global(case, cluster, c, s)]
        if not there or not local:
            continue
        case.mesh.require(cluster, Pod)
        yield case.finding(
            "ambient-scope-local",
            cluster=local[0][0].name,
            resource=local[0][1].ref,
            path="metadata.labels[istio.io/global]",
            message=f"Every call of {short(case.host)} from the ambient mesh of {cluster.name} fails: its ready pods are in {', '.join(sorted(there))}, and the Service is not global.",
            share=1.0,
            viewpoints=callers,
            evidence=(
                *(f"{s.ref} in {c.name} is local: no entry of serviceScopeConfigs makes it global" for c, s in local),
                *(f"{sum(x is c and ambient.serves(p) for x, p in pods)} ready pods in {c.name}" for c in (cluster, *there.values())),
            ),
            fix=f"Label {local[0][1].ref} with istio.io/global=true in {' and '.join(c.name for c, _ in local)}.",
            commands=(
                f"kubectl --context {local[0][0].name} -n {service.namespace} label service {service.name} istio.io/global=true",
                f"istioctl ztunnel-config service --service-namespace {service.namespace}",
            ),
        )


def _several(cluster: Cluster) -> bool:
    """Whether the control plane's ambient mesh spans clusters."""
    istiods = [w for w in cluster.all(Deployment) if w.labels.get("app") == "istiod"]
    containers = [c for w in istiods for c in w.spec.template.spec.containers]
    return any(e.name == _SWITCH and e.value.lower() == "true" for c in containers for e in c.env or ())


def _global(case: Case, holder: Cluster, cluster: Cluster, service: Service) -> bool:
    around = cluster.get(Namespace, "", service.namespace)
    return case.mesh.config(holder).is_global(around.labels if around is not None else {}, service.labels)
