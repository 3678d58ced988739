"""What lines of a proxy's log say of calls: Istio's formats, a format of one's own, ztunnel's lines, and whatever else a log holds.

Most lines are what an Envoy 1.40 wrote; one that runs writes each way in which a call can end, in both of Istio's formats.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import accesslog
from tests import envoys
from tests.envoys import TYPE, Envoy
from tests.recording_calls import answering, asking, holding, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


# --- a real Envoy ------------------------------------------------------------------------------------------------------------

JSON_FORMAT = {
    **{f: f"%{f.upper()}%" for f in ("start_time", "response_code", "response_flags", "response_code_details", "upstream_host")},
    **{f: f"%{f.upper()}%" for f in ("connection_termination_details", "upstream_transport_failure_reason", "requested_server_name")},
    **{f: f"%{f.upper()}%" for f in ("route_name", "duration", "bytes_received", "bytes_sent", "downstream_local_address", "protocol")},
    "authority": "%REQ(:AUTHORITY)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
}
"""EnvoyJSONLogFormatIstio."""
BUSY = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Case(NamedTuple):
    """One host: its cluster, its route, and how a call of it ends: code, flags, details, and what else Envoy says."""

    code: int
    flags: tuple[str, ...]
    details: str
    cluster: dict[str, Any] | None = None
    route: dict[str, Any] | None = None
    failure: str = ""
    upstream: bool = True


def ways(ports: dict[str, int]) -> dict[str, Case]:
    """Every way in which a call can end that is told apart, by host."""

    def at(port: int, **more: Any) -> dict[str, Any]:
        return {"hosts": [{"lb_endpoints": [{"endpoint": {"address": envoys._socket("127.0.0.1", port)}}]}], **more}

    none = {"circuit_breakers": {"thresholds": [{"max_pending_requests": 0, "max_connections": 0}]}}
    tls = {"transport_socket": {"name": "tls", "typed_config": {"@type": f"{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}}}
    faults = {"@type": f"{TYPE}.extensions.filters.http.fault.v3.HTTPFault"}
    faults["abort"] = {"http_status": 503, "percentage": {"numerator": 100}}
    aborted = {"typed_per_filter_config": {"envoy.filters.http.fault": faults}}
    reset = "upstream_reset_before_response_started"
    return {
        "fine": Case(200, (), "via_upstream", at(ports["fine"])),
        "app": Case(503, (), "via_upstream", at(ports["busy"])),
        "uh": Case(503, ("UH",), "no_healthy_upstream", {"hosts": []}, upstream=False),
        "nc": Case(503, ("NC",), "cluster_not_found", None, {"cluster": "outbound|80||gone.shop.svc.cluster.local"}, upstream=False),
        "uf": Case(503, ("UF",), reset, at(1), failure="Connection.refused"),
        "tls": Case(503, ("UF",), reset, at(ports["fine"], **tls), failure="TLS_error:.*WRONG_VERSION_NUMBER"),
        "uc": Case(503, ("UC",), f"{reset}{{connection_termination}}", at(ports["closing"])),
        "uo": Case(503, ("UO",), f"{reset}{{overflow}}", at(ports["fine"], **none), upstream=False),
        "ut": Case(504, ("UT",), "response_timeout", at(ports["slow"]), {"timeout": "0.1s"}),
        "dc": Case(0, ("DC",), "downstream_remote_disconnect", at(ports["slow"])),
        "urx": Case(503, ("URX", "UF"), reset, at(1), {"retry_policy": {"retry_on": "connect-failure"}}, failure="Connection.refused"),
        "fi": Case(503, ("FI",), "fault_filter_abort", at(ports["fine"]), aborted, upstream=False),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Case], str, str]]:
    """What a real Envoy wrote of one call of each way, as text and as JSON."""
    if (reason := envoys.missing()) is not None:
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("ways")
    servers = {"fine": answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "busy": answering(BUSY)}
    servers |= {"closing": holding, "slow": answering(BUSY, seconds=0.5)}
    with contextlib.ExitStack() as stack:
        cases = ways({name: stack.enter_context(serving(serve)) for name, serve in servers.items()})
        kinds = {"text": {"text_format_source": {"inline_string": accesslog.ISTIO}}, "json": {"json_format": JSON_FORMAT}}
        file = f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"
        logs = [{"name": n, "typed_config": {"@type": file, "path": str(folder / n), "log_format": form}} for n, form in kinds.items()]
        hosts, clusters = [], []
        for name, case in cases.items():
            cluster = f"outbound|80||{name}.shop.svc.cluster.local"
            route = case.route or {}
            per_filter = {k: v for k, v in route.items() if k == "typed_per_filter_config"}
            to = {"cluster": cluster, **{k: v for k, v in route.items() if k not in per_filter}}
            hosts.append({"name": name, "domains": [name], "routes": [{"name": name, "match": {"prefix": "/"}, "route": to, **per_filter}]})
            if case.cluster is not None:
                more = {k: v for k, v in case.cluster.items() if k != "hosts"}
                assigned = {"cluster_name": cluster, "endpoints": case.cluster["hosts"]}
                clusters.append({"name": cluster, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assigned, **more})
        routes = {"name": "80", "virtual_hosts": hosts, "validate_clusters": False}
        chain = envoys._connection_manager("ways", {"route_config": routes, "access_log": logs})
        fault = {"name": "envoy.filters.http.fault", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.fault.v3.HTTPFault"}}
        chain["filters"][0]["typed_config"]["http_filters"].insert(0, fault)
        listener = {"name": "ways", "address": envoys._socket("127.0.0.1", 0), "filter_chains": [chain]}
        bootstrap = {"node": {"id": "ways", "cluster": "ways"}, "static_resources": {"listeners": [listener], "clusters": clusters}}
        envoy = Envoy(folder / "run", bootstrap, "--file-flush-interval-msec", "50")
        stack.callback(envoy.stop)
        for name in (*cases, "nr"):
            asking(name, 1, 0.2 if name == "dc" else 10.0)(envoy.ports["ways"])
        expected = len(cases) + 1
        envoy.until(lambda: all((folder / n).exists() and len((folder / n).read_text().splitlines()) >= expected for n in kinds))
        yield cases, (folder / "text").read_text(), (folder / "json").read_text()


def test_what_a_real_envoy_writes_of_each_way_is_told_apart_in_both_formats(written: tuple[dict[str, Case], str, str]):
    cases, *logs = written
    cases = {**cases, "nr": Case(404, ("NR",), "route_not_found", upstream=False)}
    as_text, as_json = ({a.authority: a for a in accesslog.read(accesslog.of_file(log)).accesses} for log in logs)
    assert as_text.keys() == as_json.keys() == cases.keys()
    for name, case in cases.items():
        for a in (as_text[name], as_json[name]):
            assert (a.code, a.flags, a.details.partition("{")[0]) == (case.code, case.flags, case.details.partition("{")[0]), a.line
            assert a.details.startswith(case.details), a.line
            assert re.search(case.failure, f"{a.failure} {a.details}"), a.line
            assert bool(a.upstream) is case.upstream, a.line
            assert a.first > 0
        same = ("code", "flags", "details", "failure", "termination", "envoy_cluster", "upstream", "server_name", "route", "first")
        assert [getattr(as_text[name], f) for f in same] == [getattr(as_json[name], f) for f in same]
