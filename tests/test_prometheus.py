"""What a real Prometheus says of a host's calls: the calls of a real Envoy, a day that was written into it, and answers that are none."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clusters import Clusters, ClusterSource
from bot.probes import asking, saved
from bot.probes import prometheus as probe
from bot.probes.admin import NotRead
from bot.settings import Prometheus as Place
from bot.settings import RegisteredCluster
from checks import diagnosis, runbook
from checks.agreement import by_caller, fails
from checks.evidence import Evidence, Flow, Traffic
from checks.mesh import Mesh as Meshes
from templates import words
from tests import prometheuses
from tests.envoys import DESTINATION, Mesh
from tests.test_probing import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.prometheuses import Prometheus


def place(url: str, **more: Any) -> Place:
    return Place.model_validate({"url": url, "cluster_label": "cluster=east", **more})


def named(short: str) -> str:
    return f"{short}.svc.cluster.local"


async def counted(of: Prometheus, host: str, *, gateways: Sequence[str] = (), **more: Any) -> Traffic:
    found = await probe.read(place(of.url, **more), "east", probe.Asked(host, (host,), frozenset(gateways)))
    assert found.skipped == ()
    (traffic,) = found.traffic
    return traffic


def failing(traffic: Traffic) -> dict[tuple[str, str, int, tuple[str, ...]], float]:
    """How many calls in a quarter of a minute failed, by who called and how."""
    return {(f.workload, f.reporter, f.code, f.flags): round(f.rate * prometheuses.STEP_S, 1) for f in traffic.flows if fails(f)}


async def test_who_calls_and_what_fails_since_when(prometheus: Prometheus) -> None:
    told = await counted(prometheus, DESTINATION)
    assert failing(told) == {
        ("web", "source", 503, ("UH",)): pytest.approx(57, rel=0.05),
        ("api", "source", 503, ("UH",)): pytest.approx(38, rel=0.05),
    }
    assert told.window_s == probe.WINDOW_S
    assert told.since is not None
    assert abs(told.read_at - told.since - prometheuses.BROKE_S["destination"]) < 75
    share = {of: sum(f.rate for f in flows if fails(f)) / sum(f.rate for f in flows) for of, flows in by_caller(told.flows).items()}
    assert share == {("shop", "web"): pytest.approx(0.95, abs=0.002), ("other", "api"): pytest.approx(0.95, abs=0.002)}


async def test_calls_that_found_no_cluster_are_the_hosts_by_the_name_that_each_caller_wrote(prometheus: Prometheus) -> None:
    told = await counted(prometheus, named("cart.shop"), gateways=["istio-system"])
    assert failing(told) == {
        ("web", "source", 503, ("NC",)): pytest.approx(30, rel=0.05),
        ("api", "source", 503, ("NC",)): pytest.approx(10, rel=0.05),
    }
    assert told.since is not None
    assert abs(told.read_at - told.since - prometheuses.BROKE_S["cart"]) < 700
    assert [(f.workload, f.code, f.flags) for f in told.unnamed] == [("istio-ingressgateway", 404, ("NR",))]


async def test_connections_and_grpc_are_told_by_their_flags_and_statuses(prometheus: Prometheus) -> None:
    told = await counted(prometheus, named("db.shop"))
    assert failing(told) == {("web", "source", 0, ("URX", "UF")): pytest.approx(20, rel=0.05)}
    assert told.since is not None
    assert abs(told.read_at - told.since - prometheuses.BROKE_S["tcp"]) < 75
    rpc = await counted(prometheus, named("rpc.shop"))
    assert list(failing(rpc)) == [("web", "source", 14, ("UH",))]


async def test_what_began_just_now_is_counted_from_nothing_and_over_no_more_than_two_minutes(prometheus: Prometheus) -> None:
    told = await counted(prometheus, named("new.shop"))
    assert told.window_s == probe.LEAST_S
    assert told.since is not None
    assert told.read_at - told.window_s < told.since
    lost = sum(f.rate for f in told.flows if fails(f)) * told.window_s
    assert lost == pytest.approx(10 * prometheuses.BROKE_S["fresh"] / prometheuses.STEP_S, abs=21)


async def test_nobody_calls_is_an_answer_and_nobody_counted_is_none(prometheus: Prometheus) -> None:
    quiet = await counted(prometheus, named("nobody.shop"))
    assert (quiet.flows, quiet.since) == ((), None)
    found = await probe.read(place(prometheus.url, cluster_label="cluster=absent"), "east", probe.Asked("x", ("x",)))
    assert found.traffic == ()
    assert "has no istio_requests_total with cluster=absent" in found.skipped[0].reason
    await probe.tried(place(prometheus.url), "east")
    with pytest.raises(NotRead, match="has no istio_requests_total"):
        await probe.tried(place(prometheus.url, cluster_label="cluster=absent"), "east")


async def test_a_name_is_a_name_whatever_it_holds(prometheus: Prometheus) -> None:
    told = await counted(prometheus, prometheuses.HOSTILE)
    assert [f.workload for f in told.flows] == ["web"]
    for host in ('x"} or vector(1) or m{a="', "x\n", "\\", "a|.*", "(", "é"):
        assert (await counted(prometheus, host)).flows == ()
    found = await probe.read(place(prometheus.url, cluster_label='cluster=east"} or vector(1) #'), "east", probe.Asked("x", ("x",)))
    assert "has no istio_requests_total" in found.skipped[0].reason


async def test_the_calls_of_a_real_envoy_are_told_as_it_ended_them(prometheus: Prometheus, mesh_envoy: Mesh) -> None:
    seen = 'sum(istio_requests_total{cluster="live",destination_service=~"destination.*"})'
    await asyncio.to_thread(prometheus.until, lambda: prometheus.number(seen) > 0)
    before = prometheus.number(seen)
    await mesh_envoy.count(DESTINATION, 400)
    mesh_envoy.call("ghost.mynamespace.svc.cluster.local")
    await asyncio.to_thread(prometheus.until, lambda: prometheus.number(seen) >= before + 400)
    told = await counted(prometheus, DESTINATION, cluster_label="cluster=live")
    total = sum(f.rate for f in told.flows)
    assert {(f.workload, f.namespace, f.code, f.flags) for f in told.flows} == {("web", "shop", 503, ("UH",)), ("web", "shop", 200, ())}
    assert sum(f.rate for f in told.flows if fails(f)) / total == pytest.approx(0.95, abs=0.04)
    ghost = await counted(prometheus, named("ghost.mynamespace"), cluster_label="cluster=live")
    assert [(f.code, f.flags, fails(f)) for f in ghost.flows] == [(503, ("NC",), True)]


async def test_it_stands_beside_the_prediction_in_answers_and_runbooks(prometheus: Prometheus, tmp_path: Path) -> None:
    (tmp_path / "east.yaml").write_text(OBJECTS)
    registered = RegisteredCluster(name="east", path=tmp_path / "east.yaml", prometheus=place(prometheus.url))
    clusters = Clusters([ClusterSource.registered(registered)], once=True)
    await clusters.run()
    meshes = Meshes.of(clusters.clusters(), time.time())
    (asked,) = asking.probing(asking.registered(clusters))(diagnosis.why(DESTINATION, meshes), meshes)
    seen = await asked.read()
    answer = diagnosis.why(DESTINATION, meshes, seen)
    (told,) = answer.traffic
    assert (told.low, told.agrees) == (0.95, True)
    assert told.sentence.startswith("predicted 95 %, measured 95 % of ")
    assert " calls a second over 5 min, since " in told.sentence
    assert told.sentence.endswith("most with 503 UH, callers web.shop, api.other")
    assert [s.said for s in runbook.steps(answer, seen) if s.id == "traffic"] == [told.sentence]
    assert ("✓", f"east: {told.sentence} ({told.source})") in words.seen(msgspec.to_builtins(answer))


# --- what cannot be read -----------------------------------------------------------------------------------------------------


async def told(answer: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None, **more: Any) -> Evidence:
    """What is told of a server that answers like this."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        return await probe.read(place(f"http{'s' if tls else ''}://{host}:{port}", **more), "east", probe.Asked("x", ("x",)))
    finally:
        await runner.cleanup()


def api(status: int, kind: str, error: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": error}, status=status)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: api(400, "bad_data", "parse error"), "refuses the query (HTTP 400: bad_data parse error)"),
        (lambda: web.Response(status=401, text="no"), "does not know who asks"),
        (lambda: web.Response(status=403, text="no"), "may not query it (HTTP 403)"),
        (lambda: web.Response(status=404, text="no"), "there is no Prometheus API at prometheus.url"),
        (lambda: web.Response(status=429, text="slow down"), "is asked too much (HTTP 429)"),
        (lambda: api(503, "timeout", "query timed out"), "(HTTP 503: timeout query timed out)"),
        (lambda: web.Response(text="<html>Log in</html>", content_type="text/html"), "a web page, as a login"),
        (lambda: web.Response(status=302, headers={"Location": "https://login.example"}), "(HTTP 302)"),
        (lambda: web.Response(text='{"status": "success", "data": {"resultType": "vector", "result": [{'), "answers no JSON"),
        (lambda: web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}}), "answers a scalar"),
        (
            lambda: web.json_response({"status": "success", "data": {"resultType": "vector", "result": [{"metric": 3}]}}),
            "not what Prometheus",
        ),
        (lambda: web.Response(body=b" " * 2_000_000), "longer than 1 MB"),
        (
            lambda: web.json_response({"status": "success", "data": {"resultType": "vector", "result": [{}] * 5_001}}),
            "has 5,001 series, more than 5,000",
        ),
    ],
)
async def test_an_answer_that_is_none_is_skipped_with_what_it_was(
    answer: Callable[[], web.Response], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "MAX_BYTES", 1 << 20)

    async def answered(_: web.Request) -> web.Response:
        return answer()

    found = await told(answered)
    assert found.traffic == ()
    (skipped,) = found.skipped
    assert (skipped.check, skipped.cluster) == ("prometheus", "east")
    assert said in skipped.reason


async def test_one_that_hangs_or_is_not_there_costs_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WITHIN_S", 0.2)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    assert "did not answer everything within 0.2 s" in (await told(hang)).skipped[0].reason
    gone = await probe.read(place("http://127.0.0.1:1"), "east", probe.Asked("x", ("x",)))
    assert gone.skipped[0].reason == "Prometheus 127.0.0.1:1 was not read: no connection (Connection refused)"


async def test_who_asks_is_told_in_headers_and_only_two_paths_are_asked_by_get(tmp_path: Path) -> None:
    asked: list[web.Request] = []

    async def note(request: web.Request) -> web.Response:
        asked.append(request)
        empty = {"status": "success", "data": {"resultType": "vector", "result": []}, "warnings": ["store-3 is gone"]}
        result = [{"metric": {}, "value": [1.0, "7"]}] if request.query["query"].startswith("count") else []
        return web.json_response({**empty, "data": {"resultType": "vector", "result": result}})

    (tmp_path / "password").write_text("hush\n")
    who = {"user": "mesh", "password": {"file": str(tmp_path / "password")}}
    found = await told(note, headers={"X-Scope-OrgID": "tenant-1"}, basic=who)
    assert {r.headers["X-Scope-OrgID"] for r in asked} == {"tenant-1"}
    assert {(r.method, r.path) for r in asked} == {("GET", "/api/v1/query")}
    assert all(r.headers["Authorization"].startswith("Basic ") for r in asked)
    assert found.traffic[0].flows == ()
    assert [s.reason for s in found.skipped] == ["Prometheus 127.0.0.1:" + str(asked[0].url.port) + " answered in part: store-3 is gone"]
    assert set(probe.Request) == {"/api/v1/query", "/api/v1/query_range"}


async def test_a_certificate_says_who_asks_and_a_ca_who_answers(tmp_path: Path) -> None:
    pem, own = (Path(__file__).with_name(name) for name in ("apiserver.pem", "prometheus-client.pem"))
    wants = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own)
    wants.load_cert_chain(pem)
    wants.verify_mode = ssl.CERT_REQUIRED

    async def one(_: web.Request) -> web.Response:
        result = [{"metric": {}, "value": [1.0, "7"]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    known = await told(one, wants, ca=pem, certificate=own, key=own)
    assert known.skipped == ()
    reasons = [(await told(one, wants, **more)).skipped[0].reason for more in ({"ca": pem}, {}, {"ca": tmp_path / "gone.pem"})]
    assert [r.partition("was not read: ")[2].partition(" (")[0] for r in reasons] == [
        "its answer broke off",
        "its certificate is not trusted",
        "its ca, certificate or key cannot be used",
    ]


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_whatever_a_name_holds_it_stays_inside_its_string(text: str) -> None:
    made = probe.quoted(probe.literal(text))
    assert made[0] == made[-1] == '"'
    assert not set(made[1:-1]) & set('"\n\x00')
    assert "\\" not in made[1:-1].replace("\\x5c", "")


# --- since when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "calls", "at"),
    [
        ([0.0] * 40 + [0.95] * 20, 100, 40),
        ([0.01] * 40 + [0.95] * 20, 100, 40),
        ([0.0] * 40 + [0.05] * 20, 100, 40),
        ([0.0] * 20 + [0.9] * 10 + [0.0] * 15 + [0.9] * 15, 50, 45),
        ([0.0] * 20 + [0.9] * 10 + [0.0] * 30, 50, None),
        ([0.0] * 20 + [0.9] * 20 + [0.7] * 20, 50, 20),
        ([0.0] * 59 + [1.0], 100, 59),
        ([0.3] * 60, 100, None),
        ([0.0] * 60, 100, None),
        ([0.0] * 58 + [0.5] * 2, 1, None),
        ([], 100, None),
    ],
)
def test_since_when_is_the_last_time_that_it_clearly_rose(shares: list[float], calls: int, at: int | None) -> None:
    assert probe.rose([s * calls for s in shares], [float(calls)] * len(shares)) == at


def test_where_nobody_called_before_it_began_with_the_first_call() -> None:
    assert probe.rose([0.0] * 10 + [5.0] * 10, [0.0] * 10 + [5.0] * 10) == 10


# --- saved -------------------------------------------------------------------------------------------------------------------


def vector(*counts: tuple[dict[str, str], float]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1_795_269_600.0, str(n)]} for labels, n in counts]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_what_was_recorded_is_read_as_it_was_told(tmp_path: Path) -> None:
    labels = dict(prometheuses.labels("web", "shop", named("cart.shop"), 503, "URX,UF"))
    one = {"host": named("cart.shop"), "answers": {"requests": vector((labels, 30.0))}, "since": 1_795_269_000.0}
    (tmp_path / "prometheus.json").write_text(json.dumps([one, {**one, "host": named("db.shop")}]))
    found = saved.read(tmp_path, cluster="east")
    assert [(t.cluster, t.host, t.window_s, t.since, t.read_at) for t in found.traffic] == [
        ("east", named("cart.shop"), 300, 1_795_269_000.0, 1_795_269_600.0),
        ("east", named("db.shop"), 300, 1_795_269_000.0, 1_795_269_600.0),
    ]
    assert found.traffic[0].flows == (Flow("web", "shop", 503, ("URX", "UF"), 0.1),)
    assert found.traffic[1].flows == ()


@pytest.mark.parametrize("body", [b"", b"{", b"[]x", b'{"host": "x"}', b'{"host": "x", "answers": {"requests": {"status": "error"}}}'])
def test_what_is_no_record_is_skipped(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "prometheus.json").write_bytes(body)
    found = saved.read(tmp_path, cluster="east")
    assert found.traffic == ()
    assert [s.check for s in found.skipped] == ["prometheus"]
