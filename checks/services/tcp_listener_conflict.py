"""tcp-listener-conflict (MESH318)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import sidecar
from checks.case import Case, short
from checks.finding import Finding, HostCue, check
from checks.registry import UNSPECIFIED
from checks.resources import Pod
from checks.routes import upstreams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.istiod import Istiod
    from checks.registry import HostPort, HostService
    from checks.viewpoints import Class


@HostCue
def _opaque(istiod: Istiod) -> Iterable[str]:
    """The host has a port of plain TCP."""
    return [s.hostname for s in istiod.services if any(p.tcp and not p.tls for p in s.ports)]


@check("tcp-listener-conflict", when=_opaque)
def tcp_listener_conflict(case: Case) -> Iterator[Finding]:
    """A TCP port of a host shares its address, most often 0.0.0.0, with the same port of another host, which came first.

    A TCP connection says nothing of the host that is meant, so a proxy tells hosts apart by their addresses. Those without an address of their
    own all listen on 0.0.0.0, and of several on one address the oldest gets every connection of that port: calls to the others reach the
    wrong service.

    How to see it: `istioctl proxy-config listener <pod> --port PORT` leads to the other host's cluster; istiod's metric
    `pilot_conflict_outbound_listener_tcp_over_current_tcp` counts it.

    How to fix it: give each ServiceEntry `addresses` (or let Istio allocate them by DNS proxying), or another port.
    """
    lost: dict[tuple[int, str], list[tuple[Class, HostService, HostPort, HostService, str]]] = {}
    seeing = [(v.callers, v.ups) for v in case.views] + [(c, upstreams(case.mesh, c.proxy)) for c in case.blind]
    for callers, ups in seeing:
        if callers.proxy.kind != "sidecar" or _captures(case, callers):
            continue
        for service, port, winner, address in sidecar.displaced(ups, case.host):
            if not case.asked(port.number):
                continue
            lost.setdefault((port.number, winner.hostname), []).append((callers, service, port, winner, address))
    for (number, _), found in lost.items():
        callers, service, port, winner, address = found[0]
        own = "no address of its own" if address == UNSPECIFIED else f"address {address}"
        index = next((i for i, p in enumerate(service.ports) if p.number == number), 0)
        yield case.finding(
            "tcp-listener-conflict",
            cluster=case.mesh.cluster(callers.proxy.cluster).name,
            resource=service.sources[0][1],
            path="spec.addresses" if not service.kubernetes else f"spec.ports[{index}]",
            message=f"Every connection to port {number} of {short(service.hostname)} goes to {short(winner.hostname)}: both listen on {address}:{number}, and the other one came first.",
            share=1.0,
            viewpoints=tuple(dict.fromkeys(v for c, *_ in found for v in c.viewpoints)),
            evidence=(
                f"{service.sources[0][1]}: port {number} ({port.protocol}), {own}, created {service.created or 'at an unknown time'}",
                f"{winner.sources[0][1]}: port {number}, {own}, created {winner.created or 'at an unknown time'}",
            ),
            fix=f"Give {service.sources[0][1]} and {winner.sources[0][1]} addresses of their own, or different ports.",
            commands=(f"istioctl proxy-config listener <pod> --address {address} --port {number} -o json",),
        )


def _captures(case: Case, callers: Class) -> bool:
    """Whether the callers' proxies answer DNS themselves: istiod then gives them an address for each ServiceEntry without one."""
    pod = case.mesh.cluster(callers.proxy.cluster).get(Pod, callers.proxy.namespace, callers.proxy.pod)
    if pod is None:
        return False
    containers = [*pod.spec.containers, *(pod.spec.init_containers or ())]
    env = [e for c in containers if c.name == "istio-proxy" for e in c.env or ()]
    return any(e.name == "ISTIO_META_DNS_CAPTURE" and e.value.lower() == "true" for e in env)
