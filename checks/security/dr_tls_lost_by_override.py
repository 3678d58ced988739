"""dr-tls-lost-by-override (MESH823)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.case import short
from checks.finding import Finding, MeshCue, check
from checks.patches import Copied
from checks.patches import at as place
from checks.resources import DestinationRule, Resource
from checks.security import accepts, reached
from checks.subsets import destination_rules, exported_to, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod, MergedRule
    from checks.mesh import Mesh
    from checks.registry import HostService
    from checks.resources import ClientTLS, TrafficPolicy

_TLS_PORTS = frozenset({443, 8443, 9443, 6443, 636, 465, 993, 5671, 8883})
"""Ports that speak nothing but TLS, by convention."""


class _Lost(NamedTuple):
    """The field that covers a rule's tls: where it stands, whose tls it covers, and the cause that this is called by."""

    ref: str
    path: str
    tls: ClientTLS
    of: str
    cause: str = "dr-tls-lost-by-override"


@MeshCue
def tls_said(mesh: Mesh) -> bool:
    """Some DestinationRule says TLS, which another one, or a part of it, may take away."""
    made_of = tuple(c.objects.get(DestinationRule) for c in mesh.clusters)
    return mesh.once(("tls said",), made_of, lambda: any(_of_tls(r) for c in mesh.clusters for r in c.all(DestinationRule)))


def _of_tls(rule: Resource) -> bool:
    if not isinstance(rule, DestinationRule):
        return False
    policies = [p for p in (rule.spec.traffic_policy, *(s.traffic_policy for s in rule.spec.subsets or ())) if p is not None]
    return any(p.tls is not None or any(x.tls is not None for x in p.port_level_settings or ()) for p in policies)


@check("dr-tls-lost-by-override", when=tls_said)
def dr_tls_lost_by_override(case: Case) -> Iterator[Finding]:
    """A narrower traffic policy replaces one that says how to speak TLS, says nothing about TLS itself, and callers speak plain text.

    Settings of a port (portLevelSettings) inherit nothing: a port that only gets a connection limit loses the tls of the rule. The same
    happens where a nearer DestinationRule for the same host takes the place of the one that has the tls. The target speaks TLS alone, so calls
    are reset or answered with 400 ("plain HTTP request was sent to HTTPS port").

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST -o json` shows no transportSocket for this port.

    How to fix it: repeat tls where the narrower policy stands.
    """
    yield from plain(case, "dr-tls-lost-by-override")


def plain(case: Case, cause: str) -> Iterator[Finding]:
    """The findings of one cause about destinations that are called in plain text because a DestinationRule's tls is covered."""
    groups: dict[tuple[str, str], list[tuple[Branch, _Lost]]] = {}
    for b in case.branches:
        if b.share > 0 and b.upstream.usable and (found := lost(case, b)) is not None and found.cause == cause:
            groups.setdefault((found.ref, found.path), []).append((b, found))
            case.miss(b, b.upstream, 1.0)
    for group in groups.values():
        branches = [b for b, _ in group]
        first, found = group[0]
        u = first.upstream
        part = case.share(branches)
        ports = sorted({b.upstream.port for b in branches})
        which = f"port{'s'[: len(ports) != 1]} {', '.join(map(str, ports))}"
        yield case.finding(
            cause,
            cluster=case.cluster_of(first),
            resource=found.ref,
            path=found.path,
            message=(
                f"{percent(part)} of the requests of a rule reach {short(u.host)} as plain text on {which}, where only TLS is spoken: "
                f"{found.path} of {found.ref} covers the tls of {found.of} and has none."
            ),
            share=part,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{found.of} says tls mode {found.tls.mode}",
                f"{found.path} of {found.ref} takes its place for {which} and says nothing about tls",
                *sorted({f"{u.host}:{b.upstream.port} leads to port {p}" for b in branches for p in _targets(b)}),
            ),
            fix=f"Repeat tls (mode {found.tls.mode}) under {found.path} of {found.ref}.",
            patch=_patch(case, first, found),
            commands=(
                f"istioctl proxy-config cluster <pod> --fqdn {u.host} --port {u.port} -o json",
                f"kubectl -n {found.ref.partition(' ')[2].partition('/')[0]} get destinationrule {found.ref.rpartition('/')[2]} -o yaml",
            ),
        )


def lost(case: Case, branch: Branch) -> _Lost | None:
    """What covers the tls that a branch needs; None when nothing does, or when the target would take plain text as well."""
    u = branch.upstream
    if u.rule is None or u.service is None or branch.view.callers.proxy.kind == "waypoint":
        return None
    effective = u.rule.policy_for(u.port, u.subset)
    if effective is not None and effective.tls is not None:
        return None
    found = _covered(u.rule, u.port, u.subset) or _replaced(branch, u.rule, u.service)
    return found if found is not None and _needs_tls(case, branch, found.tls) else None


def _covered(rule: MergedRule, port: int, subset: str) -> _Lost | None:
    """The port's settings that cover the tls of the same rule."""
    origin = next((o for o in rule.origins if o.spec.traffic_policy is rule.policy), rule.origins[0])
    wide = rule.policy.tls if rule.policy else None
    inner = rule.subset_origins.get(subset) if subset else None
    for i, s in enumerate((inner.spec.subsets or ()) if inner is not None else ()):
        own = s.traffic_policy
        if s.name == subset and inner is not None and own is not None:
            tls, of = (own.tls, inner) if own.tls is not None else (wide, origin)
            if tls is not None and (at := _port_settings(own, port, f"spec.subsets[{i}].trafficPolicy")):
                return _Lost(inner.ref, at, tls, of.ref)
    if wide is not None and (at := _port_settings(rule.policy, port, "spec.trafficPolicy")):
        return _Lost(origin.ref, at, wide, origin.ref)
    return None


def _port_settings(policy: TrafficPolicy | None, port: int, at: str) -> str:
    for i, p in enumerate((policy.port_level_settings or ()) if policy is not None else ()):
        if p.port is not None and p.port.number == port:
            return f"{at}.portLevelSettings[{i}]"
    return ""


def _replaced(branch: Branch, nearer: MergedRule, service: HostService) -> _Lost | None:
    """The DestinationRule with tls whose place another one takes: one of a nearer namespace, or of the same one for a more specific host.

    istiod merges nothing across namespaces or hosts (pilot/pkg/model/push_context.go destinationRule, MostSpecificHostMatch).
    """
    istiod, proxy = branch.view.ups.istiod, branch.view.ups.proxy
    order = proxy.namespace, service.namespace, istiod.config.root_namespace
    if nearer.namespace not in order or nearer.selector is not None:
        return None
    first = order.index(nearer.namespace)
    found: list[tuple[int, tuple[bool, int, str], _Lost]] = []
    for host, rule in _secure(istiod, service.hostname):
        tls = _of_port(rule.spec.traffic_policy, branch.upstream.port)
        behind = order.index(rule.namespace) if rule.namespace in order else -1
        wider = host != nearer.host and names.subset_of(nearer.host, host)
        if tls is None or behind < first or (behind == first and not wider) or not exported_to(istiod, rule, proxy.namespace):
            continue
        # in another namespace than these it is its callers', whatever its host
        owned = nearer.namespace in order[1:]
        cause = "dr-specific-hides-wildcard" if wider and (owned or behind == first) else "dr-tls-lost-by-override"
        found.append((behind, names.specificity(host), _Lost(nearer.ref, "spec.trafficPolicy", tls, rule.ref, cause)))
    return min(found, key=lambda f: f[:2], default=(0, (False, 0, ""), None))[2]


def _secure(istiod: Istiod, host: str) -> Iterator[tuple[str, DestinationRule]]:
    """The DestinationRules that are for a host and say TLS, each with its own host; those with a workloadSelector are not for everybody."""

    def index() -> dict[str, list[tuple[str, DestinationRule]]]:
        out: dict[str, list[tuple[str, DestinationRule]]] = {}
        for r in destination_rules(istiod):
            if r.spec.workload_selector is None and _of_tls(r):
                own = names.fqdn(r.spec.host, r.namespace)
                out.setdefault("*" if names.is_wildcard(own) else own, []).append((own, r))
        return out

    found = istiod.once("rules with tls", index)
    yield from found.get(host, ())
    yield from ((own, r) for own, r in found.get("*", ()) if names.subset_of(host, own))


def _of_port(policy: TrafficPolicy | None, port: int) -> ClientTLS | None:
    """The tls that a policy has for a port: what is said for the port takes the place of all the rest."""
    own = next((p for p in (policy.port_level_settings or ()) if p.port is not None and p.port.number == port), None) if policy else None
    return own.tls if own is not None else policy.tls if policy is not None else None


def _needs_tls(case: Case, branch: Branch, tls: ClientTLS) -> bool:
    """Whether a target takes TLS alone: a port that is TLS by convention and that the caller speaks plain text to, or servers that say STRICT."""
    u = branch.upstream
    port = u.service.port(u.port) if u.service else None
    if port is None or port.tls or tls.mode == "DISABLE":
        return False
    if tls.mode == "ISTIO_MUTUAL":
        if branch.view.ups.istiod.config.enable_auto_mtls:
            return False
        servers = reached(case, branch)
        return bool(servers) and all(s.meshed and accepts(case.mesh, s).mode == "STRICT" for s in servers)
    return bool(_targets(branch)) and all(t in _TLS_PORTS for t in _targets(branch))


def _targets(branch: Branch) -> list[int]:
    """The port numbers at which a branch's requests arrive."""
    u = branch.upstream
    return sorted({e.port for e in u.endpoints} or {u.port})


def _patch(case: Case, branch: Branch, found: _Lost) -> str | None:
    """The tls of the rule copied, with its certificates, where it stands in the same object."""
    namespace, _, name = found.ref.partition(" ")[2].partition("/")
    rule = case.mesh.cluster(branch.view.ups.istiod.cluster).get(DestinationRule, namespace, name)
    wide = rule.spec.traffic_policy.tls if rule is not None and rule.spec.traffic_policy is not None else None
    if found.of != found.ref or wide != found.tls:
        return None
    return case.patch(branch.view.ups.istiod.cluster, rule, ((*place(found.path), "tls"), Copied(("spec", "trafficPolicy", "tls"))))
