"""ServiceEntries and WorkloadEntries (MESH4xx), and what is said of two that define one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.istiod import Istiod, can_merge
from checks.registry import HostService, from_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import ServiceEntry


def control_planes(case: Case) -> list[Istiod]:
    """Every control plane of the mesh, once."""
    return list(dict.fromkeys(case.mesh.istiod(c.name) for c in case.mesh.clusters))


def by_namespace(case: Case, istiod: Istiod) -> Iterator[tuple[str, list[ServiceEntry]]]:
    """The ServiceEntries of the host, oldest first, by namespace; namespaces where a Kubernetes Service has the host are left out."""
    groups: dict[str, list[ServiceEntry]] = {}
    for e in case.entries(istiod, case.host):
        groups.setdefault(e.namespace, []).append(e)
    kubernetes = {s.namespace for s in istiod.by_host.get(case.host, ()) if s.kubernetes}
    for namespace, group in groups.items():
        if namespace not in kubernetes:
            yield namespace, group


def service(istiod: Istiod, entry: ServiceEntry, host: str) -> HostService:
    """What istiod makes of one host of a ServiceEntry."""
    return next(s for s in from_entry(entry, istiod.cluster, {}) if s.hostname == host)


def mergeable(istiod: Istiod, kept: ServiceEntry, other: ServiceEntry, host: str) -> bool:
    """Whether istiod would unite the ports of two ServiceEntries of one namespace."""
    return can_merge(service(istiod, kept, host), service(istiod, other, host))


def ports(entry: ServiceEntry) -> str:
    """The ports of a ServiceEntry in words: `443 (HTTPS), 80 (HTTP)`."""
    return ", ".join(f"{p.number} ({p.protocol})" for p in entry.spec.ports or ()) or "no port"


def describe(entry: ServiceEntry) -> str:
    """A ServiceEntry as evidence: when it was made, what it says."""
    spec = entry.spec
    made = f"created {entry.created[:16].replace('T', ' ')}" if entry.created else "without a creation time"
    where = ", ".join(e.address for e in spec.endpoints or ()) or "no endpoints of its own"
    exported = f", exportTo {', '.join(spec.export_to)}" if spec.export_to else ""
    return f"{entry.ref}: {made}, resolution {spec.resolution}, ports {ports(entry)}, endpoints: {where}{exported}"


def differs(istiod: Istiod, kept: ServiceEntry, other: ServiceEntry, host: str) -> str:
    """What keeps two ServiceEntries from being merged, in words."""
    a, b = service(istiod, kept, host), service(istiod, other, host)
    parts = []
    if a.resolution != b.resolution:
        parts.append(f"resolution ({kept.spec.resolution} and {other.spec.resolution})")
    if a.export_to != b.export_to:
        parts.append("exportTo")
    if a.labels != b.labels:
        parts.append("labels")
    if (a.selector or {}) != (b.selector or {}):
        parts.append("workloadSelector")
    return " and ".join(parts)
