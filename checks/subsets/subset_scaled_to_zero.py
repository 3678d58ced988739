"""subset-scaled-to-zero (MESH103)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, going, short
from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import labels, percent, proof, reweigh, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("subset-scaled-to-zero", before=("subset-empty-weighted", "subset-empty-all", "all-endpoints-terminating"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.defined or not u.subset or not going(case.candidates(u)):
        return False
    filling = case.owners(u.service, u)
    return bool(filling) and all(w.wanted == 0 for _, w in filling)


@check("subset-scaled-to-zero", when=explained)
def subset_scaled_to_zero(case: Case) -> Iterator[Finding]:
    """The workload of a subset stands at 0 replicas while a rule still sends it requests.

    An autoscaler, a cron job, a person or a revert of the deployment pipeline has scaled the version down; the VirtualService kept its
    share. Envoy's cluster of the subset is empty and that share gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get deployment` shows 0/0; `istioctl proxy-config endpoints` prints nothing for the subset.

    How to fix it: scale the workload up, or take its share away first.
    """
    for branches in case.caused("subset-scaled-to-zero"):
        first = branches[0]
        u = first.upstream
        if u.service is None:
            continue
        stopped = case.owners(u.service, u)
        cluster, workload = stopped[0]
        host, share = short(u.host), case.share(branches)
        yield case.finding(
            "subset-scaled-to-zero",
            cluster=cluster.name,
            resource=workload.ref,
            path="spec.replicas",
            message=f"Subset {u.subset} of {host} gets {percent(share)} of the requests of a rule and {workload.ref} stands at 0 replicas.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{w.ref} in {c.name}: spec.replicas 0, its pods would carry {labels(u)}" for c, w in stopped),
                f"{first.resource} {first.path} leads there",
                *proof(case, first),
            ),
            fix=f"Scale {workload.ref} up, or take the weight off subset {u.subset}.",
            patch=reweigh(case, branches),
            commands=(
                f"kubectl -n {workload.namespace} get {workload.ref.partition(' ')[0].lower()} {workload.name}",
                endpoints_command(u),
            ),
        )
    shown(case, VirtualService, DestinationRule)
