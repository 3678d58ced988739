"""The questions: `why` and `diagnose` for one host, `sweep` for all; and the answers' shape.

`sweep(mesh, before)` looks only at the hosts that the difference between two meshes can reach, and equals a full sweep.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from bisect import insort
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace as structs_replace

from checks import foresight, legs, names, standing, when, ztunnel
from checks import routes as resolver
from checks.agreement import Agreement, Real, agreement, real
from checks.answers import Route, Viewpoint
from checks.binding import every_binding, idle
from checks.case import Case, short
from checks.catalogue import CAUSES
from checks.evidence import NOTHING, Evidence
from checks.finding import CUES, LIVE, REGISTRY, CauseCue, Check, Cue, Finding, HostCue, MeshCue, Severity, Skipped, cued
from checks.gatewayapi import NOBODY, named_for_any_host
from checks.mesh import WORKLOADS, Change, Cluster, Mesh, Unreadable, differing
from checks.reach import outward, reach, weighed
from checks.resources import (
    APIGRPCRoute,
    APIHTTPRoute,
    APITLSRoute,
    DestinationRule,
    EndpointSlice,
    MutatingWebhookConfiguration,
    Node,
    OpenShiftRoute,
    Pod,
    ReplicaSet,
    Resource,
    Service,
    Sidecar,
    VirtualService,
    Workload,
    WorkloadEntry,
)
from checks.standing import ABSENT, Standing
from checks.viewpoints import Caller, Evader, Outsider, by_node, callers, callers_of, evaders, node_local, outsiders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import ModuleType

    from checks.istiod import Istiod
    from checks.legs import Hop
    from checks.registry import HostService
    from checks.resources import APIRoute

    _Calling = Caller | Outsider | Evader | Viewpoint

FAMILIES = (
    "subsets",
    "routing",
    "services",
    "entries",
    "gateways",
    "security",
    "visibility",
    "clusters",
    "health",
    "control",
    "siblings",
    "ambient",
)
BY_PERMISSION = frozenset({"gw-tls-secret"})
"""Checks that need more than meshwhy asks for (DESIGN §2, Secrets): that they are skipped makes no verdict unknown."""


class Verdict(StrEnum):
    """DESIGN §2, the worst first."""

    BROKEN = "broken"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    AT_RISK = "at-risk"
    HEALTHY = "healthy"


class ClusterAge(Struct, frozen=True):
    """How fresh a cluster's data is: seconds between its last sign of life and the mesh's instant."""

    name: str
    synced: bool
    age_s: float
    istio: str = ""
    """The Istio of its control planes, `1.28`; empty when nothing says."""
    proxies: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    """What is not known of its Istio and its settings, as sentences without their full stop."""


class Diagnosis(Struct, frozen=True):
    """The answer about one host, as `meshwhy why -o json` prints it. `clean` counts the checks that looked and found nothing."""

    host: str
    verdict: Verdict
    failing_share: float
    routes: tuple[Route, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    clean: int
    clusters: tuple[ClusterAge, ...]
    live: tuple[Agreement, ...] = ()
    port: int | None = None
    """The port that was asked about; None: all of the host's."""
    alike: tuple[tuple[Viewpoint, ...], ...] = ()
    """Callers that hold the same: the first of each stands in `routes` for all of them."""
    outside: str = ""
    """Why the host is in no mesh at all, as a sentence without its full stop; empty where it is in one."""
    traffic: tuple[Real, ...] = ()
    """What was counted of its calls, on all of its ports, from each cluster of which that was read."""
    stands_for: str = ""
    """The host that this one is another name of (a Service of type ExternalName without a rule of its own): what is said of rules is said of that."""
    elsewhere: tuple[Finding, ...] = ()
    """What fails of other hosts' rules that lead here, for what they make of this host: told of under those hosts, which their callers ask for."""


class Stands(Protocol):
    """A host that was looked at."""

    @property
    def standing(self) -> Standing:
        """As which it was seen."""


class Sweep(Struct, frozen=True, dict=True):
    """Every finding of every host, as `meshwhy sweep -o json` prints it; `hosts` is how many were looked at.

    What the next sweep can build on hangs beside the fields (`_Ground`), so that it is no part of the answer.
    """

    hosts: int
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    clusters: tuple[ClusterAge, ...]

    @property
    def owed(self) -> int:
        """How many hosts were left for the next sweep and are told as they were before."""
        ground: _Ground | None = self.__dict__.get("ground")
        return len(ground.owed) if ground is not None else 0

    @property
    def standing(self) -> Mapping[str, Stands]:
        """How each host stands, by its name: the same object for as long as nobody looked at the host again. Empty for a sweep that was told."""
        ground: _Ground | None = self.__dict__.get("ground")
        return reduce(or_, reversed(ground.by_host.maps)) if ground is not None else {}


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a sweep was made of: the mesh, each host as it was looked at, and the callers."""

    mesh: Mesh
    by_host: ChainMap[str, _Looked]
    """Every host, with those that were looked at lately in front: to copy all of them at each event would cost more than the event."""
    telling: dict[str, _Looked]
    """Those of which anything is to be said."""
    blind: tuple[Skipped, ...]
    """The checks that could not look at some host."""
    callers: list[_Calling]
    through: dict[object, set[str]]
    """The hosts that were ever looked at through a service, or a namespace: some of them may not be any more. Sweeps that follow share it."""
    doors: Mapping[str, object]
    """How each mesh beside this one is entered: the addresses, and the gateways."""
    owed: frozenset[str] = frozenset()
    """The hosts that were not looked at again, though something had changed for them."""


class Whatif(Struct, frozen=True, omit_defaults=True):
    """What a change that nobody has made would do, as `meshwhy whatif -o json` prints it."""

    introduced: tuple[Finding, ...]
    resolved: tuple[Finding, ...]
    gone: tuple[str, ...] = ()
    """The hosts that no Service and no ServiceEntry of an istiod would define any more."""


class UnknownHost(LookupError):
    """No mesh knows this host, or several hosts fit the word. `candidates` are FQDNs, the nearest first."""

    def __init__(self, word: str, candidates: tuple[str, ...], *, ambiguous: bool = False) -> None:
        super().__init__(word)
        self.word = word
        self.candidates = candidates
        self.ambiguous = ambiguous


@cache
def registry() -> Mapping[str, Check]:
    """Every check of what the clusters' objects decide, registered by being a file of a family's folder."""
    _load()
    return dict(REGISTRY)


@cache
def live() -> Mapping[str, Check]:
    """Every check of what only running parts can tell, registered likewise."""
    _load()
    return dict(LIVE)


@cache
def _load() -> None:
    for family in FAMILIES:
        package: ModuleType = importlib.import_module(f"checks.{family}")
        for found in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"checks.{family}.{found.name}")


@cache
def pages() -> Mapping[str, str]:
    """The page of each implemented cause, for people: how it comes about, how to see it, how to mend it (its check's docstring)."""
    return {cause: inspect.getdoc(check) or "" for cause, check in {**registry(), **live()}.items()}


# --- hosts ---------------------------------------------------------------------------------------------------------------------


def hosts(mesh: Mesh) -> tuple[str, ...]:
    """Every host of a mesh: of Services, ServiceEntries, VirtualServices and routes, and those that rules lead to."""
    found: dict[str, None] = {}
    for istiod in mesh.control_planes:
        found.update(dict.fromkeys(istiod.once("hosts", lambda i=istiod: _hosts(i))))  # type: ignore[misc]
    return tuple(found)


def swept(mesh: Mesh) -> tuple[str, ...]:
    """The hosts that a sweep looks at: all but those that are nothing but led to, whose faults are those of the hosts that lead there."""
    found: dict[str, bool] = {}
    for istiod in mesh.control_planes:
        for host, alone in istiod.once("hosts", lambda i=istiod: _hosts(i)).items():  # type: ignore[misc]
            found[host] = found.get(host, False) or alone
    return tuple(h for h, alone in found.items() if alone)


def _hosts(istiod: Istiod) -> dict[str, bool]:
    """The hosts that a control plane knows of, and whether they are looked at for themselves; what only `*` leads to is."""
    found = dict.fromkeys((*(s.hostname for s in istiod.services), *istiod.undiscovered), True)
    for r in istiod.rulesets:
        found.update({h.lower(): True for h in r.hosts if h != "*"})
    found.update({h: True for h, _ in istiod.narrowed})
    for r in istiod.rulesets:
        for to in r.leads:
            if to not in ("", NOBODY) and to not in found:
                found[to] = not set(istiod.leading(to)) - {"*"}
    for host in named_for_any_host(istiod):
        found.setdefault(host, True)
    for kind in (APIHTTPRoute, APIGRPCRoute, APITLSRoute):  # those that no gateway accepts as well
        for route in istiod.all(kind):
            found.update({h.lower(): True for h in cast("APIRoute", route).spec.hostnames or ()})
    for host in _foreign(istiod):
        found.setdefault(host, True)
    return found


def _foreign(istiod: Istiod) -> Iterator[str]:
    """The hosts outside of the clusters that DestinationRules and Sidecars name: somebody means to call them, whether anything defines them or not."""
    named = [r.spec.host for r in istiod.all(DestinationRule) if isinstance(r, DestinationRule)]
    egress = (h for s in istiod.all(Sidecar) if isinstance(s, Sidecar) for e in s.spec.egress or () for h in e.hosts or ())
    named += [h.rpartition("/")[2] for h in egress if not h.startswith("~")]
    for host in named:
        inside = host.endswith((".svc", f".{names.DOMAIN}")) or f"{host}.svc.{names.DOMAIN}" in istiod.by_host
        if "." in host and "*" not in host and not inside and not names.is_ip(host):
            yield host.lower()


def port_of(word: str) -> int | None:
    """The port that a person names behind a host: `payments.core:8443`; None without one."""
    port = word.strip().partition(":")[2]
    return int(port) if port.isdigit() else None


def ports(host: str, meshes: Iterable[Mesh]) -> list[int]:
    """Every port of a host, of objects that define it (those that istiod drops as well) and of rules that take it, gateways' included."""
    found: set[int] = set()
    for mesh in meshes:
        case = Case.of(host, mesh)
        found.update(s.port for s in case.steps)
        for istiod in mesh.control_planes:
            found.update(p.number for s in istiod.by_host.get(host, ()) for p in s.ports)
            found.update(p.number for e in case.entries(istiod, host) for p in e.spec.ports or ())
        name, _, rest = host.partition(".")
        kept = (
            c.get(Service, rest.partition(".")[0], name) for c in mesh.clusters if host == names.service_host(name, rest.partition(".")[0])
        )
        found.update(p.port for s in kept if s is not None for p in s.spec.ports)
        found.update(b.server.port.number for b in every_binding(case) if b.server is not None)
    return sorted(found)


def resolve(word: str, meshes: Sequence[Mesh]) -> list[tuple[str, Mesh]]:
    """The host that a person means, in each mesh that has it: a short name, `name.namespace`, an FQDN, with an optional `:port`.

    A name that only a host with a star takes (`*.example.com`) is that host.

    Raises UnknownHost with the nearest candidates, or with all that fit an ambiguous word.
    """
    spelled = [(m, _spelled(m)) for m in meshes]
    found = _fitting(word, spelled)
    return found if found is not None else _unknown(word, (h for m in meshes for h in hosts(m)))


def fitting(word: str, known: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """As `resolve`, of the hosts of meshes by their names."""
    found = _fitting(word, [(mesh, _index(of)) for mesh, of in known.items()])
    return found if found is not None else _unknown(word, (h for of in known.values() for h in of))


_Spelled = tuple[dict[str, list[str]], dict[str, list[str]]]
_M = TypeVar("_M")


def _fitting(word: str, spelled: Sequence[tuple[_M, _Spelled]]) -> list[tuple[str, _M]] | None:
    """Where a word is a host's name or short for one; raises UnknownHost where it is short for several."""
    wanted = _wanted(word)
    exact = [(h, m) for m, (whole, _) in spelled for h in whole.get(wanted, ())]
    if exact:
        return exact
    near = [(h, m) for m, (_, shortened) in spelled for h in shortened.get(wanted, ())]
    different = tuple(dict.fromkeys(h for h, _ in near))
    if len(different) > 1:
        raise UnknownHost(word, different, ambiguous=True)
    return near or _taken_by_pattern(wanted, spelled) or None


def _taken_by_pattern(wanted: str, spelled: Sequence[tuple[_M, _Spelled]]) -> list[tuple[str, _M]]:
    """The narrowest host with a star that takes a name, where there is one; a Service that does not exist is taken by none, since DNS has no such name."""
    if wanted.endswith(f".svc.{names.DOMAIN}"):
        return []
    for start in range(1, len(wanted)):
        if found := [(h, m) for m, (whole, _) in spelled for h in whole.get(f"*{wanted[start:]}", ())]:
            return found
    return []


def _wanted(word: str) -> str:
    wanted, _, port = word.strip().lower().partition(":")
    return wanted.rstrip(".") if not port or port.isdigit() else word.strip().lower()


def _unknown(word: str, known: Iterable[str]) -> NoReturn:
    raise UnknownHost(word, names.nearest(_wanted(word), dict.fromkeys(known)))


def _spelled(mesh: Mesh) -> _Spelled:
    """The hosts of a mesh by their lower-case names, and those of Services by how people shorten these."""
    return mesh.once("spelled", mesh.control_planes, lambda: _index(hosts(mesh)))


def _index(known: Iterable[str]) -> _Spelled:
    whole: dict[str, list[str]] = {}
    short_: dict[str, list[str]] = {}
    suffix = f".svc.{names.DOMAIN}"
    for h in known:
        whole.setdefault(h.lower(), []).append(h)
        if h.endswith(suffix):
            for spelling in dict.fromkeys(_spellings(h.removesuffix(suffix))):
                short_.setdefault(spelling, []).append(h)
    return whole, short_


def _spellings(short: str) -> tuple[str, ...]:
    return short.partition(".")[0], short, f"{short}.svc"


# --- one host --------------------------------------------------------------------------------------------------------------------


def why(word: str, meshes: Sequence[Mesh], evidence: Evidence = NOTHING) -> Diagnosis:
    """The diagnosis of the host that a person means, over all meshes that have it; the worst of them gives the verdict.

    `evidence` is what was read of running parts: what they show counts as what the objects decide does, and what could not be read is skipped.
    With a port it is about that port alone. Raises UnknownHost; of a host that has no such port, its candidates are the host's ports.
    """
    port = port_of(word)
    named = resolve(word, meshes)
    parts = [_followed(diagnose(host, mesh, port, evidence), mesh, evidence) for host, mesh in named]
    if port is not None and not any(d.routes or d.skipped or any(f.failing_share for f in d.findings) for d in parts):
        _has_port(word, port, named)
    return _together(parts)


def _has_port(word: str, port: int, named: Sequence[tuple[str, Mesh]]) -> None:
    """Raises UnknownHost with a host's ports where this is none of them."""
    host = named[0][0]
    known = ports(host, (m for _, m in named))
    if known and port not in known:
        raise UnknownHost(word, tuple(f"{host}:{n}" for n in known))


def _followed(named: Diagnosis, mesh: Mesh, evidence: Evidence) -> Diagnosis:
    """What is said of a host whose calls are another one's: where no rule has its name, istiod puts it among the names of that one's rules.

    resolveServiceAliases (pilot/pkg/model/push_context.go), generateVirtualHostDomains (pilot/pkg/networking/core/httproute.go).
    """
    target = None if named.routes else _stands_for(mesh, named.host)
    if target is None or named.failing_share:
        return named
    there = diagnose(target, mesh, named.port, evidence)
    return structs_replace(
        there,
        host=named.host,
        stands_for=target,
        findings=once((*named.findings, *there.findings)),
        skipped=tuple(dict.fromkeys((*named.skipped, *there.skipped))),
        clean=min(named.clean, there.clean),
    )


def _stands_for(mesh: Mesh, host: str) -> str | None:
    return next((target.hostname for i in mesh.control_planes if (target := i.stands_for(host)) is not None), None)


def _together(parts: list[Diagnosis]) -> Diagnosis:
    if len(parts) == 1:
        return parts[0]
    order = list(Verdict)
    worst = min(parts, key=lambda d: (order.index(d.verdict), -d.failing_share))
    return Diagnosis(
        host=worst.host,
        verdict=worst.verdict,
        failing_share=max(d.failing_share for d in parts),
        routes=tuple(r for d in parts for r in d.routes),
        findings=once(f for d in parts for f in d.findings),
        skipped=tuple(dict.fromkeys(s for d in parts for s in d.skipped)),
        clean=min(d.clean for d in parts),
        clusters=tuple(dict.fromkeys(c for d in parts for c in d.clusters)),
        live=tuple(dict.fromkeys(a for d in parts for a in d.live)),
        port=worst.port,
        alike=tuple(a for d in parts for a in d.alike),
        outside=next((d.outside for d in parts), "") if all(d.outside for d in parts) else "",
        traffic=tuple(dict.fromkeys(m for d in parts for m in d.traffic)),
        stands_for=worst.stands_for,
        elsewhere=once(f for d in parts for f in d.elsewhere),
    )


def diagnose(host: str, mesh: Mesh, port: int | None = None, evidence: Evidence = NOTHING) -> Diagnosis:
    """What callers of one host get, on all of its ports or on one, and why; with `evidence`, what running parts show of it as well."""
    case = Case.of(host, mesh, port)
    looked = _proved(case, _look_at(case), lambda _: None, _WIDEST, {})
    asked = set(registry())
    if evidence:
        asked |= {cause for cause in live() if evidence.tells(CAUSES[cause].decided_by)}
        case.evidence = evidence.latest()
        looked = _look_live(case, looked)
    around = [mesh, *(m for m in mesh.neighbours if m.name in looked.abroad)]
    skipped = (*(s for m in around for s in _unread(m)), *looked.skipped)
    failing = looked.failing
    routes = tuple(r for v in case.views for r in v.routes if case.asked(r.port))
    alike = tuple(v.callers.viewpoints for v in case.views if len(v.callers.viewpoints) > 1)
    decided = [f for f in looked.findings if f.cause in registry()]
    counted = [t for t in evidence.traffic if t.host == host and t.cluster in {c.name for c in mesh.clusters}]
    return Diagnosis(
        host=host,
        verdict=_verdict(host, around, looked, failing),
        failing_share=failing,
        routes=(*routes, *dict.fromkeys(r for c in looked.onward for v in c.views for r in v.routes if r not in routes)),
        findings=looked.findings,
        skipped=(*skipped, *(s for s in evidence.skipped if s.cluster in {c.name for m in around for c in m.clusters})),
        clean=len(asked - {f.cause for f in looked.findings} - {s.check for s in looked.skipped}),
        clusters=tuple(a for m in around for a in _ages(m)),
        live=tuple(_beside(host, mesh, evidence)),
        port=port,
        alike=alike,
        outside="" if case.views else _outside(host, mesh),
        traffic=tuple(real(host, t, routes, decided, alike) for t in counted),
        elsewhere=once(_elsewhere(case, looked.findings)),
    )


_NEAR = 20
"""Hosts that lead to another one of which is looked whether they lose requests there."""


def _elsewhere(case: Case, found: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of hosts whose rules lead to a service, about destinations there that fail, as far as the service's own do not tell of them."""
    planes = [i for i in case.mesh.control_planes if i.by_host.get(case.host)]
    leading = dict.fromkeys(h.lower() for i in planes for h in i.leading(case.host) if h not in ("*", case.host))
    told = {(f.cause, f.cluster, f.resource) for f in found}
    for host in [*leading][:_NEAR]:
        other = Case.of(host, case.mesh)
        causes = {other.why(b) for b in other.failing() if b.upstream.host == case.host and case.asked(b.upstream.port)}
        if causes:
            felt = (f for f in _look_at(other).findings if f.cause in causes and f.failing_share)
            yield from (structs_replace(f, patch=None) for f in felt if (f.cause, f.cluster, f.resource) not in told)


def _beside(host: str, mesh: Mesh, evidence: Evidence) -> Iterator[Agreement]:
    """What live Envoys of a mesh hold of a host, beside what was predicted for each of them."""
    for view in evidence.envoys:
        if any(view.cluster in (c.name, mesh.cluster_id(c)) for c in mesh.clusters):
            yield from agreement(list(_routes_as(mesh, f"{view.cluster}:{view.namespace}/{view.pod}", {host})), view)


def _outside(host: str, mesh: Mesh) -> str:
    for istiod in mesh.control_planes:
        if host in istiod.undiscovered:
            where, service = istiod.undiscovered[host]
            why = "no member roll names it" if mesh.cluster(where).members is not None else "no discoverySelector selects it"
            return f"it is in no mesh: {why}, the namespace of {service}"
    return ""


def _verdict(host: str, meshes: Sequence[Mesh], looked: _Looked, failing: float) -> Verdict:
    if failing >= 1 - 1e-9:
        return Verdict.BROKEN
    if failing > 0:
        return Verdict.DEGRADED
    namespace = host.split(".")[1] if host.endswith(f".svc.{names.DOMAIN}") else ""
    clusters = [c for m in meshes for c in m.clusters]
    blind = any(c.missing or not c.synced for c in clusters) or any(m.misread(c) for m in meshes for c in m.clusters)
    blind = blind or any(k.check not in BY_PERMISSION for k in looked.skipped)
    if blind or any(f" {namespace}/" in m.ref for c in clusters for m in c.malformed if namespace):
        return Verdict.UNKNOWN
    if any(f.severity is Severity.WARNING for f in looked.findings):
        return Verdict.AT_RISK
    return Verdict.HEALTHY


def _unread(mesh: Mesh) -> tuple[Skipped, ...]:
    out: list[Skipped] = []
    for c in mesh.clusters:
        for kind, reason in sorted(c.unreadable.items()):
            out.append(Skipped("*", c.name, reason if kind == "*" else f"{kind} cannot be read: {reason}"))
        if not c.synced and "*" not in c.unreadable:
            out.append(Skipped("*", c.name, "not everything has been read yet"))
        out += [Skipped("*", c.name, f"{m.ref} cannot be understood: {m.reason}") for m in c.malformed]
        if fault := mesh.misread(c):
            out.append(Skipped("*", c.name, fault))
    return tuple(out)


def _ages(mesh: Mesh) -> tuple[ClusterAge, ...]:
    return tuple(ClusterAge(c.name, c.synced, round(max(0.0, mesh.read_at - c.read_at), 3), *mesh.istio(c)) for c in mesh.clusters)


class _Looked(Struct, frozen=True, eq=False):
    """One host looked at: what was found, and what it was looked at through, so that a change knows whom it reaches.

    `services` are those whose endpoints decide what callers hold. Why a host is ill may stand anywhere in their `namespaces`.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    services: frozenset[tuple[str, str]]
    namespaces: frozenset[str]
    lost: float
    """The part of a rule's requests that clusters and endpoints lose, here or behind a gateway that it leads to, of the rule where it is largest."""
    abroad: Mapping[str, tuple[frozenset[tuple[str, str]], frozenset[str]]]
    """The other meshes that calls go on into: their services and namespaces that were looked at."""
    onward: tuple[Case, ...] = ()
    """The gateways that calls go on to, as they have the host."""
    standing: Standing = ABSENT

    @property
    def failing(self) -> float:
        """The part of the requests that fails, of the worst rule or finding."""
        return max([self.lost, *[f.failing_share for f in self.findings]])


_THROUGH = " Calls of "
_FAR = 6
"""Gateways that a call is followed through: more of them are a circle."""


def _look(names_: Iterable[str], mesh: Mesh, known: Callable[[str], _Looked | None], *, widest: int) -> dict[str, _Looked]:
    """Hosts looked at for a sweep, which keeps nothing of them but what the next one needs; `known` is what another host looks like."""
    looked: dict[str, _Looked] = {}
    suggesting: list[Case] = []
    for host in names_:
        case = Case.of(host, mesh)
        seen = _look_at(case)
        looked[host] = structs_replace(seen, onward=(), standing=standing.of(case, seen.findings, seen.failing))
        if seen.findings and any(f.patch for f in seen.findings):
            suggesting.append(case)
    suggesting.sort(key=lambda case: [f.patch or "" for f in looked[case.host].findings])  # what one change mends together
    trials: dict[str, _Trial] = {}
    for case in suggesting:
        looked[case.host] = _proved(case, looked[case.host], lambda host: looked.get(host) or known(host), widest, trials)
    return looked


def _look_at(case: Case, depth: int = 0) -> _Looked:
    """What every check says of a host; no patch is proved yet."""
    mesh = case.mesh
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    far: list[tuple[Hop, _Looked]] = []
    try:
        far = list(_further(case, depth))
    except Unreadable as error:
        skipped.append(Skipped("egress-chain-broken", error.cluster, f"{error.kind} cannot be read: {error.reason}"))
    for cause, check in _due(case):
        _run(cause, check, case, findings, skipped)
    alone = node_local(mesh, case.host)
    services = {*case.read, *case.also, *alone}
    services.update([(u.service.hostname, u.service.namespace) for u in case.upstreams if u.service is not None])
    for i in mesh.control_planes:
        services.update([(s.hostname, s.namespace) for s in i.by_host.get(case.host, ())])
    # what each of them holds depends on the nodes where their pods run
    namespaces = {c.viewpoint.namespace for c in callers_of(mesh, case.host)} if alone else set()
    abroad = {name: (frozenset(theirs), frozenset[str]()) for name, theirs in case.abroad.items()}
    for hop, looked in far:
        skipped += looked.skipped
        entered = looked.services | {(names.service_host(hop.service.name, hop.service.namespace), hop.service.namespace)}
        for name, (theirs, spaces) in ((hop.mesh.name, (entered, looked.namespaces)), *looked.abroad.items()):
            if name == mesh.name:
                services |= theirs
                namespaces |= spaces
            else:
                known = abroad.get(name, (frozenset[tuple[str, str]](), frozenset[str]()))
                abroad[name] = known[0] | theirs, known[1] | spaces
    if far:
        findings += _told(case, far)
    said = once(findings)
    if said or case.failing_share:
        namespaces.update(ns for _, ns in services)
    beyond = legs.share((h, looked.failing) for h, looked in far) if far else 0.0
    for h, looked in far:
        case.miss(h.branch, h, h.part * looked.failing)
    return _Looked(
        said,
        tuple(dict.fromkeys(skipped)) if skipped else (),
        case.read if len(services) == len(case.read) else frozenset(services),
        frozenset(namespaces),
        max(case.losing_share, beyond),
        abroad,
        (*([case] if depth else ()), *[c for _, looked in far for c in looked.onward]),
    )


def _run(cause: str, check: Check, case: Case, findings: list[Finding], skipped: list[Skipped]) -> None:
    """Add what a check finds, or why it could not look."""
    try:
        findings += check(case)
    except Unreadable as error:
        if "*" not in _cluster(case.mesh, error.cluster).unreadable:  # a cluster that is lost as a whole is said once, for all checks
            skipped.append(Skipped(cause, error.cluster, f"{error.kind} cannot be read: {error.reason}"))
    except Exception as error:  # noqa: BLE001 - DESIGN §6: one broken check never stops the rest
        skipped.append(Skipped(cause, case.mesh.clusters[0].name, f"the check itself failed: {type(error).__name__}: {error}"))


def _look_live(case: Case, looked: _Looked) -> _Looked:
    """What the checks of evidence say beside what the objects decide; what Envoys and istiods show explains what is only measured."""
    case.found = looked.findings
    skipped: list[Skipped] = []
    for deciding in ({"envoy", "istiod"}, {"telemetry"}):
        findings: list[Finding] = []
        for cause, check in live().items():
            if CAUSES[cause].decided_by in deciding:
                _run(cause, check, case, findings, skipped)
        case.found = once([*case.found, *findings])
    return structs_replace(looked, findings=case.found, skipped=(*looked.skipped, *skipped))


def _due(case: Case) -> Iterator[tuple[str, Check]]:
    """The checks that have something to look at; all of them where anything could not be read."""
    every = registry()
    if not when.readable(case.mesh):
        yield from every.items()
        return
    of_mesh, of_host = _cues()
    general = case.mesh.now("cues", lambda: tuple([cue for cue in of_mesh if cue(case)]))
    named = [cue for i in case.mesh.every_plane() for cue in cued(i).get(case.host.lower(), ())]
    blamed = map(CauseCue, case.causes) if case.failing() else ()
    for cause in _waiting((*general, *named, *[cue for cue in of_host if cue(case)], *blamed)):
        yield cause, every[cause]


@cache
def _cues() -> tuple[list[Cue], list[Cue]]:
    """Every cue once: those about the mesh, and those that each host is asked for."""
    every = dict.fromkeys(cue for cues in CUES.values() for cue in cues)
    return [c for c in every if isinstance(c, MeshCue)], [c for c in every if not isinstance(c, MeshCue | HostCue | CauseCue)]


@cache
def _waiting(cues: tuple[Cue, ...]) -> tuple[str, ...]:
    """The checks that wait for any of these cues, or for none."""
    return tuple(cause for cause in registry() if cause not in CUES or not set(cues).isdisjoint(CUES[cause]))


def _cluster(mesh: Mesh, name: str) -> Cluster:
    """A cluster of a mesh or of those beside it."""
    return next(c for m in (mesh, *mesh.neighbours) for c in m.clusters if name in (c.name, m.cluster_id(c)))


def _further(case: Case, depth: int) -> Iterator[tuple[Hop, _Looked]]:
    """What is found behind each gateway that the host's rules lead to, as far as it is about these calls."""
    for hop in legs.hops(case) if depth < _FAR else ():
        beyond = legs.further(hop)
        if beyond is None:
            continue
        looked = _look_at(beyond, depth + 1)
        case.proposals.update({patch: p._replace(sure=False) for patch, p in beyond.proposals.items()})  # it saw one hop's callers only
        mine = tuple(f for f in looked.findings if f.failing_share and legs.concerns(hop, f.viewpoints, f.resource, f.path))
        if mine:
            case.named.add(id(hop))
        yield hop, structs_replace(looked, findings=mine)


def _told(case: Case, far: Iterable[tuple[Hop, _Looked]]) -> Iterator[Finding]:
    """The faults behind gateways as faults of the host that leads there: each under its own name, with the legs as evidence."""
    groups: dict[tuple[str, str, str, str], list[tuple[Hop, Finding]]] = {}
    for hop, looked in far:
        for f in looked.findings:
            groups.setdefault((f.cluster, f.cause, f.resource, f.path), []).append((hop, f))
    for group in groups.values():
        hop, f = max(group, key=lambda g: g[1].failing_share)
        share = legs.share((h, x.failing_share) for h, x in group)
        branches = [h.branch for h, _ in group]
        message, _, on = f.message.partition(_THROUGH)
        way = f"{hop.way}, then {on.partition(' come to it through ')[2]}" if on else f"{hop.way}."
        said = f"{_THROUGH}{short(case.host)} in {case.cluster_of(hop.branch)} come to it through {way}"
        yield structs_replace(
            f,
            host=case.host,
            viewpoints=case.viewpoints(branches),
            failing_share=share,
            message=message + said,
            evidence=legs.numbered(hop, f.evidence),
        )


def once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings of one cause in one place about one host as one: for all of their callers, with the largest share and what each has seen."""
    groups: dict[tuple[str, str, str, str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.cluster, f.cause, f.resource, f.path, f.host), []).append(f)
    if not groups:
        return ()
    made = []
    for first, *rest in groups.values():
        if not rest:
            made.append(first)
            continue
        farthest = max((first, *rest), key=lambda f: sum(e.startswith("leg ") for e in f.evidence))
        evidence = dict.fromkeys((*farthest.evidence, *(e for f in (first, *rest) for e in f.evidence if not e.startswith("leg "))))
        viewpoints = tuple(dict.fromkeys(v for f in (first, *rest) for v in f.viewpoints))
        share = max(f.failing_share for f in (first, *rest))
        worst = structs_replace(farthest, failing_share=share, evidence=tuple(evidence), viewpoints=viewpoints)
        made.append(structs_replace(worst, severity=Severity.ERROR if share > 0 else first.severity))
    return _ordered(made)


# --- patches ---------------------------------------------------------------------------------------------------------------------

_WIDEST, _WIDE = 1000, 64
"""Hosts that a patch may reach and still be tried, by `why` and by a sweep, where many hosts may be ill of one thing; one that reaches more is not shown."""
_LARGE = 1000
"""Hosts of a mesh whose sweep leaves out the patches that only `why` has the time to prove."""


def _widest(hosts: int) -> int:
    """How many hosts a patch may reach to be tried by the sweep of a mesh with so many."""
    return _WIDE if hosts <= _LARGE else 0


class _Trial(NamedTuple):
    """A change that was tried: the meshes after it, the hosts that it may reach with the place of their mesh, and what those look like."""

    after: tuple[Mesh, ...]
    reached: set[tuple[int, str]]
    looked: dict[tuple[int, str], _Looked]


def _tried(before: Sequence[Mesh], change: Change) -> _Trial:
    after = _imagined(before, [change])
    return _Trial(after, set(_near(before, after, change)), {})


def _proved(case: Case, looked: _Looked, known: Callable[[str], _Looked | None], widest: int, trials: dict[str, _Trial]) -> _Looked:
    """The findings with only those patches that mend what they are for and break nothing, as the meshes after them show.

    `known` is what another host of the mesh looks like, where somebody has looked. A patch that may reach more than `widest` hosts is not tried.
    `trials` keeps what the last patch was tried on: one change often mends many hosts.
    """
    if not any(f.patch for f in looked.findings):
        return looked
    read: list[tuple[Mesh, _Looked]] = []
    findings: list[Finding] = []
    for f in looked.findings:
        proposal = case.proposals.get(f.patch or "")
        sure = proposal is not None and proposal.sure and not case.missed  # what is sure of routes alone says nothing of the rest
        if proposal is not None and not sure and widest and f.patch not in trials:
            trials.clear()  # one mesh beside those that are there is enough
            trials[f.patch or ""] = _tried((case.mesh, *case.mesh.neighbours), proposal.change)
        proved = proposal is not None and (sure or (widest > 0 and _mends(case, looked, f, trials[f.patch or ""], known, read, widest)))
        findings.append(f if proved or f.patch is None else structs_replace(f, patch=None))
    services, namespaces, abroad = set(looked.services), set(looked.namespaces), dict(looked.abroad)
    for mesh, at in read:
        if mesh is case.mesh:
            services |= at.services
            namespaces |= at.namespaces
        else:
            theirs = abroad.get(mesh.name, (frozenset[tuple[str, str]](), frozenset[str]()))
            abroad[mesh.name] = theirs[0] | at.services, theirs[1] | at.namespaces
    return structs_replace(looked, findings=tuple(findings), services=frozenset(services), namespaces=frozenset(namespaces), abroad=abroad)


def _mends(
    case: Case,
    looked: _Looked,
    finding: Finding,
    trial: _Trial,
    known: Callable[[str], _Looked | None],
    read: list[tuple[Mesh, _Looked]],
    widest: int,
) -> bool:
    """Whether a change takes a finding away and introduces none, at this host and at every other; what that was read from is added."""
    before, after = (case.mesh, *case.mesh.neighbours), trial.after
    others = trial.reached - ({(0, case.host)} if case.port is None else set())
    if len(others) > widest:
        return False
    then = Case.of(case.host, after[0], case.port)
    new = _look_at(then)
    read.append((case.mesh, new))
    kept = _served(case) <= _served(then) or case.host not in hosts(after[0])
    if not kept or _times(finding, new) >= _times(finding, looked) or _worse(looked, new):
        return False
    for i, host in sorted(others):
        if (i, host) not in trial.looked:
            trial.looked[i, host] = _look_at(Case.of(host, after[i]))
        new = trial.looked[i, host]
        read.append((before[i], new))
        if new.findings or new.skipped or new.lost:
            old = (known(host) if i == 0 else None) or _look_at(Case.of(host, before[i]))
            read.append((before[i], old))
            if _worse(old, new):
                return False
    return True


def _near(before: Sequence[Mesh], after: Sequence[Mesh], change: Change) -> Iterator[tuple[int, str]]:
    """The hosts that a change may reach, with the place of their mesh."""
    for i, (was, now) in enumerate(zip(before, after, strict=True)):
        changes = foresight.foreseen(was, _within(was, [change]))
        yield from ((i, host) for host in (reach(was, now, changes, hosts) if changes else outward(was)))


def _within(mesh: Mesh, changes: Iterable[Change]) -> list[Change]:
    """Those changes that are of a mesh's own clusters."""
    return [c for c in changes if c.cluster in {x.name for x in mesh.clusters}]


def _imagined(meshes: Iterable[Mesh], changes: Sequence[Change]) -> tuple[Mesh, ...]:
    """Meshes after changes that nobody has made, with what Kubernetes would make of them."""
    return Mesh.beside(m.imagine(foresight.foreseen(m, _within(m, changes))) for m in meshes)


def _times(finding: Finding, looked: _Looked) -> int:
    """How often a host has a finding: two rules of one object may have it each."""
    return sum(_identity(f) == _identity(finding) for f in looked.findings)


def _served(case: Case) -> set[tuple[str, str, str, int]]:
    """On which ports which callers have rules for the host."""
    return {(v.cluster, v.kind, v.namespace, s.port) for view in case.views for v in view.callers.viewpoints for s in view.steps}


def _worse(old: _Looked, new: _Looked) -> bool:
    """Whether somebody is harmed who was not harmed before, or more, or cannot be looked at any more."""
    before: dict[object, tuple[int, float]] = {}
    for f in old.findings:
        before[_identity(f)] = max(_badness(f), before.get(_identity(f), _badness(f)))
    serious = [f for f in new.findings if f.severity is not Severity.INFO]
    explained = min(old.lost, sum(f.failing_share for f in serious))
    blind = not set(new.skipped) <= set(old.skipped)
    return blind or new.lost > explained + 1e-6 or any(_identity(f) not in before or _badness(f) > before[_identity(f)] for f in serious)


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first: severity, then share, then by name."""
    return tuple(sorted(findings, key=_place))


def _place(f: Finding) -> tuple[object, ...]:
    return _RANK[f.severity], -f.failing_share, f.host, f.code, f.resource, f.path


_RANK = {severity: place for place, severity in enumerate(Severity)}


# --- all hosts -------------------------------------------------------------------------------------------------------------------


def sweep(mesh: Mesh, before: Sweep | None = None, *, most: int | None = None) -> Sweep:
    """Every finding of every host; with an earlier sweep, only what changed since is looked at again.

    Where more than `most` hosts are to be looked at again, the others are `owed` by the next sweep: of a storm, something is known soon.
    """
    around: list[_Calling] = [*callers(mesh), *outsiders(mesh), *evaders(mesh), *idle(mesh), *ztunnel.callers(mesh)]
    doors = {m.name: (legs.doors(m), [c for c in callers(m) if c.viewpoint.kind == "gateway"]) for m in mesh.neighbours}
    ground: _Ground | None = before.__dict__.get("ground") if before is not None else None
    moved = ground is not None and ground.callers != around
    same = ground is not None and ground.doors == doors and (not moved or [*map(_seen, ground.callers)] == [*map(_seen, around)])
    stale = _touched(ground.mesh, mesh) if ground is not None and same else None
    owed: frozenset[str] = frozenset()
    if before is None or ground is None or stale is None:
        through: dict[object, set[str]] = {}
        known = swept(mesh)
        looked = _look(known, mesh, lambda _: None, widest=_widest(len(known)))
        by_host, telling, said, blind = ChainMap(looked), dict[str, _Looked](), list[Finding](), None
    else:
        through = ground.through
        again = _again(ground, mesh, stale, around)
        again, owed = again[:most], frozenset(again[most:]) if most is not None else owed
        left = owed  # what they looked like before is no measure for a patch
        looked = _look(again, mesh, lambda host: None if host in left else ground.by_host.get(host), widest=_widest(before.hosts))
        by_host, telling = _over(ground.by_host, looked), ground.telling
        was = [telling[host] for host in looked if host in telling]
        gone = {id(f) for at in was for f in at.findings}
        said = [f for f in before.findings if id(f) not in gone]  # which stand in order already
        blind = ground.blind if not any(at.skipped for at in (*was, *looked.values())) else None
        if was:
            telling = {host: at for host, at in telling.items() if host not in looked}
    for host, at in looked.items():
        abroad = (
            key for name, (theirs, spaces) in at.abroad.items() for key in _keys({name: _Touched({*theirs}, {*spaces}, set())}, whole=True)
        )
        for what in (*at.services, *at.namespaces, *abroad):
            through.setdefault(what, set()).add(host)
    told = {host: at for host, at in looked.items() if at.findings or at.skipped}
    telling = telling | told
    new = _ordered(f for at in told.values() for f in at.findings)
    if said:
        for f in new:
            insort(said, f, key=_place)
    if blind is None:
        blind = tuple(sorted({s for at in telling.values() for s in at.skipped}, key=lambda s: (s.check, s.cluster, s.reason)))
    made = Sweep(len(by_host.maps[-1]), tuple(said) or new, (*_unread(mesh), *blind), _ages(mesh))
    made.__dict__["ground"] = _Ground(mesh, by_host, telling, blind, around, through, doors, owed)
    return made


_FEW = 256
"""Hosts that are kept in front of all others before they are put among them."""


def _over(known: ChainMap[str, _Looked], looked: dict[str, _Looked]) -> ChainMap[str, _Looked]:
    """All hosts, some of which were looked at again."""
    *lately, every = known.maps
    front = {**(lately[0] if lately else {}), **looked}
    return ChainMap(front, every) if len(front) <= _FEW else ChainMap({**every, **front})


def _again(ground: _Ground, mesh: Mesh, stale: _Touched, around: Sequence[_Calling]) -> list[str]:
    """The hosts that have to be looked at again after some events, in order."""
    both = zip(ground.callers, around, strict=True) if ground.callers != around else ()
    others = {a.viewpoint for a, b in both if a is not b and a != b and isinstance(a, Caller)}
    away = {new.name: _touched(old, new) for old, new in zip(ground.mesh.neighbours, mesh.neighbours, strict=True)}
    away = {name: None if touched is None or touched.hosts else touched for name, touched in away.items()}  # other rules there
    near = set().union(*(ground.through.get(what, ()) for what in (*stale.services, *stale.namespaces, *_keys(away))))
    again = {host for host in near if host not in ground.owed and not _spared(ground.by_host[host], stale, away)}
    if stale.hosts:
        again.update(h for h in ground.by_host.maps[-1] if h.lower() in stale.hosts)
        if len(ground.by_host.maps[-1]) <= _LARGE:  # where a patch is tried on other hosts, whether it is shown may hang on their weights
            again.update(h for h, at in ground.telling.items() if at.findings)
    if others:  # what was said of the pod before is not to be said any more
        again.update(h for h, at in ground.telling.items() if any(not others.isdisjoint(f.viewpoints) for f in at.findings))
    return sorted(again | ground.owed)


def _seen(who: _Calling) -> object:
    return who.seen if isinstance(who, Caller) else who


def _keys(away: Mapping[str, _Touched | None], *, whole: bool = False) -> Iterator[object]:
    """Under what the hosts are kept that lead into other meshes: a mesh as a whole, a service or a namespace of it."""
    for name, touched in away.items():
        if touched is None or whole:
            yield name, None
        for what in (*touched.services, *touched.namespaces) if touched is not None else ():
            yield name, what


def _spared(looked: _Looked, stale: _Touched, away: Mapping[str, _Touched | None]) -> bool:
    """Whether nothing differs that a host was looked at through, in its own mesh and in those that its calls go on into."""
    for name, (services, namespaces) in looked.abroad.items():
        touched = away[name]
        if touched is None or not (touched.services.isdisjoint(services) and touched.namespaces.isdisjoint(namespaces)):
            return False
    return stale.spares(looked)


_OF_NAMESPACE: tuple[type[Resource], ...] = (*WORKLOADS, Pod, ReplicaSet, WorkloadEntry)


class _Touched(NamedTuple):
    """What differs between two meshes whose configuration differs in weights at most: (host, namespace) of services, all namespaces with any
    difference, and the hosts, in lower case, that those weights may mean something to.
    """  # noqa: D205 - one sentence

    services: set[tuple[str, str]]
    namespaces: set[str]
    hosts: set[str]

    def spares(self, looked: _Looked) -> bool:
        """Whether nothing differs that a host was looked at through."""
        return self.services.isdisjoint(looked.services) and (not looked.namespaces or self.namespaces.isdisjoint(looked.namespaces))


def _touched(old: Mesh, new: Mesh) -> _Touched | None:
    """What the events between two meshes touch; None when it is the configuration, or how much of it could be read."""
    out = _Touched(set(), set(), set())
    if old is new:
        return out
    if [c.name for c in old.clusters] != [c.name for c in new.clusters]:
        return None
    if any(old.istiod(c.name) is not new.istiod(c.name) for c in new.clusters):
        rules = old.new_weights(new)
        if rules is None or old.guesses() != new.guesses():
            return None
        out.hosts.update(weighed(new, (ref for found in rules.values() for ref in found), swept(new)))
    for a, b in zip(old.clusters, new.clusters, strict=True):
        if a is b:
            continue
        if a.unreadable != b.unreadable or a.synced != b.synced or a.malformed != b.malformed:
            return None
        for kind in {*a.objects, *b.objects}:
            was, now = a.objects.get(kind, {}), b.objects.get(kind, {})
            if was is now or kind is OpenShiftRoute:
                continue
            if kind is Node and old.localities(a) == new.localities(b) and old.network_gateways == new.network_gateways:
                continue
            if kind is MutatingWebhookConfiguration and old.tags(a) == new.tags(b):
                continue
            spaces = [*differing(was, now)]
            if kind is EndpointSlice:
                of = set(_of_slices(a, b, spaces))
                out.services.update(_called(of))
                # a slice of no Service in its cluster may be why another one of its namespace has no endpoint
                spaces = sorted({ns for name, ns in of if b.get(Service, ns, name) is None or not _is_known(new, name, ns)})
            elif kind in _OF_NAMESPACE:
                out.services.update(of for ns in spaces for of in _of_workloads(a, b, kind, ns, new))
                if kind is Pod:
                    out.services.update(_called(new.straying(b, spaces)))
            elif kind is VirtualService:
                continue  # it says other weights, or the control planes would be others
            elif spaces:
                return None
            out.namespaces.update(spaces)
    return out


def _is_known(mesh: Mesh, name: str, namespace: str) -> bool:
    """Whether any control plane has a Kubernetes Service."""
    return any(names.service_host(name, namespace) in i.by_host for i in mesh.control_planes)


def _of_workloads(old: Cluster, new: Cluster, kind: type[Resource], namespace: str, mesh: Mesh) -> set[tuple[str, str]]:
    """The services that differing pods or workloads of a namespace may mean something to: all of it, unless only how they fare differs."""
    here = [s for i in mesh.control_planes for s in i.of_namespace(namespace)]
    was, now = old.within(kind, namespace), new.within(kind, namespace)
    pairs = [(was.get(name), now.get(name)) for name in was.keys() | now.keys() if was.get(name) is not now.get(name)]
    changed = [b for a, b in pairs if a is not None and b is not None and _fares_only(a, b)]
    borrowing = any(isinstance(o, Workload) and o.spec.workload_ref is not None for o in changed)
    if len(changed) == len(pairs) and not borrowing:
        carried = [
            o.labels if isinstance(o, Pod) else o.spec.template.metadata.labels or {} for o in changed if isinstance(o, Pod | Workload)
        ]
        pointed = _pointing(new, namespace, {o.name for o in changed}) if kind is Pod else set()
        here = [s for s in here if s.name in pointed or any(_selects(s, labels) for labels in carried)]
    return {(s.hostname, s.namespace) for s in here}


def _pointing(cluster: Cluster, namespace: str, pods: set[str]) -> set[str]:
    """The Services of a namespace whose slices have endpoints that are, or may be, one of some pods."""
    slices = cluster.within(EndpointSlice, namespace).values()
    return {s.service for s in slices if any(e.target_ref is None or e.target_ref.name in pods for e in s.endpoints or ())}


def _fares_only(old: Resource, new: Resource) -> bool:
    """Whether a pod or a workload is what it was and where it was, and only its readiness, or that of its pods, differs."""
    if old.metadata.ruling != new.metadata.ruling:
        return False
    if isinstance(old, Pod) and isinstance(new, Pod):
        return old.spec == new.spec and (old.status.pod_ip, old.status.pod_ips) == (new.status.pod_ip, new.status.pod_ips)
    if isinstance(old, Workload) and isinstance(new, Workload):
        return old.spec == new.spec
    return isinstance(old, ReplicaSet)


def _selects(service: HostService, labels: Mapping[str, str]) -> bool:
    return bool(service.selector) and all(labels.get(k) == v for k, v in (service.selector or {}).items())


def _of_slices(old: Cluster, new: Cluster, spaces: Iterable[str]) -> Iterator[tuple[str, str]]:
    for ns in spaces:
        was, now = old.within(EndpointSlice, ns), new.within(EndpointSlice, ns)
        for name in {*was, *now}:
            a, b = was.get(name), now.get(name)
            if a is not b:
                for s in (a, b):
                    if s is not None:
                        yield s.service, ns


def _called(services: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The hosts, with their namespaces, of Kubernetes Services (name, namespace): an imported one has two."""
    for name, ns in services:
        yield names.service_host(name, ns), ns
        yield names.clusterset_host(name, ns), ns


def whatif(meshes: Sequence[Mesh], changes: Iterable[Change]) -> Whatif:
    """The findings that these changes would introduce and resolve, over all hosts; nothing is applied.

    A finding that gets worse (a warning that becomes an error, a larger share, more of those who call already) is introduced; one that gets better is resolved.
    """
    made = list(changes)
    introduced: list[Finding] = []
    resolved: list[Finding] = []
    gone: list[str] = []
    mine = {m.name: _within(m, made) for m in meshes}
    for mesh, then in zip(meshes, _imagined(meshes, made), strict=True):
        if not mine[mesh.name] and not (any(mine[m.name] for m in mesh.neighbours) and legs.leads_out(mesh)):
            continue
        ground = sweep(mesh)
        before, after = _alike(ground.findings), _alike(sweep(then, ground).findings)
        gone += sorted(_defined(mesh) - _defined(then))
        for key in dict.fromkeys((*before, *after)):
            for old, new in _became(before.get(key, ()), after.get(key, ())):
                if new is not None and (old is None or _worsens(old, new, mesh)):
                    introduced.append(new)
                if old is not None and (new is None or _worsens(new, old, then)):
                    resolved.append(old)
    return Whatif(_ordered(introduced), _ordered(resolved), tuple(dict.fromkeys(gone)))


def _defined(mesh: Mesh) -> set[str]:
    """The hosts that Services and ServiceEntries define."""
    return {h for istiod in mesh.control_planes for h in istiod.by_host}


def _worsens(old: Finding, new: Finding, mesh: Mesh) -> bool:
    """Whether a finding is worse than another one, `old`, of the same thing: in itself, or for a caller that `mesh`, where the other one was, has too."""
    if _badness(new) != _badness(old):
        return _badness(new) > _badness(old)
    more = set(new.viewpoints) - set(old.viewpoints)
    return bool(more) and not more.isdisjoint(c.viewpoint for c in callers(mesh))


def _alike(findings: Iterable[Finding]) -> dict[object, list[Finding]]:
    """Findings by what they are of; two rules of one object may have the same one each."""
    out: dict[object, list[Finding]] = {}
    for f in findings:
        out.setdefault(_identity(f), []).append(f)
    return out


_SHARE = re.compile(r"[0-9.]+ %")


def _became(before: Iterable[Finding], after: Iterable[Finding]) -> Iterator[tuple[Finding | None, Finding | None]]:
    """Each finding beside what it was before: of the same words at the same place, else of the same words, else at the same place.

    A rule that is put before another one moves what is wrong with it, and a share is other words of the same thing.
    """

    def said(f: Finding) -> str:
        return _SHARE.sub("", f.message)

    old, new = list(before), list(after)
    for same in (lambda f: (said(f), f.path), said, lambda f: f.path):
        for was in tuple(old):
            is_ = next((f for f in new if same(f) == same(was)), None)
            if is_ is not None:
                old.remove(was)
                new.remove(is_)
                yield was, is_
    yield from ((f, None) for f in old)
    yield from ((None, f) for f in new)


def _identity(f: Finding) -> tuple[str, str, str, str]:
    return f.cause, f.cluster, f.resource, f.host


def _badness(f: Finding) -> tuple[int, float]:
    return -list(Severity).index(f.severity), f.failing_share


# --- routes ----------------------------------------------------------------------------------------------------------------------


def routes(meshes: Sequence[Mesh], word: str | None, viewpoints: Sequence[str] = ()) -> list[Route]:
    """The routes of a host, or of all, as these viewpoints (`[CLUSTER:]NS[/POD]`) or as every viewpoint holds them.

    Raises UnknownHost (of a host without such a port its candidates are the host's ports) and routes.UnknownViewpoint.
    """
    said = resolve(word, meshes) if word else ()
    wanted = {h for h, _ in said} if word else None
    port = port_of(word or "")
    out: list[Route] = []
    for text in viewpoints or (None,):
        found = [r for m in meshes for r in _routes_as(m, text, wanted)]
        if not found and wanted is not None:
            named = [(m, to) for m in meshes for h in wanted if (to := _stands_for(m, h)) is not None]
            found = [r for m, to in named for r in _routes_as(m, text, {to})]
        if text is not None and not any(_knows(m, text) for m in meshes):
            raise resolver.UnknownViewpoint(text, names.nearest(text.rpartition(":")[2], _viewpoint_words(meshes)))
        out += [r for r in found if port in (None, r.port)]
    if word and port is not None and not out:
        _has_port(word, port, said)
    return out


def _split(text: str) -> tuple[str, str, str]:
    cluster, colon, rest = text.partition(":")
    if not colon:
        cluster, rest = "", text
    namespace, _, pod = rest.partition("/")
    return cluster, namespace, pod


def _clusters(mesh: Mesh, name: str) -> list[Cluster]:
    return [c for c in mesh.clusters if name in ("", c.name, c.name.partition("/")[0], mesh.cluster_id(c))]


def _knows(mesh: Mesh, text: str) -> bool:
    cluster, namespace, pod = _split(text)
    found = _clusters(mesh, cluster)
    if pod:
        return any(c.get(Pod, namespace, pod) is not None for c in found)
    return any(c.viewpoint.namespace == namespace and c.viewpoint.cluster in {x.name for x in found} for c in callers(mesh))


def _viewpoint_words(meshes: Sequence[Mesh]) -> list[str]:
    return [c.viewpoint.namespace for m in meshes for c in callers(m)]


def _routes_as(mesh: Mesh, text: str | None, wanted: set[str] | None) -> Iterator[Route]:
    cluster, namespace, pod = _split(text) if text else ("", "", "")
    if pod:
        for c in _clusters(mesh, cluster):
            if c.get(Pod, namespace, pod) is not None:
                yield from resolver.for_pod(mesh, c.name, f"{namespace}/{pod}", wanted)
        return
    inside = {c.name for c in _clusters(mesh, cluster)}
    told_by_node = sorted(h for h in (wanted if wanted is not None else hosts(mesh)) if by_node(mesh, h))
    seeing: list[tuple[Caller, set[str] | None]] = [(c, wanted) for c in callers(mesh)]
    seeing += [(c, {h}) for h in told_by_node for c in callers_of(mesh, h)]
    for caller, of in seeing:
        v: Viewpoint = caller.viewpoint
        if v.cluster in inside and namespace in ("", v.namespace):
            found = resolver.for_proxy(mesh, caller.proxy, v, of)
            yield from found if of is not wanted or not told_by_node else (r for r in found if r.host not in told_by_node)
