"""gw-svc-not-visible (MESH706)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, short
from checks.finding import Finding, check, explained, explains
from checks.resources import ServiceEntry
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@explains("gw-svc-not-visible", before=("vs-dest-host-unknown", "svc-exportto-hidden"))
def _explains(_: Case, branch: Branch) -> bool:
    u = branch.upstream
    return branch.view.callers.proxy.kind == "gateway" and u.service is None and bool(branch.view.ups.istiod.by_host.get(u.host))


@check("gw-svc-not-visible", when=explained)
def gw_svc_not_visible(case: Case) -> Iterator[Finding]:
    """A gateway leads to a Service or ServiceEntry that is not exported to the gateway's namespace.

    `exportTo` of a ServiceEntry, or the annotation `networking.istio.io/exportTo` of a Service, says which namespaces see it. A gateway counts
    with the namespace of its pods. What it does not see has no cluster there: 503 (flag NC), while callers in the mesh are fine.

    How to see it: `istioctl proxy-config cluster <gateway pod> --fqdn HOST` prints nothing.

    How to fix it: export it to the gateway's namespace.
    """
    for branches in case.led("gw-svc-not-visible"):
        first = branches[0]
        istiod, host = first.view.ups.istiod, first.upstream.host
        hidden = istiod.by_host[host][0]
        gateway, share = first.view.ups.proxy.namespace, case.share(branches)
        source = hidden.sources[0][1]
        path = 'metadata.annotations["networking.istio.io/exportTo"]' if hidden.kubernetes else "spec.exportTo"
        said = ", ".join(sorted(istiod.exported(hidden)))
        yield case.finding(
            "gw-svc-not-visible",
            cluster=case.cluster_of(first),
            resource=source,
            path=path,
            message=f"{percent(share)} of the requests of a rule fail at the gateway in {gateway}: {source} is not exported to that namespace.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{source} in namespace {hidden.namespace} is exported to {said}",
                f"{first.path} of {first.resource} leads to {host}",
            ),
            fix=f"Export {short(host)} to {gateway}: add it to {path} of {source}.",
            patch=None if hidden.kubernetes else _patch(case, branches, source, gateway),
            commands=(f"istioctl proxy-config cluster <gateway pod> -n {gateway} --fqdn {host}",),
        )


def _patch(case: Case, branches: Sequence[Branch], source: str, gateway: str) -> str | None:
    cluster = case.mesh.cluster(branches[0].view.ups.istiod.cluster)
    namespace, _, name = source.partition(" ")[2].partition("/")
    found = cluster.get(ServiceEntry, namespace, name)
    if found is None or not found.spec.export_to or "~" in found.spec.export_to:
        return None
    return case.patch(cluster.name, found, (("spec", "exportTo", len(found.spec.export_to)), gateway))
