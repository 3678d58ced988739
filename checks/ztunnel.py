"""Who calls through ztunnel: the pods of the ambient mesh.

A pod is in it when the CNI plugin has redirected it (annotation), or when labels ask for it and it has no sidecar, which would win.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from checks.answers import Viewpoint
from checks.registry import proxy_kind
from checks.resources import Namespace, Pod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.mesh import Cluster, Mesh

MODE = "istio.io/dataplane-mode"
REDIRECTION = "ambient.istio.io/redirection"


def asked(pod: Pod, namespace: Mapping[str, str]) -> str:
    """What asks for a pod to be in the ambient mesh, for people; empty when nothing does."""
    own = pod.labels.get(MODE)
    if own is not None:
        return f"the pod has label {MODE}=ambient" if own == "ambient" else ""
    return f"namespace {pod.namespace} has label {MODE}=ambient" if namespace.get(MODE) == "ambient" else ""


def enrolled(cluster: Cluster, pod: Pod) -> bool:
    """Whether ztunnel carries what a pod sends and receives."""
    around = cluster.get(Namespace, "", pod.namespace)
    if pod.annotations.get(REDIRECTION) != "enabled" and not asked(pod, around.labels if around is not None else {}):
        return False
    return not pod.spec.host_network and not pod.metadata.deletion_timestamp and proxy_kind(pod) == "none"


def callers(mesh: Mesh) -> list[Viewpoint]:
    """The namespaces with pods in the ambient mesh, of every cluster: what ztunnel does is the same for all pods of one."""
    made_of = tuple(c.objects.get(kind) for c in mesh.clusters for kind in (Pod, Namespace))
    return mesh.once(("ztunnel callers",), made_of, lambda: _callers(mesh))


def _callers(mesh: Mesh) -> list[Viewpoint]:
    found: list[Viewpoint] = []
    for c in mesh.clusters:
        every = mesh.each(("enrolled", c.name), c, (Pod,), (c.objects.get(Namespace),), partial(_any, mesh, c))
        found += [Viewpoint(c.name, "ztunnel", namespace) for namespace, enrolled in every.items() if enrolled]
    return found


def _any(mesh: Mesh, cluster: Cluster, namespace: str) -> bool:
    around = cluster.get(Namespace, "", namespace)
    whole = around is not None and MODE in around.labels
    bare = (same for same in mesh.alike(cluster, namespace) if same.kind == "none")
    some = (same for same in bare if whole or MODE in same.labels or REDIRECTION in same.annotations)
    return any(enrolled(cluster, p) for same in some for p in same.pods)
