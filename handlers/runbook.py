"""After an answer to `why`: what running parts show, as soon as they have said it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from bot import runbook
from checks.diagnosis import UnknownHost
from checks.runbook import LIVE
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from handlers.door import Door
    from handlers.errors import Told
    from templates.blocks import Message


async def follow(told: Told | None, door: Door, tell: Callable[[Message], Awaitable[object]]) -> None:
    """Tell the runbook of the host that was just answered about, once it is complete; nothing where no running part said anything."""
    if told is None or not told.live:
        return
    begun, last = time.time(), None
    with suppress(UnknownHost):  # it is gone by now, or another bot watches it
        async for taken in runbook.take(told.live, door.sweeper.meshes(), door.probing):
            last = taken
    if last is not None and any(s.id in LIVE and s.state != "skipped" for s in last.steps):
        await tell(messages.runbook(runbook.told(last, since=begun)))
