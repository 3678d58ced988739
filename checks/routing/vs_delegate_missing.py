"""vs-delegate-missing (MESH213)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Gone, delegates, gone, virtual_service
from checks.finding import Finding, check
from checks.when import lossy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("vs-delegate-missing", when=lossy)
def vs_delegate_missing(case: Case) -> Iterator[Finding]:
    """A VirtualService hands a rule to a delegate that istiod cannot use: it is absent, has hosts of its own, or is not exported to the root.

    istiod drops the root's rule with nothing but a warning in its log. What it would have matched falls to a later rule, or matches none: 404
    (flag NR). A sidecar that has no rule left uses the service's default route.

    How to see it: istiod's log says "delegate virtual service ... not found"; `istioctl proxy-config routes <pod>` lacks the rule.

    How to fix it: create the delegate (without hosts), correct its name and namespace, or export it to the root's namespace.
    """
    for g in gone(case, conflict=False):
        yield case.finding(
            "vs-delegate-missing",
            cluster=case.mesh.cluster(g.istiod.cluster).name,
            resource=g.ruleset.ref,
            path=f"{g.lost.path}.delegate",
            message=_message(g),
            share=g.share,
            viewpoints=g.viewpoints,
            evidence=_evidence(g),
            fix=_fix(g),
            patch=_patch(case, g),
            commands=(f"kubectl get virtualservice -n {g.delegate_namespace} -o yaml", "istioctl proxy-config routes <pod> -o json"),
        )


def _message(g: Gone) -> str:
    why = {"absent": "does not exist", "has hosts": "has hosts of its own, so it is no delegate"}.get(
        g.lost.reason, f"is not exported to namespace {g.ruleset.namespace}"
    )
    return f"{g.lost.path} of {g.ruleset.ref} is dropped, since its delegate {g.lost.delegate} {why}: {g.outcome}."


def _evidence(g: Gone) -> tuple[str, ...]:
    leaf = virtual_service(g.istiod, g.lost.delegate)
    said = f"{g.lost.path}.delegate of {g.ruleset.ref} names {g.lost.delegate}"
    if leaf is None:
        same = sorted(v.ref for v in delegates(g.istiod) if v.name == g.lost.delegate.rpartition("/")[2])
        return said, f"VirtualServices without hosts of that name: {', '.join(same) or 'none'}"
    if leaf.spec.hosts:
        return said, f"{leaf.ref} has hosts {', '.join(leaf.spec.hosts)}"
    return said, f"{leaf.ref} is exported to {', '.join(leaf.spec.export_to or ('the default of the mesh',))}"


def _fix(g: Gone) -> str:
    if g.lost.reason == "absent":
        return f"Create {g.lost.delegate} without hosts, or correct {g.lost.path}.delegate of {g.ruleset.ref}."
    if g.lost.reason == "has hosts":
        return f"Remove spec.hosts from {g.lost.delegate}, or lead the rule to its hosts with a route."
    return f"Export {g.lost.delegate} to namespace {g.ruleset.namespace}."


def _patch(case: Case, g: Gone) -> str | None:
    """The delegate exported to the root, where it is only hidden."""
    leaf = virtual_service(g.istiod, g.lost.delegate)
    if leaf is None or g.lost.reason != "not exported" or not leaf.spec.export_to or "~" in leaf.spec.export_to:
        return None
    return case.patch(g.istiod.cluster, leaf, (("spec", "exportTo", len(leaf.spec.export_to)), g.ruleset.namespace))
