"""What is told when an alert is over: what ended is put on record, and who dealt with it gets a draft of its post-mortem in the thread.

What must stay true: what ended is counted once, whoever leads by then; what fires again within a moment did not end; a draft is uploaded once or
not at all, and costs no alert anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError, SlackClientError

from bot import history
from bot.alerts import OUTAGE, Reason, State, namespaces
from bot.health import Pulse
from bot.store import Deposed, Ended, Step
from checks import diagnosis
from checks.diagnosis import UnknownHost
from templates import blocks, messages, picture, postmortem, strip, words
from templates.blocks import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from slack_sdk.web.async_client import AsyncWebClient

    from bot.alerts import Alert
    from bot.store import Ending, Line, Store

logger = logging.getLogger(__name__)

SETTLE_S = 10.0  # what fires again within so long did not end
LONG_S = 600.0  # what failed for so long gets a draft although nobody did anything about it
_WAIT_S = 3600.0  # how long a draft waits for its message to be in Slack
_AGAIN_S = 5.0
_AROUND_S = 900.0  # what is told of the time before and after
_DEALT = frozenset({Reason.ACKED, Reason.HANDED, Reason.NOTED, Reason.CLOSED, Reason.ESCALATED, Reason.SILENCED})
_ACKED = "acknowledged"


class Clerk:
    """Tells of what ends. `held` says whether this is the bot that may."""

    def __init__(self, store: Store, slack: AsyncWebClient, *, held: Callable[[], bool] = lambda: True, settle_s: float = SETTLE_S) -> None:
        self._store = store
        self._slack = slack
        self._held = held
        self._settle_s = settle_s
        self.pulse = Pulse()

    async def run(self) -> None:
        """Until cancelled; the oldest first."""
        while True:
            self.pulse.beat()
            self._store.ending_due.clear()
            wait = _AGAIN_S
            with suppress(RedisError, OSError):
                for ending in await self._store.ending() if self._held() else ():
                    left = ending.at + self._settle_s - time.time()
                    if left > 0:
                        wait = min(wait, left)
                        break
                    await self._tell(ending)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._store.ending_due.wait()

    async def _tell(self, ending: Ending) -> None:
        now = time.time()
        members = await self._store.spoken(ending.message)
        if not members or any(a.state is not State.RESOLVED for a in members):
            await self._store.told_of(ending, None, now)
            return
        lines = await self._store.chronicle(ending.message)
        ended = summed(ending, members, lines)
        worth = ended.handled or ended.ended - ended.fired >= LONG_S
        place = (await self._store.where([ending.message])).get(ending.message)
        if worth and place is None and now - ending.at < _WAIT_S:
            return  # its message waits for Slack
        with suppress(Deposed):
            tried = f"postmortem:{ending.message}:{ending.at:.3f}"  # a draft that may have been uploaded is not uploaded again
            me = f"{now:.6f}"
            if worth and place is not None and await self._store.claim(tried, me, _WAIT_S) == me:
                why = await self._upload(ended, members, lines, *place)
                if why == "ratelimited":
                    await self._store.release(tried)
                    return
                if why:
                    logger.warning("The post-mortem of %s could not be added: %s", ended.message, why)
                    note = Message(blocks.escape(f"The draft of the post-mortem could not be added ({why})."))
                    step = Step(id=f"{ended.message}.postmortem.{ending.at:.3f}", message=note)
                    await self._store.commit({}, steps={ended.message: [step]}, now=now)
            await self._store.told_of(ending, ended, now)

    async def _upload(self, ended: Ended, members: Sequence[Alert], lines: Sequence[Line], channel: str, ts: str) -> str:
        """Put the draft into the thread; why that was not possible, empty if it was."""
        try:
            facts = await self._facts(ended, members, lines)
            files: list[dict[str, Any]] = [
                {"content": postmortem.markdown(facts), "filename": "post-mortem.md", "title": f"Post-mortem draft: {facts['title']}"[:200]}
            ]
            if facts["view"] is not None:
                png = await asyncio.to_thread(lambda: picture.png(strip.svg(facts["view"])))
                alt = strip.alt(facts["view"])
                files.append({"content": png, "filename": "share.png", "title": "The share that failed, over time", "alt_txt": alt})
            said = messages.postmortem(facts)
            await self._slack.files_upload_v2(file_uploads=files, channel=channel, thread_ts=ts, initial_comment=said.text)
        except SlackApiError as refused:
            return str(refused.response.get("error"))
        except (SlackClientError, aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
            return type(error).__name__
        return ""

    async def _facts(self, ended: Ended, members: Sequence[Alert], lines: Sequence[Line]) -> dict[str, Any]:
        """What is known of it, in the form of `postmortem.markdown`."""
        lead = worst(members)
        view = None
        if ended.host:
            with suppress(UnknownHost):
                found = history.resolve(ended.host, await history.hosts(self._store))
                pasts = [await history.past(self._store, mesh, host, time.time()) for host, mesh in found]
                view = history.view(
                    pasts,
                    _instant(pasts, ended),
                    time.time(),
                    begin=ended.began - _AROUND_S,
                    end=min(ended.ended + _AROUND_S, time.time()),
                )
        looked = await self._store.drafted(f"runbook-{ended.message}")
        return {
            "title": words.headline(lead.finding.host, ended.share, None, ())
            if ended.host
            else f"{lead.finding.cluster} could not be read",
            **msgspec.to_builtins(ended),
            "finding": msgspec.to_builtins(lead.finding),
            "page": diagnosis.pages().get(lead.finding.cause, ""),
            "others": sorted({a.finding.host for a in members} - {lead.finding.host}),
            "well_by": list(dict.fromkeys(w for a in members for w in a.well_by)),
            "closed": msgspec.to_builtins(lead.closed) if lead.closed is not None else None,
            "lines": msgspec.to_builtins(list(lines)),
            "view": view,
            "looked": blocks.plain(looked) if looked is not None else [],
        }


def worst(members: Sequence[Alert]) -> Alert:
    """The alert that speaks for all."""
    return max(members, key=lambda a: (a.finding.failing_share, -a.since, a.id))


def _instant(pasts: Sequence[history.Past], ended: Ended) -> float:
    """The instant that is drawn: in the middle of what failed, where most did."""
    day = history.view(pasts, ended.began, time.time())["strip"]
    failing = [p for p in day if p["share"] and p["until"] >= ended.began and p["from"] <= ended.ended]
    if not failing:
        return ended.began
    most = max(failing, key=lambda p: (p["share"], p["until"] - p["from"]))
    return float((most["from"] + most["until"]) / 2)


def summed(ending: Ending, members: Sequence[Alert], lines: Sequence[Line]) -> Ended:
    """What a message told, in short."""
    lead = worst(members)
    fired = min((a.told_at or a.fired_at or a.since for a in members), default=ending.at)
    acked = next((line for line in lines if line.reason == _ACKED), None)
    dealt = {r.value for r in _DEALT}
    return Ended(
        message=ending.message,
        cause=lead.finding.cause,
        code=lead.finding.code,
        cluster=lead.finding.cluster,
        namespaces=tuple(sorted({n for a in members for n in namespaces(a.finding)})),
        resource=lead.finding.resource,
        host="" if lead.finding.cause == OUTAGE else lead.finding.host,
        hosts=len({a.finding.host for a in members}),
        share=max(a.finding.failing_share for a in members),
        began=min(a.since for a in members),
        fired=fired,
        ended=ending.at,
        acked=acked.at if acked is not None else None,
        acked_by=acked.by if acked is not None else "",
        handled=any(line.reason in dealt and line.by for line in lines),
        team=ending.team,
        channel=ending.channel,
    )


def by_cause_and_team(found: Iterable[Ended]) -> list[dict[str, Any]]:
    """What ended, in the form of `messages.ended`: of each cause and team how many, and how long until somebody saw to it and until it was well."""
    groups: dict[tuple[str, str], list[Ended]] = {}
    for one in found:
        groups.setdefault((f"{one.code} {one.cause}".strip(), one.team or one.channel), []).append(one)
    rows = [
        {
            "cause": cause,
            "team": team,
            "count": len(group),
            "acked": sum(e.acked is not None for e in group),
            "to_ack": _spread([e.acked - e.fired for e in group if e.acked is not None]),
            "to_resolve": _spread([e.ended - e.fired for e in group]),
        }
        for (cause, team), group in groups.items()
    ]
    return sorted(rows, key=lambda r: (-r["count"], r["cause"], r["team"]))


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """The median and the 90th percentile (the nearest that occurred); None of nothing."""
    if not seconds:
        return None
    ordered = sorted(max(s, 0.0) for s in seconds)
    return {"median": statistics.median(ordered), "p90": ordered[math.ceil(len(ordered) * 0.9) - 1]}
