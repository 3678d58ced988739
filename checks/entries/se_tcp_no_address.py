"""se-tcp-no-address (MESH414)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import describe, holder
from checks.finding import Finding, check
from checks.registry import UNSPECIFIED
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@check("se-tcp-no-address", when=entered)
def se_tcp_no_address(case: Case) -> Iterator[Finding]:
    """A ServiceEntry has a TCP port and no address.

    TCP carries no host name, so a listener can only go by address. Without one istiod listens on 0.0.0.0: every connection of these callers
    to that port goes to this host, whatever host was meant, unless a more special listener takes it; of two such entries with one port
    the younger gets nothing. Istio's own allocation of addresses (`status.addresses`) or DNS capture with auto-allocation avoids it.

    How to see it: `istioctl proxy-config listeners <pod> --address 0.0.0.0 --port PORT` leads to this host's cluster.

    How to fix it: write `addresses`, or say protocol TLS where the callers send an SNI.
    """
    for istiod in case.mesh.control_planes:
        if istiod.config.allocates_addresses:
            continue
        for entry in case.entries(istiod, case.host):
            if entry.spec.addresses or entry.status.addresses:
                continue
            caught = [p.number for p in entry.spec.ports or () if p.protocol.upper() in {"", "TCP"}]
            branches = [b for b in case.branches if b.view.ups.istiod is istiod and _everything(b, entry.namespace, caught)]
            if branches:
                yield _finding(case, branches, entry.ref)


def _everything(branch: Branch, namespace: str, ports: list[int]) -> bool:
    """Whether a sidecar's connections to a port, of whatever address, come to this service."""
    service = branch.view.ups.scope.services.get(branch.step.host)
    if branch.view.callers.proxy.kind != "sidecar" or branch.step.protocol != "tcp" or service is None or service.kubernetes:
        return False
    return service.namespace == namespace and service.address == UNSPECIFIED and branch.step.port in ports


def _finding(case: Case, branches: list[Branch], ref: str) -> Finding:
    istiod = branches[0].view.ups.istiod
    entry = next(e for e in case.entries(istiod, case.host) if e.ref == ref)
    numbers = sorted({b.step.port for b in branches})
    others = sorted(
        {
            f"{s.sources[0][1]} ({s.hostname})"
            for s in branches[0].view.ups.scope.services.values()
            if s.hostname != case.host and not s.kubernetes and s.address == UNSPECIFIED
            for p in s.ports
            if p.tcp and not p.tls and p.number in numbers
        }
    )
    said = f"port{'s'[: len(numbers) != 1]} {', '.join(map(str, numbers))}"
    return case.finding(
        "se-tcp-no-address",
        cluster=holder(case, istiod).name,
        resource=entry.ref,
        path="spec.addresses",
        message=(
            f"Connections to {said} of any host go to {case.host} from these callers: "
            f"{entry.ref} speaks TCP there and has no address to be told by."
        ),
        share=0.0,
        viewpoints=case.viewpoints(branches),
        evidence=(
            describe(entry),
            "no spec.addresses and no status.addresses",
            *(f"{o} wants the same port without an address" for o in others),
        ),
        fix=f"Write the addresses of {case.host} into {entry.ref}, or let Istio allocate them (DNS capture with auto-allocation).",
        commands=(f"istioctl proxy-config listeners <pod> --address 0.0.0.0 --port {numbers[0]}",),
    )
