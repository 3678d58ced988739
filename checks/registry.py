"""The services of a mesh as istiod's registries make them: one HostService for each Service and each host of a ServiceEntry, and their endpoints.

Rules: semantics.md 3.6, 3.7, 3.9; pilot/pkg/serviceregistry/{kube,serviceentry,aggregate} in istio/istio.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checks import names
from checks.resources import (
    ConfigMap,
    EntryEndpoint,
    LabelSelector,
    LocalityLbSetting,
    OutlierDetection,
    Pod,
    Service,
    ServiceEntry,
    ServicePort,
    WorkloadEntry,
    ZoneAwareLbSetting,
    without_nulls,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import ViewpointKind

Resolution = Literal["static", "dns", "dns_round_robin", "none", "dynamic_dns", "alias"]
Health = Literal["healthy", "unhealthy", "draining", "terminating"]
GOES = "the pod is terminating"
"""Why an endpoint is not healthy whose slice or pod says that it goes."""

NETWORK_GATEWAY_PORT = "networking.istio.io/gatewayPort"
NETWORK, CLUSTER = "topology.istio.io/network", "topology.istio.io/cluster"
REGION, ZONE, SUBZONE, NODE = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
)
TOPOLOGY = frozenset({REGION, ZONE, SUBZONE, CLUSTER, NODE, NETWORK})
"""The labels that istiod adds to an endpoint's own."""
PERSISTENT_SESSION = "istio.io/persistent-session"
DRAINING = "istio.io/draining"
UNSPECIFIED = "0.0.0.0"
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
"""What Istio takes for yes in labels and variables (strconv.ParseBool)."""

_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})
_TCP = frozenset({"TCP", "HTTPS", "TLS", "MONGO", "REDIS", "MYSQL"})
_KNOWN = _HTTP | _TCP | {"UDP"}
_WELL_KNOWN_TCP = frozenset({25, 53, 3306, 27017})
AUTO = "AUTO"


WAYPOINT = "istio.io-mesh-controller"
TLS_MODE = "security.istio.io/tlsMode"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
_GATEWAY = frozenset({"istio", GATEWAY_NAME})


def proxy_kind(pod: Pod) -> ViewpointKind:
    """What kind of proxy runs in a pod: waypoint, gateway, sidecar, or none.

    A proxy that is shown without its arguments is a gateway's where the pod's labels say so, as those of every gateway chart do.
    """
    if pod.labels.get("gateway.istio.io/managed") == WAYPOINT:
        return "waypoint"
    found: ViewpointKind = "none"
    for c in (*pod.spec.containers, *(pod.spec.init_containers or ())):
        if c.name == "istio-proxy":
            args = c.args or ()
            if "waypoint" in args:
                return "waypoint"
            if "ztunnel" in args or (not args and c.image.rpartition("/")[2].startswith("ztunnel")):
                found = "none"  # it carries the calls of others (istio/istio, manifests/charts/ztunnel/templates/daemonset.yaml)
                break
            routing = "router" in args or (not args and not _GATEWAY.isdisjoint(pod.labels))
            found = "gateway" if routing or found == "gateway" else "sidecar"
    return "sidecar" if found == "none" and "sidecar.istio.io/status" in pod.annotations else found


def takes_mtls(pod: Pod) -> bool:
    """Whether istiod takes a pod for one that speaks the mesh's mTLS: by its label, which injection writes (injection-template.yaml).

    Where a sidecar is shown without the label the pod was written down in part; only other templates than that of the sidecar leave it out.
    """
    said = pod.labels.get(TLS_MODE)
    return said == "istio" if said is not None else proxy_kind(pod) == "sidecar" and "inject.istio.io/templates" not in pod.annotations


def protocol(text: str) -> str:
    """A protocol's canonical name, AUTO when Istio does not know it and detects it at the listener."""
    upper = text.upper()
    return upper if upper in _KNOWN else AUTO


def port_protocol(port: ServicePort) -> str:
    """The protocol of a Service's port: appProtocol, else the name's prefix (pkg/config/kube/conversion.go)."""
    if port.protocol == "UDP":
        return "UDP"
    name = port.name
    if port.app_protocol is not None:
        name = port.app_protocol
        fixed = {"kubernetes.io/h2c": "HTTP2", "kubernetes.io/ws": "HTTP", "kubernetes.io/wss": "HTTPS"}.get(name)
        if fixed:
            return fixed
    if name.lower().startswith("grpc-web"):
        return "GRPC-WEB"
    found = protocol(name.partition("-")[0])
    return "TCP" if found == AUTO and port.port in _WELL_KNOWN_TCP else found


class HostPort(Struct, frozen=True, gc=False):
    """One port of a HostService."""

    number: int
    name: str
    protocol: str
    target: int | str | None = None

    @property
    def http(self) -> bool:
        """Whether its listener carries HTTP for sure."""
        return self.protocol in _HTTP

    @property
    def http_or_auto(self) -> bool:
        """Whether its listener carries HTTP, detected or declared."""
        return self.protocol in _HTTP or self.protocol == AUTO

    @property
    def tcp(self) -> bool:
        """Whether its listener carries TCP for sure."""
        return self.protocol in _TCP

    @property
    def tls(self) -> bool:
        """Whether its listener chooses by SNI."""
        return self.protocol in {"HTTPS", "TLS"}

    def same(self, other: HostPort) -> bool:
        """Number, name and protocol are equal (model.Port.Equals)."""
        return (self.number, self.name, self.protocol) == (other.number, other.name, other.protocol)


class HostService(Struct, eq=False, gc=False):
    """What istiod calls a Service: one host in one namespace from one registry. Compared by identity, as istiod does."""

    hostname: str
    namespace: str
    name: str
    created: str
    ports: tuple[HostPort, ...]
    resolution: Resolution
    kubernetes: bool
    external: bool
    export_to: frozenset[str]
    labels: Mapping[str, str]
    selector: Mapping[str, str] | None
    address: str
    sources: tuple[tuple[str, str], ...]
    """Who defined it: (cluster, ref)."""
    vips: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    external_name: str = ""
    node_local: bool = False
    traffic_distribution: str = ""
    target_overrides: Mapping[int, int] = msgspec.field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()

    def port(self, number: int) -> HostPort | None:
        """Its port of this number; one that is not UDP, where it has both (PortList.GetByPort)."""
        udp = None
        for p in self.ports:
            if p.number == number:
                if p.protocol != "UDP":
                    return p
                udp = p
        return udp

    def address_for(self, cluster: str) -> str:
        """The address that a sidecar of `cluster` listens on for it; 0.0.0.0 when it has none."""
        own = self.vips.get(cluster, ())
        return own[0] if own else self.address

    def with_ports(self, ports: tuple[HostPort, ...]) -> HostService:
        """A copy that has only these ports, as a Sidecar's listener or a VirtualService's destination narrows it."""
        return replace(self, ports=ports)

    @property
    def dns(self) -> bool:
        """Whether Envoy resolves its endpoints itself."""
        return self.resolution in {"dns", "dns_round_robin"}


class IstioEndpoint(Struct, eq=False, gc=False):
    """What istiod keeps of one endpoint: address (`ip` or a DNS name), port, the Service port's name, and what filters look at.

    `own` are the labels of its pod or entry, `topology` those that istiod adds.
    """

    address: str
    port: int
    port_name: str
    own: Mapping[str, str]
    network: str
    cluster: str
    locality: str
    health: Health
    tls: bool
    node: str = ""
    workload: str = ""
    namespace: str = ""
    legacy_port: int | None = None
    reason: str = ""
    tunnel: bool = False
    topology: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def labels(self) -> Mapping[str, str]:
        """All of its labels."""
        return {**self.own, **self.topology}

    def carries(self, key: str, value: str) -> bool:
        """Whether it has a label."""
        return (self.topology[key] if key in self.topology else self.own.get(key)) == value

    def copy(self, **changes: object) -> IstioEndpoint:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def unready(self) -> bool:
        """Whether it is not ready and nothing says that it goes: istiod takes one for going that does not say that it stays."""
        return self.health == "unhealthy" or (self.health == "terminating" and self.reason != GOES)

    @property
    def at(self) -> str:
        """address:port, IPv6 in brackets; a Unix domain socket as it is written."""
        if self.address.startswith("unix://"):
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


# --- MeshConfig --------------------------------------------------------------------------------------------------------------


class _ServiceSettings(Struct, rename="camel"):
    cluster_local: bool = False


class _ServiceSetting(Struct):
    hosts: tuple[str, ...] = ()
    settings: _ServiceSettings = msgspec.field(default_factory=_ServiceSettings)


class _Outbound(Struct):
    mode: str = "ALLOW_ANY"


class _DefaultTrafficPolicy(Struct, rename="camel"):
    outlier_detection: OutlierDetection | None = None


class ExtAuthz(Struct, rename="camel"):
    """envoyExtAuthzHttp or envoyExtAuthzGrpc: where requests are authorized, and whether they pass when nobody answers there."""

    service: str = ""
    port: int | str = 0
    fail_open: bool = False


class ExtensionProvider(Struct, rename="camel"):
    """One of MeshConfig.extensionProviders: only external authorizers are read."""

    name: str = ""
    envoy_ext_authz_http: ExtAuthz | None = None
    envoy_ext_authz_grpc: ExtAuthz | None = None

    @property
    def authorizer(self) -> ExtAuthz | None:
        """Whom it asks, when it is an authorizer."""
        return self.envoy_ext_authz_http or self.envoy_ext_authz_grpc


class _GatewayTopology(Struct, rename="camel"):
    num_trusted_proxies: int = 0


class _ProxyConfig(Struct, rename="camel"):
    proxy_metadata: dict[str, str] = msgspec.field(default_factory=dict)
    gateway_topology: _GatewayTopology = msgspec.field(default_factory=_GatewayTopology)


class _ServiceScope(Struct, rename="camel"):
    services_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    scope: str = "LOCAL"


_GLOBAL = _ServiceScope(LabelSelector({"istio.io/global": "true"}), None, "GLOBAL")


class _VisibilityRule(Struct, rename="camel"):
    namespace_selector: LabelSelector | None = None


class _VisibilityPolicy(Struct, rename="camel"):
    visibility: str = ""
    matching_rules: tuple[_VisibilityRule, ...] = ()

    def means(self, namespace: Mapping[str, str]) -> bool:
        """Whether all of its rules fit a namespace's labels; a rule of another kind fits none."""
        return all(r.namespace_selector is not None and r.namespace_selector.matches(namespace) for r in self.matching_rules)


class _EntryVisibility(Struct, rename="camel"):
    default_visibility: str = ""
    policies: tuple[_VisibilityPolicy, ...] = ()
    apply_to_sidecars: bool = False


_Said = TypeVar("_Said", bound=Struct)


def said(found: ConfigMap | None, key: str, as_: type[_Said]) -> _Said:
    """What a key of istiod's ConfigMap says, a null as what is left out, as protojson has it; raises ValueError (msgspec's are) for what is none of it."""
    text = (found.data or {}).get(key, "") if found is not None else ""
    plain = without_nulls(msgspec.yaml.decode(text.encode()))
    return msgspec.yaml.decode(msgspec.yaml.encode(plain), type=as_) if plain is not None else as_()


def misread(found: ConfigMap) -> str:
    """Why a ConfigMap of istiod's cannot be understood, in one line; empty when it can."""
    try:
        said(found, "mesh", MeshConfig), said(found, "meshNetworks", MeshNetworks)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


class MeshConfig(Struct, rename="camel"):
    """The part of MeshConfig (ConfigMap `istio`, key `mesh`) that routes depend on, with istiod's defaults."""

    root_namespace: str = "istio-system"
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    default_service_export_to: tuple[str, ...] | None = None
    default_virtual_service_export_to: tuple[str, ...] | None = None
    default_destination_rule_export_to: tuple[str, ...] | None = None
    service_settings: tuple[_ServiceSetting, ...] = ()
    outbound_traffic_policy: _Outbound = msgspec.field(default_factory=_Outbound)
    locality_lb_setting: LocalityLbSetting = msgspec.field(default_factory=LocalityLbSetting)
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    service_entry_visibility: _EntryVisibility | None = None
    default_traffic_policy: _DefaultTrafficPolicy | None = None
    discovery_selectors: tuple[dict[str, object], ...] | None = None
    service_scope_configs: tuple[_ServiceScope, ...] = (_GLOBAL,)

    def entry_visibility(self, namespace: Mapping[str, str]) -> str:
        """PUBLIC, NAMESPACE or NONE: how far sidecars may see the ServiceEntries of a namespace at most, by its labels (model.VisibilityFor)."""
        said = self.service_entry_visibility
        return self.ambient_visibility(namespace) if said is not None and said.apply_to_sidecars else "PUBLIC"

    def ambient_visibility(self, namespace: Mapping[str, str]) -> str:
        """The same for the ambient mesh, which always heeds it."""
        said = self.service_entry_visibility
        if said is None:
            return "PUBLIC"
        found = next((p.visibility for p in said.policies if p.means(namespace)), said.default_visibility)
        return found if found in {"NAMESPACE", "NONE"} else "PUBLIC"

    def is_global(self, namespace: Mapping[str, str], service: Mapping[str, str]) -> bool:
        """Whether a Service is for all clusters of an ambient mesh, by its namespace's and its own labels (ambient/services.go matchServiceScope)."""
        return any(
            s.scope == "GLOBAL"
            and (s.namespace_selector is None or s.namespace_selector.matches(namespace))
            and (s.services_selector is None or s.services_selector.matches(service))
            for s in self.service_scope_configs
        )

    enable_auto_mtls: bool = True
    extension_providers: tuple[ExtensionProvider, ...] = ()
    default_config: _ProxyConfig = msgspec.field(default_factory=_ProxyConfig)

    @property
    def captures_dns(self) -> bool:
        """Whether sidecars answer DNS questions themselves, for every service of the mesh."""
        return self.default_config.proxy_metadata.get("ISTIO_META_DNS_CAPTURE", "").lower() == "true"

    @property
    def allocates_addresses(self) -> bool:
        """Whether ServiceEntries without addresses get some (the analyzer of IST0134)."""
        said = self.default_config.proxy_metadata
        return self.captures_dns and any(
            said.get(k, "").lower() == "true" for k in ("ISTIO_META_DNS_AUTO_ALLOCATE", "PILOT_ENABLE_IP_AUTOALLOCATE")
        )

    @property
    def cluster_local(self) -> tuple[dict[str, bool], dict[str, bool]]:
        """The hosts whose endpoints stay in the caller's cluster, and those of them that do not: exact ones and wildcards (pilot/pkg/model/cluster_local.go)."""
        defaults = [
            f"*.kube-system.svc.{names.DOMAIN}",
            f"kubernetes.default.svc.{names.DOMAIN}",
            f"istiod.{self.root_namespace}.svc.{names.DOMAIN}",
        ]
        exact: dict[str, bool] = {}
        wild: dict[str, bool] = {}
        for s in self.service_settings:
            for h in s.hosts:
                if not s.settings.cluster_local:
                    defaults = [d for d in defaults if not (h == d or (names.is_wildcard(d) and h.endswith(d[1:])))]
                (wild if names.is_wildcard(h) else exact)[h] = s.settings.cluster_local
        for d in defaults:
            (wild if names.is_wildcard(d) else exact)[d] = True
        return exact, wild


class _NetworkEndpoint(Struct, rename="camel"):
    from_cidr: str = ""
    from_registry: str = ""


class _NetworkGateway(Struct, rename="camel"):
    registry_service_name: str = ""
    address: str = ""
    port: int = 0


class Network(Struct):
    """One entry of meshNetworks."""

    endpoints: tuple[_NetworkEndpoint, ...] = ()
    gateways: tuple[_NetworkGateway, ...] = ()


class MeshNetworks(Struct):
    """meshNetworks of ConfigMap `istio`."""

    networks: dict[str, Network] = msgspec.field(default_factory=dict)

    def of(self, cluster: str, address: str) -> str:
        """The network of an address in a cluster: fromRegistry, else the CIDR that holds it, else empty."""
        for name, network in self.networks.items():
            if any(e.from_registry == cluster for e in network.endpoints):
                return name
        if not names.is_ip(address):
            return ""
        ip = ipaddress.ip_address(address)
        for name, network in self.networks.items():
            for e in network.endpoints:
                if e.from_cidr:
                    try:
                        if ip in ipaddress.ip_network(e.from_cidr, strict=False):
                            return name
                    except ValueError:
                        continue
        return ""


# --- conversions -------------------------------------------------------------------------------------------------------------

_DISTRIBUTION = {"preferclose": "zone", "prefersamezone": "zone", "prefersamenode": "node"}


def traffic_distribution(spec: str | None, own: Mapping[str, str], namespace: Mapping[str, str]) -> str:
    """`zone`, `node` or empty, by field, annotation and the namespace's annotation (model.GetTrafficDistribution)."""
    key = "networking.istio.io/traffic-distribution"
    if spec and spec.lower() in _DISTRIBUTION:
        return _DISTRIBUTION[spec.lower()]
    if own.get(key):
        return _DISTRIBUTION.get(own[key].lower(), "")
    return _DISTRIBUTION.get(namespace.get(key, "").lower(), "")


def from_service(svc: Service, cluster: str, namespace_annotations: Mapping[str, str]) -> HostService:
    """A Kubernetes Service as istiod has it (kube.ConvertService)."""
    spec, meta = svc.spec, svc.metadata
    name, namespace, own = meta.name, meta.namespace, svc.annotations
    resolution: Resolution = "static"
    external_name = ""
    if spec.type == "ExternalName" and spec.external_name:
        external_name, resolution = spec.external_name, "alias"
    vips: tuple[str, ...] = (UNSPECIFIED,)
    if spec.cluster_ip == "None":
        resolution = "none"
    elif spec.cluster_ip:
        vips = spec.cluster_ips if len(spec.cluster_ips) > 1 else (spec.cluster_ip,)
    elif resolution == "static":
        vips = (f"{name}.{namespace}",)  # Kubernetes gives it an address of its own, which a manifest written by hand does not know
    export = own.get("networking.istio.io/exportTo", "")
    return HostService(
        hostname=names.service_host(name, namespace),
        namespace=namespace,
        name=name,
        created=svc.created,
        ports=tuple([HostPort(p.port, p.name, port_protocol(p), p.target_port) for p in spec.ports]),
        resolution=resolution,
        kubernetes=True,
        external=bool(external_name),
        export_to=frozenset(e.strip() for e in export.split(",")) if export else frozenset(),
        labels=svc.labels,
        selector=spec.selector,
        address=vips[0],
        sources=((cluster, svc.ref),),
        vips={cluster: vips},
        external_name=external_name,
        node_local=spec.internal_traffic_policy == "Local",
        traffic_distribution=traffic_distribution(spec.traffic_distribution, own, namespace_annotations),
    )


_RESOLUTION: Mapping[str, Resolution] = {
    "NONE": "none",
    "DNS": "dns",
    "DNS_ROUND_ROBIN": "dns_round_robin",
    "STATIC": "static",
    "DYNAMIC_DNS": "dynamic_dns",
}


def from_entry(entry: ServiceEntry, cluster: str, namespace_annotations: Mapping[str, str]) -> Iterator[HostService]:
    """The services of a ServiceEntry: one for each host and address (serviceentry.convertServices)."""
    spec = entry.spec
    resolution = _RESOLUTION.get(spec.resolution, "none")
    ports = tuple(HostPort(p.number, p.name, protocol(p.protocol)) for p in spec.ports or ())
    overrides = {p.number: p.target_port for p in spec.ports or () if resolution == "none" and p.target_port}
    addresses = [a for a in map(_address, spec.addresses or ()) if a] if spec.addresses else [UNSPECIFIED]
    for host in spec.hosts or ():
        for address in addresses:
            yield HostService(
                hostname=host,
                namespace=entry.namespace,
                name=host,
                created=entry.created,
                ports=ports,
                resolution=resolution,
                kubernetes=False,
                external=spec.location != "MESH_INTERNAL",
                export_to=frozenset(spec.export_to or ()),
                labels=entry.labels,
                selector=spec.workload_selector.wanted if spec.workload_selector else None,
                address=address,
                sources=((cluster, entry.ref),),
                traffic_distribution=traffic_distribution(None, entry.annotations, namespace_annotations),
                target_overrides=overrides,
                subject_alt_names=spec.subject_alt_names or (),
            )


def _address(text: str) -> str:
    if names.is_ip(text):
        return text
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else text


def augment(labels: Mapping[str, str], cluster: str, locality: str, node: str, network: str) -> dict[str, str]:
    """Endpoint labels with the topology labels that istiod adds (serviceregistry/util/label)."""
    return {**labels, **topology(labels, cluster, locality, node, network)}


def topology(labels: Mapping[str, str], cluster: str, locality: str, node: str, network: str) -> Mapping[str, str]:
    """The topology labels that istiod adds to an endpoint's own."""
    return _topology(cluster, locality, node, "" if labels.get(NETWORK) else network)


@lru_cache(maxsize=1 << 14)
def _topology(cluster: str, locality: str, node: str, network: str) -> dict[str, str]:
    region, zone, subzone = split_locality(locality)
    found = {REGION: region, ZONE: zone, SUBZONE: subzone, CLUSTER: cluster, NODE: node, NETWORK: network}
    return {key: value for key, value in found.items() if value}


def split_locality(locality: str) -> tuple[str, str, str]:
    """region, zone, subzone of `r/z/s`."""
    parts = [*locality.split("/"), "", ""]
    return parts[0], parts[1], parts[2]


def locality_match(locality: str, rule: str) -> bool:
    """Whether a locality is meant by a rule such as `r1/*` (networking/util.LocalityMatch)."""
    region, zone, subzone = split_locality(locality)
    wanted_region, wanted_zone, wanted_subzone = split_locality(rule)
    return wanted_region in {"*", region} and wanted_zone in {"*", "", zone} and wanted_subzone in {"*", "", subzone}


def locality_label(labels: Mapping[str, str]) -> str:
    """The locality that label `istio-locality` says, dots for slashes when it has no slash."""
    text = labels.get("istio-locality")
    if not text:
        return ""
    return text if "/" in text else text.replace(".", "/")


def is_healthy(entry: WorkloadEntry) -> bool:
    """Whether a WorkloadEntry is an instance: always without health checks, else when condition Healthy is True."""
    if entry.annotations.get("proxy.istio.io/health-checks-enabled", "") not in TRUE:
        return True
    return any(c.type == "Healthy" and c.status == "True" for c in entry.status.conditions or ())


@dataclass(slots=True, eq=False)
class WorkloadInstance:
    """A WorkloadEntry, an inline endpoint or a pod that a ServiceEntry selects: an endpoint without a port yet."""

    endpoint: IstioEndpoint
    ports: Mapping[str, int]
    namespace: str
    name: str
    kind: Literal["pod", "entry"]
    dns_only: bool = False

    def serve(self, entry: ServiceEntry) -> Iterator[IstioEndpoint]:
        """One endpoint for each port of the ServiceEntry (convertWorkloadInstanceToServiceInstance)."""
        for p in entry.spec.ports or ():
            unix = self.endpoint.address.startswith("unix://")
            port = 0 if unix else self.ports.get(p.name, 0) or p.target_port or p.number
            yield self.endpoint.copy(port=port, port_name=p.name, legacy_port=p.number)


def entry_instance(
    spec: EntryEndpoint, labels: Mapping[str, str], namespace: str, name: str, cluster: str, network: str
) -> WorkloadInstance:
    """A WorkloadEntry's spec, or an inline endpoint, as a WorkloadInstance."""
    locality = spec.locality or locality_label(labels)
    tls = labels.get(TLS_MODE) or ("istio" if spec.service_account else "disabled")
    endpoint = IstioEndpoint(
        address=spec.address,
        port=0,
        port_name="",
        own=labels,
        topology=topology(labels, cluster, locality, "", spec.network or network),
        network=spec.network,
        cluster=cluster,
        locality=locality,
        health="healthy",
        tls=tls == "istio",
        workload=name,
        namespace=namespace,
    )
    return WorkloadInstance(
        endpoint, spec.ports or {}, namespace, name, "entry", dns_only=bool(spec.address) and not names.is_ip(spec.address)
    )


def pod_instance(pod: Pod, endpoint: IstioEndpoint) -> WorkloadInstance:
    """A ready pod as a WorkloadInstance."""
    return WorkloadInstance(endpoint, pod.declared, pod.namespace, pod.name, "pod")


def oldest_first(services: Iterable[HostService]) -> list[HostService]:
    """Istiod's order of services: creation, then name, then namespace."""
    return sorted(services, key=lambda s: (s.created, s.name, s.namespace))
