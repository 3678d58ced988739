"""The questions: `why` and `diagnose` for one host, `sweep` for all; and the answers' shape."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from checks.finding import Finding, Skipped
from checks.mesh import Mesh
from checks.routes import Route


class Verdict(StrEnum):
    """DESIGN §2, the worst first."""

    BROKEN = "broken"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    AT_RISK = "at-risk"
    HEALTHY = "healthy"


class ClusterAge(Struct, frozen=True):
    """How fresh a cluster's data is: seconds between its last sign of life and the mesh's instant."""

    name: str
    synced: bool
    age_s: float


class Diagnosis(Struct, frozen=True):
    """The answer about one host, as `meshwhy why -o json` prints it. `clean` counts the checks that looked and found nothing."""

    host: str
    verdict: Verdict
    failing_share: float
    routes: tuple[Route, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    clean: int
    clusters: tuple[ClusterAge, ...]


class Sweep(Struct, frozen=True):
    """Every finding of every host, as `meshwhy sweep -o json` prints it; `hosts` is how many were looked at."""

    hosts: int
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    clusters: tuple[ClusterAge, ...]


class UnknownHost(LookupError):
    """No mesh knows this host, or several hosts fit the word. `candidates` are FQDNs, the nearest first."""

    def __init__(self, word: str, candidates: tuple[str, ...], *, ambiguous: bool = False) -> None:
        super().__init__(word)
        self.word = word
        self.candidates = candidates
        self.ambiguous = ambiguous
