"""dr-specific-hides-wildcard (MESH114)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.gatewayapi import OfPolicies
from checks.resources import DestinationRule, VirtualService
from checks.security.dr_tls_lost_by_override import plain, tls_lost
from checks.subsets import add_subsets, beside, by_rule, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("dr-specific-hides-wildcard", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-specific-hides-wildcard"


@check("dr-specific-hides-wildcard", when=(explained, tls_lost))
def dr_specific_hides_wildcard(case: Case) -> Iterator[Finding]:
    """A DestinationRule for the exact host hides the one for a wildcard that defines the subset.

    Of the DestinationRules of one namespace istiod takes the one whose host is the most specific, whole, and that of the service's namespace before
    that of the root namespace; it merges nothing across different hosts. What only `*.NAMESPACE.svc.cluster.local` says, its subsets, TLS mode and outlier detection, is lost for that host: 503 (flag NC) for its
    subsets; plain text, and a reset or 400, where only TLS is spoken.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` names the DestinationRule of the exact host and lacks the subset.

    How to fix it: copy what is needed from the wildcard's rule into the exact host's.
    """
    for found, branches in by_rule(case, "dr-specific-hides-wildcard"):
        winner = found.winner.origins[0] if found.winner else found.rule
        yield unseen(
            case,
            "dr-specific-hides-wildcard",
            found,
            branches,
            resource=winner,
            path="spec.targetRefs" if isinstance(winner, OfPolicies) else "spec.subsets",
            why=f"whose host {found.rule.spec.host} is less specific than {winner.spec.host} of {winner.ref}: only that one applies",
            fix=f"Copy the subset from {found.rule.ref} into {beside(winner)}.",
            patch=add_subsets(case, branches, winner, found.rule),
        )
    yield from plain(case, "dr-specific-hides-wildcard")
    shown(case, VirtualService, DestinationRule)
