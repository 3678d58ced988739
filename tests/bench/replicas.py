"""What one process carries, and what more make of it: `python tests/bench/replicas.py [MESHES] [SERVICES] [EVENTS] [SECONDS]`.

So many meshes (8) of so many services (250) each stand behind API servers on loopback, in a process of their own, and change so often a second
(300): an endpoint is ready or not. One bot carries them alone, then two share them (`redis.divided`), then four, as processes; the CPU time of each
is taken over 20 s when everything is read. Each mesh is watched by two bots: with two, both read everything and each looks at its share, so that
only the looking halves; from two to four everything does. Goal: from two to four the CPU seconds of a bot halve, within 15 %. The hash divides a
few meshes unevenly, so the mean of the bots is held against it, and each one's figure is printed. The exit status is 1 when it is missed.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from redis import Redis

sys.path.insert(0, str(Path(__file__).parents[2]))
from bot.demo.slack import LocalSlack
from bot.shares import WATCHERS
from bot.valkey import embedded
from tests.bench.live import healthy

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

ROOT = Path(__file__).parents[2]
WITHIN = 0.15


async def serve(meshes: int, services: int, events: float, folder: Path) -> None:
    """The API servers, which change from the beginning."""
    from contextlib import AsyncExitStack  # noqa: PLC0415 - the measured process must not hold it

    from tests.apiserver import ApiServer  # noqa: PLC0415 - as above

    pick = random.Random(3)  # noqa: S311 - the same changes in every run
    async with AsyncExitStack() as stack:
        found: list[tuple[ApiServer, dict[str, Any]]] = []
        for n in range(meshes):
            api: ApiServer = await _entered(stack, ApiServer(tls=True))
            objects = healthy(services)
            api.put(*objects)
            api.kubeconfig(folder / f"m{n}")
            found += [(api, o) for o in objects if o["kind"] == "EndpointSlice" and len(o["endpoints"]) > 4]
        print("ready", flush=True)
        began, made = time.monotonic(), 0
        while True:
            await asyncio.sleep(0.05)
            while made < (time.monotonic() - began) * events:
                made += 1
                api, slice_ = pick.choice(found)
                changed = [dict(e) for e in slice_["endpoints"]]
                pick.choice(changed)["conditions"] = {"ready": pick.random() < 0.5}
                api.put({**slice_, "endpoints": changed})


async def _entered(stack: AsyncExitStack, api: Any) -> Any:
    return await stack.enter_async_context(api)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def metric(port: int, name: str) -> list[float]:
    """The values of a metric of a bot; none while it does not answer."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
    except aiohttp.ClientError:
        return []
    return [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)]


async def measure(count: int, meshes: int, seconds: float, folder: Path, url: str, port: int) -> list[float]:
    """CPU seconds in each second, of each of `count` bots."""
    with Redis.from_url(url) as client:
        client.flushall()
    slack = LocalSlack()
    await slack.start()
    bots = []
    try:
        for n in range(count):
            settings = {
                "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": slack.base_url},
                "redis": {"url": url, "divided": True},
                "state_dir": str(folder / "state"),
                "clusters": [{"name": f"m{i}", "kubeconfig": str(folder / f"m{i}")} for i in range(meshes)],
                "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh"},
                "health": {"port": port + n},
            }
            (folder / f"config-{n}.yaml").write_text(yaml.safe_dump(settings))
            command = [sys.executable, "-m", "bot", "run", "--config", str(folder / f"config-{n}.yaml")]
            environment = {**os.environ, "APP": slack.app_token, "BOT": slack.bot_token}
            with (folder / f"{n}.log").open("w") as log:
                bots.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment))  # noqa: ASYNC220 - nothing else runs yet
        async with asyncio.timeout(300):
            while True:
                read = [await metric(port + n, "meshwhy_cluster_synced") for n in range(count)]
                if all(read) and sum(map(sum, read)) == sum(map(len, read)) == meshes * min(count, WATCHERS):
                    break
                await asyncio.sleep(0.5)
        await asyncio.sleep(15)  # who is on duty is settled, and everything was looked at once
        before, began = [cpu_s(b.pid) for b in bots], time.monotonic()
        await asyncio.sleep(seconds)
        return [(cpu_s(b.pid) - was) / (time.monotonic() - began) for b, was in zip(bots, before, strict=True)]
    finally:
        for bot in bots:
            bot.kill()
            bot.wait()
        await slack.stop()


async def main(meshes: int, services: int, events: float, seconds: float) -> int:
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        folder = Path(name)
        command = [sys.executable, __file__, "serve", str(meshes), str(services), str(events), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:  # noqa: ASYNC220 - nothing else runs yet
            try:
                assert server.stdout is not None
                server.stdout.readline()
                async with embedded(folder / "valkey") as url:
                    found = {n: await measure(n, meshes, seconds, folder, url, 18080 + 10 * n) for n in (1, 2, 4)}
            finally:
                server.terminate()
    mean = {n: sum(each) / n for n, each in found.items()}
    print(f"{meshes} meshes of {services:,} services, {events:g} changes a second")
    print(f"  one bot: {mean[1]:.3f} CPUs; a whole one carries {events / mean[1]:,.0f} changes a second")
    for n in (2, 4):
        print(f"  {n} bots: {', '.join(f'{c:.3f}' for c in found[n])}; the mean is {mean[n] / mean[n // 2]:.0%} of that of {n // 2}")
    return 0 if abs(mean[4] / mean[2] - 0.5) <= WITHIN * 0.5 else 1


if __name__ == "__main__":
    given = [float(a) for a in sys.argv[1:5] if a != "serve"]
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])))
        sys.exit()
    chosen = [*given, *(8, 250, 300, 20)[len(given) :]]
    sys.exit(asyncio.run(main(int(chosen[0]), int(chosen[1]), chosen[2], chosen[3])))
