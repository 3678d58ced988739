"""authz-denied (MESH827)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from checks.case import short
from checks.evidence import Access
from checks.finding import Finding, check
from checks.measured import finding, measure
from checks.resources import AuthorizationPolicy, Pod
from checks.security import policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Flow
    from checks.measured import Measure

_DENIED = re.compile(r"rbac_access_denied_matched_policy\[(.*)\]")
_RULE = re.compile(r"ns\[(.*)\]-policy\[(.*)\]-rule\[(\d+)\]")
"""What istiod calls a rule (istio/istio, pilot/pkg/security/authz/builder)."""


@check("authz-denied")
def authz_denied(case: Case) -> Iterator[Finding]:
    """An AuthorizationPolicy turns calls away: 403 "RBAC: access denied".

    A DENY rule matches them, or there are ALLOW policies for the server and none of their rules does: as soon as there is one ALLOW policy,
    everything that none names is refused. The caller sees 403 without a flag; the proxy that refuses (the server's sidecar, a gateway or a waypoint)
    says in its access log which rule it was, or `none`.

    How to see it: the access log of that proxy says rbac_access_denied_matched_policy[ns[…]-policy[…]-rule[…]]; `istioctl x authz check <pod>`
    lists the policies that it holds.

    How to fix it: add a rule that allows these callers, or narrow the rule that denies them.
    """
    for rule in dict.fromkeys(filter(None, (_denied_by(a) for log in case.evidence.logs for a in log.accesses))):
        measured = measure(case, partial(_refused, rule))
        if measured is not None:
            yield _finding(case, measured, rule)


def _refused(rule: str, call: Access | Flow) -> bool:
    return _denied_by(call) == rule


def _denied_by(call: Access | Flow) -> str:
    """The rule that refused a call as Envoy names it, `none` where no ALLOW rule matched; empty for any other call."""
    found = _DENIED.search(call.details) if isinstance(call, Access) and call.code == 403 else None
    return found[1] if found is not None else ""


def _finding(case: Case, measured: Measure, rule: str) -> Finding:
    cluster, policy, path = _policy(case, measured, rule)
    named = _RULE.fullmatch(rule)
    if policy is None:
        what = f"get 403 from {f'rule {named[3]} of AuthorizationPolicy {named[1]}/{named[2]}' if named else 'the policies of its proxy'}"
        fix = f"Add a rule that allows these callers of {short(case.host)}."
        return finding(case, "authz-denied", measured, what=what, fix=fix)
    if named:
        what, fix = (
            f"get 403: {path} of {policy.ref} denies them",
            f"Narrow {path} of {policy.ref}, or remove it, if these calls are meant.",
        )
    else:
        what = f"get 403: {policy.ref} allows others, and no rule names these calls"
        fix = f"Add a rule to {policy.ref} that allows these callers of {short(case.host)}, if these calls are meant."
    return finding(
        case,
        "authz-denied",
        measured,
        what=what,
        fix=fix,
        at=(cluster, policy.ref, path),
        commands=(f"kubectl -n {policy.namespace} get authorizationpolicy {policy.name} -o yaml",),
    )


def _policy(case: Case, measured: Measure, rule: str) -> tuple[str, AuthorizationPolicy | None, str]:
    """The cluster, the policy and the field that refuse; no policy where it is not there (any more), or where several might have allowed."""
    named = _RULE.fullmatch(rule)
    for log in (s.log for s in measured.samples if s.log is not None):
        cluster = case.mesh.known(log.cluster)
        pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
        if cluster is None or pod is None:
            continue
        home = case.mesh.cluster(case.mesh.istiod(cluster.name).cluster)
        if named:
            found = home.get(AuthorizationPolicy, named[1], named[2])
            if found is not None:
                return home.name, found, f"spec.rules[{named[3]}]"
            continue
        allowing = [p for p in policies(case.mesh, cluster, pod.namespace, pod.labels) if p.spec.action == "ALLOW"]
        if allowing:
            return home.name, next((p for p in allowing if p.spec.rules), allowing[0]), "spec.rules"
    return "", None, ""
