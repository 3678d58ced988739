"""What a live Envoy says beside a prediction: one sentence for each destination, and no agreement about what was not seen."""

from __future__ import annotations

import msgspec
import pytest

from checks.agreement import Agreement, Real, agreement, fails, real
from checks.answers import Destination, Endpoint, Route, Viewpoint
from checks.evidence import EnvoyView, Flow, LiveCluster, LiveHost, LiveRoutes, LiveRule, LiveVirtualHost, Traffic

READ_AT = 1795269600.0  # 2026-11-21 14:00:00 UTC
HOST = "cart.shop.svc.cluster.local"
NAME = f"outbound|80||{HOST}"
V1, V2 = f"outbound|80|v1|{HOST}", f"outbound|80|v2|{HOST}"


def host(address: str, reason: str = "", **fields: str) -> LiveHost:
    return LiveHost(address, usable=not reason, reason=reason, **fields)


def view(*clusters: LiveCluster, routes: tuple[LiveRoutes, ...] | None = None) -> EnvoyView:
    return EnvoyView("east", "shop", "web-7f", {c.name: c for c in clusters}, routes, READ_AT, "http://127.0.0.1:15000")


def rules(
    *shares: dict[str, float], config: str = "80", virtual_host: str = f"{HOST}:80", domains: tuple[str, ...] = (HOST,)
) -> tuple[LiveRoutes, ...]:
    return (LiveRoutes(config, (LiveVirtualHost(virtual_host, domains, tuple(LiveRule(tuple(s.items())) for s in shares)),)),)


def endpoints(*addresses: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(a, "healthy") for a in addresses)


def to(name: str = NAME, *predicted: Endpoint, share: float = 1.0, defined: bool = True, usable: bool | None = None) -> Destination:
    healthy = any(e.state == "healthy" for e in predicted)
    return Destination(name, round(share * 100), share, defined, healthy if usable is None else usable, None, predicted)


def route(*destinations: Destination, protocol: str = "http", pod: str | None = "web-7f", kind: str = "sidecar", **viewpoint: str) -> Route:
    return Route(
        msgspec.structs.replace(Viewpoint("east", kind, "shop", pod), **viewpoint),
        HOST,
        80,
        protocol,
        "route",
        None,
        "",
        "",
        0.0,
        destinations,
    )


def one(destination: Destination, live: EnvoyView, **of: str) -> Agreement:
    (only,) = agreement([route(destination, **of)], live)
    return only


def test_an_empty_cluster_is_seen_as_predicted():
    got = one(to(V1, share=0.95), view(LiveCluster(V1)))
    assert got.agrees
    assert got.sentence == f"seen on Envoy web-7f.shop: {V1} has no host, as predicted"
    assert got.source == "http://127.0.0.1:15000, read at 2026-11-21 14:00:00 UTC"
    assert got.viewpoint == Viewpoint("east", "sidecar", "shop", "web-7f")
    assert got.envoy_cluster == V1


def test_the_same_usable_addresses_agree_in_any_order_and_spelling():
    live = view(LiveCluster(NAME, (host("[fd00::1]:80"), host("10.1.0.7:8080"))))
    got = one(to(NAME, *endpoints("10.1.0.7:8080", "fd00:0:0::1:80")), live)
    assert (got.agrees, got.sentence) == (True, f"seen on Envoy web-7f.shop: {NAME} has 2 usable hosts, as predicted")


def test_hosts_that_are_no_longer_listed_are_named_with_the_time_of_the_configuration():
    old = LiveCluster(NAME, (host("10.1.0.8:80"), host("10.1.0.9:80"), host("10.1.0.7:80")), last_updated="2026-11-21T13:02:11.5Z")
    got = one(to(NAME, *endpoints("10.1.0.7:80")), view(old))
    assert not got.agrees
    assert got.sentence == (
        f"Envoy web-7f.shop differs from the prediction: {NAME} still has 2 usable hosts that Kubernetes no longer lists "
        "(10.1.0.8:80, 10.1.0.9:80; its configuration is of 13:02 UTC)"
    )


def test_another_day_is_written_out():
    old = LiveCluster(NAME, (host("10.1.0.8:80"),), last_updated="2026-11-20T23:59:00Z")
    assert "configuration is of 2026-11-20 23:59 UTC" in one(to(NAME), view(old)).sentence


def test_an_endpoint_that_envoy_has_not_heard_of_is_lacking():
    got = one(to(NAME, *endpoints("10.1.0.7:80", "10.1.0.8:80")), view(LiveCluster(NAME, (host("10.1.0.7:80"),))))
    assert (got.agrees, "lacks 1 endpoint that Kubernetes lists as ready (10.1.0.8:80)" in got.sentence) == (False, True)


def test_an_ejected_endpoint_is_told_with_its_reason():
    live = view(LiveCluster(NAME, (host("10.1.0.7:80", "is ejected by outlier detection"), host("10.1.0.8:80"))))
    got = one(to(NAME, *endpoints("10.1.0.7:80", "10.1.0.8:80")), live)
    assert not got.agrees
    assert got.sentence.endswith("does not use 1 endpoint that Kubernetes lists as ready (10.1.0.7:80 is ejected by outlier detection)")


def test_an_unready_endpoint_that_envoy_still_uses_differs():
    unready = Endpoint("10.1.0.7:80", "unhealthy", reason="not ready")
    got = one(to(NAME, unready), view(LiveCluster(NAME, (host("10.1.0.7:80"),))))
    assert (got.agrees, "still sends to 10.1.0.7:80, which Kubernetes says is not ready" in got.sentence) == (False, True)


def test_unready_on_both_sides_agrees_and_says_why():
    unready = Endpoint("10.1.0.7:80", "unhealthy")
    live = view(LiveCluster(NAME, (host("10.1.0.7:80", "is not ready (EDS: UNHEALTHY)"),), panic_threshold=0.0))
    got = one(to(NAME, unready), live)
    assert got.agrees
    assert got.sentence.endswith(f"{NAME} has 1 host, none usable (10.1.0.7:80 is not ready (EDS: UNHEALTHY)), as predicted")


def test_panic_sends_requests_although_no_host_is_usable():
    live = view(LiveCluster(NAME, (host("10.1.0.7:80", "is ejected by outlier detection"),), panic_threshold=50.0))
    got = one(to(NAME, Endpoint("10.1.0.7:80", "unhealthy")), live)
    assert not got.agrees
    assert "but sends to all 1: its panic threshold is 50 %" in got.sentence


def test_many_addresses_are_counted_after_three():
    live = view(LiveCluster(NAME, tuple(host(f"10.1.0.{n}:80") for n in range(9))))
    assert "(10.1.0.0:80, 10.1.0.1:80, 10.1.0.2:80 and 6 more)" in one(to(NAME), live).sentence


def test_a_cluster_that_is_not_pushed_is_absent_on_both_sides():
    assert one(to(NAME, defined=False), view()).sentence == f"seen on Envoy web-7f.shop: {NAME} does not exist (503 NC), as predicted"


def test_a_cluster_that_should_be_there_and_is_not_differs():
    got = one(to(NAME, *endpoints("10.1.0.7:80")), view())
    assert (got.agrees, got.sentence.endswith("does not exist there, so that its requests get 503 NC")) == (False, True)


def test_a_cluster_that_nobody_asks_for_any_more_differs():
    got = one(to(NAME, defined=False), view(LiveCluster(NAME, (host("10.1.0.7:80"),))))
    assert (got.agrees, "exists there, with 1 usable host, although no object asks for it" in got.sentence) == (False, True)


def test_a_warming_cluster_takes_no_request():
    got = one(to(NAME, *endpoints("10.1.0.7:80")), view(LiveCluster(NAME, present=False, warming=True)))
    assert (got.agrees, "is still warming" in got.sentence) == (False, True)


def test_a_cluster_that_warms_again_is_judged_by_what_it_has():
    assert one(to(NAME, *endpoints("10.1.0.7:80")), view(LiveCluster(NAME, (host("10.1.0.7:80"),), warming=True))).agrees


def test_a_refused_update_is_told():
    live = view(LiveCluster(NAME, (host("10.1.0.7:80"),), refused="duplicate cluster"))
    got = one(to(NAME, *endpoints("10.1.0.7:80")), live)
    assert (got.agrees, got.sentence.endswith("because Envoy refused the last one: duplicate cluster")) == (False, True)


def test_hosts_that_only_envoy_knows_are_not_compared():
    got = one(to("PassthroughCluster", usable=True), view(LiveCluster("PassthroughCluster", (host("1.2.3.4:80"),))))
    assert (got.agrees, "exists; only Envoy knows its hosts" in got.sentence) == (True, True)


def test_resolved_addresses_stand_for_their_dns_name():
    live = LiveCluster(NAME, (host("192.0.2.1:443", hostname="API.example"), host("192.0.2.2:443", hostname="API.example")))
    assert one(to(NAME, *endpoints("api.example:443")), view(live)).agrees


def test_a_name_that_dns_does_not_know_is_told():
    got = one(to(NAME, *endpoints("api.example:443")), view(LiveCluster(NAME)))
    assert (got.agrees, "has no address for api.example:443: DNS gives it none" in got.sentence) == (False, True)


def test_the_same_shares_are_said_and_agree():
    live = view(LiveCluster(V1), LiveCluster(V2, (host("10.1.0.7:80"),)), routes=rules({V1: 0.95, V2: 0.05}))
    first, second = agreement([route(to(V1, share=0.95), to(V2, *endpoints("10.1.0.7:80"), share=0.05))], live)
    assert (first.agrees, second.agrees) == (True, True)
    assert first.sentence.endswith(f"{V1} has no host and gets 95 % of the requests of its rule, as predicted")
    assert second.sentence.endswith(f"{V2} has 1 usable host and gets 5 % of the requests of its rule, as predicted")


def test_other_shares_differ_with_both_numbers():
    live = view(LiveCluster(V1), LiveCluster(V2, (host("10.1.0.7:80"),)), routes=rules({V1: 0.6, V2: 0.4}))
    got = agreement([route(to(V1, share=0.95), to(V2, *endpoints("10.1.0.7:80"), share=0.05))], live)
    assert [a.agrees for a in got] == [False, False]
    assert got[0].sentence.endswith("gets 60 % of the requests of its rule, not 95 %")


def test_a_rule_that_leads_elsewhere_is_told():
    live = view(LiveCluster(V1), routes=rules({V2: 1.0}))
    assert one(to(V1), live).sentence.endswith(f"gets no request: no rule for {HOST} on port 80 leads there")


def test_each_rule_is_compared_with_the_rule_that_has_its_destinations():
    live = view(LiveCluster(V1), LiveCluster(V2), routes=rules({V2: 1.0}, {V1: 0.95, V2: 0.05}))
    got = agreement([route(to(V2)), route(to(V1, share=0.95), to(V2, share=0.05))], live)
    assert [a.agrees for a in got] == [True, True, True]
    assert len({a.sentence for a in got}) == 3


def test_a_destination_without_weight_says_nothing_of_shares():
    live = view(LiveCluster(V1), LiveCluster(V2), routes=rules({V2: 1.0}))
    first, second = agreement([route(to(V1, share=0.0), to(V2))], live)
    assert (first.agrees, "request" in first.sentence) == (True, False)
    assert second.agrees


def test_routes_that_were_not_read_are_neither_agreement_nor_difference():
    got = one(to(NAME), view(LiveCluster(NAME), routes=None))
    assert (got.agrees, "request" in got.sentence) == (True, False)


def test_an_envoy_without_any_rule_gets_no_request():
    got = one(to(NAME), view(LiveCluster(NAME), routes=()))
    assert (got.agrees, "gets no request" in got.sentence) == (False, True)


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_shares_of_tcp_are_not_compared_with_http_routes(protocol: str):
    assert one(to(NAME), view(LiveCluster(NAME), routes=()), protocol=protocol).agrees


def test_a_gateways_rules_are_found_by_the_port_that_callers_use():
    routes = rules({NAME: 1.0}, config="http.8080")
    assert one(to(NAME), view(LiveCluster(NAME), routes=routes), kind="gateway").agrees


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (f"{HOST}:80", True),
        ("pay.shop.svc.cluster.local:80", False),
        (f"{HOST}:8080", False),
        (f"inbound-vip|80|http|{HOST}", True),
        ("inbound-vip|80|http|pay.shop.svc.cluster.local", False),
        (f"inbound-vip|8080|http|{HOST}", False),
        ("https.80.https.gateway.shop", True),
        ("http.80.fd00::1", True),
    ],
)
def test_a_configuration_for_every_domain_is_told_by_its_name(config: str, found: bool):  # noqa: FBT001 - a table's column
    routes = rules({NAME: 1.0}, config=config, virtual_host="inbound|http|80", domains=("*",))
    assert one(to(NAME), view(LiveCluster(NAME), routes=routes)).agrees is found


def test_another_ports_rules_are_not_looked_at():
    routes = rules({NAME: 1.0}, config="8080", virtual_host=f"{HOST}:8080")
    assert "no rule for" in one(to(NAME), view(LiveCluster(NAME), routes=routes)).sentence


@pytest.mark.parametrize(
    ("domains", "found"),
    [
        ((f"{HOST}:80",), True),
        (("*.shop.svc.cluster.local",), True),
        (("cart.*",), True),
        (("*",), True),
        (("*.pay.svc.cluster.local",), False),
        (("cart",), False),
    ],
)
def test_domains_fit_as_envoy_fits_them(domains: tuple[str, ...], found: bool):  # noqa: FBT001 - a table's column
    routes = rules({NAME: 1.0}, domains=domains)
    assert one(to(NAME), view(LiveCluster(NAME), routes=routes)).agrees is found


def test_the_most_specific_virtual_host_decides():
    def virtual(name: str, domain: str, cluster: str) -> LiveVirtualHost:
        return LiveVirtualHost(name, (domain,), (LiveRule(((cluster, 1.0),)),))

    hosts = (virtual("any:80", "*", "x"), virtual("suffix:80", "*.cluster.local", "y"), virtual("exact:80", HOST, NAME))
    assert one(to(NAME), view(LiveCluster(NAME), routes=(LiveRoutes("80", hosts),))).agrees


@pytest.mark.parametrize("other", [{"cluster": "west"}, {"namespace": "pay"}, {"pod": "web-8"}, {"pod": None, "selector": "app=web"}])
def test_routes_of_another_viewpoint_are_passed_over(other: dict[str, str | None]):
    assert agreement([route(to(NAME), **other)], view(LiveCluster(NAME))) == []


def test_a_viewpoint_of_the_whole_namespace_is_compared_as_this_pod():
    (got,) = agreement([route(to(NAME), pod=None)], view(LiveCluster(NAME)))
    assert got.viewpoint.pod == "web-7f"


def test_the_same_sentence_is_said_once():
    assert len(agreement([route(to(NAME)), route(to(NAME))], view(LiveCluster(NAME)))) == 1


def test_an_agreement_is_plain_json():
    got = msgspec.to_builtins(one(to(NAME), view(LiveCluster(NAME))))
    assert set(got) == {"viewpoint", "envoy_cluster", "agrees", "sentence", "source"}


# --- as many as predicted -----------------------------------------------------------------------------------------------------


def flows(failed: float, fine: float, caller: str = "web.shop", *flags: str, code: int = 503, reporter: str = "source") -> list[Flow]:
    """So many calls in five minutes."""
    workload, _, namespace = caller.partition(".")
    ended = Flow(workload, namespace, code, flags or ("UH",), failed / 300, reporter)
    return [f for f in (ended, Flow(workload, namespace, 200, (), fine / 300, reporter)) if f.rate]


def beside(
    *told: Flow, shares: tuple[float, ...] = (0.95,), since: float | None = READ_AT - 900, namespace: str = "shop", **traffic: object
) -> Real:
    """What was counted beside rules of which so many requests were predicted to fail."""
    rules = [
        msgspec.structs.replace(route(to(), namespace=namespace, pod=None), path=str(i), failing_share=s) for i, s in enumerate(shares)
    ]
    return real(HOST, msgspec.structs.replace(Traffic("east", HOST, 300, told, since, READ_AT, "Prometheus p"), **traffic), rules, (), ())


def test_the_failing_share_that_was_counted_stands_beside_the_predicted_one():
    found = beside(*flows(946, 54), *flows(95, 5, "checkout.shop"))
    assert (found.agrees, found.low, found.measured, found.calls) == (True, 0.95, 0.946364, 1100)
    assert found.sentence == (
        "predicted 95 %, measured 94.6 % of 3.67 calls a second over 5 min, since 13:45 UTC, most with 503 UH, callers web.shop, checkout.shop"
    )
    assert found.source == "Prometheus p, read at 2026-11-21 14:00:00 UTC"


@pytest.mark.parametrize(
    ("failed", "fine", "agrees"),
    [
        (950, 50, True),
        (930, 70, True),  # chance alone may make it
        (960_000, 40_000, True),  # what is so near is not told as a difference, however many were counted
        (900, 100, False),
        (99_000, 1_000, False),
        (0, 1000, False),
        (95, 5, True),
        (19, 1, None),  # would fit, but so would one in four that succeeds
        (6, 1, None),
        (1, 0, None),
        (0, 2, None),
        (0, 30, False),  # thirty calls that succeed where 19 of 20 fail are no chance
    ],
)
def test_few_calls_neither_agree_nor_differ(failed: float, fine: float, agrees: bool | None):  # noqa: FBT001 - a table's column
    assert beside(*flows(failed, fine)).agrees is agrees


def test_where_nothing_was_predicted_to_fail_a_failure_differs_and_none_agrees():
    assert beside(*flows(0, 1000), shares=(0.0,), since=None).sentence == "none of 3.33 calls a second failed over 5 min"
    assert beside(*flows(0, 1000), shares=(0.0,), since=None).agrees is True
    assert beside(*flows(0, 100), since=None).sentence == (
        "none of 100 calls failed over 5 min, though 95 % was predicted; that is not as predicted"
    )
    failing = beside(*flows(300, 700, "web.shop", "UC"), shares=(0.0,))
    assert (failing.agrees, "most with 503 UC" in failing.sentence) == (False, True)
    assert beside(*flows(3, 997, "web.shop", "UC"), shares=(0.0,)).agrees is True  # as a few do on any day


def test_rules_that_differ_bound_what_can_be_counted():
    assert [beside(*flows(n, 1000 - n), shares=(0.1, 0.95)).agrees for n in (20, 100, 400, 950, 999)] == [False, True, True, True, False]
    assert beside(*flows(400, 600), shares=(0.1, 0.95)).sentence.startswith("predicted 10 % to 95 %, measured 40 % of")


def test_each_caller_is_compared_with_what_was_predicted_for_it_alone():
    """A caller of whom nothing is known is counted, and not compared."""
    found = beside(*flows(95, 5), *flows(0, 900, "stranger.elsewhere"))
    assert (found.agrees, found.low) == (True, 0.95)
    assert "measured 9.5 % of 3.33 calls a second" in found.sentence
    assert beside(*flows(95, 5), namespace="elsewhere").agrees is None


def test_a_call_that_several_proxies_tell_of_is_counted_once():
    told = [*flows(95, 5), *flows(0, 5, reporter="destination")]
    assert (beside(*told).calls, beside(*told).agrees) == (100, True)
    l4 = Flow("web", "shop", 0, (), 1.0, "source", "tcp")
    assert beside(l4, *flows(95, 5, reporter="waypoint")).calls == 100


def test_what_began_just_now_is_told_and_not_compared():
    found = beside(*flows(20, 80), since=READ_AT - 60, window_s=120.0)
    assert found.agrees is None
    assert found.sentence.endswith("over 2 min, since 13:59 UTC, most with 503 UH, caller web.shop; it began too shortly ago to compare")


def test_nobody_and_calls_of_which_nothing_says_whose_they_are():
    lost = Flow("istio-ingressgateway", "istio-system", 404, ("NR",), 0.1)
    assert beside(unnamed=(lost,), since=None).sentence == (
        "nobody calls it: no request was counted over 5 min; 30 calls at istio-ingressgateway met no route or cluster, and nothing says for which host"
    )
    assert beside(since=None).agrees is None


def test_calls_that_rules_lead_to_another_host_are_counted_there():
    other = [route(to("outbound|80||other.shop.svc.cluster.local"), pod=None)]
    counted = Traffic("east", HOST, 300, tuple(flows(0, 100)), None, READ_AT, "p")
    assert (real(HOST, counted, other).low, real(HOST, counted, other).agrees) == (None, None)


def test_calls_of_no_host_are_of_the_one_that_is_predicted_to_meet_no_cluster():
    nameless = (Flow("ingress", "edge", 503, ("NC",), 9.0),)
    read = Traffic("east", HOST, 300, (Flow("ingress", "edge", 200, (), 1.0),), None, READ_AT, "p", nameless)
    gateway = route(to(V1, share=0.9, defined=False), kind="gateway", namespace="edge", pod=None)
    missing = real(HOST, read, [msgspec.structs.replace(gateway, failing_share=0.9)])
    assert (missing.measured, missing.agrees) == (0.9, True)
    assert real(HOST, read, [route(to(), kind="gateway", namespace="edge", pod=None)]).measured == 0.0


@pytest.mark.parametrize(
    ("flow", "lost"),
    [
        (Flow("web", "shop", 500, (), 1.0), True),
        (Flow("web", "shop", 404, ("NR",), 1.0), True),
        (Flow("web", "shop", 404, (), 1.0), False),
        (Flow("web", "shop", 0, ("DC",), 1.0), False),
        (Flow("web", "shop", 0, ("UF", "URX"), 1.0), True),
        (Flow("web", "shop", 0, (), 1.0, protocol="tcp"), False),
        (Flow("web", "shop", 0, ("UF", "URX"), 1.0, protocol="tcp"), True),
        (Flow("web", "shop", 14, (), 1.0, protocol="grpc"), True),
        (Flow("web", "shop", 5, (), 1.0, protocol="grpc"), False),
    ],
)
def test_what_a_server_or_a_proxy_is_at_fault_for_is_lost(flow: Flow, *, lost: bool):
    assert fails(flow) is lost
