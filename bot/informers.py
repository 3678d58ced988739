"""List and watch one kind of one cluster: bytes in, typed changes out.

What must stay true: only GET is ever sent. Bodies stay bytes and are decoded once, page by page. A watch goes on where it stopped; nothing is
lost by a closed, silent or expired one. What cannot be read keeps its last readable state and says why; only an answer of the API server that
an object, or the whole kind, is not there makes it go.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from bot.manifests import ISTIO_CONTAINERS
from checks.mesh import Change
from checks.resources import Kind, Malformed, Pod, Resource, Workload, decode, share

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping

By = dict[str, dict[str, Resource]]  # one kind's objects by namespace and name; never changed once handed out


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how patiently an API server is asked, in seconds (and objects for `page`).

    The server is asked to end each watch after `watch_s`, which brings a bookmark shortly before; a stream that is silent for `silence_s`
    is therefore half-open. With `answer_s` for the next connection to fail, that is known within a minute.
    """

    page: int = 500
    watch_s: float = 40
    silence_s: float = 45
    answer_s: float = 12
    grace_s: float = 5  # no sign of life for so long, and the next request failed: unreadable
    backoff_s: float = 0.5
    backoff_max_s: float = 15
    forbidden_s: float = 60
    absent_s: float = 30


class Access(NamedTuple):
    """How to reach an API server now: its URL and what proves who asks. Never logged."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None


class NoAccess(Exception):
    """The credentials or the address of a cluster cannot be had; the message says why."""


class Refused(Exception):
    """The API server answered with a status other than 200."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0) -> None:
        super().__init__(f"{status}: {message}" if message else f"HTTP {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class _Silent(Exception):
    """Nothing came over an open connection for Pace.silence_s."""


_SOCKETS = (
    6  # WebSockets that are open to one API server at a time, whatever is asked: each is a connection in a pod as well, and what it brings
)
_LONGEST_S = 60.0  # what a server may ask us to wait; a mistake of its must not make us blind for a day

# What may go wrong between us and an API server, and passes by itself.
_PASSING = (Refused, NoAccess, aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, UnicodeDecodeError)


class _Status(Struct):
    message: str = ""
    code: int = 0


class _Named(Struct):
    name: str = ""


class _APIResources(Struct):
    resources: tuple[_Named, ...] = ()


class Server:
    """The API server of one cluster, as its informers ask it.

    `access` is called in the executor before every request, since credentials expire; `distrust` after credentials did not work.
    """

    def __init__(self, access: Callable[[], Access], distrust: Callable[[], None], pace: Pace) -> None:
        self.pace = pace
        self._access = access
        self._distrust = distrust
        self._session: aiohttp.ClientSession | None = None
        self._discovered: dict[str, tuple[float, frozenset[str] | Exception]] = {}
        self._discovering: dict[str, asyncio.Lock] = {}
        # A thread of its own: a credential plugin that hangs must not take the threads that other clusters need.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="credentials")
        self._reached = asyncio.Event()
        self.sockets = asyncio.Semaphore(_SOCKETS)
        """To be held while a socket is open."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.pace.answer_s, sock_read=self.pace.silence_s),
            headers={"User-Agent": "meshwhy", "Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def get(
        self, path: str, query: Mapping[str, str], *, accept: str = "application/json", patience_s: float = 0
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, str]]:
        """The open answer to one GET, and the URL of the server that gave it; raises Refused, NoAccess or an error of aiohttp.

        The answer must begin within `patience_s` (Pace.answer_s) seconds.
        """
        session = self._opened()
        patience_s = patience_s or self.pace.answer_s
        access = await self._credentials()
        request = session.get(
            access.url + path,
            params=query,
            headers={**access.headers, "Accept": accept},
            ssl=access.tls if access.tls is not None else True,
            server_hostname=access.server_name,
            proxy=access.proxy,
            allow_redirects=False,
        )
        try:
            async with asyncio.timeout(patience_s):
                response = await request
        except TimeoutError:
            self._reached.clear()
            raise TimeoutError(f"no answer within {patience_s:g} s") from None
        except aiohttp.ClientError as error:
            self._reached.clear()
            # A server that is not there says nothing about the credentials; one that breaks off the handshake may.
            if isinstance(error, aiohttp.ClientSSLError) or not isinstance(error, aiohttp.ClientConnectorError):
                self._distrust()
            raise
        self._reached.set()
        async with response:
            if response.status != 200:
                if response.status == 401:
                    self._distrust()
                raise await _refusal(response)
            yield response, access.url

    async def socket(self, path: str, query: Mapping[str, str], *, protocol: str, patience_s: float = 0) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket that speaks `protocol`, open; it begins as a GET. Raises Refused (its status alone), NoAccess or an error of aiohttp.

        The handshake must be done within `patience_s` (Pace.answer_s) seconds.
        """
        session = self._opened()
        patience_s = patience_s or self.pace.answer_s
        access = await self._credentials()
        try:
            async with asyncio.timeout(patience_s):
                return await session.ws_connect(
                    access.url + path,
                    params=query,
                    protocols=(protocol,),
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
                    headers=access.headers,
                    ssl=access.tls if access.tls is not None else True,
                    server_hostname=access.server_name,
                    proxy=access.proxy,
                )
        except TimeoutError:
            raise TimeoutError(f"no answer within {patience_s:g} s") from None
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                self._distrust()
            # What was answered is gone; a 200 or 101 here is of a server that knows no WebSockets, or not this protocol.
            raise Refused(error.status, "") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("a Server is used inside `async with`")
        if self._session.closed:
            raise NoAccess("the cluster is not followed any more")
        return self._session

    async def _credentials(self) -> Access:
        try:
            async with asyncio.timeout(self.pace.silence_s):
                return await asyncio.get_running_loop().run_in_executor(self._executor, self._access)
        except TimeoutError:
            raise NoAccess(f"the credentials did not come within {self.pace.silence_s:g} s") from None

    async def rest(self, seconds: float, *, lost: bool) -> None:
        """Sleep; who has lost the server sleeps only until somebody else has reached it again."""
        if not lost:
            return await asyncio.sleep(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._reached.wait()
        return None

    async def body(
        self, path: str, query: Mapping[str, str], *, accept: str = "application/json", patience_s: float = 0
    ) -> tuple[bytes, str]:
        """The whole answer to one GET, and the URL of the server that gave it."""
        async with self.get(path, query, accept=accept, patience_s=patience_s) as (response, url):
            return await response.read(), url

    async def path(self, kind: Kind, *, fresh: bool = False) -> str | None:
        """Where the API has a kind, in the newest version that this server serves: `/apis/networking.istio.io/v1`; None if it has none."""
        if not kind.group:
            return "/api/v1"
        for version in kind.versions:
            path = f"/apis/{kind.group}/{version}"
            if kind.plural in await self._discover(path, fresh=fresh):
                return path
        return None

    async def _discover(self, path: str, *, fresh: bool) -> frozenset[str]:
        """The plurals that one group version serves; asked once for all the kinds of a group, which share the answer or its failure."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._discovering.setdefault(path, asyncio.Lock()):
            at, outcome = self._discovered.get(path, (float("-inf"), frozenset()))
            if isinstance(outcome, Exception):
                if at >= began:
                    raise outcome
            elif loop.time() - at < (min(1.0, self.pace.absent_s / 4) if fresh else self.pace.absent_s / 2):
                return outcome
            try:
                body, _ = await self.body(path, {}, patience_s=self.pace.answer_s)
                plurals = frozenset(r.name for r in msgspec.json.decode(body, type=_APIResources).resources)
            except _PASSING as error:
                if not isinstance(error, Refused) or error.status != 404:
                    self._discovered[path] = (loop.time(), error)
                    raise
                plurals = frozenset()
            self._discovered[path] = (loop.time(), plurals)
            return plurals


async def _refusal(response: aiohttp.ClientResponse) -> Refused:
    """What the API server said, in one short line."""
    head = await response.content.read(1 << 16)
    try:
        message = msgspec.json.decode(head, type=_Status).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = ""
    wait = response.headers.get("Retry-After", "")
    return Refused(
        response.status, " ".join((message or response.reason or "").split())[:300], min(float(wait), _LONGEST_S) if wait.isdecimal() else 0
    )


# --- decoding --------------------------------------------------------------------------------------------------------------


class _ListMeta(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(Struct):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


class _EventHead(Struct):
    type: str
    object: msgspec.Raw


class _Mark(Struct):
    metadata: _ListMeta = _ListMeta()


class _Meta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Anything(Struct):
    metadata: _Meta = _Meta()


_page = msgspec.json.Decoder(_Page)
_event_head = msgspec.json.Decoder(_EventHead)
_mark = msgspec.json.Decoder(_Mark)
_anything = msgspec.json.Decoder(_Anything)
_status = msgspec.json.Decoder(_Status)

_MAX_EVENT = 64 << 20  # bytes; what etcd can hold is far less
_BULKY = "kubectl.kubernetes.io/last-applied-configuration"


class Unread(NamedTuple):
    """An object whose fields have a wrong type: where it is, and what is wrong."""

    namespace: str
    name: str
    malformed: Malformed


class Codec:
    """The decoders of one kind: a page of a list, and one event of a watch, each in one pass while every object is well."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        struct: Any = kind.struct
        page = msgspec.defstruct("Page", [("metadata", _ListMeta, _ListMeta()), ("items", tuple[struct, ...] | None, None)])
        event = msgspec.defstruct("Event", [("type", str), ("object", struct)])
        self._page: Any = msgspec.json.Decoder(page)
        self._event: Any = msgspec.json.Decoder(event)

    def page(self, body: bytes) -> tuple[list[Resource | Unread], _ListMeta]:
        """The objects of one page, and where the next one is; raises msgspec.DecodeError if it is no list."""
        try:
            typed = self._page.decode(body)
        except msgspec.ValidationError:
            raw = _page.decode(body)
            return [self._one(item) for item in raw.items or ()], raw.metadata
        return list(typed.items or ()), typed.metadata

    def event(self, line: bytes) -> tuple[str, Resource | Unread | None, str]:
        """One event: its type, the object, and the resourceVersion to go on from; raises Refused for an ERROR in the stream.

        A bookmark carries an object without most of its fields, and an error none at all: neither is decoded as the kind.
        """
        if not line.startswith((b'{"type":"BOOKMARK"', b'{"type":"ERROR"')):
            try:
                typed = self._event.decode(line)
            except msgspec.ValidationError:
                pass
            else:
                if typed.type in {"ADDED", "MODIFIED", "DELETED"}:
                    return typed.type, typed.object, typed.object.metadata.resource_version
        head = _event_head.decode(line)
        if head.type == "ERROR":
            status = _status.decode(head.object)
            raise Refused(status.code or 500, " ".join(status.message.split())[:300])
        version = _mark.decode(head.object).metadata.resource_version
        return head.type, None if head.type == "BOOKMARK" else self._one(head.object), version

    def _one(self, raw: msgspec.Raw) -> Resource | Unread:
        try:
            return decode(self.kind, raw)
        except msgspec.ValidationError as error:
            try:
                meta = _anything.decode(raw).metadata
            except msgspec.ValidationError:
                meta = _Meta()
            named = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
            return Unread(meta.namespace, meta.name, Malformed(f"{self.kind.kind} {named}", str(error)))


def _trim(read: Resource) -> None:
    """Drop what is large and never read, or private, from an object that nobody else holds yet.

    That is the copy of itself that `kubectl apply` keeps, and the environment and arguments of applications.
    """
    if read.metadata.annotations:
        read.metadata.annotations.pop(_BULKY, None)
    spec = read.spec if isinstance(read, Pod) else read.spec.template.spec if isinstance(read, Workload) else None
    if spec is not None:
        for containers in (spec.containers, spec.init_containers or ()):
            for container in containers:
                if container.name not in ISTIO_CONTAINERS:
                    force_setattr(container, "env", None)
                    force_setattr(container, "args", None)


def _alike(old: Resource, new: Resource) -> bool:
    """Whether nothing that a rule reads has changed: heartbeats, leases and statuses move only the resourceVersion."""
    if old.metadata.resource_version == new.metadata.resource_version:
        return bool(new.metadata.resource_version) or old == new
    if msgspec.structs.replace(old, metadata=old.metadata.ruling) != msgspec.structs.replace(new, metadata=new.metadata.ruling):
        return False
    # Who wrote what no rule reads is said all the same, and is no event.
    force_setattr(old.metadata, "generation", new.metadata.generation)
    force_setattr(old.metadata, "managed_fields", new.metadata.managed_fields)
    return True


def patched(objects: Mapping[str, Mapping[str, Resource]], changes: Iterable[Change]) -> Mapping[str, Mapping[str, Resource]]:
    """One kind's objects after `changes`: the namespaces that they touch are copied, the others shared, the old ones left as they were."""
    out: dict[str, Mapping[str, Resource]] = dict(objects)
    fresh: By = {}
    for change in changes:
        named = fresh.get(change.namespace)
        if named is None:
            named = fresh[change.namespace] = dict(objects.get(change.namespace, {}))
        if change.new is None:
            named.pop(change.name, None)
        else:
            named[change.name] = change.new
    for namespace, named in fresh.items():
        if named:
            out[namespace] = named
        else:
            out.pop(namespace, None)
    return out


# --- the informer ----------------------------------------------------------------------------------------------------------


class Informer:
    """One kind of one cluster, in one namespace or all (`""`), or the one object of a name.

    `changes()` moves the state; between two steps of it `objects`, `unreadable`, `malformed`, `settled` and `alive_at` belong together.
    `settled`: the first list was read, or it is known why not. `lost`: the server could not be reached, or would not know us. `absent`:
    the API has no such kind. `seen` counts the objects of the list that is being read, `alive_at` is in seconds since the epoch.
    """

    def __init__(self, kind: Kind, server: Server, *, cluster: str, namespace: str = "", name: str = "") -> None:
        self.kind = kind
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.objects: Mapping[str, Mapping[str, Resource]] = {}
        self.unreadable = ""
        self.lost = False
        self.absent = False
        self.settled = False
        self.alive_at = 0.0
        self.seen = 0
        self._server = server
        self._pace = server.pace
        self._codec = Codec(kind)
        self._malformed: dict[tuple[str, str], Malformed] = {}
        self._version = ""  # where the next watch begins; empty: list first
        self._url = ""
        self._unwatchable = False
        self._stirred = False  # the state changed since the last batch
        self._failures = 0
        self._began = 0.0
        self._alive: float | None = None
        accept = "application/json"
        self._accepts = (accept, accept)
        if kind.metadata_only:
            form = "as={};g=meta.k8s.io;v=v1"
            self._accepts = (
                f"{accept};{form.format('PartialObjectMetadataList')},{accept}",
                f"{accept};{form.format('PartialObjectMetadata')},{accept}",
            )

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        """The objects that are there and could not be read; their last readable form, if there was one, is kept."""
        return tuple(self._malformed.values())

    async def changes(self, *, once: bool = False) -> AsyncGenerator[list[Change], None]:
        """What changes, batch by batch and without end (`once`: until the first list is settled); an empty list when only the state did."""
        self._began = self._now()
        while True:
            wait = 0.0
            try:
                async for changed in self._round(once=once):
                    if changed or self._stirred:
                        self._stirred = False
                        yield changed
                wait = self._pause()
            except _Silent:
                pass  # ask again at once: if the server is there, nothing was missed
            except _PASSING as error:
                self._failures += 1
                wait = self._failed(error)
                if self._stirred:
                    self._stirred = False
                    yield []
            if once and self.settled:
                return
            await self._server.rest(wait, lost=self.lost)

    async def _round(self, *, once: bool) -> AsyncGenerator[list[Change], None]:
        """List if there is nothing to go on from, then watch until the watch ends."""
        path = await self._server.path(self.kind, fresh=self._failures > 0)
        if path is None:
            yield self._nothing()
            return
        if not self._version:
            yield await self._list(path)
        if not once:
            opened = self._now()
            async for changed in self._watch(path):
                yield changed
            # A watch that ends as soon as it has begun is asked again at the pace of a failure.
            self._failures = self._failures + 1 if self._now() - opened < self._pace.backoff_s else 0

    def _pause(self) -> float:
        """How long to rest after a round without an error."""
        if self.absent:
            return self._jitter(self._pace.absent_s)
        return self._backoff() if self._failures else 0.0

    def _failed(self, error: Exception) -> float:
        """What a failure means for the state, and how long to wait after it."""
        status = error.status if isinstance(error, Refused) else 0
        if status == 403:
            self._unwatchable = bool(self._version)
        if self._time_to_say(status):
            self._state(why(error), lost=status in {0, 401})
        if status in {403, 404, 410}:
            self._version = ""
        if status == 403:
            return self._jitter(self._pace.forbidden_s)
        if status == 410 and self._failures == 1:
            return 0.0
        return max(self._backoff(), error.retry_after_s if isinstance(error, Refused) else 0.0)

    def _time_to_say(self, status: int) -> bool:
        """A missing right and a server that never answered are said at once; what may be a hiccup, after Pace.grace_s without data."""
        if status == 403 or (status in {0, 401} and self._alive is None):
            return True
        return self._now() - (self._began if self._alive is None else self._alive) >= self._pace.grace_s

    def _state(self, unreadable: str = "", *, lost: bool = False, absent: bool = False) -> None:
        before = (self.unreadable, self.lost, self.absent, self.settled)
        self.unreadable, self.lost, self.absent, self.settled = unreadable, lost, absent, True
        self._stirred = self._stirred or before != (unreadable, lost, absent, True)

    def _nothing(self) -> list[Change]:
        """The API has no such kind: there is nothing, and that is known."""
        self._state(absent=True)
        self._failures, self._version, self._alive = 0, "", self._now()
        self._malformed.clear()
        return self._become({})

    def _sign_of_life(self) -> None:
        self._alive = self._now()
        self.alive_at = time.time()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _backoff(self) -> float:
        return self._jitter(min(self._pace.backoff_max_s, self._pace.backoff_s * 2.0 ** min(self._failures - 1, 16)))

    @staticmethod
    def _jitter(seconds: float) -> float:
        """Between half of it and all of it, so that informers that failed together do not come back together."""
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing

    def _where(self, path: str) -> str:
        return f"{path}/namespaces/{self.namespace}/{self.kind.plural}" if self.namespace else f"{path}/{self.kind.plural}"

    def _query(self, **more: str) -> dict[str, str]:
        return {**({"fieldSelector": f"metadata.name={self.name}"} if self.name else {}), **more}

    async def _list(self, path: str) -> list[Change]:
        """Read every page, and become what they hold."""
        found: By = {}
        malformed: dict[tuple[str, str], Malformed] = {}
        query = self._query(limit=str(self._pace.page))
        self.seen = 0
        while True:
            # A big list may take its time to begin.
            patience_s = self._pace.silence_s
            body, self._url = await self._server.body(self._where(path), query, accept=self._accepts[0], patience_s=patience_s)
            items, meta = self._codec.page(body)
            self._sign_of_life()
            for item in items:
                if isinstance(item, Unread):
                    malformed[item.namespace, item.name] = item.malformed
                    kept = self.objects.get(item.namespace, {}).get(item.name)
                    if kept is not None:
                        found.setdefault(item.namespace, {})[item.name] = kept
                else:
                    self._economise(item)
                    found.setdefault(item.namespace, {})[item.name] = item
            self.seen += len(items)
            if not meta.continue_:
                break
            query = self._query(limit=str(self._pace.page), **{"continue": meta.continue_})
        self._version = meta.resource_version
        self._stirred = self._stirred or malformed != self._malformed
        self._malformed = malformed
        if not self._unwatchable:  # else it would seem readable at each list, and not at the watch that follows
            self._state()
        return self._become(found)

    @staticmethod
    def _economise(item: Resource) -> None:
        """Keep only what is read, and share what the item has in common with others."""
        _trim(item)
        share(item)

    def _become(self, found: By) -> list[Change]:
        """The changes between what was known and `found`, applied."""
        changes = []
        for namespace in self.objects.keys() | found.keys():
            old, new = self.objects.get(namespace, {}), found.get(namespace, {})
            changes += [self._change(namespace, name, None) for name in old.keys() - new.keys()]
            for name, value in new.items():
                known = old.get(name)
                if known is None or not _alike(known, value):
                    changes.append(self._change(namespace, name, value))
        self.objects = patched(self.objects, changes)
        return changes

    def _change(self, namespace: str, name: str, new: Resource | None) -> Change:
        return Change(self.cluster, self.kind.struct, namespace, name, new)

    async def _watch(self, path: str) -> AsyncGenerator[list[Change], None]:
        """The changes after the last known version until the server ends the watch; first an empty list, once it is open."""
        seconds = max(1, round(self._jitter(self._pace.watch_s)))
        query = self._query(watch="1", allowWatchBookmarks="true", resourceVersion=self._version, timeoutSeconds=str(seconds))
        async with self._server.get(self._where(path), query, accept=self._accepts[1]) as (response, url):
            if url != self._url:
                self._version = ""  # another server took this one's place: its versions mean nothing here
                return
            self._sign_of_life()
            self._unwatchable = False
            self._state()
            yield []
            rest = bytearray()
            chunks = response.content.iter_any()
            while True:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except aiohttp.SocketTimeoutError:
                    raise _Silent from None
                self._sign_of_life()
                rest += chunk
                end = rest.rfind(b"\n") + 1
                if len(rest) - end > _MAX_EVENT:
                    raise aiohttp.ClientPayloadError(f"an event larger than {_MAX_EVENT >> 20} MiB")
                if end:
                    lines = bytes(rest[:end]).splitlines()
                    del rest[:end]
                    changed, error = self._follow(lines)
                    yield changed
                    if error is not None:
                        raise error
                    self._failures = 0

    def _follow(self, lines: list[bytes]) -> tuple[list[Change], Exception | None]:
        """Apply a few events: what changed, and the error that stopped it, so that what came before an error is not lost."""
        changes: dict[tuple[str, str], Change] = {}
        error: Exception | None = None
        for line in lines:
            if not line:
                continue
            try:
                type_, item, version = self._codec.event(line)
            except (Refused, msgspec.DecodeError, UnicodeDecodeError) as failed:
                error = failed
                if not isinstance(failed, Refused):
                    self._version = ""  # an event that cannot even be named may have been anything: list again
                break
            self._version = version or self._version
            if item is None:
                continue
            key = (item.namespace, item.name)
            known = changes[key].new if key in changes else self.objects.get(item.namespace, {}).get(item.name)
            if type_ != "DELETED" and isinstance(item, Unread):
                self._stirred = self._stirred or self._malformed.get(key) != item.malformed
                self._malformed[key] = item.malformed
                continue
            self._stirred = self._malformed.pop(key, None) is not None or self._stirred
            if type_ == "DELETED" or isinstance(item, Unread):
                changes.pop(key, None)  # what came and went at once was never told
                if item.name in self.objects.get(item.namespace, {}):
                    changes[key] = self._change(*key, None)
            else:
                self._economise(item)
                if known is None or not _alike(known, item):
                    changes[key] = self._change(*key, item)
        self.objects = patched(self.objects, changes.values())
        return list(changes.values()), error


def why(error: Exception) -> str:
    """One line for people; aiohttp and ssl repeat addresses and add numbers that nobody needs, but the text has no credentials."""
    text = " ".join(str(error).split())
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        text = f"{error.host}:{error.port} cannot be reached: {os.strerror(error.errno) if error.errno else error.os_error}"
    return (text or type(error).__name__)[:300]
