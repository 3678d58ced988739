"""cert-expired-or-root-rotated (MESH824)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.resources import Pod
from checks.security import anonymous, expired, reached, speaks, tried_clusters
from checks.seen import Calls, clock, failed, held, hosting, log_command, lost, share, sources
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.evidence import EnvoyView, LiveCertificate


@check("cert-expired-or-root-rotated")
def cert_expired_or_root_rotated(case: Case) -> Iterator[Finding]:
    """A proxy's certificate has expired, or was issued by a root that the other side no longer knows.

    Proxies get a new certificate every 12 hours or so. Where istiod's CA is down, the proxy cannot reach it, or its clock is wrong, the old one expires;
    where the root was replaced, proxies that have not got the new one do not trust those that have. Mutual TLS fails: 503 (flag UF,
    CERTIFICATE_VERIFY_FAILED or an alert CERTIFICATE_EXPIRED or UNKNOWN_CA).

    How to see it: `istioctl proxy-config secret` of caller and server prints NOT AFTER and the serial number of the root.

    How to fix it: restart the pods with old certificates; `citadel_server_root_cert_expiry_timestamp` of istiod says when its root ends.
    """
    old = list(_old(case))
    for envoy, certificate, parts in old:
        cluster = case.mesh.known(envoy.cluster)
        if cluster is None:
            continue
        part = share(parts)
        yield case.finding(
            "cert-expired-or-root-rotated",
            cluster=cluster.name,
            resource=f"Pod {envoy.namespace}/{envoy.pod}",
            path="",
            message=f"{percent(part)} of the requests of a rule to {short(case.host)} fail: the certificate of proxy {envoy.proxy} expired at {certificate.expires}.",
            share=part,
            viewpoints=case.viewpoints(b for b, _ in parts),
            evidence=(_held(envoy, certificate), *(line for calls in failed(case, expired) for line in sources([calls]))),
            fix=f"Restart pod {envoy.namespace}/{envoy.pod}, and find out why it got no new certificate from istiod.",
            commands=(f"istioctl proxy-config secret {envoy.pod} -n {envoy.namespace}",),
        )
    if old:
        return
    found: list[Calls] = [c for c in failed(case, lambda a: expired(a) or anonymous(a)) if _at_home(case, c)]
    if found:
        yield _told_by_calls(case, found)


def _old(case: Case) -> Iterator[tuple[EnvoyView, LiveCertificate, list[tuple[Branch, float]]]]:
    """The proxies whose certificate has expired, with the parts of destinations that fail for it."""
    of_caller: dict[str, tuple[EnvoyView, LiveCertificate, list[tuple[Branch, float]]]] = {}
    serving = {envoy.proxy for _, _, envoy in hosting(case)}  # what a server would get of itself is nobody's question
    for h in held(case):
        certificate = _ended(h.envoy) if h.envoy.proxy not in serving else None
        servers = reached(case, h.branch) if certificate is not None else []
        mutual = sum(speaks(case, h.branch, s) == "mutual" for s in servers)
        if certificate is not None and mutual:
            of_caller.setdefault(h.envoy.proxy, (h.envoy, certificate, []))[2].append((h.branch, mutual / len(servers)))
    yield from of_caller.values()
    of_server: dict[str, tuple[EnvoyView, LiveCertificate, list[tuple[Branch, float]]]] = {}
    for branch, endpoint, envoy in hosting(case):
        certificate = _ended(envoy)
        servers = reached(case, branch) if certificate is not None else []
        mine = [s for s in servers if s.endpoint is endpoint and speaks(case, branch, s) == "mutual"]
        if certificate is not None and mine:
            of_server.setdefault(envoy.proxy, (envoy, certificate, []))[2].append((branch, 1 / len(servers)))
    yield from of_server.values()


def _ended(envoy: EnvoyView) -> LiveCertificate | None:
    """A certificate of a proxy that had expired when it was read."""
    for c in envoy.certificates or ():
        if c.expires and datetime.fromisoformat(c.expires).timestamp() <= envoy.read_at:
            return c
    return None


def _held(envoy: EnvoyView, certificate: LiveCertificate) -> str:
    kind = "root" if certificate.ca else "certificate"
    return f"Envoy {envoy.proxy} holds {kind} {certificate.name}, valid until {certificate.expires} ({envoy.source}, read at {clock(envoy.read_at)})"


def _at_home(case: Case, calls: Calls) -> bool:
    """Whether what was tried is of the caller's own cluster and of the mesh: across clusters it is trust-mismatch."""
    service = calls.branch.upstream.service
    own = case.mesh.known(calls.log.cluster)
    outside = service is None or (service.external and not service.kubernetes)
    return not outside and (
        any(expired(a) for a in calls.accesses) or {c.name for c in tried_clusters(case, calls)} == {own.name if own is not None else ""}
    )


def _told_by_calls(case: Case, found: list[Calls]) -> Finding:
    first = found[0]
    part = lost(found)
    over = any(expired(a) for c in found for a in c.accesses)
    tried = set(first.upstreams)
    pods = [
        (c, p)
        for e in first.branch.upstream.endpoints
        if e.at in tried
        for c in [case.mesh.cluster(e.cluster)]
        for p in c.within(Pod, e.namespace).values()
        if e.address in p.addresses
    ]
    cluster, resource = (pods[0][0].name, pods[0][1].ref) if pods else (case.cluster_of(first.branch), first.branch.resource)
    return case.finding(
        "cert-expired-or-root-rotated",
        cluster=cluster,
        resource=resource,
        path="",
        message=(
            f"{percent(part)} of the requests of a rule to {short(case.host)} fail: {'a certificate has expired' if over else 'the two sides know different roots'} "
            f"between {first.log.proxy} and {', '.join(first.upstreams[:3])}."
        ),
        share=part,
        viewpoints=case.viewpoints(c.branch for c in found),
        evidence=tuple(sources(found)),
        fix=f"Restart the pods of caller and server, so that they get new certificates; if they do not, look at istiod's CA (citadel_server_*) and at {resource}.",
        commands=(log_command(first), f"istioctl proxy-config secret {first.log.pod} -n {first.log.namespace}"),
    )
