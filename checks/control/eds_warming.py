"""eds-warming (MESH904)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import hit, proxy_finding, told
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("eds-warming")
def eds_warming(case: Case) -> Iterator[Finding]:
    """A cluster that istiod announced waits in the caller's Envoy for endpoints that never come.

    A new cluster takes no request before its endpoints have arrived, and Istio lets Envoy wait for ever (initial_fetch_timeout 0s). Where istiod is
    slow, overloaded, or has lost the subscription, every request gets 503 with flag NC, as if the cluster did not exist, although all pods are ready.

    How to see it: the cluster stands in `dynamic_warming_clusters` of the Envoy's config_dump, which `istioctl proxy-config cluster` does not print.

    How to fix it: restart the caller's proxy; if it comes back, give istiod more replicas or CPU.
    """
    group = []
    for e in hit(case, "eds-warming"):
        t = told(case, "eds-warming", e.cluster, e.namespace, e.pod)
        group += [t] if t is not None else []
    if group:
        worst = max(group, key=lambda t: t.part)
        yield proxy_finding(
            case,
            "eds-warming",
            group,
            "Envoy has announced clusters whose endpoints have not come, and answers with NC until they do",
            f"Restart pod {worst.namespace}/{worst.pod}; if it comes back, give istiod more replicas or CPU.",
            (
                f"kubectl -n {worst.namespace} exec {worst.pod} -c istio-proxy -- pilot-agent request GET 'config_dump?resource=dynamic_warming_clusters'",
                "istioctl proxy-status",
            ),
        )
