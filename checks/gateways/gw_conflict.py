"""gw-conflict (MESH703)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Gate, bindings
from checks.finding import Finding, check
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import Server


@check("gw-conflict", when=bound)
def gw_conflict(case: Case) -> Iterator[Finding]:
    """Two Gateways want the same port of one gateway in ways that exclude each other, and the younger one's server is dropped.

    Servers of all Gateways that select a gateway are merged by port, the oldest Gateway first. One that speaks another protocol on a port
    that is taken, or repeats a TLS host, is left out with nothing but a metric, and its VirtualServices with it.

    How to see it: `pilot_total_rejected_configs` counts up; `istioctl proxy-config listeners <gateway pod>` shows the port as the other Gateway has it.

    How to fix it: use another port, other hosts, or one Gateway for both.
    """
    for b in bindings(case, "gw-conflict"):
        found, server = b.gateway, b.server
        if found is None:
            continue
        if server is None or not case.asked(server.port.number):
            continue
        yield case.finding(
            "gw-conflict",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=found.ref,
            path=f"spec.servers[{(found.spec.servers or ()).index(server)}]",
            message=(
                f"The server for port {server.port.number} of Gateway {b.name} is dropped ({b.reason}): "
                + (f"{case.host} is not served there." if b.share else f"{case.host} is served by the other Gateway's.")
            ),
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref}: created {found.created or 'at an unknown time'}, port {server.port.number} {server.port.protocol}",
                *(o for g in b.gates for o in _others(g, b.name, server)),
            ),
            fix=f"Give the server of {found.ref} another port or other hosts, or put both into one Gateway.",
            commands=("istioctl proxy-config listeners <gateway pod> -o json",),
        )


def _others(gate: Gate, name: str, server: Server) -> Iterator[str]:
    """The Gateways that have the port."""
    kept = [b for group in gate.merged.by_route.values() for b in group] + gate.merged.l4
    for b in {(b.gateway.name, b.server.port.protocol): b for b in kept if b.server.port.number == server.port.number}.values():
        if b.gateway.name != name:
            yield f"{b.gateway.ref}: created {b.gateway.created or 'at an unknown time'}, port {b.server.port.number} {b.server.port.protocol}"
