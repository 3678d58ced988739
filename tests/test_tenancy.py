"""Several meshes in one cluster: which namespaces belong to which control plane, and that neither sees the other's hosts."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks import diagnosis, resources, tenancy
from checks.diagnosis import UnknownHost
from checks.mesh import Change, Cluster, Mesh
from checks.resources import EndpointSlice, Namespace, Service, ServiceMeshMemberRoll

Json = dict[str, Any]
HEALTHY = Path(__file__).parent / "scenarios" / "discovery-selectors-of-a-member-roll__healthy" / "east.yaml"
BILLING = "billing.billing.svc.cluster.local"


@cache
def written() -> list[Json]:
    found: list[Json] = yaml.load(HEALTHY.read_text(), yaml.CSafeLoader)["items"]
    return found


def cluster(items: list[Json]) -> Cluster:
    return Cluster("east", objects=Cluster.index(r for i in items for r in resources.objects(resources.parse(i))))


def tenants(*, without: str = "", more: tuple[Json, ...] = ()) -> Cluster:
    return cluster([*(i for i in copy.deepcopy(written()) if not without or i["kind"] != without), *more])


def by_name(found: tuple[Mesh, ...]) -> dict[str, Mesh]:
    return {m.name: m for m in found}


def test_two_control_planes_of_one_name_are_two_meshes():
    found = by_name(Mesh.of([tenants()], 0.0))
    assert set(found) == {"tenant-a", "tenant-b"}
    a, b = found["tenant-a"], found["tenant-b"]
    assert [c.name for c in (*a.clusters, *b.clusters)] == ["east/tenant-a", "east/tenant-b"]
    assert a.istiod("east/tenant-a").config.root_namespace == "tenant-a"
    assert b.istiod("east/tenant-b").config.root_namespace == "tenant-b"
    assert {v.viewpoint.namespace for v in diagnosis.callers(a)} == {"web", "stock"}
    assert {v.viewpoint.namespace for v in diagnosis.callers(b)} == {"billing"}


def test_hosts_of_one_mesh_are_not_seen_by_callers_of_the_other():
    found = by_name(Mesh.of([tenants()], 0.0))
    assert BILLING not in diagnosis.hosts(found["tenant-a"])
    assert [r for r in diagnosis.routes([found["tenant-a"]], None, ["web"]) if r.host == BILLING] == []
    assert {r.viewpoint.namespace for r in diagnosis.routes(tuple(found.values()), BILLING)} == {"billing"}
    with pytest.raises(UnknownHost):
        diagnosis.why("billing.billing", [found["tenant-a"]])
    assert [c.name for c in diagnosis.why("billing.billing", tuple(found.values())).clusters] == ["east/tenant-b"]


def test_a_namespace_in_no_roll_is_in_neither_mesh():
    found = by_name(Mesh.of([tenants()], 0.0))
    for mesh in found.values():
        istiod = mesh.istiod(mesh.clusters[0].name)
        assert "legacy.legacy.svc.cluster.local" not in istiod.by_host
        assert "legacy.legacy.svc.cluster.local" in istiod.undiscovered
    assert {o.viewpoint.namespace for o in diagnosis.outsiders(found["tenant-a"])} == {"legacy"}


def test_a_rule_that_leads_out_of_the_roll_names_it():
    (roll,) = (r for r in tenants().all(ServiceMeshMemberRoll) if r.namespace == "tenant-a")
    assert roll.spec.members == ("web", "stock")
    items = copy.deepcopy(written())
    for i in items:
        if i["kind"] == "ServiceMeshMemberRoll" and i["metadata"]["namespace"] == "tenant-a":
            i["spec"]["members"] = i["status"]["configuredMembers"] = ["web"]
    found = diagnosis.why("stock.example", Mesh.of([cluster(items)], 0.0))
    (finding,) = found.findings
    assert (finding.cause, finding.resource) == ("discovery-selectors", "ServiceMeshMemberRoll tenant-a/default")
    assert "Add stock to spec.members" in finding.fix


@pytest.mark.parametrize(
    "asks",
    [
        {"kind": "ServiceMeshMember", "namespace": "stock", "spec": {"controlPlaneRef": {"name": "basic", "namespace": "tenant-a"}}},
        {"kind": "Namespace", "label": "tenant-a"},
        {"kind": "ServiceMeshMemberRoll", "spec": {"memberSelectors": [{"matchLabels": {"kubernetes.io/metadata.name": "stock"}}]}},
    ],
)
def test_a_namespace_is_a_member_by_roll_by_asking_by_label_and_by_selector(asks: Json):
    items = copy.deepcopy(written())
    for i in items:
        ours = i["kind"] == "ServiceMeshMemberRoll" and i["metadata"]["namespace"] == "tenant-a"
        if ours:
            i["spec"] = {"members": ["web"], **(asks["spec"] if asks["kind"] == i["kind"] else {})}
            i["status"] = {}
        if i["kind"] == asks["kind"] == "Namespace" and i["metadata"]["name"] == "stock":
            i["metadata"]["labels"]["maistra.io/member-of"] = asks["label"]
    if asks["kind"] == "ServiceMeshMember":
        meta = {"name": "default", "namespace": asks["namespace"]}
        items.append({"apiVersion": "maistra.io/v1", "kind": "ServiceMeshMember", "metadata": meta, "spec": asks["spec"]})
    a, _ = tenancy.parts(cluster(items))
    assert a.members == {"tenant-a", "web", "stock"}


def test_one_control_plane_with_a_roll_stays_one_cluster_and_reads_its_members():
    items = [i for i in copy.deepcopy(written()) if i["metadata"].get("namespace") != "tenant-b"]
    (only,) = tenancy.parts(cluster(items))
    assert (only.name, only.members) == ("east", {"tenant-a", "web", "stock"})
    (mesh,) = Mesh.of([cluster(items)], 0.0)
    assert BILLING not in mesh.istiod("east").by_host


def selecting(home: str, team: str) -> Json:
    text = f"rootNamespace: {home}\ndiscoverySelectors:\n- matchLabels: {{team: {team}}}\n"
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"istio-{home}", "namespace": home}, "data": {"mesh": text}}


def namespace(name: str, team: str = "") -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team} if team else {}}}


def test_discovery_selectors_that_have_nothing_in_common_make_two_meshes_and_others_do_not():
    spaces = [namespace("a", "a"), namespace("b", "b"), namespace("none")]
    apart = tenancy.parts(cluster([selecting("cp-a", "a"), selecting("cp-b", "b"), *spaces]))
    assert [(p.name, p.mesh, sorted(p.foreign)) for p in apart] == [
        ("east/cp-a", "cp-a", ["b", "cp-b"]),
        ("east/cp-b", "cp-b", ["a", "cp-a"]),
    ]
    shared = cluster([selecting("cp-a", "a"), selecting("cp-b", "a"), *spaces])
    assert tenancy.parts(shared) == (shared,)
    everything = {**selecting("cp-b", "b"), "data": {"mesh": "rootNamespace: cp-b\n"}}
    whole = cluster([selecting("cp-a", "a"), everything, *spaces])
    assert tenancy.parts(whole) == (whole,)


def test_what_does_not_concern_a_mesh_leaves_what_is_known_of_it():
    whole = tenants()
    before = Mesh.of([whole], 0.0)
    istiods = {m.name: m.istiod(m.clusters[0].name) for m in before}
    (of_b,) = whole.ordered(EndpointSlice, "billing")
    after = by_name(Mesh.of([whole.apply([Change("east", EndpointSlice, "billing", of_b.name, None)])], 1.0, before))
    assert after["tenant-a"].istiod("east/tenant-a") is istiods["tenant-a"]
    changed = whole.apply([Change("east", Service, "billing", "billing", None)])
    again = by_name(Mesh.of([changed], 2.0, tuple(after.values())))
    assert again["tenant-a"].istiod("east/tenant-a") is istiods["tenant-a"]
    assert BILLING not in again["tenant-b"].istiod("east/tenant-b").by_host
    moved = whole.apply([Change("east", Namespace, "", "legacy", None)])
    assert by_name(Mesh.of([moved], 3.0, before))["tenant-a"].istiod("east/tenant-a") is not istiods["tenant-a"]


def test_a_change_of_another_mesh_is_not_taken_over():
    found = by_name(Mesh.of([tenants()], 0.0))
    a = found["tenant-a"]
    (service,) = (s for s in found["tenant-b"].clusters[0].all(Service) if s.ref == "Service billing/billing")
    after = a.apply([Change("east/tenant-a", Service, "billing", "billing", service)])
    assert BILLING not in diagnosis.hosts(after)
