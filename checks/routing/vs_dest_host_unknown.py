"""vs-dest-host-unknown (MESH201)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import mend, unknown_host, with_host
from checks.subsets import percent, reweigh, shown
from checks.subsets.subset_label_not_on_pods import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("vs-dest-host-unknown")
def _explains(_: Case, branch: Branch) -> bool:
    return unknown_host(branch)


@check("vs-dest-host-unknown", when=explained)
def vs_dest_host_unknown(case: Case) -> Iterator[Finding]:
    """A rule leads to a host that neither a Service nor a ServiceEntry defines.

    istiod writes the route all the same, with the name of a cluster that it never pushes: Envoy answers with 503 (flag NC, body empty).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing; the access log has an empty upstream_cluster.

    How to fix it: correct the host (a short name means the rule's own namespace), or create the Service or ServiceEntry.
    """
    for branches in case.caused("vs-dest-host-unknown"):
        first = branches[0]
        host, share = first.upstream.host, case.share(branches)
        istiod = first.view.ups.istiod
        near = istiod.nearest(host, 3)
        same = [h for h in near if h.partition(".")[2] == host.partition(".")[2] and alike(h.partition(".")[0], host.partition(".")[0])]
        yield case.finding(
            "vs-dest-host-unknown",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.destination.host" if first.path else "",
            message=f"{percent(share)} of the requests of a rule go to host {host}, which no Service and no ServiceEntry defines.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"none of {len(istiod.by_host)} known hosts is {host}", *((f"near: {', '.join(near)}",) if near else ())),
            fix=f"Correct the host{f' (did you mean {near[0]}?)' if near else ''}, or create the Service or ServiceEntry that it names.",
            patch=reweigh(case, branches) or (mend(case, branches, with_host(same[0])) if len(same) == 1 else None),
            commands=(f"istioctl proxy-config cluster <pod> --fqdn {host}",),
        )
    shown(case, VirtualService, Service, ServiceEntry)
