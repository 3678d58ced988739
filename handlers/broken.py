"""`broken`: everything that fails now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bot import access
from templates import messages

if TYPE_CHECKING:
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """What a sweep finds now of what the person may look at, the worst first."""
    found = await asked.sweeper.sweep()
    seen = tuple(f for f in found.findings if asked.sees(access.of_finding(f)))
    return messages.broken(msgspec.to_builtins(replace(found, findings=seen)), left_out=len(found.findings) - len(seen))
