"""subset-on-serviceentry (MESH117)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command
from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, ServiceEntry, VirtualService, WorkloadEntry
from checks.subsets import labels, named_subsets, nobody, of_port, percent, proof, reweigh, shown, words

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("subset-on-serviceentry", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    return u.service is not None and not u.service.kubernetes and nobody(case, branch) and bool(of_port(case, branch))


@check("subset-on-serviceentry", when=explained)
def subset_on_serviceentry(case: Case) -> Iterator[Finding]:
    """A subset of a ServiceEntry's host asks for labels that none of its endpoints carries.

    The endpoints of a ServiceEntry get labels from `endpoints[].labels`, from their WorkloadEntry, or from the pods that it selects. An
    endpoint without them is in no subset that asks for some: its share gets 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80|v1|HOST'` prints no line, and one for the host without subset.

    How to fix it: label the endpoints, or lead the rule to the host without a subset.
    """
    for branches in case.led("subset-on-serviceentry"):
        first = branches[0]
        u, share = first.upstream, case.share(branches)
        if u.service is None:
            continue
        entry = u.service.sources[0][1]
        found = of_port(case, first)
        where = f"the WorkloadEntries or pods that {entry} selects" if u.service.selector else f"the endpoints of {entry}"
        yield case.finding(
            "subset-on-serviceentry",
            cluster=case.cluster_of(first),
            resource=entry,
            path="spec.workloadSelector" if u.service.selector else "spec.endpoints",
            message=(
                f"{percent(share)} of the requests of a rule go to {named_subsets(branches)} of {u.host}, where there is no endpoint: "
                f"no endpoint of {entry} carries such labels (0 of {len(found)})."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*dict.fromkeys(f"endpoint {e.at} of {entry} has {words(e.labels)}" for e in found[:5]), *proof(case, first)),
            fix=f"Label {where} with {' and '.join(dict.fromkeys(labels(b.upstream) for b in branches))}, or lead the rule to {u.host} without a subset.",
            patch=reweigh(case, branches),
            commands=(
                f"kubectl -n {u.service.namespace} get serviceentry {u.service.sources[0][1].rpartition('/')[2]} -o yaml",
                endpoints_command(u),
            ),
        )
    shown(case, VirtualService, DestinationRule, ServiceEntry, WorkloadEntry)
