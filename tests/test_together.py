"""Alerts that are told together, and what people do about them: a real store, and what is committed for the outbox."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from bot.alerts import Silence, State
from bot.store import Deed, Store
from bot.sweep import Sweeper
from checks.mesh import Cluster
from checks.resources import objects, parse
from tests.bots import alerts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from bot.alerts import Alert
    from bot.store import Work
    from checks.mesh import Change

ANA, BEN = "U0ANA", "U0BEN"
ISTIO = "networking.istio.io/v1"


class World:
    """One registered cluster, as a test says that it is."""

    def __init__(self, cluster: Cluster) -> None:
        self.now = cluster
        self.told: asyncio.Queue[tuple[Change, ...]] = asyncio.Queue()

    def clusters(self) -> tuple[Cluster, ...]:
        return (self.now,)

    async def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        while True:
            yield await self.told.get()


def cluster(*manifests: dict[str, Any]) -> Cluster:
    found = objects(o for m in manifests for o in parse(m))
    return Cluster("east", mesh="east", objects=Cluster.index(found), read_at=time.time())


def server(name: str, namespace: str = "shop") -> Iterator[dict[str, Any]]:
    """A service with one ready pod of version v2."""
    meta = {"name": name, "namespace": namespace}
    labels = {"app": name, "version": "v2"}
    ready = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    containers = [{"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"]}]
    pod = {"name": f"{name}-1", "namespace": namespace, "labels": labels}
    yield {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": containers}, "status": ready}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta | {"name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"{name}-1", "namespace": namespace},
            }
        ],
    }


def behind_a_gateway(count: int, *, lost: bool) -> Cluster:
    """So many hosts behind one gateway, whose pods carry the label that it asks for, or not."""
    labels = {"istio": "lost" if lost else "ingress"}
    status = {"phase": "Running", "podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"name": "ingress-1", "namespace": "edge", "labels": labels}
    proxy = {"containers": [{"name": "istio-proxy", "args": ["proxy", "router"]}]}
    made = [*server("cart"), {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": proxy, "status": status}]
    spec: dict[str, Any] = {
        "selector": {"istio": "ingress"},
        "servers": [{"hosts": ["*"], "port": {"number": 80, "name": "http", "protocol": "HTTP"}}],
    }
    made.append({"apiVersion": ISTIO, "kind": "Gateway", "metadata": {"name": "public", "namespace": "edge"}, "spec": spec})
    for n in range(count):
        route = [{"route": [{"destination": {"host": "cart.shop.svc.cluster.local", "port": {"number": 80}}}]}]
        rules = {"hosts": [f"shop-{n:03d}.example.com"], "gateways": ["edge/public"], "http": route}
        made.append(
            {"apiVersion": ISTIO, "kind": "VirtualService", "metadata": {"name": f"vs-{n:03d}", "namespace": "shop"}, "spec": rules}
        )
    return cluster(*made)


def subsets(count: int, broken: int) -> Cluster:
    """So many services with rules of their own, the first `broken` of which send everything to a subset without pods."""
    return cluster(*with_subsets(count, broken))


def with_subsets(count: int, broken: int) -> list[dict[str, Any]]:
    """The manifests of `subsets`."""
    made: list[dict[str, Any]] = []
    for n in range(count):
        name = f"svc-{n:03d}"
        made += server(name)
        meta = {"name": name, "namespace": "shop"}
        versions = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2")]
        made.append({"apiVersion": ISTIO, "kind": "DestinationRule", "metadata": meta, "spec": {"host": name, "subsets": versions}})
        to = {"destination": {"host": name, "subset": "v1" if n < broken else "v2"}}
        made.append({"apiVersion": ISTIO, "kind": "VirtualService", "metadata": meta, "spec": {"hosts": [name], "http": [{"route": [to]}]}})
    return made


async def waiting(store: Store) -> list[Work]:
    """What the outbox has to bring to Slack."""
    found = [await store.work(ident) for ident, _ in await store.waiting()]
    return [work for work in found if work is not None]


def said(work: Work) -> list[str]:
    return [line.message.text for line in work.steps]


async def the_alert(store: Store) -> Alert:
    (alert,) = (await store.alerts()).values()
    return alert


async def does(sweeper: Sweeper, store: Store, *deeds: Deed) -> None:
    """People do this, and the sweeper hears of it and looks."""
    for deed in deeds:
        await store.do(deed)
    listening = asyncio.create_task(sweeper._hear())
    await asyncio.sleep(0.1)
    listening.cancel()
    await asyncio.wait([listening])
    await sweeper.look()


# --- told together ---


async def test_what_one_gateway_breaks_is_one_message_with_a_count_and_the_worst_ten(store: Store):
    world = World(behind_a_gateway(30, lost=True))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    assert len(await store.alerts()) == 30
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("30 hosts fail: ")
    words = str(work.draft.message.blocks)
    assert sum(f"shop-{n:03d}.example.com" in words for n in range(30)) == 10
    assert "20 more" in words
    assert len([line for line in said(work) if "fired" in line]) == 1
    world.now = behind_a_gateway(30, lost=False)
    await sweeper.look()
    assert await store.alerts() == {}
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("Resolved after ")
    assert "30 hosts" in work.draft.message.text
    assert len([line for line in said(work) if "resolved" in line]) == 1


async def test_what_the_same_cause_breaks_later_joins_its_message(store: Store):
    world = World(behind_a_gateway(3, lost=True))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    world.now = behind_a_gateway(5, lost=True)
    await sweeper.look()
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("5 hosts fail: ")
    assert "2 hosts: shop-003.example.com, shop-004.example.com" in said(work)[-1]
    world.now = behind_a_gateway(1, lost=True)
    await sweeper.look()
    (work,) = await waiting(store)
    assert "shop-000.example.com" in work.draft.message.text
    assert "resolved" in said(work)[-1]


async def test_a_few_causes_are_a_message_each_and_a_storm_is_one(store: Store):
    world = World(subsets(40, broken=8))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    assert len(await waiting(store)) == 8
    world.now = subsets(40, broken=40)
    await sweeper.look()
    assert len(await store.alerts()) == 40
    works = await waiting(store)
    assert len(works) == 9
    (storm,) = (w for w in works if w.draft.message.text.startswith("32 hosts fail: "))
    assert "32 causes" in storm.draft.message.text
    world.now = subsets(40, broken=0)
    await sweeper.look()
    assert all(w.draft.message.text.startswith("Resolved after ") for w in await waiting(store))


async def test_what_a_storm_brings_later_joins_it(store: Store):
    world = World(subsets(40, broken=20))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    assert len(await waiting(store)) == 1
    world.now = subsets(40, broken=23)
    await sweeper.look()
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("23 hosts fail: ")


async def test_alerts_of_one_cause_go_to_the_channels_of_their_routes(store: Store):
    route = {"match": {"cause": "gw-selector-no-pod"}, "channel": "#edge"}
    await Sweeper(World(behind_a_gateway(3, lost=True)), store, alerts(routes=[route])).look()
    (work,) = await waiting(store)
    assert work.draft.channel == "#edge"


# --- what people do ---


async def test_what_is_called_done_stays_so_for_its_hosts_over_a_restart_and_further_ones_are_told_by_themselves(store: Store):
    world = World(behind_a_gateway(3, lost=True))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    (message,) = {a.message for a in (await store.alerts()).values()}
    await does(sweeper, store, Deed(verb="close", by=ANA, at=time.time(), message=message, text="the gateway moves"))
    assert {a.state for a in (await store.alerts()).values()} == {State.CLOSED}
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("Called done, still seen: 3 hosts")
    assert not work.draft.resolved
    assert sum("called done" in line for line in said(work)) == 1
    world.now = behind_a_gateway(5, lost=True)
    await Sweeper(world, store, alerts()).look()
    assert sorted(a.state for a in (await store.alerts()).values()) == [State.CLOSED] * 3 + [State.FIRING] * 2
    first, second = sorted(await waiting(store), key=lambda w: w.draft.id != message)
    assert first.draft.message.text.startswith("Called done, still seen: 3 hosts")
    assert second.draft.message.text.startswith("2 hosts fail: ")
    world.now = behind_a_gateway(5, lost=False)
    await Sweeper(world, store, alerts()).look()
    assert await store.alerts() == {}
    assert all(w.draft.message.text.startswith("Resolved after ") for w in await waiting(store))


async def test_an_ack_is_shown_said_and_survives_a_restart_and_the_second_one_changes_nothing(store: Store):
    world = World(subsets(1, broken=1))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    message = (await the_alert(store)).message
    first = Deed(verb="ack", by=ANA, at=time.time(), message=message)
    await does(sweeper, store, first, Deed(verb="ack", by=BEN, at=time.time(), message=message))
    alert = await the_alert(store)
    assert alert.ack is not None
    assert alert.ack.by == ANA
    (work,) = await waiting(store)
    assert f"Acknowledged by <@{ANA}>" in str(work.draft.message.blocks)
    assert f"acknowledged* by <@{ANA}>" in said(work)[-1]
    again = Sweeper(world, store, alerts())
    await does(again, store)
    assert await the_alert(store) == alert
    (work,) = await waiting(store)
    assert sum("acknowledged" in line for line in said(work)) == 1, "a deed that is committed is not done again"
    await does(again, store, Deed(verb="unack", by=BEN, at=time.time(), message=message))
    assert (await the_alert(store)).ack is None


async def test_an_ack_for_some_time_is_over_by_itself(store: Store):
    sweeper = Sweeper(World(subsets(1, broken=1)), store, alerts())
    await sweeper.look()
    message = (await the_alert(store)).message
    now = time.time()
    await does(sweeper, store, Deed(verb="ack", by=ANA, at=now, message=message, until=now + 0.3))
    assert (await the_alert(store)).ack is not None
    assert 0 < (sweeper._until_due() or 0) < 0.4
    await asyncio.sleep(0.4)
    await sweeper.look()
    assert (await the_alert(store)).ack is None


async def test_a_silence_keeps_what_fires_untold_until_it_is_over(store: Store):
    world = World(subsets(2, broken=0))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    silence = Silence(id="s1", match={"namespace": "shop"}, by=ANA, at=time.time(), until=time.time() + 900, why="maintenance")
    await does(sweeper, store, Deed(verb="silence", by=ANA, at=time.time(), silence=silence))
    world.now = subsets(2, broken=1)
    await sweeper.look()
    alert = await the_alert(store)
    assert (alert.state, alert.told) == (State.FIRING, False)
    assert await store.waiting() == []
    restarted = Sweeper(world, store, alerts())
    await restarted.look()
    assert await store.waiting() == []
    await does(restarted, store, Deed(verb="unsilence", by=BEN, at=time.time(), silence=silence))
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("Every request to svc-000.shop fails")
    assert await store.silences() == {}


async def test_a_silence_over_what_was_told_is_shown_and_stills_the_thread_but_not_the_resolve(store: Store):
    world = World(subsets(1, broken=1))
    sweeper = Sweeper(world, store, alerts())
    await sweeper.look()
    silence = Silence(id="s1", match={"host": "svc-000.*"}, by=ANA, at=time.time(), until=time.time() + 0.5, why="we know <!channel>")
    await does(sweeper, store, Deed(verb="silence", by=ANA, at=time.time(), silence=silence))
    (work,) = await waiting(store)
    assert "Silenced until " in str(work.draft.message.blocks)
    assert "&lt;!channel&gt;" in str(work.draft.message.blocks)
    assert "silenced" in said(work)[-1]
    await asyncio.sleep(0.6)
    await sweeper.look()
    (work,) = await waiting(store)
    assert "*the silence is over* it fails still: Subset v1 of svc-000.shop" in said(work)[-1]
    world.now = subsets(1, broken=0)
    await sweeper.look()
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("Resolved after ")


async def test_deeds_of_a_commit_that_was_lost_are_done_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    sweeper = Sweeper(World(subsets(1, broken=1)), store, alerts())
    await sweeper.look()
    message = (await the_alert(store)).message
    real = store.commit

    async def lost(*arguments: Any, **more: Any) -> None:
        await real(*arguments, **more)
        raise OSError("the answer was lost")

    monkeypatch.setattr(store, "commit", lost)
    with pytest.raises(OSError, match="lost"):
        await does(sweeper, store, Deed(verb="ack", by=ANA, at=time.time(), message=message))
    monkeypatch.setattr(store, "commit", real)
    await does(sweeper, store)
    (work,) = await waiting(store)
    assert sum("acknowledged" in line for line in said(work)) == 1
    assert await store.deeds(await store.done(), wait_s=0.01) == []


async def test_an_alert_that_flaps_says_so_once_and_is_edited_from_then_on(store: Store):
    well, ill = subsets(1, broken=0), subsets(1, broken=1)
    world = World(well)
    sweeper = Sweeper(world, store, alerts())
    for _ in range(5):
        for world.now in (ill, well):
            await sweeper.look()
    (work,) = await waiting(store)
    assert work.draft.message.text.startswith("Flapping: ")
    assert "Flapping: fired 5 times in 10 min" in str(work.draft.message.blocks)
    lines = said(work)
    assert sum("flapping" in line for line in lines) == 1
    assert "flapping" in lines[-1]


async def test_what_nobody_sees_to_asks_the_next_one_and_says_how_late_when_nobody_was_there(store: Store):
    steps = [{"after": 0.3, "to": "S0SRE"}, {"after": 7200, "to": "U0BEN"}]
    settings = alerts(escalation=steps)
    world = World(subsets(1, broken=1))
    sweeper = Sweeper(world, store, settings)
    await sweeper.look()
    (work,) = await waiting(store)
    assert "Escalates at " in str(work.draft.message.blocks)
    assert 0 < (sweeper._until_due() or 0) < 0.4
    await asyncio.sleep(0.4)
    await sweeper.look()
    await sweeper.look()
    (work,) = await waiting(store)
    (line,) = [step for step in work.steps if "escalated" in step.message.text]
    assert "<!subteam^S0SRE>" in line.message.text
    assert "step 1 of 2: nobody has seen to it" in line.message.text
    assert " late" not in line.message.text
    assert line.aloud
    alert = await the_alert(store)
    assert alert.escalated == 1
    long_ago = replace(alert, fired_at=time.time() - 7200 - 1200, escalated_at=time.time() - 7200 - 1200)
    await store.commit({alert.id: long_ago}, now=time.time())
    await Sweeper(world, store, settings).look()
    (work,) = await waiting(store)
    line = work.steps[-1]
    assert "<@U0BEN>" in line.message.text
    assert "20 min late: no bot was there to say it in time" in line.message.text


async def test_what_a_person_does_about_a_silenced_alert_is_said_all_the_same(store: Store):
    sweeper = Sweeper(World(subsets(1, broken=1)), store, alerts(escalation=[{"after": 600, "to": "S0SRE"}]))
    await sweeper.look()
    message = (await the_alert(store)).message
    silence = Silence(id="s1", match={"cluster": "east"}, by=ANA, at=time.time(), until=time.time() + 900, why="moving")
    await does(sweeper, store, Deed(verb="silence", by=ANA, at=time.time(), silence=silence))
    await does(sweeper, store, Deed(verb="escalate", by=ANA, at=time.time(), message=message))
    await does(sweeper, store, Deed(verb="ack", by=BEN, at=time.time(), message=message))
    (work,) = await waiting(store)
    assert "<!subteam^S0SRE> *escalated*" in said(work)[-2]
    assert "*acknowledged*" in said(work)[-1]


async def test_who_is_asked_for_is_asked_at_once_and_an_ack_ends_it(store: Store):
    world = World(subsets(1, broken=1))
    sweeper = Sweeper(world, store, alerts(escalation=[{"after": 0.5, "to": "S0SRE"}, {"after": 0.6, "to": "U0BEN"}]))
    await sweeper.look()
    message = (await the_alert(store)).message
    await does(sweeper, store, Deed(verb="escalate", by=ANA, at=time.time(), message=message))
    (work,) = await waiting(store)
    assert f"step 1 of 2 by <@{ANA}>" in work.steps[-1].message.text
    await does(sweeper, store, Deed(verb="ack", by=BEN, at=time.time(), message=message))
    await asyncio.sleep(0.6)
    await sweeper.look()
    assert (await the_alert(store)).escalated == 1
