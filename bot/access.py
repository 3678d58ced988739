"""Who may do what, and where. Pure: what a person belongs to is an argument, so that the same question has the same answer at every click.

What must stay true: without a word about it in the settings everybody may do everything; with one, what nobody is allowed is refused, and so is
a deed of which Slack does not say whether it is allowed.
"""

from __future__ import annotations

from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from bot.alerts import namespaces, service_namespace
from checks import names
from checks.resources import APIGRPCRoute, APIHTTPRoute, APITLSRoute, DestinationRule, Service, ServiceEntry, VirtualService

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bot.settings import Access, Grant
    from checks.finding import Finding
    from checks.mesh import Cluster, Mesh
    from checks.resources import Resource

EVERYONE = "everyone"


class Role(IntEnum):
    """What somebody may do; each role may what the ones before it may."""

    ANYBODY = 0
    VIEWER = 1
    RESPONDER = 2
    ADMIN = 3


NEEDS = {
    "help": Role.ANYBODY,
    **dict.fromkeys(
        ("why", "routes", "broken", "whatif", "alerts", "clusters", "explain", "share", "changes", "patch", "home"), Role.VIEWER
    ),
    **dict.fromkeys(
        ("ack", "unack", "silence", "unsilence", "escalate", "handover", "note", "resolve", "reopen", "incident"), Role.RESPONDER
    ),
    "audit": Role.ADMIN,
}
"""The role that each thing needs which a person can do in Slack; what does not stand here, nobody may."""

Spot = tuple[str, str]
"""A cluster and a namespace; empty for all of them."""
Place = frozenset[Spot]
"""Where one thing is: who may act in any of these spots may do something about it."""
EVERYWHERE: Place = frozenset({("", "")})


class Ruling(NamedTuple):
    """Whether somebody may; if not, who may (in the words of the settings), and why Slack does not say who that is, by these words."""

    allowed: bool
    may: tuple[str, ...] = ()
    unread: Mapping[str, str] = {}


def rule(access: Access | None, verb: str, places: Iterable[Place], mine: Iterable[str], unread: Mapping[str, str]) -> Ruling:
    """Whether somebody may do a thing about all of these places.

    `mine` is what the person is of all that the settings name (themselves, groups, channels, everyone), `unread` what Slack does not tell of
    and why. A thing that is about no place in particular may be done by who may do it anywhere.
    """
    needs = NEEDS.get(verb)
    if access is None or needs is Role.ANYBODY:
        return Ruling(allowed=True)
    if needs is None:
        return Ruling(allowed=False)
    held, wanted = {*mine, EVERYONE}, tuple(places)
    grants = list(_grants(access, needs))
    unmet = [p for p in wanted if not any(held.intersection(g.who) and covers(g, p) for g in grants)]
    if not unmet and (wanted or any(held.intersection(g.who) for g in grants)):
        return Ruling(allowed=True)
    able = [g for g in grants if all(covers(g, p) for p in wanted)] or [g for g in grants if any(covers(g, p) for p in unmet)]
    may = tuple(dict.fromkeys(who for g in able for who in g.who))
    unknown = {who: unread[who] for who in may if who in unread}
    if unknown and needs is Role.VIEWER and access.look_without_groups:
        return Ruling(allowed=True)
    return Ruling(allowed=False, may=may, unread=unknown)


def _grants(access: Access, needs: Role) -> Iterator[Grant]:
    """The grants that are enough for a role, the humblest first."""
    for role, grants in ((Role.VIEWER, access.viewers), (Role.RESPONDER, access.responders), (Role.ADMIN, access.admins)):
        if role >= needs:
            yield from grants


def named(access: Access) -> tuple[str, ...]:
    """Everybody whom the settings name, each once."""
    return tuple(dict.fromkeys(who for g in _grants(access, Role.VIEWER) for who in g.who))


def covers(grant: Grant, place: Place) -> bool:
    """Whether a grant reaches a place: any of its spots."""
    return any(
        (_fits(grant.cluster, cluster) or _fits(grant.cluster, cluster.partition("/")[0])) and _fits(grant.namespace, namespace)
        for cluster, namespace in place
    )


def _fits(patterns: Sequence[str] | None, value: str) -> bool:
    """Whether patterns reach all that a value means, which may be a pattern itself, or empty for everything."""
    if patterns is None or "*" in patterns:
        return True
    return value in patterns if not value or _is_pattern(value) else any(fnmatchcase(value, p) for p in patterns)


# --- where things are --------------------------------------------------------------------------------------------------------


def of_finding(finding: Finding) -> Place:
    """Where a finding is: with its object, and with its host's owner."""
    return frozenset((finding.cluster, namespace) for namespace in namespaces(finding) or {""})


def of_cluster(cluster: Cluster) -> Place:
    """Where a cluster as a whole is: in each of its namespaces."""
    return frozenset((cluster.name, namespace) for spaces in cluster.objects.values() for namespace in spaces) | {(cluster.name, "")}


def of_host(host: str, meshes: Iterable[Mesh]) -> Place:
    """Where a host is: the namespaces of the Service, or of those objects that define it or have rules for it."""
    found: set[Spot] = set()
    clusters = [c for m in meshes for c in m.clusters]
    own = service_namespace(host)
    for cluster in clusters:
        if own is None:
            found |= {(cluster.name, namespace) for namespace in _naming(host, cluster)}
        elif cluster.get(Service, own, host.partition(".")[0]) is not None:
            found.add((cluster.name, own))
    return frozenset(found) or (EVERYWHERE if own is None else frozenset((c.name, own) for c in clusters))


def _naming(host: str, cluster: Cluster) -> Iterator[str]:
    """The namespaces of the objects that name a host which is no Service."""
    written = [(o.namespace, o.spec.hosts or ()) for kind in (ServiceEntry, VirtualService) for o in _all(cluster, kind)]
    written += [(o.namespace, o.spec.hostnames or ()) for kind in (APIHTTPRoute, APIGRPCRoute, APITLSRoute) for o in _all(cluster, kind)]
    written += [(o.namespace, (o.spec.host,)) for o in cluster.all(DestinationRule)]
    yield from (namespace for namespace, hosts in written if any(_means(h, host) for h in hosts))


def _all(cluster: Cluster, kind: type[Resource]) -> Iterator[Any]:
    """Objects whose kinds have only part of their form in common."""
    return cluster.all(kind)


def _means(written: str, host: str) -> bool:
    return written != "*" and names.matches(written.lower(), host.lower())


def of_silence(match: Mapping[str, str], meshes: Sequence[Mesh]) -> tuple[Place, ...]:
    """Where a silence is: all that its matchers could fit, so that nobody silences what is not theirs.

    Without a cluster, a namespace or host by its whole name is where it is now.
    """
    cluster, namespace, host = match.get("cluster", ""), match.get("namespace", ""), match.get("host", "")
    clusters = [c for m in meshes for c in m.clusters]
    unread = {c.name for c in clusters if not c.synced or c.missing}  # what is not known of them may be there as well
    own = service_namespace(host)
    if namespace and not _is_pattern(namespace):
        found = {(c.name, namespace) for c in clusters if c.name in unread or (c.name, namespace) in of_cluster(c)}
    elif namespace:
        found = {("", namespace)}
    elif host and not _is_pattern(host):
        found = {spot for spot in of_host(host, meshes) if spot in _known(clusters)} | {(name, own or "") for name in unread}
    else:
        found = {("", own or match.get("resource", "").partition(" ")[2].rpartition("/")[0])}
    spots = {(cluster or where, owner) for where, owner in found or {("", namespace or own or "")}}
    return tuple(frozenset({spot}) for spot in sorted(spots))


def _known(clusters: Iterable[Cluster]) -> set[Spot]:
    return {spot for c in clusters for spot in of_cluster(c)}


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
