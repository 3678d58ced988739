"""se-dup-same-ns (MESH401)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import by_namespace, control_planes, describe, differs, disputed, mergeable
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


@check("se-dup-same-ns")
def se_dup_same_ns(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace define the same host.

    istiod keeps the older one's resolution, location and addresses and puts the endpoints of both together under equal port names: what the
    younger one says otherwise has no effect, or mixes addresses that were never meant to serve together. A fault in either breaks both.

    How to see it: `kubectl get serviceentries -A` shows the host twice.

    How to fix it: one ServiceEntry for each host.
    """
    for istiod in control_planes(case):
        for _, group in by_namespace(case, istiod):
            kept = group[0]
            have = {p.number for p in kept.spec.ports or ()}
            for other in group[1:]:
                numbers = {p.number for p in other.spec.ports or ()}
                if mergeable(istiod, kept, other, case.host):
                    have |= numbers
                elif numbers - have:
                    continue  # ports are lost: se-dup-unmergeable-ports says it
                if disputed(kept, other):
                    continue  # one port with two protocols: se-protocol-conflict says it
                yield _finding(case, istiod, kept, other)


def _finding(case: Case, istiod: Istiod, kept: ServiceEntry, other: ServiceEntry) -> Finding:
    why = differs(istiod, kept, other, case.host)
    effect = f"its {why} ha{'ve' if ' and ' in why else 's'} no effect" if why else "its ports and endpoints are merged into the older one"
    return case.finding(
        "se-dup-same-ns",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=other.ref,
        path="spec.hosts",
        message=f"{kept.ref} (older, kept) and {other.ref} define {case.host}: istiod keeps the older one's settings; of the younger, {effect}.",
        share=0.0,
        viewpoints=case.viewpoints(case.branches),
        evidence=(describe(kept), describe(other)),
        fix=f"Keep one ServiceEntry for {case.host}: move what is missing into {kept.ref} and delete {other.ref}.",
        commands=(f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",),
    )
