"""Where an alert is told, and when not: the settings' tree of routes, their hours and mutes, and what namespaces say of themselves. Pure.

What must stay true: routes are taken as Alertmanager takes them (prometheus/alertmanager dispatch/route.go): the deepest first one that fits, and
further ones only after `continue`; what a route leaves out is its parent's. A namespace may send its own alerts elsewhere or refuse them, and
nothing it writes mentions anybody.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from bot import hours
from bot.alerts import Receiver, Silence, namespaces
from checks.resources import KIND_OF, Namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bot.hours import Span
    from bot.settings import AlertRoute, Alerts, EscalationStep, Match, OnCall, Outside
    from checks.finding import Finding
    from checks.mesh import Cluster, Mesh
    from checks.resources import Resource

CHANNEL, OWNER, ALERTS = "meshwhy.io/channel", "meshwhy.io/owner", "meshwhy.io/alerts"
"""What a Namespace's annotations may say: where its alerts are told, whose it is, and `off`."""
_OFF = frozenset({"off", "false", "no", "none", "disabled"})
_CHANNEL = re.compile(r"#[^\s#@]{1,80}|[CG][A-Z0-9]{6,}")
_RESOURCE = re.compile(r"^(\S+) (?:([^/\s]+)/)?(\S+)$")
_SERVICE = re.compile(r"^[^.]+\.([^.]+)\.svc(?:\.|$)")
_STRUCTS: dict[str, list[type[Resource]]] = {}
for _struct, _kind in KIND_OF.items():
    _STRUCTS.setdefault(_kind.kind, []).append(_struct)


class About(NamedTuple):
    """What routes ask of an alert: its finding, and of the objects and namespaces that it is about their labels, owners and wishes.

    `spaces` are the namespaces, `labels` those of the object, of the host's Service and of their namespaces, one entry each; `channel` and `off` are what the
    namespaces' annotations say, `unfit` what they say that is no channel.
    """

    finding: Finding
    spaces: frozenset[str]
    labels: tuple[Mapping[str, str], ...] = ()
    teams: tuple[str, ...] = ()
    channel: str = ""
    off: str = ""
    unfit: str = ""


class Routed(NamedTuple):
    """Where an alert is told and how it escalates; `quiet` is why not now, `team` whose it is, `because` how it was decided, a sentence each."""

    receivers: tuple[Receiver, ...]
    escalation: tuple[EscalationStep, ...]
    quiet: Silence | None
    team: str
    because: tuple[str, ...]


class _Leaf(NamedTuple):
    """A route with what it has from its parents; `path` says where it stands, `also` that the search went on after it, `parents` their places."""

    place: str
    mention: tuple[str, ...]
    hours: tuple[str, ...]
    outside: Outside | None
    escalation: tuple[EscalationStep, ...]
    path: str
    also: bool
    parents: tuple[str, ...] = ()


def about(finding: Finding, mesh: Mesh | None) -> About:
    """What routes ask of a finding, as its mesh has it."""
    cluster, names = _cluster(mesh, finding) if mesh is not None else None, _spaces(finding)
    if cluster is None:
        return About(finding, frozenset(names))
    every = concerned(cluster, finding)
    spaces = [o for o in every if isinstance(o, Namespace)]
    teams = [*(s.annotations.get(OWNER, "").strip() for s in spaces), *(o.labels.get("team", "") for o in every)]
    said = [c for s in spaces if (c := s.annotations.get(CHANNEL, "").strip())]
    channels = [c for c in said if _CHANNEL.fullmatch(c)]
    off = [s.name for s in spaces if s.annotations.get(ALERTS, "").strip().lower() in _OFF]
    return About(
        finding,
        frozenset(names),
        labels=tuple({**o.labels} for o in every if o.labels),
        teams=tuple(dict.fromkeys(t for t in teams if t)),
        channel=channels[0] if channels else "",
        unfit=next((c for c in said if c not in channels), ""),
        # Who refuses speaks for its own namespace only: that another one is concerned as well is news for that one.
        off=", ".join(off) if off and len(off) == len(names) else "",
    )


def _spaces(finding: Finding) -> list[str]:
    """The namespaces that a finding is about, the one of the object first: there it is mended."""
    own = _RESOURCE.match(finding.resource)
    return sorted(namespaces(finding), key=lambda n: (own is None or n != own[2], n))


def concerned(cluster: Cluster, finding: Finding) -> list[Resource]:
    """The objects by which a finding is routed: what it names, the Service of its host, and their namespaces."""
    service = _SERVICE.match(finding.host)
    refs = [finding.resource, *([f"Service {service[1]}/{finding.host.partition('.')[0]}"] if service else [])]
    refs += [f"Namespace {n}" for n in _spaces(finding)]
    return [o for ref in refs if (o := _named(cluster, ref)) is not None]


def route(alert: About, settings: Alerts, now: float) -> Routed:
    """Where an alert is told at `now` (seconds since the epoch), or until when it is not."""
    because: list[str] = []
    receivers: dict[str, Receiver] = {}
    waits: list[tuple[float | None, str]] = []
    leaves = _leaves(alert, settings)
    if alert.unfit:
        because.append(f"annotation {CHANNEL}: {alert.unfit[:90]!r} is no channel, so it is passed over")
    for leaf in leaves:
        spans = _spans(leaf.hours, settings)
        place, mention, why, above = leaf.place, leaf.mention, leaf.path, (leaf.place, *leaf.parents)
        if leaf.outside is not None and not hours.within(spans, now):
            if alert.finding.failing_share < leaf.outside.hold_below:
                waits.append((hours.changes(spans, now), f"held outside of {' and '.join(leaf.hours)}"))
                because.append(
                    f"{why}: {place} waits until {' or '.join(leaf.hours)} begins, since less than the share of hold_below fails"
                )
                continue
            elsewhere, other = leaf.outside.place, leaf.outside.mention
            place, mention = elsewhere or place, mention if other is None and elsewhere is None else other or ()
            why = f"{why}, outside of {' and '.join(leaf.hours)}"
        because.append(f"{why}: {place}" + (f", mentioning {', '.join(mention)}" if mention else ""))
        had = receivers.get(place, Receiver(place))
        parents = tuple(p for p in dict.fromkeys((*had.parents, *above)) if p != place)
        receivers[place] = Receiver(place, tuple(dict.fromkeys(had.mention + mention)), parents)
    quiet = refused(alert, settings, now)
    if quiet is None and not receivers and waits:
        until, why = min(waits, key=lambda w: float("inf") if w[0] is None else w[0])
        quiet = Silence(id="hours", match={}, by="", at=0.0, until=until, why=why)
    if quiet is not None:
        because.append(f"not told now: {quiet.why}")
    return Routed(tuple(receivers.values()), leaves[-1].escalation, quiet, next(iter(alert.teams), ""), tuple(because))


def _leaves(alert: About, settings: Alerts) -> list[_Leaf]:
    root = _Leaf(settings.default_channel, (), (), None, settings.escalation, "default_channel", also=False)
    found = _walk(settings.routes, "routes", root, alert) or [root]
    if alert.channel:
        # The namespace's own channel stands where the search ended; whoever asked for it on the way by `continue` is told as well.
        end = found[-1]
        own = _Leaf(
            alert.channel,
            () if end.also else end.mention,
            end.hours,
            end.outside,
            end.escalation,
            f"annotation {CHANNEL}",
            also=False,
            parents=(end.place, *end.parents),
        )
        found = [*(found if end.also else found[:-1]), own]
    return found


def _walk(routes: Sequence[AlertRoute], path: str, parent: _Leaf, alert: About) -> list[_Leaf]:
    found: list[_Leaf] = []
    for i, one in enumerate(routes):
        if not fits(one.match, alert):
            continue
        here = f"{path}[{i}]"
        own = _Leaf(
            one.place or parent.place,
            parent.mention if one.mention is None else one.mention,
            parent.hours if one.hours is None else one.hours,
            one.outside or parent.outside,
            parent.escalation if one.escalation is None else one.escalation,
            here,
            also=one.continue_,
            parents=(parent.place, *parent.parents),
        )
        found += _walk(one.routes, f"{here}.routes", own, alert) or [own]
        if not one.continue_:
            break
    return found


def refused(alert: About, settings: Alerts, now: float) -> Silence | None:
    """Why nobody wants to be told of it now: its namespace, or a mute, until when that is known."""
    if alert.off:
        return Silence(id="off", match={"namespace": alert.off}, by="", at=0.0, until=None, why=f"{ALERTS} of namespace {alert.off} is off")
    for i, mute in enumerate(settings.mutes):
        if not fits(mute.match, alert):
            continue
        spans = _spans(mute.during or (), settings)
        if mute.during is None or hours.within(spans, now):
            until = None if mute.during is None else hours.changes(spans, now)
            named = f"mutes[{i}]" + (f" during {' and '.join(mute.during)}" if mute.during else "")
            return Silence(id=f"mute-{i}", match={}, by="", at=0.0, until=until, why=mute.why or named)
    return None


def _spans(names: Sequence[str], settings: Alerts) -> tuple[Span, ...]:
    return tuple(interval.span for name in names for interval in settings.time_intervals[name])


def fits(match: Match, alert: About) -> bool:
    """Whether an alert is what these matchers say."""
    finding = alert.finding
    return (
        _any(match.namespace, alert.spaces)
        and _any(match.cluster, (finding.cluster,))
        and (match.severity is None or finding.severity == match.severity)
        and _any(match.cause, (finding.cause, finding.code))
        and _any(match.team, alert.teams)
        and (match.label is None or any(all(fnmatchcase(o.get(k, ""), v) for k, v in match.label.items()) for o in alert.labels))
    )


def _any(wanted: Sequence[str] | None, given: Collection[str]) -> bool:
    """Whether one of these fits a name or a pattern; names are far more frequent."""
    if wanted is None or any(name in given for name in wanted):
        return True
    patterns = _patterns(tuple(wanted))
    return bool(patterns) and any(fnmatchcase(value, pattern) for pattern in patterns for value in given)


@lru_cache(maxsize=1024)
def _patterns(wanted: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(pattern for pattern in wanted if any(c in pattern for c in "*?["))


def on_call(schedule: OnCall, at: float) -> str:
    """Who is on call at a moment (seconds since the epoch)."""
    now = hours.wall(at, schedule.location)
    instead = next((s.who for s in schedule.instead if s.since <= now < s.until), None)
    return instead or schedule.people[hours.turn(schedule.since, schedule.every, schedule.location, at) % len(schedule.people)]


class Asked(NamedTuple):
    """Who is asked by a step of an escalation: somebody by id, or what else, in words."""

    to: str
    words: str


def asked(step: EscalationStep, settings: Alerts, at: float) -> Asked:
    """Who a step asks at a moment (seconds since the epoch)."""
    if step.on_call is not None:
        return Asked(on_call(settings.on_call[step.on_call], at), f"on call for {step.on_call}")
    return Asked(step.to or "", step.channel or (f"pager {step.page}" if step.page else ""))


def places(settings: Alerts) -> Iterator[str]:
    """Every place that the settings name: channels, and people who are written to."""

    def below(routes: Sequence[AlertRoute]) -> Iterator[str | None]:
        for one in routes:
            yield one.place
            yield one.outside.place if one.outside is not None else None
            yield from (step.channel for step in one.escalation or ())
            yield from below(one.routes)

    steps, digests = (s.channel for s in settings.escalation), (d.place for d in settings.digests)
    named = (settings.default_channel, settings.admin_channel, *below(settings.routes), *steps, *digests)
    yield from dict.fromkeys(place for place in named if place is not None)


def resource_of(mesh: Mesh, finding: Finding) -> Resource | None:
    """The object that a finding names as `Kind namespace/name`; None if it is not there."""
    cluster = _cluster(mesh, finding)
    return None if cluster is None else _named(cluster, finding.resource)


def _cluster(mesh: Mesh, finding: Finding) -> Cluster | None:
    known = (c for m in (mesh, *mesh.neighbours) for c in m.clusters if finding.cluster in (c.name, m.cluster_id(c)))
    return next(known, None)


def _named(cluster: Cluster, ref: str) -> Resource | None:
    """The object that is written `Kind namespace/name` or `Kind name`."""
    named = _RESOURCE.match(ref)
    if named is None:
        return None
    kind, namespace, name = named.groups()
    spaces = (cluster.objects.get(struct, {}).get(namespace or "", {}) for struct in _STRUCTS.get(kind, ()))
    return next((space[name] for space in spaces if name in space), None)
