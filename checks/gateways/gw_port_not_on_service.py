"""gw-port-not-on-service (MESH702)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import bindings
from checks.finding import Finding, check
from checks.resources import EntryPort, Service
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Gate
    from checks.case import Case


@check("gw-port-not-on-service", when=bound)
def gw_port_not_on_service(case: Case) -> Iterator[Finding]:
    """A Gateway's server has a port by which nobody gets to the gateway's pods.

    istiod looks for the port among those of the Services in front of the pods and opens their target; where no Service has it, the port itself.
    In vain where nothing leads there, where a Service's port leads to a name that no container has, or to a target that another one had before, and
    where it is below 1024 and the pods run without privileges. Connections are refused at the load balancer.

    How to see it: `istioctl proxy-config listeners <gateway pod>` beside `kubectl get service` of the gateway.

    How to fix it: add the port to the gateway's Service with a target of its own, or use one that it has.
    """
    for b in bindings(case, "gw-port-not-on-service"):
        found, server = b.gateway, b.server
        if found is None:
            continue
        if server is None or not case.asked(server.port.number):
            continue
        (gate, *_) = b.gates
        number, port = server.port.number, gate.merged.of(b.name, server)[0]
        having = [p for p in gate.ports if p.number == number]
        closed = port in gate.merged.closed
        astray = gate.astray(number) if not having else None
        why = (
            f"{astray[0].ref} leads it to targetPort {astray[1]}, which no container of the gateway's pods declares"
            if astray is not None
            else f"Gateway {b.name} opens it, and no Service of the gateway's pods has it"
            if not having
            else f"it is port {port.port} of the gateway's pods, which may not open one below 1024"
            if closed
            else f"for Gateway {b.name} the pods listen on {port.port}, and the Service leads to {having[0].target}"
        )
        yield case.finding(
            "gw-port-not-on-service",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=found.ref,
            path=f"spec.servers[{(found.spec.servers or ()).index(server)}].port.number",
            message=f"Nobody reaches {case.host} on port {number}: {why}.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref} has a server on port {number}",
                *dict.fromkeys(f"{p.ref} has port {p.number}, target {p.target}" for g in b.gates for p in g.ports),
                *([] if astray is None else [f"{astray[0].ref} has port {number}, targetPort {astray[1]}"]),
                *([f"pod {gate.ups.proxy.pod} is told that it is unprivileged: ISTIO_META_UNPRIVILEGED_POD"] if closed else ()),
            ),
            fix=f"Let port {number} of {astray[0].ref} lead to a number, or call a container's port of the gateway's pods {astray[1]}."
            if astray is not None
            else f"Give port {number} of the gateway's Service a targetPort of its own{', 1024 or above' if closed else ''}."
            if having
            else f"Add port {number} to the gateway's Service, or let {found.ref} use a port that it has.",
            patch=_patch(case, gate, server.port, 8000 + number if closed else number),
            commands=(f"kubectl -n {gate.namespace} get services",),
        )


def _patch(case: Case, gate: Gate, port: EntryPort, target: int) -> str | None:
    """The port added to the only Service of the gateway's pods, or led to a target of its own."""
    cluster = case.mesh.cluster(gate.ups.proxy.cluster)
    behind = {p.ref for p in gate.ports} or {found[0].ref for found in (gate.astray(port.number),) if found is not None}
    service = next((s for s in cluster.ordered(Service, gate.namespace) if {s.ref} == behind), None)
    if service is None:
        return None
    for i, own in enumerate(service.spec.ports):
        if own.port == port.number:
            return case.patch(cluster.name, service, (("spec", "ports", i, "targetPort"), target))
    added = {"name": f"{port.protocol.lower()}-{port.number}", "port": port.number, "targetPort": target, "protocol": "TCP"}
    return case.patch(cluster.name, service, (("spec", "ports", len(service.spec.ports)), added))
