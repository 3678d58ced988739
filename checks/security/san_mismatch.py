"""san-mismatch (MESH826)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import said_at
from checks.finding import Finding, check
from checks.security import identities, misnamed, strange
from checks.seen import failed, log_command, lost, sources, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.seen import Calls


@check("san-mismatch")
def san_mismatch(case: Case) -> Iterator[Finding]:
    """The server's certificate names another identity than its callers accept.

    `subjectAltNames` of a DestinationRule or ServiceEntry are the only names that a caller's Envoy takes. When the server's service account changes,
    or the list was wrong from the start, the handshake fails: 503 (flag UF, CERTIFICATE_VERIFY_FAILED, SAN matcher). Without a list Istio
    expects the service accounts of the endpoints.

    How to see it: the caller's access log says which SANs the certificate has.

    How to fix it: put the server's identity into subjectAltNames, or leave the list out.
    """
    groups: dict[tuple[str, str, str], list[Calls]] = {}
    for calls in failed(case, misnamed):
        if _listed(calls.branch) or not strange(case, calls):
            said = said_at(calls.branch, "tls") if _of_rule(calls.branch) else None
            service = calls.branch.upstream.service
            at = (
                (said[0].ref, f"{said[1]}.subjectAltNames")
                if said is not None
                else (service.sources[0][1] if service is not None else calls.branch.resource, "spec.subjectAltNames")
            )
            groups.setdefault((case.cluster_of(calls.branch), *at), []).append(calls)
    for (cluster, resource, path), group in groups.items():
        first = group[0]
        part = lost(group)
        is_ = ", ".join(dict.fromkeys(i for c in group for i in identities(c))) or "another identity"
        wanted = ", ".join(_listed(first.branch)) or "the service accounts of its endpoints"
        yield case.finding(
            "san-mismatch",
            cluster=cluster,
            resource=resource,
            path=path,
            message=f"{percent(part)} of the requests of a rule to {where(first.branch)} fail: its certificate says {is_}, and callers accept {wanted} alone.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(*sources(group), f"{resource} {path}: {wanted}"),
            fix=f"Put {is_} into {path} of {resource}, or leave the list out."
            if _listed(first.branch)
            else f"Restart the callers' proxies, and find out why {where(first.branch)} has the identity {is_}.",
            commands=(
                log_command(first),
                f"istioctl proxy-config cluster {first.log.pod} -n {first.log.namespace} --fqdn {first.branch.upstream.host} -o json",
            ),
        )


def _of_rule(branch: Branch) -> tuple[str, ...]:
    u = branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    return (policy.tls.subject_alt_names or ()) if policy is not None and policy.tls is not None else ()


def _listed(branch: Branch) -> tuple[str, ...]:
    """The names that a DestinationRule, else the ServiceEntry, lists; none where Istio expects the endpoints' service accounts."""
    service = branch.upstream.service
    return _of_rule(branch) or (service.subject_alt_names if service is not None else ())
