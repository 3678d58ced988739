"""gwapi-route-not-accepted (MESH725)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.answers import Viewpoint
from checks.binding import gates, istiods
from checks.finding import Finding, check
from checks.gateways import api_gateway, attached, gateway_refs, routes
from checks.resources import APIGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.resources import APIRoute


@check("gwapi-route-not-accepted")
def gwapi_route_not_accepted(case: Case) -> Iterator[Finding]:
    """A route names a Gateway as its parent, and no listener of that Gateway takes it.

    The Gateway does not exist, or each of its listeners refuses: another port or sectionName, a hostname that does not meet the route's,
    `allowedRoutes` without the route's namespace or kind. The gateway has no such route and answers 404 (flag NR).

    How to see it: the route's status has Accepted False for this parent (NoMatchingParent, NoMatchingListenerHostname, NotAllowedByListeners).

    How to fix it: make the route's parentRef and hostnames agree with a listener, or let the listener take the route.
    """
    for istiod in istiods(case.mesh):
        for route in _about(istiod, case.host):
            for i, gateway in gateway_refs(route):
                why = _refused(case, istiod, route, gateway)
                if not why:
                    continue
                served = any(v.steps for v in case.views if v.callers.proxy.kind == "gateway")
                at = tuple(g.viewpoint for g in gates(case.mesh) if any(b.ref == f"Gateway {gateway}" for b in g.bound))
                yield case.finding(
                    "gwapi-route-not-accepted",
                    cluster=case.mesh.cluster(istiod.cluster).name,
                    resource=route.ref,
                    path=f"spec.parentRefs[{i}]",
                    message=_message(case.host, route, gateway, why[0], served=served),
                    share=0.0 if served else 1.0,
                    viewpoints=at or (Viewpoint(istiod.cluster, "gateway", gateway.partition("/")[0]),),
                    evidence=(
                        f"spec.parentRefs[{i}] of {route.ref} names Gateway {gateway}",
                        *_listeners(istiod, gateway),
                        *_status(route),
                    ),
                    fix=f"Make spec.parentRefs[{i}] and the hostnames of {route.ref} agree with a listener of Gateway {gateway}, or let the listener take it.",
                    commands=(f"kubectl -n {route.namespace} get {route.ref.partition(' ')[0].lower()} {route.name} -o yaml",),
                )


def _about(istiod: Istiod, host: str) -> list[APIRoute]:
    """The routes that name a host; of those without hostnames, the ones whose backends have it."""

    def index() -> dict[str, list[APIRoute]]:
        out: dict[str, list[APIRoute]] = {}
        for r in routes(istiod).values():
            found = [h.lower() for h in r.spec.hostnames or ()]
            if not found:
                refs = [b for rule in r.spec.rules or () for b in rule.backend_refs or ()]
                found = [names.service_host(b.name, b.namespace or r.namespace) for b in refs if b.kind == "Service"]
            for h in dict.fromkeys(found):
                out.setdefault(h, []).append(r)
        return out

    return istiod.once("routes by host", index).get(host, [])


def _refused(case: Case, istiod: Istiod, route: APIRoute, gateway: str) -> list[str]:
    """Why no listener takes a route, in words; empty when one does, or when the Gateway is not Istio's."""
    if not route.spec.rules or gateway in attached(istiod).get(route.ref, ()):
        return []
    if api_gateway(istiod, gateway) is None:
        case.mesh.require(case.mesh.cluster(istiod.cluster), APIGateway)
        return [f"Gateway {gateway} does not exist"]
    return list(dict.fromkeys(d.reason for d in istiod.api.denied if d.route == route.ref and d.parent in {"", f"Gateway {gateway}"}))


def _status(route: APIRoute) -> Iterator[str]:
    for p in route.status.parents or ():
        for c in p.conditions or ():
            if c.type == "Accepted" and c.status == "False":
                yield f"status of {route.ref}: Accepted False, {c.reason}"


def _message(host: str, route: APIRoute, gateway: str, why: str, *, served: bool) -> str:
    effect = f"its rules for {host} have no effect there" if served else f"nobody serves {host} there"
    return f"Gateway {gateway} does not take {route.ref}, so {effect}: {why}."


def _listeners(istiod: Istiod, gateway: str) -> Iterator[str]:
    found = api_gateway(istiod, gateway)
    for li in found.spec.listeners if found else ():
        allowed = li.allowed_routes
        spaces = allowed.namespaces.from_ if allowed else "Same"
        kinds = f", kinds {', '.join(k.kind for k in allowed.kinds)}" if allowed and allowed.kinds else ""
        yield f"listener {li.name} of Gateway {gateway}: {li.protocol} port {li.port}, hostname {li.hostname or '*'}, routes of namespaces {spaces}{kinds}"
