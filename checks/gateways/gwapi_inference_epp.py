"""gwapi-inference-epp (MESH729)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, MeshCue, check, explained, explains
from checks.gatewayapi import POOL
from checks.gateways import backend, drop, foreign, said
from checks.names import service_host
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.mesh import Mesh

SWITCH = "ENABLE_GATEWAY_API_INFERENCE_EXTENSION"
_PICKER = "istio.io/inferencepool-extension-"


@MeshCue
def _served(mesh: Mesh) -> bool:
    """Some istiod serves InferencePools."""
    return any(i.plane.inference for i in mesh.control_planes)


@explains("gwapi-inference-epp")
def _explains(_: Case, branch: Branch) -> bool:
    b = backend(branch)
    return b is not None and b.kind == "InferencePool" and not branch.upstream.host and not foreign(branch)


@check("gwapi-inference-epp", when=(explained, _served))
def gwapi_inference_epp(case: Case) -> Iterator[Finding]:
    """A route leads to an InferencePool, and this Istio does not serve it, or the pool's endpoint picker does not answer.

    istiod reads InferencePools only with ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true, which is off by default. Otherwise the reference is
    refused, and so is one to a pool that does not exist: requests for this backend's share get 500 (flag NC). Of a pool that is served the
    gateway asks the endpoint picker at each request: where nobody answers, requests fail, unless its failureMode is FailOpen.

    How to see it: the route's status has ResolvedRefs False: "InferencePool is not enabled", or "backend not found".

    How to fix it: set ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true on istiod, with the pool's endpoint picker deployed; or lead the route to a
    Service.
    """
    for branches in case.caused("gwapi-inference-epp"):
        first = branches[0]
        b = backend(first)
        if b is None:
            continue
        istiod = first.view.ups.istiod
        pool = said(b, first.resource.partition(" ")[2].partition("/")[0])
        if istiod.plane.inference:
            why = "istiod has made no Service of it, as it does of each pool that it reads"
            proof, fix = f"no Service has label {POOL}={b.name}", f"Create {pool}, or lead {first.path} to a Service."
        else:
            why = "InferencePools are not switched on"
            values = {v for name, v in istiod.plane.switches if name == SWITCH}
            proof = f"{SWITCH} of istiod is {', '.join(sorted(values)) or 'not set, which means false'}"
            fix = f"Set {SWITCH}=true on istiod and deploy the pool's endpoint picker, or lead {first.path} to a Service."
        yield _finding(
            case,
            branches,
            f"{first.path}.kind",
            f"istiod does not serve {pool}, since {why}",
            (f"{first.path} of {first.resource} names {pool}", proof),
            fix,
            "kubectl get deployments -A -l app=istiod -o yaml",
        )
    for branches in _unanswered(case):
        first = branches[0]
        b, service = backend(first), first.upstream.service
        if b is None or service is None:
            continue
        pool = said(b, service.namespace)
        picker, port = service.labels[f"{_PICKER}service"], service.labels.get(f"{_PICKER}port", "")
        for one in branches:
            case.miss(one, one.upstream, 1.0)
        yield _finding(
            case,
            branches,
            first.path,
            f"the endpoint picker of {pool}, Service {service.namespace}/{picker}, has nobody to answer on port {port}",
            (
                f"{first.path} of {first.resource} names {pool}",
                f"its endpoint picker is {picker}:{port}, and its failureMode is not FailOpen",
            ),
            f"Bring up Service {service.namespace}/{picker}, or let {pool} say failureMode FailOpen.",
            f"kubectl -n {service.namespace} get endpointslices -l kubernetes.io/service-name={picker}",
        )


def _unanswered(case: Case) -> list[list[Branch]]:
    """The destinations that are InferencePools whose endpoint picker nobody answers for, those of one place together."""
    groups: dict[tuple[str, str], list[Branch]] = {}
    for b in case.branches:
        labels = b.upstream.service.labels if b.upstream.service else {}
        picker, port = labels.get(f"{_PICKER}service"), labels.get(f"{_PICKER}port", "")
        if not picker or not port.isdigit() or b.upstream.service is None or b.share <= 0 or b.view.callers.proxy.kind != "gateway":
            continue
        if labels.get(f"{_PICKER}failure-mode") == "FailOpen" or b.upstream.fails:
            continue
        host = service_host(picker, b.upstream.service.namespace)
        case.also.add((host, b.upstream.service.namespace))
        if not b.view.ups.of(host, int(port)).usable:
            groups.setdefault((b.resource, b.path), []).append(b)
    return list(groups.values())


def _finding(case: Case, branches: list[Branch], path: str, why: str, evidence: tuple[str, ...], fix: str, command: str) -> Finding:
    share = case.share(branches)
    return case.finding(
        "gwapi-inference-epp",
        cluster=case.cluster_of(branches[0]),
        resource=branches[0].resource,
        path=path,
        message=f"{percent(share)} of the requests of a rule fail: {why}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=evidence,
        fix=fix,
        patch=drop(case, branches),
        commands=(command,),
    )
