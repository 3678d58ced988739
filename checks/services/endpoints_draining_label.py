"""endpoints-draining-label (MESH315)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.registry import DRAINING, PERSISTENT_SESSION
from checks.resources import WorkloadEntry
from checks.services import by_service, home
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from checks.registry import HostService, IstioEndpoint


@explains("endpoints-draining-label", before=("all-endpoints-terminating", "subset-all-notready", "pods-all-notready"))
def _explains(case: Case, branch: Branch) -> bool:
    found = case.candidates(branch.upstream) if branch.upstream.defined else []
    return bool(found) and all(_drains(e) for e in found)


def _drains(e: IstioEndpoint) -> bool:
    return e.health == "draining" or bool(e.own.get(DRAINING))


@check("endpoints-draining-label", when=explained)
def endpoints_draining_label(case: Case) -> Iterator[Finding]:
    """Every endpoint of a destination drains.

    Label `istio.io/draining` on a pod (or WorkloadEntry) takes its endpoint out of every proxy; with label `istio.io/persistent-session` on the Service,
    terminating pods are kept as draining for their old sessions alone. When all endpoints drain, nobody takes a new request: 503 "no healthy
    upstream" (flag UH).

    How to see it: `kubectl get pods -L istio.io/draining`; `istioctl proxy-config endpoints` shows DRAINING or no line.

    How to fix it: take the label off pods that should serve, or bring up new ones.
    """
    for service, branches in by_service(case, "endpoints-draining-label"):
        first = branches[0]
        found = {e.address: e for e in case.candidates(first.upstream)}.values()
        labelled = [e for e in found if e.labels.get(DRAINING)]
        owners = case.owners(service, first.upstream if first.upstream.subset else None)
        entries = [] if owners else _entries(case, labelled)
        share = case.share(branches)
        why = f"carries label {DRAINING}" if labelled else f"terminates and is kept for its sessions (label {PERSISTENT_SESSION})"
        what = "pods" if owners or service.kubernetes else "WorkloadEntries" if entries else "endpoints"
        name = service.sources[0][1].rpartition("/")[2]
        look = (
            f"workloadentry {entries[0].name} -o yaml"
            if entries
            else f"pods -L {DRAINING}"
            if what == "pods"
            else f"serviceentry {name} -o yaml"
        )
        yield case.finding(
            "endpoints-draining-label",
            cluster=owners[0][0].name if owners else home(case, service, first),
            resource=owners[0][1].ref if owners else entries[0].ref if entries else service.sources[0][1],
            path=_path(entries, service, owned=bool(owners)) if labelled else "",
            message=f"{percent(share)} of the requests fail: every endpoint of {short(service.hostname)} {why}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(
                f"{e.workload or 'endpoint'} at {e.address}: {f'label {DRAINING}={e.labels[DRAINING]}' if e.labels.get(DRAINING) else e.reason}"
                for e in list(found)[:5]
            ),
            fix=f"Take label {DRAINING} off the {what} that should serve, or bring up {what} without it."
            if labelled
            else f"Bring up new pods of {short(service.hostname)}: those that drain serve their old sessions alone.",
            commands=(f"kubectl -n {service.namespace} get {look}", endpoints_command(first.upstream)),
        )


def _entries(case: Case, labelled: Iterable[IstioEndpoint]) -> list[WorkloadEntry]:
    """The WorkloadEntries among the endpoints that carry the label."""
    found = (case.mesh.cluster(e.cluster).get(WorkloadEntry, e.namespace, e.workload) for e in labelled)
    return [e for e in found if e is not None]


def _path(entries: Sequence[WorkloadEntry], service: HostService, *, owned: bool) -> str:
    """Where the label stands."""
    if owned:
        return "spec.template.metadata.labels"
    if entries:
        return "spec.labels" if DRAINING in (entries[0].spec.labels or {}) else "metadata.labels"
    return "" if service.kubernetes else "spec.endpoints"
