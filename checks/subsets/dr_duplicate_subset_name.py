"""dr-duplicate-subset-name (MESH111)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import carriers, labels, nobody, percent, shown, words

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains(
    "dr-duplicate-subset-name", before=("subset-scaled-to-zero", "subset-label-not-on-pods", "subset-empty-weighted", "subset-empty-all")
)
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if not nobody(case, branch) or u.service is None:
        return False
    return any(carriers(case, branch, wanted) for _, wanted in _others(case, branch))


def _doubled(case: Case) -> bool:
    """Some DestinationRule of the host's destinations defines a subset again."""
    return any([u.rule is not None and u.rule.duplicates for u in case.upstreams])


@check("dr-duplicate-subset-name", when=_doubled)
def dr_duplicate_subset_name(case: Case) -> Iterator[Finding]:
    """Two DestinationRules of one namespace and host define a subset of the same name with different labels.

    istiod merges the two and keeps the older one's subset; the younger one's is dropped with no more than a metric. Requests for the subset go
    to pods with the old labels, and where none is left Envoy answers with 503 "no healthy upstream" (flag UH) although pods with the new
    labels stand ready.

    How to see it: istiod's metric `pilot_destrule_subsets` counts it; `kubectl get destinationrules` shows two for the host.

    How to fix it: one DestinationRule for each host, or different subset names.
    """
    groups: dict[tuple[str, str], list[Branch]] = {}
    for b in case.branches:
        u = b.upstream
        if u.rule is not None and u.subset and b.share > 0 and _others(case, b):
            groups.setdefault((u.rule.ref, u.name), []).append(b)
    for branches in groups.values():
        first = branches[0]
        u = first.upstream
        failing = [b for b in branches if case.why(b) == "dr-duplicate-subset-name"]
        if u.rule is None or (not u.usable and not failing):
            continue
        dropped, wanted = _others(case, first)[0]
        kept = u.rule.subset_origins.get(u.subset, u.rule.origins[0])
        share = case.share(failing)
        fails = (
            f"{percent(share)} of the requests of a rule fail: " if failing else "Requests go to other pods than the younger rule says: "
        )
        outcome = ", which no endpoint carries" if failing else ""
        yield case.finding(
            "dr-duplicate-subset-name",
            cluster=case.cluster_of(first),
            resource=dropped.ref,
            path="spec.subsets",
            message=(
                f"{fails}{kept.ref} (older, kept) and {dropped.ref} both define subset {u.subset} of {short(u.host)}, "
                f"and istiod keeps {labels(u)}{outcome}."
            ),
            share=share,
            viewpoints=case.viewpoints(failing or branches),
            evidence=(f"{kept.ref} defines {u.subset} as {labels(u)}", f"{dropped.ref} defines {u.subset} as {words(wanted)}"),
            fix=f"Keep one definition of subset {u.subset}: in {kept.ref}, with the labels that the pods carry.",
            commands=(f"kubectl -n {kept.namespace} get destinationrule {kept.name} {dropped.name} -o yaml", endpoints_command(u)),
        )
    shown(case, VirtualService, DestinationRule)


def _others(case: Case, branch: Branch) -> list[tuple[DestinationRule, dict[str, str]]]:
    """The definitions of the subset that istiod drops and that would choose other endpoints than the one that it keeps."""
    rule, name = branch.upstream.rule, branch.upstream.subset
    kept = rule.subset(name) if rule else None
    if rule is None or kept is None:
        return []
    found = [(d, s.labels or {}) for n, d in rule.duplicates if n == name for s in d.spec.subsets or () if s.name == name]
    chosen = carriers(case, branch, kept.labels or {})
    return [(d, wanted) for d, wanted in found if wanted != (kept.labels or {}) and carriers(case, branch, wanted) != chosen]
