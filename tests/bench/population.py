"""Objects as a production cluster's API server prints them, for the benchmarks: the fields that nobody reads are most of the bytes."""

from __future__ import annotations

import random
from typing import Any


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
