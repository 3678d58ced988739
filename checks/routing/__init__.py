"""VirtualServices and where they lead (MESH2xx), and what is said of a destination as a person wrote it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.case import short
from checks.resources import PortSelector, RouteDestination, VirtualService, WeightedDestination
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from checks.case import Branch, Case
    from checks.finding import Finding
    from checks.istiod import Istiod
    from checks.patches import Edit
    from checks.registry import HostPort, HostService

_PLACE = re.compile(r"spec\.(http|tls|tcp)\[(\d+)\]\.route\[(\d+)\]")


def virtual_service(istiod: Istiod, ref: str) -> VirtualService | None:
    """A VirtualService by its ref."""
    found = istiod.once("virtual services", lambda: {v.ref: v for v in istiod.all(VirtualService) if isinstance(v, VirtualService)})
    return found.get(ref)


def written(branch: Branch) -> RouteDestination | None:
    """A destination as its VirtualService says it, before names and ports are completed; None where no VirtualService leads there."""
    place = _PLACE.fullmatch(branch.path)
    vs = virtual_service(branch.view.ups.istiod, branch.resource)
    if place is None or vs is None:
        return None
    return _route(vs, place[1], int(place[2]))[int(place[3])].destination


def _route(vs: VirtualService, kind: str, rule: int) -> tuple[WeightedDestination, ...]:
    return getattr(vs.spec, kind)[rule].route or ()


def registered(branch: Branch) -> HostService | None:
    """The destination's service with every port that istiod knows of it, whatever a Sidecar leaves the caller; None when it does not see it."""
    seen, istiod, namespace = branch.upstream.service, branch.view.ups.istiod, branch.view.ups.proxy.namespace
    every = istiod.by_host.get(branch.upstream.host, ())
    mine = [s for s in every if (s.namespace == seen.namespace if seen is not None else istiod.visible(s, namespace))]
    return max(mine, key=lambda s: len(s.ports), default=seen)


def no_port(branch: Branch) -> bool:
    """Whether the destination's port is none of any service of its host that its caller may see, whatever a Sidecar leaves it.

    A service that only the rule brings to its caller is brought with the rule's port, so one without that port is not there at all.
    """
    u, istiod = branch.upstream, branch.view.ups.istiod
    shown = [s for s in istiod.by_host.get(u.host, ()) if istiod.visible(s, branch.view.ups.proxy.namespace)]
    known = shown if u.service is None else [u.service, *shown]
    return bool(known) and not any(s.port(u.port) for s in known)


def unknown_host(branch: Branch) -> bool:
    """Whether no service of the mesh has the destination's host."""
    u = branch.upstream
    return u.service is None and bool(u.host) and not branch.view.ups.istiod.by_host.get(u.host)


def by_rule(case: Case) -> list[list[Branch]]:
    """Every destination of every caller, those of one written rule together."""
    groups: dict[object, list[Branch]] = {}
    for b in case.branches:
        groups.setdefault((b.place, b.path.rpartition("[")[0]), []).append(b)
    return list(groups.values())


def ports(found: Sequence[HostPort]) -> str:
    """Ports in words: `80 (http), 443 (https)`."""
    return ", ".join(f"{p.number} ({p.name})" if p.name else str(p.number) for p in found)


def with_port(number: int) -> Callable[[RouteDestination], RouteDestination]:
    """Writes a port into a destination."""
    return lambda destination: replace(destination, port=PortSelector(number))


def with_host(host: str) -> Callable[[RouteDestination], RouteDestination]:
    """Writes another host into a destination."""
    return lambda destination: replace(destination, host=host)


def mend(case: Case, branches: Sequence[Branch], change: Callable[[RouteDestination], RouteDestination]) -> str | None:
    """The patch that writes the destinations of one VirtualService anew."""
    first = branches[0]
    vs = virtual_service(first.view.ups.istiod, first.resource)
    edits: list[Edit] = []
    for path in dict.fromkeys(b.path for b in branches):
        place = _PLACE.fullmatch(path)
        if vs is None or place is None:
            return None
        kind, rule, at = place[1], int(place[2]), int(place[3])
        new = change(_route(vs, kind, rule)[at].destination)
        edits.append((("spec", kind, rule, "route", at, "destination"), _plain(new)))
    return case.patch(first.view.ups.istiod.cluster, vs, *edits)


def _plain(d: RouteDestination) -> dict[str, object]:
    subset = {"subset": d.subset} if d.subset else {}
    port = {"port": {"number": d.port.number}} if d.port else {}
    return {"host": d.host, **subset, **port}


def omitted(case: Case, cause: str, branches: Sequence[Branch]) -> Finding:
    """The finding of a destination whose port is left out, where istiod's choice is none of its service's ports."""
    first = branches[0]
    u = first.upstream
    service = registered(first) or u.service
    known = service.ports if service else ()
    host, share, source = short(u.host), case.share(branches), service.sources[0][1] if service else ""
    only = known[0] if len(known) == 1 else None
    meant = only or next((p for p in known if p.http), None) if first.step.protocol == "http" else only
    where = "its only port is" if only else "its ports are"
    return case.finding(
        cause,
        cluster=case.cluster_of(first),
        resource=first.resource,
        path=f"{first.path}.destination.port",
        message=(
            f"{percent(share)} of the requests of a rule go to {host} without a port: istiod takes the called port {u.port}, "
            f"which {host} does not have; {where} {ports(known)}."
        ),
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(f"{source} has ports {ports(known)}", f"{first.path} of {first.resource} names no destination.port"),
        fix=f"Set destination.port.number to {only.number if only else f'one of {ports(known)}'}.",
        patch=mend(case, branches, with_port(meant.number)) if meant else None,
        commands=("istioctl proxy-config routes <pod> -o json", f"istioctl proxy-config cluster <pod> --fqdn {u.host}"),
    )
