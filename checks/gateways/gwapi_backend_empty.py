"""gwapi-backend-empty (MESH724)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, by_nearness, check, explained, explains
from checks.gateways import backend, drop, said
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("gwapi-backend-empty")
def _explains(case: Case, branch: Branch) -> bool:
    b = backend(branch)
    if b is None or not branch.upstream.defined:
        return False
    # why a backend is empty is nearer to what must be mended than that it is
    return not any(explainer(case, branch) for cause, explainer in by_nearness() if cause != "gwapi-backend-empty")


@check("gwapi-backend-empty", when=explained)
def gwapi_backend_empty(case: Case) -> Iterator[Finding]:
    """A backend of a route has a share of the requests and no usable endpoint, and nothing nearer says why.

    The route's status is all True, since the Service exists. Requests for this backend's share get 503 "no healthy upstream" (flag UH). Where
    the reason is known (scaled to 0, not ready, a selector that matches nothing) that is reported in its place.

    How to see it: `istioctl proxy-config endpoints <gateway pod> --cluster CLUSTER` is empty.

    How to fix it: bring up pods behind the Service, or take the weight from the backend.
    """
    for branches in case.caused("gwapi-backend-empty"):
        first = branches[0]
        b, service = backend(first), first.upstream.service
        if b is None or service is None:
            continue
        namespace = first.resource.partition(" ")[2].partition("/")[0]
        share = case.share(branches)
        owners = [f"{w.ref} in {c.name} wants {w.wanted} pods and has {w.status.replicas}" for c, w in case.owners(service)]
        yield case.finding(
            "gwapi-backend-empty",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=first.path,
            message=f"{percent(share)} of the requests of a rule fail: {said(b, namespace)} has no usable endpoint.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*dict.fromkeys(case.slices_evidence(service)), *dict.fromkeys(owners)),
            fix=f"Bring up pods behind {short(service.hostname)}, or take the weight from {first.path} of {first.resource}.",
            patch=drop(case, branches),
            commands=(endpoints_command(first.upstream), f"kubectl -n {service.namespace} get events"),
        )
