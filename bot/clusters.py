"""The registered clusters, live: each one a kubeconfig context, the cluster that this process runs in, or manifests in files.

What must stay true: a cluster that is down, slow or forbidden delays none of the others. What was read stays until the cluster itself says
otherwise; what cannot be read is named in `Cluster.unreadable`. A Cluster that was handed out never changes. Secrets of kubeconfigs, tokens
and certificates stay in here and are in no message.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import dataclasses
import difflib
import hashlib
import logging
import os
import ssl
import subprocess
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from bot import manifests
from bot.informers import Access, Informer, NoAccess, Pace, Server, patched
from checks import accesslog
from checks.mesh import Change, Cluster, Objects
from checks.resources import KIND_OF, KINDS, OPTIONAL, ConfigMap, Deployment, Kind, Pod, Resource, Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from bot.settings import Prometheus, RegisteredCluster

logger = logging.getLogger(__name__)

_RELOAD_S = 1.0
_NOT_YET = "it has not been read yet"
ELSEWHERE = "another bot watches it"
"""Why a cluster cannot be read here that is not followed here (`Clusters.watch_only`)."""


def is_elsewhere(cluster: Cluster) -> bool:
    """Whether a cluster is not read here because another bot watches it."""
    return cluster.unreadable.get("*") == ELSEWHERE


def elsewhere(cluster: Cluster) -> Cluster:
    """A cluster as it is known where another bot looks at it, and has not told of it."""
    return dataclasses.replace(cluster, unreadable={"*": ELSEWHERE})


class NoSuchContext(Exception):
    """A kubeconfig does not have the context that was asked for, or cannot be read; the message is one sentence."""


@dataclass(frozen=True)
class ClusterSource:
    """Where a registered cluster is read: a kubeconfig context (the current one when None), in-cluster, or the manifests at `path`.

    `namespaces` limits what is asked of an API server; kinds without namespaces are still read. `secrets` are the namespaces in which the
    names of Secrets are read, and nothing of what they hold; elsewhere no Secret is asked for. `deep` allows port-forwards to Envoys, istiods
    and ztunnels, `logs` the ends of logs, of which `access_log` is the proxies' format; `prometheus` counts the calls: probes alone use them.
    """

    name: str
    mesh: str = ""
    context: str | None = None
    kubeconfig: str | None = None
    in_cluster: bool = False
    path: str | None = None
    namespaces: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    deep: bool = False
    logs: bool = False
    access_log: str = accesslog.ISTIO
    prometheus: Prometheus | None = None

    @staticmethod
    def registered(cluster: RegisteredCluster) -> ClusterSource:
        """The source of a cluster that the settings file registers."""
        return ClusterSource(
            name=cluster.name,
            mesh=cluster.mesh,
            context=cluster.context,
            kubeconfig=None if cluster.kubeconfig is None else str(cluster.kubeconfig),
            in_cluster=cluster.in_cluster,
            path=None if cluster.path is None else str(cluster.path),
            namespaces=cluster.namespaces or (),
            secrets=cluster.secrets or (),
            deep=cluster.deep,
            logs=cluster.logs,
            access_log=cluster.access_log or accesslog.ISTIO,
            prometheus=cluster.prometheus,
        )


class Watch(NamedTuple):
    """What is known of one kind of one cluster (`*`: all of it, in files): when its last sign of life came, in seconds since the epoch."""

    cluster: str
    kind: str
    alive_at: float


def apply(cluster: Cluster, changes: Iterable[Change]) -> Cluster:
    """The cluster after `changes`; only the namespaces that they touch are copied, and `cluster` stays as it was."""
    by_kind: dict[type[Resource], list[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.kind, []).append(change)
    objects: Objects = cluster.objects
    for struct, some in by_kind.items():
        objects = _with(objects, struct, patched(objects.get(struct, {}), some))
    return dataclasses.replace(cluster, objects=objects)


def _with(objects: Objects, struct: type[Resource], found: Mapping[str, Mapping[str, Resource]]) -> Objects:
    """The objects with those of one kind replaced; a kind without objects has no entry."""
    if found:
        return {**objects, struct: found}
    return {s: namespaces for s, namespaces in objects.items() if s is not struct} if struct in objects else objects


# --- credentials -----------------------------------------------------------------------------------------------------------


def contexts(kubeconfig: str | None = None) -> tuple[str, ...]:
    """The contexts of a kubeconfig (default: $KUBECONFIG, else ~/.kube/config); raises NoSuchContext when it cannot be read."""
    path = _kubeconfig(kubeconfig)
    try:
        return _names(_merged(path).config)
    except _KUBECONFIG_ERRORS as error:
        raise NoSuchContext(f"The kubeconfig {path} cannot be read: {_line(error)}.") from None


def _kubeconfig(given: str | None) -> str:
    return given or os.environ.get("KUBECONFIG") or "~/.kube/config"


def _merged(path: str) -> Any:
    from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415 - 0.4 s that a command about files need not pay
    from kubernetes.config.kube_config import KubeConfigMerger  # noqa: PLC0415 - as above

    try:
        merger = KubeConfigMerger(path)
    except ConfigException as error:
        raise ValueError(_line(error)) from None
    if merger.config is None:
        raise FileNotFoundError("there is no such file")
    return merger


def _names(config: Any) -> tuple[str, ...]:
    return tuple(str(context.value["name"]) for context in config["contexts"].value)


# What kubernetes.config lets through when a kubeconfig has the wrong shape.
_KUBECONFIG_ERRORS = (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError)


def _line(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
    return text[:300] or type(error).__name__


class _Credentials:
    """What opens one API server, read again when the kubeconfig's content changes, when a token expires, and after it did not work.

    Blocking: files, and the kubeconfig's credential plugin. One thread at a time.
    """

    def __init__(self, source: ClusterSource) -> None:
        self._source = source
        self._configuration: Any = None
        self._stamp = b""
        self._trusted = False
        self._loaded = float("-inf")
        self._failed = ""
        self._failed_at = float("-inf")
        self._tls: tuple[object, ssl.SSLContext] | None = None

    def distrust(self) -> None:
        """The last access did not work: load it anew before the next one, but not more often than every second."""
        self._trusted = False

    def access(self) -> Access:
        """The way in, now; raises NoAccess."""
        # Every informer of the cluster asks: a plugin that takes seconds to fail must not be run for each of them.
        if self._failed and time.monotonic() - self._failed_at < _RELOAD_S:
            raise NoAccess(self._failed)
        try:
            access = self._fresh()
        except NoAccess as error:
            self._configuration, self._failed, self._failed_at = None, str(error), time.monotonic()
            raise
        self._failed = ""
        return access

    def _fresh(self) -> Access:
        from kubernetes.client.exceptions import OpenApiException  # noqa: PLC0415 - 0.4 s that a command about files need not pay
        from kubernetes.config.config_exception import ConfigException  # noqa: PLC0415 - as above
        from oauthlib.oauth2 import OAuth2Error  # noqa: PLC0415 - as above
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

        try:
            stamp = self._content()
            worn = not self._trusted and time.monotonic() - self._loaded > _RELOAD_S
            if self._configuration is None or stamp != self._stamp or worn:
                self._configuration = self._load()
                self._stamp, self._trusted, self._loaded = stamp, True, time.monotonic()
            # auth_settings() runs the plugin again, or reads the token's file again, when the token is about to expire.
            settings = self._configuration.auth_settings()
            headers = {s["key"]: s["value"] for s in settings.values() if s["in"] == "header" and s["value"]}
            secure = self._configuration.host.startswith("https")
            return Access(
                url=self._configuration.host.rstrip("/"),
                headers=headers,
                tls=self._context() if secure else None,
                server_name=self._configuration.tls_server_name,
                proxy=self._configuration.proxy,
            )
        except (ConfigException, OpenApiException, OAuth2Error, HTTPError, subprocess.SubprocessError, *_KUBECONFIG_ERRORS) as error:
            raise NoAccess(f"no credentials: {_line(error)}") from None

    def _content(self) -> bytes:
        """What the kubeconfig's files hold, as a digest; rotation is a change of content, not of a date."""
        if self._source.in_cluster:
            return b""
        digest = hashlib.sha256()
        for name in _kubeconfig(self._source.kubeconfig).split(os.pathsep):
            file = Path(name).expanduser()
            digest.update(file.read_bytes() if file.is_file() else b"-")
        return digest.digest()

    def _load(self) -> Any:
        from kubernetes import config  # noqa: PLC0415 - 0.4 s that a command about files need not pay
        from kubernetes.client import Configuration  # noqa: PLC0415 - as above
        from kubernetes.config.kube_config import KubeConfigLoader  # noqa: PLC0415 - as above

        configuration = Configuration()
        if self._source.in_cluster:
            config.load_incluster_config(client_configuration=configuration)
            return configuration
        path = _kubeconfig(self._source.kubeconfig)
        merger = _merged(path)
        known = _names(merger.config)
        if self._source.context is not None and self._source.context not in known:
            raise NoAccess(_no_such(self._source.context, known, path))
        # A refreshed OIDC token is written back, as kubectl does, where that is possible: the provider may have made the old one invalid.
        persist = merger.save_changes if all(os.access(p, os.W_OK) for p in merger.paths) else None
        loader = KubeConfigLoader(merger.config, active_context=self._source.context, config_base_path=None, config_persister=persist)
        loader.load_and_set(configuration)
        user = loader.current_context["context"].get("user")
        plugin = user and merger.config["users"].get_with_name(user, safe=True)
        if plugin and "exec" in plugin["user"] and not (configuration.api_key or configuration.cert_file):
            raise NoAccess(f"the credential plugin {plugin['user']['exec']['command']} of {path} gave no credentials")
        return configuration

    def _context(self) -> ssl.SSLContext:
        """The TLS context, built anew when a certificate's file is another one or has another content."""
        c = self._configuration
        key = (c.verify_ssl, *((f, Path(f).stat().st_mtime_ns) for f in (c.ssl_ca_cert, c.cert_file, c.key_file) if f))
        if self._tls is None or self._tls[0] != key:
            context = ssl.create_default_context(cafile=c.ssl_ca_cert)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # clusters' own authorities often lack a key identifier
            if not c.verify_ssl:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if c.cert_file:
                context.load_cert_chain(c.cert_file, c.key_file)
            self._tls = (key, context)
        return self._tls[1]


def server(source: ClusterSource, pace: Pace) -> Server:
    """The API server of a cluster that is not in files, to be used inside `async with`."""
    credentials = _Credentials(source)
    return Server(credentials.access, credentials.distrust, pace)


# --- one cluster -----------------------------------------------------------------------------------------------------------


class _Live:
    """A cluster behind an API server: its informers, and what they know together."""

    def __init__(self, source: ClusterSource, pace: Pace, *, once: bool) -> None:
        self.source = source
        self._pace = pace
        self._once = once
        self._informers: dict[tuple[Kind, str, str], Informer] = {}
        self._tasks: dict[tuple[Kind, str, str], asyncio.Task[None]] = {}
        self._istiods: dict[tuple[type[Resource], str, str], str] = {}
        self._objects: Objects = {}
        self.ready = False
        self.server: Server | None = None
        """The API server while this runs."""

    @property
    def settled(self) -> bool:
        """Whether every kind was read, or is known not to be readable."""
        return bool(self._informers) and self._config_maps() and all(i.settled for i in self._informers.values())

    @property
    def seen(self) -> int:
        """How many objects have been read so far."""
        return sum(i.seen for i in self._informers.values())

    def unreadable(self) -> Mapping[str, str]:
        """What cannot be read, and why: by kind, or `*` when it is the whole cluster."""
        informers = self._informers.values()
        lost = next((i.unreadable for i in informers if i.lost), "")
        if not self.ready:
            return {"*": lost or _NOT_YET}
        # Kinds that are absent or forbidden are asked so rarely that they may not have noticed yet.
        if lost and all(i.lost for i in informers if not i.absent and (i.lost or not i.unreadable)):
            return {"*": lost}
        return {i.kind.key: i.unreadable for i in informers if i.unreadable}

    def watches(self) -> list[Watch]:
        """The kinds that were ever read; of several namespaces the one that was silent for longest."""
        alive: dict[str, float] = {}
        for i in self._informers.values():
            if i.alive_at and not i.absent:
                alive[i.kind.key] = min(alive.get(i.kind.key, i.alive_at), i.alive_at)
        return [Watch(self.source.name, kind, at) for kind, at in alive.items()]

    def malformed(self) -> tuple[Any, ...]:
        """The objects that could not be read."""
        return tuple(m for i in self._informers.values() for m in i.malformed)

    def cluster(self) -> Cluster:
        """What is known now."""
        unreadable = self.unreadable()
        return Cluster(
            name=self.source.name,
            mesh=self.source.mesh,
            objects=self._objects,
            unreadable=unreadable,
            malformed=self.malformed(),
            read_at=max((i.alive_at for i in self._informers.values()), default=0.0),
            synced="*" not in unreadable,
        )

    async def run(self, tell: Callable[[Collection[Change]], None]) -> None:
        """Follow every kind until cancelled (`once`: until each was read); `tell` is called after each step, with what changed."""
        async with self._opened() as api, asyncio.TaskGroup() as group:

            def follow(kind: Kind, namespace: str, name: str = "") -> None:
                key = (kind, namespace, name)
                self._informers[key] = Informer(kind, api, cluster=self.source.name, namespace=namespace, name=name)
                self._tasks[key] = group.create_task(drain(key))

            async def drain(key: tuple[Kind, str, str]) -> None:
                informer = self._informers[key]
                async with aclosing(informer.changes(once=self._once)) as stream:
                    async for changes in stream:
                        self._gather(informer.kind)
                        self._note_istiods(changes)
                        gone = self._follow_config_maps(follow)
                        self.ready = self.ready or (self.settled and not all(i.lost for i in self._informers.values()))
                        tell([*changes, *gone])

            for kind in KINDS:
                if kind.struct is not ConfigMap:
                    for namespace in (self.source.namespaces if kind.namespaced else ()) or ("",):
                        follow(kind, namespace)
            for namespace in self.source.secrets:
                follow(KIND_OF[Secret], namespace)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Server]:
        async with server(self.source, self._pace) as opened:
            self.server = opened
            try:
                yield opened
            finally:
                self.server = None

    def _gather(self, kind: Kind) -> None:
        informers = [i for i in self._informers.values() if i.kind is kind]
        parts = [i.objects for i in informers]
        if kind in OPTIONAL:  # a namespace that was read and has none is another thing than one that nobody reads
            parts += [{i.namespace: {}} for i in informers if i.settled and not i.unreadable]
        whole: Mapping[str, Mapping[str, Resource]] = parts[0] if len(parts) == 1 else {}
        if len(parts) > 1:
            merged: dict[str, Mapping[str, Resource]] = {}
            for part in parts:
                for namespace, named in part.items():
                    merged[namespace] = {**merged.get(namespace, {}), **named}
            whole = merged
        if whole is not self._objects.get(kind.struct):
            self._objects = _with(self._objects, kind.struct, whole)

    def _note_istiods(self, changes: Iterable[Change]) -> None:
        """Keep where istiod runs, and in which revision: by its pods and its Deployment."""
        for change in changes:
            if change.kind is Pod or change.kind is Deployment:
                key = (change.kind, change.namespace, change.name)
                if change.new is not None and change.new.labels.get("app") == "istiod":
                    self._istiods[key] = change.new.labels.get("istio.io/rev", "default")
                else:
                    self._istiods.pop(key, None)

    def _config_maps(self) -> bool:
        """Whether istiod's ConfigMaps are being followed, which needs to know first where istiod is."""
        return any(i.kind.struct is ConfigMap for i in self._informers.values())

    def _follow_config_maps(self, follow: Callable[[Kind, str, str], None]) -> list[Change]:
        """Follow exactly istiod's own ConfigMaps: `istio` and `istio-<revision>` beside each istiod; what went with an istiod."""
        if not all(i.settled for i in self._informers.values() if i.kind.struct in {Pod, Deployment}):
            return []
        kind = KIND_OF[ConfigMap]
        wanted = {(kind, namespace, "istio") for _, namespace, _ in self._istiods}
        wanted |= {(kind, namespace, f"istio-{revision}") for (_, namespace, _), revision in self._istiods.items() if revision != "default"}
        wanted = wanted or {(kind, "istio-system", "istio")}  # where it is when this cluster is run by an istiod outside of it
        present = {key for key in self._informers if key[0] is kind}
        for key in wanted - present:
            follow(*key)
        gone: list[Change] = []
        for key in present - wanted:
            self._tasks.pop(key).cancel()
            left = self._informers.pop(key)
            gone += [Change(self.source.name, ConfigMap, ns, name, None) for ns, named in left.objects.items() for name in named]
        if gone:
            self._gather(kind)
        return gone


class _Recorded:
    """A cluster in files, read again when they change."""

    def __init__(self, source: ClusterSource, poll_s: float, *, once: bool) -> None:
        self.source = source
        self._path = source.path or ""
        self._poll_s = poll_s
        self._once = once
        self._cluster = Cluster(name=source.name, mesh=source.mesh, unreadable={"*": _NOT_YET}, synced=False)
        self._problem = ""
        self._seen_at = 0.0
        self.settled = False
        self.ready = False

    @property
    def seen(self) -> int:
        """How many objects have been read."""
        return _count(self._cluster)

    def unreadable(self) -> Mapping[str, str]:
        """What cannot be read: what the recording says of itself, or `*` when the files cannot be read now."""
        return {"*": self._problem} if self._problem else self._cluster.unreadable

    def watches(self) -> list[Watch]:
        """The files, if they were ever read."""
        return [Watch(self.source.name, "*", self._seen_at)] if self._seen_at else []

    def malformed(self) -> tuple[Any, ...]:
        """The objects and files that could not be read."""
        return self._cluster.malformed

    def cluster(self) -> Cluster:
        """What is known now; files that are still there and unchanged are a sign of life."""
        return dataclasses.replace(
            self._cluster, unreadable=self.unreadable(), read_at=self._seen_at, synced=self._cluster.synced and not self._problem
        )

    async def run(self, tell: Callable[[Collection[Change]], None]) -> None:
        """Read, and read again after each change, until cancelled; `tell` is called after each reading, with what changed."""
        done: object = None
        while True:
            started = time.monotonic()
            stamp = await asyncio.to_thread(_stamp, self._path)
            rest_s = max(self._poll_s, 20 * (time.monotonic() - started))  # looking at very many files must not become the work
            if stamp != done:
                try:
                    found = await asyncio.to_thread(
                        manifests.read, self._path, self.source.name, mesh=self.source.mesh, read_at=time.time()
                    )
                except manifests.BadSource as error:
                    self._problem, changes = str(error), []
                else:
                    self._problem, changes = "", self._become(found)
                done = stamp
                self.settled = True
                self.ready = self.ready or not self._problem
                tell(changes)
            if not self._problem:
                self._seen_at = time.time()
            if self._once or self._path == "-":
                return
            await asyncio.sleep(rest_s)
            # Files that are being written are left alone until they have been quiet for one look.
            while (again := await asyncio.to_thread(_stamp, self._path)) not in (done, stamp):
                stamp = again
                await asyncio.sleep(rest_s)

    def _become(self, found: Cluster) -> list[Change]:
        """The changes from what was known to what was found; what a broken file held before is kept, since nobody said that it is gone."""
        broken = {m.ref for m in found.malformed}
        objects = {struct: {ns: dict(named) for ns, named in namespaces.items()} for struct, namespaces in found.objects.items()}
        kept = []
        for struct, namespaces in self._cluster.objects.items():
            for namespace, named in namespaces.items():
                for name, o in named.items():
                    if o.ref in broken or self._cluster.origins.get(o.ref, ("", 0))[0] in broken:
                        now = objects.setdefault(struct, {}).setdefault(namespace, {})
                        if now.setdefault(name, o) is o:
                            kept.append(o)
        origins = {**{o.ref: self._cluster.origins[o.ref] for o in kept}, **found.origins}
        changes = _difference(self._cluster, objects)
        self._cluster = dataclasses.replace(found, objects=apply(self._cluster, changes).objects, origins=origins)
        return changes


def _count(cluster: Cluster) -> int:
    return sum(len(named) for namespaces in cluster.objects.values() for named in namespaces.values())


def _difference(old: Cluster, objects: Objects) -> list[Change]:
    """The changes that lead from a cluster's objects to others."""
    changes = []
    for struct in old.objects.keys() | objects.keys():
        before, after = old.objects.get(struct, {}), objects.get(struct, {})
        for namespace in before.keys() | after.keys():
            was, now = before.get(namespace, {}), after.get(namespace, {})
            changes += [Change(old.name, struct, namespace, name, None) for name in was.keys() - now.keys()]
            changes += [Change(old.name, struct, namespace, name, value) for name, value in now.items() if was.get(name) != value]
    return changes


def _stamp(path: str) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when the files of a source do: names, sizes, times; blocking."""
    found = []
    names = [path]
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        names += [os.path.join(folder, n) for n in sorted(files) if not n.startswith(".")]  # noqa: PTH118 - thousands of times a second
    for name in names:
        try:
            s = os.stat(name)  # noqa: PTH116 - as above
        except OSError:
            continue
        found.append((name, s.st_mtime_ns, s.st_size, s.st_ino))
    return tuple(found)


# --- all of them -----------------------------------------------------------------------------------------------------------


class _Inbox:
    """What one reader of changes has not taken yet: the latest change of each object, and whether a state changed."""

    def __init__(self) -> None:
        self.changes: dict[tuple[str, type[Resource], str, str], Change] = {}
        self.stirred = False
        self.filled = asyncio.Event()

    def put(self, changes: Iterable[Change], *, stirred: bool) -> None:
        for change in changes:
            self.changes[change[:4]] = change
        self.stirred = self.stirred or stirred
        if self.changes or self.stirred:
            self.filled.set()

    def take(self) -> tuple[tuple[Change, ...], bool]:
        taken = (tuple(self.changes.values()), self.stirred)
        self.changes, self.stirred = {}, False
        self.filled.clear()
        return taken


class Clusters:
    """The registered clusters, live, in the order of `sources`.

    Changes are gathered until nothing has changed for `gather_s`, `gather_max_s` at most. `poll_s` is how often files are looked at. With
    `once`, everything is read one time.
    """

    def __init__(
        self,
        sources: Sequence[ClusterSource],
        *,
        gather_s: float = 0.2,
        gather_max_s: float = 2.0,
        poll_s: float = 0.25,
        pace: Pace | None = None,
        once: bool = False,
    ) -> None:
        pace = pace or Pace()
        self._gather_s = gather_s
        self._gather_max_s = gather_max_s
        self._pace, self._poll_s = pace, poll_s
        self._once = once
        self._members = [self._member(s) for s in sources]
        self._only: frozenset[str] | None = None
        self._turned = asyncio.Event()
        self._inboxes: list[_Inbox] = []
        self._stirred = asyncio.Event()

    def _member(self, source: ClusterSource) -> _Live | _Recorded:
        if source.path is None:
            return _Live(source, self._pace, once=self._once)
        return _Recorded(source, self._poll_s, once=self._once)

    def watch_only(self, names: Collection[str]) -> None:
        """Follow these clusters alone from now on; what was read of others is forgotten."""
        self._only = frozenset(names)
        self._turned.set()

    def _follows(self, member: _Live | _Recorded) -> bool:
        return self._only is None or member.source.name in self._only

    async def run(self) -> None:
        """Follow every cluster that is to be followed until cancelled."""
        # asyncio keeps this much for each TLS stream; its 256 KiB make 90 MB of 400 streams for nothing.
        asyncio.sslproto.SSLProtocol.max_size = 32 * 1024
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._turned.clear()
                for i, member in enumerate(self._members):
                    name = member.source.name
                    if self._follows(member) and name not in tasks:
                        tasks[name] = group.create_task(member.run(self._teller(member)))
                    elif not self._follows(member) and (task := tasks.pop(name, None)) is not None:
                        task.cancel()
                        await asyncio.wait([task])
                        self._members[i] = self._member(member.source)
                        self._stir()
                if self._once:
                    return
                await self._turned.wait()

    def _stir(self) -> None:
        for inbox in self._inboxes:
            inbox.put((), stirred=True)
        self._stirred.set()

    def _teller(self, member: _Live | _Recorded) -> Callable[[Collection[Change]], None]:
        state = (False, member.unreadable(), member.malformed())
        ready = member.ready

        def tell(changes: Collection[Change]) -> None:
            nonlocal state, ready
            now = (member.settled, member.unreadable(), member.malformed())
            stirred = now != state
            if stirred and not self._once:
                _log(member.source.name, state[1], now[1])
            state = now
            # Until a cluster is ready it has no verdicts that a change could change; then it is there as a whole.
            known, ready = ready, member.ready
            for inbox in self._inboxes:
                inbox.put(changes if known else (), stirred=stirred)
            if stirred:
                self._stirred.set()

        return tell

    def clusters(self) -> tuple[Cluster, ...]:
        """What is known now of each cluster; one that was never read has `synced` False and the reason under `unreadable["*"]`."""
        return tuple(m.cluster() if self._follows(m) else elsewhere(m.cluster()) for m in self._members)

    def followed(self) -> tuple[Cluster, ...]:
        """As `clusters`, without those that are not followed here."""
        return tuple(member.cluster() for member in self._members if self._follows(member))

    def heed(self, counting: Mapping[str, Prometheus | None]) -> None:
        """Ask these Prometheuses from now on, by the names of their clusters."""
        for member in self._members:
            member.source = dataclasses.replace(member.source, prometheus=counting.get(member.source.name))

    def way(self, name: str) -> tuple[ClusterSource, Server | None]:
        """How a cluster is read, and its API server while it is followed here; None for one in files. Raises KeyError."""
        for member in self._members:
            if member.source.name == name:
                return member.source, member.server if isinstance(member, _Live) else None
        raise KeyError(name)

    def watches(self) -> list[Watch]:
        """Every kind of every cluster that was ever read, with its last sign of life."""
        return [watch for member in self._members for watch in member.watches()]

    def unsettled(self) -> list[str]:
        """The clusters of which nobody knows yet whether they can be read."""
        return [member.source.name for member in self._members if self._follows(member) and not member.settled]

    def seen(self) -> Mapping[str, int]:
        """How many objects of each cluster have been read so far, for a progress bar."""
        return {member.source.name: member.seen for member in self._members}

    def changes(self) -> AsyncIterator[tuple[Change, ...]]:
        """What changes from this call on, the last change of each object; an empty tuple says that what can be read has changed.

        A cluster that is read for the first time is such an empty tuple. What came and went between two tuples is told as gone.
        """
        inbox = _Inbox()
        self._inboxes.append(inbox)
        return self._gathered(inbox)

    async def _gathered(self, inbox: _Inbox) -> AsyncIterator[tuple[Change, ...]]:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await inbox.filled.wait()
                latest = loop.time() + self._gather_max_s
                while inbox.filled.is_set():
                    inbox.filled.clear()
                    try:
                        async with asyncio.timeout_at(min(loop.time() + self._gather_s, latest)):
                            await inbox.filled.wait()
                    except TimeoutError:
                        break
                changes, stirred = inbox.take()
                if changes:
                    yield changes
                if stirred:
                    yield ()
        finally:
            self._inboxes.remove(inbox)

    async def synced(self, timeout_s: float) -> bool:
        """Wait until every cluster was read, or is known not to be readable; whether all of them were read."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.unsettled():
                    self._stirred.clear()
                    await self._stirred.wait()
        except TimeoutError:
            pass
        return all(cluster.synced for cluster in self.clusters())


def _log(cluster: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """What can no longer be read, and what can again; `*` is the whole cluster."""
    for key in now.keys() - before.keys() | {k for k in now.keys() & before.keys() if before[k] == _NOT_YET != now[k]}:
        logger.warning("cluster %s: %s cannot be read: %s", cluster, key, now[key])
    for key in before.keys() - now.keys():
        logger.info("cluster %s: %s can be read", cluster, key)


async def snapshot(
    sources: Sequence[ClusterSource], *, timeout_s: float, progress: Callable[[str, int], None] | None = None
) -> tuple[Cluster, ...]:
    """Every cluster, read once, in the order of `sources`; `progress` gets a cluster's name and how many objects it has so far.

    Raises BadSource for files and NoSuchContext for a context that is not there. A cluster that does not answer is returned unsynced, with
    the reason.
    """
    for source in sources:
        if source.path is None and not source.in_cluster:
            known = contexts(source.kubeconfig)
            if source.context is not None and source.context not in known:
                raise NoSuchContext(_no_such(source.context, known, _kubeconfig(source.kubeconfig)))
    found: dict[ClusterSource, Cluster] = {}
    for source in sources:
        if source.path is not None:
            found[source] = await asyncio.to_thread(manifests.read, source.path, source.name, mesh=source.mesh, read_at=time.time())
            if progress:
                progress(source.name, _count(found[source]))
    live = [source for source in sources if source.path is None]
    clusters = Clusters(live, once=True)
    reporter = asyncio.create_task(_report(clusters, progress)) if progress else None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await clusters.run()
    finally:
        if reporter:
            reporter.cancel()
    late = {"*": f"it was not read within {timeout_s:g} s"}
    for source, cluster in zip(live, clusters.clusters(), strict=True):
        found[source] = dataclasses.replace(cluster, unreadable=late) if cluster.unreadable == {"*": _NOT_YET} else cluster
    return tuple(found[source] for source in sources)


async def _report(clusters: Clusters, progress: Callable[[str, int], None]) -> None:
    while True:
        for name, count in clusters.seen().items():
            progress(name, count)
        await asyncio.sleep(0.1)


def _no_such(context: str, known: tuple[str, ...], path: str) -> str:
    near = difflib.get_close_matches(context, known, 3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(known[:10]) or 'none'}."
    return f'There is no context "{context}" in {path}. {hint}'
