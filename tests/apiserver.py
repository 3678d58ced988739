"""A Kubernetes API server for tests: real HTTP (and TLS) on loopback, scriptable, and it remembers every request.

It answers discovery, paged lists and watches with bookmarks as a real one does (reference: what a real kube-apiserver answered), and fails on
command: 401, 403, 404, 410 (as a status and inside the stream), 429, 5xx, slow, silent, closed, gone. The key in apiserver.pem opens nothing
but this server.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml
from aiohttp import web

from checks.resources import KINDS, OPTIONAL, Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PEM = Path(__file__).with_name("apiserver.pem")
AUTHORITY = PEM.read_text(encoding="ascii").rpartition("-----BEGIN CERTIFICATE-----")
AUTHORITY_PEM = "".join(AUTHORITY[1:])
SERVED = (*KINDS, *OPTIONAL)
BY_KEY = {kind.key: kind for kind in SERVED}


class Request(NamedTuple):
    """One request as RBAC sees it; `verb` is `discovery` for what is not a resource."""

    method: str
    path: str
    group: str
    version: str
    resource: str
    namespace: str
    verb: str
    query: Mapping[str, str]
    authorization: str
    accept: str
    agent: str

    @property
    def key(self) -> str:
        """`plural.group`, as Kind.key."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(eq=False)
class _Watch:
    """One open watch: the events after `cursor` go to it until it is closed."""

    request: Request
    cursor: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    lines: list[bytes] = field(default_factory=list)
    closed: bool = False


class ApiServer:
    """One cluster. `absent` and `forbidden` hold kind keys (`virtualservices.networking.istio.io`), `served` says which versions a group has."""

    def __init__(self, *, tls: bool = False, token: str = "") -> None:
        self.tls = tls
        self.tokens = {token} if token else set()
        self.absent: set[str] = set()
        self.forbidden: dict[str, set[str]] = {}
        self.served: dict[str, tuple[str, ...]] = {}
        self.failing: dict[str, tuple[int, dict[str, str]]] = {}
        self.delay_s = 0.0
        self.delays: dict[str, float] = {}
        self._speaking = asyncio.Event()
        self._speaking.set()
        self.gone_in_band = False
        self.bookmark_at_end = True
        self.forwarded: dict[tuple[str, str, int], int | str | tuple[bytes | str, ...] | None] = {}
        """By namespace, pod and port: the port here to which it leads, what the kubelet says instead, messages of no kubelet's, after which it
        closes, or None: it never says anything."""
        self.logs: dict[tuple[str, str, str], str] = {}
        """By namespace, pod and container."""
        self.opened = self.most_opened = 0
        self.requests: list[Request] = []
        self.port = 0
        self._objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {key: {} for key in BY_KEY}
        self._events: dict[str, list[tuple[int, str, dict[str, Any]]]] = {key: [] for key in BY_KEY}
        self._continued: dict[str, tuple[list[dict[str, Any]], int]] = {}
        self._tokens = itertools.count(1)
        self._version = 100
        self._horizon = 0
        self._watches: set[_Watch] = set()
        self._runner: web.AppRunner | None = None

    # --- life

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        context = None
        if self.tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(PEM)
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Stop listening and close every connection."""
        self.close_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path, user: Mapping[str, Any] | None = None, context: str = "east") -> str:
        """Write a kubeconfig with one context for this server, and return its path."""
        if user is None:
            user = {"token": next(iter(self.tokens))} if self.tokens else {}
        cluster: dict[str, Any] = {"server": self.url}
        if self.tls:
            cluster["certificate-authority-data"] = base64.b64encode(AUTHORITY_PEM.encode()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": f"{context}-cluster", "cluster": cluster}],
            "users": [{"name": f"{context}-user", "user": dict(user)}],
            "contexts": [{"name": context, "context": {"cluster": f"{context}-cluster", "user": f"{context}-user"}}],
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(path)

    # --- content

    def put(self, *manifests: Mapping[str, Any]) -> None:
        """Create or replace objects; watches hear of it."""
        for manifest in manifests:
            kind = kind_of(manifest["apiVersion"], manifest["kind"])
            assert kind is not None, f"{manifest['kind']} is not read"
            self._version += 1
            metadata = {**manifest["metadata"], "resourceVersion": str(self._version)}
            if kind.namespaced:
                metadata.setdefault("namespace", "default")
            metadata.setdefault("creationTimestamp", "2026-09-01T10:00:00Z")
            metadata.setdefault("uid", f"uid-{metadata.get('namespace', '')}-{metadata['name']}")
            stored = {**manifest, "metadata": metadata}
            key = (metadata.get("namespace", ""), metadata["name"])
            type_ = "MODIFIED" if key in self._objects[kind.key] else "ADDED"
            self._objects[kind.key][key] = stored
            self._events[kind.key].append((self._version, type_, stored))
            self._wake(kind.key)

    def load(self, text: str) -> None:
        """Put every document of a YAML text, times as text."""
        loader = type("Loader", (yaml.CSafeLoader,), {})
        loader.yaml_implicit_resolvers = {
            first: [r for r in resolvers if not r[0].endswith("timestamp")] for first, resolvers in loader.yaml_implicit_resolvers.items()
        }
        for document in yaml.load_all(text, loader):
            self.put(*(document["items"] if document["kind"] == "List" else [document]))

    def delete(self, key: str, namespace: str, name: str) -> None:
        """Delete one object by its kind's key; watches hear of it."""
        stored = self._objects[key].pop((namespace, name))
        self._version += 1
        last = {**stored, "metadata": {**stored["metadata"], "resourceVersion": str(self._version)}}
        self._events[key].append((self._version, "DELETED", last))
        self._wake(key)

    def _wake(self, key: str) -> None:
        for watch in self._watches:
            if watch.request.key == key:
                watch.woken.set()

    # --- faults

    @property
    def silent(self) -> bool:
        """Connections are accepted and kept, and nothing is said on any of them."""
        return not self._speaking.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._speaking.clear()
        else:
            self._speaking.set()

    def compact(self) -> None:
        """Forget the past: a watch from any version so far, and a list that goes on, is answered with 410."""
        self._version += 1
        self._horizon = self._version
        self._continued.clear()

    def forbid(self, key: str, *verbs: str) -> None:
        """Take away rights on a kind (all of them unless named)."""
        self.forbidden[key] = set(verbs or ("get", "list", "watch"))

    def close_watches(self, key: str = "") -> None:
        """End the open watches as a restarting server does."""
        for watch in self._watches:
            if not key or watch.request.key == key:
                watch.closed = True
                watch.woken.set()

    def say(self, key: str, line: bytes) -> None:
        """Send a line of our own to the watches of a kind."""
        for watch in self._watches:
            if watch.request.key == key:
                watch.lines.append(line + b"\n")
                watch.woken.set()

    def bookmark(self, key: str) -> None:
        """Send a bookmark to the watches of a kind, with the version of now."""
        self.say(key, _line("BOOKMARK", _bookmark(BY_KEY[key], self._version)))

    def watching(self, key: str = "") -> list[Request]:
        """The watches that are open."""
        return [w.request for w in self._watches if not key or w.request.key == key]

    def asked(self, key: str = "", verb: str = "") -> list[Request]:
        """The requests so far, of a kind and verb."""
        return [r for r in self.requests if (not key or r.key == key) and (not verb or r.verb == verb)]

    @property
    def version(self) -> int:
        return self._version

    # --- answers

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        if self._runner is None:  # its TLS handshake ended after all others had been closed
            if http.transport is not None:
                http.transport.abort()
            return web.Response()
        request = _understood(http)
        self.requests.append(request)
        await asyncio.sleep(self.delays.get(request.key, self.delay_s))
        await self._speaking.wait()
        if self.tokens and request.authorization.partition(" ")[2] not in self.tokens:
            return _status(401, "Unauthorized")
        if request.method != "GET":
            return _status(405, f"{request.method} is not allowed in these tests")
        if request.verb == "discovery":
            return self._discover(request)
        if request.resource == "pods/portforward":
            return await self._forward(http, request)
        if request.resource == "pods/log":
            return self._log(http, request)
        kind = self._kind(request)
        if kind is None:
            return _status(404, "the server could not find the requested resource")
        if request.verb in self.forbidden.get(kind.key, ()):
            return _forbidden(request, kind.key, kind.plural, kind.group)
        if kind.key in self.failing:
            status, headers = self.failing[kind.key]
            return _status(status, "the server is not well", headers)
        return await self._watch(http, request, kind) if request.verb == "watch" else self._list(request, kind, http)

    def _versions(self, group: str) -> set[str]:
        return set(self.served.get(group) or {v for k in SERVED if k.group == group for v in k.versions})

    def _kinds(self, group: str, version: str) -> list[Kind]:
        if version not in self._versions(group):
            return []
        return [k for k in SERVED if k.group == group and version in k.versions and k.key not in self.absent]

    def _kind(self, request: Request) -> Kind | None:
        return next((k for k in self._kinds(request.group, request.version) if k.plural == request.resource), None)

    def _discover(self, request: Request) -> web.Response:
        kinds = self._kinds(request.group, request.version)
        if not kinds:
            return _status(404, "404 page not found")
        resources = [{"name": k.plural, "kind": k.kind, "namespaced": k.namespaced, "verbs": ["get", "list", "watch"]} for k in kinds]
        version = f"{request.group}/{request.version}" if request.group else request.version
        return web.json_response({"kind": "APIResourceList", "groupVersion": version, "resources": resources})

    def _chosen(self, request: Request, objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        name = re.fullmatch(r"metadata\.name=(.+)", request.query.get("fieldSelector", ""))
        return [
            o
            for o in objects
            if (not request.namespace or o["metadata"].get("namespace") == request.namespace)
            and (not name or o["metadata"]["name"] == name[1])
        ]

    def _list(self, request: Request, kind: Kind, http: web.Request) -> web.Response:
        limit = int(request.query.get("limit", "0"))
        token = request.query.get("continue", "")
        if token:
            if token not in self._continued:
                return _status(410, "The provided continue parameter is too old")
            rest, version = self._continued.pop(token)
        else:
            rest, version = self._chosen(request, [self._objects[kind.key][k] for k in sorted(self._objects[kind.key])]), self._version
        page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if rest:
            metadata["continue"] = f"token-{next(self._tokens)}"
            metadata["remainingItemCount"] = len(rest)
            self._continued[metadata["continue"]] = (rest, version)
        form, partial = _form(request, kind)
        api_version = f"{request.group}/{request.version}" if request.group else request.version
        head = {"kind": f"{form}List", "apiVersion": "meta.k8s.io/v1" if partial else api_version, "metadata": metadata}
        body = json.dumps({**head, "items": [_shown(o, kind, partial=partial) for o in page]}, separators=(",", ":")).encode()
        response = web.Response(body=body, content_type="application/json")
        if len(body) > 128 << 10 and "gzip" in http.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    def _log(self, http: web.Request, request: Request) -> web.Response:
        """The end of a container's log, as the kubelet cuts it."""
        if self.forbidden.get(request.key):
            return _forbidden(request, request.key, request.resource, "")
        pod = http.path.split("/")[6]
        text = self.logs.get((request.namespace, pod, request.query.get("container", "")))
        if text is None:
            return _status(404, f'pods "{pod}" not found')
        lines = text.splitlines(keepends=True)[-int(request.query["tailLines"]) :]
        if request.query.get("timestamps") == "true":
            lines = [f"2026-11-03T09:20:02.123456789Z {line}" for line in lines]
        return web.Response(text="".join(lines)[: int(request.query["limitBytes"])], content_type="text/plain")

    async def _forward(self, http: web.Request, request: Request) -> web.StreamResponse:
        """A kubelet's port-forward: `v4.channel.k8s.io`, one port, relayed to a port here."""
        namespace, pod = request.namespace, http.path.split("/")[6]
        if self.forbidden.get(request.key):
            return _forbidden(request, request.key, request.resource, "")
        if request.key in self.failing:
            status, headers = self.failing[request.key]
            return _status(status, "the server is not well", headers)
        number = int(request.query["ports"])
        to = self.forwarded.get((namespace, pod, number), 0)
        if to == 0:
            return _status(404, f'pods "{pod}" not found')
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(http)
        assert socket.ws_protocol == "v4.channel.k8s.io"
        self.opened += 1
        self.most_opened = max(self.most_opened, self.opened)
        try:
            if isinstance(to, tuple):
                for message in to:
                    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                return socket
            for channel in (0, 1):
                await socket.send_bytes(bytes((channel, number & 255, number >> 8)))
            if isinstance(to, int):
                await self._relay(socket, to)
            elif to is not None:
                await socket.send_bytes(b"\x01" + to.encode())
            else:
                await asyncio.sleep(60)
        finally:
            self.opened -= 1
            await socket.close()
        return socket

    @staticmethod
    async def _relay(socket: web.WebSocketResponse, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await reader.read(32 << 10):
                await socket.send_bytes(b"\x00" + data)
            await socket.close()

        returning = asyncio.create_task(back())
        try:
            async for message in socket:
                assert message.data[0] == 0, "only data is written to"
                writer.write(message.data[1:])
        finally:
            returning.cancel()
            writer.close()

    async def _watch(self, http: web.Request, request: Request, kind: Kind) -> web.StreamResponse:
        cursor = int(request.query["resourceVersion"])
        old = cursor < self._horizon
        if old and not self.gone_in_band:
            return _status(410, f"too old resource version: {cursor} ({self._horizon})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(http)
        watch = _Watch(request, cursor)
        self._watches.add(watch)
        try:
            if old:
                said = {
                    "kind": "Status",
                    "status": "Failure",
                    "message": f"too old resource version: {cursor}",
                    "reason": "Expired",
                    "code": 410,
                }
                await response.write(_line("ERROR", said))
                return response
            with suppress(TimeoutError):
                async with asyncio.timeout(float(request.query.get("timeoutSeconds", "300"))):
                    await self._stream(response, watch, kind)
            if not watch.closed and self.bookmark_at_end:
                await response.write(_line("BOOKMARK", _bookmark(kind, self._version)))
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._watches.discard(watch)
        return response

    async def _stream(self, response: web.StreamResponse, watch: _Watch, kind: Kind) -> None:
        _, partial = _form(watch.request, kind)
        while not watch.closed:
            await self._speaking.wait()
            out = []
            for version, type_, stored in self._events[kind.key]:
                if version > watch.cursor and self._chosen(watch.request, [stored]):
                    out.append(_line(type_, {**_shown(stored, kind, partial=partial)}))
            watch.cursor = self._version
            out += watch.lines
            watch.lines = []
            if out:
                await response.write(b"".join(out))
            watch.woken.clear()
            if not watch.lines:
                await watch.woken.wait()


def _understood(http: web.Request) -> Request:
    parts = [p for p in http.path.split("/") if p]
    group, version, rest = "", "", parts
    if parts[:1] == ["api"]:
        version, rest = (parts[1] if len(parts) > 1 else ""), parts[2:]
    elif parts[:1] == ["apis"]:
        group, version, rest = (parts[1] if len(parts) > 1 else ""), (parts[2] if len(parts) > 2 else ""), parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    verb = "discovery"
    if len(rest) > 2:  # of an object: as RBAC calls it
        rest = [f"{rest[0]}/{rest[2]}", rest[1]]
    if rest:
        verb = "watch" if http.query.get("watch") in {"1", "true"} else "get" if len(rest) > 1 else "list"
    headers = http.headers
    return Request(
        method=http.method,
        path=http.path,
        group=group,
        version=version,
        resource=rest[0] if rest else "",
        namespace=namespace,
        verb=verb,
        query=dict(http.query),
        authorization=headers.get("Authorization", ""),
        accept=headers.get("Accept", ""),
        agent=headers.get("User-Agent", ""),
    )


def _form(request: Request, kind: Kind) -> tuple[str, bool]:
    partial = "as=PartialObjectMetadata" in request.accept
    return ("PartialObjectMetadata" if partial else kind.kind), partial


def _shown(stored: Mapping[str, Any], kind: Kind, *, partial: bool) -> dict[str, Any]:
    if partial:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": stored["metadata"]}
    if not kind.group or kind.group in {"apps", "discovery.k8s.io"}:  # items of built-in lists carry no head
        return {k: v for k, v in stored.items() if k not in {"apiVersion", "kind"}}
    return dict(stored)


def _bookmark(kind: Kind, version: int) -> dict[str, Any]:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    # As a real server sends it for built-in kinds: required fields are null.
    return {"kind": kind.kind, "apiVersion": kind.versions[0], "metadata": metadata, "spec": {"containers": None}, "status": {}}


def _forbidden(request: Request, key: str, plural: str, group: str) -> web.Response:
    where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    user = "system:serviceaccount:ops:meshwhy"
    return _status(403, f'{key} is forbidden: User "{user}" cannot {request.verb} resource "{plural}" in API group "{group}" {where}')


def _line(type_: str, stored: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": type_, "object": stored}, separators=(",", ":")).encode() + b"\n"


def _status(code: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something is so; fails with what was waited for."""
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so after {seconds:g} s: {true()!r}")
