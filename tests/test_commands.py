"""The command line as people and scripts use it: answers, refusals, exit statuses, pipes, terminals, Tab."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from bot import commands, manifests
from bot.demo.runner import RECORDED
from bot.store import Store
from bot.valkey import embedded
from checks import diagnosis
from checks.case import SAME_AS
from checks.catalogue import CAUSES
from checks.mesh import Mesh
from templates import messages
from tests import ports
from tests.apiserver import ApiServer
from tests.asking import Answer, refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator


ROOT = Path(__file__).parents[1]
EAST, WEST = str(RECORDED / "east"), str(RECORDED / "west")
HOST = "destination.mynamespace.svc.cluster.local"
CALLER = "mynamespace/service-source-v1-74f955bd84-9lmnf"
MESHWHY = [sys.executable, "-m", "bot"]

PLAIN = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {ports: [{port: 80}]}\n"


def process(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    more = {"capture_output": True, "text": True, "timeout": 60, "cwd": ROOT} | more
    return subprocess.run([*MESHWHY, *words], check=False, **more)


# --- answers ---------------------------------------------------------------------------------------------------------------


def test_the_articles_first_incident_is_named_with_its_share_resource_and_repair(ask: Callable[..., Answer]):
    answer = ask("why", "destination.mynamespace", "--from", f"east={EAST}", "-o", "json")
    assert answer.status == 1
    told = answer.json
    assert (told["host"], told["verdict"], told["failing_share"]) == (HOST, "degraded", 0.95)
    (finding,) = told["findings"]
    assert (finding["cause"], finding["resource"]) == ("subset-empty-weighted", "VirtualService mynamespace/destination")
    assert finding["origin"]["file"].endswith("mynamespace.yaml")
    assert "kubectl" in finding["patch"]
    assert told["clusters"] == [{"name": "east", "synced": True, "age_s": 0.0, "istio": "1.28", "proxies": ["1.28"], "open": []}]


def test_the_articles_second_incident_names_both_entries_and_what_is_lost(ask: Callable[..., Answer]):
    answer = ask("why", "api-pl.partner.example", "--from", f"west={WEST}")
    assert answer.status == 1
    for word in ("egress/partner-pl ", "egress/partner-pl-new", "8443", "MESH402 se-dup-unmergeable-ports"):
        assert word in answer.out


def test_text_says_the_verdict_first_and_has_no_colour_in_a_pipe(ask: Callable[..., Answer]):
    answer = ask("why", "destination", "--from", f"east={EAST}")
    assert answer.out.startswith(f"✗ degraded  {HOST} · east\n")
    assert "\x1b" not in answer.out
    assert answer.err == ""


def test_a_healthy_host_has_status_0(ask: Callable[..., Answer], tmp_path: Path):
    shutil.copytree(EAST, tmp_path / "east")
    shutil.copy(RECORDED / "destination-v1.yaml", tmp_path / "east")
    answer = ask("why", "destination.mynamespace", "--from", str(tmp_path / "east"))
    assert (answer.status, answer.out[:9]) == (0, "✓ healthy")


def test_slack_gets_the_same_payload_each_time(ask: Callable[..., Answer]):
    once, again = (ask("why", "destination", "--from", f"east={EAST}", "-o", "slack") for _ in range(2))
    assert once == again
    newest = max(f.stat().st_mtime for f in Path(EAST).iterdir())
    mesh = Mesh.of([manifests.read(EAST, "east", read_at=newest)], newest)
    message = messages.why(msgspec.to_builtins(diagnosis.why("destination", mesh)))
    assert once.json == json.loads(msgspec.json.encode({"text": message.text, "blocks": message.blocks}))


@pytest.mark.parametrize(
    ("words", "headline"),
    [
        (("routes", "destination"), "destination.mynamespace: 1 rule"),
        (("sweep",), "1 of 3 hosts fails"),
        (("checks", "mesh101"), "MESH101 subset-empty-weighted"),
    ],
)
def test_every_answer_that_slack_shows_has_its_slack_form(ask: Callable[..., Answer], words: tuple[str, ...], headline: str):
    source = () if words[0] == "checks" else ("--from", f"east={EAST}")
    assert ask(*words, *source, "-o", "slack").json["text"].startswith(headline)


def test_routes_are_those_of_the_pod_that_was_named(ask: Callable[..., Answer]):
    answer = ask("routes", "destination", "--as", f"east:{CALLER}", "--from", f"east={EAST}", "-o", "json")
    (route,) = answer.json["routes"]
    assert answer.status == 1
    assert (route["viewpoint"]["namespace"] + "/" + route["viewpoint"]["pod"], route["failing_share"]) == (CALLER, 0.95)
    assert [(d["envoy_cluster"], d["usable"]) for d in route["destinations"]] == [
        (f"outbound|80|v1|{HOST}", False),
        (f"outbound|80|v2|{HOST}", True),
    ]


def test_routes_without_a_host_are_those_of_every_host(ask: Callable[..., Answer]):
    answer = ask("routes", "--as", "mynamespace", "--from", f"east={EAST}", "-o", "json")
    assert {r["host"] for r in answer.json["routes"]} >= {HOST, "service-source.mynamespace.svc.cluster.local"}


def test_routes_that_all_lead_somewhere_have_status_0(ask: Callable[..., Answer]):
    assert ask("routes", "service-source", "--from", f"east={EAST}").status == 0


def test_a_sweep_finds_both_incidents(ask: Callable[..., Answer]):
    answer = ask("sweep", "--from", f"east/east={EAST}", "--from", f"west/west={WEST}", "-o", "json")
    assert answer.status == 1
    assert {(f["cluster"], f["cause"]) for f in answer.json["findings"] if f["severity"] == "error"} == {
        ("east", "subset-empty-weighted"),
        ("west", "se-dup-unmergeable-ports"),
    }
    assert [c["name"] for c in answer.json["clusters"]] == ["east", "west"]
    assert answer.json.keys() == {"hosts", "findings", "skipped", "clusters"}


def test_clusters_given_together_are_one_mesh_unless_named_otherwise(ask: Callable[..., Answer]):
    together = ask("why", "istiod.istio-system", "--from", f"east={EAST}", "--from", f"west={WEST}", "-o", "json").json
    callers = {r["viewpoint"]["cluster"] for r in together["routes"]}
    endpoints = {e["cluster"] for r in together["routes"] for d in r["destinations"] for e in d["endpoints"]}
    assert callers == {"east", "west"}
    assert endpoints == {"east", "west"}
    apart = ask("why", "istiod.istio-system", "--from", f"a/east={EAST}", "--from", f"b/west={WEST}", "-o", "json").json
    for route in apart["routes"]:
        own = {route["viewpoint"]["cluster"]}
        assert {e["cluster"] for d in route["destinations"] for e in d["endpoints"]} <= own


def test_a_source_without_a_name_is_called_like_its_file(ask: Callable[..., Answer], tmp_path: Path):
    shutil.copytree(EAST, tmp_path / "prod=eu")
    told = ask("why", "destination", "--from", str(tmp_path / "prod=eu"), "-o", "json").json
    assert [c["name"] for c in told["clusters"]] == ["prod-eu"]


def test_the_clusters_of_a_settings_file_are_meshes_of_their_own_and_need_no_secret(ask: Callable[..., Answer], tmp_path: Path):
    path = tmp_path / "meshwhy.yaml"
    path.write_text(
        "slack: {app_token: {env: NOT_SET}, bot_token: {env: NOT_SET}}\n"
        f"clusters: [{{name: east, path: {EAST}}}, {{name: west, path: {WEST}}}]\n"
        'alerts: {default_channel: "#mesh"}\n'
    )
    answer = ask("sweep", "--config", str(path), "-o", "json")
    assert answer.status == 1
    assert {f["cluster"] for f in answer.json["findings"]} == {"east", "west"}


def test_standard_input_is_a_source():
    text = "---\n".join(f.read_text() for f in sorted(Path(EAST).iterdir()))
    answer = process("why", "destination", "--from", "-", "-o", "json", input=text)
    assert answer.returncode == 1, answer.stderr
    assert json.loads(answer.stdout)["clusters"][0]["name"] == "stdin"


def test_the_catalogue_and_one_cause_of_it(ask: Callable[..., Answer]):
    rows = ask("checks", "-o", "json").json["checks"]
    assert [r["id"] for r in rows] == list(CAUSES)
    assert {r["id"] for r in rows if r["implemented"]} == {*diagnosis.registry(), *diagnosis.live()}
    assert ask("checks", "MESH101").out == ask("checks", "Subset-Empty-Weighted").out
    assert "MESH101" in ask("checks").out
    told = ask("checks", "MESH101", "-o", "json").json
    assert (told["id"], told["implemented"]) == ("subset-empty-weighted", True)
    assert told["page"]


def test_a_cause_is_found_by_the_code_that_another_tool_has_for_it(ask: Callable[..., Answer]):
    assert ask("checks", "kia1104").out == ask("checks", "vs-single-weight-ignored").out
    several = ask("checks", "IST0106", "-o", "json").json["checks"]
    assert [r["id"] for r in several] == [i for i, codes in SAME_AS.items() if "IST0106" in codes]
    assert len(several) > 1
    assert "MESH215" in ask("checks", "ist0106").out


def test_routes_of_several_ports_stand_under_their_ports(ask: Callable[..., Answer], tmp_path: Path):
    service = {"ports": [{"name": "http", "port": 80}, {"name": "http-admin", "port": 8080}]}
    sidecar = {"metadata": {"name": "a", "namespace": "shop"}, "spec": {"containers": [{"name": "istio-proxy"}]}}
    path = tmp_path / "east.yaml"
    metadata = {"name": "cart", "namespace": "shop"}
    objects = [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "v1", "kind": "Pod", **sidecar},
    ]
    path.write_text("\n---\n".join(json.dumps(o) for o in objects))
    told = ask("routes", "cart", "--from", str(path)).out.splitlines()
    assert [line for line in told if line.startswith("cart")] == [f"cart.shop.svc.cluster.local:{n}" for n in (80, 8080)]
    assert ask("routes", "cart:80", "--from", str(path)).out.splitlines()[0] == "cart.shop.svc.cluster.local"
    refused(ask("routes", "cart:81", "--from", str(path)), "cart.shop has no port 81; it has 80 and 8080.")


def test_a_recording_is_read_back_to_the_same_answer(ask: Callable[..., Answer], tmp_path: Path):
    out = tmp_path / "east.tar.gz"
    answer = ask("record", "--from", EAST, "--out", str(out))
    assert (answer.status, answer.out) == (0, "")
    assert answer.err == f"Recorded east in {out}.\n"
    first, second = (ask("why", "destination", "--from", f"east={path}", "-o", "json").json for path in (EAST, out))
    assert first["routes"] == second["routes"]
    assert [f["cause"] for f in first["findings"]] == [f["cause"] for f in second["findings"]]


def test_several_clusters_are_recorded_in_a_directory(ask: Callable[..., Answer], tmp_path: Path):
    answer = ask("record", "--from", EAST, "--from", WEST, "--out", f"{tmp_path}/all/")
    assert answer.status == 0
    assert sorted(f.name for f in (tmp_path / "all").iterdir()) == ["east.tar.gz", "west.tar.gz"]
    refused(ask("record", "--from", EAST, "--from", WEST, "--out", str(tmp_path / "x.yaml")), "One file holds one cluster")
    refused(ask("record", "--from", EAST, "--out", f"{tmp_path}/all/east.tar.gz/"), "cannot be written: ")


def test_what_a_live_envoy_holds_stands_beside_the_answer(ask: Callable[..., Answer], tmp_path: Path):
    """A saved /clusters of the caller: v1 is empty there too."""
    hosts = [
        {
            "address": {"socket_address": {"address": ip, "port_value": 9180}},
            "health_status": {"eds_health_status": "HEALTHY"},
        }
        for ip in ("10.1.0.7", "10.1.1.9")
    ]
    clusters = [{"name": f"outbound|80|v1|{HOST}"}, {"name": f"outbound|80|v2|{HOST}", "host_statuses": hosts}]
    (tmp_path / "clusters").write_text(json.dumps({"cluster_statuses": clusters}))
    answer = ask("why", "destination", "--from", EAST, "--envoy", f"{CALLER}={tmp_path}", "-o", "json")
    assert answer.status == 1, answer.err
    assert {(a["envoy_cluster"], a["agrees"]) for a in answer.json["live"]} == {
        (f"outbound|80|v1|{HOST}", True),
        (f"outbound|80|v2|{HOST}", True),
    }


def test_saved_evidence_stands_beside_the_answer(ask: Callable[..., Answer], tmp_path: Path):
    namespace, pod = CALLER.split("/")
    folder = tmp_path / "bug-report" / "proxies" / namespace / pod
    folder.mkdir(parents=True)
    (folder / "clusters").write_text(f"outbound|80|v1|{HOST}::added_via_api::true\n")
    (tmp_path / "bug-report" / "istio" / "istio-system" / "istiod-1" / "debug").mkdir(parents=True)
    (tmp_path / "bug-report" / "istio" / "istio-system" / "istiod-1" / "debug" / "syncz").write_text("<html>")
    for word in (str(tmp_path), f"east={tmp_path}"):
        answer = ask("why", "destination", "--from", EAST, "--live", word, "-o", "json")
        assert answer.status == 1, answer.err
        agreed = {a["envoy_cluster"]: a["agrees"] for a in answer.json["live"]}
        assert agreed == {f"outbound|80|v1|{HOST}": True, f"outbound|80|v2|{HOST}": False}
        assert [(s["check"], s["cluster"]) for s in answer.json["skipped"]] == [("istiod", "east"), ("envoy", "east")]
    refused(ask("why", "destination", "--from", EAST, "--from", WEST, "--live", str(tmp_path)), "names no cluster that is read here")
    refused(ask("why", "destination", "--from", EAST, "--live", f"north={tmp_path}"), "with one of east")
    refused(ask("why", "destination", "--from", EAST, "--live", "absent"), "--live absent is not there")


def test_a_path_that_nobody_can_look_up_is_one_sentence(ask: Callable[..., Answer], tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    loop, long = str(tmp_path / "loop"), "x" * 5000
    refused(ask("sweep", "--from", loop), f"{loop} is neither a file nor a directory.")
    refused(ask("sweep", "--from", f"east={loop}"), f"{loop} is neither a file nor a directory.")
    refused(ask("sweep", "--from", f"{long}=absent"), "absent is not there.")
    refused(ask("whatif", f"{long}=absent", "--from", EAST), "absent is not there.")
    refused(ask("record", "--from", EAST, "--out", long), "cannot be written: File name too long.")


def test_an_envoy_that_does_not_answer_is_skipped_and_changes_no_verdict(ask: Callable[..., Answer]):
    answer = ask("why", "destination", "--from", EAST, "--envoy", f"{CALLER}=http://127.0.0.1:1", "-o", "json")
    assert (answer.status, answer.json["verdict"]) == (1, "degraded")
    assert [s["check"] for s in answer.json["skipped"]] == ["envoy"]
    refused(ask("why", "destination", "--from", EAST, "--envoy", "web=http://127.0.0.1:1"), "is not [CLUSTER:]NAMESPACE/POD=")


# --- refusals --------------------------------------------------------------------------------------------------------------


def test_a_host_that_does_not_exist_gets_the_nearest_ones(ask: Callable[..., Answer]):
    refused(ask("why", "destinaton.mynamespace", "--from", EAST), "Did you mean destination.mynamespace")
    refused(ask("routes", "destinaton", "--from", EAST), "Did you mean destination.mynamespace")


def test_an_ambiguous_host_gets_all_that_it_fits(ask: Callable[..., Answer], tmp_path: Path):
    for namespace in ("core", "eu"):
        text = PLAIN.replace("name: a, namespace: b", f"name: pay, namespace: {namespace}")
        (tmp_path / f"{namespace}.yaml").write_text(text)
    shutil.copy(Path(EAST) / "istio-system.yaml", tmp_path)
    answer = ask("why", "pay", "--from", str(tmp_path))
    refused(answer, '"pay" fits 2 hosts: ')
    assert "pay.core" in answer.err
    assert "pay.eu" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("why", "x", "--from", "absent.yaml"), "absent.yaml"),
        (("why", "x", "--from", "=x"), "--from '=x' is no source"),
        (("why", "x", "--from", "a b=x.yaml"), "--from 'a b=x.yaml' is no source"),
        (("why", "x", "--from", ""), "--from '' is no source"),
        (("why", "x", "--from", "-", "--from", "b=-"), "Standard input can be only one cluster"),
        (("why", "x", "--from", f"a={EAST}", "--from", f"a={WEST}"), 'Two clusters are called "a"'),
        (("why", "x", "--config", "c.yaml", "--from", EAST), "--config names its own clusters"),
        (("why", "x", "--config", "absent.yaml"), "absent.yaml cannot be read: No such file or directory"),
        (("routes", "--from", EAST, "--as", "a/b/c"), "--as 'a/b/c' is no viewpoint"),
        (("routes", "--from", EAST, "--as", ""), "--as '' is no viewpoint"),
        (("routes", "--from", EAST, "--as", "mynamespac"), "Did you mean mynamespace?"),
        (("routes", "--from", EAST, "--as", "west:mynamespace"), 'Nobody calls as "west:mynamespace"'),
        (("routes", "--from", EAST, "-o", "slack"), "meshwhy routes without HOST has no Slack form"),
        (("checks", "-o", "slack"), "meshwhy checks without a cause has no Slack form"),
        (("checks", "IST0173", "-o", "slack"), "meshwhy checks IST0173 has no Slack form"),
        (("checks", "IST0172"), "IST0173"),
        (("checks", "101"), "Did you mean MESH101?"),
        (("checks", "MESH10"), "Did you mean MESH101, MESH102 or MESH103?"),
        (("checks", "subset-empty-weihgted"), "Did you mean subset-empty-weighted"),
        (("sweep", "--from", EAST, "-o", "yaml"), "'yaml' is not one of 'text', 'json', 'slack'."),
        (("why", "--from", EAST), "Missing argument 'HOST'."),
        (("why", "x", "--form", EAST), "No such option: --form"),
        (("wyh", "x"), "Did you mean 'why'?"),
        (("run",), "Missing option '--config'"),
        (("run", "--config", "absent.yaml"), "absent.yaml cannot be read"),
        (("doctor", "--config", "absent.yaml"), "absent.yaml cannot be read"),
        (("why", "x"), "Which cluster? Give --context NAME, --from PATH or --config FILE"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, tuple) else "",
)
def test_a_bad_question_gets_one_sentence(ask: Callable[..., Answer], words: tuple[str, ...], said: str):
    refused(ask(*words), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("just: a file\n", "holds no Kubernetes manifests"),
        ("", "holds no manifests"),
        (PLAIN, "There is no Istio in "),
    ],
)
def test_files_that_are_no_mesh_get_one_sentence(ask: Callable[..., Answer], tmp_path: Path, text: str, said: str):
    (tmp_path / "x.yaml").write_text(text)
    refused(ask("why", "a.b", "--from", str(tmp_path / "x.yaml")), said)


def test_what_a_word_holds_is_not_put_on_the_terminal(ask: Callable[..., Answer]):
    assert "\x1b" not in ask("why", "\x1b[31mx", "--from", EAST).err
    assert "\x1b" not in ask("checks", "\x1b[31mx").err


# --- live clusters ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def east() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        for file in sorted(Path(EAST).iterdir()):
            server.put(*yaml.safe_load(file.read_text())["items"])
        yield server


@pytest.fixture
def live(
    ask: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, east: ApiServer, tmp_path: Path
) -> Callable[..., Coroutine[Any, Any, Answer]]:
    monkeypatch.setenv("KUBECONFIG", east.kubeconfig(tmp_path / "kubeconfig"))
    return lambda *words: asyncio.to_thread(ask, *words)


async def test_a_live_cluster_answers_by_its_context_and_is_the_default(live: Callable[..., Coroutine[Any, Any, Answer]], east: ApiServer):
    for words in (("--context", "east"), ()):
        answer = await live("why", "destination", *words, "-o", "json")
        assert (answer.status, answer.json["failing_share"]) == (1, 0.95), answer.err
        assert [c["name"] for c in answer.json["clusters"]] == ["east"]
    assert {r.verb for r in east.requests} <= {"list", "discovery"}


async def test_a_context_that_is_not_there_gets_the_nearest(live: Callable[..., Coroutine[Any, Any, Answer]]):
    refused(await live("why", "destination", "--context", "eastt"), "Did you mean east?")


async def test_what_cannot_be_read_is_unknown_and_status_2(live: Callable[..., Coroutine[Any, Any, Answer]], east: ApiServer):
    east.put(*yaml.safe_load((RECORDED / "destination-v1.yaml").read_text())["items"])
    east.forbid("sidecars.networking.istio.io")
    answer = await live("why", "service-source", "--context", "east")
    assert answer.status == 2
    assert answer.out.startswith("? unknown")
    assert (await live("sweep", "--context", "east")).status == 2


async def test_a_cluster_that_is_down_is_unknown_and_delays_no_other(
    live: Callable[..., Coroutine[Any, Any, Answer]], east: ApiServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commands, "ANSWER_S", 1.0)
    await east.down()
    answer = await live("sweep", "--context", "east", "--from", f"w/west={WEST}", "-o", "json")
    assert answer.status == 1
    assert {c["name"]: c["synced"] for c in answer.json["clusters"]} == {"west": True, "east": False}
    refused(await live("why", "anything", "--context", "east"), 'Whether there is "anything" is not known')
    refused(await live("routes", "--as", "any", "--context", "east"), 'Whether there is "any" is not known')


async def test_a_live_cluster_is_recorded(live: Callable[..., Coroutine[Any, Any, Answer]], east: ApiServer, tmp_path: Path):
    east.forbid("nodes")
    answer = await live("record", "--context", "east", "--out", str(tmp_path / "r.yaml"))
    assert answer.status == 0
    assert "It does not hold what could not be read: nodes (" in answer.err
    told = (await live("why", "destination", "--from", f"east={tmp_path / 'r.yaml'}", "-o", "json")).json
    assert told["failing_share"] == 0.95
    assert any("nodes" in s["reason"] for s in told["skipped"])


# --- Tab -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tab(ask: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What bash would be offered, given the words as bash breaks them."""

    def offered(*words: str, kubeconfig: str = "") -> list[str]:
        monkeypatch.setenv("_MESHWHY_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("meshwhy", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv(commands.BEFORE, "")
        if kubeconfig:
            monkeypatch.setenv("KUBECONFIG", kubeconfig)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            ask(*words)
        out, err = capfd.readouterr()
        assert (ended.value.code, err) == (0, "")
        return out.split()

    return offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("why", "--from", EAST, "dest"), ["destination.mynamespace"]),
        (("why", "--from", "east", "=", EAST, f"{HOST[:30]}"), [HOST]),
        (("routes", "--from", WEST, "api-p"), ["api-pl.partner.example"]),
        (("why", "--from", "/absent", "dest"), []),
        (("checks", "subset-u"), ["subset-undefined"]),
        (("audit", "--verb", "s"), ["share", "silence"]),
        (("whati",), ["whatif"]),
        (("whatif", "x.yaml", "-o", "g"), ["github"]),
        (("checks", "MESH10"), [f"MESH10{n}" for n in range(1, 10)]),
        (("why", "-o", "j"), ["json"]),
        (("wh",), ["why", "whatif"]),
    ],
)
def test_tab_offers_what_the_given_source_has(tab: Callable[..., list[str]], words: tuple[str, ...], offered: list[str]):
    assert tab(*words) == offered


def test_tab_offers_contexts_even_with_colons_at_which_bash_breaks_words(tab: Callable[..., list[str]], tmp_path: Path):
    name = "arn:aws:eks:eu-central-1:1:cluster/prod"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "contexts": [{"name": n, "context": {}} for n in (name, "east")],
        "clusters": [],
        "users": [],
    }
    (tmp_path / "k").write_text(yaml.safe_dump(config))
    path = str(tmp_path / "k")
    assert tab("why", "--context", "", kubeconfig=path) == [name, "east"]
    assert tab("why", "--context", "arn", ":", "aws", ":", "e", kubeconfig=path) == ["eks:eu-central-1:1:cluster/prod"]


def test_tab_works_in_bash(tmp_path: Path):
    """The script that bash is given, bash's own words, and what it is offered."""
    program = tmp_path / "meshwhy"
    program.write_text(f"#!/bin/sh\ncd '{ROOT}' && exec '{sys.executable}' -m bot \"$@\"\n")
    program.chmod(0o755)
    driver = f"""
        eval "$(meshwhy --show-completion bash)"
        COMP_WORDS=(meshwhy why --from east = '{EAST}' destination.mynamespace.s) COMP_CWORD=6
        _meshwhy_completion meshwhy
        echo "${{COMPREPLY[@]}}"
    """
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SHELL": "/bin/bash"}
    done = subprocess.run(["bash", "-c", driver], capture_output=True, text=True, env=environ, check=False, timeout=30)
    assert (done.stdout, done.stderr) == (f"{HOST}\n", "")


@pytest.mark.parametrize(
    ("words", "position", "mended", "at"),
    [
        ("meshwhy why x", 2, "meshwhy why x", 2),
        ("meshwhy why --from a = b x", 6, "meshwhy why --from a=b x", 4),
        ("meshwhy why --from a =", 4, "meshwhy why --from ", 3),
        ("meshwhy why --from a = b", 5, "meshwhy why --from b", 3),
        ("meshwhy why --as a : b / x", 8, "meshwhy why --as a:b / x ", 6),
        ("meshwhy why x --from y", 2, "meshwhy why x", 2),
    ],
)
def test_words_that_bash_broke_are_put_together(words: str, position: int, mended: str, at: int):
    environ = {"COMP_WORDS": words.replace(" ", "\n"), "COMP_CWORD": str(position)}
    commands.mend_bash_words(environ)
    assert (environ["COMP_WORDS"].replace("\n", " "), environ["COMP_CWORD"]) == (mended, str(at))


# --- help, pipes, terminals ------------------------------------------------------------------------------------------------


def test_every_command_teaches_with_examples(ask: Callable[..., Answer]):
    top = ask()
    assert top == ask("--help") == ask("-h")
    assert top.status == 0
    for command in ("why", "runbook", "routes", "sweep", "whatif", "checks", "record", "run", "demo", "doctor", "alert-routes"):
        assert f"\n  {command} " in top.out
        page = ask(command, "--help")
        assert page.status == 0
        assert f"  meshwhy {command}" in page.out.partition("Examples:")[2]


def test_the_version_is_the_distributions(ask: Callable[..., Answer]):
    assert ask("--version").out == "meshwhy 0.1.0\n"


def test_a_reader_that_goes_away_gets_no_traceback():
    command = f"'{sys.executable}' -m bot routes --from '{EAST}' -o json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("{", "")
    assert done.returncode == 1


def test_a_terminal_without_the_marks_still_gets_the_answer():
    done = process("why", "destination", "--from", EAST, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert "degraded" in done.stdout
    assert done.stderr == ""


def on_terminal(words: tuple[str, ...], environ: dict[str, str] | None = None, *, only_stderr: bool = False) -> str:
    """What a terminal shows of a command."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}} | {"TERM": "xterm-256color"} | (environ or {})
    stdout = subprocess.DEVNULL if only_stderr else theirs
    with subprocess.Popen([*MESHWHY, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=theirs, env=env, cwd=ROOT) as running:
        os.close(theirs)
        shown = b""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    read = os.read(ours, 65536)
                except OSError:  # how Linux says that the other end is closed
                    break
                if not read:
                    break
                shown += read
        running.wait(timeout=10)
    os.close(ours)
    return shown.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


def test_colours_are_only_on_a_terminal_and_as_one_asks(ask: Callable[..., Answer]):
    words = ("why", "destination", "--from", EAST)
    assert COLOUR.search(on_terminal(words))
    assert not COLOUR.search(on_terminal(words, {"NO_COLOR": "1"}))
    assert not COLOUR.search(on_terminal(words, {"TERM": "dumb"}))
    assert not COLOUR.search(on_terminal((*words, "--color", "never")))
    assert COLOUR.search(ask(*words, "--color", "always").out)


async def test_a_progress_bar_is_shown_only_on_a_terminal_and_only_after_a_second(east: ApiServer, tmp_path: Path):
    environ = {"KUBECONFIG": east.kubeconfig(tmp_path / "kubeconfig")}
    words = ("why", "destination", "--context", "east")
    started = time.monotonic()
    quick = await asyncio.to_thread(on_terminal, ("why", "destination", "--from", EAST), environ, only_stderr=True)
    assert "Reading" not in quick or time.monotonic() - started > 1
    east.delay_s = 0.5
    assert "Reading east" in await asyncio.to_thread(on_terminal, words, environ, only_stderr=True)
    for asked, with_them in ((words, True), ((*words, "--color", "never"), False)):
        shown = await asyncio.to_thread(on_terminal, asked, environ, only_stderr=True)
        assert "Reading" in shown
        assert bool(COLOUR.search(shown)) is with_them
    piped = await asyncio.to_thread(process, *words, env={**os.environ, **environ})
    assert (piped.returncode, piped.stderr) == (1, "")


def test_a_question_about_files_loads_nothing_of_slack_clusters_or_terminals():
    code = (
        "import sys; from bot import commands; commands.answer(sys.argv[1:], None);"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in"
        " {'kubernetes', 'slack_bolt', 'slack_sdk', 'rich', 'jinja2', 'aiohttp', 'redis', 'structlog'}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "routes", "--from", EAST, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.stderr == "[]\n"
    assert json.loads(done.stdout)["routes"]


# --- the bot and its doctor ------------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        yield Path(folder)


@pytest.fixture
def settings_file(state: Path) -> tuple[Path, int, dict[str, str]]:
    """Settings for mode http with a Slack that nobody serves, the port, and the environment with the secrets."""
    port = ports.free()
    path = state / "meshwhy.yaml"
    path.write_text(
        "slack: {mode: http, bot_token: {env: BOT}, signing_secret: {env: SIGNING}, base_url: 'http://127.0.0.1:1/api/', "
        f"port: {port}}}\n"
        "state_dir: state\n"
        f"clusters: [{{name: east, path: {EAST}}}]\n"
        'alerts: {for: 0s, clear: 0s, default_channel: "#mesh"}\n'
    )
    return path, port, {**os.environ, "BOT": "xoxb-hush-hush", "SIGNING": "hush-hush-signing"}


def _unsigned(port: int) -> int | None:
    """The status of a request that Slack did not sign; None while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/slack/events", data=b"{}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code
    except OSError:
        return None


async def _remembers(directory: Path) -> None:
    """A store that was used before."""
    async with embedded(directory) as url:
        store = Store(url)
        await store.open()
        await store.adopt([])
        await store.close()


def test_the_bot_runs_until_it_is_told_to_end_and_logs_json_without_secrets(settings_file: tuple[Path, int, dict[str, str]]):
    path, port, environ = settings_file
    asyncio.run(_remembers(path.parent / "state" / "valkey"))  # so that it need not ask a Slack that nobody serves
    command = [*MESHWHY, "run", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, cwd=ROOT) as bot:
        try:
            until = time.monotonic() + 20
            while (status := _unsigned(port)) is None:
                assert time.monotonic() < until
                assert bot.poll() is None
                time.sleep(0.1)
            assert status == 401
            time.sleep(1.5)
        finally:
            bot.send_signal(signal.SIGTERM)
            out, log = bot.communicate(timeout=20)
    assert (bot.returncode, out) == (0, "")
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("fired" in line["event"] for line in lines), log
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
    assert "hush" not in log


def test_a_port_that_is_taken_is_said(settings_file: tuple[Path, int, dict[str, str]]):
    path, port, environ = settings_file
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        done = process("run", "--config", str(path), env=environ)
    assert done.returncode == 2
    assert "The bot cannot start: " in done.stderr.splitlines()[-1]
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_is_not_there_is_said_without_its_password(settings_file: tuple[Path, int, dict[str, str]]):
    path, _, environ = settings_file
    path.write_text(path.read_text() + "redis: {url: {env: REDIS_URL}}\n")
    done = process("run", "--config", str(path), env={**environ, "REDIS_URL": "redis://:hush@127.0.0.1:1/0"})
    assert done.returncode == 2
    assert "Redis cannot be used: " in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_says_what_does_not_work(settings_file: tuple[Path, int, dict[str, str]]):
    path, _, environ = settings_file
    done = process("doctor", "--config", str(path), "-o", "json", env=environ)
    assert done.returncode == 1, done.stderr
    rows = {r["what"]: r for r in json.loads(done.stdout)["doctor"]}
    assert rows["slack bot token"]["state"] == "bad"
    assert "hush" not in done.stdout
    text = process("doctor", "--config", str(path), env=environ)
    assert text.returncode == 1
    assert "✗" in text.stdout
    assert process("doctor", "--config", str(path), "-o", "slack", env=environ).stderr.startswith("meshwhy doctor has no Slack form")
