"""The last day of a host: what looks saw is there again at every instant, nothing is told that nobody saw, and it stays small."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from bot import history
from bot.history import History, Past
from bot.store import BLOCK_S, HOST_MOST, Store
from bot.sweep import Sweeper
from checks import diagnosis, standing
from checks.changed import difference
from checks.mesh import Change, Cluster, Mesh
from checks.resources import Deployment, Metadata, Service, VirtualService, Written
from templates import messages, words
from tests.asking import refused
from tests.bots import RECORDED, World, alerts, alongside, running, source
from tests.test_sweep import BROKEN, WELL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from checks.diagnosis import Sweep
    from tests.asking import Answer

HOST = "destination.mynamespace.svc.cluster.local"
NOON = 1_764_331_200.0 // BLOCK_S * BLOCK_S + 600  # within one block for some hours


class Story:
    """Looks at one cluster, each at its time, as a bot offers them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.history = History(store)
        self.sweep: Sweep | None = None
        self.mesh: Mesh | None = None

    async def look(self, at: float, cluster: Cluster) -> None:
        self.mesh = Mesh("east", [cluster], at) if self.mesh is None else self.mesh.replace([cluster], at)
        self.sweep = diagnosis.sweep(self.mesh, self.sweep)
        self.history.offer(at, {"east": self.mesh}, {"east": self.sweep})
        await self.history.keep()

    async def past(self, now: float) -> Past:
        return await history.past(self.store, "east", HOST, now)


def share(past: Past, at: float) -> float | None:
    then = past.then(at)
    return None if then is None else then.share


def reweighed(cluster: Cluster, *weights: int) -> Cluster:
    old = cluster.get(VirtualService, "mynamespace", "destination")
    assert old is not None
    (rule,) = old.spec.http or ()
    route = tuple(msgspec.structs.replace(d, weight=w) for d, w in zip(rule.route or (), weights, strict=True))
    spec = msgspec.structs.replace(old.spec, http=(msgspec.structs.replace(rule, route=route),))
    wrote = Written(manager="kubectl-edit", operation="Update", time="2026-11-28T14:02:00Z")
    new = msgspec.structs.replace(old, spec=spec, metadata=msgspec.structs.replace(old.metadata, managed_fields=(wrote,)))
    return cluster.apply([Change("east", VirtualService, "mynamespace", "destination", new)])


async def test_a_host_stands_at_every_instant_as_it_was_seen(store: Store) -> None:
    story = Story(store)
    for minute, cluster in enumerate((WELL, reweighed(WELL, 60, 40), reweighed(BROKEN, 60, 40), BROKEN, WELL)):
        await story.look(NOON + 60 * minute, cluster)
    past = await story.past(NOON + 300)
    assert [share(past, NOON + 60 * m + 30) for m in range(5)] == [0.0, 0.0, 0.6, 0.95, 0.0]
    then = past.then(NOON + 150)
    assert then is not None
    assert [(f.cause, f.failing_share) for f in then.findings] == [("subset-empty-weighted", 0.6)]
    (route, *_) = [r for r in then.routes if r.destinations]
    live = next(r for r in diagnosis.why("destination", [Mesh("east", [reweighed(BROKEN, 60, 40)], NOON)]).routes if r.destinations)
    assert msgspec.to_builtins(route) == msgspec.to_builtins(msgspec.structs.replace(live, destinations=route.destinations))
    assert [(d.envoy_cluster, d.weight, d.share, d.defined, d.usable, d.destination_rule) for d in route.destinations] == [
        (d.envoy_cluster, d.weight, d.share, d.defined, d.usable, d.destination_rule) for d in live.destinations
    ]
    assert [[e.state for e in d.endpoints] for d in route.destinations] == [[e.state for e in d.endpoints] for d in live.destinations]


async def test_the_objects_that_changed_are_told_with_what_who_and_for_whom_alone(store: Store) -> None:
    story = Story(store)
    for at, cluster in ((0, WELL), (60, reweighed(WELL, 60, 40)), (120, BROKEN)):
        await story.look(NOON + at, cluster)
    past = await story.past(NOON + 300)
    told = [(t.at, t.resource, t.what, t.by) for t in past.touched]
    assert (
        NOON + 60,
        "VirtualService mynamespace/destination",
        "was changed, spec.http[0].route[0].weight: 95 → 60; spec.http[0].route[1].weight: 5 → 40",
        "kubectl-edit",
    ) in told
    assert [(at, what) for at, ref, what, _ in told if ref == "Deployment mynamespace/destination-v1"] == [(NOON + 120, "was deleted")]
    other = await history.past(store, "east", "service-source.mynamespace.svc.cluster.local", NOON + 300)
    assert not [t for t in other.touched if t.resource.endswith("/destination-v1")]


async def test_another_bot_goes_on_and_what_nobody_saw_is_said(store: Store) -> None:
    first, second = Story(store), Story(store)
    await first.look(NOON, WELL)
    await first.look(NOON + 60, BROKEN)
    await second.look(NOON + 3600, BROKEN)
    await second.look(NOON + 3660, WELL)
    past = await second.past(NOON + 3700)
    assert [share(past, NOON + s) for s in (30, 90, 3630, 3690)] == [0.0, 0.95, 0.95, 0.0]
    assert share(past, NOON + 1800) is None
    assert past.unknown(NOON + 1800).startswith("Nobody could look from ")
    assert past.unknown(NOON - 60).startswith("Nothing is kept from before ")
    assert past.unknown(NOON + 9000).startswith("Nobody could look after ")
    assert (await history.past(store, "east", "nobody.else", NOON + 3700)).unknown(NOON + 30) == "Nothing is kept of it."


async def test_a_cluster_that_is_lost_is_said_and_one_that_was_never_read_keeps_nothing(store: Store) -> None:
    away = dataclasses.replace(WELL, name="west", mesh="east", unreadable={"*": "timeout"})
    never = dataclasses.replace(away, objects={}, synced=False)
    story = Story(store)
    await story.look(NOON, WELL)
    for at, other in ((10.0, never), (20.0, away)):
        mesh = Mesh("east", [WELL, other], NOON + at)
        story.history.offer(NOON + at, {"east": mesh}, {"east": diagnosis.sweep(mesh)})
        await story.history.keep()
    past = await story.past(NOON + 30)
    assert [(s.begin - NOON, s.end - NOON, s.lost) for s in past.spans] == [(0, 0, ()), (20, 20, ("west",))]
    assert "west could not be read then" in words.stood(history.view([past], NOON + 25, NOON + 30))
    told = history.view([past], NOON + 25, NOON + 30)["diagnosis"]
    assert (told["verdict"], [s["cluster"] for s in told["skipped"]]) == ("unknown", ["west"])
    assert "could not be read" not in words.stood(history.view([past], NOON + 5, NOON + 30))


async def test_of_very_many_changes_at_once_some_are_named_and_that_there_were_more_is_said(store: Store) -> None:
    story = Story(store)
    made = [Service(metadata=Metadata(name=f"s{i}", namespace="mynamespace")) for i in range(150)]
    await story.look(NOON, WELL)
    await story.look(NOON + 10, WELL.apply(Change("east", Service, "mynamespace", s.name, s) for s in made))
    _, _, objects = await store.past("east", HOST, [int(NOON // BLOCK_S)])
    assert len(objects) == 101
    assert [t.resource for t in (await story.past(NOON + 20)).touched] == ["More than these objects"]


async def test_a_host_that_went_is_remembered_and_a_new_day_forgets_it(store: Store) -> None:
    story = Story(store)
    await story.look(NOON, WELL)
    gone = WELL.apply(
        Change("east", type(o), "mynamespace", o.name, None) for kind in WELL.objects for o in WELL.within(kind, "mynamespace").values()
    )
    await story.look(NOON + 60, gone)
    past = await story.past(NOON + 120)
    assert past.then(NOON + 30) is not None
    assert past.then(NOON + 90) == standing.Then(0.0, (), ())
    assert HOST in (await history.hosts(store))["east"]
    await story.look(NOON + 90_000, gone)
    assert HOST not in (await history.hosts(store))["east"]


async def test_over_blocks_of_time_random_changes_are_all_found_again(store: Store) -> None:
    story, pick, at = Story(store), random.Random(3), NOON  # noqa: S311 - the same day in every run
    seen: list[tuple[float, float]] = []
    for _ in range(40):
        cluster = reweighed(pick.choice((WELL, BROKEN)), (w := pick.randrange(1, 100)), 100 - w)
        if pick.random() < 0.2:
            story = Story(store)  # another bot
        await story.look(at, cluster)
        assert story.sweep is not None
        seen.append((at, max((f.failing_share for f in story.sweep.findings if f.host == HOST), default=0.0)))
        at += pick.randrange(1, 1200)
    past = await story.past(at)
    assert len({int(a // BLOCK_S) for a, _ in seen}) > 1
    known = [(share(past, a + 0.5), s) for a, s in seen if not past.unknown(a + 0.5)]
    assert len(known) > 30
    assert [k for k, _ in known] == [s for _, s in known]


async def test_what_changes_too_often_is_kept_as_far_as_there_is_room_and_then_said_not_to_be(store: Store) -> None:
    story = Story(store)
    await story.look(NOON, WELL)
    past = (b"x" * (HOST_MOST + 1),)
    await store.remember("east", int(NOON // BLOCK_S), [(HOST, b"", *past)])
    await story.look(NOON + 60, BROKEN)
    await story.look(NOON + 120, WELL)
    _, kept, _ = await store.past("east", HOST, [int(NOON // BLOCK_S)])
    assert kept == [(*past, True)]
    assert (await story.past(NOON + 180)).unknown(NOON + 90) == "It changed more often than is kept."
    assert share(await story.past(NOON + 180), NOON + 150) == 0.0


async def test_a_store_that_is_away_costs_the_past_and_no_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(WELL)
    sweeper = Sweeper(world, store, alerts())
    tried = asyncio.Event()

    async def away(*_: object) -> None:
        tried.set()
        raise RedisConnectionError

    async with alongside(sweeper.history.run()):
        monkeypatch.setattr(store, "remember", away)
        await sweeper.look()
        await tried.wait()
        monkeypatch.undo()
        world.now = (BROKEN,)
        await sweeper.look()
        for _ in range(500):
            if HOST in (await history.hosts(store)).get("east", ()):
                break
            await asyncio.sleep(0.01)
    assert len(await store.alerts()) == 1
    past = await history.past(store, "east", HOST, time.time())
    assert [i.at for i in past.instants if standing.share(i.standing)]


async def test_what_cannot_be_read_of_the_past_is_as_if_it_were_not_there(store: Store) -> None:
    story = Story(store)
    await story.look(NOON, WELL)
    await story.look(NOON + 60, BROKEN)
    await store.watched("east", b"\xc1", [b"\xc1"])
    await store.remember("east", int(NOON // BLOCK_S), [(HOST, b"\xc1", b"\xc1\xc1\xc1")])
    assert (await story.past(NOON + 90)).unknown(NOON + 90) == "Nothing is kept of it."
    after = Story(store)
    await after.look(NOON + 120, WELL)
    assert share(await after.past(NOON + 130), NOON + 125) == 0.0


async def test_of_several_bots_the_one_that_looks_at_a_mesh_keeps_its_past(store: Store) -> None:
    member = Sweeper(World(BROKEN), store, alerts())
    await member.glance()
    await member.history.keep()
    past = await history.past(store, "east", HOST, time.time())
    assert share(past, time.time()) == 0.95


def test_what_differs_is_said_field_by_field_and_what_is_reported_back_is_not() -> None:
    old = WELL.get(Deployment, "mynamespace", "destination-v2")
    assert old is not None
    more = msgspec.structs.replace(old, status=msgspec.structs.replace(old.status, ready_replicas=1))
    assert difference(old, more) == ()
    scaled = msgspec.structs.replace(old, spec=msgspec.structs.replace(old.spec, replicas=0))
    assert difference(old, scaled) == ("spec.replicas: 2 → 0",)
    noted = msgspec.structs.replace(
        old, metadata=msgspec.structs.replace(old.metadata, labels={**(old.labels), "team": "a"}, annotations={"token": "hush"})
    )
    assert difference(old, noted) == ("metadata.labels.team: nothing → a", "metadata.annotations.token added")


# --- in Slack and on the command line ---


async def test_the_slider_goes_through_the_day_in_its_place_and_the_picture_goes_to_the_direct_messages(
    slack: LocalSlack, redis_url: str, folder: Path
) -> None:
    async with running(slack, redis_url, [source(folder)], watching=False) as bot:
        story, now = Story(bot.store), time.time()
        for ago, cluster in ((7200, WELL), (7140, BROKEN), (7080, WELL), (7020, WELL)):
            await story.look(now - ago, cluster)
        await slack.command("/mesh changes destination")
        (day,) = await slack.until(lambda: slack.ephemerals("ana"))
        assert "nothing failed" in day.words
        assert "Deployment mynamespace/destination-v1 was created" in day.words
        assert messages.STOPS["later"] not in str(day.blocks)
        await slack.click(day, messages.STOPS["earlier"])
        await slack.until(lambda: "95 % failed" in day.words)
        assert "✗ suspicious" in day.words
        assert "Subset v1 of destination.mynamespace gets 95 %" in day.words
        await slack.click(day, messages.DAY)
        (alone,) = await slack.until(lambda: slack.messages("@ana"))
        await slack.until(lambda: "slack_file" in str(alone.blocks), 10)
        (drawn,) = slack.workspace.files.values()
        assert (drawn.name, (drawn.content or b"")[:4]) == ("changes.png", b"\x89PNG")
        assert drawn.alt.startswith("destination.mynamespace. At ")
        assert "95 % failed" in alone.words
        await slack.click(alone, messages.STOPS["later"])
        await slack.until(lambda: "nothing failed" in alone.words and "slack_file" in str(alone.blocks), 10)
        assert len(slack.messages("@ana")) == 1
        await slack.click(day, messages.STOPS["first"])
        await slack.until(lambda: "nothing failed" in day.words)
        await slack.command("/mesh changes destination 3h")
        assert "Nothing is kept from before" in (await slack.until(lambda: slack.ephemerals("ana")[2:]))[0].words
        await slack.command("/mesh changes destination teatime")
        assert "When is teatime?" in (await slack.until(lambda: slack.ephemerals("ana")[3:]))[0].words


async def test_the_command_line_says_how_it_was_and_when_it_does_not_know(
    redis_url: str, store: Store, ask: Callable[..., Answer], tmp_path: Path
) -> None:
    story, now = Story(store), time.time()
    for ago, cluster in ((7200, WELL), (7140, reweighed(WELL, 60, 40)), (7080, reweighed(BROKEN, 60, 40)), (7020, WELL)):
        await story.look(now - ago, cluster)
    config = tmp_path / "meshwhy.yaml"
    config.write_text(f"redis: {{url: '{redis_url}'}}\nstate_dir: {tmp_path}\n")

    async def asked(*words: str) -> Answer:
        return await asyncio.to_thread(ask, *words, "--config", str(config))

    broken = await asked("why", "destination", "--at", "1h57m30s")
    assert broken.status == 1
    assert "60 % of its requests failed (from" in broken.out
    assert "MESH101 subset-empty-weighted" in broken.out
    assert "Deployment mynamespace/destination-v1 was deleted · east (suspicious)" in broken.out
    well = await asked("why", "destination.mynamespace", "--at", "1h59m30s ago", "-o", "json")
    assert (well.status, well.json["verdict"], well.json["failing_share"]) == (0, "healthy", 0.0)
    assert [d["weight"] for r in well.json["routes"] for d in r["destinations"]] == [95, 5]
    refused(await asked("why", "destination", "--at", "5h"), "Nothing is kept from before")
    refused(await asked("why", "destination:80", "--at", "5h"), "not of their ports")
    refused(await asked("why", "nobody", "--at", "1h"), 'No host "nobody"')
    refused(await asked("why", "destination", "--at", "noon"), "--at 'noon' is no time")
    refused(ask("why", "destination", "--at", "14:02", "--from", str(RECORDED / "east")), "--config FILE")
    day = await asked("changes", "destination")
    assert "60 % failed, 2 of 2 endpoints usable" in day.out
    assert "not known" in day.out
    assert "spec.http[0].route[0].weight: 95 → 60; spec.http[0].route[1].weight: 5 → 40 by kubectl-edit" in " ".join(day.out.split())


def test_of_a_cluster_that_no_bot_watches_objects_say_it_themselves(ask: Callable[..., Answer]) -> None:
    told = ask("changes", "destination", "--from", str(RECORDED / "east"))
    assert told.status == 0
    assert "Deployment mynamespace/destination-v2 was created · east" in told.out


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("11:00", "2026-11-28T11:00+00:00"),
        ("14:02", "2026-11-27T14:02+00:00"),
        ("14:02+03:00", "2026-11-28T11:02+00:00"),
        ("2026-11-28T09:30", "2026-11-28T09:30+00:00"),
        ("2026-11-28T09:30+01:00", "2026-11-28T08:30+00:00"),
        ("10m", "2026-11-28T11:50+00:00"),
        ("1h30m ago", "2026-11-28T10:30+00:00"),
        ("teatime", None),
        ("25:00", None),
    ],
)
def test_a_time_is_understood_as_people_write_it(word: str, meant: str | None) -> None:
    noon = datetime.fromisoformat("2026-11-28T12:00+00:00").timestamp()
    assert history.when(word, noon, UTC) == (datetime.fromisoformat(meant).timestamp() if meant else None)
