"""gwapi-route-not-accepted (MESH725)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.answers import Viewpoint
from checks.binding import gates
from checks.finding import Finding, check
from checks.gateways import KINDS, about, api_gateway, attached
from checks.resources import KIND_OF, APIGateway
from checks.when import holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.resources import APIRoute


@check("gwapi-route-not-accepted", when=holds(*KINDS))
def gwapi_route_not_accepted(case: Case) -> Iterator[Finding]:
    """A route names a parent that does not take it.

    The Gateway or ListenerSet does not exist, or each of its listeners refuses: another port or sectionName, a hostname that does not meet the route's,
    `allowedRoutes` without the route's namespace or kind. The gateway has no such route and answers 404 (flag NR). Or istiod reads no route
    of this kind, since its CRD is of a release of the Gateway API that is too old: then it has no effect on a Service's calls either.

    How to see it: the route's status has Accepted False for this parent (NoMatchingParent, NoMatchingListenerHostname, NotAllowedByListeners).
    Of a kind that istiod does not read there is no status at all, and istiod's log names the CRD.

    How to fix it: make the route's parentRef and hostnames agree with a listener, or let the listener take the route; upgrade the CRDs.
    """
    for istiod in case.mesh.control_planes:
        for route, i, kind, name in about(istiod, case.host):
            why = _refused(case, istiod, route, kind, name)
            if not why:
                continue
            at, served = _felt(case, istiod, kind, name)
            unread = type(route) in istiod.api.unread
            yield case.finding(
                "gwapi-route-not-accepted",
                cluster=case.mesh.cluster(istiod.cluster).name,
                resource=route.ref,
                path=f"spec.parentRefs[{i}]",
                message=_message(case.host, route, f"{kind} {name}", why[0], served=served),
                share=0.0 if served else 1.0,
                viewpoints=at,
                evidence=(
                    f"spec.parentRefs[{i}] of {route.ref} names {kind} {name}",
                    *(_listeners(istiod, name) if kind == "Gateway" else ()),
                    *_status(route),
                ),
                fix="Install the CRDs of a newer release of the Gateway API; istiod then reads the route by itself."
                if unread
                else f"Let spec.parentRefs[{i}] of {route.ref} name {_named(istiod, kind, name)}, or create {kind} {name}."
                if why[0].endswith("does not exist")
                else f"Make spec.parentRefs[{i}] and the hostnames of {route.ref} agree with a listener of {kind} {name}, or let the listener take it.",
                commands=(
                    f"kubectl -n {route.namespace} get {route.ref.partition(' ')[0].lower()} {route.name} -o yaml",
                    *((f"kubectl get crd {KIND_OF[type(route)].key} -o yaml | grep bundle-version",) if unread else ()),
                ),
            )


def _refused(case: Case, istiod: Istiod, route: APIRoute, kind: str, name: str) -> list[str]:
    """Why a parent does not take a route, in words; empty when one of its listeners does, or when the Gateway is not Istio's."""
    if not route.spec.rules or ("mesh" if kind in {"Service", "ServiceEntry"} else name) in attached(istiod).get(route.ref, ()):
        return []
    if kind == "Gateway" and api_gateway(istiod, name) is None:
        case.mesh.require(case.mesh.cluster(istiod.cluster), APIGateway)
        return [f"Gateway {name} does not exist"]
    found = list(dict.fromkeys(d.reason for d in istiod.api.denied if d.route == route.ref and d.parent in {"", f"{kind} {name}"}))
    # what the listener says that the route means, not what those say that it does not
    return sorted(found, key=lambda reason: reason.startswith(("port ", "there is no listener")))


def _named(istiod: Istiod, kind: str, name: str) -> str:
    """What exists in place of a parent that does not, for people: Gateways of its name in another namespace."""
    own = name.partition("/")[2]
    known = sorted(g.ref for g in istiod.all(APIGateway) if g.name == own) if kind == "Gateway" else []
    return " or ".join(known) or "one that exists"


def _felt(case: Case, istiod: Istiod, kind: str, name: str) -> tuple[tuple[Viewpoint, ...], bool]:
    """Who would use the route at this parent, and whether they are served all the same."""
    if kind in {"Service", "ServiceEntry"}:
        return tuple(p for v in case.views if v.callers.proxy.kind == "sidecar" for p in v.callers.viewpoints) or (
            Viewpoint(istiod.cluster, "sidecar", name.partition("/")[0]),
        ), True
    at = tuple(g.viewpoint for g in gates(case.mesh) if any(b.ref == f"{kind} {name}" for b in g.bound))
    served = any(v.steps for v in case.views if v.callers.proxy.kind == "gateway")
    return at or (Viewpoint(istiod.cluster, "gateway", name.partition("/")[0]),), served


def _status(route: APIRoute) -> Iterator[str]:
    for p in route.status.parents or ():
        for c in p.conditions or ():
            if c.type == "Accepted" and c.status == "False":
                yield f"status of {route.ref}: Accepted False, {c.reason}"


def _message(host: str, route: APIRoute, parent: str, why: str, *, served: bool) -> str:
    effect = f"its rules for {host} have no effect there" if served else f"nobody serves {host} there"
    return f"{parent} does not take {route.ref}, so {effect}: {why}."


def _listeners(istiod: Istiod, gateway: str) -> Iterator[str]:
    found = api_gateway(istiod, gateway)
    for li in found.spec.listeners if found else ():
        allowed = li.allowed_routes
        spaces = allowed.namespaces.from_ if allowed else "Same"
        kinds = f", kinds {', '.join(k.kind for k in allowed.kinds)}" if allowed and allowed.kinds else ""
        yield f"listener {li.name} of Gateway {gateway}: {li.protocol} port {li.port}, hostname {li.hostname or '*'}, routes of namespaces {spaces}{kinds}"
