"""Reads what one ztunnel holds, from its admin address or from a saved dump, as `checks.evidence.ZtunnelView`.

The shape is what istioctl reads of it (istio/istio, istioctl/pkg/writer/ztunnel/configdump/api.go): lists, and maps in older ztunnels. Not seen
live: there is no ztunnel that runs without a kernel's network namespaces.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from bot.probes.admin import Admin, decoded
from checks.evidence import ZtunnelView
from checks.finding import Skipped


class Request(StrEnum):
    """The one request that can be sent; what it answers holds certificates, but no key."""

    CONFIG = "/config_dump"


class Where(NamedTuple):
    """Which ztunnel, and where it was read."""

    cluster: str
    namespace: str
    pod: str
    at: str

    def skipped(self, reason: object) -> Skipped:
        """That this ztunnel was not read."""
        return Skipped("ztunnel", self.cluster, f"ztunnel {self.pod}.{self.namespace} was not read: {reason}")


class _Workload(Struct, frozen=True, gc=False, rename="camel"):
    uid: str = ""
    name: str = ""
    namespace: str = ""
    workload_ips: tuple[str, ...] | None = ()
    node: str = ""
    status: str = "Healthy"


class _Endpoint(Struct, frozen=True, rename="camel"):
    workload_uid: str = ""
    port: dict[str, int] | None = None
    status: str = ""


class _LoadBalancer(Struct, frozen=True, gc=False, rename="camel"):
    health_policy: str = ""


class _Service(Struct, frozen=True, rename="camel"):
    hostname: str
    endpoints: dict[str, _Endpoint] | None = None
    load_balancer: _LoadBalancer | None = None


class _Dump(Struct, frozen=True):
    workloads: list[_Workload] | dict[str, _Workload] | None
    services: list[_Service] | dict[str, _Service] | None


_T = TypeVar("_T")

_DUMP = msgspec.json.Decoder(_Dump)


async def ask(of: Admin, where: Where) -> ZtunnelView:
    """What a live ztunnel holds. Raises NotRead."""
    return view(await of.get(Request.CONFIG), where, time.time())


def view(body: bytes | bytearray, where: Where, read_at: float) -> ZtunnelView:
    """What its dump says. Raises NotRead.

    It sends to a workload that is healthy, and to every one where the service's health policy is AllowAll (ztunnel, src/state: the endpoint's
    own status where it has one, else the workload's). An endpoint whose workload it does not know gets nothing.
    """
    dump = decoded(_DUMP, body, Request.CONFIG, "a ztunnel")
    known = {w.uid: w for w in _each(dump.workloads)}
    usable: dict[str, set[str]] = {}
    unusable: dict[str, set[str]] = {}
    for service in _each(dump.services):
        yes, no = usable.setdefault(service.hostname, set()), unusable.setdefault(service.hostname, set())
        everyone = service.load_balancer is not None and service.load_balancer.health_policy == "AllowAll"
        for endpoint in (service.endpoints or {}).values():
            workload = known.get(endpoint.workload_uid)
            if workload is None:
                no.add(endpoint.workload_uid)
                continue
            status = endpoint.status or workload.status
            ports = sorted(set((endpoint.port or {}).values()))
            at = {f"{f'[{ip}]' if ':' in ip else ip}:{port}" for ip in workload.workload_ips or () for port in ports}
            (yes if everyone or status == "Healthy" else no).update(at)
    return ZtunnelView(
        where.cluster,
        where.namespace,
        where.pod,
        next((w.node for w in known.values() if (w.namespace, w.name) == (where.namespace, where.pod)), ""),
        {host: tuple(sorted(at)) for host, at in usable.items()},
        {host: tuple(sorted(at - usable[host])) for host, at in unusable.items()},
        frozenset(ip for w in known.values() for ip in w.workload_ips or ()),
        read_at,
        where.at,
    )


def is_dump(body: bytes) -> bool:
    """Whether a saved `config_dump` is a ztunnel's: bug-report keeps those of both in the same folders."""
    try:
        return bool(_DUMP.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _each(several: list[_T] | dict[str, _T] | None) -> list[_T]:
    return list(several.values()) if isinstance(several, dict) else several or []
