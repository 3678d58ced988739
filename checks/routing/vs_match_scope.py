"""vs-match-scope (MESH217)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import bindings, described, fits, holes, virtual_service
from checks.case import short
from checks.finding import Finding, check
from checks.patches import AWAY
from checks.rulesets import L4Rule
from checks.when import bound, selective

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.resources import HTTPMatch, HTTPRoute, L4Match, L4Route
    from checks.rulesets import Rule, RuleSet


@check("vs-match-scope", when=(bound, selective))
def vs_match_scope(case: Case) -> Iterator[Finding]:
    """A match's port, gateways, sourceLabels or sourceNamespace leaves a caller without a rule.

    These four say who is meant, not which request: `gateways` replaces the VirtualService's own list (and switches the other two off),
    `port` is the listener's, sourceLabels and sourceNamespace are the caller's. A gateway for which no rule is left answers 404 (flag NR), or takes
    no connection where it passes them on as they are;
    a sidecar that has some rules left, and not the one for all the rest, answers 404 to what they do not match. A sidecar without any
    rule left uses the service's default route.

    How to see it: `istioctl proxy-config routes <pod> -o json` differs between callers.

    How to fix it: widen or remove the condition, or add a rule for the callers that it leaves out.
    """
    for b in bindings(case, "vs-match-scope"):
        every: list[tuple[Rule | L4Rule, int, HTTPMatch | L4Match]] = [(r, i, m) for r in b.ruleset.http for i, m in enumerate(r.matches)]
        every += [(r, i, m) for r in (*b.ruleset.tls, *b.ruleset.tcp) if not b.ruleset.http for i, m in enumerate(r.matches)]
        conditions = [
            f"{rule.path}.match[{i}] of {_leaf(b.ruleset, rule)}: {described(m) or 'no condition on the caller'}" for rule, i, m in every
        ]
        rule, i, _ = next((x for x in every if b.name in (x[2].gateways or ())), every[0])
        servers = b.gateway.spec.servers or () if b.gateway else ()
        numbers = sorted({s.port.number for s in servers if fits(s, b.name.partition("/")[0], b.ruleset, case.host)})
        yield case.finding(
            "vs-match-scope",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=_leaf(b.ruleset, rule),
            path=f"{rule.path}.match[{i}]",
            message=f"Gateway {b.name} has no rule for {case.host}: every match of {b.ruleset.ref} is for other gateways, ports or callers.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(*dict.fromkeys(conditions), f"Gateway {b.name} listens for it on port {', '.join(map(str, numbers))}"),
            fix=f"Widen the match for Gateway {b.name}, or add a rule for it.",
            patch=_patch(case, b.istiod, _leaf(b.ruleset, rule), rule.path, i),
            commands=(f"istioctl proxy-config {'routes' if b.ruleset.http else 'listeners'} <gateway pod> -o json",),
        )
    for group in holes(case, "vs-match-scope"):
        first_hole = group[0]
        only = first_hole.rule
        if only is None:
            continue
        path = f"{only.path}.match[{first_hole.match}]"
        asked = described(only.matches[first_hole.match])
        who = sorted({v.namespace for h in group for v in h.view.callers.viewpoints})
        yield case.finding(
            "vs-match-scope",
            cluster=case.mesh.cluster(first_hole.view.ups.istiod.cluster).name,
            resource=only.leaf,
            path=path,
            message=(
                f"Callers in {', '.join(who)} get 404 from {short(case.host)} for what no other rule matches: "
                f"the rule for every request is for {asked} only."
            ),
            share=1.0,
            viewpoints=tuple(dict.fromkeys(v for h in group for v in h.view.callers.viewpoints)),
            evidence=(f"{path} of {only.leaf} asks for {asked}", f"these callers use port {', '.join(str(h.port) for h in group)}"),
            fix=f"Remove {asked} from {path} of {only.leaf}, or add a last rule without match.",
            patch=_patch(case, first_hole.view.ups.istiod, only.leaf, only.path, first_hole.match),
            commands=(f"istioctl proxy-config routes <pod> --name {first_hole.port} -o json",),
        )


def _leaf(ruleset: RuleSet, rule: Rule | L4Rule) -> str:
    """The object in which a rule stands: only http rules are delegated."""
    return ruleset.ref if isinstance(rule, L4Rule) else rule.leaf


def _patch(case: Case, istiod: Istiod, ref: str, path: str, match: int) -> str | None:
    """The match without its port, or without what it asks of the caller."""
    vs = virtual_service(istiod, ref)
    kind, _, number = path.removeprefix("spec.").removesuffix("]").partition("[")
    rules: Sequence[HTTPRoute | L4Route] = (getattr(vs.spec, kind) or ()) if vs is not None and number.isdigit() else ()
    matches = (rules[int(number)].match or ()) if rules else ()
    if match >= len(matches):
        return None  # a delegate's match stands with the root's
    asked = ["port"] if matches[match].port else ["sourceLabels", "sourceNamespace"]
    return case.patch(istiod.cluster, vs, *((("spec", kind, int(number), "match", match, field), AWAY) for field in asked))
