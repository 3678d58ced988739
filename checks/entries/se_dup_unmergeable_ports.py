"""se-dup-unmergeable-ports (MESH402)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import Pair, concerned, describe, differs, felt, pairs, ports
from checks.finding import Finding, check, explained, explains
from checks.subsets import callers
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains("se-dup-unmergeable-ports", before=("vs-dest-port-unknown", "se-port-missing"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is not None and u.service.port(u.port) is not None:
        return False
    kept, _ = case.lost_ports(branch.view.ups.istiod, u.host, branch.view.ups.proxy.namespace).get(u.port, (None, None))
    # a Sidecar that does not import the host still brings what a rule leads to, if it has the rule's port (serviceMatchingVirtualServicePorts, sidecar.go)
    return kept is not None and (u.service is None or kept.namespace == u.service.namespace)


@check("se-dup-unmergeable-ports", when=(entered, explained))
def se_dup_unmergeable_ports(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace define the same host and cannot be merged, so ports of the younger one are lost.

    istiod unites the ports of two ServiceEntries of a host only when namespace, resolution, exportTo, labels and workloadSelector are
    equal. Otherwise it keeps one, the one that is exported to the caller's namespace by name before a public one and of those the older, and
    drops the ports of the other: their clusters are never pushed, and calls to such a port get 503 (flag NC) where a listener for it exists,
    or leave the mesh unseen where none does. Callers of different namespaces may lose different ports. The endpoints of both stay together
    under equal port names.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lacks the port.

    How to fix it: one ServiceEntry with all ports, or equal resolution, exportTo and labels on both.
    """
    for host in concerned(case, "se-dup-unmergeable-ports"):
        for pair in pairs(case, host):
            broken = [b for b in felt(case, "se-dup-unmergeable-ports", host, pair.views) if b.upstream.port in pair.lost]
            if broken or (pair.lost and host == case.host):
                yield _finding(case, pair, broken)


def _finding(case: Case, pair: Pair, broken: list[Branch]) -> Finding:
    istiod, host, kept, other, lost, views = pair
    mine = [b for b in case.branches if b.view in views]
    said = f"port{'s'[: len(lost) != 1]} {', '.join(map(str, lost))}"
    why = differs(istiod, kept, other, host)
    share = case.share(broken)
    outcome = "Calls there get 503 (no such cluster)." if share else "Nothing routes it in the mesh."
    wanted = ", ".join(dict.fromkeys(", ".join(ports(e) for e in (kept, other)).split(", ")))
    return case.finding(
        "se-dup-unmergeable-ports",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=other.ref,
        path="spec.ports",
        message=(
            f"{kept.ref} ({pair.why}) and {other.ref} define {host} for "
            f"{callers(broken or mine)} and differ in {' and '.join(why)}: istiod cannot merge them and drops {said} of {other.ref}. {outcome}"
        ),
        share=share,
        viewpoints=case.viewpoints(broken or mine),
        evidence=(
            describe(kept),
            describe(other),
            "of two entries of a namespace that differ in resolution, exportTo, labels or selector istiod keeps the one exported by name, else the older",
        ),
        fix=f"Put all ports ({wanted}) into one ServiceEntry, or give both the same {', '.join(why)}, and delete the other.",
        commands=(
            f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",
            f"istioctl proxy-config cluster <pod> --fqdn {host}",
        ),
    )
