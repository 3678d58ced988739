"""dr-sds-secret-missing (MESH825)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import said_at
from checks.finding import Finding, check
from checks.seen import failed, held, log_command, lost, says, sources, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access
    from checks.resources import DestinationRule
    from checks.seen import Calls


@check("dr-sds-secret-missing")
def dr_sds_secret_missing(case: Case) -> Iterator[Finding]:
    """A DestinationRule's TLS names a Secret or a file that the caller's proxy does not get.

    `credentialName` is read by istiod in the namespace of the caller (of a gateway: the gateway's), caCertificates and clientCertificate by the proxy
    from its own disk. Where it is not there, Envoy has a cluster without a certificate: 503 (flag UF, "Secret is not supplied by SDS").

    How to see it: the caller's access log; `istioctl proxy-config secret` of the caller lists the secret as WARMING.

    How to fix it: create the Secret in the caller's namespace and let its service account read it, or mount the file into the proxy.
    """
    groups: dict[tuple[str, str, str], tuple[DestinationRule | None, list[Calls]]] = {}
    for calls in failed(case, _unsupplied):
        said = said_at(calls.branch, "tls")
        at = (said[0].ref, said[1]) if said is not None else (calls.branch.resource, calls.branch.path)
        groups.setdefault((case.cluster_of(calls.branch), *at), (said[0] if said is not None else None, []))[1].append(calls)
    for (cluster, resource, path), (_, group) in groups.items():
        first = group[0]
        u = first.branch.upstream
        policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
        tls = policy.tls if policy is not None else None
        wanted = (tls.credential_name or tls.ca_certificates or tls.client_certificate) if tls is not None else ""
        part = lost(group)
        awaited = {
            f"Envoy {h.envoy.proxy} waits for {', '.join(h.envoy.awaited[:3])} ({h.source})"
            for h in held(case)
            if h.envoy.awaited and h.branch.upstream.name == u.name
        }
        yield case.finding(
            "dr-sds-secret-missing",
            cluster=cluster,
            resource=resource,
            path=path,
            message=f"{percent(part)} of the requests of a rule to {where(first.branch)} fail: the caller's proxy does not get {wanted or 'the certificate'} that {resource} names.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(*sources(group), *sorted(awaited), *((f"{resource} {path} names {wanted}",) if wanted else ())),
            fix=f"Create {wanted or 'the Secret'} in namespace {first.log.namespace} and let its service accounts read it, or mount the file into the proxy.",
            commands=(log_command(first), f"istioctl proxy-config secret {first.log.pod} -n {first.log.namespace}"),
        )


def _unsupplied(access: Access) -> bool:
    return "UF" in access.flags and says(access, "secret is not supplied by sds")
