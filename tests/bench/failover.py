"""Three bots as processes with the lease of production: `python tests/bench/failover.py`.

The leader is stopped for 60 s and resumed: what it had under way must change nothing. Then the leader is killed, twice. Each time a change is
made at that instant, and the time is taken to what another bot posts of it; goal 15 s. The exit status is 1 when a goal is missed.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot.valkey import embedded
from tests import test_replicas
from tests.test_replicas import Replica, Team, team

LEASE_S, GOAL_S, PAUSE_S = 10.0, 15.0, 60.0
BROKEN, WELL = "95 % of destination.mynamespace fails", "Resolved after"


async def paused(here: Team) -> tuple[float, int]:
    """Seconds until another one posts, and how many lines the thread gets when the one that was stopped goes on."""
    first, (root,) = await here.leader(), here.slack.messages("#mesh")
    first.kill(signal.SIGSTOP)
    began = time.monotonic()
    await here.east.deploy_v1()
    await here.headline(WELL, 60)
    taken = time.monotonic() - began
    await asyncio.sleep(max(0.0, PAUSE_S - (time.monotonic() - began)))
    lines = len(here.slack.thread(root.channel, root.ts))
    first.kill(signal.SIGCONT)
    await asyncio.sleep(1.5 * LEASE_S)
    assert not first.leads()
    await here.headline(WELL, 5)
    return taken, len(here.slack.thread(root.channel, root.ts)) - lines


async def killed(here: Team) -> list[float]:
    """Seconds from each kill of the leader to the next post."""
    taken = []
    for change, headline in ((here.east.remove_v1, BROKEN), (here.east.deploy_v1, WELL)):
        first = await here.leader()
        first.kill(signal.SIGKILL)
        began = time.monotonic()
        await change()
        await here.headline(headline, 60)
        taken.append(time.monotonic() - began)
        here.replicas.append(Replica(here.config))
        await here.slack.until(lambda: len(here.slack.delivery.connections) >= 3, 60)
    return taken


async def main() -> int:
    test_replicas.TTL_S = LEASE_S
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        async with embedded(Path(folder) / "valkey") as url, team(url, Path(folder)) as here:
            os.environ |= {"APP": here.slack.app_token, "BOT": here.slack.bot_token, "URL": url}  # for those that are started later
            await here.headline(BROKEN, 60)
            await here.slack.until(lambda: len(here.slack.delivery.connections) == 3, 60)
            stopped, more = await paused(here)
            print(f"lease {LEASE_S:g} s, three bots; goal {GOAL_S:g} s from the leader's end to the next one's post")
            print(f"  stopped for {PAUSE_S:g} s: {stopped:.1f} s; after it was resumed {more} lines were added (goal 0)")
            taken = await killed(here)
            print(f"  killed: {', '.join(f'{t:.1f}' for t in taken)} s")
            return 0 if max(*taken, stopped) <= GOAL_S and more == 0 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
