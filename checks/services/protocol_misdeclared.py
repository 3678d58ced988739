"""protocol-misdeclared (MESH317)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.seen import by, called, log_command, lost, says, served, sources, where
from checks.services import home, service_of
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.case import Case
    from checks.evidence import Access
    from checks.seen import Called, Calls, Served


@check("protocol-misdeclared")
def protocol_misdeclared(case: Case) -> Iterator[Finding]:
    """A Service's port says HTTP (or HTTP/2, gRPC), and the app behind it speaks something else.

    Istio takes a port's protocol from its appProtocol or its name. What is called http has to answer HTTP/1.1, what is called http2 or grpc
    HTTP/2 from its first byte: a server that speaks TLS by itself, a database, or HTTP/1.1 under the name grpc answers what no codec
    understands, and every request gets 502 (flag UPE, protocol_error).

    How to see it: every call of the port says UPE in the access log of the caller, or of the server's istio-proxy on `inbound|<port>||`.

    How to fix it: set the port's appProtocol to what the app speaks: tcp, https (for TLS of its own), http, http2 or grpc.
    """
    found: list[Calls] = []
    several: list[Called | Served] = [*called(case), *served(case)]
    for s in several:
        service = s.branch.upstream.service
        port = service.port(s.branch.upstream.port) if service is not None else None
        calls = s.failing(garbled)
        if calls is not None and port is not None and port.http and service is not None and not service.external and always(s, garbled):
            found.append(calls)
    for group in by(found, lambda c: f"{service_of(c.branch)} {c.branch.upstream.port}"):
        first = group[0].branch
        service = first.upstream.service
        port = service.port(first.upstream.port) if service is not None else None
        if service is None or port is None:
            continue
        part = lost(group)
        yield case.finding(
            "protocol-misdeclared",
            cluster=home(case, service, first),
            resource=service_of(first),
            path=f"spec.ports[{[p.number for p in service.ports].index(port.number)}].appProtocol",
            message=(
                f"{percent(part)} of the requests of a rule fail: port {port.number} of {where(first)} says {port.protocol}, "
                f"and what answers there is no {port.protocol}."
            ),
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(*sources(group), f"{service_of(first)}: port {port.number} ({port.name or 'no name'}) is {port.protocol} to Istio"),
            fix=f"Set appProtocol of port {port.number} of {service_of(first)} to what the app speaks: tcp, https (for TLS of its own), http, http2 or grpc.",
            commands=(log_command(group[0]), f"kubectl -n {service.namespace} get service {service.name} -o jsonpath='{{.spec.ports}}'"),
        )


def garbled(access: Access) -> bool:
    """Whether the answer was nothing that the caller's codec understands."""
    return "UPE" in access.flags and says(access, "protocol error")


def always(s: Called | Served, fails: Callable[[Access], bool]) -> bool:
    """Whether every call fails so, of at least two: some of them would be the app's own mistakes (upstream-protocol-UPE)."""
    return all(fails(a) for a in s.accesses) and sum(a.count for a in s.accesses) > 1
