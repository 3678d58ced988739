"""What a gateway does with a call: the virtual hosts and filter chains of the Gateways that select it.

Rules: semantics.md 3.2; pilot/pkg/model/gateway.go and pilot/pkg/networking/core/gateway.go in istio/istio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from checks import names
from checks.gatewayapi import BoundGateway
from checks.registry import GATEWAY_NAME, TRUE, port_protocol, protocol
from checks.resources import EndpointSlice, L4Match, Pod, Server, Service, ServiceEntry
from checks.rulesets import L4Rule, Rule, RuleSet, describe, is_catch_all, rules_for
from checks.sidecar import Step, l4_targets
from checks.upstream import Upstreams

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from checks.istiod import Istiod, Proxy
    from checks.mesh import Mesh
    from checks.resources import HTTPMatch, ServicePort
    from checks.upstream import Upstream
    from checks.viewpoints import Class

_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})
UNREAD = frozenset({"PASSTHROUGH", "AUTO_PASSTHROUGH"})
"""The modes in which TLS goes through unread."""


class Port(NamedTuple):
    """One port of a Service or ServiceEntry (`ref`) that leads to the gateway's pod: what callers use, and where the pod listens.

    `known`: istiod looks for a Gateway's port here, which it does once for each target of a Service. `translated`: for that of an Istio Gateway, too.
    """

    ref: str
    service: str
    namespace: str
    number: int
    target: int
    known: bool
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
        """The server's TLS mode, empty without TLS; settings of an HTTP server say no more than where to redirect."""
        return self.server.tls.mode if self.server.tls and self.kind not in _HTTP else ""

    @property
    def passthrough(self) -> bool:
        """Whether TLS goes through unread."""
        return self.tls in UNREAD

    @property
    def kind(self) -> str:
        """The server's protocol as istiod reads it."""
        return protocol(self.server.port.protocol)

    @property
    def http(self) -> bool:
        """Whether it has HTTP routes."""
        return speaks_http(self.server)

    @property
    def secure(self) -> bool:
        """Whether it has TLS settings and is not HTTP (gateway.IsTLSServer)."""
        return self.server.tls is not None and self.kind not in _HTTP


@dataclass(slots=True)
class Merged:
    """All servers of one gateway workload after istiod's merge, and those that lost a conflict."""

    by_route: dict[str, list[Bound]] = field(default_factory=dict)
    l4: list[Bound] = field(default_factory=list)
    rejected: list[tuple[Bound, str]] = field(default_factory=list)
    closed: list[Bound] = field(default_factory=list)
    """Those on ports that its pods may not open."""
    shut: list[Bound] = field(default_factory=list)
    """Listeners that istiod left out for want of a certificate."""

    def of(self, gateway: str, server: Server) -> list[Bound]:
        """A server of a Gateway (`namespace/name`) on each port of the pods that it is for."""
        every = (*(b for group in self.by_route.values() for b in group), *self.l4, *self.closed)
        return [b for b in every if b.gateway.name == gateway and b.server is server]


def bound(ups: Upstreams) -> list[BoundGateway]:
    """The Gateways that a workload serves (push_context.mergeGateways, filterStrictGatewayMerging), oldest first."""
    plane = ups.istiod.plane
    everything = [
        *(
            BoundGateway(f"{g.namespace}/{g.name}", g.namespace, g.created, g.spec.servers or (), g.ref)
            for g in ups.istiod.gateways
            if not g.spec.selector or all(ups.proxy.labels.get(k) == v for k, v in g.spec.selector.items())
            if not plane.scopes_gateways or g.namespace == ups.proxy.namespace
        ),
        *(g for g in ups.istiod.api.gateways if _serves(ups, g)),
    ]
    everything.sort(key=lambda g: (g.created, g.name.partition("/")[2], g.namespace))
    managed = {g.namespace for g in everything if g.services is not None and g.managed} if plane.strict_merging else set()
    return [g for g in everything if not managed or g.services is not None or g.namespace in managed]


def _serves(ups: Upstreams, gateway: BoundGateway) -> bool:
    proxy, known = ups.proxy, gateway.services or ()
    if not proxy.pod:  # of manifests without pods: whoever has the Gateway's name serves it
        return bool(known) and gateway.of == f"{proxy.namespace}/{proxy.labels.get(GATEWAY_NAME)}"
    return any(p.known and p.service in known and p.namespace == _home(gateway) for p in ports(ups))


def _home(gateway: BoundGateway) -> str:
    """The namespace of a listener's Gateway, where its workload is."""
    return gateway.of.partition("/")[0]


def ports(ups: Upstreams) -> tuple[Port, ...]:
    """The ports behind which a proxy's pod stands, in the order in which istiod looks (Proxy.SetServiceTargets).

    The Services that select it; where none does, those whose EndpointSlices name its address (controller.GetProxyServiceTargets). The ServiceEntries
    of its namespace that have it among their endpoints, always (serviceentry.Controller.GetProxyServiceTargets).
    """
    mesh, proxy = ups.mesh, ups.proxy
    return mesh.now(("ports", proxy.cluster, proxy.namespace, proxy.pod, proxy.revision), lambda: _ports(mesh, ups.istiod, proxy))


def _ports(mesh: Mesh, istiod: Istiod, proxy: Proxy) -> tuple[Port, ...]:
    cluster = mesh.cluster(proxy.cluster)
    pod = cluster.get(Pod, proxy.namespace, proxy.pod)
    if pod is None:
        return ()
    services = cluster.within(Service, proxy.namespace)
    own = {pod.status.pod_ip, *(i.ip for i in pod.status.pod_ips or ())} - {""}

    def ahead() -> tuple[list[Service], list[Service]]:
        chosen = [s for s in services.values() if s.spec.selector and all(pod.labels.get(k) == v for k, v in s.spec.selector.items())]
        return chosen, [s for s in services.values() if not chosen or not s.spec.selector]

    selecting, loose = mesh.once(("ahead", cluster.name, proxy.namespace, proxy.pod), (services, pod), ahead)
    if not cluster.within(EndpointSlice, pod.namespace):
        loose = []
    entered = [
        (e, host)
        for e in mesh.cluster(istiod.cluster).within(ServiceEntry, pod.namespace).values()
        if e.spec.workload_selector is not None or any(x.address in own for x in e.spec.endpoints or ())
        for host in e.spec.hosts or ()
    ]
    by_hand = [mesh.endpoints(istiod, names.service_host(s.name, s.namespace), s.namespace) for s in loose]
    by_entry = [mesh.endpoints(istiod, host, e.namespace) for e, host in entered]

    def find() -> tuple[Port, ...]:
        found: list[tuple[str, Port]] = [(s.created, p) for s in selecting for p in _behind(pod, s)]
        for s, among in zip(loose, by_hand, strict=True):
            host, number = names.service_host(s.name, s.namespace), {p.name: p.port for p in s.spec.ports}
            mine = [e for e in among if e.cluster == proxy.cluster and e.address == pod.status.pod_ip and e.legacy_port is None]
            found += [(s.created, _port(s, host, number[e.port_name], e.port, known=not selecting)) for e in mine if e.port_name in number]
        for (entry, host), among in zip(entered, by_entry, strict=True):
            found += [
                (entry.created, _port(entry, host, e.legacy_port, e.port)) for e in among if e.address in own and e.legacy_port is not None
            ]
        return tuple(p for _, p in sorted(found, key=lambda f: (f[0], f[1].service)))

    made_of = services, pod, *by_hand, *(e for e, _ in entered), *by_entry
    return mesh.once(("ports", cluster.name, proxy.namespace, proxy.pod), made_of, find)


def _behind(pod: Pod, service: Service) -> Iterator[Port]:
    """The ports of a Service that selects a pod (controller.GetProxyServiceTargetsByPod)."""
    seen: set[tuple[int, str]] = set()
    for p in service.spec.ports:
        if target := _target(pod, p):
            first = (target, port_protocol(p)) not in seen
            seen.add((target, port_protocol(p)))
            yield _port(service, names.service_host(service.name, service.namespace), p.port, target, known=first)


def _port(of: Service | ServiceEntry, host: str, number: int, target: int, *, known: bool = True) -> Port:
    plain = "experimental.istio.io/disable-gateway-port-translation" not in of.labels
    return Port(of.ref, host, of.namespace, number, target, known, known and plain)


def _target(pod: Pod, port: ServicePort) -> int:
    """The pod's port that a Service's leads to, 0 where no container names it (controller.FindPort)."""
    if not isinstance(port.target_port, str):  # written by hand it may be missing: the port itself
        return port.target_port or port.port
    staying = (c for c in pod.spec.init_containers or () if c.restart_policy == "Always")
    declared = (p for c in (*pod.spec.containers, *staying) for p in c.ports or ())
    return next((p.container_port for p in declared if p.name == port.target_port and p.protocol == port.protocol), 0)


def _resolve(gateway: BoundGateway, number: int, known: Sequence[Port]) -> list[int]:
    """The pod's ports for a server's port (resolvePorts)."""
    if gateway.services is None or not known:
        first = next((p.target for p in known if p.number == number and p.translated), None)
        return [number if first is None else first]
    mine = (p for p in known if p.known and p.service in gateway.services and p.namespace == _home(gateway))
    return sorted({p.target for p in mine if p.number == number})


def merge(mesh: Mesh, ups: Upstreams) -> Merged:
    """The servers of a gateway workload as istiod merges them (model.mergeGateways)."""
    proxy = ups.proxy
    return mesh.now(("merged", proxy.cluster, proxy.namespace, proxy.pod, proxy.revision), lambda: _known(mesh, ups))


def holds(mesh: Mesh, c: Class, host: str) -> bool:
    """Whether a gateway may have a rule for a host: a virtual host of it, or a listener that tells no hosts apart."""
    known: dict[int, tuple[Class, frozenset[str] | None]] = mesh.now("held", dict)  # by id: it is asked for each host
    found = known.get(id(c))
    if found is None:
        found = known[id(c)] = c, _held(mesh, Upstreams(mesh, c.istiod, c.proxy, c.scope))
    hosts = found[1]
    return hosts is None or host in hosts


def meant(ups: Upstreams, one: Bound, host: str) -> bool:
    """Whether some rule of a host is for a server."""
    return host.lower() in _fitting(ups, one)


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
    made_of = ups.istiod, ports(ups), cluster.get(Pod, proxy.namespace, proxy.pod), proxy
    return mesh.once(
        ("merged", cluster.name, proxy.namespace, proxy.pod or frozenset(proxy.labels.items())), made_of, lambda: _merge(mesh, ups)
    )


def _merge(mesh: Mesh, ups: Upstreams) -> Merged:
    merging, known, shut = _Merging(), ports(ups), list[Bound]()
    for gateway in bound(ups):
        for server in gateway.servers:
            if not server.port.number:
                continue
            hosts = names.of_server(server.hosts or (), gateway.namespace)
            for number in _resolve(gateway, server.port.number, known):
                one = Bound(gateway, server, hosts, number, _route_name(gateway, server, number))
                if gateway.shut:
                    shut.append(one)
                else:
                    merging.add(one)
    pod = mesh.cluster(ups.proxy.cluster).get(Pod, ups.proxy.namespace, ups.proxy.pod)
    unprivileged = pod is not None and _unprivileged(pod)
    merged = merging.merged(lambda b: unprivileged and b.port < _PRIVILEGED)
    merged.shut = shut
    return merged


_PRIVILEGED = 1024
"""Ports below are root's."""


def _unprivileged(pod: Pod) -> bool:
    """Whether a gateway's pod told istiod that it may not open such ports, as those of istio-ingress and istio-egress charts do (Proxy.IsUnprivileged)."""
    own = (e for c in pod.spec.containers if c.name == "istio-proxy" for e in c.env or ())
    return any(e.name == "ISTIO_META_UNPRIVILEGED_POD" and e.value in TRUE for e in own)


@dataclass(slots=True)
class _Merging:
    """The servers of a workload one after the other, as istiod puts them together (model.mergeGateways).

    `listeners` has those of each pod port, protocol as it is written, and address. Of each port, `taken` has the address at which a TLS host was
    seen last, and `plain` protocol and place of the last server without TLS.
    """

    by_route: dict[str, list[Bound]] = field(default_factory=dict)
    listeners: dict[tuple[int, str, str], list[Bound]] = field(default_factory=dict)
    rejected: list[tuple[Bound, str]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    taken: dict[int, dict[str, str]] = field(default_factory=dict)
    plain: dict[int, tuple[str, tuple[int, str, str]]] = field(default_factory=dict)

    def add(self, one: Bound) -> None:
        """Put a server in its place, or among those that lost a conflict."""
        reason = self._place(one)
        if reason:
            self.rejected.append((one, reason))

    def _place(self, one: Bound) -> str:
        server, number = one.server, one.port
        place = number, server.port.protocol, server.bind
        if server.tls is not None and (double := _doubles(one.hosts, server.bind, self.taken.setdefault(number, {}))):
            return f"host {double} is already served on port {number}"
        if number in self.plain:
            current, where = self.plain[number]
            if where[2] == server.bind:
                if not (one.kind in _HTTP and current in _HTTP):
                    return f"port {number} already speaks {current}"
                self.listeners[where].append(one)
                self.by_route.setdefault(one.route, []).append(one)
                return ""
            if place in self.listeners:
                self.listeners[place].append(one)
                if one.http:
                    self.by_route.setdefault(one.route, []).append(one)
                return ""
        elif number in self.seen and one.secure:
            if one.http and one.route in self.by_route:
                return f"port name {server.port.name} is not unique"
            self.listeners.setdefault(place, []).append(one)
            if one.http:
                self.by_route[one.route] = [one]
            return ""
        self.seen.add(number)
        if not one.secure:
            self.plain[number] = one.kind, place
        self.listeners[place] = [one]
        if one.http:
            self.by_route[one.route] = [one]
        return ""

    def merged(self, closed: Callable[[Bound], bool]) -> Merged:
        """What came of it, without what is on closed ports."""
        l4 = [b for servers in self.listeners.values() for b in servers if not b.http]
        by_route = {route: servers for route, servers in self.by_route.items() if not closed(servers[0])}
        lost = [b for route, servers in self.by_route.items() if route not in by_route for b in servers]
        return Merged(by_route, [b for b in l4 if not closed(b)], self.rejected, [*lost, *filter(closed, l4)])


def _doubles(hosts: Iterable[str], bind: str, taken: dict[str, str]) -> str:
    """A host that was seen last at the same address, else none and all of them are taken from now on (model.CheckDuplicates)."""
    known = list(hosts)
    double = next((h for h in known if taken.get(h) == bind), "")
    if not double:
        taken.update(dict.fromkeys(known, bind))
    return double


def _route_name(gateway: BoundGateway, server: Server, number: int) -> str:
    kind = protocol(server.port.protocol)
    bind = f".{server.bind}" if server.bind else ""
    if kind in _HTTP:
        return f"http.{number}{bind}"
    if speaks_http(server):
        ns, _, name = gateway.name.partition("/")
        return f"https.{server.port.number}.{server.port.name}.{name}.{ns}{bind}"
    return ""


def speaks_http(server: Server) -> bool:
    """Whether a server has HTTP routes: HTTP, or HTTPS that is read (gateway.IsHTTPServer)."""
    kind = protocol(server.port.protocol)
    return kind in _HTTP or (kind == "HTTPS" and (server.tls is None or server.tls.mode not in UNREAD))


def hosts_for(server: Server, gateway_namespace: str, namespace: str) -> list[str]:
    """A server's hosts as VirtualServices of a namespace may use them."""
    return names.for_namespace(names.of_server(server.hosts or (), gateway_namespace), namespace)


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
    taken: dict[int, dict[str, str]] = {}
    for one in merged.l4:
        for step in _passthrough(ups, one, taken) if one.passthrough else _tcp(ups, one):
            same = step.host, step.port, step.protocol, step.source, step.path, tuple(id(u) for u, _, _ in step.targets)
            if (wanted is None or step.host in wanted) and same not in seen:
                seen.add(same)
                yield step


@dataclass(slots=True)
class _VirtualHost:
    """One host of a route configuration: its rules in order of coming, what they are made of, and whether plain HTTP is sent away."""

    port: int
    rules: list[tuple[Step, bool]] = field(default_factory=list)
    made_of: list[tuple[str, str, int]] = field(default_factory=list)
    redirect: bool = False

    def steps(self) -> Iterator[Step]:
        """Its rules as Envoy tries them, those that take everything last (SortVHostRoutes)."""
        for step in (*(s for s, last in self.rules if not last), *(s for s, last in self.rules if last)):
            yield replace(step, moved=True) if self.redirect else step


def felt(ups: Upstreams, steps: Iterable[Step]) -> Iterator[Step]:
    """The rules as requests meet them: where plain HTTP is sent to https, each answers with a redirect (Envoy, VirtualHost.require_tls).

    Behind proxies that are trusted the scheme is what these say of it (xff_num_trusted_hops), and the rules may be met all the same.
    """
    for step in steps:
        yield replace(step, action="redirect") if step.moved and not _behind_proxies(ups) else step


def _behind_proxies(ups: Upstreams) -> bool:
    """Whether a gateway trusts proxies before it: by the mesh's default, or by what its pod says of its own (ProxyConfig.gatewayTopology)."""
    pod = ups.mesh.cluster(ups.proxy.cluster).get(Pod, ups.proxy.namespace, ups.proxy.pod)
    own = pod.annotations.get("proxy.istio.io/config", "") if pod is not None else ""
    return bool(ups.istiod.config.default_config.gateway_topology.num_trusted_proxies) or "numTrustedProxies" in own


def _folded(vhosts: dict[str, _VirtualHost]) -> dict[str, str]:
    """The virtual hosts that Envoy gets: those with the very same rules are one that answers to several names (collapseDuplicateRoutes)."""
    last: dict[object, str] = {}
    also: dict[str, list[str]] = {}
    for host in sorted(vhosts, key=names.specificity):
        v = vhosts[host]
        if not v.rules:
            continue
        rules = tuple(v.made_of)
        if rules in last and vhosts[last[rules]].redirect == v.redirect:
            also[last[rules]].append(host)
        else:
            last[rules] = host
            also[host] = []
    return {host: f"also for {', '.join(others)}" if others else host for host, others in also.items()}


def _fitting(ups: Upstreams, one: Bound) -> dict[str, list[RuleSet]]:
    """The rulesets of each virtual host of a server, in istiod's order."""

    def find() -> dict[str, list[RuleSet]]:
        out: dict[str, list[RuleSet]] = {}
        for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
            fitting = names.intersection(names.for_namespace(one.hosts, ruleset.namespace), ruleset.hosts)
            for host in fitting:
                out.setdefault(host.lower(), []).append(ruleset)
        return out

    return ups.istiod.once(f"fitting {ups.proxy.namespace} {one.gateway.name} {' '.join(one.hosts)}", find)


def _http(ups: Upstreams, servers: list[Bound], wanted: Collection[str] | None) -> dict[str, _VirtualHost]:
    vhosts: dict[str, _VirtualHost] = {}
    numbers = _numbers(ups, servers)
    for one in servers:
        redirect = bool(one.server.tls and one.server.tls.https_redirect)
        known = _fitting(ups, one)
        for host in known if wanted is None else [h for h in wanted if h in known]:
            for ruleset in known[host]:
                own = f"{ruleset.namespace}/{ruleset.name}"
                number = numbers.get((one.gateway.name, own), one.server.port.number)
                pairs = _pairs(ups, one, ruleset, number)
                if not pairs:
                    continue
                mine = vhosts.setdefault(host, _VirtualHost(one.server.port.number))
                mine.redirect = mine.redirect or redirect
                for i, (rule, match) in enumerate(pairs):
                    step = Step(
                        host,
                        mine.port,
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
                    mine.made_of.append((one.gateway.name, own, i))
        for host in [h.lower() for h in one.hosts] if redirect else ():  # whoever else serves one of these is sent away as well
            if wanted is None or host in wanted:
                vhosts.setdefault(host, _VirtualHost(one.server.port.number)).redirect = True
    return vhosts


def _pairs(ups: Upstreams, one: Bound, ruleset: RuleSet, number: int) -> list[tuple[Rule, HTTPMatch | None]]:
    return rules_for(ruleset, number, ups.proxy.labels, frozenset({one.gateway.name}), ups.proxy.namespace)


def _numbers(ups: Upstreams, servers: list[Bound]) -> dict[tuple[str, str], int]:
    """Where servers of one Gateway meet on a port of the pods under several numbers: for which of these a ruleset's routes were made, once for all."""
    out: dict[tuple[str, str], int] = {}
    if len({(b.gateway.name, b.server.port.number) for b in servers}) == len({b.gateway.name for b in servers}):
        return out
    for one in servers:
        number = one.server.port.number
        for ruleset in {r: None for found in _fitting(ups, one).values() for r in found}:
            key = one.gateway.name, f"{ruleset.namespace}/{ruleset.name}"
            if key not in out and _pairs(ups, one, ruleset, number):
                out[key] = number
    return out


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


def l4_fits(match: L4Match, server: Server, name: str) -> bool:
    """Whether a match of a tcp or tls rule is for a server of a Gateway: it looks at port and gateways, never at the caller (l4SingleMatch)."""
    return match.port in (0, server.port.number) and (not match.gateways or name in match.gateways)


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
    for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
        if not _meant(one, ruleset):
            continue
        rule = next(
            (r for r in ruleset.tcp if r.targets and (not r.matches or any(l4_fits(m, one.server, one.gateway.name) for m in r.matches))),
            None,
        )
        if rule is None and ruleset.kind == "TLSRoute":
            rule = next((r for r in ruleset.tls if any(l4_fits(m, one.server, one.gateway.name) for m in r.matches)), None)
        if rule is not None:
            yield from _l4_steps(ups, one, ruleset, rule, sorted({h.rpartition("/")[2] for h in one.hosts}) if one.secure else ["*"])
            return


def _passthrough(ups: Upstreams, one: Bound, seen: dict[int, dict[str, str]]) -> Iterator[Step]:
    if one.tls == "AUTO_PASSTHROUGH":
        return  # one chain for each cluster of the mesh, named by SNI: no rule of any host
    for ruleset in ups.istiod.rulesets_for(ups.proxy.namespace, one.gateway.name):
        if not _meant(one, ruleset):
            continue
        for rule in ruleset.tls:
            for match in rule.matches if rule.targets else ():
                sni = match.sni_hosts or ()
                if l4_fits(match, one.server, one.gateway.name) and not _doubles(sni, one.server.bind, seen.setdefault(one.port, {})):
                    yield from _l4_steps(ups, one, ruleset, rule, sni)


def _l4_steps(ups: Upstreams, one: Bound, ruleset: RuleSet, rule: L4Rule, sni: Collection[str]) -> Iterator[Step]:
    """A rule under each server name by which connections come to it; one of them `*`, and all do (filterChainOpts.toFilterChainMatch)."""
    number = one.server.port.number
    targets = tuple(l4_targets(ups, rule, number))
    named = [("*", "tcp", "every connection")] if "*" in sni else [(h, "tls", f"SNI {h}") for h in sni]
    for host, kind, match in named:
        yield Step(host, number, kind, "route", ruleset.ref, rule.path, match, targets)
