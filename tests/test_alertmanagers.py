"""Alertmanager on both sides: what it is told of what fires, and what is said in Slack of what it tells."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from msgspec.structs import replace
from pydantic import SecretStr

from bot import alertmanagers
from bot.alertmanagers import NotUnderstood, Relay, Said, answered, understood
from bot.alerts import Alert, Silence, State
from bot.demo.runner import East
from bot.settings import AlertmanagerSend
from bot.store import Deed, Delivery, Draft
from bot.sweep import Sweeper
from checks.mesh import Mesh
from templates.blocks import Message
from tests import ports
from tests.bots import FINDING, RECORDED, alerts, alongside, serving
from tests.localslack import web as client
from tests.test_pager import listening, soon
from tests.test_sweep import BROKEN, WELL, World
from tests.test_together import does, waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from bot.store import Store

HOST = "destination.mynamespace.svc.cluster.local"
TOKEN = SecretStr("hush-am")


class Manager:
    """An Alertmanager's API: what was posted, kept as it keeps it."""

    def __init__(self) -> None:
        self.posts: list[list[dict[str, Any]]] = []
        self.ends: dict[str, float] = {}  # meshwhy_id -> endsAt
        self.answers: list[int] = []
        self.authorization = ""
        self.url = ""

    async def _take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.authorization = request.headers.get("Authorization", "")
            self.posts.append(await request.json())
            for alert in self.posts[-1]:
                self.ends[alert["labels"]["meshwhy_id"]] = datetime.fromisoformat(alert["endsAt"]).timestamp()
        return web.Response(status=status)

    def active(self) -> set[str]:
        """What it holds for firing."""
        return {key for key, ends in self.ends.items() if ends > time.time()}


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    manager = Manager()
    async with listening("/prefix/api/v2/alerts", manager._take) as address:
        manager.url = f"{address}/prefix/"
        yield manager


@asynccontextmanager
async def relaying(store: Store, slack: LocalSlack, manager: Manager) -> AsyncIterator[None]:
    to = AlertmanagerSend(url=manager.url, token=TOKEN, labels={"source": "meshwhy"})
    async with alongside(Relay(store, [to], client(slack)).run()):
        yield


FIRING = Alert(id="a1", state=State.FIRING, finding=FINDING, since=1_760_000_000.0, fired_at=1_760_000_010.0, told=True, message="a1-1")


async def put(store: Store, *alerts_: Alert) -> None:
    await store.commit({a.id: a for a in alerts_}, now=time.time())


async def holds(manager: Manager, *ids: str) -> None:
    async def so() -> bool:
        return manager.active() == set(ids)

    await soon(so)


# --- out ---


async def test_what_fires_is_told_by_labels_that_do_not_change(store: Store, slack: LocalSlack, manager: Manager):
    draft = Draft(id="a1-1", alert="a1", channel="#mesh", message=Message("x"))
    await store.record(draft, Delivery(channel="C0MESH", ts="1760000011.000200", rev=1))
    await put(store, FIRING)
    async with relaying(store, slack, manager):
        await holds(manager, "a1")
        (first,) = manager.posts[0]
        await put(store, replace(FIRING, finding=replace(FINDING, failing_share=0.4, message="Subset v1 is nearly empty.")))

        async def again() -> bool:
            return len(manager.posts) > 1

        await soon(again)
    (second,) = manager.posts[1]
    assert (
        first["labels"]
        == second["labels"]
        == {
            "alertname": "subset-empty-weighted",
            "code": "MESH101",
            "cluster": "east",
            "namespace": "mynamespace",
            "host": HOST,
            "resource": "VirtualService mynamespace/destination",
            "severity": "error",
            "meshwhy_id": "a1",
            "source": "meshwhy",
        }
    )
    assert first["annotations"]["summary"] == "95 % of destination.mynamespace fails"
    assert second["annotations"]["summary"] == "40 % of destination.mynamespace fails"
    assert first["startsAt"] == "2025-10-09T08:53:30.000Z"
    assert first["generatorURL"].endswith("/archives/C0MESH/p1760000011000200")
    assert 200 < datetime.fromisoformat(first["endsAt"]).timestamp() - time.time() < 241, "before resolve_timeout, after three sendings"
    assert manager.authorization == "Bearer hush-am"


async def test_it_is_sent_again_before_it_would_end_there(
    store: Store, slack: LocalSlack, manager: Manager, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alertmanagers, "RESEND_S", 0.5)
    monkeypatch.setattr(alertmanagers, "_ENDS_S", 2.5)
    monkeypatch.setattr(alertmanagers, "_GATHER_S", 0.05)
    await put(store, FIRING)
    async with relaying(store, slack, manager):
        await holds(manager, "a1")
        first = manager.ends["a1"]
        until = time.time() + 3
        while time.time() < until:
            assert manager.active() == {"a1"}
            await asyncio.sleep(0.05)
    assert manager.ends["a1"] > first


async def test_what_is_well_ends_there_even_when_another_bot_sent_it(store: Store, slack: LocalSlack, manager: Manager):
    await put(store, FIRING, replace(FIRING, id="a2"))
    async with relaying(store, slack, manager):
        await holds(manager, "a1", "a2")
    await put(store, replace(FIRING, state=State.RESOLVED, resolved_at=time.time()))
    manager.answers = [503]

    async def forgotten() -> bool:
        return set(await store.relayed(manager.url)) == {"a2"}

    async with relaying(store, slack, manager):
        await holds(manager, "a2")
        await soon(forgotten)


async def test_what_was_silenced_before_does_not_begin_there_and_later_does_not_end_there(
    store: Store, slack: LocalSlack, manager: Manager
):
    silence = Silence(id="s", match={"cluster": "east"}, by="U0ANA", at=0, until=time.time() + 900)
    await put(store, FIRING, replace(FIRING, id="a2", silence=silence))
    async with relaying(store, slack, manager):
        await holds(manager, "a1")
        await put(store, replace(FIRING, silence=silence), replace(FIRING, id="a3"))
        await holds(manager, "a1", "a3")


async def test_what_cannot_be_looked_at_goes_on_there(store: Store, slack: LocalSlack, manager: Manager):
    await put(store, FIRING)
    async with relaying(store, slack, manager):
        await holds(manager, "a1")
        await put(store, replace(FIRING, unknown_since=time.time(), unknown_why="down"), replace(FIRING, id="a2"))
        await holds(manager, "a1", "a2")


# --- in ---

(MESH,) = Mesh.of([BROKEN], 1.0)
LABELS = ("destination_service", "destination_service_name", "service", "host")


def payload(*alerts_: dict[str, Any], version: str = "4") -> bytes:
    common = {"receiver": "meshwhy", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093"}
    return json.dumps(
        {"version": version, "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", **common, "alerts": alerts_}
    ).encode()


def alert(status: str = "firing", since: str = "2026-11-28T09:00:00Z", **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "HighErrorRate", **labels},
        "annotations": {"summary": "5xx above 5 % <!channel>"},
        "startsAt": since,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "f1",
    }


@pytest.mark.parametrize(
    ("labels", "host"),
    [
        ({"destination_service": HOST}, HOST),
        (
            {"destination_service": "unknown", "destination_service_name": "destination", "destination_service_namespace": "mynamespace"},
            HOST,
        ),
        ({"service": "destination", "namespace": "mynamespace"}, HOST),
        ({"host": "destination.mynamespace"}, HOST),
        ({"host": f"{HOST}:80"}, HOST),
        ({"service": "destination", "namespace": "elsewhere"}, HOST),  # the only one of this name
        ({"service": "kubelet", "namespace": "kube-system"}, None),
        ({"instance": HOST}, None),
        ({}, None),
    ],
)
def test_the_host_of_an_alert_is_found_by_its_labels(labels: dict[str, str], host: str | None):
    found = understood(payload(alert(**labels)), LABELS, [MESH])
    assert [h.host for h in found.said] == ([host] if host else [])
    assert found.unknown == (0 if host else 1)


def test_the_labels_are_those_of_the_settings():
    assert [h.host for h in understood(payload(alert(app="destination.mynamespace")), ["app"], [MESH]).said] == [HOST]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"version": "4"}', payload(version="3"), b'{"version": "4", "alerts": [{"status": 1}]}'])
def test_what_is_no_payload_is_said(body: bytes):
    with pytest.raises(NotUnderstood):
        understood(body, LABELS, [MESH])


SAID = Said(
    key="f1-1",
    name="HighErrorRate",
    host=HOST,
    cluster="",
    summary="5xx <!channel>",
    since=1_760_000_000.0,
    resolved=False,
)
(WHOLE,) = Mesh.of([WELL], 1.0)


def heard(mesh: Mesh = MESH, **more: Any) -> Deed:
    return Deed(verb="heard", by="", at=time.time(), heard=answered(SAID._replace(**more), [mesh]))


async def test_the_diagnosis_goes_into_the_thread_of_the_hosts_alert_once(store: Store):
    sweeper = Sweeper(World(BROKEN), store, alerts(routes=[{"channel": "#a", "continue": True}, {"channel": "#b"}]))
    await sweeper.look()
    await does(sweeper, store, heard())
    await does(sweeper, store, heard())
    works = await waiting(store)
    assert {w.draft.channel for w in works} == {"#a", "#b"}
    for work in works:
        (line,) = [s.message for s in work.steps if "HighErrorRate" in s.message.text]
        assert "*Alertmanager* `HighErrorRate` fires" in str(line.blocks)
        assert "<!channel>" not in str(line.blocks)
        assert "MESH101" in str(line.blocks)


async def test_without_an_alert_it_goes_where_one_would_be_told_and_is_edited_when_it_is_over(store: Store):
    sweeper = Sweeper(World(WELL), store, alerts(routes=[{"match": {"namespace": "mynamespace"}, "channel": "#a"}]))
    await sweeper.look()
    await does(sweeper, store, heard(WHOLE))
    (work,) = await waiting(store)
    assert (work.draft.channel, work.rev) == ("#a", 1)
    assert work.draft.message.text.startswith("HighErrorRate fires: destination.mynamespace is healthy")
    await does(sweeper, store, heard(WHOLE, resolved=True), heard(WHOLE, key="never told", resolved=True))
    (work,) = await waiting(store)
    assert work.rev == 2
    assert work.draft.message.text.startswith("HighErrorRate is over: ")


async def test_who_refuses_alerts_is_not_told_by_this_way_either(store: Store):
    sweeper = Sweeper(World(WELL), store, alerts(mutes=[{"match": {"namespace": "mynamespace"}}]))
    await does(sweeper, store, heard(WHOLE))
    assert await waiting(store) == []


async def test_an_alertmanager_posts_and_the_thread_has_the_diagnosis(slack: LocalSlack, redis_url: str, tmp_path: Path):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    port = ports.free()
    more = {"health": {"port": port}, "alertmanager": {"receive": {"token": TOKEN}}}
    async with serving(slack, redis_url, tmp_path, **more), aiohttp.ClientSession() as http:
        (root,) = await slack.until(lambda: slack.messages("#mesh"), 20)
        url, body = f"http://127.0.0.1:{port}/alertmanager", payload(alert(destination_service=HOST), alert(service="nobody"))
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "hush-am"}):
            async with http.post(url, data=body, headers=headers) as answer:
                assert answer.status == 401
        headers = {"Authorization": "Bearer hush-am"}
        async with http.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 400
            assert "no payload of Alertmanager" in await answer.text()
        async with http.post(url, data=body, headers=headers) as answer:
            assert answer.status == 200
            assert await answer.json() == {"taken": 1, "no_known_host": 1}
        await slack.until(lambda: any("HighErrorRate" in m.words for m in slack.thread(root.channel, root.ts)), 10)
        assert len(slack.messages("#mesh")) == 1


# --- a real Alertmanager, where there is one ---

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@asynccontextmanager
async def real(folder: Path, webhook: str) -> AsyncIterator[str]:
    """An Alertmanager that posts at once to a webhook; its address."""
    route = {"receiver": "meshwhy", "group_wait": "100ms", "group_interval": "1s", "group_by": ["..."]}
    hook = {"url": webhook, "send_resolved": True, "http_config": {"authorization": {"credentials": "hush-am"}}}
    file, port = folder / "alertmanager.yml", ports.free()
    file.write_text(yaml.safe_dump({"route": route, "receivers": [{"name": "meshwhy", "webhook_configs": [hook]}]}))
    listen = ("--web.listen-address", f"127.0.0.1:{port}", "--cluster.listen-address", "")
    process = await asyncio.create_subprocess_exec(
        str(BINARY),
        *("--config.file", str(file), "--storage.path", str(folder / "am"), *listen),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:

            async def ready() -> bool:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{url}/-/ready") as answer:
                        return answer.status == 200
                return False

            await soon(ready)
        yield url
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(BINARY is None, reason="no Alertmanager is installed")
async def test_a_real_alertmanager_takes_what_fires_and_is_answered(slack: LocalSlack, redis_url: str, tmp_path: Path):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    port = ports.free()
    async with real(tmp_path, f"http://127.0.0.1:{port}/alertmanager") as url, aiohttp.ClientSession() as http:
        here = {"send": [{"url": url}], "receive": {"token": TOKEN}}
        async with serving(slack, redis_url, tmp_path, health={"port": port}, alertmanager=here):
            (root,) = await slack.until(lambda: slack.messages("#mesh"), 20)

            async def held() -> list[Any]:
                async with http.get(f"{url}/api/v2/alerts") as answer:
                    found: list[Any] = await answer.json()
                    return found

            async def told() -> bool:
                return [a["labels"]["host"] for a in await held()] == [HOST]

            await soon(told)
            (kept,) = await held()
            assert kept["status"]["state"] == "active"
            assert kept["generatorURL"].startswith("http")
            other = {"labels": {"alertname": "HighErrorRate", "destination_service": HOST}, "annotations": {"summary": "5xx above 5 %"}}
            async with http.post(f"{url}/api/v2/alerts", json=[other]) as answer:
                assert answer.status == 200
            await slack.until(lambda: any("HighErrorRate" in m.words for m in slack.thread(root.channel, root.ts)), 10)
            await East(tmp_path / "east").deploy_v1()

            async def ended() -> bool:
                return [a["labels"]["alertname"] for a in await held()] == ["HighErrorRate"]

            await soon(ended)
            lines = [m.words for m in slack.thread(root.channel, root.ts)]
            assert sum("Alertmanager" in line for line in lines) == 1, "what we sent ourselves does not come back"
