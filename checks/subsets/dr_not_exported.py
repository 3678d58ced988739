"""dr-not-exported (MESH108)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.security.dr_tls_lost_by_override import plain, tls_lost
from checks.subsets import by_rule, export, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("dr-not-exported", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-not-exported"


@check("dr-not-exported", when=(explained, tls_lost))
def dr_not_exported(case: Case) -> Iterator[Finding]:
    """The DestinationRule that defines the subset is not exported to the callers.

    `exportTo` (`.`: its own namespace, `~`: nobody, or a list), or the mesh's `defaultDestinationRuleExportTo` where it is left out, keeps the
    rule from these callers. They have no such subset: 503 (flag NC), while callers of other namespaces are fine.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` shows no DestinationRule and no subset for a pod of these callers.

    How to fix it: export the DestinationRule to the callers.
    """
    for found, branches in by_rule(case, "dr-not-exported"):
        rule = found.rule
        spaces = sorted({v.namespace for b in branches for v in b.view.callers.viewpoints})
        own = tuple(e for e in rule.spec.export_to or () if e != "~") or (".",)
        beside = found.winner.origins[0] if found.winner and found.winner.namespace == rule.namespace else None
        # istiod merges two rules of a host only when their exportTo are equal, so beside another one its exportTo is the one to take
        to = beside.spec.export_to if beside else (*own, *(s for s in spaces if s not in own))
        limit = (
            f"exportTo is {', '.join(rule.spec.export_to)}"
            if rule.spec.export_to
            else "exportTo is left out and the mesh's default keeps it private"
        )
        yield unseen(
            case,
            "dr-not-exported",
            found,
            branches,
            resource=rule,
            path="spec.exportTo",
            why=f"which is not exported to them ({limit})",
            fix=f"Give {rule.ref} the exportTo of {beside.ref}, so that istiod merges the two."
            if beside
            else f"Export {rule.ref} to {' and '.join(spaces)}.",
            patch=export(case, branches, rule, to),
        )
    yield from plain(case, "dr-not-exported")
    shown(case, VirtualService, DestinationRule)
