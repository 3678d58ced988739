"""gwapi-all-zero-weight (MESH723)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check, explains
from checks.gatewayapi import ZERO_WEIGHT
from checks.gateways import routes, said
from checks.when import failing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case, View
    from checks.istiod import Istiod
    from checks.resources import APIRoute
    from checks.sidecar import Step


@explains("gwapi-all-zero-weight", before=("vs-dest-host-unknown", "vs-dest-partial-name", "gwapi-backend-notfound", "subset-undefined"))
def _explains(_: Case, branch: Branch) -> bool:
    return branch.upstream.subset == ZERO_WEIGHT and branch.resource in routes(branch.view.ups.istiod)


@check("gwapi-all-zero-weight", when=failing)
def gwapi_all_zero_weight(case: Case) -> Iterator[Finding]:
    """Every backend of a route's rule has weight 0, or the rule has none, so its requests get 500.

    The Gateway API asks for an error where no backend may be chosen: the proxy answers 500 itself. Connections of a TCPRoute or TLSRoute are
    led to a cluster that does not exist, and closed. The route's status says that all is well.

    How to see it: `istioctl proxy-config routes <pod> -o json` has directResponse 500 for the rule.

    How to fix it: give a backend a weight above 0.
    """
    groups: dict[tuple[str, str], list[tuple[View, Step]]] = {}
    for view in case.views:
        for s in view.steps:
            if s.action == "direct_response 500" and s.leaf in routes(view.ups.istiod) and case.asked(s.port):
                groups.setdefault((s.leaf, s.path), []).append((view, s))
    for branches in case.caused("gwapi-all-zero-weight"):
        for b in branches:
            groups.setdefault((b.resource, b.path.removesuffix(".backendRefs")), []).append((b.view, b.step))
    for (ref, path), felt in groups.items():
        view, step = felt[0]
        route = routes(view.ups.istiod)[ref]
        rule = (route.spec.rules or ())[int(path.removeprefix("spec.rules[").removesuffix("]"))]
        listed = ", ".join(f"{said(b, route.namespace)} weight {b.weight}" for b in rule.backend_refs or ())
        yield case.finding(
            "gwapi-all-zero-weight",
            cluster=case.mesh.cluster(view.ups.istiod.cluster).name,
            resource=ref,
            path=f"{path}.backendRefs",
            message=(
                f"{'Requests' if step.protocol == 'http' else 'Connections'} to {short(case.host)} that match {path} of {ref} "
                f"{'get 500' if step.protocol == 'http' else 'are closed'}: {'every backend has weight 0' if listed else 'the rule has no backend'}."
            ),
            share=1.0,
            viewpoints=tuple(dict.fromkeys(v for w, _ in felt for v in w.callers.viewpoints)),
            evidence=(f"{path} of {ref} matches {step.match}", f"its backends: {listed or 'none'}"),
            fix=f"Give a backend of {path} of {ref} a weight above 0." if listed else f"Give {path} of {ref} a backend.",
            patch=_patch(case, view.ups.istiod, route, path),
            commands=("istioctl proxy-config routes <pod> -o json",),
        )


def _patch(case: Case, istiod: Istiod, route: APIRoute, path: str) -> str | None:
    """Weight 1 for every backend, as where no weight is written."""
    number = int(path.removeprefix("spec.rules[").removesuffix("]"))
    backends = (route.spec.rules or ())[number].backend_refs or ()
    edits = ((("spec", "rules", number, "backendRefs", i, "weight"), 1) for i in range(len(backends)))
    return case.patch(istiod.cluster, route, *edits)
