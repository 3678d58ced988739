"""stream-duration-UMSDR (MESH949)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.evidence import Access
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Flow


@check("stream-duration-UMSDR")
def stream_duration_UMSDR(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """A stream lived longer than it may (flag UMSDR), or nothing came on it for too long (SI).

    A limit of the proxy ends the stream whatever the app does: the longest duration of a stream (max_stream_duration, or grpc-timeout), or the
    idle time of one (Envoy's five minutes, or what an EnvoyFilter or meshConfig says). It meets streaming and long polling.

    How to see it: the access log says max_duration_timeout (UMSDR, or no flag) or SI stream_idle_timeout, with durations that are all alike.

    How to fix it: send something on idle streams (keep-alive pings), or raise the limit where it was set.
    """
    measured = measure(case, _ended)
    if measured is None:
        return
    idle = bool(measured.accesses) and all("SI" in a.flags or a.details == "stream_idle_timeout" for a in measured.accesses)
    what = "nothing came on its stream for too long (SI)" if idle else "its stream lived longer than it may (UMSDR, SI)"
    yield finding(
        case,
        "stream-duration-UMSDR",
        measured,
        what=f"are ended by the proxy: {what}, which is no fault of routing",
        fix=f"Send something on idle streams of {short(case.host)}, or raise the limit where it was set.",
    )


def _ended(call: Access | Flow) -> bool:
    """Whether a limit of the proxy ended the stream: Envoy 1.40 sets no flag where a route's max_stream_duration does, only the detail."""
    if isinstance(call, Access) and call.details in {"max_duration_timeout", "stream_idle_timeout"}:
        return True
    return flagged("UMSDR", "SI")(call)
