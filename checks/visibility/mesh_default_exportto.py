"""mesh-default-exportto (MESH505)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.visibility import by_export, hidden, mesh_config, spaces, unexported
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.registry import HostService


@explains("mesh-default-exportto", before=("svc-exportto-hidden", "sidecar-vs-imported-dest-hidden", "gw-svc-not-visible"))
def _explains(_: Case, branch: Branch) -> bool:
    known = unexported(branch)
    return bool(known) and by_export(branch.view.ups.istiod, known) == "mesh-default-exportto"


@check("mesh-default-exportto", when=(explained, missed))
def mesh_default_exportto(case: Case) -> Iterator[Finding]:
    """A service says nothing of exportTo, and the mesh's default keeps it from callers who mean to call it.

    `defaultServiceExportTo` in the mesh's configuration decides for every Service and ServiceEntry without exportTo of its own. With `.`
    each is known in its own namespace alone: rules elsewhere that lead there answer with 503 (flag NC), plain calls pass through unseen
    (ALLOW_ANY) or get 502 (REGISTRY_ONLY). `serviceEntryVisibility` with `applyToSidecars` keeps the ServiceEntries of some namespaces to themselves,
    or from everybody, whatever their exportTo says (pilot/pkg/model/serviceentry_visibility.go in istio/istio).

    How to see it: `kubectl -n istio-system get configmap istio -o yaml` says defaultServiceExportTo or serviceEntryVisibility.

    How to fix it: export the service by its annotation `networking.istio.io/exportTo` (a ServiceEntry by `exportTo`), or change the setting.
    """
    told: set[str] = set()
    for istiod in case.mesh.control_planes:
        branches = [b for b in case.failing() if b.view.ups.istiod is istiod and case.why(b) == "mesh-default-exportto"]
        if not branches:
            continue
        told.add(istiod.cluster)
        first = branches[0]
        hosts = list(dict.fromkeys(b.upstream.host for b in branches))
        services = [unexported(b)[0] for b in branches]
        sources = list(dict.fromkeys(s.sources[0][1] for s in services))
        setting = _setting(istiod, services)
        share, viewpoints = case.share(branches), case.viewpoints(branches)
        cluster, ref = mesh_config(case, istiod)
        yield case.finding(
            "mesh-default-exportto",
            cluster=cluster.name,
            resource=ref,
            path=f"data.mesh {setting.name}",
            message=(
                f"{percent(share)} of the requests of a rule fail for {spaces(viewpoints)}: {first.resource} leads to "
                f"{' and '.join(map(short, hosts))}, and {setting.keeps}."
            ),
            share=share,
            viewpoints=viewpoints,
            evidence=(
                *dict.fromkeys(setting.about(s) for s in services),
                f"{ref} says {setting.said}",
                *dict.fromkeys(f"{b.resource} leads there ({b.path})" for b in branches),
            ),
            fix=setting.fix(sources, spaces(viewpoints)),
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {first.upstream.host}",),
        )
    for group in hidden(case, "mesh-default-exportto"):
        one = group[0]
        if one.istiod.cluster in told:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        cluster, ref = mesh_config(case, one.istiod)
        service = one.istiod.by_host[case.host][0]
        setting = _setting(one.istiod, [service])
        yield case.finding(
            "mesh-default-exportto",
            cluster=cluster.name,
            resource=ref,
            path=f"data.mesh {setting.name}",
            message=f"Calls of {spaces(viewpoints)} to {short(case.host)} {one.effect}: {setting.keeps}.",
            share=one.share,
            viewpoints=viewpoints,
            evidence=(setting.about(service), f"{ref} says {setting.said}", *dict.fromkeys(a for h in group for a in h.asks)),
            fix=setting.fix([service.sources[0][1]], spaces(viewpoints)),
            commands=(f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",),
        )


class _Setting(NamedTuple):
    """The mesh's setting that hides a service: its name, and what it says of whom."""

    name: str
    value: str
    capped: bool

    @property
    def keeps(self) -> str:
        """What it does."""
        return f"the mesh's {self.name} ({self.value}) keeps it from them"

    @property
    def said(self) -> str:
        """What is written."""
        return f"{self.name}: [{self.value}]"

    def about(self, service: HostService) -> str:
        """What matters of a service."""
        ref = service.sources[0][1]
        return f"{ref} is a ServiceEntry in namespace {service.namespace}" if self.capped else f"{ref} has no exportTo of its own"

    def fix(self, sources: Iterable[str], viewpoints: str) -> str:
        """What to do."""
        return f"Change {self.name}." if self.capped else f"Export {' and '.join(sources)} to {viewpoints}, or change {self.name}."


def _setting(istiod: Istiod, services: Iterable[HostService]) -> _Setting:
    over = next((s for s in services if istiod.capped(s)), None)
    if over is None:
        return _Setting("defaultServiceExportTo", ", ".join(istiod.config.default_service_export_to or ()), capped=False)
    around = istiod.namespaces.get(over.namespace)
    return _Setting("serviceEntryVisibility", istiod.config.entry_visibility(around.labels if around is not None else {}), capped=True)
