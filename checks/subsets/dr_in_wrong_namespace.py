"""dr-in-wrong-namespace (MESH109)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.security.dr_tls_lost_by_override import plain, tls_lost
from checks.subsets import add_subsets, beside, by_rule, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("dr-in-wrong-namespace", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-in-wrong-namespace"


@check("dr-in-wrong-namespace", when=(explained, tls_lost))
def dr_in_wrong_namespace(case: Case) -> Iterator[Finding]:
    """The DestinationRule that defines the subset stands in a namespace where istiod does not look for it.

    For a caller istiod looks in three namespaces only: the caller's, the service's and the root namespace. A rule anywhere else is stored,
    passes every validation, and applies to callers of its own namespace alone. For the others the subset does not exist: 503 (flag NC).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` shows no subset, while `kubectl get destinationrules -A` shows the rule.

    How to fix it: move the DestinationRule into the service's namespace.
    """
    for found, branches in by_rule(case, "dr-in-wrong-namespace"):
        rule, u = found.rule, branches[0].upstream
        root = branches[0].view.ups.istiod.config.root_namespace
        owner = u.service.namespace if u.service else ""
        winner = found.winner.origins[0] if found.winner else None
        yield unseen(
            case,
            "dr-in-wrong-namespace",
            found,
            branches,
            resource=rule,
            path="metadata.namespace",
            why=f"which is in neither the callers' namespace nor {' nor '.join(dict.fromkeys((owner, root)))}: istiod does not look there",
            fix=f"Define the subset in {beside(winner)}, which these callers get." if winner else f"Move {rule.ref} to namespace {owner}.",
            patch=add_subsets(case, branches, winner, rule) if winner else None,
        )
    yield from plain(case, "dr-in-wrong-namespace")
    shown(case, VirtualService, DestinationRule)
