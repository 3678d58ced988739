"""What Slack remembers of the alerts when Redis has forgotten them: each message carries its alerts in short, so that it goes on being edited.

What must stay true: only what this bot itself posted counts, since anybody may write metadata; of several messages about one alert the newest
speaks; what the short form leaves out the next look puts back. Nothing in it that the message does not say.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from msgspec.structs import replace
from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.alerts import Alert, State
from bot.store import RESOLVED_S, Delivery, Deposed, Recalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store

logger = logging.getLogger(__name__)

ALERT = "meshwhy_alert"  # event type of the metadata of an alert's message

_MEMO = 7_000  # characters; Slack refuses "too large" metadata without saying how large
_UNPACKED = 1 << 20  # bytes; what we wrote is far less
_PAGE, _PAGES = 200, 20  # how far back a channel is read
_AGAIN_S = 5.0
_PATIENCE_S = 120.0  # after so long without an answer of Slack what is still broken is told anew: twice is better than never

_decode = msgspec.json.Decoder(tuple[Alert, ...]).decode


def memo(members: Sequence[Alert]) -> str:
    """The alerts of a message in short, the first ones of them where there are too many."""
    while True:
        packed = base64.b85encode(zlib.compress(msgspec.json.encode([_short(a) for a in members], enc_hook=str), 9)).decode()
        if len(packed) <= _MEMO or not members:
            return packed
        members = members[: len(members) * 3 // 4]


def _short(alert: Alert) -> Alert:
    """An alert without what the next look finds anew; where it is felt and that it has legs decides what a look must see to resolve it."""
    f = alert.finding
    felt = {v.cluster: v for v in reversed(f.viewpoints)}
    leg = tuple(e[:200] for e in f.evidence if e.startswith("leg "))[:1]
    finding = replace(
        f,
        viewpoints=tuple(felt[c] for c in sorted(felt)),
        evidence=leg,
        message=f.message[:300],
        fix="",
        patch=None,
        commands=(),
        same_as=(),
        origin=None,
    )
    notes = tuple(replace(n, text=n.text[:200]) for n in alert.notes[-2:])
    closed = replace(alert.closed, why=alert.closed.why[:200]) if alert.closed is not None else None
    appeal = replace(alert.appeal, why=alert.appeal.why[:200], tried="") if alert.appeal is not None else None
    return replace(alert, finding=finding, well_by=(), unknown_why=alert.unknown_why[:300], notes=notes, closed=closed, appeal=appeal)


def unpacked(packed: object) -> tuple[Alert, ...]:
    """The alerts of a memo; none if it cannot be read."""
    try:
        unpacker = zlib.decompressobj()
        return _decode(unpacker.decompress(base64.b85decode(str(packed)), _UNPACKED))
    except (ValueError, binascii.Error, zlib.error, msgspec.DecodeError):
        return ()


async def remember(store: Store, slack: AsyncWebClient, beat: Callable[[], None]) -> None:
    """If the store is new or was emptied: put back what Slack still shows. To be done before anything is told; raises Deposed.

    `beat` is called while it lasts.
    """
    began = time.monotonic()
    while True:
        beat()
        try:
            await store.open()
            if not await store.forgetful():
                return
            found = await _recalled(slack, time.time() - RESOLVED_S)
            await store.adopt(found)
        except Deposed:
            raise
        except (RedisError, OSError) as error:
            logger.warning("What the store remembers cannot be asked (%s).", type(error).__name__)
        except (SlackClientError, aiohttp.ClientError, TimeoutError) as error:
            why = error_of(error)
            logger.warning("Slack cannot be asked which alerts stand there (%s).", why)
            if time.monotonic() - began > _PATIENCE_S:
                await store.adopt(())
                return
        else:
            if found:
                count = sum(a.state is not State.RESOLVED for r in found for a in r.alerts)
                logger.warning("The store was empty; %d open alerts were found in %d messages in Slack.", count, len(found))
            return
        await asyncio.sleep(_AGAIN_S)


async def _recalled(slack: AsyncWebClient, since: float) -> list[Recalled]:
    """The messages of alerts in every channel that the bot is in, posted after `since`; raises what slack_sdk and aiohttp raise."""
    me: Any = (await slack.auth_test())["user_id"]
    found: list[tuple[float, Recalled]] = []
    async for channel in _conversations(slack):
        try:
            async for message in history(slack, channel, since):
                payload = _payload(message, me)
                if payload is not None and (alerts := unpacked(payload.get("alerts", ""))):
                    place = Delivery(
                        channel=channel,
                        ts=str(message["ts"]),
                        picture=str(payload.get("picture", "")),
                        file=str(payload.get("file", "")),
                        shown=any(b.get("type") == "image" for b in message.get("blocks") or ()),
                    )
                    found.append((float(message["ts"]), Recalled(message=str(payload["message"]), delivery=place, alerts=alerts)))
        except SlackApiError as error:
            if _passes(error):
                raise
            logger.warning("Channel %s cannot be read (%s): an alert that stands there may be posted again.", channel, error_of(error))
    newest: dict[str, Recalled] = {}
    told: set[str] = set()
    for _, one in sorted(found, key=lambda f: -f[0]):
        if one.message not in newest:
            newest[one.message] = replace(one, alerts=tuple(a for a in one.alerts if a.id not in told))
            told |= {a.id for a in one.alerts}
    return list(newest.values())


def _payload(message: dict[str, Any], me: str) -> dict[str, Any] | None:
    metadata = message.get("metadata") or {}
    payload = metadata.get("event_payload")
    ours = message.get("user") == me and metadata.get("event_type") == ALERT and isinstance(payload, dict)
    return payload if ours and payload is not None and payload.get("message") else None


async def _conversations(slack: AsyncWebClient) -> AsyncIterator[str]:
    cursor = ""
    while True:
        page = await patient(
            slack.users_conversations, types="public_channel,private_channel", exclude_archived=True, limit=_PAGE, cursor=cursor
        )
        for channel in page.get("channels") or ():
            yield channel["id"]
        if not (cursor := (page.get("response_metadata") or {}).get("next_cursor", "")):
            return


async def history(slack: AsyncWebClient, channel: str, since: float) -> AsyncIterator[dict[str, Any]]:
    """The messages of a channel (its id) since then (seconds since the epoch), with metadata, the newest first; waits where Slack asks for it."""
    cursor = ""
    for _ in range(_PAGES):
        page = await patient(
            slack.conversations_history,
            channel=channel,
            oldest=f"{since:.6f}",
            include_all_metadata=True,
            limit=_PAGE,
            cursor=cursor,
        )
        for message in page.get("messages") or ():
            yield message
        if not (cursor := (page.get("response_metadata") or {}).get("next_cursor", "")):
            return


async def patient(ask: Callable[..., Awaitable[Any]], **arguments: Any) -> Any:
    """The answer, after the waits that Slack asks for."""
    while True:
        try:
            return await ask(**arguments)
        except SlackApiError as error:
            if error_of(error) != "ratelimited":
                raise
            headers: Any = getattr(error.response, "headers", None) or {}
            await asyncio.sleep(max(float(headers.get("Retry-After", 1)), 1.0))


def _passes(error: SlackApiError) -> bool:
    """Whether the same question may be answered later."""
    response: Any = error.response
    return getattr(response, "status_code", 200) >= 500 or error_of(error) in {"internal_error", "fatal_error", "service_unavailable"}


def error_of(error: Exception) -> str:
    """Slack's word for what it refused, else what kind of failure it was."""
    data = getattr(getattr(error, "response", None), "data", None)
    return str(data.get("error")) if isinstance(data, dict) and data.get("error") else type(error).__name__
