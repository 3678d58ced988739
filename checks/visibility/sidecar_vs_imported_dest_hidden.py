"""sidecar-vs-imported-dest-hidden (MESH502)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.entries import together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.visibility import at, by_export, export_path, exported_to, exporting, foreign, spaces, unexported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("sidecar-vs-imported-dest-hidden", before=("svc-exportto-hidden",))
def _explains(_: Case, branch: Branch) -> bool:
    known = unexported(branch)
    imported = branch.view.callers.proxy.kind != "gateway" and foreign(branch)
    return imported and bool(known) and by_export(branch.view.ups.istiod, known) == "svc-exportto-hidden"


@check("sidecar-vs-imported-dest-hidden", when=explained)
def sidecar_vs_imported_dest_hidden(case: Case) -> Iterator[Finding]:
    """A caller gets the rules of another namespace, and not the service that they lead to.

    A VirtualService and the services of its destinations are exported each for itself. Where a caller sees the VirtualService and not the
    service, istiod writes the route and never pushes its cluster: 503 (flag NC, body empty).

    How to see it: `istioctl proxy-config routes <pod>` names a cluster that `istioctl proxy-config cluster <pod>` does not list.

    How to fix it: export the service to the callers who get the rule, or keep the rule from them (exportTo of the VirtualService).
    """
    for branches in together(case, "sidecar-vs-imported-dest-hidden"):
        first = branches[0]
        service = unexported(first)[0]
        share, viewpoints = case.share(branches), case.viewpoints(branches)
        yield case.finding(
            "sidecar-vs-imported-dest-hidden",
            cluster=at(case, first.view.ups.istiod, service).name,
            resource=service.sources[0][1],
            path=export_path(service),
            message=(
                f"{percent(share)} of the requests of a rule fail for {spaces(viewpoints)}: they get {first.resource}, "
                f"which leads to {short(first.upstream.host)}, and {exported_to(service)} alone."
            ),
            share=share,
            viewpoints=viewpoints,
            evidence=(exported_to(service), f"{first.resource} leads there ({first.path}) and is exported to them"),
            fix=f"Export {service.sources[0][1]} to {spaces(viewpoints)}, or keep {first.resource} from them by its exportTo.",
            patch=exporting(case, first.view.ups.istiod, service, viewpoints),
            commands=(
                f"istioctl proxy-config routes <pod>.{viewpoints[0].namespace}",
                f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {first.upstream.host}",
            ),
        )
