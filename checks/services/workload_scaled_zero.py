"""workload-scaled-zero (MESH305)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.answers import Viewpoint
from checks.binding import bindings, gates
from checks.case import Branch, Case, endpoints_command, going, short
from checks.clusters import ends, no_way_in
from checks.finding import Finding, check, explained, explains
from checks.gateways import listening, stopped
from checks.resources import APIGateway, DaemonSet
from checks.services import known
from checks.subsets import percent
from checks.when import bound, holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.resources import Workload


@explains(
    "workload-scaled-zero",
    before=(
        *("svc-selector-no-pods", "se-workloadselector-empty", "subset-scaled-to-zero", "subset-empty-weighted", "subset-empty-all"),
        "all-endpoints-terminating",
    ),
)
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined:
        return False
    if not service.kubernetes:  # a ServiceEntry selects pods as a Service does, and WorkloadEntries, which no workload makes
        return not case.candidates(branch.upstream) and case.off(service)
    return case.off(service) and going(known(case, branch, service))


@check("workload-scaled-zero", when=(explained, bound, holds(APIGateway), no_way_in))
def workload_scaled_zero(case: Case) -> Iterator[Finding]:
    """Every workload behind a service stands at 0 replicas.

    An autoscaler that scales to zero, a cron job that was not undone, a person: the Service has no endpoint, and every request to it gets
    503 "no healthy upstream" (flag UH). Where it is a gateway, nobody listens for the hosts that are bound to it; where it is the gateway of
    a network, no call from another network arrives there.

    How to see it: `kubectl get deployment` shows 0/0.

    How to fix it: scale the workload up.
    """
    groups: dict[str, list[Branch]] = {}
    for branches in case.caused("workload-scaled-zero"):
        for b in branches:
            groups.setdefault(b.upstream.service.hostname if b.upstream.service else "", []).append(b)
    for branches in groups.values():
        first = branches[0]
        service = first.upstream.service
        if service is None:
            continue
        owners = case.owners(service)
        cluster, workload = owners[0]
        share = case.share(branches)
        kind = workload.ref.partition(" ")[0].lower()
        scalable = not isinstance(workload, DaemonSet)
        refs = list(dict.fromkeys(w.ref for _, w in owners))
        yield case.finding(
            "workload-scaled-zero",
            cluster=cluster.name,
            resource=workload.ref,
            path="spec.replicas" if scalable else "spec.template.spec.nodeSelector",
            message=f"{percent(share)} of the requests fail: {' and '.join(refs)} behind {short(service.hostname)} {'stands' if len(refs) == 1 else 'stand'} at 0 replicas.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(
                    f"{w.ref} in {c.name}: {'status.desiredNumberScheduled' if isinstance(w, DaemonSet) else 'spec.replicas'} 0"
                    for c, w in owners
                ),
                *(
                    case.slices_evidence(service)
                    if service.kubernetes
                    else (f"{service.sources[0][1]} selects their pods by its workloadSelector",)
                ),
            ),
            fix=f"Scale {workload.ref} up."
            if scalable
            else f"Let {workload.ref} run on some node: its nodeSelector, affinity and tolerations fit none.",
            commands=(
                # no patch: whether pods that nobody has seen yet become ready cannot be proved
                *((f"kubectl -n {workload.namespace} scale {kind} {workload.name} --replicas=1",) if scalable else ()),
                f"kubectl -n {workload.namespace} get {kind} {workload.name}",
                endpoints_command(first.upstream),
            ),
        )
    yield from _gateways(case)
    yield from _networks(case)


def _gateways(case: Case) -> Iterator[Finding]:
    """The gateways of the host that stand at 0 replicas, of Istio's own kind and of the Gateway API."""
    for b in bindings(case, "gw-selector-no-pod"):
        selector = ",".join(f"{k}={v}" for k, v in ((b.gateway.spec.selector or {}) if b.gateway else {}).items())
        if found := b.stopped(case.mesh):
            yield _gateway(case, found, b.name, f"Gateway {b.name} selects {selector}", b.share, b.viewpoints)
    open_ = {b.of for g in gates(case.mesh) for b in g.bound}
    served = any(v.steps and v.callers.proxy.kind == "gateway" for v in case.views)
    for name, (istiod, listeners) in listening(case).items():
        if name not in open_ and (found := stopped(case, istiod, listeners)):
            workload = found[0][1]
            at = Viewpoint(istiod.cluster, "gateway", workload.namespace)
            yield _gateway(case, found, name, f"Gateway {name} is served by {workload.ref}", 0.0 if served else 1.0, (at,))


def _gateway(
    case: Case, found: list[tuple[Cluster, Workload]], name: str, said: str, share: float, viewpoints: tuple[Viewpoint, ...]
) -> Finding:
    cluster, workload = found[0]
    kind = workload.ref.partition(" ")[0].lower()
    # what has the host looked at again when one of them is gone
    case.also.update((names.service_host(w.name, w.namespace), w.namespace) for _, w in found)
    refs = dict.fromkeys(w.ref for _, w in found)
    return case.finding(
        "workload-scaled-zero",
        cluster=cluster.name,
        resource=workload.ref,
        path="spec.replicas",
        message=f"Nobody serves {case.host} at Gateway {name}: {' and '.join(refs)}, which serve{'s'[: len(refs) == 1]} it, stand{'s'[: len(refs) == 1]} at 0 replicas.",
        share=share,
        viewpoints=viewpoints,
        evidence=(said, *(f"{w.ref} in {c.name}: spec.replicas 0" for c, w in found)),
        fix=f"Scale {workload.ref} up.",
        commands=(
            f"kubectl -n {workload.namespace} scale {kind} {workload.name} --replicas=1",
            f"kubectl -n {workload.namespace} get {kind} {workload.name}",
        ),
    )


def _networks(case: Case) -> Iterator[Finding]:
    """The gateways of other networks that stand at 0 replicas: their load balancer has an address, and nobody behind it."""
    for end in ends(case, "workload-scaled-zero"):
        at = end.at
        workload = at.stopped[0]
        kind = workload.ref.partition(" ")[0].lower()
        yield end.finding(
            case,
            resource=workload.ref,
            path="spec.replicas",
            why=f"{workload.ref} behind {at.service.ref} in {at.cluster.name} stands at 0 replicas",
            evidence=(f"{w.ref} in {at.cluster.name}: spec.replicas 0" for w in at.stopped),
            fix=f"Scale {workload.ref} up.",
            commands=(f"scale {kind} {workload.name} --replicas=1", f"get {kind} {workload.name}"),
        )
