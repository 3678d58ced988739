"""svc-inconsistent-ports (MESH612)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import short
from checks.clusters import entry, services
from checks.finding import Finding, check, explains
from checks.registry import port_protocol
from checks.resources import Service
from checks.subsets import percent
from checks.when import several_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.mesh import Cluster, Mesh


def _others(mesh: Mesh, host: str, namespace: str, besides: str) -> Iterator[tuple[str, Service]]:
    """The Service objects of a host in other clusters than the one whose spec counts, with their cluster IDs."""
    name = host.partition(".")[0]
    for c in mesh.clusters:
        found = c.get(Service, namespace, name) if mesh.cluster_id(c) != besides else None
        if found is not None and host in {names.service_host(name, namespace), names.clusterset_host(name, namespace)}:
            yield mesh.cluster_id(c), found


@explains("svc-inconsistent-ports", before=("vs-dest-port-unknown", "slice-portname-mismatch", "svc-selector-no-pods"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.service.kubernetes:
        return False
    others = list(_others(case.mesh, u.host, u.service.namespace, u.service.sources[0][0]))
    port = u.service.port(u.port)
    if port is None:
        return any(p.port == u.port for _, s in others for p in s.spec.ports)
    if u.endpoints or u.dropped:
        return False
    if any(p.port == u.port and p.name != port.name for _, s in others for p in s.spec.ports):
        return True
    lacking = {cluster for cluster, s in others if all(p.name != port.name for p in s.spec.ports)}
    return any(e.health == "healthy" and e.cluster in lacking for e in case.endpoints(branch.view.ups.istiod, u.service))


@check("svc-inconsistent-ports", when=several_clusters)
def svc_inconsistent_ports(case: Case) -> Iterator[Finding]:
    """The Service of a host has different ports in the clusters of the mesh.

    For istiod they are one Service, with the ports that its own cluster's says. Endpoints of another cluster are found by the name of the
    port: where the names differ they are dropped, and a port that only the other cluster's Service has does not exist for these callers.

    How to see it: `kubectl get service NAME -o yaml` differs between the contexts; `istioctl proxy-config endpoints` lacks the other cluster's pods.

    How to fix it: the same ports, with the same names, in every cluster.
    """
    failing = [b for b in case.failing() if case.why(b) == "svc-inconsistent-ports"]
    for b in failing[:1]:
        service = b.upstream.service
        if service is not None:
            held = [(c, s) for c in case.mesh.clusters if (s := c.get(Service, service.namespace, service.name)) is not None]
            mine = next(((c, s) for c, s in held if case.mesh.cluster_id(c) == service.sources[0][0]), held[0])
            yield _finding(case, mine, [h for h in held if h[0] is not mine[0]], failing)
    held = [h for h in services(case) if not entry(h[1])]
    other = [h for h in held[1:] if any(case.asked(n) for n in _differing(held[0][1], h[1]))]  # each network's gateway has ports of its own
    if not failing and other and case.branches:
        yield _finding(case, held[0], other, [])


def _ports(service: Service) -> dict[int, tuple[str, str]]:
    return {p.port: (p.name, port_protocol(p)) for p in service.spec.ports}


def _differing(a: Service, b: Service) -> list[int]:
    return sorted({n for n in {*_ports(a), *_ports(b)} if _ports(a).get(n) != _ports(b).get(n)})


def _finding(case: Case, mine: tuple[Cluster, Service], others: list[tuple[Cluster, Service]], branches: list[Branch]) -> Finding:
    share = case.share(branches)
    differing = [h for h in others if _ports(h[1]) != _ports(mine[1])] or others
    cluster, service = differing[0]
    numbers = _differing(mine[1], service)
    host = names.service_host(service.name, service.namespace)
    said = f"port{'s'[: len(numbers) != 1]} {', '.join(map(str, numbers))}"
    effect = f"{percent(share)} of the requests to {short(host)} fail" if share else f"Callers of {short(host)} do not reach every endpoint"
    return case.finding(
        "svc-inconsistent-ports",
        cluster=cluster.name,
        resource=service.ref,
        path="spec.ports",
        message=f"{effect}: {service.ref} has other ports in {cluster.name} than in {mine[0].name} ({said}), and each control plane keeps its own.",
        share=share,
        viewpoints=case.viewpoints(branches or case.branches),
        evidence=tuple(f"{s.ref} in {c.name}: {_words(s)}" for c, s in (mine, *differing)),
        fix=f"Give {service.ref} the same ports, with the same names, in {mine[0].name} and {cluster.name}.",
        commands=tuple(f"kubectl --context {c.name} -n {s.namespace} get service {s.name} -o yaml" for c, s in (mine, *differing)),
    )


def _words(service: Service) -> str:
    return ", ".join(f"{n} ({name or 'unnamed'}, {protocol})" for n, (name, protocol) in _ports(service).items())
