"""all-endpoints-terminating (MESH314)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.services import by_service, home, known, kubernetes, slices_command
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIVE_WAY = ("subset-all-notready", "subset-empty-weighted", "subset-empty-all")


@explains("all-endpoints-terminating", before=_GIVE_WAY)
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None:
        return False
    found = case.candidates(branch.upstream) or ([] if branch.upstream.subset else list(known(case, branch, service)))
    if found or branch.upstream.subset:
        return bool(found) and all(e.health == "terminating" and not e.unready for e in found)
    pods = case.pods(service)  # of a slice that lists none of them any more, or has no ports
    return bool(pods) and all(p.metadata.deletion_timestamp for _, p in pods)


@check("all-endpoints-terminating", when=explained)
def all_endpoints_terminating(case: Case) -> Iterator[Finding]:
    """Every endpoint that is left terminates.

    A Deployment with strategy Recreate, a node that is drained without a PodDisruptionBudget, the last pod deleted by hand: the old
    pods go and no new one is ready. istiod never sends a terminating endpoint, so Envoy answers 503 "no healthy upstream" (flag UH) until a
    new pod is ready. A workload that stands at 0 replicas is another cause.

    How to see it: `kubectl get pods` shows Terminating; the EndpointSlice says `terminating: true` of every endpoint.

    How to fix it: roll out with maxUnavailable 0, protect the pods with a PodDisruptionBudget, and let new pods become ready.
    """
    for service, branches in by_service(case, "all-endpoints-terminating"):
        first = branches[0]
        found = case.candidates(first.upstream) or list(known(case, first, service))
        gone = [*{e.address: f"{e.workload or 'endpoint'} at {e.address}: {e.reason}" for e in found}.values()]
        gone = gone or [f"{p.ref} in {c.name} has a deletionTimestamp" for c, p in case.pods(service)]
        owners = case.owners(service)
        share = case.share(branches)
        what = f"subset {first.upstream.subset} of {short(service.hostname)}" if first.upstream.subset else short(service.hostname)
        yield case.finding(
            "all-endpoints-terminating",
            cluster=owners[0][0].name if owners else home(case, service, first),
            resource=owners[0][1].ref if owners else service.sources[0][1],
            path="spec.strategy" if owners else "",
            message=f"{percent(share)} of the requests fail: every endpoint that {what} has left terminates.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*gone[:5], *(f"{w.ref} in {c.name} wants {w.wanted}, {w.ready} ready" for c, w in owners)),
            fix="Let new pods become ready; keep the old ones until then (maxUnavailable 0) and protect them with a PodDisruptionBudget.",
            commands=(
                f"kubectl -n {service.namespace} get pods -l '{','.join(f'{k}={v}' for k, v in (service.selector or {}).items())}'",
                slices_command(service),
                endpoints_command(first.upstream),
            ),
        )
