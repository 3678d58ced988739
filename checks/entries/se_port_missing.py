"""se-port-missing (MESH413)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.entries import describe, holder
from checks.finding import Finding, check, explained, explains
from checks.routing import no_port, written
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.resources import ServiceEntry


@explains("se-port-missing", before=("vs-dest-port-unknown",))
def _explains(_: Case, branch: Branch) -> bool:
    service = branch.upstream.service
    if service is None or service.kubernetes or not no_port(branch):
        return False
    said = written(branch)
    return said is not None and said.port is not None


@check("se-port-missing", when=explained)
def se_port_missing(case: Case) -> Iterator[Finding]:
    """A rule leads to a port that the ServiceEntry of its destination does not list.

    A ServiceEntry is the whole truth about its host: a port that it does not list has no cluster. Envoy answers with 503 (flag NC, body
    empty), although the server behind the host may well listen there.

    How to see it: `istioctl proxy-config cluster <pod> --fqdn HOST` lists the ports that exist; the rule's is not among them.

    How to fix it: add the port to the ServiceEntry, or correct the rule.
    """
    for branches in case.caused("se-port-missing"):
        first = branches[0]
        u = first.upstream
        istiod, share = first.view.ups.istiod, case.share(branches)
        found = [e for e in case.entries(istiod, u.host) if u.service and e.namespace == u.service.namespace]
        yield case.finding(
            "se-port-missing",
            cluster=holder(case, istiod).name,
            resource=found[0].ref,
            path="spec.ports",
            message=f"{percent(share)} of the requests go to port {u.port} of {u.host}, which {found[0].ref} does not list.",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*map(describe, found), f"{first.resource} leads there ({first.path})"),
            fix=f"Add port {u.port} to {found[0].ref}, or correct the port in {first.resource}.",
            patch=_with_port(case, found[0], branches),
            commands=(
                f"istioctl proxy-config cluster <pod> --fqdn {u.host}",
                f"kubectl -n {found[0].namespace} get serviceentry {found[0].name} -o yaml",
            ),
        )


def _with_port(case: Case, entry: ServiceEntry, branches: list[Branch]) -> str | None:
    """The port added, with the protocol of the rule that leads there."""
    first = branches[0]
    protocol, number = first.step.protocol, first.upstream.port
    port = {"number": number, "name": f"{protocol}-{number}", "protocol": protocol.upper()}
    return case.patch(first.view.ups.istiod.cluster, entry, (("spec", "ports", len(entry.spec.ports or ())), port))
