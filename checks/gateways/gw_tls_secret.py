"""gw-tls-secret (MESH704)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.binding import gates, kept
from checks.finding import Finding, check
from checks.gateway import meant
from checks.gatewayapi import granted
from checks.gateways import reference_grants
from checks.mesh import Unreadable
from checks.resources import APIGateway, ListenerSet, ReferenceGrant, Secret, TargetReference
from checks.when import at_gateway, bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.binding import Gate
    from checks.case import Case
    from checks.gateway import Bound
    from checks.istiod import Istiod
    from checks.mesh import Cluster

_BESIDE, _OURS = {"", "kubernetes"}, "kubernetes-gateway"


class _Wanted(NamedTuple):
    """A Secret that a server names: where istiod looks for it, where it is named, and whether as one of the Gateway's and not of the pods."""

    name: str
    namespace: str
    path: str
    ours: bool

    @property
    def reference(self) -> TargetReference:
        """As a Gateway of the Gateway API refers to it."""
        return TargetReference(kind="Secret", name=self.name, namespace=self.namespace)


@check("gw-tls-secret", when=(at_gateway, bound))
def gw_tls_secret(case: Case) -> Iterator[Finding]:
    """A server terminates TLS with a Secret that is not in the namespace of the gateway's pods.

    `credentialName` means a Secret beside the gateway's pods, wherever the Gateway stands. Without it the listener has no certificate, and
    every handshake for the host is reset; a listener of the Gateway API that may have none of its certificates istiod leaves out altogether. Secrets are not read unless that was permitted (names and types only); otherwise this is not
    looked at. A Gateway of the Gateway API may name a Secret of another namespace, where a ReferenceGrant has to permit it; one of Istio's may
    write `namespace/name`, and gets it only where that is the namespace of the pods (xds/sds.go, filterAuthorizedResources).

    How to see it: `istioctl proxy-config secret <gateway pod>` shows the resource without a certificate (WARMING).

    How to fix it: create the Secret in the namespace of the gateway's pods, or correct credentialName; permit the reference.
    """
    here = {v.callers.viewpoints[0]: v for v in case.views if v.callers.proxy.kind == "gateway"}
    for gate in gates(case.mesh):
        for b in gate.merged.shut:
            if meant(gate.ups, b, case.host) and case.asked(b.server.port.number):
                yield _left_out(case, gate, b)
        ports = {s.port for s in here[gate.viewpoint].steps if case.asked(s.port)} if gate.viewpoint in here else set()
        for b in _terminating(gate, case.host) if ports else ():
            if b.server.port.number not in ports:
                continue
            for wanted in _wanted(gate, b):
                cluster = case.mesh.cluster(gate.ups.proxy.cluster)
                config = case.mesh.cluster(gate.ups.istiod.cluster)
                if _refused(case, gate, b, wanted):
                    yield _unpermitted(case, gate, b, wanted)
                    continue
                if any(c.get(Secret, wanted.namespace, wanted.name) is not None for c in (cluster, config)):
                    continue
                if not gate.ups.proxy.pod and not cluster.objects.get(Secret):
                    continue  # manifests without pods and Secrets do not say what is there
                _require(cluster, wanted.namespace)
                yield _missing(case, gate, b, wanted, cluster)


def _left_out(case: Case, gate: Gate, b: Bound) -> Finding:
    """What is wrong with the first certificate of a listener that has none (conversion.go buildTLS)."""
    wanted = next(_wanted(gate, b), None)
    if wanted is None:
        owner = _owner(gate.ups.istiod, b)
        path = f"spec.listeners[{next((i for i, li in enumerate(owner.spec.listeners) if li.name == _section(b)), 0) if owner else 0}].tls.certificateRefs"
        return _finding(
            case,
            gate,
            b,
            path,
            f"{b.gateway.ref} names what is no Secret, or more than two",
            (f"{b.gateway.ref} {path} is to be one Secret, or two",),
            f"Let {path} of {b.gateway.ref} name one Secret.",
            (f"kubectl -n {b.gateway.namespace} get {b.gateway.ref.partition(' ')[0].lower()} -o yaml",),
        )
    if _refused(case, gate, b, wanted):
        return _unpermitted(case, gate, b, wanted)
    return _missing(case, gate, b, wanted, case.mesh.cluster(gate.ups.istiod.cluster))


def _owner(istiod: Istiod, b: Bound) -> APIGateway | ListenerSet | None:
    """The Gateway or ListenerSet of a listener."""
    every = [*istiod.all(APIGateway), *istiod.all(ListenerSet)]
    return next((o for o in every if o.ref == b.gateway.ref and isinstance(o, APIGateway | ListenerSet)), None)


def _section(b: Bound) -> str:
    return b.gateway.name.rpartition("~")[2]


def _require(cluster: Cluster, namespace: str) -> None:
    known = cluster.objects.get(Secret, {})
    if namespace not in known and not (known and cluster.origins):  # files that hold Secrets hold those of every namespace
        raise Unreadable("secrets", cluster.name, f"Secrets of namespace {namespace} are not read by default")


def _terminating(gate: Gate, host: str) -> Iterator[Bound]:
    """The servers that read TLS for a host."""
    for b in (*(x for group in gate.merged.by_route.values() for x in group), *gate.merged.l4):
        bare = [h.rpartition("/")[2] for h in b.hosts]
        if b.tls in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"} and any(names.matches(h, host) for h in bare):
            yield b


def _wanted(gate: Gate, b: Bound) -> Iterator[_Wanted]:
    """The Secrets that a server names (credentials.ParseResourceName)."""
    if b.gateway.services is not None:
        found = _owner(gate.ups.istiod, b)
        for i, li in enumerate(found.spec.listeners if found else ()):
            refs = li.tls.certificate_refs or () if li.tls and li.name == _section(b) else ()
            place = f"spec.listeners[{i}].tls.certificateRefs[0]"
            yield from (_Wanted(r.name, r.namespace or b.gateway.namespace, place, ours=True) for r in refs[:1] if r.kind in {"", "Secret"})
        return
    tls = b.server.tls
    place = f"spec.servers[{b.gateway.servers.index(b.server)}].tls"
    for i, credential in enumerate((tls.credential_names or (tls.credential_name,)) if tls else ()):
        where = f"{place}.credentialNames[{i}]" if tls and tls.credential_names else f"{place}.credentialName"
        scheme, _, name = credential.rpartition("://")
        namespace, slash, rest = name.partition("/")
        if name and (scheme in _BESIDE or (scheme == _OURS and slash)):
            yield _Wanted(rest if slash else name, namespace if slash else gate.namespace, where, scheme == _OURS)


def _refused(case: Case, gate: Gate, b: Bound, wanted: _Wanted) -> bool:
    """Whether a gateway does not get a Secret, whoever has it (model.mergeGateways, xds/sds.go filterAuthorizedResources).

    By the name of its own cluster only those of its pods' namespace; else those of the Gateway's and the pods' common namespace, and where a
    ReferenceGrant permits it others.
    """
    istiod = gate.ups.istiod
    if not wanted.ours:
        return wanted.namespace != gate.namespace
    if wanted.namespace == b.gateway.namespace and (b.gateway.services is not None or b.gateway.namespace == gate.namespace):
        return False
    case.mesh.require(case.mesh.cluster(istiod.cluster), ReferenceGrant)
    by = _owner(istiod, b) if b.gateway.services is not None else kept(istiod, b.gateway.name)
    if b.gateway.services is None and b.gateway.namespace != gate.namespace:
        return True
    return by is not None and not granted(reference_grants(istiod), by, by.ref.partition(" ")[0], wanted.reference)


def _unpermitted(case: Case, gate: Gate, b: Bound, wanted: _Wanted) -> Finding:
    own, _, gateway = b.gateway.ref.partition(" ")[2].partition("/")
    secret = f"Secret {wanted.namespace}/{wanted.name}"
    named = f"{wanted.path} of {b.gateway.ref} names {secret}"
    if b.gateway.services is None:
        return _finding(
            case,
            gate,
            b,
            wanted.path,
            f"{b.gateway.ref} does not get {secret}",
            (named, f"the gateway's pods run in {gate.namespace}, and get Secrets of that namespace alone"),
            f"Create Secret {wanted.name} in namespace {gate.namespace} and write its name alone into {b.gateway.ref}.",
            (f"istioctl proxy-config secret <gateway pod> -n {gate.namespace}",),
        )
    grants = sorted(g.ref for g in reference_grants(gate.ups.istiod) if g.namespace == wanted.namespace)
    return _finding(
        case,
        gate,
        b,
        f"{wanted.path}.namespace",
        f"{b.gateway.ref} may not use {secret}",
        (
            named,
            f"ReferenceGrants in {wanted.namespace}: {', '.join(grants) or 'none'}; none lets a Gateway of {own} refer to Secret {wanted.name}",
        ),
        f"Create a ReferenceGrant in {wanted.namespace} from Gateway of namespace {own} to Secret {wanted.name}.",
        (
            f"kubectl -n {wanted.namespace} get referencegrants -o yaml",
            f"kubectl -n {own} get gateways.gateway.networking.k8s.io {gateway} -o jsonpath='{{.status.listeners}}'",
        ),
    )


def _missing(case: Case, gate: Gate, b: Bound, wanted: _Wanted, cluster: Cluster) -> Finding:
    name, namespace, path, _ = wanted
    elsewhere = sorted(s.ref for s in cluster.all(Secret) if s.name == name)
    return _finding(
        case,
        gate,
        b,
        path,
        f"Secret {namespace}/{name} of {b.gateway.ref} does not exist",
        (
            f"{b.gateway.ref} names Secret {name}, which istiod looks for in namespace {namespace}",
            f"Secrets of that name: {', '.join(elsewhere) or 'none'}",
        ),
        f"Create Secret {name} in namespace {namespace}, or correct the name in {b.gateway.ref}.",
        (f"kubectl -n {namespace} get secret {name}", f"istioctl proxy-config secret <gateway pod> -n {gate.namespace}"),
    )


def _finding(
    case: Case, gate: Gate, b: Bound, path: str, wrong: str, evidence: tuple[str, ...], fix: str, commands: tuple[str, ...]
) -> Finding:
    return case.finding(
        "gw-tls-secret",
        cluster=case.mesh.cluster(gate.ups.istiod.cluster).name,
        resource=b.gateway.ref,
        path=path,
        message=f"TLS for {case.host} on port {b.server.port.number} fails {'since istiod leaves the listener out' if b.gateway.shut else 'at the handshake'}: {wrong}.",
        share=1.0,
        viewpoints=(gate.viewpoint,),
        evidence=evidence,
        fix=fix,
        commands=commands,
    )
