"""vs-http-on-tcp-port (MESH218)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.binding import bindings, rulesets
from checks.case import short
from checks.finding import Finding, HostCue, check
from checks.resources import Service
from checks.when import bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Case, View
    from checks.istiod import Istiod
    from checks.registry import HostService
    from checks.rulesets import RuleSet


@HostCue
def _opaque_ports(istiod: Istiod) -> Iterable[str]:
    """The host has ports that carry no HTTP: those that a Sidecar shows may be no others."""
    return [s.hostname for s in istiod.services if not s.ports or not all(p.http_or_auto for p in s.ports)]


@check("vs-http-on-tcp-port", when=(bound, _opaque_ports))
def vs_http_on_tcp_port(case: Case) -> Iterator[Finding]:
    """A VirtualService has http rules for a host whose ports Istio takes for TCP, so the rules have no effect.

    What a port speaks follows from its appProtocol, else from its name (`http-...`, `grpc-...`, `tcp-...`), and for a few numbers (3306,
    27017, ...) from the number. On a TCP or TLS port there is no HTTP routing: connections go to the whole service, no split, no subset. At
    a gateway a server of protocol TCP, or TLS in passthrough, has nothing for http rules either, and the host is not served at all; nor has one
    that reads HTTP for tcp and tls rules, one that ends TLS for tls rules, and one that lets it through for tcp rules.

    How to see it: `istioctl proxy-config listeners <pod> --port PORT -o json` has a tcp_proxy.

    How to fix it: name the port `http-...` (or set appProtocol), or write tcp or tls rules.
    """
    for b in bindings(case, "vs-http-on-tcp-port"):
        servers = b.gateway.spec.servers or () if b.gateway else ()
        said = "; ".join(f"port {s.port.number} {s.port.protocol}{f', TLS mode {s.tls.mode}' if s.tls else ''}" for s in servers)
        kinds = " and ".join(kind for kind in ("http", "tcp", "tls") if getattr(b.ruleset, kind))
        unread = next(
            (i for i, s in enumerate(servers) if s is b.server and s.tls and s.tls.mode == "PASSTHROUGH" and s.tls.credentials), None
        )
        yield case.finding(
            "vs-http-on-tcp-port",
            cluster=case.mesh.cluster(b.istiod.cluster).name,
            resource=b.ruleset.ref,
            path="spec.http",
            message=f"Gateway {b.name} does not serve {case.host}: {b.ruleset.ref} has {kinds} rules only, and the gateway's servers take none of these.",
            share=b.share,
            viewpoints=b.viewpoints,
            evidence=(
                f"Gateway {b.name}: {said}",
                *(() if unread is None else ("it names a certificate, which mode PASSTHROUGH leaves unused: so does TLS without a mode",)),
            ),
            fix=f"Write rules in {b.ruleset.ref} that a server of Gateway {b.name} takes (http where it reads HTTP, tcp where it ends TLS or has none, "
            "tls where TLS goes through), or let it carry those that are there."
            if unread is None or not b.ruleset.http
            else f"Set tls.mode of the server to SIMPLE in Gateway {b.name}, so that it reads what it has a certificate for.",
            patch=None
            if unread is None or not b.ruleset.http
            else case.patch(b.istiod.cluster, b.gateway, (("spec", "servers", unread, "tls", "mode"), "SIMPLE")),
            commands=("istioctl proxy-config listeners <gateway pod> -o json",),
        )
    for istiod, r in rulesets(case):
        if r.gateway_api or "mesh" not in r.gateways or not r.http or r.tcp or r.tls or case.host not in {h.lower() for h in r.hosts}:
            continue
        mine = [v for v in case.views if v.ups.istiod is istiod]
        felt = [(v, s) for v in mine if (s := _opaque(v, case.host, r)) is not None]
        if not felt or any(s.source == r.ref for v in mine for s in v.steps):
            continue  # another namespace may know another service by the same name
        service = felt[0][1]
        ports = ", ".join(f"{p.number} ({p.name or 'unnamed'}: {p.protocol})" for p in service.ports)
        yield case.finding(
            "vs-http-on-tcp-port",
            cluster=case.mesh.cluster(istiod.cluster).name,
            resource=service.sources[0][1],
            path="spec.ports",
            message=f"The http rules of {r.ref} have no effect: Istio takes every port of {short(case.host)} for TCP.",
            share=0.0,
            viewpoints=tuple(dict.fromkeys(x for v, _ in felt for x in v.callers.viewpoints)),
            evidence=(f"{service.sources[0][1]} has ports {ports}", f"{r.ref} has {len(r.http)} http rules and no tcp or tls rule"),
            fix=f"If {short(case.host)} speaks HTTP, set appProtocol: http on its port or name it http-...; else write tcp rules in {r.ref}.",
            patch=_patch(case, istiod, service),
            commands=(f"istioctl proxy-config listeners <pod> --port {service.ports[0].number} -o json",),
        )


def _opaque(view: View, host: str, r: RuleSet) -> HostService | None:
    """The service as a sidecar sees it, when none of its ports carries HTTP and the VirtualService would be given to it."""
    service = view.ups.scope.services.get(host)
    if view.callers.proxy.kind != "sidecar" or service is None or service.resolution == "alias":
        return None
    ports = [p for p in service.ports if p.protocol != "UDP"]
    if not ports or any(p.http_or_auto for p in ports):
        return None
    istiod, namespace = view.ups.istiod, view.callers.proxy.namespace
    others = (s for s in istiod.by_host.get(host, ()) if s.namespace != service.namespace and istiod.visible(s, namespace))
    if any(p.http_or_auto for s in others for p in s.ports):
        return None  # the port that the rules are for is of a service that this one hides (se-dup-cross-ns)
    return service if any(r in li.candidates(host) for li in view.ups.scope.listeners) else None


def _patch(case: Case, istiod: Istiod, service: HostService) -> str | None:
    where = case.mesh.cluster(istiod.cluster)
    found = where.get(Service, service.namespace, service.name) if service.kubernetes else None
    if found is None or len(found.spec.ports) != 1:
        return None
    return case.patch(where.name, found, (("spec", "ports", 0, "appProtocol"), "http"))
