"""Probes: what running parts say, read-only and bounded, as `checks.evidence`.

A probe asks one thing of one cluster (its callers' Envoys, its istiods, its Prometheus, its logs) and answers within its own bounds; what it could
not read is in its evidence as skipped, with why. `gather` takes several at once and tells of each as it finishes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from checks.evidence import NOTHING, Evidence
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

WITHIN_S = 12.0
"""For all probes of one question together."""


class Probe(NamedTuple):
    """One thing to ask: `kind` is the name under which it is skipped (envoy, istiod, ztunnel, prometheus, logs); `read` asks, and does not raise."""

    kind: str
    cluster: str
    read: Callable[[], Awaitable[Evidence]]


class Gathered(NamedTuple):
    """What was read so far, and the kinds of which some have not answered yet."""

    evidence: Evidence
    running: frozenset[str]


async def gather(probes: Sequence[Probe], within_s: float = WITHIN_S) -> AsyncIterator[Gathered]:
    """All probes at once: what is known after each of them, first before any; the last one is complete.

    One that has not answered in time is skipped, and delays no other.
    """
    tasks = {asyncio.ensure_future(p.read()): p for p in probes}
    until = asyncio.get_running_loop().time() + within_s
    evidence, waiting = NOTHING, set(tasks)
    try:
        yield Gathered(evidence, frozenset(tasks[t].kind for t in waiting))
        while waiting:
            left = until - asyncio.get_running_loop().time()
            done, waiting = await asyncio.wait(waiting, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                evidence += _told(tasks[task], task)
            if not done:
                late = [tasks[t] for t in waiting]
                reason = f"it did not answer within {within_s:g} s"
                evidence += Evidence(skipped=tuple(Skipped(p.kind, p.cluster, reason) for p in late))
                yield Gathered(evidence, frozenset())
                return
            yield Gathered(evidence, frozenset(tasks[t].kind for t in waiting))
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _told(probe: Probe, task: asyncio.Future[Evidence]) -> Evidence:
    """What a probe read; an error of its own is one look that was not taken, and no end of the others."""
    failed = task.exception()
    if failed is None:
        return task.result()
    return Evidence(skipped=(Skipped(probe.kind, probe.cluster, f"the probe itself failed: {type(failed).__name__}: {failed}"),))
