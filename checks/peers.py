"""What a server accepts, as PeerAuthentications say.

Rules: ComposePeerAuthentication of pilot/pkg/security/authn/policy_applier.go in istio/istio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks.resources import PeerAuthentication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.istiod import Istiod


class Mode(NamedTuple):
    """What a server accepts on a port (STRICT, PERMISSIVE, DISABLE), who says so, and where in it; nobody for the default."""

    mode: str
    policy: PeerAuthentication | None
    path: str = "spec.mtls.mode"


def by_namespace(istiod: Istiod) -> dict[str, list[PeerAuthentication]]:
    """The PeerAuthentications of a control plane, those of a namespace the oldest first."""

    def index() -> dict[str, list[PeerAuthentication]]:
        out: dict[str, list[PeerAuthentication]] = {}
        found = [p for p in istiod.all(PeerAuthentication) if isinstance(p, PeerAuthentication)]
        for p in sorted(found, key=lambda p: p.order):
            out.setdefault(p.namespace, []).append(p)
        return out

    return istiod.once("peer authentications", index)


def accepted(istiod: Istiod, namespace: str, labels: Mapping[str, str], port: int) -> Mode:
    """The effective PeerAuthentication of a workload's port: the oldest of each scope, UNSET inherits."""
    policies = by_namespace(istiod)
    root = istiod.config.root_namespace
    found = Mode("PERMISSIVE", None)
    wide = [next((p for p in policies.get(ns, ()) if not _selects(p)), None) for ns in dict.fromkeys((root, namespace))]
    own = [p for p in policies.get(namespace, ()) if namespace != root and _selects(p) and p.spec.selector is not None]
    narrow = next((p for p in own if p.spec.selector is not None and p.spec.selector.matches(labels)), None)
    for policy in (*wide, narrow):
        if policy is not None and policy.spec.mtls is not None and policy.spec.mtls.mode != "UNSET":
            found = Mode(policy.spec.mtls.mode, policy)
    at = ((narrow.spec.port_level_mtls if narrow is not None else None) or {}).get(str(port))
    if at is not None and at.mode != "UNSET":
        found = Mode(at.mode, narrow, f"spec.portLevelMtls.{port}.mode")
    return found


def _selects(policy: PeerAuthentication) -> bool:
    return policy.spec.selector is not None and bool(policy.spec.selector.wanted)
