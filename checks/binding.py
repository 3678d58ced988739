"""Where a host's VirtualServices and routes take effect: the gateways that they are bound to, the callers that they serve, and what is left over.

A binding of a VirtualService to a gateway has at most one fault, the nearest to what a person must mend; each check takes its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks import gateway, names, sidecar
from checks.answers import Viewpoint
from checks.istiod import MESH
from checks.resources import Deployment, Gateway, HTTPMatch, Pod, Resource, Rollout, Service, StatefulSet, VirtualService
from checks.routes import upstreams
from checks.rulesets import Lost, Rule, RuleSet, is_catch_all, l4_match, rules_for
from checks.viewpoints import callers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from checks.case import Case, View
    from checks.gateway import Bound, Merged, Port
    from checks.gatewayapi import BoundGateway
    from checks.istiod import Istiod, Listener
    from checks.mesh import Cluster, Mesh
    from checks.registry import HostService
    from checks.resources import L4Match, Server, StringMatch, Workload
    from checks.sidecar import Step
    from checks.upstream import Upstreams


# --- gateways as they run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """A gateway workload: its proxy's view, the Gateways that it serves, and its servers after istiod's merge."""

    viewpoint: Viewpoint
    ups: Upstreams
    bound: tuple[BoundGateway, ...]
    merged: Merged
    ports: tuple[Port, ...]

    @property
    def namespace(self) -> str:
        """Where its pods live."""
        return self.ups.proxy.namespace

    def selected(self, selector: dict[str, str] | None) -> bool:
        """Whether a selector means its pods."""
        return all(self.ups.proxy.labels.get(k) == v for k, v in (selector or {}).items())

    def near(self, gateway: Gateway) -> bool:
        """Whether a Gateway's namespace lets it mean its pods."""
        return not self.ups.istiod.plane.scopes_gateways or gateway.namespace == self.namespace

    def reached(self, server: Bound) -> bool:
        """Whether anybody gets to the port of its pods where a server is: through a Service, or at the node's own address."""
        if server in self.merged.closed:
            return False
        pod = self.ups.mesh.cluster(self.ups.proxy.cluster).get(Pod, self.namespace, self.ups.proxy.pod)
        declared = [p for c in (pod.spec.containers if pod else ()) for p in c.ports or ()]
        return (
            any(p.target == server.port for p in self.ports)
            or any(p.container_port == server.port and p.host_port for p in declared)
            or (pod is not None and pod.spec.host_network)
        )

    def astray(self, number: int) -> tuple[Service, str] | None:
        """A Service in front of its pods that leads a port to a name which no container of theirs declares, and the name."""
        cluster = self.ups.mesh.cluster(self.ups.proxy.cluster)
        pod = cluster.get(Pod, self.namespace, self.ups.proxy.pod)
        for s in cluster.ordered(Service, self.namespace) if pod is not None else ():
            if s.spec.selector and self.selected(s.spec.selector):
                for p in s.spec.ports:
                    if (
                        p.port == number
                        and isinstance(p.target_port, str)
                        and not any(b.ref == s.ref and b.number == number for b in self.ports)
                    ):
                        return s, p.target_port
        return None

    def servers(self, number: int) -> list[Bound]:
        """Its servers behind a port of its pods."""
        every = [b for group in self.merged.by_route.values() for b in group] + self.merged.l4
        return [b for b in every if b.port == number]


def gates(mesh: Mesh) -> list[Gate]:
    """Every gateway workload of a mesh."""
    return mesh.now(("gates",), lambda: list(_gates(mesh)))


def _gates(mesh: Mesh) -> Iterator[Gate]:
    around = callers(mesh)
    for c in mesh.once(("gateways",), (around,), lambda: [x for x in around if x.viewpoint.kind == "gateway"]):
        ups = upstreams(mesh, c.proxy)
        known = gateway.ports(ups)
        made_of = ups.istiod, mesh.cluster(c.proxy.cluster).objects.get(Pod, {}).get(c.proxy.namespace), known

        def look(ups: Upstreams = ups, known: tuple[Port, ...] = known) -> tuple[tuple[BoundGateway, ...], Merged, tuple[Port, ...]]:
            return tuple(gateway.bound(ups)), gateway.merge(mesh, ups), known

        yield Gate(c.viewpoint, ups, *mesh.once(("gate", c.viewpoint), made_of, look))


def idle(mesh: Mesh) -> dict[Viewpoint, tuple[HostService, ...]]:
    """The gateways that nobody reaches: of all Services in front of their pods no endpoint is healthy, and some pod is there."""

    def find() -> dict[Viewpoint, tuple[HostService, ...]]:
        out: dict[Viewpoint, tuple[HostService, ...]] = {}
        for gate in gates(mesh):
            istiod = gate.ups.istiod
            ahead = {(p.service, p.namespace) for p in gate.ports}
            behind = [
                (s, mesh.endpoints(istiod, s.hostname, s.namespace))
                for n, ns in sorted(ahead)
                for s in istiod.by_host.get(n, ())
                if s.namespace == ns
            ]
            own = [(s, [e for e in found if e.cluster == gate.ups.proxy.cluster]) for s, found in behind]
            if (
                own
                and not any(e.health == "healthy" for _, found in own for e in found)
                and any(e.unready for _, found in own for e in found)
            ):
                out[gate.viewpoint] = tuple(s for s, _ in own)
        return out

    return mesh.now(("idle gateways",), find)


# --- rulesets of a host ----------------------------------------------------------------------------------------------------------


def rulesets(case: Case) -> list[tuple[Istiod, RuleSet]]:
    """The VirtualServices and routes that name the host, by themselves or as gateways narrow them; of those that name `*`, the ones that lead to it."""

    def find() -> list[tuple[Istiod, RuleSet]]:
        return [(i, r) for i in case.mesh.control_planes for r in _by_host(i).get(case.host.lower(), ())]

    return case.once("rulesets", find)


def ruling(istiod: Istiod, such: Callable[[RuleSet], bool]) -> list[str]:
    """The hosts that have a VirtualService or route such as is asked for."""
    return [host for host, found in _by_host(istiod).items() if any(map(such, found))]


def _by_host(istiod: Istiod) -> dict[str, list[RuleSet]]:
    return istiod.once("rulesets by host", lambda: _index_by_host(istiod))


def _index_by_host(istiod: Istiod) -> dict[str, list[RuleSet]]:
    out: dict[str, list[RuleSet]] = {}
    for r in istiod.rulesets:
        for host in dict.fromkeys(h.lower() for h in r.hosts if h != "*"):
            out.setdefault(host, []).append(r)
        if "*" in r.hosts:
            for to in r.leads:
                if to and to not in {h.lower() for h in r.hosts}:
                    out.setdefault(to, []).append(r)
    for host, r in istiod.narrowed:
        if r not in out.setdefault(host, []):
            out[host].append(r)
    return out


def virtual_service(istiod: Istiod, ref: str) -> VirtualService | None:
    """A VirtualService by its ref."""
    return istiod.once("virtual services", lambda: {v.ref: v for v in istiod.all(VirtualService) if isinstance(v, VirtualService)}).get(ref)


def kept(istiod: Istiod, name: str) -> Gateway | None:
    """An Istio Gateway by `namespace/name`."""
    return istiod.once("gateways", lambda: {f"{g.namespace}/{g.name}": g for g in istiod.gateways}).get(name)


# --- bindings to gateways --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One entry of `gateways:` of a VirtualService that names the host, and what keeps it from serving: a cause's id, or nothing.

    `share` is 1 unless a gateway serves the host all the same. `gates` are the workloads that it is about.
    """

    istiod: Istiod
    ruleset: RuleSet
    name: str
    gateway: Gateway | None
    fault: str
    gates: tuple[Gate, ...] = ()
    server: Server | None = None
    reason: str = ""
    share: float = 1.0

    def stopped(self, mesh: Mesh) -> list[tuple[Cluster, Workload]]:
        """The workloads whose pods its Gateway selects, if every one of them stands at 0 replicas."""
        selector = (self.gateway.spec.selector or {}) if self.gateway is not None else {}
        found = [
            (c, w)
            for c in mesh.clusters
            if mesh.istiod(c.name) is self.istiod
            for kind in (Deployment, StatefulSet, Rollout)
            for w in c.sorted(kind)
            if selector and all((w.spec.template.metadata.labels or {}).get(k) == v for k, v in selector.items())
        ]
        return found if all(w.wanted == 0 for _, w in found) else []

    @property
    def index(self) -> int:
        """Its place in `gateways:`."""
        return self.ruleset.gateways.index(self.name)

    @property
    def viewpoints(self) -> tuple[Viewpoint, ...]:
        """The gateways that it is about; of one that nobody runs, the namespace where it should."""
        found = tuple(dict.fromkeys(g.viewpoint for g in self.gates))
        return found or (Viewpoint(self.istiod.cluster, "gateway", self.name.partition("/")[0]),)


def bindings(case: Case, fault: str) -> list[Binding]:
    """The bindings of the host's VirtualServices that have this fault. Raises Unreadable where what is missing may only be unseen."""
    found = [b for b in every_binding(case) if b.fault == fault]
    for b in found:
        for c in case.mesh.clusters if fault in _NEEDS else ():
            if case.mesh.istiod(c.name) is b.istiod:
                case.mesh.require(c, _NEEDS[fault])
    return found


_NEEDS: dict[str, type[Resource]] = {"vs-gateway-missing": Gateway, "gw-selector-no-pod": Pod, "gw-port-not-on-service": Service}


def every_binding(case: Case) -> list[Binding]:
    """Every binding of the host's VirtualServices to a gateway that has a fault."""
    return case.once("bindings", lambda: list(_bindings(case)))


def _bindings(case: Case) -> Iterator[Binding]:
    around: dict[Istiod, list[Gate]] = {}
    for gate in gates(case.mesh):
        around.setdefault(gate.ups.istiod, []).append(gate)
    seen: set[tuple[str, str]] = set()
    steps = {v.callers.viewpoints[0]: v.steps for v in case.views if v.callers.proxy.kind == "gateway"}
    for istiod, ruleset in rulesets(case):
        if ruleset.gateway_api:
            continue
        for name in ruleset.gateways:
            if name == "mesh" or (ruleset.ref, name) in seen or "~istio-autogenerated" in name:
                continue
            seen.add((ruleset.ref, name))
            yield from _binding(case, istiod, ruleset, name, around.get(istiod, []), steps)


def _binding(
    case: Case, istiod: Istiod, ruleset: RuleSet, name: str, around: list[Gate], steps: dict[Viewpoint, list[Step]]
) -> Iterator[Binding]:
    found = kept(istiod, name)
    elsewhere = 0.0 if any(steps.values()) else 1.0
    if found is None:
        yield Binding(istiod, ruleset, name, None, "vs-gateway-missing", share=elsewhere)
        return
    servers = [s for s in found.spec.servers or () if s.port.number]
    fitting = [s for s in servers if fits(s, found.namespace, ruleset, case.host)]
    if not fitting:
        if _meant(istiod, ruleset, name, case.host):
            selecting = tuple(g for g in around if g.selected(found.spec.selector))
            yield Binding(istiod, ruleset, name, found, "vs-host-not-in-gateway", selecting, share=elsewhere)
        return
    selecting = tuple(g for g in around if g.selected(found.spec.selector) and g.near(found))
    if not selecting:
        if around or any(c.viewpoint.kind == "sidecar" and c.proxy.pod for c in callers(case.mesh)):
            yield Binding(istiod, ruleset, name, found, "gw-selector-no-pod", share=elsewhere)
        return
    serving = tuple(g for g in selecting if any(b.name == name and b.services is None for b in g.bound))
    if not serving:
        yield Binding(istiod, ruleset, name, found, "gw-strict-merging", selecting, share=elsewhere)
        return
    faulty = list(_server_faults(case, istiod, ruleset, name, found, fitting, serving, steps))
    yield from faulty
    if faulty or any(s.source == ruleset.ref for g in serving for s in _steps(case, ruleset, g, steps)):
        return
    shown = tuple(g for g in serving if {"*", g.namespace} & ruleset.export_to)
    if not shown:
        yield Binding(istiod, ruleset, name, found, "vs-not-exported", serving, share=elsewhere)
    elif ruleset.http and not any(gateway.speaks_http(s) for s in fitting):
        if not ruleset.tls and not ruleset.tcp:
            yield Binding(istiod, ruleset, name, found, "vs-http-on-tcp-port", shown, fitting[0], share=elsewhere)
    elif not ruleset.http and not ruleset.lost and ruleset.gateways == (name,) and not any(_carries(ruleset, s) for s in fitting):
        yield Binding(istiod, ruleset, name, found, "vs-http-on-tcp-port", shown, fitting[0], share=elsewhere)
    elif (ruleset.http or _for_connections(ruleset, name, fitting)) and not any(
        _meets(ruleset, name, g, s) for g in shown for s in fitting
    ):
        yield Binding(istiod, ruleset, name, found, "vs-match-scope", shown, fitting[0], share=elsewhere)


def _carries(ruleset: RuleSet, server: Server) -> bool:
    """Whether a server takes a VirtualService's rules for connections: tcp where TLS ends or is none, tls where it goes through (createGatewayTCPFilterChainOpts)."""
    if not ruleset.tcp and not ruleset.tls:
        return True
    unread = server.tls is not None and server.tls.mode in gateway.UNREAD
    return not gateway.speaks_http(server) and bool(ruleset.tls if unread else ruleset.tcp)


def _meets(ruleset: RuleSet, name: str, gate: Gate, server: Server) -> bool:
    """Whether some rule of a VirtualService is for a server of a gateway."""
    proxy = gate.ups.proxy
    if gateway.speaks_http(server):
        return bool(rules_for(ruleset, server.port.number, proxy.labels, frozenset({name}), proxy.namespace))
    rules = (*ruleset.tls, *ruleset.tcp) if _carries(ruleset, server) else ()
    return any(not rule.matches or any(gateway.l4_fits(m, server, name) for m in rule.matches) for rule in rules)


def _for_connections(ruleset: RuleSet, name: str, fitting: list[Server]) -> bool:
    """Whether a VirtualService has rules for connections that are meant for a gateway: it is bound to nobody else, or a match names the gateway."""
    matches = [m for rule in (*ruleset.tls, *ruleset.tcp) for m in rule.matches]
    meant = ruleset.gateways == (name,) or any(name in (m.gateways or ()) for m in matches)
    return bool(matches) and meant and any(_carries(ruleset, s) for s in fitting)


def _steps(case: Case, ruleset: RuleSet, gate: Gate, steps: dict[Viewpoint, list[Step]]) -> Iterable[Step]:
    """A gateway's rules of the host; of a wildcard, and of a TCP server's `*`, those under which the gateway has it."""
    own = steps.get(gate.viewpoint, [])
    narrowed = {h.lower() for b in gate.bound for s in b.servers for h in names.intersection(_bare(s), ruleset.hosts)} - {case.host}
    if own or (case.host.lower() in {h.lower() for h in ruleset.hosts} and not ruleset.tcp and not names.is_wildcard(case.host)):
        return own
    return [*own, *gateway.routes(gate.ups, {*narrowed, "*"})]


def _bare(server: Server) -> list[str]:
    return [h.rpartition("/")[2] for h in server.hosts or ()]


def _server_faults(
    case: Case,
    istiod: Istiod,
    ruleset: RuleSet,
    name: str,
    found: Gateway,
    fitting: list[Server],
    serving: tuple[Gate, ...],
    steps: dict[Viewpoint, list[Step]],
) -> Iterator[Binding]:
    for server in fitting:
        number = server.port.number
        lost = [(g, reason) for g in serving for b, reason in g.merged.rejected if b.gateway.name == name and b.server is server]
        if lost:
            served = any(s.port == number and s.source == ruleset.ref for g, _ in lost for s in _steps(case, ruleset, g, steps))
            share = 0.0 if served else 1.0
            yield Binding(istiod, ruleset, name, found, "gw-conflict", tuple(g for g, _ in lost), server, lost[0][1], share)
            continue
        opened = {g: g.merged.of(name, server) for g in serving if g.ports or g.astray(number)}
        closed = tuple(g for g, mine in opened.items() if mine and not any(map(g.reached, mine)))
        if closed and len(closed) == len(serving):
            yield Binding(istiod, ruleset, name, found, "gw-port-not-on-service", closed, server)


def fits(server: Server, namespace: str, ruleset: RuleSet, host: str) -> bool:
    """Whether a server of a Gateway takes a host of a VirtualService: one that it names, one that a wildcard of its own means, or, of what `*` leads to, any."""
    mine = gateway.hosts_for(server, namespace, ruleset.namespace)
    if own := [h for h in ruleset.hosts if h.lower() == host.lower()]:
        return bool(names.intersection(mine, own))
    narrow = names.intersection(mine, [h for h in ruleset.hosts if names.is_wildcard(h)])
    return host.lower() in map(str.lower, narrow) or ("*" in ruleset.hosts and host in ruleset.leads and bool(narrow))


def _meant(istiod: Istiod, ruleset: RuleSet, name: str, host: str) -> bool:
    """Whether the host was meant to be served by a gateway: none of the VirtualService's others takes it, and the mesh does not have it."""
    others = [g for g in ruleset.gateways if g not in {"mesh", name}]
    if any(fits(s, g.namespace, ruleset, host) for o in others if (g := kept(istiod, o)) for s in g.spec.servers or ()):
        return False
    if "mesh" not in ruleset.gateways:
        return True
    found = kept(istiod, name)
    return found is not None and not any(fits(s, found.namespace, ruleset, h) for h in ruleset.hosts for s in found.spec.servers or ())


# --- requests that match no rule -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """A port of the host where some requests of these callers match no rule: 404. `fault` is the cause's id, `rule` and `lost` what it is about."""

    view: View
    port: int
    ruleset: RuleSet
    fault: str
    rule: Rule | None = None
    match: int = 0
    lost: Lost | None = None


def holes(case: Case, fault: str) -> list[list[Hole]]:
    """The holes that a cause explains, those of one place together."""
    groups: dict[tuple[str, str], list[Hole]] = {}
    for h in case.once("holes", lambda: list(_holes(case))):
        if h.fault == fault:
            where = h.rule.path if h.rule else h.lost.path if h.lost else ""
            groups.setdefault((h.ruleset.ref, where), []).append(h)
    return list(groups.values())


def _holes(case: Case) -> Iterator[Hole]:
    for view in case.views:
        by_port: dict[int, list[Step]] = {}
        for s in view.steps:
            if s.protocol == "http" and s.source and s.host == case.host and case.asked(s.port):
                by_port.setdefault(s.port, []).append(s)
        for port, steps in by_port.items():
            if any(_everything(s.match) for s in steps):
                continue
            involved = _involved(view, case.host, steps)
            if involved:
                hole = _hole(view, port, steps, involved, case.host)
                unheard = _unheard(case, hole) if hole.fault == "vs-no-default-route" else None
                yield hole if unheard is None else Hole(view, port, unheard, "vs-duplicate-mesh-host")


def _unheard(case: Case, hole: Hole) -> RuleSet | None:
    """The VirtualService that would take every request of a hole, were it not that another one of the same host comes first."""
    for c in claims(case):
        if c.view is hole.view and c.port == hole.port and c.protocol == "http":
            for r in c.unheard(case.host):
                if any(not rule.matches or any(is_catch_all(m) for m in rule.matches) for rule in r.http):
                    return r
    return None


def _everything(match: str) -> bool:
    return match in {"every request", "path /*", *(f"path ~ {x}" for x in _ANY_PATH)}


def _involved(view: View, host: str, steps: Sequence[Step]) -> list[RuleSet]:
    sources = {s.source for s in steps}
    leaves = {s.leaf for s in steps}
    mesh = view.callers.proxy.kind != "gateway"
    return [
        r
        for r in view.ups.istiod.rulesets
        if (r.ref in sources or (r.gateway_api and any(rule.leaf in leaves for rule in r.http)))
        and any(names.matches(h.lower(), host) for h in r.hosts)
        and (not mesh or "mesh" in r.gateways)
    ]


def _beside(view: View, host: str) -> bool:
    """Whether a VirtualService of the mesh names the host as well."""
    return any(not r.gateway_api and any(host == h.lower() for h in r.hosts) for li in view.ups.scope.listeners for r in li.rulesets)


def _hole(view: View, port: int, steps: Sequence[Step], involved: list[RuleSet], host: str) -> Hole:
    for r in involved:
        for lost in r.lost:
            if not lost.matches or any(is_catch_all(m) for m in lost.matches):
                return Hole(view, port, r, "vs-delegate-conflict" if lost.reason == "conflict" else "vs-delegate-missing", lost=lost)
    for r in involved:
        for rule in r.http:
            for i, m in enumerate(rule.matches):
                if is_catch_all(m):
                    return Hole(view, port, r, "vs-match-scope", rule, i)
    if involved[0].gateway_api and view.callers.proxy.kind != "gateway" and _beside(view, host):
        return Hole(view, port, involved[0], "gwapi-gamma-overrides-vs")
    if view.callers.proxy.kind == "gateway" and any(s.match.startswith("path ") and " and " not in s.match for s in steps):
        return Hole(view, port, involved[0], "")  # a gateway that publishes some paths of a host does so on purpose
    return Hole(view, port, involved[0], "vs-no-default-route")


# --- rules that are lost, and rules that hide others -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Gone:
    """An entry of a root VirtualService whose delegate gives nothing: for whom, and whether its requests then match no rule at all."""

    istiod: Istiod
    ruleset: RuleSet
    lost: Lost
    viewpoints: tuple[Viewpoint, ...]
    share: float

    @property
    def delegate_namespace(self) -> str:
        """Where the delegate is, or should be."""
        return self.lost.delegate.partition(" ")[2].partition("/")[0]

    @property
    def outcome(self) -> str:
        """What becomes of the entry's requests, for people."""
        if self.share:
            return "requests that it should take match no rule and get 404"
        return "requests that it should take go to another rule, or to the default route"


def gone(case: Case, *, conflict: bool) -> Iterator[Gone]:
    """The host's rules that istiod drops since the delegate cannot be had, or since its match and the root's exclude each other."""
    for istiod, ruleset in rulesets(case):
        for lost in ruleset.lost:
            if (lost.reason == "conflict") == conflict:
                share, viewpoints = _felt(case, istiod, ruleset, lost)
                yield Gone(istiod, ruleset, lost, viewpoints, share)


def _felt(case: Case, istiod: Istiod, ruleset: RuleSet, lost: Lost) -> tuple[float, tuple[Viewpoint, ...]]:
    share, viewpoints = 0.0, list[Viewpoint]()
    rest = [m for rule in ruleset.http for m in (rule.matches or (None,))]
    caught = all(any(covers(have, m) for have in rest) for m in lost.matches or (None,))
    for view in case.views:
        mine = [s for s in view.steps if s.source == ruleset.ref]
        if view.ups.istiod is istiod and mine:
            viewpoints += view.callers.viewpoints
            if not caught and not any(_everything(s.match) for s in mine):
                share = 1.0
    for gate in gates(case.mesh):
        shown = gate.ups.istiod is istiod and {"*", gate.namespace} & ruleset.export_to
        mine_too = [
            b for b in gate.bound if b.name in ruleset.gateways and any(fits(s, b.namespace, ruleset, case.host) for s in b.servers)
        ]
        if shown and mine_too and gate.viewpoint not in viewpoints:
            viewpoints.append(gate.viewpoint)
            if not any(v.callers.viewpoints[0] == gate.viewpoint for v in case.views):
                share = 1.0  # no rule of the host is left there
    if not viewpoints:
        viewpoints = [v for view in case.views for v in view.callers.viewpoints]
    return share, tuple(dict.fromkeys(viewpoints))


def covers(a: HTTPMatch | None, b: HTTPMatch | None) -> bool:
    """Whether every request and caller that `b` means is meant by `a` too; no when that cannot be told."""
    if a is None:
        return True
    if b is None:
        b = _EVERYTHING
    if a.port not in (0, b.port) or (a.ignore_uri_case != b.ignore_uri_case and not _any_path(a.uri)):
        return False
    if a.gateways:
        if not b.gateways or not set(b.gateways) <= set(a.gateways):
            return False
    elif (a.source_labels or a.source_namespace) and (b.gateways or not _same_callers(a, b)):
        return False
    pairs = [(a.scheme, b.scheme), (a.method, b.method), (a.authority, b.authority)]
    if not _any_path(a.uri):
        pairs.append((a.uri, b.uri))
    for mine, theirs in ((a.headers, b.headers), (a.query_params, b.query_params)):
        pairs += [(v, (theirs or {}).get(k)) for k, v in (mine or {}).items()]
    # what a match takes out, the other one has to take out as well, and more
    out = [((b.without_headers or {}).get(k), v) for k, v in (a.without_headers or {}).items()]
    return all(_wider(x, y) for x, y in pairs) and all(x is not None and _wider(x, y) for x, y in out)


_EVERYTHING = HTTPMatch()


def _any_path(uri: StringMatch | None) -> bool:
    return uri is None or (uri.prefix == "/" and not uri.exact and not uri.regex) or uri.regex in _ANY_PATH


_ANY_PATH = frozenset({".*", "/.*", "^.*$", "^/.*$", "^/.*"})
"""Expressions that every path matches: Envoy holds them against all of it."""


def _same_callers(a: HTTPMatch, b: HTTPMatch) -> bool:
    labels = b.source_labels or {}
    return all(labels.get(k) == v for k, v in (a.source_labels or {}).items()) and a.source_namespace in ("", b.source_namespace)


def _wider(a: StringMatch | None, b: StringMatch | None) -> bool:
    if a is None:
        return True
    if b is None:
        return False
    if a.prefix is not None:
        return (b.exact or b.prefix or "").startswith(a.prefix) and b.regex is None
    if a.exact is None and a.regex is None:
        return True  # only has to be there
    return a == b


def described(match: HTTPMatch | L4Match) -> str:
    """What a match asks of the caller and not of the request or connection: `port 8080`, `sourceNamespace web`."""
    parts = [f"port {match.port}"] if match.port else []
    if match.gateways:
        return " and ".join([*parts, f"gateways {', '.join(match.gateways)}"])
    parts += [f"sourceLabels {k}={v}" for k, v in sorted((match.source_labels or {}).items())]
    if match.source_namespace:
        parts.append(f"sourceNamespace {match.source_namespace}")
    return " and ".join(parts)


def delegates(istiod: Istiod) -> list[VirtualService]:
    """VirtualServices without hosts."""
    return [v for v in istiod.all(VirtualService) if isinstance(v, VirtualService) and not v.spec.hosts]


# --- who has a host in the mesh --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One listener port of the host as callers in the mesh have it: every ruleset that has rules for them there, the one that is used first."""

    view: View
    port: int
    protocol: str
    rulesets: tuple[RuleSet, ...]

    def unheard(self, host: str) -> list[RuleSet]:
        """The VirtualServices that name the host and have no effect for these callers, since another one that names it comes first."""
        own = [r for r in self.rulesets if not r.gateway_api and host in {h.lower() for h in r.hosts}]
        if not own or own[0] is not self.rulesets[0]:
            return []
        private = own[0].export_to == {own[0].namespace} == {self.view.ups.proxy.namespace}
        # a namespace that overrides the host for its own callers means to
        return [r for r in own[1:] if not private or r.namespace == own[0].namespace]


def claims(case: Case) -> list[Claim]:
    """Who claims each port of the host for each class of callers in the mesh, where anybody does."""
    return case.once("claims", lambda: [c for v in case.views if v.callers.proxy.kind == "sidecar" for c in _claims(case, v)])


def _claims(case: Case, view: View) -> Iterator[Claim]:
    for number, protocol in dict.fromkeys((s.port, s.protocol) for s in view.steps if s.host == case.host and case.asked(s.port)):
        listener = view.ups.scope.listener_for(number)
        if listener is None:
            continue
        service = listener.by_port.get(number, {}).get(case.host.lower())
        found = [r for r in listener.candidates(case.host) if _has_rules(view, listener, r, service, number, protocol, case.host)]
        if found:
            yield Claim(view, number, protocol, tuple(found))


def _has_rules(
    view: View, listener: Listener, ruleset: RuleSet, service: HostService | None, number: int, protocol: str, host: str
) -> bool:
    proxy = view.ups.proxy
    if protocol != "http":
        rules = ruleset.tcp if protocol == "tcp" else ruleset.tls
        return any(
            r.targets and (not r.matches or any(l4_match(m, proxy.labels, MESH, number, proxy.namespace) for m in r.matches)) for r in rules
        )
    if service is None:
        mine = host.lower() in {h.lower() for h in ruleset.hosts} and not ruleset.gateway_api
    else:
        mine = sidecar.claims(view.ups, listener, ruleset, service)
    return mine and bool(rules_for(ruleset, number, proxy.labels, MESH, proxy.namespace))
