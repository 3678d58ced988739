"""fault-injected-FI (MESH948)."""  # noqa: N999 - named like its cause

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.case import short
from checks.finding import Finding, check
from checks.patches import AWAY
from checks.resources import VirtualService
from checks.routes import failing
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case, View
    from checks.sidecar import Step


class _Injected(NamedTuple):
    """A rule that answers with an error by itself: which part of its requests, and with what."""

    view: View
    step: Step
    part: float
    status: int

    @property
    def share(self) -> float:
        """The part that fails, together with what routing loses of the rest."""
        return 1 - (1 - self.part) * (1 - self.lost)

    @property
    def lost(self) -> float:
        """The part that routing alone loses."""
        return failing(self.step) if self.step.action == "route" else 0.0


def _answers(case: Case) -> bool:
    """Some rule answers by itself."""
    return any(s.abort is not None or s.action.startswith("direct_response ") for s in case.steps)


@check("fault-injected-FI", when=_answers)
def fault_injected_FI(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """A rule of a VirtualService makes calls fail on purpose: a fault.abort, or a directResponse with an error, was left on.

    The caller's own proxy answers the given part of the requests, and no server ever sees them. What routing loses comes on top: of an abort of
    half the requests beside a subset that lacks a fifth of them, 60 % fail.

    How to see it: the caller's access log says FI fault_filter_abort, or direct_response; `istioctl x describe pod` prints "Fault injection".

    How to fix it: remove the fault, or the directResponse, when the experiment or the maintenance is over.
    """
    groups: dict[tuple[str, str, str], list[_Injected]] = {}
    for v in case.views:
        for step in v.steps:
            if case.asked(step.port) and (found := _injected(v, step)) is not None:
                groups.setdefault((v.ups.istiod.cluster, *_place(case, v, step)), []).append(found)
    for (istiod, resource, path), group in groups.items():
        yield _finding(case, case.mesh.cluster(istiod).name, resource, path, group)


def _injected(view: View, step: Step) -> _Injected | None:
    if not (step.leaf or step.source or "").startswith("VirtualService "):
        return None
    if step.action.startswith("direct_response ") and int(step.action.split()[1]) >= 500:
        return _Injected(view, step, 1.0, int(step.action.split()[1]))
    if step.action == "route" and step.abort is not None and step.abort[1] > 0 and step.abort[0] >= 400:
        return _Injected(view, step, min(1.0, step.abort[1]), step.abort[0])
    return None


def _place(case: Case, view: View, step: Step) -> tuple[str, str]:
    """The object and the field that say so: the delegate's own fault, else the root's, which its delegates get."""
    if step.action != "route":
        return step.leaf or step.source or "", f"{step.path}.directResponse"
    namespace, _, name = (step.leaf or "").partition(" ")[2].partition("/")
    leaf = case.mesh.cluster(view.ups.istiod.cluster).get(VirtualService, namespace, name) if step.leaf else None
    index = step.path.removeprefix("spec.http[").partition("]")[0]
    if (
        leaf is not None
        and index.isdigit()
        and (http := leaf.spec.http or ())
        and int(index) < len(http)
        and http[int(index)].fault is None
    ):
        return step.source or "", "spec.http"
    return step.leaf or step.source or "", f"{step.path}.fault.abort"


def _finding(case: Case, cluster: str, resource: str, path: str, group: list[_Injected]) -> Finding:
    worst = max(group, key=lambda i: i.share)
    share = round(worst.share, 6)
    namespace, _, name = resource.partition(" ")[2].partition("/")
    lost = worst.lost
    how = f"{percent(worst.part)} of the requests of a rule get {worst.status} from the caller's own proxy"
    fault = path.endswith(".fault.abort")
    rest = f"; with what routing loses of the rest {percent(share)} fail" if lost else ""
    vs = case.mesh.cluster(cluster).get(VirtualService, namespace, name)
    index = path.removeprefix("spec.http[").partition("]")[0]
    patch = case.patch(cluster, vs, (("spec", "http", int(index), "fault", "abort"), AWAY)) if fault and index.isdigit() else None
    return case.finding(
        "fault-injected-FI",
        cluster=cluster,
        resource=resource,
        path=path,
        message=f"{how}{rest}: {path} of {resource} makes calls to {short(case.host)} fail on purpose.",
        share=share,
        viewpoints=dict.fromkeys(v for i in group for v in i.view.callers.viewpoints),
        evidence=(
            f"{resource} {path}: status {worst.status}" + (f", {percent(worst.part)}" if fault else ""),
            *((f"destinations of the same rule without an endpoint take {percent(lost)}",) if lost else ()),
        ),
        fix=f"Remove {path} from {resource} when the experiment or the maintenance is over.",
        patch=patch,
        commands=(f"kubectl -n {namespace} get virtualservice {name} -o yaml", "istioctl proxy-config routes <pod> -o json"),
    )
