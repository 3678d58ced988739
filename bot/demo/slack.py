"""A Slack workspace on this machine: the Web API, Socket Mode or signed requests, and a page on which people use it.

The bot that talks to it is the one that talks to Slack; only the base URL differs. It refuses what Slack refuses, with Slack's
words (`limits`, `methods`, `rates`), and it can be told to fail as Slack fails. What people do is a method here (`command`, `click`,
`submit`, ...), used by the tests and by the page alike. Nothing in it is meant for another network than loopback.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from bot.demo import limits
from bot.demo.delivery import Delivery, NotAcknowledged
from bot.demo.methods import Fault, LostAnswer, SlackError, WebApi, said_by_slack
from bot.demo.rates import Rates
from bot.demo.workspace import APP, BOT, SLACKBOT, TEAM, VALUES, Channel, File, Json, Message, View, Workspace, find_element

__all__ = ["BOT", "SLACKBOT", "DemoButton", "File", "LocalSlack", "Message", "View"]

RESPONSES, RESPONSE_SECONDS = 5, 30 * 60
UPLOAD = 50_000_000
PAGE = Path(__file__).with_name("page")
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class DemoButton(NamedTuple):
    """A button on the page's side bar that does something in the demo's world ("Deploy v1"), and what the page says of it, if anything."""

    label: str
    action: Callable[[], Awaitable[str | None]]


@dataclass
class _ResponseUrl:
    """Where an app may answer a command or a click: a few times, for half an hour."""

    channel: str
    user: str
    until: float
    original: Message | None = None
    uses: int = 0


class LocalSlack:
    """One workspace with three people, the channels #mesh, #payments and #ops, and one app, installed from its manifest.

    `clock` is seconds since the epoch and decides timestamps, rates, trigger ids and response URLs; acknowledgements are waited
    for in real time. `manifest` is the app's Slack manifest (scopes, slash commands, shortcuts, events), else meshwhy's own.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        enforce_rates: bool = True,
        buttons: Sequence[DemoButton] = (),
        manifest: Mapping[str, Any] | None = None,
    ) -> None:
        self.bot_token = f"xoxb-local-{secrets.token_hex(12)}"
        self.app_token = f"xapp-1-{APP}-{secrets.token_hex(12)}"
        self.signing_secret = secrets.token_hex(16)
        self.buttons = list(buttons)
        self.workspace = Workspace(clock, manifest)
        self.delivery = Delivery(clock, self.signing_secret)
        self.api = WebApi(self.workspace, Rates(clock), enforce_rates, self.bot_token, self.app_token)
        self.base_url = self.page_url = ""
        self._clock = clock
        self._responses: dict[str, _ResponseUrl] = {}
        self._pages: set[web.WebSocketResponse] = set()
        self._change = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._hosts: set[str] = set()
        self.workspace.changed = self._changed
        self.delivery.told = lambda: self._changed({"kind": "app", "connected": self.connected})
        self.api.new_link = lambda: f"{self.workspace.base.replace('http', 'ws', 1)}/link?ticket={self.delivery.new_link()}&app_id={APP}"

    # Life.

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens; `base_url` and `page_url` are known afterwards. OSError when the port is taken."""
        app = web.Application(client_max_size=UPLOAD, middlewares=[self._only_here])
        app.add_routes(
            [
                web.route("*", "/api/{method}", self._api),
                web.get("/link", self.delivery.connect),
                web.post("/response/{id}", self._response),
                web.post("/upload/v1/{id}", self._upload),
                web.get("/files-pri/{id}/{name}", self._file),
                web.get("/picture", self._picture),
                web.get("/live", self._live),
                web.get("/page/{name}", self._page),
                web.get("/", self._page),
                web.get("/archives/{channel}/{message}", self._page),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        bound = self._runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in str(bound[0]) else bound[0]
        self._hosts = {f"{name}:{bound[1]}" for name in ("localhost", "127.0.0.1", "[::1]", shown, host)}
        self.workspace.base = f"http://{shown}:{bound[1]}"
        self.base_url, self.page_url = f"{self.workspace.base}/api/", f"{self.workspace.base}/"

    async def stop(self) -> None:
        """Ends every connection and stops listening."""
        await self.delivery.close()
        for page in tuple(self._pages):
            await page.close(code=1001)
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    # What is there.

    @property
    def connected(self) -> bool:
        """Whether the app can be reached: a Socket Mode connection, or a request URL."""
        return bool(self.delivery.request_url or any(not one.leaving for one in self.delivery.connections))

    @property
    def calls(self) -> list[tuple[str, Json]]:
        """Every Web API call whose token and scope were good, as (method, arguments), refused ones too."""
        return self.api.calls

    @property
    def channels(self) -> dict[str, Channel]:
        """The channels by name (`#mesh`), and each person's direct messages with the bot (`@ana`)."""
        return {("@" if one.person else "#") + one.name: one for one in self.workspace.channels.values()}

    def channel(self, name: str) -> Channel:
        """The channel of an id, a name, `#name`, or `@person` for the direct messages with the bot; KeyError when there is none."""
        found = self.workspace.direct(self.user(name)) if name.startswith("@") else self.workspace.channel(name)
        if found is None:
            raise KeyError(name)
        return found

    def user(self, name: str) -> str:
        """The id of a person named by id, `ana` or `@ana`; KeyError when there is none."""
        bare = name.removeprefix("@")
        for user in self.workspace.users.values():
            if bare in {user.id, user.name}:
                return user.id
        raise KeyError(name)

    def messages(self, channel: str) -> list[Message]:
        """What everybody sees in a channel, the oldest first: roots and broadcast replies; not replies, ephemeral or deleted ones."""
        shown = self.workspace.messages[self.channel(channel).id]
        return [one for one in shown if not one.deleted and one.only is None and (not one.thread_ts or one.broadcast)]

    def thread(self, channel: str, ts: str) -> list[Message]:
        """The root and its replies, the oldest first."""
        return self.workspace.thread(self.channel(channel).id, ts)

    def ephemerals(self, user: str) -> list[Message]:
        """What only this person sees, in all channels, the oldest first."""
        wanted = self.user(user)
        found = [one for shown in self.workspace.messages.values() for one in shown if one.only == wanted and not one.deleted]
        return sorted(found, key=lambda one: float(one.ts))

    def views(self, user: str) -> list[View]:
        """The modals that are open for this person, the topmost last."""
        return list(self.workspace.stacks.get(self.user(user), []))

    def home(self, user: str) -> View | None:
        """This person's App Home."""
        return self.workspace.homes.get(self.user(user))

    async def until(self, predicate: Callable[[], Any], timeout_s: float = 5.0) -> Any:
        """The predicate's first true value. TimeoutError after `timeout_s`.

        It is asked at every change of the workspace, and every 10 ms for what only the app knows.
        """
        async with asyncio.timeout(timeout_s):
            while not (found := predicate()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._change.wait()
        return found

    # What people do.

    async def say(
        self,
        text: str,
        *,
        user: str = "U0ANA",
        channel: str = "#mesh",
        thread_ts: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Message:
        """A person types something that is no command, with `files` by name and text; the app hears of mentions and direct messages."""
        place = self.channel(channel)
        given = [self.workspace.uploaded(name, content, self.user(user)) for name, content in (files or {}).items()]
        for file in given:
            file.channels = [place.id]
        message = self.workspace.put(
            Message(
                place.id,
                self.workspace.next_ts(),
                self.user(user),
                self.typed(text),
                thread_ts=thread_ts,
                files=[file.id for file in given],
            )
        )
        team = self.workspace.users[message.user].team
        event = {
            "user": message.user,
            "text": message.text,
            "ts": message.ts,
            "channel": place.id,
            "event_ts": message.ts,
            "team": team,
            **({"user_team": team, "source_team": team} if team != TEAM else {}),  # who comes by Slack Connect
            **({"thread_ts": thread_ts} if thread_ts else {}),
            **({"files": [self.workspace.file_json(file) for file in given]} if given else {}),
        }
        if place.person:
            shared = {"subtype": "file_share"} if given else {}
            self._happened("message.im", {"type": "message", "channel_type": "im", **shared, **event})
        elif BOT in message.pings and BOT in place.members:
            self._happened("app_mention", {"type": "app_mention", **event})
        return message

    async def mention(
        self,
        text: str,
        *,
        user: str = "U0ANA",
        channel: str = "#mesh",
        thread_ts: str | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Message:
        """A person types `@meshwhy ...`, in a channel or a thread."""
        return await self.say(f"@{self.workspace.users[BOT].name} {text}", user=user, channel=channel, thread_ts=thread_ts, files=files)

    async def dm(self, text: str, *, user: str = "U0ANA", thread_ts: str | None = None, files: Mapping[str, str] | None = None) -> Message:
        """A person writes to the bot directly."""
        place = f"@{self.workspace.users[self.user(user)].name}"
        return await self.say(text, user=user, channel=place, thread_ts=thread_ts, files=files)

    async def command(self, text: str, *, user: str = "U0ANA", channel: str = "#mesh") -> None:
        """A person types a slash command (`/mesh why x`, or `why x` for the app's first command); returns once it is acknowledged.

        An app that does not answer is told of as Slack tells: an ephemeral message of Slackbot with `operation_timeout` or
        `dispatch_failed`.
        """
        place, person = self.channel(channel), self.user(user)
        known = {one["command"]: one for one in self.workspace.commands}
        name, _, rest = (text if text.startswith("/") else f"{next(iter(known), '/')} {text}").partition(" ")
        if name not in known or "commands" not in self.workspace.scopes:
            said_by_slack(self.workspace, place.id, person, f"{name} is not a valid command.")
            return
        payload = {
            "token": "x",
            "team_id": self.workspace.users[person].team,
            "team_domain": "local",
            "channel_id": place.id,
            "channel_name": "directmessage" if place.person else "privategroup" if place.private else place.name,
            "user_id": person,
            "user_name": self.workspace.users[person].name,
            "command": name,
            "text": self._escaped(rest.strip()) if known[name].get("should_escape") else rest.strip(),
            "api_app_id": APP,
            "is_enterprise_install": "false",
            "response_url": self._response_url(place.id, person),
            "trigger_id": self.api.trigger(person),
        }
        try:
            answer = await self.delivery.send("slash_commands", payload)
        except NotAcknowledged as failed:
            said_by_slack(self.workspace, place.id, person, f'{name} failed with the error "{failed.reason}"')
            return
        if answer and (answer.get("text") or answer.get("blocks")):
            try:
                await self._respond(_ResponseUrl(place.id, person, 0.0), answer)
            except SlackError:
                said_by_slack(self.workspace, place.id, person, f'{name} failed with the error "invalid_command_response"')

    async def click(
        self,
        on: Message | View,
        action_id: str,
        *,
        user: str = "U0ANA",
        choose: str | Sequence[str] | None = None,
    ) -> None:
        """A person presses a button, or chooses `choose` in a select or overflow, of a message or a view.

        KeyError when there is no such element, or no such choice. Returns once it is acknowledged.
        """
        person = self.user(user)
        blocks = on.payload["blocks"] if isinstance(on, View) else on.blocks
        block_id, element = find_element(blocks, action_id)
        action: Json = {
            "action_id": action_id,
            "block_id": block_id,
            "type": element["type"],
            "action_ts": f"{self._clock():.6f}",
            **_acted(element, choose),
        }
        if "text" in element and element["type"] == "button":
            action["text"] = element["text"]
        payload: Json = {"type": "block_actions", **self._by(person), "trigger_id": self.api.trigger(person), "actions": [action]}
        if isinstance(on, View):
            if element["type"] in VALUES:
                on.state[block_id][action_id] |= {key: value for key, value in action.items() if key == VALUES[element["type"]][1]}
            payload |= {"container": {"type": "view", "view_id": on.id}, "view": on.json()}
        else:
            payload |= self._at(on, person)
        await self._interact(payload, person, on)

    async def submit(self, view: View, values: Mapping[str, Any] | None = None) -> None:
        """A person fills in a modal (by action id or block id: text, the value or values chosen, or files by name and text) and submits it.

        Inputs that are missing are marked in `view.errors` and nothing is sent, as in Slack's client.
        """
        self._fill(view, values or {})
        view.errors = _missing(view)
        if view.errors:
            self.workspace.tell_views(view.user)
            return
        payload = {
            "type": "view_submission",
            **self._by(view.user),
            "trigger_id": self.api.trigger(view.user),
            "view": view.json(),
            "response_urls": [],
        }
        try:
            answer = await self.delivery.send("interactive", payload) or {}
            await self._after_submit(view, answer)
        except (NotAcknowledged, SlackError):
            self._trouble(view.user, view)

    async def close(self, view: View) -> None:
        """A person closes a modal; the app hears of it when the view asks so."""
        stack = self.workspace.stacks.get(view.user, [])
        if view in stack:
            stack.remove(view)
            self.workspace.tell_views(view.user)
        if view.payload.get("notify_on_close"):
            with suppress(NotAcknowledged):
                await self.delivery.send(
                    "interactive", {"type": "view_closed", **self._by(view.user), "view": view.json(), "is_cleared": False}
                )

    async def shortcut(self, callback_id: str, message: Message | None = None, *, user: str = "U0ANA") -> None:
        """A person takes a shortcut of the app, on a message or globally."""
        person = self.user(user)
        payload: Json = {
            **self._by(person),
            "callback_id": callback_id,
            "trigger_id": self.api.trigger(person),
            "action_ts": f"{self._clock():.6f}",
        }
        if message is None:
            payload |= {"type": "shortcut"}
        else:
            payload |= self._at(message, person) | {"type": "message_action", "message_ts": message.ts, "message": message.json()}
            if message.files:
                payload["message"]["files"] = [self.workspace.file_json(self.workspace.files[one]) for one in message.files]
            del payload["container"]
        await self._interact(payload, person, message)

    async def suggest(self, on: Message | View, action_id: str, text: str, *, user: str = "U0ANA") -> list[Json]:
        """The options (or groups) that the app offers when a person types into an external select; empty when it fails."""
        person = self.user(user)
        blocks = on.payload["blocks"] if isinstance(on, View) else on.blocks
        block_id, _ = find_element(blocks, action_id)
        payload: Json = {"type": "block_suggestion", **self._by(person), "action_id": action_id, "block_id": block_id, "value": text}
        payload |= {"view": on.json(), "container": {"type": "view", "view_id": on.id}} if isinstance(on, View) else self._at(on, person)
        with suppress(NotAcknowledged):
            answer = await self.delivery.send("interactive", payload) or {}
            if not limits.wrong_options(answer):
                return list(answer.get("options") or answer["option_groups"])
        return []

    async def open_home(self, user: str = "U0ANA") -> None:
        """A person opens the app's Home tab."""
        person = self.user(user)
        home = self.workspace.homes.get(person)
        event = {
            "type": "app_home_opened",
            "user": person,
            "channel": self.workspace.direct(person).id,
            "tab": "home",
            "event_ts": f"{self._clock():.6f}",
        }
        self._happened("app_home_opened", event | ({"view": home.json()} if home else {}))

    async def react(self, message: Message, name: str, *, user: str = "U0ANA") -> None:
        """A person adds a reaction, or takes it back."""
        person = self.user(user)
        users = message.reactions.setdefault(name, [])
        if person in users:
            users.remove(person)
            if not users:
                del message.reactions[name]
        else:
            users.append(person)
            item = {"type": "message", "channel": message.channel, "ts": message.ts}
            event = {"type": "reaction_added", "user": person, "reaction": name, "item": item, "item_user": message.user}
            self._happened("reaction_added", event | {"event_ts": f"{self._clock():.6f}"})
        self.workspace.touch(message)

    # What happens to the app: by an administrator, a person, or the network.

    def archive(self, channel: str, *, archived: bool = True) -> None:
        """Archives a channel (or brings it back)."""
        place = self.channel(channel)
        place.archived = archived
        self._changed({"kind": "channel", "channel": self.workspace.channel_for_page(place)})
        self._happened(
            "channel_archive" if archived else "channel_unarchive", {"type": "channel_archive", "channel": place.id, "user": "U0ANA"}
        )

    def kick(self, channel: str) -> None:
        """Takes the bot out of a channel."""
        place = self.channel(channel)
        place.members.discard(BOT)
        self._changed({"kind": "channel", "channel": self.workspace.channel_for_page(place)})
        self._happened("member_left_channel", {"type": "member_left_channel", "user": BOT, "channel": place.id, "team": TEAM})

    def revoke(self, error: str | None = "token_revoked") -> None:
        """Makes the bot's token worth nothing (`token_revoked`, `account_inactive`, `invalid_auth`), or good again with None."""
        self.api.token_error = error
        if error:
            self._happened("tokens_revoked", {"type": "tokens_revoked", "tokens": {"oauth": [], "bot": [BOT]}})

    def delete(self, message: Message) -> None:
        """A person with the right to do so deletes a message."""
        message.deleted = True
        self.workspace.touch(message)

    def lock(self, message: Message) -> None:
        """An administrator locks the thread of a message."""
        message.locked = True

    def fault(
        self,
        method: str,
        *,
        error: str | None = None,
        status: int | None = None,
        retry_after: int | None = None,
        applied: bool = False,
        delay: float = 0.0,
        times: int = 1,
    ) -> None:
        """Makes the next calls of a method fail.

        With `error` Slack's error, with `status` that HTTP status (500), with `retry_after` 429; with none of them the connection
        breaks. `applied` does the work first, so the caller cannot know; `delay` seconds pass before (alone: a slow success).
        """
        self.api.faults.append(Fault(method, error, status, retry_after, applied, delay, times))

    def half_open(self) -> None:
        """From now on the present connections are silent both ways, though TCP lives: no frame, no pong, no close."""
        for connection in self.delivery.connections:
            connection.half_open = True

    async def refresh(self, reason: str = "refresh_requested") -> None:
        """Tells every connection that it will end (`warning`, `refresh_requested`), as Slack does every few hours."""
        await self.delivery.farewell(reason)

    async def cut(self) -> None:
        """Closes every connection without a word."""
        for connection in tuple(self.delivery.connections):
            await connection.socket.close(code=1006)

    async def disable_socket_mode(self) -> None:
        """An administrator switches Socket Mode off: `link_disabled`, and no new connection."""
        self.api.socket_mode = False
        await self.delivery.farewell("link_disabled")
        for connection in tuple(self.delivery.connections):
            await connection.socket.close()

    async def use_requests(self, url: str) -> None:
        """Delivers to this request URL from now on, once it answers the challenge; NotAcknowledged when it does not."""
        await self.delivery.verify(url)

    # How text changes on its way.

    def typed(self, text: str) -> str:
        """Typed text as Slack stores it: escaped, with names turned into mentions and addresses into links."""
        safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        safe = re.sub(r"(?<![\w`/])https?://[^\s|`]+[^\s|`.,;:!?)]", lambda found: f"<{found[0]}>", safe)
        safe = re.sub(r"(?<![\w/])@(channel|here|everyone)\b", r"<!\1>", safe)
        for user in self.workspace.users.values():
            safe = re.sub(rf"(?<![\w/@<])@{re.escape(user.name)}\b", f"<@{user.id}>", safe)
        for group in self.workspace.groups.values():
            safe = re.sub(rf"(?<![\w/@<])@{re.escape(group.handle)}\b", f"<!subteam^{group.id}>", safe)
        for channel in self.workspace.channels.values():
            if not channel.person:
                safe = re.sub(rf"(?<![\w/#<])#{re.escape(channel.name)}\b", f"<#{channel.id}|{channel.name}>", safe)
        return safe

    def _escaped(self, text: str) -> str:
        """A command's text with `should_escape`: names of people, groups and channels as ids, everything else as typed."""
        for user in self.workspace.users.values():
            text = re.sub(rf"(?<![\w/@<])@{re.escape(user.name)}\b", f"<@{user.id}|{user.name}>", text)
        for group in self.workspace.groups.values():
            text = re.sub(rf"(?<![\w/@<])@{re.escape(group.handle)}\b", f"<!subteam^{group.id}|@{group.handle}>", text)
        for channel in self.workspace.channels.values():
            if not channel.person:
                text = re.sub(rf"(?<![\w/#<])#{re.escape(channel.name)}\b", f"<#{channel.id}|{channel.name}>", text)
        return text

    # Parts of payloads.

    def _by(self, person: str) -> Json:
        who = self.workspace.users[person]
        return {
            "user": {"id": person, "username": who.name, "name": who.name, "team_id": who.team},
            "team": {"id": TEAM, "domain": "local"},
            "api_app_id": APP,
            "token": "x",
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def _at(self, message: Message, person: str) -> Json:
        place = self.workspace.channels[message.channel]
        container: Json = {"type": "message", "message_ts": message.ts, "channel_id": place.id, "is_ephemeral": message.only is not None}
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        return {
            "container": container,
            "channel": {"id": place.id, "name": "directmessage" if place.person else place.name},
            "state": {"values": {}},
            "response_url": self._response_url(place.id, person, message),
            **({} if message.only else {"message": message.json()}),  # Slack does not keep ephemeral messages
        }

    def _response_url(self, channel: str, user: str, original: Message | None = None) -> str:
        ident = secrets.token_urlsafe(16)
        self._responses[ident] = _ResponseUrl(channel, user, self._clock() + RESPONSE_SECONDS, original)
        return f"{self.workspace.base}/response/{ident}"

    def _happened(self, subscription: str, event: Json) -> None:
        if subscription in self.workspace.events:
            self.delivery.event(event)

    async def _interact(self, payload: Json, person: str, on: Message | View | None) -> None:
        try:
            await self.delivery.send("interactive", payload)
        except NotAcknowledged:
            self._trouble(person, on)

    def _trouble(self, person: str, on: Message | View | None) -> None:
        """What Slack's client shows when an app does not answer a click."""
        if isinstance(on, Message):
            said_by_slack(self.workspace, on.channel, person, "This app did not respond to what you did: operation_timeout")
        elif on is not None:
            on.errors[""] = "We had some trouble connecting. Try again?"
            self.workspace.tell_views(person)

    def _fill(self, view: View, values: Mapping[str, Any]) -> None:
        for block in view.payload["blocks"]:
            element = block.get("element") or {}
            name = next((one for one in (element.get("action_id"), block["block_id"]) if one in values), None)
            if name is not None and element.get("type") == "file_input":
                files = [self.workspace.uploaded(str(file), str(text), view.user) for file, text in values[name].items()]
                view.state[block["block_id"]][element["action_id"]]["files"] = [self.workspace.file_json(file) for file in files]
            elif name is not None and element.get("type") in VALUES:
                view.state[block["block_id"]][element["action_id"]] |= _acted(element, values[name])

    async def _after_submit(self, view: View, answer: Json) -> None:
        stack = self.workspace.stacks.get(view.user, [])
        action = answer.get("response_action")
        if action == "errors":
            view.errors = {str(block): str(sentence) for block, sentence in (answer.get("errors") or {}).items()}
        elif action == "update":
            self.workspace.change_view(view, await self.api.view(answer.get("view"), instead_of=view))
        elif action == "push":
            self.api.push(view.user, await self.api.view(answer.get("view")))
        elif action == "clear":
            stack.clear()
        elif view in stack:
            stack.remove(view)
        self.workspace.tell_views(view.user)

    async def _respond(self, where: _ResponseUrl, said: Json) -> None:
        """What an app says through a response URL, or in the acknowledgement of a command."""
        original = where.original
        if said.get("delete_original"):
            if original:
                self.delete(original)
            return
        content = await self.api.content(said, whole=False)  # measured: the sum of the blocks is not limited here
        if said.get("replace_original") and original and not original.deleted:
            original.text, original.blocks, original.attachments = content.text, content.blocks, content.attachments
            original.edits += 1
            self.workspace.name(original)
            self.workspace.touch(original)
            return
        thread = said.get("thread_ts") or (original.thread_ts if original else None)
        self.workspace.put(
            Message(
                where.channel,
                self.workspace.next_ts(),
                BOT,
                content.text,
                content.blocks,
                content.attachments,
                thread_ts=thread,
                only=None if said.get("response_type") == "in_channel" else where.user,
            )
        )

    # HTTP.

    @web.middleware
    async def _only_here(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Answers only to its own name (no DNS rebinding) and to its own page (no other site's script)."""
        origin = request.headers.get("Origin")
        if request.host not in self._hosts or (origin and urlsplit(origin).netloc not in self._hosts):
            return web.Response(status=403, text="This workspace answers on this machine only.")
        return await handler(request)

    async def _api(self, request: web.Request) -> web.Response:
        args: Json = dict(request.query)
        if request.content_type == "application/json":
            try:
                body = await request.json()
            except ValueError:
                return web.json_response(SlackError("invalid_json").body())
            if not isinstance(body, dict):
                return web.json_response(SlackError("json_not_object").body())
            args |= body
        elif request.method == "POST":
            args |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token if scheme == "Bearer" else args.get("token")
        try:
            status, headers, answer = await self.api.answer(request.match_info["method"], args, given)
        except LostAnswer:
            if request.transport:
                request.transport.abort()
            return web.Response()
        return web.json_response(answer, status=status, headers=headers)

    async def _response(self, request: web.Request) -> web.Response:
        where = self._responses.get(request.match_info["id"])
        if where is None or self._clock() > where.until:
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        if where.uses >= RESPONSES:
            return web.json_response({"ok": False, "error": "used_url"}, status=404)
        where.uses += 1
        try:
            said = await request.json()
            await self._respond(where, said)
        except ValueError:
            return web.json_response({"ok": False, "error": "invalid_payload"}, status=400)
        except SlackError as refused:
            return web.json_response(refused.body(), status=400)
        return web.Response(text="ok")

    async def _upload(self, request: web.Request) -> web.Response:
        file = self.workspace.files.get(request.match_info["id"])
        if file is None or file.completed:
            return web.Response(status=404, text="no such upload")
        fault = next((one for one in self.api.faults if one.method == "upload"), None)
        if fault:
            self.api.faults.remove(fault)
            return web.Response(status=fault.status or 500, text="upload failed")
        if request.content_type.startswith("multipart/"):
            parts = [part for part in (await request.post()).values() if isinstance(part, web.FileField)]
            file.content = parts[0].file.read() if parts else b""
        else:
            file.content = await request.read()
        return web.Response(text=f"OK - {len(file.content)}")

    async def _file(self, request: web.Request) -> web.Response:
        file = self.workspace.files.get(request.match_info["id"].rpartition("-")[2])
        if file is None or file.content is None:
            return web.Response(status=404)
        # What people uploaded is for them (the page says so) and for an app with the scope; anybody else gets Slack's page for logging in.
        app = request.headers.get("Authorization") == f"Bearer {self.bot_token}" and "files:read" in self.workspace.scopes
        if file.user != BOT and not app and request.headers.get("Sec-Fetch-Site") != "same-origin":
            return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
        return web.Response(body=file.content, content_type=file.mimetype, headers=_SAFE)

    async def _picture(self, request: web.Request) -> web.Response:
        found = self.workspace.pictures.get(request.query.get("url", ""))
        if found is None:
            return web.Response(status=404)
        return web.Response(body=found[0], content_type=found[1], headers=_SAFE)

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        path = PAGE / name
        if path.parent != PAGE or path.suffix not in _PAGE_TYPES or not path.is_file():
            return web.Response(status=404, text="Nothing here.")
        return web.Response(body=path.read_bytes(), content_type=_PAGE_TYPES[path.suffix], charset="utf-8", headers=_SAFE)

    # The page.

    def _changed(self, what: Json) -> None:
        self._change.set()
        self._change = asyncio.Event()
        if what["kind"] != "call":
            for page in self._pages:
                self.delivery.run(self._show(page, what))

    @staticmethod
    async def _show(page: web.WebSocketResponse, what: Json) -> None:
        with suppress(ConnectionError):
            await page.send_json(what)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """Serves one open page: everything at first, then each change; what its person does comes back."""
        page = web.WebSocketResponse(heartbeat=20)
        await page.prepare(request)
        self._pages.add(page)  # before the first await: what changes from here on is sent after this picture of everything
        await page.send_json({**self.workspace.for_page(), "connected": self.connected, "buttons": [one.label for one in self.buttons]})
        try:
            async for message in page:
                if message.type is WSMsgType.TEXT:
                    self.delivery.run(self._does(page, json.loads(message.data)))
        finally:
            self._pages.discard(page)
        return page

    async def _does(self, page: web.WebSocketResponse, deed: Json) -> None:
        """One thing that a person does on the page, and what the page is told when it is done."""
        answer: Json = {"kind": "done", "id": deed.get("id")}
        try:
            answer["result"] = await self._deeds()[deed["do"]](deed)
        except KeyError:
            answer["note"] = "That is no longer there."
        except (OSError, RuntimeError, ValueError) as broken:  # of a demo button's own work
            answer["note"] = f"It failed: {broken}"
        result = answer.pop("result", None)
        if isinstance(result, list):
            answer["result"] = result
        elif isinstance(result, str) and deed["do"] == "button":
            answer["note"] = result
        await self._show(page, answer)

    def _deeds(self) -> dict[str, Callable[[Json], Awaitable[Any]]]:
        return {
            "say": lambda of: self.say(of["text"], user=of["user"], channel=of["channel"], thread_ts=of.get("thread_ts")),
            "command": lambda of: self.command(of["text"], user=of["user"], channel=of["channel"]),
            "click": lambda of: self.click(self._on(of), of["action_id"], user=of["user"], choose=of.get("choose")),
            "suggest": lambda of: self.suggest(self._on(of), of["action_id"], of["text"], user=of["user"]),
            "submit": lambda of: self.submit(self.workspace.views[of["view"]], of["values"]),
            "close": lambda of: self.close(self.workspace.views[of["view"]]),
            "shortcut": lambda of: self.shortcut(of["callback_id"], self._on(of) if of.get("ts") else None, user=of["user"]),
            "home": lambda of: self.open_home(of["user"]),
            "button": lambda of: self.buttons[of["number"]].action(),
            "dismiss": lambda of: self._dismiss(self._on(of)),
            "react": lambda of: self.react(self._on(of), of["name"], user=of["user"]),
        }

    def _on(self, deed: Json) -> Any:
        """The message or view that the page means; KeyError when it is gone."""
        if deed.get("view"):
            return self.workspace.views[deed["view"]]
        for one in self.workspace.messages[deed["channel"]]:
            if one.ts == deed["ts"] and not one.deleted and one.only in {None, deed["user"]}:
                return one
        raise KeyError(deed["ts"])

    async def _dismiss(self, message: Message) -> None:
        if message.only:
            self.delete(message)


def _offered(element: Json) -> list[Json]:
    return [*(element.get("options") or ()), *(option for group in element.get("option_groups") or () for option in group["options"])]


def _acted(element: Json, choose: Any) -> Json:
    """The part of an action or state that says what was chosen or typed; KeyError when that is not on offer."""
    kind = element["type"]
    if kind == "button":
        return {"value": element["value"]} if "value" in element else {}
    if kind == "overflow":
        return {"selected_option": _option(element, choose)}
    if kind not in VALUES:
        return {}
    name = VALUES[kind][1]
    if name == "selected_option":
        return {name: None if choose is None else _option(element, choose)}
    if name == "selected_options":
        return {name: [_option(element, one) for one in choose or ()]}
    if name == "rich_text_value" and isinstance(choose, str):
        section = {"type": "rich_text_section", "elements": [{"type": "text", "text": choose}]}
        return {name: {"type": "rich_text", "elements": [section]} if choose else None}
    return {name: choose or ([] if name.endswith("s") else None)}


def _option(element: Json, value: Any) -> Json:
    for option in _offered(element):
        if option["value"] == value:
            return {"text": option["text"], "value": value}
    if "external" in element["type"]:  # the app offered it a moment ago
        return {"text": {"type": "plain_text", "text": str(value)}, "value": str(value)}
    raise KeyError(value)


def _missing(view: View) -> dict[str, str]:
    """What Slack's client says of inputs before anything is sent: block id -> sentence."""
    wrong: dict[str, str] = {}
    for block in view.payload["blocks"]:
        element = block.get("element")
        if block["type"] != "input" or element["type"] not in VALUES:
            continue
        value = view.state[block["block_id"]][element["action_id"]][VALUES[element["type"]][1]]
        if not value and not block.get("optional"):
            wrong[block["block_id"]] = "Please complete this required field."
        elif isinstance(value, str) and limits.size(value) > element.get("max_length", 3000):
            wrong[block["block_id"]] = f"Please use at most {element.get('max_length', 3000)} characters."
        elif isinstance(value, str) and value and limits.size(value) < element.get("min_length", 0):
            wrong[block["block_id"]] = f"Please use at least {element['min_length']} characters."
    return wrong
