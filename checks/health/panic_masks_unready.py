"""panic-masks-unready (MESH803)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.evidence import UNREADY
from checks.finding import Finding, check
from checks.health import policy_at
from checks.seen import held, share, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.seen import Held


@check("panic-masks-unready")
def panic_masks_unready(case: Case) -> Iterator[Finding]:
    """Too few hosts of a destination are ready, and so Envoy sends to those that are not ready as well.

    Below its panic threshold Envoy takes its view of health for wrong and balances over all hosts. Istio sets the threshold to 0 where it sends
    endpoints that are not ready; before 1.31, or with minHealthPercent or an EnvoyFilter, it is not. Requests to the unready ones fail with UF
    instead of going to those that are ready.

    How to see it: `istioctl proxy-config endpoints` shows UNHEALTHY hosts; `lb_healthy_panic` of the cluster grows.

    How to fix it: make the pods ready, or give the DestinationRule an outlierDetection whose minHealthPercent is 0.
    """
    groups: dict[str, list[tuple[Held, float]]] = {}
    for h in held(case):
        unready = sum(UNREADY in host.reason for host in h.hosts)
        usable = sum(host.usable for host in h.hosts)
        threshold = (h.cluster.panic_threshold if h.cluster is not None else None) or 0.0
        if unready and usable and 100 * usable / len(h.hosts) < threshold:
            groups.setdefault(h.branch.upstream.name, []).append((h, unready / len(h.hosts)))
    for group in groups.values():
        first = group[0][0]
        part = share((h.branch, p) for h, p in group)
        cluster, ref, path = policy_at(case, first.branch, "outlier_detection")
        yield case.finding(
            "panic-masks-unready",
            cluster=cluster,
            resource=ref,
            path=path,
            message=(
                f"{percent(part)} of the requests of a rule go to pods of {where(first.branch)} that are not ready: "
                f"too few are, and Envoy sends to all of them."
            ),
            share=part,
            viewpoints=case.viewpoints(h.branch for h, _ in group),
            evidence=[_seen(h) for h, _ in group[:3]],
            fix=f"Make the pods of {where(first.branch)} ready, or give it an outlierDetection whose minHealthPercent is 0, which switches panic off.",
            commands=(
                f"istioctl proxy-config endpoints {first.envoy.pod} -n {first.envoy.namespace} --cluster '{first.branch.upstream.name}'",
                f"istioctl proxy-config cluster {first.envoy.pod} -n {first.envoy.namespace} --fqdn {first.branch.upstream.host} -o json",
            ),
        )


def _seen(h: Held) -> str:
    usable = sum(host.usable for host in h.hosts)
    threshold = h.cluster.panic_threshold if h.cluster is not None else 0
    return f"Envoy {h.envoy.proxy} has {len(h.hosts)} hosts of {h.branch.upstream.name}, {usable} usable, and a panic threshold of {threshold:g} % ({h.source})"
