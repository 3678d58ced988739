"""What a Prometheus (or what answers like one: Thanos, Mimir) counted of the calls of one host, as `checks.evidence.Traffic`.

What must stay true: nothing is sent but GETs of `/api/v1/query` and `/api/v1/query_range` with the queries of this module, in which names from
clusters and settings stand as escaped label values alone; one deadline and a bound on bytes and series hold for all of them.

Istio's labels lose much where a call fails (istio/istio, pilot/pkg/model/telemetry.go; the stats filter of istio-proxy): without an upstream
there is no destination_workload, so it is never asked for; without a cluster `destination_service` is the Host header as the caller wrote it,
or `unknown` at a gateway, so that such calls are joined by who called; flags are a list with commas.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from enum import StrEnum
from math import isfinite, log
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from bot.probes import admin
from bot.probes.admin import NotRead
from checks import names
from checks.agreement import fails
from checks.evidence import Evidence, Flow, Traffic
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from bot.settings import Prometheus
    from checks.diagnosis import Diagnosis

KIND = "prometheus"

WINDOW_S = 300
"""Over which calls are counted, where nothing began to fail within it."""
LEAST_S = 120
"""Over which at least: less holds no two scrapes of many a Prometheus."""
PAST = ((3600, 30), (86_400, 600))
"""How far back, and in which steps, it is looked for when the failing began: the second only where it was so all through the first."""

WITHIN_S = 8.0
"""For everything that is asked about one host."""
MAX_BYTES = 16 << 20
MAX_SERIES = 5_000
"""Of one answer."""
_HOSTS = 6  # that a host of no calls of its own is counted under


class Request(StrEnum):
    """All paths that are ever sent, below the URL of the settings."""

    QUERY = "/api/v1/query"
    RANGE = "/api/v1/query_range"


class Asked(NamedTuple):
    """What is asked about: a host, the hosts under whose names its calls are counted, and the namespaces of the gateways that lead to it."""

    host: str
    counted: tuple[str, ...]
    gateways: frozenset[str] = frozenset()


def asked(diagnosis: Diagnosis) -> Asked:
    """What to ask about a host; calls of one that is a name in rules alone are counted for those that its rules lead to."""
    own = [r for r in diagnosis.routes if r.host == diagnosis.host]
    led = dict.fromkeys(parts[3] for r in own for d in r.destinations if len(parts := d.envoy_cluster.split("|", 3)) == 4)
    counted = (diagnosis.host,) if not led or diagnosis.host in led else tuple(led)[:_HOSTS]
    return Asked(diagnosis.host, counted, frozenset(r.viewpoint.namespace for r in own if r.viewpoint.kind == "gateway"))


# --- the queries -------------------------------------------------------------------------------------------------------------

_BY = (
    "reporter, source_workload, source_workload_namespace, destination_service, "
    "response_code, grpc_response_status, request_protocol, response_flags"
)
_BY_END = "source_workload_namespace, destination_service, response_code, grpc_response_status, request_protocol, response_flags"
REQUESTS, OPENED, CLOSED, FAILED = (
    "istio_requests_total",
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_connections_failed_total",  # of ztunnel alone, src/proxy/metrics.rs
)
_METRICS = {"requests": REQUESTS, "opened": OPENED, "closed": CLOSED, "failed": FAILED, "unnamed": REQUESTS}
"""What is asked for, by the names that `prometheus.json` gives the answers."""
_UNNAMED = ('reporter="source"', 'destination_service="unknown"', 'response_flags=~"(.*,)?(NC|NR)(,.*)?"')


def quoted(text: str) -> str:
    """A text as a string of PromQL (Go's escapes): whatever it holds, the string ends where it ends."""
    return '"' + re.sub(r'[\\"\x00-\x1f\x7f]', lambda m: f"\\x{ord(m[0]):02x}", text) + '"'


def literal(text: str) -> str:
    """A text as a pattern (RE2) that fits nothing else."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda m: f"\\x{{{ord(m[0]):x}}}", text)


def of_host(asked: Asked) -> str:
    """The matcher of the calls of a host, under every name by which a caller may have called it, with or without a port."""
    spelled = "|".join(dict.fromkeys(literal(s) for h in asked.counted for s in _spellings(h)))
    return f"destination_service=~{quoted(f'(?i:{spelled})(:[0-9]+)?')}"


def _spellings(host: str) -> Iterator[str]:
    yield host
    suffix = f".svc.{names.DOMAIN}"
    if host.endswith(suffix):
        short = host.removesuffix(suffix)
        yield from (f"{short}.svc", short, short.partition(".")[0])


def _selected(metric: str, matchers: Iterable[str]) -> str:
    return f"{metric}{{{','.join(matchers)}}}"


def counting(metric: str, matchers: Sequence[str], window_s: int, label: Sequence[str] = ()) -> str:
    """How many calls there were in a window, by who called and how they ended.

    `increase` does not see what a counter had when it was first scraped, and one of a new kind of failure begins then: those of proxies that were
    scraped before count from nothing.
    """
    of = _selected(metric, (*matchers, *label))
    known = _selected("up", label)
    return (
        f"sum by ({_BY}) ((({of} unless {of} offset {window_s}s) and on (job, instance) {known} offset {window_s}s) "
        f"or increase({of}[{window_s}s]))"
    )


# --- asking ------------------------------------------------------------------------------------------------------------------


class Series(msgspec.Struct, frozen=True, omit_defaults=True):
    """One series of an answer: its labels, and its value, or its values over time."""

    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: tuple[tuple[float, str], ...] = ()


class _Data(msgspec.Struct, frozen=True):
    result_type: str = msgspec.field(name="resultType")
    result: msgspec.Raw


class Answer(msgspec.Struct, frozen=True):
    """What the HTTP API answers."""

    status: str = ""
    data: _Data | None = None
    error_type: str = msgspec.field(default="", name="errorType")
    error: str = ""
    warnings: tuple[str, ...] | None = None

    def series(self) -> tuple[Series, ...]:
        """The series of a vector or a matrix. Raises NotRead for anything else."""
        if self.status != "success" or self.data is None:
            raise NotRead(f"it answers {self.error_type or 'an error'}: {self.error[:200]}")
        if self.data.result_type not in {"vector", "matrix"}:
            raise NotRead(f"it answers a {self.data.result_type[:40]}")
        try:
            found = msgspec.json.decode(self.data.result, type=tuple[Series, ...])
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise NotRead(f"its answer is not what Prometheus answers ({e})") from None
        if len(found) > MAX_SERIES:
            raise NotRead(f"its answer has {len(found):,} series, more than {MAX_SERIES:,}")
        return found


ANSWER = msgspec.json.Decoder(Answer)

Answers = dict[str, tuple[Series, ...]]
"""The series of each answer, by the names of `_METRICS`."""


async def read(place: Prometheus, cluster: str, asked: Asked) -> Evidence:
    """What it counted of a host's calls from one cluster's callers; what could not be read is skipped, and nothing is raised."""
    try:
        async with asking(place, cluster, asked) as it:
            return await it.evidence()
    except NotRead as e:
        return Evidence(skipped=(Skipped(KIND, cluster, f"Prometheus {where(place)} was not read: {e}"),))


async def tried(place: Prometheus, cluster: str) -> None:
    """Raises NotRead with the reason why it would tell nothing of any host."""
    async with asking(place, cluster, Asked("", ())) as it:
        await it.any()


@asynccontextmanager
async def asking(place: Prometheus, cluster: str, asked: Asked) -> AsyncIterator[Asking]:
    """The way to one Prometheus, for as long as everything about a host may take. Raises NotRead when that is over."""
    context = await asyncio.to_thread(_tls, place)
    try:
        async with asyncio.timeout(WITHIN_S), admin.session(aiohttp.TCPConnector(limit=6, ssl=context)) as session:
            yield Asking(session, place, cluster, asked)
    except TimeoutError:
        raise NotRead(f"it did not answer everything within {WITHIN_S:g} s") from None


def where(place: Prometheus) -> str:
    """The server as sentences name it: without what a URL may hold beside."""
    parts = urlsplit(place.url)
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _tls(place: Prometheus) -> ssl.SSLContext | bool:
    """Whom to trust and who asks; blocking."""
    if not place.url.startswith("https:") or (place.ca is None and place.certificate is None):
        return True
    try:
        context = ssl.create_default_context(cafile=place.ca)
        if place.certificate is not None:
            context.load_cert_chain(place.certificate, place.key)
    except (OSError, ValueError) as e:  # what ssl raises for files that are not there, or hold something else
        raise NotRead(f"its ca, certificate or key cannot be used ({type(e).__name__}: {e})") from None
    return context


class Asking:
    """All questions about one host to one Prometheus."""

    def __init__(self, session: aiohttp.ClientSession, place: Prometheus, cluster: str, asked: Asked) -> None:
        self._session, self._place, self._cluster, self._asked = session, place, cluster, asked
        self._label = tuple(f"{n}={quoted(v)}" for n, v in (place.cluster_label,)) if place.cluster_label is not None else ()
        self._warnings: dict[str, None] = {}
        self._now = 0.0

    async def evidence(self) -> Evidence:
        """Everything about the host."""
        window, since = WINDOW_S, None
        found = traffic(self._cluster, self._asked, await self.counted(window), window_s=window)
        worst = _worst(found.flows)
        if worst is not None:
            since, settled = await self._since(worst)
            window = int(min(WINDOW_S, max(LEAST_S, self._now - settled))) if since is not None else window
            if window < WINDOW_S:  # what was before is not what is now
                found = traffic(self._cluster, self._asked, await self.counted(window), window_s=window)
        elif not found.flows and not found.unnamed:
            await self.any()
        source = f"Prometheus {where(self._place)}"
        found = msgspec.structs.replace(found, since=since, read_at=self._now or time.time(), source=source)
        partly = tuple(Skipped(KIND, self._cluster, f"{source} answered in part: {w[:200]}") for w in list(self._warnings)[:3])
        return Evidence(traffic=(found,), skipped=partly)

    async def counted(self, window_s: int) -> Answers:
        """How many calls there were, of each kind."""
        wanted = {n: m for n, m in _METRICS.items() if n != "unnamed" or self._asked.gateways}
        matchers = {n: _UNNAMED if n == "unnamed" else (of_host(self._asked),) for n in wanted}
        queries = [counting(metric, matchers[n], window_s, self._label) for n, metric in wanted.items()]
        found = await asyncio.gather(*(self._ask(Request.QUERY, query=q) for q in queries))
        return dict(zip(wanted, found, strict=True))

    async def any(self) -> None:
        """Raises NotRead where nobody's calls are counted at all: then it is not that nobody calls."""
        metrics = _selected("", (f'__name__=~"{REQUESTS}|{OPENED}"', *self._label))
        if not await self._ask(Request.QUERY, query=f"count({metrics})"):
            among = f" with {self._place.cluster_label[0]}={self._place.cluster_label[1]}" if self._place.cluster_label else ""
            raise NotRead(f"it has no {REQUESTS}{among}: it scrapes no proxy, or it keeps their figures under other labels")

    async def _since(self, worst: Flow) -> tuple[float | None, float]:
        """When calls began to end as the worst of them do, and from when on that is all that they do."""
        metric = REQUESTS if worst.protocol != "tcp" else CLOSED
        of = _selected(metric, (of_host(self._asked), f"reporter={quoted(worst.reporter)}", *self._label))
        for span, step in PAST:
            end = self._now or time.time()
            params = {"start": f"{end - span:.3f}", "end": f"{end:.3f}", "step": str(step)}
            answer = await self._ask(Request.RANGE, query=f"sum by ({_BY_END}) ({of})", **params)
            times, failed, total = history([s for s in answer if _means(self._asked, s.metric)], worst)
            at = rose(failed, total)
            if at is not None and at > 0:
                return times[at - 1], times[at] + step
        return None, 0.0

    async def _ask(self, request: Request, **params: str) -> tuple[Series, ...]:
        url = URL(f"{self._place.url.rstrip('/')}{request}?{urlencode(params)}", encoded=True)
        body = bytearray()
        try:
            async with self._session.get(url, headers=_headers(self._place), allow_redirects=False) as response:
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise NotRead(f"an answer is longer than {MAX_BYTES >> 20} MB")
                status, form = response.status, response.content_type
        except aiohttp.ClientConnectorCertificateError as e:
            raise NotRead(
                f"its certificate is not trusted ({getattr(e.certificate_error, 'verify_message', '') or e.certificate_error})"
            ) from None
        except aiohttp.ClientConnectorError as e:
            why = os.strerror(e.os_error.errno) if e.os_error.errno else str(e.os_error)
            raise NotRead(f"no connection ({why})") from None
        except aiohttp.ClientError as e:
            raise NotRead(f"its answer broke off ({type(e).__name__})") from None
        answer = _decoded(body, status, form)
        self._warnings |= dict.fromkeys(answer.warnings or ())
        found = answer.series()
        self._now = max([self._now, *(s.value[0] for s in found if s.value is not None)])
        return found


def _headers(place: Prometheus) -> dict[str, str]:
    made = {name: value.get_secret_value() for name, value in place.headers}
    if place.token is not None:
        made["Authorization"] = f"Bearer {place.token.get_secret_value()}"
    if place.basic is not None:
        made["Authorization"] = aiohttp.encode_basic_auth(place.basic.user, place.basic.password.get_secret_value())
    return made


_SAID = {
    401: "it does not know who asks: token, basic or certificate of prometheus in the settings",
    403: "who asks may not query it",
    404: "there is no Prometheus API at prometheus.url, to which /api/v1/query is added",
    429: "it is asked too much",
}


def _decoded(body: bytearray, status: int, form: str) -> Answer:
    try:
        answer = ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if status == 200:
            page = "a web page, as a login or a proxy in front of it would" if "html" in form else "no JSON"
            raise NotRead(f"it answers {page}") from None
        answer = Answer()
    if status != 200:
        why = f": {answer.error_type} {answer.error[:200]}" if answer.error else ""
        raise NotRead(f"{_SAID.get(status, 'it refuses the query')} (HTTP {status}{why})")
    return answer


# --- reading -----------------------------------------------------------------------------------------------------------------


def traffic(cluster: str, asked: Asked, answers: Mapping[str, Sequence[Series]], *, window_s: float) -> Traffic:
    """What the answers say; `window_s` is what they were counted over."""
    made: dict[Flow, float] = defaultdict(float)
    for series in answers.get("requests", ()):
        if _means(asked, series.metric):
            made[_request(series.metric)] += _number(series)
    connections: dict[str, dict[Flow, float]] = {n: defaultdict(float) for n in ("opened", "closed", "failed")}
    for kind, found in connections.items():
        for series in answers.get(kind, ()):
            if _means(asked, series.metric):
                found[_connection(series.metric)] += _number(series)
    made |= _connections(**connections)
    flows = tuple(sorted(_rates(made, window_s), key=lambda f: -f.rate))
    callers = {(f.workload, f.namespace) for f in flows}
    nameless: dict[Flow, float] = defaultdict(float)
    for series in answers.get("unnamed", ()):
        flow = _request(series.metric)
        if (flow.workload, flow.namespace) in callers or flow.namespace in asked.gateways:
            nameless[flow] += _number(series)
    return Traffic(cluster, asked.host, window_s, flows, None, 0.0, "", unnamed=tuple(_rates(nameless, window_s)))


def _connections(opened: dict[Flow, float], closed: dict[Flow, float], failed: dict[Flow, float]) -> dict[Flow, float]:
    """Connections by how they ended, and those that go on; ztunnel counts one that failed among those that it closed, or only as failed."""
    ended = {f: max(closed.get(f, 0.0), failed.get(f, 0.0)) for f in {**closed, **failed}}
    for flow in opened:
        fine = msgspec.structs.replace(flow, flags=())
        over = sum(n for f, n in ended.items() if (f.workload, f.namespace, f.reporter) == (flow.workload, flow.namespace, flow.reporter))
        begun = sum(n for f, n in opened.items() if (f.workload, f.namespace, f.reporter) == (flow.workload, flow.namespace, flow.reporter))
        if begun > over:
            ended[fine] = ended.get(fine, 0.0) + begun - over
    return ended


def _rates(counted: Mapping[Flow, float], window_s: float) -> Iterator[Flow]:
    for flow, count in counted.items():
        if count > 0:
            yield msgspec.structs.replace(flow, rate=count / window_s)


def _means(asked: Asked, labels: Mapping[str, str]) -> bool:
    """Whether calls to what a label says are calls of the host: a short name is one of the caller's own namespace."""
    said = labels.get("destination_service", "").lower()
    name, _, port = said.rpartition(":")
    name = name if port.isdecimal() and name else said
    if name in asked.counted or names.service_host(name, labels.get("source_workload_namespace", "")) in asked.counted:
        return True
    return "." in name and f"{name.removesuffix('.svc')}.svc.{names.DOMAIN}" in asked.counted


def _flow(labels: Mapping[str, str], code: int, protocol: str) -> Flow:
    flags = labels.get("response_flags", "-")
    return Flow(
        workload=labels.get("source_workload", "") or "unknown",
        namespace=labels.get("source_workload_namespace", "") or "unknown",
        code=code,
        flags=tuple(f for f in flags.split(",") if f not in {"", "-"}),
        rate=0.0,
        reporter=labels.get("reporter", "") or "source",
        protocol=protocol,
    )


def _request(labels: Mapping[str, str]) -> Flow:
    protocol = labels.get("request_protocol", "") or "http"
    code = labels.get("grpc_response_status", "") if protocol == "grpc" else ""
    code = code or labels.get("response_code", "")
    return _flow(labels, int(code) if code.isascii() and code.isdecimal() else 0, protocol)


def _connection(labels: Mapping[str, str]) -> Flow:
    return _flow(labels, 0, "tcp")


def _number(series: Series) -> float:
    try:
        found = float(series.value[1]) if series.value is not None else 0.0
    except ValueError:
        return 0.0
    return found if isfinite(found) else 0.0


def _worst(flows: Sequence[Flow]) -> Flow | None:
    """Those that fail most often, as who called tells of them."""
    failing = [f for f in flows if fails(f)]
    return max(failing, key=lambda f: (f.reporter == "source", f.rate), default=None)


# --- since when --------------------------------------------------------------------------------------------------------------

CLEAR = 10.0
"""How much likelier (as a logarithm) what was counted must be with a change than without one."""
MATERIAL = 0.005
"""The part of calls by which a share must have risen."""


def history(answer: Sequence[Series], worst: Flow) -> tuple[list[float], list[float], list[float]]:
    """The steps of a range, and in each of them how many calls ended as the worst do, and how many there were."""
    times = sorted({t for s in answer for t, _ in s.values})
    at = {t: i for i, t in enumerate(times)}
    failed, total = [0.0] * len(times), [0.0] * len(times)
    for series in answer:
        flow = _connection(series.metric) if worst.protocol == "tcp" else _request(series.metric)
        ends = (flow.code, flow.flags) == (worst.code, worst.flags)
        before: dict[int, float] = {}
        for t, text in series.values:
            i = at[t]
            try:
                before[i] = float(text)
            except ValueError:
                continue
            grown = before[i] - before.get(i - 1, 0.0)  # a counter that is new begins at nothing
            if i > 0 and isfinite(grown) and grown > 0:
                total[i] += grown
                failed[i] += grown if ends else 0.0
    return times, failed, total


def rose(failed: Sequence[float], total: Sequence[float]) -> int | None:
    """The step from which on about so many fail as now: of several clear changes the last with which the failing part at least doubled.

    Where there were no calls before, the first step with some. None where it was so all along, or where less than half of it is left.
    """
    begin = next((i for i, n in enumerate(total) if n > 0), 0)
    found = begin if begin > 1 and any(failed) else None
    start = begin
    while (at := _change(failed, total, start)) is not None:
        before, after = _part(failed, total, start, at), _part(failed, total, at, len(total))
        if abs(after - before) < MATERIAL:
            break
        if after > 2 * before:
            found = at
        elif after < before / 2:
            found = None
        start = at
    return found


def _part(failed: Sequence[float], total: Sequence[float], start: int, end: int) -> float:
    return sum(failed[start:end]) / (sum(total[start:end]) or 1.0)


def _change(failed: Sequence[float], total: Sequence[float], start: int) -> int | None:
    """The step at which the failing part is likeliest to have changed; None where no step is clearly one."""
    k, n = sum(failed[start:]), sum(total[start:])
    base, best, found = _likely(k, n), CLEAR, None
    a, b = 0.0, 0.0
    for i in range(start, len(total) - 1):
        a, b = a + failed[i], b + total[i]
        gain = _likely(a, b) + _likely(k - a, n - b) - base
        if gain > best:
            best, found = gain, i + 1
    return found


def _likely(k: float, n: float) -> float:
    """The logarithm of how likely k of n is at its own best."""
    if not 0 < k < n:
        return 0.0
    return k * log(k / n) + (n - k) * log(1 - k / n)


# --- saved -------------------------------------------------------------------------------------------------------------------


class Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a Prometheus answered about one host, as `prometheus.json` keeps it: each answer whole, by its name."""

    host: str
    answers: dict[str, Answer]
    window_s: float = WINDOW_S
    since: float | None = None
    counted: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


_RECORDED = msgspec.json.Decoder(Recorded | tuple[Recorded, ...])


def recorded(body: bytes, cluster: str, source: str, read_at: float) -> tuple[Traffic, ...]:
    """The traffic that a `prometheus.json` keeps, of one host or of several. Raises NotRead."""
    try:
        found = _RECORDED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise NotRead(f"prometheus.json is not what was recorded of a Prometheus ({e})") from None
    made = []
    for one in found if isinstance(found, tuple) else (found,):
        about = Asked(one.host, one.counted or (one.host,), frozenset(one.gateways))
        series = {name: answer.series() for name, answer in one.answers.items()}
        last = max((s.value[0] for some in series.values() for s in some if s.value is not None), default=read_at)
        told = traffic(cluster, about, series, window_s=one.window_s)
        made.append(msgspec.structs.replace(told, since=one.since, read_at=last, source=source))
    return tuple(made)
