"""What reading a large Envoy costs: time, CPU and peak memory of the probe, on a real Envoy and on its saved dumps.

    python tests/bench/probe.py [--clusters 5000] [--hosts 4]

Each figure is the median of five readings in this process; CPU is this process's alone, memory what Python held at most while reading
(tracemalloc, a run of its own, since it slows down). `json` is the same answer through the standard library into dicts, for the ratio.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from bot.clusters import ClusterSource, server
from bot.informers import Pace
from bot.probes import envoy, istiod, portforward
from bot.probes.admin import Admin
from bot.probes.envoy import Request, Where, read
from tests.apiserver import ApiServer
from tests.envoys import NODE, TYPE, Envoy, Json, missing
from tests.istiods import endpoint, shardz

if TYPE_CHECKING:
    from collections.abc import Callable


def large(directory: Path, clusters: int, hosts: int) -> Envoy:
    """An Envoy with so many clusters, as istiod pushes them (metadata, circuit breakers, a weighted route each)."""
    names = [f"outbound|80|v{n % 3}|service-{n // 3}.namespace-{n % 50}.svc.cluster.local" for n in range(clusters)]
    write = directory / "cds.json"
    write.parent.mkdir(parents=True, exist_ok=True)
    write.write_text(
        json.dumps({"version_info": "2026-11-22T14:02:00Z/1", "resources": [_cluster(n, name, hosts) for n, name in enumerate(names)]})
    )
    weighted = [{"clusters": [{"name": a, "weight": 95}, {"name": b, "weight": 5}]} for a, b in zip(names[::2], names[1::2], strict=False)]
    virtual_hosts = [
        {
            "name": f"service-{n}.svc:80",
            "domains": [
                f"service-{n}.namespace.svc.cluster.local",
                f"service-{n}",
                f"service-{n}.namespace",
                f"10.96.{n // 250}.{n % 250}",
            ],
            "routes": [{"name": "default", "match": {"prefix": "/"}, "route": {"weighted_clusters": w, "timeout": "0s"}}],
        }
        for n, w in enumerate(weighted)
    ]
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "80",
        "route_config": {"name": "80", "validate_clusters": False, "virtual_hosts": virtual_hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return Envoy(
        directory,
        {
            "node": {"id": NODE, "cluster": "web.shop"},
            "dynamic_resources": {"cds_config": {"path_config_source": {"path": str(write)}, "resource_api_version": "V3"}},
            "static_resources": {"listeners": [{"name": "80", "address": address, "filter_chains": [chain]}]},
        },
    )


def _cluster(number: int, name: str, hosts: int) -> Json:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": f"10.{number >> 8 & 255}.{number & 255}.{h + 1}", "port_value": 8080}}}}
        for h in range(hosts)
    ]
    host = name.split("|")[3]
    service = {"host": host, "name": host.partition(".")[0], "namespace": "shop"}
    unlimited = {"max_connections": 4294967295, "max_pending_requests": 4294967295, "max_requests": 4294967295, "max_retries": 4294967295}
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{**unlimited, "track_remaining": True}]},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "metadata": {"filter_metadata": {"istio": {"services": [service], "subset": name.split("|")[2]}}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def measured(what: str, size: int, run: Callable[[], object]) -> float:
    """Prints one line; returns the CPU seconds."""
    walls, cpus = [], []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    print(f"{what:<44} {size / 1e6:8.1f} MB {wall * 1e3:9.1f} ms {cpu * 1e3:9.1f} ms CPU {peak / 1e6:8.1f} MB peak")
    return cpu


def main() -> None:
    """The figures, one line each."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clusters", type=int, default=5000)
    options.add_argument("--hosts", type=int, default=4)
    chosen = options.parse_args()
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        running = large(directory / "envoy", chosen.clusters, chosen.hosts)
        try:
            answers: dict[str, bytes] = {}
            for request in (*Request, "/config_dump", "/clusters", "/config_dump?include_eds"):
                begun = time.perf_counter()
                answers[request] = running.ask(request).encode()
                print(
                    f"Envoy answers {request[:60]:<60} {len(answers[request]) / 1e6:8.1f} MB {(time.perf_counter() - begun) * 1e3:9.1f} ms"
                )
            print(f"\n{chosen.clusters} clusters of {chosen.hosts} hosts")
            where = Where("east", "shop", "web-7f", running.admin)
            size = sum(len(answers[request]) for request in Request)
            measured("read, live", size, lambda: _read(where))
            measured(
                "read, by port-forward (with its API server)", size, lambda: asyncio.run(_forwarded(int(running.admin.rpartition(":")[2])))
            )
            shards = _shards(chosen.clusters * 4)
            measured("endpoint shards, two hosts of them", len(shards), lambda: _searched(shards))
            for form in ("json", "text"):
                folder = directory / form
                folder.mkdir()
                clusters = ("clusters.json", Request.HOSTS) if form == "json" else ("clusters", "/clusters")
                (folder / clusters[0]).write_bytes(answers[clusters[1]])
                (folder / "config_dump").write_bytes(answers["/config_dump?include_eds"])
                saved = Where("east", "shop", "web-7f", str(folder))
                total = sum(p.stat().st_size for p in folder.iterdir())
                measured(f"read, saved ({form})", total, lambda saved=saved: _read(saved))
            body = answers[Request.HOSTS]
            ours = measured("decode /clusters?format=json, typed", len(body), lambda: envoy.Seen(where).statuses(body, ""))
            theirs = measured("decode the same into dicts (json)", len(body), lambda: json.loads(body))
            print(f"typed against dicts: {theirs / ours:.1f} times less CPU")
        finally:
            running.stop()


def _read(where: Where) -> None:
    (view,), skipped = asyncio.run(read([where], timeout_s=30))
    assert not skipped, skipped
    assert view.routes


async def _forwarded(port: int) -> None:
    """One Envoy through an API server of the tests, in this process: what the relay costs is in it."""
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = port
    async with api:
        with tempfile.TemporaryDirectory() as folder:
            source = ClusterSource("east", context="east", kubeconfig=api.kubeconfig(Path(folder) / "config"))
            async with server(source, Pace()) as opened, portforward.session(opened, "shop", "web-7f", 15000, patience_s=5) as session:
                of = Admin(session, Request, "http://localhost:15000", "web-7f", time.monotonic() + 30)
                view, skipped = await envoy.ask(of, Where("east", "shop", "web-7f", "web-7f"))
    assert not skipped, skipped
    assert view.routes


def _shards(services: int) -> bytes:
    pods = [endpoint(f"10.1.{n}.7") for n in range(10)]
    return shardz({f"service-{n}.namespace.svc.cluster.local": {"Kubernetes/east": pods} for n in range(services)})


def _searched(body: bytes) -> None:
    found = istiod.Shards(["service-7.namespace.svc.cluster.local", "absent.namespace.svc.cluster.local"])
    for n in range(0, len(body), 64 << 10):
        found.feed(body[n : n + (64 << 10)])
    assert [len(e) for e in found.done().values()] == [0, 10]


if __name__ == "__main__":
    main()
