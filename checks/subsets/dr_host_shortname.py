"""dr-host-shortname (MESH110)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.finding import Finding, HostCue, check, explained, explains
from checks.resources import DestinationRule, VirtualService
from checks.subsets import by_rule, literal, literals, lost, shown, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from checks.case import Branch, Case
    from checks.istiod import Istiod


@explains("dr-host-shortname", before=("subset-undefined",))
def _explains(case: Case, branch: Branch) -> bool:
    found = lost(case, branch)
    return found is not None and found.cause == "dr-host-shortname"


@HostCue
def _literal(istiod: Istiod) -> Iterable[str]:
    """Some DestinationRule was meant for the host and is taken literally."""
    return literals(istiod)


@check("dr-host-shortname", when=(explained, _literal))
def dr_host_shortname(case: Case) -> Iterator[Finding]:
    """A DestinationRule's host is a short or partial name that means another host than its author thought.

    A host without any dot is completed with the namespace of the *DestinationRule*; `NAME.NAMESPACE` has a dot and is taken literally. Either way
    no service has that host, and the rule applies to nothing: a subset that it defines does not exist (503, flag NC), and its TLS
    settings and outlier detection are silently missing.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` names no DestinationRule.

    How to fix it: write the host in full, `NAME.NAMESPACE.svc.cluster.local`.
    """
    told: set[str] = set()
    for found, branches in by_rule(case, "dr-host-shortname"):
        rule, host = found.rule, branches[0].upstream.host
        how = "takes literally, since it has a dot" if "." in rule.spec.host else f"completes to {rule.spec.host}.{rule.namespace}"
        yield unseen(
            case,
            "dr-host-shortname",
            found,
            branches,
            resource=rule,
            path="spec.host",
            why=f"whose host {rule.spec.host} istiod {how}",
            fix=f"Write the host of {rule.ref} in full: {host}{_elsewhere(branches, rule)}.",
            patch=_in_full(case, branches, rule, host),
        )
        told.add(rule.ref)
    for istiod in case.mesh.control_planes:
        for rule in literal(istiod, case.host):
            if rule.ref not in told:
                told.add(rule.ref)
                yield case.finding(
                    "dr-host-shortname",
                    cluster=case.mesh.cluster(istiod.cluster).name,
                    resource=rule.ref,
                    path="spec.host",
                    message=(
                        f"{rule.ref} applies to nothing: istiod takes its host {rule.spec.host} literally, since it has a dot, "
                        f"and the service is called {case.host}."
                    ),
                    share=0.0,
                    viewpoints=case.viewpoints(case.branches),
                    evidence=(f"{rule.ref} has host {rule.spec.host}", f"{case.host} is a service of the mesh, {rule.spec.host} is none"),
                    fix=f"Write the host of {rule.ref} in full: {case.host}.",
                    patch=_in_full(case, case.branches, rule, case.host),
                    commands=(f"istioctl proxy-config cluster <pod> --fqdn {case.host}",),
                )
    shown(case, VirtualService, DestinationRule)


def _in_full(case: Case, branches: Sequence[Branch], rule: DestinationRule, host: str) -> str | None:
    return case.patch(case.cluster_of(branches[0]), rule, (("spec", "host"), host)) if branches else None


def _elsewhere(branches: Sequence[Branch], rule: DestinationRule) -> str:
    """What else is needed where istiod would not look for the rule on behalf of some of these callers."""
    first = branches[0]
    service, root = first.upstream.service, first.view.ups.istiod.config.root_namespace
    owner = service.namespace if service else ""
    spaces = {v.namespace for b in branches for v in b.view.callers.viewpoints}
    if rule.namespace in {owner, root} or spaces == {rule.namespace}:
        return ""
    return f", and move it to namespace {owner}, since istiod uses it for callers in {rule.namespace} only"
