"""Committed pages to the services that wake people: PagerDuty, Opsgenie, or any that takes a signed POST.

What must stay true: nothing is sent that is not committed, and nothing is forgotten before its pager has it; of several states only the newest is
sent; the key of an incident is its alert's, so that what is sent twice is one incident there; what was never told does not have to be ended.

Sources: PagerDuty Events API v2 (developer.pagerduty.com: 202 is taken, 429 and 5xx are to be repeated, a summary has 1,024 characters, a
dedup_key 255); Opsgenie Alert API (docs.opsgenie.com: GenieKey, alias 512, message 130, description 15,000, `identifierType=alias`); what both
refuse and what Alertmanager repeats is in prometheus/alertmanager notify/pagerduty, notify/opsgenie and notify/util.go.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from redis.exceptions import RedisError

from bot import metrics
from bot.health import Pulse
from bot.store import Deposed, Step
from templates import messages
from templates.words import percent, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import SecretStr

    from bot.alerts import Alert
    from bot.settings import Pager
    from bot.store import Due, Page, Store

logger = logging.getLogger(__name__)

PAGERDUTY, OPSGENIE = "https://events.pagerduty.com/v2/enqueue", "https://api.opsgenie.com"
TIMESTAMP, SIGNATURE = "X-Meshwhy-Timestamp", "X-Meshwhy-Signature"
_TIMEOUT_S = 15.0
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 300.0
_AGAIN = frozenset({408, 425, 429})  # beside 5xx: what may be taken the next time
_EVENTS = {"triggered": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}


class Request(NamedTuple):
    """One POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """What the header SIGNATURE of a webhook carries: HMAC-SHA256 over the header TIMESTAMP and the body, so that neither can be another's."""
    return "v1=" + hmac.new(secret.encode(), b"v1:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()


def request(pager: Pager, page: Page, now: float) -> Request:
    """How a pager is told how an alert should stand."""
    match pager.kind:
        case "pagerduty":
            return _pagerduty(pager, page)
        case "opsgenie":
            return _opsgenie(pager, page)
    body = _json({"event": page.state, "id": page.key, "alert": page.facts})
    stamp = f"{now:.0f}"
    return Request(pager.url, {**_JSON, TIMESTAMP: stamp, SIGNATURE: sign(_value(pager.secret), stamp, body)}, body)


_JSON = {"Content-Type": "application/json", "User-Agent": "meshwhy"}


def _pagerduty(pager: Pager, page: Page) -> Request:
    facts = page.facts
    event: dict[str, Any] = {"routing_key": _value(pager.key), "event_action": _EVENTS[page.state], "dedup_key": page.key[:255]}
    if page.state == "triggered":
        event |= {
            "client": "meshwhy",
            "payload": {
                "summary": _cut(facts["summary"], 1024),
                "source": facts["host"] or facts["cluster"],
                "severity": "critical" if facts["failing_share"] >= 1 else "error",
                "timestamp": _iso(facts["since"]),
                "component": facts["resource"],
                "group": facts["cluster"],
                "class": facts["cause"],
                "custom_details": facts,
            },
        }
    return Request(pager.url or PAGERDUTY, _JSON, _json(event))


def _opsgenie(pager: Pager, page: Page) -> Request:
    facts, alias = page.facts, page.key[:512]
    headers = {**_JSON, "Authorization": f"GenieKey {_value(pager.key)}"}
    base = f"{(pager.url or OPSGENIE).rstrip('/')}/v2/alerts"
    if page.state != "triggered":
        verb = "acknowledge" if page.state == "acknowledged" else "close"
        body = {"source": "meshwhy", "note": _cut(facts["summary"], 1000)}
        return Request(f"{base}/{quote(alias, safe='')}/{verb}?identifierType=alias", headers, _json(body))
    told = {
        "message": _cut(facts["summary"], 130),
        "alias": alias,
        "description": _cut("\n".join([facts["message"], facts["fix"], *facts["evidence"]]), 15_000),
        "source": "meshwhy",
        "entity": _cut(facts["host"] or facts["cluster"], 512),
        "priority": "P1" if facts["failing_share"] >= 1 else "P2",
        "tags": [facts["code"] or facts["cause"], facts["cluster"]],
        "details": {key: str(facts[key]) for key in ("cluster", "cause", "resource", "failing_share")},
    }
    return Request(base, headers, _json(told))


class Desk:
    """Tells the pagers (by name) what the store holds for them. One of it runs at a time; `held` says whether this is the one that may send."""

    def __init__(self, store: Store, pagers: Mapping[str, Pager], *, held: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._held = held
        self._sending: set[str] = set()
        self.pulse = Pulse()
        self.heed(pagers)

    def heed(self, pagers: Mapping[str, Pager]) -> None:
        """Go by these settings from now on."""
        self._pagers = pagers

    async def run(self) -> None:
        """Send until cancelled; what fails is tried again, each time after twice as long."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as http, asyncio.TaskGroup() as group:
            while True:
                self.pulse.beat()
                wait = 5.0
                with suppress(RedisError, OSError):
                    for ident, due in await self._store.pages():
                        if due > time.time():
                            wait = min(wait, due - time.time())
                            break
                        if ident not in self._sending:
                            self._sending.add(ident)
                            group.create_task(self._send(ident, http))
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, 0.05)):
                        await self._store.paging_due.wait()
                self._store.paging_due.clear()

    async def _send(self, ident: str, http: aiohttp.ClientSession) -> None:
        """Tell one pager one thing, or leave it for later."""
        try:
            due = await self._store.page(ident)
            if due is None or not self._held():
                return
            # The first that is heard of a page is its end only where the store has forgotten how it began.
            if due.has == due.page.state or (due.page.state != "triggered" and not due.has and due.rev > 1):
                await self._store.paged(due, due.has)  # it is known there, or nobody was woken who has to hear that it is over
                return
            pager = self._pagers.get(due.page.pager)
            if pager is None:
                await self._later(due, "the settings do not name it any more", _BACKOFF_MAX_S)
                return
            await self._store.paging(due)
            asked = request(pager, due.page, time.time())
            try:
                async with http.post(asked.url, data=asked.body, headers=asked.headers, allow_redirects=False) as answer:
                    status, after = answer.status, _retry_after(answer.headers.get("Retry-After", ""))
            except (aiohttp.ClientError, TimeoutError) as error:
                await self._later(due, f"no answer ({type(error).__name__})", self._backoff(due))
                return
            metrics.PAGES.labels(due.page.pager, str(status)).inc()
            if 200 <= status < 300 or (status == 404 and due.page.state != "triggered"):  # what is not there needs no end
                if due.refused:
                    logger.info("%s takes pages again.", due.page.pager)
                await self._store.paged(due, due.page.state)
            elif status in _AGAIN or status >= 500:
                await self._later(due, f"HTTP {status}", max(self._backoff(due), after))
            else:
                await self._later(due, f"it refuses it with HTTP {status}", _BACKOFF_MAX_S)
        except Deposed:
            return
        except msgspec.DecodeError as error:
            logger.error("Page %s cannot be read from the store: %s", ident, error)  # noqa: TRY400 - what it held may be a secret
        except (RedisError, OSError):
            await asyncio.sleep(1)
        finally:
            self._sending.discard(ident)
            self._store.paging_due.set()

    def _backoff(self, due: Due) -> float:
        return float(min(_BACKOFF_S * 2.0 ** min(due.attempts, 20), _BACKOFF_MAX_S))

    async def _later(self, due: Due, why: str, seconds: float) -> None:
        """Try again later; the thread is told once for each reason."""
        now, page = time.time(), due.page
        steps = {}
        if why != due.refused:
            logger.warning("Pager %s was not told of %s: %s. It is told later.", page.pager, page.key, why)
            line = messages.error(f"Pager {page.pager} could not be told that this is {page.state}: {why}. It is tried again until it is.")
            steps = {page.message: [Step(id=f"{page.id}.{now:.0f}", message=line)]}
        await self._store.unpaged(due, why, now + seconds, steps, now)


def facts(members: Sequence[Alert]) -> dict[str, Any]:
    """What a pager is told of the alerts of a message, the worst first."""
    lead = members[0]
    finding = lead.finding
    hosts = list(dict.fromkeys(short(a.finding.host) for a in members if a.finding.host))
    share = f"{percent(finding.failing_share)} of " if finding.failing_share else ""
    rest = f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""
    what = f"{share}{hosts[0]}{rest} fails in {finding.cluster}" if hosts else f"{finding.cluster} cannot be read"
    return {
        "summary": f"{what}: {finding.message}",
        "cluster": finding.cluster,
        "host": finding.host,
        "hosts": hosts[:100],
        "cause": finding.cause,
        "code": finding.code,
        "resource": finding.resource,
        "path": finding.path,
        "failing_share": finding.failing_share,
        "message": finding.message,
        "fix": finding.fix,
        "evidence": list(finding.evidence[:20]),
        "since": min(a.since for a in members),
    }


def _retry_after(text: str) -> float:
    """The seconds that an answer asks to wait: a number, or a date."""
    if text.isdigit():
        return float(min(int(text), 3600))
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), 3600.0)
    except (TypeError, ValueError):
        return 0.0


def _value(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


_json = msgspec.json.encode
