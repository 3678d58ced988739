"""The article's first incident as a person sees it who opens the demo's page: break, alert, runbook, escalate, mend, resolve, post-mortem.

With PICTURES=DIR the pictures of the README are taken on the way: `PICTURES=tests pytest tests/test_demo_story.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from bot.__main__ import serve
from bot.demo import envoy, runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.async_api import Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed (apt-get install chromium)"),
    pytest.mark.skipif(envoy.missing() is not None, reason=str(envoy.missing())),
]
HOST = "destination.mynamespace"


@pytest.fixture
def state() -> Iterator[Path]:
    """A place that a unix socket's path fits into."""
    place = Path(tempfile.mkdtemp(prefix="ms-"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


async def shot(page: Page, name: str) -> None:
    """A picture for the README, where one is wanted."""
    if (folder := os.environ.get("PICTURES")) is not None:
        await page.screenshot(path=Path(folder) / f"{name}.png")


async def test_the_incident_is_watched_from_the_alert_to_the_draft_of_its_post_mortem(state: Path):
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    demo = asyncio.create_task(runner.demo(serve, state, every_s=0, port=0, say=lambda page, _: address.set_result(page)))
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--no-first-run", "--disable-gpu"])
            page = await browser.new_page(viewport={"width": 1480, "height": 1180})
            page.set_default_timeout(20_000)
            expect.set_options(timeout=20_000)
            broken: list[str] = []
            page.on("pageerror", lambda error: broken.append(str(error)))
            async with asyncio.timeout(20):
                await page.goto(await address)
            await page.wait_for_selector("body.ready")
            await play(page)
            assert broken == []
            await browser.close()
    finally:
        demo.cancel()
        await asyncio.wait([demo])
        if not demo.cancelled() and (error := demo.exception()) is not None:
            raise error


async def play(page: Page) -> None:
    alert = page.locator("#messages article", has=page.locator("h3", has_text=HOST)).first
    thread, note = page.locator("#replies"), page.locator(".note")

    # The alert stands there before anybody asks; calls fail as it says, and the thread has the runbook.
    await expect(alert.locator("h3")).to_have_text(f"95 % of {HOST} fails: v1 has no endpoint")
    await page.get_by_role("button", name="Send 20 requests").click()
    await expect(note).to_have_text(re.compile(rf"20 calls of {HOST}: \d+ x 503 no healthy upstream"))
    await alert.locator("button.replies").click()
    book = thread.locator("article", has_text=f"Runbook of {HOST}")
    await expect(book).to_contain_text("has no host and gets 95 % of the requests of its rule, as predicted")
    await expect(thread.locator(f"img[alt^='{HOST}']").first).to_be_visible()
    await shot(page, "demo")

    # Why runs it again, with the calls that the Envoy's log has by now.
    await alert.get_by_role("button", name="Why").click()
    await expect(book).to_contain_text(re.compile(r"\d+ of 20 calls failed, most with 503 UH no_healthy_upstream"))
    await page.locator("article.ephemeral").first.get_by_role("button", name="Dismiss").click()
    await book.scroll_into_view_if_needed()
    await shot(page, "demo-runbook")

    # Somebody escalates, with a reason.
    await alert.get_by_role("button", name="Escalate").click()
    modal = page.locator("#modal")
    await expect(modal).to_be_visible()
    await modal.get_by_label("Why").fill("v1 was scaled away, and I may not deploy it")
    await modal.get_by_role("button", name="Escalate").click()
    await expect(thread).to_contain_text("v1 was scaled away, and I may not deploy it")
    await expect(thread).to_contain_text("@kim")

    # Kim sees to it, and mends it; the alert resolves, and calls come through.
    await page.locator("#me").select_option("kim")
    await alert.locator("button.replies").click()
    await alert.get_by_role("button", name="Ack").click()
    await expect(alert).to_contain_text("Acknowledged by @kim")
    await page.get_by_role("button", name="Deploy v1").click()
    await expect(alert.locator("h3")).to_have_text(re.compile(f"Resolved after .*: {HOST}"))
    await page.get_by_role("button", name="Send 20 requests").click()
    await expect(note.last).to_have_text(re.compile(rf"20 calls of {HOST}: \d+ x 200 from v1"))

    # What was done about it is a draft in the thread.
    await expect(thread).to_contain_text("post-mortem", ignore_case=True, timeout=30_000)
    await thread.locator("article").last.scroll_into_view_if_needed()
    await shot(page, "demo-resolved")
