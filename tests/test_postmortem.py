"""When an alert is over: a draft of its post-mortem in the thread, once, for those who dealt with it; and how long such things take, by cause and team."""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace
from slack_sdk.web.async_client import AsyncWebClient

from bot.alerts import Alert, Receiver, State
from bot.postmortem import Clerk, by_cause_and_team, summed
from bot.store import Delivery, Draft, Ended, Ending, Line, Store
from bot.tell import ACK
from templates import blocks, messages, postmortem
from templates.blocks import Message
from tests.bots import FINDING, RECORDED, alongside, running, source

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from bot.demo.workspace import File


def clerk(store: Store, slack: LocalSlack, settle_s: float = 0.0) -> Clerk:
    return Clerk(store, AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[]), settle_s=settle_s)


def drafts(slack: LocalSlack) -> list[File]:
    return [f for f in slack.workspace.files.values() if f.name == "post-mortem.md" and f.completed]


async def settled(store: Store) -> None:
    """Until nothing is to be told of any more."""
    for _ in range(500):
        if not await store.ending():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("something is still to be told of")


async def test_who_dealt_with_an_alert_gets_its_post_mortem_in_the_thread_once(slack: LocalSlack, redis_url: str, folder: Path) -> None:
    async with (
        running(slack, redis_url, [source(folder)]) as bot,
        alongside(bot.sweeper.history.run()),
        alongside(clerk(bot.store, slack, settle_s=1.0).run()),
    ):
        (root,) = await slack.until(lambda: slack.messages("#mesh"), 10)
        await slack.click(root, ACK)
        await slack.until(lambda: "Acknowledged by" in root.words, 10)
        shutil.copy(RECORDED / "destination-v1.yaml", folder / "destination-v1.yaml")
        (draft,) = await slack.until(lambda: drafts(slack), 15)
        (told,) = [m for m in slack.thread("#mesh", root.ts) if draft.id in m.files]
        names = [slack.workspace.files[f].name for f in told.files]
        assert names == ["post-mortem.md", "share.png"]
        assert "<@U0ANA> saw to it after" in told.text
        text = (draft.content or b"").decode()
        for said in (
            "# Post-mortem (draft): 95 % of destination.mynamespace fails\n",
            "| Cause | MESH101 subset-empty-weighted |",
            "by @U0ANA, after",
            "* @U0ANA: acknowledged (",
            "Deployment mynamespace/destination-v1 was created",
            "nothing fails, 5 of 5 endpoints usable",
            "How such a fault comes about:",
            "## Left open",
        ):
            assert said in text
        assert slack.workspace.files[told.files[1]].alt.startswith("destination.mynamespace. At ")
        assert "suspicious" not in text, "what mends a fault did not make it"
        await settled(bot.store)
        (ended,) = await bot.store.ended(0.0)
        assert (ended.cause, ended.hosts, ended.acked_by, ended.handled) == ("subset-empty-weighted", 1, "U0ANA", True)
        await slack.command("/mesh alerts --since 7d")
        (answer,) = await slack.until(lambda: [m.words for m in slack.ephemerals("ana") if "1 alert ended since" in m.words])
        assert "1 of them seen to, after" in answer
        await slack.command("/mesh alerts --since teatime")
        await slack.until(lambda: [m for m in slack.ephemerals("ana") if "Since when?" in m.words])
        assert len(drafts(slack)) == 1
        await slack.mention("changes 1s ago", thread_ts=root.ts)
        await slack.until(lambda: [m for m in slack.thread("#mesh", root.ts) if "destination.mynamespace at " in m.words], 10)


FIRED = Alert(
    id="a",
    state=State.RESOLVED,
    finding=FINDING,
    since=1000.0,
    message="a-1",
    told=True,
    episode=1,
    firings=1,
    fired_at=1010.0,
    told_at=1010.0,
    resolved_at=1300.0,
    places=(Receiver("#mesh"),),
    well_by=("Deployment mynamespace/destination-v1 was created at 14:13:02 UTC",),
)


@pytest.mark.parametrize(
    ("alert", "lines", "counted", "drafted"),
    [
        pytest.param(FIRED, [], 1, 0, id="nobody dealt with it, and it was short"),
        pytest.param(replace(FIRED, fired_at=10.0, told_at=10.0), [], 1, 1, id="nobody dealt with it, and it was long"),
        pytest.param(FIRED, [Line(at=1020.0, reason="note", by="U0ANA", text="we know")], 1, 1, id="a note"),
        pytest.param(replace(FIRED, state=State.FIRING), [Line(at=1020.0, reason="acknowledged", by="U0ANA")], 0, 0, id="it fires again"),
    ],
)
async def test_what_is_counted_and_what_is_drafted(
    store: Store, slack: LocalSlack, alert: Alert, lines: list[Line], counted: int, drafted: int
) -> None:
    await over(store, slack, alert, lines)
    async with alongside(clerk(store, slack).run()):
        await settled(store)
    assert (len(await store.ended(0.0)), len(drafts(slack))) == (counted, drafted)


async def over(store: Store, slack: LocalSlack, alert: Alert, lines: list[Line]) -> None:
    """An alert whose message is in Slack has ended."""
    root = await AsyncWebClient(token=slack.bot_token, base_url=slack.base_url).chat_postMessage(channel="#mesh", text="95 % fails")
    draft = Draft(id="a-1", alert="a", channel="#mesh", message=Message("95 % fails"))
    ending = Ending(message="a-1", at=1300.0, team="payments", channel="#mesh")
    await store.commit({"a": alert}, [draft], now=1300.0, chronicle={"a-1": lines}, ending=[ending])
    await store.record(draft, Delivery(channel=str(root["channel"]), ts=str(root["ts"])))


@pytest.mark.parametrize("method", ["files.getUploadURLExternal", "files.completeUploadExternal"])
async def test_a_draft_that_slack_refuses_is_said_in_the_thread_and_tried_no_more(store: Store, slack: LocalSlack, method: str) -> None:
    slack.fault(method, error="storage_limit_reached", times=1)
    await over(store, slack, FIRED, [Line(at=1020.0, reason="acknowledged", by="U0ANA")])
    async with alongside(clerk(store, slack).run()):
        await settled(store)
    work = await store.work("a-1")
    assert work is not None
    assert [s.message.text for s in work.steps] == ["The draft of the post-mortem could not be added (storage_limit_reached)."]
    assert (len(await store.ended(0.0)), len(drafts(slack))) == (1, 0)


async def test_while_its_message_waits_for_slack_a_draft_waits_and_what_settles_is_not_told_early(store: Store, slack: LocalSlack) -> None:
    lines = [Line(at=time.time(), reason="acknowledged", by="U0ANA")]
    await store.commit({"a": FIRED}, now=0.0, chronicle={"a-1": lines}, ending=[Ending(message="a-1", at=time.time())])
    one = clerk(store, slack, settle_s=0.2)
    async with alongside(one.run()):
        await asyncio.sleep(0.4)
        assert len(await store.ending()) == 1
        assert await store.ended(0.0) == []


def test_the_times_are_the_median_and_what_nine_of_ten_were_within() -> None:
    pick = random.Random(5)  # noqa: S311 - the same alerts in every run
    ends = [pick.uniform(60, 7200) for _ in range(40)]
    found = [
        Ended(
            message=f"m{i}",
            cause="subset-undefined",
            code="MESH106",
            cluster="east",
            namespaces=("shop",),
            resource="VirtualService shop/cart",
            host="cart.shop",
            hosts=1,
            share=1.0,
            began=0.0,
            fired=10.0,
            ended=10.0 + end,
            acked=20.0 + i if i % 2 else None,
            team="shop",
        )
        for i, end in enumerate(ends)
    ]
    (row,) = by_cause_and_team(found)
    assert (row["cause"], row["team"], row["count"], row["acked"]) == ("MESH106 subset-undefined", "shop", 40, 20)
    assert row["to_resolve"]["median"] == pytest.approx(statistics.median(ends))
    assert sum(e <= row["to_resolve"]["p90"] + 1e-6 for e in ends) == 36
    other = replace(found[0], team="", channel="#mesh", acked=None)
    assert [(r["team"], r["to_ack"]) for r in by_cause_and_team([other])] == [("#mesh", None)]


def test_what_people_and_clusters_call_things_stays_text_in_the_file() -> None:
    nasty = "a|b `x` [click](https://evil.example) <script> *bold* \n# head"
    finding = replace(FINDING, message=nasty, evidence=(nasty,))
    lines = [Line(at=1020.0, reason="note", by="U0ANA", text=nasty)]
    ended = summed(Ending(message="a-1", at=1300.0), [replace(FIRED, finding=finding)], lines)
    text = postmortem.markdown(
        {
            **msgspec.to_builtins(ended),
            "title": nasty,
            "finding": msgspec.to_builtins(finding),
            "page": "",
            "others": [],
            "well_by": [],
            "closed": None,
            "lines": msgspec.to_builtins(lines),
            "view": None,
            "looked": blocks.plain(messages.error(nasty)),
        }
    )
    assert "[click](" not in text
    assert "<script>" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]
    assert all(line.count("|") - line.count("\\|") == 4 for line in text.splitlines() if line.startswith("| 19"))
