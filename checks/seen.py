"""What running parts show of one host, each beside what was predicted for exactly that proxy.

A check of evidence asks here; what the objects explain already is left out, since the nearest cause alone is told.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.case import Branch, Case
    from checks.evidence import EnvoyView, LiveCluster, LiveHost


class Held(NamedTuple):
    """A predicted destination that gets requests, and what one live Envoy holds of it (None: no cluster of that name)."""

    branch: Branch
    envoy: EnvoyView
    cluster: LiveCluster | None

    @property
    def hosts(self) -> tuple[LiveHost, ...]:
        """Its hosts; none of a cluster that takes no requests."""
        return self.cluster.hosts if self.cluster is not None and self.cluster.present else ()

    @property
    def source(self) -> str:
        """Where that was seen, and when, for people."""
        return f"{self.envoy.source}, read at {clock(self.envoy.read_at)}"


def held(case: Case) -> list[Held]:
    """The destinations of each Envoy that was read, but for those whose failing the objects explain."""

    def find() -> list[Held]:
        views = [(e, case.as_pod(e.cluster, e.namespace, e.pod)) for e in case.evidence.envoys]
        return [
            Held(b, envoy, envoy.clusters.get(b.upstream.name))
            for envoy, view in views
            if view is not None
            for b in case.of_view(view)
            if b.share > 0 and not case.explained(b)
        ]

    return case.once("held", find)


def share(parts: Iterable[tuple[Branch, float]]) -> float:
    """The part of a rule's requests that some parts (0 to 1) of its destinations take, of the rule where it is largest."""
    sums: dict[int, float] = {}
    for branch, part in parts:
        sums[id(branch.step)] = sums.get(id(branch.step), 0.0) + branch.share * part
    return round(min(1.0, max(sums.values(), default=0.0)), 6)


def clock(seconds: float) -> str:
    """`2026-11-03 14:02:07 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
