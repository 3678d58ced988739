"""Subsets and DestinationRules (MESH1xx), and what their findings have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.case import Branch, Case, endpoints_command, short
from checks.mesh import Change
from checks.resources import VirtualService
from checks.upstream import Upstream, shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from checks.finding import Finding


def labels(u: Upstream) -> str:
    """A subset's labels as people write them: `version=v1`."""
    subset = u.rule.subset(u.subset) if u.rule else None
    found = (subset.labels if subset is not None else None) or {}
    return ",".join(f"{k}={v}" for k, v in sorted(found.items())) or "(no labels)"


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
    fix = f"Deploy pods of {host} with {labels(u)}"
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
        message=f"Subset {u.subset} of {host} {weight} and has no endpoint: no pod of the service carries {labels(u)}.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=proof(case, first),
        fix=f"{fix}.",
        patch=reweigh(case, branches),
        commands=(endpoints_command(u), *_pods_command(u)),
    )


def _pods_command(u: Upstream) -> Iterator[str]:
    if u.service is not None and u.service.selector:
        wanted = ",".join(f"{k}={v}" for k, v in u.service.selector.items())
        yield f"kubectl -n {u.service.namespace} get pods -l '{wanted},{labels(u)}'"


def reweigh(case: Case, branches: Sequence[Branch]) -> str | None:
    """A kubectl command that takes the weight off dead destinations, when it is proved to bring every failing share to 0."""
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
    route = tuple(replace(w, weight=p) for w, p in zip(rule.route or (), weights, strict=True) if p is not None)
    http = tuple(replace(h, route=route) if i == int(head) else h for i, h in enumerate(vs.spec.http or ()))
    changed = replace(vs, spec=replace(vs.spec, http=http))
    if not case.heals([Change(cluster.name, VirtualService, namespace, name, changed)], branches):
        return None
    # weight by weight, so that what else a destination says (headers) stays; removals from the end, so that positions hold
    at = f"/spec/http/{head}/route"
    steps = [f'{{"op":"add","path":"{at}/{i}/weight","value":{p}}}' for i, p in enumerate(weights) if p is not None]
    steps += [f'{{"op":"remove","path":"{at}/{i}"}}' for i, p in reversed(list(enumerate(weights))) if p is None]
    return f"kubectl -n {namespace} patch virtualservice {name} --type=json -p '[{','.join(steps)}]'"


def _branch_at(first: Branch, index: int) -> Upstream | None:
    for u, _, path in first.step.targets:
        if path.endswith(f".route[{index}]"):
            return u
    return None


def _hundredths(weights: list[int], total: int) -> list[int]:
    parts = [int(s * total) for s in shares(weights)]
    parts[0] += total - sum(parts)
    return parts
