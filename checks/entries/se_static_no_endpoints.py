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
    named = any(e.address or not e.network for se in found for e in se.spec.endpoints or ())
    return bool(found) and not named and not any(se.spec.workload_selector for se in found)


@check("se-static-no-endpoints", when=explained)
def se_static_no_endpoints(case: Case) -> Iterator[Finding]:
    """A ServiceEntry says resolution STATIC and names no endpoint, or endpoints without an address.

    The API server accepts it. STATIC means that the addresses stand in `endpoints` (or come by `workloadSelector`); without them Envoy holds
    a cluster without a single host and answers every request with 503 "no healthy upstream" (flag UH). An endpoint may leave its address out where
    it says a network: then istiod sends to the gateways of that network, and to nobody while it knows none
    (pilot/pkg/xds/endpoints/ep_filters.go in istio/istio).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|443||HOST'` prints no line.

    How to fix it: add `endpoints`, or say resolution DNS where the host's name can be resolved.
    """
    for branches in together(case, "se-static-no-endpoints"):
        first = branches[0]
        host, share = first.upstream.host, case.share(branches)
        entry = behind(case, first)[0]
        networks = sorted({e.network for e in entry.spec.endpoints or () if e.network})
        said = f"has resolution {entry.spec.resolution} and"
        lacking = f"{said} names no endpoint of {host}" if not entry.spec.endpoints else f"{said} endpoints of {host} without an address"
        other = f"give network {' and '.join(networks)} a gateway with an address" if networks else "say resolution DNS"
        yield case.finding(
            "se-static-no-endpoints",
            cluster=holder(case, first.view.ups.istiod).name,
            resource=entry.ref,
            path="spec.endpoints",
            message=f"{percent(share)} of the requests fail: {entry.ref} {lacking}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(describe(entry),),
            fix=f"Add the addresses of {host} to spec.endpoints, or {other}.",
            patch=None if entry.spec.endpoints else case.patch(first.view.ups.istiod.cluster, entry, (("spec", "resolution"), "DNS")),
            commands=(f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml", endpoints_command(first.upstream)),
        )
