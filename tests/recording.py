"""Records what live scenarios read of Envoys on a real one: `python -m tests.recording [SCENARIO...]`; without names it lists them.

Each play starts the callers' Envoys with the clusters and rules that istiod would have pushed, lets what the scenario is about happen, and saves
the answers of the admin interface and the access log under `live/<cluster>/`. Behind the addresses of the scenario's pods are listeners of this
machine, so that in what is saved these are put back; parts that no probe reads are left out.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests import envoys
from tests.envoys import TYPE, Envoy, Json, write

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIOS = Path(__file__).parent / "scenarios"
TEXT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% '
    '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default format (istio/istio, pilot/pkg/model/telemetry_logging.go)."""

WEB, WEB_2 = ("web-stqq48z9kk-c4xhp", "10.10.2.5"), ("web-stqq48z9kk-q7x2m", "10.10.1.9")
PODS = ("10.10.1.6:8080", "10.10.2.7:8080")
NO_PANIC = {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}


def called(app: str, subset: str = "", port: int = 80) -> str:
    """An Envoy cluster of a Service in shop."""
    return f"outbound|{port}|{subset}|{app}.shop.svc.cluster.local"


@dataclass
class Caller:
    """One pod's Envoy: what it is pushed, and whose addresses stand for which of this machine."""

    directory: Path
    pod: str
    ip: str
    namespace: str = "client"
    cluster: str = "east"
    shown: dict[str, str] = field(default_factory=dict)
    clusters: dict[str, Json] = field(default_factory=dict)
    hosts: list[Json] = field(default_factory=list)
    envoy: Envoy = field(init=False)
    version: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """Names of this machine, and the ones that they stand for."""
    bootstrap: Json = field(default_factory=dict)

    def source(self, name: str) -> Json:
        return {"path_config_source": {"path": str(self.directory / name)}, "resource_api_version": "V3"}

    def eds(self, name: str, addresses: dict[str, str], states: dict[str, str] | None = None, **config: Any) -> None:
        """An EDS cluster: the address of each pod, and the one of this machine (`ip:port`) that answers for it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = f"{len(self.clusters)}.json"
        endpoints = []
        for pod, real in addresses.items():
            ip, _, port = real.rpartition(":")
            self.shown[real] = pod
            said = (states or {}).get(pod, "HEALTHY")
            address = {"socket_address": {"address": ip, "port_value": int(port)}}
            endpoints.append({"endpoint": {"address": address}, "health_status": said})
        assignment: Json = {"@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": name}
        if endpoints:
            assignment["endpoints"] = [{"lb_endpoints": endpoints}]
        write(self.directory / path, {"version_info": "1", "resources": [assignment]})
        self.add(name, type="EDS", eds_cluster_config={"eds_config": {**self.source(path), "initial_fetch_timeout": "1s"}}, **config)

    def add(self, name: str, **config: Any) -> None:
        """Any cluster."""
        self.clusters[name] = {"@type": f"{TYPE}.config.cluster.v3.Cluster", "name": name, "connect_timeout": "1s", **config}

    def rule(self, host: str, route: Json, port: int = 80) -> None:
        """One virtual host with one rule."""
        short = host.removesuffix(".svc.cluster.local")
        domains = list(dict.fromkeys([host, f"{host}:{port}", short, f"{short}:{port}"]))
        action = route if "route" in route or "direct_response" in route else {"route": route}
        self.hosts.append(
            {"name": f"{host}:{port}", "domains": domains, "routes": [{"name": "default", "match": {"prefix": "/"}, **action}]}
        )

    def push(self) -> None:
        """The clusters, as one CDS update."""
        self.version += 1
        write(
            self.directory / "cds.json", {"version_info": f"2026-11-03T09:20:00Z/{self.version}", "resources": list(self.clusters.values())}
        )

    def start(self, name: str = "80") -> Self:
        """The Envoy, running."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.push()
        config = {
            "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
            "name": name,
            "validate_clusters": False,
            "virtual_hosts": self.hosts,
        }
        write(self.directory / "rds.json", {"version_info": "2026-11-03T09:20:00Z/1", "resources": [config]})
        manager = envoys._connection_manager(name, {"rds": {"route_config_name": name, "config_source": self.source("rds.json")}})
        log = {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self.directory / "access.log"),
                "log_format": {"text_format_source": {"inline_string": TEXT}},
            },
        }
        manager["filters"][0]["typed_config"]["access_log"] = [log]
        manager["filters"][0]["typed_config"]["generate_request_id"] = True
        listener = {"name": "0.0.0.0_80", "address": envoys._socket("127.0.0.1", 0), "filter_chains": [manager]}
        self.envoy = Envoy(
            self.directory / "run",
            {
                "node": {
                    "id": f"sidecar~{self.ip}~{self.pod}.{self.namespace}~{self.namespace}.svc.cluster.local",
                    "cluster": f"web.{self.namespace}",
                },
                "dynamic_resources": {"cds_config": self.source("cds.json")},
                "static_resources": {"listeners": [listener], "clusters": [envoys._silent_istiod()]},
                **self.bootstrap,
            },
            "--file-flush-interval-msec",
            "50",
        )
        return self

    def call(self, host: str, times: int = 1) -> list[int]:
        """The status of so many requests."""
        out = []
        for _ in range(times):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.envoy.ports['0.0.0.0_80']}/", headers={"Host": host, "User-Agent": "web/4.2"}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - ours
                    out.append(int(answer.status))
            except urllib.error.HTTPError as e:
                out.append(int(e.code))
        return out

    def together(self, host: str, times: int) -> list[int]:
        """The statuses of so many requests at once."""
        with ThreadPoolExecutor(times) as pool:
            return [status for one in pool.map(lambda _: self.call(host), range(times)) for status in one]

    def flags(self, cluster: str) -> list[Json]:
        """What each host of a cluster says of its health."""
        return [h["health_status"] for h in self.envoy.hosts(cluster)]

    # --- what is kept --------------------------------------------------------------------------------------------------------

    def save(self, scenario: str, *, log: bool = False, stats: str = "", certificates: bool = False) -> None:
        """The answers, with the pods' addresses, as the probes ask for them; `stats` is a regular expression of those that are wanted."""
        live = SCENARIOS / scenario / "live" / self.cluster
        proxy = live / "proxies" / self.namespace / self.pod
        shutil.rmtree(proxy, ignore_errors=True)
        proxy.mkdir(parents=True)
        statuses = json.loads(self.envoy.ask("/clusters?format=json"))["cluster_statuses"]
        kept = [self._status(s) for s in statuses if s["name"] in self.clusters]
        (proxy / "clusters.json").write_text(dumped({"cluster_statuses": kept}))
        (proxy / "config_dump.json").write_text(dumped({"configs": list(self._configs())}))
        (proxy / "server_info.json").write_text(dumped({k: v for k, v in self._server().items() if k in {"version", "state", "node"}}))
        (live / "read_at").write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
        if certificates:
            held = json.loads(self.envoy.ask("/certs"))
            for one in (c for both in held["certificates"] for c in (*both.get("ca_cert", ()), *both.get("cert_chain", ()))):
                one["path"] = "<inline>"
            (proxy / "certs.json").write_text(dumped(held))
        if stats:
            (proxy / "stats.json").write_text(dumped(json.loads(self.envoy.ask(f"/stats?format=json&usedonly&filter={stats}"))))
        if log:
            time.sleep(0.2)  # Envoy writes every 50 ms
            logs = live / "logs" / self.namespace / self.pod
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "istio-proxy.log").write_text(self.put_back((self.directory / "access.log").read_text()))

    def put_back(self, text: str) -> str:
        """The pods' addresses for those of this machine, and the caller's own for the rest."""
        known = {**self.shown, f"127.0.0.1:{self.envoy.ports['0.0.0.0_80']}": "10.96.0.13:80"}
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda at: known.get(at[0], f"{self.ip}:{at[1]}"), text)

    def _server(self) -> Json:
        found: Json = json.loads(self.envoy.ask("/server_info"))
        return {**found, "node": {"id": found["node"]["id"]}}

    def _status(self, status: Json) -> Json:
        out = {k: status[k] for k in ("name", "added_via_api", "eds_service_name") if k in status}
        if "host_statuses" in status:
            out["host_statuses"] = [self._host(h) for h in status["host_statuses"]]
        return out

    def _host(self, host: Json) -> Json:
        at = host["address"].get("socket_address")
        if at is not None:
            ip, _, port = self.shown.get(f"{at['address']}:{at['port_value']}", f"{at['address']}:{at['port_value']}").rpartition(":")
            host = {**host, "address": {"socket_address": {"address": ip, "port_value": int(port)}}}
        if "hostname" in host:
            host = {**host, "hostname": self.names.get(host["hostname"], host["hostname"])}
        return {k: host[k] for k in ("address", "health_status", "weight", "hostname") if k in host}

    def _configs(self) -> Any:
        for part in json.loads(self.envoy.ask("/config_dump"))["configs"]:
            kind = part["@type"].rpartition(".")[2]
            if kind == "ClustersConfigDump":
                yield {
                    k: [self._config(c) for c in part[k] if c["cluster"]["name"] in self.clusters] if k.startswith("dynamic_") else part[k]
                    for k in ("@type", "version_info", "dynamic_active_clusters", "dynamic_warming_clusters")
                    if k in part
                }
            elif kind == "RoutesConfigDump":
                yield {k: part[k] for k in ("@type", "dynamic_route_configs") if k in part}

    @staticmethod
    def _config(config: Json) -> Json:
        kept = ("@type", "name", "type", "common_lb_config", "outlier_detection", "circuit_breakers", "health_checks")
        return {**config, "cluster": {k: v for k, v in config["cluster"].items() if k in kept}}


def dumped(what: Json) -> str:
    """Envoy's own form of JSON."""
    return json.dumps(what, indent=1) + "\n"


class Server:
    """A TCP server of this machine that does one thing with each connection."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.at = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self.serve(connection)


def _answering(status: str, seconds: float) -> Callable[[socket.socket], None]:
    """Answers each request after some time."""

    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            time.sleep(seconds)
            connection.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode())

    return serve


def _greeting(connection: socket.socket) -> None:
    """Speaks first, as MySQL does, and nothing that is HTTP."""
    connection.sendall(b"J\x00\x00\x00\n8.0.36\x00\x0b\x00\x00\x00")
    connection.recv(65536)


class Stage:
    """What all plays share: the servers, and a directory for each caller."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mw-"))
        self.backends = envoys.backends(self.directory / "backends")
        self.callers: list[Caller] = []
        self.servers: list[Server] = []
        self.deaf: list[socket.socket] = []

    def server(self, serve: Callable[[socket.socket], None]) -> str:
        """Where a server of one's own listens."""
        self.servers.append(Server(serve))
        return self.servers[-1].at

    def closed(self) -> str:
        """An address at which nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as found:
            return f"127.0.0.1:{found.getsockname()[1]}"

    def silent(self) -> str:
        """An address that answers no attempt to connect, as behind a firewall that drops: its queue is full."""
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        self.deaf.append(full)
        for _ in range(4):
            knocking = socket.socket()
            knocking.setblocking(False)
            knocking.connect_ex(full.getsockname())
            self.deaf.append(knocking)
        return f"127.0.0.1:{full.getsockname()[1]}"

    def at(self, name: str) -> str:
        """Where a server listens: `v2-0` and `v2-1` answer 200, `failing` 503."""
        return f"127.0.0.1:{self.backends.ports[name]}"

    def caller(self, pod: tuple[str, str] = WEB, **more: Any) -> Caller:
        found = Caller(self.directory / str(len(self.callers)), *pod, **more)
        self.callers.append(found)
        return found

    def stop(self) -> None:
        for c in self.callers:
            if hasattr(c, "envoy"):
                c.envoy.stop()
        self.backends.stop()
        for s in self.servers:
            s.socket.close()
        for d in self.deaf:
            d.close()
        shutil.rmtree(self.directory, ignore_errors=True)


# --- the plays -------------------------------------------------------------------------------------------------------------------

EJECTING = {
    "outlier_detection": {
        "consecutive_5xx": 1,
        "enforcing_consecutive_5xx": 100,
        "enforcing_success_rate": 0,
        "interval": "0.2s",
        "base_ejection_time": "600s",
        "max_ejection_percent": 100,
    },
    **NO_PANIC,
}
"""As cluster_traffic_policy.go applyOutlierDetection makes it, with a shorter interval."""


def _ejecting(stage: Stage, app: str, pod: tuple[str, str], servers: tuple[str, str]) -> Caller:
    caller = stage.caller(pod)
    caller.eds(called(app), dict(zip(PODS, map(stage.at, servers), strict=True)), **EJECTING)
    caller.rule(f"{app}.shop.svc.cluster.local", {"cluster": called(app)})
    return caller.start()


def outlier_eject_all(stage: Stage) -> None:
    caller = _ejecting(stage, "payments", WEB, ("failing", "failing-too"))
    caller.envoy.until(
        lambda: caller.call("payments.shop") and all(f.get("failed_outlier_check") for f in caller.flags(called("payments")))
    )
    caller.save("outlier-eject-all")
    one = _ejecting(stage, "payments", WEB, ("failing", "v2-0"))
    one.envoy.until(lambda: one.call("payments.shop") and any(f.get("failed_outlier_check") for f in one.flags(called("payments"))))
    one.save("outlier-eject-all__healthy")


def outlier_at_caller_only(stage: Stage) -> None:
    bad = _ejecting(stage, "cart", WEB, ("failing", "failing-too"))
    bad.envoy.until(lambda: bad.call("cart.shop") and all(f.get("failed_outlier_check") for f in bad.flags(called("cart"))))
    bad.save("outlier-at-caller-only")
    good = _ejecting(stage, "cart", WEB_2, ("v2-0", "v2-1"))
    good.call("cart.shop", 3)
    good.save("outlier-at-caller-only")
    good.save("outlier-at-caller-only__healthy")
    well = _ejecting(stage, "cart", WEB, ("v2-0", "v2-1"))
    well.save("outlier-at-caller-only__healthy")


RETRY = {
    "retry_policy": {
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retriable_status_codes": [503],
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": "5",
    }
}
"""Istio's default (pilot/pkg/networking/core/route/retry)."""

HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


def speaking_tls(**context: Any) -> Json:
    """A cluster whose connections are TLS."""
    found = {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": {}, **context}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": found}}


def _one(
    stage: Stage,
    scenario: str,
    host: str,
    cluster: str,
    addresses: dict[str, str],
    *,
    calls: int = 4,
    route: Json | None = None,
    **config: Any,
) -> None:
    """A caller with one destination, called some times; its answers and its log are kept."""
    caller = stage.caller()
    caller.eds(cluster, addresses, **config)
    caller.rule(host, {"cluster": cluster, **(route or {})}, int(cluster.split("|")[1]))
    caller.start(cluster.split("|")[1])
    caller.call(host, calls)
    caller.save(scenario, log=True)


def _inside(stage: Stage, scenario: str, port: int, addresses: dict[str, str], *, calls: int = 3, **config: Any) -> None:
    """The sidecar of a server: what it hands on to its app, with its log."""
    for pod in (("payments-v1-k9p4d4nc2f-b5lb8", "10.10.1.6"), ("payments-v1-k9p4d4nc2f-mdk4g", "10.10.2.7")):
        server = stage.caller(pod, namespace="shop")
        server.eds(f"inbound|{port}||", {pod: real for pod, real in addresses.items() if pod.startswith((server.ip, "127."))}, **config)
        server.rule("payments.shop.svc.cluster.local", {"cluster": f"inbound|{port}||"})
        server.start(f"inbound|{port}||")
        server.call("payments.shop", calls)
        server.save(scenario, log=True)


def circuit_breaker_overflow(stage: Stage) -> None:
    for scenario, limit in (("circuit-breaker-overflow", 1), ("circuit-breaker-overflow__healthy", 100)):
        caller = stage.caller()
        breaker = {"thresholds": [{"max_connections": limit, "max_pending_requests": limit}]}
        caller.eds(called("checkout"), {PODS[0]: stage.server(_answering("200 OK", 0.3))}, circuit_breakers=breaker)
        caller.rule("checkout.shop.svc.cluster.local", {"cluster": called("checkout")})
        caller.start()
        caller.together("checkout.shop", 6)
        caller.save(scenario, log=True)


def retry_overflow(stage: Stage) -> None:
    for scenario, limit in (("retry-overflow", 1), ("retry-overflow__healthy", 1000)):
        caller = stage.caller()
        behind = dict(
            zip(PODS, (stage.server(_answering("503 Service Unavailable", 0.2)), stage.server(_answering("200 OK", 0.2))), strict=True)
        )
        caller.eds(called("quotes"), behind, circuit_breakers={"thresholds": [{"max_retries": limit}]})
        caller.rule("quotes.shop.svc.cluster.local", {"cluster": called("quotes"), **RETRY})
        caller.start()
        caller.together("quotes.shop", 12)
        caller.save(scenario, log=True)


def proxy_overload(stage: Stage) -> None:
    for scenario, pressure in (("proxy-overload", "1.0"), ("proxy-overload__healthy", "0.1")):
        caller = stage.caller()
        caller.eds(called("ledger"), dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))
        caller.rule("ledger.shop.svc.cluster.local", {"cluster": called("ledger")})
        caller.directory.mkdir(exist_ok=True)
        (caller.directory / "pressure").write_text(pressure)
        monitor = {
            "name": "envoy.resource_monitors.injected_resource",
            "typed_config": {
                "@type": f"{TYPE}.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
                "filename": str(caller.directory / "pressure"),
            },
        }
        action = {
            "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [{"name": monitor["name"], "threshold": {"value": 0.95}}],
        }
        caller.bootstrap = {"overload_manager": {"refresh_interval": "0.05s", "resource_monitors": [monitor], "actions": [action]}}
        caller.start()
        time.sleep(0.5)
        caller.call("ledger.shop", 4)
        caller.save(scenario, log=True, stats="overload")


def panic_masks_unready(stage: Stage) -> None:
    pods = {f"10.10.{1 + n % 2}.{20 + n}:8080": stage.at("v2-0") for n in range(5)}
    for scenario, ready in (("panic-masks-unready", 2), ("panic-masks-unready__healthy", 3)):
        caller = stage.caller()
        for n, pod in enumerate(pods):  # five addresses of this machine, so that they can be told apart
            pods[pod] = stage.server(_answering("200 OK", 0.0)) if n < ready else stage.closed()
        caller.eds(called("search"), pods, {pod: "UNHEALTHY" for n, pod in enumerate(pods) if n >= ready})
        caller.rule("search.shop.svc.cluster.local", {"cluster": called("search")})
        caller.start()
        caller.save(scenario)


def envoyfilter_active_hc(stage: Stage) -> None:
    for scenario, servers in (("envoyfilter-active-hc", ("failing", "failing-too")), ("envoyfilter-active-hc__healthy", ("v2-0", "v2-1"))):
        caller = stage.caller()
        checking = {
            "timeout": "0.5s",
            "interval": "0.2s",
            "no_traffic_interval": "0.2s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/healthz", "host": "profile.shop"},
        }
        caller.eds(called("profile"), dict(zip(PODS, map(stage.at, servers), strict=True)), health_checks=[checking], **NO_PANIC)
        caller.rule("profile.shop.svc.cluster.local", {"cluster": called("profile")})
        caller.start()
        sick = "failing" in servers
        caller.envoy.until(
            lambda c=caller, sick=sick: all(f.get("failed_active_health_check", False) is sick for f in c.flags(called("profile")))
        )
        caller.save(scenario)


def targetport_wrong_number(stage: Stage) -> None:
    _inside(stage, "targetport-wrong-number", 9090, {"10.10.1.6:9090": stage.closed(), "10.10.2.7:9090": stage.closed()})
    _inside(stage, "targetport-wrong-number__healthy", 8080, dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))


def app_on_localhost_or_slow(stage: Stage) -> None:
    _inside(stage, "app-on-localhost-or-slow", 8080, {PODS[0]: stage.closed(), PODS[1]: stage.at("v2-1")})
    _inside(stage, "app-on-localhost-or-slow__healthy", 8080, dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))


def sidecar_ingress_port(stage: Stage) -> None:
    _inside(stage, "sidecar-ingress-port", 8080, {"127.0.0.1:9999": stage.closed()})
    _inside(stage, "sidecar-ingress-port__healthy", 8080, {"127.0.0.1:8081": stage.at("v2-0")})


def network_policy_blocks(stage: Stage) -> None:
    host = "vault.shop.svc.cluster.local"
    _one(stage, "network-policy-blocks", host, called("vault"), {PODS[0]: stage.silent(), PODS[1]: stage.silent()}, calls=3)
    _one(stage, "network-policy-blocks__healthy", host, called("vault"), dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))


def protocol_misdeclared(stage: Stage) -> None:
    host, slow = "rates.shop.svc.cluster.local", stage.server(_answering("200 OK", 0.0))
    _one(stage, "protocol-misdeclared", host, called("rates"), {PODS[0]: slow, PODS[1]: stage.server(_answering("200 OK", 0.0))}, **HTTP2)
    _one(stage, "protocol-misdeclared__healthy", host, called("rates"), {PODS[0]: slow, PODS[1]: stage.server(_answering("200 OK", 0.0))})


def _aimed(stage: Stage, scenario: str, host: str, cluster: str) -> None:
    """A rule that leads to an ORIGINAL_DST cluster, over a connection that was aimed at nothing."""
    caller = stage.caller()
    caller.add(cluster, type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED")
    caller.rule(host, {"cluster": cluster})
    caller.start()
    caller.call(host, 3)
    caller.save(scenario, log=True)


def headless_original_dst(stage: Stage) -> None:
    host = "stock.shop.svc.cluster.local"
    _aimed(stage, "headless-original-dst", host, called("stock-pods"))
    _one(stage, "headless-original-dst__healthy", host, called("stock-pods"), dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))


def se_none_origdst(stage: Stage) -> None:
    host = "billing.shop.svc.cluster.local"
    there = "outbound|80||billing.partner.example"
    _aimed(stage, "se-none-origdst", host, there)
    _one(stage, "se-none-origdst__healthy", host, there, {"203.0.113.40:80": stage.at("v2-0")})


def _named(stage: Stage, scenario: str, name: str, real: str) -> None:
    caller = stage.caller()
    ip, _, port = real.rpartition(":")
    endpoint = {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": int(port)}}}}
    cluster = f"outbound|80||{name}"
    caller.shown[real if ip != "localhost" else f"127.0.0.1:{port}"] = "203.0.113.7:80"
    caller.names["localhost"] = name
    caller.add(
        cluster,
        type="STRICT_DNS",
        dns_lookup_family="V4_ONLY",
        load_assignment={"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]},
    )
    caller.rule(name, {"cluster": cluster})
    caller.start()
    time.sleep(0.5)
    caller.call(name, 3)
    caller.save(scenario, log=True)


def se_dns_unresolvable(stage: Stage) -> None:
    _named(stage, "se-dns-unresolvable", "api.partner.example", "api.partner.example:80")
    _named(stage, "se-dns-unresolvable__healthy", "api.partner.example", f"localhost:{stage.backends.ports['v2-0']}")


def egress_tls_origination(stage: Stage) -> None:
    name, cluster = "mail.partner.example", "outbound|80||mail.partner.example"
    _one(stage, "egress-tls-origination", name, cluster, {"203.0.113.25:80": stage.at("v2-0")}, calls=3, **speaking_tls(sni=name))
    _one(stage, "egress-tls-origination__healthy", name, cluster, {"203.0.113.25:80": stage.at("v2-0")}, calls=3)


def se_mesh_internal_no_sidecar(stage: Stage) -> None:
    name, cluster = "vms.internal.example", "outbound|80||vms.internal.example"
    _one(stage, "se-mesh-internal-no-sidecar", name, cluster, {"192.168.40.8:80": stage.at("v2-0")}, calls=3, **speaking_tls())
    _one(stage, "se-mesh-internal-no-sidecar__healthy", name, cluster, {"192.168.40.8:80": stage.at("v2-0")}, calls=3)


def external_endpoint_down(stage: Stage) -> None:
    name, cluster = "fax.partner.example", "outbound|80||fax.partner.example"
    _one(stage, "external-endpoint-down", name, cluster, {"203.0.113.9:80": stage.closed()}, calls=3, route=RETRY)
    _one(stage, "external-endpoint-down__healthy", name, cluster, {"203.0.113.9:80": stage.at("v2-0")}, calls=3, route=RETRY)


class Authority:
    """Certificates for a play, made by openssl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def _run(self, *options: str) -> None:
        subprocess.run(["openssl", *options], check=True, cwd=self.directory, capture_output=True)

    def root(self, name: str) -> None:
        """A root, which signs."""
        self._run(*f"req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 3650 -subj /O=cluster.local".split())

    def leaf(self, name: str, root: str, identity: str, days: int = 1) -> None:
        """A workload's certificate, as istiod makes it: the identity is its only name."""
        (self.directory / f"{name}.ext").write_text(f"subjectAltName=critical,URI:{identity}\n")
        self._run(*f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /".split())
        self._run(
            *f"x509 -req -in {name}.csr -CA {root}.pem -CAkey {root}.key -CAcreateserial -out {name}.pem -extfile {name}.ext -days {days}".split()
        )

    def context(self, root: str, identity: str, own: str) -> Json:
        """What a caller's cluster has for mutual TLS: whom it trusts, whom it expects, and what it shows."""
        known = {
            "trusted_ca": {"filename": str(self.directory / f"{root}.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": identity}}],
        }
        mine = {
            "certificate_chain": {"filename": str(self.directory / f"{own}.pem")},
            "private_key": {"filename": str(self.directory / f"{own}.key")},
        }
        return speaking_tls(common_tls_context={"validation_context": known, "tls_certificates": [mine]})

    def serving(self, name: str) -> Callable[[socket.socket], None]:
        """A server that speaks TLS with a certificate, and answers 200."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        inner = _answering("200 OK", 0.0)

        def serve(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as spoken:
                inner(spoken)

        return serve


def _authority(stage: Stage) -> Authority:
    made = Authority(stage.directory / "pki")
    made.root("one")
    made.leaf("web", "one", "spiffe://cluster.local/ns/client/sa/web")
    return made


def dr_sds_secret_missing(stage: Stage) -> None:
    name, cluster = "db.partner.example", "outbound|80||db.partner.example"
    made = _authority(stage)
    made.leaf("db", "one", "spiffe://partner.example/db")
    server = stage.server(made.serving("db"))
    grpc = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}
    sds = {"api_config_source": grpc, "initial_fetch_timeout": "0.5s", "resource_api_version": "V3"}
    secret = {"validation_context_sds_secret_config": {"name": "kubernetes://partner-ca-cacert", "sds_config": sds}}
    _one(stage, "dr-sds-secret-missing", name, cluster, {"203.0.113.31:80": server}, calls=3, **speaking_tls(common_tls_context=secret))
    well = made.context("one", "spiffe://partner.example/db", "web")
    _one(stage, "dr-sds-secret-missing__healthy", name, cluster, {"203.0.113.31:80": server}, calls=3, **well)


def san_mismatch(stage: Stage) -> None:
    host, made = "reports.shop.svc.cluster.local", _authority(stage)
    made.leaf("reports", "one", "spiffe://cluster.local/ns/shop/sa/reports")
    servers = {pod: stage.server(made.serving("reports")) for pod in PODS}
    old, new = (f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("default", "reports"))
    _one(stage, "san-mismatch", host, called("reports"), servers, **made.context("one", old, "web"))
    _one(stage, "san-mismatch__healthy", host, called("reports"), servers, **made.context("one", new, "web"))


def trust_mismatch(stage: Stage) -> None:
    host, made = "cart.shop.svc.cluster.local", _authority(stage)
    made.root("two")
    identity = "spiffe://cluster.local/ns/shop/sa/cart"
    for scenario, root in (("trust-mismatch", "two"), ("trust-mismatch__healthy", "one")):
        made.leaf(f"cart-{root}", root, identity)
        servers = {pod: stage.server(made.serving(f"cart-{root}")) for pod in ("10.20.1.6:8080", "10.20.2.7:8080")}
        _one(stage, scenario, host, called("cart"), servers, **made.context("one", identity, "web"))


def cert_expired_or_root_rotated(stage: Stage) -> None:
    host, made = "tickets.shop.svc.cluster.local", _authority(stage)
    identity = "spiffe://cluster.local/ns/shop/sa/tickets"
    made.leaf("fresh", "one", identity)
    made.leaf("stale", "one", identity, days=-1)
    for scenario, second in (("cert-expired-or-root-rotated", "stale"), ("cert-expired-or-root-rotated__healthy", "fresh")):
        servers = dict(zip(PODS, (stage.server(made.serving(name)) for name in ("fresh", second)), strict=True))
        _one(stage, scenario, host, called("tickets"), servers, **made.context("one", identity, "web"))
        own = stage.caller(("tickets-v1-k9p4d4nc2f-mdk4g", "10.10.2.7"), namespace="shop")  # the second pod's own sidecar
        own.eds("inbound|8080||", {PODS[1]: stage.at("v2-0")}, **made.context("one", identity, second))
        own.rule(host, {"cluster": "inbound|8080||"})
        own.start()
        own.save(scenario, certificates=True)


def eds_warming(stage: Stage) -> None:
    for scenario in ("eds-warming", "eds-warming__healthy"):
        caller = stage.caller()
        caller.eds(called("wallet"), dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))
        if "__" not in scenario:
            caller.clusters.clear()
        caller.rule("wallet.shop.svc.cluster.local", {"cluster": called("wallet")})
        caller.start()
        if "__" not in scenario:
            grpc = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}
            waiting = {"eds_config": {"api_config_source": grpc, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}}
            caller.add(called("wallet"), type="EDS", eds_cluster_config=waiting)
            caller.push()
            caller.envoy.until(
                lambda c=caller: called("wallet") in c.envoy.ask("/config_dump?resource=dynamic_warming_clusters&mask=cluster.name")
            )
            time.sleep(12)  # for a moment every new cluster waits
        caller.call("wallet.shop", 2)
        caller.save(scenario)


def envoyfilter_route_or_cluster(stage: Stage) -> None:
    for scenario, to in (("envoyfilter-route-or-cluster", "invoices-v1"), ("envoyfilter-route-or-cluster__healthy", "invoices")):
        caller = stage.caller()
        caller.eds(called("invoices"), dict(zip(PODS, map(stage.at, ("v2-0", "v2-1")), strict=True)))
        caller.rule("invoices.shop.svc.cluster.local", {"cluster": called(to)})
        caller.start()
        caller.call("invoices.shop", 2)
        caller.save(scenario)


def gw_cluster_filtered(stage: Stage) -> None:
    pods = {"10.10.2.7:8080": "v2-0", "10.10.1.8:8080": "v2-1"}
    for scenario, name in (("gw-cluster-filtered", "beta"), ("gw-cluster-filtered__healthy", "cart")):
        gateway = stage.caller(("istio-ingressgateway-n24t4vc9mn-t8vz7", "10.10.1.6"), namespace="istio-system")
        gateway.eds(called("cart"), {pod: stage.at(real) for pod, real in pods.items()})
        gateway.rule("shop.example.com", {"cluster": called(name)})
        gateway.start("http.8080")
        gateway.call("shop.example.com", 2)
        gateway.save(scenario)


def _holding(stage: Stage, scenario: str, app: str, addresses: tuple[str, ...], pod: tuple[str, str] = WEB) -> Caller:
    """A caller whose one destination has these hosts."""
    caller = stage.caller(pod)
    caller.eds(called(app), dict(zip(addresses, map(stage.at, ("v2-0", "v2-1", "failing")), strict=False)))
    caller.rule(f"{app}.shop.svc.cluster.local", {"cluster": called(app)})
    caller.start()
    caller.save(scenario)
    return caller


GONE = "10.10.2.99:8080"
"""A pod that is no more."""


def proxy_stale(stage: Stage) -> None:
    _holding(stage, "proxy-stale", "orders", (PODS[0], GONE))
    _holding(stage, "proxy-stale__healthy", "orders", PODS)


def proxy_disconnected(stage: Stage) -> None:
    _holding(stage, "proxy-disconnected", "basket", (GONE,))
    _holding(stage, "proxy-disconnected__healthy", "basket", PODS)


def xds_nack(stage: Stage) -> None:
    _holding(stage, "xds-nack", "pricing", (PODS[0], GONE))
    _holding(stage, "xds-nack__healthy", "pricing", PODS)


def push_backlog(stage: Stage) -> None:
    _holding(stage, "push-backlog", "menu", (PODS[0], GONE))
    _holding(stage, "push-backlog__healthy", "menu", PODS)


def eds_stale_shard(stage: Stage) -> None:
    _holding(stage, "eds-stale-shard", "catalog", (PODS[0], GONE))
    _holding(stage, "eds-stale-shard__healthy", "catalog", PODS)


PLAYS: dict[str, Callable[[Stage], None]] = {
    play.__name__.replace("_", "-"): play
    for play in (
        outlier_eject_all,
        outlier_at_caller_only,
        circuit_breaker_overflow,
        retry_overflow,
        proxy_overload,
        panic_masks_unready,
        envoyfilter_active_hc,
        targetport_wrong_number,
        app_on_localhost_or_slow,
        sidecar_ingress_port,
        network_policy_blocks,
        protocol_misdeclared,
        headless_original_dst,
        se_none_origdst,
        se_dns_unresolvable,
        egress_tls_origination,
        se_mesh_internal_no_sidecar,
        external_endpoint_down,
        dr_sds_secret_missing,
        san_mismatch,
        trust_mismatch,
        cert_expired_or_root_rotated,
        eds_warming,
        envoyfilter_route_or_cluster,
        gw_cluster_filtered,
        proxy_stale,
        proxy_disconnected,
        xds_nack,
        push_backlog,
        eds_stale_shard,
    )
}


def main(names: list[str]) -> None:
    """Record some scenarios again."""
    if not names:
        sys.stdout.write("\n".join(PLAYS) + "\n")
    for name in PLAYS if names == ["all"] else names:
        stage = Stage()
        try:
            PLAYS[name](stage)
        finally:
            stage.stop()
        sys.stdout.write(f"{name}: recorded on Envoy {envoys.VERSION}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
