"""network-label-missing (MESH604)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import addresses, callers, lost, share, system, viewpoints
from checks.finding import Finding, check
from checks.registry import NETWORK
from checks.subsets import percent
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.clusters import Way


def _unnamed(branch: Branch, way: Way) -> str | None:
    """The cluster of an endpoint whose network nobody names, where its caller's is known."""
    proxy = branch.view.ups.proxy
    foreign = way.reach == "direct" and way.endpoint.cluster != proxy.cluster
    return way.endpoint.cluster if foreign and bool(proxy.network) and not way.endpoint.network else None


@check("network-label-missing", when=several_clusters)
def network_label_missing(case: Case) -> Iterator[Finding]:
    """A cluster of a mesh of several networks does not say which network it is in.

    The network of an endpoint is the label `topology.istio.io/network` of its pod, else of the control plane's namespace, else meshNetworks.
    Without it istiod takes the endpoint for one of the caller's own network and pushes the pod's raw address: calls time out (flag UF).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster NAME` lists pod addresses of the other cluster, not its gateway.

    How to fix it: label the control plane's namespace there with its network.
    """
    if not case.mesh.network_gateways:
        return
    for key, found in lost(case, _unnamed).items():
        cluster = case.mesh.cluster(str(key))
        part = share(case, found)
        ref = system(case.mesh, cluster)
        yield case.finding(
            "network-label-missing",
            cluster=cluster.name,
            resource=ref,
            path=f"metadata.labels[{NETWORK}]",
            message=(
                f"{percent(part)} of the requests from {callers(case, found)} to {short(case.host)} go to pod addresses of {cluster.name} "
                f"({addresses(found)}): {ref} there has no label {NETWORK}, so istiod takes them for its own network."
            ),
            share=part,
            viewpoints=viewpoints(case, found),
            evidence=(
                f"{ref} in {cluster.name} has no label {NETWORK}, nor have the pods",
                f"the callers are in network {found[0].branch.view.ups.proxy.network}",
                *(
                    f"network {g.network} is entered at {g.address}:{g.port} ({g.cluster or 'meshNetworks'})"
                    for g in case.mesh.network_gateways
                ),
            ),
            fix=f"Label {ref} in {cluster.name} with {NETWORK}, and restart its workloads.",
            commands=(
                f"kubectl --context {cluster.name} get {ref.lower().replace(' ', ' ')} --show-labels",
                f"istioctl proxy-config endpoints <pod> --cluster '{found[0].branch.upstream.name}'",
            ),
        )
