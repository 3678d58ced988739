"""slice-portname-mismatch (MESH309)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.resources import EndpointSlice, Service
from checks.services import MANAGED_BY, by_service, known, kubernetes, port_name, slices, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.registry import HostService


@explains("slice-portname-mismatch", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    name = port_name(branch)
    if service is None or name is None:
        return False
    found = known(case, branch, service)
    if any(e.port_name == name and e.health == "healthy" for e in found):
        return False
    if not any(e.health == "healthy" for e in found) and not any(_portless(s) for _, s in slices(case, service)):
        return False
    return bool(_mismatched(case, service, name))


def _portless(s: EndpointSlice) -> bool:
    """Whether a slice has ready endpoints and no port at all, so that istiod makes no endpoint of any."""
    return not s.ports and any(e.conditions.ready is not False for e in s.endpoints or ())


def _mismatched(case: Case, service: HostService, name: str) -> list[tuple[Cluster, EndpointSlice]]:
    """Slices with endpoints that have no port of this name, where their own cluster's Service, if there is one, has one."""
    out = []
    for c, s in slices(case, service):
        own = c.get(Service, service.namespace, service.name)
        promised = own is None or any(p.name == name for p in own.spec.ports)
        if promised and s.endpoints and s.address_type != "FQDN" and all((p.name or "") != name for p in s.ports or ()):
            out.append((c, s))
    return out


@check("slice-portname-mismatch", when=explained)
def slice_portname_mismatch(case: Case) -> Iterator[Finding]:
    """The ports of a Service's EndpointSlice have other names than the Service's own.

    istiod takes an endpoint for a Service port only where both have the same name, or both have none. A slice or an Endpoints object that
    was written by hand and leaves the name out, spells it differently, or has no ports, gives the port no endpoint: 503 "no healthy upstream"
    (flag UH).
    kube-proxy compares names as well, so a call without proxy fails, too.

    How to see it: compare `ports[].name` of `kubectl get endpointslices -l kubernetes.io/service-name=NAME -o yaml` with the Service's.

    How to fix it: give the slice's port the Service port's name.
    """
    for service, branches in by_service(case, "slice-portname-mismatch"):
        first = branches[0]
        name = port_name(first) or ""
        found = _mismatched(case, service, name)
        cluster, first_slice = found[0]
        share = case.share(branches)
        have = ", ".join(p.name or "without a name" for p in first_slice.ports or ()) or "it has none"
        wanted = f"called {name}" if name else "without a name"
        ports = " and ".join(str(n) for n in sorted({b.upstream.port for b in branches}))
        yield case.finding(
            "slice-portname-mismatch",
            cluster=cluster.name,
            resource=first_slice.ref,
            path=f"{first_slice.within}{'ports[0].name' if first_slice.ports else 'ports'}",
            message=f"{percent(share)} of the requests to port {ports} fail: {service.sources[0][1]} has port {first.upstream.port} {wanted}, and {first_slice.ref} has no such port.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{service.sources[0][1]}: port {first.upstream.port} is {wanted}",
                *(
                    f"{s.ref} in {c.name}: {', '.join(f'{p.port} is {p.name}' if p.name else f'{p.port} has no name' for p in s.ports or ()) or 'no ports'}"
                    for c, s in found
                ),
                *case.slices_evidence(service),
            ),
            fix=f"Make the port names of {first_slice.ref} ({have}) and of {short(service.hostname)} equal.",
            patch=_patch(case, found, service),
            commands=(slices_command(service), endpoints_command(first.upstream)),
        )


def _patch(case: Case, found: list[tuple[Cluster, EndpointSlice]], service: HostService) -> str | None:
    """Renames the ports of a slice that nobody but people writes, where port by port it is clear which is meant."""
    cluster, s = found[0]
    ports = s.ports or ()
    if len(found) != 1 or s.within or s.labels.get(MANAGED_BY, "").endswith("k8s.io") or len(ports) != len(service.ports):
        return None
    pairs = enumerate(zip(ports, service.ports, strict=True))
    return case.patch(cluster.name, s, *((("ports", i, "name"), own.name) for i, (p, own) in pairs if own.name != (p.name or "")))
