"""Who sees whom (MESH5xx): Sidecars, exportTo, the mesh's defaults and discovery; and why a caller does not see a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.istiod import Scope
from checks.resources import ConfigMap, Service, ServiceEntry, Sidecar
from checks.routes import upstreams
from checks.security import guarded, shut
from checks.security.authz_principal_without_mtls import closed
from checks.security.mtls_plain_to_strict import strict
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.viewpoints import Class

EXPORT = "networking.istio.io/exportTo"


class Hidden(NamedTuple):
    """Callers that mean to call a host and hold nothing for it: `cause` is why, `asks` what says that they mean to."""

    cause: str
    callers: Class
    istiod: Istiod
    scope: Scope
    viewpoints: tuple[Viewpoint, ...]
    asks: tuple[str, ...]
    loser: Sidecar | None = None
    unheard: float = 0.0
    """The part of calls in plain text, and without an identity, that the host's servers refuse."""

    @property
    def share(self) -> float:
        """1 where calls to unknown hosts are refused; where they pass through the proxy unseen, what the servers refuse of plain text."""
        return self.unheard if self.scope.allow_any else 1.0

    @property
    def effect(self) -> str:
        """What becomes of a call to a host that the caller does not see."""
        if not self.scope.allow_any:
            return "get 502, or a closed connection"
        if self.unheard:
            part = "which its servers refuse" if self.unheard >= 1 else f"which {percent(self.unheard)} of its servers refuse"
            return f"pass through the proxy in plain text and without an identity, {part}"
        return "pass through the proxy unseen: no rule, no balancing, no mTLS of the mesh"


def hidden(case: Case, cause: str) -> list[list[Hidden]]:
    """The sidecars that mean to call the host and do not see it for one reason, those that the same object hides it from together.

    Of these only those who lose most: calls of some may be refused while those of others pass through.
    """
    groups: dict[tuple[str, str], list[Hidden]] = {}
    for h in case.once("hidden", lambda: list(_hidden(case))):
        if h.cause == cause:
            sidecar = (h.loser or h.scope.sidecar) if cause.startswith(("sidecar", "two")) else None
            groups.setdefault((h.istiod.cluster, sidecar.ref if sidecar else ""), []).append(h)
    return [[h for h in group if h.share == max(g.share for g in group)] for group in groups.values()]


def _hidden(case: Case) -> Iterator[Hidden]:
    for callers in case.blind:
        if callers.proxy.kind != "sidecar":
            continue
        istiod = case.mesh.istiod(case.mesh.cluster(callers.proxy.cluster).name)
        asking = case.askers(istiod)
        wanting = [v for v in callers.viewpoints if v.namespace in asking and case.asks(v)]
        if not wanting and callers.proxy.namespace not in istiod.crowding:
            continue
        ups = upstreams(case.mesh, callers.proxy)
        cause, loser = _why(case, ups.istiod, ups.scope, callers)
        if not cause:
            continue
        asks = tuple(dict.fromkeys(case.wants(v) for v in wanting))
        if loser is not None and not wanting and _named(loser, ups.istiod.by_host[case.host]):
            wanting, asks = list(callers.viewpoints), (f"{loser.ref} names its namespace",)
        if wanting:
            unheard = _unheard(case, callers.proxy.namespace) if ups.scope.allow_any and cause != "registry-only-unknown" else 0.0
            yield Hidden(cause, callers, ups.istiod, ups.scope, tuple(wanting), asks, loser, unheard)


def _unheard(case: Case, namespace: str) -> float:
    """What part of plain calls to the host fails, on its worst port: its servers accept mutual TLS only, or policies let in by identity."""
    part = strict(case)[0] if shut(case) else 0.0
    return max(part, closed(case, namespace)[0] if guarded(case) else 0.0)


def _why(case: Case, istiod: Istiod, scope: Scope, callers: Class) -> tuple[str, Sidecar | None]:
    known = istiod.by_host.get(case.host, [])
    namespace = callers.proxy.namespace
    if not known and any(names.is_wildcard(h) and names.matches(h, case.host) for h in scope.services):
        return "", None
    if not known:
        return "discovery-selectors" if case.host in istiod.undiscovered else "registry-only-unknown", None
    if case.host in scope.services:
        return "", None
    if not any(istiod.visible(s, namespace) for s in known):
        private = all(s.export_to == {"~"} for s in known)  # hidden from everybody on purpose
        return "" if private else by_export(istiod, known), None
    kept = scope.sidecar
    if kept is None:
        return "", None
    for other in istiod.sidecars(callers.proxy):
        same = other.namespace == kept.namespace and (other.spec.workload_selector is None) == (kept.spec.workload_selector is None)
        if other is not kept and same and case.host in _scope(istiod, namespace, other).services:
            return "two-sidecars-conflict", other
    kept_out = any(li.excludes(s.namespace, case.host) for li in scope.listeners for s in known)
    return "sidecar-exclusion" if kept_out else "sidecar-egress-missing", None


def _scope(istiod: Istiod, namespace: str, sidecar: Sidecar) -> Scope:
    return istiod.once(f"scope {namespace} {sidecar.ref}", lambda: Scope(istiod, namespace, sidecar, gateway=False))


def _named(sidecar: Sidecar, known: Iterable[HostService]) -> bool:
    """Whether a Sidecar's egress names the namespace of a host."""
    spaces = {s.namespace for s in known}
    return any(h.partition("/")[0] in spaces for e in sidecar.spec.egress or () for h in e.hosts or ())


def by_export(istiod: Istiod, known: Iterable[HostService]) -> str:
    """Whether a host's own exportTo hides it, or what the mesh says: its default, or how far ServiceEntries may be seen."""
    return "svc-exportto-hidden" if all(s.export_to and not istiod.capped(s) for s in known) else "mesh-default-exportto"


def unexported(branch: Branch) -> list[HostService]:
    """The services of a destination that exist and are not exported to its caller; none when one is, or when there is none.

    A waypoint serves a service of its namespace that it may not see either: then it has the cluster and none of its endpoints.
    """
    u = branch.upstream
    istiod, namespace = branch.view.ups.istiod, branch.view.callers.proxy.namespace
    known = istiod.by_host.get(u.host, []) if u.service is None or branch.view.ups.proxy.kind == "waypoint" else []
    return [] if any(istiod.visible(s, namespace) for s in known) else known


def foreign(branch: Branch) -> bool:
    """Whether a destination's rule stands in another namespace than its caller; a default route is nobody's."""
    source = branch.step.source
    return source is not None and source.partition(" ")[2].partition("/")[0] != branch.view.callers.proxy.namespace


def export_path(service: HostService) -> str:
    """Where a service's exportTo stands."""
    return f"metadata.annotations[{EXPORT}]" if service.kubernetes else "spec.exportTo"


def exported_to(service: HostService) -> str:
    """A service's exportTo in words."""
    return f"{service.sources[0][1]} is exported to {', '.join(sorted(service.export_to)) or 'whom the mesh says'}"


def at(case: Case, istiod: Istiod, service: HostService) -> Cluster:
    """The registered cluster in which a service's object stands."""
    return case.mesh.cluster(service.sources[0][0] if service.kubernetes else istiod.cluster)


def exporting(case: Case, istiod: Istiod, service: HostService, viewpoints: Iterable[Viewpoint]) -> str | None:
    """The patch that exports a service to some callers as well."""
    cluster = at(case, istiod, service)
    _, _, name = service.sources[0][1].rpartition("/")
    to = [*sorted(service.export_to), *dict.fromkeys(v.namespace for v in viewpoints)]
    if service.kubernetes:
        return case.patch(cluster.name, cluster.get(Service, service.namespace, name), (("metadata", "annotations", EXPORT), ",".join(to)))
    return case.patch(cluster.name, cluster.get(ServiceEntry, service.namespace, name), (("spec", "exportTo"), to))


def mesh_config(case: Case, istiod: Istiod) -> tuple[Cluster, str]:
    """The cluster and the ref of the ConfigMap that holds the mesh's settings."""
    cluster = case.mesh.cluster(istiod.cluster)
    found = case.mesh.config_map(cluster)
    return cluster, found.ref if isinstance(found, ConfigMap) else f"ConfigMap {istiod.config.root_namespace}/istio"


def spaces(viewpoints: Iterable[Viewpoint]) -> str:
    """The namespaces of some callers in words."""
    found = list(dict.fromkeys(v.namespace for v in viewpoints))
    return f"namespace{'s'[: len(found) != 1]} {', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
