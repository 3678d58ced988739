"""authz-principal-without-mtls (MESH829)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import gateway
from checks.case import short
from checks.finding import Finding, check
from checks.resources import Pod
from checks.security import (
    Miss,
    Peer,
    Refusal,
    Server,
    about,
    accepts,
    around,
    by_identity,
    by_object,
    enforced,
    guarded,
    holder,
    named,
    policies,
    reached,
    refused,
    seen,
    servers,
    share,
    speaks,
    strangers,
    tls_at,
    viewpoints,
)
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.istiod import Proxy
    from checks.viewpoints import Outsider


@check("authz-principal-without-mtls", when=guarded)
def authz_principal_without_mtls(case: Case) -> Iterator[Finding]:
    """An AuthorizationPolicy asks who calls (principals, namespaces, service accounts), and the caller speaks plain text, or another proxy for it.

    The identity of a caller is its certificate. A server that accepts plain text as well (PERMISSIVE) takes the connection, finds no identity, and
    an ALLOW rule that asks for one never matches: HTTP calls get 403 "RBAC: access denied", TCP connections are closed. The caller's own
    namespace in the rule does not help. So it is at a gateway whose servers ask nobody for a certificate of the mesh.

    Behind a gateway or a waypoint it is that proxy's certificate that arrives, whoever called first: a policy of the server that names the first
    caller's identity, and not the gateway's, refuses every call that comes this way. An east-west gateway passes TLS through unread and changes
    nothing.

    How to see it: the server's access log says rbac_access_denied_matched_policy[none]; istio_requests_total has
    connection_security_policy="none", or the gateway's source_principal.

    How to fix it: let the caller speak mutual TLS (a sidecar, no tls mode DISABLE), or let it in by something else, such as ipBlocks. Behind a
    gateway: name the gateway's identity, and say at the gateway who may call; behind a waypoint: attach the policy to it (targetRefs).
    """
    if not guarded(case):
        return
    missed: list[Miss] = []
    for b in case.branches:
        if b.share <= 0 or not b.upstream.usable:
            continue
        behind = reached(case, b)
        for s in behind:
            if not s.meshed or speaks(case, b, s) != "plain" or accepts(case.mesh, s).mode == "STRICT":
                continue
            port = b.upstream.service.port(b.upstream.port) if b.upstream.service else None
            spaces = sorted({v.namespace for v in b.view.callers.viewpoints})
            refusals = [(ns, anonymous(case, s, ns, tcp=port is not None and port.tcp)) for ns in spaces]
            missed += [Miss(b, s, 1 / len(behind), r.policy.ref, r.path, (ns,)) for ns, r in refusals if r is not None]
    for group in by_object(missed):
        yield _of_callers(case, group)
    for group in by_object(_relayed(case)):
        yield _of_relay(case, group)
    for view in case.views:
        if view.callers.proxy.kind == "gateway":
            yield from _at_gateway(case, view)
    for outsider, why in strangers(case):
        yield from _of_outsider(case, outsider, why)


def _relayed(case: Case) -> Iterator[Miss]:
    """The calls that arrive with the identity of a gateway or waypoint, where a policy lets in others by theirs."""
    for b in case.branches:
        proxy = b.view.callers.proxy
        if proxy.kind == "sidecar" or b.share <= 0 or not b.upstream.usable:
            continue
        who = relay(case, proxy)
        port = b.upstream.service.port(b.upstream.port) if b.upstream.service else None
        sidecars = [s for s in reached(case, b) if s.meshed]
        taking = [s for s in sidecars if speaks(case, b, s) == "mutual" and accepts(case.mesh, s).mode != "DISABLE"]
        behind = [*taking, *(() if b.upstream.unseen else servers(case.mesh, b.upstream.endpoints, ambient=True))]
        ready = sum(e.health == "healthy" for e in b.upstream.endpoints) or len(behind)
        for s in behind:
            refusal = strange(case, s, who, tcp=s.endpoint.tunnel or (port is not None and port.tcp))
            if refusal is not None:
                yield Miss(b, s, 1 / ready, refusal.policy.ref, refusal.path)


def relay(case: Case, proxy: Proxy) -> Peer:
    """A gateway or waypoint as those behind it see it."""
    pod = case.mesh.cluster(proxy.cluster).get(Pod, proxy.namespace, proxy.pod)
    return Peer(proxy.namespace, known=True, account=pod.spec.service_account_name if pod is not None else "")


def strange(case: Case, server: Server, who: Peer, *, tcp: bool) -> Refusal | None:
    """The policy that refuses a peer for not being somebody else: some namespace that the policies name would be let in."""
    found = policies(case.mesh, server.cluster, server.endpoint.namespace, server.pod.labels)
    refusal = refused(found, who, server.endpoint.port, tcp=tcp) if found else None
    if refusal is None or (refusal.policy.spec.action == "DENY" and not _excepts(refusal)):
        return None
    meant = (Peer(ns, known=True) for ns in dict.fromkeys(named(found)))
    return refusal if any(refused(found, p, server.endpoint.port, tcp=tcp) is None for p in meant) else None


def _excepts(refusal: Refusal) -> bool:
    """Whether a rule means everybody but some."""
    return any(f.source.not_namespaces for r in refusal.policy.spec.rules or () for f in r.from_ or ())


def _of_relay(case: Case, missed: list[Miss]) -> Finding:
    first = missed[0]
    policy = first.ref.partition(" ")[2]
    namespace, _, name = policy.partition("/")
    host, part = short(first.branch.upstream.host), share(case, missed)
    server = first.server
    relays = {(m.branch.view.callers.proxy.kind, relay(case, m.branch.view.callers.proxy)) for m in missed}
    kinds = sorted({kind for kind, _ in relays})
    domain = case.mesh.config(server.cluster).trust_domain
    who = " and ".join(
        sorted({f"{domain}/ns/{w.namespace}/sa/{w.account}" if w.account else f"namespace {w.namespace}" for _, w in relays})
    )
    at = " and ".join(f"{kind}s" if sum(k == kind for k, _ in relays) > 1 else kind for kind in kinds)
    service = first.branch.upstream.service
    target = service.sources[0][1] if service is not None else host
    got = "get 403" if all(m.branch.step.protocol == "http" and not m.server.endpoint.tunnel for m in missed) else "are refused"
    found = policies(case.mesh, server.cluster, server.endpoint.namespace, server.pod.labels)
    others = ", ".join(sorted(set(named(found)))[:3])
    return case.finding(
        "authz-principal-without-mtls",
        cluster=holder(case, first.ref, server.cluster),
        resource=first.ref,
        path=first.path,
        message=(
            f"{percent(part)} of the requests of a rule that come to {host} through a {at} {got}: {first.ref} does not let in {who}, the "
            "identity that arrives there, whoever called first."
        ),
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(
            f"{first.ref} {first.path} lets in by identity: {others}",
            f"the {at} speaks mutual TLS to {host} with the identity of {who}",
            *seen(missed),
        ),
        fix=(
            f"Attach {first.ref} to {target} (targetRefs), so that the waypoint enforces it, which knows who called first; or let it name {who}."
            if kinds == ["waypoint"]
            else f"Let {first.ref} name {who} as well, and say in a policy of the gateway who may call through it."
        ),
        commands=(
            "istioctl ztunnel-config policies"
            if server.endpoint.tunnel
            else f"istioctl x authz check {server.pod.name} -n {server.pod.namespace}",
            f"kubectl -n {namespace} get authorizationpolicy {name} -o yaml",
        ),
    )


def _at_gateway(case: Case, view: View) -> Iterator[Finding]:
    """The policy of a gateway that lets in by identity alone where its servers take calls without one."""
    ups = view.ups
    proxy, merged = ups.proxy, gateway.merge(case.mesh, ups)
    found = enforced(case.mesh, ups.istiod, proxy, None)
    known = {
        b.server.port.number for group in merged.by_route.values() for b in group if b.tls in {"ISTIO_MUTUAL", "MUTUAL", "OPTIONAL_MUTUAL"}
    }
    steps = [s for s in view.steps if s.protocol == "http" and case.asked(s.port) and s.port not in known] if found else []
    behind = {p.number: p.target for p in reversed(gateway.ports(ups))}
    meant = [about(p, case.host) for p in found]
    refusals: dict[str, Refusal] = {}
    for s in steps:
        port = behind.get(s.port, s.port)
        refusal = refused(meant, Peer("", known=False), port, tcp=False)
        rules = [r for p in meant if p.spec.action == "ALLOW" for r in p.spec.rules or ()]
        if refusal is not None and refusal.policy.spec.action == "ALLOW" and any(map(by_identity, rules)):
            refusals.setdefault(refusal.policy.ref, refusal)
            for b in case.branches:
                if b.view is view and b.step is s:
                    case.miss(b, refusal.policy, 1.0)
    for ref, refusal in refusals.items():
        yield case.finding(
            "authz-principal-without-mtls",
            cluster=case.mesh.cluster(ups.istiod.cluster).name,
            resource=ref,
            path=refusal.path,
            message=(
                f"Every call of {short(case.host)} at the gateway in {proxy.namespace} gets 403: {ref} asks who calls, and what comes from "
                "outside has no identity of the mesh."
            ),
            share=1.0,
            viewpoints=view.callers.viewpoints,
            evidence=(
                f"{ref} {refusal.path} lets in by identity alone",
                f"the gateway in {proxy.namespace} enforces it, and its servers for the host ask for no certificate of the mesh",
            ),
            fix=f"Let {ref} say by something else who may come in (remoteIpBlocks, requestPrincipals), or attach it to the servers behind the gateway.",
            commands=(
                f"istioctl x authz check <gateway pod> -n {proxy.namespace}",
                f"kubectl -n {refusal.policy.namespace} get authorizationpolicy {refusal.policy.name} -o yaml",
            ),
        )


def anonymous(case: Case, server: Server, namespace: str, *, tcp: bool) -> Refusal | None:
    """The policy that refuses a plain call from a namespace for having no identity: with one it would not be certain."""
    found = policies(case.mesh, server.cluster, server.endpoint.namespace, server.pod.labels)
    refusal = refused(found, Peer(namespace, known=False), server.endpoint.port, tcp=tcp)
    if refusal is None or refused(found, Peer(namespace, known=True), server.endpoint.port, tcp=tcp) is not None:
        return None
    return refusal


def closed(case: Case, namespace: str) -> tuple[float, list[tuple[Server, Refusal]]]:
    """What part of a plain call from a namespace to the host, on its worst port, is refused for having no identity, and by whom."""
    worst: tuple[float, list[tuple[Server, Refusal]]] = 0.0, []
    for _, port, behind in around(case):
        shut = [
            (s, r)
            for s in behind
            if s.meshed and accepts(case.mesh, s).mode != "STRICT" and (r := anonymous(case, s, namespace, tcp=port.tcp)) is not None
        ]
        if behind and len(shut) / len(behind) > worst[0]:
            worst = len(shut) / len(behind), shut
    return worst


def _of_callers(case: Case, missed: list[Miss]) -> Finding:
    first = missed[0]
    u = first.branch.upstream
    part = share(case, missed)
    said = tls_at(first.branch)
    why = f"{said[0]} switches TLS off ({said[1]})" if said else "automatic mutual TLS does not reach these endpoints"
    policy = first.ref.partition(" ")[2]
    namespace, _, name = policy.partition("/")
    return case.finding(
        "authz-principal-without-mtls",
        cluster=holder(case, first.ref, first.server.cluster),
        resource=first.ref,
        path=first.path,
        message=(
            f"{percent(part)} of the requests of a rule get 403: {first.ref} asks who calls {short(u.host)}, and these callers speak plain text, "
            "which says nothing about them."
        ),
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(f"{first.ref} {first.path} lets in by identity alone", why, *seen(missed)),
        fix=f"Let these callers speak mutual TLS ({said[0]}: tls.mode ISTIO_MUTUAL, or none)."
        if said
        else "Let these callers speak mutual TLS.",
        commands=(
            f"istioctl x authz check {first.server.pod.name} -n {first.server.pod.namespace}",
            f"kubectl -n {namespace} get authorizationpolicy {name} -o yaml",
        ),
    )


def _of_outsider(case: Case, outsider: Outsider, why: str) -> Iterator[Finding]:
    part, shut = closed(case, outsider.viewpoint.namespace)
    if not shut:
        return
    server, refusal = shut[0]
    policy = refusal.policy
    host = short(case.host)
    yield case.finding(
        "authz-principal-without-mtls",
        cluster=holder(case, policy.ref, server.cluster),
        resource=policy.ref,
        path=refusal.path,
        message=(
            f"{percent(part)} of the calls of {outsider.workload} to {host} get 403: {policy.ref} asks who calls, and {outsider.workload} has no "
            "sidecar, so it has no identity."
        ),
        share=part,
        viewpoints=(outsider.viewpoint,),
        evidence=(
            f"{policy.ref} {refusal.path} lets in by identity alone",
            f"the pods of {outsider.workload} have no container istio-proxy, and nothing asks for one",
            f"{outsider.viewpoint.namespace} means to call it: {why}",
        ),
        fix=f"Give {outsider.workload} a sidecar, or let it in by something else than its identity.",
        commands=(
            f"istioctl x authz check {server.pod.name} -n {server.pod.namespace}",
            f"kubectl -n {policy.namespace} get authorizationpolicy {policy.name} -o yaml",
        ),
    )
