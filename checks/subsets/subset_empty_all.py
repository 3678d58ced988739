"""subset-empty-all (MESH102)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import empty, nobody, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("subset-empty-all")
def _explains(case: Case, branch: Branch) -> bool:
    return nobody(case, branch) and case.whole(branch)


@check("subset-empty-all", when=explained)
def subset_empty_all(case: Case) -> Iterator[Finding]:
    """The only destination of a rule names a subset that no endpoint of the service carries.

    A single destination gets every request, whatever its weight says. With no endpoint that carries the subset's labels, Envoy answers all
    of them with 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80|v1|HOST'` prints no line.

    How to fix it: deploy the version, or point the rule at a subset that has endpoints, or at none.
    """
    for branches in case.caused("subset-empty-all"):
        yield empty(case, "subset-empty-all", branches)
    shown(case, VirtualService, DestinationRule)
