"""What Envoy's response flags mean, for who has never read Envoy's manual: what happened, and where to look.

Sources: Envoy's access-log documentation and envoy/stream_info/stream_info.h; what a real Envoy 1.40 answered with each of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """What a flag says in a few words, what happened, and where to look next."""

    says: str
    happened: str
    look: str


_APP = "Look at the server itself: its log, its restarts and its own limits at that time."
_CALLER = "Look at the caller: its own time-out and how it sends requests."

FLAGS = {
    "UH": Flag(
        "no healthy upstream",
        "Envoy knows the destination, and has no endpoint of it that it may send to: there is none, or every one is unready, draining or ejected.",
        "Which of these it is, the endpoints of the cluster tell.",
    ),
    "NC": Flag(
        "no cluster",
        "A rule leads to an Envoy cluster that the proxy does not have: the host, the port or the subset that the rule names does not exist for this caller.",
        "Compare the destination of the rule with the Service's ports and the DestinationRule's subsets that this caller sees.",
    ),
    "NR": Flag(
        "no route",
        "The proxy has no rule for this request (404), or no filter chain for this connection: the host, the path, the SNI or the TLS mode fits none.",
        "Look at the gateway's hosts, the matches of the VirtualService, and on a server's side at its mTLS mode.",
    ),
    "UF": Flag(
        "connection to the upstream failed",
        "Envoy chose an endpoint and could not connect: refused, timed out, or TLS did not meet.",
        "The failure's reason tells which: refused means the port or the app, a time-out the network, TLS_error the TLS modes or certificates of both sides.",
    ),
    "URX": Flag(
        "out of retries",
        "Envoy tried again as often as it may, and every try failed; TCP: it tried to connect as often as it may.",
        "The flag beside it, or the reason, says why each of the tries failed.",
    ),
    "UO": Flag(
        "circuit breaker open",
        "More connections, requests or retries were waiting than the DestinationRule's connectionPool allows, so Envoy did not send this one.",
        "Look at connectionPool of the DestinationRule, and at what makes the server slow.",
    ),
    "UC": Flag(
        "upstream closed the connection",
        "The server, or its sidecar, closed the connection in the middle of the request: a crash, a restart, or a keep-alive that ended just then.",
        _APP,
    ),
    "UR": Flag("upstream reset the stream", "The server reset this one request and kept the connection.", _APP),
    "UT": Flag(
        "upstream took too long",
        "The server did not answer within the time-out of the rule (504).",
        "Compare the rule's timeout with how long the server takes; a routing fault it is not.",
    ),
    "UPE": Flag(
        "upstream broke the protocol",
        "What came back is not the HTTP that Envoy expected: HTTP/2 where it speaks HTTP/1, TLS, or no HTTP at all.",
        "Compare the port's name or appProtocol with what the server speaks.",
    ),
    "UMSDR": Flag(
        "stream lasted too long", "The request reached maxStreamDuration and was ended.", "Look at maxStreamDuration of the route."
    ),
    "UAEX": Flag(
        "external authorization said no",
        "The external authorizer refused the request, or could not be asked.",
        "Look at the AuthorizationPolicy with action CUSTOM, and at the authorizer's own endpoints.",
    ),
    "DC": Flag("caller hung up", "The caller closed the connection before the answer was complete.", _CALLER),
    "DR": Flag("caller reset the stream", "The caller gave up this one request and kept the connection.", _CALLER),
    "DPE": Flag("caller broke the protocol", "What the caller sent is no valid HTTP (400), or TLS on a plain port.", _CALLER),
    "DT": Flag(
        "connection lasted too long",
        "The connection or the request reached its longest duration and was ended.",
        "Look at the proxy's limits.",
    ),
    "LR": Flag(
        "reset by the proxy itself",
        "The proxy beside the caller ended the stream, most often after an error in what it received.",
        "Its log, at level debug, says why.",
    ),
    "LH": Flag("proxy fails its health check", "The proxy was told to answer health checks as failed.", "Look at who drains this proxy."),
    "DI": Flag(
        "delayed on purpose",
        "A fault.delay of a VirtualService held the request back.",
        "If nobody tests now, remove the fault.",
    ),
    "FI": Flag(
        "failed on purpose",
        "A fault.abort of a VirtualService answered instead of the server.",
        "If nobody tests now, remove the fault.",
    ),
    "RL": Flag("rate limited", "A rate limit answered 429 instead of the server.", "Look at the EnvoyFilter or policy that limits it."),
    "RLSE": Flag(
        "rate limit service failed",
        "The rate limit service could not be asked.",
        "Look at that service's endpoints; calls fail only if it must answer.",
    ),
    "SI": Flag(
        "idle for too long",
        "Nothing was sent on the stream for as long as it may be idle.",
        "Look at the idle time-outs, and at the slower side.",
    ),
    "IH": Flag("bad x-envoy header", "The caller sent an x-envoy-* header with a value that Envoy refuses.", _CALLER),
    "RFCF": Flag("from the cache", "A cache filter answered; the server was not asked.", "Nothing failed here."),
    "NFCF": Flag(
        "filter not configured",
        "A filter's configuration did not come in time (500).",
        "Look at istiod's push to this proxy: proxy-status, ECDS.",
    ),
    "OM": Flag(
        "proxy overloaded",
        "The proxy's overload manager ended the stream: it is short of memory or connections.",
        "Look at the proxy's limits.",
    ),
    "DF": Flag(
        "name not resolved",
        "The proxy could not resolve the DNS name of the destination.",
        "Resolve the ServiceEntry's host from the proxy's own pod.",
    ),
    "DO": Flag(
        "dropped on purpose", "A drop_overload share of the endpoints' configuration dropped it.", "Look at what pushes drop_overload."
    ),
    "UDO": Flag("all dropped on purpose", "The endpoints' configuration drops every request.", "Look at what pushes drop_overload."),
}
"""By the short flag, every one of Envoy's."""

BY_SERVER = Flag(
    "answered by the server",
    "No flag: the server, or the next proxy on the way, gave this answer itself and Envoy passed it on.",
    "Read the log of the server, and of the sidecar or gateway in front of it, where a flag may stand.",
)
DENIED = Flag(
    "denied by a policy",
    "An AuthorizationPolicy at the server denied this caller.",
    "The policy is in the server's namespace or the root namespace; its name stands in the server's log.",
)
BLACK_HOLE = Flag(
    "not in the registry",
    "The caller's proxy sends only to hosts that it knows (REGISTRY_ONLY, or a Sidecar), and does not know this one.",
    "Look at the caller's Sidecar, at outboundTrafficPolicy, and for a ServiceEntry.",
)
PASSTHROUGH = Flag(
    "passed through",
    "The caller's proxy does not know this host and port, and passed the connection on as it was.",
    "Rules, mTLS and retries of the mesh do not hold for it; look at the Service's ports and the caller's Sidecar.",
)
