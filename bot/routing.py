"""Which channel an alert goes to: the first route of the settings that fits its finding, else the default channel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bot.alerts import namespaces
from checks.resources import KIND_OF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.settings import Alerts, Match
    from checks.finding import Finding
    from checks.mesh import Mesh
    from checks.resources import Resource

_RESOURCE = re.compile(r"^(\S+) (?:([^/\s]+)/)?(\S+)$")
_SERVICE = re.compile(r"^[^.]+\.([^.]+)\.svc(?:\.|$)")


def channel(finding: Finding, mesh: Mesh | None, settings: Alerts) -> str:
    """The channel of the first route that fits the finding, else the default."""
    labels = _labels(finding, mesh) if any(r.match.label is not None for r in settings.routes) else []
    return next((r.channel for r in settings.routes if _fits(r.match, finding, labels)), settings.default_channel)


def resource_of(mesh: Mesh, finding: Finding) -> Resource | None:
    """The object that a finding names as `Kind namespace/name`; None if it is not there."""
    named = _RESOURCE.match(finding.resource)
    if named is None:
        return None
    known = (c for m in (mesh, *mesh.neighbours) for c in m.clusters if finding.cluster in (c.name, m.cluster_id(c)))
    cluster = next(known, None)
    if cluster is None:
        return None
    kind, namespace, name = named.groups()
    spaces = (cluster.objects.get(struct, {}).get(namespace or "", {}) for struct, k in KIND_OF.items() if k.kind == kind)
    return next((space[name] for space in spaces if name in space), None)


def _fits(match: Match, finding: Finding, labels: list[Mapping[str, str]]) -> bool:
    return (
        (match.namespace is None or bool(namespaces(finding) & set(match.namespace)))
        and (match.cluster is None or finding.cluster in match.cluster)
        and (match.severity is None or finding.severity == match.severity)
        and (match.cause is None or finding.cause in match.cause)
        and (match.label is None or any(match.label.items() <= some.items() for some in labels))
    )


def _labels(finding: Finding, mesh: Mesh | None) -> list[Mapping[str, str]]:
    """The labels that a route may match: of the object, of the host's Service, and of their namespaces."""
    if mesh is None:
        return []
    named = [finding.resource, *(f"Namespace {n}" for n in sorted(namespaces(finding)))]
    if service := _SERVICE.match(finding.host):
        named.append(f"Service {service[1]}/{finding.host.partition('.')[0]}")
    objects = (resource_of(mesh, replace(finding, resource=n)) for n in named)
    return [{**o.labels} for o in objects if o is not None]
