"""gwapi-backendtls-invalid (MESH728)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.gatewayapi import OfPolicies
from checks.resources import BackendTLSPolicy, ConfigMap
from checks.subsets import percent
from checks.when import holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Branch, Case
    from checks.istiod import Istiod


@check("gwapi-backendtls-invalid", when=holds(BackendTLSPolicy))
def gwapi_backendtls_invalid(case: Case) -> Iterator[Finding]:
    """A BackendTLSPolicy names a certificate authority that Istio cannot use, so calls to its backend are blocked.

    Istio takes a ConfigMap of the policy's own namespace with the key ca.crt, and nothing else. Where it cannot have it, it gives gateways a
    certificate that is never there, and every connection fails (flag UF). Sidecars it gives none at all: they call in plain text a server that
    is said to speak TLS.

    How to see it: the policy's status has ResolvedRefs False (InvalidCACertificateRef, InvalidKind).

    How to fix it: let caCertificateRefs name a ConfigMap with ca.crt, or use wellKnownCACertificates: System.
    """
    felt: dict[tuple[str, str], list[Branch]] = {}
    found: dict[tuple[str, str], BackendTLSPolicy] = {}
    for b in case.branches:
        istiod, policy = b.view.ups.istiod, _ruling(b)
        if policy is not None and _invalid(case, istiod, policy):
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
            message=f"{percent(share)} of the requests of a rule to {host} fail: the certificate authority of {policy.ref} cannot be used ({_invalid(case, branches[0].view.ups.istiod, policy)}).",
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(f"{policy.ref} is for {host} and names {refs or 'no certificate authority'}", *_status(policy)),
            fix=f"Let caCertificateRefs of {policy.ref} name a ConfigMap of namespace {policy.namespace} with the key ca.crt.",
            commands=(f"kubectl -n {policy.namespace} get backendtlspolicy {policy.name} -o yaml",),
        )


def _ruling(branch: Branch) -> BackendTLSPolicy | None:
    """The policy that says the TLS of a destination: a DestinationRule's own settings win, and one of the callers' namespace hides it."""
    u = branch.upstream
    settings = u.rule.policy_for(u.port, u.subset) if u.rule is not None and branch.share and u.usable else None
    made = u.rule.origins[-1] if u.rule is not None else None
    return made.policy(settings.tls) if settings is not None and isinstance(made, OfPolicies) else None


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


def _status(policy: BackendTLSPolicy) -> Iterator[str]:
    seen: dict[str, None] = {}
    for a in policy.status.ancestors or ():
        for c in a.conditions or ():
            if c.status == "False":
                seen[f"status of {policy.ref}: {c.type} False, {c.reason}: {c.message}".rstrip(": ")] = None
    yield from seen
