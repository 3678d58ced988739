"""`explain CODE`: one cause of the catalogue."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from checks import diagnosis
from checks.case import SAME_AS
from checks.catalogue import CAUSES, UNPATCHED
from checks.finding import cause
from handlers.errors import Unanswerable
from templates import messages, refusals

if TYPE_CHECKING:
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """The cause of a code or an id, with the page that its check carries; raises Unanswerable with the nearest ones."""
    word = asked.words.strip().strip("`'\"<>,?.")
    if not word:
        raise Unanswerable("Which cause? Write /mesh explain CODE, for example /mesh explain MESH101.")
    found = cause(word)
    if found is None:
        known = {**{i: i for i in CAUSES}, **{c.code.lower(): c.code for c in CAUSES.values()}}
        raise Unanswerable(refusals.no_check(word, [known[k] for k in difflib.get_close_matches(word.lower(), known, n=3)]))
    return messages.explain(
        found._asdict() | {"same_as": SAME_AS.get(found.id, ()), "no_patch": UNPATCHED.get(found.id)}, diagnosis.pages().get(found.id)
    )
