"""vs-host-not-in-registry (MESH219)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.binding import rulesets, ruling, virtual_service
from checks.finding import Finding, HostCue, check
from checks.resources import L4Match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from checks.answers import Viewpoint
    from checks.case import Case, View
    from checks.istiod import Istiod
    from checks.rulesets import RuleSet


@HostCue
def _unknown(istiod: Istiod) -> Iterable[str]:
    """A VirtualService of the host is all that the control plane knows of it."""
    return [host for host in ruling(istiod, lambda _: True) if host not in istiod.by_host]


@check("vs-host-not-in-registry", when=_unknown)
def vs_host_not_in_registry(case: Case) -> Iterator[Finding]:
    """A VirtualService of the mesh names a host that no Service and no ServiceEntry defines.

    Sidecars know such a host on port 80 only, and only for http rules. On every other port, and for tls and tcp rules, the VirtualService
    does nothing: calls pass through unseen, or are refused (502) where the mesh is REGISTRY_ONLY. Often it is a name that was meant to be a
    Service's: `cart.shop` is not completed, only names without any dot are.

    How to see it: `istioctl proxy-config routes <pod>` has the host in route 80 and nowhere else.

    How to fix it: write the host in full (`cart.shop.svc.cluster.local`), or add a ServiceEntry for it.
    """
    for istiod, r in rulesets(case):
        if r.gateway_api or "mesh" not in r.gateways or case.host not in {h.lower() for h in r.hosts} or _registered(istiod, case.host):
            continue
        lost = _elsewhere(r)
        if (r.gateways != ("mesh",) and not lost) or case.host in r.leads:
            continue  # a gateway's host that the mesh may use as well; a destination of that name is the fault to mend
        felt = [v for v in _inside(case, istiod) if any(r in li.rulesets for li in v.ups.scope.listeners)]
        refused = [v for v in felt if not v.ups.scope.allow_any]
        share = 1.0 if lost and refused else 0.0
        near = istiod.nearest(case.host, 2)
        yield case.finding(
            "vs-host-not-in-registry",
            cluster=case.mesh.cluster(istiod.cluster).name,
            resource=r.ref,
            path="spec.hosts",
            message=(
                f"Calls to {case.host} are refused (502): no Service or ServiceEntry defines it, so {_what(lost)} of {r.ref} is used by nobody."
                if share
                else f"{r.ref} takes effect on port 80 only: no Service and no ServiceEntry defines its host {case.host}."
            ),
            share=share,
            viewpoints=tuple(dict.fromkeys(x for v in (refused if share else felt) for x in v.callers.viewpoints)) or _everybody(case),
            evidence=(
                f"none of {len(istiod.by_host)} known hosts is {case.host}",
                *(f"near: {n}" for n in near),
                *(f"{path} of {r.ref} is for {said}" for path, said in lost),
            ),
            fix=f"Add a ServiceEntry for {case.host}{f', or write {near[0]}' if near else ''}.",
            patch=_patch(case, istiod, r),
            commands=(f"kubectl get serviceentries -A | grep {case.host}", "istioctl proxy-config routes <pod> --name 80"),
        )


def _what(lost: list[tuple[str, str]]) -> str:
    return lost[0][0]


def _everybody(case: Case) -> tuple[Viewpoint, ...]:
    return tuple(v for c in case.blind if c.proxy.kind == "sidecar" for v in c.viewpoints)


def _inside(case: Case, istiod: Istiod) -> list[View]:
    return [v for v in case.views if v.callers.proxy.kind == "sidecar" and v.ups.istiod is istiod]


def _registered(istiod: Istiod, host: str) -> bool:
    if host in istiod.by_host:
        return True
    wild = istiod.once("wildcard services", lambda: [h for h in istiod.by_host if names.is_wildcard(h)])
    return any(names.matches(h, host) for h in (istiod.by_host if names.is_wildcard(host) else wild))


def _elsewhere(r: RuleSet) -> list[tuple[str, str]]:
    """Rules that can only be meant for something else in the mesh than HTTP on port 80: of a ruleset that a gateway has too, those that name the mesh."""

    def inside(gateways: Sequence[str] | None) -> bool:
        return "mesh" in gateways if gateways else r.gateways == ("mesh",)

    out = [(rule.path, "TLS or TCP") for rule in (*r.tls, *r.tcp) if any(inside(m.gateways) for m in rule.matches or (L4Match(),))]
    for rule in r.http:
        ports = {m.port for m in rule.matches if inside(m.gateways)}
        if ports and not ports & {0, 80}:
            out.append((rule.path, f"port {', '.join(map(str, sorted(ports)))}"))
    return out


def _patch(case: Case, istiod: Istiod, r: RuleSet) -> str | None:
    """The host in full, where a Service has that name."""
    full = f"{case.host}.svc.{names.DOMAIN}"
    vs = virtual_service(istiod, r.ref)
    if vs is None or full not in istiod.by_host:
        return None
    edits = ((("spec", "hosts", i), full) for i, h in enumerate(vs.spec.hosts or ()) if h.lower() == case.host)
    return case.patch(istiod.cluster, vs, *edits)
