"""subset-undefined (MESH106)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, short
from checks.finding import Finding, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import percent, reweigh, shown, undefined

if TYPE_CHECKING:
    from collections.abc import Iterator


@explains("subset-undefined")
def _explains(_: Case, branch: Branch) -> bool:
    return undefined(branch)


@check("subset-undefined", when=explained)
def subset_undefined(case: Case) -> Iterator[Finding]:
    """A rule names a subset that the caller's DestinationRule does not define, or the host has no DestinationRule at all.

    istiod generates no cluster for it. Envoy finds the route, does not find the cluster, and answers with 503 (flag NC, body empty) the
    whole share of that destination.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lists no such subset.

    How to fix it: define the subset in the DestinationRule that these callers get, or leave `subset` out.
    """
    for branches in case.caused("subset-undefined"):
        first = branches[0]
        u = first.upstream
        host, share = short(u.host), case.share(branches)
        yield case.finding(
            "subset-undefined",
            cluster=case.cluster_of(first),
            resource=first.resource,
            path=f"{first.path}.destination.subset" if first.path else "",
            message=f"{percent(share)} of the requests of a rule go to subset {u.subset} of {host}, which {_by(first)}.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=tuple(_seen(first)),
            fix=f"Add subset {u.subset} to the DestinationRule of {host}, or remove `subset: {u.subset}` from the rule.",
            patch=reweigh(case, branches),
            commands=(
                f"istioctl proxy-config cluster <pod> --fqdn {u.host}",
                f"kubectl get destinationrule -A -o wide | grep {host.split('.')[0]}",
            ),
        )
    shown(case, VirtualService, DestinationRule)


def _by(branch: Branch) -> str:
    rule = branch.upstream.rule
    return f"{rule.ref} does not define" if rule else "no DestinationRule defines"


def _seen(branch: Branch) -> Iterator[str]:
    rule = branch.upstream.rule
    if rule is None:
        yield f"these callers get no DestinationRule for {branch.upstream.host}"
        return
    for origin in rule.origins:
        known = ", ".join(s.name for s in origin.spec.subsets or ()) or "no subset"
        yield f"{origin.ref} (host {origin.spec.host}) defines {known}"
