"""workload-scaled-zero (MESH305)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, going, short
from checks.finding import Finding, check, explains
from checks.resources import DaemonSet
from checks.subsets import percent
from checks.when import failing

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains(
    "workload-scaled-zero",
    before=("svc-selector-no-pods", "subset-scaled-to-zero", "subset-empty-weighted", "subset-empty-all", "all-endpoints-terminating"),
)
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined or not service.kubernetes:
        return False
    return case.off(service) and going(case.endpoints(branch.view.ups.istiod, service))


@check("workload-scaled-zero", when=failing)
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
        scalable = not isinstance(workload, DaemonSet)
        refs = list(dict.fromkeys(w.ref for _, w in stopped))
        yield case.finding(
            "workload-scaled-zero",
            cluster=cluster.name,
            resource=workload.ref,
            path="spec.replicas" if scalable else "spec.template.spec.nodeSelector",
            message=f"{percent(share)} of the requests fail: {' and '.join(refs)} behind {short(service.hostname)} {'stands' if len(refs) == 1 else 'stand'} at 0 replicas.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(
                    f"{w.ref} in {c.name}: {'status.desiredNumberScheduled' if isinstance(w, DaemonSet) else 'spec.replicas'} 0"
                    for c, w in stopped
                ),
                *case.slices_evidence(service),
            ),
            fix=f"Scale {workload.ref} up."
            if scalable
            else f"Let {workload.ref} run on some node: its nodeSelector, affinity and tolerations fit none.",
            commands=(
                # no patch: whether pods that nobody has seen yet become ready cannot be proved
                *((f"kubectl -n {workload.namespace} scale {kind} {workload.name} --replicas=1",) if scalable else ()),
                f"kubectl -n {workload.namespace} get {kind} {workload.name}",
                endpoints_command(first.upstream),
            ),
        )
