"""caller-sidecar-startup (MESH911)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.finding import Finding, check
from checks.registry import proxy_kind
from checks.resources import Pod
from checks.seen import clock, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import AccessLog, LogLine
    from checks.mesh import Cluster

_REFUSED = re.compile(r"connection refused|ECONNREFUSED", re.IGNORECASE)
STARTING_S = 10.0
"""How long after its start an Envoy may not listen yet: it waits for istiod's configuration first."""


class _Away(NamedTuple):
    """When a caller's proxy was not there: before it listened, or since it ended, and until or since when (seconds since the epoch)."""

    cluster: Cluster
    pod: Pod
    how: str


@check("caller-sidecar-startup")
def caller_sidecar_startup(case: Case) -> Iterator[Finding]:
    """An app calls before its own sidecar listens, or after it has ended: "connection refused", whatever it calls.

    The containers of a pod start together, and the app's traffic is led to its proxy from the first packet on: until Envoy has its configuration,
    nobody listens there. At the end of a pod, or of a Job that outlives its proxy, it is the same again. No access log tells of such calls, for there
    was no proxy to write one; the app's log does.

    How to see it: the app's log says "connection refused" within seconds of the pod's start, or after istio-proxy has terminated.

    How to fix it: run the proxy as a native sidecar (Kubernetes 1.29), or set holdApplicationUntilProxyStarts; let the app try again.
    """
    for log in case.evidence.logs:
        cluster = case.mesh.known(log.cluster)
        pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
        view = case.as_pod(log.cluster, log.namespace, log.pod)
        if cluster is None or pod is None or view is None or log.container == "istio-proxy" or proxy_kind(pod) != "sidecar":
            continue
        refused = [line for line in log.other if _REFUSED.search(line.text) and spoken(case, view, pod.namespace, line.text)]
        how = _away(pod, log, refused)
        if not how:
            continue
        kind, _, name = case.mesh.workload(cluster, pod).partition(" ")
        owner = f"{kind} {pod.namespace}/{name}"
        yield case.finding(
            "caller-sidecar-startup",
            cluster=cluster.name,
            resource=owner,
            path="spec.template.spec" if kind != "Pod" else "spec",
            message=f"The app of {owner} calls {short(case.host)} {how}: nobody takes these calls, whatever they are for.",
            share=0.0,
            viewpoints=view.callers.viewpoints,
            evidence=tuple(
                dict.fromkeys(f"{clock(line.at)}, the log of {log.proxy} ({log.container}): {line.text}" for line in refused[:3])
            ),
            fix=f"Run the proxy of {owner} as a native sidecar, or set holdApplicationUntilProxyStarts for it, and let the app try again.",
            commands=(
                f"kubectl -n {pod.namespace} logs {pod.name} -c {log.container} --timestamps",
                f"kubectl -n {pod.namespace} get pod {pod.name} -o jsonpath='{{.status}}'",
            ),
        )


def _away(pod: Pod, log: AccessLog, refused: list[LogLine]) -> str:
    """How these refusals come about, where each of them falls into a time without proxy; empty otherwise, or where that is not known."""
    every = (*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ()))
    states = {s.name: s.state for s in every}
    app, proxy = states.get(log.container), states.get("istio-proxy")
    if not refused or app is None or proxy is None or any(not line.at for line in refused):
        return ""
    if proxy.terminated is not None and (end := _moment(proxy.terminated.finished_at)):
        return "after its proxy has ended" if all(line.at >= end for line in refused) else ""
    native = any(c.name == "istio-proxy" for c in pod.spec.init_containers or ())
    if native or app.running is None or proxy.running is None:
        return ""
    begun, listening = _moment(app.running.started_at), _moment(proxy.running.started_at)
    if not begun or not listening or begun > listening + 1:  # it was held back until the proxy listened
        return ""
    return "before its proxy listens" if all(begun <= line.at <= listening + STARTING_S for line in refused) else ""


def _moment(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp() if rfc3339 else 0.0
