"""An alert is owned, handed over, noted on, called done and reopened, through the real Bolt against the local workspace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from bot.alerts import State
from bot.demo import limits
from bot.tell import ACK, CLOSE, HAND, MORE, NOTE, REOPEN, UNTIL
from templates import owning
from tests.test_deeds import Incident, incident

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import View


async def chosen(here: Incident, word: str, user: str = "ana") -> View:
    """The dialog that a choice of the alert's menu opens."""
    _, menu = here.root.element(MORE)
    (value,) = [o["value"] for o in menu["options"] if o["value"].startswith(f"{word} ")]
    await here.slack.click(here.root, MORE, user=user, choose=value)
    (view,) = await here.slack.until(lambda: here.slack.views(user))
    return view  # type: ignore[no-any-return]


async def test_it_is_taken_handed_over_and_noted_on_and_all_of_it_stands_on_the_message(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.click(here.root, ACK)
        await here.shows("Acknowledged by <@U0ANA>")
        view = await chosen(here, HAND)
        await here.slack.submit(view)
        assert view.errors == {owning.PERSON: "Choose a person."}
        await here.slack.submit(view, {owning.PERSON: "U0BEN", owning.TEXT: "v1 was rolled back <!channel> &amp;"})
        assert "<@U0BEN> sees to destination.mynamespace now." in await here.answer("ana", 2)
        await here.shows("Acknowledged by <@U0BEN>")
        await here.shows("✎ <@U0ANA>")
        assert "channel" not in here.root.pings
        line = await here.says("*handed over*")
        assert "by <@U0ANA> to <@U0BEN>" in line
        await here.says("*note* by <@U0ANA> v1 was rolled back &lt;!channel&gt;")
        await here.slack.mention("note pods are starting", user="ben", thread_ts=here.root.ts)
        await here.says("*note* by <@U0BEN> pods are starting")
        await here.shows("pods are starting")
        await here.slack.mention("handover @kim", user="ben", thread_ts=here.root.ts)
        await here.shows("Acknowledged by <@U0KIM>")
        view = await chosen(here, UNTIL, "kim")
        moment = int(time.time()) + 3600
        await here.slack.submit(view, {owning.MOMENT: moment - 7200})
        assert view.errors == {owning.MOMENT: "Choose a time that is to come."}
        await here.slack.submit(view, {owning.MOMENT: moment})
        await here.shows(f"Acknowledged by <@U0KIM> until <!date^{moment}")
        (alert,) = (await here.bot.store.alerts()).values()
        assert [n.by for n in alert.notes] == ["U0ANA", "U0BEN"]


async def test_what_is_called_done_stays_so_while_it_is_seen_and_fires_again_when_it_comes_back(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        view = await chosen(here, CLOSE)
        await here.slack.submit(view)
        assert owning.TEXT in view.errors
        other = await chosen(here, CLOSE, "ben")
        await here.slack.submit(view, {owning.TEXT: "rolled back to v2"})
        await here.slack.submit(other, {owning.TEXT: "mine"})
        assert "You called destination.mynamespace done. The fault is still seen" in await here.answer("ana")
        await here.slack.until(lambda: here.slack.ephemerals("ben"))
        await here.shows("Called done, still seen: destination.mynamespace")
        await here.shows("<@U0ANA> called it done")
        assert "The fault is still seen" in here.root.words
        assert "95 %" in here.root.words
        assert "rolled back to v2. The fault is still seen: Subset v1" in await here.says("*called done* by <@U0ANA>")
        assert [e["action_id"] for b in here.root.blocks if b["type"] == "actions" for e in b["elements"]] == [REOPEN, "alert_why"]
        here.bot.sweeper.wake()
        await asyncio.sleep(0.3)
        assert "Called done" in here.root.words
        await here.slack.command("/mesh alerts", user="kim")
        assert "<@U0ANA> called it done" in await here.answer("kim")
        await here.east.deploy_v1()
        await here.shows("Resolved after")
        assert "<@U0ANA> called it done" in here.root.words
        assert "The fault is still seen" not in here.root.words
        await here.east.remove_v1()
        await here.shows("95 % of destination.mynamespace fails")
        assert "called it done" not in here.root.words


async def test_what_was_called_done_is_reopened_once_and_has_nobody_then(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        await here.slack.click(here.root, ACK)
        await here.shows("Acknowledged by <@U0ANA>")
        await here.slack.command("/mesh resolve destination.mynamespace it was a test", user="ben")
        await here.shows("<@U0BEN> called it done")
        await here.slack.command("/mesh reopen nowhere", user="ben")
        assert "Nobody called this done" in await here.answer("ben", 2)
        await asyncio.gather(here.slack.click(here.root, REOPEN, user="ana"), here.slack.click(here.root, REOPEN, user="kim"))
        both = [await here.answer("ana", 2), await here.answer("kim")]
        assert sum("It is told of again." in words for words in both) == 1
        assert sum("reopened it already" in words or "Nobody called this done" in words for words in both) == 1
        await here.says("*reopened*")
        await here.slack.until(lambda: "Acknowledged" not in here.root.words, 10)
        await here.slack.click(here.root, ACK, user="kim")
        await here.shows("Acknowledged by <@U0KIM>")
        (alert,) = (await here.bot.store.alerts()).values()
        assert (alert.state, alert.closed) == (State.FIRING, None)


async def test_the_words_say_what_they_lack(redis_url: str, tmp_path: Path):
    said = [
        ("/mesh handover destination", "To whom?"),
        ("/mesh handover nobody.here @ben", "Nothing fires on nobody.here."),
        ("/mesh note destination", "What is to be noted?"),
        ("/mesh resolve destination", "Why is it done?"),
        ("/mesh reopen destination", "Nobody called this done"),
        ("/mesh note destination waiting for pods", "Noted on destination.mynamespace."),
        ("/mesh handover destination @ben", "<@U0BEN> sees to destination.mynamespace now."),
    ]
    async with incident(redis_url, tmp_path) as here:
        for count, (words, answer) in enumerate(said, start=1):
            await here.slack.command(words)
            assert answer in await here.answer("ana", count)


@pytest.mark.parametrize("word", [UNTIL, HAND, NOTE, CLOSE])
def test_slack_opens_every_dialog_of_the_menu(word: str):
    assert limits.wrong_view(owning.dialog(word, 1_795_356_120.0, "kept"), lambda _: True) == []
