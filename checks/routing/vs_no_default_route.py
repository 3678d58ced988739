"""vs-no-default-route (MESH211)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import holes, virtual_service
from checks.case import short
from checks.finding import Finding, check
from checks.when import selective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.rulesets import RuleSet


@check("vs-no-default-route", when=selective)
def vs_no_default_route(case: Case) -> Iterator[Finding]:
    """Every rule of a host has a match, so requests that match none get 404.

    Once a VirtualService or route takes a host, the service's own default route is gone: what no rule matches is answered with 404 (flag
    NR). A gateway that publishes only some paths of a host does that on purpose and is not reported; one whose every rule asks for more
    than a path is.

    How to see it: `istioctl proxy-config routes <pod> -o json` has no match for the prefix `/` in the host's virtual host.

    How to fix it: add a last rule without match.
    """
    for group in holes(case, "vs-no-default-route"):
        first = group[0]
        steps = [s for h in group for s in h.view.steps if s.port == h.port and s.protocol == "http"]
        resource = first.ruleset.ref if not first.ruleset.gateway_api else steps[0].leaf or first.ruleset.ref
        matches = list(dict.fromkeys(f"{s.path} of {s.leaf or s.source}: {s.match}" for s in steps))
        ports = ", ".join(str(p) for p in sorted({h.port for h in group}))
        yield case.finding(
            "vs-no-default-route",
            cluster=case.mesh.cluster(first.view.ups.istiod.cluster).name,
            resource=resource,
            path="spec.rules" if first.ruleset.gateway_api else "spec.http",
            message=(
                f"Requests to {short(case.host)} (port {ports}) that match no rule of {resource} get 404: "
                f"every rule has a match, and none takes the rest."
            ),
            share=1.0,
            viewpoints=tuple(dict.fromkeys(v for h in group for v in h.view.callers.viewpoints)),
            evidence=tuple(matches[:8]),
            fix=f"Add a last rule without match to {resource}, or make the last rule's match `prefix: /`.",
            patch=_patch(case, first.view.ups.istiod, first.ruleset),
            commands=(f"istioctl proxy-config routes <pod> --name {first.port} -o json",),
        )


def _patch(case: Case, istiod: Istiod, ruleset: RuleSet) -> str | None:
    """A last rule that leads the rest to the host itself, as without the VirtualService."""
    vs = virtual_service(istiod, ruleset.ref)
    if vs is None or case.host not in istiod.by_host:
        return None
    rest = {"route": [{"destination": {"host": case.host}}]}
    return case.patch(istiod.cluster, vs, (("spec", "http", len(vs.spec.http or ())), rest))
