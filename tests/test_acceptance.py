"""Scenarios that other bots of this kind fail, each against the local Slack, which refuses what Slack refuses, and a real Valkey.

The others of the fifteen stand with what they are about: 3 (a storm and 429) in test_outbox, test_sweep and bench/storm, 4 (killed between a post
and its answer) in test_kills, 5 (a paused leader) in test_replicas, 9 (pictures) and 12 (closed channels, dead tokens) in test_outbox, 10 (a
half-open socket makes the bot unready until it is rebuilt) in test_observed, 6 and 11 (two people at one button; no right to silence) in test_door.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
from typing import TYPE_CHECKING

import yaml
from msgspec.structs import replace

from bot import manifests
from bot.alerts import State
from bot.clusters import ClusterSource
from bot.demo.runner import East
from bot.demo.slack import BOT
from bot.store import Deed
from bot.tell import ACK
from templates import messages
from templates.blocks import Message as Words
from templates.blocks import measure
from tests.apiserver import ApiServer
from tests.bots import RECORDED, alerts, running, source
from tests.test_together import with_subsets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack, Message
    from tests.asking import Answer

HOST = "destination.mynamespace"


async def root_of(slack: LocalSlack, words: str = f"95 % of {HOST} fails") -> Message:
    found: list[Message] = await slack.until(lambda: [m for m in slack.messages("#mesh") if words in m.words], 15)
    return found[0]


def thread(slack: LocalSlack, root: Message) -> list[str]:
    return [m.words for m in slack.thread(root.channel, root.ts)[1:]]


async def asked(slack: LocalSlack, words: str, user: str = "ana") -> Message:
    count = len(slack.ephemerals(user)) + 1
    await slack.command(f"/mesh {words}", user=user)
    await slack.until(lambda: len(slack.ephemerals(user)) >= count, 10)
    return slack.ephemerals(user)[-1]


async def test_scenario_1_a_route_that_breaks_and_recovers_five_times_is_one_message_that_says_it_flaps(
    slack: LocalSlack, redis_url: str, folder: Path
):
    east = East(folder)
    async with running(slack, redis_url, [source(folder)]):
        root = await root_of(slack)
        for number in range(2, 6):
            await east.deploy_v1()
            await slack.until(lambda n=number: "Resolved after" in root.words or n > 3, 10)
            await asyncio.sleep(0.5 if number > 3 else 0)
            await east.remove_v1()
            await slack.until(lambda n=number: "Resolved" not in root.words and ("Flapping" in root.words) == (n > 2), 10)
        await asyncio.sleep(0.5)
    assert [m for m in slack.messages("#mesh") if HOST in m.words] == [root], "one root message, and nothing broadcast"
    assert sum("*flapping*" in line for line in thread(slack, root)) == 1
    assert sum("*fired*" in line for line in thread(slack, root)) == 2, "the third time it is said that it flaps, and then no more"


async def test_scenario_2_a_cluster_that_cannot_be_read_is_one_message_and_its_forty_alerts_stay_unknown(
    slack: LocalSlack, redis_url: str, tmp_path: Path
):
    async with ApiServer(tls=True, token="s3cret") as server:  # noqa: S106 - a server of this test
        server.put(*with_subsets(40, broken=40))
        live = ClusterSource("east", mesh="east", context="east", kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
        async with running(slack, redis_url, [live]) as bot:
            storm = await root_of(slack, "40 hosts fail")
            await server.down()
            await slack.until(lambda: len(slack.messages("#mesh")) > 1, 15)
            (lost,) = (m for m in slack.messages("#mesh") if m is not storm)
            await slack.until(lambda: lost.words.startswith("east cannot be read") and "40 alerts of it stay as they are" in lost.words, 15)
            await slack.until(lambda: storm.words.startswith("Unknown: 40 hosts"), 15)
            known = [a for a in (await bot.store.alerts()).values() if a.finding.cause == "subset-empty-all"]
            assert len(known) == 40
            assert all(a.state is State.FIRING and a.unknown_since is not None for a in known)
            await bot.sweeper.look()
            await asyncio.sleep(0.5)
            assert slack.messages("#mesh") == [storm, lost]
            assert not any("resolved" in line for m in (storm, lost) for line in thread(slack, m))
            listed = (await asked(slack, "alerts")).words
            assert "not known since" in listed


async def test_scenario_6_a_resolve_in_between_wins_over_an_ack_that_is_on_its_way(slack: LocalSlack, redis_url: str, folder: Path):
    async with running(slack, redis_url, [source(folder)]) as bot:
        root = await root_of(slack)
        await slack.until(lambda: any(b["type"] == "actions" for b in root.blocks))
        (alert,) = (a for a in (await bot.store.alerts()).values() if HOST in a.finding.host)
        await East(folder).deploy_v1()
        await slack.until(lambda: "Resolved after" in root.words, 10)
        # The click was taken while it fired, and is heard after it is well.
        await bot.store.do(Deed(verb="ack", by="U0ANA", at=time.time(), message=alert.message))
        await slack.until(lambda: bot.sweeper._deeds == [], 10)
        await asyncio.sleep(0.3)
        assert "Resolved after" in root.words
        (resolved,) = (await bot.store.resolved([alert.id])).values()
        assert (resolved.state, resolved.ack) == (State.RESOLVED, None)
        assert not any("acknowledged" in line for line in thread(slack, root))


async def test_scenario_7_what_a_cluster_calls_its_objects_pings_nobody_and_stays_readable(slack: LocalSlack, redis_url: str, folder: Path):
    evil = "`<!channel> <@U0BEN> *x*\u202egnp.exe"
    spec = {"hosts": ["evil"], "http": [{"name": evil, "route": [{"destination": {"host": "evil", "subset": "v9👩‍👩‍👧"}}]}]}
    notes = {"note": evil + "👩‍👩‍👧" * 2_000}
    meta = {"name": "evil", "namespace": "mynamespace", "annotations": notes}
    made = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {**meta, "name": f"evil-{evil}"}, "spec": spec},
    ]
    (folder / "evil.yaml").write_text(yaml.safe_dump_all(made, allow_unicode=True))
    async with running(slack, redis_url, [source(folder)]):
        root = await root_of(slack, "evil.mynamespace")
        await slack.until(lambda: len(thread(slack, root)) >= 3, 15)
        answer = await asked(slack, "why evil.mynamespace")
        await slack.click(answer, messages.SHARE)
        told = [*slack.thread(root.channel, root.ts), answer, *slack.messages("#mesh")]
    assert {ping for m in told for ping in m.pings} <= {"U0ANA"}, "who shared an answer is named, and nobody else"
    for message in told:
        assert "\u202e" not in json.dumps(message.blocks, ensure_ascii=False)
        assert not re.search("\u200d(?![\U0001f466-\U0001f469])", message.words), "no grapheme is cut"
    assert "VirtualService mynamespace/evil-" in root.words


async def test_scenario_8_four_hundred_routes_come_in_pages_that_fit_and_as_a_file_in_the_thread(
    slack: LocalSlack, redis_url: str, folder: Path
):
    rules = [
        {"name": f"=rule-{i}", "match": [{"uri": {"prefix": f"/{i}"}}], "route": [{"destination": {"host": "many"}}]} for i in range(400)
    ]
    meta = {"name": "many", "namespace": "mynamespace"}
    made = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": {"hosts": ["many"], "http": rules}},
    ]
    (folder / "many.yaml").write_text(yaml.safe_dump_all(made))
    async with running(slack, redis_url, [source(folder)], watching=False):
        page, pages, seen = await asked(slack, "routes many"), 1, ""
        while True:
            assert measure(Words(page.text, tuple(page.blocks))) == []
            seen += page.words
            try:
                page.element(messages.NEXT)
            except KeyError:
                break
            await slack.click(page, messages.NEXT)
            pages += 1
            await slack.until(lambda n=pages: f"page {n} of" in page.words)
        assert pages > 10
        assert all(re.search(rf"\b{i}\b", seen) for i in range(1, 401)), "no rule is missing"

        await slack.click(page, messages.SHEET)
        await slack.until(lambda: "direct messages" in slack.ephemerals("ana")[-1].words, 10)
        (told,) = slack.messages("@ana")
        (_, reply) = slack.thread("@ana", told.ts)
        rows = list(csv.DictReader(io.StringIO((slack.workspace.files[reply.files[0]].content or b"").decode())))
        assert {row["path"] for row in rows} == {f"spec.http[{i}]" for i in range(400)}
        assert {row["host"] for row in rows} == {"many.mynamespace.svc.cluster.local"}
        assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values()), "no cell is a formula"

        said = await slack.mention("routes many")
        (_, answer) = await slack.until(lambda: len(t := slack.thread("#mesh", said.ts)) > 1 and t, 10)
        await slack.click(answer, messages.SHEET, user="U0BEN")
        (*_, reply) = await slack.until(lambda: len(t := slack.thread("#mesh", said.ts)) > 2 and t, 10)
        assert len(reply.files) == 1


async def test_scenario_8_a_file_that_slack_does_not_take_is_said(slack: LocalSlack, redis_url: str, folder: Path):
    meta = {"name": "many", "namespace": "mynamespace"}
    rules = [{"match": [{"uri": {"prefix": f"/{i}"}}], "route": [{"destination": {"host": "many"}}]} for i in range(40)]
    made = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": {"hosts": ["many"], "http": rules}},
    ]
    (folder / "many.yaml").write_text(yaml.safe_dump_all(made))
    async with running(slack, redis_url, [source(folder)], watching=False):
        page = await asked(slack, "routes many")
        slack.fault("files.completeUploadExternal", error="file_uploads_disabled")
        await slack.click(page, messages.SHEET)
        await slack.until(lambda: "Slack did not take the file (file_uploads_disabled)." in slack.ephemerals("ana")[-1].words, 10)


async def test_scenario_10_while_the_socket_of_one_bot_is_half_open_another_one_answers(slack: LocalSlack, redis_url: str, folder: Path):
    slack.delivery.ack_seconds = 0.5
    async with running(slack, redis_url, [source(folder)], watching=False):
        slack.half_open()
        async with running(slack, redis_url, [source(folder)], watching=False):
            assert [one.half_open for one in slack.delivery.connections] == [True, False]
            for _ in range(20):  # Slack does not know, and sends a command to either
                answer = await asked(slack, f"why {HOST}")
                if "95 %" in answer.words:
                    break
                assert "operation_timeout" in answer.words
            assert "95 %" in answer.words
            assert answer.user == BOT


async def test_scenario_13_what_nobody_saw_to_while_every_bot_was_down_is_escalated_once_and_says_how_late(
    slack: LocalSlack, redis_url: str, folder: Path
):
    settings = alerts(escalation=[{"after": "10m", "to": "S0SRE"}, {"after": "2h", "to": "U0KIM"}])
    async with running(slack, redis_url, [source(folder)], settings) as bot:
        root = await root_of(slack)
        await slack.until(lambda: len(thread(slack, root)) >= 3, 15)
        (alert,) = (a for a in (await bot.store.alerts()).values() if HOST in a.finding.host)
    async with running(slack, redis_url, [source(folder)], settings, watching=False) as bot:
        # Half an hour passes without any bot.
        late = replace(alert, since=alert.since - 1800, fired_at=(alert.fired_at or 0.0) - 1800)
        await bot.store.commit({alert.id: late}, now=time.time())
    for _ in range(2):
        async with running(slack, redis_url, [source(folder)], settings):
            await slack.until(lambda: any("*escalated*" in line for line in thread(slack, root)), 15)
            await asyncio.sleep(0.5)
    (line,) = (line for line in thread(slack, root) if "*escalated*" in line)
    assert "<!subteam^S0SRE> *escalated*, step 1 of 2" in line
    assert "20 min late: no bot was there to say it in time" in line
    async with running(slack, redis_url, [source(folder)], settings):
        await slack.click(root, ACK)
        await slack.until(lambda: "Acknowledged by <@U0ANA>" in root.words, 10)


async def test_scenario_14_a_recording_is_answered_with_the_blocks_of_the_live_answer(
    slack: LocalSlack, redis_url: str, tmp_path: Path, ask: Callable[..., Answer]
):
    async with ApiServer(tls=True, token="s3cret") as server:  # noqa: S106 - a server of this test
        for file in sorted((RECORDED / "east").glob("*.yaml")):
            for each in yaml.safe_load_all(file.read_text()):
                server.put(*(each.get("items") or [each]))
        config = server.kubeconfig(tmp_path / "kubeconfig")
        live = ClusterSource("east", mesh="east", context="east", kubeconfig=config)
        async with running(slack, redis_url, [live], watching=False) as bot:
            answer = await asked(slack, f"why {HOST}")
            (cluster,) = bot.clusters.clusters()
            manifests.write(cluster, str(tmp_path / "east.tar.gz"))
    replayed = await asyncio.to_thread(lambda: ask("why", HOST, "--from", f"east={tmp_path / 'east.tar.gz'}", "-o", "slack").json)
    assert replayed["text"] == answer.text
    without_share = [{k: v for k, v in b.items() if k != "block_id"} for b in answer.blocks if b["type"] != "actions"]
    aged = re.compile(r"\b[\d.]+ (?:s|min) old\b")  # how long ago it was read is not what it says
    assert aged.sub("", json.dumps(replayed["blocks"])) == aged.sub("", json.dumps(without_share))


async def test_scenario_15_a_doubled_entry_is_named_with_both_objects_and_which_one_counts(slack: LocalSlack, redis_url: str):
    west = ClusterSource("west", mesh="west", path=str(RECORDED / "west"))
    async with running(slack, redis_url, [west], watching=False):
        answer = (await asked(slack, "why api-pl.partner.example")).words
    assert "ServiceEntry egress/partner-pl (older, kept) and ServiceEntry egress/partner-pl-new" in answer
    assert "drops port 8443 of ServiceEntry egress/partner-pl-new" in answer
