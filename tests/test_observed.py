"""How the bot itself is observed: what the chart's rules and dashboard ask for is what /metrics exports, and the logs give nothing away."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from helm_python import Chart
from prometheus_client.parser import text_string_to_metric_families

from bot import metrics
from bot.clusters import Watch
from checks.mesh import Cluster
from tests.apiserver import ApiServer
from tests.bots import RECORDED, serving
from tests.test_health import OK, Told, ask, told

if TYPE_CHECKING:
    from bot.demo.slack import LocalSlack
    from bot.store import Store

CHART = Path(__file__).parent.parent / "helm"
RULES, DASHBOARD = CHART / "files" / "alerts.yaml", CHART / "files" / "dashboard.json"
ON = {"metrics": {part: {"enabled": True} for part in ("monitor", "rules", "dashboard")}}
VALUES: dict[str, Any] = {"image": {"repository": "registry.example/meshwhy"}, "slack": {"existingSecret": "meshwhy-slack"}}


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    with Chart.load(CHART) as chart:
        text = chart.render(values, name="meshwhy", namespace="ops")
    found = [d for path, one in text.items() if path.endswith("observed.yaml") for d in yaml.safe_load_all(one) if d]
    return {d["kind"]: d for d in found}


async def exported(store: Store) -> dict[str, set[str]]:
    """Every sample that /metrics can have, with its labels; what has labels is there once something was counted."""
    metrics.SLACK_CALLS.labels("chat.postMessage", "ok").inc(0)
    metrics.DEEDS.labels("ack").inc(0)
    metrics.RELOADS.labels("used").inc(0)
    metrics.RELAYED.labels("taken").inc(0)
    metrics.HEARD.labels("taken").inc(0)
    metrics.PAGES.labels("nightly", "202").inc(0)
    metrics.WATCH_LAG.labels("east", "pods").set(0)
    dark = Cluster("east", unreadable={"pods": "forbidden"})
    text = (await metrics.page(store, lambda: (dark,), lambda: [Watch("east", "pods", time.time())], leading=True)).decode()
    found = {s.name: set(s.labels) for f in text_string_to_metric_families(text) for s in f.samples if not s.name.endswith("_created")}
    return found | {"meshwhy_alerts": {"state"}}


def asked(*expressions: str) -> list[tuple[str, set[str]]]:
    """The metrics that expressions name, each with the labels by which it is selected or gathered."""
    found = []
    for expression in expressions:
        labels = {n for group in re.findall(r"by \(([^)]*)\)", expression) for n in re.split(r",\s*", group)} - {"le"}
        for name, selected in re.findall(r"\b(meshwhy_\w+)(?:\{([^}]*)\})?", expression):
            found.append((name, labels | set(re.findall(r"(\w+)[=!]", selected))))
    return found


async def test_the_rules_and_the_dashboard_ask_for_exactly_what_is_exported(store: Store):
    have = await exported(store)
    board = json.loads(DASHBOARD.read_text())
    rules = [r["expr"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    drawn = [t["expr"] for p in board["panels"] for t in p["targets"]]
    for name, labels in asked(*rules, *drawn):
        assert name in have, f"{name} is not exported"
        assert labels <= have[name], f"{name} has no {labels - have[name]}"
    family = re.compile(r"_(bucket|sum|count)$")
    assert {family.sub("", n) for n, _ in asked(*drawn)} == {family.sub("", n) for n in have}, "everything that is exported is drawn"


def test_prometheus_itself_reads_the_rules():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def test_by_default_the_chart_asks_for_no_operator_and_when_asked_it_ships_all_three():
    assert rendered(VALUES) == {}
    labelled = {**ON["metrics"], "rules": {"enabled": True, "labels": {"release": "prometheus"}}}
    found = rendered({**VALUES, "metrics": labelled})
    assert set(found) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    assert found["PrometheusRule"]["spec"] == yaml.safe_load(RULES.read_text())
    assert found["PrometheusRule"]["metadata"]["labels"]["release"] == "prometheus"
    assert json.loads(found["ConfigMap"]["data"]["meshwhy.json"]) == json.loads(DASHBOARD.read_text())
    assert found["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["PodMonitor"]["spec"]["podMetricsEndpoints"] == [{"port": "health", "path": "/metrics", "interval": "30s"}]


def test_who_scrapes_is_let_in_by_the_network_policy():
    with Chart.load(CHART) as chart:
        text = chart.render({**VALUES, **ON, "networkPolicy": {"enabled": True}}, name="meshwhy", namespace="ops")
    (policy,) = [d for one in text.values() for d in yaml.safe_load_all(one) if isinstance(d, dict) and d.get("kind") == "NetworkPolicy"]
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "health"}]}]


def test_the_panels_of_the_dashboard_do_not_cover_each_other():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    taken = [(x, y) for p in panels for g in [p["gridPos"]] for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    assert len({p["id"] for p in panels}) == len(panels)


# --- readiness ---


async def test_a_connection_that_is_only_half_open_makes_the_bot_unready_until_it_is_rebuilt(
    redis_url: str, tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch, slack: LocalSlack
):
    monkeypatch.setattr("bot.__main__._PING_S", 0.5)
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    async with serving(slack, redis_url, tmp_path, health={"port": unused_tcp_port}):
        await told(unused_tcp_port, "/readyz", OK)
        slack.half_open()
        await told(unused_tcp_port, "/readyz", Told(503, "Slack is not connected\n"))
        await told(unused_tcp_port, "/readyz", OK, 20)


async def test_a_watch_that_falls_silent_makes_the_bot_unready_and_is_named(
    redis_url: str, tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch, slack: LocalSlack
):
    monkeypatch.setattr("bot.__main__._STALE_S", 1.0)
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    async with serving(slack, redis_url, tmp_path, health={"port": unused_tcp_port}):
        await told(unused_tcp_port, "/readyz", OK)
        shutil.move(tmp_path / "east", tmp_path / "gone")
        status, text = await silent(unused_tcp_port)
        assert status == 503
        assert re.fullmatch(r"cluster east has given no sign of life for \d+ s\n", text)
        shutil.move(tmp_path / "gone", tmp_path / "east")
        await told(unused_tcp_port, "/readyz", OK)


async def silent(port: int) -> Told:
    until = time.monotonic() + 10
    while (answer := await ask(port, "/readyz")).status == 200 and time.monotonic() < until:
        pass
    return answer


# --- secrets ---


async def test_no_secret_is_in_any_log_line_of_a_whole_run_however_much_is_logged(
    redis_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], slack: LocalSlack, unused_tcp_port: int
):
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    token = "kube-bearer-8d21c0ffee"  # noqa: S105 - the test's own
    try:
        async with ApiServer(tls=True, token=token) as api:
            for file in sorted((RECORDED / "east").iterdir()):
                api.put(*yaml.safe_load(file.read_text())["items"])
            kubeconfig = tmp_path / "kubeconfig"
            api.kubeconfig(kubeconfig)
            clusters = [{"name": "east", "kubeconfig": kubeconfig}]
            async with serving(slack, redis_url, tmp_path, clusters=clusters, health={"port": unused_tcp_port}):
                await slack.until(lambda: slack.messages("#mesh"), 20)
                root_message = slack.messages("#mesh")[0]
                await slack.until(lambda: slack.connected)
                await slack.click(root_message, "alert_ack")
                await slack.command("/mesh why destination.mynamespace")
                await slack.until(lambda: len(slack.ephemerals("ana")) >= 2, 10)
                slack.fault("chat.update", error="invalid_blocks")
                slack.revoke("invalid_auth")
                await api.down()
                await told(unused_tcp_port, "/livez", OK)
    finally:
        root.setLevel(before)
    logged = capfd.readouterr()
    text = logged.out + logged.err
    assert text.count("\n") > 100, "much is logged"
    secrets = [slack.bot_token, slack.app_token, slack.signing_secret, token]
    secrets += [line.split(": ", 1)[1] for line in kubeconfig.read_text().splitlines() if re.match(r"\s*(client-key|token|.*-data)", line)]
    assert [s[:8] for s in secrets if s in text] == []
    assert re.findall(r"ticket=\w+", text) == []
    assert "ticket=•••" in text
