"""The registered clusters, live, over real HTTP and TLS: credentials, several clusters of which one is ill, and files that change."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import ssl
import stat
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from bot import clusters as rooms
from bot.clusters import Clusters, ClusterSource, NoSuchContext, contexts, snapshot
from bot.informers import Pace
from bot.manifests import BadSource
from checks import diagnosis
from checks.mesh import Change, Cluster, Mesh
from checks.resources import KINDS, ConfigMap, Namespace, Pod, Secret, Service, VirtualService
from tests.apiserver import AUTHORITY_PEM, PEM, ApiServer, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PODS, SERVICES, VIRTUAL_SERVICES = "pods", "services", "virtualservices.networking.istio.io"
FAST = Pace(page=50, watch_s=1, silence_s=1.2, answer_s=0.8, grace_s=0.2, backoff_s=0.02, backoff_max_s=0.1, forbidden_s=0.2, absent_s=0.2)
GATHER_S = 0.05


def service(name: str, namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"ports": [{"port": 80}]},
    }


def istiod(namespace: str, revision: str) -> dict[str, Any]:
    labels = {"app": "istiod", "istio.io/rev": revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"istiod-{revision}", "namespace": namespace, "labels": labels},
        "spec": {"template": {"metadata": {"labels": labels}}},
    }


def config_map(name: str, namespace: str = "istio-system") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"mesh": "{}"}}


@asynccontextmanager
async def running(*sources: ClusterSource, pace: Pace = FAST) -> AsyncIterator[Clusters]:
    clusters = Clusters(sources, gather_s=GATHER_S, gather_max_s=10 * GATHER_S, poll_s=0.03, pace=pace)
    task = asyncio.create_task(clusters.run())
    try:
        yield clusters
    finally:
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), result


def names(cluster: Cluster, struct: type[Any] = Service) -> set[str]:
    return {f"{ns}/{name}" for ns, named in cluster.objects.get(struct, {}).items() for name in named}


class Told:
    """What a reader of changes was told, collected in the background."""

    def __init__(self, clusters: Clusters) -> None:
        self.batches: list[tuple[Change, ...]] = []
        self._changes = clusters.changes()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for batch in self._changes:
            self.batches.append(batch)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def east() -> AsyncIterator[ApiServer]:
    async with ApiServer(tls=True, token="tok-1") as api:  # noqa: S106 - a word that the fake asks for
        api.put(service("cart"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        yield api


@pytest.fixture
def source(east: ApiServer, tmp_path: Path) -> ClusterSource:
    return ClusterSource("east", mesh="prod", context="east", kubeconfig=east.kubeconfig(tmp_path / "east.kubeconfig"))


# --- one live cluster ------------------------------------------------------------------------------------------------------


async def test_a_cluster_is_read_over_tls_with_its_token_and_then_followed(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        (before,) = clusters.clusters()
        assert (before.synced, dict(before.unreadable)) == (False, {"*": "it has not been read yet"})
        assert await clusters.synced(5)
        (cluster,) = clusters.clusters()
        assert (cluster.name, cluster.mesh, cluster.synced, dict(cluster.unreadable)) == ("east", "prod", True, {})
        assert names(cluster) == {"shop/cart"}
        assert names(cluster, Namespace) == {"/shop"}
        told = Told(clusters)
        east.put(service("pay"))
        await until(lambda: told.batches)
        assert [(c.cluster, c.kind, c.namespace, c.name) for c in told.batches[0]] == [("east", Service, "shop", "pay")]
        (after,) = clusters.clusters()
        assert names(after) == {"shop/cart", "shop/pay"}
        assert names(cluster) == {"shop/cart"}, "a Cluster that was handed out never changes"
        assert after.objects[Namespace] is cluster.objects[Namespace]
        assert after.read_at >= cluster.read_at > 1e9
        await told.end()


async def test_only_get_list_and_watch_of_the_kinds_are_ever_sent(east: ApiServer, source: ClusterSource) -> None:
    east.put(istiod("istio-system", "default"), config_map("istio"))
    async with running(source) as clusters:
        assert await clusters.synced(5)
        await until(lambda: {r.key for r in east.watching()} == {k.key for k in KINDS})
    assert {r.method for r in east.requests} == {"GET"}
    assert {r.agent for r in east.requests} == {"meshwhy"}
    sent = {(r.group, r.resource, r.verb) for r in east.requests if r.verb != "discovery"}
    assert sent == {(k.group, k.plural, verb) for k in KINDS for verb in ("list", "watch")}
    assert {r.path for r in east.asked(verb="discovery")} == {f"/apis/{k.group}/{k.versions[0]}" for k in KINDS if k.group and k.versions}
    assert {r.authorization for r in east.requests} == {"Bearer tok-1"}
    assert not [r for r in east.requests if r.resource == "secrets"]


async def test_changes_are_gathered_and_the_last_one_of_an_object_is_told(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        assert await clusters.synced(5)
        await until(lambda: len(east.watching()) >= len(KINDS))
        told, other = Told(clusters), Told(clusters)
        for version in range(5):
            east.put(service("cart", version=str(version)))
            await asyncio.sleep(GATHER_S / 5)
        await until(lambda: told.batches)
        ((change,),) = told.batches
        assert change.new is not None
        assert change.new.labels == {"version": "4"}
        assert other.batches == told.batches, "each reader gets all of it"
        told.batches.clear()
        for version in range(40):  # what never rests is told all the same
            east.put(service("cart", version=f"b{version}"))
            await asyncio.sleep(GATHER_S / 2)
        await until(lambda: len(told.batches) >= 2)
        assert len(told.batches) <= 8
        await told.end()
        await other.end()


async def test_what_is_called_with_no_reader_yet_is_not_lost(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        assert await clusters.synced(5)
        await until(lambda: len(east.watching()) >= len(KINDS))
        changes = clusters.changes()
        east.put(service("pay"))
        await asyncio.sleep(0.1)
        assert [c.name for c in await anext(changes)] == ["pay"]


async def test_the_first_reading_and_each_loss_is_an_empty_tuple(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        told = Told(clusters)
        assert await clusters.synced(5)
        await until(lambda: told.batches)
        assert told.batches == [()], "thousands of first objects are one change of state"
        east.forbid(SERVICES)
        east.close_watches(SERVICES)
        await until(lambda: clusters.clusters()[0].unreadable)
        (cluster,) = clusters.clusters()
        assert set(cluster.unreadable) == {SERVICES}
        assert cluster.unreadable[SERVICES].startswith("403: services is forbidden")
        assert cluster.synced
        assert names(cluster) == {"shop/cart"}, "missing data resolves nothing"
        await until(lambda: told.batches == [(), ()])
        east.forbidden.clear()
        await until(lambda: told.batches == [(), (), ()])
        assert not clusters.clusters()[0].unreadable
        await told.end()


async def test_a_forbidden_kind_leaves_the_others_readable_and_is_logged_once(
    east: ApiServer, source: ClusterSource, caplog: pytest.LogCaptureFixture
) -> None:
    east.forbid(VIRTUAL_SERVICES)
    caplog.set_level("INFO", "bot.clusters")
    async with running(source) as clusters:
        assert await clusters.synced(5)
        (cluster,) = clusters.clusters()
        assert set(cluster.unreadable) == {VIRTUAL_SERVICES}
        assert names(cluster) == {"shop/cart"}
        await until(lambda: len(east.asked(VIRTUAL_SERVICES)) >= 3)
        east.forbidden.clear()
        await until(lambda: not clusters.clusters()[0].unreadable)
    said = [r.getMessage() for r in caplog.records]
    assert [s.partition(": User")[0] for s in said] == [
        f"cluster east: {VIRTUAL_SERVICES} cannot be read: 403: {VIRTUAL_SERVICES} is forbidden",
        "cluster east: * can be read",
        f"cluster east: {VIRTUAL_SERVICES} can be read",
    ]
    assert "tok-1" not in caplog.text


async def test_a_malformed_object_is_named_and_told(east: ApiServer, source: ClusterSource) -> None:
    bad = {**service("bad"), "spec": {"ports": "80"}}
    async with running(source) as clusters:
        assert await clusters.synced(5)
        await until(lambda: len(east.watching()) >= len(KINDS))
        told = Told(clusters)
        east.put(bad)
        await until(lambda: told.batches)
        assert told.batches == [()]
        assert [m.ref for m in clusters.clusters()[0].malformed] == ["Service shop/bad"]
        await told.end()


async def test_istiods_own_config_maps_are_followed_where_istiod_is_and_no_others(east: ApiServer, source: ClusterSource) -> None:
    east.put(
        istiod("istio-system", "default"), config_map("istio"), config_map("istio-canary", "mesh-next"), config_map("passwords", "shop")
    )
    async with running(source) as clusters:
        assert await clusters.synced(5)
        assert names(clusters.clusters()[0], ConfigMap) == {"istio-system/istio"}
        east.put(istiod("mesh-next", "canary"))
        await until(lambda: names(clusters.clusters()[0], ConfigMap) == {"istio-system/istio", "mesh-next/istio-canary"})
        told = Told(clusters)
        east.delete("deployments.apps", "mesh-next", "istiod-canary")
        await until(lambda: names(clusters.clusters()[0], ConfigMap) == {"istio-system/istio"})
        await until(lambda: told.batches)
        gone = [c for batch in told.batches for c in batch if c.kind is ConfigMap]
        assert [(c.namespace, c.name, c.new) for c in gone] == [("mesh-next", "istio-canary", None)]
        await until(lambda: len(east.watching("configmaps")) == 1)
        await told.end()
    asked = {(r.namespace, r.query["fieldSelector"]) for r in east.asked("configmaps")}
    assert asked == {
        ("istio-system", "metadata.name=istio"),
        ("mesh-next", "metadata.name=istio"),
        ("mesh-next", "metadata.name=istio-canary"),
    }


async def test_without_an_istiod_the_usual_place_is_looked_at(east: ApiServer, source: ClusterSource) -> None:
    east.put(config_map("istio"))
    async with running(source) as clusters:
        assert await clusters.synced(5)
        assert names(clusters.clusters()[0], ConfigMap) == {"istio-system/istio"}


def secret(name: str, namespace: str) -> dict[str, Any]:
    kept = {"kubectl.kubernetes.io/last-applied-configuration": "aHVzaA=="}
    metadata = {"name": name, "namespace": namespace, "annotations": kept}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"tls.key": "aHVzaA=="}}


async def test_secrets_are_asked_for_by_name_only_and_only_where_the_source_says(east: ApiServer, source: ClusterSource) -> None:
    east.put(secret("cert", "edge"), secret("other", "shop"))
    async with running(dataclasses.replace(source, secrets=("edge", "empty"))) as clusters:
        assert await clusters.synced(5)
        found = clusters.clusters()[0]
        assert names(found, Secret) == {"edge/cert"}
        assert found.objects[Secret]["empty"] == {}, "read, and none is there"
        assert "aHVzaA==" not in str(found.objects[Secret])
        await until(lambda: len(east.watching("secrets")) == 2)
        east.put(secret("more", "edge"))
        await until(lambda: "edge/more" in names(clusters.clusters()[0], Secret))
        assert "aHVzaA==" not in str(clusters.clusters()[0].objects[Secret])
    assert {r.path for r in east.asked("secrets")} == {f"/api/v1/namespaces/{n}/secrets" for n in ("edge", "empty")}
    assert all("PartialObjectMetadata" in r.accept for r in east.asked("secrets"))


async def test_secrets_that_may_not_be_read_are_said_and_make_nothing_unknown(east: ApiServer, source: ClusterSource) -> None:
    east.put(config_map("istio"))
    east.forbidden["secrets"] = {"list", "watch"}
    async with running(dataclasses.replace(source, secrets=("edge",))) as clusters:
        assert await clusters.synced(5)
        found = clusters.clusters()
        assert "forbidden" in found[0].unreadable["secrets"]
        assert Secret not in found[0].objects
        assert diagnosis.why("cart", [Mesh("", found, 0.0)]).verdict is not diagnosis.Verdict.UNKNOWN


async def test_without_being_told_so_no_secret_is_asked_for(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        assert await clusters.synced(5)
    assert east.asked("secrets") == []


async def test_a_source_with_namespaces_asks_for_them_only(east: ApiServer, source: ClusterSource) -> None:
    east.put(service("pay", "pay"), service("other", "other"))
    async with running(dataclasses.replace(source, namespaces=("shop", "pay"))) as clusters:
        assert await clusters.synced(5)
        assert names(clusters.clusters()[0]) == {"shop/cart", "pay/pay"}
        await until(lambda: len(east.watching(SERVICES)) == 2)
        east.put(service("more", "pay"), service("more", "other"))
        await until(lambda: "pay/more" in names(clusters.clusters()[0]))
        assert "other/more" not in names(clusters.clusters()[0])
    assert {r.path for r in east.asked(SERVICES)} == {f"/api/v1/namespaces/{n}/services" for n in ("shop", "pay")}
    assert {r.path for r in east.asked("nodes")} == {"/api/v1/nodes"}


# --- several clusters, one of them ill -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ill", ["down", "silent", "slow", "unknown name", "no credentials", "wrong authority"])
async def test_an_ill_cluster_delays_none_of_the_others(east: ApiServer, source: ClusterSource, tmp_path: Path, ill: str) -> None:
    async with ApiServer(tls=True) as west:
        west.put(service("pay"))
        other = ClusterSource("west", kubeconfig=west.kubeconfig(tmp_path / "west.kubeconfig", context="west"))
        said = {
            "silent": "no answer",
            "slow": "no answer",
            "down": "cannot be reached: Connection refused",
            "no credentials": "401: Unauthorized",
        }
        match ill:
            case "down":
                await west.down()
            case "silent":
                west.silent = True
            case "slow":
                west.delay_s = 30
            case "no credentials":
                west.tokens = {"another"}
            case "unknown name":
                other = dataclasses.replace(other, context="wset")
            case "wrong authority":
                config = yaml.safe_load(Path(str(other.kubeconfig)).read_text())
                del config["clusters"][0]["cluster"]["certificate-authority-data"]
                Path(str(other.kubeconfig)).write_text(yaml.safe_dump(config))
        async with running(other, source) as clusters:
            loop = asyncio.get_running_loop()
            started = loop.time()
            await until(lambda: clusters.clusters()[1].synced, 4)
            assert loop.time() - started < 2
            assert not await clusters.synced(5)
            ill_one, well = clusters.clusters()
            assert (ill_one.name, ill_one.synced, dict(ill_one.objects)) == ("west", False, {})
            assert list(ill_one.unreadable) == ["*"]
            expected = {"unknown name": 'There is no context "wset" in ', "wrong authority": "CERTIFICATE_VERIFY_FAILED", **said}[ill]
            await until(lambda: expected in clusters.clusters()[0].unreadable["*"])
            assert names(well) == {"shop/cart"}
            east.put(service("more"))
            await until(lambda: "shop/more" in names(clusters.clusters()[1]), 2)


async def test_a_lost_cluster_keeps_what_was_known_and_comes_back_as_a_whole(east: ApiServer, source: ClusterSource) -> None:
    async with running(source) as clusters:
        assert await clusters.synced(5)
        told = Told(clusters)
        await east.down()
        await until(lambda: not clusters.clusters()[0].synced)
        (cluster,) = clusters.clusters()
        assert dict(cluster.unreadable) == {"*": f"127.0.0.1:{east.port} cannot be reached: Connection refused"}
        assert names(cluster) == {"shop/cart"}
        await until(lambda: told.batches)
        assert not any(told.batches)
        east.put(service("pay"))
        await east.up()
        await until(lambda: clusters.clusters()[0].synced and not clusters.clusters()[0].unreadable)
        await until(lambda: names(clusters.clusters()[0]) == {"shop/cart", "shop/pay"})
        await until(lambda: [c.name for batch in told.batches for c in batch] == ["pay"])
        await told.end()


async def test_a_cluster_that_was_down_at_the_start_is_read_when_it_comes(east: ApiServer, source: ClusterSource) -> None:
    await east.down()
    async with running(source) as clusters:
        assert not await clusters.synced(5)
        told = Told(clusters)
        await east.up()
        await until(lambda: clusters.clusters()[0].synced and not clusters.clusters()[0].unreadable)
        assert names(clusters.clusters()[0]) == {"shop/cart"}
        await until(lambda: () in told.batches)
        await told.end()


# --- credentials -----------------------------------------------------------------------------------------------------------

PLUGIN = """\
#!{python}
import datetime, json, pathlib, sys
count = pathlib.Path({count!r})
calls = int(count.read_text()) + 1 if count.exists() else 1
beside = count.with_suffix(".new")
beside.write_text(str(calls))
beside.replace(count)  # whoever reads it meanwhile reads a number
if {broken!r}:
    sys.exit("the plugin is not well")
# The kubernetes package takes a token for expired five minutes early: this one lasts for two to three seconds.
expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=303)
status = {{"token": f"tok-{{calls}}", "expirationTimestamp": expiry.strftime("%Y-%m-%dT%H:%M:%SZ")}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


def plugin(tmp_path: Path, *, broken: bool = False) -> dict[str, Any]:
    path = tmp_path / "plugin"
    path.write_text(PLUGIN.format(python=sys.executable, count=str(tmp_path / "calls"), broken=broken))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    spec = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "interactiveMode": "Never"}
    return {"exec": spec}


async def test_a_credential_plugins_token_that_expires_is_fetched_again_before_the_next_connect(east: ApiServer, tmp_path: Path) -> None:
    config = east.kubeconfig(tmp_path / "config", plugin(tmp_path))
    east.tokens = {f"tok-{i}" for i in range(1, 100)}
    async with running(ClusterSource("east", kubeconfig=config)) as clusters:
        assert await clusters.synced(10)
        assert "Bearer tok-1" in {r.authorization for r in east.requests}
        await asyncio.sleep(3.1)
        east.tokens -= {f"tok-{i}" for i in range(1, int((tmp_path / "calls").read_text()))}
        old = len(east.requests)
        east.close_watches()
        east.put(service("pay"))
        await until(lambda: "shop/pay" in names(clusters.clusters()[0]), 10)
        assert not clusters.clusters()[0].unreadable
        assert {r.authorization.removeprefix("Bearer ") for r in east.requests[old:]} <= east.tokens, (
            "no request with a token that had expired"
        )
        assert 2 <= int((tmp_path / "calls").read_text()) < 15, "all the informers of a cluster share a token"


async def test_an_oidc_token_that_has_expired_is_refreshed_and_kept(east: ApiServer, tmp_path: Path) -> None:
    def jwt(expires: int) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).rstrip(b"=").decode()
        return f"aGVhZA.{claims}.c2ln"

    fresh = jwt(4_000_000_000)
    asked: list[dict[str, Any]] = []

    async def configuration(_: web.Request) -> web.Response:
        return web.json_response({"token_endpoint": f"https://127.0.0.1:{port}/token"})

    async def token(request: web.Request) -> web.Response:
        asked.append(dict(await request.post()))
        return web.json_response({"id_token": fresh, "refresh_token": "refresh-2", "access_token": "a", "token_type": "Bearer"})

    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", configuration), web.post("/token", token)])
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PEM)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    provider = {
        "idp-issuer-url": f"https://127.0.0.1:{port}",
        "idp-certificate-authority-data": base64.b64encode(AUTHORITY_PEM.encode()).decode(),
        "client-id": "meshwhy",
        "client-secret": "hush",
        "id-token": jwt(1),
        "refresh-token": "refresh-1",
    }
    config = east.kubeconfig(tmp_path / "config", {"auth-provider": {"name": "oidc", "config": provider}})
    east.tokens = {fresh}
    async with running(ClusterSource("east", kubeconfig=config)) as clusters:
        assert await clusters.synced(10), clusters.clusters()[0].unreadable
    assert [a["refresh_token"] for a in asked] == ["refresh-1"]
    (user,) = yaml.safe_load(Path(config).read_text())["users"]
    assert user["user"]["auth-provider"]["config"]["refresh-token"] == "refresh-2", "the old one may be worthless now"
    await runner.cleanup()


async def test_a_credential_plugin_that_fails_is_named_and_its_secrets_are_not(
    east: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = east.kubeconfig(tmp_path / "config", plugin(tmp_path, broken=True))
    async with running(ClusterSource("east", kubeconfig=config)) as clusters:
        assert not await clusters.synced(10)
        assert dict(clusters.clusters()[0].unreadable) == {"*": f"the credential plugin {tmp_path}/plugin of {config} gave no credentials"}
        assert int((tmp_path / "calls").read_text()) <= 3, "one run for all the informers of a cluster"
    assert "tok-" not in caplog.text


async def test_a_kubeconfig_that_rotates_is_read_again_and_may_lead_elsewhere(
    east: ApiServer, source: ClusterSource, tmp_path: Path
) -> None:
    async with running(source) as clusters:
        assert await clusters.synced(5)
        east.tokens = {"tok-2"}
        await until(lambda: not clusters.clusters()[0].synced)
        assert "401" in clusters.clusters()[0].unreadable["*"]
        east.kubeconfig(tmp_path / "east.kubeconfig")
        await until(lambda: clusters.clusters()[0].synced and not clusters.clusters()[0].unreadable)
        async with ApiServer(tls=True) as moved:
            moved.put(service("elsewhere"))
            moved.kubeconfig(tmp_path / "east.kubeconfig")
            await until(lambda: names(clusters.clusters()[0]) == {"shop/elsewhere"})


async def test_a_token_file_that_is_renewed_is_used_after_the_old_one_is_refused(east: ApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tok-1")
    config = east.kubeconfig(tmp_path / "config", {"tokenFile": str(token)})
    async with running(ClusterSource("east", kubeconfig=config)) as clusters:
        assert await clusters.synced(5)
        token.write_text("tok-2")
        east.tokens = {"tok-2"}
        await until(lambda: len(east.watching()) >= len(KINDS) and all(w.authorization == "Bearer tok-2" for w in east.watching()), 10)
        await until(lambda: not clusters.clusters()[0].unreadable)


async def test_in_cluster_credentials_are_the_service_accounts(east: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("tok-1")
    (tmp_path / "ca.crt").write_text(AUTHORITY_PEM)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(east.port))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    east.tokens = {"tok-1"}
    async with running(ClusterSource("here", in_cluster=True)) as clusters:
        assert await clusters.synced(5), clusters.clusters()
        assert names(clusters.clusters()[0]) == {"shop/cart"}


async def test_outside_of_a_cluster_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (cluster,) = await snapshot([ClusterSource("here", in_cluster=True)], timeout_s=5)
    assert dict(cluster.unreadable) == {"*": "no credentials: Service host/port is not set"}


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "users: null\nclusters: 7\ncontexts: {}\n", "{", "current-context: x\ncontexts: [{}]\n", "\x00"]
)
async def test_a_kubeconfig_of_any_shape_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    async with running(ClusterSource("east", kubeconfig=str(path))) as clusters:
        assert not await clusters.synced(5)
        assert clusters.clusters()[0].unreadable["*"].startswith("no credentials: ")
    with pytest.raises(NoSuchContext):
        await snapshot([ClusterSource("east", kubeconfig=str(path), context="east")], timeout_s=1)


# --- the command line's snapshot -------------------------------------------------------------------------------------------


async def test_a_snapshot_lists_everything_once_and_reports_its_progress(east: ApiServer, source: ClusterSource, tmp_path: Path) -> None:
    east.delay_s = 0.15
    files = tmp_path / "west.yaml"
    files.write_text(yaml.safe_dump(service("pay")))
    seen: list[tuple[str, int]] = []
    both = (ClusterSource("west", path=str(files)), source)
    west, live = await snapshot(both, timeout_s=5, progress=lambda name, count: seen.append((name, count)))
    assert (names(west), names(live), live.synced) == ({"shop/pay"}, {"shop/cart"}, True)
    assert not east.asked(verb="watch")
    assert {name for name, _ in seen} == {"west", "east"}


async def test_a_snapshot_of_a_cluster_that_does_not_answer_in_time_says_so(east: ApiServer, source: ClusterSource) -> None:
    east.silent = True
    (cluster,) = await snapshot([source], timeout_s=0.3)
    assert (cluster.synced, dict(cluster.unreadable)) == (False, {"*": "it was not read within 0.3 s"})


async def test_a_snapshot_waits_out_a_hiccup(east: ApiServer, source: ClusterSource) -> None:
    east.failing[SERVICES] = (429, {})
    reading = asyncio.create_task(snapshot([source], timeout_s=10))
    await until(lambda: east.asked(SERVICES))
    east.failing.clear()
    (cluster,) = await reading
    assert not cluster.unreadable
    assert names(cluster) == {"shop/cart"}


async def test_a_context_that_is_not_there_is_answered_with_those_that_are(source: ClusterSource, tmp_path: Path) -> None:
    with pytest.raises(NoSuchContext) as wrong:
        await snapshot([dataclasses.replace(source, context="eats")], timeout_s=1)
    assert str(wrong.value) == f'There is no context "eats" in {source.kubeconfig}. Did you mean east?'
    with pytest.raises(NoSuchContext) as wrong:
        await snapshot([dataclasses.replace(source, context="production")], timeout_s=1)
    assert str(wrong.value) == f'There is no context "production" in {source.kubeconfig}. It has east.'
    with pytest.raises(NoSuchContext) as wrong:
        contexts(str(tmp_path / "none"))
    assert str(wrong.value) == f"The kubeconfig {tmp_path}/none cannot be read: there is no such file."
    with pytest.raises(BadSource):
        await snapshot([ClusterSource("west", path=str(tmp_path / "none.yaml"))], timeout_s=1)


def test_contexts_come_from_every_file_of_the_environment(east: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [east.kubeconfig(tmp_path / name, context=name) for name in ("one", "two")]
    monkeypatch.setenv("KUBECONFIG", ":".join(files))
    assert contexts() == ("one", "two")
    assert contexts(files[1]) == ("two",)


# --- files -----------------------------------------------------------------------------------------------------------------


def put(path: Path, *found: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump_all(found))


async def test_a_directory_is_followed_file_by_file(tmp_path: Path) -> None:
    put(tmp_path / "cart.yaml", service("cart"), service("pay"))
    async with running(ClusterSource("east", mesh="prod", path=str(tmp_path))) as clusters:
        assert await clusters.synced(5)
        (before,) = clusters.clusters()
        told = Told(clusters)
        put(tmp_path / "cart.yaml", service("cart", version="v2"))
        put(tmp_path / "more.yaml", service("more", "other"))
        await until(lambda: len([c for batch in told.batches for c in batch]) == 3)
        changes = {(c.cluster, c.name, c.new is None) for batch in told.batches for c in batch}
        assert changes == {("east", "cart", False), ("east", "pay", True), ("east", "more", False)}
        (after,) = clusters.clusters()
        assert names(after) == {"shop/cart", "other/more"}
        assert names(before) == {"shop/cart", "shop/pay"}
        assert after.origins["Service other/more"] == (str(tmp_path / "more.yaml"), 1)
        assert after.mesh == "prod"
        read_at = after.read_at
        await until(lambda: clusters.clusters()[0].read_at > read_at)  # being there, unchanged, is a sign of life
        told.batches.clear()
        (tmp_path / "more.yaml").unlink()
        await until(lambda: told.batches)
        assert [(c.name, c.new) for c in told.batches[0]] == [("more", None)]
        await told.end()


async def test_a_file_that_breaks_keeps_what_it_held_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "east.yaml"
    put(path, service("cart"))
    async with running(ClusterSource("east", path=str(path))) as clusters:
        assert await clusters.synced(5)
        told = Told(clusters)
        path.write_text("kind: ]")
        await until(lambda: not clusters.clusters()[0].synced)
        (cluster,) = clusters.clusters()
        assert cluster.unreadable["*"].startswith(f"{path}:1: it is not YAML")
        assert names(cluster) == {"shop/cart"}
        await until(lambda: told.batches == [()])
        put(path, service("cart"), service("pay"))
        await until(lambda: clusters.clusters()[0].synced)
        await until(lambda: [c.name for batch in told.batches for c in batch] == ["pay"])
        path.unlink()
        await until(lambda: dict(clusters.clusters()[0].unreadable) == {"*": f"{path} is not there."})
        await told.end()


async def test_a_broken_file_of_a_directory_keeps_what_it_held_and_only_that(tmp_path: Path) -> None:
    put(tmp_path / "a.yaml", service("a1"), service("a2"))
    put(tmp_path / "b.yaml", service("b1"), service("b2"))
    async with running(ClusterSource("east", path=str(tmp_path))) as clusters:
        assert await clusters.synced(5)
        (tmp_path / "a.yaml").write_text("{ this is no manifest")
        put(tmp_path / "b.yaml", service("b1"), {**service("b3"), "spec": 7})
        await until(lambda: names(clusters.clusters()[0]) == {"shop/a1", "shop/a2", "shop/b1"})
        assert {m.ref for m in clusters.clusters()[0].malformed} == {str(tmp_path / "a.yaml"), "Service shop/b3"}
        put(tmp_path / "b.yaml", {**service("b1"), "spec": 7})
        await until(lambda: "Service shop/b1" in {m.ref for m in clusters.clusters()[0].malformed})
        assert names(clusters.clusters()[0]) == {"shop/a1", "shop/a2", "shop/b1"}
        put(tmp_path / "a.yaml", service("a2"))
        await until(lambda: names(clusters.clusters()[0]) == {"shop/a2", "shop/b1"})


async def test_a_file_that_comes_later_is_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "east.json"
    async with running(ClusterSource("east", path=str(path))) as clusters:
        assert not await clusters.synced(5)
        assert dict(clusters.clusters()[0].unreadable) == {"*": f"{path} is not there."}
        path.write_text(json.dumps(service("cart")))
        await until(lambda: clusters.clusters()[0].synced)
        assert names(clusters.clusters()[0]) == {"shop/cart"}


async def test_what_a_recording_could_not_see_stays_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "east.yaml"
    text = "---\napiVersion: meshwhy.io/v1\nkind: Recording\nunreadable: {virtualservices.networking.istio.io: '403: forbidden'}\n"
    path.write_text(yaml.safe_dump(service("cart")) + text)
    async with running(ClusterSource("east", path=str(path))) as clusters:
        assert await clusters.synced(5)
        assert dict(clusters.clusters()[0].unreadable) == {VIRTUAL_SERVICES: "403: forbidden"}


# --- changes applied -------------------------------------------------------------------------------------------------------


def test_applying_changes_copies_only_what_they_touch(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    put(path, service("cart"), service("pay", "pay"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    old = rooms.manifests.read(str(path), "east", read_at=1.0)
    pod = Pod(metadata=old.objects[Service]["shop"]["cart"].metadata)
    new = rooms.apply(
        old,
        [
            Change("east", Pod, "shop", "cart", pod),
            Change("east", Service, "shop", "cart", None),
            Change("east", VirtualService, "x", "y", None),
        ],
    )
    assert names(old) == {"shop/cart", "pay/pay"}
    assert names(new) == {"pay/pay"}
    assert names(new, Pod) == {"shop/cart"}
    assert "shop" not in new.objects[Service], "an empty namespace is not kept"
    assert new.objects[Service]["pay"] is old.objects[Service]["pay"]
    assert new.objects[Namespace] is old.objects[Namespace]
    assert (new.name, new.read_at) == ("east", 1.0)
