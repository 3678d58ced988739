"""headless-original-dst (MESH319)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import astray, astray_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("headless-original-dst")
def headless_original_dst(case: Case) -> Iterator[Finding]:
    """A rule leads to a headless Service, whose sidecar cluster goes wherever the connection was first aimed at.

    For a headless Service a sidecar's cluster is ORIGINAL_DST: it sends to the address that the app itself dialled. Calls of another host that a
    VirtualService leads there were aimed at that host's address, or at none: 503 "no healthy upstream" (flag UH), or an attempt to reach the
    wrong address (UF), although the headless Service's pods are ready.

    How to see it: the access log says UH for this cluster, Envoy's log "original_dst_load_balancer: No downstream connection or no original_dst".

    How to fix it: lead the rule to a Service with a ClusterIP that selects the same pods.
    """
    for group in astray(case, kubernetes=True):
        yield astray_finding(
            case, "headless-original-dst", group, "is headless", "Lead the rule to a Service with a ClusterIP that selects the same pods."
        )
