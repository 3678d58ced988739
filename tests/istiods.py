"""What an istiod answers, made from the shapes of its source (istio/istio, pilot/pkg/xds/debug.go and beside it); no istiod runs in these tests."""

from __future__ import annotations

import json
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]

URL = "type.googleapis.com/envoy.config"
CDS, EDS = f"{URL}.cluster.v3.Cluster", f"{URL}.endpoint.v3.ClusterLoadAssignment"
LDS, RDS = f"{URL}.listener.v3.Listener", f"{URL}.route.v3.RouteConfiguration"


def sync(proxy: str, **types: tuple[str, str] | tuple[str, str, str]) -> Json:
    """One proxy of `/debug/syncz`: of each xDS type (CDS, EDS, LDS, RDS) the nonce sent, the one accepted, and what was refused."""
    urls = {"CDS": CDS, "EDS": EDS, "LDS": LDS, "RDS": RDS}
    resources = {
        urls[kind]: {k: v for k, v in zip(("sent", "acked", "lastError"), said, strict=False) if v} | {"sentTime": "2026-11-22T14:02:00Z"}
        for kind, said in types.items()
    }
    return {"cluster_id": "east", "proxy": proxy, "proxy_type": "sidecar", "istio_version": "1.27.1", "resources": resources}


def endpoint(address: str, port: int = 8080, health: int = 1, port_name: str = "http") -> Json:
    """One endpoint of a shard, with more of its fields than are read."""
    return {
        "Labels": {"app": 'a"b\\', "destination.mynamespace.svc.cluster.local": "{"},
        "Addresses": [address],
        "ServicePortName": port_name,
        "LegacyClusterPortKey": 0,
        "ServiceAccount": "spiffe://cluster.local/ns/mynamespace/sa/default",
        "Network": "",
        "Locality": {"Label": "eu-west-1/a", "ClusterID": "east"},
        "EndpointPort": port,
        "LbWeight": 1,
        "TLSMode": "istio",
        "Namespace": "mynamespace",
        "HealthStatus": health,
    }


def shardz(hosts: dict[str, dict[str, list[Json]]], namespace: str = "mynamespace") -> bytes:
    """`/debug/endpointShardz`: of each host, the endpoints by shard (`Kubernetes/east`)."""
    whole = {host: {namespace: {"Shards": shards, "ServiceAccounts": {}}} for host, shards in hosts.items()}
    return json.dumps(whole, separators=(",", ":")).encode()


METRICS = """\
# HELP istio_build Istio component build info
# TYPE istio_build gauge
istio_build{component="pilot",tag="1.27.1"} 1
# TYPE pilot_total_xds_rejects counter
pilot_total_xds_rejects{type="cds"} %(rejects)d
# TYPE pilot_eds_no_instances gauge
pilot_eds_no_instances 3
# TYPE pilot_proxy_convergence_time histogram
pilot_proxy_convergence_time_bucket{le="0.1"} 4
pilot_proxy_convergence_time_bucket{le="+Inf"} %(pushes)d
pilot_proxy_convergence_time_sum 1.5e+00
pilot_proxy_convergence_time_count %(pushes)d
# TYPE pilot_xds_config_size_bytes histogram
pilot_xds_config_size_bytes_bucket{type="a}b\\"c",le="1"} 4
pilot_xds_config_size_bytes_count{type="a}b\\"c"} 4
# TYPE go_goroutines gauge
go_goroutines 900
"""

LOG = """\
2026-11-22T14:02:00.123456Z\tinfo\tads\tPush debounce stable[3] 1 for config: 100ms
2026-11-22T14:02:01.123456Z\tinfo\tmodel\tIncremental push, service destination.mynamespace.svc.cluster.local at shard Kubernetes/east has no endpoints
2026-11-22T14:02:02Z\twarn\tads\tADS:CDS: ACK ERROR web-7f.shop-12 Internal:Error adding/updating cluster(s) x
{"level":"warn","time":"2026-11-22T14:02:03.5Z","scope":"model","msg":"delegate virtual service shop/leaf of shop/root not found"}
 reflector.go:1: failed to list *v1.EndpointSlice: endpointslices.discovery.k8s.io is forbidden
"""


class Istiod:
    """A server that answers as an istiod's monitoring port; it fails on command, and remembers every request."""

    def __init__(self, proxies: list[Json], hosts: dict[str, dict[str, list[Json]]]) -> None:
        self.answers: dict[str, bytes | int] = {
            "/debug/syncz": json.dumps(proxies).encode(),
            "/debug/endpointShardz": shardz(hosts),
            "/debug/push_status": json.dumps(
                {"pilot_eds_no_instances": {"outbound|80||a": {"proxy": "web-7f.shop", "message": ""}}}
            ).encode(),
            "/debug/clusterz": json.dumps([{"id": "east", "secretName": "", "syncStatus": "synced"}]).encode(),
        }
        self.asked: list[str] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, http: web.Request) -> web.Response:
        self.asked.append(f"{http.method} {http.path_qs}")
        if http.path == "/metrics":
            return web.Response(text=METRICS % {"rejects": self.asked.count("GET /metrics"), "pushes": 9})
        answer = self.answers.get(http.path_qs, 404)
        return web.Response(status=answer) if isinstance(answer, int) else web.Response(body=answer, content_type="application/json")
