"""Prometheus' text format, as Envoy and istiod write it: bytes in, samples out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Sample(NamedTuple):
    """One value: its name, the labels as they stand there (`a="b",c="d"`, empty for none), the value."""

    name: str
    text: str
    value: float

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by name, unescaped."""
        return {m[1]: _ESCAPED.sub(lambda e: _UNESCAPED.get(e[1], e[1]), m[2]) for m in _LABEL.finditer(self.text)}

    @property
    def key(self) -> str:
        """`name`, or `name{a="b"}`."""
        return f"{self.name}{{{self.text}}}" if self.text else self.name


_LINE = re.compile(
    r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\})?[ \t]+([0-9.eE+-]+|[+-]?Inf|NaN)(?:[ \t]+-?[0-9]+)?[ \t]*$',
    re.MULTILINE,
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_UNESCAPED = {"n": "\n"}
_TYPE = re.compile(r"^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (\w+)", re.MULTILINE)


def samples(body: bytes | bytearray) -> Iterator[Sample]:
    """Every sample; a line that is none is passed over, and so is a value that is no number."""
    for line in _LINE.finditer(body.decode(errors="replace")):
        try:
            value = float(line[3])
        except ValueError:
            continue
        if value == value:  # noqa: PLR0124 - NaN is no value
            yield Sample(line[1], (line[2] or "").rstrip(","), value)


def types(body: bytes | bytearray) -> Mapping[str, str]:
    """The type of each metric that says one: counter, gauge, histogram, summary."""
    return {m[1]: m[2] for m in _TYPE.finditer(body.decode(errors="replace"))}
