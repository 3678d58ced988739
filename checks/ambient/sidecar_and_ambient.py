"""sidecar-and-ambient (MESH930)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from checks import ambient, ztunnel
from checks.case import Case, short
from checks.finding import Finding, MeshCue, check
from checks.registry import proxy_kind
from checks.resources import Namespace, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from checks.mesh import Cluster, Mesh
    from checks.registry import HostService


@MeshCue
def _some(mesh: Mesh) -> bool:
    """Some pod is in both meshes."""
    return any(any(_spaces(mesh, c).values()) for c in mesh.clusters)


@check("sidecar-and-ambient", when=_some)
def sidecar_and_ambient(case: Case) -> Iterator[Finding]:
    """Pods have a sidecar and are asked into the ambient mesh as well.

    Labels of the namespace or the pod ask for both. The CNI plugin leaves a pod with a sidecar alone, so it stays outside of the ambient mesh while
    people believe it inside; a pod that was redirected all the same is captured twice. The next restart may decide differently.

    How to see it: `kubectl get pod -o yaml` has a container istio-proxy, and `kubectl get namespace --show-labels` dataplane-mode=ambient.

    How to fix it: choose one: label the pods or the namespace with istio.io/dataplane-mode=none, or take injection away and restart them.
    """
    done: set[str] = set()
    for service in _services(case):
        groups: dict[tuple[str, str], list[tuple[Cluster, Pod, str]]] = {}
        for cluster, pod in case.pods(service):
            if said := _both(cluster, pod):
                owner = next((w.ref for c, w in case.owners(service) if c is cluster), pod.ref)
                groups.setdefault((cluster.name, owner), []).append((cluster, pod, said))
        for (name, owner), found in groups.items():
            if f"{name} {owner}" in done:
                continue
            done.add(f"{name} {owner}")
            _, pod, said = found[0]
            yield case.finding(
                "sidecar-and-ambient",
                cluster=name,
                resource=owner,
                path="spec.template.metadata.labels" if owner != pod.ref else "metadata.labels",
                message=f"The pods of {owner} behind {short(case.host)} have a sidecar and are asked into the ambient mesh as well: {said}.",
                share=0.0,
                viewpoints=tuple(dict.fromkeys(v for view in case.views for v in view.callers.viewpoints))
                or ambient.calling(case, service),
                evidence=tuple(f"{p.ref} has container istio-proxy; {s}" for _, p, s in found[:5]),
                fix=f"Label the pods of {owner} with {ztunnel.MODE}=none, or take their injection away and restart them.",
                commands=(
                    f"kubectl get namespace {service.namespace} --show-labels",
                    f"kubectl -n {service.namespace} get pod {pod.name} -o yaml",
                ),
            )


def _services(case: Case) -> Iterator[HostService]:
    """The host's Services in namespaces where some pod is asked into both; ztunnel may carry nobody yet."""
    for _, istiod in ambient.planes(case):
        for s in istiod.by_host.get(case.host, ()):
            if s.selector and any(_spaces(case.mesh, c).get(s.namespace) for c in case.mesh.clusters):
                yield s


def _spaces(mesh: Mesh, cluster: Cluster) -> Mapping[str, bool]:
    """Whether some pod of each namespace is in both meshes."""
    return mesh.each(
        ("sidecar and ambient", cluster.name), cluster, (Pod,), (cluster.objects.get(Namespace),), partial(_somebody, mesh, cluster)
    )


def _somebody(mesh: Mesh, cluster: Cluster, namespace: str) -> bool:
    around = cluster.get(Namespace, "", namespace)
    whole = around is not None and ztunnel.MODE in around.labels
    proxied = (a for a in mesh.alike(cluster, namespace) if a.kind == "sidecar")
    asked = (a for a in proxied if whole or ztunnel.MODE in a.labels or ztunnel.REDIRECTION in a.annotations)
    return any(_both(cluster, p) for same in asked for p in same.pods)


def _both(cluster: Cluster, pod: Pod) -> str:
    """What asks for both modes in a pod that has a sidecar, for people; empty when it is clear which one is meant."""
    around = cluster.get(Namespace, "", pod.namespace)
    labels = around.labels if around is not None else {}
    redirected = pod.annotations.get(ztunnel.REDIRECTION) == "enabled"
    if not redirected and not ztunnel.asked(pod, labels):
        return ""
    if proxy_kind(pod) != "sidecar" or pod.metadata.deletion_timestamp:
        return ""
    if redirected:
        return "its traffic is redirected to ztunnel too"
    injected = labels.get("istio-injection") == "enabled" or "istio.io/rev" in labels or pod.labels.get("sidecar.istio.io/inject") == "true"
    # a pod that was injected before its namespace changed only waits for its restart
    return ztunnel.asked(pod, labels) if injected else ""
