"""vs-gateway-missing (MESH208)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Binding, bindings, virtual_service
from checks.finding import Finding, check
from checks.gateways import api_gateway
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("vs-gateway-missing", when=bound)
def vs_gateway_missing(case: Case) -> Iterator[Finding]:
    """A VirtualService is bound to a Gateway that does not exist.

    A bare name means a Gateway in the VirtualService's own namespace; a Gateway elsewhere is written `namespace/name`. istiod says nothing:
    the VirtualService is given to no gateway, and a gateway that was meant answers 404 (flag NR) for the host.

    How to see it: `kubectl get gateways -A` has no such namespace and name; `istioctl proxy-config routes <gateway pod>` lacks the host.

    How to fix it: write `namespace/name` of a Gateway that exists, or create it.
    """
    for b in bindings(case, "vs-gateway-missing"):
        namespace, _, name = b.name.partition("/")
        near = sorted(f"{g.namespace}/{g.name}" for g in b.istiod.gateways if g.name == name)
        written = _written(b)
        served = "no gateway serves the host for it" if b.share else "another gateway serves the host all the same"
        meant = f"{near[0]} exists: write that" if near else "Create the Gateway, or name one that exists"
        missing = "does not exist"
        if api_gateway(b.istiod, b.name) is not None:
            missing = "is of the Gateway API and takes no VirtualService"
            meant = "Write a route of the Gateway API for it, or a Gateway of networking.istio.io that selects its pods"
        yield case.finding(
            "vs-gateway-missing",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=b.ruleset.ref,
            path=f"spec.gateways[{b.index}]",
            message=f"{b.ruleset.ref} is bound to Gateway {b.name}, which {missing}: {served}.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"spec.gateways[{b.index}] of {b.ruleset.ref} says {written}, which means Gateway {name} in namespace {namespace}",
                f"Gateways that exist: {', '.join(sorted(f'{g.namespace}/{g.name}' for g in b.istiod.gateways)) or 'none'}",
            ),
            fix=f"{meant}.",
            patch=_patch(case, b, near),
            commands=(
                "kubectl get gateways.networking.istio.io -A",
                f"istioctl proxy-config routes <gateway pod> -o json | grep {case.host}",
            ),
        )


def _written(b: Binding) -> str:
    vs = virtual_service(b.istiod, b.ruleset.ref)
    return (vs.spec.gateways or ("mesh",))[b.index] if vs else b.name


def _patch(case: Case, b: Binding, near: list[str]) -> str | None:
    vs = virtual_service(b.istiod, b.ruleset.ref)
    return case.patch(b.istiod.cluster, vs, (("spec", "gateways", b.index), near[0])) if len(near) == 1 else None
