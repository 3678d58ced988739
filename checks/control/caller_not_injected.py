"""caller-not-injected (MESH912)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, MeshCue, check
from checks.planes import REVISION
from checks.resources import MutatingWebhookConfiguration, Namespace
from checks.security import around, guarded, somewhere
from checks.security.authz_principal_without_mtls import closed
from checks.security.mtls_plain_to_strict import strict
from checks.subsets import percent
from checks.viewpoints import Outsider, outsiders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.mesh import Mesh


@MeshCue
def _meant(mesh: Mesh) -> bool:
    """Somebody should have a sidecar and has none."""
    return any(o.meant for o in outsiders(mesh))


@check("caller-not-injected", when=_meant)
def caller_not_injected(case: Case) -> Iterator[Finding]:
    """A caller that should have a sidecar has none.

    Its namespace or its pods ask for injection, and the pods were made before that, or while the injection webhook did not answer, or for a
    revision that is gone. Without a sidecar no VirtualService and no DestinationRule applies to its calls; a server that accepts mutual TLS only
    resets them, and an AuthorizationPolicy that asks who calls refuses them.

    How to see it: `kubectl get pods` shows the pods without a container istio-proxy; `istioctl proxy-status` does not list them.

    How to fix it: restart the workload, so that its pods are made anew and injected.
    """
    meant = [o for o in outsiders(case.mesh) if o.meant]
    if not meant:
        return
    owners = {s.namespace for c in case.mesh.clusters for s in case.mesh.istiod(c.name).by_host.get(case.host, ())}
    reset, shut = strict(case) if somewhere(case.mesh, "STRICT") else (0.0, [])
    behind = {(s.cluster.name, s.endpoint.namespace, s.endpoint.workload) for _, _, servers in around(case) for s in servers}
    for o in meant:
        v = o.viewpoint
        kind, _, name = o.workload.partition(" ")
        if (v.cluster, v.namespace, f"{kind} {name.partition('/')[2]}") in behind:
            continue
        refused, policies = closed(case, v.namespace) if guarded(case) else (0.0, [])
        if shut:
            mode = "which accepts mutual TLS only"
            yield _finding(case, o, max(reset, refused), f"{percent(reset)} of its calls to {short(case.host)}, {mode}, are reset")
        elif policies:
            ref = policies[0][1].policy.ref
            yield _finding(
                case, o, refused, f"{percent(refused)} of its calls to {short(case.host)} are refused, since {ref} asks who calls"
            )
        elif v.namespace not in owners and (why := case.wants(v)) and (rules := _rules(case)):
            yield _finding(
                case, o, 0.0, f"{rules} does not apply to its calls to {short(case.host)}", f"{v.namespace} means to call it: {why}"
            )


def _rules(case: Case) -> str:
    """A VirtualService that callers with a sidecar go by."""
    found = (s.source for view in case.views if view.callers.proxy.kind == "sidecar" for s in view.steps if s.source)
    return next((s for s in found if s.startswith("VirtualService ")), "")


def _gone(case: Case, outsider: Outsider) -> tuple[str, str]:
    """The revision that a namespace asks for where nothing of that name runs, and one that does; empty where it runs, or nobody can say."""
    cluster = case.mesh.cluster(outsider.viewpoint.cluster)
    around = cluster.get(Namespace, "", outsider.viewpoint.namespace)
    wanted = around.labels.get(REVISION, "") if around is not None and "istio-injection" not in around.labels else ""
    running = [p.revision for p in case.mesh.planes(cluster) if p.revision]
    if not wanted or not running or not any(True for _ in cluster.all(MutatingWebhookConfiguration)):
        return "", ""
    known = {*running, *case.mesh.tags(cluster)}
    return ("", "") if wanted in known else (wanted, case.mesh.plane(cluster).revision)


def _finding(case: Case, outsider: Outsider, share: float, effect: str, *more: str) -> Finding:
    v = outsider.viewpoint
    kind, _, name = outsider.workload.partition(" ")
    again = f"Restart {outsider.workload}, so that its pods are made anew with a sidecar"
    gone, instead = _gone(case, outsider)
    if gone:
        more = (*more, f"no control plane and no revision tag of {v.cluster} is called {gone}")
        again = f"Label namespace {v.namespace} {REVISION}={instead}, then restart {outsider.workload}"
    return case.finding(
        "caller-not-injected",
        cluster=v.cluster,
        resource=outsider.workload,
        path="spec.template.metadata",
        message=f"{outsider.workload} should have a sidecar and has none: {effect}.",
        share=share,
        viewpoints=(v,),
        evidence=(outsider.meant, f"the pods of {outsider.workload} have no container istio-proxy", *more),
        fix=f'{again}, or say sidecar.istio.io/inject: "false" if it is none of the mesh.',
        commands=(
            f"kubectl -n {v.namespace} rollout restart {kind.lower()} {name.partition('/')[2]}",
            f"kubectl -n {v.namespace} get pods -o custom-columns=NAME:.metadata.name,CONTAINERS:.spec.containers[*].name",
            f"kubectl get namespace {v.namespace} --show-labels",
        ),
    )
