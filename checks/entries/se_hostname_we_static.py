"""se-hostname-we-static (MESH411)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.entries import asked_of, behind, carried, describe, holder, known_subset, served_as_asked, together, workload_entries
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry, WorkloadEntry


def _skipped(case: Case, istiod: Istiod, entry: ServiceEntry) -> list[WorkloadEntry]:
    """The WorkloadEntries that a ServiceEntry selects and whose address istiod does not take."""
    if entry.spec.workload_selector is None or entry.spec.resolution != "STATIC":
        return []
    found = workload_entries(case, istiod, entry.namespace, entry.spec.workload_selector.wanted)
    return [w for w in found if w.spec.address and not names.is_ip(w.spec.address) and not w.spec.address.startswith("unix:")]


@explains(
    "se-hostname-we-static", before=("se-workloadselector-empty", "subset-on-serviceentry", "subset-empty-weighted", "subset-empty-all")
)
def _explains(case: Case, branch: Branch) -> bool:
    entries = behind(case, branch)
    if not entries or served_as_asked(case, branch) or not known_subset(branch):
        return False
    labels = asked_of(branch)
    return any(carried(w, labels) for e in entries for w in _skipped(case, branch.view.ups.istiod, e))


@check("se-hostname-we-static", when=(explained, entered))
def se_hostname_we_static(case: Case) -> Iterator[Finding]:
    """A ServiceEntry with resolution STATIC selects a WorkloadEntry whose address is a DNS name.

    STATIC endpoints are IP addresses. istiod skips a WorkloadEntry with a name without a word to anybody; where no other endpoint is left,
    requests get 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> --cluster 'outbound|80||HOST'` lacks the workload.

    How to fix it: write the IP address into the WorkloadEntry, or say resolution DNS in the ServiceEntry.
    """
    told: set[str] = set()
    for branches in together(case, "se-hostname-we-static"):
        istiod = branches[0].view.ups.istiod
        entry = next(e for e in behind(case, branches[0]) if _skipped(case, istiod, e))
        told.add(entry.ref)
        yield _finding(case, istiod, entry, branches)
    for istiod in case.mesh.control_planes:
        for entry in case.entries(istiod, case.host):
            if entry.ref not in told and _skipped(case, istiod, entry) and case.branches:
                yield _finding(case, istiod, entry, [])


def _finding(case: Case, istiod: Istiod, entry: ServiceEntry, branches: list[Branch]) -> Finding:
    skipped = [w for w in _skipped(case, istiod, entry) if not branches or any(carried(w, asked_of(b)) for b in branches)]
    share = case.share(branches)
    which = " and ".join(w.ref for w in skipped)
    many = len(skipped) != 1
    effect = f"{percent(share)} of the requests fail: " if share else ""
    return case.finding(
        "se-hostname-we-static",
        cluster=holder(case, istiod).name,
        resource=skipped[0].ref,
        path="spec.address",
        message=(
            f"{effect}{entry.ref} has resolution STATIC, and {which} that it selects "
            f"{'have DNS names' if many else 'has a DNS name'} for an address: istiod skips {'them' if many else 'it'}."
        ),
        share=share,
        viewpoints=case.viewpoints(branches or case.branches),
        evidence=(describe(entry), *(f"{w.ref}: address {w.spec.address}" for w in skipped)),
        fix=f"Write an IP address into {which}, or say resolution DNS in {entry.ref}.",
        patch=case.patch(istiod.cluster, entry, (("spec", "resolution"), "DNS")),
        commands=(f"kubectl -n {entry.namespace} get workloadentry {' '.join(w.name for w in skipped)} -o yaml",),
    )
