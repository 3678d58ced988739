"""What a sidecar does with a call: HTTP virtual hosts, and the filter chains of its TCP and TLS listeners.

Rules: semantics.md 3.2, 3.4; pilot/pkg/networking/core/{httproute,listener,tls}.go and route/route.go in istio/istio.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from msgspec import Struct

from checks import names
from checks.istiod import MESH, RESERVED, SERVER_FIRST, Listener
from checks.registry import AUTO, UNSPECIFIED, HostPort, HostService
from checks.rulesets import Abort, L4Rule, Rule, RuleSet, Target, describe, l4_match, rules_for
from checks.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.resources import HTTPMatch
    from checks.upstream import Upstreams

    _Matched = tuple[Rule, HTTPMatch | None]


class Step(Struct, frozen=True, gc=False):
    """One rule before its shares are worked out: where it stands, and (upstream, weight, path) of each destination with weight.

    `moved`: it stands in a gateway's virtual host that sends every request to https, before any rule is looked at (httpsRedirect).
    """

    host: str
    port: int
    protocol: str
    action: str
    source: str | None
    path: str
    match: str
    targets: tuple[tuple[Upstream, int, str], ...]
    leaf: str | None = None
    abort: Abort | None = None
    name: str = ""
    moved: bool = False


def hosts(ups: Upstreams) -> set[str]:
    """Every host that a sidecar may hold something for."""
    found = {s.hostname for li in ups.scope.listeners for s in li.services}
    for li in ups.scope.listeners:
        for r in li.rulesets:
            found.update(h.lower() for h in r.hosts)
    return found


def routes(ups: Upstreams, host: str) -> Iterator[Step]:
    """The rules of one host, by port, HTTP first."""
    if not ups.scope.holds(host):
        return
    ports = sorted({p.number for li in ups.scope.listeners for s in _named(li, host) for p in s.ports})
    heard: set[int] = set()
    for step in _http(ups, host, ports):
        heard.add(step.port)
        yield step
    yield from _proxied(ups, host, heard)
    yield from _l4(ups, host)


def _named(listener: Listener, host: str) -> list[HostService]:
    return listener.named.get(host.lower(), [])


# --- HTTP ----------------------------------------------------------------------------------------------------------------------


def _http(ups: Upstreams, host: str, ports: list[int]) -> Iterator[Step]:
    """The rules of a host on listeners of one port; of a port only if some listener asks for its routes."""
    for number in ports:
        listener = ups.scope.listener_for(number)
        if listener is not None and _asked(ups, host, number):
            yield from _virtual_host(ups, listener, host, number, number)
    yield from _unregistered(ups, host)


def _proxied(ups: Upstreams, host: str, heard: set[int]) -> Iterator[Step]:
    """The rules of a host on a Sidecar's listeners that are for every port, a generic HTTP proxy's and a Unix domain socket's: of ports that were not heard of."""
    for listener in ups.scope.listeners:
        if listener.declared is None or listener.match_port or not listener.declared.http_or_auto:
            continue
        for number in sorted({p.number for s in _named(listener, host) for p in s.ports} - heard):
            steps = list(_virtual_host(ups, listener, host, number, 0))
            heard.update(s.port for s in steps)
            yield from steps
        if (
            80 not in heard and host.lower() not in listener.named
        ):  # of other ports a host keeps its name with the port alone (mergeAllVirtualHosts)
            steps = list(_claimed(ups, listener, host, 80, 0))
            heard.update(s.port for s in steps)
            yield from steps


def _virtual_host(ups: Upstreams, listener: Listener, host: str, number: int, listen: int) -> Iterator[Step]:
    """The rules of a service's port on a listener of the same port, or of every port (0)."""
    service = listener.around(listen).get(host.lower())
    port = service.port(number) if service else None
    if service is None or port is None or not port.http_or_auto:
        return
    claim, rules = _claim(ups, listener, service, listen)
    if claim is not None:
        if service.resolution == "alias" and _taken(ups, listener, service.hostname, listen, claim):
            return
        yield from _ruled(ups, listener, claim, rules, service.hostname, number, listen)
    elif service.resolution != "alias":
        yield Step(service.hostname, number, "http", "route", None, "", "every request", ((ups.default(service.hostname, number), 0, ""),))


def _asked(ups: Upstreams, host: str, number: int) -> bool:
    """Whether a listener asks for the routes of a host's port: for those of the whole port, or, where its protocol is detected at its own address, for its own."""
    if _asked_by_all(ups, number):
        return True
    for li in ups.scope.listeners:
        for service in _named(li, host):
            port = li.declared or service.port(number)
            if port is None or port.number != number or port.protocol != AUTO:
                continue
            if any(c.asks == service.hostname for bind in _binds(ups, li, service, port) for c in _listener_chains(ups, bind, number)):
                return True
    return False


def _asked_by_all(ups: Upstreams, number: int) -> bool:
    """Whether a listener asks for the routes of all hosts of a port."""
    listeners = ups.scope.listeners
    if number in listeners[-1].http_ports and not any([li.declared and li.declared.number == number for li in listeners[:-1]]):
        return True
    binds = dict.fromkeys((UNSPECIFIED, *(li.bind for li in listeners if li.bind)))
    return any(c.asks == EVERY for bind in binds for c in _listener_chains(ups, bind, number))


def _ruled(
    ups: Upstreams, listener: Listener, ruleset: RuleSet, rules: Iterable[_Matched], host: str, number: int, listen: int
) -> Iterator[Step]:
    for rule, match in rules:
        targets = tuple(_targets(ups, listener, rule.targets, listen))
        yield Step(
            host, number, "http", rule.action, ruleset.source(rule), rule.path, describe(match), targets, rule.leaf, rule.abort, rule.name
        )


def _claim(ups: Upstreams, listener: Listener, service: HostService, number: int) -> tuple[RuleSet | None, list[_Matched]]:
    """The ruleset that gives a service its routes on a port, with these: the first that claims it and has a rule for this caller."""
    for ruleset in listener.candidates(service.hostname):
        if claims(ups, listener, ruleset, service):
            rules = rules_for(ruleset, number, ups.proxy.labels, MESH, ups.proxy.namespace)
            if rules:
                return ruleset, rules
    return None, []


def _taken(ups: Upstreams, listener: Listener, domain: str, number: int, ruleset: RuleSet) -> bool:
    """Whether a service's virtual host, made before this ruleset's, already answers to a domain as its short name or alias (dedupeDomains)."""
    around = listener.around(number)
    rivals = [s for s in listener.aliased.get(domain, ()) if around.get(s.hostname.lower()) is s]
    rivals += [s for h in _long_names(domain, ups.proxy.namespace) if (s := around.get(h.lower())) is not None and s.hostname == h]
    for service in rivals:
        if service.hostname == domain:
            continue
        first, _ = _claim(ups, listener, service, number)
        if first is not None and first is not ruleset and listener.rulesets.index(first) < listener.rulesets.index(ruleset):
            return True
    return False


def _long_names(domain: str, namespace: str) -> Iterator[str]:
    """The Kubernetes hosts that a proxy of a namespace may call by this shorter name (GenerateAltVirtualHosts)."""
    short = domain.removesuffix(".svc")
    if short != domain or domain.count(".") < 2:
        yield f"{short}.svc.{names.DOMAIN}"
    if "." not in domain:
        yield names.service_host(domain, namespace)


def claims(ups: Upstreams, listener: Listener, ruleset: RuleSet, service: HostService) -> bool:
    """Whether a ruleset gives its routes to a service of this listener (separateVSHostsAndServices)."""
    host = service.hostname.lower()
    exact = not names.is_wildcard(host) and (host in ruleset.hosts or host in [h.lower() for h in ruleset.hosts])
    if ruleset.gateway_api:
        return exact and ruleset.namespace in (service.namespace, ups.proxy.namespace)
    if exact:
        return True
    wild = any(names.is_wildcard(h) and names.matches(h.lower(), host) for h in ruleset.hosts)
    return wild and listener.wildcard_owner.get(service.hostname) is ruleset


def _targets(ups: Upstreams, listener: Listener, targets: tuple[Target, ...], number: int) -> Iterator[tuple[Upstream, int, str]]:
    for t in targets:
        if not t.host:
            yield ups.unknown(), t.weight, t.path
            continue
        # only services of this listener's port are looked up, so a port left out is always the listener's, if it has one
        known = listener.around(number).get(t.host)
        target = known.external_name if known is not None and known.external_name else t.host
        port = number or (known.ports[0].number if known is not None and len(known.ports) == 1 else 0)
        yield ups.of(target, t.port if t.port is not None else port, t.subset), t.weight, t.path


def _unregistered(ups: Upstreams, host: str) -> Iterator[Step]:
    """A host that only VirtualServices name: on port 80, and on ports of registry services that the same VirtualService claims.

    istiod makes such a virtual host for a port that a registry host does not have as well; nobody calls it, so it is no rule of that host.
    """
    registry = ups.istiod.by_host.get(host, [])
    known = {80, *(p for li in ups.scope.listeners for p in li.by_port)} if not registry else {p.number for s in registry for p in s.ports}
    wanted = host.lower()
    for number in sorted(known):
        listener = ups.scope.listener_for(number)
        if listener is None or wanted in listener.around(number):
            continue
        if registry and number != 80 and not any(number in li.by_port for li in ups.scope.listeners):
            continue
        if _asked_by_all(ups, number):
            yield from _claimed(ups, listener, host, number, number)


def _claimed(ups: Upstreams, listener: Listener, host: str, number: int, listen: int) -> Iterator[Step]:
    """The rules of the first ruleset that names a host which is no service's, on a listener of a port, or of every port (0)."""
    for ruleset in listener.candidates(host):
        if host not in (h.lower() for h in ruleset.hosts) or ruleset.gateway_api:
            continue
        if names.is_wildcard(host) and any(names.matches(s, host) for s in listener.around(listen)):
            continue
        if listen != 80 and not any(
            claims(ups, listener, ruleset, s) for s in _meant(listener, ruleset, listen) if (p := s.port(number)) and p.http_or_auto
        ):
            continue
        rules = rules_for(ruleset, listen, ups.proxy.labels, MESH, ups.proxy.namespace)
        steps = list(_ruled(ups, listener, ruleset, rules, host, number, listen))
        if steps:
            if not _taken(ups, listener, host, listen, ruleset):
                yield from steps
            return


def _meant(listener: Listener, ruleset: RuleSet, number: int) -> Iterable[HostService]:
    """The services of a listener's port that a ruleset's hosts may mean."""
    around = listener.around(number)
    if any(names.is_wildcard(h) for h in ruleset.hosts):
        return around.values()
    return [around[h.lower()] for h in ruleset.hosts if h.lower() in around]


# --- TCP and TLS ---------------------------------------------------------------------------------------------------------------


EVERY = "*"


@dataclass(frozen=True, slots=True)
class _Chain:
    """A filter chain's match, and the rule behind it. One of HTTP asks for the routes of all hosts of its port, or of one; it may tell HTTP apart from the rest."""

    owner: str
    sni: frozenset[str]
    cidrs: frozenset[str]
    asks: str = ""
    detects: bool = False
    step: Step | None = None

    @property
    def key(self) -> tuple[bool, frozenset[str], frozenset[str]]:
        return self.detects, self.sni, self.cidrs


def _l4(ups: Upstreams, host: str) -> Iterator[Step]:
    seen: set[object] = set()
    for li, service, port in _tcp_ports(ups, host):
        for bind in _binds(ups, li, service, port):
            for chain in _listener_chains(ups, bind, port.number):
                step = chain.step
                if step is None or chain.owner != service.hostname or step.port != port.number:
                    continue
                same = (step.port, step.protocol, step.source, step.path, step.match, tuple(id(u) for u, _, _ in step.targets))
                if same not in seen:
                    seen.add(same)
                    yield step


def _tcp_ports(ups: Upstreams, host: str) -> Iterator[tuple[Listener, HostService, HostPort]]:
    """The ports of a host that surely carry TCP, as the listeners that it is on call them."""
    for li in ups.scope.listeners:
        for service in _named(li, host):
            for port in (li.declared,) if li.declared is not None else service.ports:
                if port.tcp and port.number:
                    yield li, service, port


def displaced(ups: Upstreams, host: str) -> Iterator[tuple[HostService, HostPort, HostService, str]]:
    """TCP ports of a host for which another service has taken an address: (service, port, who has it, the address)."""
    for li, service, port in _tcp_ports(ups, host):
        for bind in _binds(ups, li, service, port) if not port.tls else ():
            chains = _listener_chains(ups, bind, port.number)
            if any(c.owner == service.hostname for c in chains):
                continue
            mine = {c.key for c in _chains(ups, li, service, port, bind)}
            first = next((c.owner for c in chains if c.key in mine), None)
            found = ups.scope.services.get(first) if first is not None else None
            if found is not None:
                yield service, port, found, bind


def _binds(ups: Upstreams, listener: Listener, service: HostService, port: HostPort) -> list[str]:
    """The addresses that a service's port listens on, if it does not surely carry HTTP."""
    if listener.bind:
        return [listener.bind]
    address = service.address_for(ups.proxy.cluster)
    if listener.declared is not None or service.resolution != "none" or address != UNSPECIFIED:
        return [UNSPECIFIED if "/" in address else address]
    instances = ups.numbered(service, port.number)
    if not service.kubernetes and not instances and service.selector is None:
        return [UNSPECIFIED]
    return list(dict.fromkeys(e.address for e in instances if names.is_ip(e.address) and e.address != ups.proxy.ip))


def _listener_chains(ups: Upstreams, bind: str, number: int) -> list[_Chain]:
    """The filter chains of one listener after all services that bind it have been merged, in istiod's order (buildSidecarOutboundListener)."""
    chains: list[_Chain] | None = None
    current = ""  # the listener's protocol: once HTTP is told apart from others it is AUTO
    for li in ups.scope.listeners:
        if li.declared is None and chains is not None:
            break  # listeners that a Sidecar asks for by port are closed to the rest
        for service in li.listening(bind, number):
            for port in (li.declared,) if li.declared is not None else service.ports:
                if service.resolution == "alias" or port.protocol == "UDP" or port.number != number:
                    continue
                own = (li.bind or UNSPECIFIED,) if port.http else _binds(ups, li, service, port)
                if bind not in own or (number in RESERVED and bind == UNSPECIFIED and (port.http or li.bind)):
                    continue
                listed = HostPort(number, "", current)
                if chains is not None and (port.http and not listed.tcp):
                    continue
                if chains is not None and port.protocol != current and not SERVER_FIRST.isdisjoint({port.protocol, current}):
                    continue
                incoming = [] if port.http else _chains(ups, li, service, port, bind)
                if port.http or (port.protocol == AUTO and current != AUTO):
                    asks = service.hostname if port.protocol == AUTO and bind != UNSPECIFIED else EVERY
                    detects = port.protocol == AUTO or bind == UNSPECIFIED
                    incoming.append(_Chain(service.hostname, frozenset(), frozenset(), asks=asks, detects=detects))
                if chains is None or (port.protocol == AUTO and listed.http):
                    chains, current = incoming, AUTO if port.http and bind == UNSPECIFIED else port.protocol
                    continue
                for c in incoming:
                    if c.key not in {have.key for have in chains}:
                        chains.append(c)
                if not (port.tcp and listed.tcp):
                    current = AUTO
    return chains or []


def _chains(ups: Upstreams, listener: Listener, service: HostService, port: HostPort, bind: str) -> list[_Chain]:
    """The chains that one service brings to a listener (buildSidecarOutboundTCPListenerOpts)."""
    address = service.address_for(ups.proxy.cluster)
    cidrs = _networks([address]) if "/" in address and not listener.bind else frozenset()
    rulesets = listener.naming(service.hostname)
    if port.tls:
        return _tls_chains(ups, rulesets, service, port, bind, cidrs)
    return _tcp_chains(ups, rulesets, service, port, cidrs)


def _networks(subnets: Iterable[str]) -> frozenset[str]:
    """Subnets as filter chains tell them apart: without what a mask leaves out (filterChainOpts.conflictsWith)."""
    out: set[str] = set()
    for text in subnets:
        with suppress(ValueError):
            network = ip_network(text, strict=False)
            if str(network.network_address) != UNSPECIFIED:
                out.add(str(network))
    return frozenset(out)


def _default(ups: Upstreams, service: HostService, port: HostPort, protocol: str, match: str) -> Step:
    number = service.ports[0].number if len(service.ports) == 1 else port.number
    return Step(service.hostname, port.number, protocol, "route", None, "", match, ((ups.default(service.hostname, number), 0, ""),))


def _tls_chains(
    ups: Upstreams, rulesets: list[RuleSet], service: HostService, port: HostPort, bind: str, cidrs: frozenset[str]
) -> list[_Chain]:
    out: list[_Chain] = []
    handled: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    for ruleset in rulesets:
        for rule in ruleset.tls:
            for m in rule.matches if rule.targets else ():
                if not l4_match(m, ups.proxy.labels, MESH, port.number, ups.proxy.namespace):
                    continue
                if m.destination_subnets and port.number:
                    cidrs = _networks(m.destination_subnets)  # those of later matches too, until one names others
                runtime = m.sni_hosts or (), m.destination_subnets or ()
                if runtime in handled:
                    continue
                handled.add(runtime)
                chosen = set(m.sni_hosts or ()) - {"*"}
                match = f"SNI {', '.join(sorted(chosen))}" if chosen else "every connection"
                step = Step(
                    service.hostname,
                    port.number,
                    "tls" if chosen else "tcp",
                    "route",
                    ruleset.ref,
                    rule.path,
                    match,
                    _l4_targets(ups, rule, port.number),
                )
                out.append(_Chain(service.hostname, frozenset(m.sni_hosts or ()) - {"*"}, cidrs, step=step))
    if out:
        return out
    own = service.address_for(ups.proxy.cluster)
    listen = "" if "/" in own else own
    named = (
        bool(cidrs)
        or not listen
        or (listen == UNSPECIFIED and bind == UNSPECIFIED)
        or (names.is_wildcard(service.hostname) and service.resolution == "dynamic_dns")
    )
    sni = frozenset({service.hostname, *service.aliases}) - {"*"} if named else frozenset()
    match = f"SNI {service.hostname}" if named else "every connection"
    return [_Chain(service.hostname, sni, cidrs, step=_default(ups, service, port, "tls" if named else "tcp", match))]


def _tcp_chains(ups: Upstreams, rulesets: list[RuleSet], service: HostService, port: HostPort, cidrs: frozenset[str]) -> list[_Chain]:
    out: list[_Chain] = []
    same = False
    for ruleset in rulesets:
        for rule in ruleset.tcp:
            if not rule.targets:
                continue
            fitting = [m for m in rule.matches if l4_match(m, ups.proxy.labels, MESH, port.number, ups.proxy.namespace)]
            if rule.matches and not fitting:
                continue
            whole = not rule.matches or any(not m.destination_subnets for m in fitting)
            before: list[str] = []
            for m in fitting:
                if not m.destination_subnets:
                    break
                before += m.destination_subnets
            subnets = cidrs if whole else _networks(before)
            match = "every connection" if whole else f"to {', '.join(sorted(subnets))}"
            step = Step(service.hostname, port.number, "tcp", "route", ruleset.ref, rule.path, match, _l4_targets(ups, rule, port.number))
            out.append(_Chain(service.hostname, frozenset(), subnets, step=step))
            if whole:
                return out
            same = same or subnets == cidrs
    if not same:
        out.append(_Chain(service.hostname, frozenset(), cidrs, step=_default(ups, service, port, "tcp", "every connection")))
    return out


def _l4_targets(ups: Upstreams, rule: L4Rule, number: int) -> tuple[tuple[Upstream, int, str], ...]:
    return tuple(l4_targets(ups, rule, number))


def l4_targets(ups: Upstreams, rule: L4Rule, number: int) -> Iterator[tuple[Upstream, int, str]]:
    """The destinations of a tcp or tls rule: a port left out is the service's only one, else the listener's (GetDestinationCluster)."""
    for t in rule.targets:
        if not t.host:
            yield ups.unknown(), t.weight, t.path
            continue
        service = ups.scope.services.get(t.host)
        target = service.external_name if service is not None and service.external_name else t.host
        port = t.port if t.port is not None else service.ports[0].number if service is not None and len(service.ports) == 1 else number
        yield ups.of(target, port, t.subset), t.weight, t.path
