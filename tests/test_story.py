"""The article's first incident from end to end: a watch of manifests, the checks, the store, Bolt and the workspace, all of them real."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bot.clusters import ClusterSource
from bot.demo.runner import East
from bot.tell import WHY
from tests.apiserver import ApiServer
from tests.bots import RECORDED, alerts, running, source

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import LocalSlack, Message

TOLD = "95 % of destination.mynamespace fails: v1 has no endpoint"


async def headline(slack: LocalSlack, start: str, timeout_s: float = 3.0) -> Message:
    """The one alert of #mesh, as soon as its headline starts like this."""

    def told() -> Message | None:
        found = [
            m for m in slack.messages("#mesh") if not re.match("east cannot be read|Resolved after .*: east can be read again", m.words)
        ]
        assert len(found) <= 1, "one problem, one message"
        return found[0] if found and found[0].words.startswith(start) else None

    message: Message = await slack.until(told, timeout_s)
    return message


def items(recorded: Path) -> list[dict[str, Any]]:
    """The objects of a file, or of all files of a folder."""
    files = sorted(recorded.iterdir()) if recorded.is_dir() else [recorded]
    return [item for file in files for item in yaml.safe_load(file.read_text())["items"]]


def thread(slack: LocalSlack, root: Message) -> list[str]:
    return [m.words for m in slack.thread(root.channel, root.ts)[1:]]


async def test_the_alert_is_posted_resolved_by_deploying_v1_and_never_posted_twice(slack: LocalSlack, redis_url: str, folder: Path):
    east = East(folder)
    async with running(slack, redis_url, [source(folder)]):
        root = await headline(slack, TOLD, 5)
        assert "MESH101" in root.words
        assert "VirtualService mynamespace/destination" in root.words
        await slack.until(lambda: any(b["type"] == "image" for b in root.blocks), 15)
        fired, repair, proof, *_ = thread(slack, root)
        assert "fired" in fired
        assert "kubectl -n mynamespace patch virtualservice destination" in repair
        assert "istioctl proxy-config endpoints" in proof

        began = time.monotonic()
        await east.deploy_v1()
        await headline(slack, "Resolved after")
        assert time.monotonic() - began < 3
        assert "Deployment mynamespace/destination-v1 was created" in root.words
        assert "3 of 3 endpoints of Service mynamespace/destination ready" in root.words
        await slack.until(lambda: "resolved" in thread(slack, root)[-1])

    async with running(slack, redis_url, [source(folder)]):
        await asyncio.sleep(0.5)
        assert root.words.startswith("Resolved after")
        began = time.monotonic()
        await east.remove_v1()
        await headline(slack, TOLD)
        assert time.monotonic() - began < 3
        await slack.until(lambda: "again" in thread(slack, root)[-1])

    async with running(slack, redis_url, [source(folder)]):
        await asyncio.sleep(0.5)
    await headline(slack, TOLD)
    assert [m for m, a in slack.calls if m == "chat.postMessage" and "thread_ts" not in a] == ["chat.postMessage"]
    assert sum("fired" in line for line in thread(slack, root)) == 2


async def test_the_watch_events_of_an_api_server_resolve_the_alert_within_three_seconds(slack: LocalSlack, redis_url: str, tmp_path: Path):
    async with ApiServer(tls=True, token="s3cret") as server:  # noqa: S106 - a server of this test
        server.put(*items(RECORDED / "east"))
        live = ClusterSource("east", mesh="east", context="east", kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
        async with running(slack, redis_url, [live]):
            root = await headline(slack, TOLD, 5)
            lists = len(server.asked(verb="list"))
            began = time.monotonic()
            server.put(*items(RECORDED / "destination-v1.yaml"))
            await headline(slack, "Resolved after")
            assert time.monotonic() - began < 3
            assert "3 of 3 endpoints of Service mynamespace/destination ready" in root.words
            assert len(server.asked(verb="list")) == lists, "the watches told it"
        assert {r.verb for r in server.requests} == {"discovery", "list", "watch"}


async def test_a_cluster_that_cannot_be_read_makes_the_alert_unknown_and_never_resolved(slack: LocalSlack, redis_url: str, folder: Path):
    away = folder.with_name("away")
    async with running(slack, redis_url, [source(folder)]):
        root = await headline(slack, TOLD, 5)
        folder.rename(away)
        await headline(slack, "Unknown: destination.mynamespace", 5)
        assert not any(b["type"] == "image" for b in root.blocks), "what is not known is not drawn"
        away.rename(folder)
        await headline(slack, TOLD, 5)
        (lost,) = await slack.until(lambda: [m for m in slack.messages("#mesh") if m is not root], 5)  # a channel takes a post a second
        await slack.until(lambda: re.match("Resolved after .*: east can be read again", lost.words), 15)
        await slack.until(lambda: any("is not there" in line for line in thread(slack, lost)), 5)
    told = thread(slack, root)
    assert not any("resolved" in line for line in told)
    assert not any("unknown" in line for line in told), "the cluster's own message says it"


async def test_a_broken_file_keeps_the_alert_as_it_was(slack: LocalSlack, redis_url: str, folder: Path):
    text = (folder / "mynamespace.yaml").read_text()
    async with running(slack, redis_url, [source(folder)]):
        root = await headline(slack, TOLD, 5)
        (folder / "mynamespace.yaml").write_text(text[: len(text) // 2] + "\n  half: [written")
        await asyncio.sleep(1.5)
        assert root.words.startswith((TOLD, "Unknown"))
        (folder / "mynamespace.yaml").write_text(text)
        await headline(slack, TOLD, 5)
    assert not any("resolved" in line for line in thread(slack, root))


async def test_a_finding_that_does_not_last_is_never_posted(slack: LocalSlack, redis_url: str, folder: Path):
    east = East(folder)
    await east.deploy_v1()
    async with running(slack, redis_url, [source(folder)], alerts(**{"for": 1.5})):
        await east.remove_v1()
        await asyncio.sleep(0.9)
        await east.deploy_v1()
        await asyncio.sleep(1.5)
        assert slack.messages("#mesh") == []
        await east.remove_v1()
        await headline(slack, TOLD, 5)


async def test_the_alert_goes_to_the_channel_that_its_namespace_is_routed_to(slack: LocalSlack, redis_url: str, folder: Path):
    routes = [
        {"match": {"namespace": "elsewhere"}, "channel": "#ops"},
        {"match": {"label": {"istio-injection": "enabled"}, "cause": "subset-empty-weighted"}, "channel": "#payments"},
    ]
    async with running(slack, redis_url, [source(folder)], alerts(routes=routes)):
        await slack.until(lambda: slack.messages("#payments"))
    assert slack.messages("#mesh") == slack.messages("#ops") == []


async def test_why_in_the_thread_of_the_alert_explains_it(slack: LocalSlack, redis_url: str, folder: Path):
    async with running(slack, redis_url, [source(folder)]):
        root = await headline(slack, TOLD, 5)
        said = await slack.mention("why", thread_ts=root.ts)
        await slack.until(lambda: [m for m in slack.thread("#mesh", root.ts) if float(m.ts) > float(said.ts) and "v1" in m.words])


async def test_the_button_of_the_alert_diagnoses_its_host_for_who_presses_it(slack: LocalSlack, redis_url: str, folder: Path):
    async with running(slack, redis_url, [source(folder)]):
        root = await headline(slack, TOLD, 5)
        await slack.click(root, WHY, user="U0BEN")
        await slack.until(lambda: slack.ephemerals("ben"))
        assert "MESH101" in slack.ephemerals("ben")[0].words
        await East(folder).deploy_v1()
        await headline(slack, "Resolved after")
        with pytest.raises(KeyError):
            root.element(WHY)
