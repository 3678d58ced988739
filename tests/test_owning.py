"""An alert is owned, handed over, noted on, called done and reopened, through the real Bolt against the local workspace."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from bot.alerts import Alert, Close, Closed, Reopened, State, step
from bot.demo import limits
from bot.demo.slack import BOT
from bot.incidents import name_of
from bot.sweep import _pages
from bot.tell import ACK, CLOSE, ESCALATE, HAND, INCIDENT, MORE, NOTE, REOPEN, UNTIL
from templates import owning
from tests.bots import FINDING
from tests.test_deeds import Incident, incident

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import View
    from bot.demo.workspace import Channel


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
        assert view.errors == {owning.PERSON: "Please complete this required field."}
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
        await here.slack.mention("note v2 is fine", user="ben", thread_ts=here.root.ts)
        await here.says("*note* by <@U0BEN> v2 is fine")
        assert "Called done" in here.root.words
        await here.slack.mention("handover @kim", user="ben", thread_ts=here.root.ts)
        await here.says("This alert was called done: reopen it first")
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


def test_a_pager_hears_that_somebody_called_it_done_and_that_it_is_not():
    alert = Alert(id="a", state=State.FIRING, finding=FINDING, since=1.0, fired_at=1.0, message="a-1", told=True, paged=("ops",))
    done, _ = step(alert, Closed(Close(by="U0ANA", at=2, why="done")), 2, for_s=0, clear_s=0)
    assert done is not None
    assert [[p.state for p in _pages([a])] for a in (alert, done)] == [["triggered"], ["resolved"]]
    again, _ = step(done, Reopened("U0ANA"), 3, for_s=0, clear_s=0)
    assert again is not None
    assert _pages([again]) == [], "who was paged is paged again when it is their turn"


@pytest.mark.parametrize("word", [UNTIL, HAND, NOTE, CLOSE])
def test_slack_opens_every_dialog_of_the_menu(word: str):
    assert limits.wrong_view(owning.dialog(word, 1_795_356_120.0, "kept"), lambda _: True) == []


# --- escalating, and channels of incidents -----------------------------------------------------------------------------------

CHAIN = [{"after": "1h", "to": "U0KIM"}, {"after": "2h", "to": "S0SRE"}]


async def appealing(here: Incident, user: str = "ana") -> View:
    await here.slack.click(here.root, ESCALATE, user=user)
    (view,) = await here.slack.until(lambda: here.slack.views(user))
    return view  # type: ignore[no-any-return]


async def test_who_escalates_sees_who_is_asked_and_what_was_tried_and_who_is_asked_reads_why(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path, escalation=CHAIN) as here:
        await here.slack.mention("note rolled back v2", user="ben", thread_ts=here.root.ts)
        await here.shows("rolled back v2")
        await here.slack.say("and <restarted> the gateway", user="ben", thread_ts=here.root.ts)
        view = await appealing(here)
        assert limits.wrong_view(view.payload, lambda _: True) == []
        shown = str(view.payload["blocks"])
        assert "Next, step 1 of 2: <@U0KIM>" in shown
        assert "- rolled back v2\n- and <restarted> the gateway" in view.state[owning.TRIED][owning.TRIED]["value"]
        await here.slack.submit(view)
        assert owning.TEXT in view.errors
        assert view.state[owning.SEVERITY][owning.SEVERITY]["selected_option"]["value"] == "SEV2", (
            "nobody is woken for the worst by leaving a choice alone"
        )
        await here.slack.submit(view, {owning.TEXT: "v1 does not start", owning.SEVERITY: "SEV1"})
        assert "The next one is asked" in await here.answer("ana")
        await here.shows("Escalated, step 1 of 2. Severity SEV1.")
        line = await here.says("*escalated*, step 1 of 2 by <@U0ANA>")
        assert "*Severity* SEV1" in line
        assert "*Why* v1 does not start" in line
        assert "*Tried* rolled back v2; and &lt;restarted&gt; the gateway" in line
        (alert,) = (await here.bot.store.alerts()).values()
        await here.bot.store.release(f"escalate:{alert.message}")  # as some seconds do: who comes at once means the same step
        await here.slack.mention("escalate it is worse", user="ben", thread_ts=here.root.ts)
        await here.says("*Why* it is worse")
        assert "<!subteam^S0SRE> *escalated*, step 2 of 2 by <@U0BEN>" in await here.says("step 2 of 2")


async def the_channel(here: Incident) -> Channel:
    found: list[Channel] = await here.slack.until(lambda: [c for n, c in here.slack.channels.items() if n.startswith("#inc-")], 10)
    (channel,) = found
    return channel


async def test_an_incident_gets_a_channel_with_those_who_belong_there_and_a_way_in_both_directions(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path, escalation=CHAIN) as here:
        await here.slack.click(here.root, ACK, user="ben")
        await here.shows("Acknowledged by <@U0BEN>")
        view = await appealing(here)
        await here.slack.submit(view, {owning.TEXT: "v1 does not start", owning.SEVERITY: "SEV2", owning.CHANNEL: [owning.CHANNEL]})
        channel = await the_channel(here)
        await here.shows(f"Its channel: <#{channel.id}>")
        assert f"*a channel for it* by <@U0ANA>: <#{channel.id}>" in await here.says("a channel for it")
        assert channel.members >= {"U0ANA", "U0BEN", "U0KIM", BOT}
        assert channel.topic == "95 % of destination.mynamespace fails · east · SEV2"
        first, second = await here.slack.until(lambda: len(m := here.slack.messages(channel.id)) == 2 and m, 10)
        assert second.words.startswith("95 % of destination.mynamespace fails"), "the alert stands there too"
        assert f"/archives/{here.root.channel}/p{here.root.ts.replace('.', '')}" in first.words
        assert "v1 does not start" in first.words
        assert "INCIDENT" not in str(here.root.element(MORE)[1]), "it has one"
        await here.slack.mention("note from the channel", channel=channel.id, thread_ts=second.ts, user="kim")
        await here.says("*note* by <@U0KIM> from the channel")
        await here.slack.until(lambda: "from the channel" in second.words, 10)
        await here.slack.mention("note from its first message", channel=channel.id, thread_ts=first.ts, user="kim")
        await here.says("*note* by <@U0KIM> from its first message")
        await here.slack.command("/mesh incident destination", user="kim")
        assert "It has a channel already" in await here.answer("kim")


@pytest.mark.parametrize("method", ["conversations.create", "conversations.invite", "conversations.setTopic"])
async def test_an_answer_that_is_lost_makes_no_second_channel(redis_url: str, tmp_path: Path, method: str):
    async with incident(redis_url, tmp_path) as here:
        here.slack.fault(method, applied=True)
        await here.slack.command("/mesh incident destination")
        channel = await the_channel(here)
        await here.slack.until(lambda: f"Its channel: <#{channel.id}>" in here.root.words, 20)
        assert len([n for n in here.slack.channels if n.startswith("#inc-")]) == 1
        await here.slack.until(lambda: len(here.slack.messages(channel.id)) == 2, 10)


async def test_a_name_that_somebody_else_has_is_left_to_them_and_a_refusal_is_said(redis_url: str, tmp_path: Path):
    async with incident(redis_url, tmp_path) as here:
        (alert,) = (await here.bot.store.alerts()).values()
        taken = here.slack.workspace.make_channel(name_of(alert), "U0KIM")
        here.slack.fault("conversations.create", error="restricted_action")
        await here.slack.click(here.root, MORE, choose=f"{INCIDENT} {alert.message}")
        assert "could be opened: this workspace does not let apps open channels." in await here.says("*no channel*")
        await here.slack.click(here.root, MORE, choose=f"{INCIDENT} {alert.message}")
        await here.shows("Its channel: <#")
        (name,) = [n for n, c in here.slack.channels.items() if n.startswith("#inc-") and c is not taken]
        assert name == f"#{taken.name}-2"
        assert here.slack.messages(taken.id) == []


@pytest.mark.parametrize("host", ["destination.mynamespace.svc.cluster.local", "*.Example.COM", "x" * 300, "\u202e/../<!here>", ""])
def test_the_name_of_a_channel_is_one_that_slack_takes_and_the_same_each_time(host: str):
    alert = Alert(
        id="0123456789abcdef0123", state=State.FIRING, finding=replace(FINDING, host=host), since=1.0, message="0123456789abcdef0123-2"
    )
    name = name_of(alert)
    assert re.fullmatch(r"inc-[a-z0-9-]+", name)
    assert len(name) <= 78
    assert name == name_of(alert)
    assert name.endswith("012345-2")
