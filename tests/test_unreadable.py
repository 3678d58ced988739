"""What could not be read is said, and never counts as healthy nor as broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot import manifests
from checks.diagnosis import Verdict, diagnose, sweep
from checks.mesh import Cluster, Mesh, Unreadable
from checks.resources import (
    KIND_OF,
    ConfigMap,
    DestinationRule,
    EndpointSlice,
    Metadata,
    Pod,
    Resource,
    Service,
    ServiceEntry,
    VirtualService,
)

RECORDED = Path(__file__).parent.parent / "bot" / "demo" / "recorded"
HOST = "destination.mynamespace.svc.cluster.local"
CALLER = "service-source.mynamespace.svc.cluster.local"


@pytest.fixture(scope="module")
def east() -> Cluster:
    return manifests.read(str(RECORDED / "east"), "east", read_at=0.0)


def without(cluster: Cluster, *kinds: type[Resource]) -> Cluster:
    """The cluster as somebody sees it who may not list these kinds."""
    objects = {k: v for k, v in cluster.objects.items() if k not in kinds}
    return replace(cluster, objects=objects, unreadable={KIND_OF[k].key: "403 Forbidden" for k in kinds})


def test_the_recorded_host_is_degraded_when_everything_is_read(east: Cluster):
    found = diagnose(HOST, Mesh("", [east], 0.0))
    assert (found.verdict, found.failing_share) == (Verdict.DEGRADED, 0.95)


@pytest.mark.parametrize("kind", [EndpointSlice, Pod, DestinationRule])
def test_a_kind_that_decides_whether_endpoints_are_there_makes_the_host_unknown(east: Cluster, kind: type[Resource]):
    found = diagnose(HOST, Mesh("", [without(east, kind)], 0.0))
    assert found.verdict is Verdict.UNKNOWN
    assert found.failing_share == 0.0
    assert found.findings == ()
    assert any(KIND_OF[kind].key in s.reason for s in found.skipped)


@pytest.mark.parametrize("kind", [EndpointSlice, Pod, DestinationRule, VirtualService, Service, ServiceEntry])
def test_a_forbidden_kind_never_breaks_a_host_that_is_well(east: Cluster, kind: type[Resource]):
    mesh = Mesh("", [without(east, kind)], 0.0)
    found = diagnose(CALLER, mesh)
    assert found.failing_share == 0.0
    assert found.verdict is Verdict.UNKNOWN
    assert [f for f in sweep(mesh).findings if f.host == CALLER and f.failing_share] == []


def test_a_default_route_is_not_blamed_while_virtual_services_are_hidden(east: Cluster):
    empty = {
        ns: {n: s for n, s in space.items() if s.labels.get("kubernetes.io/service-name") != "service-source"}
        for ns, space in east.objects[EndpointSlice].items()
    }
    bare = replace(east, objects={**east.objects, EndpointSlice: empty})
    assert diagnose(CALLER, Mesh("", [bare], 0.0)).verdict is Verdict.BROKEN
    assert diagnose(CALLER, Mesh("", [without(bare, VirtualService)], 0.0)).verdict is Verdict.UNKNOWN


def test_a_subset_that_may_live_in_a_silent_cluster_is_not_called_empty(east: Cluster):
    silent = Cluster("west", unreadable={"*": "no answer"}, synced=False)
    found = diagnose(HOST, Mesh("", [east, silent], 0.0))
    assert found.verdict is Verdict.UNKNOWN
    assert found.findings == ()


def test_what_a_lost_cluster_last_showed_is_still_used(east: Cluster):
    lost = replace(east, unreadable={"*": "no answer since 14:02"}, synced=False)
    found = diagnose(HOST, Mesh("", [lost], 60.0))
    assert (found.verdict, found.failing_share) == (Verdict.DEGRADED, 0.95)
    assert [s.reason for s in found.skipped] == ["no answer since 14:02"]
    assert found.clusters[0].age_s == 60.0


def test_require_names_the_kind_and_the_reason(east: Cluster):
    Mesh.require(east, Pod, VirtualService)
    with pytest.raises(Unreadable) as caught:
        Mesh.require(without(east, Pod), VirtualService, Pod)
    assert (caught.value.kind, caught.value.cluster, caught.value.reason) == ("pods", "east", "403 Forbidden")


def with_config(cluster: Cluster, mesh: str) -> Mesh:
    """The cluster under a control plane that is told this."""
    config = ConfigMap(metadata=Metadata(name="istio", namespace="istio-system"), data={"mesh": mesh})
    return Mesh("", [replace(cluster, objects={**cluster.objects, ConfigMap: {"istio-system": {"istio": config}}})], 0.0)


@pytest.mark.parametrize("said", ["rootNamespace: [a", "trustDomainAliases: 7", "just text"])
def test_a_mesh_configuration_that_cannot_be_understood_is_said_and_is_not_healthy(east: Cluster, said: str):
    mesh = with_config(east, said)
    found = diagnose(CALLER, mesh)
    assert found.verdict is Verdict.UNKNOWN
    for skipped in (found.skipped, sweep(mesh).skipped):
        assert [s.reason.partition(": ")[0] for s in skipped] == ["ConfigMap istio-system/istio cannot be understood"]


def test_null_in_the_mesh_configuration_is_what_was_left_out(east: Cluster):
    """protojson takes a null for the default (ApplyMeshConfig, pkg/config/mesh/mesh.go)."""
    mesh = with_config(east, "serviceSettings:\ntrustDomainAliases: null\ntrustDomain: td\n")
    assert mesh.config(mesh.clusters[0]).trust_domain == "td"
    assert sweep(mesh).skipped == ()
