"""The way to a pod through an API server that speaks the kubelet's WebSockets, to a real Envoy's admin port behind it."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clusters import ClusterSource, server
from bot.informers import Pace, Server
from bot.probes import envoy, portforward
from bot.probes.admin import Admin, NotRead
from tests.apiserver import ApiServer, until
from tests.envoys import V1

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from checks.evidence import EnvoyView
    from tests.envoys import Mesh

WHERE = envoy.Where("east", "shop", "web-7f", "port 15000 of shop/web-7f")


@asynccontextmanager
async def way(api: ApiServer, tmp_path: Path) -> AsyncIterator[Server]:
    async with api, server(ClusterSource("east", context="east", kubeconfig=api.kubeconfig(tmp_path / "config")), Pace()) as opened:
        yield opened


async def seen(opened: Server, pod: str = "web-7f", timeout_s: float = 5.0) -> EnvoyView:
    async with portforward.session(opened, "shop", pod, 15000, patience_s=timeout_s) as session:
        view, skipped = await envoy.ask(
            Admin(session, envoy.Request, "http://localhost:15000", WHERE.at, time.monotonic() + timeout_s, timeout_s), WHERE
        )
    assert skipped is None
    return view


async def refusal(opened: Server, timeout_s: float = 5.0) -> str:
    with pytest.raises(NotRead) as caught:
        await seen(opened, timeout_s=timeout_s)
    return str(caught.value)


def at(mesh: Mesh) -> int:
    return int(mesh.envoy.admin.rpartition(":")[2])


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_envoy_in_a_pod_is_read_as_its_admin_port_says(mesh_envoy: Mesh, tmp_path: Path, tls: bool) -> None:  # noqa: FBT001 - a case
    api = ApiServer(tls=tls, token="secret")  # noqa: S106 - opens nothing
    api.forwarded["shop", "web-7f", 15000] = at(mesh_envoy)
    async with way(api, tmp_path) as opened:
        view = await seen(opened)
        (direct,), _ = await envoy.read([envoy.Where("east", "shop", "web-7f", mesh_envoy.envoy.admin)])
        assert view.clusters.keys() == direct.clusters.keys()
        assert (view.routes, view.clusters[V1]) == (direct.routes, direct.clusters[V1])
        (asked,) = api.asked("pods/portforward")
        assert (asked.verb, asked.query, asked.authorization) == ("get", {"ports": "15000"}, "Bearer secret")
        await until(lambda: api.opened == 0)  # nothing is left open
    assert api.most_opened == 1  # one connection for all requests


async def test_an_answer_of_many_pieces_comes_whole(mesh_envoy: Mesh, tmp_path: Path) -> None:
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = at(mesh_envoy)
    async with (
        way(api, tmp_path) as opened,
        portforward.session(opened, "shop", "web-7f", 15000, patience_s=5) as session,
        session.get("http://any.host/stats/prometheus") as response,
    ):
        assert response.status == 200
        body = b""
        async for chunk in response.content.iter_chunked(1 << 10):  # slower than it comes: the other end waits
            body += chunk
            await asyncio.sleep(0)
    assert len(body) > 300_000
    assert body.endswith(b"\n")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "pod shop/web-7f is not running yet, or does not run any more (HTTP 400)"),
        (401, "the API server does not know us (HTTP 401)"),
        (429, "the API server has too much to do (HTTP 429)"),
        (502, "the API server cannot reach pod shop/web-7f (HTTP 502)"),
    ],
)
async def test_what_the_api_server_refuses_is_said(tmp_path: Path, status: int, reason: str) -> None:
    api = ApiServer()
    api.failing["pods/portforward"] = (status, {})
    async with way(api, tmp_path) as opened:
        assert await refusal(opened) == reason


async def test_without_the_permission_it_is_said_what_grants_it(tmp_path: Path) -> None:
    api = ApiServer()
    api.forbid("pods/portforward")
    async with way(api, tmp_path) as opened:
        assert await refusal(opened) == "no permission to port-forward in namespace shop: `deep: true` in the chart grants it"


async def test_a_pod_that_is_gone_is_said(tmp_path: Path) -> None:
    async with way(ApiServer(), tmp_path) as opened:
        assert await refusal(opened) == "there is no pod shop/web-7f any more (HTTP 404)"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "error forwarding port 15000 to pod x, uid : inside namespace x: dial tcp4 127.0.0.1:15000: connect: connection refused",
            "nothing listens on port 15000 in the pod (connection refused)",
        ),
        ("network namespace\nis closed", "the kubelet says: network namespace is closed"),
    ],
)
async def test_what_the_kubelet_says_is_said(tmp_path: Path, said: str, reason: str) -> None:
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = said
    async with way(api, tmp_path) as opened:
        assert await refusal(opened) == reason


BEGUN = (b"\x00\x98\x3a", b"\x01\x98\x3a")
"""15000, as both channels begin."""


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), "the API server closed the way to the pod at once"),
        ((b"\x00\x99\x3a",), "the API server forwards another port than 15000"),
        ((b"\x00",), "the API server forwards another port than 15000"),
        ((b"",), "what the API server sends is not v4.channel.k8s.io"),
        ((b"\x07\x98\x3a",), "what the API server sends is not v4.channel.k8s.io"),
        (("hello",), "what the API server sends is not v4.channel.k8s.io"),
        (BEGUN, "the answer of port 15000 of shop/web-7f to GET /server_info broke off (ServerDisconnectedError)"),
        ((*BEGUN, b"\x00HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "broke off (ClientPayloadError)"),
        ((*BEGUN, b"\x00SSH-2.0-OpenSSH\r\n"), "broke off"),
        ((*BEGUN, b"\x01", b"\x01\xff\xfe"), "the kubelet says: \ufffd\ufffd"),
    ],
)
async def test_what_no_kubelet_says_is_no_answer(tmp_path: Path, messages: tuple[bytes | str, ...], reason: str) -> None:
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = messages
    async with way(api, tmp_path) as opened:
        assert reason in await refusal(opened)


async def test_messages_may_be_cut_anywhere(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = (*BEGUN, *(b"\x00" + answer[n : n + 1] for n in range(len(answer))))
    async with (
        way(api, tmp_path) as opened,
        portforward.session(opened, "shop", "web-7f", 15000, patience_s=5) as session,
        session.get("http://x/") as response,
    ):
        assert await response.read() == b"{}"


async def test_silence_costs_its_time_out_alone(tmp_path: Path) -> None:
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = None
    async with way(api, tmp_path) as opened:
        begun = time.monotonic()
        assert await refusal(opened, timeout_s=0.3) == "port 15000 of shop/web-7f did not answer GET /server_info within 0.3 s"
        api.silent = True  # not even the handshake
        assert "within 0.3 s" in await refusal(opened, timeout_s=0.3)
        assert time.monotonic() - begun < 3
        api.silent = False


async def test_an_api_server_that_breaks_off_is_said(mesh_envoy: Mesh, tmp_path: Path) -> None:
    api = ApiServer()
    api.forwarded["shop", "web-7f", 15000] = at(mesh_envoy)
    async with way(api, tmp_path) as opened:
        await seen(opened)
        await api.down()
        assert re.fullmatch(r"the API server: 127.0.0.1:\d+ cannot be reached: Connection refused", await refusal(opened))


@settings(max_examples=30)
@given(st.text(min_size=1), st.sampled_from(["namespace", "pod"]))
async def test_no_name_leads_anywhere_else(name: str, of: str) -> None:
    """Either it is a name that Kubernetes gives, or nothing is sent at all."""
    asked: list[str] = []

    class Noting:
        async def socket(self, path: str, query: dict[str, str], **_: object) -> object:
            asked.append(path)
            raise aiohttp.ClientConnectionError(str(query))

    names = {"namespace": "shop", "pod": "web-7f", of: name}
    try:
        async with portforward.session(Noting(), names["namespace"], names["pod"], 15000, patience_s=1) as session:  # type: ignore[arg-type]
            with pytest.raises(aiohttp.ClientError):
                await session.get("http://x/")
    except NotRead:
        assert asked == []
    assert all(re.fullmatch(r"/api/v1/namespaces/[a-z0-9.-]+/pods/[a-z0-9.-]+/portforward", path) and ".." not in path for path in asked)


@pytest.mark.parametrize("name", ["../../x", "web?ports=1", "web/exec", "..", "a..b", "Web", "", "web\n", "x" * 300])
async def test_these_names_lead_nowhere(name: str) -> None:
    with pytest.raises(NotRead, match="is no pod"):
        async with portforward.session(None, "shop", name, 15000, patience_s=1):  # type: ignore[arg-type]
            pass
