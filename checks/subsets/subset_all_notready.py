"""subset-all-notready (MESH104)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short, waits
from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import labels, percent, proof, reweigh, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("subset-all-notready", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.defined or not u.subset:
        return False
    # pods without an address, such as those that no node takes, are in no EndpointSlice
    return any(e.unready for e in case.candidates(u)) or (not case.candidates(u) and bool(case.unready(u.service, u)))


@check("subset-all-notready", when=explained)
def subset_all_notready(case: Case) -> Iterator[Finding]:
    """Every pod of a subset fails its readiness probe while other pods of the service are ready.

    The pods are there, so a look at their number shows nothing. istiod sends their endpoints as unhealthy (before Istio 1.31: not at all),
    and Envoy, without panic mode, answers the subset's share with 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get pods` shows 0/1 or 1/2 ready; `istioctl proxy-config endpoints` shows UNHEALTHY.

    How to fix it: mend the app or its readiness probe; until then take the share away from the subset.
    """
    for branches in case.caused("subset-all-notready"):
        first = branches[0]
        u = first.upstream
        waiting = {e.address: f"{e.workload} at {e.at} ({labels(u)}): {e.reason}" for e in case.candidates(u) if e.unready}
        pods = case.unready(u.service, u) if u.service else []
        lines = list(waiting.values()) or [f"{p.ref} in {c.name} ({labels(u)}): {waits(p)}" for c, p in pods]
        host, share, count = short(u.host), case.share(branches), len(lines)
        yield case.finding(
            "subset-all-notready",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=first.path,
            message=f"Subset {u.subset} of {host} gets {percent(share)} of the requests of a rule, and no pod of it is ready (0 of {count}).",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*lines[:5], *proof(case, first)),
            fix=f"Make the pods with {labels(u)} ready (app or readiness probe), or take the weight off subset {u.subset} until they are.",
            patch=reweigh(case, branches),
            commands=(f"kubectl -n {u.service.namespace if u.service else ''} get pods -l '{labels(u)}'", endpoints_command(u)),
        )
    shown(case, VirtualService, DestinationRule)
