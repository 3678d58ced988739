"""se-none-via-gateway (MESH406)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import describe, holder, together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("se-none-via-gateway", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if branch.view.callers.proxy.kind != "gateway" or u.service is None or u.service.kubernetes or u.service.resolution != "none":
        return False
    return u.defined and not case.endpoints(branch.view.ups.istiod, u.service)


@check("se-none-via-gateway", when=explained)
def se_none_via_gateway(case: Case) -> Iterator[Finding]:
    """A gateway routes to a ServiceEntry with resolution NONE.

    NONE means "where the caller was going": a sidecar still has that address, a gateway has only its own. istiod gives gateways a cluster
    without any endpoint instead, and they answer with 503 "no healthy upstream" (flag UH), although the same host works from a sidecar.

    How to see it: `istioctl proxy-config endpoints <gateway pod> --cluster 'outbound|443||HOST'` prints no line.

    How to fix it: say resolution DNS in the ServiceEntry.
    """
    for branches in together(case, "se-none-via-gateway"):
        first = branches[0]
        host, share = first.upstream.host, case.share(branches)
        entry = next(
            e
            for e in case.entries(first.view.ups.istiod, host)
            if first.upstream.service and e.namespace == first.upstream.service.namespace
        )
        yield case.finding(
            "se-none-via-gateway",
            cluster=holder(case, first.view.ups.istiod).name,
            resource=entry.ref,
            path="spec.resolution",
            message=(
                f"{percent(share)} of the requests at the gateway fail: {entry.ref} has resolution NONE, "
                f"and a gateway does not know where {host} is."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(describe(entry), f"{first.resource} leads the gateway to it ({first.path})"),
            fix=f"Say resolution DNS in {entry.ref}.",
            patch=case.patch(first.view.ups.istiod.cluster, entry, (("spec", "resolution"), "DNS")),
            commands=(
                f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml",
                f"istioctl proxy-config endpoints <gateway pod> --cluster '{first.upstream.name}'",
            ),
        )
