"""Reads what one live Envoy holds, from its admin address or from saved dumps, as `checks.evidence.EnvoyView`.

What must stay true: only a whole request of `Request` is ever sent, always by GET, without redirects, bounded in time and bytes, a few Envoys
at once. An Envoy that could not be read, or only in part, is a `Skipped` with its reason and never an empty view. Every answer is decoded
straight from its bytes into the few fields that are used.

Saved dumps are a file, a directory, or a `.tar.gz` as `istioctl bug-report` writes it. Its layout (istio/istio, tools/bug-report):
`bug-report/proxies/<namespace>/<pod>/` with `clusters` (Envoy's text form), `config_dump?include_eds` (`config_dump` in older ones) and
`server_info`.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tarfile
import time
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from checks.evidence import DRAINING, EJECTED, SICK, UNREADY, EnvoyView, LiveCluster, LiveHost, LiveRoutes, LiveRule, LiveVirtualHost
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TIMEOUT_S = 2.0
"""For all requests to one Envoy together."""

MAX_BYTES = 64 << 20
"""Of one answer or one saved file: 5,000 clusters take some 20 MB."""

AT_ONCE = 4
"""Envoys that are read at the same time."""

_MAX_ARCHIVE_BYTES = 4 << 30
"""Unpacked, of a whole archive: a bug-report holds logs too, which are passed over; a bomb is not read to its end."""


class Request(StrEnum):
    """Every request that can be sent: path and query, whole; sent one after the other, what matters most first.

    All only read. A masked dump holds no secret and no bootstrap, and fewer bytes.
    """

    IDENTITY = "/server_info"
    HOSTS = "/clusters?format=json"
    ROUTES = "/config_dump?mask=dynamic_route_configs,static_route_configs"
    WARMING = "/config_dump?resource=dynamic_warming_clusters&mask=version_info,last_updated,cluster.name"
    ACTIVE = (
        "/config_dump?resource=dynamic_active_clusters"
        "&mask=version_info,last_updated,error_state.details,cluster.name,cluster.common_lb_config.healthy_panic_threshold"
    )


class NotRead(Exception):
    """Why an Envoy could not be read: what comes after the colon of a sentence that says so."""


_WHERE = re.compile(r"(?:(?P<cluster>[^:/=]+):)?(?P<namespace>[a-z0-9-]+)/(?P<pod>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)=(?P<at>.+)", re.DOTALL)
_ADDRESS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)?(?P<authority>(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})/?")


class Where(NamedTuple):
    """Which proxy, and where it can be read: `http://host:port` of its admin, or the path of its saved dumps."""

    cluster: str
    namespace: str
    pod: str
    at: str

    @classmethod
    def parse(cls, text: str, *, cluster: str = "") -> Self:
        """`[CLUSTER:]NS/POD=ADDRESS_OR_PATH`; `cluster` is the one meant when the text names none. Raises ValueError with one sentence."""
        match = _WHERE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not [CLUSTER:]NAMESPACE/POD=ADDRESS_OR_PATH, as shop/web-7f=http://127.0.0.1:15000")
        at = match["at"]
        address = _ADDRESS.fullmatch(at)
        if address is not None and (address["scheme"] or not Path(at).exists()):
            if address["scheme"] not in {None, "http://"}:
                raise ValueError(f"{at!r} is no address of an Envoy's admin: it speaks plain http, as http://127.0.0.1:15000")
            at = f"http://{address['authority']}"
        elif "://" in at:
            raise ValueError(f"{at!r} is no address of an Envoy's admin: give scheme, host and port only, as http://127.0.0.1:15000")
        return cls(match["cluster"] or cluster, match["namespace"], match["pod"], at)

    @property
    def proxy(self) -> str:
        """As istioctl names it: `web-7f.shop`."""
        return f"{self.pod}.{self.namespace}"

    def skipped(self, reason: object, *, hosts: bool = False) -> Skipped:
        """That this Envoy was not read, or (`hosts`) its hosts and not all of its configuration."""
        part = "read in part, its hosts but not all of its configuration" if hosts else "not read"
        return Skipped("envoy", self.cluster, f"Envoy {self.proxy} was {part}: {reason}")


async def read(
    wheres: Iterable[Where], *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES, at_once: int = AT_ONCE
) -> tuple[tuple[EnvoyView, ...], tuple[Skipped, ...]]:
    """The views of the Envoys that could be read, in order, and what could not be read; a view without routes is in both.

    `timeout_s` bounds all requests to one Envoy together, `max_bytes` each answer and each saved file.
    """
    turn = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(
        auto_decompress=False,  # a bound on bytes must be one on what is decoded
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None),  # `_Admin` has one deadline for all its requests
    ) as session:

        async def one(where: Where) -> tuple[EnvoyView | None, Skipped | None]:
            async with turn:
                try:
                    if where.at.startswith("http://"):
                        return await _Admin(session, where, time.monotonic() + timeout_s, timeout_s, max_bytes).view()
                    return await asyncio.to_thread(_saved, where, max_bytes)
                except NotRead as e:
                    return None, where.skipped(e)

        answers = await asyncio.gather(*(one(where) for where in wheres))
    return tuple(view for view, _ in answers if view is not None), tuple(skip for _, skip in answers if skip is not None)


@dataclass(frozen=True, slots=True)
class _Admin:
    """One live Envoy and the bounds within which it must have answered everything."""

    session: aiohttp.ClientSession
    where: Where
    deadline: float
    timeout_s: float
    max_bytes: int

    async def view(self) -> tuple[EnvoyView, Skipped | None]:
        """What it holds; beside it why, when some of the configuration could not be read."""
        seen = _Seen()
        seen.identity(await self.get(Request.IDENTITY), self.where)
        await asyncio.to_thread(seen.statuses, await self.get(Request.HOSTS))  # the only one that takes long to decode
        skipped = None
        try:
            seen.dump(_decode(_MASKED, await self.get(Request.ROUTES), Request.ROUTES).configs, self.where)
            seen.routes = seen.routes or ()  # an Envoy without routes leaves out the whole part
            seen.warming = _by_name(_decode(_RESOURCES, await self.get(Request.WARMING), Request.WARMING).configs)
            seen.active = _by_name(_decode(_RESOURCES, await self.get(Request.ACTIVE), Request.ACTIVE).configs)
        except NotRead as e:
            skipped = self.where.skipped(e, hosts=True)
        return seen.view(self.where, time.time(), self.where.at), skipped

    async def get(self, request: Request) -> bytearray:
        """The body of a 200. Raises NotRead; ValueError, and sends nothing, for anything but a whole Request."""
        url = URL(f"{self.where.at}{Request(request)}", encoded=True)
        if url.raw_path_qs != request:
            raise ValueError(f"{self.where.at!r} is more than scheme, host and port")
        try:
            async with (
                asyncio.timeout(max(0.0, self.deadline - time.monotonic())),
                self.session.get(url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise NotRead(f"{self.where.at} answers {response.status} to GET {request}, an Envoy's admin 200")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > self.max_bytes:
                        raise NotRead(f"its answer to GET {request} is longer than {self.max_bytes >> 20} MB")
                return body
        except TimeoutError:
            raise NotRead(f"{self.where.at} did not answer GET {request} within {self.timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as e:
            raise NotRead(
                f"no connection to {self.where.at} ({os.strerror(e.os_error.errno) if e.os_error.errno else e.os_error})"
            ) from None
        except aiohttp.ClientError as e:
            raise NotRead(f"the answer of {self.where.at} to GET {request} broke off ({type(e).__name__})") from None


# --- saved dumps -----------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    """One saved answer: its name, when it was saved, its bytes."""

    name: str
    saved_at: float
    body: bytes


_ANSWER = re.compile(r"(?:clusters|config_dump|server_info)[^/]*")


def _saved(where: Where, max_bytes: int) -> tuple[EnvoyView, Skipped | None]:
    """The view that saved answers give. Raises NotRead."""
    path = Path(where.at)
    seen = _Seen()
    saved_at = 0.0
    try:
        for file in _files(path, where, max_bytes):
            seen.file(file, where)
            saved_at = max(saved_at, file.saved_at)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as e:
        raise NotRead(f"{path} cannot be read ({getattr(e, 'strerror', None) or e})") from None
    if seen.hosts is None and seen.endpoints is None:
        raise NotRead(f"{path} holds neither /clusters nor /config_dump?include_eds of an Envoy, so that no host is known")
    view = seen.view(where, saved_at, where.at)
    return view, None if view.routes is not None else where.skipped(f"{path} holds no routes, as a whole /config_dump does", hosts=True)


def _files(path: Path, where: Where, max_bytes: int) -> Iterator[_File]:
    """The saved answers of one proxy under a path: of an archive or bug-report directory those of its pod, else all."""
    if path.is_dir():
        folders = [folder for root in (path, path / "bug-report") if (folder := root / "proxies" / where.namespace / where.pod).is_dir()]
        if not folders and any((root / "proxies").is_dir() for root in (path, path / "bug-report")):
            there = {f"{p.parent.name}/{p.name}" for root in (path, path / "bug-report") for p in root.glob("proxies/*/*")}
            raise NotRead(_absent(where, path, there))
        for file in sorted((folders or [path])[0].iterdir()):
            if _ANSWER.fullmatch(file.name) and file.is_file():
                yield _file(file, max_bytes)
    elif path.is_file() and tarfile.is_tarfile(path):
        yield from _archived(path, where, max_bytes)
    else:
        yield _file(path, max_bytes)


def _file(path: Path, max_bytes: int) -> _File:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise NotRead(f"{path} is no file")
    if found.st_size > max_bytes:
        raise NotRead(f"{path} is longer than {max_bytes >> 20} MB")
    return _File(path.name, found.st_mtime, path.read_bytes())


def _archived(path: Path, where: Where, max_bytes: int) -> Iterator[_File]:
    """The answers of one pod in an archive, which is read once and never unpacked to disk."""
    wanted = re.compile(rf"(?:.*/)?proxies/{re.escape(where.namespace)}/{re.escape(where.pod)}/({_ANSWER.pattern})")
    there: set[str] = set()
    found = False
    unpacked = 0
    with tarfile.open(path, mode="r|*") as archive:
        for member in archive:
            unpacked += member.size
            if unpacked > _MAX_ARCHIVE_BYTES:
                raise NotRead(f"{path} unpacks to more than {_MAX_ARCHIVE_BYTES >> 30} GB")
            folders = member.name.split("/")
            if "proxies" in folders[:-3]:
                there.add("/".join(folders[-3:-1]))
            match = wanted.fullmatch(member.name)
            if match is None or not member.isreg():
                continue
            if member.size > max_bytes:
                raise NotRead(f"{member.name} in {path} is longer than {max_bytes >> 20} MB")
            body = archive.extractfile(member)
            if body is not None:
                found = True
                yield _File(match[1], member.mtime, body.read())
    if not found:
        raise NotRead(_absent(where, path, there))


def _absent(where: Where, path: Path, there: Iterable[str]) -> str:
    pods = sorted(there)
    has = f"it has {', '.join(pods[:5])}{f' and {len(pods) - 5} more' if len(pods) > 5 else ''}" if pods else "it has no proxy at all"
    return f"{path} has no answers under proxies/{where.namespace}/{where.pod}; {has}"


# --- from bytes to evidence ------------------------------------------------------------------------------------------------


class _Wire(Struct, frozen=True, gc=False):
    """Envoy's JSON (envoy.admin.v3): protobuf leaves out false, zero and empty; what is not named here is passed over."""


class _SocketAddress(_Wire, frozen=True):
    address: str
    port_value: int = 0


class _InternalAddress(_Wire, frozen=True):
    server_listener_name: str = ""
    endpoint_id: str = ""


class _Pipe(_Wire, frozen=True):
    path: str = ""


class _Address(_Wire, frozen=True):
    socket_address: _SocketAddress | None = None
    envoy_internal_address: _InternalAddress | None = None
    pipe: _Pipe | None = None


class _Health(_Wire, frozen=True):
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    pending_active_hc: bool = False
    excluded_via_immediate_hc_fail: bool = False
    active_hc_timeout: bool = False
    eds_health_status: str = "UNKNOWN"


class _HostStatus(_Wire, frozen=True):
    address: _Address
    health_status: _Health = _Health()
    hostname: str = ""
    weight: int = 0


class _ClusterStatus(_Wire, frozen=True):
    name: str
    host_statuses: tuple[_HostStatus, ...] = ()


class _Clusters(_Wire, frozen=True):
    cluster_statuses: tuple[_ClusterStatus, ...]


class _Node(_Wire, frozen=True):
    id: str = ""


class _ServerInfo(_Wire, frozen=True):
    version: str
    node: _Node = _Node()


class _Percent(_Wire, frozen=True):
    value: float = 0.0


class _CommonLb(_Wire, frozen=True):
    healthy_panic_threshold: _Percent | None = None


class _ClusterConfig(_Wire, frozen=True):
    name: str
    common_lb_config: _CommonLb = _CommonLb()


class _UpdateFailure(_Wire, frozen=True):
    details: str = ""


class _Dynamic(_Wire, frozen=True):
    version_info: str = ""
    last_updated: str = ""
    error_state: _UpdateFailure = _UpdateFailure()


class _Cluster(_Dynamic, frozen=True, kw_only=True):
    cluster: _ClusterConfig


class _WeightedCluster(_Wire, frozen=True):
    name: str = ""
    weight: int = 0


class _WeightedClusters(_Wire, frozen=True):
    clusters: tuple[_WeightedCluster, ...] = ()


class _Action(_Wire, frozen=True):
    cluster: str = ""
    weighted_clusters: _WeightedClusters = _WeightedClusters()


class _Rule(_Wire, frozen=True):
    name: str = ""
    route: _Action = _Action()


class _VirtualHost(_Wire, frozen=True):
    name: str = ""
    domains: tuple[str, ...] = ()
    routes: tuple[_Rule, ...] = ()


class _RouteConfig(_Wire, frozen=True):
    name: str = ""
    virtual_hosts: tuple[_VirtualHost, ...] = ()


class _Routes(_Dynamic, frozen=True, kw_only=True):
    route_config: _RouteConfig


class _Endpoint(_Wire, frozen=True):
    address: _Address = _Address()
    hostname: str = ""


class _LbEndpoint(_Wire, frozen=True):
    endpoint: _Endpoint = _Endpoint()
    health_status: str = "UNKNOWN"
    load_balancing_weight: int = 1


class _Locality(_Wire, frozen=True):
    lb_endpoints: tuple[_LbEndpoint, ...] = ()


class _LoadAssignment(_Wire, frozen=True):
    cluster_name: str = ""
    endpoints: tuple[_Locality, ...] = ()


class _Endpoints(_Wire, frozen=True):
    endpoint_config: _LoadAssignment


class _Bootstrap(_Wire, frozen=True):
    node: _Node = _Node()


class _Part(_Wire, frozen=True):
    """One message of a dump: the parts of all kinds in one struct, since a kind that Envoy adds must not stop the others."""

    type: str = msgspec.field(name="@type")
    bootstrap: _Bootstrap | None = None
    dynamic_active_clusters: tuple[_Cluster, ...] = ()
    dynamic_warming_clusters: tuple[_Cluster, ...] = ()
    static_route_configs: tuple[_Routes, ...] = ()
    dynamic_route_configs: tuple[_Routes, ...] = ()
    static_endpoint_configs: tuple[_Endpoints, ...] = ()
    dynamic_endpoint_configs: tuple[_Endpoints, ...] = ()


class _Dump(_Wire, frozen=True):
    configs: tuple[_Part, ...]


class _MaskedDump(_Wire, frozen=True):
    configs: tuple[_Part, ...] = ()


class _ClusterResources(_Wire, frozen=True):
    configs: tuple[_Cluster, ...] = ()


_T = TypeVar("_T")

_IDENTITY = msgspec.json.Decoder(_ServerInfo)
_HOSTS = msgspec.json.Decoder(_Clusters)
_RESOURCES = msgspec.json.Decoder(_ClusterResources)
_MASKED = msgspec.json.Decoder(_MaskedDump)
_DUMP = msgspec.json.Decoder(_Dump)


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes | bytearray, what: str) -> _T:
    """Raises NotRead for half a JSON, no JSON, or one that Envoy would not have written."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise NotRead(f"{what} is not what an Envoy answers ({e})") from None


@dataclass(slots=True)
class _Seen:
    """What the answers of one Envoy said so far. None is what was not read."""

    hosts: dict[str, tuple[LiveHost, ...]] | None = None
    endpoints: dict[str, tuple[LiveHost, ...]] | None = None
    active: dict[str, _Cluster] | None = None
    warming: dict[str, _Cluster] = field(default_factory=dict)
    routes: tuple[LiveRoutes, ...] | None = None

    def file(self, file: _File, where: Where) -> None:
        """One saved answer, told by what it holds, since people name files as they like."""
        start = file.body[:4096].lstrip()
        if not start.startswith((b"{", b"[")):
            self.text(file.body, file.name)
        elif file.name.startswith("server_info"):
            self.identity(file.body, where, file.name)
        elif b'"cluster_statuses"' in start:
            self.statuses(file.body, file.name)
        else:
            self.dump(_decode(_DUMP, file.body, file.name).configs, where)

    @staticmethod
    def identity(body: bytes | bytearray, where: Where, what: str = Request.IDENTITY) -> None:
        """Raises NotRead for the Envoy of another pod: a port-forward that was mixed up would testify against the wrong one."""
        _is_the_one(_decode(_IDENTITY, body, what).node.id, where)

    def statuses(self, body: bytes | bytearray, what: str = Request.HOSTS) -> None:
        """`/clusters?format=json`."""
        self.hosts = {
            c.name: tuple(_host(_address(h.address), _health(h.health_status), h.hostname, h.weight) for h in c.host_statuses)
            for c in _decode(_HOSTS, body, what).cluster_statuses
        }

    def text(self, body: bytes | bytearray, what: str) -> None:
        """`/clusters`, the text form that bug-report keeps: `cluster::host::key::value`, where an IPv6 host holds `::` itself.

        A cluster's own lines come first and end with `added_via_api`; so its name is known before its hosts are read. The JSON form, where
        both were saved, says more.
        """
        if self.hosts is not None:
            return
        hosts: dict[str, dict[str, dict[str, str]]] = {}
        name = ""
        for line in _TEXT.finditer(body):
            of = body[body.rfind(b"\n", 0, line.start()) + 1 : line.start()].decode(errors="replace")
            key, value = line[1].decode(), line[2].decode(errors="replace")
            if key == "added_via_api":
                name = of
                hosts[name] = {}
            elif name and of.startswith(f"{name}::"):
                hosts[name].setdefault(of[len(name) + 2 :], {})[key] = value
        if not hosts:
            raise NotRead(f"{what} is not what an Envoy answers to /clusters")
        self.hosts = {
            cluster: tuple(
                _host(_text_address(at), _flags(said.get("health_flags", "")), said.get("hostname", ""), _number(said.get("weight")))
                for at, said in found.items()
            )
            for cluster, found in hosts.items()
        }

    def dump(self, parts: Iterable[_Part], where: Where) -> None:
        """`/config_dump`, whole or masked: the parts that are there."""
        for part in parts:
            if part.bootstrap is not None:
                _is_the_one(part.bootstrap.node.id, where)
            kind = part.type.rpartition(".")[2]
            if kind == "ClustersConfigDump":
                self.active = _by_name(part.dynamic_active_clusters)
                self.warming = _by_name(part.dynamic_warming_clusters)
            elif kind == "RoutesConfigDump":
                self.routes = tuple(map(_routes, (*part.static_route_configs, *part.dynamic_route_configs)))
            elif kind == "EndpointsConfigDump":
                self.endpoints = {
                    c.endpoint_config.cluster_name: tuple(
                        _host(
                            _address(e.endpoint.address),
                            "" if e.health_status in _SENT_TO else _UNTOLD,
                            e.endpoint.hostname,
                            e.load_balancing_weight,
                        )
                        for locality in c.endpoint_config.endpoints
                        for e in locality.lb_endpoints
                    )
                    for c in (*part.static_endpoint_configs, *part.dynamic_endpoint_configs)
                }

    def view(self, where: Where, read_at: float, source: str) -> EnvoyView:
        """Everything together. What Envoy balances over decides which clusters are there: `/clusters`, or endpoints in its stead."""
        hosts = self.hosts if self.hosts is not None else self.endpoints or {}
        clusters = {name: _cluster(name, of, None if self.active is None else self.active.get(name)) for name, of in hosts.items()}
        for name, config in self.warming.items():
            there = clusters.get(name) or LiveCluster(name, present=False, version=config.version_info, last_updated=config.last_updated)
            clusters[name] = msgspec.structs.replace(there, warming=True)
        return EnvoyView(where.cluster, where.namespace, where.pod, clusters, self.routes, read_at, source)


def _is_the_one(node_id: str, where: Where) -> None:
    """Istio's node ids are `type~ip~pod.namespace~domain`; another form says nothing about the pod."""
    parts = node_id.split("~")
    if len(parts) == 4 and parts[2] != where.proxy:
        raise NotRead(f"{where.at} is the Envoy of {parts[2]}")


def _by_name(clusters: Iterable[_Cluster]) -> dict[str, _Cluster]:
    return {c.cluster.name: c for c in clusters}


def _cluster(name: str, hosts: tuple[LiveHost, ...], config: _Cluster | None) -> LiveCluster:
    if config is None:
        return LiveCluster(name, hosts)
    threshold = config.cluster.common_lb_config.healthy_panic_threshold
    return LiveCluster(
        name,
        hosts,
        version=config.version_info,
        last_updated=config.last_updated,
        refused=config.error_state.details,
        panic_threshold=50.0 if threshold is None else threshold.value,  # Envoy's own default
    )


def _routes(config: _Routes) -> LiveRoutes:
    return LiveRoutes(
        config.route_config.name,
        tuple(
            LiveVirtualHost(v.name, v.domains, tuple(LiveRule(_shares(rule.route), rule.name) for rule in v.routes))
            for v in config.route_config.virtual_hosts
        ),
        config.version_info,
        config.last_updated,
        config.error_state.details,
    )


def _shares(action: _Action) -> tuple[tuple[str, float], ...]:
    if action.cluster:
        return ((action.cluster, 1.0),)
    weighted = action.weighted_clusters.clusters
    total = sum(c.weight for c in weighted)
    return tuple((c.name, c.weight / total) for c in weighted) if total else ()


def _host(at: tuple[str, str], why: str, hostname: str, weight: int) -> LiveHost:
    address, via = at
    return LiveHost(address, usable=not why, reason=why, hostname=hostname, via=via, weight=weight)


def _address(address: _Address) -> tuple[str, str]:
    """The address, and the internal listener in front of it: an HBONE host's endpoint id is the address that it stands for."""
    if (socket := address.socket_address) is not None:
        return (f"[{socket.address}]" if ":" in socket.address else socket.address) + f":{socket.port_value}", ""
    if (internal := address.envoy_internal_address) is not None:
        listener = internal.server_listener_name
        return (internal.endpoint_id, listener) if internal.endpoint_id else (f"envoy://{listener}/", listener)
    return (address.pipe.path if address.pipe is not None else "", "")


def _text_address(at: str) -> tuple[str, str]:
    """The same from the text form, where an internal address is `envoy://listener/endpoint_id`."""
    listener, _, endpoint_id = at.removeprefix("envoy://").partition("/") if at.startswith("envoy://") else ("", "", at)
    return endpoint_id or at, listener


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 1


_SENT_TO = frozenset({"HEALTHY", "UNKNOWN", "DEGRADED"})

_TEXT = re.compile(rb"::(added_via_api|health_flags|hostname|weight)::([^\n]*)")
"""Not anchored at the line's start: five times faster, and the start is found where it is wanted."""

_UNTOLD = "is unhealthy (a dump of endpoints does not say why)"
_PENDING, _EXCLUDED, _SLOW = "waits for its first health check", "asked to be left out by its health check", "times out on its health check"

_FLAGS = {
    "failed_active_hc": SICK,
    "failed_outlier_check": EJECTED,
    "failed_eds_health": UNREADY,
    "eds_status_draining": DRAINING,
    "pending_active_hc": _PENDING,
    "excluded_via_immediate_hc_fail": _EXCLUDED,
    "active_hc_timeout": _SLOW,
}
"""Flags of the text form that keep requests away; `healthy`, the degraded ones and `pending_dynamic_removal` do not."""


def _flags(said: str) -> str:
    """Why a host is not used, from the text form: a flag that is not known keeps requests away if it says that something failed."""
    flags = said.strip("/").split("/")
    return _words(_FLAGS.get(flag, flag if flag.startswith("failed") else "") for flag in flags)


def _health(health: _Health) -> str:
    """Why a host is not used, empty when it is. EDS stays HEALTHY while a host is ejected or fails its check, so all of it counts."""
    return _words(
        (
            SICK if health.failed_active_health_check else "",
            EJECTED if health.failed_outlier_check else "",
            _eds(health.eds_health_status),
            _PENDING if health.pending_active_hc else "",
            _EXCLUDED if health.excluded_via_immediate_hc_fail else "",
            _SLOW if health.active_hc_timeout else "",
        )
    )


def _eds(status: str) -> str:
    if status in _SENT_TO:
        return ""
    return {"UNHEALTHY": UNREADY, "DRAINING": DRAINING}.get(status, f"is not ready (EDS: {status})")


def _words(reasons: Iterable[str]) -> str:
    return " and ".join(sorted(filter(None, reasons)))
