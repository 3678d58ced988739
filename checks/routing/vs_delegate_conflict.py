"""vs-delegate-conflict (MESH214)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import Gone, gone, virtual_service
from checks.finding import Finding, check
from checks.rulesets import describe
from checks.when import lossy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("vs-delegate-conflict", when=lossy)
def vs_delegate_conflict(case: Case) -> Iterator[Finding]:
    """A delegate's match is not part of the root's match, so istiod drops the delegate's rule.

    Root and delegate are combined match by match: a rule of the delegate must ask for a part of what the root gives it (a longer prefix of
    the same path, further headers). A rule that asks for something else can never match and is dropped, with a line in istiod's log only.

    How to see it: `istioctl proxy-config routes <pod>` lacks the delegate's rule.

    How to fix it: write the delegate's match as a part of the root's.
    """
    for g in gone(case, conflict=True):
        yield case.finding(
            "vs-delegate-conflict",
            cluster=case.mesh.cluster(g.istiod.cluster).name,
            resource=g.lost.delegate,
            path=f"{g.lost.leaf_path}.match",
            message=_message(g),
            share=g.share,
            viewpoints=g.viewpoints,
            evidence=_evidence(g),
            fix=_fix(g),
            commands=(f"kubectl get virtualservice -n {g.delegate_namespace} -o yaml", "istioctl proxy-config routes <pod> -o json"),
        )


def _message(g: Gone) -> str:
    return (
        f"{g.lost.leaf_path} of {g.lost.delegate} is dropped, since its match is no part of {g.lost.path} of {g.ruleset.ref}: {g.outcome}."
    )


def _evidence(g: Gone) -> tuple[str, ...]:
    asked = " or ".join(describe(m) for m in g.lost.matches)
    leaf = virtual_service(g.istiod, g.lost.delegate)
    index = int(g.lost.leaf_path.removeprefix("spec.http[").removesuffix("]"))
    theirs = " or ".join(describe(m) for m in (leaf.spec.http or ())[index].match or ()) if leaf else "unknown"
    return f"{g.lost.path} of {g.ruleset.ref} gives it {asked}", f"{g.lost.leaf_path} of {g.lost.delegate} asks for {theirs}"


def _fix(g: Gone) -> str:
    return f"Make the match of {g.lost.leaf_path} in {g.lost.delegate} a part of what {g.lost.path} of {g.ruleset.ref} gives it."
