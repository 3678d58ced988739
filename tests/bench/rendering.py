"""How long an answer takes to render: `python tests/bench/rendering.py` prints the median milliseconds of each form.

The wide case is one host of 20 rules that 100 namespaces see; limits: `why` 2 ms, a picture 150 ms.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import copy
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))
from templates import messages, picture, terminal

if TYPE_CHECKING:
    from collections.abc import Callable


def median_ms(work: Callable[[], object], rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def wide(case: dict[str, Any]) -> dict[str, Any]:
    route = case["routes"][0]
    return case | {
        "routes": [
            copy.deepcopy(route) | {"path": f"spec.http[{rule}]", "viewpoint": route["viewpoint"] | {"namespace": f"team-{n}"}}
            for n in range(100)
            for rule in range(20)
        ]
    }


def many(case: dict[str, Any]) -> dict[str, Any]:
    route = copy.deepcopy(case["routes"][0])
    route["destinations"] = [
        route["destinations"][i % 2] | {"envoy_cluster": f"outbound|80|v{i}|{case['host']}", "share": 1 / 60} for i in range(60)
    ]
    return case | {"routes": [route]}


def main() -> None:
    case = yaml.safe_load((Path(__file__).parents[1] / "answers.yaml").read_text())["subset_empty"]
    alert = {"id": "a", "state": "firing", "finding": case["findings"][0], "routes": case["routes"], "since": 0.0}
    sizes = {"the article's": case, "60 destinations": many(case), "20 rules, 100 namespaces": wide(case)}
    print(f"{'alert, the article`s':<40} {median_ms(lambda: messages.alert(alert), 200):8.2f} ms")
    for name, answer in sizes.items():
        host, routes = answer["host"], answer["routes"]
        svg = picture.svg(host, routes, verdict="degraded")
        for form, work, rounds in (
            ("why in Slack", lambda a=answer: messages.why(a, share=True), 100),
            ("why in the terminal", lambda a=answer: terminal.why(a, colour=True), 100),
            ("picture, SVG", lambda h=host, r=routes: picture.svg(h, r, verdict="degraded"), 50),
            ("picture, PNG", lambda s=svg: picture.png(s), 10),
        ):
            print(f"{f'{form}, {name}':<40} {median_ms(work, rounds):8.2f} ms")


if __name__ == "__main__":
    main()
