"""istiod-shard-divergence (MESH906)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import of_shards, shard_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import IstiodView


@check("istiod-shard-divergence")
def istiod_shard_divergence(case: Case) -> Iterator[Finding]:
    """Of several istiod replicas one holds other endpoints than its siblings and than the EndpointSlices.

    Each replica watches the API server by itself. One that has lost its watch serves its own proxies what it last saw, while those connected to
    the others are well: the same service fails from some pods and works from others.

    How to see it: compare `/debug/endpointShardz` of the replicas; `istioctl proxy-status` says which proxy is connected to which.

    How to fix it: restart the replica that differs.
    """
    found = of_shards(case).get("istiod-shard-divergence", [])
    # where it is known who is connected to the replica that differs, the others are well
    found = [s for s in found if s.istiod.proxies is None or s.branch.view.callers.namespaces & _connected(s.istiod)]
    if found:
        view = found[0].istiod
        yield shard_finding(
            case,
            "istiod-shard-divergence",
            found,
            f"istiod {view.pod}.{view.namespace} holds other endpoints than its siblings, and so do the proxies that are connected to it",
            f"Restart istiod {view.namespace}/{view.pod}.",
        )


def _connected(view: IstiodView) -> set[str]:
    """The namespaces of the proxies that are connected to a replica."""
    return {proxy.rpartition(".")[2] for proxy in view.proxies or {}}
