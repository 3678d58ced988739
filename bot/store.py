"""Everything that must outlive the process, in Redis or Valkey; every key of meshwhy is in this file.

What must stay true: an alert and the message that tells of it are committed together or not at all, and a commit that is repeated because its
answer was lost changes nothing the second time. The outbox alone writes what Slack has; everybody else writes what Slack should have.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from bot.alerts import Alert, Appeal, Silence, State
from checks.finding import Finding
from templates.blocks import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

SCHEMA = 2  # 2: an alert names the message that speaks for it
DAY_S = 24 * 3600
RESOLVED_S = 7 * DAY_S  # how long a resolved alert, its message and its place in Slack are remembered
ANSWER_S = DAY_S  # how long an answer can be shared
AUDIT_S, AUDIT_KEPT = 90 * DAY_S, 50_000
ONCE_S = 3600  # Slack repeats an event for five minutes

PAST_S = 24 * 3600  # how far people can go back
BLOCK_S = 6 * 3600  # what is kept of the past goes in blocks of time
_PAST_KEPT_S = PAST_S + BLOCK_S
HOST_MOST = 32 << 10
"""Bytes of one host in one block: what changes more often than that is not told from then on."""
MESH_MOST = 16 << 20
"""Bytes of all hosts of a mesh in one block."""
_TOUCHED_KEPT = 5_000

ENDED_S, _ENDED_KEPT = 30 * DAY_S, 20_000
_CHRONICLE_KEPT = 500

_ABANDONED_S = 10.0  # a question that somebody took so long ago is taken over
_ANSWERS_S = 10  # how long Redis may take for one exchange

# One hash tag, so that one transaction can hold them all in a cluster as well.
_ALL = "{meshwhy}:"
_SCHEMA = f"{_ALL}schema"
_ALERTS = f"{_ALL}alerts"  # hash: id -> open alert
_OUTBOX = f"{_ALL}outbox"  # sorted set: message id -> when to try
_RESOLVED = f"{_ALL}resolved:"  # + id -> alert
_DRAFT = f"{_ALL}draft:"  # + message id -> hash: rev, body
_STEPS = f"{_ALL}steps:"  # + message id -> list of thread lines that Slack does not have yet
_DELIVERY = f"{_ALL}delivery:"  # + message id -> what Slack has
_PLACE = f"{_ALL}place:"  # + channel:ts -> alert id
_COMMIT = f"{_ALL}commit:"  # + random -> this commit was done
_ONCE = f"{_ALL}once:"  # + envelope or event -> it was taken
_ANSWER = f"{_ALL}answer:"  # + random -> an answer that may be shared
_SILENCES = f"{_ALL}silences"  # hash: id -> silence
_DEEDS = f"{_ALL}deeds"  # stream: what people do, in order
_DONE = f"{_ALL}done"  # the last deed that is part of what is committed
_CLAIM = f"{_ALL}claim:"  # + what -> the person who was first
_DEEDS_KEPT = 10_000
_AUDIT = f"{_ALL}audit"  # stream: who did what, the last AUDIT_KEPT of the last AUDIT_S
_LEADER = f"{_ALL}leader"  # who keeps the alerts: the fence of their lease, a space, their name
_FENCE = f"{_ALL}fence"  # the last fence that was given out
_PAGES = f"{_ALL}pages"  # sorted set: page id -> when to try
_PAGE = f"{_ALL}page:"  # + page id -> hash: rev, body, and what its pager has: has (its state), refused (why not)
_RELAYED = f"{_ALL}relayed:"  # + Alertmanager's URL -> hash: alert id -> what was sent
_DIGESTS = f"{_ALL}digests"  # hash: digest -> when the last one that was sent was due
_STANDING = f"{_ALL}standing"  # what the leader said of itself last: when it looked, how many clusters it read, of how many
_MEMBERS = f"{_ALL}members"  # sorted set: bot -> until when it is one of several that share the clusters
_READY = f"{_ALL}ready"  # sorted set: bot, a space, mesh that it has read -> as _MEMBERS
_REPORT = f"{_ALL}report:"  # + bot, a colon, mesh -> what it found there last
_REPORTS = f"{_ALL}reports"  # stream: which of them are new; group: leader
_ASKED = f"{_ALL}asked:"  # + mesh -> stream: what people ask of it, for any of its bots; group: holders
_STREAM_KEPT = 1_000
_RUNBOOKS = f"{_ALL}runbooks"  # sorted set: message id -> since when its runbook is to be run
_WATCHED = f"{_ALL}past:watched"  # hash: mesh -> from when until when somebody looked at it
_STANDS = f"{_ALL}past:now:"  # + mesh -> hash: host -> how it stands, and since when (bot.history)
_PAST = f"{_ALL}past:then:"  # + block of time, a space, mesh, a space, host -> how it stood, one change after the other
_PAST_SIZE = f"{_ALL}past:size:"  # + block, a space, mesh -> bytes of all of its hosts
_TOUCHED = f"{_ALL}past:objects:"  # + mesh -> stream: objects that changed
_INCIDENTS = f"{_ALL}incidents"  # hash: message id -> the channel that is wanted for it
_HOME = f"{_ALL}home:"  # + person -> they looked at their App Home
_CHRONICLE = f"{_ALL}chronicle:"  # + message id -> list of what happened to its alerts
_SPOKEN = f"{_ALL}spoken:"  # + message id -> set of the alerts that it ever spoke for
_ENDING = f"{_ALL}ending"  # hash: message id -> what ended, of which is still to be told
_ENDED = f"{_ALL}ended"  # stream: what ended, the last _ENDED_KEPT of the last ENDED_S
_RECALLED = f"{_ALL}recalled"  # this store was not empty, or what Slack shows was put back into it

# A write of a leader whose lease is over changes nothing. KEYS[1] is the lease, ARGV[1] the fence, empty where there is none.
_FENCED = """
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('DEPOSED the lease is over') end
"""

_COMMIT_ONCE = f"""{_FENCED}
if KEYS[2] and not redis.call('SET', KEYS[2], 1, 'NX', 'EX', 600) then return 0 end
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return 1
"""

# Take a message out of the outbox, unless something new was committed for it since it was read.
_SETTLE = f"""{_FENCED}
if redis.call('HGET', KEYS[2], 'rev') ~= ARGV[2] or redis.call('LLEN', KEYS[3]) > 0 then return 0 end
redis.call('ZREM', KEYS[5], ARGV[3])
local ttl = redis.call('TTL', KEYS[2])
if ttl > 0 then redis.call('EXPIRE', KEYS[4], ttl) else redis.call('PERSIST', KEYS[4]) end
return 1
"""

# Try a message later, unless something new was committed for it since it was read.
_POSTPONE = """
if ARGV[3] and (redis.call('HGET', KEYS[1], 'rev') ~= ARGV[3] or redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[4])) then return 0 end
redis.call('ZADD', KEYS[3], 'XX', ARGV[2], ARGV[1])
return 1
"""

# A pager has a page: take it off the list, unless something new was committed for it since it was read.
_PAGED = f"""{_FENCED}
redis.call('HSET', KEYS[2], 'has', ARGV[4], 'refused', '', 'attempts', 0)
if redis.call('HGET', KEYS[2], 'rev') == ARGV[2] then redis.call('ZREM', KEYS[3], ARGV[3]) end
return 1
"""

# A pager does not have a page: try it later, unless something new was committed for it since it was read.
_UNPAGED = f"""{_FENCED}
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
if redis.call('HGET', KEYS[2], 'rev') == ARGV[3] then redis.call('ZADD', KEYS[3], 'XX', ARGV[5], ARGV[4]) end
return 1
"""

# A runbook is run: forget it, unless it was asked for again since.
_RAN = f"""{_FENCED}
local since = redis.call('ZSCORE', KEYS[2], ARGV[2])
if since and tonumber(since) == tonumber(ARGV[3]) then redis.call('ZREM', KEYS[2], ARGV[2]) end
return 1
"""

# The lease, for who has it or when nobody does; each time that it changes hands with a greater fence, also after the store was emptied.
_LEASE = """
local held = redis.call('GET', KEYS[1])
if held and string.match(held, ' (.*)$') == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return held end
if held then return '' end
local fence, now = redis.call('INCR', KEYS[2]), redis.call('TIME')
if fence == 1 then fence = now[1] * 1000 + math.floor(now[2] / 1000) redis.call('SET', KEYS[2], string.format('%.0f', fence)) end
local token = string.format('%.0f', fence) .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token
"""

# Be a member, ready for some meshes, for so many milliseconds; who is one, and ready for what.
_JOIN = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
for _, entry in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if string.sub(entry, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('ZREM', KEYS[2], entry) end
end
for i = 3, #ARGV do redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1] .. ' ' .. ARGV[i]) end
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', now) end
return {redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1)}
"""

# A report of a bot that is a member still: one that was paused for too long says nothing any more.
_TELL = """
local t, until_ = redis.call('TIME'), redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ or tonumber(until_) <= t[1] * 1000 + math.floor(t[2] / 1000) then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'mesh', ARGV[4])
return 1
"""

# How some hosts stand now, and what is added to their past; what is full takes no more. KEYS: the lease, a mesh's hosts, its size, and the
# past of each; ARGV: fence, seconds to keep it, bytes of a host and of a mesh, then host, state (empty: it is gone), what is added.
_REMEMBER = f"""{_FENCED}
local size = tonumber(redis.call('GET', KEYS[3]) or 0)
for i = 4, #KEYS do
  local a = 5 + (i - 4) * 3
  if ARGV[a + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[a]) else redis.call('HSET', KEYS[2], ARGV[a], ARGV[a + 1]) end
  local more = #ARGV[a + 2]
  if more > 0 and size <= tonumber(ARGV[4]) and redis.call('STRLEN', KEYS[i]) <= tonumber(ARGV[3]) then
    redis.call('APPEND', KEYS[i], ARGV[a + 2])
    redis.call('EXPIRE', KEYS[i], ARGV[2])
    size = size + more
  end
end
redis.call('SET', KEYS[3], size, 'EX', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return size
"""

# From when until when somebody looked at a mesh, and the objects that changed there since.
_WATCH = f"""{_FENCED}
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
for i = 6, #ARGV do redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'o', ARGV[i]) end
if #ARGV > 5 then redis.call('EXPIRE', KEYS[3], ARGV[4]) end
return 1
"""

_UNLEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Deposed(RedisError):
    """A write of a leader whose lease is over: it changed nothing."""


class NewerSchema(Exception):
    """The store was written by a newer meshwhy."""


class Picture(Struct, frozen=True):
    """A drawing of the route: `key` tells one drawing from another, `svg` is its source, `alt` the same facts in words."""

    key: str
    svg: str
    alt: str


class Step(Struct, frozen=True, kw_only=True):
    """One line of a thread. `id` is unique in its message and finds the line in Slack when a post's answer was lost.

    `aloud`: the channel shows it as well.
    """

    id: str
    message: Message
    aloud: bool = False


class Draft(Struct, frozen=True, kw_only=True):
    """How a message should stand in Slack; of several drafts only the newest counts. `id` is the message's, `alert` whose it is.

    `parents` take it, one after the other, where the bot may not write to `channel`. With `thread`, the id of another message, it stands in that
    one's thread, wherever Slack has it.
    """

    id: str
    alert: str
    channel: str
    parents: tuple[str, ...] = ()
    message: Message
    picture: Picture | None = None
    resolved: bool = False
    share: float = 0.0
    """The part of the requests that fails, 0 to 1: of what waits for Slack, the worst goes first."""
    memo: str = ""
    """The alerts in short, which the message carries along in Slack (bot.recall)."""
    thread: str = ""


class Page(Struct, frozen=True, kw_only=True):
    """How an alert should stand at a pager (its name in the settings); of several pages with one id only the newest counts.

    `key` is the incident's, by which the pager knows it again; `message` is the Slack message that speaks for it. `facts` is what bot.pager
    tells of it.
    """

    id: str
    pager: str
    key: str
    message: str
    state: Literal["triggered", "acknowledged", "resolved"]
    facts: dict[str, Any]


class Due(Struct, frozen=True, kw_only=True):
    """A page that its pager does not have: which of its revisions, what the pager has (empty: nothing for sure), and why it refused it."""

    page: Page
    rev: int
    has: str = ""
    refused: str = ""
    attempts: int = 0


class Heard(Struct, frozen=True, kw_only=True):
    """What an Alertmanager says of a host, and our answer: `key` is its alert's, `finding` what the answer is routed by.

    The answer is made by whoever heard it: the one that keeps the alerts need not watch the host's cluster.
    """

    key: str
    host: str
    finding: Finding
    answer: Message
    resolved: bool = False


class Deed(Struct, frozen=True, kw_only=True):
    """What a person (a Slack user's id) did about the alerts of a `message`, or to a silence; times are seconds since the epoch.

    `until` limits an ack, `to` is who is handed it, `text` the words of a note, why it is done or escalated, or the id of the channel of an incident;
    `severity` and `tried` go with an escalation. `silence` is the one that is made, or ended. `heard` is what nobody did, and an Alertmanager said.
    """

    verb: Literal["ack", "unack", "hand", "note", "close", "reopen", "silence", "unsilence", "escalate", "incident", "heard"]
    by: str
    at: float
    message: str = ""
    until: float | None = None
    to: str = ""
    text: str = ""
    severity: str = ""
    tried: str = ""
    silence: Silence | None = None
    heard: Heard | None = None


class Incident(Struct, frozen=True, kw_only=True):
    """A channel that somebody wants for the alerts of a `message`: its name, who is to be in it (ids of people and user groups), and what was said with it."""

    message: str
    name: str
    by: str
    at: float
    people: tuple[str, ...] = ()
    appeal: Appeal | None = None


class Line(Struct, frozen=True, kw_only=True):
    """One thing that happened to the alerts of a message: when (seconds since the epoch), what, in which words, by whom and to whom (users' ids)."""

    at: float
    reason: str
    text: str = ""
    by: str = ""
    to: str = ""


class Ending(Struct, frozen=True, kw_only=True):
    """That every alert of a message is resolved, when, and whose it was: the team and the channel of its route."""

    message: str
    at: float
    team: str = ""
    channel: str = ""


class Ended(Struct, frozen=True, kw_only=True):
    """What a message told from its first firing to its end, in short; times are seconds since the epoch.

    `cluster` and `namespaces` say where it was, `hosts` how many failed, `share` the most that did. `acked` is when somebody first saw to it,
    `handled` whether anybody did anything about it.
    """

    message: str
    cause: str
    code: str
    cluster: str
    namespaces: tuple[str, ...]
    resource: str
    host: str
    hosts: int
    share: float
    began: float
    fired: float
    ended: float
    acked: float | None = None
    acked_by: str = ""
    handled: bool = False
    team: str = ""
    channel: str = ""


class Delivery(Struct, frozen=True, kw_only=True):
    """What Slack has of a message.

    `rev` is the draft it shows. `trying` is the root or the step whose post was sent and not yet answered. `picture` is the key of the last
    drawing that was tried, `file` its id in Slack, `shown` whether the message shows it. `attempts` counts failures in a row.
    """

    channel: str = ""
    ts: str = ""
    rev: int = 0
    trying: str = ""
    picture: str = ""
    file: str = ""
    shown: bool = False
    attempts: int = 0


class Recalled(Struct, frozen=True, kw_only=True):
    """A message (its id) that was found in Slack, what Slack has of it, and the alerts that it speaks for."""

    message: str
    delivery: Delivery
    alerts: tuple[Alert, ...]


class Work(Struct, frozen=True, kw_only=True):
    """One message that Slack does not have as it should be: the newest draft with its number, the lines still to say, and what Slack has."""

    draft: Draft
    rev: int
    steps: tuple[Step, ...]
    delivery: Delivery


def _plain(value: object) -> str:
    """Text that carries a mark of its own (templates mark what is escaped) as plain text; raises TypeError for anything else."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _deed(fields: Any) -> Deed | None:
    """The one field of a stream's entry, which redis-py gives as a dict or as a flat list."""
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(fields["deed"] if isinstance(fields, dict) else fields[1], type=Deed)
    return None


def _entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of a stream: id and fields, which redis-py gives as a dict or as a flat list, within one more list or not."""
    entries = found[0] if len(found) == 1 and found[0] and isinstance(found[0][0], (list, tuple)) else found
    out = []
    for ident, fields in entries:
        flat = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        out.append((ident, flat))
    return out


def _told(stored: str) -> str:
    """An alert of schema 1 in the form of schema 2: its message was derived from its episode."""
    alert = msgspec.json.decode(stored)
    if alert["state"] != "pending" or alert.get("resolved_at") is not None:
        alert.setdefault("episode", 1)
        alert.setdefault("message", f"{alert['id']}-{alert['episode']}")
        alert.setdefault("told", True)
    return _text(alert)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _text(value: object) -> str:
    return _encode(value).decode()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bounds one exchange with Redis; raises redis.TimeoutError."""
    try:
        async with asyncio.timeout(_ANSWERS_S):
            yield
    except TimeoutError:
        raise RedisTimeout(f"no answer within {_ANSWERS_S} s") from None


class Store:
    """The open door to Redis at `url` (redis://, rediss:// or unix://). `committed` is set whenever the outbox may have work, `paging_due`, `relay_due`, `runbook_due` and `ending_due` whenever a pager or an Alertmanager may have to be told, a runbook to be run, or an end to be told of."""

    def __init__(self, url: str) -> None:
        # redis-py types its commands as if they might not be asyncio. Its own socket_timeout would wait by asyncio.wait_for, which
        # before Python 3.12 loses a cancellation that comes together with the result: `_in_time` bounds every call instead.
        self._redis: Any = Redis.from_url(
            url, decode_responses=True, socket_timeout=None, socket_connect_timeout=5, health_check_interval=30
        )
        self.committed = asyncio.Event()
        self.paging_due = asyncio.Event()
        self.relay_due = asyncio.Event()
        self.runbook_due = asyncio.Event()
        self.incident_due = asyncio.Event()
        self.ending_due = asyncio.Event()
        self.fence = ""
        """What every write carries that only a leader may do; empty where nobody else can be one."""

    def unfenced(self) -> Store:
        """The same store for what a bot may write that does not lead."""
        other = copy.copy(self)
        other.fence = ""
        return other

    async def open(self) -> None:
        """Check that this is a store we can read, and mark an empty one as ours; raises NewerSchema or redis.RedisError."""
        await self._do("SET", _SCHEMA, SCHEMA, "NX")
        found = int(await self._do("GET", _SCHEMA) or SCHEMA)
        if found > SCHEMA:
            raise NewerSchema(f"The store was written by a newer meshwhy (schema {found}; this one knows {SCHEMA}). Start that one.")
        if found < SCHEMA:
            await self._migrate()

    async def _migrate(self) -> None:
        """Bring what schema 1 wrote to this one; repeating it changes nothing."""
        for key, value in (await self._do("HGETALL", _ALERTS)).items():
            await self._do("HSET", _ALERTS, key, _told(value))
        cursor = "0"
        while True:
            cursor, keys = await self._do("SCAN", cursor, "MATCH", f"{_RESOLVED}*", "COUNT", 500)
            for key in keys:
                if (value := await self._do("GET", key)) is not None:
                    await self._do("SET", key, _told(value), "KEEPTTL")
            if cursor in {0, "0"}:
                break
        await self._do("SET", _SCHEMA, SCHEMA)

    async def _do(self, *command: str | bytes | float) -> Any:
        """One command and its answer."""
        async with _in_time():
            return await self._redis.execute_command(*command)

    async def _raw(self, *command: str | float) -> Any:
        """One command whose answer is bytes and no text."""
        async with _in_time():
            return await self._redis.execute_command(*command, NEVER_DECODE=True)

    async def _fenced(self, script: str, keys: Sequence[str], *arguments: str | bytes | float) -> Any:
        """A script that changes nothing when the lease is over; raises Deposed then."""
        try:
            return await self._do("EVAL", script, len(keys) + 1, _LEADER, *keys, self.fence, *arguments)
        except ResponseError as error:
            if str(error).startswith("DEPOSED"):
                raise Deposed(str(error)) from None
            raise

    # --- the lease ---

    async def lease(self, name: str, ttl_s: float) -> str:
        """The fence of the lease if this bot has it now, for so many seconds; empty when somebody else has it."""
        return str(await self._do("EVAL", _LEASE, 2, _LEADER, _FENCE, name, int(ttl_s * 1000)) or "")

    async def clear_lease(self) -> None:
        """Nobody has the lease: for who knows that nobody else is there."""
        await self._do("DEL", _LEADER)

    async def release_lease(self, fence: str) -> None:
        """Nobody has the lease any more, if it was the one of this fence."""
        await self._do("EVAL", _UNLEASE, 1, _LEADER, fence)

    async def stand(self, standing: tuple[float, int, int]) -> None:
        """Say when the leader committed a look last, how many clusters it could read, and how many there are; raises Deposed."""
        await self._fenced(_COMMIT_ONCE, [], _text([["SET", _STANDING, _text(standing)]]))

    async def standing(self) -> tuple[float, int, int] | None:
        """What the leader said of itself last; None if nobody did."""
        found = await self._do("GET", _STANDING)
        return None if found is None else msgspec.json.decode(found, type=tuple[float, int, int])

    # --- several bots that share the clusters ---

    async def join(self, name: str, ttl_s: float, ready: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
        """Be a member for so many seconds, with the meshes that are read; all members, and by mesh those that have read it."""
        members, having = await self._do("EVAL", _JOIN, 2, _MEMBERS, _READY, name, int(ttl_s * 1000), *ready)
        found: dict[str, list[str]] = {}
        for entry in having:
            member, _, mesh = entry.partition(" ")
            found.setdefault(mesh, []).append(member)
        return list(members), found

    async def leave(self, name: str, ready: Iterable[str]) -> None:
        """Be a member no more."""
        await self._do("ZREM", _MEMBERS, name)
        if gone := [f"{name} {mesh}" for mesh in ready]:
            await self._do("ZREM", _READY, *gone)

    async def tell(self, mesh: str, name: str, report: str, ttl_s: float) -> bool:
        """Leave a bot's report about a mesh for so many seconds; False if it is no member any more."""
        keys = (_MEMBERS, f"{_REPORT}{name}:{mesh}", _REPORTS)
        return bool(await self._do("EVAL", _TELL, 3, *keys, name, int(ttl_s * 1000), report, mesh, _STREAM_KEPT))

    async def renew(self, mesh: str, name: str, ttl_s: float) -> bool:
        """A bot's last report about a mesh still holds, for so many seconds; False if it is gone."""
        return bool(await self._do("PEXPIRE", f"{_REPORT}{name}:{mesh}", int(ttl_s * 1000)))

    async def untell(self, meshes: Iterable[str], name: str) -> None:
        """A bot's reports about some meshes hold no more."""
        if keys := [f"{_REPORT}{name}:{mesh}" for mesh in meshes]:
            await self._do("DEL", *keys)

    async def reports(self, looking: Mapping[str, str]) -> dict[str, str]:
        """Of each mesh the report that holds of the bot that looks at it."""
        found = await self._do("MGET", *(f"{_REPORT}{name}:{mesh}" for mesh, name in looking.items())) if looking else []
        return {mesh: report for mesh, report in zip(looking, found, strict=True) if report is not None}

    async def news(self, name: str, wait_s: float) -> bool:
        """Whether a report is new; waits for one, `wait_s` (below 10) at most. For the one that leads."""
        found = await self._group("leader", name, [_REPORTS], wait_s)
        for _, ident, _ in found:
            await self._do("XACK", _REPORTS, "leader", ident)
        return bool(found)

    async def ask(self, mesh: str, question: str) -> None:
        """Put what somebody asks before the bots that hold a mesh."""
        await self._do("XADD", _ASKED + mesh, "MAXLEN", "~", _STREAM_KEPT, "*", "question", question)

    async def asked(self, meshes: Sequence[str], name: str, wait_s: float) -> list[tuple[str, str, str]]:
        """What was asked of these meshes and given to nobody else: mesh, id, question. A question of one who is gone is taken over."""
        keys = [_ASKED + m for m in meshes]
        found = await self._group("holders", name, keys, wait_s)
        for key in keys:
            _, late, *_ = await self._do("XAUTOCLAIM", key, "holders", name, int(_ABANDONED_S * 1000), "0", "COUNT", 10)
            found += [(key, ident, fields) for ident, fields in _entries(late)]
        return [(key.removeprefix(_ASKED), ident, fields["question"]) for key, ident, fields in found]

    async def answered(self, mesh: str, ident: str) -> None:
        """A question is answered."""
        await self._do("XACK", _ASKED + mesh, "holders", ident)
        await self._do("XDEL", _ASKED + mesh, ident)

    async def _group(self, group: str, name: str, keys: Sequence[str], wait_s: float) -> list[tuple[str, str, dict[str, str]]]:
        """The next entries of streams for a member of a consumer group: stream, id, fields; the group is made where it is not there."""
        if not keys:
            return []
        wait = int(wait_s * 1000)
        command: list[str | float] = [
            "XREADGROUP",
            "GROUP",
            group,
            name,
            "COUNT",
            50,
            "BLOCK",
            wait,
            "STREAMS",
            *keys,
            *(">" for _ in keys),
        ]
        try:
            found = await self._do(*command)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            for key in keys:
                with suppress(ResponseError):  # it is there already
                    await self._do("XGROUP", "CREATE", key, group, "0", "MKSTREAM")
            found = await self._do(*command)
        streams = found.items() if isinstance(found, dict) else found or ()
        return [(key, ident, fields) for key, entries in streams for ident, fields in _entries(entries)]

    async def ping(self) -> None:
        """Raises redis.RedisError or OSError when the store does not answer."""
        await self._do("PING")

    async def close(self) -> None:
        """Close the connections; what is stored stays."""
        await self._redis.aclose()

    # --- alerts ---

    async def alerts(self) -> dict[str, Alert]:
        """Every alert that is seen, or not known to be gone, by id."""
        stored = await self._do("HGETALL", _ALERTS)
        return {key: msgspec.json.decode(value, type=Alert) for key, value in stored.items()}

    async def resolved(self, ids: Iterable[str]) -> dict[str, Alert]:
        """Those of `ids` that are remembered as resolved."""
        keys = [_RESOLVED + i for i in ids]
        stored = await self._do("MGET", *keys) if keys else []
        found = [msgspec.json.decode(value, type=Alert) for value in stored if value is not None]
        return {alert.id: alert for alert in found}

    async def commit(
        self,
        alerts: Mapping[str, Alert | None],
        drafts: Iterable[Draft] = (),
        steps: Mapping[str, Iterable[Step]] | None = None,
        *,
        now: float,
        silences: Mapping[str, Silence | None] | None = None,
        done: str = "",
        digests: Mapping[str, float] | None = None,
        pages: Iterable[Page] = (),
        runbooks: Iterable[str] = (),
        chronicle: Mapping[str, Iterable[Line]] | None = None,
        ending: Iterable[Ending] = (),
    ) -> None:
        """Write alerts (None: forget it), what Slack should show, and thread lines by message id, as one transaction.

        With them go the `chronicle` of messages, those that are `ending`, those whose `runbooks` are to be run, `pages`, `silences` (None: it is over), `done`, the last of the deeds that made all this, and when `digests` were due. What is new is tried at once, even
        where an older try was put off: Slack is then asked once more, and has the newest state sooner.
        """
        commands: list[list[str | int | float]] = []
        for key, alert in alerts.items():
            if alert is None:
                commands.append(["HDEL", _ALERTS, key])
            elif alert.state is State.RESOLVED:
                commands += [["HDEL", _ALERTS, key], ["SET", _RESOLVED + key, _text(alert), "EX", RESOLVED_S]]
            else:
                commands += [["HSET", _ALERTS, key, _text(alert)], ["DEL", _RESOLVED + key]]
        for draft in drafts:
            key = _DRAFT + draft.id
            keep: list[str | int | float] = ["EXPIRE", key, RESOLVED_S] if draft.resolved else ["PERSIST", key]
            commands += [["HINCRBY", key, "rev", 1], ["HSET", key, "body", _text(draft)], keep, ["ZADD", _OUTBOX, "LT", now, draft.id]]
        for message, lines in (steps or {}).items():
            commands += [["RPUSH", _STEPS + message, _text(line)] for line in lines]
            commands.append(["ZADD", _OUTBOX, "LT", now, message])
        for key, silence in (silences or {}).items():
            commands.append(["HDEL", _SILENCES, key] if silence is None else ["HSET", _SILENCES, key, _text(silence)])
        for page in pages:
            key = _PAGE + page.id
            commands += [["HINCRBY", key, "rev", 1], ["HSET", key, "body", _text(page)], ["ZADD", _PAGES, "LT", now, page.id]]
            commands.append(["EXPIRE", key, RESOLVED_S] if page.state == "resolved" else ["PERSIST", key])
        commands += [["HSET", _DIGESTS, key, due] for key, due in (digests or {}).items()]
        commands += [["ZADD", _RUNBOOKS, "NX", now, message] for message in runbooks]
        for message, told in (chronicle or {}).items():
            if texts := [_text(line) for line in told]:
                key = _CHRONICLE + message
                commands += [["RPUSH", key, *texts], ["LTRIM", key, -_CHRONICLE_KEPT, -1], ["EXPIRE", key, ENDED_S]]
            if speakers := [key for key, alert in alerts.items() if alert is not None and alert.message == message]:
                commands += [["SADD", _SPOKEN + message, *speakers], ["EXPIRE", _SPOKEN + message, ENDED_S]]
        commands += [["HSET", _ENDING, end.message, _text(end)] for end in ending]
        if done:
            commands.append(["SET", _DONE, done])
        if commands:
            await self._fenced(_COMMIT_ONCE, [_COMMIT + secrets.token_hex(8)], _text(commands))
            for due in (self.committed, self.paging_due, self.relay_due, self.runbook_due, self.ending_due):
                due.set()

    async def digested(self) -> dict[str, float]:
        """When the last one of each digest was due that was sent, in seconds since the epoch."""
        return {key: float(due) for key, due in (await self._do("HGETALL", _DIGESTS)).items()}

    async def forgetful(self) -> bool:
        """Whether nothing is known here of what was told before: the store is new, or was emptied."""
        return not int(await self._do("EXISTS", _RECALLED, _ALERTS, _OUTBOX, _DONE))

    async def adopt(self, found: Iterable[Recalled]) -> None:
        """Put back what was found in Slack, with the silences that it names, and do not ask Slack again."""
        commands: list[list[str | int | float]] = []
        for one in found:
            over = all(a.state is State.RESOLVED for a in one.alerts)
            keep: list[str | int | float] = ["EX", RESOLVED_S] if over else []
            commands.append(["SET", _DELIVERY + one.message, _text(one.delivery), *keep])
            for alert in one.alerts:
                if alert.state is State.RESOLVED:
                    commands.append(["SET", _RESOLVED + alert.id, _text(alert), "EX", RESOLVED_S])
                else:
                    commands.append(["HSET", _ALERTS, alert.id, _text(alert)])
                if alert.silence is not None and alert.silence.by:  # the settings' own are theirs
                    commands.append(["HSET", _SILENCES, alert.silence.id, _text(alert.silence)])
            if one.alerts:
                commands.append(["SET", f"{_PLACE}{one.delivery.channel}:{one.delivery.ts}", one.alerts[0].id, "EX", 30 * DAY_S])
        await self._fenced(_COMMIT_ONCE, [], _text([*commands, ["SET", _RECALLED, 1]]))

    # --- what people do ---

    async def do(self, deed: Deed) -> None:
        """Put on record what a person does; whoever keeps the alerts takes it from there."""
        await self._do("XADD", _DEEDS, "MAXLEN", "~", _DEEDS_KEPT, "*", "deed", _text(deed))

    async def deeds(self, after: str, *, wait_s: float) -> list[tuple[str, Deed | None]]:
        """The deeds since one of them (its id, `0` for all), in order; waits for the next one, `wait_s` (below 10) at most.

        None stands for one that this meshwhy cannot read: a newer one wrote it.
        """
        found = await self._do("XREAD", "BLOCK", int(wait_s * 1000), "STREAMS", _DEEDS, after)
        entries = found[_DEEDS][0] if isinstance(found, dict) and found else found[0][1] if found else []
        return [(i, _deed(fields)) for i, fields in entries]

    async def done(self) -> str:
        """The id of the last deed that is part of what is committed."""
        return str(await self._do("GET", _DONE) or "0")

    async def last_deed(self) -> str:
        """The id of the last deed."""
        found = _entries(await self._do("XREVRANGE", _DEEDS, "+", "-", "COUNT", 1))
        return found[0][0] if found else "0"

    async def open_home(self, user: str) -> None:
        """A person looks at their App Home; so it is kept up to date for some days."""
        await self._do("SET", _HOME + user, 1, "EX", RESOLVED_S)

    async def has_home(self, user: str) -> bool:
        """Whether a person looked at their App Home in the last days."""
        return bool(await self._do("EXISTS", _HOME + user))

    async def silences(self) -> dict[str, Silence]:
        """Every silence that nobody ended yet, by id."""
        stored = await self._do("HGETALL", _SILENCES)
        return {key: msgspec.json.decode(value, type=Silence) for key, value in stored.items()}

    async def claim(self, what: str, by: str, for_s: float) -> str:
        """Who has it: the one who asked first, for so many seconds."""
        async with _in_time():
            return str(await self._redis.set(_CLAIM + what, by, nx=True, get=True, ex=max(int(for_s), 1)) or by)

    async def claimed(self, what: str) -> str | None:
        """Who has it; None when nobody has."""
        found = await self._do("GET", _CLAIM + what)
        return None if found is None else str(found)

    async def release(self, what: str) -> None:
        """Nobody has it any more."""
        await self._do("DEL", _CLAIM + what)

    # --- what people did ---

    async def note(self, entries: Iterable[str], now: float) -> None:
        """Put entries on the audit, all or none, and forget those that are too old or too many."""
        async with _in_time(), self._redis.pipeline(transaction=True) as pipe:
            for entry in entries:
                pipe.execute_command("XADD", _AUDIT, "MAXLEN", "~", AUDIT_KEPT, "*", "entry", entry)
            pipe.execute_command("XTRIM", _AUDIT, "MINID", "~", int((now - AUDIT_S) * 1000))
            pipe.execute_command("EXPIRE", _AUDIT, AUDIT_S)
            await pipe.execute()

    async def noted(self, before: str, count: int) -> list[tuple[str, str]]:
        """The newest entries of the audit, each with its id; only those before an id, if there is one."""
        found = await self._do("XREVRANGE", _AUDIT, f"({before}" if before else "+", "-", "COUNT", count)
        return [(i, fields["entry"] if isinstance(fields, dict) else fields[1]) for i, fields in found]

    # --- the past (bot.history) ---

    async def remember(self, mesh: str, block: int, hosts: Iterable[tuple[str, bytes, bytes]]) -> None:
        """How hosts of a mesh stand now (empty: they are gone), and what that adds to their past in a block of time. Raises Deposed."""
        of = list(hosts)
        for start in range(0, len(of), 500):
            some = of[start : start + 500]
            keys = [_STANDS + mesh, f"{_PAST_SIZE}{block} {mesh}", *(f"{_PAST}{block} {mesh} {host}" for host, _, _ in some)]
            words = (word for one in some for word in one)
            await self._fenced(_REMEMBER, keys, _PAST_KEPT_S, HOST_MOST, MESH_MOST, *words)

    async def watched(self, mesh: str, spans: bytes, objects: Iterable[bytes] = ()) -> None:
        """From when until when somebody looked at a mesh, and the objects that changed since it was said last. Raises Deposed."""
        await self._fenced(_WATCH, [_WATCHED, _TOUCHED + mesh], mesh, spans, _PAST_KEPT_S, _TOUCHED_KEPT, *objects)

    async def stands(self, mesh: str) -> dict[str, bytes]:
        """How each host of a mesh stands that anybody looked at."""
        found = await self._raw("HGETALL", _STANDS + mesh)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {host.decode(): state for host, state in pairs}

    async def spans(self) -> dict[str, bytes]:
        """Of each mesh from when until when somebody looked at it."""
        found = await self._raw("HGETALL", _WATCHED)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {mesh.decode(): spans for mesh, spans in pairs}

    async def known(self, mesh: str) -> list[str]:
        """The hosts of a mesh of which anything is kept."""
        return list(await self._do("HKEYS", _STANDS + mesh))

    async def past(self, mesh: str, host: str, blocks: Sequence[int]) -> tuple[bytes | None, list[tuple[bytes, bool]], list[bytes]]:
        """How a host stands, what was kept of it in some blocks of time and whether these are full, and the objects of its mesh that changed.

        The oldest first.
        """
        now = await self._raw("HGET", _STANDS + mesh, host)
        then = await self._raw("MGET", *(f"{_PAST}{b} {mesh} {host}" for b in blocks), *(f"{_PAST_SIZE}{b} {mesh}" for b in blocks))
        touched = await self._raw("XRANGE", _TOUCHED + mesh, "-", "+")
        kept = [
            (data or b"", len(data or b"") > HOST_MOST or int(size or 0) > MESH_MOST)
            for data, size in zip(then[: len(blocks)], then[len(blocks) :], strict=True)
        ]
        return now, kept, [fields[1] if isinstance(fields, list) else fields[b"o"] for _, fields in touched]

    # --- what the outbox reads and writes ---

    async def waiting(self) -> list[tuple[str, float]]:
        """The messages that Slack does not have as they should be, each with the time of its next try, the earliest first."""
        return [(member, float(score)) for member, score in await self._do("ZRANGE", _OUTBOX, 0, -1, "WITHSCORES")]

    async def work(self, message: str) -> Work | None:
        """What is to be done about one message; None if nothing is known of it (then it is also taken out of the outbox)."""
        async with _in_time(), self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("HGETALL", _DRAFT + message)
            pipe.execute_command("LRANGE", _STEPS + message, 0, -1)
            pipe.execute_command("GET", _DELIVERY + message)
            draft, lines, delivery = await pipe.execute()
        if not draft:
            await self._do("ZREM", _OUTBOX, message)
            return None
        return Work(
            draft=msgspec.json.decode(draft["body"], type=Draft),
            rev=int(draft["rev"]),
            steps=tuple(msgspec.json.decode(line, type=Step) for line in lines),
            delivery=msgspec.json.decode(delivery, type=Delivery) if delivery else Delivery(),
        )

    async def record(self, draft: Draft, delivery: Delivery, *, said: int = 0) -> None:
        """Remember what Slack has now, and that the first `said` waiting lines of the thread are said, as one transaction."""
        keep: list[str | int | float] = ["EX", RESOLVED_S] if draft.resolved else []
        commands: list[list[str | int | float]] = [["SET", _DELIVERY + draft.id, _text(delivery), *keep]]
        if delivery.ts:
            commands.append(["SET", f"{_PLACE}{delivery.channel}:{delivery.ts}", draft.alert, "EX", 30 * DAY_S])
        if said:
            commands.append(["LTRIM", _STEPS + draft.id, said, -1])
        await self._fenced(_COMMIT_ONCE, [], _text(commands))

    async def postpone(self, message: str, until: float, seen: Work | None = None) -> None:
        """Try a message again at `until` (seconds since the epoch), not before; at once if something was committed for it since it was `seen`."""
        last = (seen.rev, len(seen.steps)) if seen is not None else ()
        await self._do("EVAL", _POSTPONE, 3, _DRAFT + message, _STEPS + message, _OUTBOX, message, until, *last)

    async def settle(self, message: str, rev: int) -> bool:
        """Take a message out of the outbox; False if something newer than `rev` was committed meanwhile."""
        keys = (_DRAFT + message, _STEPS + message, _DELIVERY + message, _OUTBOX)
        return bool(await self._fenced(_SETTLE, keys, rev, message))

    # --- channels of incidents ---

    async def want(self, incident: Incident) -> bool:
        """Put on record that a channel is wanted; False if one is wanted already for this message."""
        new = bool(await self._do("HSETNX", _INCIDENTS, incident.message, _text(incident)))
        self.incident_due.set()
        return new

    async def incidents(self) -> list[Incident]:
        """The channels that are wanted and not there yet."""
        found = await self._do("HGETALL", _INCIDENTS)
        return [msgspec.json.decode(text, type=Incident) for _, text in sorted(found.items())]

    async def opened(
        self, incident: Incident, *, deed: Deed | None = None, drafts: Iterable[Draft] = (), steps: Sequence[Step] = (), now: float
    ) -> None:
        """A channel is wanted no more: it is there, with a deed that says so and what is said in it, or `steps` say why it is not. Raises Deposed."""
        commands: list[list[str | int | float]] = [["HDEL", _INCIDENTS, incident.message]]
        if deed is not None:
            commands.append(["XADD", _DEEDS, "MAXLEN", "~", _DEEDS_KEPT, "*", "deed", _text(deed)])
        for draft in drafts:
            key = _DRAFT + draft.id
            commands += [["HINCRBY", key, "rev", 1], ["HSET", key, "body", _text(draft)], ["EXPIRE", key, RESOLVED_S]]
            commands.append(["ZADD", _OUTBOX, "LT", now, draft.id])
        commands += [["RPUSH", _STEPS + incident.message, _text(line)] for line in steps]
        if steps:
            commands.append(["ZADD", _OUTBOX, "LT", now, incident.message])
        await self._fenced(_COMMIT_ONCE, [], _text(commands))
        self.committed.set()

    # --- what ended ---

    async def ending(self) -> list[Ending]:
        """What ended, and is still to be told of, the oldest first."""
        found: list[Ending] = []
        for text in (await self._do("HGETALL", _ENDING)).values():
            with suppress(msgspec.DecodeError):  # of a newer version of ours
                found.append(msgspec.json.decode(text, type=Ending))
        return sorted(found, key=lambda e: (e.at, e.message))

    async def chronicle(self, message: str) -> list[Line]:
        """What happened to the alerts of a message, in order."""
        return [msgspec.json.decode(text, type=Line) for text in await self._do("LRANGE", _CHRONICLE + message, 0, -1)]

    async def spoken(self, message: str) -> list[Alert]:
        """Every alert that a message ever spoke for, as far as it is remembered."""
        found = [await self.alert(key) for key in sorted(await self._do("SMEMBERS", _SPOKEN + message))]
        return [alert for alert in found if alert is not None and alert.message == message]

    async def told_of(self, ending: Ending, ended: Ended | None, now: float) -> None:
        """Remember what ended (None: it did not, or nothing is known of it any more), of which nothing more is to be told. Raises Deposed."""
        commands: list[list[str | int | float]] = [["HDEL", _ENDING, ending.message]]
        if ended is not None:
            commands.append(["XADD", _ENDED, "MAXLEN", "~", _ENDED_KEPT, "*", "ended", _text(ended)])
            commands.append(["XTRIM", _ENDED, "MINID", "~", int((now - ENDED_S) * 1000)])
            commands.append(["EXPIRE", _ENDED, ENDED_S])
        await self._fenced(_COMMIT_ONCE, [], _text(commands))

    async def ended(self, since: float) -> list[Ended]:
        """What ended since then (seconds since the epoch), each message once, as it ended last."""
        found: dict[str, Ended] = {}
        for _, fields in await self._do("XRANGE", _ENDED, int(since * 1000), "+"):
            with suppress(msgspec.DecodeError):  # of a newer version of ours
                one = msgspec.json.decode(fields["ended"] if isinstance(fields, dict) else fields[1], type=Ended)
                found[one.message] = one
        return list(found.values())

    async def drafted(self, message: str) -> Message | None:
        """How a message should stand in Slack; None if nothing is known of it."""
        body = await self._do("HGET", _DRAFT + message, "body")
        return msgspec.json.decode(body, type=Draft).message if body else None

    # --- runbooks ---

    async def runbooks(self) -> list[tuple[str, float]]:
        """The messages whose runbooks are to be run, each with the time since when, the oldest first."""
        return [(member, float(score)) for member, score in await self._do("ZRANGE", _RUNBOOKS, 0, -1, "WITHSCORES")]

    async def run_again(self, message: str, now: float) -> None:
        """The runbook of a message is to be run, once more if it was already."""
        await self._do("ZADD", _RUNBOOKS, now, message)
        self.runbook_due.set()

    async def ran(self, message: str, since: float) -> None:
        """The runbook of a message is run, as it was asked for since then and not anew meanwhile. Raises Deposed."""
        await self._fenced(_RAN, [_RUNBOOKS], message, repr(since))

    # --- what the pagers are told ---

    async def pages(self) -> list[tuple[str, float]]:
        """The pages that their pagers do not have as they should be, each with the time of its next try, the earliest first."""
        return [(member, float(score)) for member, score in await self._do("ZRANGE", _PAGES, 0, -1, "WITHSCORES")]

    async def page(self, ident: str) -> Due | None:
        """What is to be done about one page; None if nothing is known of it (then it is also taken off the list)."""
        found = await self._do("HGETALL", _PAGE + ident)
        if not found or "body" not in found:
            await self._do("ZREM", _PAGES, ident)
            return None
        return Due(
            page=msgspec.json.decode(found["body"], type=Page),
            rev=int(found["rev"]),
            has=found.get("has", ""),
            refused=found.get("refused", ""),
            attempts=int(found.get("attempts", 0)),
        )

    async def paging(self, due: Due) -> None:
        """Remember that the pager is about to be told, and may have it from now on although no answer comes. Raises Deposed."""
        await self._fenced(_COMMIT_ONCE, [], _text([["HSET", _PAGE + due.page.id, "has", due.has or "perhaps"]]))

    async def paged(self, due: Due, has: str) -> None:
        """Remember what the pager has (empty: nothing), and take it off the list unless something newer was committed meanwhile. Raises Deposed."""
        key = _PAGE + due.page.id
        await self._fenced(_PAGED, [key, _PAGES], due.rev, due.page.id, has)

    async def unpaged(self, due: Due, why: str, again: float, steps: Mapping[str, Iterable[Step]], now: float) -> None:
        """Remember why the pager does not have it, and say so in threads; it is tried at `again` (seconds since the epoch), what is new at once. Raises Deposed."""
        key = _PAGE + due.page.id
        commands: list[list[str | int | float]] = [["HSET", key, "refused", why, "attempts", due.attempts + 1]]
        for message, lines in steps.items():
            commands += [["RPUSH", _STEPS + message, _text(line)] for line in lines]
            commands.append(["ZADD", _OUTBOX, "LT", now, message])
        await self._fenced(_UNPAGED, [key, _PAGES], _text(commands), due.rev, due.page.id, again)
        self.committed.set()

    # --- what Alertmanagers are told ---

    async def where(self, messages: Iterable[str]) -> dict[str, tuple[str, str]]:
        """The channel and the ts where messages stand in Slack, of those that do."""
        idents = list(messages)
        stored = await self._do("MGET", *(_DELIVERY + i for i in idents)) if idents else []
        found = {i: msgspec.json.decode(d, type=Delivery) for i, d in zip(idents, stored, strict=True) if d is not None}
        return {i: (d.channel, d.ts) for i, d in found.items() if d.ts}

    async def relayed(self, url: str) -> dict[str, str]:
        """What an Alertmanager was told and has to be told the end of, by the alert's id."""
        return dict(await self._do("HGETALL", _RELAYED + url))

    async def relaying(self, url: str, alerts: Mapping[str, str | None]) -> None:
        """Remember what it is about to be told (None: it knows that this is over). Raises Deposed."""
        key = _RELAYED + url
        commands = [["HDEL", key, i] if text is None else ["HSET", key, i, text] for i, text in alerts.items()]
        if commands:
            await self._fenced(_COMMIT_ONCE, [], _text(commands))

    # --- what the handlers read and write ---

    async def alert_at(self, channel: str, ts: str) -> Alert | None:
        """The alert whose message stands at `ts` in a channel (its id), open or resolved."""
        key = await self._do("GET", f"{_PLACE}{channel}:{ts}")
        return None if key is None else await self.alert(key)

    async def alert(self, key: str) -> Alert | None:
        """The alert of an id, open or resolved; None if nobody remembers it."""
        stored = await self._do("HGET", _ALERTS, key) or await self._do("GET", _RESOLVED + key)
        return msgspec.json.decode(stored, type=Alert) if stored else None

    async def once(self, what: str) -> bool:
        """Whether this envelope, event or click is seen for the first time; yes as well when the store is away: better twice than never."""
        try:
            return bool(await self._do("SET", _ONCE + what, 1, "NX", "EX", ONCE_S))
        except RedisError:
            return True

    async def keep(self, key: str, message: Message) -> None:
        """Keep an answer for a day under a key that nobody can guess, so that a button can share it."""
        await self._do("SET", _ANSWER + key, _text(message), "EX", ANSWER_S)

    async def take(self, key: str) -> Message | None:
        """The answer that was kept, which is then gone, so that two clicks share it once; None if it is too old or taken."""
        stored = await self._do("GETDEL", _ANSWER + key)
        return msgspec.json.decode(stored, type=Message) if stored else None
