"""remote-sync-timeout (MESH602)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import of_shards, shard_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("remote-sync-timeout")
def remote_sync_timeout(case: Case) -> Iterator[Finding]:
    """Istiod gave up waiting for another cluster of its mesh when it started, and serves without its endpoints.

    A new istiod waits PILOT_REMOTE_CLUSTER_TIMEOUT (30 s) for each remote cluster and then calls itself ready. Where the other API server was slow or
    not reachable, everything of that cluster is absent until it answers: callers get what is local, or 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl remote-clusters` says timeout; `remote_cluster_sync_timeouts_total` grew when istiod started.

    How to fix it: make the other API server reachable, and raise PILOT_REMOTE_CLUSTER_TIMEOUT so that a new istiod waits for it.
    """
    found = of_shards(case).get("remote-sync-timeout", [])
    if found:
        view = found[0].istiod
        missing = ", ".join(sorted({e.cluster for s in found for e in s.lacking}))
        yield shard_finding(
            case,
            "remote-sync-timeout",
            found,
            f"istiod of {view.cluster} gave up waiting for cluster {missing}, where the endpoints are",
            f"Make the API server of {missing} reachable from {view.cluster}, and raise PILOT_REMOTE_CLUSTER_TIMEOUT of istiod.",
            (f"istiod {view.pod}.{view.namespace} says of {missing}: timeout",),
            ("istioctl remote-clusters",),
        )
