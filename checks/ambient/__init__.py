"""The ambient mesh: what ztunnel and waypoints do with a call (MESH921 to MESH930).

ztunnel knows services and workloads, no rules: it sends to a ready pod that a Service selects in its own cluster, or to the Service's waypoint.
Rules: pilot/pkg/serviceregistry/ambient in istio/istio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ztunnel
from checks.resources import APIGateway, Pod, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.attachment import Attachment
    from checks.case import Case
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService


def planes(case: Case) -> Iterator[tuple[Cluster, Istiod]]:
    """Every control plane of the mesh with its cluster."""
    for c in case.mesh.primaries:
        yield c, case.mesh.istiod(c.name)


def services(case: Case) -> Iterator[tuple[Cluster, Istiod, HostService]]:
    """The host as each control plane's ambient registry has it, if anybody calls through ztunnel: an ExternalName is unknown there."""
    if not ztunnel.callers(case.mesh):
        return
    for c, istiod in planes(case):
        for s in istiod.by_host.get(case.host, ()):
            if s.resolution != "alias":
                yield c, istiod, s


def calling(case: Case, service: HostService, cluster: Cluster | None = None) -> tuple[Viewpoint, ...]:
    """The namespaces that call through ztunnel; one whose pods all are the service's own is not a caller of it."""
    out = []
    for v in ztunnel.callers(case.mesh):
        if cluster is not None and v.cluster != cluster.name:
            continue
        if v.namespace != service.namespace or _others(case, service, v.cluster):
            out.append(v)
    return tuple(out)


def served(case: Case, service: HostService, istiod: Istiod) -> tuple[Viewpoint, ...]:
    """The callers through ztunnel that a control plane configures."""
    return tuple(v for v in calling(case, service) if case.mesh.istiod(v.cluster) is istiod)


def _others(case: Case, service: HostService, cluster: str) -> bool:
    where = case.mesh.cluster(cluster)
    own = {p.name for c, p in case.pods(service) if c is where}
    return any(name not in own and ztunnel.enrolled(where, p) for name, p in where.within(Pod, service.namespace).items())


def backends(case: Case, service: HostService) -> list[tuple[Cluster, Pod]]:
    """The pods of a service that are in the ambient mesh."""
    return [(c, p) for c, p in case.pods(service) if ztunnel.enrolled(c, p)]


def serves(pod: Pod) -> bool:
    """Whether ztunnel would send to a pod (WorkloadStatus in ambient/workloads.go)."""
    return pod.ready and not pod.metadata.deletion_timestamp


def attachment(istiod: Istiod, service: HostService) -> Attachment | None:
    """The waypoint that a service's labels ask for, and what comes of it; None when they ask for none."""
    return istiod.attachments.of.get((service.hostname, service.namespace))


def waypoint_service(cluster: Cluster, waypoint: APIGateway) -> Service | None:
    """The Service behind a waypoint's address."""
    addresses = {a.value for a in waypoint.status.addresses or ()}
    for s in cluster.ordered(Service, waypoint.namespace):
        if addresses & {f"{s.name}.{s.namespace}.svc.cluster.local", s.spec.cluster_ip, *s.spec.cluster_ips}:
            return s
    return None


def explained(case: Case) -> bool:
    """Whether some caller with a proxy fails at the host itself for a cause that has a name: then that is what must be mended."""
    return any(b.upstream.host == case.host and b.upstream.defined and case.why(b) for b in case.failing())
