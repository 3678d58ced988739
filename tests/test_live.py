"""Every check of evidence over every scenario with `live/`: what was read of running parts, and what a person should be told with it.

`live/<cluster>/` is laid out as the probes save it; what stands there was recorded on real parts or written after their source, as expect.yaml
says. `without` is what the clusters' objects alone tell; where it is left out they tell nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from msgspec.structs import replace

from bot import manifests
from bot.probes import saved
from checks import diagnosis
from checks.diagnosis import Verdict
from checks.evidence import Evidence
from checks.finding import Severity
from checks.mesh import Mesh
from tests.test_scenarios import noting

if TYPE_CHECKING:
    from checks.finding import Finding

SCENARIOS = Path(__file__).parent / "scenarios"
NAMES = sorted(p.parent.name for p in SCENARIOS.glob("*/live"))
BROKEN = [n for n in NAMES if not n.endswith("__healthy")]
TWINS = [n for n in NAMES if n.endswith("__healthy")]
CHECKS = sorted(diagnosis.live())


@cache
def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SCENARIOS / name / "expect.yaml").read_text())
    return found


@cache
def meshes(name: str) -> tuple[Mesh, ...]:
    files = sorted(p for p in (SCENARIOS / name).glob("*.yaml") if p.name != "expect.yaml")
    found = Mesh.of([manifests.read(str(p), p.stem, read_at=0.0) for p in files], 0.0)
    assert not [m for mesh in found for c in mesh.clusters for m in c.malformed]
    return found


@cache
def evidence(name: str) -> Evidence:
    """Everything that was saved of a scenario's running parts."""
    out = Evidence()
    for cluster in sorted((SCENARIOS / name / "live").iterdir()):
        out += saved.read(cluster, cluster=cluster.name)
    assert out
    return out


@cache
def diagnosed(name: str) -> diagnosis.Diagnosis:
    return diagnosis.why(expected(name)["host"], meshes(name), evidence(name))


def told(found: diagnosis.Diagnosis) -> dict[str, Any]:
    """A diagnosis in the form of expect.yaml."""
    serious = [f for f in found.findings if f.severity is not Severity.INFO]
    return {
        "verdict": str(found.verdict),
        "failing_share": round(found.failing_share, 3),
        "causes": list(dict.fromkeys(f.cause for f in serious)),
        "resources": [f.resource for f in serious],
    }


@pytest.mark.parametrize("name", NAMES)
def test_with_evidence_a_person_is_told_what_is_expected(name: str) -> None:
    wanted = expected(name)
    said = told(diagnosed(name))
    assert {k: said[k] for k in said if k in wanted} == {k: v for k, v in wanted.items() if k in said}
    assert diagnosed(name).skipped == ()


@pytest.mark.parametrize("name", NAMES)
def test_without_evidence_only_what_the_objects_decide_is_told(name: str) -> None:
    found = diagnosis.why(expected(name)["host"], meshes(name))
    assert told(found)["causes"] == expected(name).get("without", [])
    assert found.verdict is Verdict.HEALTHY or "without" in expected(name)


@pytest.mark.parametrize("name", BROKEN)
def test_a_scenario_and_its_twin_ask_the_same_of_the_same_clusters(name: str) -> None:
    twin = f"{name}__healthy"
    assert twin in TWINS
    assert expected(twin)["host"] == expected(name)["host"]
    assert expected(twin)["causes"] == []
    assert told(diagnosed(twin))["verdict"] == "healthy"
    assert [c.name for m in meshes(twin) for c in m.clusters] == [c.name for m in meshes(name) for c in m.clusters]


def test_every_twin_belongs_to_a_scenario() -> None:
    assert {t.removesuffix("__healthy") for t in TWINS} == set(BROKEN)


@pytest.fixture(scope="module")
def by_check() -> dict[str, list[tuple[str, Finding]]]:
    """The findings about each scenario's host, each with the check of evidence that made it."""
    made: dict[str, list[tuple[str, Finding]]] = {}
    tagged, current = noting(diagnosis.live())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "live", lambda: tagged)
        for name in NAMES:
            current.clear()
            diagnosis.why(expected(name)["host"], meshes(name), evidence(name))
            made[name] = list(current)
    return made


@pytest.mark.parametrize("cause", CHECKS)
def test_without_a_check_exactly_its_own_scenarios_fail(cause: str, by_check: dict[str, list[tuple[str, Finding]]]) -> None:
    own = {n for n in NAMES if cause in expected(n)["causes"]}
    failed = {
        n
        for n in NAMES
        if {f.cause for c, f in by_check[n] if c != cause} | set(expected(n).get("without", [])) != set(expected(n)["causes"])
    }
    assert own
    assert failed == own


@pytest.mark.parametrize("name", BROKEN)
def test_every_finding_of_evidence_says_where_what_why_and_what_to_do(name: str) -> None:
    for f in diagnosed(name).findings:
        assert f.message.endswith(".")
        assert f.fix.endswith(".")
        assert f.evidence
        assert len(set(f.evidence)) == len(f.evidence)
        assert f.commands
        assert f.viewpoints
        assert all((*f.evidence, *f.commands))
        assert (f.severity is Severity.ERROR) == (f.failing_share > 0)
        assert f.origin is not None, f"{f.resource} was read from a file"


@pytest.mark.parametrize("name", BROKEN)
def test_evidence_of_nobody_who_calls_tells_nothing(name: str) -> None:
    """The same reading of pods that the cluster does not have."""
    read = evidence(name)
    stranger = Evidence(
        envoys=tuple(replace(v, pod="nobody-0") for v in read.envoys), logs=tuple(replace(v, pod="nobody-0") for v in read.logs)
    )
    found = diagnosis.why(expected(name)["host"], meshes(name), stranger)
    assert told(found)["causes"] == expected(name).get("without", [])
