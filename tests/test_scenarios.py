"""Every check over every scenario: a folder of manifests as kubectl prints them, and what a person should be told (DESIGN §4).

`infos` in expect.yaml are the causes at severity info, which harm nobody; where it is left out they are not compared. `meshes` says which clusters
make a mesh of their own, where they are not all of one.
A broken scenario and its healthy twin differ in the one thing that the cause names.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bot import manifests
from checks import diagnosis, resources
from checks.case import Case
from checks.diagnosis import Verdict
from checks.finding import Severity
from checks.foresight import foreseen
from checks.mesh import Change, Mesh
from checks.resources import DestinationRule, Service, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.answers import Route
    from checks.finding import Check, Finding
    from checks.mesh import Cluster

SCENARIOS = Path(__file__).parent / "scenarios"
NAMES = sorted(p.name for p in SCENARIOS.iterdir() if not (p / "live").is_dir())
"""Those that the clusters' objects decide; what running parts tell is in test_live."""
BROKEN = [n for n in NAMES if not n.endswith("__healthy")]
TWINS = [n for n in NAMES if n.endswith("__healthy")]
CHECKS = sorted(diagnosis.registry())


@cache
def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SCENARIOS / name / "expect.yaml").read_text())
    return found


def gathered(name: str, directory: Path) -> list[Cluster]:
    """The manifests of a directory as a scenario's clusters, each of its mesh."""
    owner = {c: m for m, theirs in expected(name).get("meshes", {}).items() for c in theirs}
    files = [p for p in sorted(directory.iterdir()) if p.name != "expect.yaml"]
    assert not owner or {p.stem for p in files} == set(owner)
    return [manifests.read(str(p), p.stem, mesh=owner.get(p.stem, ""), read_at=0.0) for p in files]


@cache
def clusters(name: str) -> list[Cluster]:
    return gathered(name, SCENARIOS / name)


@cache
def meshes(name: str) -> tuple[Mesh, ...]:
    found = Mesh.of(clusters(name), 0.0)
    assert not [m for mesh in found for c in mesh.clusters for m in c.malformed]
    return found


def sweep(name: str) -> diagnosis.Sweep:
    """What is found in all meshes of a scenario."""
    parts = [diagnosis.sweep(m) for m in meshes(name)]
    return diagnosis.Sweep(
        sum(p.hosts for p in parts), diagnosis.once(f for p in parts for f in p.findings), tuple(s for p in parts for s in p.skipped), ()
    )


@cache
def diagnosed(name: str) -> diagnosis.Diagnosis:
    return diagnosis.why(expected(name)["host"], meshes(name))


def told(found: diagnosis.Diagnosis) -> dict[str, Any]:
    """A diagnosis in the form of expect.yaml."""
    serious = [f for f in found.findings if f.severity is not Severity.INFO]
    return {
        "verdict": str(found.verdict),
        "failing_share": round(found.failing_share, 3),
        "causes": list(dict.fromkeys(f.cause for f in serious)),
        "resources": [f.resource for f in serious],
        "infos": list(dict.fromkeys(f.cause for f in found.findings if f.severity is Severity.INFO)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_person_is_told_what_is_expected(name: str) -> None:
    wanted = expected(name)
    said = told(diagnosed(name))
    assert {k: said[k] for k in said if k in wanted} == {k: v for k, v in wanted.items() if k not in {"host", "meshes"}}
    assert diagnosed(name).skipped == ()


@pytest.mark.parametrize("name", BROKEN)
def test_a_scenario_and_its_twin_ask_the_same_of_the_same_clusters(name: str) -> None:
    twin = f"{name}__healthy"
    assert twin in TWINS
    assert expected(twin)["host"] == expected(name)["host"]
    assert expected(twin)["causes"] == []
    assert [(m.name, c.name) for m in meshes(twin) for c in m.clusters] == [(m.name, c.name) for m in meshes(name) for c in m.clusters]


def test_every_twin_belongs_to_a_scenario() -> None:
    assert {t.removesuffix("__healthy") for t in TWINS} == set(BROKEN)
    assert len(NAMES) >= 40


def failing(name: str) -> Iterator[Route]:
    """The rules that lose requests of whoever means to call: nobody calls a gateway of another network by its Service (`Case.private`)."""
    for mesh in meshes(name):
        for r in diagnosis.routes([mesh], None):
            if r.failing_share and not any(r.viewpoint in c.viewpoints for c in Case.of(r.host, mesh).blind):
                yield r


@pytest.mark.parametrize("name", TWINS)
def test_a_sweep_of_a_healthy_twin_is_empty(name: str) -> None:
    swept = sweep(name)
    assert swept.hosts > 1
    assert [(f.host, f.cause) for f in swept.findings if f.severity is not Severity.INFO] == []
    assert swept.skipped == ()
    assert list(failing(name)) == []


def noting(checks: Mapping[str, Check]) -> tuple[dict[str, Check], list[tuple[str, Finding]]]:
    """The same checks, and the list in which each notes what it finds."""
    current: list[tuple[str, Finding]] = []

    def noted(cause: str, function: Check) -> Check:
        def run(case: Case) -> Iterator[Finding]:
            found = list(function(case))
            current.extend((cause, f) for f in found)
            return iter(found)

        return run

    return {cause: noted(cause, function) for cause, function in checks.items()}, current


@pytest.fixture(scope="module")
def by_check() -> dict[str, list[tuple[str, Finding]]]:
    """The findings about each scenario's host, each with the check that made it: a check knows nothing of the others, so one run says what
    every run without one of them would say."""
    made: dict[str, list[tuple[str, Finding]]] = {}
    tagged, current = noting(diagnosis.registry())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "registry", lambda: tagged)
        patch.setattr(diagnosis, "_proved", lambda _, looked, *__: looked)  # what is found in meshes that are only imagined is nobody's
        for name in NAMES:
            current.clear()
            diagnosis.why(expected(name)["host"], meshes(name))
            made[name] = list(current)
    return made


@pytest.mark.parametrize("cause", CHECKS)
def test_without_a_check_exactly_its_own_scenarios_fail(cause: str, by_check: dict[str, list[tuple[str, Finding]]]) -> None:
    own = {n for n in NAMES if cause in (*expected(n)["causes"], *expected(n).get("infos", ()))}
    failed = set()
    for name in NAMES:
        rest = [f for maker, f in by_check[name] if maker != cause]
        serious = {f.cause for f in rest if f.severity is not Severity.INFO}
        infos = {f.cause for f in rest if f.severity is Severity.INFO}
        if serious != set(expected(name)["causes"]) or infos != set(expected(name).get("infos", infos)):
            failed.add(name)
    assert own
    assert failed == own


@pytest.mark.parametrize("name", NAMES)
def test_one_cause_in_one_object_about_one_host_is_one_finding(name: str) -> None:
    swept = sweep(name).findings
    said = [(f.cluster, f.cause, f.resource, f.path, f.host) for f in swept]
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ("name", "asking"),
    [
        ("cluster-local-and-asked-for", Change("east", DestinationRule, "client", "cart", None)),
        ("mcs-not-exported", Change("east", Service, "shop", "cart", None)),
        ("mtls-plain-to-strict-past-the-sidecar", Change("east", DestinationRule, "client", "cart", None)),
    ],
)
def test_what_a_caller_cannot_reach_is_private_where_nobody_asks_for_it(name: str, asking: Change) -> None:
    (one,) = meshes(name)
    assert diagnosed(name).verdict is Verdict.BROKEN
    found = diagnosis.diagnose(diagnosed(name).host, one.apply([asking]))
    assert (found.verdict, found.findings) == (Verdict.HEALTHY, ())


def test_a_host_that_is_only_led_to_is_told_of_under_its_leader_and_answered_when_asked() -> None:
    (one,) = meshes("vs-dest-host-unknown")
    led_to = set(diagnosis.hosts(one)) - set(diagnosis.swept(one))
    assert led_to
    assert {f.host for f in diagnosis.sweep(one).findings} == {diagnosed("vs-dest-host-unknown").host}
    for host in led_to:
        found = diagnosis.diagnose(host, one)
        assert [(f.cause, f.resource) for f in found.findings] == [
            (f.cause, f.resource) for f in diagnosed("vs-dest-host-unknown").findings
        ]


@pytest.mark.parametrize("name", BROKEN)
def test_a_sweep_finds_what_the_question_about_the_host_finds(name: str) -> None:
    wanted = diagnosed(name)
    assert tuple(f for f in sweep(name).findings if f.host == wanted.host) == wanted.findings


@pytest.mark.parametrize("name", BROKEN)
def test_every_finding_says_where_what_why_and_what_to_do(name: str) -> None:
    for f in sweep(name).findings:
        assert f.message.endswith(".")
        assert f.fix.endswith(".")
        assert f.evidence
        assert f.commands
        assert f.viewpoints
        assert all((*f.evidence, *f.commands))
        assert (f.severity is Severity.ERROR) == (f.failing_share > 0)
        assert f.origin is not None, f"{f.resource} was read from a file"
        assert said_once(f)


def said_once(f: Finding) -> bool:
    """Whether no evidence line is repeated."""
    return len(set(f.evidence)) == len(f.evidence)


@pytest.mark.parametrize("name", BROKEN)
def test_every_failing_route_is_explained_by_a_finding(name: str) -> None:
    findings = sweep(name).findings
    for route in failing(name):
        # nobody asks about `*`: a gateway's rules for any host are told under the hosts that they are about
        mine = [f for f in findings if f.host == route.host or (route.host == "*" and f.resource == route.source)]
        about = [f for f in mine if route.viewpoint in f.viewpoints and f.failing_share]
        assert about, route
        assert sum(f.failing_share for f in about) >= route.failing_share - 1e-6, (route, about)


def patched(name: str, patch: str) -> Change:
    """What `kubectl patch --type=json` makes of an object: the command as a POSIX shell reads it, carried out on the scenario's manifests."""
    words = shlex.split(patch)
    where = words[words.index("--context") + 1] if "--context" in words else ""
    assert words[:2] == ["kubectl", "-n"]
    assert words[3] == "patch"
    assert words[6:8] == ["--type=json", "-p"]
    assert len(words) == (11 if where else 9)
    kind, _, group = words[4].partition(".")  # two groups have a Gateway
    files = [f for f in sorted((SCENARIOS / name).glob("*.yaml")) if f.name != "expect.yaml" and where in ("", f.stem)]
    assert len(files) == 1, "of several clusters one is named"
    for item in yaml.load(files[0].read_text(), yaml.CSafeLoader)["items"]:
        meta = item["metadata"]
        if (item["kind"].lower(), meta.get("namespace"), meta["name"]) == (kind, words[2], words[5]) and group in item["apiVersion"]:
            carry_out(json.loads(words[8]), item)
            (made,) = resources.objects(parse(item))
            return Change(files[0].stem, type(made), made.namespace, made.name, made)
    raise LookupError(patch)


def changed(name: str, change: Change) -> tuple[Mesh, ...]:
    """The meshes of a scenario after a change, and what Kubernetes makes of it."""
    return Mesh.beside(m.apply(foreseen(m, [change] if change.cluster in {c.name for c in m.clusters} else [])) for m in meshes(name))


def carry_out(operations: list[dict[str, Any]], document: Any) -> None:
    """RFC 6902's add, replace, remove, move and copy, as strict as an API server."""
    assert operations
    for step in operations:
        target, key = located(document, step["path"])
        match step["op"]:
            case "remove":
                del target[key]
            case "replace":
                assert target[key] is not None
                target[key] = step["value"]
            case "add" if isinstance(target, list):
                assert key <= len(target)
                target.insert(key, step["value"])
            case "add":
                target[key] = step["value"]
            case "move":
                source, at = located(document, step["from"])
                target.insert(key, source.pop(at))
            case "copy":
                source, at = located(document, step["from"])
                target[key] = source[at]
            case other:
                raise ValueError(other)


def located(document: Any, path: str) -> tuple[Any, Any]:
    """What holds the member that a JSON Pointer leads to, and its key there."""
    *outer, last = (w.replace("~1", "/").replace("~0", "~") for w in path.removeprefix("/").split("/"))
    for word in outer:
        document = document[int(word) if isinstance(document, list) else word]
    return document, int(last) if isinstance(document, list) else last


def key(f: Finding) -> tuple[str, str, str, str]:
    return f.cause, f.cluster, f.resource, f.host


def serious(findings: Iterable[Finding]) -> list[tuple[str, str, str, str]]:
    return [key(f) for f in findings if f.severity is not Severity.INFO]


@pytest.mark.parametrize("name", BROKEN)
def test_a_patch_that_is_offered_brings_the_failing_share_to_0_and_breaks_nothing_anywhere(name: str) -> None:
    """By a sweep of everything before and after, whatever the proof of the patch itself looked at; of several faults of a host, its part."""
    before = sweep(name).findings
    for f in before:
        if f.patch is None:
            continue
        change = patched(name, f.patch)
        assert serious(diagnosis.whatif(meshes(name), [change]).introduced) == []
        after = changed(name, change)
        told = [d.findings for m in after for d in [diagnosis.diagnose(f.host, m)] if f.host in diagnosis.hosts(m)]
        assert [key(x) for part in told for x in part].count(key(f)) < [*map(key, before)].count(key(f))
        if not any(o.failing_share for o in before if o.host == f.host and o is not f):
            assert [x.failing_share for part in told for x in part if x.failing_share] == []


def test_the_verdicts_of_the_scenarios_are_all_but_unknown() -> None:
    assert {expected(n)["verdict"] for n in NAMES} == set(map(str, Verdict)) - {"unknown"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pods-all-notready-as-endpoints", "Endpoints shop/cart in east: 2 endpoints, 0 ready"),
        ("pods-all-notready-headless", "istioctl proxy-config cluster <pod> --fqdn cart.shop.svc.cluster.local --port 80"),
        (
            "subset-empty-weighted-of-machines",
            "Give legacy.vm endpoints with version=v3, or give the weight to subset v1 (2 usable endpoints).",
        ),
    ],
)
def test_what_a_finding_points_at_is_there_to_be_looked_at(name: str, said: str) -> None:
    (found,) = diagnosed(name).findings
    assert said in (found.fix, *found.evidence, *found.commands)


def test_a_finding_names_the_cluster_whose_pods_are_meant_not_the_callers() -> None:
    (found,) = diagnosed("pods-all-notready-in-the-other-cluster").findings
    assert (found.cluster, found.viewpoints[0].cluster) == ("west", "east")


def test_what_fails_under_another_host_is_told_of_beside_the_service_that_it_leads_to() -> None:
    for name, wanted in (
        ("subset-empty-at-the-gateway", diagnosed("subset-empty-at-the-gateway").findings),
        ("subset-empty-at-the-gateway__healthy", ()),
    ):
        (one,) = meshes(name)
        found = diagnosis.why("cart.shop", [one])
        assert (found.verdict, found.findings) == (Verdict.HEALTHY, ())
        assert [(f.host, f.cause, f.resource, f.message) for f in found.elsewhere] == [
            (f.host, f.cause, f.resource, f.message) for f in wanted
        ]
