"""Who is in a user group or a channel, as Slack says it; asked when somebody does something, and remembered for some time.

What must stay true: an answer that is older than the settings allow is not believed, and one that Slack does not give is never guessed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import ClientError
from slack_sdk.errors import SlackApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from slack_sdk.web.async_client import AsyncWebClient

READ_S = 5.0  # for all the pages of one group: whoever pressed a button waits
AGAIN_S = 10.0  # what Slack refused is not asked for again so soon
_PAGE = 1000


class Unread(Exception):
    """Slack does not say who it is; the message is why, in a few words. It is asked again after `again_s` seconds."""

    def __init__(self, why: str, again_s: float = AGAIN_S) -> None:
        super().__init__(why)
        self.again_s = again_s


class _Known(NamedTuple):
    at: float
    people: frozenset[str]


class _Failed(NamedTuple):
    until: float
    why: str


class Members:
    """Asks `client`; what it says is believed for `remember_s` seconds, and asked anew after half of them."""

    def __init__(self, client: AsyncWebClient, remember_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._remember_s = remember_s
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._failed: dict[str, _Failed] = {}
        self._ids: dict[str, str] = {}  # @handle and #name -> id, which stays when they are renamed
        self._asking: dict[str, asyncio.Lock] = {}

    async def of(self, user: str, whos: Iterable[str]) -> tuple[frozenset[str], Mapping[str, str]]:
        """What a person is of these (ids of people, groups and channels, @handle, #name), and of which Slack does not say who they are, and why."""
        mine: set[str] = set()
        unread: dict[str, str] = {}

        async def ask(who: str) -> None:
            try:
                if user in await self.people(who):
                    mine.add(who)
            except Unread as why:
                unread[who] = str(why)

        await asyncio.gather(*(ask(who) for who in whos))
        return frozenset(mine), unread

    async def people(self, who: str) -> frozenset[str]:
        """The people who are meant; a person is themselves. Raises Unread."""
        if who[0] in "UW":
            return frozenset({who})
        async with self._asking.setdefault(who, asyncio.Lock()):
            now = self._clock()
            known, failed = self._known.get(who), self._failed.get(who)
            if known is not None and now - known.at < self._remember_s / 2:
                return known.people
            if failed is None or failed.until <= now:
                try:
                    known = _Known(now, await self._asked(who))
                    self._known[who] = known
                    self._failed.pop(who, None)
                except Unread as why:
                    failed = self._failed[who] = _Failed(now + why.again_s, str(why))
            if known is not None and now - known.at < self._remember_s:
                return known.people
            raise Unread(failed.why if failed is not None else "it has not been asked for")

    def mentioned(self, who: str) -> str:
        """The id by which somebody can be mentioned, as far as Slack has said it; else the name."""
        return self._ids.get(who, who)

    async def _id(self, who: str) -> str:
        """The id of a group or channel. Raises Unread."""
        if who[0] not in "@#":
            return who
        async with self._asking.setdefault(who[0], asyncio.Lock()):  # one list names all of them
            if who not in self._ids:
                async with _in_time():
                    self._ids |= await (self._groups() if who[0] == "@" else self._channels())
        if who not in self._ids:
            raise Unread(
                "there is no such user group" if who[0] == "@" else "there is no such channel, or it is private and I am not in it"
            )
        return self._ids[who]

    async def _asked(self, who: str) -> frozenset[str]:
        ident = await self._id(who)
        async with _in_time():
            if ident[0] == "S":
                return frozenset((await self._client.usergroups_users_list(usergroup=ident))["users"])
            return frozenset(await _paged(self._client.conversations_members, "members", channel=ident))

    async def _groups(self) -> dict[str, str]:
        listed: Any = await self._client.usergroups_list()
        return {f"@{group['handle']}": group["id"] for group in listed["usergroups"]}

    async def _channels(self) -> dict[str, str]:
        listed = await _paged(self._client.conversations_list, "channels", types="public_channel,private_channel")
        return {f"#{channel['name']}": channel["id"] for channel in listed}


async def _paged(method: Callable[..., Any], key: str, **arguments: str) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = await method(**arguments, limit=_PAGE, cursor=cursor)
        found += page[key]
        cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
        if not cursor:
            return found


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bounds a question to Slack, and turns what goes wrong with it into Unread."""
    try:
        async with asyncio.timeout(READ_S):
            yield
    except SlackApiError as refused:
        response: Any = refused.response
        error = str(response.get("error") or response.status_code)
        scope = f": {response['needed']}" if error == "missing_scope" and response.get("needed") else ""
        raise Unread(f"{error}{scope}", float(response.headers.get("Retry-After", AGAIN_S))) from None
    except (ClientError, OSError, TimeoutError) as error:
        raise Unread("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__) from None
