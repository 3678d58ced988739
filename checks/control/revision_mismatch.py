"""revision-mismatch (MESH909)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.case import Branch, Case, short
from checks.finding import Finding, MeshCue, check, explains
from checks.planes import REVISION
from checks.resources import DestinationRule, Resource, ServiceEntry, VirtualService
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.istiod import Istiod
    from checks.mesh import Mesh


@explains("revision-mismatch", before=("subset-undefined", "vs-dest-host-unknown", "vs-dest-partial-name", "vs-dest-shortname-ns"))
def _explains(_: Case, branch: Branch) -> bool:
    return _missed(branch) is not None


def _missed(branch: Branch) -> Resource | None:
    """The object that would make a destination known, and that the callers' control plane does not read."""
    u = branch.upstream
    if u.defined:
        return None
    for o in branch.view.ups.istiod.unheard:
        if isinstance(o, DestinationRule) and u.subset and names.fqdn(o.spec.host, o.namespace) == u.host:
            if any(s.name == u.subset for s in o.spec.subsets or ()):
                return o
        elif isinstance(o, ServiceEntry) and u.service is None and u.host in (o.spec.hosts or ()):
            return o
    return None


class _Unheard(NamedTuple):
    """An object about the host, the revision that it names, and the control plane that does not read it."""

    thing: Resource
    istiod: Istiod


@MeshCue
def _unheard(mesh: Mesh) -> bool:
    """Some object is not for a control plane that callers listen to."""
    return any(i.unheard for i in mesh.every_plane())


@check("revision-mismatch", when=_unheard)
def revision_mismatch(case: Case) -> Iterator[Finding]:
    """An object carries the label istio.io/rev of a revision, and the callers' proxies listen to another.

    A control plane reads objects without the label and those that name its own revision; it passes over all others, as if they were not there,
    and the name of a tag counts as another. Rules, subsets and hosts are missing for its callers: 503 (flag NC), 404, or a route that nobody
    wrote.

    How to see it: `kubectl get virtualservices,destinationrules,serviceentries -A -L istio.io/rev`; `istioctl proxy-status` shows the istiod of
    each proxy.

    How to fix it: remove the label, name the revision that the callers use, or move the callers.
    """
    groups: dict[str, list[_Unheard]] = {}
    for view in case.views:
        for o in view.ups.istiod.unheard:
            if _about(case, o):
                groups.setdefault(o.ref, []).append(_Unheard(o, view.ups.istiod))
    for group in groups.values():
        thing = group[0].thing
        branches = [b for b in case.failing() if case.why(b) == "revision-mismatch" and _missed(b) is thing]
        wanted = thing.labels[REVISION]
        if branches or all(v.ups.istiod.plane.revision != wanted for v in case.views):
            yield _finding(case, thing, [u.istiod for u in group], branches)


def _about(case: Case, o: Resource) -> bool:
    """Whether an object says something about the host, or about where its rules lead."""
    if isinstance(o, VirtualService):
        return case.host in {names.fqdn(h, o.namespace) for h in o.spec.hosts or ()} | set(o.spec.hosts or ())
    led = {case.host, *(b.upstream.host for b in case.branches)}
    if isinstance(o, DestinationRule):
        return names.fqdn(o.spec.host, o.namespace) in led
    return isinstance(o, ServiceEntry) and not led.isdisjoint(o.spec.hosts or ())


def _finding(case: Case, thing: Resource, istiods: list[Istiod], branches: list[Branch]) -> Finding:
    wanted = thing.labels[REVISION]
    cluster = case.mesh.cluster(istiods[0].cluster)
    running = [p.revision for p in case.mesh.planes(cluster)]
    share = case.share(branches)
    own = sorted({i.plane.revision for i in istiods})
    whose = f"revision{'s'[: len(own) != 1]} {', '.join(own)}"
    viewpoints: dict[Viewpoint, None] = {}
    for view in (b.view for b in branches) if branches else case.views:
        if view.ups.istiod in istiods:
            viewpoints.update(dict.fromkeys(view.callers.viewpoints))
    effect = (
        f"{percent(share)} of the requests of a rule for {short(case.host)} have no cluster"
        if branches
        else f"A rule of {short(case.host)} does not hold for these callers"
    )
    where = "no control plane of this name runs" if wanted not in running else f"these callers listen to {whose}"
    if (meant := case.mesh.tags(cluster).get(wanted)) is not None and wanted not in running:
        where = f"that is a tag, of revision {meant}: istiod knows objects by revisions only"
    kind = type(thing).__name__
    return case.finding(
        "revision-mismatch",
        cluster=cluster.name,
        resource=thing.ref,
        path=f"metadata.labels[{REVISION}]",
        message=f"{effect}: {thing.ref} is for revision {wanted} alone, and {where}.",
        share=share,
        viewpoints=viewpoints,
        evidence=(
            f"{thing.ref} has label {REVISION}={wanted}",
            f"control planes in {cluster.name}: {', '.join(running)}",
            f"the proxies of these callers listen to {whose}",
        ),
        fix=f"Remove the label {REVISION} from {thing.ref}, or name the revision that its callers use.",
        commands=(
            f"kubectl -n {thing.namespace} get {kind.lower()} {thing.name} --show-labels",
            f"kubectl get pods -A -l app=istiod -L {REVISION}",
            "istioctl proxy-status",
        ),
    )
