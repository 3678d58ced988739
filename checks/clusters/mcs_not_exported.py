"""mcs-not-exported (MESH610)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.resources import ServiceExport, ServiceImport
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.istiod import Istiod
    from checks.registry import HostService, IstioEndpoint


def _kept(branch: Branch) -> list[IstioEndpoint]:
    """Healthy endpoints of other clusters that are not exported to this caller's."""
    return [e for e, r in branch.view.ups.reach(branch.upstream) if r == "not-exported" and e.health == "healthy"]


def _real(branch: Branch) -> HostService | None:
    """The Service behind a host in clusterset.local that its callers do not have; None for any other destination."""
    u = branch.upstream
    name, _, rest = u.host.partition(".")
    namespace = rest.partition(".")[0]
    if u.service is not None or u.host != names.clusterset_host(name, namespace):
        return None
    known = branch.view.ups.istiod.by_host.get(names.service_host(name, namespace), ())
    return next((s for s in known if s.kubernetes), None)


@explains("mcs-not-exported", before=("vs-dest-host-unknown", "gwapi-backend-notfound"))
def _explains(_: Case, branch: Branch) -> bool:
    kept = branch.view.ups.istiod.plane.mcs and branch.upstream.defined and _kept(branch)
    return bool(kept) or _real(branch) is not None


@check("mcs-not-exported", when=explained)
def mcs_not_exported(case: Case) -> Iterator[Finding]:
    """A Service is not exported to the cluster of its callers, as Multi-cluster Services ask for.

    With ENABLE_MCS_SERVICE_DISCOVERY istiod gives a Service's endpoints to callers of their own cluster alone, until a ServiceExport of the
    Service's name stands beside them: 503 "no healthy upstream" (flag UH) in every other cluster that has none itself. With
    ENABLE_MCS_HOST an imported Service is also called `NAME.NAMESPACE.svc.clusterset.local`; the host exists for Envoy only where a
    ServiceImport with an address does, else 503 (flag NC).

    How to see it: `kubectl get serviceexports,serviceimports -A` in each cluster; istiod's `/debug/mcsz`.

    How to fix it: create the ServiceExport in the cluster that has the endpoints.
    """
    groups: dict[tuple[Istiod, str], list[Branch]] = {}
    for b in case.failing():
        if case.why(b) == "mcs-not-exported":
            groups.setdefault((b.view.ups.istiod, b.upstream.host), []).append(b)
    for branches in groups.values():
        viewpoints = case.viewpoints(branches)
        calling = " and ".join(dict.fromkeys(v.cluster for v in viewpoints))
        real = _real(branches[0])
        yield _unknown(case, branches, viewpoints, calling, real) if real is not None else _unexported(case, branches, viewpoints, calling)


def _unexported(case: Case, branches: list[Branch], viewpoints: tuple[Viewpoint, ...], calling: str) -> Finding:
    first = branches[0]
    u, istiod, found = first.upstream, first.view.ups.istiod, _kept(first)
    if u.service is None:
        raise LookupError(u.host)
    home = case.mesh.cluster(found[0].cluster)
    ns, name, share = u.service.namespace, u.service.name, case.share(branches)
    exported = (case.mesh.cluster_id(home), ns, name) in istiod.exports
    if exported and not u.host.endswith(f".{names.CLUSTERSET}"):
        what, fix = (
            "with ENABLE_MCS_CLUSTER_LOCAL this name means the caller's own cluster alone",
            f"Call {names.clusterset_host(name, ns)} instead, or deploy {short(u.host)} in {calling}.",
        )
    elif exported:
        what, fix = (
            f"{home.name} has ServiceExport {ns}/{name} and no ServiceImport of it with an address",
            f"Create ServiceImport {ns}/{name} in {home.name}.",
        )
    else:
        what, fix = f"{home.name} has no ServiceExport {ns}/{name}", f"Create ServiceExport {ns}/{name} in {home.name}."
    return case.finding(
        "mcs-not-exported",
        cluster=home.name,
        resource=f"Service {ns}/{name}",
        path="",
        message=(
            f"{percent(share)} of the requests from {calling} to {short(u.host)} have nobody to go to: "
            f"its endpoints are in {' and '.join(dict.fromkeys(case.mesh.cluster(e.cluster).name for e in found))}, and {what}."
        ),
        share=share,
        viewpoints=viewpoints,
        evidence=(
            f"istiod of {case.mesh.cluster(istiod.cluster).name} runs with ENABLE_MCS_SERVICE_DISCOVERY",
            what,
            *(f"{e.at} ({e.workload}) is healthy in {case.mesh.cluster(e.cluster).name}" for e in found[:5]),
        ),
        fix=fix,
        commands=(f"kubectl --context {home.name} -n {ns} get serviceexports,serviceimports {name}", endpoints_command(u)),
    )


def _unknown(case: Case, branches: list[Branch], viewpoints: tuple[Viewpoint, ...], calling: str, real: HostService) -> Finding:
    first = branches[0]
    istiod, share = first.view.ups.istiod, case.share(branches)
    serving = [e.cluster for e in case.endpoints(istiod, real) if e.health == "healthy"]
    at, ref = next((s for s in real.sources if s[0] in serving), real.sources[0])
    home = case.mesh.cluster(at)
    for c in case.mesh.clusters:
        case.mesh.require(c, ServiceExport, ServiceImport)
    exporting = [case.mesh.cluster(c).name for c, ns, name in sorted(istiod.exports) if (ns, name) == (real.namespace, real.name)]
    if not istiod.plane.mcs_host:
        what, fix = (
            "istiod does not serve hosts in clusterset.local (ENABLE_MCS_HOST)",
            f"Call {names.service_host(real.name, real.namespace)} instead, or run istiod with ENABLE_MCS_SERVICE_DISCOVERY and ENABLE_MCS_HOST.",
        )
    elif not exporting:
        what, fix = "no cluster has a ServiceExport of it", f"Create ServiceExport {real.namespace}/{real.name} in {home.name}."
    else:
        what, fix = (
            f"{' and '.join(exporting)} exports it, and no cluster has a ServiceImport of it with an address",
            f"See to it that the MCS controller creates ServiceImport {real.namespace}/{real.name} with spec.ips.",
        )
    return case.finding(
        "mcs-not-exported",
        cluster=home.name,
        resource=ref,
        path="",
        message=(
            f"{percent(share)} of the requests from {calling} that {first.resource} takes get 503: it leads to {first.upstream.host}, which does not exist, since {what}."
        ),
        share=share,
        viewpoints=viewpoints,
        evidence=(f"{first.resource} leads there ({first.path})", what, f"{ref} exists in {home.name}"),
        fix=fix,
        commands=(
            f"kubectl --context {home.name} -n {real.namespace} get serviceexports,serviceimports {real.name}",
            f"istioctl proxy-config cluster <pod> --fqdn {first.upstream.host}",
        ),
    )
