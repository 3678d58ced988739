"""A host's route as a picture: who calls, the rule, each destination with its share and its endpoints.

A broken branch is told by words, by dashes and by a crossed circle; colour only repeats it. The fonts are bundled, so the same routes give the same
bytes everywhere. Names are set in a font of fixed width, so they can be measured without a font library.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import resvg_py
from rich.cells import cell_len, chop_cells

from templates import words
from templates.words import Branch, Json, Rule, clean, cut, percent, short

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 1200
RULES = 3
CARDS = 9
"""Destinations drawn in all; the rest of each rule is folded into one card."""

_FONTS = sorted(str(f) for f in (Path(__file__).parent / "fonts").glob("*.ttf"))
_EM = 0.602  # width of a character of DejaVu Sans Mono
INK, GREY, LINE, BLUE, RED, GREEN, PAPER = "#1f2430", "#5b6472", "#c9ced6", "#4a5a78", "#b3261e", "#1a7344", "#ffffff"
_LEFT, _CALLER, _RULE, _RULE_WIDTH, _CARD, _CARD_WIDTH = 36, 232, 330, 292, 786, 378
_CARD_HEIGHT, _GAP, _TOP = 66, 14, 162
_VERDICTS = {
    "broken": ("broken", RED),
    "degraded": ("degraded", RED),
    "at-risk": ("at risk", "#8a5a00"),
    "healthy": ("healthy", GREEN),
    "unknown": ("unknown", GREY),
}


class _Row(NamedTuple):
    """One rule with what is drawn of it, and where: `top` and `height` of its strip."""

    rule: Rule
    caller: str
    branches: list[Branch]
    folded: str
    top: float
    height: float

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


class Font(NamedTuple):
    """How a text is set; `mono` for names, whose width must be known."""

    size: int
    colour: str = INK
    bold: bool = False
    mono: bool = True


def text(x: float, y: float, said: str, font: Font) -> str:
    """A line of text from a point of its baseline; what is no text in SVG is escaped."""
    family = "DejaVu Sans Mono" if font.mono else "DejaVu Sans"
    weight = ' font-weight="bold"' if font.bold else ""
    style = f'font-family="{family}" font-size="{font.size}"{weight} fill="{font.colour}"'
    return f'<text x="{x:g}" y="{y:g}" {style} xml:space="preserve">{html.escape(clean(said))}</text>'


def _fold(text: str, cells: int, most: int) -> list[str]:
    """The text on at most `most` lines of `cells` columns, broken after a space or a separator where one is near."""
    lines: list[str] = []
    rest = clean(text)
    while rest and len(lines) < most:
        if cell_len(rest) <= cells:
            return [*lines, rest]
        head = chop_cells(rest[: cells * 8], cells)[0]
        near = max(head.rfind(c) for c in " /.-,=(")
        if near >= len(head) // 2:
            head = head[: near if head[near] in " (" else near + 1]
        lines.append(head.strip())
        rest = rest[len(head) :].lstrip()
    if rest and lines:
        lines[-1] = chop_cells(lines[-1], cells - 1)[0] + "…"
    return lines


def _name(x: float, y: float, lines: Sequence[str], font: Font) -> list[str]:
    """Lines of a name from baseline `y` downward."""
    return [text(x, y + i * font.size * 1.3, line, font) for i, line in enumerate(lines)]


def _fit(text: str, width: float, font: Font, most: int = 1) -> list[str]:
    return _fold(text, int(width / (font.size * _EM)), most)


def _cross(x: float, y: float, radius: float = 15) -> str:
    arm = radius * 0.45
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{PAPER}" stroke="{RED}" stroke-width="3"/>'
        f'<path d="M{x - arm:g} {y - arm:g}L{x + arm:g} {y + arm:g}M{x + arm:g} {y - arm:g}L{x - arm:g} {y + arm:g}" stroke="{RED}" stroke-width="4"/>'
    )


def _tick(x: float, y: float) -> str:
    return f'<path d="M{x - 7:g} {y:g}L{x - 2:g} {y + 6:g}L{x + 8:g} {y - 7:g}" fill="none" stroke="{GREEN}" stroke-width="4"/>'


def _box(x: float, y: float, width: float, height: float, style: str = f'fill="#f7f8fa" stroke="{LINE}" stroke-width="2"') -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9" {style}/>'


def _lay(found: Sequence[Rule]) -> list[_Row]:
    """The rules that are drawn, under each other: those that fail first, each with its share of the cards."""
    everyone = [v for r in found for v in r.viewpoints]
    chosen = words.worst_first(found)[:RULES]
    rows: list[_Row] = []
    top = float(_TOP)
    for rule in chosen:
        kept, folded = words.shown(words.branches(rule.route), max(CARDS // len(chosen), 2))
        cards = len(kept) + bool(folded)
        height = max(cards * (_CARD_HEIGHT + _GAP) - _GAP, _rule_lines(rule.route)[2])
        rows.append(_Row(rule, words.caller_name(rule.viewpoints, everyone), kept, folded, top, height))
        top += height + 26
    return rows


def _card(x: float, y: float, branch: Branch, *, sure: bool) -> list[str]:
    fails, works = branch.state == "fails", branch.state == "works" and sure
    broken = f'fill="#fdf3f2" stroke="{RED}" stroke-width="3" stroke-dasharray="9 6"'
    out = [_box(x, y, _CARD_WIDTH, _CARD_HEIGHT, broken) if fails else _box(x, y, _CARD_WIDTH, _CARD_HEIGHT)]
    share = percent(branch.share)
    big = Font(20, RED if fails else INK, bold=True)
    right = x + _CARD_WIDTH - 18 - len(share) * big.size * _EM
    out.append(text(right, y + 29, share, big))
    label = Font(17, bold=True)
    out += _name(x + 18, y + 28, _fit(branch.label, right - x - 30, label), label)
    told = Font(15, RED if fails else GREEN if works else GREY, bold=fails)
    left = x + 18
    if fails or works:
        out.append(_cross(x + 27, y + 48, 9) if fails else _tick(x + 27, y + 47))
        left += 24
    said = ", ".join(t for t in (branch.stands, branch.outcome) if t)
    return [*out, *_name(left, y + 53, _fit(said, x + _CARD_WIDTH - 14 - left, told), told)]


_EDGES = {"fails": (RED, ' stroke-dasharray="12 8"'), "idle": (GREY, ' stroke-dasharray="2 6"'), "works": (BLUE, "")}


def _edge(start: float, end: float, branch: Branch) -> str:
    """The way to a destination: as wide as its share; dashed and crossed where calls fail, dotted where none goes."""
    x1, x2 = _RULE + _RULE_WIDTH, _CARD
    colour, dash = _EDGES[branch.state]
    way = _curve(x1, start, x2, end)
    path = f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{2 + 8 * branch.share:.2f}"{dash}/>'
    return path + (_cross(x2 - 30, end, 14) if branch.state == "fails" else "")


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (x2 - x1) * 0.45
    return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend - 30:g} {y2:g} {x2 - 30:g} {y2:g}L{x2:g} {y2:g}"


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<path d="{_curve(x1, y1, x2 - 8, y2)}" fill="none" stroke="{BLUE}" stroke-width="3"/>'
        f'<path d="M{x2 - 13:g} {y2 - 8:g}L{x2 - 1:g} {y2:g}L{x2 - 13:g} {y2 + 8:g}Z" fill="{BLUE}"/>'
    )


_RULE_NAME, _MATCH = Font(15, bold=True), Font(14, GREY)


def _rule_lines(route: Json) -> tuple[list[str], list[str], float]:
    """The rule's name and match as lines, and the height of their box."""
    asked = words.asked(route)
    names = _fit(words.rule_name(route), _RULE_WIDTH - 32, _RULE_NAME, 3)
    asks = _fit(asked if asked.startswith("every ") else f"match: {asked}", _RULE_WIDTH - 32, _MATCH, 2)
    return names, asks, 30 + len(names) * 19.5 + len(asks) * 18.2


def _rule_box(row: _Row) -> list[str]:
    names, asks, height = _rule_lines(row.rule.route)
    top = row.middle - height / 2
    return [
        _box(_RULE, top, _RULE_WIDTH, height),
        *_name(_RULE + 16, top + 28, names, _RULE_NAME),
        *_name(_RULE + 16, top + 30 + len(names) * 19.5, asks, _MATCH),
    ]


def _callers(rows: Sequence[_Row]) -> list[str]:
    """One box for neighbouring rules that the same callers use, with an arrow to each."""
    out: list[str] = []
    font = Font(15)
    start = 0
    while start < len(rows):
        end = start
        while end + 1 < len(rows) and rows[end + 1].caller == rows[start].caller:
            end += 1
        middle = (rows[start].middle + rows[end].middle) / 2
        lines = _fit(rows[start].caller, _CALLER - 24, font, 4)
        height = 30 + len(lines) * 19.5
        out += [_arrow(_LEFT + _CALLER, middle, _RULE, row.middle) for row in rows[start : end + 1]]
        out.append(_box(_LEFT, middle - height / 2, _CALLER, height))
        out += _name(_LEFT + 14, middle - height / 2 + 30, lines, font)
        start = end + 1
    return out


def _drawn(row: _Row, *, sure: bool) -> list[str]:
    step = _CARD_HEIGHT + _GAP
    top = row.middle - ((len(row.branches) + bool(row.folded)) * step - _GAP) / 2
    places = [(top + i * step, branch) for i, branch in enumerate(row.branches)]
    # Broken edges last, so that none of them is hidden.
    edges = [_edge(row.middle, y + _CARD_HEIGHT / 2, b) for y, b in sorted(places, key=lambda p: p[1].state == "fails")]
    cards = [part for y, branch in places for part in _card(_CARD, y, branch, sure=sure)]
    if row.folded:
        y, font = top + len(row.branches) * step, Font(15, GREY)
        cards += [_box(_CARD + 8, y + 8, _CARD_WIDTH - 8, _CARD_HEIGHT - 8), _box(_CARD, y, _CARD_WIDTH - 8, _CARD_HEIGHT - 8)]
        cards += _name(_CARD + 18, y + 26, _fit(row.folded, _CARD_WIDTH - 44, font, 2), font)
    return [*edges, *_rule_box(row), *cards]


def _subtitle(found: Sequence[Rule], verdict: str) -> str:
    worst = words.worst_first(found)[0]
    share = worst.route["failing_share"]
    if share > 0:
        why = words.lack(worst.route) or words.branches(worst.route)[0].outcome
        which = f" of {words.rule_name(worst.route).partition(' of ')[0]}" if len(found) > 1 else ""
        return f"{percent(share)} of the requests{which} fail: {why}"
    if verdict in {"broken", "degraded"}:
        return "Calls fail for a reason that routes and endpoints do not show"
    return "Every destination has a usable endpoint" if verdict == "healthy" else "No request fails for want of an endpoint"


def title(host: str, verdict: str) -> list[str]:
    """The first line: a verdict in its frame, and the host."""
    told, colour = _VERDICTS.get(verdict, (clean(verdict), GREY))
    pill = len(told) * 11 + 60
    font = Font(17, colour, bold=True)
    out = [_box(_LEFT, 30, pill, 36, f'fill="{PAPER}" stroke="{colour}" stroke-width="3"')]
    if verdict in {"broken", "degraded"}:
        out.append(_cross(_LEFT + 24, 48, 10))
    else:
        out.append(_tick(_LEFT + 24, 48) if verdict == "healthy" else text(_LEFT + 19, 54, "?" if verdict == "unknown" else "!", font))
    out.append(text(_LEFT + 44, 54, told, font))
    big = Font(24, bold=True)
    return out + _name(_LEFT + pill + 18, 56, _fit(short(host), WIDTH - 2 * _LEFT - pill - 18, big), big)


def svg(host: str, routes: Sequence[Json], *, verdict: str) -> str:
    """The picture as SVG, 1,200 wide and as high as it needs; the same bytes for the same routes."""
    found = words.rules(routes)
    rows = _lay(found)
    out = title(host, verdict)
    small = Font(14, GREY, mono=False)
    if rows:
        bad = verdict in {"broken", "degraded"}
        sure = not bad or any(r.rule.route["failing_share"] > 0 for r in rows)
        out.append(text(_LEFT, 104, cut(_subtitle(found, verdict), 104), Font(18, RED if bad else INK, mono=False)))
        out += [text(x, 144, t, small) for x, t in ((_LEFT, "who calls"), (_RULE, "rule"), (_CARD, "destination, endpoints and share"))]
        out += _callers(rows)
        for row in rows:
            out += _drawn(row, sure=sure)
        height = rows[-1].top + rows[-1].height + 30
        if rest := words.other_rules(found, [r.rule for r in rows]):
            out.append(text(_LEFT, height, rest, Font(16, GREY, mono=False)))
            height += 30
    else:
        out.append(text(_LEFT, 108, "No proxy that was looked at holds a rule of this host.", Font(18, GREY, mono=False)))
        height = 140.0
    size = f'width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="{PAPER}"/>{"".join(out)}</svg>'


def png(svg: str) -> bytes:
    """The picture as PNG, with the bundled fonts only; ValueError for what is no SVG. Takes some tens of milliseconds: call it in an executor."""
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, font_files=_FONTS))


def alt(host: str, routes: Sequence[Json]) -> str:
    """The picture in words, at most 300 characters: the rule that fails most, and each of its destinations."""
    found = words.rules(routes)
    if not found:
        return f"No proxy that was looked at holds a rule of {cut(short(host), 120)}."
    rule = words.worst_first(found)[0]
    everyone = [v for r in found for v in r.viewpoints]
    kept, folded = words.shown(words.branches(rule.route), 4)
    kept.sort(key=lambda b: b.state != "fails")
    told = [
        f"{percent(b.share)} to {b.label}: {', '.join(t for t in (b.stands, b.outcome) if t)}{', fails' if b.state == 'fails' else ''}"
        for b in kept
    ]
    who = words.caller_name(rule.viewpoints, everyone)
    return cut(f"{cut(short(host), 80)}, {who}, {words.rule_name(rule.route)}. {'; '.join([*told, *([folded] if folded else [])])}.", 300)
