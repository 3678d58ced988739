"""se-dup-same-ns (MESH401)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from checks import names
from checks.entries import Pair, describe, differs, disputed, holder, known_subset, pairs, together
from checks.finding import Finding, check, explained, explains
from checks.subsets import carriers, percent, wanted_labels
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case, View
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


def _unfit(case: Case, branch: Branch) -> list[ServiceEntry]:
    """The one that is kept, STATIC, and others of its namespace whose DNS names are all the endpoints that a destination has: none is used."""
    u = branch.upstream
    if u.service is None or u.service.kubernetes or u.service.resolution != "static" or not known_subset(branch):
        return []
    addresses = [a.rpartition(":")[0].strip("[]") for a in carriers(case, branch, wanted_labels(u))]
    if not addresses or any(names.is_ip(a) or a.startswith("unix:") for a in addresses):
        return []
    group = case.seen(branch.view.ups.istiod, u.host, branch.view.ups.proxy.namespace).get(u.service.namespace, [])
    named = [e for e in group[1:] if e.spec.resolution in {"DNS", "DNS_ROUND_ROBIN"}]
    return [group[0], *named] if named else []


@explains("se-dup-same-ns", before=("config-rejected-by-istiod", "se-static-no-endpoints", "subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    return bool(_unfit(case, branch))


@check("se-dup-same-ns", when=(entered, explained))
def se_dup_same_ns(case: Case) -> Iterator[Finding]:
    """Two ServiceEntries of one namespace define the same host.

    istiod keeps the older one's resolution, location and addresses and puts the endpoints of both together under equal port names: what the
    younger one says otherwise has no effect, or mixes addresses that were never meant to serve together. A fault in either breaks both. What
    does not fit the older one's resolution is dropped: a STATIC cluster takes no DNS names, so an older STATIC entry without addresses of its
    own leaves the host without an endpoint (503, flag UH), however well the younger one resolves.

    How to see it: `kubectl get serviceentries -A` shows the host twice.

    How to fix it: one ServiceEntry for each host.
    """
    told: set[tuple[str, str]] = set()
    for branches in together(case, "se-dup-same-ns"):
        kept, other, *_ = _unfit(case, branches[0])
        told.add((kept.ref, other.ref))
        yield _failing(case, branches, kept, other)
    for pair in pairs(case, case.host):
        if (pair.kept.ref, pair.other.ref) not in told and (effect := _effect(pair)):
            first = f"{pair.kept.ref} ({pair.why}) and {pair.other.ref} define {case.host}"
            yield _finding(case, pair, f"{first}: istiod keeps the first one's settings; of {pair.other.name}, {effect}.")
        told.add((pair.kept.ref, pair.other.ref))
    for pair in _apart(case, told):
        yield _finding(
            case,
            pair,
            f"{pair.kept.ref} and {pair.other.ref} define {case.host} for different callers, and their endpoints are not kept apart: "
            f"each gets the endpoints of both, since istiod collects them by host and namespace.",
        )


def _failing(case: Case, branches: list[Branch], kept: ServiceEntry, other: ServiceEntry) -> Finding:
    first, share = branches[0], case.share(branches)
    host = first.upstream.host
    return case.finding(
        "se-dup-same-ns",
        cluster=holder(case, first.view.ups.istiod).name,
        resource=other.ref,
        path="spec.hosts",
        message=(
            f"{percent(share)} of the requests fail: {kept.ref} (kept) and {other.ref} define {host}, istiod keeps the first one's resolution "
            f"{kept.spec.resolution}, and the DNS names of {other.name} are no endpoints of that."
        ),
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(describe(kept), describe(other)),
        fix=f"Keep one ServiceEntry for {host}: delete {kept.ref}, or give it the endpoints and delete {other.ref}.",
        commands=(
            f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",
            f"istioctl proxy-config endpoints <pod> --cluster '{first.upstream.name}'",
        ),
    )


def _effect(pair: Pair) -> str:
    """What becomes of the younger one, in words; empty where nothing is lost and nothing mixes, or where it is another cause."""
    kept, other = pair.kept.spec, pair.other.spec
    # ports that are lost are se-dup-unmergeable-ports, one port with two protocols is se-protocol-conflict
    if pair.lost or disputed(pair.kept, pair.other):
        return ""
    why = differs(pair.istiod, pair.kept, pair.other, pair.host)
    if why:
        return f"its {' and '.join(why)} ha{'s' if len(why) == 1 and why != ['labels'] else 've'} no effect"
    mine, theirs = ({x for p in s.ports or () for x in (p.number, p.name)} for s in (kept, other))
    united = not mine & theirs and kept.location == other.location and set(other.addresses or ()) <= set(kept.addresses or ())
    return "" if united else "its ports and endpoints are merged into the first"


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
                yield Pair(istiod, case.host, a, b, (), [*mine, *theirs])


def _finding(case: Case, pair: Pair, message: str) -> Finding:
    istiod, host, kept, other, _, views = pair
    return case.finding(
        "se-dup-same-ns",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=other.ref,
        path="spec.hosts",
        message=message,
        share=0.0,
        viewpoints=case.viewpoints(b for b in case.branches if b.view in views),
        evidence=(describe(kept), describe(other)),
        fix=f"Keep one ServiceEntry for {host}: move what is missing into {kept.ref} and delete {other.ref}.",
        commands=(f"kubectl -n {kept.namespace} get serviceentry {kept.name} {other.name} -o yaml",),
    )
