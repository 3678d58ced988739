"""mtls-plain-to-strict (MESH821)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short, spoken
from checks.finding import Finding, check
from checks.security import (
    Miss,
    Server,
    accepts,
    around,
    by_object,
    holder,
    reached,
    seen,
    share,
    shut,
    somewhere,
    speaks,
    strangers,
    tls_at,
    viewpoints,
)
from checks.security.dr_tls_lost_by_override import lost
from checks.subsets import percent
from checks.viewpoints import evaders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.viewpoints import Evader, Outsider


@check("mtls-plain-to-strict", when=shut)
def mtls_plain_to_strict(case: Case) -> Iterator[Finding]:
    """Callers speak plain text, or TLS without the mesh's certificate, to servers that accept mutual TLS only.

    A DestinationRule switches TLS off (mode DISABLE) or replaces it (SIMPLE), automatic mutual TLS is switched off for the mesh, or the caller
    is outside of the mesh on purpose, or an annotation leads its calls past its sidecar, while a PeerAuthentication with mode STRICT covers the
    server. The server's sidecar finds no filter chain for such a connection and closes it: callers get 503 (flags UF or UC), or a reset when
    no proxy of theirs is on the way.

    How to see it: the server's access log says NR filter_chain_not_found; `istioctl x describe pod` of a server pod shows STRICT.

    How to fix it: let the DestinationRule say ISTIO_MUTUAL or nothing about TLS, give the caller a sidecar, or let the server accept both
    (PERMISSIVE).
    """
    if not somewhere(case.mesh, "STRICT"):
        return
    missed: list[Miss] = []
    for b in case.branches:
        if b.share <= 0 or not b.upstream.usable:
            continue
        servers = reached(case, b)
        for s in servers:
            if s.meshed and speaks(case, b, s) != "mutual" and (mode := accepts(case.mesh, s)).mode == "STRICT" and not lost(case, b):
                at = tls_at(b) or ((mode.policy.ref, mode.path) if mode.policy else ("", ""))
                missed.append(Miss(b, s, 1 / len(servers), *at))
    for group in by_object(missed):
        yield _of_callers(case, group)
    for outsider, why in strangers(case):
        yield from _of_outsider(case, outsider, why)
    for evader in evaders(case.mesh):
        yield from _of_evader(case, evader)


def _of_callers(case: Case, missed: list[Miss]) -> Finding:
    first = missed[0]
    b, server = first.branch, first.server
    mode = accepts(case.mesh, server)
    said = tls_at(b)
    tls = spoken(b)
    how = tls.mode if tls is not None else ""
    speech = f"TLS of their own (mode {how})" if how not in {"", "DISABLE"} else "plain text"
    policy = first.ref.startswith("BackendTLSPolicy ")
    credential = b.upstream.rule.policy_for(b.upstream.port, b.upstream.subset) if b.upstream.rule else None
    named = credential.tls.credential_name if credential and credential.tls and credential.tls is not tls else ""
    says = f"{first.ref} names credential {named}, which sidecars are not given" if named else f"{first.ref} says tls mode {how}"
    why = says if said else "automatic mutual TLS is switched off in MeshConfig"
    part = share(case, missed)
    host = short(b.upstream.host)
    cluster = holder(case, first.ref, case.mesh.cluster(b.view.ups.istiod.cluster), server.cluster)
    return case.finding(
        "mtls-plain-to-strict",
        cluster=cluster,
        resource=first.ref,
        path=f"{first.path}.mode" if said and not policy else first.path,
        message=f"{percent(part)} of the requests of a rule are reset: callers speak {speech} to {host}, which accepts mutual TLS only ({why}).",
        share=part,
        viewpoints=viewpoints(missed),
        evidence=(
            f"{mode.policy.ref if mode.policy else 'istiod'} {mode.path} is STRICT for port {server.endpoint.port}",
            why,
            *seen(missed),
        ),
        fix=(
            f"Take {first.ref} away: {host} is called in mutual TLS anyway. Or let {host} accept both (PERMISSIVE)."
            if policy
            else f"Set tls.mode ISTIO_MUTUAL in {first.ref}, or leave tls out of it."
            if said
            else "Set enableAutoMtls to true in MeshConfig, or write a DestinationRule with tls.mode ISTIO_MUTUAL."
        ),
        commands=(
            f"istioctl x describe pod {server.pod.name} -n {server.pod.namespace}",
            f"istioctl proxy-config cluster <pod> --fqdn {b.upstream.host} --port {b.upstream.port} -o json",
        ),
    )


def strict(case: Case) -> tuple[float, list[Server]]:
    """What part of a plain call to the host, on its worst port, meets a server that accepts mutual TLS only, and these servers."""
    worst: tuple[float, list[Server]] = 0.0, []
    for _, _, servers in around(case):
        shut = [s for s in servers if s.meshed and accepts(case.mesh, s).mode == "STRICT"]
        if servers and len(shut) / len(servers) > worst[0]:
            worst = len(shut) / len(servers), shut
    return worst


def _of_outsider(case: Case, outsider: Outsider, why: str) -> Iterator[Finding]:
    part, shut = strict(case)
    if not shut:
        return
    server = shut[0]
    mode = accepts(case.mesh, server)
    ref = mode.policy.ref if mode.policy else ""
    host = short(case.host)
    yield case.finding(
        "mtls-plain-to-strict",
        cluster=holder(case, ref, server.cluster),
        resource=ref,
        path=mode.path,
        message=f"{percent(part)} of the calls of {outsider.workload} to {host} are reset: it has no sidecar, and {host} accepts mutual TLS only.",
        share=part,
        viewpoints=(outsider.viewpoint,),
        evidence=(
            f"{ref} {mode.path} is STRICT for port {server.endpoint.port}",
            f"the pods of {outsider.workload} have no container istio-proxy, and nothing asks for one",
            f"{outsider.viewpoint.namespace} means to call it: {why}",
        ),
        fix=f"Give {outsider.workload} a sidecar, or let {host} accept both (PERMISSIVE).",
        commands=(
            f"istioctl x describe pod {server.pod.name} -n {server.pod.namespace}",
            f"kubectl -n {outsider.viewpoint.namespace} get pods -o custom-columns=NAME:.metadata.name,CONTAINERS:.spec.containers[*].name",
        ),
    )


def _of_evader(case: Case, evader: Evader) -> Iterator[Finding]:
    """A caller whose calls go past its sidecar, where something says that it means this host: what it keeps from its proxy is mostly for what is outside."""
    asked = case.wants(evader.viewpoint)
    for service, port, servers in around(case) if asked else ():
        where = case.mesh.cluster(evader.viewpoint.cluster)
        past = evader.past(port.number, (service.address_for(case.mesh.cluster_id(where)),))
        shut = [s for s in servers if s.meshed and accepts(case.mesh, s).mode == "STRICT"]
        if not past or not shut or not case.asked(port.number):
            continue
        server, part, host = shut[0], round(len(shut) / len(servers), 6), short(case.host)
        mode = accepts(case.mesh, server)
        pod = evader.workload.startswith("Pod ")
        yield case.finding(
            "mtls-plain-to-strict",
            cluster=evader.viewpoint.cluster,
            resource=evader.workload,
            path=f"{'' if pod else 'spec.template.'}metadata.annotations[{past}]",
            message=(
                f"{percent(part)} of the calls of {evader.workload} to {host} on port {port.number} are reset: {past.rpartition('/')[2]} leads them "
                f"past its sidecar, in plain text, and {host} accepts mutual TLS only."
            ),
            share=part,
            viewpoints=(evader.viewpoint,),
            evidence=(
                f"{evader.workload} has annotation {past}: {evader.annotations[past]}",
                f"{mode.policy.ref if mode.policy else 'istiod'} {mode.path} is STRICT for port {server.endpoint.port}",
                f"{evader.viewpoint.namespace} means to call it: {asked}",
            ),
            fix=f"Let the sidecar of {evader.workload} have these calls (annotation {past}), or let {host} accept both (PERMISSIVE).",
            commands=(
                f"kubectl -n {evader.viewpoint.namespace} get pods -o jsonpath='{{.items[*].metadata.annotations}}'",
                f"istioctl x describe pod {server.pod.name} -n {server.pod.namespace}",
            ),
        )
        return
