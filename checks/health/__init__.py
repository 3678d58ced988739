"""Health, outliers, localities and limits (MESH8xx): what findings about ejected hosts and about limits have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import endpoints_command, said_at
from checks.evidence import DRAINING, EJECTED, UNREADY, Flow
from checks.measured import finding, measure
from checks.seen import by, failed, held, log_command, lost, share, sources, where
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from checks.case import Branch, Case
    from checks.evidence import Access
    from checks.finding import Finding
    from checks.seen import Held


def ejecting(case: Case) -> list[list[Held]]:
    """Destinations of which an Envoy has ejected every host that is ready, and so sends to none, those of one cluster's callers together.

    Below its panic threshold Envoy sends to ejected hosts all the same; where the threshold was not read, the DestinationRule says it.
    """
    groups: dict[str, list[Held]] = {}
    for h in held(case):
        ready = [host for host in h.hosts if UNREADY not in host.reason and DRAINING not in host.reason]
        if ready and all(EJECTED in host.reason for host in ready) and not _panics(h):
            groups.setdefault(h.branch.upstream.name, []).append(h)
    return list(groups.values())


def _panics(h: Held) -> bool:
    if h.cluster is not None and h.cluster.panic_threshold is not None:
        return h.cluster.panic_threshold > 0
    u = h.branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    return bool(policy is not None and policy.outlier_detection is not None and policy.outlier_detection.min_health_percent)


def elsewhere(case: Case, ejected: Held) -> list[Held]:
    """The same destination at other Envoys that were read and that use some of its hosts."""
    mine = {host.address for host in ejected.hosts}
    return [
        h
        for h in held(case)
        if h.branch.upstream.name == ejected.branch.upstream.name and any(host.usable and host.address in mine for host in h.hosts)
    ]


def outlier(case: Case, cause: str, group: list[Held], message: str, evidence: Iterable[str], fix: str) -> Finding:
    """The finding of a destination whose hosts are ejected, at the DestinationRule that lets them be."""
    first = group[0].branch
    cluster, ref, path = policy_at(case, first, "outlier_detection")
    part = share((h.branch, 1.0) for h in group)
    return case.finding(
        cause,
        cluster=cluster,
        resource=ref,
        path=path,
        message=f"{percent(part)} of the requests of a rule get 503: {message}.",
        share=part,
        viewpoints=case.viewpoints(h.branch for h in group),
        evidence=(*ejections(group), *said(first), *evidence),
        fix=fix,
        commands=(
            endpoints_command(first.upstream).replace("<pod>", f"{group[0].envoy.pod} -n {group[0].envoy.namespace}"),
            f"istioctl proxy-config cluster {group[0].envoy.pod} -n {group[0].envoy.namespace} --fqdn {first.upstream.host} -o json",
        ),
    )


def policy_at(case: Case, branch: Branch, block: str) -> tuple[str, str, str]:
    """Who says a block of a destination's traffic policy: the cluster, the object and the field; without a rule the mesh's default policy."""
    found = said_at(branch, block)
    istiod = branch.view.ups.istiod
    home = case.mesh.cluster(istiod.cluster)
    if found is not None:
        return home.name, found[0].ref, found[1]
    if (
        istiod.plane.shapes_by_mesh
        and istiod.config.default_traffic_policy is not None
        and (config := case.mesh.config_map(home)) is not None
    ):
        return home.name, config.ref, "data.mesh"
    return home.name, branch.resource, ""


def ejections(group: Iterable[Held]) -> Iterator[str]:
    """The hosts that each Envoy has ejected, one line for each Envoy."""
    for h in group:
        gone = [host for host in h.hosts if EJECTED in host.reason]
        named = ", ".join(host.address for host in gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
        yield f"Envoy {h.envoy.proxy} has ejected every ready host of {h.branch.upstream.name}: {named} ({h.source})"


def said(branch: Branch) -> Iterator[str]:
    """What the outlier detection of a destination allows."""
    u = branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    found = said_at(branch, "outlier_detection")
    if policy is None or policy.outlier_detection is None or found is None:
        return
    o = policy.outlier_detection
    limit = f"maxEjectionPercent {o.max_ejection_percent}" if o.max_ejection_percent else "no maxEjectionPercent (10)"
    yield f"{found[0].ref} {found[1]}: {limit}, baseEjectionTime {o.base_ejection_time or '30s'}"


def limits(branch: Branch) -> str:
    """What the connection pool of a destination allows, for people; empty when nothing limits it."""
    u = branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    pool = policy.connection_pool if policy is not None else None
    if pool is None:
        return ""
    tcp, http = pool.tcp, pool.http
    said = {
        "tcp.maxConnections": tcp.max_connections if tcp is not None else None,
        "http.http1MaxPendingRequests": http.http1_max_pending_requests if http is not None else None,
        "http.http2MaxRequests": http.http2_max_requests if http is not None else None,
        "http.maxRetries": http.max_retries if http is not None else None,
    }
    return ", ".join(f"{name} {value}" for name, value in said.items() if value is not None)


def overflows(case: Case, cause: str, fails: Callable[[Access], bool], what: str, fix: str) -> Iterator[Finding]:
    """The findings of calls that a limit of the caller's Envoy refused, those of one object together.

    Prometheus counts the flag alone, which is the same for connections and for retries: it tells where only one of them is limited.
    """
    logged = failed(case, fails)
    counted = measure(case, _refused) if not logged else None
    if counted is not None and all(_limited(b) == cause for b in counted.branches):
        b = counted.branches[0]
        at = policy_at(case, b, "connection_pool")
        yield finding(
            case,
            cause,
            counted,
            what=f"{what} ({limits(b)})",
            fix=fix.format(ref=at[1], host=where(b)),
            at=at,
            evidence=(f"{at[1]} {at[2]}: {limits(b)}",),
            commands=(f"istioctl proxy-config cluster <pod> --fqdn {b.upstream.host} -o json",),
        )
    for group in by(logged, lambda c: " ".join(policy_at(case, c.branch, "connection_pool"))):
        first = group[0]
        cluster, ref, path = policy_at(case, first.branch, "connection_pool")
        part = lost(group)
        allowed = limits(first.branch)
        yield case.finding(
            cause,
            cluster=cluster,
            resource=ref,
            path=path,
            message=f"{percent(part)} of the requests of a rule to {where(first.branch)} {what}{f' ({allowed})' if allowed else ''}.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(*sources(group), *((f"{ref} {path}: {allowed}",) if allowed else ())),
            fix=fix.format(ref=ref, host=where(first.branch)),
            commands=(
                log_command(first),
                f"istioctl proxy-config cluster {first.log.pod} -n {first.log.namespace} --fqdn {first.branch.upstream.host} -o json",
            ),
        )


def _refused(call: Access | Flow) -> bool:
    return isinstance(call, Flow) and "UO" in call.flags


def _limited(branch: Branch) -> str:
    """The cause of a refusal where a connection pool limits either connections and requests or retries; empty where both or neither."""
    u = branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    pool = policy.connection_pool if policy is not None else None
    http = pool.http if pool is not None else None
    retries = http is not None and http.max_retries is not None
    requests = http is not None and (http.http1_max_pending_requests is not None or http.http2_max_requests is not None)
    connections = pool is not None and pool.tcp is not None and pool.tcp.max_connections is not None
    if retries == (requests or connections):
        return ""
    return "retry-overflow" if retries else "circuit-breaker-overflow"
