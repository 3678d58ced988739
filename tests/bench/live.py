"""From an event to Slack: `python tests/bench/live.py [SERVICES] [INCIDENTS]` breaks and mends services one after the other and takes the time.

The cluster (a `population.lean` mesh, 300 services) stands behind an API server on loopback, in a process of its own, that is watched as in
production; alerts have `for: 0s, clear: 0s`. The time runs from the API server's having the event to the message's being in the local Slack, which
keeps Slack's limits; the gathering of 0.2 s is in it. Goals: 1 s in half of the cases, 3 s in 99 of 100. The exit status is 1 when one is missed.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot.clusters import Clusters, ClusterSource
from bot.demo.slack import LocalSlack
from bot.outbox import Outbox
from bot.settings import Alerts
from bot.store import Store
from bot.sweep import Sweeper
from bot.valkey import embedded
from tests.bench.population import lean

P50_S, P99_S, SPACE_S = 1.0, 3.0, 3.0
CHANNELS = ("#mesh", "#payments", "#ops")


def healthy(services: int) -> list[dict[str, Any]]:
    """The objects of the population, without what is broken in it."""
    return [o for o in lean(services) if not o["metadata"]["name"].startswith("service-") or int(o["metadata"]["name"][8:13]) % 100 != 17]


async def serve(services: int, kubeconfig: str) -> None:
    """The API server: a line `NAME ready|gone` on its stdin is an event, and its instant is the answer."""
    from tests.apiserver import ApiServer  # noqa: PLC0415 - the measured process must not hold it

    slices: dict[str, dict[str, Any]] = {}
    async with ApiServer(tls=True) as api:
        objects = healthy(services)
        api.put(*objects)
        slices = {o["metadata"]["labels"]["kubernetes.io/service-name"]: o for o in objects if o["kind"] == "EndpointSlice"}
        api.kubeconfig(Path(kubeconfig))
        print(json.dumps({n: o["metadata"]["namespace"] for n, o in slices.items()}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, state = line.split()
            there = [{**e, "conditions": {"ready": state == "ready"}} for e in slices[name]["endpoints"]]
            api.put({**slices[name], "endpoints": there})
            print(time.time(), flush=True)


def routes(spaces: list[str]) -> list[dict[str, Any]]:
    """Namespaces to channels in turn, so that Slack's one post a second in a channel is not what is measured."""
    return [{"match": {"namespace": spaces[i::3]}, "channel": c} for i, c in enumerate(CHANNELS) if spaces[i::3]]


async def measure(server: subprocess.Popen[str], kubeconfig: str, incidents: int, url: str) -> bool:
    assert server.stdin is not None
    assert server.stdout is not None
    spaces: dict[str, str] = json.loads(server.stdout.readline())
    slack, store = LocalSlack(), Store(url)
    await slack.start()
    await store.open()
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    clusters = Clusters([ClusterSource("east", kubeconfig=kubeconfig)])
    named, names = (
        sorted(set(spaces.values())),
        [n for n in sorted(spaces) if not n.endswith("0")],
    )  # the others are offered at a gateway as well
    settings = Alerts.model_validate({"for": 0, "clear": 0, "default_channel": "#mesh", "routes": routes(named)})
    sweeper = Sweeper(clusters, store, settings)
    tasks = [asyncio.create_task(part) for part in (clusters.run(), sweeper.run(), Outbox(store, client, "#mesh").run())]
    fired, resolved = [], []
    try:
        assert await clusters.synced(120)
        await sweeper.sweep()
        await asyncio.sleep(2)
        for turn in range(incidents):
            name = names[turn]
            for state, over, taken in (("gone", False, fired), ("ready", True, resolved)):
                server.stdin.write(f"{name} {state}\n")
                server.stdin.flush()
                at = float(await asyncio.to_thread(server.stdout.readline))
                await slack.until(lambda n=name, over=over: told(slack, n) is over, 30)
                taken.append(time.time() - at)
                await asyncio.sleep(SPACE_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await slack.stop()
        await store.close()
    good = True
    for what, taken in (("fires", fired), ("resolves", resolved), ("both", fired + resolved)):
        some = sorted(taken)
        p50, p99 = some[len(some) // 2], some[min(len(some) * 99 // 100, len(some) - 1)]
        print(f"  {what:9} p50 {p50:.2f} s  p99 {p99:.2f} s  worst {some[-1]:.2f} s  of {len(some)}")
        good = good and p50 <= P50_S and p99 <= P99_S
    return good


def told(slack: LocalSlack, name: str) -> bool | None:
    """Whether a service's message says that it is over; None while there is none."""
    found = [m.text.startswith("Resolved") for c in CHANNELS for m in slack.messages(c) if name in m.words]
    return found[-1] if found else None


async def main(services: int, incidents: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        kubeconfig = str(Path(folder) / "kubeconfig")
        command = [sys.executable, __file__, "serve", str(services), kubeconfig]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220 - nothing else runs yet
            try:
                async with embedded(Path(folder) / "valkey") as url:
                    print(f"{services} services, {incidents} incidents over a watch on loopback (goals {P50_S:g} s and {P99_S:g} s)")
                    return 0 if await measure(server, kubeconfig, incidents, url) else 1
            finally:
                server.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2]), sys.argv[3]))
        sys.exit()
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, int(sys.argv[2]) if len(sys.argv) > 2 else 30)))
