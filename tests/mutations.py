"""Changes of every kind of object, at random and yet like those that people and controllers make.

A field gets a value that a field of its name has somewhere else: a selector another workload's labels, a destination another host, a port another
port's number. So most of what comes out still refers to something, which is where rules of Istio have their say. What cannot be decoded never comes
into a cluster, and is thrown again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from checks.mesh import Change
from checks.resources import KIND_OF, Resource, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from random import Random

    from checks.mesh import Cluster

Json = Any
Stock = dict[str, list[Json]]
"""The values that fields of a name have."""

_FIXED = frozenset({"uid", "resourceVersion", "generation"})
_TRIES = 30


def stock(resources: Iterable[Resource]) -> Stock:
    """What the fields of some objects hold, by the field's name; each value once, in the order of its coming."""
    found: dict[str, dict[bytes, Json]] = {}

    def gather(key: str, value: Json) -> None:
        if value not in (None, "", [], {}):
            found.setdefault(key, {}).setdefault(msgspec.json.encode(value), value)
        for k, v in value.items() if isinstance(value, dict) else ():
            gather(k, v)
        for v in value if isinstance(value, list) else ():
            gather(f"{key}[]", v)

    for r in resources:
        gather("", _tree(r))
    return {key: list(values.values()) for key, values in found.items() if key}


def everything(clusters: Iterable[Cluster]) -> list[Resource]:
    """Every object of some clusters."""
    return [o for c in clusters for spaces in c.objects.values() for space in spaces.values() for o in space.values()]


def edited(old: Resource, values: Stock, dice: Random) -> Resource | None:
    """An object of which one field is another: taken away, taken from elsewhere, or a list longer, shorter or the other way round. None: none was found."""
    for _ in range(_TRIES):
        tree = _tree(old)
        holder, key, name = dice.choice(_places(tree))
        _change(holder, key, values.get(name, ()), dice)
        new = _decoded(type(old), tree)
        if new is not None and new != old:
            return new
    return None


def settled(donor: Resource, namespace: str, name: str, values: Stock, dice: Random) -> Resource | None:
    """An object as it would stand in another place: there, about half of what it refers to is what is referred to in that place."""
    tree = _tree(donor)
    for holder, key, field in _places(tree) if dice.random() < 0.8 else ():
        known = values.get(field)
        if known and isinstance(holder[key], str) and dice.random() < 0.5:
            holder[key] = dice.choice(known)
    tree["metadata"] |= {"namespace": namespace if KIND_OF[type(donor)].namespaced else "", "name": name}
    return _decoded(type(donor), tree)


def change(cluster: str, old: Resource, new: Resource | None) -> Change:
    """An object that comes, is another (`new`), or goes."""
    where = (new or old).metadata
    kind = type(old)
    return Change(cluster, kind, where.namespace if KIND_OF[kind].namespaced else "", where.name, new)


def _tree(r: Resource) -> dict[str, Json]:
    tree: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(r))
    return tree


def _decoded(kind: type[Resource], tree: Mapping[str, Json]) -> Resource | None:
    try:
        return decode(KIND_OF[kind], msgspec.json.encode(tree))
    except msgspec.ValidationError:
        return None


def _places(tree: dict[str, Json]) -> list[tuple[Json, Json, str]]:
    """Every field and element below an object's root, but for its name and its place: what holds it, where, and the field's name."""
    out: list[tuple[Json, Json, str]] = []

    def walk(holder: Json, key: Json, name: str) -> None:
        value = holder[key]
        out.append((holder, key, name))
        for k in value if isinstance(value, dict) else ():
            walk(value, k, k)
        for i in range(len(value)) if isinstance(value, list) else ():
            walk(value, i, f"{name}[]")

    for k in tree:
        if k != "metadata":
            walk(tree, k, k)
    for k in tree["metadata"]:
        if k not in {"name", "namespace", *_FIXED}:
            walk(tree["metadata"], k, k)
    return out


def _change(holder: Json, key: Json, known: Iterable[Json], dice: Random) -> None:
    value = holder[key]
    others = list(known)
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, list) and value and dice.random() < 0.7:
        at = dice.randrange(len(value))
        holder[key] = dice.choice([value[:at] + value[at + 1 :], [*value, value[at]], value[::-1]])
    elif others and dice.random() < 0.8:
        holder[key] = dice.choice(others)
    elif isinstance(value, int):
        holder[key] = dice.choice([0, 1, value + 1, 100])
    elif isinstance(holder, dict):
        del holder[key]
    else:
        holder.pop(key)
