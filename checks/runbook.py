"""The runbook: what a specialist would look at, one step after the other, and what each look shows.

Each step stands for a tool that people reach for (Kiali, `istioctl proxy-status`, `proxy-config`, Envoy's /clusters, istiod's push log, access logs,
Prometheus). A step that could not be taken says why, and never that all is well.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from checks import accesslog
from checks.agreement import NOISE
from checks.catalogue import CAUSES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from checks.answers import Destination, Route
    from checks.changed import Changed
    from checks.diagnosis import Diagnosis
    from checks.evidence import Access, AccessLog, EnvoyView, Evidence, IstiodView, ProxySync

State = Literal["ok", "bad", "skipped", "running"]


class Step(Struct, frozen=True, kw_only=True):
    """One look: `ok` shows nothing wrong, `bad` shows what is, `skipped` was not taken (`said` is why), `running` is still being taken.

    `stands_for` is the tool that it takes the place of, `proof` what was read and where, `command` shows the same to a person.
    """

    id: str
    title: str
    stands_for: str
    state: State
    said: str
    proof: tuple[str, ...] = ()
    command: str = ""


_TITLES = {
    "routes": ("Rules", "Kiali's graph, kubectl get virtualservice"),
    "endpoints": ("Endpoints and pods", "kubectl get endpointslices, pods"),
    "clusters": ("Clusters of the caller's Envoy", "istioctl proxy-config cluster"),
    "hosts": ("Endpoints of the caller's Envoy", "istioctl proxy-config endpoint"),
    "gateways": ("Gateways on the way", "/clusters on the gateway"),
    "status": ("What proxies have of istiod's configuration", "istioctl proxy-status"),
    "push": ("What istiod says of its pushes", "istiod's push log and metrics"),
    "logs": ("Access logs", "kubectl logs of the proxies"),
    "traffic": ("Requests as they were counted", "Prometheus, Grafana"),
    "changes": ("What changed", "Kiali's playback, kubectl --show-managed-fields"),
}

_ORDER = {
    "": ("routes", "endpoints", "clusters", "hosts", "gateways", "status", "push", "logs", "traffic", "changes"),
    "C": ("endpoints", "changes", "routes", "hosts", "clusters", "status", "logs", "traffic", "push", "gateways"),
    "D": ("routes", "gateways", "clusters", "hosts", "endpoints", "push", "logs", "status", "traffic", "changes"),
    "F": ("endpoints", "gateways", "status", "push", "hosts", "routes", "clusters", "logs", "traffic", "changes"),
    "G": ("routes", "gateways", "endpoints", "logs", "status", "push", "clusters", "hosts", "traffic", "changes"),
    "I": ("hosts", "logs", "traffic", "endpoints", "clusters", "routes", "gateways", "status", "push", "changes"),
    "J": ("logs", "hosts", "status", "traffic", "routes", "endpoints", "clusters", "gateways", "push", "changes"),
    "K": ("status", "push", "clusters", "hosts", "logs", "traffic", "routes", "endpoints", "gateways", "changes"),
    "M": ("logs", "traffic", "hosts", "endpoints", "routes", "clusters", "gateways", "status", "push", "changes"),
}
"""What is looked at first, by the family of the cause; of no known cause as of those that only running parts tell."""
_LIKE = {"A": "", "B": "", "E": "", "H": "G", "L": "F"}

_READERS = {
    "clusters": "envoy",
    "hosts": "envoy",
    "gateways": "envoy",
    "status": "istiod",
    "push": "istiod",
    "logs": "logs",
    "traffic": "prometheus",
}
LIVE = frozenset(_READERS)
"""The steps for which running parts are asked."""
_NAMED = 3
_NEAR_S = 3600.0


def steps(
    diagnosis: Diagnosis,
    evidence: Evidence,
    running: Collection[str] = (),
    changes: Sequence[Changed] | None = None,
    since: float | None = None,
) -> tuple[Step, ...]:
    """Every step, that one first which is likeliest to show this cause.

    `running` are the probes that have not answered yet. `changes` are the last changes on the way, the newest first; None: nobody has looked
    for them. `since` is when the fault was first seen, in seconds since the epoch: what changed in the hour before it shows it.
    """
    taken = {
        "routes": lambda: _routes(diagnosis),
        "endpoints": lambda: _endpoints(diagnosis),
        "clusters": lambda: _clusters(diagnosis, evidence),
        "hosts": lambda: _hosts(diagnosis, gateways=False),
        "gateways": lambda: _hosts(diagnosis, gateways=True),
        "status": lambda: _status(diagnosis, evidence),
        "push": lambda: _push(diagnosis, evidence),
        "logs": lambda: _logs(diagnosis, evidence),
        "traffic": lambda: _traffic(diagnosis),
        "changes": lambda: _changes(changes, since),
    }
    made = []
    for ident in order(diagnosis):
        title, stands_for = _TITLES[ident]
        step = Step(id=ident, title=title, stands_for=stands_for, state="running", said="")
        found = taken[ident]()
        reader = _READERS.get(ident)
        if found is not None:
            state, said, proof, command = found
            made.append(Step(id=ident, title=title, stands_for=stands_for, state=state, said=said, proof=tuple(proof), command=command))
        elif reader in running:
            made.append(step)
        else:
            made.append(_skipped(step, reader, evidence, diagnosis))
    return tuple(made)


def order(diagnosis: Diagnosis) -> tuple[str, ...]:
    """The steps' ids, that one first which is likeliest to show the cause that was found."""
    worst = max((f for f in diagnosis.findings if f.failing_share), key=lambda f: f.failing_share, default=None)
    group = CAUSES[worst.cause].group if worst is not None and worst.cause in CAUSES else "M"
    return _ORDER[_LIKE.get(group, group)]


_Found = tuple[State, str, "Iterable[str]", str]


def _skipped(step: Step, reader: str | None, evidence: Evidence, diagnosis: Diagnosis) -> Step:
    """A step that nobody could take, with why."""
    none = step.id == "gateways" and not any(r.viewpoint.kind == "gateway" for r in diagnosis.routes)
    reasons = {} if none else dict.fromkeys(s.reason for s in evidence.skipped if s.check == reader)
    why = {
        "gateways": "no gateway is on the way" if none else "no gateway's Envoy was asked",
        "changes": "nobody looked for changes",
    }.get(step.id, "no probe of it is set up")
    first, *rest = (*reasons, why) if reasons else (why,)
    said = first if len(rest) <= 1 else f"{first} (and {len(rest) - 1} more like it)"
    return Step(id=step.id, title=step.title, stands_for=step.stands_for, state="skipped", said=said)


# --- what the clusters' objects show ---------------------------------------------------------------------------------------------


def _worst(diagnosis: Diagnosis) -> Route | None:
    return max(diagnosis.routes, key=lambda r: r.failing_share, default=None)


def _routes(diagnosis: Diagnosis) -> _Found | None:
    route = _worst(diagnosis)
    if route is None:
        said = diagnosis.findings[0].message if diagnosis.findings else "no caller has a rule for it"
        return "bad" if diagnosis.failing_share else "skipped", said, (), ""
    where = f"{route.source} {route.path}".strip() if route.source else "the default route of its Service"
    parts = " and ".join(f"{_percent(d.share)} to {_name(d)}" for d in route.destinations) or route.action
    undefined = [d for d in route.destinations if not d.defined and d.share]
    proof = [
        f"{where}, match {route.match}: {parts}, for {route.viewpoint.kind} callers in {route.viewpoint.namespace} of {route.viewpoint.cluster}"
    ]
    proof += [f"{d.envoy_cluster} is pushed to nobody: its requests get 503 NC" for d in undefined]
    namespace, _, name = (route.source or "").partition(" ")[2].partition("/")
    kind = (route.source or "").partition(" ")[0].lower()
    command = f"kubectl -n {namespace} get {kind} {name} -o yaml" if name else "istioctl proxy-config routes <pod> -o json"
    lost = f"; {_percent(route.failing_share)} of its requests fail" if route.failing_share else ""
    bad = bool(undefined) or (bool(route.failing_share) and not route.destinations)
    return "bad" if bad else "ok", f"{parts}{lost}", proof, command


def _endpoints(diagnosis: Diagnosis) -> _Found | None:
    route = _worst(diagnosis)
    if route is None or not route.destinations:
        return None
    told, proof = [], []
    for d in route.destinations:
        usable = sum(e.state == "healthy" for e in d.endpoints)
        told.append(
            f"{_name(d)}: {usable} of {len(d.endpoints)} usable"
            if d.endpoints
            else f"{_name(d)}: {'known to Envoy alone' if d.usable else 'no endpoint'}"
        )
        proof += [
            f"{e.address} of {e.workload or 'no workload'} in {e.cluster} is {e.state}{f': {e.reason}' if e.reason else ''}"
            for e in d.endpoints
            if e.state != "healthy"
        ][:_NAMED]
    bad = any(d.share and not d.usable for d in route.destinations)
    if bad:
        proof += [e for f in diagnosis.findings[:1] for e in f.evidence][: 2 * _NAMED - len(proof)]
    _, _, host = _parts(route.destinations[0].envoy_cluster)
    name, _, rest = host.partition(".")
    command = (
        f"kubectl -n {rest.partition('.')[0]} get endpointslices -l kubernetes.io/service-name={name}"
        if rest.endswith(".svc.cluster.local")
        else ""
    )
    return "bad" if bad else "ok", "; ".join(told), proof, command


def _changes(changes: Sequence[Changed] | None, since: float | None) -> _Found | None:
    if changes is None:
        return None
    if not changes:
        return "ok", "no object on the way says when it changed", (), ""
    suspect = next((c for c in changes if c.suspicious), None)
    first = suspect or changes[0]
    kind, _, name = first.resource.partition(" ")
    namespace, _, name = name.rpartition("/")
    place = f" -n {namespace}" if namespace else ""
    command = f"kubectl{place} get {kind.lower()} {name} -o yaml --show-managed-fields"
    rest = [_change(c) for c in changes if c is not first][: 2 * _NAMED - 1]
    near = suspect is not None and since is not None and suspect.at >= since - _NEAR_S
    return "bad" if near else "ok", f"{'suspicious: ' if near else ''}{_change(first)}", rest, command


def _change(c: Changed) -> str:
    return f"{datetime.fromtimestamp(c.at, UTC):%Y-%m-%d %H:%M:%S} UTC {c.resource} of {c.cluster} {c.what}{f' by {c.by}' if c.by else ''}"


# --- what running parts show -----------------------------------------------------------------------------------------------------


def _callers(diagnosis: Diagnosis, evidence: Evidence) -> list[EnvoyView]:
    """The Envoys of those who call, gateways left out."""
    pods = {(a.viewpoint.cluster, a.viewpoint.namespace, a.viewpoint.pod) for a in diagnosis.live if a.viewpoint.kind != "gateway"}
    return [v for v in evidence.envoys if (v.cluster, v.namespace, v.pod) in pods]


def _clusters(diagnosis: Diagnosis, evidence: Evidence) -> _Found | None:
    callers = _callers(diagnosis, evidence)
    if not callers:
        return _scraped(evidence)
    wrong, there, read = [], set(), []
    for view in callers:
        read.append(f"{view.source}, {len(view.clusters)} clusters")
        for agreed in diagnosis.live:
            if (agreed.viewpoint.cluster, agreed.viewpoint.namespace, agreed.viewpoint.pod) != (view.cluster, view.namespace, view.pod):
                continue
            cluster = view.clusters.get(agreed.envoy_cluster)
            if cluster is None or not cluster.present:
                wrong.append(
                    f"{agreed.envoy_cluster} {'is still warming' if cluster is not None and cluster.warming else 'does not exist'} in {view.proxy}"
                )
            elif cluster.refused:
                wrong.append(f"{agreed.envoy_cluster} is an old one in {view.proxy}, which refused the last: {cluster.refused}")
            else:
                there.add(agreed.envoy_cluster)
    who = _list(v.proxy for v in callers)
    command = f"istioctl proxy-config cluster {callers[0].pod}.{callers[0].namespace}"
    if wrong:
        return "bad", _list(dict.fromkeys(wrong)), read, command
    return "ok", f"{_count(len(there), 'cluster')} of its rules {'exists' if len(there) == 1 else 'exist'} in {who}", read, command


def _scraped(evidence: Evidence) -> _Found | None:
    """What proxies show to scrapers where nobody may ask which clusters they have: that some warm, or that no istiod is connected."""
    if not evidence.scraped:
        return None
    wrong = [f"{v.proxy} is connected to no istiod" for v in evidence.scraped if v.stats.get("control_plane.connected_state") == 0]
    warm = ((v, int(v.stats.get("cluster_manager.warming_clusters", 0))) for v in evidence.scraped)
    wrong += [f"{_count(n, 'cluster')} of {v.proxy} {'is' if n == 1 else 'are'} still warming" for v, n in warm if n]
    read = [v.source for v in evidence.scraped]
    if wrong:
        return "bad", _list(wrong), read, f"istioctl proxy-config cluster {evidence.scraped[0].proxy}"
    why = next((s.reason for s in evidence.skipped if s.check == "envoy"), "nobody asked")
    return "skipped", f"{why}; the statistics of {_list(v.proxy for v in evidence.scraped)} tell of nothing wrong", read, ""


def _hosts(diagnosis: Diagnosis, *, gateways: bool) -> _Found | None:
    mine = [a for a in diagnosis.live if (a.viewpoint.kind == "gateway") is gateways]
    if not mine:
        return None
    empty = {d.envoy_cluster for r in diagnosis.routes for d in r.destinations if d.share and not d.usable}
    differs = [a for a in mine if not a.agrees]
    lost = [a for a in mine if a.agrees and a.envoy_cluster in empty]
    told = list(dict.fromkeys([*differs, *lost, *mine]))
    pod = f"{told[0].viewpoint.pod}.{told[0].viewpoint.namespace}"
    command = f"istioctl proxy-config endpoint {pod} --cluster '{told[0].envoy_cluster}'"
    proof = dict.fromkeys(f"{a.sentence} ({a.source})" for a in told[1 : 1 + _NAMED])
    return "bad" if differs or lost else "ok", told[0].sentence, (told[0].source, *proof), command


def _status(diagnosis: Diagnosis, evidence: Evidence) -> _Found | None:
    read = [i for i in evidence.istiods if i.proxies is not None]
    if not read:
        return None
    wanted = [(v.cluster, v.proxy) for v in evidence.envoys] or _in_namespaces(diagnosis, read)
    if not wanted:
        return "skipped", f"no proxy of a caller is connected to {_list(i.pod for i in read)}", (), "istioctl proxy-status"
    wrong: list[str] = []
    seen: list[str] = []
    for cluster, proxy in dict.fromkeys(wanted):
        # the control plane of a remote cluster runs in another one, and knows the proxy by the cluster that it is of
        connected = ((i, (i.proxies or {}).get(proxy)) for i in read)
        held = [p for i, p in connected if p is not None and cluster in (i.cluster, p.cluster)]
        if not held and any(i.cluster == cluster for i in read):
            wrong.append(f"{proxy} is connected to no istiod")
        seen += [proxy] if held else []
        wrong += [f"{proxy} {told}" for p in held for told in _behind(p)]
    sources = [
        f"{i.pod} ({i.version or 'version not known'}): {_count(len(i.proxies or ()), 'proxy', 'proxies')}, {i.source}" for i in read
    ]
    if wrong:
        return "bad", _list(dict.fromkeys(wrong)), sources, "istioctl proxy-status"
    if not seen:
        said = f"no istiod was read of the clusters where {_list(dict.fromkeys(p for _, p in wanted))} run{'s' if len(set(wanted)) == 1 else ''}"
        return "skipped", said, sources, "istioctl proxy-status"
    return "ok", f"{_list(seen)} {'has' if len(seen) == 1 else 'have'} all that istiod sent", sources, "istioctl proxy-status"


def _in_namespaces(diagnosis: Diagnosis, read: Sequence[IstiodView]) -> list[tuple[str, str]]:
    callers = {(r.viewpoint.cluster, r.viewpoint.namespace) for r in diagnosis.routes if r.failing_share} or {
        (r.viewpoint.cluster, r.viewpoint.namespace) for r in diagnosis.routes
    }
    return [(i.cluster, p) for i in read for p in i.proxies or () if (i.cluster, p.rpartition(".")[2]) in callers]


def _behind(proxy: ProxySync) -> Iterator[str]:
    """What a proxy does not have of what istiod has for it."""
    for of, state in sorted(proxy.states.items()):
        if state == "ERROR":
            yield f"refused {of}: {proxy.error or 'it does not say why'}"
        elif state == "STALE":
            yield f"has not taken the last {of} (STALE)"
        elif state == "NOT_SENT" and of in {"CDS", "EDS"}:
            yield f"was never sent {of}"


def _push(diagnosis: Diagnosis, evidence: Evidence) -> _Found | None:
    read = [i for i in evidence.istiods if i.status is not None or i.lines is not None or i.growth is not None]
    if not read:
        return None
    host = diagnosis.host
    about = [
        f"{i.pod}: {metric} {key}{f' ({message})' if message else ''}"
        for i in read
        for metric, keys in (i.status or {}).items()
        for key, message in keys.items()
        if host in key or host in message
    ]
    about += [f"{i.pod}: {line.text}" for i in read for line in i.lines or () if host in line.text]
    grown = [
        f"{i.pod}: {name} grew by {by:g} in {i.over_s:.0f} s"
        for i in read
        for name, by in sorted((i.growth or {}).items())
        if by > 0
        and name.startswith(
            ("pilot_total_xds_rejects", "pilot_total_xds_internal_errors", "pilot_xds_write_timeout", "pilot_xds_expired_nonce")
        )
    ]
    sources = [i.source for i in read]
    command = f"kubectl -n {read[0].namespace} logs {read[0].pod} | grep -e 'Push Status' -e 'no endpoints' -e 'ACK ERROR'"
    if about or grown:
        first, *rest = [*about, *grown]
        return "bad", first, [*rest[: 2 * _NAMED], *sources], command
    return "ok", f"nothing about {host} in {_list(i.pod for i in read)}", sources, command


def _logs(diagnosis: Diagnosis, evidence: Evidence) -> _Found | None:
    if not evidence.logs:
        return None
    clusters = {d.envoy_cluster for r in diagnosis.routes for d in r.destinations}
    accesses = [(log, a) for log in evidence.logs for a in log.accesses if accesslog.concerns(a, diagnosis.host, clusters)]
    command = f"kubectl -n {evidence.logs[0].namespace} logs {evidence.logs[0].pod} -c {evidence.logs[0].container}"
    sources = [f"{log.source}: {_count(log.read, 'line')}{', more were there' if log.cut else ''}" for log in evidence.logs]
    if not accesses:
        lines = sum(log.read for log in evidence.logs)
        why = "nobody called it" if lines else "access logs are off, or nobody called"
        return "skipped", f"no call of it in {_count(lines, 'line')}: {why}", sources, command
    failed = sorted(((log, a) for log, a in accesses if fails(a)), key=lambda x: -x[1].count)
    total = sum(a.count for _, a in accesses)
    pace = _pace(total, [log for log, _ in accesses])
    if not failed:
        return "ok", f"{_count(total, 'call')}, none failed{pace}", sources, command
    lost = sum(a.count for _, a in failed)
    log, worst = failed[0]
    flags = ",".join(worst.flags)
    return (
        "bad",
        f"{lost} of {_count(total, 'call')} failed, most with {worst.code}{f' {flags}' if flags else ''}{f' {worst.details}' if worst.details else ''} in {log.proxy}{pace}",
        [*(f"{a.count} x {a.line}" for _, a in failed[:_NAMED] if a.line), *sources],
        command,
    )


def _pace(calls: int, logs: Sequence[AccessLog]) -> str:
    """How many calls a minute that is; empty for logs of less than a minute, of which nothing can be said."""
    begun, ended = min(log.since for log in logs), max(log.until for log in logs)
    minutes = (ended - begun) / 60
    return f"; {calls / minutes:.3g} calls a minute" if begun and minutes >= 1 else ""


def fails(access: Access) -> bool:
    """Whether the calls of an access line failed: an error of server or proxy, or a connection that found nobody."""
    return access.code >= 500 or (access.code == 0 and bool(access.flags)) or bool({"NR", "UH", "NC", "UF"} & set(access.flags))


def _traffic(diagnosis: Diagnosis) -> _Found | None:
    if not diagnosis.traffic:
        return None
    told = sorted(diagnosis.traffic, key=lambda m: (m.agrees is not False, -m.measured, -m.calls))
    first, *rest = [m.sentence if len(told) == 1 else f"{m.cluster}: {m.sentence}" for m in told]
    # what fails on any day is no fault, and neither is a prediction that nobody's calls have met yet
    bad = any(m.measured > NOISE or m.agrees is False for m in told)
    return "bad" if bad else "ok", first, [*rest[: 2 * _NAMED], *(m.source for m in told[:_NAMED])], told[0].command


# --- words -----------------------------------------------------------------------------------------------------------------------


def _parts(envoy_cluster: str) -> tuple[str, str, str]:
    """Port, subset and host of `outbound|80|v1|host`; empty where a name has another form."""
    parts = envoy_cluster.split("|", 3)
    return (parts[1], parts[2], parts[3]) if len(parts) == 4 else ("", "", envoy_cluster)


def _name(destination: Destination) -> str:
    _, subset, host = _parts(destination.envoy_cluster)
    return subset or host


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _count(number: int, noun: str, many: str = "") -> str:
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def _list(words: Iterable[str]) -> str:
    every = list(words)
    rest = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + rest
