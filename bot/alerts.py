"""A finding over time. Pure: `step` takes an alert, what happened, and the time; it returns the alert as it is now and why that matters.

What must stay true whatever comes in whatever order: a finding that lasts is told, unless a person silenced it, and then as soon as the silence
ends; it is told once for each message; only a look that found it gone can resolve it, and what a person calls done while it is seen is told as
that; a new firing begins without what a person did about the last one. Data that is missing freezes an alert where it stands.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checks.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from checks.resources import Resource

REOPEN_S = 900.0  # a resolved alert that comes back within this time speaks through its old message, later through a new one
FLAP_S, FLAP_FIRINGS = 600.0, 3  # an alert that fired so often within so long is flapping, until it is of one mind for as long
WORSE = 0.1  # of the requests: what a person called done is told again when so many more fail than at that time
NOTES = 5  # the last ones that are kept
OUTAGE = "cluster-unreadable"
"""What stands where a finding has its cause when a whole cluster cannot be read: no check says it, and no code is promised for it."""
_RULE = re.compile(r"spec\.(http|tls|tcp|rules)\[(\d+)\]")
_NAMED, _SERVICE = re.compile(r"^\S+ ([^/\s]+)/\S+$"), re.compile(r"^[^.]+\.([^.]+)\.svc(?:\.|$)")


class State(StrEnum):
    """Where an alert stands; that it is clearing, flaps or cannot be looked at is said beside it, since each can end either way."""

    PENDING = "pending"
    FIRING = "firing"
    CLOSED = "closed"
    """A person says that it is done, and it is seen still."""
    RESOLVED = "resolved"


class Reason(StrEnum):
    """Why a step matters. QUIET ones change nothing that a person reads."""

    NONE = "nothing new"
    PENDING = "seen, not yet for long enough"
    PASSED = "gone before anybody was told"
    CLEARING = "gone, not yet for long enough"
    RELAPSED = "back before it was gone for long enough"
    MUTED = "fired into a silence"
    FIRED = "fired"
    FIRED_AGAIN = "fired again"
    FLAPPING = "flapping"
    FLAPPED = "fired once more while flapping"
    STEADY = "no longer flapping"
    SHARE_CHANGED = "share changed"
    REWORDED = "told in other words"
    UNKNOWN = "cannot be looked at"
    KNOWN_AGAIN = "can be looked at again"
    RESOLVED = "resolved"
    ACKED = "acknowledged"
    UNACKED = "no longer acknowledged"
    ACK_LAPSED = "acknowledged for as long as was said"
    SILENCED = "silenced"
    UNSILENCED = "no longer silenced"
    ESCALATED = "escalated"
    ROUTED = "told elsewhere as well"
    HANDED = "handed over"
    NOTED = "note"
    CLOSED = "called done"
    REOPENED = "reopened"
    WORSE = "fails more than when it was called done"
    OPENED = "a channel for it"


QUIET = frozenset({Reason.NONE, Reason.PENDING, Reason.PASSED, Reason.CLEARING, Reason.RELAPSED, Reason.MUTED})


class Ack(Struct, frozen=True, kw_only=True):
    """Who said that they see to an alert (a Slack user's id), when, and until when (None: until it is resolved); seconds since the epoch."""

    by: str
    at: float
    until: float | None = None


class Note(Struct, frozen=True, kw_only=True):
    """What a person says of how it stands, and when (seconds since the epoch)."""

    by: str
    at: float
    text: str


class Close(Struct, frozen=True, kw_only=True):
    """Who says that it is done, when (seconds since the epoch) and why, and which share of the requests failed then."""

    by: str
    at: float
    why: str
    share: float = 0.0


class Appeal(Struct, frozen=True, kw_only=True):
    """What somebody says who asks for the next step of the escalation: how bad it is, why, and what was tried."""

    by: str
    at: float
    why: str = ""
    severity: str = ""
    tried: str = ""


class Silence(Struct, frozen=True, kw_only=True):
    """What shall not be told until when (seconds since the epoch; None: without an end), who said so and why; nobody where the settings do.

    `match` holds patterns by name: cluster, namespace, host, cause, resource, in which `*` and `?` stand for any text and one character. All
    of them must fit; what is left out fits everything.
    """

    id: str
    match: dict[str, str]
    by: str
    at: float
    until: float | None
    why: str = ""

    @property
    def end(self) -> float:
        """When it is over; never is later than any time."""
        return float("inf") if self.until is None else self.until

    def fits(self, finding: Finding) -> bool:
        """Whether it is about a finding."""
        said = {
            "cluster": [finding.cluster],
            "host": [finding.host],
            "cause": [finding.cause, finding.code],
            "resource": [finding.resource],
        }
        said["namespace"] = sorted(namespaces(finding))
        return bool(self.match) and all(any(fnmatchcase(v, pattern) for v in said.get(key, ())) for key, pattern in self.match.items())


class Receiver(Struct, frozen=True):
    """Where an alert is told: a channel (`#name` or id) or a person's id, and the people and user groups who are mentioned there.

    `parents` are the places of the routes above, the nearest first: there it is told where Slack does not let the bot write.
    """

    place: str
    mention: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


class Alert(Struct, frozen=True, kw_only=True):
    """One finding over time; all times are seconds since the epoch.

    `since` is when the finding was first seen this time, `well_since` when a firing one was first seen gone (`well_by`: the objects that
    changed then), `unknown_since` when it could first not be looked at (`unknown_why`). `message` is the id of the message that speaks for it,
    which other alerts may share; `told` whether anything was said there. `episode` counts the alert's own messages, `firings` how often it
    fired within this one, `recent` when, in the last FLAP_S seconds.
    """

    id: str
    state: State
    finding: Finding
    since: float
    message: str = ""
    told: bool = False
    episode: int = 0
    firings: int = 0
    recent: tuple[float, ...] = ()
    flapping: bool = False
    fired_at: float | None = None
    resolved_at: float | None = None
    well_since: float | None = None
    well_by: tuple[str, ...] = ()
    unknown_since: float | None = None
    unknown_why: str = ""
    ack: Ack | None = None
    silence: Silence | None = None
    escalated: int = 0
    """How many steps of the escalation were taken since it fired last."""
    escalated_at: float | None = None
    """When the last of them was."""
    told_at: float | None = None
    """When it was told first, if it had fired into a silence."""
    places: tuple[Receiver, ...] = ()
    """Where its message stands; it only grows, so that what stands somewhere is edited there to its end."""
    paged: tuple[str, ...] = ()
    """The pagers that were asked, by the settings' names; they are told as well how it ends."""
    notes: tuple[Note, ...] = ()
    """The last of what people said of it since its message was new, the oldest first."""
    closed: Close | None = None
    """Who called it done; it stays so when it is resolved."""
    appeal: Appeal | None = None
    """What was said with the last step of the escalation that a person asked for."""
    incident: str = ""
    """The id of the channel that was opened for its message."""

    @property
    def silenced_by(self) -> str:
        """The person who silenced it; nobody where the settings do, or nothing does."""
        return self.silence.by if self.silence is not None else ""


class Seen(NamedTuple):
    """The finding is there. `rule` is what `rule_of` says of its path, `joins` the message that would speak for it if it fired now.

    `silence` is the one that fits it, for an alert that is new; `Hushed` tells it of later ones.
    """

    finding: Finding
    rule: str = ""
    joins: str = ""
    silence: Silence | None = None


class Gone(NamedTuple):
    """Somebody looked, and the finding is not there; `changes` are the objects that changed just before."""

    changes: tuple[str, ...] = ()


class Unseen(NamedTuple):
    """Nobody could look, and why."""

    why: str


class Acked(NamedTuple):
    """A person sees to it."""

    ack: Ack


class Unacked(NamedTuple):
    """A person does not see to it any more."""

    by: str


class Handed(NamedTuple):
    """A person says who sees to it from now on."""

    ack: Ack
    by: str


class Noted(NamedTuple):
    """A person says how it stands."""

    note: Note


class Closed(NamedTuple):
    """A person says that it is done."""

    close: Close


class Reopened(NamedTuple):
    """A person says that it is not done."""

    by: str


class Lapsed(NamedTuple):
    """Time has passed: what a person said for some time may be over."""


class Escalated(NamedTuple):
    """A person asks for the next step of the escalation, and says why."""

    by: str
    appeal: Appeal | None = None


class Opened(NamedTuple):
    """A channel (its id) was opened for the alert's message."""

    channel: str


class Hushed(NamedTuple):
    """The silence that fits the alert now; None when there is none."""

    silence: Silence | None


class Sent(NamedTuple):
    """Where the alert is to be told now and which pagers are asked, and where its message stands already for others."""

    receivers: tuple[Receiver, ...]
    standing: tuple[Receiver, ...] = ()
    pagers: tuple[str, ...] = ()


class Joined(NamedTuple):
    """The alert has joined the message of another one, which nobody sees to and which escalated as far as it did."""

    lead: Alert


Event = Seen | Gone | Unseen | Acked | Unacked | Handed | Noted | Closed | Reopened | Lapsed | Escalated | Opened | Hushed | Sent | Joined


def namespaces(finding: Finding) -> set[str]:
    """The namespaces that a finding is about: its object's and its host's."""
    named = _NAMED.match(finding.resource)
    return {n for n in (named and named[1], service_namespace(finding.host)) if n}


def service_namespace(host: str) -> str | None:
    """The namespace of a Service's host; None for a host that is none."""
    found = _SERVICE.match(host)
    return found[1] if found is not None else None


def outage(cluster: str, reason: str) -> Finding:
    """That a cluster cannot be read, in the form of a finding: nothing is known to fail, and nothing is known not to."""
    return Finding(
        cause=OUTAGE,
        code="",
        severity=Severity.ERROR,
        cluster=cluster,
        resource=f"Cluster {cluster}",
        path="",
        host="",
        viewpoints=(),
        failing_share=0.0,
        message=reason,
    )


def identity(finding: Finding, rule: str) -> str:
    """What makes two findings the same alert: cluster, cause, resource, host and rule; never an index, a share or a wording."""
    parts = (finding.cluster, finding.cause, finding.resource, finding.host, rule)
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=10).hexdigest()


def rule_of(resource: Resource | None, path: str) -> str:
    """The rule that a path such as `spec.http[0].route[1]` is in, by its name or a hash of its match; empty outside of rules."""
    found = _RULE.match(path)
    if resource is None or found is None:
        return ""
    rules = msgspec.to_builtins(resource).get("spec", {}).get(found[1]) or ()
    index = int(found[2])
    if index >= len(rules):
        return ""
    rule = rules[index]
    if rule.get("name"):
        return str(rule["name"])
    match = _without_defaults(rule.get("match") or rule.get("matches") or ())
    return "match " + hashlib.blake2b(msgspec.json.encode(match, order="sorted"), digest_size=8).hexdigest()


def _without_defaults(value: Any) -> Any:
    """The value without empty fields, so that a field which is read one day does not rename the alerts that never used it."""
    if isinstance(value, dict):
        return {k: _without_defaults(v) for k, v in value.items() if v not in (None, "", 0, False, [], {}, ())}
    if isinstance(value, (list, tuple)):
        return [_without_defaults(v) for v in value]
    return value


def step(
    alert: Alert | None, event: Event, now: float, *, for_s: float, clear_s: float, escalation: Sequence[float] = ()
) -> tuple[Alert | None, Reason]:
    """The alert after an event, and the reason; None is an alert that nobody needs to remember.

    A finding fires when it has lasted `for_s` seconds and resolves when it has been gone for `clear_s`. While nobody sees to it, the n-th step of
    the escalation is taken `escalation[n]` seconds after it fired.
    """
    match event:
        case Seen():
            after, reason = _seen(alert, event, now, for_s, clear_s)
            if alert is not None and reason in QUIET and replace(after, finding=alert.finding) == alert:
                return alert, reason  # only what nobody would be told is new, so nothing needs to be stored
            return after, reason
        case Gone(changes):
            return _gone(alert, changes, now, clear_s)
        case Unseen(why):
            return _unseen(alert, why, now)
        case Acked(ack):
            if alert is None or alert.state is not State.FIRING or alert.ack is not None:
                return alert, Reason.NONE  # the first one has it, and what is well needs nobody
            return replace(alert, ack=ack), _heard(alert, Reason.ACKED)
        case Unacked():
            if alert is None or alert.ack is None:
                return alert, Reason.NONE
            return replace(alert, ack=None), _heard(alert, Reason.UNACKED)
        case Handed(ack):
            if alert is None or alert.state is not State.FIRING or alert.ack == ack:
                return alert, Reason.NONE
            return replace(alert, ack=ack), _heard(alert, Reason.HANDED)
        case Noted(note):
            if alert is None or alert.state not in {State.FIRING, State.CLOSED} or note in alert.notes:
                return alert, Reason.NONE
            return replace(alert, notes=(*alert.notes, note)[-NOTES:]), _heard(alert, Reason.NOTED)
        case Closed(close):
            return _closed(alert, close)
        case Reopened():
            return _reopened(alert, now, Reason.REOPENED)
        case Lapsed():
            if alert is not None and alert.ack is not None and alert.ack.until is not None and alert.ack.until <= now:
                return replace(alert, ack=None), _heard(alert, Reason.ACK_LAPSED)
            if alert is not None and (moment := escalates(alert, escalation)) is not None and moment <= now:
                return replace(alert, escalated=alert.escalated + 1, escalated_at=now), Reason.ESCALATED
            return alert, Reason.NONE
        case Escalated(_, appeal):
            if alert is None or alert.state is not State.FIRING or not alert.told or alert.escalated >= len(escalation):
                return alert, Reason.NONE
            said = appeal if appeal is not None else alert.appeal
            return replace(alert, escalated=alert.escalated + 1, escalated_at=now, appeal=said), Reason.ESCALATED
        case Opened(channel):
            if alert is None or alert.state not in {State.FIRING, State.CLOSED} or alert.incident == channel:
                return alert, Reason.NONE
            return replace(alert, incident=channel), _heard(alert, Reason.OPENED)
        case Hushed(silence):
            return _hushed(alert, silence, now)
        case Sent():
            return _sent(alert, event)
        case Joined(lead):
            if alert is None or alert.state is not State.FIRING:
                return alert, Reason.NONE
            # Nobody is asked once more for each host that the same cause breaks later.
            since = lead.told_at or lead.fired_at
            return replace(alert, told_at=since, escalated=lead.escalated, escalated_at=lead.escalated_at, paged=lead.paged), Reason.NONE
        case _:
            assert_never(event)


def escalates(alert: Alert, escalation: Sequence[float]) -> float | None:
    """When the next step of the escalation is due; None while somebody sees to the alert, it is silenced or clearing, or no step is left.

    What cannot be looked at is escalated all the same: it is not known to be well.
    """
    waits = alert.state is State.FIRING and alert.told and alert.ack is None and alert.silence is None and alert.well_since is None
    if not waits or alert.fired_at is None or alert.escalated >= len(escalation):
        return None
    step = alert.escalated
    moment = (alert.told_at or alert.fired_at) + escalation[step]
    if step == 0 or alert.escalated_at is None:
        return moment
    # Whoever was asked late, since no bot was there, has as long to answer as if it had been in time.
    return max(moment, alert.escalated_at + escalation[step] - escalation[step - 1])


def due(alert: Alert, *, for_s: float, clear_s: float, escalation: Sequence[float] = ()) -> float | None:
    """When the alert moves on by itself if nothing else happens; None if it never does."""
    moments = [alert.ack.until] if alert.ack is not None and alert.ack.until is not None else []
    if alert.silence is not None and alert.silence.until is not None:
        moments.append(alert.silence.until)
    if (next_step := escalates(alert, escalation)) is not None:
        moments.append(next_step)
    if alert.unknown_since is None:
        if alert.state is State.PENDING:
            moments.append(alert.since + for_s)
        elif alert.state in {State.FIRING, State.CLOSED} and alert.well_since is not None:
            moments.append(alert.well_since + _patience(alert, clear_s))
        elif alert.flapping:
            moments.append(alert.recent[-1] + FLAP_S)
    return min(moments, default=None)


def _patience(alert: Alert, clear_s: float) -> float:
    """Seconds that the alert must be gone to be resolved."""
    return max(clear_s, FLAP_S) if alert.flapping else clear_s


def _heard(alert: Alert, reason: Reason) -> Reason:
    """The reason as far as somebody reads it: of an alert that was never told nothing is."""
    return reason if alert.told else Reason.NONE


def _seen(alert: Alert | None, event: Seen, now: float, for_s: float, clear_s: float) -> tuple[Alert, Reason]:
    finding = event.finding
    if alert is None:
        alert = Alert(id=identity(finding, event.rule), state=State.PENDING, finding=finding, since=now, silence=event.silence)
    elif alert.state is State.RESOLVED:
        alert = replace(alert, state=State.PENDING, since=now)
    before, was_unknown, well_since = alert.finding, alert.unknown_since is not None, alert.well_since
    alert = replace(alert, finding=finding, unknown_since=None, unknown_why="", well_since=None, well_by=())
    if alert.state is State.CLOSED:
        return _still(before, alert, now, was_unknown=was_unknown)
    if alert.state is State.PENDING:
        return _fired(alert, now, event.joins) if now - alert.since >= for_s else (alert, Reason.PENDING)
    if alert.flapping and well_since is not None and now - well_since >= clear_s:
        return replace(alert, firings=alert.firings + 1, recent=_recent(alert, now)), _heard(alert, Reason.FLAPPED)
    if was_unknown:
        return alert, _heard(alert, Reason.KNOWN_AGAIN)
    if alert.flapping and now - alert.recent[-1] >= FLAP_S:
        return replace(alert, flapping=False), _heard(alert, Reason.STEADY)
    if _percent(before) != _percent(finding):
        return alert, _heard(alert, Reason.SHARE_CHANGED)
    if _words(before) != _words(finding):
        return alert, _heard(alert, Reason.REWORDED)
    return alert, Reason.RELAPSED if well_since is not None else Reason.NONE


def _still(before: Finding, alert: Alert, now: float, *, was_unknown: bool) -> tuple[Alert, Reason]:
    """What a person called done and is seen still: nobody is told of it again unless it gets worse."""
    if alert.closed is not None and alert.finding.failing_share > alert.closed.share + WORSE:
        again, reason = _reopened(alert, now, Reason.WORSE)
        return again or alert, reason
    if was_unknown:
        return alert, Reason.KNOWN_AGAIN
    return alert, Reason.REWORDED if (_percent(before), _words(before)) != (_percent(alert.finding), _words(alert.finding)) else Reason.NONE


def _closed(alert: Alert | None, close: Close) -> tuple[Alert | None, Reason]:
    """Only what people were told of can be called done; whoever saw to it did so until then."""
    if alert is None or alert.state is not State.FIRING or not alert.told:
        return alert, Reason.NONE
    ack = replace(alert.ack, until=None) if alert.ack is not None else None
    close = replace(close, share=alert.finding.failing_share)
    return replace(alert, state=State.CLOSED, closed=close, ack=ack, flapping=False), Reason.CLOSED


def _reopened(alert: Alert | None, now: float, reason: Reason) -> tuple[Alert | None, Reason]:
    """It is as if it were told now: nobody sees to it, and whoever is asked has as long to answer."""
    if alert is None or alert.state is not State.CLOSED:
        return alert, Reason.NONE
    again = replace(alert, state=State.FIRING, closed=None, ack=None, told_at=now, escalated=0, escalated_at=None, paged=())
    return again, reason


def _recent(alert: Alert, now: float) -> tuple[float, ...]:
    return (*(t for t in alert.recent if now - t < FLAP_S), now)


def _fired(alert: Alert, now: float, joins: str) -> tuple[Alert, Reason]:
    again = alert.told and alert.resolved_at is not None and alert.since - alert.resolved_at <= REOPEN_S
    recent = _recent(alert, now)
    fired = replace(
        alert,
        state=State.FIRING,
        fired_at=now,
        resolved_at=None,
        recent=recent,
        ack=None,
        escalated=0,
        escalated_at=None,
        paged=(),
        closed=None,
        appeal=None,
    )
    if again:
        fired = replace(fired, firings=alert.firings + 1, flapping=len(recent) >= FLAP_FIRINGS)
        return fired, Reason.FLAPPING if fired.flapping else Reason.FIRED_AGAIN
    episode = alert.episode if alert.message and not alert.told else alert.episode + 1
    told = alert.silence is None
    fired = replace(
        fired,
        episode=episode,
        message=joins or f"{alert.id}-{episode}",
        firings=1,
        told=told,
        flapping=False,
        places=(),
        paged=(),
        notes=(),
        incident="",
    )
    return fired, Reason.FIRED if fired.told else Reason.MUTED


def _gone(alert: Alert | None, changes: tuple[str, ...], now: float, clear_s: float) -> tuple[Alert | None, Reason]:
    if alert is None or alert.state is State.RESOLVED:
        return alert, Reason.NONE
    if alert.state is State.PENDING:
        return _passed(alert), Reason.PASSED
    was_unknown = alert.unknown_since is not None
    first = alert.well_since is None
    well_since = now if alert.well_since is None else alert.well_since
    alert = replace(alert, unknown_since=None, unknown_why="", well_since=well_since, well_by=changes if first else alert.well_by)
    if now - well_since >= _patience(alert, clear_s):
        resolved = replace(alert, state=State.RESOLVED, resolved_at=now, flapping=False)
        return (resolved, Reason.RESOLVED) if alert.told else (_forgotten(resolved), Reason.PASSED)
    if was_unknown:
        return alert, _heard(alert, Reason.KNOWN_AGAIN)
    return alert, Reason.CLEARING if first else Reason.NONE


def _passed(alert: Alert) -> Alert | None:
    """A pending alert that went away: forgotten, or resolved as it was if it has a message already."""
    if alert.resolved_at is None:
        return None
    return replace(alert, state=State.RESOLVED, unknown_since=None, unknown_why="")


def _forgotten(alert: Alert) -> Alert | None:
    """An alert that went away without a word: remembered only when a message of its own stands somewhere, whose id must not be used twice."""
    return None if alert.episode <= 1 else alert


def _unseen(alert: Alert | None, why: str, now: float) -> tuple[Alert | None, Reason]:
    if alert is None or alert.state is State.RESOLVED:
        return alert, Reason.NONE
    first = alert.unknown_since is None
    frozen = replace(alert, unknown_since=now if first else alert.unknown_since, unknown_why=why, well_since=None, well_by=())
    if alert.state is State.PENDING:
        return frozen, Reason.NONE
    if first:
        return frozen, _heard(alert, Reason.UNKNOWN)
    return frozen, Reason.NONE if why == alert.unknown_why else _heard(alert, Reason.REWORDED)


def _hushed(alert: Alert | None, silence: Silence | None, now: float) -> tuple[Alert | None, Reason]:
    if alert is None or alert.silence == silence:
        return alert, Reason.NONE
    after = replace(alert, silence=silence)
    if alert.state is not State.FIRING:
        return after, Reason.NONE
    if silence is not None:
        return after, _heard(alert, Reason.SILENCED)
    # Who is told only now has as long to see to it as if it fired now.
    return (after, Reason.UNSILENCED) if alert.told else (replace(after, told=True, told_at=now), Reason.FIRED)


def _sent(alert: Alert | None, event: Sent) -> tuple[Alert | None, Reason]:
    """Told where it belongs when it fires; later in further places only while nobody sees to it."""
    if alert is None or alert.state is not State.FIRING or not alert.told:
        return alert, Reason.NONE
    if paged := tuple(p for p in event.pagers if p not in alert.paged):
        alert = replace(alert, paged=alert.paged + paged)
    known = {r.place: r for r in (*event.standing, *alert.places)}
    fired = not alert.places
    new = {r.place: r for r in event.receivers if alert.silence is None and (fired or alert.ack is None)}
    places = tuple(({**new, **known}[place]) for place in dict.fromkeys((*(r.place for r in alert.places), *known, *new)))
    if places == alert.places:
        return alert, Reason.NONE
    return replace(alert, places=places), Reason.NONE if fired or not new.keys() - known.keys() else Reason.ROUTED


def _percent(finding: Finding) -> int:
    """The share as people read it; what is above nothing is never told as nothing."""
    return max(round(finding.failing_share * 100), 1 if finding.failing_share > 0 else 0)


def _words(finding: Finding) -> tuple[object, ...]:
    """What a reader of the message sees change; evidence is left out because it carries ages and counts of its own."""
    return finding.message, finding.fix, finding.patch, finding.path, finding.severity, frozenset(finding.viewpoints)
