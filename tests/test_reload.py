"""A settings file that changes while the bot runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import yaml

from bot.__main__ import serve
from bot.clusters import Clusters, ClusterSource
from bot.reload import Watched, alike
from bot.settings import BadSettings, Settings, load
from tests.bots import RECORDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bot.demo.slack import LocalSlack

ENVIRON = {"APP": "xapp-1", "BOT": "xoxb-1"}


def written(folder: Path, **alerts: object) -> str:
    return yaml.safe_dump(
        {
            "slack": {"app_token": {"env": "APP"}, "bot_token": {"file": "token"}},
            "clusters": [{"name": "east", "path": str(folder / "east")}],
            "alerts": {"default_channel": "#mesh", **alerts},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("xoxb-1")
    (tmp_path / "m.yaml").write_text(written(tmp_path))
    return tmp_path


async def news(watched: Watched, within_s: float = 5) -> Settings | BadSettings:
    async with asyncio.timeout(within_s):
        return await watched.news()


async def channel(watched: Watched) -> str:
    found = await news(watched)
    assert isinstance(found, Settings)
    return found.alerts.default_channel


# --- what is seen ---


async def test_a_file_that_is_written_or_replaced_is_read(folder: Path):
    watched = Watched(folder / "m.yaml", ENVIRON, 0.05)
    (folder / "m.yaml").write_text(written(folder, default_channel="#written"))
    assert await channel(watched) == "#written"
    (folder / "new").write_text(written(folder, default_channel="#replaced"))
    (folder / "new").rename(folder / "m.yaml")
    assert await channel(watched) == "#replaced"
    with pytest.raises(TimeoutError):
        await news(watched, 0.3)


async def test_the_symlinks_of_a_config_map_are_followed(folder: Path):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(written(folder, default_channel=f"#{name}"))
        (folder / name / "token").write_text("xoxb-1")
    (folder / "mounted").mkdir()
    (folder / "mounted/..data").symlink_to(folder / "one")
    for name in ("config.yaml", "token"):
        (folder / "mounted" / name).symlink_to(f"..data/{name}")
    stamp = (folder / "one/config.yaml").stat()
    os.utime(folder / "two/config.yaml", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    watched = Watched(folder / "mounted/config.yaml", ENVIRON, 0.05)
    (folder / "mounted/..new").symlink_to(folder / "two")
    (folder / "mounted/..new").rename(folder / "mounted/..data")  # as the kubelet does it
    assert await channel(watched) == "#two"


async def test_a_file_that_is_still_being_written_is_not_read(folder: Path):
    watched = Watched(folder / "m.yaml", ENVIRON, 0.05)
    text = written(folder, default_channel="#whole")

    async def slowly() -> None:
        for end in range(0, len(text) + 40, 40):
            (folder / "m.yaml").write_text(text[:end])
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(slowly())
    assert await channel(watched) == "#whole"
    await writing


async def test_sighup_asks_to_look_and_a_secrets_file_is_looked_at_as_well(folder: Path):
    watched = Watched(folder / "m.yaml", ENVIRON, 60)
    (folder / "token").write_text("xoxb-2")
    with watched.signalled():
        os.kill(os.getpid(), signal.SIGHUP)
        found = await news(watched)
    assert isinstance(found, Settings)
    assert found.slack.bot_token.get_secret_value() == "xoxb-2"


async def test_a_prometheus_token_that_is_written_anew_is_used_at_once_by_the_bot_that_runs(folder: Path):
    text = yaml.safe_load(written(folder))
    text["clusters"][0]["prometheus"] = {"url": "https://p.example", "token": {"file": "counting"}}
    (folder / "m.yaml").write_text(yaml.safe_dump(text))
    (folder / "counting").write_text("first")
    before = load(folder / "m.yaml", ENVIRON)
    clusters = Clusters([ClusterSource.registered(c) for c in before.clusters])
    (folder / "counting").write_text("second")
    after = load(folder / "m.yaml", ENVIRON)
    assert after != before
    assert alike(before, after)
    clusters.heed({c.name: c.prometheus for c in after.clusters})
    place = clusters.way("east")[0].prometheus
    assert place is not None
    assert place.token is not None
    assert place.token.get_secret_value() == "second"
    text["clusters"][0]["name"] = "west"
    (folder / "m.yaml").write_text(yaml.safe_dump(text))
    assert not alike(before, load(folder / "m.yaml", ENVIRON))


async def test_what_is_wrong_with_it_is_told(folder: Path):
    watched = Watched(folder / "m.yaml", ENVIRON, 0.05)
    (folder / "m.yaml").write_text(written(folder, fro="1m"))
    bad = await news(watched)
    assert isinstance(bad, BadSettings)
    assert "alerts.fro is not a setting" in str(bad)
    (folder / "m.yaml").unlink()
    assert "cannot be read" in str(await news(watched))


# --- what a running bot does ---


class Served:
    """A bot that runs by a file."""

    def __init__(self, slack: LocalSlack, redis_url: str, folder: Path) -> None:
        self.slack = slack
        self.folder = folder
        self.path = folder / "m.yaml"
        self._redis = redis_url
        self.running = False

    def write(self, health: int = 0, clusters: int = 1, **alerts: object) -> None:
        text = {
            "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": self.slack.base_url},
            "redis": {"url": self._redis, "lease": "1s"},
            "clusters": [{"name": f"east{i or ''}", "path": str(self.folder / "east")} for i in range(clusters)],
            "alerts": {"for": "0s", "clear": "0s", "default_channel": "#mesh", "admin_channel": "#ops", **alerts},
            "health": {"port": health or None},
        }
        self.path.write_text(yaml.safe_dump(text))
        if self.running:
            os.kill(os.getpid(), signal.SIGHUP)  # not to wait for the next look

    def told(self, channel: str) -> list[str]:
        return [m.words for m in self.slack.messages(channel)]


@asynccontextmanager
async def served(slack: LocalSlack, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    shutil.copytree(RECORDED / "east", folder / "east")
    monkeypatch.setenv("APP", slack.app_token)
    monkeypatch.setenv("BOT", slack.bot_token)
    here = Served(slack, redis_url, folder)
    here.write()
    bot = asyncio.create_task(serve(load(here.path, os.environ), here.path))
    try:
        await slack.until(lambda: here.told("#mesh"), 15)
        here.running = True
        yield here
        assert not bot.done(), bot
    finally:
        bot.cancel()
        with suppress(asyncio.CancelledError):
            await bot


async def test_new_routes_are_gone_by_at_once(slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(slack, redis_url, tmp_path, monkeypatch) as here:
        here.write(routes=[{"match": {"namespace": "mynamespace"}, "channel": "#payments"}])
        (copy,) = await slack.until(lambda: here.told("#payments"), 10)
        assert copy.startswith("95 % of destination.mynamespace fails")
        assert len(here.told("#mesh")) == 1
        connections = len(slack.delivery.connections)
        assert connections == 1, "the same connection goes on"


async def test_a_bad_file_is_said_once_and_the_settings_before_go_on(
    slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with served(slack, redis_url, tmp_path, monkeypatch) as here:
        here.write(fro="1m")
        (told,) = await slack.until(lambda: here.told("#ops"), 10)
        assert "alerts.fro is not a setting; did you mean alerts.for?" in told
        assert "the settings before go on" in caplog.text
        await slack.command("/mesh alerts", user="U0ANA")
        await slack.until(lambda: slack.ephemerals("ana"), 10)
        here.path.touch()
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.5)
        assert len(here.told("#ops")) == 1
        here.write()
        await slack.until(lambda: "can be used again" in here.told("#ops")[0], 10)


async def test_with_other_clusters_the_bot_begins_anew_and_loses_nothing(
    slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with served(slack, redis_url, tmp_path, monkeypatch) as here:
        here.write(clusters=2)
        await slack.until(lambda: len(here.told("#mesh")) == 2, 15)
        assert sum("east1" in str(m.blocks) for m in slack.messages("#mesh")) == 1


async def test_settings_that_no_bot_can_begin_with_are_said_and_left(
    slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with served(slack, redis_url, tmp_path, monkeypatch) as here:
        taken = await asyncio.start_server(lambda *_: None, "0.0.0.0", 0)
        async with taken:
            here.write(health=taken.sockets[0].getsockname()[1])
            (told,) = await slack.until(lambda: here.told("#ops"), 15)
            assert "No bot can begin with it: " in told
            assert "address already in use" in told
            await slack.command("/mesh alerts", user="U0ANA")
            await slack.until(lambda: slack.ephemerals("ana"), 10)
