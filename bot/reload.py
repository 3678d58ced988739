"""The settings file while the bot runs: a new one is used without a restart, a bad one is said and the one before goes on.

What must stay true: a change is seen whatever way it is made (an editor that writes or replaces the file, a ConfigMap whose symlinks are swapped, a
secret's file, SIGHUP); a bot that cannot begin with new settings goes on with the old ones; nothing of a file that is refused is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from collections.abc import Callable, Coroutine
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from bot import metrics
from bot.settings import BadSettings, Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

EVERY_S = 2.0  # how often the file is looked at
_SECRETS_S = 60.0  # how often it is read although it is the same: secrets stand in other files


class Running(Protocol):
    """A bot that has begun."""

    def heed(self, settings: Settings) -> None:
        """Go by these settings from now on, which `alike` says can be gone by."""

    async def report(self, ident: str, sentence: str) -> None:
        """Tell those who run the bot, once for each `ident` however many bots there are; the same `ident` later changes what was told."""


class Watched:
    """The settings that `path` holds, with secrets from `environ` and files, as they change."""

    def __init__(self, path: Path, environ: Mapping[str, str], every_s: float = EVERY_S) -> None:
        self._path = path
        self._environ = environ
        self._every_s = every_s
        self._asked = asyncio.Event()
        self._read = self._stamp = _stamp(path)
        self._read_at = asyncio.get_running_loop().time()

    def look(self) -> None:
        """Look at the file now, changed or not."""
        self._asked.set()

    @contextmanager
    def signalled(self) -> Iterator[None]:
        """SIGHUP is the wish to look now."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.look)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def news(self) -> Settings | BadSettings:
        """What the file says, when it was written, when somebody asks, and now and then all the same."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            before, self._stamp = self._stamp, _stamp(self._path)
            # Who is still writing is not interrupted: the file is read when it has stood still from one look to the next.
            written = self._stamp == before and self._stamp != self._read
            if asked or written or loop.time() - self._read_at >= _SECRETS_S:
                self._read, self._read_at = self._stamp, loop.time()
                try:
                    return await asyncio.to_thread(load, self._path, self._environ)
                except BadSettings as bad:
                    return bad


def _stamp(path: Path) -> object:
    """What changes when the file does: where its symlinks lead, and which file stands there."""
    try:
        found = path.stat()
        return str(path.resolve()), found.st_ino, found.st_mtime_ns, found.st_size
    except OSError as error:
        return error.errno


def alike(settings: Settings, new: Settings) -> bool:
    """Whether a running bot can go from one to the other: whom it tells, what people may do and who counts calls, not what else it talks to."""
    slack = new.slack.model_copy(update={"teams": settings.slack.teams})
    counting = {c.name: c.prometheus for c in settings.clusters}  # its token may be one that is written anew every hour
    clusters = tuple(c.model_copy(update={"prometheus": counting.get(c.name)}) for c in new.clusters)
    kept = {"alerts": settings.alerts, "access": settings.access, "slack": slack, "clusters": clusters}
    return new.model_copy(update=kept) == settings


Start = Callable[[Settings, Callable[[Running], None]], Coroutine[Any, Any, None]]
"""Runs a bot with some settings until cancelled, and calls its second argument when it has begun."""


class Keeper:
    """Runs what `start` begins, by what the settings file says."""

    def __init__(self, start: Start, watched: Watched) -> None:
        self._start = start
        self._watched = watched
        self._wrong = ""  # why what the file says is not used
        self._unusable: Settings | None = None  # the settings that no bot could begin with

    async def run(self, settings: Settings) -> None:
        """Run until cancelled. Raises what `start` raises, but for settings that came later and that it cannot begin with."""
        good: Settings | None = None
        while True:
            begun: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
            running = asyncio.ensure_future(self._start(settings, begun.set_result))
            try:
                await _first(running, begun)
                if begun.done():
                    good = settings
                    if self._wrong:
                        await self._refused(begun.result())
                    settings = await self._follow(running, begun.result(), settings)
                elif good is None or running.cancelled():
                    await running
                    return
                else:
                    self._wrong = f"No bot can begin with it: {running.exception() or 'it ended at once'}."
                    self._unusable, settings, good = settings, good, None
            finally:
                running.cancel()
                await asyncio.wait([running])

    async def _follow(self, running: asyncio.Future[None], bot: Running, settings: Settings) -> Settings:
        """Heed what the file says; returns the settings that need another bot. Raises what the running one raises."""
        while True:
            coming = asyncio.ensure_future(self._watched.news())
            try:
                await _first(running, coming)
                if running.done():
                    await running
                    raise asyncio.CancelledError
                new = coming.result()
            finally:
                coming.cancel()
                await asyncio.wait([coming])
            if isinstance(new, BadSettings):
                if str(new) != self._wrong:
                    self._wrong = str(new)
                    await self._refused(bot)
                continue
            if new == self._unusable:
                continue
            if self._wrong:
                await bot.report(_ident(self._wrong), "The settings file can be used again, and is.")
                self._wrong, self._unusable = "", None
                metrics.SETTINGS_REFUSED.set(0)
            if new == settings:
                continue
            metrics.RELOADS.labels("used").inc()
            logger.info("The settings have changed, and are used from now on.")
            if not alike(settings, new):
                return new
            settings = new
            bot.heed(new)

    async def _refused(self, bot: Running) -> None:
        logger.error("The settings file is not used, the settings before go on: %s", self._wrong)
        metrics.RELOADS.labels("refused").inc()
        metrics.SETTINGS_REFUSED.set(1)
        await bot.report(_ident(self._wrong), f"The settings file was changed and is not used; the settings before go on. {self._wrong}")


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _ident(why: str) -> str:
    return f"settings-{hashlib.blake2b(why.encode(), digest_size=6).hexdigest()}"
