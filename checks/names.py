"""Istio's host rules: short names, wildcards, which of two hosts is more specific, and to whom something is exported.

Rules: semantics.md 3.1; pkg/config/host/name.go, names.go and pilot/pkg/model/config.go in istio/istio.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_T = TypeVar("_T")

DOMAIN = "cluster.local"
CLUSTERSET = "clusterset.local"


_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_is_v4 = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}").fullmatch


def is_ip(text: str) -> bool:
    """Whether `text` is an IP address (no prefix length)."""
    return _is_v4(text) is not None or (":" in text and _is_v6(text))


@lru_cache(maxsize=1 << 12)
def _is_v6(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def families(addresses: Iterable[str]) -> frozenset[int]:
    """4 and 6, for some IP addresses."""
    return frozenset(6 if ":" in a else 4 for a in addresses if a)


def is_wildcard(host: str) -> bool:
    """Whether a host begins with `*`."""
    return host.startswith("*")


def fqdn(host: str, namespace: str, domain: str = DOMAIN) -> str:
    """A short name completed with the namespace of the rule that says it; only a name without any dot is short."""
    if not host or host == "*" or "." in host or (":" in host and is_ip(host)):
        return host
    return f"{host}.{namespace}.svc.{domain}"


def service_host(name: str, namespace: str, domain: str = DOMAIN) -> str:
    """The host of a Kubernetes Service."""
    return f"{name}.{namespace}.svc.{domain}"


def clusterset_host(name: str, namespace: str) -> str:
    """The host under which a Service is called in all clusters that it is imported to (Multi-cluster Services)."""
    return f"{name}.{namespace}.svc.{CLUSTERSET}"


def gateway_name(name: str, namespace: str) -> str:
    """A gateway's name as `namespace/name`; `mesh` stays."""
    if name == "mesh":
        return name
    if "/" in name:
        ns, _, rest = name.partition("/")
        return f"{namespace}/{rest}" if ns == "." else name
    if "." not in name:
        return f"{namespace}/{name}"
    short, ns = name.split(".")[:2]
    return f"{ns}/{short}"


def matches(a: str, b: str) -> bool:
    """Whether two hosts can mean the same thing, either of them a wildcard."""
    if is_wildcard(a):
        if is_wildcard(b):
            return b[1:].endswith(a[1:]) if len(a) < len(b) else a[1:].endswith(b[1:])
        return b.endswith(a[1:])
    return a.endswith(b[1:]) if is_wildcard(b) else a == b


def subset_of(a: str, b: str) -> bool:
    """Whether everything that host `a` means is meant by `b` too."""
    if is_wildcard(a):
        return is_wildcard(b) and len(a) >= len(b) and a[1:].endswith(b[1:])
    return a.endswith(b[1:]) if is_wildcard(b) else a == b


def specificity(host: str) -> tuple[bool, int, str]:
    """A sort key: exact before wildcard, longer before shorter, then by name."""
    return is_wildcard(host), -len(host), host


def most_specific(host: str, exact: Mapping[str, _T], wildcards: Mapping[str, _T]) -> _T | None:
    """The value under the most specific of the hosts that match `host`, or None."""
    if is_wildcard(host):
        if host in wildcards:
            return wildcards[host]
    elif host in exact:
        return exact[host]
    if not wildcards:
        return None
    tail = host[1:] if is_wildcard(host) else host
    found = [w for w in wildcards if tail.endswith(w[1:])]
    return wildcards[min(found, key=specificity)] if found else None


def intersection(hosts: Iterable[str], others: Collection[str]) -> list[str]:
    """Of each pair the narrower host, without doubles, in order (host.Names.Intersection)."""
    out: list[str] = []
    for h in hosts:
        for o in others:
            narrow = h if subset_of(h, o) else o if subset_of(o, h) else None
            if narrow is not None and narrow not in out:
                out.append(narrow)
    return out


def of_server(hosts: Iterable[str], namespace: str) -> tuple[str, ...]:
    """The hosts of a Gateway's server with `.` and `*` namespaces resolved (sanitizeServerHostNamespace)."""
    out: list[str] = []
    for h in hosts:
        ns, slash, host = h.partition("/")
        if not slash:
            out.append(h)
        elif ns == ".":
            out.append(f"{namespace}/{host}")
        elif ns == "*":
            if host == "*":
                return ("*",)
            out.append(host)
        else:
            out.append(h)
    return tuple(out)


def for_namespace(hosts: Iterable[str], namespace: str) -> list[str]:
    """A server's hosts for VirtualServices of a namespace (host.NamesForNamespace)."""
    out: list[str] = []
    for h in hosts:
        ns, slash, name = h.partition("/")
        if not slash:
            out.append(h)
        elif ns in {namespace, "*"}:
            out.append(name)
    return out


def export_set(export_to: Iterable[str], namespace: str) -> frozenset[str]:
    """ExportTo with `.` written as the namespace."""
    return frozenset(namespace if e == "." else e for e in export_to)


def nearest(word: str, known: Iterable[str], limit: int = 5) -> tuple[str, ...]:
    """The known words most like `word`, nearest first, for "did you mean"; none when nothing is near."""
    import difflib  # noqa: PLC0415 - only a wrong word needs it, and start-up time counts

    every = list(known)
    names = every if len(every) <= _FEW else _beside(word, tuple(every))
    parts = {n.split(".")[0]: n for n in reversed(names)}
    first = word.split(".", maxsplit=1)[0]  # the rest of two Services' hosts is alike, whatever they are called
    alike = {p for p in parts if difflib.SequenceMatcher(None, p, first).ratio() >= _ALIKE}
    close = [n for n in difflib.get_close_matches(word, names, len(names) or 1, _ALIKE) if n.split(".")[0] in alike][:limit]
    close += [parts[p] for p in difflib.get_close_matches(first, list(parts), limit, _ALIKE)]
    if word and len(set(close)) < limit:
        close += [n for n in every if word in n]
    return tuple(dict.fromkeys(close))[:limit]


_ALIKE = 0.6
"""So much of two words is the same, of 1, where one may be meant by the other."""
_FEW = 200
"""So many words can all be compared with another one."""
_NEAR = 5
"""Of more of them so many are, before it and behind it."""


def _beside(word: str, known: tuple[str, ...]) -> list[str]:
    """Of very many words those that begin or end most like `word`, in their own order."""
    forth, back, places = _in_order(known)
    near: set[str] = set()
    for ordered, text in ((forth, word), (back, word[::-1])):
        at = bisect_left(ordered, text)
        around = ordered[max(0, at - _NEAR) : at + _NEAR]
        near.update(around if ordered is forth else (n[::-1] for n in around))
    return sorted(near, key=places.__getitem__)


@lru_cache(maxsize=4)
def _in_order(known: tuple[str, ...]) -> tuple[list[str], list[str], dict[str, int]]:
    """Words by how they begin, and written backwards by how they end; and the place of each among all."""
    return sorted(known), sorted(n[::-1] for n in known), {n: i for i, n in enumerate(known)}
