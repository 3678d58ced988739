"""Saved evidence of proxies, istiods and ztunnels, and what each of their answers means."""

from __future__ import annotations

import json
import re
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.probes import envoy, exposition, istiod, saved, ztunnel
from bot.probes.admin import NotRead
from bot.probes.files import File
from tests import istiods
from tests.envoys import DESTINATION, V1, out
from tests.istiods import endpoint, shardz, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.envoys import Mesh


def written(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def packed(directory: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz") as tar:
        tar.add(directory, "bug-report")
    return to


ISTIOD: dict[str, str | bytes] = {
    "debug/syncz": json.dumps([sync("web-7f.shop", CDS=("a", "a"), EDS=("b", "a"))]),
    "debug/endpointShardz": shardz({DESTINATION: {"Kubernetes/east": [endpoint("10.1.0.7")]}}),
    "debug/push_status": json.dumps({"pilot_eds_no_instances": {V1: {"proxy": "web-7f.shop", "message": "no instances"}}}),
    "debug/clusterz": json.dumps([{"id": "west", "secretName": "istio-system/west", "syncStatus": "timeout"}]),
    "metrics": istiods.METRICS % {"rejects": 2, "pushes": 9},
    "discovery.log": istiods.LOG,
}

ZTUNNEL = json.dumps(
    {
        "workloads": [
            {"uid": "u1", "workloadIps": ["10.1.0.7"], "name": "a", "namespace": "shop", "node": "n1", "status": "Healthy"},
            {"uid": "u2", "workloadIps": ["fd00::8"], "name": "b", "namespace": "shop", "node": "n1", "status": "Unhealthy"},
            {"uid": "u3", "workloadIps": ["10.1.0.9"], "name": "ztunnel-x", "namespace": "istio-system", "node": "n2", "status": "Healthy"},
        ],
        "services": [
            {
                "hostname": "web.shop",
                "endpoints": {"u1:": {"workloadUid": "u1", "port": {"80": 8080}}, "u2:": {"workloadUid": "u2", "port": {"80": 8080}}},
            },
            {
                "hostname": "all.shop",
                "endpoints": {"u2:": {"workloadUid": "u2", "port": {"80": 8080}}},
                "loadBalancer": {"mode": "Standard", "routingPreferences": [], "healthPolicy": "AllowAll"},
            },
            {"hostname": "gone.shop", "endpoints": {"u9:": {"workloadUid": "u9", "port": {"80": 8080}}}},
            {"hostname": "none.shop", "endpoints": {}},
        ],
        "policies": [],
        "certificates": [],
    }
)


def test_a_bug_report_says_what_its_proxies_and_istiods_said(mesh_envoy: Mesh, tmp_path: Path) -> None:
    report = tmp_path / "x" / "bug-report"
    mesh_envoy.save(report / "proxies" / "shop" / "web-7f", form="text")
    written(report, {f"istio/istio-system/istiod-1/{name}": content for name, content in ISTIOD.items()})
    written(report, {"proxies/istio-system/ztunnel-x/config_dump": ZTUNNEL, "cluster/k8s-resources": "kind: List", "versions": "x"})
    found = saved.read(report, cluster="east")
    assert found.skipped == ()
    for again in (report.parent, packed(report, tmp_path / "bug-report.tar.gz")):
        other = saved.read(again, cluster="east")
        assert other.skipped == ()
        assert [(v.pod, v.clusters, v.routes, v.stats) for v in other.envoys] == [
            (v.pod, v.clusters, v.routes, v.stats) for v in found.envoys
        ]
        assert [(v.pod, v.proxies, v.shards, v.metrics) for v in other.istiods] == [
            (v.pod, v.proxies, v.shards, v.metrics) for v in found.istiods
        ]
        assert [(v.pod, v.usable) for v in other.ztunnels] == [(v.pod, v.usable) for v in found.ztunnels]

    (view,) = found.envoys
    assert (view.namespace, view.pod, view.awaited) == ("shop", "web-7f", ("kubernetes://absent",))
    assert view.certificates is not None
    assert {(c.ca, c.expires[:2]) for c in view.certificates} == {(True, "21"), (False, "21")}
    assert view.clusters[V1].hosts == ()
    (replica,) = found.istiods
    assert (replica.pod, replica.version, replica.remotes, replica.growth) == ("istiod-1", "1.27.1", {"west": "timeout"}, None)
    assert replica.proxies is not None
    assert replica.proxies["web-7f.shop"].states == {"CDS": "SYNCED", "EDS": "STALE"}
    assert replica.status == {"pilot_eds_no_instances": {V1: "no instances"}}
    assert [z.node for z in found.ztunnels] == ["n2"]


def test_statistics_are_the_same_in_both_forms_and_bear_the_clusters_own_names(mesh_envoy: Mesh) -> None:
    assert mesh_envoy.call("destination") in {200, 503}
    where = envoy.Where("east", "shop", "web-7f", "x")
    asked, scraped = envoy.Seen(where), envoy.Seen(where)
    asked.statistics(mesh_envoy.envoy.ask(envoy.Request.STATS).encode(), "stats")
    scraped.scraped(mesh_envoy.envoy.ask("/stats/prometheus").encode())
    told = asked.view(0.0).stats
    assert told is not None
    assert told[f"cluster.{out('ejected')}.outlier_detection.ejections_active"] == 1
    assert told["cluster_manager.warming_clusters"] == 2
    more = scraped.view(0.0).stats
    assert more is not None
    steady = [
        key for key in told if not key.endswith(("update_attempt", "update_failure", "server.uptime", "connect_fail", "connect_timeout"))
    ]
    assert {key: told[key] for key in steady} == {key: more.get(key) for key in steady}


def test_a_name_that_istio_counts_under_is_the_clusters_own_again() -> None:
    def configured(name: str, alt: str) -> dict[str, Any]:
        return {"cluster": {"name": name, "alt_stat_name": alt}}

    several = [configured("a|1", "svc"), configured("b|1", "both"), configured("b|2", "both"), configured("c|1", "c|1;")]
    seen = envoy.Seen(envoy.Where("east", "shop", "web-7f", "x"), hosts={})
    seen.dump(envoy._DUMP.decode(json.dumps({"configs": [{"@type": "x.ClustersConfigDump", "dynamic_active_clusters": several}]})).configs)
    names = ("svc", "both", "c|1;", "d|1;")
    seen.statistics(json.dumps({"stats": [{"name": f"cluster.{name}.update_empty", "value": 1} for name in names]}).encode(), "stats")
    assert list(seen.view(0.0).stats or ()) == [f"cluster.{name}.update_empty" for name in ("a|1", "both", "c|1", "d|1")]


def test_certificates_are_named_by_their_identity_and_roots_told_apart() -> None:
    held = {
        "path": "<inline>",
        "subject_alt_names": [{"uri": "spiffe://cluster.local/ns/shop/sa/web"}],
        "valid_from": "a",
        "expiration_time": "b",
    }
    root = {"path": "./root.pem", "valid_from": "c", "expiration_time": "d", "days_until_expiration": "3650"}
    seen = envoy.Seen(envoy.Where("east", "shop", "web-7f", "x"), hosts={})
    seen.certify(json.dumps({"certificates": [{"ca_cert": [root], "cert_chain": [held]}]}).encode())
    assert seen.certificates is not None
    assert [(c.name, c.expires, c.ca) for c in seen.certificates] == [
        ("./root.pem", "d", True),
        ("spiffe://cluster.local/ns/shop/sa/web", "b", False),
    ]


def test_what_was_read_when_stands_in_the_folder(tmp_path: Path) -> None:
    files = {
        f"istiod/istio-system/istiod-1/{name.removeprefix('debug/')}.json": ISTIOD[name] for name in ISTIOD if name.startswith("debug")
    }
    more = {
        "istiod/istio-system/istiod-1/metrics.txt": istiods.METRICS % {"rejects": 5, "pushes": 9},
        "istiod/istio-system/istiod-1/metrics.before.txt": istiods.METRICS % {"rejects": 2, "pushes": 12},
        "istiod/istio-system/istiod-1/version.json": '{"version": "1.26.0", "revision": "canary", "over_s": 60}',
        "ztunnel/istio-system/ztunnel-x/config_dump.json": ZTUNNEL,
        "read_at": "2026-11-22T14:02:00Z\n",
    }
    found = saved.read(written(tmp_path, {**files, **more}), cluster="east")
    assert found.skipped == ()
    (replica,), (tunnel,) = found.istiods, found.ztunnels
    assert (replica.version, replica.revision, replica.over_s) == ("1.26.0", "canary", 60)
    assert replica.read_at == tunnel.read_at == 1795356120
    assert replica.shards is not None
    assert [(e.address, e.shard, e.health, e.port_name) for e in replica.shards[DESTINATION]] == [
        ("10.1.0.7:8080", "east", "Healthy", "http")
    ]
    assert replica.growth is not None
    assert replica.growth['pilot_total_xds_rejects{type="cds"}'] == 3
    assert replica.growth["pilot_proxy_convergence_time_count"] == 9  # it was restarted between the two
    assert "pilot_eds_no_instances" not in replica.growth
    assert replica.metrics is not None
    assert "go_goroutines" not in replica.metrics


def test_what_cannot_be_read_is_skipped_and_the_rest_is_kept(mesh_envoy: Mesh, tmp_path: Path) -> None:
    mesh_envoy.save(tmp_path / "proxies" / "shop" / "web-7f")
    mesh_envoy.save(tmp_path / "proxies" / "shop" / "web-8")  # the dump of another pod
    written(tmp_path, {"proxies/shop/web-7f/certs.json": "<html>", "proxies/shop/half/clusters.json": '{"cluster_statuses": [{'})
    written(tmp_path, {"istio/istio-system/istiod-1/debug/syncz": "401", "istio/istio-system/istiod-1/metrics": ISTIOD["metrics"]})
    found = saved.read(tmp_path, cluster="east")
    assert [v.pod for v in found.envoys] == ["web-7f"]
    assert [(v.pod, v.proxies, v.metrics is None) for v in found.istiods] == [("istiod-1", None, False)]
    reasons = "\n".join(s.reason for s in found.skipped)
    assert re.search(r"certs.json is not what an Envoy answers", reasons)
    assert "is the Envoy of web-7f.shop" in reasons
    assert "a part of istiod istiod-1.istio-system was not read" in reasons
    assert {s.cluster for s in found.skipped} == {"east"}


def test_a_path_that_is_not_there_is_skipped(tmp_path: Path) -> None:
    found = saved.read(tmp_path / "absent", cluster="east")
    assert not found
    assert "No such file or directory" in found.skipped[0].reason
    assert not saved.read(written(tmp_path, {"east.yaml": "kind: Pod"}), cluster="east").skipped


@pytest.mark.parametrize("bound", ["MAX_PODS", "MAX_TOTAL"])
def test_of_very_many_pods_some_are_read_and_the_rest_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(saved, bound, 1)
    clusters = "a::added_via_api::true\n"
    found = saved.read(written(tmp_path, {f"proxies/shop/web-{n}/clusters": clusters for n in range(3)}), cluster="east")
    assert [v.pod for v in found.envoys] == ["web-0"]
    assert f"{tmp_path} has 2 more pods than those that were read of it" in {s.reason for s in found.skipped}


# --- istiod ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "state", "error"),
    [
        (("a", "a"), "SYNCED", ""),
        (("a", ""), "STALE", ""),
        (("b", "a"), "STALE", ""),
        (("", ""), "NOT_SENT", ""),
        (("b", "a", "bad cluster"), "ERROR", "CDS: bad cluster"),
    ],
)
def test_a_proxys_state_is_what_proxy_status_says(said: tuple[str, str], state: str, error: str) -> None:
    found = istiod.proxies(json.dumps([sync("web-7f.shop", CDS=said)]).encode())["web-7f.shop"]
    assert (found.states, found.error, found.cluster, found.version) == ({"CDS": state}, error, "east", "1.27.1")


def test_an_older_istiod_says_it_by_type() -> None:
    old = {
        "proxy": "web-7f.shop",
        "cluster_sent": "a",
        "cluster_acked": "a",
        "endpoint_sent": "b",
        "endpoint_acked": "a",
        "listener_sent": "c",
    }
    assert istiod.proxies(json.dumps([old]).encode())["web-7f.shop"].states == {
        "CDS": "SYNCED",
        "EDS": "STALE",
        "LDS": "STALE",
        "RDS": "NOT_SENT",
    }


HOSTS = {
    DESTINATION: {
        "Kubernetes/east": [endpoint("10.1.0.7"), endpoint("fd00::7", health=2)],
        "Kubernetes/west": [endpoint("10.2.0.7", health=4)],
    },
    "mynamespace": {"External/east": [endpoint("10.9.0.1")]},  # a ServiceEntry's host that is called like a namespace
    "other.mynamespace.svc.cluster.local": {"Kubernetes/east": [endpoint("10.1.0.9")]},
    "*.example.com": {"External/east": []},
}
FOUND = {
    DESTINATION: [("10.1.0.7:8080", "east", "Healthy"), ("[fd00::7]:8080", "east", "UnHealthy"), ("10.2.0.7:8080", "west", "Terminating")],
    "mynamespace": [("10.9.0.1:8080", "east", "Healthy")],
    "*.example.com": [],
    "absent.mynamespace.svc.cluster.local": [],
}


@settings(max_examples=30)
@given(st.integers(1, 700), st.permutations(list(HOSTS)), st.sampled_from([None, 1]))
def test_shards_are_found_however_the_answer_is_cut(piece: int, order: list[str], indent: int | None) -> None:
    body = json.dumps(json.loads(shardz({host: HOSTS[host] for host in order})), indent=indent).encode()
    asked = istiod.Shards(list(FOUND))
    for n in range(0, len(body), piece):
        asked.feed(body[n : n + piece])
    assert {host: [(e.address, e.shard, e.health) for e in found] for host, found in asked.done().items()} == FOUND


@pytest.mark.parametrize("cut", [3, 40, 400])
def test_half_an_answer_is_no_host_without_endpoints(cut: int) -> None:
    asked = istiod.Shards([DESTINATION, "absent.x"])
    asked.feed(shardz({DESTINATION: HOSTS[DESTINATION]})[:-cut])
    with pytest.raises(NotRead, match="broke off"):
        asked.done()


def test_a_host_of_too_many_endpoints_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istiod, "MAX_HOST_BYTES", 1000)
    with pytest.raises(NotRead, match="more than 0 MB of endpoints"):
        istiod.Shards([DESTINATION]).feed(shardz({DESTINATION: {"Kubernetes/east": [endpoint("10.1.0.7")] * 5}})[:-3])


def test_the_lines_of_a_log_that_tell_something_are_kept_with_their_time() -> None:
    found = istiod.lines(istiods.LOG)
    assert [(round(line.at, 3), line.text.split("\t")[-1][:24]) for line in found] == [
        (1795356121.123, "Incremental push, servic"),
        (1795356122.0, "ADS:CDS: ACK ERROR web-7"),
        (1795356123.5, '{"level":"warn","time":"'),
        (0.0, " reflector.go:1: failed "),
    ]


def test_samples_keep_labels_that_hold_braces_and_quotes() -> None:
    found = {s.key: s for s in exposition.samples((istiods.METRICS % {"rejects": 0, "pushes": 1}).encode())}
    assert found['pilot_xds_config_size_bytes_count{type="a}b\\"c"}'].labels == {"type": 'a}b"c'}
    assert found["pilot_proxy_convergence_time_sum"].value == 1.5
    assert [s.name for s in exposition.samples(b'a 1\nb NaN\nc{} 2 1700000000\nd +Inf\nnot a sample\ne{x="1" 3\n')] == ["a", "c", "d"]


# --- ztunnel ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lists", "maps"])
def test_a_ztunnel_sends_to_healthy_workloads_and_to_all_where_the_policy_says_so(form: str) -> None:
    dump = json.loads(ZTUNNEL)
    if form == "maps":  # as older ztunnels write it
        dump = {**dump, "workloads": {w["uid"]: w for w in dump["workloads"]}, "services": {s["hostname"]: s for s in dump["services"]}}
    view = ztunnel.view(json.dumps(dump).encode(), ztunnel.Where("east", "istio-system", "ztunnel-x", "x"), 0.0)
    assert view.usable == {"web.shop": ("10.1.0.7:8080",), "all.shop": ("[fd00::8]:8080",), "gone.shop": (), "none.shop": ()}
    assert view.unusable == {"web.shop": ("[fd00::8]:8080",), "all.shop": (), "gone.shop": ("u9",), "none.shop": ()}
    assert view.workloads == {"10.1.0.7", "fd00::8", "10.1.0.9"}


# --- whatever is answered ---------------------------------------------------------------------------------------------------


OTHER: tuple[Any, ...] = (None, True, -1, 1.5, 1 << 70, "", "x", "2026-02-30T25:61:61Z", "NaN", [], {}, [None], {"a": None})


def mangled(value: Any) -> Iterator[Any]:
    """A JSON value, each time with one other value in it, or with one thing left out."""
    yield from OTHER
    if isinstance(value, dict):
        yield from ({k: v for k, v in value.items() if k != key} for key in value)
        yield from ({**value, key: other} for key, inner in value.items() for other in mangled(inner))
    elif isinstance(value, list):
        yield from ([*value[:n], other, *value[n + 1 :]] for n, inner in enumerate(value) for other in mangled(inner))


HOST = {
    "address": {"socket_address": {"address": "10.1.0.7", "port_value": 80}},
    "stats": [{"name": "cx_total", "value": "7"}, {"type": "GAUGE", "name": "cx_active"}],
    "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
    "weight": 1,
}
ANSWERS: dict[str, Any] = {
    "proxies/a/b/clusters.json": {"cluster_statuses": [{"name": "a|b", "host_statuses": [HOST, HOST]}]},
    "proxies/a/b/config_dump.json": {
        "configs": [
            {
                "@type": "x.ClustersConfigDump",
                "dynamic_active_clusters": [{"cluster": {"name": "a|b", "type": "EDS", "alt_stat_name": "a;"}}],
            },
            {
                "@type": "x.RoutesConfigDump",
                "dynamic_route_configs": [
                    {
                        "route_config": {
                            "virtual_hosts": [{"routes": [{"route": {"weighted_clusters": {"clusters": [{"name": "a|b", "weight": 3}]}}}]}]
                        }
                    }
                ],
            },
        ]
    },
    "proxies/a/b/stats.json": {"stats": [{"name": "cluster.a;.update_empty", "value": 1}, {"histograms": {}}]},
    "proxies/a/b/certs.json": {"certificates": [{"ca_cert": [{"subject_alt_names": [{"uri": "spiffe://a"}], "expiration_time": "x"}]}]},
    "istiod/a/b/syncz.json": [sync("web.shop", CDS=("a", "b", "c"))],
    "istiod/a/b/endpointShardz.json": json.loads(shardz({DESTINATION: {"Kubernetes/east": [endpoint("10.1.0.7")]}})),
    "istiod/a/b/push_status.json": {"m": {"k": {"proxy": "p", "message": "m"}}},
    "istiod/a/b/clusterz.json": [{"id": "west", "syncStatus": "synced"}],
    "istiod/a/b/version.json": {"version": "1.27.1", "revision": "default", "over_s": 60},
    "ztunnel/a/c/config_dump.json": json.loads(ZTUNNEL),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_is_answered_is_read_or_skipped(name: str) -> None:
    for answer in mangled(ANSWERS[name]):
        found = saved._Saved("east", "x")
        if "proxies" in name:
            found.take(File("proxies/a/b/clusters.json", 0.0, b'{"cluster_statuses": []}'))
        found.take(File(name, 0.0, json.dumps(answer).encode()))
        found.evidence()  # raises nothing


@given(
    st.binary(max_size=300),
    st.sampled_from([*ANSWERS, "istiod/a/b/discovery.log", "istiod/a/b/metrics.txt", "proxies/a/b/stats/prometheus", "read_at"]),
)
def test_whatever_bytes_are_answered_are_read_or_skipped(body: bytes, name: str) -> None:
    found = saved._Saved("east", "x")
    found.take(File(name, 0.0, body))
    found.evidence()
    istiod.lines(f"2026-99-30T12:00:00Z has no endpoints {body!r}")


# --- what can be sent ------------------------------------------------------------------------------------------------------

ACTS = re.compile(
    r"push=|clear|force_disconnect|quit|drain|reset|logging|healthcheck|runtime_modify|reopen|cpuprofiler|heapprofiler|pprof|inject|tap|contention|reload|[\r\n# ]|//"
)
"""What acts, or holds more than is needed, at Envoy (docs: operations/admin), istiod (pilot/pkg/xds/debug.go) and ztunnel (src/admin.rs)."""


@pytest.mark.parametrize("request_", [*envoy.Request, *istiod.Request, *ztunnel.Request])
def test_every_request_that_can_be_sent_only_reads(request_: str) -> None:
    assert request_.startswith("/")
    assert not ACTS.search(request_)
    assert "dynamic_active_secrets" not in request_
    assert "bootstrap" not in request_
