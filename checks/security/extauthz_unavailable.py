"""extauthz-unavailable (MESH830)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.finding import Finding, check
from checks.registry import proxy_kind
from checks.routes import upstreams
from checks.security import Miss, Peer, by_object, guarded, holder, matched, policies, reached, seen, share, viewpoints
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.mesh import Cluster
    from checks.resources import AuthorizationPolicy, Pod
    from checks.security import Server


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
    the policy matches (403). One whose service has no usable endpoint fails at each call: 403 with flag UAEX, unless failOpen is set.

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
        if any(said) and (found := _silent(case, server.cluster, server.pod, policy)) is not None:
            yield _Asked(policy, found[0], 2 in said, found[1])


def _silent(case: Case, cluster: Cluster, pod: Pod, policy: AuthorizationPolicy) -> tuple[str, str] | None:
    """Why nobody answers, for people, with its proof; None when somebody does or when calls pass without an answer."""
    mesh = case.mesh
    istiod = mesh.istiod(cluster.name)
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
    upstream = upstreams(mesh, mesh.proxy(cluster, pod, proxy_kind(pod))).of(host, int(to.port))
    if upstream.usable:
        return None
    state = "has no usable endpoint" if upstream.defined else "has no such port for this server"
    return (
        f"provider {name} leads to {short(host)}:{to.port}, which {state}",
        f"{upstream.name} {state} (MeshConfig.extensionProviders, {name})",
    )


def _finding(case: Case, missed: list[Miss], asked: _Asked) -> Finding:
    first = missed[0]
    u = first.branch.upstream
    policy = asked.policy
    part = share(case, missed)
    which = f"{percent(part)} of the requests of a rule" if part else "What the policy matches of the requests"
    return case.finding(
        "extauthz-unavailable",
        cluster=holder(case, policy.ref, first.server.cluster),
        resource=policy.ref,
        path="spec.provider.name",
        message=f"{which} to {short(u.host)} get{'s'[: not part]} 403: {policy.ref} asks an external authorizer, and {asked.reason}.",
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(
            f"{policy.ref} has action CUSTOM and provider {policy.spec.provider.name if policy.spec.provider else '(none)'}",
            asked.proof,
            *seen(missed),
        ),
        fix=f"Correct the provider of {policy.ref} or its service in MeshConfig.extensionProviders, or bring the authorizer up.",
        commands=(
            f"kubectl -n {policy.namespace} get authorizationpolicy {policy.name} -o yaml",
            f"istioctl x authz check {first.server.pod.name} -n {first.server.pod.namespace}",
        ),
    )
