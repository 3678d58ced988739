"""upstream-protocol-UPE (MESH946)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("upstream-protocol-UPE")
def upstream_protocol_UPE(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """Some answers of the server are no valid HTTP: 502 (flag UPE, protocol_error).

    The call was routed and arrived; what came back broke the rules of HTTP, so that the proxy dropped it: two Content-Length headers, a header
    that is too long or malformed, a body after 204. Where every answer of a port is so, the port's protocol is declared wrong, which is another
    cause (protocol-misdeclared).

    How to see it: the access log says UPE upstream_reset_before_response_started{protocol_error} for some paths only; `curl -v` inside the pod
    shows the answer.

    How to fix it: mend the app's answer.
    """
    measured = measure(case, flagged("UPE"))
    if measured is None:
        return
    host = short(case.host)
    yield finding(
        case,
        "upstream-protocol-UPE",
        measured,
        what=f"get 502: what {host} answers is no valid HTTP (UPE), which is no fault of routing",
        fix=f"Mend these answers of {host}: see with curl -v inside the pod what they hold.",
    )
