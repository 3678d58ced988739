"""external-endpoint-down (MESH420)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.entries import outside
from checks.finding import Finding, check
from checks.seen import log_command, lost, refused, sources, timed_out
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access


@check("external-endpoint-down")
def external_endpoint_down(case: Case) -> Iterator[Finding]:
    """What a ServiceEntry leads to refuses connections, or does not answer them.

    The mesh is right: the name resolves, the cluster has hosts, and the caller's Envoy tries them. The server outside is down, its port is
    another, or a firewall on the way drops or refuses what comes from the cluster: 503 (flag UF, Connection_refused or connection_timeout).

    How to see it: the caller's access log names the address that was tried; a plain `curl` from the node fails likewise.

    How to fix it: it is the other side's, or the firewall's; until then lead calls elsewhere, if there is somewhere.
    """
    for group in outside(case, _down):
        first = group[0]
        u = first.branch.upstream
        if u.service is None:
            continue
        part = lost(group)
        tried = ", ".join(dict.fromkeys(at for c in group for at in c.upstreams)) or u.host
        how = "refuses connections" if refused(first.accesses[0]) else "answers no connection"
        yield case.finding(
            "external-endpoint-down",
            cluster=case.cluster_of(first.branch),
            resource=u.service.sources[0][1],
            path="",
            message=f"{percent(part)} of the requests of a rule to port {u.port} of {short(u.host)} fail: {tried} {how}.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=tuple(sources(group)),
            fix=f"Have {tried} mended by those who run it, or opened in the firewall on the way.",
            commands=(
                log_command(first),
                f"kubectl -n {first.log.namespace} debug node/<node> -it --image=curlimages/curl -- curl -sv {tried.partition(',')[0]}",
            ),
        )


def _down(access: Access) -> bool:
    return refused(access) or timed_out(access)
