"""Gateways, of Istio's own kind (MESH70x) and of the Gateway API (MESH72x), and what is said of a route's backends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks.gatewayapi import GROUP, granted
from checks.resources import APIGateway, APIGRPCRoute, APIHTTPRoute, APIRoute, APITCPRoute, APITLSRoute, BackendRef, ReferenceGrant

if TYPE_CHECKING:
    from checks.case import Branch
    from checks.istiod import Istiod

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
        and not granted(_grants(branch.view.ups.istiod), route, route.ref.partition(" ")[0], b)
    )


def _grants(istiod: Istiod) -> list[ReferenceGrant]:
    return [g for g in istiod.all(ReferenceGrant) if isinstance(g, ReferenceGrant)]


def api_gateway(istiod: Istiod, name: str) -> APIGateway | None:
    """A Gateway API Gateway by `namespace/name`."""
    every = istiod.once("api gateways", lambda: {f"{g.namespace}/{g.name}": g for g in istiod.all(APIGateway) if isinstance(g, APIGateway)})
    return every.get(name)


def gateway_refs(route: APIRoute) -> list[tuple[int, str]]:
    """The Gateways that a route names as parents, once each, with the place of the first parentRef."""
    out: dict[str, int] = {}
    for i, p in enumerate(route.spec.parent_refs or ()):
        if (p.group, p.kind) == (GROUP, "Gateway"):
            out.setdefault(f"{p.namespace or route.namespace}/{p.name}", i)
    return [(i, name) for name, i in out.items()]


def attached(istiod: Istiod) -> dict[str, set[str]]:
    """For each route the Gateways (`namespace/name`) that take it."""

    def index() -> dict[str, set[str]]:
        out: dict[str, set[str]] = {}
        for r in istiod.api.rulesets:
            for ref in {r.ref, *(rule.leaf for rule in r.http)}:
                out.setdefault(ref, set()).update(g.partition("~")[0] for g in r.gateways)
        return out

    return istiod.once("attached", index)
