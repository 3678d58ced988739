"""Reads what one istiod replica says, from its monitoring port or from saved answers, as `checks.evidence.IstiodView`.

What must stay true: only a whole request of `Request` is ever sent (bot.probes.admin); istiod has GETs that push, clear and disconnect, and none
of them is in the list. What could not be read is None in the view and has its own `Skipped`. Endpoint shards, which are of the whole mesh, are
searched as they come and never held.

The shapes are those of istio/istio (pilot/pkg/xds/debug.go, pilot/pkg/model, pkg/cluster, pkg/xds/monitoring.go). Not seen live: an istiod needs
an API server, and none of both runs in the tests.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from bot.probes import exposition
from bot.probes.admin import NotRead, Unreached, decoded
from checks.evidence import IstiodView, LogLine, ProxySync, ShardEndpoint
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bot.probes.admin import Admin
    from bot.probes.files import File

MAX_SHARDS_BYTES = 512 << 20
"""Of the endpoints of a whole mesh, of which the asked hosts' alone are kept."""

MAX_HOST_BYTES = 32 << 20
"""Of what istiod holds of one host: some 50,000 endpoints."""

MAX_LINES = 200
"""Lines of its log that are kept, the last ones."""


OVER_S = 3.0
"""Between two readings of its metrics."""


class Request(StrEnum):
    """Every request that can be sent: path and query, whole. All only read."""

    METRICS = "/metrics"
    SYNC = "/debug/syncz"
    REMOTES = "/debug/clusterz"
    STATUS = "/debug/push_status"
    SHARDS = "/debug/endpointShardz"


class Where(NamedTuple):
    """Which replica, of which revision, and where it was read."""

    cluster: str
    namespace: str
    pod: str
    at: str
    revision: str = ""

    def skipped(self, reason: object, part: str = "") -> Skipped:
        """That this replica was not read, or a part of it."""
        return Skipped(
            "istiod", self.cluster, f"{part or 'istiod'}{' of istiod' if part else ''} {self.pod}.{self.namespace} was not read: {reason}"
        )


# --- from bytes to evidence ------------------------------------------------------------------------------------------------


class _Resource(Struct, frozen=True, gc=False, rename="camel"):
    sent: str = ""
    acked: str = ""
    last_error: str = ""


class _Sync(Struct, frozen=True):
    proxy: str = ""
    cluster_id: str = ""
    istio_version: str = ""
    cluster_sent: str = ""
    cluster_acked: str = ""
    listener_sent: str = ""
    listener_acked: str = ""
    route_sent: str = ""
    route_acked: str = ""
    endpoint_sent: str = ""
    endpoint_acked: str = ""
    extensionconfig_sent: str = ""
    extensionconfig_acked: str = ""
    resources: dict[str, _Resource] | None = None


class _ShardEndpoint(Struct, frozen=True, rename="pascal"):
    addresses: tuple[str, ...] | None = None
    address: str = ""  # until Istio 1.24
    service_port_name: str = ""
    endpoint_port: int = 0
    health_status: int = 1


class _Shards(Struct, frozen=True, rename="pascal"):
    shards: dict[str, tuple[_ShardEndpoint, ...] | None] | None = None


class _Message(Struct, frozen=True, gc=False):
    proxy: str = ""
    message: str = ""


class _Remote(Struct, frozen=True, gc=False, rename="camel"):
    id: str = ""
    sync_status: str = ""


class _Version(Struct, frozen=True, gc=False):
    version: str = ""
    revision: str = ""
    over_s: float = 0.0


_SYNC = msgspec.json.Decoder(tuple[_Sync, ...] | None)
_HOST = msgspec.json.Decoder(dict[str, _Shards | None] | None)
_ALL = msgspec.json.Decoder(dict[str, dict[str, _Shards | None] | None] | None)
_STATUS = msgspec.json.Decoder(dict[str, dict[str, _Message] | None] | None)
_REMOTES = msgspec.json.Decoder(tuple[_Remote, ...] | None)
_VERSION = msgspec.json.Decoder(_Version)

_TYPES = {
    "Cluster": "CDS",
    "ClusterLoadAssignment": "EDS",
    "Listener": "LDS",
    "RouteConfiguration": "RDS",
    "TypedExtensionConfig": "ECDS",
    "Secret": "SDS",
    "Address": "WDS",
    "Workload": "WDS",
}
"""The last word of an xDS type URL, and what istioctl calls it."""

_HEALTH = {2: "UnHealthy", 3: "Draining", 4: "Terminating"}
"""pilot/pkg/model/service.go; everything else is Healthy."""


def proxies(body: bytes | bytearray, what: str = Request.SYNC) -> dict[str, ProxySync]:
    """`/debug/syncz`: the proxies that are connected to this replica. Raises NotRead.

    The rule is that of `istioctl proxy-status` (pilot/pkg/xds/statusgen.go): an error that was not followed by an acceptance is ERROR, what
    was never sent NOT_SENT, what was sent last and accepted SYNCED, anything else STALE. A type that the proxy does not ask for has no state.
    """
    found = {}
    for sync in decoded(_SYNC, body, what, "an istiod") or ():
        states: dict[str, str] = {}
        errors = []
        for url, resource in _resources(sync).items():
            kind = _TYPES.get(url.rpartition("/")[2].rpartition(".")[2])
            if kind is None:
                continue
            states[kind] = _worse(states.get(kind), _state(resource))
            if resource.last_error:
                errors.append(f"{kind}: {resource.last_error}")
        found[sync.proxy] = ProxySync(sync.proxy, sync.cluster_id, sync.istio_version, states, "; ".join(errors))
    return found


def _resources(sync: _Sync) -> Mapping[str, _Resource]:
    """What was sent and accepted, by type URL; of an istiod that says it by type alone (before 1.21), what it says."""
    if sync.resources:
        return sync.resources
    by_type = {
        "/.Cluster": _Resource(sync.cluster_sent, sync.cluster_acked),
        "/.Listener": _Resource(sync.listener_sent, sync.listener_acked),
        "/.RouteConfiguration": _Resource(sync.route_sent, sync.route_acked),
        "/.ClusterLoadAssignment": _Resource(sync.endpoint_sent, sync.endpoint_acked),
    }
    if sync.extensionconfig_sent:  # few proxies have any
        by_type["/.TypedExtensionConfig"] = _Resource(sync.extensionconfig_sent, sync.extensionconfig_acked)
    return by_type


def _state(resource: _Resource) -> str:
    if resource.last_error:
        return "ERROR"
    if not resource.sent:
        return "NOT_SENT"
    return "SYNCED" if resource.acked == resource.sent else "STALE"


def _worse(one: str | None, other: str) -> str:
    order = ("ERROR", "STALE", "NOT_SENT", "SYNCED")
    return other if one is None else min(one, other, key=order.index)


def status(body: bytes | bytearray, what: str = Request.STATUS) -> dict[str, dict[str, str]]:
    """`/debug/push_status`: by metric and key, what was said; nothing where nothing was pushed yet. Raises NotRead."""
    if not body.strip():
        return {}
    said = decoded(_STATUS, body, what, "an istiod") or {}
    return {metric: {key: m.message or m.proxy for key, m in (keys or {}).items()} for metric, keys in said.items()}


def remotes(body: bytes | bytearray, what: str = Request.REMOTES) -> dict[str, str]:
    """`/debug/clusterz`: the sync status of each cluster, by ID. Raises NotRead."""
    return {r.id: r.sync_status for r in decoded(_REMOTES, body, what, "an istiod") or ()}


def shards(namespaces: Mapping[str, _Shards | None]) -> tuple[ShardEndpoint, ...]:
    """What istiod holds of one host, in all namespaces that have it."""
    return tuple(
        ShardEndpoint(_address(e), shard.rpartition("/")[2], _HEALTH.get(e.health_status, "Healthy"), e.service_port_name)
        for of in namespaces.values()
        for shard, endpoints in ((of.shards if of else None) or {}).items()
        for e in endpoints or ()
    )


def _address(endpoint: _ShardEndpoint) -> str:
    address = endpoint.addresses[0] if endpoint.addresses else endpoint.address
    if not endpoint.endpoint_port or address.startswith("/"):
        return address
    return f"{f'[{address}]' if ':' in address else address}:{endpoint.endpoint_port}"


class Shards:
    """`/debug/endpointShardz` as it comes: of the asked hosts alone, whatever the mesh has besides.

    A host is `"<host>":{"<namespace>":{"Shards":...}}`. No other object has a key of a host's name, except a namespace of that name, whose
    object begins with `"Shards"`; so a host is found by searching for bytes, which costs a hundredth of decoding.
    """

    def __init__(self, hosts: Collection[str]) -> None:
        self._wanted = {
            host: re.compile(rb"%s\s*:\s*\{(?!\s*\"(?:Shards|ServiceAccounts)\")" % re.escape(msgspec.json.encode(host))) for host in hosts
        }
        self._longest = max((len(host) for host in hosts), default=0) + 64
        self._found: dict[str, bytearray] = {}
        self._reading: str | None = None
        self._depth = 0
        self._inside = False
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """The next bytes. Raises NotRead for a host that has too much."""
        self._rest = self._search(self._rest + chunk, _AHEAD)

    def _search(self, data: bytes, ahead: int) -> bytes:
        """Take the hosts that are in it; what is left over is handed back, since it may be the beginning of one."""
        while data:
            if self._reading is None:
                matches = [(m.start(), m.end(), host) for host, wanted in self._wanted.items() if (m := wanted.search(data))]
                if not matches:
                    return data[-self._longest :]
                start, end, host = min(matches)
                if len(data) < end + ahead:  # what comes next decides whether it is a host
                    return data[start:]
                self._found[host] = bytearray(b"{")
                self._wanted.pop(host)
                self._reading, self._depth, self._inside = host, 1, False
                data = data[end:]
            else:
                data, cut = self._take(data)
                if cut:
                    return data
        return data

    def _take(self, data: bytes) -> tuple[bytes, bool]:
        """Take what belongs to the host that is being read; what comes after it is handed back, and whether it ends only later."""
        found = self._found[self._reading or ""]
        for mark in _MARKS.finditer(data):
            sign = mark[0]
            if sign == b'"':
                self._inside = not self._inside
            elif self._inside:
                continue
            elif sign == b"{":
                self._depth += 1
            elif sign == b"}":
                self._depth -= 1
                if not self._depth:
                    found += data[: mark.end()]
                    self._reading = None
                    return data[mark.end() :], False
        cut = len(data) - (len(data) - len(data.rstrip(b"\\"))) % 2  # an escape may be cut in two
        found += data[:cut]
        if len(found) > MAX_HOST_BYTES:
            raise NotRead(f"{self._reading} has more than {MAX_HOST_BYTES >> 20} MB of endpoints")
        return data[cut:], True

    def done(self) -> dict[str, tuple[ShardEndpoint, ...]]:
        """The endpoints of each host; a host that istiod does not know is there with none. Raises NotRead in the midst of a host.

        That the answer came to its end is for HTTP to say.
        """
        self._rest = self._search(self._rest, 0)
        if self._reading is not None:
            raise NotRead("the answer to GET /debug/endpointShardz broke off")
        read = {host: shards(decoded(_HOST, body, f"{host} in {Request.SHARDS}", "an istiod") or {}) for host, body in self._found.items()}
        return {**dict.fromkeys(self._wanted, ()), **read}


_AHEAD = 64
"""Bytes after the beginning of an object that tell a host from a namespace: `"Shards"`, indented as it may be."""

_MARKS = re.compile(rb'\\.|["{}]', re.DOTALL)

_KEPT = re.compile(
    r"(?:pilot|citadel|istiod|galley|remote_cluster|endpoint_no_pod|sidecar_injection)\w*|istio_build|process_start_time_seconds"
)
_BUCKETS = re.compile(r"(?!pilot_proxy_(?:convergence|queue)_time|pilot_xds_push_time)\w+_bucket")
"""Of histograms the sums and counts are enough, but where the time of most pushes is asked for."""


def metrics(body: bytes | bytearray) -> dict[str, float]:
    """`/metrics`: istiod's own, by name, or by name and labels."""
    return {s.key: s.value for s in exposition.samples(body) if _KEPT.fullmatch(s.name) and not _BUCKETS.fullmatch(s.name)}


def growth(before: bytes | bytearray, after: bytes | bytearray) -> dict[str, float]:
    """By how much each counter grew between two readings; one that fell was set to zero by a restart, and has grown to what it is."""
    kinds = exposition.types(after)
    old, new = metrics(before), metrics(after)
    return {
        key: value - old.get(key, 0.0) if value >= old.get(key, 0.0) else value
        for key, value in new.items()
        if _counts(key.partition("{")[0], kinds)
    }


def _counts(name: str, kinds: Mapping[str, str]) -> bool:
    for end in ("", "_bucket", "_sum", "_count"):
        kind = kinds.get(name.removesuffix(end)) if name.endswith(end) else None
        if kind == ("histogram" if end else "counter"):
            return True
    return False


def version(body: bytes | bytearray) -> str:
    """The version that istiod's own metrics name: `1.27.1` (istio_build, of istio.io/pkg/version)."""
    builds = (s.labels for s in exposition.samples(body) if s.name == "istio_build")
    return next((labels.get("tag", "") for labels in builds if labels.get("component") == "pilot"), "")


_TELLING = re.compile(
    r"has no endpoints"  # pilot/pkg/model/endpointshards.go
    r"|ACK ERROR"  # pkg/xds/server.go, delta.go
    r"|[Dd]uplicate|conflict"  # pilot/pkg/model/push_context.go, gateway.go, virtualservice.go
    r"|delegate virtual service"  # pilot/pkg/model/virtualservice_controller.go
    r"|[Rr]eject|skipping (?:server|gateway)"  # pilot/pkg/model/gateway.go
    r"|Push Status"  # pilot/pkg/xds/discovery.go
    r"|is forbidden|[Ff]ailed to (?:list|watch)"  # client-go's reflector
    r"|remote cluster|[Tt]imed out waiting for cluster"  # pkg/kube/multicluster
    r"|[Uu]nauthenticated|[Aa]uthentication fail|authenticat(?:e|ion) failure"  # pilot/pkg/xds, security/pkg
    r"|CSR .*(?:fail|err)|signing error"  # security/pkg/server/ca
    r"|internal error|push timeout|panic"
)
"""Lines that tell of endpoints, refusals, duplicates, other clusters and certificates."""

_AT = re.compile(r'(?:\{.*?"time":")?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)')


def lines(text: str) -> tuple[LogLine, ...]:
    """The lines of its log that tell something, the last ones; text or JSON."""
    found = []
    for line in text.splitlines():
        if _TELLING.search(line):
            at = _AT.match(line)
            found.append(LogLine(_seconds(at[1]) if at else 0.0, line[:2000]))
    return tuple(found[-MAX_LINES:])


def _seconds(text: str) -> float:
    head, _, rest = text.removesuffix("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{head}.{rest[:6]:0<6}+00:00").timestamp()
    except ValueError:  # the 30th of February
        return 0.0


# --- one replica, saved ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What the answers of one replica said so far. None is what was not read."""

    where: Where
    hosts: Collection[str] | None = None
    """Whose shards are kept; None: all of them."""
    view: IstiodView = field(init=False)
    saved_at: float = 0.0
    _before: bytes | None = None
    _after: bytes | None = None

    def __post_init__(self) -> None:
        w = self.where
        self.view = IstiodView(w.cluster, w.namespace, w.pod, "", w.revision, 0.0, w.at)

    def put(self, **more: object) -> None:
        """Add to the view."""
        self.view = msgspec.structs.replace(self.view, **more)

    def file(self, file: File) -> None:
        """One saved answer, by its name. Raises NotRead."""
        self.saved_at = max(self.saved_at, file.saved_at)
        name = file.name.rpartition("/")[2]
        what = name.removesuffix(".json")
        if name == "metrics.before.txt":
            self._before = file.body
        elif name in {"metrics", "metrics.txt"}:
            self._after = file.body
        elif name.endswith(".log"):
            self.put(lines=lines(file.body.decode(errors="replace")))
        elif what == "version":
            said = decoded(_VERSION, file.body, file.name, "an istiod")
            self.put(version=said.version, revision=said.revision or self.view.revision, over_s=said.over_s)
        elif what == "syncz":
            self.put(proxies=proxies(file.body, file.name))
        elif what == "clusterz":
            self.put(remotes=remotes(file.body, file.name))
        elif what == "push_status":
            self.put(status=status(file.body, file.name))
        elif what == "endpointShardz":
            said_of = decoded(_ALL, file.body, file.name, "an istiod") or {}
            self.put(shards={host: shards(of or {}) for host, of in said_of.items() if self.hosts is None or host in self.hosts})

    def saved(self) -> IstiodView:
        """The view that saved answers give."""
        if self._after is not None:
            self.put(metrics=metrics(self._after), version=self.view.version or version(self._after))
            if self._before is not None:
                self.put(growth=growth(self._before, self._after))
        self.put(read_at=self.saved_at)
        return self.view


# --- one replica, live ------------------------------------------------------------------------------------------------------


async def ask(of: Admin, where: Where, hosts: Collection[str], *, debug: bool = True) -> tuple[IstiodView, list[Skipped]]:
    """What a live replica says, of endpoints those of `hosts`; beside it what could not be read. Raises NotRead when nothing could.

    Its metrics are read first and last, OVER_S apart at least: what its counters grew by in between is their growth. Without `debug` they
    are all that is asked for: the rest istiod tells only whom it knows, or who comes from inside its own pod.
    """
    seen, skipped, begun = Seen(where, hosts), list[Skipped](), time.monotonic()
    first = bytearray()

    async def counted() -> None:
        first.extend(await of.get(Request.METRICS))
        seen.put(metrics=metrics(first), version=version(first))

    async def synced() -> None:
        seen.put(proxies=await asyncio.to_thread(proxies, await of.get(Request.SYNC)))

    async def watched() -> None:
        seen.put(remotes=remotes(await of.get(Request.REMOTES)))

    async def pushed() -> None:
        seen.put(status=status(await of.get(Request.STATUS)))

    async def held() -> None:
        found = Shards(hosts)
        await of.stream(Request.SHARDS, found.feed, MAX_SHARDS_BYTES)
        seen.put(shards=found.done())

    async def counted_again() -> None:
        if not first:
            raise NotRead("they could not be read once")
        await asyncio.sleep(begun + OVER_S - time.monotonic())
        again = await of.get(Request.METRICS)
        seen.put(metrics=metrics(again), growth=growth(first, again), over_s=time.monotonic() - begun)

    parts = {"the metrics": counted, "the sync state of proxies": synced, "the sync state of clusters": watched}
    parts |= {"the push status": pushed, "the endpoints": held, "the growth of metrics": counted_again}
    told = 0
    for part, read in parts.items():
        if not debug and read not in {counted, counted_again}:
            continue
        try:
            await read()
            told += 1
        except Unreached as e:
            if not told:
                raise
            skipped.append(where.skipped(e, part))
            break
        except NotRead as e:
            skipped.append(where.skipped(e, part))
    if not told:
        raise NotRead(skipped[0].reason)
    seen.put(read_at=time.time())
    return seen.view, skipped
