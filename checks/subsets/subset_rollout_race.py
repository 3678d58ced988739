"""subset-rollout-race (MESH105)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, ReplicaSet, VirtualService
from checks.subsets import labels, percent, proof, reweigh, shown, wanted_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

HASHES = ("rollouts-pod-template-hash", "pod-template-hash")


@explains(
    "subset-rollout-race",
    before=("subset-all-notready", "subset-scaled-to-zero", "subset-label-not-on-pods", "subset-empty-weighted", "subset-empty-all"),
)
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if not u.defined or u.service is None or not any(k in wanted_labels(u) for k in HASHES):
        return False
    return any(e.health == "healthy" for e in case.endpoints(branch.view.ups.istiod, u.service))


@check("subset-rollout-race", when=explained)
def subset_rollout_race(case: Case) -> Iterator[Finding]:
    """A progressive rollout has given weight to a ReplicaSet's hash that has no usable endpoint yet, or none any more.

    Argo Rollouts writes the hash of a ReplicaSet into the DestinationRule's subset and moves the weight in the VirtualService. Where it does so
    before the pods of the new hash are ready, or scales the old ones down before every proxy knows the new weights, this share gets 503
    "no healthy upstream" (flag UH), for seconds in the ordinary case, for good when the rollout was aborted in between.

    How to see it: `kubectl get replicasets` beside the hash in the DestinationRule's `subsets[].labels`.

    How to fix it: let the rollout wait for endpoints (`dynamicStableScale: false`, a longer `scaleDownDelaySeconds`, a pause before the first
    step); one that is stuck: promote or undo it.
    """
    for branches in case.caused("subset-rollout-race"):
        first = branches[0]
        u, share = first.upstream, case.share(branches)
        if u.service is None:
            continue
        wanted = wanted_labels(u)
        key, value = next((k, wanted[k]) for k in HASHES if k in wanted)
        sets = [r for c in case.mesh.clusters for r in c.ordered(ReplicaSet, u.service.namespace) if r.labels.get(key) == value]
        known = not any(case.mesh.unread(c, ReplicaSet) for c in case.mesh.clusters)
        there = f"{sets[0].ref} has no usable endpoint" if sets else "it has no usable endpoint"
        if known and not sets:
            there = f"no ReplicaSet of namespace {u.service.namespace} has this hash"
        yield case.finding(
            "subset-rollout-race",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=first.path,
            message=(
                f"{percent(share)} of the requests of a rule go to subset {u.subset} of {short(u.host)}, {labels(u)}: "
                f"{there}, so the rollout moved the weight before the endpoints, or its pods are gone."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(there, *proof(case, first)),
            fix=(
                f"Promote or undo the rollout of {short(u.host)} so that subset {u.subset} gets pods or loses its weight, "
                "and let it wait for endpoints before it moves weight."
            ),
            patch=reweigh(case, branches),
            commands=(f"kubectl -n {u.service.namespace} get replicasets -l '{key}={value}'", endpoints_command(u)),
        )
    shown(case, VirtualService, DestinationRule)
