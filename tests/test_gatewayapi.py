"""Gateway API objects as istiod converts them, for the rules of which the oracle's meshes have no case (pilot/pkg/config/kube/gateway in istio/istio)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from checks import diagnosis, resources, routes
from checks.case import Case, spoken
from checks.istiod import Proxy
from checks.mesh import Cluster, Mesh

if TYPE_CHECKING:
    from checks.answers import Route
    from checks.istiod import Istiod

Json = dict[str, Any]
_API = "gateway.networking.k8s.io/v1"
_VERSIONS = {
    **dict.fromkeys(("Service", "Namespace", "Pod", "Secret"), "v1"),
    **dict.fromkeys(("EndpointSlice",), "discovery.k8s.io/v1"),
    **dict.fromkeys(("ServiceEntry", "VirtualService", "DestinationRule"), "networking.istio.io/v1"),
    **dict.fromkeys(("CustomResourceDefinition",), "apiextensions.k8s.io/v1"),
    **dict.fromkeys(("TCPRoute",), "gateway.networking.k8s.io/v1alpha2"),
}
HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
TLS = {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
ENDED = {**TLS, "tls": {"mode": "Terminate", "certificateRefs": [{"name": "cert"}]}}
TO_GATEWAY = {"name": "edge"}
CART, LEDGER = "cart.shop.svc.cluster.local", "ledger.shop.svc.cluster.local"


def thing(kind: str, name: str, spec: Json | None = None, namespace: str = "shop", **metadata: Any) -> Json:
    meta = {"name": name, "namespace": namespace, "creationTimestamp": "2026-09-01T08:00:00Z", **metadata}
    return {"apiVersion": _VERSIONS.get(kind, _API), "kind": kind, "metadata": meta, "spec": spec or {}}


def service(name: str, namespace: str = "shop", *ports: Json, **selector: str) -> Json:
    return thing(
        "Service", name, {"clusterIP": "10.9.0.1", "ports": [*(ports or ({"name": "http", "port": 80},))], "selector": selector}, namespace
    )


def pod(name: str, **labels: str) -> Json:
    made = thing("Pod", name, {"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]}, labels={"app": name, **labels})
    return {**made, "status": {"podIP": "10.1.0.9"}}


def gateway(*listeners: Json, of_class: str = "istio", **spec: Any) -> list[Json]:
    """A Gateway `edge` that istiod deploys, with its Service and pod."""
    at = service(f"edge-{of_class}", "shop", {"name": "http", "port": 80}, {"name": "tls", "port": 443}, app="edge")
    return [thing("Gateway", "edge", {"gatewayClassName": of_class, "listeners": [*listeners], **spec}), at, pod("edge")]


def to(name: str = "cart", **changes: Any) -> Json:
    return {"name": name, "port": 80, **changes}


def route(
    kind: str = "HTTPRoute", *rules: Json, name: str = "r", parent: Json | None = None, hosts: list[str] | None = None, **metadata: Any
) -> Json:
    spec = {"parentRefs": [parent or TO_GATEWAY], "hostnames": hosts or [], "rules": [*(rules or ({"backendRefs": [to()]},))]}
    return thing(kind, name, {k: v for k, v in spec.items() if v}, **metadata)


def mesh(*objects: Json | list[Json]) -> Mesh:
    flat = [o for part in objects for o in (part if isinstance(part, list) else [part])]
    parsed = resources.objects(resources.parse({"apiVersion": "v1", "kind": "List", "items": flat}))
    return Mesh("", [Cluster("east", objects=Cluster.index(parsed))], 0)


def istiod(*objects: Json | list[Json], version: str = "") -> Istiod:
    """The control plane of a mesh; its image tells a release where one is asked for."""
    image = f"docker.io/istio/pilot:{version}.0" if version else "pilot"
    found = thing("Pod", "istiod", {"containers": [{"name": "discovery", "image": image}]}, "istio-system", labels={"app": "istiod"})
    return mesh(*objects, found).istiod("east")


def seen(*objects: Json | list[Json], by: str = "shop/edge") -> list[Route]:
    return routes.for_pod(mesh(*objects), "east", by)


def clusters(found: list[Route]) -> list[list[str]]:
    return [[d.envoy_cluster for d in r.destinations] for r in found]


def denied(known: Istiod) -> list[str]:
    return [d.reason for d in known.api.denied]


@pytest.mark.parametrize(
    ("listener", "kind", "version", "taken"),
    [
        (TLS, "TLSRoute", "", True),
        (TLS, "TCPRoute", "", False),
        (ENDED, "TCPRoute", "", True),
        (ENDED, "TLSRoute", "", True),
        (ENDED, "TLSRoute", "1.29", False),
        ({**HTTP, "allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}]}}, "HTTPRoute", "", True),
        ({**HTTP, "allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}}, "HTTPRoute", "", False),
        ({**HTTP, "allowedRoutes": {"kinds": [{"group": "example.com", "kind": "HTTPRoute"}]}}, "HTTPRoute", "", False),
    ],
)
def test_a_listener_takes_the_kinds_that_its_protocol_is_for_and_that_it_names(
    listener: Json, kind: str, version: str, *, taken: bool
) -> None:
    """gatewaycommon/conversion.go, GenerateGatewaySupportedKinds."""
    known = istiod(gateway(listener), route(kind), version=version)
    assert [r.gateways for r in known.api.rulesets] == (
        [(f"shop/edge~istio-autogenerated-k8s-gateway~{listener['name']}",)] if taken else []
    )
    assert denied(known) == ([] if taken else [f"routes of kind {kind} are not allowed"])


@pytest.mark.parametrize(
    ("second", "version", "kept"),
    [
        ({**HTTP, "name": "b"}, "", ["http"]),
        ({**HTTP, "name": "b"}, "1.29", ["http", "b"]),
        ({**HTTP, "name": "b", "hostname": "a.example.com"}, "", ["http", "b"]),
        ({**HTTP, "name": "b", "port": 81}, "", ["http", "b"]),
        ({"name": "b", "port": 80, "protocol": "TCP"}, "", ["http"]),
    ],
)
def test_a_listener_that_an_earlier_one_excludes_is_left_out(second: Json, version: str, kept: list[str]) -> None:
    """gatewaycommon/listener_conflict.go, ComputeGatewayListenerConflicts."""
    known = istiod(gateway(HTTP, second), route(parent={**TO_GATEWAY, "sectionName": "b"}), version=version)
    assert [g.name.rpartition("~")[2] for g in known.api.gateways] == kept
    if "b" not in kept:
        assert "listener b conflicts with listener http, which has port 80 as well" in denied(known)


@pytest.mark.parametrize(
    ("allowed", "listener", "version", "taken"),
    [
        (None, {}, "", False),
        ({"from": "All"}, {}, "", True),
        ({"from": "All"}, {}, "1.29", False),
        ({"from": "Same"}, {}, "", False),
        ({"from": "None"}, {}, "", False),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "web"}}}, {}, "", True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}, {}, "", False),
        ({"from": "All"}, {"port": 0}, "", True),
        ({"from": "All"}, {"hostname": None}, "", False),
        ({"from": "All"}, {"protocol": "TCP", "port": 0}, "", False),
    ],
)
def test_a_listener_set_that_its_gateway_lets_in_adds_listeners(allowed: Json | None, listener: Json, version: str, *, taken: bool) -> None:
    """gateway/gateway_collection.go ListenerSetCollection, gatewaycommon/gateway_utils.go NamespaceAcceptedByAllowListeners."""
    more = {k: v for k, v in {**HTTP, "name": "more", "hostname": "a.example.com", **listener}.items() if v is not None}
    parent = {"parentRef": {"name": "edge", "namespace": "shop"}}
    made = [thing("ListenerSet", "more", {**parent, "listeners": [more]}, "web"), thing("Namespace", "web", labels={"team": "web"})]
    own = gateway(HTTP, **({"allowedListeners": {"namespaces": allowed}} if allowed else {}))
    to_set = route(parent={"kind": "ListenerSet", "name": "more"}, namespace="web")
    known = istiod(own, made, to_set, version=version)
    full = "web/more~istio-autogenerated-k8s-gateway~more"
    assert [r.gateways for r in known.api.rulesets] == ([(full,)] if taken else [])
    assert bool(denied(known)) is not taken
    if not version:
        assert [r.host for r in seen(own, made, to_set)] == (["a.example.com"] if taken else [])


@pytest.mark.parametrize(
    ("of_class", "spec", "services"),
    [
        ("istio", {}, ["edge-istio"]),
        ("istio", {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}, ["edge-istio"]),
        ("istio", {"addresses": [{"type": "Hostname", "value": "ingress"}]}, ["ingress"]),
        ("istio", {"addresses": [{"type": "NamedAddress", "value": "ingress"}]}, []),
        ("istio", {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}, {"type": "IPAddress", "value": "192.0.2.2"}]}, []),
        ("istio-remote", {}, []),
        ("istio-east-west", {}, []),
        ("other", {}, []),
    ],
)
def test_a_gateway_is_served_behind_the_service_that_istiod_makes_or_that_its_addresses_name(
    of_class: str, spec: Json, services: list[str]
) -> None:
    """gateway/conversion.go extractGatewayServices, gatewaycommon/gatewayclass_collection.go FetchGatewayClass."""
    known = istiod(thing("Gateway", "edge", {"gatewayClassName": of_class, "listeners": [HTTP], **spec}))
    assert [h.partition(".")[0] for g in known.api.gateways for h in g.services or ()] == services


def test_a_foreign_class_called_istio_leaves_istiods_own_in_force() -> None:
    foreign = thing("GatewayClass", "istio", {"controllerName": "example.com/gateways"})
    assert istiod(gateway(HTTP), foreign).api.gateways


def test_a_gateway_that_names_a_revision_or_a_tag_is_read_by_every_control_plane() -> None:
    """gateway/controller.go, buildClient."""
    made = gateway(HTTP)
    made[0]["metadata"]["labels"] = {"istio.io/rev": "stable"}
    known = thing("Pod", "istiod", {"containers": [{"name": "discovery", "image": "pilot"}]}, "istio-system")
    known["metadata"]["labels"] = {"app": "istiod", "istio.io/rev": "1-30"}
    assert mesh(made, known).istiod("east").api.gateways


@pytest.mark.parametrize(
    ("kind", "filters", "of_backend", "rules"),
    [
        ("HTTPRoute", ["URLRewrite", "CORS", "ResponseHeaderModifier"], "RequestHeaderModifier", 1),
        ("HTTPRoute", ["ExtensionRef"], "RequestHeaderModifier", 0),
        ("HTTPRoute", [], "URLRewrite", 0),
        ("GRPCRoute", ["RequestHeaderModifier"], "ResponseHeaderModifier", 1),
        ("GRPCRoute", ["URLRewrite"], "ResponseHeaderModifier", 0),
    ],
)
def test_a_filter_that_istiod_does_not_know_costs_the_whole_route(kind: str, filters: list[str], of_backend: str, rules: int) -> None:
    """gateway/conversion.go, convertHTTPRoute and convertGRPCRoute."""
    well = {"backendRefs": [to()]}
    rule = {"filters": [{"type": t} for t in filters], "backendRefs": [to(filters=[{"type": of_backend}])]}
    known = istiod(gateway(HTTP), service("cart"), route(kind, rule, well))
    assert sum(len(r.http) for r in known.api.rulesets) == rules * 2
    assert len(denied(known)) == 1 - rules


@pytest.mark.parametrize(
    ("kind", "mirror", "mirrors"),
    [("HTTPRoute", "cart", 1), ("HTTPRoute", "gone", 0), ("GRPCRoute", "cart", 1), ("GRPCRoute", "gone", None)],
)
def test_a_mirror_that_does_not_exist_costs_an_httproute_the_copies_and_a_grpcroute_everything(
    kind: str, mirror: str, mirrors: int | None
) -> None:
    """gateway/conversion.go, createMirrorFilter."""
    rule = {"filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": to(mirror)}}], "backendRefs": [to()]}
    known = istiod(gateway(HTTP), service("cart"), route(kind, rule))
    assert [len(rule.mirrors) for r in known.api.rulesets for rule in r.http] == ([] if mirrors is None else [mirrors])


@pytest.mark.parametrize(
    ("parent", "attached"),
    [
        ({"group": "", "kind": "Service", "name": "cart"}, True),
        ({"kind": "Service", "name": "cart"}, False),
        ({"group": "", "kind": "Service", "name": "gone"}, False),
        ({"group": "networking.istio.io", "kind": "ServiceEntry", "name": "ledger"}, True),
        ({"group": "", "kind": "ServiceEntry", "name": "ledger"}, False),
    ],
)
def test_a_mesh_parent_is_known_by_its_group_and_has_to_exist(parent: Json, *, attached: bool) -> None:
    """gateway/conversion.go, toInternalParentReference."""
    entry = thing("ServiceEntry", "ledger", {"hosts": [LEDGER], "ports": [{"number": 80, "name": "http"}]})
    assert bool(istiod(service("cart"), entry, route(parent=parent)).api.rulesets) is attached


def test_a_waypoint_of_another_controller_takes_its_services_routes_away() -> None:
    """gateway/conversion.go, waypointManagedByAnotherController."""
    asking = {**service("cart")}
    asking["metadata"] = {**asking["metadata"], "labels": {"istio.io/use-waypoint": "theirs"}}
    theirs = [
        thing("Gateway", "theirs", {"gatewayClassName": "their"}),
        thing("GatewayClass", "their", {"controllerName": "example.com/gateways"}),
    ]
    parent = {"group": "", "kind": "Service", "name": "cart"}
    assert istiod(asking, theirs, route(parent=parent)).api.rulesets == ()
    assert istiod(asking, theirs[:1], route(parent=parent)).api.rulesets


def test_a_service_of_another_cluster_alone_is_no_parent() -> None:
    """gateway/controller.go reads the Services of the config cluster."""
    parts = [[route(parent={"group": "", "kind": "Service", "name": "cart"}), service("other")], [service("cart")]]
    known = [
        Cluster(n, objects=Cluster.index(resources.objects(resources.parse({"apiVersion": "v1", "kind": "List", "items": p}))))
        for n, p in zip(("east", "west"), parts, strict=True)
    ]
    assert Mesh("", known, 0).istiod("east").api.rulesets == ()


@pytest.mark.parametrize(
    ("allowed", "cluster"), [("Service", "outbound|80||cart.other.svc.cluster.local"), ("ServiceImport", "UnknownService")]
)
def test_a_reference_grant_is_for_kinds_that_istiod_knows(allowed: str, cluster: str) -> None:
    """gatewaycommon/references.go, ReferenceGrantsCollection."""
    group = "multicluster.x-k8s.io" if allowed == "ServiceImport" else ""
    grant = thing(
        "ReferenceGrant",
        "g",
        {"from": [{"group": _API.partition("/")[0], "kind": "HTTPRoute", "namespace": "shop"}], "to": [{"group": group, "kind": allowed}]},
        "other",
    )
    rule = {"backendRefs": [to(namespace="other", group=group, kind=allowed)]}
    assert clusters(seen(gateway(HTTP), service("cart", "other"), grant, route("HTTPRoute", rule))) == [[cluster]]


def test_rules_of_equal_rank_stand_in_the_order_of_their_routes_age_namespace_and_name() -> None:
    """gateway/conversion.go, sortRoutesByCreationTime."""
    open_to_all = {**HTTP, "allowedRoutes": {"namespaces": {"from": "All"}}}
    parent = {"name": "edge", "namespace": "shop"}
    made = [
        route(name="b", parent=parent),
        route(name="a", parent=parent, namespace="web"),
        route(name="c", parent=parent, creationTimestamp="2026-08-01T08:00:00Z"),
        route(name="a", parent=parent),
    ]
    (merged,) = istiod(gateway(open_to_all), made).api.rulesets
    assert [r.leaf.partition(" ")[2] for r in merged.http] == ["shop/c", "shop/a", "shop/b", "web/a"]


def test_before_1_30_grpcroutes_and_httproutes_of_a_host_are_two_lists() -> None:
    """gateway/controller.go."""
    both = [route("GRPCRoute", name="g"), route(name="h")]
    assert len(istiod(gateway(HTTP), both).api.rulesets) == 1
    assert len(istiod(gateway(HTTP), both, version="1.29").api.rulesets) == 2


@pytest.mark.parametrize(
    ("hosts", "weight", "taken"),
    [
        (None, 1, f"SNI {CART}"),
        ([CART], 1, f"SNI {CART}"),
        (["x.example.com"], 1, "SNI x.example.com"),
        (["x.example.com", CART], 1, f"SNI {CART}"),
        (None, 0, ""),
    ],
)
def test_a_tls_route_of_a_service_takes_the_names_that_it_gives_and_none_without_weight(
    hosts: list[str] | None, weight: int, taken: str
) -> None:
    """gateway/conversion.go convertTLSRoute, augmentTLSPortMatch, compatibleRoutesForHost."""
    port = {"name": "tls", "port": 443}
    caller = thing("Pod", "web", {"containers": [{"name": "istio-proxy"}]}, annotations={"sidecar.istio.io/status": "{}"})
    parent = {"group": "", "kind": "Service", "name": "cart"}
    made = route("TLSRoute", {"backendRefs": [to("ledger", port=443, weight=weight)]}, parent=parent, hosts=hosts)
    found = seen(service("cart", "shop", port), service("ledger", "shop", port), caller, made, by="shop/web")
    assert [(r.match, clusters([r])) for r in found if r.source] == ([(taken, [[f"outbound|443||{LEDGER}"]])] if taken else [])


def test_a_networks_gateway_lets_its_port_through_by_the_name_that_callers_say() -> None:
    """serviceregistry/kube/conversion.go, IsAutoPassthrough."""

    def mode(port: int, **labels: str) -> str:
        made = gateway({**TLS, "port": port})
        made[0]["metadata"]["labels"] = {k.replace("_", "/"): v for k, v in labels.items()}
        (found,) = istiod(made).api.gateways
        return found.servers[0].tls.mode if found.servers[0].tls else ""

    network = {"topology.istio.io_network": "west"}
    assert mode(15443, **network) == mode(16443, **network, **{"networking.istio.io_gatewayPort": "16443"}) == "AUTO_PASSTHROUGH"
    assert mode(15443) == mode(443, **network) == "PASSTHROUGH"


PORTS = {"name": "http", "port": 80}, {"name": "https", "port": 443}
BUNDLE = "gateway.networking.k8s.io/bundle-version"


def backend_tls(name: str, section: str = "", created: str = "1", kind: str = "Service", **metadata: Any) -> Json:
    """A BackendTLSPolicy of cart's, or of one port of it; its name is what the certificate must say."""
    target = {"group": "" if kind == "Service" else "networking.istio.io", "kind": kind, "name": "cart"}
    spec = {"targetRefs": [{**target, **({"sectionName": section} if section else {})}], "validation": {"hostname": name}}
    return thing("BackendTLSPolicy", name, spec, creationTimestamp=f"2026-09-01T08:00:0{created}Z", **metadata)


def rule(mode: str = "", port: int = 0, **spec: Any) -> Json:
    """A DestinationRule of cart's, older than every policy, that balances at random and may say a TLS mode, for all ports or for one."""
    tls = {"tls": {"mode": mode, "sni": "rule"}} if mode else {}
    of_port = [{"port": {"number": port}, **tls}] if port else []
    policy = {"loadBalancer": {"simple": "RANDOM"}, **({"portLevelSettings": of_port} if of_port else tls)}
    return thing("DestinationRule", "cart", {"host": CART, "trafficPolicy": policy, **spec}, creationTimestamp="2020-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("said", "version", "sni"),
    [
        ([backend_tls("p")], "", ["p", "p"]),
        ([backend_tls("p")], "1.27", [None, None]),
        ([backend_tls("q", created="2"), backend_tls("p")], "", ["p", "p"]),  # the oldest counts
        ([backend_tls("p"), backend_tls("q", "https", "2")], "", ["p", "q"]),  # and one for a port beside it
        ([backend_tls("p", "grpc")], "", [None, None]),  # there is no such port
        ([backend_tls("p", kind="ServiceEntry")], "", [None, None]),
        ([backend_tls("p", annotations={"istio.io/ignore-policy-attachment": "True"})], "", [None, None]),
        ([backend_tls("p"), rule()], "", ["p", "p"]),  # what the rule leaves open
        ([backend_tls("p"), rule("SIMPLE")], "", ["rule", "rule"]),
        ([backend_tls("p"), rule("SIMPLE")], "1.30", ["p", "p"]),  # before, the policy was the first of all and counted whole
        ([backend_tls("p"), rule("SIMPLE", 443)], "", ["p", "rule"]),
        ([backend_tls("p", "https"), rule("SIMPLE")], "", ["rule", "p"]),
        ([backend_tls("p"), rule(exportTo=["*"])], "", [None, None]),  # such a rule is not merged, and is the last
        (
            [
                backend_tls("p"),
                thing("CustomResourceDefinition", "backendtlspolicies.gateway.networking.k8s.io", annotations={BUNDLE: "v1.3.0"}),
            ],
            "",
            [None, None],
        ),
    ],
)
def test_backend_tls_policies_are_a_destination_rule_of_their_target(said: list[Json], version: str, sni: list[str | None]) -> None:
    """gateway/backend_policies.go, mergeDestinationRule; of 200 random meshes istiod had the same TLS in every cluster."""
    known = istiod(service("cart", "shop", *PORTS), *said, version=version)
    (cart,) = known.by_host[CART]
    found = known.destination_rule(Proxy("sidecar", "east", "client", "web", {}), cart)
    settings = [found.policy_for(p, "") if found else None for p in (80, 443)]
    assert [s.tls.sni if s is not None and s.tls is not None else None for s in settings] == sni


def test_a_sidecar_calls_in_plain_text_where_tls_names_a_credential() -> None:
    """buildUpstreamClusterTLSContext: a gateway asks for the Secret, a sidecar does only for a rule that selects it, and anybody may have a ConfigMap."""
    callers = [thing("Pod", "web", {"containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]}, labels={"app": "web"})]
    ruled = {"host": CART, "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "cert"}}}
    selecting = {**ruled, "workloadSelector": {"matchLabels": {"app": "web"}}}
    refs = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}], "hostname": "cart"}
    policy = thing("BackendTLSPolicy", "p", {"targetRefs": [{"group": "", "kind": "Service", "name": "cart"}], "validation": refs})
    modes: list[list[str]] = []
    for one in (thing("DestinationRule", "cart", ruled), thing("DestinationRule", "cart", selecting), policy):
        found = mesh(service("cart"), gateway(HTTP), route(), callers, one)
        branches = Case.of(CART, found).branches
        modes.append([f"{b.view.callers.proxy.kind} {tls.mode}" for b in branches if (tls := spoken(b)) is not None])
    assert [sorted(set(m)) for m in modes] == [
        ["gateway SIMPLE", "sidecar DISABLE"],
        ["sidecar SIMPLE"],
        ["gateway SIMPLE", "sidecar SIMPLE"],
    ]


SECRETS = [thing("Secret", "cert"), thing("Secret", "cert", namespace="certs")]
GRANT = thing(
    "ReferenceGrant",
    "g",
    {"from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"}], "to": [{"kind": "Secret"}]},
    "certs",
)


@pytest.mark.parametrize(
    ("refs", "more", "held", "told"),
    [
        ([], SECRETS, True, False),
        ([{"name": "cert"}], SECRETS, True, False),
        ([{"name": "other"}], SECRETS, False, True),
        ([{"name": "other"}], [], True, False),  # nobody shows which Secrets there are
        ([{"name": "other"}, {"name": "cert"}], SECRETS, True, True),  # with the pods' own certificate: the first of two has no name
        ([{"name": "cert"}, {"name": "other"}], SECRETS, True, False),
        ([{"name": "cert"}] * 3, SECRETS, False, True),
        ([{"name": "cert", "kind": "ConfigMap"}], SECRETS, False, True),
        ([{"name": "cert", "namespace": "certs"}], SECRETS, False, True),
        ([{"name": "cert", "namespace": "certs"}], [*SECRETS, GRANT], True, False),
    ],
)
def test_a_listener_that_may_have_none_of_its_certificates_is_left_out(
    refs: list[Json], more: list[Json], *, held: bool, told: bool
) -> None:
    """buildTLS and Gateway.Valid in gateway/{conversion,controller}.go; istiod pushed the same of 150 random Gateways."""
    listener = {"name": "tls", "port": 443, "protocol": "HTTPS", "hostname": "a.example.com", "tls": {"certificateRefs": refs}}
    own = gateway(listener), route(hosts=["a.example.com"]), service("cart"), more
    assert [r.host for r in seen(*own)] == ["a.example.com"] * held
    found = [f for f in diagnosis.why("a.example.com", [mesh(*own)]).findings if f.cause in {"gw-tls-secret", "gwapi-not-programmed"}]
    assert [(f.cause, f.failing_share) for f in found] == [("gw-tls-secret", 1.0)] * told
