"""svc-selector-no-pods (MESH301)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.names import nearest
from checks.resources import Pod, Service
from checks.services import known
from checks.subsets import percent
from checks.subsets.subset_label_not_on_pods import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.patches import Edit
    from checks.registry import HostService


@explains("svc-selector-no-pods", before=("subset-empty-weighted", "subset-empty-all"))
def _explains(case: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or not branch.upstream.defined or not service.kubernetes or not service.selector:
        return False
    return not known(case, branch, service) and not case.owners(service) and not case.pods(service)


@check("svc-selector-no-pods", when=explained)
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
        wanted = ",".join(f"{k}={v}" for k, v in (service.selector or {}).items())
        yield case.finding(
            "svc-selector-no-pods",
            cluster=service.sources[0][0] if service.sources[0][0] in {c.name for c in case.mesh.clusters} else case.cluster_of(first),
            resource=service.sources[0][1],
            path="spec.selector",
            message=f"{percent(share)} of the requests fail: the selector of {service.sources[0][1]} ({wanted}) matches no pod.",
            share=share,
            viewpoints=case.viewpoints(same),
            evidence=(*_near(case, service.namespace, dict(service.selector or {})), *case.slices_evidence(service)),
            fix=f"Make the selector of {short(service.hostname)} and the labels of its pods agree, or deploy the pods.",
            patch=_patch(case, service),
            commands=(f"kubectl -n {service.namespace} get pods -l '{wanted}'", endpoints_command(first.upstream)),
        )


def _near(case: Case, namespace: str, selector: dict[str, str]) -> Iterator[str]:
    """Labels of the namespace's pods that look like the selector."""
    for key, value in selector.items():
        have = {p.labels[key] for c in case.mesh.clusters for p in c.within(Pod, namespace).values() if key in p.labels}
        near = nearest(value, sorted(have), 3)
        if near:
            yield f"pods of namespace {namespace} carry {key}={f', {key}='.join(near)}"
        elif not have:
            yield f"no pod of namespace {namespace} carries label {key}"


def _patch(case: Case, service: HostService) -> str | None:
    """The values that are no pod's spelt as the pods spell them, where one spelling is meant and one cluster has the Service."""
    own = [(c, s) for c in case.mesh.clusters if (s := c.get(Service, service.namespace, service.name)) is not None]
    if len(own) != 1:
        return None
    cluster, found = own[0]
    edits: list[Edit] = []
    for key, value in (found.spec.selector or {}).items():
        have = {p.labels[key] for p in cluster.within(Pod, found.namespace).values() if key in p.labels}
        near = [v for v in have if alike(value, v)]
        if value not in have:
            if len(near) != 1:
                return None
            edits.append((("spec", "selector", key), near[0]))
    return case.patch(cluster.name, found, *edits)
