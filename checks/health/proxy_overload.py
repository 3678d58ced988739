"""proxy-overload (MESH809)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.resources import Pod
from checks.seen import by, held, log_command, lost, share, sources, unrouted, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.evidence import Access
    from checks.seen import Held

REFUSING = "overload.envoy.overload_actions.stop_accepting_requests.active"


@check("proxy-overload")
def proxy_overload(case: Case) -> Iterator[Finding]:
    """The caller's own Envoy refuses requests, since it is overloaded.

    Its overload manager watches memory and connections (bootstrap, `proxy.istio.io/config`, or an EnvoyFilter): above a threshold it answers
    every request with 503 (flag OM, or the detail "overload"), or accepts no connection, whatever the destination.

    How to see it: the access log says OM or overload; `overload.envoy.overload_actions...active` is 1 in the proxy's stats.

    How to fix it: give the proxy more memory, or less to hold (a Sidecar that scopes its configuration, fewer connections).
    """
    for group in by(unrouted(case, _refused), lambda c: c.log.proxy):
        first = group[0]
        yield _finding(
            case, [c.branch for c in group], first.log.namespace, first.log.pod, lost(group), tuple(sources(group)), (log_command(first),)
        )
    logged = {c.log.proxy for c in unrouted(case, _refused)}
    refusing: dict[str, list[Held]] = {}
    for h in held(case):
        if (h.envoy.stats or {}).get(REFUSING) and h.envoy.proxy not in logged:
            refusing.setdefault(h.envoy.proxy, []).append(h)
    for holds in refusing.values():
        e = holds[0].envoy
        said = f"Envoy {e.proxy}: {REFUSING} is {(e.stats or {})[REFUSING]:g} ({holds[0].source})"
        yield _finding(case, [h.branch for h in holds], e.namespace, e.pod, share((h.branch, 1.0) for h in holds), (said,), ())


def _finding(
    case: Case, branches: list[Branch], namespace: str, pod: str, part: float, evidence: tuple[str, ...], commands: tuple[str, ...]
) -> Finding:
    first = branches[0]
    cluster = case.mesh.cluster(first.view.ups.proxy.cluster)
    found = cluster.get(Pod, namespace, pod)
    kind, _, name = (case.mesh.workload(cluster, found) if found is not None else f"Pod {pod}").partition(" ")
    return case.finding(
        "proxy-overload",
        cluster=cluster.name,
        resource=f"{kind} {namespace}/{name}",
        path="",
        message=f"{percent(part)} of the requests of a rule to {where(first)} are refused by the caller's own proxy {pod}.{namespace}, which is overloaded.",
        share=part,
        viewpoints=case.viewpoints(branches),
        evidence=evidence,
        fix=f"Give the proxy of {kind} {namespace}/{name} more memory, or less to hold: a Sidecar that scopes its configuration, fewer connections.",
        commands=(*commands, f"kubectl -n {namespace} exec {pod} -c istio-proxy -- pilot-agent request GET 'stats?filter=overload'"),
    )


def _refused(access: Access) -> bool:
    # Envoy 1.40 sets no flag where it answers before it looks at a route
    return "OM" in access.flags or (access.details == "overload" and not access.envoy_cluster)
