"""subset-dns-cluster-dropped (MESH118)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, ServiceEntry, VirtualService, WorkloadEntry
from checks.routing import mend
from checks.subsets import labels, named_subsets, of_port, percent, proof, shown, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.resources import RouteDestination


@explains("subset-dns-cluster-dropped", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.service.dns or u.defined or not u.subset or u.rule is None or u.rule.subset(u.subset) is None:
        return False
    return not case.candidates(u) and bool(of_port(case, branch))


@check("subset-dns-cluster-dropped", when=explained)
def subset_dns_cluster_dropped(case: Case) -> Iterator[Finding]:
    """A subset of a DNS ServiceEntry matches none of its endpoints, so istiod makes no cluster for it at all.

    For a host with resolution DNS istiod writes the endpoints into the cluster, and a cluster without endpoints is left out. The route stays,
    so its share gets 503 (flag NC), not the UH of an empty subset. A host whose entry lists no endpoints is resolved itself, as one endpoint
    without labels, which no subset with labels matches.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lacks the subset; istiod's metric `pilot_dns_cluster_without_endpoints`
    names it.

    How to fix it: label the endpoints, or lead the rule to the host without a subset.
    """
    for branches in case.led("subset-dns-cluster-dropped"):
        first = branches[0]
        u, share = first.upstream, case.share(branches)
        if u.service is None:
            continue
        entry = u.service.sources[0][1]
        found = of_port(case, first)
        yield case.finding(
            "subset-dns-cluster-dropped",
            cluster=case.cluster_of(first),
            resource=entry,
            path="spec.endpoints",
            message=(
                f"{percent(share)} of the requests of a rule go to {named_subsets(branches)} of {u.host}, for which istiod makes no cluster: "
                f"no endpoint of {entry} carries the labels, and a DNS cluster without endpoints is left out."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*dict.fromkeys(f"endpoint {e.at} of {entry} has {words(e.labels)}" for e in found[:5]), *proof(case, first)),
            fix=f"Label the endpoints of {entry} with {' and '.join(dict.fromkeys(labels(b.upstream) for b in branches))}, or lead the rule to {u.host} without a subset.",
            patch=mend(case, branches, _whole),
            commands=(f"istioctl proxy-config cluster <pod> --fqdn {u.host}",),
        )
    shown(case, VirtualService, DestinationRule, ServiceEntry, WorkloadEntry)


def _whole(destination: RouteDestination) -> RouteDestination:
    return replace(destination, subset="")
