"""A check that could not look at what it concludes from is skipped with its reason, never clean, and never says what it cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bot import manifests
from checks import diagnosis
from checks.diagnosis import Verdict
from checks.mesh import Mesh
from checks.resources import KIND_OF, Deployment, DestinationRule, Node, Resource, Service, ServiceEntry, VirtualService

SCENARIOS = Path(__file__).parent / "scenarios"
FORBIDDEN = "403 for system:serviceaccount:ops:meshwhy"
RULES = [
    "dr-client-ns-hides-subsets",
    "dr-duplicate-subset-name",
    "dr-host-shortname",
    "dr-in-wrong-namespace",
    "dr-not-exported",
    "dr-specific-hides-wildcard",
    "dr-split-exportto",
    "dr-workloadselector-shadow",
    "subset-by-topology-label",
    "subset-dns-cluster-dropped",
    "subset-label-not-on-pods",
    "subset-on-serviceentry",
    "subset-rollout-race",
    "subset-undefined",
]
ROUTES = [
    "vs-dest-host-unknown",
    "vs-dest-partial-name",
    "vs-dest-port-unknown",
    "vs-dest-shortname-ns",
    "vs-port-omitted-multiport",
    "vs-port-omitted-other-port",
    "vs-single-weight-ignored",
    "vs-weights-all-zero",
]


def without(name: str, kind: type[Resource]) -> diagnosis.Diagnosis:
    """The diagnosis of a scenario whose cluster does not show a kind."""
    cluster = manifests.read(str(SCENARIOS / name / "east.yaml"), "east", read_at=0.0)
    objects = {k: v for k, v in cluster.objects.items() if k is not kind}
    shown = replace(cluster, objects=objects, unreadable={KIND_OF[kind].key: FORBIDDEN})
    asked = yaml.safe_load((SCENARIOS / name / "expect.yaml").read_text())["host"]
    return diagnosis.why(asked, [Mesh("", [shown], 0.0)])


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        *((c, DestinationRule) for c in RULES),
        *((c, VirtualService) for c in (*RULES, *ROUTES)),
        *((c, Service) for c in ROUTES if c.startswith(("vs-dest", "vs-port"))),
        *((c, ServiceEntry) for c in ROUTES if c.startswith(("vs-dest", "vs-port"))),
        ("subset-on-serviceentry", ServiceEntry),
        ("subset-dns-cluster-dropped", ServiceEntry),
        ("subset-by-topology-label", Node),
        ("subset-label-not-on-pods", Deployment),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_a_check_that_cannot_look_is_skipped(cause: str, kind: type[Resource]) -> None:
    try:
        found = without(cause, kind)
    except diagnosis.UnknownHost:
        assert kind in {Service, ServiceEntry}
        return
    assert any(s.check == cause and s.cluster == "east" and FORBIDDEN in s.reason for s in found.skipped)
    if cause not in {f.cause for f in found.findings}:
        assert found.verdict is not Verdict.HEALTHY


@pytest.mark.parametrize("cause", RULES)
def test_without_destination_rules_nobody_says_that_a_subset_is_not_defined(cause: str) -> None:
    assert {f.cause for f in without(cause, DestinationRule).findings if f.failing_share} == set()
