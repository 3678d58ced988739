"""`broken`: everything that fails now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from templates import messages

if TYPE_CHECKING:
    from bot.sweep import Sweeper
    from templates.blocks import Message


async def answer(_: str, sweeper: Sweeper) -> Message:
    """What a sweep finds now, the worst first."""
    return messages.broken(msgspec.to_builtins(await sweeper.sweep()))
