"""gwapi-inference-epp (MESH729)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.gateways import backend, drop, foreign, said
from checks.resources import Pod
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case

SWITCH = "ENABLE_GATEWAY_API_INFERENCE_EXTENSION"


@explains("gwapi-inference-epp")
def _explains(_: Case, branch: Branch) -> bool:
    b = backend(branch)
    return b is not None and b.kind == "InferencePool" and not branch.upstream.host and not foreign(branch)


@check("gwapi-inference-epp", when=explained)
def gwapi_inference_epp(case: Case) -> Iterator[Finding]:
    """A route leads to an InferencePool, and this Istio does not serve InferencePools.

    istiod reads InferencePools only with ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true, which is off by default. Otherwise the reference is
    refused: requests for this backend's share get 500 (flag NC).

    How to see it: the route's status has ResolvedRefs False: "InferencePool is not enabled".

    How to fix it: set ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true on istiod, with the pool's endpoint picker deployed; or lead the route to a
    Service.
    """
    for branches in case.caused("gwapi-inference-epp"):
        first = branches[0]
        b = backend(first)
        cluster = case.mesh.cluster(first.view.ups.istiod.cluster)
        if b is None:
            continue
        istiods = [p for p in cluster.all(Pod) if p.labels.get("app") == "istiod"]
        values = {e.value for p in istiods for c in p.spec.containers for e in c.env or () if e.name == SWITCH}
        if "true" in values:
            continue  # the pool itself decides then, and InferencePools are not read
        namespace, share = first.resource.partition(" ")[2].partition("/")[0], case.share(branches)
        yield case.finding(
            "gwapi-inference-epp",
            cluster=cluster.name,
            resource=first.resource,
            path=f"{first.path}.kind",
            message=f"{percent(share)} of the requests of a rule fail: istiod does not serve {said(b, namespace)}, since InferencePools are not switched on.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{first.path} of {first.resource} names {said(b, namespace)}",
                f"{SWITCH} of istiod is {', '.join(sorted(values)) or 'not set, which means false'}",
            ),
            fix=f"Set {SWITCH}=true on istiod and deploy the pool's endpoint picker, or lead {first.path} to a Service.",
            patch=drop(case, branches),
            commands=("kubectl get deployments -A -l app=istiod -o yaml",),
        )
