"""What is asked and answered when people see to alerts: dialogs and their sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates.blocks import (
    Block,
    Message,
    Mrkdwn,
    context,
    date,
    escape,
    fit,
    modal,
    moment_input,
    person,
    person_input,
    section,
    text_input,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
                TEXT, "How it stands", "rolling back to v1, five minutes", most=_MOST, hint="Stands on the alert and in its thread."
            )
            return "Status note", "Note", [said]
        case _:
            still = context(
                Mrkdwn("What is still seen stays on the message; it is told again when it is gone and comes back, or gets worse.")
            )
            said = text_input(
                TEXT, "Why is it done", "rolled back to v1 at 14:10", most=_MOST, hint="Everybody who reads the alert sees this."
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


def _one(text: Mrkdwn) -> Message:
    return fit(Message(text, (section(text),)))
