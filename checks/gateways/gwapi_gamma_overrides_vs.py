"""gwapi-gamma-overrides-vs (MESH727)."""

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


@check("gwapi-gamma-overrides-vs", when=contested)
def gwapi_gamma_overrides_vs(case: Case) -> Iterator[Finding]:
    """A route of the Gateway API and a VirtualService both rule a service in the mesh, and callers get one of them only.

    For sidecars the two are not merged: a route of the caller's own namespace comes first, else the older of the two. The other has no
    effect. Where the route wins, requests that match none of its rules get 404, whatever the VirtualService would do with them.

    How to see it: the route metadata in `istioctl proxy-config routes <pod> -o json` names one of the two.

    How to fix it: one of both for a host.
    """
    felt: dict[tuple[str, str], list[Claim]] = {}
    for c in claims(case):
        own = [r for r in c.rulesets if r.gateway_api or case.host in {h.lower() for h in r.hosts}]
        other = next((r for r in own[1:] if r.gateway_api != own[0].gateway_api), None) if own else None
        if other is not None:
            felt.setdefault((_ref(own[0]), _ref(other)), []).append(c)
    missing = [h for group in holes(case, "gwapi-gamma-overrides-vs") for h in group]
    holes_of = {
        pair: [h for h in missing if any(h.view is c.view and h.port == c.port for c in where)]
        if not pair[0].startswith("VirtualService ")
        else []
        for pair, where in felt.items()
    }
    told: set[tuple[str, str]] = set()
    for (kept, lost), where in sorted(felt.items(), key=lambda x: (not holes_of[x[0]], not x[0][0].startswith("VirtualService "))):
        holed, others = holes_of[kept, lost], felt.get((lost, kept), [])
        share = 1.0 if holed else 0.0
        if (lost, kept) in told:
            continue  # one object too many, which some callers get and others do not, is one fault
        told.add((kept, lost))
        matches = dict.fromkeys(f"{s.leaf or s.source} matches {s.match}" for c in where for s in c.view.steps if s.port == c.port)
        views = [h.view for h in holed] if share else [c.view for c in (*where, *others)]
        yield case.finding(
            "gwapi-gamma-overrides-vs",
            cluster=case.mesh.cluster(where[0].view.ups.istiod.cluster).name,
            resource=lost,
            path="spec.parentRefs" if kept.startswith("VirtualService ") else "spec.hosts",
            message=(
                f"Requests to {short(case.host)} that {kept} does not match get 404: callers do not get {lost}, which would take them."
                if share
                else f"{lost} and {kept} both rule {short(case.host)}: {_whom(where)} get only {kept}, and {_whom(others)} only {lost}."
                if others
                else f"{lost} has no effect: {kept} rules {short(case.host)} as well, and callers get only that."
            ),
            share=share,
            viewpoints=tuple(dict.fromkeys(v for view in views for v in view.callers.viewpoints)),
            evidence=(f"{kept} and {lost} both rule {case.host} on port {where[0].port}", *list(matches)[:6]),
            fix=f"Move the rules of {lost} into {kept} and delete it, or the other way round.",
            commands=(f"istioctl proxy-config routes <pod> --name {where[0].port} -o json",),
        )


def _whom(found: list[Claim]) -> str:
    return f"callers in {' and '.join(dict.fromkeys(v.namespace for c in found for v in c.view.callers.viewpoints))}"


def _ref(r: RuleSet) -> str:
    return r.http[0].leaf if r.gateway_api and r.http else r.ref
