"""svc-exportto-hidden (MESH504)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.entries import together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.visibility import at, by_export, export_path, exported_to, exporting, foreign, hidden, spaces, unexported
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("svc-exportto-hidden")
def _explains(_: Case, branch: Branch) -> bool:
    known = unexported(branch)
    own = branch.view.callers.proxy.kind != "gateway" and not foreign(branch)
    return own and bool(known) and by_export(branch.view.ups.istiod, known) == "svc-exportto-hidden"


@check("svc-exportto-hidden", when=(explained, missed))
def svc_exportto_hidden(case: Case) -> Iterator[Finding]:
    """A Service or ServiceEntry is not exported to a namespace whose callers mean to call it.

    The annotation `networking.istio.io/exportTo` (on a ServiceEntry the field `exportTo`) says which namespaces know a host. A caller
    elsewhere gets no cluster for it: a rule of its own that leads there answers with 503 (flag NC), plain calls pass through unseen
    (ALLOW_ANY) or get 502 (REGISTRY_ONLY). A waypoint that serves a host which is not exported to its namespace has the cluster and none of
    its endpoints: 503 (flag UH).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing for this caller, and something for one of its namespaces.

    How to fix it: add the caller's namespace to exportTo, or remove exportTo.
    """
    told: set[str] = set()
    for branches in together(case, "svc-exportto-hidden"):
        first = branches[0]
        service = unexported(first)[0]
        told.add(service.sources[0][1])
        share, viewpoints = case.share(branches), case.viewpoints(branches)
        yield case.finding(
            "svc-exportto-hidden",
            cluster=at(case, first.view.ups.istiod, service).name,
            resource=service.sources[0][1],
            path=export_path(service),
            message=(
                f"{percent(share)} of the requests of a rule fail for {spaces(viewpoints)}: {_leads(first)} "
                f"{short(first.upstream.host)}, and {exported_to(service)} alone."
            ),
            share=share,
            viewpoints=viewpoints,
            evidence=(exported_to(service), f"{_leads(first)} {short(first.upstream.host)}{f' ({first.path})' if first.path else ''}"),
            fix=f"Add {', '.join(dict.fromkeys(v.namespace for v in viewpoints))} to exportTo of {service.sources[0][1]}.",
            patch=exporting(case, first.view.ups.istiod, service, viewpoints),
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {first.upstream.host}",),
        )
    for group in hidden(case, "svc-exportto-hidden"):
        one = group[0]
        service = one.istiod.by_host[case.host][0]
        if service.sources[0][1] in told:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        yield case.finding(
            "svc-exportto-hidden",
            cluster=at(case, one.istiod, service).name,
            resource=service.sources[0][1],
            path=export_path(service),
            message=f"Calls of {spaces(viewpoints)} to {short(case.host)} {one.effect}: {exported_to(service)} alone.",
            share=one.share,
            viewpoints=viewpoints,
            evidence=(exported_to(service), *dict.fromkeys(a for h in group for a in h.asks)),
            fix=f"Add {', '.join(dict.fromkeys(v.namespace for v in viewpoints))} to exportTo of {service.sources[0][1]}.",
            patch=exporting(case, one.istiod, service, viewpoints),
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",),
        )


def _leads(branch: Branch) -> str:
    """Who needs the service: a rule, or the waypoint that serves it by its default route."""
    proxy = branch.view.callers.proxy
    return f"{branch.resource} leads to" if branch.step.source else f"the waypoint in {proxy.namespace} (pod {proxy.pod}) serves"
