"""What one control plane knows of the configuration: services, VirtualServices, DestinationRules, Sidecars; and what each proxy sees of it (Scope).

Nothing here depends on pods or endpoints, so it outlives every change of those. Rules: semantics.md 3.2, 3.5, 3.9, 3.10;
pilot/pkg/model/{push_context,sidecar,destination_rule,virtualservice}.go in istio/istio.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from checks import attachment, gatewayapi, names, rulesets
from checks.gatewayapi import OfPolicies
from checks.planes import NEWEST
from checks.registry import UNSPECIFIED, HostPort, HostService, MeshConfig, from_entry, from_service, oldest_first, protocol
from checks.resources import (
    DestinationRule,
    EgressListener,
    Gateway,
    Namespace,
    Resource,
    Service,
    ServiceEntry,
    Sidecar,
    Subset,
    TrafficPolicy,
    VirtualService,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from checks.planes import Plane
    from checks.rulesets import RuleSet

MESH = frozenset({"mesh"})
LOCALHOST = "127.0.0.1"
SERVER_FIRST = frozenset({"MONGO", "MYSQL"})
"""Protocols that share a listener with no other one (listener.go isConflictWithWellKnownPort)."""
RESERVED = frozenset({15001, 15006, 15021, 15090})
"""Ports on which every sidecar listens for something else (context.go conflictWithReservedListener)."""
_WITHOUT_RULES = frozenset(
    {
        *("exports", "imports", "kubernetes", "undiscovered", "zoned", "_rulers", "_external_names", "_special", "crowded"),
        *("namespaces", "services", "by_host", "by_host_and_namespace", "sends_unhealthy", "_cluster_local", "_named", "_public"),
        *("_public_by_namespace", "api", "attachments", "entered", "_destination_rules", "split", "_sidecars", "crowding", "gateways"),
        *("services by namespace", "cluster local", "scope local", "own services", "node local", "entries by host", "destination rules"),
        *("written for", "literal hosts", "wildcard destination rules", "meant destination rules", "hosts", "_leading", "headless"),
        *("selectors", "asks", "asks by rule", "askers", "named by", "let in", "asks by policy", "peer authentications", "cued", "nearest"),
        *("named for any host", "against mTLS"),
    }
)
"""What an Istiod knows, as attributes and by name (`once`), in which no VirtualService stands, and no RuleSet that was made of one."""
_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class MergedRule:
    """DestinationRules of one host string in one namespace as istiod merged them; `origins` the oldest first, what it made of policies last."""

    host: str
    export_to: frozenset[str]
    origins: list[DestinationRule]
    subsets: list[Subset]
    policy: TrafficPolicy | None
    selector: Mapping[str, str] | None
    subset_origins: dict[str, DestinationRule] = field(default_factory=dict)
    duplicates: list[tuple[str, DestinationRule]] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        """Where it stands."""
        return self.origins[0].namespace

    @property
    def ref(self) -> str:
        """The oldest rule's ref."""
        return self.origins[0].ref

    def take(self, rule: DestinationRule, *, filling: bool) -> None:
        """Merge a rule in: subsets that it has more, and its policy where there is none. One made of BackendTLSPolicies is `filling` what others leave open."""
        was_made, made = isinstance(self.origins[-1], OfPolicies), isinstance(rule, OfPolicies)
        have = {s.name for s in self.subsets}
        for s in rule.spec.subsets or ():
            if s.name in have:
                self.duplicates.append((s.name, rule))
            else:
                self.subsets.append(s)
                self.subset_origins[s.name] = rule
        if was_made != made and filling:
            self.policy = _filled(self.policy, rule.spec.traffic_policy) if made else _filled(rule.spec.traffic_policy, self.policy)
        elif self.policy is None:
            self.policy = rule.spec.traffic_policy
        self.origins = sorted([*self.origins, rule], key=lambda r: isinstance(r, OfPolicies))

    def subset(self, name: str) -> Subset | None:
        """Its subset of that name."""
        for s in self.subsets:
            if s.name == name:
                return s
        return None

    def tls_mode(self, port: int, subset: str) -> str | None:
        """The TLS mode by which istiod marks the endpoints of a port and subset; where the subset says none the whole rule's (mtls_checker.go).

        A port's settings count where they name a mode; in a cluster's own settings (policy_for) they replace everything.
        """
        own = self.subset(subset) if subset else None
        for policy in (own.traffic_policy if own is not None else None, self.policy):
            ported = (p.tls for p in (policy.port_level_settings if policy else None) or () if p.port is not None and p.port.number == port)
            said = next(filter(None, ported), policy.tls if policy else None)
            if said is not None:
                return said.mode
        return None

    def policy_for(self, port: int, subset: str) -> TrafficPolicy | None:
        """The traffic policy of a port and subset: port level replaces, subset overrides block by block (util.MergeSubsetTrafficPolicy)."""
        own = self.subset(subset) if subset else None
        shape = own.traffic_policy if own is not None else None
        if shape is None and self.policy is None:
            return None
        base, _ = _port_level(self.policy, port)
        if shape is None:
            return base
        over, port_level = _port_level(shape, port)
        if base is None or over is None:
            return over or base
        return replace(
            base,
            load_balancer=over.load_balancer if over.load_balancer is not None or port_level else base.load_balancer,
            outlier_detection=over.outlier_detection if over.outlier_detection is not None or port_level else base.outlier_detection,
            tls=over.tls if over.tls is not None or port_level else base.tls,
            connection_pool=over.connection_pool if over.connection_pool is not None or port_level else base.connection_pool,
        )


def _filled(own: TrafficPolicy | None, made: TrafficPolicy | None) -> TrafficPolicy | None:
    """What is written with the TLS that policies say where it says none, also port by port (mergeBackendPolicyTrafficPolicy)."""
    if own is None or made is None:
        return own or made
    said = {p.port.number: p for p in made.port_level_settings or () if p.port is not None}
    written = {p.port.number for p in own.port_level_settings or () if p.port is not None}
    ports = [
        replace(p, tls=said[p.port.number].tls) if p.tls is None and p.port is not None and p.port.number in said else p
        for p in own.port_level_settings or ()
    ]
    ports += [p for number, p in said.items() if number not in written]
    return replace(own, tls=own.tls if own.tls is not None else made.tls, port_level_settings=tuple(ports) or None)


def _port_level(policy: TrafficPolicy | None, port: int) -> tuple[TrafficPolicy | None, bool]:
    if policy is None:
        return None, False
    for p in policy.port_level_settings or ():
        if p.port is not None and p.port.number == port:
            return TrafficPolicy(p.load_balancer, p.outlier_detection, p.tls, p.connection_pool), True
    return policy, False


@dataclass(slots=True)
class _RuleIndex:
    by_export: bool
    filling: bool
    exact: dict[str, list[MergedRule]] = field(default_factory=dict)
    wild: dict[str, list[MergedRule]] = field(default_factory=dict)

    def add(self, rule: DestinationRule, host: str, export_to: frozenset[str]) -> None:
        """Merge a rule in, or append it (destination_rule.go mergeDestinationRule); without `by_export` whatever it is exported to."""
        index = self.wild if names.is_wildcard(host) else self.exact
        known = index.setdefault(host, [])
        selector = rule.spec.workload_selector.wanted if rule.spec.workload_selector else None
        separately = True
        for merged in known:
            if self.by_export and export_to == merged.export_to:
                separately = False
            elif self.by_export:
                separately = True
                if not (merged.export_to and export_to >= merged.export_to):
                    continue
            both = selector is None and merged.selector is None
            both_selected = selector is not None and merged.selector is not None
            if both_selected and selector != merged.selector:
                separately = True
                continue
            if both or both_selected:
                separately = False
            merged.take(rule, filling=self.filling)
        if separately:
            subsets = list(rule.spec.subsets or ())
            known.append(MergedRule(host, export_to, [rule], subsets, rule.spec.traffic_policy, selector, {s.name: rule for s in subsets}))

    def share(self, other: _RuleIndex) -> None:
        """Take over the other's lists that say the same, so that who gets the same rule gets the same object."""
        for mine, theirs in ((self.exact, other.exact), (self.wild, other.wild)):
            for host, found in mine.items():
                known = theirs.get(host, ())
                if len(known) == len(found) and all(
                    a.export_to == b.export_to and a.origins == b.origins for a, b in zip(found, known, strict=True)
                ):
                    mine[host] = theirs[host]

    def find(self, host: str) -> list[MergedRule] | None:
        """The rules of the most specific host string that matches."""
        exact = self.exact.get(host)  # no wildcard is among these
        return names.most_specific(host, self.exact, self.wild) if exact is None and (self.wild or names.is_wildcard(host)) else exact


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as istiod knows it. `kind`: sidecar, gateway (Istio's Router) or waypoint."""

    kind: str
    cluster: str
    namespace: str
    pod: str
    labels: Mapping[str, str]
    locality: str = ""
    network: str = ""
    node: str = ""
    ip: str = ""
    revision: str = ""

    def in_network(self, network: str) -> bool:
        """Whether a network is its own, or either is not known."""
        return not network or not self.network or network == self.network


class Istiod:
    """One control plane: the configuration of its own cluster, the services of all clusters of its mesh."""

    def __init__(
        self,
        cluster: str,
        objects: Mapping[type[Resource], Iterable[Resource]],
        services: Iterable[tuple[str, Service]],
        config: MeshConfig,
        plane: Plane = NEWEST,
    ) -> None:
        self.cluster = cluster
        self.config = config
        self.plane = plane
        self.mcs = plane.mcs
        self.unheard: list[Resource] = []
        self.exports: frozenset[tuple[str, str, str]] = frozenset()
        """Services that a ServiceExport shows to other clusters: (cluster, namespace, name)."""
        self.imports: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {}
        """Of each (namespace, name) the addresses that a ServiceImport gives it, by cluster."""
        self._objects = objects
        self.kubernetes = list(services)
        self.undiscovered: dict[str, tuple[str, str]] = {}
        """Hosts of Services in namespaces that discoverySelectors leave out: (cluster, the Service's ref)."""
        self._scopes: dict[tuple[str, ...], Scope] = {}
        self._memo: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Something worked out of the configuration once."""
        try:
            known: _T = self._memo[key]
        except KeyError:
            known = self._memo[key] = make()
        return known

    def reweighed(self, changed: Mapping[str, VirtualService]) -> Istiod:
        """This control plane after VirtualServices (by ref) that say other weights and nothing else (rulesets.weightless).

        All that holds no rule is the old one's: services, DestinationRules, and by which hosts rules are found.
        """
        own = [changed.get(v.ref, v) for v in self.all(VirtualService) if isinstance(v, VirtualService)]
        touched = [r for r in self.rulesets if r.ref in changed or any(rule.leaf in changed for rule in r.http)]
        roots = {r.ref for r in touched}
        new = {r.ref: r for r in rulesets.merge(own, self.config.default_virtual_service_export_to or ("*",), lambda v: v.ref in roots)}
        swap = {r: new[r.ref] for r in touched}
        made = Istiod(self.cluster, {**self._objects, VirtualService: own}, (), self.config, self.plane)
        for name, known in vars(self).items():
            if name in _WITHOUT_RULES:
                setattr(made, name, known)
        made.unheard = [changed.get(o.ref, o) for o in self.unheard]
        made.rulesets = [swap.get(r, r) for r in self.rulesets]
        made._memo = {k: known for k, known in self._memo.items() if (k[0] if isinstance(k, tuple) else k) in _WITHOUT_RULES}
        made._scopes = {key: scope.reweighed(made, swap) for key, scope in self._scopes.items()}
        return made

    def special(self, namespace: str) -> bool:
        """Whether a namespace's sidecars may get something that those of a plain namespace do not, DestinationRules aside."""
        if namespace in self._special:
            return True
        found = self.sidecar(Proxy("sidecar", self.cluster, namespace, "", {}))
        return found is not None and not self._open(found)

    def _open(self, sidecar: Sidecar) -> bool:
        """Whether a Sidecar shows what is seen without one: the same services and rules on the same listeners, and what becomes of unknown hosts."""
        policy = sidecar.spec.outbound_traffic_policy
        mode = policy.mode if policy is not None else None
        wide = [e == EgressListener(hosts=("*/*",)) for e in sidecar.spec.egress or ()]
        return (
            sidecar.spec.workload_selector is None and wide in ([], [True]) and mode in {None, "", self.config.outbound_traffic_policy.mode}
        )

    @cached_property
    def zoned(self) -> bool:
        """Whether any rule looks at the caller's locality: localityLbSetting.distribute does."""
        if self.config.locality_lb_setting.distribute:
            return True
        for r in self.all(DestinationRule):
            if not isinstance(r, DestinationRule):
                continue
            for p in (r.spec.traffic_policy, *[s.traffic_policy for s in r.spec.subsets or ()]):
                balancers = (p.load_balancer, *[x.load_balancer for x in p.port_level_settings or ()]) if p is not None else ()
                if any(b and b.locality_lb_setting and b.locality_lb_setting.distribute for b in balancers):
                    return True
        return False

    def ruled(self, host: str, *, apart: bool = False) -> frozenset[str]:
        """The namespaces for whose callers a host, or any host that its rules may lead to, has DestinationRules of their own: in them, or exported to them.

        Without `apart` only those that get other rules than everybody.
        """
        exact, wild = self._rulers
        if not exact and not wild:
            return frozenset()
        found: set[str] = set()
        for h in self.reached(host):
            spaces = exact.get(h, frozenset())
            if wild:
                spaces = spaces.union(*(more for w, more in wild.items() if names.matches(w, h)))
            for ns in spaces:
                if apart or self._differs(h, ns):
                    found.add(ns)
        return frozenset(found)

    def _differs(self, host: str, namespace: str) -> bool:
        """Whether callers of a namespace get other DestinationRules for a host than those of a namespace that nothing names."""
        found = self.by_host_and_namespace.get(host, {})
        if len(found) != 1:
            return bool(found)
        (service,) = found.values()
        own, anybody = self.destination_rules(namespace, service), self.destination_rules("", service)
        return own is not anybody and own != anybody

    @cached_property
    def _rulers(self) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
        local, exported, _ = self._destination_rules
        exact: dict[str, frozenset[str]] = {}
        wild: dict[str, frozenset[str]] = {}
        same: dict[frozenset[str], frozenset[str]] = {}
        for own, part in ((True, local), (False, exported)):
            for ns, index in part.items():
                for of, found in ((exact, index.exact), (wild, index.wild)):
                    for h, merged in found.items():
                        shown = {ns} if own else {to for m in merged for to in m.export_to} - {"*", "."}
                        if shown:
                            both = of.get(h, frozenset()) | shown
                            of[h] = same.setdefault(both, both)
        return exact, wild

    def reached(self, host: str) -> frozenset[str]:
        """A host, and every host that rules of it may lead to for whatever caller; of a host that is only led to, what its leaders reach."""
        found = {host} if host in self.by_host else {host, *self.leading(host)}
        for h in tuple(found):
            for r in self.claiming(h):
                found.update(r.leads)
        if self._external_names:
            found.update(s.external_name for h in found & self._external_names for s in self.by_host[h] if s.external_name)
        return frozenset(found)

    @cached_property
    def _external_names(self) -> frozenset[str]:
        """The hosts of Services that are another name of something."""
        return frozenset(s.hostname for s in self.services if s.external_name)

    @cached_property
    def headless(self) -> frozenset[str]:
        """The hosts of headless Services."""
        return frozenset(s.hostname for s in self.services if s.kubernetes and s.resolution == "none")

    def leading(self, host: str) -> list[str]:
        """The hosts whose rules lead to a host."""
        return self._leading.get(host, [])

    @cached_property
    def _leading(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for r in self.rulesets:
            for to in r.leads:
                out.setdefault(to, []).extend(h for h in r.hosts if h != to)
        for h, r in self.narrowed:
            for to in r.leads:
                out.setdefault(to, []).append(h)
        return out

    @cached_property
    def narrowed(self) -> tuple[tuple[str, RuleSet], ...]:
        """The hosts, no host of the ruleset's own, under which gateways have a ruleset for wildcards: those that their servers name (Names.Intersection)."""
        wide = [r for r in self.rulesets if r.gateways != ("mesh",) and any(map(names.is_wildcard, r.hosts))]
        if not wide:
            return ()
        servers = {g.name: (g.namespace, g.servers) for g in self.api.gateways}
        servers |= {f"{g.namespace}/{g.name}": (g.namespace, g.spec.servers or ()) for g in self.gateways}
        found: dict[tuple[str, int], tuple[str, RuleSet]] = {}
        for r in wide:
            own = {h.lower() for h in r.hosts}
            for namespace, known in (servers[name] for name in r.gateways if name in servers):
                for s in known:
                    taken = names.for_namespace(names.of_server(s.hosts or (), namespace), r.namespace)
                    for h in names.intersection(taken, r.hosts):
                        if h.lower() not in own:
                            found[h.lower(), id(r)] = h.lower(), r
        return tuple(found.values())

    @cached_property
    def _claims(self) -> tuple[dict[str, list[RuleSet]], list[tuple[str, RuleSet]]]:
        exact: dict[str, list[RuleSet]] = {}
        wild: list[tuple[str, RuleSet]] = []
        for r in self.rulesets:
            for h in r.hosts:
                if names.is_wildcard(h):
                    wild.append((h.lower(), r))
                else:
                    exact.setdefault(h.lower(), []).append(r)
        return exact, wild

    def claiming(self, host: str) -> list[RuleSet]:
        """Every ruleset whose hosts could mean this one."""
        exact, wild = self._claims
        if not wild and not host.startswith("*"):
            return exact.get(host.lower(), [])
        if names.is_wildcard(host):
            return [r for h, found in exact.items() if names.matches(host, h) for r in found] + [
                r for w, r in wild if names.matches(w, host)
            ]
        return [*exact.get(host.lower(), ()), *(r for w, r in wild if names.matches(w, host.lower()))]

    @cached_property
    def _special(self) -> frozenset[str]:
        found = {self.config.root_namespace}
        for ns, sidecars in self._sidecars.items():
            if len(sidecars) > 1 or not self._open(sidecars[0]):
                found.add(ns)
        private, exported, _ = self._by_gateway
        found.update(ns for ns, gateway in (*private, *exported) if gateway == "mesh")
        for host in self.crowded:
            found.update(self.by_host_and_namespace[host])
        found.update(self._named)
        # a VirtualService's destination is looked up in the caller's own namespace first, whatever it is exported to (collectImportedServices)
        found.update(s.namespace for s in self.services if "*" not in self.exported(s))
        for r in self.rulesets:
            if r.gateway_api:
                found.add(r.namespace)
            found.update(m.source_namespace for m in r.matches if m.source_namespace)
        return frozenset(found)

    @cached_property
    def crowded(self) -> frozenset[str]:
        """Hosts that services of several namespaces have: which one a caller gets depends on its namespace."""
        return frozenset(h for h, spaces in self.by_host_and_namespace.items() if len(spaces) > 1)

    def all(self, kind: type[Resource]) -> list[Resource]:
        """Every object of a configuration kind."""
        return list(self._objects.get(kind, ()))

    @cached_property
    def namespaces(self) -> dict[str, Namespace]:
        """Namespaces of the config cluster by name."""
        return {n.name: n for n in self.all(Namespace) if isinstance(n, Namespace)}

    def _annotations(self, namespace: str) -> Mapping[str, str]:
        found = self.namespaces.get(namespace)
        return found.annotations if found else {}

    @cached_property
    def services(self) -> list[HostService]:
        """Every service, oldest first; one Kubernetes host in several clusters is one, with the first cluster's spec (aggregate.Controller.Services)."""
        merged: dict[str, HostService] = {}
        for cluster, svc in self.kubernetes:
            one = from_service(svc, cluster, self._annotations(svc.namespace))
            first = merged.get(one.hostname)
            if first is None:
                merged[one.hostname] = one
            else:
                first.vips = {**first.vips, **{c: v for c, v in one.vips.items() if c not in first.vips}}
                first.sources = (*first.sources, *one.sources)
        everything = [*merged.values(), *self._clusterset(merged)]
        for entry in self.all(ServiceEntry):
            if isinstance(entry, ServiceEntry):
                everything += from_entry(entry, self.cluster, self._annotations(entry.namespace))
        aliases: dict[str | None, list[str]] = {}
        for alias in everything:
            if alias.resolution == "alias":
                aliases.setdefault(self._resolve_alias(alias, merged), []).append(alias.hostname)
        for concrete in everything if aliases else ():
            if concrete.resolution != "alias" and concrete.hostname in aliases:
                concrete.aliases = (*concrete.aliases, *aliases[concrete.hostname])
        return oldest_first(everything)

    def _clusterset(self, by_host: Mapping[str, HostService]) -> Iterator[HostService]:
        """Imported Services under their names in clusterset.local (serviceimportcache.go genMCSService)."""
        for (namespace, name), vips in self.imports.items() if self.plane.mcs_host else ():
            real = by_host.get(names.service_host(name, namespace))
            if real is not None:
                yield replace(real, hostname=names.clusterset_host(name, namespace), address=next(iter(vips.values()))[0], vips=vips)

    def discoverable(self, service: HostService, cluster: str) -> bool:
        """Whether the endpoints that a Kubernetes Service has in a cluster are for callers of other clusters too (serviceexportcache.go)."""
        if not self.mcs or not service.kubernetes:
            return True
        exported = (cluster, service.namespace, service.name) in self.exports
        if service.hostname.endswith(f".{names.CLUSTERSET}"):
            return exported and cluster in self.imports.get((service.namespace, service.name), {})
        return exported and not self.plane.mcs_cluster_local

    @staticmethod
    def _resolve_alias(alias: HostService, by_host: Mapping[str, HostService]) -> str | None:
        target, seen = alias.external_name, {alias.hostname}
        while (known := by_host.get(target)) is not None and known.resolution == "alias":
            if target in seen:
                return None
            seen.add(target)
            target = known.external_name
        return target

    def stands_for(self, host: str) -> HostService | None:
        """The service that an ExternalName is another name of in the end; None for any other host, and where the mesh has no such service."""
        names_: dict[str, HostService] = self.once("stands for", lambda: {a: s for s in self.services for a in s.aliases})
        return names_.get(host)

    def of_namespace(self, namespace: str) -> list[HostService]:
        """The services of a namespace, oldest first."""

        def index() -> dict[str, list[HostService]]:
            out: dict[str, list[HostService]] = {}
            for s in self.services:
                out.setdefault(s.namespace, []).append(s)
            return out

        return self.once("services by namespace", index).get(namespace, [])

    @cached_property
    def by_host(self) -> dict[str, list[HostService]]:
        """Services of each host, oldest first."""
        out: dict[str, list[HostService]] = {}
        for s in self.services:
            out.setdefault(s.hostname, []).append(s)
        return out

    def nearest(self, host: str, limit: int) -> tuple[str, ...]:
        """The hosts of services that are most like one that none has, for "did you mean"."""
        return self.once(("nearest", host, limit), lambda: names.nearest(host, self.by_host, limit))

    @cached_property
    def by_host_and_namespace(self) -> dict[str, dict[str, HostService]]:
        """One service for each host and namespace: Kubernetes' own, else the oldest (ServiceIndex.HostnameAndNamespace)."""
        out: dict[str, dict[str, HostService]] = {}
        for s in self.services:
            spaces = out.setdefault(s.hostname, {})
            known = spaces.get(s.namespace)
            if known is None or (s.kubernetes and not known.kubernetes):
                spaces[s.namespace] = s
        return out

    def cluster_local(self, host: str) -> bool:
        """Whether this host's endpoints stay in the caller's cluster."""
        known: dict[str, bool] = self._memo.setdefault("cluster local", {})
        if host not in known:
            known[host] = bool(names.most_specific(host, *self._cluster_local))
        return known[host]

    def scope_local(self, service: HostService) -> bool:
        """Whether an ambient mesh of several networks keeps a service's endpoints in their clusters, for callers of every kind: unless it is global (ambient/services.go matchServiceScope, EndpointBuilder.filterIstioEndpoint)."""
        if not self.plane.multi_network or service.resolution == "alias":
            return False
        known: dict[tuple[str, str], bool] = self._memo.setdefault("scope local", {})
        key = service.hostname, service.namespace
        if key not in known:
            around = self.namespaces.get(service.namespace)
            labels = around.labels if around is not None else {}
            own = self.once("own services", lambda: {(s.namespace, s.name): s for c, s in self.kubernetes if c == self.cluster})
            here = own.get((service.namespace, service.name))
            known[key] = not service.kubernetes or (here is not None and not self.config.is_global(labels, here.labels))
        return known[key]

    @cached_property
    def sends_unhealthy(self) -> bool:
        """Whether endpoints that are not ready are sent as well."""
        return self.plane.sends_unhealthy

    @cached_property
    def _cluster_local(self) -> tuple[dict[str, bool], dict[str, bool]]:
        return self.config.cluster_local

    def exported(self, service: HostService) -> frozenset[str]:
        """A service's exportTo, or the mesh's default; of a ServiceEntry's no more than serviceEntryVisibility lets be seen (push_context.serviceExportTo)."""
        to = self._said(service)
        if service.kubernetes or self.config.service_entry_visibility is None or not self.plane.shapes_by_mesh or to == {"~"}:
            return to
        around = self.namespaces.get(service.namespace)
        at_most = self.config.entry_visibility(around.labels if around is not None else {})
        if at_most == "PUBLIC":
            return to
        return frozenset({"."} if at_most == "NAMESPACE" and to & {"*", ".", service.namespace} else {"~"})

    def capped(self, service: HostService) -> bool:
        """Whether serviceEntryVisibility keeps a service from callers that its exportTo is for."""
        own = names.export_set(self._said(service), service.namespace)
        return names.export_set(self.exported(service), service.namespace) != own

    def _said(self, service: HostService) -> frozenset[str]:
        return service.export_to or frozenset(self.config.default_service_export_to or ("*",))

    def visible(self, service: HostService, namespace: str) -> bool:
        """Whether a service is exported to a namespace."""
        to = self.exported(service)
        if "~" in to and len(to) == 1:
            return False
        return "*" in to or namespace in to or ("." in to and service.namespace == namespace)

    def exported_to(self, namespace: str) -> list[HostService]:
        """Services that a namespace sees: those exported to it by name first, then the public ones, each oldest first."""
        return [*self._named.get(namespace, ()), *self._public]

    @cached_property
    def _named(self) -> dict[str, list[HostService]]:
        """For each namespace the services that are exported to it by name, oldest first."""
        out: dict[str, list[HostService]] = {}
        for s in self.services:
            to = self.exported(s)
            if "*" not in to and "~" not in to:
                for ns in dict.fromkeys(s.namespace if e == "." else e for e in to):
                    out.setdefault(ns, []).append(s)
        return out

    def exported_from(self, spaces: Iterable[str], namespace: str) -> list[HostService]:
        """Of the services that a namespace sees those of some namespaces, in the same order."""
        wanted = set(spaces)
        index = self._public_by_namespace
        near = sorted((place for ns in wanted for place in index.get(ns, ())), key=lambda place: place[0])
        return [*(s for s in self._named.get(namespace, ()) if s.namespace in wanted), *(s for _, s in near)]

    @cached_property
    def _public_by_namespace(self) -> dict[str, list[tuple[int, HostService]]]:
        out: dict[str, list[tuple[int, HostService]]] = {}
        for i, s in enumerate(self._public):
            out.setdefault(s.namespace, []).append((i, s))
        return out

    def in_order(self, services: Iterable[HostService], namespace: str) -> list[HostService]:
        """Those of some services that a namespace sees, in the order in which istiod meets them for it (exported_to)."""
        known = list(services)
        named = [s for s in known if "*" not in (to := self.exported(s)) and "~" not in to and self.visible(s, namespace)]
        return [*named, *(s for s in known if "*" in self.exported(s))]

    @cached_property
    def _public(self) -> list[HostService]:
        return [s for s in self.services if "*" in self.exported(s)]

    def best_namespace(self, host: str, namespace: str) -> str:
        """The namespace whose service a VirtualService's destination pulls in: Kubernetes' own, else the oldest visible one; before 1.30 the first by name."""
        visible = [s for s in self.by_host_and_namespace.get(host, {}).values() if self.visible(s, namespace)]
        if not self.plane.best_namespace:
            return min((s.namespace for s in visible), default="")
        for s in visible:
            if s.kubernetes:
                return s.namespace
        return min(visible, key=lambda s: s.created).namespace if visible else ""

    @cached_property
    def api(self) -> gatewayapi.Converted:
        """Gateway API objects in the form of Istio's own."""
        return gatewayapi.convert(self)

    @cached_property
    def attachments(self) -> attachment.Attachments:
        """Which waypoint serves what."""
        return attachment.attach(self)

    @cached_property
    def entered(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """The services, by host and namespace, that gateways call through waypoints, with the hosts of these."""
        return attachment.entered(self)

    @cached_property
    def rulesets(self) -> list[RuleSet]:
        """Every VirtualService and every Gateway API route, oldest first."""
        own = [v for v in self.all(VirtualService) if isinstance(v, VirtualService)]
        merged = rulesets.merge(own, self.config.default_virtual_service_export_to or ("*",))
        return sorted([*merged, *self.api.rulesets], key=lambda r: (r.created, r.name, r.namespace))

    @cached_property
    def _by_gateway(self) -> tuple[dict[tuple[str, str], list[RuleSet]], dict[tuple[str, str], list[RuleSet]], dict[str, list[RuleSet]]]:
        private: dict[tuple[str, str], list[RuleSet]] = {}
        exported: dict[tuple[str, str], list[RuleSet]] = {}
        public: dict[str, list[RuleSet]] = {}
        for r in self.rulesets:
            if "*" in r.export_to:
                for g in r.gateways:
                    public.setdefault(g, []).append(r)
            elif "~" not in r.export_to:
                for to in r.export_to:
                    for g in r.gateways:
                        (private if to == r.namespace else exported).setdefault((to, g), []).append(r)
        return private, exported, public

    @cached_property
    def public_rules(self) -> dict[str, list[tuple[int, RuleSet]]]:
        """The public rulesets of sidecars by the namespace that they stand in, with their place among all of them."""
        out: dict[str, list[tuple[int, RuleSet]]] = {}
        for i, r in enumerate(self._by_gateway[2].get("mesh", ())):
            out.setdefault(r.namespace, []).append((i, r))
        return out

    def rulesets_for(self, namespace: str, gateway: str) -> list[RuleSet]:
        """What a namespace's proxies get for a gateway name: private, exported to it, public; of these its own Gateway API routes first."""
        private, exported, public = self._by_gateway
        shown = public.get(gateway, [])
        own = [r for r in shown if r.gateway_api and r.namespace == namespace]
        rest = [r for r in shown if not (r.gateway_api and r.namespace == namespace)]
        return [*private.get((namespace, gateway), ()), *exported.get((namespace, gateway), ()), *own, *rest]

    @cached_property
    def _destination_rules(self) -> tuple[dict[str, _RuleIndex], dict[str, _RuleIndex], _RuleIndex]:
        local: dict[str, _RuleIndex] = {}
        exported: dict[str, _RuleIndex] = {}
        made = partial(_RuleIndex, self.plane.merges_by_export, self.plane.fills_in_policies)
        root = made()
        rules: list[DestinationRule] = [*gatewayapi.of_policies(self)]
        rules += [r for r in self.all(DestinationRule) if isinstance(r, DestinationRule)]
        rules.sort(key=lambda r: (r.spec.workload_selector is None, r.order))
        default = frozenset(self.config.default_destination_rule_export_to or ("*",))
        found: dict[str, list[tuple[DestinationRule, str, frozenset[str], bool, bool]]] = {}
        for rule in rules:
            ns = rule.metadata.namespace
            host = names.fqdn(rule.spec.host, ns)
            to = frozenset({"."}) if rule.spec.workload_selector else frozenset(rule.spec.export_to or ())
            here = not to or bool(to & {"*", ".", ns})
            private_only = (not to and "." in default) or (len(to) == 1 and bool(to & {".", ns}))
            if private_only and ns == self.config.root_namespace:
                root.add(rule, host, to)
            found.setdefault(ns, []).append((rule, host, to, here, not private_only))
        for ns, some in found.items():
            for of, where in ((local, 3), (exported, 4)):
                mine = [one for one in some if one[where]]
                if of is exported and len(mine) == len(some) and all([here for _, _, _, here, _ in some]):
                    exported[ns] = local[ns]  # as is usual
                elif mine:
                    of[ns] = made()
                    for rule, host, to, _, _ in mine:
                        of[ns].add(rule, host, to)
            if ns in local and ns in exported and local[ns] is not exported[ns]:
                local[ns].share(exported[ns])
        return local, exported, root

    @cached_property
    def split(self) -> bool:
        """Whether any host has several DestinationRules in one namespace that were not merged."""
        local, exported, root = self._destination_rules
        return any(
            len(found) > 1 for i in (*local.values(), *exported.values(), root) for part in (i.exact, i.wild) for found in part.values()
        )

    def destination_rules(self, namespace: str, service: HostService) -> list[MergedRule]:
        """The rules for a service as a client namespace gets them: its own, else the service's, else the root's (push_context.destinationRule)."""
        local, exported, root = self._destination_rules
        index = local.get(namespace) if namespace != self.config.root_namespace else root
        if index is not None and (found := index.find(service.hostname)) is not None:
            return found
        for owner in (service.namespace, self.config.root_namespace):
            if owner in exported and (found := exported[owner].find(service.hostname)) is not None:
                shown = [m for m in found if not m.export_to or m.export_to & {"*", namespace}]
                if shown:
                    return shown
        return []

    def destination_rule(self, proxy: Proxy, service: HostService) -> MergedRule | None:
        """The one rule for a proxy: a matching workloadSelector, else the last without selector (SidecarScope.DestinationRule)."""
        plain = None
        for m in self.destination_rules(proxy.namespace, service):
            if m.selector is None:
                plain = m
            elif m.namespace == proxy.namespace and all(proxy.labels.get(k) == v for k, v in m.selector.items()):
                return m
        return plain

    @cached_property
    def _sidecars(self) -> dict[str, list[Sidecar]]:
        out: dict[str, list[Sidecar]] = {}
        found = [s for s in self.all(Sidecar) if isinstance(s, Sidecar)]
        for s in sorted(found, key=lambda s: (s.spec.workload_selector is None, s.order)):
            out.setdefault(s.namespace, []).append(s)
        return out

    def sidecar(self, proxy: Proxy) -> Sidecar | None:
        """The Sidecar that scopes a proxy: selecting, the namespace's, the root namespace's, or none. Gateways and waypoints have none."""
        return next(iter(self.sidecars(proxy)), None)

    def sidecars(self, proxy: Proxy) -> list[Sidecar]:
        """Every Sidecar that could scope a proxy, the one that does first."""
        if proxy.kind != "sidecar":
            return []
        root = self.config.root_namespace
        own = [
            s
            for s in self._sidecars.get(proxy.namespace, ())
            if s.spec.workload_selector is None or s.spec.workload_selector.matches(proxy.labels)
        ]
        shared = self._sidecars.get(root, ()) if root != proxy.namespace else ()
        return own + [s for s in shared if s.spec.workload_selector is None]

    @cached_property
    def crowding(self) -> frozenset[str]:
        """The namespaces with several Sidecars."""
        return frozenset(ns for ns, found in self._sidecars.items() if len(found) > 1)

    def scope(self, proxy: Proxy) -> Scope:
        """What a proxy sees; computed once for all that see the same, as the sidecars of all namespaces do that nothing sets apart."""
        sidecar = self.sidecar(proxy)
        plain = proxy.kind == "sidecar" and (sidecar is None or self._open(sidecar)) and proxy.namespace not in self._special
        key = (
            proxy.kind if proxy.kind == "sidecar" else "gateway",
            "" if plain else proxy.namespace,
            sidecar.ref if sidecar and not plain else "",
        )
        if key not in self._scopes:
            self._scopes[key] = Scope(self, proxy.namespace, None if plain else sidecar, gateway=proxy.kind != "sidecar")
        return self._scopes[key]

    @cached_property
    def gateways(self) -> list[Gateway]:
        """Istio's Gateways, oldest first."""
        found = [g for g in self.all(Gateway) if isinstance(g, Gateway)]
        return sorted(found, key=lambda g: g.order)


@dataclass(slots=True)
class _Hosts:
    """One namespace's part of an egress listener's hosts."""

    exact: set[str] = field(default_factory=set)
    all: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    def matches(self, host: str) -> bool:
        if host in self.exact:
            return True
        wild = names.is_wildcard(host)
        return any(names.subset_of(host, h) for h in self.all if wild or names.is_wildcard(h))

    def excludes(self, host: str) -> bool:
        return any(names.subset_of(host, h) for h in self.excluded)

    def matches_ruleset(self, host: str, *, gateway_api: bool) -> bool:
        if host in self.exact:
            return True
        wild = names.is_wildcard(host)
        match = names.subset_of if gateway_api else names.matches
        return any(match(host, h) for h in self.all if wild or names.is_wildcard(h))


class Listener:
    """One egress listener of a scope: its services and VirtualServices (IstioEgressListenerWrapper)."""

    def __init__(self, istiod: Istiod, namespace: str, egress: EgressListener) -> None:
        self.declared = HostPort(egress.port.number, "", protocol(egress.port.protocol)) if egress.port else None
        """The port that a Sidecar asks for by number: 0 on a Unix domain socket. Without one it is for every port of its services."""
        self.bind = egress.bind or (LOCALHOST if egress.capture_mode == "NONE" else "")
        """Where it listens, whatever the addresses of its services: what is not captured listens on the pod's own loopback."""
        self.match_port = self.declared is not None and self.declared.number != 0 and self.declared.protocol != "HTTP_PROXY"
        hosts: dict[str, _Hosts] = {}
        for text in egress.hosts or ():
            if text.count("/") != 1:
                continue
            ns, _, name = text.partition("/")
            excluded = ns.startswith("~")
            if excluded:
                ns = ns[1:] or "*"
            ns = namespace if ns == "." else ns
            part = hosts.setdefault(ns, _Hosts())
            if excluded:
                part.excluded.append(name)
            else:
                if not names.is_wildcard(name):
                    part.exact.add(name)
                part.all.append(name)
        self._hosts = hosts
        self._excluding = any(part.excluded for part in hosts.values())
        self._everything = not self._excluding and hosts.keys() == {"*"} and "*" in hosts["*"].all
        self.rulesets = self._select_rulesets(istiod, namespace)
        self.services = self._select_services(istiod, namespace)

    def reweighed(self, swap: Mapping[RuleSet, RuleSet]) -> Listener:
        """This listener where some rulesets are others, which differ in their weights alone."""
        made = copy(self)
        made.rulesets = [swap.get(r, r) for r in self.rulesets]
        made.__dict__.pop("wildcard_owner", None)
        return made

    def excludes(self, namespace: str, host: str) -> bool:
        """Whether an egress host that begins with `~` keeps a host of a namespace out."""
        if not self._excluding:
            return False
        return any(part.excludes(host) for part in (self._hosts.get(namespace), self._hosts.get("*")) if part is not None)

    def _select_rulesets(self, istiod: Istiod, namespace: str) -> list[RuleSet]:
        private, exported, public = istiod._by_gateway  # noqa: SLF001 - the scope is istiod's own other half
        out: list[RuleSet] = []
        seen: set[RuleSet] = set()

        def add(r: RuleSet, part: _Hosts | None) -> None:
            if part is None or r in seen:
                return
            if any(part.matches_ruleset(h, gateway_api=r.gateway_api) and not self.excludes(r.namespace, h) for h in r.hosts):
                out.append(r)
                seen.add(r)

        shown = public.get("mesh", [])
        if "*" not in self._hosts:
            shown = [r for _, r in sorted((place for ns in self._hosts for place in istiod.public_rules.get(ns, ())), key=itemgetter(0))]
        for source in (private.get((namespace, "mesh"), []), exported.get((namespace, "mesh"), []), shown):
            own = [r for r in source if r.gateway_api and r.namespace == namespace]
            for r in (*own, *(r for r in source if not (r.gateway_api and r.namespace == namespace))) if own else source:
                if self._everything:
                    if r not in seen:
                        out.append(r)
                        seen.add(r)
                    continue
                add(r, self._hosts.get(r.namespace))
                add(r, self._hosts.get("*"))
        return out

    def _exact(self, istiod: Istiod, namespace: str) -> list[HostService]:
        """The services of hosts that are all written out: one for each host and namespace, the oldest first (servicesForExactHosts)."""
        spaces = istiod.by_host_and_namespace
        named = (spaces.get(h, {}).get(ns) for ns, part in self._hosts.items() for h in part.exact)
        return oldest_first(s for s in named if s is not None and istiod.visible(s, namespace))

    def _select_services(self, istiod: Istiod, namespace: str) -> list[HostService]:
        imported: list[HostService] = []
        everywhere = self._hosts.get("*")
        if istiod.plane.looks_up_exact_hosts and not any(
            ns == "*" or len(part.exact) < len(part.all) for ns, part in self._hosts.items() if part.all
        ):
            visible = self._exact(istiod, namespace)
        else:
            visible = istiod.exported_to(namespace) if everywhere is not None else istiod.exported_from(self._hosts, namespace)
        if self._everything and not self.match_port:
            imported, visible = visible, []
        for s in visible:
            own = self._hosts.get(s.namespace)
            if self.excludes(s.namespace, s.hostname):
                continue
            for part in (own, everywhere):
                found = self._narrow(s) if part is not None and part.matches(s.hostname) else None
                if found is not None:
                    aliases = tuple(a for a in found.aliases if part is not None and part.matches(a))
                    imported.append(found if aliases == found.aliases else replace(found, aliases=aliases))
                    break
        chosen: dict[str, tuple[str, bool]] = {}
        if not istiod.crowded:
            return imported
        for s in imported:
            known = chosen.get(s.hostname)
            better = istiod.plane.prefers_kubernetes and s.kubernetes
            if known is None or s.namespace == namespace or (not known[1] and better and known[0] != namespace):
                chosen[s.hostname] = s.namespace, s.kubernetes
        return [s for s in imported if chosen[s.hostname][0] == s.namespace]

    def _narrow(self, service: HostService) -> HostService | None:
        if not self.match_port:
            return service
        number = self.declared.number if self.declared is not None else 0
        port = next((p for p in service.ports if p.number == number), None)
        if port is None:
            return None
        return service if len(service.ports) == 1 else service.with_ports((port,))

    @cached_property
    def named(self) -> dict[str, list[HostService]]:
        """Its services by lower-case host, in order."""
        out: dict[str, list[HostService]] = {}
        for s in self.services:
            out.setdefault(s.hostname.lower(), []).append(s)
        return out

    @cached_property
    def _on_port(self) -> dict[int, list[HostService]]:
        out: dict[int, list[HostService]] = {}
        for s in self.services:
            for number in dict.fromkeys(p.number for p in s.ports):
                out.setdefault(number, []).append(s)
        return out

    def on_port(self, number: int) -> list[HostService]:
        """Its services that have a port, in order."""
        return self._on_port.get(number, [])

    @cached_property
    def by_port(self) -> dict[int, dict[str, HostService]]:
        """For each listener port, the services that have it, by lower-case host."""
        out: dict[int, dict[str, HostService]] = {}
        for s in self.services:
            for p in s.ports:
                if p.protocol != "UDP":
                    out.setdefault(p.number, {})[s.hostname.lower()] = s
        return out

    def around(self, number: int) -> Mapping[str, HostService]:
        """The services whose virtual hosts stand beside each other, by host: those of a port; all on a listener of every port (0)."""
        return self.by_port.get(number, {}) if number else self._everyone

    @cached_property
    def _everyone(self) -> dict[str, HostService]:
        return {s.hostname: s for s in self.services}

    @cached_property
    def http_ports(self) -> frozenset[int]:
        """The ports on which it surely has a listener of HTTP for all addresses, where no other listener of its Sidecar has taken them."""
        spoken: dict[int, set[str]] = {}
        for s in self.services if not self.bind and self.declared is None else ():
            for p in s.ports if s.resolution != "alias" else ():
                spoken.setdefault(p.number, set()).add("HTTP" if p.http else p.protocol)
        return frozenset(n for n, found in spoken.items() if "HTTP" in found and found.isdisjoint(SERVER_FIRST) and n not in RESERVED)

    @cached_property
    def _by_address(self) -> tuple[dict[tuple[str, int], list[int]], dict[int, list[int]]]:
        """Positions of services by the addresses that they have in any cluster and port; and by port of those that may listen on their endpoints'."""
        at: dict[tuple[str, int], list[int]] = {}
        loose: dict[int, list[int]] = {}
        for i, s in enumerate(self.services):
            known = {UNSPECIFIED if "/" in a else a for a in (s.address, *(found[0] for found in s.vips.values() if found))}
            for p in s.ports:
                addresses = {UNSPECIFIED} if p.http else known
                for a in addresses:
                    at.setdefault((a, p.number), []).append(i)
                if s.resolution == "none" and UNSPECIFIED in known and not p.http:
                    loose.setdefault(p.number, []).append(i)
        return at, loose

    def listening(self, bind: str, number: int) -> Iterable[HostService]:
        """The services that may listen on an address and port, in order."""
        if self.declared is not None and self.declared.number != number:
            return ()
        if self.bind:
            return () if bind != self.bind else self.on_port(number) if self.match_port or self.declared is None else self.services
        if self.declared is not None:
            return self.services
        at, loose = self._by_address
        return [self.services[i] for i in sorted({*at.get((bind, number), ()), *loose.get(number, ())})]

    @cached_property
    def wildcard_owner(self) -> dict[str, RuleSet]:
        """For each service the one ruleset whose host fits it best (computeWildcardHostVirtualServiceIndex)."""
        exact: dict[str, RuleSet] = {}
        wild: dict[str, RuleSet] = {}
        for r in self.rulesets:
            for h in r.hosts:
                (wild if names.is_wildcard(h) else exact).setdefault(h, r)
        out: dict[str, RuleSet] = {}
        for s in self.services:
            best = names.most_specific(s.hostname, exact, wild)
            if best is not None:
                out[s.hostname] = best
        return out

    @cached_property
    def rulesets_by_host(self) -> tuple[dict[str, list[int]], list[tuple[str, int]]]:
        """Positions in `rulesets` by exact lower-case host, and the wildcard hosts with theirs."""
        exact: dict[str, list[int]] = {}
        wild: list[tuple[str, int]] = []
        for i, r in enumerate(self.rulesets):
            for h in r.hosts:
                if names.is_wildcard(h):
                    wild.append((h.lower(), i))
                elif i not in (known := exact.setdefault(h.lower(), [])):
                    known.append(i)
        return exact, wild

    def naming(self, host: str) -> list[RuleSet]:
        """The rulesets one of whose hosts is a service's, or covers it, in order: those of TCP and TLS, which tell cases apart."""
        some = self.rulesets if names.is_wildcard(host) else self.candidates(host)
        return [r for r in some if any(names.matches(h, host) for h in r.hosts)]

    @cached_property
    def aliased(self) -> dict[str, list[HostService]]:
        """Its services by each host that is an alias of them."""
        out: dict[str, list[HostService]] = {}
        for s in self.services:
            for a in s.aliases:
                out.setdefault(a, []).append(s)
        return out

    def candidates(self, host: str) -> list[RuleSet]:
        """The rulesets whose hosts could mean this one, in order."""
        exact, wild = self.rulesets_by_host
        host = host.lower()
        if not wild:
            return [self.rulesets[i] for i in exact.get(host, ())]
        positions = {*exact.get(host, ()), *(i for w, i in wild if names.matches(w, host))}
        return [self.rulesets[i] for i in sorted(positions)]


class Scope:
    """What proxies of a namespace under one Sidecar see (SidecarScope): listeners, and one service for each host."""

    def __init__(self, istiod: Istiod, namespace: str, sidecar: Sidecar | None, *, gateway: bool) -> None:
        self.istiod = istiod
        self.namespace = namespace
        self.sidecar = sidecar
        self.gateway = gateway
        egress = sidecar.spec.egress if sidecar and sidecar.spec.egress else (EgressListener(hosts=("*/*",)),)
        self.listeners = [] if gateway else [Listener(istiod, namespace, e) for e in egress]

    @cached_property
    def services(self) -> dict[str, HostService]:
        """One service for each host, in the order of their coming (collectImportedServices)."""
        out: dict[str, HostService] = {}
        if self.gateway:
            for s in self.istiod.exported_to(self.namespace):
                _append(out, s)
            return out
        for listener in self.listeners:
            for s in listener.services:
                _append(out, s)
            for r in listener.rulesets:
                if all([self._whole(out.get(host), host) for host in r.leads]):
                    continue
                for host, ports in r.destinations(self.namespace).items():
                    spaces = self.istiod.by_host_and_namespace.get(host, {})
                    if self._whole(out.get(host), host):
                        continue
                    ns = self.namespace if self.namespace in spaces else self.istiod.best_namespace(host, self.namespace)
                    if ns:
                        self._pull(out, listener, spaces[ns], ports)
        return out

    def _whole(self, known: HostService | None, host: str) -> bool:
        """Whether nothing of a host is missing where this is known of it."""
        if known is None:
            return False
        spaces = self.istiod.by_host_and_namespace.get(host, {})
        return len(spaces) == 1 and spaces.get(known.namespace) is known

    @staticmethod
    def _pull(out: dict[str, HostService], listener: Listener, service: HostService, ports: set[int]) -> None:
        if listener.match_port:
            narrowed = listener._narrow(service)  # noqa: SLF001 - the same module's other half
        elif not ports or 0 in ports:
            narrowed = service
        else:
            kept = tuple(p for p in service.ports if p.number in ports)
            narrowed = service if len(kept) == len(service.ports) else service.with_ports(kept) if kept else None
        if narrowed is not None:
            _append(out, narrowed)

    def reweighed(self, istiod: Istiod, swap: Mapping[RuleSet, RuleSet]) -> Scope:
        """This scope where some rulesets are others, which differ in their weights alone."""
        made = copy(self)
        made.istiod = istiod
        made.listeners = [li.reweighed(swap) for li in self.listeners]
        return made

    def holds(self, host: str) -> bool:
        """Whether a sidecar may have a rule for a host: a service or a ruleset of some listener has it."""
        exact, wild = self.held
        host = host.lower()
        return host in exact or any(names.matches(w, host) for w in wild)

    @cached_property
    def held(self) -> tuple[set[str], set[str]]:
        """The lower-case hosts that services or rulesets of some listener have, and the wildcards of rulesets."""
        exact: set[str] = set()
        wild: set[str] = set()
        for li in self.listeners:
            exact.update(li.named, li.rulesets_by_host[0])
            wild.update(w for w, _ in li.rulesets_by_host[1])
        return exact, wild

    def listener_for(self, port: int) -> Listener | None:
        """The egress listener that a port's routes come from: the first without a port, or with this one."""
        for li in self.listeners:
            if li.declared is None or li.declared.number == port:
                return li
        return None

    @property
    def allow_any(self) -> bool:
        """Whether unknown hosts pass through."""
        own = self.sidecar.spec.outbound_traffic_policy if self.sidecar else None
        mode = own.mode if own and own.mode else self.istiod.config.outbound_traffic_policy.mode
        return mode != "REGISTRY_ONLY"


def _append(out: dict[str, HostService], s: HostService) -> None:
    """Add a service, or merge its ports into the one that its host already has (appendSidecarServices)."""
    known = out.get(s.hostname)
    if known is None:
        out[s.hostname] = s
        return
    if s is known or (known.kubernetes and not s.kubernetes):
        return
    if s.kubernetes and not known.kubernetes:
        out[s.hostname] = s
        return
    if len(known.ports) == len(s.ports) and all(a.same(b) for a, b in zip(known.ports, s.ports, strict=True)):
        return
    if not can_merge(known, s):
        return
    have = {p.number for p in known.ports}
    merged = known.with_ports((*known.ports, *(p for p in s.ports if p.number not in have)))
    merged.sources = (*known.sources, *(x for x in s.sources if x not in known.sources))
    out[s.hostname] = merged


def can_merge(a: HostService, b: HostService) -> bool:
    """Whether two services of one host are one for istiod (canMergeServices)."""
    return (
        a.namespace == b.namespace
        and a.resolution == b.resolution
        and a.kubernetes == b.kubernetes
        and a.labels == b.labels
        and (a.selector or {}) == (b.selector or {})
        and a.export_to == b.export_to
    )
