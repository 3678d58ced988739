"""The runbook: what each step makes of what was read, how it is told while it runs, and that one who dies leaves it to the next."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from bot import manifests
from bot.alerts import Alert, State
from bot.probes import Probe, asking, gather
from bot.probes import envoy as envoys
from bot.runbook import Runner, Taken
from bot.tell import WHY
from checks import diagnosis, runbook
from checks.changed import Changed, changed
from checks.evidence import (
    NOTHING,
    Access,
    AccessLog,
    EnvoyView,
    Evidence,
    Flow,
    IstiodView,
    LiveCluster,
    LiveHost,
    ProxySync,
    ScrapedView,
    Traffic,
)
from checks.finding import Skipped
from checks.mesh import Mesh
from checks.resources import KIND_OF, KINDS, Pod
from tests.bots import FINDING, RECORDED, alongside, running, source
from tests.test_story import TOLD, headline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from bot.demo.slack import LocalSlack
    from bot.demo.slack import Message as Posted
    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from checks.runbook import Step
    from tests.envoys import Mesh as Envoys

HOST = "destination.mynamespace.svc.cluster.local"
V1, V2 = (f"outbound|80|{v}|{HOST}" for v in ("v1", "v2"))
AT = 1_795_269_600.0


@pytest.fixture(scope="module")
def meshes() -> tuple[Mesh, ...]:
    return Mesh.of([manifests.read(str(RECORDED / "east"), "east", read_at=AT)], AT)


@pytest.fixture(scope="module")
def caller(meshes: tuple[Mesh, ...]) -> str:
    """A pod with a sidecar that calls the host."""
    (cluster,) = meshes[0].clusters
    found = [p for p in cluster.all(Pod) if p.namespace == "mynamespace"]
    return next(p.name for p in found if any(c.name == "istio-proxy" for c in (*p.spec.containers, *(p.spec.init_containers or ()))))


def taken(meshes: tuple[Mesh, ...], evidence: Evidence, running: Sequence[str] = ()) -> dict[str, Step]:
    return {s.id: s for s in runbook.steps(diagnosis.why(HOST, meshes, evidence), evidence, running)}


def envoy(pod: str, v1: LiveCluster | None) -> EnvoyView:
    hosts = tuple(LiveHost(at, usable=True) for at in ("10.1.0.7:9180", "10.1.1.9:9180"))
    clusters = {V2: LiveCluster(V2, hosts)} | ({V1: v1} if v1 is not None else {})
    return EnvoyView("east", "mynamespace", pod, clusters, None, AT, "admin of its pod")


def istiod(proxy: str, *, state: str = "SYNCED", error: str = "", status: dict[str, dict[str, str]] | None = None) -> IstiodView:
    sync = ProxySync(proxy, "Kubernetes", "1.28.0", {"CDS": "SYNCED", "EDS": state, "ECDS": "NOT_SENT"}, error)
    return IstiodView(
        "east",
        "istio-system",
        "istiod-0",
        "1.28.0",
        "default",
        AT,
        "istiod-0:15014",
        {proxy: sync},
        status=status or {},
        growth={},
        lines=(),
    )


def log(*accesses: Access, read: int = 100) -> AccessLog:
    return AccessLog("east", "mynamespace", "web-1", "istio-proxy", accesses, read, AT - 300, AT, "the last 5 min of web-1")


def test_without_a_probe_the_objects_are_told_and_the_rest_is_not_looked_at(meshes: tuple[Mesh, ...]):
    steps = taken(meshes, NOTHING)
    assert (steps["routes"].state, steps["endpoints"].state) == ("ok", "bad")
    assert "95 % to v1 and 5 % to v2" in steps["routes"].said
    assert "v1: no endpoint" in steps["endpoints"].said
    live = {"clusters", "hosts", "gateways", "status", "push", "logs", "traffic"}
    assert {s.id for s in steps.values() if s.state == "skipped"} == live | {"changes"}
    assert all(steps[i].said for i in live)


def test_the_reason_of_a_probe_that_could_not_look_is_its_steps(meshes: tuple[Mesh, ...]):
    refused = Evidence(skipped=(Skipped("istiod", "east", "403 on pods/portforward"),))
    steps = taken(meshes, refused, ["envoy"])
    assert (steps["status"].state, steps["status"].said) == ("skipped", "403 on pods/portforward")
    assert steps["clusters"].state == "running"
    assert steps["logs"].state == "skipped"


def test_every_step_says_what_running_parts_show(meshes: tuple[Mesh, ...], caller: str):
    proxy = f"{caller}.mynamespace"
    uh = Access(95, AT - 60, AT, 503, ("UH",), "no_healthy_upstream", envoy_cluster=V1, line='"GET / HTTP/1.1" 503 UH')
    fine = Access(5, AT - 60, AT, 200, (), "via_upstream", envoy_cluster=V2)
    flows = (Flow("web", "mynamespace", 503, ("UH",), 9.4), Flow("web", "mynamespace", 200, (), 0.6))
    evidence = Evidence(
        envoys=(envoy(caller, LiveCluster(V1)),),
        istiods=(istiod(proxy, status={"pilot_eds_no_instances": {V1: ""}}),),
        logs=(log(uh, fine),),
        traffic=(Traffic("east", HOST, 300, flows, AT - 600, AT, "prometheus.east"),),
    )
    steps = taken(meshes, evidence)
    assert steps["clusters"].state == "ok"
    assert proxy in steps["clusters"].said
    assert steps["hosts"].state == "bad"
    assert V1 in steps["hosts"].said
    assert (steps["status"].state, steps["status"].said) == ("ok", f"{proxy} has all that istiod sent")
    assert steps["push"].state == "bad"
    assert "pilot_eds_no_instances" in steps["push"].said
    assert steps["logs"].state == "bad"
    assert "95 of 100 calls failed, most with 503 UH no_healthy_upstream" in steps["logs"].said
    assert steps["traffic"].state == "bad"
    assert steps["traffic"].said == (
        "predicted 95 %, measured 94 % of 10 calls a second over 5 min, since 13:50 UTC, most with 503 UH, caller web.mynamespace"
    )
    assert all(s.proof for s in steps.values() if s.state == "bad")


@pytest.mark.parametrize(
    ("evidence", "step", "said"),
    [
        (lambda p: Evidence(envoys=(envoy(p, None),)), "clusters", "does not exist in"),
        (lambda p: Evidence(envoys=(envoy(p, LiveCluster(V1, present=False, warming=True)),)), "clusters", "is still warming in"),
        (lambda p: Evidence(envoys=(envoy(p, LiveCluster(V1, refused="malformed")),)), "clusters", "refused the last: malformed"),
        (lambda p: Evidence(istiods=(istiod(f"{p}.mynamespace", state="STALE"),)), "status", "has not taken the last EDS (STALE)"),
        (lambda p: Evidence(istiods=(istiod(f"{p}.mynamespace", state="ERROR", error="bad port"),)), "status", "refused EDS: bad port"),
        (lambda p: Evidence(envoys=(envoy(p, LiveCluster(V1)),), istiods=(istiod("other.web"),)), "status", "is connected to no istiod"),
    ],
)
def test_what_differs_in_running_parts_is_a_step_that_shows_the_fault(
    meshes: tuple[Mesh, ...], caller: str, evidence: object, step: str, said: str
):
    assert callable(evidence)
    found = taken(meshes, evidence(caller))[step]
    assert found.state == "bad"
    assert said in found.said


def test_a_remote_clusters_proxy_is_known_to_the_control_plane_of_another_and_one_that_nobody_read_of_is_not_well(
    meshes: tuple[Mesh, ...], caller: str
):
    primary = istiod(f"{caller}.mynamespace")
    assert primary.proxies is not None
    abroad = replace(primary, cluster="primary", proxies={p: replace(s, cluster="east") for p, s in primary.proxies.items()})
    callers = (envoy(caller, LiveCluster(V1)),)
    assert taken(meshes, Evidence(envoys=callers, istiods=(abroad,)))["status"].state == "ok"
    unread = taken(meshes, Evidence(envoys=callers, istiods=(replace(abroad, proxies={}),)))["status"]
    assert (unread.state, unread.said) == ("skipped", f"no istiod was read of the clusters where {caller}.mynamespace runs")


def test_of_what_proxies_show_to_scrapers_only_what_is_wrong_is_told(meshes: tuple[Mesh, ...], caller: str):
    def scraped(**stats: float) -> Step:
        named = {name.replace("__", "."): value for name, value in stats.items()}
        view = ScrapedView("east", "mynamespace", caller, named, AT, f"mynamespace/{caller}:15090")
        shallow = Skipped("envoy", "east", "statistics alone were read: port-forward is not allowed")
        return taken(meshes, Evidence(scraped=(view,), skipped=(shallow,)))["clusters"]

    fine = scraped(cluster_manager__warming_clusters=0, control_plane__connected_state=1)
    assert fine.state == "skipped", "which clusters it has is not known"
    assert fine.said.startswith("statistics alone were read: port-forward is not allowed; the statistics of ")
    warming = scraped(cluster_manager__warming_clusters=2)
    assert (warming.state, warming.said) == ("bad", f"2 clusters of {caller}.mynamespace are still warming")
    assert scraped(control_plane__connected_state=0).said == f"{caller}.mynamespace is connected to no istiod"


def test_what_changed_is_a_step_and_the_suspicious_one_shows_the_fault(meshes: tuple[Mesh, ...]):
    found = diagnosis.why(HOST, meshes)
    scaled = Changed(
        cluster="east", resource="Deployment mynamespace/destination-v1", at=AT - 60, by="argocd", what="was scaled to 0", suspicious=True
    )
    edited = Changed(cluster="east", resource="VirtualService mynamespace/destination", at=AT, by="kubectl", what="was changed")
    step = {s.id: s for s in runbook.steps(found, NOTHING, changes=(edited, scaled), since=AT)}["changes"]
    assert (step.state, step.command) == ("bad", "kubectl -n mynamespace get deployment destination-v1 -o yaml --show-managed-fields")
    assert step.said == "suspicious: 2026-11-21 13:59:00 UTC Deployment mynamespace/destination-v1 of east was scaled to 0 by argocd"
    assert step.proof == ("2026-11-21 14:00:00 UTC VirtualService mynamespace/destination of east was changed by kubectl",)
    for changes, since in (((), AT), ((edited, scaled), None), ((edited, scaled), AT + 7200)):
        assert {s.id: s for s in runbook.steps(found, NOTHING, changes=changes, since=since)}["changes"].state == "ok"


@pytest.mark.parametrize("key", ["*", *(k.key for k in KINDS)])
def test_whatever_cannot_be_read_its_runbook_is_taken(meshes: tuple[Mesh, ...], key: str):
    (whole,) = meshes[0].clusters
    left = {k: of for k, of in whole.objects.items() if key not in {"*", KIND_OF[k].key}}
    blind = Mesh.of([dataclasses.replace(whole, objects=left, unreadable={key: "forbidden"})], AT)
    try:
        found = diagnosis.why(HOST, blind)
    except diagnosis.UnknownHost:
        assert key in {"*", "services", "virtualservices.networking.istio.io"}
        return
    assert len(runbook.steps(found, NOTHING, changes=changed(found, blind, AT), since=AT)) == len(runbook.order(found))
    assert all(p.cluster == "east" for p in asking.probing(lambda _: asking.Reach(None, deep=True, logs=True))(found, blind))


def test_no_call_is_told_from_no_failure(meshes: tuple[Mesh, ...]):
    quiet = taken(meshes, Evidence(logs=(log(read=0),), traffic=(Traffic("east", HOST, 300, (), None, AT, "prometheus.east"),)))
    assert (quiet["logs"].state, quiet["traffic"].state) == ("skipped", "ok")
    assert "nobody calls it" in quiet["traffic"].said
    fine = taken(
        meshes,
        Evidence(
            logs=(
                log(
                    Access(7, AT, AT, 200, authority="destination.mynamespace:80"),
                    Access(9, AT, AT, 503, envoy_cluster="outbound|80||other.x"),
                ),
            )
        ),
    )
    assert (fine["logs"].state, fine["logs"].said) == ("ok", "7 calls, none failed; 1.4 calls a minute")


def test_the_likeliest_step_of_a_cause_comes_first(meshes: tuple[Mesh, ...]):
    found = diagnosis.why(HOST, meshes)
    assert found.findings[0].code.startswith("MESH1")
    assert runbook.order(found)[:2] == ("routes", "endpoints")
    (mesh,) = meshes
    healthy = next(d for h in diagnosis.swept(mesh) if (d := diagnosis.diagnose(h, mesh)).verdict is diagnosis.Verdict.HEALTHY)
    assert runbook.order(healthy)[:2] == ("logs", "traffic"), "of no known cause what was seen comes first"
    assert all(sorted(o) == sorted(runbook.order(found)) for o in runbook._ORDER.values())


GATEWAY = """
kind: Pod
apiVersion: v1
metadata: {name: web-7f, namespace: shop, labels: {istio: egressgateway}, annotations: {inject.istio.io/templates: gateway}}
spec: {nodeName: n1, containers: [{name: istio-proxy, image: x, args: [proxy, router]}]}
status: {phase: Running, podIP: 10.1.2.3, conditions: [{type: Ready, status: "True"}]}
---
kind: Service
apiVersion: v1
metadata: {name: egress, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {istio: egressgateway}, ports: [{name: http, port: 80, targetPort: 80}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: egress-1, namespace: shop, labels: {kubernetes.io/service-name: egress}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.1.2.3], conditions: {ready: true}, targetRef: {kind: Pod, name: web-7f, namespace: shop}}]
---
kind: Gateway
apiVersion: networking.istio.io/v1
metadata: {name: egress, namespace: shop}
spec: {selector: {istio: egressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: Service
apiVersion: v1
metadata: {name: destination, namespace: mynamespace}
spec: {clusterIP: 10.96.0.1, selector: {app: destination}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: destination, namespace: mynamespace}
spec: {host: destination, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: destination, namespace: mynamespace}
spec:
  hosts: [destination.mynamespace.svc.cluster.local]
  gateways: [shop/egress]
  http: [{route: [{destination: {host: destination, subset: v1}, weight: 95}, {destination: {host: destination, subset: v2}, weight: 5}]}]
"""
"""The article's egress gateway, whose Envoy is the real one of these tests."""


async def test_what_the_envoy_of_a_gateway_on_the_way_holds_is_a_step_of_its_own(mesh_envoy: Envoys, tmp_path: Path):
    (tmp_path / "east.yaml").write_text(GATEWAY)
    meshes = Mesh.of([manifests.read(str(tmp_path / "east.yaml"), "east", read_at=AT)], AT)
    views, skipped = await envoys.read([envoys.Where("east", "shop", "web-7f", mesh_envoy.envoy.admin)])
    assert skipped == ()
    steps = taken(meshes, Evidence(envoys=views))
    assert steps["gateways"].state == "bad"
    assert f"Envoy web-7f.shop differs from the prediction: {V2} still has 2 usable hosts" in steps["gateways"].said
    assert f"seen on Envoy web-7f.shop: {V1} has no host and gets 95 % of the requests" in " ".join(steps["gateways"].proof)
    assert steps["gateways"].command == f"istioctl proxy-config endpoint web-7f.shop --cluster '{V2}'"
    assert steps["hosts"].state == "skipped", "a gateway is nobody's sidecar"


async def test_probes_are_told_as_they_finish_and_one_that_hangs_delays_no_other():
    async def quick() -> Evidence:
        return Evidence(logs=(log(),))

    async def hangs() -> Evidence:
        await asyncio.sleep(3600)
        return NOTHING

    began = time.monotonic()
    seen = [g async for g in gather([Probe("logs", "east", quick), Probe("envoy", "west", hangs)], within_s=0.3)]
    assert time.monotonic() - began < 2
    assert [sorted(g.running) for g in seen] == [["envoy", "logs"], ["envoy"], []]
    assert seen[1].evidence.logs
    assert [(s.check, s.cluster, s.reason) for s in seen[-1].evidence.skipped] == [("envoy", "west", "it did not answer within 0.3 s")]


def book(slack: LocalSlack, root: Posted) -> list[Posted]:
    return [m for m in slack.thread(root.channel, root.ts) if "Runbook of" in m.words.partition("\n")[0]]


async def test_the_runbook_stands_once_in_the_thread_and_is_edited_as_its_steps_finish(
    slack: LocalSlack, redis_url: str, folder: Path, store: Store
):
    answered = asyncio.Event()

    async def logs() -> Evidence:
        await answered.wait()
        return Evidence(logs=(log(Access(19, AT, AT, 503, ("UH",), "no_healthy_upstream", envoy_cluster=V1)),))

    asked: list[str] = []

    def probing(found: Diagnosis, _: Sequence[Mesh]) -> list[Probe]:
        asked.append(found.host)
        return [Probe("logs", "east", logs)]

    async with running(slack, redis_url, [source(folder)], probing=probing):
        root = await headline(slack, TOLD, 5)
        (told,) = await slack.until(lambda: book(slack, root), 10)
        assert "9 of 10 steps" in told.words
        assert "… Access logs" in told.words
        answered.set()
        await slack.until(lambda: "19 of 19 calls failed" in told.words, 10)
        assert "Runbook of destination.mynamespace: 10 steps, 2 show the fault" in told.words
        assert asked == [HOST]
        await slack.click(root, WHY)
        await slack.until(lambda: len(asked) == 2, 10)
        assert len(book(slack, root)) == 1, "run again it edits the same message"
    # Who leads next finds it asked for, and tells it in the same message.
    (open_,) = (await store.alerts()).values()
    await store.run_again(open_.message, time.time())
    async with running(slack, redis_url, [source(folder)], probing=probing):
        await slack.until(lambda: len(asked) >= 3, 10)
        async with asyncio.timeout(5):
            while await store.runbooks():  # noqa: ASYNC110 - the store has no event for what another one did
                await asyncio.sleep(0.02)
        assert len(book(slack, root)) == 1


async def test_what_other_bots_are_to_run_holds_up_nothing(store: Store, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []

    class Looks:
        """A sweeper that looks at the cluster mine."""

        def looks_at(self, cluster: str) -> bool:
            return cluster == "mine"

        def meshes(self) -> tuple[Mesh, ...]:
            return ()

    async def take(host: str, *_: object) -> AsyncIterator[Taken]:
        told.append(host)
        return
        yield

    monkeypatch.setattr("bot.runbook.take", take)
    fired = {f"{c}{n}": replace(FINDING, cluster=c, host=f"{c}{n}") for c, most in (("theirs", 6), ("mine", 1)) for n in range(most)}
    alerts = {i: Alert(id=i, state=State.FIRING, finding=f, since=AT, message=f"{i}-1", told=True) for i, f in fired.items()}
    await store.commit(alerts, now=AT)
    for n, ident in enumerate(alerts):
        await store.run_again(f"{ident}-1", AT + n)
    async with alongside(Runner(store, cast("Sweeper", Looks()), lambda *_: ()).run()), asyncio.timeout(5):
        while not told:  # noqa: ASYNC110 - nobody says when a runbook begins
            await asyncio.sleep(0.01)
    assert told == ["mine0"]


async def test_of_several_bots_the_one_that_looks_at_a_cluster_runs_its_runbooks(
    slack: LocalSlack, redis_url: str, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def probing(found: Diagnosis, _: Sequence[Mesh]) -> list[Probe]:
        asked.append(found.host)
        return []

    looks = monkeypatch.setattr
    looks("bot.sweep.Sweeper.looks_at", lambda _, cluster: cluster == "west")
    async with running(slack, redis_url, [source(folder)], probing=probing):
        root = await headline(slack, TOLD, 5)
        await asyncio.sleep(0.5)
        assert (asked, book(slack, root)) == ([], [])
        ((message, _),) = await store.runbooks()
        looks("bot.sweep.Sweeper.looks_at", lambda _, cluster: cluster == "east")
        await slack.until(lambda: book(slack, root), 10)
        assert asked == [HOST]
    store.fence = "a lease that is over"
    await store.unfenced().ran(message, 0.0)


@pytest.mark.parametrize("there", [True, False])
async def test_an_answer_to_why_is_followed_by_what_running_parts_show_if_any_said_something(
    slack: LocalSlack,
    redis_url: str,
    folder: Path,
    there: bool,  # noqa: FBT001 - a parameter of the test
):
    async def logs() -> Evidence:
        refused = Skipped("logs", "east", "403 on pods/log")
        return Evidence(logs=(log(Access(3, AT, AT, 200, envoy_cluster=V2)),)) if there else Evidence(skipped=(refused,))

    async with running(slack, redis_url, [source(folder)], watching=False, probing=lambda *_: [Probe("logs", "east", logs)]):
        await slack.command("/mesh why destination")
        await slack.until(lambda: any("95 %" in m.words for m in slack.ephemerals("ana")), 5)
        if there:
            await slack.until(lambda: any("3 calls, none failed" in m.words for m in slack.ephemerals("ana")), 5)
        root = await slack.mention("why destination")
        told = await slack.until(lambda: slack.thread(root.channel, root.ts)[1 : 3 if there else 2], 5)
        if there:
            await slack.until(lambda: len(slack.thread(root.channel, root.ts)) == 3, 5)
            assert "Runbook of destination.mynamespace" in slack.thread(root.channel, root.ts)[2].words
        assert "95 %" in told[0].words
        assert len(slack.ephemerals("ana")) == 1 + there
