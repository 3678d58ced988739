"""se-static-no-endpoints (MESH408)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command
from checks.entries import behind, describe, holder, served, together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("se-static-no-endpoints", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if not u.defined or u.service is None or u.service.resolution != "static" or served(case, branch):
        return False
    found = behind(case, branch)
    return bool(found) and not any(e.spec.endpoints or e.spec.workload_selector for e in found)


@check("se-static-no-endpoints", when=explained)
def se_static_no_endpoints(case: Case) -> Iterator[Finding]:
    """A ServiceEntry says resolution STATIC and names no endpoint.

    The API server accepts it. STATIC means that the addresses stand in `endpoints` (or come by `workloadSelector`); without them Envoy holds
    a cluster without a single host and answers every request with 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|443||HOST'` prints no line.

    How to fix it: add `endpoints`, or say resolution DNS where the host's name can be resolved.
    """
    for branches in together(case, "se-static-no-endpoints"):
        first = branches[0]
        host, share = first.upstream.host, case.share(branches)
        entry = behind(case, first)[0]
        yield case.finding(
            "se-static-no-endpoints",
            cluster=holder(case, first.view.ups.istiod).name,
            resource=entry.ref,
            path="spec.endpoints",
            message=f"{percent(share)} of the requests fail: {entry.ref} has resolution STATIC and names no endpoint of {host}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(describe(entry),),
            fix=f"Add the addresses of {host} to spec.endpoints, or say resolution DNS.",
            patch=case.patch(first.view.ups.istiod.cluster, entry, (("spec", "resolution"), "DNS")),
            commands=(f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml", endpoints_command(first.upstream)),
        )
