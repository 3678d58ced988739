"""we-unhealthy (MESH412)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command
from checks.entries import asked_of, behind, carried, holder, known_subset, served_as_asked, together, workload_entries
from checks.finding import Finding, check, explained, explains
from checks.registry import is_healthy
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.resources import WorkloadEntry


def _sick(case: Case, branch: Branch) -> list[WorkloadEntry]:
    """The unhealthy WorkloadEntries that would serve a destination."""
    u = branch.upstream
    if u.service is None:
        return []
    if u.service.kubernetes:
        found = workload_entries(case, branch.view.ups.istiod, u.service.namespace, u.service.selector or {})
        if found and any(not p.ready for _, p in case.pods(u.service)):
            return []
    else:
        selectors = [e.spec.workload_selector.wanted for e in behind(case, branch) if e.spec.workload_selector]
        found = [w for s in selectors for w in workload_entries(case, branch.view.ups.istiod, u.service.namespace, s)]
    labels = asked_of(branch)
    return [w for w in found if not is_healthy(w) and carried(w, labels)]


@explains(
    "we-unhealthy",
    before=(
        "se-workloadselector-empty",
        "se-hostname-we-static",
        "svc-selector-no-pods",
        "subset-on-serviceentry",
        "subset-empty-weighted",
        "subset-empty-all",
    ),
)
def _explains(case: Case, branch: Branch) -> bool:
    return not served_as_asked(case, branch) and known_subset(branch) and bool(_sick(case, branch))


@check("we-unhealthy", when=explained)
def we_unhealthy(case: Case) -> Iterator[Finding]:
    """Every WorkloadEntry behind a host is unhealthy.

    A WorkloadEntry with the annotation `proxy.istio.io/health-checks-enabled` counts only while its condition Healthy is True: before the
    first report of the VM's agent, and after a failed probe, istiod takes it for no endpoint at all. Requests get 503 "no healthy upstream"
    (flag UH).

    How to see it: `kubectl -n NAMESPACE get workloadentry NAME -o yaml` has condition Healthy False, or none.

    How to fix it: mend the workload or its agent on the VM; its next good probe makes the endpoint come back.
    """
    for branches in together(case, "we-unhealthy"):
        first = branches[0]
        sick = _sick(case, first)
        share = case.share(branches)
        rest = f"subset {first.upstream.subset} of it" if first.upstream.subset else "it"
        yield case.finding(
            "we-unhealthy",
            cluster=holder(case, first.view.ups.istiod).name,
            resource=sick[0].ref,
            path="status.conditions",
            message=(
                f"{percent(share)} of the requests to {first.upstream.host} fail: "
                f"{' and '.join(w.ref for w in sick)} {'are' if len(sick) != 1 else 'is'} unhealthy, and nothing else serves {rest}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(f"{w.ref} ({w.spec.address}): {_said(w)}" for w in sick),
            fix=f"Mend the workload behind {sick[0].spec.address}, or its agent: an endpoint counts once its condition Healthy is True.",
            commands=(
                f"kubectl -n {sick[0].namespace} get workloadentry {' '.join(w.name for w in sick)} -o yaml",
                endpoints_command(first.upstream),
            ),
        )


def _said(entry: WorkloadEntry) -> str:
    """What its condition says."""
    found = next((c for c in entry.status.conditions or () if c.type == "Healthy"), None)
    if found is None:
        return "health checks are enabled, and no probe has ever been reported"
    return f"condition Healthy is {found.status}{f': {found.message}' if found.message else ''}"
