"""A channel of its own for what somebody wants one for: opened, people invited, its topic set, and linked both ways with the alert.

What must stay true: whatever is killed when, of one message one channel comes, since its name is made of the alert's and a name that is taken is looked up;
whoever wanted it reads why there is none.

Sources: docs.slack.dev, conversations.create (name_taken, names of 80 characters: lower case, digits, `-` and `_`), conversations.invite
(already_in_channel), conversations.setTopic (250 characters).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError, SlackClientError

from bot.alerts import Appeal, State
from bot.health import Pulse
from bot.recall import error_of, patient
from bot.store import Deed, Deposed, Draft, Step
from templates import messages, owning
from templates.words import percent, short

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from slack_sdk.web.async_client import AsyncWebClient

    from bot.alerts import Alert
    from bot.store import Incident, Store

logger = logging.getLogger(__name__)

NAME, TOPIC = 80, 250  # characters that Slack takes
_PEOPLE = 30  # who are invited
_AGAIN_S, _LATER_S = 2.0, 60.0  # how often the store is asked; how long at most nothing is tried after failures
_OTHERS = 4  # names that are tried when somebody else has the first one
_PASSES = {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "ratelimited", "team_added_to_org"}
_IN_IT = {"already_in_channel", "cant_invite_self"}


class Refused(Exception):
    """Slack does not want it; the message is its word for why."""


def name_of(alert: Alert) -> str:
    """The name of an alert's channel, the same at every try: what it is about for people, and the alert's id."""
    about = re.sub(r"[^a-z0-9]+", "-", (short(alert.finding.host) or alert.finding.cluster).lower()).strip("-")
    _, _, episode = alert.message.rpartition("-")
    tail = f"-{alert.id[:6]}-{re.sub(r'[^a-z0-9]', '', episode.lower())[:6]}"
    return f"inc-{about[: NAME - 8 - len(tail)]}{tail}"


class Incidents:
    """Opens the channels that the store says are wanted. One of it runs at a time; `held` says whether this is the one that may."""

    def __init__(self, store: Store, slack: AsyncWebClient, *, held: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._slack = slack
        self._held = held
        self.pulse = Pulse()

    async def run(self) -> None:
        """Until cancelled; one after the other, and what fails for a while is tried again."""
        failed = 0
        while True:
            self.pulse.beat()
            self._store.incident_due.clear()
            wait, bad = _AGAIN_S, False
            with suppress(RedisError, OSError):
                for wanted in await self._store.incidents() if self._held() else ():
                    bad |= not await self._tried(wanted)
            failed = failed + 1 if bad else 0
            if bad:
                wait = min(_AGAIN_S * 2.0 ** (failed - 2), _LATER_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._store.incident_due.wait()

    async def _tried(self, wanted: Incident) -> bool:
        """Whether nothing went wrong that may go well later; one that cannot be opened now delays no other."""
        try:
            await self._open(wanted)
        except Deposed:
            pass
        except (RedisError, OSError, SlackClientError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("A channel for an incident cannot be opened now (%s).", error_of(error))
            return False
        return True

    async def _open(self, wanted: Incident) -> None:
        members = [a for a in (await self._store.alerts()).values() if a.message == wanted.message]
        if not members or any(a.incident for a in members):
            await self._store.opened(wanted, now=time.time())  # it is over, or it has one
            return
        lead = max(members, key=lambda a: (a.state is State.FIRING, a.finding.failing_share, a.id))
        appeal = wanted.appeal or lead.appeal or Appeal(by=wanted.by, at=wanted.at)
        where = (await self._store.where([wanted.message])).get(wanted.message)
        if where is None:
            return  # its message is not in Slack yet
        try:
            channel = await self._channel(wanted.name)
            missing = await self._invite(channel, wanted)
            await patient(self._slack.conversations_setTopic, channel=channel, topic=_topic(lead, appeal))
            link: Any = await patient(self._slack.chat_getPermalink, channel=where[0], message_ts=where[1])
        except (SlackApiError, Refused) as error:
            why = str(error) if isinstance(error, Refused) else error_of(error)
            if why in _PASSES:
                raise
            line = messages.step({"reason": "no channel", "at": time.time(), "text": owning.no_channel(why), "by": wanted.by})
            await self._store.opened(wanted, steps=[Step(id=f"{wanted.message}.incident.{wanted.at:.3f}", message=line)], now=time.time())
            return
        told = {
            "link": str(link["permalink"]),
            "by": wanted.by,
            "owner": lead.ack.by if lead.ack is not None else "",
            "says": _topic(lead, appeal),
            "message": lead.finding.message,
            "fix": lead.finding.fix,
            "severity": appeal.severity,
            "why": appeal.why,
            "tried": appeal.tried,
            "missing": missing,
        }
        draft = Draft(id=f"incident-{wanted.message}", alert=lead.id, channel=channel, message=owning.incident(told), resolved=True)
        deed = Deed(verb="incident", by=wanted.by, at=wanted.at, message=wanted.message, text=channel)
        await self._store.opened(wanted, deed=deed, drafts=[draft], now=time.time())

    async def _channel(self, name: str) -> str:
        """The id of the channel of this name, made now or by us before; of another name where somebody else has it. Raises Refused, SlackApiError."""
        me = str((await self._slack.auth_test())["user_id"])
        for number in range(1, _OTHERS + 1):
            called = name if number == 1 else f"{name}-{number}"[:NAME]
            try:
                made: Any = await patient(self._slack.conversations_create, name=called)
                return str(made["channel"]["id"])
            except SlackApiError as error:
                if error_of(error) != "name_taken":
                    raise
            async for channel in self._channels():
                if channel.get("name") == called and channel.get("creator") == me and not channel.get("is_archived"):
                    return str(channel["id"])
        raise Refused("name_taken")

    async def _channels(self) -> AsyncIterator[dict[str, Any]]:
        cursor = ""
        while True:
            page: Any = await patient(
                self._slack.conversations_list, types="public_channel", exclude_archived=True, limit=1000, cursor=cursor
            )
            for channel in page.get("channels") or ():
                yield channel
            if not (cursor := (page.get("response_metadata") or {}).get("next_cursor", "")):
                return

    async def _invite(self, channel: str, wanted: Incident) -> list[str]:
        """Invite everybody who is wanted, and say whom Slack did not let in."""
        people: dict[str, None] = {}
        for ident in wanted.people:
            if ident.startswith("S"):
                with suppress(SlackApiError):
                    found: Any = await patient(self._slack.usergroups_users_list, usergroup=ident)
                    people.update(dict.fromkeys(found.get("users") or ()))
            else:
                people[ident] = None
        missing: list[str] = []
        for person in list(people)[:_PEOPLE]:
            try:
                await patient(self._slack.conversations_invite, channel=channel, users=person)
            except SlackApiError as error:
                if error_of(error) in _PASSES:
                    raise
                if error_of(error) not in _IN_IT:
                    missing.append(person)
        return missing


def _topic(alert: Alert, appeal: Appeal) -> str:
    finding = alert.finding
    says = [f"{percent(finding.failing_share)} of {short(finding.host)} fails" if finding.host else finding.resource, finding.cluster]
    says += [appeal.severity] if appeal.severity else []
    return owning.topic(says, TOPIC)
