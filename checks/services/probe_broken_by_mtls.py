"""probe-broken-by-mtls (MESH304)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.registry import proxy_kind
from checks.resources import Container, PeerAuthentication, Pod
from checks.security import peer
from checks.services import by_service, home, kubernetes
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService

REWRITE = "sidecar.istio.io/rewriteAppHTTPProbers"
_REWRITTEN = "/app-health/"


@explains("probe-broken-by-mtls", before=("pods-all-notready", "subset-all-notready", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or any(e.health == "healthy" for e in case.candidates(branch.upstream)):
        return False
    istiod = branch.view.ups.istiod
    if case.mesh.unread(case.mesh.cluster(istiod.cluster), PeerAuthentication):
        return False
    pods = case.unready(service, branch.upstream if branch.upstream.subset else None)
    return bool(pods) and all(_broken(case, istiod, p) is not None for _, p in pods)


def _broken(case: Case, istiod: Istiod, pod: Pod) -> tuple[Container, PeerAuthentication] | None:
    """The container whose own HTTP readiness probe meets STRICT mTLS in a pod that is not ready, and the policy."""
    if proxy_kind(pod) != "sidecar":
        return None
    waiting = {
        s.name for s in pod.status.container_statuses or () if s.ready or s.state.waiting is not None or s.state.terminated is not None
    }
    for c in pod.spec.containers:
        get = c.readiness_probe.http_get if c.readiness_probe is not None else None
        if get is None or c.name in waiting or c.name == "istio-proxy" or get.path.startswith(_REWRITTEN):
            continue
        port = get.port if isinstance(get.port, int) else pod.declared.get(get.port, 0)
        mode = peer(case.mesh, istiod, pod.namespace, pod.labels, port)
        if mode.mode == "STRICT" and mode.policy is not None:
            return c, mode.policy
    return None


def _all(case: Case, service: HostService, branch: Branch) -> list[tuple[Cluster, Pod, Container, PeerAuthentication]]:
    found = []
    for cluster, pod in case.unready(service, branch.upstream if branch.upstream.subset else None):
        broken = _broken(case, branch.view.ups.istiod, pod)
        if broken is not None:
            found.append((cluster, pod, *broken))
    return found


@check("probe-broken-by-mtls", when=explained)
def probe_broken_by_mtls(case: Case) -> Iterator[Finding]:
    """Pods are never ready, since the kubelet's HTTP probe meets a sidecar that wants mTLS.

    The kubelet has no certificate of the mesh. The injector therefore rewrites HTTP probes to the sidecar's agent (path /app-health/...), which asks the
    app from inside. Where that is switched off (annotation `sidecar.istio.io/rewriteAppHTTPProbers: "false"`), under STRICT mTLS
    the sidecar resets the probe, the pod stays unready, and callers get 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl describe pod` says "Readiness probe failed ... connection reset by peer"; the pod's probe has no path /app-health/.

    How to fix it: leave the rewriting on, or make the probe's port PERMISSIVE.
    """
    for service, branches in by_service(case, "probe-broken-by-mtls"):
        first = branches[0]
        found = _all(case, service, first)
        cluster, pod, container, policy = found[0]
        get = container.readiness_probe.http_get if container.readiness_probe is not None else None
        owners = case.owners(service, first.upstream if first.upstream.subset else None)
        share = case.share(branches)
        said = f"annotation {REWRITE}: {pod.annotations[REWRITE]}" if REWRITE in pod.annotations else "its HTTP probe was not rewritten"
        yield case.finding(
            "probe-broken-by-mtls",
            cluster=cluster.name if owners else home(case, service, first),
            resource=owners[0][1].ref if owners else pod.ref,
            path="spec.template.metadata.annotations" if owners else "metadata.annotations",
            message=f"{percent(share)} of the requests fail: no pod of {short(service.hostname)} becomes ready, since STRICT mTLS refuses the kubelet's plain HTTP probe.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{policy.ref} makes mTLS STRICT",
                f"{pod.ref}: {said}; container {container.name} is probed at {get.path if get else ''} on port {get.port if get else ''}",
                f"{len(found)} pod{'s'[: len(found) != 1]} not ready in the same way",
                *case.slices_evidence(service),
            ),
            fix=f'Take annotation {REWRITE}: "false" off the pods of {short(service.hostname)}, so that the injector rewrites their probes.',
            commands=(
                f"kubectl -n {pod.namespace} describe pod {pod.name}",
                f"istioctl experimental describe pod {pod.name}.{pod.namespace}",
                endpoints_command(first.upstream),
            ),
        )
