"""The kinds that meshwhy reads, as frozen structs of just the fields that a rule of Istio uses.

`parse` is the only way in. Unknown fields are ignored. An object with a wrong type becomes a `Malformed` and never stops the rest.
A field that Kubernetes leaves out has the default that the API server, or istiod, gives it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class _Object(Struct, frozen=True, gc=False, rename="camel"):
    """What every struct below shares: frozen, camelCase on the wire, unknown fields ignored."""


Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What Kubernetes takes for an integer: a larger number is none to it."""


class OwnerReference(_Object, frozen=True):
    """Who made this object: a Pod's ReplicaSet, a ReplicaSet's Deployment."""

    kind: str = ""
    name: str = ""
    controller: bool | None = None


class Written(_Object, frozen=True):
    """One entry of managedFields: which program wrote, how (Apply or Update), when (RFC 3339 text), and through which subresource."""

    manager: str = ""
    operation: str = ""
    time: str = ""
    subresource: str = ""


class Metadata(_Object, frozen=True):
    """The part of ObjectMeta that rules use. `creation_timestamp` is RFC 3339 text in UTC, which sorts as time does.

    No rule reads `generation` and `managed_fields`; of these `share` keeps the newest write that was not one of a status alone.
    """

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    generation: Int = 0
    managed_fields: tuple[Written, ...] = ()

    @property
    def ruling(self) -> Metadata:
        """This without what no rule reads: who wrote it, and how often."""
        return msgspec.structs.replace(self, resource_version="", generation=0, managed_fields=())


class Controlled(Metadata, frozen=True):
    """Metadata of what controllers alone write, many objects of it: who did is never decoded."""

    generation: Int = field(default=0, name="(never read: generation)")
    managed_fields: tuple[Written, ...] = field(default=(), name="(never read: managedFields)")


class Resource(_Object, frozen=True, kw_only=True):
    """An object of the API: its metadata, and the kind's own fields in subclasses."""

    metadata: Metadata = Metadata()

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace, empty for a kind without namespaces."""
        return self.metadata.namespace

    @property
    def labels(self) -> Mapping[str, str]:
        """metadata.labels, never None."""
        return self.metadata.labels or _EMPTY

    @property
    def annotations(self) -> Mapping[str, str]:
        """metadata.annotations, never None."""
        return self.metadata.annotations or _EMPTY

    @property
    def created(self) -> str:
        """metadata.creationTimestamp as sortable text, empty when unknown."""
        return self.metadata.creation_timestamp or ""

    @property
    def order(self) -> tuple[str, str, str]:
        """Istiod's order of configs: creation, name, namespace (sortConfigByCreationTime in pilot/pkg/model/config.go)."""
        meta = self.metadata
        return meta.creation_timestamp or "", meta.name, meta.namespace

    @property
    def ref(self) -> str:
        """As a person writes it: `VirtualService shop/cart`, `Node node-a`."""
        kind, meta = KIND_OF[type(self)].kind, self.metadata
        return f"{kind} {meta.namespace}/{meta.name}" if meta.namespace else f"{kind} {meta.name}"


_EMPTY: Mapping[str, str] = {}


# --- core, discovery, apps -------------------------------------------------------------------------------------------------


class Namespace(Resource, frozen=True):
    """v1 Namespace: its labels decide injection, network, ambient and discovery."""


class _NodeAddress(_Object, frozen=True):
    type: str = ""
    address: str = ""


class _NodeStatus(_Object, frozen=True):
    addresses: tuple[_NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()


class Condition(_Object, frozen=True):
    """One condition of a status: `Ready`, `Available`, `Accepted`."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Node(Resource, frozen=True):
    """v1 Node: region and zone of what runs on it, and its address outside of the cluster."""

    metadata: Controlled = Controlled()
    status: _NodeStatus = _NodeStatus()


class ServicePort(_Object, frozen=True):
    """One port of a Service; an unnamed port has the empty name."""

    port: Int
    name: str = ""
    protocol: str = "TCP"
    target_port: Int | str | None = None
    app_protocol: str | None = None
    node_port: Int = 0


class _ServiceSpec(_Object, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = field(default=(), name="externalIPs")
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    publish_not_ready_addresses: bool = False
    traffic_distribution: str | None = None
    session_affinity: str | None = None


class _Ingress(_Object, frozen=True):
    ip: str = ""
    hostname: str = ""


class _LoadBalancer(_Object, frozen=True):
    ingress: tuple[_Ingress, ...] = ()


class _ServiceStatus(_Object, frozen=True):
    load_balancer: _LoadBalancer = _LoadBalancer()


class Service(Resource, frozen=True):
    """v1 Service."""

    spec: _ServiceSpec = _ServiceSpec()
    status: _ServiceStatus = _ServiceStatus()


class EndpointConditions(_Object, frozen=True):
    """ready, serving, terminating; None is what a hand-made slice leaves out (semantics.md 3.7)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(_Object, frozen=True):
    """What an endpoint points at, usually a Pod."""

    kind: str = ""
    name: str = ""
    namespace: str = ""


class SliceEndpoint(_Object, frozen=True):
    """One endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] | None = None
    conditions: EndpointConditions = EndpointConditions()
    node_name: str | None = None
    zone: str | None = None
    hostname: str | None = None
    target_ref: ObjectReference | None = None


class SlicePort(_Object, frozen=True):
    """One port of an EndpointSlice: the target port under the Service port's name."""

    name: str | None = None
    port: Int | None = None
    protocol: str | None = None


MADE_OF = "meshwhy.io/within"
"""The label of EndpointSlices that no cluster showed: they are made of Endpoints, as Kubernetes makes them."""


class EndpointSlice(Resource, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Controlled = Controlled()
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None

    @property
    def service(self) -> str:
        """The Service that this slice belongs to, by its label."""
        return self.labels.get("kubernetes.io/service-name", "")

    @property
    def ref(self) -> str:
        """As a person finds it: one that was made of Endpoints is looked for as these."""
        return f"Endpoints {self.namespace}/{self.service}" if self.within else super().ref

    @property
    def within(self) -> str:
        """Where it stands in the Endpoints that it was made of (`subsets[0].`); empty for a slice that was read."""
        return self.labels.get(MADE_OF, "")


class ContainerPort(_Object, frozen=True):
    """One declared port of a container."""

    container_port: Int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: Int = 0


class EnvVar(_Object, frozen=True):
    """One literal environment variable; valueFrom is not read."""

    name: str = ""
    value: str = ""


class HTTPGet(_Object, frozen=True):
    """What an HTTP probe asks for."""

    path: str = ""
    port: Int | str = 0


class Probe(_Object, frozen=True):
    """A container's probe: what it asks for over HTTP, else only that there is one."""

    http_get: HTTPGet | None = None


class Container(_Object, frozen=True, cache_hash=True):
    """One container: image, ports, environment."""

    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] | None = None
    env: tuple[EnvVar, ...] | None = None
    args: tuple[str, ...] | None = None
    restart_policy: str | None = None
    readiness_probe: Probe | None = None


class PodSpec(_Object, frozen=True):
    """What a Pod, or a workload's template, says about its containers."""

    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None


class _Waiting(_Object, frozen=True):
    reason: str = ""
    message: str = ""


class _Running(_Object, frozen=True):
    started_at: str = ""


class _Terminated(_Object, frozen=True):
    reason: str = ""
    message: str = ""
    finished_at: str = ""


class _ContainerState(_Object, frozen=True):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None


class ContainerStatus(_Object, frozen=True):
    """Whether a container is ready, since when it runs and, if not, why it waits or when it ended (RFC 3339)."""

    name: str = ""
    ready: bool = False
    state: _ContainerState = _ContainerState()


class _PodIP(_Object, frozen=True):
    ip: str = ""


class _PodStatus(_Object, frozen=True):
    phase: str = ""
    reason: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[_PodIP, ...] | None = field(default=None, name="podIPs")
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class Pod(Resource, frozen=True):
    """v1 Pod."""

    metadata: Controlled = Controlled()
    spec: PodSpec = PodSpec()
    status: _PodStatus = _PodStatus()

    @property
    def ready(self) -> bool:
        """Whether condition Ready is True; of a pod written by hand, which has no conditions at all, whether nothing speaks against it."""
        status = self.status
        if status.conditions is None:  # a kubelet writes them before a pod runs
            return status.phase in {"", "Running"} and all(c.ready for c in status.container_statuses or ())
        return any(c.type == "Ready" and c.status == "True" for c in status.conditions)

    @property
    def ended(self) -> bool:
        """Whether its containers have ended for good, as a Job's do and those of an evicted pod: it is behind no Service (k8s.io/endpointslice util ShouldPodBeInEndpoints)."""
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def addresses(self) -> tuple[str, ...]:
        """status.podIPs, else status.podIP; none before it has one."""
        return tuple(p.ip for p in self.status.pod_ips or () if p.ip) or tuple(filter(None, [self.status.pod_ip]))

    @property
    def declared(self) -> dict[str, int]:
        """The named TCP ports of its containers, with those of init containers that keep running; of one name the first (kube/controller/pod.go getPortMap)."""
        running = [*self.spec.containers, *(c for c in self.spec.init_containers or () if c.restart_policy == "Always")]
        found: dict[str, int] = {}
        for p in (p for c in running for p in c.ports or () if p.name and p.protocol in {"", "TCP"}):
            found.setdefault(p.name, p.container_port)
        return found


class LabelSelector(_Object, frozen=True):
    """metav1.LabelSelector, both forms."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[LabelExpression, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` satisfy every requirement; an empty selector matches everything."""
        return all(labels.get(k) == v for k, v in (self.match_labels or _EMPTY).items()) and all(
            e.matches(labels) for e in self.match_expressions or ()
        )


class LabelExpression(_Object, frozen=True):
    """One requirement of a LabelSelector."""

    key: str = ""
    operator: str = "In"
    values: tuple[str, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` satisfy this requirement."""
        values = self.values or ()
        match self.operator:
            case "In":
                return labels.get(self.key) in values
            case "NotIn":
                return labels.get(self.key) not in values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


class _NetworkPolicySpec(_Object, frozen=True):
    pod_selector: LabelSelector = LabelSelector()
    policy_types: tuple[str, ...] | None = None


class NetworkPolicy(Resource, frozen=True):
    """networking.k8s.io NetworkPolicy: whom it guards, and in which direction; not whom it lets through."""

    spec: _NetworkPolicySpec = _NetworkPolicySpec()


class PodTemplate(_Object, frozen=True):
    """The template of a workload: its labels and its containers."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()


class _WorkloadSpec(_Object, frozen=True):
    replicas: Int | None = None
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    workload_ref: ObjectReference | None = None


class _WorkloadStatus(_Object, frozen=True):
    replicas: Int = 0
    ready_replicas: Int = 0
    available_replicas: Int = 0
    updated_replicas: Int = 0
    desired_number_scheduled: Int = 0
    number_ready: Int = 0
    conditions: tuple[Condition, ...] | None = None


class Workload(Resource, frozen=True):
    """What owns pods: the shape that Deployment, StatefulSet and DaemonSet share: how many pods it asks for (`wanted`), how many are `ready`."""

    spec: _WorkloadSpec = _WorkloadSpec()
    status: _WorkloadStatus = _WorkloadStatus()

    @property
    def wanted(self) -> int:
        """spec.replicas (1 when it is left out)."""
        return 1 if self.spec.replicas is None else self.spec.replicas

    @property
    def ready(self) -> int:
        """status.readyReplicas."""
        return self.status.ready_replicas

    def of(self, template: PodTemplate) -> Workload:
        """The same with another template."""
        return replace(self, spec=replace(self.spec, template=template))


class Deployment(Workload, frozen=True):
    """apps/v1 Deployment."""


class StatefulSet(Workload, frozen=True):
    """apps/v1 StatefulSet."""


class DaemonSet(Workload, frozen=True):
    """apps/v1 DaemonSet: it wants one pod on each node that it is scheduled to."""

    @property
    def wanted(self) -> int:
        """status.desiredNumberScheduled."""
        return self.status.desired_number_scheduled

    @property
    def ready(self) -> int:
        """status.numberReady."""
        return self.status.number_ready


class Rollout(Workload, frozen=True):
    """argoproj.io Rollout, which keeps ReplicaSets as a Deployment does.

    One that borrows a Deployment's template (`spec.workloadRef`) is read with the labels that its selector asks for, where it has one: its pods
    have them. The mesh knows the Deployment, and all of its template.
    """

    def __post_init__(self) -> None:
        """Write the selector's labels into a template that is elsewhere."""
        wanted = self.spec.selector.match_labels
        if self.spec.workload_ref is not None and wanted and not self.spec.template.metadata.labels:
            template = PodTemplate(metadata=Metadata(labels=wanted), spec=self.spec.template.spec)
            force_setattr(self, "spec", replace(self.spec, template=template))


class ReplicaSet(Resource, frozen=True):
    """apps/v1 ReplicaSet, metadata only: it leads from a Pod to its Deployment, of which it is a revision."""

    metadata: Controlled = Controlled()

    @property
    def revision(self) -> int:
        """Which revision of its Deployment it is; 0 when it does not say (k8s.io/kubectl pkg/util/deployment RevisionAnnotation)."""
        said = self.annotations.get("deployment.kubernetes.io/revision", "")
        return int(said) if said.isdecimal() else 0


AUTHORITY_KEYS = ("cacert", "ca.crt")
"""Where istiod looks for a certificate authority in a ConfigMap (pilot/pkg/credentials/kube/secrets.go ExtractRoot)."""


class ConfigMap(Resource, frozen=True):
    """v1 ConfigMap: only istiod's own (`istio`, `istio-<revision>`) are read, for MeshConfig and meshNetworks.

    From files also those that a BackendTLSPolicy names, of which nothing is kept but which of AUTHORITY_KEYS they have.
    """

    data: dict[str, str] | None = None


# --- networking.istio.io ---------------------------------------------------------------------------------------------------


class PortSelector(_Object, frozen=True):
    """destination.port: only a number is allowed."""

    number: Int = 0


class RouteDestination(_Object, frozen=True):
    """networking.istio.io Destination: host, subset, port as written."""

    host: str = ""
    subset: str = ""
    port: PortSelector | None = None


class WeightedDestination(_Object, frozen=True):
    """One entry of route[]: a destination with its weight."""

    destination: RouteDestination = RouteDestination()
    weight: Int = 0


class StringMatch(_Object, frozen=True):
    """exact, prefix or regex; all None means that the field only has to be present."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None

    @property
    def text(self) -> str:
        """As the answer shows it: `= /a`, `/a*`, `~ /a.*`."""
        if self.exact is not None:
            return f"= {self.exact}"
        if self.prefix is not None:
            return f"{self.prefix}*"
        return f"~ {self.regex}" if self.regex is not None else "present"


class HTTPMatch(_Object, frozen=True):
    """HTTPMatchRequest."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] | None = None
    without_headers: dict[str, StringMatch] | None = None
    query_params: dict[str, StringMatch] | None = None
    port: Int = 0
    source_labels: dict[str, str] | None = None
    source_namespace: str = ""
    gateways: tuple[str, ...] | None = None
    ignore_uri_case: bool = False


class Redirect(_Object, frozen=True):
    """HTTPRedirect."""

    uri: str = ""
    authority: str = ""
    redirect_code: Int = 0


class DirectResponse(_Object, frozen=True):
    """HTTPDirectResponse: an answer that the proxy gives itself."""

    status: Int = 0


class Delegate(_Object, frozen=True):
    """The VirtualService that a root hands its paths to."""

    name: str = ""
    namespace: str = ""


class Percent(_Object, frozen=True):
    """networking.istio.io Percent, 0 to 100."""

    value: float = 0.0


class Abort(_Object, frozen=True):
    """fault.abort; without a percentage Envoy aborts nothing (route.go TranslateFault leaves it out)."""

    http_status: Int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None
    percentage: Percent | None = None


class Delay(_Object, frozen=True):
    """fault.delay; `percent` is the older form, which counts where no percentage is given (route.go TranslateFault)."""

    fixed_delay: str = ""
    percentage: Percent | None = None
    percent: Int = 0


class Fault(_Object, frozen=True):
    """HTTPFaultInjection: what makes a call fail, and what makes it wait."""

    abort: Abort | None = None
    delay: Delay | None = None


class Rewrite(_Object, frozen=True):
    """HTTPRewrite."""

    uri: str = ""
    authority: str = ""


class HeaderOperations(_Object, frozen=True):
    """What a rule sets on a request's headers."""

    set_: dict[str, str] | None = field(default=None, name="set")


class Headers(_Object, frozen=True):
    """headers of a rule: only those of the request are read."""

    request: HeaderOperations | None = None


class HTTPRoute(_Object, frozen=True):
    """One entry of a VirtualService's http[]."""

    name: str = ""
    match: tuple[HTTPMatch, ...] | None = None
    route: tuple[WeightedDestination, ...] | None = None
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: Rewrite | None = None
    headers: Headers | None = None
    timeout: str | None = None
    fault: Fault | None = None
    mirror: RouteDestination | None = None
    mirrors: tuple[WeightedDestination, ...] | None = None


class L4Match(_Object, frozen=True):
    """L4MatchAttributes and, with sniHosts, TLSMatchAttributes."""

    sni_hosts: tuple[str, ...] | None = None
    destination_subnets: tuple[str, ...] | None = None
    port: Int = 0
    source_labels: dict[str, str] | None = None
    source_namespace: str = ""
    gateways: tuple[str, ...] | None = None


class L4Route(_Object, frozen=True):
    """One entry of tcp[] or tls[]."""

    match: tuple[L4Match, ...] | None = None
    route: tuple[WeightedDestination, ...] | None = None


class _VirtualServiceSpec(_Object, frozen=True):
    hosts: tuple[str, ...] | None = None
    gateways: tuple[str, ...] | None = None
    http: tuple[HTTPRoute, ...] | None = None
    tls: tuple[L4Route, ...] | None = None
    tcp: tuple[L4Route, ...] | None = None
    export_to: tuple[str, ...] | None = None


class VirtualService(Resource, frozen=True):
    """networking.istio.io VirtualService."""

    spec: _VirtualServiceSpec = _VirtualServiceSpec()


class LocalityDistribute(_Object, frozen=True):
    """localityLbSetting.distribute[]: from one locality, shares to others."""

    from_: str = field(default="", name="from")
    to: dict[str, Int] | None = None


class LocalityFailover(_Object, frozen=True):
    """localityLbSetting.failover[]."""

    from_: str = field(default="", name="from")
    to: str = ""


class LocalityLbSetting(_Object, frozen=True):
    """LocalityLoadBalancerSetting; `enabled` unset means the mesh's default."""

    enabled: bool | None = None
    distribute: tuple[LocalityDistribute, ...] | None = None
    failover: tuple[LocalityFailover, ...] | None = None
    failover_priority: tuple[str, ...] | None = None


class ZoneAwareLbSetting(_Object, frozen=True):
    """ZoneAwareLoadBalancerSetting: that it is there puts localityLbSetting out of force."""


class LoadBalancer(_Object, frozen=True):
    """LoadBalancerSettings."""

    simple: str | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None


class OutlierDetection(_Object, frozen=True):
    """OutlierDetection: what may eject, and minHealthPercent, which switches `send unhealthy` off."""

    consecutive_5xx_errors: Int | None = field(default=None, name="consecutive5xxErrors")
    consecutive_gateway_errors: Int | None = None
    base_ejection_time: str | None = None
    max_ejection_percent: Int | None = None
    min_health_percent: Int | None = None


class ClientTLS(_Object, frozen=True):
    """ClientTLSSettings: how the caller speaks TLS."""

    mode: str = "DISABLE"
    credential_name: str = ""
    ca_certificates: str = ""
    client_certificate: str = ""
    sni: str = ""
    subject_alt_names: tuple[str, ...] | None = None
    insecure_skip_verify: bool | None = None


class ConnectionPoolTCP(_Object, frozen=True):
    """connectionPool.tcp."""

    max_connections: Int | None = None
    connect_timeout: str | None = None


class ConnectionPoolHTTP(_Object, frozen=True):
    """connectionPool.http."""

    http1_max_pending_requests: Int | None = None
    http2_max_requests: Int | None = None
    max_retries: Int | None = None


class ConnectionPool(_Object, frozen=True):
    """ConnectionPoolSettings: only the limits that can refuse a request."""

    tcp: ConnectionPoolTCP | None = None
    http: ConnectionPoolHTTP | None = None


class PortTrafficPolicy(_Object, frozen=True):
    """trafficPolicy.portLevelSettings[]."""

    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None
    connection_pool: ConnectionPool | None = None


class TrafficPolicy(_Object, frozen=True):
    """TrafficPolicy of a rule or a subset."""

    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLS | None = None
    connection_pool: ConnectionPool | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] | None = None


class Subset(_Object, frozen=True):
    """One named subset: labels that an endpoint must carry."""

    name: str = ""
    labels: dict[str, str] | None = None
    traffic_policy: TrafficPolicy | None = None


class WorkloadSelector(_Object, frozen=True):
    """Istio's selectors: `labels` (Sidecar, ServiceEntry) or `matchLabels` (DestinationRule, security)."""

    labels: dict[str, str] | None = None
    match_labels: dict[str, str] | None = None

    @property
    def wanted(self) -> Mapping[str, str]:
        """The labels, whichever way they are written."""
        return self.labels or self.match_labels or _EMPTY

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` carry every wanted label."""
        return all(labels.get(k) == v for k, v in self.wanted.items())


class DestinationRuleSpec(_Object, frozen=True):
    """spec of a DestinationRule."""

    host: str = ""
    subsets: tuple[Subset, ...] | None = None
    traffic_policy: TrafficPolicy | None = None
    export_to: tuple[str, ...] | None = None
    workload_selector: WorkloadSelector | None = None


class DestinationRule(Resource, frozen=True):
    """networking.istio.io DestinationRule."""

    spec: DestinationRuleSpec = DestinationRuleSpec()


class EntryPort(_Object, frozen=True):
    """One port of a ServiceEntry, or of a Gateway's server."""

    number: Int = 0
    name: str = ""
    protocol: str = ""
    target_port: Int = 0


class EntryEndpoint(_Object, frozen=True):
    """One inline endpoint of a ServiceEntry; the same fields as a WorkloadEntry's spec."""

    address: str = ""
    ports: dict[str, Int] | None = None
    labels: dict[str, str] | None = None
    network: str = ""
    locality: str = ""
    weight: Int = 0
    service_account: str = ""


class _ServiceEntrySpec(_Object, frozen=True):
    hosts: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None
    ports: tuple[EntryPort, ...] | None = None
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[EntryEndpoint, ...] | None = None
    workload_selector: WorkloadSelector | None = None
    export_to: tuple[str, ...] | None = None
    subject_alt_names: tuple[str, ...] | None = None


class _EntryAddress(_Object, frozen=True):
    value: str = ""


class _ServiceEntryStatus(_Object, frozen=True):
    addresses: tuple[_EntryAddress, ...] | None = None


class ServiceEntry(Resource, frozen=True):
    """networking.istio.io ServiceEntry; `status.addresses` are those that istiod allocated."""

    spec: _ServiceEntrySpec = _ServiceEntrySpec()
    status: _ServiceEntryStatus = _ServiceEntryStatus()


class _ConditionsStatus(_Object, frozen=True):
    conditions: tuple[Condition, ...] | None = None


class WorkloadEntry(Resource, frozen=True):
    """networking.istio.io WorkloadEntry."""

    spec: EntryEndpoint = EntryEndpoint()
    status: _ConditionsStatus = _ConditionsStatus()


class ServerTLS(_Object, frozen=True):
    """ServerTLSSettings of a Gateway's server; without a mode TLS goes through unread, the first of the API's modes."""

    mode: str = "PASSTHROUGH"
    credential_name: str = ""
    credential_names: tuple[str, ...] | None = None
    https_redirect: bool = False
    server_certificate: str = ""
    tls_certificates: tuple[dict[str, str], ...] | None = None

    @property
    def credentials(self) -> bool:
        """Whether it says where its certificate is."""
        return bool(self.credential_name or self.credential_names or self.server_certificate or self.tls_certificates)


class Server(_Object, frozen=True):
    """One server of a Gateway."""

    port: EntryPort = EntryPort()
    hosts: tuple[str, ...] | None = None
    tls: ServerTLS | None = None
    name: str = ""
    bind: str = ""


class _GatewaySpec(_Object, frozen=True):
    selector: dict[str, str] | None = None
    servers: tuple[Server, ...] | None = None


class Gateway(Resource, frozen=True):
    """networking.istio.io Gateway."""

    spec: _GatewaySpec = _GatewaySpec()


class _EgressPort(_Object, frozen=True):
    number: Int = 0
    name: str = ""
    protocol: str = ""


class EgressListener(_Object, frozen=True):
    """One egress listener of a Sidecar."""

    hosts: tuple[str, ...] | None = None
    port: _EgressPort | None = None
    bind: str = ""
    capture_mode: str = ""


class OutboundTrafficPolicy(_Object, frozen=True):
    """ALLOW_ANY or REGISTRY_ONLY."""

    mode: str | None = None


class IngressListener(_Object, frozen=True):
    """One ingress listener of a Sidecar: the port that callers reach, and where its calls go on to (`127.0.0.1:8080`)."""

    port: _EgressPort = _EgressPort()
    default_endpoint: str = ""


class _SidecarSpec(_Object, frozen=True):
    workload_selector: WorkloadSelector | None = None
    ingress: tuple[IngressListener, ...] | None = None
    egress: tuple[EgressListener, ...] | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Resource, frozen=True):
    """networking.istio.io Sidecar."""

    spec: _SidecarSpec = _SidecarSpec()


class EnvoyFilterMatch(_Object, frozen=True):
    """Where a configPatch applies: SIDECAR_OUTBOUND, SIDECAR_INBOUND, GATEWAY, or anywhere."""

    context: str = ""


class EnvoyFilterValue(_Object, frozen=True):
    """What a configPatch puts there: only what it is called, `envoy.filters.http.local_ratelimit`."""

    name: str = ""


class EnvoyFilterOperation(_Object, frozen=True):
    """What a configPatch does: ADD, MERGE, REMOVE, INSERT_BEFORE and so on."""

    operation: str = ""
    value: EnvoyFilterValue | None = None


class EnvoyFilterPatch(_Object, frozen=True):
    """One configPatch: what it is applied to, where, and what it does there."""

    apply_to: str = ""
    match: EnvoyFilterMatch | None = None
    patch: EnvoyFilterOperation | None = None


class TargetReference(_Object, frozen=True):
    """What a policy is attached to, by name."""

    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


class _EnvoyFilterSpec(_Object, frozen=True):
    workload_selector: WorkloadSelector | None = None
    target_refs: tuple[TargetReference, ...] | None = None
    config_patches: tuple[EnvoyFilterPatch, ...] | None = None
    priority: Int = 0


class EnvoyFilter(Resource, frozen=True):
    """networking.istio.io EnvoyFilter: that it is there, and whom it touches."""

    spec: _EnvoyFilterSpec = _EnvoyFilterSpec()


# --- security.istio.io -----------------------------------------------------------------------------------------------------


class MutualTLS(_Object, frozen=True):
    """mtls.mode of a PeerAuthentication."""

    mode: str = "UNSET"


class _PeerAuthenticationSpec(_Object, frozen=True):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] | None = None


class PeerAuthentication(Resource, frozen=True):
    """security.istio.io PeerAuthentication."""

    spec: _PeerAuthenticationSpec = _PeerAuthenticationSpec()


class PolicySource(_Object, frozen=True):
    """from[].source of an AuthorizationPolicy rule."""

    principals: tuple[str, ...] | None = None
    not_principals: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    not_namespaces: tuple[str, ...] | None = None
    request_principals: tuple[str, ...] | None = None
    not_request_principals: tuple[str, ...] | None = None
    service_accounts: tuple[str, ...] | None = None
    not_service_accounts: tuple[str, ...] | None = None
    trust_domains: tuple[str, ...] | None = None
    not_trust_domains: tuple[str, ...] | None = None
    ip_blocks: tuple[str, ...] | None = None
    not_ip_blocks: tuple[str, ...] | None = None
    remote_ip_blocks: tuple[str, ...] | None = None
    not_remote_ip_blocks: tuple[str, ...] | None = None


class _From(_Object, frozen=True):
    source: PolicySource = PolicySource()


class PolicyOperation(_Object, frozen=True):
    """to[].operation of an AuthorizationPolicy rule."""

    hosts: tuple[str, ...] | None = None
    not_hosts: tuple[str, ...] | None = None
    ports: tuple[str, ...] | None = None
    not_ports: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    not_methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    not_paths: tuple[str, ...] | None = None


class _To(_Object, frozen=True):
    operation: PolicyOperation = PolicyOperation()


class PolicyCondition(_Object, frozen=True):
    """One when[] of an AuthorizationPolicy rule."""

    key: str = ""
    values: tuple[str, ...] | None = None
    not_values: tuple[str, ...] | None = None


class PolicyRule(_Object, frozen=True):
    """One rule of an AuthorizationPolicy."""

    from_: tuple[_From, ...] | None = field(default=None, name="from")
    to: tuple[_To, ...] | None = None
    when: tuple[PolicyCondition, ...] | None = None


class PolicyProvider(_Object, frozen=True):
    """provider of a CUSTOM AuthorizationPolicy: a name of MeshConfig.extensionProviders."""

    name: str = ""


class _AuthorizationPolicySpec(_Object, frozen=True):
    selector: WorkloadSelector | None = None
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] | None = None
    action: str = "ALLOW"
    provider: PolicyProvider | None = None
    rules: tuple[PolicyRule, ...] | None = None


class AuthorizationPolicy(Resource, frozen=True):
    """security.istio.io AuthorizationPolicy."""

    spec: _AuthorizationPolicySpec = _AuthorizationPolicySpec()


class JWTRule(_Object, frozen=True):
    """Whose tokens a RequestAuthentication takes, and where their keys are."""

    issuer: str = ""
    jwks_uri: str = ""


class _RequestAuthenticationSpec(_Object, frozen=True):
    selector: WorkloadSelector | None = None
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] | None = None
    jwt_rules: tuple[JWTRule, ...] | None = None


class RequestAuthentication(Resource, frozen=True):
    """security.istio.io RequestAuthentication."""

    spec: _RequestAuthenticationSpec = _RequestAuthenticationSpec()


# --- gateway.networking.k8s.io ---------------------------------------------------------------------------------------------


class _GatewayClassSpec(_Object, frozen=True):
    controller_name: str = ""


class GatewayClass(Resource, frozen=True):
    """gateway.networking.k8s.io GatewayClass."""

    spec: _GatewayClassSpec = _GatewayClassSpec()


class _RouteNamespaces(_Object, frozen=True):
    from_: str = field(default="Same", name="from")
    selector: LabelSelector | None = None


class _RouteKind(_Object, frozen=True):
    group: str | None = None
    kind: str = ""


class AllowedRoutes(_Object, frozen=True):
    """Which routes a listener takes."""

    namespaces: _RouteNamespaces = _RouteNamespaces()
    kinds: tuple[_RouteKind, ...] | None = None


class _ListenerTLS(_Object, frozen=True):
    mode: str = "Terminate"
    certificate_refs: tuple[TargetReference, ...] | None = None
    options: dict[str, str] | None = None


class Listener(_Object, frozen=True):
    """One listener of a Gateway API Gateway."""

    name: str = ""
    port: Int = 0
    protocol: str = ""
    hostname: str | None = None
    allowed_routes: AllowedRoutes | None = None
    tls: _ListenerTLS | None = None


class _AllowedListeners(_Object, frozen=True):
    namespaces: _ListenerNamespaces | None = None


class _ListenerNamespaces(_Object, frozen=True):
    from_: str | None = field(default=None, name="from")
    selector: LabelSelector | None = None


class _GatewayAddress(_Object, frozen=True):
    type: str = "IPAddress"
    value: str = ""


class _APIGatewaySpec(_Object, frozen=True):
    gateway_class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    addresses: tuple[_GatewayAddress, ...] | None = None
    allowed_listeners: _AllowedListeners | None = None


class _APIGatewayStatus(_Object, frozen=True):
    addresses: tuple[_GatewayAddress, ...] | None = None
    conditions: tuple[Condition, ...] | None = None


class APIGateway(Resource, frozen=True):
    """gateway.networking.k8s.io Gateway (a struct of its own name, since Istio has a Gateway too)."""

    spec: _APIGatewaySpec = _APIGatewaySpec()
    status: _APIGatewayStatus = _APIGatewayStatus()


class ParentReference(_Object, frozen=True):
    """What a route attaches to: a Gateway, a Service (GAMMA), a ServiceEntry."""

    name: str = ""
    namespace: str | None = None
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    section_name: str | None = None
    port: Int | None = None


class _BackendFilter(_Object, frozen=True):
    type: str = ""


class _ListenerSetSpec(_Object, frozen=True):
    parent_ref: ParentReference = ParentReference()
    listeners: tuple[Listener, ...] = ()


class ListenerSet(Resource, frozen=True):
    """gateway.networking.k8s.io ListenerSet: more listeners of a Gateway, in whose namespace they need not be."""

    spec: _ListenerSetSpec = _ListenerSetSpec()


class BackendRef(_Object, frozen=True):
    """Where a route sends requests; weight 1 when it is left out."""

    name: str = ""
    namespace: str | None = None
    group: str = ""
    kind: str = "Service"
    port: Int | None = None
    weight: Int | None = None
    filters: tuple[_BackendFilter, ...] | None = None


class PathMatch(_Object, frozen=True):
    """HTTPPathMatch."""

    type: str = "PathPrefix"
    value: str = "/"


class HeaderMatch(_Object, frozen=True):
    """HTTPHeaderMatch or HTTPQueryParamMatch."""

    type: str = "Exact"
    name: str = ""
    value: str = ""


class MethodMatch(_Object, frozen=True):
    """GRPCMethodMatch."""

    type: str = "Exact"
    service: str | None = None
    method: str | None = None


class APIRouteMatch(_Object, frozen=True):
    """One match of an HTTPRoute: `method` is text there, an object in a GRPCRoute."""

    path: PathMatch | None = None
    headers: tuple[HeaderMatch, ...] | None = None
    query_params: tuple[HeaderMatch, ...] | None = None
    method: str | MethodMatch | None = None


class _RequestRedirect(_Object, frozen=True):
    scheme: str | None = None
    hostname: str | None = None
    port: Int | None = None
    status_code: Int | None = None


class _RequestMirror(_Object, frozen=True):
    backend_ref: BackendRef = BackendRef()


class _URLRewrite(_Object, frozen=True):
    hostname: str = ""


class RouteFilter(_Object, frozen=True):
    """One filter of a rule or a backend."""

    type: str = ""
    request_redirect: _RequestRedirect | None = None
    url_rewrite: _URLRewrite | None = field(default=None, name="urlRewrite")
    request_mirror: _RequestMirror | None = None
    extension_ref: TargetReference | None = None


class APIRouteRule(_Object, frozen=True):
    """One rule of a Gateway API route."""

    name: str | None = None
    matches: tuple[APIRouteMatch, ...] | None = None
    filters: tuple[RouteFilter, ...] | None = None
    backend_refs: tuple[BackendRef, ...] | None = None


class _APIRouteSpec(_Object, frozen=True):
    parent_refs: tuple[ParentReference, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    rules: tuple[APIRouteRule, ...] | None = None


class _ParentStatus(_Object, frozen=True):
    parent_ref: ParentReference = ParentReference()
    controller_name: str = ""
    conditions: tuple[Condition, ...] | None = None


class _APIRouteStatus(_Object, frozen=True):
    parents: tuple[_ParentStatus, ...] | None = None


class APIRoute(Resource, frozen=True):
    """What HTTPRoute, GRPCRoute, TLSRoute and TCPRoute share."""

    spec: _APIRouteSpec = _APIRouteSpec()
    status: _APIRouteStatus = _APIRouteStatus()


class APIHTTPRoute(APIRoute, frozen=True):
    """gateway.networking.k8s.io HTTPRoute."""


class APIGRPCRoute(APIRoute, frozen=True):
    """gateway.networking.k8s.io GRPCRoute."""


class APITLSRoute(APIRoute, frozen=True):
    """gateway.networking.k8s.io TLSRoute."""


class APITCPRoute(APIRoute, frozen=True):
    """gateway.networking.k8s.io TCPRoute."""


class GrantFrom(_Object, frozen=True):
    """Who may refer."""

    group: str = ""
    kind: str = ""
    namespace: str = ""


class GrantTo(_Object, frozen=True):
    """To what."""

    group: str = ""
    kind: str = ""
    name: str | None = None


class _ReferenceGrantSpec(_Object, frozen=True):
    from_: tuple[GrantFrom, ...] = field(default=(), name="from")
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(Resource, frozen=True):
    """gateway.networking.k8s.io ReferenceGrant."""

    spec: _ReferenceGrantSpec = _ReferenceGrantSpec()


class _PolicyTarget(_Object, frozen=True):
    group: str = ""
    kind: str = ""
    name: str = ""
    section_name: str | None = None


class _SubjectAltName(_Object, frozen=True):
    type: str = ""
    hostname: str = ""
    uri: str = ""


class _BackendValidation(_Object, frozen=True):
    subject_alt_names: tuple[_SubjectAltName, ...] | None = None
    ca_certificate_refs: tuple[TargetReference, ...] | None = field(default=None, name="caCertificateRefs")
    well_known_ca_certificates: str | None = field(default=None, name="wellKnownCACertificates")
    hostname: str = ""


class _BackendTLSPolicySpec(_Object, frozen=True):
    target_refs: tuple[_PolicyTarget, ...] | None = None
    validation: _BackendValidation = _BackendValidation()


class _AncestorStatus(_Object, frozen=True):
    ancestor_ref: ParentReference = ParentReference()
    conditions: tuple[Condition, ...] | None = None


class _PolicyStatus(_Object, frozen=True):
    ancestors: tuple[_AncestorStatus, ...] | None = None


class BackendTLSPolicy(Resource, frozen=True):
    """gateway.networking.k8s.io BackendTLSPolicy."""

    spec: _BackendTLSPolicySpec = _BackendTLSPolicySpec()
    status: _PolicyStatus = _PolicyStatus()


class _Unannotated(Metadata, frozen=True):
    """Metadata whose annotations are never decoded: kubectl keeps a copy of a Secret's data in one of them."""

    annotations: dict[str, str] | None = field(default=None, name="(never read)")


class ServiceExport(Resource, frozen=True):
    """multicluster.x-k8s.io ServiceExport: that the Service of its name is there for other clusters."""


class _ServiceImportSpec(_Object, frozen=True):
    ips: tuple[str, ...] | None = None


class ServiceImport(Resource, frozen=True):
    """multicluster.x-k8s.io ServiceImport: the addresses under which a cluster calls an exported Service."""

    spec: _ServiceImportSpec = _ServiceImportSpec()


class Secret(Resource, frozen=True):
    """v1 Secret: that it is there, and nothing of what it holds, neither data nor annotations."""

    metadata: _Unannotated = _Unannotated()
    type: str = ""


class CustomResourceDefinition(Resource, frozen=True):
    """apiextensions.k8s.io CustomResourceDefinition: its annotations say which release of the Gateway API it is from."""


# --- who runs the mesh: revision tags, OpenShift Service Mesh, Sail ----------------------------------------------------------


class MutatingWebhookConfiguration(Resource, frozen=True):
    """admissionregistration.k8s.io MutatingWebhookConfiguration, metadata only: labels `istio.io/tag` and `istio.io/rev` make a revision tag."""


class _ControlPlaneSpec(_Object, frozen=True):
    version: str = ""
    mode: str = ""


class ServiceMeshControlPlane(Resource, frozen=True):
    """maistra.io ServiceMeshControlPlane: a control plane of OpenShift Service Mesh 2 in its namespace; its name is the revision."""

    spec: _ControlPlaneSpec = _ControlPlaneSpec()


class _MemberRollSpec(_Object, frozen=True):
    members: tuple[str, ...] | None = None
    member_selectors: tuple[LabelSelector, ...] | None = None


class _MemberRollStatus(_Object, frozen=True):
    configured_members: tuple[str, ...] | None = None


class ServiceMeshMemberRoll(Resource, frozen=True):
    """maistra.io ServiceMeshMemberRoll: the namespaces that belong to the control plane of its namespace."""

    spec: _MemberRollSpec = _MemberRollSpec()
    status: _MemberRollStatus = _MemberRollStatus()


class _ControlPlaneRef(_Object, frozen=True):
    name: str = ""
    namespace: str = ""


class _MemberSpec(_Object, frozen=True):
    control_plane_ref: _ControlPlaneRef = _ControlPlaneRef()


class ServiceMeshMember(Resource, frozen=True):
    """maistra.io ServiceMeshMember: its namespace belongs to a control plane."""

    spec: _MemberSpec = _MemberSpec()


class _IstioRevisionSpec(_Object, frozen=True):
    version: str = ""
    namespace: str = ""


class IstioRevision(Resource, frozen=True):
    """sailoperator.io IstioRevision: a control plane that Sail runs; its name is the revision."""

    spec: _IstioRevisionSpec = _IstioRevisionSpec()


class _RouteTarget(_Object, frozen=True):
    kind: str = "Service"
    name: str = ""


class _RoutePort(_Object, frozen=True):
    target_port: Int | str = ""


class RouteTLS(_Object, frozen=True):
    """How the router treats TLS: edge, reencrypt or passthrough."""

    termination: str = ""
    insecure_edge_termination_policy: str = ""


class _RouteSpec(_Object, frozen=True):
    host: str = ""
    to: _RouteTarget = _RouteTarget()
    port: _RoutePort | None = None
    tls: RouteTLS | None = None
    wildcard_policy: str = ""


class _RouteIngress(_Object, frozen=True):
    host: str = ""
    router_canonical_hostname: str = ""


class _RouteStatus(_Object, frozen=True):
    ingress: tuple[_RouteIngress, ...] | None = None


class OpenShiftRoute(Resource, frozen=True):
    """route.openshift.io Route: a host that OpenShift's router leads to a Service."""

    spec: _RouteSpec = _RouteSpec()
    status: _RouteStatus = _RouteStatus()


# --- the registry of kinds -------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """One kind that is read: where the API has it, newest version first, and whether its metadata is enough."""

    struct: type[Resource]
    kind: str
    group: str
    versions: tuple[str, ...]
    plural: str
    namespaced: bool = True
    metadata_only: bool = False

    @property
    def key(self) -> str:
        """`plural.group` as kubectl and RBAC write it; the bare plural for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_ISTIO, _SECURITY, _API, _MCS = "networking.istio.io", "security.istio.io", "gateway.networking.k8s.io", "multicluster.x-k8s.io"
_ISTIO_VERSIONS = ("v1", "v1beta1", "v1alpha3")

KINDS: tuple[Kind, ...] = (
    Kind(Namespace, "Namespace", "", ("v1",), "namespaces", namespaced=False),
    Kind(Service, "Service", "", ("v1",), "services"),
    Kind(Node, "Node", "", ("v1",), "nodes", namespaced=False),
    Kind(EndpointSlice, "EndpointSlice", "discovery.k8s.io", ("v1",), "endpointslices"),
    Kind(Pod, "Pod", "", ("v1",), "pods"),
    Kind(ConfigMap, "ConfigMap", "", ("v1",), "configmaps"),
    Kind(Deployment, "Deployment", "apps", ("v1",), "deployments"),
    Kind(StatefulSet, "StatefulSet", "apps", ("v1",), "statefulsets"),
    Kind(DaemonSet, "DaemonSet", "apps", ("v1",), "daemonsets"),
    Kind(ReplicaSet, "ReplicaSet", "apps", ("v1",), "replicasets", metadata_only=True),
    Kind(Rollout, "Rollout", "argoproj.io", ("v1alpha1",), "rollouts"),
    Kind(VirtualService, "VirtualService", _ISTIO, _ISTIO_VERSIONS, "virtualservices"),
    Kind(DestinationRule, "DestinationRule", _ISTIO, _ISTIO_VERSIONS, "destinationrules"),
    Kind(ServiceEntry, "ServiceEntry", _ISTIO, _ISTIO_VERSIONS, "serviceentries"),
    Kind(WorkloadEntry, "WorkloadEntry", _ISTIO, _ISTIO_VERSIONS, "workloadentries"),
    Kind(Gateway, "Gateway", _ISTIO, _ISTIO_VERSIONS, "gateways"),
    Kind(Sidecar, "Sidecar", _ISTIO, _ISTIO_VERSIONS, "sidecars"),
    Kind(EnvoyFilter, "EnvoyFilter", _ISTIO, ("v1alpha3",), "envoyfilters"),
    Kind(PeerAuthentication, "PeerAuthentication", _SECURITY, ("v1", "v1beta1"), "peerauthentications"),
    Kind(AuthorizationPolicy, "AuthorizationPolicy", _SECURITY, ("v1", "v1beta1"), "authorizationpolicies"),
    Kind(RequestAuthentication, "RequestAuthentication", _SECURITY, ("v1", "v1beta1"), "requestauthentications"),
    Kind(GatewayClass, "GatewayClass", _API, ("v1", "v1beta1"), "gatewayclasses", namespaced=False),
    Kind(APIGateway, "Gateway", _API, ("v1", "v1beta1"), "gateways"),
    Kind(APIHTTPRoute, "HTTPRoute", _API, ("v1", "v1beta1"), "httproutes"),
    Kind(APIGRPCRoute, "GRPCRoute", _API, ("v1", "v1alpha2"), "grpcroutes"),
    Kind(APITLSRoute, "TLSRoute", _API, ("v1", "v1alpha3", "v1alpha2"), "tlsroutes"),
    Kind(APITCPRoute, "TCPRoute", _API, ("v1alpha2",), "tcproutes"),
    Kind(ReferenceGrant, "ReferenceGrant", _API, ("v1", "v1beta1"), "referencegrants"),
    Kind(BackendTLSPolicy, "BackendTLSPolicy", _API, ("v1", "v1alpha3"), "backendtlspolicies"),
    Kind(ListenerSet, "ListenerSet", _API, ("v1",), "listenersets"),
    Kind(
        MutatingWebhookConfiguration,
        "MutatingWebhookConfiguration",
        "admissionregistration.k8s.io",
        ("v1",),
        "mutatingwebhookconfigurations",
        namespaced=False,
        metadata_only=True,
    ),
    Kind(ServiceMeshControlPlane, "ServiceMeshControlPlane", "maistra.io", ("v2", "v1"), "servicemeshcontrolplanes"),
    Kind(ServiceMeshMemberRoll, "ServiceMeshMemberRoll", "maistra.io", ("v1",), "servicemeshmemberrolls"),
    Kind(ServiceMeshMember, "ServiceMeshMember", "maistra.io", ("v1",), "servicemeshmembers"),
    Kind(IstioRevision, "IstioRevision", "sailoperator.io", ("v1", "v1alpha1"), "istiorevisions", namespaced=False),
    Kind(OpenShiftRoute, "Route", "route.openshift.io", ("v1",), "routes"),
    Kind(ServiceExport, "ServiceExport", _MCS, ("v1beta1", "v1alpha1"), "serviceexports"),
    Kind(ServiceImport, "ServiceImport", _MCS, ("v1beta1", "v1alpha1"), "serviceimports"),
)
OPTIONAL: tuple[Kind, ...] = (
    Kind(NetworkPolicy, "NetworkPolicy", "networking.k8s.io", ("v1",), "networkpolicies"),
    Kind(Secret, "Secret", "", ("v1",), "secrets", metadata_only=True),
    Kind(
        CustomResourceDefinition,
        "CustomResourceDefinition",
        "apiextensions.k8s.io",
        ("v1",),
        "customresourcedefinitions",
        namespaced=False,
        metadata_only=True,
    ),
)
"""Kinds that are understood where somebody shows them, and never asked for by default: what cannot be seen of them makes nothing unknown."""
KIND_OF: Mapping[type[Resource], Kind] = {k.struct: k for k in (*KINDS, *OPTIONAL)}
ADDING: frozenset[str] = frozenset(
    k.key
    for k in (
        *OPTIONAL,
        KIND_OF[ListenerSet],
        KIND_OF[MutatingWebhookConfiguration],
        KIND_OF[OpenShiftRoute],
        KIND_OF[RequestAuthentication],
        KIND_OF[Rollout],
    )
)
"""The keys of kinds that add to what is known and without which nothing is unknown."""
_BY_API: Mapping[tuple[str, str], Kind] = {(k.group, k.kind): k for k in KIND_OF.values()}


class Malformed(NamedTuple):
    """An object of a kind that we read whose fields have a wrong type: what it is, and what is wrong, for people."""

    ref: str
    reason: str


class _Head(Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    items: tuple[msgspec.Raw, ...] | None = None


class _Name(Struct):
    name: str = ""
    namespace: str = ""


_head = msgspec.json.Decoder(_Head)
_decoders = {k.struct: msgspec.json.Decoder(k.struct) for k in KIND_OF.values()}


def kind_of(api_version: str, kind: str) -> Kind | None:
    """The Kind of `apiVersion` and `kind` as a manifest writes them (any version of the group), or None if it is not read."""
    group, slash, _ = api_version.partition("/")
    return _BY_API.get((group if slash else "", kind))


def decode(kind: Kind, data: bytes | msgspec.Raw) -> Resource:
    """One object of a known kind from its JSON, a null as what is left out (the API server drops it); raises msgspec.DecodeError (ValidationError for a wrong type)."""
    decoder = _decoders[kind.struct]
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        if "got `null`" not in str(error):
            raise
        return decoder.decode(msgspec.json.encode(without_nulls(msgspec.json.decode(data))))


def without_nulls(value: object) -> object:
    """A plain value with what is null left out."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def parse(manifest: bytes | Mapping[str, Any]) -> Iterator[Resource | Malformed]:
    """Every object of a JSON manifest that we read: a single object, or a List of them, nested or not; other kinds are passed over.

    `manifest` is JSON bytes, or what a YAML loader made of a document. Raises msgspec.DecodeError if the bytes are not JSON.
    """
    raw = manifest if isinstance(manifest, bytes) else msgspec.json.encode(manifest)
    yield from _parse(raw)


def _parse(raw: bytes | msgspec.Raw) -> Iterator[Resource | Malformed]:
    try:
        head = _head.decode(raw)
    except msgspec.ValidationError as error:
        yield Malformed("an object", str(error))
        return
    if head.items is not None and head.kind.endswith("List"):
        for item in head.items:
            yield from _parse(item)
        return
    kind = kind_of(head.api_version, head.kind)
    if kind is None:
        return
    try:
        read = decode(kind, raw)
    except msgspec.ValidationError as error:
        yield Malformed(_ref(kind, head.metadata), str(error))
        return
    share(read)
    yield read


_shared: dict[Any, Any] = {}
_MANY = 1 << 16
"""Parts that are remembered at most: those that are forgotten stay shared by who has them."""


def share(read: Resource) -> None:
    """Let what an object has in common with others be one with theirs, where nobody else holds it yet: the pods of a template differ in little.

    Of who wrote it only the newest is kept. Strings that many objects have, labels and annotations, owners, and what the pods and endpoints of a service say alike.
    """
    if len(_shared) > _MANY:
        _shared.clear()
    meta = read.metadata
    if meta.managed_fields:
        written = [w for w in meta.managed_fields if w.subresource != "status"]
        force_setattr(meta, "managed_fields", (max(written, key=lambda w: w.time),) if written else ())
        for w in meta.managed_fields:
            for name in ("manager", "operation", "time", "subresource"):
                force_setattr(w, name, _shared.setdefault(getattr(w, name), getattr(w, name)))
        _one(meta, "managed_fields")
    force_setattr(meta, "namespace", sys.intern(meta.namespace))
    _one(meta, "creation_timestamp", "owner_references")
    for name in ("labels", "annotations"):
        if found := getattr(meta, name):
            force_setattr(meta, name, _shared.setdefault(tuple(found.items()), found))
    if isinstance(read, Pod):
        force_setattr(read.spec, "node_name", sys.intern(read.spec.node_name))
        _one(read.spec, "containers", "init_containers", "service_account_name")
        _one(read.status, "phase", "conditions", "container_statuses", "init_container_statuses")
        for ip in read.status.pod_ips or ():
            if ip.ip == read.status.pod_ip:
                force_setattr(ip, "ip", read.status.pod_ip)
    elif isinstance(read, EndpointSlice):
        _one(read, "ports", "address_type")
        for e in read.endpoints or ():
            _one(e, "conditions", "node_name", "zone")
            if e.target_ref is not None:
                _one(e.target_ref, "kind", "namespace")
    elif isinstance(read, Workload):
        template = read.spec.template
        _one(template.spec, "containers", "init_containers")
        if found := template.metadata.labels:
            force_setattr(template.metadata, "labels", _shared.setdefault(tuple(found.items()), found))


def _one(part: Struct, *names: str) -> None:
    for name in names:
        if value := getattr(part, name):
            force_setattr(part, name, _shared.setdefault(value, value))


def _ref(kind: Kind, metadata: msgspec.Raw) -> str:
    try:
        name = msgspec.json.decode(metadata, type=_Name)
    except msgspec.DecodeError:
        return kind.kind
    return f"{kind.kind} {name.namespace}/{name.name}" if name.namespace else f"{kind.kind} {name.name}"


def objects(parsed: Iterable[Resource | Malformed]) -> list[Resource]:
    """Only the objects that could be read."""
    return [o for o in parsed if isinstance(o, Resource)]
