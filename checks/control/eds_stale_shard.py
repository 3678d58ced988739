"""eds-stale-shard (MESH905)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import of_shards, shard_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("eds-stale-shard")
def eds_stale_shard(case: Case) -> Iterator[Finding]:
    """Istiod itself holds other endpoints of a service than its EndpointSlices list.

    istiod has missed an event, or kept what should be gone, and pushes it to every proxy, which are SYNCED with what is wrong: calls go to
    addresses where nobody is (flag UF), or find nobody (UH), while the pods and slices are well.

    How to see it: `/debug/endpointShardz` of istiod, beside `kubectl get endpointslices` of the service.

    How to fix it: restart istiod, and upgrade it: it is a bug of its version.
    """
    found = of_shards(case).get("eds-stale-shard", [])
    if found:
        view = found[0].istiod
        yield shard_finding(
            case,
            "eds-stale-shard",
            found,
            f"istiod {view.pod}.{view.namespace} holds other endpoints than the EndpointSlices list, and its proxies with it",
            f"Restart istiod {view.namespace}/{view.pod}, and upgrade it: it has lost an event.",
        )
