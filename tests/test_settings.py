"""The settings file: what is accepted, and the one sentence for each thing that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot.settings import BadSettings, Settings, alerts, clusters, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = """\
slack: {mode: socket, app_token: {env: SLACK_APP_TOKEN}, bot_token: {env: SLACK_BOT_TOKEN}}
redis: {url: {env: REDIS_URL}}
state_dir: state
clusters:
  - {name: east, mesh: prod, context: east}
  - name: west
    path: recorded/west
    prometheus: {url: "http://prometheus.example:9090"}
alerts: {for: 10s, clear: 1m30s, default_channel: "#mesh", routes: [{match: {namespace: payments, label: team=a}, channel: "#payments"}]}
"""
ENVIRON = {"SLACK_APP_TOKEN": "xapp-1-hush", "SLACK_BOT_TOKEN": "xoxb-2-hush", "REDIS_URL": "redis://:hush@redis.example/0"}


@pytest.fixture
def loading(tmp_path: Path) -> Callable[[str], Settings]:
    def load_text(text: str) -> Settings:
        path = tmp_path / "meshwhy.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, ENVIRON)

    return load_text


def sentences(loading: Callable[[str], Settings], text: str) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as refused:
        loading(text)
    return refused.value.sentences


def test_everything_that_the_design_shows_is_read(loading: Callable[[str], Settings], tmp_path: Path):
    settings = loading(GOOD)
    assert settings.slack.app_token is not None
    assert settings.slack.app_token.get_secret_value() == "xapp-1-hush"
    assert settings.slack.base_url == "https://slack.com/api/"
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == ENVIRON["REDIS_URL"]
    assert (settings.alerts.for_s, settings.alerts.clear_s, settings.alerts.default_channel) == (10.0, 90.0, "#mesh")
    route = settings.alerts.routes[0]
    assert (route.match.namespace, route.match.label, route.channel) == (("payments",), {"team": "a"}, "#payments")
    assert [(c.name, c.mesh, c.context, c.path) for c in settings.clusters] == [
        ("east", "prod", "east", None),
        ("west", "west", None, tmp_path / "recorded/west"),
    ]
    assert settings.state_dir == tmp_path / "state"


def test_who_may_what_is_said_briefly_or_with_namespaces_and_clusters(loading: Callable[[str], Settings]):
    assert loading(GOOD).access is None
    access = loading(
        GOOD
        + "access: {responders: ['@sre', {who: [U0KIM, '#payments'], namespace: pay-*, cluster: [east]}], admins: S0ADMINS, remember: 1m}\n"
    ).access
    assert access is not None
    assert [g.who for g in access.viewers] == [("everyone",)], "everybody may look unless somebody is named"
    assert [(g.who, g.namespace, g.cluster) for g in access.responders] == [
        (("@sre",), None, None),
        (("U0KIM", "#payments"), ("pay-*",), ("east",)),
    ]
    assert ([g.who for g in access.admins], access.remember_s) == ([("S0ADMINS",)], 60.0)


def test_a_cluster_is_a_mesh_of_its_own_unless_it_says_otherwise(loading: Callable[[str], Settings]):
    assert [c.mesh for c in loading(GOOD).clusters] == ["prod", "west"]


def test_no_secret_is_in_a_repr(loading: Callable[[str], Settings]):
    assert "hush" not in repr(loading(GOOD)) + str(loading(GOOD))


def test_without_redis_the_embedded_one_is_meant(loading: Callable[[str], Settings]):
    assert loading(GOOD.replace("redis: {url: {env: REDIS_URL}}\n", "")).redis.url is None


def test_state_lives_where_the_desktop_keeps_it_unless_told(tmp_path: Path):
    path = tmp_path / "meshwhy.yaml"
    path.write_text(GOOD.replace("state_dir: state\n", ""), encoding="utf-8")
    assert load(path, {**ENVIRON, "XDG_STATE_HOME": "/var/state"}).state_dir.as_posix() == "/var/state/meshwhy"


def test_a_secret_may_stand_in_a_file_beside_the_settings(loading: Callable[[str], Settings], tmp_path: Path):
    (tmp_path / "token").write_text("xoxb-from-file\n", encoding="utf-8")
    assert loading(GOOD.replace("{env: SLACK_BOT_TOKEN}", "{file: token}")).slack.bot_token.get_secret_value() == "xoxb-from-file"


def test_only_the_clusters_are_read_without_holding_any_secret(tmp_path: Path):
    path = tmp_path / "meshwhy.yaml"
    path.write_text(GOOD.replace("{env: SLACK_BOT_TOKEN}", "{env: NOT_SET_HERE}"), encoding="utf-8")
    assert [c.name for c in clusters(path)] == ["east", "west"]


def test_a_question_about_routes_needs_no_secret(tmp_path: Path):
    path = tmp_path / "meshwhy.yaml"
    path.write_text(GOOD.replace("{env: SLACK_BOT_TOKEN}", "{env: NOT_SET_HERE}"), encoding="utf-8")
    assert alerts(path).default_channel == "#mesh"
    path.write_text(GOOD.replace("for: 10s", "mutes: [{match: {cause: x}, during: night}]"), encoding="utf-8")
    with pytest.raises(BadSettings, match="names night"):
        alerts(path)


def test_a_time_without_quotes_is_the_time_that_was_meant(loading: Callable[[str], Settings]):
    text = GOOD.replace("for: 10s", "digests: [{at: 18:00}, {at: 09:00}]")
    assert [d.at for d in loading(text).alerts.digests] == [18 * 60, 9 * 60]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("for: 10s", "fro: 10s", 9, "alerts.fro is not a setting; did you mean alerts.for?"),
        ("redis:", "rdis:", 2, "rdis is not a setting; did you mean redis?"),
        ("mode: socket", "mode: sockets", 1, "slack.mode: must be 'socket' or 'http'"),
        ("for: 10s", "for: soon", 9, "alerts.for must be a duration such as 10s, 5m or 1h30m, not 'soon'"),
        ("for: 10s", "for: -1", 9, "alerts.for must be a duration such as 10s, 5m or 1h30m, and not negative"),
        ("for: 10s", "for: .nan", 9, "alerts.for must be a duration such as 10s, 5m or 1h30m"),
        (
            "for: 10s",
            "escalation: [{after: 5m, to: sre}]",
            9,
            "alerts.escalation[0].to must be the id of a person (U0ABCDEF) or of a user group",
        ),
        (
            "for: 10s",
            "escalation: [{after: 5m, to: U0ANA}, {after: 5m, to: S0SRE}]",
            9,
            "alerts.escalation must have its steps in the order of time",
        ),
        ('"#mesh"', '"mesh"', 9, "alerts.default_channel must be a channel"),
        ("alerts:", 'access: {responders: ["@sre"]}\nalerts:', 9, "access.admins is missing."),
        ("alerts:", "access: {admins: []}\nalerts:", 9, "access.admins must not be empty."),
        ("alerts:", "access: {admins: [sre]}\nalerts:", 9, "access.admins[0].who[0] must be everyone, the id of a person (U0ABCDEF)"),
        ("alerts:", "access: {admins: [{namespace: a}]}\nalerts:", 9, "access.admins[0].who is missing."),
        (
            "alerts:",
            "access:\n  admins: [U0ANA]\n  responders:\n  - {who: U0BEN, namespaces: a}\nalerts:",
            12,
            "access.responders[0].namespaces is not a setting; did you mean access.responders[0].namespace?",
        ),
        ("alerts:", "access: {admins: U0ANA, remember: 0s}\nalerts:", 9, "access.remember: must be greater than 0."),
        ("mode: socket", "mode: socket, teams: [prod]", 1, "slack.teams[0] must be the id of a workspace (T0ABCDEF) or of an organisation"),
        ('channel: "#payments"', "user: S0PAY", 9, "alerts.routes[0].user must be the id of a person (U0ABCDEF)"),
        ('channel: "#payments"', "channel: C0123456, user: U0ANA", 9, "alerts.routes[0] names a channel and a user"),
        (
            'channel: "#payments"',
            "channel: C0123456, mention: sre",
            9,
            "alerts.routes[0].mention[0] must be the id of a person (U0ABCDEF) or of",
        ),
        ('channel: "#payments"', "hours: office", 9, "alerts.routes[0] needs hours and outside, or none of them"),
        (
            'channel: "#payments"',
            "hours: offcie, outside: {hold_below: 50%}",
            9,
            "alerts.routes[0].hours names offcie, which alerts.time_intervals does not define.",
        ),
        ('channel: "#payments"', "routes: [{chanel: C0123456}]", 9, "alerts.routes[0].routes[0].chanel is not a setting; did you mean"),
        ("for: 10s", "mutes: [{match: {}}]", 9, "alerts.mutes[0] would mute everything for ever"),
        ("for: 10s", "mutes: [{match: {cause: x}, during: night}]", 9, "alerts.mutes[0].during names night, which alerts.time_intervals"),
        (
            "for: 10s",
            "time_intervals: {night: [{times: [{start_time: '09:00', end_time: x}]}]}",
            9,
            "alerts.time_intervals.night[0].times[0].end_time must be a time of day such as",
        ),
        (
            "for: 10s",
            "time_intervals: {n: [{times: [{start_time: '22:00', end_time: '06:00'}]}]}",
            9,
            "alerts.time_intervals.n[0].times[0] must not end before it begins: what goes over midnight is two entries",
        ),
        (
            "for: 10s",
            "time_intervals: {n: [{weekdays: [friday:monday]}]}",
            9,
            "alerts.time_intervals.n[0].weekdays[0] must not end before it begins",
        ),
        (
            "for: 10s",
            "time_intervals: {n: [{weekdays: [fryday]}]}",
            9,
            "alerts.time_intervals.n[0].weekdays[0] must be a day such as monday",
        ),
        (
            "for: 10s",
            "time_intervals: {n: [{days_of_month: ['32']}]}",
            9,
            "alerts.time_intervals.n[0].days_of_month[0] must be days of a month from 1 to 31",
        ),
        (
            "for: 10s",
            "time_intervals: {n: [{days_of_month: ['-3:2']}]}",
            9,
            "alerts.time_intervals.n[0].days_of_month[0] must be days of a month from 1 to 31",
        ),
        ("for: 10s", "time_intervals: {n: [{months: [13]}]}", 9, "alerts.time_intervals.n[0].months[0] must be months from 1 to 12"),
        (
            "for: 10s",
            "time_intervals: {n: [{location: Berlin}]}",
            9,
            "alerts.time_intervals.n[0].location must be a time zone such as Europe/Berlin",
        ),
        ("for: 10s", "time_intervals: {n: [{weekday: [monday]}]}", 9, "alerts.time_intervals.n[0].weekday is not a setting; did you mean"),
        ("for: 10s", "escalation: [{after: 5m}]", 9, "alerts.escalation[0] needs exactly one of to (a person or a user group), on_call"),
        ("for: 10s", "escalation: [{after: 5m, page: ops}]", 9, "alerts.escalation[0].page names ops, which alerts.pagers does not define"),
        (
            "for: 10s",
            "on_call: {sre: {people: [U0ANA], since: 2026-11-30 09:00}}, escalation: [{after: 5m, on_call: sra}]",
            9,
            "alerts.escalation[0].on_call names sra, which alerts.on_call does not define; did you mean sre?",
        ),
        ("for: 10s", "on_call: {sre: {people: [], since: 2026-11-30 09:00}}", 9, "alerts.on_call.sre.people must not be empty"),
        ("for: 10s", "on_call: {sre: {people: [U0ANA], since: monday}}", 9, "alerts.on_call.sre.since must be a day and a time such as"),
        (
            "for: 10s",
            "on_call: {sre: {people: [U0ANA], since: 2026-11-30 09:00, every: weekly}}",
            9,
            "alerts.on_call.sre.every must be a duration such as 7d or 12h",
        ),
        ("for: 10s", "pagers: {ops: {kind: pagerduty}}", 9, "alerts.pagers.ops of kind pagerduty needs key"),
        ("for: 10s", "pagers: {ops: {kind: webhook, url: 'https://x'}}", 9, "alerts.pagers.ops of kind webhook needs url, and secret"),
        ("for: 10s", "pagers: {ops: {kind: opsgenie, key: hush}}", 9, "alerts.pagers.ops.key is a secret and must not stand in this file"),
        (
            "alerts:",
            "alertmanager: {send: [{url: 'alertmanager:9093'}]}\nalerts:",
            9,
            "alertmanager.send[0].url must start with http:// or",
        ),
        ("alerts:", "alertmanager: {receive: {}}\nalerts:", 9, "alertmanager.receive.token is missing"),
        (
            "alerts:",
            "alertmanager: {receive: {token: {env: SLACK_APP_TOKEN}}}\nalerts:",
            1,
            "the file has alertmanager.receive, which is served on health.port: name one",
        ),
        ("for: 10s", "digests: [{at: noon}]", 9, "alerts.digests[0].at must be a time of day such as 09:30, not 'noon'"),
        ("label: team=a", "label: team", 9, "alerts.routes[0].match.label must be labels such as team=payments"),
        ("    path: recorded/west\n", "", 6, "clusters[1] needs exactly one of context"),
        ("name: east", "name: west", 4, "clusters has two clusters called west"),
        ("name: east", "name: prod/east", 5, "clusters[0].name must be a name without spaces, slashes"),
        ("mesh: prod, ", "deep: perhaps, ", 5, "clusters[0].deep must be true or false"),
        ('"http://prometheus.example:9090"', "prometheus:9090", 8, "clusters[1].prometheus.url must start with http:// or https://"),
        *(
            ('{url: "http://prometheus.example:9090"}', f"{{url: 'https://p.example', {more}}}", 8, f"clusters[1].prometheus{said}")
            for more, said in (
                ("tenant: a", ".tenant is not a setting; known here: url, token"),
                ("token: hush", ".token is a secret and must not stand in this file"),
                ("token: {env: SLACK_APP_TOKEN}, basic: {user: a, password: {env: SLACK_APP_TOKEN}}", " has a token and basic"),
                ("certificate: tls.crt", " needs certificate and key together"),
                ("cluster_label: east", ".cluster_label must be one label and its value such as cluster=east"),
                ("headers: {X-Api-Key: hush}", ".headers has X-Api-Key, which is a secret and must not stand in this file"),
                ('headers: {"a b": c}', ".headers has 'a b', which is no name of a header"),
            )
        ),
        ('"http://prometheus.example:9090"', '"http://me:pw@p.example"', 8, "clusters[1].prometheus.url carries a name or a password"),
        ('"http://prometheus.example:9090"', '"http://p.example/?a=b"', 8, "clusters[1].prometheus.url must be the address of a server"),
        (
            'example:9090"}',
            'example:9090", ca: ca.pem}',
            8,
            "clusters[1].prometheus has a ca or a certificate, which need a url that starts",
        ),
        ("{env: SLACK_BOT_TOKEN}", "{env: ABSENT}", 1, "slack.bot_token refers to the environment variable ABSENT, which is not set"),
        ("{env: SLACK_BOT_TOKEN}", "{file: absent}", 1, "slack.bot_token refers to the file absent, which cannot be read"),
        ("{env: SLACK_BOT_TOKEN}", "{env: SLACK_APP_TOKEN}", 1, "slack has a bot_token that does not start with xoxb-"),
        ("app_token: {env: SLACK_APP_TOKEN}, ", "", 1, "slack needs app_token for Socket Mode"),
        ("mode: socket", "mode: http", 1, "slack needs signing_secret for mode http"),
        (", bot_token: {env: SLACK_BOT_TOKEN}", "", 1, "slack.bot_token is missing"),
        ("{url: {env: REDIS_URL}}", "{url: 'http://redis.example'}", 2, "redis.url must start with redis://"),
        ("{url: {env: REDIS_URL}}", "yes", 2, "redis must hold keys of its own: url"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_key(loading: Callable[[str], Settings], old: str, new: str, line: int, said: str):
    assert old in GOOD
    (sentence,) = sentences(loading, GOOD.replace(old, new))
    assert f"meshwhy.yaml line {line}: {said}" in sentence


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("{env: SLACK_BOT_TOKEN}", "xoxb-written-here", "slack.bot_token"),
        ("{url: {env: REDIS_URL}}", "{url: 'redis://:written-here@redis.example'}", "redis.url"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(loading: Callable[[str], Settings], old: str, new: str, key: str):
    (sentence,) = sentences(loading, GOOD.replace(old, new))
    assert f"{key} " in sentence
    assert "must not stand in this file: write {env: NAME} or {file: PATH}" in sentence
    assert "written-here" not in sentence


def test_a_token_under_a_wrong_key_is_not_repeated(loading: Callable[[str], Settings]):
    assert "xoxb-oops" not in " ".join(sentences(loading, GOOD.replace("mode: socket", "token: xoxb-oops")))


def test_every_mistake_is_told_at_once(loading: Callable[[str], Settings]):
    assert len(sentences(loading, GOOD.replace("for: 10s", "for: soon").replace("mode: socket", "mode: carrier-pigeon"))) == 2


def test_a_key_that_stands_twice_is_refused(loading: Callable[[str], Settings]):
    assert sentences(loading, GOOD + "state_dir: other\n")[0].endswith("line 10: state_dir stands twice, first in line 3.")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a:\n  - [", "line 2: not YAML"), ("- east\n", "holds no settings"), ("", "holds no settings"), ("\x00", "not YAML")],
)
def test_what_is_not_a_settings_file_gets_a_sentence(loading: Callable[[str], Settings], text: str, said: str):
    assert said in sentences(loading, text)[0]


def test_a_file_that_cannot_be_read_gets_a_sentence(tmp_path: Path):
    with pytest.raises(BadSettings, match=r"absent\.yaml cannot be read: No such file or directory"):
        load(tmp_path / "absent.yaml", {})
    (tmp_path / "latin").write_bytes(b"slack: \xff")
    with pytest.raises(BadSettings, match=r"cannot be read: it is not UTF-8 text"):
        load(tmp_path / "latin", {})
