"""dup-envoy-clusters-legacy (MESH405)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.evidence import IstiodView

METRIC = "pilot_duplicate_envoy_clusters"


@check("dup-envoy-clusters-legacy")
def dup_envoy_clusters_legacy(case: Case) -> Iterator[Finding]:
    """Istiod made two Envoy clusters of one name for the host, and dropped one of them.

    Until Istio 1.25 two ServiceEntries of one host do it; since then an EnvoyFilter that adds a cluster of that name, or a gateway's SNI clusters. The
    first is kept: what the other would have said (endpoints, ports, TLS) is nowhere, and nothing but a metric tells of it.

    How to see it: `pilot_duplicate_envoy_clusters` of istiod is not 0; `/debug/push_status` names the cluster.

    How to fix it: remove one of the two that define the cluster.
    """
    groups: dict[str, tuple[IstiodView, list[Branch], list[str]]] = {}
    for view in case.evidence.istiods:
        for name, message in (view.status or {}).get(METRIC, {}).items():
            mine = [
                b for b in case.branches if b.upstream.name == name and case.mesh.cluster(b.view.ups.istiod.cluster).name == view.cluster
            ]
            told = any(f.resource.startswith("ServiceEntry ") and f.cause.startswith("se-dup-") for f in case.found)
            if mine and not told:
                groups.setdefault(name, (view, mine, []))[2].append(message)
    for name, (view, branches, messages) in groups.items():
        first = branches[0]
        entries = case.entries(first.view.ups.istiod, first.upstream.host)
        resource = (
            entries[-1].ref if entries else first.upstream.service.sources[0][1] if first.upstream.service is not None else first.resource
        )
        several = " and ".join(e.ref for e in entries)
        yield case.finding(
            "dup-envoy-clusters-legacy",
            cluster=case.cluster_of(first),
            resource=resource,
            path="spec.hosts" if entries else "",
            message=f"istiod made {name} of {short(first.upstream.host)} twice and dropped one{f': {several} define it' if len(entries) > 1 else ''}.",
            share=0.0,
            viewpoints=case.viewpoints(branches),
            evidence=dict.fromkeys(f"{METRIC} of istiod {view.pod}.{view.namespace}: {name}: {message}" for message in messages),
            fix=f"Remove one of {several}."
            if len(entries) > 1
            else "Remove the EnvoyFilter that adds a cluster of this name, or one of the two that define it.",
            commands=("istioctl x internal-debug push_status", f"istioctl proxy-config cluster <pod> --fqdn {first.upstream.host}"),
        )
