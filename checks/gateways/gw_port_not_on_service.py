"""gw-port-not-on-service (MESH702)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Binding, bindings
from checks.finding import Finding, check
from checks.resources import EntryPort, Service
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("gw-port-not-on-service", when=bound)
def gw_port_not_on_service(case: Case) -> Iterator[Finding]:
    """A Gateway's server has a port that the gateway's Service does not have.

    The gateway's pods open the listener, and nothing leads there: the Service in front of them has neither this port nor one that targets
    it. Connections are refused at the load balancer.

    How to see it: `kubectl get service` of the gateway lacks the port; `istioctl proxy-config listeners <gateway pod>` has it.

    How to fix it: add the port to the gateway's Service, or use one that it has.
    """
    for b in bindings(case, "gw-port-not-on-service"):
        found, server = b.gateway, b.server
        if found is None:
            continue
        if server is None or not case.asked(server.port.number):
            continue
        yield case.finding(
            "gw-port-not-on-service",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=found.ref,
            path=f"spec.servers[{(found.spec.servers or ()).index(server)}].port.number",
            message=f"Nobody reaches {case.host} on port {server.port.number}: Gateway {b.name} opens it, and no Service of the gateway's pods has it.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref} has a server on port {server.port.number}",
                *dict.fromkeys(
                    f"Service {p.namespace}/{p.service.partition('.')[0]} has port {p.number}, target {p.target}"
                    for g in b.gates
                    for p in g.ports
                ),
            ),
            fix=f"Add port {server.port.number} to the gateway's Service, or let {found.ref} use a port that it has.",
            patch=_patch(case, b, server.port),
            commands=(f"kubectl -n {b.gates[0].namespace} get services",),
        )


def _patch(case: Case, b: Binding, port: EntryPort) -> str | None:
    """The port added to the only Service of the gateway's pods."""
    (gate, *_) = b.gates
    cluster = case.mesh.cluster(gate.ups.proxy.cluster)
    behind = {p.service.partition(".")[0] for p in gate.ports}
    service = cluster.get(Service, gate.namespace, behind.pop()) if len(behind) == 1 else None
    if service is None:
        return None
    added = {"name": f"{port.protocol.lower()}-{port.number}", "port": port.number, "targetPort": port.number, "protocol": "TCP"}
    return case.patch(cluster.name, service, (("spec", "ports", len(service.spec.ports)), added))
