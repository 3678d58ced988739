"""circuit-breaker-overflow (MESH806)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.health import overflows
from checks.seen import says

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access


@check("circuit-breaker-overflow")
def circuit_breaker_overflow(case: Case) -> Iterator[Finding]:
    """A DestinationRule's connectionPool allows fewer connections or requests than its callers need.

    The limits count in each caller's Envoy for itself. What comes beyond maxConnections and the pending requests behind them is not sent at all:
    503 with flag UO and detail `{overflow}`, while the servers are well.

    How to see it: the caller's access log says UO upstream_reset_before_response_started{overflow}.

    How to fix it: raise the limit, or make the servers answer sooner so that fewer requests wait.
    """
    yield from overflows(
        case,
        "circuit-breaker-overflow",
        _overflow,
        "are refused by the caller's own Envoy: more wait than the connection pool allows",
        "Raise the limits of {ref}, or make {host} answer sooner, so that fewer requests wait.",
    )


def _overflow(access: Access) -> bool:
    return "UO" in access.flags and says(access, "{overflow}")
