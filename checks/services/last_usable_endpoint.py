"""last-usable-endpoint (MESH324)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.resources import Workload


def _lonely(case: Case) -> bool:
    """Some destination may have one usable endpoint."""
    return any([u.healthy == 1 or (u.service is not None and u.service.node_local) for u in case.upstreams])


@check("last-usable-endpoint", when=_lonely)
def last_usable_endpoint(case: Case) -> Iterator[Finding]:
    """A destination lives on its last usable endpoint while its workload wants more.

    Nothing fails, and nothing else is between this and a failure: the next eviction, node drain or failed probe breaks every request that
    goes there. A workload that wants only one pod is not meant.

    How to see it: `kubectl get deployment` shows 1/3.

    How to fix it: find out why the others are not ready.
    """
    lonely: dict[tuple[str, str, str], list[Branch]] = {}
    for b in case.branches:
        if b.share > 0 and (where := _alone(b)) and sum(w.wanted for _, w in _owners(case, b, where)) > 1:
            lonely.setdefault((*b.aim[:2], where), []).append(b)
    for (_, _, where), branches in lonely.items():
        first = branches[0]
        u = first.upstream
        owners = _owners(case, first, where)
        cluster, workload = owners[0]
        others = {e.address: e for e in case.candidates(u) if e.health != "healthy"}
        what = f"subset {u.subset} of {short(u.host)}" if u.subset else short(u.host)
        yield case.finding(
            "last-usable-endpoint",
            cluster=cluster.name,
            resource=workload.ref,
            path="status.readyReplicas",
            message=f"Only 1 of the {sum(w.wanted for _, w in owners)} endpoints that {what} wants is usable: the next loss breaks it.",
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{w.ref} in {c.name} wants {w.wanted}, {w.ready} ready" for c, w in owners),
                *(f"{e.workload} at {e.address}: {e.reason}" for e in list(others.values())[:5]),
            ),
            fix=f"Find out why the other pods of {workload.ref} are not ready.",
            commands=(f"kubectl -n {workload.namespace} get pods -o wide", endpoints_command(u)),
        )


def _alone(branch: Branch) -> str:
    """The cluster ID of a destination's only usable endpoint; empty when there are more, or when it is no pod of a workload."""
    u = branch.upstream
    if u.unseen or u.service is None or not u.service.kubernetes:
        return ""
    # of a service that each node, or each locality, serves for itself, one endpoint here is what it wants
    some = Case.candidates(u) if u.service.node_local else (*u.endpoints, *u.elsewhere)
    usable = list(islice((e for e in some if e.health == "healthy"), 2))
    return usable[0].cluster if len(usable) == 1 and usable[0].workload else ""


def _owners(case: Case, branch: Branch, cluster_id: str) -> list[tuple[Cluster, Workload]]:
    """The workloads that would stand beside the last endpoint, the one that lacks most first; what other clusters want, they want there."""
    u = branch.upstream
    found = case.owners(u.service, u if u.subset else None) if u.service else []
    beside = [(c, w) for c, w in found if case.mesh.cluster_id(c) == cluster_id]
    return sorted(beside, key=lambda o: o[1].ready - o[1].wanted)
