"""cluster-local (MESH609)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command, short
from checks.entries import together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.visibility import mesh_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.registry import IstioEndpoint


def _kept(branch: Branch) -> list[IstioEndpoint]:
    """Healthy endpoints of other clusters that this caller may not have."""
    return [e for e, r in branch.view.ups.reach(branch.upstream) if r == "cluster-local" and e.health == "healthy"]


@explains("cluster-local")
def _explains(_: Case, branch: Branch) -> bool:
    return branch.upstream.defined and bool(_kept(branch))


@check("cluster-local", when=explained)
def cluster_local(case: Case) -> Iterator[Finding]:
    """A host is cluster-local, and the caller's own cluster has no endpoint of it.

    `serviceSettings` with `clusterLocal: true` in the mesh's configuration, and by default everything in kube-system, keeps callers to the
    endpoints of their own cluster. Where there is none: 503 "no healthy upstream" (flag UH), although another cluster serves the host.

    How to see it: `kubectl -n istio-system get configmap istio -o yaml` says clusterLocal; `istioctl proxy-config endpoints` prints no line.

    How to fix it: deploy the workload in the caller's cluster, or take the host out of clusterLocal.
    """
    for branches in together(case, "cluster-local"):
        first = branches[0]
        host, share, found = first.upstream.host, case.share(branches), _kept(first)
        istiod = first.view.ups.istiod
        cluster, ref = mesh_config(case, istiod)
        lines = [h for s in istiod.config.service_settings if s.settings.cluster_local for h in s.hosts]
        calling = " and ".join(dict.fromkeys(v.cluster for v in case.viewpoints(branches)))
        yield case.finding(
            "cluster-local",
            cluster=cluster.name,
            resource=ref,
            path="data.mesh serviceSettings",
            message=(
                f"{percent(share)} of the requests from {calling} to {short(host)} have nobody to go to: the host is cluster-local, "
                f"and its endpoints are in {' and '.join(dict.fromkeys(e.cluster for e in found))}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{ref} says clusterLocal for {', '.join(lines)}" if lines else "hosts of kube-system are cluster-local by default",
                *(f"{e.at} ({e.workload}) is healthy in {e.cluster}" for e in found[:5]),
            ),
            fix=f"Deploy {short(host)} in {calling}, or take it out of clusterLocal.",
            commands=(f"kubectl -n {istiod.config.root_namespace} get configmap istio -o yaml", endpoints_command(first.upstream)),
        )
