"""svc-missing-in-caller-cluster (MESH611)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import services
from checks.finding import Finding, check
from checks.registry import proxy_kind
from checks.resources import Pod, Service
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Case


@check("svc-missing-in-caller-cluster", when=several_clusters)
def svc_missing_in_caller_cluster(case: Case) -> Iterator[Finding]:
    """A Service exists in another cluster of the mesh alone, and callers mean to call it from one that has none.

    istiod tells every proxy of every cluster's Services, yet a name is looked up before: the DNS server of a cluster knows only its own
    Services. Without one there (with no pods behind, if need be) the call ends with "no such host" and never reaches Envoy, unless the
    sidecars answer DNS questions themselves (ISTIO_META_DNS_CAPTURE).

    How to see it: `kubectl get service` finds it in one context and not in the other.

    How to fix it: create the Service in the caller's cluster as well, or enable DNS capture.
    """
    held = list(services(case))
    if not held or len(held) == len(case.mesh.clusters):
        return
    have = {c.name for c, _ in held}
    missing = [
        v
        for view in case.views
        if view.callers.proxy.kind == "sidecar"
        for v in view.callers.viewpoints
        if v.cluster not in have and case.asks(v) and not _captures(case, v)
    ]
    clusters = list(dict.fromkeys(v.cluster for v in missing))
    for name in clusters:
        case.mesh.require(case.mesh.cluster(name), Service)
        mine = tuple(v for v in missing if v.cluster == name)
        where, service = held[0]
        yield case.finding(
            "svc-missing-in-caller-cluster",
            cluster=where.name,
            resource=service.ref,
            path="",
            message=(
                f"Calls from {name} ({', '.join(dict.fromkeys(v.namespace for v in mine))}) to {short(case.host)} end with no such host: "
                f"{service.ref} exists in {' and '.join(sorted(have))} alone, and the DNS of {name} does not know it."
            ),
            share=1.0,
            viewpoints=mine,
            evidence=(
                f"{name} has no {service.ref}",
                *dict.fromkeys(case.wants(v) for v in mine),
                "the sidecars there do not capture DNS (ISTIO_META_DNS_CAPTURE)",
            ),
            fix=f"Create {service.ref} in {name} as well; it needs no pods there.",
            commands=(f"kubectl --context {name} -n {service.namespace} get service {service.name}",),
        )


def _captures(case: Case, viewpoint: Viewpoint) -> bool:
    """Whether sidecars of a namespace answer DNS questions themselves, by the mesh's configuration or by what was injected."""
    cluster = case.mesh.cluster(viewpoint.cluster)
    if case.mesh.istiod(cluster.name).config.captures_dns:
        return True
    pods = [p for p in cluster.ordered(Pod, viewpoint.namespace) if proxy_kind(p) == "sidecar"]
    containers = [c for p in pods[:1] for c in (*p.spec.containers, *(p.spec.init_containers or ())) if c.name == "istio-proxy"]
    return any(e.name == "ISTIO_META_DNS_CAPTURE" and e.value.lower() == "true" for c in containers for e in c.env or ())
