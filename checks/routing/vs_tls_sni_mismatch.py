"""vs-tls-sni-mismatch (MESH220)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from checks.evidence import Access
from checks.finding import Finding, check
from checks.measured import finding, measure
from checks.names import matches
from checks.routing import virtual_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.evidence import Flow


@check("vs-tls-sni-mismatch")
def vs_tls_sni_mismatch(case: Case) -> Iterator[Finding]:
    """The SNI that a client sends is none of those that the VirtualService's tls rules take: the connection is closed (flag NR).

    A tls rule is chosen by the name in the client's TLS greeting alone (sniHosts). A client that greets with another name than the one it was
    meant to, or with none, meets no filter chain of the address that it calls, and its proxy closes the connection without an answer.

    How to see it: the access log of the caller's istio-proxy says NR filter_chain_not_found, with the SNI that came.

    How to fix it: add the name to sniHosts, or let the client greet with one that is there.
    """
    rules = _rules(case)
    names = {n for _, _, sni in rules for n in sni}
    if not rules or any(b.step.protocol == "tls" and not (b.step.source or "").startswith("VirtualService ") for b in case.branches):
        return
    measured = measure(case, partial(_nowhere, names))
    if measured is None:
        return
    branch, path, _ = rules[0]
    sent = ", ".join(dict.fromkeys(a.server_name or "no name at all" for a in measured.accesses))
    yield finding(
        case,
        "vs-tls-sni-mismatch",
        measured,
        what=f"are closed: they greet with {sent}, and {branch.resource} takes {', '.join(sorted(names))}",
        fix=f"Add {sent} to sniHosts of {branch.resource}, or let the client greet with {' or '.join(sorted(names))}."
        if all(a.server_name for a in measured.accesses)
        else f"Let the client greet with {' or '.join(sorted(names))}: a tls rule is chosen by SNI.",
        at=(case.cluster_of(branch), branch.resource, path),
        evidence=[f"{b.resource} {p}: {', '.join(sni)}" for b, p, sni in rules[:3]],
    )


def _nowhere(names: set[str], call: Access | Flow) -> bool:
    """Whether a connection met no filter chain, and greeted with none of the names that rules take."""
    if not isinstance(call, Access) or "NR" not in call.flags or call.details != "filter_chain_not_found":
        return False
    return not any(matches(n, call.server_name) for n in names)


def _rules(case: Case) -> list[tuple[Branch, str, tuple[str, ...]]]:
    """The tls rules of VirtualServices that sidecars hold for the host: a destination, the field of its names, and these."""
    out: dict[str, tuple[Branch, str, tuple[str, ...]]] = {}
    for b in case.branches:
        if b.view.ups.proxy.kind != "sidecar" or not b.step.path.startswith("spec.tls["):
            continue
        vs = virtual_service(b.view.ups.istiod, b.resource)
        i = int(b.step.path.removeprefix("spec.tls[").partition("]")[0])
        rules = vs.spec.tls or () if vs is not None else ()
        for k, m in enumerate((rules[i].match or ()) if i < len(rules) else ()):
            out[f"{b.resource} {i} {k}"] = (b, f"spec.tls[{i}].match[{k}].sniHosts", m.sni_hosts or ())
    return list(out.values())
