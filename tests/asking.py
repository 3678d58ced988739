"""The command line asked in this process, for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bot import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from bot.settings import Settings


class Answer(NamedTuple):
    """What one command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def nobody(_: Settings) -> None:
    raise AssertionError("this command starts no bot")


def asking(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """How to ask, with what it prints."""

    def asked(*words: str) -> Answer:
        capfd.readouterr()
        status = commands.answer(words, nobody)
        out, err = capfd.readouterr()
        return Answer(status, out, err)

    return asked


def refused(answer: Answer, said: str) -> None:
    """Status 2, one line on stderr that says so, nothing on stdout."""
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.count("\n") == 1, answer.err
    assert said in answer.err
