"""jwt-failed (MESH831)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.evidence import Access
from checks.finding import Finding, check
from checks.measured import finding, measure
from checks.resources import Pod, RequestAuthentication

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import AccessLog, Flow

_WHY = {
    "jwt_is_missing": "no token came with them",
    "jwt_is_expired": "their token has expired",
    "jwt_not_yet_valid": "their token is not valid yet",
    "issuer_is_not_configured": "no rule takes tokens of their issuer",
    "audiences_in_jwt_are_not_allowed": "their token is for other audiences",
    "verification_fails": "the signature of their token is not of these keys",
    "key_to_match_kid": "none of the keys is the one that signed their token; istiod sends such when it cannot fetch jwksUri",
    "remote_fetch": "the keys (jwksUri) cannot be fetched",
    "jwks": "the keys (jwksUri) are not what they should be",
}
"""What Envoy's jwt_authn filter says in the detail, in words (google/jwt_verify_lib, status.cc)."""


@check("jwt-failed")
def jwt_failed(case: Case) -> Iterator[Finding]:
    """A proxy refuses calls for their token: 401 or 403 (detail jwt_authn_access_denied).

    A RequestAuthentication says whose tokens a workload takes. A token that has expired, is of another issuer or audience, or is signed with a key
    that is not in the issuer's set is refused before the app sees the call; so is every token while istiod cannot fetch the keys (jwksUri).

    How to see it: the access log of the proxy that refuses says jwt_authn_access_denied{…}, with the reason.

    How to fix it: send a fresh token of the right issuer and audience; or correct issuer and jwksUri, and let istiod reach it.
    """
    measured = measure(case, _refused)
    if measured is None:
        return
    said = measured.accesses[0].details.partition("jwt_authn_access_denied")[2].strip("{}")
    why = next((words for part, words in _WHY.items() if part in said.lower()), said.replace("_", " ") or "their token is not taken")
    logs = [s.log for s in measured.samples if s.log is not None]
    found = _asking(case, logs)
    host = short(case.host)
    if found is None:
        fix = f"Send a token that {host} takes; no RequestAuthentication that can be read says which."
        yield finding(case, "jwt-failed", measured, what=f"are refused for their token: {why}", fix=fix)
        return
    cluster, policy = found
    rules = policy.spec.jwt_rules or ()
    yield finding(
        case,
        "jwt-failed",
        measured,
        what=f"are refused for their token, which {policy.ref} looks at: {why}",
        fix=f"Send a token that {policy.ref} takes, or correct issuer and jwksUri there and let istiod reach it.",
        at=(cluster, policy.ref, "spec.jwtRules"),
        evidence=[
            f"{policy.ref} spec.jwtRules[{i}]: issuer {r.issuer}{f', jwksUri {r.jwks_uri}' if r.jwks_uri else ''}"
            for i, r in enumerate(rules[:3])
        ],
        commands=(f"kubectl -n {policy.namespace} get requestauthentication {policy.name} -o yaml",),
    )


def _refused(call: Access | Flow) -> bool:
    return isinstance(call, Access) and call.code in {401, 403} and "jwt_authn_access_denied" in call.details


def _asking(case: Case, logs: list[AccessLog]) -> tuple[str, RequestAuthentication] | None:
    """The cluster and the RequestAuthentication that the proxy which refused enforces: its own namespace's before the root's, the narrower first."""
    for log in logs:
        cluster = case.mesh.known(log.cluster)
        pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
        if cluster is None or pod is None:
            continue
        istiod = case.mesh.istiod(cluster.name)
        home = case.mesh.cluster(istiod.cluster)
        for ns in dict.fromkeys((pod.namespace, istiod.config.root_namespace)):
            mine = [p for p in home.ordered(RequestAuthentication, ns) if not p.spec.target_ref and not p.spec.target_refs]
            mine = [p for p in mine if p.spec.selector is None or p.spec.selector.matches(pod.labels)]
            if mine:
                return home.name, max(mine, key=lambda p: p.spec.selector is not None)
    return None
