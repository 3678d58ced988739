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
from checks.subsets import destination_rules, exported_to, percent, selected

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
    """Why a rule's tls does not reach its callers: the field that keeps it from them, whose tls it is, the cause; and how that is said and mended where nothing covers it."""

    ref: str
    path: str
    tls: ClientTLS
    of: str
    cause: str = "dr-tls-lost-by-override"
    why: str = ""
    fix: str = ""


def tls_lost(case: Case) -> bool:
    """A cue: some destination of the host is called in plain text because a DestinationRule's tls does not reach its callers."""
    return _said(case) and bool(_losses(case))


def _losses(case: Case) -> list[tuple[Branch, _Lost]]:
    def find() -> list[tuple[Branch, _Lost]]:
        return [(b, found) for b in case.branches if b.share > 0 and b.upstream.usable and (found := lost(case, b)) is not None]

    return case.once("tls lost", find)


@MeshCue
def _said(mesh: Mesh) -> bool:
    """Some DestinationRule says TLS, which another one, or a part of it, may take away."""
    made_of = tuple(c.objects.get(DestinationRule) for c in mesh.clusters)
    return mesh.once(("tls said",), made_of, lambda: any(_of_tls(r) for c in mesh.clusters for r in c.all(DestinationRule)))


def _of_tls(rule: Resource) -> bool:
    if not isinstance(rule, DestinationRule):
        return False
    policies = [p for p in (rule.spec.traffic_policy, *(s.traffic_policy for s in rule.spec.subsets or ())) if p is not None]
    return any(p.tls is not None or any(x.tls is not None for x in p.port_level_settings or ()) for p in policies)


@check("dr-tls-lost-by-override", when=tls_lost)
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
    for b, found in _losses(case):
        if found.cause == cause:
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
                f"{found.why or f'{found.path} of {found.ref} covers the tls of {found.of} and has none'}."
            ),
            share=part,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{found.of} says tls mode {found.tls.mode}",
                *(() if found.why else (f"{found.path} of {found.ref} takes its place for {which} and says nothing about tls",)),
                *sorted({f"{u.host}:{b.upstream.port} leads to port {p}" for b in branches for p in _targets(b)}),
            ),
            fix=found.fix or f"Repeat tls (mode {found.tls.mode}) under {found.path} of {found.ref}.",
            patch=_patch(case, first, found),
            commands=(
                f"istioctl proxy-config cluster <pod> --fqdn {u.host} --port {u.port} -o json",
                f"kubectl -n {found.ref.partition(' ')[2].partition('/')[0]} get destinationrule {found.ref.rpartition('/')[2]} -o yaml",
            ),
        )


def lost(case: Case, branch: Branch) -> _Lost | None:
    """What keeps from a branch the tls that it needs; None when nothing does, or when the target would take plain text as well."""
    u = branch.upstream
    if u.service is None or branch.view.callers.proxy.kind == "waypoint":
        return None
    if not (rules := _secure(branch.view.ups.istiod, u.service.hostname)):
        return None
    effective = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    if effective is not None and effective.tls is not None:
        return None
    found = (_covered(u.rule, u.port, u.subset) if u.rule is not None else None) or _elsewhere(case, branch, u.service, rules)
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


def _elsewhere(case: Case, branch: Branch, service: HostService, rules: list[tuple[str, DestinationRule]]) -> _Lost | None:
    """The DestinationRule with tls that would be these callers' if it stood elsewhere, were exported to them, or had not another one in its place."""
    istiod = branch.view.ups.istiod
    order = branch.view.ups.proxy.namespace, service.namespace, istiod.config.root_namespace
    found: list[tuple[int, tuple[bool, int, str], _Lost]] = []
    for host, rule in rules:
        tls = _of_port(rule.spec.traffic_policy, branch.upstream.port) if rule.spec.workload_selector is None else None
        if tls is not None and (one := _reason(case, branch, order, host, rule, tls)) is not None:
            found.append((order.index(rule.namespace) if rule.namespace in order else len(order), names.specificity(host), one))
    return min(found, key=lambda f: f[:2], default=(0, (False, 0, ""), None))[2]


def _reason(case: Case, branch: Branch, order: tuple[str, str, str], host: str, rule: DestinationRule, tls: ClientTLS) -> _Lost | None:
    """Why callers do not get a rule for their host: istiod merges nothing across namespaces or hosts (pilot/pkg/model/push_context.go destinationRule)."""
    istiod, proxy, nearer = branch.view.ups.istiod, branch.view.ups.proxy, branch.upstream.rule
    if rule.namespace not in order:
        # where its own namespace calls it is for these callers, and the others are not meant; where it defines the host too, see se-dup-cross-ns
        beside = any(s.namespace == rule.namespace for s in istiod.by_host.get(branch.upstream.host, ()))
        if nearer is not None or beside or any(v.namespace == rule.namespace for view in case.views for v in view.callers.viewpoints):
            return None
        where = " nor ".join(dict.fromkeys(order[1:]))
        why = f"{rule.ref} says tls, and is in neither the callers' namespace nor {where}, so istiod does not look there"
        fix = f"Move {rule.ref} to namespace {order[1]}."
        return _Lost(rule.ref, "metadata.namespace", tls, rule.ref, "dr-in-wrong-namespace", why, fix)
    selecting = selected(istiod, proxy, branch.upstream.service, nearer) if branch.upstream.service is not None else None
    behind, first = order.index(rule.namespace), order.index(nearer.namespace) if nearer is not None else len(order)
    if not exported_to(istiod, rule, proxy.namespace):
        if first <= behind or selecting is not None:
            return None
        why = f"{rule.ref} says tls, and is not exported to these callers"
        fix = f"Export {rule.ref} to the namespaces that call {branch.upstream.host}."
        return _Lost(rule.ref, "spec.exportTo", tls, rule.ref, "dr-not-exported", why, fix)
    if selecting is not None:
        picks = "stands in their namespace, where it hides every other"
        fix = f"Add a DestinationRule without workloadSelector to namespace {selecting.namespace} that says tls (mode {tls.mode})."
        if nearer is not None:
            picks, fix = "selects these callers", f"Repeat tls (mode {tls.mode}) in {selecting.ref}."
        why = f"{selecting.ref} with a workloadSelector {picks}, and takes the place of {rule.ref}, which says tls"
        return _Lost(selecting.ref, "spec.workloadSelector", tls, rule.ref, "dr-workloadselector-shadow", why, fix)
    wider = nearer is not None and host != nearer.host and names.subset_of(nearer.host, host)
    if nearer is None or behind < first or (behind == first and not wider):
        return None
    # in another namespace than these it is its callers', whatever its host
    owned = nearer.namespace in order[1:]
    cause = "dr-specific-hides-wildcard" if wider and (owned or behind == first) else "dr-tls-lost-by-override"
    return _Lost(nearer.ref, "spec.trafficPolicy", tls, rule.ref, cause)


def _secure(istiod: Istiod, host: str) -> list[tuple[str, DestinationRule]]:
    """The DestinationRules that are for a host and say TLS, each with its own host."""

    def index() -> dict[str, list[tuple[str, DestinationRule]]]:
        out: dict[str, list[tuple[str, DestinationRule]]] = {}
        for r in destination_rules(istiod):
            if _of_tls(r):
                own = names.fqdn(r.spec.host, r.namespace)
                out.setdefault("*" if names.is_wildcard(own) else own, []).append((own, r))
        return out

    found = istiod.once("rules with tls", index)
    return [*found.get(host, ()), *(x for x in found.get("*", ()) if names.subset_of(host, x[0]))]


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
    if found.why or found.of != found.ref or wide != found.tls:
        return None
    return case.patch(branch.view.ups.istiod.cluster, rule, ((*place(found.path), "tls"), Copied(("spec", "trafficPolicy", "tls"))))
