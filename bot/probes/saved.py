"""Saved evidence: what `istioctl bug-report` keeps of proxies and istiods, and what a test's `live/` folder holds, as `checks.evidence.Evidence`.

What must stay true: what is not there is not claimed, and what cannot be read is a `Skipped`. A file, a directory or an archive:

    proxies/<namespace>/<pod>/   clusters[.json], config_dump*, server_info*, stats.json or stats/prometheus, certs* (Envoy);
                                 config_dump alone, of a ztunnel
    ztunnel/<namespace>/<pod>/   config_dump[.json]
    istio/<namespace>/<pod>/     debug/syncz, debug/endpointShardz, debug/push_status, debug/clusterz, metrics, discovery.log (bug-report)
    istiod/<namespace>/<pod>/    syncz.json, endpointShardz.json, push_status.json, clusterz.json, metrics.txt, metrics.before.txt,
                                 discovery.log, version.json: {"version": "1.27.1", "revision": "default", "over_s": 60}
    logs/<namespace>/<pod>/      <container>.log, its access lines (checks.accesslog); of a bug-report proxies/<namespace>/<pod>/istio-proxy.log
    prometheus.json              what a Prometheus answered about hosts: {"host": …, "window_s": 300, "since": …, "answers": {"requests": …}}, or
                                 a list of such; each answer is what /api/v1/query answers, by the names of bot.probes.prometheus
    read_at                      when all this was read, RFC 3339; without it, when the files were written

A bug-report's folders stand under `bug-report/` (istio/istio, tools/bug-report/pkg/archive and content); any folder above is passed over.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bot.probes import envoy, istiod, logs, prometheus, ztunnel
from bot.probes.admin import MAX_BYTES, NotRead
from bot.probes.files import walk
from checks.evidence import Evidence
from checks.finding import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bot.probes.files import File
    from checks.evidence import AccessLog, EnvoyView, IstiodView, Traffic, ZtunnelView

MAX_PODS = 200
"""Proxies, ztunnels and istiods that are read of one archive; a whole fleet's are not held at once."""

MAX_TOTAL = 1 << 30
"""Bytes of all of them together, after which no further pod is begun: what is held of an Envoy is about as long as what it said."""

_OF_POD = re.compile(
    rf"(?:.*/)?(?:(proxies)/([^/]+)/([^/]+)/(?:{envoy.ANSWER.pattern})"
    r"|(logs|proxies)/([^/]+)/([^/]+)/[^/]+\.log"
    r"|(ztunnel)/([^/]+)/([^/]+)/config_dump[^/]*"
    r"|(istiod?)/([^/]+)/([^/]+)/(?:debug/)?(?:(?:syncz|endpointShardz|push_status|clusterz|version)(?:\.json)?|metrics(?:\.before)?(?:\.txt)?|[^/]+\.log))"
)
_READ_AT = re.compile(r"(?:.*/)?read_at")
_COUNTED = re.compile(r"(?:.*/)?prometheus\.json")


def read(path: str | Path, *, cluster: str, max_bytes: int = MAX_BYTES) -> Evidence:
    """Everything that is under a path, of one cluster; blocking. A path that cannot be read at all is evidence of nothing but that."""
    saved = _Saved(cluster, str(path))
    try:
        for file in walk(Path(path), _wanted, max_bytes):
            saved.take(file)
    except NotRead as e:
        saved.skipped.append(Skipped("envoy", cluster, f"{e}"))
    return saved.evidence()


def _wanted(name: str) -> bool:
    return any(known.fullmatch(name) for known in (_OF_POD, _READ_AT, _COUNTED))


class _Saved:
    """What was taken so far, by pod; each file is decoded at once, so that only what is used is held."""

    def __init__(self, cluster: str, path: str) -> None:
        self.cluster = cluster
        self.path = path
        self.read_at: float | None = None
        self.skipped: list[Skipped] = []
        self._envoys: dict[tuple[str, str], envoy.Seen] = {}
        self._istiods: dict[tuple[str, str], istiod.Seen] = {}
        self._ztunnels: dict[tuple[str, str], ZtunnelView] = {}
        self._logs: dict[tuple[str, str, str], AccessLog] = {}
        self._traffic: list[Traffic] = []
        self._left: set[tuple[str, str]] = set()
        self._length = 0

    def take(self, file: File) -> None:
        """One file."""
        of = _OF_POD.fullmatch(file.name)
        if of is None:
            self._about_all(file)
            return
        folder, namespace, pod = (part for part in of.groups() if part is not None)
        key = (namespace, pod)
        known = key in self._envoys or key in self._istiods or key in self._ztunnels
        many = len(self._envoys) + len(self._istiods) + len(self._ztunnels) >= MAX_PODS
        if not known and (many or self._length > MAX_TOTAL):
            self._left.add(key)
            return
        self._length += len(file.body)
        if folder in {"logs", "proxies"} and file.name.endswith(".log"):
            container = file.name.rpartition("/")[2].removesuffix(".log")
            self._logs[*key, container] = logs.of_text(file.body.decode(errors="replace"), self.cluster, *key, container, file.name)
        elif folder.startswith("istio"):
            where = istiod.Where(self.cluster, *key, self.path)
            replica = self._istiods.setdefault(key, istiod.Seen(where))
            self._try(lambda: replica.file(file), lambda e: where.skipped(e, "a part"))
        elif folder == "ztunnel" or (file.name.endswith("/config_dump") and ztunnel.is_dump(file.body)):
            at = ztunnel.Where(self.cluster, *key, self.path)
            self._try(lambda: self._ztunnels.update({key: ztunnel.view(file.body, at, file.saved_at)}), at.skipped)
        else:
            proxy = envoy.Where(self.cluster, *key, self.path)
            seen = self._envoys.setdefault(key, envoy.Seen(proxy))
            self._try(lambda: seen.file(file), lambda e: proxy.skipped(e, hosts=not seen.stranger))

    def _about_all(self, file: File) -> None:
        if _COUNTED.fullmatch(file.name):
            self._try(
                lambda: self._traffic.extend(prometheus.recorded(file.body, self.cluster, self.path, file.saved_at)),
                lambda e: Skipped(prometheus.KIND, self.cluster, f"{file.name} in {self.path} was not read: {e}"),
            )
            return
        try:
            self.read_at = datetime.fromisoformat(file.body.decode().strip()).timestamp()
        except ValueError:
            self.skipped.append(Skipped("envoy", self.cluster, f"{file.name} in {self.path} is no time, as 2026-11-22T14:02:00Z"))

    def _try(self, do: Callable[[], None], skipped: Callable[[NotRead], Skipped]) -> None:
        try:
            do()
        except NotRead as e:
            self.skipped.append(skipped(e))

    def evidence(self) -> Evidence:
        """All of it together."""
        envoys: list[EnvoyView] = []
        for seen in self._envoys.values():
            try:
                view, part = seen.saved(self.path)
            except NotRead as e:
                self.skipped.append(seen.where.skipped(e))
                continue
            envoys.append(view)
            self.skipped += [part] if part is not None else []
        if self._left:
            more = f"{self.path} has {len(self._left)} more pods than those that were read of it"
            self.skipped.append(Skipped("envoy", self.cluster, more))
        return Evidence(
            envoys=tuple(self._timed(envoys)),
            istiods=tuple(self._timed(seen.saved() for seen in self._istiods.values())),
            ztunnels=tuple(self._timed(self._ztunnels.values())),
            traffic=tuple(self._traffic),
            logs=tuple(self._logs.values()),
            skipped=tuple(dict.fromkeys(self.skipped)),
        )

    def _timed(self, views: Iterable[_View]) -> list[_View]:
        return [v if self.read_at is None else msgspec.structs.replace(v, read_at=self.read_at) for v in views]


_View = TypeVar("_View", "EnvoyView", "IstiodView", "ZtunnelView")
