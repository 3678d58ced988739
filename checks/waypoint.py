"""What a waypoint does with a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from checks.sidecar import Step
from checks.upstream import Upstreams


def routes(ups: Upstreams, hosts: Iterable[str] | None) -> Iterator[Step]:
    """The rules of a waypoint's listeners."""
    yield from ()
