"""gw-strict-merging (MESH707)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import bindings
from checks.finding import Finding, check
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("gw-strict-merging", when=bound)
def gw_strict_merging(case: Case) -> Iterator[Finding]:
    """An Istio Gateway of another namespace selects the pods of a gateway that istiod made for the Gateway API, and is not merged into it.

    Pods of a managed Gateway API gateway take Istio Gateways of their own namespace only (PILOT_ENABLE_STRICT_GATEWAY_MERGING, on by
    default). One that stands elsewhere has no listener, though its selector matches.

    How to see it: `istioctl proxy-config listeners <gateway pod>` lacks the port.

    How to fix it: move the Gateway into the gateway's namespace, or write an HTTPRoute for the gateway.
    """
    for b in bindings(case, "gw-strict-merging"):
        found = b.gateway
        if found is None:
            continue
        yield case.finding(
            "gw-strict-merging",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=found.ref,
            path="metadata.namespace",
            message=f"Nobody serves {case.host} at Gateway {b.name}: the pods that it selects belong to a Gateway API gateway of another namespace.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref} stands in namespace {found.namespace}",
                *(
                    f"the pods that it selects run in {g.namespace} and serve {', '.join(sorted({x.ref for x in g.bound if x.managed}))}"
                    for g in b.gates
                ),
            ),
            fix=f"Move {found.ref} to namespace {b.gates[0].namespace}, or bind an HTTPRoute to that gateway.",
            commands=(f"istioctl proxy-config listeners <gateway pod> -n {b.gates[0].namespace}",),
        )
