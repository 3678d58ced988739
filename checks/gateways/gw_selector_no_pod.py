"""gw-selector-no-pod (MESH701)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Gate, bindings, gates
from checks.finding import Finding, check
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Binding
    from checks.case import Case


@check("gw-selector-no-pod", when=bound)
def gw_selector_no_pod(case: Case) -> Iterator[Finding]:
    """A Gateway's selector matches no gateway pod, so nobody listens for its hosts.

    A typo in the selector, another release name of the gateway's chart, or a gateway without pods. With PILOT_SCOPE_GATEWAY_TO_NAMESPACE only
    pods of the Gateway's own namespace count. istiod gives the Gateway to nobody: at the load balancer connections are refused, or another
    gateway that stands there answers 404.

    A gateway that stands at 0 replicas is `workload-scaled-zero`.

    How to see it: `kubectl get pods -A -l SELECTOR` prints nothing.

    How to fix it: make the selector and the labels of the gateway's pods agree, or deploy the gateway.
    """
    for b in bindings(case, "gw-selector-no-pod"):
        found = b.gateway
        if found is None or b.stopped(case.mesh):
            continue
        selector = ",".join(f"{k}={v}" for k, v in (found.spec.selector or {}).items())
        around = [g for g in gates(case.mesh) if g.ups.istiod is b.istiod]
        afar = [g for g in around if g.selected(found.spec.selector)]  # meant by the selector, and in another namespace
        ignored = f" of namespace {found.namespace}, and istiod lets a Gateway mean no others" if afar else ""
        yield case.finding(
            "gw-selector-no-pod",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=found.ref,
            path="metadata.namespace" if afar else "spec.selector",
            message=f"Nobody serves {case.host} at Gateway {b.name}: its selector ({selector}) matches no gateway pod{ignored}.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"{found.ref} selects {selector}",
                *(f"gateway pods in {g.namespace} carry {_labels(g)}" for g in around),
                *(("no gateway runs in this mesh",) if not around else ()),
                *((f"istiod of {b.istiod.cluster} has PILOT_SCOPE_GATEWAY_TO_NAMESPACE=true",) if afar else ()),
            ),
            fix=(
                f"Create the Gateway in namespace {afar[0].namespace}, where the pods run, and bind {b.ruleset.ref} to it there."
                if afar
                else f"Make spec.selector of {found.ref} and the labels of the gateway's pods agree, or deploy the gateway."
            ),
            patch=None if afar else _patch(case, b, around),
            commands=(f"kubectl get pods -A -l '{selector}'",),
        )


def _labels(gate: Gate) -> str:
    shown = {k: v for k, v in gate.ups.proxy.labels.items() if k in {"app", "istio", "gateway.networking.k8s.io/gateway-name"}}
    return ",".join(f"{k}={v}" for k, v in sorted(shown.items())) or "neither label app nor label istio"


def _patch(case: Case, b: Binding, around: list[Gate]) -> str | None:
    """The value that the pods of the only gateway that carries the label have."""
    selector = dict(b.gateway.spec.selector or {}) if b.gateway else {}
    if len(selector) != 1:
        return None
    (key,) = selector
    values = {g.ups.proxy.labels[key] for g in around if key in g.ups.proxy.labels}
    return case.patch(b.istiod.cluster, b.gateway, (("spec", "selector", key), values.pop())) if len(values) == 1 else None
