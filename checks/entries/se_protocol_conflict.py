"""se-protocol-conflict (MESH415)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import Pair, describe, disputed, holder, pairs, ports
from checks.finding import Finding, check
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("se-protocol-conflict", when=entered)
def se_protocol_conflict(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace give the same port of a host different protocols.

    A port has one protocol: istiod keeps the older entry's and builds the listener and the routes for it. Callers who speak the younger
    one's meet the wrong filter chain, and rules of the kind that the younger one needs (http, tls or tcp) never apply.

    How to see it: `kubectl get serviceentries -A` shows the host twice; `istioctl proxy-config listeners <pod> --port PORT` shows one protocol.

    How to fix it: one ServiceEntry for the host, with the protocol that the server speaks.
    """
    for pair in pairs(case, case.host):
        if numbers := [n for n in disputed(pair.kept, pair.other) if case.asked(n)]:
            yield _finding(case, pair, numbers)


def _finding(case: Case, pair: Pair, numbers: list[int]) -> Finding:
    istiod, _, kept, other, _, views = pair
    said = {p.number: p.protocol for p in kept.spec.ports or ()}
    mine = {p.number: p.protocol for p in other.spec.ports or ()}
    what = ", ".join(f"port {n} {said[n]} and {mine[n]}" for n in numbers)
    return case.finding(
        "se-protocol-conflict",
        cluster=holder(case, istiod).name,
        resource=other.ref,
        path="spec.ports",
        message=(
            f"Whoever speaks {', '.join(sorted({mine[n] for n in numbers}))} to {case.host} is not understood: "
            f"{kept.ref} ({pair.why}) and {other.ref} call {what}, and istiod keeps the first one's."
        ),
        share=0.0,
        viewpoints=case.viewpoints(b for b in case.branches if b.view in views),
        evidence=(describe(kept), describe(other)),
        fix=f"Keep one ServiceEntry for {case.host} with the protocol that the server speaks ({kept.ref}: {ports(kept)}).",
        commands=(
            f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",
            f"istioctl proxy-config listeners <pod> --port {numbers[0]}",
        ),
    )
