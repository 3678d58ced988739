"""How a host stands, in short: what is kept of a look so that people can go back to it.

What rarely changes (who calls, rules, where they lead) and what often does (shares, endpoints, findings) are apart, so that a change of
endpoints costs few bytes. Endpoints are counted, not named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from checks.answers import Destination, Endpoint, Route, Viewpoint, ViewpointKind
from checks.catalogue import CAUSES
from checks.finding import Finding, Severity
from checks.routes import failing
from checks.upstream import shares

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.case import Case
    from checks.upstream import Upstream

_PARTS = 10_000  # of which a share is told in whole numbers
_UNSEEN, _UNDEFINED = -1, -2  # instead of how many endpoints are usable: only Envoy knows; no such cluster is pushed


class Standing(NamedTuple):
    """A host as it was looked at: `shape` its rules as its callers hold them, `level` how much of each fails, and what was found. Both packed."""

    shape: bytes
    level: bytes


class Then(NamedTuple):
    """What a Standing says: the part of the requests that failed, the routes (their endpoints without addresses), and the findings in short."""

    share: float
    routes: tuple[Route, ...]
    findings: tuple[Finding, ...]


ABSENT = Standing(b"", b"")
"""A host that is not there."""


class _Rule(Struct, array_like=True, gc=False):
    cluster: str
    kind: ViewpointKind
    namespace: str
    selector: str | None
    port: int
    protocol: str
    action: str
    source: str | None
    path: str
    match: str
    targets: tuple[tuple[str, int, str | None], ...]


class _Found(Struct, array_like=True, gc=False):
    cause: str
    severity: Severity
    cluster: str
    resource: str
    path: str
    share: int
    message: str


class _Level(Struct, array_like=True, gc=False):
    share: int
    found: tuple[_Found, ...]
    rules: tuple[tuple[int, ...], ...]
    """Of each rule its failing share, then of each destination how many endpoints are usable, and of how many."""


_pack = msgspec.msgpack.Encoder().encode
_shape = msgspec.msgpack.Decoder(tuple[_Rule, ...])
_level = msgspec.msgpack.Decoder(_Level)


def of(case: Case, findings: Iterable[Finding], share: float) -> Standing:
    """A host as it stands, with what was found and the part of its requests that fails."""
    rules: list[tuple[object, ...]] = []
    levels: list[list[int]] = []
    for view in case.views:
        v = view.callers.viewpoints[0]
        for s in view.steps:
            to: list[tuple[str, int, str | None]] = []
            level = [_parts(failing(s)) if case.useless or s.action != "route" else 0]
            for u, weight, _ in s.targets if s.action == "route" else ():
                to.append((u.name, weight, u.rule.ref if u.rule is not None and u.defined else None))
                level += _counted(u)
            rules.append((v.cluster, v.kind, v.namespace, v.selector, s.port, s.protocol, s.action, s.source, s.path, s.match, to))
            levels.append(level)
    told = [
        (f.cause, f.severity, f.cluster, f.resource, f.path, _parts(f.failing_share), f.message)
        for f in findings
        if f.severity is not Severity.INFO
    ]
    return Standing(_pack(rules), _pack((_parts(share), told, levels)))


def read(host: str, standing: Standing) -> Then:
    """What a Standing of a host says; raises msgspec.DecodeError for one of another version."""
    if not standing.level:
        return Then(0.0, (), ())
    level = _level.decode(standing.level)
    rules = zip(_shape.decode(standing.shape), level.rules, strict=True)
    found = tuple(
        Finding(
            cause=f.cause,
            code=CAUSES[f.cause].code if f.cause in CAUSES else "",
            severity=f.severity,
            cluster=f.cluster,
            resource=f.resource,
            path=f.path,
            host=host,
            viewpoints=(),
            failing_share=f.share / _PARTS,
            message=f.message,
        )
        for f in level.found
    )
    return Then(level.share / _PARTS, tuple(_route(host, rule, at) for rule, at in rules), found)


def endpoints(standing: Standing) -> tuple[int, int]:
    """How many endpoints of all destinations are usable, for the caller who can use the fewest, and of how many; those alone that are known."""
    if not standing.level:
        return 0, 0
    known: dict[str, tuple[int, int]] = {}
    for rule, level in zip(_shape.decode(standing.shape), _level.decode(standing.level).rules, strict=True):
        for (name, _, _), usable, count in zip(rule.targets, level[1::2], level[2::2], strict=True):
            if usable >= 0:
                known[name] = min(known.get(name, (usable, count)), (usable, count))
    return sum(u for u, _ in known.values()), sum(n for _, n in known.values())


def share(standing: Standing) -> float:
    """The part of the requests that failed."""
    return _level.decode(standing.level).share / _PARTS if standing.level else 0.0


def _parts(share: float) -> int:
    """A share in whole parts; what is not nothing stays more than nothing."""
    return max(round(share * _PARTS), 1) if share > 0 else 0


def _counted(u: Upstream) -> tuple[int, int]:
    if not u.defined:
        return _UNDEFINED, 0
    if u.unseen:
        return _UNSEEN, 0
    return u.healthy, len(u.endpoints)


def _route(host: str, rule: _Rule, level: tuple[int, ...]) -> Route:
    parts = shares([weight for _, weight, _ in rule.targets])
    counted = zip(level[1::2], level[2::2], strict=True)
    return Route(
        viewpoint=Viewpoint(rule.cluster, rule.kind, rule.namespace, None, rule.selector),
        host=host,
        port=rule.port,
        protocol=rule.protocol,  # type: ignore[arg-type]
        action=rule.action,
        source=rule.source,
        path=rule.path,
        match=rule.match,
        failing_share=level[0] / _PARTS,
        destinations=tuple(
            Destination(
                envoy_cluster=name,
                weight=weight,
                share=part,
                defined=usable != _UNDEFINED,
                usable=usable > 0 or usable == _UNSEEN,
                destination_rule=ref,
                endpoints=(Endpoint("", "healthy"),) * max(usable, 0) + (Endpoint("", "unhealthy"),) * (count - max(usable, 0)),
            )
            for (name, weight, ref), part, (usable, count) in zip(rule.targets, parts, counted, strict=True)
        ),
    )
