"""Committed messages to Slack: in order within a message, at least once, as fast as Slack allows and no faster.

What must stay true: nothing leaves the store's outbox before Slack has it; a post whose answer was lost is looked for before it is sent again;
of edits that wait only the newest is sent; what fails goes before what is well again, the worst first, and a message before the lines of threads;
what Slack refuses goes out smaller, in the end as plain text; a picture never costs a message.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import msgspec
from msgspec.structs import replace
from redis.exceptions import RedisError
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot import metrics
from bot.health import Pulse
from bot.recall import ALERT
from bot.store import DAY_S, Delivery, Deposed, Draft, Step
from templates import blocks, picture
from templates.blocks import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot.store import Store, Work

logger = logging.getLogger(__name__)

STEP, THREADED = "meshwhy_step", "meshwhy_threaded"
"""Event types of the metadata of a thread's lines, and of its messages that are edited; by them, as by ALERT, a lost post is found again."""

_CHANNEL_POSTS = (1.0, 4)  # Slack: about one post a second in a channel, short bursts tolerated
_EDITS = (50 / 60, 20)  # Slack: tier 3, 50 a minute for chat.update
_BACKOFF_S, _BACKOFF_MAX_S = 0.25, 300.0
_LOOK_BACK_S = 120.0  # Slack's clock and ours need not agree
_TOKEN_S, _CHANNEL_S = 5.0, 60.0  # how long nobody asks again after Slack refused the token, or a channel
_ROOT_S = 0.5  # how often a message for a thread looks whether its root is there
_PICTURE_TRIES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds that Slack may need to process an upload

_TOO_MUCH = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_too_long", "msg_blocks_too_long", "block_mismatch", "no_text"})
_NO_CHANNEL = frozenset(
    {"channel_not_found", "is_archived", "not_in_channel", "restricted_action", "restricted_action_read_only_channel", "no_permission"}
)
_NO_ROOT = frozenset({"message_not_found", "thread_not_found"})
_NO_EDIT = frozenset({"cant_update_message", "edit_window_closed", "is_inactive"})
_NO_THREAD = frozenset({"cannot_reply_to_message", "restricted_action_thread_locked", "restricted_action_thread_only_channel"})
_NO_TOKEN = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope", "org_login_required"}
)
_PERHAPS_SENT = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})


class Lost(Exception):
    """Slack may or may not have done it: the request was sent and no answer came."""


class Refused(Exception):
    """Slack said no, and why."""

    def __init__(self, error: str, retry_after_s: float = 0.0, pointers: tuple[str, ...] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after_s = retry_after_s
        self.pointers = pointers


class Blind(Exception):
    """Slack does not let the bot look for a post whose answer was lost, and why."""


class Later(Exception):
    """Leave this message and come back in some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


Lane = tuple[int, float]
"""What goes first: the smallest."""


class Pace:
    """A token bucket: `rate` turns a second, `burst` at once. Of those who wait the first in its lane, of the first lane, has the next turn."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._credit = self._interval * (burst - 1)
        self._next = 0.0
        self._paused_until = 0.0
        self._waiting: list[tuple[Lane, int, asyncio.Future[None]]] = []
        self._came = 0
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, lane: Lane = (0, 0.0)) -> None:
        """Wait for a turn."""
        mine = asyncio.get_running_loop().create_future()
        self._came += 1
        heapq.heappush(self._waiting, (lane, self._came, mine))
        if self._timer is None:
            self._serve()
        await mine

    def _serve(self) -> None:
        """Give the turns that are due, and come back for the next one."""
        self._timer = None
        while self._waiting:
            if self._waiting[0][2].done():  # who waited was cancelled
                heapq.heappop(self._waiting)
                continue
            now = time.monotonic()
            at = max(self._next, now - self._credit, self._paused_until)
            if at > now:
                self._timer = asyncio.get_running_loop().call_later(at - now, self._serve)
                return
            self._next = at + self._interval
            heapq.heappop(self._waiting)[2].set_result(None)

    def pause(self, seconds: float) -> None:
        """No turn for so long, and no burst after it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        self._next = max(self._next, self._paused_until)


class _Place(NamedTuple):
    channel: str
    ts: str


class Outbox:
    """Sends what the store's outbox holds. One of it runs at a time; `default_channel` takes what no channel above it can, `admin_channel` hears of it.

    `held` says whether this is the one that may send: it is asked before each call that another one could repeat, and again when Slack is
    connected and nothing of the call has left: a process may be paused for long while it connects.
    """

    def __init__(
        self,
        store: Store,
        slack: AsyncWebClient,
        default_channel: str,
        *,
        admin_channel: str | None = None,
        timeout_s: int = 20,
        held: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        # A client of its own, without any retry handler: the one that slack_sdk brings would post again after a broken connection.
        self._slack = AsyncWebClient(
            token=slack.token, base_url=slack.base_url, ssl=slack.ssl, proxy=slack.proxy, timeout=timeout_s, retry_handlers=[]
        )
        self.heed(default_channel, admin_channel)
        self._held = held
        self._posts: dict[str, Pace] = {}
        self._edits = Pace(*_EDITS)
        self._ids: dict[str, str] = {}  # channel names as Slack answered them
        self._me = ""
        self._shut: dict[
            str, tuple[float, str]
        ] = {}  # channel ("" for all of Slack) -> until when (monotonic) it need not be asked, and why
        self._sending: set[str] = set()
        self.pulse = Pulse()
        self._silenced = ""  # the error that was logged last, so that an outage is one line

    def heed(self, default_channel: str, admin_channel: str | None = None) -> None:
        """Where from now on goes what its own channel cannot take, and what those who run the bot should know (else there as well)."""
        self.default_channel = default_channel
        self._admin_channel = admin_channel or default_channel

    async def run(self) -> None:
        """Send until cancelled. Redis being away is waited for; what is in the store then is sent."""
        async with self._session() as self._slack.session, asyncio.TaskGroup() as group:
            while True:
                self._store.committed.clear()
                self.pulse.beat()
                wait = 5.0
                try:
                    for message, due in await self._store.waiting():
                        if message in self._sending:
                            continue
                        if due > time.time():
                            wait = min(wait, due - time.time())
                            break
                        self._sending.add(message)
                        group.create_task(self._send(message))
                except (RedisError, OSError) as error:
                    self._say_once(f"The store cannot be read: {type(error).__name__}.")
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, 0.05)):
                        await self._store.committed.wait()

    def _session(self) -> aiohttp.ClientSession:
        """Connections to Slack, one for each call, over which nothing is written once somebody else may send."""

        async def before_the_body(*_: object) -> None:
            if not self._held():
                raise Deposed("the lease was over before anything was sent")

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(before_the_body)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._slack.timeout),
            trace_configs=[trace],
        )

    async def _send(self, message: str) -> None:
        """Bring one message to where it should be, or leave it for later."""
        work = None
        try:
            while (work := await self._store.work(message)) is not None:
                if not await self._next(work) and await self._store.settle(message, work.rev):
                    return
        except Later as later:
            await self._later(message, later.seconds, work)
        except Deposed:
            return  # another one sends it now
        except msgspec.DecodeError as error:
            self._say_once(f"Message {message} cannot be read from the store: {error}.")
            await self._later(message, _BACKOFF_MAX_S)
        except (RedisError, OSError) as error:
            self._say_once(f"The store cannot be reached: {type(error).__name__}.")
            await asyncio.sleep(1)
            self._store.committed.set()
        finally:
            self._sending.discard(message)

    async def _later(self, message: str, seconds: float, seen: Work | None = None) -> None:
        with suppress(RedisError, OSError):
            await self._store.postpone(message, time.time() + seconds, seen)
        self._store.committed.set()

    async def _next(self, work: Work) -> bool:
        """Do the next thing that Slack lacks of a message: the root, then the lines of its thread, then its picture. False: nothing is lacking."""
        has = work.delivery
        try:
            if not has.ts:
                await self._post_root(work)
            elif has.rev < work.rev:
                await self._edit_root(work)
            elif work.steps:
                await self._post_step(work, work.steps[0])
            elif work.draft.picture is not None and work.draft.picture.key != has.picture:
                await self._upload(work, work.draft.picture)
            elif work.draft.picture is not None and has.file and not has.shown:
                await self._show_picture(work)
            else:
                return False
        except Lost as error:
            fresh = await self._store.work(work.draft.id) or work  # its `trying` says what is to be looked for
            await self._fail(work.draft, fresh.delivery, f"Slack did not answer: {error}.")
        except Refused as refused:
            await self._cope(work, refused)
        else:
            self._say_once("")
        return True

    # --- the root ---

    async def _post_root(self, work: Work) -> None:
        draft, has = work.draft, work.delivery
        thread = await self._thread(draft)
        channel = thread.channel or has.channel or draft.channel
        if has.trying:
            try:
                found = await self._find(channel, has, "message", draft.id, thread=thread.ts)
            except Blind as blind:
                await self._note(work, "twice", f"Slack did not confirm this message at first ({blind}): it may stand twice.")
            else:
                if found is not None:
                    await self._store.record(draft, replace(has, channel=found.channel, ts=found.ts, trying="", attempts=0))
                    return
        await self._pace(channel).turn(_lane(draft))
        work = await self._store.work(draft.id) or work  # what came while we waited is part of it
        has = replace(work.delivery, channel=channel, trying=f"root {time.time():.0f}")
        await self._store.record(draft, has)
        where = {"channel": channel} | ({"thread_ts": thread.ts} if thread.ts else {})
        answer = await self._down_the_ladder(work, "chat.postMessage", metadata=_metadata(work), **where)
        self._ids[channel] = answer["channel"]
        posted = Delivery(channel=answer["channel"], ts=answer["ts"], rev=work.rev, picture=has.picture, file=has.file)
        await self._store.record(work.draft, posted)

    async def _thread(self, draft: Draft) -> _Place:
        """Where the message stands in whose thread this one is to stand, empty for one of its own; raises Later while that is not in Slack."""
        if not draft.thread:
            return _Place("", "")
        there = (await self._store.where([draft.thread])).get(draft.thread)
        if there is None:
            raise Later(_ROOT_S)
        return _Place(*there)

    async def _edit_root(self, work: Work) -> None:
        await self._edits.turn(_lane(work.draft))
        work = await self._store.work(work.draft.id) or work
        has = work.delivery
        try:
            answered = await self._down_the_ladder(work, "chat.update", channel=has.channel, ts=has.ts, metadata=_metadata(work))
        except Refused as refused:
            if refused.error not in _NO_EDIT:
                raise
            # Slack will never change this message again: the news goes into its thread.
            await self._store.record(work.draft, replace(has, rev=work.rev))
            news = Step(id=f"{work.draft.id}.rev.{work.rev}", message=work.draft.message)
            await self._store.commit({}, steps={work.draft.id: [news]}, now=time.time())
            return
        shown = any(b.get("type") == "image" for b in answered["sent"].blocks)
        await self._store.record(work.draft, replace(has, rev=work.rev, shown=shown, attempts=0))

    async def _down_the_ladder(self, work: Work, method: str, **where: Any) -> dict[str, Any]:
        """Send the fullest form that Slack takes; its answer, with what was `sent`. The picture is the first thing to go."""
        rungs = list(blocks.ladder(work.draft.message))
        if (framed := _with_picture(work)) is not None:
            rungs.insert(0, framed)
        for rung in rungs:
            try:
                answer = await self._call(method, **where, **_words(rung))
            except Refused as refused:
                if refused.error not in _TOO_MUCH and not (rung is framed and "file" in refused.error):
                    raise
                logger.warning("Slack refused a form of message %s: %s %s", work.draft.id, refused.error, " ".join(refused.pointers))
                last = refused
            else:
                return {**answer, "sent": rung}
        raise last

    # --- the thread ---

    async def _post_step(self, work: Work, step: Step) -> None:
        draft, has = work.draft, work.delivery
        attempt = f"step {step.id} "
        if has.trying.startswith(attempt):
            with suppress(Blind):  # then the line may stand twice, which costs less than a note about it
                if await self._find(has.channel, has, "step", step.id, thread=has.ts) is not None:
                    await self._store.record(draft, replace(has, trying="", attempts=0), said=1)
                    return
        await self._pace(has.channel).turn(_lane(draft) if step.aloud else _LINES)
        has = replace(has, trying=f"{attempt}{time.time():.0f}")
        await self._store.record(draft, has)
        metadata = {"event_type": STEP, "event_payload": {"alert": draft.alert, "step": step.id}}
        where: dict[str, Any] = {"channel": has.channel, "thread_ts": has.ts} | ({"reply_broadcast": True} if step.aloud else {})
        line = replace(work, draft=replace(draft, message=step.message, picture=None))
        try:
            await self._down_the_ladder(line, "chat.postMessage", metadata=metadata, **where)
        except Refused as refused:
            if refused.error not in _NO_THREAD:
                raise
            await self._down_the_ladder(line, "chat.postMessage", metadata=metadata, channel=has.channel)
        await self._store.record(draft, replace(has, trying="", attempts=0), said=1)

    # --- the picture ---

    async def _upload(self, work: Work, drawing: Any) -> None:
        """Draw the picture and put it into the thread: tried once, since it must neither cost nor repeat anything."""
        if not self._held():
            raise Deposed("the lease may be over")
        has = replace(work.delivery, picture=drawing.key, file="", shown=False)
        await self._store.record(work.draft, has)
        try:
            png = await asyncio.to_thread(picture.png, drawing.svg)
            answer = await self._slack.files_upload_v2(
                content=png, filename="route.png", title="The route", alt_txt=drawing.alt, channel=has.channel, thread_ts=has.ts
            )
            files: Any = answer.get("files")
            await self._store.record(work.draft, replace(has, file=files[0]["id"]))
        except (SlackClientError, aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
            why = _error_of(error)
            if why == "ratelimited":
                await self._store.record(work.draft, work.delivery)
                raise Later(_retry_after(error)) from None
            logger.warning("The picture of message %s could not be added: %s", work.draft.id, why)
            await self._note(work, f"picture.{drawing.key}", f"The picture of the route could not be added ({why}).")

    async def _show_picture(self, work: Work) -> None:
        """Show the uploaded picture in the root as soon as Slack has processed it; if it never does, the thread has it."""
        has = work.delivery
        framed = _with_picture(work)
        if framed is not None and has.attempts < len(_PICTURE_TRIES):
            await self._edits.turn(_LINES)
            with suppress(Refused, Lost):
                await self._call("chat.update", channel=has.channel, ts=has.ts, metadata=_metadata(work), **_words(framed))
                await self._store.record(work.draft, replace(has, shown=True, attempts=0))
                return
            await self._store.record(work.draft, replace(has, attempts=has.attempts + 1))
            raise Later(_PICTURE_TRIES[has.attempts])
        await self._store.record(work.draft, replace(has, file="", attempts=0))

    # --- what can go wrong ---

    async def _cope(self, work: Work, refused: Refused) -> None:
        """What to do about a no, by its reason; raises Later where waiting is all that can be done."""
        draft, has, error = work.draft, work.delivery, refused.error
        if error == "ratelimited":
            # The bucket is paused by _call; this message simply takes another turn.
            await self._store.record(draft, replace(has, trying=""))
        elif error in _NO_ROOT and has.ts:
            logger.warning("Message %s is no longer in Slack (%s): it is posted again.", draft.id, error)
            await self._store.record(draft, Delivery(channel=has.channel))
        elif error in _NO_CHANNEL and not draft.thread and (rest := self._rest(draft, has.channel or draft.channel))[1:]:
            closed, above, *_ = rest
            logger.warning("Channel %s cannot take message %s (%s): it goes to %s.", closed, draft.id, error, above)
            await self._store.record(draft, Delivery(channel=above))
            await self._note(work, f"moved.{closed}", f"Meant for {closed}, which cannot be written to ({error}).")
            await self._notice(closed, error, above)
        elif error in _NO_TOKEN:
            self._say_once(f"Slack does not accept the bot's token: {error}.")
            await self._store.record(draft, replace(has, trying=""))
            raise Later(refused.retry_after_s or 30)
        elif error in _NO_CHANNEL and refused.retry_after_s:
            await self._store.record(draft, replace(has, trying=""))
            raise Later(refused.retry_after_s)
        else:
            await self._fail(draft, replace(has, trying=""), f"Slack refused message {draft.id}: {error}.")

    def _rest(self, draft: Draft, channel: str) -> list[str]:
        """A channel as the settings call it, and where a message goes that it does not take: to the places of the routes above, in the end the default one."""
        places = list(dict.fromkeys((draft.channel, *draft.parents, self.default_channel)))
        here = next((i for i, place in enumerate(places) if channel in {place, self._ids.get(place)}), 0)
        return places[here:]

    async def _fail(self, draft: Draft, has: Delivery, why: str) -> None:
        """Remember one more failure and come back later, each time after twice as long."""
        failed = replace(has, attempts=has.attempts + 1)
        await self._store.record(draft, failed)
        self._say_once(why)
        raise Later(min(_BACKOFF_S * 2.0 ** min(failed.attempts, 20), _BACKOFF_MAX_S))

    async def _note(self, work: Work, name: str, sentence: str) -> None:
        """A line in the message's thread about its own delivery, unless the same one waits there already."""
        line = Step(id=f"{work.draft.id}.{name}", message=Message(blocks.escape(sentence)))
        if all(waiting.id != line.id for waiting in work.steps):
            await self._store.commit({}, steps={work.draft.id: [line]}, now=time.time())

    async def _notice(self, channel: str, error: str, above: str) -> None:
        """One message a day for whoever can mend it, where the alerts of a closed channel go now."""
        me = secrets.token_hex(6)
        if await self._store.claim(f"notice:{channel}:{error}", me, DAY_S) != me:
            return
        where = "here" if self._admin_channel == above else f"to {above}"
        told = f"Alerts for {channel} come {where}: it cannot be written to ({error}). Invite the bot there, or name another channel in the settings."
        notice = Draft(id=f"notice-{me}", alert="", channel=self._admin_channel, message=Message(blocks.escape(told)), resolved=True)
        await self._store.commit({}, [notice], now=time.time())

    def _say_once(self, sentence: str) -> None:
        if sentence and sentence != self._silenced:
            logger.error("%s What is committed waits and is sent later.", sentence)
        self._silenced = sentence

    # --- calling Slack ---

    async def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """One call, never repeated here; raises Refused, Lost or Deposed. A 429 pauses the bucket that the call came from.

        What Slack refused a moment ago, the token or the channel, is not asked again: the answer is known.
        """
        channel = str(arguments.get("channel"))
        for place in ("", channel):
            until, known = self._shut.get(place, (0.0, ""))
            if (left := until - time.monotonic()) > 0:
                raise Refused(known, left)
        try:
            answer = await self._asked(method, **arguments)
        except (Refused, Lost) as error:
            if isinstance(error, Refused) and error.error in _NO_TOKEN:
                self._shut[""] = time.monotonic() + _TOKEN_S, error.error
            elif isinstance(error, Refused) and error.error in _NO_CHANNEL:
                self._shut[channel] = time.monotonic() + _CHANNEL_S, error.error
            metrics.SLACK_CALLS.labels(method, error.error if isinstance(error, Refused) else "lost").inc()
            raise
        metrics.SLACK_CALLS.labels(method, "ok").inc()
        metrics.LAST_POST.set_to_current_time()
        return answer

    def _pace(self, channel: str) -> Pace:
        """The bucket of a channel, which is one whether the channel is called by its name or by its id."""
        ident = self._ids.get(channel, channel)
        known = next((name for name in self._posts if self._ids.get(name, name) == ident), None)
        return self._posts.setdefault(known or ident, Pace(*_CHANNEL_POSTS))

    async def _asked(self, method: str, **arguments: Any) -> dict[str, Any]:
        if not self._held():
            raise Deposed("the lease may be over")
        try:
            answer = await self._slack.api_call(method, json=arguments)
        except SlackApiError as error:
            response: Any = error.response
            status, data = getattr(response, "status_code", getattr(response, "status", 0)), getattr(response, "data", None)
            name = str(data.get("error", "")) if isinstance(data, dict) else ""
            if status == 429 or name == "ratelimited":
                seconds = _retry_after(error)
                channel = str(arguments.get("channel"))
                pace = self._edits if method == "chat.update" else self._pace(channel)
                pace.pause(seconds)
                raise Refused("ratelimited", seconds) from None
            if status >= 500 or name in _PERHAPS_SENT or not name:
                raise Lost(name or f"HTTP {status}") from None
            pointers = data.get("response_metadata", {}).get("messages", ()) if isinstance(data, dict) else ()
            raise Refused(name, pointers=tuple(map(str, pointers))) from None
        except aiohttp.ClientConnectorError as error:
            raise Refused(f"it cannot be reached ({type(error).__name__})") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Lost(type(error).__name__) from None
        found: Any = answer.data
        return dict(found)

    async def _find(self, channel: str, has: Delivery, key: str, value: str, thread: str = "") -> _Place | None:
        """Where a post stands whose answer was lost, by its metadata; None if it is not there. Raises Blind or Lost."""
        oldest = f"{float(has.trying.rpartition(' ')[2]) - _LOOK_BACK_S:.6f}"
        try:
            ident, me = await self.channel_id(channel), await self.myself()
            cursor = ""
            while True:
                where: dict[str, Any] = {"channel": ident, "oldest": oldest, "include_all_metadata": True, "limit": 200, "cursor": cursor}
                found = await (
                    self._slack.conversations_replies(ts=thread, **where) if thread else self._slack.conversations_history(**where)
                )
                messages: Any = found.get("messages") or ()
                for message in messages:
                    ours = message.get("user") == me  # anybody may write metadata
                    if ours and message.get("metadata", {}).get("event_payload", {}).get(key) == value:
                        return _Place(ident, message["ts"])
                metadata: Any = found.get("response_metadata") or {}
                cursor = metadata.get("next_cursor", "")
                if not cursor:
                    return None
        except SlackApiError as error:
            raise Blind(_error_of(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Lost(type(error).__name__) from None

    async def myself(self) -> str:
        """The bot's own user id."""
        if not self._me:
            self._me = str((await self._slack.auth_test())["user_id"])
        return self._me

    async def channel_id(self, channel: str) -> str:
        """The id of a channel that may be written as #name; raises Blind when it is not known."""
        if not channel.startswith("#"):
            return channel
        cursor = ""
        while channel not in self._ids:
            page = await self._slack.conversations_list(
                types="public_channel,private_channel", exclude_archived=True, limit=999, cursor=cursor
            )
            found: Any = page.get("channels") or ()
            self._ids |= {f"#{c['name']}": c["id"] for c in found}
            metadata: Any = page.get("response_metadata") or {}
            cursor = metadata.get("next_cursor", "")
            if not cursor:
                break
        if channel not in self._ids:
            raise Blind("channel_not_found")
        return self._ids[channel]


_LINES: Lane = 2, 0.0
"""Lines of threads, and what only makes a message prettier: after everything else but the messages of threads, which they lead to."""


def _lane(draft: Draft) -> Lane:
    return 3 if draft.thread else int(draft.resolved), -draft.share


def _words(message: Message) -> dict[str, Any]:
    """The arguments that carry a message's words; names in it are data, so Slack must not parse or unfurl them."""
    return {"text": message.text, "blocks": list(message.blocks), "parse": "none", "unfurl_links": False, "unfurl_media": False}


def _metadata(work: Work) -> dict[str, Any]:
    """By what a root is found again: whose it is, and what bot.recall needs where the store has forgotten it."""
    payload = {"alert": work.draft.alert, "message": work.draft.id}
    if work.draft.memo:
        payload["alerts"] = work.draft.memo
    if work.delivery.picture:
        payload |= {"picture": work.delivery.picture, "file": work.delivery.file}
    return {"event_type": THREADED if work.draft.thread else ALERT, "event_payload": payload}


def _with_picture(work: Work) -> Message | None:
    """The root with its picture above small print and buttons, if Slack has the picture and the message has room for it."""
    draft, has = work.draft, work.delivery
    if draft.picture is None or not has.file or has.picture != draft.picture.key:
        return None
    body = list(draft.message.blocks)
    at = next((i for i, block in enumerate(body) if block["type"] in {"context", "actions"}), len(body))
    framed = Message(draft.message.text, (*body[:at], blocks.picture(has.file, draft.picture.alt), *body[at:]))
    return None if blocks.measure(framed) else framed


def _retry_after(error: Exception) -> float:
    """The seconds that Slack asks to wait, at least one."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return max(float(headers.get("Retry-After", 1)), 1.0)


def _error_of(error: Exception) -> str:
    """What an error says without anything that was sent: Slack's own word for it, else its kind."""
    data = getattr(getattr(error, "response", None), "data", None)
    return str(data.get("error")) if isinstance(data, dict) and data.get("error") else type(error).__name__
