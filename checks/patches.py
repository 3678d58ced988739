"""A change of one object as a person would make it: the kubectl command, and the object after it, both made of one list of edits.

RFC 6902 (JSON Patch) and 6901 (JSON Pointer). Only fields that are read are ever written, so what else an object says stays.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from copy import deepcopy
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from checks.resources import KIND_OF, Resource, decode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.mesh import Change
    from checks.resources import Kind

_R = TypeVar("_R", bound=Resource)


class Away(Enum):
    """The value of a field that is taken away."""

    AWAY = "away"


AWAY = Away.AWAY


class Moved(NamedTuple):
    """The value of a list's place that another item of the list is moved to; `origin` is where it stands."""

    origin: int


class Copied(NamedTuple):
    """The value that another field of the object has, with all that is not read of it."""

    origin: tuple[str | int, ...]


Edit = tuple[tuple[str | int, ...], Any]
"""A field, as the words that lead to it, and its new value: anything JSON has, AWAY, Moved or Copied. In a list one past the end appends."""


class Proposal(NamedTuple):
    """What a patch would change, before anybody has proved that it helps. `sure`: the check has proved it, for every caller."""

    change: Change
    sure: bool = False


def edited(old: _R, edits: Iterable[Edit]) -> tuple[_R, list[dict[str, Any]]]:
    """An object after some edits, and these as JSON Patch operations that hold one after the other."""
    plain = msgspec.json.decode(msgspec.json.encode(old))
    operations = [o for path, value in edits for o in _edit(plain, path, value)]
    return decode(KIND_OF[type(old)], msgspec.json.encode(plain)), operations  # type: ignore[return-value] # the kind of `old`


def _edit(plain: Any, path: tuple[str | int, ...], value: Any) -> Iterable[dict[str, Any]]:
    place = root = plain
    for depth, word in enumerate(path[:-1]):
        inner = place[int(word)] if isinstance(place, list) else place.get(word)
        if not inner and not isinstance(value, Copied):  # perhaps it is not there at all, and an operation makes one member only
            for outer in reversed(path[depth + 1 :]):
                value = AWAY if value is AWAY else [value] if isinstance(outer, int) else {outer: value}
            path = path[: depth + 1]
            break
        place = inner
    key: Any = path[-1]
    at = pointer(path)
    if isinstance(value, Moved):
        place.insert(key, place.pop(value.origin))
        return [{"op": "move", "from": pointer((*path[:-1], value.origin)), "path": at}]
    if isinstance(value, Copied):
        found: Any = plain_of(root, value.origin)
        place[key] = deepcopy(found)
        return [{"op": "copy", "from": pointer(value.origin), "path": at}]
    there = key < len(place) if isinstance(place, list) else bool(place.get(key))
    if value is AWAY:
        if there:
            del place[key]
        return [{"op": "remove", "path": at}] if there else []
    if isinstance(place, list) and not there:
        place.append(value)
    else:
        place[key] = value
    # `add` sets a member that is there as well as one that is not: which of the two it is cannot be told from a default
    return [{"op": "replace" if there and isinstance(place, list) else "add", "path": at, "value": deepcopy(value)}]


def plain_of(root: Any, path: Iterable[str | int]) -> Any:
    """What a field of a plain object holds."""
    for word in path:
        root = root[word]
    return root


_WORD = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def at(path: str) -> tuple[str | int, ...]:
    """A field as findings write it, `spec.http[0].route`, as the words that lead to it."""
    return tuple(int(number) if number else word for word, number in _WORD.findall(path))


def pointer(path: Iterable[str | int]) -> str:
    """The words that lead to a field as a JSON Pointer."""
    return "".join(f"/{str(word).replace('~', '~0').replace('/', '~1')}" for word in path)


_DOUBLED = {kind for kind, times in Counter(k.kind for k in KIND_OF.values()).items() if times > 1}


def resource(kind: type[Resource]) -> str:
    """A kind as kubectl understands it without doubt: with its group where two of them have a kind of that name."""
    found = KIND_OF[kind]
    return f"{found.kind}.{found.group}".lower() if found.kind in _DOUBLED else found.kind.lower()


def command(old: Resource, operations: Iterable[dict[str, Any]], context: str = "") -> str:
    """The kubectl command of some operations, in a POSIX shell's words; `context` where it is not the only cluster."""
    said = msgspec.json.encode(list(operations)).decode()
    where = ["-n", old.namespace] if KIND_OF[type(old)].namespaced else []
    words = ["kubectl", *where, "patch", resource(type(old)), old.name, "--type=json", "-p"]
    last = ["--context", context] if context else []
    return " ".join([*map(shlex.quote, words), f"'{said}'" if "'" not in said else shlex.quote(said), *map(shlex.quote, last)])


class Commanded(NamedTuple):
    """What a command of `command` changes: the kind (None: one that is not read), the object, and the JSON Patch operations."""

    kind: Kind | None
    namespace: str
    name: str
    operations: list[dict[str, Any]]


def commanded(patch: str) -> Commanded:
    """What a suggested kubectl command changes. Raises ValueError for one that is none of `command`'s."""
    words = shlex.split(patch)
    namespace = ""
    if words[:1] == ["kubectl"] and words[1:2] == ["-n"]:
        namespace, words = words[2], ["kubectl", *words[3:]]
    if len(words) < 7 or words[:2] != ["kubectl", "patch"] or words[4:6] != ["--type=json", "-p"]:
        raise ValueError(f"{patch!r} is no patch of one object")
    kind = next((k for k in KIND_OF.values() if words[2] in {f"{k.kind}.{k.group}".lower(), k.kind.lower()}), None)
    return Commanded(kind, namespace, words[3], msgspec.json.decode(words[6], type=list[dict[str, Any]]))
