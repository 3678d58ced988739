"""How what people do reaches the app: over its Socket Mode connections, or by signed requests to its request URL.

An event that the app does not acknowledge is sent again (three times, as Slack does); a command or a click is not, and `send` says
why it failed. Payloads go to one connection, any one, also to one that is half-open: nobody knows it is.
"""

import asyncio
import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from bot.demo.workspace import APP, TEAM

Json = dict[str, Any]
Kind = Literal["slash_commands", "interactive", "events_api"]

CONNECTIONS = 10
ACK_SECONDS = 3.0
RETRIES = (0.0, 60.0, 300.0)
EVENTS_PER_HOUR = 30_000
LIFE, DEBUG_LIFE, WARNING = 18_060.0, 360.0, 10.0  # seconds that a connection lasts, and how long before its end it is warned


class NotAcknowledged(Exception):
    """The app did not answer; the argument is Slack's word for why."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.again = reason, again


@dataclass(eq=False)
class Connection:
    """One Socket Mode connection of the app."""

    socket: web.WebSocketResponse
    half_open: bool = False
    leaving: bool = False


@dataclass
class Delivery:
    """The way to the app; with `request_url` by HTTP, else by Socket Mode."""

    clock: Callable[[], float]
    signing_secret: str
    request_url: str | None = None
    ack_seconds: float = ACK_SECONDS
    retries: tuple[float, ...] = RETRIES
    events_per_hour: int = EVENTS_PER_HOUR
    debug_life: float = DEBUG_LIFE
    connections: list[Connection] = field(default_factory=list)
    told: Callable[[], None] = lambda: None
    _links: set[str] = field(default_factory=set)
    _waiting: dict[str, asyncio.Future[Json | None]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _events: list[float] = field(default_factory=list)
    _limited_at: float = -60.0

    # Connections.

    def new_link(self) -> str:
        """A ticket with which one connection may be opened."""
        ticket = secrets.token_hex(16)
        self._links.add(ticket)
        return ticket

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serves one Socket Mode connection until it ends."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._links:
            return web.Response(status=403, text="invalid ticket")
        self._links.discard(ticket)
        socket = web.WebSocketResponse(autoping=False, max_msg_size=0)
        await socket.prepare(request)
        if len(self.connections) >= CONNECTIONS:
            await socket.send_json(self._farewell("too_many_websockets"))
            await socket.close()
            return socket
        connection = Connection(socket)
        self.connections.append(connection)
        life = self.debug_life if request.query.get("debug_reconnects") == "true" else LIFE
        end = self.run(self._grow_old(connection, life))
        try:
            await socket.send_json(
                {
                    "type": "hello",
                    "num_connections": len(self.connections),
                    "connection_info": {"app_id": APP},
                    "debug_info": {"host": "local", "build_number": 1, "approximate_connection_time": int(life)},
                }
            )
            self.told()
            async for message in socket:
                if connection.half_open:
                    continue
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    self._acknowledged(message.data)
        except ConnectionError:
            pass
        finally:
            end.cancel()
            self.connections.remove(connection)
            self.told()
        return socket

    async def _grow_old(self, connection: Connection, life: float) -> None:
        await asyncio.sleep(max(life - WARNING, life / 2))
        await self.farewell("warning", connection)
        await asyncio.sleep(min(WARNING, life / 2))
        await self.farewell("refresh_requested", connection)
        await connection.socket.close()

    @staticmethod
    def _farewell(reason: str) -> Json:
        return {"type": "disconnect", "reason": reason, "debug_info": {"host": "local"}}

    async def farewell(self, reason: str, *connections: Connection) -> None:
        """Tells these connections (all, when none is named) that they will end; they get no more payloads."""
        for connection in connections or tuple(self.connections):
            connection.leaving = True
            if not connection.half_open and not connection.socket.closed:
                await connection.socket.send_json(self._farewell(reason))

    async def close(self) -> None:
        """Ends every connection and everything under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self.connections):
            await connection.socket.close(code=1001)

    def _acknowledged(self, data: str) -> None:
        try:
            answer = json.loads(data)
        except ValueError:
            return
        waiting = self._waiting.get(answer.get("envelope_id", "")) if isinstance(answer, dict) else None
        if waiting and not waiting.done():
            waiting.set_result(answer.get("payload"))

    # Payloads.

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something in the background until it ends or the workspace does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def send(self, kind: Kind, payload: Json, *, retry: int = 0, reason: str = "") -> Json | None:
        """The app's answer to one payload, None when it is empty; NotAcknowledged when there is none in time."""
        if self.request_url:
            return await self._request(kind, payload, retry, reason)
        ready = [one for one in self.connections if not one.leaving and not one.socket.closed] or self.connections
        if not ready:
            raise NotAcknowledged("dispatch_failed")
        connection = random.choice(ready)  # noqa: S311 - Slack's choice is no secret
        envelope = secrets.token_hex(12)
        frame: Json = {"envelope_id": envelope, "type": kind, "payload": payload, "accepts_response_payload": kind != "events_api"}
        if kind == "events_api":
            frame |= {"retry_attempt": retry, "retry_reason": reason}
        waiting: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()
        self._waiting[envelope] = waiting
        try:
            if not connection.half_open:
                await connection.socket.send_json(frame)
            async with asyncio.timeout(self.ack_seconds):
                return await waiting
        except (TimeoutError, ConnectionError):
            raise NotAcknowledged("timeout" if kind == "events_api" else "operation_timeout") from None
        finally:
            del self._waiting[envelope]

    async def _request(self, kind: Kind, payload: Json, retry: int, reason: str) -> Json | None:
        events = kind == "events_api"
        form = payload if kind == "slash_commands" else {"payload": json.dumps(payload)}
        body = json.dumps(payload) if events else urlencode(form)
        now = str(int(self.clock()))
        headers = {
            "Content-Type": "application/json" if events else "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": now,
            "X-Slack-Signature": signature(self.signing_secret, now, body),
        }
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": reason}
        failed = "operation_timeout"
        try:
            limit = aiohttp.ClientTimeout(total=self.ack_seconds)
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(self.request_url or "", data=body.encode(), headers=headers, max_redirects=2) as answer,
            ):
                text = await answer.text()
                if answer.status == 200:
                    return _parsed(text, answer.content_type)
                raise NotAcknowledged("http_error", again=answer.headers.get("X-Slack-No-Retry") != "1")
        except TimeoutError:
            failed = "http_timeout" if events else failed
        except aiohttp.TooManyRedirects:
            failed = "too_many_redirects"
        except aiohttp.ClientSSLError:
            failed = "ssl_error"
        except aiohttp.ClientError:
            failed = "connection_failed" if events else "dispatch_failed"
        raise NotAcknowledged(failed)

    async def verify(self, url: str) -> None:
        """Makes an address the request URL once it has answered Slack's challenge; NotAcknowledged when it does not."""
        challenge, before, self.request_url = secrets.token_hex(16), self.request_url, url
        answer = None
        try:
            answer = await self._request("events_api", {"type": "url_verification", "challenge": challenge, "token": "x"}, 0, "")
        finally:
            if not answer or challenge not in answer.values():
                self.request_url = before
        if self.request_url != url:
            raise NotAcknowledged("challenge_failed")

    def event(self, event: Json) -> None:
        """Sends an event in the background, again while the app does not acknowledge it."""
        now = self.clock()
        self._events = [at for at in self._events if at > now - 3600]
        payload: Json = {"token": "x", "team_id": TEAM, "api_app_id": APP}
        if len(self._events) >= self.events_per_hour:
            if now - self._limited_at >= 60:
                self._limited_at = now
                self.run(self._until_acknowledged(payload | {"type": "app_rate_limited", "minute_rate_limited": int(now) // 60 * 60}))
            return
        self._events.append(now)
        payload |= {
            "type": "event_callback",
            "event_id": f"Ev{secrets.token_hex(5).upper()}",
            "event_time": int(now),
            "event": event,
            "authorizations": [
                {"enterprise_id": None, "team_id": TEAM, "user_id": "U0MESHWHY", "is_bot": True, "is_enterprise_install": False}
            ],
            "is_ext_shared_channel": "user_team" in event,
        }
        self.run(self._until_acknowledged(payload))

    async def _until_acknowledged(self, payload: Json) -> None:
        reason = ""
        for retry, delay in enumerate((0.0, *self.retries)):
            await asyncio.sleep(delay)
            try:
                await self.send("events_api", payload, retry=retry, reason=reason)
            except NotAcknowledged as failed:
                reason = failed.reason
                if not failed.again:
                    return
            else:
                return


def signature(secret: str, timestamp: str, body: str) -> str:
    """Slack's signature of a request: `v0=` and the HMAC-SHA256 of `v0:timestamp:body`."""
    return "v0=" + hmac.new(secret.encode(), f"v0:{timestamp}:{body}".encode(), hashlib.sha256).hexdigest()


def _parsed(text: str, content_type: str) -> Json | None:
    if not text:
        return None
    if content_type == "application/json":
        try:
            parsed = json.loads(text)
        except ValueError:
            return None
        return parsed if isinstance(parsed, dict) else None
    return {"text": text}
