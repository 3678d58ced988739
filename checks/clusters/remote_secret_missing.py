"""remote-secret-missing (MESH601)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import of_shards, shard_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("remote-secret-missing")
def remote_secret_missing(case: Case) -> Iterator[Finding]:
    """Istiod does not watch a cluster of its mesh: it has no remote secret for it, or one that does not work.

    A control plane reads the endpoints of another cluster with the kubeconfig in a Secret labelled `istio/multiCluster`. Without it, or with a
    token or certificate that has expired, everything of that cluster is absent: callers get what is local, or 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl remote-clusters` does not list the cluster, whose pods are ready.

    How to fix it: `istioctl create-remote-secret --name CLUSTER`, applied in the namespace of istiod.
    """
    found = of_shards(case).get("remote-secret-missing", [])
    if found:
        view = found[0].istiod
        missing = ", ".join(sorted({e.cluster for s in found for e in s.lacking}))
        known = ", ".join(f"{c} {state}" for c, state in sorted((view.remotes or {}).items()))
        yield shard_finding(
            case,
            "remote-secret-missing",
            found,
            f"istiod of {view.cluster} does not watch cluster {missing}, where the endpoints are",
            f"Create the remote secret of {missing} (istioctl create-remote-secret --name {missing}) and apply it in {view.cluster}, namespace {view.namespace}.",
            (f"istiod {view.pod}.{view.namespace} watches {known}",),
            ("istioctl remote-clusters", f"kubectl -n {view.namespace} get secrets -l istio/multiCluster=true"),
        )
