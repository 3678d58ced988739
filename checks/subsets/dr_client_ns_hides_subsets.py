"""dr-client-ns-hides-subsets (MESH107)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.gatewayapi import OfPolicies
from checks.resources import DestinationRule, VirtualService
from checks.subsets import add_subsets, beside, by_rule, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.subsets import Lost


@explains("dr-client-ns-hides-subsets", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-client-ns-hides-subsets"


@check("dr-client-ns-hides-subsets", when=explained)
def dr_client_ns_hides_subsets(case: Case) -> Iterator[Finding]:
    """A DestinationRule in the callers' own namespace takes the place of the one that defines the subset.

    istiod looks for a DestinationRule in the caller's namespace first, then in the service's, then in the root namespace, and the first that
    matches the host (a wildcard like `*.local` does as well) wins whole: nothing is merged across namespaces. A rule that only sets a timeout or
    TLS there hides every subset of the service's own rule, for these callers alone: 503 (flag NC). Callers elsewhere are fine. So does the service's
    own rule hide that of the root namespace, for all callers.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` names the DestinationRule that was used; it differs between namespaces.

    How to fix it: repeat the subsets in the DestinationRule nearest to the callers, or remove that one.
    """
    groups: dict[str, tuple[Lost, list[Branch]]] = {}
    for found, branches in by_rule(case, "dr-client-ns-hides-subsets"):  # what one rule hides may stand in several
        groups.setdefault(found.winner.ref if found.winner else found.rule.ref, (found, []))[1].extend(branches)
    for found, branches in groups.values():
        winner = found.winner.origins[0] if found.winner else found.rule
        yield unseen(
            case,
            "dr-client-ns-hides-subsets",
            found,
            branches,
            resource=winner,
            path="spec.targetRefs" if isinstance(winner, OfPolicies) else "spec.subsets",
            why=f"and these callers get {winner.ref}{_where(case, branches, winner.namespace)} in its place",
            fix=f"Repeat the subset in {beside(winner)}, or remove that rule so that {found.rule.ref} applies.",
            patch=add_subsets(case, branches, winner, found.rule),
        )
    shown(case, VirtualService, DestinationRule)


def _where(case: Case, branches: list[Branch], namespace: str) -> str:
    """Where the rule stands that the callers get."""
    spaces = {v.namespace for v in case.viewpoints(branches)}
    return " of their own namespace" if spaces == {namespace} else f" of namespace {namespace}"
