"""Envoy's clusters: what becomes of endpoints, for the rules of which the oracle's meshes have no case."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace as struct_replace

from checks import resources, routes
from checks.mesh import Change, Cluster, Mesh
from checks.upstream import Upstreams

Json = dict[str, Any]
HOST = "cart.shop.svc.cluster.local"


def thing(api: str, kind: str, name: str, namespace: str = "shop", labels: Json | None = None, **fields: Any) -> Json:
    meta = {"name": name, "namespace": namespace, "labels": labels or {}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **fields}


def pod(name: str, ip: str, zone: str, network: str, **labels: str) -> Json:
    own = {"istio-locality": f"r1.{zone}", "topology.istio.io/network": network, "security.istio.io/tlsMode": "istio", **labels}
    spec = {"containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]}
    return thing("v1", "Pod", name, labels=own, spec=spec, status={"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]})


def cluster(name: str, pods: list[Json], *more: Json) -> Cluster:
    """A cluster with Service cart and these pods, those called cart behind it."""
    behind = [p for p in pods if p["metadata"]["name"].startswith("cart")]
    ends = [
        {"addresses": [p["status"]["podIP"]], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": p["metadata"]["name"]}}
        for p in behind
    ]
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    items = [
        *pods,
        thing("v1", "Service", "cart", spec={"clusterIP": "10.9.0.1", "selector": {"app": "cart"}, "ports": ports}),
        thing(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "cart-1",
            labels={"kubernetes.io/service-name": "cart"},
            ports=[{"name": "http", "port": 8080}],
            endpoints=ends,
        ),
        *more,
    ]
    return Cluster(name, objects=Cluster.index(r for i in items for r in resources.objects(resources.parse(i))))


def mesh_config(text: str, networks: str = "networks: {}") -> Json:
    return thing("v1", "ConfigMap", "istio", "istio-system", data={"mesh": text, "meshNetworks": networks})


def rule(**policy: Any) -> Json:
    return thing("networking.istio.io/v1", "DestinationRule", "cart", spec={"host": "cart", **policy})


def healthy(*clusters: Cluster) -> list[str]:
    (route,) = routes.for_pod(Mesh("", clusters, 0), clusters[0].name, "shop/web", [HOST])
    return sorted({e.address for e in route.destinations[0].endpoints if e.state == "healthy"})


WEB = pod("web", "10.1.0.9", "z1", "net1")
GATEWAY = thing(
    "v1",
    "Service",
    "gateway",
    "istio-system",
    {"topology.istio.io/network": "net2"},
    spec={"type": "LoadBalancer", "clusterIP": "10.9.0.2", "ports": [{"name": "tls", "port": 15443}]},
    status={"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
)


def distribute(to: str) -> Json:
    return {"distribute": [{"from": "r1/*", "to": {to: 100}}]}


@pytest.mark.parametrize(
    ("policy", "mesh", "found"),
    [
        ({"localityLbSetting": distribute("r1/z2")}, "{}", ["10.1.0.2:8080"]),
        ({"localityLbSetting": distribute("r1/z2"), "zoneAwareLbSetting": {}}, "{}", ["10.1.0.1:8080", "10.1.0.2:8080"]),
        (None, "localityLbSetting: {distribute: [{from: r1/*, to: {r1/z2: 100}}]}", ["10.1.0.2:8080"]),
        (
            None,
            "{localityLbSetting: {distribute: [{from: r1/*, to: {r1/z2: 100}}]}, zoneAwareLbSetting: {}}",
            ["10.1.0.1:8080", "10.1.0.2:8080"],
        ),
    ],
)
def test_zone_aware_balancing_puts_a_distribution_by_locality_out_of_force(policy: Json | None, mesh: str, found: list[str]) -> None:
    """pilot/pkg/networking/core/loadbalancer/loadbalancer.go, GetEffectiveLbSetting."""
    pods = [WEB, pod("cart-1", "10.1.0.1", "z1", "net1"), pod("cart-2", "10.1.0.2", "z2", "net1")]
    rules = [rule(trafficPolicy={"loadBalancer": policy})] if policy else []
    assert healthy(cluster("east", pods, mesh_config(mesh), *rules)) == found


PASSING = {"loadBalancer": {"simple": "PASSTHROUGH"}}
RANDOM = {"loadBalancer": {"simple": "RANDOM"}}


@pytest.mark.parametrize(
    ("policy", "own", "passes"),
    [
        (PASSING, None, True),
        (PASSING, RANDOM, True),  # a subset begins as what the whole host's cluster became
        ({**RANDOM, "portLevelSettings": [{"port": {"number": 80}, **PASSING}]}, RANDOM, True),
        ({**PASSING, "portLevelSettings": [{"port": {"number": 80}, **RANDOM}]}, RANDOM, False),
        (RANDOM, PASSING, True),
        (RANDOM, None, False),
    ],
)
def test_what_passes_through_needs_no_endpoint(policy: Json, own: Json | None, *, passes: bool) -> None:
    """pilot/pkg/networking/core/cluster_traffic_policy.go applyLoadBalancer, cluster_builder.go buildSubsetCluster."""
    subset = {"name": "v1", "labels": {"version": "v1"}, **({"trafficPolicy": own} if own else {})}
    found = cluster("east", [WEB], rule(trafficPolicy=policy, subsets=[subset]))
    mesh, web = Mesh("", [found], 0), found.get(resources.Pod, "shop", "web")
    assert web is not None
    ups = routes.upstreams(mesh, mesh.proxy(found, web, "sidecar"))
    assert ups.of(HOST, 80, "v1").usable is passes


def test_the_youngest_service_of_a_host_and_namespace_says_what_its_ports_are_called() -> None:
    """pilot/pkg/model/push_context.go initServiceRegistry, endpointshards.go CopyEndpoints: a DNS entry gets the endpoints of the Service as well."""
    ports = [{"name": "any", "number": 80, "protocol": "HTTP"}]
    spec = {"hosts": [HOST], "ports": ports, "resolution": "DNS", "endpoints": [{"address": "cart.example.net"}], "exportTo": ["client"]}
    entry = thing("networking.istio.io/v1", "ServiceEntry", "cart", spec=spec)
    entry["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    hidden = thing("v1", "Service", "cart", spec={"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    hidden["metadata"]["annotations"] = {"networking.istio.io/exportTo": "."}
    caller = pod("web", "10.1.0.8", "z1", "net1")
    caller["metadata"]["namespace"] = "client"
    one = cluster("east", [WEB, caller, pod("cart-1", "10.1.0.1", "z1", "net1")], hidden, entry)
    (route,) = routes.for_pod(Mesh("", [one], 0), "east", "client/web", [HOST])
    assert sorted(e.address for e in route.destinations[0].endpoints) == ["10.1.0.1:8080", "cart.example.net:80"]


@pytest.mark.parametrize(("first", "found"), [("TCP", ["192.0.2.1:8080"]), ("UDP", [])])
def test_a_workload_entry_serves_the_first_port_of_a_number(first: str, found: list[str]) -> None:
    """kube controller.serviceInstancesFromWorkloadInstances, findServiceTargetPort."""
    two = {
        "TCP": {"name": "http", "port": 80, "targetPort": 8080},
        "UDP": {"name": "udp", "port": 80, "targetPort": 8081, "protocol": "UDP"},
    }
    ports = [two.pop(first), *two.values()]
    both = thing("v1", "Service", "cart", spec={"clusterIP": "10.9.0.1", "selector": {"app": "cart"}, "ports": ports})
    vm = thing("networking.istio.io/v1", "WorkloadEntry", "vm", spec={"address": "192.0.2.1", "labels": {"app": "cart"}})
    (route,) = routes.for_pod(Mesh("", [cluster("east", [WEB], both, vm)], 0), "east", "shop/web", [HOST])
    assert [e.address for e in route.destinations[0].endpoints] == found


def test_a_pods_named_port_is_the_first_of_tcp() -> None:
    """pilot/pkg/serviceregistry/kube/controller/pod.go getPortMap."""
    ports = [
        {"name": "http", "containerPort": 1, "protocol": "UDP"},
        {"name": "http", "containerPort": 2},
        {"name": "http", "containerPort": 3},
    ]
    (found,) = resources.objects(resources.parse(thing("v1", "Pod", "cart-1", spec={"containers": [{"name": "app", "ports": ports}]})))
    assert isinstance(found, resources.Pod)
    assert found.declared == {"http": 2}


@pytest.mark.parametrize(("to", "found"), [("r1/z1", ["192.0.2.1:15443"]), ("r1/z2", ["192.0.2.1:15443"]), ("r1/z3", [])])
def test_a_networks_gateway_stands_in_every_locality_that_it_stands_for(to: str, found: list[str]) -> None:
    """pilot/pkg/xds/endpoints/ep_filters.go, EndpointsByNetworkFilter: locality by locality."""
    pods = [WEB, pod("cart-1", "10.1.0.1", "z1", "net2"), pod("cart-2", "10.1.0.2", "z2", "net2")]
    policy = {"loadBalancer": {"localityLbSetting": distribute(to)}}
    assert healthy(cluster("east", pods, GATEWAY, rule(trafficPolicy=policy))) == found


@pytest.mark.parametrize(
    ("policy", "through"),
    [
        ({"tls": {"mode": "ISTIO_MUTUAL"}, "portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "RANDOM"}}]}, True),
        ({"tls": {"mode": "DISABLE"}, "portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "RANDOM"}}]}, False),
        ({"tls": {"mode": "ISTIO_MUTUAL"}, "portLevelSettings": [{"port": {"number": 80}, "tls": {"mode": "DISABLE"}}]}, False),
        ({"portLevelSettings": [{"port": {"number": 81}, "tls": {"mode": "DISABLE"}}]}, True),
    ],
)
def test_a_ports_settings_without_tls_leave_the_rules_mode(policy: Json, *, through: bool) -> None:
    """pilot/pkg/xds/endpoints/mtls_checker.go, trafficPolicyTLSModeForPort; a subset without a mode falls back to it as well."""
    pods = [WEB, pod("cart-1", "10.1.0.1", "z1", "net2")]
    for rules in ({"trafficPolicy": policy}, {"trafficPolicy": policy, "subsets": [{"name": "v1", "trafficPolicy": {}}]}):
        one = Mesh("", [cluster("east", pods, GATEWAY, rule(**rules))], 0)
        where = one.cluster("east")
        web = one.proxy(where, next(p for p in where.all(resources.Pod) if p.name == "web"), "sidecar")
        istiod = one.istiod("east")
        found = Upstreams(one, istiod, web, istiod.scope(web)).of(HOST, 80, "v1" if "subsets" in rules else "")
        assert bool(found.endpoints) == through


@pytest.mark.parametrize(
    ("mode", "ports", "found"),
    [
        ("STRICT", None, ["192.0.2.1:15443"]),
        ("DISABLE", None, []),
        ("STRICT", {"8080": {"mode": "DISABLE"}}, []),
        ("DISABLE", {"8080": {"mode": "PERMISSIVE"}}, ["192.0.2.1:15443"]),
    ],
)
def test_what_a_server_takes_in_plain_text_only_is_not_reached_through_its_networks_gateway(
    mode: str, ports: Json | None, found: list[str]
) -> None:
    """pilot/pkg/xds/endpoints/mtls_checker.go, checkMtlsEnabled."""
    spec = {"selector": {"matchLabels": {"app": "cart"}}, "mtls": {"mode": mode}, "portLevelMtls": ports}
    said = thing("security.istio.io/v1", "PeerAuthentication", "cart", spec=spec)
    pods = [WEB, pod("cart-1", "10.1.0.1", "z1", "net2", app="cart")]
    assert healthy(cluster("east", pods, GATEWAY, said)) == found


def test_a_server_that_takes_no_mtls_is_not_reached_through_its_networks_gateway_whatever_a_rule_says() -> None:
    """pilot/pkg/xds/endpoints/endpoint_builder.go buildEnvoyLbEndpoint: an endpoint keeps the mode that it has itself, if a rule says ISTIO_MUTUAL."""
    plain = pod("cart-1", "10.1.0.1", "z1", "net2", **{"security.istio.io/tlsMode": "disabled"})
    assert healthy(cluster("east", [WEB, plain], GATEWAY, rule(trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}}))) == []


@pytest.mark.parametrize(
    ("service", "networks", "found"),
    [
        ({}, "{}", ["192.0.2.1:15443"]),
        ({"ports": [{"name": "tls", "port": 443}]}, "{}", ["10.1.0.1:8080"]),
        ({"ports": [{"name": "tls", "port": 443}], "port": "443"}, "{}", ["192.0.2.1:443"]),
        ({"labels": {}}, "{}", ["10.1.0.1:8080"]),
        ({"labels": {}}, "{gateways: [{address: 192.0.2.7, port: 443}]}", ["192.0.2.7:443"]),
        ({"labels": {}}, "{endpoints: [{fromRegistry: east}], gateways: [{registryServiceName: GATEWAY, port: 443}]}", ["192.0.2.1:443"]),
        ({"labels": {}}, "{endpoints: [{fromRegistry: west}], gateways: [{registryServiceName: GATEWAY, port: 443}]}", ["10.1.0.1:8080"]),
    ],
)
def test_a_networks_gateways_are_labelled_services_with_their_port_and_what_mesh_networks_says(
    service: Json, networks: str, found: list[str]
) -> None:
    """pilot/pkg/serviceregistry/kube/controller/network.go, getGatewayDetails; pilot/pkg/model/network.go, reload."""
    labels = service.get("labels", {"topology.istio.io/network": "net2", "networking.istio.io/gatewayPort": service.get("port", "15443")})
    spec = {**GATEWAY["spec"], "ports": service.get("ports", GATEWAY["spec"]["ports"])}
    gateway = {**GATEWAY, "metadata": {**GATEWAY["metadata"], "labels": labels}, "spec": spec}
    said = mesh_config("{}", f"networks: {{net2: {networks.replace('GATEWAY', 'gateway.istio-system.svc.cluster.local')}}}")
    pods = [WEB, pod("cart-1", "10.1.0.1", "z1", "net2")]
    assert healthy(cluster("east", pods, gateway, said)) == found


def api_gateway(of_class: str, protocol: str, port: int, address: Json | None, **labels: str) -> Json:
    listener = {"name": "a", "port": port, "protocol": protocol, "tls": {"mode": "Passthrough"}}
    spec = {"gatewayClassName": of_class, "listeners": [listener], "addresses": [address] if address else []}
    return thing(
        "gateway.networking.k8s.io/v1", "Gateway", "entry", "istio-system", {"topology.istio.io/network": "net2", **labels}, spec=spec
    )


IP, NAME = {"type": "IPAddress", "value": "192.0.2.5"}, {"type": "Hostname", "value": "entry.example.com"}


@pytest.mark.parametrize(
    ("gateway", "where", "found"),
    [
        (api_gateway("istio-remote", "TLS", 15443, IP), "east", ["192.0.2.5:15443"]),
        (api_gateway("istio-remote", "TLS", 15443, NAME), "east", ["entry.example.com:15443"]),
        (api_gateway("istio-remote", "TLS", 15443, IP), "west", ["10.1.0.1:8080"]),
        (api_gateway("istio", "TLS", 15443, IP), "west", ["192.0.2.5:15443"]),
        (api_gateway("istio", "TLS", 15443, None), "east", ["10.1.0.1:8080"]),
        (api_gateway("istio", "TLS", 443, IP), "east", ["10.1.0.1:8080"]),
        (api_gateway("istio", "TLS", 443, IP, **{"networking.istio.io/gatewayPort": "443"}), "east", ["192.0.2.5:443"]),
        (api_gateway("istio-east-west", "HBONE", 15008, IP), "east", ["192.0.2.5:15008"]),
        (api_gateway("istio", "TLS", 15443, {"type": "NamedAddress", "value": "a"}), "east", ["10.1.0.1:8080"]),
    ],
)
def test_a_labelled_gateway_of_the_gateway_api_is_its_networks_and_one_elsewhere_for_its_own_control_plane(
    gateway: Json, where: str, found: list[str]
) -> None:
    """pilot/pkg/serviceregistry/kube/controller/network.go, handleGatewayResource."""
    own = thing("apps/v1", "Deployment", "istiod", "istio-system", {"app": "istiod"}, spec={"template": {"spec": {"containers": []}}})
    east = cluster("east", [WEB, pod("cart-1", "10.1.0.1", "z1", "net2")], own, *([gateway] if where == "east" else []))
    assert healthy(east, cluster("west", [], own, *([gateway] if where == "west" else []))) == found


@pytest.mark.parametrize(
    ("selector", "external", "found"),
    [
        ("{}", [], ["192.0.2.11:31443", "192.0.2.12:31443"]),
        ('{"edge":"yes"}', [], ["192.0.2.12:31443"]),
        (None, [], ["10.1.0.1:8080"]),
        ("{}", ["192.0.2.9"], ["192.0.2.9:31443"]),
        (None, ["192.0.2.9"], ["192.0.2.9:15443"]),
    ],
)
def test_a_networks_gateway_on_node_ports_is_entered_at_the_nodes_that_its_annotation_selects(
    selector: str | None, external: list[str], found: list[str]
) -> None:
    """pilot/pkg/serviceregistry/kube/controller/network.go, extractGatewaysInner and updateServiceNodePortAddresses."""
    ports = [{"name": "tls", "port": 15443, "nodePort": 31443}]
    gateway = {**GATEWAY, "spec": {"type": "NodePort", "clusterIP": "10.9.0.2", "ports": ports, "externalIPs": external}, "status": {}}
    gateway["metadata"] = {**GATEWAY["metadata"], "annotations": {"traffic.istio.io/nodeSelector": selector} if selector else {}}
    outer = [("a", {}, "192.0.2.11"), ("b", {"edge": "yes"}, "192.0.2.12"), ("c", {}, "")]
    nodes = [
        {
            **thing("v1", "Node", name, "", labels),
            "status": {"addresses": [{"type": "InternalIP", "address": "10.2.0.1"}, {"type": "ExternalIP", "address": at}]},
        }
        for name, labels, at in outer
    ]
    assert healthy(cluster("east", [WEB, pod("cart-1", "10.1.0.1", "z1", "net2")], gateway, *nodes)) == found


def test_a_networks_gateway_on_node_ports_follows_its_nodes() -> None:
    def node(address: str) -> Json:
        return {**thing("v1", "Node", "a", ""), "status": {"addresses": [{"type": "ExternalIP", "address": address}]}}

    annotated = {**GATEWAY["metadata"], "annotations": {"traffic.istio.io/nodeSelector": "{}"}}
    spec = {"type": "NodePort", "clusterIP": "10.9.0.2", "ports": [{"name": "tls", "port": 15443, "nodePort": 31443}]}
    before = Mesh("", [cluster("east", [WEB], {**GATEWAY, "metadata": annotated, "spec": spec, "status": {}}, node("192.0.2.11"))], 0)
    assert [g.address for g in before.network_gateways] == ["192.0.2.11"]
    (moved,) = resources.objects(resources.parse(node("192.0.2.12")))
    after = before.apply([Change("east", resources.Node, "", "a", moved)])
    assert [g.address for g in after.network_gateways] == ["192.0.2.12"]
    assert after.apply([Change("east", resources.Node, "", "a", None)]).network_gateways == []


@pytest.mark.parametrize(
    ("switch", "labels", "found"),
    [
        ("false", {}, ["10.1.0.1:8080"]),
        ("true", {}, []),
        ("true", {"istio.io/global": "true"}, ["10.1.0.1:8080"]),
    ],
)
def test_an_ambient_mesh_of_several_networks_keeps_a_services_endpoints_in_their_cluster_unless_it_is_global(
    switch: str, labels: Json, found: list[str]
) -> None:
    """pilot/pkg/xds/endpoints/endpoint_builder.go, filterIstioEndpoint."""
    env = [{"name": "AMBIENT_ENABLE_MULTI_NETWORK", "value": switch}]
    istiod = thing("v1", "Pod", "istiod", "istio-system", {"app": "istiod"}, spec={"containers": [{"name": "discovery", "env": env}]})
    east, west = cluster("east", [WEB], istiod), cluster("west", [pod("cart-1", "10.1.0.1", "z1", "net1")])
    here = next(iter(east.all(resources.Service)))
    own = struct_replace(here, metadata=struct_replace(here.metadata, labels=labels))
    both = [Cluster("east", objects=Cluster.index([*(o for k in east.objects for o in east.all(k) if o is not here), own])), west]
    assert healthy(*both) == found


@pytest.mark.parametrize(("networks", "found"), [((GATEWAY,), []), ((), ["unix:///run/cart.sock"])])
def test_a_unix_domain_socket_is_left_out_where_networks_have_gateways(networks: tuple[Json, ...], found: list[str]) -> None:
    """pilot/pkg/xds/endpoints/ep_filters.go, EndpointsByNetworkFilter: what is near is added if it has a host, and a pipe has none."""
    ends = [{"address": "unix:///run/cart.sock"}]
    spec = {"hosts": ["api.example.com"], "resolution": "STATIC", "endpoints": ends, "ports": [{"number": 80, "name": "http"}]}
    entry = thing("networking.istio.io/v1", "ServiceEntry", "api", spec=spec)
    (route,) = (
        r
        for r in routes.for_pod(Mesh("", [cluster("east", [WEB], entry, *networks)], 0), "east", "shop/web")
        if r.host == "api.example.com"
    )
    assert [e.address for d in route.destinations for e in d.endpoints] == found
