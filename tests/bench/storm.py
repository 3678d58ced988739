"""A storm: `python tests/bench/storm.py [ROUTES]` breaks so many routes (5,000) at one instant and says what Slack got of it, and when.

Every service of a `population.lean` mesh loses all its endpoints in one batch of changes. Real are the sweep, the alerts, the store on a Valkey,
the outbox and the local workspace with Slack's own limits. Goals: the first message 3 s after the change, no more than 30 calls of Slack until
everything is told, and every broken route in an alert. The exit status is 1 when a goal is missed.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from slack_sdk.web.async_client import AsyncWebClient

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot.demo.slack import LocalSlack
from bot.outbox import Outbox
from bot.settings import Alerts
from bot.store import Store
from bot.sweep import Sweeper
from bot.valkey import embedded
from checks.resources import EndpointSlice
from tests.bots import World, population, unready

FIRST_S, CALLS = 3.0, 30


async def measure(routes: int, url: str) -> bool:
    cluster = population(routes)
    slack, store = LocalSlack(), Store(url)
    await slack.start()
    await store.open()
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    world = World(cluster)
    sweeper = Sweeper(world, store, Alerts.model_validate({"for": 0, "clear": 0, "default_channel": "#mesh"}))
    tasks = [asyncio.create_task(sweeper.run()), asyncio.create_task(Outbox(store, client, "#mesh").run())]
    try:
        await sweeper.sweep()
        await asyncio.sleep(2)
        assert not slack.calls, "nothing is broken yet"
        cpu, began = time.process_time(), time.monotonic()
        changes = tuple(unready(s) for s in cluster.all(EndpointSlice))
        world.become(changes)
        world.told.put_nowait(changes)
        await slack.until(lambda: slack.messages("#mesh"), 120)
        first, used = time.monotonic() - began, time.process_time() - cpu
        while len(await store.alerts()) < routes or await store.waiting():  # noqa: ASYNC110 - a store has no event for this
            await asyncio.sleep(0.2)
        whole = time.monotonic() - began
        made, told = len(slack.calls), len(slack.messages("#mesh"))
        print(f"{routes:,} routes break at once")
        print(f"  first message   {first:6.2f} s  (goal {FIRST_S:g}; {used:.2f} s of CPU, the local Slack's among it)")
        print(f"  calls of Slack  {made:6}    (goal {CALLS}), {told} messages for {len(await store.alerts()):,} alerts")
        print(f"  all is told     {whole:6.2f} s")
        for method, count in Counter(method for method, _ in slack.calls).items():
            print(f"    {count:3} {method}")
        for message in slack.messages("#mesh"):
            print("   ", message.text[:140])
        return first <= FIRST_S and made <= CALLS
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await slack.stop()
        await store.close()


async def main(routes: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        async with embedded(Path(folder) / "valkey") as url:
            return 0 if await measure(routes, url) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)))
