"""outlier-at-caller-only (MESH802)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.health import ejecting, elsewhere, outlier
from checks.seen import where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("outlier-at-caller-only")
def outlier_at_caller_only(case: Case) -> Iterator[Finding]:
    """One caller has ejected every host of a destination that other callers use.

    Each Envoy ejects by what it saw itself: a caller whose own requests provoked 5xx, or whose network failed for a moment, has ejected all hosts
    and gets 503 "no healthy upstream" (flag UH), while the same pods serve everybody else.

    How to see it: `istioctl proxy-config endpoints` says OUTLIER CHECK FAILED at this caller and OK at another.

    How to fix it: find out which requests of this caller get 5xx; the ejection ends after baseEjectionTime, or when the caller's proxy restarts.
    """
    for group in ejecting(case):
        others = {h.envoy.proxy: h for ejected in group for h in elsewhere(case, ejected)}
        if not others:
            continue
        first = group[0]
        who = ", ".join(sorted({h.envoy.proxy for h in group}))
        yield outlier(
            case,
            "outlier-at-caller-only",
            group,
            f"{who} has ejected every host of {where(first.branch)}, which other callers use",
            (
                f"Envoy {h.envoy.proxy} uses {', '.join(host.address for host in h.hosts[:3] if host.usable)} ({h.source})"
                for h in list(others.values())[:3]
            ),
            f"Find out which requests of {who} get 5xx from {where(first.branch)}; the ejection ends after baseEjectionTime, or when the proxy restarts.",
        )
