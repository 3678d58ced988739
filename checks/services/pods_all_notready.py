"""pods-all-notready (MESH303)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import idle
from checks.case import Branch, Case, endpoints_command, short, waits
from checks.clusters import ends, no_way_in
from checks.finding import Finding, MeshCue, check, explained, explains
from checks.gateways import backend
from checks.services import home, known, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Mesh


@explains("pods-all-notready", before=("subset-all-notready", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined or not service.kubernetes:
        return False
    endpoints = known(case, branch, service)
    health = {e.health for e in endpoints}
    if "healthy" in health:
        return False
    # pods without an address, such as those that no node takes, are in no EndpointSlice
    listed = {e.address for e in endpoints}
    unready = [p for _, p in case.unready(service) if p.status.pod_ip not in listed]
    pods = case.pods(service)
    left = [p for _, p in pods if not p.ended]
    if any(e.unready for e in endpoints) or (unready and len(unready) == len(left)):
        return True
    if health or left or backend(branch) is not None:  # that a route's backend has no pod is said at the route (gwapi-backend-empty)
        return False
    owners = case.owners(service)
    return any(w.wanted for _, w in owners) or (bool(pods) and not owners)


@MeshCue
def _unreached(mesh: Mesh) -> bool:
    """Some gateway has no ready pod."""
    return bool(idle(mesh))


@check("pods-all-notready", when=(explained, _unreached, no_way_in))
def pods_all_notready(case: Case) -> Iterator[Finding]:
    """Every pod of a service fails its readiness probe, or cannot even be made.

    A bad release, a dependency that the probe asks, a missing configuration: the pods run and none is ready; or a quota, an admission webhook or
    a missing service account keeps the workload from making one. Envoy knows their endpoints as unhealthy, or none, and answers every request
    with 503 "no healthy upstream" (flag UH). Where it is a gateway, nobody reaches the hosts that are bound to it, or that lie in its network.

    How to see it: `kubectl get pods` shows 0/1 or 1/2 ready; `kubectl describe pod` has the probe's answer.

    How to fix it: mend the app or its readiness probe.
    """
    groups: dict[str, list[Branch]] = {}
    for branches in case.caused("pods-all-notready"):
        for b in branches:
            groups.setdefault(b.upstream.service.hostname if b.upstream.service else "", []).append(b)
    for branches in groups.values():
        first = branches[0]
        service = first.upstream.service
        if service is None:
            continue
        unready = [e for e in case.endpoints(first.view.ups.istiod, service) if e.unready]
        waiting = {e.address: f"{e.workload or 'the endpoint'} at {e.address}: {e.reason}" for e in unready}
        lines = list(waiting.values()) or [f"{p.ref} in {c.name}: {waits(p)}" for c, p in case.unready(service)]
        ended = [f"{p.ref} in {c.name} has ended: {waits(p)}" for c, p in case.pods(service) if p.ended]
        by_hand = bool(unready) and not any(e.workload for e in unready)  # addresses that its slices name, of no pod
        owners = [(c, w) for c, w in case.owners(service) if w.wanted]
        share, count = case.share(branches), len(lines)
        wanting = [f"{w.ref} in {c.name} wants {w.wanted} pod{'s'[: w.wanted != 1]}, and there is none" for c, w in owners]
        said = f"no pod of {short(service.hostname)} is ready (0 of {count})"
        fix = "Make the pods ready: look at their readiness probe and at what the app says."
        if by_hand:
            said = f"no endpoint of {short(service.hostname)} is ready (0 of {count})"
            fix = "Mend what stands behind these addresses, and let its EndpointSlices say conditions.ready true."
        elif not lines and owners:
            said = f"{owners[0][1].ref} wants {owners[0][1].wanted} pod{'s'[: owners[0][1].wanted != 1]} and has none{' that runs' if ended else ''}"
            fix = "Find out why no pod is made: the workload's events name a quota, an admission webhook or a service account."
        elif not lines:
            said = f"every pod of {short(service.hostname)} has ended ({len(ended)} of {len(ended)})"
            fix = f"Let {short(service.hostname)} select pods that keep running: those of a Job end, and evicted ones do not come back."
        yield case.finding(
            "pods-all-notready",
            cluster=home(case, service, first),
            resource=service.sources[0][1],
            path="",
            message=f"{percent(share)} of the requests fail: {said}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(lines[:5] or (*wanting, *ended[:5])),
                *case.slices_evidence(service),
            ),
            fix=fix,
            commands=(
                slices_command(service)
                if by_hand
                else f"kubectl -n {service.namespace} get pods -l '{','.join(f'{k}={v}' for k, v in (service.selector or {}).items())}'",
                endpoints_command(first.upstream),
            ),
        )
    yield from _gateways(case)
    yield from _networks(case)


_AT_GATEWAY = "Make the gateway's pods ready: look at what they say, and at whether they have a control plane to listen to."


def _gateways(case: Case) -> Iterator[Finding]:
    """The gateways of the host whose pods are not ready; those of the Gateway API are told of by gwapi-not-programmed."""
    unreached = idle(case.mesh)
    views = [v for v in case.views if v.callers.proxy.kind == "gateway" and v.steps]
    served = any(v.callers.viewpoints[0] not in unreached for v in views)
    for v in views:
        sources = [s.source for s in v.steps if (s.source or "").startswith("VirtualService ") and case.asked(s.port)]
        services = unreached.get(v.callers.viewpoints[0], ())
        if not services or not sources:
            continue
        service = services[0]
        waiting = [
            f"{c.name}: {p.ref}: {waits(p)}"
            for c, p in case.unready(service)
            if c.name == v.callers.proxy.cluster or len(case.mesh.clusters) == 1
        ]
        selector = ",".join(f"{k}={v}" for k, v in (service.selector or {}).items())
        yield case.finding(
            "pods-all-notready",
            cluster=case.mesh.cluster(v.callers.proxy.cluster).name,
            resource=service.sources[0][1],
            path="",
            message=f"Nobody reaches {short(case.host)} at the gateway in {service.namespace}: no pod of {short(service.hostname)} is ready.",
            share=0.0 if served else 1.0,
            viewpoints=v.callers.viewpoints,
            evidence=(f"{sources[0]} is bound to it", *waiting[:5], *case.slices_evidence(service)),
            fix=_AT_GATEWAY,
            commands=(f"kubectl -n {service.namespace} get pods -l '{selector}'",),
        )


def _networks(case: Case) -> Iterator[Finding]:
    """The gateways of other networks whose pods are not ready: their load balancer has an address, and nobody behind it."""
    for end in ends(case, "pods-all-notready"):
        at = end.at
        yield end.finding(
            case,
            resource=at.service.ref,
            path="",
            why=f"no pod of {at.service.ref} in {at.cluster.name} is ready (0 of {len(at.pods)})",
            evidence=(f"{p.ref} in {at.cluster.name}: {waits(p)}" for p in at.pods[:5]),
            fix=_AT_GATEWAY,
            commands=(f"get pods -l '{at.selector}'",),
        )
