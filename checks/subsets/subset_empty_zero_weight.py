"""subset-empty-zero-weight (MESH119)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check
from checks.resources import DestinationRule, VirtualService
from checks.subsets import labels, proof, shown
from checks.when import useless

if TYPE_CHECKING:
    from collections.abc import Iterator


@check("subset-empty-zero-weight", when=useless)
def subset_empty_zero_weight(case: Case) -> Iterator[Finding]:
    """The destination of a rollout that has weight 0 has no usable endpoint either.

    Nothing fails yet: weight 0 beside other destinations gets no request. The next step of the rollout, or of its roll-back, gives it
    weight, and that share fails from this instant on.

    How to see it: `istioctl proxy-config endpoints` prints nothing for the subset.

    How to fix it: bring the subset up before it gets weight, or remove the destination.
    """
    waiting: dict[str, list[Branch]] = {}
    for b in case.branches:
        u = b.upstream
        if len(b.step.targets) > 1 and b.weight == 0 and u.subset and u.defined and u.fails:
            waiting.setdefault(f"{b.resource} {u.name}", []).append(b)
    for branches in waiting.values():
        first = branches[0]
        u = first.upstream
        yield case.finding(
            "subset-empty-zero-weight",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=first.path,
            message=f"Subset {u.subset} of {short(u.host)} has weight 0 and no usable endpoint: the next change of weights fails.",
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=proof(case, first),
            fix=f"Bring up pods with {labels(u)} before the subset gets weight, or remove the destination.",
            commands=(endpoints_command(u),),
        )
    shown(case, VirtualService, DestinationRule)
