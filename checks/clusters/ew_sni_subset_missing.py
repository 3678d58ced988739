"""ew-sni-subset-missing (MESH614)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import behind, callers, lost, passing, share, viewpoints
from checks.finding import Finding, check
from checks.mesh import NetworkGateway
from checks.resources import DestinationRule
from checks.subsets import percent
from checks.upstream import sni_key
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.clusters import Way


def _unknown(branch: Branch, way: Way) -> tuple[NetworkGateway, str, str, int] | None:
    """A gateway that stands for an endpoint and has no cluster for the subset that the caller asks for."""
    u = branch.upstream
    for g in way.gateways if u.subset else ():
        found = behind(branch.view.ups.mesh, g)
        if found is None or not passing(found[2], g, u.host)[0] or found[2].scope.services.get(u.host) is None:
            continue
        if not found[2].of(u.host, u.port, u.subset, sni=True).defined:
            return g, u.host, u.subset, u.port
    return None


@check("ew-sni-subset-missing", when=several_clusters)
def ew_sni_subset_missing(case: Case) -> Iterator[Finding]:
    """The gateway of another network does not know a subset that callers ask it for.

    A call to a subset in another network names it in the SNI, `outbound_.80_.v1_.HOST`. The gateway there has a cluster of that name only
    where its own control plane shows it a DestinationRule with the subset: one that stands in the caller's cluster alone, or is not exported
    to the gateway's namespace, is not enough. The connection is closed (flags UF, UC at the caller).

    How to see it: `istioctl proxy-config cluster <gateway pod> --fqdn HOST` lists no such subset.

    How to fix it: the same DestinationRule in every cluster, exported to the namespaces of the east-west gateways.
    """
    for key, found in lost(case, _unknown).items():
        g, host, subset, port = key if isinstance(key, tuple) else (None, "", "", 0)
        held = behind(case.mesh, g) if isinstance(g, NetworkGateway) else None
        if held is None or not isinstance(g, NetworkGateway):
            continue
        cluster, service, ups = held
        there = case.mesh.cluster(ups.istiod.cluster)
        case.mesh.require(there, DestinationRule)
        rule = found[0].branch.upstream.rule
        origin = rule.subset_origins.get(subset, rule.origins[0]) if rule else None
        if origin is None:
            continue
        same = there.get(DestinationRule, origin.namespace, origin.name)
        where = there if same is not None else case.mesh.cluster(found[0].branch.view.ups.istiod.cluster)
        part = share(case, found)
        said = f"{origin.ref} is not exported to namespace {service.namespace}" if same is not None else f"{there.name} has no {origin.ref}"
        yield case.finding(
            "ew-sni-subset-missing",
            cluster=where.name,
            resource=origin.ref,
            path="spec.exportTo" if same is not None else "spec.subsets",
            message=(
                f"{percent(part)} of the requests from {callers(case, found)} to subset {subset} of {short(host)} end at the gateway of "
                f"network {g.network}, {service.ref} in {cluster.name}: it does not know the subset, since {said}."
            ),
            share=part,
            viewpoints=viewpoints(case, found),
            evidence=(
                said,
                f"callers ask for SNI {sni_key(port, subset, host)}",
                f"network {g.network} is entered at {g.address}:{g.port} ({service.ref})",
            ),
            fix=f"Put {origin.ref} into {there.name} as well, exported to namespace {service.namespace}.",
            commands=(
                f"istioctl --context {cluster.name} proxy-config cluster <gateway pod>.{service.namespace} --fqdn {host}",
                f"kubectl --context {there.name} -n {origin.namespace} get destinationrule {origin.name} -o yaml",
            ),
        )
