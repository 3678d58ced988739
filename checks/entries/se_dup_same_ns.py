"""se-dup-same-ns (MESH401)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from checks.entries import Pair, describe, differs, disputed, pairs
from checks.finding import Finding, check
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


@check("se-dup-same-ns", when=entered)
def se_dup_same_ns(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace define the same host.

    istiod keeps the older one's resolution, location and addresses and puts the endpoints of both together under equal port names: what the
    younger one says otherwise has no effect, or mixes addresses that were never meant to serve together. A fault in either breaks both.

    How to see it: `kubectl get serviceentries -A` shows the host twice.

    How to fix it: one ServiceEntry for each host.
    """
    told: set[tuple[str, str]] = set()
    for pair in pairs(case):
        told.add((pair.kept.ref, pair.other.ref))
        # ports that are lost are se-dup-unmergeable-ports, one port with two protocols is se-protocol-conflict
        if not pair.lost and not disputed(pair.kept, pair.other):
            why = differs(pair.istiod, pair.kept, pair.other, case.host)
            effect = (
                f"its {why} ha{'ve' if ' and ' in why else 's'} no effect" if why else "its ports and endpoints are merged into the first"
            )
            first = f"{pair.kept.ref} ({pair.why}) and {pair.other.ref} define {case.host}"
            yield _finding(case, pair, f"{first}: istiod keeps the first one's settings; of {pair.other.name}, {effect}.")
    for pair in _apart(case, told):
        yield _finding(
            case,
            pair,
            f"{pair.kept.ref} and {pair.other.ref} define {case.host} for different callers, and their endpoints are not kept apart: "
            f"each gets the endpoints of both, since istiod collects them by host and namespace.",
        )


def _apart(case: Case, told: set[tuple[str, str]]) -> Iterator[Pair]:
    """Entries that no caller sees together, and whose endpoints are put together all the same, under port names that both have."""
    seeing: dict[tuple[Istiod, str], dict[str, tuple[ServiceEntry, list[View]]]] = {}
    for view in case.views:
        for ns, group in case.seen(view.ups.istiod, case.host, view.ups.proxy.namespace).items():
            for e in group:
                seeing.setdefault((view.ups.istiod, ns), {}).setdefault(e.ref, (e, []))[1].append(view)
    for (istiod, _), found in seeing.items():
        for (a, mine), (b, theirs) in combinations(sorted(found.values(), key=lambda f: (f[0].created, f[0].name)), 2):
            shared = {p.name for p in a.spec.ports or ()} & {p.name for p in b.spec.ports or ()}
            if not told & {(a.ref, b.ref), (b.ref, a.ref)} and shared and (a.spec.endpoints or b.spec.endpoints):
                yield Pair(istiod, a, b, (), [*mine, *theirs])


def _finding(case: Case, pair: Pair, message: str) -> Finding:
    istiod, kept, other, _, views = pair
    return case.finding(
        "se-dup-same-ns",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=other.ref,
        path="spec.hosts",
        message=message,
        share=0.0,
        viewpoints=case.viewpoints(b for b in case.branches if b.view in views),
        evidence=(describe(kept), describe(other)),
        fix=f"Keep one ServiceEntry for {case.host}: move what is missing into {kept.ref} and delete {other.ref}.",
        commands=(f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",),
    )
