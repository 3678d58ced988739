"""dr-workloadselector-shadow (MESH113)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.security.dr_tls_lost_by_override import plain, tls_lost
from checks.subsets import add_subsets, by_rule, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("dr-workloadselector-shadow", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-workloadselector-shadow"


@check("dr-workloadselector-shadow", when=(explained, tls_lost))
def dr_workloadselector_shadow(case: Case) -> Iterator[Finding]:
    """A DestinationRule with a workloadSelector takes the place of the plain one that defines the subset.

    A rule with `workloadSelector` applies to the *calling* pods that it selects, and there it replaces the plain rule whole. In a client namespace
    other than the service's it hides the service's rule from the callers that it does not select, too. A subset that only the plain rule
    defines does not exist for them: 503 (flag NC).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` names the DestinationRule; it differs between pods of one namespace.

    How to fix it: repeat the subsets in the rule with the workloadSelector; where it hides the service's rule from pods that it does not select,
    add one without selector beside it.
    """
    for found, branches in by_rule(case, "dr-workloadselector-shadow"):
        selecting = found.selecting or found.rule
        chosen = {other.winner is not None for b in branches if (other := lost(case, b)) is not None}
        how, fix = [], []
        if True in chosen:
            how.append(f"selects {'these' if len(chosen) == 1 else 'some of these'} callers")
            fix.append(f"Repeat the subset in {selecting.ref}.")
        if False in chosen:
            how.append(
                f"does not select {'them' if len(chosen) == 1 else 'the others'} and stands in their namespace, where it hides every other"
            )
            fix.append(f"Add a DestinationRule without workloadSelector to namespace {selecting.namespace} that defines the subset.")
        yield unseen(
            case,
            "dr-workloadselector-shadow",
            found,
            branches,
            resource=selecting,
            path="spec.subsets" if True in chosen else "spec.workloadSelector",
            why=f"and {selecting.ref} with a workloadSelector takes its place: it {', and '.join(how)}",
            fix=" ".join(fix),
            patch=add_subsets(case, branches, selecting, found.rule) if True in chosen else None,
        )
    yield from plain(case, "dr-workloadselector-shadow")
    shown(case, VirtualService, DestinationRule)
