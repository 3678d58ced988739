"""The store against a real Valkey, and the embedded server through restarts and kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bot.alerts import Alert, Silence, State
from bot.store import Deed, Delivery, Draft, NewerSchema, Step, Store
from bot.valkey import NoState, embedded
from templates.blocks import Message
from tests.bots import FINDING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FIRING = Alert(id="a1", state=State.FIRING, finding=FINDING, since=1.0)
RESOLVED = replace(FIRING, state=State.RESOLVED, resolved_at=9.0)
DRAFT = Draft(id="a1-1", alert="a1", channel="#mesh", message=Message("95 % fails", ({"type": "divider"},)))
LINE = Step(id="a1-1.1", message=Message("share changed"))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = Store(url)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with opened(redis_url) as store:
        yield store


async def test_alerts_messages_and_lines_are_committed_together(store: Store):
    await store.commit({"a1": FIRING}, [DRAFT], {"a1-1": [LINE]}, now=5)
    assert await store.alerts() == {"a1": FIRING}
    assert await store.waiting() == [("a1-1", 5)]
    work = await store.work("a1-1")
    assert work is not None
    assert (work.draft, work.rev, work.steps, work.delivery) == (DRAFT, 1, (LINE,), Delivery())
    assert store.committed.is_set()


async def test_a_commit_that_is_sent_twice_counts_once(store: Store, redis_url: str):
    """As redis-py does when the connection breaks after the server has done it and before it has said so."""
    sent: list[tuple[Any, ...]] = []
    real = store._redis.execute_command

    async def twice(*command: Any) -> Any:
        sent.append(command)
        first = await real(*command)
        await real(*command)
        return first

    store._redis.execute_command = twice
    await store.commit({"a1": FIRING}, [DRAFT], {"a1-1": [LINE]}, now=5)
    store._redis.execute_command = real
    assert len(sent) == 1
    work = await store.work("a1-1")
    assert work is not None
    assert work.rev == 1
    assert work.steps == (LINE,)
    with Redis.from_url(redis_url) as client:
        assert all(client.ttl(key) > 0 for key in client.keys("{meshwhy}:commit:*"))


async def test_a_commit_that_fails_in_the_middle_is_told(store: Store, redis_url: str):
    with Redis.from_url(redis_url) as client:
        client.set("{meshwhy}:outbox", "not a sorted set")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await store.commit({"a1": FIRING}, [DRAFT], now=5)


async def test_only_the_newest_draft_counts_and_lines_keep_their_order(store: Store):
    second = Step(id="a1-1.2", message=Message("resolved"))
    await store.commit({"a1": FIRING}, [DRAFT], {"a1-1": [LINE]}, now=5)
    await store.commit({"a1": RESOLVED}, [replace(DRAFT, message=Message("Resolved"), resolved=True)], {"a1-1": [second]}, now=6)
    work = await store.work("a1-1")
    assert work is not None
    assert (work.rev, work.draft.message.text, work.steps) == (2, "Resolved", (LINE, second))
    assert await store.waiting() == [("a1-1", 5)]


async def test_a_message_leaves_the_outbox_only_when_nothing_newer_came(store: Store):
    await store.commit({"a1": FIRING}, [DRAFT], {"a1-1": [LINE]}, now=5)
    assert not await store.settle("a1-1", 1), "a line is still to be said"
    shown = Delivery(channel="C1", ts="1.5", rev=1)
    await store.record(DRAFT, shown, said=1)
    await store.commit({"a1": FIRING}, [DRAFT], now=6)
    assert not await store.settle("a1-1", 1), "a newer draft came"
    assert await store.settle("a1-1", 2)
    assert await store.waiting() == []
    work = await store.work("a1-1")
    assert work is not None
    assert (work.steps, work.delivery) == ((), shown)


async def test_what_is_new_is_tried_at_once_and_what_is_settled_is_not_brought_back_by_a_late_failure(store: Store):
    await store.commit({"a1": FIRING}, [DRAFT], now=5)
    await store.postpone("a1-1", 60)
    assert await store.waiting() == [("a1-1", 60)]
    await store.commit({"a1": FIRING}, [DRAFT], now=6)
    assert await store.waiting() == [("a1-1", 6)]
    await store.settle("a1-1", 2)
    await store.postpone("a1-1", 90)
    assert await store.waiting() == []


async def test_what_came_while_a_message_was_tried_does_not_wait_with_it(store: Store):
    await store.commit({"a1": FIRING}, [DRAFT], {"a1-1": [LINE]}, now=5)
    seen = await store.work("a1-1")
    await store.postpone("a1-1", 60, seen)
    assert await store.waiting() == [("a1-1", 60)]
    await store.commit({"a1": FIRING}, [DRAFT], now=6)
    await store.postpone("a1-1", 70, seen)
    assert await store.waiting() == [("a1-1", 6)]
    seen = await store.work("a1-1")
    await store.commit({"a1": FIRING}, steps={"a1-1": [LINE]}, now=7)
    await store.postpone("a1-1", 80, seen)
    assert await store.waiting() == [("a1-1", 6)]


async def test_what_is_resolved_is_forgotten_after_a_week_and_what_is_open_never(store: Store, redis_url: str):
    await store.commit({"a1": FIRING}, [DRAFT], now=5)
    await store.record(DRAFT, Delivery(channel="C1", ts="1.5", rev=1))
    await store.settle("a1-1", 1)
    with Redis.from_url(redis_url, decode_responses=True) as client:
        kept = {"{meshwhy}:schema", "{meshwhy}:alerts", "{meshwhy}:draft:a1-1", "{meshwhy}:delivery:a1-1"}
        assert {key for key in client.keys("*") if client.ttl(key) < 0} == kept
        gone = replace(DRAFT, resolved=True)
        await store.commit({"a1": RESOLVED}, [gone], now=6)
        await store.settle("a1-1", 2)
        assert {key for key in client.keys("*") if client.ttl(key) < 0} == {"{meshwhy}:schema"}
        assert await store.alerts() == {}
        assert await store.resolved(["a1", "b"]) == {"a1": RESOLVED}
        await store.commit({"a1": FIRING}, [DRAFT], now=7)
        await store.settle("a1-1", 3)
        assert {key for key in client.keys("*") if client.ttl(key) < 0} == kept
    assert await store.resolved(["a1"]) == {}


async def test_a_forgotten_alert_is_gone(store: Store):
    await store.commit({"a1": FIRING}, now=5)
    await store.commit({"a1": None}, now=6)
    assert await store.alerts() == {}


async def test_a_message_is_found_by_its_place(store: Store):
    await store.commit({"a1": FIRING}, [DRAFT], now=5)
    await store.record(DRAFT, Delivery(channel="C1", ts="1.5", rev=1))
    assert await store.alert_at("C1", "1.5") == FIRING
    await store.commit({"a1": RESOLVED}, now=6)
    assert await store.alert_at("C1", "1.5") == RESOLVED
    assert await store.alert_at("C1", "9.9") is None


DEED = Deed(verb="ack", by="U0ANA", at=5.0, message="a1-1", until=60.0)
SILENCE = Silence(id="s1", match={"cluster": "east"}, by="U0ANA", at=5.0, until=60.0, why="maintenance")


async def test_deeds_are_read_in_order_and_what_is_committed_is_not_read_again(store: Store):
    await store.do(DEED)
    second = Deed(verb="silence", by="U0BEN", at=6.0, silence=SILENCE)
    await store.do(second)
    found = await store.deeds(await store.done(), wait_s=0.01)
    assert [deed for _, deed in found] == [DEED, second]
    await store.commit({"a1": FIRING}, now=7, silences={"s1": SILENCE}, done=found[0][0])
    assert [deed for _, deed in await store.deeds(await store.done(), wait_s=0.01)] == [second]
    assert await store.silences() == {"s1": SILENCE}
    await store.commit({}, now=8, silences={"s1": None}, done=found[1][0])
    assert await store.deeds(await store.done(), wait_s=0.01) == []
    assert await store.silences() == {}


async def test_a_deed_that_a_newer_one_wrote_is_passed_over_and_holds_nothing_up(store: Store, redis_url: str):
    with Redis.from_url(redis_url) as client:
        client.xadd("{meshwhy}:deeds", {"deed": '{"verb":"promote","by":"U0ANA","at":1}'})
    await store.do(DEED)
    assert [deed for _, deed in await store.deeds("0", wait_s=0.01)] == [None, DEED]


async def test_a_deed_is_heard_while_it_is_waited_for(store: Store):
    heard = asyncio.create_task(store.deeds("0", wait_s=5))
    await asyncio.sleep(0.1)
    await store.do(DEED)
    async with asyncio.timeout(1):
        assert [deed for _, deed in await heard] == [DEED]


async def test_the_first_one_has_it_until_it_is_given_back(store: Store):
    assert await store.claim("ack:a1", "U0ANA", 60) == "U0ANA"
    assert await store.claim("ack:a1", "U0BEN", 60) == "U0ANA"
    assert (await store.claimed("ack:a1"), await store.claimed("ack:a2")) == ("U0ANA", None)
    await store.release("ack:a1")
    assert await store.claim("ack:a1", "U0BEN", 60) == "U0BEN"


async def test_what_an_older_schema_wrote_is_read_as_it_was_meant(redis_url: str):
    old = msgspec.to_builtins(FIRING) | {"episode": 3, "id": "a1"}
    del old["message"], old["told"]
    pending = old | {"id": "a2", "state": "pending"}
    with Redis.from_url(redis_url) as client:
        client.set("{meshwhy}:schema", 1)
        client.hset("{meshwhy}:alerts", mapping={"a1": json.dumps(old), "a2": json.dumps(pending)})
        client.set("{meshwhy}:resolved:a3", json.dumps(old | {"id": "a3", "state": "resolved", "resolved_at": 9.0}), ex=500)
        async with opened(redis_url) as store:
            found = await store.alerts()
            assert (found["a1"].message, found["a1"].told) == ("a1-3", True)
            assert (found["a2"].message, found["a2"].told) == ("", False)
            assert (await store.resolved(["a3"]))["a3"].message == "a3-3"
        assert 0 < client.ttl("{meshwhy}:resolved:a3") <= 500
        assert client.get("{meshwhy}:schema") == b"2"


async def test_an_event_is_taken_once_and_an_answer_is_shared_once(store: Store):
    assert await store.once("Ev1")
    assert not await store.once("Ev1")
    await store.keep("k1", DRAFT.message)
    assert await store.take("k1") == DRAFT.message
    assert await store.take("k1") is None


async def test_a_store_of_a_newer_version_is_refused(redis_url: str):
    with Redis.from_url(redis_url) as client:
        client.set("{meshwhy}:schema", 99)
    with pytest.raises(NewerSchema, match="schema 99"):
        async with opened(redis_url):
            pass


# --- the embedded server ---


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        yield Path(name) / "valkey"


async def test_what_was_committed_survives_a_restart(directory: Path):
    async with embedded(directory) as url, opened(url) as store:
        await store.commit({"a1": FIRING}, [DRAFT], now=5)
    async with embedded(directory) as url, opened(url) as store:
        assert await store.alerts() == {"a1": FIRING}
        assert await store.waiting() == [("a1-1", 5)]


async def test_the_embedded_server_listens_on_its_socket_only_and_for_us_only(directory: Path):
    async with embedded(directory) as url:
        with Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
            assert client.config_get("port") == {"port": "0"}
        inodes = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink() and fd.exists()}
        tcp = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        assert not [line for line in tcp.splitlines()[1:] if f"socket:[{line.split()[9]}]" in inodes]
        assert (directory / "valkey.sock").stat().st_mode & 0o077 == 0
        assert directory.stat().st_mode & 0o077 == 0
    assert not Path(f"/proc/{pid}").exists()


BOT = """
import asyncio, sys
from pathlib import Path
from bot.valkey import embedded
from redis import Redis

async def main():
    async with embedded(Path(sys.argv[1])) as url:
        with Redis.from_url(url) as client:
            client.set("told", "once")
            print(client.info("server")["process_id"], flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def start_bot(directory: Path) -> tuple[subprocess.Popen[str], int]:
    bot = subprocess.Popen([sys.executable, "-c", textwrap.dedent(BOT), str(directory)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert bot.stdout is not None
    return bot, int(bot.stdout.readline())


async def test_the_server_of_a_killed_bot_is_ended_and_its_data_kept(directory: Path):
    bot, server = await asyncio.to_thread(start_bot, directory)
    with bot:
        bot.send_signal(signal.SIGKILL)
    assert Path(f"/proc/{server}").exists(), "a killed bot leaves its server running"
    async with embedded(directory) as url:
        with Redis.from_url(url) as client:
            assert client.get("told") == b"once"
            assert client.info("server")["process_id"] != server
    status = Path(f"/proc/{server}/status")
    assert not status.exists() or "State:\tZ" in status.read_text(), "ended, though perhaps nobody has collected it"


async def test_what_was_committed_survives_a_killed_server(directory: Path):
    async with embedded(directory) as url, opened(url) as store:
        await store.commit({"a1": FIRING}, now=5)
        with Redis.from_url(url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        with pytest.raises((RedisConnectionError, FileNotFoundError)):
            await store.alerts()
    async with embedded(directory) as url, opened(url) as store:
        assert await store.alerts() == {"a1": FIRING}


async def test_ctrl_c_leaves_the_server_to_the_bot(directory: Path):
    async with embedded(directory) as url:
        with Redis.from_url(url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGINT)
            await asyncio.sleep(0.3)
            assert client.ping()


async def test_a_second_bot_on_the_same_directory_is_told_so(directory: Path):
    async with embedded(directory):
        with pytest.raises(NoState, match="Another meshwhy uses"):
            async with embedded(directory):
                pass


async def test_a_leftover_that_does_not_answer_is_told_and_not_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch):
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(directory / "valkey.sock"))
        stuck.listen()
        monkeypatch.setattr("bot.valkey._ANSWER_S", 0.2)
        with pytest.raises(NoState, match="does not answer"):
            async with embedded(directory):
                pass


async def test_a_directory_that_cannot_be_used_is_one_sentence(tmp_path: Path):
    with pytest.raises(NoState, match="too long a path"):
        async with embedded(tmp_path / ("x" * 120)):
            pass
    (tmp_path / "file").write_text("")
    with tempfile.NamedTemporaryFile(prefix="mw-") as file, pytest.raises(NoState, match="cannot be written"):
        async with embedded(Path(file.name) / "valkey"):
            pass
