"""The shape of an answer about routes: viewpoint, rule, destinations with their shares, endpoints and their state."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ViewpointKind = Literal["sidecar", "gateway", "waypoint", "none", "ztunnel"]


class Viewpoint(Struct, frozen=True, gc=False, cache_hash=True):
    """Who calls: a sidecar of a namespace, a gateway or waypoint workload, or a pod without proxy.

    `pod` is set when exactly one pod was asked about (`--as NS/POD`); `selector` tells populations of a namespace apart that see
    something different, as `app=web,version=v1`.
    """

    cluster: str
    kind: ViewpointKind
    namespace: str
    pod: str | None = None
    selector: str | None = None


class Endpoint(Struct, frozen=True, gc=False):
    """One endpoint of a destination. `address` is `ip:port` or a DNS name with port; `reason` says why it is not healthy."""

    address: str
    state: Literal["healthy", "unhealthy", "draining"]
    cluster: str = ""
    workload: str = ""
    reason: str = ""


class Destination(Struct, frozen=True, gc=False):
    """One branch of a rule: the Envoy cluster, its weight as written and share (0 to 1), and what stands behind it.

    `defined` False: the route names a cluster that is not pushed (503 NC). `usable` False with `defined`: no endpoint that Envoy would
    send to (503 UH). True as well for clusters whose endpoints only Envoy knows (ORIGINAL_DST, DYNAMIC_DNS).
    """

    envoy_cluster: str
    weight: int
    share: float
    defined: bool
    usable: bool
    destination_rule: str | None = None
    endpoints: tuple[Endpoint, ...] = ()


class Route(Struct, frozen=True, gc=False):
    """One rule of a host as a viewpoint's Envoy holds it, as DESIGN's ROUTE: field names and order are the JSON contract."""

    viewpoint: Viewpoint
    host: str
    port: int
    protocol: Literal["http", "tcp", "tls"]
    action: str
    source: str | None
    path: str
    match: str
    failing_share: float
    destinations: tuple[Destination, ...] = ()
