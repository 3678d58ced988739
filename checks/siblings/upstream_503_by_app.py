"""upstream-503-by-app (MESH941)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from checks.case import short
from checks.evidence import Access, Flow
from checks.finding import Finding, check
from checks.measured import finding, measure
from checks.registry import proxy_kind
from checks.resources import Pod
from checks.seen import called

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("upstream-503-by-app")
def upstream_503_by_app(case: Case) -> Iterator[Finding]:
    """The app itself answers 503: the call was routed, arrived, and came back with the app's own error.

    A 503 that Envoy makes carries a flag (UH, UF, UC, NC and so on) and Envoy's words. One without a flag, with the detail via_upstream and an
    upstream host, is what the server answered: the app is overloaded, starting, or in maintenance. Behind a sidecar the caller's log alone does
    not say so, since the server's proxy answers 503 as well when it cannot reach the app; its own log, or the destination's report, does.

    How to see it: the access log of the server's istio-proxy says 503 - via_upstream on `inbound|<port>||`; the answer's body is the app's.

    How to fix it: it is the app's team's: its log of that time says why it answers 503. Routing, endpoints and policies are as they should be.
    """
    bare = _bare(case)
    measured = measure(case, partial(_answered, bare))
    if measured is None:
        return
    yield finding(
        case,
        "upstream-503-by-app",
        measured,
        what=f"get 503 from the app of {short(case.host)} itself: no fault of routing, every one of them arrived",
        fix=f"Ask those who run {short(case.host)}: the app's own log of that time says why it answers 503.",
    )


def _answered(bare: frozenset[str], call: Access | Flow) -> bool:
    """Whether the app made a 503: as whoever stands before it reports, or a caller whose own connection it was."""
    if call.code != 503 or set(call.flags) - {"URX"}:  # URX: retried, and the last attempt got it too
        return False
    if isinstance(call, Flow):
        return call.reporter != "source"
    return call.details == "via_upstream" and (call.envoy_cluster.startswith("inbound|") or call.upstream in bare)


def _bare(case: Case) -> frozenset[str]:
    """The addresses at which an app answers callers without a proxy between them: pods without sidecar, and what is outside of the mesh."""
    out: set[str] = set()
    for c in called(case):
        service, through = c.branch.upstream.service, c.branch.view.ups.through
        if service is not None and service.external:
            out.update(a.upstream for a in c.accesses)
        for e in c.branch.upstream.endpoints:
            if e.workload and not e.tunnel and not through(e):
                space = case.mesh.cluster(e.cluster).within(Pod, e.namespace)
                pod = next((p for p in space.values() if e.address in p.addresses), None)
                if pod is not None and proxy_kind(pod) == "none":
                    out.add(e.at)
    return frozenset(out)
