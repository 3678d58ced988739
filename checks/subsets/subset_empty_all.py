"""subset-empty-all (MESH102)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.case import endpoints_command, short
from checks.finding import Finding, MeshCue, Severity, check, explained, explains
from checks.legs import rule_of
from checks.resources import DestinationRule, VirtualService
from checks.subsets import empty, labels, nobody, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case, View
    from checks.mesh import Mesh
    from checks.rulesets import Target
    from checks.sidecar import Step
    from checks.upstream import Upstream


@explains("subset-empty-all")
def _explains(case: Case, branch: Branch) -> bool:
    return nobody(case, branch) and case.whole(branch)


@MeshCue
def _mirrors(mesh: Mesh) -> bool:
    """Some rule mirrors requests."""
    return any(i.once("mirrors", lambda i=i: any(rule.mirrors for r in i.rulesets for rule in r.http)) for i in mesh.every_plane())  # type: ignore[misc]


@check("subset-empty-all", when=(explained, _mirrors))
def subset_empty_all(case: Case) -> Iterator[Finding]:
    """The only destination of a rule names a subset that no endpoint of the service carries.

    A single destination gets every request, whatever its weight says. With no endpoint that carries the subset's labels, Envoy answers all
    of them with 503 "no healthy upstream" (flag UH). Where a rule only mirrors requests there, the copies are lost and no caller notices.

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80|v1|HOST'` prints no line.

    How to fix it: deploy the version, or point the rule at a subset that has endpoints, or at none.
    """
    for branches in case.caused("subset-empty-all"):
        yield empty(case, "subset-empty-all", branches)
    yield from _copies(case)
    shown(case, VirtualService, DestinationRule)


def _copies(case: Case) -> Iterator[Finding]:
    """Subsets that nobody carries and that get copies of requests, which harms no caller."""
    groups: dict[tuple[str, str, str], list[tuple[View, Target, Upstream]]] = {}
    for v in case.views:
        for step in v.steps:
            rule = rule_of(v.ups.istiod, step) if step.action == "route" and case.asked(step.port) else None
            for t in rule.mirrors if rule is not None else ():
                u = _mirror(case, v, step, t)
                if u is not None and u.defined and u.fails and not case.candidates(u):
                    groups.setdefault((v.ups.istiod.cluster, step.leaf or step.source or "", t.path), []).append((v, t, u))
    for (cluster, resource, path), group in groups.items():
        _, _, u = group[0]
        found = case.finding(
            "subset-empty-all",
            cluster=case.mesh.cluster(cluster).name,
            resource=resource,
            path=path,
            message=f"Subset {u.subset} of {short(u.host)} gets copies of requests and has no endpoint: nobody takes them, and no caller notices.",
            share=0.0,
            viewpoints=dict.fromkeys(w for v, _, _ in group for w in v.callers.viewpoints),
            evidence=(f"{path} of {resource} mirrors requests to subset {u.subset} ({labels(u)})", "answers to copies are thrown away"),
            fix=f"Deploy pods of {short(u.host)} with {labels(u)}, or remove {path}.",
            commands=(endpoints_command(u),),
        )
        yield replace(found, severity=Severity.INFO)


def _mirror(case: Case, view: View, step: Step, t: Target) -> Upstream | None:
    """The cluster that gets a rule's copies; None where it names no subset."""
    if not t.host or not t.subset:
        return None
    service = view.ups.scope.services.get(t.host)
    if service is not None:  # looked at again when its endpoints change
        case.also.add((service.hostname, service.namespace))
    alone = view.callers.proxy.kind == "gateway" and service is not None and len(service.ports) == 1
    port = t.port or (service.ports[0].number if alone and service is not None else step.port)
    return view.ups.of(t.host, port, t.subset)
