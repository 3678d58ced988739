"""last-usable-endpoint (MESH324)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator


@check("last-usable-endpoint")
def last_usable_endpoint(case: Case) -> Iterator[Finding]:
    """A destination lives on its last usable endpoint while its workload wants more.

    Nothing fails, and nothing else is between this and a failure: the next eviction, node drain or failed probe breaks every request that
    goes there. A workload that wants only one pod is not meant.

    How to see it: `kubectl get deployment` shows 1/3.

    How to fix it: find out why the others are not ready.
    """
    seen: dict[str, list[Branch]] = {}
    for b in case.branches:
        if b.share > 0 and b.upstream.usable and not b.upstream.unseen:
            seen.setdefault(b.upstream.name, []).append(b)
    for branches in seen.values():
        first = min(branches, key=lambda b: sum(e.health == "healthy" for e in b.upstream.endpoints))
        u = first.upstream
        usable = [e for e in u.endpoints if e.health == "healthy"]
        service = u.service
        if len(usable) != 1 or service is None or not service.kubernetes:
            continue
        owners = case.owners(service, u if u.subset else None)
        wanted = sum(w.wanted for _, w in owners)
        if wanted < 2 or not usable[0].workload:
            continue
        what = f"subset {u.subset} of {short(u.host)}" if u.subset else short(u.host)
        others = {e.address: e for e in case.candidates(u) if e.health != "healthy"}
        yield case.finding(
            "last-usable-endpoint",
            cluster=case.cluster_of(first),
            resource=owners[0][1].ref,
            path="status.readyReplicas",
            message=f"{what[0].upper() + what[1:]} has 1 usable endpoint of {wanted} wanted: the next loss breaks it.",
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{w.ref} in {c.name} wants {w.wanted}, {w.status.ready_replicas} ready" for c, w in owners),
                *(f"{e.workload} at {e.address}: {e.reason}" for e in list(others.values())[:5]),
            ),
            fix=f"Find out why the other pods of {owners[0][1].ref} are not ready.",
            commands=(f"kubectl -n {service.namespace} get pods -o wide", endpoints_command(u)),
        )
