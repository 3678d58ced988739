"""Mesh: all clusters of one mesh at one instant, frozen, and its few deep lookups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from checks.resources import KIND_OF, Malformed, Resource

Objects = Mapping[type[Resource], Mapping[str, Mapping[str, Resource]]]


class Unreadable(Exception):  # noqa: N818 - a fact about a kind, not a programming error
    """A kind that this cluster would not show: what a lookup raises, and the runner turns into Skipped."""

    def __init__(self, kind: str, cluster: str, reason: str) -> None:
        super().__init__(f"{kind} cannot be read in {cluster}: {reason}")
        self.kind = kind
        self.cluster = cluster
        self.reason = reason


class Change(NamedTuple):
    """One object that appeared, changed (`new`) or went (`new` is None) in a cluster."""

    cluster: str
    kind: type[Resource]
    namespace: str
    name: str
    new: Resource | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was read of one cluster: objects by kind, namespace and name, and what could not be read.

    `unreadable` maps a kind's key (`virtualservices.networking.istio.io`, or `*` for the whole cluster) to the reason. `read_at` is the
    time of the last sign of life, in seconds since the epoch. `origins` maps an object's `ref` to (file, line) when it was read from files.
    """

    name: str
    mesh: str = ""
    objects: Objects = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    malformed: tuple[Malformed, ...] = ()
    origins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    read_at: float = 0.0
    synced: bool = True

    @staticmethod
    def index(resources: Iterable[Resource]) -> dict[type[Resource], dict[str, dict[str, Resource]]]:
        """Objects by kind, namespace and name; a later one replaces an earlier one of the same name."""
        out: dict[type[Resource], dict[str, dict[str, Resource]]] = {}
        for r in resources:
            out.setdefault(type(r), {}).setdefault(r.namespace if KIND_OF[type(r)].namespaced else "", {})[r.name] = r
        return out
