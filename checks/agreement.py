"""Whether a live Envoy holds what was predicted from the cluster's objects, and whether as many calls fail, in sentences.

`agreement` lays an `EnvoyView` beside the predicted routes. What was not seen is never agreement: hosts always come with a view, `routes` is
None where the route configuration could not be read, and then no sentence speaks of shares. `real` lays what Prometheus counted beside the
predicted failing share: it agrees where chance alone may make the difference, and of too few calls nothing is said.
"""

from __future__ import annotations

import ipaddress
import math
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from checks.answers import Destination, Endpoint, Route, Viewpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from checks.evidence import EnvoyView, Flow, LiveCluster, LiveHost, LiveRoutes, LiveRule, LiveVirtualHost, Traffic
    from checks.finding import Finding

NAMED = 3
"""How many addresses one sentence names before it counts the rest."""


class Agreement(Struct, frozen=True):
    """Whether a live Envoy holds one predicted destination as predicted, in one sentence, with where that was seen."""

    viewpoint: Viewpoint
    envoy_cluster: str
    agrees: bool
    sentence: str
    source: str


def agreement(routes: Sequence[Route], live: EnvoyView) -> list[Agreement]:
    """Every predicted destination of this proxy's routes beside what the proxy holds; each different sentence once, in order of the routes.

    `routes` are those of the proxy's own viewpoint (`--as NS/POD`): routes of another cluster, namespace or pod, and of a population that
    a selector describes, are passed over.
    """
    out: dict[Agreement, None] = {}
    for route in routes:
        if not _is_of(route.viewpoint, live):
            continue
        for destination in route.destinations:
            agrees, sentence = compared(route, destination, live)
            out[
                Agreement(
                    Viewpoint(live.cluster, route.viewpoint.kind, live.namespace, live.pod),
                    destination.envoy_cluster,
                    agrees,
                    sentence,
                    f"{live.source}, read at {_clock(live.read_at)}",
                )
            ] = None
    return list(out)


def _is_of(viewpoint: Viewpoint, live: EnvoyView) -> bool:
    if (viewpoint.cluster, viewpoint.namespace) != (live.cluster, live.namespace):
        return False
    return viewpoint.pod == live.pod if viewpoint.pod is not None else viewpoint.selector is None


def compared(route: Route, destination: Destination, live: EnvoyView) -> tuple[bool, str]:
    """Whether an Envoy holds one predicted destination as predicted, and the sentence that says so."""
    cluster = live.clusters.get(destination.envoy_cluster)
    agreed, differences = _hosts(destination, cluster, live)
    share = _share(route, destination, live)
    if share is not None:
        (differences if share[0] else agreed).append(share[1])
    if cluster is not None and cluster.refused:
        differences.append(f"keeps an older configuration, because Envoy refused the last one: {cluster.refused}")
    name = destination.envoy_cluster
    if differences:
        return False, f"Envoy {live.proxy} differs from the prediction: {name} {_and(differences)}"
    return True, f"seen on Envoy {live.proxy}: {name} {_and(agreed)}, as predicted"


def _hosts(destination: Destination, cluster: LiveCluster | None, live: EnvoyView) -> tuple[list[str], list[str]]:
    """What agrees and what differs about a cluster and its hosts, each as the rest of a sentence whose subject is the cluster."""
    if cluster is None or not cluster.present:
        if not destination.defined:
            return ["does not exist (503 NC)"], []
        if cluster is not None and cluster.warming:
            return [], ["is still warming: it waits for its endpoints, and until they come its requests get 503 NC"]
        return [], ["does not exist there, so that its requests get 503 NC"]
    if not destination.defined:
        return [], [f"exists there, with {_count(len(cluster.usable), 'usable host')}, although no object asks for it any more"]
    if destination.usable and not destination.endpoints:
        return ["exists; only Envoy knows its hosts"], []

    differences = list(_differences(destination.endpoints, cluster, live))
    if not cluster.usable and cluster.hosts and cluster.panic_threshold:
        said = f"has no usable host ({_reasons(cluster.hosts)}) but sends to all {len(cluster.hosts)}: its panic threshold is {cluster.panic_threshold:g} %"
        return ([said], differences) if destination.usable else ([], [*differences, said])
    if cluster.usable:
        return [f"has {_count(len(cluster.usable), 'usable host')}"], differences
    if cluster.hosts:
        return [f"has {_count(len(cluster.hosts), 'host')}, none usable ({_reasons(cluster.hosts)})"], differences
    return ["has no host"], differences


def _differences(endpoints: Iterable[Endpoint], cluster: LiveCluster, live: EnvoyView) -> Iterator[str]:
    """How the usable hosts of a live cluster differ from the endpoints that were predicted healthy."""
    wanted = {spelling(endpoint.address): endpoint for endpoint in endpoints}
    found: dict[str, list[LiveHost]] = {}
    for host in cluster.hosts:
        found.setdefault(_predicted_key(host, wanted), []).append(host)

    gone = [host for key, hosts in found.items() if key not in wanted for host in hosts if host.usable]
    if gone:
        when = f"; its configuration is of {_stamp(cluster.last_updated, live.read_at)}" if cluster.last_updated else ""
        yield f"still has {_count(len(gone), 'usable host')} that Kubernetes no longer lists ({_list(host.address for host in gone)}{when})"
    early = [e for key, e in wanted.items() if e.state != "healthy" and any(host.usable for host in found.get(key, ()))]
    if early:
        yield f"still sends to {_list(e.address for e in early)}, which Kubernetes says is {early[0].reason or early[0].state}"
    missing = [key for key, e in wanted.items() if e.state == "healthy" and key not in found]
    unresolved = [key for key in missing if not _is_ip(key)]
    if unresolved:
        yield f"has no address for {_list(unresolved)}: DNS gives it none"
    missing = [key for key in missing if _is_ip(key)]
    if missing:
        yield f"lacks {_count(len(missing), 'endpoint')} that Kubernetes lists as ready ({_list(missing)})"
    refusing = [
        hosts[0] for key, hosts in found.items() if key in wanted and wanted[key].state == "healthy" and not any(h.usable for h in hosts)
    ]
    if refusing:
        yield f"does not use {_count(len(refusing), 'endpoint')} that Kubernetes lists as ready ({_reasons(refusing)})"


def _share(route: Route, destination: Destination, live: EnvoyView) -> tuple[bool, str] | None:
    """Whether the live share differs, and the words for it; None where nothing can be said (TCP, TLS, routes not read, no weight)."""
    if live.routes is None or route.protocol != "http" or not destination.share:
        return None
    rules = list(_rules(route, live.routes))
    wanted = _shares((d.envoy_cluster, d.share) for d in route.destinations)
    if any(_same(wanted, _shares(rule.shares)) for rule in rules):
        return False, f"gets {_percent(destination.share)} of the requests of its rule"
    names = set(wanted)
    nearest = max(rules, key=lambda rule: len(names & _shares(rule.shares).keys()), default=None)
    got = _shares(nearest.shares) if nearest is not None else {}
    if not names & got.keys():
        return True, f"gets no request: no rule for {route.host} on port {route.port} leads there"
    share = got.get(destination.envoy_cluster, 0.0)
    if abs(share - destination.share) < _TOLERANCE:
        return False, f"gets {_percent(share)} of the requests of its rule"
    return True, f"gets {_percent(share)} of the requests of its rule, not {_percent(destination.share)}"


def elsewhere(route: Route, live: EnvoyView) -> dict[str, float] | None:
    """Where an Envoy leads the requests of a predicted rule instead: the share of each cluster, none where it has no rule for the host any more.

    None where it leads them as predicted, where its routes were not read, and for what is no HTTP.
    """
    if live.routes is None or route.protocol != "http" or route.action != "route":
        return None
    rules = list(_rules(route, live.routes))
    wanted = _shares((d.envoy_cluster, d.share) for d in route.destinations)
    if any(_same(wanted, _shares(rule.shares)) for rule in rules):
        return None
    if not rules:
        return {} if any(config.name == str(route.port) for config in live.routes) else None
    return _shares(max(rules, key=lambda rule: len(wanted.keys() & _shares(rule.shares).keys())).shares)


_TOLERANCE = 0.0005


def _shares(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Share by cluster; the same cluster twice is added, a share of nothing is left out."""
    out: dict[str, float] = {}
    for name, share in pairs:
        if share:
            out[name] = out.get(name, 0.0) + share
    return out


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return a.keys() == b.keys() and all(abs(share - b[name]) < _TOLERANCE for name, share in a.items())


def _rules(route: Route, configs: Iterable[LiveRoutes]) -> Iterator[LiveRule]:
    """The rules that this Envoy applies to a request for the route's host on its port, in every route configuration that has them."""
    for config in configs:
        candidates = [v for v in config.virtual_hosts if _serves(config, v, route.host, route.port)]
        best = max(candidates, key=lambda v: _fit(v, route.host, route.port), default=None)
        if best is not None and _fit(best, route.host, route.port) > (0, 0):
            yield from best.rules


def _serves(config: LiveRoutes, virtual_host: LiveVirtualHost, host: str, port: int) -> bool:
    """Whether a virtual host is about a host's port, by istiod's names.

    A sidecar's configuration is named by the port (`80`); or, where istiod detects the protocol, by the host too (`cart.shop:80`), and then
    its domain is `*`. A waypoint's is named as its cluster is (`inbound-vip|80|http|host`). A gateway's is named by the port of its pods
    (`http.8080`); there only the virtual host (`cart.shop:80`) names the port that callers use.
    """
    if "|" in config.name:
        parts = config.name.split("|")
        return parts[1] == str(port) and parts[-1] == host
    if ":" in config.name and not config.name.startswith(("http.", "https.")):
        return config.name == f"{host}:{port}"
    return str(port) in config.name.split(".") or virtual_host.name.endswith(f":{port}")


def _fit(virtual_host: LiveVirtualHost, host: str, port: int) -> tuple[int, int]:
    """How well a virtual host fits an authority, in Envoy's order: exact, then the longest suffix, then the longest prefix, then `*`."""
    best = (0, 0)
    for domain in virtual_host.domains:
        fit = (0, 0)
        if domain in {host, f"{host}:{port}"}:
            fit = (4, 0)
        elif domain == "*":
            fit = (1, 0)
        elif domain.startswith("*") and (host.endswith(domain[1:]) or f"{host}:{port}".endswith(domain[1:])):
            fit = (3, len(domain))
        elif domain.endswith("*") and host.startswith(domain[:-1]):
            fit = (2, len(domain))
        best = max(best, fit)
    return best


def spelling(address: str) -> str:
    """One spelling of an address: IPv6 compressed and in brackets, names in lower case."""
    ip, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(ip.strip("[]"))
    except ValueError:
        return address.lower()
    return f"[{parsed}]:{port}" if parsed.version == 6 else f"{parsed}:{port}"


def _is_ip(key: str) -> bool:
    return key.startswith("[") or key.rpartition(":")[0].replace(".", "").isdigit()


def _predicted_key(host: LiveHost, wanted: Mapping[str, Endpoint]) -> str:
    """The spelling under which a live host was predicted: its DNS name with the port if that was, else its address."""
    key = spelling(host.address)
    named = f"{host.hostname}:{host.address.rpartition(':')[2]}".lower()
    return named if host.hostname and key not in wanted and named in wanted else key


def _reasons(hosts: Sequence[LiveHost]) -> str:
    return _list(f"{host.address} {host.reason or 'unusable'}" for host in hosts)


def _list(words: Iterable[str]) -> str:
    every = list(words)
    named = ", ".join(every[:NAMED])
    return f"{named} and {len(every) - NAMED} more" if len(every) > NAMED else named


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) <= 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{f'{number:,}' if number else 'no'} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _stamp(rfc3339: str, read_at: float) -> str:
    """`14:02 UTC`, with the date when it is not the day of the reading."""
    day, _, time = rfc3339.partition("T")
    today = datetime.fromtimestamp(read_at, UTC).date().isoformat()
    return f"{time[:5]} UTC" if day == today else f"{day} {time[:5]} UTC"


# --- as many as predicted --------------------------------------------------------------------------------------------------------

NOISE = 0.01
"""The part of calls that fails on any day, whatever the objects say: one in a hundred neither makes nor breaks an agreement."""
_Z = 3.0
"""Standard deviations: of calls that fail exactly as predicted, one reading of 370 is called a difference."""
_VAGUE = 0.25
"""Where the share that was counted may be anything within so much, the calls are too few to agree."""
_FEW = 10
"""And fewer than this are too few to differ."""
_BAD_GRPC = frozenset({2, 4, 12, 13, 14, 15})
"""Statuses that a server or a proxy is at fault for: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS."""
_BAD_TCP = frozenset({"UH", "UF", "NC", "NR", "UO", "URX", "DENY", "CONNECT"})


class Real(Struct, frozen=True):
    """The part of a host's calls that fail as Prometheus counted them from one cluster's callers, 0 to 1, beside what was predicted, in one sentence.

    `low` and `high` bound what was predicted for exactly these callers: where several rules differ, nobody knows how many calls each gets. None
    where nothing was predicted for any of them. `calls` were counted by all callers together. `agrees` allows for chance, and is None where it
    cannot be said: nobody called, too few did, it began just now, or calls are counted under another host's name.
    """

    cluster: str
    measured: float
    calls: float
    low: float | None
    high: float | None
    agrees: bool | None
    sentence: str
    source: str
    command: str
    """With which a person would see the same."""


def real(
    host: str, traffic: Traffic, routes: Iterable[Route], findings: Iterable[Finding] = (), alike: Iterable[Sequence[Viewpoint]] = ()
) -> Real:
    """What Prometheus counted of a host's calls beside what was predicted for their callers.

    `routes` and `alike` are a diagnosis's; `findings` are those that the objects decide.
    """
    rules = list(routes)
    bounds = _bounds(host, traffic.cluster, rules, findings, alike)
    nameless, unknown = _unnamed(traffic, rules)
    callers = by_caller((*traffic.flows, *nameless))
    expected = _Sum()
    lost: dict[tuple[str, str], float] = {}
    ends: dict[str, float] = {}
    calls = 0.0
    for (namespace, workload), flows in callers.items():
        failing = {f: f.rate * traffic.window_s for f in flows if fails(f)}
        count = sum(f.rate for f in flows) * traffic.window_s
        calls += count
        if failing:
            lost[namespace, workload] = sum(failing.values())
        for f, n in failing.items():
            ends[_ended(f)] = ends.get(_ended(f), 0.0) + n
        if (bound := bounds.get(namespace)) is not None:
            expected.add(count, sum(failing.values()), *bound)
    agrees, but = _fits(traffic, expected)
    predicted = expected.predicted
    over = f"over {_span(traffic.window_s)}"
    failed = sum(lost.values())
    if not calls:
        parts = [f"nobody calls it: no request was counted {over}"]
    elif not failed:
        parts = [f"none of {_rate(calls, traffic)} failed {over}"]
        parts += [f"though {_shown(predicted)} was predicted"] if agrees is False else []
    else:
        parts = [f"predicted {_shown(predicted)}"] if predicted is not None else []
        parts.append(f"measured {_share_of(failed / calls)} of {_rate(calls, traffic)} {over}")
        parts += [f"since {_moment(traffic.since, traffic.read_at)}"] if traffic.since is not None else []
        names = [f"{workload}.{namespace}" for namespace, workload in sorted(lost, key=lambda c: -lost[c])]
        parts += [f"most with {max(ends, key=ends.__getitem__)}", f"caller{'s'[: len(names) != 1]} {_list(names)}"]
    sentence = ", ".join(parts) + (f"; {but}" if but else "")
    if unknown:
        of = _list(dict.fromkeys(f.workload for f in unknown))
        sentence += f"; {_rate(sum(f.rate for f in unknown) * traffic.window_s, traffic)} at {of} met no route or cluster, and nothing says for which host"
    return Real(
        cluster=traffic.cluster,
        measured=round(failed / calls, 6) if calls else 0.0,
        calls=round(calls, 3),
        low=None if predicted is None else round(predicted[0], 6),
        high=None if predicted is None else round(predicted[1], 6),
        agrees=agrees,
        sentence=sentence,
        source=f"{traffic.source}, read at {_clock(traffic.read_at)}",
        command=query(traffic),
    )


def fails(flow: Flow) -> bool:
    """Whether calls of a flow failed by a server or a proxy: what clients gave up (DC) or were denied is not meant."""
    if flow.protocol == "tcp":
        return not _BAD_TCP.isdisjoint(flow.flags)
    if flow.protocol == "grpc" and flow.code < 100:
        return flow.code in _BAD_GRPC
    return flow.code >= 500 or "NR" in flow.flags or (flow.code == 0 and bool(flow.flags) and "DC" not in flow.flags)


def query(traffic: Traffic) -> str:
    """The command with which a person would see what was counted; `$PROMETHEUS` is the server's URL."""
    named = traffic.host.replace("\\", "\\\\").replace('"', '\\"')
    counted = f'rate(istio_requests_total{{destination_service="{named}"}}[{traffic.window_s:.0f}s])'
    said = f"sum by (reporter, source_workload, response_code, response_flags) ({counted})"
    return f'promtool query instant "$PROMETHEUS" {shlex.quote(said)}'


def by_caller(flows: Iterable[Flow]) -> dict[tuple[str, str], list[Flow]]:
    """The flows of each caller (namespace, workload), every call once: as its own proxy tells of them, else a waypoint, else the server.

    What a waypoint tells of requests comes before what a ztunnel tells of the connections that carry them.
    """
    callers: dict[tuple[str, str], list[Flow]] = {}
    for f in flows:
        callers.setdefault((f.namespace, f.workload), []).append(f)
    return {of: next(iter(reporters([f for f in mine if f.protocol != "tcp"] or mine)), []) for of, mine in callers.items()}


def reporters(flows: Sequence[Flow]) -> list[list[Flow]]:
    """The flows of one caller by who reports them, the caller's own proxy first: one call is told of by several."""
    found = ([f for f in flows if f.reporter == reporter] for reporter in ("source", "waypoint", "destination"))
    return [mine for mine in found if mine]


def _unnamed(traffic: Traffic, routes: Sequence[Route]) -> tuple[list[Flow], list[Flow]]:
    """Calls of no host that are of this one, and those that may be: of gateways of which it is predicted that they meet no cluster, and of others."""
    predicted = {
        r.viewpoint.namespace for r in routes if r.viewpoint.kind == "gateway" and any(d.share and not d.defined for d in r.destinations)
    }
    found: tuple[list[Flow], list[Flow]] = [], []
    for f in traffic.unnamed:
        found[not (f.namespace in predicted and "NC" in f.flags)].append(f)
    return found


def _bounds(
    host: str, cluster: str, routes: Sequence[Route], findings: Iterable[Finding], alike: Iterable[Sequence[Viewpoint]]
) -> dict[str, tuple[float, float]]:
    """The least and the most of their calls that callers of each namespace of a cluster were predicted to lose."""
    same = {group[0]: group for group in alike}
    rules: dict[Viewpoint, list[float]] = {}
    for r in routes:
        if r.host == host:
            if any(d.envoy_cluster.rpartition("|")[2] != host for d in r.destinations):
                return {}  # calls that go to other hosts are counted under their names
            for v in same.get(r.viewpoint, (r.viewpoint,)):
                rules.setdefault(v, []).append(r.failing_share)
    for f in findings:
        for v in f.viewpoints if f.host == host and f.failing_share else ():
            known = rules.setdefault(v, [])
            rules[v] = [max(f.failing_share, *known)] if len(known) == 1 else [*known, f.failing_share]
    out: dict[str, tuple[float, float]] = {}
    for v, shares in rules.items():
        if v.cluster == cluster:
            low, high = out.get(v.namespace, (1.0, 0.0))
            out[v.namespace] = min(low, *shares), max(high, *shares)
    return out


class _Sum:
    """Calls of callers for whom something was predicted, and how many of them it was that would fail."""

    def __init__(self) -> None:
        self.calls = self.failed = self._low = self._high = 0.0

    def add(self, calls: float, failed: float, low: float, high: float) -> None:
        self.calls += calls
        self.failed += failed
        self._low += low * calls
        self._high += high * calls

    @property
    def predicted(self) -> tuple[float, float] | None:
        return (self._low / self.calls, self._high / self.calls) if self.calls else None


def _fits(traffic: Traffic, of: _Sum) -> tuple[bool | None, str]:
    """Whether the share that was counted can be the predicted one, with what stands against saying so."""
    if of.predicted is None:
        return None, ""
    if traffic.since is not None and traffic.read_at - traffic.window_s < traffic.since:
        return None, "it began too shortly ago to compare"
    if of.calls < _FEW:
        return None, "too few to compare"
    low, high = _wilson(of.failed / of.calls, of.calls)
    least, most = of.predicted
    if high < least - NOISE or low > most + NOISE:
        return False, "that is not as predicted"
    return (None, "too few to compare") if high - low > _VAGUE else (True, "")


def _wilson(part: float, calls: float) -> tuple[float, float]:
    """Between which parts the true one lies (Wilson's score interval)."""
    square = _Z * _Z / calls
    middle = (part + square / 2) / (1 + square)
    spread = _Z / (1 + square) * math.sqrt(part * (1 - part) / calls + square / (4 * calls))
    return middle - spread, middle + spread


def _ended(flow: Flow) -> str:
    code = f"gRPC status {flow.code}" if flow.protocol == "grpc" else str(flow.code or "")
    return f"{code} {','.join(flow.flags)}".strip()


def _shown(predicted: tuple[float, float] | None) -> str:
    low, high = (_share_of(x) for x in predicted or (0.0, 0.0))
    return low if low == high else f"{low} to {high}"


def _share_of(share: float) -> str:
    return f"{share * 100:.3g} %"


def _rate(calls: float, traffic: Traffic) -> str:
    """`10.5 calls a second`, or how many there were where that is less than one a second."""
    rate = calls / traffic.window_s
    return f"{rate:.3g} calls a second" if rate >= 1 else _count(round(calls), "call")


def _span(seconds: float) -> str:
    return f"{seconds / 60:.2g} min" if seconds >= 60 else f"{seconds:.2g} s"


def _moment(at: float, now: float) -> str:
    return _stamp(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M"), now)
