"""`kill -9` of a whole bot at every step from the decision that something is to be said until it is written down where Slack has it.

Whatever the step: the next bot goes on, nothing is lost, and nothing stands twice in Slack.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from redis import Redis

from bot.demo.runner import East
from tests.bots import RECORDED
from tests.killing import Killer, Point, before_redis, before_slack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bot.demo.slack import LocalSlack, Message

DRAFT, TRYING, PLACE = r"HINCRBY.*body", r"trying\W+root \d", r"delivery:.*ts\W+\d+\.\d+.*place:"
FIRES = {
    "the alert and its message are decided": Point("redis", DRAFT),
    "they are committed": Point("redis", DRAFT, done=True),
    "the outbox asks what waits": Point("redis", r"ZRANGE.*outbox", nth=2),
    "it has read the message": Point("redis", r"MULTI", done=True),
    "that a post will be tried is to be noted": Point("redis", TRYING),
    "it is noted": Point("redis", TRYING, done=True),
    "the post is on its way": Point("slack", r"^chat\.postMessage"),
    "Slack has it and has not said where": Point("slack", r"^chat\.postMessage", done=True),
    "where it stands is to be noted": Point("redis", PLACE),
    "that is noted": Point("redis", PLACE, done=True),
    "the first line of the thread is to be noted as tried": Point("redis", r"trying\W+step"),
    "the first line is on its way": Point("slack", r"^chat\.postMessage.*thread_ts"),
    "Slack has the first line": Point("slack", r"^chat\.postMessage.*thread_ts", done=True),
    "that it is said is to be noted": Point("redis", r"LTRIM"),
    "that it is said is noted": Point("redis", r"LTRIM", done=True),
    "the picture is on its way": Point("slack", r"^files\.completeUploadExternal"),
    "Slack has the picture": Point("slack", r"^files\.completeUploadExternal", done=True),
    "the message is to be taken out of the outbox": Point("redis", r"local ttl"),
}
RESOLVES = {
    "the end is decided": Point("redis", DRAFT),
    "the end is committed": Point("redis", DRAFT, done=True),
    "the edit is on its way": Point("slack", r"^chat\.update"),
    "Slack has the edit": Point("slack", r"^chat\.update", done=True),
    "the edit is to be noted": Point("redis", r"delivery:.*rev\W+\d"),
    "Slack has the line about the end": Point("slack", r"^chat\.postMessage.*thread_ts", done=True),
}

OPENS = {
    "Slack has the channel and has not said so": Point("slack", r"^conversations\.create", done=True),
    "that it is there is to be noted": Point("redis", r"HDEL.*incidents"),
}


class World:
    """A broken cluster, a workspace, and a Valkey behind a proxy that kills."""

    def __init__(self, slack: LocalSlack, killer: Killer, east: East, config: Path, url: str) -> None:
        self.slack = slack
        self.killer = killer
        self.east = east
        self._config = config
        self._url = url

    def settled(self) -> bool:
        with Redis.from_url(self._url) as client:
            return bool(client.hlen("{meshwhy}:alerts") or client.keys("{meshwhy}:resolved:*")) and not client.zcard("{meshwhy}:outbox")

    def lines(self) -> list[str]:
        (root,) = self.slack.messages("#mesh")
        return [m.words for m in self.slack.thread(root.channel, root.ts)[1:]]

    async def start(self) -> subprocess.Popen[bytes]:
        with self._config.with_suffix(".log").open("a") as log:
            command = [sys.executable, "-m", "bot", "run", "--config", str(self._config)]
            return await asyncio.to_thread(subprocess.Popen, command, stdout=log, stderr=log, cwd=RECORDED.parents[2])

    @asynccontextmanager
    async def bot(self) -> AsyncIterator[subprocess.Popen[bytes]]:
        process = await self.start()
        try:
            yield process
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def headline(self, start: str) -> Message:
        def there() -> Message | None:
            found = [m for m in self.slack.messages("#mesh") if m.words.startswith(start)]
            return found[0] if found and self.settled() else None

        message: Message = await self.slack.until(there, 40)
        return message

    async def killed_at(self, point: Point) -> None:
        """A bot that is killed at this point, when it comes to it."""
        async with self.bot() as process:
            self.killer.arm(point, process.kill)
            async with asyncio.timeout(40):
                await self.killer.reached.wait()
            assert await asyncio.to_thread(process.wait) == -9


@pytest.fixture
async def world(redis_url: str, tmp_path: Path, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    killer = Killer()
    before_slack(slack, killer)
    async with before_redis(redis_url.removeprefix("unix://"), killer) as url:
        settings: dict[str, Any] = {
            "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": slack.base_url},
            "redis": {"url": url, "lease": "0.6s"},
            "state_dir": str(tmp_path / "state"),
            "clusters": [{"name": "east", "path": "east"}],
            "alerts": {"for": 0, "clear": 0, "default_channel": "#mesh"},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.setenv("APP", slack.app_token)
        monkeypatch.setenv("BOT", slack.bot_token)
        yield World(slack, killer, East(tmp_path / "east"), tmp_path / "config.yaml", redis_url)


def told_once(world: World) -> None:
    lines = world.lines()
    assert [sum(word in line for line in lines) for word in ("*fired*", "kubectl -n mynamespace patch", "istioctl proxy-config")] == [
        1,
        1,
        1,
    ]
    assert not [line for line in lines if "may stand twice" in line]


@pytest.mark.parametrize("point", FIRES.values(), ids=FIRES.keys())
async def test_killed_while_an_alert_is_told_the_next_bot_tells_it_once(world: World, point: Point):
    await world.killed_at(point)
    async with world.bot():
        root = await world.headline("95 % of destination.mynamespace fails")
        assert world.slack.messages("#mesh") == [root]
        told_once(world)
        assert len([m for m in world.slack.thread(root.channel, root.ts) if m.files]) <= 1


@pytest.mark.parametrize("point", RESOLVES.values(), ids=RESOLVES.keys())
async def test_killed_while_its_end_is_told_the_next_bot_tells_that_once(world: World, point: Point):
    async with world.bot() as first:
        root = await world.headline("95 % of destination.mynamespace fails")
        world.killer.arm(point, first.kill)
        await world.east.deploy_v1()
        async with asyncio.timeout(40):
            await world.killer.reached.wait()
        assert await asyncio.to_thread(first.wait) == -9
    async with world.bot():
        assert await world.headline("Resolved after") is root
        assert world.slack.messages("#mesh") == [root]
        told_once(world)
        assert sum("*resolved*" in line for line in world.lines()) == 1


@pytest.mark.parametrize("point", OPENS.values(), ids=OPENS.keys())
async def test_killed_while_a_channel_is_opened_for_an_incident_the_next_bot_opens_no_second_one(world: World, point: Point):
    async with world.bot() as first:
        root = await world.headline("95 % of destination.mynamespace fails")
        world.killer.arm(point, first.kill)
        await world.slack.mention("incident", thread_ts=root.ts)
        async with asyncio.timeout(40):
            await world.killer.reached.wait()
        assert await asyncio.to_thread(first.wait) == -9
    async with world.bot():
        await world.slack.until(lambda: "Its channel: <#" in root.words and world.settled(), 40)
        (channel,) = [c for c in world.slack.channels.values() if c.name.startswith("inc-")]
        await world.slack.until(lambda: len(world.slack.messages(channel.id)) == 2 and world.settled(), 20)
        assert sum("*a channel for it*" in line for line in world.lines()) == 1
        assert "U0ANA" in channel.members


async def test_where_nobody_may_look_whether_slack_has_it_the_second_one_says_that_it_is_perhaps_the_second(world: World):
    world.slack.fault("conversations.history", error="missing_scope", times=99)
    await world.killed_at(FIRES["Slack has it and has not said where"])
    async with world.bot():
        await world.slack.until(lambda: world.settled() and len(world.slack.messages("#mesh")) == 2, 40)
        first, second = world.slack.messages("#mesh")
        assert world.slack.thread(first.channel, first.ts) == [first]
        lines = [m.words for m in world.slack.thread(second.channel, second.ts)[1:]]
        assert sum("may stand twice" in line for line in lines) == 1
        assert sum("*fired*" in line for line in lines) == 1
