"""registry-only-unknown (MESH507)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.finding import Finding, check
from checks.resources import Service, ServiceEntry
from checks.visibility import hidden, mesh_config, spaces
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("registry-only-unknown", when=missed)
def registry_only_unknown(case: Case) -> Iterator[Finding]:
    """A host that callers mean to call is in no registry, and unknown hosts are refused.

    With `outboundTrafficPolicy: REGISTRY_ONLY` a sidecar lets nothing through but what a Service or ServiceEntry defines: HTTP gets 502
    (a direct response, `block_all`), TCP and TLS a closed connection (cluster BlackHoleCluster). A VirtualService alone defines no host.

    How to see it: the access log names BlackHoleCluster or the route block_all.

    How to fix it: write a ServiceEntry for the host.
    """
    if names.is_wildcard(case.host):
        return
    for group in hidden(case, "registry-only-unknown"):
        first = group[0]
        if not first.share:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        cluster, ref = mesh_config(case, first.istiod)
        for c in case.mesh.clusters:
            case.mesh.require(c, Service)
        case.mesh.require(cluster, ServiceEntry)
        asking = case.asks(first.viewpoints[0])
        own = first.scope.sidecar
        said = own is not None and own.spec.outbound_traffic_policy is not None and own.spec.outbound_traffic_policy.mode
        near = first.istiod.nearest(case.host, 3)
        yield case.finding(
            "registry-only-unknown",
            cluster=cluster.name,
            resource=asking[0],
            path="",
            message=(
                f"Calls of {spaces(viewpoints)} to {case.host} are refused: no Service and no ServiceEntry defines it, "
                f"and their outboundTrafficPolicy is REGISTRY_ONLY."
            ),
            share=first.share,
            viewpoints=viewpoints,
            evidence=(
                *dict.fromkeys(a for h in group for a in h.asks),
                f"{own.ref if own and said else ref} says outboundTrafficPolicy REGISTRY_ONLY",
                *((f"near: {', '.join(near)}",) if near else ()),
            ),
            fix=f"Write a ServiceEntry for {case.host}.",
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}", "kubectl get serviceentries -A"),
        )
