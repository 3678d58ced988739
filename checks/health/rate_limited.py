"""rate-limited (MESH808)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import reaching
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure
from checks.registry import proxy_kind
from checks.resources import Pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import AccessLog
    from checks.measured import Measure
    from checks.resources import EnvoyFilter


@check("rate-limited")
def rate_limited(case: Case) -> Iterator[Finding]:
    """A proxy's rate limit refuses calls: 429 (flag RL), or an error of the service that it asks (RLSE).

    An EnvoyFilter gave some proxy a limit: of its own (local_rate_limited), or one that it asks a service about (request_rate_limited). Above
    it calls are answered at once, and no server sees them. A 429 without a flag is the app's own and is not meant here.

    How to see it: the access log of the proxy that refuses says 429 RL.

    How to fix it: raise the limit in the EnvoyFilter (or in the service that it asks), or send less.
    """
    measured = measure(case, flagged("RL", "RLSE"))
    if measured is None:
        return
    found = _limiting(case, measured)
    where = f" that {found[1].ref} sets" if found is not None else ""
    logs = dict.fromkeys(s.log.proxy for s in measured.samples if s.log is not None)
    who = f" of {', '.join(list(logs)[:3])}" if logs else ""
    yield finding(
        case,
        "rate-limited",
        measured,
        what=f"are refused by the rate limit{where}, at the proxy{who}",
        fix=f"Raise the limit in {found[1].ref if found is not None else 'the EnvoyFilter that sets it'}, or send less.",
        at=(found[0], found[1].ref, "spec.configPatches") if found is not None else None,
        commands=(f"kubectl -n {found[1].namespace} get envoyfilter {found[1].name} -o yaml",) if found is not None else (),
    )


def _limiting(case: Case, measured: Measure) -> tuple[str, EnvoyFilter] | None:
    """The cluster and the EnvoyFilter that reaches a proxy which refused calls; None where none does, or several might."""
    found: dict[str, tuple[str, EnvoyFilter]] = {}
    for log in (s.log for s in measured.samples if s.log is not None):
        found.update({f"{cluster} {f.ref}": (cluster, f) for cluster, f in _filters(case, log)})
    return next(iter(found.values())) if len(found) == 1 else None


def _filters(case: Case, log: AccessLog) -> Iterator[tuple[str, EnvoyFilter]]:
    cluster = case.mesh.known(log.cluster)
    pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
    if cluster is None or pod is None or (kind := proxy_kind(pod)) == "none":
        return
    proxy = case.mesh.proxy(cluster, pod, kind)
    istiod = case.mesh.istiod(cluster.name, proxy.revision)
    for f in reaching(istiod, proxy):
        values = [p.patch.value for p in f.spec.config_patches or () if p.patch is not None and p.patch.value is not None]
        if any("ratelimit" in v.name.replace("_", "") for v in values):
            yield case.mesh.cluster(istiod.cluster).name, f
