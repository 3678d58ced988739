"""authz-http-fields-on-tcp (MESH828)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.security import Miss, Peer, by_object, guarded, holder, policies, reached, refused, seen, share, speaks, viewpoints
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.security import Refusal, Server


@check("authz-http-fields-on-tcp", when=guarded)
def authz_http_fields_on_tcp(case: Case) -> Iterator[Finding]:
    """An AuthorizationPolicy looks at HTTP (methods, paths, hosts, request principals, headers) on a port that carries TCP.

    Nothing of that can be seen there. istiod drops an ALLOW rule with such a field, so it never matches, and with no other rule that lets the
    caller in every connection is closed; of a DENY rule it drops only the field, so the rule denies far more than it says.

    How to see it: the server's access log says rbac_access_denied and the connection closes at once; `istioctl x authz check <pod>` lists the
    policy.

    How to fix it: limit the rule to the HTTP port (operation.ports), write one without HTTP fields for this port, or let the Service's port say
    that it carries HTTP, if it does.
    """
    if not guarded(case):
        return
    missed: list[Miss] = []
    for b in case.branches:
        port = b.upstream.service.port(b.upstream.port) if b.upstream.service else None
        if b.share <= 0 or not b.upstream.usable or port is None or not port.tcp:
            continue
        servers = reached(case, b)
        for s in servers:
            refusals = _refusals(case, b, s)
            missed += [Miss(b, s, 1 / len(servers), r.policy.ref, r.path, (ns,)) for ns, r in refusals.items()]
    for group in by_object(missed):
        yield _finding(case, group)


def _refusals(case: Case, branch: Branch, server: Server) -> dict[str, Refusal]:
    """For each calling namespace the policy that refuses a connection for its fields of HTTP alone: with them undecided it would not be certain."""
    if not server.meshed:
        return {}
    found = policies(case.mesh, server.cluster, server.endpoint.namespace, server.pod.labels)
    known = speaks(case, branch, server) == "mutual"
    port = server.endpoint.port
    out: dict[str, Refusal] = {}
    for ns in sorted({v.namespace for v in branch.view.callers.viewpoints}) if found else ():
        refusal = refused(found, Peer(ns, known), port, tcp=True)
        if refusal is not None and refused(found, Peer(ns, known), port, tcp=True, strictly=False) is None:
            out[ns] = refusal
    return out


def _finding(case: Case, missed: list[Miss]) -> Finding:
    first = missed[0]
    u = first.branch.upstream
    part = share(case, missed)
    found = policies(case.mesh, first.server.cluster, first.server.endpoint.namespace, first.server.pod.labels)
    policy = next(p for p in found if p.ref == first.ref)
    name = u.service.port(u.port) if u.service else None
    said = f"port {u.port}{f' ({name.name})' if name and name.name else ''} of {short(u.host)} carries {name.protocol if name else 'TCP'}"
    what = (
        "no rule is left that lets anybody in"
        if policy.spec.action == "ALLOW"
        else "without them the rule denies every connection of these callers"
    )
    return case.finding(
        "authz-http-fields-on-tcp",
        cluster=holder(case, first.ref, first.server.cluster),
        resource=first.ref,
        path=first.path,
        message=(
            f"{percent(part)} of the connections to {short(u.host)} on port {u.port} are refused: {first.ref} ({policy.spec.action}) "
            f"looks at HTTP, and the port carries {name.protocol if name else 'TCP'}, so {what}."
        ),
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(
            f"{first.ref} {first.path} has fields that only HTTP has; istiod drops {'the rule' if policy.spec.action == 'ALLOW' else 'them'} on TCP",
            said,
            *seen(missed),
        ),
        fix=f"Limit the rule of {first.ref} to the HTTP ports (operation.ports), or add one without HTTP fields for port {first.server.endpoint.port}.",
        commands=(
            f"istioctl x authz check {first.server.pod.name} -n {first.server.pod.namespace}",
            f"kubectl -n {policy.namespace} get authorizationpolicy {policy.name} -o yaml",
        ),
    )
