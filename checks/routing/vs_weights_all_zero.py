"""vs-weights-all-zero (MESH215)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import virtual_service
from checks.finding import Finding, check
from checks.patches import at
from checks.resources import VirtualService
from checks.routing import by_rule
from checks.subsets import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


def _weightless(case: Case) -> bool:
    """Some rule gives none of its destinations anything."""
    return any([len(s.targets) > 1 and not any([w for _, w, _ in s.targets]) for s in case.steps])


@check("vs-weights-all-zero", when=_weightless)
def vs_weights_all_zero(case: Case) -> Iterator[Finding]:
    """A rule has several destinations and the sum of their weights is 0.

    istiod's webhook refuses such a VirtualService. One that was stored past it (webhook off or failing open) is pushed, and Envoy rejects the
    whole table of routes or listener that holds the rule: proxies keep what they had before, so no later change of that port reaches them, and a
    proxy that starts gets no route there at all.

    How to see it: `istioctl proxy-status` shows the routes as stale; istiod's log says "Sum of weights in the weighted_cluster must be
    greater than 0".

    How to fix it: give at least one destination a weight.
    """
    for branches in by_rule(case):
        first = branches[0]
        if len(first.step.targets) < 2 or any(b.weight for b in branches) or not first.resource.startswith("VirtualService "):
            continue
        rule = first.path.rpartition(".route[")[0]
        yield case.finding(
            "vs-weights-all-zero",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{rule}.route",
            message=(
                f"Envoy rejects the routes of port {first.step.port}: every destination of {rule} of {first.resource} has weight 0. "
                "Running proxies keep their last routes, and new ones get none."
            ),
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{rule}.route of {first.resource} has {len(first.step.targets)} destinations, and their weights add up to 0",),
            fix="Give at least one destination of the rule a weight above 0.",
            patch=case.patch(
                first.view.ups.istiod.cluster,
                virtual_service(first.view.ups.istiod, first.resource),
                *(((*at(path), "weight"), 1) for path in dict.fromkeys(b.path for b in branches)),
            ),
            commands=("istioctl proxy-status", f"istioctl proxy-config routes <pod> --name {first.step.port}"),
        )
    shown(case, VirtualService)
