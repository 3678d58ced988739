"""ambient-l7-without-waypoint (MESH925)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient, names
from checks.case import Case, short
from checks.finding import Finding, check
from checks.resources import AuthorizationPolicy, DestinationRule, Namespace
from checks.security import of_http, policies
from checks.when import through_ztunnel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from checks.answers import Viewpoint
    from checks.attachment import Attachment
    from checks.istiod import Istiod
    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import PolicyRule


@check("ambient-l7-without-waypoint", when=through_ztunnel)
def ambient_l7_without_waypoint(case: Case) -> Iterator[Finding]:
    """Rules that need HTTP stand in the ambient mesh for a service that has no waypoint.

    ztunnel forwards connections and looks into none: VirtualServices, routes and traffic policies of a service without a waypoint are ignored for
    callers of the ambient mesh. An AuthorizationPolicy is not ignored: ztunnel leaves out every ALLOW rule that names something of HTTP, and what
    remains allows less; when nothing remains, every call is denied. A DENY rule denies by what is left of it. So it is behind a waypoint, too: a
    policy that selects pods, or everybody, is ztunnel's. One that names the Service by targetRefs is for its waypoint alone, and without one
    nobody enforces it.

    How to see it: `istioctl ztunnel-config service` shows no waypoint for it; an AuthorizationPolicy says in its status what ztunnel cannot enforce.

    How to fix it: give the service a waypoint (`istioctl waypoint apply --enroll-namespace`), and attach such policies to it by targetRefs.
    """
    for cluster, istiod, service in ambient.services(case):
        behind = ambient.backends(case, service)
        callers = ambient.served(case, service, istiod)
        found = ambient.attachment(istiod, service)
        if not behind or not callers:
            continue
        yield from _policies(case, cluster, istiod, service, callers)
        if found is not None and not _of_pods(found):
            continue
        yield from _rules(case, cluster, istiod, service, callers)
        yield from _targeting(case, cluster, istiod, service, callers)


def _of_pods(found: Attachment) -> bool:
    """Whether a namespace's label names a waypoint that is for workloads alone: its pods may have one, its services have none."""
    return found.refused == "traffic type" and isinstance(found.labelled, Namespace)


def _unlabelled(istiod: Istiod, service: HostService) -> str:
    """Why a service has no waypoint, as a fact."""
    found = ambient.attachment(istiod, service)
    if found is not None and found.labelled is not None:
        return f"{found.labelled.ref} names waypoint {found.wanted}, which is for workloads alone (istio.io/waypoint-for)"
    return f"neither {service.sources[0][1]} nor namespace {service.namespace} has label istio.io/use-waypoint"


def _policies(case: Case, cluster: Cluster, istiod: Istiod, service: HostService, callers: tuple[Viewpoint, ...]) -> Iterator[Finding]:
    """Policies that ztunnel enforces without what they say of HTTP."""
    pod = next((p for c, p in ambient.backends(case, service) if c is cluster), None)
    if pod is None:
        return
    found = policies(case.mesh, cluster, service.namespace, pod.labels)
    allowing = [p for p in found if p.spec.action == "ALLOW"]
    rules = [r for p in allowing for r in p.spec.rules or ()]
    denied = bool(rules) and all(map(_unread, rules))
    waypoint = ambient.attachment(istiod, service)
    there = waypoint is not None and waypoint.refused is None
    numbers = {str(e.port) for e in case.endpoints(istiod, service)}
    for p in found:
        lost = [i for i, r in enumerate(p.spec.rules or ()) if _unread(r)]
        if not lost or p.spec.action not in {"ALLOW", "DENY"}:
            continue
        closing = p.spec.action == "DENY" and any(_closes(r, numbers) for r in p.spec.rules or () if _unread(r))
        share = 1.0 if closing or (denied and p.spec.action == "ALLOW") else 0.0
        yield case.finding(
            "ambient-l7-without-waypoint",
            cluster=cluster.name,
            resource=p.ref,
            path=f"spec.rules[{lost[0]}]",
            message=_said(p, case.host, denied=share > 0),
            share=share,
            viewpoints=callers,
            evidence=(
                f"{p.ref}: {len(lost)} of {len(p.spec.rules or ())} rules name something of HTTP, action {p.spec.action}",
                f"{pod.ref} is in the ambient mesh, and "
                + (f"{p.ref} has no targetRefs: the waypoint does not enforce it" if there else f"{short(case.host)} has no waypoint"),
            ),
            fix=f"{'Attach' if there else f'Give {short(case.host)} a waypoint and attach'} {p.ref} to {f'{service.sources[0][1]}' if there else 'it'} by targetRefs, "
            "or take what needs HTTP out of its rules.",
            commands=(
                f"kubectl -n {p.namespace} get authorizationpolicy {p.name} -o yaml",
                f"istioctl ztunnel-config service --service-namespace {service.namespace}",
            ),
        )


def _targeting(case: Case, cluster: Cluster, istiod: Istiod, service: HostService, callers: tuple[Viewpoint, ...]) -> Iterator[Finding]:
    """Policies that name the Service, which only a waypoint enforces (pilot/pkg/serviceregistry/ambient/authorization.go)."""
    for p in istiod.all(AuthorizationPolicy):
        if not isinstance(p, AuthorizationPolicy) or p.namespace != service.namespace:
            continue
        targets = [t for t in (p.spec.target_ref, *(p.spec.target_refs or ())) if t is not None]
        if not any((t.kind, t.name) == ("Service", service.name) for t in targets) or not service.kubernetes:
            continue
        yield case.finding(
            "ambient-l7-without-waypoint",
            cluster=cluster.name,
            resource=p.ref,
            path="spec.targetRefs",
            message=f"{p.ref} is enforced by nobody: it names {service.sources[0][1]} by targetRefs, and {short(case.host)} has no waypoint.",
            share=0.0,
            viewpoints=callers,
            evidence=(
                f"{p.ref}: action {p.spec.action}, targetRefs {', '.join(f'{t.kind} {t.name}' for t in targets)}",
                _unlabelled(istiod, service),
            ),
            fix=f"Give {short(case.host)} a waypoint: istioctl waypoint apply -n {service.namespace}, and label {service.sources[0][1]} with istio.io/use-waypoint.",
            commands=(
                f"kubectl -n {p.namespace} get authorizationpolicy {p.name} -o yaml",
                f"istioctl ztunnel-config service --service-namespace {service.namespace}",
            ),
        )


def _unread(rule: PolicyRule) -> bool:
    """Whether a rule names something that ztunnel cannot see (ambient/authorization.go handleRule)."""
    sources = [f.source for f in rule.from_ or ()]
    return (
        of_http(rule)
        or any(s.remote_ip_blocks or s.not_remote_ip_blocks for s in sources)
        or any(c.key not in _SEEN for c in rule.when or ())
    )


_SEEN = frozenset({"source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"})
"""What a condition may ask of a connection (l4WhenAttributes)."""


def _closes(rule: PolicyRule, numbers: Collection[str]) -> bool:
    """Whether a rule means every call of some of these ports once what is of HTTP is left out; what then names nothing means nobody."""
    return not rule.from_ and not rule.when and any(n in numbers for t in rule.to or () for n in t.operation.ports or ())


def _said(policy: AuthorizationPolicy, host: str, *, denied: bool) -> str:
    if denied and policy.spec.action == "DENY":
        return f"Every call of {short(host)} on a port that {policy.ref} names is denied: ztunnel leaves out what it says of HTTP, and denies by the port alone."
    if denied:
        return f"Every call of {short(host)} is denied: ztunnel leaves out the rules of {policy.ref} that need HTTP, and no other rule allows anything."
    if policy.spec.action == "ALLOW":
        return f"Some calls of {short(host)} are denied: ztunnel leaves out the rules of {policy.ref} that need HTTP."
    return f"{policy.ref} does not deny what it names of HTTP at {short(host)}: ztunnel cannot look into requests."


def _rules(case: Case, cluster: Cluster, istiod: Istiod, service: HostService, callers: tuple[Viewpoint, ...]) -> Iterator[Finding]:
    """Routes that nobody applies; without any, a traffic policy."""
    near = {service.namespace, *(v.namespace for v in callers)}
    ignored = [
        (r.ref, "spec.parentRefs" if r.gateway_api else "spec.http" if r.http else "spec")
        for r in istiod.rulesets
        if "mesh" in r.gateways and case.host in (h.lower() for h in r.hosts) and r.namespace in near
    ]
    ignored = ignored or [
        (rule.ref, "spec.trafficPolicy")
        for rule in istiod.all(DestinationRule)
        if isinstance(rule, DestinationRule)
        and rule.namespace == service.namespace
        and rule.spec.traffic_policy is not None
        and names.fqdn(rule.spec.host, rule.namespace) == case.host
    ]
    for ref, path in dict(ignored).items():
        yield case.finding(
            "ambient-l7-without-waypoint",
            cluster=cluster.name,
            resource=ref,
            path=path,
            message=f"{ref} does nothing for callers of the ambient mesh: {short(case.host)} has no waypoint that would apply it.",
            share=0.0,
            viewpoints=callers,
            evidence=(
                f"pods of {short(case.host)} in the ambient mesh: {len(ambient.backends(case, service))}",
                _unlabelled(istiod, service),
            ),
            fix=f"Give {short(case.host)} a waypoint: istioctl waypoint apply -n {service.namespace}, and label {service.sources[0][1]} with istio.io/use-waypoint.",
            commands=(
                f"istioctl ztunnel-config service --service-namespace {service.namespace}",
                f"istioctl waypoint list -n {service.namespace}",
            ),
        )
