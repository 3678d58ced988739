"""se-dup-cross-ns (MESH403)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import concerned, describe, felt, served
from checks.finding import Finding, check, explained, explains
from checks.subsets import callers, percent
from checks.when import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case, View
    from checks.istiod import Istiod
    from checks.resources import ServiceEntry


@explains(
    "se-dup-cross-ns",
    before=(
        "vs-dest-port-unknown",
        "vs-port-omitted-other-port",
        "vs-port-omitted-multiport",
        "se-port-missing",
        "se-static-no-endpoints",
        "se-workloadselector-empty",
    ),
)
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    istiod, namespace = branch.view.ups.istiod, branch.view.callers.proxy.namespace
    if u.service is None or u.service.kubernetes:
        return False
    seen = branch.view.ups.scope.services.get(u.host)
    if seen is not None and seen.namespace != u.service.namespace:
        # a waypoint takes the endpoints of a host that it serves from the entry that its namespace sees (NewEndpointBuilder)
        return any(e.health == "healthy" for e in case.endpoints(istiod, u.service))
    known = istiod.by_host.get(u.host, ())
    others = [s for s in known if s.namespace != u.service.namespace and s.port(u.port) and istiod.visible(s, namespace)]
    if u.service.port(u.port) is None:
        return bool(others) and not any(s.port(u.port) for s in known if s.namespace == u.service.namespace)
    # nobody stands behind the one that istiod chose, and somebody behind one that it did not
    return not served(case, branch) and any(e.health == "healthy" for s in others for e in case.endpoints(istiod, s))


@check("se-dup-cross-ns", when=(explained, entered))
def se_dup_cross_ns(case: Case) -> Iterator[Finding]:
    """ServiceEntries of different namespaces, or one and a Kubernetes Service, define the same host for the same callers.

    For each caller istiod chooses one namespace (the caller's own, else a Kubernetes Service's, else the one whose entry it meets first, the
    oldest) and what all others say disappears for this caller, with ports and endpoints; a waypoint chooses as well. Callers in different namespaces may get different
    ones: a ServiceEntry with the host of a Kubernetes Service hides the Service in the entry's own namespace, and is ignored elsewhere.

    How to see it: `kubectl get serviceentries -A` shows the host twice; `istioctl proxy-config endpoints` differs from namespace to namespace.

    How to fix it: one ServiceEntry for each host, or exportTo that keeps them apart.
    """
    for host in concerned(case, "se-dup-cross-ns"):
        for istiod in case.mesh.control_planes:
            if not any(s.kubernetes for s in istiod.by_host.get(host, ())):
                yield from _hidden(case, istiod, host)
    yield from _before_kubernetes(case)


def _hidden(case: Case, istiod: Istiod, host: str) -> Iterator[Finding]:
    """The findings of a host's entries that some callers do not get, one for each namespace that loses."""
    entries = case.entries(istiod, host)
    order = list(dict.fromkeys(e.namespace for e in entries))
    if len(order) < 2:
        return
    losing: dict[str, list[tuple[View, str]]] = {}
    for view in case.views:
        chosen = view.ups.scope.services.get(host)
        if view.ups.istiod is istiod and chosen is not None:
            seen = {s.namespace for s in istiod.exported_to(view.ups.proxy.namespace) if s.hostname == host}
            for namespace in sorted(seen - {chosen.namespace}):
                losing.setdefault(namespace, []).append((view, chosen.namespace))
    for namespace, views in losing.items():
        broken = felt(case, "se-dup-cross-ns", host, [v for v, _ in views])
        # a caller's own entry comes first on purpose: that it is hidden from the others says enough of the two, and where it is private nothing is
        own = all(
            w == v.ups.proxy.namespace and ((w in losing and order.index(w) > order.index(namespace)) or _private(entries, w))
            for v, w in views
        )
        if broken or (host == case.host and not own):
            yield _finding(case, istiod, host, namespace, views, broken)


def _private(entries: list[ServiceEntry], namespace: str) -> bool:
    """Whether a namespace keeps its entries of the host for itself."""
    return all(set(e.spec.export_to or ()) in ({"."}, {namespace}) for e in entries if e.namespace == namespace)


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


def _finding(case: Case, istiod: Istiod, host: str, namespace: str, views: list[tuple[View, str]], broken: list[Branch]) -> Finding:
    entries = case.entries(istiod, host)
    lost = next(e for e in entries if e.namespace == namespace)
    winners = sorted({w for _, w in views})
    kept = [e for e in entries if e.namespace in winners]
    have = {p.number for e in kept for p in e.spec.ports or ()}
    gone = sorted({p.number for e in entries if e.namespace == namespace for p in e.spec.ports or ()} - have)
    viewpoints: tuple[Viewpoint, ...] = tuple(dict.fromkeys(v for view, _ in views for v in view.callers.viewpoints))
    what = f"port{'s'[: len(gone) != 1]} {', '.join(map(str, gone))} and the endpoints" if gone else "the endpoints"
    return case.finding(
        "se-dup-cross-ns",
        cluster=case.mesh.cluster(istiod.cluster).name,
        resource=lost.ref,
        path="spec.hosts",
        message=(
            f"{' and '.join(e.ref for e in kept)} and {lost.ref} define {host} in different namespaces: "
            f"these callers get {', '.join(winners)}'s, and {what} of {lost.ref} are not used for them."
        ),
        share=case.share(broken),
        viewpoints=case.viewpoints(broken) or viewpoints,
        evidence=tuple(describe(e) for e in entries),
        fix=f"Keep one ServiceEntry for {host}, or set exportTo so that no caller sees two.",
        commands=(
            f"kubectl get serviceentries -A | grep {host}",
            f"istioctl proxy-config endpoints <pod> --cluster 'outbound|{(lost.spec.ports or ())[0].number if lost.spec.ports else 0}||{host}'",
        ),
    )
