"""The sweep: recorded clusters as they change and fall silent, a real store, and what is committed for the outbox."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bot import manifests
from bot.alerts import OUTAGE, State, identity, rule_of
from bot.store import Store
from bot.sweep import Sweeper
from bot.valkey import embedded
from checks.finding import Finding, Severity
from checks.mesh import Change, Cluster
from checks.resources import ADDING, Deployment, EndpointSlice, Malformed, VirtualService
from tests.bots import RECORDED, World, alerts, population, unready

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.alerts import Alert


def east(*more: str) -> Cluster:
    """The recorded cluster of the article's first incident, with further manifests of the recording."""
    cluster = manifests.read(str(RECORDED / "east"), "east", mesh="east", read_at=time.time())
    for name in more:
        added = manifests.read(str(RECORDED / name), "east", mesh="east", read_at=time.time())
        changes = [
            Change("east", kind, o.namespace, o.name, o)
            for kind, spaces in added.objects.items()
            for space in spaces.values()
            for o in space.values()
        ]
        cluster = cluster.apply(changes)
    return cluster


BROKEN, WELL = east(), east("destination-v1.yaml")


async def the_alert(store: Store) -> Alert | None:
    return next(iter((await store.alerts()).values()), None)


async def message(store: Store) -> tuple[str, list[str]]:
    """The headline of the one message that waits, and its thread's lines."""
    ((ident, _),) = await store.waiting()
    work = await store.work(ident)
    assert work is not None
    return work.draft.message.text, [s.message.text for s in work.steps]


async def test_what_fails_becomes_one_alert_with_its_message_picture_and_thread(store: Store):
    await Sweeper(World(BROKEN), store, alerts()).look()
    alert = await the_alert(store)
    assert alert is not None
    assert (alert.state, alert.finding.cause) == (State.FIRING, "subset-empty-weighted")
    headline, lines = await message(store)
    assert headline.startswith("95 % of destination.mynamespace fails")
    assert len(lines) == 3
    work = await store.work(alert.message)
    assert work is not None
    assert work.draft.picture is not None
    assert work.draft.picture.svg.startswith("<svg")


async def test_two_empty_subsets_of_one_rule_are_one_alert_with_the_share_of_both(store: Store):
    scenario = Path(__file__).parent / "scenarios" / "subset-empty-two-of-three"
    await Sweeper(World(manifests.read(str(scenario / "east.yaml"), "east", mesh="east", read_at=time.time())), store, alerts()).look()
    alert = await the_alert(store)
    assert alert is not None
    assert len(await store.alerts()) == 1
    assert alert.finding.failing_share == pytest.approx(0.5)
    assert [e for e in alert.finding.evidence if "requests of a rule" in e or "% of" in e], "what the second destination loses is told"


async def test_looking_again_at_the_same_changes_nothing_in_the_store(store: Store, redis_url: str):
    sweeper = Sweeper(World(BROKEN), store, alerts())
    await sweeper.look()
    with Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_commands_processed"]
        for _ in range(3):
            await sweeper.look()
        assert client.info("stats")["total_commands_processed"] == before + 1


async def test_a_second_process_goes_on_where_the_first_one_ended(store: Store):
    await Sweeper(World(BROKEN), store, alerts()).look()
    before = await the_alert(store)
    await Sweeper(World(BROKEN), store, alerts()).look()
    assert await the_alert(store) == before
    await Sweeper(World(WELL), store, alerts()).look()
    assert await the_alert(store) is None
    headline, lines = await message(store)
    assert headline.startswith("Resolved after")
    assert len(lines) == 4


async def test_what_made_it_well_is_what_was_done_where_it_is_about(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    deployed = WELL.get(Deployment, "mynamespace", "destination-v1")
    assert deployed is not None
    elsewhere = Change("east", Deployment, "other", "unrelated", None)
    await sweeper.look([elsewhere, Change("east", Deployment, "mynamespace", "destination-v1", deployed)])
    world.now = (WELL,)
    await sweeper.look()
    resolved = await store.resolved([identity_of_the_alert(BROKEN)])
    (alert,) = resolved.values()
    (told,) = alert.well_by
    assert told.startswith("Deployment mynamespace/destination-v1 was changed at ")


async def test_a_share_that_is_almost_everything_is_never_told_as_everything(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    rules = BROKEN.get(VirtualService, "mynamespace", "destination")
    assert rules is not None
    (rule,) = rules.spec.http or ()
    shares = tuple(replace(r, weight=weight) for r, weight in zip(rule.route or (), (9996, 4), strict=True))
    shifted = replace(rules, spec=replace(rules.spec, http=(replace(rule, route=shares),)))
    world.now = (BROKEN.apply([Change("east", VirtualService, "mynamespace", "destination", shifted)]),)
    await sweeper.look()
    _, lines = await message(store)
    assert "from 95 % to &gt;99 %:" in lines[-1]


def identity_of_the_alert(cluster: Cluster) -> str:
    found = Finding(
        cause="subset-empty-weighted",
        code="MESH101",
        severity=Severity.ERROR,
        cluster=cluster.name,
        resource="VirtualService mynamespace/destination",
        path="spec.http[0].route[0]",
        host="destination.mynamespace.svc.cluster.local",
        viewpoints=(),
        failing_share=0.95,
        message="",
    )
    return identity(found, rule_of(cluster.get(VirtualService, "mynamespace", "destination"), found.path))


def without(cluster: Cluster, kind: str) -> Cluster:
    return dataclasses.replace(cluster, unreadable={kind: "403 for system:serviceaccount:ops:meshwhy"})


@pytest.mark.parametrize(
    ("silent", "why"),
    [
        pytest.param(lambda c: dataclasses.replace(c, synced=False), "not been read completely", id="not synced"),
        pytest.param(lambda c: without(c, "endpointslices.discovery.k8s.io"), "endpointslices", id="a kind is forbidden"),
        pytest.param(
            lambda c: dataclasses.replace(c, malformed=(Malformed("VirtualService mynamespace/destination", "http is no list"),)),
            "cannot be understood",
            id="an object of the namespace is malformed",
        ),
    ],
)
async def test_what_cannot_be_looked_at_is_unknown_and_never_resolved(store: Store, silent: Callable[[Cluster], Cluster], why: str):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    world.now = (silent(WELL),)
    await sweeper.look()
    alert = await the_alert(store)
    assert alert is not None
    assert alert.unknown_since is not None
    assert why in alert.unknown_why
    headline, lines = await message(store)
    assert headline.startswith("Unknown:")
    assert why in lines[-1]
    world.now = (WELL,)
    await sweeper.look()
    assert await the_alert(store) is None
    assert (await message(store))[0].startswith("Resolved after")


async def test_a_cluster_that_is_lost_is_one_message_and_what_it_held_stays_as_it_was(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    before = await the_alert(store)
    assert before is not None
    world.now = (dataclasses.replace(WELL, unreadable={"*": "it does not answer"}, synced=False),)
    for _ in range(3):
        await sweeper.look()
    found = {a.finding.cause: a for a in (await store.alerts()).values()}
    assert found.keys() == {before.finding.cause, OUTAGE}
    frozen = found[before.finding.cause]
    assert (frozen.state, frozen.unknown_since is not None) == (State.FIRING, True)
    works = [work for ident, _ in await store.waiting() if (work := await store.work(ident)) is not None]
    told = {work.draft.message.text.partition(" · ")[0]: [s.message.text for s in work.steps] for work in works}
    assert set(told) == {"Unknown: destination.mynamespace, east cannot be read: it does not answer", "east cannot be read"}
    assert "it does not answer" in told["east cannot be read"][-1]
    assert len(told.pop("east cannot be read")) == 1
    assert not [line for lines in told.values() for line in lines if "unknown" in line], "its own message says it, once"
    (lost,) = (w for w in works if w.draft.message.text.startswith("east cannot be read"))
    assert "1 alert of it stays as it is" in str(lost.draft.message.blocks)
    world.now = (WELL,)
    await sweeper.look()
    assert await store.alerts() == {}
    heads = [w.draft.message.text for ident, _ in await store.waiting() if (w := await store.work(ident)) is not None]
    assert len(heads) == 2
    assert all(h.startswith("Resolved after ") for h in heads)
    assert any("east can be read again" in h for h in heads)


async def test_a_bot_that_starts_while_a_cluster_is_lost_does_not_say_that_it_can_be_read_again(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    lost = dataclasses.replace(WELL, unreadable={"*": "it does not answer"}, synced=False)
    world.now = (lost,)
    await sweeper.look()
    before = await store.alerts()
    assert OUTAGE in {a.finding.cause for a in before.values()}
    restarted = Sweeper(world, store, alerts())
    await restarted.look()
    assert await store.alerts() == before
    world.now = ()
    await restarted.look()
    assert await store.alerts() == before, "nor when it is not registered any more"
    world.now = (WELL,)
    await restarted.look()
    assert await store.alerts() == {}


@pytest.mark.parametrize("kind", sorted(ADDING))
async def test_a_kind_that_only_adds_to_what_is_known_freezes_no_alert(store: Store, kind: str):
    world = World(without(BROKEN, kind))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    alert = await the_alert(store)
    assert alert is not None
    world.now = (without(WELL, kind),)
    await sweeper.look()
    assert await the_alert(store) is None


async def test_a_malformed_object_of_another_namespace_holds_nothing_up(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    world.now = (dataclasses.replace(WELL, malformed=(Malformed("VirtualService other/thing", "http is no list"),)),)
    await sweeper.look()
    assert await the_alert(store) is None


async def test_a_start_before_the_clusters_are_read_is_no_news(store: Store, monkeypatch: pytest.MonkeyPatch):
    await Sweeper(World(BROKEN), store, alerts()).look()
    before = await the_alert(store)
    unread = Cluster("east", mesh="east", unreadable={"*": "it has not been read yet"}, synced=False)
    sweeper = Sweeper(World(unread), store, alerts())
    await sweeper.look()
    assert await the_alert(store) == before
    monkeypatch.setattr("bot.sweep._START_S", 0.0)
    await sweeper.look()
    alert = await the_alert(store)
    assert alert is not None
    assert "has not been read yet" in alert.unknown_why


async def test_a_cluster_that_was_taken_out_of_the_settings_leaves_its_alerts_unknown(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.sweep._START_S", 0.0)
    await Sweeper(World(BROKEN), store, alerts()).look()
    west = manifests.read(str(RECORDED / "west"), "west", mesh="west", read_at=time.time())
    await Sweeper(World(west), store, alerts()).look()
    unknown = [a for a in (await store.alerts()).values() if a.unknown_since is not None]
    assert [a.unknown_why for a in unknown] == ["east is not registered any more"]


async def test_one_cluster_that_is_down_does_not_touch_the_alerts_of_another(store: Store):
    west = manifests.read(str(RECORDED / "west"), "west", mesh="west", read_at=time.time())
    world = World(BROKEN, west)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    world.now = (WELL, dataclasses.replace(west, unreadable={"*": "down"}, synced=False))
    await sweeper.look()
    left = list((await store.alerts()).values())
    assert {a.finding.cluster for a in left} == {"west"}
    assert all(a.unknown_since is not None for a in left if a.finding.cause != OUTAGE)
    assert len([a for a in left if a.finding.cause == OUTAGE]) == 1


async def test_a_commit_whose_answer_was_lost_is_read_from_the_store_and_nothing_is_said_twice(store: Store):
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    real = store._redis.execute_command

    async def lost(*command: Any) -> Any:
        answer = await real(*command)
        if command[0] == "EVAL":
            raise RedisConnectionError("the answer was lost")
        return answer

    store._redis.execute_command = lost
    world.now = (WELL,)
    with pytest.raises(RedisConnectionError):
        await sweeper.look()
    store._redis.execute_command = real
    await sweeper.look()
    headline, lines = await message(store)
    assert headline.startswith("Resolved after")
    assert len(lines) == 4


async def until(ask: Callable[[], Any], timeout_s: float = 10) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (found := await ask()):  # noqa: ASYNC110 - a store has no event for this
            await asyncio.sleep(0.02)
    return found


async def test_changes_and_waiting_times_move_alerts_by_themselves(store: Store):
    world = World(BROKEN)
    task = asyncio.create_task(Sweeper(world, store, alerts(**{"for": 0.3, "clear": 0.5})).run())
    try:
        await until(lambda: the_alert(store))
        assert (await until(lambda: the_alert(store))).state is State.PENDING
        await until(store.waiting, 2)
        world.now = (WELL,)
        began = time.monotonic()
        world.told.put_nowait(())

        async def gone() -> bool:
            return await the_alert(store) is None

        await until(gone, 2)
        assert time.monotonic() - began >= 0.5
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_without_its_store_the_bot_watches_on_says_so_once_and_commits_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("bot.sweep._AGAIN_S", 0.1)
    world = World(WELL)
    with tempfile.TemporaryDirectory(prefix="mw-") as name:
        async with embedded(Path(name)) as url:
            store = Store(url)
            await store.open()
            task = asyncio.create_task(Sweeper(world, store, alerts()).run())
            await asyncio.sleep(0.2)
            with Redis.from_url(url) as client:
                os.kill(client.info("server")["process_id"], signal.SIGKILL)
            world.now = (BROKEN,)
            world.told.put_nowait(())
            await asyncio.sleep(0.5)
            assert not task.done()
        async with embedded(Path(name)):
            await until(lambda: the_alert(store))
            task.cancel()
            await asyncio.wait([task])
            await store.close()
    assert len([r for r in caplog.records if "store cannot be reached" in r.getMessage()]) == 1


async def test_of_a_storm_something_is_told_before_everything_is_looked_at_and_then_all_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bot.sweep._FIRST", 12)
    world = World(population(60))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    before = set(await store.alerts())
    changes = [unready(s) for s in world.now[0].all(EndpointSlice)]
    world.become(changes)
    await sweeper.look(changes)
    first = set(await store.alerts())
    assert before < first
    assert len(first - before) < 30
    looks = 1
    while len(await store.alerts()) < 60:
        await sweeper.look()
        looks += 1
    assert looks < 10, "each look takes twice as many"
    assert all(a.well_since is None and a.unknown_since is None for a in (await store.alerts()).values())
    told = {a.message for a in (await store.alerts()).values() if a.id not in before}
    assert len(told) <= 10, "what follows joins what was told"
    assert {f.host for f in (await sweeper.sweep()).findings} == {a.finding.host for a in (await store.alerts()).values()}


async def test_the_whole_sweep_and_the_meshes_are_there_for_who_asks(store: Store):
    west = manifests.read(str(RECORDED / "west"), "west", mesh="west", read_at=time.time())
    sweeper = Sweeper(World(BROKEN, west), store, alerts())
    swept = await sweeper.sweep()
    assert {f.cluster for f in swept.findings} == {"east", "west"}
    assert {c.name for c in swept.clusters} == {"east", "west"}
    assert [m.name for m in sweeper.meshes()] == ["east", "west"]
