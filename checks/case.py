"""What a check looks at: one host with everything that callers would do with it, and why a destination has nobody to send to.

A check may read everything and reports only what concerns its host. Two checks that need the same look-up find it here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from msgspec import Struct

from checks import gateway, names
from checks.answers import Viewpoint
from checks.catalogue import CAUSES
from checks.evidence import NOTHING, Evidence
from checks.finding import EXPLAINERS, Finding, Origin, Severity, by_nearness
from checks.gatewayapi import NOBODY, OfPolicies, named_for_any_host
from checks.istiod import Istiod, can_merge
from checks.mesh import Change
from checks.patches import Edit, Proposal, command, edited
from checks.registry import HostService, IstioEndpoint, from_entry, proxy_kind
from checks.resources import AuthorizationPolicy, ClientTLS, DestinationRule, EndpointSlice, Pod, Service, ServiceEntry, Sidecar, Workload
from checks.routes import answer, failing, steps
from checks.sidecar import Step
from checks.upstream import Upstream, Upstreams, shares
from checks.viewpoints import Class, classes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from checks.answers import Route
    from checks.catalogue import Cause
    from checks.mesh import Cluster, Mesh
    from checks.resources import Resource, Subset, TrafficPolicy

_T = TypeVar("_T")

SAME_AS: dict[str, tuple[str, ...]] = {
    "subset-empty-weighted": ("IST0173", "KIA0203"),
    "subset-empty-all": ("IST0173", "KIA0203"),
    "subset-undefined": ("IST0101", "KIA1107"),
    "dr-not-exported": ("KIA1107",),
    "dr-host-shortname": ("IST0174", "KIA0202"),
    "dr-duplicate-subset-name": ("KIA0201",),
    "dr-split-exportto": ("KIA0201",),
    "dr-specific-hides-wildcard": ("KIA0201",),
    "subset-label-not-on-pods": ("IST0173", "KIA0203"),
    "subset-by-topology-label": ("IST0173", "KIA0203"),
    "subset-on-serviceentry": ("IST0173", "KIA0203"),
    "subset-dns-cluster-dropped": ("KIA0203",),
    "vs-dest-host-unknown": ("IST0101", "KIA1101"),
    "vs-dest-shortname-ns": ("IST0101", "KIA1101"),
    "vs-dest-partial-name": ("IST0101",),
    "vs-dest-port-unknown": ("IST0101",),
    "vs-port-omitted-multiport": ("IST0112",),
    "vs-weights-all-zero": ("IST0106",),
    "vs-single-weight-ignored": ("KIA1104",),
    "vs-duplicate-mesh-host": ("IST0109", "KIA1106"),
    "vs-gateway-missing": ("IST0101", "KIA1102"),
    "vs-host-not-in-gateway": ("IST0132",),
    "vs-route-shadowed": ("IST0130", "IST0131"),
    "vs-http-on-tcp-port": ("IST0118", "KIA0601"),
    "gw-selector-no-pod": ("IST0101", "KIA0302"),
    "gw-port-not-on-service": ("IST0162",),
    "gw-conflict": ("IST0145", "KIA0301"),
    "gw-tls-secret": ("IST0101", "IST0161", "IST0138"),
    "gwapi-backend-notfound": ("IST0171", "KIA1402"),
    "gwapi-refnotpermitted": ("IST0171",),
    "gwapi-route-not-accepted": ("IST0171", "KIA1401"),
    "gwapi-not-programmed": ("IST0171",),
    "gwapi-backendtls-invalid": ("IST0171",),
    "gwapi-inference-epp": ("IST0171",),
    "svc-selector-no-pods": ("KIA0701",),
    "se-dup-same-ns": ("KIA1211",),
    "se-dup-unmergeable-ports": ("KIA1212",),
    "se-port-missing": ("IST0101",),
    "se-tcp-no-address": ("IST0134",),
    "se-protocol-conflict": ("IST0177", "KIA1212"),
    "se-wildcard-resolution": ("IST0106",),
    "two-sidecars-conflict": ("IST0110", "IST0111", "KIA0002", "KIA0003"),
    "svc-inconsistent-ports": ("IST0170",),
    "targetport-name-unresolved": ("KIA0701",),
    "tcp-listener-conflict": ("IST0134",),
    "externalname-alias": ("IST0150",),
    "pod-in-two-services": ("IST0116", "IST0137"),
    "waypoint-not-ready": ("IST0171",),
    "waypoint-ref-invalid": ("IST0171", "KIA1313"),
    "ambient-l7-without-waypoint": ("KIA1109", "KIA1113", "KIA0210", "KIA0211", "KIA0212", "KIA0109"),
    "sidecar-and-ambient": ("KIA1311", "KIA1314", "KIA1315", "KIA1316"),
    "mtls-plain-to-strict": ("IST0102", "KIA0207", "KIA0208", "KIA0505"),
    "mtls-to-plain": ("KIA0205", "KIA0206", "KIA0501"),
    "dr-tls-lost-by-override": ("KIA0204",),
    "authz-principal-without-mtls": ("KIA0105",),
    "caller-not-injected": ("IST0102", "IST0103"),
    "config-rejected-by-istiod": ("IST0106",),
}


def same_as(code: str) -> tuple[Cause, ...]:
    """The causes that another tool's code (`IST0101`, `KIA1107`) is said of too, any case."""
    return tuple(CAUSES[i] for i, codes in SAME_AS.items() if code.strip().upper() in codes)


@dataclass(eq=False)
class View:
    """A class of callers and what its Envoys hold for the host."""

    callers: Class
    ups: Upstreams
    steps: list[Step]

    @cached_property
    def routes(self) -> list[Route]:
        """The steps as answers show them."""
        return [answer(self.callers.viewpoints[0], s) for s in self.steps]


class Branch(Struct, frozen=True, eq=False):
    """One destination of one rule as a class of callers has it. `share` is 0 to 1, `weight` as written."""

    view: View
    step: Step
    index: int
    upstream: Upstream
    weight: int
    share: float

    @property
    def path(self) -> str:
        """Where the destination stands in its object."""
        return self.step.targets[self.index][2]

    @property
    def aim(self) -> tuple[str, str, int]:
        """What the destination means, whoever asks and on whichever of the host's ports: host, subset, and a port that the host does not have."""
        u = self.upstream
        return u.host, u.subset, u.port if u.service is not None and u.service.port(u.port) is None else 0

    @property
    def place(self) -> tuple[str, str]:
        """The object that leads to the destination, with the cluster ID of the control plane that has it."""
        return self.view.ups.istiod.cluster, self.resource

    @property
    def resource(self) -> str:
        """The object that leads to the destination; the Service or ServiceEntry of a default route."""
        if self.step.leaf or self.step.source:
            return self.step.leaf or self.step.source or ""
        service = self.upstream.service
        return service.sources[0][1] if service else ""


class _Known(NamedTuple):
    """What the callers of a host share: whose endpoints were read, the Envoy clusters by all that decides them, and endpoints by port."""

    read: set[tuple[str, str]]
    upstreams: dict[object, Upstream]
    ports: dict[object, tuple[list[IstioEndpoint], bool]]


@dataclass(eq=False)
class Case:
    """One host of a mesh."""

    host: str
    mesh: Mesh
    views: list[View] = field(default_factory=list)
    blind: list[Class] = field(default_factory=list)
    """Callers that hold nothing for the host."""
    read: frozenset[tuple[str, str]] = frozenset()
    """Whose endpoints decide what the callers hold: (host, namespace)."""
    also: set[tuple[str, str]] = field(default_factory=set)
    """(host, namespace) of other services whose pods and endpoints a check looked at, for a sweep that looks only at what changed."""
    abroad: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """The same of other meshes, by name, whether calls go on into them or not."""
    named: set[int] = field(default_factory=set)
    """The hops (by id) behind which a fault was found that has a name of its own."""
    port: int | None = None
    """The one port that was asked about; None: all of them."""
    evidence: Evidence = NOTHING
    """What was read of running parts for this question; nothing in a sweep."""
    found: tuple[Finding, ...] = ()
    """For the checks of evidence: what the clusters' objects explain already."""
    proposals: dict[str, Proposal] = field(default_factory=dict)
    """What each patch that a check suggests would change; it is shown once it is proved (`diagnosis`)."""
    missed: dict[int, dict[tuple[int, int], float]] = field(default_factory=dict, repr=False)
    """Of each rule (by id) the parts of its requests that do not arrive although somebody is there, by destination and endpoint (by id)."""
    steps: list[Step] = field(default_factory=list, init=False, repr=False)
    """Every rule, of all callers."""
    upstreams: list[Upstream] = field(default_factory=list, init=False, repr=False)
    """Every Envoy cluster that a rule leads to, once."""
    useless: bool = field(default=False, init=False, repr=False)
    """Whether some destination could not serve requests, whether it gets any or not."""
    _why: dict[tuple[int, int], str] = field(default_factory=dict, repr=False)
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """What all checks ask for is there from the beginning."""
        if self.views:
            self.hold(self.views)

    def hold(self, views: list[View]) -> None:
        """Be about these callers."""
        self.views = views
        self.steps = [s for v in views for s in v.steps]
        self.upstreams = list({id(u): u for s in self.steps for u, _, _ in s.targets}.values())
        self.useless = any([u.fails for u in self.upstreams])

    @staticmethod
    def of(host: str, mesh: Mesh, port: int | None = None) -> Case:
        """The host as every class of callers has it. A host that is only led to is seen through the rules that lead there."""
        known = _Known(set(), {}, {})
        case = Case._among(*classes(mesh, host), host, mesh, known)
        if case.useless:  # why may differ where what is got does not
            case = Case._among(*classes(mesh, host, apart=True), host, mesh, known)
        case.port = port
        return case

    @staticmethod
    def _among(seeing: list[Class], unseeing: list[Class], host: str, mesh: Mesh, known: _Known) -> Case:
        case = Case(host, mesh)
        views: list[View] = []
        case.blind = blind = list(unseeing)
        for c in seeing:
            if c.proxy.kind == "gateway" and not gateway.holds(mesh, c, host) and (host in c.istiod.by_host or not c.istiod.leading(host)):
                blind.append(c)
                continue
            ups = Upstreams(mesh, c.istiod, c.proxy, c.scope, known.read, known.upstreams, known.ports)
            view = View(c, ups, _steps(ups, host))
            if view.steps and not case.private(view):
                views.append(view)
            else:
                blind.append(c)
        case.hold(views)
        case.read = frozenset(known.read)
        return case

    def private(self, view: View) -> bool:
        """Whether the host is kept from some callers on purpose, and none of them asks for it.

        istiod tells them of it all the same. That nobody can call it from there is what whoever keeps it wants (DESIGN §2).
        """
        return (self._kept_at_home(view) or self._of_other_network(view)) and not any(map(self.asks, view.callers.viewpoints))

    def _kept_at_home(self, view: View) -> bool:
        """Whether the callers' cluster has no such Service and no other's endpoints are for them: cluster-local, or not exported (MCS)."""
        istiod = view.ups.istiod
        local = len(self.mesh.clusters) > 1 and istiod.cluster_local(self.host)
        if not local and not istiod.mcs:
            return False
        known = [s for s in istiod.by_host.get(self.host, ()) if s.kubernetes]
        imported = (c for s in known for c in istiod.imports.get((s.namespace, s.name), ()))
        there = imported if self.host.endswith(f".{names.CLUSTERSET}") else (c for s in known for c, _ in s.sources)
        if not known or view.callers.proxy.cluster in there:
            return False
        return local or not any(istiod.discoverable(s, c) for s in known for c, _ in s.sources)

    def _of_other_network(self, view: View) -> bool:
        """Whether the host is the Service of gateways in another network, which take no mTLS by its name: they are called at their addresses.

        A caller whose own network nobody names is sent to the gateways of every network, its own cluster's included (ep_filters.go).
        """
        proxy = view.callers.proxy
        if proxy.kind != "sidecar" or not self.mesh.network_gateways:
            return False
        known = [s for s in view.ups.istiod.by_host.get(self.host, ()) if s.kubernetes and s.selector]
        pods = [p for s in known for _, p in self.pods(s)]
        if not pods or any(proxy_kind(p) != "gateway" for p in pods):
            return False
        return all(view.ups.through(e) for s in known for e in self.endpoints(view.ups.istiod, s))

    # --- what it consists of ------------------------------------------------------------------------------------------------

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Something that several checks work out of this case."""
        try:
            known: _T = self._known[key]
        except KeyError:
            known = self._known[key] = make()
        return known

    def asked(self, port: int) -> bool:
        """Whether a port of the host is one that was asked about: what is wrong with others is no answer."""
        return self.port is None or port == self.port

    @cached_property
    def planes(self) -> set[Istiod]:
        """The control planes of all callers."""
        return {*(v.ups.istiod for v in self.views), *(c.istiod for c in self.blind)}

    @cached_property
    def branches(self) -> list[Branch]:
        """Every destination of every rule, of all callers."""
        return [b for v in self.views for b in self.of_view(v)]

    def of_view(self, view: View) -> list[Branch]:
        """Every destination of every rule that some callers have."""
        out: list[Branch] = []
        for step in view.steps:
            if step.action != "route" or not self.asked(step.port):
                continue
            parts = shares([w for _, w, _ in step.targets])
            out += [Branch(view, step, i, u, w, s) for i, ((u, w, _), s) in enumerate(zip(step.targets, parts, strict=True))]
        return out

    def as_pod(self, cluster: str, namespace: str, pod: str) -> View | None:
        """The host as the proxy of exactly one pod has it (`--as NS/POD`), whatever others of its population have; None where no such proxy
        is known, or where it holds nothing for the host.
        """  # noqa: D205 - what it is, and what is asked of it

        def find() -> View | None:
            where = self.mesh.known(cluster)
            found = where.get(Pod, namespace, pod) if where is not None else None
            if where is None or found is None or (kind := proxy_kind(found)) == "none":
                return None
            proxy = self.mesh.proxy(where, found, kind)
            istiod = self.mesh.istiod(where.name, proxy.revision)
            ups = Upstreams(self.mesh, istiod, proxy, istiod.scope(proxy))
            viewpoint = Viewpoint(where.name, kind, namespace, pod)
            steps_ = _steps(ups, self.host)
            return View(Class(proxy, (viewpoint,), istiod, ups.scope, frozenset({namespace})), ups, steps_) if steps_ else None

        return self.once(f"as pod {cluster} {namespace}/{pod}", find)

    def explained(self, branch: Branch) -> bool:
        """Whether the clusters' objects say already why a destination's requests fail, or those of all that its caller sends.

        What is injected on purpose (group M) fails beside everything else. What explains destinations without anybody to send to is about
        those alone, where the caller has any; else it is found behind a gateway on the way.
        """
        u = branch.upstream
        if u.fails:
            return True
        who = branch.view.callers.viewpoints
        empty = any(t.fails for s in branch.view.steps for t, _, _ in s.targets)
        for f in self.found:
            about = any((v.cluster, v.kind, v.namespace) == (w.cluster, w.kind, w.namespace) for v in f.viewpoints for w in who)
            if about and f.failing_share and CAUSES[f.cause].group != "M" and not (empty and f.cause in EXPLAINERS):
                return True
        return False

    @cached_property
    def failing_share(self) -> float:
        """The failing share of its worst rule, as far as clusters and endpoints decide."""
        if not self.useless and all([s.action == "route" for s in self.steps]):
            return 0.0
        return max((failing(s) for s in self.steps if self.asked(s.port)), default=0.0)

    def miss(self, branch: Branch, endpoint: object, part: float) -> None:
        """Keeps that a part of a destination's requests, those to an endpoint, do not arrive: several faults of one rule add up."""
        self.missed.setdefault(id(branch.step), {})[branch.index, id(endpoint)] = branch.share * part

    @property
    def losing_share(self) -> float:
        """The failing share of its worst rule, with what was found of requests that do not arrive."""
        if not self.missed:
            return self.failing_share
        lost = (failing(s) + sum(self.missed.get(id(s), {}).values()) for s in self.steps if self.asked(s.port))
        return round(min(1.0, max(lost, default=0.0)), 6)

    def failing(self) -> list[Branch]:
        """Destinations that get requests and cannot serve them."""

        def find() -> list[Branch]:
            found: list[Branch] = []
            if self.useless or any([u.unseen for u in self.upstreams]):
                found = [b for b in self.branches if b.share > 0 and (b.upstream.fails or self.nameless(b))]
            return found + [b for b in self._unheld() if self.nameless(b)]

        return self.once("failing", find)

    def _unheld(self) -> Iterator[Branch]:
        """What callers hold nothing for: the ports of a headless Service for which a sidecar listens at its endpoints' addresses alone (core/listener.go)."""
        if not any([self.host in i.headless for i in self.mesh.every_plane()]):
            return
        for c in self.blind:
            service = c.scope.services.get(self.host)
            if c.proxy.kind != "sidecar" or service is None or not service.ports:
                continue
            view = View(c, Upstreams(self.mesh, c.istiod, c.proxy, c.scope), [])
            port = next((p.number for p in service.ports if self.asked(p.number)), None)
            if port is not None and not self.private(view):
                step = Step(self.host, port, "tcp", "route", None, "", "", ((view.ups.of(self.host, port), 0, ""),))
                yield Branch(view, step, 0, step.targets[0][0], 0, 1.0)

    def nameless(self, branch: Branch) -> bool:
        """Whether a destination is a headless Service that nobody can dial by its own name: DNS has the addresses of its ready endpoints, and there is none.

        What its sidecars hold is an ORIGINAL_DST cluster, of which Envoy alone knows the endpoints: they are the addresses that callers dial.
        """
        u = branch.upstream
        service = u.service
        if (
            not u.unseen
            or service is None
            or not service.kubernetes
            or service.resolution != "none"
            or branch.step.host != service.hostname
        ):
            return False
        istiod = branch.view.ups.istiod
        return self.once(f"nameless {istiod.cluster} {service.hostname}", lambda: self._nobody_named(istiod, service))

    def _nobody_named(self, istiod: Istiod, service: HostService) -> bool:
        if any(self.mesh.unread(c, EndpointSlice, Service, Pod) for c in self.mesh.clusters):
            return False
        if any(e.health == "healthy" for e in self.endpoints(istiod, service)):
            return False
        slices = (s for c in self.mesh.clusters for s in self.mesh.slices(c, service.namespace, service.name))
        return not any(e.conditions.ready is not False for s in slices for e in s.endpoints or ())

    def caused(self, cause: str) -> list[list[Branch]]:
        """Failing destinations that a cause explains, those of one object that lead to one host and subset together.

        Objects of one name in two clusters with control planes of their own are two, which may say different things.
        """
        return [list(g) for g in self.once("caused", self._causes).get(cause, {}).values()]

    @property
    def causes(self) -> Iterable[str]:
        """Every cause that explains a failing destination."""
        return self.once("caused", self._causes)

    def led(self, cause: str) -> list[list[Branch]]:
        """Failing destinations that a cause explains, those of one object that lead to one host together, whatever their subsets and ports."""
        groups: dict[object, list[Branch]] = {}
        for branches in self.caused(cause):
            groups.setdefault((branches[0].place, branches[0].upstream.host), []).extend(branches)
        return list(groups.values())

    def _causes(self) -> dict[str, dict[object, list[Branch]]]:
        out: dict[str, dict[object, list[Branch]]] = {}
        for b in self.failing():
            out.setdefault(self.why(b), {}).setdefault((b.place, b.aim), []).append(b)
        return out

    def wants(self, viewpoint: Viewpoint) -> str:
        """What says that a caller means to call the host, for people; empty when nothing does (DESIGN §2, who means to call)."""
        return " ".join(self.asks(viewpoint))

    def asks(self, viewpoint: Viewpoint) -> tuple[str, ...]:
        """What says that a caller means to call the host: the object, and what it says of it; empty when nothing does."""
        istiod = self.mesh.istiod(viewpoint.cluster)
        ns = viewpoint.namespace
        by_rule = istiod.once("asks by rule", lambda: _asks_by_rule(istiod))
        if ref := by_rule.get((viewpoint.kind == "gateway", ns, self.host)):
            return ref, "names it"
        if named := istiod.once("asks", lambda: _asks(istiod)).get((ns, self.host)):
            return named.ref, "names it"
        allowing = istiod.once("asks by policy", lambda: _asks_by_policy(istiod))
        for s in istiod.by_host.get(self.host, ()):
            for policy, namespaces, principals in allowing.get(s.namespace, ()):
                if (ns in namespaces or any(f"/ns/{ns}/" in p for p in principals)) and self._about(policy, istiod, s, ns):
                    return policy.ref, f"lets namespace {ns} in"
        return ()

    def _about(self, policy: AuthorizationPolicy, istiod: Istiod, service: HostService, namespace: str) -> bool:
        """Whether a policy that lets a namespace in is about a service: it selects its workloads, or all, which says nothing of a namespace's own callers."""
        spec = policy.spec
        if targets := spec.target_refs or ((spec.target_ref,) if spec.target_ref is not None else ()):
            return any(t.kind != "Service" or t.name == service.name for t in targets)
        if not (wanted := dict(spec.selector.wanted) if spec.selector is not None else {}):
            return namespace != policy.namespace
        labels = [service.selector or {}, *(e.own for e in self.endpoints(istiod, service))]
        return any(wanted.items() <= own.items() for own in labels)

    def askers(self, istiod: Istiod) -> frozenset[str]:
        """The namespaces about which `asks` may have something to say, as far as a control plane's objects go."""
        named, letting = istiod.once("askers", lambda: (_askers(istiod), _askers_by_policy(istiod)))
        found = named.get(self.host, frozenset())
        if letting:
            found = found.union(*(letting[s.namespace] for s in istiod.by_host.get(self.host, ()) if s.namespace in letting))
        return found

    # --- why there is nobody ------------------------------------------------------------------------------------------------

    def why(self, branch: Branch) -> str:
        """The id of the cause, the one nearest to what a person must mend; empty when no implemented cause fits (DESIGN §2)."""
        if branch.upstream.entered:
            return "waypoint-not-ready"  # what is behind the waypoint fails at the waypoint, not here
        key = id(branch.step), branch.index
        if key not in self._why:
            self._why[key] = next((cause for cause, explains in by_nearness() if explains(self, branch)), "")
        return self._why[key]

    def whole(self, branch: Branch) -> bool:
        """Whether the destination gets every request of some rule of its object."""
        return any(b.share >= 1 for b in self.failing() if b.aim == branch.aim and b.place == branch.place)

    def off(self, service: HostService) -> bool:
        """Whether every workload behind a service stands at 0 replicas."""
        owners = self.owners(service)
        return bool(owners) and all(w.wanted == 0 for _, w in owners)

    @staticmethod
    def candidates(u: Upstream) -> list[IstioEndpoint]:
        """Endpoints that carry the subset's labels, usable or not."""
        return [*u.endpoints, *u.dropped]

    def endpoints(self, istiod: Istiod, service: HostService) -> tuple[IstioEndpoint, ...]:
        """Every endpoint of a service, of all ports and subsets."""
        return self.mesh.endpoints(istiod, service.hostname, service.namespace)

    def selectors(self, service: HostService) -> list[tuple[dict[str, str], set[str]]]:
        """What a service selects, and in which clusters: a Service of several clusters selects in each of them what is written there."""

        def find() -> list[tuple[dict[str, str], set[str]]]:
            kept = dict(service.selector or {})
            out: list[tuple[dict[str, str], set[str]]] = []
            for c in self.mesh.clusters:
                own = c.get(Service, service.namespace, service.name) if service.kubernetes else None
                selector = dict(own.spec.selector or {}) if own is not None else kept
                same = next((inside for said, inside in out if said == selector), None)
                if same is None:
                    out.append((selector, {c.name}))
                else:
                    same.add(c.name)
            return [(selector, inside) for selector, inside in out if selector]

        return self.once(("selectors", service), find)

    def pods(self, service: HostService) -> list[tuple[Cluster, Pod]]:
        """The pods that a Service selects."""

        def find() -> list[tuple[Cluster, Pod]]:
            return [
                (c, p)
                for selector, where in self.selectors(service)
                for c, p in self.mesh.labelled(service.namespace, *next(iter(selector.items())))
                if c.name in where and all([p.labels.get(k) == v for k, v in selector.items()])
            ]

        return list(self.once(("pods", service), find))

    def unready(self, service: HostService, upstream: Upstream | None = None) -> list[tuple[Cluster, Pod]]:
        """The pods that a Service selects and that are not ready, or have no address yet, without those that go or have ended; with an upstream, only those of its subset.

        Kubernetes lists no pod without an address (ShouldPodBeInEndpoints, k8s.io/endpointslice/util/controller_utils.go).
        """
        subset = _subset(upstream)
        wanted = ((subset.labels if subset is not None else None) or {}).items()

        def find() -> list[tuple[Cluster, Pod]]:
            found = [
                (c, p) for c, p in self.pods(service) if not (p.ready and p.addresses) and not p.ended and not p.metadata.deletion_timestamp
            ]
            return [(c, p) for c, p in found if all([p.labels.get(k) == v for k, v in wanted])]

        return list(self.once(("unready", service, id(subset)), find))

    def owners(self, service: HostService, upstream: Upstream | None = None) -> list[tuple[Cluster, Workload]]:
        """The workloads whose pods a Service selects; with an upstream, only those that would fill its subset."""
        subset = _subset(upstream)
        wanted = (subset.labels if subset is not None else None) or {}

        def find() -> list[tuple[Cluster, Workload]]:
            out: list[tuple[Cluster, Workload]] = []
            for selector, where in self.selectors(service):
                both = (selector | wanted).items()
                for c, w in self.mesh.templated(service.namespace, *next(iter(both))):
                    labels = w.spec.template.metadata.labels or {}
                    if c.name in where and all([labels.get(k) == v for k, v in both]):
                        out.append((c, w))
            return out

        return list(self.once(("owners", service, id(subset)), find))

    # --- ServiceEntries -----------------------------------------------------------------------------------------------------

    def entries(self, istiod: Istiod, host: str) -> list[ServiceEntry]:
        """The ServiceEntries of a host, oldest first."""
        return list(entries(istiod).get(host, ()))

    def seen(self, istiod: Istiod, host: str, namespace: str) -> dict[str, list[ServiceEntry]]:
        """The ServiceEntries of a host that callers of a namespace see, by their own namespace; first the one that istiod keeps there.

        Namespaces where a Kubernetes Service has the host are left out: there the Service is kept.
        """
        refs = {e.ref: e for e in self.entries(istiod, host)}
        out: dict[str, dict[str, ServiceEntry]] = {}
        if len(refs) < 2:
            return {e.namespace: [e] for e in refs.values()}
        services = istiod.by_host.get(host, ())
        kubernetes = {s.namespace for s in services if s.kubernetes}
        for s in istiod.in_order([s for s in services if not s.kubernetes and s.namespace not in kubernetes], namespace):
            entry = refs[s.sources[0][1]]
            out.setdefault(s.namespace, {}).setdefault(entry.ref, entry)
        return {ns: list(group.values()) for ns, group in out.items()}

    def lost_ports(self, istiod: Istiod, host: str, namespace: str) -> dict[int, tuple[ServiceEntry, ServiceEntry]]:
        """Ports of ServiceEntries that istiod drops for callers of a namespace: (kept, dropped), two that it cannot merge, of one namespace."""
        out: dict[int, tuple[ServiceEntry, ServiceEntry]] = {}
        for kept, *others in self.seen(istiod, host, namespace).values():
            first = next(s for s in from_entry(kept, istiod.cluster, {}) if s.hostname == host)
            have = {p.number for p in kept.spec.ports or ()}
            for other in others:
                second = next(s for s in from_entry(other, istiod.cluster, {}) if s.hostname == host)
                if can_merge(first, second):
                    have |= {p.number for p in other.spec.ports or ()}
                    continue
                for p in other.spec.ports or ():
                    if p.number not in have:
                        out.setdefault(p.number, (kept, other))
        return out

    # --- what a finding says ------------------------------------------------------------------------------------------------

    def viewpoints(self, branches: Iterable[Branch]) -> tuple[Viewpoint, ...]:
        """The callers that some branches belong to."""
        found = list({id(b.view.callers): b.view.callers.viewpoints for b in branches}.values())
        return found[0] if len(found) == 1 else tuple(dict.fromkeys(chain.from_iterable(found)))

    def share(self, branches: Iterable[Branch]) -> float:
        """The part of a rule's requests that goes to some branches, of the rule where it is largest."""
        sums: dict[int, float] = {}
        for b in branches:
            sums[id(b.step)] = sums.get(id(b.step), 0.0) + b.share
        return round(max(sums.values(), default=0.0), 6)

    def cluster_of(self, branch: Branch) -> str:
        """The cluster whose control plane makes a branch."""
        return self.mesh.cluster(branch.view.ups.istiod.cluster).name

    def finding(
        self,
        cause: str,
        *,
        cluster: str,
        resource: str,
        path: str,
        message: str,
        share: float,
        viewpoints: Iterable[Viewpoint],
        evidence: Iterable[str] = (),
        fix: str = "",
        patch: str | None = None,
        commands: Iterable[str] = (),
    ) -> Finding:
        """A finding about this host; its severity follows from its share (DESIGN §2)."""
        origin = self.mesh.cluster(cluster).origins.get(resource)
        return Finding(
            cause=cause,
            code=CAUSES[cause].code,
            severity=Severity.ERROR if share > 0 else Severity.WARNING,
            cluster=cluster,
            resource=resource,
            path=path,
            host=self.host,
            viewpoints=tuple(viewpoints),
            failing_share=share,
            message=message,
            evidence=tuple(evidence),
            fix=fix,
            patch=patch,
            commands=tuple(commands),
            same_as=SAME_AS.get(cause, ()),
            origin=Origin(*origin) if origin else None,
        )

    def slices_evidence(self, service: HostService) -> Iterator[str]:
        """What the EndpointSlices of a Service hold, one line for each."""
        for c in self.mesh.clusters:
            for s in self.mesh.slices(c, service.namespace, service.name):
                found = s.endpoints or ()
                ready = sum(e.conditions.ready is not False for e in found)
                yield f"{s.ref} in {c.name}: {len(found)} endpoint{'s'[: len(found) != 1]}, {ready} ready"
            if c.get(Service, service.namespace, service.name) is not None and not self.mesh.slices(c, service.namespace, service.name):
                yield f"Service {service.namespace}/{service.name} in {c.name} has no EndpointSlice"
        if service.kubernetes and service.resolution == "none":
            yield f"Service {service.namespace}/{service.name} is headless: its name leads to its ready endpoints alone"

    def patch(self, cluster: str, old: Resource | None, *edits: Edit, sure: bool = False) -> str | None:
        """A kubectl command that edits an object of a cluster (name or CLUSTER_ID), as a finding suggests it: shown only when the mesh after it is
        proved to be well. None where there is nothing to edit. `sure`: the check has proved it for every caller, since it changes one rule only.
        """  # noqa: D205 - what it is, and what becomes of it
        if old is None or not edits or isinstance(old, OfPolicies):
            return None
        where = self.mesh.cluster(cluster).name
        new, operations = edited(old, edits)
        if new == old:
            return None
        said = command(old, operations, where if len(self.mesh.clusters) > 1 or self.mesh.neighbours else "")
        self.proposals[said] = Proposal(Change(where, type(old), old.namespace, old.name, new), sure and self.port is None)
        return said


def entries(istiod: Istiod) -> Mapping[str, list[ServiceEntry]]:
    """The ServiceEntries of each host, oldest first."""

    def index() -> dict[str, list[ServiceEntry]]:
        out: dict[str, list[ServiceEntry]] = {}
        for e in sorted(
            (e for e in istiod.all(ServiceEntry) if isinstance(e, ServiceEntry)), key=lambda e: (e.created, e.namespace, e.name)
        ):
            for h in dict.fromkeys(e.spec.hosts or ()):
                out.setdefault(h, []).append(e)
        return out

    return istiod.once("entries by host", index)


def _subset(upstream: Upstream | None) -> Subset | None:
    return upstream.rule.subset(upstream.subset) if upstream is not None and upstream.rule is not None else None


def short(host: str) -> str:
    """A host as people say it: `name.namespace` of a Service, the whole name of anything else."""
    return host.removesuffix(f".svc.{names.DOMAIN}")


def waits(pod: Pod) -> str:
    """Why a pod is not ready, in words: what its scheduler or its containers say, or that it has no address."""
    if pod.ready and not pod.addresses:
        return "no address yet"
    for c in pod.status.conditions or ():
        if c.type == "PodScheduled" and c.status == "False":
            return f"not scheduled: {c.message or c.reason or 'no reason given'}"
    for status in pod.status.container_statuses or ():
        if status.state.waiting is not None and status.state.waiting.reason:
            return f"container {status.name} is waiting: {status.state.waiting.reason}"
        if not status.ready:
            return f"container {status.name} is not ready"
    return pod.status.reason or f"phase {pod.status.phase or 'unknown'}"


def _asks_by_rule(istiod: Istiod) -> dict[tuple[bool, str, str], str]:
    """The first ruleset of a namespace that names a host or leads there, for gateways and for everybody else."""
    out: dict[tuple[bool, str, str], str] = {}
    for r in istiod.rulesets:
        kinds = {g != "mesh" for g in r.gateways}
        for host in {*r.hosts, *r.destinations(r.namespace)}:
            for at_gateway in kinds:
                out.setdefault((at_gateway, r.namespace, host), r.ref)
    return out


def _asks(istiod: Istiod) -> dict[tuple[str, str], Resource]:
    """The first DestinationRule, else Sidecar, of a namespace that names exactly a host, and not to keep it out."""
    out: dict[tuple[str, str], Resource] = {}
    for rule in istiod.all(DestinationRule):
        if isinstance(rule, DestinationRule):
            ns = rule.metadata.namespace
            out.setdefault((ns, names.fqdn(rule.spec.host, ns)), rule)
    for s in istiod.all(Sidecar):
        if isinstance(s, Sidecar):
            for space, _, name in (h.rpartition("/") for e in s.spec.egress or () for h in e.hosts or ()):
                if not space.startswith("~"):
                    out.setdefault((s.namespace, name), s)
    return out


def _asks_by_policy(istiod: Istiod) -> dict[str, list[tuple[AuthorizationPolicy, frozenset[str], tuple[str, ...]]]]:
    """Of each namespace the policies that let somebody in: (policy, namespaces, principals)."""
    out: dict[str, list[tuple[AuthorizationPolicy, frozenset[str], tuple[str, ...]]]] = {}
    for policy in istiod.all(AuthorizationPolicy):
        if not isinstance(policy, AuthorizationPolicy) or policy.spec.action != "ALLOW":
            continue
        sources = [f.source for rule in policy.spec.rules or () for f in rule.from_ or ()]
        said = frozenset(n for s in sources for n in s.namespaces or ()), tuple(p for s in sources for p in s.principals or ())
        if any(said):
            out.setdefault(policy.namespace, []).append((policy, *said))
    return out


def _askers(istiod: Istiod) -> dict[str, frozenset[str]]:
    """For each host the namespaces whose rules, DestinationRules or Sidecars name it."""
    out: dict[str, set[str]] = {}
    for _, ns, host in istiod.once("asks by rule", lambda: _asks_by_rule(istiod)):
        out.setdefault(host, set()).add(ns)
    for ns, host in istiod.once("asks", lambda: _asks(istiod)):
        out.setdefault(host, set()).add(ns)
    same: dict[frozenset[str], frozenset[str]] = {}
    return {host: same.setdefault(found := frozenset(spaces), found) for host, spaces in out.items()}


def _askers_by_policy(istiod: Istiod) -> dict[str, frozenset[str]]:
    """For each namespace those that its policies let in."""
    allowing = istiod.once("asks by policy", lambda: _asks_by_policy(istiod))
    return {
        owner: frozenset(
            ns
            for _, spaces, principals in found
            for ns in (*spaces, *(p.split("/ns/")[-1].partition("/")[0] for p in principals if "/ns/" in p))
        )
        for owner, found in allowing.items()
    }


def going(endpoints: Iterable[IstioEndpoint]) -> bool:
    """Whether nothing is left of these endpoints but what terminates."""
    return all(e.health in {"terminating", "draining"} for e in endpoints)


_UNSPOKEN = ClientTLS(mode="DISABLE")


def spoken(branch: Branch) -> ClientTLS | None:
    """The TLS settings by which a destination is called; None where no rule has any.

    A sidecar leaves TLS out where they name a credential, unless the rule selects it or the credential is a ConfigMap: it then speaks plain text
    (buildUpstreamClusterTLSContext in core/cluster_tls.go).
    """
    rule = branch.upstream.rule
    policy = rule.policy_for(branch.upstream.port, branch.upstream.subset) if rule is not None else None
    tls = policy.tls if policy is not None else None
    if tls is None or rule is None or tls.mode not in {"SIMPLE", "MUTUAL"} or not tls.credential_name:
        return tls
    kept = branch.view.callers.proxy.kind != "sidecar" or rule.selector is not None or tls.credential_name.startswith("configmap://")
    return tls if kept else _UNSPOKEN


def said_at(branch: Branch, block: str) -> tuple[DestinationRule, str] | None:
    """The DestinationRule that says a block of its traffic policy (`tls`, `outlier_detection`, `connection_pool`) for a destination, and where in it; None when no rule does."""
    u = branch.upstream
    if u.rule is None:
        return None
    if u.subset and (origin := u.rule.subset_origins.get(u.subset)) is not None:
        for i, s in enumerate(origin.spec.subsets or ()):
            if s.name == u.subset:
                for path in _paths(s.traffic_policy, u.port, f"spec.subsets[{i}].trafficPolicy", block):
                    return origin, path
    for origin in u.rule.origins:
        made = isinstance(origin, OfPolicies)
        if made or origin.spec.traffic_policy is u.rule.policy or isinstance(u.rule.origins[-1], OfPolicies):
            for path in _paths(origin.spec.traffic_policy, u.port, "spec.trafficPolicy", block):
                return origin, "spec.validation" if made else path
    return None


def _paths(policy: TrafficPolicy | None, port: int, at: str, block: str) -> Iterator[str]:
    """Where a policy says a block for a port: the port's settings first."""
    if policy is None:
        return
    first, *more = block.split("_")
    written = first + "".join(map(str.capitalize, more))
    for i, p in enumerate(policy.port_level_settings or ()):
        if p.port is not None and p.port.number == port and getattr(p, block) is not None:
            yield f"{at}.portLevelSettings[{i}].{written}"
    if getattr(policy, block) is not None:
        yield f"{at}.{written}"


def endpoints_command(u: Upstream) -> str:
    """The istioctl command that shows the endpoints of an Envoy cluster; of one whose endpoints only Envoy knows the cluster, since without
    calls it has none to show (istioctl/pkg/proxyconfig, `/clusters`).
    """  # noqa: D205 - two cases of one sentence
    if u.unseen:
        return f"istioctl proxy-config cluster <pod> --fqdn {u.host} --port {u.port}"
    return f"istioctl proxy-config endpoints <pod> --cluster '{u.name}'"


def _of_any_host(ups: Upstreams, host: str) -> list[Step]:
    """A gateway's rules for `*` that are about a host: those of VirtualServices for any host that lead to it, TCP of those that name it, and
    those of the Gateway API's routes that have its Service among their backends, where they lead to nobody as well.
    """  # noqa: D205 - three cases of one sentence
    istiod = ups.istiod
    naming = {r.ref for r in istiod.claiming(host) if r.tcp and host in (h.lower() for h in r.hosts)}
    backing = named_for_any_host(istiod).get(host, ())
    if not naming and not backing and ("*" not in istiod.leading(host) or not istiod.by_host.get(host)):
        return []
    for_any = istiod.once("for any host", lambda: {r.ref for r in istiod.rulesets if "*" in r.hosts})
    return [
        s
        for s in steps(ups, ["*"])
        if (s.protocol == "tcp" and s.source in naming)
        or (s.source in for_any and any(u.host == host for u, _, _ in s.targets))
        or ((s.leaf or s.source, s.path) in backing and (not s.targets or any(u.host in ("", NOBODY) for u, _, _ in s.targets)))
    ]


def _steps(ups: Upstreams, host: str) -> list[Step]:
    found = list(steps(ups, [host]))
    if ups.proxy.kind == "gateway" and host != "*":
        found += _of_any_host(ups, host)
    if not found and not ups.istiod.by_host.get(host):
        through = ups.istiod.leading(host)
        found = [s for s in steps(ups, through) if any(u.host == host for u, _, _ in s.targets)] if through else []
    return list(gateway.felt(ups, found)) if ups.proxy.kind == "gateway" else found
