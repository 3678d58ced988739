"""envoyfilter-active-hc (MESH805)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command
from checks.control import filters
from checks.evidence import SICK
from checks.finding import Finding, check
from checks.seen import held, share, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.resources import EnvoyFilter
    from checks.seen import Held


@check("envoyfilter-active-hc")
def envoyfilter_active_hc(case: Case) -> Iterator[Finding]:
    """Every host of a destination fails a health check that an EnvoyFilter gave to the caller's Envoy.

    Istio configures no active health checks: readiness comes from Kubernetes. An EnvoyFilter that adds health_checks to a cluster has each
    caller ask every host by itself; a wrong path, a port that wants mTLS or a slow answer takes all hosts away, and callers get 503 "no healthy
    upstream" (flag UH), although every pod is ready.

    How to see it: `istioctl proxy-config endpoints <pod> -o json` says failed_active_health_check for every host.

    How to fix it: correct the check in the EnvoyFilter, or remove it and leave health to readiness probes.
    """
    groups: dict[str, tuple[EnvoyFilter, list[Held]]] = {}
    for h in held(case):
        applied = [f for f in filters(h.branch.view) if any(p.apply_to == "CLUSTER" for p in f.spec.config_patches or ())]
        if applied and any(SICK in host.reason for host in h.hosts) and not any(host.usable for host in h.hosts):
            groups.setdefault(applied[-1].ref, (applied[-1], []))[1].append(h)
    for found, group in groups.values():
        first = group[0]
        part = share((h.branch, 1.0) for h in group)
        yield case.finding(
            "envoyfilter-active-hc",
            cluster=case.cluster_of(first.branch),
            resource=found.ref,
            path="spec.configPatches",
            message=f"{percent(part)} of the requests of a rule get 503: every host of {where(first.branch)} fails the health check that {found.ref} adds.",
            share=part,
            viewpoints=case.viewpoints(h.branch for h in group),
            evidence=[
                f"Envoy {h.envoy.proxy}: {', '.join(f'{host.address} {host.reason}' for host in h.hosts[:3])} ({h.source})"
                for h in group[:3]
            ],
            fix=f"Correct the health check in {found.ref}, or remove it and leave health to readiness probes.",
            commands=(
                endpoints_command(first.branch.upstream),
                f"kubectl -n {found.namespace} get envoyfilter {found.name} -o yaml",
            ),
        )
