"""proxy-disconnected (MESH902)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.control import disconnected, proxy_finding, told
from checks.finding import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("proxy-disconnected")
def proxy_disconnected(case: Case) -> Iterator[Finding]:
    """A caller's proxy runs and is connected to no istiod.

    It cannot resolve or reach istiod (port 15012), is not let in (CA, token), or was injected for a control plane that has gone. It works with
    what it last had: as pods come and go, its calls fail one after the other (flags UF and UH), and `istioctl proxy-status` merely lacks the row.

    How to see it: the proxy is in no `istioctl proxy-status` of any istiod; `control_plane.connected_state` of its Envoy is 0.

    How to fix it: open the way from the pod to istiod:15012, and look at its istio-proxy log for the reason of the last failure.
    """
    looked = dict.fromkeys((e.cluster, e.namespace, e.pod) for e in case.evidence.proxies)
    looked |= dict.fromkeys((log.cluster, log.namespace, log.pod) for log in case.evidence.logs)
    group = [
        t
        for at in looked
        if disconnected(case, *at)
        and (t := told(case, "proxy-disconnected", *at, f"proxy {at[2]}.{at[1]} is connected to no istiod, though its pod is ready"))
        is not None
    ]
    if group:
        worst = max(group, key=lambda t: t.part)
        yield proxy_finding(
            case,
            "proxy-disconnected",
            group,
            "the proxy is connected to no istiod",
            f"Open the way from pod {worst.namespace}/{worst.pod} to istiod (port 15012), and look at its log for why it is not let in.",
            ("istioctl proxy-status", f"kubectl -n {worst.namespace} logs {worst.pod} -c istio-proxy | grep -i xds"),
        )
