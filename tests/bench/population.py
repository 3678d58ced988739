"""The meshes of the benchmarks. `mesh` prints objects as a production API server does, where the fields that nobody reads are most of the bytes; `lean` has only what is read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ISTIO, NODES = "networking.istio.io/v1", 200
GATEWAYS = ("public", "partner", "internal")
VERSIONS = ("v1", "v2")


def pod(i: int, service: str, namespace: str) -> dict[str, Any]:
    """A pod with an injected sidecar, managed fields, owner, volumes and full status: about 9 KB of JSON."""
    pod_hash = f"{sum(map(ord, service)) * 2654435761 % 2**32:08x}"
    name = f"{service}-v1-{pod_hash}-{i:05d}"
    labels = {"app": service, "version": "v1", "pod-template-hash": pod_hash, "security.istio.io/tlsMode": "istio"}
    labels |= {"service.istio.io/canonical-name": service, "service.istio.io/canonical-revision": "v1", "topology.istio.io/network": "n1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{service}-v1-{pod_hash}-",
            "namespace": namespace,
            "uid": f"6f9619ff-8b86-d011-b42d-{i:012x}",
            "resourceVersion": str(1_000_000 + i),
            "creationTimestamp": "2026-09-01T10:00:00Z",
            "labels": labels,
            "annotations": {
                "istio.io/rev": "default",
                "kubectl.kubernetes.io/default-container": "app",
                "prometheus.io/path": "/stats/prometheus",
                "sidecar.istio.io/status": '{"initContainers":["istio-init"],"containers":["istio-proxy"],"volumes":["workload-socket"],"revision":"default"}',
                "checksum/config": f"{len(service):064x}",
            },
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{service}-v1-{pod_hash}",
                    "uid": f"u-{service}",
                    "controller": True,
                }
            ],
            "managedFields": [_managed("kube-controller-manager", 30), _managed("kubelet", 40)],
        },
        "spec": {
            "volumes": [
                {"name": f"volume-{v}", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token"}}]}}
                for v in range(5)
            ],
            "initContainers": [_container("istio-init", 0)],
            "containers": [_container("app", 6), _container("istio-proxy", 18)],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": service,
            "nodeName": f"node-{i % 200}",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
            * 2,
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": t, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-09-01T10:00:09Z"}
                for t in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "hostIP": f"10.0.{i % 200}.1",
            "podIP": address(i),
            "podIPs": [{"ip": address(i)}],
            "startTime": "2026-09-01T10:00:00Z",
            "containerStatuses": [_status("app", i), _status("istio-proxy", i)],
            "initContainerStatuses": [_status("istio-init", i)],
            "qosClass": "Burstable",
        },
    }


def address(i: int) -> str:
    return f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}"


def _managed(manager: str, fields: int) -> dict[str, Any]:
    owned = {f'k:{{"name":"FIELD_{n}"}}': {".": {}, "f:name": {}, "f:value": {}} for n in range(fields)}
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-09-01T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": owned},
    }


def _container(name: str, variables: int) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"registry.example/{name}:1.28.0",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"VARIABLE_{v}", "value": f"some value {v}"} for v in range(variables)],
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": f"volume-{v}", "mountPath": f"/var/run/secrets/{v}", "readOnly": True} for v in range(5)],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 1337},
    }


def _status(name: str, i: int) -> dict[str, Any]:
    return {
        "name": name,
        "state": {"running": {"startedAt": "2026-09-01T10:00:05Z"}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": f"registry.example/{name}:1.28.0",
        "imageID": f"registry.example/{name}@sha256:{i:064x}",
        "containerID": f"containerd://{i:064x}",
        "started": True,
    }


def mesh(services: int, seed: int = 7) -> list[dict[str, Any]]:
    """`services` services with their pods (lognormal, mean about 10), slices, VirtualServices and DestinationRules."""
    pick = random.Random(seed)  # noqa: S311 - the same population in every run
    out: list[dict[str, Any]] = []
    i = 0
    for s in range(services):
        name, namespace = f"service-{s:05d}", f"team-{s % max(1, services // 20):04d}"
        meta = {"name": name, "namespace": namespace}
        count = max(1, round(pick.lognormvariate(2.0, 0.8)))
        pods = [pod(i + n, name, namespace) for n in range(count)]
        host = f"{name}.{namespace}.svc.cluster.local"
        out += pods
        out.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
            }
        )
        out.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-x7k2p", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": [address(i + n)],
                        "conditions": {"ready": True, "serving": True, "terminating": False},
                        "nodeName": f"node-{(i + n) % 200}",
                        "zone": "z1",
                        "targetRef": {"kind": "Pod", "name": p["metadata"]["name"], "namespace": namespace},
                    }
                    for n, p in enumerate(pods)
                ],
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            }
        )
        routes = [{"destination": {"host": name, "subset": v}, "weight": w} for v, w in (("v1", 95), ("v2", 5))]
        out.append(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": meta,
                "spec": {"hosts": [host], "http": [{"route": routes}]},
            }
        )
        subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]
        out.append(
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "DestinationRule",
                "metadata": meta,
                "spec": {"host": host, "subsets": subsets},
            }
        )
        i += count
    return out


def lean(services: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """A mesh of one cluster for sweeps: at 20,000 services 1,000 namespaces, 194,000 endpoints and 50 Sidecars; always 3 gateways.

    Each service has lognormally many pods (about 10) in two versions, a VirtualService that gives them 95 and 5, and a DestinationRule; every
    tenth is offered at a gateway. 1 % are broken, in five ways: the second version was never deployed, its pods are not ready, the rule names a
    subset that is not defined, the workloads stand at 0, the rule leads to a host that does not exist.
    """
    pick = random.Random(seed)  # noqa: S311 - the same population in every run
    spaces = max(1, services // 20)
    for n in range(NODES):
        labels = {"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": f"eu-{n % 3}"}
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{n}", "labels": labels}}
    for n in range(spaces):
        labels = {"istio-injection": "enabled", "kubernetes.io/metadata.name": f"team-{n:04d}"}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{n:04d}", "labels": labels}}
    for n in range(max(1, services // 400)):
        near = f"team-{(n * 20 + 1) % spaces:04d}/*"
        hosts = ["*/*"] if n % 10 == 9 else ["./*", "istio-system/*", near]
        meta = {"name": "default", "namespace": f"team-{n * 20 % spaces:04d}"}
        yield {"apiVersion": ISTIO, "kind": "Sidecar", "metadata": meta, "spec": {"egress": [{"hosts": hosts}]}}
    for n, name in enumerate(GATEWAYS):
        yield from _gateway(n, name)
    number = 0
    for s in range(services):
        count = max(2, round(pick.lognormvariate(2.0, 0.77)))
        yield from _service(s, f"team-{s % spaces:04d}", number, count, s // 100 % 5 if s % 100 == 17 else None)
        number += count


def _gateway(n: int, name: str) -> Iterator[dict[str, Any]]:
    labels = {"istio": name}
    meta = {"name": f"{name}-0", "namespace": "istio-system", "labels": labels}
    proxy = {"name": "istio-proxy", "args": ["proxy", "router"]}
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [proxy]}, "status": _running(f"10.255.0.{n}")}
    server = {"hosts": [f"*.{name}.example.com"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}
    meta = {"name": name, "namespace": "istio-system"}
    yield {"apiVersion": ISTIO, "kind": "Gateway", "metadata": meta, "spec": {"selector": labels, "servers": [server]}}


def _service(s: int, namespace: str, number: int, count: int, broken: int | None) -> Iterator[dict[str, Any]]:
    name = f"service-{s:05d}"
    meta = {"name": name, "namespace": namespace, "creationTimestamp": f"2026-09-{1 + s % 28:02d}T08:00:00Z"}
    configured = {**meta, "generation": s, "managedFields": [_lately(s)]}
    endpoints = []
    for i, version in enumerate(VERSIONS):
        labels = {"app": name, "version": version}
        here = count - count // 2 if i == 0 else count // 2
        if broken == 3 or (broken == 0 and i == 1):
            here = 0
        if here or broken == 3:
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app"}]}}
            deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**configured, "name": f"{name}-{version}"}}
            yield {**deployment, "spec": {"replicas": here, "template": template}}
        for n in range(here):
            ok = not (broken == 1 and i == 1)
            where, node = number + i * (count - count // 2) + n, f"node-{(number + n) % NODES}"
            owner = {"kind": "ReplicaSet", "name": f"{name}-{version}-5c9f7d6b84", "controller": True}
            pod = {**meta, "name": f"{name}-{version}-5c9f7d6b84-{n:05d}", "ownerReferences": [owner], "resourceVersion": str(where)}
            pod["labels"] = {**labels, "pod-template-hash": "5c9f7d6b84", "security.istio.io/tlsMode": "istio"}
            port = {"name": "http", "containerPort": 8080}
            containers = [{"name": "app", "image": f"registry.example/{name}:{version}", "ports": [port]}]
            containers.append({"name": "istio-proxy", "image": "registry.example/proxyv2:1.28.0", "args": ["proxy", "sidecar"]})
            spec = {"nodeName": node, "serviceAccountName": name, "containers": containers}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec, "status": _running(address(where), ok=ok)}
            target = {"kind": "Pod", "name": pod["name"], "namespace": namespace}
            endpoints.append({"addresses": [address(where)], "conditions": {"ready": ok}, "targetRef": target, "nodeName": node})
    spec = {
        "clusterIP": f"10.96.{s >> 8}.{s & 255}",
        "selector": {"app": name},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    }
    yield {"apiVersion": "v1", "kind": "Service", "metadata": configured, "spec": spec}
    behind = {"addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}
    slice_ = {**meta, "name": f"{name}-x7k2p", "labels": {"kubernetes.io/service-name": name}}
    yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice_, **behind}
    subsets = [{"name": v, "labels": {"version": v}} for v in VERSIONS]
    yield {"apiVersion": ISTIO, "kind": "DestinationRule", "metadata": configured, "spec": {"host": name, "subsets": subsets}}
    first = {"destination": {"host": name, "subset": "v1"}, "weight": 95}
    second = {"destination": {"host": f"{name}-gone" if broken == 4 else name, "subset": "v3" if broken == 2 else "v2"}, "weight": 5}
    offered = GATEWAYS[s // 10 % 3] if s % 10 == 0 else ""
    more = {"gateways": ["mesh", f"istio-system/{offered}"]} if offered else {}
    hosts = [name, f"{name}.{offered}.example.com"] if offered else [name]
    rules = {"hosts": hosts, "http": [{"route": [first, second]}], **more}
    yield {"apiVersion": ISTIO, "kind": "VirtualService", "metadata": configured, "spec": rules}


def _lately(s: int) -> dict[str, Any]:
    """A write by a pipeline, of a service's objects within one second."""
    time = f"2026-11-{1 + s % 28:02d}T{s % 24:02d}:{s // 28 % 60:02d}:{s // 24 % 60:02d}Z"
    return {"manager": "argocd-controller", "operation": "Apply", "time": time}


def _running(ip: str, *, ok: bool = True) -> dict[str, Any]:
    statuses = [{"name": "app", "ready": ok}, {"name": "istio-proxy", "ready": True}]
    if not ok:
        statuses[0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    conditions = [{"type": t, "status": str(ok)} for t in ("Ready", "ContainersReady")]
    conditions.append({"type": "PodScheduled", "status": "True"})
    return {"phase": "Running", "podIP": ip, "conditions": conditions, "containerStatuses": statuses}
