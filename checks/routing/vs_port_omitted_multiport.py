"""vs-port-omitted-multiport (MESH205)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import no_port, omitted, registered, written
from checks.subsets import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("vs-port-omitted-multiport")
def _explains(_: Case, branch: Branch) -> bool:
    if not no_port(branch):
        return False
    said, service = written(branch), registered(branch)
    return said is not None and said.port is None and service is not None and len(service.ports) > 1


@check("vs-port-omitted-multiport", when=explained)
def vs_port_omitted_multiport(case: Case) -> Iterator[Finding]:
    """A destination names no port, its service has several, and none of them is the port that was called.

    Without `destination.port` istiod takes the port of the listener: the one that callers use, or the gateway's. When the destination's
    service does not have it, the route leads to a cluster that is never pushed, and Envoy answers with 503 (flag NC, body empty).

    How to see it: `istioctl proxy-config routes <pod> -o json` shows the cluster with the listener's port.

    How to fix it: set `destination.port.number`.
    """
    for branches in case.caused("vs-port-omitted-multiport"):
        yield omitted(case, "vs-port-omitted-multiport", branches)
    shown(case, VirtualService, Service, ServiceEntry)
