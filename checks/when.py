"""When a check has something to look at: what a host must have before it is worth asking.

`@check("subset-empty-all", when=explained)` is not run for a host none of whose failing destinations that cause explains. What follows from the
configuration alone is a HostCue, worked out once for all hosts, what is the same for all of them a MeshCue (checks.finding). The others are asked
of every host, so that they cost next to nothing. Where all of a check's cues say no it would have found nothing: a test runs every check over
every host of every mesh and holds the answers against each other. Where anything could not be read every check runs, since what it looks for
may be what was not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import legs, ztunnel
from checks.binding import ruling
from checks.case import entries
from checks.finding import HostCue, MeshCue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.case import Case
    from checks.finding import Cue
    from checks.istiod import Istiod
    from checks.mesh import Mesh
    from checks.resources import Resource


def readable(mesh: Mesh) -> bool:
    """Whether everything could be read, of this mesh and of those that calls may go on into."""
    return mesh.now("readable", lambda: not any(c.unreadable for m in (mesh, *mesh.neighbours) for c in m.clusters))


# --- the host itself -------------------------------------------------------------------------------------------------------------


def failing(case: Case) -> bool:
    """Some rule of the host loses requests: a destination that gets them cannot serve them, or the proxy answers with an error."""
    return case.failing_share > 0 or bool(case.failing())


def useless(case: Case) -> bool:
    """Some destination could not serve requests, whether it gets any or not."""
    return case.useless


def wildcards(case: Case) -> bool:
    """Some destination of the host is a service that has a wildcard for a host."""
    return any([u.host.startswith("*") for u in case.upstreams])


def beyond(case: Case) -> bool:
    """Some destination is a gateway."""
    return bool(legs.hops(case))


def at_gateway(case: Case) -> bool:
    """Some gateway has rules for the host."""
    return any([v.callers.proxy.kind == "gateway" for v in case.views])


def selective(case: Case) -> bool:
    """Some rule of the host asks something of a request."""
    return any([s.source and s.match != "every request" for s in case.steps])


def missed(case: Case) -> bool:
    """Some sidecar does not hold the host although something in its namespace means to call it, or a Sidecar too many is there."""
    for istiod in case.mesh.every_plane():
        spaces = case.askers(istiod)
        if istiod.crowding:
            spaces |= istiod.crowding
        for c in case.blind if spaces else ():
            if not spaces.isdisjoint(c.namespaces) and c.istiod is istiod and c.proxy.kind == "sidecar":
                return True
    return False


# --- what names the host ---------------------------------------------------------------------------------------------------------


@HostCue
def entered(istiod: Istiod) -> Iterable[str]:
    """A ServiceEntry has the host."""
    return entries(istiod)


@HostCue
def bound(istiod: Istiod) -> Iterable[str]:
    """A VirtualService or route of the host is bound to a gateway."""
    return ruling(istiod, lambda r: r.gateways != ("mesh",))


@HostCue
def lossy(istiod: Istiod) -> Iterable[str]:
    """A VirtualService of the host leads to a delegate that gives nothing."""
    return ruling(istiod, lambda r: bool(r.lost))


def contested(case: Case) -> bool:
    """Several VirtualServices or routes could give the host its rules, or one that means it by a wildcard."""
    for i in case.mesh.every_plane():
        claiming = i.claiming(case.host)
        if len(claiming) > 1:
            return True
        if claiming and case.host not in claiming[0].hosts and case.host.lower() not in [h.lower() for h in claiming[0].hosts]:
            return True
    return False


# --- the mesh --------------------------------------------------------------------------------------------------------------------


def holds(*kinds: type[Resource]) -> Cue:
    """Some cluster of the mesh has an object of these kinds."""
    return MeshCue(lambda mesh: any(any(c.all(kind)) for c in mesh.clusters for kind in kinds))


@MeshCue
def several_clusters(mesh: Mesh) -> bool:
    """The mesh has more than one cluster."""
    return len(mesh.clusters) > 1


@MeshCue
def through_ztunnel(mesh: Mesh) -> bool:
    """Somebody calls through ztunnel."""
    return bool(ztunnel.callers(mesh))
