"""discovery-selectors (MESH508)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from checks.case import short
from checks.entries import together
from checks.finding import Finding, check, explained, explains
from checks.resources import Namespace, ServiceMeshMemberRoll
from checks.subsets import percent
from checks.visibility import hidden, mesh_config, spaces
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.istiod import Istiod


@explains("discovery-selectors", before=("vs-dest-host-unknown", "vs-dest-shortname-ns", "vs-dest-partial-name"))
def _explains(_: Case, branch: Branch) -> bool:
    return branch.upstream.service is None and branch.upstream.host in branch.view.ups.istiod.undiscovered


@check("discovery-selectors", when=(explained, missed))
def discovery_selectors(case: Case) -> Iterator[Finding]:
    """A Service lives in a namespace that the mesh's discoverySelectors, or its member roll, leave out.

    istiod reads only the namespaces that a discoverySelector selects, in OpenShift Service Mesh those of its member roll. Services elsewhere do
    not exist for it: rules that lead there answer with 503 (flag NC), plain calls pass through unseen (ALLOW_ANY) or get 502 (REGISTRY_ONLY).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing, although `kubectl get service` finds it.

    How to fix it: give the namespace the label that a selector asks for, or widen the selectors; add it to the member roll.
    """
    told: set[str] = set()
    for branches in together(case, "discovery-selectors"):
        first = branches[0]
        told.add(first.upstream.host)
        share = case.share(branches)
        yield _finding(
            case,
            first.view.ups.istiod,
            first.upstream.host,
            share,
            f"{percent(share)} of the requests of a rule fail: {first.resource} leads to {short(first.upstream.host)}",
            case.viewpoints(branches),
            (f"{first.resource} leads there ({first.path})",),
        )
    for group in hidden(case, "discovery-selectors") if case.host not in told else ():
        one = group[0]
        found = tuple(v for h in group for v in h.viewpoints)
        asks = tuple(dict.fromkeys(a for h in group for a in h.asks))
        what = f"Calls of {spaces(found)} to {short(case.host)} {one.effect}"
        yield _finding(case, one.istiod, case.host, one.share, what, found, asks)


def _finding(
    case: Case, istiod: Istiod, host: str, share: float, what: str, viewpoints: tuple[Viewpoint, ...], evidence: tuple[str, ...]
) -> Finding:
    where, service = istiod.undiscovered[host]
    cluster = case.mesh.cluster(where)
    namespace = cluster.get(Namespace, "", service.partition(" ")[2].partition("/")[0])
    _, config = mesh_config(case, istiod)
    labels = ", ".join(f"{k}={v}" for k, v in sorted(namespace.labels.items())) if namespace else ""
    if cluster.members is not None:
        return _outside_of_the_roll(case, istiod, host, share, what, viewpoints, evidence)
    return case.finding(
        "discovery-selectors",
        cluster=cluster.name,
        resource=namespace.ref if namespace else service,
        path="metadata.labels",
        message=f"{what}, and no discoverySelector selects the namespace of {service}.",
        share=share,
        viewpoints=viewpoints,
        evidence=(
            f"{config} says discoverySelectors: {msgspec.json.encode(istiod.config.discovery_selectors).decode()}",
            f"the namespace of {service} has labels {labels or '(none)'}",
            *evidence,
        ),
        fix=f"Give the namespace of {service} a label that a discoverySelector selects, or widen the selectors.",
        commands=(
            f"kubectl get namespace {namespace.name if namespace else ''} --show-labels",
            f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {host}",
        ),
    )


def _outside_of_the_roll(
    case: Case, istiod: Istiod, host: str, share: float, what: str, viewpoints: tuple[Viewpoint, ...], evidence: tuple[str, ...]
) -> Finding:
    where, service = istiod.undiscovered[host]
    cluster, home = case.mesh.cluster(where), istiod.plane.namespace or istiod.config.root_namespace
    name = service.partition(" ")[2].partition("/")[0]
    roll = next(iter(cluster.ordered(ServiceMeshMemberRoll, home)), None)
    ref = roll.ref if roll is not None else f"ServiceMeshMemberRoll {home}/default"
    members = ", ".join(sorted((cluster.members or frozenset()) - {home})) or "nobody"
    return case.finding(
        "discovery-selectors",
        cluster=cluster.name,
        resource=ref,
        path="spec.members",
        message=f"{what}, and namespace {name} is no member of the mesh of {home}.",
        share=share,
        viewpoints=viewpoints,
        evidence=(f"members of the mesh of {home}: {members}", f"{service} is in namespace {name}", *evidence),
        fix=f"Add {name} to spec.members of {ref}, or let a ServiceMeshMember in {name} ask for it.",
        commands=(
            f"kubectl -n {home} get servicemeshmemberroll -o yaml",
            f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {host}",
        ),
    )
