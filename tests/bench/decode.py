"""Decode one 500-pod page: ours against the official client's models, alternately in one process. Gate: at least 50 times less CPU.

    python tests/bench/decode.py

The baseline is `ApiClient.deserialize(V1PodList)` of kubernetes 37 with the interpreter's default garbage collection.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from kubernetes.client import ApiClient

from bot.informers import Codec
from checks.resources import KIND_OF, Pod
from tests.bench.population import pod

if TYPE_CHECKING:
    from collections.abc import Callable

GATE = 50
ROUNDS = 7


def cpu(run: Callable[[], object]) -> float:
    """Seconds of CPU of one run."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    pods = [pod(i, f"service-{i % 50}", "shop") for i in range(500)]
    body = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": pods}, separators=(",", ":"))
    data = body.encode()
    codec, client = Codec(KIND_OF[Pod]), ApiClient()

    def official() -> None:
        client.deserialize(body, "V1PodList", "application/json")

    official()  # the models are imported at their first use
    codec.page(data)
    ratios, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        theirs.append(cpu(official))
        ours.append(statistics.median(cpu(lambda: codec.page(data)) for _ in range(15)))
        ratios.append(theirs[-1] / ours[-1])
    event = b'{"type":"MODIFIED","object":' + json.dumps(pods[0]).encode() + b"}"
    each = cpu(lambda: [codec.event(event) for _ in range(5_000)]) / 5_000
    ratio = statistics.median(ratios)
    print(f"500 pods, {len(data) / 500 / 1000:.1f} KB each, {ROUNDS} rounds, median CPU")
    print(f"  official kubernetes 37   {statistics.median(theirs) * 1000:8.1f} ms")
    print(f"  meshwhy                  {statistics.median(ours) * 1000:8.1f} ms")
    print(f"  ratio                    {ratio:8.0f} x   (gate {GATE}, lowest {min(ratios):.0f})")
    print(f"  one watch event          {each * 1e6:8.1f} us  = {1 / each:,.0f} events/s")
    sys.exit(0 if ratio >= GATE else f"the ratio {ratio:.0f} is below {GATE}")


if __name__ == "__main__":
    main()
