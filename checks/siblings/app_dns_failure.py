"""app-dns-failure (MESH950)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.resources import Pod
from checks.seen import FEW, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.evidence import AccessLog

_UNRESOLVED = re.compile(
    r"ENOTFOUND|EAI_AGAIN|EAI_NONAME|NXDOMAIN|SERVFAIL|no such host|UnknownHost|name or service not known|nodename nor servname"
    r"|temporary failure in name resolution|could not resolve host|getaddrinfo",
    re.IGNORECASE,
)


@check("app-dns-failure")
def app_dns_failure(case: Case) -> Iterator[Finding]:
    """An app cannot resolve the host's name, so that no call of it ever reaches the mesh.

    A name is resolved before anything is sent. Where DNS does not know it (a short name from another namespace, a ServiceEntry's host that no DNS
    server has, a typo, a resolver that is away), the app fails by itself: there is no access line, no metric and no 503, and the mesh looks
    as if nobody called.

    How to see it: the app's log says ENOTFOUND, no such host, NXDOMAIN or Name or service not known; the access log of its proxy has no call.

    How to fix it: call the full name; for a host that only a ServiceEntry knows switch on DNS capture (ISTIO_META_DNS_CAPTURE), or add it to DNS.
    """
    for log in case.evidence.logs:
        cluster = case.mesh.known(log.cluster)
        pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
        view = case.as_pod(log.cluster, log.namespace, log.pod)
        if cluster is None or pod is None or view is None or log.container == "istio-proxy":
            continue
        said = [line for line in log.other if _UNRESOLVED.search(line.text) and spoken(case, view, pod.namespace, line.text)]
        silent = _silent(case, view, log) if len(said) >= FEW else ""
        if not silent:
            continue
        kind, _, name = case.mesh.workload(cluster, pod).partition(" ")
        owner = f"{kind} {pod.namespace}/{name}"
        yield case.finding(
            "app-dns-failure",
            cluster=cluster.name,
            resource=owner,
            path="",
            message=f"The app of {owner} cannot resolve the name of {short(case.host)}: none of its calls reaches the mesh.",
            share=1.0,
            viewpoints=view.callers.viewpoints,
            evidence=(*dict.fromkeys(f"the log of {log.proxy} ({log.container}): {line.text}" for line in said[-3:]), silent),
            fix=f"Let the app call {case.host}; where only a ServiceEntry knows that name, switch on DNS capture or add it to DNS.",
            commands=(
                f"kubectl -n {pod.namespace} logs {pod.name} -c {log.container}",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {log.container} -- nslookup {case.host}",
            ),
        )


def _silent(case: Case, view: View, log: AccessLog) -> str:
    """What says that no call of the host leaves this pod, for people; empty where calls do, or where nothing was read that would tell."""
    names = {b.upstream.name for b in case.of_view(view)}
    proxies = [x for x in case.evidence.logs if (x.proxy, x.container) == (log.proxy, "istio-proxy") and x.cluster == log.cluster]
    if any(a.envoy_cluster in names for x in proxies for a in x.accesses):
        return ""
    traffic = [t for t in case.evidence.traffic if t.host == case.host and case.mesh.known(t.cluster) is case.mesh.known(log.cluster)]
    if any(f.rate and f.namespace == log.namespace for t in traffic for f in t.flows):
        return ""
    if any(x.read for x in proxies):
        return f"none of the {sum(x.read for x in proxies)} calls in the log of {log.proxy} (istio-proxy) is one of it"
    if traffic:
        return f"no call of it from namespace {log.namespace} was counted in {traffic[0].window_s:g} s ({traffic[0].source})"
    return ""
