"""Subsets and DestinationRules (MESH1xx), and what their findings have in common."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.case import Branch, Case, endpoints_command, short
from checks.gatewayapi import OfPolicies
from checks.patches import AWAY, Edit, at
from checks.resources import DestinationRule, Resource, VirtualService
from checks.upstream import Upstream, shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.finding import Finding
    from checks.istiod import Istiod, MergedRule, Proxy
    from checks.registry import HostService, IstioEndpoint


def wanted_labels(u: Upstream) -> Mapping[str, str]:
    """What an endpoint of a subset must carry."""
    subset = u.rule.subset(u.subset) if u.rule else None
    return (subset.labels if subset is not None else None) or {}


def labels(u: Upstream) -> str:
    """A subset's labels as people write them: `version=v1`."""
    return words(wanted_labels(u))


def words(found: Mapping[str, str] | None) -> str:
    """Labels as people write them."""
    return ",".join(f"{k}={v}" for k, v in sorted((found or {}).items())) or "(no labels)"


def named_subsets(branches: Iterable[Branch]) -> str:
    """The subsets that some destinations lead to, with their labels: `subset v1 (version=v1) and subset v2 (version=v2)`."""
    return " and ".join(dict.fromkeys(f"subset {b.upstream.subset} ({labels(b.upstream)})" for b in branches))


def definition(u: Upstream) -> tuple[DestinationRule, int]:
    """The DestinationRule that defines a subset, and which of its subsets it is. Raises LookupError when none does."""
    if u.rule is None or u.subset not in u.rule.subset_origins:
        raise LookupError(u.subset)
    rule = u.rule.subset_origins[u.subset]
    return rule, [s.name for s in rule.spec.subsets or ()].index(u.subset)


def of_port(case: Case, branch: Branch) -> list[IstioEndpoint]:
    """The endpoints of a destination's port, of all subsets."""
    u = branch.upstream
    port = u.service.port(u.port) if u.service else None
    if u.service is None or port is None:
        return []
    found = case.endpoints(branch.view.ups.istiod, u.service)
    return [e for e in found if (e.legacy_port == port.number if e.legacy_port is not None else e.port_name == port.name)]


def carriers(case: Case, branch: Branch, wanted: Mapping[str, str]) -> list[str]:
    """The addresses of the endpoints of a destination's port that carry some labels."""
    return [e.at for e in of_port(case, branch) if all(e.carries(k, v) for k, v in wanted.items())]


def nobody(case: Case, branch: Branch) -> bool:
    """Whether a destination names a subset that is defined and that no endpoint carries."""
    u = branch.upstream
    return u.defined and bool(u.subset) and not case.candidates(u)


def percent(share: float) -> str:
    """A share in words: never 0 % or 100 % for something in between."""
    if 0 < share < 0.01:
        return "less than 1 %"
    return "more than 99 %" if 0.99 < share < 1 else f"{round(share * 100)} %"


def proof(case: Case, first: Branch) -> Iterator[str]:
    """What the objects say about a subset: its definition, and what stands behind the Service."""
    u = first.upstream
    if u.rule is not None:
        origin = u.rule.subset_origins.get(u.subset)
        yield f"{(origin or u.rule.origins[0]).ref} defines {u.subset} as {labels(u)}"
    if u.service is not None and u.service.kubernetes:
        yield from case.slices_evidence(u.service)
        found = case.endpoints(first.view.ups.istiod, u.service)
        carried = sorted({e.labels.get("version", "") for e in found} - {""})
        if carried:
            yield f"its endpoints carry version={', version='.join(carried)}"


def siblings(first: Branch) -> list[tuple[Upstream, int]]:
    """The other destinations of the same rule that have somebody to send to, with their weights."""
    return [(u, w) for i, (u, w, _) in enumerate(first.step.targets) if i != first.index and u.usable and u is not first.upstream]


def empty(case: Case, cause: str, branches: Sequence[Branch]) -> Finding:
    """The finding of a subset that nobody carries."""
    first = branches[0]
    u = first.upstream
    host = short(u.host)
    share = case.share(branches)
    others = siblings(first)
    known = of_port(case, first)
    machines = u.service is not None and (any(" " not in e.workload for e in known) if known else not u.service.kubernetes)
    whose = f"endpoint of {u.service.sources[0][1]}" if machines and u.service is not None else "pod of the service"
    fix = f"Give {host} endpoints with {labels(u)}" if machines else f"Deploy pods of {host} with {labels(u)}"
    if others:
        target, _ = max(others, key=lambda o: sum(e.health == "healthy" for e in o[0].endpoints))
        ready = sum(e.health == "healthy" for e in target.endpoints)
        name = f"subset {target.subset}" if target.subset else short(target.host)
        fix += f", or give the weight to {name} ({ready} usable endpoint{'s'[: ready != 1]})"
    elif cause == "subset-empty-all":
        fix += ", or lead the rule to a subset that has endpoints"
    weight = f"gets {percent(share)} of the requests" if cause == "subset-empty-weighted" else "gets every request of its rule"
    return case.finding(
        cause,
        cluster=case.cluster_of(first),
        resource=first.resource,
        path=first.path,
        message=f"Subset {u.subset} of {host} {weight} and has no endpoint: no {whose} carries {labels(u)}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=proof(case, first),
        fix=f"{fix}.",
        patch=reweigh(case, branches) or _instead(case, branches),
        commands=(endpoints_command(u), *_carriers_command(u, "pods,workloadentries" if machines else "pods")),
    )


def _instead(case: Case, branches: Sequence[Branch]) -> str | None:
    """The patch that leads to the only other subset of the host that has endpoints."""
    first = branches[0]
    u = first.upstream
    alive = [s.name for s in (u.rule.subsets if u.rule else ()) if s.name != u.subset and carriers(case, first, s.labels or {})]
    namespace, _, name = first.resource.partition(" ")[2].partition("/")
    vs = case.mesh.cluster(first.view.ups.istiod.cluster).get(VirtualService, namespace, name)
    if len(alive) != 1 or vs is None or not first.resource.startswith("VirtualService "):
        return None
    paths = dict.fromkeys(b.path for b in branches)
    return case.patch(first.view.ups.istiod.cluster, vs, *(((*at(p), "destination", "subset"), alive[0]) for p in paths))


def _carriers_command(u: Upstream, kinds: str) -> Iterator[str]:
    if u.service is not None and u.service.selector:
        wanted = ",".join(f"{k}={v}" for k, v in u.service.selector.items())
        yield f"kubectl -n {u.service.namespace} get {kinds} -l '{wanted},{labels(u)}'"


def reweigh(case: Case, branches: Sequence[Branch]) -> str | None:
    """The patch that takes the weight off dead destinations."""
    first = branches[0]
    kind, _, ref = first.resource.partition(" ")
    namespace, _, name = ref.partition("/")
    cluster = case.mesh.cluster(first.view.ups.istiod.cluster)
    vs = cluster.get(VirtualService, namespace, name) if kind == "VirtualService" else None
    head = first.path.removeprefix("spec.http[").split("]")[0]
    if vs is None or not first.path.startswith("spec.http[") or not head.isdigit() or not siblings(first):
        return None
    rule = (vs.spec.http or ())[int(head)]
    alive = [not (b := _branch_at(first, i)) or b.usable for i in range(len(rule.route or ()))]
    total = sum(w.weight for w in rule.route or ())
    kept = [w for w, ok in zip(rule.route or (), alive, strict=True) if ok and w.weight]
    if not kept:
        return None
    parts = iter(_hundredths([w.weight for w in kept], total or 100))
    weights = [next(parts) if ok and w.weight else None for w, ok in zip(rule.route or (), alive, strict=True)]
    if not _enough(case, first, f"spec.http[{head}].route", [p is not None for p in weights]):
        return None
    # weight by weight, so that what else a destination says (headers) stays; removals from the end, so that positions hold
    at = "spec", "http", int(head), "route"
    edits: list[Edit] = [((*at, i, "weight"), p) for i, p in enumerate(weights) if p is not None]
    edits += [((*at, i), AWAY) for i, p in reversed(list(enumerate(weights))) if p is None]
    return case.patch(cluster.name, vs, *edits, sure=len(vs.spec.hosts or ()) == 1)


def _enough(case: Case, first: Branch, route: str, kept: Sequence[bool]) -> bool:
    """Whether a rule that leads only to the destinations that are kept fails for no caller of the host.

    Fewer destinations of one rule change no other rule and no other cluster, so no mesh has to be built to see it. Another control plane reads
    its own cluster's object of that name.
    """
    mine = [
        s
        for v in case.views
        if v.ups.istiod is first.view.ups.istiod
        for s in v.steps
        if s.action == "route" and (s.leaf or s.source) == first.resource and all(path.startswith(route) for _, _, path in s.targets)
    ]
    return all(u.usable or not kept[_index(path)] for s in mine for u, _, path in s.targets)


def _index(path: str) -> int:
    """The position that a path such as `spec.http[0].route[1]` ends with."""
    return int(path.rpartition("[")[2].rstrip("]"))


def _branch_at(first: Branch, index: int) -> Upstream | None:
    for u, _, path in first.step.targets:
        if path.endswith(f".route[{index}]"):
            return u
    return None


def _hundredths(weights: list[int], total: int) -> list[int]:
    parts = [int(s * total) for s in shares(weights)]
    parts[0] += total - sum(parts)
    return parts


# --- subsets that a DestinationRule defines and these callers do not get --------------------------------------------------


class Lost(NamedTuple):
    """Why callers do not know a subset: the cause, the DestinationRule that defines it, and the one that they get (None: none)."""

    cause: str
    rule: DestinationRule
    winner: MergedRule | None
    selecting: DestinationRule | None = None


def undefined(branch: Branch) -> bool:
    """Whether a destination names a subset that its caller's DestinationRule does not define."""
    u = branch.upstream
    known = u.service is not None and u.service.port(u.port) is not None
    return known and bool(u.subset) and (u.rule is None or u.rule.subset(u.subset) is None)


def lost(case: Case, branch: Branch) -> Lost | None:
    """Why the caller of a destination does not know its subset although a DestinationRule for the host defines it; None when none does."""
    u = branch.upstream
    if not undefined(branch) or u.service is None:
        return None
    istiod, proxy, service, winner = branch.view.ups.istiod, branch.view.ups.proxy, u.service, u.rule
    return case.once(f"lost {id(u)} {id(branch.view)}", partial(_lost, istiod, proxy, service, u.subset, winner))


def _lost(istiod: Istiod, proxy: Proxy, service: HostService, subset: str, winner: MergedRule | None) -> Lost | None:
    defining = [
        r for r in _near(istiod, service.hostname) if not r.spec.workload_selector and any(s.name == subset for s in r.spec.subsets or ())
    ]
    found = [reason for r in defining if (reason := _reason(istiod, proxy, service, winner, r)) is not None]
    order = [winner.namespace if winner else service.namespace, service.namespace, istiod.config.root_namespace]
    return min(found, key=lambda x: order.index(x.rule.namespace) if x.rule.namespace in order else len(order), default=None)


def shown(case: Case, *kinds: type[Resource], everywhere: bool = False) -> None:
    """Raise Unreadable where a control plane's cluster (or any) does not show what a check concludes from; called last, when all else is told."""
    clusters = case.mesh.clusters if everywhere else [case.mesh.cluster(i.cluster) for i in case.mesh.control_planes]
    for c in clusters:
        case.mesh.require(c, *kinds)


def destination_rules(istiod: Istiod) -> list[DestinationRule]:
    """Every DestinationRule, oldest first."""

    def find() -> list[DestinationRule]:
        found = [r for r in istiod.all(DestinationRule) if isinstance(r, DestinationRule)]
        return sorted(found, key=lambda r: r.order)

    return istiod.once("destination rules", find)


def written_for(istiod: Istiod, host: str) -> list[DestinationRule]:
    """The DestinationRules whose host is exactly this one, oldest first."""
    return _written(istiod).get(host, [])


def _written(istiod: Istiod) -> dict[str, list[DestinationRule]]:
    def index() -> dict[str, list[DestinationRule]]:
        out: dict[str, list[DestinationRule]] = {}
        for r in destination_rules(istiod):
            out.setdefault(names.fqdn(r.spec.host, r.namespace), []).append(r)
        return out

    return istiod.once("written for", index)


def _near(istiod: Istiod, host: str) -> list[DestinationRule]:
    """The DestinationRules that are for a host, or were meant to be, oldest first."""
    wild = istiod.once("wildcard destination rules", lambda: [h for h in _written(istiod) if names.is_wildcard(h)])
    found = [r for h in (host, *(w for w in wild if names.subset_of(host, w))) for r in written_for(istiod, h)]
    found += istiod.once("meant destination rules", lambda: _meant(istiod)).get(host, ())
    return sorted({id(r): r for r in found}.values(), key=lambda r: r.order)


def _meant(istiod: Istiod) -> dict[str, list[DestinationRule]]:
    out: dict[str, list[DestinationRule]] = {}
    for rule in destination_rules(istiod):
        for host in meant_host(istiod, rule):
            out.setdefault(host, []).append(rule)
    return out


def literal(istiod: Istiod, host: str) -> list[DestinationRule]:
    """The DestinationRules whose partial host was meant to be this one and is taken literally, oldest first."""
    return literals(istiod).get(host, [])


def literals(istiod: Istiod) -> Mapping[str, list[DestinationRule]]:
    """The DestinationRules that are taken literally, by the host that they were meant for."""
    return istiod.once("literal hosts", lambda: _literal(istiod))


def _literal(istiod: Istiod) -> dict[str, list[DestinationRule]]:
    out: dict[str, list[DestinationRule]] = {}
    for rule in destination_rules(istiod):
        for host in meant_host(istiod, rule) if "." in rule.spec.host else ():
            out.setdefault(host, []).append(rule)
    return out


def _reason(istiod: Istiod, proxy: Proxy, service: HostService, winner: MergedRule | None, rule: DestinationRule) -> Lost | None:
    host = names.fqdn(rule.spec.host, rule.namespace)
    order = [proxy.namespace, service.namespace, istiod.config.root_namespace]
    near = rule.namespace in order
    first = order.index(winner.namespace) if winner is not None else len(order)
    misnamed = not names.subset_of(service.hostname, host)
    if misnamed and service.hostname not in meant_host(istiod, rule):
        return None
    if misnamed:
        return Lost("dr-client-ns-hides-subsets" if first == 0 and rule.namespace != order[0] else "dr-host-shortname", rule, winner)
    if not near:
        return Lost("dr-in-wrong-namespace", rule, winner)
    selecting = selected(istiod, proxy, service, winner)
    shown = exported_to(istiod, rule, proxy.namespace)
    if selecting is not None and shown:
        return Lost("dr-workloadselector-shadow", rule, winner, selecting)
    hidden = first < order.index(rule.namespace)
    if hidden and shown and winner is not None and winner.namespace == service.namespace and _narrower(winner.host, host):
        return Lost("dr-specific-hides-wildcard", rule, winner)
    if hidden:
        return Lost("dr-client-ns-hides-subsets", rule, winner)
    if not shown:
        return Lost("dr-not-exported", rule, winner)
    if winner is not None and winner.namespace == rule.namespace:
        return Lost("dr-split-exportto" if winner.host == host else "dr-specific-hides-wildcard", rule, winner)
    return None


def _narrower(host: str, other: str) -> bool:
    return host != other and names.subset_of(host, other)


def selected(istiod: Istiod, proxy: Proxy, service: HostService, winner: MergedRule | None) -> DestinationRule | None:
    """The DestinationRule with a workloadSelector that takes the place of a plain one: it selects the caller, or stands alone in the caller's namespace."""
    if winner is not None:
        return winner.origins[0] if winner.selector is not None else None
    found = istiod.destination_rules(proxy.namespace, service)
    return found[0].origins[0] if found else None


def exported_to(istiod: Istiod, rule: DestinationRule, namespace: str) -> bool:
    """Whether a DestinationRule is shown to the callers of a namespace."""
    to = names.export_set(rule.spec.export_to or istiod.config.default_destination_rule_export_to or ("*",), rule.namespace)
    return bool(to & {"*", namespace})


def meant_host(istiod: Istiod, rule: DestinationRule) -> list[str]:
    """The Kubernetes hosts that a DestinationRule's host could have meant where no service has it as istiod reads it."""
    said = rule.spec.host
    if names.is_wildcard(said) or names.fqdn(said, rule.namespace) in istiod.by_host:
        return []
    if "." in said:
        return [h for h in (f"{said}.svc.{names.DOMAIN}", f"{said}.{names.DOMAIN}") if h in istiod.by_host]
    return namesakes(istiod, said)


def namesakes(istiod: Istiod, name: str) -> list[str]:
    """The hosts of the Kubernetes Services of a name."""
    return istiod.once("namesakes", lambda: _namesakes(istiod)).get(name, [])


def _namesakes(istiod: Istiod) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for s in istiod.services:
        if s.kubernetes:
            out.setdefault(s.name, []).append(s.hostname)
    return out


def by_rule(case: Case, cause: str) -> Iterator[tuple[Lost, list[Branch]]]:
    """The destinations that a cause of DestinationRules explains, those of one pair of rules together, with the rule that takes the other's place."""
    groups: dict[tuple[str, str], tuple[Lost, list[Branch]]] = {}
    for branches in case.caused(cause):
        for b in branches:
            if (found := lost(case, b)) is not None:
                instead = found.selecting or found.winner
                groups.setdefault((found.rule.ref, instead.ref if instead else ""), (found, []))[1].append(b)
    yield from groups.values()


def callers(branches: Iterable[Branch]) -> str:
    """Who calls, in words: `callers in client and web`."""
    spaces = list(dict.fromkeys(v.namespace for b in branches for v in b.view.callers.viewpoints))
    more = f" and {len(spaces) - 3} more namespaces" if len(spaces) > 4 else ""
    first = spaces[:3] if more else spaces
    return f"callers in {', '.join(first)}{more}" if more or len(first) < 2 else f"callers in {', '.join(first[:-1])} and {first[-1]}"


def unseen(
    case: Case,
    cause: str,
    found: Lost,
    branches: Sequence[Branch],
    *,
    resource: DestinationRule,
    path: str,
    why: str,
    fix: str,
    patch: str | None = None,
) -> Finding:
    """The finding of subsets that `found.rule` defines and these callers do not get; `why` completes the first sentence."""
    first = branches[0]
    share, subsets = case.share(branches), missing(branches)
    definers = {b.upstream.host: one.rule.ref for b in branches if (one := lost(case, b)) is not None}
    said = " and ".join(
        f"subset{'s'[: len(mine) != 1]} {' and '.join(mine)} of {short(host)} {'is' if len(mine) == 1 else 'are'} defined by {ref}"
        for host, ref in definers.items()
        for mine in [missing(b for b in branches if b.upstream.host == host)]
    )
    return case.finding(
        cause,
        cluster=case.cluster_of(first),
        resource=resource.ref,
        path=path,
        message=f"{percent(share)} of the requests of a rule fail for {callers(branches)}: {said}, {why}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=tuple(_definitions(found, first, subsets)),
        fix=fix,
        patch=patch,
        commands=(
            f"istioctl proxy-config cluster <pod> --fqdn {first.upstream.host}",
            f"kubectl -n {found.rule.namespace} get destinationrule {found.rule.name} -o yaml",
        ),
    )


def _definitions(found: Lost, first: Branch, subsets: Sequence[str]) -> Iterator[str]:
    rule = found.rule
    exported = f", exportTo {', '.join(rule.spec.export_to)}" if rule.spec.export_to else ""
    for s in rule.spec.subsets or ():
        if s.name in subsets:
            yield f"{rule.ref} (host {rule.spec.host}{exported}) defines {s.name} as {words(s.labels)}"
    if found.winner is None:
        yield f"these callers get no DestinationRule for {first.upstream.host}"
    for origin in found.winner.origins if found.winner else ():
        known = ", ".join(s.name for s in origin.spec.subsets or ()) or "no subset"
        yield f"these callers get {origin.ref} (host {origin.spec.host}), which defines {known}"
    yield f"{first.path or 'a rule'} of {first.resource} leads to subset {first.upstream.subset}"


def missing(branches: Iterable[Branch]) -> list[str]:
    """The names of the subsets that some destinations lead to."""
    return sorted({b.upstream.subset for b in branches})


def add_subsets(case: Case, branches: Sequence[Branch], rule: DestinationRule, definer: DestinationRule) -> str | None:
    """The patch that repeats in one DestinationRule the subsets of another that some destinations lead to."""
    wanted, have = missing(branches), rule.spec.subsets or ()
    added = [{"name": s.name, "labels": s.labels or {}} for s in definer.spec.subsets or () if s.name in wanted]
    edits = ((("spec", "subsets", len(have) + i), s) for i, s in enumerate(added))
    return case.patch(case.cluster_of(branches[0]), rule, *edits)


def beside(rule: DestinationRule) -> str:
    """Where people can write what a rule lacks: in it, or where istiod made it of a policy in one that it merges with that."""
    if not isinstance(rule, OfPolicies):
        return rule.ref
    return f"a DestinationRule for {short(rule.spec.host)} in namespace {rule.namespace}, which istiod merges with {rule.ref}"


def export(case: Case, branches: Sequence[Branch], rule: DestinationRule, to: tuple[str, ...] | None) -> str | None:
    """The patch that sets a DestinationRule's exportTo, or takes it away."""
    return case.patch(case.cluster_of(branches[0]), rule, (("spec", "exportTo"), AWAY if to is None else list(to)))
