"""A finding over time. Pure: `step` takes an alert, what was seen of it, and the time; it returns the alert as it is now and why that matters.

What must stay true whatever comes in whatever order: a finding that lasts is told, it is told once for each message, and only a look that
found it gone can resolve it. Data that is missing freezes an alert where it stands.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checks.finding import Finding

if TYPE_CHECKING:
    from checks.resources import Resource

REOPEN_S = 900.0  # a resolved alert that comes back within this time speaks through its old message, later through a new one
_RULE = re.compile(r"spec\.(http|tls|tcp|rules)\[(\d+)\]")


class State(StrEnum):
    """Where an alert stands; that it is clearing or cannot be looked at is said beside it, since both can end either way."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Reason(StrEnum):
    """Why a step matters. QUIET ones change nothing that a person reads."""

    NONE = "nothing new"
    PENDING = "seen, not yet for long enough"
    PASSED = "gone before it lasted long enough"
    CLEARING = "gone, not yet for long enough"
    RELAPSED = "back before it was gone for long enough"
    FIRED = "fired"
    FIRED_AGAIN = "fired again"
    SHARE_CHANGED = "share changed"
    REWORDED = "told in other words"
    UNKNOWN = "cannot be looked at"
    KNOWN_AGAIN = "can be looked at again"
    RESOLVED = "resolved"


QUIET = frozenset({Reason.NONE, Reason.PENDING, Reason.PASSED, Reason.CLEARING, Reason.RELAPSED})


class Alert(Struct, frozen=True, kw_only=True):
    """One finding over time; all times are seconds since the epoch.

    `since` is when the finding was first seen this time, `well_since` when a firing one was first seen gone (`well_by`: the objects that
    changed then), `unknown_since` when it could first not be looked at (`unknown_why`). `episode` counts the messages, `firings` how often
    it fired within this one.
    """

    id: str
    state: State
    finding: Finding
    since: float
    episode: int = 1
    firings: int = 0
    fired_at: float | None = None
    resolved_at: float | None = None
    well_since: float | None = None
    well_by: tuple[str, ...] = ()
    unknown_since: float | None = None
    unknown_why: str = ""

    @property
    def message(self) -> str:
        """The id of the message that speaks for this alert."""
        return f"{self.id}-{self.episode}"


class Seen(NamedTuple):
    """The finding is there. `rule` is what `rule_of` says of its path."""

    finding: Finding
    rule: str = ""


class Gone(NamedTuple):
    """Somebody looked, and the finding is not there; `changes` are the objects that changed just before."""

    changes: tuple[str, ...] = ()


class Unseen(NamedTuple):
    """Nobody could look, and why."""

    why: str


Event = Seen | Gone | Unseen


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


def step(alert: Alert | None, event: Event, now: float, *, for_s: float, clear_s: float) -> tuple[Alert | None, Reason]:
    """The alert after an event, and the reason; None is an alert that nobody needs to remember.

    A finding fires when it has lasted `for_s` seconds and resolves when it has been gone for `clear_s`.
    """
    match event:
        case Seen(finding, rule):
            after, reason = _seen(alert, finding, rule, now, for_s)
            if alert is not None and reason in QUIET and replace(after, finding=alert.finding) == alert:
                return alert, reason  # only what nobody would be told is new, so nothing needs to be stored
            return after, reason
        case Gone(changes):
            return _gone(alert, changes, now, clear_s)
        case Unseen(why):
            return _unseen(alert, why, now)
        case _:
            assert_never(event)


def due(alert: Alert, *, for_s: float, clear_s: float) -> float | None:
    """When the alert moves on by itself if nothing else happens; None if it never does."""
    if alert.unknown_since is not None:
        return None
    if alert.state is State.PENDING:
        return alert.since + for_s
    if alert.state is State.FIRING and alert.well_since is not None:
        return alert.well_since + clear_s
    return None


def _seen(alert: Alert | None, finding: Finding, rule: str, now: float, for_s: float) -> tuple[Alert, Reason]:
    if alert is None:
        alert = Alert(id=identity(finding, rule), state=State.PENDING, finding=finding, since=now)
    elif alert.state is State.RESOLVED:
        alert = replace(alert, state=State.PENDING, since=now)
    before, was_unknown, was_well = alert.finding, alert.unknown_since is not None, alert.well_since is not None
    alert = replace(alert, finding=finding, unknown_since=None, unknown_why="", well_since=None, well_by=())
    if alert.state is State.PENDING:
        return _fired(alert, now) if now - alert.since >= for_s else (alert, Reason.PENDING)
    if was_unknown:
        return alert, Reason.KNOWN_AGAIN
    if _percent(before) != _percent(finding):
        return alert, Reason.SHARE_CHANGED
    if _words(before) != _words(finding):
        return alert, Reason.REWORDED
    return alert, Reason.RELAPSED if was_well else Reason.NONE


def _fired(alert: Alert, now: float) -> tuple[Alert, Reason]:
    fired = replace(alert, state=State.FIRING, fired_at=now, resolved_at=None, firings=alert.firings + 1)
    if alert.resolved_at is None:
        return fired, Reason.FIRED
    if alert.since - alert.resolved_at <= REOPEN_S:
        return fired, Reason.FIRED_AGAIN
    return replace(fired, episode=alert.episode + 1, firings=1), Reason.FIRED


def _gone(alert: Alert | None, changes: tuple[str, ...], now: float, clear_s: float) -> tuple[Alert | None, Reason]:
    if alert is None or alert.state is State.RESOLVED:
        return alert, Reason.NONE
    if alert.state is State.PENDING:
        return _passed(alert), Reason.PASSED
    was_unknown = alert.unknown_since is not None
    first = alert.well_since is None
    well_since = now if alert.well_since is None else alert.well_since
    alert = replace(alert, unknown_since=None, unknown_why="", well_since=well_since, well_by=changes if first else alert.well_by)
    if now - well_since >= clear_s:
        return replace(alert, state=State.RESOLVED, resolved_at=now), Reason.RESOLVED
    if was_unknown:
        return alert, Reason.KNOWN_AGAIN
    return alert, Reason.CLEARING if first else Reason.NONE


def _passed(alert: Alert) -> Alert | None:
    """A pending alert that went away: forgotten, or resolved as it was if it has a message already."""
    if alert.resolved_at is None:
        return None
    return replace(alert, state=State.RESOLVED, unknown_since=None, unknown_why="")


def _unseen(alert: Alert | None, why: str, now: float) -> tuple[Alert | None, Reason]:
    if alert is None or alert.state is State.RESOLVED:
        return alert, Reason.NONE
    first = alert.unknown_since is None
    frozen = replace(alert, unknown_since=now if first else alert.unknown_since, unknown_why=why, well_since=None, well_by=())
    if alert.state is State.PENDING:
        return frozen, Reason.NONE
    if first:
        return frozen, Reason.UNKNOWN
    return frozen, Reason.NONE if why == alert.unknown_why else Reason.REWORDED


def _percent(finding: Finding) -> int:
    """The share as people read it; what is above nothing is never told as nothing."""
    return max(round(finding.failing_share * 100), 1 if finding.failing_share > 0 else 0)


def _words(finding: Finding) -> tuple[object, ...]:
    """What a reader of the message sees change; evidence is left out because it carries ages and counts of its own."""
    return finding.message, finding.fix, finding.patch, finding.path, finding.severity, frozenset(finding.viewpoints)
