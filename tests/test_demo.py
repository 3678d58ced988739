"""The demo: its recorded clusters, and what its buttons do to them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from aiohttp import ClientSession
from slack_sdk.web.async_client import AsyncWebClient

from bot import manifests
from bot.__main__ import serve
from bot.demo import envoy, runner
from bot.demo.runner import RECORDED, East
from checks.resources import ConfigMap, Deployment, DestinationRule, EndpointSlice, Pod, Service, ServiceEntry, VirtualService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot.settings import Settings
    from checks.mesh import Cluster


def recorded(name: str) -> Cluster:
    return manifests.read(str(RECORDED / name), name, mesh=name, read_at=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    return tmp_path / "east"


def usable(folder: Path) -> set[str]:
    """The versions of destination that have endpoints."""
    east = manifests.read(str(folder), "east", read_at=1.0)
    assert not east.malformed
    pods = {p.name: p.labels["version"] for p in east.all(Pod) if "version" in p.labels}
    slices = [s for s in east.all(EndpointSlice) if s.service == "destination"]
    return {pods[e.target_ref.name] for s in slices for e in s.endpoints or () if e.target_ref}


@pytest.mark.parametrize("name", ["east", "west"])
def test_a_recorded_cluster_is_whole_and_has_its_control_plane(name: str):
    cluster = recorded(name)
    assert not cluster.malformed
    assert not cluster.unreadable
    assert [c.namespace for c in cluster.all(ConfigMap)] == ["istio-system"]
    (istiod,) = (p for p in cluster.all(Pod) if p.labels.get("app") == "istiod")
    assert {"CLUSTER_ID": name}.items() <= {e.name: e.value for c in istiod.spec.containers for e in c.env or ()}.items()


@pytest.mark.parametrize("name", ["east", "west"])
def test_every_pod_of_a_recorded_cluster_stands_in_the_slice_of_its_service(name: str):
    cluster = recorded(name)
    for service in cluster.all(Service):
        slices = [s for s in cluster.all(EndpointSlice) if (s.namespace, s.service) == (service.namespace, service.name)]
        named = {e.target_ref.name for s in slices for e in s.endpoints or () if e.target_ref}
        selected = {p.name for p in cluster.all(Pod) if (service.spec.selector or {}).items() <= p.labels.items()}
        assert named == selected != set(), service.ref
        addresses = {a for s in slices for e in s.endpoints or () for a in e.addresses or ()}
        assert addresses == {p.status.pod_ip for p in cluster.all(Pod) if p.name in named}


@pytest.mark.parametrize("file", sorted(RECORDED.rglob("*.yaml")), ids=lambda p: p.name)
def test_a_recorded_file_is_what_kubectl_prints(file: Path):
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    for item in document["items"]:
        assert {"name", "uid", "resourceVersion", "creationTimestamp"} <= item["metadata"].keys()


def test_east_is_the_first_incident_of_the_article():
    east = recorded("east")
    (rules,) = east.all(VirtualService)
    assert [(d.destination.subset, d.weight) for d in rules.spec.http[0].route] == [("v1", 95), ("v2", 5)]
    (rule,) = east.all(DestinationRule)
    assert [(s.name, s.labels) for s in rule.spec.subsets] == [("v1", {"version": "v1"}), ("v2", {"version": "v2"})]
    assert {d.name for d in east.all(Deployment)} >= {"destination-v2", "service-source-v1"}
    assert not any(d.name == "destination-v1" for d in east.all(Deployment))


def test_west_is_the_second_incident_of_the_article():
    entries = sorted(recorded("west").all(ServiceEntry), key=lambda e: e.created)
    hosts = [h for e in entries for h in e.spec.hosts]
    doubled = [e for e in entries if hosts.count(e.spec.hosts[0]) > 1]
    assert [(e.name, e.spec.resolution, [p.number for p in e.spec.ports]) for e in doubled] == [
        ("partner-pl", "STATIC", [443]),
        ("partner-pl-new", "DNS", [443, 8443]),
    ]
    assert len(set(hosts)) == 5


async def test_the_buttons_deploy_and_remove_v1(folder: Path):
    east = East(folder)
    assert usable(folder) == {"v2"}
    await east.deploy_v1()
    await east.deploy_v1()
    assert usable(folder) == {"v1", "v2"}
    await east.remove_v1()
    await east.remove_v1()
    assert usable(folder) == {"v2"}
    assert not list(folder.glob(".*"))


async def test_what_a_click_deploys_is_as_old_as_the_click(folder: Path):
    before = datetime.now(UTC).replace(microsecond=0)
    await East(folder).deploy_v1()
    made = [d for d in manifests.read(str(folder), "east", read_at=1.0).all(Deployment) if d.name == "destination-v1"]
    assert [datetime.fromisoformat(d.created) >= before for d in made] == [True]


async def test_the_clock_turns_until_a_person_presses_a_button(folder: Path):
    east = East(folder)
    clock = asyncio.create_task(east.turn(0.02))
    seen = set()
    async with asyncio.timeout(5):
        while len(seen) < 2:
            seen.add((folder / "destination-v1.yaml").exists())
            await asyncio.sleep(0.005)
        await east.remove_v1()
        await clock
    await asyncio.sleep(0.05)
    assert not (folder / "destination-v1.yaml").exists()


async def test_without_a_clock_nothing_turns(folder: Path):
    async with asyncio.timeout(1):
        await East(folder).turn(0)
    assert usable(folder) == {"v2"}


# --- the whole demo, as a process ------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        yield Path(folder)


def test_the_state_is_here_unless_a_socket_cannot_be(state: Path):
    deep = state / ("x" * 90)
    deep.mkdir()
    assert runner.place(state, {"XDG_STATE_HOME": "/state"}) == state / ".demo"
    assert runner.place(deep, {"XDG_STATE_HOME": "/state"}).as_posix() == "/state/meshwhy/demo"
    assert runner.place(deep, {"HOME": "/home/x"}).is_absolute()


class Demo:
    """A running `meshwhy demo`, up to the line that tells its page."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", "bot", "demo", "--state", str(state), "--every", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=RECORDED.parents[2])
        self.said = ""
        self.page = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.split()[:1] == ["Open"]:
                self.page = line.split()[1]
            if "Ctrl-C" in line:
                return

    def end(self, number: int) -> tuple[int, str]:
        """The exit status after a signal, and what was said on stderr."""
        self.process.send_signal(number)
        try:
            _, complaints = self.process.communicate(timeout=20)
        finally:
            self.process.kill()
        return self.process.returncode, complaints


def listening(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(socket_path))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_tells_its_page_and_ends_cleanly(state: Path, number: int):
    demo = Demo(state)
    try:
        assert "/mesh why destination.mynamespace" in demo.said
        with urllib.request.urlopen(demo.page, timeout=5) as page:  # noqa: S310 - the address that the demo printed
            assert b"<html" in page.read()
        assert listening(state / "valkey" / "valkey.sock")
    finally:
        status, complaints = demo.end(number)
    assert (status, complaints) == (0, "")
    assert not listening(state / "valkey" / "valkey.sock")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(demo.page, timeout=5)  # noqa: S310 - as above


def test_a_killed_demo_leaves_nothing_behind_that_the_next_one_does_not_end(state: Path):
    killed = Demo(state)
    killed.end(signal.SIGKILL)
    assert listening(state / "valkey" / "valkey.sock")
    demo = Demo(state)
    try:
        assert demo.page
    finally:
        status, _ = demo.end(signal.SIGINT)
    assert status == 0
    assert not listening(state / "valkey" / "valkey.sock")


def test_a_second_demo_in_the_same_place_is_told_so(state: Path):
    first = Demo(state)
    try:
        second = Demo(state)
        _, complaints = second.process.communicate(timeout=20)
        assert second.process.returncode == 2
        assert complaints.strip().startswith("Another meshwhy uses ")
        assert complaints.count("\n") == 1
    finally:
        first.end(signal.SIGINT)


async def test_the_demo_posts_both_incidents_and_mends_the_first_when_v1_is_deployed(state: Path):
    shown: list[str] = []
    seen: dict[str, list[str]] = {}

    async def watched(settings: Settings) -> None:
        bot = asyncio.create_task(serve(settings))
        client = AsyncWebClient(token=settings.slack.bot_token.get_secret_value(), base_url=settings.slack.base_url)
        (channel,) = [c["id"] for c in (await client.conversations_list())["channels"] if c["name"] == "mesh"]

        async def until(*starts: str) -> list[str]:
            async with asyncio.timeout(15):
                while True:
                    told = [m["text"] for m in (await client.conversations_history(channel=channel))["messages"]]
                    if all(any(t.startswith(s) for t in told) for s in starts):
                        return told
                    await asyncio.sleep(1.3)  # Slack's rate

        async def runbook(*parts: str) -> str:
            """The runbook in the thread of the first incident, as soon as it says all of this."""
            async with asyncio.timeout(20):
                while True:
                    roots = (await client.conversations_history(channel=channel))["messages"]
                    (root,) = [m for m in roots if "destination.mynamespace" in m["text"]]
                    for reply in (await client.conversations_replies(channel=channel, ts=root["ts"]))["messages"][1:]:
                        told = json.dumps(reply, ensure_ascii=False)
                        if "Runbook of" in told and all(p in told for p in parts):
                            return told
                    await asyncio.sleep(1.3)

        seen["before"] = await until("95 % of destination.mynamespace fails", "Every request to port 8443 of api-pl.partner.example fails")
        if envoy.missing() is None:
            told = await runbook("has no host and gets 95 % of the requests of its rule, as predicted")
            assert f"2 clusters of its rules exist in {envoy.POD}.{envoy.NAMESPACE}" in told
            async with ClientSession() as http, http.ws_connect(f"{shown[0]}live") as page:
                await page.send_json({"do": "button", "number": 2, "id": 1, "user": "U0ANA"})
                async for message in page:
                    if (note := message.json().get("note")) is not None:
                        break
                await asyncio.sleep(0.5)  # Envoy writes its log five times a second
                await page.send_json(
                    {"do": "command", "id": 2, "user": "U0ANA", "channel": channel, "text": "/mesh why destination.mynamespace"}
                )
                async for message in page:  # the Envoy's log is read for the runbook that follows the answer
                    if (counted := re.search(r"(\d+) of 20 calls failed, most with 503 UH no_healthy_upstream", message.data)) is not None:
                        break
            assert note.startswith(f"20 calls of destination.mynamespace: {counted[1]} x 503 no healthy upstream")
            assert re.fullmatch(r"20 calls of destination.mynamespace: \d+ x 503 no healthy upstream(, \d+ x 200 from v2)?\.", note)
        east = settings.clusters[0].path
        assert east is not None
        await East(east).deploy_v1()
        seen["after"] = await until("Resolved after", "Every request to port 8443 of api-pl.partner.example fails")
        bot.cancel()
        with suppress(asyncio.CancelledError):
            await bot

    await runner.demo(watched, state, every_s=0, port=0, say=lambda page, why: shown.extend([page, str(why)]))
    assert shown[0].startswith("http://127.0.0.1:")
    assert [len(told) for told in seen.values()] == [2, 2]
