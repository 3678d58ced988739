"""Where to look next: addresses in Kiali, Grafana and Jaeger, for one host and the time of its fault. Pure.

What must stay true: names from clusters are data, quoted before they are put into an address; what the settings do not give is not linked to.

Sources: Kiali's frontend/src/app/History.ts (`/console` below its web root, `from` and `to` in milliseconds, no `to` is now, `clusterName`); Jaeger's
SearchTracePage (`service`, `start` and `end` in microseconds, `lookback=custom`, `tags`); Istio names services in traces `app.namespace`; Grafana's `from` and `to`
are milliseconds or `now`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

from bot.alerts import service_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACEHOLDERS = ("namespace", "service", "host", "cluster", "from", "to", "from_s", "to_s", "from_us", "to_us")
"""What a template may hold in braces: `from` and `to` in milliseconds (`to` is `now` while it lasts), in seconds and in microseconds."""
TOOLS = ("kiali", "grafana", "jaeger")
LONGEST = 900
"""Characters of an address; a longer one is not shown."""
_KIALI = "/console/namespaces/{namespace}/services/{service}?clusterName={cluster}&from={from}"
_KIALI_SPACE = "/console/graph/namespaces?namespaces={namespace}&clusterName={cluster}"
_JAEGER = "/search?service={service}.{namespace}&start={from_us}&end={to_us}&lookback=custom&limit=50&tags=%7B%22error%22%3A%22true%22%7D"
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")
_BEFORE_S, _AFTER_S = 15 * 60.0, 5 * 60.0  # what is shown around a fault
_LASTS_S = 24 * 3600.0  # where "now" cannot be said, what still lasts is shown for so long


class About(NamedTuple):
    """What is looked at: a host, the namespace of the object that is at fault, the CLUSTER_ID, and from when to when (seconds since the epoch; None: it lasts)."""

    host: str
    namespace: str
    cluster: str
    since: float
    until: float | None


def wrong(template: str) -> str | None:
    """Why this is no address or template of one; None if it is."""
    try:
        parts = urlsplit(template)
        host, named = parts.hostname, parts.username is not None or parts.password is not None
    except ValueError:
        host, named = None, False
    if not re.match(r"https?://[^\s{}<>|\"\\]+(?:[^\s<>|\"\\]*)\Z", template) or not host:
        return "must be an address such as https://kiali.example/kiali"
    if named:
        return "must hold no user name or password: everybody who reads an alert reads it"
    for found in _BRACES.finditer(template):
        if found[1] not in PLACEHOLDERS:
            return f"holds {found[0]}, which stands for nothing; known are {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}"
    return None


def links(given: dict[str, str], about: About) -> list[tuple[str, str]]:
    """The tools that are given (address or template, by `TOOLS`), each with the address for this."""
    found = ((tool.capitalize(), _filled(template, about)) for tool in TOOLS for template in _templates(tool, given.get(tool, ""), about))
    return [(name, url) for name, url in found if len(url) <= LONGEST]


def _templates(tool: str, given: str, about: About) -> Iterator[str]:
    """The template of a tool: as it is given, or below the address that is given; none where the tool has nothing to show."""
    base, service = given.rstrip("/"), service_namespace(about.host) is not None
    if not given:
        return
    if _BRACES.search(given) or tool == "grafana":
        yield given
    elif tool == "kiali":
        base = base.removesuffix("/console")
        if service:
            yield base + _KIALI + ("&to={to}" if about.until is not None else "")
        elif about.namespace:
            yield base + _KIALI_SPACE
    elif service:
        yield base + _JAEGER


def _filled(template: str, about: About) -> str:
    begin, end = about.since - _BEFORE_S, (about.until + _AFTER_S) if about.until is not None else about.since + _LASTS_S
    own = service_namespace(about.host)
    values = {
        "namespace": own or about.namespace,
        "service": about.host.partition(".")[0] if own else about.host,
        "host": about.host,
        "cluster": about.cluster,
        "from": f"{begin * 1e3:.0f}",
        "to": f"{end * 1e3:.0f}" if about.until is not None else "now",
        "from_s": f"{begin:.0f}",
        "to_s": f"{end:.0f}",
        "from_us": f"{begin * 1e6:.0f}",
        "to_us": f"{end * 1e6:.0f}",
    }
    return _BRACES.sub(lambda m: quote(values.get(m[1] or "", ""), safe=""), template)
