"""gw-cluster-filtered (MESH708)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.control import Rerouted, rerouted, withheld
from checks.finding import Finding, check
from checks.seen import share
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import EnvoyFilter


@check("gw-cluster-filtered")
def gw_cluster_filtered(case: Case) -> Iterator[Finding]:
    """An EnvoyFilter leads a gateway's requests to a cluster that istiod keeps from gateways whose rules do not lead there.

    With PILOT_FILTER_GATEWAY_CLUSTER_CONFIG istiod sends a gateway only the clusters that its VirtualServices and routes name. What an EnvoyFilter
    leads to does not count, so that the cluster is missing: 503 with flag NC, at this gateway and nowhere else, although the service is well.

    How to see it: `istioctl proxy-config cluster` of the gateway lacks the cluster, that of any sidecar has it.

    How to fix it: name the host in a VirtualService of the gateway, or take PILOT_FILTER_GATEWAY_CLUSTER_CONFIG off istiod.
    """
    groups: dict[tuple[str, str], tuple[EnvoyFilter, list[Rerouted]]] = {}
    for r in rerouted(case, "envoyfilter-route-or-cluster"):
        if r.filter is not None and withheld(r):
            groups.setdefault((case.cluster_of(r.held.branch), r.filter.ref), (r.filter, []))[1].append(r)
    for (cluster, ref), (found, group) in groups.items():
        first = group[0]
        h = first.held
        part = share((r.held.branch, r.part / r.held.branch.share) for r in group)
        yield case.finding(
            "gw-cluster-filtered",
            cluster=cluster,
            resource=ref,
            path="spec.configPatches",
            message=(
                f"{percent(part)} of the requests of a rule for {short(case.host)} get 503 at gateway {h.envoy.proxy}: {ref} leads them to {first.absent[0]}, "
                f"which istiod keeps from the gateway, since no rule of it leads there."
            ),
            share=part,
            viewpoints=case.viewpoints(r.held.branch for r in group),
            evidence=dict.fromkeys([*(r.sentence for r in group[:3]), f"istiod of {cluster} has PILOT_FILTER_GATEWAY_CLUSTER_CONFIG=true"]),
            fix=f"Name the host of {first.absent[0]} in a VirtualService of the gateway, or take PILOT_FILTER_GATEWAY_CLUSTER_CONFIG off istiod.",
            commands=(
                f"istioctl proxy-config cluster {h.envoy.pod} -n {h.envoy.namespace}",
                f"kubectl -n {found.namespace} get envoyfilter {found.name} -o yaml",
            ),
        )
