"""What alerts cost in Redis: `python tests/bench/memory.py [ALERTS]` tells so many alerts (1,000), each in a message of its own, and asks Valkey.

Open alerts with their messages, places and pictures; then the same resolved, as they are remembered for a week. Goals: 20 MB for 1,000 open ones
and 20 MB for 1,000 resolved ones. The exit status is 1 when one is missed.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace
from redis import Redis

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot import manifests
from bot.alerts import State
from bot.store import Delivery, Draft, Store
from bot.sweep import Sweeper
from bot.valkey import embedded
from tests.bots import RECORDED, World, alerts

GOAL_MB = 20.0


async def measure(count: int, url: str) -> bool:
    store = Store(url)
    await store.open()
    east = manifests.read(str(RECORDED / "east"), "east", mesh="east", read_at=time.time())
    await Sweeper(World(east), store, alerts()).look()
    (one,) = (await store.alerts()).values()
    work = await store.work(one.message)
    assert work is not None
    with Redis.from_url(url) as client:
        client.flushall()

        def mb() -> float:
            return float(client.info("memory")["used_memory"]) / 1e6

        empty = mb()
        for state in (State.FIRING, State.RESOLVED):
            for i in range(count):
                ident = f"{i:020x}"
                alert = replace(one, id=ident, message=f"{ident}-1", state=state)
                draft: Draft = replace(work.draft, id=f"{ident}-1", alert=ident, resolved=state is State.RESOLVED)
                await store.commit({ident: alert}, [draft], now=1.0)
                await store.record(draft, Delivery(channel="C0MESH", ts=f"17600{i:05}.000100", rev=1))
                held = await store.work(draft.id)
                assert held is not None
                await store.settle(draft.id, held.rev)
            commits = [client.delete(key) for key in client.scan_iter("{meshwhy}:commit:*", count=1000)]  # gone after ten minutes
            print(
                f"{count:,} {state.value} alerts: {(mb() - empty) * 1000 / count:.1f} MB for each 1,000 ({len(commits):,} traces of commits apart)"
            )
            if (mb() - empty) * 1000 / count > GOAL_MB:
                return False
    await store.close()
    return True


async def main(count: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        async with embedded(Path(folder) / "valkey") as url:
            return 0 if await measure(count, url) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
