"""Patches: one list of edits is the command that a person pastes and the object that is proved; and only what is proved is shown."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from checks import diagnosis, reach, resources
from checks.case import Case
from checks.catalogue import UNPATCHED
from checks.foresight import foreseen
from checks.mesh import Cluster, Mesh
from checks.patches import AWAY, Edit, Moved, command, edited, pointer
from checks.resources import APIGateway, Gateway, Namespace, Service, VirtualService, parse
from tests.test_scenarios import BROKEN, carry_out, changed, diagnosed, meshes, patched, sweep

if TYPE_CHECKING:
    from collections.abc import Sequence


NAME = 'it\'s; rm -rf $HOME `id` "x"'


def made(kind: str, spec: dict[str, Any], group: str = "networking.istio.io/v1", **metadata: Any) -> Any:
    meta = {"name": "cart", "namespace": "shop", **metadata}
    (found,) = resources.objects(parse({"apiVersion": group, "kind": kind, "metadata": meta, "spec": spec}))
    return found


def rules(*routes: Sequence[str]) -> VirtualService:
    found: VirtualService = made(
        "VirtualService", {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": h}} for h in r]} for r in routes]}
    )
    return found


@pytest.mark.parametrize(
    "edits",
    [
        ((("spec", "http", 0, "route", 0, "destination", "host"), "b"),),
        ((("spec", "http", 0, "route", 1), AWAY), (("spec", "http", 0, "route", 0, "weight"), 100)),
        ((("spec", "exportTo", 0), "x"), (("spec", "exportTo", 1), "y")),
        ((("spec", "hosts", 1), "d"), (("spec", "hosts", 2), "e")),
        ((("metadata", "annotations", "a/b~c"), "1"),),
        ((("spec", "http", 0), Moved(1)),),
        ((("spec", "http", 0, "timeout"), "3s"),),
    ],
)
def test_the_operations_make_of_the_manifest_what_the_edits_make_of_the_object(edits: tuple[Edit, ...]) -> None:
    old = rules("ab", "c")
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "hosts": ["cart"],
            "http": [
                {"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]},
                {"route": [{"destination": {"host": "c"}}]},
            ],
        },
    }
    new, operations = edited(old, edits)
    carry_out(operations, document)
    assert resources.objects(parse(document)) == [new]
    assert new != old


def test_what_is_not_there_is_not_taken_away() -> None:
    old = rules("a")
    assert edited(old, [(("spec", "exportTo"), AWAY), (("spec", "http", 0, "fault", "abort"), AWAY)]) == (old, [])


@pytest.mark.parametrize("word", ["plain", "a/b", "a~b", "~1", "/"])
def test_a_pointer_leads_to_one_member_whatever_it_is_called(word: str) -> None:
    document = {"m": {word: 1, "other": 2}}
    carry_out([{"op": "remove", "path": pointer(("m", word))}], document)
    assert document == {"m": {"other": 2}}


def test_a_shell_reads_the_command_as_it_is_meant_whatever_the_names_are() -> None:
    service = made("Service", {}, "v1", name=NAME, namespace="it's")
    operations = [{"op": "add", "path": "/spec/selector", "value": {"app": NAME}}]
    said = command(service, operations, context="a b'")
    heard = subprocess.run(["sh", "-c", f'kubectl() {{ printf "%s\\0" "$@"; }}; {said}'], capture_output=True, check=True)
    words = heard.stdout.decode().split("\0")[:-1]
    said_so = words.pop(7)
    assert words == ["-n", "it's", "patch", "service", NAME, "--type=json", "-p", "--context", "a b'"]
    assert json.loads(said_so) == operations


def test_a_kind_that_two_groups_have_is_named_with_its_group() -> None:
    istio, api = made("Gateway", {}), made("Gateway", {}, "gateway.networking.k8s.io/v1")
    assert isinstance(istio, Gateway)
    assert isinstance(api, APIGateway)
    assert " patch gateway.networking.istio.io cart " in command(istio, [])
    assert " patch gateway.gateway.networking.k8s.io cart " in command(api, [])
    assert command(Namespace(metadata=resources.Metadata(name="shop")), []).startswith("kubectl patch namespace shop ")


def test_of_several_clusters_the_one_is_named_whose_object_it_is() -> None:
    one = meshes("subset-empty-weighted")[0].clusters[0]
    several = Mesh("", [one, Cluster("far away", objects={Service: one.objects[Service]})], 0.0)
    (patch,) = [f.patch or "" for f in diagnosis.sweep(several).findings if f.patch]
    assert patch.endswith("' --context east")
    (service, *_) = one.all(Service)
    said = Case.of("", several).patch("far away", service, (("spec", "type"), "NodePort"))
    assert (said or "").endswith("' --context 'far away'")


# --- what is proved ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_patch_does_not_reach_stays_as_it_is(name: str) -> None:
    """The proof looks at the hosts that a patch can reach: nothing else differs between a sweep before it and one after."""
    for change in [patched(name, f.patch) for f in sweep(name).findings if f.patch]:
        for was, now in zip(meshes(name), changed(name, change), strict=True):
            mine = foreseen(was, [change]) if change.cluster in {c.name for c in was.clusters} else []
            near = reach.reach(was, now, mine, diagnosis.hosts) if mine else reach.outward(was)
            left = [[f for f in diagnosis.sweep(m).findings if f.host not in near] for m in (was, now)]
            before, after = ([replace(f, patch=None, origin=None) for f in part] for part in left)
            assert before == after


def test_a_patch_that_breaks_something_is_not_shown() -> None:
    """Without ports the Service has no rule left that fails, and nobody is served."""
    found, host = meshes("subset-empty-weighted")[0], diagnosed("subset-empty-weighted").host
    name, namespace, *_ = host.split(".")
    case = Case.of(host, found)
    looked = diagnosis._look_at(case)  # the proof itself
    harmful = case.patch("east", found.clusters[0].get(Service, namespace, name), (("spec", "ports"), AWAY))
    assert harmful is not None
    harming = replace(looked, findings=tuple(replace(f, patch=harmful) for f in looked.findings))
    assert [f.patch for f in diagnosis._proved(case, harming, lambda _: None, 1000, {}).findings] == [None]


def test_every_cause_has_a_patch_somewhere_or_a_reason_why_there_is_none() -> None:
    patched_somewhere = {f.cause for name in BROKEN for f in sweep(name).findings if f.patch}
    assert set(UNPATCHED) & patched_somewhere == set(), "what has a patch needs no reason"
    assert set(UNPATCHED) | patched_somewhere == set(diagnosis.registry())


@pytest.mark.parametrize("cause", sorted(UNPATCHED))
def test_a_reason_is_one_line_that_a_person_reads(cause: str) -> None:
    assert UNPATCHED[cause][0].islower()
    assert not UNPATCHED[cause].endswith(".")
    assert "\n" not in UNPATCHED[cause]
