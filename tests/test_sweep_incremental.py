"""A sweep that looks only at what changed is the sweep of everything: over long random histories of a mesh of two clusters.

Every object that may exist is a slot; an event makes a slot's object anew, at random, or takes it away. The objects are those of real
clusters in their shape; that they contradict each other (a slice of pods that are gone, a rule of a missing host) is what happens while
events of different kinds arrive one after the other.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from checks import diagnosis
from checks.mesh import Change, Cluster, Mesh
from checks.resources import KIND_OF, Resource, decode, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.diagnosis import Sweep

Json = dict[str, Any]
CLUSTERS = ("east", "west")
EVENTS = 2000


class Slot(NamedTuple):
    """A place where an object may stand, and how often it is touched."""

    cluster: str
    api: str
    kind: str
    namespace: str
    name: str
    make: Callable[[random.Random], Json | None]
    often: int


def service(rng: random.Random, app: str, ip: str) -> Json:
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "tcp-db", "port": 5432, "targetPort": 5432},
        {"name": "any", "port": 7000},
    ]
    spec = {
        "clusterIP": rng.choice([ip, ip, ip, "None"]),
        "selector": {"app": rng.choice([app] * 5 + [f"{app}x"])},
        "ports": rng.sample(ports, rng.randint(1, 3)),
    }
    if rng.random() < 0.1:
        spec["internalTrafficPolicy"] = "Local"
    annotations = {"networking.istio.io/exportTo": rng.choice([".", "client", "~"])} if rng.random() < 0.1 else {}
    labels = {"istio.io/persistent-session": "true"} if rng.random() < 0.1 else {}
    return {"metadata": {"annotations": annotations, "labels": labels}, "spec": spec}


def slice_(rng: random.Random, app: str, namespace: str, net: int, pods: list[str]) -> Json:
    endpoints = []
    for i, pod in enumerate(pods):
        if rng.random() < 0.75:
            ready = rng.random() < 0.7
            conditions = {"ready": ready, "serving": ready or rng.random() < 0.5, "terminating": not ready and rng.random() < 0.3}
            endpoints.append({"addresses": [f"10.{net}.0.{i}"], "conditions": conditions, "nodeName": "n1"})
            if rng.random() < 0.9:
                endpoints[-1]["targetRef"] = {"kind": "Pod", "name": pod, "namespace": namespace}
    ports = [{"name": "http", "port": 8080}, {"name": "tcp-db", "port": 5432}, {"name": "any", "port": 7000}]
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": app}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": rng.sample(ports, rng.randint(1, 3)),
    }


def pod(rng: random.Random, app: str, address: str, owner: str = "") -> Json:
    labels = {"app": app, "version": rng.choice(["v1", "v1", "v2", "v3"])}
    if rng.random() < 0.8:
        labels["security.istio.io/tlsMode"] = "istio"
    containers = [{"name": "app", "ports": [{"name": "web", "containerPort": rng.choice([8080, 8081])}]}]
    if rng.random() < 0.7:
        containers.append({"name": "istio-proxy", "args": ["proxy", "sidecar"]})
    meta: Json = {"labels": labels}
    if owner:
        meta["ownerReferences"] = [{"kind": "ReplicaSet", "name": owner, "controller": True}]
    if rng.random() < 0.1:
        meta["deletionTimestamp"] = "2026-11-22T14:00:00Z"
    ready = rng.random() < 0.7
    waiting = {} if ready else {"waiting": {"reason": rng.choice(["CrashLoopBackOff", "ImagePullBackOff"])}}
    status = {
        "phase": "Running",
        "podIP": address if rng.random() < 0.9 else "",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"name": "app", "ready": ready, "state": waiting}],
    }
    return {"metadata": meta, "spec": {"nodeName": rng.choice(["n1", "n2"]), "containers": containers}, "status": status}


def gateway_pod(rng: random.Random, address: str) -> Json:
    proxy = {"name": "istio-proxy", "args": ["proxy", "router"], "ports": [{"name": "web", "containerPort": rng.choice([8080, 8081])}]}
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": rng.choice(["True", "False"])}]}
    return {
        "metadata": {"labels": {"istio": "ingress", "app": rng.choice(["ingress", "edge"])}},
        "spec": {"nodeName": "n1", "containers": [proxy]},
        "status": status,
    }


def workload(rng: random.Random, app: str, version: str) -> Json:
    replicas = rng.choice([0, 0, 1, 2, 3])
    return {
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": app, "version": version}}}},
        "status": {"readyReplicas": rng.randint(0, replicas)},
    }


def istiod(rng: random.Random, cluster: str) -> Json:
    name = rng.choice([cluster, cluster, f"{cluster}-id"])
    return {
        "metadata": {"labels": {"app": "istiod"}},
        "spec": {"containers": [{"name": "discovery", "image": "istio/pilot:1.28.0", "env": [{"name": "CLUSTER_ID", "value": name}]}]},
    }


def destination(rng: random.Random) -> Json:
    host = rng.choice(
        ["cart.shop.svc.cluster.local"] * 5 + ["ledger.core.svc.cluster.local", "api.partner.example", "gone.shop.svc.cluster.local"]
    )
    found: Json = {"host": host}
    if rng.random() < 0.6:
        found["subset"] = rng.choice(["v1", "v2", "v3"])
    if rng.random() < 0.4:
        found["port"] = {"number": rng.choice([80, 5432, 7000])}
    return found


def weighted(rng: random.Random) -> list[Json]:
    count = rng.choice([1, 2, 2, 3])
    return [{"destination": destination(rng), "weight": rng.choice([0, 10, 50])} for _ in range(count)]


def virtual_service(rng: random.Random, hosts: list[str], gateways: list[str] | None = None) -> Json:
    http: list[Json] = [{"route": weighted(rng)}]
    if rng.random() < 0.4:
        match: Json = {"uri": {"prefix": "/a"}}
        if rng.random() < 0.5:
            match = {"sourceLabels": {"version": rng.choice(["v1", "v2"])}}
        elif rng.random() < 0.3:
            match = {"sourceNamespace": rng.choice(["client", "shop"])}
        http.insert(0, {"match": [match], "route": weighted(rng)})
    spec: Json = {"hosts": hosts, "http": http}
    if rng.random() < 0.3:
        spec["tcp"] = [{"match": [{"port": 5432}], "route": weighted(rng)}]
    if gateways:
        spec["gateways"] = gateways
    if rng.random() < 0.15:
        spec["exportTo"] = [rng.choice([".", "client"])]
    return {"spec": spec}


def destination_rule(rng: random.Random, host: str) -> Json:
    subsets = [{"name": n, "labels": {"version": rng.choice([n, n, "v9"])}} for n in ("v1", "v2", "v3") if rng.random() < 0.75]
    spec: Json = {"host": host, "subsets": subsets}
    if rng.random() < 0.15:
        spec["exportTo"] = ["."]
    if rng.random() < 0.1:
        spec["workloadSelector"] = {"matchLabels": {"version": "v1"}}
    if rng.random() < 0.15:
        spec["trafficPolicy"] = {"outlierDetection": {"minHealthPercent": 30}}
    return {"spec": spec}


def service_entry(rng: random.Random) -> Json:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}, {"number": 5432, "name": "tcp-db", "protocol": "TCP"}]
    spec: Json = {
        "hosts": ["api.partner.example"],
        "ports": rng.sample(ports, rng.randint(1, 2)),
        "resolution": rng.choice(["STATIC", "DNS", "NONE"]),
    }
    if rng.random() < 0.5:
        spec["endpoints"] = [{"address": "198.51.100.7", "labels": {"version": rng.choice(["v1", "v2"])}}]
    elif spec["resolution"] == "STATIC":
        spec["workloadSelector"] = {"labels": {"app": rng.choice(["ledger", "cart"])}}
    if rng.random() < 0.3:
        spec["exportTo"] = ["."]
    return {"spec": spec}


def http_route(rng: random.Random) -> Json:
    backends = [{"name": n, "port": 80, "weight": rng.choice([0, 1, 3])} for n in rng.sample(["cart", "search", "gone"], rng.randint(1, 2))]
    return {"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "search", "port": 80}], "rules": [{"backendRefs": backends}]}}


def slots() -> Iterator[Slot]:
    apps, istio, discovery, api = "apps/v1", "networking.istio.io/v1", "discovery.k8s.io/v1", "gateway.networking.k8s.io/v1"
    cart = [f"cart-{i}" for i in range(4)]
    for net, c in enumerate(CLUSTERS, 1):
        network = {"topology.istio.io/network": f"net-{c}"}
        for ns in ("istio-system", "client", "shop", "core"):
            labels = {"istio-injection": "enabled"}
            maybe = network if ns == "istio-system" else {"team": "a"}
            yield Slot(
                c,
                "v1",
                "Namespace",
                "",
                ns,
                lambda r, a=labels, b=maybe: {"metadata": {"labels": {**a, **(b if r.random() < 0.3 else {})}}},
                1,
            )
        for node in ("n1", "n2"):
            yield Slot(c, "v1", "Node", "", node, lambda r: {"metadata": {"labels": {"topology.kubernetes.io/region": r.choice("ab")}}}, 2)
        yield Slot(
            c,
            "v1",
            "ConfigMap",
            "istio-system",
            "istio",
            lambda r: {
                "data": {"mesh": r.choice(["", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n", "defaultServiceExportTo: ['.']\n"])}
            },
            1,
        )
        yield Slot(c, "v1", "Pod", "istio-system", "istiod-0", lambda r, c=c: istiod(r, c), 1)
        yield Slot(
            c,
            apps,
            "Deployment",
            "istio-system",
            "istiod",
            lambda _: {"metadata": {"labels": {"app": "istiod"}}, "spec": {"replicas": 1}},
            1,
        )
        yield Slot(c, "v1", "Pod", "istio-system", "ingress-0", lambda r, n=net: gateway_pod(r, f"10.{n}.9.1"), 2)
        gateway_service = {
            "type": "LoadBalancer",
            "clusterIP": f"10.9{net}.0.9",
            "selector": {"istio": "ingress"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
        }
        yield Slot(
            c,
            "v1",
            "Service",
            "istio-system",
            "ingress",
            lambda r, s=gateway_service, n=network: {
                "metadata": {"labels": n if r.random() < 0.3 else {}},
                "spec": s,
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
            },
            1,
        )
        for i, name in enumerate(cart):
            yield Slot(c, "v1", "Pod", "shop", name, lambda r, i=i, n=net: pod(r, "cart", f"10.{n}.0.{i}", "cart-v1-5c9f"), 8)
        for i, name in enumerate(("web-0", "batch-0")):
            yield Slot(c, "v1", "Pod", "client", name, lambda r, i=i, n=net: pod(r, "web", f"10.{n}.2.{i}"), 3)
        yield Slot(c, "v1", "Pod", "core", "ledger-0", lambda r, n=net: pod(r, "ledger", f"10.{n}.0.0"), 5)
        for version in ("v1", "v2"):
            yield Slot(c, apps, "Deployment", "shop", f"cart-{version}", lambda r, v=version: workload(r, "cart", v), 6)
        yield Slot(c, apps, "StatefulSet", "core", "ledger", lambda r: workload(r, "ledger", "v1"), 4)
        yield Slot(
            c,
            apps,
            "ReplicaSet",
            "shop",
            "cart-v1-5c9f",
            lambda r: {"metadata": {"ownerReferences": [{"kind": "Deployment", "name": r.choice(["cart-v1", "cart-v2"])}]}},
            2,
        )
        for ns, app, pods in (
            ("shop", "cart", cart),
            ("shop", "search", cart),
            ("core", "ledger", ["ledger-0"]),
            ("core", "mail", ["ledger-0"]),
        ):
            yield Slot(
                c, "v1", "Service", ns, app, lambda r, a=app, n=net: service(r, "cart" if a == "search" else a, f"10.9{n}.0.{len(a)}"), 2
            )
            yield Slot(c, discovery, "EndpointSlice", ns, f"{app}-x7k2p", lambda r, a=app, ns=ns, n=net, p=pods: slice_(r, a, ns, n, p), 14)
        yield Slot(
            c,
            istio,
            "WorkloadEntry",
            "core",
            "vm",
            lambda r: {
                "metadata": {"labels": {"app": "ledger", "version": "v1"}},
                "spec": {"address": r.choice(["10.8.8.8", "vm.example"])},
            },
            3,
        )
        yield Slot(c, istio, "VirtualService", "shop", "cart", lambda r: virtual_service(r, ["cart"]), 3)
        yield Slot(
            c,
            istio,
            "VirtualService",
            "client",
            "cart",
            lambda r: virtual_service(r, [r.choice(["cart.shop.svc.cluster.local", "api.partner.example", "*.shop.svc.cluster.local"])]),
            2,
        )
        yield Slot(
            c, istio, "VirtualService", "shop", "public", lambda r: virtual_service(r, ["shop.example.com"], ["istio-system/public"]), 2
        )
        yield Slot(
            c,
            istio,
            "Gateway",
            "istio-system",
            "public",
            lambda _: {
                "spec": {
                    "selector": {"istio": "ingress"},
                    "servers": [{"hosts": ["*"], "port": {"name": "http", "number": 80, "protocol": "HTTP"}}],
                }
            },
            1,
        )
        yield Slot(c, istio, "DestinationRule", "shop", "cart", lambda r: destination_rule(r, "cart"), 3)
        yield Slot(
            c,
            istio,
            "DestinationRule",
            "client",
            "cart",
            lambda r: destination_rule(r, r.choice(["cart.shop.svc.cluster.local", "*.local"])),
            1,
        )
        yield Slot(c, istio, "ServiceEntry", "core", "partner", service_entry, 2)
        yield Slot(c, istio, "ServiceEntry", "core", "partner-new", service_entry, 2)
        yield Slot(c, istio, "ServiceEntry", "shop", "partner", service_entry, 1)
        yield Slot(
            c, istio, "Sidecar", "client", "default", lambda r: {"spec": {"egress": [{"hosts": [r.choice(["./*", "shop/*", "*/*"])]}]}}, 1
        )
        yield Slot(c, api, "HTTPRoute", "shop", "search", http_route, 1)


SLOTS = tuple(slots())


class History:
    """A mesh that is changed event by event, and what it holds now, to build it afresh."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a test's dice
        self.held: dict[tuple[str, type[Resource], str, str], Resource] = {}
        for slot in SLOTS:
            if self.rng.random() < 0.85:
                self._put(self._make(slot))
        self.mesh = self.fresh()

    def _make(self, slot: Slot) -> Change:
        kind = kind_of(slot.api, slot.kind)
        assert kind is not None
        made = slot.make(self.rng)
        new: Resource | None = None
        if made is not None and self.rng.random() < 0.85:
            created = f"2026-09-0{1 + sum(map(ord, slot.name + slot.namespace)) % 9}T08:00:00Z"
            meta = {"name": slot.name, "namespace": slot.namespace, "creationTimestamp": created, **made.get("metadata", {})}
            new = decode(kind, msgspec.json.encode({**made, "apiVersion": slot.api, "kind": slot.kind, "metadata": meta}))
        return Change(slot.cluster, kind.struct, slot.namespace, slot.name, new)

    def _put(self, change: Change) -> None:
        key = change.cluster, change.kind, change.namespace, change.name
        if change.new is None:
            self.held.pop(key, None)
        else:
            self.held[key] = change.new

    def happen(self) -> int:
        """One to four events at once, as the bot gathers them."""
        count = self.rng.choice([1, 1, 1, 2, 4])
        changes = [self._make(s) for s in self.rng.choices(SLOTS, [s.often for s in SLOTS], k=count)]
        for change in changes:
            self._put(change)
        self.mesh = self.mesh.apply(changes, read_at=self.mesh.read_at + 1)
        return count

    def fresh(self) -> Mesh:
        """The same objects as a mesh that nobody knew before; in another order, which must not matter."""
        keys = sorted(self.held, key=lambda k: (k[0], KIND_OF[k[1]].plural, k[2], k[3]))
        self.rng.shuffle(keys)
        clusters = [Cluster(c, objects=Cluster.index(self.held[k] for k in keys if k[0] == c)) for c in CLUSTERS]
        return Mesh("", clusters, getattr(self, "mesh", Mesh("", (), 0.0)).read_at)


def seen(swept: Sweep, mesh: Mesh) -> dict[str, Any]:
    """What a sweep says, and the routes of every viewpoint of the mesh that it swept."""
    routes = sorted(map(repr, diagnosis.routes([mesh], None)))
    return {"hosts": swept.hosts, "findings": swept.findings, "skipped": swept.skipped, "routes": routes}


@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_of_what_changed_is_the_sweep_of_everything(seed: int) -> None:
    history = History(seed)
    swept = diagnosis.sweep(history.mesh)
    happened = findings = 0
    while happened < EVENTS // 4:
        happened += history.happen()
        swept = diagnosis.sweep(history.mesh, swept)
        fresh = history.fresh()
        everything = diagnosis.sweep(fresh)
        assert seen(swept, history.mesh) == seen(everything, fresh), f"seed {seed}, after {happened} events"
        assert swept.skipped == ()
        findings += len(swept.findings)
    assert findings > happened, "a mesh that is never ill proves nothing"


@pytest.mark.parametrize("seed", range(2))
def test_what_is_owed_by_a_sweep_is_as_it_was_before_and_is_made_good_by_those_that_follow(seed: int) -> None:
    history = History(seed + 100)
    swept = diagnosis.sweep(history.mesh)
    owing = 0
    for turn in range(60):
        history.happen()
        before, swept = swept, diagnosis.sweep(history.mesh, swept, most=2)
        owing += swept.owed > 0
        if swept.owed:
            ground = swept.__dict__["ground"]
            owed = {f for f in before.findings if f.host in ground.owed}
            assert owed <= set(swept.findings)
        if turn % 5 == 4:
            while swept.owed:
                left, swept = swept.owed, diagnosis.sweep(history.mesh, swept, most=2)
                assert swept.owed == max(left - 2, 0)
            fresh = history.fresh()
            assert seen(swept, history.mesh) == seen(diagnosis.sweep(fresh), fresh), f"seed {seed}, turn {turn}"
    assert owing > 10, "a mesh in which no more than two hosts change proves nothing"
