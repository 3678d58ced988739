"""vs-route-shadowed (MESH212)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.binding import covers, described, rulesets, ruling, virtual_service
from checks.finding import Finding, HostCue, check
from checks.patches import Moved, at
from checks.rulesets import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.rulesets import Rule, RuleSet


@HostCue
def _several(istiod: Istiod) -> Iterable[str]:
    """Some VirtualService of the host has several rules."""
    return ruling(istiod, lambda r: len(r.http) > 1)


@check("vs-route-shadowed", when=_several)
def vs_route_shadowed(case: Case) -> Iterator[Finding]:
    """A rule is never reached, since an earlier rule of the same VirtualService takes everything that it would match.

    The first rule that matches wins, and nothing after a rule without match is used at all. A prefix takes every longer path, whatever
    stands behind it.

    How to see it: `istioctl proxy-config routes <pod> -o json` has the rules in their order; what follows a match of everything is not there.

    How to fix it: put the narrower rule first.
    """
    for istiod, r in rulesets(case):
        if r.gateway_api:
            continue
        views = [v for v in case.views if v.ups.istiod is istiod and any(s.source == r.ref for s in v.steps)]
        for hidden, by in _shadowed(r) if views else ():
            yield case.finding(
                "vs-route-shadowed",
                cluster=case.mesh.cluster(istiod.cluster).name,
                resource=hidden.leaf,
                path=hidden.path,
                message=f"{hidden.path} of {hidden.leaf} never gets a request: {_place(by, hidden)} takes everything that it matches.",
                share=0.0,
                viewpoints=tuple(dict.fromkeys(x for v in views for x in v.callers.viewpoints)),
                evidence=(f"{by.path} of {by.leaf} matches {_said(by)}", f"{hidden.path} of {hidden.leaf} matches {_said(hidden)}"),
                fix=f"Move {hidden.path} of {hidden.leaf} before {_place(by, hidden)}, or remove it.",
                patch=_patch(case, istiod, hidden, by),
                commands=("istioctl proxy-config routes <pod> -o json",),
            )


def _patch(case: Case, istiod: Istiod, hidden: Rule, by: Rule) -> str | None:
    """The rule moved before the one that takes everything."""
    (*rules, here), (*others, there) = at(hidden.path), at(by.path)
    if hidden.leaf != by.leaf or rules != others:
        return None
    return case.patch(istiod.cluster, virtual_service(istiod, hidden.leaf), ((*rules, there), Moved(int(here))))


def _shadowed(r: RuleSet) -> Iterator[tuple[Rule, Rule]]:
    """Rules that nobody reaches, each with the earlier rule that takes (most of) its place; not those that say the same."""
    for j, rule in enumerate(r.http):
        before = r.http[:j]
        takers = [next((b for b in before for have in (b.matches or (None,)) if covers(have, m)), None) for m in (rule.matches or (None,))]
        if takers and all(takers) and (by := takers[0]) is not None and not _same(by, rule):
            yield rule, by


def _same(a: Rule, b: Rule) -> bool:
    if a.raw is None or b.raw is None:
        return False
    return replace(a.raw, match=None, name="") == replace(b.raw, match=None, name="") and a.leaf == b.leaf


def _place(rule: Rule, beside: Rule) -> str:
    return rule.path if rule.leaf == beside.leaf else f"{rule.path} of {rule.leaf}"


def _said(rule: Rule) -> str:
    return (
        " or ".join(dict.fromkeys(f"{describe(m)}{f' ({asked})' if (asked := described(m)) else ''}" for m in rule.matches))
        or "every request"
    )
