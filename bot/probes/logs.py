"""Reads the logs of proxies, gateways and the app, from files or through the API server, as `checks.evidence.AccessLog`."""

from __future__ import annotations

from bot.probes.whom import PROXY
from checks import accesslog
from checks.evidence import AccessLog


def of_text(text: str, cluster: str, namespace: str, pod: str, container: str, source: str, form: str = accesslog.ISTIO) -> AccessLog:
    """What a log says; `form` is the proxy's access log format where it is neither of Istio's. Of an application the stamps say when it said it."""
    read = accesslog.read(accesslog.of_file(text) if container == PROXY else text.splitlines(), form)
    return AccessLog(
        cluster, namespace, pod, container, read.accesses, read.lines, read.since, read.until, source, cut=read.cut, other=read.other
    )
