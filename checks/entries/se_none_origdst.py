"""se-none-origdst (MESH407)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import astray, astray_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("se-none-origdst")
def se_none_origdst(case: Case) -> Iterator[Finding]:
    """A rule leads to a ServiceEntry with resolution NONE, whose cluster goes wherever the connection was first aimed at.

    With resolution NONE a sidecar's cluster is ORIGINAL_DST: it sends to the address that the app dialled. Calls that a rule of another host, or
    a virtual address, leads there were aimed at something else: 503 "no healthy upstream" (flag UH), or an attempt to reach that address (UF).

    How to see it: the access log says UH for this cluster, or UF with an upstream host that is no address of the service.

    How to fix it: give the ServiceEntry resolution DNS (or DYNAMIC_DNS for a wildcard), or STATIC with endpoints.
    """
    for group in astray(case, kubernetes=False):
        yield astray_finding(
            case,
            "se-none-origdst",
            group,
            "has resolution NONE",
            "Give the ServiceEntry resolution DNS (DYNAMIC_DNS for a wildcard), or STATIC with endpoints.",
        )
