"""What a check says: a Finding, or that it could not look (Skipped); and how a check registers itself.

A check is a function of one host's `Case` that yields findings. It lives in a file of its own, named like its cause id with `_` for `-`,
in the folder of its family; being there is its registration (`checks.diagnosis` walks the folders).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from checks.answers import Viewpoint
from checks.catalogue import CAUSES, Cause

if TYPE_CHECKING:
    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.mesh import Mesh


class Severity(StrEnum):
    """error: requests fail now; warning: they will; info: harms nobody."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Origin(Struct, frozen=True, gc=False):
    """Where an object stands when it was read from a file: path as given, line from 1 (0 when unknown)."""

    file: str
    line: int = 0


class Finding(Struct, frozen=True, kw_only=True, gc=False):
    """One cause in one place, as DESIGN's FINDING: field names and order are the JSON contract.

    `failing_share` is 0 to 1. `evidence` are facts, each with its source. `patch` is a whole command or manifest, or None.
    `same_as` are the IST and KIA codes of the same thing.
    """

    cause: str
    code: str
    severity: Severity
    cluster: str
    resource: str
    path: str
    host: str
    viewpoints: tuple[Viewpoint, ...]
    failing_share: float
    message: str
    evidence: tuple[str, ...] = ()
    fix: str = ""
    patch: str | None = None
    commands: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()
    origin: Origin | None = None


class Skipped(Struct, frozen=True, gc=False):
    """A check (cause id, or `*` for every one) that could not look in a cluster, and why."""

    check: str
    cluster: str
    reason: str


Check = Callable[["Case"], Iterator[Finding]]

REGISTRY: dict[str, Check] = {}
"""The checks of what the clusters' objects decide."""

LIVE: dict[str, Check] = {}
"""The checks of what only running parts can tell; they are run where something of them was read (`Case.evidence`)."""


Cue = Callable[["Case"], bool]


@dataclass(frozen=True, slots=True, eq=False)
class MeshCue:
    """A cue about the mesh, which is asked once for all of its hosts."""

    holds: Callable[[Mesh], bool]

    def __call__(self, case: Case) -> bool:
        """Whether it holds in the mesh of a host."""
        return case.mesh.now((self,), lambda: self.holds(case.mesh))


@dataclass(frozen=True, slots=True, eq=False)
class HostCue:
    """A cue about what the configuration says of a host: which hosts of a control plane are worth a look, worked out once for all of them."""

    hosts: Callable[[Istiod], Iterable[str]]

    def __call__(self, case: Case) -> bool:
        """Whether a control plane that somebody listens to says it of the host."""
        return any(self in cued(i).get(case.host.lower(), ()) for i in case.mesh.every_plane())


@dataclass(frozen=True, slots=True)
class CauseCue:
    """A cue about the host's failing destinations: that this cause explains one of them."""

    cause: str = ""

    def __call__(self, case: Case) -> bool:
        """Whether one of the host's failing destinations has the cause."""
        return bool(case.caused(self.cause))


explained = CauseCue()
"""`@check("subset-undefined", when=explained)`: for a check that tells of what its own cause explains (`explains`)."""

CUES: dict[str, tuple[Cue, ...]] = {}
"""When a check has something to look at (checks.when): any of these holds; one that is not here is run for every host."""


def cued(istiod: Istiod) -> Mapping[str, tuple[HostCue, ...]]:
    """The cues that hold for each host, in lower case, by what a control plane knows of the configuration."""

    def index() -> dict[str, tuple[HostCue, ...]]:
        out: dict[str, dict[HostCue, None]] = {}
        for cue in dict.fromkeys(c for cues in CUES.values() for c in cues if isinstance(c, HostCue)):
            for host in cue.hosts(istiod):
                out.setdefault(host.lower(), {})[cue] = None
        same: dict[tuple[HostCue, ...], tuple[HostCue, ...]] = {}
        return {host: same.setdefault(found := tuple(cues), found) for host, cues in out.items()}

    return istiod.once("cued", index)


def check(cause: str, *, when: Cue | tuple[Cue, ...] = ()) -> Callable[[Check], Check]:
    """Register a check under its cause id, and when it has something to look at; an unknown or doubled id is a programming error and raises ValueError."""
    if cause not in CAUSES:
        raise ValueError(f"{cause} is not in the catalogue of causes")

    def register(function: Check) -> Check:
        registry = REGISTRY if CAUSES[cause].decided_by == "kubernetes" else LIVE
        if cause in registry and registry[cause].__module__ != function.__module__:
            raise ValueError(f"{cause} is checked twice")
        registry[cause] = function
        if when:
            CUES[cause] = tuple(CauseCue(cause) if cue is explained else cue for cue in (when if isinstance(when, tuple) else (when,)))
        return function

    return register


Explainer = Callable[["Case", "Branch"], bool]


class _Explains(NamedTuple):
    function: Explainer
    before: tuple[str, ...]


EXPLAINERS: dict[str, _Explains] = {}


def explains(cause: str, *, before: Iterable[str] = ()) -> Callable[[Explainer], Explainer]:
    """Register when a cause explains a destination that gets requests and cannot serve them.

    A destination has one cause, the one nearest to what a person must mend (DESIGN §2): `before` are the causes that give way to this one
    where both would fit.
    """
    if cause not in CAUSES:
        raise ValueError(f"{cause} is not in the catalogue of causes")

    def register(function: Explainer) -> Explainer:
        EXPLAINERS[cause] = _Explains(function, tuple(before))
        return function

    return register


def by_nearness() -> tuple[tuple[str, Explainer], ...]:
    """Every explainer, the nearest to what must be mended first; those that have no order between them by code."""
    return _by_nearness(len(EXPLAINERS))


@cache
def _by_nearness(_: int) -> tuple[tuple[str, Explainer], ...]:
    after: dict[str, set[str]] = {c: set() for c in EXPLAINERS}
    for c, explainer in EXPLAINERS.items():
        for b in explainer.before:
            if b in after:
                after[b].add(c)
    sorter = TopologicalSorter(after)
    sorter.prepare()
    ready: list[tuple[str, str]] = []
    out: list[tuple[str, Explainer]] = []
    while sorter.is_active():  # its own order of those that are ready depends on what was said of others
        for c in sorter.get_ready():
            heappush(ready, (CAUSES[c].code, c))
        nearest = heappop(ready)[1]
        out.append((nearest, EXPLAINERS[nearest].function))
        sorter.done(nearest)
    return tuple(out)


def cause(id_or_code: str) -> Cause | None:
    """The catalogue's entry of an id (`subset-undefined`) or a code (`MESH106`), any case; None if there is none."""
    wanted = id_or_code.strip().lower()
    return next((c for c in CAUSES.values() if wanted in (c.id.lower(), c.code.lower())), None)


def worst(severities: Mapping[Severity, int]) -> Severity | None:
    """The worst severity that occurs, or None."""
    return next((s for s in Severity if severities.get(s)), None)
