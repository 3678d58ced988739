"""What Kubernetes' probes and Prometheus ask: `/livez`, whether the bot's parts turn; `/readyz`, whether it sees and speaks; `/metrics`.

What must stay true: an outage of Redis, of Slack or of a cluster makes the bot not ready, never dead, since a restart mends none of them. The
answer names what is wrong; nothing in it is a secret.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

_BODY = 4 << 20  # bytes of what is posted
LATE_S = 300.0
"""How long a part may take for one turn: the first sweep of a very large mesh takes a part of it, a part that hangs takes all of it."""


class Pulse:
    """When a part of the bot last came round; `beat` is called in each of its turns."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def beat(self) -> None:
        """The part has come round."""
        self._at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last turn."""
        return time.monotonic() - self._at


@asynccontextmanager
async def listening(
    port: int,
    pulses: Callable[[], Mapping[str, Pulse]],
    unready: Callable[[], Awaitable[Sequence[str]]],
    metrics: Callable[[], Awaitable[bytes]],
    more: Sequence[web.RouteDef] = (),
) -> AsyncIterator[int]:
    """Answers probes and scrapes on a port, 0 for any, and `more`, while it is entered; yields the port.

    `pulses` gives the parts that run now by name; `unready` gives a sentence for each thing that is not ready. Raises OSError when the port is taken.
    """

    async def livez(_: web.Request) -> web.Response:
        return _answer([f"{name} has not come round for {p.age_s:.0f} s" for name, p in pulses().items() if p.age_s > LATE_S])

    async def readyz(_: web.Request) -> web.Response:
        return _answer(await unready())

    async def scraped(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=_BODY)
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", scraped), *more])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "0.0.0.0", port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(wrong: Sequence[str]) -> web.Response:
    return web.Response(status=503 if wrong else 200, text="\n".join(wrong or ["ok"]) + "\n")
