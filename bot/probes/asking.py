"""What of running parts can be asked about one host, as probes: over the API server as far as a cluster's settings allow.

What must stay true: what is not allowed is not tried, and says what allows it; a pod, a replica or a cluster that does not answer costs its own
time-out and nothing that was read of others.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from bot.probes import Probe, admin, envoy, istiod, logs, pods, portforward, prometheus, whom, ztunnel
from bot.probes.admin import TIMEOUT_S, Admin, NotRead
from checks import accesslog
from checks.evidence import NOTHING, Evidence
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from enum import StrEnum

    from bot.clusters import Clusters
    from bot.informers import Server
    from bot.probes.whom import Replica
    from bot.settings import Prometheus
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh
    from checks.resources import Pod

ISTIOD_S = 9.0
"""For one istiod, which is read twice and may have the endpoints of a large mesh."""

ALL_S = 10.0
"""For all pods of one probe: less than `gather` allows, so that what was read of some is told where others hang."""

SCRAPE_S = 1.0
"""For one port at which a proxy may be scraped: what the network drops answers never."""

AT_ONCE = 6
REPLICAS = 6
"""Istiods of one cluster that are asked."""

_ADMIN = 15000


class Reach(NamedTuple):
    """What of one cluster may be asked, and how.

    `server` is its API server, None for a cluster in files or one that another bot watches. `deep` allows port-forward, `logs` the end of
    logs. `inside`: this process runs in the cluster, so that the addresses of its pods are those of its pods. `form` is its proxies' access log
    format. `prometheus` counts the calls of its callers. `files`: nothing runs that belongs to it, but what the settings name.
    """

    server: Server | None
    deep: bool = False
    logs: bool = False
    inside: bool = False
    form: str = accesslog.ISTIO
    prometheus: Prometheus | None = None
    files: bool = False


def registered(clusters: Clusters) -> Callable[[str], Reach | None]:
    """The reach of each registered cluster, as its settings allow it; None of one in files, of which `bot.probes.given` may know more."""

    def reach(name: str) -> Reach | None:
        source, server = clusters.way(name.partition("/")[0])  # a mesh of several in one cluster is called east/tenant-a
        if source.path is not None:
            return Reach(None, prometheus=source.prometheus, files=True) if source.prometheus is not None else None
        return Reach(server, source.deep, source.logs, source.in_cluster, source.access_log, source.prometheus)

    return reach


def probing(reach: Callable[[str], Reach | None]) -> Callable[[Diagnosis, Sequence[Mesh]], list[Probe]]:
    """The probes of a diagnosed host, by what can be reached of each of its clusters."""

    def probes(diagnosis: Diagnosis, meshes: Sequence[Mesh]) -> list[Probe]:
        asked = {c.name for c in diagnosis.clusters}
        hosts, counted = whom.hosts(diagnosis), prometheus.asked(diagnosis)
        found: list[Probe] = []
        for mesh in meshes:
            for cluster in mesh.clusters:
                way = reach(cluster.name) if cluster.name in asked else None
                if way is None:
                    continue
                if way.prometheus is not None:
                    found.append(Probe(prometheus.KIND, cluster.name, partial(prometheus.read, way.prometheus, cluster.name, counted)))
                if way.files:
                    continue
                serving = whom.servers(diagnosis, mesh, cluster)
                proxies = whom.envoys(diagnosis, mesh, cluster, serving)
                tunnels = whom.ztunnels(diagnosis, cluster, [*serving, *proxies])
                replicas = whom.istiods(mesh, cluster, proxies)
                if proxies:
                    found.append(Probe("envoy", cluster.name, partial(_envoys, way, cluster.name, proxies)))
                if proxies or tunnels:
                    found.append(Probe("logs", cluster.name, partial(_logs, way, cluster.name, [*proxies, *tunnels])))
                if tunnels:
                    found.append(Probe("ztunnel", cluster.name, partial(_ztunnels, way, cluster.name, tunnels)))
                if replicas:
                    found.append(Probe("istiod", cluster.name, partial(_istiods, way, cluster.name, replicas, hosts)))
        return found

    return probes


_NOT_HERE = "the cluster is not followed here, so that nobody can be asked in it"
_SHALLOW = "port-forward is not allowed here: `deep: true` of the cluster allows it, and `deep: true` in its chart grants it"
_SILENT = "logs may not be read here: `logs: true` of the cluster allows it, and `logs: true` in its chart grants it"


async def _envoys(way: Reach, cluster: str, proxies: Sequence[Pod]) -> Evidence:
    async def one(server: Server, pod: Pod, until: float) -> Evidence:
        where = envoy.Where(cluster, pod.namespace, pod.name, _source(pod, _ADMIN))
        try:
            async with _through(server, pod, _ADMIN, envoy.Request, min(until, time.monotonic() + TIMEOUT_S)) as of:
                view, part = await envoy.ask(of, where)
        except NotRead as e:
            return Evidence(skipped=(where.skipped(e),))
        return Evidence(envoys=(view,), skipped=(part,) if part is not None else ())

    if way.server is None:
        return Evidence(skipped=(Skipped("envoy", cluster, _NOT_HERE),))
    if not way.deep:
        found = await _each(partial(_scraped, cluster, pod) for pod in proxies if pod.addresses) if way.inside else NOTHING
        left = f"statistics alone were read: {_SHALLOW}" if found.scraped else _SHALLOW
        return found + Evidence(skipped=(Skipped("envoy", cluster, left),))
    return await _each(partial(one, way.server, pod) for pod in proxies)


async def _scraped(cluster: str, pod: Pod, until: float) -> Evidence:
    """What a proxy shows to scrapers, at the first of its ports that answers; nothing where the network does not allow it, which `_SHALLOW` tells of."""
    for port in envoy.SCRAPED:
        where = envoy.Where(cluster, pod.namespace, pod.name, _source(pod, port))
        with suppress(NotRead):
            async with admin.session() as session:
                deadline = min(until, time.monotonic() + SCRAPE_S)
                of = Admin(session, envoy.Scrape, _base(pod, port), where.at, deadline, SCRAPE_S)
                return Evidence(scraped=(await envoy.scrape(of, where),))
    return NOTHING


async def _logs(way: Reach, cluster: str, proxies: Sequence[Pod]) -> Evidence:
    """The ends of the logs of proxies, and of the application beside each, where connections that never came to a proxy are told."""

    async def one(server: Server, pod: Pod, container: str, until: float) -> Evidence:
        left = max(0.0, min(until - time.monotonic(), TIMEOUT_S))
        try:
            stamped = container != whom.PROXY  # an application's lines need not say when they were written
            text = await pods.log(server, pod.namespace, pod.name, container, patience_s=left, stamped=stamped)
        except NotRead as e:
            return Evidence(skipped=(Skipped("logs", cluster, f"the log of {container} in {pod.name}.{pod.namespace} was not read: {e}"),))
        source = f"{pod.namespace}/{pod.name} {container}, the last {pods.LOG_AGE_S // 60} min"
        log = await asyncio.to_thread(logs.of_text, text, cluster, pod.namespace, pod.name, container, source, way.form)
        return Evidence(logs=(replace(log, cut=log.cut or len(text) >= pods.LOG_BYTES or text.count("\n") >= pods.LOG_LINES),))

    if way.server is None or not way.logs:
        return Evidence(skipped=(Skipped("logs", cluster, _NOT_HERE if way.server is None else _SILENT),))
    return await _each(partial(one, way.server, pod, container) for pod in proxies for container in whom.containers(pod))


async def _ztunnels(way: Reach, cluster: str, tunnels: Sequence[Pod]) -> Evidence:
    async def one(server: Server, pod: Pod, until: float) -> Evidence:
        where = ztunnel.Where(cluster, pod.namespace, pod.name, _source(pod, _ADMIN))
        try:
            async with _through(server, pod, _ADMIN, ztunnel.Request, min(until, time.monotonic() + TIMEOUT_S)) as of:
                return Evidence(ztunnels=(await ztunnel.ask(of, where),))
        except NotRead as e:
            return Evidence(skipped=(where.skipped(e),))

    if way.server is None or not way.deep:
        return Evidence(skipped=(Skipped("ztunnel", cluster, _NOT_HERE if way.server is None else _SHALLOW),))
    return await _each(partial(one, way.server, pod) for pod in tunnels)


async def _istiods(way: Reach, cluster: str, replicas: Sequence[Replica], hosts: Sequence[str]) -> Evidence:
    """Each replica's own words: by port-forward everything, from inside the cluster its metrics alone, and its log where that is allowed."""

    async def one(server: Server, replica: Replica, until: float) -> Evidence:
        where = istiod.Where(cluster, replica.pod.namespace, replica.pod.name, _source(replica.pod, replica.port), replica.revision)
        views, lines = await asyncio.gather(said(server, replica, where, until), logged(server, where, until))
        if lines.istiods and views.istiods:
            (view,), (log,) = views.istiods, lines.istiods
            return Evidence(istiods=(replace(view, lines=log.lines),), skipped=views.skipped + lines.skipped)
        return views + lines

    async def said(server: Server, replica: Replica, where: istiod.Where, until: float) -> Evidence:
        if not way.deep and not (way.inside and replica.pod.addresses):
            return Evidence(skipped=(Skipped("istiod", cluster, _SHALLOW),))
        deadline = min(until, time.monotonic() + ISTIOD_S)
        try:
            if way.deep:
                async with _through(server, replica.pod, replica.port, istiod.Request, deadline) as of:
                    view, parts = await istiod.ask(of, where, hosts)
                return Evidence(istiods=(view,), skipped=tuple(parts))
            async with admin.session() as session:
                of = Admin(session, istiod.Request, _base(replica.pod, replica.port), where.at, deadline, ISTIOD_S)
                view, parts = await istiod.ask(of, where, hosts, debug=False)
            return Evidence(istiods=(view,), skipped=(*parts, Skipped("istiod", cluster, f"metrics alone were read: {_SHALLOW}")))
        except NotRead as e:
            return Evidence(skipped=(where.skipped(e),))

    async def logged(server: Server, where: istiod.Where, until: float) -> Evidence:
        if not way.logs:
            return Evidence(skipped=(Skipped("istiod", cluster, f"the log of istiod was not read: {_SILENT}"),))
        try:
            left = max(0.0, until - time.monotonic())
            text = await pods.log(server, where.namespace, where.pod, "discovery", patience_s=left)
        except NotRead as e:
            return Evidence(skipped=(where.skipped(e, "the log"),))
        view = istiod.Seen(where).view
        return Evidence(istiods=(replace(view, lines=istiod.lines(text), read_at=time.time()),))

    if way.server is None:
        return Evidence(skipped=(Skipped("istiod", cluster, _NOT_HERE),))
    found = await _each(partial(one, way.server, replica) for replica in replicas[:REPLICAS])
    left = len(replicas) - REPLICAS
    more = (Skipped("istiod", cluster, f"{left} more istiods were not asked than the {REPLICAS} that were"),) if left > 0 else ()
    return replace(found, skipped=found.skipped + more)  # who is connected to none of those that were asked may be to one of these


def _base(pod: Pod, port: int) -> str:
    ip = pod.addresses[0]
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{port}"


async def _each(asked: Iterable[Callable[[float], Awaitable[Evidence]]]) -> Evidence:
    """All of them, a few at once; each is told until when (on the monotonic clock) it must have its answer."""
    until, turn = time.monotonic() + ALL_S, asyncio.Semaphore(AT_ONCE)

    async def one(ask: Callable[[float], Awaitable[Evidence]]) -> Evidence:
        async with turn:
            return await ask(until)

    found = sum(await asyncio.gather(*map(one, asked)), NOTHING)
    return replace(found, skipped=tuple(dict.fromkeys(found.skipped)))  # what is not allowed is so for all of them


@asynccontextmanager
async def _through(server: Server, pod: Pod, port: int, requests: type[StrEnum], deadline: float) -> AsyncIterator[Admin]:
    """The way to a port of a pod, in its turn among all that is asked of this API server at once. Raises NotRead."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            await server.sockets.acquire()
    except TimeoutError:
        raise NotRead("it was not its turn in time: others are asking this cluster's pods") from None
    try:
        left = max(0.0, deadline - time.monotonic())
        async with portforward.session(server, pod.namespace, pod.name, port, patience_s=left) as session:
            yield Admin(session, requests, f"http://localhost:{port}", _source(pod, port), deadline, round(left, 1))
    finally:
        server.sockets.release()


def _source(pod: Pod, port: int) -> str:
    """Where something was read, for people: `shop/web-7f:15000`."""
    return f"{pod.namespace}/{pod.name}:{port}"
