"""The door to the resolver: a viewpoint and a host in, the rules that its Envoy would hold out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import gateway, sidecar, waypoint
from checks.answers import Destination, Endpoint, Route, Viewpoint
from checks.registry import proxy_kind
from checks.resources import Pod
from checks.upstream import Upstreams, shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.istiod import Proxy
    from checks.mesh import Mesh
    from checks.sidecar import Step

__all__ = ["Destination", "Endpoint", "Route", "UnknownViewpoint", "Viewpoint", "for_pod", "for_proxy"]


class UnknownViewpoint(LookupError):
    """No pod, namespace or cluster of this name; `known` are the nearest."""

    def __init__(self, word: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(word)
        self.word = word
        self.known = known


def upstreams(mesh: Mesh, proxy: Proxy) -> Upstreams:
    """The Envoy clusters of a proxy."""
    istiod = mesh.istiod(mesh.cluster(proxy.cluster).name, proxy.revision)
    return Upstreams(mesh, istiod, proxy, istiod.scope(proxy))


def for_pod(mesh: Mesh, cluster: str, name: str, hosts: Iterable[str] | None = None) -> list[Route]:
    """The routes of exactly one pod (`namespace/pod`), ready or not; of all hosts, or of these. Raises UnknownViewpoint."""
    try:
        where = mesh.cluster(cluster)
    except KeyError:
        raise UnknownViewpoint(cluster, tuple(c.name for c in mesh.clusters)) from None
    namespace, _, pod_name = name.partition("/")
    pod = where.get(Pod, namespace, pod_name)
    if pod is None:
        raise UnknownViewpoint(name, tuple(f"{p.namespace}/{p.name}" for p in where.all(Pod) if p.namespace == namespace)[:5])
    kind = proxy_kind(pod)
    return for_proxy(mesh, mesh.proxy(where, pod, kind), Viewpoint(where.name, kind, namespace, pod_name), hosts)


def for_proxy(mesh: Mesh, proxy: Proxy, viewpoint: Viewpoint, hosts: Iterable[str] | None = None) -> list[Route]:
    """The routes of a proxy in DESIGN's order: by host, port and protocol, then as Envoy tries them."""
    ups = upstreams(mesh, proxy)
    found = [answer(viewpoint, s) for s in steps(ups, hosts)]
    found.sort(key=lambda r: (r.host, r.port, r.protocol))
    return found


def steps(ups: Upstreams, hosts: Iterable[str] | None) -> Iterator[Step]:
    """The rules that a proxy holds for all hosts, or for these."""
    match ups.proxy.kind:
        case "sidecar":
            for host in sidecar.hosts(ups) if hosts is None else hosts:
                yield from sidecar.routes(ups, host)
        case "gateway":
            yield from gateway.routes(ups, hosts)
        case "waypoint":
            yield from waypoint.routes(ups, hosts)


def answer(viewpoint: Viewpoint, step: Step) -> Route:
    """A step with its shares worked out."""
    parts = shares([w for _, w, _ in step.targets])
    destinations = tuple(u.destination(w, s) for (u, w, _), s in zip(step.targets, parts, strict=True))
    return Route(
        viewpoint=viewpoint,
        host=step.host,
        port=step.port,
        protocol=step.protocol,  # type: ignore[arg-type]
        action=step.action,
        source=step.source,
        path=step.path,
        match=step.match,
        failing_share=failing(step),
        destinations=destinations if step.action == "route" else (),
    )


def failing(step: Step) -> float:
    """The part of a rule's requests that fails, as far as clusters and endpoints decide (DESIGN §2): 0 to 1, to six decimals."""
    if step.action == "route":
        for u, _, _ in step.targets:
            if u.fails:
                break
        else:
            return 0.0
        parts = shares([w for _, w, _ in step.targets])
        return round(sum(s for (u, _, _), s in zip(step.targets, parts, strict=True) if u.fails), 6)
    return 1.0 if step.action.startswith("direct_response ") and int(step.action.split()[1]) >= 500 else 0.0
