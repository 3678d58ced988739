"""vs-port-omitted-other-port (MESH224)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import no_port, omitted, registered, written
from checks.subsets import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("vs-port-omitted-other-port")
def _explains(_: Case, branch: Branch) -> bool:
    if not no_port(branch):
        return False
    said, service = written(branch), registered(branch)
    return said is not None and said.port is None and service is not None and len(service.ports) == 1


@check("vs-port-omitted-other-port", when=explained)
def vs_port_omitted_other_port(case: Case) -> Iterator[Finding]:
    """A destination names no port, and the only port of its service is another one than the caller's.

    At a gateway istiod takes the only port of a service when the rule names none. At a sidecar it looks among the services that have the
    called port, does not find this one there, and takes the called port: a cluster that is never pushed, so Envoy answers with 503
    (flag NC, body empty).

    How to see it: `istioctl proxy-config routes <pod> -o json` shows the cluster with the called port.

    How to fix it: set `destination.port.number`.
    """
    for branches in case.caused("vs-port-omitted-other-port"):
        yield omitted(case, "vs-port-omitted-other-port", branches)
    shown(case, VirtualService, Service, ServiceEntry)
