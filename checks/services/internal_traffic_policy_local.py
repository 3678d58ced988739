"""internal-traffic-policy-local (MESH313)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.resources import Service
from checks.services import by_service, home, kubernetes
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from checks.registry import HostService, IstioEndpoint


@explains("internal-traffic-policy-local")
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or not service.node_local:
        return False
    healthy = _healthy(case, branch)
    proxy = branch.view.ups.proxy
    return bool(healthy) and not any((e.cluster, e.node) == (proxy.cluster, proxy.node) for e in healthy)


def _healthy(case: Case, branch: Branch) -> list[IstioEndpoint]:
    return [e for e in case.candidates(branch.upstream) if e.health == "healthy"]


@check("internal-traffic-policy-local", when=explained)
def internal_traffic_policy_local(case: Case) -> Iterator[Finding]:
    """A Service with internalTrafficPolicy Local has no endpoint on the caller's node.

    Such a Service is served by the caller's own node alone: istiod gives each proxy only the endpoints that run beside it. Callers on a node
    without one get 503 "no healthy upstream" (flag UH), although other nodes have ready endpoints.

    How to see it: `kubectl get pods -o wide` shows the nodes; `istioctl proxy-config endpoints` differs from caller to caller.

    How to fix it: run the endpoints as a DaemonSet, or set internalTrafficPolicy to Cluster.
    """
    for service, branches in by_service(case, "internal-traffic-policy-local"):
        first = branches[0]
        share = case.share(branches)
        without = list(dict.fromkeys(_place(case, b.view.ups.proxy.cluster, b.view.ups.proxy.node) for b in branches))
        have = sorted({_place(case, e.cluster, e.node) for e in _healthy(case, first)})
        yield case.finding(
            "internal-traffic-policy-local",
            cluster=home(case, service, first),
            resource=service.sources[0][1],
            path="spec.internalTrafficPolicy",
            message=f"{percent(share)} of the requests from {', '.join(without)} fail: {service.sources[0][1]} sends to endpoints of the caller's own node alone, and there is none.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{service.sources[0][1]}: spec.internalTrafficPolicy is Local",
                f"ready endpoints run on {', '.join(have)}",
                *(
                    f"a caller in namespace {b.view.ups.proxy.namespace} runs on {_place(case, b.view.ups.proxy.cluster, b.view.ups.proxy.node)}"
                    for b in _one_each(branches)
                ),
            ),
            fix=f"Run the pods of {short(service.hostname)} on every node that calls it, or set internalTrafficPolicy to Cluster.",
            patch=_patch(case, service),
            commands=(f"kubectl -n {service.namespace} get pods -o wide", endpoints_command(first.upstream)),
        )


def _place(case: Case, cluster: str, node: str) -> str:
    """A node as people say it; with its cluster where there are several."""
    return f"{node or 'an unknown node'} of {cluster}" if len(case.mesh.clusters) > 1 else node or "an unknown node"


def _one_each(branches: Sequence[Branch]) -> list[Branch]:
    """One branch for each namespace and node."""
    return list({(b.view.ups.proxy.namespace, b.view.ups.proxy.node): b for b in branches}.values())


def _patch(case: Case, service: HostService) -> str | None:
    own = [(c.name, s) for c in case.mesh.clusters if (s := c.get(Service, service.namespace, service.name)) is not None]
    local = [(cluster, s) for cluster, s in own if s.spec.internal_traffic_policy == "Local"]
    return case.patch(*local[0], (("spec", "internalTrafficPolicy"), "Cluster")) if len(local) == 1 else None
