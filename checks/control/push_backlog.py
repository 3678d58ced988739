"""push-backlog (MESH907)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import BACKLOG_S, hit, lag, proxy_finding, told
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("push-backlog")
def push_backlog(case: Case) -> Iterator[Finding]:
    """Istiod takes longer to push changes than pods take to come and go, and callers work with endpoints of the past.

    Each change has istiod compute and send configuration to every proxy that it concerns. Without CPU, with very many proxies, or with a
    configuration that no Sidecar scopes, changes queue: callers go on calling pods that are gone (flag UF), and then none at all (UH).

    How to see it: `pilot_proxy_convergence_time` and `pilot_proxy_queue_time` of istiod; proxies are STALE, each for a while.

    How to fix it: give istiod more CPU or replicas, and scope what proxies hold with Sidecars and exportTo.
    """
    slow = [v for v in case.evidence.istiods if lag(v) > BACKLOG_S]
    said = [f"istiod {v.pod}.{v.namespace}: a change took {lag(v):.0f} s on average to reach a proxy, over {v.over_s:.0f} s" for v in slow]
    group = []
    for e in hit(case, "push-backlog"):
        t = told(case, "push-backlog", e.cluster, e.namespace, e.pod, *said)
        group += [t] if t is not None else []
    if group:
        yield proxy_finding(
            case,
            "push-backlog",
            group,
            f"istiod needs {max(map(lag, slow)):.0f} s to push a change",
            "Give istiod more CPU or replicas, and scope what proxies hold with Sidecars and exportTo.",
            (f"kubectl -n {slow[0].namespace} top pod {slow[0].pod}", "istioctl proxy-status"),
        )
