"""What the command line says: plain text, coloured when asked; marks and words carry the meaning, colour only repeats it.

Lines are wrapped at words to the width; commands, patches and names are never broken, so that they can be copied.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

from templates import words
from templates.words import Json, Rule, clean, cut, percent, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WIDTH = 110
TREES = 8
"""Rules that `why` draws; `routes` draws all."""

_RED, _GREEN, _YELLOW, _DIM, _BOLD = (Style.parse(s) for s in ("bold red", "green", "yellow", "dim", "bold"))
_VERDICTS = {
    "broken": ("✗", _RED),
    "degraded": ("✗", _RED),
    "unknown": ("?", _YELLOW),
    "at-risk": ("!", _YELLOW),
    "healthy": ("✓", _GREEN),
}
_SEVERITIES = {"error": ("✗", _RED), "warning": ("!", _YELLOW), "info": ("·", _DIM)}
_MARKS = {"✗": _RED, "✓": _GREEN, "–": _DIM}
_STATES = {"ok": ("✓", _GREEN), "bad": ("✗", _RED), "skipped": ("–", _DIM)}
_LABEL = 6


def _brush(colour: bool) -> Callable[[str, Style], str]:  # noqa: FBT001 - one switch, named by its only caller's keyword
    if colour:
        return lambda text, style: style.render(text, color_system=ColorSystem.STANDARD)
    return lambda text, _style: text


def _wrap(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        clean(text),
        width=max(width, 40),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _labelled(label: str, texts: Iterable[str], width: int, paint: Callable[[str, Style], str]) -> list[str]:
    """Paragraphs under a label in the left column, which only the first line carries."""
    indent = " " * (2 + _LABEL)
    lines = [line for text in texts for line in _wrap(text, width, indent)]
    if lines:
        lines[0] = f"  {paint(label.ljust(_LABEL), _BOLD)}{lines[0][len(indent) :]}"
    return lines


def _verbatim(text: str, indent: int) -> list[str]:
    return [" " * indent + line for line in clean(text, lines=True).strip("\n").split("\n")]


def _drawn(rule: Rule, everyone: Sequence[Json], width: int, paint: Callable[[str, Style], str], *, elsewhere: bool = False) -> list[str]:
    lines = words.tree(rule, everyone, width=width - 2, elsewhere=elsewhere)
    return [f"  {line.text}" + (f"  {paint(line.end, _MARKS[line.end[0]])}" if line.end else "") for line in lines]


def _origin(finding: Json) -> str:
    origin = finding.get("origin")
    if not origin:
        return ""
    return f" ({clean(origin['file'])}:{origin['line']})" if origin.get("line") else f" ({clean(origin['file'])})"


def _place(finding: Json, *, cluster: bool) -> str:
    where = " ".join(x for x in (clean(finding["resource"]), clean(finding["path"])) if x) + _origin(finding)
    of = f" in {clean(finding['cluster'])}" if cluster else ""
    same = f", also known as {clean(', '.join(finding['same_as']))}" if finding["same_as"] else ""
    return where + of + same


def _reason(finding: Json, said: str, width: int, paint: Callable[[str, Style], str], *, cluster: bool) -> list[str]:
    """Why, At and Fix of one finding: its code ends the sentence, or stands below where the line is full."""
    lines = _labelled("Why", [words.because(finding, said)], width, paint)
    name = words.cause_name(finding)
    if lines and cell_len(lines[-1]) + len(name) + 3 <= width:
        lines[-1] += f"   {paint(name, _DIM)}"
    else:
        lines.append(f"  {' ' * _LABEL}{paint(name, _DIM)}")
    lines.append(f"  {paint('At'.ljust(_LABEL), _BOLD)}{paint(_place(finding, cluster=cluster), _DIM)}")
    if finding["fix"]:
        lines += _labelled("Fix", [finding["fix"]], width, paint)
    if finding["patch"]:
        lines += _verbatim(finding["patch"], 4 + _LABEL)
    return lines


def then(view: Json, *, colour: bool, width: int = WIDTH) -> str:
    """A host as it stood at an instant of the last day: `why` of then, and what changed around it."""
    lead = _wrap(words.stood(view), width, "")
    if view["diagnosis"] is None:
        return "\n".join(lead)
    return "\n".join([*lead, "", why(view["diagnosis"], colour=colour, width=width), *_changed(view, width, _brush(colour), most=5)])


def changes(view: Json, *, colour: bool, width: int = WIDTH) -> str:
    """A host's last day: when it failed and how much, and every object that changed on its way."""
    paint = _brush(colour)
    lines = [f"{clean(view['host'])} · the last 24 hours"]
    for p in view["strip"]:
        if p["share"]:
            told = f"{percent(p['share'])} failed, {p['usable']} of {p['of']} endpoints usable"
            lines.append(f"  {paint('✗', _RED)} {words.clock(p['from'])} – {words.clock(p['until'])[11:]}  {told}")
        elif p["share"] is None:
            lines.append(f"  {paint('–', _DIM)} {words.clock(p['from'])} – {words.clock(p['until'])[11:]}  not known")
    if not any(p["share"] for p in view["strip"]):
        lines.append("  Nothing known failed.")
    return "\n".join([*lines, *_changed(view, width, paint, most=40)])


def last_changes(answer: Json, *, colour: bool, width: int = WIDTH) -> str:
    """What the objects on a host's way say of their last change, {"host", "changes"}, the newest first."""
    if not answer["changes"]:
        return (
            f"{clean(answer['host'])}: no object on its way says when it was written last (kubectl get needs --show-managed-fields for it)."
        )
    return "\n".join([clean(answer["host"]), *_changed(answer, width, _brush(colour), most=60)])


def _changed(view: Json, width: int, paint: Callable[[str, Style], str], most: int) -> list[str]:
    rows = view["changes"]
    if not rows:
        return ["", *_labelled("Since", ["No object on its way is known to have changed in the last 24 hours."], width, paint)]
    lines = ["", f"  {paint('Changed', _BOLD)} on its way, the newest first"]
    for r in rows[:most]:
        mark = paint("✗", _RED) if r["suspicious"] else " "
        said = f"{words.clock(r['at'])}  {words.change_of(r)}{' (suspicious)' if r['suspicious'] else ''}"
        head, *rest = _wrap(said, width, " " * 8)
        lines += [f"  {mark} {head.lstrip()}", *rest]
    return [*lines, f"    and {len(rows) - most} more"] if len(rows) > most else lines


def why(diagnosis: Json, *, colour: bool, width: int = WIDTH) -> str:
    """The diagnosis of one host: verdict, share, then Why and Fix, the route, Proof, See and Also."""
    paint = _brush(colour)
    host, verdict, share = clean(diagnosis["host"]), diagnosis["verdict"], diagnosis["failing_share"]
    found, findings = words.rules(diagnosis["routes"], diagnosis.get("alike") or ()), diagnosis["findings"]
    finding = words.lead(findings)
    mark, style = _VERDICTS[verdict]
    said = ""
    names = ", ".join(clean(c["name"]) for c in diagnosis["clusters"])
    port = f":{diagnosis['port']}" if diagnosis.get("port") else ""
    first = f"{paint(f'{mark} {verdict}', style)}  {host}{port} · {names}"
    match verdict:
        case "healthy":
            none = diagnosis.get("outside") or "no caller sees a rule of it, and nothing is wrong with it"
            seen = words.breadth(found) if found else clean(none)
            lines = [first, *_wrap(f"{seen}. {words.freshness(diagnosis['clusters'])}.", width, "  ")]
        case "unknown":
            lines = [first]
            for reason in words.unreadable(diagnosis["skipped"]):
                lines += _wrap(f"{reason}.", width, "  ")
        case _:
            said = words.impact(host, share, finding, found, findings)
            lines = [first, *_wrap(said, width, "  ")]
    lines[1:1] = _wrap(words.named(diagnosis), width, "  ")
    for sign, sentence in (*(("✗", f) for f in words.felt(diagnosis)), *words.seen(diagnosis)):
        head, *rest = _wrap(sentence, width, " " * 4)
        lines += [f"  {paint(sign, _MARKS[sign])} {head.lstrip()}", *rest]
    told = [f for f in findings if f["severity"] != "info"]
    several = len(diagnosis["clusters"]) > 1
    for one in told:
        lines += ["", *_reason(one, said, width, paint, cluster=several)]
    if not told and verdict in {"broken", "degraded"}:
        lines += ["", *_labelled("Why", ["No check names a cause; the route below shows what fails."], width, paint)]
    if verdict != "healthy":
        lines += list(_routes(found, width, paint, elsewhere=words.elsewhere(share, finding, found)))
    lines += _proof(told, width, paint)
    lines += _also(diagnosis, width, paint)
    return "\n".join(lines)


def runbook(told: Json, *, colour: bool, width: int = WIDTH) -> str:
    """The steps of a runbook: {"host", "verdict", "failing_share", "steps"}; a step is as in `messages.runbook`."""
    paint = _brush(colour)
    verdict = told["verdict"]
    mark, style = _VERDICTS[verdict]
    share = f" · {percent(told['failing_share'])} of its requests fail" if told["failing_share"] else ""
    lines = [f"{paint(f'{mark} {verdict}', style)}  {clean(told['host'])}{share}"]
    for s in told["steps"]:
        sign, of = _STATES[s["state"]]
        head = f"  {paint(sign, of)} {paint(clean(s['title']), _BOLD)}  {paint(clean(s['stands_for']), _DIM)}"
        lines += ["", head, *_wrap(s["said"], width, " " * 4)]
        if s["state"] != "skipped":
            for proof in s["proof"]:
                lines += _wrap(proof, width, " " * 8, " " * 6 + "· ")
            if s["command"]:
                lines.append(f"      {paint(clean(s['command']), _DIM)}")
    return "\n".join(lines)


def _routes(found: Sequence[Rule], width: int, paint: Callable[[str, Style], str], *, elsewhere: bool) -> Iterator[str]:
    everyone = [v for r in found for v in r.viewpoints]
    failing = [r for r in words.worst_first(found) if r.route["failing_share"] > 0]
    chosen = (failing or list(found))[:TREES]
    for rule in chosen:
        yield ""
        yield from _drawn(rule, everyone, width, paint, elsewhere=elsewhere)
    if chosen and (rest := words.other_rules(found, chosen)):
        yield ""
        yield f"  {rest}"


def _proof(findings: Sequence[Json], width: int, paint: Callable[[str, Style], str]) -> list[str]:
    evidence = list(dict.fromkeys(e for f in findings for e in f["evidence"]))
    commands = list(dict.fromkeys(c for f in findings for c in f["commands"]))
    lines = _labelled("Proof", evidence, width, paint)
    for i, command in enumerate(commands):
        shown = _verbatim(command, 2 + _LABEL)
        if i == 0:
            shown[0] = f"  {paint('See'.ljust(_LABEL), _BOLD)}{shown[0].lstrip()}"
        lines += shown
    return ["", *lines] if lines else []


def _also(diagnosis: Json, width: int, paint: Callable[[str, Style], str]) -> list[str]:
    notes = [f"{words.cause_name(f)}: {clean(f['message'])}" for f in diagnosis["findings"] if f["severity"] == "info"]
    if diagnosis["clean"]:
        notes.append(f"{words.amount(diagnosis['clean'], 'other check' if diagnosis['findings'] else 'check')} found nothing.")
    if spoken := words.spoken_for(diagnosis["clusters"]):
        notes.append(spoken)
    if diagnosis["verdict"] != "unknown" and (skipped := words.not_looked_at(diagnosis["skipped"])):
        notes.append(f"Not looked at: {skipped}.")
    lines = _labelled("Also", [" ".join(notes)], width, paint)
    return ["", *lines] if lines else []


def routes(routes: Sequence[Json], *, colour: bool, width: int = WIDTH) -> str:
    """Every rule as its callers' Envoys hold it, under the name of its host, and its port where the host has rules of several."""
    paint = _brush(colour)
    ports: dict[str, set[int]] = {}
    for route in routes:
        ports.setdefault(route["host"], set()).add(route["port"])
    hosts: dict[str, list[Json]] = {}
    for route in routes:
        hosts.setdefault(clean(route["host"]) + (f":{route['port']}" if len(ports[route["host"]]) > 1 else ""), []).append(route)
    lines: list[str] = []
    for host, theirs in hosts.items():
        found = words.rules(theirs)
        everyone = [v for r in found for v in r.viewpoints]
        lines += ["", paint(host, _BOLD)] if lines else [paint(host, _BOLD)]
        for i, rule in enumerate(found):
            lines += ([""] if i else []) + _drawn(rule, everyone, width, paint)
    return "\n".join(lines) if lines else "No proxy that was looked at holds a rule of it."


def sweep(sweep: Json, *, colour: bool, width: int = WIDTH) -> str:
    """Every finding of every host, the worst first, and what could not be looked at."""
    paint = _brush(colour)
    order = list(_SEVERITIES)
    lines: list[str] = []
    for f in sorted(sweep["findings"], key=lambda f: (order.index(f["severity"]), -f["failing_share"])):
        lines += [*_found(f, width, paint, cluster=len(sweep["clusters"]) > 1), ""]
    counts = {s: sum(f["severity"] == s for f in sweep["findings"]) for s in order}
    said = words.listed(words.amount(n, s) if s != "info" else f"{n} at info" for s, n in counts.items() if n) or "nothing found"
    lines.append(f"{words.amount(sweep['hosts'], 'host')} looked at, {said}. {words.freshness(sweep['clusters'])}.".replace(" .", ""))
    if spoken := words.spoken_for(sweep["clusters"]):
        lines += _wrap(spoken, width, "")
    if skipped := words.not_looked_at(sweep["skipped"], most=8):
        lines += _wrap(f"Not looked at: {skipped}.", width, "")
    return "\n".join(lines)


def _found(f: Json, width: int, paint: Callable[[str, Style], str], *, cluster: bool, gone: bool = False) -> list[str]:
    """A finding among others: share, host and cause, the sentence, the place, the repair; one that is gone needs no repair."""
    mark, style = ("✓", _GREEN) if gone else _SEVERITIES[f["severity"]]
    share = f"{percent(f['failing_share'])} of " if f["failing_share"] > 0 else ""
    lines = [f"{paint(mark, style)} {paint(share + short(f['host']), _BOLD)}  {words.cause_name(f)}", *_wrap(f["message"], width, "  ")]
    lines.append(f"  {paint(_place(f, cluster=cluster), _DIM)}")
    return lines + (_wrap(f"Fix: {f['fix']}", width, "  ") if f["fix"] and not gone else [])


def whatif(whatif: Json, *, colour: bool, width: int = WIDTH) -> str:
    """What a change would introduce and resolve: FINDINGs, and of each change {"object", "cluster", "does", "origin"}; "clusters", "unread"."""
    paint = _brush(colour)
    introduced, resolved = whatif["introduced"], whatif["resolved"]
    worst = words.lead(introduced)
    mark, style = _SEVERITIES[worst["severity"]] if worst else ("✓", _GREEN)
    several = len(whatif["clusters"]) > 1
    lines = [f"{paint(f'{mark} {words.weighed(introduced, resolved)}', style)}"]
    for title, findings, gone in (("Introduced", introduced, False), ("Resolved, or less than before", resolved, True)):
        if findings:
            lines += ["", paint(title, _BOLD)]
            lines += [
                line for i, f in enumerate(findings) for line in ([""] if i else []) + _found(f, width, paint, cluster=several, gone=gone)
            ]
    lines += ["", paint("Weighed, not applied", _BOLD)]
    for change in whatif["changes"]:
        lines.append(f"  {words.change_told(change, cluster=several)}{paint(_origin(change), _DIM)}")
    for note in whatif.get("notes", ()):
        lines += _wrap(note, width, "  ")
    return "\n".join(lines)


def github(whatif: Json) -> str:
    """What a change would introduce, as workflow commands that GitHub shows beside the lines of a pull request, the worst first; then one line."""
    lines = []
    changed = {(c["origin"]["file"], c["origin"]["line"]) for c in whatif["changes"]}
    for f in whatif["introduced"]:
        origin = f.get("origin")
        here = bool(origin) and (origin["file"], origin["line"]) in changed
        if not here:  # GitHub shows what stands in the lines of the pull request, and the object is none of them
            origin = _culprit(f, whatif["changes"])
        place = {"file": origin["file"], "line": origin["line"]} if origin and origin["file"] != "stdin" else {}
        share = f": {percent(f['failing_share'])} of {short(f['host'])}" if f["failing_share"] > 0 else ""
        properties = {**place, "title": f"{words.cause_name(f)}{share}"}
        given = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
        at = "" if here else f"At {_place(f, cluster=len(whatif['clusters']) > 1)}."
        said = " ".join(x for x in (clean(f["message"]), at, f"Fix: {clean(f['fix'])}" if f["fix"] else "") if x)
        lines.append(f"::{_ANNOTATIONS[f['severity']]} {given}::{said.replace('%', '%25')}")
    return "\n".join([*lines, words.weighed(whatif["introduced"], whatif["resolved"]) + "."])


def _culprit(finding: Json, changes: Sequence[Json]) -> Json | None:
    """Where the change is written that makes a finding elsewhere: of the object that it names, else of a kind that it names, else the first."""
    made = [c for c in changes if c["does"] != "left as it is"]
    named = " ".join((finding["message"], *finding["evidence"], finding["fix"] or ""))
    kinds = set(re.findall(r"\w+", named))
    likely = max(made, key=lambda c: (c["object"] in named, c["object"].partition(" ")[0] in kinds), default=None)
    return likely and likely["origin"]


_ANNOTATIONS = {"error": "error", "warning": "warning", "info": "notice"}


def _property(value: object) -> str:
    """A property of a workflow command, in which %, : and , would end it."""
    return clean(value).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def checks(rows: Sequence[Json], *, colour: bool, width: int = WIDTH) -> str:
    """The catalogue: {"id", "code", "decided_by", "cause", "implemented"} each; what is not built yet is said to be so."""
    paint = _brush(colour)
    wide = max((len(clean(r["id"])) for r in rows), default=0)
    lines: list[str] = []
    for row in rows:
        mark = paint("✓", _GREEN) if row["implemented"] else paint("–", _DIM)
        head = f"{clean(row['code']):<8} {clean(row['id']):<{wide}}  needs {clean(row['decided_by']):<10} "
        lines.append(f"{mark} {head} {cut(clean(row['cause']), max(width - len(head) - 3, 24))}".rstrip())
    return "\n".join([*lines, *_wrap(words.catalogued(rows), width, "")])


def explain(cause: Json, docstring: str | None, *, colour: bool, width: int = WIDTH) -> str:
    """One cause of the catalogue with the page that its check carries, and pages of others; "same_as" are other tools' codes of it."""
    paint = _brush(colour)
    lines = [paint(clean(f"{cause['code']} {cause['id']}"), _BOLD)]
    if not docstring:  # the page says it in whole sentences
        lines += [*_wrap(f"{cause['cause']}.", width, "  "), "", *_labelled("Fix", [cause["fix"]], width, paint)]
    lines += _labelled("See", [f"{words.seen_by(cause)}."], width, paint)
    if cause.get("no_patch"):
        lines += _labelled("Patch", [f"None: {cause['no_patch']}."], width, paint)
    page = _verbatim(textwrap.dedent(docstring), 2) if docstring else ["  meshwhy knows this cause but does not check for it yet."]
    return "\n".join([*lines, "", *page, "", *_labelled("More", words.references(cause), width, paint)])


def doctor(rows: Sequence[Json], *, colour: bool, width: int = WIDTH) -> str:
    """What works and what does not: {"what", "state": ok|bad|skipped, "text", "mend"} each."""
    paint = _brush(colour)
    wide = max((len(clean(r["what"])) for r in rows), default=0)
    lines: list[str] = []
    for row in rows:
        mark, style = _STATES[row["state"]]
        indent = " " * (wide + 4)
        said = _wrap(clean(row["text"]) or row["state"], width, indent)
        lines.append(f"{paint(mark, style)} {clean(row['what']):<{wide}}  {said[0].lstrip()}")
        lines += said[1:]
        if row["mend"] and row["state"] != "ok":
            lines += [f"{indent}{line.strip()}" for line in _verbatim(f"Mend: {row['mend']}", 0)]
    bad = sum(r["state"] == "bad" for r in rows)
    skipped = sum(r["state"] == "skipped" for r in rows)
    last = f"{words.amount(bad, 'thing')} to mend" if bad else "Everything that was looked at works"
    return "\n".join([*lines, f"{last}{f', {skipped} not looked at' if skipped else ''}."])


def alert_routes(routed: Json, *, colour: bool, width: int = WIDTH) -> str:
    """Where an alert is told and why: {"receivers": [{"place", "mention"}], "quiet": {"why", "until"} or None, "team", "escalation":
    [{"after_s", "to": id or "", "words"}], "because": sentences}.
    """  # noqa: D205 - the form is part of the sentence
    paint = _brush(colour)
    quiet = routed["quiet"]
    lines: list[str] = []
    if quiet is not None:
        until = f" until {words.clock(quiet['until'])}" if quiet["until"] is not None else ""
        lines += [f"{paint('–', _DIM)} not told{until}: {clean(quiet['why'])}"]
    for receiver in [] if quiet else routed["receivers"]:
        direct = "" if receiver["place"].startswith(("#", "C", "G")) else " (a direct message)"
        mention = f", mentioning {words.listed(receiver['mention'])}" if receiver["mention"] else ""
        lines.append(f"{paint('→', _GREEN)} {clean(receiver['place'])}{direct}{mention}")
    if routed["team"]:
        lines += _labelled("Team", [routed["team"]], width, paint)
    steps = [f"{words.duration(s['after_s'])} later {' '.join(w for w in (s['to'], s['words']) if w)}" for s in routed["escalation"]]
    if steps:
        lines += _labelled("Then", [f"while nobody sees to it: {words.listed(steps)}."], width, paint)
    return "\n".join([*lines, *_labelled("Why", routed["because"], width, paint)])


def audit(rows: Sequence[Json], *, colour: bool, width: int = WIDTH) -> str:
    """What people did, the newest first: {"at", "by", "verb", "via", "channel", "about": names, "result", "why"} each."""
    paint = _brush(colour)
    lines: list[str] = []
    for row in rows:
        mark, style = ("✓", _GREEN) if row["result"] == "done" else ("✗", _RED) if row["result"] in {"denied", "stranger"} else ("–", _DIM)
        why = f" ({row['why']})" if row["why"] else ""
        head = f"{words.clock(row['at'])} {row['by'] or 'meshwhy'} {row['verb']} {row['result']}{why}"
        lines.append(f"{paint(mark, style)} {clean(head)}")
        where = f"by {row['via']} in {row['channel']}" if row["channel"] else ""
        lines += _wrap(", ".join(x for x in (*map(clean, row["about"]), where) if x), width, "    ")
    return "\n".join(lines) or "Nothing is on record."


def unknown_host(word: str, candidates: Sequence[str], ambiguous: bool = False) -> str:  # noqa: FBT001, FBT002 - a fact of the answer
    """No host of this name, or several."""
    return words.did_you_mean(word, candidates, ambiguous=ambiguous)
