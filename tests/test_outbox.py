"""The outbox: the real slack_sdk against the local workspace, the store on a real Valkey."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from slack_sdk.web.async_client import AsyncWebClient

from bot import metrics
from bot.alerts import Alert, State
from bot.outbox import Outbox, Pace
from bot.store import Draft, Picture, Step, Store
from templates import blocks, picture
from tests.bots import FINDING, alongside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bot.demo.slack import LocalSlack, Message

ALERT = Alert(id="a1", state=State.FIRING, finding=FINDING, since=1.0)


def words(text: str) -> blocks.Message:
    return blocks.Message(text, (blocks.header(text), blocks.section(blocks.escape(text))))


def draft(text: str = "95 % fails", channel: str = "#mesh", ident: str = "a1-1", **more: Any) -> Draft:
    return Draft(id=ident, alert="a1", channel=channel, message=words(text), **more)


def lines(*texts: str) -> dict[str, list[Step]]:
    return {"a1-1": [Step(id=f"a1-1.{t}", message=words(t)) for t in texts]}


def drawing() -> Picture:
    svg = picture.svg("destination.mynamespace", [], verdict="degraded")
    return Picture(key="k1", svg=svg, alt="the route in words")


@asynccontextmanager
async def running(store: Store, slack: LocalSlack, **more: Any) -> AsyncIterator[None]:
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url)
    async with alongside(Outbox(store, client, "#mesh", **more).run()):
        yield


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_comes_together_with_a_commit_is_not_lost(store: Store, slack: LocalSlack, steps: int):
    outbox = asyncio.create_task(Outbox(store, AsyncWebClient(token=slack.bot_token, base_url=slack.base_url), "#mesh").run())
    await asyncio.sleep(0.2)  # it waits for a commit now
    store.committed.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    outbox.cancel()
    done, _ = await asyncio.wait([outbox], timeout=2)
    assert done


async def commit(store: Store, *drafts: Draft, steps: dict[str, list[Step]] | None = None) -> None:
    await store.commit({"a1": ALERT}, drafts, steps, now=time.time())


async def eventually(ask: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not await ask():  # noqa: ASYNC110 - a store has no event for this
            await asyncio.sleep(0.02)


async def settled(store: Store, timeout_s: float = 10) -> None:
    async def empty() -> bool:
        return not await store.waiting()

    await eventually(empty, timeout_s)


async def until(slack: LocalSlack, predicate: Callable[[], Any], timeout_s: float = 10) -> Any:
    return await slack.until(predicate, timeout_s)


def roots(slack: LocalSlack, channel: str = "#mesh") -> list[str]:
    return [m.text for m in slack.messages(channel)]


def is_notice(message: Message) -> bool:
    """Whether a message is for those who run the bot; it and the alert that it is about are posted at once."""
    return message.text.startswith("Alerts for")


def replies(slack: LocalSlack, root: Message) -> list[str]:
    return [m.text for m in slack.thread(root.channel, root.ts)[1:]]


async def test_a_message_is_posted_with_its_thread_and_its_place_is_remembered(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft(), steps=lines("fired", "how to repair"))
        await settled(store)
    (root,) = slack.messages("#mesh")
    assert root.text == "95 % fails"
    assert root.metadata == {"event_type": "meshwhy_alert", "event_payload": {"alert": "a1", "message": "a1-1"}}
    assert replies(slack, root) == ["fired", "how to repair"]
    assert await store.alert_at(root.channel, root.ts) == ALERT


async def test_a_line_that_is_said_aloud_is_seen_in_the_channel_as_well(store: Store, slack: LocalSlack):
    asked = Step(id="a1-1.1", message=words("<!subteam^S0SRE> escalated"), aloud=True)
    async with running(store, slack):
        await commit(store, draft(), steps={"a1-1": [Step(id="a1-1.0", message=words("fired")), asked]})
        await settled(store)
    assert roots(slack) == ["95 % fails", "<!subteam^S0SRE> escalated"]
    (root,) = [m for m in slack.messages("#mesh") if not m.thread_ts or m.thread_ts == m.ts]
    assert replies(slack, root) == ["fired", "<!subteam^S0SRE> escalated"]


async def test_an_edit_changes_the_message_and_a_restart_posts_nothing_twice(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    async with running(store, slack):
        await commit(store, draft("Resolved after 12 min", resolved=True), steps=lines("resolved"))
        await settled(store)
    async with running(store, slack):
        await asyncio.sleep(0.2)
    (root,) = slack.messages("#mesh")
    assert root.text == "Resolved after 12 min"
    assert root.edits == 1
    assert replies(slack, root) == ["resolved"]


async def test_of_edits_that_wait_only_the_newest_is_sent(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    for share in range(90, 10, -1):
        await commit(store, draft(f"{share} % fails"))
    async with running(store, slack):
        await settled(store)
    assert roots(slack) == ["11 % fails"]
    assert [method for method, _ in slack.calls].count("chat.update") == 1


async def test_retry_after_is_honoured_and_nothing_is_lost(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", retry_after=1)
    began = time.monotonic()
    async with running(store, slack):
        await commit(store, draft(), steps=lines("fired"))
        await settled(store)
    assert time.monotonic() - began >= 1
    assert roots(slack) == ["95 % fails"]
    assert replies(slack, slack.messages("#mesh")[0]) == ["fired"]


async def test_scenario_3_of_what_waits_since_slack_refused_the_worst_goes_first_and_nothing_is_lost(store: Store, slack: LocalSlack):
    refused = refusals()
    slack.fault("chat.postMessage", retry_after=2, times=4)  # all that a burst sends at once
    async with running(store, slack):
        await commit(store, *(draft(f"{i} % fails", ident=f"b{i}-1", share=i / 100) for i in (3, 1, 5, 2, 4)))
        await until(slack, lambda: [method for method, _ in slack.calls].count("chat.postMessage") == 4)
        line = Step(id="b9-1.fired", message=words("fired"))
        await commit(store, draft("9 % fails", ident="b9-1", share=0.09), steps={"b9-1": [line]})
        await commit(store, draft("well again", ident="b8-1", share=1.0, resolved=True), draft("all fails", ident="c-1", share=1.0))
        await commit(store, draft("2 % fails still", ident="b2-1", share=0.02))
        await settled(store, 20)
    told = sorted(slack.messages("#mesh"), key=lambda m: float(m.ts))
    worst_first = ["all fails", "9 % fails", "5 % fails", "4 % fails", "3 % fails", "2 % fails still", "1 % fails", "well again"]
    assert [m.text for m in told] == worst_first
    assert sum(m.edits for m in told) == 0, "an edit of what waits is part of it"
    (line_told,) = slack.thread("#mesh", told[1].ts)[1:]
    assert float(line_told.ts) > float(told[-1].ts), "a line of a thread waits for the messages"
    assert refusals() == refused + 4


def refusals() -> float:
    """How often Slack has asked to wait, as the metrics count it."""
    return metrics.SLACK_CALLS.labels("chat.postMessage", "ratelimited")._value.get()


async def test_a_channel_gets_about_one_post_a_second_and_slack_never_has_to_refuse(store: Store, slack: LocalSlack):
    drafts = [draft(f"alert {i}", ident=f"b{i}-1") for i in range(6)]
    async with running(store, slack):
        await commit(store, *drafts, draft("elsewhere", "#payments", "c-1"))
        await until(slack, lambda: roots(slack, "#payments"), 1)
        await settled(store)
    assert sorted(roots(slack)) == [f"alert {i}" for i in range(6)]
    assert [method for method, _ in slack.calls].count("chat.postMessage") == 7, "no call was refused and repeated"


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"error": "internal_error"}, {}], ids=["a 503", "an internal error", "a broken connection"]
)
async def test_a_post_that_slack_took_without_saying_so_is_found_and_not_repeated(store: Store, slack: LocalSlack, fault: dict[str, Any]):
    slack.fault("chat.postMessage", applied=True, **fault)
    async with running(store, slack):
        await commit(store, draft(), steps=lines("fired"))
        await settled(store)
    assert roots(slack) == ["95 % fails"]
    assert replies(slack, slack.messages("#mesh")[0]) == ["fired"]


async def test_a_thread_line_that_slack_took_without_saying_so_is_found_and_not_repeated(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
        slack.fault("chat.postMessage", applied=True)
        await commit(store, steps=lines("fired", "then"))
        await settled(store)
    assert replies(slack, slack.messages("#mesh")[0]) == ["fired", "then"]


async def test_a_time_out_is_looked_up_before_the_post_is_sent_again(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", applied=True, delay=1.5)
    async with running(store, slack, timeout_s=1):
        await commit(store, draft())
        await settled(store)
        await asyncio.sleep(0.7)
    assert roots(slack) == ["95 % fails"]


async def test_a_post_that_never_arrived_is_sent_again(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", status=500)
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    assert roots(slack) == ["95 % fails"]


SENDER = """
import asyncio, sys
from slack_sdk.web.async_client import AsyncWebClient
from bot import metrics
from bot.outbox import Outbox
from bot.store import Store

async def main():
    url, token, base_url = sys.argv[1:]
    await Outbox(Store(url), AsyncWebClient(token=token, base_url=base_url), "#mesh").run()

asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["root", "line"])
async def test_a_bot_that_is_killed_between_its_post_and_the_answer_finds_the_post_again(
    store: Store, slack: LocalSlack, redis_url: str, what: str
):
    """`kill -9` of a real process at the one moment at which Slack has a message and nobody has its timestamp."""
    await commit(store, draft(), steps=lines("fired"))
    if what == "line":
        slack.fault("chat.postMessage", delay=0.01)
    slack.fault("chat.postMessage", applied=True, delay=0.5)
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, redis_url, slack.bot_token, slack.base_url)
    try:
        wanted = 1 if what == "root" else 2
        await until(slack, lambda: [m for m, _ in slack.calls].count("chat.postMessage") == wanted)
    finally:
        sender.kill()
        await sender.wait()
    await until(slack, lambda: roots(slack) and (what == "root" or replies(slack, slack.messages("#mesh")[0])))
    await commit(store, draft("60 % fails"))
    async with running(store, slack):
        await settled(store)
    assert roots(slack) == ["60 % fails"]
    assert replies(slack, slack.messages("#mesh")[0]) == ["fired"]


async def test_who_is_no_longer_the_one_that_sends_once_slack_is_connected_sends_nothing(store: Store, slack: LocalSlack):
    """A bot that is paused while it connects, and goes on when another one has sent what it was about to send."""
    asked: list[bool] = []
    lost = True

    def held() -> bool:
        asked.append(True)
        return len(asked) == 1 or not lost

    async with running(store, slack, held=held):
        await commit(store, draft())
        await eventually(lambda: asyncio.sleep(0, len(asked) > 1))
        await asyncio.sleep(0.2)
        assert slack.calls == []
        lost = False
        store.committed.set()
        await settled(store)
    assert roots(slack) == ["95 % fails"]


async def test_where_lost_posts_may_not_be_looked_for_the_message_says_that_it_may_stand_twice(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", applied=True)
    slack.fault("conversations.history", error="missing_scope", times=9)
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    assert roots(slack) == ["95 % fails", "95 % fails"]
    assert "may stand twice" in replies(slack, slack.messages("#mesh")[1])[0]


async def test_a_note_about_a_message_that_cannot_be_sent_is_written_once_and_hastens_nothing(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", status=500, times=4)
    slack.fault("conversations.history", error="missing_scope", times=9)
    began = time.monotonic()
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    assert time.monotonic() - began > 0.25 * (1 + 2 + 4)  # but for the first, each try waits twice as long as the one before
    (root,) = slack.messages("#mesh")
    assert len([line for line in replies(slack, root) if "may stand twice" in line]) == 1


async def test_what_slack_refuses_goes_out_smaller_and_at_last_as_plain_text(store: Store, slack: LocalSlack):
    slack.fault("chat.postMessage", error="invalid_blocks", times=2)
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
        (root,) = slack.messages("#mesh")
        assert not root.blocks
        assert "95 % fails" in root.text
        slack.fault("chat.update", error="msg_too_long")
        await commit(store, draft("60 % fails"))
        await settled(store)
    assert slack.messages("#mesh")[0].edits == 1
    assert "60 % fails" in slack.messages("#mesh")[0].words


async def test_a_channel_that_is_gone_is_replaced_by_those_of_the_routes_above_one_after_the_other(store: Store, slack: LocalSlack):
    slack.archive("#payments")
    async with running(store, slack):
        await commit(store, draft(channel="#payments", parents=("#nowhere", "#ops", "#mesh")), steps=lines("fired"))
        await settled(store)
    (root,) = slack.messages("#ops")
    assert replies(slack, root) == [
        "fired",
        "Meant for #payments, which cannot be written to (is_archived).",
        "Meant for #nowhere, which cannot be written to (channel_not_found).",
    ]
    assert [text.partition(":")[0] for text in roots(slack)] == [
        "Alerts for #payments come to #nowhere",
        "Alerts for #nowhere come to #ops",
    ]


async def test_a_channel_that_is_gone_is_replaced_by_the_default_one(store: Store, slack: LocalSlack):
    slack.archive("#payments")
    async with running(store, slack):
        await commit(store, draft(channel="#payments"), steps=lines("fired"))
        await settled(store)
    root, notice = sorted(slack.messages("#mesh"), key=is_notice)
    assert replies(slack, root) == ["fired", "Meant for #payments, which cannot be written to (is_archived)."]
    assert "Alerts for #payments come here" in notice.text


async def test_a_channel_that_goes_while_an_alert_fires_moves_the_alert(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft(channel="#payments"))
        await settled(store)
        slack.archive("#payments")
        await commit(store, draft("60 % fails", channel="#payments"))
        await settled(store)
    assert roots(slack)[0] == "60 % fails"


async def test_a_message_that_somebody_deleted_is_posted_again(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
        slack.delete(slack.messages("#mesh")[0])
        await commit(store, draft("60 % fails"))
        await settled(store)
    assert roots(slack) == ["60 % fails"]


async def test_a_message_that_may_not_be_edited_gets_its_news_into_the_thread(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
        slack.fault("chat.update", error="cant_update_message")
        await commit(store, draft("60 % fails"))
        await settled(store)
    (root,) = slack.messages("#mesh")
    assert root.text == "95 % fails"
    assert replies(slack, root) == ["60 % fails"]


async def test_a_revoked_token_keeps_everything_and_is_said_once(store: Store, slack: LocalSlack, caplog: pytest.LogCaptureFixture):
    async def all_put_off() -> bool:
        return all(due > time.time() + 20 for _, due in await store.waiting())

    slack.revoke()
    async with running(store, slack):
        await commit(store, draft(), draft("other", ident="b-1"))
        await eventually(all_put_off)
        slack.revoke(None)
        await commit(store, draft(), draft("other", ident="b-1"))
        await settled(store)
    assert sorted(roots(slack)) == ["95 % fails", "other"]
    assert [r.getMessage() for r in caplog.records if "token" in r.getMessage()] == [
        "Slack does not accept the bot's token: token_revoked. What is committed waits and is sent later."
    ]
    assert slack.bot_token not in caplog.text


async def test_slack_that_cannot_be_reached_costs_nothing_but_time(store: Store, slack: LocalSlack):
    client = AsyncWebClient(token=slack.bot_token, base_url="http://127.0.0.1:9/api/")
    task = asyncio.create_task(Outbox(store, client, "#mesh").run())
    await commit(store, draft())
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait([task])
    async with running(store, slack):
        await commit(store, draft())
        await settled(store)
    assert roots(slack) == ["95 % fails"]


# --- every answer that Slack has ---

SENT, PLAIN, DEFAULT, LATER = "as it is", "as plain text", "in the default channel", "later"
ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "ratelimited": ({"retry_after": 1}, SENT),
    "invalid_blocks": ({"error": "invalid_blocks", "times": 2}, PLAIN),
    "msg_too_long": ({"error": "msg_too_long", "times": 2}, PLAIN),
    "msg_blocks_too_long": ({"error": "msg_blocks_too_long", "times": 2}, PLAIN),
    "channel_not_found": ({"error": "channel_not_found"}, DEFAULT),
    "is_archived": ({"error": "is_archived"}, DEFAULT),
    "not_in_channel": ({"error": "not_in_channel"}, DEFAULT),
    "restricted_action": ({"error": "restricted_action"}, DEFAULT),
    "account_inactive": ({"error": "account_inactive"}, LATER),
    "token_revoked": ({"error": "token_revoked"}, LATER),
    "invalid_auth": ({"error": "invalid_auth"}, LATER),
    "missing_scope": ({"error": "missing_scope"}, LATER),
    "a 500 that did nothing": ({"status": 500}, SENT),
    "a 503 that did it": ({"status": 503, "applied": True}, SENT),
    "internal_error that did it": ({"error": "internal_error", "applied": True}, SENT),
    "a broken connection": ({}, SENT),
    "a broken connection that did it": ({"applied": True}, SENT),
    "a time-out that did it": ({"applied": True, "delay": 1.5}, SENT),
    "an error that nobody knows": ({"error": "team_access_not_granted"}, SENT),
}


@pytest.mark.parametrize(("fault", "becomes"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_answer_of_slack_has_one_outcome_and_none_costs_or_doubles_a_message(
    store: Store, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], becomes: str
):
    monkeypatch.setattr("bot.outbox._TOKEN_S", 0.2)
    slack.fault("chat.postMessage", **fault)
    async with running(store, slack, timeout_s=1):
        await commit(store, draft(channel="#payments"), steps=lines("fired"))
        if becomes == LATER:
            await until(slack, lambda: slack.calls)
            await asyncio.sleep(0.3)
            await commit(store, draft(channel="#payments"))  # what is new is tried at once
        await settled(store)
    mesh, payments = slack.messages("#mesh"), slack.messages("#payments")
    if becomes == DEFAULT:
        root, notice = sorted(mesh, key=is_notice)
        assert "Alerts for #payments come here" in notice.text
        assert payments == []
    else:
        (root,) = payments
        assert mesh == []
    assert "95 % fails" in root.text
    assert bool(root.blocks) is (becomes != PLAIN)
    assert replies(slack, root)[0] == "fired"


async def test_of_a_closed_channel_its_alerts_are_told_in_the_default_one_with_one_notice_and_without_asking_for_each(
    store: Store, slack: LocalSlack
):
    slack.kick("#payments")
    many = [draft(f"alert {i}", "#payments", f"b{i}-1") for i in range(4)]
    async with running(store, slack):
        await commit(store, many[0])
        await settled(store)
        await commit(store, *many[1:])
        await settled(store, 20)
    told = roots(slack)
    assert sum(t.startswith("Alerts for #payments come here: it cannot be written to (not_in_channel)") for t in told) == 1
    assert sorted(t for t in told if t.startswith("alert")) == [f"alert {i}" for i in range(4)]
    assert [m for m, a in slack.calls if m == "chat.postMessage" and a["channel"] == "#payments"] == ["chat.postMessage"]


async def test_who_runs_the_bot_hears_of_a_closed_channel_in_a_channel_of_their_own(store: Store, slack: LocalSlack):
    slack.archive("#payments")
    async with running(store, slack, admin_channel="#ops"):
        await commit(store, draft(channel="#payments"))
        await settled(store)
    assert roots(slack) == ["95 % fails"]
    (notice,) = roots(slack, "#ops")
    assert notice.startswith("Alerts for #payments come to #mesh: it cannot be written to (is_archived)")


@pytest.mark.parametrize("error", ["account_inactive", "token_revoked"])
async def test_a_dead_token_is_asked_for_by_one_message_at_a_time(
    store: Store, slack: LocalSlack, caplog: pytest.LogCaptureFixture, error: str
):
    refused = 0
    admit = slack.api._admit

    def counted(*args: Any) -> Any:
        nonlocal refused
        refused += 1
        return admit(*args)

    slack.api._admit = counted  # type: ignore[method-assign]
    slack.revoke(error)
    async with running(store, slack):
        await commit(store, *[draft(f"alert {i}", "#mesh" if i % 2 else "#ops", f"b{i}-1") for i in range(30)])
        await asyncio.sleep(2)
    assert refused <= 8, "those that were under way, and nobody after them"
    assert len(await store.waiting()) == 30
    assert len([r for r in caplog.records if "does not accept" in r.getMessage()]) == 1


# --- the picture ---


async def test_a_picture_goes_into_the_thread_and_then_into_the_message(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft(picture=drawing()), steps=lines("fired"))
        await settled(store, 15)
    (root,) = slack.messages("#mesh")
    (file,) = slack.workspace.files.values()
    assert file.alt == "the route in words"
    assert file.content is not None
    assert file.content.startswith(b"\x89PNG")
    assert [b["type"] for b in root.blocks] == ["header", "section", "image"]
    assert root.blocks[2]["slack_file"] == {"id": file.id}
    assert root.blocks[2]["alt_text"] == "the route in words"
    assert [bool(m.files) for m in slack.thread("#mesh", root.ts)] == [False, False, True], "words first, then the picture"


async def test_the_same_picture_is_not_uploaded_again_and_stays_through_edits(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft(picture=drawing()))
        await settled(store, 15)
        await commit(store, draft("60 % fails", picture=drawing()))
        await settled(store)
        assert [b["type"] for b in slack.messages("#mesh")[0].blocks] == ["header", "section", "image"]
        await commit(store, draft("Resolved", resolved=True))
        await settled(store)
    assert len(slack.workspace.files) == 1
    assert [b["type"] for b in slack.messages("#mesh")[0].blocks] == ["header", "section"]


@pytest.mark.parametrize("method", ["files.getUploadURLExternal", "upload", "files.completeUploadExternal"])
async def test_a_picture_that_fails_costs_one_line_in_the_thread(store: Store, slack: LocalSlack, method: str):
    slack.fault(method, **({"status": 500} if method == "upload" else {"error": "missing_scope"}))
    async with running(store, slack):
        await commit(store, draft(picture=drawing()), steps=lines("fired"))
        await settled(store)
    (root,) = slack.messages("#mesh")
    assert root.text == "95 % fails"
    told = replies(slack, root)
    assert told[0] == "fired"
    assert "picture of the route could not be added" in told[1]
    assert len(told) == 2


async def test_a_picture_that_is_no_picture_costs_one_line_in_the_thread(store: Store, slack: LocalSlack):
    async with running(store, slack):
        await commit(store, draft(picture=replace(drawing(), svg="<nonsense")))
        await settled(store)
    assert "could not be added" in replies(slack, slack.messages("#mesh")[0])[0]


async def test_a_picture_that_slack_refuses_in_the_message_stays_in_the_thread(
    store: Store, slack: LocalSlack, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bot.outbox._PICTURE_TRIES", (0.05, 0.05))
    slack.fault("chat.update", error="invalid_blocks", times=2)
    async with running(store, slack):
        await commit(store, draft(picture=drawing()))
        await settled(store)
    (root,) = slack.messages("#mesh")
    assert [b["type"] for b in root.blocks] == ["header", "section"]
    assert any(m.files for m in slack.thread("#mesh", root.ts))


async def test_a_turn_goes_to_the_first_lane_that_waits_and_not_to_who_gave_up():
    pace, order = Pace(rate=20, burst=1), list[str]()

    async def wait(name: str, lane: tuple[int, float]) -> None:
        await pace.turn(lane)
        order.append(name)

    tasks = {name: asyncio.create_task(wait(name, lane)) for name, lane in (("now", (9, 0.0)), ("line", (2, 0.0)), ("well", (1, -1.0)))}
    await asyncio.sleep(0)
    tasks |= {name: asyncio.create_task(wait(name, (0, -share))) for name, share in (("half", 0.5), ("gone", 0.9), ("all", 1.0))}
    await asyncio.sleep(0)
    tasks["gone"].cancel()
    await asyncio.wait(tasks.values())
    assert order == ["now", "all", "half", "well", "line"]


async def test_a_turn_that_was_promised_before_a_pause_waits_for_its_end():
    pace = Pace(rate=100, burst=2)
    began = time.monotonic()
    await pace.turn()
    await pace.turn()
    assert time.monotonic() - began < 0.05, "a burst waits for nothing"
    waiting = [asyncio.create_task(pace.turn()) for _ in range(3)]
    await asyncio.sleep(0)
    pace.pause(0.2)
    await asyncio.gather(*waiting)
    assert time.monotonic() - began >= 0.2
