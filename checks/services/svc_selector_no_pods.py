"""svc-selector-no-pods (MESH301)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.clusters import ends, no_way_in
from checks.finding import Finding, check, explained, explains
from checks.names import nearest
from checks.resources import Pod, Service
from checks.services import known
from checks.subsets import percent
from checks.subsets.subset_label_not_on_pods import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.mesh import Cluster
    from checks.patches import Edit
    from checks.registry import HostService


@explains("svc-selector-no-pods", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined or not service.kubernetes or not service.selector:
        return False
    return not known(case, branch, service) and not case.owners(service) and not case.pods(service)


@check("svc-selector-no-pods", when=(explained, no_way_in))
def svc_selector_no_pods(case: Case) -> Iterator[Finding]:
    """A Service's selector matches no pod, and no workload whose pods it could match.

    A typo in the selector or in the pods' labels, a label that stands on the Deployment and not on its template, or a workload that was
    deleted or lives in another namespace. The Service has no endpoint and every request to it gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get endpointslices -l kubernetes.io/service-name=NAME` shows none or empty ones.

    How to fix it: make the selector and the pods' labels agree.
    """
    done: dict[str, list[object]] = {}
    for branches in case.caused("svc-selector-no-pods"):
        first = branches[0]
        service = first.upstream.service
        if service is None or service.hostname in done:
            continue
        done[service.hostname] = []
        same = [b for group in case.caused("svc-selector-no-pods") for b in group if b.upstream.host == service.hostname]
        share = case.share(same)
        cluster, selector = _written(case, service) or (case.mesh.cluster(first.view.ups.istiod.cluster), dict(service.selector or {}))
        wanted = ",".join(f"{k}={v}" for k, v in selector.items())
        yield case.finding(
            "svc-selector-no-pods",
            cluster=cluster.name,
            resource=service.sources[0][1],
            path="spec.selector",
            message=f"{percent(share)} of the requests fail: the selector of {service.sources[0][1]} ({wanted}) matches no pod.",
            share=share,
            viewpoints=case.viewpoints(same),
            evidence=(*_near(cluster, service.namespace, selector), *case.slices_evidence(service)),
            fix=f"Make the selector of {short(service.hostname)} and the labels of its pods agree, or deploy the pods.",
            patch=_patch(case, cluster, cluster.get(Service, service.namespace, service.name)),
            commands=(f"kubectl -n {service.namespace} get pods -l '{wanted}'", endpoints_command(first.upstream)),
        )
    yield from _networks(case)


def _networks(case: Case) -> Iterator[Finding]:
    """The gateways of other networks whose Service selects nobody: its load balancer has an address, and nobody behind it."""
    for end in ends(case, "svc-selector-no-pods"):
        at = end.at
        yield end.finding(
            case,
            resource=at.service.ref,
            path="spec.selector",
            why=f"the selector of {at.service.ref} in {at.cluster.name} ({at.selector}) matches no pod",
            evidence=_near(at.cluster, at.service.namespace, at.service.spec.selector or {}),
            fix=f"Make the selector of {at.service.ref} and the labels of its pods agree, or deploy the pods.",
            patch=_patch(case, at.cluster, at.service),
            commands=(f"get pods -l '{at.selector}'",),
        )


def _written(case: Case, service: HostService) -> tuple[Cluster, dict[str, str]] | None:
    """The selector that is to be mended, and its cluster: of several that select nobody the one beside whose pods it is misspelt."""
    own = [
        (c, dict(s.spec.selector)) for c in case.mesh.clusters if (s := c.get(Service, service.namespace, service.name)) and s.spec.selector
    ]
    return next(((c, selector) for c, selector in own if any(_carried(c, service.namespace, selector))), own[0] if own else None)


def _carried(cluster: Cluster, namespace: str, selector: dict[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each label of a selector the values on pods of its namespace that look like the one it asks for."""
    for key, value in selector.items():
        near = nearest(value, sorted({p.labels[key] for p in cluster.within(Pod, namespace).values() if key in p.labels}), 3)
        if near:
            yield key, near


def _near(cluster: Cluster, namespace: str, selector: dict[str, str]) -> Iterator[str]:
    """Labels of the namespace's pods that look like the selector."""
    near = dict(_carried(cluster, namespace, selector))
    for key in selector:
        if key in near:
            yield f"pods of namespace {namespace} carry {key}={f', {key}='.join(near[key])}"
        elif not any(key in p.labels for p in cluster.within(Pod, namespace).values()):
            yield f"no pod of namespace {namespace} carries label {key}"


def _patch(case: Case, cluster: Cluster, found: Service | None) -> str | None:
    """The values that are no pod's spelt as the pods spell them, where one spelling is meant."""
    if found is None:
        return None
    edits: list[Edit] = []
    for key, value in (found.spec.selector or {}).items():
        have = {p.labels[key] for p in cluster.within(Pod, found.namespace).values() if key in p.labels}
        near = [v for v in have if alike(value, v)]
        if value not in have:
            if len(near) != 1:
                return None
            edits.append((("spec", "selector", key), near[0]))
    return case.patch(cluster.name, found, *edits)
