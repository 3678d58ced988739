"""gwapi-refnotpermitted (MESH722)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.gateways import backend, drop, foreign, said
from checks.resources import ReferenceGrant
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("gwapi-refnotpermitted")
def _explains(_: Case, branch: Branch) -> bool:
    return foreign(branch)


@check("gwapi-refnotpermitted", when=explained)
def gwapi_refnotpermitted(case: Case) -> Iterator[Finding]:
    """A route of a gateway refers to a backend of another namespace, and no ReferenceGrant there permits it.

    Without a grant the reference is refused: requests for this backend's share get 500 (flag NC), though the Service is well.

    How to see it: the route's status has ResolvedRefs False, reason RefNotPermitted.

    How to fix it: create a ReferenceGrant in the backend's namespace, or move the route there.
    """
    for branches in case.caused("gwapi-refnotpermitted"):
        first = branches[0]
        b = backend(first)
        if b is None:
            continue
        case.mesh.require(case.mesh.cluster(first.view.ups.istiod.cluster), ReferenceGrant)
        kind, _, ref = first.resource.partition(" ")
        namespace, share = ref.partition("/")[0], case.share(branches)
        grants = sorted(g.ref for g in first.view.ups.istiod.all(ReferenceGrant) if g.namespace == b.namespace)
        yield case.finding(
            "gwapi-refnotpermitted",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.namespace",
            message=f"{percent(share)} of the requests of a rule fail: {first.resource} may not refer to {said(b, namespace)}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{first.path} of {first.resource} names {said(b, namespace)}",
                f"ReferenceGrants in {b.namespace}: {', '.join(grants) or 'none'}; none lets a {kind} of {namespace} refer to {b.kind} {b.name}",
            ),
            fix=f"Create a ReferenceGrant in {b.namespace} from {kind} of namespace {namespace} to {b.kind} {b.name}.",
            patch=drop(case, branches),
            commands=(f"kubectl -n {b.namespace} get referencegrants -o yaml",),
        )
