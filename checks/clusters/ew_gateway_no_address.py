"""ew-gateway-no-address (MESH605)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import addresses, callers, lost, raw, share, system, tunnels, unopened, viewpoints
from checks.finding import Finding, check
from checks.registry import NETWORK
from checks.subsets import percent
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.clusters import Way
    from checks.mesh import Cluster
    from checks.resources import Service


def _unentered(branch: Branch, way: Way) -> tuple[str, str] | None:
    """The cluster and network of an endpoint whose network has no known gateway."""
    mesh = branch.view.ups.mesh
    if not raw(branch, way) or unopened(branch, way) is not None:
        return None
    known = mesh.networks(mesh.cluster(branch.view.ups.istiod.cluster)).networks.get(way.endpoint.network)
    return None if known is not None and known.gateways else (way.endpoint.cluster, way.endpoint.network)


@check("ew-gateway-no-address", when=several_clusters)
def ew_gateway_no_address(case: Case) -> Iterator[Finding]:
    """The gateway of another network has no address.

    Endpoints of another network are replaced by its gateways: Services with the label `topology.istio.io/network` and an address of a
    load balancer, external IPs, or those of the nodes that annotation `traffic.istio.io/nodeSelector` selects for a NodePort; and Gateways of the
    Gateway API with the label and addresses. While the address is pending, or without the label, istiod knows no gateway and pushes the pods'
    raw addresses: calls time out (flag UF).

    How to see it: `kubectl get service -A -l topology.istio.io/network` shows no external address.

    How to fix it: give the Service an address (LoadBalancer or externalIPs).
    """
    for key, found in lost(case, _unentered).items():
        name, network = key if isinstance(key, tuple) else ("", "")
        cluster = case.mesh.cluster(name)
        services = tunnels(case.mesh, cluster, network)
        part = share(case, found)
        ref = services[0].ref if services else system(case.mesh, cluster)
        yield case.finding(
            "ew-gateway-no-address",
            cluster=cluster.name,
            resource=ref,
            path="status.loadBalancer" if services and services[0].spec.type == "LoadBalancer" else "spec.type" if services else "",
            message=(
                f"{percent(part)} of the requests from {callers(case, found)} to {short(case.host)} go to pod addresses of network "
                f"{network} ({addresses(found)}), which they cannot reach: {_said(cluster, network, services)}."
            ),
            share=part,
            viewpoints=viewpoints(case, found),
            evidence=(
                f"the callers are in network {found[0].branch.view.ups.proxy.network}, the endpoints in {network}",
                *(
                    f"{s.ref} in {cluster.name}: type {s.spec.type}, label {NETWORK} {s.labels.get(NETWORK) or 'missing'}, no address"
                    for s in services
                ),
            ),
            fix=f"Give {ref} an address (LoadBalancer or externalIPs) and the label {NETWORK}={network}."
            if services
            else f"Deploy an east-west gateway in {cluster.name} with the label {NETWORK}={network}.",
            commands=(
                f"kubectl --context {cluster.name} get services -A -l {NETWORK}",
                f"istioctl proxy-config endpoints <pod> --cluster '{found[0].branch.upstream.name}'",
            ),
        )


def _said(cluster: Cluster, network: str, services: list[Service]) -> str:
    if not services:
        return f"no Service of {cluster.name} is a gateway of that network"
    labelled = services[0].labels.get(NETWORK) == network
    return f"{services[0].ref} in {cluster.name} has no {'address' if labelled else f'label {NETWORK}'}"
