"""subset-label-not-on-pods (MESH115)."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.resources import Deployment, DestinationRule, Pod, VirtualService
from checks.subsets import definition, labels, nobody, percent, proof, shown, wanted_labels, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from checks.mesh import Cluster
    from checks.resources import Workload


class _Slip(NamedTuple):
    """A subset's label that pods carry in another spelling: as the rule wants it, and as it is."""

    wanted: str
    found: str


@explains("subset-label-not-on-pods", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    u = branch.upstream
    if u.service is None or not u.service.kubernetes or not nobody(case, branch) or case.owners(u.service, u):
        return False
    return bool(_unlabelled(case, branch) or _respelt(case, branch))


@check("subset-label-not-on-pods", when=explained)
def subset_label_not_on_pods(case: Case) -> Iterator[Finding]:
    """A subset's label is not on the pods that were meant to carry it.

    The label stands on the Deployment and not in its pod template, or the DestinationRule spells it in another way than the pods do (a
    typo, another case, `v1` for `1`). Pods get labels from the template alone and labels are compared letter by letter, so the subset has no
    endpoint and its share gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get pods --show-labels` beside the DestinationRule's `subsets[].labels`.

    How to fix it: put the label into the pod template, or write it in the DestinationRule as the pods carry it.
    """
    for branches in case.caused("subset-label-not-on-pods"):
        workloads = _unlabelled(case, branches[0])
        if workloads:
            yield _template(case, branches, workloads)
        else:
            yield _spelling(case, branches)
    shown(case, VirtualService, DestinationRule)
    shown(case, Deployment, Pod, everywhere=True)


def _template(case: Case, branches: Sequence[Branch], workloads: Sequence[tuple[Cluster, Workload]]) -> Finding:
    first = branches[0]
    u, share = first.upstream, case.share(branches)
    cluster, workload = workloads[0]
    kind = workload.ref.partition(" ")[0].lower()
    return case.finding(
        "subset-label-not-on-pods",
        cluster=cluster.name,
        resource=workload.ref,
        path="spec.template.metadata.labels",
        message=(
            f"{percent(share)} of the requests of a rule go to subset {u.subset} of {short(u.host)}, which has no endpoint: "
            f"{workload.ref} carries {labels(u)} itself, and its pods do not."
        ),
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(
            f"{workload.ref}: metadata.labels have {labels(u)}, spec.template.metadata.labels are {words(workload.spec.template.metadata.labels)}",
            *proof(case, first),
        ),
        fix=f"Add {labels(u)} to spec.template.metadata.labels of {workload.ref}.",
        patch=_label(case, branches, workloads),
        commands=(f"kubectl -n {workload.namespace} get {kind} {workload.name} -o yaml", endpoints_command(u)),
    )


def _label(case: Case, branches: Sequence[Branch], workloads: Sequence[tuple[Cluster, Workload]]) -> str | None:
    """The patch that labels a pod template."""
    cluster, workload = workloads[0]
    wanted = wanted_labels(branches[0].upstream)
    edits = ((("spec", "template", "metadata", "labels", k), v) for k, v in wanted.items())
    return case.patch(cluster.name, workload, *edits) if len(workloads) == 1 else None


def _spelling(case: Case, branches: Sequence[Branch]) -> Finding:
    first = branches[0]
    u, share = first.upstream, case.share(branches)
    slips, right = _respelt(case, first) or ([], {})
    rule, index = definition(u)
    said = " and ".join(f"{s.found} where the rule wants {s.wanted}" for s in slips)
    return case.finding(
        "subset-label-not-on-pods",
        cluster=case.cluster_of(first),
        resource=rule.ref,
        path=f"spec.subsets[{index}].labels",
        message=(
            f"{percent(share)} of the requests of a rule go to subset {u.subset} of {short(u.host)}, which has no endpoint: the pods carry {said}."
        ),
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=tuple(proof(case, first)),
        fix=f"Write the labels of subset {u.subset} in {rule.ref} as {words(right)}, or label the pods with {labels(u)}.",
        patch=case.patch(case.cluster_of(first), rule, (("spec", "subsets", index, "labels"), right)),
        commands=(f"kubectl -n {u.service.namespace if u.service else ''} get pods --show-labels", endpoints_command(u)),
    )


def _unlabelled(case: Case, branch: Branch) -> list[tuple[Cluster, Workload]]:
    """The workloads behind the service that carry a subset's labels themselves while their pods do not."""
    u = branch.upstream
    wanted = wanted_labels(u)
    if u.service is None or not wanted:
        return []
    return [(c, w) for c, w in case.owners(u.service) if w.wanted and all(w.labels.get(k) == v for k, v in wanted.items())]


def _respelt(case: Case, branch: Branch) -> tuple[list[_Slip], dict[str, str]] | None:
    """How the endpoints spell a subset's labels, and these labels; None when they carry nothing like it."""
    u = branch.upstream
    wanted = wanted_labels(u)
    if u.service is None or u.rule is None:
        return None
    taken = [s.labels or {} for s in u.rule.subsets]
    for e in case.endpoints(branch.view.ups.istiod, u.service):
        slips: list[_Slip] = []
        right: dict[str, str] = {}
        for key, value in wanted.items():
            found = _found(key, value, e.labels)
            if found is None:
                break
            right[found[0]] = found[1]
            if found != (key, value):
                slips.append(_Slip(f"{key}={value}", f"{found[0]}={found[1]}"))
        else:
            if slips and right not in taken:
                return slips, right
    return None


def _found(key: str, value: str, carried: Mapping[str, str]) -> tuple[str, str] | None:
    """A wanted label as an endpoint spells it."""
    if key in carried:
        return (key, carried[key]) if alike(value, carried[key]) else None
    return next(((k, v) for k, v in carried.items() if v == value and (key in k or k in key or alike(key, k))), None)


def alike(a: str, b: str) -> bool:
    """Whether two words are most likely one: but for case and punctuation, a leading v before a number, or a slip in a longer word.

    Words with different numbers in them are different versions, never a slip.
    """
    one, two = (re.sub(r"[^a-z0-9]", "", w.lower()) for w in (a, b))
    if one == two or (one.removeprefix("v") == two.removeprefix("v") and one.removeprefix("v").isdigit()):
        return True
    same_numbers = re.findall(r"\d+", one) == re.findall(r"\d+", two)
    return same_numbers and min(len(one), len(two)) >= 5 and SequenceMatcher(None, one, two).ratio() >= 0.8
