"""Who may do what: the rule itself, where things are, and whom Slack says to be in a group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from slack_sdk.web.async_client import AsyncWebClient

from bot import access
from bot.access import EVERYWHERE, Place, rule
from bot.demo.workspace import Group
from bot.members import Members, Unread
from bot.settings import Access
from checks.mesh import Cluster, Mesh
from checks.resources import objects, parse
from tests.bots import FINDING
from tests.localslack import Clock

if TYPE_CHECKING:
    from bot.demo.slack import LocalSlack

ACCESS = Access.model_validate(
    {
        "viewers": [{"who": "everyone", "namespace": "shared-*"}, "#mesh"],
        "responders": [{"who": ["@payments", "U0KIM"], "namespace": ["payments", "payments-*"], "cluster": "east"}],
        "admins": ["@sre"],
    }
)
PAYMENTS: Place = frozenset({("east", "payments")})


@pytest.mark.parametrize(
    ("verb", "place", "mine", "allowed"),
    [
        ("help", None, set(), True),
        ("why", {("east", "shared-cache")}, set(), True),
        ("why", {("east", "payments")}, set(), False),
        ("why", {("east", "payments")}, {"#mesh"}, True),
        ("why", {("east", "payments")}, {"@payments"}, True),
        ("why", {("west", "payments")}, {"@payments"}, False),
        ("why", {("west", "payments"), ("east", "payments")}, {"@payments"}, True),
        ("broken", None, set(), True),
        ("ack", {("east", "payments")}, {"#mesh"}, False),
        ("ack", {("east", "payments")}, {"U0KIM"}, True),
        ("ack", {("east", "payments-eu")}, {"@payments"}, True),
        ("ack", {("east", "paymentsx")}, {"@payments"}, False),
        ("ack", {("west", "payments")}, {"@payments"}, False),
        ("ack", {("west", "anything")}, {"@sre"}, True),
        ("silence", {("east", "")}, {"@payments"}, False),
        ("silence", {("", "payments")}, {"@payments"}, False),
        ("silence", {("east", "payments-*")}, {"@payments"}, True),
        ("silence", {("east", "pay*")}, {"@payments"}, False),
        ("silence", {("", "")}, {"@sre"}, True),
        ("audit", EVERYWHERE, {"@payments", "#mesh"}, False),
        ("audit", EVERYWHERE, {"@sre"}, True),
        ("of another version", None, {"@sre"}, False),
    ],
)
def test_the_rule_is_this_table(verb: str, place: set[tuple[str, str]] | None, mine: set[str], allowed: bool):  # noqa: FBT001 - a column of the table
    assert rule(ACCESS, verb, [] if place is None else [frozenset(place)], mine, {}).allowed is allowed


def test_without_a_word_about_it_everybody_may_do_everything():
    assert all(rule(None, verb, [EVERYWHERE], (), {}).allowed for verb in access.NEEDS)


def test_who_may_is_named_the_nearest_first_and_only_who_may_there():
    assert rule(ACCESS, "ack", [PAYMENTS], {"#mesh"}, {}).may == ("@payments", "U0KIM", "@sre")
    assert rule(ACCESS, "ack", [frozenset({("west", "orders")})], {"#mesh"}, {}).may == ("@sre",)


def test_what_is_about_several_places_needs_them_all():
    orders: Place = frozenset({("east", "orders")})
    ruling = rule(ACCESS, "ack", [PAYMENTS, orders], {"@payments"}, {})
    assert (ruling.allowed, ruling.may) == (False, ("@sre",))


def test_a_deed_is_refused_while_nobody_says_who_is_in_the_group_and_looking_is_as_the_settings_say():
    unread = {"@payments": "missing_scope", "@sre": "ratelimited", "#mesh": "missing_scope"}
    ruling = rule(ACCESS, "ack", [PAYMENTS], (), unread)
    assert (ruling.allowed, ruling.unread) == (False, {"@payments": "missing_scope", "@sre": "ratelimited"})
    assert not rule(ACCESS, "why", [PAYMENTS], (), unread).allowed
    looking = ACCESS.model_copy(update={"look_without_groups": True})
    assert rule(looking, "why", [PAYMENTS], (), unread).allowed
    assert not rule(looking, "why", [PAYMENTS], (), {}).allowed, "Slack said that they are in none"
    assert not rule(looking, "ack", [PAYMENTS], (), unread).allowed
    assert not rule(looking, "audit", [EVERYWHERE], (), unread).allowed
    assert rule(ACCESS, "ack", [PAYMENTS], {"U0KIM"}, unread).allowed, "who is named by id needs no group"


_SPOTS = st.tuples(st.sampled_from(["", "east", "west"]), st.sampled_from(["", "payments", "orders", "pay*"]))
_WORDS = st.none() | st.lists(st.sampled_from(["east", "west", "payments", "pay*", "*"]), min_size=1, max_size=2)
_WHO = st.sampled_from(["@a", "@b", "U0KIM", "everyone"])
_GRANTS = st.lists(
    st.fixed_dictionaries({"who": st.lists(_WHO, min_size=1, max_size=2), "namespace": _WORDS, "cluster": _WORDS}), max_size=3
)


@given(
    viewers=_GRANTS,
    responders=_GRANTS,
    admins=_GRANTS.filter(bool),
    places=st.lists(st.frozensets(_SPOTS, min_size=1, max_size=2), min_size=1, max_size=3),
    mine=st.sets(_WHO),
)
def test_more_membership_more_places_and_greater_roles_never_turn_around(
    viewers: Any, responders: Any, admins: Any, places: list[Place], mine: set[str]
):
    settings = Access.model_validate({"viewers": viewers, "responders": responders, "admins": admins})
    audit, ack, why = (rule(settings, verb, places, mine, {}).allowed for verb in ("audit", "ack", "why"))
    assert audit <= ack <= why, "who may more may less"
    for verb in ("why", "ack"):
        allowed = rule(settings, verb, places, mine, {}).allowed
        assert allowed == all(rule(settings, verb, [p], mine, {}).allowed for p in places)
        assert rule(settings, verb, places, {"@a", "@b", "U0KIM"}, {}).allowed >= allowed
        if not allowed:
            assert not set(rule(settings, verb, places[:1], mine, {}).may) & mine or rule(settings, verb, places[:1], mine, {}).allowed


# --- where things are ---


def mesh(*manifests: dict[str, Any], cluster: str = "east") -> Mesh:
    found = objects(o for m in manifests for o in parse(m))
    (made,) = Mesh.of([Cluster(cluster, mesh="prod", objects=Cluster.index(found), read_at=1.0)], 1.0)
    return made


def named(kind: str, namespace: str, api: str = "networking.istio.io/v1", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": namespace}, "spec": spec}


PARTNER = mesh(
    named("ServiceEntry", "egress", hosts=["*.partner.example"]),
    named("VirtualService", "shop", hosts=["api.partner.example"], http=[]),
    named("VirtualService", "edge", hosts=["*"], http=[]),
    named("HTTPRoute", "web", "gateway.networking.k8s.io/v1", hostnames=["api.partner.example"]),
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"}, "spec": {}},
)


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("cart.shop.svc.cluster.local", {("east", "shop")}),
        ("gone.shop.svc.cluster.local", {("east", "shop")}),
        ("api.partner.example", {("east", "egress"), ("east", "shop"), ("east", "web")}),
        ("nobody.example", EVERYWHERE),
    ],
)
def test_a_host_is_with_its_owner_and_with_who_has_rules_for_it(host: str, place: set[tuple[str, str]]):
    assert access.of_host(host, [PARTNER]) == place


def test_a_finding_is_with_its_object_and_with_its_hosts_owner():
    elsewhere = replace(FINDING, resource="VirtualService shop/to-destination")
    assert access.of_finding(elsewhere) == {("east", "shop"), ("east", "mynamespace")}
    assert access.of_finding(replace(FINDING, resource="Cluster east", host="")) == {("east", "")}


@pytest.mark.parametrize(
    ("match", "places"),
    [
        ({"cluster": "east", "namespace": "shop"}, [{("east", "shop")}]),
        ({"namespace": "sh*", "cluster": "east"}, [{("east", "sh*")}]),
        ({"namespace": "shop"}, [{("east", "shop")}]),
        ({"namespace": "nowhere"}, [{("", "nowhere")}]),
        ({"namespace": "sh*"}, [{("", "sh*")}]),
        ({"host": "cart.shop.svc.cluster.local"}, [{("east", "shop")}]),
        ({"host": "cart.shop.svc.cluster.local", "cluster": "we*"}, [{("we*", "shop")}]),
        ({"host": "*.shop.svc.cluster.local", "cluster": "east"}, [{("east", "shop")}]),
        ({"host": "api.partner.example"}, [{("east", "egress")}, {("east", "shop")}, {("east", "web")}]),
        ({"host": "nobody.example"}, [{("", "")}]),
        ({"host": "*.example"}, [{("", "")}]),
        ({"cause": "subset-empty-weighted", "cluster": "east"}, [{("east", "")}]),
        ({"resource": "VirtualService shop/x", "cluster": "east"}, [{("east", "shop")}]),
        ({"resource": "*shop/x", "cluster": "east"}, [{("east", "")}]),
    ],
)
def test_a_silence_is_everywhere_where_it_could_fit(match: dict[str, str], places: list[set[tuple[str, str]]]):
    assert list(access.of_silence(match, [PARTNER])) == places


def test_what_is_not_known_of_a_cluster_may_be_there_as_well():
    (east,) = PARTNER.clusters
    west = Cluster("west", mesh="prod", objects=Cluster.index([]), read_at=1.0, synced=False)
    meshes = Mesh.of([east, west], 1.0)
    both = [{("east", "shop")}, {("west", "shop")}]
    for match in ({"namespace": "shop"}, {"host": "cart.shop.svc.cluster.local"}):
        assert list(access.of_silence(match, meshes)) == both
        assert list(access.of_silence({**match, "cluster": "east"}, meshes)) == both[:1]
    assert {("west", "")} in access.of_silence({"host": "api.partner.example"}, meshes)
    assert list(access.of_silence({"host": "gone.nowhere.svc.cluster.local"}, [PARTNER])) == [{("", "nowhere")}]


# --- whom Slack says to be in a group ---


def asking(slack: LocalSlack, clock: Clock | None = None) -> Members:
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    return Members(client, 300, clock or Clock())


def asked(slack: LocalSlack, method: str) -> int:
    return sum(name == method for name, _ in slack.calls)


async def test_groups_by_handle_and_id_and_channels_by_name_and_id_are_read(slack: LocalSlack):
    members = asking(slack)
    assert await members.people("@sre") == await members.people("S0SRE") == {"U0ANA", "U0BEN"}
    assert await members.people("#payments") == await members.people(slack.channel("#payments").id) >= {"U0ANA", "U0KIM"}
    assert await members.of("U0KIM", ["@sre", "#payments", "U0KIM", "U0ANA"]) == ({"#payments", "U0KIM"}, {})


async def test_one_list_names_all_groups(slack: LocalSlack):
    for n in range(8):
        slack.workspace.groups[f"S0G{n}"] = Group(f"S0G{n}", f"g{n}", ["U0KIM"])
    mine, unread = await asking(slack).of("U0KIM", [f"@g{n}" for n in range(8)])
    assert (len(mine), unread, asked(slack, "usergroups.list")) == (8, {}, 1)


async def test_a_large_channel_is_read_to_its_last_page(slack: LocalSlack):
    slack.channel("#ops").members |= {f"U0P{n:04d}" for n in range(2500)}
    assert len(await asking(slack).people("#ops")) == len(slack.channel("#ops").members)
    assert asked(slack, "conversations.members") == 3


async def test_an_answer_is_remembered_and_asked_anew_and_is_not_believed_when_it_is_too_old(slack: LocalSlack):
    clock = Clock()
    members = asking(slack, clock)
    await asyncio.gather(*(members.people("S0SRE") for _ in range(5)))
    assert asked(slack, "usergroups.users.list") == 1
    slack.workspace.groups["S0SRE"] = Group("S0SRE", "sre", ["U0KIM"])
    clock.now += 149
    assert await members.people("S0SRE") == {"U0ANA", "U0BEN"}
    clock.now += 2
    assert await members.people("S0SRE") == {"U0KIM"}
    slack.api.paid_plan = False
    clock.now += 299
    assert await members.people("S0SRE") == {"U0KIM"}, "Slack refuses, and what it said is not too old"
    assert await members.people("S0SRE") == {"U0KIM"}
    assert asked(slack, "usergroups.users.list") == 3, "what was refused is not asked for again at once"
    clock.now += 2
    with pytest.raises(Unread, match="plan_upgrade_required"):
        await members.people("S0SRE")
    slack.api.paid_plan = True
    clock.now += 10
    assert await members.people("S0SRE") == {"U0KIM"}


@pytest.mark.parametrize(
    ("who", "fault", "why"),
    [
        ("@nobody", {}, "there is no such user group"),
        ("S0GONE", {}, "no_such_subteam"),
        ("#secret", {}, "there is no such channel, or it is private and I am not in it"),
        ("C0GONE", {}, "channel_not_found"),
        ("S0SRE", {"method": "usergroups.users.list", "retry_after": 30}, "ratelimited"),
        ("S0SRE", {"method": "usergroups.users.list", "status": 500}, "internal_error"),
        ("S0SRE", {"method": "usergroups.users.list", "delay": 0.5}, "no answer in time"),
    ],
)
async def test_what_slack_does_not_tell_is_said_and_not_guessed(
    slack: LocalSlack, monkeypatch: pytest.MonkeyPatch, who: str, fault: dict[str, Any], why: str
):
    slack.workspace.add_channel("secret", private=True, member=False)
    if "delay" in fault:
        monkeypatch.setattr("bot.members.READ_S", 0.1)
    if fault:
        slack.fault(**fault)
    members = asking(slack)
    assert await members.of("U0ANA", [who]) == (frozenset(), {who: why})
    assert await members.people("U0ANA") == {"U0ANA"}


async def test_a_scope_that_is_missing_is_named(slack: LocalSlack):
    slack.workspace.scopes.clear()
    less = {**slack.workspace.manifest, "oauth_config": {"scopes": {"bot": ["chat:write"]}}}
    slack.workspace.manifest = less
    _, unread = await asking(slack).of("U0ANA", ["S0SRE", "@sre", "#mesh"])
    assert unread["S0SRE"] == unread["@sre"] == "missing_scope: usergroups:read"
    assert unread["#mesh"].startswith("missing_scope: channels:read")
