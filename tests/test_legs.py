"""From one proxy to the next: through an egress gateway, into another registered mesh by its gateway's address, and on to whom serves there."""

from __future__ import annotations

import copy
import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bot.store import Store
from bot.sweep import Sweeper
from checks import diagnosis, resources
from checks.diagnosis import Verdict
from checks.mesh import Change, Cluster, Mesh
from checks.resources import KIND_OF, Deployment, EndpointSlice, Pod, Service
from tests.bots import alerts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Json = dict[str, Any]
HEALTHY = Path(__file__).parent / "scenarios" / "egress-chain-broken-into-another-mesh__healthy"
SPAIN = {"madrid", "sevilla"}
HOST = "payments.payments.svc.cluster.local"


@cache
def written(cluster: str) -> list[Json]:
    found: list[Json] = yaml.load((HEALTHY / f"{cluster}.yaml").read_text(), yaml.CSafeLoader)["items"]
    return found


class World:
    """The healthy chain of three clusters and two meshes, to be changed before it is read."""

    def __init__(self) -> None:
        self.items = {c: copy.deepcopy(written(c)) for c in ("home", *sorted(SPAIN))}

    def object(self, cluster: str, kind: str, name: str) -> Json:
        return next(i for i in self.items[cluster] if i["kind"] == kind and i["metadata"]["name"] == name)

    def add(self, cluster: str, kind: str, name: str, spec: Json) -> None:
        meta = {"name": name, "namespace": "payments", "creationTimestamp": "2026-10-03T08:00:00Z"}
        self.items[cluster].append({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec})

    def clusters(self) -> Iterator[Cluster]:
        for name, items in self.items.items():
            parsed = [r for i in items for r in resources.objects(resources.parse(i))]
            yield Cluster(name, "spain" if name in SPAIN else "home", Cluster.index(parsed))

    def meshes(self) -> tuple[Mesh, ...]:
        return Mesh.of(self.clusters(), 0.0)


def said(world: World, host: str = HOST) -> tuple[str, float, list[tuple[str, str, str]]]:
    found = diagnosis.why(host, world.meshes())
    return str(found.verdict), found.failing_share, [(f.cause, f.cluster, f.resource) for f in found.findings]


def test_a_call_is_followed_through_every_gateway_and_the_failing_hop_is_named():
    world = World()
    world.object("sevilla", "Deployment", "payments")["spec"]["replicas"] = 0
    for kind in ("Pod", "EndpointSlice"):
        world.items["sevilla"] = [i for i in world.items["sevilla"] if i["kind"] != kind or i["metadata"]["namespace"] != "payments"]
    found = diagnosis.why(HOST, world.meshes())
    (finding,) = found.findings
    assert (finding.cause, finding.cluster, finding.host, finding.failing_share) == ("workload-scaled-zero", "sevilla", HOST, 1.0)
    assert {(v.cluster, v.kind, v.namespace) for v in finding.viewpoints} == {
        ("home", "sidecar", "web"),
        ("home", "sidecar", "checkout"),
        ("home", "gateway", "istio-system"),
    }
    assert "gateway istio-egressgateway.istio-system of home, then gateway istio-ingressgateway.istio-system of madrid" in finding.message
    legs = [e for e in finding.evidence if e.startswith("leg ")]
    assert [leg[:6] for leg in legs] == ["leg 1:", "leg 2:"]
    assert "at 203.0.113.40:80 in madrid, asked for payments.madrid.example" in legs[1]
    assert [c.name for c in found.clusters] == ["home", "madrid", "sevilla"]
    assert [r.viewpoint.cluster for r in found.routes if r.failing_share] == ["madrid"]


def test_an_address_that_is_no_registered_gateways_is_not_followed():
    world = World()
    world.object("sevilla", "Deployment", "payments")["spec"]["replicas"] = 0
    world.object("home", "ServiceEntry", "payments-madrid")["spec"]["endpoints"][0]["address"] = "203.0.113.41"
    assert said(world) == ("healthy", 0.0, [])


def test_a_gateway_is_known_by_the_name_of_its_load_balancer():
    world = World()
    service = world.object("madrid", "Service", "istio-ingressgateway")
    service["status"]["loadBalancer"]["ingress"] = [{"hostname": "a1b2.elb.madrid.example"}]
    entry = world.object("home", "ServiceEntry", "payments-madrid")["spec"]
    entry |= {"resolution": "DNS", "endpoints": [{"address": "a1b2.elb.madrid.example"}]}
    assert said(world)[0] == "healthy"
    world.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    assert said(world)[2] == [("egress-chain-broken", "home", "VirtualService payments/payments")]


def test_an_external_address_is_a_door_too():
    world = World()
    service = world.object("madrid", "Service", "istio-ingressgateway")
    service["spec"] |= {"type": "ClusterIP", "externalIPs": ["203.0.113.40"]}
    service["status"] = {}
    world.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    assert said(world)[2] == [("egress-chain-broken", "home", "VirtualService payments/payments")]


def routed(world: World, host: str) -> None:
    """Madrid's gateway behind OpenShift's router, by a Route of this host."""
    service = world.object("madrid", "Service", "istio-ingressgateway")
    service["spec"]["type"], service["status"] = "ClusterIP", {}
    spec = {"host": host, "to": {"kind": "Service", "name": "istio-ingressgateway"}, "port": {"targetPort": "http2"}}
    status = {"ingress": [{"host": host, "routerCanonicalHostname": "router.apps.madrid.example"}]}
    meta = {"name": "payments", "namespace": "istio-system"}
    world.items["madrid"].append({"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": meta, "spec": spec, "status": status})
    entry = world.object("home", "ServiceEntry", "payments-madrid")["spec"]
    entry |= {"resolution": "DNS", "endpoints": [{"address": "router.apps.madrid.example"}]}


def test_an_openshift_route_is_a_door_for_the_host_that_it_names():
    world = World()
    routed(world, "payments.madrid.example")
    assert said(world)[0] == "healthy"
    world.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    assert said(world)[2] == [("egress-chain-broken", "home", "VirtualService payments/payments")]
    evidence = diagnosis.why(HOST, world.meshes()).findings[0].evidence
    assert any("at router.apps.madrid.example (Route istio-system/payments), port 80" in e for e in evidence)
    elsewhere = World()
    routed(elsewhere, "other.madrid.example")
    elsewhere.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    assert said(elsewhere)[0] == "healthy", "nobody can say where the router sends a host that no Route here names"


def test_a_port_that_the_other_gateways_service_does_not_have_ends_the_call():
    world = World()
    world.object("home", "ServiceEntry", "payments-madrid")["spec"]["endpoints"][0]["ports"] = {"http": 8443}
    verdict, share, findings = said(world)
    assert (verdict, share, findings) == ("broken", 1.0, [("egress-chain-broken", "home", "VirtualService payments/payments")])
    assert "has no port 8443" in diagnosis.why(HOST, world.meshes()).findings[0].message


@pytest.mark.parametrize(("server", "originates", "lacks"), [("HTTPS", False, "expects TLS"), ("HTTP", True, "expects plain HTTP")])
def test_tls_and_plain_http_do_not_meet(server: str, originates: bool, lacks: str):  # noqa: FBT001 - a column of the table
    world = World()
    if server == "HTTPS":
        port = world.object("madrid", "Gateway", "from-abroad")["spec"]["servers"][0]
        port |= {"port": {"number": 80, "name": "https", "protocol": "HTTPS"}, "tls": {"mode": "SIMPLE", "credentialName": "madrid"}}
    if originates:
        world.add("home", "DestinationRule", "madrid", {"host": "payments.madrid.example", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}})
    found = diagnosis.why(HOST, world.meshes())
    assert [f.cause for f in found.findings] == ["egress-chain-broken"]
    assert lacks in found.findings[0].message


def test_tls_that_goes_through_unread_is_followed_by_its_server_name():
    world = World()
    world.add(
        "home",
        "DestinationRule",
        "madrid",
        {"host": "payments.madrid.example", "trafficPolicy": {"tls": {"mode": "SIMPLE", "sni": "secure.madrid.example"}}},
    )
    server = world.object("madrid", "Gateway", "from-abroad")["spec"]["servers"][0]
    server |= {"port": {"number": 80, "name": "tls", "protocol": "TLS"}, "tls": {"mode": "PASSTHROUGH"}}
    spec = world.object("madrid", "VirtualService", "from-abroad")["spec"]
    del spec["http"]
    route = [{"destination": {"host": HOST, "port": {"number": 80}}}]
    spec |= {"hosts": ["*.madrid.example"], "tls": [{"match": [{"port": 80, "sniHosts": ["secure.madrid.example"]}], "route": route}]}
    assert said(world)[0] == "healthy"
    spec["tls"][0]["match"][0]["sniHosts"] = ["payments.madrid.example"]
    assert said(world)[2] == [("egress-chain-broken", "home", "VirtualService payments/payments")]


def test_a_rule_that_these_requests_never_come_to_is_not_theirs():
    world = World()
    spec = world.object("madrid", "VirtualService", "from-abroad")["spec"]
    good = spec["http"][0]["route"]
    dead = [{"destination": {"host": "gone.payments.svc.cluster.local", "port": {"number": 80}}}]
    spec["http"] = [{"match": [{"uri": {"prefix": "/v2"}}], "route": dead}, {"route": good}]
    assert said(world)[0] == "broken"
    for rule in world.object("home", "VirtualService", "payments")["spec"]["http"]:
        rule["match"][0]["uri"] = {"prefix": "/v1"}
    world.object("home", "VirtualService", "payments")["spec"]["http"].reverse()
    assert "workload" not in str(said(world))
    assert [f[1:] for f in said(world)[2] if f[0] == "vs-dest-host-unknown"] == []


def test_what_goes_abroad_of_a_rule_is_what_fails_of_it():
    world = World()
    world.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    second = world.object("home", "VirtualService", "payments")["spec"]["http"][1]
    web = {"host": "web.web.svc.cluster.local", "port": {"number": 80}}
    second["route"] = [{**second["route"][0], "weight": 30}, {"destination": web, "weight": 70}]
    assert said(world)[:2] == ("degraded", 0.3)


def test_a_gateway_without_a_ready_pod_is_named_as_that():
    world = World()
    for item in world.items["madrid"]:
        if item["kind"] == "Pod" and item["metadata"]["labels"].get("istio") == "ingressgateway":
            item["status"]["conditions"][0]["status"] = "False"
        if item["kind"] == "EndpointSlice" and item["metadata"]["name"].startswith("istio-ingressgateway"):
            for e in item["endpoints"]:
                e["conditions"] = {"ready": False, "serving": False, "terminating": False}
    assert [(cause, resource) for cause, _, resource in said(world)[2]] == [
        ("pods-all-notready", "Service istio-system/istio-ingressgateway")
    ]


def test_a_fault_of_the_other_gateway_keeps_its_name():
    world = World()
    world.object("madrid", "Gateway", "from-abroad")["spec"]["servers"][0]["hosts"] = ["orders.madrid.example"]
    assert [f[:2] for f in said(world)[2]] == [("vs-host-not-in-gateway", "madrid")]


def test_a_mesh_that_cannot_be_read_leaves_the_answer_open():
    world = World()
    made = []
    for c in world.clusters():
        objects = {k: v for k, v in c.objects.items() if k is not Pod} if c.name == "madrid" else c.objects
        unreadable = {KIND_OF[Pod].key: "403"} if c.name == "madrid" else {}
        made.append(Cluster(c.name, c.mesh, objects, unreadable))
    home = next(m for m in Mesh.of(made, 0.0) if m.name == "home")
    found = diagnosis.diagnose(HOST, home)
    assert found.verdict is Verdict.UNKNOWN
    assert ("egress-chain-broken", "madrid") in {(s.check, s.cluster) for s in found.skipped}


def test_a_change_in_one_mesh_is_weighed_for_those_that_call_into_it():
    meshes = World().meshes()
    sevilla = next(c for m in meshes for c in m.clusters if c.name == "sevilla")
    gone = [Change("sevilla", Deployment, "payments", "payments", None)]
    gone += [Change("sevilla", k, "payments", o.name, None) for k in (Pod, EndpointSlice) for o in sevilla.ordered(k, "payments")]
    found = diagnosis.whatif(meshes, gone)
    assert {(f.host, f.viewpoints[0].cluster) for f in found.introduced if f.failing_share} >= {(HOST, "home")}


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_of_what_changed_in_another_mesh_is_the_sweep_of_everything(seed: int):
    dice = random.Random(seed)  # noqa: S311 - a test's dice
    meshes = World().meshes()
    swept = {m.name: diagnosis.sweep(m) for m in meshes}
    kinds = (Pod, EndpointSlice, Service, Deployment)
    about = ("payments", "istio-ingressgateway", "istio-egressgateway")
    pool = [(c.name, k, o) for m in meshes for c in m.clusters for k in kinds for o in c.all(k) if o.name.startswith(about)]
    failing = 0
    for _ in range(50):
        name, kind, o = dice.choice(pool)
        change = Change(name, kind, o.namespace, o.name, dice.choice([None, o, o]))
        meshes = Mesh.beside(m.apply([change] if any(c.name == name for c in m.clusters) else []) for m in meshes)
        swept = {m.name: diagnosis.sweep(m, swept[m.name]) for m in meshes}
        afresh = Mesh.of((Cluster(c.name, c.mesh, c.objects) for m in meshes for c in m.clusters), 0.0)
        for mesh in afresh:
            assert diagnosis.sweep(mesh).findings == swept[mesh.name].findings, change
        failing += any(f.host == HOST and f.failing_share for f in swept["home"].findings)
    assert failing


class Watched:
    """Clusters that the bot watches."""

    def __init__(self, *clusters: Cluster) -> None:
        self.now = clusters

    def clusters(self) -> tuple[Cluster, ...]:
        return self.now

    async def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        if False:
            yield ()


async def test_the_bot_tells_the_callers_mesh_of_a_fault_in_another(redis_url: str):
    world = World()
    world.object("madrid", "VirtualService", "from-abroad")["spec"]["hosts"] = ["orders.madrid.example"]
    store = Store(redis_url)
    await store.open()
    try:
        await Sweeper(Watched(*world.clusters()), store, alerts()).look()
        found = {(a.finding.cause, a.finding.cluster, a.finding.host) for a in (await store.alerts()).values()}
    finally:
        await store.close()
    assert ("egress-chain-broken", "home", HOST) in found
    asked = diagnosis.why(HOST, world.meshes())
    assert {(f.cause, f.cluster, f.host) for f in asked.findings} <= found
