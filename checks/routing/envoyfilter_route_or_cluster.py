"""envoyfilter-route-or-cluster (MESH223)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.control import because, filters, rerouted, withheld
from checks.finding import Finding, check
from checks.seen import share
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.resources import EnvoyFilter


class _Changed(NamedTuple):
    """What an EnvoyFilter made of a destination at one Envoy: the part of it that fails."""

    found: EnvoyFilter
    branch: Branch
    part: float
    said: str


@check("envoyfilter-route-or-cluster")
def envoyfilter_route_or_cluster(case: Case) -> Iterator[Finding]:
    """A caller's Envoy has other clusters or routes for the host than Istio makes, and an EnvoyFilter reaches it.

    An EnvoyFilter edits what istiod generates: it removes or renames a cluster, leads a route elsewhere, or adds one before all others. Istio
    neither checks it nor shows it: a route to a cluster that does not exist answers 503 (flag NC), and a route that is gone 404 (flag NR).

    How to see it: `istioctl proxy-config routes` and `clusters` of the caller beside what the VirtualServices say.

    How to fix it: remove the EnvoyFilter, or correct it for this version of Istio.
    """
    changed = [*_clusters(case), *_routes(case)]
    groups: dict[tuple[str, str], list[_Changed]] = {}
    for c in changed:
        groups.setdefault((case.cluster_of(c.branch), c.found.ref), []).append(c)
    for (cluster, ref), group in groups.items():
        first = group[0]
        part = share((c.branch, c.part) for c in group)
        who: tuple[Viewpoint, ...] = case.viewpoints(c.branch for c in group)
        pods = ", ".join(f"{v.pod}.{v.namespace}" for v in who[:3])
        yield case.finding(
            "envoyfilter-route-or-cluster",
            cluster=cluster,
            resource=ref,
            path="spec.configPatches",
            message=(
                f"{f'{percent(part)} of the requests of a rule fail' if part else 'Requests go elsewhere than the rules say'} at {pods}: the Envoy holds something "
                f"else for {short(case.host)} than Istio makes, and {ref} edits it."
            ),
            share=part,
            viewpoints=who,
            evidence=dict.fromkeys(
                [
                    *(c.said for c in group[:3]),
                    f"{ref} applies to {', '.join(dict.fromkeys(p.apply_to for p in first.found.spec.config_patches or ()))}",
                ]
            ),
            fix=f"Remove {ref}, or correct it for this version of Istio.",
            commands=(
                f"kubectl -n {first.found.namespace} get envoyfilter {first.found.name} -o yaml",
                f"istioctl proxy-config routes {who[0].pod} -n {who[0].namespace} -o json",
                f"istioctl proxy-config cluster {who[0].pod} -n {who[0].namespace} --fqdn {first.branch.upstream.host}",
            ),
        )


def _clusters(case: Case) -> Iterator[_Changed]:
    for d in because(case, "envoyfilter-route-or-cluster"):
        found = [f for f in filters(d.held.branch.view) if any(p.apply_to == "CLUSTER" for p in f.spec.config_patches or ())]
        if found:
            yield _Changed(found[-1], d.held.branch, d.part, d.sentence)


def _routes(case: Case) -> Iterator[_Changed]:
    for r in rerouted(case, "envoyfilter-route-or-cluster"):
        if r.filter is not None and not withheld(r):
            yield _Changed(r.filter, r.held.branch, r.part / r.held.branch.share, r.sentence)
