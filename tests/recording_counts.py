"""Records what a real Prometheus answers about the hosts of live scenarios: `python -m tests.recording_counts [SCENARIO...]`.

Istio's stats filter does not run here: the counters that it would have kept are written into the storage, with its labels, two hours of them.
Saved are the answers to the probe's own queries, whole.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bot.probes import prometheus as probe
from bot.settings import Prometheus as Place
from tests.prometheuses import TARGET, Counts, Prometheus, exposition, labels

SCENARIOS = Path(__file__).parent / "scenarios"
REPORTS, SEARCH = "reports.shop.svc.cluster.local", "search.shop.svc.cluster.local"
WEB = ("web", "client")

PLAYS: dict[str, tuple[str, Counts, Counts]] = {
    # Envoy tried again, and the last attempt was reset as well
    "upstream-reset-UC-counted": (
        REPORTS,
        {labels(*WEB, REPORTS, 200): 40},
        {labels(*WEB, REPORTS, 200): 30, labels(*WEB, REPORTS, 503, "URX,UC"): 10},
    ),
    "upstream-reset-UC-counted__healthy": (REPORTS, {}, {labels(*WEB, REPORTS, 200): 800, labels(*WEB, REPORTS, 503, "URX,UC"): 2}),
    # who calls sees a 503 without a flag, and so does the server's own proxy: the app made it
    "upstream-503-by-app-counted": (
        SEARCH,
        {labels(*WEB, SEARCH, 200): 20, labels(*WEB, SEARCH, 200, reporter="destination"): 20},
        {
            labels(*WEB, SEARCH, 200): 5,
            labels(*WEB, SEARCH, 503): 15,
            labels(*WEB, SEARCH, 200, reporter="destination"): 5,
            labels(*WEB, SEARCH, 503, reporter="destination"): 15,
        },
    ),
    "upstream-503-by-app-counted__healthy": (
        SEARCH,
        {},
        {labels(*WEB, SEARCH, 200): 20, labels(*WEB, SEARCH, 200, reporter="destination"): 20},
    ),
}
"""Of each scenario the host that is asked about, by how much its counters grew in a quarter of a minute, and by how much in the last quarter of an hour."""


def record(name: str) -> None:
    """The `prometheus.json` of one scenario."""
    host, before, after = PLAYS[name]
    now = time.time()
    with tempfile.TemporaryDirectory(prefix="mw-") as directory:
        running = Prometheus(Path(directory), [], exposition([("istio_requests_total", 7200, before, after, 900)], now, TARGET))
        answers: dict[str, Any] = {}
        since: list[float | None] = []
        try:
            asyncio.run(_asked(running.url, host, answers, since))
        finally:
            running.stop()
    folder = SCENARIOS / name / "live" / "east"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.json").write_text(json.dumps({"host": host, "since": since[0], "answers": answers}, indent=1) + "\n")


async def _asked(url: str, host: str, answers: dict[str, Any], since: list[float | None]) -> None:
    about = probe.Asked(host, (host,))
    place = Place(url=url)
    found = await probe.read(place, "east", about)
    since.append(found.traffic[0].since)
    async with probe.asking(place, "east", about) as asking:
        counted = await asking.counted(probe.WINDOW_S)
    for kind, series in counted.items():
        if series:
            data = {"resultType": "vector", "result": [msgspec.to_builtins(s) for s in series]}
            answers[kind] = {"status": "success", "data": data}


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PLAYS:
        record(wanted)
