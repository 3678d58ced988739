"""retry-overflow (MESH807)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.health import overflows
from checks.seen import says

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access


@check("retry-overflow")
def retry_overflow(case: Case) -> Iterator[Finding]:
    """Failed requests are not tried again, since more retries are under way than connectionPool allows.

    maxRetries limits the retries that one caller's Envoy has open to a destination. Beyond it the first failure is the answer: flag UO beside
    what failed, where a retry would have gone to another host. (Retries that were used up say URX, and are no limit.)

    How to see it: the caller's access log says UO with a detail that is not {overflow}; `upstream_rq_retry_overflow` counts them.

    How to fix it: raise maxRetries, and mend what makes the first attempts fail.
    """
    yield from overflows(
        case,
        "retry-overflow",
        _overflow,
        "failed once and were not tried again: more retries are open than the connection pool allows",
        "Raise maxRetries of {ref}, and mend what makes first attempts to {host} fail.",
    )


def _overflow(access: Access) -> bool:
    # Envoy's router sets the same flag when a retry has no room (source/common/router/router.cc, RetryStatus::NoOverflow)
    return "UO" in access.flags and not says(access, "{overflow}")
