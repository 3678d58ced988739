"""config-rejected-by-istiod (MESH910)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.binding import fits, gates, kept, rulesets, ruling, virtual_service
from checks.entries import behind, known_subset, served
from checks.finding import Finding, HostCue, check, explained, explains
from checks.resources import DestinationRule, Gateway, ServiceEntry, VirtualService
from checks.subsets import carriers, percent, wanted_labels, written_for
from checks.validation import PLAIN, faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.resources import Resource
    from checks.validation import Fault


@explains(
    "config-rejected-by-istiod",
    before=(
        "vs-dest-host-unknown",
        "se-wildcard-resolution",
        "subset-undefined",
        "se-static-no-endpoints",
        "subset-empty-weighted",
        "subset-empty-all",
    ),
)
def _explains(case: Case, branch: Branch) -> bool:
    return _homeless(branch) or bool(_named(case, branch) or _fixed(case, branch) or _bare(case, branch))


def _homeless(branch: Branch) -> bool:
    """Whether a destination of a VirtualService says no host."""
    return not branch.upstream.host and branch.resource.startswith("VirtualService ")


def _named(case: Case, branch: Branch) -> list[ServiceEntry]:
    """The STATIC ServiceEntries behind a destination whose endpoints are all DNS names, which no EDS cluster takes."""
    u = branch.upstream
    if u.service is None or u.service.kubernetes or u.service.resolution != "static" or not known_subset(branch):
        return []
    addresses = [a.rpartition(":")[0] for a in carriers(case, branch, wanted_labels(u))]
    if not any(addresses) or any(names.is_ip(a.strip("[]")) or a.startswith("unix:") for a in addresses):
        return []
    found = [e for e in behind(case, branch) if e.spec.resolution == "STATIC"]
    return [e for e in found if any(not names.is_ip(x.address) for x in e.spec.endpoints or ())]


def _bare(case: Case, branch: Branch) -> list[tuple[ServiceEntry, int]]:
    """The endpoints behind a destination that have no address although they need one, where no other has any; with the place of the first."""
    u = branch.upstream
    if u.service is None or u.service.kubernetes or not known_subset(branch) or served(case, branch):
        return []
    found = [e for e in behind(case, branch) if e.spec.endpoints]
    return [(e, i) for e in found for i, x in enumerate(e.spec.endpoints or ()) if not x.address and (u.service.dns or not x.network)]


@HostCue
def _faulty(istiod: Istiod) -> Iterable[str]:
    """Some object that says something about the host is not valid."""
    bad = [
        o
        for kind in (VirtualService, DestinationRule, ServiceEntry, Gateway)
        for o in istiod.all(kind)
        if next(faults(o), None) is not None
    ]
    if not bad:
        return ()
    refs = {o.ref for o in bad}
    gateways = {f"{o.namespace}/{o.name}" for o in bad if isinstance(o, Gateway)}
    hosts = [h for o in bad if isinstance(o, ServiceEntry) for h in o.spec.hosts or ()]
    hosts += [names.fqdn(o.spec.host, o.namespace) for o in bad if isinstance(o, DestinationRule)]
    hosts += ruling(istiod, lambda r: r.ref in refs or any(rule.leaf in refs for rule in r.http) or not gateways.isdisjoint(r.gateways))
    return hosts


def _fixed(case: Case, branch: Branch) -> list[ServiceEntry]:
    """The ServiceEntries that want to look a destination up at each request although its host is no wildcard."""
    u = branch.upstream
    if u.service is None or u.service.resolution != "dynamic_dns" or names.is_wildcard(u.host):
        return []
    return [e for e in behind(case, branch) if e.spec.resolution == "DYNAMIC_DNS"]


@check("config-rejected-by-istiod", when=(explained, _faulty))
def config_rejected_by_istiod(case: Case) -> Iterator[Finding]:
    """An object says what istiod's validation refuses, and it is in the cluster all the same.

    The webhook `istiod-default-validator` refuses such an object when it is applied. One that was stored past it (the webhook was off, failed open, or
    belongs to another revision) is used as far as it goes: a part of it is ignored, or Envoy refuses what istiod made of it, together with
    everything that came in the same push.

    How to see it: `istioctl analyze` (IST0106) or `istioctl validate -f FILE`; `istioctl proxy-status` where Envoy refuses it.

    How to fix it: correct the field, and see to it that the webhook runs (`kubectl get validatingwebhookconfigurations`).
    """
    told: set[tuple[str, str]] = set()
    for branches in case.caused("config-rejected-by-istiod"):
        finding = _failing(case, branches)
        told.add((finding.resource, finding.path))
        yield finding
    for istiod in case.mesh.control_planes:
        for o in _objects(case, istiod):
            viewpoints = _concerned(case, istiod, o)
            for f in faults(o) if viewpoints else ():
                if (o.ref, f.path) not in told and _means(case, istiod, o, f):
                    told.add((o.ref, f.path))
                    yield case.finding(
                        "config-rejected-by-istiod",
                        cluster=case.mesh.cluster(istiod.cluster).name,
                        resource=o.ref,
                        path=f.path,
                        message=f"{o.ref} is not valid: {f.wrong}; {f'connections for {case.host} are closed' if _unmet(case, f) else f.effect}.",
                        share=1.0 if (isinstance(o, Gateway) and f.effect == PLAIN) or _unmet(case, f) else 0.0,
                        viewpoints=viewpoints,
                        evidence=(f"{f.path} of {o.ref}: {f.wrong}", "istiod's validation refuses this (pkg/config/validation)"),
                        fix=f"Correct {f.path} of {o.ref}.",
                        commands=(
                            f"istioctl analyze -n {o.namespace}",
                            f"kubectl -n {o.namespace} get {_plural(o)} {o.name} -o yaml",
                        ),
                    )


def _failing(case: Case, branches: list[Branch]) -> Finding:
    first = branches[0]
    share = case.share(branches)
    if _homeless(first):
        ref, path, wrong = first.resource, f"{first.path}.destination.host", "the destination says no host"
        fix = f"Name the host in {path}."
    elif fixed := _fixed(case, first):
        ref, path = fixed[0].ref, "spec.resolution"
        wrong = f"resolution DYNAMIC_DNS takes wildcards, and {first.upstream.host} is none"
        fix = f"Say resolution DNS in {ref}."
    elif bare := _bare(case, first):
        ref, path = bare[0][0].ref, f"spec.endpoints[{bare[0][1]}].address"
        wrong, fix = "an endpoint needs an address", f"Write an address into {path} of {bare[0][0].ref}."
    else:
        entry = _named(case, first)[0]
        ref, path = entry.ref, "spec.endpoints"
        wrong = f"resolution STATIC takes IP addresses, and its endpoints are {', '.join(e.address for e in entry.spec.endpoints or ())}"
        fix = f"Write IP addresses into spec.endpoints of {ref}, or say resolution DNS."
    namespace = ref.partition(" ")[2].partition("/")[0]
    return case.finding(
        "config-rejected-by-istiod",
        cluster=case.cluster_of(first),
        resource=ref,
        path=path,
        message=f"{percent(share)} of the requests of a rule fail: {ref} is not valid, {wrong}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(f"{path} of {ref}: {wrong}", "istiod's validation refuses this (pkg/config/validation)"),
        fix=fix,
        commands=(f"istioctl analyze -n {namespace}", f"istioctl proxy-config cluster <pod> --fqdn '{first.upstream.host or case.host}'"),
    )


def _plural(o: Resource) -> str:
    return type(o).__name__.lower()


# --- what concerns the host ------------------------------------------------------------------------------------------------------


def _objects(case: Case, istiod: Istiod) -> list[Resource]:
    """The objects of a control plane that say something about the host."""
    mine = [r for i, r in rulesets(case) if i is istiod and not r.gateway_api]
    refs = dict.fromkeys(ref for r in mine for ref in (r.ref, *(rule.leaf for rule in r.http if rule.leaf)))
    found: list[Resource | None] = [virtual_service(istiod, ref) for ref in refs]
    found += written_for(istiod, case.host)
    found += case.entries(istiod, case.host)
    found += {g: kept(istiod, g) for r in mine for g in r.gateways}.values()
    return [o for o in found if o is not None]


def _concerned(case: Case, istiod: Istiod, o: Resource) -> tuple[Viewpoint, ...]:
    """The callers of the host for whom an object counts: those who get its rules, else all."""
    views = [v for v in case.views if v.ups.istiod is istiod]
    if isinstance(o, Gateway):
        views = [v for v in views if v.callers.proxy.kind == "gateway"]
    if isinstance(o, VirtualService):
        views = [v for v in views if any(o.ref in (s.source, s.leaf) for s in v.steps)] or views
    if isinstance(o, VirtualService) and not views:  # a gateway that was to have its rules has none for the host
        bound = {f"Gateway {name}" for i, r in rulesets(case) if i is istiod and r.ref == o.ref for name in r.gateways}
        return tuple(g.viewpoint for g in gates(case.mesh) if g.ups.istiod is istiod and any(b.ref in bound for b in g.bound))
    return tuple(dict.fromkeys(x for v in views for x in v.callers.viewpoints))


def _unmet(case: Case, fault: Fault) -> bool:
    """Whether a tls rule takes other names than the host's, which then no filter chain of a gateway takes (core/gateway.go)."""
    return not case.views and fault.path.startswith("spec.tls[") and fault.path.endswith(".sniHosts")


def _means(case: Case, istiod: Istiod, o: Resource, fault: Fault) -> bool:
    """Whether a fault of a Gateway is about a server that takes the host."""
    if not isinstance(o, Gateway):
        return True
    mine = [r for i, r in rulesets(case) if i is istiod and f"{o.namespace}/{o.name}" in r.gateways]
    return any(fits(fault.part, o.namespace, r, case.host) for r in mine)  # type: ignore[arg-type] # a Gateway's parts are servers
