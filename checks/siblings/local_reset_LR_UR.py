"""local-reset-LR-UR (MESH947)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("local-reset-LR-UR")
def local_reset_LR_UR(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """Streams were reset while a request was on its way: by the server (flag UR) or by the caller's own proxy (LR).

    The connection lives on and one stream of it (HTTP/2, gRPC) is ended: by a server that refuses or cancels it, or by the proxy that stops
    waiting for its own reasons. The call was routed and arrived.

    How to see it: the access log says UR or LR, upstream_reset_before_response_started{remote_reset} or {local_reset}.

    How to fix it: look into the server's log for why it resets streams: its limit of concurrent streams, a deadline, a crash of a handler.
    """
    measured = measure(case, flagged("LR", "UR"))
    if measured is None:
        return
    host = short(case.host)
    flags = dict.fromkeys(f for a in measured.accesses for f in a.flags if f in {"LR", "UR"})
    who = "by the caller's own proxy (LR)" if [*flags] == ["LR"] else f"by {host} (UR)" if [*flags] == ["UR"] else "(LR, UR)"
    yield finding(
        case,
        "local-reset-LR-UR",
        measured,
        what=f"end when their stream is reset {who}, which is no fault of routing",
        fix=f"Look into the log of {host} for why it ends streams: its limit of concurrent streams, a deadline, a handler that crashes.",
    )
