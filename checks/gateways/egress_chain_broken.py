"""egress-chain-broken (MESH709)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import DeadEnd, dead_ends, every_binding, gone
from checks.case import short
from checks.finding import Finding, check
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("egress-chain-broken")
def egress_chain_broken(case: Case) -> Iterator[Finding]:
    """Callers are led to a gateway that has no rule for the host: the two legs of the way out do not meet.

    Through an egress gateway a call needs two rules: one of the mesh that leads to the gateway's Service, and one of the gateway that leads
    on. Where the gateway listens on another port, or has no rule for the host, it answers 404 or resets the connection. A fault inside one
    leg (a Gateway that is missing, a host that it does not take, no endpoint) has a name of its own and is not reported here.

    How to see it: the gateway's access log has 404 NR for the host; `istioctl proxy-config routes <gateway pod>` lacks it.

    How to fix it: bind a VirtualService for the host to the gateway, on the port that the first rule leads to.
    """
    if any(b.share or b.gates for b in every_binding(case)) or any(
        g.share for conflict in (False, True) for g in gone(case, conflict=conflict)
    ):
        return
    groups: dict[tuple[str, str], list[DeadEnd]] = {}
    for end in dead_ends(case):
        if not end.rewritten:
            groups.setdefault((end.branch.resource, end.branch.path), []).append(end)
    for (resource, path), ends in groups.items():
        first = ends[0]
        u, gate = first.branch.upstream, first.gate
        branches = [e.branch for e in ends]
        share = case.share(branches)
        lacks = f"has no rule for {first.host}" if first.listens else "does not listen there"
        yield case.finding(
            "egress-chain-broken",
            cluster=case.cluster_of(first.branch),
            resource=resource,
            path=path,
            message=f"{percent(share)} of the requests of a rule end at {short(u.host)}: the gateway behind port {u.port} {lacks}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"leg 1: {path} of {resource} leads to {u.host}, port {u.port}",
                f"leg 2: the gateway in {gate.namespace} serves {', '.join(sorted({b.name for b in gate.bound})) or 'no Gateway'} and {lacks}",
            ),
            fix=f"Bind a VirtualService for {first.host} to a Gateway of that workload that listens on port {u.port} of its Service.",
            commands=(
                f"istioctl proxy-config routes <gateway pod> -n {gate.namespace}",
                f"istioctl proxy-config listeners <gateway pod> -n {gate.namespace}",
            ),
        )
