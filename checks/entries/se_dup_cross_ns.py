"""se-dup-cross-ns (MESH403)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import control_planes, describe
from checks.finding import Finding, check, explains
from checks.subsets import callers, percent
from checks.when import either, entered, failing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case, View
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


@explains("se-dup-cross-ns", before=("vs-dest-port-unknown", "vs-port-omitted-other-port", "vs-port-omitted-multiport", "se-port-missing"))
def _explains(_: Case, branch: Branch) -> bool:
    u = branch.upstream
    istiod, namespace = branch.view.ups.istiod, branch.view.callers.proxy.namespace
    if u.service is None or u.service.kubernetes or u.service.port(u.port) is not None:
        return False
    known = istiod.by_host.get(u.host, ())
    if any(s.port(u.port) for s in known if s.namespace == u.service.namespace):
        return False
    return any(s.port(u.port) and istiod.visible(s, namespace) for s in known)


@check("se-dup-cross-ns", when=either(failing, entered))
def se_dup_cross_ns(case: Case) -> Iterator[Finding]:
    """ServiceEntries of different namespaces, or one and a Kubernetes Service, define the same host for the same callers.

    For each caller istiod chooses one namespace (the caller's own, else a Kubernetes Service's, else the one whose entry it meets first, the
    oldest) and what all others say disappears for this caller, with ports and endpoints. Callers in different namespaces may get different
    ones: a ServiceEntry with the host of a Kubernetes Service hides the Service in the entry's own namespace, and is ignored elsewhere.

    How to see it: `kubectl get serviceentries -A` shows the host twice; `istioctl proxy-config endpoints` differs from namespace to namespace.

    How to fix it: one ServiceEntry for each host, or exportTo that keeps them apart.
    """
    for istiod in control_planes(case):
        entries = case.entries(istiod, case.host)
        if any(s.kubernetes for s in istiod.by_host.get(case.host, ())):
            continue
        if len({e.namespace for e in entries}) < 2:
            continue
        hidden: dict[str, list[tuple[View, str]]] = {}
        for view in case.views:
            if view.ups.istiod is not istiod:
                continue
            chosen = view.ups.scope.services.get(case.host)
            if chosen is None:
                continue
            seen = {s.namespace for s in istiod.exported_to(view.ups.proxy.namespace) if s.hostname == case.host}
            for namespace in sorted(seen - {chosen.namespace}):
                hidden.setdefault(namespace, []).append((view, chosen.namespace))
        for namespace, views in hidden.items():
            yield _finding(case, istiod, entries, namespace, views)
    yield from _before_kubernetes(case)


def _before_kubernetes(case: Case) -> Iterator[Finding]:
    """Entries that come before a Kubernetes Service in their own namespace, where rules need what only the Service has."""
    groups: dict[tuple[Istiod, str], list[Branch]] = {}
    for b in case.failing():
        service, istiod = b.upstream.service, b.view.ups.istiod
        if service is not None and any(s.kubernetes for s in istiod.by_host.get(b.upstream.host, ())) and case.why(b) == "se-dup-cross-ns":
            groups.setdefault((istiod, service.sources[0][1]), []).append(b)
    for (istiod, ref), branches in groups.items():
        u = branches[0].upstream
        entry = next(e for e in case.entries(istiod, u.host) if e.ref == ref)
        hidden = next(s for s in istiod.by_host[u.host] if s.kubernetes).sources[0][1]
        said = (
            f"port{'s'[: len({b.upstream.port for b in branches}) != 1]} {', '.join(map(str, sorted({b.upstream.port for b in branches})))}"
        )
        share = case.share(branches)
        yield case.finding(
            "se-dup-cross-ns",
            cluster=case.mesh.cluster(istiod.cluster).name,
            resource=ref,
            path="spec.hosts",
            message=(
                f"{percent(share)} of the requests of a rule fail for {callers(branches)}: {ref} (kept for them) and {hidden} define {u.host}, "
                f"and in its own namespace a ServiceEntry comes first, so {said} of {hidden} {'is' if said.startswith('port ') else 'are'} not there for them."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                describe(entry),
                f"{hidden} has {said}",
                *dict.fromkeys(f"{b.resource} leads there ({b.path})" for b in branches if b.step.source),
            ),
            fix=f"Give {ref} another host, delete it, or add {said} to it.",
            commands=(
                f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml",
                f"istioctl proxy-config cluster <pod>.{entry.namespace} --fqdn {u.host}",
            ),
        )


def _finding(case: Case, istiod: Istiod, entries: list[ServiceEntry], namespace: str, views: list[tuple[View, str]]) -> Finding:
    lost = next(e for e in entries if e.namespace == namespace)
    winners = sorted({w for _, w in views})
    kept = [e for e in entries if e.namespace in winners]
    have = {p.number for e in kept for p in e.spec.ports or ()}
    gone = sorted({p.number for e in entries if e.namespace == namespace for p in e.spec.ports or ()} - have)
    viewpoints: tuple[Viewpoint, ...] = tuple(dict.fromkeys(v for view, _ in views for v in view.callers.viewpoints))
    branches = [b for b in case.failing() if b.upstream.host == case.host and b.upstream.port in gone and b.view in [v for v, _ in views]]
    what = f"its port{'s'[: len(gone) != 1]} {', '.join(map(str, gone))} and its endpoints are" if gone else "its endpoints are"
    return case.finding(
        "se-dup-cross-ns",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=lost.ref,
        path="spec.hosts",
        message=(
            f"{' and '.join(e.ref for e in kept)} and {lost.ref} define {case.host} in different namespaces: "
            f"these callers get {', '.join(winners)}'s, and {what} not used for them."
        ),
        share=case.share(branches),
        viewpoints=viewpoints,
        evidence=tuple(describe(e) for e in entries),
        fix=f"Keep one ServiceEntry for {case.host}, or set exportTo so that no caller sees two.",
        commands=(
            f"kubectl get serviceentries -A | grep {case.host}",
            f"istioctl proxy-config endpoints <pod> --cluster 'outbound|{(lost.spec.ports or ())[0].number if lost.spec.ports else 0}||{case.host}'",
        ),
    )
