"""What is said when the bot itself cannot see or speak: one message in the default channel, by whichever of several bots can, and that it is over.

What must stay true: it is settled in Slack who said it, since Redis may be what is gone: before one posts it looks for the others' message, and
of two that were posted at once the younger one is taken back. Who cannot judge that it is over leaves it as it is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from redis.exceptions import RedisError
from slack_sdk.errors import SlackClientError

from bot.outbox import Blind
from bot.recall import history
from templates import blocks
from templates.blocks import Message
from templates.words import amount, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slack_sdk.web.async_client import AsyncWebClient

    from bot.clusters import Clusters
    from bot.lease import Lease
    from bot.outbox import Outbox
    from bot.store import Store
    from bot.sweep import Sweeper

logger = logging.getLogger(__name__)

DEADMAN = "meshwhy_deadman"  # event type of the message's metadata

_EVERY_S = 10.0
_STORE_S, _BLIND_S = 30.0, 60.0  # how long it lasts before it is said
_IDLE_S, _MUTE_S = 180.0, 180.0  # six ticks without a look; a message that waits for so long
_LOOK_BACK_S = 7 * 86400.0
_PAUSE_S = 2.0  # bots that notice at once do not ask at once
_TRIES_S = 60.0  # how often Slack is asked again whether somebody's message is still open


class Standing(NamedTuple):
    """What the leader says of itself: when it committed a look last (0: never), and how many of its clusters it could read then."""

    looked_at: float
    seen: int
    of: int


class Deadman:
    """Watches over the bot that it is part of, and over the one that leads; what it has to say goes where `outbox` sends by default."""

    def __init__(
        self,
        slack: AsyncWebClient,
        *,
        store: Store,
        lease: Lease,
        sweeper: Sweeper,
        clusters: Clusters,
        outbox: Outbox,
    ) -> None:
        self._slack = slack
        self._store = store
        self._lease = lease
        self._sweeper = sweeper
        self._clusters = clusters
        self._outbox = outbox
        self._since: dict[str, float] = {}  # what is wrong -> since when (epoch)
        self._began = time.time()
        self._open = True  # whether a message may stand open: somebody who is gone may have left one
        self._asked = float("-inf")  # monotonic: when Slack was asked last

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            wrong = await self._wrong()
            try:
                if wrong:
                    await self._say(wrong)
                elif self._open and time.monotonic() - self._asked >= _TRIES_S:
                    await self._end()
            except (SlackClientError, aiohttp.ClientError, TimeoutError, Blind) as error:
                # Nobody can be told now; what is wrong is in the log, in the metrics and in /readyz.
                logger.warning("The bot cannot say in Slack that it cannot work: %s", type(error).__name__)

    async def _wrong(self) -> dict[str, str]:
        """A sentence for each thing that is wrong for long enough, by its name."""
        now = time.time()
        found: dict[str, tuple[float, float, str]] = {}  # name -> since when at the latest, after how long it is said, sentence
        try:
            standing = await self._heard()
            late = [now - due for _, due in await self._store.waiting()]
        except (RedisError, OSError) as error:
            found["store"] = (now, _STORE_S, f"Redis does not answer ({type(error).__name__}): alerts are not kept until it does.")
        else:
            if standing is not None and not standing.seen and standing.of:
                found["blind"] = (now, _BLIND_S, f"No cluster can be read, of {standing.of}: every alert stays as it was.")
            if standing is not None and now - max(standing.looked_at, self._began) > _IDLE_S:
                found["idle"] = (standing.looked_at, 0.0, "No bot has looked at the meshes: what fails since then is not told.")
            if max(late, default=0.0) > _MUTE_S and now - self._began > _MUTE_S:
                found["mute"] = (
                    now - max(late),
                    0.0,
                    f"Slack does not take what is to be told: {amount(len(late), 'message')} in the outbox.",
                )
        self._since = {name: self._since.get(name, since) for name, (since, _, _) in found.items()}
        return {name: sentence for name, (_, after, sentence) in found.items() if now - self._since[name] >= after}

    async def _heard(self) -> Standing | None:
        """What the leader said last, after saying it if we are the one; raises redis.RedisError."""
        # A process that is still reading says nothing of what it sees.
        if self._lease.leading and self._lease.held() and not self._clusters.unsettled():
            await self._store.stand(Standing(self._sweeper.looked_at, *self._sweeper.sees))
        found = await self._store.standing()
        return None if found is None else Standing(*found)

    # --- in Slack ---

    async def _say(self, wrong: Mapping[str, str]) -> None:
        channel = await self._outbox.channel_id(self._outbox.default_channel)
        standing = await self._standing(channel)
        if not standing:
            await asyncio.sleep(random.random() * _PAUSE_S)  # noqa: S311 - it only keeps several apart
            standing = await self._standing(channel)
        since = min(self._since[name] for name in wrong)
        if not standing:
            told = _told(wrong, since)
            posted = await self._slack.chat_postMessage(channel=channel, **_arguments(told, wrong, since))
            logger.error("The bot cannot work: %s", " ".join(wrong.values()))
            await asyncio.sleep(_PAUSE_S)
            standing = await self._standing(channel)
            if standing and standing[0]["ts"] != posted["ts"]:
                await self._slack.chat_delete(channel=channel, ts=str(posted["ts"]))
        elif _names(standing[0]) < set(wrong):
            await self._slack.chat_update(channel=channel, ts=standing[0]["ts"], **_arguments(_told(wrong, since), wrong, since))
        self._open = True

    async def _end(self) -> None:
        """Nothing is wrong that we know of: say so in whatever message still stands."""
        self._asked = time.monotonic()
        channel = await self._outbox.channel_id(self._outbox.default_channel)
        for message in await self._standing(channel):
            payload = message["metadata"]["event_payload"]
            since, now = float(payload.get("since", message["ts"])), time.time()
            text = f"I can work again, after {duration(now - since)}."
            told = Message(text, (blocks.header(text), blocks.context(blocks.escape(f"It was: {payload.get('what', '')}"))))
            await self._slack.chat_update(
                channel=channel, ts=message["ts"], **_arguments(told, {}, since, what=str(payload.get("what", "")))
            )
            logger.warning("The bot can work again.")
        self._open = False

    async def _standing(self, channel: str) -> list[dict[str, Any]]:
        """The bot's own messages that say that it cannot work, the oldest first."""
        me = await self._outbox.myself()
        found = []
        async for message in history(self._slack, channel, time.time() - _LOOK_BACK_S):
            metadata = message.get("metadata") or {}
            if message.get("user") == me and metadata.get("event_type") == DEADMAN and metadata.get("event_payload", {}).get("names"):
                found.append(message)
        return sorted(found, key=lambda m: float(m["ts"]))


def _names(message: Mapping[str, Any]) -> set[str]:
    return set(str(message["metadata"]["event_payload"].get("names", "")).split(","))


def _told(wrong: Mapping[str, str], since: float) -> Message:
    text = "I cannot do my work: alerts may be missing"
    said = blocks.escape(" ".join(wrong.values()))
    return Message(text, (blocks.header(text), blocks.section(said), blocks.context(blocks.Mrkdwn(f"Since {blocks.date(since)}."))))


def _arguments(told: Message, wrong: Mapping[str, str], since: float, what: str = "") -> dict[str, Any]:
    payload = {"names": ",".join(sorted(wrong)), "since": f"{since:.0f}", "what": what or " ".join(wrong.values())}
    return {
        "text": told.text,
        "blocks": list(told.blocks),
        "metadata": {"event_type": DEADMAN, "event_payload": payload},
        "unfurl_links": False,
        "unfurl_media": False,
    }
