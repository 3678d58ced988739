"""vs-dest-port-unknown (MESH204)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import mend, no_port, ports, registered, with_port, written
from checks.subsets import percent, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.registry import HostService


@explains("vs-dest-port-unknown")
def _explains(_: Case, branch: Branch) -> bool:
    if not no_port(branch):
        return False
    said, service = written(branch), registered(branch)
    return said is not None and (said.port is not None or (service is not None and not service.ports))


@check("vs-dest-port-unknown", when=explained)
def vs_dest_port_unknown(case: Case) -> Iterator[Finding]:
    """A rule leads to a port that the service of its destination does not have.

    `destination.port.number` is the Service's or ServiceEntry's own port, not the port of its pods (`targetPort`). istiod writes the route
    with a cluster that it never pushes, and Envoy answers with 503 (flag NC, body empty). A headless Service may have no ports at all: whatever
    leads to it leads nowhere.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lists the ports that exist; the rule's is not among them.

    How to fix it: name one of the service's ports, or add the port to the service.
    """
    for branches in case.caused("vs-dest-port-unknown"):
        first = branches[0]
        u = first.upstream
        service = registered(first)
        if service is None:
            continue
        host, share = short(u.host), case.share(branches)
        behind = [p for p in service.ports if p.target == u.port]
        meant = behind[0] if len(behind) == 1 else service.ports[0] if len(service.ports) == 1 else None
        known = f"{'its only port is' if len(service.ports) == 1 else 'its ports are'} {ports(service.ports)}"
        known = known if service.ports else "it has none at all"
        said, add = written(first), f"add port {u.port} to {service.sources[0][1]}."
        yield case.finding(
            "vs-dest-port-unknown",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.destination.port.number" if said is not None and said.port is not None else f"{first.path}.destination",
            message=f"{percent(share)} of the requests of a rule go to port {u.port} of {host}, which has no such port: {known}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(_seen(service, u.port)),
            fix=f"Set destination.port.number to {meant.number if meant else 'a port of the service'}, or {add}"
            if service.ports
            else f"{add[0].upper()}{add[1:]}",
            patch=mend(case, branches, with_port(meant.number)) if meant else None,
            commands=(f"istioctl proxy-config cluster <pod> --fqdn {u.host}",),
        )
    shown(case, VirtualService, Service, ServiceEntry)


def _seen(service: HostService, number: int) -> Iterator[str]:
    for cluster, ref in service.sources:
        yield f"{ref} in {cluster} has {f'ports {ports(service.ports)}' if service.ports else 'no ports'}"
    for p in service.ports:
        if p.target == number:
            yield f"{number} is the targetPort of its port {p.number}, which only pods listen on"
