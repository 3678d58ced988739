"""Time intervals as Alertmanager's: whether a moment is in one, and when that changes next.

What must stay true: times of day are those of the interval's own zone, also on the days when its clocks are set; no clock is read here. Source:
prometheus/alertmanager timeinterval/timeinterval.go and docs/configuration.md (time_interval): every part that is given must fit, of a part any
entry; ranges include both ends, times of day exclude the last minute.
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in calendar.month_name)
_AHEAD_DAYS = 400  # what does not change within so long never does, for people
_DAY_MINUTES = 24 * 60

Range = tuple[int, int]


class Span(NamedTuple):
    """One entry of a time interval; what is left out fits always. `times` are minutes of the day without the last one."""

    times: tuple[Range, ...] | None = None
    weekdays: tuple[Range, ...] | None = None
    days: tuple[Range, ...] | None = None
    months: tuple[Range, ...] | None = None
    years: tuple[Range, ...] | None = None
    zone: str = "UTC"


def minutes(text: str) -> int:
    """The minute of the day that `09:30` is, up to 24:00; raises ValueError with what is wrong."""
    found = re.fullmatch(r"(\d\d):([0-5]\d)", text)
    minute = int(found[1]) * 60 + int(found[2]) if found else -1
    if not 0 <= minute <= _DAY_MINUTES:
        raise ValueError(f"must be a time of day such as 09:30, not {text!r}")
    return minute


def weekdays(text: str) -> Range:
    """`monday:friday` or `saturday`; raises ValueError."""
    return _ordered(text, *(_named(part, _WEEKDAYS, "a day such as monday") for part in _ends(text)))


def months(text: str) -> Range:
    """`january:march`, `7` or `july`; raises ValueError."""
    first, last = (int(p) if p.isdigit() else _named(p, _MONTHS, "a month such as july") for p in _ends(text))
    if not 1 <= min(first, last) <= max(first, last) <= 12:
        raise ValueError(f"must be months from 1 to 12, not {text!r}")
    return _ordered(text, first, last)


def days(text: str) -> Range:
    """`1:5`, or `-3:-1` for the last three days of a month; raises ValueError."""
    first, last = _numbers(text)
    if not all(1 <= abs(n) <= 31 for n in (first, last)) or (first < 0 < last):
        raise ValueError(f"must be days of a month from 1 to 31, or from its end -31 to -1, not {text!r}")
    _ordered(text, first if first > 0 else 28 + first, last if last > 0 else 28 + last)
    return first, last


def years(text: str) -> Range:
    """`2026` or `2026:2028`; raises ValueError."""
    return _ordered(text, *_numbers(text))


def _ends(text: str) -> tuple[str, str]:
    first, _, last = text.strip().lower().partition(":")
    return first.strip(), (last or first).strip()


def _named(word: str, known: Sequence[str], what: str) -> int:
    if not word or word not in known:
        raise ValueError(f"must be {what}, or two of them as first:last, not {word!r}")
    return known.index(word)


def _numbers(text: str) -> Range:
    try:
        first, last = map(int, _ends(text))
    except ValueError:
        raise ValueError(f"must be a number, or two of them as first:last, not {text!r}") from None
    return first, last


def _ordered(text: str, first: int, last: int) -> Range:
    if first > last:
        raise ValueError(f"must not end before it begins, as {text!r} does: write two ranges")
    return first, last


def within(spans: Sequence[Span], at: float) -> bool:
    """Whether a moment (seconds since the epoch) is in any of these."""
    return any(_fits(span, at) for span in spans)


def changes(spans: tuple[Span, ...], at: float) -> float | None:
    """When the answer of `within` is another one for the first time after `at`, in seconds since the epoch; None if it stays for a year."""
    return _changes(spans, int(at // 60) * 60)


@lru_cache(maxsize=256)
def _changes(spans: tuple[Span, ...], minute: int) -> float | None:
    now = within(spans, minute)
    moments = (m for day in range(_AHEAD_DAYS) for m in sorted({m for span in spans for m in _edges(span, minute, day)}))
    return next((m for m in moments if m > minute and within(spans, m) != now), None)


def last(times: Sequence[tuple[Span, int]], at: float) -> float | None:
    """The last of these minutes of a day, on days that fit their span, that is not after `at`; None if none is within a month."""
    found = [
        moment
        for span, minute in times
        for back in range(32)
        if (moment := _moment(_day(span, at, -back), minute, span.zone)) <= at and _fits(span, moment)
    ]
    return max(found, default=None)


def turn(since: datetime, every_s: float, zone: str, at: float) -> int:
    """How many turns of `every_s` seconds have passed since a time of the wall clock; hand-over is at the same time of day all year."""
    return int((wall(at, zone) - since).total_seconds() // every_s)


def wall(at: float, zone: str) -> datetime:
    """What the clock on the wall shows in a zone."""
    return datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None)


def _fits(span: Span, at: float) -> bool:
    local = datetime.fromtimestamp(at, ZoneInfo(span.zone))
    minute, length = local.hour * 60 + local.minute, calendar.monthrange(local.year, local.month)[1]
    return (
        (span.times is None or any(first <= minute < end for first, end in span.times))
        and _among(span.weekdays, (local.weekday() + 1) % 7)
        and (span.days is None or any(_from_start(a, length) <= local.day <= _from_start(b, length) for a, b in span.days))
        and _among(span.months, local.month)
        and _among(span.years, local.year)
    )


def _among(ranges: Sequence[Range] | None, value: int) -> bool:
    return ranges is None or any(first <= value <= end for first, end in ranges)


def _from_start(day: int, length: int) -> int:
    """A day of a month of some length, counted from its first day; -1 is the last one."""
    return day if day > 0 else length + day + 1


def _day(span: Span, at: float, later: int) -> datetime:
    """Midnight of the day in which `at` is, or so many days later, by the wall clock."""
    return datetime.combine(datetime.fromtimestamp(at, ZoneInfo(span.zone)).date() + timedelta(days=later), time())


def _moment(day: datetime, minute: int, zone: str) -> float:
    return (day + timedelta(minutes=minute)).replace(tzinfo=ZoneInfo(zone)).timestamp()


def _edges(span: Span, at: float, later: int) -> Iterator[float]:
    """The moments of a day at which the span may begin or end; on a day whose clocks are set, every half hour as well."""
    day = _day(span, at, later)
    start, end = _moment(day, 0, span.zone), _moment(day, _DAY_MINUTES, span.zone)
    yield start
    for first, last_ in span.times or ():
        yield _moment(day, first, span.zone)
        yield _moment(day, last_, span.zone)
    if end - start != _DAY_MINUTES * 60:
        yield from (start + step for step in range(0, int(end - start), 1800))
