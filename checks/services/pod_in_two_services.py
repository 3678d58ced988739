"""pod-in-two-services (MESH321)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.case import Case, endpoints_command, short
from checks.finding import Finding, HostCue, check
from checks.registry import HostPort, port_protocol, proxy_kind
from checks.resources import Pod, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.istiod import Istiod
    from checks.mesh import Cluster, Mesh
    from checks.resources import ServicePort


class _Clash(NamedTuple):
    cluster: Cluster
    pod: Pod
    service: Service
    position: int
    first: Service
    port: ServicePort
    target: int


@HostCue
def _shared(istiod: Istiod) -> Iterable[str]:
    """An older Service may select pods of the host's."""
    spaces: dict[tuple[str, str], list[Service]] = {}
    for cluster, service in istiod.kubernetes:
        spaces.setdefault((cluster, service.namespace), []).append(service)
    return [names.service_host(name, namespace) for (_, namespace), found in spaces.items() for name in _of_space(found)]


@check("pod-in-two-services", when=_shared)
def pod_in_two_services(case: Case) -> Iterator[Finding]:
    """Two Services lead to one port of a pod and declare different protocols for it.

    A sidecar has one inbound listener for each port of its pod. Where two Services declare it differently, the older one decides: what
    reaches the port through the younger is read as the older one's protocol. TCP that is read as HTTP fails; HTTP that is carried as TCP
    works, without anything that needs to look into a request (policies by path or method, telemetry, retries).

    How to see it: `istioctl proxy-config listener POD --port 15006` shows the port's protocol; metric `pilot_conflict_inbound_listener`.

    How to fix it: declare the same protocol in both Services (appProtocol, or the port's name), or use two ports of the pod.
    """
    for clash in _clashes(case):
        declared, decides = port_protocol(clash.port), _protocol_at(clash.first, clash.pod, clash.target)
        calls = [b for b in case.branches if b.share > 0 and b.upstream.host == case.host and b.upstream.port == clash.port.port]
        fails = _tcp(declared)
        share = case.share(calls) if fails else 0.0
        what = "fails" if fails else "is carried as plain TCP"
        yield case.finding(
            "pod-in-two-services",
            cluster=clash.cluster.name,
            resource=clash.service.ref,
            path=f"spec.ports[{clash.position}]",
            message=f"What calls port {clash.port.port} of {short(case.host)} {what}: its pods' port {clash.target} is {declared} here, and {decides} in {clash.first.ref}, which is older and decides.",
            share=share,
            viewpoints=case.viewpoints(calls) or tuple(v for view in case.views for v in view.callers.viewpoints),
            evidence=(
                f"{clash.service.ref}: port {clash.port.port} ({declared}) leads to {clash.target}, created {clash.service.created}",
                f"{clash.first.ref}: {decides} leads to {clash.target}, created {clash.first.created}",
                f"{clash.pod.ref} is selected by both",
            ),
            fix=f"Declare one protocol for port {clash.target} in {clash.service.ref} and {clash.first.ref}, or give them different ports of the pod.",
            commands=(
                f"istioctl proxy-config listener {clash.pod.name}.{clash.pod.namespace} --port 15006",
                *(endpoints_command(b.upstream) for b in calls[:1]),
            ),
        )


def _clashes(case: Case) -> Iterator[_Clash]:
    """One for each port of the host's Service that an older Service of the same pods declares otherwise."""
    seen: set[int] = set()
    for c in case.mesh.clusters:
        name, _, rest = case.host.partition(".")
        namespace = rest.partition(".")[0]
        own = c.get(Service, namespace, name) if case.host == names.service_host(name, namespace) else None
        if own is None or not own.spec.selector:
            continue
        rivals = _rivals(case.mesh, c, namespace).get(name, [])
        pods = [p for p in c.within(Pod, namespace).values() if _selects(own, p) and proxy_kind(p) == "sidecar"] if rivals else []
        if not pods:
            continue
        pod = min(pods, key=lambda p: p.name)
        older = [s for s in rivals if _selects(s, pod)]
        for i, port in enumerate(own.spec.ports):
            target = _target(port, pod)
            for other in sorted(older, key=_order):
                theirs = _protocol_at(other, pod, target) if target else ""
                if theirs and port.port not in seen:
                    mine = port_protocol(port)
                    if (_tcp(mine) and _http(theirs)) or (_http(mine) and _tcp(theirs)):
                        seen.add(port.port)
                        yield _Clash(c, pod, own, i, other, port, target)
                    break


def _rivals(mesh: Mesh, cluster: Cluster, namespace: str) -> Mapping[str, list[Service]]:
    """For each Service of a namespace the older ones whose selectors do not contradict its own."""
    space = cluster.within(Service, namespace)
    key = "rivals", cluster.name, namespace
    return mesh.now(key, lambda: mesh.once(key, (space,), lambda: _of_space(list(space.values()))))


def _of_space(services: list[Service]) -> dict[str, list[Service]]:
    keys = Counter(k for s in services for k in s.spec.selector or ())
    most = keys.most_common(1)[0][0] if keys else ""
    near: dict[str, list[Service]] = {}
    for s in services:
        near.setdefault((s.spec.selector or {}).get(most, ""), []).append(s)
    rest = near.pop("", [])
    out: dict[str, list[Service]] = {}
    for value, group in (*near.items(), ("", rest)):
        others = [*group, *rest] if value else services
        for own in group:
            found = [s for s in others if s is not own and _order(s) < _order(own) and _overlap(s, own)]
            if found:
                out[own.name] = found
    return out


def _order(service: Service) -> tuple[str, str]:
    return service.created, service.name


def _overlap(a: Service, b: Service) -> bool:
    """Whether the selectors of two Services do not exclude each other."""
    mine, theirs = a.spec.selector or {}, b.spec.selector or {}
    return bool(mine and theirs) and all(theirs.get(k, v) == v for k, v in mine.items())


def _selects(service: Service, pod: Pod) -> bool:
    return bool(service.spec.selector) and all(pod.labels.get(k) == v for k, v in (service.spec.selector or {}).items())


def _target(port: ServicePort, pod: Pod) -> int:
    """The number of the pod's port that a Service port leads to, 0 when its name is not known."""
    if isinstance(port.target_port, str):
        return pod.declared.get(port.target_port, 0)
    return port.target_port or port.port


def _protocol_at(service: Service, pod: Pod, target: int) -> str:
    """The protocol that a Service declares for a port of its pods, empty when it does not lead there."""
    return next((port_protocol(p) for p in service.spec.ports if p.protocol == "TCP" and _target(p, pod) == target), "")


def _http(protocol: str) -> bool:
    return HostPort(0, "", protocol).http


def _tcp(protocol: str) -> bool:
    return HostPort(0, "", protocol).tcp
