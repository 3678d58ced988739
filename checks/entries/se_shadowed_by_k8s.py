"""se-shadowed-by-k8s (MESH404)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command, short
from checks.entries import describe, holder, ports, together
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.registry import HostService
    from checks.resources import ServiceEntry


def _lost(entry: ServiceEntry, service: HostService) -> list[int]:
    """The ports of a ServiceEntry that a Kubernetes Service of its host takes away: all, or in one namespace those that the Service lacks."""
    numbers = [p.number for p in entry.spec.ports or ()]
    return numbers if entry.namespace != service.namespace else [n for n in numbers if service.port(n) is None]


def _ignored(case: Case, istiod: Istiod, service: HostService, host: str) -> list[ServiceEntry]:
    """The ServiceEntries whose host a Kubernetes Service has, and which lose something by it."""
    return [e for e in case.entries(istiod, host) if _lost(e, service)] if service.kubernetes else []


@explains("se-shadowed-by-k8s", before=("svc-selectorless-no-slice", "vs-dest-port-unknown", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.service.kubernetes:
        return False
    found = _ignored(case, branch.view.ups.istiod, u.service, u.host)
    if u.service.port(u.port) is None:
        return any(u.port in _lost(e, u.service) for e in found)
    empty = not u.service.selector and not case.endpoints(branch.view.ups.istiod, u.service)
    away = [e for e in found if e.namespace != u.service.namespace]
    return empty and any(e.spec.endpoints or e.spec.workload_selector or e.spec.resolution != "STATIC" for e in away)


@check("se-shadowed-by-k8s", when=(explained, entered))
def se_shadowed_by_k8s(case: Case) -> Iterator[Finding]:
    """A ServiceEntry has the host of a Kubernetes Service of another namespace, and istiod ignores it.

    For every caller who sees the Service, the Service wins and the ServiceEntry is dropped whole: its ports have no cluster and its
    endpoints get no request. A ServiceEntry in the Service's own namespace lends it its endpoints under equal port names; ports that the
    Service lacks are lost.

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80||HOST'` lacks the ServiceEntry's addresses.

    How to fix it: another host for the ServiceEntry, or a WorkloadEntry that the Service selects.
    """
    told: set[str] = set()
    for branches in together(case, "se-shadowed-by-k8s"):
        first = branches[0]
        istiod, service = first.view.ups.istiod, first.upstream.service
        if service is not None:
            found = _ignored(case, istiod, service, first.upstream.host)
            entry = next((e for e in found if first.upstream.port in _lost(e, service)), found[0])
            told.add(entry.ref)
            yield _finding(case, istiod, entry, service, branches, failing=True)
    for istiod in case.mesh.control_planes:
        for service in [s for s in istiod.by_host.get(case.host, ()) if s.kubernetes][:1]:
            for entry in _ignored(case, istiod, service, case.host):
                views = [v for v in case.views if v.ups.istiod is istiod and _wins(istiod, entry, service, v.ups.proxy.namespace)]
                branches = [b for b in case.branches if b.view in views]
                if entry.ref not in told and branches:
                    told.add(entry.ref)
                    yield _finding(case, istiod, entry, service, branches, failing=False)


def _wins(istiod: Istiod, entry: ServiceEntry, service: HostService, namespace: str) -> bool:
    """Whether callers of a namespace see both, and get the Service: in its own namespace a ServiceEntry of another one comes first."""
    if namespace == entry.namespace != service.namespace:
        return False
    own = next((s for s in istiod.by_host.get(service.hostname, ()) if not s.kubernetes and s.namespace == entry.namespace), None)
    return own is not None and istiod.visible(own, namespace) and istiod.visible(service, namespace)


def _finding(case: Case, istiod: Istiod, entry: ServiceEntry, service: HostService, branches: list[Branch], *, failing: bool) -> Finding:
    share = case.share(branches) if failing else 0.0
    ref = service.sources[0][1]
    effect = f"{percent(share)} of the requests to {short(service.hostname)} fail: " if failing else ""
    away = entry.namespace != service.namespace
    gone = (
        f"with its ports ({ports(entry)}) and its endpoints"
        if away
        else f"as far as port {', '.join(map(str, _lost(entry, service)))} goes"
    )
    return case.finding(
        "se-shadowed-by-k8s",
        cluster=holder(case, istiod).name,
        resource=entry.ref,
        path="spec.hosts" if away else "spec.ports",
        message=f"{effect}{entry.ref} has the host of {ref}, so istiod ignores it, {gone}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(describe(entry), f"{ref} defines the same host in namespace {service.namespace}, and a Kubernetes Service wins"),
        fix=f"Give {entry.ref} another host, or make its addresses WorkloadEntries that {ref} selects.",
        commands=(
            f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml",
            endpoints_command(branches[0].upstream),
        ),
    )
