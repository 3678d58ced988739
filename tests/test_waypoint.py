"""Waypoints: whom they serve and where they send, for the rules of which the oracle's meshes have no case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from checks import diagnosis, resources, routes
from checks.mesh import Cluster, Mesh

if TYPE_CHECKING:
    from checks.answers import Route

Json = dict[str, Any]
_KIND = {
    "Service": "v1",
    "Namespace": "v1",
    "Pod": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "VirtualService": "networking.istio.io/v1",
    "DestinationRule": "networking.istio.io/v1",
    "ServiceEntry": "networking.istio.io/v1",
    "Gateway": "gateway.networking.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
}
POD = {"gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "istio.io-mesh-controller"}
USE = {"istio.io/use-waypoint": "waypoint"}
HBONE = {"name": "mesh", "port": 15008, "protocol": "HBONE"}


def thing(kind: str, name: str, spec: Json | None = None, namespace: str = "shop", **metadata: Any) -> Json:
    status = metadata.pop("status", None)
    meta = {"name": name, "creationTimestamp": "2026-09-01T08:00:00Z", **metadata}
    if kind not in {"Namespace", "GatewayClass"}:
        meta["namespace"] = namespace
    return {"apiVersion": _KIND[kind], "kind": kind, "metadata": meta, "spec": spec or {}, "status": status or {}}


def service(name: str, namespace: str = "shop", port: Json | None = None, ip: str = "10.9.0.1", **metadata: Any) -> list[Json]:
    """A Service with one ready endpoint for each of v1 and v2."""
    one = {"name": "http", "port": 80, "targetPort": 8080, **(port or {})}
    pods: list[Json] = []
    endpoints: list[Json] = []
    for i, version in enumerate(("v1", "v2")):
        pod = thing("Pod", f"{name}-{version}", namespace=namespace, labels={"app": name, "version": version})
        pods.append({**pod, "status": {"podIP": f"10.1.0.{i}", "conditions": [{"type": "Ready", "status": "True"}]}})
        ref = {"kind": "Pod", "name": f"{name}-{version}", "namespace": namespace}
        endpoints.append({"addresses": [f"10.1.0.{i}"], "conditions": {"ready": True}, "targetRef": ref})
    piece = thing("EndpointSlice", name, namespace=namespace, labels={"kubernetes.io/service-name": name})
    spec = {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name}, "ports": [one]}
    slices = {"addressType": "IPv4", "ports": [{"name": one["name"], "port": 8080}], "endpoints": endpoints}
    return [thing("Service", name, spec, namespace, **metadata), {**piece, **slices}, *pods]


def waypoint(
    namespace: str = "shop", name: str = "waypoint", ip: str = "10.9.9.9", address: Json | None = None, **changes: Any
) -> list[Json]:
    """A waypoint: its Gateway, Service and pod."""
    own = {**POD, "gateway.networking.k8s.io/gateway-name": name}
    spec = {"gatewayClassName": "istio-waypoint", "listeners": [{**HBONE, **changes.pop("listener", {})}]}
    at = address or {"type": "Hostname", "value": f"{name}.{namespace}.svc.cluster.local"}
    ports = [{"name": "mesh", "port": 15008}]
    pod = thing("Pod", name, {"containers": [{"name": "istio-proxy", "args": ["proxy", "waypoint"]}]}, namespace, labels=own)
    return [
        thing("Gateway", name, spec, namespace, **{"status": {"addresses": [at]}, **changes}),
        thing("Service", name, {"clusterIP": ip, "selector": own, "ports": ports}, namespace, labels=own),
        {**pod, "status": {"podIP": "10.1.9.9"}},
    ]


def mesh(*objects: Json | list[Json]) -> Mesh:
    flat = [o for part in objects for o in (part if isinstance(part, list) else [part])]
    parsed = resources.objects(resources.parse({"apiVersion": "v1", "kind": "List", "items": flat}))
    return Mesh("", [Cluster("east", objects=Cluster.index(parsed))], 0)


def seen(*objects: Json | list[Json], by: str = "shop/waypoint") -> list[Route]:
    return routes.for_pod(mesh(*objects), "east", by)


def hosts(found: list[Route]) -> list[str]:
    return [r.host.split(".")[0] for r in found]


def clusters(route: Route) -> list[str]:
    return [d.envoy_cluster for d in route.destinations]


def http(*to: Json, **rule: Any) -> Json:
    return {"route": [{"destination": d} for d in to], **rule}


CART = "cart.shop.svc.cluster.local"
NAMESPACE = thing("Namespace", "shop", labels=USE)


def test_a_namespaces_label_attaches_its_services_and_none_on_a_service_opts_out() -> None:
    found = seen(NAMESPACE, waypoint(), service("cart"), service("stock", labels={"istio.io/use-waypoint": "none"}))
    assert hosts(found) == ["cart"]
    assert clusters(found[0]) == [f"inbound-vip|80|http|{CART}"]
    assert [e.address for e in found[0].destinations[0].endpoints] == ["10.1.0.0:8080", "10.1.0.1:8080"]


def test_an_external_name_service_is_not_served() -> None:
    alias = thing("Service", "ledger", {"type": "ExternalName", "externalName": CART, "ports": [{"name": "http", "port": 80}]})
    assert seen(NAMESPACE, waypoint(), alias) == []


@pytest.mark.parametrize(
    ("allowed", "served"),
    [
        (None, []),
        ({"namespaces": {"from": "Same"}}, []),
        ({"namespaces": {"from": "All"}}, ["cart"]),
        ({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}}, ["cart"]),
        ({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "edge"}}}}, []),
        ({"namespaces": {"from": "Selector"}}, []),
    ],
)
def test_another_namespace_attaches_only_where_allowed_routes_let_it(allowed: Json | None, served: list[str]) -> None:
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-namespace": "edge", "team": "shop"})
    listener = {"allowedRoutes": allowed} if allowed else {}
    objects = [shop, *waypoint("edge", listener=listener), *service("cart")]
    assert hosts(seen(objects, by="edge/waypoint")) == served
    found = mesh(objects).istiod("east").attachments.of[CART, "shop"]
    assert found.wanted == "edge/waypoint"
    assert found.refused == (None if served else "namespace not allowed")


def test_allowed_routes_count_of_the_listener_that_the_inbound_binding_names() -> None:
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-namespace": "edge"})
    gateway, *rest = waypoint("edge", annotations={"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"})
    open_to_all = {"name": "proxy", "port": 15088, "protocol": "TCP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    gateway["spec"]["listeners"].append(open_to_all)
    assert hosts(seen(shop, gateway, rest, service("cart"), by="edge/waypoint")) == ["cart"]


@pytest.mark.parametrize(
    ("of_class", "own", "refused"),
    [
        (None, None, None),
        ("workload", None, "traffic type"),
        ("workload", "all", None),
        ("service", "workload", "traffic type"),
        (None, "none", "traffic type"),
    ],
)
def test_a_waypoint_for_workloads_serves_no_service(of_class: str | None, own: str | None, refused: str | None) -> None:
    kind = thing("GatewayClass", "istio-waypoint", labels={"istio.io/waypoint-for": of_class} if of_class else {})
    objects = [NAMESPACE, kind, *waypoint(labels={"istio.io/waypoint-for": own} if own else {}), *service("cart")]
    assert hosts(seen(objects)) == ([] if refused else ["cart"])
    assert mesh(objects).istiod("east").attachments.of[CART, "shop"].refused == refused


def test_a_waypoint_without_an_address_is_not_ready() -> None:
    objects = [NAMESPACE, *waypoint(status={}), *service("cart")]
    assert seen(objects) == []
    found = mesh(objects).istiod("east").attachments.of[CART, "shop"]
    assert (found.refused, found.labelled.ref if found.labelled else "") == ("not ready", "Namespace shop")


def test_an_own_label_that_names_no_waypoint_does_not_fall_back_to_the_namespaces() -> None:
    assert seen(NAMESPACE, waypoint(), service("cart", labels={"istio.io/use-waypoint": "gone"})) == []


@pytest.mark.parametrize(("weight", "served"), [(None, ["cart"]), ("20", ["cart"]), ("101", []), ("few", [])])
def test_a_canary_waypoint_serves_too_unless_its_weight_is_no_percentage(weight: str | None, served: list[str]) -> None:
    annotations = {"istio.io/use-waypoint-canary-weight": weight} if weight else {}
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-canary": "next"}, annotations=annotations)
    objects = [shop, *waypoint(), *waypoint(name="next", ip="10.9.9.8"), *service("cart")]
    assert hosts(seen(objects)) == ["cart"]
    assert hosts(seen(objects, by="shop/next")) == served


def test_the_namespaces_canary_is_not_for_a_service_that_names_its_own_waypoint() -> None:
    shop = thing("Namespace", "shop", labels={"istio.io/use-waypoint": "other", "istio.io/use-waypoint-canary": "next"})
    objects = [shop, *waypoint(), *waypoint(name="next", ip="10.9.9.8"), *service("cart", labels=USE)]
    assert hosts(seen(objects)) == ["cart"]
    assert seen(objects, by="shop/next") == []


def test_a_waypoint_known_by_its_ip_address_is_found_by_its_services_cluster_ip() -> None:
    at = {"type": "IPAddress", "value": "10.9.9.9"}
    assert hosts(seen(NAMESPACE, waypoint(address=at), service("cart"))) == ["cart"]
    assert seen(NAMESPACE, waypoint(address=at, ip="10.9.9.8"), service("cart")) == []


def test_a_service_without_cluster_ip_keeps_its_rules_and_its_endpoints_are_only_known_to_envoy() -> None:
    found = seen(NAMESPACE, waypoint(), service("cart", ip="None"))
    assert hosts(found) == ["cart"]
    assert (found[0].destinations[0].usable, found[0].destinations[0].endpoints) == (True, ())


def ready(name: str, namespace: str = "shop", address: str = "10.1.9.9") -> Json:
    """The endpoint of a waypoint's HBONE port."""
    made = thing("EndpointSlice", name, namespace=namespace, labels={"kubernetes.io/service-name": name})
    at = {"addresses": [address], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": name, "namespace": namespace}}
    return {**made, "addressType": "IPv4", "ports": [{"name": "mesh", "port": 15008}], "endpoints": [at]}


INGRESS = "istio.io/ingress-use-waypoint"
DIRECT, THROUGH, NEXT = ["10.1.0.0:8080", "10.1.0.1:8080"], ["10.1.9.9:15008"], ["10.1.9.8:15008"]


@pytest.mark.parametrize(
    ("labels", "around", "ip", "weight", "sent"),
    [
        ({}, {}, "10.9.0.1", None, DIRECT),
        ({INGRESS: "true"}, {}, "10.9.0.1", None, THROUGH),
        ({INGRESS: "yes"}, {}, "10.9.0.1", None, DIRECT),
        ({}, {INGRESS: "T"}, "10.9.0.1", None, THROUGH),
        ({INGRESS: "false"}, {INGRESS: "true"}, "10.9.0.1", None, DIRECT),
        ({INGRESS: "true", "istio.io/use-waypoint": "gone"}, {}, "10.9.0.1", None, DIRECT),
        ({INGRESS: "true"}, {}, "None", None, DIRECT),
        ({INGRESS: "true"}, {}, "10.9.0.1", "0", THROUGH),
        ({INGRESS: "true"}, {}, "10.9.0.1", "20", THROUGH + NEXT),
        ({INGRESS: "true"}, {}, "10.9.0.1", "100", NEXT),
    ],
)
def test_a_gateway_calls_a_service_through_its_waypoint_where_labels_ask_for_it(
    labels: Json, around: Json, ip: str, weight: str | None, sent: list[str]
) -> None:
    """xds/endpoints/endpoint_builder.go, findServiceWaypoint."""
    canary = {"istio.io/use-waypoint-canary": "next"} if weight else {}
    shop = thing("Namespace", "shop", labels={**USE, **around, **canary}, annotations={"istio.io/use-waypoint-canary-weight": weight or ""})
    both = [*waypoint(), ready("waypoint"), *waypoint(name="next", ip="10.9.9.8"), ready("next", address="10.1.9.8")]
    pod = thing("Pod", "edge", {"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]}, labels={"istio": "edge"})
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    gateway = {**thing("Gateway", "edge", {"selector": {"istio": "edge"}, "servers": [server]}), "apiVersion": "networking.istio.io/v1"}
    rule = thing("VirtualService", "cart", {"hosts": ["*"], "gateways": ["edge"], "http": [http({"host": "cart"})]})
    found = seen(shop, both, service("cart", ip=ip, labels=labels), gateway, rule, {**pod, "status": {"podIP": "10.1.8.8"}}, by="shop/edge")
    assert [e.address for r in found for d in r.destinations for e in d.endpoints] == sent


@pytest.mark.parametrize(("visibility", "served"), [("PUBLIC", ["api"]), ("NAMESPACE", []), ("NONE", [])])
def test_an_entry_that_the_mesh_keeps_to_its_namespace_has_no_waypoint_in_another(visibility: str, served: list[str]) -> None:
    """ambient/waypoints.go fetchWaypointForService, ambient/services.go serviceEntriesInfo."""
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-namespace": "edge"})
    ours = waypoint("edge", listener={"allowedRoutes": {"namespaces": {"from": "All"}}})
    said = {
        **thing("Service", "istio", namespace="istio-system"),
        "kind": "ConfigMap",
        "data": {"mesh": f"serviceEntryVisibility: {{defaultVisibility: {visibility}}}"},
    }
    assert hosts(seen(shop, ours, entry(resolution="STATIC", endpoints=[{"address": "192.0.2.1"}]), said, by="edge/waypoint")) == served


def entry(**spec: Any) -> Json:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    return thing("ServiceEntry", "api", {"hosts": ["api.example.com"], "ports": ports, "location": "MESH_EXTERNAL", **spec})


def test_a_subset_of_a_dns_host_is_all_of_it() -> None:
    endpoints = [{"address": "a.example.com", "labels": {"version": "v1"}}, {"address": "b.example.com", "labels": {"version": "v2"}}]
    subsets = {"host": "api.example.com", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}
    rule = thing("VirtualService", "api", {"hosts": ["api.example.com"], "http": [http({"host": "api.example.com", "subset": "v1"})]})
    found = seen(NAMESPACE, waypoint(), entry(resolution="DNS", endpoints=endpoints), thing("DestinationRule", "api", subsets), rule)
    assert clusters(found[0]) == ["inbound-vip|80|http/v1|api.example.com"]
    assert [e.address for e in found[0].destinations[0].endpoints] == ["a.example.com:80", "b.example.com:80"]


def test_a_host_resolved_at_the_request_is_served_only_outside_of_the_mesh() -> None:
    inside = entry(resolution="DYNAMIC_DNS", location="MESH_INTERNAL")
    assert seen(NAMESPACE, waypoint(), inside) == []
    found = seen(NAMESPACE, waypoint(), entry(resolution="DYNAMIC_DNS"))
    assert [(d.defined, d.usable) for d in found[0].destinations] == [(True, True)]


def test_rules_of_callers_namespaces_do_not_apply_and_the_waypoints_own_do() -> None:
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-namespace": "edge"})
    ours = waypoint("edge", listener={"allowedRoutes": {"namespaces": {"from": "All"}}})
    said = {"hosts": [CART], "http": [{"directResponse": {"status": 503}}]}
    for namespace, applies in (("client", False), ("shop", True), ("edge", True)):
        found = seen(shop, ours, service("cart"), thing("VirtualService", "cart", said, namespace), by="edge/waypoint")
        assert [r.action for r in found] == ["direct_response 503" if applies else "route"]


def test_rules_of_several_virtual_services_follow_each_other() -> None:
    first = thing("VirtualService", "a", {"hosts": [CART], "http": [http({"host": "cart"})]})
    second = thing("VirtualService", "b", {"hosts": ["*.shop.svc.cluster.local"], "http": [{"directResponse": {"status": 503}}]})
    found = seen(NAMESPACE, waypoint(), service("cart"), first, second)
    assert [(r.source, r.action) for r in found] == [("VirtualService shop/a", "route"), ("VirtualService shop/b", "direct_response 503")]


def test_a_match_by_source_labels_is_dropped_and_a_rule_left_without_match_with_it() -> None:
    labelled = {"sourceLabels": POD}  # even the waypoint's own
    rules = [http({"host": "gone"}, match=[labelled]), http({"host": "cart"}, match=[labelled, {"uri": {"prefix": "/a"}}])]
    found = seen(NAMESPACE, waypoint(), service("cart"), thing("VirtualService", "cart", {"hosts": [CART], "http": rules}))
    assert [(clusters(r), r.match) for r in found] == [([f"inbound-vip|80|http|{CART}"], "path /a*")]
    only = thing("VirtualService", "cart", {"hosts": [CART], "http": rules[:1]})
    assert [r.source for r in seen(NAMESPACE, waypoint(), service("cart"), only)] == [None]


def test_a_tls_route_of_the_host_comes_before_a_tcp_route() -> None:
    port = {"name": "tls", "port": 443}
    tcp = thing("VirtualService", "a", {"hosts": [CART], "tcp": [http({"host": "cart", "subset": "v1"}, match=[{"port": 443}])]})
    tls = thing("VirtualService", "b", {"hosts": [CART], "tls": [http({"host": "cart", "subset": "v2"}, match=[{"sniHosts": [CART]}])]})
    other = thing("VirtualService", "b", {"hosts": [CART], "tls": [http({"host": "cart"}, match=[{"sniHosts": ["x.example.com"]}])]})
    known = [NAMESPACE, *waypoint(), *service("cart", port=port), tcp]
    assert [clusters(r) for r in seen(known, tls)] == [[f"inbound-vip|443|tcp/v2|{CART}"]]
    assert [clusters(r) for r in seen(known, other)] == [[f"inbound-vip|443|tcp/v1|{CART}"]]
    labelled = {**tcp, "spec": {**tcp["spec"], "tcp": [http({"host": "cart"}, match=[{"sourceLabels": POD}])]}}
    assert [r.source for r in seen(known[:-1], labelled)] == [None]


@pytest.mark.parametrize(("named", "defined"), [(CART, True), ("*.shop.svc.cluster.local", False)])
def test_a_service_that_it_does_not_serve_has_a_cluster_only_where_a_rule_names_a_served_host(named: str, *, defined: bool) -> None:
    rule = thing("VirtualService", "cart", {"hosts": [named], "http": [http({"host": "search.edge.svc.cluster.local"})]})
    found = seen(NAMESPACE, waypoint(), service("cart"), service("search", "edge"), rule)
    assert clusters(found[0]) == ["outbound|80||search.edge.svc.cluster.local"]
    assert found[0].destinations[0].defined is defined
    assert found[0].failing_share == (0 if defined else 1)


def test_a_served_host_that_is_hidden_from_the_waypoints_namespace_has_a_cluster_without_endpoints() -> None:
    shop = thing("Namespace", "shop", labels={**USE, "istio.io/use-waypoint-namespace": "edge"})
    ours = waypoint("edge", listener={"allowedRoutes": {"namespaces": {"from": "All"}}})
    found = seen(shop, ours, service("cart", annotations={"networking.istio.io/exportTo": "."}), by="edge/waypoint")
    assert [(d.defined, d.usable) for d in found[0].destinations] == [(True, False)]


@pytest.mark.parametrize(
    ("older", "cause"),
    [
        ({"resolution": "STATIC"}, "se-dup-cross-ns"),
        ({"resolution": "DNS"}, "se-dup-cross-ns"),
        ({"resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}], "ports": [{"number": 81, "name": "http"}]}, "se-dup-cross-ns"),
        ({"resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}, ""),
        ({"resolution": "STATIC", "exportTo": ["."]}, ""),
    ],
)
def test_a_served_host_gets_the_endpoints_of_the_entry_that_the_waypoints_namespace_sees(older: Json, cause: str) -> None:
    """pilot/pkg/xds/endpoints/endpoint_builder.go, NewEndpointBuilder: the oldest entry's, whichever namespace the waypoint serves."""
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    mine = {"hosts": ["api.example.com"], "resolution": "STATIC", "ports": ports, "endpoints": [{"address": "192.0.2.2"}]}
    first = thing("ServiceEntry", "api", {**mine, "endpoints": None, **older}, "edge", creationTimestamp="2025-01-01T00:00:00Z")
    found = diagnosis.diagnose("api.example.com", mesh(NAMESPACE, waypoint(), first, thing("ServiceEntry", "api", mine)))
    assert [(f.cause, f.failing_share) for f in found.findings if f.failing_share] == ([(cause, 1)] if cause else [])


def test_a_subset_called_http_shapes_the_whole_host() -> None:
    subsets = {"host": "cart", "subsets": [{"name": "http", "labels": {"version": "v2"}}]}
    found = seen(NAMESPACE, waypoint(), service("cart"), thing("DestinationRule", "cart", subsets))
    assert [e.address for e in found[0].destinations[0].endpoints] == ["10.1.0.1:8080"]


def test_only_the_hosts_asked_for_are_answered() -> None:
    one = mesh(NAMESPACE, waypoint(), service("cart"), service("stock"))
    assert hosts(routes.for_pod(one, "east", "shop/waypoint", ["Cart.shop.svc.cluster.local"])) == ["cart"]


@pytest.mark.parametrize(
    ("port", "binding", "causes"),
    [
        (15008, {}, []),
        (15009, {}, ["waypoint-not-ready"]),
        (15009, {"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"}, []),  # ztunnel hands over at a port of the pod
        (15009, {"ambient.istio.io/waypoint-inbound-binding": "HTTP/80"}, ["waypoint-not-ready"]),  # there is no such binding
    ],
)
def test_ztunnel_enters_a_waypoint_by_port_15008_unless_it_is_bound_to_another(port: int, binding: Json, causes: list[str]) -> None:
    """getGatewayAddress says 15008 of every waypoint; ztunnel passes endpoints over whose Service lacks it, application tunnels aside."""
    gateway, behind, pod = waypoint(annotations=binding, listener={"port": port})
    behind["spec"]["ports"][0]["port"] = port
    pod["status"] = {"podIP": "10.1.9.9", "conditions": [{"type": "Ready", "status": "True"}]}
    caller = thing("Pod", "web", {"containers": [{"name": "app"}]}, "client", annotations={"ambient.istio.io/redirection": "enabled"})
    found = diagnosis.why("cart.shop", [mesh(NAMESPACE, gateway, behind, pod, caller, service("cart"))])
    assert [f.cause for f in found.findings] == causes
