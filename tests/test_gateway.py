"""Who is told why nobody gets to a gateway's port, and to whom a Gateway belongs where several workloads carry one label."""

from __future__ import annotations

from typing import Any

import pytest

from checks import diagnosis, gateway, resources, routes
from checks.mesh import Cluster, Mesh
from checks.routes import upstreams
from checks.viewpoints import callers

Json = dict[str, Any]
HOST = "shop.example.com"


def thing(kind: str, name: str, labels: Json | None = None, api: str = "v1", **fields: Any) -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "edge", "labels": labels or {}}, **fields}


def served(number: int, **selector: str) -> tuple[Json, Json]:
    """A Gateway with an HTTP server on a port, and a VirtualService that answers there by itself."""
    server = {"port": {"number": number, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]}
    gateway = {"selector": selector or {"istio": "ingress"}, "servers": [server]}
    rules = {"hosts": [HOST], "gateways": ["one"], "http": [{"directResponse": {"status": 200}}]}
    api = "networking.istio.io/v1"
    return thing("Gateway", "one", api=api, spec=gateway), thing("VirtualService", "one", api=api, spec=rules)


def pod(name: str = "in", env: str = "", **spec: Any) -> Json:
    one: Json = {"name": "istio-proxy", "args": ["proxy", "router"], "env": [{"name": "ISTIO_META_UNPRIVILEGED_POD", "value": env}]}
    one["ports"] = spec.pop("ports", [])
    return thing("Pod", name, {"istio": "ingress", "app": name}, spec={"containers": [one], **spec}, status={"podIP": "10.1.0.1"})


def service(*ports: tuple[int, int | str], name: str = "in") -> Json:
    return thing(
        "Service", name, spec={"selector": {"app": name}, "ports": [{"name": f"http-{n}", "port": n, "targetPort": t} for n, t in ports]}
    )


def mesh(*items: Json) -> Mesh:
    return Mesh("", [Cluster("east", objects=Cluster.index(r for i in items for r in resources.objects(resources.parse(i))))], 0)


@pytest.mark.parametrize(
    ("behind", "number", "pods", "why", "mended"),
    [
        (service((80, 80)), 80, pod(env="true"), "port 80 of the gateway's pods, which may not open one below 1024", "8080"),
        (service((80, 80)), 80, pod(env="false"), "", ""),
        (service((80, 8080)), 80, pod(env="true"), "", ""),
        (service((80, 8080), (81, 8080)), 81, pod(), "the pods listen on 81, and the Service leads to 8080", "81"),
        (service((80, 8080), (81, 8081)), 81, pod(), "", ""),
        (service((80, "web")), 80, pod(ports=[{"name": "web", "containerPort": 8080}]), "", ""),
        (service((80, "web")), 80, pod(), "Service edge/in leads it to targetPort web, which no container", ""),
        (service((80, "web"), (443, 8443)), 80, pod(ports=[{"name": "http", "containerPort": 8080}]), "targetPort web", "80"),
        (service((80, 8080)), 8080, pod(), "", ""),
        (service((80, 8080)), 31400, pod(), "no Service of the gateway's pods has it", "31400"),
        (service((80, 8080)), 31400, pod(ports=[{"containerPort": 31400, "hostPort": 31400}]), "", ""),
        (service((80, 8080)), 31400, pod(hostNetwork=True), "", ""),
    ],
)
def test_a_port_by_which_nobody_gets_to_the_pods_is_told(behind: Json, number: int, pods: Json, why: str, mended: str) -> None:
    found = [f for f in diagnosis.why(HOST, [mesh(*served(number), behind, pods)]).findings if f.failing_share]
    assert [f.cause for f in found] == ["gw-port-not-on-service"] * bool(why)
    for f in found:
        assert why in f.message
        assert bool(f.patch) == bool(mended)  # without any slice the Service is ill by itself
        assert mended in (f.patch or "")


API = "networking.istio.io/v1"
READY = {**pod(), "status": {"podIP": "10.1.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
BY_HAND = thing("Service", "hand", spec={"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})


def named(*ports: tuple[str, int], **endpoint: Any) -> Json:
    """An EndpointSlice of BY_HAND that names the gateway's pod by its address."""
    labels = {"kubernetes.io/service-name": "hand"}
    fields = {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.1"], **endpoint}],
        "ports": [{"name": n, "port": p} for n, p in ports],
    }
    return thing("EndpointSlice", "hand-1", labels, "discovery.k8s.io/v1", **fields)


def entry(**spec: Any) -> Json:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}]
    return thing("ServiceEntry", "vm", api=API, spec={"hosts": ["in.example.net"], "resolution": "STATIC", "ports": ports, **spec})


@pytest.mark.parametrize(
    ("ahead", "opened", "reached"),
    [
        ((BY_HAND, named(("http", 8081))), "http.8081", True),
        ((BY_HAND, named(("other", 8081))), "http.80", True),  # nothing is known to lead there
        (({**BY_HAND, "spec": {**BY_HAND["spec"], "selector": {"app": "nobody"}}}, named(("http", 8081))), "http.8081", True),
        ((BY_HAND, named(("http", 8081), targetRef={"kind": "Pod", "name": "gone"})), "http.80", True),
        ((BY_HAND, named(("http", 8081)), service((443, 8443))), "http.80", False),  # only where no Service selects the pods
        ((entry(workloadSelector={"labels": {"app": "in"}}),), "http.8080", True),
        ((entry(endpoints=[{"address": "10.1.0.1", "ports": {"http": 8082}}]),), "http.8082", True),
        ((entry(endpoints=[{"address": "10.1.0.2"}]),), "http.80", True),
        ((entry(workloadSelector={"labels": {"app": "in"}}), service((443, 8443))), "http.8080", True),  # both count
        (
            (
                {**BY_HAND, "metadata": {**BY_HAND["metadata"], "creationTimestamp": "2026-01-02T00:00:00Z"}},
                named(("http", 8081)),
                entry(endpoints=[{"address": "10.1.0.1"}]),
            ),
            "http.8080",
            True,
        ),  # the oldest is asked first
    ],
)
def test_what_opens_a_gateways_port_without_a_selecting_service(ahead: tuple[Json, ...], opened: str, reached: bool) -> None:  # noqa: FBT001 - a case
    """controller.GetProxyServiceTargets, serviceentry.Controller.GetProxyServiceTargets and Proxy.SetServiceTargets; istiod opened the same."""
    found = mesh(*served(80), READY, *ahead)
    where = found.cluster("east")
    ups = upstreams(found, found.proxy(where, next(iter(where.all(resources.Pod))), "gateway"))
    assert list(gateway.merge(found, ups).by_route) == [opened]
    assert [f.cause for f in diagnosis.why(HOST, [found]).findings] == ["gw-port-not-on-service"] * (not reached)


def test_workloads_that_carry_one_label_are_told_apart_by_what_gateways_select() -> None:
    both = mesh(*served(81, app="internal"), pod("in"), pod("internal"), service((80, 8080)), service((81, 8081), name="internal"))
    assert [c.viewpoint.selector for c in callers(both) if c.proxy.pod] == ["app=in,istio=ingress", "app=internal,istio=ingress"]
    assert [r.host for r in routes.for_pod(both, "east", "edge/internal")] == [HOST]
    assert not diagnosis.why(HOST, [both]).findings
    assert [c.viewpoint.selector for c in callers(mesh(*served(80), pod("in"))) if c.proxy.pod] == ["istio=ingress"]


def secured(credential: str, mode: Json, *more: Json, namespace: str = "edge") -> Mesh:
    """A gateway in edge whose server on port 443 has these TLS settings, and Secrets named cert in edge and in shop."""
    gateway, rules = served(443)
    gateway["spec"]["servers"][0] = {**gateway["spec"]["servers"][0], "tls": {"credentialName": credential, **mode}}
    gateway["spec"]["servers"][0]["port"]["protocol"] = "HTTPS"
    gateway["metadata"]["namespace"] = rules["metadata"]["namespace"] = namespace
    secrets = [thing("Secret", "cert") for _ in range(2)]
    secrets[1]["metadata"]["namespace"] = "shop"
    return mesh(gateway, rules, pod(), service((443, 8443)), *secrets, *more)


@pytest.mark.parametrize(
    ("credential", "namespace", "causes"),
    [
        ("cert", "edge", []),
        ("kubernetes://cert", "shop", []),
        ("edge/cert", "shop", []),
        ("kubernetes://other", "edge", ["gw-tls-secret"]),
        ("shop/cert", "edge", ["gw-tls-secret"]),  # it is there, and pods of edge do not get it
        ("kubernetes://shop/cert", "shop", ["gw-tls-secret"]),
        ("kubernetes-gateway://edge/cert", "edge", []),
        ("kubernetes-gateway://edge/cert", "shop", ["gw-tls-secret"]),  # the Gateway would have to stand beside the pods
        ("kubernetes-gateway://shop/cert", "edge", ["gw-tls-secret"]),
        ("builtin://", "edge", []),
    ],
)
def test_a_gateways_pods_get_secrets_of_their_own_namespace(credential: str, namespace: str, causes: list[str]) -> None:
    found = diagnosis.why(HOST, [secured(credential, {"mode": "SIMPLE"}, namespace=namespace)]).findings
    assert [f.cause for f in found] == causes


def test_tls_without_a_mode_goes_through_unread() -> None:
    """PASSTHROUGH is the first of the API's modes: a certificate beside it is not looked at."""
    (found,) = diagnosis.why(HOST, [secured("cert", {})]).findings
    assert (found.cause, "SIMPLE" in (found.patch or "")) == ("vs-http-on-tcp-port", True)
    assert not diagnosis.why(HOST, [secured("cert", {"mode": "SIMPLE"})]).findings


@pytest.mark.parametrize(
    ("protocol", "mode", "kind", "causes"),
    [
        ("HTTP", "", "tcp", ["vs-http-on-tcp-port"]),
        ("TLS", "SIMPLE", "tls", ["vs-http-on-tcp-port"]),
        ("TLS", "SIMPLE", "tcp", []),
        ("TLS", "PASSTHROUGH", "tcp", ["vs-http-on-tcp-port"]),
        ("HTTPS", "PASSTHROUGH", "tls", []),
        ("TCP", "", "tcp", []),
        ("HTTPS", "SIMPLE", "tls", ["vs-http-on-tcp-port"]),
    ],
)
def test_rules_of_a_kind_that_no_server_takes_are_told(protocol: str, mode: str, kind: str, causes: list[str]) -> None:
    gateway, rules = served(443)
    server = gateway["spec"]["servers"][0]
    server["port"]["protocol"] = protocol
    if mode:
        server["tls"] = {"mode": mode, **({"credentialName": "cert"} if mode == "SIMPLE" else {})}
    match = {"match": [{"sniHosts": [HOST]}]} if kind == "tls" else {}
    leads = {"route": [{"destination": {"host": "db.example.org", "port": {"number": 5432}}}]}
    rules["spec"] = {"hosts": [HOST], "gateways": ["one"], kind: [{**match, **leads}]}
    outside = {"hosts": ["db.example.org"], "resolution": "DNS", "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}]}
    entry = thing("ServiceEntry", "db", api="networking.istio.io/v1", spec=outside)
    found = mesh(gateway, rules, entry, pod(), service((443, 8443)), thing("Secret", "cert"))
    assert [f.cause for f in diagnosis.why(HOST, [found]).findings if f.failing_share] == causes


@pytest.mark.parametrize(
    ("tls", "topology", "annotation", "fails"),
    [
        (None, "", "", True),
        ({"httpsRedirect": True}, "", "", False),
        ({"httpsRedirect": True}, "defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}", "", True),
        ({"httpsRedirect": True}, "", "gatewayTopology: {numTrustedProxies: 2}", True),
    ],
)
def test_no_rule_fails_where_plain_http_is_sent_to_https(tls: Json | None, topology: str, annotation: str, fails: bool) -> None:  # noqa: FBT001 - a case
    """Envoy looks at VirtualHost.require_tls before any route; the scheme is what trusted proxies say of it (xff_num_trusted_hops)."""
    gateway, rules = served(80)
    gateway["spec"]["servers"][0] |= {"tls": tls} if tls else {}
    rules["spec"]["http"] = [{"route": [{"destination": {"host": "nobody"}}]}]
    config = thing("ConfigMap", "istio", data={"mesh": topology})
    config["metadata"]["namespace"] = "istio-system"
    one = {**READY, "metadata": {**READY["metadata"], "annotations": {"proxy.istio.io/config": annotation}}}
    found = diagnosis.why(HOST, [mesh(gateway, rules, config, service((80, 80)), one)])
    assert [f.cause for f in found.findings] == ["vs-dest-host-unknown"] * fails
    assert found.failing_share == float(fails)
