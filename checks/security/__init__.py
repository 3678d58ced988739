"""TLS between callers and servers, and who is let in (MESH821 to MESH831): what its findings have in common.

The server's side is decided by the control plane of the server's cluster, the caller's side by the caller's own.
Rules: pilot/pkg/model/{authentication,authorization}.go, pilot/pkg/security/{authn,authz}, pilot/pkg/xds/endpoints/mtls_checker.go and
pilot/pkg/networking/core/cluster_tls.go in istio/istio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from checks.case import said_at, spoken
from checks.finding import MeshCue
from checks.gatewayapi import GROUP as GATEWAY_API
from checks.names import fqdn as host_of
from checks.peers import Mode, accepted, by_namespace
from checks.registry import GATEWAY_NAME, TRUE, proxy_kind
from checks.resources import AuthorizationPolicy, DestinationRule, PeerAuthentication, Pod, Sidecar
from checks.seen import says
from checks.viewpoints import outsiders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.evidence import Access
    from checks.istiod import Istiod, MergedRule, Proxy
    from checks.mesh import Cluster, Mesh
    from checks.registry import HostPort, HostService, IstioEndpoint
    from checks.resources import PolicyCondition, PolicyOperation, PolicyRule, PolicySource, Resource, TargetReference, TrafficPolicy
    from checks.seen import Calls
    from checks.viewpoints import Outsider

Speech = Literal["plain", "mutual", "tls"]
"""What a caller's Envoy speaks: plain text, TLS with the mesh's certificates, or TLS of its own."""


_INCLUDED, _EXCLUDED = "traffic.sidecar.istio.io/includeInboundPorts", "traffic.sidecar.istio.io/excludeInboundPorts"


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint that gets requests, and the sidecar'd or bare pod behind it."""

    endpoint: IstioEndpoint
    cluster: Cluster
    pod: Pod

    @property
    def meshed(self) -> bool:
        """Whether a sidecar receives what is sent to the port; one that lets the port by does not."""
        return proxy_kind(self.pod) == "sidecar" and not self.bypassed

    @property
    def bypass(self) -> str:
        """The annotation that keeps the port from the sidecar; empty when none does."""
        port = str(self.endpoint.port)
        included = self.pod.annotations.get(_INCLUDED)
        if included is not None and included.strip() != "*":
            return "" if port in _listed(included) else _INCLUDED
        return _EXCLUDED if port in _listed(self.pod.annotations.get(_EXCLUDED, "")) else ""

    @property
    def bypassed(self) -> bool:
        """Whether an annotation keeps the port from the sidecar."""
        return bool(self.bypass)


def _listed(text: str) -> set[str]:
    return {p.strip() for p in text.split(",")}


# --- the server's side -----------------------------------------------------------------------------------------------------------


def servers(mesh: Mesh, endpoints: Iterable[IstioEndpoint], *, ambient: bool = False) -> list[Server]:
    """The healthy endpoints that are pods which speak for themselves, or (`ambient`) for which ztunnel does: no gateway, no waypoint, no VM."""
    out: list[Server] = []
    for e in endpoints:
        if e.health != "healthy" or e.tunnel != ambient or not e.workload:
            continue
        cluster = mesh.cluster(e.cluster)
        space = cluster.within(Pod, e.namespace)
        pod = mesh.once(("pods by ip", cluster.name, e.namespace), (space,), partial(_by_ip, space)).get(e.address)
        if pod is not None and proxy_kind(pod) in {"sidecar", "none"}:
            out.append(Server(e, cluster, pod))
    return out


def odd(mesh: Mesh, endpoints: Iterable[IstioEndpoint]) -> bool:
    """Whether any endpoint may be a pod that takes something else than what sidecars take: without one, or with a port kept from it.

    Pods are known by their addresses alone, which two clusters may both have given out.
    """
    some = mesh.now("odd pods", partial(_odd_pods, mesh))
    return bool(some) and not some.isdisjoint([e.address for e in endpoints])


def _odd_pods(mesh: Mesh) -> frozenset[str]:
    def find() -> frozenset[str]:
        every = (mesh.each(("odd pods", c.name), c, (Pod,), (), partial(_odd, mesh, c)).values() for c in mesh.clusters)
        return frozenset().union(*(odd for spaces in every for odd in spaces))

    return mesh.once(("odd pods",), tuple(c.objects.get(Pod) for c in mesh.clusters), find)


def _odd(mesh: Mesh, cluster: Cluster, namespace: str) -> frozenset[str]:
    pods = mesh.alike(cluster, namespace)
    some = (same.pods for same in pods if same.kind == "none" or _INCLUDED in same.annotations or _EXCLUDED in same.annotations)
    return frozenset(p.status.pod_ip for same in some for p in same)


def _by_ip(space: Mapping[str, Pod]) -> dict[str, Pod]:
    return {p.status.pod_ip: p for _, p in sorted(space.items()) if p.status.pod_ip}


def accepts(mesh: Mesh, server: Server) -> Mode:
    """What a server's sidecar accepts on its port."""
    return peer(mesh, mesh.istiod(server.cluster.name), server.endpoint.namespace, server.pod.labels, server.endpoint.port)


def peer(mesh: Mesh, istiod: Istiod, namespace: str, labels: Mapping[str, str], port: int) -> Mode:
    """The effective PeerAuthentication of a workload's port (authn.ComposePeerAuthentication): the oldest of each scope, UNSET inherits."""
    mesh.require(mesh.cluster(istiod.cluster), PeerAuthentication)
    return accepted(istiod, namespace, labels, port)


def somewhere(mesh: Mesh, mode: str) -> bool:
    """Whether a PeerAuthentication says this mode for any server."""

    def says(istiod: Istiod) -> bool:
        found = [p for space in by_namespace(istiod).values() for p in space]
        return any(m is not None and m.mode == mode for p in found for m in (p.spec.mtls, *(p.spec.port_level_mtls or {}).values()))

    return any(i.once(f"peers {mode}", partial(says, i)) for i in _istiods(mesh, PeerAuthentication))


@MeshCue
def shut(mesh: Mesh) -> bool:
    """A cue: some server takes mutual TLS only."""
    return somewhere(mesh, "STRICT")


@MeshCue
def guarded(mesh: Mesh) -> bool:
    """A cue: some AuthorizationPolicy is enforced, by a workload's own proxy, a gateway or a waypoint."""
    return any(i.once("authorization policies", partial(_policies, i)) for i in _istiods(mesh, AuthorizationPolicy))


def _istiods(mesh: Mesh, kind: type[Resource]) -> list[Istiod]:
    found = list(dict.fromkeys(mesh.istiod(c.name) for c in mesh.clusters))
    for i in found:
        mesh.require(mesh.cluster(i.cluster), kind)
    return found


# --- the caller's side -----------------------------------------------------------------------------------------------------------


def reached(case: Case, branch: Branch) -> list[Server]:
    """The pods that a branch's requests end at; none where TLS is only passed through, or where the answer is not the caller's to give."""
    u = branch.upstream
    if branch.view.callers.proxy.kind == "waypoint" or u.service is None or not u.defined or u.name.startswith("outbound_."):
        return []
    if not u.unseen:
        return case.once(f"servers {id(u)}", lambda: servers(case.mesh, u.endpoints))
    port = u.service.port(u.port)
    shard = case.endpoints(branch.view.ups.istiod, u.service)
    return servers(case.mesh, [e for e in shard if port is not None and e.port_name == port.name])


def speaks(case: Case, branch: Branch, server: Server) -> Speech:
    """What a caller speaks to an endpoint: as the DestinationRule says, else auto-mTLS."""
    u = branch.upstream
    istiod = branch.view.ups.istiod
    if (own := spoken(branch)) is not None:
        return _SPEECH.get(own.mode, "tls")
    service = u.service
    if service is None or service.external or not istiod.config.enable_auto_mtls:
        return "plain"
    if peer(case.mesh, istiod, service.namespace, {}, 0).mode == "DISABLE":
        return "plain"
    if u.unseen:
        return "mutual" if all(e.tls for e in case.endpoints(istiod, service)) else "plain"
    if (written := _written(u.rule, u.port, u.subset)) is not None:
        return "mutual" if written == "ISTIO_MUTUAL" else "plain"
    e = server.endpoint
    if not e.tls:
        return "plain"
    return "plain" if peer(case.mesh, istiod, e.namespace, e.labels, e.port).mode == "DISABLE" else "mutual"


_SPEECH: dict[str, Speech] = {"DISABLE": "plain", "ISTIO_MUTUAL": "mutual"}


def _written(rule: MergedRule | None, port: int, subset: str) -> str | None:
    """The TLS mode that istiod marks endpoints by: here a port's settings without tls inherit (tlsModeForDestinationRule)."""
    if rule is None:
        return None
    inner = rule.subset(subset) if subset else None
    for policy in (inner.traffic_policy if inner else None, rule.policy):
        for _, mode in _tls(policy, port, ""):
            return mode
    return None


def _tls(policy: TrafficPolicy | None, port: int, at: str) -> Iterator[tuple[str, str]]:
    """Where a policy says tls for a port, and what: the port's settings first."""
    if policy is None:
        return
    for i, p in enumerate(policy.port_level_settings or ()):
        if p.port is not None and p.port.number == port and p.tls is not None:
            yield f"{at}.portLevelSettings[{i}].tls", p.tls.mode
    if policy.tls is not None:
        yield f"{at}.tls", policy.tls.mode


def tls_at(branch: Branch) -> tuple[str, str] | None:
    """The DestinationRule that says how a branch speaks, and where in it; None when no rule does."""
    found = said_at(branch, "tls")
    return (found[0].ref, found[1]) if found is not None else None


# --- callers without a proxy -----------------------------------------------------------------------------------------------------


def strangers(case: Case) -> Iterator[tuple[Outsider, str]]:
    """The workloads that are outside of the mesh on purpose and mean to call the host, with what says so beyond the host's own namespace."""
    for cluster in case.mesh.clusters:
        istiod = case.mesh.istiod(cluster.name)
        owners = {s.namespace for s in istiod.by_host.get(case.host, ())}
        named = istiod.once("named by", lambda i=istiod: _named_by(i)).get(case.host, set())  # type: ignore[misc]
        let_in = {ns for owner in owners for ns in istiod.once("let in", lambda i=istiod: _let_in(i)).get(owner, ())}  # type: ignore[misc]
        for namespace in sorted((named | let_in) - owners):
            for o in outside(case.mesh).get((cluster.name, namespace), ()):
                if not o.meant and (why := case.wants(o.viewpoint)):
                    yield o, why


def outside(mesh: Mesh) -> Mapping[tuple[str, str], list[Outsider]]:
    """The workloads without a proxy by cluster and namespace."""
    found = outsiders(mesh)

    def index() -> dict[tuple[str, str], list[Outsider]]:
        out: dict[tuple[str, str], list[Outsider]] = {}
        for o in found:
            out.setdefault((o.viewpoint.cluster, o.viewpoint.namespace), []).append(o)
        return out

    return mesh.once(("outside",), (found,), index)


def _named_by(istiod: Istiod) -> dict[str, set[str]]:
    """For each host the namespaces whose rules name it: where it is worth asking who means to call it."""
    out: dict[str, set[str]] = {}
    for r in istiod.rulesets:
        for host in (*r.hosts, *r.destinations(r.namespace)):
            out.setdefault(host, set()).add(r.namespace)
    for rule in istiod.all(DestinationRule):
        if isinstance(rule, DestinationRule):
            out.setdefault(host_of(rule.spec.host, rule.namespace), set()).add(rule.namespace)
    for s in istiod.all(Sidecar):
        for e in (s.spec.egress or ()) if isinstance(s, Sidecar) else ():
            for h in e.hosts or ():
                out.setdefault(h.rpartition("/")[2], set()).add(s.namespace)
    return out


def _let_in(istiod: Istiod) -> dict[str, set[str]]:
    """For each namespace those that its AuthorizationPolicies name as callers."""
    out: dict[str, set[str]] = {}
    for p in istiod.all(AuthorizationPolicy):
        for rule in (p.spec.rules or ()) if isinstance(p, AuthorizationPolicy) else ():
            for f in rule.from_ or ():
                out.setdefault(p.namespace, set()).update((*(f.source.namespaces or ()), *_spaces(f.source.principals)))
    return out


def around(case: Case) -> Iterator[tuple[HostService, HostPort, list[Server]]]:
    """What a caller without proxy reaches when it calls the host: the pods behind each port of its Service."""
    for cluster in case.mesh.clusters:
        istiod = case.mesh.istiod(cluster.name)
        for service in istiod.by_host.get(case.host, ()):
            if not service.kubernetes or service.external:
                continue
            shard = case.endpoints(istiod, service)
            for port in service.ports:
                yield service, port, servers(case.mesh, [e for e in shard if e.port_name == port.name])
            return


# --- who is let in ---------------------------------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """Who asks, as an AuthorizationPolicy sees it: the caller's namespace, and its service account where that is known; without a certificate
    nothing is known of it.
    """  # noqa: D205 - one sentence

    namespace: str
    known: bool
    account: str = ""


Answer = int
"""Whether a rule matches: 0 never, 1 some requests or not to be decided, 2 every request."""


def policies(mesh: Mesh, cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> list[AuthorizationPolicy]:
    """The AuthorizationPolicies that a workload's own proxy enforces: of the root namespace and of its own, by selector, without dry runs."""
    istiod = mesh.istiod(cluster.name)
    mesh.require(mesh.cluster(istiod.cluster), AuthorizationPolicy)
    spaces = istiod.once("authorization policies", lambda: _policies(istiod))
    found = [p for ns in dict.fromkeys((istiod.config.root_namespace, namespace)) for p in spaces.get(ns, ())]
    return [p for p in found if not _targets(p) and (p.spec.selector is None or p.spec.selector.matches(labels))]


def enforced(mesh: Mesh, istiod: Istiod, proxy: Proxy, service: HostService | None) -> list[AuthorizationPolicy]:
    """The AuthorizationPolicies that a gateway, or a waypoint for a service, enforces itself (model/policyattachment.go ShouldAttachPolicy)."""
    mesh.require(mesh.cluster(istiod.cluster), AuthorizationPolicy)
    spaces = istiod.once("authorization policies", lambda: _policies(istiod))
    root, waypoint = istiod.config.root_namespace, proxy.kind == "waypoint"
    behind = [service.namespace] if waypoint and service is not None else []
    found = [p for ns in dict.fromkeys((root, proxy.namespace, *behind)) for p in spaces.get(ns, ())]
    return [p for p in found if _attached(p, proxy, service if waypoint else None, root)]


def _targets(policy: AuthorizationPolicy) -> tuple[TargetReference, ...]:
    return policy.spec.target_refs or ((policy.spec.target_ref,) if policy.spec.target_ref else ())


def _attached(policy: AuthorizationPolicy, proxy: Proxy, service: HostService | None, root: str) -> bool:
    targets, name = _targets(policy), proxy.labels.get(GATEWAY_NAME)
    if not targets:
        selector = policy.spec.selector
        near = policy.namespace in (root, proxy.namespace)
        return proxy.kind != "waypoint" and near and (selector is None or selector.matches(proxy.labels))
    for t in targets if name is not None else ():
        if (t.group, t.kind) == (GATEWAY_API, "Gateway"):
            if policy.namespace == proxy.namespace and t.namespace in ("", proxy.namespace) and t.name == name:
                return True
        elif t.kind == "GatewayClass":
            if policy.namespace == root and proxy.kind == "waypoint" and t.name == "istio-waypoint":
                return True
        elif service is not None and (t.kind, policy.namespace, t.name) == _named_as(service):
            return True
    return False


def _named_as(service: HostService) -> tuple[str, str, str]:
    """The object that a service is made of: kind, namespace, name."""
    return "Service" if service.kubernetes else "ServiceEntry", service.namespace, service.sources[0][1].rpartition("/")[2]


def _policies(istiod: Istiod) -> dict[str, list[AuthorizationPolicy]]:
    out: dict[str, list[AuthorizationPolicy]] = {}
    for p in istiod.all(AuthorizationPolicy):
        dry = p.annotations.get("istio.io/dry-run", "") in TRUE
        if isinstance(p, AuthorizationPolicy) and not dry:
            out.setdefault(p.namespace, []).append(p)
    for found in out.values():
        found.sort(key=lambda p: (p.created, p.name))
    return out


class Refusal(NamedTuple):
    """A policy that refuses every call, and where in it the reason stands."""

    policy: AuthorizationPolicy
    path: str


def refused(found: Sequence[AuthorizationPolicy], who: Peer, port: int, *, tcp: bool, strictly: bool = True) -> Refusal | None:
    """Whether policies refuse every call of a peer to a port, as far as that can be decided.

    `strictly` False asks what would be if fields of HTTP could be looked at on this port: then they decide nothing either way.
    """
    for p in found:
        for i, rule in enumerate(p.spec.rules or ()):
            if p.spec.action == "DENY" and matched(rule, who, port, tcp=tcp, strictly=strictly, deny=True) == 2:
                return Refusal(p, f"spec.rules[{i}]")
    allowing = [p for p in found if p.spec.action == "ALLOW"]
    rules = [r for p in allowing for r in p.spec.rules or ()]
    if allowing and not any(matched(r, who, port, tcp=tcp, strictly=strictly, deny=False) for r in rules):
        blamed = next((p for p in allowing if p.spec.rules), allowing[0])
        return Refusal(blamed, "spec.rules")
    return None


def matched(rule: PolicyRule, who: Peer, port: int, *, tcp: bool, strictly: bool, deny: bool) -> Answer:
    """Whether a rule matches a peer's calls to a port (authz/model: on TCP an ALLOW rule with fields of HTTP is dropped, a DENY rule loses them)."""
    if tcp and strictly and not deny and of_http(rule):
        return 0
    silent = tcp and strictly
    sources = [_source(f.source, who, silent=silent) for f in rule.from_ or ()]
    operations = [
        _both(
            _ports(t.operation.ports, t.operation.not_ports, port),
            1 if not silent and _chooses(t.operation) else 2,
        )
        for t in rule.to or ()
    ]
    conditions = [_condition(c, who, silent=silent) for c in rule.when or ()]
    return _both(max(sources, default=2), max(operations, default=2), *conditions)


def for_host(rule: PolicyRule, host: str) -> PolicyRule | None:
    """What a rule asks of calls to one host, whose name the proxy sees; None when it is about others."""
    if not rule.to:
        return rule
    fitting = []
    for t in rule.to:
        o = t.operation
        meant = not o.hosts or any(_fits(h.lower(), host) for h in o.hosts)
        if meant and not any(_fits(h.lower(), host) for h in o.not_hosts or ()):
            fitting.append(replace(t, operation=replace(o, hosts=None, not_hosts=None)))
    return replace(rule, to=tuple(fitting)) if fitting else None


def about(policy: AuthorizationPolicy, host: str) -> AuthorizationPolicy:
    """What a policy asks of calls to one host, whose name the proxy sees."""
    rules = tuple(fitting for r in policy.spec.rules or () if (fitting := for_host(r, host)) is not None)
    return replace(policy, spec=replace(policy.spec, rules=rules))


def _chooses(o: PolicyOperation) -> bool:
    """Whether an operation means some requests and not others: `*`, and `/*` of a path, mean all (authz/matcher/string.go)."""
    narrow = any(values and "*" not in values for values in (o.hosts, o.methods))
    narrow = narrow or bool(o.paths and not {"*", "/*"} & set(o.paths))
    return narrow or any((o.not_hosts, o.not_methods, o.not_paths))


def _http_of(o: object) -> tuple[object, ...]:
    return tuple(getattr(o, f) for f in ("methods", "not_methods", "paths", "not_paths"))


def of_http(rule: PolicyRule) -> bool:
    """Whether a rule looks at something that only HTTP has."""
    return (
        any(f.source.request_principals or f.source.not_request_principals for f in rule.from_ or ())
        or any(t.operation.hosts or t.operation.not_hosts or any(_http_of(t.operation)) for t in rule.to or ())
        or any(c.key.startswith("request.") for c in rule.when or ())
    )


def by_identity(rule: PolicyRule) -> bool:
    """Whether a rule looks at the certificate of the peer."""
    return any(
        f.source.principals
        or f.source.namespaces
        or f.source.service_accounts
        or f.source.trust_domains
        or f.source.not_principals
        or f.source.not_namespaces
        or f.source.not_service_accounts
        for f in rule.from_ or ()
    ) or any(c.key.startswith("source.") and c.key != "source.ip" for c in rule.when or ())


def _both(*answers: int) -> Answer:
    return min(answers, default=2)


def _source(s: PolicySource, who: Peer, *, silent: bool) -> Answer:
    parts: list[int] = []
    if any((s.ip_blocks, s.not_ip_blocks, s.remote_ip_blocks, s.not_remote_ip_blocks)):
        parts.append(1)
    if (s.request_principals or s.not_request_principals) and not silent:
        parts.append(1)
    if s.namespaces:
        parts.append(2 if who.known and any(_lives(n, who.namespace) for n in s.namespaces) else 0)
    parts += [_named(names, who) for names in (s.principals, _accounts(s)) if names]
    if s.trust_domains:
        parts.append((2 if "*" in s.trust_domains else 1) if who.known else 0)
    if s.not_namespaces:
        parts.append(0 if who.known and any(_lives(n, who.namespace) for n in s.not_namespaces) else 2)
    if s.not_principals or s.not_service_accounts or s.not_trust_domains:
        parts.append(1 if who.known else 2)
    return _both(*parts)


def _accounts(s: PolicySource) -> tuple[str, ...]:
    """A source's serviceAccounts as principals of whatever trust domain, where they name a namespace; else as they are (serviceAccountRegex)."""
    return tuple(f"*/ns/{a.replace('/', '/sa/', 1)}" if "/" in a else a for a in s.service_accounts or ())


def _named(patterns: tuple[str, ...], who: Peer) -> Answer:
    return max((_means(p, who) for p in patterns), default=0) if who.known else 0


def _means(pattern: str, who: Peer) -> Answer:
    """Whether a pattern is for an identity: a peer's namespace is known here, its service account seldom, its trust domain never.

    `*` alone is anybody's; before a name it means what ends so, after one what begins so. Elsewhere it is a character that no identity has
    (authz/matcher/string.go StringMatcherWithPrefix).
    """
    if pattern == "*":
        return 2
    begins, ends = not pattern.startswith("*") and pattern.endswith("*"), pattern.startswith("*")
    said = pattern[1:] if ends else pattern[:-1] if begins else pattern
    if "*" in said:
        return 0
    domain, slash, named = said.partition("/ns/")
    if not slash:
        return 1
    mine, asked = f"{who.namespace}/sa/{who.account}", named
    if begins:
        return 1 if mine.startswith(asked) or (not who.account and asked.startswith(mine)) else 0
    if not who.account:
        return 1 if asked.startswith(mine) else 0
    return (2 if ends and not domain else 1) if asked == mine else 0


def _lives(pattern: str, namespace: str) -> bool:
    """Whether a pattern is for a namespace: `*` means anything, wherever it stands (authz/model/generator.go srcNamespaceGenerator)."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), namespace) is not None


def _fits(pattern: str, text: str) -> bool:
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _ports(ports: tuple[str, ...] | None, not_ports: tuple[str, ...] | None, port: int) -> Answer:
    return 2 if (not ports or str(port) in ports) and str(port) not in (not_ports or ()) else 0


def _condition(c: PolicyCondition, who: Peer, *, silent: bool) -> Answer:
    if c.key.startswith("request.") and silent:
        return 2
    if not c.key.startswith("source.") or c.key == "source.ip":
        return 1
    if not who.known:
        return 0 if c.values else 2
    if not c.values or c.not_values:
        return 1
    if c.key == "source.namespace":
        return 2 if any(_lives(n, who.namespace) for n in c.values) else 0
    return _named(c.values, who) if c.key == "source.principal" else 1


def named(found: Iterable[AuthorizationPolicy]) -> Iterator[str]:
    """The namespaces of which policies say something: by name, or by an identity that has it."""
    for rule in (r for p in found for r in p.spec.rules or ()):
        for s in (f.source for f in rule.from_ or ()):
            yield from (*(s.namespaces or ()), *(s.not_namespaces or ()))
            yield from _spaces((*(s.principals or ()), *_accounts(s)))
        for c in rule.when or ():
            yield from (c.values or ()) if c.key == "source.namespace" else _spaces(c.values) if c.key == "source.principal" else ()


def _spaces(principals: Iterable[str] | None) -> Iterator[str]:
    return (p.split("/ns/")[1].partition("/")[0] for p in principals or () if "/ns/" in p)


# --- what findings say -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Miss:
    """A part of the pods behind a branch that a caller does not get through to, and the object that decides it."""

    branch: Branch
    server: Server
    part: float
    ref: str
    path: str
    only: tuple[str, ...] = ()
    """Namespaces of the callers that it holds for; empty: of all."""

    @property
    def viewpoints(self) -> tuple[Viewpoint, ...]:
        """The callers that it holds for."""
        return tuple(v for v in self.branch.view.callers.viewpoints if not self.only or v.namespace in self.only)


def share(case: Case, missed: Sequence[Miss]) -> float:
    """The part of a rule's requests that some misses take, of the rule where it is largest."""
    for m in missed:
        case.miss(m.branch, m.server.endpoint, m.part)
    parts = {(id(m.branch.step), m.branch.index, id(m.server.endpoint)): m.branch.share * m.part for m in missed}
    sums: dict[int, float] = {}
    for (step, _, _), part in parts.items():
        sums[step] = sums.get(step, 0.0) + part
    return round(min(1.0, max(sums.values(), default=0.0)), 6)


def by_object(missed: Iterable[Miss]) -> list[list[Miss]]:
    """Misses that one field of one object decides, together."""
    groups: dict[tuple[str, str, str], list[Miss]] = {}
    for m in missed:
        groups.setdefault((m.server.cluster.name, m.ref, m.path), []).append(m)
    return list(groups.values())


def holder(case: Case, ref: str, *candidates: Cluster) -> str:
    """The name of the cluster that an object stands in: the first of some control planes' clusters that has it."""
    kind, _, name = ref.partition(" ")
    namespace, _, name = name.partition("/")
    for c in candidates:
        home = case.mesh.cluster(case.mesh.istiod(c.name).cluster)
        for struct, spaces in home.objects.items():
            if struct.__name__ == kind and name in spaces.get(namespace, {}):
                return home.name
    return candidates[0].name


def seen(missed: Sequence[Miss]) -> Iterator[str]:
    """The pods that are not reached."""
    said = sorted({f"pod {m.server.pod.namespace}/{m.server.pod.name} serves port {m.server.endpoint.port}" for m in missed})
    yield from said[:3]
    if len(said) > 3:
        yield f"and {len(said) - 3} more pods"


def viewpoints(missed: Iterable[Miss]) -> tuple[Viewpoint, ...]:
    """The callers that some misses belong to."""
    return tuple(dict.fromkeys(v for m in missed for v in m.viewpoints))


# --- handshakes that failed ------------------------------------------------------------------------------------------------------


def misnamed(access: Access) -> bool:
    """Whether the certificate was good and named an identity that the caller does not accept."""
    return "UF" in access.flags and says(access, "san matcher", "verify san list")


def anonymous(access: Access) -> bool:
    """Whether one side does not know the root of the other's certificate."""
    return "UF" in access.flags and says(
        access, "unable to get local issuer", "self signed certificate", "self-signed certificate", "alert unknown ca"
    )


def expired(access: Access) -> bool:
    """Whether a certificate has expired, the server's or the caller's."""
    return "UF" in access.flags and says(access, "certificate has expired", "alert certificate expired")


def identities(calls: Calls) -> list[str]:
    """The identities that the certificates had, as Envoy tells them: `certificate SANs are [spiffe://...]`."""
    said = " ".join(f"{a.details} {a.failure}" for a in calls.accesses)
    return list(dict.fromkeys(i.strip(",]:") for i in _SPIFFE.findall(said)))


_SPIFFE = re.compile(r"spiffe://[^\s\],_|]+")


def strange(case: Case, calls: Calls) -> list[str]:
    """The trust domains of certificates that were refused by name and that the caller's mesh knows as none of its own."""
    config = case.mesh.config(case.mesh.cluster(calls.branch.view.ups.istiod.cluster))
    known = {config.trust_domain, *config.trust_domain_aliases}
    return [d for d in dict.fromkeys(i.removeprefix("spiffe://").partition("/")[0] for i in identities(calls)) if d not in known]


def tried_clusters(case: Case, calls: Calls) -> list[Cluster]:
    """The clusters of the endpoints that were tried; an E/W gateway stands for its own."""
    tried = set(calls.upstreams)
    return [case.mesh.cluster(e.cluster) for e in calls.branch.upstream.endpoints if e.at in tried]


def roots(case: Case, clusters: Iterable[str]) -> Iterator[str]:
    """The roots that proxies of some clusters hold, one line for each cluster."""
    for name in clusters:
        held = {
            f"{c.name or 'a root'} (until {c.expires})"
            for e in case.evidence.envoys
            if e.cluster == name
            for c in e.certificates or ()
            if c.ca
        }
        if held:
            yield f"roots of proxies in {name}: {', '.join(sorted(held)[:3])}"
