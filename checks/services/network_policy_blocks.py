"""network-policy-blocks (MESH322)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check
from checks.resources import NetworkPolicy, Pod
from checks.seen import Calls, behind, failed, log_command, lost, sources, timed_out, where
from checks.services import service_of
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.mesh import Cluster
    from checks.registry import IstioEndpoint


@check("network-policy-blocks")
def network_policy_blocks(case: Case) -> Iterator[Finding]:
    """Connections to pods that are ready get no answer at all: something between caller and server drops them.

    A NetworkPolicy that does not let this caller in, the CNI's own policy, a firewall or a security group. Nothing refuses the connection, so
    that the caller's Envoy waits out its connect timeout and answers 503 (flag UF, connection_timeout); with mTLS through the E/W gateway or
    HBONE it is port 15443 or 15008 that must be open.

    How to see it: the caller's access log says UF connection_timeout, and the pods are ready; `kubectl get networkpolicy` in their namespace.

    How to fix it: let the caller in at this port, in the NetworkPolicy or the firewall.
    """
    groups: dict[tuple[str, str], list[tuple[Calls, list[tuple[IstioEndpoint, Cluster, Pod]]]]] = {}
    for calls in failed(case, timed_out):
        pods = list(behind(case, calls))
        if pods:
            policy = next((p for _, c, pod in pods for p in _policies(c, pod)), None)
            home = pods[0][1].name if policy is not None else case.cluster_of(calls.branch)
            groups.setdefault((home, policy.ref if policy is not None else service_of(calls.branch)), []).append((calls, pods))
    for (home, resource), group in groups.items():
        first, pods = group[0]
        part = lost(c for c, _ in group)
        policies = list(dict.fromkeys(p.ref for _, found in group for _, c, pod in found for p in _policies(c, pod)))
        who = " and ".join(policies[:3]) or "nothing that Kubernetes shows"
        yield case.finding(
            "network-policy-blocks",
            cluster=home,
            resource=resource,
            path="spec.ingress" if policies else "",
            message=(
                f"{percent(part)} of the requests of a rule get no connection: something drops what goes to the ready pods of {where(first.branch)} at port "
                f"{pods[0][0].port}; {who} guards them."
            ),
            share=part,
            viewpoints=case.viewpoints(c.branch for c, _ in group),
            evidence=(
                *sources(c for c, _ in group),
                *(f"pod {p.namespace}/{p.name} at {e.at} is ready" for e, _, p in pods[:3]),
                *(f"{ref} selects them" for ref in policies[:3]),
            ),
            fix=f"Let the callers in at port {pods[0][0].port}: in {who}."
            if policies
            else f"Find what drops port {pods[0][0].port}: a policy of the CNI, a firewall or a security group.",
            commands=(log_command(first), f"kubectl -n {pods[0][2].namespace} get networkpolicy"),
        )


def _policies(cluster: Cluster, pod: Pod) -> list[NetworkPolicy]:
    """The NetworkPolicies that say who may come to a pod."""
    return [
        p
        for p in cluster.ordered(NetworkPolicy, pod.namespace)
        if p.spec.pod_selector.matches(pod.labels) and "Ingress" in (p.spec.policy_types or ("Ingress",))
    ]
