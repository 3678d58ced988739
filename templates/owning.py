"""What is asked and answered when people see to alerts: dialogs and their sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates.blocks import (
    Block,
    Message,
    Mrkdwn,
    checkbox_input,
    choice_input,
    context,
    date,
    escape,
    fit,
    fragment,
    header,
    modal,
    moment_input,
    person,
    person_input,
    section,
    text_input,
)
from templates.words import Json, clean, cut, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OWN = "own"
"""callback_id of the dialogs of an alert's menu; their blocks are PERSON, MOMENT and TEXT, each with an action_id of the same name."""
PERSON, MOMENT, TEXT = "person", "moment", "text"
_HOUR_S = 3600.0
_MOST = 1_500


def dialog(word: str, now: float, kept: str) -> Block:
    """The dialog for what was chosen in an alert's menu: until, hand, note or close; `kept` is given back with what people put in."""
    title, submit, inputs = _dialog(word, now)
    return modal(OWN, title, submit, inputs, kept)


def _dialog(word: str, now: float) -> tuple[str, str, Sequence[Block]]:
    match word:
        case "until":
            return "Ack until", "Ack", [moment_input(MOMENT, "You see to it until", now - now % 900 + 2 * _HOUR_S)]
        case "hand":
            said = text_input(
                TEXT, "What they should know", "rolled back v2; waiting for pods", most=_MOST, hint="Becomes a note in the thread."
            )
            return "Hand over", "Hand over", [person_input(PERSON, "Who sees to it from now on"), said]
        case "note":
            said = text_input(
                TEXT,
                "How it stands",
                "rolling back to v1, five minutes",
                most=_MOST,
                needed=True,
                hint="Stands on the alert and in its thread.",
            )
            return "Status note", "Note", [said]
        case _:
            still = context(
                Mrkdwn("What is still seen stays on the message; it is told again when it is gone and comes back, or gets worse.")
            )
            said = text_input(
                TEXT,
                "Why is it done",
                "rolled back to v1 at 14:10",
                most=_MOST,
                needed=True,
                hint="Everybody who reads the alert sees this.",
            )
            return "Call it done", "Call it done", [said, still]


def handed(hosts: str, to: str) -> Message:
    """That a person (an id) sees to it now."""
    return _one(Mrkdwn(f"{person(to)} sees to {escape(hosts)} now."))


def until(moment: float) -> Message:
    """That somebody sees to it until a moment."""
    return _one(Mrkdwn(f"You see to it until {date(moment)}."))


def closed(hosts: str) -> Message:
    """That something was called done which is still seen."""
    return _one(
        escape(
            f"You called {hosts} done. The fault is still seen: nobody is told of it again until it is gone and comes back, gets worse, or is reopened."
        )
    )


SEVERITIES = (
    ("SEV1", "SEV1: users are hit, everybody who can help"),
    ("SEV2", "SEV2: users are hit in part, or will be"),
    ("SEV3", "SEV3: nobody is hit yet"),
)
ESCALATION = "escalation"
"""callback_id of the dialog that escalates; its blocks are SEVERITY, TEXT (why), TRIED and CHANNEL."""
SEVERITY, TRIED, CHANNEL = "severity", "tried", "channel"


def escalation(asked: Json, tried: str, kept: str, *, channel: bool) -> Block:
    """The dialog that escalates: who is asked next, {"who": id or "", "words": of the settings, "step", "of"}, what is known to be tried, and whether a channel can be opened."""
    (next_,) = fragment("next_asked", **asked)
    inputs = [
        section(next_),
        choice_input(SEVERITY, "How bad is it", [(label, value) for value, label in SEVERITIES], first=1),
        text_input(
            TEXT, "Why", "v1 does not start, and I do not know its image", most=_MOST, needed=True, hint="Who is asked reads it first."
        ),
        text_input(TRIED, "What was tried", "rolled back v2", most=_MOST, filled=tried, hint="Filled in from the notes and the thread."),
    ]
    if channel:
        inputs.append(checkbox_input(CHANNEL, "And", [("Open a channel for it, and invite who is asked", CHANNEL)]))
    return modal(ESCALATION, "Escalate", "Escalate", inputs, kept)


def topic(says: Iterable[str], most: int) -> str:
    """The topic of an incident's channel, at most so many characters."""
    return cut(" · ".join(clean(s) for s in says if s), most)


def no_channel(why: str) -> str:
    """Why there is no channel: Slack's word for it."""
    known = {
        "restricted_action": "this workspace does not let apps open channels",
        "missing_scope": "the Slack app lacks the scope channels:manage; meshwhy doctor says how to add it",
        "name_taken": "every name for it is taken",
    }
    return f"could be opened: {known.get(why, f'Slack refuses it ({why})')}."


def incident(told: Json) -> Message:
    """The first message of an incident's channel.

    {"link": of the alert, "by", "owner": user ids or "", "says", "message", "fix", "severity", "why", "tried", "missing": ids whom Slack did not let in}.
    """
    paragraphs = fragment("incident", **{**told, "tried": one_line(told["tried"])})
    return fit(Message(escape(cut(told["says"], 300)), (header(told["says"]), *map(section, paragraphs))))


def _one(text: Mrkdwn) -> Message:
    return fit(Message(text, (section(text),)))
