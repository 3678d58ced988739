"""svc-port-not-exposed (MESH316)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from checks import names
from checks.answers import Viewpoint
from checks.case import Case, short
from checks.finding import Finding, HostCue, check
from checks.mesh import WORKLOADS
from checks.resources import Service, Sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.istiod import Istiod
    from checks.mesh import Cluster, Mesh
    from checks.registry import HostService
    from checks.resources import Resource, Workload

_ADDRESS = re.compile(r"(?<![\w.-])([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?){0,4}):(\d{2,5})(?!\d)")


class _Dials(NamedTuple):
    """An object that says that its pods, or its namespace's, call a port: what says so, and where."""

    cluster: str
    by: Resource
    path: str
    said: str
    port: int


def _meant(case: Case) -> bool:
    """A workload says that it calls the host."""
    return case.host in case.mesh.now(("dialled",), partial(_dialled, case.mesh))


@HostCue
def _listened(istiod: Istiod) -> Iterable[str]:
    """A Sidecar listens for the host on a port of its own."""
    every = (e for s in istiod.all(Sidecar) if isinstance(s, Sidecar) for e in s.spec.egress or () if e.port is not None)
    return [h.rpartition("/")[2] for e in every for h in e.hosts or ()]


@check("svc-port-not-exposed", when=(_meant, _listened))
def svc_port_not_exposed(case: Case) -> Iterator[Finding]:
    """Callers dial a port that the Service does not have.

    A Service answers on its own ports alone, whatever its pods listen on (`port`, not `targetPort`). A proxy has no listener for another port
    and passes the connection on to the Service's address, where nobody answers: it times out or is refused (flag UF); under REGISTRY_ONLY it is
    502. That a caller means to dial it is read from the environment and the arguments of workloads (only in manifests: a running bot keeps neither)
    and from Sidecars' egress listeners.

    How to see it: `kubectl get service NAME` lists the ports; the access log shows the cluster PassthroughCluster or BlackHoleCluster.

    How to fix it: call a port that the Service has, or add the port to the Service.
    """
    service = _service(case)
    if service is None:
        return
    have = {p.number for c in case.mesh.clusters for s in case.mesh.istiod(c.name).by_host.get(case.host, ()) for p in s.ports}
    found: dict[tuple[str, str, int], list[_Dials]] = {}
    for d in [*_dialled(case.mesh).get(case.host, ()), *_sidecars(case)]:
        if d.port not in have and case.asked(d.port):
            found.setdefault((d.cluster, d.by.ref, d.port), []).append(d)
    for (cluster, ref, port), dials in found.items():
        first = dials[0]
        targets = [p.number for p in service.ports if p.target == port]
        meant = targets[0] if targets else next(iter(sorted(have)), 0)
        yield case.finding(
            "svc-port-not-exposed",
            cluster=cluster,
            resource=ref,
            path=first.path,
            message=f"Every call of {ref} to {short(case.host)}:{port} fails: {service.sources[0][1]} has no port {port}.",
            share=1.0,
            viewpoints=_viewpoints(case, first),
            evidence=(
                f"{ref}: {first.said}",
                f"{service.sources[0][1]} in {_home(case, service)}: ports {', '.join(map(str, sorted(have)))}",
                *((f"{port} is the targetPort of port {targets[0]}",) if targets else ()),
            ),
            fix=f"Call {short(case.host)}:{meant}, or add port {port} to {service.sources[0][1]}.",
            patch=_patch(case, service, port),
            commands=(f"kubectl -n {service.namespace} get service {service.name} -o wide",),
        )


def _home(case: Case, service: HostService) -> str:
    """The first cluster that has the Service."""
    return next((c.name for c in case.mesh.clusters if c.get(Service, service.namespace, service.name) is not None), "the mesh")


def _service(case: Case) -> HostService | None:
    """The host's Kubernetes Service, if it has an address of its own: a headless one is dialled at its pods, on any port."""
    for c in case.mesh.clusters:
        for s in case.mesh.istiod(c.name).by_host.get(case.host, ()):
            if s.kubernetes and s.resolution == "static":
                return s
    return None


def _viewpoints(case: Case, dials: _Dials) -> tuple[Viewpoint, ...]:
    everyone = [*(v.callers for v in case.views), *case.blind]
    mine = [v for c in everyone for v in c.viewpoints if (v.cluster, v.namespace) == (dials.cluster, dials.by.namespace)]
    return tuple(dict.fromkeys(mine)) or (Viewpoint(dials.cluster, "none", dials.by.namespace),)


def _sidecars(case: Case) -> Iterator[_Dials]:
    """Egress listeners on one port for exactly this host."""
    for c in case.mesh.primaries:
        named = case.mesh.once(("egress ports", c.name), (c.objects.get(Sidecar),), lambda c=c: _egress(c))  # type: ignore[misc]
        yield from named.get(case.host, ())


def _egress(cluster: Cluster) -> dict[str, list[_Dials]]:
    out: dict[str, list[_Dials]] = {}
    for s in cluster.sorted(Sidecar):
        for i, e in enumerate(s.spec.egress or ()):
            if e.port is None or not e.port.number or e.port.protocol.upper() == "HTTP_PROXY":
                continue
            for h in e.hosts or ():
                host = h.rpartition("/")[2]
                said = f"egress listener on port {e.port.number} for {host}"
                out.setdefault(host, []).append(_Dials(cluster.name, s, f"spec.egress[{i}].port", said, e.port.number))
    return out


def _dialled(mesh: Mesh) -> dict[str, list[_Dials]]:
    """What workloads' environments say of hosts and ports, by host."""
    made_of = tuple(c.objects.get(kind) for c in mesh.clusters for kind in WORKLOADS)

    def index() -> dict[str, list[_Dials]]:
        out: dict[str, list[_Dials]] = {}
        for c in mesh.clusters:
            for kind in WORKLOADS:
                for namespace, space in c.objects.get(kind, {}).items():
                    found = mesh.once(("dials", c.name, kind, namespace), (space,), lambda c=c, k=kind, n=namespace: _of_space(c, k, n))  # type: ignore[misc]
                    for host, dials in found:
                        out.setdefault(host, []).append(dials)
        return out

    return mesh.once(("dialled",), made_of, index)


def _of_space(cluster: Cluster, kind: type[Workload], namespace: str) -> list[tuple[str, _Dials]]:
    out: list[tuple[str, _Dials]] = []
    for w in sorted(cluster.within(kind, namespace).values(), key=lambda w: w.name):
        for i, container in enumerate(w.spec.template.spec.containers):
            if not container.env and not container.args:
                continue
            said = [("env", e.name, e.value) for e in container.env or ()]
            said += [("args", "an argument", a) for a in container.args or () if container.name != "istio-proxy"]
            for field, name, text in said:
                for m in _ADDRESS.finditer(text.lower()):
                    path = f"spec.template.spec.containers[{i}].{field}"
                    out.append((_host(m[1], namespace), _Dials(cluster.name, w, path, f"{name} names {m[1]}:{m[5]}", int(m[5]))))
    return out


def _host(text: str, namespace: str) -> str:
    """The FQDN that DNS makes of a name in a namespace."""
    parts = text.split(".")
    if len(parts) == 1:
        return names.service_host(text, namespace)
    if len(parts) == 2 or (len(parts) == 3 and parts[2] == "svc"):
        return names.service_host(parts[0], parts[1])
    return text


def _patch(case: Case, service: HostService, number: int) -> str | None:
    """The port added, where it is one that the pods are known to listen on, and one cluster has the Service."""
    own = [(c.name, s) for c in case.mesh.clusters if (s := c.get(Service, service.namespace, service.name)) is not None]
    like = next((p for p in own[0][1].spec.ports if p.target_port == number), None) if len(own) == 1 else None
    if like is None:
        return None
    speaks = {"appProtocol": like.app_protocol} if like.app_protocol else {}
    port = {"name": f"{like.name or 'port'}-{number}", "port": number, "targetPort": number, "protocol": like.protocol, **speaks}
    return case.patch(own[0][0], own[0][1], (("spec", "ports", len(own[0][1].spec.ports)), port))
