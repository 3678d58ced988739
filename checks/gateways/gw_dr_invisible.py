"""gw-dr-invisible (MESH705)."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from checks.case import Branch, Case, short
from checks.finding import Finding, check, explained, explains
from checks.subsets import missing, percent
from checks.viewpoints import classes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.resources import DestinationRule


def _seen_by_others(case: Case, branch: Branch) -> tuple[str, DestinationRule] | None:
    """A namespace of the mesh whose callers get the subset that the gateway does not get, and the rule that defines it."""
    u, istiod = branch.upstream, branch.view.ups.istiod
    if branch.view.callers.proxy.kind != "gateway" or u.service is None or not u.subset:
        return None
    if u.service.port(u.port) is None or (u.rule is not None and u.rule.subset(u.subset) is not None):
        return None
    for c in chain(*classes(case.mesh, u.service.hostname)) if istiod in case.mesh.control_planes else ():
        if c.proxy.kind != "sidecar" or case.mesh.istiod(c.viewpoints[0].cluster) is not istiod:
            continue
        rule = istiod.destination_rule(c.proxy, u.service)
        if rule is not None and rule.subset(u.subset) is not None:
            return c.proxy.namespace, rule.subset_origins[u.subset]
    return None


@explains("gw-dr-invisible", before=("subset-undefined", "dr-in-wrong-namespace", "dr-not-exported"))
def _explains(case: Case, branch: Branch) -> bool:
    return _seen_by_others(case, branch) is not None


@check("gw-dr-invisible", when=explained)
def gw_dr_invisible(case: Case) -> Iterator[Finding]:
    """A gateway leads to a subset whose DestinationRule it does not get, while callers in the mesh do.

    For a proxy istiod looks for DestinationRules in the proxy's own namespace, in the service's and in the root namespace, where they are
    exported to it. A rule in a client's namespace works for that client only: at the gateway the subset has no cluster, 503 (flag NC).

    How to see it: `istioctl proxy-config cluster <gateway pod> --fqdn HOST` lacks the subset that other pods have.

    How to fix it: put the DestinationRule into the service's namespace, exported to the gateway's.
    """
    groups: dict[tuple[str, str], list[Branch]] = {}
    for branches in case.led("gw-dr-invisible"):
        for b in branches:
            if (found := _seen_by_others(case, b)) is not None:
                groups.setdefault((b.view.ups.istiod.cluster, found[1].ref), []).append(b)
    for branches in groups.values():
        first = branches[0]
        seen = _seen_by_others(case, first)
        u = first.upstream
        if seen is None or u.service is None:
            continue
        namespace, rule = seen
        own, share = u.service.namespace, case.share(branches)
        gateway = first.view.ups.proxy.namespace
        yield case.finding(
            "gw-dr-invisible",
            cluster=case.cluster_of(first),
            resource=rule.ref,
            path="metadata.namespace" if rule.namespace != own else "spec.exportTo",
            message=(
                f"{percent(share)} of the requests of a rule fail at the gateway in {gateway}: it does not get {rule.ref}, "
                f"which defines subset{'s'[: len(missing(branches)) != 1]} {' and '.join(missing(branches))} of {short(u.host)}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"callers in {namespace} get {rule.ref} for {u.host}",
                f"the gateway in {gateway} gets {u.rule.ref if u.rule else 'no DestinationRule'} for it",
                f"{rule.ref} is exported to {', '.join(rule.spec.export_to or ('the default of the mesh',))}",
            ),
            fix=f"Move {rule.ref} to namespace {own}, exported to {gateway}."
            if rule.namespace != own
            else f"Export {rule.ref} to {gateway}.",
            commands=(f"istioctl proxy-config cluster <gateway pod> -n {gateway} --fqdn {u.host}",),
        )
