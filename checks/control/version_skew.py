"""version-skew (MESH908)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import Told, proxy_finding, told
from checks.finding import Finding, check
from checks.planes import Version, release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case

BEHIND = 2
"""Minor releases that a proxy may be behind its istiod: an upgrade may skip one (istio.io, canary upgrades)."""
NAMED = 20
"""Proxies that are looked at: a whole fleet that is behind is one finding."""


@check("version-skew")
def version_skew(case: Case) -> Iterator[Finding]:
    """A caller's proxy is of another release than its istiod, further than Istio supports.

    A control plane may be two minor releases ahead of its proxies, and a proxy never ahead of its control plane. Beyond that istiod sends fields
    that the proxy does not know (it refuses the update), or relies on defaults that are others there: unready endpoints that an old proxy calls,
    routes that it reads otherwise.

    How to see it: `istioctl proxy-status` prints the version of each proxy, `istioctl version` those of the control plane.

    How to fix it: restart the pods, so that their proxies are injected anew.
    """
    group: list[Told] = []
    for view in case.evidence.istiods:
        own = release(view.version)
        for sync in (view.proxies or {}).values():
            theirs = release(sync.version)
            if len(group) >= NAMED or own is None or theirs is None or not _apart(own, theirs):
                continue
            pod, _, namespace = sync.proxy.rpartition(".")
            where = case.mesh.known(sync.cluster or view.cluster)
            said = f"proxy {sync.proxy} is of Istio {sync.version}, istiod {view.pod}.{view.namespace} of {view.version}"
            found = told(case, "version-skew", where.name, namespace, pod, said) if where is not None else None
            group += [found] if found is not None else []
    if group:
        yield proxy_finding(
            case,
            "version-skew",
            group,
            f"{group[0].said[0]}, which is further apart than Istio supports",
            f"Restart pod {group[0].namespace}/{group[0].pod} and its like, so that their proxies are injected anew.",
            ("istioctl proxy-status", "istioctl version"),
        )


def _apart(istiod: Version, proxy: Version) -> bool:
    return proxy[:2] > istiod[:2] or istiod[0] != proxy[0] or istiod[1] - proxy[1] > BEHIND
