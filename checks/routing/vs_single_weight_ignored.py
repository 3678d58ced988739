"""vs-single-weight-ignored (MESH216)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.binding import virtual_service
from checks.case import short
from checks.finding import Finding, Severity, check
from checks.patches import AWAY, at
from checks.resources import VirtualService
from checks.routing import by_rule
from checks.subsets import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


def _weighed(case: Case) -> bool:
    """Some rule gives its only destination less than everything."""
    return any([len(s.targets) == 1 and 0 < s.targets[0][1] < 100 for s in case.steps])


@check("vs-single-weight-ignored", when=_weighed)
def vs_single_weight_ignored(case: Case) -> Iterator[Finding]:
    """A rule's only destination has a weight that is not 100, and gets every request all the same.

    With one destination istiod writes no weights. Somebody who meant 5 % for a canary and left the rest out sends it everything. Nothing fails
    by this alone.

    How to see it: `istioctl proxy-config routes <pod> -o json` shows a plain cluster in place of weighted ones.

    How to fix it: add the destination that should get the rest, or remove the weight.
    """
    for branches in by_rule(case):
        first = branches[0]
        if len(first.step.targets) > 1 or not 0 < first.weight < 100 or not first.resource.startswith("VirtualService "):
            continue
        u = first.upstream
        name = f"subset {u.subset} of {short(u.host)}" if u.subset else short(u.host)
        found = case.finding(
            "vs-single-weight-ignored",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.weight",
            message=f"Weight {first.weight} of {name} has no effect: it is the rule's only destination and gets every request.",
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{first.path} of {first.resource} has weight {first.weight} and stands alone",),
            fix="Add the destination that should get the rest of the requests, or remove the weight.",
            patch=case.patch(
                first.view.ups.istiod.cluster,
                virtual_service(first.view.ups.istiod, first.resource),
                ((*at(first.path), "weight"), AWAY),
            ),
            commands=("istioctl proxy-config routes <pod> -o json",),
        )
        yield replace(found, severity=Severity.INFO)
    shown(case, VirtualService)
