"""Manifests as changes that nobody has made: what they hold, in which clusters they would land, and what the findings would be then.

What must stay true: nothing is sent to any cluster. An object is what the API server would make of its manifest: age, status and address stay
with an object that is there already, and one that is not begins now.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec.structs import replace

from bot import manifests
from checks import diagnosis
from checks.finding import Finding, Origin
from checks.mesh import RUNTIME, Change
from checks.registry import misread
from checks.resources import KIND_OF, ConfigMap, Namespace, Pod, Resource, Service, Workload
from templates import refusals

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.diagnosis import Whatif
    from checks.mesh import Cluster, Mesh

_R = TypeVar("_R", bound=Resource)

_API = "gateway.networking.k8s.io"
_CONFIG = ("networking.istio.io", "security.istio.io", _API)


class BadChange(Exception):
    """A change that cannot be weighed; the message is one sentence."""


class NothingToWeigh(BadChange):
    """A change that holds manifests, and none of a kind that is read."""


class Planned(NamedTuple):
    """One change with the place where it is written; as read, its cluster is the one that was named, or empty. `does` is known once it is aimed."""

    change: Change
    ref: str
    origin: Origin
    does: str = ""


def read(path: str, *, cluster: str = "", delete: bool = False, passed: Counter[str] | None = None) -> list[Planned]:
    """What a file, directory, archive or `-` means to change, in a named cluster or wherever it fits.

    Raises BadChange (NothingToWeigh where another change may be weighed all the same) and manifests.BadSource.

    The objects of kinds that are not read are counted in `passed`.
    """
    try:
        found = manifests.read(path, "", read_at=0.0)
    except manifests.OtherKinds as other:
        raise NothingToWeigh(str(other)) from None
    if passed is not None:
        passed.update(found.passed)
    return _planned(found, "stdin" if path == "-" else path, cluster, delete=delete)


def read_bytes(data: bytes, shown: str, *, cluster: str = "", delete: bool = False) -> list[Planned]:
    """As `read`, of text at hand that people call `shown`. Raises BadChange, manifests.BadSource."""
    return _planned(manifests.read_bytes(data, shown, "", read_at=0.0), shown, cluster, delete=delete)


def _planned(found: Cluster, shown: str, cluster: str, *, delete: bool) -> list[Planned]:
    for broken in found.malformed:
        raise BadChange(refusals.bad_object(broken.ref, broken.reason, found.origins.get(broken.ref)))
    for config in found.all(ConfigMap) if not delete else ():
        if fault := misread(config):
            raise BadChange(refusals.bad_object(config.ref, fault, found.origins.get(config.ref)))
    made = [
        Planned(Change(cluster, kind, o.namespace, o.name, None if delete else o), o.ref, Origin(*found.origins.get(o.ref, (shown, 0))))
        for kind, spaces in found.objects.items()
        for space in spaces.values()
        for o in space.values()
    ]
    if not made:
        raise NothingToWeigh(refusals.no_object(shown))
    return sorted(made, key=lambda p: (p.origin.file, p.origin.line))


# --- which clusters --------------------------------------------------------------------------------------------------------


def aim(planned: Iterable[Planned], meshes: Sequence[Mesh]) -> list[Planned]:
    """Each change in each cluster that it would reach: the named one, else those that have the object, else for configuration every control
    plane's, where it would be created. Of an object that is given twice the last word counts, as with kubectl.

    Raises BadChange for what is nowhere, might be anywhere, or is to be applied and deleted.
    """  # noqa: D205 - the three cases are one rule
    out: dict[tuple[str, str], Planned] = {}
    for p in planned:
        for mesh, cluster in _reached(p, meshes):
            old = cluster.get(p.change.kind, p.change.namespace, p.change.name)
            new = p.change.new and _as_stored(p.change.new, old, mesh.read_at)
            does = "deleted" if new is None else "created" if old is None else "left as it is" if new == old else "replaced"
            earlier = out.pop((cluster.name, p.ref), None)
            if earlier is not None and (earlier.change.new is None) != (new is None):
                raise BadChange(refusals.applied_and_deleted(p.ref, earlier.origin.file, p.origin.file))
            out[cluster.name, p.ref] = p._replace(change=p.change._replace(cluster=cluster.name, new=new), does=does)
    return list(out.values())


def _reached(planned: Planned, meshes: Sequence[Mesh]) -> list[tuple[Mesh, Cluster]]:
    change = planned.change
    everywhere = [(m, c) for m in meshes for c in m.clusters]
    if change.cluster:
        everywhere = [(m, c) for m, c in everywhere if change.cluster in {c.name, c.name.partition("/")[0], m.cluster_id(c)}]
        if not everywhere:
            raise BadChange(refusals.no_such_cluster(change.cluster, [c.name for m in meshes for c in m.clusters]))
    having = [(m, c) for m, c in everywhere if c.get(change.kind, change.namespace, change.name) is not None]
    if having:
        return having
    if change.new is None:
        unread = [gap for m, c in everywhere if (gap := m.unread(c, change.kind))]
        raise BadChange(refusals.nothing_to_delete(planned.ref, [c.name for _, c in everywhere], unread))
    if change.cluster or len(everywhere) == 1:
        return everywhere
    group = KIND_OF[change.kind].group
    if group not in _CONFIG and (group or change.kind in RUNTIME):
        raise BadChange(refusals.which_cluster(planned.ref, [c.name for _, c in everywhere]))
    return [(m, c) for m in meshes for c in m.primaries]


_OWN_NAME = "kubernetes.io/metadata.name"  # the label that the API server gives a Namespace


def _as_stored(new: _R, old: _R | None, now: float) -> _R:
    """What the API server would keep of an object that is applied: its age, and what others write, are not taken from the manifest."""
    created = old.metadata.creation_timestamp if old is not None else datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = new.metadata.labels
    if isinstance(new, Namespace) and (old is None or _OWN_NAME in old.labels):
        labels = {**(labels or {}), _OWN_NAME: new.name}
    made = replace(
        new, metadata=replace(new.metadata, uid=old.metadata.uid if old is not None else "", creation_timestamp=created, labels=labels)
    )
    if old is None:
        return made
    if (status := getattr(old, "status", None)) is not None and made.status == type(made)().status:  # type: ignore[attr-defined] # as `old`
        made = replace(made, status=status)
    if isinstance(made, Workload) and isinstance(old, Workload) and made.spec.replicas is None:
        # an autoscaler's word, which nobody takes back by leaving it out
        made = replace(made, spec=replace(made.spec, replicas=old.spec.replicas))
    if KIND_OF[type(made)].group == _API and getattr(made, "spec", None) != getattr(old, "spec", None):
        made = _unjudged(made)
    if isinstance(made, Service) and isinstance(old, Service) and not made.spec.cluster_ip and made.spec.type != "ExternalName":
        made = replace(made, spec=replace(made.spec, cluster_ip=old.spec.cluster_ip, cluster_ips=old.spec.cluster_ips))
    return made


def _unjudged(resource: _R) -> _R:
    """The object without what controllers said of its earlier spec, and without the uid of one that they have seen; its addresses stay."""
    if (status := getattr(resource, "status", None)) is None:
        return resource
    said = {name: None for name in ("conditions", "parents", "ancestors") if hasattr(status, name)}
    return replace(resource, metadata=replace(resource.metadata, uid=""), status=replace(status, **said))


# --- what would be -----------------------------------------------------------------------------------------------------------


def weigh(aimed: Sequence[Planned], meshes: Sequence[Mesh]) -> Whatif:
    """What these changes would introduce and resolve; what stands in a changed object is found where the change is written."""
    found = diagnosis.whatif(meshes, [p.change for p in aimed if p.does != "left as it is"])
    written: dict[tuple[str, str], Origin] = {}
    for p in aimed:
        for mesh in meshes:
            written.update({(name, p.ref): p.origin for name in _names(mesh, p.change.cluster)})
    return replace(found, introduced=tuple(_placed(f, written) for f in found.introduced))


def _names(mesh: Mesh, cluster: str) -> Iterator[str]:
    for c in mesh.clusters:
        if c.name == cluster:
            yield from (c.name, mesh.cluster_id(c))


def _placed(finding: Finding, written: Mapping[tuple[str, str], Origin]) -> Finding:
    origin = written.get((finding.cluster, finding.resource))
    return finding if origin is None else replace(finding, origin=origin)


def gaps(meshes: Sequence[Mesh], aimed: Iterable[Planned] = ()) -> list[str]:
    """What of the clusters could not be read, and why, each once; an object that is replaced need not be understood as it was."""
    told: dict[str, None] = {}
    mended = {(p.change.cluster, p.ref) for p in aimed}
    for c in (c for m in meshes for c in m.clusters):
        told.update({f"{c.name}: {reason}" if kind == "*" else f"{c.name}: {kind}: {reason}": None for kind, reason in c.missing.items()})
        if not c.synced and not c.unreadable:
            told[f"{c.name}: not everything has been read yet"] = None
        told.update({f"{c.name}: {m.ref} cannot be understood: {m.reason}": None for m in c.malformed if (c.name, m.ref) not in mended})
    for m in meshes:
        told.update({f"{c.name}: {fault}": None for c in m.clusters if (fault := m.misread(c)) and not _mends(m, c, mended)})
    return list(told)


def _mends(mesh: Mesh, cluster: Cluster, mended: set[tuple[str, str]]) -> bool:
    found = mesh.config_map(cluster)
    return found is not None and (cluster.name, found.ref) in mended


def told(
    found: Whatif, aimed: Sequence[Planned], meshes: Sequence[Mesh], passed: Mapping[str, int] | None = None, empty: Iterable[str] = ()
) -> dict[str, object]:
    """The answer for people: what -o json says, and beside it the changes themselves, what of them was not weighed, and what could not be read.

    `empty` are sentences about changes that held nothing to weigh.
    """
    grown = [p.ref for p in aimed if _grows(p, aimed, meshes)]
    return {
        "introduced": found.introduced,
        "resolved": found.resolved,
        "changes": [{"object": p.ref, "cluster": p.change.cluster, "does": p.does, "origin": p.origin} for p in aimed],
        "clusters": [c.name for m in meshes for c in m.clusters],
        "notes": [
            *([refusals.gone(found.gone)] if found.gone else []),
            *([refusals.not_foreseen(grown)] if grown else []),
            *([refusals.passed_over(passed)] if passed else []),
            *map(refusals.passed_over_whole, empty),
        ],
        "unread": gaps(meshes, aimed),
    }


def _grows(planned: Planned, aimed: Iterable[Planned], meshes: Iterable[Mesh]) -> bool:
    """Whether a workload would have pods that nobody has seen yet, and that are not given either."""
    c = planned.change
    if not isinstance(c.new, Workload):
        return False
    old = next(
        (o for m in meshes for x in m.clusters if x.name == c.cluster and (o := x.get(c.kind, c.namespace, c.name)) is not None), None
    )
    wanted = (c.new.spec.template.metadata.labels or {}).items()
    given = [p.change.new for p in aimed if p.change.kind is Pod and (p.change.cluster, p.change.namespace) == (c.cluster, c.namespace)]
    mine = [p for p in given if p is not None and wanted <= p.labels.items()]
    return c.new.wanted > (old.wanted if isinstance(old, Workload) else 0) + len(mine)
