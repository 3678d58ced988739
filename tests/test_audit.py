"""What people did, on record: in the store, in Slack for admins, and on the command line."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from pydantic import SecretStr
from redis import Redis

from bot.audit import Audit, Entry, Wanted
from bot.settings import Settings
from bot.store import AUDIT_S, Store
from bot.valkey import embedded
from templates import messages
from templates.blocks import measure
from tests.asking import Answer, refused
from tests.bots import running
from tests.test_door import EAST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack, Message

KEY = "{meshwhy}:audit"


def entry(number: int = 0, **more: Any) -> Entry:
    given = {
        "at": 1_760_000_000.0 + number,
        "by": "U0ANA",
        "team": "T0LOCAL",
        "verb": "why",
        "via": "command",
        "channel": "C0MESH",
        "result": "done",
    }
    return Entry(**{**given, **more})


async def on_record(audit: Audit, before: str = "", **wanted: Any) -> list[Entry]:
    return [e async for _, e in audit.read(Wanted(**wanted), before)]


# --- the store ---


async def test_entries_are_read_the_newest_first_by_whom_what_and_since_when(store: Store):
    audit = Audit(store)
    for number, (by, verb) in enumerate([("U0ANA", "why"), ("U0BEN", "ack"), ("U0ANA", "ack")]):
        await audit.put(entry(number, by=by, verb=verb))
    assert [e.at - 1_760_000_000 for e in await on_record(audit)] == [2, 1, 0]
    assert [(e.by, e.verb) for e in await on_record(audit, by="U0ANA")] == [("U0ANA", "ack"), ("U0ANA", "why")]
    assert [e.by for e in await on_record(audit, verb="ack", since=1_760_000_002.0)] == ["U0ANA"]
    ids = [i async for i, _ in audit.read(Wanted())]
    assert [e.at - 1_760_000_000 for e in await on_record(audit, before=ids[0])] == [1, 0]


async def test_more_than_one_page_of_the_store_is_read(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.audit._PAGE", 3)
    audit = Audit(store)
    for number in range(10):
        await audit.put(entry(number))
    assert [e.at - 1_760_000_000 for e in await on_record(audit)] == list(range(9, -1, -1))


async def test_what_is_too_old_or_too_many_is_forgotten_and_an_unused_audit_altogether(
    store: Store, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        old = int((time.time() - AUDIT_S - 60) * 1000)
        for number in range(1_000):
            redis.xadd(KEY, {"entry": "{}"}, id=f"{old}-{number + 1}")
        await Audit(store).put(entry())
        assert redis.xlen(KEY) <= 200, "the store forgets by whole blocks of a hundred"
        assert AUDIT_S - 60 < redis.ttl(KEY) <= AUDIT_S
        monkeypatch.setattr("bot.store.AUDIT_KEPT", 500)
        for number in range(10):
            await store.note([f'{{"number": {number}}}'] * 100, time.time())
        assert 500 <= redis.xlen(KEY) <= 700


async def test_an_entry_that_a_newer_one_wrote_is_passed_over(store: Store):
    await store.note(['{"of": "the future"}', '{"at": 1, "by": "U0ANA", "more": 2}'], time.time())
    await Audit(store).put(entry())
    assert len(await on_record(Audit(store))) == 1


async def test_what_could_not_wait_any_longer_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.audit.WAITING", 5)
    away = Store("unix:///nowhere")
    audit = Audit(away)
    for number in range(8):
        await audit.put(entry(number))
    audit._store = store
    await asyncio.gather(*(audit.put(entry(n)) for n in (8, 9)))
    kept = await on_record(audit)
    assert [e.at - 1_760_000_000 for e in kept[:-1]] == [9, 8, 7, 6, 5, 4, 3]
    assert (kept[-1].by, kept[-1].result) == ("", "failed")
    assert kept[-1].why == "3 entries before this one could not be kept; the log has them"
    await away.close()


async def test_a_store_that_hangs_holds_up_no_answer_and_takes_the_entries_when_it_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.audit._PATIENCE_S", 0.1)
    audit, going, real = Audit(store), asyncio.Event(), store.note

    async def hangs(*arguments: Any) -> None:
        await going.wait()
        await real(*arguments)

    monkeypatch.setattr(store, "note", hangs)
    began = time.monotonic()
    for number in range(3):
        await audit.put(entry(number))
    assert time.monotonic() - began < 1
    going.set()
    await audit.put(entry(3))
    assert [e.at - 1_760_000_000 for e in await on_record(audit)] == [3, 2, 1, 0]


async def test_each_entry_is_one_line_of_the_log_as_json(store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from bot.__main__ import _json_log  # noqa: PLC0415 - for this test alone

    slack = {"bot_token": SecretStr("xoxb-1"), "app_token": SecretStr("xapp-1")}
    given = {"slack": slack, "state_dir": tmp_path, "clusters": [{"name": "a", "path": tmp_path}], "alerts": {"default_channel": "#mesh"}}
    root = logging.getLogger()
    level = root.level
    with _json_log(Settings.model_validate(given)):
        root.setLevel(logging.INFO)
        await Audit(store).put(entry(by="U0KIM", verb="silence", result="denied", about=("host=a.b",)))
        root.setLevel(level)
    (line,) = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert line["event"] == "silence of U0KIM: denied"
    assert line["audit"] == msgspec.to_builtins(entry(by="U0KIM", verb="silence", result="denied")) | {"about": ["host=a.b"]}


def test_the_secrets_of_a_prometheus_stand_in_no_log(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    from bot.__main__ import _json_log  # noqa: PLC0415 - for this test alone

    slack = {"bot_token": SecretStr("xoxb-1"), "app_token": SecretStr("xapp-1")}
    asked: list[dict[str, Any]] = [
        {"token": SecretStr("hush-token"), "headers": (("X-Scope-OrgID", SecretStr("mesh")), ("X-Api-Key", SecretStr("hush-key")))},
        {"basic": {"user": "me", "password": SecretStr("hush-password")}},
    ]
    clusters = [{"name": f"c{i}", "path": tmp_path, "prometheus": {"url": "https://p.example", **one}} for i, one in enumerate(asked)]
    given = {"slack": slack, "state_dir": tmp_path, "clusters": clusters, "alerts": {"default_channel": "#mesh"}}
    with _json_log(Settings.model_validate(given)):
        logging.getLogger("x").warning("GET of the mesh failed with hush-token, hush-key and hush-password")
    said = capsys.readouterr().err
    assert "hush" not in said
    assert "GET of the mesh failed" in said


# --- in Slack ---

ADMINS = {"admins": ["U0ANA", {"who": "U0KIM", "namespace": "mynamespace"}]}


async def asked(slack: LocalSlack, words: str, user: str = "ana") -> Message:
    count = len(slack.ephemerals(user)) + 1
    await slack.command(f"/mesh {words}", user=user)
    await slack.until(lambda: len(slack.ephemerals(user)) >= count)
    return slack.ephemerals(user)[-1]


async def test_an_admin_reads_who_did_what_from_where_and_everybody_else_is_refused(slack: LocalSlack, redis_url: str):
    async with running(slack, redis_url, [EAST], watching=False, access=ADMINS):
        await asked(slack, "why destination", user="ben")
        await slack.dm("ack nowhere", user="kim")
        await slack.until(lambda: len(slack.messages("@kim")) == 2)
        assert (await asked(slack, "audit", user="ben")).words == "Reading the audit is for <@U0ANA>."
        assert "is for <@U0ANA>" in (await asked(slack, "audit", user="kim")).words, "it tells of all namespaces"
        told = (await asked(slack, "audit")).words
        assert "4 entries" in told
        assert "<@U0BEN> *why* `destination.mynamespace.svc.cluster.local`: done, command in <#C0MESH>" in told
        assert "<@U0KIM> *ack*: unanswered, message in direct messages" in told
        assert "<@U0BEN> *audit*: denied" in told
        assert "nowhere" not in told, "what somebody wrote is not on record"
        assert "1 entry" in (await asked(slack, "audit @kim ack")).words
        assert "<@U0KIM> *ack*" in (await asked(slack, "audit ack 1h @kim")).words
        assert "Nothing is on record" in (await asked(slack, "audit silence")).words
        assert "neither a person, a verb nor a duration" in (await asked(slack, "audit yesterday")).words


async def test_what_is_on_record_is_never_told_aloud(slack: LocalSlack, redis_url: str):
    async with running(slack, redis_url, [EAST], watching=False):
        said = await slack.mention("audit @ben")
        await slack.until(lambda: slack.ephemerals("ana"))
        assert "Nothing is on record" in slack.ephemerals("ana")[-1].words
        assert [m.ts for m in slack.thread("#mesh", said.ts)] == [said.ts]
        with pytest.raises(KeyError):
            (await asked(slack, "audit")).element(messages.SHARE)
        await slack.dm("audit")
        await slack.until(lambda: len(slack.messages("@ana")) == 2)
        assert "2 entries" in slack.messages("@ana")[-1].words


async def test_many_entries_come_in_pages_that_fit_and_miss_none(slack: LocalSlack, redis_url: str):
    about = tuple(f"host-{n}-{'x' * 60}.a-namespace-of-some-length.svc.cluster.local" for n in range(3))
    async with running(slack, redis_url, [EAST], watching=False) as bot:
        for number in range(40):
            await bot.door.audit.put(entry(number, about=about, why=f"number {number} <!channel>", thread="1.0"))
        page = await asked(slack, "audit @ana why")
        seen = page.words
        for _ in range(2):
            before = page.words
            await slack.click(page, messages.OLDER)
            await slack.until(lambda b=before: page.words != b)
            seen += page.words
        assert all(f"(number {n} &lt;!channel&gt;)" in seen for n in range(40))
        assert page.pings in {(), ("U0ANA",)}
        with pytest.raises(KeyError):
            page.element(messages.OLDER)


def test_the_longest_entries_stay_within_slacks_limits():
    row = {"at": 1.0, "by": "U0ANA", "verb": "silence", "via": "command", "channel": "C0MESH", "result": "unanswered", "why": "<&>" * 200}
    message = messages.audit([{**row, "about": ["`<!channel>`" * 60] * 30}] * 15, "x" * 80)
    assert measure(message) == []
    assert len(message.blocks) >= 4
    gap = messages.audit([{**row, "by": "", "channel": "", "about": []}], "")
    assert "meshwhy *silence*" in str(gap.blocks)


# --- on the command line ---


@pytest.fixture
def config(tmp_path: Path, redis_url: str) -> str:
    clusters = [{"name": "east", "path": str(tmp_path)}]
    document = {
        "slack": {"bot_token": {"env": "NOT_SET_HERE"}, "app_token": {"env": "NOT_SET_HERE"}},
        "redis": {"url": redis_url},
        "clusters": clusters,
        "alerts": {"default_channel": "#mesh"},
    }
    file = tmp_path / "meshwhy.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


async def put(url: str, *entries: Entry) -> None:
    store = Store(url)
    for each in entries:
        await Audit(store).put(each)
    await store.close()


def test_the_command_line_reads_the_same_without_holding_slacks_tokens(ask: Callable[..., Answer], config: str, redis_url: str):
    now = time.time()
    asyncio.run(
        put(
            redis_url,
            entry(at=now - 90_000),
            entry(at=now - 60, by="U0KIM", verb="silence", via="button", about=("host=a.b",), result="denied", why="@sre: missing_scope"),
            entry(at=now, verb="ack", about=("a.b",)),
        )
    )
    lines = [json.loads(line) for line in ask("audit", "--config", config, "-o", "json").out.splitlines()]
    assert [(x["by"], x["verb"], x["result"]) for x in lines] == [
        ("U0ANA", "ack", "done"),
        ("U0KIM", "silence", "denied"),
        ("U0ANA", "why", "done"),
    ]
    assert set(lines[0]) == {"at", "by", "team", "verb", "via", "channel", "thread", "about", "result", "why"}
    text = ask("audit", "--config", config, "--since", "24h")
    assert text.status == 0
    assert "✗ " in text.out
    assert "U0KIM silence denied (@sre: missing_scope)\n    host=a.b, by button in C0MESH" in text.out
    assert "why done" not in text.out
    assert "ack" not in ask("audit", "--config", config, "--verb", "silence", "--user", "U0KIM").out
    assert len(ask("audit", "--config", config, "-n", "1", "-o", "json").out.splitlines()) == 1
    assert ask("audit", "--config", config, "-o", "slack").json["text"] == "3 entries"
    assert ask("audit", "--config", config, "--user", "U0BEN").out == "Nothing is on record.\n"


def test_what_cannot_be_asked_of_the_audit_is_one_sentence(ask: Callable[..., Answer], config: str, tmp_path: Path):
    refused(ask("audit", "--config", config, "--since", "yesterday"), "is no duration: write 30m, 24h or 7d.")
    refused(ask("audit", "--config", config, "--verb", "silense"), 'Nobody can do "silense" in Slack. Did you mean silence or unsilence?')
    lone = tmp_path / "lone.yaml"
    lone.write_text(f"state_dir: {tmp_path / 'none'}\n")
    refused(ask("audit", "--config", str(lone)), "holds no state: no bot has run there.")
    lone.write_text("redis: {url: 'unix:///nowhere/at.all'}\n")
    refused(ask("audit", "--config", str(lone)), "Redis cannot be used")


async def test_the_embedded_store_is_read_beside_a_bot_that_runs_and_after_it(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    from bot import commands  # noqa: PLC0415 - for this test alone
    from tests.asking import nobody  # noqa: PLC0415 - as above

    lone = tmp_path / "lone.yaml"
    lone.write_text("state_dir: s\n")

    def told() -> str:
        capfd.readouterr()
        assert commands.answer(["audit", "--config", str(lone)], nobody) == 0
        return capfd.readouterr().out

    async with embedded(tmp_path / "s" / "valkey") as url:
        await put(url, entry(verb="ack"))
        assert "ack done" in await asyncio.to_thread(told)
    assert "ack done" in await asyncio.to_thread(told)
