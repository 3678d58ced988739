"""vs-duplicate-mesh-host (MESH206)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import claims, holes
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
    then those exported to it, then the public ones, each the oldest first; the rest have no effect for it. (Gateways do merge them.) What no
    rule of the first one matches gets 404, even where another one has a rule for it.

    How to see it: `istioctl proxy-config routes <pod> -o json` names one VirtualService in the metadata of every route of the host.

    How to fix it: put the rules into one VirtualService, or make the others its delegates.
    """
    lost: dict[tuple[str, str], list[Claim]] = {}
    refs: dict[str, RuleSet] = {}
    for c in claims(case):
        for other in c.unheard(case.host):
            lost.setdefault((c.rulesets[0].ref, other.ref), []).append(c)
            refs |= {r.ref: r for r in (c.rulesets[0], other)}
    unserved = {group[0].ruleset.ref for group in holes(case, "vs-duplicate-mesh-host")}
    for (kept, gone), felt in lost.items():
        first = felt[0]
        rest = f" What no rule of {kept} matches gets 404." if gone in unserved else ""
        ports = ", ".join(str(p) for p in sorted({c.port for c in felt}))
        yield case.finding(
            "vs-duplicate-mesh-host",
            cluster=case.mesh.cluster(first.view.ups.istiod.cluster).name,
            resource=gone,
            path="spec.hosts",
            message=f"The rules of {gone} have no effect: {kept} names {short(case.host)} as well, and callers get only the first.{rest}",
            share=1.0 if rest else 0.0,
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
