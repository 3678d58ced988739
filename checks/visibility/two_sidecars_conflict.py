"""two-sidecars-conflict (MESH509)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.visibility import hidden, spaces
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("two-sidecars-conflict", when=missed)
def two_sidecars_conflict(case: Case) -> Iterator[Finding]:
    """Two Sidecars claim the same proxies, and the one that counts does not import a host that the other does.

    A proxy has one Sidecar: of two that select it, or of two without a selector in its namespace, istiod takes the older and ignores the
    other. What only the ignored one imports is not pushed.

    How to see it: `kubectl -n NAMESPACE get sidecars` lists both; `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing.

    How to fix it: merge the two into one, or give them selectors that do not meet.
    """
    for group in hidden(case, "two-sidecars-conflict"):
        first = group[0]
        kept, loser = first.scope.sidecar, first.loser
        if kept is None or loser is None:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        yield case.finding(
            "two-sidecars-conflict",
            cluster=case.mesh.cluster(first.istiod.cluster).name,
            resource=loser.ref,
            path="spec.workloadSelector" if loser.spec.workload_selector else "spec",
            message=(
                f"Calls of {spaces(viewpoints)} to {short(case.host)} {first.effect}: "
                f"{loser.ref} imports it and is ignored, since {kept.ref} claims the same proxies and is older."
            ),
            share=first.share,
            viewpoints=viewpoints,
            evidence=(
                *(
                    f"{s.ref} (created {s.created[:16].replace('T', ' ')}) imports {', '.join(h for e in s.spec.egress or () for h in e.hosts or ())}"
                    for s in (kept, loser)
                ),
                *dict.fromkeys(a for h in group for a in h.asks),
            ),
            fix=f"Merge {loser.ref} into {kept.ref}, or give them selectors that do not meet.",
            commands=(
                f"kubectl -n {kept.namespace} get sidecars",
                f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",
            ),
        )
