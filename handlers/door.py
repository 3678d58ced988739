"""The one door through which everybody comes who wants something of the bot: it is asked here, at every click, whether they may, and put on record.

What must stay true: nothing is answered or done in Slack that did not come through `Door.enter`; whoever is refused is told so alone, with who
may; a request that Slack sends again has no second effect.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from bot import access
from bot.access import NEEDS, Role
from bot.audit import Audit, Entry
from bot.members import Members
from checks.diagnosis import UnknownHost
from handlers.errors import Denied, Stranger, Told, Unanswerable, answered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from slack_bolt.async_app import AsyncBoltContext
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.access import Place, Ruling
    from bot.audit import Via
    from bot.probes import Probe
    from bot.settings import Access
    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh
    from templates.blocks import Message

    Sees = Callable[[Place], bool]
    """Whether the person who asks may look at a place."""


class Visit(NamedTuple):
    """Somebody who wants something: who (of which workspaces), how, and from where. `key` is the same when Slack sends it again.

    `home` is the bot's own workspace and organisation.
    """

    user: str
    teams: frozenset[str]
    home: frozenset[str]
    via: Via
    channel: str
    thread: str
    key: str

    @classmethod
    def command(cls, body: Mapping[str, Any], context: AsyncBoltContext) -> Visit:
        """A slash command."""
        teams = _ids(body.get("team_id") or body.get("enterprise_id"))
        return cls(body["user_id"], teams, _home(context), "command", body["channel_id"], "", f"command:{body['trigger_id']}")

    @classmethod
    def click(cls, body: Mapping[str, Any], context: AsyncBoltContext) -> Visit:
        """A button that was pressed, in a message or a dialog."""
        user, container = body["user"], body.get("container") or {}
        channel = (body.get("channel") or {}).get("id") or ""
        key = f"click:{user['id']}:{body['actions'][0]['action_ts']}"
        return cls(user["id"], _teams(body), _home(context), "button", channel, container.get("thread_ts") or "", key)

    @classmethod
    def dialog(cls, body: Mapping[str, Any], context: AsyncBoltContext, channel: str = "") -> Visit:
        """A dialog that was sent off; `channel` is where it was opened."""
        view = body["view"]
        return cls(body["user"]["id"], _teams(body), _home(context), "dialog", channel, "", f"view:{view['id']}:{view['hash']}")

    @classmethod
    def shortcut(cls, body: Mapping[str, Any], context: AsyncBoltContext) -> Visit:
        """A shortcut that was taken on a message: `thread` is where its answers stand."""
        user, message = body["user"]["id"], body["message"]
        thread = str(message.get("thread_ts") or message.get("ts") or body.get("message_ts") or "")
        return cls(user, _teams(body), _home(context), "shortcut", body["channel"]["id"], thread, f"shortcut:{body['trigger_id']}")

    @classmethod
    def at_home(cls, body: Mapping[str, Any], context: AsyncBoltContext) -> Visit:
        """The App Home that was opened."""
        event = body["event"]
        teams = _ids(body.get("team_id") or body.get("enterprise_id"))
        return cls(str(event.get("user", "")), teams, _home(context), "home", "", "", f"home:{event.get('user')}:{event.get('event_ts')}")

    @classmethod
    def words(cls, body: Mapping[str, Any], context: AsyncBoltContext) -> Visit:
        """A mention, or what is written to the bot alone."""
        event = body["event"]
        # In a channel that is shared with others, the event says whose person it is beside whose channel.
        teams = _ids(event.get("user_team") or event.get("team") or body.get("team_id"), event.get("source_team"))
        via: Via = "message" if event.get("channel_type") == "im" else "mention"
        key = f"said:{event['channel']}:{event['ts']}"
        return cls(str(event.get("user", "")), teams, _home(context), via, event["channel"], event.get("thread_ts") or "", key)


def _teams(body: Mapping[str, Any]) -> frozenset[str]:
    """The workspaces of a click: whose person it is, and where the message stands."""
    outer = (body.get("team") or body.get("enterprise") or {}).get("id")
    return _ids(body["user"].get("team_id") or outer, outer)


def _ids(*ids: object) -> frozenset[str]:
    return frozenset(str(i) for i in ids if i)


def _home(context: AsyncBoltContext) -> frozenset[str]:
    auth = context.authorize_result
    return _ids(auth.team_id, auth.enterprise_id) if auth is not None else frozenset()


class About(NamedTuple):
    """What something is about: where that is, and its name (a host, a silence's matchers) as objects give it."""

    places: tuple[Place, ...] = ()
    names: tuple[str, ...] = ()


async def nothing(_: object) -> About:
    """What is about no place in particular."""
    return About()


class Door:
    """Asks `access` (None: everybody may) who may what, and knows of `teams` beside the bot's own whose people are answered.

    `probing` says what of running parts can be asked about a host.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        sweeper: Sweeper,
        store: Store,
        access_: Access | None,
        teams: Iterable[str] = (),
        probing: Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]] = lambda *_: (),
    ) -> None:
        self.client = client
        self.probing = probing
        self.sweeper = sweeper
        self.store = store
        self.audit = Audit(store)
        self.acted: Callable[[Visit], None] = lambda _: None
        """Told of whoever has done something."""
        self.heed(access_, teams)

    def heed(self, access_: Access | None, teams: Iterable[str]) -> None:
        """Go by these settings from now on."""
        self._access = access_
        self._teams = frozenset(teams)
        self._members = Members(self.client, access_.remember_s if access_ is not None else 0.0)

    async def enter(
        self,
        visit: Visit,
        verb: str,
        about: Callable[[Sees], Awaitable[About]],
        work: Callable[[Sees], Awaitable[Message | None]],
    ) -> Told | None:
        """What somebody is told who wants to do a thing: what came of it, or why not. None: Slack has sent it before.

        `about` says what it is about, `work` does it; both are told what the person may look at, and raise what `errors.answered` words.
        """
        if not await self.store.once(visit.key):
            return None
        found = About()

        def wanted(of: About) -> None:
            nonlocal found
            found = of

        async def passed() -> Message | None:
            return await work(await self.admit(visit, verb, about, wanted))

        told = await answered(passed())
        await self.audit.put(
            Entry(
                at=time.time(),
                by=visit.user,
                team=",".join(sorted(visit.teams)),
                verb=verb,
                via=visit.via,
                channel=visit.channel,
                thread=visit.thread,
                about=found.names,
                result=told.result,
                why=told.why,
            )
        )
        if told.result == "done" and NEEDS.get(verb) is Role.RESPONDER:
            self.acted(visit)
        return told

    async def admit(
        self,
        visit: Visit,
        verb: str,
        about: Callable[[Sees], Awaitable[About]],
        wanted: Callable[[About], None] = lambda _: None,
    ) -> Sees:
        """What somebody may look at who may do this; `wanted` is told what it is about. Raises Stranger, Denied, and what `about` raises."""
        if visit.teams - visit.home - self._teams or not visit.teams or not visit.user:
            raise Stranger(sorted(visit.teams - visit.home - self._teams))
        named = access.named(self._access) if self._access is not None else ()
        mine, unread = await self._members.of(visit.user, (who for who in named if who != access.EVERYONE))

        def ruling(verb: str, *places: Place) -> Ruling:
            return access.rule(self._access, verb, places, mine, unread)

        def sees(place: Place) -> bool:
            return ruling("why", place).allowed

        anywhere = ruling(verb)
        try:
            found = await about(sees)
        except (UnknownHost, Unanswerable) as error:
            if not anywhere.allowed:  # then nobody need say what there is
                raise self._denied(verb, (), anywhere) from None
            if isinstance(error, UnknownHost):
                raise self._as_seen(error, sees) from None
            raise
        wanted(found)
        ruled = ruling(verb, *found.places)
        if not ruled.allowed:
            raise self._denied(verb, found.names, ruled)
        return sees

    async def may(self, user: str, verb: str, found: About) -> bool:
        """Whether another person than the one who asks may do a thing."""
        named = access.named(self._access) if self._access is not None else ()
        mine, unread = await self._members.of(user, (who for who in named if who != access.EVERYONE))
        return access.rule(self._access, verb, found.places, mine, unread).allowed

    def _denied(self, verb: str, names: Sequence[str], ruled: Ruling) -> Denied:
        return Denied(verb, names, [self._members.mentioned(who) for who in ruled.may], ruled.unread)

    def _as_seen(self, unknown: UnknownHost, sees: Sees) -> UnknownHost:
        """That a host is not known, with those candidates alone that the person may know of."""
        meshes = self.sweeper.meshes()
        shown = tuple(c for c in unknown.candidates if sees(access.of_host(c.partition(":")[0], meshes)))
        return UnknownHost(unknown.word, shown, ambiguous=unknown.ambiguous and len(shown) > 1)
