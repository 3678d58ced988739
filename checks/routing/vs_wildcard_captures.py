"""vs-wildcard-captures (MESH207)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.binding import claims, gates
from checks.case import Branch, Case, short
from checks.finding import Finding, check, explains
from checks.legs import rule_of
from checks.when import contested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Claim
    from checks.rulesets import RuleSet


def _captured(case: Case, c: Claim) -> RuleSet | None:
    """The wildcard VirtualService of another namespace that has a service's port, leads elsewhere, and not through a gateway on purpose."""
    first = c.rulesets[0]
    service = c.view.ups.scope.services.get(case.host)
    if service is None or names.is_wildcard(case.host) or first.gateway_api or first.namespace == service.namespace:
        return None
    if case.host in {h.lower() for h in first.hosts}:
        return None
    to = [t for t in first.destinations(c.view.ups.proxy.namespace) if t]
    behind = [c.view.ups.scope.services.get(t) for t in to]
    through = any(
        s and s.selector and g.namespace == s.namespace and g.selected(dict(s.selector)) for s in behind for g in gates(case.mesh)
    )
    return None if case.host in to or through else first


@explains("vs-wildcard-captures", before=("vs-port-omitted-other-port", "vs-port-omitted-multiport", "vs-dest-port-unknown"))
def _explains(case: Case, branch: Branch) -> bool:
    u, view = branch.upstream, branch.view
    if u.service is None or u.service.port(u.port) is not None or branch.step.host != case.host:
        return False
    rule = rule_of(view.ups.istiod, branch.step)
    omitted = rule is not None and any(t.path == branch.path and t.port is None for t in rule.targets)
    return omitted and any(
        c.view is view and c.port == branch.step.port and (r := _captured(case, c)) and r.ref == branch.step.source for c in claims(case)
    )


@check("vs-wildcard-captures", when=contested)
def vs_wildcard_captures(case: Case) -> Iterator[Finding]:
    """A VirtualService of another namespace takes a service by a wildcard host and leads its callers elsewhere.

    A service without a VirtualService of its own gets the one whose wildcard (`*.shop.svc.cluster.local`, `*`) fits it best, wherever it
    stands, if it is exported to the caller. Requests then go to that rule's destinations, on the ports that those have.

    How to see it: the route metadata in `istioctl proxy-config routes <pod> -o json` names a VirtualService of another namespace.

    How to fix it: narrow the hosts or exportTo of the wildcard VirtualService, or give the service a VirtualService of its own.
    """
    felt: dict[str, list[Claim]] = {}
    found: dict[str, RuleSet] = {}
    for c in claims(case):
        captured = _captured(case, c)
        if captured is not None:
            felt.setdefault(captured.ref, []).append(c)
            found[captured.ref] = captured
    dead = [b for group in case.caused("vs-wildcard-captures") for b in group]
    for ref, claimed in felt.items():
        ruleset, mine = found[ref], [b for b in dead if b.step.source == ref]
        wild = ", ".join(h for h in ruleset.hosts if names.matches(h, case.host))
        to = sorted(t for t in ruleset.leads if t)
        share = case.share(mine)
        what = "fail or go elsewhere" if share else "go elsewhere"
        lacking = tuple(f"{b.upstream.host} has no port {b.upstream.port}" for b in mine)
        yield case.finding(
            "vs-wildcard-captures",
            cluster=case.mesh.cluster(claimed[0].view.ups.istiod.cluster).name,
            resource=ref,
            path=f"spec.hosts[{ruleset.hosts.index(wild.split(', ')[0])}]",
            message=f"Requests to {short(case.host)} {what}: {ref} of namespace {ruleset.namespace} takes it by its host {wild}.",
            share=share,
            viewpoints=tuple(dict.fromkeys(v for c in claimed for v in c.view.callers.viewpoints)),
            evidence=(
                f"{ref} has hosts {', '.join(ruleset.hosts)} and leads to {', '.join(map(short, to)) or 'no destination'}",
                f"no VirtualService names {case.host} itself for these callers",
                *dict.fromkeys(lacking),
            ),
            fix=f"Narrow the hosts or exportTo of {ref}, or give {short(case.host)} a VirtualService of its own.",
            commands=(f"istioctl proxy-config routes <pod> --name {claimed[0].port} -o json",),
        )
