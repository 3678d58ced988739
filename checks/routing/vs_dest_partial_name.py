"""vs-dest-partial-name (MESH203)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import mend, unknown_host, with_host, written
from checks.subsets import percent, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("vs-dest-partial-name", before=("vs-dest-host-unknown",))
def _explains(_: Case, branch: Branch) -> bool:
    return bool(_whole(branch))


@check("vs-dest-partial-name", when=explained)
def vs_dest_partial_name(case: Case) -> Iterator[Finding]:
    """A destination host like `reviews.other` has a dot, so istiod takes it literally.

    Only a name without any dot is completed. `NAME.NAMESPACE` and `NAME.NAMESPACE.svc` are hosts of their own, which no Service and no
    ServiceEntry defines; the route leads to a cluster that is never pushed: 503 (flag NC, body empty). Kubernetes' DNS does know these names,
    and so do some tools, which makes the rule look right.

    How to see it: `istioctl proxy-config routes <pod> -o json` shows the cluster with the shortened host.

    How to fix it: write the host in full, `NAME.NAMESPACE.svc.cluster.local`.
    """
    for branches in case.caused("vs-dest-partial-name"):
        first = branches[0]
        said, share, whole = first.upstream.host, case.share(branches), _whole(first)
        yield case.finding(
            "vs-dest-partial-name",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.destination.host",
            message=(
                f"{percent(share)} of the requests of a rule go to host {said}, which istiod takes literally, since it has a dot: "
                f"the service is called {whole}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{first.path} of {first.resource} says {said}", f"{whole} is a service of the mesh, {said} is none"),
            fix=f"Write the host in full: {whole}.",
            patch=mend(case, branches, with_host(whole)),
            commands=(f"istioctl proxy-config cluster <pod> --fqdn {whole}",),
        )
    shown(case, VirtualService, Service, ServiceEntry)


def _whole(branch: Branch) -> str:
    """The host that a partial name would be in full, when it exists."""
    said = written(branch)
    if said is None or "." not in said.host or not unknown_host(branch):
        return ""
    known = branch.view.ups.istiod.by_host
    return next((h for h in (f"{said.host}.svc.{names.DOMAIN}", f"{said.host}.{names.DOMAIN}") if h in known), "")
