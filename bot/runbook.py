"""The runbook of an alert: run when it fires and when somebody asks, told step by step in one message of the alert's thread.

What must stay true: a runbook that was asked for is run, whoever leads by then; running it again edits the same message; a probe that fails or
hangs is a step that was not taken, and delays no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from redis.exceptions import RedisError

from bot import metrics
from bot.alerts import OUTAGE, State
from bot.health import Pulse
from bot.probes import gather
from bot.store import Deposed, Draft
from checks import diagnosis, runbook
from checks.changed import changed
from checks.diagnosis import UnknownHost
from templates import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bot.alerts import Alert
    from bot.probes import Probe
    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh
    from checks.runbook import Step
    from templates.blocks import Message

logger = logging.getLogger(__name__)

AT_ONCE = 4
_TOLD_S = 1.0  # Slack takes no more edits than that of all messages together for long
_AGAIN_S = 5.0  # after the store was away


class Taken(NamedTuple):
    """How far a runbook is: the diagnosis with what was read so far, its steps, and whether more is to come."""

    diagnosis: Diagnosis
    steps: tuple[Step, ...]
    running: bool


async def take(
    host: str, meshes: Sequence[Mesh], probing: Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]], since: float | None = None
) -> AsyncIterator[Taken]:
    """The steps of a host's runbook as they are taken; the last one is complete. Raises UnknownHost.

    `probing` says what can be asked about a host: its callers, servers, gateways and control planes, as far as the settings allow.
    `since` is when the fault was first seen, in seconds since the epoch.
    """
    predicted = await asyncio.to_thread(diagnosis.why, host, meshes)
    changes = await asyncio.to_thread(changed, predicted, meshes, since)
    async for gathered in gather(probing(predicted, meshes)):
        seen = await asyncio.to_thread(diagnosis.why, host, meshes, gathered.evidence) if gathered.evidence else predicted
        yield Taken(seen, runbook.steps(seen, gathered.evidence, gathered.running, changes, since), bool(gathered.running))


def told(taken: Taken, *, others: int = 0, since: float = 0.0) -> dict[str, Any]:
    """A runbook in the form of `messages.runbook`; `since` is when it was begun, in seconds since the epoch."""
    live = set(diagnosis.live())
    return {
        "host": taken.diagnosis.host,
        "others": others,
        "verdict": str(taken.diagnosis.verdict),
        "failing_share": taken.diagnosis.failing_share,
        "steps": msgspec.to_builtins(taken.steps),
        "running": taken.running,
        "took_s": time.time() - since if since and not taken.running else None,
        "found": msgspec.to_builtins([f for f in taken.diagnosis.findings if f.cause in live]),
    }


class Runner:
    """Runs what the store asks for of the clusters that this bot looks at; `held` says whether this is the one that may tell."""

    def __init__(
        self,
        store: Store,
        sweeper: Sweeper,
        probing: Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]],
        *,
        held: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._sweeper = sweeper
        self._probing = probing
        self._held = held
        self._running: set[str] = set()
        self.pulse = Pulse()

    async def run(self) -> None:
        """Until cancelled; the oldest first, a few at once."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.pulse.beat()
                self._store.runbook_due.clear()
                with suppress(RedisError, OSError):
                    for message, since, members in await self._wanted() if self._held() else ():
                        if len(self._running) >= AT_ONCE:
                            break
                        if message not in self._running:
                            self._running.add(message)
                            group.create_task(self._one(message, since, members))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S):
                        await self._store.runbook_due.wait()

    async def _wanted(self) -> list[tuple[str, float, list[Alert]]]:
        """What is to be run here: the messages, since when, and the open alerts of each, the one that it is run for first."""
        asked = await self._store.runbooks()
        speaking: dict[str, list[Alert]] = {message: [] for message, _ in asked}
        for alert in (await self._store.alerts()).values() if asked else ():
            if alert.finding.cause != OUTAGE and alert.message in speaking:
                speaking[alert.message].append(alert)
        for members in speaking.values():
            members.sort(key=lambda a: (a.state is State.FIRING, a.finding.failing_share, a.id), reverse=True)
        found = [(message, since, speaking[message]) for message, since in asked]
        return [one for one in found if not one[2] or self._sweeper.looks_at(one[2][0].finding.cluster)]

    async def _one(self, message: str, since: float, members: Sequence[Alert]) -> None:
        """One runbook from its first step to its last; nothing is to be told where all of it is resolved by now."""
        try:
            if members:
                await self._tell(message, members, since)
            await self._store.ran(message, since)
        except Deposed:
            return  # another one runs it now
        except (RedisError, OSError):
            await asyncio.sleep(_AGAIN_S)  # it is still asked for
        finally:
            self._running.discard(message)
            self._store.runbook_due.set()

    async def _tell(self, message: str, members: Sequence[Alert], since: float) -> None:
        lead, others = members[0], len({a.finding.host for a in members}) - 1
        begun, last = time.time(), 0.0
        try:
            async for taken in take(lead.finding.host, self._sweeper.meshes(), self._probing, lead.since):
                if taken.running and time.monotonic() - last < _TOLD_S:
                    continue
                last = time.monotonic()
                await self._say(message, lead, messages.runbook(told(taken, others=others, since=begun)))
        except UnknownHost:
            return  # it is gone by now
        metrics.RUNBOOK_SECONDS.observe(time.time() - since)

    async def _say(self, message: str, lead: Alert, said: Message) -> None:
        share = lead.finding.failing_share
        draft = Draft(id=f"runbook-{message}", alert=lead.id, channel="", message=said, resolved=True, share=share, thread=message)
        await self._store.commit({}, [draft], now=time.time())
