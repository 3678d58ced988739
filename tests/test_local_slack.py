"""The local workspace refuses what Slack refuses: the real slack_sdk and slack_bolt get Slack's own errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from aiohttp import web as http
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.demo import limits
from bot.demo.delivery import NotAcknowledged
from bot.demo.slack import BOT, PAGE, SLACKBOT, File
from bot.demo.workspace import MANIFEST
from tests.localslack import EVERYTHING, Clock, app_of, connected, refused, running, web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from slack_bolt.app.async_app import AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.demo.slack import LocalSlack

Json = dict[str, Any]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(24)


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with running(enforce_rates=False) as slack:
        yield slack


@pytest.fixture
def client(slack: LocalSlack) -> AsyncWebClient:
    return web(slack)


@pytest.fixture
def app(slack: LocalSlack) -> AsyncApp:
    return app_of(slack)


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def section(text: str = "x", **more: Any) -> Json:
    return {"type": "section", "text": mrkdwn(text), **more}


def button(**more: Any) -> Json:
    return {"type": "button", "text": plain("Ack"), **more}


def actions(*elements: Json) -> list[Json]:
    return [{"type": "actions", "elements": list(elements)}]


def option(label: str = "one", value: str = "1") -> Json:
    return {"text": plain(label), "value": value}


def select(**more: Any) -> list[Json]:
    return actions({"type": "static_select", "action_id": "s", **({"options": [option()]} if "option_groups" not in more else {}), **more})


def confirm(**more: str) -> list[Json]:
    texts = {"title": "t", "text": "x", "confirm": "y", "deny": "n"} | more
    return actions(button(confirm={name: plain(text) for name, text in texts.items()}))


def cell(text: str = "x") -> Json:
    return {"type": "raw_text", "text": text}


def table(rows: int = 1, columns: int = 1, text: str = "x", **more: Any) -> list[Json]:
    return [{"type": "table", "rows": [[cell(text)] * columns for _ in range(rows)], **more}]


def data_table(rows: int = 2, columns: int = 1, text: str = "x", **more: Any) -> list[Json]:
    return [{"type": "data_table", "caption": "c", "rows": [[cell(text)] * columns for _ in range(rows)], **more}]


def chart(series: int = 1, points: int = 1, label: str = "a", title: str = "t") -> list[Json]:
    data = [{"label": label, "value": 1}] * points
    return [
        {
            "type": "data_visualization",
            "title": title,
            "chart": {"type": "bar", "series": [{"name": f"s{n}", "data": data} for n in range(series)]},
        }
    ]


def image(**more: Any) -> list[Json]:
    return [{"type": "image", "image_url": "ICON", "alt_text": "a", **more}]


def card(**more: Any) -> Json:
    return {"type": "card", "title": plain("t"), **more}


def task(number: int) -> Json:
    return {"type": "task_card", "task_id": str(number), "title": "t", "status": "pending"}


# What, how it looks with n of it, how many are accepted, what the pointer of the refusal names. Sections 3.3 and 3.4.
COUNTED: list[tuple[str, Callable[[int], list[Json]], int, str]] = [
    ("blocks of a message", lambda n: [{"type": "divider"}] * n, 50, "/blocks"),
    ("section text", lambda n: [section("x" * n)], 3000, "/blocks/0/text/text"),
    ("section fields", lambda n: [{"type": "section", "fields": [mrkdwn("x")] * n}], 10, "/blocks/0/fields"),
    ("field text", lambda n: [{"type": "section", "fields": [mrkdwn("x" * n)]}], 2000, "/blocks/0/fields/0/text"),
    ("header text", lambda n: [{"type": "header", "text": plain("x" * n)}], 150, "/blocks/0/text/text"),
    ("header level", lambda n: [{"type": "header", "text": plain("x"), "level": n}], 4, "/blocks/0/level"),
    ("context elements", lambda n: [{"type": "context", "elements": [mrkdwn("x")] * n}], 10, "/blocks/0/elements"),
    ("actions elements", lambda n: actions(*[button()] * n), 25, "/blocks/0/elements"),
    (
        "context actions",
        lambda n: [{"type": "context_actions", "elements": [{"type": "icon_button", "icon": "trash", "text": plain("x")}] * n}],
        5,
        "/blocks/0/elements",
    ),
    ("button text", lambda n: actions(button(text=plain("x" * n))), 75, "/blocks/0/elements/0/text/text"),
    ("button value", lambda n: actions(button(value="x" * n)), 2000, "/blocks/0/elements/0/value"),
    ("button url", lambda n: actions(button(url="https://e.example/".ljust(n, "x"))), 3000, "/blocks/0/elements/0/url"),
    ("accessibility label", lambda n: actions(button(accessibility_label="x" * n)), 75, "/blocks/0/elements/0/accessibility_label"),
    ("action_id", lambda n: actions(button(action_id="x" * n)), 255, "/blocks/0/elements/0/action_id"),
    ("block_id", lambda n: [section(block_id="x" * n)], 255, "/blocks/0/block_id"),
    ("select options", lambda n: select(options=[option(value=str(v)) for v in range(n)]), 100, "/blocks/0/elements/0/options"),
    (
        "select groups",
        lambda n: select(option_groups=[{"label": plain("g"), "options": [option()]}] * n),
        100,
        "/blocks/0/elements/0/option_groups",
    ),
    ("option label", lambda n: select(options=[option("x" * n)]), 75, "/blocks/0/elements/0/options/0/text/text"),
    ("option value", lambda n: select(options=[option(value="x" * n)]), 150, "/blocks/0/elements/0/options/0/value"),
    ("overflow options", lambda n: actions({"type": "overflow", "options": [option()] * n}), 5, "/blocks/0/elements/0/options"),
    ("placeholder", lambda n: select(placeholder=plain("x" * n)), 150, "/blocks/0/elements/0/placeholder/text"),
    ("confirm title", lambda n: confirm(title="x" * n), 100, "/blocks/0/elements/0/confirm/title/text"),
    ("confirm text", lambda n: confirm(text="x" * n), 300, "/blocks/0/elements/0/confirm/text/text"),
    ("confirm button", lambda n: confirm(confirm="x" * n), 30, "/blocks/0/elements/0/confirm/confirm/text"),
    ("deny button", lambda n: confirm(deny="x" * n), 30, "/blocks/0/elements/0/confirm/deny/text"),
    ("image url", lambda n: image(image_url=f"ICON:{n}"), 3000, "/blocks/0/image_url"),
    ("alt text", lambda n: image(alt_text="x" * n), 2000, "/blocks/0/alt_text"),
    ("image title", lambda n: image(title=plain("x" * n)), 2000, "/blocks/0/title/text"),
    ("table rows", table, 100, "/blocks/0/rows"),
    ("table cells", lambda n: table(1, n), 20, "/blocks/0/rows/0"),
    ("table columns settings", lambda n: table(column_settings=[{"align": "right"}] * n), 20, "/blocks/0/column_settings"),
    ("table characters", lambda n: [{"type": "table", "rows": [[cell("x" * 5000), cell("x" * (n - 5000))]]}], 10_000, "/blocks/0"),
    ("data table rows", data_table, 101, "/blocks/0/rows"),
    ("data table cells", lambda n: data_table(2, n), 20, "/blocks/0/rows/1"),
    ("data table page", lambda n: data_table(page_size=n), 100, "/blocks/0/page_size"),
    ("chart title", lambda n: chart(title="x" * n), 50, "/blocks/0/title"),
    ("chart labels", lambda n: chart(label="x" * n), 20, "/blocks/0/chart/series/0/data/0/label"),
    ("chart points", lambda n: chart(points=n), 20, "/blocks/0/chart/series/0/data"),
    ("chart series", lambda n: chart(series=n), 12, "/blocks/0/chart/series"),
    ("charts of a message", lambda n: chart() * n, 2, "/blocks"),
    ("container children", lambda n: [{"type": "container", "child_blocks": [section()] * n}], 10, "/blocks/0/child_blocks"),
    (
        "container title",
        lambda n: [{"type": "container", "title": plain("x" * n), "child_blocks": [section()]}],
        150,
        "/blocks/0/title/text",
    ),
    (
        "container subtitle",
        lambda n: [{"type": "container", "subtitle": plain("x" * n), "child_blocks": [section()]}],
        150,
        "/blocks/0/subtitle/text",
    ),
    ("card title", lambda n: [card(title=plain("x" * n))], 150, "/blocks/0/title/text"),
    ("card body", lambda n: [card(body=plain("x" * n))], 200, "/blocks/0/body/text"),
    ("card buttons", lambda n: [card(actions=[button()] * n)], 3, "/blocks/0/actions"),
    ("carousel cards", lambda n: [{"type": "carousel", "elements": [card()] * n}], 10, "/blocks/0/elements"),
    ("plan tasks", lambda n: [{"type": "plan", "title": "p", "tasks": [task(i) for i in range(n)]}], 50, "/blocks/0/tasks"),
    ("markdown text", lambda n: [{"type": "markdown", "text": "x" * n}], 12_000, "/blocks/0/text"),
]


@pytest.mark.parametrize(("make", "most", "pointer"), [row[1:] for row in COUNTED], ids=[row[0] for row in COUNTED])
async def test_a_block_at_slacks_limit_is_posted_and_one_above_it_is_refused_at_its_pointer(
    slack: LocalSlack, client: AsyncWebClient, make: Callable[[int], list[Json]], most: int, pointer: str
):
    def with_icon(blocks: list[Json]) -> list[Json]:
        icon = slack.workspace.file_url(slack.workspace.files.setdefault("F1", File("F1", "a.png", len(PNG), "", content=PNG)))
        for one in blocks:
            url = one.get("image_url", "")
            if url.startswith("ICON"):
                one["image_url"] = icon if url == "ICON" else f"{icon}?".ljust(int(url[5:]), "x")
        return blocks

    assert (await client.chat_postMessage(channel="#mesh", text="t", blocks=with_icon(make(most))))["ok"]
    answer = await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=with_icon(make(most + 1))))
    assert answer["error"] == "invalid_blocks"
    told = answer["response_metadata"]["messages"]
    assert told[-1].startswith("[ERROR] ")
    assert told[-1].endswith(f"[json-pointer:{pointer}]")
    assert len(slack.messages("#mesh")) == 1


WRONG: list[tuple[str, list[Json], str]] = [
    ("a type that Slack does not know", [{"type": "graph"}], "unsupported type: graph [json-pointer:/blocks/0/type]"),
    ("no type at all", [{"text": "x"}], "missing required field: type [json-pointer:/blocks/0]"),
    ("an empty text", [section("")], "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
    ("a section that says nothing", [{"type": "section"}], "missing required field: text [json-pointer:/blocks/0]"),
    (
        "a field that Slack does not know",
        [{"type": "divider", "colour": "red"}],
        "invalid additional property: colour [json-pointer:/blocks/0]",
    ),
    ("mrkdwn in a header", [{"type": "header", "text": mrkdwn("x")}], "unsupported type: mrkdwn [json-pointer:/blocks/0/text/type]"),
    (
        "a picture without alt text",
        [{"type": "image", "image_url": "https://e.example/a.png"}],
        "missing required field: alt_text [json-pointer:/blocks/0]",
    ),
    (
        "a picture from nowhere",
        [{"type": "image", "alt_text": "a"}],
        "must define exactly one of: image_url, slack_file [json-pointer:/blocks/0]",
    ),
    (
        "a picture that cannot be fetched",
        [{"type": "image", "alt_text": "a", "image_url": "http://127.0.0.1:1/a.png"}],
        "downloading image failed [json-pointer:/blocks/0/image_url]",
    ),
    (
        "a file that nobody uploaded",
        [{"type": "image", "alt_text": "a", "slack_file": {"id": "F1"}}],
        "invalid slack file [json-pointer:/blocks/0/slack_file]",
    ),
    ("a button to no address", actions(button(url="payments.core")), "invalid url [json-pointer:/blocks/0/elements/0/url]"),
    (
        "two buttons of one name",
        actions(button(action_id="a"), button(action_id="a")),
        "`action_id` `a` already exists for this block [json-pointer:/blocks/0/elements/1/action_id]",
    ),
    (
        "two blocks of one name",
        [section(block_id="b"), section(block_id="b")],
        "`block_id` `b` already exists [json-pointer:/blocks/1/block_id]",
    ),
    (
        "an option value that is no string",
        select(options=[option(value=1)]),
        "must be a string [json-pointer:/blocks/0/elements/0/options/0/value]",
    ),  # type: ignore[arg-type]
    (
        "a first choice that is not offered",
        select(initial_option=option("two", "2")),
        "initial_option does not match any of the options [json-pointer:/blocks/0/elements/0/initial_option]",
    ),
    (
        "an input in a message",
        [{"type": "input", "label": plain("l"), "element": {"type": "plain_text_input"}}],
        "unsupported type: input [json-pointer:/blocks/0/type]",
    ),
    ("an alert in a message", [{"type": "alert", "text": plain("x")}], "unsupported type: alert [json-pointer:/blocks/0/type]"),
    ("an empty cell", table(text=""), "must be more than 0 characters [json-pointer:/blocks/0/rows/0/0/text]"),
    (
        "rows of two widths",
        [{"type": "data_table", "caption": "c", "rows": [[cell()], [cell(), cell()]]}],
        "all rows must have the same number of cells [json-pointer:/blocks/0/rows]",
    ),
    ("a data table without rows", data_table(1), "no fewer than 2 items allowed [json-pointer:/blocks/0/rows]"),
    ("a plan beside a task", [{"type": "plan", "title": "p"}, task(1)], "plan and task_card are mutually exclusive [json-pointer:/blocks]"),
    (
        "markdown above 12,000 in all",
        [{"type": "markdown", "text": "x" * 6001}] * 2,
        "must be less than 12001 characters [json-pointer:/blocks]",
    ),
]


@pytest.mark.parametrize(("blocks", "sentence"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
async def test_a_block_that_slack_cannot_show_sinks_the_message_with_the_reason(
    client: AsyncWebClient, slack: LocalSlack, blocks: list[Json], sentence: str
):
    answer = await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=blocks))
    assert answer["error"] == "invalid_blocks"
    assert answer["response_metadata"]["messages"][-1] == f"[ERROR] {sentence}"
    assert answer["errors"][-1] == sentence
    assert slack.messages("#mesh") == []


async def test_a_union_is_named_before_its_leaf_as_slack_does(client: AsyncWebClient):
    answer = await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=[section("x" * 3001)]))
    assert answer["errors"] == [
        "failed to match all allowed schemas [json-pointer:/blocks/0/text]",
        "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
    ]


async def test_an_emoji_counts_as_two_characters(client: AsyncWebClient):
    await client.chat_postMessage(channel="#mesh", text="t", blocks=[{"type": "header", "text": plain("🔥" * 75)}])
    assert (await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=[{"type": "header", "text": plain("🔥" * 76)}])))[
        "error"
    ] == "invalid_blocks"


async def test_two_tables_in_one_message_are_refused_also_when_one_is_nested(client: AsyncWebClient):
    nested = [{"type": "container", "child_blocks": data_table()}]
    for blocks in (table() * 2, table() + nested):
        answer = await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=blocks))
        assert (answer["error"], answer["response_metadata"]["messages"]) == (
            "invalid_attachments",
            ["[ERROR] only_one_table_allowed [json-pointer:/blocks]"],
        )


async def test_blocks_that_are_together_too_long_are_refused_though_each_is_short(client: AsyncWebClient):
    one = section("x" * 2600)
    await client.chat_postMessage(channel="#mesh", text="t", blocks=[one] * 4)
    assert (await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=[one] * 5)))["error"] == "msg_blocks_too_long"


async def test_blocks_that_are_no_list_of_objects_have_an_error_of_their_own(client: AsyncWebClient):
    for blocks in ("[{", '{"type": "divider"}', '["divider"]'):
        assert (await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=blocks)))["error"] == "invalid_blocks_format"


# 3.3: messages.


async def test_a_message_without_content_is_refused(client: AsyncWebClient):
    for text in ("", "  "):
        assert (await refused(client.api_call("chat.postMessage", json={"channel": "#mesh", "text": text})))["error"] == "no_text"


async def test_the_text_of_a_post_is_cut_at_40000_and_that_of_an_edit_refused_above_4000(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="x" * 40_001)
    assert len(slack.messages("#mesh")[0].text) == 40_000
    assert posted["response_metadata"]["warnings"] == ["message_truncated"]
    where = {"channel": posted["channel"], "ts": posted["ts"]}
    await client.chat_update(**where, text="x" * 4000)
    assert (await refused(client.chat_update(**where, text="x" * 4001)))["error"] == "msg_too_long"


async def test_markdown_text_excludes_text_and_blocks_and_ends_at_12000(client: AsyncWebClient):
    await client.chat_postMessage(channel="#mesh", markdown_text="x" * 12_000)
    assert (await refused(client.chat_postMessage(channel="#mesh", markdown_text="x" * 12_001)))["error"] == "msg_too_long"
    assert (await refused(client.chat_postMessage(channel="#mesh", markdown_text="x", text="x")))["error"] == "markdown_text_conflict"


async def test_attachments_end_at_100_and_their_blocks_are_measured(client: AsyncWebClient):
    await client.chat_postMessage(channel="#mesh", text="t", attachments=[{"text": "a"}] * 100)
    assert (await refused(client.chat_postMessage(channel="#mesh", text="t", attachments=[{"text": "a"}] * 101)))[
        "error"
    ] == "too_many_attachments"
    long = [{"blocks": [section(), {"type": "section", "fields": [mrkdwn("x" * 2001)]}]}]
    answer = await refused(client.chat_postMessage(channel="#mesh", text="t", attachments=long))
    assert answer["error"] == "invalid_attachments"
    assert (
        answer["response_metadata"]["messages"][-1]
        == "[ERROR] must be less than 2001 characters [json-pointer:/attachments/0/blocks/1/fields/0/text]"
    )


async def test_an_edit_with_blocks_is_not_marked_one_with_text_alone_is_and_removes_the_blocks(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(
        channel="#mesh", text="95 %", blocks=[section("95 %")], metadata={"event_type": "alert", "event_payload": {"id": "a1"}}
    )
    where = {"channel": posted["channel"], "ts": posted["ts"]}
    (message,) = slack.messages("#mesh")
    await client.chat_update(**where, text="60 %", blocks=[section("60 %")])
    assert (message.words, message.marked_edited, message.edits) == ("60 %", False, 1)
    await client.chat_update(**where, text="resolved")
    assert (message.words, message.blocks, message.marked_edited) == ("resolved", [], True)
    assert message.metadata == {"event_type": "alert", "event_payload": {"id": "a1"}}


async def test_only_the_bots_own_living_message_can_be_edited_and_only_by_channel_id(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="mine")
    theirs = await slack.say("theirs")
    whisper = await client.chat_postEphemeral(channel="#mesh", user="U0ANA", text="psst")

    async def error(channel: str, ts: str) -> str:
        return str((await refused(client.chat_update(channel=channel, ts=ts, text="x")))["error"])

    assert await error("#mesh", posted["ts"]) == "channel_not_found"
    assert await error("C0MESH", "1.000001") == "message_not_found"
    assert await error("C0MESH", theirs.ts) == "cant_update_message"
    assert await error("C0MESH", whisper["message_ts"]) == "message_not_found"
    slack.delete(slack.messages("#mesh")[0])
    assert await error("C0MESH", posted["ts"]) == "message_not_found"


async def test_an_archived_channel_takes_neither_posts_nor_edits(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="x")
    slack.archive("#mesh")
    assert (await refused(client.chat_postMessage(channel="#mesh", text="x")))["error"] == "is_archived"
    assert (await refused(client.chat_postEphemeral(channel="#mesh", user="U0ANA", text="x")))["error"] == "is_archived"
    assert (await refused(client.chat_update(channel="C0MESH", ts=posted["ts"], text="y")))["error"] == "is_inactive"
    assert (await refused(client.reactions_add(channel="C0MESH", timestamp=posted["ts"], name="eyes")))["error"] == "is_archived"
    slack.archive("#mesh", archived=False)
    await client.chat_update(channel="C0MESH", ts=posted["ts"], text="y")


async def test_the_workspace_may_close_edits_after_a_while():
    clock = Clock()
    async with running(clock=clock) as slack:
        slack.api.edit_window = 60
        posted = await web(slack).chat_postMessage(channel="#mesh", text="x")
        clock.now += 61
        assert (await refused(web(slack).chat_update(channel="C0MESH", ts=posted["ts"], text="y")))["error"] == "edit_window_closed"


async def test_a_reply_names_the_root_of_its_thread(client: AsyncWebClient, slack: LocalSlack):
    root = await client.chat_postMessage(channel="#mesh", text="root")
    reply = await client.chat_postMessage(channel="#mesh", text="reply", thread_ts=root["ts"])
    await client.chat_postMessage(channel="#mesh", text="loud", thread_ts=root["ts"], reply_broadcast=True)
    assert [one.text for one in slack.messages("#mesh")] == ["root", "loud"]
    assert [one.text for one in slack.thread("#mesh", root["ts"])] == ["root", "reply", "loud"]

    async def error(ts: str) -> str:
        return str((await refused(client.chat_postMessage(channel="#mesh", text="x", thread_ts=ts)))["error"])

    assert await error(reply["ts"]) == "cannot_reply_to_message"
    assert await error("1.000001") == "thread_not_found"
    assert await error("yesterday") == "invalid_thread_ts"
    slack.lock(slack.messages("#mesh")[0])
    assert await error(root["ts"]) == "restricted_action_thread_locked"


async def test_an_old_reply_is_broadcast_or_changed_but_not_both_at_once(client: AsyncWebClient, slack: LocalSlack):
    root = await client.chat_postMessage(channel="#mesh", text="root")
    reply = await client.chat_postMessage(channel="#mesh", text="reply", thread_ts=root["ts"])
    answer = await refused(client.chat_update(channel="C0MESH", ts=reply["ts"], text="x", reply_broadcast=True))
    assert answer["error"] == "no_dual_broadcast_content_update"
    await client.api_call("chat.update", json={"channel": "C0MESH", "ts": reply["ts"], "reply_broadcast": True})
    assert [one.text for one in slack.messages("#mesh")] == ["root", "reply"]


async def test_an_ephemeral_message_reaches_one_active_member_and_is_not_kept(client: AsyncWebClient, slack: LocalSlack):
    await client.chat_postEphemeral(channel="#mesh", user="U0ANA", text="psst")
    assert [one.text for one in slack.ephemerals("ana")] == ["psst"]
    assert slack.ephemerals("ben") == []
    assert (await client.conversations_history(channel="C0MESH"))["messages"] == []
    slack.channel("#mesh").members.discard("U0BEN")
    slack.workspace.users["U0KIM"].deleted = True
    for user in ("U0BEN", "U0KIM", "U0NOBODY"):
        assert (await refused(client.chat_postEphemeral(channel="#mesh", user=user, text="psst")))["error"] == "user_not_in_channel"


async def test_metadata_is_kept_and_told_only_when_it_is_asked_for(client: AsyncWebClient):
    metadata = {"event_type": "alert", "event_payload": {"id": "a1", "v": 1}}
    await client.chat_postMessage(channel="#mesh", text="x", metadata=metadata)
    assert "metadata" not in (await client.conversations_history(channel="C0MESH"))["messages"][0]
    assert (await client.conversations_history(channel="C0MESH", include_all_metadata=True))["messages"][0]["metadata"] == metadata


async def test_metadata_has_a_type_a_payload_and_a_size(client: AsyncWebClient):
    async def error(metadata: Any) -> str:
        return str((await refused(client.chat_postMessage(channel="#mesh", text="x", metadata=metadata)))["error"])

    assert await error({"event_type": "a"}) == "invalid_metadata_schema"
    assert await error({"event_type": "a", "event_payload": {"x": "y" * limits.METADATA}}) == "metadata_too_large"
    assert await error("[1]") == "invalid_metadata_format"


async def test_a_post_whose_answer_is_lost_can_be_found_again_by_its_metadata(client: AsyncWebClient, slack: LocalSlack):
    slack.fault("chat.postMessage", applied=True)
    with pytest.raises(aiohttp.ClientError):
        await client.chat_postMessage(channel="#mesh", text="x", metadata={"event_type": "alert", "event_payload": {"id": "a7"}})
    found = (await client.conversations_history(channel="C0MESH", include_all_metadata=True))["messages"]
    assert [one["metadata"]["event_payload"]["id"] for one in found] == ["a7"]


async def test_history_is_paged_from_the_newest_and_replies_from_the_root(client: AsyncWebClient):
    roots = [(await client.chat_postMessage(channel="#mesh", text=str(n)))["ts"] for n in range(5)]
    for n in range(3):
        await client.chat_postMessage(channel="#mesh", text=f"r{n}", thread_ts=roots[0])
    first = await client.conversations_history(channel="C0MESH", limit=2)
    assert ([one["text"] for one in first["messages"]], first["has_more"]) == (["4", "3"], True)
    last = await client.conversations_history(channel="C0MESH", limit=2, oldest=roots[0], latest=roots[2])
    assert [one["text"] for one in last["messages"]] == ["1"]
    replies = [page["messages"] async for page in await client.conversations_replies(channel="C0MESH", ts=roots[0], limit=2)]
    assert [[one["text"] for one in page] for page in replies] == [["0", "r0"], ["r1", "r2"]]
    assert (await refused(client.conversations_replies(channel="C0MESH", ts="1.000001")))["error"] == "thread_not_found"


async def test_a_permalink_leads_to_a_message_that_exists(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="x")
    link = (await client.chat_getPermalink(channel="C0MESH", message_ts=posted["ts"]))["permalink"]
    assert link == f"{slack.page_url}archives/C0MESH/p{posted['ts'].replace('.', '')}"
    assert (await refused(client.chat_getPermalink(channel="C0MESH", message_ts="1.1")))["error"] == "message_not_found"


async def test_a_message_is_deleted_once_and_only_by_its_author(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="x")
    theirs = await slack.say("theirs")
    await client.chat_delete(channel="C0MESH", ts=posted["ts"])
    assert [one.text for one in slack.messages("#mesh")] == ["theirs"]
    assert (await refused(client.chat_delete(channel="C0MESH", ts=posted["ts"])))["error"] == "message_not_found"
    assert (await refused(client.chat_delete(channel="C0MESH", ts=theirs.ts)))["error"] == "cant_delete_message"


async def test_a_reaction_is_given_once(client: AsyncWebClient, slack: LocalSlack):
    posted = await client.chat_postMessage(channel="#mesh", text="x")
    where = {"channel": "C0MESH", "timestamp": posted["ts"]}
    await client.reactions_add(**where, name="eyes")
    assert slack.messages("#mesh")[0].reactions == {"eyes": [BOT]}
    assert (await refused(client.reactions_add(**where, name="eyes")))["error"] == "already_reacted"
    assert (await refused(client.reactions_add(**where, name="not a name")))["error"] == "invalid_name"
    assert (await refused(client.reactions_add(channel="C0MESH", timestamp="1.1", name="eyes")))["error"] == "message_not_found"


# 3.6: what is a mention.


async def test_only_an_unescaped_token_in_parsed_text_pings(client: AsyncWebClient, slack: LocalSlack):
    name = "<!channel><@U0ANA>"
    escaped = name.replace("<", "&lt;").replace(">", "&gt;")
    harmless = [
        {"text": escaped},
        {"text": "t", "blocks": [section(f"`{escaped}`")]},
        {"text": "t", "blocks": [{"type": "header", "text": plain(name)}]},
        {"text": "t", "blocks": table(text=name)},
        {
            "text": "t",
            "blocks": [{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": name}]}]}],
        },
        {"text": "t", "attachments": [{"text": name}]},
    ]
    for message in harmless:
        await client.chat_postMessage(channel="#mesh", **message)
    assert [one.pings for one in slack.messages("#mesh")] == [()] * len(harmless)
    await client.chat_postMessage(channel="#mesh", text=name)
    await client.chat_postMessage(channel="#mesh", text="t", blocks=[section("<!subteam^S0SRE|@sre> `<!here>`")])
    assert [one.pings for one in slack.messages("#mesh")[-2:]] == [("channel", "U0ANA"), ("S0SRE", "here")]


async def test_typed_text_is_stored_as_slack_stores_it(slack: LocalSlack):
    said = await slack.say("@meshwhy see <b> & #ops, @sre https://e.example/a?b=1.")
    assert said.text == "<@U0MESHWHY> see &lt;b&gt; &amp; <#C0OPS|ops>, <!subteam^S0SRE> <https://e.example/a?b=1>."


# 3.5: files and pictures.


async def test_a_picture_can_be_shown_in_a_block_once_slack_has_processed_it():
    clock = Clock()
    async with running(clock=clock) as slack:
        client = web(slack)
        uploaded = await client.files_upload_v2(content=PNG, filename="route.png", alt_txt="95 % to v1", channel="C0MESH")
        shown = [{"type": "image", "alt_text": "a", "slack_file": {"id": uploaded["file"]["id"]}}]
        assert (await client.files_info(file=uploaded["file"]["id"]))["file"]["mimetype"] == ""
        answer = await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=shown))
        assert (answer["error"], answer["errors"]) == ("invalid_blocks", ["invalid slack file [json-pointer:/blocks/0/slack_file]"])
        clock.now += 1
        info = (await client.files_info(file=uploaded["file"]["id"]))["file"]
        assert (info["mimetype"], info["alt_txt"], info["channels"]) == ("image/png", "95 % to v1", ["C0MESH"])
        await client.chat_postMessage(channel="#mesh", text="t", blocks=shown)
        by_address = [{"type": "image", "alt_text": "a", "slack_file": {"url": info["url_private"]}}]
        await client.chat_postMessage(channel="#mesh", text="t", blocks=by_address)


async def test_a_file_that_is_no_picture_is_never_shown_as_one(client: AsyncWebClient, slack: LocalSlack):
    slack.api.processing = 0
    uploaded = await client.files_upload_v2(content="a,b", filename="routes.csv", channel="C0MESH")
    shown = [{"type": "image", "alt_text": "a", "slack_file": {"id": uploaded["file"]["id"]}}]
    assert (await refused(client.chat_postMessage(channel="#mesh", text="t", blocks=shown)))["error"] == "invalid_blocks"


async def test_an_upload_goes_into_the_thread_and_stays_private_without_a_channel(client: AsyncWebClient, slack: LocalSlack):
    root = await client.chat_postMessage(channel="#mesh", text="root")
    shared = await client.files_upload_v2(
        content=PNG, filename="a.png", channel="C0MESH", thread_ts=root["ts"], initial_comment="the route"
    )
    reply = slack.thread("#mesh", root["ts"])[-1]
    assert (reply.text, reply.files) == ("the route", [shared["file"]["id"]])
    private = await client.files_upload_v2(content=PNG, filename="b.png")
    assert (private["file"]["channels"], private["file"]["is_public"]) == ([], False)


async def test_each_step_of_an_upload_can_be_refused(client: AsyncWebClient, slack: LocalSlack):
    ask, done = client.files_getUploadURLExternal, client.files_completeUploadExternal
    await ask(filename="a.png", length=4, alt_txt="x" * 1000)
    assert (await refused(ask(filename="a.png", length=4, alt_txt="x" * 1001)))["error"] == "alt_txt_too_large"
    assert (await refused(ask(filename="a.py", length=1_000_001, snippet_type="python")))["error"] == "snippet_too_large"
    assert (await refused(ask(filename="a.png", length=0)))["error"] == "missing_argument"
    ticket = await ask(filename="a.png", length=4)
    file = [{"id": ticket["file_id"], "title": "a"}]
    assert (await refused(done(files=file, channel_id="C0MESH")))["error"] == "file_not_found"  # nothing was sent to its URL
    async with aiohttp.ClientSession() as session, session.post(ticket["upload_url"], data=PNG) as sent:
        assert (sent.status, await sent.text()) == (200, f"OK - {len(PNG)}")
    assert (await refused(done(files=file, channel_id="C0NONE")))["error"] == "channel_not_found"
    assert (await refused(done(files=file, channels=["C0MESH"] * 101)))["error"] == "channels_limit_exceeded"
    assert (await refused(done(files=file, channel_id="C0MESH", initial_comment="x", blocks="[{}]")))["error"] == "invalid_arguments"
    slack.kick("#ops")
    assert (await refused(done(files=file, channel_id="C0OPS")))["error"] == "not_in_channel"
    assert (await refused(client.files_info(file=ticket["file_id"])))["error"] == "file_not_found"
    await done(files=file, channel_id="C0MESH")
    assert slack.messages("#mesh")[-1].files == [ticket["file_id"]]


async def test_a_failing_upload_touches_nothing_else(client: AsyncWebClient, slack: LocalSlack):
    slack.fault("upload", status=500)
    with pytest.raises(Exception, match="Failed to upload a file"):
        await client.files_upload_v2(content=PNG, filename="a.png", channel="C0MESH")
    assert slack.messages("#mesh") == []


# 3.4: views.


def modal(**more: Any) -> Json:
    return {"type": "modal", "title": plain("t"), "blocks": [section()], **more}


def text_input(**more: Any) -> Json:
    return {"type": "input", "block_id": "b", "label": plain("l"), "element": {"type": "plain_text_input", "action_id": "a"}, **more}


VIEWS: list[tuple[str, Callable[[int], Json], int, str]] = [
    ("title", lambda n: modal(title=plain("x" * n)), 24, "/view/title/text"),
    ("submit", lambda n: modal(submit=plain("x" * n)), 24, "/view/submit/text"),
    ("close", lambda n: modal(close=plain("x" * n)), 24, "/view/close/text"),
    ("private metadata", lambda n: modal(private_metadata="x" * n), 3000, "/view/private_metadata"),
    ("callback id", lambda n: modal(callback_id="x" * n), 255, "/view/callback_id"),
    ("blocks", lambda n: modal(blocks=[{"type": "divider"}] * n), 100, "/view/blocks"),
    ("input label", lambda n: modal(submit=plain("s"), blocks=[text_input(label=plain("x" * n))]), 2000, "/view/blocks/0/label/text"),
    ("input hint", lambda n: modal(submit=plain("s"), blocks=[text_input(hint=plain("x" * n))]), 2000, "/view/blocks/0/hint/text"),
    ("alert", lambda n: modal(blocks=[{"type": "alert", "text": plain("x" * n), "level": "warning"}]), 200, "/view/blocks/0/text/text"),
]


@pytest.mark.parametrize(("make", "most", "pointer"), [row[1:] for row in VIEWS], ids=[row[0] for row in VIEWS])
async def test_a_view_at_slacks_limit_opens_and_one_above_it_is_refused_at_its_pointer(
    slack: LocalSlack, client: AsyncWebClient, make: Callable[[int], Json], most: int, pointer: str
):
    answer = await refused(client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=make(most + 1)))
    assert answer["error"] == "invalid_arguments"
    assert answer["response_metadata"]["messages"][-1].endswith(f"[json-pointer:{pointer}]")
    await client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=make(most))
    assert len(slack.views("ana")) == 1


async def test_a_view_of_more_than_250_kb_or_with_inputs_and_nothing_to_submit_is_refused(slack: LocalSlack, client: AsyncWebClient):
    async def refusal(view: Json) -> Json:
        return await refused(client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=view))

    assert (await refusal(modal(blocks=[section("é" * 3000)] * 50)))["error"] == "view_too_large"
    answer = await refusal(modal(blocks=[text_input()]))
    assert answer["response_metadata"]["messages"] == ["[ERROR] missing required field: submit [json-pointer:/view]"]
    assert (await refusal(modal(blocks=table())))["error"] == "invalid_arguments"


async def test_a_trigger_is_good_once_and_for_three_seconds():
    clock = Clock()
    async with running(clock=clock) as slack:
        client = web(slack)
        once, late = slack.api.trigger("U0ANA"), slack.api.trigger("U0ANA")
        clock.now += 3
        await client.views_open(trigger_id=once, view=modal())
        assert (await refused(client.views_open(trigger_id=once, view=modal())))["error"] == "exchanged_trigger_id"
        clock.now += 0.1
        assert (await refused(client.views_open(trigger_id=late, view=modal())))["error"] == "expired_trigger_id"
        assert (await refused(client.views_open(trigger_id="1.2.3", view=modal())))["error"] == "invalid_trigger_id"


async def test_modals_are_updated_by_their_hash_and_stack_three_high(slack: LocalSlack, client: AsyncWebClient):
    opened = (await client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=modal(external_id="e")))["view"]
    updated = (await client.views_update(view_id=opened["id"], hash=opened["hash"], view=modal(title=plain("two"))))["view"]
    assert slack.views("ana")[0].payload["title"]["text"] == "two"
    assert (await refused(client.views_update(view_id=opened["id"], hash=opened["hash"], view=modal())))["error"] == "hash_conflict"
    assert (await refused(client.views_update(view_id="V1", view=modal())))["error"] == "not_found"
    for _ in range(2):
        await client.views_push(trigger_id=slack.api.trigger("U0ANA"), view=modal())
    assert (await refused(client.views_push(trigger_id=slack.api.trigger("U0ANA"), view=modal())))["error"] == "push_limit_reached"
    top = slack.views("ana")[-1].json()
    assert (top["root_view_id"], len(slack.views("ana"))) == (updated["id"], 3)
    await client.views_update(view_id=updated["id"], view=modal(external_id="e"))
    assert (await refused(client.views_open(trigger_id=slack.api.trigger("U0BEN"), view=modal(external_id="e"))))[
        "error"
    ] == "duplicate_external_id"


async def test_a_home_tab_is_published_for_a_person_by_its_hash(slack: LocalSlack, client: AsyncWebClient):
    home = {"type": "home", "blocks": [section("one")]}
    published = (await client.views_publish(user_id="U0ANA", view=home))["view"]
    await client.views_publish(user_id="U0ANA", hash=published["hash"], view={"type": "home", "blocks": [section("two")]})
    shown = slack.home("ana")
    assert shown is not None
    assert shown.payload["blocks"][0]["text"]["text"] == "two"
    assert (await refused(client.views_publish(user_id="U0ANA", hash=published["hash"], view=home)))["error"] == "hash_conflict"
    assert (await refused(client.views_publish(user_id="U0ANA", view=modal())))["error"] == "invalid_arguments"


# Who may do what: tokens, scopes, membership.


async def test_the_token_decides_what_is_answered(slack: LocalSlack, client: AsyncWebClient):
    assert (await client.auth_test())["user_id"] == BOT
    assert (await refused(web(slack, "xoxb-other").auth_test()))["error"] == "invalid_auth"
    assert (await refused(web(slack, slack.app_token).chat_postMessage(channel="#mesh", text="x")))["error"] == "not_allowed_token_type"
    assert (await refused(client.apps_connections_open(app_token=slack.bot_token)))["error"] == "not_allowed_token_type"
    async with aiohttp.ClientSession() as session, session.post(f"{slack.base_url}auth.test") as answer:
        assert await answer.json() == {"ok": False, "error": "not_authed"}
    for error in ("token_revoked", "account_inactive", "invalid_auth"):
        slack.revoke(error)
        assert (await refused(client.chat_postMessage(channel="#mesh", text="x")))["error"] == error
    slack.revoke(None)
    await client.chat_postMessage(channel="#mesh", text="x")


async def test_a_scope_that_the_manifest_lacks_is_named():
    manifest = {**EVERYTHING, "oauth_config": {"scopes": {"bot": ["chat:write", "commands"]}}}
    async with running(manifest=manifest) as slack:
        answer = await refused(web(slack).files_getUploadURLExternal(filename="a", length=1))
        assert (answer["error"], answer["needed"], answer["provided"]) == ("missing_scope", "files:write", "chat:write,commands")
        assert (await web(slack).auth_test()).headers["x-oauth-scopes"] == "chat:write,commands"
        slack.kick("#ops")
        assert (await refused(web(slack).chat_postMessage(channel="#ops", text="x")))["error"] == "not_in_channel"


async def test_channels_are_seen_joined_and_opened_as_the_bot_may(slack: LocalSlack, client: AsyncWebClient):
    slack.workspace.add_channel("secret", private=True, member=False)
    slack.workspace.add_channel("quiet", member=False)
    await client.chat_postMessage(channel="#quiet", text="chat:write.public allows it")
    for call in (
        client.chat_postMessage(channel="#secret", text="x"),
        client.chat_postMessage(channel="C0NONE", text="x"),
        client.conversations_info(channel="C0SECRET"),
    ):
        assert (await refused(call))["error"] == "channel_not_found"
    assert (await refused(client.conversations_history(channel="C0QUIET")))["error"] == "not_in_channel"
    assert (await client.conversations_join(channel="C0QUIET"))["channel"]["is_member"]
    listed = await client.conversations_list(types="public_channel,private_channel", limit=3)
    assert [one["name"] for one in listed["channels"]] == ["mesh", "payments", "ops"]
    more = await client.conversations_list(
        types="public_channel,private_channel", limit=3, cursor=listed["response_metadata"]["next_cursor"]
    )
    assert [one["name"] for one in more["channels"]] == ["quiet"]
    assert (await client.conversations_members(channel="C0MESH"))["members"] == sorted(["U0ANA", "U0BEN", "U0KIM", BOT])
    made = (await client.conversations_create(name="inc-1_a"))["channel"]
    assert (made["creator"], made["is_member"], made["num_members"]) == (BOT, True, 1)
    for name, error in {
        "": "invalid_name_required",
        "a" * 81: "invalid_name_maxlength",
        "Inc": "invalid_name_specials",
        "a b": "invalid_name_specials",
        "--": "invalid_name_punctuation",
        "mesh": "name_taken",
        "inc-1_a": "name_taken",
    }.items():
        assert (await refused(client.conversations_create(name=name)))["error"] == error
    assert (await refused(client.conversations_create(name="secret", is_private=True)))["needed"] == "groups:write"
    assert (await client.conversations_invite(channel=made["id"], users="U0ANA,U0BEN"))["channel"]["num_members"] == 3
    for users, error in {"U0ANA": "already_in_channel", BOT: "cant_invite_self", "U0NONE": "user_not_found", "": "no_user"}.items():
        assert (await refused(client.conversations_invite(channel=made["id"], users=users)))["error"] == error
    topic = (await client.conversations_setTopic(channel=made["id"], topic="95 %"))["channel"]["topic"]
    assert topic["value"] == "95 %"
    assert (await refused(client.conversations_setTopic(channel=made["id"], topic="x" * 251)))["error"] == "too_long"
    slack.archive(made["id"])
    for call in (
        client.conversations_setTopic(channel=made["id"], topic="x"),
        client.conversations_invite(channel=made["id"], users="U0KIM"),
    ):
        assert (await refused(call))["error"] == "is_archived"
    direct = (await client.conversations_open(users="U0ANA"))["channel"]["id"]
    await client.chat_postMessage(channel="U0ANA", text="hello")
    assert [one.text for one in slack.messages("@ana")] == ["hello"]
    assert slack.messages("@ana")[0].channel == direct
    assert (await refused(client.conversations_open(users="U0NONE")))["error"] == "user_not_found"


async def test_people_and_groups_are_listed_and_groups_need_a_paid_plan(slack: LocalSlack, client: AsyncWebClient):
    assert (await client.users_info(user="U0ANA"))["user"]["tz"] == "Europe/Berlin"
    assert (await refused(client.users_info(user="U0NONE")))["error"] == "user_not_found"
    assert len((await client.users_list())["members"]) == 4
    assert (await client.usergroups_users_list(usergroup="S0SRE"))["users"] == ["U0ANA", "U0BEN"]
    assert (await refused(client.usergroups_users_list(usergroup="S1")))["error"] == "no_such_subteam"
    slack.api.paid_plan = False
    assert (await refused(client.usergroups_list()))["error"] == "plan_upgrade_required"


async def test_arguments_arrive_as_json_form_or_query_and_nonsense_is_refused(slack: LocalSlack):
    headers = {"Authorization": f"Bearer {slack.bot_token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        blocks = json.dumps([section("form")])

        async def call(method: str, **how: Any) -> Json:
            async with session.post(f"{slack.base_url}{method}", **how) as answer:
                return dict(await answer.json())

        assert (await call("chat.postMessage", data={"channel": "#mesh", "blocks": blocks}))["ok"]
        assert (await call("chat.postMessage", json={"channel": "#mesh", "text": "json"}))["ok"]
        assert (await call("chat.postMessage", params={"channel": "#mesh", "text": "query"}))["ok"]
        assert (await call("chat.postMessage", data="{", headers={"Content-Type": "application/json"}))["error"] == "invalid_json"
        assert (await call("chat.postMessage", json=[1]))["error"] == "json_not_object"
        assert (await call("chat.postmessage"))["error"] == "unknown_method"
        assert (await call("chat.postMessage", json={"text": "x"}))["response_metadata"]["messages"] == [
            "[ERROR] missing required field: channel"
        ]
    assert [one.words for one in slack.messages("#mesh")] == ["form", "json", "query"]


async def test_blocks_validate_names_pointer_and_reason_without_a_token(slack: LocalSlack):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{slack.base_url}blocks.validate", json={"blocks": [section("")]}) as answer,
    ):
        told = await answer.json()
    assert told["error"] == "invalid_blocks"
    assert told["errors"][-1] == {"code": "failed_constraint", "message": "must be more than 0 characters", "pointer": "/0/text/text"}


# 3.2: rates.


async def test_one_channel_takes_a_short_burst_and_then_one_post_a_second():
    clock = Clock()
    async with running(clock=clock) as slack:
        client = web(slack)
        for _ in range(5):
            await client.chat_postMessage(channel="#mesh", text="x")
        answer = await refused(client.chat_postMessage(channel="#mesh", text="x"))
        assert (answer["status"], answer["error"], answer["headers"]["Retry-After"]) == (429, "ratelimited", "1")
        await client.chat_postMessage(channel="#ops", text="another channel has its own bucket")
        clock.now += 1
        await client.chat_postMessage(channel="#mesh", text="x")
        assert (await refused(client.chat_postMessage(channel="C0MESH", text="x")))["error"] == "ratelimited"
        assert len(slack.messages("#mesh")) == 6


@pytest.mark.parametrize(
    ("method", "args", "tier"),
    [
        ("chat.update", {"channel": "C0MESH", "ts": "1.1", "text": "x"}, 50),
        ("conversations.replies", {"channel": "C0MESH", "ts": "1.1"}, 50),
        ("views.publish", {"user_id": "U0ANA", "view": {"type": "home", "blocks": []}}, 100),
        ("chat.postEphemeral", {"channel": "#mesh", "user": "U0ANA", "text": "x"}, 100),
        ("usergroups.list", {}, 20),
        ("conversations.list", {}, 20),
    ],
)
async def test_a_method_has_its_tier_and_tells_when_it_may_be_called_again(method: str, args: Json, tier: int):
    clock = Clock()
    async with running(clock=clock) as slack:
        for _ in range(tier):
            assert (await slack.api.answer(method, args, slack.bot_token))[0] == 200
        answer = await refused(web(slack).api_call(method, json=args))
        assert (answer["status"], answer["headers"]["Retry-After"]) == (429, str(-(-60 // tier)))
        clock.now += -(-60 // tier)
        assert (await slack.api.answer(method, args, slack.bot_token))[0] == 200


async def test_connections_are_opened_ten_at_once_and_then_one_a_minute():
    clock = Clock()
    async with running(clock=clock) as slack:
        client = web(slack)
        for _ in range(10):
            await client.apps_connections_open(app_token=slack.app_token)
        answer = await refused(client.apps_connections_open(app_token=slack.app_token))
        assert (answer["error"], answer["headers"]["Retry-After"]) == ("ratelimited", "60")


async def test_the_sdks_own_retry_waits_for_retry_after():
    async with running() as slack:
        client = web(slack)
        client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
        slack.fault("chat.postMessage", retry_after=1)
        before = time.monotonic()
        await client.chat_postMessage(channel="#mesh", text="x")
        assert time.monotonic() - before >= 1
        assert len(slack.messages("#mesh")) == 1


# Faults.


async def test_the_next_calls_of_a_method_fail_as_they_are_told(client: AsyncWebClient, slack: LocalSlack):
    slack.fault("chat.postMessage", status=500)
    slack.fault("chat.postMessage", error="restricted_action_thread_only_channel", times=2)
    slack.fault("chat.postMessage", retry_after=30)
    slack.fault("chat.postMessage")
    told = []
    for _ in range(4):
        answer = await refused(client.chat_postMessage(channel="#mesh", text="x"))
        told.append((answer["status"], answer["error"]))
    assert told == [(500, "internal_error"), *[(200, "restricted_action_thread_only_channel")] * 2, (429, "ratelimited")]
    with pytest.raises(aiohttp.ClientError):
        await client.chat_postMessage(channel="#mesh", text="x")
    assert slack.messages("#mesh") == []
    slack.fault("chat.postMessage", delay=0.05)
    await client.chat_postMessage(channel="#mesh", text="slow")
    slack.fault("chat.postMessage", applied=True, status=500)
    await refused(client.chat_postMessage(channel="#mesh", text="done, though it said 500"))
    assert len(slack.messages("#mesh")) == 2
    assert [method for method, _ in slack.calls].count("chat.postMessage") == 7


# 3.1: Socket Mode, commands, events, interactions.


async def test_a_command_is_acknowledged_and_answered_to_one_person(slack: LocalSlack, app: AsyncApp):
    @app.command("/mesh")
    async def mesh(ack: Any, respond: Any, command: Json) -> None:
        await ack("looking …")
        await respond(f"{command['text']} by {command['user_id']} in {command['channel_id']}")

    async with connected(slack, app):
        await slack.command("/mesh why payments @ben #ops", user="ana", channel="#payments")
        await slack.until(lambda: len(slack.ephemerals("ana")) == 2)
    assert {one.text for one in slack.ephemerals("ana")} == {
        "looking …",
        "why payments <@U0BEN|ben> <#C0OPS|ops> by U0ANA in C0PAYMENTS",
    }  # the two race, as they do in Slack
    assert slack.messages("#payments") == []


async def test_a_person_is_told_when_the_app_is_slow_away_or_does_not_have_the_command(slack: LocalSlack, app: AsyncApp):
    @app.command("/mesh")
    async def mesh() -> None:
        await asyncio.sleep(0.3)  # no ack

    await slack.command("why x")
    slack.delivery.ack_seconds = 0.1
    async with connected(slack, app):
        await slack.command("why x")
    await slack.command("/other x")
    told = slack.ephemerals("ana")
    assert {one.user for one in told} == {SLACKBOT}
    assert [one.text for one in told] == [
        '/mesh failed with the error "dispatch_failed"',
        '/mesh failed with the error "operation_timeout"',
        "/other is not a valid command.",
    ]


async def test_an_answer_that_slack_cannot_show_is_an_invalid_command_response(slack: LocalSlack, app: AsyncApp):
    @app.command("/mesh")
    async def mesh(ack: Any) -> None:
        await ack(text="t", blocks=[section("x" * 3001)])

    async with connected(slack, app):
        await slack.command("why x")
    assert slack.ephemerals("ana")[0].text == '/mesh failed with the error "invalid_command_response"'


async def test_a_response_url_works_five_times_for_half_an_hour():
    clock = Clock()
    async with running(clock=clock) as slack:
        urls: list[str] = []
        app = app_of(slack)

        @app.command("/mesh")
        async def mesh(ack: Any, command: Json) -> None:
            urls.append(command["response_url"])
            await ack()

        async with connected(slack, app):
            await slack.command("why x")
            await slack.command("why y")
        hook = AsyncWebhookClient(urls[0])
        assert [(await hook.send(text=str(n))).status_code for n in range(6)] == [200] * 5 + [404]
        assert "used_url" in (await hook.send(text="x")).body
        clock.now += 1801
        late = await AsyncWebhookClient(urls[1]).send(text="x")
        assert (late.status_code, "expired_url" in late.body) == (404, True)
        assert len(slack.ephemerals("ana")) == 5


async def test_a_response_url_is_the_only_way_to_change_an_ephemeral_message(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    seen: list[Json] = []

    @app.action("share")
    async def share(ack: Any, respond: Any, body: Json) -> None:
        await ack()
        seen.append(body)
        await respond(response_type="in_channel", text="shared")
        await respond(replace_original=True, text="You shared it.")
        await respond(delete_original=True)

    await client.chat_postEphemeral(channel="#mesh", user="U0ANA", text="t", blocks=actions(button(action_id="share", value="h1")))
    (whisper,) = slack.ephemerals("ana")
    async with connected(slack, app):
        await slack.click(whisper, "share")
        await slack.until(lambda: whisper.deleted)
    assert (whisper.text, whisper.blocks) == ("You shared it.", [])
    assert [one.text for one in slack.messages("#mesh")] == ["shared"]
    assert (seen[0]["container"]["is_ephemeral"], "message" in seen[0], seen[0]["actions"][0]["value"]) == (True, False, "h1")


async def test_a_click_carries_what_was_chosen_where_and_by_whom(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    seen: list[Json] = []

    @app.action({"block_id": "b"})
    async def chosen(ack: Any, body: Json) -> None:
        await ack()
        seen.append(body)

    menu = {"type": "static_select", "action_id": "assign", "options": [option("Ana", "U0ANA"), option("Ben", "U0BEN")]}
    more = {"type": "overflow", "action_id": "more", "options": [option("Export", "csv")]}
    posted = await client.chat_postMessage(channel="#mesh", text="t", blocks=[{**actions(menu, more)[0], "block_id": "b"}])
    (message,) = slack.messages("#mesh")
    async with connected(slack, app):
        await slack.click(message, "assign", user="ben", choose="U0BEN")
        await slack.click(message, "more", choose="csv")
        with pytest.raises(KeyError):
            await slack.click(message, "assign", choose="U0NONE")
        with pytest.raises(KeyError):
            await slack.click(message, "gone")
    assert [one["actions"][0]["selected_option"]["value"] for one in seen] == ["U0BEN", "csv"]
    assert (seen[0]["user"]["id"], seen[0]["message"]["ts"], seen[0]["channel"]["id"]) == ("U0BEN", posted["ts"], "C0MESH")


async def test_a_click_that_nobody_acknowledges_is_not_sent_again(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    slack.delivery.ack_seconds = 0.1
    seen: list[int] = []

    @app.action("a")
    async def pressed() -> None:
        seen.append(1)
        await asyncio.sleep(0.3)

    await client.chat_postMessage(channel="#mesh", text="t", blocks=actions(button(action_id="a")))
    async with connected(slack, app):
        await slack.click(slack.messages("#mesh")[0], "a")
        await asyncio.sleep(0.2)
    assert (seen, slack.ephemerals("ana")[0].user) == ([1], SLACKBOT)


async def test_a_modal_is_opened_checked_corrected_and_submitted(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    submitted: list[Json] = []
    view = modal(
        callback_id="ack",
        submit=plain("Go"),
        blocks=[text_input(), {**text_input(block_id="n", optional=True), "element": {"type": "plain_text_input", "action_id": "n"}}],
    )

    @app.action("open")
    async def opened(ack: Any, body: Json) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=view)

    @app.view("ack")
    async def checked(ack: Any, view: Json) -> None:
        submitted.append(view["state"]["values"])
        if view["state"]["values"]["b"]["a"]["value"] == "no":
            await ack(response_action="errors", errors={"b": "Say why."})
        else:
            await ack()

    await client.chat_postMessage(channel="#mesh", text="t", blocks=actions(button(action_id="open")))
    async with connected(slack, app):
        await slack.click(slack.messages("#mesh")[0], "open")
        (shown,) = await slack.until(lambda: slack.views("ana"))
        await slack.submit(shown, {})
        assert shown.errors == {"b": "Please complete this required field."}
        assert submitted == []
        await slack.submit(shown, {"a": "no"})
        assert shown.errors == {"b": "Say why."}
        await slack.submit(shown, {"a": "because"})
    assert slack.views("ana") == []
    assert submitted[-1] == {
        "b": {"a": {"type": "plain_text_input", "value": "because"}},
        "n": {"n": {"type": "plain_text_input", "value": None}},
    }


async def test_a_submission_may_update_push_or_clear(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    answers: list[Json] = [
        {"response_action": "update", "view": modal(title=plain("two"), submit=plain("s"), callback_id="c")},
        {"response_action": "push", "view": modal(title=plain("three"), submit=plain("s"), callback_id="c")},
        {"response_action": "update", "view": modal(title=plain("x" * 25), callback_id="c")},
        {"response_action": "clear"},
    ]

    @app.view("c")
    async def answered(ack: Any) -> None:
        await ack(**answers.pop(0))

    async with connected(slack, app):
        await client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=modal(submit=plain("s"), callback_id="c"))
        titles = []
        for _ in range(3):
            await slack.submit(slack.views("ana")[-1])
            titles.append([one.payload["title"]["text"] for one in slack.views("ana")])
        assert slack.views("ana")[-1].errors == {"": "We had some trouble connecting. Try again?"}
        await slack.submit(slack.views("ana")[-1])
    assert titles == [["two"], ["two", "three"], ["two", "three"]]
    assert slack.views("ana") == []


async def test_a_closed_modal_is_told_when_it_asks_so(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    closed: list[str] = []

    @app.view_closed("c")
    async def told(ack: Any, view: Json) -> None:
        await ack()
        closed.append(view["callback_id"])

    async with connected(slack, app):
        await client.views_open(trigger_id=slack.api.trigger("U0ANA"), view=modal(callback_id="c", notify_on_close=True))
        await slack.close(slack.views("ana")[0])
    assert (closed, slack.views("ana")) == (["c"], [])


async def test_mentions_direct_messages_the_home_tab_and_shortcuts_arrive(slack: LocalSlack, app: AsyncApp):
    seen: list[str] = []

    @app.event("app_mention")
    async def mentioned(event: Json, say: Any) -> None:
        seen.append(f"mention {event['text']}")
        await say("here", thread_ts=event.get("thread_ts") or event["ts"])

    @app.event("message")
    async def written(event: Json) -> None:
        seen.append(f"{event['channel_type']} {event['text']}")

    @app.event("app_home_opened")
    async def opened(event: Json) -> None:
        seen.append(f"home {event['user']}")

    @app.shortcut("explain")
    async def explained(ack: Any, shortcut: Json) -> None:
        await ack()
        seen.append(f"{shortcut['type']} {shortcut['message']['text']}")

    async with connected(slack, app):
        root = await slack.say("503 no healthy upstream", user="ben")
        await slack.mention("why?", thread_ts=root.ts)
        await slack.until(lambda: [one.text for one in slack.thread("#mesh", root.ts)][-1] == "here")
        await slack.dm("why payments")
        await slack.open_home()
        await slack.shortcut("explain", root)
        await slack.until(lambda: len(seen) == 4)
        await slack.say("nobody is meant")
    assert sorted(seen) == ["home U0ANA", "im why payments", "mention <@U0MESHWHY> why?", "message_action 503 no healthy upstream"]


async def test_an_external_select_gets_its_options_from_the_app_and_no_more_than_100(
    slack: LocalSlack, app: AsyncApp, client: AsyncWebClient
):
    @app.options("host")
    async def hosts(ack: Any, payload: Json) -> None:
        await ack(options=[option(f"{payload['value']}{n}", str(n)) for n in range(101 if payload["value"] == "many" else 2)])

    await client.chat_postMessage(channel="#mesh", text="t", blocks=actions({"type": "external_select", "action_id": "host"}))
    (message,) = slack.messages("#mesh")
    async with connected(slack, app):
        assert [one["text"]["text"] for one in await slack.suggest(message, "host", "pay")] == ["pay0", "pay1"]
        assert await slack.suggest(message, "host", "many") == []


async def test_an_event_that_is_not_acknowledged_comes_again_with_its_number(slack: LocalSlack, app: AsyncApp):
    slack.delivery.ack_seconds, slack.delivery.retries = 0.1, (0.0, 0.05, 0.05)
    seen: list[tuple[int, str, str]] = []
    handler = AsyncSocketModeHandler(app, slack.app_token)

    async def deaf(_: Any, request: Any) -> None:  # takes the envelope and never acknowledges
        seen.append((request.retry_attempt, request.retry_reason, request.payload["event_id"]))

    handler.client.socket_mode_request_listeners = [deaf]
    await handler.connect_async()
    await slack.until(lambda: slack.connected)
    await slack.mention("why")
    await slack.until(lambda: len(seen) == 4)
    await handler.close_async()
    assert [one[:2] for one in seen] == [(0, ""), (1, "timeout"), (2, "timeout"), (3, "timeout")]
    assert len({one[2] for one in seen}) == 1


async def test_above_the_hourly_cap_events_are_replaced_by_a_notice(slack: LocalSlack, app: AsyncApp):
    slack.delivery.events_per_hour = 2
    kinds: list[str] = []
    handler = AsyncSocketModeHandler(app, slack.app_token)

    async def listen(client: Any, request: Any) -> None:
        kinds.append(request.payload["type"])
        await client.send_socket_mode_response({"envelope_id": request.envelope_id})

    handler.client.socket_mode_request_listeners = [listen]
    await handler.connect_async()
    await slack.until(lambda: slack.connected)
    for _ in range(5):
        await slack.mention("why")
    await asyncio.sleep(0.1)
    await handler.close_async()
    assert sorted(kinds) == ["app_rate_limited", "event_callback", "event_callback"]


async def test_ten_connections_share_the_payloads_and_an_eleventh_is_sent_away(slack: LocalSlack):
    got: dict[int, int] = dict.fromkeys(range(10), 0)

    async def answer(number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            envelope = frame.json()
            if "envelope_id" in envelope:
                got[number] += 1
                await socket.send_json({"envelope_id": envelope["envelope_id"]})

    async with aiohttp.ClientSession() as session:
        sockets = []
        for number in range(11):
            url = (await web(slack).apps_connections_open(app_token=slack.app_token))["url"]
            sockets.append(await session.ws_connect(url))
            hello = await sockets[-1].receive_json()
            expected = (
                {"type": "hello", "num_connections": number + 1} if number < 10 else {"type": "disconnect", "reason": "too_many_websockets"}
            )
            assert expected.items() <= hello.items()
        tasks = [asyncio.create_task(answer(number, socket)) for number, socket in enumerate(sockets[:10])]
        for _ in range(60):
            await slack.command("help")
        await slack.stop()
        await asyncio.gather(*tasks)
    assert sum(got.values()) == 60
    assert sum(count > 0 for count in got.values()) >= 5


async def test_a_link_opens_one_connection(slack: LocalSlack):
    url = (await web(slack).apps_connections_open(app_token=slack.app_token))["url"]
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url) as socket:
            assert (await socket.receive_json())["type"] == "hello"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)


async def test_debug_reconnects_shortens_a_connections_life(slack: LocalSlack):
    slack.delivery.debug_life = 0.2
    url = (await web(slack).apps_connections_open(app_token=slack.app_token))["url"]
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}&debug_reconnects=true") as socket:
        frames = [frame.json() async for frame in socket]
    assert [(one["type"], one.get("reason")) for one in frames] == [
        ("hello", None),
        ("disconnect", "warning"),
        ("disconnect", "refresh_requested"),
    ]


@pytest.mark.parametrize("how", ["refresh", "cut"])
async def test_the_sdk_returns_after_a_refresh_and_after_a_cut(slack: LocalSlack, app: AsyncApp, how: str):
    seen: list[str] = []

    @app.command("/mesh")
    async def mesh(ack: Any, command: Json) -> None:
        seen.append(command["text"])
        await ack()

    async with connected(slack, app, ping=0.2):
        (old,) = slack.delivery.connections
        await (slack.refresh() if how == "refresh" else slack.cut())
        await slack.until(lambda: slack.delivery.connections and old not in slack.delivery.connections)
        await slack.command("why x")
    assert seen == ["why x"]


async def test_a_half_open_connection_swallows_everything_until_the_sdk_notices(slack: LocalSlack, app: AsyncApp):
    seen: list[str] = []

    @app.command("/mesh")
    async def mesh(ack: Any, command: Json) -> None:
        seen.append(command["text"])
        await ack()

    slack.delivery.ack_seconds = 0.1
    async with connected(slack, app, ping=0.3):
        (old,) = slack.delivery.connections
        slack.half_open()
        await slack.command("lost")
        assert (seen, slack.ephemerals("ana")[0].text) == ([], '/mesh failed with the error "operation_timeout"')
        await slack.until(lambda: slack.delivery.connections and old not in slack.delivery.connections, timeout_s=10)
        slack.delivery.ack_seconds = 1.0
        await slack.command("heard")
    assert seen == ["heard"]


async def test_a_disabled_link_ends_every_connection_and_allows_no_new_one(slack: LocalSlack):
    client = web(slack)
    url = (await client.apps_connections_open(app_token=slack.app_token))["url"]
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.receive_json()
        await slack.disable_socket_mode()
        assert (await socket.receive_json())["reason"] == "link_disabled"
    assert (await refused(client.apps_connections_open(app_token=slack.app_token)))["ok"] is False


# Signed requests instead of Socket Mode.


class _RequestUrl:
    """An app behind a request URL: Bolt with its signature check, on a real HTTP server."""

    def __init__(self, app: AsyncApp) -> None:
        self.app, self.requests, self.fail = app, list[http.Request](), 0

    async def __aenter__(self) -> str:
        server = http.Application()
        server.router.add_post("/slack/events", self._serve)
        self.runner = http.AppRunner(server)
        await self.runner.setup()
        site = http.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/slack/events"

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def _serve(self, request: http.Request) -> http.Response:
        self.requests.append(request)
        body = await request.text()
        if self.fail:
            self.fail -= 1
            return http.Response(status=503, headers={"X-Slack-No-Retry": "1"} if self.fail == 90 else {})
        answer = await self.app.async_dispatch(
            AsyncBoltRequest(body=body, headers={name: [value] for name, value in request.headers.items()})
        )
        return http.Response(
            status=answer.status,
            text=answer.body,
            content_type=answer.first_headers_without_set_cookie().get("content-type", "text/plain").partition(";")[0],
        )


async def test_an_app_behind_a_request_url_gets_signed_commands_clicks_and_events(slack: LocalSlack, app: AsyncApp, client: AsyncWebClient):
    seen: list[str] = []

    @app.command("/mesh")
    async def mesh(ack: Any, command: Json) -> None:
        seen.append(command["text"])
        await ack("looking …")

    @app.action("a")
    async def pressed(ack: Any) -> None:
        await ack()
        seen.append("pressed")

    @app.event("app_mention")
    async def mentioned() -> None:
        seen.append("mentioned")

    await client.chat_postMessage(channel="#mesh", text="t", blocks=actions(button(action_id="a")))
    behind = _RequestUrl(app)
    async with behind as url:
        await slack.use_requests(url)
        await slack.command("why x")
        await slack.click(slack.messages("#mesh")[0], "a")
        await slack.mention("why")
        await slack.until(lambda: len(seen) == 3)
        assert slack.ephemerals("ana")[0].text == "looking …"
        stolen = {"X-Slack-Signature": "v0=00", "X-Slack-Request-Timestamp": str(int(time.time()))}
        async with aiohttp.ClientSession() as session, session.post(url, data="command=%2Fmesh", headers=stolen) as answer:
            assert answer.status == 401
    assert seen == ["why x", "pressed", "mentioned"]


async def test_a_signature_is_the_hmac_of_version_time_and_body(slack: LocalSlack, app: AsyncApp):
    received: list[tuple[str, str, str]] = []

    async def keep(request: http.Request) -> http.Response:
        received.append((request.headers["X-Slack-Request-Timestamp"], await request.text(), request.headers["X-Slack-Signature"]))
        return http.Response()

    behind = _RequestUrl(app)
    behind._serve = keep  # type: ignore[method-assign]
    async with behind as url:
        slack.delivery.request_url = url
        await slack.command("why x")
    ((stamp, body, signature),) = received
    assert signature == "v0=" + hmac.new(slack.signing_secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()


async def test_events_over_http_are_retried_with_number_and_reason_unless_the_app_says_no(slack: LocalSlack, app: AsyncApp):
    slack.delivery.retries = (0.0, 0.01, 0.01)

    @app.event("app_mention")
    async def mentioned() -> None:
        pass

    behind = _RequestUrl(app)
    async with behind as url:
        await slack.use_requests(url)
        behind.requests.clear()
        behind.fail = 2
        await slack.mention("why")
        await slack.until(lambda: len(behind.requests) == 3)
        told = [(one.headers.get("X-Slack-Retry-Num"), one.headers.get("X-Slack-Retry-Reason")) for one in behind.requests]
        assert told == [(None, None), ("1", "http_error"), ("2", "http_error")]
        behind.requests.clear()
        behind.fail = 91
        await slack.mention("why")
        await asyncio.sleep(0.15)
        assert len(behind.requests) == 1


async def test_a_request_url_must_answer_the_challenge(slack: LocalSlack):
    with pytest.raises(NotAcknowledged):
        await slack.use_requests("http://127.0.0.1:1/slack/events")
    assert not slack.connected
    await slack.command("why x")
    assert slack.ephemerals("ana")[0].text == '/mesh failed with the error "dispatch_failed"'


# The workspace answers on this machine only.


async def test_another_name_or_another_sites_page_is_turned_away(slack: LocalSlack):
    async with aiohttp.ClientSession() as session:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            async with session.get(slack.page_url, headers=headers) as answer:
                assert answer.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{slack.page_url}live", headers={"Origin": "https://evil.example"})
        async with session.get(f"{slack.page_url}page/..%2Fslack.py") as answer:
            assert answer.status == 404


async def test_until_wakes_at_a_change_and_gives_up_in_time(slack: LocalSlack, client: AsyncWebClient):
    waiting = asyncio.create_task(slack.until(lambda: slack.messages("#mesh")))
    await asyncio.sleep(0)
    await client.chat_postMessage(channel="#mesh", text="x")
    assert (await waiting)[0].text == "x"
    with pytest.raises(TimeoutError):
        await slack.until(lambda: False, timeout_s=0.01)


def test_no_text_ever_becomes_markup():
    for script in PAGE.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", script.read_text()), (
            script
        )


async def test_the_page_may_load_and_ask_only_its_own_server(slack: LocalSlack):
    async with aiohttp.ClientSession() as session, session.get(slack.page_url) as page:
        policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; ")
    assert "unsafe" not in policy


def test_the_app_is_installed_as_its_manifest_says():
    manifest = yaml.safe_load((Path(__file__).parent.parent / "manifest.yaml").read_text())
    assert MANIFEST["oauth_config"] == manifest["oauth_config"]
    assert MANIFEST["settings"]["event_subscriptions"]["bot_events"] == manifest["settings"]["event_subscriptions"]["bot_events"]
    assert MANIFEST["features"]["app_home"].items() <= manifest["features"]["app_home"].items()
    assert MANIFEST["features"]["slash_commands"] == manifest["features"]["slash_commands"]
