"""endpoints-draining-label (MESH315)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.registry import DRAINING, PERSISTENT_SESSION
from checks.services import by_service, home, kubernetes
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.registry import IstioEndpoint


@explains("endpoints-draining-label", before=("all-endpoints-terminating", "subset-all-notready", "pods-all-notready"))
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    found = case.candidates(branch.upstream) if service is not None else []
    return bool(found) and all(_drains(e) for e in found)


def _drains(e: IstioEndpoint) -> bool:
    return e.health == "draining" or bool(e.labels.get(DRAINING))


@check("endpoints-draining-label", when=explained)
def endpoints_draining_label(case: Case) -> Iterator[Finding]:
    """Every endpoint of a destination drains.

    Label `istio.io/draining` on a pod takes its endpoint out of every proxy; with label `istio.io/persistent-session` on the Service,
    terminating pods are kept as draining for their old sessions alone. When all endpoints drain, nobody takes a new request: 503 "no healthy
    upstream" (flag UH).

    How to see it: `kubectl get pods -L istio.io/draining`; `istioctl proxy-config endpoints` shows DRAINING or no line.

    How to fix it: take the label off pods that should serve, or bring up new ones.
    """
    for service, branches in by_service(case, "endpoints-draining-label"):
        first = branches[0]
        found = {e.address: e for e in case.candidates(first.upstream)}.values()
        labelled = [e for e in found if e.labels.get(DRAINING)]
        owners = case.owners(service, first.upstream if first.upstream.subset else None)
        share = case.share(branches)
        why = f"carries label {DRAINING}" if labelled else f"terminates and is kept for its sessions (label {PERSISTENT_SESSION})"
        yield case.finding(
            "endpoints-draining-label",
            cluster=owners[0][0].name if owners else home(case, service, first),
            resource=owners[0][1].ref if owners else service.sources[0][1],
            path="spec.template.metadata.labels" if owners and labelled else "",
            message=f"{percent(share)} of the requests fail: every endpoint of {short(service.hostname)} {why}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(
                f"{e.workload or 'endpoint'} at {e.address}: {f'label {DRAINING}={e.labels[DRAINING]}' if e.labels.get(DRAINING) else e.reason}"
                for e in list(found)[:5]
            ),
            fix=f"Take label {DRAINING} off the pods that should serve, or bring up pods without it."
            if labelled
            else f"Bring up new pods of {short(service.hostname)}: those that drain serve their old sessions alone.",
            commands=(f"kubectl -n {service.namespace} get pods -L {DRAINING}", endpoints_command(first.upstream)),
        )
