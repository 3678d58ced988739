"""trust-mismatch (MESH613)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.security import anonymous, identities, misnamed, roots, strange, tried_clusters
from checks.seen import failed, log_command, lost, sources, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.seen import Calls


@check("trust-mismatch")
def trust_mismatch(case: Case) -> Iterator[Finding]:
    """Two clusters of one mesh do not trust each other's certificates: another root, or another trust domain.

    Mutual TLS across clusters needs one root for all of them, and identities of a trust domain that the caller's mesh knows (its own, or one of
    trustDomainAliases). Where an installation made a root of its own, or says another trustDomain, every call across fails: 503 (flag UF, TLS_error
    CERTIFICATE_VERIFY_FAILED, or the server's alert UNKNOWN_CA), while calls inside each cluster succeed.

    How to see it: the caller's access log; `istioctl proxy-config secret` of a pod in each cluster shows another ROOTCA.

    How to fix it: give all clusters certificates of one root (Secret cacerts), and name the other trust domain in trustDomainAliases.
    """
    groups: dict[tuple[str, str], list[Calls]] = {}
    for calls in failed(case, lambda a: anonymous(a) or misnamed(a)):
        own = case.mesh.known(calls.log.cluster)
        if own is None:
            continue
        far = sorted({c.name for c in tried_clusters(case, calls)} - {own.name})
        if far and (strange(case, calls) or any(anonymous(a) for a in calls.accesses)):
            groups.setdefault((own.name, ", ".join(far)), []).append(calls)
    for (cluster, others), group in groups.items():
        first = group[0]
        config = case.mesh.config_map(case.mesh.cluster(case.mesh.istiod(cluster).cluster))
        domains = {c.name: case.mesh.config(c).trust_domain for c in case.mesh.clusters}
        part = lost(group)
        is_ = ", ".join(dict.fromkeys(i for c in group for i in identities(c)))
        yield case.finding(
            "trust-mismatch",
            cluster=cluster,
            resource=config.ref if config is not None else first.branch.resource,
            path="data.mesh",
            message=(
                f"{percent(part)} of the requests of a rule to {where(first.branch)} fail: callers in {cluster} do not trust the certificates of {others}"
                f"{f', which say {is_}' if is_ else ''}."
            ),
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(
                *sources(group),
                *(f"trust domain of {name}: {domain}" for name, domain in sorted(domains.items())),
                *roots(case, (cluster, *others.split(", "))),
            ),
            fix=f"Give {cluster} and {others} certificates of one root (Secret cacerts), and name the other trust domain in trustDomainAliases.",
            commands=(log_command(first), f"istioctl proxy-config secret {first.log.pod} -n {first.log.namespace} -o json"),
        )
