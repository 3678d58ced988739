"""mesh-default-exportto (MESH505)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.visibility import by_export, hidden, mesh_config, spaces, unexported
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod


@explains("mesh-default-exportto", before=("svc-exportto-hidden", "sidecar-vs-imported-dest-hidden", "gw-svc-not-visible"))
def _explains(_: Case, branch: Branch) -> bool:
    known = unexported(branch)
    return bool(known) and by_export(known) == "mesh-default-exportto"


@check("mesh-default-exportto", when=(explained, missed))
def mesh_default_exportto(case: Case) -> Iterator[Finding]:
    """A service says nothing of exportTo, and the mesh's default keeps it from callers who mean to call it.

    `defaultServiceExportTo` in the mesh's configuration decides for every Service and ServiceEntry without exportTo of its own. With `.`
    each is known in its own namespace alone: rules elsewhere that lead there answer with 503 (flag NC), plain calls pass through unseen
    (ALLOW_ANY) or get 502 (REGISTRY_ONLY).

    How to see it: `kubectl -n istio-system get configmap istio -o yaml` says defaultServiceExportTo.

    How to fix it: export the service by its annotation `networking.istio.io/exportTo` (a ServiceEntry by `exportTo`), or change the default.
    """
    told: set[str] = set()
    for istiod in case.mesh.control_planes:
        branches = [b for b in case.failing() if b.view.ups.istiod is istiod and case.why(b) == "mesh-default-exportto"]
        if not branches:
            continue
        told.add(istiod.cluster)
        first = branches[0]
        hosts = list(dict.fromkeys(b.upstream.host for b in branches))
        sources = list(dict.fromkeys(unexported(b)[0].sources[0][1] for b in branches))
        share, viewpoints = case.share(branches), case.viewpoints(branches)
        cluster, ref = mesh_config(case, istiod)
        yield case.finding(
            "mesh-default-exportto",
            cluster=cluster.name,
            resource=ref,
            path="data.mesh defaultServiceExportTo",
            message=(
                f"{percent(share)} of the requests of a rule fail for {spaces(viewpoints)}: {first.resource} leads to "
                f"{' and '.join(map(short, hosts))}, and {_default(istiod)}."
            ),
            share=share,
            viewpoints=viewpoints,
            evidence=(
                *(f"{s} has no exportTo of its own" for s in sources),
                _said(istiod, ref),
                *dict.fromkeys(f"{b.resource} leads there ({b.path})" for b in branches),
            ),
            fix=f"Export {' and '.join(sources)} to {spaces(viewpoints)}, or change defaultServiceExportTo.",
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {first.upstream.host}",),
        )
    for group in hidden(case, "mesh-default-exportto"):
        one = group[0]
        if one.istiod.cluster in told:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        cluster, ref = mesh_config(case, one.istiod)
        source = one.istiod.by_host[case.host][0].sources[0][1]
        yield case.finding(
            "mesh-default-exportto",
            cluster=cluster.name,
            resource=ref,
            path="data.mesh defaultServiceExportTo",
            message=f"Calls of {spaces(viewpoints)} to {short(case.host)} {one.effect}: {_default(one.istiod)}.",
            share=one.share,
            viewpoints=viewpoints,
            evidence=(f"{source} has no exportTo of its own", _said(one.istiod, ref), *dict.fromkeys(a for h in group for a in h.asks)),
            fix=f"Export {source} to {spaces(viewpoints)}, or change defaultServiceExportTo.",
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",),
        )


def _default(istiod: Istiod) -> str:
    return f"the mesh's defaultServiceExportTo ({', '.join(istiod.config.default_service_export_to or ())}) keeps it from them"


def _said(istiod: Istiod, ref: str) -> str:
    return f"{ref} says defaultServiceExportTo: [{', '.join(istiod.config.default_service_export_to or ())}]"
