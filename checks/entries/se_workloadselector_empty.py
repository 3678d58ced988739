"""se-workloadselector-empty (MESH410)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import endpoints_command, waits
from checks.entries import behind, describe, holder, known_subset, selected_pods, served, together, words, workload_entries
from checks.finding import Finding, check, explained, explains
from checks.resources import Pod, WorkloadEntry
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from checks.case import Branch, Case
    from checks.mesh import Cluster
    from checks.resources import ServiceEntry


@explains("se-workloadselector-empty", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    if branch.upstream.service is None or served(case, branch) or not known_subset(branch):
        return False
    istiod = branch.view.ups.istiod
    found = ((e.namespace, e.spec.workload_selector.wanted) for e in behind(case, branch) if e.spec.workload_selector)
    return any(
        not workload_entries(case, istiod, namespace, wanted) for namespace, wanted in found
    )  # those of no use are told of elsewhere


@check("se-workloadselector-empty", when=explained)
def se_workloadselector_empty(case: Case) -> Iterator[Finding]:
    """The workloadSelector of a ServiceEntry selects nobody.

    It looks at WorkloadEntries and at ready pods of the ServiceEntry's own namespace alone. A typo in a label, workloads in another
    namespace, or pods that are not ready leave the host without an endpoint: 503 "no healthy upstream" (flag UH), with resolution DNS no
    cluster at all (flag NC).

    How to see it: `kubectl -n NAMESPACE get workloadentries,pods -l LABELS` prints none, or none that is ready.

    How to fix it: make the selector and the labels agree, or create the workloads in the ServiceEntry's namespace.
    """
    for branches in together(case, "se-workloadselector-empty"):
        first = branches[0]
        host, share = first.upstream.host, case.share(branches)
        entry = next(e for e in behind(case, first) if e.spec.workload_selector)
        wanted = entry.spec.workload_selector.wanted if entry.spec.workload_selector else {}
        cluster = holder(case, first.view.ups.istiod)
        case.mesh.require(cluster, WorkloadEntry, Pod)
        yield case.finding(
            "se-workloadselector-empty",
            cluster=cluster.name,
            resource=entry.ref,
            path="spec.workloadSelector",
            message=(
                f"{percent(share)} of the requests to {host} fail: the workloadSelector of {entry.ref} ({words(wanted)}) "
                f"selects no WorkloadEntry and no ready pod of namespace {entry.namespace}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(describe(entry), *_near(case, cluster, entry, wanted)),
            fix=f"Make the pods with {words(wanted)} in namespace {entry.namespace} ready."
            if selected_pods(case, entry.namespace, wanted)
            else f"Make the selector and the labels agree, or create a WorkloadEntry with {words(wanted)} in namespace {entry.namespace}.",
            commands=(
                f"kubectl -n {entry.namespace} get workloadentries,pods -l '{words(wanted)}'",
                endpoints_command(first.upstream),
            ),
        )


def _near(case: Case, cluster: Cluster, entry: ServiceEntry, wanted: Mapping[str, str]) -> Iterator[str]:
    for p in selected_pods(case, entry.namespace, wanted):
        yield f"Pod {p.namespace}/{p.name} carries the labels and is not ready: {waits(p)}"
    for w in cluster.ordered(WorkloadEntry, entry.namespace):
        labels = {**(w.spec.labels or {}), **w.labels}
        near = [f"{k}={labels[k]}" for k, v in wanted.items() if k in labels and names.nearest(v, [labels[k]])]
        if near:
            yield f"{w.ref} carries {','.join(near)}"
