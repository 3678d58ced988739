"""Whom a question asks of the running parts, over the API server of each cluster: a real Envoy, an istiod made after its source, and what hangs."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bot.__main__
from bot import informers, manifests, settings
from bot.clusters import Clusters, ClusterSource
from bot.probes import Probe, asking, gather, istiod, logs, pods, whom
from checks import diagnosis
from checks.evidence import NOTHING, Evidence
from checks.finding import Skipped
from checks.mesh import Mesh
from checks.resources import Pod
from tests.apiserver import ApiServer, until
from tests.envoys import DESTINATION, V1
from tests.istiods import Istiod, endpoint, sync
from tests.test_saved import ZTUNNEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.asking import Answer
    from tests.envoys import Mesh as Envoys


def pod(name: str, namespace: str, ip: str, *, container: str = "istio-proxy", **labels: str) -> str:
    said = ", ".join(f'{k.replace("_", "-")}: "{v}"' for k, v in labels.items())
    return f"""
---
kind: Pod
apiVersion: v1
metadata: {{name: {name}, namespace: {namespace}, labels: {{{said}}}}}
spec: {{nodeName: n1, containers: [{{name: {container}, image: x}}]}}
status: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: "True"}}]}}
"""


CAPTURED = "metadata: {annotations: {ambient.istio.io/redirection: enabled}, "

OBJECTS = f"""
{pod("web-7f", "shop", "10.1.2.3", app="web")}
{pod("web-7g", "shop", "10.1.2.4", app="web")}
{pod("web-7h", "shop", "10.1.2.5", app="web")}
{pod("v2-0", "mynamespace", "10.1.0.7", app="destination", version="v2")}
{pod("istiod-1", "istio-system", "10.1.9.1", container="discovery", app="istiod")}
---
kind: Service
apiVersion: v1
metadata: {{name: destination, namespace: mynamespace}}
spec: {{clusterIP: 10.96.0.1, selector: {{app: destination}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {{name: destination-1, namespace: mynamespace, labels: {{kubernetes.io/service-name: destination}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.1.0.7], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: v2-0, namespace: mynamespace}}}}]
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {{name: destination, namespace: mynamespace}}
spec: {{host: destination, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {{name: destination, namespace: mynamespace}}
spec:
  hosts: [destination]
  http:
    - route: [{{destination: {{host: destination, subset: v1}}, weight: 95}}, {{destination: {{host: destination, subset: v2}}, weight: 5}}]
"""


UH = (
    '[2026-11-22T12:23:31.748Z] "GET / HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0 - "-" "curl/8.5" "ffc7" "destination" "-" '
    f"{V1} - 127.0.0.1:15001 127.0.0.1:48740 - default\n"
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An istiod's metrics are read twice without a wait in between."""
    monkeypatch.setattr(istiod, "OVER_S", 0.0)


class Running:
    """Clusters that are followed, and what their API servers forward to."""

    def __init__(self, clusters: Clusters, east: ApiServer, west: ApiServer, control: Istiod) -> None:
        self.clusters, self.east, self.west, self.control = clusters, east, west, control

    async def gathered(self, reach: Callable[[str], asking.Reach | None] | None = None, within_s: float = 12.0) -> Evidence:
        meshes = Mesh.of(self.clusters.clusters(), time.time())
        probes = asking.probing(reach or asking.registered(self.clusters))(diagnosis.why(DESTINATION, meshes), meshes)
        found = NOTHING
        async for some in gather(probes, within_s):
            found = some.evidence
        return found


@asynccontextmanager
async def running(mesh_envoy: Envoys, tmp_path: Path, **allowed: bool) -> AsyncIterator[Running]:
    """East with a real Envoy in web-7f and an istiod, and west, of the same mesh."""
    east, west = ApiServer(), ApiServer()
    shards = {DESTINATION: {"Kubernetes/east": [endpoint("10.1.0.7")]}, "other.x.svc.cluster.local": {"Kubernetes/east": []}}
    async with east, west, Istiod([sync("web-7f.shop", CDS=("a", "a"), EDS=("b", "a"))], shards) as control:
        for api in (east, west):
            api.load(OBJECTS)
            api.forwarded["shop", "web-7f", 15000] = int(mesh_envoy.envoy.admin.rpartition(":")[2])
            api.forwarded["istio-system", "istiod-1", 15014] = control.port
            api.logs["shop", "web-7f", "istio-proxy"] = 3 * UH
            api.logs["istio-system", "istiod-1", "discovery"] = "2026-11-22T14:02:01Z\tinfo\tservice x at shard y has no endpoints\n"
        sources = [
            ClusterSource(name, mesh="prod", context=name, kubeconfig=api.kubeconfig(tmp_path / name, context=name), **allowed)
            for name, api in (("east", east), ("west", west))
        ]
        clusters = Clusters(sources)
        following = asyncio.create_task(clusters.run())
        try:
            assert await clusters.synced(20)
            yield Running(clusters, east, west, control)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_what_an_application_says_is_known_by_when_it_was_written(mesh_envoy: Envoys, tmp_path: Path) -> None:
    async with running(mesh_envoy, tmp_path, logs=True) as it:
        it.east.logs["shop", "web-7f", "app"] = "dial tcp 10.96.0.20:80: connect: connection refused\n"
        _, server = it.clusters.way("east")
        assert server is not None
        text = await pods.log(server, "shop", "web-7f", "app", patience_s=5, stamped=True)
    (line,) = logs.of_text(text, "east", "shop", "web-7f", "app", "here").other
    assert (line.at, line.text.partition(" ")[2][:8]) == (1793697602.123456, "dial tcp")


async def test_callers_servers_and_istiods_are_asked_and_one_cluster_that_hangs_delays_no_other(
    mesh_envoy: Envoys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(istiod, "OVER_S", 0.2)
    monkeypatch.setattr(asking, "ALL_S", 3.0)
    async with running(mesh_envoy, tmp_path, deep=True, logs=True) as it:
        it.west.silent = True
        begun = time.monotonic()
        found = await it.gathered()
        assert time.monotonic() - begun < 8
        it.west.silent = False

    (view,) = found.envoys
    assert (view.cluster, view.pod, view.source, view.clusters[V1].hosts) == ("east", "web-7f", "shop/web-7f:15000", ())
    assert view.stats is not None
    (replica,) = found.istiods
    assert replica.proxies is not None
    assert replica.proxies["web-7f.shop"].states == {"CDS": "SYNCED", "EDS": "STALE"}
    assert replica.shards is not None
    assert {host: [e.address for e in some] for host, some in replica.shards.items()} == {DESTINATION: ["10.1.0.7:8080"]}
    assert replica.growth is not None
    assert replica.growth['pilot_total_xds_rejects{type="cds"}'] == 1
    assert replica.over_s >= 0.2
    assert (replica.version, replica.remotes) == ("1.27.1", {"east": "synced"})
    assert [line.text[-16:] for line in replica.lines or ()] == ["has no endpoints"]
    (log,) = found.logs
    assert (log.cluster, log.proxy, log.container, log.read, log.cut) == ("east", "web-7f.shop", "istio-proxy", 3, False)
    assert [(a.count, a.code, a.flags, a.envoy_cluster) for a in log.accesses] == [(3, 503, ("UH",), V1)]
    assert {s.reason.partition(" was not read")[0] for s in found.skipped if (s.check, s.cluster) == ("logs", "east")} == {
        "the log of istio-proxy in web-7g.shop",
        "the log of istio-proxy in v2-0.mynamespace",
    }
    east = {s.reason for s in found.skipped if s.cluster == "east" and s.check != "logs"}
    assert east == {
        f"Envoy {name} was not read: there is no pod {where} any more (HTTP 404)"
        for name, where in (("web-7g.shop", "shop/web-7g"), ("v2-0.mynamespace", "mynamespace/v2-0"))
    }  # two of three callers that are alike, and a server
    west = [s for s in found.skipped if s.cluster == "west"]
    assert {s.check for s in west} == {"envoy", "istiod", "logs"}
    assert all("within" in s.reason or "did not come" in s.reason or "no answer" in s.reason for s in west), west
    assert set(it.control.asked) == {f"GET {request}" for request in istiod.Request}
    assert {r.verb for r in it.east.requests} <= {"get", "list", "watch", "discovery"}


async def test_what_is_not_allowed_is_not_tried_and_says_what_allows_it(mesh_envoy: Envoys, tmp_path: Path) -> None:
    async with running(mesh_envoy, tmp_path) as it:
        found = await it.gathered()
        assert it.east.asked("pods/portforward") == it.east.asked("pods/log") == []
    assert not found
    east = [(s.check, s.reason) for s in found.skipped if s.cluster == "east"]
    assert sorted(check for check, _ in east) == ["envoy", "istiod", "istiod", "logs"]
    assert all("`deep: true`" in reason or "`logs: true`" in reason for _, reason in east)


async def test_without_the_permission_everything_says_so_and_the_log_is_read_all_the_same(mesh_envoy: Envoys, tmp_path: Path) -> None:
    async with running(mesh_envoy, tmp_path, deep=True, logs=True) as it:
        it.east.forbid("pods/portforward")
        it.west.forbid("pods/log")
        it.west.forwarded["istio-system", "istiod-1", 15014] = "connection refused"
        found = await it.gathered()
    assert [(v.cluster, v.metrics, bool(v.lines)) for v in found.istiods] == [("east", None, True)]
    assert [v.cluster for v in found.envoys] == ["west"]
    assert {s.check for s in found.skipped if s.cluster == "east" and "`deep: true` in the chart grants it" in s.reason} == {
        "envoy",
        "istiod",
    }
    west = "\n".join(s.reason for s in found.skipped if s.cluster == "west")
    assert "the log of istiod istiod-1.istio-system was not read: no permission to read logs in namespace istio-system" in west
    assert "istiod istiod-1.istio-system was not read: nothing listens on port 15014 in the pod" in west


@pytest.mark.parametrize(
    ("answers", "missing"),
    [
        ({"/debug/endpointShardz": b'{"%s":{"mynamespace":{"Shards"' % DESTINATION.encode()}, {"shards"}),
        ({"/debug/syncz": 401, "/debug/push_status": b"<html>"}, {"proxies", "status"}),
    ],
)
async def test_a_part_that_cannot_be_read_is_none_and_said(
    mesh_envoy: Envoys, tmp_path: Path, answers: dict[str, Any], missing: set[str]
) -> None:
    async with running(mesh_envoy, tmp_path, deep=True, logs=True) as it:
        it.control.answers.update(answers)
        found = await it.gathered()
    view = found.istiods[0]
    parts = ("proxies", "shards", "metrics", "growth", "status", "remotes", "lines")
    assert {part for part in parts if getattr(view, part) is None} == missing
    assert len([s for s in found.skipped if s.check == "istiod" and s.cluster == "east"]) == len(missing)


async def test_where_not_every_replica_is_asked_it_is_said(mesh_envoy: Envoys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "REPLICAS", 0)
    async with running(mesh_envoy, tmp_path, deep=True, logs=True) as it:
        found = await it.gathered()
    assert found.istiods == ()
    assert {s.reason for s in found.skipped if s.check == "istiod"} == {"1 more istiods were not asked than the 0 that were"}


async def test_ztunnels_between_captured_pods_are_asked(mesh_envoy: Envoys, tmp_path: Path) -> None:
    captured = pod("v2-0", "mynamespace", "10.1.0.7", app="destination", version="v2").replace("metadata: {", CAPTURED)
    async with running(mesh_envoy, tmp_path, deep=True) as it:
        it.control.answers["/config_dump"] = ZTUNNEL.encode()
        for name, node in (("ztunnel-a", "n9"), ("ztunnel-b", "n8"), ("ztunnel-x", "n1")):
            it.east.load(
                pod(name, "istio-system", "10.1.0.9", container="istio-proxy", app="ztunnel")
                .replace("n1", node)
                .replace("image: x", "image: istio/ztunnel:1.27.1")
            )
        it.east.load(captured)
        it.east.forwarded["istio-system", "ztunnel-x", 15000] = it.control.port
        await until(lambda: "ztunnel-x" in it.clusters.clusters()[0].objects[Pod].get("istio-system", {}))
        found = await it.gathered()
    (view,) = found.ztunnels  # that of the server's node comes first
    assert (view.pod, view.node, view.usable["web.shop"]) == ("ztunnel-x", "n2", ("10.1.0.7:8080",))
    assert [s.check for s in found.skipped if "ztunnel-a" in s.reason] == ["ztunnel"]
    assert "GET /config_dump" in it.control.asked


async def test_few_ways_are_open_at_once_whatever_is_asked(mesh_envoy: Envoys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informers, "_SOCKETS", 2)
    async with running(mesh_envoy, tmp_path, deep=True) as it:
        for name in ("web-7g", "web-7h"):
            it.east.forwarded["shop", name, 15000] = it.east.forwarded["shop", "web-7f", 15000]
        await asyncio.gather(*(it.gathered() for _ in range(3)))
        assert it.east.most_opened == 2


async def test_from_inside_the_cluster_metrics_need_no_permission(
    mesh_envoy: Envoys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(mesh_envoy, tmp_path) as it:
        base = {15014: f"http://127.0.0.1:{it.control.port}", 15090: "http://127.0.0.1:1", 15020: mesh_envoy.envoy.admin}
        monkeypatch.setattr(asking, "_base", lambda pod, port: base[port] if pod.name in {"web-7f", "istiod-1"} else base[15090])
        found = await it.gathered(lambda name: asking.Reach(it.clusters.way(name)[1], inside=name == "east"))
        assert set(it.control.asked) == {"GET /metrics"}
    (scraped,) = found.scraped
    assert (scraped.cluster, scraped.proxy, scraped.source) == ("east", "web-7f.shop", "shop/web-7f:15020")
    assert scraped.stats["cluster_manager.warming_clusters"] >= 1
    assert found.envoys == ()
    assert not found.tells("envoy"), "what it does not say is not clean"
    assert {s.reason.partition(":")[0] for s in found.skipped if (s.check, s.cluster) == ("envoy", "east")} == {
        "statistics alone were read"
    }
    (view,) = found.istiods
    assert (view.cluster, view.proxies, view.metrics is None, view.growth is None) == ("east", None, False, False)
    assert any("metrics alone were read" in s.reason for s in found.skipped)


def test_a_mesh_of_several_in_one_cluster_is_asked_by_the_way_of_its_cluster(tmp_path: Path) -> None:
    scenario = Path(__file__).parent / "scenarios" / "discovery-selectors-of-a-member-roll__healthy" / "east.yaml"
    meshes = Mesh.of([manifests.read(str(scenario), "east", read_at=0.0)], 0.0)
    assert any("/" in c.name for m in meshes for c in m.clusters)
    clusters = Clusters([ClusterSource("east", context="east", kubeconfig=str(tmp_path / "none"))])
    for mesh in meshes:
        told = diagnosis.diagnose(diagnosis.swept(mesh)[0], mesh)
        asked = asking.probing(asking.registered(clusters))(told, meshes)
        assert all(p.cluster in {c.name for c in mesh.clusters} for p in asked)


def test_however_many_call_a_few_are_asked(tmp_path: Path) -> None:
    more = [pod(f"caller-{n}", f"ns-{n % 6}", f"10.2.0.{n}", app=f"a{n}") for n in range(30)]
    more += [
        pod(f"gw-{n}", f"gw-{n}", f"10.4.0.{n}", istio=f"gw-{n}").replace("image: x", "image: x, args: [proxy, router]") for n in range(9)
    ]
    more += [pod(f"istiod-{n + 2}", "istio-system", f"10.3.0.{n}", container="discovery", app="istiod") for n in range(9)]
    stopped = pod("stopped", "shop", "10.2.1.1", app="web").replace("Running", "Succeeded")
    (tmp_path / "east.yaml").write_text("".join([*more, stopped, OBJECTS]))
    meshes = Mesh.of([manifests.read(str(tmp_path / "east.yaml"), "east", read_at=0.0)], 0.0)
    told = diagnosis.why(DESTINATION, meshes)
    (mesh,) = meshes
    (east,) = mesh.clusters
    proxies = whom.envoys(told, mesh, east, whom.servers(told, mesh, east))
    assert 2 <= len(proxies) <= whom.PROXIES
    assert len({p.name for p in proxies}) == len(proxies)
    assert "v2-0" in {p.name for p in proxies}
    assert "stopped" not in {p.name for p in proxies}
    assert len(whom.istiods(mesh, east, proxies)) == 10  # of which asking takes the first
    assert whom.hosts(told) == [DESTINATION]


async def test_a_probe_that_fails_is_one_look_that_was_not_taken() -> None:
    async def broken() -> Evidence:
        raise ZeroDivisionError("one by none")

    async def well() -> Evidence:
        return Evidence(skipped=(Skipped("istiod", "east", "nobody there"),))

    async for gathered in gather([Probe("envoy", "east", broken), Probe("istiod", "east", well)]):
        last = gathered
    assert {(s.check, s.reason) for s in last.evidence.skipped} == {
        ("envoy", "the probe itself failed: ZeroDivisionError: one by none"),
        ("istiod", "nobody there"),
    }


async def test_a_bot_asks_what_its_settings_allow(mesh_envoy: Envoys, tmp_path: Path) -> None:
    async with running(mesh_envoy, tmp_path):
        (tmp_path / "meshwhy.yaml").write_text(
            f"""
slack: {{app_token: {{env: A}}, bot_token: {{env: T}}}}
alerts: {{default_channel: "#mesh"}}
clusters:
  - {{name: east, mesh: prod, context: east, kubeconfig: "{tmp_path}/east", deep: true, logs: true}}
  - {{name: lab, path: "{tmp_path}/lab"}}
"""
        )
        settled = settings.load(tmp_path / "meshwhy.yaml", {"T": "xoxb-1", "A": "xapp-1"})
        clusters = Clusters([ClusterSource.registered(c) for c in settled.clusters])
        following = asyncio.create_task(clusters.run())
        await clusters.synced(20)
        meshes = Mesh.of(clusters.clusters(), time.time())
        probes = bot.__main__._probing(settled, clusters)(diagnosis.why(DESTINATION, meshes), meshes)
        assert [(p.kind, p.cluster) for p in probes] == [("envoy", "east"), ("logs", "east"), ("istiod", "east")]
        assert [v.pod for v in (await probes[0].read()).envoys] == ["web-7f"]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for probe in probes:  # another bot watches it now
            assert all("the cluster is not followed any more" in s.reason for s in (await probe.read()).skipped)


async def test_a_person_asks_running_parts_on_the_command_line(
    ask: Callable[..., Answer], mesh_envoy: Envoys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(mesh_envoy, tmp_path) as it:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "east"))
        answer = await asyncio.to_thread(ask, "why", "destination.mynamespace", "--context", "east", "--probe", "-o", "json")
        assert answer.status == 1, answer.err
        assert {r.query.get("ports") for r in it.east.asked("pods/portforward")} == {"15000", "15014"}
    assert next((a["envoy_cluster"], a["agrees"]) for a in answer.json["live"]) == (V1, True)
    said = [s for s in answer.json["skipped"] if s["check"] != "logs"]
    assert all(s["check"] == "envoy" and "(HTTP 404)" in s["reason"] for s in said)
