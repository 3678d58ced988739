"""proxy-stale (MESH901)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import hit, proxy_finding, synced, told
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("proxy-stale")
def proxy_stale(case: Case) -> Iterator[Finding]:
    """A caller's proxy has not taken over what istiod sent it, and works with what it had before.

    istiod sent a newer configuration or newer endpoints and the proxy never acknowledged them: it hangs, its node is starved, or the
    connection is dead and nobody has noticed. It goes on with the old ones, so that its calls go to pods that are gone, or miss what is new.

    How to see it: `istioctl proxy-status` says STALE for the proxy, and its endpoints differ from the EndpointSlices.

    How to fix it: restart the proxy's pod; if it comes back, look at its node and at the way to istiod (port 15012).
    """
    for e in hit(case, "proxy-stale"):
        sync = synced(case, e.cluster, e.namespace, e.pod)
        states = ", ".join(f"{kind} {state}" for kind, state in sync.states.items()) if sync is not None else ""
        t = told(case, "proxy-stale", e.cluster, e.namespace, e.pod, f"istiod says of {e.proxy}: {states}")
        if t is not None:
            yield proxy_finding(
                case,
                "proxy-stale",
                [t],
                "istiod has sent newer configuration or endpoints that the proxy has not acknowledged",
                f"Restart pod {e.namespace}/{e.pod}; if it comes back, look at its node and at the way to istiod (port 15012).",
                ("istioctl proxy-status", f"istioctl proxy-config endpoints {e.pod} -n {e.namespace}"),
            )
