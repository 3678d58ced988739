"""How long a real Prometheus takes to say what it counted of one host: `python tests/bench/prometheus.py [PODS]` that call it, each for two hours."""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bot.probes import prometheus as probe
from bot.settings import Prometheus as Place
from tests import prometheuses

HOST = "cart.shop.svc.cluster.local"
STEP_S, LONG_S, BROKE_S = 15, 7200, 900


def past(pods: int, now: float) -> str:
    """Every pod's calls: all well, and half of them without an endpoint since a quarter of an hour."""
    lines = []
    for n in range(pods):
        target = (("job", "mesh"), ("instance", f"10.1.{n // 250}.{n % 250}:15020"))
        for code, flags in ((200, "-"), (503, "UH")):
            of = (*prometheuses.labels(f"caller-{n % 50}", f"team-{n % 10}", HOST, code, flags), *target)
            for i in range(LONG_S // STEP_S):
                at = now - LONG_S + i * STEP_S
                broke = max(0.0, at - now + BROKE_S)
                count = 4 * i - broke / STEP_S * 2 if code == 200 else broke / STEP_S * 2
                if count or code == 200:
                    lines.append(prometheuses.line("istio_requests_total", of, count, at))
    return "# TYPE istio_requests counter\n" + "\n".join(lines) + "\n# EOF\n"


async def main(pods: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mw-") as directory:
        running = prometheuses.Prometheus(Path(directory), [], past(pods, time.time()))
        try:
            took = []
            for _ in range(10):
                begun = time.perf_counter()
                found = await probe.read(Place(url=running.url), "east", probe.Asked(HOST, (HOST,)))
                took.append(time.perf_counter() - begun)
        finally:
            running.stop()
    (traffic,) = found.traffic
    print(f"{pods} pods, {len(traffic.flows)} flows, since {traffic.read_at - (traffic.since or 0):.0f} s ago")
    print(f"p50 {sorted(took)[5] * 1000:.0f} ms, worst {max(took) * 1000:.0f} ms of {len(took)}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
