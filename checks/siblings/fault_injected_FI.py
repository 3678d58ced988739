"""fault-injected-FI (MESH948)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.finding import Finding, MeshCue, check
from checks.legs import rule_of
from checks.patches import AWAY
from checks.resources import VirtualService
from checks.routes import failing
from checks.routing import virtual_service
from checks.rulesets import GRPC
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.istiod import Istiod
    from checks.mesh import Mesh
    from checks.resources import HTTPRoute
    from checks.sidecar import Step


class _Injected(NamedTuple):
    """A rule that answers with an error by itself, or lets requests wait: which part of them, and with which answer, or for how long."""

    view: View
    step: Step
    part: float
    answer: str
    delay: str = ""

    @property
    def share(self) -> float:
        """The part that fails, together with what routing loses of the rest; of requests that wait none."""
        return 0.0 if self.delay else 1 - (1 - self.part) * (1 - self.lost)

    @property
    def lost(self) -> float:
        """The part that routing alone loses."""
        return failing(self.step) if self.step.action == "route" else 0.0


def _answers(case: Case) -> bool:
    """Some rule answers by itself."""
    return any([s.abort is not None or s.action.startswith("direct_response ") for s in case.steps])


@MeshCue
def _delays(mesh: Mesh) -> bool:
    """Some rule makes calls wait."""
    return any(i.once("delays", lambda i=i: any(rule.delay for r in i.rulesets for rule in r.http)) for i in mesh.every_plane())  # type: ignore[misc]


@check("fault-injected-FI", when=(_answers, _delays))
def fault_injected_FI(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """A rule of a VirtualService makes calls fail or wait on purpose: a fault.abort or fault.delay, or a directResponse with an error, was left on.

    The caller's own proxy answers the given part of the requests, and no server ever sees them. With a grpcStatus the HTTP status is 200: callers
    that speak gRPC get that status, all others 200 with the body "fault filter abort". What routing loses comes on top: of an abort of
    half the requests beside a subset that lacks a fifth of them, 60 % fail. A fault.delay lets none fail: it keeps them waiting in the caller's proxy.

    How to see it: the caller's access log says FI fault_filter_abort, DI, or direct_response; `istioctl x describe pod` prints "Fault injection".

    How to fix it: remove the fault, or the directResponse, when the experiment or the maintenance is over.
    """
    groups: dict[tuple[str, str, str], list[_Injected]] = {}
    for v in case.views:
        for step in v.steps:
            if case.asked(step.port) and (found := _injected(v, step)) is not None:
                groups.setdefault((v.ups.istiod.cluster, *_place(found)), []).append(found)
    for (istiod, resource, path), group in groups.items():
        yield _finding(case, case.mesh.cluster(istiod).name, resource, path, group)


def _injected(view: View, step: Step) -> _Injected | None:
    if not (step.leaf or step.source or "").startswith("VirtualService "):
        return None
    if step.action.startswith("direct_response ") and int(step.action.split()[1]) >= 500:
        return _Injected(view, step, 1.0, step.action.split()[1])
    abort = step.abort if step.action == "route" else None
    if abort is not None and abort.share > 0 and abort.fails:
        grpc = f"grpc-status {abort.grpc} ({GRPC[abort.grpc]}) with HTTP "
        return _Injected(view, step, min(1.0, abort.share), f"{grpc if abort.grpc else ''}{abort.status}")
    rule = rule_of(view.ups.istiod, step) if step.action == "route" else None
    return _Injected(view, step, rule.delay[1], "", rule.delay[0]) if rule is not None and rule.delay is not None else None


def _place(injected: _Injected) -> tuple[str, str]:
    """The object and the field that say so: the delegate's own fault, else the root's, which its delegates get."""
    step, istiod = injected.step, injected.view.ups.istiod
    source, leaf = step.source or "", step.leaf or step.source or ""
    if step.action != "route":
        return leaf, f"{step.path}.directResponse"
    what = "fault.delay" if injected.delay else "fault.abort"
    own = _entries(istiod, leaf)
    index = step.path.removeprefix("spec.http[").partition("]")[0]
    if leaf == source or (index.isdigit() and int(index) < len(own) and own[int(index)].fault is not None):
        return leaf, f"{step.path}.{what}"
    namespace, _, name = leaf.partition(" ")[2].partition("/")
    for i, http in enumerate(_entries(istiod, source)):
        to = http.delegate
        if (
            to is not None
            and http.fault is not None
            and (to.namespace or source.partition(" ")[2].partition("/")[0], to.name) == (namespace, name)
        ):
            return source, f"spec.http[{i}].{what}"
    return source, "spec.http"


def _entries(istiod: Istiod, ref: str) -> tuple[HTTPRoute, ...]:
    vs = virtual_service(istiod, ref)
    return vs.spec.http or () if vs is not None else ()


def _finding(case: Case, cluster: str, resource: str, path: str, group: list[_Injected]) -> Finding:
    worst = max(group, key=lambda i: i.share)
    share = round(worst.share, 6)
    namespace, _, name = resource.partition(" ")[2].partition("/")
    lost = worst.lost
    does = f"wait {worst.delay} in" if worst.delay else f"get {worst.answer} from"
    fault = ".fault." in path
    rest = f"; with what routing loses of the rest {percent(share)} fail" if lost else ""
    vs = case.mesh.cluster(cluster).get(VirtualService, namespace, name)
    index = path.removeprefix("spec.http[").partition("]")[0]
    patch = case.patch(cluster, vs, (("spec", "http", int(index), "fault"), AWAY)) if fault and index.isdigit() else None
    return case.finding(
        "fault-injected-FI",
        cluster=cluster,
        resource=resource,
        path=path,
        message=(
            f"{percent(worst.part)} of the requests of a rule {does} the caller's own proxy{rest}: "
            f"{path} of {resource} makes calls to {short(case.host)} {'slow' if worst.delay else 'fail'} on purpose."
        ),
        share=share,
        viewpoints=dict.fromkeys(v for i in group for v in i.view.callers.viewpoints),
        evidence=(
            f"{resource} {path}: {worst.delay or f'answered with {worst.answer}'}" + (f", {percent(worst.part)}" if fault else ""),
            *((f"destinations of the same rule without an endpoint take {percent(lost)}",) if lost else ()),
        ),
        fix=f"Remove {path} from {resource} when the experiment or the maintenance is over.",
        patch=patch,
        commands=(f"kubectl -n {namespace} get virtualservice {name} -o yaml", "istioctl proxy-config routes <pod> -o json"),
    )
