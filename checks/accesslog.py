"""Access logs: what lines of a proxy's log say of calls, those that say the same counted.

Read are Istio's default text format, its JSON format, any other format that is given as Envoy's format string, and ztunnel's lines. What is no
access line is passed over, or kept where it tells of trouble; nothing that a log holds raises.
Sources: EnvoyTextLogFormat and EnvoyJSONLogFormatIstio in pilot/pkg/model/telemetry_logging.go (istio/istio), Envoy's access log command
operators, ztunnel's src/proxy/metrics.rs (istio/ztunnel).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from checks.evidence import Access, LogLine

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

ISTIO = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% '
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" '
    "%UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default text format."""
GROUPS = 2_000
"""Different lines that are counted of one log; what comes after them is left out, and said to be."""
KEPT = 100
"""Lines of trouble that are kept of one log, the last ones."""
_LONGEST = 4_000  # characters of a line that are read

_FIELDS = {
    "START_TIME": "start_time",
    "RESPONSE_CODE": "response_code",
    "RESPONSE_FLAGS": "response_flags",
    "RESPONSE_CODE_DETAILS": "response_code_details",
    "CONNECTION_TERMINATION_DETAILS": "connection_termination_details",
    "UPSTREAM_TRANSPORT_FAILURE_REASON": "upstream_transport_failure_reason",
    "REQ(:AUTHORITY)": "authority",
    "UPSTREAM_HOST": "upstream_host",
    "UPSTREAM_CLUSTER": "upstream_cluster",
    "UPSTREAM_CLUSTER_RAW": "upstream_cluster",
    "DOWNSTREAM_LOCAL_ADDRESS": "downstream_local_address",
    "REQUESTED_SERVER_NAME": "requested_server_name",
    "ROUTE_NAME": "route_name",
}
"""The operators that are read, with the names that Istio's JSON format gives them."""
_KEY = (
    "response_code",
    "response_flags",
    "response_code_details",
    "upstream_transport_failure_reason",
    "connection_termination_details",
    "upstream_cluster",
    "authority",
    "requested_server_name",
    "route_name",
)
_OPERATOR = re.compile(r"%([A-Z_0-9]+(?:\([^)%]*(?:%[^)%]*)*\))?)(?::\d+)?%")
_EMPTY = {"-", "", "null", "None"}
_TROUBLE = re.compile(
    r"\b(?:warn(?:ing)?|error|critical|fatal|panic)\b|ENOTFOUND|EAI_AGAIN|NXDOMAIN|no such host|UnknownHost|ECONNREFUSED|connection refused|[Nn]ame or service not known"
    r"|Temporary failure in name resolution|getaddrinfo",
    re.IGNORECASE,
)


class Read(NamedTuple):
    """What some lines say: `lines` access lines from `since` to `until` (seconds since the epoch, 0 where they do not say), `cut` where there were more kinds."""

    accesses: tuple[Access, ...]
    lines: int
    since: float
    until: float
    cut: bool
    other: tuple[LogLine, ...]


def read(lines: Iterable[str], form: str = ISTIO) -> Read:
    """The accesses of a log, the most frequent first; `form` is the proxy's format string where it is neither Istio's nor JSON."""
    pattern = _pattern(form)
    groups: dict[tuple[str, ...], list[Any]] = {}
    other: list[LogLine] = []
    count, since, until, cut = 0, "", "", False
    for text in lines:
        line = text[:_LONGEST].rstrip("\n")
        match = pattern.fullmatch(line)
        found: Mapping[str, str] | None = match.groupdict() if match is not None else fields(line) or _ztunnel(line)
        if found is None:
            if _TROUBLE.search(line):
                other.append(LogLine(moment(line[:40].strip("[").partition(" ")[0].rstrip("]")), line))
                del other[:-KEPT]
            continue
        count += 1
        at = found.get("start_time") or ""
        since, until = since or at, at or until
        meant = "" if (found.get("upstream_cluster") or "") not in _EMPTY else found.get("downstream_local_address") or ""
        key = (*[found.get(f) or "" for f in _KEY], meant)
        group = groups.get(key)
        if group is not None:
            group[0] += 1
            group[2] = at
        elif len(groups) < GROUPS:
            groups[key] = [1, at, at, found.get("upstream_host") or "", line]
        else:
            cut = True
    made = sorted((_access(key, *group) for key, group in groups.items()), key=lambda a: -a.count)
    return Read(tuple(made), count, moment(since), moment(until), cut, tuple(other))


def moment(text: str) -> float:
    """RFC 3339 text as seconds since the epoch; 0 where it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _access(key: tuple[str, ...], count: int, first: str, last: str, upstream: str, line: str) -> Access:
    code, flags, details, failure, termination, cluster, authority, sni, route, meant = ("" if k in _EMPTY else k for k in key)
    return Access(
        count=count,
        first=moment(first),
        last=moment(last),
        code=int(code) if code.isascii() and code.isdigit() else 0,
        flags=tuple(flags.split(",")) if flags else (),
        details=details,
        failure=failure,
        termination=termination,
        envoy_cluster=cluster,
        upstream="" if upstream in _EMPTY else upstream,
        authority=authority,
        server_name=sni,
        route=route,
        at=meant,
        line=line,
    )


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """A format string as a pattern of its lines, with a group for each operator that is read."""
    form = form.rstrip("\n")
    made, at, named = [], 0, set[str]()
    for operator in _OPERATOR.finditer(form):
        made.append(re.escape(form[at : operator.start()]))
        at = operator.end()
        before, after = form[operator.start() - 1 : operator.start()], form[at : at + 1]
        inside = '[^"]*' if before == '"' or after == '"' else r"[^\]]*" if after == "]" else "[^ ]*"
        name = operator[1].partition("(")[0] if operator[1].startswith("START_TIME") else operator[1]
        field = _FIELDS.get(name)
        if field is None or field in named:
            made.append(inside)
        else:
            named.add(field)
            made.append(f"(?P<{field}>{inside})")
    return re.compile("".join([*made, re.escape(form[at:])]))


def operators(form: str) -> set[str]:
    """The fields that a format string tells of those that are read: a format without any of them is no use."""
    return {f for op in _OPERATOR.finditer(form) if (f := _FIELDS.get(op[1])) is not None}


def concerns(access: Access, host: str, clusters: Collection[str] = ()) -> bool:
    """Whether a call was one of a host: by the Envoy cluster that took it, else by the name that was called, short ones of Services included."""
    if access.envoy_cluster in clusters or access.envoy_cluster.endswith((f"|{host}", f"_.{host}")):
        return True
    if access.envoy_cluster.count("|") == 3 and not access.envoy_cluster.startswith("inbound"):
        return False
    called = access.authority.rpartition(":")[0] if access.authority.rpartition(":")[2].isdigit() else access.authority
    name, _, rest = host.partition(".")
    spelled = {host}
    if rest.endswith(".svc.cluster.local"):
        namespace = rest.partition(".")[0]
        spelled |= {name, f"{name}.{namespace}", f"{name}.{namespace}.svc"}
    return called.lower() in spelled or access.server_name.lower() == host


# --- one line ----------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"([^"]*)"|([^\s"]+)')
_START = re.compile(r'\] +"[^"]*" +(?=[0-9]{1,3} )')
# The fields that follow the last quoted one of Istio's format.
_TAIL = (
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
)


def fields(line: str) -> Mapping[str, str] | None:
    """The fields of one access line by the names of Istio's JSON format: that, Istio's text format, or Envoy's own; None for anything else."""
    return _json_line(line) or _text_line(line)


_Value = str | int | float | None


class _Json(msgspec.Struct, frozen=True):
    start_time: _Value = None
    response_code: _Value = None
    response_flags: _Value | msgspec.UnsetType = msgspec.UNSET
    response_code_details: _Value | msgspec.UnsetType = msgspec.UNSET
    connection_termination_details: _Value = None
    upstream_transport_failure_reason: _Value = None
    authority: _Value = None
    upstream_host: _Value = None
    upstream_cluster: _Value | msgspec.UnsetType = msgspec.UNSET
    downstream_local_address: _Value = None
    requested_server_name: _Value = None
    route_name: _Value = None


_JSON = msgspec.json.Decoder(_Json)


def _json_line(line: str) -> dict[str, str] | None:
    start, end = line.find("{"), line.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        found = _JSON.decode(line[start : end + 1].encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return None
    if found.response_flags is found.response_code_details is found.upstream_cluster is msgspec.UNSET:
        return None
    return {f: _field(getattr(found, f)) for f in _Json.__struct_fields__}


def _field(value: _Value | msgspec.UnsetType) -> str:
    text = "" if value is None or value is msgspec.UNSET else str(value)
    return "" if text in _EMPTY else text


def _text_line(line: str) -> dict[str, str] | None:
    begun = _START.search(line)
    if begun is None:
        return None
    told = [(m[1] is not None, m[1] if m[1] is not None else m[2]) for m in _TOKEN.finditer(line, begun.end())]
    quoted = [i for i, (is_quoted, _) in enumerate(told) if is_quoted]
    own = len(quoted) == 5  # Envoy's default format has no details, and ends with the address that it sent to
    if not own and (len(quoted) < 6 or quoted[0] != 4):
        return None
    found = {"response_code": told[0][1], "response_flags": told[1][1], "start_time": line[: begun.start()].rpartition("[")[2]}
    if not own:
        found |= {"response_code_details": told[2][1], "connection_termination_details": told[3][1]}
        found["upstream_transport_failure_reason"] = told[4][1]
    # A user agent with quotation marks in it moves what comes before these two, never these.
    found |= {"authority": told[quoted[-2]][1], "upstream_host": told[quoted[-1]][1]}
    found |= dict(zip(_TAIL, (text for _, text in told[quoted[-1] + 1 :]), strict=False))
    return {key: _field(value) for key, value in found.items()}


_PAIR = re.compile(r'([a-z_.]+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')


def _ztunnel(line: str) -> dict[str, str] | None:
    """A connection as ztunnel tells of it: no code and no flag, its error as the reason."""
    if "src." not in line or "dst." not in line or "connection " not in line:
        return None
    found = {m[1]: m[2] if m[2] is not None else m[3] for m in _PAIR.finditer(line)}
    if "dst.addr" not in found:
        return None
    return {
        "start_time": line.partition("\t")[0].partition(" ")[0],
        "authority": found.get("dst.service", ""),
        "upstream_host": found["dst.addr"],
        "upstream_transport_failure_reason": found.get("error", ""),
    }


def of_file(text: str) -> Iterator[str]:
    """The lines of a saved log, without the time that `kubectl logs --timestamps` puts before each."""
    return (_STAMP.sub("", line) for line in text.splitlines())


_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z (?=[\[{])")
