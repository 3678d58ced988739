"""se-dns-unresolvable (MESH409)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.finding import Finding, check
from checks.seen import held, share, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.seen import Held


@check("se-dns-unresolvable")
def se_dns_unresolvable(case: Case) -> Iterator[Finding]:
    """DNS gives a caller's Envoy no address for a host whose ServiceEntry has resolution DNS.

    Envoy asks DNS by itself, from its own pod. A name that does not exist, a resolver that is blocked or slow, or a name that only resolves
    inside another network leaves the cluster without a host, and callers get 503 "no healthy upstream" (flag UH). istiod knows nothing of it:
    everything is SYNCED.

    How to see it: `istioctl proxy-config endpoints` prints nothing for the cluster; `update_failure` or `update_empty` of it grows.

    How to fix it: mend the name or the resolver that the pod asks; an egress NetworkPolicy must let port 53 through.
    """
    groups: dict[tuple[str, int], list[Held]] = {}
    for h in held(case):
        u = h.branch.upstream
        named = u.service is not None and u.service.dns and u.endpoints and not any(names.is_ip(e.address) for e in u.endpoints)
        if named and h.cluster is not None and h.cluster.present and not h.cluster.hosts:
            groups.setdefault((u.host, u.port), []).append(h)
    for group in groups.values():
        first = group[0].branch
        service = first.upstream.service
        if service is None:
            continue
        part = share((h.branch, 1.0) for h in group)
        asked = ", ".join(dict.fromkeys(e.address for e in first.upstream.endpoints))
        yield case.finding(
            "se-dns-unresolvable",
            cluster=case.cluster_of(first),
            resource=service.sources[0][1],
            path="spec.resolution",
            message=f"{percent(part)} of the requests of a rule get 503: DNS gives {', '.join(sorted({h.envoy.proxy for h in group}))} no address for {asked}.",
            share=part,
            viewpoints=case.viewpoints(h.branch for h in group),
            evidence=[f"Envoy {h.envoy.proxy} has {h.branch.upstream.name} and no host of it{_counted(h)} ({h.source})" for h in group[:3]],
            fix=f"Mend the name {asked}, or the resolver that the callers of {where(first)} ask.",
            commands=(
                f"istioctl proxy-config endpoints {group[0].envoy.pod} -n {group[0].envoy.namespace} --cluster '{first.upstream.name}'",
                f"kubectl -n {group[0].envoy.namespace} exec {group[0].envoy.pod} -c istio-proxy -- getent hosts {asked.partition(',')[0]}",
            ),
        )


def _counted(h: Held) -> str:
    """What Envoy counted of its questions, where it kept that."""
    stats = h.envoy.stats or {}
    said = {word: stats.get(f"cluster.{h.branch.upstream.name}.update_{word}") for word in ("failure", "empty")}
    words = [f"update_{word} {value:g}" for word, value in said.items() if value]
    return f" ({', '.join(words)})" if words else ""
