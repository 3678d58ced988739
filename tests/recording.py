"""Records what live scenarios read of Envoys on a real one: `python -m tests.recording [SCENARIO...]`; without names it lists them.

Each play starts the callers' Envoys with the clusters and rules that istiod would have pushed, lets what the scenario is about happen, and saves
the answers of the admin interface and the access log under `live/<cluster>/`. Behind the addresses of the scenario's pods are listeners of this
machine, so that in what is saved these are put back; parts that no probe reads are left out.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    def start(self, name: str = "80") -> Caller:
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

    def flags(self, cluster: str) -> list[Json]:
        """What each host of a cluster says of its health."""
        return [h["health_status"] for h in self.envoy.hosts(cluster)]

    # --- what is kept --------------------------------------------------------------------------------------------------------

    def save(self, scenario: str, *, log: bool = False) -> None:
        """The answers, with the pods' addresses, as the probes ask for them."""
        live = SCENARIOS / scenario / "live" / self.cluster
        proxy = live / "proxies" / self.namespace / self.pod
        shutil.rmtree(proxy, ignore_errors=True)
        proxy.mkdir(parents=True)
        statuses = json.loads(self.envoy.ask("/clusters?format=json"))["cluster_statuses"]
        kept = [self._status(s) for s in statuses if s["name"] in self.clusters]
        (proxy / "clusters.json").write_text(dumped({"cluster_statuses": kept}))
        (proxy / "config_dump.json").write_text(dumped({"configs": list(self._configs())}))
        (proxy / "server_info.json").write_text(dumped({k: v for k, v in self._server().items() if k in {"version", "state", "node"}}))
        if log:
            time.sleep(0.2)  # Envoy writes every 50 ms
            logs = live / "logs" / self.namespace / self.pod
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "istio-proxy.log").write_text(self.put_back((self.directory / "access.log").read_text()))

    def put_back(self, text: str) -> str:
        """The pods' addresses for those of this machine, and the caller's own for the rest."""
        for real, pod in sorted(self.shown.items(), key=lambda i: -len(i[0])):
            text = re.sub(rf"{re.escape(real)}(?!\d)", pod, text)
        port = self.envoy.ports["0.0.0.0_80"]
        return text.replace(f"127.0.0.1:{port}", "10.96.0.13:80").replace("127.0.0.1:", f"{self.ip}:")

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


class Stage:
    """What all plays share: the servers, and a directory for each caller."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mw-"))
        self.backends = envoys.backends(self.directory / "backends")
        self.callers: list[Caller] = []

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


PLAYS: dict[str, Callable[[Stage], None]] = {
    "outlier-eject-all": outlier_eject_all,
    "outlier-at-caller-only": outlier_at_caller_only,
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
