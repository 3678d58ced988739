"""What a gateway does with a call: the virtual hosts and filter chains of the Gateways that select it.

Rules: semantics.md 3.2; pilot/pkg/model/gateway.go and pilot/pkg/networking/core/gateway.go in istio/istio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from checks import names
from checks.gatewayapi import BoundGateway
from checks.registry import GATEWAY_NAME, protocol
from checks.resources import L4Match, Pod, Server, Service
from checks.rulesets import L4Rule, Rule, RuleSet, describe, is_catch_all, rules_for
from checks.sidecar import Step, l4_targets
from checks.upstream import Upstreams

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from checks.istiod import Proxy
    from checks.mesh import Mesh
    from checks.upstream import Upstream
    from checks.viewpoints import Class

_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})


class Port(NamedTuple):
    """One port of a Service that selects the gateway's pod: what callers use, and where the pod listens."""

    service: str
    namespace: str
    number: int
    target: int
    translated: bool


@dataclass(slots=True, eq=False)
class Bound:
    """One server of a Gateway as it was merged: its hosts are written with namespaces, `route` names its HTTP routes."""

    gateway: BoundGateway
    server: Server
    hosts: tuple[str, ...]
    port: int
    route: str

    @property
    def tls(self) -> str:
        """The server's TLS mode, empty without TLS."""
        return self.server.tls.mode if self.server.tls else ""

    @property
    def passthrough(self) -> bool:
        """Whether TLS goes through unread."""
        return self.tls in {"PASSTHROUGH", "AUTO_PASSTHROUGH"}


@dataclass(slots=True)
class Merged:
    """All servers of one gateway workload after istiod's merge, and those that lost a conflict."""

    by_route: dict[str, list[Bound]] = field(default_factory=dict)
    l4: list[Bound] = field(default_factory=list)
    rejected: list[tuple[Bound, str]] = field(default_factory=list)


def bound(mesh: Mesh, ups: Upstreams) -> list[BoundGateway]:
    """The Gateways that a workload serves (push_context.mergeGateways, filterStrictGatewayMerging), oldest first."""
    plane = ups.istiod.plane
    everything = [
        *(
            BoundGateway(f"{g.namespace}/{g.name}", g.namespace, g.created, g.spec.servers or (), g.ref)
            for g in ups.istiod.gateways
            if not g.spec.selector or all(ups.proxy.labels.get(k) == v for k, v in g.spec.selector.items())
            if not plane.scopes_gateways or g.namespace == ups.proxy.namespace
        ),
        *(g for g in ups.istiod.api.gateways if _serves(mesh, ups.proxy, g)),
    ]
    everything.sort(key=lambda g: (g.created, g.name.partition("/")[2], g.namespace))
    managed = {g.namespace for g in everything if g.services is not None and g.managed} if plane.strict_merging else set()
    return [g for g in everything if not managed or g.services is not None or g.namespace in managed]


def _serves(mesh: Mesh, proxy: Proxy, gateway: BoundGateway) -> bool:
    known = gateway.services or ()
    if not proxy.pod:  # of manifests without pods: whoever has the Gateway's name serves it
        return bool(known) and gateway.namespace == proxy.namespace and proxy.labels.get(GATEWAY_NAME) == _own_name(gateway)
    return any(p.service in known and p.namespace == gateway.namespace for p in ports(mesh, proxy))


def _own_name(gateway: BoundGateway) -> str:
    return gateway.name.partition("/")[2].partition("~")[0]


def ports(mesh: Mesh, proxy: Proxy) -> list[Port]:
    """The Service ports behind which a proxy's pod stands (controller.GetProxyServiceTargets)."""
    cluster = mesh.cluster(proxy.cluster)
    pod = cluster.get(Pod, proxy.namespace, proxy.pod)
    named = {p.name: p.container_port for c in (pod.spec.containers if pod else ()) for p in c.ports or () if p.name}
    out: list[Port] = []
    for s in cluster.ordered(Service, proxy.namespace):
        selector = s.spec.selector
        if not selector or pod is None or any(pod.labels.get(k) != v for k, v in selector.items()):
            continue
        plain = "experimental.istio.io/disable-gateway-port-translation" not in s.labels
        for p in s.spec.ports:
            target = named.get(p.target_port, 0) if isinstance(p.target_port, str) else p.target_port or p.port
            if target:
                out.append(Port(names.service_host(s.name, s.namespace), s.namespace, p.port, target, plain))
    return out


def _resolve(gateway: BoundGateway, number: int, known: list[Port]) -> list[int]:
    """The pod's ports for a server's port (resolvePorts)."""
    if gateway.services is None or not known:
        first = next((p.target for p in known if p.number == number and p.translated), None)
        return [number if first is None else first]
    return sorted({p.target for p in known if p.number == number and p.service in gateway.services and p.namespace == gateway.namespace})


def merge(mesh: Mesh, ups: Upstreams) -> Merged:
    """The servers of a gateway workload as istiod merges them (model.mergeGateways)."""
    proxy = ups.proxy
    return mesh.now(("merged", proxy.cluster, proxy.namespace, proxy.pod, proxy.revision), lambda: _known(mesh, ups))


def holds(mesh: Mesh, c: Class, host: str) -> bool:
    """Whether a gateway may have a rule for a host: a virtual host of it, or a listener that tells no hosts apart."""
    p = c.proxy
    hosts = mesh.now(("held", p.cluster, p.namespace, p.pod, p.revision), lambda: _held(mesh, Upstreams(mesh, c.istiod, p, c.scope)))
    return hosts is None or host in hosts


def _held(mesh: Mesh, ups: Upstreams) -> frozenset[str] | None:
    merged = merge(mesh, ups)

    def find() -> frozenset[str] | None:
        hosts = frozenset(h for servers in merged.by_route.values() for one in servers for h in _fitting(ups, one))
        return None if merged.l4 or "*" in hosts else hosts  # rules for any host are rules of the hosts that they lead to

    p = ups.proxy
    return mesh.once(("held", p.cluster, p.namespace, p.pod, p.revision), (merged, ups.istiod), find)


def _known(mesh: Mesh, ups: Upstreams) -> Merged:
    proxy = ups.proxy
    cluster = mesh.cluster(proxy.cluster)
    made_of = ups.istiod, cluster.objects.get(Service, {}).get(proxy.namespace), cluster.get(Pod, proxy.namespace, proxy.pod), proxy
    return mesh.once(
        ("merged", cluster.name, proxy.namespace, proxy.pod or frozenset(proxy.labels.items())), made_of, lambda: _merge(mesh, ups)
    )


def _merge(mesh: Mesh, ups: Upstreams) -> Merged:
    out = Merged()
    known = ports(mesh, ups.proxy)
    seen: set[int] = set()
    plain: dict[int, tuple[str, str]] = {}
    tls_hosts: dict[tuple[int, str], set[str]] = {}
    for gateway in bound(mesh, ups):
        for server in gateway.servers:
            if not server.port.number:
                continue
            hosts = _hosts(server, gateway.namespace)
            for number in _resolve(gateway, server.port.number, known):
                one = Bound(gateway, server, hosts, number, _route_name(gateway, server, number))
                reason = _place(out, one, seen, plain, tls_hosts)
                if reason:
                    out.rejected.append((one, reason))
    return out


def _place(out: Merged, one: Bound, seen: set[int], plain: dict[int, tuple[str, str]], tls_hosts: dict[tuple[int, str], set[str]]) -> str:
    """Put a server in its place; a sentence when it loses a conflict."""
    server, number = one.server, one.port
    kind = protocol(server.port.protocol)
    http = kind in _HTTP or (kind == "HTTPS" and not one.passthrough)
    if server.tls is not None:
        taken = tls_hosts.setdefault((number, server.bind), set())
        doubles = [h for h in one.hosts if h in taken]
        if doubles:
            return f"host {doubles[0]} is already served on port {number}"
        taken.update(one.hosts)
    # TLS means here what gateway.IsTLSServer says: a server that has TLS settings and is not HTTP
    secure = server.tls is not None and kind not in _HTTP
    if number in seen and number in plain:
        current, bind = plain[number]
        if bind == server.bind:
            if not (kind in _HTTP and (current in _HTTP or current == kind)):
                return f"port {number} already speaks {current}"
            out.by_route.setdefault(one.route, []).append(one)
            return ""
    elif number in seen and secure:
        if http:
            if one.route in out.by_route:
                return f"port name {server.port.name} is not unique"
            out.by_route[one.route] = [one]
        else:
            out.l4.append(one)
        return ""
    seen.add(number)
    if not secure:
        plain[number] = kind, server.bind
    if http:
        out.by_route[one.route] = [one]
    else:
        out.l4.append(one)
    return ""


def _hosts(server: Server, namespace: str) -> tuple[str, ...]:
    """A server's hosts with `.` and `*` namespaces resolved (sanitizeServerHostNamespace)."""
    out: list[str] = []
    for h in server.hosts or ():
        ns, slash, host = h.partition("/")
        if not slash:
            out.append(h)
        elif ns == ".":
            out.append(f"{namespace}/{host}")
        elif ns == "*":
            if host == "*":
                return ("*",)
            out.append(host)
        else:
            out.append(h)
    return tuple(out)


def _route_name(gateway: BoundGateway, server: Server, number: int) -> str:
    kind = protocol(server.port.protocol)
    bind = f".{server.bind}" if server.bind else ""
    if kind in _HTTP:
        return f"http.{number}{bind}"
    if kind == "HTTPS" and not (server.tls and server.tls.mode in {"PASSTHROUGH", "AUTO_PASSTHROUGH"}):
        ns, _, name = gateway.name.partition("/")
        return f"https.{server.port.number}.{server.port.name}.{name}.{ns}{bind}"
    return ""


def hosts_for(server: Server, gateway_namespace: str, namespace: str) -> list[str]:
    """A server's hosts as VirtualServices of a namespace may use them."""
    return _names(_hosts(server, gateway_namespace), namespace)


def _names(hosts: Iterable[str], namespace: str) -> list[str]:
    """A server's hosts for VirtualServices of a namespace (host.NamesForNamespace)."""
    out: list[str] = []
    for h in hosts:
        ns, slash, name = h.partition("/")
        if not slash:
            out.append(h)
        elif ns in {namespace, "*"}:
            out.append(name)
    return out


def routes(ups: Upstreams, hosts: Iterable[str] | None) -> Iterator[Step]:
    """The rules of a gateway's listeners: of these hosts, or of every virtual host as the gateway holds it."""
    wanted = None if hosts is None else set(hosts)
    merged = merge(ups.mesh, ups)
    for servers in merged.by_route.values():
        vhosts = _http(ups, servers, wanted)
        shown = _folded(vhosts) if wanted is None else {h: h for h in vhosts if h in wanted}
        for host, title in shown.items():
            for step in vhosts[host].steps():
                yield step if title == host else replace(step, match=f"{step.match} ({title})")
    seen: set[object] = set()
    for one in merged.l4:
        for step in _passthrough(ups, one, seen) if one.passthrough else _tcp(ups, one):
            same = step.host, step.port, step.protocol, step.source, step.path, tuple(id(u) for u, _, _ in step.targets)
            if (wanted is None or step.host in wanted) and same not in seen:
                seen.add(same)
                yield step


@dataclass(slots=True)
class _VirtualHost:
    """One host of a route configuration: its rules in order of coming, what they are made of, and whether plain HTTP is sent away."""

    rules: list[tuple[Step, bool]] = field(default_factory=list)
    made_of: list[tuple[str, str, int]] = field(default_factory=list)
    redirect: bool = False

    def steps(self) -> Iterator[Step]:
        """Its rules as Envoy tries them, those that take everything last (SortVHostRoutes)."""
        yield from (s for s, last in self.rules if not last)
        yield from (s for s, last in self.rules if last)


def _folded(vhosts: dict[str, _VirtualHost]) -> dict[str, str]:
    """The virtual hosts that Envoy gets: those with the very same rules are one that answers to several names (collapseDuplicateRoutes)."""
    first: dict[object, str] = {}
    also: dict[str, list[str]] = {}
    for host in sorted(vhosts, key=names.specificity):
        v = vhosts[host]
        if not v.rules:
            continue
        known = first.setdefault((tuple(v.made_of), v.redirect), host)
        also.setdefault(known, [])
        if known != host:
            also[known].append(host)
    return {host: f"also for {', '.join(others)}" if others else host for host, others in also.items()}


def _fitting(ups: Upstreams, one: Bound) -> dict[str, list[RuleSet]]:
    """The rulesets of each virtual host of a server, in istiod's order."""

    def find() -> dict[str, list[RuleSet]]:
        out: dict[str, list[RuleSet]] = {}
        for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
            fitting = names.intersection(_names(one.hosts, ruleset.namespace), ruleset.hosts)
            for host in dict.fromkeys(h.lower() for h in fitting):
                out.setdefault(host, []).append(ruleset)
        return out

    return ups.istiod.once(f"fitting {ups.proxy.namespace} {one.gateway.name} {' '.join(one.hosts)}", find)


def _http(ups: Upstreams, servers: list[Bound], wanted: Collection[str] | None) -> dict[str, _VirtualHost]:
    vhosts: dict[str, _VirtualHost] = {}
    for one in servers:
        number = one.server.port.number
        known = _fitting(ups, one)
        for host in known if wanted is None else [h for h in wanted if h in known]:
            for ruleset in known[host]:
                pairs = rules_for(ruleset, number, ups.proxy.labels, frozenset({one.gateway.name}), ups.proxy.namespace)
                if not pairs:
                    continue
                mine = vhosts.setdefault(host, _VirtualHost())
                mine.redirect = mine.redirect or bool(one.server.tls and one.server.tls.https_redirect)
                port = mine.rules[0][0].port if mine.rules else number
                for i, (rule, match) in enumerate(pairs):
                    step = Step(
                        host,
                        port,
                        "http",
                        rule.action,
                        ruleset.source(rule),
                        rule.path,
                        describe(match),
                        _targets(ups, ruleset, rule, number),
                        rule.leaf,
                        rule.abort,
                        rule.name,
                    )
                    mine.rules.append((step, is_catch_all(match)))
                    mine.made_of.append((one.gateway.name, f"{ruleset.namespace}/{ruleset.name}", i))
    return vhosts


def _targets(ups: Upstreams, ruleset: RuleSet, rule: Rule, number: int) -> tuple[tuple[Upstream, int, str], ...]:
    out: list[tuple[Upstream, int, str]] = []
    for t in rule.targets:
        if not t.host:
            out.append((ups.unknown(), t.weight, t.path))
            continue
        own = ups.istiod.by_host_and_namespace.get(t.host, {}).get(ruleset.namespace)
        service = own if own is not None and ups.istiod.visible(own, ups.proxy.namespace) else ups.scope.services.get(t.host)
        host = service.external_name if service is not None and service.external_name else t.host
        port = t.port if t.port is not None else service.ports[0].number if service is not None and len(service.ports) == 1 else number
        out.append((ups.of(host, port, t.subset), t.weight, t.path))
    return tuple(out)


def _l4_fits(match: L4Match, one: Bound) -> bool:
    return match.port in (0, one.server.port.number) and (not match.gateways or one.gateway.name in match.gateways)


def _meant(one: Bound, ruleset: RuleSet) -> bool:
    """Whether a server's hosts and a ruleset's meet (pickMatchingGatewayHosts)."""
    for h in one.hosts:
        ns, slash, name = h.rpartition("/")
        if slash and ns != ruleset.namespace:
            continue
        if any(names.matches(name, own) for own in ruleset.hosts):
            return True
    return False


def _tcp(ups: Upstreams, one: Bound) -> Iterator[Step]:
    number = one.server.port.number
    for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
        if not _meant(one, ruleset):
            continue
        for rule in ruleset.tcp:
            if rule.targets and (not rule.matches or any(_l4_fits(m, one) for m in rule.matches)):
                yield _l4_step(ups, ruleset, rule, "*", number, "tcp", "every connection")
                return
        if ruleset.kind == "TLSRoute" and not one.passthrough:
            for rule in ruleset.tls:
                if any(_l4_fits(m, one) for m in rule.matches):
                    yield _l4_step(ups, ruleset, rule, "*", number, "tcp", "every connection")
                    return


def _passthrough(ups: Upstreams, one: Bound, seen: set[object]) -> Iterator[Step]:
    if one.tls == "AUTO_PASSTHROUGH":
        return  # one chain for each cluster of the mesh, named by SNI: no rule of any host
    for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
        if not _meant(one, ruleset):
            continue
        for rule in ruleset.tls:
            for match in rule.matches if rule.targets else ():
                if not _l4_fits(match, one):
                    continue
                sni = match.sni_hosts or ()
                if any((one.port, one.server.bind, h) in seen for h in sni):
                    continue
                seen.update((one.port, one.server.bind, h) for h in sni)
                for h in sni:
                    yield _l4_step(ups, ruleset, rule, h, one.server.port.number, "tls", f"SNI {h}")


def _l4_step(ups: Upstreams, ruleset: RuleSet, rule: L4Rule, host: str, number: int, kind: str, match: str) -> Step:
    return Step(host, number, kind, "route", ruleset.ref, rule.path, match, tuple(l4_targets(ups, rule, number)))
