"""subset-empty-weighted (MESH101)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import empty, nobody, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("subset-empty-weighted")
def _explains(case: Case, branch: Branch) -> bool:
    return nobody(case, branch) and not case.whole(branch)


@check("subset-empty-weighted", when=explained)
def subset_empty_weighted(case: Case) -> Iterator[Finding]:
    """A weighted destination names a subset that no endpoint of the service carries.

    The DestinationRule defines the subset by labels, the route gives it a share of the requests, and no pod behind the Service has those
    labels. Envoy holds the cluster without a single host and answers that share with 503 "no healthy upstream" (flag UH); retries do not
    help, since they stay in the same cluster.

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80|v1|HOST'` prints no line; `kubectl get pods -l` with the
    Service's selector and the subset's labels prints none.

    How to fix it: deploy the version, or move its weight to a subset that has endpoints.
    """
    for branches in case.caused("subset-empty-weighted"):
        yield empty(case, "subset-empty-weighted", branches)
    shown(case, VirtualService, DestinationRule)
