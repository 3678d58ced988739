"""What a waypoint does with a call: the services that it serves, and their HTTP and TCP chains.

It balances over clusters of its own (`inbound-vip|80|http/v1|host`); a rule that leads to a service that it does not serve goes to a sidecar's
cluster. Source labels mean nothing here. Rules: pilot/pkg/networking/core/{waypoint,listener_waypoint,cluster_waypoint}.go in istio/istio.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks import names
from checks.istiod import MESH
from checks.resources import Service
from checks.rulesets import L4Rule, Rule, RuleSet, Target, describe, l4_match, rules_for
from checks.sidecar import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.registry import HostPort, HostService
    from checks.upstream import Upstream, Upstreams


def routes(ups: Upstreams, hosts: Iterable[str] | None) -> Iterator[Step]:
    """The rules of a waypoint's listeners, for all hosts that it serves or for these.

    A service without address has its rules too, although nobody reaches a waypoint for it (buildWaypointInternal).
    """
    wanted = None if hosts is None else {h.lower() for h in hosts}
    waypoint = _Waypoint(ups)
    for host, service in waypoint.served.items():
        if wanted is None or host.lower() in wanted:
            yield from waypoint.routes(service)


def served(ups: Upstreams) -> dict[str, HostService]:
    """The services behind a waypoint by host (findWaypointResources, ServicesForWaypoint): those attached to a Service that selects its pod."""
    proxy, istiod = ups.proxy, ups.istiod
    out: dict[str, HostService] = {}
    for svc in ups.mesh.cluster(proxy.cluster).within(Service, proxy.namespace).values():
        selector = svc.spec.selector
        if not selector or any(proxy.labels.get(k) != v for k, v in selector.items()):
            continue
        own = f"{proxy.namespace}/{names.service_host(svc.name, svc.namespace)}"
        for address in (own, *(svc.spec.cluster_ips or (svc.spec.cluster_ip,))):
            for host, namespace in istiod.attachments.behind.get(address, ()):
                service = istiod.by_host_and_namespace.get(host, {}).get(namespace)
                # a host inside of the mesh whose addresses are resolved at the request is not supported
                if service is not None and (service.resolution != "dynamic_dns" or service.external):
                    out[host] = service
    return out


class _Waypoint:
    def __init__(self, ups: Upstreams) -> None:
        self.ups = ups
        self.served = served(ups)

    def routes(self, service: HostService) -> Iterator[Step]:
        """The chains of one service, port by port (buildWaypointInternal)."""
        rulesets = self._rulesets(service)
        for port in service.ports:
            if port.http_or_auto:
                yield from self._http(service, port, rulesets)
            elif port.protocol != "UDP" and not (port.tls and names.is_wildcard(service.hostname) and service.resolution == "dynamic_dns"):
                yield self._tcp(service, port, rulesets)

    @cached_property
    def _near(self) -> list[RuleSet]:
        spaces = {self.ups.proxy.namespace, *(s.namespace for s in self.served.values())}
        return [r for r in self.ups.istiod.rulesets_for(self.ups.proxy.namespace, "mesh") if r.namespace in spaces]

    def _rulesets(self, service: HostService) -> list[RuleSet]:
        """What the waypoint's and the service's own namespaces say of a service; other namespaces' rules are for sidecars (getVirtualServiceForWaypoint)."""
        spaces = {self.ups.proxy.namespace, service.namespace}
        return [r for r in self._near if r.namespace in spaces and any(names.matches(h, service.hostname) for h in r.hosts)]

    def _http(self, service: HostService, port: HostPort, rulesets: list[RuleSet]) -> Iterator[Step]:
        """All rulesets' rules one after the other (buildWaypointInboundHTTPRouteConfig), else everything to the service."""
        number, ruled = port.number, False
        for ruleset in rulesets:
            own = replace(ruleset, http=tuple(_without_source_labels(ruleset.http)))
            for rule, match in rules_for(own, number, self.ups.proxy.labels, MESH, self.ups.proxy.namespace):
                ruled = True
                targets = tuple(self._targets(rule.targets, number))
                yield Step(
                    service.hostname,
                    number,
                    "http",
                    rule.action,
                    ruleset.source(rule),
                    rule.path,
                    describe(match),
                    targets,
                    rule.leaf,
                    rule.abort,
                    rule.name,
                )
        if not ruled:
            yield self._default(service, number, "http")

    def _tcp(self, service: HostService, port: HostPort, rulesets: list[RuleSet]) -> Step:
        """The first tls rule of exactly this host, else the first tcp rule, else everything to the service (getWaypointTCPRoutes)."""
        number = port.number
        for kind in ("tls", "tcp"):
            for ruleset in rulesets:
                rule = _l4(ruleset.tls, number, service.hostname) if kind == "tls" else _l4(ruleset.tcp, number)
                if rule is not None:
                    targets = tuple(self._targets(rule.targets, number))
                    return Step(service.hostname, number, "tcp", "route", ruleset.ref, rule.path, "every connection", targets)
        return self._default(service, number, "tcp")

    def _default(self, service: HostService, number: int, protocol: str) -> Step:
        target = self.ups.vip(service.hostname, number, protocol, self.served)
        match = "every request" if protocol == "http" else "every connection"
        return Step(service.hostname, number, protocol, "route", None, "", match, ((target, 0, ""),))

    def _targets(self, targets: tuple[Target, ...], number: int) -> Iterator[tuple[Upstream, int, str]]:
        for t in targets:
            yield self._target(t, number), t.weight, t.path

    def _target(self, t: Target, number: int) -> Upstream:
        """The cluster of a destination; a port left out is the service's only one, else the listener's (getWaypointDestinationCluster)."""
        if not t.host:
            return self.ups.unknown()
        seen = self.ups.scope.services.get(t.host)
        number = t.port if t.port is not None else seen.ports[0].number if seen is not None and len(seen.ports) == 1 else number
        if seen is not None and t.host not in self.served:
            found = self.ups.of(t.host, number, t.subset)
            if t.host in self._led_to:
                return found
            return replace(found, defined=False, fails=not found.unread, endpoints=(), healthy=0, dropped=found.endpoints)
        port = seen.port(number) if seen is not None else None
        protocol = "http" if port is None or port.http_or_auto else "tcp"
        return self.ups.vip(t.host, number, f"{protocol}/{t.subset}" if t.subset else protocol, self.served)

    @cached_property
    def _led_to(self) -> set[str]:
        """Hosts that any mesh ruleset naming a served host leads to: only these have a sidecar's clusters here (filterWaypointOutboundServices)."""
        found: set[str] = set()
        for r in self.ups.istiod.rulesets:
            if "mesh" in r.gateways and any(h in self.served for h in r.hosts):
                found.update(r.leads)
        return found


def _without_source_labels(rules: tuple[Rule, ...]) -> Iterator[Rule]:
    """Rules without the matches that name source labels, which a waypoint cannot know (waypointInboundRoute)."""
    for rule in rules:
        left = tuple(m for m in rule.matches if not m.source_labels)
        if left or not rule.matches:
            yield replace(rule, matches=left)


def _l4(rules: tuple[L4Rule, ...], port: int, sni: str = "") -> L4Rule | None:
    """The first rule that fits a port, of tls rules (`sni` given) one for exactly this name (getTLSRouteMatch, getTCPRouteMatch)."""
    for rule in rules:
        fitting = (m for m in rule.matches if not sni or m.sni_hosts == (sni,))
        if rule.targets and (not rule.matches or any(l4_match(m, {}, MESH, port, "") for m in fitting)):
            return rule
    return None
