"""A way to one port of one pod through the API server, as `kubectl port-forward` has one, on which aiohttp sends its requests.

The protocol is that of the kubelet's WebSockets (kubernetes/kubernetes, staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go, and
apimachinery/pkg/util/httpstream/wsstream): subprotocol `v4.channel.k8s.io`, the port in the query; every message begins with the byte of its
channel, 0 for data and 1 for errors; the first message of each channel is the port, two bytes, the lower first. Every API server hands it
through to the kubelet; SPDY inside of WebSockets, which kubectl has used since 1.30, is offered by newer ones only.

What must stay true: one WebSocket is one connection in the pod; nothing listens on this machine; what breaks becomes a `NoWay` with its reason.
The handshake is a GET: RBAC asks for `get` on `pods/portforward`, and since Kubernetes 1.35 for `create` as well
(pkg/registry/core/pod/rest/subresources.go).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from bot.informers import NoAccess, Refused, why
from bot.probes import admin, pods
from bot.probes.admin import NoWay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from bot.informers import Server

PROTOCOL = "v4.channel.k8s.io"

_DATA, _ERROR = 0, 1


@asynccontextmanager
async def session(server: Server, namespace: str, pod: str, port: int, *, patience_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose every request goes to a port of a pod, whatever host it names; `patience_s` is for the way there.

    Raises NotRead for names that no pod can have.
    """
    connector = _Connector(server, namespace, pod, port, patience_s)
    try:
        async with admin.session(connector) as opened:
            yield opened
    finally:
        await connector.gone()


class _Connector(aiohttp.BaseConnector):
    """Where aiohttp would open a TCP connection, a WebSocket to the API server."""

    def __init__(self, server: Server, namespace: str, pod: str, port: int, patience_s: float) -> None:
        self._path = pods.path(namespace, pod, "portforward")
        super().__init__(limit=1)
        self._server, self._pod, self._port, self._patience_s = server, (namespace, pod), port, patience_s
        self._opened: list[_Channel] = []

    async def _create_connection(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> ResponseHandler:  # noqa: ARG002, ASYNC109 - aiohttp's own
        query = {"ports": str(self._port)}
        try:
            socket = await self._server.socket(self._path, query, protocol=PROTOCOL, patience_s=self._patience_s)
        except Refused as e:
            raise NoWay(pods.refused(e, *self._pod, "port-forward", "deep")) from None
        except (NoAccess, aiohttp.ClientError, TimeoutError, OSError) as e:
            raise NoWay(f"the API server: {why(e)}") from None
        protocol: ResponseHandler = self._factory()
        self._opened.append(_Channel(socket, protocol, self._port))
        return protocol

    async def gone(self) -> None:
        """Wait until every WebSocket is closed."""
        await asyncio.gather(*(channel.task for channel in self._opened), return_exceptions=True)


class _Channel(asyncio.Transport):
    """The two channels of one port as a transport: what is written becomes messages, messages become data."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, protocol: ResponseHandler, port: int) -> None:
        super().__init__()
        self._socket, self._protocol, self._port = socket, protocol, port
        self._closing = False
        self._stop = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())
        protocol.connection_made(self)

    async def _run(self) -> None:
        """Until either end closes. It is never cancelled by close: who closes a session waits for connection_lost, and would for ever."""
        receiving, sending = asyncio.create_task(self._receive()), asyncio.create_task(self._send())
        tasks = (receiving, sending, asyncio.create_task(self._stop.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            for task in tasks:
                task.cancel()
            reason, failed, *_ = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(self._socket.close(), return_exceptions=True)
            ended = failed if isinstance(reason, asyncio.CancelledError) else reason
            self._protocol.connection_lost(ended if isinstance(ended, Exception) else None)

    async def _send(self) -> None:
        while True:
            await self._socket.send_bytes(bytes((_DATA,)) + await self._out.get())

    async def _receive(self) -> Exception | None:
        """Hand over data until the other end closes; why it ended, if not well."""
        announced: set[int] = set()
        while True:
            await self._flows.wait()
            message = await self._socket.receive()
            if message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}:
                return None if announced else NoWay("the API server closed the way to the pod at once")
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data or message.data[0] not in {_DATA, _ERROR}:
                return NoWay(f"what the API server sends is not {PROTOCOL}")
            channel, data = message.data[0], message.data[1:]
            if channel not in announced:
                announced.add(channel)
                if data != self._port.to_bytes(2, "little"):
                    return NoWay(f"the API server forwards another port than {self._port}")
            elif channel == _DATA:
                self._protocol.data_received(data)
            elif data:
                return NoWay(_kubelet(data.decode(errors="replace"), self._port))

    # --- what aiohttp asks of a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, without waiting: requests are short."""
        if not self._closing:
            self._out.put_nowait(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        """Take no further message until resume_reading: the other end waits."""
        self._flows.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._flows.set()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Close it, soon."""
        self._closing = True
        self._stop.set()

    def abort(self) -> None:
        """Close it: nothing is kept back that close would still send."""
        self.close()

    def get_extra_info(self, name: str, default: object = None) -> object:  # noqa: ARG002 - asyncio's own
        """Nothing: there is no socket of this connection's own."""
        return default


def _kubelet(said: str, port: int) -> str:
    """What a kubelet or its container runtime says, in few words."""
    said = " ".join(said.split())
    if "connection refused" in said:
        return f"nothing listens on port {port} in the pod (connection refused)"
    return f"the kubelet says: {said[:300]}"
