"""Which waypoint serves a Service or a ServiceEntry: what its labels ask for, and what istiod grants.

Rules: pilot/pkg/serviceregistry/ambient/{waypoints,services,ambientindex}.go in istio/istio. Only objects of the control plane's own cluster
count (ambient's multi-network mode is off by default).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from checks import names
from checks.registry import TRUE
from checks.resources import APIGateway, GatewayClass, Listener, Namespace, Pod, Resource, Service, ServiceEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from checks.istiod import Istiod

USE = "istio.io/use-waypoint"
CANARY = "istio.io/use-waypoint-canary"
CANARY_WEIGHT = "istio.io/use-waypoint-canary-weight"
WAYPOINT_FOR = "istio.io/waypoint-for"
INGRESS = "istio.io/ingress-use-waypoint"
BINDING = "ambient.istio.io/waypoint-inbound-binding"
MANAGED = "gateway.istio.io/managed"
_UNATTACHABLE = frozenset({"istio.io-mesh-controller", "istio.io-eastwest-controller"})
HBONE_PORT, _HUNDRED = 15008, 100

Refusal = Literal["not ready", "namespace not allowed", "traffic type", "private"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a Service's or ServiceEntry's labels come to: `wanted` is `namespace/name` of the waypoint that they name, `waypoints` those that serve it.

    Without refusal the first is the wanted one, a second its canary. `labelled` is the object whose label decided.
    """

    wanted: str = ""
    labelled: Resource | None = None
    waypoints: tuple[APIGateway, ...] = ()
    refused: Refusal | None = None
    canary: int = 0
    """The percentage of connections that is for the second waypoint."""
    ingress: bool = False
    """Whether gateways go through the waypoint as well."""

    @property
    def chosen(self) -> tuple[APIGateway, ...]:
        """The waypoints that get connections (EndpointBuilder.weightedWaypointEndpoints)."""
        return tuple(w for w, share in zip(self.waypoints, (_HUNDRED - self.canary, self.canary), strict=False) if share)


@dataclass(frozen=True, slots=True)
class Attachments:
    """The attachment of each (host, namespace), and the hosts behind each waypoint address: `namespace/hostname`, or an IP address."""

    of: Mapping[tuple[str, str], Attachment]
    behind: Mapping[str, tuple[tuple[str, str], ...]]


def attach(istiod: Istiod) -> Attachments:
    """Every attachment of a control plane: of several objects of one host and namespace the Service's, else the oldest's (selectWorkloadServices)."""
    waypoints = {(g.namespace, g.name): g for g in istiod.all(APIGateway) if isinstance(g, APIGateway) and g.status.addresses}
    classes = {c.name: c for c in istiod.all(GatewayClass) if isinstance(c, GatewayClass)}
    spaces = {name for name, n in istiod.namespaces.items() if USE in n.labels}
    if not spaces and not any(USE in o.labels for kind in (Service, ServiceEntry) for o in istiod.all(kind)):
        return Attachments({}, {})  # nothing asks for one
    winners: dict[tuple[str, str], Resource] = {}
    for host, o in _hosts(istiod):
        known = winners.get((host, o.namespace))
        if known is None or isinstance(o, Service) or (not isinstance(known, Service) and o.created < known.created):
            winners[host, o.namespace] = o
    of: dict[tuple[str, str], Attachment] = {}
    behind: dict[str, list[tuple[str, str]]] = {}
    for key, o in winners.items():
        found = _Asking(o, istiod, waypoints, classes).attachment()
        if not found.wanted:
            continue
        of[key] = found
        for w in found.waypoints:
            behind.setdefault(_address(w), []).append(key)
    return Attachments(of, {address: tuple(keys) for address, keys in behind.items() if address})


def attach_pod(istiod: Istiod, pod: Pod) -> Attachment:
    """What a pod's own label comes to (fetchWaypointForWorkload); one that its namespace's asks for is its services'."""

    def index() -> tuple[dict[tuple[str, str], APIGateway], dict[str, GatewayClass]]:
        gateways = {(g.namespace, g.name): g for g in istiod.all(APIGateway) if isinstance(g, APIGateway) and g.status.addresses}
        return gateways, {c.name: c for c in istiod.all(GatewayClass) if isinstance(c, GatewayClass)}

    if USE not in pod.labels:
        return Attachment()
    return _Asking(pod, istiod, *istiod.once("waypoints", index), traffic=frozenset({"workload", "all"})).attachment()


def _hosts(istiod: Istiod) -> Iterator[tuple[str, Resource]]:
    for s in istiod.all(Service):
        if isinstance(s, Service) and s.spec.type != "ExternalName":  # ambient does not know such
            yield names.service_host(s.name, s.namespace), s
    for e in istiod.all(ServiceEntry):
        if isinstance(e, ServiceEntry) and _shown(istiod, e) != "NONE":
            for host in e.spec.hosts or ():
                yield host, e


def _shown(istiod: Istiod, entry: ServiceEntry) -> str:
    """How far the ambient mesh may see a ServiceEntry at most (ambient/services.go serviceEntriesInfo)."""
    around = istiod.namespaces.get(entry.namespace)
    return istiod.config.ambient_visibility(around.labels if around else {}) if istiod.plane.shapes_by_mesh else "PUBLIC"


@dataclass(frozen=True, slots=True)
class _Asking:
    """One object that asks for a waypoint, with what may grant it."""

    object: Resource
    istiod: Istiod
    waypoints: Mapping[tuple[str, str], APIGateway]
    classes: Mapping[str, GatewayClass]
    traffic: frozenset[str] = frozenset({"service", "all"})

    def attachment(self) -> Attachment:
        """What its own label says, else its namespace's; `none` on the object says no waypoint (fetchWaypointForService)."""
        o = self.object
        if o.labels.get(MANAGED) in _UNATTACHABLE or o.labels.get(USE) == "none":
            return Attachment()
        namespace = self.istiod.namespaces.get(o.namespace)
        labelled = o if USE in o.labels else namespace
        wanted = self._named(labelled, USE) if labelled is not None else None
        if wanted is None:
            return Attachment()
        name = "/".join(wanted)
        refused = self._refused(wanted)
        if refused is not None:
            return Attachment(name, labelled, refused=refused)
        ingress = o.labels.get(INGRESS) or (namespace.labels.get(INGRESS, "") if namespace is not None and INGRESS not in o.labels else "")
        served = Attachment(name, labelled, (self.waypoints[wanted],), ingress=ingress in TRUE)
        canary, weight = self._canary(None if USE in o.labels else namespace)
        if canary is None or canary == wanted or self._refused(canary) is not None:
            return served
        return replace(served, waypoints=(*served.waypoints, self.waypoints[canary]), canary=weight)

    def _named(self, labelled: Resource, label: str) -> tuple[str, str] | None:
        name = labelled.labels.get(label, "none")
        if name == "none":
            return None
        return labelled.labels.get(f"{label}-namespace", self.object.namespace), name

    def _canary(self, namespace: Namespace | None) -> tuple[tuple[str, str] | None, int]:
        """The canary that takes a percentage of its connections, even when that is 0 (ResolveUseWaypointCanary)."""
        levels = [r for r in (self.object, namespace) if r is not None]
        labelled = next((r for r in levels if CANARY in r.labels), None)
        weight = next((r.annotations[CANARY_WEIGHT] for r in levels if CANARY_WEIGHT in r.annotations), "0")
        if (
            not self.istiod.plane.canary_waypoints
            or labelled is None
            or not labelled.labels[CANARY]
            or not weight.isdigit()
            or int(weight) > _HUNDRED
        ):
            return None, 0
        return self._named(labelled, CANARY), int(weight)

    def _refused(self, wanted: tuple[str, str]) -> Refusal | None:
        """Why a waypoint does not take it: no such Gateway with an address, allowedRoutes, or istio.io/waypoint-for."""
        waypoint = self.waypoints.get(wanted)
        if waypoint is None:
            return "not ready"
        if not self._allows(waypoint):
            return "namespace not allowed"
        its_class = self.classes.get(waypoint.spec.gateway_class_name)
        traffic = its_class.labels.get(WAYPOINT_FOR, "service") if its_class else "service"
        if waypoint.labels.get(WAYPOINT_FOR, traffic) not in self.traffic:
            return "traffic type"
        own = self.object
        private = isinstance(own, ServiceEntry) and own.namespace != waypoint.namespace and _shown(self.istiod, own) == "NAMESPACE"
        return "private" if private else None

    def _allows(self, waypoint: APIGateway) -> bool:
        listener = self._listener(waypoint)
        allowed = listener.allowed_routes.namespaces if listener and listener.allowed_routes else None
        own = self.object.namespace
        if allowed is not None and allowed.from_ == "All":
            return True
        if allowed is not None and allowed.from_ == "Selector":
            found = self.istiod.namespaces.get(own)
            labels = {"kubernetes.io/metadata.name": own, **found.labels} if found else {}
            return allowed.selector is not None and allowed.selector.matches(labels)
        return waypoint.namespace == own

    def _listener(self, waypoint: APIGateway) -> Listener | None:
        """The listener whose allowedRoutes count: the one that the inbound binding names, else HBONE's (makeAllowedRoutes)."""
        binding = bound_to(waypoint, self.classes)
        if binding is not None:
            protocol, port = binding
            number = int(port) if port.isdigit() else 0
            for li in waypoint.spec.listeners:
                if (li.port == number) if number else (protocol == "PROXY" and li.protocol == "istio.io/PROXY"):
                    return li
        return next((li for li in waypoint.spec.listeners if li.protocol == "HBONE" and li.port == HBONE_PORT), None)


def bound_to(waypoint: APIGateway, classes: Mapping[str, GatewayClass]) -> tuple[str, str] | None:
    """Protocol and port at which ztunnel hands calls over to a waypoint that takes no HBONE itself, by its annotation or its class's (makeInboundBinding)."""
    its_class = classes.get(waypoint.spec.gateway_class_name)
    protocol, _, port = (waypoint.annotations.get(BINDING) or (its_class.annotations.get(BINDING, "") if its_class else "")).partition("/")
    return (protocol, port) if protocol in {"NONE", "PROXY"} and "/" not in port else None


def entered(istiod: Istiod) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """The hosts of the waypoints through which gateways call a service, by its (host, namespace) (ServicesWithWaypoint, EndpointBuilder.findServiceWaypoint)."""
    asking = {key: a for key, a in istiod.attachments.of.items() if a.ingress} if istiod.plane.enters_waypoints else {}
    waypoints = {w.ref: w for a in asking.values() for w in a.waypoints}
    hosts = {ref: _host(istiod, w) for ref, w in waypoints.items()}
    return {key: tuple(h for w in a.chosen if (h := hosts[w.ref])) for key, a in asking.items() if hosts[a.waypoints[0].ref]}


def _host(istiod: Istiod, waypoint: APIGateway) -> str:
    """The host behind a waypoint's address (resolveWaypointHostname)."""
    at = _address(waypoint)
    if "/" in at:
        return at.partition("/")[2]
    services = (s for s in istiod.all(Service) if isinstance(s, Service) and at in {s.spec.cluster_ip, *s.spec.cluster_ips})
    return next((names.service_host(s.name, s.namespace) for s in services), "") if at else ""


def _address(waypoint: APIGateway) -> str:
    """What a waypoint is known by: the hostname of its status, else its IP address (getGatewayAddress)."""
    addresses = waypoint.status.addresses or ()
    for a in addresses:
        if a.type == "Hostname":
            return f"{waypoint.namespace}/{a.value}"
    return next((a.value for a in addresses if a.type == "IPAddress" and names.is_ip(a.value)), "")
