"""What Slack, the terminal and the picture say alike: shares, names, who is hit, and the route as a tree.

Everything here is plain text, not escaped for anything, and free of control and bidirectional characters: each surface escapes once, for itself.
Arguments are the JSON contract's objects (ROUTE, FINDING, viewpoint) as plain builtins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len, split_graphemes

Json = Mapping[str, Any]

# Marks that turn the reading direction, and characters nobody sees: a name that carries them says something else than it shows.
_HIDDEN = re.compile("[\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]")
_SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])\s+")
_SERVICE = re.compile(r"^([^.]+\.[^.]+)\.svc\.[^:]+")
_STEP = re.compile(r"(?:(http|tcp|tls|rules)\b[^\[]*)?\[(\d+)\]")

BRANCHES = 12
"""Destinations that a tree shows before it folds the rest into one line."""

DEFAULT_ROUTE = "the default route"


def clean(text: object, *, lines: bool = False) -> str:
    """The text without control, hidden and bidirectional characters; line breaks become spaces unless `lines`."""
    out = str(text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    if not out.isascii():
        out = _HIDDEN.sub("", out)
    out = _CONTROL.sub("", out)
    return out if lines else " ".join(out.split())


def units(text: str) -> int:
    """The text's length as Slack's clients count it: UTF-16 code units, so an emoji counts twice."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(text: str, limit: int) -> str:
    """At most `limit` UTF-16 units of the text, ended by … where something went; never half a grapheme."""
    if units(text) <= limit:
        return text
    if text.isascii():
        return text[: max(limit - 1, 0)].rstrip() + "…"
    used = end = flags = 0
    for start, stop, _cells in split_graphemes(text[: limit + 1], "latest")[0]:
        used += units(text[start:stop])
        if used > limit - 1:
            # A flag is two indicators that the splitter keeps apart: one alone would show as a letter.
            return text[: end - 1 if flags % 2 and _FLAG.match(text, start) else end].rstrip() + "…"
        flags = flags + 1 if _FLAG.match(text, start) else 0
        end = stop
    return text[:end].rstrip() + "…"


def one_line(listed: str) -> str:
    """A list of lines that begin with dashes as one line."""
    return "; ".join(found for line in listed.splitlines() if (found := line.strip().removeprefix("-").strip()))


def first_sentence(text: str) -> str:
    """The first sentence without its full stop."""
    return _SENTENCE_END.split(clean(text), maxsplit=1)[0].rstrip(".")


def percent(share: float) -> str:
    """A share of requests (0 to 1) as `95 %`; what lies between none and all never reads as none or all."""
    points = round(share * 100)
    if points <= 0:
        return "<1 %" if share > 0 else "0 %"
    if points >= 100:
        return ">99 %" if share < 1 else "100 %"
    return f"{points} %"


def amount(count: int, noun: str) -> str:
    """`1 endpoint`, `2 endpoints`, `2 entries`."""
    if count != 1:
        noun = noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeou" else noun + "s"
    return f"{count:,} {noun}"


def listed(items: Iterable[str], *, last: str = "and", most: int = 5) -> str:
    """`a, b and c`; more than `most` become `a, b and 7 more`."""
    names = list(items)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}" if names else ""


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h`, `3 h 20 min`, `2 days`."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return amount(round(hours / 24), "day")


def age(seconds: float) -> str:
    """How old something is: `0.4 s old`, `12 min old`."""
    return f"{seconds:.1f} s old" if 0 <= seconds < 10 else f"{duration(seconds)} old"


def stood(view: Json) -> str:
    """How a host stood at an instant of its past: how much failed, from when until when, and why; or why that is not known."""
    at, told = clock(view["at"]), view["diagnosis"]

    def near(when: float) -> str:
        return clock(when)[11:16] if clock(when)[:10] == at[:10] else clock(when)

    if told is None:
        return f"At {at} it is not known how it stood. {view['unknown']}"
    since, until = view["since"], view["until"]
    span = f"from {near(since)} until {near(until)}" if until is not None else f"since {near(since)}{', and still' * view['still']}"
    if view["lost"]:
        span += f"; {listed(map(clean, view['lost']))} could not be read then, and is told as it was last"
    failing = told["failing_share"]
    finding = lead(told["findings"])
    why = f": {first_sentence(finding['message'])}" if finding is not None else ""
    if failing > 0:
        return f"At {at} {percent(failing)} of its requests failed ({span}){why}."
    if told.get("outside"):
        return f"At {at} it was in no mesh ({span})."
    return f"At {at} nothing failed ({span}){f', and this would{why}' if why else ''}."


def change_of(row: Json) -> str:
    """One object's change: what became of it, where and by whom."""
    by = f" by {clean(row['by'])}" if row["by"] else ""
    return f"{clean(row['resource'])} {clean(row['what'])}{by} · {clean(row['cluster'])}"


def clock(epoch: float) -> str:
    """An instant (seconds since the epoch) for where no viewer's time zone is known."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M UTC")


def second(epoch: float) -> str:
    """The time of day of an instant, to the second, in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%H:%M:%S")


def short(host: str) -> str:
    """The host as one would type it: `destination.mynamespace` for a service's full name, any other as it is."""
    host = clean(host)
    return _SERVICE.sub(r"\1", host)


# -- who ------------------------------------------------------------------------------------------------------------------------------


def _who(viewpoint: Json) -> tuple[str, str, str, str]:
    return viewpoint["cluster"], viewpoint["kind"], viewpoint["namespace"], viewpoint.get("selector") or ""


def whom(viewpoints: Sequence[Json], everyone: Sequence[Json] = ()) -> str:
    """Whom something holds for: `every caller in the mesh`, `every caller in east`, `callers in web only`, `gateway edge (app=public)`.

    `everyone` are the viewpoints of all callers that see the host; without it nobody is called everyone. Empty when no viewpoint is known.
    """
    hit = {_who(v) for v in viewpoints}
    every = {_who(v) for v in everyone}
    if not hit:
        return ""
    clusters = sorted({v[0] for v in hit})
    if every and hit >= every:
        return "every caller in the mesh"
    if every and hit >= {v for v in every if v[0] in clusters}:
        return f"every caller in {listed(map(clean, clusters))}"
    part = listed(_groups(hit), most=4)
    where = f" of {listed(map(clean, clusters))}" if every and len({v[0] for v in every}) > 1 else ""
    return f"{part}{where} only"


_PLACES = {"kubernetes.io/hostname": "node", "topology.kubernetes.io/zone": "zone", "topology.kubernetes.io/region": "region"}
_SELECTED = re.compile(r"([^,=\s]+)(?:=([^,]*)| in \(([^)]*)\))")


def placed(selector: str) -> str:
    """A label selector in words where it says where pods run: `app=web, on nodes a and b`, `in zone eu-1`."""
    if len(selector) > 1000 or not any(key in selector for key in _PLACES):
        return selector
    told = []
    for key, one, several in _SELECTED.findall(selector):
        place, where = _PLACES.get(key), [one] if one else several.split(",")
        said = f"{place}{'s'[: len(where) != 1]} {listed(where, most=3)}"
        told.append(f"{key}={one}" if place is None else f"{'on' if place == 'node' else 'in'} {said}")
    return ", ".join(told)


def looked_at(viewpoints: Sequence[Json]) -> str:
    """The pods whose own proxies showed something: `pod web-7f in shop`; of others it says nothing, and empty where it holds for more than pods."""
    if not viewpoints or not all(v.get("pod") for v in viewpoints):
        return ""
    return listed([f"pod {cut(clean(v['pod']), 60)} in {clean(v['namespace'])}" for v in viewpoints], most=3)


def _groups(hit: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Callers by kind: namespaces of sidecars in one phrase, every gateway and waypoint by itself."""
    names: dict[str, list[str]] = {}
    for _cluster, kind, namespace, selector in sorted(hit):
        name = clean(f"{namespace} ({placed(selector)})" if selector else namespace)
        if name not in names.setdefault(kind, []):
            names[kind].append(name)
    for kind, phrase in (("sidecar", "callers in {}"), ("none", "pods without sidecar in {}"), ("ztunnel", "ambient pods in {}")):
        if kind in names:
            yield phrase.format(listed((cut(n, 60) for n in names[kind]), most=4))
    for kind in ("gateway", "waypoint"):
        if found := names.get(kind):
            yield f"{kind if len(found) == 1 else kind + 's'} {listed((cut(n, 60) for n in found), most=4)}"


def caller_name(viewpoints: Sequence[Json], everyone: Sequence[Json] = ()) -> str:
    """Who calls, where a tree or a picture starts: `caller (any namespace)`, `caller in web`, `gateway edge (app=public)`."""
    who = whom(viewpoints, everyone)
    if who.startswith("every caller"):
        if any(v["kind"] not in {"gateway", "waypoint"} for v in viewpoints):
            where = who.removeprefix("every caller in ")
            return "caller (any namespace)" if where == "the mesh" else f"caller (any namespace of {where})"
        who = listed(_groups({_who(v) for v in viewpoints}), most=4)
    return re.sub(r"^callers in ", "caller in ", who.removesuffix(" only")) or "caller"


# -- what a route does ----------------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """One rule and everybody for whom it is the same."""

    route: Json
    viewpoints: tuple[Json, ...]


class Branch(NamedTuple):
    """One destination of a rule in words: whom it leads to, its share, what stands behind it, and the outcome of a call."""

    label: str
    share: float
    stands: str
    state: Literal["works", "fails", "idle"]
    outcome: str


def rules(routes: Iterable[Json], alike: Iterable[Sequence[Json]] = ()) -> list[Rule]:
    """Routes that differ only in who sees them, put together, in the order of their first occurrence.

    `alike` are callers that hold the same, of whom only the first stands in the routes.
    """
    others = {_who(first): (first, *rest) for first, *rest in alike}
    found: dict[str, tuple[Json, list[Json]]] = {}
    for route in routes:
        rest = dict(route)
        viewpoint = rest.pop("viewpoint")
        found.setdefault(repr(rest), (route, []))[1].extend(others.get(_who(viewpoint), (viewpoint,)))
    return [Rule(route, tuple(viewpoints)) for route, viewpoints in found.values()]


def rule_name(route: Json) -> str:
    """`rule 1 of VirtualService mynamespace/destination`, counted from 1 as a person counts; `the default route of port 80`."""
    if not route["source"]:
        return f"{DEFAULT_ROUTE} of port {route['port']}"
    return f"{_ordinal(route)} of {cut(clean(route['source']), 100)}" if _ordinal(route) else cut(clean(route["source"]), 100)


def _ordinal(route: Json) -> str:
    step = _STEP.search(clean(route["path"]))
    if step is None:
        return ""
    kind = f"{step[1]} " if step[1] in {"tcp", "tls"} else ""
    return f"{kind}rule {int(step[2]) + 1}"


def asked(route: Json) -> str:
    """What the rule matches, `every request` where it asks for nothing."""
    return clean(route["match"]) or ("every request" if route["protocol"] == "http" else "every connection")


def branches(route: Json) -> list[Branch]:
    """The destinations of a rule; an answer made at the proxy is one branch with the whole share."""
    action = clean(route["action"])
    if not route["destinations"]:
        fails = route["failing_share"] > 0
        name = "no destination" if action == "route" else cut(action, 80)
        if fails:
            return [Branch(name, 1.0, "", "fails", "answered at the proxy" if action != "route" else "no destination")]
        return [Branch(name, 1.0, "answered at the proxy", "works", "")]
    return [_branch(route, d) for d in route["destinations"]]


def _branch(route: Json, destination: Json) -> Branch:
    label, share = destination_name(route, destination), destination["share"]
    endpoints = destination["endpoints"]
    healthy = sum(e["state"] == "healthy" for e in endpoints)
    if not destination["defined"]:
        stands = "not defined"
    elif endpoints:
        stands = f"{healthy} of {len(endpoints)} usable"
    else:
        stands = "endpoints only Envoy knows" if destination["usable"] else "0 endpoints"
    if destination["defined"] and destination["usable"]:
        return Branch(label, share, stands, "works", "")
    if not healthy and (reasons := sorted({clean(e.get("reason") or "") for e in endpoints} - {""})):
        stands += f": {cut(listed(reasons, most=2), 60)}"
    if share <= 0:
        return Branch(label, share, stands, "idle", "gets no request")
    flag = "UH" if destination["defined"] else "NC"
    return Branch(label, share, stands, "fails", f"503 {flag}" if route["protocol"] == "http" else f"closed, {flag}")


def destination_name(route: Json, destination: Json) -> str:
    """The subset, with the host where it is another one than the route's, and the port where it is another one."""
    parts = clean(destination["envoy_cluster"]).split("|")
    if len(parts) != 4:
        return cut(" ".join(parts), 60)
    _direction, port, subset, host = parts
    name = short(host)
    if subset:
        name = subset if host == route["host"] else f"{subset} of {name}"
    return cut(name, 60) + (f":{port}" if port != str(route["port"]) and port.isdigit() and route["source"] else "")


def shown(found: Sequence[Branch], most: int = BRANCHES) -> tuple[list[Branch], str]:
    """The branches to draw, broken and heavy ones first to stay but in the rule's order; and a line about the others."""
    if len(found) <= most:
        return list(found), ""
    order = sorted(range(len(found)), key=lambda i: (found[i].state != "fails", -found[i].share, i))
    kept, rest = sorted(order[: most - 1]), [found[i] for i in order[most - 1 :]]
    broken = sum(b.state == "fails" for b in rest)
    told = f"{len(rest)} more with {percent(sum(b.share for b in rest))}, " + (
        f"{broken} of them broken" if broken else "none of them broken"
    )
    return [found[i] for i in kept], told


def lack(route: Json) -> str:
    """What the rule's failing destinations lack, as the end of a headline: `v1 has no endpoint`; empty when nothing of it fails."""
    missing: list[str] = []
    empty: list[str] = []
    partly: list[str] = []
    for destination in route["destinations"]:
        if destination["share"] <= 0 or (destination["defined"] and destination["usable"]):
            continue
        name = destination_name(route, destination)
        name = "it" if name == short(route["host"]) else name
        if not destination["defined"]:
            missing.append(name)
        elif destination["endpoints"]:
            partly.append(f"{name} has 0 of {len(destination['endpoints'])} endpoints usable")
        else:
            empty.append(name)
    told = []
    if empty:
        told.append(f"{listed(empty, most=3)} {'has' if len(empty) == 1 else 'have'} no endpoint")
    if partly:
        told.append(partly[0] if len(partly) == 1 else f"{len(partly)} destinations have no usable endpoint")
    if missing == ["it"]:
        told.append("Envoy has no cluster for it")
    elif missing:
        told.append(f"{listed(missing, most=3)} {'is' if len(missing) == 1 else 'are'} not defined")
    return ", ".join(told)


# -- the tree -------------------------------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One line of a tree: what is drawn, and how a call ends there (with its mark), to be coloured or not."""

    text: str
    end: str = ""

    def __str__(self) -> str:
        """The line as plain text."""
        return f"{self.text}  {self.end}" if self.end else self.text


MARKS = {"works": "✓", "fails": "✗", "idle": "–"}


def tree(rule: Rule, everyone: Sequence[Json] = (), *, width: int = 0, elsewhere: bool = False) -> list[Line]:
    """Who calls, the rule, and each destination with share, endpoints and outcome.

    The caller and its rule share a line when that fits into `width` columns; 0 puts them under each other, as a phone needs it. `elsewhere`: calls
    fail for a reason that routes and endpoints do not show, so that no branch may be marked as one that works.
    """
    route = rule.route
    caller = caller_name(rule.viewpoints, everyone)
    source = cut(clean(route["source"]), 90) if route["source"] else f"port {route['port']}, no VirtualService"
    name = f"{source}, {_ordinal(route)}" if _ordinal(route) and route["source"] else source
    told = f"{name} (match: {cut(asked(route), 120)})"
    lines: list[Line]
    if width and cell_len(caller) + 5 + cell_len(told) <= width:
        lines, indent = [Line(f"{caller} ──▶ {told}")], " " * (cell_len(caller) + 5)
    else:
        lines, indent = [Line(caller), Line(f"└▶ {told}")], "   "
    some, folded = shown(branches(route))
    shares = [percent(b.share) for b in some]
    wide = [max(map(cell_len, column), default=0) for column in (shares, [b.label for b in some], [b.stands for b in some])]
    for i, (branch, share) in enumerate(zip(some, shares, strict=True)):
        twig = "└─" if i == len(some) - 1 and not folded else "├─"
        text = f"{indent}{twig} {share:>{wide[0]}}  {_pad(branch.label, wide[1])}  {_pad(branch.stands, wide[2])}".rstrip()
        end = "" if elsewhere and branch.state == "works" else f"{MARKS[branch.state]} {branch.outcome}".rstrip()
        lines.append(Line(_pad(text, cell_len(indent) + 7 + sum(wide)) if end else text, end))
    if folded:
        lines.append(Line(f"{indent}└─ {folded}"))
    return lines


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def other_rules(found: Sequence[Rule], drawn: Sequence[Rule]) -> str:
    """The rules that are not drawn: `and 3 other rules, none of them failing`; empty when all are."""
    rest = len(found) - len(drawn)
    broken = sum(r.route["failing_share"] > 0 for r in found) - sum(r.route["failing_share"] > 0 for r in drawn)
    if rest == 1:
        return f"and 1 other rule, {'failing as well' if broken else 'not failing'}"
    told = "all of them" if broken == rest else str(broken) + " of them" if broken else "none of them"
    return f"and {amount(rest, 'other rule')}, {told} failing" if rest else ""


def worst_first(found: Sequence[Rule]) -> list[Rule]:
    """The rules that fail most first, else in their order."""
    return sorted(found, key=lambda r: -r.route["failing_share"])


# -- the verdict in words -------------------------------------------------------------------------------------------------------------


def cause_name(finding: Json) -> str:
    """`MESH101 subset-empty-weighted`."""
    return clean(f"{finding['code']} {finding['cause']}")


def lead(findings: Sequence[Json]) -> Json | None:
    """The finding that a headline speaks of: the worst severity, then the greatest share, then the order given."""
    order = {"error": 0, "warning": 1, "info": 2}
    return min(findings, key=lambda f: (order[f["severity"]], -f["failing_share"]), default=None)


def rule_of(finding: Json | None, share: float, found: Sequence[Rule]) -> Rule | None:
    """The rule that explains this share by clusters and endpoints alone, nearest to where the finding stands; None when no rule does."""
    fitting = [r for r in found if share > 0 and abs(r.route["failing_share"] - share) < 0.0005]
    if finding is not None and fitting:
        path = finding["path"]
        fitting.sort(key=lambda r: (r.route["source"] != finding["resource"], not r.route["path"] or not path.startswith(r.route["path"])))
    return fitting[0] if fitting else None


def _holders(finding: Json | None, rule: Rule | None) -> Sequence[Json]:
    return finding["viewpoints"] if finding is not None and finding["viewpoints"] else rule.viewpoints if rule else ()


def headline(host: str, share: float, finding: Json | None, found: Sequence[Rule]) -> str:
    """What fails, for whom, how much and why, in one line of at most 140 units: `95 % of destination.mynamespace fails: v1 has no endpoint`."""
    name = cut(short(host), 70)
    message = first_sentence(finding["message"]) if finding is not None else ""
    if share <= 0:
        return cut(f"{name} is at risk: {message}" if message else f"{name} works", 140)
    rule = rule_of(finding, share, found)
    if rule is not None and (why := lack(rule.route)):
        if len({(r.route["port"], r.route["path"]) for r in found}) > 1:
            name = f"{name}, {_ordinal(rule.route)}," if rule.route["source"] else f"port {rule.route['port']} of {name}"
    elif message:
        if (told := _told(host, finding)) is not None:
            return cut(told, 140)
        why = message
    else:
        why = ""
    everyone = [v for r in found for v in r.viewpoints]
    who = whom(_holders(finding, rule), everyone) if everyone else ""
    who = f" for {who.removesuffix(' only')}" if who and who != "every caller in the mesh" and len(who) < 50 else ""
    subject = f"Every request to {name}" if share >= 1 else f"{percent(share)} of {name}"
    return cut(f"{subject} fails{who}: {why}" if why else f"{subject} fails{who}", 140)


def spared(findings: Iterable[Json], found: Sequence[Rule]) -> str:
    """Who calls the host and is not hit by anything: `callers in checkout are fine`; empty when nobody is, or nothing fails."""
    if any(looked_at(f["viewpoints"]) for f in findings if f["failing_share"] > 0):
        return ""  # the others were not looked at
    everyone = {_who(v) for r in found for v in r.viewpoints}
    hit = {_who(v) for r in found if r.route["failing_share"] > 0 for v in r.viewpoints}
    hit |= {_who(v) for f in findings if f["failing_share"] > 0 for v in f["viewpoints"]}
    fine = everyone - hit
    if not hit or not fine:
        return ""
    spaces = {(v[0], v[2]) for v in fine}
    if len(fine) > 4:
        return f"{amount(len(spaces), 'other namespace')} {'is' if len(spaces) == 1 else 'are'} fine"
    several = len({v[0] for v in everyone}) > 1
    where = f" of {listed(sorted({clean(v[0]) for v in fine}))}" if several else ""
    names = list(_groups(fine))
    one = len(fine) == 1 and next(iter(fine))[1] in {"gateway", "waypoint"}
    return f"{listed(names, most=4)}{where} {'is' if one else 'are'} fine"


def impact(host: str, share: float, finding: Json | None, found: Sequence[Rule], findings: Sequence[Json] = ()) -> str:
    """The share of requests that fails, how it fails and for whom, and who is spared; what works when nothing fails."""
    if share <= 0:
        return "Nothing fails now."
    said = _impact(host, share, finding, found)
    fine = spared(findings, found) if said.endswith((" only.", " as well.")) else ""
    return (
        f"{said.removesuffix('.')}; {fine}."
        if fine and said.endswith(" only.")
        else f"{said} {fine[:1].upper()}{fine[1:]}."
        if fine
        else said
    )


def _impact(host: str, share: float, finding: Json | None, found: Sequence[Rule]) -> str:
    rule = rule_of(finding, share, found)
    everyone = [v for r in found for v in r.viewpoints]
    who = looked_at(_holders(finding, rule)) or whom(_holders(finding, rule), everyone)
    for_whom = f", for {who}." if who else "."
    whole = share >= 1
    subject = "Every request" if whole else f"{percent(share)} of the requests"
    if rule is None or not lack(rule.route):
        if (told := _told(host, finding)) is not None:
            return f"{told}."
        return f"{subject} {_reach(host, finding, found)} {'fails' if whole else 'fail'}{for_whom}"
    outcomes = {b.outcome for b in branches(rule.route) if b.state == "fails"}
    get = "gets" if whole else "get"
    if rule.route["protocol"] != "http":
        subject = subject.replace("request", "connection")
        how = f"{'is' if whole else 'are'} closed"
    elif outcomes == {"503 UH"}:
        how = f'{get} 503 "no healthy upstream"'
    elif outcomes == {"503 NC"}:
        how = f"{get} 503 (NC, no such cluster in Envoy)"
    else:
        how = f"{get} 503"
    more = len({(r.route["port"], r.route["source"], r.route["path"]) for r in found if r.route["failing_share"] > 0}) - 1
    also = f" {amount(more, 'other rule')} {'fails' if more == 1 else 'fail'} as well." if more > 0 else ""
    where = f"that {rule_name(rule.route)} routes" if rule.route["source"] else f"to port {rule.route['port']} of {cut(short(host), 120)}"
    return f"{subject} {where} {how}{for_whom}{also}"


def _told(host: str, finding: Json | None) -> str | None:
    """The finding's first sentence, where it already says that calls of this host fail."""
    message = first_sentence(finding["message"]) if finding is not None else ""
    return message if short(host) in message and re.search(r"\bfails?\b", message) else None


def _reach(host: str, finding: Json | None, found: Sequence[Rule]) -> str:
    """Which requests a finding speaks of: those of its own rule where there are several, else those to the host."""
    if finding is not None and len({(r.route["source"], r.route["path"]) for r in found}) > 1:
        own = [
            r for r in found if r.route["path"] and r.route["source"] == finding["resource"] and finding["path"].startswith(r.route["path"])
        ]
        if own:
            return f"that {rule_name(own[0].route)} decides"
    return f"to {cut(short(host), 120)}"


def because(finding: Json, said: str) -> str:
    """The finding's sentence without what `said` has already told."""
    message = clean(finding["message"])
    return message.removeprefix(said).lstrip() or message


def breadth(found: Sequence[Rule]) -> str:
    """What was looked at, where nothing fails: `3 rules, 7 destinations, every one has at least 2 usable endpoints, seen from 14 namespaces and 2 gateways`."""
    every = [v for r in found for v in r.viewpoints]
    distinct = {(r.route["port"], r.route["source"], r.route["path"]): r for r in found}
    places = [d for r in distinct.values() for d in r.route["destinations"] if d["share"] > 0]
    told = [amount(len(distinct), "rule"), amount(len(places), "destination")]
    counted = [sum(e["state"] == "healthy" for e in d["endpoints"]) for d in places if d["endpoints"]]
    if counted:
        each = "every one has at least" if len(places) > 1 else "it has"
        if len(counted) < len(places):
            each = "those with known endpoints have at least"
        told.append(f"{each} {amount(min(counted), 'usable endpoint')}")
    spaces = len({(v["cluster"], v["namespace"]) for v in every if v["kind"] not in {"gateway", "waypoint"}})
    numbers = {kind: len({_who(v) for v in every if v["kind"] == kind}) for kind in ("gateway", "waypoint")}
    seen = ([amount(spaces, "namespace")] if spaces else []) + [amount(number, kind) for kind, number in numbers.items() if number]
    if seen:
        told.append(f"seen from {listed(seen)}")
    return ", ".join(told)


DECIDED_BY = {
    "kubernetes": ("the API's objects alone show it", "the API's objects decide"),
    "envoy": (
        "only the caller's Envoy shows it: /clusters and /config_dump of its admin port, or istioctl proxy-config",
        "need the caller's Envoy",
    ),
    "istiod": ("only istiod shows it: its debug pages and metrics, or istioctl proxy-status", "need istiod"),
    "telemetry": ("only metrics or access logs show it, by response code and flag", "need metrics or logs"),
}
"""What settles a cause: where a person sees it, and the causes of that kind."""

_PAGES = {
    "IST": "https://istio.io/latest/docs/reference/config/analysis/",
    "KIA": "https://kiali.io/docs/features/validations/",
    "kubernetes": "https://istio.io/latest/docs/ops/common-problems/network-issues/",
    "envoy": "https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/",
    "istiod": "https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/",
    "telemetry": "https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage",
}


def seen_by(cause: Json) -> str:
    """Where a cause shows itself, and whether others name it."""
    shown, _ = DECIDED_BY.get(cause["decided_by"], (f"{clean(cause['decided_by'])} data show it", ""))
    codes = listed(map(clean, cause.get("same_as") or ()))
    told = {"yes": "istioctl or Kiali name it", "partly": "istioctl or Kiali name a part of it"}.get(clean(cause["caught_today"]))
    if told is None:
        return f"{shown}; neither istioctl nor Kiali names it" + (f" for what it is, {codes} comes near" if codes else "")
    return f"{shown}; {told}" + (f", as {codes}" if codes else "")


def references(cause: Json) -> list[str]:
    """Pages of others about a cause, or about how its kind is looked at."""
    kinds = [code[:3] for code in cause.get("same_as") or ()] or [cause["decided_by"]]
    return list(dict.fromkeys(_PAGES[kind] for kind in kinds if kind in _PAGES))


def catalogued(rows: Sequence[Json]) -> str:
    """How many causes are checked for, by what settles them."""
    told = []
    for kind, (_, name) in DECIDED_BY.items():
        if theirs := [r for r in rows if r["decided_by"] == kind]:
            told.append(f"{sum(bool(r['implemented']) for r in theirs)} of the {len(theirs)} that {name}")
    built = sum(bool(r["implemented"]) for r in rows)
    rest = " The others are known and not checked yet (–)." if built < len(rows) else ""
    return f"{built} of {amount(len(rows), 'cause')} are checked (✓): {listed(told)}.{rest}"


def weighed(introduced: Sequence[Json], resolved: Sequence[Json]) -> str:
    """What a change would do, in one line: `1 error and 2 warnings introduced, 1 finding resolved`."""
    if not introduced and not resolved:
        return "no finding is introduced, none is resolved"
    counts = {s: sum(f["severity"] == s for f in introduced) for s in ("error", "warning", "info")}
    told = listed(amount(n, s) if s != "info" else f"{n} at info" for s, n in counts.items() if n) or "nothing"
    return f"{told} introduced, {amount(len(resolved), 'finding') if resolved else 'nothing'} resolved"


def change_told(change: Json, *, cluster: bool) -> str:
    """What would happen to an object: `VirtualService shop/cart in east: replaced`."""
    where = f" in {clean(change['cluster'])}" if cluster else ""
    return f"{clean(change['object'])}{where}: {clean(change['does'])}"


def elsewhere(share: float, finding: Json | None, found: Sequence[Rule]) -> bool:
    """Whether calls fail for a reason that routes and endpoints do not show."""
    return share > 0 and rule_of(finding, share, found) is None


def freshness(clusters: Sequence[Json]) -> str:
    """How old what was read is: `east 0.4 s old, west is not read completely`."""
    return ", ".join(f"{clean(c['name'])} {age(c['age_s']) if c['synced'] else 'is not read completely'}" for c in clusters)


def spoken_for(clusters: Sequence[Json]) -> str:
    """Which Istio an answer speaks for, and what is not known of it: `Istio 1.28.`, `Istio 1.28 (east), 1.30 (west).`; empty where nothing is told."""
    by_version: dict[str, list[str]] = {}
    for c in clusters:
        if c.get("istio"):
            by_version.setdefault(clean(c["istio"]), []).append(clean(c["name"]))
    whole = len(by_version) == 1 and all(c.get("istio") for c in clusters)
    versions = ", ".join(v if whole else f"{v} ({listed(names, most=4)})" for v, names in by_version.items())
    left = [f"{clean(o)[:1].upper()}{clean(o)[1:]}." for o in dict.fromkeys(o for c in clusters for o in c.get("open") or ())]
    rest = [f"{len(left) - 3} more things are not known of control planes."] if len(left) > 4 else left[3:]
    return " ".join(([f"Answered for Istio {versions}."] if versions else []) + left[:3] + rest)


def not_looked_at(skipped: Sequence[Json], most: int = 4) -> str:
    """What could not be looked at and why, equal reasons together; empty when everything was."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for s in skipped:
        reasons.setdefault((clean(s["cluster"]), clean(s["reason"])), []).append(clean(s["check"]))
    told = []
    for (cluster, reason), names in reasons.items():
        what = "every check" if "*" in names else names[0] if len(names) == 1 else amount(len(names), "check")
        told.append(cut(f"{what} in {cluster} ({reason})" if cluster else f"{what} ({reason})", 220))
    return listed(told, most=most)


def unreadable(skipped: Sequence[Json]) -> list[str]:
    """Why a verdict is unknown: each cluster with each reason once, `west: endpoints cannot be read since 14:02`."""
    return list(dict.fromkeys(f"{clean(s['cluster'])}: {cut(clean(s['reason']), 300)}" for s in skipped))


def seen(diagnosis: Json, most: int = 4) -> list[tuple[str, str]]:
    """What live Envoys hold and what was counted beside what was predicted, with ✓ or ✗ before it: those that differ first, the rest counted.

    Before what was counted without being comparable stands –.
    """
    counted = [{**m, "sentence": f"{m['cluster']}: {m['sentence']}"} for m in diagnosis.get("traffic") or ()]
    live = sorted((*counted, *(diagnosis.get("live") or ())), key=lambda a: a["agrees"] is not False)
    marks = {True: "✓", False: "✗", None: "–"}
    told = [(marks[a["agrees"]], cut(f"{clean(a['sentence'])} ({clean(a['source'])})", 600)) for a in live]
    if len(told) > most:
        differ = sum(a["agrees"] is False for a in live[most - 1 :])
        told = [*told[: most - 1], ("–", f"{len(told) - most + 1} more, {differ or 'none'} of them different from what was predicted")]
    return told


def named(diagnosis: Json) -> str:
    """Of a host that is another one's name, what the answer is about; empty for any other."""
    target = diagnosis.get("stands_for")
    return f"It is another name of {short(target)} (type ExternalName), whose rules and endpoints answer its calls." if target else ""


def felt(diagnosis: Json, most: int = 3) -> list[str]:
    """What fails here of other hosts' rules that lead to the host, which itself is not called there."""
    told = [
        cut(
            f"{percent(f['failing_share'])} of the requests for {short(f['host'])} fail, whose rules lead here: {first_sentence(f['message'])}.",
            600,
        )
        for f in diagnosis.get("elsewhere") or ()
    ]
    return [*told[: most - 1], f"{len(told) - most + 1} more of other hosts' rules that lead here fail."] if len(told) > most else told


def did_you_mean(word: str, candidates: Sequence[str], *, ambiguous: bool) -> str:
    """The answer to a host that nobody knows, or that several hosts fit."""
    word = cut(clean(word), 80)
    brief = [short(c) for c in candidates]
    hosts = {b.rpartition(":")[0] for b in brief}
    if len(hosts) == 1 and "" not in hosts:
        numbers = [b.rpartition(":")[2] for b in brief]
        return f"{cut(hosts.pop(), 100)} has no port {word.rpartition(':')[2]}; it has {listed(numbers, most=12)}."
    names = [cut(b if brief.count(b) == 1 else clean(c), 100) for b, c in zip(brief, candidates, strict=True)]
    if not names:
        return f'No host "{word}", and none that is nearly called so.'
    if ambiguous:
        return f'"{word}" fits {amount(len(names), "host")}: {listed(names, most=8)}. Name one of them in full.'
    return f'No host "{word}". Did you mean {listed(names, last="or", most=8)}?'
