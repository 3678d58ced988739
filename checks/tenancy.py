"""Which namespaces of a cluster belong to which mesh: several control planes in one cluster, each with the namespaces that it reads.

OpenShift Service Mesh 2 says it by member rolls, every Istio since by discoverySelectors. Control planes that read nothing in common are meshes of
their own: their parts of the cluster are taken apart, and no host of the one is seen by callers of the other. Namespaces that nobody reads stay
with each: their pods may call, and are in no mesh.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from checks.resources import (
    KIND_OF,
    ConfigMap,
    LabelSelector,
    Namespace,
    ServiceMeshControlPlane,
    ServiceMeshMember,
    ServiceMeshMemberRoll,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.mesh import Cluster
    from checks.resources import Resource

MEMBER_OF = "maistra.io/member-of"
_NAME = "kubernetes.io/metadata.name"
_PLATFORM = ("kube-", "openshift-")


def parts(cluster: Cluster) -> tuple[Cluster, ...]:
    """The parts of a cluster that are meshes of their own; mostly there is one, the cluster itself."""
    homes = _homes(cluster)
    if len(homes) < 2 and not _maistra(cluster):
        return (cluster,)
    read = {home: _reads(cluster, home) for home in homes}
    if len(homes) == 1:
        (members,) = read.values()
        return (replace(cluster, members=members),) if _rolled(cluster, homes[0]) else (cluster,)
    known: dict[str, frozenset[str]] = {home: members for home, members in read.items() if members is not None}
    if len(known) < len(homes) or any(known[a] & known[b] for a in known for b in known if a < b):
        return (cluster,)  # whoever reads everything, or shares a namespace, is no mesh of its own
    return tuple(
        _part(cluster, home, members, frozenset().union(*(m for other, m in known.items() if other != home)))
        for home, members in known.items()
    )


def _homes(cluster: Cluster) -> list[str]:
    """The namespaces in which control planes have their settings."""
    found = {p.namespace for p in cluster.all(ServiceMeshControlPlane)}
    return sorted(found | {m.namespace for m in cluster.all(ConfigMap) if _settings(m)})


def _settings(m: ConfigMap) -> str:
    """MeshConfig as a control plane's ConfigMap has it, empty for any other."""
    return (m.data or {}).get("mesh", "") if m.name == "istio" or m.name.startswith("istio-") else ""


def _maistra(cluster: Cluster) -> bool:
    return any(any(cluster.objects.get(kind, {}).values()) for kind in (ServiceMeshControlPlane, ServiceMeshMemberRoll))


def _rolled(cluster: Cluster, home: str) -> bool:
    """Whether member rolls say what the control plane of a namespace reads."""
    return bool(cluster.within(ServiceMeshControlPlane, home) or cluster.within(ServiceMeshMemberRoll, home))


def _reads(cluster: Cluster, home: str) -> frozenset[str] | None:
    """The namespaces that the control plane of a namespace reads; None: all of them."""
    spaces = [n for n in cluster.all(Namespace) if n.name != home]
    if _rolled(cluster, home):
        rolls = list(cluster.within(ServiceMeshMemberRoll, home).values())
        listed = {m for r in rolls for m in (*(r.spec.members or ()), *(r.status.configured_members or ()))}
        selectors = [s for r in rolls for s in r.spec.member_selectors or ()]
        asked = {m.namespace for m in cluster.all(ServiceMeshMember) if m.spec.control_plane_ref.namespace == home}
        labelled = {n.name for n in spaces if n.labels.get(MEMBER_OF) == home or any(s.matches(n.labels) for s in selectors)}
        whole = {n.name for n in spaces if not n.name.startswith(_PLATFORM)} if "*" in listed else set()
        return frozenset({home} | (listed - {"*"}) | asked | labelled | whole)
    found = {home}
    for text in filter(None, map(_settings, cluster.within(ConfigMap, home).values())):
        selectors = _discovery(text)
        if not selectors:
            return None
        found |= {n.name for n in spaces if any(s.matches({_NAME: n.name, **n.labels}) for s in selectors)}
    return frozenset(found)


def _discovery(text: str) -> list[LabelSelector]:
    try:
        return msgspec.yaml.decode(text.encode(), type=_Discovery).discovery_selectors or []
    except (msgspec.DecodeError, ValueError):
        return []


class _Discovery(msgspec.Struct, rename="camel"):
    discovery_selectors: list[LabelSelector] | None = None


def _part(cluster: Cluster, home: str, members: frozenset[str], foreign: frozenset[str]) -> Cluster:
    name = f"{cluster.name}/{home}"
    mesh = f"{cluster.mesh}/{home}" if cluster.mesh else home
    rolled = members if _rolled(cluster, home) else None
    return replace(cluster, name=name, mesh=mesh, objects=_without(cluster.objects, foreign), members=rolled, foreign=foreign)


def _without(
    objects: Mapping[type[Resource], Mapping[str, Mapping[str, Resource]]], foreign: frozenset[str]
) -> dict[type[Resource], Mapping[str, Mapping[str, Resource]]]:
    out: dict[type[Resource], Mapping[str, Mapping[str, Resource]]] = {}
    for kind, spaces in objects.items():
        if kind is Namespace:
            out[kind] = {"": {n: o for n, o in spaces.get("", {}).items() if n not in foreign}}
        elif KIND_OF[kind].namespaced:
            out[kind] = {ns: space for ns, space in spaces.items() if ns not in foreign}
        else:
            out[kind] = spaces
    return out


def kept(new: Cluster, old: Cluster) -> Cluster:
    """A part of a cluster with the mappings of its earlier state where nothing in them differs: whatever was worked out of them stays."""
    objects = dict(new.objects)
    for kind, spaces in new.objects.items():
        before = old.objects.get(kind)
        if before is None or before is spaces or before.keys() != spaces.keys():
            continue
        same = all(before[ns] is space or (kind is Namespace and _same(before[ns], space)) for ns, space in spaces.items())
        if same:
            objects[kind] = before
    return replace(new, objects=objects)


def _same(a: Mapping[str, Resource], b: Mapping[str, Resource]) -> bool:
    return a.keys() == b.keys() and all(a[k] is b[k] for k in a)
