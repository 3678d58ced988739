"""Where an alert is told and when not: the tree of routes, hours, mutes, and what a namespace says of itself."""

from __future__ import annotations

import shutil
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bot import hours, routing
from bot.alerts import Alert, Receiver, Sent, State, step
from bot.demo.runner import East
from bot.hours import Span
from bot.routing import about, route
from bot.settings import TimeInterval
from bot.sweep import Sweeper
from bot.tell import ACK
from checks.mesh import Change, Cluster, Mesh
from checks.resources import Metadata, Namespace
from checks.routes import Viewpoint
from tests.asking import refused
from tests.bots import FINDING, RECORDED, alerts, serving
from tests.test_sweep import BROKEN, WELL, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from bot.store import Store, Work
    from checks.finding import Finding
    from tests.asking import Answer

FOUND = replace(FINDING, host="destination.shop.svc.cluster.local", viewpoints=(Viewpoint("east", "sidecar", "elsewhere"),), message="")
BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = [{"weekdays": ["monday:friday"], "times": [{"start_time": "09:00", "end_time": "18:00"}], "location": "Europe/Berlin"}]


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


MONDAY_NOON, MONDAY_NIGHT = at("2026-11-30 12:00"), at("2026-11-30 22:00")


def told(finding: Finding = FOUND, mesh: Mesh | None = None, now: float = MONDAY_NOON, **settings: Any) -> list[str]:
    return [r.place for r in route(about(finding, mesh), alerts(**settings), now).receivers]


def annotated(cluster: Cluster, **spaces: dict[str, str]) -> Cluster:
    """The cluster with these annotations on its namespaces, whose names have no dashes."""
    made = [Namespace(metadata=Metadata(name=name, annotations=said, labels={"tier": "1"})) for name, said in spaces.items()]
    return cluster.apply([Change("east", Namespace, "", n.name, n) for n in made])


# --- the tree ---


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"namespace": "mynamespace"}, True),
        ({"namespace": "shop"}, True),
        ({"namespace": ["x", "shop"]}, True),
        ({"namespace": "my*"}, True),
        ({"namespace": "elsewhere"}, False),
        ({"cluster": "east"}, True),
        ({"cluster": "west"}, False),
        ({"cause": "subset-empty-weighted", "severity": "error"}, True),
        ({"cause": "MESH101"}, True),
        ({"cause": "subset-undefined"}, False),
        ({"label": {"istio-injection": "enabled"}}, True),
        ({"label": {"istio-injection": "disabled"}}, False),
        ({"team": "anybody"}, False),
        ({"namespace": "mynamespace", "cluster": "west"}, False),
        ({}, True),
    ],
)
def test_an_alert_goes_where_the_first_route_that_fits_says(match: dict[str, Any], fits: bool):  # noqa: FBT001 - a column of the table
    (mesh,) = Mesh.of([BROKEN], 1.0)
    routes = [{"match": match, "channel": "#payments"}, {"match": {}, "channel": "#ops"}]
    assert told(mesh=mesh, routes=routes) == (["#payments"] if fits else ["#ops"])
    assert told(mesh=mesh) == ["#mesh"]


def test_a_finding_of_a_host_that_is_no_service_is_routed_by_its_object():
    (mesh,) = Mesh.of([BROKEN], 1.0)
    other = replace(FOUND, host="api.partner.example", resource="ServiceEntry shop/partner")
    assert told(other, mesh, routes=[{"match": {"namespace": "shop"}, "channel": "#payments"}]) == ["#payments"]
    assert told(other, None, routes=[{"match": {"label": "a=b"}, "channel": "#payments"}]) == ["#mesh"]


def test_the_deepest_route_decides_and_has_from_its_parents_what_it_leaves_out():
    tree = [
        {
            "match": {"cluster": "east"},
            "channel": "#east",
            "mention": "S0EAST",
            "routes": [
                {"match": {"namespace": "nobody"}, "channel": "#nobody"},
                {"match": {"namespace": "shop"}, "routes": [{"match": {"cause": "subset-*"}, "mention": []}]},
                {"match": {"namespace": "shop"}, "channel": "#too-late"},
            ],
        },
        {"channel": "#after"},
    ]
    found = route(about(FOUND, None), alerts(routes=tree), MONDAY_NOON)
    assert found.receivers == (Receiver("#east", (), ("#mesh",)),)
    assert found.because == ("routes[0].routes[1].routes[0]: #east",)
    other = replace(FOUND, cause="subset-undefined", code="MESH100", host="a.other.svc.cluster.local")
    assert route(about(other, None), alerts(routes=tree), MONDAY_NOON).receivers == (Receiver("#east", ("S0EAST",), ("#mesh",)),)


def test_continue_goes_on_and_one_place_is_told_once():
    tree = [
        {"match": {"severity": "error"}, "user": "U0ANA", "continue": True},
        {"match": {"cluster": "east"}, "channel": "#east", "mention": "S0EAST", "continue": True},
        {"match": {"namespace": "shop"}, "channel": "#east", "mention": "U0BEN"},
        {"channel": "#after"},
    ]
    found = route(about(FOUND, None), alerts(routes=tree), MONDAY_NOON)
    assert found.receivers == (Receiver("U0ANA", (), ("#mesh",)), Receiver("#east", ("S0EAST", "U0BEN"), ("#mesh",)))
    assert told(replace(FOUND, cluster="west", host="x.other.svc.cluster.local"), routes=tree) == ["U0ANA", "#after"]


def _alertmanager(routes: list[dict[str, Any]], labels: set[str]) -> list[str]:
    """Alertmanager's Route.Match, written again from its description, over routes that fit when all their labels are there."""
    found: list[str] = []
    for one in routes:
        if set(one["match"]["namespace"]) & labels:
            found += _alertmanager(one["routes"], labels) or [one["channel"]]
            if not one["continue"]:
                break
    return found


_NODES: st.SearchStrategy[list[dict[str, Any]]] = st.recursive(
    st.just([]),
    lambda below: st.lists(
        st.fixed_dictionaries(
            {
                "match": st.fixed_dictionaries({"namespace": st.sets(st.sampled_from("abc"), min_size=1).map(sorted)}),
                "continue": st.booleans(),
                "channel": st.integers(0, 99).map("#c{}".format),
                "routes": below,
            }
        ),
        max_size=3,
    ),
    max_leaves=8,
)


@given(routes=_NODES, namespace=st.sampled_from("abc"))
def test_any_tree_is_walked_as_alertmanager_walks_it(routes: list[dict[str, Any]], namespace: str):
    finding = replace(FOUND, resource=f"Gateway {namespace}/x", host="api.example")
    assert told(finding, routes=routes) == list(dict.fromkeys(_alertmanager(routes, {namespace}) or ["#mesh"]))


# --- what a namespace says of itself ---


def test_a_namespace_sends_its_alerts_elsewhere_and_says_whose_it_is():
    said = {"meshwhy.io/channel": "#my-team", "meshwhy.io/owner": "payments"}
    (mesh,) = Mesh.of([annotated(BROKEN, mynamespace=said)], 1.0)
    found = route(about(FOUND, mesh), alerts(), MONDAY_NOON)
    assert (found.receivers, found.team) == ((Receiver("#my-team", (), ("#mesh",)),), "payments")
    tree = [
        {"match": {"severity": "error"}, "channel": "#all", "continue": True},
        {"match": {"team": "pay*"}, "channel": "#pay", "mention": "S0PAY"},
    ]
    assert route(about(FOUND, mesh), alerts(routes=tree), MONDAY_NOON).receivers == (
        Receiver("#all", (), ("#mesh",)),
        Receiver("#my-team", ("S0PAY",), ("#pay", "#mesh")),
    )
    assert told(mesh=mesh, routes=tree[:1]) == ["#all", "#my-team"]


@pytest.mark.parametrize("said", ["payments", "#with space", "@here", "U0ANA", "D0123ABCD", "", "#" + "x" * 90])
def test_what_is_no_channel_is_not_taken_for_one(said: str):
    (mesh,) = Mesh.of([annotated(BROKEN, mynamespace={"meshwhy.io/channel": said})], 1.0)
    found = route(about(FOUND, mesh), alerts(), MONDAY_NOON)
    assert [r.place for r in found.receivers] == ["#mesh"]
    assert any("is no channel" in why for why in found.because) == bool(said)


def test_nothing_that_a_namespace_writes_mentions_anybody():
    said = {"meshwhy.io/channel": "#x", "meshwhy.io/owner": "U0ANA"}
    (mesh,) = Mesh.of([annotated(BROKEN, mynamespace=said)], 1.0)
    assert [r.mention for r in route(about(FOUND, mesh), alerts(), MONDAY_NOON).receivers] == [()]


def test_a_namespace_refuses_its_own_alerts_and_nobody_elses():
    off = {"meshwhy.io/alerts": "off"}
    own = replace(FOUND, host="destination.mynamespace.svc.cluster.local")
    (mesh,) = Mesh.of([annotated(BROKEN, mynamespace=off)], 1.0)
    quiet = route(about(own, mesh), alerts(), MONDAY_NOON).quiet
    assert quiet is not None
    assert (quiet.until, quiet.by, quiet.why) == (None, "", "meshwhy.io/alerts of namespace mynamespace is off")
    assert route(about(FOUND, mesh), alerts(), MONDAY_NOON).quiet is None, "namespace shop is concerned as well"


# --- hours and mutes ---

SHOP: dict[str, Any] = {"time_intervals": {"office": OFFICE}}


def test_outside_of_the_hours_somebody_else_is_told():
    tree = [{"channel": "#pay", "mention": "S0PAY", "hours": "office", "outside": {"channel": "#night"}}]
    assert told(routes=tree, **SHOP) == ["#pay"]
    assert route(about(FOUND, None), alerts(routes=tree, **SHOP), MONDAY_NIGHT).receivers == (Receiver("#night", (), ("#pay", "#mesh")),)
    mentioned = [{"channel": "#pay", "mention": "S0PAY", "hours": "office", "outside": {"mention": "U0NIGHT"}}]
    assert route(about(FOUND, None), alerts(routes=mentioned, **SHOP), MONDAY_NIGHT).receivers == (
        Receiver("#pay", ("U0NIGHT",), ("#mesh",)),
    )


def test_what_breaks_little_is_held_until_the_hours_begin():
    tree = [{"channel": "#pay", "hours": "office", "outside": {"hold_below": "50%"}}]
    assert told(now=MONDAY_NIGHT, routes=tree, **SHOP) == ["#pay"]
    found = route(about(replace(FOUND, failing_share=0.49), None), alerts(routes=tree, **SHOP), MONDAY_NIGHT)
    assert found.receivers == ()
    assert found.quiet is not None
    assert (found.quiet.until, found.quiet.why) == (at("2026-12-01 09:00"), "held outside of office")


def test_who_is_not_outside_of_hours_hears_of_it_while_another_waits():
    tree = [{"channel": "#all", "continue": True}, {"channel": "#pay", "hours": "office", "outside": {"hold_below": 1}}]
    found = route(about(FOUND, None), alerts(routes=tree, **SHOP), MONDAY_NIGHT)
    assert ([r.place for r in found.receivers], found.quiet) == (["#all"], None)


def test_a_mute_lasts_as_long_as_its_interval():
    mutes = [{"match": {"namespace": "shop"}, "during": "office", "why": "load test"}]
    quiet = route(about(FOUND, None), alerts(mutes=mutes, **SHOP), MONDAY_NOON).quiet
    assert quiet is not None
    assert (quiet.until, quiet.why) == (at("2026-11-30 18:00"), "load test")
    assert route(about(FOUND, None), alerts(mutes=mutes, **SHOP), MONDAY_NIGHT).quiet is None
    for_ever = route(about(FOUND, None), alerts(mutes=[{"match": {"cause": "MESH101"}}]), MONDAY_NOON).quiet
    assert for_ever is not None
    assert for_ever.until is None


@pytest.mark.parametrize(
    ("interval", "moment", "inside", "change"),
    [
        ({"times": [{"start_time": "09:00", "end_time": "18:00"}]}, "2026-11-30 09:00", True, "2026-11-30 18:00"),
        ({"times": [{"start_time": "09:00", "end_time": "18:00"}]}, "2026-11-30 18:00", False, "2026-12-01 09:00"),
        ({"times": [{"start_time": 1320, "end_time": "24:00"}]}, "2026-11-30 22:00", True, "2026-12-01 00:00"),
        ({"weekdays": ["saturday", "sunday"]}, "2026-11-28 13:00", True, "2026-11-30 00:00"),
        ({"weekdays": ["monday:friday"]}, "2026-11-28 13:00", False, "2026-11-30 00:00"),
        ({"days_of_month": ["-1"]}, "2027-02-27 12:00", False, "2027-02-28 00:00"),
        ({"days_of_month": ["31"]}, "2026-11-30 12:00", False, "2026-12-31 00:00"),
        ({"days_of_month": ["1:5", "-3:-1"]}, "2026-11-28 12:00", True, "2026-12-06 00:00"),
        ({"months": ["december"], "days_of_month": ["24:31"]}, "2026-12-24 00:00", True, "2027-01-01 00:00"),
        ({"months": ["1:3"], "years": ["2027:2028"]}, "2026-12-30 00:00", False, "2027-01-01 00:00"),
        ({"years": ["2026:2040"]}, "2026-12-30 00:00", True, None),
    ],
)
def test_an_interval_is_alertmanagers(interval: dict[str, Any], moment: str, inside: bool, change: str | None):  # noqa: FBT001 - a column
    spans = (TimeInterval.model_validate({**interval, "location": "Europe/Berlin"}).span,)
    assert hours.within(spans, at(moment)) == inside
    assert hours.changes(spans, at(moment)) == (None if change is None else at(change))


def test_the_hours_are_those_of_the_wall_clock_when_clocks_are_set():
    spans = (TimeInterval.model_validate({"times": [{"start_time": "09:00", "end_time": "10:00"}], "location": "Europe/Berlin"}).span,)
    assert hours.changes(spans, at("2026-10-24 12:00")) == at("2026-10-25 09:00") == at("2026-10-24 09:00") + 25 * 3600
    gap = (TimeInterval.model_validate({"times": [{"start_time": "02:30", "end_time": "04:00"}], "location": "Europe/Berlin"}).span,)
    began = hours.changes(gap, at("2026-03-29 00:00"))
    assert began == at("2026-03-29 03:00"), "half past two does not come: it is later than that at three"


_RANGES = st.tuples(st.integers(0, 1440), st.integers(0, 1440)).filter(lambda r: r[0] < r[1])


@settings(deadline=None)  # its clock is the machine's, which others use as well
@given(
    span=st.builds(
        Span,
        times=st.none() | st.lists(_RANGES, min_size=1, max_size=2).map(tuple),
        weekdays=st.none() | st.lists(st.sampled_from([(0, 0), (1, 5), (6, 6)]), min_size=1, max_size=2).map(tuple),
        zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]),
    ),
    now=st.integers(int(at("2026-03-20 00:00")), int(at("2026-11-05 00:00"))),
)
def test_nothing_changes_before_it_is_said_to_change(span: Span, now: int):
    change = hours.changes((span,), now)
    if change is None:
        assert len({hours.within((span,), now + k * 1800) for k in range(48 * 8)}) == 1
        return
    inside = hours.within((span,), now)
    assert hours.within((span,), change) != inside
    assert all(hours.within((span,), now + (change - now) * k / 97) == inside for k in range(97))


# --- over time ---


async def messages(store: Store) -> dict[str, Work]:
    """What waits for Slack, by its place."""
    found = [await store.work(ident) for ident, _ in await store.waiting()]
    return {w.draft.channel: w for w in found if w is not None}


class Standing:
    """A clock for the sweep that somebody else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
        self.now = now
        monkeypatch.setattr("bot.sweep.time.time", lambda: self.now)


async def test_what_is_told_in_two_places_is_edited_and_resolved_in_both(store: Store):
    settings = alerts(routes=[{"channel": "#all", "mention": "S0ALL", "continue": True}, {"user": "U0ANA"}])
    world = World(BROKEN)
    sweeper = Sweeper(world, store, settings)
    await sweeper.look()
    both = await messages(store)
    assert set(both) == {"#all", "U0ANA"}
    assert "<!subteam^S0ALL>" in str(both["#all"].draft.message.blocks)
    assert "<!subteam^S0ALL>" not in str(both["U0ANA"].draft.message.blocks)
    assert {len(w.steps) for w in both.values()} == {3}
    assert both["#all"].draft.id in str(both["U0ANA"].draft.message.blocks), "its buttons mean the same alert"
    world.now = (WELL,)
    await sweeper.look()
    assert all(w.draft.resolved for w in (await messages(store)).values())
    assert "subteam" not in str((await messages(store))["#all"].draft.message.blocks)


async def test_what_is_held_is_told_when_the_hours_begin(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, MONDAY_NIGHT)
    tree = [{"channel": "#pay", "hours": "office", "outside": {"hold_below": 1}}]
    sweeper = Sweeper(World(BROKEN), store, alerts(routes=tree, **SHOP))
    await sweeper.look()
    assert await messages(store) == {}
    (alert,) = (await store.alerts()).values()
    assert alert.silence is not None
    clock.now = at("2026-12-01 08:59:59")
    await sweeper.look()
    assert await messages(store) == {}
    clock.now = at("2026-12-01 09:00:01")
    await sweeper.look()
    assert list(await messages(store)) == ["#pay"]


async def test_who_waits_for_the_hours_is_told_beside_who_did_not(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, MONDAY_NIGHT)
    tree = [{"channel": "#all", "continue": True}, {"channel": "#pay", "hours": "office", "outside": {"hold_below": 1}}]
    sweeper = Sweeper(World(BROKEN), store, alerts(routes=tree, **SHOP))
    await sweeper.look()
    assert list(await messages(store)) == ["#all"]
    clock.now = at("2026-12-01 09:00:01")
    await sweeper.look()
    both = await messages(store)
    assert set(both) == {"#all", "#pay"}
    assert "told elsewhere as well" in both["#all"].steps[-1].message.text
    assert len(both["#pay"].steps) > 1, "its thread begins with what repairs and shows it"
    before = {channel: w.rev for channel, w in both.items()}
    clock.now += 12 * 3600
    await sweeper.look()
    assert {channel: w.rev for channel, w in (await messages(store)).items()} == before, "in the evening nobody is told again"


async def test_a_mute_is_shown_in_the_message_and_its_thread_stays_still(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, at("2026-11-30 08:00"))
    sweeper = Sweeper(World(BROKEN), store, alerts(mutes=[{"match": {"cluster": "east"}, "during": "office", "why": "load test"}], **SHOP))
    await sweeper.look()
    said = len((await messages(store))["#mesh"].steps)
    clock.now = MONDAY_NOON
    await sweeper.look()
    work = (await messages(store))["#mesh"]
    assert "load test" in str(work.draft.message.blocks)
    assert "End silence" not in str(work.draft.message.blocks), "what the settings say nobody ends by a button"
    clock.now = MONDAY_NIGHT
    await sweeper.look()
    work = (await messages(store))["#mesh"]
    assert "load test" not in str(work.draft.message.blocks)
    assert len(work.steps) == said


async def test_a_namespace_that_refuses_stays_quiet_over_an_outage_and_a_restart(store: Store):
    refusing = annotated(BROKEN, mynamespace={"meshwhy.io/alerts": "off"})
    world = World(refusing)
    await Sweeper(world, store, alerts()).look()
    world.now = (Cluster("east", mesh="east", objects={}, synced=False),)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    assert await messages(store) == {}
    world.now = (refusing,)
    await sweeper.look()
    assert await messages(store) == {}
    world.now = (BROKEN,)
    await sweeper.look()
    assert list(await messages(store)) == ["#mesh"], "without the annotation it is told"


DIGESTS = [{"at": "09:00", "location": "Europe/Berlin", "channel": "#daily", "mention": "S0SRE", "match": {"cluster": "east"}}]


async def test_the_list_of_the_day_comes_once_whoever_sends_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, at("2026-11-30 08:59"))
    settings = alerts(digests=DIGESTS)
    await Sweeper(World(BROKEN), store, settings).look()
    assert list(await messages(store)) == ["#mesh"], "what is new begins with its next time"
    clock.now = at("2026-11-30 09:00")
    for _ in range(2):
        sweeper = Sweeper(World(BROKEN), store, settings)
        await sweeper.look()
        await sweeper.look()
    daily = (await messages(store))["#daily"]
    assert daily.rev == 1
    assert daily.draft.message.text == "Today: 1 fault, 0 risks in 3 hosts"
    assert "<!subteam^S0SRE>" in str(daily.draft.message.blocks)
    clock.now = at("2026-12-01 10:30")
    await Sweeper(World(WELL), store, settings).look()
    found = [await store.work(ident) for ident, _ in await store.waiting()]
    late = [w.draft.message for w in found if w is not None and w.draft.channel == "#daily" and w.draft.id != daily.draft.id]
    assert [m.text for m in late] == ["Today: 0 faults, 0 risks in 3 hosts"]
    assert "90 min late: no bot was there to say it in time." in str(late[0].blocks)


async def test_a_list_that_would_come_much_too_late_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, at("2026-11-30 08:59"))
    settings = alerts(digests=DIGESTS)
    await Sweeper(World(WELL), store, settings).look()
    clock.now = at("2026-11-30 16:00")
    await Sweeper(World(WELL), store, settings).look()
    assert await messages(store) == {}


async def test_the_list_of_the_day_leaves_out_who_refuses(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, at("2026-11-30 08:59"))
    world, settings = World(annotated(BROKEN, mynamespace={"meshwhy.io/alerts": "off"})), alerts(digests=DIGESTS)
    await Sweeper(world, store, settings).look()
    clock.now = at("2026-11-30 09:00")
    await Sweeper(world, store, settings).look()
    assert (await messages(store))["#daily"].draft.message.text.startswith("Today: 0 faults")


# --- asked on the command line ---

FILE = """\
slack: {app_token: {env: NOT_SET}, bot_token: {env: NOT_SET}}
clusters: [{name: east, context: east}]
alerts:
  default_channel: "#mesh"
  time_intervals: {office: [{weekdays: ["monday:friday"], times: [{start_time: 09:00, end_time: 18:00}], location: Europe/Berlin}]}
  routes:
    - {match: {team: payments}, channel: "#pay", mention: S0PAY, hours: office, outside: {hold_below: 50%}}
    - {match: {label: {istio-injection: enabled}}, user: U0ANA, escalation: [{after: 10m, on_call: sre}, {after: 30m, channel: "#war"}]}
  on_call: {sre: {people: [U0BEN], since: 2026-11-30 09:00}}
"""


def test_where_an_alert_would_go_is_answered_beforehand(ask: Callable[..., Answer], tmp_path: Path):
    (tmp_path / "m.yaml").write_text(FILE)
    asking = ("alert-routes", "--config", str(tmp_path / "m.yaml"), "-n", "mynamespace")
    assert ask(*asking).out == "→ #mesh\n  Why   default_channel: #mesh\n"
    held = ask(*asking, "--team", "payments", "--share", "0.2", "--at", "2026-11-30T22:00+01:00")
    assert held.out.startswith("– not told until 2026-12-01 08:00 UTC: held outside of office\n")
    loud = ask(*asking, "--team", "payments", "--at", "2026-11-30T22:00+01:00", "-o", "json").json
    assert loud["receivers"] == [{"place": "#pay", "mention": ["S0PAY"], "parents": ["#mesh"]}]
    assert loud["because"] == ["routes[0], outside of office: #pay, mentioning S0PAY"]
    live = ask(*asking, "--from", f"east={RECORDED / 'east'}")
    assert live.out.startswith("→ U0ANA (a direct message)\n"), "the namespace's labels are read from the cluster"
    assert "  Then  while nobody sees to it: 10 min later U0BEN on call for sre and 30 min later #war.\n" in live.out
    refused(ask(*asking, "--cause", "MESH1"), "MESH1")


def test_where_a_message_stands_only_grows():
    firing = Alert(id="a", state=State.FIRING, finding=FOUND, since=0, told=True, fired_at=0, message="m")

    def sent(alert: Alert, *places: str, standing: tuple[str, ...] = ()) -> Alert:
        event = Sent(tuple(map(Receiver, places)), tuple(map(Receiver, standing)))
        after, _ = step(alert, event, 1.0, for_s=0, clear_s=0)
        assert after is not None
        return after

    first = sent(firing, "#a", "#b")
    assert [r.place for r in first.places] == ["#a", "#b"]
    assert [r.place for r in sent(first, "#c").places] == ["#a", "#b", "#c"]
    assert sent(first, "#b") is first
    assert [r.place for r in sent(first, "#a", standing=("#x",)).places] == ["#a", "#b", "#x"]


def test_every_place_of_the_settings_is_known_to_doctor():
    settings = alerts(
        routes=[{"channel": "#a", "routes": [{"user": "U0ANA", "hours": "office", "outside": {"channel": "#night"}}]}], **SHOP
    )
    assert list(routing.places(settings)) == ["#mesh", "#a", "U0ANA", "#night"]


def test_what_routes_ask_needs_no_mesh():
    assert (
        route(about(FOUND, None)._replace(teams=("pay",)), alerts(routes=[{"match": {"team": "pay"}, "channel": "#p"}]), 0.0).team == "pay"
    )


async def test_in_slack_a_direct_message_is_edited_as_the_channels_is(slack: LocalSlack, redis_url: str, tmp_path: Path):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    routes = [{"channel": "#payments", "mention": "S0SRE", "continue": True}, {"user": "U0BEN"}]
    more = {"alerts": {"for": 0, "clear": 0, "default_channel": "#mesh", "routes": routes}}
    async with serving(slack, redis_url, tmp_path, **more):
        (copy,) = await slack.until(lambda: slack.messages("D0BEN"), 20)
        (root,) = await slack.until(lambda: slack.messages("#payments"), 20)
        assert (root.pings, copy.pings) == (("S0SRE",), ())
        await slack.click(copy, ACK, user="U0BEN")
        for message in (root, copy):
            await slack.until(lambda m=message: "Acknowledged by <@U0BEN>" in m.words, 10)
        await East(tmp_path / "east").deploy_v1()
        for message in (root, copy):
            await slack.until(lambda m=message: m.words.startswith("Resolved after"), 20)
            thread = message.channel, message.ts  # a line of it waits for its turn behind the message
            await slack.until(lambda t=thread: any("*acknowledged* by <@U0BEN>" in m.words for m in slack.thread(*t)), 10)
        assert slack.messages("#mesh") == []
