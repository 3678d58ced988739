"""The bot says when it cannot see or speak, once, whoever of several can, and when it is over. Whole bots, a real Valkey that is killed, the local Slack."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from bot import deadman
from bot.demo.workspace import BOT
from bot.demo.workspace import Message as Stored
from bot.outbox import Outbox
from bot.store import Draft, Store
from bot.valkey import embedded
from templates.blocks import Message as Words
from tests.bots import RECORDED, serving

if TYPE_CHECKING:
    from bot.demo.slack import LocalSlack, Message
    from bot.store import Work

CANNOT, AGAIN = "I cannot do my work", "I can work again"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What takes minutes takes seconds; there is a cluster to be read."""
    for name, seconds in (("EVERY", 0.3), ("STORE", 0.6), ("BLIND", 0.6), ("IDLE", 60.0), ("MUTE", 2.0), ("PAUSE", 0.2), ("TRIES", 0.5)):
        monkeypatch.setattr(deadman, f"_{name}_S", seconds)
    monkeypatch.setattr("bot.sweep._AGAIN_S", 0.3)
    shutil.copytree(RECORDED / "east", tmp_path / "east")


def said(slack: LocalSlack, start: str) -> list[Message]:
    return [m for m in slack.messages("#mesh") if m.text.startswith(start)]


async def one(slack: LocalSlack, start: str, words: str = "", timeout_s: float = 20) -> Message:
    """The only message that starts like this, and stays the only one for a while."""
    await slack.until(lambda: [m for m in said(slack, start) if words in m.words], timeout_s)
    await asyncio.sleep(1.5)
    (message,) = said(slack, start)
    assert words in message.words
    return message


async def bots(stack: AsyncExitStack, slack: LocalSlack, url: str, folder: Path, count: int = 3, **more: Any) -> None:
    for _ in range(count):
        await stack.enter_async_context(serving(slack, url, folder, **more))
    await slack.until(lambda: said(slack, "95 %"), 20)


async def test_that_redis_is_gone_is_said_once_by_three_bots_and_edited_when_it_is_back(slack: LocalSlack, tmp_path: Path):
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        async with AsyncExitStack() as stack:
            async with embedded(Path(name)) as url:
                await bots(stack, slack, url, tmp_path)
                with Redis.from_url(url) as client:
                    os.kill(client.info("server")["process_id"], signal.SIGKILL)
                told = await one(slack, CANNOT, "Redis does not answer")
            async with embedded(Path(name)):
                await slack.until(lambda: told.text.startswith(AGAIN), 20)
                assert said(slack, CANNOT) == []
                assert "Redis does not answer" in told.words, "what it was stays readable"
                assert len(said(slack, "95 %")) == 1
                await stack.aclose()


async def test_that_no_cluster_can_be_read_is_said_and_when_it_is_over(slack: LocalSlack, redis_url: str, tmp_path: Path):
    async with AsyncExitStack() as stack:
        await bots(stack, slack, redis_url, tmp_path, 2)
        shutil.move(tmp_path / "east", tmp_path / "gone")
        told = await one(slack, CANNOT, "No cluster can be read, of 1")
        shutil.move(tmp_path / "gone", tmp_path / "east")
        await slack.until(lambda: told.text.startswith(AGAIN), 20)


async def test_what_the_leader_cannot_post_another_one_says(
    slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with AsyncExitStack() as stack:
        await bots(stack, slack, redis_url, tmp_path, 2)
        gate, send = asyncio.Event(), Outbox._next

        async def held_up(outbox: Outbox, work: Work) -> bool:
            await gate.wait()
            return await send(outbox, work)

        monkeypatch.setattr(Outbox, "_next", held_up)
        store = Store(redis_url)
        await store.open()
        store.fence = await leading(redis_url)
        late = Draft(id="late-1", alert="late", channel="#mesh", message=Words("late"))
        await store.commit({}, [late], now=time.time() - 60)
        told = await one(slack, CANNOT, "Slack does not take what is to be told")
        gate.set()
        await slack.until(lambda: said(slack, "late") and told.text.startswith(AGAIN), 20)
        await store.close()


async def test_that_nobody_looks_any_more_is_said(slack: LocalSlack, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.sweep.TICK_S", 0.3)
    monkeypatch.setattr(deadman, "_IDLE_S", 3.0)
    async with AsyncExitStack() as stack:
        await bots(stack, slack, redis_url, tmp_path, 2)
        await asyncio.sleep(4)
        assert said(slack, CANNOT) == [], "while somebody looks, nothing is said"
        monkeypatch.setattr("bot.sweep.Sweeper.look", _never)
        await one(slack, CANNOT, "No bot has looked at the meshes")


async def _never(*_: Any) -> bool:
    await asyncio.sleep(3600)
    return True


async def leading(url: str) -> str:
    with Redis.from_url(url, decode_responses=True) as client:
        return str(client.get("{meshwhy}:leader"))


async def test_what_a_bot_that_is_gone_left_open_the_next_one_ends(slack: LocalSlack, redis_url: str, tmp_path: Path):
    place, ts = slack.channel("#mesh"), slack.workspace.next_ts()
    payload = {"names": "store", "since": f"{time.time() - 600:.0f}", "what": "Redis does not answer."}
    metadata = {"event_type": deadman.DEADMAN, "event_payload": payload}
    left = slack.workspace.put(Stored(place.id, ts, BOT, "I cannot do my work: alerts may be missing", metadata=metadata))
    async with AsyncExitStack() as stack:
        await bots(stack, slack, redis_url, tmp_path, 1)
        await slack.until(lambda: left.text.startswith("I can work again, after 10 min"), 20)
        asked = sum(method == "conversations.history" for method, _ in slack.calls)
        await asyncio.sleep(2)
        assert sum(method == "conversations.history" for method, _ in slack.calls) == asked, "nothing is open any more"
