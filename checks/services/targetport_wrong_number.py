"""targetport-wrong-number (MESH307)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.seen import log_command, lost, sources
from checks.services import Refusal, home, refusals, service_of
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("targetport-wrong-number")
def targetport_wrong_number(case: Case) -> Iterator[Finding]:
    """A Service's targetPort is a number at which nobody listens.

    Kubernetes makes endpoints of any number, and the pods are ready by their probe at another port. Every connection to the endpoint is refused:
    the server's sidecar answers 503 (flag UF, Connection_refused, on `inbound|<targetPort>||`), or the caller's own where the server has none.

    How to see it: the access log of the server's istio-proxy says UF and Connection_refused; the pods declare other ports than the targetPort.

    How to fix it: set the Service's targetPort to the port that the app listens on.
    """
    groups: dict[tuple[str, int], list[Refusal]] = {}
    for r in refusals(case):
        if r.expected is False:
            groups.setdefault((service_of(r.calls.branch), r.calls.branch.upstream.port), []).append(r)
    for (resource, port), group in groups.items():
        first = group[0]
        service = first.calls.branch.upstream.service
        known = ", ".join(map(str, first.declared or first.probed))
        part = lost({id(r.calls): r.calls for r in group}.values())
        numbers = [p.number for p in service.ports] if service is not None else []
        yield case.finding(
            "targetport-wrong-number",
            cluster=home(case, service, first.calls.branch) if service is not None else case.cluster_of(first.calls.branch),
            resource=resource,
            path=f"spec.ports[{numbers.index(port)}].targetPort" if port in numbers else "spec.ports",
            message=(
                f"{percent(part)} of the requests of a rule are refused: port {port} of {short(first.calls.branch.upstream.host)} leads to "
                f"{first.endpoint.port}, where nobody listens in its pods; they say {known}."
            ),
            share=part,
            viewpoints=case.viewpoints(r.calls.branch for r in group),
            evidence=(
                *sources(r.calls for r in group),
                *dict.fromkeys(
                    f"pod {r.pod.namespace}/{r.pod.name} {'declares' if r.declared else 'is probed at'} port {', '.join(map(str, r.declared or r.probed))}, "
                    f"and is ready"
                    for r in group[:3]
                ),
            ),
            fix=f"Set targetPort of {resource} to the port that the app listens on ({known}).",
            commands=(
                log_command(first.calls),
                f"kubectl -n {first.pod.namespace} get pod {first.pod.name} -o jsonpath='{{.spec.containers[*].ports}}'",
            ),
        )
