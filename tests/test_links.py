"""Links that lead on: Kiali, Grafana and Jaeger, for a host and the time of its fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot import settings
from bot.clusters import ClusterSource
from bot.links import PLACEHOLDERS, About, links
from tests.bots import RECORDED, alerts, running

if TYPE_CHECKING:
    from pathlib import Path

    from bot.demo.slack import LocalSlack

SERVICE = About("destination.mynamespace.svc.cluster.local", "mynamespace", "Kubernetes", 10_000.0, None)
TOOLS = {
    "kiali": "https://kiali.example/kiali/",
    "grafana": "https://grafana.example/d/mesh?var-service={service}&from={from}&to={to}",
    "jaeger": "https://jaeger.example",
}


def test_each_tool_is_asked_for_the_service_at_the_time_of_its_fault():
    found = dict(links(TOOLS, SERVICE))
    kiali, jaeger = urlsplit(found["Kiali"]), urlsplit(found["Jaeger"])
    assert (kiali.path, parse_qs(kiali.query)) == (
        "/kiali/console/namespaces/mynamespace/services/destination",
        {"clusterName": ["Kubernetes"], "from": ["9100000"]},
    )
    assert found["Grafana"] == "https://grafana.example/d/mesh?var-service=destination&from=9100000&to=now"
    asked = parse_qs(jaeger.query)
    assert (jaeger.path, asked["service"], asked["start"], asked["tags"]) == (
        "/search",
        ["destination.mynamespace"],
        ["9100000000"],
        ['{"error":"true"}'],
    )
    over = dict(links(TOOLS, SERVICE._replace(until=10_600.0)))
    assert over["Grafana"].endswith("&from=9100000&to=10900000")
    assert over["Kiali"].endswith("&from=9100000&to=10900000")


def test_what_is_no_service_is_shown_where_a_tool_can_show_it():
    entry = About("api.partner.example", "egress", "Kubernetes", 10_000.0, None)
    found = dict(links(TOOLS, entry))
    assert "namespaces=egress" in found["Kiali"]
    assert "var-service=api.partner.example" in found["Grafana"]
    assert "Jaeger" not in found
    assert links({"jaeger": "https://j/?q={host}"}, entry) == [("Jaeger", "https://j/?q=api.partner.example")]
    assert links({"grafana": "https://grafana.example/d/mesh"}, entry) == [("Grafana", "https://grafana.example/d/mesh")]
    assert links({}, SERVICE) == []


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_name_leaves_its_place_in_an_address(host: str, namespace: str, cluster: str):
    template = "https://g.example/d/{namespace}/x?" + "&".join(f"{p}={{{p}}}" for p in PLACEHOLDERS) + "#end"
    about = About(
        host.encode("utf-8", "replace").decode(),
        namespace.encode("utf-8", "replace").decode(),
        cluster.encode("utf-8", "replace").decode(),
        1.0,
        2.0,
    )
    for _, url in links({"grafana": template}, about):
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "g.example", "end")
        assert parts.path.count("/") == 3
        assert parse_qs(parts.query, keep_blank_values=True).keys() == set(PLACEHOLDERS)


def config(tmp_path: Path, links: Any) -> Path:
    file = tmp_path / "meshwhy.yaml"
    slack = {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}}
    cluster = {"name": "east", "path": str(RECORDED / "east"), "links": links}
    file.write_text(yaml.safe_dump({"slack": slack, "clusters": [cluster], "alerts": {"default_channel": "#mesh"}}, sort_keys=False))
    return file


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kiali": "kiali.example"}, "clusters[0].links.kiali must be an address such as https://kiali.example/kiali"),
        ({"kiali": "javascript:alert(1)"}, "must be an address"),
        ({"kiali": "https://kiali.example/a b"}, "must be an address"),
        ({"kiali": "https://x|y@<!channel>"}, "must be an address"),
        ({"kiali": 7}, "must be an address"),
        ({"jaeger": "https://me:secret@jaeger.example"}, "must hold no user name or password"),
        ({"grafana": "https://g/{svc}"}, "holds {svc}, which stands for nothing; known are {namespace}, {service}"),
        ({"grafana": "https://g/{service"}, "holds {, which stands for nothing"),
        ({"graphana": "https://g"}, "did you mean clusters[0].links.grafana?"),
        (None, None),
        (TOOLS, None),
    ],
)  # fmt: skip
def test_a_wrong_address_is_named_with_line_and_key(tmp_path: Path, given: Any, why: str | None):
    file = config(tmp_path, given)
    environ = {"APP": "xapp-1", "BOT": "xoxb-1", "HOME": str(tmp_path)}
    if why is None:
        assert settings.load(file, environ).clusters[0].name == "east"
        return
    with pytest.raises(settings.BadSettings) as refused:
        settings.load(file, environ)
    assert why in str(refused.value)
    assert "line " in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_alerts_and_answers_lead_on_where_the_settings_say_so(slack: LocalSlack, redis_url: str):
    sources = [ClusterSource(name, mesh=name, path=str(RECORDED / name)) for name in ("east", "west")]
    async with running(slack, redis_url, sources, alerts(), links={"east": TOOLS}):
        roots = await slack.until(lambda: len(m := slack.messages("#mesh")) == 2 and m, 15)
        (east,) = (m for m in roots if "destination.mynamespace" in m.words)
        assert "|Kiali> · <https://grafana.example/d/mesh?var-service=destination&amp;from=" in east.words
        assert not any("Look on:" in m.words for m in roots if m is not east)
        await slack.command("/mesh why destination")
        await slack.until(lambda: slack.ephemerals("ana"))
        assert "/kiali/console/namespaces/mynamespace/services/destination?" in slack.ephemerals("ana")[-1].words
        await slack.command("/mesh explain 503 UH http://destination.mynamespace/")
        await slack.until(lambda: len(slack.ephemerals("ana")) == 2)
        assert "|Jaeger>" in slack.ephemerals("ana")[-1].words
