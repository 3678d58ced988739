"""se-wildcard-resolution (MESH417)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.entries import behind, describe, holder
from checks.finding import Finding, check, explained, explains
from checks.subsets import percent
from checks.when import wildcards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case


def _dynamic(branch: Branch) -> bool:
    """Whether a destination asks of a dynamic cluster what it cannot have: a subset, or a protocol without a name."""
    u = branch.upstream
    port = u.service.port(u.port) if u.service else None
    return (
        u.service is not None and port is not None and u.service.resolution == "dynamic_dns" and names.is_wildcard(u.host) and not u.defined
    )


def _nameless(case: Case, branch: Branch) -> bool:
    """Whether a destination is to be looked up in the DNS by a name with a star."""
    u = branch.upstream
    if u.service is None or not u.service.dns or not names.is_wildcard(u.host):
        return False
    return not any(e.spec.endpoints or e.spec.workload_selector for e in behind(case, branch))


@explains("se-wildcard-resolution", before=("subset-undefined",))
def _explains(_: Case, branch: Branch) -> bool:
    return _dynamic(branch)


@check("se-wildcard-resolution", when=(explained, wildcards))
def se_wildcard_resolution(case: Case) -> Iterator[Finding]:
    """A ServiceEntry with a wildcard host has a resolution that cannot serve it.

    DNS needs a name to look up, and `*.example.com` is none: without endpoints of its own such an entry leads nowhere. DYNAMIC_DNS looks
    the name of each request up, so its cluster has no subsets and no raw TCP: a rule that names a subset leads to a cluster that is never
    pushed (flag NC).

    How to see it: `istioctl proxy-config cluster <pod> --fqdn '*.example.com' -o json` shows the cluster's type, and no subset.

    How to fix it: resolution DYNAMIC_DNS or NONE for a wildcard, without a subset in the rules.
    """
    for branches in case.caused("se-wildcard-resolution"):
        first = branches[0]
        ask = f"subset {first.upstream.subset}" if first.upstream.subset else f"port {first.upstream.port}, which is neither HTTP nor TLS"
        yield _finding(
            case,
            branches,
            f"go to {ask} of {first.upstream.host}, and a DYNAMIC_DNS host has no such cluster",
            "Leave `subset` out of the rule." if first.upstream.subset else "Say protocol HTTP or TLS for the port.",
        )
    nameless = [b for b in case.branches if b.share > 0 and b.upstream.usable and _nameless(case, b)]
    groups: dict[tuple[str, str], list[Branch]] = {}
    for b in nameless:
        groups.setdefault((behind(case, b)[0].ref if behind(case, b) else "", b.upstream.host), []).append(b)
    for (ref, host), branches in groups.items():
        if ref:
            yield _finding(
                case,
                branches,
                f"are to go to the address of {host}, which no DNS server knows",
                "Say resolution DYNAMIC_DNS (or NONE), or name endpoints.",
            )


def _finding(case: Case, branches: list[Branch], what: str, fix: str) -> Finding:
    first = branches[0]
    share = case.share(branches)
    entry = behind(case, first)[0]
    return case.finding(
        "se-wildcard-resolution",
        cluster=holder(case, first.view.ups.istiod).name,
        resource=entry.ref,
        path="spec.resolution",
        message=f"{percent(share)} of the requests {what} ({entry.ref}, resolution {entry.spec.resolution}).",
        share=share,
        viewpoints=case.viewpoints(branches),
        evidence=(describe(entry), f"{first.resource or entry.ref} leads there{f' ({first.path})' if first.path else ''}"),
        fix=fix,
        commands=(f"istioctl proxy-config cluster <pod> --fqdn '{first.upstream.host}' -o json",),
    )
