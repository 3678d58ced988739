"""Whom an answer holds for: one port of a host, callers of some nodes, those that are hit and those that are not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bot import manifests
from checks import diagnosis, resources
from checks.diagnosis import Diagnosis, UnknownHost
from checks.mesh import Change, Mesh
from checks.resources import EndpointSlice, Pod, Service
from templates import messages, terminal, words

SCENARIOS = Path(__file__).parent / "scenarios"


def mesh(name: str) -> Mesh:
    files = [p for p in sorted((SCENARIOS / name).iterdir()) if p.name != "expect.yaml"]
    return Mesh("", [manifests.read(str(p), p.stem, read_at=0.0) for p in files], 0.0)


def causes(found: Diagnosis) -> list[str]:
    return [f.cause for f in found.findings if f.failing_share]


@pytest.mark.parametrize(
    ("scenario", "broken", "well"),
    [
        ("targetport-name-unresolved", "payments.shop:9090", "payments.shop:80"),
        ("se-dup-unmergeable-ports", "api.partner.example:8080", "api.partner.example:80"),
    ],
)
def test_a_question_about_one_port_is_answered_for_that_port_alone(scenario: str, broken: str, well: str):
    found = mesh(scenario)
    whole = diagnosis.why(broken.partition(":")[0], [found])
    for word in (broken, well):
        port = int(word.rpartition(":")[2])
        asked = diagnosis.why(word, [found])
        assert (asked.host, asked.port) == (whole.host, port)
        assert {r.port for r in asked.routes} <= {port}
        assert {r.port for r in diagnosis.routes([found], word)} <= {port}
        assert set(causes(asked)) == (set(causes(whole)) if word == broken else set())
    assert {r.port for r in whole.routes} >= {int(well.rpartition(":")[2])}


def test_a_port_that_a_host_does_not_have_is_answered_with_those_that_it_has():
    with pytest.raises(UnknownHost) as refused:
        diagnosis.why("payments.shop:81", [mesh("targetport-name-unresolved")])
    told = words.did_you_mean(refused.value.word, refused.value.candidates, ambiguous=False)
    assert told == "payments.shop has no port 81; it has 80 and 9090."


def test_a_port_that_somebody_calls_and_the_service_lacks_is_a_finding_and_no_misspelling():
    found = mesh("svc-port-not-exposed")
    whole = next(f for f in diagnosis.sweep(found).findings if f.cause == "svc-port-not-exposed")
    number = whole.message.partition(" fails")[0].rpartition(":")[2]
    assert causes(diagnosis.why(f"{whole.host}:{number}", [found])) == ["svc-port-not-exposed"]


@pytest.mark.parametrize("word", ["api.partner.example", "A.B.Partner.Example.", "*.partner.example"])
def test_a_name_that_only_a_host_with_a_star_takes_is_that_host(word: str):
    found = mesh("se-wildcard-resolution")
    told = diagnosis.why(word, [found])
    assert (told.host, causes(told)) == ("*.partner.example", ["se-wildcard-resolution"])
    known = {"east": diagnosis.hosts(found)}
    assert diagnosis.fitting(word, known) == [("*.partner.example", "east")]


@pytest.mark.parametrize("word", ["partner.example", "api.partner.example.org", "partner"])
def test_a_name_that_no_host_takes_is_unknown(word: str):
    with pytest.raises(UnknownHost):
        diagnosis.why(word, [mesh("se-wildcard-resolution")])


def test_the_narrowest_star_takes_a_name_and_none_a_service_that_is_not_there():
    known = {"east": ("*.example", "*.partner.example", "*.shop.svc.cluster.local", "cart.shop.svc.cluster.local")}
    assert diagnosis.fitting("api.partner.example", known) == [("*.partner.example", "east")]
    assert diagnosis.fitting("api.other.example", known) == [("*.example", "east")]
    with pytest.raises(UnknownHost) as refused:
        diagnosis.fitting("crat.shop.svc.cluster.local", known)
    assert "cart.shop.svc.cluster.local" in refused.value.candidates


def named(found: Mesh, name: str, target: str) -> Mesh:
    """The mesh with a Service of type ExternalName in the namespace shop."""
    spec = {"type": "ExternalName", "externalName": target, "ports": [{"name": "http", "port": 80}]}
    told = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}
    (service,) = resources.objects(resources.parse(told))
    return found.apply([Change("east", Service, "shop", name, service)])


@pytest.mark.parametrize(("scenario", "verdict"), [("workload-scaled-zero", "broken"), ("workload-scaled-zero__healthy", "healthy")])
def test_of_another_name_of_a_host_is_said_what_is_said_of_the_host(scenario: str, verdict: str):
    found = named(named(mesh(scenario), "pay", "payments.shop.svc.cluster.local"), "pay-old", "pay.shop.svc.cluster.local")
    whole = diagnosis.why("payments.shop", [found])
    for name in ("pay", "pay-old"):
        told = diagnosis.why(f"{name}.shop", [found])
        assert (told.host, told.verdict) == (f"{name}.shop.svc.cluster.local", verdict)
        assert told.stands_for == whole.host
        assert (told.routes, told.failing_share, causes(told)) == (whole.routes, whole.failing_share, causes(whole))
        assert diagnosis.routes([found], f"{name}.shop") == diagnosis.routes([found], "payments.shop")
        said = "It is another name of payments.shop (type ExternalName)"
        assert said in terminal.why(msgspec.to_builtins(told), colour=False)
        assert said in str(messages.why(msgspec.to_builtins(told)).blocks)


def test_of_another_name_of_a_host_that_no_mesh_knows_nothing_is_said():
    told = diagnosis.why("pay.shop", [named(mesh("workload-scaled-zero"), "pay", "api.partner.example")])
    assert (told.verdict, told.stands_for, told.routes) == ("healthy", "", ())


def test_callers_of_the_nodes_that_are_hit_are_named_and_the_others_are_fine():
    found = mesh("internal-traffic-policy-local-on-one-of-two-nodes")
    told = diagnosis.why("cache.shop", [found])
    (finding,) = told.findings
    assert [(v.namespace, v.selector) for v in finding.viewpoints] == [
        ("client", "app=web,version=v1,kubernetes.io/hostname=east-worker-2")
    ]
    said = " ".join(terminal.why(msgspec.to_builtins(told), colour=False).split())
    assert "for callers in client (app=web, version=v1, on node east-worker-2) only; callers in batch, client" in said
    assert "shop are fine" in said


def test_a_pod_that_comes_to_a_node_without_an_endpoint_is_seen_by_the_next_sweep():
    found = mesh("internal-traffic-policy-local-on-one-of-two-nodes")
    (cluster,) = found.clusters
    hit = next(p for p in cluster.within(Pod, "client").values() if p.spec.node_name == "east-worker-2")
    without = found.apply([Change("east", Pod, "client", hit.name, None)])
    before = diagnosis.sweep(without)
    assert causes(diagnosis.why("cache.shop", [without])) == []
    again = without.apply([Change("east", Pod, "client", hit.name, hit)])
    after = diagnosis.sweep(again, before)
    assert [f.cause for f in after.findings if f.failing_share] == ["internal-traffic-policy-local"]
    assert after.findings == diagnosis.sweep(mesh("internal-traffic-policy-local-on-one-of-two-nodes")).findings


def test_an_endpoint_that_moves_to_another_node_moves_the_failure():
    found = mesh("internal-traffic-policy-local-on-one-of-two-nodes")
    (cluster,) = found.clusters
    (pod,) = cluster.within(Pod, "shop").values()
    moved = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name="east-worker-2"))
    swept = diagnosis.sweep(found.apply([Change("east", Pod, "shop", pod.name, moved)]), diagnosis.sweep(found))
    (finding,) = (f for f in swept.findings if f.failing_share)
    assert {v.selector for v in finding.viewpoints if v.namespace == "client"} == {
        "app=web,version=v1,kubernetes.io/hostname=east-worker-1"
    }


def test_an_answer_counts_every_caller_and_not_only_those_that_differ():
    told = diagnosis.why("web.client", [mesh("internal-traffic-policy-local-on-one-of-two-nodes__healthy")])
    assert [len(group) for group in told.alike] == [3]
    assert "seen from 3 namespaces" in terminal.why(msgspec.to_builtins(told), colour=False)


@pytest.mark.parametrize(("count", "told"), [(1, "1 gateway"), (2, "2 gateways"), (3, "3 gateways")])
def test_plurals(count: int, told: str):
    assert words.amount(count, "gateway") == told
    assert words.amount(2, "entry") == "2 entries"
    assert words.amount(2, "policy") == "2 policies"


def test_slices_are_what_a_node_is_judged_by():
    found = mesh("internal-traffic-policy-local-on-one-of-two-nodes__healthy")
    (cluster,) = found.clusters
    gone = [Change("east", EndpointSlice, "shop", s.name, None) for s in cluster.ordered(EndpointSlice, "shop")]
    assert causes(diagnosis.why("cache.shop", [found])) == []
    assert causes(diagnosis.why("cache.shop", [found.apply(gone)])) != ["internal-traffic-policy-local"]
