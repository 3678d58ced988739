"""What people do about an alert, through the real Bolt over Socket Mode against the local workspace, with the whole bot behind it."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from bot.clusters import ClusterSource
from bot.demo.delivery import NotAcknowledged
from bot.demo.runner import East
from bot.demo.slack import BOT, LocalSlack, Message
from bot.tell import ACK, SILENCE, UNACK, UNSILENCE
from templates import messages
from tests import ports
from tests.bots import RECORDED, alerts, running, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.bots import Bot

TOLD = "95 % of destination.mynamespace fails"


class Incident:
    """The article's first incident in #mesh, told by a running bot."""

    def __init__(self, slack: LocalSlack, bot: Bot, root: Message, east: East) -> None:
        self.slack = slack
        self.bot = bot
        self.root = root
        self.east = east

    def thread(self) -> list[str]:
        return [m.words for m in self.slack.thread(self.root.channel, self.root.ts)[1:]]

    async def shows(self, words: str) -> None:
        await self.slack.until(lambda: words in self.root.words, 10)

    async def says(self, words: str) -> str:
        found: list[str] = await self.slack.until(lambda: [line for line in self.thread() if words in line], 10)
        return found[-1]

    async def answer(self, user: str, count: int = 1) -> str:
        await self.slack.until(lambda: len(self.slack.ephemerals(user)) >= count)
        return self.slack.ephemerals(user)[-1].words


@asynccontextmanager
async def incident(redis_url: str, folder: Path, *, place: str = "#mesh", **settings: Any) -> AsyncIterator[Incident]:
    shutil.copytree(RECORDED / "east", folder / "east")
    slack = LocalSlack()
    await slack.start()
    try:
        async with running(slack, redis_url, [ClusterSource("east", mesh="east", path=str(folder / "east"))], alerts(**settings)) as bot:
            (root,) = await slack.until(lambda: [m for m in slack.messages(place) if m.words.startswith(TOLD)], 10)
            yield Incident(slack, bot, root, East(folder / "east"))
    finally:
        await slack.stop()


async def test_of_two_people_one_has_it_and_the_other_reads_who(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.click(here.root, ACK, user="U0ANA")
        assert "You see to it." in await here.answer("ana")
        await here.slack.click(here.root, ACK, user="U0BEN")
        assert "<@U0ANA> sees to it already" in await here.answer("ben")
        await here.shows("Acknowledged by <@U0ANA>")
        assert "by <@U0ANA>" in await here.says("acknowledged")
        await here.slack.command("/mesh alerts", user="U0BEN")
        assert "<@U0ANA> sees to it" in await here.answer("ben", 2)
        await here.slack.click(here.root, UNACK, user="U0BEN")
        await here.says("no longer acknowledged")
        await here.slack.command("/mesh ack destination.mynamespace 2h", user="U0BEN")
        assert "You see to destination.mynamespace for 2h." in await here.answer("ben", 4)
        await here.shows("Acknowledged by <@U0BEN> until ")
        await here.slack.until(lambda: sum("*acknowledged*" in line for line in here.thread()) == 2, 10)


async def test_a_resolve_wins_over_an_ack_that_comes_too_late(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.east.deploy_v1()
        await here.shows("Resolved after")
        assert not [b for b in here.root.blocks if b["type"] == "actions"], "nothing is left to be pressed"
        await here.slack.command("/mesh ack destination", user="U0ANA")
        assert "Nothing fires on destination" in await here.answer("ana")
        assert not any("acknowledged" in line for line in here.thread())


async def test_a_silence_is_asked_for_shown_listed_and_ended(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.click(here.root, SILENCE)
        (view,) = await here.slack.until(lambda: here.slack.views("ana"))
        await here.slack.submit(view)
        assert view.errors == {messages.REASON: "Say why: whoever reads the alert wants to know."}
        await here.slack.submit(view, {messages.WHAT: "cause host", messages.REASON: "we move it <!channel>"})
        shown = str(view.payload["blocks"])
        for matcher in ("cluster=east", "cause=subset-empty-weighted", "host=destination.mynamespace.svc.cluster.local"):
            assert f"`{matcher}`" in shown, "what it fits is shown before it applies"
        assert "1 alert that fires now is among it" in shown
        assert (here.slack.ephemerals("ana"), await here.bot.store.silences()) == ([], {})
        await here.slack.submit(view)
        assert "is silent now" in await here.answer("ana")
        await here.shows("Silenced until ")
        assert set(here.root.pings) <= {"U0ANA"}, "who said why is named, and nobody else"
        assert "by <@U0ANA>" in await here.says("silenced")
        await here.slack.command("/mesh alerts", user="U0BEN")
        listed = await here.answer("ben")
        assert "cause=subset-empty-weighted" in listed
        await here.slack.click(here.slack.ephemerals("ben")[-1], UNSILENCE, user="U0BEN")
        assert "by <@U0BEN>" in await here.says("no longer silenced")


async def test_what_is_silenced_by_words_is_not_told(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.east.deploy_v1()
        await here.shows("Resolved after")
        await here.says("resolved")
        count = len(here.thread())
        await here.slack.command("/mesh silence destination.mynamespace 1h moving it")
        assert "host=destination.mynamespace.svc.cluster.local is silent for 1h; 0 alerts" in await here.answer("ana")
        await here.east.remove_v1()
        await here.shows("Silenced until ")
        assert len(here.thread()) == count, "the thread stays still"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("/mesh ack", "Which host?"),
        ("/mesh ack nobody.here", "Nothing fires on nobody.here. What fires: destination.mynamespace."),
        ("/mesh silence", "Write what to silence"),
        ("/mesh silence destination", "Write what to silence"),
        ("/mesh silence destination soon because", "Write what to silence"),
        ("/mesh silence nobody.at.all 2h", 'No host "nobody.at.all"'),
        ("/mesh silence destination 365d", "30 days at most"),
        ("/mesh silence cause=subset-* cluster=east 30m test", "is silent for 30m; 1 alert that fires now is among it."),
    ],
)
async def test_what_cannot_be_done_is_said(redis_url: str, tmp_path: Path, words: str, answer: str):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.command(words)
        assert answer in await here.answer("ana")


async def test_in_the_thread_the_words_mean_its_alert(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        began = time.monotonic()
        await here.slack.mention("ack 30m", thread_ts=here.root.ts, user="U0BEN")
        await here.shows("Acknowledged by <@U0BEN> until ")
        assert time.monotonic() - began < 3
        await here.says("You see to destination.mynamespace for 30m.")


# --- from wherever they are said ---


WAYS = ("command", "direct command", "thread", "channel", "direct message")


async def said(here: Incident, way: str, words: str) -> str:
    """What somebody (ben) is answered to these words, said in one of the ways."""
    slack, private = here.slack, way in {"command", "direct command"}
    place = "@ben" if way.startswith("direct") else "#mesh"

    def answers() -> list[str]:
        if private:
            return [m.words for m in slack.ephemerals("ben")]
        return [
            m.words for m in slack.workspace.messages[slack.channel(place).id] if m.user == BOT and m.only is None and m is not here.root
        ]

    before = answers()
    match way:
        case "command" | "direct command":
            await slack.command(f"/mesh {words}", user="ben", channel=place)
        case "direct message":
            await slack.dm(words, user="ben")
        case _:
            await slack.mention(words, user="ben", thread_ts=here.root.ts if way == "thread" else None)
    answer = {"ack": "You see to", "escalate": "The next one is asked", "silence": "is silent for", "alerts": "1 alert open"}[
        words.split(maxsplit=1)[0]
    ]
    found: str = await slack.until(lambda: next((w for w in answers() if w not in before and answer in w), ""), 10)
    return found


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_words_do_the_same_wherever_they_are_said(redis_url: str, tmp_path: Path, way: str):
    host = "" if way == "thread" else "destination "
    async with incident(redis_url, tmp_path, escalation=[{"after": "1h", "to": "S0SRE"}]) as here:
        assert "nobody sees to it" in await said(here, way, "alerts")
        await said(here, way, f"ack {host}30m")
        await here.shows("Acknowledged by <@U0BEN> until ")
        await said(here, way, f"escalate {host}".strip())
        assert "<!subteam^S0SRE>" in await here.says("*escalated*, step 1 of 1 by <@U0BEN>")
        assert "is silent for 1h; 1 alert that fires now" in await said(here, way, f"silence {host}1h we move it")
        await here.shows("Silenced until ")
        await here.says("*silenced* by <@U0BEN>")
        assert "<@U0BEN> sees to it" in (listed := await said(here, way, "alerts"))
        assert "by <@U0BEN>: we move it" in listed


async def test_the_end_of_a_silence_is_announced_in_the_thread(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.command("/mesh silence destination 2s moving it")
        await here.says("*silenced* by <@U0ANA>")
        await here.shows("Silenced until ")
        assert "it fails still: Subset v1 of destination.mynamespace" in await here.says("*the silence is over*")
        await here.slack.until(lambda: "Silenced until" not in here.root.words, 10)
        assert await here.bot.store.silences() == {}


async def test_a_person_who_is_written_to_directly_can_do_there_what_others_can_in_the_channel(redis_url: str, tmp_path: Path):
    routes = [{"match": {}, "user": "U0KIM"}]
    async with incident(redis_url, tmp_path, place="@kim", routes=routes) as here:
        await here.slack.click(here.root, ACK, user="kim")
        assert "You see to it." in await here.answer("kim")
        await here.shows("Acknowledged by <@U0KIM>")
        await here.slack.click(here.root, SILENCE, user="kim")
        (view,) = await here.slack.until(lambda: here.slack.views("kim"))
        await here.slack.submit(view, {messages.REASON: "we move it"})
        await here.slack.submit(view)
        assert "is silent now" in await here.answer("kim", 2)
        await here.says("*silenced* by <@U0KIM>")
        await here.slack.dm("alerts", user="kim", thread_ts=here.root.ts)
        await here.says("by <@U0KIM>: we move it")


async def test_an_event_that_slack_sends_again_because_the_answer_was_lost_has_one_effect(redis_url: str, tmp_path: Path):
    """Over HTTP, with X-Slack-Retry-Num: the bot has taken it, and Slack does not know."""
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    slack = LocalSlack()
    await slack.start()
    port = ports.free()
    told: dict[str, Any] = {"bot_token": SecretStr(slack.bot_token), "signing_secret": SecretStr(slack.signing_secret)}
    slack.delivery.retries = (0.0, 0.05, 0.05)
    real, tries = slack.delivery._request, 0

    async def lost(kind: Any, payload: dict[str, Any], retry: int, reason: str) -> Any:
        nonlocal tries
        answer = await real(kind, payload, retry, reason)
        if payload.get("event", {}).get("type") == "app_mention":
            tries += 1
            if tries < 3:
                raise NotAcknowledged("http_timeout")
        return answer

    try:
        async with serving(slack, redis_url, tmp_path, slack={"mode": "http", "port": port, "base_url": slack.base_url, **told}):
            (root,) = await slack.until(lambda: [m for m in slack.messages("#mesh") if m.words.startswith(TOLD)], 15)
            await slack.use_requests(f"http://127.0.0.1:{port}/slack/events")
            slack.delivery._request = lost  # type: ignore[method-assign]
            await slack.mention("ack 30m", thread_ts=root.ts, user="U0BEN")
            await slack.until(lambda: tries == 3)
            await slack.until(lambda: "Acknowledged by <@U0BEN>" in root.words, 10)

            def lines(words: str) -> int:
                return sum(words in m.words for m in slack.thread(root.channel, root.ts))

            await slack.until(lambda: lines("*acknowledged*") and lines("You see to destination"), 10)
            await asyncio.sleep(0.3)
            assert (lines("*acknowledged*"), lines("You see to destination")) == (1, 1)
    finally:
        await slack.stop()
