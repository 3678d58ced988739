"""slice-fqdn (MESH310)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command
from checks.finding import Finding, check, explained, explains
from checks.services import by_service, known, kubernetes, slices, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import EndpointSlice


@explains("slice-fqdn", before=("svc-selectorless-no-slice", "svc-selector-no-pods", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    return service is not None and not known(case, branch, service) and bool(_by_name(case, service))


def _by_name(case: Case, service: HostService) -> list[tuple[Cluster, EndpointSlice]]:
    return [(c, s) for c, s in slices(case, service) if s.address_type == "FQDN" and s.endpoints]


@check("slice-fqdn", when=explained)
def slice_fqdn(case: Case) -> Iterator[Finding]:
    """The only EndpointSlice of a Service has addressType FQDN, which Istio ignores.

    Kubernetes allows DNS names as endpoints of a slice; istiod reads slices of IP addresses alone. The Service has no endpoint for Envoy, and
    every request gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get endpointslices -l kubernetes.io/service-name=NAME` shows ADDRESSTYPE FQDN.

    How to fix it: define the host by a ServiceEntry with resolution DNS, or write IP addresses into the slice.
    """
    for service, branches in by_service(case, "slice-fqdn"):
        found = _by_name(case, service)
        cluster, first = found[0]
        share = case.share(branches)
        yield case.finding(
            "slice-fqdn",
            cluster=cluster.name,
            resource=first.ref,
            path="addressType",
            message=f"{percent(share)} of the requests fail: the endpoints of {service.sources[0][1]} are DNS names, and Istio ignores EndpointSlices of addressType FQDN.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(
                f"{s.ref} in {c.name}: addressType FQDN, {', '.join(a for e in s.endpoints or () for a in e.addresses or ())}"
                for c, s in found
            ),
            fix="Define the destination by a ServiceEntry with resolution DNS and these names as endpoints, and lead the callers there.",
            commands=(slices_command(service), endpoints_command(branches[0].upstream)),
        )
