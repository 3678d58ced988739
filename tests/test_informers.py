"""One kind of one cluster, listed and watched over real HTTP, through everything that an API server does to its clients."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from bot.informers import Access, Codec, Informer, Pace, Refused, Server, Unread
from checks.resources import KIND_OF, ConfigMap, Deployment, Namespace, Node, Pod, ReplicaSet, VirtualService
from tests.apiserver import ApiServer, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from checks.mesh import Change
    from checks.resources import Resource

PODS, VIRTUAL_SERVICES = "pods", "virtualservices.networking.istio.io"
FAST = Pace(page=3, watch_s=1, silence_s=0.4, answer_s=0.3, grace_s=0.2, backoff_s=0.02, backoff_max_s=0.1, forbidden_s=0.1, absent_s=0.1)


def pod(name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, **more}, "status": {"phase": "Running"}}


def virtual_service(name: str, hosts: object = ("cart",)) -> dict[str, Any]:
    hosts = list(hosts) if isinstance(hosts, tuple) else hosts
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": hosts},
    }


@dataclass
class Followed:
    """An informer that runs, and the batches that it has given."""

    informer: Informer
    batches: list[list[Change]] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        return [c for batch in self.batches for c in batch]

    @property
    def names(self) -> set[str]:
        return {name for named in self.informer.objects.values() for name in named}


class Follow:
    """Starts informers against a server, and ends them with the test."""

    def __init__(self, api: ApiServer, stack: AsyncExitStack) -> None:
        self._api = api
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []

    async def __call__(self, struct: type[Resource] = Pod, pace: Pace = FAST, **more: str) -> Followed:
        server = await self._stack.enter_async_context(Server(lambda: Access(self._api.url, {}), lambda: None, pace))
        followed = Followed(Informer(KIND_OF[struct], server, cluster="east", **more))

        async def run() -> None:
            async with aclosing(followed.informer.changes()) as stream:
                async for batch in stream:
                    followed.batches.append(batch)

        self._tasks.append(asyncio.create_task(run()))
        return followed

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def follow(api: ApiServer) -> AsyncIterator[Follow]:
    async with AsyncExitStack() as stack:
        following = Follow(api, stack)
        yield following
        await following.end()


async def watched(api: ApiServer, key: str = PODS) -> None:
    await until(lambda: api.watching(key))


# --- list ------------------------------------------------------------------------------------------------------------------


async def test_a_list_is_read_in_pages_and_then_watched(api: ApiServer, follow: Follow) -> None:
    api.put(*(pod(f"p{i}") for i in range(8)))
    pods = await follow()
    await watched(api)
    lists = api.asked(PODS, "list")
    assert [r.query["limit"] for r in lists] == ["3", "3", "3"]
    assert ["continue" in r.query for r in lists] == [False, True, True]
    assert pods.names == {f"p{i}" for i in range(8)}
    assert len(pods.batches[0]) == 8
    assert pods.informer.settled
    assert not pods.informer.unreadable
    (watch,) = api.asked(PODS, "watch")
    assert watch.query["resourceVersion"] == str(api.version)
    assert watch.query["allowWatchBookmarks"] == "true"


async def test_a_list_that_expires_between_its_pages_begins_again(api: ApiServer, follow: Follow) -> None:
    api.put(*(pod(f"p{i}") for i in range(8)))
    api.delays[PODS] = 0.05
    pods = await follow()
    await until(lambda: len(api.asked(PODS, "list")) == 2)
    api.compact()
    await watched(api)
    assert pods.names == {f"p{i}" for i in range(8)}
    assert not pods.informer.unreadable


async def test_a_big_list_comes_compressed(api: ApiServer, follow: Follow) -> None:
    api.put(*(pod(f"p{i}", labels={"note": "n" * 90_000}) for i in range(3)))
    pods = await follow()
    await watched(api)
    assert len(pods.names) == 3


async def test_a_kind_whose_metadata_is_enough_is_asked_for_no_more(api: ApiServer, follow: Follow) -> None:
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "namespace": "shop", "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}]},
        "spec": {"replicas": "not even a number"},
    }
    api.put(replica_set)
    sets = await follow(ReplicaSet)
    await watched(api, "replicasets.apps")
    api.put({**replica_set, "metadata": {"name": "web-2", "namespace": "shop"}})
    await until(lambda: len(sets.names) == 2)
    assert all("as=PartialObjectMetadata" in r.accept for r in api.asked("replicasets.apps"))
    assert sets.informer.objects["shop"]["web-1"].metadata.owner_references[0].name == "web"
    assert not sets.informer.malformed


async def test_one_namespace_and_one_name_are_asked_for_by_the_server(api: ApiServer, follow: Follow) -> None:
    for namespace in ("istio-system", "shop"):
        for name in ("istio", "other"):
            api.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"mesh": "{}"}})
    maps = await follow(ConfigMap, namespace="istio-system", name="istio")
    await watched(api, "configmaps")
    assert {ns: set(named) for ns, named in maps.informer.objects.items()} == {"istio-system": {"istio"}}
    assert {r.path for r in api.asked("configmaps")} == {"/api/v1/namespaces/istio-system/configmaps"}
    assert {r.query["fieldSelector"] for r in api.asked("configmaps")} == {"metadata.name=istio"}


# --- watch -----------------------------------------------------------------------------------------------------------------


async def test_events_become_changes_and_old_objects_stay_as_they_were(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"), pod("b"), pod("c", "other"))
    pods = await follow()
    await watched(api)
    before = pods.informer.objects
    api.put(pod("a", labels={"version": "v2"}))
    api.delete(PODS, "shop", "b")
    api.put(pod("d"))
    await until(lambda: len(pods.changes) == 6)
    assert pods.names == {"a", "c", "d"}
    assert {(c.cluster, c.kind, c.namespace, c.name, c.new is None) for c in pods.changes[3:]} == {
        ("east", Pod, "shop", "a", False),
        ("east", Pod, "shop", "b", True),
        ("east", Pod, "shop", "d", False),
    }
    assert set(before["shop"]) == {"a", "b"}
    assert before["shop"]["a"].labels == {}
    assert pods.informer.objects["other"] is before["other"], "a namespace that nothing touched is shared, not copied"


async def test_a_heartbeat_that_no_rule_reads_is_no_change(api: ApiServer, follow: Follow) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    api.put(node)
    nodes = await follow(Node)
    await watched(api, "nodes")
    beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-09-01T10:00:05Z"}
    api.put({**node, "status": {"conditions": [beat]}})
    api.put({**node, "metadata": {"name": "n", "labels": {"zone": "a"}}})
    await until(lambda: len(nodes.changes) == 2)
    assert nodes.informer.objects[""]["n"].labels == {"zone": "a"}


async def test_who_wrote_what_no_rule_reads_is_known_and_no_change(api: ApiServer, follow: Follow) -> None:
    def rule(manager: str, minute: int, **spec: object) -> dict[str, object]:
        managed = [{"manager": manager, "operation": "Update", "time": f"2026-11-28T14:{minute:02d}:00Z", "fieldsV1": {}}]
        meta = {"name": "cart", "namespace": "shop", "managedFields": managed}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": {"hosts": ["cart"], **spec}}

    api.put(rule("helm", 0))
    rules = await follow(VirtualService)
    await watched(api, "virtualservices.networking.istio.io")
    api.put(rule("kubectl-edit", 5, unread={"retries": 3}))
    cart = rules.informer.objects["shop"]["cart"]
    await until(lambda: [w.manager for w in cart.metadata.managed_fields] == ["kubectl-edit"])
    assert rules.informer.objects["shop"]["cart"] is cart
    assert len(rules.changes) == 1


async def test_the_copy_that_kubectl_apply_keeps_is_not_kept_twice(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a", annotations={"kubectl.kubernetes.io/last-applied-configuration": "{...}", "sidecar.istio.io/inject": "false"}))
    pods = await follow()
    await watched(api)
    assert pods.informer.objects["shop"]["a"].annotations == {"sidecar.istio.io/inject": "false"}


async def test_what_applications_are_configured_with_is_not_kept(api: ApiServer, follow: Follow) -> None:
    env = {"env": [{"name": "PASSWORD", "value": "hush"}], "args": ["--token=hush"]}
    spec = {"containers": [{"name": "app", **env}, {"name": "istio-proxy", **env}], "initContainers": [{"name": "migrate", **env}]}
    api.put({**pod("a"), "spec": spec})
    pods = await follow()
    await watched(api)
    kept = pods.informer.objects["shop"]["a"]
    assert isinstance(kept, Pod)
    assert [(c.name, c.env is None, c.args) for c in (*kept.spec.containers, *(kept.spec.init_containers or ()))] == [
        ("app", True, None),
        ("istio-proxy", False, ("--token=hush",)),
        ("migrate", True, None),
    ]


async def test_the_pods_of_one_template_share_what_they_have_in_common(api: ApiServer, follow: Follow) -> None:
    def made(name: str, image: str) -> dict[str, Any]:
        owner = {"kind": "ReplicaSet", "name": "web-1", "controller": True}
        containers = [{"name": "istio-proxy", "image": image, "env": [{"name": "ISTIO_META_NETWORK", "value": "n1"}]}]
        return {**pod(name, labels={"app": "web"}, ownerReferences=[owner]), "spec": {"nodeName": name, "containers": containers}}

    api.put(made("a", "proxy:1"), made("b", "proxy:1"), made("c", "proxy:2"))
    pods = await follow()
    await watched(api)
    api.put(made("d", "proxy:1"))
    await until(lambda: len(pods.names) == 4)
    a, b, c, d = (pods.informer.objects["shop"][name] for name in "abcd")
    assert isinstance(a, Pod)
    assert isinstance(b, Pod)
    assert isinstance(c, Pod)
    assert isinstance(d, Pod)
    assert a.spec.containers is b.spec.containers is d.spec.containers
    assert a.metadata.labels is b.metadata.labels is c.metadata.labels is d.metadata.labels
    assert [p.spec.containers[0].image for p in (a, b, c, d)] == ["proxy:1", "proxy:1", "proxy:2", "proxy:1"]
    assert [p.spec.node_name for p in (a, b, c, d)] == ["a", "b", "c", "d"]


async def test_a_closed_watch_is_resumed_from_its_resource_version(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    pods = await follow()
    await watched(api)
    api.put(pod("b"))
    await until(lambda: "b" in pods.names)
    seen = str(api.version)
    api.close_watches()
    api.put(pod("c"))
    await until(lambda: "c" in pods.names)
    assert len(api.asked(PODS, "list")) == 1
    assert api.asked(PODS, "watch")[-1].query["resourceVersion"] == seen


async def test_a_server_that_closes_every_watch_is_not_hammered(api: ApiServer, follow: Follow) -> None:
    pods = await follow(pace=replace(FAST, backoff_s=0.1, backoff_max_s=0.4))
    for _ in range(60):
        await asyncio.sleep(0.01)
        api.close_watches()
    assert 2 <= len(api.asked(PODS, "watch")) <= 8
    assert not pods.informer.unreadable


async def test_a_watch_ends_in_time_for_a_bookmark_and_goes_on_from_it(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    pods = await follow(pace=replace(FAST, silence_s=5))
    await watched(api)
    api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}})  # moves the version, but not of pods
    moved = str(api.version)
    await until(lambda: len(api.asked(PODS, "watch")) == 2)
    assert api.asked(PODS, "watch")[-1].query["resourceVersion"] == moved
    assert pods.names == {"a"}
    assert not pods.informer.malformed, "a bookmark is not decoded as a pod"


async def test_a_bookmark_in_the_middle_moves_the_version(api: ApiServer, follow: Follow) -> None:
    namespaces = await follow(Namespace)
    await watched(api, "namespaces")
    api.put(pod("a"))
    api.bookmark("namespaces")
    await asyncio.sleep(0.05)
    api.close_watches("namespaces")
    await until(lambda: len(api.asked("namespaces", "watch")) == 2)
    assert api.asked("namespaces", "watch")[-1].query["resourceVersion"] == str(api.version)
    assert namespaces.names == set()


@pytest.mark.parametrize("in_band", [False, True])
async def test_an_expired_version_is_listed_anew_and_only_the_difference_told(api: ApiServer, follow: Follow, *, in_band: bool) -> None:
    api.gone_in_band = in_band
    api.put(pod("stays"), pod("goes"), pod("changes"))
    pods = await follow()
    await watched(api)
    api.compact()
    api.close_watches()
    await until(lambda: not api.watching(PODS))
    # What happens now is not in any event that the next watch could get.
    api.delete(PODS, "shop", "goes")
    api.put(pod("changes", labels={"v": "2"}), pod("comes"))
    api.compact()
    await until(lambda: len(pods.changes) == 6)
    assert {(c.name, c.new is None) for c in pods.changes[3:]} == {("goes", True), ("changes", False), ("comes", False)}
    assert not pods.informer.unreadable


async def test_a_server_that_forgets_at_once_is_not_hammered(api: ApiServer, follow: Follow) -> None:
    pods = await follow(pace=replace(FAST, backoff_s=0.1, backoff_max_s=0.4))
    await watched(api)
    api._horizon = 10**9
    api.close_watches()
    await asyncio.sleep(0.7)
    assert 2 <= len(api.asked(PODS, "list")) <= 8
    assert not pods.informer.unreadable


async def test_a_half_open_connection_is_noticed_and_healed(api: ApiServer, follow: Follow) -> None:
    api.bookmark_at_end = False
    api.put(pod("a"))
    pods = await follow()
    await watched(api)
    api.silent = True
    api.put(pod("b"))
    await until(lambda: pods.informer.unreadable, 3)
    assert pods.informer.lost
    assert "no answer within 0.3 s" in pods.informer.unreadable
    assert pods.names == {"a"}, "what was known is kept"
    api.silent = False
    await until(lambda: "b" in pods.names)
    assert not pods.informer.unreadable


async def test_a_quiet_but_healthy_watch_is_never_called_lost(api: ApiServer, follow: Follow) -> None:
    api.bookmark_at_end = False
    pods = await follow(pace=replace(FAST, silence_s=0.1))
    await asyncio.sleep(0.6)
    assert pods.informer.settled
    assert not any(pods.batches)
    assert len(pods.batches) == 1, "one batch said that the list is read, and nothing changed since"
    assert len(api.asked(PODS, "list")) == 1


def test_the_default_pace_notices_a_half_open_connection_within_a_minute() -> None:
    pace = Pace()
    assert pace.silence_s + pace.answer_s <= 60
    assert pace.watch_s < pace.silence_s, "a healthy server speaks, at the end of a watch, before it counts as silent"


async def test_a_server_that_stops_is_lost_after_the_grace_and_found_again(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    pods = await follow()
    await watched(api)
    await api.down()
    await until(lambda: pods.informer.lost)
    assert pods.informer.unreadable == f"127.0.0.1:{api.port} cannot be reached: Connection refused"
    assert pods.names == {"a"}
    assert pods.changes == pods.batches[0]
    await api.up()
    await until(lambda: not pods.informer.lost)
    api.put(pod("b"))
    await until(lambda: "b" in pods.names)


async def test_after_two_thousand_random_events_and_faults_the_informer_holds_what_the_server_holds(api: ApiServer, follow: Follow) -> None:
    pick = random.Random(7)  # noqa: S311 - the same story in every run
    pods = await follow(pace=replace(FAST, page=20, watch_s=1, silence_s=2, answer_s=2, grace_s=9))
    await watched(api)
    mirror: dict[tuple[str, str], Resource] = {}
    there: set[tuple[str, str]] = set()
    for step in range(2_000):
        namespace, name = f"n{pick.randrange(4)}", f"p{pick.randrange(30)}"
        if (namespace, name) in there and pick.random() < 0.4:
            there.discard((namespace, name))
            api.delete(PODS, namespace, name)
        else:
            there.add((namespace, name))
            api.put(pod(name, namespace, labels={"v": str(pick.randrange(3))}))
        match pick.randrange(100):
            case 0:
                api.close_watches()
            case 1:
                api.compact()
            case 2:
                api.compact()
                api.gone_in_band = not api.gone_in_band
                api.close_watches()
            case 3:
                api.say(PODS, b"{nonsense")
        if step % 10 == 0:
            await asyncio.sleep(0.002)
    api.put(pod("last", "n0"))
    await until(lambda: "last" in pods.names, 10)
    held = {(ns, n): o for ns, named in pods.informer.objects.items() for n, o in named.items()}
    assert set(held) == there | {("n0", "last")}
    assert {key: o.labels for key, o in held.items()} == {key: o["metadata"].get("labels", {}) for key, o in api._objects[PODS].items()}
    for change in pods.changes:
        if change.new is None:
            del mirror[change.namespace, change.name]  # what was never told of cannot go
        else:
            mirror[change.namespace, change.name] = change.new
    assert mirror == held, "the changes alone lead to the same objects"


# --- refusals --------------------------------------------------------------------------------------------------------------


async def test_a_forbidden_kind_is_unreadable_and_says_what_the_server_said(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    api.forbid(PODS)
    pods = await follow()
    await until(lambda: pods.informer.settled)
    assert pods.informer.unreadable.startswith('403: pods is forbidden: User "system:serviceaccount:ops:meshwhy" cannot list')
    assert not pods.informer.lost
    api.forbidden.clear()
    await until(lambda: pods.names == {"a"})
    assert not pods.informer.unreadable


async def test_a_right_that_is_taken_away_keeps_what_was_known(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    pods = await follow()
    await watched(api)
    api.forbid(PODS)
    api.close_watches()
    await until(lambda: pods.informer.unreadable)
    assert pods.names == {"a"}
    assert [c for c in pods.changes if c.new is None] == []


async def test_a_kind_that_may_be_listed_but_not_watched_stays_unreadable(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    api.forbid(PODS, "watch")
    pods = await follow()
    await until(lambda: pods.informer.unreadable)
    told = len(pods.batches)
    await until(lambda: len(api.asked(PODS, "list")) >= 4)
    assert pods.informer.unreadable
    assert len(pods.batches) == told, "the state does not flap at each new try"
    assert pods.names == {"a"}


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_hiccup_is_not_told_until_it_lasts(api: ApiServer, follow: Follow, status: int) -> None:
    api.failing[PODS] = (status, {})
    pods = await follow()
    await asyncio.sleep(0.1)
    assert not pods.informer.unreadable
    assert not pods.informer.settled
    await until(lambda: pods.informer.unreadable == f"{status}: the server is not well")
    assert not pods.informer.lost
    assert pods.informer.settled
    api.failing.clear()
    await until(lambda: not pods.informer.unreadable)


async def test_retry_after_is_obeyed(api: ApiServer, follow: Follow) -> None:
    api.failing[PODS] = (429, {"Retry-After": "30"})
    await follow()
    await asyncio.sleep(0.5)
    assert len(api.asked(PODS, "list")) == 1


async def test_failures_come_at_a_growing_and_random_distance(api: ApiServer, follow: Follow) -> None:
    api.failing[PODS] = (503, {})
    pods = await follow(pace=replace(FAST, backoff_s=1, backoff_max_s=30))
    waits = []
    for failures in range(1, 12):
        pods.informer._failures = failures
        waits.append([pods.informer._backoff() for _ in range(50)])
    for failures, some in enumerate(waits, 1):
        most = min(30, 2 ** (failures - 1))
        assert most / 2 <= min(some) < max(some) <= most
        assert len(set(some)) > 40


async def test_an_answer_that_is_no_kubernetes_is_said(api: ApiServer, follow: Follow) -> None:
    async def login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 22\r\nConnection: close\r\n\r\n<html>Sign in</html>  ")
        await writer.drain()
        writer.close()

    await api.down()
    async with await asyncio.start_server(login, "127.0.0.1", api.port):
        pods = await follow()
        await until(lambda: pods.informer.unreadable)
    assert "malformed" in pods.informer.unreadable
    assert pods.informer.lost


# --- versions and absent kinds ---------------------------------------------------------------------------------------------


async def test_the_newest_version_that_the_server_serves_is_asked_for(api: ApiServer, follow: Follow) -> None:
    api.served["networking.istio.io"] = ("v1alpha3", "v1beta1")
    api.put(virtual_service("cart"))
    services = await follow(VirtualService)
    await watched(api, VIRTUAL_SERVICES)
    assert {r.version for r in api.asked(VIRTUAL_SERVICES)} == {"v1beta1"}
    assert services.names == {"cart"}


async def test_a_version_that_goes_is_replaced(api: ApiServer, follow: Follow) -> None:
    api.served["networking.istio.io"] = ("v1beta1",)
    api.put(virtual_service("cart"))
    services = await follow(VirtualService)
    await watched(api, VIRTUAL_SERVICES)
    api.served["networking.istio.io"] = ("v1",)
    api.close_watches()
    await until(lambda: api.watching(VIRTUAL_SERVICES) and api.watching(VIRTUAL_SERVICES)[0].version == "v1")
    assert services.names == {"cart"}
    assert [c.new is None for c in services.changes] == [False], "the objects never went"


async def test_an_absent_kind_is_empty_and_is_picked_up_when_it_comes(api: ApiServer, follow: Follow) -> None:
    api.absent.add(VIRTUAL_SERVICES)
    services = await follow(VirtualService)
    await until(lambda: services.informer.settled)
    assert services.informer.absent
    assert not services.informer.unreadable
    assert api.asked(VIRTUAL_SERVICES) == [], "a kind that is not there is not asked for, since RBAC might answer instead"
    api.absent.clear()
    api.put(virtual_service("cart"))
    await until(lambda: services.names == {"cart"})
    assert not services.informer.absent


async def test_a_kind_that_is_removed_takes_its_objects_with_it(api: ApiServer, follow: Follow) -> None:
    api.put(virtual_service("cart"))
    services = await follow(VirtualService)
    await watched(api, VIRTUAL_SERVICES)
    api.absent.add(VIRTUAL_SERVICES)
    api.close_watches()
    await until(lambda: services.informer.absent)
    assert [(c.name, c.new is None) for c in services.changes] == [("cart", False), ("cart", True)]


# --- bad objects -----------------------------------------------------------------------------------------------------------


async def test_one_bad_object_in_a_page_never_stops_the_rest(api: ApiServer, follow: Follow) -> None:
    api.put(virtual_service("good"), virtual_service("bad", hosts="cart"), virtual_service("fine"))
    services = await follow(VirtualService)
    await watched(api, VIRTUAL_SERVICES)
    assert services.names == {"good", "fine"}
    (bad,) = services.informer.malformed
    assert bad.ref == "VirtualService shop/bad"
    assert "Expected `array | null`, got `str`" in bad.reason
    assert "spec.hosts" in bad.reason


async def test_an_object_that_goes_bad_keeps_its_last_readable_form_until_it_is_mended(api: ApiServer, follow: Follow) -> None:
    api.put(virtual_service("cart"))
    services = await follow(VirtualService)
    await watched(api, VIRTUAL_SERVICES)
    told = len(services.batches)
    api.put(virtual_service("cart", hosts=7), virtual_service("other"))
    await until(lambda: services.names == {"cart", "other"})
    assert services.informer.malformed[0].ref == "VirtualService shop/cart"
    assert len(services.batches) > told
    api.compact()
    api.close_watches()
    await until(lambda: len(api.asked(VIRTUAL_SERVICES, "list")) == 2)
    await watched(api, VIRTUAL_SERVICES)
    assert services.names == {"cart", "other"}, "a new list changes nothing about that"
    api.put(virtual_service("cart", hosts=("cart", "cart.example")))
    await until(lambda: not services.informer.malformed)
    assert services.informer.objects["shop"]["cart"].spec.hosts == ("cart", "cart.example")  # type: ignore[attr-defined]
    api.put(virtual_service("cart", hosts=7))
    await until(lambda: services.informer.malformed)
    api.delete(VIRTUAL_SERVICES, "shop", "cart")
    await until(lambda: services.names == {"other"})
    assert not services.informer.malformed


async def test_a_line_that_is_no_event_makes_a_new_list(api: ApiServer, follow: Follow) -> None:
    api.put(pod("a"))
    pods = await follow()
    await watched(api)
    api.put(pod("b"))
    api.say(PODS, b'{"type":"ADDED","obj')
    await until(lambda: len(api.asked(PODS, "list")) == 2)
    await until(lambda: pods.names == {"a", "b"})
    assert not pods.informer.unreadable


def test_an_event_is_understood_whatever_the_order_of_its_keys() -> None:
    codec = Codec(KIND_OF[Pod])
    bookmark = b'{"object":{"kind":"Pod","metadata":{"resourceVersion":"7"},"spec":{"containers":null}},"type":"BOOKMARK"}'
    assert codec.event(bookmark) == ("BOOKMARK", None, "7")
    type_, read, version = codec.event(b'{"object":{"metadata":{"name":"a","resourceVersion":"8"}}, "type": "DELETED"}')
    assert (type_, version) == ("DELETED", "8")
    assert isinstance(read, Pod)
    with pytest.raises(Refused) as refused:
        codec.event(b'{"object":{"kind":"Status","code":410,"message":"too old"},"type":"ERROR"}')
    assert refused.value.status == 410
    assert isinstance(codec.event(b'{"type":"ADDED","object":{"metadata":{"name":"a"},"spec":7}}')[1], Unread)


def test_a_bookmark_of_a_kind_that_it_would_fit_is_still_no_object() -> None:
    codec = Codec(KIND_OF[Deployment])
    assert codec.event(b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}') == ("BOOKMARK", None, "9")
