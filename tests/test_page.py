"""The page of the local workspace in a real browser: what a person sees, clicks and types, by mouse and by keyboard."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import resvg_py
from playwright.async_api import async_playwright, expect

from bot.demo.slack import DemoButton
from templates import messages
from tests.localslack import app_of, connected, running, web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page
    from slack_bolt.app.async_app import AsyncApp

    from bot.demo.slack import LocalSlack

Json = dict[str, Any]
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed (apt-get install chromium)"),
    pytest.mark.asyncio(loop_scope="module"),  # one browser for all of them
]
HOSTILE = "<!channel><img src=x onerror=\"document.title='pwned'\"><@U0ANA>"
PNG = bytes(
    resvg_py.svg_to_bytes(
        svg_string='<svg xmlns="http://www.w3.org/2000/svg" width="96" height="42"><rect width="96" height="42" fill="teal"/></svg>'
    )
)


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def section(text: str, **more: Any) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def button(label: str, action: str, **more: Any) -> Json:
    return {"type": "button", "text": plain(label), "action_id": action, **more}


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


@pytest.fixture
def deployed() -> list[str]:
    return []


@pytest_asyncio.fixture(loop_scope="module")
async def slack(deployed: list[str]) -> AsyncIterator[LocalSlack]:
    async def deploy() -> None:
        deployed.append("v1")

    async def fail() -> None:
        raise RuntimeError("no such cluster")

    buttons = [DemoButton("Deploy v1", deploy), DemoButton("Remove v1", fail)]
    async with running(enforce_rates=False, buttons=buttons) as slack:
        yield slack


@pytest.fixture
def app(slack: LocalSlack) -> AsyncApp:
    return app_of(slack)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    off = ("gpu", "quic", "background-networking", "component-update", "sync")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-first-run", *(f"--disable-{one}" for one in off)]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(slack: LocalSlack, browser: Browser) -> AsyncIterator[Page]:
    """The page in a fresh profile; a script error or a blocked resource fails the test."""
    page = await browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(10_000)
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on(
        "console", lambda message: broken.append(message.text) if message.type == "error" and "ERR_CONNECTION" not in message.text else None
    )
    await page.goto(slack.page_url)
    await page.wait_for_selector("body.ready")
    yield page
    await page.close()
    assert broken == []


async def test_a_command_is_completed_by_keyboard_and_answered_only_to_its_person(slack: LocalSlack, app: AsyncApp, page: Page):
    @app.command("/mesh")
    async def mesh(ack: Any, respond: Any, command: Json) -> None:
        await ack()
        await respond(text="t", blocks=[section(f"*95 %* of `{command['text']}` fails"), actions(button("Share in channel", "share"))])

    @app.action("share")
    async def share(ack: Any, respond: Any) -> None:
        await ack()
        await respond(response_type="in_channel", text="shared by <@U0ANA>")

    async with connected(slack, app):
        await expect(page.locator("#app")).to_have_text("● meshwhy is connected")
        await page.locator("#composer").press_sequentially("/m")
        await expect(page.locator("#composer-offers li")).to_have_text(
            [
                "/mesh why HOST",
                "/mesh routes HOST",
                "/mesh changes HOST",
                "/mesh broken ",
                "/mesh whatif ",
                "/mesh alerts ",
                "/mesh ack HOST",
                "/mesh silence HOST 2h WHY",
                "/mesh handover HOST @PERSON",
                "/mesh note HOST TEXT",
                "/mesh resolve HOST WHY",
                "/mesh reopen HOST",
                "/mesh escalate HOST WHY",
                "/mesh incident HOST",
                "/mesh clusters ",
                "/mesh explain CODE or ERROR",
                "/mesh audit ",
                "/mesh help ",
            ]
        )
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#composer-offers [aria-selected=true]")).to_have_text("/mesh routes HOST")
        await page.keyboard.press("ArrowUp")
        await page.keyboard.press("Tab")
        await expect(page.locator("#composer")).to_have_value("/mesh why ")
        await page.keyboard.type("payments.core")
        await page.keyboard.press("Enter")
        answer = page.locator("article.ephemeral")
        await expect(answer).to_contain_text("Only visible to you")
        await expect(answer.locator("strong", has_text="95 %")).to_be_visible()
        await expect(answer.locator("code")).to_have_text("why payments.core")
        await answer.get_by_role("button", name="Share in channel").click()
        await expect(page.locator("#messages article").last).to_contain_text("shared by @ana")
        await page.get_by_label("You are").select_option("ben")
        await expect(page.locator("article.ephemeral")).to_have_count(0)
        await expect(page.locator("#messages article")).to_have_count(1)
        await page.get_by_label("You are").select_option("ana")
        await page.get_by_role("button", name="Dismiss").click()
        await expect(page.locator("article.ephemeral")).to_have_count(0)
    await expect(page.locator("#app")).to_have_text("○ meshwhy is not connected")


async def test_the_end_of_a_channel_stays_in_view_while_pictures_grow_it_and_an_answer_is_always_shown(
    slack: LocalSlack, app: AsyncApp, page: Page
):
    @app.command("/mesh")
    async def mesh(ack: Any, respond: Any) -> None:
        await ack()
        await respond(text="here it is")

    tall = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300"><rect width="400" height="300" fill="teal"/></svg>'
    for n in range(4):
        file = (await web(slack).files_upload_v2(content=bytes(resvg_py.svg_to_bytes(svg_string=tall)), filename=f"{n}.png"))["file"]
        image = {"type": "image", "alt_text": f"picture {n}", "image_url": file["url_private"]}
        await web(slack).chat_postMessage(channel="#mesh", text=f"t{n}", blocks=[section(f"message {n}"), image])
    await page.reload()
    await expect(page.get_by_alt_text("picture 3")).to_be_in_viewport(ratio=0.9)
    await page.locator("#messages").evaluate("box => { box.scrollTop = 0; }")
    await expect(page.get_by_text("message 0")).to_be_in_viewport()
    await web(slack).chat_postMessage(channel="#mesh", text="who reads above is left there")
    await expect(page.locator("#messages article")).to_have_count(5)
    await expect(page.get_by_text("message 0")).to_be_in_viewport()
    async with connected(slack, app):
        await page.locator("#composer").fill("/mesh why payments")
        await page.keyboard.press("Enter")
        await expect(page.locator("article.ephemeral")).to_be_in_viewport()


async def test_a_hostile_name_is_text_everywhere_and_pings_nobody(slack: LocalSlack, page: Page):
    escaped = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    cell = {"type": "raw_text", "text": HOSTILE}
    picture = await web(slack).files_upload_v2(content=PNG, filename="a.png")
    blocks = [
        {"type": "header", "text": plain(HOSTILE)},
        section(escaped, fields=[{"type": "mrkdwn", "text": f"`{escaped}`"}]),
        {"type": "table", "rows": [[cell], [cell]]},
        {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": HOSTILE}]}]},
        {
            "type": "context",
            "elements": [{"type": "plain_text", "text": HOSTILE}, {"type": "mrkdwn", "text": "<javascript:alert(1)|click me>"}],
        },
        {"type": "image", "alt_text": HOSTILE, "image_url": picture["file"]["url_private"]},
        actions(button(HOSTILE, "a"), {"type": "static_select", "action_id": "s", "options": [{"text": plain(HOSTILE), "value": "1"}]}),
    ]
    sent = await web(slack).chat_postMessage(channel="#mesh", text=escaped, blocks=blocks)
    article = page.locator(f"article[data-ts='{sent['ts']}']")
    await expect(article.locator("h3")).to_have_text(HOSTILE)
    await expect(article.locator("pre")).to_have_text(HOSTILE)
    await expect(article.locator("th")).to_have_text(HOSTILE)
    await expect(article.locator(".said > .text")).to_have_text(HOSTILE)
    await expect(article.locator("code")).to_have_text(HOSTILE)
    await expect(article.get_by_role("button", name=HOSTILE)).to_be_visible()
    assert await article.locator("img[onerror], [onclick], script, a[href^=javascript]").count() == 0
    assert await article.locator(".mention").count() == 0
    assert "pinged" not in (await article.get_attribute("class") or "")
    await page.wait_for_timeout(100)
    assert await page.title() == "#mesh · Local workspace"


async def test_a_real_mention_pings_and_counts_in_a_channel_that_is_not_open(slack: LocalSlack, page: Page):
    await web(slack).chat_postMessage(channel="#ops", text="<!channel> gateway down, <@U0ANA>")
    place = page.locator("[data-channel=C0OPS]")
    await expect(place.locator(".count")).to_have_text("1")
    await place.click()
    await expect(page.locator("article.pinged .mention.ping")).to_have_text(["@channel", "@ana"])
    await expect(place.locator(".count")).to_have_count(0)


async def test_every_part_of_mrkdwn_and_rich_text_is_drawn(slack: LocalSlack, page: Page):
    text = "*bold* _soft_ ~gone~ `a_b*c` 2*3*4 snake_case_name <https://e.example/a|label> <#C0OPS> <!subteam^S0SRE> :fire:\n&gt; said\n```x &lt; y```"
    await web(slack).chat_postMessage(channel="#mesh", text=f"{text} <!date^0^{{date_num}}|then>")
    body = page.locator("article .body")
    for tag, words in {
        "strong": "bold",
        "em": "soft",
        "s": "gone",
        "code": "a_b*c",
        "pre": "x < y",
        "blockquote": "said",
        "time": "1970-01-01",
    }.items():
        await expect(body.locator(tag)).to_have_text(words)
    await expect(body.locator("a[target=_blank]")).to_have_attribute("href", "https://e.example/a")
    await expect(body).to_contain_text("2*3*4 snake_case_name label #ops @sre 🔥")
    element = {
        "type": "rich_text_list",
        "style": "ordered",
        "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": "one", "style": {"bold": True}}]}],
    }
    await web(slack).chat_postMessage(channel="#mesh", text="t", blocks=[{"type": "rich_text", "elements": [element]}])
    await expect(page.locator("ol > li > span, ol > li strong").first).to_have_text("one")


async def test_an_alert_is_edited_in_place_and_its_thread_read_and_answered(slack: LocalSlack, app: AsyncApp, page: Page):
    @app.event("app_mention")
    async def mentioned(event: Json, say: Any) -> None:
        await say("`v1` has no endpoint", thread_ts=event["thread_ts"])

    client = web(slack)
    async with connected(slack, app):
        root = await client.chat_postMessage(channel="#mesh", text="t", blocks=[{"type": "header", "text": plain("95 % fails")}])
        await client.chat_postMessage(channel="#mesh", text="proof", thread_ts=root["ts"])
        await expect(page.locator("#messages article")).to_have_count(1)
        await page.get_by_role("button", name=re.compile("1 reply")).click()
        await expect(page.locator("#replies article")).to_have_count(2)
        await expect(page.locator("#thread-composer")).to_be_focused()
        await page.keyboard.type("/mesh why x")
        await page.keyboard.press("Enter")
        await expect(page.locator(".note")).to_contain_text("Slash commands do not exist in threads")
        await page.locator("#thread-composer").fill("@mesh")
        await page.keyboard.press("Tab")
        await page.keyboard.type("why")
        await page.keyboard.press("Enter")
        await expect(page.locator("#replies article").last).to_contain_text("v1 has no endpoint")
        await client.chat_update(
            channel="C0MESH", ts=root["ts"], text="t", blocks=[{"type": "header", "text": plain("Resolved after 12 min")}]
        )
        await expect(page.locator("#messages h3")).to_have_text("Resolved after 12 min")
        await expect(page.locator("#replies h3")).to_have_text("Resolved after 12 min")
        await page.keyboard.press("Escape")
        await expect(page.locator("#thread")).to_be_hidden()


async def test_buttons_ask_first_selects_choose_and_an_overflow_opens_by_keyboard(slack: LocalSlack, app: AsyncApp, page: Page):
    pressed: list[Any] = []

    @app.action(re.compile(".*"))
    async def act(ack: Any, action: Json) -> None:
        await ack()
        pressed.append((action["action_id"], action.get("selected_option", {}).get("value")))

    sure = {"title": plain("Silence?"), "text": plain("For an hour."), "confirm": plain("Silence"), "deny": plain("Cancel")}
    options = [{"text": plain(name), "value": name} for name in ("ana", "ben")]
    elements = [
        button("Silence", "silence", confirm=sure),
        {"type": "static_select", "action_id": "assign", "options": options},
        {"type": "overflow", "action_id": "more", "options": options},
    ]
    async with connected(slack, app):
        await web(slack).chat_postMessage(channel="#mesh", text="t", blocks=[actions(*elements)])
        await page.locator("#messages").get_by_role("button", name="Silence").click()
        await page.locator("#confirm").get_by_role("button", name="Cancel").click()
        await page.locator("#messages").get_by_role("button", name="Silence").click()
        await page.locator("#confirm").get_by_role("button", name="Silence").click()
        await slack.until(lambda: len(pressed) == 1)
        await page.locator("[data-action=assign]").select_option("ben")
        await slack.until(lambda: len(pressed) == 2)
        await page.locator("[data-action=more]").focus()
        for name in ("Enter", "ArrowDown", "Enter"):
            await page.keyboard.press(name)
        await slack.until(lambda: len(pressed) == 3)
    assert pressed == [("silence", None), ("assign", "ben"), ("more", "ben")]


async def test_the_dialog_for_a_change_takes_text_a_file_and_choices(slack: LocalSlack, app: AsyncApp, page: Page, tmp_path: Path):
    given: list[Json] = []

    @app.action("open")
    async def opened(ack: Any, body: Json, client: Any) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=messages.whatif_modal(["east", "west"], "kept"))

    @app.view(messages.WHATIF)
    async def submitted(ack: Any, view: Json) -> None:
        given.append({block: next(iter(values.values())) for block, values in view["state"]["values"].items()})
        await ack(response_action="errors", errors={messages.FILE: "It is empty."}) if len(given) == 1 else await ack()

    (tmp_path / "change.yaml").write_text("kind: Service\n")
    async with connected(slack, app):
        await web(slack).chat_postMessage(channel="#mesh", text="t", blocks=[actions(button("Change", "open"))])
        await page.get_by_role("button", name="Change").click()
        await page.get_by_label("Manifests").fill("a: 1\nb: 2")
        await page.get_by_label("Or a file").set_input_files(tmp_path / "change.yaml")
        await page.get_by_label("Where").select_option("west")
        await page.get_by_text("Weigh deleting these objects").click()
        await page.get_by_role("button", name="Weigh").click()
        await expect(page.get_by_role("alert")).to_have_text("It is empty.")
        await expect(page.locator("#modal")).to_contain_text("change.yaml")
        await page.get_by_role("button", name="Weigh").click()
        await expect(page.locator("#modal")).to_be_hidden()
    first, second = given
    for one in (first, second):
        assert one[messages.PASTED]["value"] == "a: 1\nb: 2"
        (file,) = one[messages.FILE]["files"]
        assert (file["name"], file["size"]) == ("change.yaml", 14)
        assert one[messages.CLUSTER]["selected_option"]["value"] == "west"
        assert [o["value"] for o in one[messages.DELETE]["selected_options"]] == [messages.DELETE]
    answer = await page.request.get(file["url_private"])
    assert "Sign in" in await answer.text()


async def test_a_modal_keeps_what_is_typed_while_it_is_corrected_and_closes_with_escape(slack: LocalSlack, app: AsyncApp, page: Page):
    said: list[str] = []
    block = {"type": "input", "block_id": "b", "label": plain("Why"), "element": {"type": "plain_text_input", "action_id": "a"}}
    view = {"type": "modal", "callback_id": "c", "title": plain("Acknowledge"), "submit": plain("Go"), "blocks": [block]}

    @app.action("open")
    async def opened(ack: Any, body: Json, client: Any) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=view)

    @app.view("c")
    async def checked(ack: Any, view: Json) -> None:
        said.append(view["state"]["values"]["b"]["a"]["value"])
        await ack(response_action="errors", errors={"b": "Say more."}) if len(said) == 1 else await ack()

    async with connected(slack, app):
        await web(slack).chat_postMessage(channel="#mesh", text="t", blocks=[actions(button("Ack", "open"))])
        await page.get_by_role("button", name="Ack").click()
        await page.get_by_role("button", name="Go").click()
        await expect(page.get_by_role("alert")).to_have_text("Please complete this required field.")
        await page.get_by_label("Why", exact=True).fill("mine")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Say more.")
        await expect(page.get_by_label("Why", exact=True)).to_have_value("mine")
        await expect(page.get_by_label("Why", exact=True)).to_be_focused()
        await page.get_by_label("Why", exact=True).press_sequentially(", really")
        await page.keyboard.press("Enter")
        await expect(page.locator("#modal")).to_be_hidden()
        await page.get_by_role("button", name="Ack").click()
        await expect(page.locator("#modal")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#modal")).to_be_hidden()
    assert said[0] == "mine"
    assert len(said) == 2
    assert slack.views("ana") == []


async def test_the_home_tab_and_a_message_shortcut_and_the_demo_buttons_work(
    slack: LocalSlack, app: AsyncApp, page: Page, deployed: list[str]
):
    explained: list[str] = []

    @app.event("app_home_opened")
    async def opened(event: Json, client: Any) -> None:
        await client.views_publish(
            user_id=event["user"], view={"type": "home", "blocks": [{"type": "header", "text": plain("2 clusters")}]}
        )

    @app.shortcut("explain")
    async def explain(ack: Any, shortcut: Json) -> None:
        await ack()
        explained.append(shortcut["message"]["text"])

    async with connected(slack, app):
        await slack.say("503 no healthy upstream", user="ben")
        await page.locator("#messages article").hover()
        await page.get_by_role("button", name="More message actions").click()
        await page.get_by_role("menuitem", name="Explain this error").click()
        await slack.until(lambda: explained == ["503 no healthy upstream"])
        await page.locator("[data-channel=D0ANA]").click()
        await page.get_by_role("tab", name="Home").click()
        await expect(page.locator("#home h3")).to_have_text("2 clusters")
        await page.get_by_role("button", name="Deploy v1").click()
        await slack.until(lambda: deployed == ["v1"])
        await page.get_by_role("button", name="Remove v1").click()
        await expect(page.locator(".note")).to_have_text("It failed: no such cluster")


async def test_an_upload_is_shown_with_its_alt_text_and_a_private_one_is_not(slack: LocalSlack, page: Page):
    slack.api.processing = 0
    client = web(slack)
    shared = await client.files_upload_v2(content=PNG, filename="route.png", title="The route", alt_txt="95 % to v1", channel="C0MESH")
    picture = page.get_by_role("img", name="95 % to v1")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("async (img) => { await img.decode(); return img.naturalWidth; }") == 96
    private = await client.files_upload_v2(content=PNG, filename="b.png")
    for upload, alt in ((shared, "in a block"), (private, "hidden")):
        await client.chat_postMessage(
            channel="#mesh", text="t", blocks=[{"type": "image", "alt_text": alt, "slack_file": {"id": upload["file"]["id"]}}]
        )
    await expect(page.get_by_role("img", name="in a block")).to_be_visible()
    await expect(page.locator(".private")).to_have_text("A private file is not shown: hidden")


async def test_a_permalink_opens_its_message_and_the_page_returns_after_the_workspace(slack: LocalSlack, page: Page):
    client = web(slack)
    root = await client.chat_postMessage(channel="#ops", text="root")
    reply = await client.chat_postMessage(channel="#ops", text="reply", thread_ts=root["ts"])
    link = (await client.chat_getPermalink(channel="C0OPS", message_ts=reply["ts"]))["permalink"]
    await page.goto(link)
    await expect(page.locator("#replies article").last).to_contain_text("reply")
    await expect(page.locator("#title")).to_have_text("#ops")
    port = int(slack.page_url.rstrip("/").rpartition(":")[2])
    await slack.stop()
    await expect(page.locator("body.lost")).to_be_attached()
    await slack.start(port=port)
    await expect(page.locator("body.lost")).not_to_be_attached(timeout=15_000)
    await client.chat_postMessage(channel="#ops", text="back")
    await expect(page.locator("#messages article").last).to_contain_text("back")


async def test_a_phone_shows_one_column_and_nothing_sticks_out(slack: LocalSlack, page: Page):
    long = "outbound|80|v1|destination.mynamespace.svc.cluster.local" * 3
    await web(slack).chat_postMessage(
        channel="#mesh", text="t", blocks=[section(f"`{long}`"), {"type": "table", "rows": [[{"type": "raw_text", "text": long}]]}]
    )
    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(page.locator("#messages article")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await expect(page.locator("#side")).to_be_hidden()
    await page.get_by_role("button", name="Channels").click()
    await page.locator("[data-channel=C0OPS]").click()
    await expect(page.locator("#title")).to_have_text("#ops")
    await expect(page.locator("#side")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_is_readable_in_both_colour_schemes(slack: LocalSlack, page: Page, scheme: Any):
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    blocks = [section("text `code` <https://e.example|link>"), {"type": "context", "elements": [{"type": "mrkdwn", "text": "small"}]}]
    await web(slack).chat_postMessage(channel="#mesh", text="t", blocks=blocks)
    await web(slack).chat_postEphemeral(channel="#mesh", user="U0ANA", text="psst")
    await web(slack).chat_postMessage(channel="#mesh", text="<!channel> ping")
    await expect(page.locator("article")).to_have_count(3)
    await page.mouse.move(0, 0)
    contrast = """(nodes) => nodes.map((node) => {
      const shade = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => { const c = part / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      let behind = node;
      while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)" && behind.parentElement) behind = behind.parentElement;
      const [light, dark] = [shade(getComputedStyle(node).color), shade(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
      return [node.textContent.slice(0, 20), (light + 0.05) / (dark + 0.05)];
    })"""
    wanted = ".body .text, .body code, .body a, .context .text, .only, article header time, .mention, #topic, .place, .keys, #app, .button.primary, .send"
    pale = [(text, round(ratio, 1)) for text, ratio in await page.locator(wanted).evaluate_all(contrast) if ratio < 4.5]
    assert pale == []


async def test_focus_and_an_open_menu_survive_what_happens_around_them(slack: LocalSlack, page: Page):
    client = web(slack)
    more = {"type": "overflow", "action_id": "more", "options": [{"text": plain(name), "value": name} for name in ("one", "two")]}
    first = await client.chat_postMessage(channel="#mesh", text="t", blocks=[section("x", accessory=more)])
    second = await client.chat_postMessage(channel="#mesh", text="t", blocks=[actions(button("Ack", "ack"))])
    await page.locator("[data-action=more]").click()
    await expect(page.get_by_role("menuitem", name="one")).to_be_focused()
    await client.chat_postMessage(channel="#mesh", text="news")
    await client.chat_update(channel="C0MESH", ts=second["ts"], text="t", blocks=[actions(button("Acked", "ack"))])
    await expect(page.locator("#messages article")).to_have_count(3)
    await expect(page.locator("[data-action=ack]")).to_have_text("Acked")
    await expect(page.get_by_role("menuitem", name="one")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.locator("[data-action=ack]").focus()
    await client.chat_update(channel="C0MESH", ts=second["ts"], text="t", blocks=[actions(button("Ack again", "ack"))])
    await expect(page.locator("[data-action=ack]")).to_have_text("Ack again")
    await expect(page.locator("[data-action=ack]")).to_be_focused()
    await client.chat_delete(channel="C0MESH", ts=first["ts"])
    await expect(page.locator("#messages article")).to_have_count(2)
    await page.locator("[data-channel=C0OPS]").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#title")).to_have_text("#ops")
    await expect(page.locator("[data-channel=C0OPS]")).to_be_focused()
