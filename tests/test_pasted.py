"""An error that somebody pastes: what is read of it, and what is answered to it in Slack."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.clusters import ClusterSource
from bot.demo import limits
from checks.pasted import FLAGS, Pasted, read
from templates import flags, pasted
from tests.bots import RECORDED, Bot, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.demo.slack import LocalSlack, Message
    from tests.envoys import Mesh

SCENARIOS = Path(__file__).with_name("scenarios")
HOST = "destination.mynamespace.svc.cluster.local"
V1 = f"outbound|80|v1|{HOST}"
TEXT = (
    '[2026-11-22T12:23:31.748Z] "GET / HTTP/1.1" 503 UH no_healthy_upstream - "-" 0 19 0 - "-" "curl/8.5.0" "ffc7" "destination" "-" '
    f"{V1} - 10.96.0.7:80 10.1.0.3:48740 - default"
)
REFUSED = (
    '[2026-11-22T12:23:31.748Z] "GET / HTTP/1.1" 503 URX,UF '
    "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "
    '"delayed connect error: Connection refused" 0 19 0 - "-" "curl "quoted" /8.5.0" "ffc7" "payments:8080" "10.1.2.3:80" '
    "outbound|8080||payments.core.svc.cluster.local - 10.96.0.7:80 10.1.0.3:48740 outbound_.8080_._.payments.core.svc.cluster.local default"
)
TCP = '[2026-11-22T12:23:31Z] "- - -" 0 UH - - "-" 0 0 0 - "-" "-" "-" "-" "-" BlackHoleCluster - 10.96.0.9:6379 10.1.0.3:48740 - -'
ENVOYS_OWN = '[2016-04-15T20:17:00.310Z] "POST /api HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq" "cc21" "locations" "tcp://10.0.2.1:80"'
JSON = (
    f'{{"authority":"destination","response_code":503,"response_flags":"UH","response_code_details":"no_healthy_upstream",'
    f'"upstream_cluster":"{V1}","upstream_host":null,"requested_server_name":null}}'
)
CURL = """\
* Host destination.mynamespace:80 was resolved.
*   Trying 10.96.0.7:80...
* Connected to destination.mynamespace (10.96.0.7) port 80
> GET / HTTP/1.1
> Host: destination.mynamespace
> User-Agent: curl/8.5.0
>
< HTTP/1.1 503 Service Unavailable
< server: envoy
<
no healthy upstream"""


def said(**fields: Any) -> dict[str, Any]:
    return fields


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (TEXT, said(host=HOST, port=80, subset="v1", cluster=V1, flags=("UH",), sure=True, code=503, details="no_healthy_upstream")),
        (f"web-7f istio-proxy {TEXT}", said(host=HOST, flags=("UH",))),
        (
            REFUSED,
            said(host="payments.core.svc.cluster.local", flags=("URX", "UF"), upstream="10.1.2.3:80", failure="delayed connect error: Connection refused"),
        ),
        (TCP, said(host="", cluster="BlackHoleCluster", flags=("UH",), code=0, address="10.96.0.9:6379")),
        (ENVOYS_OWN, said(host="locations", flags=(), code=204, upstream="tcp://10.0.2.1:80", answered=None)),
        (JSON, said(host=HOST, port=80, flags=("UH",), code=503, upstream="")),
        (JSON.replace(",", ",\n  "), said(host=HOST, flags=("UH",))),
        (JSON.replace('"', "\u201d"), said(host=HOST, flags=("UH",))),
        (JSON.replace('"UH"', '"-"').replace("no_healthy_upstream", "via_upstream"), said(flags=(), answered=True)),
        (f"```{JSON}\n{JSON}\n{REFUSED}```", said(host=HOST, lines=2, others=1)),
        (f"{ENVOYS_OWN}\n{ENVOYS_OWN}\n{TEXT}", said(host=HOST, lines=1, others=2)),
        (CURL, said(host="destination.mynamespace", port=None, flags=("UH",), sure=False, code=503, address="10.96.0.7:80")),
        (CURL.replace("no healthy upstream", "").replace("server: envoy", "x-envoy-upstream-service-time: 3"), said(code=503, answered=True)),
        ("curl: (6) Could not resolve host: paymnts.core", said(host="paymnts.core", code=None)),
        ("curl: (7) Failed to connect to payments.core port 8080 after 3 ms", said(host="payments.core", port=8080)),
        ("HTTP 404 from https://Shop.Example.com./cart?x=1", said(host="shop.example.com", code=404)),
        ('Get "http://[2001:db8::7]:80/": dial tcp [2001:db8::7]:80: connect: refused', said(host="", address="2001:db8::7:80")),
        ("rpc error: code = Unavailable desc = no healthy upstream", said(flags=("UH",), code=None)),
        (
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure, transport failure reason: TLS_error:x",
            said(flags=("UF",), failure="TLS_error:x"),
        ),
        ("upstream connect error. retried and the latest reset reason: remote connection failure", said(flags=("URX", "UF"))),
        ("reset reason: connection termination", said(flags=("UC",))),
        ("reset reason: overflow", said(flags=("UO",))),
        ("upstream request timeout", said(flags=("UT",))),
        ("we see 503 UF,URX since noon", said(flags=("UF", "URX"), sure=True, code=503)),
        ("uh", said(flags=("UH",), host="")),
        ("RBAC: access denied", said(details="RBAC: access denied", flags=())),
        ("payments is down, see destination.mynamespace please", said(host="", words=("destination.mynamespace", "payments", "is", "down", "see", "please"))),
        ("to do or not to do, DO it, 200 OK in 30 s", said(flags=(), code=None)),
        (f"outbound_.80_.v2_.{HOST}", said(host=HOST, subset="v2", port=80)),
        ("inbound|8080||", said(host="", cluster="inbound|8080||")),
        ("", said(host="", words=(), flags=(), code=None)),
    ],
)  # fmt: skip
def test_a_pasted_error_is_read(text: str, wanted: dict[str, Any]):
    found = msgspec.structs.asdict(read(text))
    assert {key: found[key] for key in wanted} == wanted


PIECES = st.sampled_from(
    [TEXT, JSON, CURL, TCP, "{", "[" * 900, '] "', '"', "|", "outbound|", "http://", "> Host: ", "<!channel>", "é\u202e", "\x00", "\ud800"]
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=8))).map("".join)))
def test_any_text_is_read_and_answered_within_slacks_limits(text: str):
    found = read(text)
    assert set(found.flags) <= FLAGS
    message = pasted.explained(msgspec.to_builtins(found), None, "")
    assert limits.wrong_blocks(list(message.blocks), "message", lambda _: True) == []
    assert "<!channel>" not in str(message)


@pytest.mark.parametrize(
    "hostile", ["a-", "a.", '] "', "{", "[", "> host: ", "http://", "flag ", "code  ", "outbound|1|", "connect to ", "1 UH,"]
)
def test_reading_takes_time_in_proportion_to_the_text(hostile: str):
    began = time.process_time()
    read(hostile * (64_000 // len(hostile)))
    assert time.process_time() - began < 1


def test_every_flag_of_envoy_has_its_words():
    assert flags.FLAGS.keys() == FLAGS
    for flag in flags.FLAGS.values():
        assert flag.happened.endswith(".")
        assert flag.look.endswith(".")


def test_what_curl_shows_of_a_real_envoy_is_read(mesh_envoy: Mesh):
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")

    def called(host: str) -> Pasted:
        url = f"http://127.0.0.1:{mesh_envoy.envoy.ports['0.0.0.0_80']}/"
        ran = subprocess.run([curl, "-sv", "-H", f"Host: {host}", url], capture_output=True, text=True, check=False)
        return read(ran.stderr + ran.stdout)

    empty = called("sick.mynamespace.svc.cluster.local")
    assert (empty.host, empty.code, empty.flags, empty.answered) == ("sick.mynamespace.svc.cluster.local", 503, ("UH",), False)
    app = called("panicking")
    assert (app.host, app.code, app.flags, app.answered) == ("panicking", 503, (), True)


def test_what_real_envoys_logged_is_read():
    """The logs of the scenarios, recorded from a real Envoy: each line that fails says where it was to go, or that the proxy had nowhere."""
    lines = [x for log in sorted(SCENARIOS.rglob("*.log")) for x in log.read_text().splitlines()]
    found = [p for p in map(read, lines) if p.lines and (p.flags or (p.code or 0) >= 400)]
    assert len(found) > 50
    assert {f for p in found for f in p.flags} >= {"UH", "UF", "NR"}
    assert [p for p in found if not (p.host or p.address or p.cluster)] == []


# --- in Slack ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def bot(slack: LocalSlack, redis_url: str, tmp_path: Path) -> AsyncIterator[Bot]:
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    service = {"name": "sidelined", "namespace": "mynamespace"}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": {"clusterIP": "10.96.9.9", "ports": [{"port": 80}]}}
    (tmp_path / "east" / "more.yaml").write_text(yaml.safe_dump(made))
    sources = [ClusterSource("east", mesh="east", path=str(tmp_path / "east"))]
    access = {"viewers": ["U0ANA", "U0BEN"], "admins": ["U0BOSS"]}
    async with running(slack, redis_url, sources, watching=False, access=access) as bot:
        yield bot


async def explained(slack: LocalSlack, said: Message, count: int = 2) -> Message:
    thread = await slack.until(lambda: len(t := slack.thread("#mesh", said.thread_ts or said.ts)) >= count and t)
    return thread[-1]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("bot")
async def test_the_shortcut_answers_in_the_messages_thread(slack: LocalSlack):
    said = await slack.say(f"this is from the gateway:\n```{TEXT}```")
    await slack.shortcut(pasted.EXPLAIN_THIS, said, user="ben")
    answer = await explained(slack, said)
    assert "503 UH: no healthy upstream" in answer.words
    assert f"Envoy cluster {V1}, subset v1" in answer.words
    assert "95 %" in answer.words
    assert "MESH101 subset-empty-weighted" in answer.words
    assert answer.pings == ()


@pytest.mark.usefixtures("bot")
async def test_a_snippet_and_what_another_app_attached_are_read_as_well(slack: LocalSlack):
    said = await slack.say("look", files={"out.txt": CURL})
    await slack.shortcut(pasted.EXPLAIN_THIS, said)
    assert "95 %" in (await explained(slack, said)).words
    posted = await slack.say("An alert")
    posted.attachments = [{"title": "5xx", "fields": [{"title": "log", "value": TEXT}]}]
    await slack.shortcut(pasted.EXPLAIN_THIS, posted)
    assert "503 UH" in (await explained(slack, posted)).words


@pytest.mark.usefixtures("bot")
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("it is destination that fails", "I took destination.mynamespace from its words"),
        ("destination.mynamespace or sidelined.mynamespace", "It names 2 hosts: destination.mynamespace and sidelined.mynamespace."),
        ("dial tcp 10.96.9.9:80: connect: connection refused", "10.96.9.9:80 is the address of sidelined.mynamespace."),
        (f"503 NC outbound|81||{HOST}", "destination.mynamespace has no port 81; this is about all of its ports."),
        ("503 NC http://paymnts.core/", 'No host "paymnts.core"'),
        ("404 RL", "rate limited"),
    ],
)
async def test_what_it_names_is_found_or_said_to_be_missing(slack: LocalSlack, text: str, answer: str):
    said = await slack.say(text)
    await slack.shortcut(pasted.EXPLAIN_THIS, said)
    assert answer in (await explained(slack, said)).words


@pytest.mark.usefixtures("bot")
async def test_that_nothing_is_found_only_who_asked_reads(slack: LocalSlack):
    said = await slack.say("lunch?")
    await slack.shortcut(pasted.EXPLAIN_THIS, said, user="ben")
    await slack.until(lambda: slack.ephemerals("ben"))
    assert "I find no host, no status and no response flag in this." in slack.ephemerals("ben")[0].words
    assert slack.thread("#mesh", said.ts) == [said]


@pytest.mark.usefixtures("bot")
async def test_the_same_by_a_command_a_mention_and_a_mention_below_it(slack: LocalSlack):
    await slack.command(f"/mesh explain {TEXT}")
    await slack.until(lambda: slack.ephemerals("ana"))
    assert "95 %" in slack.ephemerals("ana")[-1].words
    await slack.command("/mesh explain UH")
    await slack.until(lambda: len(slack.ephemerals("ana")) == 2)
    assert "UH: no healthy upstream" in slack.ephemerals("ana")[-1].words
    said = await slack.mention(f"{TEXT}")
    assert "95 %" in (await explained(slack, said)).words
    root = await slack.say(CURL)
    await slack.mention("explain", thread_ts=root.ts)
    assert "95 %" in (await explained(slack, root, 3)).words
    await slack.mention("", thread_ts=root.ts)
    assert "95 %" in (await explained(slack, root, 5)).words


@pytest.mark.usefixtures("bot")
async def test_where_the_bot_may_not_write_only_who_asked_reads_the_answer(slack: LocalSlack):
    said = await slack.say(TEXT)
    slack.kick("#mesh")
    slack.workspace.manifest = {**slack.workspace.manifest}
    await slack.shortcut(pasted.EXPLAIN_THIS, said)
    await slack.until(lambda: len(slack.ephemerals("ana")) == 2)
    assert "95 %" in slack.ephemerals("ana")[0].words
    assert "I cannot write in this channel (not_in_channel)" in slack.ephemerals("ana")[1].words


@pytest.mark.usefixtures("bot")
async def test_who_may_not_look_is_told_so_alone(slack: LocalSlack):
    said = await slack.say(TEXT, user="kim")
    await slack.shortcut(pasted.EXPLAIN_THIS, said, user="kim")
    await slack.until(lambda: slack.ephemerals("kim"))
    assert "Asking about destination.mynamespace" in slack.ephemerals("kim")[0].words
    assert len(slack.thread("#mesh", said.ts)) == 1
