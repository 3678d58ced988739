"""VirtualServices as istiod holds them: names resolved, delegates merged, exportTo applied. Gateway API routes take the same form.

Rules: semantics.md 3.2; pilot/pkg/model/virtualservice.go and virtualservice_controller.go in istio/istio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from checks import names
from checks.resources import HTTPMatch, HTTPRoute, L4Match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from checks.resources import L4Route, RouteDestination, StringMatch, VirtualService, WeightedDestination


class Target(Struct, frozen=True, gc=False):
    """One destination of a rule with its name resolved. `port` None means that the rule leaves it out. An empty host is an invalid backend."""

    host: str
    subset: str
    port: int | None
    weight: int
    path: str


GRPC = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED"),
    *("RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
"""The statuses of gRPC by their numbers (pkg/util/grpc/codes.go)."""


class Abort(NamedTuple):
    """What a proxy answers by itself, and to which share of the requests: an HTTP status, or 200 with a status of gRPC by its number."""

    status: int
    share: float
    grpc: int = 0

    @property
    def fails(self) -> bool:
        """Whether it is an error."""
        return self.status >= 400 or self.grpc > 0


class Rule(Struct, frozen=True, gc=False):
    """One entry of http[]: `action` is `route`, `redirect` or `direct_response CODE`. `path` is where it stands in `leaf` (a delegate, or the root).

    `delay` is (time as written, share of the requests).
    """

    name: str
    path: str
    leaf: str
    matches: tuple[HTTPMatch, ...]
    targets: tuple[Target, ...]
    action: str
    mirrors: tuple[Target, ...] = ()
    abort: Abort | None = None
    delay: tuple[str, float] | None = None
    raw: HTTPRoute | None = None


class Lost(Struct, frozen=True, gc=False):
    """An entry of http[] that leads to a delegate and gives no rule: `path` in the root, `delegate` its ref, and why istiod drops it.

    A conflict names the delegate's entry whose match fits none of the root's (`leaf_path`).
    """

    path: str
    delegate: str
    reason: Literal["absent", "has hosts", "not exported", "conflict"]
    matches: tuple[HTTPMatch, ...]
    leaf_path: str = ""


class L4Rule(Struct, frozen=True, gc=False):
    """One entry of tcp[] or tls[]."""

    path: str
    matches: tuple[L4Match, ...]
    targets: tuple[Target, ...]


class RuleSet(Struct, frozen=True, eq=False, gc=False):
    """One VirtualService, or one host of a Gateway API route, ready to be matched. `ref` is what a person would edit."""

    ref: str
    namespace: str
    name: str
    created: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    export_to: frozenset[str]
    http: tuple[Rule, ...] = ()
    tls: tuple[L4Rule, ...] = ()
    tcp: tuple[L4Rule, ...] = ()
    gateway_api: bool = False
    kind: str = "VirtualService"
    lost: tuple[Lost, ...] = ()
    leads: tuple[str, ...] = ()
    """The hosts that its rules lead to, for whatever caller, each once."""

    def __post_init__(self) -> None:
        """Every look at a host asks where its rules lead: that is worked out once."""
        found: dict[str, None] = {}
        for rule in self.http:
            for t in rule.targets:
                found[t.host] = None
            for t in rule.mirrors:
                found[t.host] = None
        for l4 in (*self.tcp, *self.tls):
            for t in l4.targets:
                found[t.host] = None
        force_setattr(self, "leads", tuple(found))

    @property
    def order(self) -> tuple[str, str, str]:
        """Istiod's order of configs: creation, name, namespace."""
        return self.created, self.name, self.namespace

    @property
    def matches(self) -> Iterator[HTTPMatch | L4Match]:
        """Every match of every rule."""
        for rule in self.http:
            yield from rule.matches
        for l4 in (*self.tcp, *self.tls):
            yield from l4.matches

    def source(self, rule: Rule) -> str:
        """Whose rule it is for people: the root of a delegate, the Gateway API route itself where several were merged."""
        return rule.leaf if self.gateway_api else self.ref

    def destinations(self, namespace: str) -> dict[str, set[int]]:
        """Hosts that its rules lead to for callers of a namespace, with the ports named (0: none)."""
        out: dict[str, set[int]] = {}
        for rule in self.http:
            if rule.matches:
                wanted = [m.source_namespace for m in rule.matches if m.source_namespace]
                if wanted and namespace not in wanted:
                    continue
            for t in (*rule.targets, *rule.mirrors):
                out.setdefault(t.host, set()).add(t.port or 0)
        for l4 in (*self.tcp, *self.tls):
            for t in l4.targets:
                out.setdefault(t.host, set()).add(t.port or 0)
        return out


def _target(d: RouteDestination, weight: int, namespace: str, path: str) -> Target:
    return Target(names.fqdn(d.host, namespace), d.subset, d.port.number if d.port else None, weight, path)


def _targets(route: Iterable[WeightedDestination] | None, namespace: str, path: str) -> tuple[Target, ...]:
    return tuple([_target(w.destination, w.weight, namespace, f"{path}[{i}]") for i, w in enumerate(route or ())])


def _action(http: HTTPRoute) -> str:
    if http.redirect is not None:
        return "redirect"
    return f"direct_response {http.direct_response.status}" if http.direct_response is not None else "route"


def _abort(http: HTTPRoute) -> Abort | None:
    """As TranslateFault has it: an http2Error, which the webhook refuses, aborts nothing, and a gRPC status that is none is OK."""
    abort = http.fault.abort if http.fault else None
    if abort is None or (abort.http_status is None and abort.grpc_status is None):
        return None
    share = 0.0 if abort.percentage is None else abort.percentage.value / 100
    if abort.http_status is not None:
        return Abort(abort.http_status, share)
    return Abort(200, share, GRPC.index(abort.grpc_status) if abort.grpc_status in GRPC else 0)


def _delay(http: HTTPRoute) -> tuple[str, float] | None:
    delay = http.fault.delay if http.fault else None
    if delay is None or not delay.fixed_delay:  # an exponential one is not supported (route.go TranslateFault)
        return None
    share = (delay.percent if delay.percentage is None else delay.percentage.value) / 100
    return (delay.fixed_delay, min(1.0, share)) if share > 0 else None


def _resolve_match(match: HTTPMatch, namespace: str) -> HTTPMatch:
    if not match.gateways:
        return match
    return replace(match, gateways=tuple(names.gateway_name(g, namespace) for g in match.gateways))


def _resolve_l4(match: L4Match, namespace: str) -> L4Match:
    if not match.gateways:
        return match
    return replace(match, gateways=tuple(names.gateway_name(g, namespace) for g in match.gateways))


def _rule(http: HTTPRoute, namespace: str, path: str, leaf: str) -> Rule:
    mirrors = [_target(http.mirror, 100, namespace, f"{path}.mirror")] if http.mirror else []
    if http.mirrors:
        mirrors += _targets(http.mirrors, namespace, f"{path}.mirrors")
    return Rule(
        name=http.name,
        path=path,
        leaf=leaf,
        matches=tuple([_resolve_match(m, namespace) for m in http.match or ()]),
        targets=_targets(http.route, namespace, f"{path}.route"),
        action=_action(http),
        mirrors=tuple(mirrors),
        abort=_abort(http),
        delay=_delay(http),
        raw=http,
    )


def _l4(routes: Iterable[L4Route] | None, namespace: str, kind: str) -> Iterator[L4Rule]:
    for i, r in enumerate(routes or ()):
        path = f"spec.{kind}[{i}]"
        yield L4Rule(path, tuple(_resolve_l4(m, namespace) for m in r.match or ()), _targets(r.route, namespace, f"{path}.route"))


def _export(vs: VirtualService, default: Iterable[str]) -> frozenset[str]:
    return names.export_set(vs.spec.export_to or default, vs.namespace)


def weightless(vs: VirtualService) -> object:
    """All that a VirtualService says but its weights: two that differ in nothing else make the same rules, and are found by the same look-ups.

    A weight below 0 stays: it makes a VirtualService that is not valid.
    """
    spec = vs.spec
    parts = {
        part: tuple(
            replace(r, route=tuple(replace(w, weight=min(w.weight, 0)) for w in r.route)) if r.route else r
            for r in getattr(spec, part) or ()
        )
        for part in ("http", "tls", "tcp")
    }
    return vs.metadata.ruling, replace(spec, **parts)


def merge(
    services: Iterable[VirtualService], default_export_to: Iterable[str], such: Callable[[VirtualService], bool] = lambda _: True
) -> Iterator[RuleSet]:
    """Every root VirtualService such as is asked for, with its delegates merged in; a VirtualService without hosts is a delegate and no root."""
    everything = list(services)
    by_name = {(v.namespace, v.name): v for v in everything}
    default = tuple(default_export_to)
    for vs in filter(such, everything):
        if not vs.spec.hosts:
            continue
        ns, ref = vs.metadata.namespace, vs.ref
        rules: list[Rule] = []
        lost: list[Lost] = []
        for i, http in enumerate(vs.spec.http or ()):
            path = f"spec.http[{i}]"
            if http.delegate is None:
                rules.append(_rule(http, ns, path, ref))
                continue
            root = _rule(http, ns, path, ref)
            wanted = http.delegate.namespace or ns, http.delegate.name
            to = f"VirtualService {wanted[0]}/{wanted[1]}"
            leaf = by_name.get(wanted)
            if leaf is None or leaf.spec.hosts:  # istiod warns and drops the root's route
                lost.append(Lost(path, to, "absent" if leaf is None else "has hosts", root.matches))
                continue
            if not _export(leaf, default) & {"*", ns}:
                lost.append(Lost(path, to, "not exported", root.matches))
                continue
            for j, sub in enumerate(leaf.spec.http or ()):
                merged = _merge(root, _rule(sub, leaf.namespace, f"spec.http[{j}]", leaf.ref), http, sub)
                if merged is not None:
                    rules.append(merged)
                else:
                    lost.append(Lost(path, to, "conflict", root.matches, f"spec.http[{j}]"))
        yield RuleSet(
            ref=ref,
            namespace=ns,
            name=vs.metadata.name,
            created=vs.created,
            hosts=tuple([names.fqdn(h, ns) for h in vs.spec.hosts]),
            gateways=tuple([names.gateway_name(g, ns) for g in vs.spec.gateways]) if vs.spec.gateways else ("mesh",),
            export_to=_export(vs, default),
            http=tuple(rules),
            tls=tuple(_l4(vs.spec.tls, ns, "tls")) if vs.spec.tls else (),
            tcp=tuple(_l4(vs.spec.tcp, ns, "tcp")) if vs.spec.tcp else (),
            lost=tuple(lost),
        )


def _merge(root: Rule, leaf: Rule, root_http: HTTPRoute, leaf_http: HTTPRoute) -> Rule | None:
    matches = merge_matches(root.matches, leaf.matches)
    if matches is None:
        return None
    name = "-".join(n for n in (root.name, leaf.name) if n)
    action = (
        leaf.action
        if leaf_http.redirect or leaf_http.direct_response
        else f"direct_response {root_http.direct_response.status}"
        if root_http.direct_response
        else leaf.action
    )
    return replace(
        leaf,
        name=name,
        matches=matches,
        action=action,
        mirrors=leaf.mirrors or root.mirrors,
        abort=leaf.abort if leaf_http.fault else root.abort,
        delay=leaf.delay if leaf_http.fault else root.delay,
    )


def merge_matches(root: tuple[HTTPMatch, ...], leaf: tuple[HTTPMatch, ...]) -> tuple[HTTPMatch, ...] | None:
    """Root's and delegate's matches combined; None when one of the delegate's fits none of the root's (the route is dropped)."""
    if not root:
        return leaf
    if not leaf:
        return root
    out: list[HTTPMatch] = []
    for sub in leaf:
        fitting = [_combine(r, sub) for r in root if not _conflict(r, sub)]
        if not fitting:
            return None
        out += fitting
    return tuple(out)


def _combine(root: HTTPMatch, leaf: HTTPMatch) -> HTTPMatch:
    def both(a: Mapping[str, StringMatch] | None, b: Mapping[str, StringMatch] | None) -> dict[str, StringMatch] | None:
        return {**(a or {}), **(b or {})} or None

    return replace(
        leaf,
        name="-".join(n for n in (root.name, leaf.name) if n),
        uri=leaf.uri or root.uri,
        scheme=leaf.scheme or root.scheme,
        method=leaf.method or root.method,
        authority=leaf.authority or root.authority,
        headers=both(root.headers, leaf.headers),
        without_headers=both(root.without_headers, leaf.without_headers),
        query_params=both(root.query_params, leaf.query_params),
        port=leaf.port or root.port,
        source_labels={**(root.source_labels or {}), **(leaf.source_labels or {})} or None,
        source_namespace=leaf.source_namespace or root.source_namespace,
        gateways=leaf.gateways or root.gateways,
    )


def _conflict(root: HTTPMatch, leaf: HTTPMatch) -> bool:
    pairs: list[tuple[StringMatch | None, StringMatch | None]] = [
        (root.uri, leaf.uri),
        (root.scheme, leaf.scheme),
        (root.method, leaf.method),
        (root.authority, leaf.authority),
    ]
    for field in ("headers", "without_headers", "query_params"):
        have: Mapping[str, StringMatch] = getattr(root, field) or {}
        pairs += [(have.get(k), v) for k, v in (getattr(leaf, field) or {}).items()]
    if any(_string_conflict(r, v) for r, v in pairs):
        return True
    if root.ignore_uri_case != leaf.ignore_uri_case:
        return True
    if root.port and leaf.port and root.port != leaf.port:
        return True
    if root.source_namespace and leaf.source_namespace != root.source_namespace:
        return True
    labels = root.source_labels or {}
    if any(k in labels and labels[k] != v for k, v in (leaf.source_labels or {}).items()):
        return True
    if root.gateways and leaf.gateways:
        return len(root.gateways) < len(leaf.gateways) or not set(leaf.gateways) <= set(root.gateways)
    return False


def _string_conflict(root: StringMatch | None, leaf: StringMatch | None) -> bool:
    if root is None or leaf is None:
        return False
    said: Callable[[StringMatch], bool] = lambda m: bool(m.regex or m.prefix or m.exact)  # noqa: E731
    if (root.regex and said(leaf)) or (leaf.regex and said(root)):
        return True
    if root.exact:
        return bool(leaf.prefix) or leaf.exact != root.exact
    if root.prefix:
        if leaf.prefix:
            return not leaf.prefix.startswith(root.prefix)
        if leaf.exact:
            return not leaf.exact.startswith(root.prefix)
    return True


# --- matching ----------------------------------------------------------------------------------------------------------------


def is_catch_all(match: HTTPMatch | None) -> bool:
    """Whether nothing of a request decides: path `/` or regex `.*`, no header, no query (route.IsCatchAllRoute)."""
    if match is None:
        return True
    if match.headers or match.without_headers or match.query_params or match.method or match.authority or match.scheme:
        return False
    uri = match.uri
    return uri is None or (uri.exact is None and uri.prefix in {None, "/"} and uri.regex in {None, ".*"})


def describe(match: HTTPMatch | None) -> str:
    """A match as people read it: `every request`, `path /a*`, `header x-user = ana`."""
    if match is None:
        return "every request"
    parts = [
        f"{word} {m.text}"
        for word, m in (("path", match.uri), ("method", match.method), ("authority", match.authority), ("scheme", match.scheme))
        if m
    ]
    parts += [f"header {k} {v.text}" for k, v in sorted((match.headers or {}).items())]
    parts += [f"without header {k} {v.text}" for k, v in sorted((match.without_headers or {}).items())]
    parts += [f"query {k} {v.text}" for k, v in sorted((match.query_params or {}).items())]
    return " and ".join(parts) if parts and not is_catch_all(match) else "every request"


def source_match(match: HTTPMatch | None, labels: Mapping[str, str], gateways: frozenset[str], namespace: str) -> bool:
    """Whether a caller is meant by a match: its gateways alone decide when it names some (route.sourceMatchHTTP)."""
    if match is None:
        return True
    if match.gateways:
        return not gateways.isdisjoint(match.gateways)
    if any(labels.get(k) != v for k, v in (match.source_labels or {}).items()):
        return False
    return match.source_namespace in ("", namespace)


def l4_match(match: L4Match, labels: Mapping[str, str], gateways: frozenset[str], port: int, namespace: str) -> bool:
    """Whether a caller and a listener port are meant by a tcp or tls match (tls.go)."""
    return (
        (not match.gateways or not gateways.isdisjoint(match.gateways))
        and all(labels.get(k) == v for k, v in (match.source_labels or {}).items())
        and match.port in (0, port)
        and match.source_namespace in ("", namespace)
    )


def rules_for(
    ruleset: RuleSet, port: int, labels: Mapping[str, str], gateways: frozenset[str], namespace: str
) -> list[tuple[Rule, HTTPMatch | None]]:
    """The (rule, match) pairs that a caller gets on a listener port; nothing follows a catch-all (BuildHTTPRoutesForVirtualService)."""
    out: list[tuple[Rule, HTTPMatch | None]] = []
    for rule in ruleset.http:
        if not rule.matches:
            out.append((rule, None))
            return out
        for match in rule.matches:
            if match.port not in (0, port) or not source_match(match, labels, gateways, namespace):
                continue
            out.append((rule, match))
            if is_catch_all(match):
                return out
    return out
