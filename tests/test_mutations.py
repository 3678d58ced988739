"""Meshes that a real istiod was asked about, and those of the scenarios, with a few objects changed at random: whatever they become, what fails has a name.

No check breaks, no finding is at error without a part of the requests that fails, and no part fails without a finding.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

import pytest

from checks import diagnosis
from checks.case import Case
from checks.finding import Severity
from checks.mesh import Mesh
from checks.resources import AuthorizationPolicy, DestinationRule, PeerAuthentication, Sidecar, VirtualService
from tests import mutations
from tests.test_oracle import Recorded, likely, recorded
from tests.test_scenarios import NAMES, clusters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from checks.mesh import Cluster
    from checks.resources import Resource

MESHES = 800
PARTS = 4
TIMES = 4
"""How often each mesh of a scenario is changed."""
NEW: tuple[type[Resource], ...] = (Sidecar, PeerAuthentication, AuthorizationPolicy, DestinationRule, VirtualService)
"""The kinds of which objects are added that stand in some scenario."""


@cache
def _recorded() -> list[Recorded]:
    return list(recorded())


@cache
def _donors() -> Mapping[type[Resource], Sequence[Resource]]:
    found = mutations.everything(c for n in NAMES for c in clusters(n))
    return {kind: [o for o in found if type(o) is kind] for kind in NEW}


def mutated(mesh: Mesh, dice: random.Random) -> tuple[Mesh, list[str]]:
    """A mesh after one to four changes, and which objects they were of."""
    here: dict[str, Cluster] = {c.name: c for c in mesh.clusters}
    values = mutations.stock(mutations.everything(mesh.clusters))
    said: list[str] = []
    for _ in range(dice.randint(1, 4)):
        name = dice.choice(sorted(here))
        held = mutations.everything([here[name]])
        kind = dice.choice(sorted({type(o) for o in held}, key=lambda k: k.__name__))
        old = dice.choice([o for o in held if type(o) is kind])
        deed = dice.random()
        new = mutations.edited(old, values, dice) if deed < 0.75 else None
        if deed > 0.88:
            donor = dice.choice(_donors()[dice.choice(NEW)])
            old = new = mutations.settled(donor, dice.choice(sorted({o.namespace for o in held} - {""})), donor.name, values, dice) or old
        here[name] = here[name].apply([mutations.change(name, old, new)])
        said.append(f"{old.ref} {'goes' if new is None else new}")
    return Mesh(mesh.name, here.values(), 0.0), said


def wrong(mesh: Mesh) -> Iterator[str]:
    """What no answer may say of any mesh."""
    swept = diagnosis.sweep(mesh)
    yield from (f"{s.check}: {s.reason}" for s in swept.skipped if "the check itself failed" in s.reason)
    for f in swept.findings:
        if (f.severity is Severity.ERROR) != (f.failing_share > 0) or not 0 <= f.failing_share <= 1:
            yield f"{f.cause} at {f.severity} with {f.failing_share}: {f.message}"
    named = {f.host for f in swept.findings if f.failing_share}
    mine = set(diagnosis.swept(mesh))
    for host in diagnosis.hosts(mesh):
        case = Case.of(host, mesh)
        yield from (f"{b.resource} {b.path} to {b.upstream.name}: {likely(b)}" for b in case.failing() if not case.why(b))
        if case.failing_share and host in mine - named:
            yield f"{host} fails and nothing is found"


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_becomes_of_a_mesh_what_fails_has_a_name(part: int) -> None:
    dice = random.Random(part)  # noqa: S311 - a test's dice
    failing = 0
    for _ in range(MESHES // PARTS):
        one = dice.choice(_recorded())
        mesh, said = mutated(one.mesh, dice)
        assert list(wrong(mesh)) == [], (one.name, said)
        failing += any(f.failing_share for f in diagnosis.sweep(mesh).findings)
    assert failing > MESHES / PARTS / 3, "meshes that are well prove nothing"


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_becomes_of_a_scenario_what_fails_has_a_name(part: int) -> None:
    failing = looked = 0
    for name in sorted(NAMES)[part::PARTS]:
        dice = random.Random(name)  # noqa: S311 - a test's dice; its own, so that a new scenario leaves the others as they are
        for one in [m for m in Mesh.of(clusters(name), 0.0) for _ in range(TIMES)]:
            mesh, said = mutated(one, dice)
            assert list(wrong(mesh)) == [], (name, said)
            failing += any(f.failing_share for f in diagnosis.sweep(mesh).findings)
            looked += 1
    assert failing > looked / 3, "meshes that are well prove nothing"
