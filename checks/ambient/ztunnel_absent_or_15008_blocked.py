"""ztunnel-absent-or-15008-blocked (MESH926)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import ambient
from checks.case import short
from checks.finding import Finding, check
from checks.resources import Pod
from checks.seen import clock
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Viewpoint
    from checks.case import Case
    from checks.mesh import Cluster

HBONE = "15008"


@check("ztunnel-absent-or-15008-blocked")
def ztunnel_absent_or_15008_blocked(case: Case) -> Iterator[Finding]:
    """Nobody takes the calls of the ambient mesh at the server's node: no ztunnel is ready there, or port 15008 is closed on the way.

    Between two pods of the ambient mesh calls travel in HBONE, from ztunnel to ztunnel at port 15008 of the pod's address. A node without a ready
    ztunnel (taints, a CNI that is not ready) or a NetworkPolicy that opens the app's port and not 15008 has every call to its pods time out,
    although they are ready; a caller sees a reset, ztunnel counts CONNECT.

    How to see it: `kubectl -n istio-system get pods -l app=ztunnel -o wide`; ztunnel's log says "maybe a NetworkPolicy is blocking HBONE port 15008".

    How to fix it: have ztunnel run on every node, and let port 15008 in wherever a NetworkPolicy guards pods of the mesh.
    """
    looked = {z.cluster for z in case.evidence.ztunnels} | {log.cluster for log in case.evidence.logs if log.pod.startswith("ztunnel")}
    if ambient.explained(case) or not looked:
        return
    for cluster, _, service in ambient.services(case):
        if cluster.name not in looked:
            continue
        callers = ambient.calling(case, service, cluster)
        pods = [p for c, p in ambient.backends(case, service) if c is cluster and ambient.serves(p)]
        there = _nodes(cluster)
        bare = [p for p in pods if p.spec.node_name and p.spec.node_name not in there]
        shut = {p.name: line for p in pods if p not in bare and (line := _blocked(case, cluster, p))}
        if callers and pods and (bare or shut) and there:
            yield _finding(case, cluster, pods, bare, shut, callers)


def _nodes(cluster: Cluster) -> set[str]:
    """The nodes with a ready ztunnel."""
    return {p.spec.node_name for p in cluster.all(Pod) if p.labels.get("app") == "ztunnel" and ambient.serves(p)}


def _blocked(case: Case, cluster: Cluster, pod: Pod) -> str:
    """What a ztunnel's log says of a pod whose port 15008 gives no answer; empty when nothing does (ztunnel, src/proxy.rs)."""
    for log in case.evidence.logs:
        if log.cluster != cluster.name or not log.pod.startswith("ztunnel"):
            continue
        for text in (*(a.line for a in log.accesses), *(line.text for line in log.other)):
            if HBONE in text and "timed out" in text and any(f"{ip}:" in text for ip in pod.addresses):
                return f"log of {log.proxy}: {text}"
    return ""


def _finding(
    case: Case, cluster: Cluster, pods: list[Pod], bare: list[Pod], shut: dict[str, str], callers: tuple[Viewpoint, ...]
) -> Finding:
    part = round((len(bare) + len(shut)) / len(pods), 6)
    hit = bare[0] if bare else next(p for p in pods if p.name in shut)
    kind, _, name = case.mesh.workload(cluster, hit).partition(" ")
    nodes = sorted({p.spec.node_name for p in bare})
    why = f"no ztunnel is ready on {', '.join(nodes)}" if bare else f"port {HBONE} of {', '.join(list(shut)[:3])} gives no answer"
    read = next((z for z in case.evidence.ztunnels if z.cluster == cluster.name), None)
    return case.finding(
        "ztunnel-absent-or-15008-blocked",
        cluster=cluster.name,
        resource=f"{kind} {hit.namespace}/{name}",
        path="",
        message=f"{percent(part)} of the calls of {short(case.host)} from the ambient mesh fail: {why}.",
        share=part,
        viewpoints=callers,
        evidence=(
            *(f"pod {p.namespace}/{p.name} is ready on node {p.spec.node_name}, where no ztunnel is" for p in bare[:3]),
            *list(shut.values())[:3],
            *((f"ztunnel {read.pod} was read on {read.node} ({read.source}, read at {clock(read.read_at)})",) if read is not None else ()),
        ),
        fix=f"Have ztunnel run on {', '.join(nodes)}: look at the DaemonSet's events, at taints and at the CNI."
        if bare
        else f"Let port {HBONE} in, in the NetworkPolicy that guards {kind} {hit.namespace}/{name}.",
        commands=("kubectl get pods -A -l app=ztunnel -o wide", f"kubectl -n {hit.namespace} get networkpolicy"),
    )
