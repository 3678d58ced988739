"""Clusters divided over several bots: who watches which, findings that reach the one that leads, questions that reach one that can answer them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from msgspec.structs import replace

from bot import shares
from bot.alerts import State
from bot.clusters import Clusters
from bot.lease import Lease
from bot.shares import Shares, order
from bot.sweep import Sweeper
from bot.sweep import _together as together
from checks import diagnosis
from checks.diagnosis import Sweep
from checks.mesh import Cluster, Mesh
from tests.bots import FINDING, RECORDED, World, alerts, alongside
from tests.test_sweep import BROKEN, WELL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from bot.store import Store

MESHES = [f"mesh-{i}" for i in range(200)]


# --- who watches what ---


def test_a_bot_that_goes_moves_only_its_own_meshes_and_each_mesh_has_two():
    four = ["a1", "b2", "c3", "d4"]
    before = {m: order(m, four)[:2] for m in MESHES}
    after = {m: order(m, four[:3])[:2] for m in MESHES}
    assert all(len(set(two)) == 2 for two in before.values())
    assert {m for m in MESHES if before[m] != after[m]} == {m for m in MESHES if "d4" in before[m]}
    for counts in (Counter(two[0] for two in before.values()), Counter(n for two in before.values() for n in two)):
        assert max(counts.values()) < 1.5 * min(counts.values()), counts


async def test_members_see_each_other_until_they_fall_silent_or_leave(store: Store):
    assert await store.join("a", 0.3, ["m"]) == (["a"], {"m": ["a"]})
    members, ready = await store.join("b", 5, ["m", "n n"])
    assert (members, {k: sorted(v) for k, v in ready.items()}) == (["a", "b"], {"m": ["a", "b"], "n n": ["b"]})
    await asyncio.sleep(0.4)
    assert await store.join("b", 5, ["n n"]) == (["b"], {"n n": ["b"]}), "what it has not read any more it does not have"
    await store.leave("b", ["n n"])
    assert await store.join("c", 5, []) == (["c"], {})


async def test_who_was_paused_for_too_long_tells_nothing_any_more(store: Store):
    await store.join("a", 0.2, [])
    assert await store.tell("m", "a", "fresh", 5)
    await asyncio.sleep(0.3)
    assert not await store.tell("m", "a", "stale", 5)
    assert await store.reports({"m": "a", "n": "a"}) == {"m": "fresh"}
    assert await store.news("leader", 0.1)
    assert not await store.news("leader", 0.1)


async def test_nobody_is_believed_but_the_one_who_looks_and_nothing_of_an_earlier_duty(store: Store):
    for name in "ab":
        await store.join(name, 5, ["m"])
        assert await store.tell("m", name, f"of {name}", 5)
    assert await store.reports({"m": "a"}) == {"m": "of a"}
    assert await store.reports({"m": "b"}) == {"m": "of b"}
    await store.untell(["m"], "b")
    assert await store.reports({"m": "b"}) == {}
    assert not await store.renew("m", "b", 5), "another one's report is not renewed"
    assert await store.renew("m", "a", 5)


async def test_what_another_bot_looks_at_gets_well_when_that_one_says_so_and_not_before(store: Store):
    """A bot that begins to lead watches a cluster as well, and has not heard yet of the one that looks at it."""
    await Sweeper(World(BROKEN), store, alerts()).look()
    sweeper, lease = Sweeper(World(WELL), store, alerts()), Lease(store, 10)
    mine = Shares(store, Clusters([]), sweeper, lease, {"east": ["east"]})
    mine.name = next(n for i in range(99) if order("east", [n := f"mine-{i}", "other"])[0] == "other")
    lease.leading = True
    await store.join("other", 30, ["east"])

    async def told(cluster: Cluster) -> None:
        (mesh,) = Mesh.of([cluster], time.time())
        report = shares.Report((shares._part(mesh, diagnosis.sweep(mesh)),))
        before = mine.heard()
        assert await store.tell("east", "other", shares.msgspec.json.encode(report).decode(), 30)
        async with asyncio.timeout(10):
            while mine.heard() == before:  # noqa: ASYNC110 - it comes by way of Redis
                await asyncio.sleep(0.02)

    async def stands() -> list[State]:
        await sweeper.look()
        return [a.state for a in (await store.alerts()).values() if a.firings == 1]

    async with alongside(mine.run()):
        async with asyncio.timeout(10):
            while not mine.held:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        assert await stands() == [State.FIRING], "nobody has told of it"
        await told(BROKEN)
        assert await stands() == [State.FIRING]
        await told(WELL)
        assert await stands() == []


async def test_a_question_is_given_to_one_holder_and_taken_over_from_one_who_is_gone(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.store._ABANDONED_S", 0.3)
    await store.ask("m", "why?")
    ((mesh, ident, question),) = await store.asked(["m", "n"], "a", 0.1)
    assert (mesh, question) == ("m", "why?")
    assert await store.asked(["m"], "b", 0.05) == []
    await asyncio.sleep(0.4)
    assert await store.asked(["m"], "b", 0.05) == [(mesh, ident, question)]
    await store.answered(mesh, ident)
    await asyncio.sleep(0.4)
    assert await store.asked(["m"], "a", 0.05) == []


def test_a_report_carries_what_routing_needs_and_nothing_of_the_rest():
    from bot import manifests, routing  # noqa: PLC0415 - only here

    east = manifests.read(str(RECORDED / "east"), "east", mesh="east", read_at=5.0)
    (mesh,) = Mesh.of([east], 6.0)
    sweep = diagnosis.sweep(mesh)
    report = shares.Report((shares._part(mesh, sweep),))
    ((told, found),) = shares._taken(shares.msgspec.json.encode(report).decode()).meshes
    assert found.findings == tuple(f for f in sweep.findings if f.severity != "info")
    for finding in found.findings:
        assert routing.about(finding, told) == routing.about(finding, mesh)
        assert routing.resource_of(told, finding) == routing.resource_of(mesh, finding)
    assert told.cluster_id(told.clusters[0]) == mesh.cluster_id(mesh.clusters[0])
    (cluster,) = told.clusters
    assert count(cluster) < count(east) / 2
    assert (cluster.read_at, cluster.synced) == (5.0, True)


def count(cluster: Cluster) -> int:
    return sum(len(named) for spaces in cluster.objects.values() for named in spaces.values())


def test_findings_that_a_newer_bot_words_otherwise_are_not_believed():
    with pytest.raises(shares.msgspec.DecodeError):
        shares._taken(json.dumps({"parts": [{"mesh": "m", "clusters": "?"}]}))
    assert replace(FINDING, cluster="west") != FINDING


def test_of_a_mesh_that_nobody_has_told_of_it_is_said_that_it_was_not_looked_at():
    told, untold = Mesh("told", [Cluster("east")], 0.0), Mesh("untold", [Cluster("west"), Cluster("north")], 0.0)
    whole = together({"told": told, "untold": untold}, {"told": Sweep(3, (FINDING,), (), ())})
    assert (whole.hosts, whole.findings) == (3, (FINDING,))
    assert {(s.check, s.cluster) for s in whole.skipped} == {("*", "west"), ("*", "north")}
    assert all("another bot watches it" in s.reason for s in whole.skipped)


# --- whole bots ---


class Bot:
    """One `meshwhy run`, as a process."""

    def __init__(self, config: Path, port: int, number: int) -> None:
        settings = yaml.safe_load(config.read_text())
        mine = config.with_name(f"config-{number}.yaml")
        mine.write_text(yaml.safe_dump({**settings, "health": {"port": port}}))
        self.port = port
        self.log = config.with_name(f"{number}.log")
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "bot", "run", "--config", str(mine)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=RECORDED.parents[2])

    async def watches(self) -> set[str]:
        """The clusters that it says it reads."""
        if self.process.poll() is not None:
            return set()
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                text = await answer.text()
        except aiohttp.ClientError:
            return set()
        return {line.split('"')[1] for line in text.splitlines() if line.startswith("meshwhy_cluster_synced{") and line.endswith(" 1.0")}

    async def leads(self) -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            return "meshwhy_leading 1.0" in await answer.text()


class Incident:
    """A mesh with the article's first incident in a namespace of its own, mended at first."""

    def __init__(self, folder: Path, name: str) -> None:
        self.host = f"destination.shop-{name}"
        self._folder, self._name = folder / name, name
        self._folder.mkdir(exist_ok=True)
        for file in (RECORDED / "east").iterdir():
            (self._folder / file.name).write_text(self._own(file))
        self.mend()

    def _own(self, file: Path) -> str:
        return file.read_text().replace("mynamespace", f"shop-{self._name}")

    def mend(self) -> None:
        beside = self._folder / ".v1.yaml"
        beside.write_text(self._own(RECORDED / "destination-v1.yaml"))
        beside.rename(self._folder / "v1.yaml")

    def break_(self) -> None:
        (self._folder / "v1.yaml").unlink()


class Fleet:
    """Several bots, and meshes in which the article's incident waits to happen."""

    def __init__(self, slack: LocalSlack, config: Path, folder: Path, ports: Callable[[], int], meshes: list[str]) -> None:
        self.slack = slack
        self.meshes = {name: Incident(folder, name) for name in meshes}
        self._config, self._ports = config, ports
        self.bots: list[Bot] = []

    def start(self) -> Bot:
        bot = Bot(self._config, self._ports(), len(self.bots))
        self.bots.append(bot)
        return bot

    async def watched(self) -> dict[str, list[Bot]]:
        """Which bots read each mesh."""
        found: dict[str, list[Bot]] = {name: [] for name in self.meshes}
        for bot in self.bots:
            for name in await bot.watches():
                found[name].append(bot)
        return found

    async def settled(self, each: int, timeout_s: float = 40) -> dict[str, list[Bot]]:
        found = await self.watched()
        async with asyncio.timeout(timeout_s):
            while any(len(bots) != each for bots in found.values()):
                await asyncio.sleep(0.2)
                found = await self.watched()
        return found

    def lines(self, name: str) -> list[str]:
        """What the threads say of a mesh."""
        roots = [m for m in self.slack.messages("#mesh") if f"shop-{name}" in m.words]
        return [line.words for m in roots for line in self.slack.thread(m.channel, m.ts)]

    def headlines(self, name: str) -> list[str]:
        """The headlines of what is told of a mesh."""
        return [m.words.split("\n")[0] for m in self.slack.messages("#mesh") if f"shop-{name}" in m.words]


@asynccontextmanager
async def fleet(slack: LocalSlack, url: str, folder: Path, ports: Callable[[], int], meshes: list[str]) -> AsyncIterator[Fleet]:
    settings: dict[str, Any] = {
        "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": slack.base_url},
        "redis": {"url": url, "lease": "10s", "divided": True},
        "state_dir": str(folder / "state"),
        "clusters": [{"name": name, "path": name} for name in meshes],
        "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    os.environ |= {"APP": slack.app_token, "BOT": slack.bot_token}
    here = Fleet(slack, folder / "config.yaml", folder, ports, meshes)
    try:
        yield here
    finally:
        for bot in here.bots:
            bot.process.kill()
            bot.process.wait()


async def told(slack: LocalSlack, asked: str) -> str:
    """What ana is told who asks."""
    before = len(slack.ephemerals("ana"))
    await slack.command(asked)
    await slack.until(lambda: len(slack.ephemerals("ana")) > before, 15)
    return str(slack.ephemerals("ana")[-1].words)


async def test_three_bots_share_six_meshes_and_one_that_dies_is_replaced_within_half_a_minute(
    slack: LocalSlack, redis_url: str, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
):
    names = [f"m{i}" for i in range(6)]
    async with fleet(slack, redis_url, tmp_path, unused_tcp_port_factory, names) as here:
        for _ in range(3):
            here.start()
        found = await here.settled(2)
        assert any(bot not in bots for bot in here.bots for bots in found.values()), "not everybody watches everything"
        await slack.until(lambda: len(slack.delivery.connections) == 3, 20)
        await asyncio.sleep(shares._MEMBER_S / 2)  # until all agree who looks at what: each asks four times in it

        # What any of them finds reaches the one that leads, and is told once.
        for name in names:
            here.meshes[name].break_()
        await slack.until(lambda: all(any("fail" in h for h in here.headlines(n)) for n in names), 40)
        assert all(len(here.headlines(n)) == 1 for n in names)

        # Whoever is asked, one that watches the mesh answers; nobody says that there is no such host.
        for name in names * 3:
            host = here.meshes[name].host
            async with asyncio.timeout(30):
                while f"95 % of {host} fails" not in (words := await told(slack, f"/mesh why {host}")):
                    assert f"{host} is healthy" in words, words  # the second one to watch it may be later, and says how old it is
        for name in names:
            assert "No host" not in await told(slack, f"/mesh explain 503 UH http://{here.meshes[name].host}/")
        assert "No host" in await told(slack, "/mesh why nobody.at-all")

        def missing(words: str) -> list[str]:
            return [n for n in names if f"shop-{n}" not in words]

        for _ in range(3):
            async with asyncio.timeout(30):
                while missing(words := await told(slack, "/mesh broken")):
                    # the one that leads has just begun to, and has not heard all: it says of what
                    assert "another bot watches it" in words, (missing(words), words)

        # Whoever looks at a mesh runs the runbooks of what fails there.
        def ran(name: str) -> bool:
            return any(f"Runbook of {here.meshes[name].host}" in line for line in here.lines(name))

        await slack.until(lambda: sum(map(ran, names)) > 2, 60)  # more than one bot looks at

        gone = here.bots[0]
        theirs = [n for n, bots in found.items() if gone in bots]
        gone.process.send_signal(signal.SIGKILL)
        gone.process.wait()
        began = time.monotonic()
        await here.settled(2)
        assert time.monotonic() - began < 30
        for name in theirs:
            here.meshes[name].mend()
        await slack.until(lambda: all(here.headlines(n)[0].startswith("Resolved") for n in theirs), 30)
        assert all(len(here.headlines(n)) == 1 for n in names)
        assert not [h for n in names for h in here.headlines(n) if "cannot be read" in h], "nothing was unknown on the way"

        def turns(name: str) -> int:
            return sum("*resolved*" in line or "*fired* again" in line for line in here.lines(name))

        await slack.until(lambda: all(turns(n) for n in theirs), 30)
        assert {n: turns(n) for n in names} == {n: int(n in theirs) for n in names}, "what fails is never told as well on the way"
