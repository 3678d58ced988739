"""xds-nack (MESH903)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import because, proxy_finding, refused, told
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


NAMED = 20
"""Proxies that are looked at: a whole fleet that refuses one resource is one finding."""


@check("xds-nack")
def xds_nack(case: Case) -> Iterator[Finding]:
    """A caller's Envoy refuses what istiod sends it, and keeps its older configuration.

    One resource that Envoy does not accept, from an EnvoyFilter, a bad certificate or an istiod of another version, has it refuse the update:
    what else changed in it may be lost too, for this proxy and for as long as the resource is sent. What it does not know of yet fails with
    503 (flag NC or UH), and what has gone is still called.

    How to see it: `istioctl proxy-status` says ERROR for the proxy; istiod's log says ACK ERROR with Envoy's reason.

    How to fix it: mend what the reason names; `pilot_total_xds_rejects` stops growing once it is gone.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    looked = {e.proxy for e in case.evidence.envoys}
    for view in case.evidence.istiods:
        for sync in sorted((view.proxies or {}).values(), key=lambda s: s.proxy not in looked):
            where = case.mesh.known(sync.cluster or view.cluster)
            if where is not None and len(found) < NAMED and (kinds := refused(sync)):
                pod, _, namespace = sync.proxy.rpartition(".")
                found.setdefault((where.name, namespace, pod), []).append(
                    f"istiod {view.pod}.{view.namespace} says of {sync.proxy}: {', '.join(kinds)} refused: {sync.error or 'no reason given'}"
                )
    for d in because(case, "xds-nack"):
        e = d.held.envoy
        where = case.mesh.known(e.cluster)
        if where is not None and d.held.cluster is not None and d.held.cluster.refused:
            found.setdefault((where.name, e.namespace, e.pod), []).append(
                f"Envoy {e.proxy} keeps {d.held.cluster.name}: {d.held.cluster.refused}"
            )
    group = [t for at, said in found.items() if (t := told(case, "xds-nack", *at, *said)) is not None]
    if group:
        first = max(group, key=lambda t: t.part)
        yield proxy_finding(
            case,
            "xds-nack",
            group,
            "Envoy refuses what istiod sends and keeps its older configuration",
            "Mend what Envoy's reason names: an EnvoyFilter, a certificate, or a proxy of another version than its istiod.",
            ("istioctl proxy-status", f"kubectl -n {first.namespace} logs {first.pod} -c istio-proxy | grep -i rejected"),
        )
