"""vs-authority-rewrite (MESH222)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import virtual_service
from checks.case import short
from checks.finding import Finding, check
from checks.legs import Hop, dead_ends, knows
from checks.patches import AWAY
from checks.subsets import percent
from checks.when import beyond

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("vs-authority-rewrite", when=beyond)
def vs_authority_rewrite(case: Case) -> Iterator[Finding]:
    """A rule rewrites the authority to a host that the gateway it leads to does not know.

    The next proxy chooses its rules by the Host header as it arrives. `rewrite.authority`, or a rule that sets the Host header, changes it on
    the way; a gateway that has no such host answers 404 (its own flag is NR, the caller sees `via_upstream`).

    How to see it: the gateway's access log has 404 NR for the rewritten host; `istioctl proxy-config routes <gateway pod>` lacks it.

    How to fix it: remove the rewrite, or give the gateway a VirtualService for the host that it makes.
    """
    groups: dict[tuple[str, str], list[Hop]] = {}
    for end in dead_ends(case):
        if end.rewritten and id(end) not in case.named and (not end.abroad or knows(end, end.branch.step.host)):
            groups.setdefault((end.branch.resource, end.branch.step.path), []).append(end)
    for (resource, path), ends in groups.items():
        first = ends[0]
        branches = [e.branch for e in ends]
        share = case.share(branches)
        yield case.finding(
            "vs-authority-rewrite",
            cluster=case.cluster_of(first.branch),
            resource=resource,
            path=f"{path}.rewrite.authority",
            message=(
                f"{percent(share)} of the requests of a rule get 404: {path} of {resource} rewrites the host to {first.rewritten}, "
                f"which the gateway behind {short(first.branch.upstream.host)} does not serve."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{path} of {resource} sets the host to {first.rewritten}",
                first.told,
                f"the gateway in {first.service.namespace} serves Gateways {', '.join(sorted(b.name for g in first.gates for b in g.bound)) or 'none'}, none with a rule for it",
            ),
            fix=f"Remove the rewrite from {path} of {resource}, or bind a VirtualService for {first.rewritten} to that gateway.",
            patch=_patch(case, first),
            commands=(f"istioctl proxy-config routes <gateway pod> -n {first.service.namespace}",),
        )


def _patch(case: Case, end: Hop) -> str | None:
    """Without the rewrite."""
    istiod = end.branch.view.ups.istiod
    vs = virtual_service(istiod, end.branch.resource)
    number = end.branch.step.path.removeprefix("spec.http[").removesuffix("]")
    rewrite = (vs.spec.http or ())[int(number)].rewrite if vs is not None and number.isdigit() else None
    if rewrite is None or not rewrite.authority or rewrite.uri:
        return None
    return case.patch(istiod.cluster, vs, (("spec", "http", int(number), "rewrite"), AWAY))
