"""downstream-cancel-DC (MESH944)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.evidence import Access, Flow
from checks.finding import Finding, check
from checks.measured import finding, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case

USUAL = 0.05
"""The part of the calls that clients give up on any day: closed tabs, hedged requests, pollers that are stopped."""


@check("downstream-cancel-DC")
def downstream_cancel_DC(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """The client gave up before an answer came: no status at all (flag DC).

    The call was routed and arrived, and whoever made it closed the connection first: its own timeout is shorter than the app's answer takes.
    Only what the caller's own proxy tells counts, for a server's proxy says DC as well when the caller's timed out (UT). Up to one call in
    twenty ends so on any day, and nothing is said of them.

    How to see it: the access log says 0 DC downstream_remote_disconnect, with durations that are all alike when it is a timeout.

    How to fix it: make the app faster, or let the client wait longer.
    """
    measured = measure(case, _gave_up, USUAL)
    if measured is None:
        return
    host = short(case.host)
    yield finding(
        case,
        "downstream-cancel-DC",
        measured,
        what="are given up by the client before an answer came (DC), which is no fault of routing",
        fix=f"Make {host} answer faster, or let its clients wait longer than it takes.",
    )


def _gave_up(call: Access | Flow) -> bool:
    """Whether no status was sent: the end of a stream that had its answer is no failure."""
    if "DC" not in call.flags or call.code:
        return False
    if isinstance(call, Flow):
        return call.reporter == "source" and call.protocol != "tcp"
    return call.details.startswith("downstream_remote_disconnect") and not call.envoy_cluster.startswith("inbound|")
