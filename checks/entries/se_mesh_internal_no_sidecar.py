"""se-mesh-internal-no-sidecar (MESH419)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.entries import tls
from checks.finding import Finding, check
from checks.resources import WorkloadEntry
from checks.seen import failed, log_command, lost, says, sources
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access
    from checks.registry import IstioEndpoint
    from checks.seen import Calls


@check("se-mesh-internal-no-sidecar")
def se_mesh_internal_no_sidecar(case: Case) -> Iterator[Finding]:
    """An endpoint that is said to be in the mesh has no proxy that speaks mutual TLS.

    A WorkloadEntry (or an inline endpoint) with the label `security.istio.io/tlsMode: istio`, or with a service account, is taken for one that
    runs Istio's proxy: callers speak mutual TLS to it. Without the proxy the app answers the handshake with something that is none: 503 (flag
    UF, TLS_error WRONG_VERSION_NUMBER).

    How to see it: the caller's access log says UF with WRONG_VERSION_NUMBER; no istio-proxy runs on the machine.

    How to fix it: run the proxy there, or take the label and the service account off the entry.
    """
    groups: dict[tuple[str, str], tuple[list[Calls], list[IstioEndpoint]]] = {}
    for calls in failed(case, _no_tls):
        u = calls.branch.upstream
        if u.service is None or tls(calls.branch):
            continue
        deaf = [e for e in u.endpoints if e.at in calls.upstreams and e.tls and e.health == "healthy"]
        for e in deaf:
            entry = case.mesh.cluster(e.cluster).get(WorkloadEntry, e.namespace, e.workload)
            if entry is None and u.service.kubernetes:
                continue  # a pod, whose proxy Kubernetes shows: mtls-to-plain
            resource = entry.ref if entry is not None else u.service.sources[0][1]
            found = groups.setdefault((case.mesh.cluster(e.cluster).name, resource), ([], []))
            found[0].append(calls)
            found[1].append(e)
    for (cluster, resource), (calls_, endpoints) in groups.items():
        first = calls_[0]
        group = list({id(c): c for c in calls_}.values())
        part = lost(group)
        at = ", ".join(dict.fromkeys(e.at for e in endpoints))
        yield case.finding(
            "se-mesh-internal-no-sidecar",
            cluster=cluster,
            resource=resource,
            path="spec.labels" if resource.startswith("WorkloadEntry") else "spec.endpoints",
            message=f"{percent(part)} of the requests of a rule to {short(first.branch.upstream.host)} fail: {resource} says that {at} speaks mutual TLS, and it does not.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(*sources(group), f"{resource}: {at} has the TLS mode istio, by its label or its service account"),
            fix=f"Run Istio's proxy at {at}, or take the label security.istio.io/tlsMode and the service account off {resource}.",
            commands=(
                log_command(first),
                f"istioctl proxy-config endpoints {first.log.pod} -n {first.log.namespace} --cluster '{first.branch.upstream.name}' -o json",
            ),
        )


def _no_tls(access: Access) -> bool:
    return "UF" in access.flags and says(access, "wrong version number")
