"""`audit [@PERSON] [VERB] [24h]`: what people did and what they were refused, the newest first, and its pages."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

from bot import access
from bot.audit import Audit, Wanted
from bot.settings import duration
from handlers import say
from handlers.door import About, Visit
from handlers.errors import Unanswerable
from templates import messages

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_ROWS = 15
_PERSON = re.compile(r"[UW][A-Z0-9]{2,24}")


async def answer(asked: Asked) -> Message:
    """The newest entries that the words ask for; raises Unanswerable."""
    return await _page(Audit(asked.store), wanted(asked.words, time.time()), "")


async def about(_: object) -> About:
    """What everybody did everywhere."""
    return About((access.EVERYWHERE,))


def wanted(words: str, now: float) -> Wanted:
    """Whose and which entries since when; raises Unanswerable for a word that is neither a person, a verb nor a duration."""
    found = Wanted()
    for word in words.split():
        if _PERSON.fullmatch(word):
            found = found._replace(by=word)
        elif word.lower() in access.NEEDS:
            found = found._replace(verb=word.lower())
        elif (long := duration(word)) is not None:
            found = found._replace(since=now - long)
        else:
            raise Unanswerable(
                f"{word[:60]} is neither a person, a verb nor a duration. Write whose, what or since when: /mesh audit @ana silence 24h."
            )
    return found


async def _page(audit: Audit, which: Wanted, before: str) -> Message:
    rows: list[Any] = []
    async for at, entry in audit.read(which, before):
        if len(rows) == _ROWS:
            return messages.audit(rows, f"{before} {which.by or '-'} {which.verb or '-'} {which.since:.0f}")
        rows.append(msgspec.to_builtins(entry))
        before = at
    return messages.audit(rows, "")


def register(app: AsyncApp, door: Door) -> None:
    """Turn to older entries."""

    @app.action(messages.OLDER)
    async def older(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        before, by, verb, since = body["actions"][0]["value"].split(" ")
        which = Wanted(by.strip("-"), verb.strip("-"), float(since))

        async def turned(_: Sees) -> Message:
            return await _page(door.audit, which, before)

        told = await door.enter(Visit.click(body, context), "audit", about, turned)
        await say.told(told, respond, replace=bool(body["container"].get("is_ephemeral")))
