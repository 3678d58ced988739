"""egress-chain-broken (MESH709)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks.binding import every_binding, gone, virtual_service
from checks.case import short
from checks.finding import Finding, check
from checks.legs import Hop, dead_ends, knows
from checks.subsets import percent
from checks.when import beyond

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case

_HTTP = re.compile(r"spec\.http\[(\d+)\]")


@check("egress-chain-broken", when=beyond)
def egress_chain_broken(case: Case) -> Iterator[Finding]:
    """Callers are led to a gateway that has no rule for the host: the legs of the way out do not meet.

    Through an egress gateway a call needs two rules: one of the mesh that leads to the gateway's Service, and one of the gateway that leads
    on. Where that leads to an address of another mesh's gateway, that one needs a rule as well, for the host that arrives there. A gateway
    that listens on another port, has no rule for the host, or expects TLS where plain HTTP comes, answers 404 or resets the connection. A
    fault inside one leg (a Gateway that is missing, a host that it does not take, no endpoint) has a name of its own and is not reported here.

    How to see it: the gateway's access log has 404 NR for the host; `istioctl proxy-config routes <gateway pod>` lacks it.

    How to fix it: bind a VirtualService for the host to the gateway, on the port that the rule before leads to; or rewrite the authority to
    a host that the gateway serves. Where the gateway speaks the mesh's own TLS, say ISTIO_MUTUAL with the host as sni in a DestinationRule.
    """
    inside = not any(b.share or b.gates for b in every_binding(case)) and not any(
        g.share for conflict in (False, True) for g in gone(case, conflict=conflict)
    )
    groups: dict[tuple[str, str], list[Hop]] = {}
    for end in dead_ends(case):
        if id(end) not in case.named and (not _rewritten(end) if end.abroad else inside and not end.rewritten):
            groups.setdefault((end.branch.resource, end.branch.path), []).append(end)
    for (resource, path), ends in groups.items():
        first = ends[0]
        u = first.branch.upstream
        branches = [e.branch for e in ends]
        share = case.share(branches)
        where = f"gateway {first.service.namespace}/{first.service.name}"
        at = f"{where} of {first.cluster.name}, at {first.address}:{first.number}," if first.abroad else f"the gateway behind port {u.port}"
        served = ", ".join(sorted({b.ref.partition(" ")[2] for g in first.gates for b in g.bound})) or "no Gateway"
        yield case.finding(
            "egress-chain-broken",
            cluster=case.cluster_of(first.branch),
            resource=resource,
            path=path,
            message=f"{percent(share)} of the requests of a rule end at {short(u.host)}: {at} {first.lacks}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(first.told, f"leg 2: the gateway in {first.service.namespace} serves {served} and {first.lacks}"),
            fix=_fix(first),
            patch=_patch(case, ends),
            commands=(
                f"istioctl proxy-config routes <gateway pod> -n {first.service.namespace}",
                f"istioctl proxy-config listeners <gateway pod> -n {first.service.namespace}",
            ),
        )


def _rewritten(end: Hop) -> bool:
    """Whether it is the rewrite that is wrong: the gateway knows the host as it was before."""
    return bool(end.rewritten) and knows(end, end.branch.step.host)


def _fix(end: Hop) -> str:
    u = end.branch.upstream
    at = f"that listens on port {end.number} of its Service" + (f" in {end.cluster.name}" if end.abroad else "")
    if end.lacks.startswith(("expects mutual TLS", "knows no SNI", "speaks the mesh's")):
        return f"Say tls mode ISTIO_MUTUAL with sni {end.host or u.host} for {u.host} in a DestinationRule{', in the subset that the rule leads to' if u.subset else ''}."
    if end.lacks.startswith("has no certificate"):
        return f"Give the gateway's server tls mode ISTIO_MUTUAL, or originate TLS of mode SIMPLE for {u.host} in a DestinationRule."
    if end.lacks.startswith("expects TLS"):
        return f"Originate TLS for {u.host} in a DestinationRule (trafficPolicy.tls.mode SIMPLE), or lead to a port that takes plain HTTP."
    if end.lacks.startswith("expects plain"):
        return f"Lead to the gateway's TLS port, or take trafficPolicy.tls out of the DestinationRule of {u.host}."
    if end.lacks.startswith("has no port"):
        return (
            f"Give Service {end.service.namespace}/{end.service.name} in {end.cluster.name} port {end.number}, or lead to one that it has."
        )
    known = end.abroad and end.host and u.host != end.host and knows(end, u.host)
    rewrite = f"Rewrite the authority to {u.host}, which that gateway serves, or bind" if known else "Bind"
    return f"{rewrite} a VirtualService for {end.host or u.host} to a Gateway of that workload {at}."


def _patch(case: Case, ends: list[Hop]) -> str | None:
    """A rewrite of the authority to the host that the gateway serves."""
    first = ends[0]
    istiod = first.branch.view.ups.istiod
    vs = virtual_service(istiod, first.branch.resource)
    place = _HTTP.match(first.branch.path)
    if not first.abroad or vs is None or place is None or not knows(first, first.branch.upstream.host):
        return None
    rule = (vs.spec.http or ())[int(place[1])]
    if rule.rewrite is not None or len(rule.route or ()) != 1:
        return None
    return case.patch(istiod.cluster, vs, (("spec", "http", int(place[1]), "rewrite"), {"authority": first.branch.upstream.host}))
