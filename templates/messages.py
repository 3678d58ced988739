"""What the bot says in Slack: one function a message, each returns a Message that fits.

The order never changes: what breaks, for whom and how much; why; what to do; then the route, proof and commands; last what was not looked at.
Arguments are the JSON contract's objects as plain builtins. Buttons: a message shows only those that it is given or that always work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from templates import words
from templates.blocks import (
    Action,
    Block,
    Menu,
    Message,
    Mrkdwn,
    Rich,
    checkbox_input,
    choice_input,
    code,
    context,
    date,
    escape,
    fields,
    file_input,
    fit,
    fragment,
    header,
    modal,
    picture,
    section,
    text_input,
)
from templates.blocks import (
    actions as buttons,
)
from templates.words import Json, Rule, clean, cut, percent, short, units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SHARE = "share"
"""action_id of "Share in channel"; its value is the host that was asked."""
PREVIOUS, NEXT = "routes_previous", "routes_next"
"""action_ids of the pages of `routes`; the value is the page (from 0), a space and the host."""
SHEET = "routes_sheet"
"""action_id of the button that puts all rules of `routes` into a file; the value is the host."""
TREES = 3
"""Rules that one message draws; the others are counted."""
_PAGE = 2_400

Links = Sequence[tuple[str, str]]
"""Where else to look: names, each with an address."""
_STEP_MARKS = {"fired": "✗", "changed": "→", "unknown": "?", "resolved": "✓", "flapping": "~"}
_SEVERITY_MARKS = {"error": "✗", "warning": "!", "info": "·"}


def _say(text: str, blocks: Iterable[Block]) -> Message:
    return fit(Message(text, tuple(blocks)))


def _title(verdict: str, host: str, share: float, finding: Json | None, found: Sequence[Rule]) -> str:
    if verdict == "healthy":
        return f"{cut(short(host), 110)} is healthy"
    if verdict == "unknown":
        return f"{cut(short(host), 70)} is unknown: what it needs cannot be read"
    return words.headline(host, share, finding, found)


def _linked(links: Links) -> list[Block]:
    return [context(*fragment("links", links=list(links)))] if links else []


def _trees(found: Sequence[Rule], most: int = TREES, limit: int = _PAGE, *, elsewhere: bool = False) -> str:
    """The rules that matter as trees: those that fail, or the first ones when none does."""
    everyone = [v for r in found for v in r.viewpoints]
    failing = [r for r in words.worst_first(found) if r.route["failing_share"] > 0]
    told: list[str] = []
    for rule in (failing or found)[:most]:
        tree = "\n".join(map(str, words.tree(rule, everyone, elsewhere=elsewhere)))
        if told and sum(map(len, told)) + len(tree) > limit:
            break
        told.append(tree)
    rest = words.other_rules(found, (failing or found)[: len(told)])
    return "\n\n".join([*told, rest] if told and rest else told)


def _footer(diagnosis: Json) -> Block:
    text = fragment(
        "footer",
        clean=diagnosis["clean"],
        findings=len(diagnosis["findings"]),
        skipped=escape(cut(words.not_looked_at(diagnosis["skipped"]), 900)),
        fresh=words.freshness(diagnosis["clusters"]),
        spoken=escape(cut(words.spoken_for(diagnosis["clusters"]), 900)),
    )
    return context(*text or (Mrkdwn("Nothing was looked at."),))


def _others(findings: Sequence[Json]) -> list[str]:
    return [f"{words.cause_name(f)}, {f['resource']}: {words.first_sentence(f['message'])}" for f in findings]


def why(diagnosis: Json, *, share: bool = False, actions: Sequence[Action] = (), links: Links = ()) -> Message:
    """The diagnosis of one host. `share` adds the button "Share in channel"; `actions` come before it. `links` say where else to look."""
    host, verdict, share_of_host = diagnosis["host"], diagnosis["verdict"], diagnosis["failing_share"]
    found = words.rules(diagnosis["routes"], diagnosis.get("alike") or ())
    finding = words.lead(diagnosis["findings"])
    port = f":{diagnosis['port']}" if diagnosis.get("port") and verdict in {"healthy", "unknown"} else ""
    title = _title(verdict, f"{host}{port}", share_of_host, finding, found)
    top, said = Rich(), ""
    if another := words.named(diagnosis):
        top.words(another)
    match verdict:
        case "healthy":
            none = diagnosis.get("outside") or "no rule of it is seen by anybody, and nothing is wrong with it"
            top.words(f"{words.breadth(found)}." if found else f"{none[0].upper()}{none[1:]}.", tail=verdict)
        case "unknown":
            top.words("Nothing known fails, yet not everything could be read:", tail=verdict).bullets(
                words.unreadable(diagnosis["skipped"])
            )
        case _:
            said = words.impact(host, share_of_host, finding, found, diagnosis["findings"])
            # A finding that tells the whole is the headline already.
            top.words("Verdict" if said == f"{title}." else said, tail=verdict)
    top.bullets([*(f"✗ {sentence}" for sentence in words.felt(diagnosis)), *(f"{mark} {said}" for mark, said in words.seen(diagnosis))])
    if finding is not None:
        top.words(words.because(finding, said), label="Why", tail=words.cause_name(finding))
        top.words(finding["fix"], label="Fix").preformatted(finding["patch"] or "", limit=1500)
    elif verdict in {"broken", "degraded"}:
        top.words("No check names a cause; the route below shows what fails.", label="Why")
    proof = Rich()
    if finding is not None:
        place = " ".join(x for x in (finding["resource"], finding["path"]) if x)
        proof.words(place, label="Proof").bullets(finding["evidence"])
        if finding["commands"]:
            proof.words("the same by hand:", label="See").preformatted("\n".join(finding["commands"]), limit=1000)
        if rest := _others([f for f in diagnosis["findings"] if f is not finding]):
            proof.words(words.amount(len(rest), "other finding"), label="Also").bullets(rest, most=5)
    row = [*actions, ("Share in channel", SHARE, host, None)] if share else list(actions)
    return _say(
        escape(cut(f"{title} · {', '.join(clean(c['name']) for c in diagnosis['clusters'])}", 300)),
        [
            header(title),
            *top.blocks(),
            *Rich().preformatted(_trees(found, elsewhere=words.elsewhere(share_of_host, finding, found))).blocks(),
            *proof.blocks(),
            *_linked(links),
            _footer(diagnosis),
            *buttons(row),
        ],
    )


def heard(told: Json, diagnosis: Json) -> Message:
    """What an Alertmanager says of a host, {"name", "summary", "since": epoch s, "resolved"}, and what we say of it."""
    name = cut(clean(told["name"]) or "An alert", 150)
    state = "is over" if told["resolved"] else "fires"
    line = fragment("heard", name=name, state=state, since=told["since"], summary=cut(clean(told["summary"]), 280))
    found = why(diagnosis)
    return _say(f"{escape(f'{name} {state}:')} {found.text}", [*map(section, line), *found.blocks])


def routes(host: str, routes: Sequence[Json], page: int = 0) -> Message:
    """Every rule of a host as its callers' Envoys hold it, in pages; a page that does not exist becomes the nearest one."""
    found = words.rules(routes)
    everyone = [v for r in found for v in r.viewpoints]
    pages: list[list[str]] = [[]]
    for rule in found:
        tree = cut("\n".join(map(str, words.tree(rule, everyone))), _PAGE)
        if pages[-1] and sum(map(len, pages[-1])) + len(tree) > _PAGE:
            pages.append([])
        pages[-1].append(tree)
    page = min(max(page, 0), len(pages) - 1)
    title = f"{cut(short(host), 90)}: {words.amount(len(found), 'rule')}" + (f", page {page + 1} of {len(pages)}" if len(pages) > 1 else "")
    turn: list[Action] = []
    if page > 0:
        turn.append(("Previous", PREVIOUS, f"{page - 1} {host}", None))
    if page < len(pages) - 1:
        turn.append(("Next", NEXT, f"{page + 1} {host}", None))
    if len(pages) > 1:
        turn.append(("All as CSV", SHEET, host, None))
    body = (
        Rich().preformatted("\n\n".join(pages[page])) if found else Rich().words("No proxy that was looked at holds a rule of this host.")
    )
    return _say(escape(title), [header(title), *body.blocks(), *buttons(turn)])


STOPS = {"first": "changes_first", "earlier": "changes_earlier", "later": "changes_later", "last": "changes_last"}
"""action_ids of the slider of `changes`; the value is the instant (seconds since the epoch), a space and the host."""
DAY = "changes_picture"
"""action_id of the button that draws the instant; the value is as that of STOPS."""
_STOPS = {"first": "⏮ First", "earlier": "◀ Earlier", "later": "Later ▶", "last": "Last ⏭"}
_BARS = " ▁▂▃▄▅▆▇█"
_CELLS = 48


def changes(view: Json, *, most: int = 8, drawn: tuple[str, str] | None = None) -> Message:
    """How a host stood at an instant of its last day, the day as a strip, and what changed; the form of `bot.history.view`.

    `drawn` is the picture of it, its id in Slack and the same in words, which then stands in the place of the strip and the route.
    """
    told, name = view["diagnosis"], cut(short(view["host"]), 80)
    at = words.clock(view["at"])
    state = "not known" if told is None else f"{percent(told['failing_share'])} failed" if told["failing_share"] else "nothing failed"
    title = f"{name} at {at[11:]}: {state}"
    body = Rich().words(words.stood(view))
    if drawn is None:
        body.preformatted("\n".join(_strip(view)))
        if told is not None and told["routes"]:
            body.preformatted(_trees(words.rules(told["routes"])))
    rows = view["changes"]
    if rows:
        body.words("on its way in the last 24 hours, the newest first (UTC):", label="Changed").bullets(_change_rows(rows), most=most)
    else:
        body.words("nothing on its way is known to have changed in the last 24 hours.", label="Changed")
    slider = [(_STOPS[way], STOPS[way], f"{view[way]:.1f} {view['host']}", None) for way in _STOPS if view[way] is not None]
    row = [*slider, *([] if drawn else [("Picture", DAY, f"{view['at']:.1f} {view['host']}", None)])]
    return _say(
        escape(cut(f"{title} · {words.stood(view)}", 300)),
        [header(title), *([picture(*drawn)] if drawn else []), *body.blocks(), *buttons(row)],
    )


def last_changes(answer: Json, *, most: int = 12) -> Message:
    """What the objects on a host's way say of their last change, {"host", "changes"}, the newest first."""
    title = f"What changed last for {cut(short(answer['host']), 80)}"
    return _say(escape(title), [header(title), *Rich().bullets(_change_rows(answer["changes"]), most=most).blocks()])


def _change_rows(rows: Iterable[Json]) -> list[str]:
    return [f"{'✗ suspicious: ' if r['suspicious'] else ''}{words.clock(r['at'])[5:16]} {words.change_of(r)}" for r in rows]


def _strip(view: Json) -> list[str]:
    """The day in two lines of blocks, a cell for half an hour: the worst share that failed, and the fewest usable endpoints; `·` is not known."""
    length = (view["now"] - view["from"]) / _CELLS
    most = max((p["of"] for p in view["strip"] if p["share"] is not None), default=0) or 1
    lines = {"fails ": "", "usable": ""}
    for i in range(_CELLS):
        begin, end = view["from"] + i * length, view["from"] + (i + 1) * length
        here = [p for p in view["strip"] if p["from"] < end and p["until"] > begin and p["share"] is not None]
        lines["fails "] += _bar(max((p["share"] for p in here), default=None))
        lines["usable"] += _bar(min((p["usable"] / most for p in here), default=None))
    column = min(max(int((view["at"] - view["from"]) / length), 0), _CELLS - 1)
    span = f"{words.clock(view['from'])[11:16]} yesterday".ljust(_CELLS - 3) + "now"
    return [
        *(f"{name} {bars}" for name, bars in lines.items()),
        f"       {' ' * column}▲ {words.clock(view['at'])[11:16]}",
        f"       {span}",
    ]


def _bar(part: float | None) -> str:
    if part is None:
        return "·"
    return _BARS[max(round(part * 8), 1)] if part > 0 else "_"


def broken(sweep: Json, *, most: int = 10, left_out: int = 0) -> Message:
    """What fails now, one line for one fault however many hosts it hits, the worst first; `left_out` findings the reader may not see."""
    worst = _faults(sweep["findings"], "error")
    hosts = len({(f["cluster"], f["host"]) for same in worst for f in same})
    looked = words.amount(sweep["hosts"], "host")
    if worst:
        title = f"{hosts:,} of {looked} fail{'s' if hosts == 1 else ''}"
    else:
        title = f"Nothing known fails: {looked} looked at" if sweep["skipped"] else f"Nothing fails: {looked} looked at"
    return _say(escape(title), [header(title), *_told(worst, most), *_left_out(left_out, "finding"), *_small_print(sweep)])


def digest(sweep: Json, *, late: float = 0.0, mention: Sequence[str] = (), most: int = 10) -> Message:
    """What is broken and what is at risk, at the time of day that was asked for: the form of a sweep, and how many seconds late it comes."""
    worst, risks = _faults(sweep["findings"], "error"), _faults(sweep["findings"], "warning")
    looked = words.amount(sweep["hosts"], "host")
    title = f"Today: {words.amount(len(worst), 'fault')}, {words.amount(len(risks), 'risk')} in {looked}"
    blocks = [header(title), *_mentioned({"mention": mention})]
    if worst:
        blocks += [section(Mrkdwn("*What fails*")), *_told(worst, most)]
    if risks:
        blocks += [section(Mrkdwn("*What will fail next*")), *_told(risks, most)]
    if not worst and not risks:
        blocks.append(section(Mrkdwn("Nothing known fails, and nothing known is at risk.")))
    if late:
        blocks.append(context(escape(f"{words.duration(late)} late: no bot was there to say it in time.")))
    return _say(escape(title), [*blocks, *_small_print(sweep)])


def _faults(findings: Iterable[Json], severity: str) -> list[list[Json]]:
    """The findings of a severity, those of one fault together, the worst first."""
    faults: dict[tuple[str, str, str], list[Json]] = {}
    for finding in findings:
        if finding["severity"] == severity:
            faults.setdefault((finding["cluster"], finding["cause"], finding["resource"]), []).append(finding)
    return sorted(faults.values(), key=lambda same: (-max(f["failing_share"] for f in same), -len(same)))


def _told(faults: Sequence[Sequence[Json]], most: int) -> list[Block]:
    """One line for each fault, and how many more there are."""
    blocks: list[Block] = []
    for same in faults[:most]:
        first = max(same, key=lambda f: f["failing_share"])
        others = f" and {words.amount(len(same) - 1, 'other host')}" if len(same) > 1 else ""
        said = f"{short(first['host'])}{others} in {clean(first['cluster'])}: {words.first_sentence(first['message'])}."
        mark = f"✗ {percent(first['failing_share'])}" if first["failing_share"] > 0 else _SEVERITY_MARKS[first["severity"]]
        blocks += Rich().words(said, label=mark, tail=words.cause_name(first)).blocks()
    if len(faults) > most:
        blocks.append(section(Mrkdwn(f"and {len(faults) - most:,} more; `meshwhy sweep` prints all of them.")))
    return blocks


def _small_print(sweep: Json) -> list[Block]:
    """What was not looked at, and how old what was looked at is."""
    small = fragment(
        "footer",
        clean=0,
        findings=0,
        skipped=escape(cut(words.not_looked_at(sweep["skipped"]), 900)),
        fresh=words.freshness(sweep["clusters"]),
        spoken=escape(cut(words.spoken_for(sweep["clusters"]), 900)),
    )
    return [context(*small)] if small else []


def _left_out(count: int, what: str) -> list[Block]:
    """What the reader may not see is not told, but that it is there."""
    return [context(Mrkdwn(f"{words.amount(count, what)} left out: you may not look there."))] if count else []


def whatif(whatif: Json, *, most: int = 6, left_out: int = 0) -> Message:
    """What a change would introduce and resolve, the worst first; the form of `whatif` is that of the terminal's. `left_out` findings the reader may not see."""
    introduced, resolved, several = whatif["introduced"], whatif["resolved"], len(whatif["clusters"]) > 1
    worst = words.lead(introduced)
    title = words.weighed(introduced, resolved)
    blocks = [header(f"{title[:1].upper()}{title[1:]}")]
    for f in introduced[:most]:
        share = percent(f["failing_share"]) if f["failing_share"] > 0 else f["severity"]
        said = Rich().words(
            f"{short(f['host'])}{_where(f, several=several)}: {clean(f['message'])}",
            label=f"{_SEVERITY_MARKS[f['severity']]} {share}",
            tail=words.cause_name(f),
        )
        blocks += said.words(f["fix"], label="Fix").blocks()
    if len(introduced) > most:
        blocks.append(section(Mrkdwn(f"and {len(introduced) - most:,} more; `meshwhy whatif` prints all of them.")))
    less = [
        f"✓ {short(f['host'])}{_where(f, several=several)}, {words.cause_name(f)}: {words.first_sentence(f['message'])}" for f in resolved
    ]
    made = [words.change_told(c, cluster=several) for c in whatif["changes"]]
    rest = Rich()
    if less:
        rest.words("or less than before:", label="Resolved").bullets(less, most=most)
    rest.words("not applied:", label="Weighed").bullets(made)
    missing = f"Not everything could be read: {words.listed(map(clean, whatif['unread']))}."
    small = [context(escape(cut(said, 900))) for said in (*whatif.get("notes", ()), *([missing] if whatif["unread"] else []))]
    about = f": {words.first_sentence(worst['message'])}" if worst else ""
    return _say(escape(cut(f"{title}{about}", 300)), [*blocks, *rest.blocks(), *_left_out(left_out, "finding"), *small])


def _where(finding: Json, *, several: bool) -> str:
    return f" in {clean(finding['cluster'])}" if several else ""


WHATIF = "whatif"
"""callback_id of the modal; its blocks are PASTED, FILE, CLUSTER and DELETE, each with an action_id of the same name."""
PASTED, FILE, CLUSTER, DELETE = "pasted", "file", "cluster", "delete"
EVERYWHERE = "*"
"""The choice of no cluster in particular."""


def whatif_modal(clusters: Sequence[str], kept: str) -> Block:
    """The modal in which a change is pasted or uploaded; `kept` comes back with it (at most 3,000 characters)."""
    named = [(cut(clean(name), 75), name) for name in clusters if units(name) <= 150][:99]
    inputs = [
        text_input(
            PASTED, "Manifests", "kind: VirtualService …", hint="YAML or JSON, as kubectl apply would take it; at most 3,000 characters."
        ),
        file_input(FILE, "Or a file"),
    ]
    if len(named) > 1:
        inputs.append(choice_input(CLUSTER, "Where", [("Wherever the objects are", EVERYWHERE), *named]))
    inputs.append(checkbox_input(DELETE, "Instead", [("Weigh deleting these objects", DELETE)]))
    return modal(WHATIF, "What if", "Weigh", inputs, kept)


def clusters(clusters: Sequence[Json]) -> Message:
    """The registered clusters: {"name", "mesh", "synced", "age_s", "objects", "istio", "proxies", "open", "unreadable": {kind: reason}} each."""
    synced = sum(bool(c["synced"]) for c in clusters)
    title = f"{synced} of {words.amount(len(clusters), 'cluster')} read completely" if clusters else "No cluster is registered"
    blocks = [header(title)]
    for cluster in clusters[:40]:
        refused = list(dict(cluster["unreadable"]).items())
        text = fragment(
            "cluster",
            name=cluster["name"],
            mesh=cluster["mesh"] or "",
            synced=cluster["synced"],
            objects=words.amount(cluster["objects"], "object"),
            age=words.age(cluster["age_s"]),
            istio=cluster.get("istio") or "",
            proxies=words.listed(cluster.get("proxies") or ()),
            open=list(cluster.get("open") or ())[:4],
            unreadable=refused[:6],
            more=max(len(refused) - 6, 0),
        )
        blocks.append(section(Mrkdwn("\n".join(text))))
    if len(clusters) > 40:
        blocks.append(context(Mrkdwn(f"and {len(clusters) - 40} more")))
    return _say(escape(title), blocks)


def explain(cause: Json, docstring: str | None) -> Message:
    """One cause of the catalogue, with the page that its check carries; without a check it is said that nobody looks."""
    title = clean(f"{cause['code']} {cause['id']}")
    body = Rich()
    if not docstring:  # the page says it in whole sentences
        body.words(f"{cause['cause']}.".replace("..", ".")).words(cause["fix"], label="Fix")
    body.words(f"{words.seen_by(cause)}.", label="See")
    if cause.get("no_patch"):
        body.words(f"None: {cause['no_patch']}.", label="Patch")
    page = Rich()
    for paragraph in (
        re.split(r"\n\s*\n", docstring.strip())[:8] if docstring else ["meshwhy knows this cause but does not check for it yet."]
    ):
        page.words(paragraph)
    page.words(", ".join(words.references(cause)), label="More")
    return _say(escape(title), [header(title), *body.blocks(), *page.blocks()])


def help(verbs: Mapping[str, str]) -> Message:  # noqa: A001 - it is called what people type
    """The verbs that work and what each does."""
    parts = fragment("help", verbs=list(verbs.items()))
    return _say("What I answer: " + ", ".join(escape(v) for v in verbs), [section(p) for p in parts])


def unknown_host(word: str, candidates: Sequence[str], ambiguous: bool = False) -> Message:  # noqa: FBT001, FBT002 - a fact of the answer
    """No host of this name, or several."""
    return error(words.did_you_mean(word, candidates, ambiguous=ambiguous))


def unknown_verb(word: str, nearest: str | None = None) -> Message:
    """A verb that nobody taught the bot."""
    (text,) = fragment("unknown_verb", word=cut(clean(word), 60), nearest=nearest or "")
    return _say(text, [section(text)])


def error(sentence: str) -> Message:
    """One clear sentence."""
    text = cut(clean(sentence), 700) or "Something went wrong, and nothing is known of it."
    return _say(escape(text), Rich().words(text).blocks())


def notice(sentence: str) -> Message:
    """What those who run the bot are told about it."""
    text = cut(clean(sentence), 2_500)
    return _say(escape(cut(text, 300)), [header("meshwhy"), *Rich().words(text).blocks()])


def shared(message: Message, user_id: str) -> Message:
    """An answer put in front of everybody, without its Share button and with who did it; ValueError for what is no user's id."""
    kept: list[Block] = []
    for block in message.blocks:
        if block["type"] != "actions":
            kept.append(block)
        elif left := [e for e in block["elements"] if e.get("action_id") != SHARE]:
            kept.append(block | {"elements": left})
    return _say(message.text, [*kept, context(*fragment("shared", user=user_id))])


# -- alerts ---------------------------------------------------------------------------------------------------------------------------


def _alert_title(alert: Json, found: Sequence[Rule]) -> str:
    finding, hosts = alert["finding"], _hosts(alert)
    name = short(finding["host"]) if len(hosts) == 1 else f"{len(hosts):,} hosts"
    match alert["state"]:
        case "resolved":
            lasted = words.duration((alert.get("resolved_at") or alert["since"]) - alert["since"])
            return cut(f"Resolved after {lasted}: {name}", 140)
        case "closed":
            return cut(f"Called done, still seen: {cut(name, 90)}", 140)
        case "unknown":
            reason = words.first_sentence(alert.get("why") or f"{clean(finding['cluster'])} cannot be read")
            return cut(f"Unknown: {cut(name, 70)}, {reason}", 140)
    if alert.get("others_told"):
        said = words.first_sentence(finding["message"])
        causes = len(_causes(alert))
        headline = f"{name} {'fails' if len(hosts) == 1 else 'fail'}: " + (said if causes == 1 else words.amount(causes, "cause"))
    else:
        headline = words.headline(finding["host"], finding["failing_share"], finding, found)
    match alert["state"]:
        case "pending":
            return cut(f"Not long enough to alert: {headline}", 140)
        case "flapping":
            return cut(f"Flapping: {headline}", 140)
        case _:
            return cut(headline, 140)


def _all_told(alert: Json) -> list[Json]:
    return [alert["finding"], *(alert.get("others_told") or ())]


def _hosts(alert: Json) -> list[str]:
    return list(dict.fromkeys(f["host"] for f in _all_told(alert)))


def _causes(alert: Json) -> dict[tuple[str, str, str], int]:
    """What is behind an alert: cause, code and object, with how many findings each has; the most first."""
    counted: dict[tuple[str, str, str], int] = {}
    for f in _all_told(alert):
        key = f["code"], f["cause"], f["resource"]
        counted[key] = counted.get(key, 0) + 1
    return dict(sorted(counted.items(), key=lambda c: -c[1]))


def _worst(alert: Json, most: int = 10) -> Rich:
    """The worst of several findings that are told together, and what is behind them when it is not one thing."""
    told, causes = _all_told(alert), _causes(alert)
    lines = [
        f"{percent(f['failing_share'])} of {short(f['host'])}"
        + (f": {words.first_sentence(f['message'])}" if len(causes) > 1 or f["message"] != alert["finding"]["message"] else "")
        for f in told[:most]
    ]
    rest = words.amount(len(told) - most, "more") if len(told) > most else ""
    body = Rich().words(
        f"of {words.amount(len(told), 'finding')}:" if len(told) > most else "", label="The worst" if len(told) > most else ""
    )
    body.bullets([*lines, *([rest.removesuffix("s")] if rest else [])], most=most + 1)
    if len(causes) > 1:
        named = [f"{code} {cause}, {resource}: {words.amount(n, 'finding')}" for (code, cause, resource), n in causes.items()]
        body.words(words.amount(len(causes), "cause"), label="Behind it").bullets(named, most=6)
    return body


def alert(alert: Json, actions: Sequence[Action | Menu] = ()) -> Message:
    """The message of one alert, or of several that are told together, edited through its life.

    {"id", "state": firing|flapping|unknown|closed|resolved|pending, "finding": FINDING (the worst), "others_told": [FINDING], "routes": [ROUTE], "since":
    epoch s, "resolved_at": epoch s or None, "ended_by", "why": reason of unknown, "picture": {"id", "alt"} or None, "others": int, "flapping":
    {"firings", "minutes"} or None, "ack": {"by", "until"} or None, "notes": [{"by", "at", "text"}], "closed": {"by", "at", "why", "share"} or None, "silence": {"by", "until", "why"} or None, "escalation": {"step", "of", "next":
    epoch s or None} or None, "mention": ids of who is meant, "team", "links": Links}.
    """
    finding, state, name = alert["finding"], alert["state"], short(alert["finding"]["host"])
    together = bool(alert.get("others_told"))
    found = words.rules(alert["routes"])
    everyone = [v for r in found for v in r.viewpoints]
    title, cluster = _alert_title(alert, found), cut(clean(finding["cluster"]), 60)
    elsewhere = state in {"firing", "flapping"} and words.elsewhere(finding["failing_share"], finding, found)
    ended = alert.get("resolved_at") if state == "resolved" else None
    body, said = Rich(), words.impact(finding["host"], finding["failing_share"], finding, found)
    match state:
        case "resolved":
            body.words(alert.get("ended_by") or "The cause is gone; what removed it is not known.", label="What made it well")
            body.words(f"{percent(finding['failing_share'])} of requests failed. {clean(finding['message'])}", label="What it was")
        case "unknown":
            body.words(alert.get("why") or "What this needs cannot be read.", label="Not known now")
            if not together:
                body.words(said, label="Last known")
        case "closed" if not together:
            body.words(said, label="Still seen")
        case _ if not together:
            body.words(said)
        case _:
            pass
    if state != "resolved":
        fix = cut(clean(finding["fix"]), 500)
        if finding["patch"] and fix and not together:
            fix = f"{fix.rstrip(':. ')}. The patch is in the thread."
        if not together or len(_causes(alert)) == 1:
            body.words(finding["message"] if together else words.because(finding, said), label="Why").words(fix, label="Fix")
        if together:
            body.elements += _worst(alert).elements
    facts = fragment(
        "facts",
        cluster=finding["cluster"],
        since=alert["since"],
        ended=ended,
        whom="" if together else words.whom(finding["viewpoints"], everyone),
        code=finding["code"],
        cause=finding["cause"],
        resource=finding["resource"],
        team=alert.get("team") or "",
    )
    if together:  # for whom and, of several causes, which and where: the list says it
        facts = [
            f
            for f in facts
            if not f.startswith("*For*") and (len(_causes(alert)) == 1 or f.startswith(("*Cluster*", "*Since*", "*Lasted*", "*Team*")))
        ]
    standing = _standing(alert)
    shown = alert.get("picture")
    others = alert.get("others") or 0
    ask = code(f"/mesh why {cut(name, 180)}")
    more = [context(Mrkdwn(f"{words.amount(others, 'other finding')} on this host: {ask}"))] if others else []
    return _say(
        f"{escape(f'{title} · {cluster}')} · since {date(alert['since'])}",
        [
            header(title),
            *_mentioned(alert),
            *_called_done(alert),
            *body.blocks(),
            fields(facts),
            *Rich().preformatted(_trees(found, most=2, elsewhere=elsewhere), limit=3200).blocks(),
            *([picture(shown["id"], shown["alt"])] if shown else []),
            *more,
            *_linked(alert.get("links") or ()),
            *([context(*standing)] if standing else []),
            *buttons(actions),
        ],
    )


def outage(lost: Json, actions: Sequence[Action | Menu] = ()) -> Message:
    """The message of a cluster that cannot be read: {"cluster", "resolved", "since", "resolved_at", "why", "frozen": alerts that stay as they were,
    "flapping", "ack", "silence", "mention" as for `alert`}.
    """  # noqa: D205 - the form is part of the sentence
    cluster = cut(clean(lost["cluster"]), 60)
    body = Rich()
    if lost["resolved"]:
        lasted = words.duration((lost["resolved_at"] or lost["since"]) - lost["since"])
        title = f"Resolved after {lasted}: {cluster} can be read again"
        body.words(lost["why"], label="What it was")
    else:
        title = f"{cluster} cannot be read"
        frozen = words.amount(lost["frozen"], "alert")
        kept = (
            f"{frozen} of it {'stays as it is' if lost['frozen'] == 1 else 'stay as they are'}"
            if lost["frozen"]
            else "No alert of it is open"
        )
        body.words(lost["why"], label="Why").words(
            f"{kept}, and nothing about it is known or resolved until it can be read again.", label="What it means"
        )
        body.words("meshwhy doctor tries every step of the way in and says how to mend what fails.", label="Fix")
    standing = _standing(lost)
    since = [Mrkdwn(f"Since {date(lost['since'])}")]
    return _say(
        f"{escape(title)} · since {date(lost['since'])}",
        [
            header(title),
            *_mentioned(lost),
            *_called_done(lost),
            *body.blocks(),
            context(*since),
            *([context(*standing)] if standing else []),
            *buttons(actions),
        ],
    )


def _standing(alert: Json) -> list[Mrkdwn]:
    """How an alert stands: what people did about it, its escalation, and the last notes."""
    known = ("flapping", "ack", "silence", "escalation", "severity", "incident")
    return fragment("standing", **{key: alert.get(key) for key in known}, notes=list(alert.get("notes") or ())[-2:])


def _called_done(alert: Json) -> list[Block]:
    """Who called it done although it is seen; nothing where it is not."""
    closed = alert.get("closed")
    over = alert.get("state") == "resolved" or alert.get("resolved")
    return [section(p) for p in fragment("closed", **closed, over=over)] if closed else []


def _mentioned(alert: Json) -> list[Block]:
    mention = alert.get("mention") or ()
    return [section(p) for p in fragment("mentioned", mention=mention)] if mention else []


def step(reason: Json) -> Message:
    """One line of an alert's thread: {"reason": fired|changed|unknown|resolved|…, "at": epoch s, "text", "by" and "to": user id or "", "where": channel id or "", "until": epoch s or None}."""
    (text,) = fragment(
        "step",
        mark=_STEP_MARKS.get(reason["reason"], "·"),
        at=reason["at"],
        reason=reason["reason"],
        text=escape(cut(clean(reason.get("text") or ""), 500)),
        by=reason.get("by") or "",
        to=reason.get("to") or "",
        where=reason.get("where") or "",
        until=reason.get("until"),
    )
    return _say(text, [section(text)])


def escalated(asked: Json) -> Message:
    """The line that asks somebody to see to an alert: {"to": id of a person or user group or "", "words": what else is asked, "step", "of", "by": user id or "", "at": epoch s, "text",
    "waited": s, "late": s or None, "appeal": {"severity", "why", "tried"} or None}.
    """  # noqa: D205 - the form is part of the sentence
    said = {**asked, "text": escape(cut(clean(asked["text"]), 400)), "waited": words.duration(asked["waited"])}
    said["late"] = words.duration(asked["late"]) if asked["late"] else ""
    appeal = asked.get("appeal")
    said["appeal"] = {**appeal, "tried": words.one_line(appeal["tried"])} if appeal else None
    told = fragment("escalated", **said)
    return _say(Mrkdwn(" ".join(told)), [section(p) for p in told])


def details(alert: Json, actions: Sequence[Action] = ()) -> list[Message]:
    """What an alert's thread starts with: the repair with its patch, then the proof and the commands that show the same; `actions` come with the patch."""
    finding: Mapping[str, Any] = alert["finding"]
    name = cut(short(finding["host"]), 100)
    told: list[Message] = []
    if finding["fix"] or finding["patch"]:
        repair = Rich().words(finding["fix"], label="Fix").preformatted(finding["patch"] or "", limit=6000)
        pressed = buttons(actions) if finding["patch"] else []
        told.append(_say(escape(f"How to repair {name}"), [*repair.blocks(), *pressed]))
    proof = (
        Rich().words(" ".join(x for x in (finding["resource"], finding["path"]) if x), label="Proof").bullets(finding["evidence"], most=12)
    )
    if finding["commands"]:
        proof.words("the same by hand:", label="See").preformatted("\n".join(finding["commands"]), limit=2000)
    if finding["same_as"]:
        proof.words(", ".join(finding["same_as"]), label="Also known as")
    told.append(_say(escape(f"What shows it for {name}"), proof.blocks()))
    return told


_LOOKS = {"ok": "✓", "bad": "✗", "skipped": "–", "running": "…"}


def runbook(told: Json) -> Message:
    """The steps of a runbook as far as they are taken: {"host", "others": hosts beside it, "verdict", "failing_share", "steps", "running", "took_s", "found"}.

    A step is {"id", "title", "stands_for", "state": ok|bad|skipped|running, "said", "proof", "command"}; "found" are the findings of running parts.
    """
    steps = told["steps"]
    done = [s for s in steps if s["state"] != "running"]
    bad = sum(s["state"] == "bad" for s in steps)
    unseen = sum(s["state"] == "skipped" for s in steps)
    name = cut(short(told["host"]), 80)
    counted = f"{len(done)} of {len(steps)} steps" if told["running"] else f"{len(steps)} steps"
    parts = [f"{bad} show{'s' if bad == 1 else ''} the fault" if bad else "none shows a fault", f"{unseen} not looked at" if unseen else ""]
    title = f"Runbook of {name}: {counted}, {', '.join(p for p in parts if p)}"
    blocks = [section(Mrkdwn(f"*{escape(title)}*"))]
    for finding in told["found"][:3]:
        said = Rich().words(finding["message"], label="✗ Running parts show", tail=words.cause_name(finding))
        blocks += said.words(finding["fix"], label="Fix").blocks()
    for s in steps:
        if s["state"] == "running":
            blocks += Rich().words("is being looked at", label=f"{_LOOKS['running']} {s['title']}").blocks()
        elif s["state"] != "skipped":
            look = Rich().words(s["said"], label=f"{_LOOKS[s['state']]} {s['title']}").bullets(s["proof"], most=4)
            if s["state"] == "bad":
                look.preformatted(s["command"], limit=400)
            blocks += look.blocks()
    if unseen:
        blocks += (
            Rich()
            .words("and why:", label="– Not looked at")
            .bullets([f"{s['title']}: {s['said']}" for s in steps if s["state"] == "skipped"], most=10)
            .blocks()
        )
    small = [
        f"took {told['took_s']:.1f} s" if told.get("took_s") is not None else "",
        f"the worst of {told['others'] + 1} hosts that this message speaks for" if told["others"] else "",
    ]
    if any(small):
        blocks.append(context(escape(" · ".join(s for s in small if s))))
    return _say(escape(title), blocks)


OLDER = "audit_older"
"""action_id of the button that turns to older entries of the audit."""


def audit(rows: Sequence[Json], older: str) -> Message:
    """What people did, the newest first: {"at", "by", "verb", "via", "channel", "about": names, "result", "why"} each; `older` is the value of the button
    that turns the page, empty on the last.
    """  # noqa: D205 - the form is part of the sentence
    title = words.amount(len(rows), "entry") if rows else "Nothing is on record"
    told = [fragment("audit_row", **{**row, "about": words.listed([clean(n) for n in row["about"]], most=3)})[0] for row in rows]
    page = [section(Mrkdwn("\n".join(told[n : n + 5]))) for n in range(0, len(told), 5)]
    return _say(escape(title), [header(title), *page, *buttons([("Older", OLDER, older, None)] if older else [])])


# -- what people do about alerts ------------------------------------------------------------------------------------------------------

SILENCED = "silenced"
"""callback_id of the modal that silences an alert; its blocks are WHAT, LONG and REASON, each with an action_id of the same name."""
WHAT, LONG, REASON = "what", "long", "reason"


def already(did: str, by: str, until: float | None) -> Message:
    """Somebody (a user's id) did it before: ack, unack, silence, unsilence or escalate; `until` when (epoch s), if it ends."""
    (text,) = fragment("already", did=did, by=by, until=until)
    return _say(text, [section(text)])


_DEEDS = {
    "why": "Asking about",
    "routes": "Asking about",
    "changes": "Asking about",
    "broken": "Looking at what is broken",
    "whatif": "Weighing changes of",
    "patch": "Asking for the patch of",
    "alerts": "Looking at the alerts",
    "clusters": "Looking at the clusters",
    "explain": "Asking about",
    "home": "Looking at the Home",
    "share": "Sharing answers",
    "ack": "Seeing to",
    "unack": "Giving back",
    "silence": "Silencing",
    "unsilence": "Ending a silence of",
    "handover": "Handing over",
    "note": "Noting something about",
    "resolve": "Calling done",
    "reopen": "Reopening",
    "incident": "Opening a channel for",
    "escalate": "Escalating",
    "audit": "Reading the audit",
}


_CHANGING = frozenset({"ack", "unack", "handover", "note", "resolve", "reopen", "incident", "silence", "unsilence", "escalate"})


def denied(verb: str, names: Sequence[str], may: Sequence[str], unread: Mapping[str, str]) -> Message:
    """Somebody may not do a thing: about what, who may (ids of people, groups and channels, or their names), and of whom Slack does not say who they are."""
    deed, nothing = _DEEDS.get(verb, "This"), "nothing was changed" if verb in _CHANGING else ""
    told = fragment(
        "denied",
        deed=deed if names else deed.removesuffix(" of").removesuffix(" about"),
        names=words.listed([clean(n) for n in names], most=3),
        may=list(may)[:12],
        unread=words.listed(f"{who} ({why})" for who, why in unread.items()),
        nothing=nothing,
    )
    return _say(" ".join(told), [section(t) for t in told])


def stranger() -> Message:
    """Somebody of a workspace that is not answered."""
    return error("I answer the people of my own workspace, and of those that my settings name (slack.teams). Yours is none of them.")


def done(sentence: str) -> Message:
    """What was done, in one sentence."""
    return error(sentence)


def postmortem(facts: Json) -> Message:
    """What is said with the draft of a post-mortem: how long it lasted, and who saw to it when; the form of `templates.postmortem`."""
    (text,) = fragment(
        "postmortem",
        lasted=words.duration(facts["ended"] - facts["began"]),
        by=facts["acked_by"] or "",
        after=words.duration(max(facts["acked"] - facts["fired"], 0.0)) if facts["acked"] is not None else "",
    )
    return _say(text, [section(text)])


def ended(rows: Sequence[Json], since: float, *, most: int = 20, left_out: int = 0) -> Message:
    """What ended since then, of each cause and team: {"cause", "team", "count", "acked", "to_ack", "to_resolve": {"median", "p90"} in seconds or None}."""
    count = sum(r["count"] for r in rows)
    title = f"{words.amount(count, 'alert')} ended since {words.clock(since)}" if rows else f"No alert ended since {words.clock(since)}"
    body = Rich()
    for r in rows[:most]:
        acked = (
            f"{r['acked']} of them seen to, {_spread(r['to_ack'])}"
            if r["acked"]
            else "nobody saw to them"
            if r["count"] > 1
            else "nobody saw to it"
        )
        body.words(f"{r['team'] or 'no team'}: {acked}; well again {_spread(r['to_resolve'])}", label=f"{r['count']}×", tail=r["cause"])
    if len(rows) > most:
        body.words(f"and {len(rows) - most} causes more.")
    return _say(escape(title), [header(title), *body.blocks(), *_left_out(left_out, "alert")])


def _spread(seconds: Json | None) -> str:
    if seconds is None:
        return ""
    median, most = words.duration(seconds["median"]), words.duration(seconds["p90"])
    return f"after {median}" if median == most else f"after {median} (median), {most} (9 of 10)"


def alerts(rows: Sequence[Json], silences: Sequence[Json], end: str, *, most: int = 20, left_out: int = 0) -> Message:
    """The open alerts, one line a message, the worst first, and the silences with a button `end` (an action_id) each.

    A row is {"share", "hosts": names, "cause", "since", "unknown": epoch s or None, "flapping", "ack", "silenced"}; a silence {"id", "match": {},
    "until", "by", "why"}. `left_out` alerts the reader may not see.
    """
    title = f"{words.amount(len(rows), 'alert')} open" if rows else "No alert is open"
    blocks = [header(title)]
    for row in rows[:most]:
        mark = "?" if row["unknown"] else "✗"
        told = fragment("alert_row", **{**row, "mark": mark, "share": percent(row["share"]), "hosts": words.listed(row["hosts"], most=3)})
        blocks.append(section(told[0]))
    if len(rows) > most:
        blocks.append(section(Mrkdwn(f"and {len(rows) - most:,} more.")))
    if silences:
        blocks.append(section(Mrkdwn("*Silences*")))
    for silence in silences[:most]:
        blocks.append(section(fragment("silence_row", **{**silence, "match": matchers(silence["match"])})[0]))
        blocks += buttons([("End silence", end, silence["id"], None)])
    return _say(escape(title), [*blocks, *_left_out(left_out, "alert")])


def matchers(match: Mapping[str, str]) -> str:
    """`cluster=east host=cart.shop.*`."""
    return " ".join(f"{key}={value}" for key, value in match.items())


def silence_modal(choices: Sequence[tuple[str, str]], durations: Sequence[tuple[str, str]], kept: str) -> Block:
    """The modal that asks what to silence (labels and what comes back), for how long, and why."""
    inputs = [
        choice_input(WHAT, "What", [(cut(clean(label), 75), value) for label, value in choices]),
        choice_input(LONG, "For how long", durations),
        text_input(REASON, "Why", "maintenance of east until noon", hint="Everybody who reads the alert sees this."),
    ]
    return modal(SILENCED, "Silence", "Next", inputs, kept)


SILENCE_SURE = "silence_sure"
"""callback_id of the dialog that shows what a silence would do before it does it."""


def silence_sure(silence: Json, fits: int, kept: str) -> Block:
    """The dialog that shows the matchers of a silence, how many alerts that fire now are among it, and until when, before it applies."""
    told = fragment(
        "silence_sure",
        match=[f"{key}={value}" for key, value in silence["match"].items()],
        fits=words.amount(fits, "alert"),
        until=silence["until"],
        why=silence["why"],
    )
    return modal(SILENCE_SURE, "Silence", "Silence", [section(t) for t in told], kept)
