"""sidecar-egress-missing (MESH501)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.visibility import Hidden, hidden, spaces
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import Sidecar


@check("sidecar-egress-missing", when=missed)
def sidecar_egress_missing(case: Case) -> Iterator[Finding]:
    """The Sidecar of a caller does not import a host that the caller means to call.

    A Sidecar's `egress` lists everything that its proxies may know; what it leaves out is not pushed to them. Their calls pass through
    unseen (ALLOW_ANY), so that no rule, no balancing and no mTLS applies, or get 502 and closed connections (REGISTRY_ONLY).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing.

    How to fix it: add the host, as `namespace/host`, to spec.egress.hosts of the Sidecar.
    """
    for group in hidden(case, "sidecar-egress-missing"):
        first = group[0]
        sidecar = first.scope.sidecar
        if sidecar is None:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        service = first.istiod.by_host[case.host][0]
        yield case.finding(
            "sidecar-egress-missing",
            cluster=case.mesh.cluster(first.istiod.cluster).name,
            resource=sidecar.ref,
            path="spec.egress",
            message=f"Calls of {spaces(viewpoints)} to {short(case.host)} {first.effect}: {sidecar.ref} does not import it.",
            share=first.share,
            viewpoints=viewpoints,
            evidence=(
                f"{sidecar.ref} imports {', '.join(_lines(sidecar)) or 'nothing'}",
                *dict.fromkeys(a for h in group for a in h.asks),
                f"{service.sources[0][1]} is exported to them",
            ),
            fix=f"Add {service.namespace}/{case.host} to spec.egress.hosts of {sidecar.ref}.",
            patch=_importing(case, sidecar, f"{service.namespace}/{case.host}", group),
            commands=(
                f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",
                f"kubectl -n {sidecar.namespace} get sidecar {sidecar.name} -o yaml",
            ),
        )


def _lines(sidecar: Sidecar) -> Iterator[str]:
    """What a Sidecar imports; of a listener of its own port, for which."""
    for e in sidecar.spec.egress or ():
        only = f" (port {e.port.number} alone)" if e.port is not None else ""
        yield from (f"{h}{only}" for h in e.hosts or ())


def _importing(case: Case, sidecar: Sidecar, line: str, group: list[Hidden]) -> str | None:
    """A line added to the first listener for every port."""
    egress = sidecar.spec.egress or ()
    place = next((i for i, e in enumerate(egress) if e.port is None and e.hosts), None)
    if place is None:
        return None
    return case.patch(group[0].istiod.cluster, sidecar, (("spec", "egress", place, "hosts", len(egress[place].hosts or ())), line))
