"""Ends a process at one exact request that it makes to Redis or to Slack: before the other side does it, or when it is done and not yet answered.

The process is a whole bot that knows nothing of this: it talks to a proxy in front of a real Valkey, and to the local workspace.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot.demo.slack import LocalSlack


class Point(NamedTuple):
    """The `nth` request to `side` (redis or slack) whose text fits `what`; `done`: after the other side has done it."""

    side: str
    what: str
    done: bool = False
    nth: int = 1


class Killer:
    """Kills when a point is reached, once."""

    def __init__(self) -> None:
        self.kill: Callable[[], None] | None = None
        self._point: Point | None = None
        self._seen = 0
        self.reached = asyncio.Event()

    def arm(self, point: Point, kill: Callable[[], None]) -> None:
        """From now on requests are counted, and `kill` is called at the point."""
        self._point, self.kill, self._seen = point, kill, 0
        self.reached.clear()

    def hits(self, side: str, text: str) -> Point | None:
        """The point, if this request is the one."""
        point = self._point
        if point is None or point.side != side or not re.search(point.what, text, re.DOTALL):
            return None
        self._seen += 1
        return point if self._seen == point.nth else None

    def strike(self) -> None:
        """Kill; nothing is counted after it."""
        assert self.kill is not None
        self._point = None
        self.kill()
        self.reached.set()


@asynccontextmanager
async def before_redis(path: str, killer: Killer) -> AsyncIterator[str]:
    """A proxy on loopback in front of the Valkey at the unix socket `path`; yields its URL."""
    open_: set[asyncio.StreamWriter] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to = await asyncio.open_unix_connection(path)
        open_.update({writer, to})
        struck = False

        async def back() -> None:
            nonlocal struck
            while data := await behind.read(1 << 16):
                if struck:
                    struck = False
                    killer.strike()
                    break
                writer.write(data)
                await writer.drain()

        answering = asyncio.create_task(back())
        try:
            while command := await _command(reader):
                point = killer.hits("redis", command.decode(errors="replace"))
                if point is not None and not point.done:
                    killer.strike()
                    break
                struck = struck or point is not None
                to.write(command)
                await to.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            answering.cancel()
            for end in (writer, to):
                end.close()
                open_.discard(end)

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for end in tuple(open_):
            end.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await server.wait_closed()


async def _command(reader: asyncio.StreamReader) -> bytes:
    """One request of the Redis protocol, an array of byte strings, as it came; empty at the end."""
    head = await reader.readline()
    if not head:
        return b""
    parts = [head]
    for _ in range(int(head[1:])):
        size = await reader.readline()
        parts += [size, await reader.readexactly(int(size[1:]) + 2)]
    return b"".join(parts)


def before_slack(slack: LocalSlack, killer: Killer) -> None:
    """The workspace's Web API, watched from now on."""
    answer = slack.api.answer

    async def watched(method: str, args: dict[str, Any], token: str | None) -> Any:
        point = killer.hits("slack", f"{method} {args}")
        if point is not None and not point.done:
            killer.strike()
            await asyncio.Event().wait()  # whoever asked is gone; the workspace has not heard of it
        answered = await answer(method, args, token)
        if point is not None:
            killer.strike()
        return answered

    slack.api.answer = watched  # type: ignore[method-assign]
