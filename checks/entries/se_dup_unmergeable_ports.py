"""se-dup-unmergeable-ports (MESH402)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import by_namespace, control_planes, describe, differs, mergeable, ports
from checks.finding import Finding, check, explains

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


@explains("se-dup-unmergeable-ports", before=("vs-dest-port-unknown", "se-port-missing"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    return u.service is not None and u.service.port(u.port) is None and u.port in case.lost_ports(branch.view.ups.istiod, u.host)


@check("se-dup-unmergeable-ports")
def se_dup_unmergeable_ports(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace define the same host and cannot be merged, so ports of the younger one are lost.

    istiod unites the ports of two ServiceEntries of a host only when namespace, resolution, exportTo, labels and workloadSelector are
    equal. Otherwise it keeps the older one and drops the ports of the other: their clusters are never pushed, and calls to such a port get
    503 (flag NC) where a listener for it exists, or leave the mesh unseen where none does. The endpoints of both stay together under equal
    port names.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lacks the port.

    How to fix it: one ServiceEntry with all ports, or equal resolution, exportTo and labels on both.
    """
    for istiod in control_planes(case):
        for _, group in by_namespace(case, istiod):
            kept = group[0]
            have = {p.number for p in kept.spec.ports or ()}
            for other in group[1:]:
                if mergeable(istiod, kept, other, case.host):
                    have |= {p.number for p in other.spec.ports or ()}
                    continue
                lost = [p.number for p in other.spec.ports or () if p.number not in have]
                if lost:
                    yield _finding(case, istiod, kept, other, lost)


def _finding(case: Case, istiod: Istiod, kept: ServiceEntry, other: ServiceEntry, lost: list[int]) -> Finding:
    branches = [b for b in case.failing() if b.upstream.host == case.host and b.upstream.port in lost and b.view.ups.istiod is istiod]
    said = f"port{'s'[: len(lost) != 1]} {', '.join(map(str, lost))}"
    why = differs(istiod, kept, other, case.host)
    share = case.share(branches)
    outcome = "Calls there get 503 (no such cluster)." if share else "Nothing routes it in the mesh."
    wanted = ", ".join(dict.fromkeys(", ".join(ports(e) for e in (kept, other)).split(", ")))
    return case.finding(
        "se-dup-unmergeable-ports",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=other.ref,
        path="spec.ports",
        message=(
            f"{kept.ref} (older, kept) and {other.ref} define {case.host} and differ in {why}: "
            f"istiod cannot merge them and drops {said} of {other.ref}. {outcome}"
        ),
        share=share,
        viewpoints=case.viewpoints(branches) or case.viewpoints(case.branches),
        evidence=(
            describe(kept),
            describe(other),
            "istiod keeps the older of two entries of a namespace that differ in resolution, exportTo, labels or selector",
        ),
        fix=f"Put all ports ({wanted}) into one ServiceEntry, or give both the same {why.replace(' and ', ', ')}, and delete the other.",
        commands=(
            f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",
            f"istioctl proxy-config cluster <pod> --fqdn {case.host}",
        ),
    )
