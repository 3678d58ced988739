"""What objects have in common is one in memory and never more than that, and what one pod stands for is more than itself."""

from __future__ import annotations

from typing import Any

from checks import diagnosis
from checks.mesh import Change, Cluster, Mesh
from checks.resources import Pod, Resource, objects, parse


def pod(namespace: str, name: str, **status: Any) -> dict[str, Any]:
    labels = {"app": "web", "pod-template-hash": "5c9f"}
    owner = {"kind": "ReplicaSet", "name": "web-5c9f", "controller": True}
    meta = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
    ready = [{"type": "Ready", "status": "True"}]
    spec = {"containers": [{"name": "app", "image": "web:1"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"]}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": spec,
        "status": {"phase": "Running", "conditions": ready, **status},
    }


def behind(namespace: str, name: str, address: str) -> list[dict[str, Any]]:
    meta = {"name": "web", "namespace": namespace}
    port = {"name": "http", "port": 80}
    endpoint = {"addresses": [address], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": name, "namespace": namespace}}
    labels = {"kubernetes.io/service-name": "web"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "web"}, "ports": [port]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": "http", "port": 8080}],
        },
    ]


def read(*manifests: dict[str, Any]) -> list[Resource]:
    return objects(o for m in manifests for o in parse(m))


def test_pods_of_one_template_share_what_their_template_gave_them():
    first, second, other = read(
        pod("shop", "web-1", podIP="10.0.0.1"), pod("shop", "web-2", podIP="10.0.0.2"), pod("shop", "web-3", phase="Failed")
    )
    assert isinstance(first, Pod)
    assert isinstance(second, Pod)
    assert isinstance(other, Pod)
    assert first.metadata.labels is second.metadata.labels
    assert first.metadata.owner_references is second.metadata.owner_references
    assert first.spec.containers is second.spec.containers
    assert first.status.conditions is second.status.conditions
    assert (first.name, first.status.pod_ip, other.status.phase) == ("web-1", "10.0.0.1", "Failed")
    mesh = Mesh("", [Cluster("east", objects=Cluster.index([first, second, other]))], 0.0)
    assert [[p.name for p in same.pods] for same in mesh.alike(mesh.clusters[0], "shop")] == [["web-1", "web-2", "web-3"]]


def test_pods_that_are_the_same_in_two_namespaces_have_each_the_workload_of_their_own():
    owner = {"kind": "Rollout", "name": "web"}
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-5c9f", "namespace": "mall", "ownerReferences": [owner]},
    }
    found = read(
        pod("shop", "web-1", podIP="10.0.0.1"),
        pod("mall", "web-1", podIP="10.0.0.2"),
        replica_set,
        *behind("shop", "web-1", "10.0.0.1"),
        *behind("mall", "web-1", "10.0.0.2"),
    )
    mesh = Mesh("", [Cluster("east", objects=Cluster.index(found))], 0.0)
    seen = {ns: [e.workload for e in mesh.endpoints(mesh.istiod("east"), f"web.{ns}.svc.cluster.local", ns)] for ns in ("shop", "mall")}
    assert seen == {"shop": ["Deployment web"], "mall": ["Rollout web"]}


def test_containers_that_make_a_sidecar_natively_are_not_taken_for_those_of_a_pod_without():
    plain, native = pod("shop", "web-1", podIP="10.0.0.1"), pod("shop", "web-2", podIP="10.0.0.2")
    for one in (plain, native):
        one["spec"]["containers"] = [{"name": "app", "image": "web:1"}]
    native["spec"]["initContainers"] = [{"name": "istio-proxy", "args": ["proxy", "sidecar"], "restartPolicy": "Always"}]
    slices = behind("shop", "web-1", "10.0.0.1")
    slices[1]["endpoints"].append({**slices[1]["endpoints"][0], "addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "web-2"}})
    mesh = Mesh("", [Cluster("east", objects=Cluster.index(read(plain, native, *slices)))], 0.0)
    seen = {e.address: e.tls for e in mesh.endpoints(mesh.istiod("east"), "web.shop.svc.cluster.local", "shop")}
    assert seen == {"10.0.0.1": False, "10.0.0.2": True}


def test_a_headless_host_is_diagnosed_for_the_other_pods_of_its_namespace_whichever_of_them_stands_for_all():
    def mesh(*, ready: bool) -> Mesh:
        first, own = pod("shop", "a-1", podIP="10.0.0.1"), pod("shop", "db-0", podIP="10.0.0.2")
        first["metadata"]["labels"] = {"app": "a"}
        first["status"]["conditions"] = [{"type": "Ready", "status": str(ready)}]
        meta = {"name": "web", "namespace": "shop"}
        service, slice_ = behind("shop", "db-0", "10.0.0.2")
        port = {"name": "tcp-db", "port": 5432}
        service["spec"] |= {"clusterIP": "None", "ports": [port]}
        slice_["ports"] = [port]
        to = {"destination": {"host": "web", "subset": "gone"}}
        rule = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": meta,
            "spec": {"hosts": ["web"], "tcp": [{"route": [to]}]},
        }
        return Mesh("", [Cluster("east", objects=Cluster.index(read(first, own, service, slice_, rule)))], 0.0)

    for one in (mesh(ready=True), mesh(ready=False)):
        assert [f.cause for f in diagnosis.sweep(one).findings] == ["subset-undefined"]
    alone = mesh(ready=True).apply([Change("east", Pod, "shop", "a-1", None)])
    assert diagnosis.sweep(alone).findings == ()  # a pod does not call its own address through its sidecar
