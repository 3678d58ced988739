"""A host's day as a picture: the share that failed and the usable endpoints over time, where objects changed, and the instant that is shown.

What nobody knows is hatched and said in words. Made of the form of `messages.changes`; the fonts and colours are `picture`'s.
"""

from __future__ import annotations

import re
import textwrap
import time
from typing import TYPE_CHECKING

from templates import picture, words
from templates.picture import BLUE, GREY, INK, LINE, PAPER, RED, Font
from templates.words import cut, percent, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from templates.words import Json

_LEFT, _RIGHT = 150.0, picture.WIDTH - 40.0
_SHARE, _USABLE, _BAND = 162.0, 314.0, 110.0
_MARKS = 456.0
_ROW, _ROWS = 24.0, 5
_HEIGHT = re.compile(r'height="([\d.]+)"')
_HATCH = (
    '<defs><pattern id="h" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    f'<rect width="2" height="8" fill="{LINE}"/></pattern></defs>'
)
_MARGIN = Font(14, GREY, mono=False)


def svg(view: Json) -> str:
    """The picture as SVG, 1,200 wide: the day, and below it the route as it was at the instant."""
    begin, end = view["from"], view["now"]
    strip = view["strip"]
    most = max((p["of"] for p in strip if p["share"] is not None), default=0) or 1
    out = [
        *picture.title(view["host"], view["diagnosis"]["verdict"] if view["diagnosis"] else "unknown"),
        *(picture.text(36, 96 + 23 * i, line, Font(17, INK, mono=False)) for i, line in enumerate(_folded(words.stood(view)))),
        _HATCH,
        *_axis(_SHARE, ("share", "that fails"), "100 %", "0 %"),
        *_axis(_USABLE, ("usable", "endpoints"), str(most), "0"),
    ]
    for piece in strip:
        a, b = _x(piece["from"], begin, end), _x(piece["until"], begin, end)
        if piece["share"] is None:
            out += [f'<rect x="{a:.1f}" y="{top:g}" width="{b - a:.1f}" height="{_BAND:g}" fill="url(#h)"/>' for top in (_SHARE, _USABLE)]
            if b - a > 90:
                out.append(picture.text((a + b) / 2 - 36, _SHARE + _BAND / 2, "not known", _MARGIN))
        elif piece["share"]:
            high = _BAND * piece["share"]
            out.append(
                f'<rect x="{a:.1f}" y="{_SHARE + _BAND - high:.1f}" width="{max(b - a, 1.5):.1f}" height="{high:.1f}" fill="{RED}" fill-opacity="0.2"/>'
            )
    known = [p for p in strip if p["share"] is not None]
    out.append(_line([(p["from"], p["until"], p["share"]) for p in known], (begin, end), _SHARE, RED))
    out.append(_line([(p["from"], p["until"], p["usable"] / most) for p in known], (begin, end), _USABLE, BLUE))
    out += _hours(begin, end)
    out += _changes(view)
    here = _x(view["at"], begin, end)
    out.append(f'<path d="M{here:.1f} {_SHARE - 6:g}V{_MARKS + 6:g}" stroke="{INK}" stroke-width="2"/>')
    out.append(picture.text(min(max(here, _LEFT + 24), _RIGHT - 24) - 24, _SHARE - 12, _minute(view["at"]), Font(16, INK, bold=True)))
    height = _MARKS + 40 + _ROW * max(min(len(view["changes"]), _ROWS), 1)
    if view["diagnosis"] and view["diagnosis"]["routes"]:
        told = view["diagnosis"]
        route = picture.svg(view["host"], told["routes"], verdict=told["verdict"])
        found = _HEIGHT.search(route)
        out.append(route.replace("<svg ", f'<svg y="{height:g}" ', 1))
        height += float(found[1]) if found is not None else 0.0
    size = f'width="{picture.WIDTH}" height="{height:g}" viewBox="0 0 {picture.WIDTH} {height:g}"'
    paper = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{paper}{"".join(out)}</svg>'


def alt(view: Json) -> str:
    """The picture in words, at most 300 characters: how the host stands at the instant, when else it failed, and the last change."""
    failed = [p for p in view["strip"] if p["share"]]
    when = words.listed([f"{percent(p['share'])} from {_minute(p['from'])} to {_minute(p['until'])}" for p in failed], most=4)
    unknown = "; hatched times are not known" if any(p["share"] is None for p in view["strip"]) else ""
    day = f"{_span(view)} it failed: {when}{unknown}." if failed else f"{_span(view)} nothing known failed{unknown}."
    return cut(f"{cut(short(view['host']), 80)}. {words.stood(view)} {day}", 300)


_DAY_S = 86_400.0


def _span(view: Json) -> str:
    whole = view["now"] - view["from"] >= _DAY_S - 1
    return "In the last 24 hours" if whole else f"Between {_minute(view['from'])} and {_minute(view['now'])}"


def _folded(text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, 118)
    return [first, cut(" ".join(rest), 118)] if rest else [first]


def _minute(when: float) -> str:
    return time.strftime("%H:%M", time.gmtime(when))


def _x(when: float, begin: float, end: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(max((when - begin) / (end - begin), 0.0), 1.0)


def _axis(top: float, name: Sequence[str], most: str, least: str) -> list[str]:
    edge = f'stroke="{LINE}" stroke-width="2"'
    return [
        f'<path d="M{_LEFT:g} {top:g}H{_RIGHT:g}M{_LEFT:g} {top + _BAND:g}H{_RIGHT:g}" {edge}/>',
        *(picture.text(36, top + 48 + 20 * i, line, _MARGIN) for i, line in enumerate(name)),
        picture.text(_LEFT - 8 - 8.4 * len(most), top + 6, most, Font(14, GREY)),
        picture.text(_LEFT - 8 - 8.4 * len(least), top + _BAND + 4, least, Font(14, GREY)),
    ]


def _line(pieces: Sequence[tuple[float, float, float]], span: tuple[float, float], top: float, colour: str) -> str:
    """A value over time as steps; where it is not known there is no line."""
    path, last = "", None
    for a, b, value in pieces:
        y = top + _BAND * (1 - value)
        path += f"{'L' if last == a else 'M'}{_x(a, *span):.1f} {y:.1f}H{_x(b, *span):.1f}"
        last = b
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="3"/>' if path else ""


_TICKS = (60, 300, 900, 1800, 3600, 10_800)


def _hours(begin: float, end: float) -> Iterator[str]:
    """Times of UTC under the strips, nine at most."""
    step = next((s for s in _TICKS if (end - begin) / s <= 9), _TICKS[-1])
    when = begin // step * step + step
    while when < end:
        x = _x(when, begin, end)
        yield f'<path d="M{x:.1f} {_USABLE + _BAND:g}v6" stroke="{GREY}" stroke-width="2"/>'
        yield picture.text(x - 20, _USABLE + _BAND + 22, _minute(when), Font(14, GREY))
        when += step


def _changes(view: Json) -> Iterator[str]:
    """Where objects changed, each with a number that the list below repeats; the suspicious one is said to be."""
    rows = view["changes"]
    for i, row in enumerate(rows[:_ROWS]):
        x, colour = _x(row["at"], view["from"], view["now"]), RED if row["suspicious"] else INK
        yield f'<path d="M{x:.1f} {_USABLE + _BAND + 2:g}l6 10h-12z" fill="{colour}"/>'
        said = f"{_minute(row['at'])}{' suspicious:' if row['suspicious'] else ''} {words.change_of(row)}"
        mark = f'<path d="M42 {_MARKS + 14 + _ROW * i:.1f}l6 10h-12z" fill="{colour}"/>'
        yield mark + picture.text(58, _MARKS + 24 + _ROW * i, cut(said, 130), Font(15, colour, mono=False))
    if not rows:
        yield picture.text(36, _MARKS + 24, f"{_span(view)} no object on its way is known to have changed.", _MARGIN)
