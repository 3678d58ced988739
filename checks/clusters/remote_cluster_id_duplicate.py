"""remote-cluster-id-duplicate (MESH603)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import services
from checks.finding import Finding, check
from checks.resources import Deployment, Pod
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Case
    from checks.mesh import Cluster


@check("remote-cluster-id-duplicate", when=several_clusters)
def remote_cluster_id_duplicate(case: Case) -> Iterator[Finding]:
    """Two clusters of a mesh have the same cluster ID.

    A control plane knows the clusters of its mesh by their IDs, and takes each ID once: a second cluster of the same ID is ignored, with all
    its endpoints, and so is one that has the control plane's own. Callers do not get what runs there; where nothing else serves a host they
    get 503 "no healthy upstream" (flag UH).

    How to see it: istiod logs "cluster has already been registered"; `istioctl remote-clusters` lists one of the two.

    How to fix it: a CLUSTER_ID of its own for each control plane (values.global.multiCluster.clusterName), and the same in the remote secrets.
    """
    mesh = case.mesh
    ids: dict[str, list[Cluster]] = {}
    for c in mesh.clusters:
        ids.setdefault(mesh.cluster_id(c), []).append(c)
    held = list(services(case))
    for name, group in ids.items():
        if len(group) < 2 or not held:
            continue
        ready = {c.name: _ready(case, c) for c in mesh.clusters}
        losing: dict[str, list[Viewpoint]] = {}
        for v in case.viewpoints(case.branches):
            here = mesh.cluster(v.cluster)
            seen = {here.name, *(g[0].name for i, g in ids.items() if i != mesh.cluster_id(here))}
            unseen = [c.name for c in group if c.name not in seen and ready[c.name]]
            if unseen:
                losing.setdefault("all" if not any(ready[s] for s in seen) else "some", []).append(v)
        for how in ("all", "some"):
            if how in losing:
                yield _finding(case, name, group, losing[how], ready, failing=how == "all")
                break


def _ready(case: Case, cluster: Cluster) -> int:
    """How many ready endpoints a cluster has for the host."""
    found = next((s for c, s in services(case) if c is cluster), None)
    slices = case.mesh.slices(cluster, found.namespace, found.name) if found is not None else ()
    return sum(e.conditions.ready is not False for s in slices for e in s.endpoints or ())


def _finding(case: Case, name: str, group: list[Cluster], losing: list[Viewpoint], ready: dict[str, int], *, failing: bool) -> Finding:
    last = group[-1]
    istiod = next((d.ref for kind in (Deployment, Pod) for d in last.sorted(kind) if d.labels.get("app") == "istiod"), "")
    where = " and ".join(c.name for c in group)
    clusters = " and ".join(dict.fromkeys(v.cluster for v in losing))
    effect = "fail" if failing else "do not use every endpoint"
    return case.finding(
        "remote-cluster-id-duplicate",
        cluster=last.name,
        resource=istiod,
        path="CLUSTER_ID",
        message=f"Requests from {clusters} to {short(case.host)} {effect}: {where} have the same cluster ID {name}, and istiod ignores the second.",
        share=1.0 if failing else 0.0,
        viewpoints=losing,
        evidence=(
            *(f"istiod of {c.name} says CLUSTER_ID={name}" for c in group),
            *(f"{c}: {n} ready endpoint{'s'[: n != 1]} of {short(case.host)}" for c, n in ready.items()),
        ),
        fix=f"Give each control plane a CLUSTER_ID of its own, and write the same into the remote secrets of {where}.",
        commands=tuple(f"istioctl --context {c.name} remote-clusters" for c in group),
    )
