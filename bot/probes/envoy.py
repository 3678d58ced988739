"""Reads what one live Envoy holds, from its admin address or from saved dumps, as `checks.evidence.EnvoyView`.

What must stay true: only a whole request of `Request` is ever sent (bot.probes.admin), a few Envoys at once. An Envoy that could not be read,
or only in part, is a `Skipped` with its reason and never an empty view. Every answer is decoded straight from its bytes into the few fields
that are used.

Saved dumps are a file, a directory, or a `.tar.gz` as `istioctl bug-report` writes it. Its layout (istio/istio, tools/bug-report):
`bug-report/proxies/<namespace>/<pod>/` with `clusters` (Envoy's text form), `config_dump?include_eds` (`config_dump` in older ones),
`server_info`, `certs` and `stats/prometheus`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Struct

from bot.probes import admin, exposition
from bot.probes.admin import MAX_BYTES, TIMEOUT_S, Admin, NotRead, decoded
from bot.probes.files import File, is_archive, walk
from checks.evidence import (
    DRAINING,
    EJECTED,
    SICK,
    UNREADY,
    EnvoyView,
    LiveCertificate,
    LiveCluster,
    LiveHost,
    LiveRoutes,
    LiveRule,
    LiveVirtualHost,
    ScrapedView,
)
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

AT_ONCE = 4
"""Envoys that are read at the same time."""

OF_CLUSTER = (
    "circuit_breakers.default.cx_open",
    "circuit_breakers.default.rq_open",
    "circuit_breakers.default.rq_pending_open",
    "circuit_breakers.default.rq_retry_open",
    "init_fetch_timeout",
    "lb_healthy_panic",
    "outlier_detection.ejections_active",
    "ssl.connection_error",
    "ssl.fail_verify_cert_hash",
    "ssl.fail_verify_error",
    "ssl.fail_verify_no_cert",
    "ssl.fail_verify_san",
    "update_attempt",
    "update_empty",
    "update_failure",
    "update_rejected",
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_none_healthy",
    "upstream_cx_overflow",
    "upstream_cx_protocol_error",
    "upstream_rq_pending_overflow",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_overflow",
    "upstream_rq_timeout",
)
"""The statistics of a cluster that are asked for, where this proxy keeps them (Istio keeps few: proxyStatsMatcher)."""

OF_PROXY = (
    "cluster_manager.active_clusters",
    "cluster_manager.cds.init_fetch_timeout",
    "cluster_manager.cds.update_rejected",
    "cluster_manager.cds.update_success",
    "cluster_manager.warming_clusters",
    "control_plane.connected_state",
    "listener_manager.lds.update_rejected",
    "listener_manager.lds.update_success",
    "listener_manager.listener_create_failure",
    "listener_manager.total_listeners_warming",
    "overload.envoy.overload_actions.stop_accepting_connections.active",
    "overload.envoy.overload_actions.stop_accepting_requests.active",
    "overload.envoy.resource_monitors.fixed_heap.pressure",
    "overload.envoy.resource_monitors.global_downstream_max_connections.pressure",
    "server.days_until_first_cert_expiring",
    "server.uptime",
)
"""Those of the proxy itself."""

_OVERLOADED = r"listener\..*\.downstream_(global_cx_overflow|cx_overload_reject|cx_overflow)|http\..*\.downstream_rq_overload_close"
"""Connections and requests that this proxy refused, by listener."""


def _filter() -> str:
    """One regular expression for all of them, as a query can carry it: what a query would read otherwise is percent-encoded."""
    names = "|".join(re.escape(name) for name in OF_PROXY)
    ends = "|".join(re.escape(name) for name in OF_CLUSTER)
    return "".join(f"%{ord(c):02X}" if c in "|\\^$*()" else c for c in rf"^({names}|cluster\..*\.({ends})|{_OVERLOADED})$")


class Request(StrEnum):
    """Every request that can be sent: path and query, whole; sent one after the other, what matters most first.

    All only read. A masked dump holds no secret (of secrets their names alone) and no bootstrap, and fewer bytes.
    """

    IDENTITY = "/server_info"
    HOSTS = "/clusters?format=json"
    ROUTES = "/config_dump?mask=dynamic_route_configs,static_route_configs"
    WARMING = "/config_dump?resource=dynamic_warming_clusters&mask=version_info,last_updated,cluster.name"
    ACTIVE = (
        "/config_dump?resource=dynamic_active_clusters"
        "&mask=version_info,last_updated,error_state.details,cluster.name,cluster.common_lb_config.healthy_panic_threshold"
        ",cluster.type,cluster.cluster_type.name,cluster.alt_stat_name"
    )
    STATS = f"/stats?format=json&usedonly&filter={_filter()}"
    CERTIFICATES = "/certs"
    AWAITED = "/config_dump?resource=dynamic_warming_secrets&mask=name"


class Scrape(StrEnum):
    """Every request that is sent to where a proxy is scraped."""

    STATS = "/stats/prometheus"


SCRAPED = (15090, 15020)
"""The ports of a pod where its proxy can be scraped: Envoy's own statistics, and those merged with the agent's and the application's."""


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
        if address is not None and (address["scheme"] or not os.path.lexists(at)):
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


async def scrape(of: Admin, where: Where) -> ScrapedView:
    """What a proxy shows to scrapers; raises NotRead, also for what holds nothing of a proxy."""
    stats = dict(_unscraped(exposition.samples(await of.get(Scrape.STATS))))
    if not stats:
        raise NotRead(f"{of.name} tells nothing of an Envoy")
    return ScrapedView(where.cluster, where.namespace, where.pod, stats, time.time(), where.at)


async def read(
    wheres: Iterable[Where], *, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES, at_once: int = AT_ONCE
) -> tuple[tuple[EnvoyView, ...], tuple[Skipped, ...]]:
    """The views of the Envoys that could be read, in order, and what could not be read; a view without routes is in both.

    `timeout_s` bounds all requests to one Envoy together, `max_bytes` each answer and each saved file.
    """
    turn = asyncio.Semaphore(at_once)
    async with admin.session() as session:

        async def one(where: Where) -> tuple[EnvoyView | None, Skipped | None]:
            async with turn:
                try:
                    if where.at.startswith("http://"):
                        deadline = time.monotonic() + timeout_s
                        return await ask(Admin(session, Request, where.at, where.at, deadline, timeout_s, max_bytes), where)
                    return await asyncio.to_thread(_saved, where, max_bytes)
                except NotRead as e:
                    return None, where.skipped(e)

        answers = await asyncio.gather(*(one(where) for where in wheres))
    return tuple(view for view, _ in answers if view is not None), tuple(skip for _, skip in answers if skip is not None)


async def ask(of: Admin, where: Where) -> tuple[EnvoyView, Skipped | None]:
    """What a live Envoy holds; beside it why, when some of the configuration could not be read. Raises NotRead."""
    seen = Seen(where)
    seen.identity(await of.get(Request.IDENTITY))
    await asyncio.to_thread(seen.statuses, await of.get(Request.HOSTS))  # the only one that takes long to decode
    skipped = None
    try:
        seen.dump(_decode(_MASKED, await of.get(Request.ROUTES), Request.ROUTES).configs)
        seen.routes = seen.routes or ()  # an Envoy without routes leaves out the whole part
        seen.warming = _by_name(_decode(_RESOURCES, await of.get(Request.WARMING), Request.WARMING).configs)
        seen.active = _by_name(_decode(_RESOURCES, await of.get(Request.ACTIVE), Request.ACTIVE).configs)
        seen.statistics(await of.get(Request.STATS), "/stats")
        seen.certify(await of.get(Request.CERTIFICATES))
        seen.awaited = tuple(c.name for c in _decode(_NAMES, await of.get(Request.AWAITED), Request.AWAITED).configs)
    except NotRead as e:
        skipped = where.skipped(e, hosts=True)
    return seen.view(time.time()), skipped


# --- saved dumps -----------------------------------------------------------------------------------------------------------

ANSWER = re.compile(r"(?:clusters|config_dump|server_info|stats|certs)[^/]*(?:/prometheus)?")
_PROXY = re.compile(rf"(?:.*/)?proxies/([^/]+)/([^/]+)/({ANSWER.pattern})")


def _saved(where: Where, max_bytes: int) -> tuple[EnvoyView, Skipped | None]:
    """The view that saved answers give. Raises NotRead."""
    path = Path(where.at)
    seen = Seen(where)
    for file in _files(path, where, max_bytes):
        seen.file(file)
    return seen.saved(str(path))


def _files(path: Path, where: Where, max_bytes: int) -> Iterator[File]:
    """The saved answers of one proxy under a path: of an archive or bug-report directory those of its pod, else all."""
    there: set[str] = set()
    found = False

    def mine(name: str) -> bool:
        match = _PROXY.fullmatch(name)
        if match is not None:
            there.add(f"{match[1]}/{match[2]}")
        return match is not None and (match[1], match[2]) == (where.namespace, where.pod)

    bare = path.is_dir() and not any((root / "proxies").is_dir() for root in (path, path / "bug-report"))
    alone = not path.is_dir() and not is_archive(path)
    for file in walk(path, ANSWER.fullmatch if bare else (lambda _: True) if alone else mine, max_bytes):
        found = True
        yield file
    if not found and not bare:
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


class _Count(_Wire, frozen=True):
    name: str = ""
    value: str = "0"  # 64 bits are text in protobuf's JSON


class _HostStatus(_Wire, frozen=True):
    address: _Address
    stats: tuple[_Count, ...] = ()
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


class _Extension(_Wire, frozen=True):
    name: str = ""


class _ClusterConfig(_Wire, frozen=True):
    name: str
    common_lb_config: _CommonLb = _CommonLb()
    type: str = "STATIC"
    cluster_type: _Extension = _Extension()
    alt_stat_name: str = ""


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


class _Secret(_Wire, frozen=True):
    name: str = ""


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
    dynamic_warming_secrets: tuple[_Secret, ...] = ()


class _Dump(_Wire, frozen=True):
    configs: tuple[_Part, ...]


class _MaskedDump(_Wire, frozen=True):
    configs: tuple[_Part, ...] = ()


class _ClusterResources(_Wire, frozen=True):
    configs: tuple[_Cluster, ...] = ()


class _Names(_Wire, frozen=True):
    configs: tuple[_Secret, ...] = ()


class _Stat(_Wire, frozen=True):
    name: str = ""
    value: float | str = 0.0


class _Stats(_Wire, frozen=True):
    stats: tuple[_Stat, ...]


class _AlternativeName(_Wire, frozen=True):
    uri: str = ""
    dns: str = ""
    ip_address: str = ""


class _Held(_Wire, frozen=True):
    """One certificate; its path may be that of a file, and `<inline>` says nothing."""

    path: str = ""
    subject_alt_names: tuple[_AlternativeName, ...] = ()
    valid_from: str = ""
    expiration_time: str = ""


class _HeldTogether(_Wire, frozen=True):
    ca_cert: tuple[_Held, ...] = ()
    cert_chain: tuple[_Held, ...] = ()


class _Certificates(_Wire, frozen=True):
    certificates: tuple[_HeldTogether, ...] = ()


_T = TypeVar("_T")

_IDENTITY = msgspec.json.Decoder(_ServerInfo)
_HOSTS = msgspec.json.Decoder(_Clusters)
_RESOURCES = msgspec.json.Decoder(_ClusterResources)
_MASKED = msgspec.json.Decoder(_MaskedDump)
_DUMP = msgspec.json.Decoder(_Dump)
_NAMES = msgspec.json.Decoder(_Names)
_STATS = msgspec.json.Decoder(_Stats)
_CERTIFICATES = msgspec.json.Decoder(_Certificates)


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes | bytearray, what: str) -> _T:
    return decoded(decoder, body, what, "an Envoy")


@dataclass(slots=True)
class Seen:
    """What the answers of one Envoy said so far. None is what was not read."""

    where: Where
    hosts: dict[str, tuple[LiveHost, ...]] | None = None
    endpoints: dict[str, tuple[LiveHost, ...]] | None = None
    active: dict[str, _Cluster] | None = None
    warming: dict[str, _Cluster] = field(default_factory=dict)
    routes: tuple[LiveRoutes, ...] | None = None
    stats: dict[str, float] | None = None
    certificates: tuple[LiveCertificate, ...] | None = None
    awaited: tuple[str, ...] | None = None
    saved_at: float = 0.0
    stranger: str = ""
    """Why all this is of another Envoy than the one that was meant."""

    def file(self, file: File) -> None:
        """One saved answer, told by what it holds, since people name files as they like. Raises NotRead."""
        self.saved_at = max(self.saved_at, file.saved_at)
        name = file.name.rpartition("/")[2]
        start = file.body[:4096].lstrip()
        if name == "prometheus":
            self.scraped(file.body)
        elif not start.startswith((b"{", b"[")):
            self.text(file.body, file.name)
        elif name.startswith("server_info"):
            self.identity(file.body, file.name)
        elif name.startswith("stats"):
            self.statistics(file.body, file.name)
        elif name.startswith("certs"):
            self.certify(file.body, file.name)
        elif b'"cluster_statuses"' in start:
            self.statuses(file.body, file.name)
        else:
            self.dump(_decode(_DUMP, file.body, file.name).configs)

    def saved(self, path: str) -> tuple[EnvoyView, Skipped | None]:
        """The view that saved answers give, beside it why it is not all. Raises NotRead."""
        if self.stranger:
            raise NotRead(self.stranger)
        if self.hosts is None and self.endpoints is None:
            raise NotRead(f"{path} holds neither /clusters nor /config_dump?include_eds of an Envoy, so that no host is known")
        whole = None if self.routes is not None else self.where.skipped(f"{path} holds no routes, as a whole /config_dump does", hosts=True)
        return self.view(self.saved_at), whole

    def identity(self, body: bytes | bytearray, what: str = Request.IDENTITY) -> None:
        """Raises NotRead for the Envoy of another pod: a port-forward that was mixed up would testify against the wrong one."""
        self._must_be(_decode(_IDENTITY, body, what).node.id)

    def _must_be(self, node_id: str) -> None:
        """Istio's node ids are `type~ip~pod.namespace~domain`; another form says nothing about the pod."""
        parts = node_id.split("~")
        if len(parts) == 4 and parts[2] != self.where.proxy:
            self.stranger = f"{self.where.at} is the Envoy of {parts[2]}"
            raise NotRead(self.stranger)

    def statuses(self, body: bytes | bytearray, what: str = Request.HOSTS) -> None:
        """`/clusters?format=json`."""
        self.hosts = {
            c.name: tuple(
                _host(_address(h.address), _health(h.health_status), h.hostname, h.weight, {s.name: _number(s.value, 0) for s in h.stats})
                for h in c.host_statuses
            )
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
                _host(
                    _text_address(at),
                    _flags(said.get("health_flags", "")),
                    said.get("hostname", ""),
                    _number(said.get("weight"), 1),
                    {key: _number(said.get(key), 0) for key in _COUNTED},
                )
                for at, said in found.items()
            )
            for cluster, found in hosts.items()
        }

    def statistics(self, body: bytes | bytearray, what: str) -> None:
        """`/stats?format=json`; histograms and texts are passed over."""
        self.stats = {s.name: s.value for s in _decode(_STATS, body, what).stats if s.name and not isinstance(s.value, str)}

    def scraped(self, body: bytes | bytearray) -> None:
        """`/stats/prometheus`, where the JSON form is not there: of the statistics that are asked for, back to Envoy's names."""
        if self.stats is None:
            self.stats = dict(_unscraped(exposition.samples(body)))

    def certify(self, body: bytes | bytearray, what: str = Request.CERTIFICATES) -> None:
        """`/certs`."""
        self.certificates = tuple(
            LiveCertificate(_named(held), held.valid_from, held.expiration_time, ca)
            for together in _decode(_CERTIFICATES, body, what).certificates
            for ca, several in ((True, together.ca_cert), (False, together.cert_chain))
            for held in several
        )

    def dump(self, parts: Iterable[_Part]) -> None:
        """`/config_dump`, whole or masked: the parts that are there."""
        for part in parts:
            if part.bootstrap is not None:
                self._must_be(part.bootstrap.node.id)
            kind = part.type.rpartition(".")[2]
            if kind == "ClustersConfigDump":
                self.active = _by_name(part.dynamic_active_clusters)
                self.warming = _by_name(part.dynamic_warming_clusters)
            elif kind == "RoutesConfigDump":
                self.routes = tuple(map(_routes, (*part.static_route_configs, *part.dynamic_route_configs)))
            elif kind == "SecretsConfigDump":
                self.awaited = tuple(secret.name for secret in part.dynamic_warming_secrets)
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

    def view(self, read_at: float) -> EnvoyView:
        """Everything together. What Envoy balances over decides which clusters are there: `/clusters`, or endpoints in its stead."""
        hosts = self.hosts if self.hosts is not None else self.endpoints or {}
        clusters = {name: _cluster(name, of, None if self.active is None else self.active.get(name)) for name, of in hosts.items()}
        for name, config in self.warming.items():
            there = clusters.get(name) or LiveCluster(name, present=False, version=config.version_info, last_updated=config.last_updated)
            clusters[name] = msgspec.structs.replace(there, warming=True)
        w = self.where
        stats = None if self.stats is None else _by_cluster(self.stats, (self.active or {}).values())
        return EnvoyView(w.cluster, w.namespace, w.pod, clusters, self.routes, read_at, w.at, stats, self.certificates, self.awaited)


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
        type=config.cluster.cluster_type.name or config.cluster.type,
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


def _host(at: tuple[str, str], why: str, hostname: str, weight: int, counted: Mapping[str, int] | None = None) -> LiveHost:
    address, via = at
    host = LiveHost(address, usable=not why, reason=why, hostname=hostname, via=via, weight=weight)
    if counted is None:
        return host
    return msgspec.structs.replace(host, **{ours: counted.get(theirs, 0) for theirs, ours in _COUNTED.items()})


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


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() else otherwise


def _named(held: _Held) -> str:
    """What a certificate is called: its first alternative name, else the file that it came from."""
    return next((n.uri or n.dns or n.ip_address for n in held.subject_alt_names), held.path)


def _by_cluster(stats: Mapping[str, float], active: Iterable[_Cluster]) -> dict[str, float]:
    """The statistics with clusters by their own names.

    Istio counts under another one (alt_stat_name: the cluster's with `;` at its end, or what outboundClusterStatName makes of it). One that
    several clusters share says nothing of any of them, and stays as it is.
    """
    names: dict[str, str | None] = {}
    for c in active:
        if c.cluster.alt_stat_name:
            names[c.cluster.alt_stat_name] = None if c.cluster.alt_stat_name in names else c.cluster.name
    out = {}
    for stat, value in stats.items():
        at = _OF_CLUSTER.fullmatch(stat)
        name = at and (names.get(at[1]) or at[1].removesuffix(";"))
        out[f"cluster.{name}.{at[2]}" if at else stat] = value
    return out


def _unscraped(samples: Iterable[exposition.Sample]) -> Iterator[tuple[str, float]]:
    """Envoy's own names of what Prometheus reads of it (istio/istio, pkg/bootstrap: the tag is `cluster_name`; a plain Envoy's differs)."""
    for sample in samples:
        if (proxy := _SCRAPED_PROXY.get(sample.name)) is not None:
            yield proxy, sample.value
        elif (end := _SCRAPED_CLUSTER.get(sample.name)) is not None:
            name = sample.labels.get("cluster_name") or sample.labels.get("envoy_cluster_name")
            if name:
                yield f"cluster.{name}.{end}", sample.value


_COUNTED = {
    "cx_total": "connects",
    "cx_connect_fail": "connect_failures",
    "rq_total": "requests",
    "rq_error": "errors",
    "rq_timeout": "timeouts",
}
"""Envoy's counters of one host, and their names in LiveHost."""

_OF_CLUSTER = re.compile(rf"cluster\.(.*)\.({'|'.join(map(re.escape, OF_CLUSTER))})")
_SCRAPED_PROXY = {"envoy_" + re.sub(r"[^a-zA-Z0-9_]", "_", name): name for name in OF_PROXY}
_SCRAPED_CLUSTER = {"envoy_cluster_" + re.sub(r"[^a-zA-Z0-9_]", "_", name): name for name in OF_CLUSTER}


_SENT_TO = frozenset({"HEALTHY", "UNKNOWN", "DEGRADED"})

_TEXT = re.compile(rb"::(added_via_api|health_flags|hostname|weight|cx_total|cx_connect_fail|rq_total|rq_error|rq_timeout)::([^\n]*)")
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
