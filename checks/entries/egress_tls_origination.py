"""egress-tls-origination (MESH418)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import said_at, short
from checks.entries import tls
from checks.finding import Finding, check
from checks.seen import called, log_command, lost, says, sources
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case
    from checks.evidence import Access
    from checks.seen import Called, Calls

PLAIN = "callers send plain HTTP to a port that speaks TLS"
TLS = "the caller's Envoy speaks TLS to a port that speaks plain text"
SNI = "the server refuses the TLS handshake, which names no host (SNI)"


@check("egress-tls-origination")
def egress_tls_origination(case: Case) -> Iterator[Finding]:
    """A call leaves the mesh in plain text where the other side wants TLS, or in TLS where it wants none.

    A ServiceEntry's port that says HTTP is sent as it is: for a server at 443 a DestinationRule must originate TLS (`tls.mode: SIMPLE`, with an
    SNI). The same rule on a port that speaks plain text has the server answer a handshake with something that is none: 503 (flag UF, TLS_error
    WRONG_VERSION_NUMBER). Plain HTTP to a TLS port comes back as 400, or as what is no HTTP at all (flag UPE).

    How to see it: the caller's access log; `istioctl proxy-config cluster <pod> --fqdn HOST -o json` shows whether there is a TLS context.

    How to fix it: originate TLS on the port that leads to 443 (with targetPort 443), and on no other.
    """
    groups: dict[tuple[str, str, str, str], list[Calls]] = {}
    for c in called(case):
        service = c.branch.upstream.service
        if service is None or service.kubernetes or not service.external:
            continue
        said = said_at(c.branch, "tls")
        for what, calls in _wrong(c):
            at = (said[0].ref, said[1]) if said is not None else (service.sources[0][1], "spec.ports")
            groups.setdefault((case.cluster_of(c.branch), *at, what), []).append(calls)
    for (cluster, resource, path, what), group in groups.items():
        first = group[0]
        u = first.branch.upstream
        part = lost(group)
        fix = {
            PLAIN: f"Originate TLS for port {u.port} of {short(u.host)}: a DestinationRule with tls.mode SIMPLE and sni.",
            TLS: f"Take tls off {resource} for port {u.port}, or lead that port to the one that speaks TLS (targetPort 443).",
            SNI: f"Set tls.sni of {resource} to the name that the server expects.",
        }[what]
        yield case.finding(
            "egress-tls-origination",
            cluster=cluster,
            resource=resource,
            path=path,
            message=f"{percent(part)} of the requests of a rule to port {u.port} of {short(u.host)} fail: {what}.",
            share=part,
            viewpoints=case.viewpoints(c.branch for c in group),
            evidence=(
                *sources(group),
                f"{resource} {path}: {f'tls.mode {tls(first.branch)}' if tls(first.branch) else f'no TLS for port {u.port}'}",
            ),
            fix=fix,
            commands=(
                log_command(first),
                f"istioctl proxy-config cluster {first.log.pod} -n {first.log.namespace} --fqdn {u.host} -o json",
            ),
        )


def _wrong(c: Called) -> Iterator[tuple[str, Calls]]:
    """What is wrong with the TLS of a destination's calls, and the calls that say so."""
    u = c.branch.upstream
    port = u.service.port(u.port) if u.service is not None else None
    policy = u.rule.policy_for(u.port, u.subset) if u.rule is not None else None
    if tls(c.branch) in {"SIMPLE", "MUTUAL"}:
        ways = {TLS: _plain_server} if policy is None or policy.tls is None or policy.tls.sni else {TLS: _plain_server, SNI: _no_name}
        for what, fails in ways.items():
            if (calls := c.failing(fails)) is not None:
                yield what, calls
    elif tls(c.branch) in {"", "DISABLE"} and port is not None and port.http:
        calls = c.failing(_tls_server)
        if calls is not None and calls.part >= 1 and sum(a.count for a in calls.accesses) > 1:
            yield PLAIN, calls


def _plain_server(access: Access) -> bool:
    return "UF" in access.flags and says(access, "wrong version number")


def _no_name(access: Access) -> bool:
    return "UF" in access.flags and says(access, "handshake failure", "unrecognized name")


def _tls_server(access: Access) -> bool:
    """Plain HTTP at 443: a 400 of the server itself, or its TLS alert, which no HTTP codec understands."""
    refusing = access.code == 400 and not access.flags and access.upstream.endswith(":443")
    return refusing or ("UPE" in access.flags and says(access, "protocol error"))
