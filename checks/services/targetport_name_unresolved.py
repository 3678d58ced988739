"""targetport-name-unresolved (MESH306)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.names import nearest
from checks.resources import Service
from checks.services import by_service, home, known, kubernetes, port_name, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import Pod

_GIVE_WAY = ("slice-portname-mismatch", "slice-targetref-pod-missing", "subset-empty-weighted", "subset-empty-all")


@explains("targetport-name-unresolved", before=_GIVE_WAY)
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or case.candidates(branch.upstream):
        return False
    name = port_name(branch)
    if not branch.upstream.subset and any(e.port_name == name for e in known(case, branch, service)):
        return False
    pods = _pods(case, branch, service)
    return bool(pods) and all(_wanted(c, service, name) not in {None, *p.declared} for c, p in pods)


def _pods(case: Case, branch: Branch, service: HostService) -> list[tuple[Cluster, Pod]]:
    """The running pods that should be behind a destination."""
    u = branch.upstream
    subset = u.rule.subset(u.subset) if u.rule is not None and u.subset else None
    wanted = ((subset.labels if subset is not None else None) or {}).items()
    return [(c, p) for c, p in case.pods(service) if p.status.pod_ip and not p.ended and all(p.labels.get(k) == v for k, v in wanted)]


def _wanted(cluster: Cluster, service: HostService, name: str | None) -> str | None:
    """The targetPort of a port where it is a name, as the cluster's own Service has it."""
    own = cluster.get(Service, service.namespace, service.name)
    port = next((p for p in own.spec.ports if p.name == name), None) if own is not None else None
    return port.target_port if port is not None and isinstance(port.target_port, str) else None


@check("targetport-name-unresolved", when=explained)
def targetport_name_unresolved(case: Case) -> Iterator[Finding]:
    """A Service's targetPort is a name that no container of its pods declares.

    Kubernetes looks the name up among the ports of each pod's containers. Where nobody declares it, the EndpointSlice has no such port, and
    Envoy's cluster of that port is empty: 503 "no healthy upstream" (flag UH) on this port, while the Service's other ports work.

    How to see it: `kubectl get endpointslices -l kubernetes.io/service-name=NAME -o yaml` has no port of that name; `kubectl get pod -o yaml`
    shows what the containers call their ports.

    How to fix it: use a name that the containers declare, or the number.
    """
    for service, branches in by_service(case, "targetport-name-unresolved"):
        first = branches[0]
        share = case.share(branches)
        pods = _pods(case, first, service)
        cluster, pod = pods[0]
        wanted = _wanted(cluster, service, port_name(first)) or ""
        declared = pod.declared
        own = cluster.get(Service, service.namespace, service.name)
        index = next((i for i, p in enumerate(own.spec.ports) if p.name == port_name(first)), 0) if own is not None else 0
        near = nearest(wanted, sorted(declared), 1)
        # where other pods declare the name it is these that differ, not the Service
        subset = first.upstream.subset
        differ = f"subset {subset}" if subset and any(wanted in p.declared for _, p in case.pods(service)) else ""
        yield case.finding(
            "targetport-name-unresolved",
            cluster=home(case, service, first),
            resource=service.sources[0][1],
            path=f"spec.ports[{index}].targetPort",
            message=f"{percent(share)} of the requests to port {first.upstream.port} fail: {service.sources[0][1]} leads it to targetPort {wanted}, which no container of {f'the pods of {differ}' if differ else 'its pods'} declares.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{len(pods)} pod{'s'[: len(pods) != 1]} of {f'{differ} of ' if differ else ''}{short(service.hostname)}, none with a container port called {wanted}",
                f"{pod.ref} declares {', '.join(f'{n} ({p})' for n, p in sorted(declared.items())) or 'no named port'}",
                *case.slices_evidence(service),
            ),
            fix=f"Call the container's port {wanted} in the pods of {differ}, as others of {short(service.hostname)} do."
            if differ
            else f"Set targetPort to {near[0] if near else 'the number of the port on which the app listens'}, or call the container's port {wanted}.",
            patch=_patch(case, service, branches, near[0]) if near and not differ else None,
            commands=(slices_command(service), endpoints_command(first.upstream)),
        )


def _patch(case: Case, service: HostService, branches: Sequence[Branch], name: str) -> str | None:
    """Takes a name that the containers declare."""
    where = [c for c in case.mesh.clusters if c.get(Service, service.namespace, service.name) is not None]
    own = where[0].get(Service, service.namespace, service.name) if len(where) == 1 else None
    index = next((i for i, p in enumerate(own.spec.ports) if p.name == port_name(branches[0])), None) if own is not None else None
    return case.patch(where[0].name, own, (("spec", "ports", index, "targetPort"), name)) if index is not None else None
