"""gw-scheme-mismatch (MESH710)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.gateway import merge
from checks.measured import Measure, Sample, finding
from checks.names import matches
from checks.seen import FEW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.evidence import Access
    from checks.gateway import Bound

USUAL = 0.5
"""Strangers knock at every open port without a name: they are told only where they are as many as all calls that had one."""


@check("gw-scheme-mismatch")
def gw_scheme_mismatch(case: Case) -> Iterator[Finding]:
    """Clients call a gateway's TLS port without TLS, or without a name in their TLS greeting: the connection is closed (flag NR).

    A gateway tells the hosts of a TLS port apart by SNI. Plain HTTP has none, nor has a client that calls by address or that an old load balancer
    stands before: no filter chain fits, and the gateway closes the connection without an answer.

    How to see it: the gateway's access log says 0 NR filter_chain_not_found with `-` for the SNI; `curl -v http://…:443` fails, https works.

    How to fix it: call with https and the host's name; behind a load balancer let it pass TLS through, or add a server for plain HTTP.
    """
    for log in case.evidence.logs:
        view = case.as_pod(log.cluster, log.namespace, log.pod)
        branches = [b for b in case.of_view(view) if not case.explained(b)] if view is not None else []
        if view is None or view.ups.proxy.kind != "gateway" or not branches:
            continue
        by_server: dict[int, tuple[Bound, list[Access]]] = {}
        for bound in _named(case, view):
            found = [a for a in log.accesses if _nameless(a) and a.at.rpartition(":")[2] == str(bound.port)]
            if found:
                by_server.setdefault(bound.port, (bound, found))
        for bound, found in by_server.values():
            count = sum(a.count for a in found)
            total = log.read  # of all hosts: whom a nameless one meant, nobody knows
            if count < FEW or count / total < USUAL:
                continue
            own = tuple(branches)
            source = f"{count} connections without a name in the log of {log.proxy} ({log.container}), beside {total - count} other calls: {found[0].line}"
            command = f"kubectl -n {log.namespace} logs {log.pod} -c {log.container}"
            sample = Sample(count, total, own, case.viewpoints(own), source, command, tuple(found), log)
            gateway = bound.gateway.ref
            yield finding(
                case,
                "gw-scheme-mismatch",
                Measure(round(count / total, 6), (sample,)),
                calls=f"the calls at port {bound.server.port.number} of {gateway}, which serves {short(case.host)},",
                what="are closed: the port is TLS, and they come without TLS, or without SNI",
                fix=f"Call port {bound.server.port.number} of {gateway} with https and the host's name, or add a server for plain HTTP.",
                at=(case.cluster_of(branches[0]), gateway, "spec.servers"),
            )


def _nameless(call: Access) -> bool:
    return "NR" in call.flags and call.details == "filter_chain_not_found" and not call.server_name and not call.envoy_cluster


def _named(case: Case, view: View) -> Iterator[Bound]:
    """The servers of a gateway with TLS that are for the host, where every chain of their port is chosen by a name."""
    merged = merge(case.mesh, view.ups)
    every = [b for found in merged.by_route.values() for b in found] + merged.l4
    hosts = {s.host for s in view.steps}
    for bound in every:
        mine = [b for b in every if b.port == bound.port]
        bare = [h.rpartition("/")[2] for h in bound.hosts]
        if all(b.tls and "*" not in {h.rpartition("/")[2] for h in b.hosts} for b in mine) and any(
            matches(n, h) for n in bare for h in hosts
        ):
            yield bound
