"""Who may do what in Slack, at the door: the whole bot over Socket Mode against the local workspace, with a real Valkey."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from msgspec.structs import replace

from bot.access import NEEDS, Role
from bot.alerts import State
from bot.audit import Entry, Wanted
from bot.clusters import ClusterSource
from bot.demo.runner import East
from bot.demo.slack import LocalSlack, Message
from bot.demo.workspace import Group
from bot.settings import Access
from bot.tell import ACK, CLOSE, ESCALATE, HAND, INCIDENT, MORE, NOTE, PATCH, REOPEN, SILENCE, UNACK, UNSILENCE, UNTIL, WHY
from checks.mesh import Change
from checks.resources import VirtualService
from handlers.mesh import VERBS
from templates import messages, owning
from tests.bots import RECORDED, Bot, alerts, running
from tests.test_history import Story

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

EAST = ClusterSource("east", mesh="east", path=str(RECORDED / "east"))
WEST = ClusterSource("west", mesh="west", path=str(RECORDED / "west"))
OWNERS = {
    "responders": [{"who": "@sre", "namespace": "mynamespace"}, {"who": "U0KIM", "namespace": "elsewhere"}],
    "admins": ["U0BOSS"],
}
"""ana and ben (of @sre) see to mynamespace, kim to another namespace; everybody may look."""
ESCALATION = {"escalation": [{"after": "1h", "to": "S0SRE"}, {"after": "2h", "to": "U0ANA"}]}


class Incident:
    """The article's first incident in #mesh, told by a bot that knows who may what."""

    def __init__(self, slack: LocalSlack, bot: Bot, root: Message) -> None:
        self.slack = slack
        self.bot = bot
        self.root = root

    async def answer(self, user: str, count: int = 1) -> str:
        await self.slack.until(lambda: len(self.slack.ephemerals(user)) >= count)
        return self.slack.ephemerals(user)[-1].words

    async def audit(self, **wanted: Any) -> list[Entry]:
        return [entry async for _, entry in self.bot.door.audit.read(Wanted(**wanted))]

    async def message(self) -> str:
        (message,) = {a.message for a in (await self.bot.store.alerts()).values() if a.message}
        return message

    async def state(self) -> tuple[Any, ...]:
        (alert,) = (a for a in (await self.bot.store.alerts()).values() if a.message)
        return alert.state, alert.ack, alert.silence, alert.escalated, await self.bot.store.silences()


@asynccontextmanager
async def incident(
    redis_url: str, access: dict[str, Any] | None = None, *, teams: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Incident]:
    slack = LocalSlack()
    slack.workspace.add_person("boss")
    await slack.start()
    try:
        async with running(slack, redis_url, [EAST], alerts(**settings), access=access, teams=teams) as bot:
            (root,) = await slack.until(lambda: [m for m in slack.messages("#mesh") if "destination.mynamespace" in m.words], 10)
            await slack.until(lambda: any(b["type"] == "actions" for b in root.blocks))
            yield Incident(slack, bot, root)
    finally:
        await slack.stop()


# --- who may not ---


async def test_scenario_11_who_has_no_right_to_silence_in_anothers_namespace_reads_who_has_and_nothing_changes(redis_url: str):
    async with incident(redis_url, OWNERS) as here:
        before = await here.state()
        await here.slack.click(here.root, SILENCE, user="kim")
        denial = await here.answer("kim")
        assert denial == "Silencing destination.mynamespace is for <!subteam^S0SRE> and <@U0BOSS>; nothing was changed."
        assert here.slack.views("kim") == []
        assert [m.words for m in here.slack.messages("#mesh")] == [here.root.words], "nobody else reads it"
        assert await here.state() == before
        (entry,) = await here.audit(by="U0KIM")
        assert (entry.verb, entry.via, entry.result, entry.about) == ("silence", "button", "denied", ("destination.mynamespace",))
        assert (entry.channel, entry.team) == (here.root.channel, "T0LOCAL")
        assert time.time() - entry.at < 60


NOBODY: dict[str, Any] = {"viewers": [], "admins": ["U0BOSS"]}


@pytest.mark.parametrize("action", [ACK, WHY, SILENCE, ESCALATE, *(f"{MORE} {word}" for word in (UNTIL, HAND, NOTE, CLOSE, INCIDENT))])
async def test_no_button_of_an_alert_does_anything_for_who_may_nothing(redis_url: str, action: str):
    async with incident(redis_url, NOBODY, **ESCALATION) as here:
        before = await here.state()
        action, _, word = action.partition(" ")
        await here.slack.click(here.root, action, choose=f"{word} {await here.message()}" if word else None)
        assert "is for <@U0BOSS>" in await here.answer("ana")
        assert await here.state() == before
        assert [e.result for e in await here.audit()] == ["denied"]


async def test_the_patch_is_a_file_for_a_pull_request_for_who_may_read_of_the_alert(redis_url: str):
    async with incident(redis_url, {"viewers": ["U0ANA"], "admins": ["U0BOSS"]}) as here:
        (fix,) = await here.slack.until(
            lambda: [m for m in here.slack.thread(here.root.channel, here.root.ts)[1:] if any(b["type"] == "actions" for b in m.blocks)], 10
        )
        await here.slack.click(fix, PATCH, user="kim")
        assert "Asking for the patch of destination.mynamespace is for" in await here.answer("kim")
        await here.slack.click(fix, PATCH)
        assert "The patch is in the thread, as a kustomize component; nobody has applied it." in await here.answer("ana")
        (file,) = (f for f in here.slack.workspace.files.values() if f.name != "route.png")
        assert file.content is not None
        text = file.content.decode()
        assert (file.name, text.partition("\n")[0]) == (
            "destination.patch.yaml",
            "# MESH101 subset-empty-weighted: destination.mynamespace.svc.cluster.local in east",
        )
        (patch,) = yaml.safe_load(text)["patches"]
        assert patch["target"] == {
            "group": "networking.istio.io",
            "kind": "VirtualService",
            "namespace": "mynamespace",
            "name": "destination",
        }
        assert [o["op"] for o in yaml.safe_load(patch["patch"])] == ["add", "remove"]


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "help"])
async def test_no_verb_says_or_does_anything_for_who_may_nothing_by_whatever_way(redis_url: str, verb: str):
    words = {"silence": "silence destination 1h x", "explain": "explain MESH101", "whatif": "whatif"}.get(verb, f"{verb} destination")
    async with incident(redis_url, NOBODY, **ESCALATION) as here:
        before = await here.state()
        await here.slack.command(f"/mesh {words}")
        assert "is for <@U0BOSS>" in await here.answer("ana")
        said = await here.slack.mention(words, thread_ts=here.root.ts)
        assert "is for <@U0BOSS>" in await here.answer("ana", 2)
        assert here.slack.ephemerals("ana")[-1].thread_ts == said.thread_ts
        await here.slack.dm(words)
        await here.slack.until(lambda: len(here.slack.messages("@ana")) == 2)
        assert "is for <@U0BOSS>" in here.slack.messages("@ana")[-1].words
        assert (await here.state(), here.slack.views("ana")) == (before, [])
        told = await here.audit(by="U0ANA")
        assert {(e.verb, e.result) for e in told} == {(verb, "denied")}
        assert {e.via for e in told} == {"command", "mention", "message"}
        await here.slack.command(f"/mesh {words}", user="boss")
        await here.slack.until(lambda: here.slack.ephemerals("boss") or here.slack.views("boss"))
        assert not any("is for" in m.words for m in here.slack.ephemerals("boss"))


async def test_everything_that_can_be_done_in_slack_is_among_what_was_tried_here(redis_url: str):
    """A button, dialog or verb that is new must be given a role, and a test that it denies."""
    async with incident(redis_url) as here:
        listeners = [listener.ack_function.__qualname__.split(".") for listener in here.bot.app._async_listeners]
        matched = {f"{parts[0]}.{parts[-1]}" for parts in listeners}
        assert matched == {
            *("register.acked", "register.unacked", "register.why", "register.asked", "register.ended", "register.escalated"),
            *(
                "register.turn",
                "register.share",
                "register.mesh",
                "register.mentioned",
                "register.written",
                "register.submitted",
                "register.older",
                "register.sheet",
                "register.patch",
                "register.explained",
                "register.move",
                "register.draw",
            ),
            *("register.chosen", "register.reopened", "_dialog.owned", "register.appealed", "register.opened", "register.refreshed"),
            *("_dialog.filled", "_dialog.submitted", "register.outlived"),
        }
    assert VERBS.keys() <= NEEDS.keys()
    assert {verb for verb, role in NEEDS.items() if role is Role.ANYBODY} == {"help"}


async def test_no_button_of_an_answer_does_anything_for_who_may_nothing_any_more(slack: LocalSlack, redis_url: str, tmp_path: Path):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    meta = {"name": "many", "namespace": "mynamespace"}
    rules = [{"match": [{"uri": {"prefix": f"/{i}"}}], "route": [{"destination": {"host": "many"}}]} for i in range(40)]
    made = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": {"hosts": ["many"], "http": rules}},
    ]
    (tmp_path / "east" / "many.yaml").write_text(yaml.safe_dump_all(made))
    clusters = [ClusterSource("east", mesh="east", path=str(tmp_path / "east"))]
    async with running(slack, redis_url, clusters, watching=False) as bot:

        async def told(count: int) -> Message:
            await slack.until(lambda: len(slack.ephemerals("ana")) >= count, 10)
            return slack.ephemerals("ana")[-1]

        await slack.command("/mesh routes many")
        page = await told(1)
        await slack.click(page, messages.NEXT)
        await slack.until(lambda: "page 2 of" in page.words)
        for number in range(20):
            await bot.door.audit.put(
                Entry(at=1.0 + number, by="U0BEN", team="T", verb="ack", via="button", channel="C0MESH", result="done")
            )
        await slack.command("/mesh audit @ben")
        record = await told(2)
        (cluster,) = bot.clusters.clusters()
        story = Story(bot.store)
        for ago, then in ((60, cluster), (30, cluster.apply([Change("east", VirtualService, "mynamespace", "many", None)]))):
            await story.look(time.time() - ago, then)
        await slack.command("/mesh changes many")
        day = await told(3)
        await slack.command("/mesh whatif")
        (view,) = await slack.until(lambda: slack.views("ana"))
        words = page.words
        bot.door.heed(Access.model_validate(NOBODY), ())
        pressed = [(page, a) for a in (messages.PREVIOUS, messages.NEXT, messages.SHEET, messages.SHARE)] + [(record, messages.OLDER)]
        pressed += [(day, messages.DAY), (day, messages.STOPS["earlier"])]
        for count, (message, action) in enumerate(pressed, start=4):
            await slack.click(message, action)
            assert "is for <@U0BOSS>" in (await told(count)).words
        await slack.submit(view, {messages.PASTED: yaml.safe_dump(made[0])})
        assert "Weighing changes of Service mynamespace/many is for <@U0BOSS>." in (await told(11)).words
        assert (page.words, slack.messages("#mesh"), slack.messages("@ana")) == (words, [], [])


async def test_what_was_open_before_a_right_was_taken_away_is_denied_when_it_is_pressed(redis_url: str):
    async with incident(redis_url, OWNERS, **ESCALATION) as here:
        await here.slack.click(here.root, SILENCE)
        (view,) = await here.slack.until(lambda: here.slack.views("ana"))
        await here.slack.submit(view, {messages.REASON: "we move it"})
        await here.slack.click(here.root, ACK, user="ben")
        await here.slack.until(lambda: "Acknowledged by" in here.root.words, 10)
        silence = (await here.bot.store.silences(), here.root)
        await here.slack.click(here.root, MORE, user="ben", choose=f"{CLOSE} {(await here.message())}")
        (other,) = await here.slack.until(lambda: here.slack.views("ben"))
        here.bot.door.heed(Access.model_validate(NOBODY), ())
        await here.slack.submit(other, {owning.TEXT: "it is done"})
        assert "Calling done destination.mynamespace is for <@U0BOSS>" in await here.answer("ben", 2)
        await here.slack.submit(view)
        assert "Silencing cluster=east cause=subset-empty-weighted" in await here.answer("ana")
        assert (await here.bot.store.silences(), here.root) == silence
        await here.slack.click(here.root, UNACK, user="ben")
        assert "Giving back destination.mynamespace is for <@U0BOSS>" in await here.answer("ben", 3)
        assert "Acknowledged by <@U0BEN>" in here.root.words
        await here.slack.command("/mesh resolve destination it is done", user="boss")
        await here.slack.until(lambda: "called it done" in here.root.words, 10)
        await here.slack.click(here.root, REOPEN, user="ben")
        assert "Reopening destination.mynamespace is for <@U0BOSS>" in await here.answer("ben", 4)
        assert "called it done" in here.root.words
        count = len(here.slack.ephemerals("kim")) + 1
        await here.slack.command("/mesh handover destination @kim", user="boss")
        assert "Nothing fires" in await here.answer("boss", 2)
        await here.slack.command("/mesh reopen destination", user="boss")
        await here.slack.until(lambda: "called it done" not in here.root.words, 10)
        await here.slack.command("/mesh handover destination @kim", user="boss")
        assert "They may not see to this" in await here.answer("boss", 4)
        assert len(here.slack.ephemerals("kim")) == count - 1


async def test_a_right_counts_for_the_group_as_it_is_when_the_button_is_pressed(redis_url: str):
    async with incident(redis_url, {**OWNERS, "remember": "0.2s"}) as here:
        await here.slack.click(here.root, ACK, user="kim")
        assert "is for" in await here.answer("kim")
        here.slack.workspace.groups["S0SRE"] = Group("S0SRE", "sre", ["U0KIM"])
        await asyncio.sleep(0.3)
        await here.slack.click(here.root, ACK, user="kim")
        assert "You see to it." in await here.answer("kim", 2)
        await here.slack.click(here.root, ACK, user="ana")
        assert "is for" in await here.answer("ana")


async def test_while_slack_does_not_say_who_is_in_a_group_deeds_are_refused_and_looking_is_as_the_settings_say(redis_url: str):
    groups = {"viewers": ["@sre"], "responders": ["@sre"], "admins": ["U0BOSS"]}
    async with incident(redis_url, groups) as here:
        here.slack.api.paid_plan = False
        await here.slack.click(here.root, ACK)
        denial = await here.answer("ana")
        assert "is for @sre" in denial.replace("`", "")
        assert "Slack does not say now: @sre (plan_upgrade_required)" in denial
        assert (await here.state())[1] is None
        (entry,) = await here.audit(by="U0ANA")
        assert (entry.result, entry.why) == ("denied", "@sre: plan_upgrade_required")
        await here.slack.command("/mesh why destination")
        assert "Slack does not say now" in await here.answer("ana", 2)
        here.bot.door.heed(Access.model_validate({**groups, "look_without_groups": True}), ())
        await here.slack.command("/mesh why destination")
        assert "95 %" in await here.answer("ana", 3)
        await here.slack.click(here.root, ACK)
        assert "Slack does not say now" in await here.answer("ana", 4)
        await here.slack.click(here.root, ACK, user="boss")
        assert "You see to it." in await here.answer("boss")


# --- who may look at a part ---


@pytest.fixture
def two(tmp_path: Path) -> ClusterSource:
    """East, with a second host that fails in a namespace of its own."""
    shutil.copytree(RECORDED / "east", tmp_path / "two")
    meta = {"name": "secret-host", "namespace": "shop"}
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": meta,
            "spec": {"hosts": ["secret-host"], "http": [{"route": [{"destination": {"host": "secret-host", "subset": "v9"}}]}]},
        },
    ]
    (tmp_path / "two" / "shop.yaml").write_text(yaml.safe_dump_all(made))
    return ClusterSource("east", mesh="east", path=str(tmp_path / "two"))


async def test_who_may_look_at_one_namespace_learns_nothing_of_another(slack: LocalSlack, redis_url: str, two: ClusterSource):
    access = {"viewers": [{"who": "U0KIM", "namespace": "mynamespace"}], "admins": ["U0ANA"]}
    async with running(slack, redis_url, [two, WEST], access=access) as bot:
        (secret,) = await slack.until(lambda: [m for m in slack.messages("#mesh") if "secret-host" in m.words], 15)
        count = 0

        async def asked(words: str, user: str = "kim") -> str:
            nonlocal count
            count = len(slack.ephemerals(user)) + 1
            await slack.command(f"/mesh {words}", user=user)
            await slack.until(lambda: len(slack.ephemerals(user)) >= count, 10)
            return slack.ephemerals(user)[-1].words

        assert "95 %" in await asked("why destination")
        for words in ("why secret-host", "routes secret-host.shop", "secret-host.shop"):
            assert await asked(words) == "Asking about secret-host.shop.svc.cluster.local is for <@U0ANA>."
        assert "secret-host" not in (await asked("why secret-hos")).replace("secret-hos.", "")
        assert "Did you mean destination" in await asked("why destinaton.mynamespace")
        broken = await asked("broken")
        assert "destination.mynamespace" in broken
        assert "secret" not in broken
        assert "left out: you may not look there" in broken
        listed = await asked("alerts")
        assert "destination.mynamespace" in listed
        assert "secret" not in listed
        assert "left out: you may not look there" in listed
        assert "`east`" in (clusters := await asked("clusters"))
        assert "`west`" not in clusters
        assert "secret" not in await asked("ack nowhere")
        everything = await asked("broken", user="ana")
        assert "secret-host.shop" in everything
        assert "left out" not in everything
        await slack.click(secret, WHY, user="kim")
        await slack.until(lambda: "is for <@U0ANA>" in slack.ephemerals("kim")[-1].words)
        told = {(e.verb, e.result) async for _, e in bot.door.audit.read(Wanted(by="U0KIM"))}
        assert {("why", "denied"), ("routes", "denied"), ("why", "done"), ("broken", "done"), ("why", "unanswered")} <= told


async def test_a_change_is_weighed_where_one_may_look_and_what_it_does_elsewhere_is_not_told(
    slack: LocalSlack, redis_url: str, two: ClusterSource
):
    access = {"viewers": [{"who": "U0KIM", "namespace": "mynamespace"}], "admins": ["U0ANA"]}
    rule = {"hosts": ["destination"], "http": [{"route": [{"destination": {"host": "destination", "subset": "v3"}}]}]}
    meta = {"name": "destination", "namespace": "mynamespace"}
    mine = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": rule}
    theirs = {**mine, "metadata": {"name": "secret-host", "namespace": "shop"}, "spec": {**rule, "hosts": ["secret-host"]}}
    async with running(slack, redis_url, [two], access=access, watching=False):

        async def weighed(manifest: dict[str, Any], count: int, **more: Any) -> str:
            await slack.command("/mesh whatif", user="kim")
            (view,) = await slack.until(lambda: slack.views("kim"))
            await slack.submit(view, {messages.PASTED: yaml.safe_dump(manifest), **more})
            assert view.errors == {}
            await slack.until(lambda: len(slack.ephemerals("kim")) >= count, 10)
            return slack.ephemerals("kim")[-1].words

        assert "MESH106 subset-undefined" in await weighed(mine, 1)
        assert await weighed(theirs, 2) == "Weighing changes of VirtualService shop/secret-host is for <@U0ANA>."
        gone = {**theirs, "metadata": {"name": "perhaps", "namespace": "shop"}}
        denied = await weighed(gone, 3, **{messages.DELETE: [messages.DELETE]})
        assert denied == "Weighing changes of VirtualService shop/perhaps is for <@U0ANA>.", "not even whether it is there"


# --- strangers ---


async def test_people_of_another_workspace_are_refused_whatever_they_do_and_it_is_on_record(redis_url: str):
    async with incident(redis_url) as here:
        here.slack.workspace.add_person("eve", team="T0OTHER")
        before = await here.state()
        await here.slack.click(here.root, ACK, user="eve")
        assert "I answer the people of my own workspace" in await here.answer("eve")
        await here.slack.command("/mesh help", user="eve")
        assert "I answer the people of my own workspace" in await here.answer("eve", 2)
        await here.slack.mention("why destination", user="eve", thread_ts=here.root.ts)
        assert "I answer the people of my own workspace" in await here.answer("eve", 3)
        assert not any("*Why*" in m.words for m in here.slack.thread(here.root.channel, here.root.ts)[-2:])
        assert await here.state() == before
        told = await here.audit(by="U0EVE")
        assert {(e.via, e.result, e.why) for e in told} == {(via, "stranger", "T0OTHER") for via in ("button", "command", "mention")}
        here.bot.door.heed(None, ["T0OTHER"])
        await here.slack.click(here.root, ACK, user="eve")
        assert "You see to it." in await here.answer("eve", 4)


async def test_a_payload_that_names_no_workspace_or_another_one_is_refused(redis_url: str):
    async with incident(redis_url, teams=["E0ORG"]) as here:
        real, changed = here.slack.delivery.send, {}

        async def send(kind: Any, payload: dict[str, Any]) -> Any:
            return await real(kind, {**payload, **changed, "user": {**payload["user"], **changed.get("user", {})}})

        here.slack.delivery.send = send  # type: ignore[method-assign,assignment]
        for number, of in enumerate(
            (
                {"team": {"id": "T0OTHER", "domain": "other"}, "user": {"team_id": "T0LOCAL"}},
                {"team": None, "enterprise": None, "user": {"team_id": None}},
                {"team": None, "enterprise": {"id": "E0ELSE"}, "user": {"team_id": "T0LOCAL"}, "is_enterprise_install": True},
            ),
            start=1,
        ):
            changed = of
            await here.slack.click(here.root, ACK)
            assert "I answer the people of my own workspace" in await here.answer("ana", number)
        changed = {"team": None, "enterprise": {"id": "E0ORG"}, "user": {"team_id": "E0ORG"}, "is_enterprise_install": True}
        await here.slack.click(here.root, ACK)
        assert "You see to it." in await here.answer("ana", 4)


# --- one effect ---


async def press(here: Incident, on: Message, action: str, user: str) -> None:
    """Press a button, and send off the dialog of the one that has one."""
    await here.slack.click(on, action, user=user)
    if action == ESCALATE:
        (view,) = await here.slack.until(lambda: here.slack.views(user))
        await here.slack.submit(view, {owning.TEXT: "nobody knows this service"})


async def test_scenario_6_two_people_and_a_repeated_envelope_have_one_effect_and_the_second_reads_by_whom(redis_url: str):
    async with incident(redis_url, **ESCALATION) as here:
        sent: list[tuple[Any, ...]] = []
        real = here.slack.delivery.send

        async def remembered(*payload: Any) -> Any:
            sent.append(payload)
            return await real(*payload)

        here.slack.delivery.send = remembered  # type: ignore[method-assign]
        for action, done, second in (
            (ACK, "You see to it.", "sees to it already"),
            (ESCALATE, "The next one is asked to see to it.", "escalated it already"),
            (UNACK, "Nobody sees to it now.", "gave it back already"),
        ):
            await here.slack.until(
                lambda a=action: any(a == e.get("action_id") for b in here.root.blocks for e in b.get("elements", ())), 10
            )
            counts = {user: len(here.slack.ephemerals(user)) for user in ("ana", "ben")}
            await asyncio.gather(press(here, here.root, action, "ana"), press(here, here.root, action, "ben"))
            both = [await here.answer(user, counts[user] + 1) for user in ("ana", "ben")]
            assert sorted(done in words for words in both) == [False, True]
            (late,) = (words for words in both if done not in words)
            winner = "U0ANA" if done in both[0] else "U0BEN"
            assert f"<@{winner}> {second}" in late
            for again in sent[-2:]:
                await real(*again)
            await asyncio.sleep(0.2)
            assert [len(here.slack.ephemerals(u)) for u in ("ana", "ben")] == [counts[u] + 1 for u in ("ana", "ben")]
        assert (await here.state())[3] == 1, "one step was taken"
        told = [(e.verb, e.result) for e in await here.audit() if e.why != "a dialog was opened"]
        assert sorted(told) == sorted((verb, result) for verb in ("ack", "escalate", "unack") for result in ("done", "already"))


async def test_who_comes_second_reads_by_whom_it_was_done_also_when_the_message_shows_it_already(redis_url: str):
    async with incident(redis_url, **ESCALATION) as here:
        for action, verb, second in ((ACK, "Acknowledged by", "sees to it already"), (ESCALATE, "step 1 of 2", "escalated it already")):
            pressed = Message(here.root.channel, here.root.ts, here.root.user, here.root.text, list(here.root.blocks))
            await press(here, pressed, action, "ana")
            await here.slack.until(lambda v=verb: v in here.root.words, 10)
            count = len(here.slack.ephemerals("ben")) + 1
            await press(here, pressed, action, "ben")
            assert f"<@U0ANA> {second}" in await here.answer("ben", count)
        pressed = Message(here.root.channel, here.root.ts, here.root.user, here.root.text, list(here.root.blocks))
        await here.slack.click(pressed, UNACK, user="ana")
        await here.slack.until(lambda: "Acknowledged by" not in here.root.words, 10)
        await here.slack.click(pressed, UNACK, user="ben")
        assert "<@U0ANA> gave it back already" in await here.answer("ben", 3)
        await here.slack.click(here.root, ACK, user="ben")
        await here.slack.until(lambda: "Acknowledged by <@U0BEN>" in here.root.words, 10)
        await here.slack.click(pressed, UNACK, user="ben")
        assert "Nobody sees to it now." in await here.answer("ben", 5)
        await here.slack.until(lambda: "Acknowledged by" not in here.root.words, 10)
        await here.slack.click(pressed, UNACK, user="ben")
        assert "Nobody sees to this alert." in await here.answer("ben", 6)
        assert (await here.state())[3] == 1


async def test_two_people_who_silence_the_same_make_one_silence_and_who_ends_it_second_reads_so(redis_url: str):
    async with incident(redis_url) as here:
        for user in ("ana", "ben"):
            await here.slack.click(here.root, SILENCE, user=user)
        views = [(await here.slack.until(lambda u=user: here.slack.views(u)))[0] for user in ("ana", "ben")]
        for view in views:
            await here.slack.submit(view, {messages.REASON: "we move it"})
        await asyncio.gather(*(here.slack.submit(view) for view in views))
        both = [await here.answer(user) for user in ("ana", "ben")]
        assert sorted("is silent now" in words for words in both) == [False, True]
        assert sum("silenced it already" in words for words in both) == 1
        await here.slack.until(lambda: "Silenced until" in here.root.words, 10)
        assert len(await here.bot.store.silences()) == 1
        await here.slack.command("/mesh silence destination.mynamespace 10m again", user="kim")
        assert "is silent for 10m" in await here.answer("kim"), "another silence is another matter"
        await asyncio.gather(here.slack.click(here.root, UNSILENCE, user="ana"), here.slack.click(here.root, UNSILENCE, user="ben"))
        both = [await here.answer(user, 2) for user in ("ana", "ben")]
        assert sorted("is no longer silent" in words for words in both) == [False, True]
        assert sum("ended this silence already" in words for words in both) == 1


async def test_a_button_that_outlived_its_alert_says_so(redis_url: str, slack: LocalSlack, tmp_path: Path):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    async with running(slack, redis_url, [ClusterSource("east", mesh="east", path=str(tmp_path / "east"))]) as bot:
        (root,) = await slack.until(lambda: [m for m in slack.messages("#mesh") if "destination.mynamespace" in m.words], 10)
        await slack.until(lambda: any(b["type"] == "actions" for b in root.blocks))
        stale = Message(root.channel, root.ts, root.user, root.text, list(root.blocks))
        (alert,) = (a for a in (await bot.store.alerts()).values() if "destination" in a.finding.host)
        await East(tmp_path / "east").deploy_v1()
        await slack.until(lambda: "Resolved after" in root.words, 10)

        async def pressed(action: str) -> str:
            count = len(slack.ephemerals("ana")) + 1
            await slack.click(stale, action)
            await slack.until(lambda: len(slack.ephemerals("ana")) >= count)
            return slack.ephemerals("ana")[-1].words

        assert await pressed(ACK) == "This alert is resolved already: nobody needs to see to it."
        assert await pressed(SILENCE) == "This alert is resolved already: there is nothing to silence."
        again = replace(alert, state=State.FIRING, message=f"{alert.id}-2", told=True)
        await bot.store.commit({alert.id: again}, now=time.time())
        assert "fires again since, in a newer message (destination.mynamespace)" in await pressed(ACK)
        assert (await bot.store.alerts())[alert.id].ack is None


# --- the audit when the store is away ---


async def test_what_people_do_while_the_store_is_away_is_in_the_log_and_kept_when_it_is_back(
    redis_url: str, slack: LocalSlack, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with running(slack, redis_url, [EAST], watching=False) as bot:
        pool = bot.store._redis.connection_pool
        path = pool.connection_kwargs["path"]
        await pool.disconnect()
        pool.connection_kwargs["path"] = "/nowhere"
        pool.reset()
        for count in (1, 2):
            await slack.command("/mesh why destination")
            await slack.until(lambda n=count: len(slack.ephemerals("ana")) >= n)
        away = [r.getMessage() for r in caplog.records if r.name == "bot.audit" and r.levelno == logging.ERROR]
        assert away == ["The store does not take the audit (ConnectionError): until it is back, this log alone has what people do."]
        lines: list[Any] = [r.audit for r in caplog.records if hasattr(r, "audit")]
        assert [(x["by"], x["verb"], x["about"]) for x in lines] == [("U0ANA", "why", ("destination.mynamespace.svc.cluster.local",))] * 2
        pool.connection_kwargs["path"] = path
        pool.reset()
        await slack.command("/mesh clusters")
        await slack.until(lambda: len(slack.ephemerals("ana")) >= 3)
        kept = [e.verb async for _, e in bot.door.audit.read(Wanted())]
        assert kept == ["clusters", "why", "why"]
        assert "takes the audit again" in caplog.text
