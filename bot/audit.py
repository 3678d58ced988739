"""What people did, tried and were refused: kept in the store for some months, and each as one line of the log at once.

What must stay true: an entry that the store does not take is in the log, waits, and is kept when the store is back; of what could not wait it is
said how much it was. No entry holds what somebody wrote: what it is about is told in the names of the objects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.store import Store

logger = logging.getLogger(__name__)

Via = Literal["command", "button", "dialog", "shortcut", "home", "mention", "message"]
Result = Literal["done", "already", "denied", "stranger", "unanswered", "failed"]
"""`already`: somebody else did it before. `stranger`: of a workspace that is not answered. `unanswered`: it could not be done, and they were told why."""

WAITING = 1000  # entries that wait for the store
_PAGE = 500
_PATIENCE_S = 1.0  # how long an answer waits for its entry


class Entry(Struct, frozen=True, kw_only=True):
    """One thing that somebody (a Slack user's id, of a workspace) did, when (seconds since the epoch), from where, about what, and what came of it.

    `about` holds hosts, or a silence's matchers; `why` says what `result` alone does not.
    """

    at: float
    by: str
    team: str
    verb: str
    via: Via
    channel: str
    thread: str = ""
    about: tuple[str, ...] = ()
    result: Result
    why: str = ""


class Wanted(NamedTuple):
    """Which entries somebody wants to read; what is left out fits all."""

    by: str = ""
    verb: str = ""
    since: float = 0.0

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is among them."""
        return self.by in {"", entry.by} and self.verb in {"", entry.verb} and entry.at >= self.since


class Audit:
    """The door to what is on record in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Entry] = []
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None
        self._away = False

    async def put(self, entry: Entry) -> None:
        """Put something on record; a store that is slow or away holds up nobody for long, and takes it later."""
        logger.info("%s of %s: %s", entry.verb, entry.by, entry.result, extra={"audit": msgspec.to_builtins(entry)})
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await asyncio.wait({self._writing}, timeout=_PATIENCE_S)

    async def _write(self) -> None:
        """Give the store what waits; what it does not take waits for the next entry."""
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                await self._store.note([_text(e) for e in (*self._gap(), *taken)], time.time())
            except (RedisError, OSError) as error:
                self._waiting = taken + self._waiting
                self._lost += max(len(self._waiting) - WAITING, 0)
                self._waiting = self._waiting[-WAITING:]
                if not self._away:
                    why = type(error).__name__
                    logger.error("The store does not take the audit (%s): until it is back, this log alone has what people do.", why)  # noqa: TRY400 - once, and not the trace of a connection
                self._away = True
                return
            self._lost = 0
            if self._away:
                logger.warning("The store takes the audit again, and what had waited.")
            self._away = False

    def _gap(self) -> list[Entry]:
        """What stands in the place of entries that could not wait any longer."""
        why = f"{self._lost} entries before this one could not be kept; the log has them"
        return (
            [Entry(at=time.time(), by="", team="", verb="audit", via="message", channel="", result="failed", why=why)] if self._lost else []
        )

    async def read(self, wanted: Wanted, before: str = "") -> AsyncIterator[tuple[str, Entry]]:
        """What is on record, the newest first, each with the id before which to read on; raises redis.RedisError."""
        while True:
            page = await self._store.noted(before, _PAGE)
            for at, text in page:
                entry = _entry(text)
                if entry is not None and wanted.fits(entry):
                    yield at, entry
            if len(page) < _PAGE:
                return
            before = page[-1][0]


def _text(entry: Entry) -> str:
    return msgspec.json.encode(entry).decode()


def _entry(text: str) -> Entry | None:
    """None for one that a newer meshwhy wrote in a form that is not known here."""
    try:
        return msgspec.json.decode(text, type=Entry)
    except msgspec.DecodeError:
        return None
