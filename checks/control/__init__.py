"""Control plane, delivery and proxies (MESH9xx): what its findings have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.resources import EnvoyFilter

if TYPE_CHECKING:
    from checks.case import View


def filters(view: View) -> list[EnvoyFilter]:
    """The EnvoyFilters that reach a caller's proxy, in the order in which they are applied: the root namespace's first (PushContext.EnvoyFilters).

    One that names a target is for that gateway or waypoint alone, and is not counted for others.
    """
    istiod, proxy = view.ups.istiod, view.ups.proxy
    root = istiod.config.root_namespace
    found = [f for f in istiod.all(EnvoyFilter) if isinstance(f, EnvoyFilter) and f.namespace in {root, proxy.namespace}]
    mine = [f for f in found if _reaches(f, view)]
    return sorted(mine, key=lambda f: (f.spec.priority, f.namespace != root, f.created, f.name))


def _reaches(found: EnvoyFilter, view: View) -> bool:
    proxy = view.ups.proxy
    if found.spec.target_refs:
        own = proxy.labels.get("gateway.networking.k8s.io/gateway-name")
        return any(ref.kind == "Gateway" and ref.name == own for ref in found.spec.target_refs)
    return found.spec.workload_selector is None or found.spec.workload_selector.matches(proxy.labels)
