"""What several clusters and networks make of a host (MESH6xx), and through which gateways its calls go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from checks import gateway, names
from checks.case import short
from checks.finding import MeshCue
from checks.mesh import NetworkGateway, told_port
from checks.registry import NETWORK, proxy_kind
from checks.resources import Namespace, Pod, Service, Workload
from checks.routes import upstreams
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.finding import Finding
    from checks.gateway import Bound
    from checks.mesh import Cluster, Mesh
    from checks.registry import IstioEndpoint
    from checks.upstream import Reach, Upstreams

TUNNEL_PORT = 15443
MANAGED = "gateway.networking.k8s.io/gateway-name"


class Way(NamedTuple):
    """An endpoint that a caller's Envoy sends to: `gateways` stand for it when it is in another network. `part` of the branch's requests."""

    endpoint: IstioEndpoint
    reach: Reach
    gateways: tuple[NetworkGateway, ...]
    part: float


def ways(branch: Branch) -> list[Way]:
    """Whom the requests of a destination reach, each endpoint with its part; what is not sent is not there."""
    ups = branch.view.ups
    sent = [(e, r) for e, r in ups.reach(branch.upstream) if r == "gateway" or (r == "direct" and e.health == "healthy")]
    near = [e for e, r in sent if r == "direct" and e.cluster == ups.proxy.cluster]
    if near and _stays(branch):
        sent = [(e, "direct") for e in near]
    return [Way(e, r, tuple(ups.through(e)) if r == "gateway" else (), 1 / len(sent)) for e, r in sent]


def _stays(branch: Branch) -> bool:
    """Whether requests stay in their locality while somebody serves there: with outlier detection or trafficDistribution."""
    u = branch.upstream
    policy = u.rule.policy_for(u.port, u.subset) if u.rule else None
    return bool(policy and policy.outlier_detection) or bool(u.service and u.service.traffic_distribution)


class Lost(NamedTuple):
    """A destination of which a part of the requests does not arrive."""

    branch: Branch
    part: float
    endpoints: tuple[IstioEndpoint, ...]


def lost(case: Case, which: Callable[[Branch, Way], object]) -> dict[object, list[Lost]]:
    """The destinations whose requests go ways that do not arrive, by what `which` says of such a way (None: it arrives)."""
    out: dict[object, list[Lost]] = {}
    if len(case.mesh.clusters) < 2 or any(entry(s) for _, s in services(case)):
        return out  # nobody calls a network's gateway by the name of its Service
    gateways = case.mesh.network_gateways
    for g in gateways:
        where = case.mesh.known(g.cluster)
        entries = tunnels(case.mesh, where, g.network) if where is not None else []
        case.also.update((names.service_host(s.name, s.namespace), s.namespace) for s in entries)
    for b in case.branches:
        if b.share <= 0 or not b.upstream.usable or b.upstream.unseen:
            continue
        if not b.view.ups.proxy.network and not gateways:
            continue
        mine: dict[object, list[Way]] = {}
        for w in case.once(f"ways {id(b.view)} {b.upstream.name}", lambda b=b: ways(b)):  # type: ignore[misc]
            key = which(b, w)
            if key is not None:
                mine.setdefault(key, []).append(w)
        for key, found in mine.items():
            out.setdefault(key, []).append(Lost(b, sum(w.part for w in found), tuple(w.endpoint for w in found)))
    return out


def entry(service: Service) -> bool:
    """Whether a Service is where a network is entered."""
    return NETWORK in service.labels or any(p.port == TUNNEL_PORT for p in service.spec.ports)


def share(case: Case, found: Iterable[Lost]) -> float:
    """The part of a rule's requests that does not arrive, of the rule where it is largest."""
    sums: dict[int, float] = {}
    for one in found:
        for e in one.endpoints:
            case.miss(one.branch, e, one.part / len(one.endpoints))
        key = id(one.branch.step)
        sums[key] = sums.get(key, 0.0) + one.branch.share * one.part
    return round(max(sums.values(), default=0.0), 6)


def viewpoints(case: Case, found: Iterable[Lost]) -> tuple[Viewpoint, ...]:
    """Whose requests they are."""
    return case.viewpoints(one.branch for one in found)


def addresses(found: Iterable[Lost]) -> str:
    """The endpoints that are not reached, in words."""
    said = list(dict.fromkeys(e.at for one in found for e in one.endpoints))
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def callers(case: Case, found: Iterable[Lost]) -> str:
    """The clusters that call, in words."""
    return " and ".join(dict.fromkeys(v.cluster for v in viewpoints(case, found)))


def raw(branch: Branch, way: Way) -> bool:
    """Whether an address of another network is pushed as it is: both networks are known, and no gateway is."""
    proxy = branch.view.ups.proxy
    return way.reach == "direct" and not proxy.in_network(way.endpoint.network) and way.endpoint.cluster != proxy.cluster


def unopened(branch: Branch, way: Way) -> NetworkGateway | None:
    """The Service of an endpoint's network that would be its gateway, had it the port that callers are told of: istiod passes it over from 1.29 on."""
    mesh, network = branch.view.ups.mesh, way.endpoint.network
    cluster = mesh.known(way.endpoint.cluster)
    if cluster is None or not raw(branch, way):
        return None
    for s in tunnels(mesh, cluster, network):
        if s.labels.get(NETWORK) == network and all(p.port != told_port(s) for p in s.spec.ports):
            for address in (*(i.ip or i.hostname for i in s.status.load_balancer.ingress), *s.spec.external_ips):
                found = NetworkGateway(network, mesh.cluster_id(cluster), address, told_port(s))
                if behind(mesh, found) is not None:
                    return found
    return None


def tunnels(mesh: Mesh, cluster: Cluster, network: str) -> list[Service]:
    """The Services of a cluster that are to be gateways of its network: labelled, else with the port of such gateways."""

    def find() -> list[Service]:
        return sorted((s for s in cluster.all(Service) if entry(s)), key=lambda s: s.ref)

    found = mesh.once(("tunnels", cluster.name), (cluster.objects.get(Service),), find)
    return [s for s in found if s.labels.get(NETWORK) == network] or found


def behind(mesh: Mesh, g: NetworkGateway) -> tuple[Cluster, Service, Upstreams] | None:
    """The Service of a network's gateway and what one of its pods holds; None where no pod is there, or Gateway API manages them."""
    cluster = mesh.known(g.cluster)
    if cluster is None:
        return None
    for s in tunnels(mesh, cluster, g.network):
        selector = s.spec.selector
        if g.address not in _own(s) or not selector or MANAGED in s.labels:
            continue
        for pod in cluster.ordered(Pod, s.namespace):
            if proxy_kind(pod) == "gateway" and MANAGED not in pod.labels and all(pod.labels.get(k) == v for k, v in selector.items()):
                return cluster, s, upstreams(mesh, mesh.proxy(cluster, pod, "gateway"))
    return None


def _own(service: Service) -> set[str]:
    """The addresses at which a Service is reached from outside."""
    return {i.ip or i.hostname for i in service.status.load_balancer.ingress} | set(service.spec.external_ips)


class Unserved(NamedTuple):
    """The Service of a network's gateway behind which nobody is ready: pods, or else workloads at 0 replicas, or else neither."""

    cluster: Cluster
    service: Service
    pods: tuple[Pod, ...]
    stopped: tuple[Workload, ...]

    @property
    def cause(self) -> str:
        """Why nobody is ready there."""
        return "pods-all-notready" if self.pods else "workload-scaled-zero" if self.stopped else "svc-selector-no-pods"

    @property
    def selector(self) -> str:
        """What the Service selects, as people write it."""
        return ",".join(f"{k}={v}" for k, v in (self.service.spec.selector or {}).items())


def unserved(mesh: Mesh) -> dict[NetworkGateway, Unserved]:
    """The gateways of networks behind which nobody is ready; those of whose pods and endpoints nothing is known are left out."""

    def find() -> dict[NetworkGateway, Unserved]:
        out: dict[NetworkGateway, Unserved] = {}
        for g in mesh.network_gateways:
            cluster = mesh.known(g.cluster)
            for s in tunnels(mesh, cluster, g.network) if cluster is not None else ():
                found = _unserved(mesh, cluster, s) if cluster is not None and g.address in _own(s) else None
                if found is not None:
                    out[g] = found
        return out

    return mesh.now(("unserved networks",), find)


def _unserved(mesh: Mesh, cluster: Cluster, service: Service) -> Unserved | None:
    wanted = (service.spec.selector or {}).items()
    slices = mesh.slices(cluster, service.namespace, service.name)
    if not wanted or any(e.conditions.ready is not False for s in slices for e in s.endpoints or ()):
        return None
    pods = tuple(p for p in cluster.ordered(Pod, service.namespace) if wanted <= p.labels.items())
    made = [w for c, w in mesh.templated(service.namespace, *next(iter(wanted))) if c is cluster]
    owners = tuple(w for w in made if wanted <= (w.spec.template.metadata.labels or {}).items())
    if any(p.ready for p in pods) or (not pods and any(w.wanted for w in owners)) or not (pods or owners or slices):
        return None
    return Unserved(cluster, service, pods, owners)


class End(NamedTuple):
    """The gateway of a network where calls end: how a sentence about it begins, which part of them, whose, and where the network is entered."""

    at: Unserved
    said: str
    part: float
    viewpoints: tuple[Viewpoint, ...]
    entered: str

    def finding(
        self,
        case: Case,
        *,
        resource: str,
        path: str,
        why: str,
        evidence: Iterable[str],
        fix: str,
        commands: Iterable[str],
        patch: str | None = None,
    ) -> Finding:
        """What is said of it: `why` nobody is there, how that is seen and mended; commands are kubectl's, in the gateway's cluster and namespace."""
        cluster, at = self.at.cluster.name, self.at.service
        return case.finding(
            self.at.cause,
            cluster=cluster,
            resource=resource,
            path=path,
            message=f"{self.said}: {why}.",
            share=self.part,
            viewpoints=self.viewpoints,
            evidence=(self.entered, *evidence),
            fix=fix,
            patch=patch,
            commands=tuple(f"kubectl --context {cluster} -n {at.namespace} {c}" for c in commands),
        )


def ends(case: Case, cause: str) -> Iterator[End]:
    """The gateways of networks through which calls to the host go and behind which nobody is ready for this cause."""
    dead = unserved(case.mesh)

    def closed(_: Branch, way: Way) -> NetworkGateway | None:
        return way.gateways[0] if way.gateways and all(g in dead for g in way.gateways) and dead[way.gateways[0]].cause == cause else None

    for g, found in lost(case, closed).items() if dead else ():
        if isinstance(g, NetworkGateway):
            part, at = share(case, found), dead[g]
            said = f"{percent(part)} of the requests from {callers(case, found)} to {short(case.host)} end at the gateway of network {g.network}"
            yield End(at, said, part, viewpoints(case, found), f"network {g.network} is entered at {g.address}:{g.port} ({at.service.ref})")


@MeshCue
def no_way_in(mesh: Mesh) -> bool:
    """Behind the gateway of some network nobody is ready."""
    return len(mesh.clusters) > 1 and bool(unserved(mesh))


def passing(ups: Upstreams, g: NetworkGateway, host: str) -> tuple[list[Bound], list[Bound]]:
    """The AUTO_PASSTHROUGH servers of a gateway workload that let a host through, and those that do not."""
    found = [b for b in gateway.merge(ups.mesh, ups).l4 if b.tls == "AUTO_PASSTHROUGH"]
    targets = {p.target for p in gateway.ports(ups) if p.number == g.port} or {g.port}
    good = [
        b for b in found if (b.server.port.number == g.port or b.port in targets) and any(names.matches(_host(h), host) for h in b.hosts)
    ]
    return good, [b for b in found if b not in good]


def _host(text: str) -> str:
    return text.rpartition("/")[2]


def system(mesh: Mesh, cluster: Cluster) -> str:
    """The ref of the namespace in which a cluster's control plane lives, where its network stands."""
    config = mesh.config(cluster)
    found = cluster.get(Namespace, "", config.root_namespace) or cluster.get(Namespace, "", "istio-system")
    return found.ref if found else f"Namespace {config.root_namespace}"


def services(case: Case) -> Iterator[tuple[Cluster, Service]]:
    """The Service objects of the host, of every cluster that has one."""
    name, _, rest = case.host.partition(".")
    namespace = rest.partition(".")[0]
    if case.host == names.service_host(name, namespace):
        for c in case.mesh.clusters:
            found = c.get(Service, namespace, name)
            if found is not None:
                yield c, found
