"""Records what proxies' logs say of calls that fail for no fault of routing, on a real Envoy: `python -m tests.recording_calls [SCENARIO...]`.

Each play runs one proxy of the scenario (a caller's, a server's or a gateway's) with what istiod would have given it, makes the calls, and saves its
access log under `live/<cluster>/logs/`. Behind the addresses of the scenario's pods are listeners of this machine, so that these are put back.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.accesslog import ISTIO
from tests import envoys
from tests.envoys import TYPE, Envoy, Json

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIOS = Path(__file__).parent / "scenarios"
CALLER, CALLER_IP = "client/web-0", "10.10.2.5"
SERVER, SERVER_IP = "shop/{app}-0", "10.10.1.6"
GATEWAY, GATEWAY_IP = "istio-system/istio-ingressgateway-0", "10.10.1.3"
VIP = "10.96.0.20"
FILE_LOG = {
    "name": "envoy.access_loggers.file",
    "typed_config": {
        "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
        "log_format": {"text_format_source": {"inline_string": ISTIO}},
    },
}


@dataclass
class Play:
    """One proxy with one destination: whose it is, what it is asked at, and who answers."""

    pod: str
    ip: str
    cluster: str
    at: str
    host: str
    serve: Callable[[socket.socket], None]
    upstream: str = f"{SERVER_IP}:8080"
    route: Json = field(default_factory=dict)
    filters: list[Json] = field(default_factory=list)
    cluster_config: Json = field(default_factory=dict)
    manager: Json = field(default_factory=dict)
    chain: Json = field(default_factory=dict)
    tcp: bool = False

    def record(self, calls: Callable[[int], None]) -> str:
        """The log of some calls, which are made at a port of this machine."""
        with tempfile.TemporaryDirectory(prefix="mw-") as directory, serving(self.serve) as port:
            log = Path(directory) / "access.log"
            envoy = Envoy(Path(directory) / "run", self._bootstrap(log, port), "--file-flush-interval-msec", "50")
            try:
                listening = envoy.ports["calls"]
                calls(listening)
                time.sleep(0.3)  # Envoy writes every 50 ms
            finally:
                envoy.stop()
            shown = {f"127.0.0.1:{listening}": self.at, f"127.0.0.1:{port}": self.upstream}
            return re.sub(r"127\.0\.0\.1:(\d+)", lambda at: shown.get(at[0], f"{self.ip}:{at[1]}"), log.read_text())

    def _bootstrap(self, log: Path, port: int) -> Json:
        logging = json.loads(json.dumps(FILE_LOG))
        logging["typed_config"]["path"] = str(log)
        endpoint = {"lb_endpoints": [{"endpoint": {"address": envoys._socket("127.0.0.1", port)}}]}
        cluster = {
            "name": self.cluster,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": self.cluster, "endpoints": [endpoint]},
            **self.cluster_config,
        }
        rule = {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": self.cluster, "timeout": "0s", **self.route}}
        routes = {"name": "80", "virtual_hosts": [{"name": f"{self.host}:80", "domains": ["*"], "routes": [rule]}]}
        chain = envoys._connection_manager("calls", {"route_config": routes, "access_log": [logging], **self.manager})
        chain["filters"][0]["typed_config"]["http_filters"][:0] = self.filters
        if self.tcp:
            proxy = {"@type": f"{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "calls", "cluster": self.cluster}
            chain = {"filters": [{"name": "tcp", "typed_config": {**proxy, "access_log": [logging]}}]}
        listener = {"name": "calls", "address": envoys._socket("127.0.0.1", 0), "filter_chains": [{**chain, **self.chain}]}
        if self.chain:  # the listener's own log, as pilot/pkg/networking/core/accesslog.go has it
            inspector = {"@type": f"{TYPE}.extensions.filters.listener.tls_inspector.v3.TlsInspector"}
            listener["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}]
            listener["access_log"] = [{**logging, "filter": {"response_flag_filter": {"flags": ["NR"]}}}]
        pod = self.pod.partition("/")
        node = {"id": f"sidecar~{self.ip}~{pod[2]}.{pod[0]}~{pod[0]}.svc.cluster.local", "cluster": pod[2]}
        return {"node": node, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextlib.contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Any:
    """A TCP server of this machine that does one thing with each connection; its port."""

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            serve(connection)

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1]


# --- who answers -----------------------------------------------------------------------------------------------------------------

OK = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def answering(*answers: str, seconds: float = 0.0) -> Callable[[socket.socket], None]:
    """Answers requests in turn, whatever the connection; an empty answer closes it."""
    turn = iter(range(1 << 30))

    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            time.sleep(seconds)
            answer = answers[next(turn) % len(answers)]
            if not answer:
                return
            connection.sendall(answer.encode())

    return serve


def streaming(*, reset: bool) -> Callable[[socket.socket], None]:
    """Speaks HTTP/2 and answers each request with 200, or by resetting its stream (INTERNAL_ERROR)."""

    def serve(connection: socket.socket) -> None:
        data = connection.makefile("rb")
        data.read(24)
        connection.sendall(_frame(4, 0, 0, b""))
        while head := data.read(9):
            length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
            data.read(length)
            if kind == 4 and not flags & 1:
                connection.sendall(_frame(4, 1, 0, b""))
            if kind == 1:
                connection.sendall(_frame(3, 0, stream, struct.pack(">I", 2)) if reset else _frame(1, 5, stream, b"\x88"))

    return serve


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def holding(connection: socket.socket) -> None:
    """Takes what comes and ends the connection after a moment."""
    connection.recv(65536)
    time.sleep(0.02)


# --- who calls -------------------------------------------------------------------------------------------------------------------


def asking(host: str, times: int, seconds: float = 10.0, *, tls: str = "", path: str = "/") -> Callable[[int], None]:
    """Calls one after the other; whoever waits less than the answer takes gives up."""

    def calls(port: int) -> None:
        context = ssl._create_unverified_context() if tls else None  # noqa: S323 - our own certificate
        for _ in range(times):
            url = f"https://{tls}:{port}{path}" if tls else f"http://127.0.0.1:{port}{path}"
            request = urllib.request.Request(url, headers={"Host": host, "User-Agent": "web/4.2"})  # noqa: S310 - ours
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(request, timeout=seconds, context=context) as answer,  # noqa: S310 - ours
            ):
                answer.read()

    return calls


def sending(data: bytes, times: int) -> Callable[[int], None]:
    """Connections that send something and wait for what comes back."""

    def calls(port: int) -> None:
        for _ in range(times):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(data)
                while connection.recv(65536):
                    pass

    return calls


def greeting(name: str, times: int) -> Callable[[int], None]:
    """TLS greetings with a name, to a server that answers none."""

    def calls(port: int) -> None:
        context = ssl._create_unverified_context()  # noqa: S323 - nothing is said over it
        for _ in range(times):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=2) as connection,
                context.wrap_socket(connection, server_hostname=name),
            ):
                pass

    return calls


def several(*calls: Callable[[int], None]) -> Callable[[int], None]:
    """One after the other."""

    def every(port: int) -> None:
        for one in calls:
            one(port)

    return every


# --- the plays -------------------------------------------------------------------------------------------------------------------


def caller(app: str, serve: Callable[[socket.socket], None], **more: Any) -> Play:
    """The sidecar of web, which calls an app of shop."""
    host = f"{app}.shop.svc.cluster.local"
    return Play(CALLER, CALLER_IP, f"outbound|80||{host}", f"{VIP}:80", host, serve, **more)


def server(app: str, serve: Callable[[socket.socket], None], **more: Any) -> Play:
    """The sidecar of an app of shop."""
    host = f"{app}.shop.svc.cluster.local"
    return Play(SERVER.format(app=app), SERVER_IP, "inbound|8080||", f"{SERVER_IP}:8080", host, serve, **more)


def extension(name: str, proto: str, **config: Any) -> Json:
    """An HTTP filter."""
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{TYPE}.extensions.filters.http.{proto}", **config}}


def allowing(policy: str, permission: Json, action: str = "ALLOW") -> list[Json]:
    """The RBAC filter of one AuthorizationPolicy (pilot/pkg/security/authz/builder)."""
    rules = {"action": action, "policies": {policy: {"permissions": [permission], "principals": [{"any": True}]}}}
    return [extension("rbac", "rbac.v3.RBAC", rules=rules)]


def tokens() -> list[Json]:
    """The filter of one RequestAuthentication: tokens of an issuer, with a set of other keys (pilot/pkg/security/authn/policy_applier.go)."""
    keys = {"keys": [{"kty": "RSA", "kid": "new", "e": "AQAB", "n": "w" * 342}]}
    provider = {"issuer": "https://accounts.example", "local_jwks": {"inline_string": json.dumps(keys)}, "forward": True}
    wants = {"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}}
    config = {"providers": {"origins-0": provider}, "rules": [{"match": {"prefix": "/"}, "requires": wants}]}
    return [extension("jwt_authn", "jwt_authn.v3.JwtAuthentication", **config)]


def bearing(host: str, token: str, times: int) -> Callable[[int], None]:
    """Calls with a token, or with none."""
    with_token = f"Authorization: Bearer {token}\r\n" if token else ""
    return sending(f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: web/4.2\r\nConnection: close\r\n{with_token}\r\n".encode(), times)


OF_ANOTHER = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9sZCJ9.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmV4YW1wbGUiLCJzdWIiOiJ3ZWIifQ.c2lnbmF0dXJl"
"""Of the right issuer, and signed with a key that nobody has: {"alg":"RS256","kid":"old"}.{"iss":"https://accounts.example","sub":"web"}."""
HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
TWICE = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
BUSY = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 11\r\n\r\nqueue full\n"


def limiting(tokens_: int) -> list[Json]:
    """A local rate limit of so many calls, as an EnvoyFilter adds it."""
    bucket = {"max_tokens": tokens_, "tokens_per_fill": tokens_, "fill_interval": "600s"}
    on = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    config = {"stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": on, "filter_enforced": on}
    return [extension("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", **config)]


def gateway(host: str, serve: Callable[[socket.socket], None]) -> Play:
    """An ingress gateway that tells the hosts of its TLS port apart by SNI."""
    pem = str(Path(__file__).parent / "apiserver.pem")
    certificate = {"certificate_chain": {"filename": pem}, "private_key": {"filename": pem}}
    context = {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [certificate]},
    }
    chain = {
        "filter_chain_match": {"server_names": [host]},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
    }
    cluster = "outbound|80||storefront.shop.svc.cluster.local"
    return Play(GATEWAY, GATEWAY_IP, cluster, f"{GATEWAY_IP}:8443", host, serve, chain=chain)


def named(times: int, host: str) -> Callable[[int], None]:
    """Calls over TLS that greet with a host's name."""

    def calls(port: int) -> None:
        context = ssl._create_unverified_context()  # noqa: S323 - our own certificate
        for _ in range(times):
            with socket.create_connection(("127.0.0.1", port), timeout=2) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shopper/1.0\r\nConnection: close\r\n\r\n".encode())
                while tls.recv(65536):
                    pass

    return calls


SECURE, SLOW = {"filter_chain_match": {"server_names": ["vault.example.com"]}}, 0.4
SHOP = "shop.example.com"


def _plays() -> dict[str, tuple[Play, Callable[[int], None]]]:
    """Of each scenario and its twin the proxy and the calls."""

    def at(app: str) -> str:
        return f"{app}.shop"

    def tls(host: str) -> Play:
        cluster = f"outbound|443||{host}"
        return Play(CALLER, CALLER_IP, cluster, "10.96.0.21:443", host, holding, upstream="10.10.1.6:8443", chain=SECURE, tcp=True)

    bad = b"GET / HTTP/1.1\r\nHost: intake.shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    plain = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
    deny = "ns[shop]-policy[orders-readonly]-rule[0]"
    post = {"not_rule": {"header": {"name": ":method", "string_match": {"exact": "HEAD"}}}}
    never = {"header": {"name": ":method", "string_match": {"exact": "DELETE"}}}
    allow = "ns[shop]-policy[ledger-viewer]-rule[0]"
    long = {"max_stream_duration": {"max_stream_duration": "0.2s"}}
    patient = {"max_stream_duration": {"max_stream_duration": "5s"}}
    return {
        "upstream-503-by-app": (server("search", answering(BUSY, BUSY, OK, BUSY)), asking(at("search"), 12)),
        "upstream-503-by-app__healthy": (server("search", answering(OK)), asking(at("search"), 12)),
        "upstream-503-by-app-outside-the-mesh": (caller("legacy", answering(BUSY)), asking(at("legacy"), 6)),
        "upstream-503-by-app-outside-the-mesh__healthy": (caller("legacy", answering(OK)), asking(at("legacy"), 6)),
        "upstream-reset-UC": (caller("reports", answering("", OK)), asking(at("reports"), 10)),
        "upstream-reset-UC__healthy": (caller("reports", answering(OK)), asking(at("reports"), 10)),
        "upstream-timeout-UT": (caller("quotes", answering(OK, seconds=SLOW), route={"timeout": "0.2s"}), asking(at("quotes"), 6)),
        "upstream-timeout-UT__healthy": (caller("quotes", answering(OK), route={"timeout": "0.2s"}), asking(at("quotes"), 6)),
        "downstream-cancel-DC": (caller("export", answering(OK, seconds=SLOW)), asking(at("export"), 6, 0.1)),
        "downstream-cancel-DC__healthy": (
            caller("export", answering(OK, seconds=0.03)),
            several(asking(at("export"), 39), asking(at("export"), 1, 0.01)),
        ),
        "downstream-protocol-DPE": (caller("intake", answering(OK)), several(sending(bad, 5), asking("intake.shop", 5))),
        "downstream-protocol-DPE__healthy": (caller("intake", answering(OK)), asking("intake.shop", 10)),
        "upstream-protocol-UPE": (caller("avatars", answering(TWICE, OK)), asking(at("avatars"), 8)),
        "upstream-protocol-UPE__healthy": (caller("avatars", answering(OK)), asking(at("avatars"), 8)),
        "local-reset-LR-UR": (caller("events", streaming(reset=True), cluster_config=HTTP2), asking(at("events"), 5)),
        "local-reset-LR-UR__healthy": (caller("events", streaming(reset=False), cluster_config=HTTP2), asking(at("events"), 5)),
        "stream-duration-UMSDR": (caller("feed", answering(OK, seconds=SLOW), route=long), asking(at("feed"), 5)),
        "stream-duration-UMSDR__healthy": (caller("feed", answering(OK, seconds=SLOW), route=patient), asking(at("feed"), 5)),
        "rate-limited": (server("tickets", answering(OK), filters=limiting(4)), asking(at("tickets"), 10)),
        "rate-limited__healthy": (server("tickets", answering(OK), filters=limiting(100)), asking(at("tickets"), 10)),
        "authz-denied": (server("orders", answering(OK), filters=allowing(deny, post, "DENY")), asking(at("orders"), 6)),
        "authz-denied__healthy": (server("orders", answering(OK), filters=allowing(deny, never, "DENY")), asking(at("orders"), 6)),
        "authz-denied-by-default": (server("ledger", answering(OK), filters=allowing(allow, never)), asking(at("ledger"), 6)),
        "authz-denied-by-default__healthy": (
            server("ledger", answering(OK), filters=allowing(allow, {"any": True})),
            asking(at("ledger"), 6),
        ),
        "jwt-failed": (
            server("account", answering(OK), filters=tokens()),
            several(bearing("account.shop", OF_ANOTHER, 5), bearing("account.shop", "", 3)),
        ),
        "jwt-failed__healthy": (server("account", answering(OK), filters=tokens()), bearing("account.shop", "", 8)),
        "vs-tls-sni-mismatch": (tls("vault.shop.svc.cluster.local"), greeting("vault.shop", 4)),
        "vs-tls-sni-mismatch__healthy": (tls("vault.shop.svc.cluster.local"), greeting("vault.example.com", 4)),
        "gw-scheme-mismatch": (gateway(SHOP, answering(OK)), several(sending(plain, 6), named(1, SHOP))),
        "gw-scheme-mismatch__healthy": (gateway(SHOP, answering(OK)), several(named(8, SHOP), sending(plain, 1))),
    }


def main(names: list[str]) -> None:
    """Record some scenarios again, or all."""
    plays = _plays()
    if not names:
        sys.stdout.write("\n".join(plays) + "\n")
    for name in plays if names == ["all"] else names:
        play, calls = plays[name]
        namespace, _, pod = play.pod.partition("/")
        logs = SCENARIOS / name / "live" / "east" / "logs" / namespace / pod
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "istio-proxy.log").write_text(play.record(calls))
        sys.stdout.write(f"{name}: recorded on Envoy {envoys.VERSION}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
