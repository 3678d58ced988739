"""What checks of evidence say of other incidents than their scenarios': the same clusters, read otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from checks import diagnosis
from checks.control import TRIGGERED
from checks.evidence import (
    EJECTED,
    Access,
    AccessLog,
    EnvoyView,
    Evidence,
    Flow,
    IstiodView,
    LiveCluster,
    LiveHost,
    LiveRoutes,
    LiveRule,
    LiveVirtualHost,
    LogLine,
    ProxySync,
    ShardEndpoint,
    Traffic,
)
from checks.mesh import Change
from checks.resources import EndpointSlice, Pod
from tests import test_live, test_scenarios

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh

WEB = ("east", "client", "web-stqq48z9kk-c4xhp")
FIRST, SECOND = "10.10.1.6:8080", "10.10.2.7:8080"
REFUSED = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
AT = 1_000_000.0


def cluster(host: str, port: int = 80, subset: str = "") -> str:
    return f"outbound|{port}|{subset}|{host}.shop.svc.cluster.local"


def log(name: str, *calls: Access, pod: tuple[str, str, str] = WEB) -> Evidence:
    """A log in which every call is of one Envoy cluster."""
    accesses = tuple(replace(c, envoy_cluster=c.envoy_cluster or name, line=f"call {i}") for i, c in enumerate(calls))
    return Evidence(logs=(AccessLog(*pod, "istio-proxy", accesses, sum(c.count for c in calls), 0.0, AT, "a log"),))


def call(count: int, code: int, flags: str = "", details: str = "via_upstream", upstream: str = FIRST, last: float = AT) -> Access:
    return Access(count, last, last, code, tuple(flags.split(",")) if flags else (), details=details, upstream=upstream)


def envoy(*clusters: LiveCluster, pod: tuple[str, str, str] = WEB, **more: Any) -> Evidence:
    return Evidence(envoys=(EnvoyView(*pod, {c.name: c for c in clusters}, None, AT, "an address", **more),))


def istiod(**said: Any) -> Evidence:
    return Evidence(istiods=(IstiodView("east", "istio-system", "istiod-d628zbjm8x-kg8dt", "1.28.0", "default", AT, "an address", **said),))


def why(scenario: str, evidence: Evidence, mesh: Mesh | None = None) -> Diagnosis:
    return diagnosis.why(test_live.expected(scenario)["host"], (mesh,) if mesh is not None else test_live.meshes(scenario), evidence)


def causes(found: Diagnosis) -> list[tuple[str, float]]:
    return [(f.cause, round(f.failing_share, 3)) for f in found.findings]


def changed(scenario: str, *objects: Any) -> Mesh:
    (mesh,) = test_live.meshes(scenario)
    return mesh.apply([Change("east", type(o), o.namespace, o.name, o) for o in objects])


def pods(scenario: str, app: str) -> Iterable[Pod]:
    (mesh,) = test_live.meshes(scenario)
    return [p for p in mesh.clusters[0].ordered(Pod, "shop") if p.labels.get("app") == app]


# --- what the objects explain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario", ["subset-all-notready", "pods-all-notready", "workload-scaled-zero", "subset-undefined", "mtls-to-plain"]
)
def test_what_the_objects_explain_is_told_once_and_by_its_nearest_cause(scenario: str) -> None:
    """Every Envoy of the callers says that all hosts are ejected, and every log that each call fails."""
    before = test_scenarios.diagnosed(scenario)
    found: list[Evidence] = []
    for mesh in test_scenarios.meshes(scenario):
        for c in mesh.clusters:
            for p in c.all(Pod):
                where = (c.name, p.namespace, p.name)
                names = {d.envoy_cluster for r in before.routes for d in r.destinations if not d.usable or scenario == "mtls-to-plain"}
                found += [envoy(*(LiveCluster(n, (LiveHost(FIRST, usable=False, reason=EJECTED),)) for n in names), pod=where)]
                found += [log(n, call(9, 503, "UF", REFUSED), pod=where) for n in names]
    after = diagnosis.why(before.host, test_scenarios.meshes(scenario), sum(found, Evidence()))
    assert [(f.cause, f.resource) for f in after.findings] == [(f.cause, f.resource) for f in before.findings]
    assert after.verdict == before.verdict


def test_of_two_destinations_only_the_one_that_the_objects_do_not_explain_is_told_of() -> None:
    """v1 has nobody by the objects, and v2's hosts are ejected."""
    (mesh,) = test_scenarios.meshes("subset-all-notready")
    hosts = tuple(LiveHost(at, usable=False, reason=EJECTED) for at in ("10.10.1.6:8080", "10.10.2.7:8080"))
    web = next(p for p in mesh.clusters[0].all(Pod) if p.namespace == "client")
    read = envoy(LiveCluster(cluster("cart", subset="v1"), hosts, panic_threshold=0.0), pod=("east", "client", web.name))
    found = diagnosis.why("cart.shop", (mesh,), read)
    assert sorted(causes(found)) == [("outlier-eject-all", 0.8), ("subset-all-notready", 0.2)]


# --- an instant -------------------------------------------------------------------------------------------------------------------


def test_endpoints_that_changed_a_moment_ago_are_on_their_way() -> None:
    (mesh,) = test_live.meshes("eds-stale-shard")
    slice_ = next(s for s in mesh.clusters[0].ordered(EndpointSlice, "shop"))
    read = istiod(shards={"catalog.shop.svc.cluster.local": (ShardEndpoint(FIRST, "east"),)})
    assert causes(why("eds-stale-shard", read)) == [("eds-stale-shard", 0.0)]
    for at, wanted in (("1970-01-12T13:46:35Z", []), ("1970-01-12T13:30:00Z", ["eds-stale-shard"])):  # 5 s and 17 min before it was read
        meta = replace(slice_.metadata, annotations={TRIGGERED: at})
        fresh = changed("eds-stale-shard", replace(slice_, metadata=meta))
        assert [c for c, _ in causes(why("eds-stale-shard", read, fresh))] == wanted


def test_an_istiod_that_takes_a_pod_for_ready_that_is_not_is_stale_as_well() -> None:
    (mesh,) = test_live.meshes("eds-stale-shard")
    slice_ = next(s for s in mesh.clusters[0].ordered(EndpointSlice, "shop"))
    one, other = slice_.endpoints or ()
    unready = changed(
        "eds-stale-shard", replace(slice_, endpoints=(one, replace(other, conditions=replace(other.conditions, ready=False))))
    )
    read = istiod(shards={"catalog.shop.svc.cluster.local": tuple(ShardEndpoint(at, "east") for at in (FIRST, SECOND))})
    assert ("eds-stale-shard", 0.5) in causes(why("eds-stale-shard", read, unready))
    assert causes(why("eds-stale-shard", read)) == []


def test_a_cluster_that_was_announced_a_moment_ago_is_no_cause() -> None:
    name = cluster("wallet")
    for at, wanted in (("1970-01-12T13:46:37Z", []), ("1970-01-12T13:46:00Z", [("eds-warming", 1.0)])):  # 3 s and 40 s before it was read
        read = envoy(LiveCluster(name, present=False, warming=True, last_updated=at))
        assert causes(why("eds-warming", read)) == wanted


def test_calls_that_have_gone_well_for_a_while_say_that_it_is_over() -> None:
    name = cluster("checkout")
    overflow = "upstream_reset_before_response_started{overflow}"
    now = log(name, call(3, 503, "UO", overflow, ""), call(9, 200))
    over = log(name, call(3, 503, "UO", overflow, "", last=AT - 300), call(9, 200))
    assert causes(why("circuit-breaker-overflow", now)) == [("circuit-breaker-overflow", 0.25)]
    assert causes(why("circuit-breaker-overflow", over)) == []


def test_what_fails_on_any_day_is_no_cause() -> None:
    overflow = "upstream_reset_before_response_started{overflow}"
    few, rare, all_ = (
        (call(2, 503, "UO", overflow, ""), call(9, 200)),
        (call(9, 503, "UO", overflow, ""), call(1000, 200)),
        (call(2, 503, "UO", overflow, ""),),
    )
    for calls, wanted in ((few, []), (rare, []), (all_, [("circuit-breaker-overflow", 1.0)])):
        assert causes(why("circuit-breaker-overflow", log(cluster("checkout"), *calls))) == wanted


def test_of_a_proxy_that_was_read_twice_the_last_reading_counts_and_counts_once() -> None:
    name = cluster("payments")
    ejected = LiveCluster(name, tuple(LiveHost(at, usable=False, reason=EJECTED) for at in (FIRST, SECOND)), panic_threshold=0.0)
    well = LiveCluster(name, tuple(LiveHost(at, usable=True) for at in (FIRST, SECOND)), panic_threshold=0.0)
    (now,), (before,) = envoy(ejected).envoys, envoy(well).envoys
    for views in ((now, replace(before, read_at=AT - 9)), (replace(before, read_at=AT - 9), now), (now, now)):
        assert causes(why("outlier-eject-all", Evidence(envoys=views))) == [("outlier-eject-all", 1.0)]
    assert causes(why("outlier-eject-all", Evidence(envoys=(replace(now, read_at=AT - 9), before)))) == []


# --- told apart -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "probe", "wanted"),
    [
        ((8080,), 8080, "app-on-localhost-or-slow"),
        ((9000,), 8080, "targetport-wrong-number"),
        ((), 8080, "app-on-localhost-or-slow"),
        ((), 9000, "targetport-wrong-number"),
        ((), 0, None),
        ((), 15020, None),
    ],
)
def test_a_refused_port_is_told_by_what_the_pod_says_of_its_ports(ports: tuple[int, ...], probe: int, wanted: str | None) -> None:
    """A caller with a sidecar, and servers that have none: only the caller's log tells."""
    bare = []
    for p in pods("app-on-localhost-or-slow", "payments"):
        (app,) = p.spec.containers
        said = tuple(replace(app.ports[0], container_port=n) for n in ports) if app.ports else ()
        probing = replace(app.readiness_probe, http_get=replace(app.readiness_probe.http_get, port=probe)) if probe else None  # type: ignore[union-attr, type-var]
        spec = replace(p.spec, init_containers=None, containers=(replace(app, ports=said or None, readiness_probe=probing),))
        labels = {k: v for k, v in p.labels.items() if k != "security.istio.io/tlsMode"}
        bare.append(replace(p, spec=spec, metadata=replace(p.metadata, annotations=None, labels=labels)))
    mesh = changed("app-on-localhost-or-slow", *bare)
    found = why("app-on-localhost-or-slow", log(cluster("payments"), call(3, 503, "UF", REFUSED), call(9, 200, upstream=SECOND)), mesh)
    assert causes(found) == ([(wanted, 0.25)] if wanted else [])


def test_a_sidecar_refuses_nobody_so_that_what_its_caller_was_refused_tells_nothing() -> None:
    assert causes(why("app-on-localhost-or-slow", log(cluster("payments"), call(4, 503, "UF", REFUSED)))) == []


@pytest.mark.parametrize(
    ("scenario", "wanted"), [("circuit-breaker-overflow", 0.25), ("retry-overflow", 0.25), ("outlier-eject-all", None)]
)
def test_prometheus_tells_of_a_limit_where_only_one_is_set(scenario: str, wanted: float | None) -> None:
    host = f"{test_live.expected(scenario)['host']}.svc.cluster.local"
    flows = (Flow("web", "client", 503, ("UO",), 1.0), Flow("web", "client", 200, (), 3.0))
    read = Evidence(traffic=(Traffic("east", host, 300.0, flows, None, AT, "an address"),))
    assert causes(why(scenario, read)) == ([(scenario, wanted)] if wanted else [])


def test_another_root_in_the_callers_own_cluster_is_a_rotation_and_elsewhere_a_mismatch() -> None:
    said = "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268436504:SSL_routines:TLSV1_ALERT_UNKNOWN_CA}"
    home = log(cluster("tickets"), call(4, 503, "UF", said))
    assert causes(why("cert-expired-or-root-rotated", home)) == [("cert-expired-or-root-rotated", 1.0)]
    far = log(cluster("cart"), call(4, 503, "UF", said, "10.20.1.6:8080"))
    assert causes(why("trust-mismatch", far)) == [("trust-mismatch", 1.0)]


def test_an_identity_of_another_trust_domain_is_a_mismatch_between_clusters() -> None:
    sans = "CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_SAN_matcher,_certificate_SANs_are_[spiffe://west.example/ns/shop/sa/cart]:TLS_error_end"
    found = why("trust-mismatch", log(cluster("cart"), call(4, 503, "UF", sans, "10.20.1.6:8080")))
    assert causes(found) == [("trust-mismatch", 1.0)]
    assert "spiffe://west.example/ns/shop/sa/cart" in found.findings[0].message


def test_some_answers_that_are_no_http_are_the_apps_mistakes_and_all_of_them_the_ports() -> None:
    said = "upstream_reset_before_response_started{protocol_error}"
    name = cluster("rates")
    assert causes(why("protocol-misdeclared", log(name, call(6, 502, "UPE", said)))) == [("protocol-misdeclared", 1.0)]
    some = causes(why("protocol-misdeclared", log(name, call(6, 502, "UPE", said), call(1, 200))))
    assert "protocol-misdeclared" not in [c for c, _ in some]


# --- fewer and other readings -----------------------------------------------------------------------------------------------------


def test_a_cluster_that_istiod_does_not_watch_is_enough_without_its_endpoints() -> None:
    assert causes(why("remote-secret-missing", istiod(remotes={"east": "synced"}))) == [("remote-secret-missing", 1.0)]
    assert causes(why("remote-secret-missing", istiod(remotes={"east": "synced", "west": "timeout"}))) == [("remote-sync-timeout", 1.0)]
    assert causes(why("remote-secret-missing", istiod(remotes={"east": "synced", "west": "synced"}))) == []


def test_a_proxy_may_say_itself_that_it_is_connected_to_nobody() -> None:
    whole = LiveCluster(cluster("basket"), tuple(LiveHost(at, usable=True) for at in (FIRST, SECOND)), panic_threshold=0.0)
    for state, wanted in ((0.0, [("proxy-disconnected", 0.0)]), (1.0, [])):
        assert causes(why("proxy-disconnected", envoy(whole, stats={"control_plane.connected_state": state}))) == wanted


def test_a_difference_that_nothing_explains_is_no_cause() -> None:
    old = LiveCluster(cluster("orders"), (LiveHost("10.10.9.9:8080", usable=True),), panic_threshold=0.0)
    assert causes(why("proxy-stale", envoy(old))) == []


@pytest.mark.parametrize(("state", "alive", "wanted"), [("STALE", False, 1.0), ("STALE", True, 0.0), ("SYNCED", False, None)])
def test_a_rule_of_the_past_is_told_where_the_proxy_has_not_acknowledged_a_newer_one(
    state: str, *, alive: bool, wanted: float | None
) -> None:
    here = tuple(LiveHost(at, usable=True) for at in (FIRST, SECOND))
    now, before = LiveCluster(cluster("orders"), here, panic_threshold=0.0), LiveCluster(cluster("orders-v0"), here, panic_threshold=0.0)
    rule = LiveVirtualHost("orders.shop.svc.cluster.local:80", ("orders.shop.svc.cluster.local",), (LiveRule(((before.name, 1.0),)),))
    view = EnvoyView(*WEB, {c.name: c for c in ((now, before) if alive else (now,))}, (LiveRoutes("80", (rule,)),), AT, "an address")
    sync = ProxySync("web-stqq48z9kk-c4xhp.client", "east", "1.28.0", {"CDS": "SYNCED", "EDS": "SYNCED", "RDS": state})
    found = why("proxy-stale", Evidence(envoys=(view,)) + istiod(proxies={sync.proxy: sync}))
    assert causes(found) == ([("proxy-stale", wanted)] if wanted is not None else [])
    assert all("orders-v0" in " ".join(f.evidence) for f in found.findings)


def test_ztunnel_says_that_port_15008_gives_no_answer() -> None:
    text = (
        'error access connection complete src.workload="web-x" dst.addr=10.10.2.7:15008 dst.hbone_addr=10.10.2.7:8080 '
        'dst.service="payments.shop.svc.cluster.local" '
        'error="connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed"'
    )
    where = ("east", "istio-system", "ztunnel-4kd8w")
    read = Evidence(logs=(AccessLog(*where, "istio-proxy", (), 0, 0.0, AT, "a log", other=(LogLine(AT, text),)),))
    found = why("ztunnel-absent-or-15008-blocked__healthy", read)
    assert causes(found) == [("ztunnel-absent-or-15008-blocked", 0.5)]
    assert "15008" in found.findings[0].message
