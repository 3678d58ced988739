"""A check that says when it has something to look at finds nothing, and misses nothing that cannot be read, wherever it says no."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot import manifests
from checks import diagnosis
from checks.case import Case
from checks.finding import CUES
from checks.mesh import Cluster, Mesh
from checks.resources import objects, parse
from tests.bench.population import lean
from tests.test_oracle import recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKS = diagnosis.registry()
SCENARIOS = Path(__file__).parent / "scenarios"


def missed(meshes: Iterable[Mesh]) -> list[tuple[str, str, str]]:
    """(mesh, host, cause) of what is found, or could not be looked at, although the check says that there is nothing to look at."""
    out: list[tuple[str, str, str]] = []
    for mesh in meshes:
        for host in diagnosis.hosts(mesh):
            case = Case.of(host, mesh)
            for cause, cues in CUES.items():
                if not any(cue(case) for cue in cues):
                    try:
                        found = list(CHECKS[cause](case))
                    except Exception as error:  # noqa: BLE001 - what the runner would say as skipped
                        found = [error]  # type: ignore[list-item]
                    if found:
                        out.append((mesh.name, host, cause))
    return out


def test_nothing_is_missed_in_any_scenario() -> None:
    assert len(CUES) > 100
    for folder in sorted(SCENARIOS.iterdir()):
        files = [p for p in sorted(folder.iterdir()) if p.name not in {"expect.yaml", "live"}]
        together = Mesh.of([manifests.read(str(p), p.stem, read_at=0.0) for p in files], 0.0)
        apart = Mesh.of([manifests.read(str(p), p.stem, mesh=p.stem, read_at=0.0) for p in files], 0.0) if len(files) > 1 else ()
        assert missed((*together, *apart)) == [], folder.name


def test_nothing_is_missed_in_any_mesh_that_a_real_istiod_knew() -> None:
    for known in recorded():
        assert missed([known.mesh]) == [], known.name


def test_nothing_is_missed_in_the_mesh_of_the_benchmark() -> None:
    found = objects(parse({"apiVersion": "v1", "kind": "List", "items": list(lean(600))}))
    mesh = Mesh("", [Cluster("east", objects=Cluster.index(found))], 0.0)
    assert missed([mesh]) == []


@pytest.mark.parametrize("cause", sorted(CUES))
def test_a_cue_is_of_a_check(cause: str) -> None:
    assert cause in diagnosis.registry()
