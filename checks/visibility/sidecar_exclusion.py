"""sidecar-exclusion (MESH503)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import short
from checks.finding import Finding, check
from checks.patches import AWAY
from checks.visibility import Hidden, hidden, spaces
from checks.when import missed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.patches import Edit
    from checks.resources import Sidecar


@check("sidecar-exclusion", when=missed)
def sidecar_exclusion(case: Case) -> Iterator[Finding]:
    """The Sidecar of a caller keeps out a host that the caller means to call.

    An egress host that begins with `~` excludes what the other lines import: `~shop/cart.shop.svc.cluster.local` one host, `~/*` all. What
    is excluded is not pushed; calls pass through unseen (ALLOW_ANY) or are refused (REGISTRY_ONLY).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` prints nothing, although another line of the Sidecar imports its namespace.

    How to fix it: remove the exclusion, or make it narrower.
    """
    for group in hidden(case, "sidecar-exclusion"):
        first = group[0]
        sidecar = first.scope.sidecar
        if sidecar is None:
            continue
        viewpoints = tuple(v for h in group for v in h.viewpoints)
        lines = [h for e in sidecar.spec.egress or () for h in e.hosts or ()]
        excluding = ", ".join(h for h in lines if h.startswith("~"))
        yield case.finding(
            "sidecar-exclusion",
            cluster=case.mesh.cluster(first.istiod.cluster).name,
            resource=sidecar.ref,
            path="spec.egress",
            message=f"Calls of {spaces(viewpoints)} to {short(case.host)} {first.effect}: {sidecar.ref} excludes it ({excluding}).",
            share=first.share,
            viewpoints=viewpoints,
            evidence=(f"{sidecar.ref} says {', '.join(lines)}", *dict.fromkeys(a for h in group for a in h.asks)),
            fix=(
                f"Name what these callers call in spec.egress.hosts of {sidecar.ref} instead of {excluding}."
                if lines == ["~/*"]
                else f"Remove {excluding} from spec.egress.hosts of {sidecar.ref}, or make it narrower."
            ),
            patch=_without(case, sidecar, group),
            commands=(
                f"istioctl proxy-config cluster <pod>.{viewpoints[0].namespace} --fqdn {case.host}",
                f"kubectl -n {sidecar.namespace} get sidecar {sidecar.name} -o yaml",
            ),
        )


def _without(case: Case, sidecar: Sidecar, group: list[Hidden]) -> str | None:
    """The exclusions of the host taken away."""
    edits: list[Edit] = []
    for i, e in enumerate(sidecar.spec.egress or ()):
        out = [j for j, h in enumerate(e.hosts or ()) if h.startswith("~") and names.subset_of(case.host, h.rpartition("/")[2])]
        edits += [(("spec", "egress", i, "hosts", j), AWAY) for j in reversed(out)]
    return case.patch(group[0].istiod.cluster, sidecar, *edits)
