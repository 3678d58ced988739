"""A real Prometheus (Debian's) that scrapes the calls of a real Envoy, and holds a day that was written into its storage before it started.

An Envoy of its own has no `istio_requests_total`, which istio-proxy's stats filter makes. `Exporter` makes it of the Envoy's access log, each line
one request, with the labels as that filter writes them: what an upstream would have said is `unknown` where there was none, and without a cluster
the service is the Host header.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from math import isnan
from typing import TYPE_CHECKING

from checks import accesslog
from tests import envoys, ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

BINARY, TOOL = shutil.which("prometheus"), shutil.which("promtool")
Labels = tuple[tuple[str, str], ...]


def missing() -> str | None:
    """Why no real Prometheus can run here, or None."""
    return None if BINARY and TOOL else "there is no prometheus and promtool on the PATH (Debian's package prometheus)"


def labels(workload: str, namespace: str, service: str, code: int | str, flags: str = "-", **more: str) -> Labels:
    """The labels that matter here, as Istio's stats filter writes them."""
    made = {
        "reporter": "source",
        "source_workload": workload,
        "source_workload_namespace": namespace,
        "destination_service": service,
        "destination_workload": "unknown" if flags != "-" else "server",
        "response_code": str(code),
        "response_flags": flags,
        "request_protocol": "http",
        "grpc_response_status": "",
        **more,
    }
    return tuple(made.items())


def line(metric: str, of: Iterable[tuple[str, str]], value: float, at: float | None = None) -> str:
    """One sample of the text format."""
    said = ",".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in of)
    return f"{metric}{{{said}}} {value:g}" + (f" {at:.3f}" if at is not None else "")


Counts = dict[Labels, float]
STEP_S, DAY_S = 15, 26 * 3600
BROKE_S = {"destination": 900, "cart": 30_000, "tcp": 1200, "fresh": 40}
"""How long before now calls of a host began to fail."""
HOSTILE = 'a"b\\c|d{2}é.shop.svc.cluster.local'


def _counters(times: Sequence[float], before: Counts, after: Counts, broke: float) -> dict[Labels, list[float]]:
    """Counters over time: by how much each grows in a step until calls began to fail, and from then on; one that is new begins with its first."""
    made: dict[Labels, list[float]] = {of: [] for of in (*before, *after)}
    counts: Counter[Labels] = Counter()
    for i, at in enumerate(times):
        long = (at - times[i - 1]) / STEP_S if i else 1.0
        counts.update({of: n * long for of, n in (before if at <= broke else after).items()})  # type: ignore[arg-type]  # floats count as well
        for of, values in made.items():
            values.append(counts.get(of, float("nan")))
    return made


Day = tuple[str, int, Counts, Counts, float]
"""A metric, for how long it was scraped, by how much its counters grew in every 15 s at first, and by how much in the last so many seconds."""
TARGET = (("job", "mesh"), ("instance", "10.1.2.3:15020"), ("cluster", "east"))


def exposition(days: Iterable[Day], now: float, target: Labels) -> str:
    """What was scraped of one target until now, in OpenMetrics' format, with the times."""
    made: dict[str, list[str]] = {}
    for metric, long, before, after, broke in days:
        begin, step = now - long, STEP_S if long < DAY_S else 4 * STEP_S
        times = [begin + i * step for i in range(int(long // step))]
        for of, values in _counters(times, before, after, now - broke).items():
            told = ((at, v) for at, v in zip(times, values, strict=True) if not isnan(v))  # a counter is not there before it is moved
            made.setdefault(metric, []).extend(line(metric, (*of, *target), v, at) for at, v in told)
    made["up"] = [line("up", target, 1, now - 7200 + i * STEP_S) for i in range(7200 // STEP_S)]
    typed = {m: "gauge" if m == "up" else "counter" for m in made}
    return "".join(f"# TYPE {m.removesuffix('_total')} {typed[m]}\n" + "\n".join(told) + "\n" for m, told in made.items()) + "# EOF\n"


def past(now: float) -> str:
    """What was scraped until now, every 15 s: of most hosts two hours, of one a day."""
    destination, cart = "destination.mynamespace.svc.cluster.local", "cart.shop.svc.cluster.local"
    web, api = ("web", "shop"), ("api", "other")
    tcp = {"request_protocol": "tcp"}
    days: list[Day] = [
        # 95 % to an empty subset, since a quarter of an hour, as both callers see it, and as no server does
        (
            "istio_requests_total",
            7200,
            {labels(*web, destination, 200): 60, labels(*api, destination, 200): 40},
            {
                labels(*web, destination, 200): 3, labels(*web, destination, 503, "UH"): 57,
                labels(*api, destination, 200): 2, labels(*api, destination, 503, "UH"): 38,
            },
            BROKE_S["destination"],
        ),
        ("istio_requests_total", 7200, {labels("web", "shop", destination, 200, reporter="destination"): 60}, {}, BROKE_S["destination"]),
        # no cluster, for more than an hour: the Host header as each caller wrote it, of which one meant another host
        (
            "istio_requests_total",
            DAY_S,
            {labels(*web, cart, 200): 30},
            {labels(*web, "cart:8080", 503, "NC"): 30, labels(*api, "cart", 503, "NC"): 30, labels(*api, "Cart.shop", 503, "NC"): 10},
            BROKE_S["cart"],
        ),
        ("istio_requests_total", 7200, {}, {labels("istio-ingressgateway", "istio-system", "unknown", 404, "NR"): 5}, 7200),
        ("istio_requests_total", 7200, {labels("istio-ingressgateway", "istio-system", cart, 200): 30}, {labels("istio-ingressgateway", "istio-system", cart, 200): 30}, 60),
        ("istio_tcp_connections_opened_total", 7200, {labels(*web, "db.shop.svc.cluster.local", 0, **tcp): 20}, {labels(*web, "db.shop.svc.cluster.local", 0, **tcp): 20}, BROKE_S["tcp"]),
        ("istio_tcp_connections_closed_total", 7200, {labels(*web, "db.shop.svc.cluster.local", 0, **tcp): 20}, {labels(*web, "db.shop.svc.cluster.local", 0, "URX,UF", **tcp): 20}, BROKE_S["tcp"]),
        ("istio_requests_total", 7200, {labels(*web, "new.shop.svc.cluster.local", 200): 10}, {labels(*web, "new.shop.svc.cluster.local", 500): 10}, BROKE_S["fresh"]),
        ("istio_requests_total", 7200, {labels(*web, HOSTILE, 200): 10}, {labels(*web, HOSTILE, 200): 10}, 60),
        ("istio_requests_total", 7200, {labels(*web, "rpc.shop.svc.cluster.local", 200, request_protocol="grpc", grpc_response_status="0"): 9}, {labels(*web, "rpc.shop.svc.cluster.local", 200, "UH", request_protocol="grpc", grpc_response_status="14"): 9}, 600),
    ]  # fmt: skip
    return exposition(days, now, TARGET)


class Exporter:
    """Serves the requests that an access log tells of as `istio_requests_total`."""

    def __init__(self, log: Path, workload: str, namespace: str) -> None:
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.exposition().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.log, self.workload, self.namespace = log, workload, namespace
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.at = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def exposition(self) -> str:
        """All that the log tells of so far."""
        counted: Counter[Labels] = Counter()
        for a in accesslog.read(self.log.read_text().splitlines()).accesses:
            service = a.envoy_cluster.rpartition("|")[2] or a.authority or "unknown"
            counted[labels(self.workload, self.namespace, service, a.code, ",".join(a.flags) or "-")] += a.count
        return "# TYPE istio_requests_total counter\n" + "\n".join(line("istio_requests_total", of, n) for of, n in counted.items()) + "\n"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Prometheus:
    """One running Prometheus: `url` is its address."""

    def __init__(self, directory: Path, targets: Sequence[str], past: str) -> None:
        assert BINARY
        assert TOOL
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "past").write_text(past)
        written = subprocess.run(
            [TOOL, "tsdb", "create-blocks-from", "openmetrics", str(directory / "past"), str(directory / "data")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert written.returncode == 0, written.stderr
        scraped = [{"job_name": "mesh", "static_configs": [{"targets": list(targets), "labels": {"cluster": "live"}}]}]
        (directory / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": scraped}))
        address = f"127.0.0.1:{ports.free()}"
        self.url = f"http://{address}"
        self.log = directory / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(BINARY, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"),
                    *(f"--web.listen-address={address}", "--storage.tsdb.retention.time=30d", "--log.level=warn"),
                ],
                stdout=log,
                stderr=log,
            )
        self.until(self._ready)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
        except OSError:
            return False

    def number(self, query: str) -> float:
        """The one number that a query answers; 0 for none."""
        asked = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as answer:  # noqa: S310 - ours
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def until(self, true: object, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        assert callable(true)
        while not true():
            assert self.process.poll() is None, f"Prometheus ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < end, f"not within {seconds} s: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        envoys.end(self.process)


class Renewed:
    """A Prometheus whose past ends now: what was written until some while ago is no rate any more, so an old one is ended and a new one begun."""

    OLD_S = 10.0

    def __init__(self, folder: Callable[[], Path], targets: Sequence[str]) -> None:
        self._folder, self._targets = folder, targets
        self._running: Prometheus | None = None
        self._begun = 0.0

    def now(self) -> Prometheus:
        if self._running is None or time.time() - self._begun > self.OLD_S:
            self.stop()
            self._begun = time.time()
            self._running = Prometheus(self._folder(), self._targets, past(self._begun))
        return self._running

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None
