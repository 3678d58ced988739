"""Where a call goes on behind the proxy that its caller asks: to a gateway of its own mesh, by its Service; into another mesh, by an address of a gateway there.

Only gateways are followed: clusters of different meshes meet nowhere else. Whose host a gateway is asked for is what a rule made of it on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from checks import gateway, names
from checks.binding import covers, gates
from checks.case import Case, View, spoken
from checks.resources import APIHTTPRoute, DestinationRule, OpenShiftRoute, Pod, Service, ServiceEntry
from checks.rulesets import describe
from checks.viewpoints import Class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.answers import Viewpoint
    from checks.binding import Gate
    from checks.case import Branch
    from checks.gateway import Bound
    from checks.istiod import Istiod
    from checks.mesh import Cluster, Mesh
    from checks.resources import HTTPMatch
    from checks.rulesets import Rule
    from checks.sidecar import Step

_RULE = re.compile(r"spec\.rules\[(\d+)\]")


class Door(NamedTuple):
    """A Service of a mesh that is entered from outside: by an address of its own (LoadBalancer or external), or by an OpenShift Route (`by`)."""

    mesh: Mesh
    cluster: Cluster
    service: Service
    address: str
    by: str = ""


def doors(mesh: Mesh) -> Mapping[str, tuple[tuple[str, Service | OpenShiftRoute], ...]]:
    """The addresses by which a mesh is entered from outside: (cluster, Service) of each; of the names of OpenShift's routers (cluster, Route)."""

    def find() -> dict[str, tuple[tuple[str, Service | OpenShiftRoute], ...]]:
        out: dict[str, tuple[tuple[str, Service | OpenShiftRoute], ...]] = {}
        for c in mesh.clusters:
            for s in c.sorted(Service):
                balanced = s.status.load_balancer.ingress if s.spec.type == "LoadBalancer" else ()
                own = {*(a for i in balanced for a in (i.ip, i.hostname) if a), *s.spec.external_ips}
                for address in own if s.spec.selector else ():
                    out[address.lower()] = (*out.get(address.lower(), ()), (c.name, s))
            for r in sorted(c.all(OpenShiftRoute), key=lambda r: r.ref):
                canonical = (i.router_canonical_hostname for i in r.status.ingress or ())
                for address in {h.lower() for h in (r.spec.host, *canonical) if h}:
                    out[address] = (*out.get(address, ()), (c.name, r))
        return out

    return mesh.once(("doors",), tuple(c.objects.get(kind) for c in mesh.clusters for kind in (Service, OpenShiftRoute)), find)


def leads_out(mesh: Mesh) -> bool:
    """Whether any ServiceEntry of a mesh may lead into another one: by an endpoint's address, or by the name of its host."""
    known = {a for m in mesh.neighbours for a in doors(m)}
    entries = (e for c in mesh.clusters for e in c.all(ServiceEntry)) if known else ()
    return any(a.lower() in known for e in entries for a in (*(p.address for p in e.spec.endpoints or ()), *(e.spec.hosts or ())))


@dataclass(frozen=True, slots=True, eq=False)
class Hop:
    """A destination that is a gateway, and what the gateway has for the host that it is asked for there.

    `address` and `number` are where it is entered, no address in the caller's own mesh; `part` of the destination's requests (0 to 1) go here.
    `host` is what the gateway is asked for, empty where nobody can say; `rewritten`: a rule made it so. `steps` are the gateway's rules of it.
    `lacks` says why the call ends here, for people, and is empty where it goes on.
    """

    branch: Branch
    mesh: Mesh
    cluster: Cluster
    service: Service
    address: str
    number: int
    part: float
    gates: tuple[Gate, ...]
    host: str
    rewritten: str
    steps: tuple[tuple[Gate, tuple[Step, ...]], ...] = ()
    lacks: str = ""
    by: str = ""

    @property
    def abroad(self) -> bool:
        """Whether it leads into another mesh."""
        return bool(self.address)

    @property
    def title(self) -> str:
        """The host under which the gateways have their rules: the one that is asked for, or a wildcard that means it."""
        return next((s.host for _, steps in self.steps for s in steps if s.host != "*"), self.host)

    @property
    def told(self) -> str:
        """The leg in words: from where, by which rule, to which gateway, asked for what."""
        b = self.branch
        first = b.view.callers.viewpoints[0]
        who = f"gateway {first.namespace} ({first.selector})" if first.kind == "gateway" else "callers"
        place = f"{b.path} of {b.resource}" if b.path else f"the default route of {b.resource}"
        at = self._at or f":{self.number}"
        asked = f", asked for {self.host}" if self.host else ""
        return f"leg 1: {who} in {first.cluster}, {place} leads to gateway {self.service.name}.{self.service.namespace}{at} in {self.cluster.name}{asked}"

    @property
    def way(self) -> str:
        """The gateway and how it is entered, in words."""
        return f"gateway {self.service.name}.{self.service.namespace} of {self.cluster.name}{self._at}"

    @property
    def _at(self) -> str:
        by = f" ({self.by})" if self.by else ""
        return f" at {self.address}{by}, port {self.number}" if by else f" at {self.address}:{self.number}" if self.address else ""


def hops(case: Case) -> list[Hop]:
    """Every destination of the host that is a gateway, of callers' sidecars and of gateways on the way out."""
    return case.once("hops", lambda: list(_hops(case)))


def dead_ends(case: Case) -> list[Hop]:
    """The hops after which a call does not go on: the gateway does not listen there, has no rule for the host, or speaks otherwise."""
    return [h for h in hops(case) if h.lacks]


def _hops(case: Case) -> Iterator[Hop]:
    mesh = case.mesh
    spaces = mesh.now("gateways' namespaces", lambda: {g.namespace for g in gates(mesh)})
    away = {m.name: doors(m) for m in mesh.neighbours}
    if not any(away.values()) and not any([u.service is not None and u.service.namespace in spaces for u in case.upstreams]):
        return
    for b in case.branches:
        service = b.upstream.service
        if not b.share or not b.upstream.usable or service is None:
            continue
        at_gateway = b.view.callers.proxy.kind == "gateway"
        if service.selector and service.namespace in spaces and not at_gateway and b.step.source:
            yield from _inside(case, b)
        elif away and not b.upstream.unseen:
            yield from _abroad(case, b)


def _inside(case: Case, b: Branch) -> Iterator[Hop]:
    service = b.upstream.service
    selector = dict(service.selector or {}) if service else {}
    behind = [g for g in gates(case.mesh) if service and g.namespace == service.namespace and g.selected(selector)]
    behind = [g for g in behind if any((p.service, p.number) == (b.upstream.host, b.upstream.port) for p in g.ports)]
    for g in behind[:1]:
        cluster = case.mesh.cluster(g.ups.proxy.cluster)
        kept = cluster.get(Service, g.namespace, b.upstream.host.partition(".")[0])
        if kept is not None:
            yield _hop(case, b, Door(case.mesh, cluster, kept, ""), b.upstream.port, 1.0, behind)


def _abroad(case: Case, b: Branch) -> Iterator[Hop]:
    sent = [e for e in b.upstream.endpoints if e.health == "healthy"]
    for mesh in case.mesh.neighbours:
        known = doors(mesh)
        by_door: dict[tuple[str, int], int] = {}
        for e in sent:
            if e.address.lower() in known:
                by_door[e.address.lower(), e.port] = by_door.get((e.address.lower(), e.port), 0) + 1
        for (address, number), count in by_door.items():
            entries = known[address]
            case.abroad.setdefault(mesh.name, set()).update(
                (names.service_host(o.name if isinstance(o, Service) else o.spec.to.name, o.namespace), o.namespace) for _, o in entries
            )
            door = _door(mesh, address, number, [(c, s) for c, s in entries if isinstance(s, Service)])
            if door is not None:
                yield _hop(case, b, door, number, count / len(sent), _behind(door))
                continue
            routed = _routed(mesh, address, _asked(b, _rewritten(b)), [(c, r) for c, r in entries if isinstance(r, OpenShiftRoute)])
            if routed is not None:
                yield _hop(case, b, *routed, count / len(sent), _behind(routed[0]))


def _routed(mesh: Mesh, address: str, asked: list[str], known: list[tuple[str, OpenShiftRoute]]) -> tuple[Door, int] | None:
    """The Service and port to which OpenShift's router leads: by the Route of the host that is asked for. None where no gateway is behind it.

    The router knows Routes by their hosts, whatever name it was called by.
    """
    for name, route in known:
        cluster = mesh.cluster(name)
        service = cluster.get(Service, route.namespace, route.spec.to.name)
        if service is None or not asked or not _taken(route, asked[0]) or route.spec.to.kind != "Service" or not service.spec.ports:
            continue
        wanted = route.spec.port.target_port if route.spec.port is not None else ""
        port = next((p for p in service.spec.ports if wanted in (p.name, p.target_port)), service.spec.ports[0])
        door = Door(mesh, cluster, service, address, route.ref)
        mesh.require(cluster, Pod)
        if _behind(door):
            return door, port.port
    return None


def _taken(route: OpenShiftRoute, host: str) -> bool:
    own = route.spec.host.lower()
    return host == own or (route.spec.wildcard_policy == "Subdomain" and host.partition(".")[2] == own.partition(".")[2])


def _door(mesh: Mesh, address: str, number: int, known: list[tuple[str, Service]]) -> Door | None:
    """The Service behind an address: one that has the port, and whose pods are gateways or gone. Raises Unreadable where pods are not shown."""
    ordered = sorted(known, key=lambda k: (not any(p.port == number for p in k[1].spec.ports), k[0], k[1].ref))
    for name, service in ordered:
        cluster = mesh.cluster(name)
        door = Door(mesh, cluster, service, address)
        mesh.require(cluster, Pod)
        if _behind(door) or not any(_selected(service, p.labels) for p in cluster.within(Pod, service.namespace).values()):
            return door
    return None


def _behind(door: Door) -> list[Gate]:
    where = door.mesh.cluster_id(door.cluster)
    return [
        g
        for g in gates(door.mesh)
        if g.ups.proxy.cluster == where and g.namespace == door.service.namespace and _selected(door.service, g.ups.proxy.labels)
    ]


def _selected(service: Service, labels: Mapping[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in (service.spec.selector or {}).items())


def _hop(case: Case, b: Branch, door: Door, number: int, part: float, behind: list[Gate]) -> Hop:
    host = names.service_host(door.service.name, door.service.namespace)
    rewritten = _rewritten(b)
    asked = _asked(b, rewritten)
    common = (b, door.mesh, door.cluster, door.service, door.address, number, part)
    ready = door.mesh.endpoints(door.mesh.istiod(door.cluster.name), host, door.service.namespace)
    if door.mesh is case.mesh:
        case.also.add((host, door.service.namespace))
    if not behind or not any(e.health == "healthy" for e in ready):
        # nobody is there to be asked: whatever keeps the gateway's pods away is what is wrong
        return Hop(*common, (), asked[0] if asked else "", rewritten, by=door.by)
    met = [(g, _met(g, door, number, asked, _sni(b, asked))) for g in behind]
    sent = None if _moved(b) else _request(b.view.ups.istiod, b.step)
    first = asked[0] if asked else ""
    lacking = [lacks for _, (_, lacks) in met]
    steps = tuple((g, tuple(_reached(g, steps, sent))) for g, (steps, _) in met if steps)
    lacks = lacking[0] if all(lacking) else ""
    if not lacks and not door.by:  # a router speaks as its Route says, to either side
        lacks = _scheme(b, steps or tuple((g, ()) for g in behind), door, number, asked)
    return Hop(*common, tuple(behind), first, rewritten, steps, lacks, door.by)


def _target(g: Gate, door: Door, number: int) -> int | None:
    host = names.service_host(door.service.name, door.service.namespace)
    return next((p.target for p in g.ports if (p.service, p.number) == (host, number)), None)


def _met(g: Gate, door: Door, number: int, asked: list[str], sni: list[str]) -> tuple[tuple[Step, ...], str]:
    """The gateway's rules for what it is asked for on a port, and why there are none; where TLS goes through unread, the SNI is asked for."""
    target = _target(g, door, number)
    if target is None:
        return (), f"has no port {number}" if door.address else ""
    servers = g.servers(target)
    if not servers:
        return (), "does not listen there"
    if not asked or any(b.tls == "AUTO_PASSTHROUGH" for b in servers):
        return (), ""
    if all(b.passthrough for b in servers):
        asked = sni
    numbers = {b.server.port.number for b in servers}
    for host in asked:
        for name in _spellings(host):
            found = tuple(gateway.felt(g.ups, (s for s in gateway.routes(g.ups, [name]) if s.port in numbers)))
            if found:
                return found, ""
    return (), f"has no rule for {asked[0]}"


def knows(hop: Hop, host: str) -> bool:
    """Whether a hop's gateways would have a rule for another host there."""
    door = Door(hop.mesh, hop.cluster, hop.service, hop.address)
    return any(_met(g, door, hop.number, [host], [host])[0] for g in hop.gates)


def _mode(b: Branch) -> str:
    """How the proxy speaks to a destination: the mode of its DestinationRule's TLS settings, or that of auto mTLS."""
    if (own := spoken(b)) is not None:
        return own.mode
    return "ISTIO_MUTUAL" if any(e.tls for e in b.upstream.endpoints) else "DISABLE"


def _sni(b: Branch, asked: list[str]) -> list[str]:
    """The SNI that a proxy sends: of its DestinationRule, else the host that is asked for (auto SNI), or the cluster's where it speaks the mesh's
    own TLS (cluster_tls.go).
    """  # noqa: D205 - three cases of one sentence
    if (own := spoken(b)) is not None and own.sni:
        return [own.sni.lower()]
    if b.step.protocol == "http" and _mode(b) == "ISTIO_MUTUAL":
        return [f"outbound_.{b.upstream.port}_.{b.upstream.subset}_.{b.upstream.host}"]
    return asked


def _scheme(b: Branch, met: Iterable[tuple[Gate, tuple[Step, ...]]], door: Door, number: int, asked: list[str]) -> str:
    """What is wrong where one side speaks TLS and the other plain HTTP, or where two kinds of TLS meet; what an application encrypts by itself is
    not looked into.
    """  # noqa: D205 - one sentence
    if b.step.protocol != "http":
        return ""
    holder = b.view.ups.mesh.cluster(b.view.ups.istiod.cluster)
    b.view.ups.mesh.require(holder, DestinationRule)
    plain = _mode(b) == "DISABLE"
    servers = [s for g, _ in met for s in g.servers(_target(g, door, number) or 0)]
    secure = [s for s in servers if s.server.tls is not None and s.server.port.protocol.upper() in {"HTTPS", "TLS"}]
    if servers and plain and len(secure) == len(servers):
        return f"expects {'mutual TLS of the mesh' if all(s.tls == _MESH for s in secure) else 'TLS'} there and gets plain HTTP"
    if servers and not plain and not secure:
        return "expects plain HTTP there and gets TLS"
    return "" if plain or not secure or door.address else _handshake(b, secure, asked)


_MESH = "ISTIO_MUTUAL"


def _handshake(b: Branch, secure: list[Bound], asked: list[str]) -> str:
    """What keeps TLS from being agreed on with a gateway of the mesh: nobody there has the SNI, or one side has a certificate of the mesh alone."""
    sent = _sni(b, asked)
    if not sent:
        return ""
    fitting = [s for s in secure if any(names.matches(h.rpartition("/")[2], sent[0]) for h in s.hosts)]
    if not fitting:
        return f"knows no SNI {sent[0]} there"
    mine = _mode(b) == _MESH
    if all(not s.passthrough and (s.tls == _MESH) != mine for s in fitting):
        return (
            f"speaks the mesh's own TLS there and gets mode {_mode(b)}"
            if not mine
            else "has no certificate of the mesh there and is asked for one"
        )
    return ""


def _asked(b: Branch, rewritten: str) -> list[str]:
    """The hosts that a gateway behind a destination is asked for; none where the proxy before it does not know."""
    if b.step.match.startswith("SNI "):
        return b.step.match.removeprefix("SNI ").split(", ")
    host = (rewritten or b.step.host).partition(":")[0].lower()
    return [] if names.is_wildcard(host) else [host]


def _spellings(host: str) -> list[str]:
    """A host and the wildcards that mean it, the most specific first."""
    parts = host.split(".")
    return [host, *(f"*.{'.'.join(parts[i:])}" for i in range(1, len(parts))), "*"]


# --- what a rule makes of the host ------------------------------------------------------------------------------------------------


def rule_of(istiod: Istiod, step: Step) -> Rule | None:
    """The http rule behind a step; None for other protocols and default routes."""
    every = istiod.once("rules", lambda: {(r.source(rule), rule.leaf, rule.path): rule for r in istiod.rulesets for rule in r.http})
    return every.get((step.source or "", step.leaf or "", step.path))


def _rewritten(b: Branch) -> str:
    """The host that a rule writes into the request, empty where it leaves it alone."""
    istiod = b.view.ups.istiod
    rule = rule_of(istiod, b.step)
    if rule is None:
        return ""
    if rule.raw is None:
        return _api_rewritten(istiod, rule)
    if rule.raw.rewrite is not None and rule.raw.rewrite.authority:
        return rule.raw.rewrite.authority
    found = rule.raw.headers.request.set_ if rule.raw.headers and rule.raw.headers.request else None
    return next((v for k, v in (found or {}).items() if k.lower() in {"host", ":authority"}), "")


def _api_rewritten(istiod: Istiod, rule: Rule) -> str:
    routes = istiod.once("http routes", lambda: {r.ref: r for r in istiod.all(APIHTTPRoute) if isinstance(r, APIHTTPRoute)})
    route, place = routes.get(rule.leaf), _RULE.match(rule.path)
    if route is None or place is None:
        return ""
    filters = (route.spec.rules or ())[int(place[1])].filters or ()
    return next((f.url_rewrite.hostname for f in filters if f.url_rewrite is not None and f.url_rewrite.hostname), "")


def _moved(b: Branch) -> bool:
    """Whether a rule changes the path of what it sends on."""
    rule = rule_of(b.view.ups.istiod, b.step)
    return rule is not None and (rule.raw is None or (rule.raw.rewrite is not None and bool(rule.raw.rewrite.uri)))


def _request(istiod: Istiod, step: Step) -> HTTPMatch | None:
    """What requests a step takes, whoever sends them; None: every request, or nobody can say."""
    rule = rule_of(istiod, step)
    found = next((m for m in rule.matches if describe(m) == step.match), None) if rule is not None else None
    return replace(found, port=0, gateways=None, source_labels=None, source_namespace="") if found is not None else None


def _reached(gate: Gate, steps: Iterable[Step], sent: HTTPMatch | None) -> Iterator[Step]:
    """The rules of a gateway that such requests come to: none that takes others, none behind one that takes them all."""
    for s in steps:
        own = _request(gate.ups.istiod, s)
        if sent is None or own is None or not _apart(own, sent):
            yield s
        if covers(own, sent):
            return


def _apart(a: HTTPMatch, b: HTTPMatch) -> bool:
    """Whether no request is meant by both, as far as method and path tell."""
    if a.method and b.method and a.method.exact and b.method.exact and a.method.exact != b.method.exact:
        return True
    x, y = a.uri, b.uri
    if x is None or y is None or x.regex is not None or y.regex is not None or a.ignore_uri_case or b.ignore_uri_case:
        return False
    if x.exact is not None and y.exact is not None:
        return x.exact != y.exact
    if x.exact is not None or y.exact is not None:
        exact, prefix = (x.exact, y.prefix) if x.exact is not None else (y.exact, x.prefix)
        return not (exact or "").startswith(prefix or "")
    one, other = x.prefix or "", y.prefix or ""
    return not one.startswith(other) and not other.startswith(one)


# --- what is further on ------------------------------------------------------------------------------------------------------------


def further(hop: Hop) -> Case | None:
    """What a hop's gateways do with what they are asked for, as a case of its own; where no pod of the gateway is there, the case of its Service."""
    if not hop.gates:
        whole = Case.of(names.service_host(hop.service.name, hop.service.namespace), hop.mesh, hop.number)
        near = [v for v in whole.views if v.callers.viewpoints[0].cluster == hop.cluster.name]
        whole.hold(near or whole.views)
        return whole
    served = hop.lacks and any(True for g in hop.gates for _ in gateway.routes(g.ups, _spellings(hop.host)))
    if not hop.host or served:
        return None  # a gateway that serves the host, and not where it is entered, lacks nothing by itself
    views = [
        View(Class(g.ups.proxy, (g.viewpoint,), g.ups.istiod, g.ups.scope, frozenset({g.namespace})), g.ups, list(steps))
        for g, steps in hop.steps
    ]
    return Case(hop.title, hop.mesh, views)


def concerns(hop: Hop, viewpoints: Iterable[Viewpoint], resource: str, path: str) -> bool:
    """Whether a finding of what is further on is about this hop: it holds for the gateway, and for the server that is entered."""
    if not hop.gates:
        return True
    if hop.lacks:  # the rule that it lacks may stand at another gateway, which is then what is wrong
        return any(v.kind == "gateway" for v in viewpoints)
    if not {g.viewpoint for g in hop.gates} & set(viewpoints):
        return False
    place = re.match(r"spec\.servers\[(\d+)\]", path)
    servers = [s for g in hop.gates for s in g.servers(_target(g, Door(hop.mesh, hop.cluster, hop.service, hop.address), hop.number) or 0)]
    if place is None or not servers:
        return True
    return any(s.gateway.ref == resource and s.gateway.servers.index(s.server) == int(place[1]) for s in servers)


def share(failing: Iterable[tuple[Hop, float]]) -> float:
    """The part of a rule's requests that fails behind these hops, of each of which a part fails; of the rule where it is largest."""
    sums: dict[int, float] = {}
    for hop, part in failing:
        sums[id(hop.branch.step)] = sums.get(id(hop.branch.step), 0.0) + hop.branch.share * hop.part * part
    return round(max(sums.values(), default=0.0), 6)


_LEG = re.compile(r"^leg (\d+):")


def numbered(hop: Hop, evidence: Iterable[str]) -> tuple[str, ...]:
    """The evidence of a finding further on, behind the leg that leads there; legs are counted from the caller."""
    return hop.told, *(_LEG.sub(lambda m: f"leg {int(m[1]) + 1}:", line) for line in evidence)
