"""istiod-no-rbac (MESH913)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import forbidden, of_shards, shard_finding
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("istiod-no-rbac")
def istiod_no_rbac(case: Case) -> Iterator[Finding]:
    """The API server does not let istiod list or watch what endpoints are made of.

    istiod's service account, here or in a remote cluster's secret, lacks list and watch on endpointslices, pods or services. It starts, warns in its
    log, and knows no endpoint of that cluster: callers get 503 "no healthy upstream" (flag UH), although every pod is ready.

    How to see it: istiod's log says `failed to list ... is forbidden`; `kubectl auth can-i list endpointslices --as system:serviceaccount:...`.

    How to fix it: give the service account the ClusterRole of istiod's chart (istiod-clusterrole, istio-reader).
    """
    found = of_shards(case).get("istiod-no-rbac", [])
    if found:
        view = found[0].istiod
        yield shard_finding(
            case,
            "istiod-no-rbac",
            found,
            f"the API server does not let istiod {view.pod}.{view.namespace} read endpoints, and it knows none",
            "Give istiod's service account the ClusterRole of its chart: list and watch on endpointslices, pods, services and nodes.",
            [line.text for line in list(forbidden(view))[:2]],
            (f"kubectl -n {view.namespace} logs {view.pod} | grep forbidden",),
        )
