"""Several bots on one store: one keeps the alerts and posts, the others watch, answer, and take over. Real processes, a real Valkey, the local Slack."""

from __future__ import annotations

import asyncio
import copy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from redis import Redis

from bot.alerts import Alert, State
from bot.demo.runner import East
from bot.demo.slack import LocalSlack, Message
from bot.lease import Lease
from bot.store import Deposed, Draft, Store
from bot.tell import ACK
from templates.blocks import Message as Words
from tests.bots import FINDING, RECORDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

TTL_S = 1.5  # ten seconds in production; what is measured here are parts of it
ALERT = Alert(id="a1", state=State.FIRING, finding=FINDING, since=1.0, message="a1-1", told=True)
DRAFT = Draft(id="a1-1", alert="a1", channel="#mesh", message=Words("95 % fails"))


@asynccontextmanager
async def stores(url: str, count: int) -> AsyncIterator[list[Store]]:
    opened = [Store(url) for _ in range(count)]
    try:
        for store in opened:
            await store.open()
        yield opened
    finally:
        for store in opened:
            await store.close()


async def eventually(ask: Callable[[], Awaitable[Any]], timeout_s: float = 10) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await ask()):  # noqa: ASYNC110 - another process has no event for this
            await asyncio.sleep(0.02)
    return found


# --- the lease ---


async def test_one_has_the_lease_and_the_next_one_gets_it_with_a_greater_fence(redis_url: str):
    async with stores(redis_url, 2) as (one, two):
        first = await one.lease("one", 0.3)
        assert first
        assert await one.lease("one", 0.3) == first, "it is renewed"
        assert await two.lease("two", 0.3) == ""
        await asyncio.sleep(0.4)
        second = await two.lease("two", 0.3)
        assert int(second.split()[0]) > int(first.split()[0])
        assert await one.lease("one", 0.3) == ""
        await two.release_lease(first)
        assert await one.lease("one", 0.3) == "", "a lease that is over gives nothing back"
        await two.release_lease(second)
        assert await one.lease("one", 0.3) not in {"", first}


async def test_nothing_that_is_written_under_a_lease_that_is_over_changes_anything(redis_url: str):
    async with stores(redis_url, 2) as (stale, fresh):
        stale.fence = await stale.lease("stale", 0.2)
        await stale.commit({"a1": ALERT}, [DRAFT], now=1)
        await asyncio.sleep(0.3)
        with pytest.raises(Deposed):
            await stale.commit({"a1": None}, now=2)
        fresh.fence = await fresh.lease("fresh", 60)
        work = await fresh.work("a1-1")
        assert work is not None
        for write in (
            stale.commit({"a1": None}, now=3),
            stale.record(DRAFT, work.delivery),
            stale.settle("a1-1", 1),
        ):
            with pytest.raises(Deposed):
                await write
        assert await fresh.alerts() == {"a1": ALERT}
        assert await fresh.waiting() == [("a1-1", 1)]
        await fresh.commit({"a1": None}, now=4)
        assert await fresh.alerts() == {}


async def test_a_lease_that_was_lost_and_taken_again_begins_anew_and_what_was_under_way_keeps_its_fence(redis_url: str):
    fences: list[str] = []
    late: list[Exception] = []

    async with stores(redis_url, 1) as (store,):

        async def lead() -> None:
            fences.append(store.fence)
            try:
                await asyncio.Event().wait()
            finally:
                try:  # what is cancelled may still write once
                    await store.commit({"a1": ALERT}, now=1)
                except Deposed as error:
                    late.append(error)

        task = asyncio.create_task(Lease(store, 0.6).run(lead))
        await eventually(lambda: asyncio.sleep(0, len(fences) == 1))
        with Redis.from_url(redis_url) as client:
            client.delete("{meshwhy}:leader")  # as if it had run out while we were paused
        await eventually(lambda: asyncio.sleep(0, len(fences) == 2))
        assert fences[0] != fences[1]
        assert len(late) == 1
        assert await store.alerts() == {}
        task.cancel()
        await asyncio.wait([task])


async def test_who_lost_the_lease_stops_and_begins_anew_and_who_ends_gives_it_back(redis_url: str):
    led: list[str] = []
    ended: list[str] = []

    def leader(name: str) -> Callable[[], Awaitable[None]]:
        async def lead() -> None:
            led.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return lead

    async with stores(redis_url, 2) as (one, two):
        first, second = Lease(one, 0.6), Lease(two, 0.6)
        tasks = [asyncio.create_task(first.run(leader("one")))]
        await eventually(lambda: asyncio.sleep(0, led == ["one"]))
        assert first.held()
        tasks.append(asyncio.create_task(second.run(leader("two"))))
        await asyncio.sleep(0.8)
        assert (led, second.held()) == (["one"], False)
        with Redis.from_url(redis_url) as client:
            client.set("{meshwhy}:leader", "99 somebody", px=400)
        await eventually(lambda: asyncio.sleep(0, ended == ["one"]))
        assert not first.held()
        await eventually(lambda: asyncio.sleep(0, len(led) == 2))
        leading = tasks.pop(0 if led[1] == "one" else 1)
        leading.cancel()
        await asyncio.wait([leading])
        began = time.monotonic()
        await eventually(lambda: asyncio.sleep(0, len(led) == 3), 2)
        assert time.monotonic() - began < 0.6, "what is given back need not be waited for"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_what_the_leader_is_for_fails_loudly(redis_url: str):
    async def broken() -> None:
        raise ZeroDivisionError

    async with stores(redis_url, 1) as (store,):
        with pytest.raises(ZeroDivisionError):
            await Lease(store, 5).run(broken)
        assert await store.lease("next", 5), "it was given back"


# --- whole bots ---


class Replica:
    """One `meshwhy run`, as a process."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "bot", "run", "--config", str(config)]
        self.log = config.with_suffix(f".{time.monotonic_ns()}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=RECORDED.parents[2])

    def leads(self) -> bool:
        """Whether it was the last to say so of itself."""
        said = [line for line in self.log.read_text().splitlines() if "keeps the alerts now" in line]
        return bool(said) and "This bot" in said[-1]

    def kill(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Team:
    """Three bots, the cluster that they watch, and the workspace in which they speak."""

    def __init__(self, slack: LocalSlack, config: Path, east: East) -> None:
        self.slack = slack
        self.config = config
        self.east = east
        self.replicas = [Replica(config) for _ in range(3)]

    async def leader(self, *, but: Replica | None = None, timeout_s: float = 30) -> Replica:
        async def leads() -> list[Replica]:
            alive = [r for r in self.replicas if r is not but and r.process.poll() is None]
            return [r for r in alive if r.leads()]

        found: list[Replica] = await eventually(leads, timeout_s)
        return found[0]

    async def headline(self, start: str, timeout_s: float = 20) -> Message:
        def told() -> Message | None:
            found = self.slack.messages("#mesh")
            assert len(found) <= 1, "one problem, one message"
            return found[0] if found and found[0].words.startswith(start) else None

        message: Message = await self.slack.until(told, timeout_s)
        return message


@asynccontextmanager
async def team(redis_url: str, folder: Path) -> AsyncIterator[Team]:
    shutil.copytree(RECORDED / "east", folder / "east")
    slack = LocalSlack()
    await slack.start()
    settings = {
        "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": slack.base_url},
        "redis": {"url": {"env": "URL"}, "lease": f"{TTL_S}s"},
        "state_dir": str(folder / "state"),
        "clusters": [{"name": "east", "path": "east"}],
        "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh"},
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("APP", slack.app_token), ("BOT", slack.bot_token), ("URL", redis_url)):
            patch.setenv(name, value)
        here = Team(slack, config, East(folder / "east"))
    try:
        yield here
    finally:
        for replica in here.replicas:
            replica.end()
        await slack.stop()


async def test_of_three_bots_one_posts_and_when_it_is_killed_another_goes_on_where_it_was(redis_url: str, tmp_path: Path):
    async with team(redis_url, tmp_path) as here:
        root = await here.headline("95 % of destination.mynamespace fails", 40)
        first = await here.leader()
        await here.slack.until(lambda: len(here.slack.delivery.connections) == 3, 40)
        first.kill(signal.SIGKILL)
        began = time.monotonic()
        await here.east.deploy_v1()
        assert await here.headline("Resolved after") is root
        assert time.monotonic() - began < 3 * TTL_S + 3
        second = await here.leader(but=first)
        assert second is not first
        await here.slack.until(lambda: "resolved" in here.slack.thread(root.channel, root.ts)[-1].words, 15)
        lines = [m.words for m in here.slack.thread(root.channel, root.ts)[1:]]
        assert sum("*fired*" in line for line in lines) == 1
        assert sum("*resolved*" in line for line in lines) == 1


async def test_a_leader_that_was_paused_and_goes_on_posts_nothing_and_writes_nothing(redis_url: str, tmp_path: Path):
    async with team(redis_url, tmp_path) as here:
        root = await here.headline("95 % of destination.mynamespace fails", 40)
        first = await here.leader()
        await here.slack.until(lambda: len(here.slack.delivery.connections) == 3, 40)
        first.kill(signal.SIGSTOP)
        await here.east.deploy_v1()
        assert await here.headline("Resolved after") is root
        await here.east.remove_v1()
        await here.headline("95 % of destination.mynamespace fails")
        first.kill(signal.SIGCONT)
        await asyncio.sleep(3 * TTL_S)
        await here.headline("95 % of destination.mynamespace fails")
        assert len([r for r in here.replicas if r.leads()]) == 1
        assert not first.leads()
        lines = [m.words for m in here.slack.thread(root.channel, root.ts)[1:]]
        assert sum("*fired*" in line for line in lines) == 2
        assert sum("*resolved*" in line for line in lines) == 1


async def test_whichever_bot_takes_a_click_it_counts_once(redis_url: str, tmp_path: Path):
    async with team(redis_url, tmp_path) as here:
        root = await here.headline("95 % of destination.mynamespace fails", 40)
        await here.slack.until(lambda: len(here.slack.delivery.connections) == 3, 40)
        stale = copy.copy(root)  # as those see it whose client has not drawn the edit yet
        await here.slack.click(root, ACK, user="U0ANA")
        await here.slack.until(lambda: "You see to it." in str([m.words for m in here.slack.ephemerals("ana")]), 15)
        for _ in range(5):
            await here.slack.click(stale, ACK, user="U0BEN")
        await here.slack.until(lambda: len(here.slack.ephemerals("ben")) == 5, 15)
        await here.slack.until(lambda: "Acknowledged by <@U0ANA>" in root.words, 15)
        await here.slack.until(lambda: [m for m in here.slack.thread(root.channel, root.ts) if "*acknowledged*" in m.words], 15)
        assert len([m for m in here.slack.thread(root.channel, root.ts) if "*acknowledged*" in m.words]) == 1
        assert all("<@U0ANA> sees to it already" in m.words for m in here.slack.ephemerals("ben"))
