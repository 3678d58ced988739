"""slice-targetref-pod-missing (MESH312)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command
from checks.finding import Finding, check, explained, explains
from checks.resources import Pod
from checks.services import by_service, known, kubernetes, missing_pods, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains(
    "slice-targetref-pod-missing",
    before=("slice-portname-mismatch", "svc-selector-no-pods", "pods-all-notready", "subset-empty-weighted", "subset-empty-all"),
)
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or known(case, branch, service):
        return False
    return bool(missing_pods(case, service))


@check("slice-targetref-pod-missing", when=explained)
def slice_targetref_pod_missing(case: Case) -> Iterator[Finding]:
    """An EndpointSlice points at pods that do not exist.

    istiod takes labels, identity and network of an endpoint from the pod that its targetRef names, and skips the endpoint while it does not
    know that pod: the metric `endpoint_no_pod` counts them. A slice written by hand with a made-up targetRef, or one that nobody
    keeps up to date, leaves the Service without endpoints: 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get endpointslices -o yaml` names the pod, `kubectl get pod` does not find it.

    How to fix it: leave targetRef out where the endpoint is no pod, or name the pod that is there.
    """
    for service, branches in by_service(case, "slice-targetref-pod-missing"):
        for c in case.mesh.clusters:
            case.mesh.require(c, Pod)
        missing = missing_pods(case, service)
        cluster, first, pod = missing[0]
        share = case.share(branches)
        index = next(i for i, e in enumerate(first.endpoints or ()) if e.target_ref is not None and e.target_ref.name == pod)
        yield case.finding(
            "slice-targetref-pod-missing",
            cluster=cluster.name,
            resource=first.ref,
            path=f"{first.within}addresses" if first.within else f"endpoints[{index}].targetRef",
            message=f"{percent(share)} of the requests fail: the endpoints of {service.sources[0][1]} point at pods that do not exist, so istiod skips them.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(f"{s.ref} in {c.name} names Pod {p}, which is not there" for c, s, p in missing[:5]),
                *case.slices_evidence(service),
            ),
            fix=f"Take targetRef out of {first.ref} where an endpoint is no pod, or let it name a pod that exists; a slice that Kubernetes manages is made anew once it is deleted.",
            commands=(slices_command(service), endpoints_command(branches[0].upstream)),
        )
