"""What is told of calls that were counted, and what is not: where the evidence does not decide, where it is over, and what happens on any day."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from bot import manifests
from checks import diagnosis
from checks.evidence import Access, AccessLog, Evidence, Flow, LogLine, Traffic
from checks.finding import Severity
from checks.mesh import Mesh

SCENARIOS = Path(__file__).parent / "scenarios"


@cache
def mesh(name: str) -> tuple[Mesh, ...]:
    return Mesh.of([manifests.read(str(SCENARIOS / name / "east.yaml"), "east", read_at=0.0)], 0.0)


def call(app: str, count: int, code: int = 200, flags: str = "", details: str = "via_upstream", last: float = 60.0, **more: str) -> Access:
    named = {"envoy_cluster": f"outbound|80||{app}.shop.svc.cluster.local", "upstream": "10.10.1.6:8080"} | more
    line = f'"GET / HTTP/1.1" {code} {flags or "-"} {details}'
    return Access(count, 0.0, last, code, tuple(filter(None, flags.split(","))), details, line=line, **named)


def inbound(count: int, code: int = 200, flags: str = "", details: str = "via_upstream") -> Access:
    return call("", count, code, flags, details, envoy_cluster="inbound|8080||")


def log(pod: str, *accesses: Access, container: str = "istio-proxy", other: tuple[LogLine, ...] = ()) -> AccessLog:
    namespace, _, name = pod.partition("/")
    return AccessLog("east", namespace, name, container, accesses, sum(a.count for a in accesses), 0.0, 60.0, "saved", other=other)


def told(scenario: str, app: str, *logs: AccessLog, traffic: tuple[Traffic, ...] = ()) -> dict[str, float]:
    """The causes that are found with this evidence, and their shares."""
    found = diagnosis.why(f"{app}.shop", mesh(scenario), Evidence(logs=logs, traffic=traffic))
    return {f.cause: round(f.failing_share, 4) for f in found.findings if f.severity is not Severity.INFO}


WEB = "client/web-0"


def test_behind_a_sidecar_a_callers_503_alone_says_not_who_made_it() -> None:
    seen = log(WEB, call("search", 30, 503), call("search", 70))
    assert told("upstream-503-by-app", "search", seen) == {}
    assert told("upstream-503-by-app", "search", seen, log("shop/search-0", inbound(30, 503), inbound(70))) == {"upstream-503-by-app": 0.3}
    reset = inbound(30, 503, "UC", "upstream_reset_before_response_started{connection_termination}")
    assert told("upstream-503-by-app", "search", seen, log("shop/search-0", reset, inbound(70))) == {"upstream-reset-UC": 0.3}


def test_a_servers_log_of_a_call_that_its_caller_timed_out_is_no_client_that_gave_up() -> None:
    late = log(WEB, call("quotes", 10, 504, "UT", "response_timeout"))
    gone = log("shop/quotes-0", inbound(10, 0, "DC", "downstream_remote_disconnect"))
    assert told("upstream-timeout-UT", "quotes", late, gone) == {"upstream-timeout-UT": 1.0}
    assert told("upstream-timeout-UT", "quotes", gone) == {}


@pytest.mark.parametrize(
    ("ended", "fine", "share"),
    [(5, 995, None), (2, 98, None), (20, 980, 0.02), (3, 97, 0.03), (1, 0, 1.0), (2, 1, None)],
)
def test_a_few_calls_are_no_cause_unless_they_are_all(ended: int, fine: int, share: float | None) -> None:
    reset = call("reports", ended, 503, "UC", "upstream_reset_before_response_started{connection_termination}")
    found = told("upstream-reset-UC", "reports", log(WEB, reset, *([call("reports", fine)] if fine else [])))
    assert found == ({} if share is None else {"upstream-reset-UC": share})


def test_what_is_over_is_no_cause() -> None:
    reset = call("reports", 50, 503, "UC", "upstream_reset_before_response_started{connection_termination}", last=100.0)
    assert told("upstream-reset-UC", "reports", log(WEB, reset, call("reports", 50, last=120.0))) == {"upstream-reset-UC": 0.5}
    assert told("upstream-reset-UC", "reports", log(WEB, reset, call("reports", 50, last=190.0))) == {}


def test_one_caller_whose_calls_all_fail_is_told_however_few_they_are() -> None:
    flows = (Flow("web", "client", 504, ("UT",), 0.02), Flow("jobs", "client", 200, (), 100.0))
    counted = Traffic("east", "quotes.shop.svc.cluster.local", 300.0, flows, None, 0.0, "Prometheus p")
    assert told("upstream-timeout-UT", "quotes", traffic=(counted,)) == {"upstream-timeout-UT": 0.0002}


@pytest.mark.parametrize(
    ("scenario", "app", "access"),
    [
        ("authz-denied", "orders", call("orders", 9, 403)),
        ("jwt-failed", "account", call("account", 9, 401)),
        ("rate-limited", "tickets", call("tickets", 9, 429)),
        ("upstream-503-by-app", "search", call("search", 9, 500)),
        ("downstream-cancel-DC", "export", call("export", 9, 0, "DC", "")),
        ("downstream-cancel-DC", "export", call("export", 9, 200, "DC", "downstream_remote_disconnect")),
        ("upstream-reset-UC", "reports", call("reports", 9, 0, "UC", "")),
    ],
)
def test_what_the_app_answers_and_how_tcp_or_a_stream_ends_is_no_cause(scenario: str, app: str, access: Access) -> None:
    assert told(scenario, app, log(WEB, access, call(app, 1)), log(f"shop/{app}-0", inbound(10))) == {}


def test_whom_a_server_turned_away_is_who_got_its_answer() -> None:
    denied = inbound(6, 403, details="rbac_access_denied_matched_policy[ns[shop]-policy[orders-readonly]-rule[0]]")
    server = log("shop/orders-0", denied)
    (alone,) = diagnosis.why("orders.shop", mesh("authz-denied"), Evidence(logs=(server,))).findings
    assert {v.pod for v in alone.viewpoints} == {None}, "nobody's own log was read: it may have been anybody"
    got = Evidence(logs=(server, log(WEB, call("orders", 6, 403))))
    (known,) = diagnosis.why("orders.shop", mesh("authz-denied"), got).findings
    assert {(v.namespace, v.pod) for v in known.viewpoints} == {("client", "web-0")}
    assert known.failing_share == 1.0


def test_what_the_objects_explain_is_not_told_again() -> None:
    reset = call("cart", 9, 503, "UC", "upstream_reset_before_response_started{connection_termination}")
    seen = log("web/client-0", reset)
    assert set(told("mtls-to-plain-by-a-stale-label", "cart", seen)) == {"mtls-to-plain"}
    assert set(told("mtls-to-plain-by-a-stale-label__healthy", "cart", seen)) == {"upstream-reset-UC"}


@pytest.mark.parametrize(
    ("line", "at", "said"),
    [
        ("connection refused to stock.shop:80", 1793697602.0, True),
        ("connection refused to stock.shop.svc.cluster.local", 1793697602.0, True),
        ("connection refused to stock.shop.example", 1793697602.0, False),
        ("connection refused to restock.shop", 1793697602.0, False),
        ("connection refused to stock.shop", 1793697660.0, False),  # a minute after its proxy began
        ("connection refused to stock.shop", 0.0, False),  # nobody knows when
        ("404 of stock.shop", 1793697602.0, False),
    ],
)
def test_a_call_before_its_proxy_listened_is_known_by_the_line_and_its_time(line: str, at: float, *, said: bool) -> None:
    seen = log(WEB, container="app", other=(LogLine(at, f"ERROR {line}"),))
    assert told("caller-sidecar-startup", "stock", seen) == ({"caller-sidecar-startup": 0.0} if said else {})


@pytest.mark.parametrize(
    ("lines", "called", "said"),
    [
        (["getaddrinfo ENOTFOUND mailer"] * 3, False, True),
        (["lookup mailer.shop on 10.96.0.10:53: no such host"] * 3, False, True),
        (["lookup mailer.shop on 10.96.0.10:53: no such host"] * 3, True, False),  # at times it is known
        (["lookup mailer.shop on 10.96.0.10:53: no such host"], False, False),
        (["getaddrinfo ENOTFOUND mailer.example"] * 3, False, False),
    ],
)
def test_an_app_that_cannot_resolve_a_name_calls_nobody(lines: list[str], *, called: bool, said: bool) -> None:
    app = log(WEB, container="app", other=tuple(LogLine(0.0, f"ERROR {line}") for line in lines))
    proxy = log(WEB, call("cart", 5), *([call("mailer", 5)] if called else []))
    assert told("app-dns-failure", "mailer", app, proxy) == ({"app-dns-failure": 1.0} if said else {})
    assert told("app-dns-failure", "mailer", app) == {}, "whether it calls nobody was not read"
