"""gwapi-not-programmed (MESH726)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.answers import Viewpoint
from checks.binding import Gate, gates, idle
from checks.finding import Finding, check
from checks.gatewayapi import CONTROLLERS
from checks.gateways import about, api_gateway, listening, stopped
from checks.resources import APIGateway, GatewayClass, Pod, Service
from checks.viewpoints import callers
from checks.when import holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.gatewayapi import BoundGateway
    from checks.istiod import Istiod


@check("gwapi-not-programmed", when=holds(APIGateway))
def gwapi_not_programmed(case: Case) -> Iterator[Finding]:
    """A Gateway of the Gateway API is not in service: no ready pod, no Service, no such port, no address, or istiod says Programmed False.

    istiod makes a Deployment and a Service for a Gateway, or uses the Service that `spec.addresses` names, of the Gateway's own namespace. Where
    that is missing, or has not the listener's port, or got no address, nobody can reach the hosts of its routes. Nor does anybody where there is
    no GatewayClass of the name that the Gateway says: no controller looks at it.

    How to see it: `kubectl get gateways` shows PROGRAMMED False, or no address.

    How to fix it: what the Gateway's condition Programmed says.
    """
    yield from _of_no_class(case)
    for name, (istiod, listeners) in listening(case).items():
        found = api_gateway(istiod, name)
        at = [g for g in gates(case.mesh) if g.ups.istiod is istiod and any(b in g.bound for b in listeners)]
        why = _why(case, istiod, found, listeners, at) if found is not None else None
        if found is None or why is None:
            continue
        here = {g.viewpoint for g in at}
        served = any(v.steps and v.callers.viewpoints[0] not in here for v in case.views if v.callers.proxy.kind == "gateway")
        path, reason = why
        conditions = [
            f"status of {found.ref}: {c.type} {c.status}, {c.reason}: {c.message}".rstrip(": ") for c in found.status.conditions or ()
        ]
        yield case.finding(
            "gwapi-not-programmed",
            cluster=case.mesh.cluster(istiod.cluster).name,
            resource=found.ref,
            path=path,
            message=f"Nobody reaches {case.host} at Gateway {name}: {reason}.",
            share=0.0 if served else 1.0,
            viewpoints=tuple(g.viewpoint for g in at) or (Viewpoint(istiod.cluster, "gateway", found.namespace),),
            evidence=(f"Gateway {name} of class {found.spec.gateway_class_name} should be served by {_services(listeners)}", *conditions),
            fix=f"Let spec.addresses of {found.ref} name a Service of namespace {found.namespace}, or move the Gateway to that Service's namespace."
            if path == "spec.addresses"
            else f"Bring up what serves Gateway {name}: {reason}.",
            commands=(f"kubectl -n {found.namespace} describe gateways.gateway.networking.k8s.io {found.name}",),
        )


def _of_no_class(case: Case) -> Iterator[Finding]:
    """The Gateways of the host's routes whose class nobody defines; istiod knows its own classes without (FetchGatewayClass)."""
    for istiod in case.mesh.control_planes:
        where = case.mesh.cluster(istiod.cluster)
        named = {name: found for _, _, kind, name in about(istiod, case.host) if kind == "Gateway" and (found := api_gateway(istiod, name))}
        known = sorted({c.name for c in where.all(GatewayClass)}) if named else []
        for name, found in named.items() if known else ():
            wanted = found.spec.gateway_class_name
            taken = any(c.type == "Accepted" and c.status == "True" for c in found.status.conditions or ())
            if wanted in known or wanted in CONTROLLERS or taken:
                continue
            near = names.nearest(wanted, known, 1)
            yield case.finding(
                "gwapi-not-programmed",
                cluster=where.name,
                resource=found.ref,
                path="spec.gatewayClassName",
                message=f"Nobody serves {case.host} at Gateway {name}: there is no GatewayClass {wanted}, so no controller looks at it.",
                share=0.0 if any(v.steps for v in case.views if v.callers.proxy.kind == "gateway") else 1.0,
                viewpoints=(Viewpoint(istiod.cluster, "gateway", found.namespace),),
                evidence=(f"{found.ref} says gatewayClassName {wanted}", f"GatewayClasses: {', '.join(known)}"),
                fix=f"Correct spec.gatewayClassName of {found.ref}{f' (did you mean {near[0]}?)' if near else ''}, or create GatewayClass {wanted}.",
                commands=(
                    "kubectl get gatewayclasses",
                    f"kubectl -n {found.namespace} describe gateways.gateway.networking.k8s.io {found.name}",
                ),
            )


def _services(listeners: list[BoundGateway]) -> str:
    every = dict.fromkeys(x for b in listeners for x in b.services or ())
    return ", ".join(f"Service {s.split('.')[1]}/{s.split('.')[0]}" if s.endswith(f".svc.{names.DOMAIN}") else s for s in every)


def _why(case: Case, istiod: Istiod, found: APIGateway, listeners: list[BoundGateway], at: list[Gate]) -> tuple[str, str] | None:
    """The field and the reason, nearest first; None when all is well."""
    services = dict.fromkeys(x for b in listeners for x in b.services or ())
    if not at:
        where = [c for c in case.mesh.clusters if case.mesh.istiod(c.name) is istiod]
        for c in where:
            case.mesh.require(c, Service)
            case.mesh.require(c, Pod)
        if not any(c.proxy.pod for c in callers(case.mesh)):
            return None  # manifests without pods say nothing of who runs
        known = [s for s in services if s in istiod.by_host]
        if not known:
            return "spec", f"{_services(listeners)} does not exist"
        if not any(s.namespace == found.namespace for h in known for s in istiod.by_host[h]):
            return "spec.addresses", f"{_services(listeners)} is in another namespace, and only pods of its own serve a Gateway"
        if stopped(case, istiod, listeners):
            return None  # workload-scaled-zero
        return "spec", f"no gateway pod stands behind {_services(listeners)}"
    closed = [
        b for b in listeners if not any(x.gateway is b for g in at for group in (*g.merged.by_route.values(), g.merged.l4) for x in group)
    ]
    lost = [b for b in closed if not b.shut and not any(x.gateway is b for g in at for x, _ in g.merged.rejected)]
    if lost and len(lost) == len(listeners):
        ports = ", ".join(sorted({str(s.port.number) for b in lost for s in b.servers}))
        return "spec.listeners", f"{_services(listeners)} has no port {ports}"
    unreached = idle(case.mesh)
    if all(g.viewpoint in unreached for g in at):
        return "spec", f"no pod of {_services(listeners)} is ready"
    for said in found.status.conditions or () if not all(b.shut for b in listeners) else ():  # their certificates have a cause of their own
        if said.type == "Programmed" and said.status == "False":
            return "status.conditions", f"Programmed is False, {said.reason}{f': {said.message}' if said.message else ''}".rstrip(".")
    return None
