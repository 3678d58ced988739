"""Alertmanager on both sides: what fires is sent to it, so that whoever is paged through it stays so; and what it says of a host is diagnosed.

What must stay true: only what is committed is sent, and what was sent is ended there as well; an alert there is one here, by labels that do not
change while it lasts. Nothing is believed of a request without the token; what it holds is data.

Sources: prometheus/alertmanager api/v2/openapi.yaml and api/v2/api.go (POST /api/v2/alerts: an alert ends at endsAt unless it is sent again),
notify/webhook/webhook.go and template/template.go (the payload of a webhook, version 4); prometheus/prometheus rules (endsAt is four times the
interval away, so that one lost sending ends nothing).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct
from redis.exceptions import RedisError
from slack_sdk.errors import SlackClientError

from bot import metrics
from bot.alerts import OUTAGE, State, namespaces
from bot.clusters import is_elsewhere
from bot.health import Pulse
from bot.store import Deed, Heard
from checks import diagnosis
from checks.diagnosis import UnknownHost, resolve
from checks.finding import Finding, Severity
from templates import messages
from templates.words import percent, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from slack_sdk.web.async_client import AsyncWebClient

    from bot.alerts import Alert
    from bot.clusters import Clusters
    from bot.settings import AlertmanagerReceive, AlertmanagerSend
    from bot.store import Store
    from checks.mesh import Mesh

logger = logging.getLogger(__name__)

PATH = "/alertmanager"
RESEND_S = 60.0
_ENDS_S = 4 * RESEND_S
_GATHER_S = 1.0
_TIMEOUT_S = 15.0
_BATCH = 500  # alerts in one request
_HEARD = 100  # alerts of one payload that are diagnosed

_ID = "meshwhy_id"
_NAMESPACES = {"destination_service_name": ("destination_service_namespace", "namespace"), "service": ("namespace",)}


# --- out ---


class Relay:
    """Sends what fires to the Alertmanagers, again and again while it does. One of it runs at a time; `slack` knows where its messages stand."""

    def __init__(
        self, store: Store, to: Sequence[AlertmanagerSend], slack: AsyncWebClient, *, held: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._to = to
        self._slack = slack
        self._workspace = ""
        self._held = held
        self._failing: set[str] = set()
        self.pulse = Pulse()

    async def run(self) -> None:
        """Until cancelled: what is new at once, the rest before it would end there."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        sent_at = float("-inf")
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as http:
            while True:
                self.pulse.beat()
                whole = time.monotonic() - sent_at >= RESEND_S
                if whole:
                    sent_at = time.monotonic()
                if self._to and self._held():
                    with suppress(RedisError, OSError):
                        await self._round(http, whole=whole)
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(min(RESEND_S, sent_at + RESEND_S - time.monotonic()), _GATHER_S)):
                        await self._store.relay_due.wait()
                await asyncio.sleep(_GATHER_S)
                self._store.relay_due.clear()

    async def _round(self, http: aiohttp.ClientSession, *, whole: bool) -> None:
        firing = [a for a in (await self._store.alerts()).values() if a.state is State.FIRING and a.told]
        places = await self._store.where({a.message for a in firing})
        if places and not self._workspace:
            with suppress(SlackClientError, aiohttp.ClientError, TimeoutError):  # then without links
                self._workspace = str((await self._slack.auth_test()).get("url") or "")
        for to in self._to:
            before = await self._store.relayed(to.url)
            # What is silenced here does not begin there; what has begun there ends when it is well, and not before.
            now = {a.id: _alert(a, to, self._link(places.get(a.message))) for a in firing if a.silence is None or a.id in before}
            news = {
                key: text for key, alert in now.items() if before.get(key) != (text := msgspec.json.encode(alert, order="sorted").decode())
            }
            over = {key: msgspec.json.decode(before[key]) for key in before.keys() - now.keys()}
            if news:
                await self._store.relaying(to.url, news)
            moment = time.time()
            ends = {"endsAt": _iso(moment + _ENDS_S)}
            wanted = [{**alert, **ends} for key, alert in now.items() if whole or key in news]
            wanted += [{**alert, "endsAt": _iso(moment)} for alert in over.values()]
            if await self._sent(to, wanted, http):
                await self._store.relaying(to.url, dict.fromkeys(over))

    async def _sent(self, to: AlertmanagerSend, alerts: Sequence[Mapping[str, Any]], http: aiohttp.ClientSession) -> bool:
        """Whether all of it was taken; what was not is sent again with the next round."""
        headers = {"Content-Type": "application/json", "User-Agent": "meshwhy"}
        if to.token is not None:
            headers["Authorization"] = f"Bearer {to.token.get_secret_value()}"
        for start in range(0, len(alerts), _BATCH):
            body = msgspec.json.encode(alerts[start : start + _BATCH])
            try:
                async with http.post(f"{to.url.rstrip('/')}/api/v2/alerts", data=body, headers=headers, allow_redirects=False) as answer:
                    why = "" if answer.status < 300 else f"HTTP {answer.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                why = type(error).__name__
            metrics.RELAYED.labels(why or "ok").inc()
            if why:
                if to.url not in self._failing:
                    logger.warning("Alertmanager %s does not take what fires (%s); it is sent again.", to.url, why)
                self._failing.add(to.url)
                self._store.relay_due.set()  # not only with the next whole round
                await asyncio.sleep(_GATHER_S * 4)
                return False
        self._failing.discard(to.url)
        return True

    def _link(self, place: tuple[str, str] | None) -> str:
        return f"{self._workspace.rstrip('/')}/archives/{place[0]}/p{place[1].replace('.', '')}" if place and self._workspace else ""


def _alert(alert: Alert, to: AlertmanagerSend, link: str) -> dict[str, Any]:
    """An alert as Alertmanager takes it: its labels are what makes it this one, all that changes is an annotation."""
    finding = alert.finding
    labels = {
        "alertname": finding.cause,
        "code": finding.code,
        "cluster": finding.cluster,
        "namespace": ",".join(sorted(namespaces(finding))),
        "host": finding.host,
        "resource": finding.resource,
        "severity": finding.severity.value,
        _ID: alert.id,
        **to.labels,
    }
    share = f"{percent(finding.failing_share)} of " if finding.failing_share else ""
    summary = f"{finding.cluster} cannot be read" if finding.cause == OUTAGE else f"{share}{short(finding.host)} fails"
    told = {
        "labels": {key: value for key, value in labels.items() if value},
        "annotations": {
            "summary": summary,
            "description": finding.message,
            **({"fix": finding.fix} if finding.fix else {}),
            "failing_share": f"{finding.failing_share:g}",
        },
        "startsAt": _iso(alert.fired_at or alert.since),
    }
    return {**told, "generatorURL": link} if link else told


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- in ---


class Incoming(Struct, frozen=True, rename="camel"):
    """One alert of a payload."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts_at: datetime | None = None
    fingerprint: str = ""


class Payload(Struct, frozen=True, rename="camel"):
    """What Alertmanager posts to a webhook."""

    version: str
    alerts: tuple[Incoming, ...]


class NotUnderstood(Exception):
    """The payload cannot be read; the message says why."""


class Said(NamedTuple):
    """What one alert of a payload says of a host that some mesh knows; `key` is the alert's."""

    key: str
    name: str
    host: str
    cluster: str
    summary: str
    since: float
    resolved: bool


class Named(NamedTuple):
    """The hosts that a payload's alerts are about, and how many of them are about none that is known."""

    said: tuple[Said, ...]
    unknown: int


def understood(body: bytes, labels: Sequence[str], meshes: Sequence[Mesh]) -> Named:
    """What a payload says of hosts that some mesh knows; raises NotUnderstood."""
    try:
        payload = msgspec.json.decode(body, type=Payload)
    except msgspec.DecodeError as error:
        raise NotUnderstood(f"This is no payload of Alertmanager's webhook: {error}.") from None
    if payload.version != "4":
        raise NotUnderstood(f"The payload has version {payload.version}; version 4 is understood.")
    said: dict[str, Said] = {}
    unknown = 0
    for alert in payload.alerts:
        if _ID in alert.labels:
            continue  # it is our own, sent around
        host = _host(alert.labels, labels, meshes)
        if host is None:
            unknown += 1
            continue
        since = alert.starts_at.timestamp() if alert.starts_at is not None else 0.0
        key = f"{alert.fingerprint or '|'.join(f'{k}={v}' for k, v in sorted(alert.labels.items()))}-{since:.0f}"
        said[key] = Said(
            key=key,
            name=alert.labels.get("alertname", "")[:200],
            host=host,
            cluster=alert.labels.get("cluster", ""),
            summary=(alert.annotations.get("summary") or alert.annotations.get("description") or "")[:500],
            since=since,
            resolved=alert.status == "resolved",
        )
    return Named(tuple(said.values())[:_HEARD], unknown)


def answered(said: Said, meshes: Sequence[Mesh]) -> Heard:
    """What is said in Slack to one alert: the diagnosis of its host, in its own cluster's mesh where the alert names one that is known."""
    named = [m for m in meshes if any(said.cluster in (c.name, m.cluster_id(c)) for c in m.clusters)]
    found = diagnosis.why(said.host, named or meshes)
    about = Finding(
        cause="",
        code="",
        severity=Severity.ERROR,
        cluster=said.cluster if named else next((c.name for c in found.clusters), ""),
        resource="",
        path="",
        host=found.host,
        viewpoints=(),
        failing_share=found.failing_share,
        message=said.summary,
    )
    worst = max(found.findings, key=lambda f: f.failing_share, default=about)
    message = messages.heard(said._asdict(), msgspec.to_builtins(found))
    return Heard(key=said.key, host=found.host, finding=worst, answer=message, resolved=said.resolved)


def _host(given: Mapping[str, str], labels: Iterable[str], meshes: Sequence[Mesh]) -> str | None:
    """The host that an alert is about: the first label that names one which some mesh knows."""
    for label in labels:
        value = given.get(label, "").strip()
        if not value or value == "unknown":
            continue
        spaces = [given[n] for n in _NAMESPACES.get(label, ("namespace",)) if given.get(n)]
        for word in (*(f"{value}.{space}" for space in spaces if "." not in value), value):
            with suppress(UnknownHost):
                return resolve(word, meshes)[0][0]
    return None


def receiver(settings: AlertmanagerReceive, store: Store, clusters: Clusters, meshes: Callable[[], Sequence[Mesh]]) -> web.RouteDef:
    """Takes what an Alertmanager posts, by its token; whoever keeps the alerts brings the answers to Slack."""

    def heard(body: bytes) -> tuple[list[Heard], int]:
        read = [m for m in meshes() if not any(is_elsewhere(c) for c in m.clusters)]
        found = understood(body, settings.host_labels, read)
        return [answered(said, read) for said in found.said], found.unknown

    async def take(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {settings.token.get_secret_value()}".encode()):
            metrics.HEARD.labels("refused").inc()
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="The token is not the one of the settings.\n")
        try:
            answers, unknown = await asyncio.to_thread(heard, await request.read())
        except NotUnderstood as why:
            metrics.HEARD.labels("not understood").inc()
            return web.Response(status=400, text=f"{why}\n")
        if unknown and clusters.unsettled():
            return web.Response(status=503, text="Not every cluster has been read yet; send it again.\n")
        try:
            for one in answers:
                await store.do(Deed(verb="heard", by="", at=time.time(), heard=one))
        except (RedisError, OSError):
            return web.Response(status=503, text="The store does not answer; send it again.\n")
        metrics.HEARD.labels("taken").inc(len(answers))
        metrics.HEARD.labels("no known host").inc(unknown)
        return web.json_response({"taken": len(answers), "no_known_host": unknown})

    return web.post(PATH, take)
