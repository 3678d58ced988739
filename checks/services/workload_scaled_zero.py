"""workload-scaled-zero (MESH305)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explains
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("workload-scaled-zero", before=("svc-selector-no-pods", "subset-scaled-to-zero", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined or not service.kubernetes:
        return False
    return not case.endpoints(branch.view.ups.istiod, service) and case.off(service)


@check("workload-scaled-zero")
def workload_scaled_zero(case: Case) -> Iterator[Finding]:
    """Every workload behind a service stands at 0 replicas.

    An autoscaler that scales to zero, a cron job that was not undone, a person: the Service has no endpoint, and every request to it gets
    503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get deployment` shows 0/0.

    How to fix it: scale the workload up.
    """
    groups: dict[str, list[Branch]] = {}
    for branches in case.caused("workload-scaled-zero"):
        for b in branches:
            groups.setdefault(b.upstream.service.hostname if b.upstream.service else "", []).append(b)
    for branches in groups.values():
        first = branches[0]
        service = first.upstream.service
        if service is None:
            continue
        stopped = case.owners(service)
        cluster, workload = stopped[0]
        share = case.share(branches)
        kind = workload.ref.partition(" ")[0].lower()
        yield case.finding(
            "workload-scaled-zero",
            cluster=cluster.name,
            resource=workload.ref,
            path="spec.replicas",
            message=f"{percent(share)} of the requests fail: {' and '.join(w.ref for _, w in stopped)} behind {short(service.hostname)} stand{'s'[: len(stopped) == 1]} at 0 replicas.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{w.ref} in {c.name}: spec.replicas 0" for c, w in stopped),
                *case.slices_evidence(service),
            ),
            fix=f"Scale {workload.ref} up.",
            patch=f"kubectl -n {workload.namespace} scale {kind} {workload.name} --replicas=1",
            commands=(f"kubectl -n {workload.namespace} get {kind} {workload.name}", endpoints_command(first.upstream)),
        )
