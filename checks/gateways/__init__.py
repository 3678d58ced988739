"""Gateways, of Istio's own kind (MESH70x) and of the Gateway API (MESH72x), and what is said of a route's backends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks import names
from checks.binding import rulesets
from checks.gatewayapi import LISTENING, MESH_PARENTS, granted
from checks.patches import AWAY
from checks.resources import APIGateway, APIGRPCRoute, APIHTTPRoute, APIRoute, APITCPRoute, APITLSRoute, BackendRef, ReferenceGrant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from checks.case import Branch, Case
    from checks.gatewayapi import BoundGateway
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.resources import Workload

_BACKEND = re.compile(r"spec\.rules\[(\d+)\]\.backendRefs\[(\d+)\]")
KINDS = (APIHTTPRoute, APIGRPCRoute, APITLSRoute, APITCPRoute)


def routes(istiod: Istiod) -> dict[str, APIRoute]:
    """Every Gateway API route by its ref."""
    return istiod.once("routes", lambda: {r.ref: r for kind in KINDS for r in istiod.all(kind) if isinstance(r, APIRoute)})


def backend(branch: Branch) -> BackendRef | None:
    """The backendRef behind a destination; None where no Gateway API route leads there."""
    place = _BACKEND.fullmatch(branch.path)
    route = routes(branch.view.ups.istiod).get(branch.resource)
    if place is None or route is None:
        return None
    return ((route.spec.rules or ())[int(place[1])].backend_refs or ())[int(place[2])]


def said(b: BackendRef, namespace: str) -> str:
    """A backendRef as people write it: `Service shop/cart:80`."""
    port = f":{b.port}" if b.port is not None else ""
    return f"{b.kind} {b.namespace or namespace}/{b.name}{port}"


def foreign(branch: Branch) -> bool:
    """Whether a route refers to a backend of another namespace without being granted it."""
    b, route = backend(branch), routes(branch.view.ups.istiod).get(branch.resource)
    if b is None or route is None or branch.upstream.host:
        return False
    return (
        bool(b.namespace)
        and b.namespace != route.namespace
        and not granted(reference_grants(branch.view.ups.istiod), route, route.ref.partition(" ")[0], b)
    )


def reference_grants(istiod: Istiod) -> list[ReferenceGrant]:
    """Every ReferenceGrant that a control plane has."""
    return [g for g in istiod.all(ReferenceGrant) if isinstance(g, ReferenceGrant)]


def api_gateway(istiod: Istiod, name: str) -> APIGateway | None:
    """A Gateway API Gateway by `namespace/name`."""
    every = istiod.once("api gateways", lambda: {f"{g.namespace}/{g.name}": g for g in istiod.all(APIGateway) if isinstance(g, APIGateway)})
    return every.get(name)


def listening(case: Case) -> dict[str, tuple[Istiod, list[BoundGateway]]]:
    """The Gateways (`namespace/name`) of the Gateway API that routes of the host are attached to, with the listeners that take them."""
    out: dict[str, tuple[Istiod, list[BoundGateway]]] = {}
    for istiod, r in rulesets(case):
        if r.gateway_api:
            for b in istiod.api.gateways:
                if b.name in r.gateways:
                    out.setdefault(b.of, (istiod, []))[1].append(b)
    return out


def stopped(case: Case, istiod: Istiod, listeners: Iterable[BoundGateway]) -> list[tuple[Cluster, Workload]]:
    """The workloads behind the Services of a Gateway, where every one of them stands at 0 replicas."""
    hosts = dict.fromkeys(h for b in listeners for h in b.services or ())
    found = [s for h in hosts for s in istiod.by_host.get(h, ()) if s.kubernetes]
    return [of for s in found for of in case.owners(s)] if found and all(case.off(s) for s in found) else []


def parents(route: APIRoute) -> list[tuple[int, str, str]]:
    """The parents that a route names, once each: the place of the first parentRef, the kind, and `namespace/name`."""
    out: dict[tuple[str, str], int] = {}
    for i, p in enumerate(route.spec.parent_refs or ()):
        if (p.group, p.kind) in LISTENING | MESH_PARENTS:
            out.setdefault((p.kind, f"{p.namespace or route.namespace}/{p.name}"), i)
    return [(i, kind, name) for (kind, name), i in out.items()]


def about(istiod: Istiod, host: str) -> list[tuple[APIRoute, int, str, str]]:
    """The routes about a host, each with the place, the kind and the name of a parent.

    Of a route with a Service for its parent the host is that Service's; else those that it names, or its backends' where it names none.
    """

    def index() -> dict[str, list[tuple[APIRoute, int, str, str]]]:
        out: dict[str, list[tuple[APIRoute, int, str, str]]] = {}
        for r in routes(istiod).values():
            found = [h.lower() for h in r.spec.hostnames or ()]
            if not found:
                refs = [b for rule in r.spec.rules or () for b in rule.backend_refs or ()]
                found = [names.service_host(b.name, b.namespace or r.namespace) for b in refs if b.kind == "Service"]
            for i, kind, name in parents(r):
                namespace, _, own = name.partition("/")
                hosts = [names.service_host(own, namespace)] if kind == "Service" else [] if kind == "ServiceEntry" else found
                for h in dict.fromkeys(hosts):
                    out.setdefault(h, []).append((r, i, kind, name))
        return out

    return istiod.once("routes by host", index).get(host, [])


def attached(istiod: Istiod) -> dict[str, set[str]]:
    """For each route the Gateways (`namespace/name`) that take it."""

    def index() -> dict[str, set[str]]:
        out: dict[str, set[str]] = {}
        for r in istiod.api.rulesets:
            for ref in {r.ref, *(rule.leaf for rule in r.http)}:
                out.setdefault(ref, set()).update(g.partition("~")[0] for g in r.gateways)
        return out

    return istiod.once("attached", index)


def drop(case: Case, branches: Sequence[Branch]) -> str | None:
    """The patch that takes a dead backend out of its rule, where others are left."""
    first = branches[0]
    place = _BACKEND.fullmatch(first.path)
    istiod = first.view.ups.istiod
    route = routes(istiod).get(first.resource)
    if place is None or route is None:
        return None
    i, k = int(place[1]), int(place[2])
    kept = [b for n, b in enumerate((route.spec.rules or ())[i].backend_refs or ()) if n != k]
    if not any(b.weight is None or b.weight for b in kept):
        return None
    return case.patch(istiod.cluster, route, (("spec", "rules", i, "backendRefs", k), AWAY))
