"""locality-distribute-drops (MESH804)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import Branch, Case, endpoints_command, said_at, short
from checks.finding import Finding, check, explained, explains
from checks.registry import locality_match
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.resources import LocalityLbSetting


@explains("locality-distribute-drops")
def _explains(_: Case, branch: Branch) -> bool:
    u = branch.upstream
    return u.defined and any(e.health == "healthy" for e in u.elsewhere)


class _Said(NamedTuple):
    """Who distributes, for whom, and to where."""

    cluster: str
    ref: str
    path: str
    from_: str
    to: str


@check("locality-distribute-drops", when=explained)
def locality_distribute_drops(case: Case) -> Iterator[Finding]:
    """localityLbSetting.distribute names only some localities, and every usable endpoint is elsewhere.

    For a caller that a `from` matches, istiod keeps only endpoints whose locality a `to` matches; all others are removed, and so are those that
    have no locality at all. The cluster is empty for callers of this zone, who get 503 "no healthy upstream" (flag UH), and full for callers of
    another.

    How to see it: `istioctl proxy-config endpoints` of a caller in the zone prints nothing, that of a caller elsewhere prints the endpoints.

    How to fix it: name every locality under `to` (`*` for the rest), or bring up endpoints in the named ones.
    """
    groups: dict[_Said, list[Branch]] = {}
    for branches in case.caused("locality-distribute-drops"):
        for b in branches:
            if (said := _said(case, b)) is not None:
                groups.setdefault(said, []).append(b)
    places: dict[tuple[str, str, str], list[Branch]] = {}
    for said, branches in groups.items():
        places.setdefault(said[:3], []).extend(branches)
    for (cluster, ref, path), branches in places.items():
        first = branches[0]
        u = first.upstream
        of = [s for s in groups if s[:3] == (cluster, ref, path)]
        share = case.share(branches)
        there = sorted({e.locality.rstrip("/") or "no locality" for b in branches for e in b.upstream.elsewhere})
        froms = " and ".join(sorted({s.from_ for s in of}))
        tos = ", ".join(sorted({s.to for s in of}))
        yield case.finding(
            "locality-distribute-drops",
            cluster=cluster,
            resource=ref,
            path=path,
            message=(
                f"{percent(share)} of the requests of a rule have nobody to go to for callers in {froms}: distribute sends them to {tos} alone, "
                f"and the endpoints of {short(u.host)} are in {', '.join(there)}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{ref} {path} distributes from {s.from_} to {s.to}" for s in of),
                *sorted(
                    {
                        f"endpoint {e.at} is ready in {e.locality.rstrip('/') or 'no locality'}"
                        for b in branches
                        for e in b.upstream.elsewhere
                    }
                )[:4],
            ),
            fix=f"Name {', '.join(there)} under `to` in {ref}, or bring up endpoints of {short(u.host)} in {tos}.",
            commands=(endpoints_command(u), "kubectl get nodes -L topology.kubernetes.io/region -L topology.kubernetes.io/zone"),
        )


def _said(case: Case, branch: Branch) -> _Said | None:
    u = branch.upstream
    istiod = branch.view.ups.istiod
    cluster = case.mesh.cluster(istiod.cluster)
    policy = u.rule.policy_for(u.port, u.subset) if u.rule else None
    own = policy.load_balancer.locality_lb_setting if policy and policy.load_balancer else None
    if own is not None and (found := said_at(branch, "load_balancer")) is not None:
        return _chosen(cluster.name, found[0].ref, f"{found[1]}.localityLbSetting.distribute", own, branch)
    config = case.mesh.config_map(cluster)
    ref = config.ref if config is not None else f"ConfigMap {istiod.config.root_namespace}/istio"
    return _chosen(cluster.name, ref, "data.mesh", istiod.config.locality_lb_setting, branch)


def _chosen(cluster: str, ref: str, path: str, setting: LocalityLbSetting, branch: Branch) -> _Said | None:
    where = branch.view.callers.proxy.locality
    chosen = next((d for d in setting.distribute or () if locality_match(where, d.from_)), None)
    return _Said(cluster, ref, path, chosen.from_, ", ".join(sorted(chosen.to or {})) or "nowhere") if chosen is not None else None
