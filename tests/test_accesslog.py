"""What lines of a proxy's log say of calls: Istio's formats, a format of one's own, ztunnel's lines, and whatever else a log holds.

The lines are what an Envoy 1.40 wrote (the reference's set-ups); test_demo reads one that runs.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import accesslog

HOST = "destination.mynamespace.svc.cluster.local"
V1 = f"outbound|80|v1|{HOST}"


def text(code: str, flags: str, details: str, failure: str = "-", upstream: str = "-", cluster: str = V1, agent: str = "curl/8.5") -> str:
    return (
        f'[2026-11-22T12:23:31.748Z] "GET / HTTP/1.1" {code} {flags} {details} - "{failure}" 0 19 0 - "-" "{agent}" '
        f'"ffc7-1" "destination" "{upstream}" {cluster} - 127.0.0.1:15001 127.0.0.1:48740 - default'
    )


REFUSED = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
TLS = "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (text("503", "UH", "no_healthy_upstream"), (503, ("UH",), "no_healthy_upstream", "", V1, "")),
        (text("503", "URX,UF", REFUSED, "-", "127.0.0.1:18099"), (503, ("URX", "UF"), REFUSED, "", V1, "127.0.0.1:18099")),
        (text("503", "UF", "x", TLS, "127.0.0.1:1"), (503, ("UF",), "x", TLS, V1, "127.0.0.1:1")),
        (text("503", "NC", "cluster_not_found", cluster="-"), (503, ("NC",), "cluster_not_found", "", "", "")),
        (text("404", "NR", "route_not_found", cluster="-"), (404, ("NR",), "route_not_found", "", "", "")),
        (text("503", "-", "via_upstream", "-", "10.1.0.7:8080"), (503, (), "via_upstream", "", V1, "10.1.0.7:8080")),
        (text("0", "DC", "downstream_remote_disconnect"), (0, ("DC",), "downstream_remote_disconnect", "", V1, "")),
        (text("200", "-", "via_upstream", agent='a "quoted" agent'), (200, (), "via_upstream", "", V1, "")),
    ],
)
def test_a_line_of_istios_format_says_what_envoy_did(line: str, said: tuple[object, ...]):
    (a,) = accesslog.read([line]).accesses
    assert (a.code, a.flags, a.details, a.failure, a.envoy_cluster, a.upstream) == said
    assert (a.authority, a.count) == ("destination", 1)


def test_a_line_of_json_says_the_same():
    line = {
        "authority": "destination",
        "duration": 0,
        "response_code": 503,
        "response_code_details": "no_healthy_upstream",
        "response_flags": "UH",
        "start_time": "2026-11-22T12:23:31.748Z",
        "upstream_cluster": V1,
        "upstream_host": None,
    }
    as_json, as_text = (accesslog.read([x]).accesses[0] for x in (json.dumps(line), text("503", "UH", "no_healthy_upstream")))
    assert (as_json.code, as_json.flags, as_json.details, as_json.envoy_cluster) == (503, ("UH",), "no_healthy_upstream", V1)
    assert as_json.first == as_text.first > 0


def test_lines_that_say_the_same_are_counted_and_trouble_is_kept():
    lines = [text("503", "UH", "no_healthy_upstream")] * 19 + [text("200", "-", "via_upstream", "-", "10.1.0.7:8080")]
    lines += ["2026-11-22T12:23:31Z\twarning\tenvoy config\tgRPC config rejected: duplicate cluster", "server started", ""]
    read = accesslog.read(lines)
    assert [(a.count, a.code) for a in read.accesses] == [(19, 503), (1, 200)]
    assert (read.lines, read.cut, len(read.other)) == (20, False, 1)
    assert "duplicate cluster" in read.other[0].text


def test_a_log_of_more_kinds_than_are_counted_says_so():
    read = accesslog.read(text("503", "UH", f"details_{n}") for n in range(accesslog.GROUPS + 5))
    assert (len(read.accesses), read.lines, read.cut) == (accesslog.GROUPS, accesslog.GROUPS + 5, True)


def test_a_format_of_ones_own_is_read_by_its_format_string():
    form = '%START_TIME(%s)% %RESPONSE_CODE% [%RESPONSE_FLAGS%] "%REQ(:AUTHORITY)%" %UPSTREAM_CLUSTER% %REQ(X-A?X-B):20% %BYTES_SENT%\n'
    (a,) = accesslog.read([f'1795350211 503 [UF,URX] "cart.shop:8080" {V1} some 12'], form).accesses
    assert (a.code, a.flags, a.authority, a.envoy_cluster) == (503, ("UF", "URX"), "cart.shop:8080", V1)
    assert accesslog.operators(form) == {"response_code", "response_flags", "authority", "upstream_cluster"}
    assert accesslog.operators("%DURATION% ms") == set()


def test_a_line_of_ztunnel_says_why_a_connection_ended():
    line = (
        '2026-06-13T20:30:45.123Z\terror\taccess\tconnection complete\tsrc.addr=10.0.0.5:1 src.workload="web-1" dst.addr=10.0.0.9:15008 '
        f'dst.service="{HOST}" direction="outbound" duration="0ms" error="connection closed due to policy rejection: none allowed"'
    )
    (a,) = accesslog.read([line]).accesses
    assert (a.code, a.authority, a.upstream) == (0, HOST, "10.0.0.9:15008")
    assert a.failure == "connection closed due to policy rejection: none allowed"


@given(st.lists(st.one_of(st.text(max_size=200), st.text(alphabet='[]{}":,%- 503UHNC|\n', max_size=120)), max_size=8), st.text(max_size=60))
def test_whatever_a_log_holds_is_read(lines: list[str], form: str):
    read = accesslog.read(lines, form)
    assert sum(a.count for a in read.accesses) == read.lines <= len(lines)
