"""downstream-protocol-DPE (MESH945)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("downstream-protocol-DPE")
def downstream_protocol_DPE(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """What the client sends is no valid HTTP: 400 (flag DPE), and no server sees it.

    The proxy that takes the call cannot read it: a malformed request line or header, two Content-Length headers, TLS or another protocol spoken
    to a port that is plain HTTP. The answer comes from this proxy, before any rule is looked at, so that its log names neither host nor route:
    whom the call meant is known by the address that was called.

    How to see it: the access log says 400 DPE http1.codec_error (or http2), with `-` for the host.

    How to fix it: mend the client; where it speaks another protocol on purpose, name the Service's port so (appProtocol).
    """
    measured = measure(case, flagged("DPE"))
    if measured is None:
        return
    yield finding(
        case,
        "downstream-protocol-DPE",
        measured,
        what="get 400 from the proxy that takes them: what the client sends is no valid HTTP (DPE), which is no fault of routing",
        fix=f"Mend the client, or give the port of {short(case.host)} the protocol that it speaks (appProtocol: tcp, https).",
    )
