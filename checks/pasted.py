"""What somebody pastes who met an error: an access line, curl's output, a body, a sentence; read for the host, the Envoy cluster and the response flag.

What must stay true: any text is read, in time proportional to its length, and nothing is raised; what is not unmistakable is left out, and what may only
be a host stands apart from what was called for certain.
Sources: EnvoyTextLogFormat and EnvoyJSONLogFormatIstio in pilot/pkg/model/telemetry_logging.go, BuildSubsetKey and BuildDNSSrvSubsetKey in
pilot/pkg/model/service.go (istio/istio); the flags and the details in source/common/stream_info/utility.h and envoy/stream_info/stream_info.h (envoyproxy/envoy).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from checks import accesslog, names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLAGS = frozenset(
    "DC LH UH UT LR UR UF UC UO URX NR DI FI RL UAEX RLSE SI IH DPE UMSDR RFCF NFCF DT UPE NC OM DF DO DR UDO".split()  # noqa: SIM905 - one glance
)
"""Every short response flag of Envoy."""
_MOST, _LINES, _WORDS = 64_000, 2_000, 400  # characters, lines and words that are read of one text
_LONGEST = 260  # characters of a host with its port


class Pasted(Struct, frozen=True, kw_only=True):
    """What a text says of one call; empty or None is what it does not say.

    `host` was called for certain (a cluster's name, a Host header, a URL), in lower case and without its port; `words` are those that may be hosts
    when it is empty, the likelier ones first. `cluster` is Envoy's (`outbound|80|v1|reviews.shop.svc.cluster.local`). `flags` are response flags,
    `sure` when they stand there, else derived from what Envoy answers with them. `details` and `failure` are RESPONSE_CODE_DETAILS and the reason
    why a connection failed. `upstream` is the address that Envoy sent to, `address` the one that was called (`10.96.0.7:80`). `answered`: whether the server itself gave the answer, None if that is not
    said. `lines` access lines say the same, `others` say something else.
    """

    host: str = ""
    port: int | None = None
    words: tuple[str, ...] = ()
    cluster: str = ""
    subset: str = ""
    flags: tuple[str, ...] = ()
    sure: bool = False
    code: int | None = None
    details: str = ""
    failure: str = ""
    upstream: str = ""
    address: str = ""
    answered: bool | None = None
    lines: int = 0
    others: int = 0

    @property
    def says(self) -> bool:
        """Whether it says anything of a failing call, beside words that may be hosts."""
        return bool(self.host or self.cluster or self.flags or self.code or self.details or self.failure)


def read(text: str) -> Pasted:
    """What a text says."""
    text = text[:_MOST].translate(_TYPED).replace("```", "\n")
    lines = text.splitlines()[:_LINES]
    accesses = [a for a in map(accesslog.fields, lines) if a is not None]
    if not accesses and (whole := accesslog.fields(" ".join(lines))) is not None:
        accesses = [whole]
    return _of_accesses(accesses) if accesses else _of_words(text, lines)


# What phones and word processors make of quotation marks.
_TYPED = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u00a0": " "})


# --- access lines ------------------------------------------------------------------------------------------------------------


def _of_accesses(accesses: list[Mapping[str, str]]) -> Pasted:
    """What most of the lines say that fail, or most of all lines where none does."""
    read_ = [_of_access(fields) for fields in accesses]
    failing = [p for p in read_ if p.flags or p.code is None or p.code == 0 or p.code >= 400]
    counted = Counter((p.host, p.cluster, p.flags, p.code) for p in failing or read_)
    (most, count), *_ = counted.most_common(1)
    first = next(p for p in failing or read_ if (p.host, p.cluster, p.flags, p.code) == most)
    return msgspec.structs.replace(first, lines=count, others=len(read_) - count)


def _of_access(fields: Mapping[str, str]) -> Pasted:
    fields = {key: value.translate(_MARKUP) for key, value in fields.items()}
    cluster, details = fields.get("upstream_cluster", ""), fields.get("response_code_details", "")
    named = _cluster(cluster) or _cluster(fields.get("requested_server_name", ""))
    authority, port = _authority(fields.get("authority", ""))
    flags = tuple(f for f in fields.get("response_flags", "").upper().split(",") if f in FLAGS)
    code = fields.get("response_code", "")
    host = named[1] if named is not None else authority if not names.is_ip(authority) else ""
    host = host or _authority(fields.get("requested_server_name", ""))[0]
    return Pasted(
        host=host,
        port=named[0] if named is not None else port,
        cluster=cluster,
        subset=named[2] if named is not None else "",
        flags=flags,
        sure=bool(flags),
        code=int(code) if code.isascii() and code.isdigit() else None,
        details=details,
        failure=fields.get("upstream_transport_failure_reason", ""),
        upstream=fields.get("upstream_host", ""),
        address=f"{authority}:{port or 80}" if names.is_ip(authority) else fields.get("downstream_local_address", ""),
        answered=True if details == "via_upstream" and not flags else False if details or flags else None,
    )


_MARKUP = str.maketrans("", "", "<>")
"""What no field of an access line that is told again has to hold."""
_CLUSTER = re.compile(
    r"\b(?:outbound|inbound)(?:\|(\d{1,5})\|([^|\s]*)\||_\.(\d{1,5})_\.([^_\s]*)_\.)([a-z0-9*][a-z0-9.*-]*)?", re.IGNORECASE
)


def _cluster(text: str) -> tuple[int, str, str] | None:
    """The port, the host and the subset in the name of an outbound cluster, or in the SNI of it; None for other names, which lead to no host."""
    found = _CLUSTER.search(text)
    if found is None or not found[5]:
        return None
    return int(found[1] or found[3]), found[5].lower().rstrip("."), found[2] or found[4] or ""


_AUTHORITY = re.compile(r"(?:[^/@\s]*@)?(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)\.?(?::(\d{1,5}))?", re.IGNORECASE)


def _authority(text: str) -> tuple[str, int | None]:
    """The host in lower case and the port of `host:port`; empty for what is neither."""
    found = _AUTHORITY.fullmatch(text[:300].strip())
    return ("", None) if found is None else (found[1].lower().strip("[]"), int(found[2]) if found[2] else None)


# --- anything else -----------------------------------------------------------------------------------------------------------

# What Envoy answers with, in the body of an answer or as details, and the flag that goes with it; the first that fits.
_BODIES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), tuple(flags.split()))
    for pattern, flags in (
        (r"no[ _]healthy[ _]upstream", "UH"),
        (r"cluster_not_found", "NC"),
        (r"route_not_found|filter_chain_not_found", "NR"),
        (r"retried and the latest reset reason:? (?:remote |local )?connection (?:failure|timeout)", "URX UF"),
        (r"retried and the latest reset reason:? connection termination", "URX UC"),
        (r"reset reason:? (?:remote |local )?connection (?:failure|timeout)|delayed connect error", "UF"),
        (r"reset_before_response_started\{(?:remote_|local_)?connection_(?:failure|timeout)", "UF"),
        (r"reset reason:? connection termination|response_started\{connection_termination", "UC"),
        (r"reset reason:? overflow|response_started\{overflow", "UO"),
        (r"reset reason:? protocol error|response_started\{protocol_error", "UPE"),
        (r"reset reason:? remote (?:refused stream )?reset|response_started\{remote_(?:refused_stream_)?reset", "UR"),
        (r"reset reason:? local (?:refused stream )?reset|response_started\{local_(?:refused_stream_)?reset", "LR"),
        (r"upstream request timeout|upstream_per_try_timeout|\bresponse_timeout\b", "UT"),
        (r"upstream_max_stream_duration_reached|upstream max stream duration reached", "UMSDR"),
        (r"fault filter abort|fault_filter_abort", "FI"),
        (r"local_rate_limited", "RL"),
        (r"stream timeout|stream_idle_timeout", "SI"),
        (r"downstream_remote_disconnect", "DC"),
    )
)
_RESET = re.compile(r"transport failure reason:? *([^\n]{1,300})", re.IGNORECASE)
_TLS = re.compile(r"TLS_error:[^\s\"}]{1,300}")
_DENIED = re.compile(r"RBAC: access denied|rbac_access_denied[a-z_]*(?:\[[^\]\s]{0,200}\])?", re.IGNORECASE)
_FLAGGED = re.compile(
    r"\b([1-5]\d\d|0) ([A-Z]{2,5}(?:,[A-Z]{2,5})*)\b|\bresponse[_ ]flags?[\"'=: ]+([A-Z]{2,5}(?:,[A-Z]{2,5})*)\b|\bflags? ([A-Z]{2,5})\b"
)
_STATUS = re.compile(
    r"^< HTTP/[\d.]+ (\d{3})|\bHTTP/[\d.]+\"? (\d{3})\b|\b(?:status(?:[_ ]code)?|code|HTTP|error)[\"'=: ]+([45]\d\d)\b"
    r"|\b([45]\d\d)(?=[ :]+(?:Service Unavailable|Bad Gateway|Gateway Time-?out|Not Found|Internal Server Error|Forbidden|Unauthorized"
    r"|Too Many Requests|no healthy upstream|upstream|errors?\b))",
    re.IGNORECASE | re.MULTILINE,
)
_HEADER = re.compile(r"^(?:> ?|\* \[HTTP/\d\] \[\d+\] \[:?)?(?:host|authority): *([^\s\]]{1,300})", re.IGNORECASE | re.MULTILINE)
_URL = re.compile(r"\b(?:https?|grpcs?|wss?)://([^\s/\"'<>|?#)]{1,300})", re.IGNORECASE)
_CURL = re.compile(
    r"(?:Connected to|connect to|Could not resolve(?: host)?:?|Host) ([a-z0-9_][a-z0-9_.-]{0,252})"
    r"(?: port (\d{1,5})|:(\d{1,5}) was resolved| \([0-9a-f.:]+\) port (\d{1,5}))?",
    re.IGNORECASE,
)
_LOOKUP = re.compile(r"\b(?:lookup|getaddrinfo(?: [A-Z_]+)?|UnknownHostException:) ([a-z0-9][a-z0-9.-]{0,252})", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?:Connected to [^\n(]{1,300}\(|Trying |dial tcp )(?:\[([0-9a-f:.]{2,45})\]|([0-9.]{7,15})|([0-9a-f:]{2,45})(?=\)))(?:\) port |:)(\d{1,5})\b",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[^A-Za-z0-9._:-]+")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::\d{1,5})?")
_BY_SERVER = re.compile(r"^<? *x-envoy-upstream-service-time: *\d", re.IGNORECASE | re.MULTILINE)


def _of_words(text: str, lines: list[str]) -> Pasted:
    flags, code = _flagged(text)
    sure = bool(flags)
    if not flags:
        flags = next((found for pattern, found in _BODIES if pattern.search(text)), ())
    statuses = [next(g for g in m.groups() if g) for m in _STATUS.finditer(text)]
    code = code if code is not None else int(statuses[-1]) if statuses else None
    reset, tls, denied = _RESET.search(text), _TLS.search(text), _DENIED.search(text)
    answered = True if _BY_SERVER.search(text) and not flags else False if flags or denied else None
    named = _cluster(text)
    host, port = (named[1], named[0]) if named is not None else _called(text)
    cluster = _CLUSTER.search(text)
    address = _ADDRESS.search(text)
    return Pasted(
        host=host,
        port=port,
        words=() if host else tuple(_words(lines)),
        cluster=cluster[0] if cluster is not None else "",
        subset=named[2] if named is not None else "",
        flags=flags,
        sure=sure,
        code=code,
        details=denied[0] if denied is not None else "",
        failure=(reset[1] if reset is not None else tls[0] if tls is not None else "").strip(),
        address=f"{address[1] or address[2] or address[3]}:{address[4]}" if address is not None else "",
        answered=answered,
    )


def _flagged(text: str) -> tuple[tuple[str, ...], int | None]:
    """The flags that stand in a text, and the status before them; in capitals alone, so that no word becomes one."""
    alone = tuple(text.strip().strip("`'\".?").upper().split(","))
    if set(alone) <= FLAGS:
        return alone, None
    for found in _FLAGGED.finditer(text):
        flags = tuple((found[2] or found[3] or found[4]).split(","))
        if set(flags) <= FLAGS:
            return flags, int(found[1]) if found[1] else None
    return (), None


def _called(text: str) -> tuple[str, int | None]:
    """The host that was called for certain, and its port: by a Host header, a URL, or what curl and resolvers say; addresses are none."""
    for pattern in (_HEADER, _URL):
        for found in reversed(list(pattern.finditer(text))):  # after redirects the last call is the one that failed
            host, port = _authority(found[1])
            if host and not names.is_ip(host):
                return host, port
    for found in _CURL.finditer(text):
        host, port = found[1].lower().rstrip("."), next((int(g) for g in found.groups()[1:] if g), None)
        if not names.is_ip(host) and (port is not None or found[0].startswith("Could not")):
            return host, port
    lookup = _LOOKUP.search(text)
    return (lookup[1].lower().rstrip("."), None) if lookup is not None and not names.is_ip(lookup[1]) else ("", None)


def _words(lines: list[str]) -> Iterator[str]:
    """The words that may be hosts, each once: those with dots before those without."""
    found: dict[str, None] = {}
    for line in lines:
        rest = line
        for pattern, _ in _BODIES:
            rest = pattern.sub(" ", rest)
        found.update((w.lower().strip(".:-_"), None) for w in _BETWEEN.split(rest) if len(w) <= _LONGEST)
        if len(found) >= _WORDS:
            break
    hosts = [
        w
        for w in list(found)[:_WORDS]
        if w.upper() not in FLAGS and _NAME.fullmatch(w) and any(c.isalpha() for c in w) and not names.is_ip(w)
    ]
    yield from (w for w in hosts if "." in w)
    yield from (w for w in hosts if "." not in w)
