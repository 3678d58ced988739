"""ambient-l4-denied (MESH927)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks.ambient import calling, services
from checks.case import short
from checks.finding import Finding, check
from checks.resources import AuthorizationPolicy, PeerAuthentication, Pod
from checks.security import peer
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import AccessLog
    from checks.mesh import Cluster
    from checks.registry import HostService

REJECTED = "connection closed due to policy rejection"
"""What ztunnel says of it (istio/ztunnel, src/proxy.rs)."""
_NAMED = re.compile(r"explicitly denied by: ([^/\s]+)/(\S+)")
_STRICT = re.compile(r"istio_converted_static_strict|converted_peer_authentication_(.+)")
"""How istiod calls what it makes of a STRICT PeerAuthentication, of the mesh or of one workload (pilot/pkg/model/authentication.go)."""


@check("ambient-l4-denied")
def ambient_l4_denied(case: Case) -> Iterator[Finding]:
    """The server's ztunnel closes connections: an AuthorizationPolicy denies them, or a STRICT PeerAuthentication meets plain text.

    ztunnel enforces policies that need no HTTP, at the server's node: a DENY rule matches the caller's identity, or there are ALLOW policies and
    none names it. The caller gets no status, only a connection that closes.

    How to see it: ztunnel's log says "connection closed due to policy rejection", with the policy that denied it; `istioctl ztunnel-config policies`.

    How to fix it: add a rule that allows the caller's identity, or narrow the one that denies it.
    """
    for cluster, _, service in services(case):
        by_reason: dict[str, list[tuple[AccessLog, int, int, str]]] = {}
        for log in case.evidence.logs:
            at = case.mesh.known(log.cluster)
            if at is None or at.get(Pod, log.namespace, log.pod) is None:
                continue
            mine = [a for a in log.accesses if a.authority == case.host]
            total = sum(a.count for a in mine)
            for why in dict.fromkeys(a.failure for a in mine if REJECTED in a.failure):
                same = [a for a in mine if a.failure == why]
                by_reason.setdefault(why, []).append((log, sum(a.count for a in same), total, same[0].line))
        callers = calling(case, service)
        if any(f.failing_share and not set(f.viewpoints).isdisjoint(callers) for f in case.found):
            return  # the objects say already why these fail
        for why, found in by_reason.items() if callers else ():
            part = sum(count for _, count, _, _ in found) / sum(total for _, _, total, _ in found)
            resource, path, how = _policy(case, cluster, service, why)
            yield case.finding(
                "ambient-l4-denied",
                cluster=cluster.name,
                resource=resource or service.sources[0][1],
                path=path,
                message=f"{percent(part)} of the connections to {short(case.host)} are closed by ztunnel: {how}.",
                share=round(part, 6),
                viewpoints=callers,
                evidence=[f"{count} of {total} connections in the log of {log.proxy}: {line}" for log, count, total, line in found[:3]],
                fix=f"Add a rule to {resource} that allows these callers, if they are meant to call."
                if resource
                else "Add a rule that allows the identity of these callers.",
                commands=(
                    f"kubectl -n {found[0][0].namespace} logs {found[0][0].pod}",
                    f"istioctl ztunnel-config policies {found[0][0].pod}.{found[0][0].namespace}",
                ),
            )
        return


def _policy(case: Case, cluster: Cluster, service: HostService, why: str) -> tuple[str, str, str]:
    """The object and the field that reject, and how, for people; no object where it is not there."""
    named = _NAMED.search(why)
    if named is None:
        return "", "", "there are policies that allow others, and none names these callers"
    namespace, name = named[1], named[2].strip('"')
    strict = _STRICT.fullmatch(name)
    if strict is None:
        policy = cluster.get(AuthorizationPolicy, namespace, name)
        return (policy.ref if policy is not None else ""), "spec.rules", f"AuthorizationPolicy {namespace}/{name} denies them"
    found = cluster.get(PeerAuthentication, namespace, strict[1]) if strict[1] else None
    for where, pod in case.pods(service) if found is None else ():
        found = found or peer(case.mesh, case.mesh.istiod(where.name), pod.namespace, pod.labels, 0).policy
    return (found.ref if found is not None else ""), "spec.mtls.mode", "they are plain text, and the server takes mutual TLS alone"
