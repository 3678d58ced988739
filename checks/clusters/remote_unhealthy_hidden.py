"""remote-unhealthy-hidden (MESH608)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.clusters import callers, lost, share, viewpoints, ways
from checks.finding import Finding, check
from checks.subsets import percent
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.clusters import Way


def _dead(branch: Branch, way: Way) -> tuple[str, str, str] | None:
    """The cluster and service of an endpoint behind a gateway behind which nobody is healthy."""
    u = branch.upstream
    if way.reach != "gateway" or u.service is None or way.endpoint.health == "healthy":
        return None
    beside = [w for w in ways(branch) if w.reach == "gateway" and w.gateways == way.gateways]
    return None if any(w.endpoint.health == "healthy" for w in beside) else (way.endpoint.cluster, u.host, u.service.namespace)


@check("remote-unhealthy-hidden", when=several_clusters)
def remote_unhealthy_hidden(case: Case) -> Iterator[Finding]:
    """Every endpoint of another network is unhealthy, and callers are told of a healthy gateway.

    Endpoints of another network are replaced by its gateway, which is sent as healthy whatever the health of those behind it. Callers go on
    sending their part there, and the gateway answers with 503 (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster NAME` shows the gateway's address as HEALTHY; the pods behind are not ready.

    How to fix it: mend the pods of the other cluster, or scale the workload there to 0 until they are.
    """
    dying = {b.upstream.host for b in case.failing()}
    for key, found in lost(case, _dead).items():
        name, host, namespace = key if isinstance(key, tuple) else ("", "", "")
        if host in dying:
            continue  # nobody serves it anywhere: that has a cause of its own
        cluster = case.mesh.cluster(name)
        service = found[0].branch.upstream.service
        source = next((r for c, r in service.sources if case.mesh.cluster(c) is cluster), service.sources[0][1]) if service else ""
        part = share(case, found)
        sick = list(dict.fromkeys(e for one in found for e in one.endpoints))
        yield case.finding(
            "remote-unhealthy-hidden",
            cluster=cluster.name,
            resource=source,
            path="",
            message=(
                f"{percent(part)} of the requests from {callers(case, found)} to {short(host)} fail in {cluster.name}: "
                f"no endpoint of it there is ready (0 of {len(sick)}), and callers see only the gateway, as healthy."
            ),
            share=part,
            viewpoints=viewpoints(case, found),
            evidence=(
                *dict.fromkeys(f"{e.at} in {cluster.name} ({e.workload}): {e.reason or e.health}" for e in sick),
                *dict.fromkeys(f"callers are told of {g.address}:{g.port}" for one in found for w in ways(one.branch) for g in w.gateways),
            ),
            fix=f"Mend the pods of {short(host)} in {cluster.name}, or scale the workload there to 0 until they are.",
            commands=(
                f"kubectl --context {cluster.name} -n {namespace} get pods",
                f"istioctl proxy-config endpoints <pod> --cluster '{found[0].branch.upstream.name}'",
            ),
        )
