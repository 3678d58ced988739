"""The probe on a real Envoy with the article's 95/5 route, on its saved dumps, and on everything that is not a healthy Envoy."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import tarfile
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from bot import manifests
from bot.probes import admin, envoy, files
from bot.probes.admin import Admin
from bot.probes.envoy import Request, Where, read
from checks import routes
from checks.agreement import agreement
from checks.answers import Destination, Endpoint, Route, Viewpoint
from checks.evidence import EnvoyView, LiveCluster
from checks.mesh import Mesh as Clusters
from tests.envoys import DESTINATION, V1, V2, Mesh, out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from checks.agreement import Agreement

EJECTED, SICK = "is ejected by outlier detection", "fails its active health check"
UNREADY, DRAINING = "is not ready (EDS: UNHEALTHY)", "is draining (EDS: DRAINING)"


def where(at: str | Path, pod: str = "web-7f") -> Where:
    return Where("east", "shop", pod, str(at))


async def seen(at: str | Path) -> EnvoyView:
    (view,), skipped = await read([where(at)])
    assert skipped == ()
    return view


async def refusal(at: str | Path, pod: str = "web-7f", **bounds: float) -> str:
    """Why nothing could be read."""
    views, (skipped,) = await read([where(at, pod)], **bounds)
    assert views == ()
    assert (skipped.check, skipped.cluster) == ("envoy", "east")
    return skipped.reason


def predicted(host: str, *destinations: Destination) -> Route:
    viewpoint = Viewpoint("east", "sidecar", "shop", "web-7f")
    return Route(viewpoint, host, 80, "http", "route", "VirtualService mynamespace/destination", "spec.http[0]", "", 0.0, destinations)


def to(name: str, *addresses: str, share: float = 1.0, defined: bool = True, state: str = "healthy") -> Destination:
    found = tuple(Endpoint(address, state) for address in addresses)
    return Destination(name, round(share * 100), share, defined, bool(found) and state == "healthy", None, found)


def compared(view: EnvoyView, name: str, destination: Destination) -> Agreement:
    (only,) = agreement([predicted(f"{name}.mynamespace.svc.cluster.local", destination)], view)
    return only


# --- a real Envoy ----------------------------------------------------------------------------------------------------------


async def test_ninety_five_percent_fail_and_the_same_cluster_is_seen_empty(mesh_envoy: Mesh):
    counted = await mesh_envoy.count("destination", 1000)
    failed = counted[503, "no healthy upstream"]
    assert sum(counted.values()) == 1000
    assert 910 <= failed <= 985  # 950, six times its standard deviation of 6.9 either way
    assert 1000 - failed == counted[200, "v2-0"] + counted[200, "v2-1"]

    view = await seen(mesh_envoy.envoy.admin)
    assert view.clusters[V1].hosts == ()
    v2 = [f"127.0.0.1:{mesh_envoy.backends.ports[name]}" for name in ("v2-0", "v2-1")]
    assert [(h.address, h.usable) for h in view.clusters[V2].hosts] == [(address, True) for address in v2]

    first, second = agreement([predicted(DESTINATION, to(V1, share=0.95), to(V2, *v2, share=0.05))], view)
    assert first.agrees
    assert first.sentence == f"seen on Envoy web-7f.shop: {V1} has no host and gets 95 % of the requests of its rule, as predicted"
    assert second.agrees
    assert second.sentence == f"seen on Envoy web-7f.shop: {V2} has 2 usable hosts and gets 5 % of the requests of its rule, as predicted"
    assert first.source.startswith(f"{mesh_envoy.envoy.admin}, read at 20")


ARTICLE = """
{{kind: Pod, apiVersion: v1, metadata: {{name: web-7f, namespace: shop, labels: {{app: web, security.istio.io/tlsMode: istio}}}},
  spec: {{containers: [{{name: istio-proxy, image: proxyv2}}]}}, status: {{podIP: 10.1.2.3}}}}
---
{{kind: Service, apiVersion: v1, metadata: {{name: destination, namespace: mynamespace}},
  spec: {{clusterIP: 10.96.0.1, selector: {{app: destination}}, ports: [{{name: http, port: 80, targetPort: http}}]}}}}
---
{{kind: DestinationRule, apiVersion: networking.istio.io/v1, metadata: {{name: destination, namespace: mynamespace}},
  spec: {{host: destination, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}
---
{{kind: VirtualService, apiVersion: networking.istio.io/v1, metadata: {{name: destination, namespace: mynamespace}},
  spec: {{hosts: [destination], http: [{{route: [{{destination: {{host: destination, subset: v1}}, weight: 95}},
                                             {{destination: {{host: destination, subset: v2}}, weight: 5}}]}}]}}}}
"""

POD = """
---
{{kind: Pod, apiVersion: v1, metadata: {{name: {name}, namespace: mynamespace, labels: {{app: destination, version: {version}}}}},
  status: {{podIP: 127.0.0.1, conditions: [{{type: Ready, status: "True"}}]}}}}
---
{{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, addressType: IPv4, ports: [{{name: http, port: {port}}}],
  metadata: {{name: {name}, namespace: mynamespace, labels: {{kubernetes.io/service-name: destination}}}},
  endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}, namespace: mynamespace}}}}]}}
"""


def from_objects(directory: Path, pods: dict[str, int], version: str = "v2") -> list[Route]:
    """What the resolver predicts for web-7f from the article's objects and these pods of one version."""
    text = ARTICLE.format() + "".join(POD.format(name=name, version=version, port=port) for name, port in pods.items())
    (directory / "east.yaml").write_text(text)
    mesh = Clusters("", [manifests.read(str(directory / "east.yaml"), "east", read_at=0.0)], 0.0)
    return routes.for_pod(mesh, "east", "shop/web-7f", [DESTINATION])


async def test_what_is_predicted_from_the_articles_objects_is_seen_on_envoy(mesh_envoy: Mesh, tmp_path: Path):
    port = mesh_envoy.backends.ports["v2-0"]
    mesh_envoy.endpoints(V2, [mesh_envoy.backend("v2-0")])  # one pod for each address, as in a cluster
    try:
        mesh_envoy.envoy.until(lambda: len(mesh_envoy.envoy.hosts(V2)) == 1)
        view = await seen(mesh_envoy.envoy.admin)
        expected = from_objects(tmp_path, {"v2-0": port})
        assert [(r.failing_share, [d.usable for d in r.destinations]) for r in expected] == [(0.95, [False, True])]
        assert [(a.envoy_cluster, a.agrees, a.viewpoint) for a in agreement(expected, view)] == [
            (V1, True, expected[0].viewpoint),
            (V2, True, expected[0].viewpoint),
        ]
        gone = agreement(from_objects(tmp_path, {}), view)
        assert [a.agrees for a in gone] == [True, False]
        assert f"still has 1 usable host that Kubernetes no longer lists (127.0.0.1:{port}" in gone[1].sentence
        deployed = agreement(from_objects(tmp_path, {"v1-0": port}, "v1"), view)
        assert f"{V1} lacks 1 endpoint that Kubernetes lists as ready" in deployed[0].sentence
    finally:
        mesh_envoy.endpoints(V2, [mesh_envoy.backend("v2-0"), mesh_envoy.backend("v2-1")])
        mesh_envoy.envoy.until(lambda: len(mesh_envoy.envoy.hosts(V2)) == 2)


async def test_pods_that_come_back_are_seen(mesh_envoy: Mesh):
    back = f"127.0.0.1:{mesh_envoy.backends.ports['v2-0']}"
    mesh_envoy.endpoints(V1, [mesh_envoy.backend("v2-0")])
    try:
        mesh_envoy.envoy.until(lambda: mesh_envoy.envoy.hosts(V1))
        view = await seen(mesh_envoy.envoy.admin)
        assert compared(view, "destination", to(V1, back, share=0.95)).sentence.count("has 1 usable host") == 1
        stale = agreement([predicted(DESTINATION, to(V1, share=0.95), to(V2, share=0.05))], view)[0]
        assert not stale.agrees
        assert f"still has 1 usable host that Kubernetes no longer lists ({back}; its configuration is of " in stale.sentence
    finally:
        mesh_envoy.endpoints(V1, [])
        mesh_envoy.envoy.until(lambda: not mesh_envoy.envoy.hosts(V1))


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("ejected", [(None, EJECTED)]),
        ("panicking", [(None, EJECTED)]),
        ("sick", [(None, SICK)]),
        (
            "mixed",
            [
                ("10.1.0.1:8080", ""),
                ("10.1.0.2:8080", ""),
                ("10.1.0.3:8080", ""),  # degraded: the last resort, yet used
                ("10.1.0.4:8080", UNREADY),
                ("10.1.0.5:8080", DRAINING),
                ("10.1.0.6:8080", UNREADY),  # Envoy shows a TIMEOUT of EDS as UNHEALTHY
            ],
        ),
        ("v6", [("[2001:db8::7]:8080", "")]),
        ("hbone", [("10.1.0.7:8080", "")]),
    ],
)
async def test_each_host_is_usable_or_says_why_not(mesh_envoy: Mesh, name: str, hosts: list[tuple[str | None, str]]):
    failing = f"127.0.0.1:{mesh_envoy.backends.ports['failing']}"
    live = (await seen(mesh_envoy.envoy.admin)).clusters[out(name)]
    assert [(h.address, h.reason, h.usable) for h in live.hosts] == [(address or failing, why, not why) for address, why in hosts]


async def test_an_hbone_host_stands_for_the_address_behind_the_internal_listener(mesh_envoy: Mesh):
    view = await seen(mesh_envoy.envoy.admin)
    assert view.clusters[out("hbone")].hosts[0].via == "connect_originate"
    assert compared(view, "hbone", to(out("hbone"), "10.1.0.7:8080")).agrees


async def test_a_resolved_host_keeps_its_name(mesh_envoy: Mesh):
    view = await seen(mesh_envoy.envoy.admin)
    assert {h.hostname for h in view.clusters[out("dns")].hosts} == {"localhost"}
    assert compared(view, "dns", to(out("dns"), "localhost:8443")).agrees


@pytest.mark.parametrize(("name", "reason"), [("ejected", EJECTED), ("sick", SICK)])
async def test_no_usable_host_answers_503_and_differs_from_ready_pods(mesh_envoy: Mesh, name: str, reason: str):
    assert await mesh_envoy.count(name, 8) == {(503, "no healthy upstream"): 8}
    address = f"127.0.0.1:{mesh_envoy.backends.ports['failing']}"
    view = await seen(mesh_envoy.envoy.admin)
    assert view.clusters[out(name)].panic_threshold == 0
    got = compared(view, name, to(out(name), address))
    assert not got.agrees
    assert f"does not use 1 endpoint that Kubernetes lists as ready ({address} {reason})" in got.sentence
    assert compared(view, name, to(out(name), address, state="unhealthy")).agrees


async def test_a_panicking_cluster_still_gets_the_requests(mesh_envoy: Mesh):
    assert await mesh_envoy.count("panicking", 8) == {(503, "failing"): 8}
    view = await seen(mesh_envoy.envoy.admin)
    assert view.clusters[out("panicking")].panic_threshold == 50
    address = f"127.0.0.1:{mesh_envoy.backends.ports['failing']}"
    got = compared(view, "panicking", to(out("panicking"), address, state="unhealthy"))
    assert (got.agrees, "sends to all 1: its panic threshold is 50 %" in got.sentence) == (False, True)


async def test_a_route_to_no_cluster_answers_503_and_the_cluster_is_absent(mesh_envoy: Mesh):
    assert await mesh_envoy.count("ghost", 8) == {(503, ""): 8}
    view = await seen(mesh_envoy.envoy.admin)
    assert out("ghost") not in view.clusters
    got = compared(view, "ghost", to(out("ghost"), defined=False))
    assert got.agrees
    assert got.sentence.endswith("does not exist (503 NC) and gets 100 % of the requests of its rule, as predicted")


async def test_a_warming_cluster_answers_503_and_says_what_it_waits_for(mesh_envoy: Mesh):
    assert await mesh_envoy.count("warming", 8) == {(503, ""): 8}
    view = await seen(mesh_envoy.envoy.admin)
    live = view.clusters[out("warming")]
    assert (live.present, live.warming, live.hosts) == (False, True, ())
    got = compared(view, "warming", to(out("warming"), "10.1.0.7:8080"))
    assert (got.agrees, "is still warming" in got.sentence) == (False, True)


async def test_endpoints_that_moved_are_told_both_ways(mesh_envoy: Mesh):
    got = compared(await seen(mesh_envoy.envoy.admin), "moved", to(out("moved"), "10.1.0.7:8080", "10.1.0.8:8080"))
    assert not got.agrees
    assert "still has 1 usable host that Kubernetes no longer lists (10.1.0.9:8080; its configuration is of " in got.sentence
    assert "and lacks 1 endpoint that Kubernetes lists as ready (10.1.0.7:8080)" in got.sentence


async def test_a_share_that_was_moved_is_told(mesh_envoy: Mesh):
    got = agreement([predicted(DESTINATION, to(V1, share=0.5), to(V2, share=0.5))], await seen(mesh_envoy.envoy.admin))
    assert "gets 95 % of the requests of its rule, not 50 %" in got[0].sentence
    assert "gets 5 % of the requests of its rule, not 50 %" in got[1].sentence


async def test_versions_and_times_are_envoys(mesh_envoy: Mesh):
    view = await seen(mesh_envoy.envoy.admin)
    assert view.clusters[V1].version.startswith("2026-11-22T14:02:00Z/")
    dump = json.loads(mesh_envoy.envoy.ask("/config_dump?mask=dynamic_active_clusters"))["configs"][0]["dynamic_active_clusters"]
    assert {c["cluster"]["name"]: c["last_updated"] for c in dump} == {
        c.name: c.last_updated for c in view.clusters.values() if c.present and c.last_updated
    }
    assert view.routes is not None
    assert [(r.name, r.version) for r in view.routes] == [("80", "1")]
    assert abs(view.read_at - time.time()) < 60


async def test_reading_changes_nothing_on_envoy(mesh_envoy: Mesh):
    await seen(mesh_envoy.envoy.admin)
    assert mesh_envoy.envoy.ask("/ready").startswith("LIVE")
    assert mesh_envoy.envoy.process.poll() is None


async def test_the_envoy_of_another_pod_does_not_testify(mesh_envoy: Mesh):
    reason = await refusal(mesh_envoy.envoy.admin, pod="web-8")
    assert reason == f"Envoy web-8.shop was not read: {mesh_envoy.envoy.admin} is the Envoy of web-7f.shop"


# --- saved dumps -----------------------------------------------------------------------------------------------------------


def archive(directory: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz") as tar:
        tar.add(directory, "bug-report")
    return to


@pytest.fixture
def bug_report(mesh_envoy: Mesh, tmp_path: Path) -> Path:
    """Laid out as istioctl bug-report does: one folder for each proxy."""
    root = tmp_path / "bug-report"
    mesh_envoy.save(root / "proxies" / "shop" / "web-7f", form="text")
    mesh_envoy.save(root / "proxies" / "shop" / "web-8", form="text")
    (root / "cluster").mkdir()
    (root / "cluster" / "k8s-resources").write_text("apiVersion: v1\n")
    return root


def same(saved: EnvoyView, live: EnvoyView) -> bool:
    """Whether both say the same of what does not go on by itself, as the counters of a health check do."""
    one, other = ({name: uncounted(c) for name, c in view.clusters.items()} for view in (saved, live))
    return (one, saved.routes) == (other, live.routes) and bool(live.clusters) and bool(live.routes)


def uncounted(cluster: LiveCluster) -> LiveCluster:
    none = dict.fromkeys(("connects", "connect_failures", "requests", "errors", "timeouts"))
    return msgspec.structs.replace(cluster, hosts=tuple(msgspec.structs.replace(h, **none) for h in cluster.hosts))


@pytest.mark.parametrize("form", ["json", "text"])
async def test_saved_answers_say_what_the_live_envoy_says(mesh_envoy: Mesh, tmp_path: Path, form: str):
    saved = mesh_envoy.save(tmp_path / form, form=form)
    assert same(await seen(saved), await seen(mesh_envoy.envoy.admin))


async def test_a_bug_report_says_what_the_live_envoy_says(mesh_envoy: Mesh, bug_report: Path, tmp_path: Path):
    live = await seen(mesh_envoy.envoy.admin)
    packed = archive(bug_report, tmp_path / "bug-report.tar.gz")
    assert same(await seen(bug_report), live)
    assert same(await seen(bug_report.parent), live)
    view = await seen(packed)
    assert same(view, live)
    assert view.source == str(packed)
    assert abs(view.read_at - time.time()) < 120  # when it was saved


async def test_a_dump_with_endpoints_alone_knows_who_is_usable(mesh_envoy: Mesh, tmp_path: Path):
    saved = await seen(mesh_envoy.save(tmp_path / "x") / "config_dump?include_eds")
    live = await seen(mesh_envoy.envoy.admin)
    assert {c.name: [(h.address, h.usable, h.via) for h in c.hosts] for c in saved.clusters.values()} == {
        c.name: [(h.address, h.usable, h.via) for h in c.hosts] for c in live.clusters.values()
    }
    assert saved.clusters[out("sick")].hosts[0].reason == "is unhealthy (a dump of endpoints does not say why)"
    assert saved.routes == live.routes


async def test_clusters_alone_are_read_in_part_and_say_so(mesh_envoy: Mesh, tmp_path: Path):
    saved = mesh_envoy.save(tmp_path / "x") / "clusters.json"
    (view,), (skipped,) = await read([where(saved)])
    assert view.routes is None
    assert view.clusters[V1].hosts == ()
    assert view.clusters[V1].panic_threshold is None
    assert (
        skipped.reason
        == f"Envoy web-7f.shop was read in part, its hosts but not all of its configuration: {saved} holds no routes, as a whole /config_dump does"
    )


async def test_a_dump_without_endpoints_is_not_an_empty_mesh(mesh_envoy: Mesh, tmp_path: Path):
    (tmp_path / "config_dump").write_text(mesh_envoy.envoy.ask("/config_dump"))
    assert "holds neither /clusters nor /config_dump?include_eds" in await refusal(tmp_path)


async def test_a_saved_dump_of_another_pod_does_not_testify(mesh_envoy: Mesh, tmp_path: Path):
    saved = mesh_envoy.save(tmp_path / "x")
    assert "is the Envoy of web-7f.shop" in await refusal(saved, pod="web-8")
    (saved / "server_info").unlink()
    assert "is the Envoy of web-7f.shop" in await refusal(saved, pod="web-8")  # the dump's bootstrap says so too


async def test_a_pod_that_is_not_in_the_bug_report_is_answered_with_those_that_are(bug_report: Path, tmp_path: Path):
    expected = "has no answers under proxies/shop/web-9; it has shop/web-7f, shop/web-8"
    assert expected in await refusal(bug_report, pod="web-9")
    assert expected in await refusal(archive(bug_report, tmp_path / "b.tgz"), pod="web-9")


async def test_half_a_saved_answer_is_said(mesh_envoy: Mesh, tmp_path: Path):
    saved = mesh_envoy.save(tmp_path / "x")
    whole = (saved / "clusters.json").read_bytes()
    (saved / "clusters.json").write_bytes(whole[: len(whole) // 2])
    assert "clusters.json is not what an Envoy answers (Input data was truncated)" in await refusal(saved)


async def test_half_an_archive_is_said(bug_report: Path, tmp_path: Path):
    packed = archive(bug_report, tmp_path / "b.tgz")
    packed.write_bytes(packed.read_bytes()[:2000])
    assert "cannot be read" in await refusal(packed)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not what an Envoy answers to /clusters"),
        (b"hello", "is not what an Envoy answers to /clusters"),
        (b"\x1f\x8b\x08", "cannot be read (Compressed file ended before the end-of-stream marker was reached)"),
        (b"[]", "is not what an Envoy answers (Expected `object`, got `array`)"),
        (b"{}", "is not what an Envoy answers (Object missing required field `configs`)"),
        (b'{"configs": []}', "holds neither /clusters nor"),
        (b'{"configs": [{"@type": 7}]}', "is not what an Envoy answers (Expected `str`, got `int`"),
        (b'{"x": ' + b"[" * 100_000, "is not what an Envoy answers (maximum recursion depth"),
    ],
)
async def test_a_file_that_is_no_dump_is_said(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "dump").write_bytes(content)
    assert reason in await refusal(tmp_path / "dump")


async def test_what_cannot_be_opened_is_said(tmp_path: Path):
    assert "No such file or directory" in await refusal(tmp_path / "absent")
    assert "is no file" in await refusal("/dev/null")
    assert "holds neither /clusters nor" in await refusal(tmp_path)


async def test_saved_answers_are_bounded_in_bytes(bug_report: Path, tmp_path: Path):
    assert "is longer than 0 MB" in await refusal(bug_report, max_bytes=100)
    assert "is longer than 0 MB" in await refusal(archive(bug_report, tmp_path / "b.tgz"), max_bytes=100)


async def test_an_archive_that_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_MAX_ARCHIVE_BYTES", 1 << 20)
    with tarfile.open(tmp_path / "bomb.tgz", "w:gz") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"bug-report/proxies/shop/web-7f/log{number}")
            info.size = 600_000
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    assert "unpacks to more than" in await refusal(tmp_path / "bomb.tgz")


async def test_a_link_in_an_archive_leads_nowhere(tmp_path: Path):
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as tar:
        info = tarfile.TarInfo("bug-report/proxies/shop/web-7f/clusters")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert "has no answers under proxies/shop/web-7f" in await refusal(tmp_path / "b.tgz")


# --- what is not a healthy Envoy -------------------------------------------------------------------------------------------

INFO = b'{"version": "x/1.40.0", "node": {"id": "sidecar~10.1.2.3~web-7f.shop~shop.svc.cluster.local"}}'
HOSTS = b'{"cluster_statuses": [{"name": "a"}]}'

PACKED = gzip.compress(HOSTS)

Reply = bytes | None
"""What follows on the wire after a request; None hangs."""


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class Wire:
    """A bare TCP server: exactly what was sent to it, and any answer, right or wrong."""

    def __init__(self, replies: dict[str, Reply], delay: float = 0.0) -> None:
        self.replies = replies
        self.delay = delay
        self.sent: list[bytes] = []
        self.open = self.most = 0
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.sent.append(head)
                self.open += 1
                self.most = max(self.most, self.open)
                await asyncio.sleep(self.delay)
                self.open -= 1
                target = head.split()[1].decode()
                reply = next((r for path, r in self.replies.items() if target.startswith(path)), ok(b"{}"))
                if reply is None:
                    await asyncio.sleep(60)
                    return
                writer.write(reply)
                await writer.drain()
                if not reply.startswith(b"HTTP/1.1 200") or not reply.endswith((b"}", b"]")):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wire(replies: dict[str, Reply] | None = None, delay: float = 0.0) -> AsyncIterator[Wire]:
    it = Wire({"/server_info": ok(INFO), "/clusters": ok(HOSTS), "/stats": ok(b'{"stats": []}'), **(replies or {})}, delay)
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        await it.serve(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    it.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield it
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def test_exactly_these_requests_are_sent_each_by_get():
    async with wire() as admin:
        await seen(admin.address)
    assert [head.split(b"\r\n")[0].decode() for head in admin.sent] == [f"GET {request} HTTP/1.1" for request in Request]
    mask = "version_info,last_updated,error_state.details,cluster.name,cluster.common_lb_config.healthy_panic_threshold"
    assert [request for request in Request if request is not Request.STATS] == [
        "/server_info",
        "/clusters?format=json",
        "/config_dump?mask=dynamic_route_configs,static_route_configs",
        "/config_dump?resource=dynamic_warming_clusters&mask=version_info,last_updated,cluster.name",
        f"/config_dump?resource=dynamic_active_clusters&mask={mask},cluster.type,cluster.cluster_type.name,cluster.alt_stat_name",
        "/certs",
        "/config_dump?resource=dynamic_warming_secrets&mask=name",
    ]
    assert re.fullmatch(r"/stats\?format=json&usedonly&filter=(?:[a-z0-9._]|%(?:28|29|2A|24|5C|5E|7C))+", Request.STATS)


@pytest.mark.parametrize(
    "request_",
    [
        "/quitquitquit",
        "/healthcheck/fail",
        "/logging?level=debug",
        "/clusters",
        "/clusters?format=json&x=1",
        "/clusters?format=json#x",
        "/config_dump",
        "/config_dump?mask=bootstrap",
        "/config_dump?mask=dynamic_active_secrets",
        "/config_dump?resource=dynamic_active_clusters",
        "/server_info?x",
        "//server_info",
        "/server_info HTTP/1.1\r\n\r\nPOST /quitquitquit",
        "",
    ],
)
async def test_no_other_request_can_be_sent(request_: str):
    async with wire() as admin:
        with pytest.raises(ValueError, match="is not a valid Request"):
            await asked(admin.address, request_)
    assert admin.sent == []


@pytest.mark.parametrize("rest", ["/quitquitquit", "/quitquitquit?x=", "/x#", "?", "?x=", "#", "/."])
async def test_an_address_cannot_smuggle_another_request(rest: str):
    async with wire() as admin:
        with pytest.raises(ValueError, match="is more than scheme, host and port"):
            await asked(admin.address + rest, Request.IDENTITY)
    assert admin.sent == []


async def asked(address: str, request: str) -> bytearray:
    async with admin.session() as session:
        return await Admin(session, Request, address, address, time.monotonic() + 5).get(request)  # type: ignore[arg-type]


async def test_a_redirect_is_not_followed():
    moved = b"HTTP/1.1 302 Found\r\nlocation: /quitquitquit\r\ncontent-length: 0\r\n\r\n"
    async with wire({"/server_info": moved}) as admin:
        assert "answers 302 to GET /server_info" in await refusal(admin.address)
    assert len(admin.sent) == 1


async def test_nothing_listening_is_said():
    async with wire() as admin:
        pass
    assert await refusal(admin.address) == f"Envoy web-7f.shop was not read: no connection to {admin.address} (Connection refused)"


async def test_silence_is_said_after_the_time_out():
    async with wire({"/clusters": None}) as admin:
        begun = time.monotonic()
        reason = await refusal(admin.address, timeout_s=0.3)
        assert time.monotonic() - begun < 1.5
    assert reason.endswith(f"{admin.address} did not answer GET /clusters?format=json within 0.3 s")


async def test_an_answer_that_drips_is_bounded_as_a_whole():
    async with wire(delay=0.15) as admin:
        (view,), (skipped,) = await read([where(admin.address)], timeout_s=0.4)
    assert view.routes is None
    assert "did not answer GET /config_dump?mask=dynamic_route_configs,static_route_configs within 0.4 s" in skipped.reason


async def test_what_matters_most_is_read_first():
    async with wire({"/config_dump?resource=dynamic_active": None}) as admin:
        (view,), (skipped,) = await read([where(admin.address)], timeout_s=0.3)
    assert view.routes == ()
    assert "did not answer GET /config_dump?resource=dynamic_active_clusters" in skipped.reason


async def test_what_was_read_before_the_configuration_failed_is_kept():
    async with wire({"/config_dump?mask=dynamic_route": b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"}) as admin:
        (view,), (skipped,) = await read([where(admin.address)])
    assert (set(view.clusters), view.routes) == ({"a"}, None)
    assert skipped.reason.startswith("Envoy web-7f.shop was read in part, its hosts but not all of its configuration: ")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answers 404 to GET /clusters?format=json"),
        (b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n", "answers 400 to GET /clusters?format=json"),
        (ok(b"<html></html>"), "is not what an Envoy answers (JSON is malformed"),
        (ok(b"{}"), "is not what an Envoy answers (Object missing required field `cluster_statuses`)"),
        (ok(HOSTS[:-5]), "is not what an Envoy answers (Input data was truncated)"),
        (ok(b'{"cluster_statuses": [{"name": 7}]}'), "is not what an Envoy answers (Expected `str`, got `int`"),
        (ok(b'{"cluster_statuses": [{"name": "\xff"}]}'), "is not what an Envoy answers ("),
        (ok(HOSTS)[:-5], "broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke off"),
        (b"", "broke off"),
        (  # what was not asked for is not unpacked, since it could unpack without end
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(PACKED), PACKED),
            "is not what an Envoy answers (",
        ),
    ],
)
async def test_what_is_no_envoy_is_said_and_never_an_empty_view(reply: bytes, reason: str):
    async with wire({"/clusters": reply}) as admin:
        assert reason in await refusal(admin.address)


async def test_an_answer_is_bounded_in_bytes():
    large = b'{"cluster_statuses": [%s]}' % b",".join([b'{"name": "a"}'] * 200_000)
    async with wire({"/clusters": ok(large)}) as admin:
        assert "answer to GET /clusters?format=json is longer than 1 MB" in await refusal(admin.address, max_bytes=1 << 20)


async def test_only_a_few_envoys_are_asked_at_once():
    async with wire(delay=0.02) as admin:
        views, skipped = await read([where(admin.address)] * 12, at_once=3, timeout_s=10)
    assert (len(views), skipped, admin.most) == (12, (), 3)


async def test_one_that_hangs_does_not_delay_the_others(mesh_envoy: Mesh):
    async with wire({"/server_info": None}) as admin:
        begun = time.monotonic()
        (view,), (skipped,) = await read([where(admin.address), where(mesh_envoy.envoy.admin)], timeout_s=0.5)
        assert time.monotonic() - begun < 2
    assert view.source == mesh_envoy.envoy.admin
    assert "within 0.5 s" in skipped.reason


async def test_an_unknown_health_status_is_not_taken_for_healthy():
    host = {"address": {"socket_address": {"address": "10.1.0.7", "port_value": 80}}, "health_status": {"eds_health_status": "MELTING"}}
    async with wire({"/clusters": ok(json.dumps({"cluster_statuses": [{"name": "a", "host_statuses": [host]}]}).encode())}) as admin:
        (host_,) = (await seen(admin.address)).clusters["a"].hosts
    assert (host_.usable, host_.reason) == (False, "is not ready (EDS: MELTING)")


async def test_every_flag_that_keeps_requests_away_is_named_and_degraded_is_not_one():
    flags = (
        "failed_active_health_check",
        "failed_outlier_check",
        "pending_active_hc",
        "excluded_via_immediate_hc_fail",
        "active_hc_timeout",
    )
    kept = ("failed_active_degraded_check", "pending_dynamic_removal")
    hosts = [
        {"address": {"pipe": {"path": f"/{flag}"}}, "health_status": {flag: True, "eds_health_status": "HEALTHY"}}
        for flag in (*flags, *kept)
    ]
    async with wire({"/clusters": ok(json.dumps({"cluster_statuses": [{"name": "a", "host_statuses": hosts}]}).encode())}) as admin:
        live = (await seen(admin.address)).clusters["a"]
    assert [h.usable for h in live.hosts] == [False] * len(flags) + [True] * len(kept)
    assert len({h.reason for h in live.hosts}) == len(flags) + 1


def test_the_text_form_reads_several_flags_and_an_address_that_holds_colons():
    text = (
        b"c::observability_name::c\nc::added_via_api::true\n"
        b"c::[2001:db8::7]:80::hostname::\nc::[2001:db8::7]:80::health_flags::/failed_active_hc/degraded_eds_health/failed_eds_health\n"
        b"c::[2001:db8::7]:80::weight::3\nc::/tmp/pipe::health_flags::/failed_by_tomorrow\nempty::added_via_api::false\n"
    )
    seen_ = envoy.Seen(where("x"))
    seen_.text(text, "clusters")
    assert seen_.hosts is not None
    first, second = seen_.hosts["c"]
    assert (first.address, first.weight, first.reason) == ("[2001:db8::7]:80", 3, f"{SICK} and {UNREADY}")
    assert (second.address, second.usable, second.reason) == ("/tmp/pipe", False, "failed_by_tomorrow")  # noqa: S108 - a name
    assert seen_.hosts["empty"] == ()


async def test_saved_answers_are_read_beside_the_event_loop(mesh_envoy: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    threads: list[threading.Thread] = []
    original = envoy._saved
    monkeypatch.setattr(envoy, "_saved", lambda *a: (threads.append(threading.current_thread()), original(*a))[1])
    await seen(mesh_envoy.save(tmp_path / "x"))
    assert threads[0] is not threading.main_thread()


# --- what a person types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop/web-7f=http://127.0.0.1:15000", Where("east", "shop", "web-7f", "http://127.0.0.1:15000")),
        ("shop/web-7f=http://127.0.0.1:15000/", Where("east", "shop", "web-7f", "http://127.0.0.1:15000")),
        ("shop/web-7f=localhost:15000", Where("east", "shop", "web-7f", "http://localhost:15000")),
        ("west:shop/web-7f=[::1]:15000", Where("west", "shop", "web-7f", "http://[::1]:15000")),
        ("west:shop/web-7f=./bug-report.tar.gz", Where("west", "shop", "web-7f", "./bug-report.tar.gz")),
        ("shop/web-7f=/tmp/a=b:c", Where("east", "shop", "web-7f", "/tmp/a=b:c")),  # noqa: S108 - a name
    ],
)
def test_where_an_envoy_is_read(text: str, expected: Where):
    assert Where.parse(text, cluster="east") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://127.0.0.1:15000",
        "web-7f=http://127.0.0.1:15000",
        "shop/web-7f=",
        "../etc/passwd=x",
        "shop/../x=x",
        "shop/..=x",
        "shop/web-7f=https://127.0.0.1:15000",
        "shop/web-7f=ftp://127.0.0.1:15000",
        "shop/web-7f=http://127.0.0.1",
        "shop/web-7f=http://127.0.0.1:15000/quitquitquit",
        "shop/web-7f=http://127.0.0.1:15000?x=",
        "shop/web-7f=http://127.0.0.1:15000#",
        "shop/web-7f=http://user:secret@127.0.0.1:15000",
        "shop/web-7f=http://127.0.0.1:15000\r\nx: y",
    ],
)
def test_bad_input_gets_one_sentence(text: str):
    with pytest.raises(ValueError, match=r"is not \[CLUSTER:\]NAMESPACE/POD=|is no address of an Envoy's admin") as caught:
        Where.parse(text)
    assert "\n" not in str(caught.value)


def test_a_view_and_its_agreement_are_plain_json():
    view = EnvoyView("east", "shop", "web-7f", {}, (), 0.0, "x")
    assert msgspec.json.decode(msgspec.json.encode(view), type=EnvoyView) == view
