"""vs-gateway-only (MESH209)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.binding import rulesets, virtual_service
from checks.case import short
from checks.finding import Finding, Severity, check
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.rulesets import RuleSet


@check("vs-gateway-only", when=bound)
def vs_gateway_only(case: Case) -> Iterator[Finding]:
    """A VirtualService of a service is bound to gateways only, so callers in the mesh do not get its rules.

    Without `mesh` in `gateways`, sidecars use the service's default route: every version, no split, no fault, no timeout of this
    VirtualService. That harms nobody, and surprises whoever tests a canary from inside.

    How to see it: `istioctl proxy-config routes <pod>` shows the service with its default route.

    How to fix it: add `mesh` to `gateways` if callers in the mesh should get the same rules.
    """
    for istiod, r in rulesets(case):
        if (
            r.gateway_api
            or "mesh" in r.gateways
            or case.host not in istiod.by_host
            or case.host not in r.hosts
            or not _matters(r, case.host)
        ):
            continue
        inside = [v for v in case.views if v.callers.proxy.kind == "sidecar" and v.ups.istiod is istiod]
        plain = [v for v in inside if v.steps and not any(s.source for s in v.steps)]
        if not plain:
            continue
        found = case.finding(
            "vs-gateway-only",
            cluster=case.mesh.cluster(istiod.cluster).name,
            resource=r.ref,
            path="spec.gateways",
            message=f"Callers in the mesh do not get the rules of {r.ref} for {short(case.host)}: it is bound to {', '.join(r.gateways)} and not to mesh.",
            share=0.0,
            viewpoints=tuple(dict.fromkeys(x for v in plain for x in v.callers.viewpoints)),
            evidence=(f"spec.gateways of {r.ref}: {', '.join(r.gateways)}", f"these callers use the default route of {case.host}"),
            fix=f"Add mesh to spec.gateways of {r.ref} if callers in the mesh should get its rules.",
            patch=_patch(case, istiod, r),
            commands=("istioctl proxy-config routes <pod> -o json",),
        )
        yield replace(found, severity=Severity.INFO)


def _matters(r: RuleSet, host: str) -> bool:
    """Whether its rules are more than the default route."""
    return any(rule.action != "route" or rule.abort or any(t.subset or t.host != host for t in rule.targets) for rule in r.http) or bool(
        r.tcp or r.tls
    )


def _patch(case: Case, istiod: Istiod, r: RuleSet) -> str | None:
    """The VirtualService bound to the mesh as well."""
    vs = virtual_service(istiod, r.ref)
    gateways = vs.spec.gateways or () if vs else ()
    return case.patch(istiod.cluster, vs, (("spec", "gateways", len(gateways)), "mesh"))
