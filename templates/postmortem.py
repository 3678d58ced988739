"""A post-mortem as far as it is known: a Markdown file with what failed, why, what ended it and who did what; the rest is left open for people.

Text from clusters and people is data: it is escaped, so that it can neither break a table nor become a link. People are told by their Slack ids,
which a file cannot turn into names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from templates import words
from templates.words import clean, clock, cut, duration, percent, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from templates.words import Json

_SIGNS = re.compile(r"([\\`*_{}\[\]<>|#~])")
_ID = re.compile(r"[USW][A-Z0-9]{2,24}")
_MOST = 60  # changes of objects that are listed, the newest
_FEW_S = 1.0  # what belongs to the look in which it ended is told to tenths of a second


def markdown(facts: Json) -> str:
    """The file.

    {"title", "finding": FINDING, "page": of the catalogue, "others": hosts, "cluster", "share", "began", "fired", "acked": epoch s or None, "acked_by",
    "ended", "team", "channel", "well_by": sentences, "closed": {"by", "at", "why"} or None, "lines": [{"at", "reason", "text", "by", "to"}], "view": as
    `messages.changes` or None, "looked": lines of the runbook}.
    """
    parts = [
        *_head(facts),
        *_cause(facts),
        *_changed(facts),
        *_end(facts),
        *_timeline(facts),
        *_people(facts),
        *_share(facts),
        *_looked(facts),
        *_open(),
    ]
    return "\n".join(parts) + "\n"


def _md(text: object) -> str:
    return _SIGNS.sub(r"\\\1", clean(text)).strip()


def _code(text: object) -> str:
    return f"`{clean(text).replace('`', 'ʼ')}`"


def _when(when: float) -> str:
    return f"{clock(when)[:10]} {words.second(when)} UTC"


def _minute(when: float) -> str:
    return clock(when)[11:16]


def _head(facts: Json) -> Iterator[str]:
    finding, acked = facts["finding"], facts["acked"]
    yield f"# Post-mortem (draft): {_md(facts['title'])}"
    yield ""
    yield f"Written by meshwhy on {clock(facts['ended'])} from what it saw. What only people know is left open at the end."
    yield ""
    yield "| | |"
    yield "|---|---|"
    where = f"{_md(short(finding['host']))} in {_md(facts['cluster'])}" if finding["host"] else _md(facts["cluster"])
    more = f", and {words.amount(len(facts['others']), 'host')} more" if facts["others"] else ""
    yield f"| What | {where}{more} |"
    lost = f"{percent(facts['share'])} of the requests, at the worst" if facts["share"] else "not known"
    yield f"| How much | {lost} |"
    yield f"| Cause | {_md(words.cause_name(finding))} |"
    yield f"| Whose | {_md(facts['team'] or facts['channel'] or 'nobody is named')} |"
    yield f"| Began | {_when(facts['began'])} |"
    yield f"| Told | {_when(facts['fired'])} |"
    seen_to = (
        f"{_when(acked)} by @{_md(facts['acked_by'])}, after {duration(max(acked - facts['fired'], 0))}"
        if acked is not None
        else "by nobody"
    )
    yield f"| Seen to | {seen_to} |"
    yield f"| Well again | {_when(facts['ended'])}, {duration(facts['ended'] - facts['fired'])} after it was told, {duration(facts['ended'] - facts['began'])} after it began |"
    yield ""


def _cause(facts: Json) -> Iterator[str]:
    finding = facts["finding"]
    yield "## What failed, and why"
    yield ""
    yield _md(finding["message"])
    yield ""
    place = " ".join(p for p in (finding["resource"], finding["path"]) if p)
    yield f"It stands in {_code(place)}."
    if finding["evidence"]:
        yield ""
        yield "Proof:"
        yield ""
        yield from (f"* {_md(e)}" for e in finding["evidence"])
    if finding["commands"]:
        yield ""
        yield "The same by hand:"
        yield ""
        yield "```"
        yield from (clean(c, lines=True) for c in finding["commands"])
        yield "```"
    if mechanism := _paragraph(facts["page"]):
        yield ""
        yield f"How such a fault comes about: {_md(mechanism)}"
    if facts["others"]:
        yield ""
        yield f"The same fault hit {words.listed([_md(short(h)) for h in facts['others']], most=10)}."
    yield ""


def _paragraph(page: str) -> str:
    """The second paragraph of a cause's page: how it comes about."""
    found = [" ".join(p.split()) for p in page.split("\n\n")]
    return found[1] if len(found) > 1 and not found[1].startswith("How to ") else ""


def _changed(facts: Json) -> Iterator[str]:
    rows = [r for r in (facts["view"] or {}).get("changes", ()) if r["at"] <= facts["ended"] + _FEW_S]
    yield "## What changed"
    yield ""
    if not rows:
        yield "No object on its way was seen to change."
    for r in rows[:_MOST]:
        mark = "**suspicious:** " if r["suspicious"] else ""
        yield f"* {_when(r['at'])}: {mark}{_md(words.change_of(r))}"
    if len(rows) > _MOST:
        yield f"* and {len(rows) - _MOST} more before these"
    yield ""


def _end(facts: Json) -> Iterator[str]:
    yield "## What ended it"
    yield ""
    closed = facts["closed"]
    if closed is not None:
        yield f"@{_md(closed['by'])} called it done at {_when(closed['at'])}: {_md(closed['why'])}"
    if facts["well_by"]:
        yield from (f"* {_md(w)}" for w in facts["well_by"])
    elif closed is None:
        yield "No change was seen that would explain it."
    yield ""


def _timeline(facts: Json) -> Iterator[str]:
    """Everything that happened, in order: what the thread said, how the share moved, and which objects changed."""
    told = [(line["at"], _said(line), f"@{_md(line['by'])}" if line["by"] else "meshwhy") for line in facts["lines"]]
    view = facts["view"]
    pieces = [p for p in view["strip"] if p["share"] is not None and view["from"] < p["from"] <= facts["ended"] + _FEW_S] if view else []
    told += [
        (
            p["from"],
            f"{percent(p['share']) if p['share'] else 'nothing'} fails, {p['usable']} of {p['of']} endpoints usable",
            "seen in the look",
        )
        for p in pieces
    ]
    told += [
        (r["at"], _md(words.change_of(r)), "the object")
        for r in (view["changes"][:_MOST] if view else ())
        if r["at"] <= facts["ended"] + _FEW_S
    ]
    yield "## Timeline (UTC)"
    yield ""
    yield "| When | What | By, or seen in |"
    yield "|---|---|---|"
    yield from (f"| {_when(at).removesuffix(' UTC')} | {what} | {by} |" for at, what, by in sorted(told, key=lambda t: t[0]))
    yield ""


def _said(line: Json) -> str:
    to = f" to {'@' if _ID.fullmatch(line['to']) else ''}{_md(line['to'])}" if line["to"] else ""
    text = f": {_md(line['text'])}" if line["text"] else ""
    return f"{_md(line['reason'])}{to}{text}"


def _people(facts: Json) -> Iterator[str]:
    done: dict[str, list[str]] = {}
    for line in facts["lines"]:
        if line["by"]:
            done.setdefault(line["by"], []).append(f"{_md(line['reason'])} ({_minute(line['at'])})")
    yield "## Who did what"
    yield ""
    yield from (f"* @{_md(who)}: {', '.join(deeds)}" for who, deeds in done.items())
    if not done:
        yield "Nobody did anything about it in Slack."
    yield ""


def _share(facts: Json) -> Iterator[str]:
    yield "## The share that failed"
    yield ""
    if facts["view"] is None:
        yield "What happened to it before and after is not kept."
    else:
        yield "The picture share.png, in the same thread, draws it. In words:"
        yield ""
        for p in facts["view"]["strip"]:
            span = f"{_minute(p['from'])} to {_minute(p['until'])}"
            yield f"* {span}: " + (
                "not known" if p["share"] is None else f"{percent(p['share'])}, {p['usable']} of {p['of']} endpoints usable"
            )
    yield ""


def _looked(facts: Json) -> Iterator[str]:
    if facts["looked"]:
        yield "## What was looked at"
        yield ""
        yield from (f"* {_md(cut(line, 400))}" for line in facts["looked"])
        yield ""


def _open() -> Sequence[str]:
    return (
        "## Left open",
        "",
        "* Who was harmed, and how much:",
        "* Why it was not caught before it was applied (`meshwhy whatif` weighs a change):",
        "* What went well, and where we had luck:",
        "* What we change, who does it, until when:",
    )
