"""What a sidecar's listeners make of services, VirtualServices and Sidecars, for the rules of which the oracle's meshes have no case.

Every row is what a real istiod pushed for the same objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from checks import resources, routes
from checks.mesh import Cluster, Mesh

if TYPE_CHECKING:
    from checks.answers import Route

Json = dict[str, Any]
CLIENT = "client/web"
_API = "networking.istio.io/v1"


def thing(api: str, kind: str, ref: str, at: int = 0, **fields: Any) -> Json:
    namespace, _, name = ref.partition("/")
    meta = {"name": name, "namespace": namespace, "creationTimestamp": f"2026-01-01T00:00:{at:02}Z"}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **fields}


def pod(ref: str) -> Json:
    found = thing(
        "v1", "Pod", ref, spec={"containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]}, status={"podIP": "10.1.0.9"}
    )
    found["metadata"]["labels"] = {"app": "web"}
    return found


def service(ref: str, address: str, *ports: str, shown: str = "*") -> Json:
    """Ports are written `name:number`, `udp:number` for UDP."""
    listed = []
    for text in ports:
        name, _, number = text.partition(":")
        listed.append({"name": name, "port": int(number), "protocol": "UDP" if name == "udp" else "TCP"})
    found = thing("v1", "Service", ref, spec={"clusterIP": address, "ports": listed})
    found["metadata"]["annotations"] = {"networking.istio.io/exportTo": shown}
    return found


def entry(ref: str, at: int, host: str, *ports: str, **spec: Any) -> Json:
    """Ports are written `PROTOCOL:number`."""
    listed = []
    for text in ports:
        protocol, _, number = text.partition(":")
        listed.append({"name": f"p-{number}", "number": int(number), "protocol": protocol})
    found = {"hosts": [host], "ports": listed, "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}], **spec}
    return thing(_API, "ServiceEntry", ref, at, spec=found)


def virtual(ref: str, at: int, hosts: list[str], to: str = "", **spec: Any) -> Json:
    http = {"http": [{"route": [{"destination": {"host": to}}]}]} if to else {}
    return thing(_API, "VirtualService", ref, at, spec={"hosts": hosts, **http, **spec})


def sidecar(*egress: Json) -> Json:
    return thing(_API, "Sidecar", "client/own", spec={"egress": list(egress)})


def port(number: int, protocol: str, *hosts: str, **more: str) -> Json:
    return {"port": {"number": number, "name": "it", "protocol": protocol}, "hosts": list(hosts or ["*/*"]), **more}


REST = {"hosts": ["*/*"]}


def line(route: Route) -> str:
    to = " ".join(d.envoy_cluster.removeprefix("outbound|").replace(".svc.cluster.local", "") for d in route.destinations)
    return f"{route.host.removesuffix('.svc.cluster.local')}:{route.port} {route.protocol} {to or route.action}"


def held(objects: list[Json], who: str = CLIENT) -> list[str]:
    found = Cluster.index(r for i in [pod(CLIENT), *objects] for r in resources.objects(resources.parse(i)))
    return [line(r) for r in routes.for_pod(Mesh("", [Cluster("east", objects=found)], 0), "east", who)]


CART = service("shop/cart", "10.9.0.1", "http:80")
MAIL = service("shop/mail", "10.9.0.2", "http:80", "tcp:9000")
AUTO = service("shop/quote", "10.9.0.3", "thing:7000")

ROWS: dict[str, tuple[list[Json], list[str]]] = {
    # listener.go isConflictWithWellKnownPort
    "MySQL shares a listener with no other protocol": (
        [entry("shop/a", 1, "a.example.com", "TCP:3306"), entry("shop/b", 2, "b.example.com", "MYSQL:3306")],
        ["a.example.com:3306 tcp 3306||a.example.com"],
    ),
    "MySQL shares a listener with MySQL, if they can be told apart": (
        [
            entry("shop/a", 1, "a.example.com", "MYSQL:3306", addresses=["192.0.2.0/28"]),
            entry("shop/b", 2, "b.example.com", "MYSQL:3306", addresses=["192.0.2.16/28"]),
        ],
        ["a.example.com:3306 tcp 3306||a.example.com", "b.example.com:3306 tcp 3306||b.example.com"],
    ),
    "HTTP finds no listener where MySQL has it": (
        [entry("shop/a", 1, "a.example.com", "MYSQL:3306"), entry("shop/b", 2, "b.example.com", "HTTP:3306")],
        ["a.example.com:3306 tcp 3306||a.example.com"],
    ),
    # context.go conflictWithReservedListener
    "no listener of HTTP is made where the sidecar itself listens": (
        [service("shop/stats", "10.9.0.4", "http:15090", "tcp:15001")],
        ["stats.shop:15001 tcp 15001||stats.shop"],
    ),
    # listener.go buildSidecarOutboundHTTPListenerOpts, httproute.go getVirtualHostsForSniffedServicePort
    "where each service's protocol is detected, nobody asks for a host that is none": (
        [AUTO, virtual("shop/v", 1, ["quote", "other.example.com"], "quote")],
        ["quote.shop:7000 http 7000||quote.shop"],
    ),
    "where one of them says HTTP, its listener asks for all": (
        [AUTO, service("shop/cart", "10.9.0.1", "http:7000"), virtual("shop/v", 1, ["quote", "other.example.com"], "quote")],
        ["cart.shop:7000 http 7000||cart.shop", "other.example.com:7000 http 7000||quote.shop", "quote.shop:7000 http 7000||quote.shop"],
    ),
    # service.go PortList.GetByPort
    "a port of TCP comes before one of UDP with its number": (
        [service("shop/dns", "10.9.0.5", "udp:53", "tcp:53")],
        ["dns.shop:53 tcp 53||dns.shop"],
    ),
    # route.go separateVSHostsAndServices
    "a wildcard host of a service is no exact host: the oldest that names it has it, even if it has no rule of HTTP": (
        [
            entry("shop/w", 1, "*.example.com", "HTTP:80", resolution="NONE", endpoints=None),
            virtual("shop/old", 2, ["*.example.com"], tcp=[{"route": [{"destination": {"host": "cart"}}]}]),
            virtual("shop/new", 3, ["*.example.com"], "cart"),
        ],
        ["*.example.com:80 http 80||*.example.com"],
    ),
    # tls.go buildSidecarOutboundTCPFilterChainOpts
    "a rule for the very subnet of a service takes the place of its default, and those after it stay": (
        [
            entry("shop/a", 1, "a.example.com", "TCP:9000", addresses=["192.0.2.0/28"]),
            virtual(
                "shop/v",
                2,
                ["a.example.com"],
                tcp=[
                    {"match": [{"destinationSubnets": ["192.0.2.0/28"]}], "route": [{"destination": {"host": "one"}}]},
                    {"match": [{"destinationSubnets": ["192.0.2.16/28"]}], "route": [{"destination": {"host": "two"}}]},
                ],
            ),
        ],
        ["a.example.com:9000 tcp 9000||one.shop", "a.example.com:9000 tcp 9000||two.shop"],
    ),
    # listener.go buildSidecarOutboundListeners, sidecar.go GetEgressListenerForRDS
    "a port that a Sidecar calls TCP carries TCP, whatever its services say": (
        [CART, sidecar(port(80, "TCP", "shop/*"))],
        ["cart.shop:80 tcp 80||cart.shop"],
    ),
    "a port that a Sidecar calls HTTP has no rule of a service that says TCP": ([MAIL, sidecar(port(9000, "HTTP"))], []),
    "the rest of the port's routes come from the listener that has asked for the port": (
        [CART, MAIL, sidecar(port(80, "TCP", "shop/cart.shop.svc.cluster.local"), REST)],
        ["cart.shop:80 http 80||cart.shop", "cart.shop:80 tcp 80||cart.shop", "mail.shop:9000 tcp 9000||mail.shop"],
    ),
    "a VirtualService of that listener answers for a host whose service is not on it": (
        [
            CART,
            entry("shop/a", 1, "a.example.com", "HTTP:80"),
            virtual("client/v", 2, ["a.example.com"], "cart.shop.svc.cluster.local"),
            sidecar(port(80, "HTTP", "client/a.example.com"), {"hosts": ["shop/*"]}),
        ],
        ["a.example.com:80 http 80||cart.shop"],
    ),
    "what is not captured listens on the loopback, where the first of TCP has the port": (
        [MAIL, service("core/mail", "10.9.0.6", "tcp:9000"), sidecar({"hosts": ["*/*"], "captureMode": "NONE"})],
        ["mail.core:9000 tcp 9000||mail.core", "mail.shop:80 http 80||mail.shop"],
    ),
    "an address of its own is listened on by HTTP alone, if it comes first": (
        [service("shop/both", "10.9.0.7", "http:9000"), MAIL, sidecar({"hosts": ["*/*"], "bind": "127.0.0.2"})],
        ["both.shop:9000 http 9000||both.shop", "mail.shop:80 http 80||mail.shop"],
    ),
    "a generic HTTP proxy has every port; one that a rule leaves out is the service's only one": (
        [CART, MAIL, virtual("shop/v", 1, ["mail"], "cart"), sidecar(port(15080, "HTTP_PROXY", bind="127.0.0.1"))],
        ["cart.shop:80 http 80||cart.shop", "mail.shop:80 http 80||cart.shop"],
    ),
    "a host that only a VirtualService names is there on port 80 alone, and once": (
        [
            *(CART, AUTO, virtual("shop/v", 1, ["cart", "quote", "other.example.com"], "cart")),
            sidecar(port(15080, "HTTP_PROXY", bind="127.0.0.1"), port(0, "HTTP", bind="unix:///var/run/calls.sock")),
        ],
        ["cart.shop:80 http 80||cart.shop", "other.example.com:80 http 80||cart.shop", "quote.shop:7000 http 80||cart.shop"],
    ),
    "so has a Unix domain socket": (
        [CART, virtual("shop/v", 1, ["cart"], "mail"), MAIL, sidecar(port(0, "HTTP", bind="unix:///var/run/calls.sock"))],
        ["cart.shop:80 http 0||mail.shop", "mail.shop:80 http 80||mail.shop"],
    ),
    # sidecar.go collectImportedServices
    "a rule's destination in the caller's own namespace is seen, whatever it is exported to": (
        [
            service("client/cart", "10.9.0.8", "http:80", shown="core"),
            CART,
            virtual("shop/v", 1, ["cart"], "cart.client.svc.cluster.local"),
        ],
        ["cart.shop:80 http 80||cart.client"],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_sidecars_listeners_are_those_that_istiod_makes(row: str) -> None:
    objects, expected = ROWS[row]
    assert held(objects) == expected
