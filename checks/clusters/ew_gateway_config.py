"""ew-gateway-config (MESH606)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import addresses, behind, callers, lost, passing, share, unopened, viewpoints
from checks.finding import Finding, check
from checks.mesh import NetworkGateway
from checks.registry import NETWORK_GATEWAY_PORT
from checks.resources import Gateway
from checks.subsets import percent
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.clusters import Way
    from checks.resources import Service


def _closed(branch: Branch, way: Way) -> NetworkGateway | None:
    """A gateway that stands for an endpoint and lets none of its calls through."""
    for g in way.gateways:
        found = behind(branch.view.ups.mesh, g)
        if found is not None and (not _listens(found[1], g) or not passing(found[2], g, branch.upstream.host)[0]):
            return g
    return unopened(branch, way)


def _listens(service: Service, gateway: NetworkGateway) -> bool:
    """Whether a gateway's Service has the port that callers are told of: 15443, or what its label says (kube/controller/network.go)."""
    return any(p.port == gateway.port for p in service.spec.ports)


@check("ew-gateway-config", when=several_clusters)
def ew_gateway_config(case: Case) -> Iterator[Finding]:
    """The gateway of another network does not let a host through.

    Calls to another network go to its gateway as mTLS with the host in the SNI. Only a Gateway whose server has TLS mode AUTO_PASSTHROUGH, on
    the port that is told (15443) and for a pattern that covers the host (`*.local`), passes them on. Without it the connection is closed:
    503 (flags UF, UC) at the caller, `filter_chain_not_found` at the gateway. Where the gateway's Service has another port, its label
    `networking.istio.io/gatewayPort` must say so, or callers are told of one that nobody opens; from 1.29 on istiod does not take such a Service for
    a gateway, and callers get the addresses of pods (getGatewayDetails in pilot/pkg/serviceregistry/kube/controller/network.go in istio/istio).

    How to see it: `istioctl proxy-config listeners <gateway pod> --port 15443` shows no such filter chain.

    How to fix it: a Gateway with AUTO_PASSTHROUGH on that port that selects the gateway's pods and names the host.
    """
    for key, found in lost(case, _closed).items():
        held = behind(case.mesh, key) if isinstance(key, NetworkGateway) else None
        if held is None or not isinstance(key, NetworkGateway):
            continue
        cluster, service, ups = held
        case.mesh.require(case.mesh.cluster(ups.istiod.cluster), Gateway)
        open_ = _listens(service, key)
        wrong = passing(ups, key, found[0].branch.upstream.host)[1] if open_ else []
        part = share(case, found)
        said = (
            f"callers are told of port {key.port}, which {service.ref} does not have"
            if not open_
            else f"{wrong[0].gateway.ref} passes {', '.join(wrong[0].server.hosts or ())} on port {wrong[0].server.port.number}"
            if wrong
            else f"no Gateway with AUTO_PASSTHROUGH selects its pods on port {key.port}"
        )
        end = f"the gateway of network {key.network}"
        if key not in case.mesh.network_gateways:
            said = f"it does not have port {key.port}, so istiod does not take it for a gateway"
            end = f"addresses of network {key.network} that they cannot reach ({addresses(found)}), and not at its gateway"
        yield case.finding(
            "ew-gateway-config",
            cluster=cluster.name,
            resource=wrong[0].gateway.ref if wrong else service.ref,
            path="spec.servers" if wrong else "" if open_ else "spec.ports",
            message=(
                f"{percent(part)} of the requests from {callers(case, found)} to {short(case.host)} end at {end}, {service.ref} in {cluster.name}: {said}."
            ),
            share=part,
            viewpoints=viewpoints(case, found),
            evidence=(
                f"network {key.network} is entered at {key.address}:{key.port} ({service.ref})"
                if open_
                else f"{service.ref} has {key.address}",
                said,
            ),
            fix=f"Give {service.ref} port {key.port}, or say its own port in the label {NETWORK_GATEWAY_PORT}."
            if not open_
            else f"Write a Gateway for the pods of {service.ref} with port {key.port}, tls mode AUTO_PASSTHROUGH and a host that covers {case.host}.",
            commands=(
                f"kubectl --context {cluster.name} get gateways.networking.istio.io -A -o yaml",
                f"istioctl --context {cluster.name} proxy-config listeners <gateway pod> --port {key.port}",
            ),
        )
