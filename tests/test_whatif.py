"""`meshwhy whatif`: which clusters a change reaches, what it would introduce and resolve, and what is refused in one sentence."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bot import changes, manifests
from bot.demo.runner import RECORDED
from checks.mesh import Mesh
from checks.resources import Namespace, Service, ServiceEntry, VirtualService
from templates import blocks
from tests.apiserver import ApiServer
from tests.asking import Answer, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EAST, WEST = str(RECORDED / "east"), str(RECORDED / "west")
FROM_EAST = ("--from", f"east={EAST}")
DESTINATION = "VirtualService mynamespace/destination"


def document(
    kind: str, name: str, namespace: str, spec: dict[str, Any] | None = None, group: str = "networking.istio.io/v1"
) -> dict[str, Any]:
    made: dict[str, Any] = {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    return made if spec is None else {**made, "spec": spec}


def to(subset: str) -> dict[str, Any]:
    """The article's rule with all of its weight on one subset."""
    route = [{"destination": {"host": "destination", "subset": subset}}]
    return document("VirtualService", "destination", "mynamespace", {"hosts": ["destination"], "http": [{"route": route}]})


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """A file that holds some objects."""

    def written(*objects: dict[str, Any], name: str = "change.yaml") -> str:
        (tmp_path / name).write_text(yaml.safe_dump_all(objects))
        return str(tmp_path / name)

    return written


# --- what is introduced and resolved -----------------------------------------------------------------------------------------


def test_a_change_that_mends_resolves_and_introduces_nothing(ask: Callable[..., Answer], file: Callable[..., str]):
    answer = ask("whatif", file(to("v2")), *FROM_EAST, "-o", "json")
    assert (answer.status, answer.err) == (0, "")
    assert answer.json.keys() == {"introduced", "resolved"}
    assert answer.json["introduced"] == []
    (gone,) = answer.json["resolved"]
    assert (gone["cause"], gone["resource"], gone["failing_share"]) == ("subset-empty-weighted", DESTINATION, 0.95)
    assert gone["origin"]["file"].endswith("mynamespace.yaml"), "what is resolved stands where it stood"


def test_a_change_that_breaks_has_status_1_and_its_finding_stands_in_the_changed_file(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(document("Sidecar", "unrelated", "elsewhere", {}), to("v3"))
    answer = ask("whatif", path, *FROM_EAST, "-o", "json")
    assert answer.status == 1
    (found,) = answer.json["introduced"]
    assert (found["cause"], found["severity"], found["failing_share"]) == ("subset-undefined", "error", 1.0)
    assert found["origin"] == {"file": path, "line": 8}


def test_deleting_what_a_rule_needs_is_weighed_too(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(document("DestinationRule", "destination", "mynamespace"))
    answer = ask("whatif", "--delete", path, *FROM_EAST, "-o", "json")
    assert answer.status == 1
    assert {(f["cause"], f["resource"]) for f in answer.json["introduced"]} == {("subset-undefined", DESTINATION)}


def two_rules(first: str, second: str) -> dict[str, Any]:
    """The article's host with a rule for one path and a rule for all others."""
    http = [{"route": [{"destination": {"host": "destination", "subset": s}}]} for s in (first, second)]
    http[0]["match"] = [{"uri": {"prefix": "/first"}}]
    return document("VirtualService", "destination", "mynamespace", {"hosts": ["destination"], "http": http})


@pytest.mark.parametrize(
    ("before", "after", "introduced", "resolved"),
    [
        (("v2", "no"), ("nor", "v2"), ["spec.http[0].route[0].destination.subset"], ["spec.http[1].route[0].destination.subset"]),
        (("v2", "no"), ("nor", "no"), ["spec.http[0].route[0].destination.subset"], []),
        (("nor", "no"), ("v2", "no"), [], ["spec.http[0].route[0].destination.subset"]),
        (("v2", "no"), ("no", "v2"), [], []),  # what is moved is the same
        (("v2", "no"), ("v2", "nor"), [], []),  # and so is what is called otherwise
    ],
)
def test_two_rules_of_one_object_are_told_apart(
    ask: Callable[..., Answer],
    file: Callable[..., str],
    tmp_path: Path,
    before: tuple[str, str],
    after: tuple[str, str],
    introduced: list[str],
    resolved: list[str],
):
    shutil.copytree(EAST, tmp_path / "east")
    path = tmp_path / "east" / "mynamespace.yaml"
    items = [i for i in yaml.safe_load(path.read_text())["items"] if i["kind"] != "VirtualService"]
    path.write_text(yaml.safe_dump_all([*items, two_rules(*before)]))
    answer = ask("whatif", file(two_rules(*after)), "--from", str(tmp_path / "east"), "-o", "json")
    assert [f["path"] for f in answer.json["introduced"]] == introduced
    assert [f["path"] for f in answer.json["resolved"]] == resolved
    assert answer.status == bool(introduced)


def test_what_fails_for_more_of_those_who_call_is_introduced(ask: Callable[..., Answer], file: Callable[..., str]):
    def cluster(name: str, export: list[str]) -> str:
        items = [d for path in sorted(Path(EAST).iterdir()) for d in yaml.safe_load(path.read_text())["items"]]
        (rule,) = [i for i in items if i["kind"] == "DestinationRule" and i["metadata"]["name"] == "destination"]
        rule["spec"]["exportTo"] = export
        items = [i for i in items if i["kind"] != "VirtualService" or i["metadata"]["name"] != "destination"]
        items += [to("v2"), injected("one"), injected("two")]
        return file(*items, name=f"{name}.yaml")

    def injected(namespace: str) -> dict[str, Any]:
        pod = document("Pod", "a", namespace, {"containers": [{"name": "istio-proxy"}]}, group="v1")
        pod["metadata"]["labels"] = {"security.istio.io/tlsMode": "istio"}
        return {**pod, "status": {"phase": "Running", "podIP": "10.9.9.9"}}

    narrow, wide = cluster("narrow", [".", "two"]), cluster("wide", ["."])
    answer = ask("whatif", wide, "--from", narrow, "-o", "json")
    assert [f["cause"] for f in answer.json["introduced"]] == ["dr-not-exported"]
    assert answer.status == 1
    answer = ask("whatif", narrow, "--from", wide, "-o", "json")
    assert (answer.status, answer.json["introduced"]) == (0, [])
    assert "dr-not-exported" in [f["cause"] for f in answer.json["resolved"]]
    fresh = file(injected("three"))
    assert ask("whatif", fresh, "--from", wide, "-o", "json").json == {"introduced": [], "resolved": []}, (
        "a new caller is no fault of the rule"
    )


def test_hosts_that_go_are_said(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mynamespace"}})
    answer = ask("whatif", "--delete", path, *FROM_EAST, "-o", "json")
    assert "destination.mynamespace.svc.cluster.local" in answer.json["gone"]
    assert answer.err.startswith("No istiod would know ")
    assert answer.err in " ".join(ask("whatif", "--delete", path, *FROM_EAST).out.split()) + "\n"


def test_of_two_manifests_of_an_object_the_last_counts_and_it_is_not_both_applied_and_deleted(
    ask: Callable[..., Answer], file: Callable[..., str]
):
    bad, good = file(to("v3"), name="bad.yaml"), file(to("v2"), name="good.yaml")
    assert ask("whatif", bad, good, *FROM_EAST).status == 0
    told = ask("whatif", good, bad, *FROM_EAST)
    assert (told.status, told.out.count(": replaced")) == (1, 1)
    refused(
        ask("whatif", bad, "--delete", good, *FROM_EAST), f"{DESTINATION} cannot be both applied and deleted: it is in {bad} and {good}."
    )


def test_a_file_of_other_kinds_is_passed_over_beside_others(ask: Callable[..., Answer], file: Callable[..., str]):
    job = file(document("Job", "j", "mynamespace", group="batch/v1"), name="job.yaml")
    config = file(document("ConfigMap", "c", "mynamespace", group="v1"), name="config.yaml")
    answer = ask("whatif", job, config, file(to("v3")), *FROM_EAST, "-o", "json")
    assert answer.status == 1
    assert answer.err.splitlines() == [
        f"Passed over: {job} holds manifests, but none of a kind that meshwhy reads (it has Job).",
        f"Passed over: {config} holds no object of a kind that meshwhy reads.",
    ]
    refused(ask("whatif", job, config, *FROM_EAST), f"{job} holds manifests, but none")


def test_what_is_left_as_it_is_changes_nothing(ask: Callable[..., Answer]):
    answer = ask("whatif", EAST, *FROM_EAST)
    assert answer.status == 0
    assert answer.out.startswith("✓ no finding is introduced, none is resolved\n")
    assert f"{DESTINATION}: left as it is ({EAST}/mynamespace.yaml:1082)" in answer.out


def test_pods_and_endpoints_that_are_given_are_weighed(ask: Callable[..., Answer]):
    answer = ask("whatif", str(RECORDED / "destination-v1.yaml"), *FROM_EAST, "-o", "json")
    assert (answer.status, answer.json["introduced"]) == (0, [])
    assert [f["cause"] for f in answer.json["resolved"]] == ["subset-empty-weighted"]


def test_the_snapshot_is_the_same_afterwards(ask: Callable[..., Answer], file: Callable[..., str], tmp_path: Path):
    shutil.copytree(EAST, tmp_path / "east")
    before = {f: f.read_bytes() for f in (tmp_path / "east").iterdir()}
    assert ask("whatif", file(to("v3")), "--from", str(tmp_path / "east")).status == 1
    assert before == {f: f.read_bytes() for f in (tmp_path / "east").iterdir()}


def test_what_is_not_weighed_is_said_and_no_secret_is_told(ask: Callable[..., Answer], file: Callable[..., str]):
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a"}]}}
    fresh = document("Deployment", "fresh", "mynamespace", {"replicas": 2, "template": template}, group="apps/v1")
    secret = {**document("Secret", "pw", "mynamespace", group="v1"), "stringData": {"password": "hunter2"}}
    path = file(fresh, secret, document("Job", "j", "mynamespace", group="batch/v1"), to("v2"))
    for form in ("text", "slack", "json", "github"):
        answer = ask("whatif", path, *FROM_EAST, "-o", form)
        said = " ".join((answer.out + answer.err).split())
        assert "Not foreseen: the new pods of Deployment mynamespace/fresh." in said, form
        assert "Passed over, since meshwhy does not read these kinds: 1 Job." in said, form
        assert "hunter2" not in said
        assert answer.status == 0


def test_a_workload_at_0_replicas_is_weighed_with_its_pods(ask: Callable[..., Answer], file: Callable[..., str]):
    items = yaml.safe_load((RECORDED / "east" / "mynamespace.yaml").read_text())["items"]
    (workload,) = [i for i in items if i["kind"] == "Deployment" and i["metadata"]["name"] == "destination-v2"]
    workload["spec"]["replicas"] = 0
    answer = ask("whatif", file(workload), *FROM_EAST, "-o", "json")
    assert answer.status == 1
    assert {f["cause"] for f in answer.json["introduced"]} <= {"workload-scaled-zero", "subset-scaled-to-zero"}
    assert max(f["failing_share"] for f in answer.json["introduced"]) == 1.0


def test_replicas_that_are_left_out_stay_as_an_autoscaler_set_them(ask: Callable[..., Answer], file: Callable[..., str]):
    items = yaml.safe_load((RECORDED / "east" / "mynamespace.yaml").read_text())["items"]
    (workload,) = [i for i in items if i["kind"] == "Deployment" and i["metadata"]["name"] == "destination-v2"]
    workload["spec"].pop("replicas")
    assert "Deployment mynamespace/destination-v2: left as it is" in ask("whatif", file(workload), *FROM_EAST).out


# --- which clusters ----------------------------------------------------------------------------------------------------------

TWICE = ("--from", f"a/one={EAST}", "--from", f"b/two={EAST}", "--from", f"c/west={WEST}")


def test_an_object_is_changed_in_every_cluster_that_has_it(ask: Callable[..., Answer], file: Callable[..., str]):
    answer = ask("whatif", file(to("v3")), *TWICE, "-o", "json")
    assert sorted(f["cluster"] for f in answer.json["introduced"]) == ["one", "two"]


def test_a_named_cluster_is_the_only_one(ask: Callable[..., Answer], file: Callable[..., str]):
    answer = ask("whatif", f"two={file(to('v3'))}", *TWICE, "-o", "json")
    assert [f["cluster"] for f in answer.json["introduced"]] == ["two"]
    both = ask("whatif", f"two={file(to('v3'))}", f"one={file(to('v2'), name='b.yaml')}", *TWICE, "-o", "json").json
    assert ([f["cluster"] for f in both["introduced"]], [f["cluster"] for f in both["resolved"]]) == (["two"], ["one", "two"])


def test_new_configuration_is_created_at_every_control_plane(ask: Callable[..., Answer], file: Callable[..., str]):
    told = ask("whatif", file(document("Sidecar", "new", "mynamespace", {"egress": [{"hosts": ["./*"]}]})), *TWICE).out
    for cluster in ("one", "two", "west"):
        assert f"Sidecar mynamespace/new in {cluster}: created" in told


def test_a_new_pod_needs_a_cluster_unless_there_is_only_one(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(document("Pod", "new", "mynamespace", {}, group="v1"))
    refused(ask("whatif", path, *TWICE), "Pod mynamespace/new is in none of one, two and west; say where it would be created: NAME=FILE.")
    assert "Pod mynamespace/new: created" in ask("whatif", path, *FROM_EAST).out
    assert "Pod mynamespace/new in west: created" in ask("whatif", f"west={path}", *TWICE).out


def test_a_path_with_an_equals_sign_is_a_path(ask: Callable[..., Answer], file: Callable[..., str]):
    assert ask("whatif", file(to("v3"), name="env=prod.yaml"), *FROM_EAST).status == 1


# --- as the API server would store it ------------------------------------------------------------------------------------------


def mesh(path: str, name: str) -> Mesh:
    return Mesh(name, [manifests.read(path, name, read_at=time.time())], time.time())


def aimed(path: str, meshes: list[Mesh]) -> Iterator[Any]:
    for planned in changes.aim(changes.read(path), meshes):
        yield planned.change.new


def test_a_replaced_object_keeps_its_age_and_a_new_one_is_the_youngest(ask: Callable[..., Answer], file: Callable[..., str]):
    """istiod keeps the older of two entries: a manifest without a time must not become the oldest."""
    west = mesh(WEST, "west")
    old = west.clusters[0].get(ServiceEntry, "egress", "partner-pl-new")
    assert old is not None
    entries = [d for d in yaml.safe_load((RECORDED / "west" / "egress.yaml").read_text())["items"] if d["kind"] == "ServiceEntry"]
    (entry,) = (e for e in entries if e["metadata"]["name"] == "partner-pl-new")
    same = document("ServiceEntry", "partner-pl-new", "egress", entry["spec"])
    again = {**document("ServiceEntry", "partner-pl-again", "egress", entry["spec"])}
    again["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z"
    kept, born = aimed(file(same, again), [west])
    assert kept.created == old.created
    assert born.created > old.created
    answer = ask("whatif", file(same), "--from", f"west={WEST}", "-o", "json")
    assert answer.json == {"introduced": [], "resolved": []}


def test_address_status_and_the_namespaces_own_label_are_not_lost(file: Callable[..., str], tmp_path: Path):
    stored = document("Service", "web", "shop", {"clusterIP": "10.0.0.7", "type": "LoadBalancer", "ports": [{"port": 80}]}, group="v1")
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({**stored, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}))
    wanted = document("Service", "web", "shop", {"type": "LoadBalancer", "ports": [{"port": 81}]}, group="v1")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}}
    service, shop = aimed(file(wanted, namespace), [mesh(str(tmp_path / "cluster.yaml"), "c")])
    assert isinstance(service, Service)
    assert isinstance(shop, Namespace)
    assert (service.spec.cluster_ip, service.spec.ports[0].port) == ("10.0.0.7", 81)
    assert service.status.load_balancer.ingress[0].ip == "192.0.2.1"
    assert shop.labels == {"team": "a", "kubernetes.io/metadata.name": "shop"}


def test_what_a_controller_said_of_an_earlier_spec_is_not_taken_over(file: Callable[..., str], tmp_path: Path):
    said = {"addresses": [{"value": "192.0.2.1"}], "conditions": [{"type": "Programmed", "status": "False"}]}

    def gateway(port: int) -> dict[str, Any]:
        listeners = [{"name": "http", "port": port, "protocol": "HTTP"}]
        return document(
            "Gateway", "public", "edge", {"gatewayClassName": "istio", "listeners": listeners}, group="gateway.networking.k8s.io/v1"
        )

    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({**gateway(80), "status": said}))
    meshes = [mesh(str(tmp_path / "cluster.yaml"), "c")]
    (same,), (other,) = aimed(file(gateway(80)), meshes), aimed(file(gateway(81), name="other.yaml"), meshes)
    assert [c.status for c in same.status.conditions] == ["False"]
    assert other.status.conditions is None
    assert [a.value for a in same.status.addresses] == [a.value for a in other.status.addresses] == ["192.0.2.1"]


# --- forms -------------------------------------------------------------------------------------------------------------------


def test_changes_come_from_a_pipe_a_list_a_directory_and_an_archive(
    ask: Callable[..., Answer], file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [to("v3")]})
    (tmp_path / "list.json").write_text(text)
    (tmp_path / "folder").mkdir()
    shutil.copy(file(to("v3")), tmp_path / "folder")
    (tmp_path / "folder" / "values.yaml").write_text("replicas: 3\n")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "folder" / "change.yaml", "change.yaml")
    for path in ("list.json", "folder", "a.tar.gz"):
        assert ask("whatif", str(tmp_path / path), *FROM_EAST).status == 1, path
    for word in ("-", "east=-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        answer = ask("whatif", word, *FROM_EAST)
        assert answer.status == 1
        assert "(stdin:1)" in answer.out


def test_github_gets_an_annotation_beside_the_changed_line(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(to("v3"), name="a, b:c.yaml")
    answer = ask("whatif", path, *FROM_EAST, "-o", "github")
    assert answer.status == 1
    first, last = answer.out.splitlines()
    place = path.replace(":", "%3A").replace(",", "%2C")
    assert first.startswith(f"::error file={place},line=1,title=MESH106 subset-undefined%3A 100 %25 of destination.mynamespace::100 %25 of")
    assert last == "1 error introduced, 1 finding resolved."


def test_github_shows_what_breaks_elsewhere_at_the_change_that_breaks_it(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(document("DestinationRule", "destination", "mynamespace"), name="gone.yaml")
    beside = file(document("Sidecar", "unrelated", "elsewhere", {}), document("DestinationRule", "other", "elsewhere", {"host": "other"}))
    said = ask("whatif", beside, "--delete", path, *FROM_EAST, "-o", "github").out.splitlines()[0]
    assert said.startswith("::error file=")
    assert f"At {DESTINATION} spec.http[0].route[0].destination.subset ({EAST}/mynamespace.yaml:1082)" in said
    assert ",line=8," in said, "of two the one of the kind that is named"
    alone = ask("whatif", "--delete", path, *FROM_EAST, "-o", "github").out
    assert alone.startswith(f"::error file={path},line=1,")


def test_slack_gets_a_message_that_fits(ask: Callable[..., Answer], file: Callable[..., str]):
    told = ask("whatif", file(to("v3")), *FROM_EAST, "-o", "slack").json
    assert told["text"].startswith("1 error introduced, 1 finding resolved")
    assert blocks.measure(blocks.Message(told["text"], tuple(told["blocks"]))) == []


def test_other_commands_have_no_form_for_github(ask: Callable[..., Answer]):
    refused(ask("sweep", *FROM_EAST, "-o", "github"), "github")


# --- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no manifests"),
        ("a: b", "holds no Kubernetes manifests"),
        ("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}", "none of a kind that meshwhy reads (it has Job)"),
        ("apiVersion: v1\nkind: List\nitems: []", "holds no object of a kind that meshwhy reads"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", "holds no object of a kind that meshwhy reads"),
        ("kind: [", "x.yaml:2: it is not YAML"),
        (
            f"{yaml.safe_dump(to('v2'))}---\napiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: b}}\nspec: 7",
            "Service b/a cannot be under",
        ),
        ("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {namespace: b}", "without metadata.name"),
        ("kind: VirtualService\nmetadata: {name: b}", "apiVersion and kind must both be given"),
    ],
)
def test_a_file_that_holds_nothing_to_weigh_gets_one_sentence(ask: Callable[..., Answer], tmp_path: Path, text: str, said: str):
    (tmp_path / "x.yaml").write_text(text)
    for how in ((), ("--delete",)):
        refused(ask("whatif", *how, str(tmp_path / "x.yaml"), *FROM_EAST), said)


def test_a_malformed_object_is_named_with_its_line(ask: Callable[..., Answer], file: Callable[..., str]):
    path = file(to("v2"), document("DestinationRule", "d", "mynamespace", {"host": 7}))
    answer = ask("whatif", path, *FROM_EAST)
    refused(answer, f"{path}:15: DestinationRule mynamespace/d cannot be understood: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "What is to change? Give CHANGE.yaml"),
        (("absent.yaml",), "absent.yaml is not there."),
        (("-", "--from", "-"), "Standard input can be read only once"),
        (("-", "--delete", "-"), "Standard input can be read only once"),
        (("=x",), "'=x' is no change"),
        (("wset=FILE",), 'No cluster is called "wset"; there is east.'),
        (("--delete", "GONE"), "VirtualService shop/gone cannot be deleted: it is not in east."),
        (("--delete", "east=GONE"), "VirtualService shop/gone cannot be deleted: it is not in east."),
        (("FILE", "-o", "yaml"), "yaml"),
    ],
)
def test_what_cannot_be_weighed_gets_one_sentence(ask: Callable[..., Answer], file: Callable[..., str], words: tuple[str, ...], said: str):
    paths = {"FILE": file(to("v2")), "GONE": file(document("VirtualService", "gone", "shop"), name="gone.yaml")}
    filled = [
        w if "=" not in w and w not in paths else w.replace(w.rpartition("=")[2], paths.get(w.rpartition("=")[2], "x")) for w in words
    ]
    refused(ask("whatif", *filled, *FROM_EAST), said)


def test_what_could_not_be_read_is_said_and_leaves_the_question_open(ask: Callable[..., Answer], file: Callable[..., str], tmp_path: Path):
    shutil.copytree(EAST, tmp_path / "east")
    recording = {"apiVersion": "meshwhy.io/v1", "kind": "Recording", "unreadable": {"sidecars.networking.istio.io": "403"}}
    (tmp_path / "east" / "recording.yaml").write_text(yaml.safe_dump(recording))
    source = ("--from", str(tmp_path / "east"))
    said = "Not everything could be read: east: sidecars.networking.istio.io: 403.\n"
    answer = ask("whatif", file(to("v2")), *source, "-o", "json")
    assert (answer.status, answer.err) == (2, said)
    assert answer.json["introduced"] == []
    answer = ask("whatif", file(to("v3")), *source)
    assert (answer.status, answer.err) == (1, said), "what is known to break counts before what is not known"
    refused(
        ask("whatif", "--delete", file(document("Sidecar", "a", "b")), *source),
        "Whether there is Sidecar b/a to delete is not known: sidecars.networking.istio.io cannot be read in east: 403.",
    )


def test_an_object_that_nobody_could_understand_can_be_mended(ask: Callable[..., Answer], file: Callable[..., str], tmp_path: Path):
    shutil.copytree(EAST, tmp_path / "east")
    broken = document("Sidecar", "default", "mynamespace", {"egress": 7})
    (tmp_path / "east" / "sidecar.yaml").write_text(yaml.safe_dump(broken))
    source = ("--from", str(tmp_path / "east"))
    assert "Sidecar mynamespace/default cannot be understood" in ask("whatif", file(to("v2")), *source).err
    mended = file(document("Sidecar", "default", "mynamespace", {"egress": [{"hosts": ["*/*"]}]}), name="mended.yaml")
    answer = ask("whatif", mended, *source)
    assert (answer.status, answer.err) == (0, "")
    assert "Sidecar mynamespace/default: created" in answer.out


def test_a_mesh_configuration_that_istiod_would_not_take_is_refused_and_can_be_mended(
    ask: Callable[..., Answer], file: Callable[..., str], tmp_path: Path
):
    def config(mesh: str) -> dict[str, Any]:
        return {**document("ConfigMap", "istio", "istio-system", group="v1"), "data": {"mesh": mesh}}

    broken = file(config("rootNamespace: [a"), name="broken.yaml")
    refused(ask("whatif", broken, *FROM_EAST), f"{broken}:1: ConfigMap istio-system/istio cannot be understood: ")
    shutil.copytree(EAST, tmp_path / "east")
    for path in (tmp_path / "east").glob("*.yaml"):
        path.write_text(yaml.safe_dump_all(i for i in yaml.safe_load(path.read_text())["items"] if i["kind"] != "ConfigMap"))
    shutil.copy(broken, tmp_path / "east")
    source = ("--from", str(tmp_path / "east"))
    answer = ask("whatif", file(to("v2")), *source)
    assert answer.status == 2
    assert "ConfigMap istio-system/istio cannot be understood: " in answer.err
    mended = ask("whatif", file(config("rootNamespace: istio-system"), name="mended.yaml"), *source)
    assert (mended.status, mended.err) == (0, "")


# --- live --------------------------------------------------------------------------------------------------------------------


async def test_nothing_is_written_to_a_live_cluster(
    ask: Callable[..., Answer], file: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    async with ApiServer() as east:
        for path in sorted(Path(EAST).iterdir()):
            east.put(*yaml.safe_load(path.read_text())["items"])
        monkeypatch.setenv("KUBECONFIG", east.kubeconfig(tmp_path / "kubeconfig"))
        change = file(to("v3"))
        answer = await asyncio.to_thread(ask, "whatif", change, "-o", "github")
        assert answer.status == 1
        assert answer.out.startswith(f"::error file={change},line=1,")
        assert {r.verb for r in east.requests} <= {"list", "discovery"}


def test_the_recorded_rule_is_the_one_that_these_tests_change():
    rules = manifests.read(EAST, "east", read_at=0.0).get(VirtualService, "mynamespace", "destination")
    assert rules is not None
    assert rules.ref == DESTINATION
