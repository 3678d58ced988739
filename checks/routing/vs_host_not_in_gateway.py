"""vs-host-not-in-gateway (MESH210)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import bindings
from checks.finding import Finding, check
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Binding
    from checks.case import Case


@check("vs-host-not-in-gateway", when=bound)
def vs_host_not_in_gateway(case: Case) -> Iterator[Finding]:
    """A VirtualService is bound to a Gateway none of whose servers takes its host.

    A gateway serves a VirtualService's host only where it meets `hosts` of a server, with the namespace before the slash if there is one.
    Where they do not meet the gateway has no virtual host: 404 (flag NR), or a reset connection with TLS.

    How to see it: `istioctl proxy-config routes <gateway pod>` lacks the host.

    How to fix it: add the host to the Gateway's server, or correct the VirtualService's host.
    """
    for b in bindings(case, "vs-host-not-in-gateway"):
        found = b.gateway
        if found is None:
            continue
        said = "; ".join(f"port {s.port.number}: {', '.join(s.hosts or ())}" for s in found.spec.servers or ()) or "no server"
        served = "the gateway answers 404 for it" if b.share else "another gateway serves it all the same"
        yield case.finding(
            "vs-host-not-in-gateway",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=b.ruleset.ref,
            path="spec.hosts",
            message=f"Gateway {b.name} does not take host {case.host} of {b.ruleset.ref}: {served}.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref} takes {said}",
                f"{b.ruleset.ref} in namespace {b.ruleset.namespace} has hosts {', '.join(b.ruleset.hosts)}",
            ),
            fix=f"Add {case.host} to the hosts of a server of {found.ref}, or correct the hosts of {b.ruleset.ref}.",
            patch=_patch(case, b),
            commands=(
                f"kubectl -n {found.namespace} get gateways.networking.istio.io {found.name} -o jsonpath='{{.spec.servers[*].hosts}}'",
                f"istioctl proxy-config routes <gateway pod> -n {found.namespace}",
            ),
        )


def _patch(case: Case, b: Binding) -> str | None:
    """The host added to the Gateway's only server."""
    servers = b.gateway.spec.servers or () if b.gateway else ()
    if len(servers) != 1 or not b.share:
        return None
    return case.patch(b.istiod.cluster, b.gateway, (("spec", "servers", 0, "hosts", len(servers[0].hosts or ())), case.host))
