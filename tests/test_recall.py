"""Redis loses everything, Slack does not: the whole bot against a real Valkey that is emptied, and the local workspace."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace
from redis import Redis
from slack_sdk.web.async_client import AsyncWebClient

from bot import recall
from bot.alerts import Ack, Alert, Appeal, Close, Note, Silence, State
from bot.demo.runner import East
from bot.demo.workspace import Message as Stored
from bot.store import Delivery, Store
from checks.answers import Viewpoint
from tests.bots import FINDING, RECORDED, serving

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import LocalSlack, Message

TOLD = "95 % of destination.mynamespace fails"
FIRING = Alert(id="a1", state=State.FIRING, finding=FINDING, since=1.0, fired_at=1.0, message="a1-3", told=True, episode=3)


@pytest.fixture
def east(tmp_path: Path) -> East:
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    return East(tmp_path / "east")


async def headline(slack: LocalSlack, start: str) -> Message:
    def told() -> Message | None:
        found = slack.messages("#mesh")
        assert len(found) <= 1, "one problem, one message"
        return found[0] if found and found[0].words.startswith(start) else None

    message: Message = await slack.until(told, 20)
    return message


def lines(slack: LocalSlack, root: Message) -> list[str]:
    return [m.words for m in slack.thread(root.channel, root.ts)[1:]]


async def known(url: str) -> None:
    """The store knows an alert (again)."""
    with Redis.from_url(url) as client:
        async with asyncio.timeout(15):
            while not client.hlen("{meshwhy}:alerts") or not client.exists("{meshwhy}:recalled"):  # noqa: ASYNC110 - another process's store
                await asyncio.sleep(0.02)


async def test_a_running_bot_whose_redis_is_emptied_goes_on_in_the_same_message(
    slack: LocalSlack, redis_url: str, tmp_path: Path, east: East
):
    async with serving(slack, redis_url, tmp_path):
        root = await headline(slack, TOLD)
        await slack.until(lambda: any(b["type"] == "image" for b in root.blocks), 15)
        with Redis.from_url(redis_url) as client:
            client.flushall()
        await known(redis_url)
        await east.deploy_v1()
        assert await headline(slack, "Resolved after") is root
        await slack.until(lambda: "resolved" in lines(slack, root)[-1], 10)
        await east.remove_v1()
        await headline(slack, TOLD)
        await slack.until(lambda: "again, 2 times now" in lines(slack, root)[-1], 10)
    assert sum("*fired*" in line and "again" not in line for line in lines(slack, root)) == 1
    assert len(slack.workspace.files) == 1, "the picture is known as well"


async def test_what_got_well_while_redis_was_lost_is_resolved_in_its_message(slack: LocalSlack, redis_url: str, tmp_path: Path, east: East):
    async with serving(slack, redis_url, tmp_path):
        root = await headline(slack, TOLD)
        await slack.until(lambda: len(lines(slack, root)) >= 3, 10)
    with Redis.from_url(redis_url) as client:
        client.flushall()
    await east.deploy_v1()
    async with serving(slack, redis_url, tmp_path):
        assert await headline(slack, "Resolved after") is root
        await slack.until(lambda: "resolved" in lines(slack, root)[-1], 10)


@pytest.mark.usefixtures("east")
async def test_who_saw_to_it_is_remembered(slack: LocalSlack, redis_url: str, tmp_path: Path):
    async with serving(slack, redis_url, tmp_path):
        root = await headline(slack, TOLD)
        await slack.until(lambda: slack.connected)
        await slack.click(root, "alert_ack", user="U0ANA")
        await slack.until(lambda: "Acknowledged by <@U0ANA>" in root.words and any("*acknowledged*" in n for n in lines(slack, root)), 10)
        with Redis.from_url(redis_url) as client:
            client.flushall()
        await known(redis_url)
        await slack.click(root, "alert_unack", user="U0BEN")
        await slack.until(lambda: "Acknowledged by" not in root.words, 10)
    assert sum("*acknowledged*" in line for line in lines(slack, root)) == 1, lines(slack, root)


def message(slack: LocalSlack, alerts: list[Alert], *, user: str = "U0MESHWHY", channel: str = "#mesh", ident: str = "a1-3") -> Message:
    payload: dict[str, Any] = {"alert": "a1", "message": ident, "alerts": recall.memo(alerts)}
    place, ts = slack.channel(channel), slack.workspace.next_ts()
    return slack.workspace.put(Stored(place.id, ts, user, "95 %", metadata={"event_type": recall.ALERT, "event_payload": payload}))


async def remembered(store: Store, slack: LocalSlack) -> None:
    async with asyncio.timeout(10):
        await recall.remember(store, AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[]), lambda: None)


async def test_only_what_the_bot_itself_posted_counts_and_the_newest_message_speaks(store: Store, slack: LocalSlack, redis_url: str):
    message(slack, [replace(FIRING, firings=9)], ident="a1-2")
    newest = message(slack, [FIRING, replace(FIRING, id="a2")])
    message(slack, [replace(FIRING, id="forged", message="forged-1")], user="U0BEN", ident="forged-1")
    await remembered(store, slack)
    assert await store.alerts() == {"a1": FIRING, "a2": replace(FIRING, id="a2")}
    assert await store.alert_at(newest.channel, newest.ts) == FIRING
    with Redis.from_url(redis_url) as client:
        assert msgspec.json.decode(client.get("{meshwhy}:delivery:a1-3"), type=Delivery) == Delivery(channel=newest.channel, ts=newest.ts)


async def test_silences_and_what_was_resolved_come_back_as_they_were(store: Store, slack: LocalSlack):
    quiet = Silence(id="s1", match={"cluster": "east"}, by="U0ANA", at=5.0, until=time.time() + 900, why="maintenance")
    message(slack, [replace(FIRING, silence=quiet, ack=Ack(by="U0BEN", at=3.0))])
    message(slack, [replace(FIRING, id="b1", message="b1-1", state=State.RESOLVED, resolved_at=9.0)], ident="b1-1")
    await remembered(store, slack)
    assert await store.silences() == {"s1": quiet}
    assert (await store.alerts())["a1"].ack == Ack(by="U0BEN", at=3.0)
    assert set(await store.resolved(["b1"])) == {"b1"}


async def test_a_store_that_knows_something_is_left_alone_and_slack_is_asked_once(store: Store, slack: LocalSlack):
    await store.commit({"c1": replace(FIRING, id="c1")}, now=1)
    message(slack, [FIRING])
    await remembered(store, slack)
    assert set(await store.alerts()) == {"c1"}
    assert slack.calls == []
    await store.commit({"c1": None}, now=2)
    await remembered(store, slack)
    assert set(await store.alerts()) == {"a1"}
    asked = len(slack.calls)
    await remembered(store, slack)
    assert len(slack.calls) == asked


async def test_slack_that_does_not_answer_at_first_is_asked_again_and_a_closed_channel_holds_nothing_up(
    store: Store, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(recall, "_AGAIN_S", 0.05)
    message(slack, [FIRING], channel="#ops")
    slack.fault("auth.test", status=503)
    slack.fault("users.conversations", retry_after=1)
    slack.fault("conversations.history", error="missing_scope")  # of the first channel
    await remembered(store, slack)
    assert set(await store.alerts()) == {"a1"}
    assert "may be posted again" in caplog.text


async def test_without_any_answer_of_slack_the_alerts_are_told_anew_after_some_time(
    store: Store, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recall, "_AGAIN_S", 0.02)
    monkeypatch.setattr(recall, "_PATIENCE_S", 0.3)
    slack.fault("auth.test", status=503, times=1000)
    began = time.monotonic()
    await remembered(store, slack)
    assert time.monotonic() - began >= 0.3
    assert not await store.forgetful()


def test_a_memo_of_very_many_alerts_keeps_the_first_ones_and_one_that_is_broken_says_nothing():
    few = [replace(FIRING, id=f"{i:020x}", finding=replace(FINDING, host=f"h{i}.ns.svc.cluster.local")) for i in range(300)]
    kept = recall.unpacked(recall.memo(few))
    assert len(kept) > 100
    assert list(kept) == few[: len(kept)]
    many = [replace(a, finding=replace(a.finding, message=str(hash((a.id, n)))), message=f"{a.id}-{n}") for a in few for n in range(10)]
    assert len(recall.memo(many)) <= recall._MEMO
    assert recall.unpacked(recall.memo(many)) == tuple(many[: len(recall.unpacked(recall.memo(many)))]) != ()
    assert recall.unpacked("nonsense") == recall.unpacked("") == recall.unpacked(None) == ()


def test_a_memo_keeps_what_decides_whether_a_look_can_resolve_it():
    felt = (Viewpoint("east", "sidecar", "a"), Viewpoint("west", "sidecar", "b"), Viewpoint("west", "sidecar", "c"))
    wordy = replace(FINDING, viewpoints=felt, evidence=("leg 1: out", "other"), fix="f", patch="p", commands=("c",), message="x" * 900)
    (kept,) = recall.unpacked(recall.memo([replace(FIRING, finding=wordy)]))
    assert [v.cluster for v in kept.finding.viewpoints] == ["east", "west"]
    assert kept.finding.evidence == ("leg 1: out",)
    assert (kept.finding.fix, kept.finding.patch, kept.finding.commands) == ("", None, ())
    assert len(kept.finding.message) == 300


def test_a_memo_keeps_an_alert_of_which_people_said_very_much():
    said = "".join(chr(0x4E00 + n * 37 % 20_000) for n in range(1_500))
    notes = tuple(Note(by="U0ANA", at=float(n), text=said[n:600]) for n in range(5))
    close, appeal = Close(by="U0BEN", at=2.0, why=said), Appeal(by="U0BEN", at=2.0, why=said[::-1], tried=said)
    alert = Alert(
        id="a1", state=State.CLOSED, finding=FINDING, since=1.0, message="a1-1", told=True, notes=notes, closed=close, appeal=appeal
    )
    (kept,) = recall.unpacked(recall.memo([replace(alert, incident="C0INC")]))
    assert (kept.state, kept.incident, [n.text for n in kept.notes]) == (State.CLOSED, "C0INC", [said[3:203], said[4:204]])
    assert kept.closed is not None
    assert kept.closed.by == "U0BEN"
