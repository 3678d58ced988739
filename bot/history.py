"""The last day of every host: what its looks told, kept so that people can go back to any instant of it.

What must stay true: a look costs nothing more but the offer of what it saw; a store that is away loses some of the past and nothing else; what
nobody looked at is never told as if somebody had. Only changes are kept: how a host stands now and since when, and in blocks of time, one after
the other, how it stood before. Packed and deflated with what the reader knows as well (the host's name, the shape of its rules) as dictionary.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
import zlib
from contextlib import suppress
from datetime import datetime, timedelta
from datetime import time as datetime_time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from bot.settings import duration
from bot.store import BLOCK_S, PAST_S
from checks import changed, diagnosis, reach, standing
from checks.changed import Changed
from checks.diagnosis import ClusterAge, Diagnosis, Verdict
from checks.finding import Skipped
from checks.mesh import Change, Unreadable
from checks.resources import KIND_OF, EndpointSlice, Node, Pod, ReplicaSet, Workload
from checks.standing import ABSENT, Standing, Then

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import tzinfo

    from bot.store import Store
    from checks.diagnosis import Stands, Sweep
    from checks.mesh import Cluster, Mesh
    from checks.resources import Resource

logger = logging.getLogger(__name__)

_BEAT_S = 30.0  # how often it is said that somebody looks still, where nothing changes
_GAP_S = 120.0  # so long without a look is a time of which nothing is known
_TOGETHER_S = 5.0  # what changed within so long of a fault's beginning came in one look with it
_SPANS = 50  # times of looking that are remembered
_AT_ONCE = 100  # objects of one look that are told of
_MANY = 200  # hosts of a change; of more it is told as everybody's
_UNTOLD = (Pod, EndpointSlice, Node, ReplicaSet)  # what they make of a host is kept as its own past
_COMMON = (
    b"warningerrorsubset-empty-weightedsubset-scaled-to-zero has no endpoint and gets of the requests of a rule."
    b"waypointgatewaypresentdirect_response redirectevery requestroutesidecarhttpspec.http[0].routespec.http[0]"
    b"ServiceEntry Deployment DestinationRule VirtualService outbound|80||outbound|80|v1|outbound|80|v2|.svc.cluster.local"
)


class Touched(Struct, array_like=True, frozen=True):
    """An object that changed: when (seconds since the epoch), where, what it is, what became of it and by whom, and for which hosts (None: everybody's)."""

    at: float
    cluster: str
    resource: str
    what: str
    by: str = ""
    hosts: tuple[str, ...] | None = None


class Instant(NamedTuple):
    """How a host stood from `at` on, until the next one; seconds since the epoch."""

    at: float
    standing: Standing


class Span(NamedTuple):
    """A time in which somebody looked at a mesh, and the clusters of it that could not be read then: what they showed last was looked at."""

    begin: float
    end: float
    lost: tuple[str, ...] = ()


class Past(NamedTuple):
    """What is kept of one host of a mesh: its instants and the objects that changed for it, the oldest first, and when somebody looked."""

    mesh: str
    host: str
    instants: tuple[Instant, ...]
    touched: tuple[Touched, ...]
    spans: tuple[Span, ...]
    full: tuple[tuple[float, float], ...] = ()
    """The times in which it changed too often to be kept."""

    def at(self, when: float) -> Instant | None:
        """How the host stood then; None where that is not known, and `unknown` says why."""
        found = next((i for i in reversed(self.instants) if i.at <= when), None)
        return None if found is None or self.unknown(when) else found

    def span(self, when: float) -> Span | None:
        """The time of looking that an instant is in."""
        return next((s for s in reversed(self.spans) if s.begin <= when <= s.end + _GAP_S), None)

    def unknown(self, when: float) -> str:
        """Why it is not known how the host stood then, as a sentence with times as `{HH:MM}` of UTC; empty where it is."""
        span = self.span(when)
        if not self.spans or not self.instants or when < self.spans[0].begin:
            since = min((s.begin for s in self.spans), default=None)
            return "Nothing is kept of it." if since is None or not self.instants else f"Nothing is kept from before {_clock(since)}."
        if span is None:
            before = max(s.end for s in self.spans if s.end < when)
            after = min((s.begin for s in self.spans if s.begin > when), default=None)
            return f"Nobody could look {f'from {_clock(before)} to {_clock(after)}' if after is not None else f'after {_clock(before)}'}."
        if any(a < when < b for a, b in self.full):
            return "It changed more often than is kept."
        return "" if self.instants[0].at <= when else f"Nothing is kept of it from before {_clock(self.instants[0].at)}."

    @property
    def stops(self) -> tuple[float, ...]:
        """When anything happened, in order: where a slider stops."""
        return tuple(sorted({round(i.at, 1) for i in self.instants} | {round(t.at, 1) for t in self.touched}))

    def then(self, when: float) -> Then | None:
        """What the host's callers got then."""
        found = self.at(when)
        return None if found is None else standing.read(self.host, found.standing)


def _clock(when: float) -> str:
    return time.strftime("%d %b %H:%M UTC" if time.time() - when > 20 * 3600 else "%H:%M UTC", time.gmtime(when))


# --- how it is written -----------------------------------------------------------------------------------------------------------

_now = msgspec.msgpack.Decoder(tuple[float, bytes, bytes])  # since, shape, level
_frame = msgspec.msgpack.Decoder(tuple[int, bytes | None, bytes])  # tenths of a second of the block, the shape if it is another one, level
_spans = msgspec.msgpack.Decoder(tuple[Span, ...])
_touched = msgspec.msgpack.Decoder(Touched)
_pack = msgspec.msgpack.Encoder().encode
# What stands before a state: whether it is deflated, and whether nothing before it is needed to read it.
_PLAIN, _DEFLATED, _ALONE = 0, 1, 2
_HEAD = 4


def _deflate(data: bytes, known: bytes) -> bytes:
    made = zlib.compressobj(6, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, _COMMON + known)
    return made.compress(data) + made.flush()


def _inflate(data: bytes, known: bytes) -> bytes:
    made = zlib.decompressobj(-15, _COMMON + known)
    return made.decompress(data) + made.flush()


def _framed(at: float, now: Standing, host: str, block: int, before: Standing | None) -> bytes:
    """One state of a host to be added to its past in a block: what it is, its length, and what differs from the state before it."""
    same = before is not None and before.shape == now.shape
    raw = _pack((round((at - block * BLOCK_S) * 10), None if same else now.shape, now.level))
    small = _deflate(raw, host.encode() + (before.shape if before is not None else b""))
    data, mark = (small, _DEFLATED) if len(small) < len(raw) else (raw, _PLAIN)
    return bytes([mark | (_ALONE if before is None else 0)]) + len(data).to_bytes(3) + data


def _unframed(data: bytes, host: str, block: int) -> Iterator[Instant]:
    """The states that were kept in a block, in order; what cannot be read ends them."""
    before: Standing | None = None
    at = 0
    with suppress(msgspec.DecodeError, zlib.error):
        while at + _HEAD <= len(data):
            mark, size = data[at], int.from_bytes(data[at + 1 : at + _HEAD])
            part = data[at + _HEAD : at + _HEAD + size]
            at += _HEAD + size
            if mark & _ALONE:  # another bot goes on here, that does not know what this one wrote
                before = None
            known = host.encode() + (before.shape if before is not None else b"")
            tenths, shape, level = _frame.decode(_inflate(part, known) if mark & _DEFLATED else part)
            before = Standing(before.shape if shape is None and before is not None else shape or b"", level)
            yield Instant(block * BLOCK_S + tenths / 10, before)


def _state(host: str, since: float, standing: Standing) -> bytes:
    return _deflate(_pack((since, *standing)), host.encode())


def _standing_now(host: str, state: bytes) -> tuple[float, Standing] | None:
    with suppress(msgspec.DecodeError, zlib.error):
        since, shape, level = _now.decode(_inflate(state, host.encode()))
        return since, Standing(shape, level)
    return None


class _Kept(NamedTuple):
    """A host as it is kept: the object that was looked at last, what it said, since when, and the block in which its past was begun."""

    of: Stands | None
    standing: Standing
    since: float
    block: int


class _Offered(NamedTuple):
    at: float
    meshes: Mapping[str, Mesh]
    sweeps: Mapping[str, Sweep]
    fence: str


class History:
    """Keeps in `store` what looks offer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offered: _Offered | None = None
        self._come = asyncio.Event()
        self._kept: dict[str, dict[str, _Kept]] = {}
        self._spans: dict[str, list[Span]] = {}
        self._said: dict[str, float] = {}
        self._before: dict[str, Mesh] = {}
        self._fence = ""

    def offer(self, at: float, meshes: Mapping[str, Mesh], sweeps: Mapping[str, Sweep]) -> None:
        """What a look saw of the meshes that this bot looks at; of several that were not kept yet the newest is."""
        self._offered = _Offered(math.floor(at * 10) / 10, meshes, sweeps, self._store.fence)
        self._come.set()

    async def run(self) -> None:
        """Keep what is offered, until cancelled; after a failure what is kept is read anew, and what changed meanwhile is a change of now."""
        away = False
        while True:
            await self._come.wait()
            self._come.clear()
            try:
                await self.keep()
                away = False
            except (RedisError, OSError, LookupError, ValueError) as error:  # whatever it is, alerts go on
                if not away:
                    logger.warning("Some of the past is not kept: %s.", type(error).__name__)
                away = True
                self._forget()

    def _forget(self) -> None:
        self._kept, self._spans, self._said, self._before = {}, {}, {}, {}

    async def keep(self) -> None:
        """Keep what was offered last. Raises redis.RedisError."""
        offered, self._offered = self._offered, None
        if offered is None:
            return
        if offered.fence != self._fence:  # somebody else may have led meanwhile
            self._forget()
            self._fence = offered.fence
        for name in self._kept.keys() - offered.sweeps.keys():  # another bot looks at it now
            for of in (self._kept, self._spans, self._said, self._before):
                of.pop(name, None)
        for name, sweep in offered.sweeps.items():
            mesh = offered.meshes[name]
            lost = tuple(c.name for c in mesh.clusters if "*" in c.unreadable)
            if all(c.synced for c in mesh.clusters) and len(lost) < len(mesh.clusters):  # else it stands as nobody sees it
                await self._keep(mesh, sweep, offered.at, lost)

    async def _keep(self, mesh: Mesh, sweep: Sweep, at: float, lost: tuple[str, ...]) -> None:
        name, block = mesh.name, int(at // BLOCK_S)
        if name not in self._kept:
            stored = await self._store.stands(name)
            read = {host: _standing_now(host, state) for host, state in stored.items()}
            self._kept[name] = {host: _Kept(None, s[1], s[0], -1) for host, s in read.items() if s is not None}
            self._spans[name] = [*_spanned((await self._store.spans()).get(name)), Span(at, at, lost)]
        kept = self._kept[name]
        entries = await asyncio.to_thread(self._differing, kept, sweep, at, block)
        if entries:
            await self._store.remember(name, block, entries)
        before = self._before.get(name)
        objects = await asyncio.to_thread(lambda: [_pack(t) for t in _told(before, mesh, at)]) if before is not None else []
        self._before[name] = mesh
        spans_ = [s for s in self._spans[name] if s.end >= at - PAST_S - BLOCK_S]
        goes_on = bool(spans_) and at - spans_[-1].end <= _GAP_S and spans_[-1].lost == lost
        if entries or objects or not goes_on or at - self._said.get(name, 0.0) >= _BEAT_S:
            spans_ = [*spans_[:-1], spans_[-1]._replace(end=at)] if goes_on else [*spans_, Span(at, at, lost)]
            self._spans[name] = spans_[-_SPANS:]
            self._said[name] = at
            await self._store.watched(name, _pack(self._spans[name]), objects)

    @staticmethod
    def _differing(kept: dict[str, _Kept], sweep: Sweep, at: float, block: int) -> list[tuple[str, bytes, bytes]]:
        """The hosts that stand otherwise than before: how they stand, and what that adds to their past."""
        out: list[tuple[str, bytes, bytes]] = []
        stands = sweep.standing
        for host, of in stands.items():
            known = kept.get(host)
            if known is not None and (known.of is of or known.standing == of.standing):
                if known.of is not of:
                    kept[host] = known._replace(of=of)
                continue
            out.append((host, _state(host, at, of.standing), _added(host, known, of.standing, at, block)))
            kept[host] = _Kept(of, of.standing, at, block if known is not None else -1)
        for host in kept.keys() - stands.keys() if len(kept) > len(stands) else ():
            known = kept[host]
            if known.standing != ABSENT:
                out.append((host, _state(host, at, ABSENT), _added(host, known, ABSENT, at, block)))
                kept[host] = _Kept(None, ABSENT, at, block)
            elif at - known.since > PAST_S:
                out.append((host, b"", b""))
                del kept[host]
        return out


def _added(host: str, known: _Kept | None, now: Standing, at: float, block: int) -> bytes:
    """What a change adds to a host's past in a block: how it stood until then, if that is not there already, and how it stands."""
    if known is None:
        return b""
    begun = _framed(known.since, known.standing, host, block, None) if known.block != block else b""
    return begun + _framed(at, now, host, block, known.standing)


def _told(before: Mesh, after: Mesh, at: float) -> list[Touched]:
    """The objects that differ between two looks; of very many only some by name, since for whom each is takes time to find out."""
    changes = _objects(before, after, at)
    told = list(itertools.islice(changes, _AT_ONCE))
    if next(changes, None) is not None:
        told.append(Touched(at, after.clusters[0].name, "More than these objects", f"were changed at once, {_AT_ONCE} of which are named"))
    return told


def _objects(before: Mesh, after: Mesh, at: float) -> Iterator[Touched]:
    """The objects that differ between two looks, in words."""
    old = {c.name: c for c in before.clusters}
    for cluster in after.clusters:
        was = old.get(cluster.name)
        if was is None or was is cluster:
            continue
        for kind in was.objects.keys() | cluster.objects.keys():
            then, now = was.objects.get(kind, {}), cluster.objects.get(kind, {})
            if kind in _UNTOLD or then is now:
                continue
            for space in {ns for ns in then.keys() | now.keys() if then.get(ns) is not now.get(ns)}:
                yield from _of_space(kind, space, was, cluster, (before, after), at)


def _of_space(kind: type[Resource], space: str, was: Cluster, now: Cluster, meshes: tuple[Mesh, Mesh], at: float) -> Iterator[Touched]:
    old, new = was.within(kind, space), now.within(kind, space)
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is b:
            continue
        told = _became(a, b)
        if told is None:
            continue
        try:
            about = reach.about(Change(now.name, kind, space, name, b), *meshes)
        except Unreadable:
            about = None
        hosts = tuple(sorted(about)) if about is not None and len(about) <= _MANY else None
        by = next((w.manager for w in b.metadata.managed_fields), "") if b is not None else ""
        yield Touched(at, now.name, (b or a).ref if (b or a) else KIND_OF[kind].kind, told, by, hosts)  # type: ignore[union-attr]


def _became(old: Resource | None, new: Resource | None) -> str | None:
    """What became of an object; None for what is nothing that anybody did."""
    if old is None:
        return "was created"
    if new is None:
        return "was deleted"
    differs = changed.difference(old, new)
    if not differs and isinstance(new, Workload):
        return None
    return f"was changed, {'; '.join(differs)}" if differs else None


# --- how it is read --------------------------------------------------------------------------------------------------------------


async def hosts(store: Store) -> dict[str, list[str]]:
    """The hosts of each mesh of which anything is kept. Raises redis.RedisError."""
    return {mesh: await store.known(mesh) for mesh in await store.spans()}


async def past(store: Store, mesh: str, host: str, now: float) -> Past:
    """What is kept of a host of a mesh. Raises redis.RedisError."""
    blocks = range(int((now - PAST_S) // BLOCK_S), int(now // BLOCK_S) + 1)
    spans = _spanned((await store.spans()).get(mesh))
    state, kept, objects = await store.past(mesh, host, blocks)
    instants: list[Instant] = []
    full: list[tuple[float, float]] = []
    for block, (data, is_full) in zip(blocks, kept, strict=True):
        instants += _unframed(data, host, block)
        if is_full:
            full.append((max((i.at for i in instants), default=block * BLOCK_S), (block + 1) * BLOCK_S))
    current = _standing_now(host, state) if state is not None else None
    if current is not None:
        instants.append(Instant(*current))
        full = [(a, min(b, current[0])) for a, b in full if a < current[0]]
    found = map(_touching, objects)
    touched = tuple(t for t in found if t is not None and t.at >= now - PAST_S and (t.hosts is None or host in t.hosts))
    return Past(mesh, host, _in_order(instants), touched, spans, tuple(full))


def _spanned(spans: bytes | None) -> tuple[Span, ...]:
    """The times of looking as they were kept; none of what cannot be read."""
    with suppress(msgspec.DecodeError):
        return _spans.decode(spans) if spans is not None else ()
    return ()


def _touching(touched: bytes) -> Touched | None:
    with suppress(msgspec.DecodeError):
        return _touched.decode(touched)
    return None


def _in_order(instants: Iterable[Instant]) -> tuple[Instant, ...]:
    """Each change once: a block begins with what the one before it ended with."""
    out: list[Instant] = []
    for instant in sorted(instants, key=lambda i: i.at):
        if out and out[-1].standing == instant.standing:
            continue
        if out and out[-1].at == instant.at:
            out.pop()
        out.append(instant)
    return tuple(out)


def resolve(word: str, kept: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """The host that a person means, with each mesh in which anything is kept of it; raises diagnosis.UnknownHost."""
    return diagnosis.fitting(word, kept)


def when(word: str, now: float, zone: tzinfo | None) -> float | None:
    """The instant that a person means, in seconds since the epoch: `14:02` (the last one), `2026-11-28T14:02`, `10m` ago; None for anything else.

    What names no time zone is meant in `zone`, None for the machine's own.
    """
    text = word.strip().removesuffix(" ago")
    ago = duration(text)
    if ago is not None:
        return now - ago
    here = datetime.fromtimestamp(now, zone).astimezone(zone)
    with suppress(ValueError):
        if "-" in text:
            meant = datetime.fromisoformat(text)
            return (meant if meant.tzinfo is not None else meant.replace(tzinfo=here.tzinfo)).timestamp()
        clock = datetime_time.fromisoformat(text.upper().replace("UTC", "").strip())
        meant = datetime.combine(here.date(), clock, clock.tzinfo or here.tzinfo)
        return (meant if meant.timestamp() <= now else meant - timedelta(days=1)).timestamp()
    return None


# --- how it is told --------------------------------------------------------------------------------------------------------------


def view(
    pasts: Sequence[Past], at: float, now: float, more: Iterable[Changed] = (), *, begin: float | None = None, end: float | None = None
) -> dict[str, Any]:
    """How a host stood at an instant, in the form of `templates`: the diagnosis of then, why there is none, what changed, and the day as a strip.

    `pasts` are those of the host in each mesh that has it. `more` is what objects say of themselves, which is told where nobody saw it happen.
    Told is the time from `begin` to `end`, else the last day.
    """
    begin, end = now - PAST_S if begin is None else begin, now if end is None else end
    known = [p for p in pasts if p.at(at) is not None]
    stops = sorted({s for p in pasts for s in p.stops if begin <= s <= end})
    found = [i for p in known if (i := p.at(at)) is not None]
    told = _rows(pasts, more, (begin, end), at)
    return {
        "host": pasts[0].host,
        "at": at,
        "since": max((i.at for i in found), default=None),
        "until": min((i.at for p in known for i in p.instants if i.at > at), default=None),
        "still": all(not p.unknown(now) for p in known),
        "lost": sorted({name for p in known if (span := p.span(at)) is not None for name in span.lost}),
        "unknown": "" if known else next((why for p in pasts if (why := p.unknown(at))), "Nothing is kept of it."),
        "diagnosis": msgspec.to_builtins(_diagnosis(known, at)) if known else None,
        "changes": told,
        "strip": _strip(pasts, begin, end),
        "from": begin,
        "now": end,
        "stops": stops,
        "first": _stop(stops[:1], lambda s: s < at - 0.05),
        "earlier": _stop(stops[::-1], lambda s: s < at - 0.05),
        "later": _stop(stops, lambda s: s > at + 0.05),
        "last": _stop(stops[-1:], lambda s: s > at + 0.05),
    }


def _stop(stops: Iterable[float], fits: Callable[[float], bool]) -> float | None:
    return next((s for s in stops if fits(s)), None)


def _diagnosis(pasts: Sequence[Past], at: float) -> Diagnosis:
    then = [t for p in pasts if (t := p.then(at)) is not None]
    share = max(t.share for t in then)
    routes = tuple(r for t in then for r in t.routes)
    findings = diagnosis.once(f for t in then for f in t.findings)
    lost = dict.fromkeys(name for p in pasts if (span := p.span(at)) is not None for name in span.lost)
    quiet = Verdict.UNKNOWN if lost else Verdict.AT_RISK if findings else Verdict.HEALTHY
    verdict = Verdict.BROKEN if share >= 1 else Verdict.DEGRADED if share > 0 else quiet
    skipped = tuple(Skipped("*", name, "it could not be read then") for name in lost)
    clusters = dict.fromkeys((*(r.viewpoint.cluster for r in routes), *(f.cluster for f in findings)))
    ages = tuple(ClusterAge(name, synced=True, age_s=0.0) for name in clusters)
    gone = "" if any((i := p.at(at)) is not None and i.standing != ABSENT for p in pasts) else "it was in no mesh then"
    return Diagnosis(pasts[0].host, verdict, share, routes, findings, skipped, 0, ages, outside=gone)


def _rows(pasts: Sequence[Past], more: Iterable[Changed], span: tuple[float, float], at: float) -> list[dict[str, Any]]:
    """What changed in a time, the newest first; marked is what changed before the fault of then began, what a finding names before all."""
    seen = [t for p in pasts for t in p.touched if span[0] <= t.at <= span[1]]
    rows = {(t.at, t.cluster, t.resource): Changed(cluster=t.cluster, resource=t.resource, at=t.at, by=t.by, what=t.what) for t in seen}
    for c in more:
        if span[0] <= c.at <= span[1] and not any(r == c.resource and w == c.cluster and abs(a - c.at) < _GAP_S for a, w, r in rows):
            rows[c.at, c.cluster, c.resource] = c
    told = sorted(rows.values(), key=lambda c: (-c.at, c.cluster, c.resource))
    runs = [run for p in pasts if (run := _failing(p, at)) is not None]
    since, until = min((r[0] for r in runs), default=None), max((r[1] for r in runs), default=0.0)
    named = {f.resource for p in pasts for t in (p.then(at),) if t is not None for f in t.findings}
    near = [c for c in told if since is not None and since - changed.BEFORE_S <= c.at <= since + changed.AFTER_S and c.at < until]
    suspect = max(near, key=lambda c: (abs(c.at - (since or 0.0)) <= _TOGETHER_S, c.resource in named, c.at), default=None)
    return [{**msgspec.to_builtins(c), "suspicious": c is suspect} for c in told]


def _failing(past: Past, at: float) -> tuple[float, float] | None:
    """From when until when what failed at an instant did, as far as that was seen; None where nothing failed."""
    began: float | None = None
    for i in past.instants:
        if not standing.share(i.standing):
            if i.at > at:
                return None if began is None else (began, i.at)
            began = None
        elif began is None:
            if i.at > at:
                return None
            began = i.at
    return None if began is None else (began, float("inf"))


def _strip(pasts: Sequence[Past], begin: float, end: float) -> list[dict[str, Any]]:
    """A time in pieces between which something differs: from, until, the share that failed and the endpoints, None where nobody knows."""
    edges = {begin, end}
    for p in pasts:
        edges |= {i.at for i in p.instants} | {e for s in p.spans for e in (s.begin, s.end + _GAP_S)} | {e for f in p.full for e in f}
    ordered = sorted(e for e in edges if begin <= e <= end)
    out: list[dict[str, Any]] = []
    for a, b in itertools.pairwise(ordered):
        found = [i for p in pasts if (i := p.at((a + b) / 2)) is not None]
        counted = [standing.endpoints(i.standing) for i in found]
        piece = {
            "from": a,
            "until": b,
            "share": max(standing.share(i.standing) for i in found) if found else None,
            "usable": sum(u for u, _ in counted) if found else None,
            "of": sum(n for _, n in counted) if found else None,
        }
        if out and all(out[-1][k] == piece[k] for k in ("share", "usable", "of")):
            out[-1]["until"] = b
        else:
            out.append(piece)
    return out
