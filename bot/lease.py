"""Which of several bots keeps the alerts and posts: the one that holds the lease in Redis; the others watch, answer and wait.

What must stay true: whoever wrote under a lease that is over changes nothing, since every write of the leader carries its fence and Redis refuses
any other (Kleppmann, "How to do distributed locking"); a post is sent only while the lease is known to be held.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from bot.store import Deposed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot.store import Store

logger = logging.getLogger(__name__)


class Lease:
    """Holds, or waits for, the lease of `store`, which lasts `ttl_s` seconds and is renewed three times in them."""

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._name = secrets.token_hex(6)
        self._until = float("-inf")  # monotonic: until when nobody else can have it
        self.leading = False

    def held(self) -> bool:
        """Whether the lease is ours for sure: what must not be done twice is done only then."""
        return time.monotonic() < self._until

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: wait for the lease, and run `lead` for as long as we have it. What `lead` raises is raised."""
        while True:
            fence = await self._asked()
            if not fence:
                await asyncio.sleep(self._ttl_s / 3)
                continue
            logger.info("This bot keeps the alerts now (fence %s).", fence)
            # Only here: what is still under way of an earlier lease carries the earlier fence.
            self._store.fence = fence
            self.leading = True
            leading = asyncio.ensure_future(lead())
            try:
                await self._keep(leading, fence)
            finally:
                self.leading = False
                self._until = float("-inf")
                leading.cancel()
                await asyncio.wait([leading])
                await self._give_up(fence)
            if not leading.cancelled() and (error := leading.exception()) is not None and not isinstance(error, Deposed):
                raise error
            logger.warning("Another bot keeps the alerts now; this one watches and answers.")

    async def _keep(self, leading: asyncio.Future[None], fence: str) -> None:
        """Renew the lease until it is not the one that we began with, or what it is for has ended.

        A lease that was lost and taken again is another one: meanwhile somebody else may have kept the alerts. While Redis is away nobody can
        take it, and nobody's write is taken.
        """
        while not leading.done():
            await asyncio.wait([leading], timeout=self._ttl_s / 3)
            if await self._asked() not in {fence, None}:
                return

    async def _asked(self) -> str | None:
        """The fence of the lease if it is ours now, empty if it is somebody else's; None when nobody answers."""
        asked = time.monotonic()
        try:
            fence = await self._store.lease(self._name, self._ttl_s)
        except (RedisError, OSError):
            return None
        self._until = asked + self._ttl_s if fence else float("-inf")
        return fence

    async def _give_up(self, fence: str) -> None:
        """Let the next one have it at once, when we end by ourselves."""
        with suppress(RedisError, OSError):
            await self._store.release_lease(fence)
