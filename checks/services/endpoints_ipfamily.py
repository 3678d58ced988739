"""endpoints-ipfamily (MESH323)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check
from checks.resources import Pod, Service
from checks.services import home
from checks.subsets import percent
from checks.viewpoints import callers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.mesh import Mesh
    from checks.registry import HostService
    from checks.viewpoints import Caller


def _odd(case: Case) -> bool:
    """Some caller lacks the family of an endpoint's address."""
    without = _lacking(case.mesh)
    if not without:
        return False
    for u in case.upstreams:
        for e in u.endpoints:
            if e.health == "healthy":
                if (6 if ":" in e.address else 4) in without:
                    return True
                break
    return False


@check("endpoints-ipfamily", when=_odd)
def endpoints_ipfamily(case: Case) -> Iterator[Finding]:
    """Every endpoint of a destination has an address of a family that the caller's pod does not have.

    A pod with only an IPv4 address cannot connect to an endpoint with only an IPv6 address, nor the other way round: the cluster has healthy
    endpoints, and every connection fails with "Network is unreachable" (503, flag UF).

    How to see it: compare `kubectl get pod -o jsonpath='{.status.podIPs}'` of the caller with ADDRESSTYPE of the Service's EndpointSlices.

    How to fix it: run both dual stack (ipFamilyPolicy PreferDualStack, and dual stack in Istio), or in the same family.
    """
    groups: dict[str, tuple[HostService, list[Branch], dict[Viewpoint, Pod]]] = {}
    for b in case.branches:
        u = b.upstream
        healthy = [e.address for e in u.endpoints if e.health == "healthy"]
        if b.share <= 0 or u.service is None or u.unseen or u.service.dns or not healthy:
            continue
        lost = _unreached(case.mesh, b.view.callers.viewpoints, names.families(healthy))
        if lost and not _dual(case, u.service):
            _, branches, pods = groups.setdefault(u.service.hostname, (u.service, [], {}))
            branches.append(b)
            pods.update(lost)
    for service, branches, pods in groups.values():
        first = branches[0]
        share = case.share(branches)
        addresses = [e.address for e in first.upstream.endpoints if e.health == "healthy"]
        family = next(iter(names.families(addresses)))
        yield case.finding(
            "endpoints-ipfamily",
            cluster=home(case, service, first),
            resource=service.sources[0][1],
            path="spec.ipFamilies" if service.kubernetes else "spec.endpoints",
            message=f"{percent(share)} of the requests fail: the endpoints of {short(service.hostname)} have IPv{family} addresses alone, and these callers have none of that family.",
            share=share,
            viewpoints=pods,
            evidence=(
                f"endpoints of {short(service.hostname)}: {', '.join(addresses[:5])}",
                *(f"{p.ref}: {', '.join(p.addresses)}" for p in list(pods.values())[:5]),
            ),
            fix=f"Give {short(service.hostname)} endpoints of the callers' family (ipFamilyPolicy PreferDualStack), or run the callers dual stack.",
            commands=(
                f"kubectl -n {service.namespace} get endpointslices -l kubernetes.io/service-name={service.name}",
                endpoints_command(first.upstream),
            ),
        )


def _unreached(mesh: Mesh, viewpoints: Iterable[Viewpoint], theirs: frozenset[int]) -> dict[Viewpoint, Pod]:
    """The callers that have no address of these families, each with the pod that stands for it."""
    if len(theirs) != 1:
        return {}
    lost = _lacking(mesh).get(next(iter(theirs)), {})
    found = ((v, lost[v].proxy) for v in viewpoints if v in lost)
    pods = ((v, mesh.cluster(p.cluster).get(Pod, p.namespace, p.pod)) for v, p in found)
    return {v: pod for v, pod in pods if pod is not None}


def _lacking(mesh: Mesh) -> dict[int, dict[Viewpoint, Caller]]:
    """For each family that any callers lack, those whose pod has addresses, and none of it."""
    around = callers(mesh)

    def find() -> dict[int, dict[Viewpoint, Caller]]:
        without = {family: {c.viewpoint: c for c in around if c.families and family not in c.families} for family in (4, 6)}
        return {family: lacking for family, lacking in without.items() if lacking}

    return mesh.now(("families",), lambda: mesh.once(("families",), (around,), find))


def _dual(case: Case, service: HostService | None) -> bool:
    """Whether the Service has addresses of both families: Istio then knows its pods by all of theirs."""
    found = [c.get(Service, service.namespace, service.name) for c in case.mesh.clusters] if service is not None else []
    return any(len(names.families(s.spec.cluster_ips)) > 1 for s in found if s is not None)
