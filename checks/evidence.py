"""What probes read of running parts: Envoys, istiods, Prometheus and logs, each as it was at one instant.

Evidence never stands for the cluster's objects: it says what is, beside what was predicted. What could not be read is in `skipped`, or None in
its place, and never an empty reading. Whoever reads is `bot.probes`; everything here is plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

from checks.finding import Skipped

SICK, EJECTED = "fails its active health check", "is ejected by outlier detection"
UNREADY, DRAINING = "is not ready (EDS: UNHEALTHY)", "is draining (EDS: DRAINING)"
"""Why Envoy does not use a host, as `LiveHost.reason` says it; several are joined by `and`."""


class LiveHost(Struct, frozen=True, gc=False):
    """One host of a live cluster. `address` is `ip:port`, IPv6 in brackets.

    `reason` says why Envoy does not use it, or why only as a last resort. `hostname` is the DNS name that it was resolved from. `via` is
    the internal listener (HBONE) through which `address` is reached. The counters are since Envoy has had this host, None where they were
    not read: TCP connections begun and failed, requests, those that ended in an error and those that timed out.
    """

    address: str
    usable: bool
    reason: str = ""
    hostname: str = ""
    via: str = ""
    weight: int = 1
    connects: int | None = None
    connect_failures: int | None = None
    requests: int | None = None
    errors: int | None = None
    timeouts: int | None = None


class LiveCluster(Struct, frozen=True):
    """One cluster of a live Envoy.

    `present` False with `warming`: announced, but it takes no request before its endpoints have come. `last_updated` is the time of its
    configuration (not of its endpoints), RFC 3339 in UTC. `refused` is Envoy's reason for keeping an older configuration.
    `panic_threshold` is the share of usable hosts, in percent, below which Envoy sends to all of them; None when it was not read. `type` is
    Envoy's discovery type (EDS, STATIC, STRICT_DNS, LOGICAL_DNS, ORIGINAL_DST, or the name of an extension), empty when it was not read.
    """

    name: str
    hosts: tuple[LiveHost, ...] = ()
    present: bool = True
    warming: bool = False
    version: str = ""
    last_updated: str = ""
    refused: str = ""
    panic_threshold: float | None = None
    type: str = ""

    @property
    def usable(self) -> tuple[LiveHost, ...]:
        """The hosts that Envoy sends to while there is no panic."""
        return tuple(host for host in self.hosts if host.usable)


class LiveRule(Struct, frozen=True):
    """One route of a virtual host: the share, 0 to 1, of each cluster; none for a redirect or an answer made at the proxy."""

    shares: tuple[tuple[str, float], ...] = ()
    name: str = ""


class LiveVirtualHost(Struct, frozen=True):
    """The rules of the authorities in `domains`, in Envoy's order."""

    name: str
    domains: tuple[str, ...]
    rules: tuple[LiveRule, ...]


class LiveRoutes(Struct, frozen=True):
    """One route configuration: `80`, `http.8080`, `host:port`."""

    name: str
    virtual_hosts: tuple[LiveVirtualHost, ...]
    version: str = ""
    last_updated: str = ""
    refused: str = ""


class LiveCertificate(Struct, frozen=True, gc=False):
    """A certificate that an Envoy holds: `name` is its first URI or subject, times are RFC 3339 in UTC; `ca` tells roots from its own chain."""

    name: str
    valid_from: str
    expires: str
    ca: bool = False


class EnvoyView(Struct, frozen=True):
    """What one proxy said. `read_at` is in seconds since the epoch: now, or when a dump was saved. `source` is the address or path.

    `stats` are the counters and gauges that were asked for, are kept there (Istio keeps few) and were ever moved, by Envoy's names; None when
    not read. `awaited` are the names of the secrets that it waits for (SDS); None when not read.
    """

    cluster: str
    namespace: str
    pod: str
    clusters: Mapping[str, LiveCluster]
    routes: tuple[LiveRoutes, ...] | None
    read_at: float
    source: str
    stats: Mapping[str, float] | None = None
    certificates: tuple[LiveCertificate, ...] | None = None
    awaited: tuple[str, ...] | None = None

    @property
    def proxy(self) -> str:
        """As istioctl names it: `web-7f.shop`."""
        return f"{self.pod}.{self.namespace}"


class ScrapedView(Struct, frozen=True):
    """What one proxy shows to scrapers, where its admin could not be asked: of clusters and hosts it says nothing. `stats` as in EnvoyView."""

    cluster: str
    namespace: str
    pod: str
    stats: Mapping[str, float]
    read_at: float
    source: str

    @property
    def proxy(self) -> str:
        """As istioctl names it: `web-7f.shop`."""
        return f"{self.pod}.{self.namespace}"


class ProxySync(Struct, frozen=True):
    """How far one proxy has what an istiod sent it.

    `states` is by xDS type (`CDS`, `EDS`, `LDS`, `RDS`, `ECDS`): SYNCED, STALE, NOT_SENT or ERROR, as `istioctl proxy-status` derives them
    (istio/istio, istioctl/pkg/writer/compare and pilot/pkg/xds/statusgen.go). `error` is what the proxy said when it refused one.
    """

    proxy: str
    """`web-7f.shop`."""
    cluster: str
    """The proxy's CLUSTER_ID."""
    version: str
    states: Mapping[str, str]
    error: str = ""


class ShardEndpoint(Struct, frozen=True, gc=False):
    """One endpoint as an istiod holds it: `address` is `ip:port`, `shard` the cluster ID that it came from, `health` Healthy, UnHealthy, Draining or Terminating."""

    address: str
    shard: str
    health: str = "Healthy"
    port_name: str = ""


class LogLine(Struct, frozen=True, gc=False):
    """One line of a log, as it stands there; `at` is in seconds since the epoch, 0 where the line does not say."""

    at: float
    text: str


class IstiodView(Struct, frozen=True):
    """What one istiod replica said. None is what was not read.

    `proxies` are those connected to this replica, by `pod.namespace`. `shards` are the endpoints that it holds of the hosts that were asked
    about: a host that it does not know is there with none. `metrics` are the values of `pilot_*` and `citadel_*` by name, or by name and label
    values as `name{a="b"}`; `growth` is by how much counters grew in the last `over_s` seconds. `status` is its push status: metric, key (a
    cluster, host or proxy), message. `remotes` is the sync status of each cluster that it watches, by ID. `lines` are those of its log that
    tell of endpoints, refusals and duplicates.
    """

    cluster: str
    namespace: str
    pod: str
    version: str
    revision: str
    read_at: float
    source: str
    proxies: Mapping[str, ProxySync] | None = None
    shards: Mapping[str, tuple[ShardEndpoint, ...]] | None = None
    metrics: Mapping[str, float] | None = None
    growth: Mapping[str, float] | None = None
    over_s: float = 0.0
    status: Mapping[str, Mapping[str, str]] | None = None
    remotes: Mapping[str, str] | None = None
    lines: tuple[LogLine, ...] | None = None


class ZtunnelView(Struct, frozen=True):
    """What one ztunnel said: of each service (hostname) the workloads' addresses that it would send to and those that it would not, and of each waypoint."""

    cluster: str
    namespace: str
    pod: str
    node: str
    usable: Mapping[str, tuple[str, ...]]
    unusable: Mapping[str, tuple[str, ...]]
    workloads: frozenset[str]
    """The addresses of all workloads that it knows."""
    read_at: float
    source: str


class Flow(Struct, frozen=True, gc=False):
    """Requests of one kind to a host, as Prometheus counted them: `rate` is per second over the window.

    `flags` are Envoy's response flags, none for an answer of the server itself; `code` is the HTTP or gRPC status, 0 for TCP connections.
    `reporter` is source, destination or waypoint.
    """

    workload: str
    namespace: str
    code: int
    flags: tuple[str, ...]
    rate: float
    reporter: str = "source"
    protocol: str = "http"


class Traffic(Struct, frozen=True):
    """What a Prometheus says of the requests to one host, from one cluster's callers, over the last `window_s` seconds.

    `since` is when the failing requests of its worst flag began, in seconds since the epoch; None when nothing fails or when that was not
    found. No flow at all is an answer: nobody calls.
    """

    cluster: str
    host: str
    window_s: float
    flows: tuple[Flow, ...]
    since: float | None
    read_at: float
    source: str
    unnamed: tuple[Flow, ...] = ()
    """Calls of a gateway that met no route or no cluster (NR, NC): Prometheus cannot say which host they meant, so that they count only where that is predicted."""


class Access(Struct, frozen=True, gc=False):
    """Access lines that say the same, counted: the fields are those of Istio's default format, empty where the line has `-`."""

    count: int
    first: float
    last: float
    code: int
    flags: tuple[str, ...] = ()
    details: str = ""
    failure: str = ""
    """UPSTREAM_TRANSPORT_FAILURE_REASON."""
    termination: str = ""
    """CONNECTION_TERMINATION_DETAILS."""
    envoy_cluster: str = ""
    upstream: str = ""
    """UPSTREAM_HOST of one of them."""
    authority: str = ""
    server_name: str = ""
    """REQUESTED_SERVER_NAME: the SNI."""
    route: str = ""
    at: str = ""
    """DOWNSTREAM_LOCAL_ADDRESS, what was called, of those that no cluster was chosen for: nothing else says whom they meant."""
    line: str = ""
    """One of them, as it stands in the log."""


class AccessLog(Struct, frozen=True):
    """What a proxy's log says of the calls of some time: `read` lines from `since` to `until` (seconds since the epoch), `cut` where there were more.

    `accesses` are those about the host that was asked about, or about nobody. `other` are lines that are no access lines and tell of trouble.
    """

    cluster: str
    namespace: str
    pod: str
    container: str
    accesses: tuple[Access, ...]
    read: int
    since: float
    until: float
    source: str
    cut: bool = False
    other: tuple[LogLine, ...] = ()

    @property
    def proxy(self) -> str:
        """As istioctl names it: `web-7f.shop`."""
        return f"{self.pod}.{self.namespace}"


class Evidence(Struct, frozen=True):
    """Everything that was read for one question. `skipped` names each probe that could not look (envoy, istiod, ztunnel, prometheus, logs), with why."""

    envoys: tuple[EnvoyView, ...] = ()
    istiods: tuple[IstiodView, ...] = ()
    ztunnels: tuple[ZtunnelView, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    logs: tuple[AccessLog, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    scraped: tuple[ScrapedView, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was read."""
        return bool(self.envoys or self.istiods or self.ztunnels or self.traffic or self.logs or self.scraped)

    @property
    def proxies(self) -> tuple[EnvoyView | ScrapedView, ...]:
        """Every proxy that said anything of itself."""
        return (*self.envoys, *self.scraped)

    def tells(self, of: str) -> bool:
        """Whether something was read of those who decide a cause: envoy, istiod or telemetry."""
        return bool({"envoy": self.envoys or self.ztunnels, "istiod": self.istiods, "telemetry": self.traffic or self.logs}.get(of))

    def latest(self) -> Evidence:
        """Of what was read twice, the reading that came last."""
        return Evidence(
            envoys=_latest(self.envoys, lambda v: (v.read_at, (v.cluster, v.namespace, v.pod))),
            istiods=_latest(self.istiods, lambda v: (v.read_at, (v.cluster, v.namespace, v.pod))),
            ztunnels=_latest(self.ztunnels, lambda v: (v.read_at, (v.cluster, v.namespace, v.pod))),
            traffic=_latest(self.traffic, lambda v: (v.read_at, (v.cluster, v.host))),
            logs=_latest(self.logs, lambda v: (v.until, (v.cluster, v.namespace, v.pod, v.container))),
            skipped=self.skipped,
        )

    def __add__(self, more: Evidence) -> Evidence:
        """Both together."""
        return Evidence(*(getattr(self, f) + getattr(more, f) for f in self.__struct_fields__))


_View = TypeVar("_View")


def _latest(views: Iterable[_View], of: Callable[[_View], tuple[float, tuple[str, ...]]]) -> tuple[_View, ...]:
    """The last view of each thing, in their first order; `of` says when it was read, and of what."""
    kept: dict[tuple[str, ...], _View] = {}
    for view in views:
        at, what = of(view)
        if what not in kept or at >= of(kept[what])[0]:
            kept[what] = view
    return tuple(kept.values())


NOTHING = Evidence()
"""What is known of running parts where nobody looked."""
