"""Envoy's clusters: which a proxy is pushed, and which endpoints it would send to.

Rules: semantics.md 3.4, 3.6 to 3.8, 3.10; pilot/pkg/networking/core/cluster*.go and pilot/pkg/xds/endpoints in istio/istio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from checks import names
from checks.answers import Destination, Endpoint
from checks.attachment import HBONE_PORT
from checks.istiod import MergedRule
from checks.peers import accepted
from checks.registry import AUTO, DRAINING, PERSISTENT_SESSION, TOPOLOGY, UNSPECIFIED, HostService, IstioEndpoint, locality_match
from checks.resources import (
    APIGRPCRoute,
    APIHTTPRoute,
    DestinationRule,
    EndpointSlice,
    Pod,
    Service,
    ServiceEntry,
    ServiceExport,
    ServiceImport,
    VirtualService,
    WorkloadEntry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from checks.istiod import Istiod, Proxy, Scope
    from checks.mesh import Cluster, Mesh, NetworkGateway
    from checks.registry import HostPort
    from checks.resources import LocalityLbSetting, TrafficPolicy

UNKNOWN_SERVICE = "UnknownService"
Reach = Literal["direct", "gateway", "plain", "cluster-local", "scope-local", "not-exported", "dropped"]


class Upstream(Struct, eq=False, gc=False):
    """One Envoy cluster as a proxy would hold it. `unseen` says that only Envoy knows its endpoints (ORIGINAL_DST, DYNAMIC_DNS)."""

    name: str
    host: str
    port: int
    subset: str
    service: HostService | None
    rule: MergedRule | None
    defined: bool
    unseen: bool = False
    unread: str = ""
    """Why nobody can say that it is of no use: what decides it could not be read."""
    endpoints: tuple[IstioEndpoint, ...] = ()
    dropped: tuple[IstioEndpoint, ...] = ()
    elsewhere: tuple[IstioEndpoint, ...] = ()
    """Of the dropped ones, those that only localityLbSetting.distribute takes away."""
    healthy: int = 0
    """How many of its endpoints are."""
    entered: bool = False
    """Whether its endpoints are those of the service's waypoint in place of its own."""
    fails: bool = True
    """Whether requests that come here are known to fail; what could not be read is not known to fail."""

    @property
    def usable(self) -> bool:
        """Whether Envoy would find somebody to send to."""
        return self.defined and (self.unseen or self.healthy > 0)

    def destination(self, weight: int, share: float) -> Destination:
        """As the answer shows it."""
        return Destination(
            envoy_cluster=self.name,
            weight=weight,
            share=share,
            defined=self.defined,
            usable=self.usable,
            destination_rule=self.rule.ref if self.rule and self.defined else None,
            endpoints=tuple(
                Endpoint(
                    address=e.at,
                    state="healthy" if e.health == "healthy" else "draining" if e.health == "draining" else "unhealthy",
                    cluster=e.cluster,
                    workload=e.workload,
                    reason=e.reason,
                )
                for e in self.endpoints
            ),
        )


def _passes(policy: TrafficPolicy | None) -> bool:
    """Whether a policy leaves it to the caller which address is called: of a whole cluster, or of a subset by itself (applyLoadBalancer, buildSubsetCluster)."""
    return policy is not None and policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH"


def subset_key(port: int, subset: str, host: str) -> str:
    """A cluster's name (model.BuildSubsetKey)."""
    return f"outbound|{port}|{subset}|{host}"


def sni_key(port: int, subset: str, host: str) -> str:
    """The name of an AUTO_PASSTHROUGH gateway's cluster, which is the SNI as well (model.BuildDNSSrvSubsetKey)."""
    return f"outbound_.{port}_.{subset}_.{host}"


@dataclass(slots=True)
class Upstreams:
    """All Envoy clusters of one proxy, each worked out when a route leads to it."""

    mesh: Mesh
    istiod: Istiod
    proxy: Proxy
    scope: Scope
    read: set[tuple[str, str]] = field(default_factory=set)
    """Whose endpoints were looked at: (host, namespace)."""
    shared: dict[object, Upstream] = field(default_factory=dict)
    """Clusters by all that decides them, for the proxies of several viewpoints."""
    ports: dict[object, tuple[list[IstioEndpoint], bool]] = field(default_factory=dict)
    """The endpoints of services by port, and whether they all are healthy, for the proxies of several viewpoints."""
    _known: dict[tuple[str, int, str, bool], Upstream] = field(default_factory=dict)
    _hosts: dict[str, tuple[HostService | None, MergedRule | None, tuple[object, ...]]] = field(default_factory=dict)
    """Of each host its service and DestinationRule, and what decides its clusters."""
    _vips: dict[str, Upstream] = field(default_factory=dict)

    def endpoints(self, service: HostService) -> tuple[IstioEndpoint, ...]:
        """Every endpoint of a service, of all ports and subsets."""
        self.read.add((service.hostname, service.namespace))
        return self.mesh.endpoints(self.istiod, service.hostname, service.namespace)

    def numbered(self, service: HostService, port: int) -> list[IstioEndpoint]:
        """The endpoints that CDS and LDS find by a port's number, where the registry gave one, else by its name (EndpointShards.CopyEndpoints).

        Of several services of a host in one namespace the youngest that has the port says its name (PushContext.initServiceRegistry).
        """
        same = (s for s in self.istiod.by_host.get(service.hostname, ()) if s.namespace == service.namespace)
        called = {p.name for p in service.ports if p.number == port}
        for s in same:
            called = {p.name for p in s.ports if p.number == port} or called
        return [e for e in self.endpoints(service) if (e.legacy_port == port if e.legacy_port is not None else e.port_name in called)]

    def of(self, host: str, port: int, subset: str = "", *, sni: bool = False) -> Upstream:
        """The cluster of a host's port and subset."""
        key = host, port, subset, sni
        found = self._known.get(key)
        if found is None:
            service, rule, decides = self._hosts.get(host) or self._of_host(host)
            made_of = key, decides
            found = self.shared.get(made_of)
            if found is None:
                found = self.shared[made_of] = self._judge(self._make(host, port, subset, service, rule, sni=sni))
            self._known[key] = found
        return found

    def _of_host(self, host: str) -> tuple[HostService | None, MergedRule | None, tuple[object, ...]]:
        p, istiod, service = self.proxy, self.istiod, self.scope.services.get(host)
        rule = istiod.destination_rule(p, service) if service is not None else None
        at_gateway = p.kind == "gateway"
        place = p.locality if istiod.zoned else "", p.node if service is not None and service.node_local else ""
        entered = self._entered(service) if service is not None and at_gateway else None
        decides = id(service), id(rule), id(istiod), at_gateway, p.cluster, p.network, place, *[id(w) for w, _ in entered or ()]
        self._hosts[host] = found = service, rule, decides
        return found

    def vip(self, host: str, port: int, wire: str, served: Mapping[str, HostService]) -> Upstream:
        """A waypoint's own cluster of a host that it serves; `wire` is `http` or `tcp`, with `/subset` where a rule names one."""
        name = f"inbound-vip|{port}|{wire}|{host}"
        if name not in self._vips:
            self._vips[name] = self._judge(self._make_vip(name, host, port, wire, served.get(host)))
        return self._vips[name]

    def default(self, host: str, port: int) -> Upstream:
        """The cluster of a default route, which is none where VirtualServices and routes could not be read."""
        found = self.of(host, port)
        unread = self.mesh.unread(self._holder, VirtualService, APIHTTPRoute, APIGRPCRoute)
        return replace(found, unread=unread, fails=False) if unread and found.fails else found

    @property
    def _holder(self) -> Cluster:
        return self.mesh.cluster(self.istiod.cluster)

    def _judge(self, u: Upstream) -> Upstream:
        """Note what could not be read and would decide whether a cluster that looks useless is."""
        if u.usable:
            u.fails = False
            return u
        if u.service is None or u.service.port(u.port) is None:
            shown = [self.mesh.unread(c, Service) for c in self.mesh.clusters]
            u.unread = next(filter(None, shown), "") or self.mesh.unread(self._holder, ServiceEntry)
        elif not u.defined:
            u.unread = self.mesh.unread(self._holder, DestinationRule)
        elif u.service.kubernetes:
            exports = (ServiceExport, ServiceImport) if self.istiod.mcs else ()
            u.unread = next(filter(None, (self.mesh.unread(c, EndpointSlice, Pod, *exports) for c in self.mesh.clusters)), "")
        elif u.service.selector is not None:
            u.unread = self.mesh.unread(self._holder, WorkloadEntry, Pod)
        u.fails = not u.unread
        return u

    def unknown(self) -> Upstream:
        """Where an invalid backend leads: a cluster that nobody pushes."""
        return Upstream(UNKNOWN_SERVICE, "", 0, "", None, None, defined=False)

    def _make(self, host: str, port: int, subset: str, service: HostService | None, rule: MergedRule | None, *, sni: bool) -> Upstream:
        name = (sni_key if sni else subset_key)(port, subset, host)
        out = Upstream(name, host, port, subset, service, rule, defined=False)
        found = service.port(port) if service else None
        if service is None or found is None or found.protocol == "UDP" or service.resolution == "alias":
            return out
        if service.resolution == "dynamic_dns" and names.is_wildcard(host):
            out.defined = out.unseen = not subset and found.protocol in {"HTTP", "TLS", "GRPC", "HTTP2"}
            return out
        inner = rule.subset(subset) if rule is not None and subset else None
        if subset and inner is None:
            return out
        policy = rule.policy_for(port, subset) if rule is not None else None
        kind = self._kind(service)
        labels = (inner.labels if inner is not None else None) or {}
        loose = passes = False
        if policy is not None and rule is not None:
            # a subset begins as what the whole host's cluster became, and its own policy comes too late to change that
            loose = inner is not None and (_passes(rule.policy_for(port, "")) or _passes(inner.traffic_policy))
            passes = loose or _passes(policy)
        if kind == "original_dst" or (passes and kind == "eds"):
            out.defined = out.unseen = True
            return out
        entered = self._entered(service) if kind == "eds" and self.proxy.kind == "gateway" else None
        if entered is not None:
            behind = [e for w, number in entered for e in self.endpoints(w) if e.port_name == number.name]
            kept = self._filter(behind, service, rule, policy, port, subset, well=False, sni=sni)
            out.defined, out.entered, out.endpoints = True, True, tuple(kept)
            out.healthy = sum(e.health == "healthy" for e in kept)
            return out
        if loose:
            labels = {}  # it has the whole host's endpoints until they are taken away
        candidates, well = self._candidates(service, found.name, port, labels, dns=kind == "dns")
        reached = self._filter(candidates, service, rule, policy, port, subset, well=well, sni=sni)
        out.defined = kind != "dns" or bool(reached)  # istiod does not generate a DNS cluster without endpoints
        if passes and out.defined:
            out.unseen = True
            return out
        self._settle(out, candidates, reached, service, policy, well=well)
        return out

    def _entered(self, service: HostService) -> list[tuple[HostService, HostPort]] | None:
        """The waypoints, with their HBONE ports, through which a gateway calls a service that asks for it; None where it calls the service itself (EndpointBuilder.findServiceWaypoint)."""
        hosts = self.istiod.entered.get((service.hostname, service.namespace))
        if hosts is None or service.address_for(self.proxy.cluster) == UNSPECIFIED:
            return None
        found = (self.scope.services.get(h) for h in hosts)
        return [(w, port) for w in found if w is not None and (port := w.port(HBONE_PORT)) is not None]

    def _settle(
        self,
        out: Upstream,
        candidates: list[IstioEndpoint],
        reached: list[IstioEndpoint],
        service: HostService,
        policy: TrafficPolicy | None,
        *,
        well: bool,
    ) -> None:
        near = self._by_locality(reached, service, policy)
        out.endpoints = tuple(near)
        out.healthy = len(near) if well else sum(e.health == "healthy" for e in near)
        if near is candidates or (len(near) == len(candidates) == len(reached) and reached == candidates):
            return  # nothing is dropped, as is usual
        kept = {id(e) for e in out.endpoints}
        out.elsewhere = tuple(e for e in reached if id(e) not in kept)
        out.dropped = tuple(e for e in candidates if id(e) not in kept)

    def _make_vip(self, name: str, host: str, port: int, wire: str, service: HostService | None) -> Upstream:
        """A waypoint's cluster as buildWaypointInboundVIP in core/cluster_waypoint.go makes it; its EDS is built from what the waypoint's namespace sees (NewEndpointBuilder)."""
        protocol, _, subset = wire.partition("/")
        seen = self.scope.services.get(host)
        rules = self.istiod.destination_rules(self.proxy.namespace, seen) if seen else []
        shape = next((m for m in reversed(rules) if m.selector is None), None)
        out = Upstream(name, host, port, subset, service, shape, defined=False)
        found = service.port(port) if service else None
        if service is None or found is None or found.protocol == "UDP" or (subset and (shape is None or shape.subset(subset) is None)):
            return out
        if found.protocol != AUTO and found.http != (protocol == "http"):
            return out
        policy = shape.policy_for(port, subset) if shape else None
        if service.resolution == "dynamic_dns":
            out.defined = out.unseen = found.protocol == "HTTP"
        elif service.resolution == "none" or _passes(policy):
            out.defined = out.unseen = True
        elif service.dns:
            # such clusters are built without a DestinationRule, so a subset of a DNS host is all of it
            candidates, well = self._candidates(service, found.name, port, {}, dns=True)
            reached = self._filter(candidates, service, None, None, port, "", well=well, sni=False)
            out.defined = bool(reached)
            self._settle(out, candidates, reached, service, policy, well=well)
        else:
            out.defined = True
            visible = seen.port(port) if seen else None
            if seen is not None and visible is not None:
                rule = self.istiod.destination_rule(self.proxy, seen)
                # istiod takes the bare protocol for a subset's name, so a subset called `http` shapes the whole host
                inner = rule.subset(subset or protocol) if rule else None
                policy = rule.policy_for(port, subset or protocol) if rule else None
                candidates, well = self._candidates(seen, visible.name, port, (inner.labels if inner else None) or {}, dns=False)
                reached = self._filter(candidates, seen, rule, policy, port, subset or protocol, well=well, sni=False)
                self._settle(out, candidates, reached, seen, policy, well=well)
        return out

    def _kind(self, service: HostService) -> str:
        """`eds`, `dns` or `original_dst` (cluster.go convertResolution)."""
        if service.dns:
            return "dns"
        if (
            service.resolution == "none"
            and self.proxy.kind != "gateway"
            and not (service.kubernetes and self.istiod.plane.balances_headless)
        ):
            return "original_dst"
        return "eds"

    def _candidates(
        self, service: HostService, port_name: str, port: int, labels: dict[str, str], *, dns: bool
    ) -> tuple[list[IstioEndpoint], bool]:
        """The endpoints of a port that carry some labels; and whether those of the port all are healthy."""
        on_port, well = self._on_port(service, port_name, port, dns=dns)
        found = on_port
        for key, value in labels.items():
            found = [e for e in found if e.carries(key, value)] if key in TOPOLOGY else [e for e in found if e.own.get(key) == value]
        return found, well

    def _on_port(self, service: HostService, port_name: str, port: int, *, dns: bool) -> tuple[list[IstioEndpoint], bool]:
        shard = self.endpoints(service)
        key = id(shard), port_name, port, dns
        known = self.ports.get(key)
        if known is None:
            if dns:
                found = self.numbered(service, port)
            else:
                # what runs on a node is a pod
                found = [e for e in shard if e.port_name == port_name and (e.node or not e.port or not e.address or names.is_ip(e.address))]
            for e in found:
                if e.health != "healthy" or not e.address or DRAINING in e.own:
                    well = False
                    break
            else:
                well = True
            known = self.ports[key] = found, well
        return known

    def _filter(
        self,
        candidates: list[IstioEndpoint],
        service: HostService,
        rule: MergedRule | None,
        policy: TrafficPolicy | None,
        port: int,
        subset: str,
        *,
        well: bool,
        sni: bool,
    ) -> list[IstioEndpoint]:
        local = self.istiod.cluster_local(service.hostname) or self.istiod.scope_local(service)
        kept = candidates
        if not well or local or service.node_local:
            unhealthy = self._sends_unhealthy(service, policy)
            kept = [e for e in candidates if not self._drops(e, service, local=local, unhealthy=unhealthy)]
        if self.istiod.mcs:
            kept = [e for e in kept if self._exported(e, service)]
        kept = self._by_network(kept, rule, port, subset)
        return [e for e in kept if self._mtls(e, rule, port, subset)] if sni else kept

    def _sends_unhealthy(self, service: HostService, policy: TrafficPolicy | None) -> bool:
        if service.traffic_distribution:
            return True
        if not self.istiod.sends_unhealthy:
            return False
        outlier = policy.outlier_detection if policy else None
        return not (outlier and outlier.min_health_percent)  # the mesh's defaultTrafficPolicy is not asked (supportsUnhealthyEndpoints)

    def _drops(self, e: IstioEndpoint, service: HostService, *, local: bool, unhealthy: bool) -> bool:
        if service.node_local and (e.node != self.proxy.node or e.cluster != self.proxy.cluster):
            return True
        if local and e.cluster != self.proxy.cluster:
            return True
        if (not e.address and not self.through(e)) or e.health == "terminating" or (e.health == "unhealthy" and not unhealthy):
            return True
        return (e.health == "draining" or bool(e.own.get(DRAINING))) and not service.labels.get(PERSISTENT_SESSION)

    def _exported(self, e: IstioEndpoint, service: HostService) -> bool:
        """Whether an endpoint is the caller's cluster's own, or exported from its own (IstioEndpoint.IsDiscoverableFromProxy)."""
        return e.cluster == self.proxy.cluster or self.istiod.discoverable(service, e.cluster)

    def _mtls(self, e: IstioEndpoint, rule: MergedRule | None, port: int, subset: str) -> bool:
        """Whether istiod would have the caller speak mTLS to an endpoint: whatever is said, one that takes none is not marked (mtls_checker.go)."""
        mode = rule.tls_mode(port, subset) if rule else None
        if mode is not None or not e.tls:
            return e.tls and mode == "ISTIO_MUTUAL"
        return accepted(self.istiod, e.namespace, e.labels, e.port).mode != "DISABLE"

    def _by_network(self, endpoints: list[IstioEndpoint], rule: MergedRule | None, port: int, subset: str) -> list[IstioEndpoint]:
        """Endpoints of other networks give way to the gateways there (ep_filters.go EndpointsByNetworkFilter)."""
        if not self.mesh.network_gateways:
            return endpoints
        out: list[IstioEndpoint] = []
        through: dict[tuple[str, int, str], IstioEndpoint] = {}
        for e in endpoints:
            near = self.through(e)
            if not near:
                if not e.address.startswith("unix://"):  # a Unix domain socket has no host, and is left out
                    out.append(e)
            elif self._mtls(e, rule, port, subset):
                for g in near:  # a load balancer's hostname is resolved by istiod (pilot/pkg/model/network.go)
                    entry = e.copy(
                        address=g.address,
                        port=g.port,
                        health="healthy",
                        workload="",
                        reason="",
                        own={},
                        topology={},
                        cluster=g.cluster,
                        node="",
                    )
                    # it stands for endpoints of each locality, which localityLbSetting.distribute tells apart
                    through.setdefault((g.address, g.port, e.locality if self.istiod.zoned else ""), entry)
        return out + list(through.values())

    def through(self, e: IstioEndpoint) -> list[NetworkGateway]:
        """The gateways that stand for an endpoint of another network; none when it is reached itself."""
        gateways = [g for g in self.mesh.network_gateways if g.only in ("", self.istiod.cluster)]
        near = [g for g in gateways if (g.network, g.cluster) == (e.network, e.cluster)] or [g for g in gateways if g.network == e.network]
        forced = not self.proxy.network and bool(e.network)
        return near if forced or not self.proxy.in_network(e.network) else []

    def reach(self, u: Upstream) -> Iterator[tuple[IstioEndpoint, Reach]]:
        """Each endpoint of a cluster, sent or not, and how its calls get there: itself, through its network's gateways, or why not."""
        if u.service is None:
            return
        policy = u.rule.policy_for(u.port, u.subset) if u.rule else None
        local, scoped = self.istiod.cluster_local(u.service.hostname), self.istiod.scope_local(u.service)
        unhealthy = self._sends_unhealthy(u.service, policy)
        known = {id(e) for e in self.mesh.endpoints(self.istiod, u.service.hostname, u.service.namespace)}
        sent = {id(e) for e in u.endpoints}
        for e in (*u.endpoints, *u.dropped):
            if id(e) not in known:
                continue
            if local and e.cluster != self.proxy.cluster:
                yield e, "cluster-local"
            elif scoped and e.cluster != self.proxy.cluster:
                yield e, "scope-local"
            elif self._drops(e, u.service, local=False, unhealthy=unhealthy):
                yield e, "dropped"
            elif not self._exported(e, u.service):
                yield e, "not-exported"
            elif self.through(e):
                yield e, "gateway" if self._mtls(e, u.rule, u.port, u.subset) else "plain"
            else:
                yield e, "direct" if id(e) in sent else "dropped"

    def _by_locality(self, endpoints: list[IstioEndpoint], service: HostService, policy: TrafficPolicy | None) -> list[IstioEndpoint]:
        """localityLbSetting.distribute takes all endpoints from localities that it does not name (loadbalancer.go applyLocalityWeights)."""
        if not self.istiod.zoned:
            return endpoints
        config, balancer = self.istiod.config, policy.load_balancer if policy else None
        own = balancer.locality_lb_setting if balancer else None
        setting: LocalityLbSetting | None = own
        if balancer is not None and balancer.zone_aware_lb_setting is not None:
            return endpoints  # it gives priorities, and comes before all others (GetEffectiveLbSetting)
        if own is None:
            setting = None if service.traffic_distribution or config.zone_aware_lb_setting is not None else config.locality_lb_setting
        if setting is None or setting.enabled is False or not setting.distribute:
            return endpoints
        chosen = next((d for d in setting.distribute if locality_match(self.proxy.locality, d.from_)), None)
        if chosen is None:
            return endpoints
        return [e for e in endpoints if any(locality_match(e.locality, to) for to in chosen.to or {})]


def shares(weights: Sequence[int]) -> list[float]:
    """The share of each weight: all of it for a single one, whatever it says; weight 0 beside others gets nothing."""
    if len(weights) == 1:
        return [1.0]
    total = sum(weights)
    return [w / total if total else 0.0 for w in weights]
