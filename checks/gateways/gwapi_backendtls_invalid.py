"""gwapi-backendtls-invalid (MESH728)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks import names
from checks.case import short
from checks.finding import Finding, check
from checks.resources import BackendTLSPolicy, ConfigMap, ServiceEntry
from checks.subsets import percent
from checks.when import holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod


@check("gwapi-backendtls-invalid", when=holds(BackendTLSPolicy))
def gwapi_backendtls_invalid(case: Case) -> Iterator[Finding]:
    """A BackendTLSPolicy names a certificate authority that Istio cannot use, so calls to its backend are blocked.

    Istio takes a ConfigMap of the policy's own namespace with the key ca.crt, and nothing else. Where it cannot have it, it does not fall
    back to plain text: it gives the proxies a certificate that is never valid, and every connection fails (flag UF).

    How to see it: the policy's status has ResolvedRefs False (InvalidCACertificateRef, InvalidKind).

    How to fix it: let caCertificateRefs name a ConfigMap with ca.crt, or use wellKnownCACertificates: System.
    """
    felt: dict[tuple[str, str], list[Branch]] = {}
    found: dict[tuple[str, str], BackendTLSPolicy] = {}
    for b in case.branches:
        istiod = b.view.ups.istiod
        for policy in _about(istiod, b.upstream.host):
            if _invalid(case, istiod, policy) and _ruled(b, policy):
                key = istiod.cluster, policy.ref
                found[key] = policy
                felt.setdefault(key, []).append(b)
                case.miss(b, b.upstream, 1.0)
    for key, branches in felt.items():
        policy, host = found[key], short(branches[0].upstream.host)
        share = case.share(branches)
        refs = ", ".join(f"{r.kind} {r.name}" for r in policy.spec.validation.ca_certificate_refs or ())
        yield case.finding(
            "gwapi-backendtls-invalid",
            cluster=case.mesh.cluster(key[0]).name,
            resource=policy.ref,
            path="spec.validation.caCertificateRefs",
            message=f"{percent(share)} of the requests of a rule fail in TLS to {host}: the certificate authority of {policy.ref} cannot be used ({_invalid(case, branches[0].view.ups.istiod, policy)}).",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{policy.ref} is for {host} and names {refs or 'no certificate authority'}", *_status(policy)),
            fix=f"Let caCertificateRefs of {policy.ref} name a ConfigMap of namespace {policy.namespace} with the key ca.crt.",
            commands=(f"kubectl -n {policy.namespace} get backendtlspolicy {policy.name} -o yaml",),
        )


def _about(istiod: Istiod, host: str) -> list[BackendTLSPolicy]:
    """The policies whose target is a host."""

    def index() -> dict[str, list[BackendTLSPolicy]]:
        out: dict[str, list[BackendTLSPolicy]] = {}
        entries = {(e.namespace, e.name): e for e in istiod.all(ServiceEntry) if isinstance(e, ServiceEntry)}
        for p in istiod.all(BackendTLSPolicy):
            for t in p.spec.target_refs or () if isinstance(p, BackendTLSPolicy) else ():
                found = entries.get((p.namespace, t.name))
                hosts = (
                    (found.spec.hosts or () if found else ()) if t.kind == "ServiceEntry" else (names.service_host(t.name, p.namespace),)
                )
                for h in hosts:
                    out.setdefault(h, []).append(p)  # type: ignore[arg-type] # told apart above
        return out

    return istiod.once("backend policies", index).get(host, [])


def _invalid(case: Case, istiod: Istiod, policy: BackendTLSPolicy) -> str:
    """Why the certificate authority cannot be used: what the policy shows by itself, what istiod wrote into its status, else its ConfigMap."""
    refs = policy.spec.validation.ca_certificate_refs or ()
    if refs and refs[0].kind != "ConfigMap":
        return f"{refs[0].kind} {refs[0].name} is no ConfigMap"
    said = [c for a in policy.status.ancestors or () for c in a.conditions or () if c.type == "ResolvedRefs"]
    for c in said:
        if c.status == "False":
            return c.message.rstrip(".") or c.reason
    cluster = case.mesh.cluster(istiod.cluster)
    if said or not refs or not cluster.origins:
        return ""  # a cluster's ConfigMaps are not read, and its istiod says what it thinks of them
    found = cluster.get(ConfigMap, policy.namespace, refs[0].name)
    if found is None:
        return f"there is no ConfigMap {policy.namespace}/{refs[0].name}"
    return "" if found.data else f"{found.ref} has no key ca.crt"


def _ruled(branch: Branch, policy: BackendTLSPolicy) -> bool:
    """Whether a destination's TLS is the policy's: a DestinationRule's own settings win, and one of the callers' namespace hides it."""
    u = branch.upstream
    if not branch.share or not u.usable or u.service is None:
        return False
    sections = {t.section_name for t in policy.spec.target_refs or ()}
    port = u.service.port(u.port)
    if None not in sections and "" not in sections and (port is None or port.name not in sections):
        return False
    rule = u.rule
    if rule is None:
        return True
    settings = rule.policy_for(u.port, u.subset)
    return rule.namespace == policy.namespace and (settings is None or settings.tls is None)


def _status(policy: BackendTLSPolicy) -> Iterator[str]:
    seen: dict[str, None] = {}
    for a in policy.status.ancestors or ():
        for c in a.conditions or ():
            if c.status == "False":
                seen[f"status of {policy.ref}: {c.type} False, {c.reason}: {c.message}".rstrip(": ")] = None
    yield from seen
