"""slice-no-service-label (MESH311)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command
from checks.finding import Finding, check, explained, explains
from checks.services import by_service, known, kubernetes, orphans, slices
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from checks.mesh import Cluster
    from checks.registry import HostService
    from checks.resources import EndpointSlice, Pod

_LABEL = "kubernetes.io/service-name"


@explains(
    "slice-no-service-label",
    before=(
        "svc-selectorless-no-slice",
        "svc-selector-no-pods",
        "slice-portname-mismatch",
        "slice-targetref-pod-missing",
        "subset-empty-weighted",
        "subset-empty-all",
    ),
)
def _explains(case: Case, branch: Branch) -> bool:
    service = kubernetes(branch)
    if service is None or known(case, branch, service):
        return False
    return bool(orphans(case, service)) or _unlisted(case, service)


def _unlisted(case: Case, service: HostService) -> bool:
    """Whether a Service selects ready pods of a cluster and no EndpointSlice is made for it there, as where their controller stands still."""
    return bool(_forgotten(case, service))


def _forgotten(case: Case, service: HostService) -> list[tuple[Cluster, Pod]]:
    """The ready pods that a Service selects and that no EndpointSlice of its own lists in their cluster."""
    listed = {(c.name, a) for c, s in slices(case, service) for e in s.endpoints or () for a in e.addresses or ()}
    return [(c, p) for c, p in case.pods(service) if p.ready and p.status.pod_ip and (c.name, p.status.pod_ip) not in listed]


@check("slice-no-service-label", when=explained)
def slice_no_service_label(case: Case) -> Iterator[Finding]:
    """An EndpointSlice that is meant for a Service lacks the label that says so, or names no Service in it.

    A slice belongs to the Service that its label `kubernetes.io/service-name` names; its own name and its owner mean nothing. Without the label
    neither Kubernetes nor istiod gives its endpoints to the Service, and every request gets 503 "no healthy upstream" (flag UH).

    How to see it: `kubectl get endpointslices --show-labels` shows the slice without it.

    How to fix it: label the slice with the Service's name.
    """
    for service, branches in by_service(case, "slice-no-service-label"):
        found = orphans(case, service)
        share = case.share(branches)
        if not found:
            yield _none(case, service, branches)
            continue
        cluster, first = found[0]
        yield case.finding(
            "slice-no-service-label",
            cluster=cluster.name,
            resource=first.ref,
            path="metadata.labels",
            message=f"{percent(share)} of the requests fail: {first.ref} has the endpoints of {service.sources[0][1]} and {_instead(first)}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                *(
                    f"{s.ref} in {c.name}: {len(s.endpoints or ())} endpoint{'s'[: len(s.endpoints or ()) != 1]}, {f'{_LABEL}={s.service}' if s.service else f'no label {_LABEL}'}"
                    for c, s in found
                ),
                *case.slices_evidence(service),
            ),
            fix=f"Label {first.ref} with {_LABEL}={service.name}.",
            patch=_patch(case, found, service),
            commands=(f"kubectl -n {service.namespace} get endpointslices --show-labels", endpoints_command(branches[0].upstream)),
        )


def _instead(s: EndpointSlice) -> str:
    return f"its label {_LABEL} names {s.service}, which is no Service" if s.service else f"lacks label {_LABEL}"


def _none(case: Case, service: HostService, branches: Sequence[Branch]) -> Finding:
    ready = [p for _, p in _forgotten(case, service)]
    at = _forgotten(case, service)[0][0].name
    share = case.share(branches)
    return case.finding(
        "slice-no-service-label",
        cluster=at,
        resource=service.sources[0][1],
        path="",
        message=f"{percent(share)} of the requests fail: no EndpointSlice of {at} with label {_LABEL}={service.name} lists the ready pods that {service.sources[0][1]} selects.",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(
            f"ready pods that {service.sources[0][1]} selects: {', '.join(p.name for p in ready[:5])}",
            *case.slices_evidence(service),
        ),
        fix=f"Find out why Kubernetes makes no EndpointSlice for {service.sources[0][1]} (kube-controller-manager), or label the one that is meant for it.",
        commands=(f"kubectl -n {service.namespace} get endpointslices --show-labels", endpoints_command(branches[0].upstream)),
    )


def _patch(case: Case, found: list[tuple[Cluster, EndpointSlice]], service: HostService) -> str | None:
    cluster, s = found[0]
    return case.patch(cluster.name, s, (("metadata", "labels", _LABEL), service.name)) if len(found) == 1 else None
