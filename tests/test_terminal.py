"""What the command line says: the shape of each answer, and that no text of a cluster can reach the terminal as a control sequence."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rich.cells import cell_len

from templates import terminal

if TYPE_CHECKING:
    from pytest_regressions.file_regression import FileRegressionFixture

ANSWERS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text())
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
CATALOGUE = [
    {
        "id": "subset-empty-weighted",
        "code": "MESH101",
        "decided_by": "kubernetes",
        "cause": "A subset without endpoints has weight",
        "implemented": True,
    },
    {"id": "proxy-stale", "code": "MESH501", "decided_by": "istiod", "cause": "A proxy runs an old configuration", "implemented": False},
]
CAUSE = {
    "id": "subset-undefined",
    "code": "MESH106",
    "cause": "A route names a subset nobody defines",
    "fix": "add it",
    "decided_by": "kubernetes",
    "caught_today": "yes",
}


def answer(name: str) -> dict[str, Any]:
    return copy.deepcopy(ANSWERS[name])


def sweep_of(*names: str) -> dict[str, Any]:
    cases = [answer(n) for n in names]
    return {
        "hosts": 37,
        "findings": [f for c in cases for f in c["findings"]],
        "skipped": [s for c in cases for s in c["skipped"]],
        "clusters": [c for case in cases for c in case["clusters"]],
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_why_says_it_so(name: str, file_regression: FileRegressionFixture):
    file_regression.check(terminal.why(answer(name), colour=False) + "\n", encoding="utf-8")


def test_a_sweep_says_it_so(file_regression: FileRegressionFixture):
    sweep = sweep_of("risky", "subset_empty", "service_entry_doubled", "unreadable")
    file_regression.check(terminal.sweep(sweep, colour=False) + "\n", encoding="utf-8")


def test_the_first_line_is_verdict_host_and_clusters():
    assert (
        terminal.why(answer("subset_empty"), colour=False).splitlines()[0] == "✗ degraded  destination.mynamespace.svc.cluster.local · east"
    )
    assert terminal.why(answer("unreadable"), colour=False).splitlines()[:2] == [
        "? unknown  payments.core.svc.cluster.local · east, west",
        "  west: endpoints cannot be read since 14:02 (403 on endpointslices for system:serviceaccount:ops:meshwhy).",
    ]


def test_the_tree_starts_below_the_arrow():
    lines = terminal.why(answer("subset_empty"), colour=False).splitlines()
    at = next(i for i, line in enumerate(lines) if "──▶" in line)
    assert lines[at].index("──▶") + 4 == lines[at + 1].index("├─") == lines[at + 2].index("└─")


def test_colour_adds_nothing_but_colour():
    for name in ANSWERS:
        plain, coloured = (terminal.why(answer(name), colour=c) for c in (False, True))
        assert "\x1b" not in plain
        assert "\x1b[" in coloured
        assert ESCAPES.sub("", coloured) == plain


def test_sentences_wrap_at_the_width_and_commands_never_do():
    case = answer("subset_empty")
    text = terminal.why(case, colour=False, width=60)
    assert case["findings"][0]["patch"] in text
    assert case["findings"][0]["commands"][0] in text
    sentences = [
        line for line in text.splitlines() if "kubectl" not in line and "istioctl" not in line and "VirtualService mynamespace" not in line
    ]
    assert max(map(cell_len, sentences)) <= 60


def test_two_findings_are_both_explained_and_their_commands_told_once():
    case = answer("subset_empty")
    case["findings"].append(
        case["findings"][0]
        | {"cause": "subset-undefined", "code": "MESH106", "message": "Subset v3 is not defined.", "severity": "warning"}
    )
    text = terminal.why(case, colour=False)
    assert text.count("  Why   ") == 2
    assert "MESH106 subset-undefined" in text
    assert text.count("istioctl proxy-config") == 1


def test_findings_at_info_are_only_mentioned():
    case = answer("well")
    case["findings"] = [answer("subset_empty")["findings"][0] | {"severity": "info", "message": "A lone weight is ignored."}]
    text = terminal.why(case, colour=False)
    assert "Why" not in text
    assert "MESH101 subset-empty-weighted: A lone weight is ignored." in text


def test_a_file_is_named_with_its_line():
    assert "ServiceEntry egress/partner-new spec.ports[1] (west.yaml:41)" in terminal.why(answer("service_entry_doubled"), colour=False)


def test_routes_stand_under_their_hosts_and_equal_ones_stand_once():
    both = answer("subset_empty")["routes"] + answer("well")["routes"]
    text = terminal.routes(both, colour=False)
    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        "destination.mynamespace.svc.cluster.local",
        "reviews.bookinfo.svc.cluster.local",
    ]
    assert text.count("95 %") == 1
    assert terminal.routes([], colour=False) == "No proxy that was looked at holds a rule of it."


def test_a_sweep_tells_the_worst_first_and_what_it_could_not_see():
    text = terminal.sweep(sweep_of("risky", "subset_empty", "unreadable"), colour=False)
    assert text.index("MESH101") < text.index("MESH324")
    assert "37 hosts looked at, 1 error and 1 warning" in text
    assert "2 checks in west (endpoints cannot be read since 14:02" in " ".join(text.split())


def test_an_empty_sweep_says_that_it_looked():
    assert terminal.sweep({"hosts": 3, "findings": [], "skipped": [], "clusters": []}, colour=False) == "3 hosts looked at, nothing found."


def test_the_catalogue_tells_what_is_checked_and_what_it_needs():
    first, second, *last = terminal.checks(CATALOGUE, colour=False).splitlines()
    assert first.startswith("✓ MESH101  subset-empty-weighted  needs kubernetes")
    assert second.startswith("– MESH501  proxy-stale            needs istiod")
    assert " ".join(last) == (
        "1 of 2 causes are checked (✓): 1 of the 1 that the API's objects decide and 0 of the 1 that need istiod. "
        "The others are known and not checked yet (–)."
    )


def test_a_cause_is_explained_with_its_page_or_said_to_be_unchecked():
    page = terminal.explain(CAUSE, "What it is.\n\n    How to see it\n", colour=False)
    assert page.splitlines()[0] == "MESH106 subset-undefined"
    assert "How to see it" in page
    assert "does not check for it yet" in terminal.explain(CAUSE, None, colour=False)


def test_a_cause_says_where_it_is_seen_what_others_call_it_and_where_to_read_more():
    page = " ".join(terminal.explain(CAUSE | {"same_as": ["IST0101", "KIA1107"]}, None, colour=False).split())
    assert "the API's objects alone show it; istioctl or Kiali name it, as IST0101 and KIA1107." in page
    assert page.endswith("More https://istio.io/latest/docs/reference/config/analysis/ https://kiali.io/docs/features/validations/")
    for decided_by, seen in (("envoy", "admin port"), ("istiod", "proxy-status"), ("telemetry", "access logs")):
        page = terminal.explain(CAUSE | {"decided_by": decided_by}, None, colour=False)
        assert seen in page
        assert "More  https://" in page


def weighed() -> dict[str, Any]:
    (found,), (gone,) = answer("subset_empty")["findings"], answer("service_entry_doubled")["findings"][:1]
    rule = {"object": "VirtualService mynamespace/destination", "cluster": "east", "does": "replaced"}
    return {
        "introduced": [found | {"origin": {"file": "shift: 1,2.yaml", "line": 3}}],
        "resolved": [gone],
        "changes": [rule | {"origin": {"file": "shift: 1,2.yaml", "line": 3}}],
        "clusters": ["east", "west"],
        "unread": [],
    }


def test_a_change_is_weighed_so(file_regression: FileRegressionFixture):
    file_regression.check(terminal.whatif(weighed(), colour=False) + "\n", encoding="utf-8")


def test_a_change_that_does_nothing_says_so():
    nothing = weighed() | {"introduced": [], "resolved": []}
    assert terminal.whatif(nothing, colour=False).startswith("✓ no finding is introduced, none is resolved\n")
    assert terminal.github(nothing) == "no finding is introduced, none is resolved."


def test_no_text_ends_a_workflow_command_or_begins_another():
    told = weighed()
    told["introduced"][0] |= {"message": "50 % of it.\n::warning::mine", "severity": "warning"}
    first, last = terminal.github(told).splitlines()
    assert first.startswith("::warning file=shift%3A 1%2C2.yaml,line=3,title=MESH101 subset-empty-weighted%3A 95 %25 of")
    assert "::50 %25 of it. ::warning::mine" in first
    assert last == "1 warning introduced, 1 finding resolved."
    elsewhere = told | {"introduced": [told["introduced"][0] | {"origin": None}]}
    assert terminal.github(elsewhere).startswith("::warning file=shift%3A 1%2C2.yaml,line=3,")


def test_the_doctor_says_how_to_mend_what_does_not_work():
    rows = [
        {"what": "Slack bot token", "state": "ok", "text": "works", "mend": ""},
        {"what": "cluster east", "state": "bad", "text": "403 on endpointslices", "mend": "kubectl apply -f rbac.yaml"},
        {"what": "Redis", "state": "skipped", "text": "no URL configured, the embedded one is used", "mend": ""},
    ]
    text = terminal.doctor(rows, colour=False)
    assert text.splitlines() == [
        "✓ Slack bot token  works",
        "✗ cluster east     403 on endpointslices",
        "                   Mend: kubectl apply -f rbac.yaml",
        "– Redis            no URL configured, the embedded one is used",
        "1 thing to mend, 1 not looked at.",
    ]


def test_an_unknown_host_is_answered_in_one_sentence():
    names = ["payments.core.svc.cluster.local", "payments.eu.svc.cluster.local"]
    assert terminal.unknown_host("paymnts", names) == 'No host "paymnts". Did you mean payments.core or payments.eu?'


def poisoned(value: Any, poison: str) -> Any:
    promised = {"verdict", "kind", "protocol", "severity", "state", "action", "pod"}
    if isinstance(value, dict):
        return {k: v if k in promised else poisoned(v, poison) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, poison) for v in value]
    return poison if isinstance(value, str) else value


@pytest.mark.parametrize(
    "poison", ["\x1b]0;title\x07\x1b[2J", "a\u202eb\u2066c", "x\r\noverwritten\x08\x08", "👩‍👩‍👧‍👦" * 3000, "", "\ud800"]
)
def test_no_text_of_a_cluster_reaches_the_terminal_as_a_control_sequence(poison: str):
    for name in ANSWERS:
        case = poisoned(answer(name), poison)
        sweep = {"hosts": 1, "findings": case["findings"], "skipped": case["skipped"], "clusters": case["clusters"]}
        rows = [{"what": poison, "state": "bad", "text": poison, "mend": poison}]
        change = {"object": poison, "cluster": poison, "does": "replaced", "origin": {"file": poison, "line": 1}}
        told = {
            "introduced": case["findings"],
            "resolved": case["findings"],
            "changes": [change],
            "clusters": ["a", "b"],
            "unread": [poison],
        }
        for text in (
            terminal.why(case, colour=False),
            terminal.routes(case["routes"], colour=False),
            terminal.sweep(sweep, colour=False),
            terminal.whatif(told, colour=False),
            terminal.github(told),
            terminal.explain(CAUSE | {"cause": poison, "fix": poison}, poison, colour=False),
            terminal.checks([row | {"cause": poison} for row in CATALOGUE], colour=False),
            terminal.doctor(rows, colour=False),
            terminal.unknown_host(poison, [poison, poison]),
        ):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
