"""What is said of alerts: the message of one, or of several that one cause made, as it should stand now, and the lines of its thread.

What must stay true: the message is made of the alerts alone, so that it is the same whoever makes it; what happened is said in the thread,
one line for one thing that happened, however many alerts it happened to.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from bot.alerts import FLAP_S, OUTAGE, QUIET, Alert, Reason, State, escalates
from bot.recall import memo
from bot.store import Draft, Line, Picture, Step
from checks import diagnosis
from checks.diagnosis import UnknownHost
from templates import messages, picture
from templates.blocks import Message
from templates.words import listed, percent, short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from bot.alerts import Note, Receiver
    from bot.routing import Asked
    from checks.diagnosis import Sweep
    from checks.mesh import Mesh
    from templates.blocks import Action, Menu
    from templates.messages import Links

_DONE = frozenset(
    {Reason.ACKED, Reason.UNACKED, Reason.HANDED, Reason.NOTED, Reason.CLOSED, Reason.REOPENED, Reason.ESCALATED, Reason.OPENED}
)
_LOUD = _DONE | {Reason.RESOLVED, Reason.SILENCED, Reason.UNSILENCED, Reason.WORSE}
"""What is said in the thread of a silenced alert as well: how it ends, and what people do."""
_WORDS = {
    Reason.FIRED: "fired",
    Reason.FIRED_AGAIN: "fired",
    Reason.SHARE_CHANGED: "changed",
    Reason.UNKNOWN: "unknown",
    Reason.ACKED: "acknowledged",
    Reason.ACK_LAPSED: "no longer acknowledged",
}
_LATE_S = 60.0  # an escalation that comes this much after its time says so
_UNSAID = QUIET | {Reason.REWORDED, Reason.FLAPPED}
"""What the message shows, and no line repeats."""


class Moved(NamedTuple):
    """An alert before and after one look, and what happened to it in between, each with the person who did it (else empty)."""

    before: Alert | None
    after: Alert
    happened: tuple[tuple[Reason, str], ...]

    @property
    def told(self) -> bool:
        """Whether anything of it is to be read by anybody."""
        return any(reason not in QUIET for reason, _ in self.happened)


def drafts(
    members: Sequence[Alert], to: Sequence[Receiver], mesh: Mesh | None, escalation: Sequence[float] = (), team: str = "", links: Links = ()
) -> list[Draft]:
    """The message that speaks for these alerts, the worst first, as it should stand now in each of its places. `mesh` is the worst one's."""
    facts = {**_facts(members, mesh, escalation), "team": team, "links": links}
    lead, open_ = members[0], [a for a in members if a.state is not State.RESOLVED]
    resolved = not open_
    drawing = (
        _picture(lead, facts["routes"]) if len(members) == 1 and facts["state"] in {"firing", "flapping"} and facts["routes"] else None
    )
    actions = () if resolved else _buttons(lead, escalation)
    one = Draft(
        id=lead.message,
        alert=lead.id,
        channel="",
        message=Message(""),
        picture=drawing,
        resolved=resolved,
        share=lead.finding.failing_share,
        memo=memo(members),
    )
    return _copies(one, to, lambda mention: messages.alert({**facts, "mention": () if resolved else mention}, actions))


def outage(alert: Alert, to: Sequence[Receiver], frozen: int, escalation: Sequence[float] = ()) -> list[Draft]:
    """The message that a cluster cannot be read, and how many alerts it leaves as they were, in each of its places."""
    facts = {
        "cluster": alert.finding.cluster,
        "resolved": alert.state is State.RESOLVED,
        "since": alert.since,
        "resolved_at": alert.resolved_at,
        "why": alert.finding.message,
        "frozen": frozen,
        **_standing(alert, escalation),
    }
    buttons = () if alert.state is State.RESOLVED else [b for b in _buttons(alert, escalation) if b[1] != WHY]
    over = alert.state is State.RESOLVED
    one = Draft(id=alert.message, alert=alert.id, channel="", message=Message(""), resolved=over, share=1.0, memo=memo([alert]))
    return _copies(one, to, lambda mention: messages.outage({**facts, "mention": () if over else mention}, buttons))


def digest(ident: str, swept: Sweep, place: Receiver, late: float) -> Draft:
    """The list of what is broken and at risk; it is not edited later."""
    message = messages.digest(msgspec.to_builtins(swept), late=late if late > _LATE_S else 0.0, mention=place.mention)
    return Draft(id=ident, alert="", channel=place.place, message=message, resolved=True)


def notice(ident: str, sentence: str, channel: str) -> Draft:
    """A sentence about the bot itself for those who run it."""
    return Draft(id=ident, alert="", channel=channel, message=messages.notice(sentence), resolved=True)


def _copies(one: Draft, to: Sequence[Receiver], worded: Callable[[tuple[str, ...]], Message]) -> list[Draft]:
    """The message in each of its places; the first one has its id, and buttons mean the same everywhere."""
    made: dict[tuple[str, ...], Message] = {}
    for receiver in to:
        if receiver.mention not in made:
            made[receiver.mention] = worded(receiver.mention)
    return [
        replace(one, id=f"{one.id}@{r.place}" if i else one.id, channel=r.place, parents=r.parents, message=made[r.mention])
        for i, r in enumerate(to)
    ]


def lines(
    moved: Sequence[Moved],
    members: Sequence[Alert],
    mesh: Mesh | None,
    now: float,
    outages: Collection[str] = (),
    escalation: Sequence[float] = (),
    asked: Sequence[Asked] = (),
) -> list[Step]:
    """What the thread is told of one look: one line for each thing that happened, and with the first firing what repairs and shows it.

    That a whole cluster cannot be read, or can be again, its own message says: `outages` are the clusters that have one. `asked` are those whom
    the steps of the escalation ask.
    """
    said: list[Message] = []
    aloud: set[int] = set()
    for reason in Reason:
        group = [(m, by) for m in moved for r, by in m.happened if r is reason]
        loud = [(m, by) for m, by in group if m.after.silence is None or reason in _LOUD]
        if reason in {Reason.SILENCED, Reason.UNSILENCED}:  # hours and mutes come and go each day: the message shows them
            loud = [(m, by) for m, by in loud if (m.after if reason is Reason.SILENCED else m.before or m.after).silenced_by]
        if reason in {Reason.UNKNOWN, Reason.KNOWN_AGAIN}:
            loud = [(m, by) for m, by in loud if m.after.finding.cluster not in outages]
        if reason in _UNSAID or not loud or (reason is Reason.ESCALATED and not asked):
            continue
        if reason is Reason.ESCALATED:
            aloud.add(len(said))
            said.append(_escalated([m for m, _ in loud], loud[0][1], now, escalation, asked))
            continue
        if reason is Reason.NOTED:
            said += _notes([m for m, _ in loud])
            continue
        said.append(_line(reason, [m for m, _ in loud], loud[0][1], now))
        if reason is Reason.FIRED and len(moved) == len(members) and members[0].finding.cause != OUTAGE:
            said += messages.details(_facts(members, mesh), _patch(members))
    return [Step(id=f"{members[0].message}.{now:.3f}.{i}", message=line, aloud=i in aloud) for i, line in enumerate(said)]


def details(members: Sequence[Alert], mesh: Mesh | None) -> list[Step]:
    """What the thread of a message starts with where it is told later than elsewhere: what repairs and shows it."""
    if members[0].finding.cause == OUTAGE:
        return []
    return [
        Step(id=f"{members[0].message}.details.{i}", message=line)
        for i, line in enumerate(messages.details(_facts(members, mesh), _patch(members)))
    ]


def _patch(members: Sequence[Alert]) -> list[tuple[str, str, str, str | None]]:
    return [("Patch as a file", PATCH, members[0].message, None)]


def _facts(members: Sequence[Alert], mesh: Mesh | None, escalation: Sequence[float] = ()) -> dict[str, Any]:
    """The alerts in the form of `messages.alert`."""
    lead = members[0]
    open_ = [a for a in members if a.state is not State.RESOLVED]
    unknown = lead.unknown_since is not None
    state = "resolved" if not open_ else "unknown" if unknown else "flapping" if lead.flapping else lead.state.value
    routes: Any = []
    others = 0
    if mesh is not None and len(members) == 1:
        with suppress(UnknownHost):
            told = diagnosis.diagnose(lead.finding.host, mesh)
            near = {lead.finding.cluster, *(v.cluster for v in lead.finding.viewpoints)}
            routes = msgspec.to_builtins([r for r in told.routes if r.viewpoint.cluster in near])
            others = max(len(told.findings) - 1, 0)
    return {
        "id": lead.message,
        "state": state,
        "finding": msgspec.to_builtins(lead.finding),
        "others_told": [msgspec.to_builtins(a.finding) for a in open_[1:]]
        if open_
        else [msgspec.to_builtins(a.finding) for a in members[1:]],
        "routes": routes,
        "since": min(a.since for a in members),
        "resolved_at": max((a.resolved_at or 0.0 for a in members), default=0.0) or None if not open_ else None,
        "ended_by": _sentence(lead.well_by),
        "why": lead.unknown_why,
        "unknown_since": lead.unknown_since,
        "picture": None,
        "others": others if open_ else 0,
        **_standing(lead, escalation),
    }


def _standing(lead: Alert, escalation: Sequence[float]) -> dict[str, Any]:
    """Whether it flaps, who sees to it, what silences it, and where its escalation is."""
    silenced = lead.silence is not None and lead.state is not State.RESOLVED
    return {
        "flapping": {"firings": len(lead.recent), "minutes": int(FLAP_S / 60)} if lead.flapping else None,
        "ack": msgspec.to_builtins(lead.ack) if lead.ack is not None else None,
        "silence": msgspec.to_builtins(lead.silence) if silenced else None,
        "notes": msgspec.to_builtins(lead.notes),
        "severity": lead.appeal.severity if lead.appeal is not None else "",
        "incident": lead.incident,
        "closed": msgspec.to_builtins(lead.closed) if lead.closed is not None else None,
        "escalation": {"step": lead.escalated, "of": len(escalation), "next": escalates(lead, escalation)}
        if escalation and lead.state is State.FIRING
        else None,
    }


ACK, UNACK, SILENCE, UNSILENCE, WHY = "alert_ack", "alert_unack", "alert_silence", "alert_unsilence", "alert_why"
ESCALATE, REOPEN, MORE, PATCH = "alert_escalate", "alert_reopen", "alert_more", "alert_patch"
UNTIL, HAND, NOTE, CLOSE, INCIDENT = "until", "hand", "note", "close", "incident"
"""What MORE offers; what is chosen comes back as the word, a space and the id of the message."""
_MORE = (
    (UNTIL, "Ack until …"),
    (HAND, "Hand over …"),
    (NOTE, "Status note …"),
    (CLOSE, "Call it done …"),
    (INCIDENT, "Open a channel for it"),
)
"""action_ids of an alert's buttons. The value is the id of its message; of WHY its alert's, whose host is diagnosed anew; of UNSILENCE the silence's."""


def _buttons(lead: Alert, escalation: Sequence[float]) -> list[Action | Menu]:
    if lead.state is State.CLOSED:
        return [("Reopen", REOPEN, lead.message, None), ("Why", WHY, lead.id, None)]
    own = ("Ack", ACK) if lead.ack is None else ("Give back", UNACK)
    quiet = ("Silence", SILENCE, lead.message) if lead.silence is None else ("End silence", UNSILENCE, lead.silence.id)
    if lead.silence is not None and not lead.silence.by:  # the settings' own, which nobody ends
        quiet = ("Silence", SILENCE, lead.message)
    more = [("Escalate", ESCALATE, lead.message, None)] if lead.escalated < len(escalation) else []
    menu = (MORE, [(label, f"{word} {lead.message}") for word, label in _MORE if word != INCIDENT or not lead.incident])
    return [(*own, lead.message, None), ("Why", WHY, lead.id, None), (*quiet, None), *more, menu]


def _sentence(changes: tuple[str, ...]) -> str:
    return "; ".join(changes) + "." if changes else ""


def chronicle(moved: Sequence[Moved], now: float, asked: Sequence[Asked] = ()) -> list[Line]:
    """What happened in one look, for who reads it when it is over: everything, in words without a form."""
    told: list[Line] = []
    for reason in Reason:
        group = [(m, by) for m in moved for r, by in m.happened if r is reason]
        if not group or reason in QUIET or reason is Reason.REWORDED:
            continue
        if reason is Reason.NOTED:
            told += [Line(at=n.at, reason=reason.value, text=n.text, by=n.by) for n in _new_notes([m for m, _ in group])]
            continue
        line = _happened(reason, [m for m, _ in group], group[0][1])
        if reason is Reason.ESCALATED:
            step = max(m.after.escalated for m, _ in group)
            who = asked[step - 1] if 0 < step <= len(asked) else None
            line |= {"text": f"step {step} of {len(asked)}", "to": who.to or who.words if who is not None else ""}
        told.append(Line(at=now, reason=line["reason"], text=line["text"], by=line["by"], to=line["to"]))
    return told


def _line(reason: Reason, moved: Sequence[Moved], by: str, now: float) -> Message:
    """One line of the thread: what happened, to which hosts if there are several, with its proof."""
    return messages.step({**_happened(reason, moved, by), "at": now})


def _happened(reason: Reason, moved: Sequence[Moved], by: str) -> dict[str, Any]:
    """What happened in words, in the form of `messages.step`."""
    first, words = moved[0], _WORDS.get(reason, reason.value)
    if reason is Reason.UNSILENCED and not by:
        words = "the silence is over"
    after = first.after
    if len(moved) > 1 and reason is not Reason.CLOSED:
        text = _hosts(m.after for m in moved)
    else:
        match reason:
            case Reason.CLOSED if after.closed is not None:
                seen = f"The fault is still seen: {after.finding.message}" if after.well_since is None else "It is not seen now."
                text = f"{after.closed.why.rstrip('.')}. {seen}"
            case Reason.FIRED_AGAIN:
                text = f"again, {after.firings} times now: {after.finding.message}"
            case Reason.FLAPPING:
                text = f"{len(after.recent)} times in {int(FLAP_S / 60)} min; it is edited above and not told here again until it stays as it is"
            case Reason.STEADY:
                text = f"it has failed for {int(FLAP_S / 60)} min without a break: {after.finding.message}"
            case Reason.SHARE_CHANGED if first.before is not None:
                was, now_is = percent(first.before.finding.failing_share), percent(after.finding.failing_share)
                text = f"from {was} to {now_is}: {after.finding.message}"
            case Reason.UNKNOWN:
                text = after.unknown_why
            case Reason.RESOLVED:
                text = _sentence(after.well_by)
            case Reason.UNSILENCED if not by:
                text = f"it fails still: {after.finding.message}"
            case Reason.ROUTED:
                known = {r.place for r in first.before.places} if first.before is not None else set()
                text = listed(r.place if r.place[0] in "#C" else "a direct message" for r in after.places if r.place not in known)
            case Reason.ACKED | Reason.UNACKED | Reason.ACK_LAPSED | Reason.UNSILENCED | Reason.HANDED | Reason.OPENED:
                text = ""
            case Reason.SILENCED if after.silence is not None:
                text = after.silence.why
            case _:
                text = after.finding.message
    until = (
        after.ack.until
        if reason in {Reason.ACKED, Reason.HANDED} and after.ack
        else after.silence.until
        if reason is Reason.SILENCED and after.silence
        else None
    )
    person = after.silence.by if reason is Reason.SILENCED and after.silence is not None else by
    to = after.ack.by if reason is Reason.HANDED and after.ack is not None else ""
    where = after.incident if reason is Reason.OPENED else ""
    return {"reason": words, "text": text, "by": person, "to": to, "where": where, "until": until}


def _notes(moved: Sequence[Moved]) -> list[Message]:
    """A line for each note, at the time when it was said; several alerts of a message have the same ones."""
    return [messages.step({"reason": Reason.NOTED.value, "at": n.at, "text": n.text, "by": n.by}) for n in _new_notes(moved)]


def _new_notes(moved: Sequence[Moved]) -> list[Note]:
    new = {n: None for m in moved for n in m.after.notes if m.before is None or n not in m.before.notes}
    return sorted(new, key=lambda n: n.at)


def _escalated(moved: Sequence[Moved], by: str, now: float, escalation: Sequence[float], asked: Sequence[Asked]) -> Message:
    """The line that asks the next one to see to it, and how late it comes when nobody was there to say it in time."""
    first = max(moved, key=lambda m: m.after.escalated)
    lead = first.after
    who = asked[lead.escalated - 1]
    was_due = escalates(first.before, escalation) if first.before is not None else None
    late = now - was_due if was_due is not None else 0.0
    return messages.escalated(
        {
            "to": who.to,
            "words": who.words,
            "step": lead.escalated,
            "of": len(asked),
            "by": by,
            "at": now,
            "text": _hosts(m.after for m in moved) if len(moved) > 1 else lead.finding.message,
            "waited": now - (lead.told_at or lead.fired_at or now),
            "late": late if late > _LATE_S and not by else None,
            "appeal": msgspec.to_builtins(lead.appeal) if by and lead.appeal is not None and lead.appeal.by == by else None,
        }
    )


def _hosts(alerts: Iterable[Alert], most: int = 8) -> str:
    hosts = sorted({short(a.finding.host) for a in alerts})
    rest = f" and {len(hosts) - most:,} more" if len(hosts) > most else ""
    return f"{len(hosts):,} host{'s'[: len(hosts) != 1]}: {', '.join(hosts[:most])}{rest}"


def _picture(alert: Alert, routes: Any) -> Picture:
    finding = alert.finding
    verdict = "broken" if finding.failing_share >= 1 else "degraded"
    svg = picture.svg(finding.host, routes, verdict=verdict)
    return Picture(key=hashlib.blake2b(svg.encode(), digest_size=8).hexdigest(), svg=svg, alt=picture.alt(finding.host, routes))
