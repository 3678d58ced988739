"""What istiod's webhook refuses in an object, and what becomes of it where it got past.

Rules: pkg/config/validation/{validation,virtualservice}.go in istio/istio, of them those that change what callers get; what a check of its own
names (weights that add up to 0, wildcards without a resolution that fits) is left to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from checks import names
from checks.registry import AUTO, protocol
from checks.resources import DestinationRule, Gateway, ServiceEntry, VirtualService
from checks.rulesets import GRPC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from checks.resources import HTTPMatch, HTTPRoute, L4Route, Resource, StringMatch, WeightedDestination

_TABLE = "Envoy refuses the whole table of routes that holds it: running proxies keep their last routes, and new ones get none"
_UNUSED = "it has no effect"
PLAIN = "the port speaks plain HTTP, and whoever calls it by TLS fails at the handshake"


class Fault(NamedTuple):
    """What is refused: where, what is wrong, and what comes of it, for people; `part` is the server of a Gateway that it is about."""

    path: str
    wrong: str
    effect: str
    part: object = None


def faults(o: Resource) -> Iterator[Fault]:
    """What istiod refuses in an object."""
    of = _OF.get(type(o))
    return of(o) if of is not None else iter(())


def _of_virtual_service(vs: VirtualService) -> Iterator[Fault]:
    spec = vs.spec
    if not spec.http and not spec.tls and not spec.tcp:
        yield Fault("spec", "it has neither http, tls nor tcp rules", _UNUSED)
    for i, rule in enumerate(spec.http or ()):
        if rule.delegate is not None and not spec.hosts:
            effect = _UNUSED if rule.route or rule.redirect or rule.direct_response else _TABLE
            yield Fault(f"spec.http[{i}].delegate", "the rule of a delegate leads to a delegate itself", effect)
        yield from _of_http(f"spec.http[{i}]", rule)
    for kind, rules in (("tls", spec.tls), ("tcp", spec.tcp)) if spec.tls or spec.tcp else ():
        for i, r in enumerate(rules or ()):
            yield from _of_l4(f"spec.{kind}[{i}]", r, [names.fqdn(h, vs.namespace) for h in spec.hosts or ()], tls=kind == "tls")


def _of_http(path: str, rule: HTTPRoute) -> Iterator[Fault]:
    answers = rule.redirect, rule.direct_response, rule.route
    ways = [w for w, has in zip(("redirect", "directResponse", "route"), answers, strict=True) if has]
    if rule.delegate is None and not ways:
        yield Fault(path, "the rule has no route, redirect, directResponse or delegate", _TABLE)
    if rule.delegate is None and len(ways) > 1:
        yield Fault(f"{path}.{ways[1]}", f"the rule has {' and '.join(ways)} at once", f"only its {ways[0]} is used")
    yield from _of_weights(path, rule.route or ())
    abort = rule.fault.abort if rule.fault is not None else None
    if abort is not None and abort.http2_error is not None:
        yield Fault(f"{path}.fault.abort.http2Error", "errors of HTTP/2 are not supported", "nothing is aborted")
    elif abort is not None and abort.http_status is None and abort.grpc_status is not None and abort.grpc_status not in GRPC:
        effect = "calls are answered with grpc-status 0 (OK) and without a message"
        yield Fault(f"{path}.fault.abort.grpcStatus", f"{abort.grpc_status} is no status of gRPC", effect)
    for i, m in enumerate(rule.match or ()):
        for where, said in _strings(m):
            wrong = _not_re2(said.regex) if said.regex is not None else ""
            if wrong:
                yield Fault(f"{path}.match[{i}].{where}", f"{said.regex} is no RE2 expression ({wrong})", _TABLE)


def _of_weights(path: str, destinations: Iterable[WeightedDestination]) -> Iterator[Fault]:
    for i, d in enumerate(destinations):
        if d.weight < 0:
            yield Fault(f"{path}.route[{i}].weight", f"weight {d.weight} is below 0", _TABLE)


def _of_l4(path: str, rule: L4Route, hosts: Iterable[str], *, tls: bool) -> Iterator[Fault]:
    if not rule.route:
        yield Fault(path, "the rule has no route", _UNUSED)
    yield from _of_weights(path, rule.route or ())
    if not tls:
        return
    if not rule.match:
        yield Fault(f"{path}.match", "a tls rule needs a match with sniHosts", _UNUSED)
    for i, m in enumerate(rule.match or ()):
        if not m.sni_hosts:
            yield Fault(f"{path}.match[{i}].sniHosts", "a tls match needs sniHosts", "no connection is chosen by its name")
        strange = [s for s in m.sni_hosts or () if not any(names.subset_of(s, h) for h in hosts)]
        if strange:
            yield Fault(
                f"{path}.match[{i}].sniHosts",
                f"{', '.join(strange)} is none of its hosts ({', '.join(hosts)})",
                "it is matched all the same",
            )


def _strings(m: HTTPMatch) -> Iterator[tuple[str, StringMatch]]:
    for where, said in (("uri", m.uri), ("scheme", m.scheme), ("method", m.method), ("authority", m.authority)):
        if said is not None:
            yield where, said
    for where, found in (("headers", m.headers), ("queryParams", m.query_params)):
        yield from ((f"{where}[{k}]", v) for k, v in (found or {}).items())
    yield from ((f"withoutHeaders[{k}]", v) for k, v in (m.without_headers or {}).items() if v.regex != "*")


_BEYOND_RE2 = re.compile(r"(?<!\\)(?:\\\\)*(\(\?(?:[=!>]|<[=!])|\\[1-9])")
_NEVER_VALID = ("missing ), unterminated subpattern", "unbalanced parenthesis", "unterminated character set", "nothing to repeat")
_LONGEST = 1024


def _not_re2(text: str) -> str:
    """What keeps an expression from being RE2; empty when nothing is sure to."""
    if not text:
        return "it is empty"
    if len(text) > _LONGEST:
        return f"it is longer than {_LONGEST} characters"
    beyond = _BEYOND_RE2.search(text)
    if beyond is not None:
        return f"RE2 has no {beyond[1]}"
    try:
        re.compile(text)
    except re.error as error:
        return str(error) if str(error).startswith(_NEVER_VALID) else ""  # the two dialects differ in what else is allowed
    return ""


def _of_destination_rule(rule: DestinationRule) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, s in enumerate(rule.spec.subsets or ()):
        if not s.name:
            yield Fault(f"spec.subsets[{i}].name", "a subset needs a name", "no rule can lead to it")
        elif s.name in seen:
            yield Fault(f"spec.subsets[{i}].name", f"subset {s.name} is defined twice", "the second definition has no effect")
        seen.add(s.name)


def _of_service_entry(entry: ServiceEntry) -> Iterator[Fault]:
    spec = entry.spec
    endpoints = spec.endpoints or ()
    if spec.workload_selector is not None and endpoints:
        yield Fault("spec.endpoints", "it has endpoints and a workloadSelector", "the endpoints have no effect")
    if spec.resolution == "NONE" and endpoints:
        yield Fault(
            "spec.endpoints",
            "resolution NONE takes no endpoints",
            "they have no effect, and calls go to the address that they were made for",
        )
    fixed = [h for h in spec.hosts or () if not names.is_wildcard(h)]
    if spec.resolution == "DYNAMIC_DNS" and fixed:
        yield Fault("spec.resolution", f"resolution DYNAMIC_DNS takes wildcards, and {', '.join(fixed)} is none", "it has no endpoint")
    if spec.resolution == "DNS_ROUND_ROBIN" and len(endpoints) > 1:
        yield Fault("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint", f"only {endpoints[0].address} is used")
    if spec.resolution == "STATIC":
        named = [e.address for e in endpoints if e.address and not names.is_ip(e.address) and not e.address.startswith("unix:")]
        if named:
            yield Fault("spec.endpoints", f"resolution STATIC takes IP addresses, and {', '.join(named)} is none", "it is not used")
    ports = spec.ports or ()
    known = {p.name for p in ports}
    for i, e in enumerate(endpoints):
        if not e.address and (spec.resolution.startswith("DNS") or (spec.resolution == "STATIC" and not e.network)):
            yield Fault(f"spec.endpoints[{i}].address", "an endpoint needs an address", "nothing is sent to it")
        strange = sorted(set(e.ports or ()) - known)
        if strange:
            yield Fault(
                f"spec.endpoints[{i}].ports",
                f"it has no port called {', '.join(strange)}",
                f"{e.address} is called on the service's own port",
            )
    numbers, called = set[int](), set[str]()
    for i, p in enumerate(ports):
        if p.number in numbers or p.name in called:
            yield Fault(
                f"spec.ports[{i}]", f"port {p.number} ({p.name}) is there twice, by number or by name", "one of the two has no effect"
            )
        if p.protocol and protocol(p.protocol) == AUTO:
            yield Fault(f"spec.ports[{i}].protocol", f"{p.protocol} is no protocol", "what the port speaks is guessed from each connection")
        numbers.add(p.number)
        called.add(p.name)


def _of_gateway(gateway: Gateway) -> Iterator[Fault]:
    for i, s in enumerate(gateway.spec.servers or ()):
        path, kind, tls = f"spec.servers[{i}].tls", s.port.protocol.upper(), s.tls
        secure = kind in {"HTTPS", "TLS"}
        if secure and tls is None:
            effect = PLAIN if kind == "HTTPS" else "the port passes connections on as they are"
            yield Fault(path, f"a server of protocol {kind} needs TLS settings", effect, s)
        elif tls is None or tls.mode not in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"}:
            continue
        elif secure and not tls.credentials:
            effect = "no client outside of the mesh can trust what is shown to it"
            yield Fault(path, f"TLS mode {tls.mode} needs a certificate (credentialName)", effect, s)
        elif kind in {"HTTP", "HTTP2", "GRPC"} and tls.credentials:
            yield Fault(path, f"a server of protocol {kind} takes no certificate", "the port speaks plain HTTP", s)


_OF: Mapping[type[Resource], Callable[[Any], Iterator[Fault]]] = {
    VirtualService: _of_virtual_service,
    DestinationRule: _of_destination_rule,
    ServiceEntry: _of_service_entry,
    Gateway: _of_gateway,
}
