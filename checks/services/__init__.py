"""Services, their endpoints and workloads (MESH3xx), and what is asked of EndpointSlices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.registry import proxy_kind
from checks.resources import EndpointSlice, Pod, Service
from checks.security import Server
from checks.seen import behind, failed, refused, served

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Branch, Case
    from checks.mesh import Cluster
    from checks.registry import HostService, IstioEndpoint
    from checks.resources import Container, Sidecar, SliceEndpoint
    from checks.seen import Calls

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


def by_service(case: Case, cause: str) -> Iterator[tuple[HostService, list[Branch]]]:
    """Failing destinations that a cause explains, those of one service together."""
    groups: dict[str, tuple[HostService, list[Branch]]] = {}
    for branches in case.caused(cause):
        for b in branches:
            if b.upstream.service is not None:
                groups.setdefault(b.upstream.service.hostname, (b.upstream.service, []))[1].append(b)
    yield from groups.values()


def kubernetes(branch: Branch) -> HostService | None:
    """The Kubernetes Service of a destination that Envoy holds a cluster for."""
    service = branch.upstream.service
    return service if service is not None and branch.upstream.defined and service.kubernetes else None


def known(case: Case, branch: Branch, service: HostService) -> tuple[IstioEndpoint, ...]:
    """Every endpoint that istiod keeps for the Service of a destination, of all ports and subsets, but for those that a ServiceEntry of its host adds."""
    return tuple(e for e in case.endpoints(branch.view.ups.istiod, service) if e.legacy_port is None)


def slices(case: Case, service: HostService) -> Iterator[tuple[Cluster, EndpointSlice]]:
    """The EndpointSlices that carry a Service's name, of every cluster."""
    for c in case.mesh.clusters:
        for s in case.mesh.slices(c, service.namespace, service.name):
            yield c, s


def orphans(case: Case, service: HostService) -> list[tuple[Cluster, EndpointSlice]]:
    """EndpointSlices with endpoints that are meant for a Service by name, owner or pods, and belong to none: without the label, or with the name of no Service in it."""
    selected = {(c.name, p.name) for c, p in case.pods(service)}
    return [
        (c, s)
        for c in case.mesh.clusters
        for s in c.ordered(EndpointSlice, service.namespace)
        if s.endpoints
        and (not s.service or c.get(Service, s.namespace, s.service) is None)
        and (_named(s, service.name) or _aims_at(s.endpoints, c.name, selected))
    ]


def _named(s: EndpointSlice, name: str) -> bool:
    owners = [o.name for o in s.metadata.owner_references if o.kind == "Service"]
    if owners:
        return name in owners
    # a name that the API server made ends in five letters or digits
    return s.name == name or s.name.rpartition("-")[0] == name


def _aims_at(endpoints: Iterable[SliceEndpoint], cluster: str, selected: set[tuple[str, str]]) -> bool:
    aims = {(cluster, e.target_ref.name) for e in endpoints if e.target_ref is not None and e.target_ref.kind == "Pod"}
    return bool(aims) and aims <= selected


def missing_pods(case: Case, service: HostService) -> list[tuple[Cluster, EndpointSlice, str]]:
    """Endpoints of a Service whose targetRef names a pod that is not there: istiod skips them."""
    return [
        (c, s, e.target_ref.name)
        for c, s in slices(case, service)
        for e in s.endpoints or ()
        if s.address_type != "FQDN"
        and e.target_ref is not None
        and e.target_ref.kind == "Pod"
        and c.get(Pod, e.target_ref.namespace or s.namespace, e.target_ref.name) is None
    ]


def port_name(branch: Branch) -> str | None:
    """The name of the Service port that a destination leads to."""
    service = branch.upstream.service
    port = service.port(branch.upstream.port) if service is not None else None
    return port.name if port is not None else None


def home(case: Case, service: HostService, fallback: Branch) -> str:
    """The name of the cluster whose Service is meant: the first that has it with pods or endpoints behind it, else with a workload that wants pods, else at all."""
    having = [c for c in case.mesh.clusters if c.get(Service, service.namespace, service.name) is not None]
    there = {c.name for c, _ in case.pods(service)} | {c.name for c, s in slices(case, service) if s.endpoints}
    wanting = {c.name for c, w in case.owners(service) if w.wanted}
    having.sort(key=lambda c: (c.name not in there, c.name not in wanting))
    return having[0].name if having else case.cluster_of(fallback)


def slices_command(service: HostService) -> str:
    """The kubectl command that shows a Service's EndpointSlices."""
    return f"kubectl -n {service.namespace} get endpointslices -l kubernetes.io/service-name={service.name} -o yaml"


# --- where nobody listens --------------------------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """Calls that a pod's own network refused: nobody listens at the endpoint's port."""

    calls: Calls
    endpoint: IstioEndpoint
    cluster: Cluster
    pod: Pod

    @property
    def declared(self) -> list[int]:
        """The TCP ports that the app's containers say they listen on."""
        return sorted({p.container_port for c in self._app for p in c.ports or () if p.protocol == "TCP" and p.container_port})

    @property
    def probed(self) -> list[int]:
        """The ports at which readiness probes get an answer, since the pod is ready; not those that injection made the agent's."""
        found = [
            c.readiness_probe.http_get.port for c in self._app if c.readiness_probe is not None and c.readiness_probe.http_get is not None
        ]
        numbers = [self.pod.declared.get(p, 0) if isinstance(p, str) else p for p in found]
        return sorted({p for p in numbers if p and p != AGENT})

    @property
    def expected(self) -> bool | None:
        """Whether the app is said to listen at the port that was tried; None where nothing says."""
        known = self.declared or self.probed
        return self.endpoint.port in known if known else None

    @property
    def _app(self) -> list[Container]:
        return [c for c in self.pod.spec.containers if c.name != "istio-proxy"]


AGENT = 15020
"""Where pilot-agent answers probes in the app's stead (pilot/cmd/pilot-agent/status)."""


def refusals(case: Case) -> list[Refusal]:
    """Calls that were refused at a ready pod's port: as its own proxy tells, or as callers do where it has none.

    A sidecar takes every connection and opens the app's itself, so that its caller only ever sees that it answered 503.
    """

    def find() -> list[Refusal]:
        out: list[Refusal] = []
        for calls in failed(case, refused):
            found = [(e, c, p) for e, c, p in behind(case, calls) if proxy_kind(p) in {"none", "sidecar"} and not Server(e, c, p).meshed]
            out += [Refusal(calls, *of) for of in found]
        for s in served(case):
            calls_ = s.failing(refused)
            cluster = case.mesh.cluster(s.endpoint.cluster)
            pod = cluster.get(Pod, s.log.namespace, s.log.pod)
            if calls_ is not None and pod is not None and ingress(case, cluster, pod, s.endpoint.port) is None:
                out.append(Refusal(calls_, s.endpoint, cluster, pod))
        return out

    return case.once("refusals", find)


def ingress(case: Case, cluster: Cluster, pod: Pod, port: int) -> tuple[Sidecar, int] | None:
    """The Sidecar that says where a pod's own proxy takes the calls of a port to, and which of its listeners does; None where it is the port itself."""
    proxy = case.mesh.proxy(cluster, pod, proxy_kind(pod))
    found = case.mesh.istiod(cluster.name, proxy.revision).sidecar(proxy)
    for i, listener in enumerate((found.spec.ingress if found is not None else None) or ()):
        to = listener.default_endpoint.rpartition(":")[2]
        if found is not None and listener.port.number == port and to and to != str(port):
            return found, i
    return None


def service_of(branch: Branch) -> str:
    """The Service (or ServiceEntry) of a destination."""
    service = branch.upstream.service
    return service.sources[0][1] if service is not None else branch.resource
