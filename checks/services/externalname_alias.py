"""externalname-alias (MESH320)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import Branch, Case, short
from checks.finding import Finding, HostCue, check, explained, explains
from checks.resources import Service
from checks.routes import upstreams
from checks.subsets import percent, reweigh

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.istiod import Istiod
    from checks.mesh import Mesh
    from checks.registry import HostService
    from checks.viewpoints import Class

_GIVE_WAY = (
    "vs-dest-host-unknown",
    "vs-dest-partial-name",
    "vs-dest-shortname-ns",
    "vs-dest-port-unknown",
    "vs-port-omitted-multiport",
    "vs-port-omitted-other-port",
    "subset-undefined",
)


@explains("externalname-alias", before=_GIVE_WAY)
def _explains(case: Case, branch: Branch) -> bool:
    del case
    u = branch.upstream
    if u.defined or not u.host:
        return False
    return (u.service is not None and u.service.resolution == "alias") or _through(branch) is not None


def _through(branch: Branch) -> HostService | None:
    """The ExternalName Service by whose name a rule calls a destination that Envoy has no cluster for."""
    istiod, target = branch.view.ups.istiod, branch.upstream.host
    if branch.upstream.service is not None and branch.upstream.service.port(branch.upstream.port) is not None:
        return None
    for alias in _aliases(istiod).get(target, ()):
        for r in istiod.rulesets:
            if r.ref == branch.step.source and alias.hostname in (to := r.leads) and target not in to:
                return alias
    return None


def _aliases(istiod: Istiod) -> dict[str, list[HostService]]:
    """ExternalName Services by the name that they stand for."""

    def index() -> dict[str, list[HostService]]:
        out: dict[str, list[HostService]] = {}
        for s in istiod.services:
            if s.resolution == "alias":
                out.setdefault(s.external_name, []).append(s)
        return out

    return istiod.once("aliases", index)


@HostCue
def _alias(istiod: Istiod) -> Iterable[str]:
    """The host is another name of some host."""
    return [s.hostname for s in istiod.services if s.resolution == "alias"]


@check("externalname-alias", when=(explained, _alias))
def externalname_alias(case: Case) -> Iterator[Finding]:
    """A call leads through a Service of type ExternalName to something that Istio has no cluster for.

    istiod replaces such a destination by the name that it stands for, once: when that is no host of the mesh, another ExternalName, or a
    Service without the port, the route names a cluster that does not exist, and Envoy answers 503 (flag NC). A call to the alias itself, which no
    rule mentions, is passed on to what DNS says: to nobody when the Service that it names does not exist or does not have the port.

    How to see it: `kubectl get service NAME -o yaml` shows type ExternalName; `istioctl proxy-config cluster` has nothing of its name.

    How to fix it: lead to the target itself, or define an outer name by a ServiceEntry.
    """
    groups: dict[tuple[str, str], list[Branch]] = {}
    for branches in case.caused("externalname-alias"):
        groups.setdefault((branches[0].resource, branches[0].upstream.host), []).extend(branches)
    for (resource, target), branches in groups.items():
        first = branches[0]
        alias = _through(first) or first.upstream.service
        if alias is None:
            continue
        share = case.share(branches)
        yield case.finding(
            "externalname-alias",
            cluster=case.cluster_of(first),
            resource=resource,
            path=f"{first.path}.destination.host" if first.path else "",
            message=f"{percent(share)} of the requests of a rule fail: it leads to {alias.sources[0][1]}, an ExternalName for {_said(first, alias, target)}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{alias.sources[0][1]}: type ExternalName, externalName {alias.external_name}",
                f"no cluster {first.upstream.name} is pushed",
            ),
            fix="Lead the rule to the host and port that are meant; define a name outside of the mesh by a ServiceEntry.",
            patch=reweigh(case, branches),
            commands=(
                f"kubectl -n {alias.namespace} get service {alias.name} -o yaml",
                f"istioctl proxy-config cluster <pod> --fqdn {target}",
            ),
        )
    yield from _called_itself(case)


def _said(branch: Branch, alias: HostService, target: str) -> str:
    if branch.upstream.service is None:
        return f"{target}, which is no host of the mesh"
    if branch.upstream.service.resolution == "alias" and alias is branch.upstream.service:
        return f"{alias.external_name} that another ExternalName leads to"
    return f"{short(target)}, which does not have port {branch.upstream.port}"


def _called_itself(case: Case) -> Iterator[Finding]:
    """A call to the alias itself, without any rule, whose name leads nowhere inside of the cluster."""
    seeing: list[tuple[Class, HostService, str]] = []
    for callers in case.blind:
        ups = upstreams(case.mesh, callers.proxy)
        alias = ups.scope.services.get(case.host) if callers.proxy.kind == "sidecar" else None
        if alias is not None and alias.resolution == "alias" and (nowhere := _nowhere(case.mesh, ups.istiod, alias)):
            seeing.append((callers, alias, nowhere))
    if not seeing:
        return
    callers, alias, nowhere = seeing[0]
    yield case.finding(
        "externalname-alias",
        cluster=case.mesh.cluster(callers.proxy.cluster).name,
        resource=alias.sources[0][1],
        path="spec.externalName",
        message=f"Every request to {short(case.host)} fails: {nowhere}.",
        share=1.0,
        viewpoints=tuple(dict.fromkeys(v for c, _, _ in seeing for v in c.viewpoints)),
        evidence=(f"{alias.sources[0][1]}: type ExternalName, externalName {alias.external_name}, ports {_ports(alias)}",),
        fix=f"Correct spec.externalName or the ports of {alias.sources[0][1]}.",
        commands=(f"kubectl -n {alias.namespace} get service {alias.name} -o yaml", f"kubectl get service -A | grep {alias.name}"),
    )


def _nowhere(mesh: Mesh, istiod: Istiod, alias: HostService) -> str:
    """Why DNS leads a call of the alias to nobody; empty when it does not, or when only DNS knows."""
    target, seen = alias.external_name.rstrip("."), {alias.hostname}
    while (found := istiod.by_host.get(target)) and found[0].resolution == "alias":
        if target in seen:
            return f"the ExternalNames {' and '.join(sorted(short(s) for s in seen))} stand for each other"
        seen.add(target)
        target = found[0].external_name.rstrip(".")
    if not found:
        return f"it stands for {target}, and there is no such Service" if _missing(mesh, target) else ""
    service = found[0]
    if not service.kubernetes or service.resolution != "static" or not service.ports:
        return ""
    lost = [p.number for p in alias.ports if service.port(p.number) is None]
    if lost and len(lost) == len(alias.ports):
        return f"it stands for {short(target)}, which has ports {_ports(service)} and not {', '.join(map(str, lost))}"
    return ""


def _missing(mesh: Mesh, target: str) -> bool:
    """Whether a name is one of the clusters' own, and no Service has it, not even one that istiod does not look at."""
    name, _, rest = target.partition(".")
    namespace = rest.partition(".")[0]
    if target != names.service_host(name, namespace):
        return False
    for c in mesh.clusters:
        mesh.require(c, Service)
    return all(c.get(Service, namespace, name) is None for c in mesh.clusters)


def _ports(service: HostService) -> str:
    return ", ".join(str(p.number) for p in service.ports) or "none"
