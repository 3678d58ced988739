"""`why HOST`: the diagnosis of one host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from checks import diagnosis
from handlers.errors import Unanswerable
from templates import messages

if TYPE_CHECKING:
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from templates.blocks import Message


async def answer(words: str, sweeper: Sweeper) -> Message:
    """The diagnosis in words; raises UnknownHost."""
    return messages.why(msgspec.to_builtins(await asked(words, sweeper, "why")))


async def asked(words: str, sweeper: Sweeper, verb: str) -> Diagnosis:
    """The diagnosis of the host that was typed; raises UnknownHost, or Unanswerable without a host."""
    host = words.strip().strip("`'\"<>,?.").split(" ")[0].strip("`'\"<>,?.")
    if not host:
        raise Unanswerable(f"Which host? Write /mesh {verb} HOST, for example /mesh {verb} payments.core.")
    return await asyncio.to_thread(diagnosis.why, host, sweeper.meshes())
