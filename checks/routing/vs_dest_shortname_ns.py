"""vs-dest-shortname-ns (MESH202)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check, explained, explains
from checks.resources import Service, ServiceEntry, VirtualService
from checks.routing import mend, unknown_host, with_host, written
from checks.subsets import namesakes, percent, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("vs-dest-shortname-ns", before=("vs-dest-host-unknown",))
def _explains(_: Case, branch: Branch) -> bool:
    return bool(_namesakes(branch))


@check("vs-dest-shortname-ns", when=explained)
def vs_dest_shortname_ns(case: Case) -> Iterator[Finding]:
    """A short destination host means the VirtualService's own namespace, and the service stands in another one.

    istiod completes a host without any dot with the namespace of the rule that says it, not with the caller's and not with that of a service
    of this name. No such host exists there, so the route leads to a cluster that is never pushed: 503 (flag NC, body empty).

    How to see it: `istioctl proxy-config routes <pod> -o json` shows the completed host with the VirtualService's namespace.

    How to fix it: write the host in full, `NAME.NAMESPACE.svc.cluster.local`.
    """
    for branches in case.caused("vs-dest-shortname-ns"):
        first = branches[0]
        said = written(first)
        others = _namesakes(first)
        if said is None:
            continue
        share = case.share(branches)
        meant = others[0] if len(others) == 1 else ""
        yield case.finding(
            "vs-dest-shortname-ns",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.destination.host",
            message=(
                f"{percent(share)} of the requests of a rule go to host {said.host}, which {first.resource} completes with its own namespace "
                f"to {short(first.upstream.host)}: no such service exists, only {' and '.join(map(short, others))}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{first.path} of {first.resource} says {said.host}", f"a service of this name exists as {', '.join(others)}"),
            fix=f"Write the host in full: {' or '.join(others)}.",
            patch=mend(case, branches, with_host(meant)) if meant else None,
            commands=(f"kubectl get services -A --field-selector metadata.name={said.host}",),
        )
    shown(case, VirtualService, Service, ServiceEntry)


def _namesakes(branch: Branch) -> list[str]:
    """Hosts of Kubernetes Services in other namespaces that a short host could have meant."""
    said = written(branch)
    if said is None or "." in said.host or not unknown_host(branch):
        return []
    return sorted(set(namesakes(branch.view.ups.istiod, said.host)))
