"""sidecar-ingress-port (MESH506)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.resources import Pod
from checks.seen import log_command, lost, refused, served, sources
from checks.services import ingress
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import Sidecar
    from checks.seen import Calls


@check("sidecar-ingress-port")
def sidecar_ingress_port(case: Case) -> Iterator[Finding]:
    """The server's Sidecar takes the calls of a port on to an endpoint at which nobody listens.

    `ingress[].defaultEndpoint` replaces what Istio would do, which is to hand a call on to the same port of the app. Where it names a port of
    which the app knows nothing, the server's own proxy is refused and answers 503 (flag UF, Connection_refused on `inbound|<port>||`).

    How to see it: the access log of the server's istio-proxy names the defaultEndpoint as the upstream host, and Connection_refused.

    How to fix it: set defaultEndpoint to the address at which the app listens, or leave it out.
    """
    groups: dict[tuple[str, str, int], tuple[Sidecar, list[Calls]]] = {}
    for s in served(case):
        calls = s.failing(refused)
        cluster = case.mesh.cluster(s.endpoint.cluster)
        pod = cluster.get(Pod, s.log.namespace, s.log.pod)
        found = ingress(case, cluster, pod, s.endpoint.port) if calls is not None and pod is not None else None
        if calls is not None and found is not None:
            home = case.mesh.cluster(case.mesh.istiod(cluster.name).cluster).name
            groups.setdefault((home, found[0].ref, found[1]), (found[0], []))[1].append(calls)
    for (home, ref, i), (sidecar, group) in groups.items():
        listener = (sidecar.spec.ingress or ())[i]
        part = lost(group)
        yield case.finding(
            "sidecar-ingress-port",
            cluster=home,
            resource=ref,
            path=f"spec.ingress[{i}].defaultEndpoint",
            message=(
                f"{percent(part)} of the requests of a rule to {short(case.host)} are refused: {ref} takes port {listener.port.number} on to "
                f"{listener.default_endpoint}, where nobody listens."
            ),
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(
                *sources(group),
                f"{ref} spec.ingress[{i}]: port {listener.port.number}, defaultEndpoint {listener.default_endpoint}",
            ),
            fix=f"Set defaultEndpoint of {ref} to the address at which the app listens, or leave it out.",
            commands=(log_command(group[0]), f"kubectl -n {sidecar.namespace} get sidecar {sidecar.name} -o yaml"),
        )
