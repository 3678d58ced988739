"""svc-selectorless-no-slice (MESH302)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.services import by_service, home, known, kubernetes, slices, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("svc-selectorless-no-slice", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or service.selector:
        return False
    return not known(case, branch, service) and not any(e.addresses for _, s in slices(case, service) for e in s.endpoints or ())


@check("svc-selectorless-no-slice", when=explained)
def svc_selectorless_no_slice(case: Case) -> Iterator[Finding]:
    """A Service without selector has no EndpointSlice with an endpoint.

    Kubernetes fills the EndpointSlices of a Service that has a selector; those of one without are written by hand or by a controller. When
    they were never written, or were deleted, every request to the Service gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get endpointslices -l kubernetes.io/service-name=NAME` shows none; `kubectl describe service` shows no selector.

    How to fix it: create the EndpointSlice, or give the Service a selector.
    """
    for service, branches in by_service(case, "svc-selectorless-no-slice"):
        share = case.share(branches)
        yield case.finding(
            "svc-selectorless-no-slice",
            cluster=home(case, service, branches[0]),
            resource=service.sources[0][1],
            path="spec.selector",
            message=f"{percent(share)} of the requests fail: {service.sources[0][1]} has no selector, and no EndpointSlice names an endpoint for it.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{service.sources[0][1]}: spec.selector is empty, so Kubernetes makes no endpoints", *case.slices_evidence(service)),
            fix=f"Create an EndpointSlice with label kubernetes.io/service-name={service.name} in namespace {service.namespace}, or give {short(service.hostname)} a selector.",
            commands=(slices_command(service), endpoints_command(branches[0].upstream)),
        )
