"""vs-not-exported (MESH221)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Binding, bindings, rulesets, ruling, virtual_service
from checks.finding import Finding, HostCue, check
from checks.viewpoints import callers
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Case
    from checks.istiod import Istiod


@HostCue
def _kept(istiod: Istiod) -> Iterable[str]:
    """Some VirtualService of the host is not for everybody."""
    return ruling(istiod, lambda r: "*" not in r.export_to)


@check("vs-not-exported", when=(bound, _kept))
def vs_not_exported(case: Case) -> Iterator[Finding]:
    """A VirtualService is not exported to the namespace of the gateway that it is bound to, or to no namespace that exists.

    `exportTo` (or the mesh's default) names the namespaces whose proxies get a VirtualService. A gateway counts with the namespace of its
    pods, not with that of its Gateway. What is not exported to it is not there: 404 (flag NR) at the gateway; callers in the mesh fall back
    to the service's default route.

    How to see it: `istioctl proxy-config routes <gateway pod>` lacks the host.

    How to fix it: add the gateway's namespace to `exportTo`, or leave it out.
    """
    for b in bindings(case, "vs-not-exported"):
        spaces = sorted({g.namespace for g in b.gates})
        yield case.finding(
            "vs-not-exported",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=b.ruleset.ref,
            path="spec.exportTo",
            message=(
                f"Gateway {b.name} does not get {b.ruleset.ref}: its pods run in {', '.join(spaces)}, "
                f"and the VirtualService is exported to {_to(b.ruleset.export_to)} only."
            ),
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{b.ruleset.ref} is exported to {_to(b.ruleset.export_to)}",
                *(f"pods of gateway {g.viewpoint.selector or b.name} run in namespace {g.namespace}" for g in b.gates),
            ),
            fix=f"Add {', '.join(spaces)} to exportTo of {b.ruleset.ref}, or leave exportTo out.",
            patch=_patch(case, b, spaces),
            commands=(f"istioctl proxy-config routes <gateway pod> -n {spaces[0]}",),
        )
    around = callers(case.mesh)
    spaces = case.mesh.once(("calling namespaces",), (around,), lambda: sorted({c.viewpoint.namespace for c in around}))
    for istiod in case.mesh.control_planes:
        for owner, r in rulesets(case):
            known = istiod.namespaces
            lost = sorted(e for e in r.export_to if e not in known and e not in {"*", "~"})
            if owner is not istiod or r.gateway_api or not known or not lost or {"*", "~", *spaces} & r.export_to:
                continue
            yield case.finding(
                "vs-not-exported",
                cluster=case.mesh.cluster(istiod.cluster).name,
                resource=r.ref,
                path="spec.exportTo",
                message=f"Nobody gets {r.ref}: it is exported to {', '.join(lost)}, a namespace that does not exist.",
                share=0.0,
                viewpoints=case.viewpoints(case.branches) or tuple(c.viewpoint for c in callers(case.mesh)),
                evidence=(f"{r.ref} is exported to {_to(r.export_to)}", f"namespaces with callers: {', '.join(spaces)}"),
                fix=f"Correct exportTo of {r.ref}.",
                commands=(f"kubectl get namespace {' '.join(lost)}",),
            )


def _to(export_to: frozenset[str]) -> str:
    return ", ".join("no namespace (~)" if e == "~" else f"namespace {e}" for e in sorted(export_to))


def _patch(case: Case, b: Binding, spaces: list[str]) -> str | None:
    vs = virtual_service(b.istiod, b.ruleset.ref)
    if vs is None or not vs.spec.export_to or "~" in vs.spec.export_to:
        return None
    return case.patch(b.istiod.cluster, vs, (("spec", "exportTo"), [*vs.spec.export_to, *spaces]))
