"""What the bot says in Slack: the words, their order, and that no text of a cluster can break, ping or outgrow a message."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.demo import limits
from checks.diagnosis import Diagnosis
from templates import blocks, messages, words
from templates.blocks import Message, ladder, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_regressions.data_regression import DataRegressionFixture

ANSWERS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text())
BELL = 1_795_356_120.0  # an instant, 2026-11-22 14:02 UTC

HOSTILE = {
    "mention": "<!channel> <@U012ABC> <!subteam^S1>",
    "back-ticks": "``` `x` ```",
    "right to left": "safe\u202eevil\u2066.example\u2069\u200f",
    "ten kilobytes": "a-very-long-name." * 600,
    "lines": "one\n*Resolved* after 1 min\r\ntwo\x1b[31m\x07",
    "entities": "a &amp; b <c> &lt;",
    "emoji": "👩‍👩‍👧‍👦🏽🇩🇪é" * 400,
    "combining": "a" + "\u0301" * 9000,
    "empty": "",
}
_PROMISED = {"verdict", "kind", "protocol", "severity", "state", "action", "pod"}


def answer(name: str) -> dict[str, Any]:
    return copy.deepcopy(ANSWERS[name])


def poisoned(value: Any, poison: str, key: str = "") -> Any:
    """The same answer with every free text replaced."""
    if isinstance(value, dict):
        return {k: v if k in _PROMISED else poisoned(v, poison, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, poison, key) for v in value]
    if key == "envoy_cluster":
        return f"outbound|80|{poison}|{poison}"
    return poison if isinstance(value, str) else value


def alerted(state: str, **more: Any) -> dict[str, Any]:
    case = answer("subset_empty")
    return {
        "id": "a1",
        "state": state,
        "finding": case["findings"][0],
        "routes": case["routes"],
        "since": BELL,
        "resolved_at": None,
        "ended_by": None,
        "why": None,
        "picture": None,
        "others": 0,
    } | more


def every_message(case: dict[str, Any], poison: str = "") -> Iterator[Message]:
    """Each kind of message about this answer."""
    yield messages.why(case, share=True)
    yield messages.routes(case["host"], case["routes"])
    yield messages.broken({"hosts": 3, "findings": case["findings"], "skipped": case["skipped"], "clusters": case["clusters"]})
    change = {"object": poison or "VirtualService a/b", "cluster": poison or "east", "does": "replaced", "origin": {"file": "a", "line": 1}}
    yield messages.whatif(
        {
            "introduced": case["findings"] * 9,
            "resolved": case["findings"] * 9,
            "changes": [change] * 30,
            "clusters": ["east", "west"],
            "unread": [poison or "west: 403"] * 9,
        }
    )
    yield messages.clusters(
        [{**c, "mesh": poison or "prod", "objects": 12, "unreadable": {poison or "secrets": poison or "403"}} for c in case["clusters"]]
    )
    yield messages.unknown_host(poison or "paymnts", [case["host"], "payments.eu.svc.cluster.local"])
    yield messages.unknown_verb(poison or "wyh", "why")
    yield messages.error(poison or "That cannot be read.")
    cause = {
        "id": poison or "x",
        "code": "MESH101",
        "cause": poison or "c",
        "fix": poison or "f",
        "decided_by": "envoy",
        "caught_today": "no",
    }
    yield messages.explain(cause, poison or None)
    yield messages.shared(messages.why(case, share=True), "U012ABC")
    for finding in case["findings"]:
        for state in ("firing", "unknown", "resolved", "pending"):
            alert = alerted(state, finding=finding, routes=case["routes"], ended_by=poison, why=poison, resolved_at=BELL + 720, others=2)
            alert["picture"] = {"id": "F0123", "alt": poison or "route"}
            yield messages.alert(alert, [("Why", "why", case["host"], None)])
            yield from messages.details(alert)
        yield messages.step({"reason": "fired", "at": BELL, "text": poison})


@pytest.mark.parametrize(
    "names",
    [[], ["east"], ["east", "west"], [f"arn:aws:eks:eu-central-1:1:cluster/{'x' * 60}{i}" for i in range(150)], ["x" * 200, "<!here>"]],
)
def test_slack_opens_the_dialog_for_a_change_however_many_clusters_there_are(names: list[str]):
    view = messages.whatif_modal(names, "kept")
    assert limits.wrong_view(view, lambda _file: True) == []
    chosen = next((b["element"]["options"] for b in view["blocks"] if b["block_id"] == messages.CLUSTER), None)
    assert (chosen is not None) == (len([n for n in names if len(n) <= 150]) > 1)


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from strings(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from strings(child)


def shown(message: Message) -> str:
    """Everything a reader of the blocks sees."""
    return "\n".join(strings(message.blocks))


def size(message: Message) -> int:
    return len(json.dumps(message.blocks, ensure_ascii=False, separators=(",", ":")))


def assert_slack_takes(message: Message) -> None:
    """Three judges that know nothing of each other: our measure, slack_sdk's validators, and the local Slack of the demo."""
    assert measure(message) == []
    assert limits.wrong_blocks(list(message.blocks), "message", lambda _file: True) == []
    assert not limits.too_long(message.blocks)
    for block in message.blocks:
        parsed = Block.parse(copy.deepcopy(block))
        assert parsed is not None, block
        parsed.validate_json()


# -- the contract ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answers_here_have_the_form_that_the_engine_prints(name: str):
    typed = msgspec.convert(ANSWERS[name], Diagnosis)
    assert holds(json.loads(msgspec.json.encode(typed)), ANSWERS[name])


def holds(whole: Any, part: Any) -> bool:
    """Whether everything in `part` stands in `whole`: the form of answers may grow, and never shrink."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and holds(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


# -- goldens --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
def test_why_says_it_so(name: str, data_regression: DataRegressionFixture):
    message = messages.why(answer(name), share=True)
    assert_slack_takes(message)
    data_regression.check(msgspec.to_builtins(message))


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("firing", {"picture": {"id": "F0123", "alt": "95 % to v1: 0 endpoints"}, "others": 2}),
        ("unknown", {"why": "east does not answer since 14:02"}),
        ("resolved", {"resolved_at": BELL + 720, "ended_by": "Deployment destination-v1 was created; 3 of 3 endpoints ready"}),
        ("pending", {}),
    ],
    ids=["firing", "unknown", "resolved", "pending"],
)
def test_an_alert_says_it_so(state: str, more: dict[str, Any], data_regression: DataRegressionFixture):
    message = messages.alert(alerted(state, **more), [("Why", "why", "destination.mynamespace", "primary")])
    assert_slack_takes(message)
    data_regression.check(msgspec.to_builtins(message))


# -- the words ------------------------------------------------------------------------------------------------------------------------


def headline(message: Message) -> str:
    return str(message.blocks[0]["text"]["text"])


def test_the_headline_is_in_words_for_a_person_who_was_woken_up():
    assert headline(messages.why(answer("subset_empty"))) == "95 % of destination.mynamespace fails: v1 has no endpoint"
    assert headline(messages.alert(alerted("firing"))) == "95 % of destination.mynamespace fails: v1 has no endpoint"


def test_the_doubled_entry_is_told_by_its_own_sentence():
    message = messages.why(answer("service_entry_doubled"))
    assert (
        headline(message) == "Port 8443 of api.partner.example fails for every caller: ServiceEntry egress/partner-new (2 Sep) is not used"
    )
    assert shown(message).count("Port 8443 of api.partner.example fails") == 1, "in the headline, and not again below"


def test_a_headline_names_the_callers_when_not_all_are_hit():
    case = answer("subset_empty")
    case["findings"][0]["viewpoints"] = case["findings"][0]["viewpoints"][1:]
    assert headline(messages.why(case)) == "95 % of destination.mynamespace fails for callers in web: v1 has no endpoint"


def test_a_headline_names_the_rule_when_there_are_several():
    case = answer("subset_empty")
    case["routes"].append(
        case["routes"][0] | {"path": "spec.http[1]", "failing_share": 0.0, "destinations": case["routes"][0]["destinations"][1:]}
    )
    assert headline(messages.why(case)) == "95 % of destination.mynamespace, rule 1, fails: v1 has no endpoint"


def test_a_port_without_a_cluster_is_told_as_that():
    case = answer("service_entry_doubled")
    whole = case["routes"][0]
    gone = whole["destinations"][0] | {
        "envoy_cluster": "outbound|8443||api.partner.example",
        "defined": False,
        "usable": False,
        "endpoints": [],
    }
    case["routes"].append(whole | {"port": 8443, "failing_share": 1.0, "destinations": [gone]})
    case["findings"][0]["message"] = "istiod keeps the older one and drops port 8443."
    message = messages.why(case)
    assert headline(message) == "Every request to port 8443 of api.partner.example fails: Envoy has no cluster for it"
    assert "Every connection to port 8443 of api.partner.example is closed, for every caller in the mesh." in shown(message)


def test_a_rule_that_fails_for_several_groups_of_callers_is_one_rule():
    case = answer("subset_empty")
    case["routes"][1] |= {"match": "header x = y"}
    assert "as well" not in shown(messages.why(case))


def test_the_order_is_what_breaks_then_why_then_the_repair_then_the_route_then_proof():
    text = shown(messages.why(answer("subset_empty"), share=True))
    order = [
        "95 % of destination",
        "no healthy upstream",
        "Subset v1 has 95 %",
        "Deploy version v1",
        "kubectl -n",
        "└▶",
        "EndpointSlice",
        "istioctl",
        "118 other",
        "Share in channel",
    ]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_a_resolved_alert_says_how_long_it_lasted_and_what_ended_it():
    message = messages.alert(alerted("resolved", resolved_at=BELL + 720, ended_by="Deployment destination-v1 was created"))
    assert headline(message) == "Resolved after 12 min: destination.mynamespace"
    assert "Deployment destination-v1 was created" in shown(message)
    assert "What it was" in shown(message)


def test_an_unknown_alert_never_reads_as_resolved():
    message = messages.alert(alerted("unknown", why="east does not answer since 14:02"))
    assert headline(message) == "Unknown: destination.mynamespace, east does not answer since 14:02"
    assert "Resolved" not in shown(message)
    assert "Last known" in shown(message)


def test_what_could_not_be_read_is_said_as_plainly_as_what_could():
    text = shown(messages.why(answer("unreadable")))
    assert "west: endpoints cannot be read since 14:02" in text
    assert "Not looked at: 2 checks in west" in text
    assert "west is not read completely" in text


def test_what_a_live_envoy_holds_stands_next_to_the_verdict_and_differences_come_first():
    case = answer("subset_empty")
    assert "✓ seen on Envoy web/web-7f: outbound|80|v1|" in shown(messages.why(case))
    case["live"] += [case["live"][0] | {"agrees": False, "sentence": f"Envoy web/{i} differs from the prediction"} for i in range(6)]
    text = shown(messages.why(case))
    assert "✗ Envoy web/0 differs from the prediction" in text
    assert "– 4 more, 3 of them different from what was predicted" in text
    assert messages.why({k: v for k, v in case.items() if k != "live"})


def test_no_tick_stands_where_calls_fail_for_another_reason_than_the_route():
    assert "✓" not in shown(messages.why(answer("service_entry_doubled")))


def test_a_broken_host_that_no_check_explains_says_so():
    case = answer("subset_empty") | {"findings": []}
    message = messages.why(case)
    assert headline(message) == "95 % of destination.mynamespace fails: v1 has no endpoint"
    assert "No check names a cause" in shown(message)


def test_broken_tells_one_fault_once_however_many_hosts_it_hits():
    finding = answer("subset_empty")["findings"][0]
    many = [finding | {"host": f"h{i}.shop.svc.cluster.local", "failing_share": 1.0} for i in range(41)]
    warning = finding | {"severity": "warning", "cause": "last-usable-endpoint"}
    message = messages.broken({"hosts": 300, "findings": [*many, warning], "skipped": [], "clusters": []})
    assert headline(message) == "41 of 300 hosts fail"
    assert len(message.blocks) == 2
    assert "40 other hosts" in shown(message)


def test_a_sweep_that_could_not_look_does_not_claim_that_nothing_fails():
    skipped = answer("unreadable")["skipped"]
    assert headline(messages.broken({"hosts": 3, "findings": [], "skipped": [], "clusters": []})) == "Nothing fails: 3 hosts looked at"
    assert headline(messages.broken({"hosts": 3, "findings": [], "skipped": skipped, "clusters": []})).startswith("Nothing known fails")


def test_four_hundred_rules_come_in_pages_that_fit_and_miss_none():
    route = answer("subset_empty")["routes"][0]
    routes = [route | {"path": f"spec.http[{i}]", "match": f"prefix /{i}"} for i in range(400)]
    seen: list[str] = []
    page, turned = 0, 0
    while True:
        message = messages.routes(route["host"], routes, page)
        assert_slack_takes(message)
        seen += re.findall(r"match: prefix (/\d+)\)", shown(message))
        buttons = {e["action_id"]: e["value"] for b in message.blocks if b["type"] == "actions" for e in b["elements"]}
        assert (messages.PREVIOUS in buttons) == (page > 0)
        if messages.NEXT not in buttons:
            break
        value, host = buttons[messages.NEXT].split(" ", 1)
        assert host == route["host"]
        page, turned = int(value), turned + 1
    assert seen == [f"/{i}" for i in range(400)]
    assert turned > 20
    assert messages.routes(route["host"], routes, 9999) == message, "a page that does not exist is the nearest one"


def test_help_lists_exactly_the_verbs_it_is_given():
    text = shown(messages.help({"why HOST": "why calls to it fail", "broken": "what fails now"}))
    assert re.findall(r"`/mesh (.*?)`", text) == ["why HOST", "broken"]


def test_a_wrong_host_is_answered_with_the_nearest_ones():
    names = ["payments.core.svc.cluster.local", "payments.eu.svc.cluster.local", "payment-api.core.svc.cluster.local"]
    assert messages.unknown_host("paymnts", names).text == 'No host "paymnts". Did you mean payments.core, payments.eu or payment-api.core?'
    assert messages.unknown_host("payments", names[:2], ambiguous=True).text.startswith(
        '"payments" fits 2 hosts: payments.core and payments.eu.'
    )
    assert messages.unknown_host("x", []).text == 'No host "x", and none that is nearly called so.'


def test_candidates_that_differ_only_in_their_domain_are_told_apart():
    text = messages.unknown_host("a", ["a.b.svc.cluster.local", "a.b.svc.corp.example"], ambiguous=True).text
    assert "a.b.svc.cluster.local" in text
    assert "a.b.svc.corp.example" in text


def test_a_cause_without_a_check_is_said_not_to_be_checked():
    cause = {"id": "x-y", "code": "MESH999", "cause": "c", "fix": "f", "decided_by": "envoy", "caught_today": "no"}
    assert "does not check for it yet" in shown(messages.explain(cause, None))
    assert "How to see it" in shown(messages.explain(cause, "A page.\n\nHow to see it: so."))


def test_the_button_to_share_is_shown_only_when_asked_and_goes_once_it_was_used():
    whole = messages.why(answer("subset_empty"), share=True, actions=[("Routes", "routes", "x", None)])
    assert "Share in channel" in shown(whole)
    assert "Share in channel" not in shown(messages.why(answer("subset_empty")))
    given = messages.shared(whole, "U012ABC")
    assert "Share in channel" not in shown(given)
    assert "Routes" in shown(given)
    assert "Shared by <@U012ABC>" in shown(given)


def test_sharing_mentions_nothing_but_a_user_id():
    with pytest.raises(ValueError, match="not a Slack user id"):
        messages.shared(messages.error("x"), "!channel")


def test_the_root_of_an_alert_says_where_its_patch_is():
    text = shown(messages.alert(alerted("firing")))
    assert "give its weight to v2 (2 of 2 endpoints ready). The patch is in the thread." in text
    assert "kubectl" not in text


def test_a_label_is_never_left_alone():
    case = answer("subset_empty")
    case["findings"][0] |= {"fix": "", "patch": None, "evidence": [], "commands": []}
    assert "Fix" not in shown(messages.why(case))
    assert "See" not in shown(messages.why(case))


def test_times_are_in_the_readers_own_zone():
    message = messages.step({"reason": "resolved", "at": BELL, "text": "3 of 3 endpoints ready"})
    assert (
        message.text == f"✓ <!date^{BELL:.0f}^{{date_short_pretty}} {{time_secs}}|2026-11-22 14:02 UTC> *resolved* 3 of 3 endpoints ready"
    )


def test_the_thread_starts_with_the_repair_and_then_the_proof():
    repair, proof = messages.details(alerted("firing"))
    assert "kubectl -n mynamespace patch" in shown(repair)
    assert "EndpointSlice destination-x7k2p" in shown(proof)
    assert "istioctl proxy-config endpoints" in shown(proof)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (0.0001, "<1 %"), (0.004, "<1 %"), (0.006, "1 %"), (0.95, "95 %"), (0.994, "99 %"), (0.9999, ">99 %"), (1.0, "100 %")],
)
def test_a_share_between_none_and_all_never_reads_as_none_or_all(share: float, said: str):
    assert words.percent(share) == said


def test_who_is_hit_is_named_as_briefly_as_it_is_true():
    def sidecar(namespace: str, cluster: str = "east") -> dict[str, Any]:
        return {"cluster": cluster, "kind": "sidecar", "namespace": namespace, "pod": None, "selector": None}

    gateway = {"cluster": "east", "kind": "gateway", "namespace": "edge", "pod": None, "selector": "app=public"}
    everyone = [sidecar("a"), sidecar("b"), sidecar("a", "west"), gateway]
    assert words.whom(everyone, everyone) == "every caller in the mesh"
    assert words.whom([sidecar("a", "west")], everyone) == "every caller in west"
    assert words.whom([sidecar("a")], everyone) == "callers in a of east only"
    assert words.whom([gateway], [gateway, sidecar("a")]) == "gateway edge (app=public) only"
    assert words.whom([sidecar("a"), gateway]) == "callers in a and gateway edge (app=public) only"
    assert words.whom([], everyone) == ""


@pytest.mark.parametrize(
    ("change", "stands", "outcome"),
    [
        ({}, "2 of 2 usable", ""),
        ({"defined": False}, "not defined", "503 NC"),
        ({"usable": False, "endpoints": []}, "0 endpoints", "503 UH"),
        ({"usable": False, "share": 0.0, "endpoints": []}, "0 endpoints", "gets no request"),
        ({"endpoints": []}, "endpoints only Envoy knows", ""),
        (
            {"usable": False, "endpoints": [{"address": "a:1", "state": "unhealthy", "reason": "not ready"}]},
            "0 of 1 usable: not ready",
            "503 UH",
        ),
    ],
)
def test_a_destination_says_what_stands_behind_it(change: dict[str, Any], stands: str, outcome: str):
    route = answer("subset_empty")["routes"][0]
    (branch,) = words.branches(route | {"destinations": [route["destinations"][1] | change]})
    assert (branch.stands, branch.outcome) == (stands, outcome)


def test_a_tcp_connection_does_not_get_an_http_status():
    route = answer("subset_empty")["routes"][0] | {"protocol": "tcp"}
    assert words.branches(route)[0].outcome == "closed, UH"
    case = answer("subset_empty")
    case["routes"] = [r | {"protocol": "tcp"} for r in case["routes"]]
    assert "95 % of the connections that rule 1 of VirtualService mynamespace/destination routes are closed" in shown(messages.why(case))


def test_sixty_destinations_are_folded_and_counted():
    route = answer("subset_empty")["routes"][0]
    many = route | {"destinations": [route["destinations"][i % 2] | {"share": 1 / 60} for i in range(60)]}
    lines = words.tree(words.Rule(many, (many["viewpoint"],)))
    assert len(lines) == 2 + words.BRANCHES
    assert lines[-1].text.strip() == "└─ 49 more with 82 %, 19 of them broken"


def test_equal_rules_of_many_callers_are_told_once():
    route = answer("subset_empty")["routes"][0]
    routes = [route | {"viewpoint": route["viewpoint"] | {"namespace": f"n{i}"}} for i in range(50)]
    (rule,) = words.rules(routes)
    assert len(rule.viewpoints) == 50


# -- hostile text ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_text_of_a_cluster_breaks_or_pings_a_message(name: str, poison: str):
    for message in every_message(poisoned(answer(name), poison), poison):
        assert_slack_takes(message)
        for step in ladder(message):
            assert measure(step) == []
        for node in walk(message.blocks):
            if node.get("type") == "mrkdwn":
                assert node["verbatim"] is True
                assert_harmless(node["text"])
        assert_harmless(message.text)
        assert not re.search(r"[\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\ud800-\udfff]", "".join(told(message)))


def told(message: Message) -> Iterator[str]:
    """Every string that a reader sees: values of buttons are opaque."""
    yield message.text
    for node in walk(message.blocks):
        yield from (v for k, v in node.items() if k in {"text", "alt_text"} and isinstance(v, str))


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def assert_harmless(markup: str) -> None:
    """Only our own tokens: dates, and the one mention of who shared; every & is an entity that Slack knows."""
    rest = re.sub(r"<!date\^\d+\^[^|<>]*\|[^<>]*>|Shared by <@U012ABC>", "", markup)
    assert "<" not in rest
    assert ">" not in rest
    assert re.sub(r"&(amp|lt|gt);", "", rest).count("&") == 0


def test_a_line_break_in_a_name_cannot_forge_a_line():
    message = messages.step({"reason": "fired", "at": BELL, "text": "x\n*Resolved* after 1 min"})
    assert "\n" not in message.text


def test_escaping_happens_once_and_before_nothing_is_cut():
    assert blocks.escape("a < b && c &amp; <!here>") == "a &lt; b &amp;&amp; c &amp;amp; &lt;!here&gt;"
    assert blocks.escape(blocks.escape("&")) == "&amp;"
    assert blocks.code("`; rm -rf`") == "`ʼ; rm -rfʼ`"
    assert re.fullmatch(r"(&amp;)+…", messages.error("&" * 10_000).text)


def test_names_cannot_open_a_format():
    assert blocks.escape("*Resolved* _a_ ~b~") == "∗Resolved* ＿a_ ∼b~"
    assert blocks.escape("*.partner.example and snake_case_name") == "*.partner.example and snake_case_name"
    assert blocks.code("*a* _b_") == "`*a* _b_`"


@given(st.text(), st.integers(1, 60))
def test_cutting_keeps_the_limit_and_never_half_a_surrogate(text: str, limit: int):
    out = words.cut(words.clean(text), limit)
    assert words.units(out) <= limit
    out.encode()


@pytest.mark.parametrize("emoji", ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "é", "❤️"])
def test_cutting_never_splits_a_grapheme(emoji: str):
    for limit in range(1, 60):
        out = words.cut(emoji * 30, limit)
        assert out.removesuffix("…").replace(emoji, "") == ""
        assert words.units(out) <= limit


@given(st.text())
def test_what_was_escaped_is_what_slack_shows(text: str):
    shown_by_slack = blocks.escape(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    literal = str.maketrans({"∗": "*", "＿": "_", "∼": "~", "`": "ʼ"})
    assert shown_by_slack.translate(literal) == words.clean(text).translate(literal)


# -- measuring and the ladder ---------------------------------------------------------------------------------------------------------


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _button(**more: Any) -> dict[str, Any]:
    return {"type": "button", "text": {"type": "plain_text", "text": "x"}, "action_id": "a"} | more


def _options(number: int) -> list[dict[str, Any]]:
    return [{"text": {"type": "plain_text", "text": "x"}, "value": "y"}] * number


TOO_MUCH: dict[str, tuple[list[dict[str, Any]], str]] = {
    "header": ([{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}], "/blocks/0/text/text: 151"),
    "header without text": ([{"type": "header"}], "/blocks/0/text: missing"),
    "section": ([_section("x" * 3001)], "/blocks/0/text/text: 3,001"),
    "emoji count twice": ([_section("👍" * 1501)], "/blocks/0/text/text: 3,002"),
    "section empty": ([_section("")], "/blocks/0/text/text: empty"),
    "section without anything": ([{"type": "section"}], "/blocks/0/text: missing"),
    "fields": ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}], "/blocks/0/fields: 11"),
    "a field": ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}], "/blocks/0/fields/0/text: 2,001"),
    "context": ([{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * 11}], "/blocks/0/elements: 11"),
    "actions": ([{"type": "actions", "elements": [_button(action_id=str(i)) for i in range(26)]}], "/blocks/0/elements: 26"),
    "two buttons of one id": ([{"type": "actions", "elements": [_button(), _button()]}], "/blocks/0/elements: action_id occurs twice"),
    "a button's label": (
        [{"type": "actions", "elements": [_button(text={"type": "plain_text", "text": "x" * 76})]}],
        "/blocks/0/elements/0/text/text: 76",
    ),
    "a button's value": ([{"type": "actions", "elements": [_button(value="x" * 2001)]}], "/blocks/0/elements/0/value: 2,001"),
    "a button's value is no number": ([{"type": "actions", "elements": [_button(value=None)]}], "/blocks/0/elements/0/value: not a string"),
    "a button's url": ([{"type": "actions", "elements": [_button(url="x" * 3001)]}], "/blocks/0/elements/0/url: 3,001"),
    "a button's confirm": (
        [{"type": "actions", "elements": [_button(confirm={"title": {"type": "plain_text", "text": "x" * 101}})]}],
        "/confirm/title/text: 101",
    ),
    "action_id": ([{"type": "actions", "elements": [_button(action_id="x" * 256)]}], "/blocks/0/elements/0/action_id: 256"),
    "block_id twice": ([_section("x") | {"block_id": "a"}] * 2, "/blocks: block_id occurs twice"),
    "overflow": ([{"type": "actions", "elements": [{"type": "overflow", "options": _options(6)}]}], "/blocks/0/elements/0/options: 6"),
    "select": ([{"type": "actions", "elements": [{"type": "static_select", "options": _options(101)}]}], "options: 101"),
    "an option's value": (
        [
            {
                "type": "actions",
                "elements": [{"type": "static_select", "options": [{"text": {"type": "plain_text", "text": "x"}, "value": "v" * 151}]}],
            }
        ],
        "/options/0/value: 151",
    ),
    "image without alt text": ([{"type": "image", "slack_file": {"id": "F1"}}], "/blocks/0/alt_text: missing"),
    "image without picture": ([{"type": "image", "alt_text": "x"}], "needs one of"),
    "alt text": ([{"type": "image", "slack_file": {"id": "F1"}, "alt_text": "x" * 2001}], "/blocks/0/alt_text: 2,001"),
    "table": ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]] * 101}], "/blocks/0/rows: 101"),
    "columns": ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}], "/blocks/0/rows/0: 21"),
    "two tables": ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}] * 2, "2 table blocks"),
    "markdown": ([{"type": "markdown", "text": "x" * 12_001}], "/blocks/0/text: 12,001"),
    "blocks": ([{"type": "divider"}] * 51, "/blocks: 51"),
    "all together": ([_section("x" * 2500)] * 5, "characters together, at most 12,000"),
    "an alert block": ([{"type": "alert", "text": {"type": "mrkdwn", "text": "x"}}], "no block of type 'alert'"),
    "an unknown block": ([{"type": "hologram"}], "no block of type 'hologram'"),
}


@pytest.mark.parametrize(("wrong", "pointer"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_each_limit_of_slack_is_found_and_pointed_at(wrong: list[dict[str, Any]], pointer: str):
    found = measure(Message("x", tuple(wrong)))
    assert any(pointer in line for line in found), found


@pytest.mark.parametrize(("wrong", "pointer"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_does_not_fit_comes_down_the_ladder(wrong: list[dict[str, Any]], pointer: str):
    steps = list(ladder(Message("headline & more", tuple(wrong))))
    assert Message("headline & more", tuple(wrong)) not in steps, pointer
    assert all(measure(step) == [] for step in steps)
    assert steps[-1].blocks == ()


def test_a_text_that_an_update_would_refuse_is_found_and_cut():
    message = Message("x" * 4001)
    assert measure(message) == ["/text: 4,001 characters, at most 3,900"]
    (only,) = ladder(message)
    assert measure(only) == []


def test_the_ladder_goes_from_everything_to_the_budget_of_an_alert_to_plain_text():
    message = messages.why(answer("subset_empty"), share=True)
    full, reduced, plain = ladder(message)
    assert full == message
    assert len(reduced.blocks) <= blocks.ROOT_BLOCKS
    assert size(reduced) <= blocks.ROOT_TOTAL
    assert reduced.blocks[0] == message.blocks[0]
    assert reduced.blocks[-1]["type"] == "actions"
    assert plain.blocks == ()
    for fact in ("v1 has no endpoint", "Deploy version v1", "0 endpoints", "istioctl"):
        assert fact in plain.text
    assert "&lt;pod&gt;" in plain.text


def test_a_refused_picture_is_the_first_thing_to_go():
    message = messages.alert(alerted("firing", picture={"id": "F0123", "alt": "route"}))
    full, reduced, _plain = ladder(message)
    assert "image" in [b["type"] for b in full.blocks]
    assert "image" not in [b["type"] for b in reduced.blocks]


def test_an_alert_stays_within_the_budget_of_its_root():
    for state in ("firing", "unknown", "resolved", "pending"):
        message = messages.alert(alerted(state, others=3), [(f"B{i}", f"b{i}", "x", None) for i in range(5)])
        assert len(message.blocks) <= blocks.ROOT_BLOCKS
        assert size(message) <= blocks.ROOT_TOTAL


def test_a_button_whose_value_slack_refuses_is_not_shown():
    assert blocks.actions([("x", "a", "v" * 2001, None)]) == []


def test_a_message_survives_the_store():
    for message in every_message(answer("subset_empty")):
        assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


def test_the_same_answer_gives_the_same_bytes():
    def render() -> list[bytes]:
        return [msgspec.json.encode(m) for m in every_message(answer("subset_empty"))]

    assert render() == render()


@pytest.mark.parametrize("build", [lambda: messages.why(answer("subset_empty")), lambda: messages.alert(alerted("firing"))])
def test_rendering_changes_nothing_that_it_was_given(build: Callable[[], Message]):
    before = copy.deepcopy(ANSWERS)
    build()
    assert before == ANSWERS
