"""gwapi-backend-notfound (MESH721)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, check, explained, explains
from checks.gateways import backend, drop, foreign, said
from checks.resources import Service
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


@explains(
    "gwapi-backend-notfound",
    before=("vs-dest-host-unknown", "vs-dest-port-unknown", "vs-dest-shortname-ns", "vs-dest-partial-name"),
)
def _explains(_: Case, branch: Branch) -> bool:
    b, u = backend(branch), branch.upstream
    if b is None or b.kind == "InferencePool" or foreign(branch):
        return False
    known = branch.view.ups.istiod.by_host.get(u.host, ())
    return not u.host or not known or not any(s.port(u.port) for s in known)


@check("gwapi-backend-notfound", when=explained)
def gwapi_backend_notfound(case: Case) -> Iterator[Finding]:
    """A route refers to a backend that does not exist, has no such port, or is of a kind that Istio does not route to.

    Requests for this backend's share are answered with 500 (flag NC) where the reference itself is refused, and with 503 (flag NC) where the
    Service is merely absent. The other backends of the rule keep their shares.

    How to see it: the route's status has ResolvedRefs False, reason BackendNotFound or InvalidKind.

    How to fix it: correct name, namespace, port or kind, or create the Service.
    """
    for branches in case.caused("gwapi-backend-notfound"):
        first = branches[0]
        b, istiod = backend(first), first.view.ups.istiod
        if b is None:
            continue
        for c in case.mesh.clusters:
            case.mesh.require(c, Service)
        namespace = first.resource.partition(" ")[2].partition("/")[0]
        share, known = case.share(branches), istiod.by_host.get(first.upstream.host, ())
        if not first.upstream.host:
            why, path = f"is of kind {b.kind}, which Istio does not route to", f"{first.path}.kind"
        elif known:
            why, path = f"has no port {b.port}", f"{first.path}.port"
        else:
            why, path = "does not exist", f"{first.path}.name"
        ports = ", ".join(str(p.number) for s in known for p in s.ports)
        near = istiod.nearest(first.upstream.host, 2)
        yield case.finding(
            "gwapi-backend-notfound",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=path,
            message=f"{percent(share)} of the requests of a rule fail: {said(b, namespace)} {why}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                f"{first.path} of {first.resource} names {said(b, namespace)}",
                *((f"its ports: {ports}",) if ports else (f"near: {', '.join(near)}",) if near else ()),
            ),
            fix=(
                f"Let {first.path} of {first.resource} name a Service."
                if not first.upstream.host
                else f"Let {first.path} of {first.resource} name a port of {said(b, namespace).partition(':')[0]}, or add port {b.port} to it."
                if known
                else f"Correct {first.path} of {first.resource}, or create {said(b, namespace)}."
            ),
            patch=drop(case, branches),
            commands=(
                f"kubectl -n {namespace} get {first.resource.partition(' ')[0].lower()} {first.resource.rpartition('/')[2]} -o yaml",
            ),
        )
