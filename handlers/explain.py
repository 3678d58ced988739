"""`explain CODE`: one cause of the catalogue; `explain ERROR`: what a text that somebody pasted means."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from checks import diagnosis
from checks.case import SAME_AS, same_as
from checks.catalogue import CAUSES, UNPATCHED
from checks.finding import cause
from checks.pasted import read
from handlers import pasted
from handlers.door import About
from handlers.errors import Unanswerable
from templates import messages, refusals

if TYPE_CHECKING:
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """The cause of a code or an id, with the page that its check carries; raises Unanswerable with the nearest ones."""
    word = _word(asked)
    if not word:
        raise Unanswerable("Which cause? Write /mesh explain CODE, for example /mesh explain MESH101, or paste an error behind the word.")
    also = same_as(word)
    found = cause(word) or (also[0] if len(also) == 1 else None)
    if len(also) > 1:
        raise Unanswerable(refusals.several_causes(word, [f"{c.code} {c.id}" for c in also]))
    if found is None:
        if _is_error(word):
            return await pasted.answer(asked)
        known = {**{i: i for i in CAUSES}, **{c.code.lower(): c.code for c in CAUSES.values()}}
        raise Unanswerable(refusals.no_check(word, [known[k] for k in difflib.get_close_matches(word.lower(), known, n=3)]))
    return messages.explain(
        found._asdict() | {"same_as": SAME_AS.get(found.id, ()), "no_patch": UNPATCHED.get(found.id)}, diagnosis.pages().get(found.id)
    )


async def about(asked: Asked) -> About:
    """The host that a pasted error names; causes are about no host."""
    word = _word(asked)
    return await pasted.about(asked) if cause(word) is None and _is_error(word) else About()


def _word(asked: Asked) -> str:
    return asked.words.strip().strip("`'\"<>,?.")


def _is_error(words: str) -> bool:
    """Whether it is a text and not the name of a cause."""
    return len(words.split()) > 1 or read(words).says
