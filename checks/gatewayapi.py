"""Gateway API objects in the form of Istio's own: Gateways with servers, routes as rulesets.

Rules: pilot/pkg/config/kube/gateway/{conversion,route_collections,gateway_collection}.go in istio/istio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec.structs import replace

from checks import names
from checks.resources import (
    KIND_OF,
    APIGateway,
    APIGRPCRoute,
    APIHTTPRoute,
    APIRoute,
    APIRouteMatch,
    APIRouteRule,
    APITCPRoute,
    APITLSRoute,
    BackendRef,
    CustomResourceDefinition,
    EntryPort,
    GatewayClass,
    HTTPMatch,
    L4Match,
    Listener,
    MethodMatch,
    ParentReference,
    ReferenceGrant,
    Resource,
    Server,
    ServerTLS,
    Service,
    ServiceEntry,
    StringMatch,
    TargetReference,
)
from checks.rulesets import L4Rule, Rule, RuleSet, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.istiod import Istiod

_R = TypeVar("_R", bound=Resource)

GROUP = "gateway.networking.k8s.io"
POOL = "istio.io/inferencepool-name"
ZERO_WEIGHT = "zero-weight"
_TERMINATE = "gateway.istio.io/tls-terminate-mode"
_MODES = frozenset({"MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"})
"""What a listener's option may ask for in place of SIMPLE (gateway/conversion.go, buildTLS)."""
WAYPOINT_CONTROLLER = "istio.io/mesh-controller"
CONTROLLERS = {
    "istio": "istio.io/gateway-controller",
    "istio-remote": "istio.io/unmanaged-gateway",
    "istio-waypoint": WAYPOINT_CONTROLLER,
    "istio-east-west": "istio.io/eastwest-controller",
}
_DEFAULT_KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TCP": ("TCPRoute",),
    "TLS": ("TLSRoute", "TCPRoute"),
}


_BUNDLE = "gateway.networking.k8s.io/bundle-version"
_OLDEST: Mapping[type[Resource], tuple[int, int, int]] = {APIGRPCRoute: (1, 1, 0), APITLSRoute: (1, 5, 0), APITCPRoute: (1, 6, 0)}
"""The release of the Gateway API from which istiod reads a kind (pkg/config/schema/gatewayapi/minimumversions.go)."""
_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class BoundGateway:
    """A Gateway, Istio's or one listener of the Gateway API's, as proxies are matched with it. `services` are the hosts of its workload."""

    name: str
    namespace: str
    created: str
    servers: tuple[Server, ...]
    ref: str
    services: tuple[str, ...] | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True)
class _Parent:
    """One listener as a route sees it; `name` is `mesh` for a Service."""

    name: str
    kinds: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    hostname: str = ""
    section: str = ""
    port: int = 0
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """A parent that a route names and does not get, and why."""

    route: str
    parent: str
    reason: str


@dataclass(frozen=True, slots=True)
class Converted:
    """Gateways and routes in Istio's form, and the attachments that were refused."""

    rulesets: tuple[RuleSet, ...]
    gateways: tuple[BoundGateway, ...]
    denied: tuple[Denied, ...]
    unread: Mapping[type[APIRoute], str]
    """The kinds of routes that istiod does not read, each with the reason."""


class _Invalid(Exception):
    """A rule that cannot be converted: the whole route gives nothing."""


def _has_said(route: APIRoute) -> bool:
    """Whether a controller of Istio's has written the status of a route."""
    return any(p.controller_name.startswith(("istio.io/", "openshift.io/")) for p in route.status.parents or ())


def convert(istiod: Istiod) -> Converted:
    """Everything of Gateway API that a control plane has."""
    return _Converter(istiod).run()


def controller(istiod: Istiod, class_name: str) -> str:
    """The controller of a GatewayClass, by the object or by istiod's built-in names; empty for other vendors' unknown classes."""
    for c in istiod.all(GatewayClass):
        if isinstance(c, GatewayClass) and c.name == class_name:
            return c.spec.controller_name
    return CONTROLLERS.get(class_name, "")


class _Converter:
    def __init__(self, istiod: Istiod) -> None:
        self.istiod = istiod
        self.services = {(s.namespace, s.name): s for _, s in istiod.kubernetes}
        # istiod makes a Service of each InferencePool (inferencepool_collection.go)
        self.pools = (
            {(s.namespace, s.labels[POOL]): s.name for s in self.services.values() if POOL in s.labels} if istiod.plane.inference else {}
        )
        self.entries = {(e.namespace, e.name): e for e in self._all(ServiceEntry)}
        self.grants = self._all(ReferenceGrant)
        self.parents: dict[tuple[str, str], list[_Parent]] = {}
        self.denied: list[Denied] = []
        self.unread: dict[type[APIRoute], str] = {}

    def _all(self, kind: type[_R]) -> list[_R]:
        return cast("list[_R]", self.istiod.all(kind))

    def run(self) -> Converted:
        gateways = [g for gw in self._all(APIGateway) for g in self._gateway(gw)]
        self.unread = {kind: why for kind in (APIGRPCRoute, APITLSRoute, APITCPRoute) if (why := self._unread(kind))}
        keyed: dict[str, list[RuleSet]] = {}
        for kind in (APIHTTPRoute, APIGRPCRoute):
            for route in self._all(kind):
                for key, ruleset in self._http_route(route, "GRPCRoute" if kind is APIGRPCRoute else "HTTPRoute"):
                    keyed.setdefault(key, []).append(ruleset)
        rulesets = [_merge(key, group) for key, group in keyed.items()]
        for route in self._all(APITCPRoute):
            rulesets += self._tcp_route(route)
        for route in self._all(APITLSRoute):
            rulesets += self._tls_route(route)
        return Converted(tuple(rulesets), tuple(gateways), tuple(self.denied), self.unread)

    # --- gateways -----------------------------------------------------------------------------------------------------------

    def _gateway(self, gw: APIGateway) -> Iterator[BoundGateway]:
        control = controller(self.istiod, gw.spec.gateway_class_name)
        if control not in CONTROLLERS.values() or control in {WAYPOINT_CONTROLLER, "istio.io/unmanaged-gateway"}:
            return
        managed, services = self._gateway_services(gw)
        for li in gw.spec.listeners:
            if control == "istio.io/eastwest-controller" and li.port == 15008:
                continue
            if li.protocol in {"HTTPS", "TLS"} and li.tls is None:
                continue
            if li.protocol not in {"HTTP", "HTTPS", "TLS", "TCP"}:
                continue
            hosts = self._listener_hosts(gw.namespace, li)
            tls = None
            if li.tls is not None:
                credential = li.tls.certificate_refs[0].name if li.tls.certificate_refs else ""
                asked = (li.tls.options or {}).get(_TERMINATE, "")
                mode = "PASSTHROUGH" if li.tls.mode == "Passthrough" else asked if asked in _MODES else "SIMPLE"
                tls = ServerTLS(mode=mode, credential_name="" if mode == "ISTIO_MUTUAL" else credential)
            name = f"{gw.name}~istio-autogenerated-k8s-gateway~{li.name}"
            server = Server(port=EntryPort(number=li.port, name="default", protocol=li.protocol), hosts=hosts, tls=tls)
            yield BoundGateway(f"{gw.namespace}/{name}", gw.namespace, gw.created, (server,), gw.ref, services, managed)
            kinds = tuple(k.kind for k in (li.allowed_routes.kinds or ()) if k.group in (None, GROUP)) if li.allowed_routes else ()
            allowed = tuple(k for k in kinds or _DEFAULT_KINDS[li.protocol] if k in _DEFAULT_KINDS[li.protocol])
            parent = _Parent(f"{gw.namespace}/{name}", allowed, hosts, li.hostname or "", li.name, li.port, li.protocol)
            self.parents.setdefault((gw.namespace, gw.name), []).append(parent)

    def _gateway_services(self, gw: APIGateway) -> tuple[bool, tuple[str, ...]]:
        """Whether istiod deploys the gateway itself, and the hosts of its Services (extractGatewayServices)."""
        addresses = gw.spec.addresses or ()
        if not addresses or (len(addresses) == 1 and addresses[0].type != "Hostname"):
            name = gw.annotations.get("gateway.istio.io/name-override") or f"{gw.name}-{gw.spec.gateway_class_name}"
            return True, (names.service_host(name, gw.namespace),)
        hosts = (a.value for a in addresses if a.type == "Hostname")
        return False, tuple(h if "." in h else names.service_host(h, gw.namespace) for h in hosts)

    def _listener_hosts(self, namespace: str, li: Listener) -> tuple[str, ...]:
        host = li.hostname or "*"
        allowed = li.allowed_routes.namespaces if li.allowed_routes else None
        if allowed is None or allowed.from_ == "Same":
            spaces = [namespace]
        elif allowed.from_ == "All" or allowed.selector is None:
            spaces = ["*"]
        else:
            spaces = sorted(
                n.name
                for n in self.istiod.namespaces.values()
                if allowed.selector.matches({"kubernetes.io/metadata.name": n.name, **n.labels})
            )
        return tuple(f"{ns}/{host}" for ns in spaces) or (f"~/{host}",)

    # --- parents ------------------------------------------------------------------------------------------------------------

    def _unread(self, kind: type[APIRoute]) -> str:
        """Why istiod does not read a kind of routes, for people; empty when it does.

        It passes over a CRD of a release that is too old for it, or that does not say its release (pkg/kube/kclient/crdwatcher.go,
        minimumVersionFilter). Where the CRD is not shown, the routes tell: istiod writes the status of each that it reads, so of a kind
        whose routes an API server keeps without any word of istiod's it reads none, unless only the statuses are not shown.
        """
        oldest = _OLDEST[kind]
        written = ".".join(map(str, oldest))
        of = KIND_OF[kind]
        crd = next((c for c in self._all(CustomResourceDefinition) if c.name == of.key), None)
        if crd is not None and (kind is APIGRPCRoute or self.istiod.plane.newest):
            bundle = crd.annotations.get(_BUNDLE, "")
            release = _RELEASE.match(bundle)
            if release is not None and tuple(map(int, release.groups())) >= oldest:
                return ""
            said = f"is of Gateway API {bundle}" if bundle else f"does not say {_BUNDLE}"
            return f"istiod reads no {of.kind}: CRD {crd.name} {said}, and istiod wants {written} or newer"
        mine = [r for r in self._all(kind) if r.metadata.uid and any(self._known(r, ref) for ref in r.spec.parent_refs or ())]
        if not mine or not self.istiod.plane.writes_status or any(_has_said(r) for r in mine) or not self._telling():
            return ""
        return f"istiod has written no status on any {of.kind}, so it reads none: their CRD may be older than Gateway API {written}"

    def _telling(self) -> bool:
        """Whether silence on a kind of routes tells something: istiod's word is on other routes, or not even on a Gateway."""
        kinds: tuple[type[APIRoute], ...] = (APIHTTPRoute, APIGRPCRoute, APITLSRoute, APITCPRoute)
        if any(_has_said(r) for kind in kinds for r in self._all(kind)):
            return True
        gateways = self._all(APIGateway)
        return bool(gateways) and not any(g.status.conditions or g.status.addresses for g in gateways)

    def _known(self, route: APIRoute, ref: ParentReference) -> bool:
        """Whether istiod knows the parent that a route names: a Gateway of its own, a Service, a ServiceEntry."""
        key = ref.namespace or route.namespace, ref.name
        if (ref.group, ref.kind) == (GROUP, "Gateway"):
            return key in self.parents
        return key in self.entries if ref.kind == "ServiceEntry" else key in self.services

    def _attached(self, route: APIRoute, kind: str) -> list[tuple[_Parent, ParentReference, list[_Parent]]]:
        """The parents that a route gets, in istiod's order (extractParentReferenceInfo, filteredReferences)."""
        if reason := self.unread.get(type(route)):
            refused = [r for r in route.spec.parent_refs or () if self._known(route, r)]
            self.denied += [Denied(route.ref, f"{r.kind} {r.namespace or route.namespace}/{r.name}", reason) for r in refused]
            return []
        out: list[tuple[_Parent, ParentReference, list[_Parent]]] = []
        for ref in route.spec.parent_refs or ():
            ns = ref.namespace or route.namespace
            if (ref.group, ref.kind) == (GROUP, "Gateway"):
                around = self.parents.get((ns, ref.name), [])
                for parent in around:
                    reason = self._refused(route, kind, ref, parent)
                    if reason:
                        self.denied.append(Denied(route.ref, f"Gateway {ns}/{ref.name}", reason))
                    else:
                        out.append((parent, ref, around))
            elif ref.kind in {"Service", "ServiceEntry"}:
                known = self.services if ref.kind == "Service" else self.entries
                if (ns, ref.name) in known:
                    out.append((_Parent("mesh", ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")), ref, []))
                else:
                    self.denied.append(Denied(route.ref, f"{ref.kind} {ns}/{ref.name}", f"{ref.kind} {ns}/{ref.name} does not exist"))
        return sorted(out, key=lambda p: p[0].name)

    @staticmethod
    def _refused(route: APIRoute, kind: str, ref: ParentReference, parent: _Parent) -> str:
        if ref.port and ref.port != parent.port:
            return f"port {ref.port} is no listener's"
        if ref.section_name and ref.section_name != parent.section:
            return f"there is no listener {ref.section_name}"
        allowed_space = matched = False
        for host in route.spec.hostnames or ("*",):
            for where in parent.hosts:
                ns, _, own = where.rpartition("/")
                if names.matches(own, host):
                    matched = True
                    allowed_space = allowed_space or ns in {"", "*", route.namespace}
        if not matched:
            return f"no hostname of the route fits {parent.hostname or '*'}"
        if not allowed_space:
            return f"namespace {route.namespace} is not allowed"
        return "" if kind in parent.kinds else f"routes of kind {kind} are not allowed"

    @staticmethod
    def _isolated(parent: _Parent, around: list[_Parent], host: str) -> bool:
        """Whether another listener of the same port claims a host more closely (hostnameAllowedByIsolation)."""
        own = parent.hostname
        if own and not names.is_wildcard(own):
            return False
        if own and not names.matches(host, own):
            return True
        banned = {p.hostname for p in around if p is not parent and (p.port, p.protocol) == (parent.port, parent.protocol)} - {own}
        return any(len(own) <= len(b) and names.subset_of(host, b) for b in banned)

    # --- routes -------------------------------------------------------------------------------------------------------------

    def _mesh_hosts(self, route: APIRoute, ref: ParentReference) -> tuple[str, ...]:
        ns = ref.namespace or route.namespace
        if ref.kind == "ServiceEntry":
            entry = self.entries.get((ns, ref.name))
            return (entry.spec.hosts or ()) if entry else ()
        return (names.service_host(ref.name, ns),)

    def _ruleset(self, route: APIRoute, name: str, host: str, gateway: str) -> RuleSet:
        default = self.istiod.config.default_virtual_service_export_to or ("*",)
        return RuleSet(
            ref=route.ref,
            namespace=route.namespace,
            name=name,
            created=route.created,
            hosts=(host,),
            gateways=(gateway,),
            export_to=names.export_set(default, route.namespace),
            gateway_api=True,
            kind="HTTPRoute",
        )

    def _http_route(self, route: APIRoute, kind: str) -> Iterator[tuple[str, RuleSet]]:
        attached = self._attached(route, kind)
        try:
            rules = {mesh: self._rules(route, kind, enforce=not mesh) for mesh in {p.name == "mesh" for p, _, _ in attached}}
        except _Invalid as error:
            self.denied.append(Denied(route.ref, "", str(error)))
            return
        for parent, ref, around in attached:
            mesh = parent.name == "mesh"
            mine = rules[mesh]
            key = route.namespace if mesh else parent.name
            hosts = self._mesh_hosts(route, ref) if mesh else route.spec.hostnames or ("*",)
            if mesh and ref.port:
                mine = [replace(r, matches=tuple(replace(m, port=ref.port) for m in r.matches or (HTTPMatch(),))) for r in mine]
                key += f"/{ref.port}"
            if not mine:
                continue
            for host in hosts:
                if not mesh and self._isolated(parent, around, host):
                    continue
                one = f"{key}/{host}"
                yield one, replace(self._ruleset(route, one.replace("/", "~"), host, parent.name), http=tuple(_sorted(mine)))

    def _rules(self, route: APIRoute, kind: str, *, enforce: bool) -> list[Rule]:
        """One rule for each match of each rule, in writing order (convertHTTPRoute)."""
        out: list[Rule] = []
        for i, r in enumerate(route.spec.rules or ()):
            path = f"spec.rules[{i}]"
            redirect = any(f.type == "RequestRedirect" for f in r.filters or ())
            targets = tuple(self._targets(route, kind, r, path, enforce=enforce))
            action = "redirect" if redirect else "route"
            if not redirect and sum(_weight(b) for b in r.backend_refs or ()) == 0:
                action, targets = "direct_response 500", ()
            for m in r.matches or (None,):
                matches = (_match(m, kind),) if m is not None else ()
                name = r.name or f"{route.namespace}.{route.name}.{i}"
                out.append(Rule(name, path, route.ref, matches, targets, action))
        return out

    def _targets(self, route: APIRoute, kind: str, rule: APIRouteRule, path: str, *, enforce: bool) -> Iterator[Target]:
        for i, b in enumerate(rule.backend_refs or ()):
            if _weight(b):
                yield self._target(route, kind, b, f"{path}.backendRefs[{i}]", enforce=enforce)

    def _target(self, route: APIRoute, kind: str, b: BackendRef, path: str, *, enforce: bool) -> Target:
        invalid = Target("", "", None, _weight(b), path)
        ns = b.namespace or route.namespace
        if enforce and b.namespace and b.namespace != route.namespace and not granted(self.grants, route, kind, b):
            return invalid
        if (b.group, b.kind) == ("networking.istio.io", "Hostname"):
            if b.namespace:
                raise _Invalid("namespace may not be set with Hostname")
            host = b.name
        elif (b.group, b.kind) == ("", "Service"):
            if "." in b.name:
                raise _Invalid(f"backend {b.name} must be a Service's name, not a host")
            host = names.service_host(b.name, ns)
        elif (b.group, b.kind) == ("multicluster.x-k8s.io", "ServiceImport"):
            # without hosts in clusterset.local a Service is for all clusters anyway (gateway/conversion.go buildDestination)
            host = (names.clusterset_host if self.istiod.plane.mcs_host else names.service_host)(b.name, ns)
        elif (b.group, b.kind) == ("inference.networking.k8s.io", "InferencePool") and self.istiod.plane.inference:
            shadow = self.services.get((ns, self.pools.get((ns, b.name), "")))
            if shadow is None or not shadow.spec.ports:
                return invalid
            return Target(names.service_host(shadow.name, ns), "", shadow.spec.ports[0].port, _weight(b), path)
        else:
            return invalid
        if b.port is None:
            raise _Invalid(f"backend {b.name} needs a port")
        return Target(host, "", b.port, _weight(b), path)

    def _l4(self, route: APIRoute, kind: str, *, enforce: bool) -> list[tuple[str, tuple[Target, ...]]]:
        try:
            return [
                (
                    f"spec.rules[{i}]",
                    tuple(self._targets(route, kind, r, f"spec.rules[{i}]", enforce=enforce)) or _nobody(f"spec.rules[{i}]"),
                )
                for i, r in enumerate(route.spec.rules or ())
            ]
        except _Invalid as error:
            self.denied.append(Denied(route.ref, "", str(error)))
            return []

    def _tcp_route(self, route: APIRoute) -> Iterator[RuleSet]:
        for n, (parent, ref, _) in enumerate(self._attached(route, "TCPRoute")):
            mesh = parent.name == "mesh"
            match = (L4Match(port=ref.port),) if mesh and ref.port else ()
            rules = tuple(L4Rule(path, match, targets) for path, targets in self._l4(route, "TCPRoute", enforce=not mesh))
            for host in self._mesh_hosts(route, ref) if mesh else ("*",):
                yield replace(self._ruleset(route, f"{route.name}~tcp~{n}", host, parent.name), tcp=rules, kind="TCPRoute")

    def _tls_route(self, route: APIRoute) -> Iterator[RuleSet]:
        for n, (parent, ref, _) in enumerate(self._attached(route, "TLSRoute")):
            mesh = parent.name == "mesh"
            hosts: Iterable[str] = self._mesh_hosts(route, ref) if mesh else route.spec.hostnames or ("*",)
            if not mesh and parent.hostname:
                hosts = names.intersection(hosts, [parent.hostname])
            sni = tuple(hosts)
            match = L4Match(sni_hosts=sni, port=ref.port or 0 if mesh else 0)
            rules = tuple(L4Rule(path, (match,), targets) for path, targets in self._l4(route, "TLSRoute", enforce=not mesh))
            for host in sni:
                yield replace(self._ruleset(route, f"{route.name}~tls~{n}", host, parent.name), tls=rules, kind="TLSRoute")


def granted(grants: Iterable[ReferenceGrant], by: Resource, kind: str, b: BackendRef | TargetReference) -> bool:
    """Whether a ReferenceGrant in a backend's or Secret's namespace lets a route or Gateway (`kind`) of the Gateway API refer to it."""
    for g in grants:
        if g.namespace != b.namespace:
            continue
        sources = any((f.group, f.kind, f.namespace) == (GROUP, kind, by.namespace) for f in g.spec.from_)
        if sources and any((t.group, t.kind) == (b.group, b.kind) and t.name in (None, "", b.name) for t in g.spec.to):
            return True
    return False


def _nobody(path: str) -> tuple[Target, ...]:
    """Where connections end of which no backend may have any: a cluster that does not exist (convertTCPRoute, convertTLSRoute)."""
    return (Target("internal.cluster.local", ZERO_WEIGHT, 65535, 0, f"{path}.backendRefs"),)


def _weight(b: BackendRef) -> int:
    return 1 if b.weight is None else b.weight


def _merge(key: str, group: list[RuleSet]) -> RuleSet:
    """All routes of one gateway (or consumer namespace) and host as one: the oldest's, with everybody's rules (mergeHTTPRoutes)."""
    ordered = sorted(group, key=lambda r: r.order)
    return replace(ordered[0], name=key.replace("/", "~"), http=tuple(_sorted([rule for r in ordered for rule in r.http])))


def _sorted(rules: list[Rule]) -> list[Rule]:
    """The more specific match first (sortHTTPRoutes)."""

    def key(rule: Rule) -> tuple[int, ...]:
        if not rule.matches:
            return (1,)
        m = rule.matches[0]
        rank, length = -1, 0
        if m.uri is not None:
            rank = 3 if m.uri.exact is not None else 2 if m.uri.prefix is not None else 1
            length = len(m.uri.exact or m.uri.prefix or m.uri.regex or "")
        return 0, -rank, -length, int(m.method is None), -len(m.headers or ()), -len(m.query_params or ())

    return sorted(rules, key=key)


def _match(m: APIRouteMatch, kind: str) -> HTTPMatch:
    headers = {h.name: _string(h.type, h.value) for h in m.headers or ()}
    query = {q.name: _string(q.type, q.value) for q in m.query_params or ()}
    method = StringMatch(exact=m.method) if isinstance(m.method, str) else None
    uri = _grpc_uri(m.method if isinstance(m.method, MethodMatch) else None) if kind == "GRPCRoute" else _uri(m)
    return HTTPMatch(uri=uri, headers=headers or None, query_params=query or None, method=method)


def _string(kind: str, value: str) -> StringMatch:
    return StringMatch(regex=value) if kind == "RegularExpression" else StringMatch(exact=value)


def _uri(m: APIRouteMatch) -> StringMatch:
    path = m.path
    if path is None:
        return StringMatch(prefix="/")
    match path.type:
        case "Exact":
            return StringMatch(exact=path.value)
        case "RegularExpression":
            return StringMatch(regex=path.value)
        case _:
            return StringMatch(prefix=path.value if path.value == "/" else path.value.removesuffix("/"))


def _grpc_uri(m: MethodMatch | None) -> StringMatch | None:
    if m is None:
        return None
    if m.type == "RegularExpression":
        return StringMatch(regex=f"/{m.service or '[^/]+'}/{m.method or '.+'}")
    if m.method is None:
        return StringMatch(prefix=f"/{m.service}/")
    if m.service is None:
        return StringMatch(regex=f"/[^/]+/{m.method}")
    return StringMatch(exact=f"/{m.service}/{m.method}")


__all__ = ["BoundGateway", "Converted", "Service", "convert"]
