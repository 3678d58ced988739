"""ambient-l4-denied (MESH927)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from checks.agreement import reporters
from checks.ambient import calling, services
from checks.case import short
from checks.finding import Finding, check
from checks.resources import AuthorizationPolicy, PeerAuthentication, Pod
from checks.security import peer
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.mesh import Cluster
    from checks.registry import HostService

REJECTED = "connection closed due to policy rejection"
"""What ztunnel says of it (istio/ztunnel, src/proxy.rs)."""
_NAMED = re.compile(r"explicitly denied by: ([^/\s]+)/(\S+)")
_STRICT = re.compile(r"istio_converted_static_strict|converted_peer_authentication_(.+)")
"""How istiod calls what it makes of a STRICT PeerAuthentication, of the mesh or of one workload (pilot/pkg/model/authentication.go)."""


class _Rejected(NamedTuple):
    """Connections of the host that were closed for one reason: how many of how many, and where that was seen."""

    why: str
    closed: float
    total: float
    source: str
    command: str


@check("ambient-l4-denied")
def ambient_l4_denied(case: Case) -> Iterator[Finding]:
    """The server's ztunnel closes connections: an AuthorizationPolicy denies them, or a STRICT PeerAuthentication meets plain text.

    ztunnel enforces policies that need no HTTP, at the server's node: a DENY rule matches the caller's identity, or there are ALLOW policies and
    none names it. The caller gets no status, only a connection that closes.

    How to see it: ztunnel's log says "connection closed due to policy rejection", with the policy that denied it; `istioctl ztunnel-config policies`;
    istio_tcp_connections_failed_total has response_flags="DENY".

    How to fix it: add a rule that allows the caller's identity, or narrow the one that denies it.
    """
    for cluster, _, service in services(case):
        callers = calling(case, service)
        if any(f.failing_share and not set(f.viewpoints).isdisjoint(callers) for f in case.found):
            return  # the objects say already why these fail
        by_reason: dict[str, list[_Rejected]] = {}
        for r in (list(_logged(case)) or list(_counted(case))) if callers else ():
            by_reason.setdefault(r.why, []).append(r)
        for why, found in by_reason.items():
            part = sum(r.closed for r in found) / sum(r.total for r in found)
            resource, path, how = _policy(case, cluster, service, why)
            yield case.finding(
                "ambient-l4-denied",
                cluster=cluster.name,
                resource=resource or service.sources[0][1],
                path=path,
                message=f"{percent(part)} of the connections to {short(case.host)} are closed by ztunnel: {how}.",
                share=round(part, 6),
                viewpoints=callers,
                evidence=[r.source for r in found[:3]],
                fix=f"Add a rule to {resource} that allows these callers, if they are meant to call."
                if resource
                else "Add a rule that allows the identity of these callers.",
                commands=dict.fromkeys(r.command for r in found[:3]),
            )
        return


def _logged(case: Case) -> Iterator[_Rejected]:
    for log in case.evidence.logs:
        at = case.mesh.known(log.cluster)
        if at is None or at.get(Pod, log.namespace, log.pod) is None:
            continue
        mine = [a for a in log.accesses if a.authority == case.host]
        total = sum(a.count for a in mine)
        for why in dict.fromkeys(a.failure for a in mine if REJECTED in a.failure):
            same = [a for a in mine if a.failure == why]
            count = sum(a.count for a in same)
            source = f"{count} of {total} connections in the log of {log.proxy}: {same[0].line}"
            yield _Rejected(why, count, total, source, f"kubectl -n {log.namespace} logs {log.pod}")


def _counted(case: Case) -> Iterator[_Rejected]:
    """What Prometheus counted, which says of no policy."""
    for t in case.evidence.traffic:
        if t.host != case.host or case.mesh.known(t.cluster) is None:
            continue
        for mine in reporters([f for f in t.flows if f.protocol == "tcp"]):
            denied = sum(f.rate for f in mine if "DENY" in f.flags)
            if denied:
                total = sum(f.rate for f in mine)
                source = f"{denied:.3g} of {total:.3g} connections a second end with DENY, as their {mine[0].reporter} reports ({t.source})"
                yield _Rejected("", denied, total, source, "istioctl ztunnel-config policies <ztunnel>")


def _policy(case: Case, cluster: Cluster, service: HostService, why: str) -> tuple[str, str, str]:
    """The object and the field that reject, and how, for people; no object where it is not there."""
    named = _NAMED.search(why)
    if named is None:
        return (
            "",
            "",
            "there are policies that allow others, and none names these callers" if why else "a policy denies them, or allows others alone",
        )
    namespace, name = named[1], named[2].strip('"')
    strict = _STRICT.fullmatch(name)
    if strict is None:
        policy = cluster.get(AuthorizationPolicy, namespace, name)
        return (policy.ref if policy is not None else ""), "spec.rules", f"AuthorizationPolicy {namespace}/{name} denies them"
    found = cluster.get(PeerAuthentication, namespace, strict[1]) if strict[1] else None
    for where, pod in case.pods(service) if found is None else ():
        found = found or peer(case.mesh, case.mesh.istiod(where.name), pod.namespace, pod.labels, 0).policy
    return (found.ref if found is not None else ""), "spec.mtls.mode", "they are plain text, and the server takes mutual TLS alone"
