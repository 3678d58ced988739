"""A soak: `python tests/bench/soak.py [MINUTES] [SERVICES]` lets a mesh change for 30 minutes and says whether memory stays flat.

20,000 services, 200 events a second; each event changes the readiness of an endpoint, and every nine seconds (1 % of the services in half an hour)
all endpoints of a service go away for a quarter of a minute. Real are the sweep, the alerts, the store on a Valkey, the outbox and the local workspace (which forgets nothing, so it
is emptied as it fills). The memory is looked at after each tenth of the time. It is flat when the second half adds less than 2 % to the first;
the exit status is 1 when it is not, or when an alert is left that nothing holds up.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace
from slack_sdk.web.async_client import AsyncWebClient

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot.demo.slack import LocalSlack
from bot.outbox import Outbox
from bot.settings import Alerts
from bot.store import Store
from bot.sweep import Sweeper
from bot.valkey import embedded
from checks.mesh import Change
from checks.resources import EndpointConditions, EndpointSlice
from tests.bench.cold_start import rss
from tests.bots import World, population, unready

EVENTS_S, BREAKS_S, HEALS_S = 200, 9.0, 15.0


class Churn:
    """The slices of a cluster, changing at random."""

    def __init__(self, slices: list[EndpointSlice]) -> None:
        self._slices = slices
        self._pick = random.Random(11)  # noqa: S311 - the same churn in every run
        self._heal: list[tuple[float, int]] = []
        self._down: set[int] = set()
        self._next = 0.0
        self.events = self.breaks = 0

    def step(self, count: int, now: float) -> list[Change]:
        """So many events, and what heals by now."""
        made: dict[int, Change] = {}
        while self._heal and self._heal[0][0] <= now:
            _, i = heapq.heappop(self._heal)
            self._down.discard(i)
            made[i] = self._change(self._slices[i])
        for _ in range(count):
            i = self._pick.randrange(len(self._slices))
            if i in self._down or i in made:
                continue
            self.events += 1
            if now >= self._next:
                self.breaks += 1
                self._next = now + BREAKS_S
                self._down.add(i)
                heapq.heappush(self._heal, (now + HEALS_S, i))
                made[i] = unready(self._slices[i])
            else:
                made[i] = self._change(self._one_away(self._slices[i]))
        return list(made.values())

    def end(self) -> list[Change]:
        """Everything is well again."""
        return [self._change(s) for s in self._slices]

    def _one_away(self, s: EndpointSlice) -> EndpointSlice:
        found = list(s.endpoints or ())
        if len(found) > 4:
            i = self._pick.randrange(len(found))
            found[i] = replace(found[i], conditions=EndpointConditions(ready=self._pick.random() < 0.5))
        return replace(s, endpoints=tuple(found))

    @staticmethod
    def _change(s: EndpointSlice) -> Change:
        return Change("east", EndpointSlice, s.metadata.namespace, s.metadata.name, s)


def forget(slack: LocalSlack) -> None:
    """Of the workspace's own record what is open or young stays."""
    del slack.calls[:]
    young = time.time() - 90
    for channel, messages in slack.workspace.messages.items():
        kept = [m for m in messages if float(m.ts) > young or not (m.thread_ts or m.text.startswith("Resolved"))]
        slack.workspace.messages[channel] = kept
    slack.workspace.files.clear()


async def measure(minutes: float, services: int, url: str) -> bool:
    slack, store = LocalSlack(), Store(url)
    await slack.start()
    await store.open()
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    world = World(population(services))
    churn = Churn(list(world.now[0].all(EndpointSlice)))
    sweeper = Sweeper(world, store, Alerts.model_validate({"for": 0, "clear": 0, "default_channel": "#mesh"}))
    await sweeper.sweep()
    tasks = [asyncio.create_task(sweeper.run()), asyncio.create_task(Outbox(store, client, "#mesh").run())]
    sizes: list[float] = []
    began, cpu, told = time.monotonic(), time.process_time(), time.monotonic()
    print(f"{services:,} services, {minutes:g} min, {EVENTS_S} events a second, an outage every {BREAKS_S:g} s")
    while time.monotonic() - began < minutes * 60:
        await asyncio.sleep(0.5)
        changes = churn.step(EVENTS_S // 2, time.monotonic())
        world.become(changes)
        world.told.put_nowait(tuple(changes))
        if time.monotonic() - told >= minutes * 6:
            told = time.monotonic()
            forget(slack)
            gc.collect()
            sizes.append(rss())
            waiting = len(await store.waiting())
            print(
                f"  {(told - began) / 60:5.1f} min  {sizes[-1]:7.1f} MB  {churn.events:7,} events  {len(await store.alerts()):4} open  {waiting} waiting"
            )
    rate, used = churn.events / (time.monotonic() - began), (time.process_time() - cpu) / (time.monotonic() - began)
    last = churn.end()
    world.become(last)
    world.told.put_nowait(tuple(last))
    for _ in range(600):
        if not await store.alerts():
            break
        await asyncio.sleep(0.2)
    left = len(await store.alerts())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await slack.stop()
    await store.close()
    half = len(sizes) // 2
    grown = max(sizes[half:]) / max(sizes[:half]) - 1
    print(
        f"  {rate:.0f} events a second, {churn.breaks} outages, {used:.2f} CPUs; the second half has {grown:+.1%} memory; {left} alerts left"
    )
    return grown < 0.02 and left == 0


async def main(minutes: float, services: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        async with embedded(Path(folder) / "valkey") as url:
            return 0 if await measure(minutes, services, url) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0, int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)))
