"""mtls-to-plain (MESH822)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import short
from checks.finding import Finding, check
from checks.patches import AWAY, at
from checks.registry import proxy_kind
from checks.resources import DestinationRule
from checks.security import Miss, Server, accepts, by_object, holder, odd, reached, seen, share, somewhere, speaks, tls_at, viewpoints
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


def _spoken(case: Case) -> bool:
    """Somebody may speak mutual TLS to a server that takes none."""
    if case.mesh.now(("disabled",), lambda: somewhere(case.mesh, "DISABLE")):
        return True
    return any([u.unseen or odd(case.mesh, u.endpoints) for u in case.upstreams])


@check("mtls-to-plain", when=_spoken)
def mtls_to_plain(case: Case) -> Iterator[Finding]:
    """Callers speak mutual TLS to servers that take plain text.

    A DestinationRule says ISTIO_MUTUAL and the server's pods have no sidecar, or a PeerAuthentication says DISABLE for them, or an annotation
    keeps the port from the sidecar; or the pods carry the label that says "I speak Istio's TLS" and have no proxy. The server answers the TLS
    handshake with something that is none: callers get 503 (flag UF, TLS_error WRONG_VERSION_NUMBER). A rule for many hosts says nothing of
    istiod, which proxies call by themselves.

    How to see it: the caller's access log names UF with TLS_error; `istioctl proxy-config cluster <pod> -o json` shows the TLS context.

    How to fix it: leave tls out of the DestinationRule, so that Istio decides for each endpoint, or give the server a sidecar.
    """
    missed: list[Miss] = []
    disabled = somewhere(case.mesh, "DISABLE")
    for b in case.branches:
        if b.share <= 0 or not b.upstream.usable or not (disabled or b.upstream.unseen or odd(case.mesh, b.upstream.endpoints)):
            continue
        servers = reached(case, b)
        deaf = [s for s in servers if _deaf(case, s) and speaks(case, b, s) == "mutual" and not _spared(b, s)]
        for s in deaf:
            # what several workloads of one service lack is one fault
            place = tls_at(b) or _marked(s, min(_owner(case, d) for d in deaf if d.cluster is s.cluster and d.bypass == s.bypass))
            missed.append(Miss(b, s, 1 / len(servers), *place))
    for group in by_object(missed):
        yield _finding(case, group)


def _owner(case: Case, server: Server) -> str:
    kind, _, name = case.mesh.workload(server.cluster, server.pod).partition(" ")
    return f"{kind} {server.pod.namespace}/{name}"


def _spared(branch: Branch, server: Server) -> bool:
    """Whether nobody calls through Envoy: istiod, which a rule for many hosts happens to cover; agents dial it themselves (pkg/istio-agent)."""
    rule = branch.upstream.rule
    return server.pod.labels.get("app") == "istiod" and rule is not None and all(names.is_wildcard(o.spec.host) for o in rule.origins)


def _marked(server: Server, owner: str) -> tuple[str, str]:
    at = f"metadata.annotations[{server.bypass}]" if server.bypass else "metadata.labels"
    return owner, at if owner.startswith("Pod ") else f"spec.template.{at}"


def _deaf(case: Case, server: Server) -> str:
    """Why a server does not take mutual TLS, for people; empty when it does."""
    if proxy_kind(server.pod) == "none":
        return "has no sidecar"
    if server.bypassed:
        return f"keeps port {server.endpoint.port} from its sidecar"
    mode = accepts(case.mesh, server)
    if mode.mode == "DISABLE":
        return f"takes no TLS: {mode.policy.ref if mode.policy else 'istiod'} {mode.path} is DISABLE"
    return ""


def _finding(case: Case, missed: list[Miss]) -> Finding:
    first = missed[0]
    b: Branch = first.branch
    said = tls_at(b)
    part = share(case, missed)
    host = short(b.upstream.host)
    reasons = sorted({_deaf(case, m.server) for m in missed})
    owners = sorted({_owner(case, m.server) for m in missed})
    who = ", ".join(owners[:3]) + (f" and {len(owners) - 3} more" if len(owners) > 3 else "")
    mark = f"annotation {first.server.bypass}" if first.server.bypass else "label security.istio.io/tlsMode=istio"
    why = f"{first.ref} says ISTIO_MUTUAL" if said else f"{mark} on the pods of {who}"
    return case.finding(
        "mtls-to-plain",
        cluster=holder(case, first.ref, case.mesh.cluster(b.view.ups.istiod.cluster)) if said else first.server.cluster.name,
        resource=first.ref,
        path=f"{first.path}.mode" if said else first.path,
        message=f"{percent(part)} of the requests of a rule fail: callers speak mutual TLS to {host}, which {' or '.join(reasons)} ({why}).",
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(
            why,
            *dict.fromkeys(f"pod {m.server.pod.namespace}/{m.server.pod.name} {_deaf(case, m.server)}" for m in missed[:3]),
            *seen(missed),
        ),
        fix=_fix(case, first, host, who, said=said is not None),
        patch=_patch(case, first, b) if said else None,
        commands=(
            f"istioctl proxy-config cluster <pod> --fqdn {b.upstream.host} --port {b.upstream.port} -o json",
            f"kubectl -n {first.server.pod.namespace} get pod {first.server.pod.name} -o jsonpath='{{.spec.containers[*].name}}'",
        ),
    )


def _fix(case: Case, first: Miss, host: str, who: str, *, said: bool) -> str:
    """What to do, by what keeps the server from taking mutual TLS."""
    server = first.server
    if server.bypass:
        other = f"set tls.mode DISABLE in {first.ref}" if said else f"write a DestinationRule with tls.mode DISABLE for {host}"
        return f"Let the sidecar have the port (annotation {server.bypass} of {who}), or {other}."
    policy = accepts(case.mesh, server).policy if proxy_kind(server.pod) != "none" else None
    if said:
        other = f"let {policy.ref} accept mutual TLS (PERMISSIVE)" if policy else f"give the pods of {host} a sidecar"
        return f"Leave tls out of {first.ref}, so that Istio decides for each endpoint, or {other}."
    return f"Give the pods of {who} a sidecar, or remove the label security.istio.io/tlsMode from them."


def _patch(case: Case, first: Miss, branch: Branch) -> str | None:
    """The DestinationRule without tls, so that Istio decides for each endpoint."""
    cluster = holder(case, first.ref, case.mesh.cluster(branch.view.ups.istiod.cluster))
    namespace, _, name = first.ref.partition(" ")[2].partition("/")
    return case.patch(cluster, case.mesh.cluster(cluster).get(DestinationRule, namespace, name), (at(first.path), AWAY))
