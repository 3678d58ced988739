"""What a sidecar does with a call: HTTP virtual hosts, and the filter chains of its TCP and TLS listeners.

Rules: semantics.md 3.2, 3.4; pilot/pkg/networking/core/{httproute,listener,tls}.go and route/route.go in istio/istio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from checks import names
from checks.istiod import MESH, Listener
from checks.registry import AUTO, UNSPECIFIED, HostPort, HostService, IstioEndpoint
from checks.registry import protocol as canonical
from checks.rulesets import Abort, L4Rule, RuleSet, Target, describe, l4_match, rules_for
from checks.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.upstream import Upstreams


class Step(Struct, frozen=True, gc=False):
    """One rule before its shares are worked out: where it stands, and (upstream, weight, path) of each destination with weight."""

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
    for port in ports:
        yield from _http(ups, host, port)
    yield from _unregistered(ups, host, ports)
    yield from _l4(ups, host)


def _named(listener: Listener, host: str) -> list[HostService]:
    return listener.named.get(host.lower(), [])


# --- HTTP ----------------------------------------------------------------------------------------------------------------------


def _http(ups: Upstreams, host: str, number: int) -> Iterator[Step]:
    listener = ups.scope.listener_for(number)
    if listener is None:
        return
    service = listener.by_port.get(number, {}).get(host.lower())
    port = service.port(number) if service else None
    if service is None or port is None or not port.http_or_auto:
        return
    if port.protocol == AUTO and not _opened(ups, service, port):
        return
    claim = _claim(ups, listener, service, number)
    if claim is not None:
        if service.resolution == "alias" and _taken(ups, listener, service.hostname, number, claim):
            return
        yield from _ruled(ups, listener, claim, service.hostname, number)
    elif service.resolution != "alias":
        yield Step(service.hostname, number, "http", "route", None, "", "every request", ((ups.default(service.hostname, number), 0, ""),))


def _ruled(ups: Upstreams, listener: Listener, ruleset: RuleSet, host: str, number: int) -> Iterator[Step]:
    for rule, match in rules_for(ruleset, number, ups.proxy.labels, MESH, ups.proxy.namespace):
        targets = tuple(_targets(ups, listener, rule.targets, number))
        yield Step(
            host, number, "http", rule.action, ruleset.source(rule), rule.path, describe(match), targets, rule.leaf, rule.abort, rule.name
        )


def _claim(ups: Upstreams, listener: Listener, service: HostService, number: int) -> RuleSet | None:
    """The ruleset that gives a service its routes on a port: the first that claims it and has a rule for this caller."""
    for ruleset in listener.candidates(service.hostname):
        if claims(ups, listener, ruleset, service) and rules_for(ruleset, number, ups.proxy.labels, MESH, ups.proxy.namespace):
            return ruleset
    return None


def _taken(ups: Upstreams, listener: Listener, domain: str, number: int, ruleset: RuleSet) -> bool:
    """Whether a service's virtual host, made before this ruleset's, already answers to a domain as its short name or alias (dedupeDomains)."""
    around = listener.by_port.get(number, {})
    rivals = [s for s in listener.aliased.get(domain, ()) if around.get(s.hostname.lower()) is s]
    rivals += [s for h in _long_names(domain, ups.proxy.namespace) if (s := around.get(h.lower())) is not None and s.hostname == h]
    for service in rivals:
        if service.hostname == domain:
            continue
        first = _claim(ups, listener, service, number)
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


def _opened(ups: Upstreams, service: HostService, port: HostPort) -> bool:
    """Whether a port whose protocol is detected has a listener: a headless service opens one for each endpoint's address."""
    if service.resolution != "none" or service.address_for(ups.proxy.cluster) != UNSPECIFIED:
        return True
    return _instances_open(ups, service, port)


def claims(ups: Upstreams, listener: Listener, ruleset: RuleSet, service: HostService) -> bool:
    """Whether a ruleset gives its routes to a service of this listener (separateVSHostsAndServices)."""
    host = service.hostname.lower()
    exact = host in (h.lower() for h in ruleset.hosts)
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
        # only services of this listener's port are looked up, so a port left out is always the listener's
        known = listener.by_port.get(number, {}).get(t.host)
        target = known.external_name if known is not None and known.external_name else t.host
        yield ups.of(target, t.port if t.port is not None else number, t.subset), t.weight, t.path


def _unregistered(ups: Upstreams, host: str, ports: list[int]) -> Iterator[Step]:
    """A host that only VirtualServices name: on port 80, and on ports of registry services that the same VirtualService claims.

    istiod makes such a virtual host for a port that a registry host does not have as well; nobody calls it, so it is no rule of that host.
    """
    registry = ups.istiod.by_host.get(host, [])
    known = {80, *(p for li in ups.scope.listeners for p in li.by_port)} if not registry else {p.number for s in registry for p in s.ports}
    for number in sorted(known.difference(ports)):
        if registry and number != 80 and not any(number in li.by_port for li in ups.scope.listeners):
            continue
        listener = ups.scope.listener_for(number)
        if listener is None or not any((port := s.port(number)) and port.http_or_auto for s in listener.by_port.get(number, {}).values()):
            continue
        for ruleset in listener.candidates(host):
            if host not in (h.lower() for h in ruleset.hosts) or ruleset.gateway_api:
                continue
            if names.is_wildcard(host) and any(names.matches(s, host) for s in listener.by_port.get(number, {})):
                continue
            if number != 80 and not any(
                claims(ups, listener, ruleset, s) for s in _meant(listener, ruleset, number) if (p := s.port(number)) and p.http_or_auto
            ):
                continue
            steps = list(_ruled(ups, listener, ruleset, host, number))
            if steps:
                if not _taken(ups, listener, host, number, ruleset):
                    yield from steps
                break


def _meant(listener: Listener, ruleset: RuleSet, number: int) -> Iterable[HostService]:
    """The services of a listener's port that a ruleset's hosts may mean."""
    around = listener.by_port.get(number, {})
    if any(names.is_wildcard(h) for h in ruleset.hosts):
        return around.values()
    return [around[h.lower()] for h in ruleset.hosts if h.lower() in around]


# --- TCP and TLS ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chain:
    """A filter chain's match, and the rule behind it; `http` chains only take a place."""

    owner: str
    sni: frozenset[str]
    cidrs: frozenset[str]
    http: bool = False
    step: Step | None = None

    @property
    def key(self) -> tuple[bool, frozenset[str], frozenset[str]]:
        return self.http, self.sni, self.cidrs


def _l4(ups: Upstreams, host: str) -> Iterator[Step]:
    seen: set[object] = set()
    for li in ups.scope.listeners:
        for service in _named(li, host):
            for port in service.ports:
                if not port.tcp:
                    continue
                for bind in _binds(ups, li, service, port):
                    for chain in _listener_chains(ups, bind, port.number):
                        step = chain.step
                        if step is None or chain.owner != service.hostname or step.port != port.number:
                            continue
                        same = (step.port, step.protocol, step.source, step.path, step.match, tuple(id(u) for u, _, _ in step.targets))
                        if same not in seen:
                            seen.add(same)
                            yield step


def displaced(ups: Upstreams, host: str) -> Iterator[tuple[HostService, HostPort, HostService, str]]:
    """TCP ports of a host for which another service has taken an address: (service, port, who has it, the address)."""
    for li in ups.scope.listeners:
        for service in _named(li, host):
            for port in service.ports:
                for bind in _binds(ups, li, service, port) if port.tcp and not port.tls else ():
                    chains = _listener_chains(ups, bind, port.number)
                    if any(c.owner == service.hostname for c in chains):
                        continue
                    mine = {c.key for c in _chains(ups, li, service, port, bind)}
                    first = next((c.owner for c in chains if c.key in mine), None)
                    found = ups.scope.services.get(first) if first is not None else None
                    if found is not None:
                        yield service, port, found, bind


def _binds(ups: Upstreams, listener: Listener, service: HostService, port: HostPort) -> list[str]:
    """The addresses that a service's TCP port listens on."""
    if listener.egress.bind:
        return [listener.egress.bind]
    address = service.address_for(ups.proxy.cluster)
    if listener.port or not (service.resolution == "none" and address == UNSPECIFIED and not port.http):
        return [UNSPECIFIED if "/" in address else address]
    instances = _instances(ups, service, port)
    if not service.kubernetes and not instances and service.selector is None:
        return [UNSPECIFIED]
    return list(dict.fromkeys(e.address for e in instances if names.is_ip(e.address) and e.address != ups.proxy.ip))


def _instances(ups: Upstreams, service: HostService, port: HostPort) -> list[IstioEndpoint]:
    return [e for e in ups.endpoints(service) if (e.legacy_port == port.number if e.legacy_port else e.port_name == port.name)]


def _instances_open(ups: Upstreams, service: HostService, port: HostPort) -> bool:
    instances = _instances(ups, service, port)
    if not service.kubernetes and not instances and service.selector is None:
        return True
    return any(names.is_ip(e.address) and e.address != ups.proxy.ip for e in instances)


def _listener_chains(ups: Upstreams, bind: str, number: int) -> list[_Chain]:
    """The filter chains of one listener after all services that bind it have been merged, in istiod's order."""
    chains: list[_Chain] | None = None
    current = ""
    locked = False
    for li in ups.scope.listeners:
        if not li.port:
            locked = chains is not None  # listeners that a Sidecar asks for by port are closed to the rest
        if locked:
            break
        for service in li.on_port(number):
            port = service.port(number)
            if port is None or service.resolution == "alias" or port.protocol == "UDP":
                continue
            kind = _protocol(li, port)
            if kind == "http":
                if bind != UNSPECIFIED or (chains is not None and current != "tcp"):
                    continue
                incoming = [_Chain(service.hostname, frozenset(), frozenset(), http=True)]
            else:
                if bind not in _binds(ups, li, service, port):
                    continue
                incoming = _chains(ups, li, service, port, bind)
                if kind == "auto" and current != "auto":
                    incoming.append(_Chain(service.hostname, frozenset(), frozenset(), http=True))
            if chains is None:
                chains, current = incoming, "auto" if kind == "http" else kind
                continue
            if _well_known(current, port) and kind != current:
                continue
            for c in incoming:
                if c.key not in {have.key for have in chains}:
                    chains.append(c)
            if kind in {"http", "auto"}:
                current = "auto"
    return chains or []


def _protocol(listener: Listener, port: HostPort) -> str:
    declared = HostPort(port.number, port.name, _declared(listener) or port.protocol)
    return "http" if declared.http else "tcp" if declared.tcp else "auto"


def _declared(listener: Listener) -> str:
    return canonical(listener.egress.port.protocol) if listener.port and listener.egress.port else ""


def _well_known(current: str, port: HostPort) -> bool:
    """Mongo and MySQL share a port with nothing else (isConflictWithWellKnownPort)."""
    return current != "" and port.protocol in {"MONGO", "MYSQL"}


def _chains(ups: Upstreams, listener: Listener, service: HostService, port: HostPort, bind: str) -> list[_Chain]:
    """The chains that one service brings to a listener (buildSidecarOutboundTCPListenerOpts)."""
    address = service.address_for(ups.proxy.cluster)
    cidrs = frozenset({address}) if "/" in address else frozenset()
    rulesets = listener.naming(service.hostname)
    if port.tls:
        return _tls_chains(ups, rulesets, service, port, bind, cidrs)
    return _tcp_chains(ups, rulesets, service, port, cidrs)


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
                subnets = frozenset(m.destination_subnets) if m.destination_subnets else cidrs
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
                out.append(_Chain(service.hostname, frozenset(m.sni_hosts or ()) - {"*"}, subnets, step=step))
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
    sni = frozenset({service.hostname}) - {"*"} if named else frozenset()
    match = f"SNI {service.hostname}" if named else "every connection"
    return [_Chain(service.hostname, sni, cidrs, step=_default(ups, service, port, "tls" if named else "tcp", match))]


def _tcp_chains(ups: Upstreams, rulesets: list[RuleSet], service: HostService, port: HostPort, cidrs: frozenset[str]) -> list[_Chain]:
    out: list[_Chain] = []
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
            subnets = cidrs if whole else frozenset(before)
            match = "every connection" if whole else f"to {', '.join(sorted(subnets))}"
            step = Step(service.hostname, port.number, "tcp", "route", ruleset.ref, rule.path, match, _l4_targets(ups, rule, port.number))
            out.append(_Chain(service.hostname, frozenset(), subnets, step=step))
            if whole or subnets == cidrs:
                return out
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
