"""waypoint-subset-empty (MESH924)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.subsets import labels, nobody, percent, proof, reweigh

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("waypoint-subset-empty", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    if branch.view.callers.proxy.kind != "waypoint" or not nobody(case, branch):
        return False
    same = (b for b in case.failing() if b.resource == branch.resource and b.aim == branch.aim)
    # where sidecars or gateways fail in the same way, the waypoint is nothing special
    return all(b.view.callers.proxy.kind == "waypoint" for b in same)


@check("waypoint-subset-empty", when=explained)
def waypoint_subset_empty(case: Case) -> Iterator[Finding]:
    """A rule at a waypoint leads to a subset that no endpoint carries.

    In the ambient mesh a service's waypoint applies its VirtualServices and routes. The waypoint's Envoy holds the subset's cluster without a
    host and answers its share with 503 "no healthy upstream" (flag UH, reporter waypoint); the callers' own proxies know nothing of it.

    How to see it: `istioctl proxy-config endpoints <waypoint pod>` has no line for the subset's cluster.

    How to fix it: deploy the version, or move its weight to a subset that has endpoints.
    """
    for branches in case.caused("waypoint-subset-empty"):
        first = branches[0]
        u, share = first.upstream, case.share(branches)
        proxy = first.view.ups.proxy
        yield case.finding(
            "waypoint-subset-empty",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=first.path,
            message=f"{percent(share)} of the requests that the waypoint in namespace {proxy.namespace} routes fail: subset {u.subset} of {short(u.host)} ({labels(u)}) has no endpoint.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"Pod {proxy.namespace}/{proxy.pod} is a waypoint of {short(case.host)}", *proof(case, first)),
            fix=f"Deploy pods with {labels(u)}, or give the weight to a subset that has endpoints.",
            patch=reweigh(case, branches),
            commands=(endpoints_command(u).replace("<pod>", f"{proxy.pod}.{proxy.namespace}"),),
        )
