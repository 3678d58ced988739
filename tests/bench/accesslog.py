"""How many access lines a second are read, of each format, beside what splitting the same lines costs. `python tests/bench/accesslog.py [LINES]`."""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from checks import accesslog

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "outbound|80|v1|destination.mynamespace.svc.cluster.local"
TEXT = (
    '[2026-11-22T12:23:31.748Z] "GET / HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0 - "-" "curl/8.5" "ffc7-{n}" "destination" "-" '
    f"{HOST} - 127.0.0.1:15001 127.0.0.1:48740 - default"
)
JSON = json.dumps(
    {
        "authority": "destination",
        "bytes_sent": 19,
        "method": "GET",
        "path": "/",
        "request_id": "ffc7",
        "response_code": 503,
        "response_code_details": "no_healthy_upstream",
        "response_flags": "UH",
        "start_time": "2026-11-22T12:23:31.748Z",
        "upstream_cluster": HOST,
        "upstream_host": None,
    }
)


def rate(lines: list[str], do: Callable[[list[str]], object]) -> float:
    """Lines for each second of CPU."""
    begun = time.process_time()
    do(lines)
    return len(lines) / (time.process_time() - begun)


def main(count: int) -> None:
    for name, lines in (
        ("Istio's text", [TEXT.replace("{n}", str(n)) for n in range(count)]),
        ("JSON", [JSON] * count),
        ("an app's own lines", [f"2026-11-22T12:23:31Z INFO served order {n} for somebody" for n in range(count)]),
    ):
        base = rate(lines, lambda lines: [line.split() for line in lines])
        mine = rate(lines, accesslog.read)
        print(f"{name:20} {mine:10,.0f} lines a second, {base / mine:.1f} times what splitting takes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
