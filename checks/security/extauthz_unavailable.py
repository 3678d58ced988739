"""extauthz-unavailable (MESH830)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import gateway, ztunnel
from checks.case import short
from checks.finding import Finding, check
from checks.registry import proxy_kind
from checks.routes import upstreams
from checks.security import (
    Miss,
    Peer,
    about,
    by_object,
    enforced,
    guarded,
    holder,
    matched,
    policies,
    reached,
    seen,
    share,
    viewpoints,
)
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case, View
    from checks.istiod import Istiod
    from checks.resources import AuthorizationPolicy
    from checks.security import Server
    from checks.upstream import Upstreams


class _Asked(NamedTuple):
    """A CUSTOM policy whose authorizer does not answer: why, for people, and whether every call meets it."""

    policy: AuthorizationPolicy
    reason: str
    always: bool
    proof: str


@check("extauthz-unavailable", when=guarded)
def extauthz_unavailable(case: Case) -> Iterator[Finding]:
    """A CUSTOM AuthorizationPolicy hands calls to an authorizer that is not defined, is no service of the mesh, or has nobody to answer.

    A provider that MeshConfig.extensionProviders does not have, or whose service istiod does not know, is turned into rules that deny whatever
    the policy matches (403). One whose service has no usable endpoint fails at each call: 403 with flag UAEX, unless failOpen is set. The
    policy may be the server's, or that of a gateway or waypoint on the way.

    How to see it: istiod's log says "failed to process CUSTOM action ... will generate deny configs"; the server's access log says UAEX.

    How to fix it: correct the provider's name or service, or bring its endpoints up.
    """
    if not guarded(case):
        return
    missed: list[Miss] = []
    asked: dict[str, _Asked] = {}
    for b in case.branches:
        if b.share <= 0 or not b.upstream.usable:
            continue
        servers = reached(case, b)
        for s in servers:
            for a in _of_server(case, b, s):
                asked[a.policy.ref] = a
                missed.append(Miss(b, s, 1 / len(servers) if a.always else 0.0, a.policy.ref, "spec.provider.name"))
    for group in by_object(missed):
        yield _finding(case, group, asked[group[0].ref])
    for view in case.views:
        if view.callers.proxy.kind != "sidecar":
            yield from _on_the_way(case, view)


def _on_the_way(case: Case, view: View) -> Iterator[Finding]:
    """What a gateway or waypoint asks of the calls to the host that it takes."""
    ups = view.ups
    proxy = ups.proxy
    service = next(iter(ups.istiod.by_host.get(case.host, ())), None)
    behind = {p.number: p.target for p in reversed(gateway.ports(ups))} if proxy.kind == "gateway" else {}
    # a gateway does not know who calls from outside; a waypoint is told by ztunnel
    callers = [Peer("", known=False)] if proxy.kind == "gateway" else [Peer(v.namespace, known=True) for v in ztunnel.callers(case.mesh)]
    for policy in enforced(case.mesh, ups.istiod, proxy, service):
        if policy.spec.action != "CUSTOM":
            continue
        rules = about(policy, case.host).spec.rules or ()
        said: dict[int, int] = {}
        for s in view.steps if rules else ():
            if case.asked(s.port):
                port, tcp = behind.get(s.port, s.port), s.protocol != "http"
                said[id(s)] = max((matched(r, p, port, tcp=tcp, strictly=True, deny=True) for r in rules for p in callers), default=0)
        if not any(said.values()) or (found := _silent(case, ups.istiod, ups, policy)) is None:
            continue
        met = [b for b in case.branches if b.view is view and said.get(id(b.step)) == 2]
        for b in met:
            case.miss(b, policy, 1.0)
        yield _told(
            case,
            _Asked(policy, found[0], bool(met), found[1]),
            case.mesh.cluster(ups.istiod.cluster).name,
            f"to {short(case.host)} at the {proxy.kind} in {proxy.namespace}",
            1.0 if met else 0.0,
            view.callers.viewpoints,
            (f"{policy.ref} is enforced by the {proxy.kind} in {proxy.namespace}",),
            f"istioctl x authz check <{proxy.kind} pod> -n {proxy.namespace}",
        )


def _of_server(case: Case, branch: Branch, server: Server) -> Iterator[_Asked]:
    if not server.meshed:
        return
    port = branch.upstream.service.port(branch.upstream.port) if branch.upstream.service else None
    tcp = port is not None and port.tcp
    for policy in policies(case.mesh, server.cluster, server.endpoint.namespace, server.pod.labels):
        if policy.spec.action != "CUSTOM":
            continue
        spaces = {v.namespace for v in branch.view.callers.viewpoints}
        said = [
            matched(r, Peer(ns, known=True), server.endpoint.port, tcp=tcp, strictly=True, deny=True)
            for r in policy.spec.rules or ()
            for ns in spaces
        ]
        if not any(said):
            continue
        ups = upstreams(case.mesh, case.mesh.proxy(server.cluster, server.pod, proxy_kind(server.pod)))
        if (found := _silent(case, case.mesh.istiod(server.cluster.name), ups, policy)) is not None:
            yield _Asked(policy, found[0], 2 in said, found[1])


def _silent(case: Case, istiod: Istiod, ups: Upstreams, policy: AuthorizationPolicy) -> tuple[str, str] | None:
    """Why nobody answers a proxy, for people, with its proof; None when somebody does or when calls pass without an answer."""
    name = policy.spec.provider.name if policy.spec.provider else ""
    defined = [p for p in istiod.config.extension_providers if p.authorizer is not None]
    provider = next((p for p in defined if p.name == name), None)
    if provider is None or provider.authorizer is None:
        known = ", ".join(p.name for p in defined) or "none"
        return f"provider {name or '(no name)'} is not defined", f"MeshConfig.extensionProviders defines these authorizers: {known}"
    to = provider.authorizer
    namespace, slash, host = to.service.rpartition("/")
    spaces = istiod.by_host_and_namespace.get(host, {})
    if (slash and namespace not in spaces) or (not slash and len(spaces) != 1):
        several = f"{len(spaces)} namespaces have {host}" if len(spaces) > 1 else f"no service {to.service} is known"
        return f"provider {name} leads to {to.service}, which istiod cannot tell", f"{several} (MeshConfig.extensionProviders, {name})"
    if to.fail_open or not str(to.port).isdigit():
        return None
    case.also.update((host, ns) for ns in spaces)
    upstream = ups.of(host, int(to.port))
    if upstream.usable:
        return None
    state = "has no usable endpoint" if upstream.defined else "has no such port for this proxy"
    return (
        f"provider {name} leads to {short(host)}:{to.port}, which {state}",
        f"{upstream.name} {state} (MeshConfig.extensionProviders, {name})",
    )


def _finding(case: Case, missed: list[Miss], asked: _Asked) -> Finding:
    first = missed[0]
    pod = first.server.pod
    return _told(
        case,
        asked,
        holder(case, asked.policy.ref, first.server.cluster),
        f"to {short(first.branch.upstream.host)}",
        share(case, missed),
        viewpoints(missed),
        tuple(seen(missed)),
        f"istioctl x authz check {pod.name} -n {pod.namespace}",
    )


def _told(
    case: Case,
    asked: _Asked,
    cluster: str,
    which: str,
    part: float,
    callers: Iterable[Viewpoint],
    proof: tuple[str, ...],
    command: str,
) -> Finding:
    policy = asked.policy
    what = f"{percent(part)} of the requests of a rule" if part else "What the policy matches of the requests"
    return case.finding(
        "extauthz-unavailable",
        cluster=cluster,
        resource=policy.ref,
        path="spec.provider.name",
        message=f"{what} {which} get{'s'[: not part]} 403: {policy.ref} asks an external authorizer, and {asked.reason}.",
        share=part,
        viewpoints=callers,
        evidence=(
            f"{policy.ref} has action CUSTOM and provider {policy.spec.provider.name if policy.spec.provider else '(none)'}",
            asked.proof,
            *proof,
        ),
        fix=f"Correct the provider of {policy.ref} or its service in MeshConfig.extensionProviders, or bring the authorizer up.",
        commands=(f"kubectl -n {policy.namespace} get authorizationpolicy {policy.name} -o yaml", command),
    )
