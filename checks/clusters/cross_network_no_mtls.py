"""cross-network-no-mtls (MESH607)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import endpoints_command, short
from checks.clusters import Lost, Way, behind, callers, lost, passing, share, viewpoints
from checks.entries import together
from checks.finding import Finding, check, explained, explains
from checks.peers import accepted
from checks.resources import DestinationRule, PeerAuthentication
from checks.subsets import percent
from checks.upstream import sni_key
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.mesh import Mesh, NetworkGateway
    from checks.registry import IstioEndpoint


def _plain(branch: Branch) -> list[IstioEndpoint]:
    """Healthy endpoints of another network that are dropped, since calls to them are not mTLS."""
    return [e for e, r in branch.view.ups.reach(branch.upstream) if r == "plain" and e.health == "healthy"]


@explains("cross-network-no-mtls")
def _explains(_: Case, branch: Branch) -> bool:
    return branch.upstream.defined and bool(branch.view.ups.mesh.network_gateways) and bool(_plain(branch))


def _may_say(mesh: Mesh, g: NetworkGateway, host: str, namespace: str) -> bool:
    """Whether anything in the cluster of a network's gateway may speak against mTLS of a host: most clusters have nothing, and each endpoint is asked about."""
    where = mesh.known(g.cluster)
    if where is None:
        return False
    istiod = mesh.istiod(where.name)

    def find() -> tuple[frozenset[str], frozenset[str], tuple[str, ...]]:
        spaces = {p.namespace for p in istiod.all(PeerAuthentication) if isinstance(p, PeerAuthentication) and _disables(p)}
        named = {names.fqdn(r.spec.host, r.namespace) for r in istiod.all(DestinationRule) if isinstance(r, DestinationRule) and _speaks(r)}
        wild = tuple(h for h in named if names.is_wildcard(h))
        return frozenset(spaces), frozenset(named), wild

    spaces, named, wild = istiod.once("against mTLS", find)
    return namespace in spaces or istiod.config.root_namespace in spaces or host in named or any(names.matches(w, host) for w in wild)


def _disables(policy: PeerAuthentication) -> bool:
    own = policy.spec.mtls
    return (own is not None and own.mode == "DISABLE") or any(m.mode == "DISABLE" for m in (policy.spec.port_level_mtls or {}).values())


def _speaks(rule: DestinationRule) -> bool:
    """Whether a rule says on some level how to speak, and not mTLS."""
    policies = [p for p in (rule.spec.traffic_policy, *(s.traffic_policy for s in rule.spec.subsets or ())) if p is not None]
    said = [t for p in policies for t in (p.tls, *(x.tls for x in p.port_level_settings or ())) if t is not None]
    return any(t.mode != "ISTIO_MUTUAL" for t in said)


def _emptied(branch: Branch, way: Way) -> tuple[NetworkGateway, str, str, int] | None:
    """A gateway that stands for an endpoint and sends to nobody: by its own control plane's word there is no mTLS behind it (EndpointsWithMTLSFilter)."""
    u, mesh = branch.upstream, branch.view.ups.mesh
    for g in way.gateways:
        if not _may_say(mesh, g, u.host, way.endpoint.namespace):
            return None
        found = behind(mesh, g)
        if found is None or not passing(found[2], g, u.host)[0]:
            return None
        tunnelled = found[2].of(u.host, u.port, u.subset, sni=True)
        if tunnelled.usable or not tunnelled.defined or not found[2].of(u.host, u.port, u.subset).usable:
            return None
    return (way.gateways[0], u.host, u.subset, u.port) if way.gateways else None


@check("cross-network-no-mtls", when=(explained, several_clusters))
def cross_network_no_mtls(case: Case) -> Iterator[Finding]:
    """The endpoints of a host are in another network, and calls to them are not mTLS.

    The gateway of a network finds its way by the SNI of Istio's mTLS. istiod drops endpoints of another network that have no sidecar, and all
    of them where a DestinationRule says another TLS mode than ISTIO_MUTUAL or a PeerAuthentication DISABLE: 503 "no healthy upstream" (flag UH),
    although the pods are ready. What is said in the other cluster alone is heard by the gateway there, which then closes the connection.

    How to see it: `istioctl proxy-config endpoints <pod> --cluster NAME` prints no line; `istioctl experimental internal-debug endpointShardz` does.

    How to fix it: inject the sidecar there, or say ISTIO_MUTUAL (or nothing) in the DestinationRule, or PERMISSIVE in the PeerAuthentication.
    """
    for branches in together(case, "cross-network-no-mtls"):
        first = branches[0]
        u = first.upstream
        found = _plain(first)
        mode = u.rule.tls_mode(u.port, u.subset) if u.rule else None
        ruled = u.rule if mode is not None else None
        said = (
            accepted(first.view.ups.istiod, found[0].namespace, found[0].labels, found[0].port) if ruled is None and found[0].tls else None
        )
        told = said.policy if said is not None else None
        there = case.mesh.cluster(found[0].cluster)
        source = next((r for c, r in u.service.sources if case.mesh.cluster(c) is there), u.service.sources[0][1]) if u.service else ""
        part = case.share(branches)
        kind, _, name = found[0].workload.partition(" ")
        owner = f"{kind} {found[0].namespace}/{name}"
        where = case.mesh.cluster(first.view.ups.istiod.cluster) if ruled or told else there
        says = f"{ruled.ref} says TLS mode {mode}" if ruled else f"{told.ref} says mode DISABLE" if told else ""
        why = says or f"{found[0].workload or found[0].at} in {there.name} has no sidecar"
        yield case.finding(
            "cross-network-no-mtls",
            cluster=where.name,
            resource=ruled.ref if ruled else told.ref if told else owner if owner in there.origins else source,
            path="spec.trafficPolicy.tls" if ruled else said.path if said and told else "",
            message=(
                f"{percent(part)} of the requests from {' and '.join(dict.fromkeys(v.cluster for v in case.viewpoints(branches)))} to "
                f"{short(u.host)} have nobody to go to: its endpoints are in network {found[0].network}, whose gateway takes mTLS alone, and {why}."
            ),
            share=part,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{e.at} ({e.workload}) in {e.cluster}, network {e.network}: {'mTLS' if e.tls else 'no mTLS'}" for e in found[:5]),
                f"the callers are in network {first.view.ups.proxy.network or '(unknown)'}",
            ),
            fix=f"Say ISTIO_MUTUAL, or no TLS mode, in {ruled.ref}."
            if ruled
            else f"Say PERMISSIVE, or STRICT, in {told.ref}."
            if told
            else f"Inject the sidecar into {owner} in {there.name}.",
            commands=(endpoints_command(u), "istioctl experimental internal-debug endpointShardz"),
        )
    for key, gone in lost(case, _emptied).items():
        found_there = _at_gateway(case, key, gone) if isinstance(key, tuple) else None
        if found_there is not None:
            yield found_there


def _at_gateway(case: Case, key: tuple[NetworkGateway, str, str, int], found: list[Lost]) -> Finding | None:
    """What keeps the gateway of a network from sending to anybody behind it, in the configuration of its own cluster."""
    g, host, subset, port = key
    held = behind(case.mesh, g)
    if held is None:
        return None
    cluster, service, ups = held
    u = ups.of(host, port, subset)
    mode = u.rule.tls_mode(port, subset) if u.rule is not None else None
    first = next(e for e in u.endpoints if e.health == "healthy")
    said = accepted(ups.istiod, first.namespace, first.labels, first.port)
    if u.rule is not None and mode is not None:
        resource, path, says, fix = u.rule.ref, "spec.trafficPolicy.tls", f"TLS mode {mode}", "ISTIO_MUTUAL, or no TLS mode,"
    elif said.policy is not None:
        resource, path, says, fix = said.policy.ref, said.path, f"mode {said.mode}", "PERMISSIVE, or STRICT,"
    else:
        return None
    part = share(case, found)
    return case.finding(
        "cross-network-no-mtls",
        cluster=case.mesh.cluster(ups.istiod.cluster).name,
        resource=resource,
        path=path,
        message=(
            f"{percent(part)} of the requests from {callers(case, found)} to {short(host)} end at the gateway of network {g.network}, "
            f"{service.ref} in {cluster.name}: it takes mTLS alone and has nobody to send to, since {resource} there says {says}."
        ),
        share=part,
        viewpoints=viewpoints(case, found),
        evidence=(
            f"{first.at} ({first.workload}) in {first.cluster}: {resource} says {says}",
            f"network {g.network} is entered at {g.address}:{g.port} ({service.ref})",
        ),
        fix=f"Say {fix} in {resource} of {cluster.name}.",
        commands=(
            f"istioctl --context {cluster.name} proxy-config endpoints <gateway pod>.{service.namespace} --cluster '{sni_key(port, subset, host)}'",
        ),
    )
