"""upstream-reset-UC (MESH942)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("upstream-reset-UC")
def upstream_reset_UC(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """The server closed connections under requests that were on their way: 503 (flag UC).

    The request was routed and sent, and the connection ended before an answer came: the app closes kept-alive connections earlier than Envoy
    expects, crashes, runs out of memory, or stops without finishing what it has. Fewer than one call in a hundred end so on any day, and nothing
    is said of them.

    How to see it: the access log says UC upstream_reset_before_response_started{connection_termination}; restarts of the pods at that time.

    How to fix it: keep the app's keep-alive longer than `connectionPool.http.idleTimeout` of the DestinationRule; a preStop hook that waits;
    retries (reset) for requests that may be sent twice.
    """
    measured = measure(case, flagged("UC"))
    if measured is None:
        return
    host = short(case.host)
    yield finding(
        case,
        "upstream-reset-UC",
        measured,
        what=f"get 503: {host} closed the connection before it answered (UC), which is no fault of routing",
        fix=f"Look whether pods of {host} restarted then; else keep the app's keep-alive longer than connectionPool.http.idleTimeout of its DestinationRule.",
    )
