"""Who is woken when nobody sees to an alert: the steps of an escalation, and the pagers, which are real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import sys
import time
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from aiohttp import web
from msgspec.structs import replace
from pydantic import SecretStr

from bot import pager, routing
from bot.alerts import Ack, Alert, State
from bot.demo.runner import East
from bot.pager import Desk
from bot.settings import OnCall, Pager
from bot.store import Deed, Page, Store
from bot.sweep import Sweeper
from tests.bots import FINDING, RECORDED, alerts, alongside
from tests.test_routing import Standing
from tests.test_sweep import BROKEN, WELL, World
from tests.test_together import behind_a_gateway, does, the_alert, waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from bot.demo.slack import LocalSlack

ANA, BEN, KIM = "U0ANA", "U0BEN", "U0KIM"
KEY = SecretStr("hush-key")


class Service:
    """A pager's server: what it was asked, and what it answers next."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int | None] = []  # None: it takes the request and never answers
        self.before: Callable[[], None] | None = None  # what happens when a request has arrived
        self.url = ""

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path_qs, dict(request.headers), await request.read()))
        if self.before is not None:
            self.before()
        status = self.answers.pop(0) if self.answers else 202
        if status is None:
            request.transport.close() if request.transport else None
            return web.Response()
        return web.Response(status=status, headers={"Retry-After": "1"} if status == 429 else {})

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.asked]

    async def until(self, count: int, within_s: float = 8) -> None:
        async def asked() -> bool:
            return len(self.asked) >= count

        await soon(asked, within_s)


async def soon(so: Callable[[], Awaitable[bool]], within_s: float = 8) -> None:
    async with asyncio.timeout(within_s):
        while True:
            if await so():
                return
            await asyncio.sleep(0.01)


async def nothing_waits(store: Store) -> bool:
    return not await store.pages()


@asynccontextmanager
async def listening(path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A server on loopback that answers what is posted; its address."""
    app = web.Application()
    app.router.add_post(path, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with listening("/{path:.*}", service._answer) as service.url:
        yield service


@asynccontextmanager
async def telling(store: Store, held: Callable[[], bool] = lambda: True, **pagers: Pager) -> AsyncIterator[None]:
    async with alongside(Desk(store, pagers, held=held).run()):
        yield


FACTS = pager.facts([Alert(id="a", state=State.FIRING, finding=FINDING, since=1_760_000_000.0)])


def page(state: Any = "triggered", name: str = "ops", facts: dict[str, Any] | None = None) -> Page:
    return Page(id=f"a-1@{name}", pager=name, key="meshwhy-a-1", message="a-1", state=state, facts=facts or FACTS)


async def put(store: Store, *pages: Page) -> None:
    await store.commit({}, pages=pages, now=time.time())


# --- how each is told ---


async def test_pagerduty_is_told_in_the_words_of_its_events_api(store: Store, service: Service):
    ops = Pager(kind="pagerduty", url=f"{service.url}/v2/enqueue", key=KEY)
    async with telling(store, ops=ops):
        for state in ("triggered", "acknowledged", "resolved"):
            await put(store, page(state))
            await service.until(len(service.asked) + 1)
    first, second, third = service.bodies
    assert [b["event_action"] for b in service.bodies] == ["trigger", "acknowledge", "resolve"]
    assert {b["dedup_key"] for b in service.bodies} == {"meshwhy-a-1"}
    assert {b["routing_key"] for b in service.bodies} == {"hush-key"}
    told = first["payload"]
    assert (told["severity"], told["source"], told["group"], told["class"]) == ("error", FINDING.host, "east", "subset-empty-weighted")
    assert told["summary"] == "95 % of destination.mynamespace fails in east: Subset v1 has no endpoint."
    assert told["timestamp"] == "2025-10-09T08:53:20+00:00"
    assert "payload" not in second
    assert "payload" not in third
    assert await store.pages() == []


async def test_opsgenie_is_told_in_the_words_of_its_alert_api(store: Store, service: Service):
    async with telling(store, ops=Pager(kind="opsgenie", url=service.url, key=KEY)):
        for state in ("triggered", "acknowledged", "resolved"):
            await put(store, page(state, facts={**FACTS, "summary": "x" * 500}))
            await service.until(len(service.asked) + 1)
    assert [path for path, _, _ in service.asked] == [
        "/v2/alerts",
        "/v2/alerts/meshwhy-a-1/acknowledge?identifierType=alias",
        "/v2/alerts/meshwhy-a-1/close?identifierType=alias",
    ]
    assert all(headers["Authorization"] == "GenieKey hush-key" for _, headers, _ in service.asked)
    told = service.bodies[0]
    assert (told["alias"], told["priority"], len(told["message"])) == ("meshwhy-a-1", "P2", 130)


async def test_a_webhook_is_signed_so_that_its_time_and_its_body_are_proved(store: Store, service: Service):
    async with telling(store, ops=Pager(kind="webhook", url=f"{service.url}/hook", secret=KEY)):
        await put(store, page())
        await service.until(1)
    ((path, headers, body),) = service.asked
    assert path == "/hook"
    stamp = headers["X-Meshwhy-Timestamp"]
    assert abs(time.time() - int(stamp)) < 10
    proof = hmac.new(b"hush-key", f"v1:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    assert headers["X-Meshwhy-Signature"] == f"v1={proof}"
    said = json.loads(body)
    assert (said["event"], said["id"], said["alert"]["cause"]) == ("triggered", "meshwhy-a-1", "subset-empty-weighted")


# --- at least once, and no more than that ---


@pytest.mark.parametrize("answer", [500, 503, 429, 408, None])
async def test_what_may_be_taken_later_is_sent_again(store: Store, service: Service, answer: int | None):
    service.answers = [answer]
    async with telling(store, ops=Pager(kind="webhook", url=service.url, secret=KEY)):
        await put(store, page())
        await service.until(2)
        await soon(lambda: nothing_waits(store))
    assert service.asked[0][2] == service.asked[1][2], "the same incident"


async def test_a_refusal_is_said_once_in_the_thread_and_the_page_is_kept(store: Store, service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pager, "_BACKOFF_MAX_S", 0.05)
    service.answers = [401, 401, 401, 202]
    async with telling(store, ops=Pager(kind="pagerduty", url=service.url, key=KEY)):
        await put(store, page())
        await service.until(4)
    lines = await store._do("LRANGE", "{meshwhy}:steps:a-1", 0, -1)
    assert len(lines) == 1
    assert "Pager ops could not be told that this is triggered: it refuses it with HTTP 401." in lines[0]


async def test_what_came_while_a_pager_did_not_answer_does_not_wait_with_it(store: Store):
    await put(store, page())
    due = await store.page("a-1@ops")
    assert due is not None
    in_five_minutes = time.time() + 300
    await store.unpaged(due, "HTTP 500", in_five_minutes, {}, time.time())
    assert await store.pages() == [("a-1@ops", pytest.approx(in_five_minutes))]
    await put(store, page("resolved"))
    await store.unpaged(due, "HTTP 500", in_five_minutes, {}, time.time())
    ((_, at),) = await store.pages()
    assert at <= time.time(), "that it is over is told at once"


async def test_after_a_crash_between_sending_and_remembering_it_is_sent_again(store: Store, service: Service):
    await put(store, page())
    due = await store.page("a-1@ops")
    assert due is not None
    await store.paging(due)  # the request may have gone out; here everything ends
    await put(store, page("resolved"))
    async with telling(store, ops=Pager(kind="pagerduty", url=service.url, key=KEY)):
        await service.until(1)
    assert service.bodies[0]["event_action"] == "resolve", "whoever may have been woken hears that it is over"


async def test_nobody_is_woken_for_what_is_over_or_seen_to_before_it_was_sent(store: Store, service: Service):
    await put(store, page(), page("triggered", "two"))
    await put(store, page("resolved"), page("acknowledged", "two"))
    hook = Pager(kind="webhook", url=service.url, secret=KEY)
    async with telling(store, ops=hook, two=hook):
        await soon(lambda: nothing_waits(store))
        await put(store, page("triggered", "two"))
        await service.until(1)
    assert [b["event"] for b in service.bodies] == ["triggered"], "who gives it back has it told after all"


async def test_a_store_that_has_forgotten_who_was_woken_still_tells_them_the_end(store: Store, service: Service):
    await put(store, page("resolved"))  # the alert in Slack remembers that ops was asked
    async with telling(store, ops=Pager(kind="pagerduty", url=service.url, key=KEY)):
        await service.until(1)
    assert service.bodies[0]["event_action"] == "resolve"


async def test_of_two_bots_only_the_one_that_holds_the_lease_sends(store: Store, service: Service):
    async with telling(store, held=lambda: False, ops=Pager(kind="webhook", url=service.url, secret=KEY)):
        await put(store, page())
        await asyncio.sleep(0.3)
    assert service.asked == []
    assert len(await store.pages()) == 1


# --- an alert that nobody sees to ---

CHAIN = [{"after": 600, "to": "S0SRE"}, {"after": 1200, "channel": "#incidents"}, {"after": 1800, "page": "ops"}]


async def test_each_step_asks_somebody_else_and_the_pager_hears_how_it_ends(
    store: Store, service: Service, monkeypatch: pytest.MonkeyPatch
):
    clock = Standing(monkeypatch, time.time())
    ops = {"kind": "pagerduty", "url": service.url, "key": KEY}
    settings = alerts(escalation=CHAIN, pagers={"ops": ops})
    world = World(BROKEN)
    sweeper = Sweeper(world, store, settings)
    await sweeper.look()
    for minutes, places, paged in ((11, ["#mesh"], ()), (21, ["#mesh", "#incidents"], ()), (31, ["#mesh", "#incidents"], ("ops",))):
        clock.now += minutes * 60 - (clock.now - (await the_alert(store)).since)
        await sweeper.look()
        alert = await the_alert(store)
        assert ([r.place for r in alert.places], alert.paged) == (places, paged)
    (line,) = [s.message.text for s in (await waiting(store))[0].steps if "pager ops" in s.message.text]
    assert "`pager ops` *escalated*, step 3 of 3: nobody has seen to it for 31 min" in line
    async with telling(store, **settings.pagers):
        await service.until(1)
        await does(sweeper, store, Deed(verb="ack", by=ANA, at=clock.now, message=alert.message))
        await service.until(2)
        world.now = (WELL,)
        clock.now += 1
        await sweeper.look()
        await service.until(3)
    assert [b["event_action"] for b in service.bodies] == ["trigger", "acknowledge", "resolve"]
    assert len({b["dedup_key"] for b in service.bodies}) == 1


async def test_a_step_that_was_due_while_no_bot_ran_is_taken_once_and_the_next_one_has_its_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    clock = Standing(monkeypatch, time.time())
    settings = alerts(escalation=CHAIN[:2])
    await Sweeper(World(BROKEN), store, settings).look()
    clock.now += 7200
    for _ in range(3):
        sweeper = Sweeper(World(BROKEN), store, settings)
        await sweeper.look()
        await sweeper.look()
    assert (await the_alert(store)).escalated == 1
    (line,) = [s.message.text for s in (await waiting(store))[0].steps if "escalated" in s.message.text]
    assert "110 min late: no bot was there to say it in time" in line
    clock.now += 599
    await sweeper.look()
    assert (await the_alert(store)).escalated == 1
    clock.now += 2
    await sweeper.look()
    assert (await the_alert(store)).escalated == 2


async def test_a_route_has_an_escalation_of_its_own(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, time.time())
    own = {"match": {"namespace": "mynamespace"}, "escalation": [{"after": 60, "to": BEN}]}
    sweeper = Sweeper(World(BROKEN), store, alerts(escalation=CHAIN, routes=[own]))
    await sweeper.look()
    assert [s.to for s in sweeper.chain((await the_alert(store)).finding)] == [BEN]
    assert (sweeper._until_due() or 0) <= 60.1
    clock.now += 61
    await sweeper.look()
    assert f"<@{BEN}> *escalated*, step 1 of 1" in (await waiting(store))[0].steps[-1].message.text


async def test_what_fires_again_is_not_paged_before_its_time(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, time.time())
    ops = {"kind": "webhook", "url": "http://127.0.0.1:1", "secret": KEY}
    world = World(BROKEN)
    sweeper = Sweeper(world, store, alerts(escalation=[{"after": 60, "page": "ops"}], pagers={"ops": ops}))
    await sweeper.look()
    clock.now += 61
    await sweeper.look()
    for now in (WELL, BROKEN):
        world.now = (now,)
        clock.now += 1
        await sweeper.look()
    assert (await the_alert(store)).paged == ()
    due = await store.page(f"{(await the_alert(store)).message}@ops")
    assert due is not None
    assert due.page.state == "resolved"


async def test_who_joins_a_message_escalates_with_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, time.time())
    world = World(behind_a_gateway(3, lost=False))
    sweeper = Sweeper(world, store, alerts(escalation=[{"after": 600, "to": "S0SRE"}]))
    await sweeper.look()
    for count in (3, 4, 5):
        world.now = (behind_a_gateway(count, lost=True),)
        clock.now += 601 if count > 3 else 1
        await sweeper.look()
        await sweeper.look()
    (work,) = await waiting(store)
    assert len(await store.alerts()) == 5
    assert sum("escalated" in s.message.text for s in work.steps) == 1, "one cause asks for somebody once"
    assert {a.escalated for a in (await store.alerts()).values()} == {1}


def test_an_ack_of_one_of_several_is_not_an_ack_of_all():
    from bot.sweep import _pages  # noqa: PLC0415 - a look inside

    one = Alert(id="a", state=State.FIRING, finding=FINDING, since=0, message="m", told=True, paged=("ops",), ack=Ack(by=ANA, at=1))
    other = replace(one, id="b", ack=None)
    assert [p.state for p in _pages([one, other])] == ["triggered"]
    assert [p.state for p in _pages([one, replace(other, state=State.RESOLVED)])] == ["acknowledged"]


# --- who is on call ---


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


@pytest.mark.parametrize(
    ("moment", "who"),
    [
        ("2026-10-19 09:00", ANA),
        ("2026-10-26 08:59", ANA),  # the clocks were set on the 25th: hand-over stays at nine
        ("2026-10-26 09:00", BEN),
        ("2026-11-02 09:00", KIM),
        ("2026-11-09 09:00", ANA),
        ("2026-10-19 08:59", KIM),  # before it began, the turns go back
        ("2026-11-04 12:00", BEN),  # instead of Kim
        ("2026-11-05 00:00", KIM),
    ],
)
def test_people_are_on_call_by_turns(moment: str, who: str):
    schedule = OnCall.model_validate(
        {
            "people": [ANA, BEN, KIM],
            "every": "7d",
            "since": "2026-10-19 09:00",
            "location": "Europe/Berlin",
            "instead": [{"who": BEN, "since": "2026-11-04 00:00", "until": "2026-11-05 00:00"}],
        }
    )
    assert routing.on_call(schedule, at(moment)) == who


async def test_who_is_on_call_when_the_step_is_due_is_asked(store: Store, monkeypatch: pytest.MonkeyPatch):
    clock = Standing(monkeypatch, at("2026-11-30 08:55"))
    schedule = {"people": [ANA, BEN], "every": "12h", "since": "2026-11-29 09:00", "location": "Europe/Berlin"}
    sweeper = Sweeper(World(BROKEN), store, alerts(escalation=[{"after": 600, "on_call": "sre"}], on_call={"sre": schedule}))
    await sweeper.look()
    clock.now = at("2026-11-30 09:05")
    await sweeper.look()
    assert f"<@{ANA}> (on call for sre) *escalated*" in (await waiting(store))[0].steps[-1].message.text


# --- a whole bot that is killed ---


async def test_a_bot_that_is_killed_while_it_pages_pages_again_after_its_start_and_tells_the_end(
    slack: LocalSlack, redis_url: str, service: Service, tmp_path: Path
):
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    (tmp_path / "m.yaml").write_text(
        yaml.safe_dump(
            {
                "slack": {"app_token": {"env": "APP"}, "bot_token": {"env": "BOT"}, "base_url": slack.base_url},
                "redis": {"url": redis_url, "lease": "1s"},
                "clusters": [{"name": "east", "path": "east"}],
                "alerts": {
                    "for": "0s",
                    "clear": "0s",
                    "default_channel": "#mesh",
                    "escalation": [{"after": "1s", "page": "own"}],
                    "pagers": {"own": {"kind": "webhook", "url": service.url, "secret": {"env": "HOOK"}}},
                },
            }
        )
    )
    environ = {**os.environ, "APP": slack.app_token, "BOT": slack.bot_token, "HOOK": "hush"}

    async def started() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", "run", "--config", str(tmp_path / "m.yaml")), env=environ, stderr=asyncio.subprocess.DEVNULL
        )

    bot = await started()
    service.before = bot.kill  # the request has arrived, and nobody hears the answer
    try:
        await service.until(1, 30)
        await bot.wait()
        service.before = None
        bot = await started()
        await service.until(2, 30)
        await East(tmp_path / "east").deploy_v1()
        await service.until(3, 30)
    finally:
        with suppress(ProcessLookupError):
            bot.kill()
        await bot.wait()
    assert [b["event"] for b in service.bodies] == ["triggered", "triggered", "resolved"]
    assert len({b["id"] for b in service.bodies}) == 1, "twice is one incident"
    root, asked = slack.messages("#mesh")
    assert asked.thread_ts == root.ts, "the line that escalates is shown in the channel as well"
    lines = [m.words for m in slack.thread(root.channel, root.ts)]
    assert sum("escalated" in line for line in lines) == 1, "the step was taken once"
