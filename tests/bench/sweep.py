"""What a sweep costs: `python tests/bench/sweep.py [SERVICES]` prints the CPU time of a full sweep, of one event's, and of each check.

The mesh: services in 50 namespaces (fewer when there are few), about 10 endpoints each in two versions, a VirtualService and a DestinationRule
for each, 1 % of the services without the pods of their second version; one cluster, one gateway.
Goal: from an EndpointSlice event to the new verdict of all hosts in at most 1 ms of CPU, 99 times of 100, at 1,000 services.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import gc
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))
from checks import diagnosis, finding
from checks.case import Case
from checks.mesh import Change, Cluster, Mesh
from checks.resources import EndpointConditions, EndpointSlice, Node, Pod, objects, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.resources import Resource

EVENTS = 500
GOAL_MS = 1.0


def items(services: int) -> Iterator[dict[str, Any]]:
    """The objects of the mesh, as the API has them."""
    istio, apps = "networking.istio.io/v1", "apps/v1"
    for n in range(20):
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{n}", "labels": {"topology.kubernetes.io/region": "eu"}}}
    entry = {"name": "ingress-0", "namespace": "istio-system", "labels": {"istio": "ingress"}}
    proxy = {"name": "istio-proxy", "args": ["proxy", "router"]}
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": entry, "spec": {"containers": [proxy]}, "status": ready("10.255.0.1")}
    server = {"hosts": ["*.example.com"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}
    gateway = {"selector": {"istio": "ingress"}, "servers": [server]}
    yield {"apiVersion": istio, "kind": "Gateway", "metadata": {"name": "public", "namespace": "istio-system"}, "spec": gateway}
    spaces = min(50, max(1, services // 10))
    for s in range(services):
        name, namespace = f"service-{s:05d}", f"team-{s % spaces:02d}"
        meta = {"name": name, "namespace": namespace, "creationTimestamp": "2026-09-01T08:00:00Z"}
        endpoints = []
        for version in ("v1", "v2"):
            labels = {"app": name, "version": version}
            count = 0 if version == "v2" and s % 100 == 17 else 5
            template = {"metadata": {"labels": labels}}
            deployment = {**meta, "name": f"{name}-{version}"}
            if count:
                yield {"apiVersion": apps, "kind": "Deployment", "metadata": deployment, "spec": {"replicas": 5, "template": template}}
            for n in range(count):
                address = f"10.{s >> 8}.{s & 255}.{n + (5 if version == 'v2' else 0)}"
                owner = {"kind": "ReplicaSet", "name": f"{name}-{version}-5c9f7d6b84", "controller": True}
                pod = {**meta, "name": f"{name}-{version}-5c9f7d6b84-{n}", "ownerReferences": [owner]}
                pod["labels"] = {**labels, "pod-template-hash": "5c9f7d6b84", "security.istio.io/tlsMode": "istio"}
                containers = [{"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"]}]
                spec = {"nodeName": f"node-{n}", "containers": containers}
                yield {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec, "status": ready(address)}
                target = {"kind": "Pod", "name": pod["name"], "namespace": namespace}
                endpoints.append({"addresses": [address], "conditions": {"ready": True}, "targetRef": target, "nodeName": f"node-{n}"})
        port = {"name": "http", "port": 80, "targetPort": 8080}
        spec = {"clusterIP": f"10.96.{s >> 8}.{s & 255}", "selector": {"app": name}, "ports": [port]}
        yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
        slice_ = {**meta, "name": f"{name}-x7k2p", "labels": {"kubernetes.io/service-name": name}}
        behind = {"addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice_, **behind}
        subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]
        yield {"apiVersion": istio, "kind": "DestinationRule", "metadata": meta, "spec": {"host": name, "subsets": subsets}}
        hosts = [name, f"{name}.example.com"] if s % 10 == 0 else [name]
        gateways = {"gateways": ["mesh", "istio-system/public"]} if s % 10 == 0 else {}
        route = [{"destination": {"host": name, "subset": v}, "weight": w} for v, w in (("v1", 95), ("v2", 5))]
        yield {
            "apiVersion": istio,
            "kind": "VirtualService",
            "metadata": meta,
            "spec": {"hosts": hosts, "http": [{"route": route}], **gateways},
        }


def ready(address: str) -> dict[str, Any]:
    return {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}


def generated(services: int) -> Mesh:
    found = objects(parse({"apiVersion": "v1", "kind": "List", "items": list(items(services))}))
    return Mesh("", [Cluster("east", objects=Cluster.index(found))], 0.0)


def cpu_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time_ns()
    found = work()
    return (time.process_time_ns() - start) / 1e6, found


def flipped(s: EndpointSlice, pick: random.Random) -> EndpointSlice:
    """A slice whose every endpoint, or one of them, changes its readiness."""
    found = list(s.endpoints or ())
    for i in range(len(found)) if pick.random() < 0.2 else [pick.randrange(len(found))]:
        found[i] = replace(found[i], conditions=EndpointConditions(ready=not found[i].conditions.ready))
    return replace(s, endpoints=tuple(found))


def restarted(p: Pod, _: random.Random) -> Pod:
    """A pod whose readiness changes."""
    status = "False" if p.ready else "True"
    return replace(p, status=replace(p.status, conditions=(replace((p.status.conditions or ())[0], status=status),)))


def reported(n: Node, pick: random.Random) -> Node:
    """A node's status report."""
    return replace(n, metadata=replace(n.metadata, resource_version=str(pick.random())))


def events(
    mesh: Mesh, swept: diagnosis.Sweep, kind: type[Resource], change: Callable[[Any, random.Random], Resource], count: int
) -> list[float]:
    """The CPU milliseconds of each event: one object changes, and the verdicts of all hosts are there."""
    pick = random.Random(5)  # noqa: S311 - the same events in every run
    taken: list[float] = []
    known = list(mesh.cluster("east").all(kind))
    for _ in range(count // 2):
        old = pick.choice(known)
        for new in (change(old, pick), old):  # and back, so that the mesh stays as well as it is
            made = [Change("east", kind, old.namespace, old.name, new)]

            def one(at: Mesh = mesh, before: diagnosis.Sweep = swept, made: list[Change] = made) -> tuple[Mesh, diagnosis.Sweep]:
                after = at.apply(made)
                return after, diagnosis.sweep(after, before)

            ms, (mesh, swept) = cpu_ms(one)
            taken.append(ms)
    return sorted(taken)


def per_check(mesh: Mesh) -> dict[str, float]:
    """The CPU microseconds of each check for one host, looking at all of them; `(the case)` is what they share."""
    spent: dict[str, float] = defaultdict(float)
    hosts = diagnosis.hosts(mesh)
    for host in hosts:
        ms, case = cpu_ms(lambda h=host: Case.of(h, mesh))
        spent["(the case)"] += ms
        for cause, check in diagnosis.registry().items():
            ms, _ = cpu_ms(lambda c=check, k=case: list(c(k)))
            spent[cause] += ms
    return {cause: ms * 1000 / len(hosts) for cause, ms in spent.items()}


def main(services: int) -> int:
    mesh = generated(services)
    gc.collect()
    gc.freeze()  # as the bot does once everything is read
    cold, swept = cpu_ms(lambda: diagnosis.sweep(mesh))
    broken = len({f.host for f in swept.findings if f.severity is finding.Severity.ERROR})
    print(f"{services} services, {swept.hosts} hosts, {len(diagnosis.registry())} checks, {broken} hosts broken")
    print(f"{'full sweep':34} {cold:9.1f} ms of CPU, {cold / swept.hosts:.3f} ms each host")
    late = 0.0
    for name, kind, change, count in (
        ("EndpointSlice event", EndpointSlice, flipped, EVENTS),
        ("Pod event", Pod, restarted, EVENTS // 5),
        ("Node report", Node, reported, EVENTS // 5),
    ):
        taken = events(mesh, swept, kind, change, count)
        p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
        print(f"{name:34} {p50:9.2f} ms p50  {p99:9.2f} ms p99  {taken[-1]:9.2f} ms worst of {count}")
        late = p99 if kind is EndpointSlice else late
    for cause, us in sorted(per_check(mesh).items(), key=lambda c: -c[1])[:25]:
        print(f"  {cause:32} {us:9.1f} us each host")
    return 0 if late <= GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
