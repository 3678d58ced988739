"""dr-split-exportto (MESH112)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.finding import Finding, MeshCue, check, explained, explains
from checks.gatewayapi import OfPolicies
from checks.resources import DestinationRule, VirtualService
from checks.subsets import by_rule, destination_rules, export, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case, View
    from checks.mesh import Mesh


@explains("dr-split-exportto", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-split-exportto"


@MeshCue
def _split(mesh: Mesh) -> bool:
    """Some host has DestinationRules that istiod did not merge."""
    return any(i.split for i in mesh.every_plane())


@check("dr-split-exportto", when=(explained, _split))
def dr_split_exportto(case: Case) -> Iterator[Finding]:
    """Two DestinationRules of one namespace and host differ in exportTo, so istiod does not merge them, and one is lost.

    Rules of one host in one namespace are merged only when their `exportTo` are equal as written; left out and `["*"]` are not equal. Of several
    that a caller sees, its proxy keeps the newest alone: the older one's subsets, TLS settings and outlier detection vanish. Rules that lead to
    such a subset get 503 (flag NC).

    How to see it: `kubectl get destinationrules` shows two for the host; `istioctl proxy-config cluster <pod> --fqdn HOST` names one of them.

    How to fix it: the same exportTo on both, or one DestinationRule.
    """
    told: set[str] = set()
    for found, branches in by_rule(case, "dr-split-exportto"):
        kept = found.winner.origins[0] if found.winner else found.rule
        yield unseen(
            case,
            "dr-split-exportto",
            found,
            branches,
            resource=found.rule,
            path="spec.exportTo",
            why=f"which istiod does not merge with the newer {kept.ref} (exportTo {_said(found.rule)} and {_said(kept)}), so its proxies keep the newer alone",
            fix=_same(branches[0].view, found.rule),
            patch=export(case, branches, found.rule, kept.spec.export_to),
        )
        told.add(found.rule.ref)
    for older, newest, views in _silent(case):
        if older.ref in told:
            continue
        made = isinstance(older, OfPolicies)
        lost_one = f"What {older.ref} says of TLS" if made else f"The trafficPolicy of {older.ref}"
        yield case.finding(
            "dr-split-exportto",
            cluster=case.mesh.cluster(views[0].ups.istiod.cluster).name,
            resource=older.ref,
            path="spec.targetRefs" if made else "spec.exportTo",
            message=(
                f"{lost_one} has no effect: istiod does not merge it with the newer {newest.ref} of the same host, "
                f"since exportTo differs ({_said(older)} and {_said(newest)}), and proxies keep the newer alone."
            ),
            share=0.0,
            viewpoints=dict.fromkeys(v for view in views for v in view.callers.viewpoints),
            evidence=(
                *(
                    f"{r.ref} (host {r.spec.host}, exportTo {_said(r)}) was created {r.created or 'at an unknown time'}"
                    for r in (older, newest)
                ),
            ),
            fix=_same(views[0], older),
            patch=export(case, [b for b in case.branches if b.view in views], older, newest.spec.export_to),
            commands=(f"kubectl -n {older.namespace} get destinationrule {older.name} {newest.name} -o yaml",),
        )
    shown(case, VirtualService, DestinationRule)


def _same(view: View, rule: DestinationRule) -> str:
    if isinstance(rule, OfPolicies):
        return f"Leave exportTo out of the DestinationRules of {rule.spec.host} in namespace {rule.namespace}, so that istiod merges them with {rule.ref}."
    every = [r for r in destination_rules(view.ups.istiod) if r.namespace == rule.namespace and not r.spec.workload_selector]
    host = names.fqdn(rule.spec.host, rule.namespace)
    refs = [r.ref for r in every if names.fqdn(r.spec.host, r.namespace) == host]
    return f"Give {', '.join(refs[:-1])} and {refs[-1]} the same exportTo, or make one DestinationRule of them."


def _said(rule: DestinationRule) -> str:
    return ", ".join(rule.spec.export_to or ()) or "none"


def _silent(case: Case) -> Iterator[tuple[DestinationRule, DestinationRule, list[View]]]:
    """Rules whose trafficPolicy is lost beside a newer one of the same host: (older, newest, who gets the newest)."""
    out: dict[tuple[str, str], tuple[DestinationRule, DestinationRule, list[View]]] = {}
    for view in case.views:
        service = view.ups.scope.services.get(case.host)
        every = view.ups.istiod.destination_rules(view.ups.proxy.namespace, service) if service else []
        plain = [m for m in every if m.selector is None]
        if len(plain) < 2 or service is None or view.ups.istiod.destination_rule(view.ups.proxy, service) is not plain[-1]:
            continue
        kept = {r.ref for r in plain[-1].origins}
        for merged in plain[:-1]:
            older = merged.origins[0]
            if older.ref not in kept and merged.policy is not None and merged.policy != plain[-1].policy:
                out.setdefault((older.ref, plain[-1].ref), (older, plain[-1].origins[0], []))[2].append(view)
    yield from out.values()
