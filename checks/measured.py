"""How many of a host's calls end in one way, as Prometheus and the logs of callers and servers count them.

The nearest cause alone is told, and a few calls that fail as some do on any day are no cause: `measure` leaves out what the objects or an Envoy
explain already, and says nothing of what is not more than usual at any caller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from checks.agreement import NOISE, query, reporters
from checks.case import short
from checks.evidence import Access, Flow
from checks.resources import Pod
from checks.seen import FEW, over
from checks.services import home, service_of
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.answers import Viewpoint
    from checks.case import Branch, Case
    from checks.evidence import AccessLog, Traffic
    from checks.finding import Finding

Ends = Callable[[Access | Flow], bool]
"""Whether a call, or calls of one kind, ended in the way that is asked about."""


class Sample(NamedTuple):
    """Some calls of one caller, or at one server: how many, and how many of them ended in the way that is asked about."""

    ended: float
    total: float
    branches: tuple[Branch, ...]
    viewpoints: tuple[Viewpoint, ...]
    source: str
    command: str
    accesses: tuple[Access, ...] = ()
    log: AccessLog | None = None

    def more_than(self, usual: float) -> bool:
        """Whether these are more than what happens on any day."""
        return self.ended > 0 and self.ended / self.total >= usual and (self.ended >= FEW or self.ended == self.total)


class Measure(NamedTuple):
    """The part (0 to 1) of a host's calls that end in one way, and the samples that show it."""

    part: float
    samples: tuple[Sample, ...]

    @property
    def branches(self) -> list[Branch]:
        """The destinations of these calls."""
        return [b for s in self.samples for b in s.branches]

    @property
    def accesses(self) -> list[Access]:
        """The access lines of these calls; none where only Prometheus tells of them."""
        return [a for s in self.samples for a in s.accesses]


def measure(case: Case, ends: Ends, usual: float = NOISE) -> Measure | None:
    """The calls that end in one way; None where no caller has more of them than usual.

    The part is Prometheus's where it counts them, for it sees all calls; else that of the callers' logs, else that of the servers'.
    """
    told = (of_traffic(case, ends), of_callers(case, ends), of_servers(case, ends))
    found = [samples for samples in told if any(s.more_than(usual) for s in samples)]
    if not found:
        return None
    first = found[0]
    part = sum(s.ended for s in first) / sum(s.total for s in first)
    samples = [s for several in found for s in several if s.ended]
    return Measure(round(min(1.0, part), 6), tuple(_for_whom(case, s) for s in samples))


def _for_whom(case: Case, sample: Sample) -> Sample:
    """A sample of a server's log with the callers who got its answers, where their own logs or Prometheus tell of them; else with all who may have."""
    codes = {a.code for a in sample.accesses if a.envoy_cluster.startswith("inbound|")}
    if not codes:
        return sample
    felt = [s for s in (*of_callers(case, partial(_got, codes)), *of_traffic(case, partial(_got, codes))) if s.ended]
    return sample._replace(viewpoints=tuple(dict.fromkeys(v for s in felt for v in s.viewpoints)) or sample.viewpoints)


def _got(codes: set[int], call: Access | Flow) -> bool:
    """Whether the server's side answered a call with one of some codes, as the caller has it."""
    if call.code not in codes or set(call.flags) - {"URX"}:
        return False
    return call.reporter == "source" if isinstance(call, Flow) else call.details == "via_upstream"


def finding(
    case: Case,
    cause: str,
    measured: Measure,
    *,
    what: str,
    fix: str,
    calls: str = "",
    at: tuple[str, str, str] | None = None,
    evidence: Iterable[str] = (),
    commands: Iterable[str] = (),
) -> Finding:
    """The finding of calls that end in one way: `what` is said of them, `calls` are all of them if not the host's. `at` is the cluster, the object and the field; else the host's own object."""
    first = measured.branches[0]
    if at is None:
        service = first.upstream.service
        cluster = home(case, service, first) if service is not None else case.cluster_of(first)
        at = (cluster, service_of(first), "")
    cluster, resource, path = at
    return case.finding(
        cause,
        cluster=cluster,
        resource=resource,
        path=path,
        message=f"{percent(measured.part)} of {calls or f'the calls of {short(case.host)}'} {what}.",
        share=measured.part,
        viewpoints=dict.fromkeys(v for s in measured.samples for v in s.viewpoints),
        evidence=(*list(dict.fromkeys(s.source for s in measured.samples))[:4], *evidence),
        fix=fix,
        commands=tuple(dict.fromkeys((*(s.command for s in measured.samples[:2] if s.command), *commands))),
    )


def flagged(*flags: str) -> Ends:
    """Calls by HTTP with one of these of Envoy's flags."""
    return lambda call: by_http(call) and not set(flags).isdisjoint(call.flags)


def by_http(call: Access | Flow) -> bool:
    """Whether a call was HTTP: a TCP connection has neither a code nor details, and the protocol tcp."""
    return call.protocol != "tcp" if isinstance(call, Flow) else bool(call.code or call.details)


# --- who counts --------------------------------------------------------------------------------------------------------------


def of_traffic(case: Case, ends: Ends) -> list[Sample]:
    """What Prometheus counted of each caller's calls, as the caller's own proxy reports them; where only the server's, or a waypoint's, tells of such an end, as that does."""
    out: list[Sample] = []
    for traffic in case.evidence.traffic:
        if traffic.host != case.host:
            continue
        flows = sorted(traffic.flows, key=lambda f: (f.namespace, f.workload))
        for (namespace, workload), several in groupby(flows, key=lambda f: (f.namespace, f.workload)):
            branches = calling(case, traffic, namespace)
            mine = list(several)
            mine = [f for f in mine if f.protocol != "tcp"] or mine  # a ztunnel's connections carry the requests that a waypoint tells of
            told = (
                [s for r in reporters(mine) if (s := _counted(case, traffic, workload, r, ends, branches)) is not None] if branches else []
            )
            out += [s for s in told if s.ended][:1] or told[:1]
    return out


def _counted(case: Case, traffic: Traffic, workload: str, flows: list[Flow], ends: Ends, branches: tuple[Branch, ...]) -> Sample | None:
    ended = [f for f in flows if ends(f)]
    total = sum(f.rate for f in flows) * traffic.window_s
    if not total:
        return None
    namespace = flows[0].namespace
    worst = max(ended, key=lambda f: f.rate, default=None)
    said = f"{worst.code} {','.join(worst.flags)}".strip() if worst is not None else ""
    rate = sum(f.rate for f in ended)
    source = (
        f"{workload}.{namespace}: {rate:.3g} of {total / traffic.window_s:.3g} calls a second end with {said}, "
        f"as {'its own proxy' if flows[0].reporter == 'source' else f'the {flows[0].reporter}'} reports ({traffic.source})"
    )
    return Sample(
        rate * traffic.window_s,
        total,
        branches,
        tuple(v for v in case.viewpoints(branches) if v.namespace == namespace),
        source,
        query(traffic),
    )


def calling(case: Case, traffic: Traffic, namespace: str) -> tuple[Branch, ...]:
    """The destinations that callers of a namespace send to, but for those whose failing is explained."""
    cluster = case.mesh.known(traffic.cluster)
    if cluster is None:
        return ()
    return tuple(
        b
        for b in case.branches
        if b.share > 0
        and any(v.cluster == cluster.name and v.namespace == namespace for v in b.view.callers.viewpoints)
        and not case.explained(b)
    )


def of_callers(case: Case, ends: Ends) -> list[Sample]:
    """What each caller's log tells of its calls."""
    out: list[Sample] = []
    for log in case.evidence.logs:
        view = case.as_pod(log.cluster, log.namespace, log.pod)
        every = case.of_view(view) if view is not None else []
        told = [b for b in every if b.share > 0 and not case.explained(b)]
        names, mine = {b.upstream.name for b in every}, {b.upstream.name for b in told}
        aimed = _aimed(log, {at for b in told for at in _called_at(b)})
        calls = [a for a in log.accesses if a.envoy_cluster in mine]
        total = sum(a.count for a in log.accesses if a.envoy_cluster in names)
        out += _logged(case, log, told, [*calls, *aimed], total + sum(a.count for a in aimed), ends)
    return out


def of_servers(case: Case, ends: Ends) -> list[Sample]:
    """What the log of each server's proxy tells of the calls that came to it (`inbound|<port>||`, model.BuildInboundSubsetKey)."""
    out: list[Sample] = []
    for log in case.evidence.logs:
        cluster = case.mesh.known(log.cluster)
        pod = cluster.get(Pod, log.namespace, log.pod) if cluster is not None else None
        if cluster is None or pod is None:
            continue
        own = {
            (id(b), e.at): (b, e)
            for b in case.branches
            for e in b.upstream.endpoints
            if b.share > 0 and e.cluster == case.mesh.cluster_id(cluster) and e.address in pod.addresses and not case.explained(b)
        }
        ports = {f"inbound|{e.port}|" for _, e in own.values()}
        calls = [a for a in log.accesses if a.envoy_cluster.startswith(tuple(ports))]
        calls += _aimed(log, {e.at for _, e in own.values()})
        out += _logged(case, log, list({id(b): b for b, _ in own.values()}.values()), calls, sum(a.count for a in calls), ends)
    return out


def _aimed(log: AccessLog, addresses: set[str]) -> list[Access]:
    """The calls to some addresses that ended before a cluster was chosen."""
    return [a for a in log.accesses if not a.envoy_cluster and a.at in addresses]


def _called_at(branch: Branch) -> Iterator[str]:
    """The addresses at which a sidecar's callers call a destination's own host: those of its Service."""
    u, proxy = branch.upstream, branch.view.ups.proxy
    if u.service is not None and proxy.kind == "sidecar" and u.host == branch.step.host:
        ip = u.service.address_for(proxy.cluster)
        yield f"[{ip}]:{branch.step.port}" if ":" in ip else f"{ip}:{branch.step.port}"


def _logged(case: Case, log: AccessLog, branches: list[Branch], calls: list[Access], total: int, ends: Ends) -> Iterator[Sample]:
    """What a log tells of some destinations; nothing where it tells of no call."""
    if not branches or not total:
        return
    ended = tuple(a for a in calls if ends(a))
    if over(ended, calls):
        ended = ()
    names = {a.envoy_cluster for a in ended}
    own = tuple(b for b in branches if b.upstream.name in names) or tuple(branches)
    count = sum(a.count for a in ended)
    line = f": {ended[0].line}" if ended else ""
    yield Sample(
        count,
        total,
        own,
        case.viewpoints(own),
        f"{count} of {total} calls in the log of {log.proxy} ({log.container}){line}",
        f"kubectl -n {log.namespace} logs {log.pod} -c {log.container}" if ended else "",
        ended,
        log,
    )
