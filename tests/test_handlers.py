"""What people do in Slack, through the real Bolt over Socket Mode against the local workspace."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bot.alerts import Alert, State
from bot.clusters import ClusterSource
from bot.demo.slack import LocalSlack, Message
from bot.demo.workspace import View
from bot.store import Delivery, Draft
from handlers.mesh import VERBS, typed
from templates import blocks, messages
from tests.bots import FINDING, RECORDED, Bot, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

EAST = ClusterSource("east", mesh="east", path=str(RECORDED / "east"))
WEST = ClusterSource("west", mesh="west", path=str(RECORDED / "west"))


@pytest.fixture
async def bot(slack: LocalSlack, redis_url: str) -> AsyncIterator[Bot]:
    async with running(slack, redis_url, [EAST, WEST], watching=False) as bot:
        yield bot


async def told(slack: LocalSlack, user: str = "ana", count: int = 1) -> Message:
    """The newest of `count` answers that only this person sees."""
    await slack.until(lambda: len(slack.ephemerals(user)) >= count)
    return slack.ephemerals(user)[-1]


async def asked(slack: LocalSlack, text: str, **where: Any) -> Message:
    count = len(slack.ephemerals("ana")) + 1
    await slack.command(text, **where)
    return await told(slack, count=count)


@pytest.mark.usefixtures("bot")
async def test_why_is_answered_for_the_person_alone(slack: LocalSlack):
    answer = await asked(slack, "/mesh why destination")
    assert "95 %" in answer.words
    assert "destination.mynamespace" in answer.words
    assert slack.messages("#mesh") == []


@pytest.mark.usefixtures("bot")
async def test_every_verb_of_help_works(slack: LocalSlack):
    listed = (await asked(slack, "/mesh help")).words
    assert all(verb.written in listed for verb in VERBS.values())
    assert "destination" in (await asked(slack, "/mesh routes destination")).words
    assert "2 of 2 clusters read completely" in (await asked(slack, "/mesh clusters")).words
    assert "subset-empty-weighted" in (await asked(slack, "/mesh explain MESH101")).words
    assert "MESH101" in (await asked(slack, "/mesh explain subset-empty-weighted")).words
    assert "hosts" in (await asked(slack, "/mesh broken")).words


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("/mesh wyh destination", "Did you mean `/mesh why`"),
        ("/mesh why destinaton.mynamespace", "Did you mean destination.mynamespace"),
        ("/mesh why", "Which host?"),
        ("/mesh routes", "Which host?"),
        ("/mesh explain MESH9999", "No known cause"),
        ("/mesh explain kia0203", "KIA0203 is said of "),
        ("/mesh explain", "Which cause?"),
        ("/mesh frobnicate everything", "I do not know `frobnicate`"),
        ("/mesh", "What I answer"),
        ("/mesh destination", "95 %"),
        ("/mesh WHY `destination`?", "95 %"),
    ],
)
async def test_what_is_typed_wrongly_or_briefly_is_still_answered(slack: LocalSlack, words: str, answer: str):
    assert answer in (await asked(slack, words)).words


@pytest.mark.usefixtures("bot")
async def test_what_a_person_types_pings_nobody(slack: LocalSlack):
    answer = await asked(slack, "/mesh why <!channel&`x`@here<!subteam^S0SRE")
    assert answer.pings == ()
    assert "!channel" in answer.words


async def test_the_acknowledgement_comes_before_the_work(slack: LocalSlack, bot: Bot, monkeypatch: pytest.MonkeyPatch):
    arrived, gate = asyncio.Event(), asyncio.Event()
    real = bot.sweeper.sweep

    async def slow() -> Any:
        arrived.set()
        await gate.wait()
        return await real()

    monkeypatch.setattr(bot.sweeper, "sweep", slow)
    async with asyncio.timeout(2):
        await slack.command("/mesh broken")
        await arrived.wait()
    assert slack.ephemerals("ana") == []
    gate.set()
    assert (await told(slack)).words


# --- whatif ------------------------------------------------------------------------------------------------------------------

RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: destination, namespace: mynamespace}
spec:
  hosts: [destination]
  http:
  - route:
    - destination: {host: destination, subset: v3}
"""


async def dialog(slack: LocalSlack) -> View:
    await slack.command("/mesh whatif")
    (view,) = await slack.until(lambda: slack.views("ana"))
    assert isinstance(view, View)
    return view


@pytest.mark.usefixtures("bot")
async def test_a_pasted_change_is_weighed_for_the_person_alone(slack: LocalSlack):
    view = await dialog(slack)
    await slack.submit(view, {messages.PASTED: RULE})
    answer = await told(slack)
    assert "1 error introduced, 1 finding resolved" in answer.words
    assert "MESH106 subset-undefined" in answer.words
    assert "VirtualService mynamespace/destination in east: replaced" in answer.words
    assert (slack.views("ana"), slack.messages("#mesh")) == ([], [])
    await slack.click(answer, messages.SHARE)
    await slack.until(lambda: slack.messages("#mesh"))


@pytest.mark.usefixtures("bot")
async def test_a_file_is_weighed_as_what_is_pasted(slack: LocalSlack):
    view = await dialog(slack)
    await slack.submit(view, {messages.FILE: {"change.yaml": RULE.replace("v3", "v2")}})
    answer = await told(slack)
    assert "Nothing introduced, 1 finding resolved" in answer.words


@pytest.mark.usefixtures("bot")
async def test_what_is_chosen_in_the_dialog_decides_where_and_how(slack: LocalSlack):
    view = await dialog(slack)
    await slack.submit(view, {messages.PASTED: RULE, messages.CLUSTER: "west"})
    assert "VirtualService mynamespace/destination in west: created" in (await told(slack)).words
    view = await dialog(slack)
    await slack.submit(view, {messages.PASTED: RULE.replace("VirtualService", "DestinationRule"), messages.DELETE: [messages.DELETE]})
    answer = await told(slack, count=2)
    assert "DestinationRule mynamespace/destination in east: deleted" in answer.words
    assert "MESH106 subset-undefined" in answer.words


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize(
    ("given", "at", "said"),
    [
        ({}, messages.PASTED, "Paste the manifests here, or choose a file."),
        ({messages.PASTED: "kind: ["}, messages.PASTED, "the pasted text:2: it is not YAML"),
        ({messages.PASTED: "a: b"}, messages.PASTED, "the pasted text holds no Kubernetes manifests"),
        (
            {messages.PASTED: RULE.replace("[destination]", "7")},
            messages.PASTED,
            "VirtualService mynamespace/destination cannot be understood",
        ),
        ({messages.PASTED: RULE.replace("name: d", "name: un"), messages.DELETE: [messages.DELETE]}, messages.PASTED, "cannot be deleted"),
        ({messages.FILE: {"s.yaml": "kind: Job\napiVersion: batch/v1\n"}}, messages.FILE, "s.yaml holds manifests, but none of a kind"),
        ({messages.FILE: {"big.yaml": "#" * (5 << 20)}}, messages.FILE, "big.yaml is larger than 4 MiB"),
    ],
)
async def test_what_is_wrong_is_said_at_the_input_and_can_be_mended(slack: LocalSlack, given: dict[str, Any], at: str, said: str):
    view = await dialog(slack)
    await slack.submit(view, given)
    assert said in view.errors[at]
    assert slack.ephemerals("ana") == []
    await slack.submit(view, {messages.PASTED: RULE, messages.FILE: {}, messages.DELETE: []})
    assert "1 error introduced" in (await told(slack)).words


@pytest.mark.usefixtures("bot")
async def test_a_file_that_slack_does_not_give_is_said(slack: LocalSlack):
    view = await dialog(slack)
    slack.fault("files.info", error="file_deleted")
    await slack.submit(view, {messages.FILE: {"change.yaml": RULE}})
    assert view.errors[messages.FILE] == "Slack does not give me the file (file_deleted)."


@pytest.mark.usefixtures("bot")
async def test_the_token_is_sent_to_slack_only(slack: LocalSlack, monkeypatch: pytest.MonkeyPatch):
    view = await dialog(slack)
    monkeypatch.setattr(slack.workspace, "file_url", lambda _: "http://files.slack.com.example/steal")
    await slack.submit(view, {messages.FILE: {"change.yaml": RULE}})
    assert "is not kept by Slack" in view.errors[messages.FILE]


@pytest.mark.usefixtures("bot")
async def test_a_slow_file_closes_the_dialog_in_time_and_is_answered_later(slack: LocalSlack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handlers.whatif.SUBMIT_S", 0.1)
    slack.fault("files.info", delay=0.5)
    view = await dialog(slack)
    await slack.submit(view, {messages.FILE: {"change.yaml": "kind: ["}})
    assert slack.views("ana") == []
    assert "change.yaml:2: it is not YAML" in (await told(slack)).words


@pytest.mark.usefixtures("bot")
async def test_a_dialog_that_was_left_open_for_long_still_answers(slack: LocalSlack):
    view = await dialog(slack)
    slack._responses.clear()
    await slack.submit(view, {messages.PASTED: RULE})
    assert "1 error introduced" in (await told(slack)).words


@pytest.mark.usefixtures("bot")
async def test_a_dialog_that_slack_does_not_open_is_said(slack: LocalSlack):
    slack.fault("views.open", error="expired_trigger_id")
    assert "did not let me open the dialog (expired_trigger_id)" in (await asked(slack, "/mesh whatif")).words


@pytest.mark.usefixtures("bot")
async def test_a_mention_or_a_direct_message_with_a_snippet_is_weighed_where_it_was_said(slack: LocalSlack):
    said = await slack.mention("whatif", files={"change.yaml": RULE})
    (_, reply) = await slack.until(lambda: len(t := slack.thread("#mesh", said.ts)) > 1 and t)
    assert "1 error introduced" in reply.words
    await slack.dm("whatif", files={"change.yaml": RULE})
    await slack.until(lambda: len(slack.messages("@ana")) == 2)
    assert "1 error introduced" in slack.messages("@ana")[-1].words
    await slack.dm("whatif", files={"change.yaml": "nothing"})
    await slack.until(lambda: len(slack.messages("@ana")) == 4)
    assert "change.yaml holds no Kubernetes manifests" in slack.messages("@ana")[-1].words


@pytest.mark.usefixtures("bot")
async def test_a_change_can_be_pasted_into_a_mention(slack: LocalSlack):
    said = await slack.mention(f"whatif ```{RULE}```")
    (_, reply) = await slack.until(lambda: len(t := slack.thread("#mesh", said.ts)) > 1 and t)
    assert "1 error introduced" in reply.words
    await slack.dm("whatif")
    await slack.until(lambda: len(slack.messages("@ana")) == 2)
    assert "What is to change?" in slack.messages("@ana")[-1].words


@pytest.mark.usefixtures("bot")
async def test_an_answer_is_shared_once_and_says_by_whom(slack: LocalSlack):
    answer = await asked(slack, "/mesh why destination")
    _, button = answer.element(messages.SHARE)
    assert len(button["value"]) <= 80
    await asyncio.gather(slack.click(answer, messages.SHARE), slack.click(answer, messages.SHARE))
    await slack.until(lambda: len(slack.ephemerals("ana")) == 2)
    await slack.until(lambda: not any(b["type"] == "actions" for b in answer.blocks))  # whoever was second may have been told first
    (shared,) = slack.messages("#mesh")
    assert "95 %" in shared.words
    assert shared.pings == ("U0ANA",)
    with pytest.raises(KeyError):
        shared.element(messages.SHARE)
    with pytest.raises(KeyError):
        answer.element(messages.SHARE)
    assert "already" in slack.ephemerals("ana")[-1].words


@pytest.mark.usefixtures("bot")
async def test_a_channel_that_the_bot_may_not_write_in_is_told_and_the_button_still_works_later(slack: LocalSlack):
    answer = await asked(slack, "/mesh why destination")
    slack.fault("chat.postMessage", error="not_in_channel")
    await slack.click(answer, messages.SHARE)
    assert "not_in_channel" in (await told(slack, count=2)).words
    await slack.click(answer, messages.SHARE)
    await slack.until(lambda: slack.messages("#mesh"))


@pytest.mark.usefixtures("bot")
async def test_an_answer_that_slack_refuses_goes_out_smaller(slack: LocalSlack):
    answer = await asked(slack, "/mesh why destination")
    slack.fault("chat.postMessage", error="invalid_blocks", times=2)
    await slack.click(answer, messages.SHARE)
    (shared,) = await slack.until(lambda: slack.messages("#mesh"))
    assert not shared.blocks
    assert "95 %" in shared.text


@pytest.mark.usefixtures("bot")
async def test_a_mention_is_answered_in_its_thread(slack: LocalSlack):
    said = await slack.mention("why destination.mynamespace", channel="#payments")
    (_, reply) = await slack.until(lambda: len(t := slack.thread("#payments", said.ts)) > 1 and t)
    assert "95 %" in reply.words
    again = await slack.mention("help", channel="#payments", thread_ts=said.ts)
    assert again.thread_ts == said.ts
    await slack.until(lambda: len(slack.thread("#payments", said.ts)) == 4)
    assert "What I answer" in slack.thread("#payments", said.ts)[-1].words


@pytest.mark.usefixtures("bot")
async def test_an_answer_that_slack_does_not_take_now_is_given_when_it_does(slack: LocalSlack, caplog: pytest.LogCaptureFixture):
    slack.fault("chat.postMessage", retry_after=1)
    said = await slack.mention("why destination.mynamespace")
    (_, reply) = await slack.until(lambda: len(t := slack.thread("#mesh", said.ts)) > 1 and t)
    assert "95 %" in reply.words
    slack.fault("chat.postMessage", error="is_archived", times=3)
    await slack.mention("why destination.mynamespace")
    await slack.until(lambda: "An answer could not be given: SlackApiError" in caplog.text)
    await asyncio.sleep(0.1)
    assert not [r for r in caplog.records if r.name == "asyncio"]


@pytest.mark.usefixtures("bot")
async def test_a_direct_message_is_answered_where_it_was_written(slack: LocalSlack):
    await slack.dm("why destination")
    await slack.until(lambda: len(slack.messages("@ana")) == 2)
    assert "95 %" in slack.messages("@ana")[-1].words
    await slack.dm("why nothing.at.all")
    await slack.until(lambda: len(slack.messages("@ana")) == 4)
    assert "No host" in slack.messages("@ana")[-1].words


async def test_why_in_the_thread_of_an_alert_means_its_host(slack: LocalSlack, bot: Bot):
    root = await slack.say("an alert")
    await bot.store.commit({"a1": Alert(id="a1", state=State.FIRING, finding=FINDING, since=1.0)}, now=1)
    draft = Draft(id="a1-1", alert="a1", channel="#mesh", message=blocks.Message("an alert"))
    await bot.store.record(draft, Delivery(channel=root.channel, ts=root.ts, rev=1))
    await slack.mention("why", thread_ts=root.ts)
    await slack.until(lambda: len(slack.thread("#mesh", root.ts)) == 3)
    assert "95 %" in slack.thread("#mesh", root.ts)[-1].words


async def test_a_repeated_envelope_has_one_effect(slack: LocalSlack, bot: Bot):
    """Slack sends an envelope again when the acknowledgement is lost; the trigger id, the timestamp stay the same."""
    payload: dict[str, Any] = {}
    real = slack.delivery.send

    async def remembered(kind: str, sent: dict[str, Any]) -> Any:
        payload.update({"kind": kind, "sent": sent})
        return await real(kind, sent)

    slack.delivery.send = remembered  # type: ignore[method-assign]
    await asked(slack, "/mesh clusters")
    await real(payload["kind"], payload["sent"])
    await asyncio.sleep(0.3)
    assert len(slack.ephemerals("ana")) == 1
    assert await bot.store.once("command:another")


async def test_pages_of_routes_turn_in_place_for_oneself_and_beside_what_was_shared(slack: LocalSlack, redis_url: str, tmp_path: Path):
    folder = tmp_path / "many"
    shutil.copytree(RECORDED / "east", folder)
    rules = [
        {"name": f"rule-{i}", "match": [{"uri": {"prefix": f"/{i}"}}], "route": [{"destination": {"host": "many"}}]} for i in range(30)
    ]
    spec = {"hosts": ["many"], "http": rules}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many", "namespace": "mynamespace"}}
    many = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "many", "namespace": "mynamespace"}}
    (folder / "many.yaml").write_text(
        yaml.safe_dump_all([service | {"spec": {"ports": [{"name": "http", "port": 80}]}}, many | {"spec": spec}])
    )
    async with running(slack, redis_url, [ClusterSource("east", mesh="east", path=str(folder))], watching=False):
        answer = await asked(slack, "/mesh routes many")
        assert "page 1 of" in answer.words
        await slack.click(answer, messages.NEXT)
        await slack.until(lambda: "page 2 of" in answer.words)
        await slack.click(answer, messages.SHARE)
        (shared,) = await slack.until(lambda: slack.messages("#mesh"))
        await slack.click(shared, messages.PREVIOUS, user="U0BEN")
        await slack.until(lambda: any("page 1 of" in m.words for u in slack.workspace.users for m in slack.ephemerals(u)))
        assert "page 2 of" in shared.words, "what everybody sees is not turned by one"


@pytest.mark.usefixtures("bot")
async def test_a_question_that_breaks_something_gets_a_sentence_and_a_reference(
    slack: LocalSlack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> None:
        raise RuntimeError("a programming error")

    monkeypatch.setattr("checks.diagnosis.why", broken)
    answer = await asked(slack, "/mesh why destination")
    assert "broke something in me" in answer.words
    assert "RuntimeError" not in answer.words
    assert "a programming error" in caplog.text


async def test_answers_come_without_a_store_too(slack: LocalSlack, bot: Bot):
    await bot.store.close()
    bot.store._redis.connection_pool.connection_kwargs["path"] = "/nowhere"
    bot.store._redis.connection_pool.reset()
    answer = await asked(slack, "/mesh why destination")
    assert "95 %" in answer.words
    with pytest.raises(KeyError):
        answer.element(messages.SHARE)


@pytest.mark.usefixtures("bot")
async def test_an_old_button_still_says_something(slack: LocalSlack):
    posted = slack.workspace.put(
        Message(
            slack.channel("#mesh").id,
            slack.workspace.next_ts(),
            "U0MESHWHY",
            "old",
            [
                {
                    "type": "actions",
                    "block_id": "b",
                    "elements": [
                        {"type": "button", "action_id": "from_last_year", "text": {"type": "plain_text", "text": "Do"}, "value": "1"}
                    ],
                }
            ],
        )
    )
    await slack.click(posted, "from_last_year")
    assert "another version" in (await told(slack)).words


@pytest.mark.usefixtures("bot")
async def test_no_log_holds_a_token_or_what_people_wrote(slack: LocalSlack, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    await asked(slack, "/mesh why s3cret-host")
    await slack.say("s3cret-word to nobody in particular @meshwhy")
    await asyncio.sleep(0.2)
    for secret in (slack.bot_token, slack.app_token, "s3cret"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("stored", "meant"),
    [
        ("<@U0MESHWHY> why <http://payments.core|payments.core>", "why payments.core"),
        ("why <http://api.partner.example:8443>", "why api.partner.example:8443"),
        ("<@U1|bot> /mesh why a &amp; b &lt;c&gt;", "why a & b <c>"),
        ("<!here> broken", "broken"),
    ],
)
def test_text_is_read_as_it_was_typed(stored: str, meant: str):
    assert typed(stored) == meant
