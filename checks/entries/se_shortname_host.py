"""se-shortname-host (MESH416)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.entries import describe, holder, together
from checks.finding import Finding, check, explained, explains
from checks.resources import ServiceEntry
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod


def _short(istiod: Istiod, host: str) -> list[ServiceEntry]:
    """The ServiceEntries whose host is the one label that a completed name begins with."""
    label, _, rest = host.partition(".")
    if not rest.endswith(f".svc.{names.DOMAIN}"):
        return []
    found = istiod.once(
        "one label",
        lambda: [e for e in istiod.all(ServiceEntry) if isinstance(e, ServiceEntry) and any("." not in h for h in e.spec.hosts or ())],
    )
    return [e for e in found if label in (e.spec.hosts or ())]


@explains("se-shortname-host", before=("vs-dest-host-unknown", "vs-dest-host-partial"))
def _explains(_: Case, branch: Branch) -> bool:
    u = branch.upstream
    istiod = branch.view.ups.istiod
    return u.service is None and bool(u.host) and not istiod.by_host.get(u.host) and bool(_short(istiod, u.host))


@check("se-shortname-host", when=explained)
def se_shortname_host(case: Case) -> Iterator[Finding]:
    """A rule leads to a ServiceEntry's host by a name without dots, and the two do not mean the same.

    istiod takes the hosts of a ServiceEntry literally: `db` is `db`. The same word in a VirtualService or DestinationRule is a short name
    and is completed to `db.NAMESPACE.svc.cluster.local`, which nobody defines: 503 (flag NC, body empty).

    How to see it: `istioctl proxy-config cluster <pod>` lists `outbound|PORT||db`, and the route names `outbound|PORT||db.NAMESPACE.svc...`.

    How to fix it: give the ServiceEntry a host with dots, and use it in the rules.
    """
    for branches in together(case, "se-shortname-host"):
        first = branches[0]
        istiod, host, share = first.view.ups.istiod, first.upstream.host, case.share(branches)
        entry = _short(istiod, host)[0]
        word = host.partition(".")[0]
        yield case.finding(
            "se-shortname-host",
            cluster=holder(case, istiod).name,
            resource=entry.ref,
            path="spec.hosts",
            message=(
                f"{percent(share)} of the requests of a rule fail: {first.resource} says {word}, which means {host}; "
                f"{entry.ref} defines {word} and nothing else."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(
                describe(entry),
                f"{first.resource} leads to {host} ({first.path})",
                f"no Service and no ServiceEntry defines {host}",
            ),
            fix=f"Give {entry.ref} a host with dots, such as {word}.{entry.namespace}.internal, and name that in {first.resource}.",
            commands=(
                f"istioctl proxy-config cluster <pod> --fqdn {host}",
                f"kubectl -n {entry.namespace} get serviceentry {entry.name} -o yaml",
            ),
        )
