"""outlier-eject-all (MESH801)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.health import ejecting, elsewhere, outlier
from checks.seen import where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("outlier-eject-all")
def outlier_eject_all(case: Case) -> Iterator[Finding]:
    """Outlier detection has ejected every host of a destination, and no caller that was looked at uses any of them.

    The DestinationRule lets a caller's Envoy eject hosts that answer 5xx, and maxEjectionPercent is high enough for all of them. The first
    errors are the app's own; then every request gets 503 "no healthy upstream" (flag UH) until baseEjectionTime is over, although Kubernetes
    and istiod call every pod ready.

    How to see it: `istioctl proxy-config endpoints` of the caller says OUTLIER CHECK FAILED for every endpoint.

    How to fix it: mend what makes the app answer 5xx, and lower maxEjectionPercent so that some hosts always stay.
    """
    for group in ejecting(case):
        if any(elsewhere(case, h) for h in group):
            continue
        first = group[0].branch
        yield outlier(
            case,
            "outlier-eject-all",
            group,
            f"outlier detection has ejected every host of {where(first)}",
            (),
            f"Mend what makes {where(first)} answer 5xx, and lower maxEjectionPercent so that some hosts always stay.",
        )
