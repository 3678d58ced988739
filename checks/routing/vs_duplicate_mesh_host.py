"""vs-duplicate-mesh-host (MESH206)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import claims
from checks.case import short
from checks.finding import Finding, check
from checks.when import contested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Claim
    from checks.case import Case
    from checks.rulesets import RuleSet


@check("vs-duplicate-mesh-host", when=contested)
def vs_duplicate_mesh_host(case: Case) -> Iterator[Finding]:
    """Two VirtualServices of the mesh name the same host, and callers get the rules of one only.

    For sidecars istiod does not merge VirtualServices of one host: of those that a caller gets it takes the caller's own namespace first,
    then those exported to it, then the public ones, each the oldest first; the rest have no effect for it. (Gateways do merge them.)

    How to see it: `istioctl proxy-config routes <pod> -o json` names one VirtualService in the metadata of every route of the host.

    How to fix it: put the rules into one VirtualService, or make the others its delegates.
    """
    lost: dict[tuple[str, str], list[Claim]] = {}
    refs: dict[str, RuleSet] = {}
    for c in claims(case):
        own = [r for r in c.rulesets if not r.gateway_api and case.host in {h.lower() for h in r.hosts}]
        if len(own) < 2 or own[0] is not c.rulesets[0]:
            continue
        for other in own[1:]:
            private = own[0].export_to == {own[0].namespace} == {c.view.ups.proxy.namespace} and other.namespace != own[0].namespace
            if not private:  # a namespace that overrides the host for its own callers means to
                lost.setdefault((own[0].ref, other.ref), []).append(c)
                refs |= {own[0].ref: own[0], other.ref: other}
    for (kept, gone), felt in lost.items():
        first = felt[0]
        ports = ", ".join(str(p) for p in sorted({c.port for c in felt}))
        yield case.finding(
            "vs-duplicate-mesh-host",
            cluster=case.mesh.cluster(first.view.ups.istiod.cluster).name,
            resource=gone,
            path="spec.hosts",
            message=f"The rules of {gone} have no effect: {kept} names {short(case.host)} as well, and callers get only the first.",
            share=0.0,
            viewpoints=tuple(dict.fromkeys(v for c in felt for v in c.view.callers.viewpoints)),
            evidence=(
                *(
                    f"{r.ref}: created {r.created or 'at an unknown time'}, exported to {', '.join(sorted(r.export_to))}"
                    for r in (refs[kept], refs[gone])
                ),
                f"these callers get {kept} for {case.host} on port {ports}",
            ),
            fix=f"Move the rules of {gone} into {kept}, or make it a delegate of that (without hosts).",
            commands=(
                f"kubectl get virtualservices -A | grep {short(case.host).split('.')[0]}",
                f"istioctl proxy-config routes <pod> --name {first.port} -o json",
            ),
        )
