"""When a check has something to look at: what a host must have before it is worth asking.

`@check("subset-empty-all", when=failing)` is not run for a host without a failing destination. A cue is asked of every host, so it costs
next to nothing, and where it says no the check would have found nothing: a test runs every check over every host of every mesh and holds
the answers against each other. Where anything could not be read every check runs, since what it looks for may be what was not read.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from checks import legs, names, ztunnel
from checks.binding import istiods, rulesets

if TYPE_CHECKING:
    from checks.case import Case
    from checks.finding import Cue
    from checks.mesh import Mesh
    from checks.resources import Resource


def readable(mesh: Mesh) -> bool:
    """Whether everything could be read, of this mesh and of those that calls may go on into."""
    return mesh.now(("readable",), lambda: not any(c.unreadable for m in (mesh, *mesh.neighbours) for c in m.clusters))


@cache
def either(*cues: Cue) -> Cue:
    """Whether any of some cues holds."""
    return lambda case: any(cue(case) for cue in cues)


# --- the host itself -------------------------------------------------------------------------------------------------------------


def failing(case: Case) -> bool:
    """Some rule of the host loses requests: a destination that gets them cannot serve them, or the proxy answers with an error."""
    return case.failing_share > 0 or bool(case.failing())


def useless(case: Case) -> bool:
    """Some destination could not serve requests, whether it gets any or not."""
    return any(u.fails for v in case.views for s in v.steps for u, _, _ in s.targets)


def beyond(case: Case) -> bool:
    """Some destination is a gateway."""
    return bool(legs.hops(case))


def at_gateway(case: Case) -> bool:
    """Some gateway has rules for the host."""
    return any(v.callers.proxy.kind == "gateway" for v in case.views)


def selective(case: Case) -> bool:
    """Some rule of the host asks something of a request."""
    return any(s.source and s.match != "every request" for v in case.views for s in v.steps)


def missed(case: Case) -> bool:
    """Some sidecar does not hold the host although something in its namespace means to call it, or a Sidecar too many is there."""
    asking = {i: case.askers(i) | i.crowding for i in {c.istiod for c in case.blind}}
    return any(
        (spaces := asking[c.istiod]) and c.proxy.kind == "sidecar" and any(v.namespace in spaces for v in c.viewpoints) for c in case.blind
    )


# --- what names the host ---------------------------------------------------------------------------------------------------------


def entered(case: Case) -> bool:
    """A ServiceEntry has the host."""
    return any(case.entries(i, case.host) for i in istiods(case.mesh))


def bound(case: Case) -> bool:
    """A VirtualService or route of the host is bound to a gateway."""
    return any(g != "mesh" for _, r in rulesets(case) for g in r.gateways)


def lossy(case: Case) -> bool:
    """A VirtualService of the host leads to a delegate that gives nothing."""
    return any(r.lost for _, r in rulesets(case))


def contested(case: Case) -> bool:
    """Several VirtualServices or routes could give the host its rules, or one that means it by a wildcard."""
    for i in dict.fromkeys((*istiods(case.mesh), *(v.ups.istiod for v in case.views))):
        claiming = i.claiming(case.host)
        if len(claiming) > 1 or (claiming and case.host.lower() not in (h.lower() for h in claiming[0].hosts)):
            return True
    return False


# --- the mesh --------------------------------------------------------------------------------------------------------------------


def holds(*kinds: type[Resource]) -> Cue:
    """Some cluster of the mesh has an object of these kinds."""

    def cue(case: Case) -> bool:
        return case.mesh.now(("holds", *kinds), lambda: any(any(c.all(kind)) for c in case.mesh.clusters for kind in kinds))

    return cue


def several_clusters(case: Case) -> bool:
    """The mesh has more than one cluster."""
    return len(case.mesh.clusters) > 1


def through_ztunnel(case: Case) -> bool:
    """Somebody calls through ztunnel."""
    return case.mesh.now(("through ztunnel",), lambda: bool(ztunnel.callers(case.mesh)))


def wildcards(case: Case) -> bool:
    """Some destination of the host is a service that has a wildcard for a host."""
    return any(names.is_wildcard(u.host) for v in case.views for s in v.steps for u, _, _ in s.targets)
