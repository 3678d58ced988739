"""What a local Slack workspace holds: people, channels, messages, files, views and the app that is installed in it.

State and its rules of identity only: who may do what, and with which error, is said in `methods`. Every change is told to
`changed`, which is all that the page and waiting tests know of it. Text is kept exactly as it was sent.
"""

import itertools
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.demo import limits

Json = dict[str, Any]

TEAM, APP, BOT, BOT_ID = "T0LOCAL", "A0MESHWHY", "U0MESHWHY", "B0MESHWHY"
SLACKBOT = "USLACKBOT"

#: meshwhy as its own manifest.yaml installs it (a test compares the two), so that the demo may do no more than the real app.
MANIFEST: Mapping[str, Any] = {
    "features": {
        "app_home": {"home_tab_enabled": True, "messages_tab_enabled": True},
        "shortcuts": [
            {
                "name": "Explain this error",
                "type": "message",
                "callback_id": "explain_error",
                "description": "What a pasted 503, log line or curl output means, and why",
            }
        ],
        "slash_commands": [
            {
                "command": "/mesh",
                "description": "Why does a call into the mesh fail?",
                "usage_hint": "why HOST | routes HOST | changes HOST | broken | whatif | alerts | ack HOST | silence HOST 2h WHY | handover HOST @PERSON | note HOST TEXT | resolve HOST WHY | reopen HOST | escalate HOST WHY | incident HOST | clusters | explain CODE or ERROR | audit | help",
                "should_escape": True,
            }
        ],
    },
    "oauth_config": {
        "scopes": {
            "bot": [
                "app_mentions:read",
                "channels:history",
                "channels:manage",
                "channels:read",
                "chat:write",
                "commands",
                "files:read",
                "files:write",
                "groups:history",
                "groups:read",
                "im:history",
                "usergroups:read",
            ]
        }
    },
    "settings": {"event_subscriptions": {"bot_events": ["app_home_opened", "app_mention", "message.im"]}},
}


@dataclass
class User:
    """Somebody in the workspace: a person, or the app's bot."""

    id: str
    name: str
    bot: bool = False
    deleted: bool = False
    tz: str = "Europe/Berlin"
    team: str = TEAM  # another one's people are here by a shared channel

    def json(self) -> Json:
        """The user object of the Web API."""
        return {
            "id": self.id,
            "team_id": self.team,
            "name": self.name,
            "real_name": self.name.capitalize() if not self.bot else self.name,
            "deleted": self.deleted,
            "is_bot": self.bot,
            "is_app_user": False,
            "is_restricted": False,
            "is_ultra_restricted": False,
            **({"is_stranger": True} if self.team != TEAM else {}),
            "locale": "en-GB",
            "tz": self.tz,
            "profile": {"display_name": self.name, "real_name": self.name.capitalize()},
        }


@dataclass
class Channel:
    """A public or private channel, or (with `person`) the direct messages between one person and the bot."""

    id: str
    name: str
    private: bool = False
    person: str | None = None
    archived: bool = False
    members: set[str] = field(default_factory=set)
    creator: str = "U0ANA"
    topic: str = ""

    def json(self) -> Json:
        """The conversation object of the Web API."""
        if self.person:
            return {"id": self.id, "is_im": True, "user": self.person, "is_archived": False, "is_channel": False, "is_private": True}
        return {
            "id": self.id,
            "name": self.name,
            "name_normalized": self.name,
            "is_channel": not self.private,
            "is_group": self.private,
            "is_im": False,
            "is_private": self.private,
            "is_archived": self.archived,
            "is_member": BOT in self.members,
            "num_members": len(self.members),
            "creator": self.creator,
            "topic": {"value": self.topic, "creator": self.creator if self.topic else "", "last_set": 0},
        }


@dataclass(eq=False)
class Message:
    """One message; `only` names the person who alone sees an ephemeral one."""

    channel: str
    ts: str
    user: str
    text: str = ""
    blocks: list[Json] = field(default_factory=list)
    attachments: list[Json] = field(default_factory=list)
    thread_ts: str | None = None
    broadcast: bool = False
    metadata: Json | None = None
    files: list[str] = field(default_factory=list)
    only: str | None = None
    reactions: dict[str, list[str]] = field(default_factory=dict)
    edits: int = 0
    marked_edited: bool = False
    deleted: bool = False
    locked: bool = False

    @property
    def words(self) -> str:
        """Everything a person reads in it: the blocks' texts, or the text where there are no blocks."""
        return "\n".join(limits.words(self.blocks)) if self.blocks else self.text

    @property
    def pings(self) -> tuple[str, ...]:
        """Whom it notifies: `channel`, `here`, `everyone`, user and user group ids, in order, each once."""
        found: list[str] = list(_tokens(self.text))
        for block in self.blocks:
            found += _block_pings(block)
        return tuple(dict.fromkeys(found))

    def json(self, *, metadata: bool = True) -> Json:
        """The message object of the Web API."""
        said: Json = {"type": "message", "user": self.user, "ts": self.ts, "text": self.text, "team": TEAM}
        if self.user == BOT:
            said |= {"bot_id": BOT_ID, "app_id": APP, "bot_profile": {"id": BOT_ID, "app_id": APP, "name": "meshwhy", "team_id": TEAM}}
        if self.blocks:
            said["blocks"] = self.blocks
        if self.attachments:
            said["attachments"] = self.attachments
        if self.thread_ts:
            said["thread_ts"] = self.thread_ts
            if self.broadcast:
                said["subtype"] = "thread_broadcast"
        if self.reactions:
            said["reactions"] = [{"name": name, "users": users, "count": len(users)} for name, users in self.reactions.items()]
        if self.marked_edited:
            said["edited"] = {"user": self.user, "ts": self.ts}
        if metadata and self.metadata:
            said["metadata"] = self.metadata
        return said

    def element(self, action_id: str) -> tuple[str, Json]:
        """The block id and the element with this action id; KeyError when the message has none."""
        return find_element(self.blocks, action_id)


_TOKEN = re.compile(r"<(?:!(channel|here|everyone)|@([UW][A-Z0-9]+)|!subteam\^(S[A-Z0-9]+))(?:\|[^<>]*)?>")


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        yield next(group for group in match.groups() if group)


def _block_pings(value: Any) -> Iterator[str]:
    """Mentions live only in mrkdwn and markdown text and in rich text's own elements; plain_text and raw_text are never parsed."""
    if isinstance(value, list):
        for item in value:
            yield from _block_pings(item)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in {"mrkdwn", "markdown"}:
            yield from _tokens(value.get("text", ""))
        elif kind == "user" and "user_id" in value:
            yield value["user_id"]
        elif kind == "usergroup":
            yield value["usergroup_id"]
        elif kind == "broadcast":
            yield value["range"]
        for inner in value.values():
            if isinstance(inner, dict | list):
                yield from _block_pings(inner)


@dataclass
class File:
    """An uploaded file, from the moment its upload URL was asked for."""

    id: str
    name: str
    length: int
    alt: str
    title: str = ""
    content: bytes | None = None
    completed: bool = False
    ready_at: float = 0.0
    channels: list[str] = field(default_factory=list)
    user: str = BOT

    @property
    def mimetype(self) -> str:
        """What the content is, by its first bytes (Slack shows png, jpg and gif as pictures)."""
        head = (self.content or b"")[:16]
        for start, kind in ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif")):
            if head.startswith(start):
                return kind
        return "text/plain"


@dataclass(eq=False)
class View:
    """A modal (one of the stack of a person) or a person's App Home."""

    id: str
    user: str
    payload: Json
    hash: str
    root: str
    previous: str | None = None
    errors: dict[str, str] = field(default_factory=dict)
    state: dict[str, Json] = field(default_factory=dict)
    response_urls: list[Json] = field(default_factory=list)

    def json(self) -> Json:
        """The view object of the Web API."""
        return {
            "id": self.id,
            "team_id": TEAM,
            "app_id": APP,
            "app_installed_team_id": TEAM,
            "bot_id": BOT_ID,
            "title": None,
            "submit": None,
            "close": None,
            "callback_id": "",
            "external_id": "",
            "private_metadata": "",
            **self.payload,
            "hash": self.hash,
            "root_view_id": self.root,
            "previous_view_id": self.previous,
            "state": {"values": self.state},
        }


@dataclass
class Group:
    """A user group: `<!subteam^ID>`."""

    id: str
    handle: str
    users: list[str]
    disabled: bool = False

    def json(self, *, users: bool = False) -> Json:
        """The usergroup object of the Web API."""
        return {
            "id": self.id,
            "team_id": TEAM,
            "is_usergroup": True,
            "is_subteam": True,
            "name": self.handle,
            "description": "",
            "handle": self.handle,
            "is_external": False,
            "date_create": 1_700_000_000,
            "date_update": 1_700_000_000,
            "date_delete": 1_700_000_001 if self.disabled else 0,
            "auto_type": None,
            "auto_provision": False,
            "enterprise_subteam_id": "",
            "created_by": SLACKBOT,
            "updated_by": SLACKBOT,
            "deleted_by": SLACKBOT if self.disabled else None,
            "prefs": {"channels": [], "groups": []},
            "user_count": len(self.users),
            **({"users": list(self.users)} if users else {}),
        }


class Workspace:
    """One workspace with one installed app."""

    def __init__(self, clock: Callable[[], float], manifest: Mapping[str, Any] | None = None) -> None:
        self.clock = clock
        self.manifest = manifest or MANIFEST
        self.changed: Callable[[Json], None] = lambda _: None
        self.users = {
            user.id: user for user in (User(BOT, "meshwhy", bot=True), User("U0ANA", "ana"), User("U0BEN", "ben"), User("U0KIM", "kim"))
        }
        self.groups: dict[str, Group] = {"S0SRE": Group("S0SRE", "sre", ["U0ANA", "U0BEN"])}
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, list[Message]] = {}
        self.files: dict[str, File] = {}
        self.pictures: dict[str, tuple[bytes, str]] = {}  # image_url -> what Slack fetched from it
        self.views: dict[str, View] = {}
        self.stacks: dict[str, list[View]] = {}
        self.homes: dict[str, View] = {}
        self.base = ""  # where the workspace's server stands
        self._last = 0.0
        self._serial = itertools.count(1)
        for name in ("mesh", "payments", "ops"):
            self.add_channel(name)
        for person in self.people():
            self.direct(person.id)

    @property
    def scopes(self) -> list[str]:
        """What the app may do here."""
        return list(self.manifest["oauth_config"]["scopes"]["bot"])

    @property
    def commands(self) -> list[Json]:
        """The app's slash commands, as its manifest lists them."""
        return list(self.manifest["features"].get("slash_commands") or ())

    @property
    def shortcuts(self) -> list[Json]:
        """The app's shortcuts, as its manifest lists them."""
        return list(self.manifest["features"].get("shortcuts") or ())

    @property
    def events(self) -> list[str]:
        """The events that the app subscribes to."""
        return list(self.manifest["settings"].get("event_subscriptions", {}).get("bot_events") or ())

    def serial(self, prefix: str) -> str:
        """A new Slack-like id."""
        return f"{prefix}0{next(self._serial):08X}"

    def next_ts(self) -> str:
        """A message timestamp that no other message has."""
        self._last = max(self.clock(), self._last + 1e-6)
        return f"{self._last:.6f}"

    def people(self) -> list[User]:
        """Everybody who is not a bot."""
        return [user for user in self.users.values() if not user.bot]

    def add_channel(self, name: str, *, private: bool = False, member: bool = True) -> Channel:
        """A new channel with everybody in it; the bot only when it is a member."""
        ident = re.sub(r"[^A-Z0-9]", "", name.upper())
        channel = Channel(f"C0{ident}", name, private=private, members={user.id for user in self.people()} | ({BOT} if member else set()))
        self.channels[channel.id] = channel
        self.messages[channel.id] = []
        self.changed({"kind": "channel", "channel": self.channel_for_page(channel)})
        return channel

    def make_channel(self, name: str, creator: str) -> Channel:
        """A public channel that somebody makes, who is alone in it."""
        channel = Channel(self.serial("C"), name, members={creator}, creator=creator)
        self.channels[channel.id] = channel
        self.messages[channel.id] = []
        self.changed({"kind": "channel", "channel": self.channel_for_page(channel)})
        return channel

    def add_person(self, name: str, *, team: str = TEAM) -> User:
        """A new person in every channel; one of another `team` is there as by Slack Connect."""
        user = User(f"U0{re.sub(r'[^A-Z0-9]', '', name.upper())}", name, team=team)
        self.users[user.id] = user
        for channel in self.channels.values():
            if not channel.person:
                channel.members.add(user.id)
        self.direct(user.id)
        return user

    def direct(self, user: str) -> Channel:
        """The direct messages between this person and the bot."""
        ident = f"D{user[1:]}"
        if ident not in self.channels:
            self.channels[ident] = Channel(ident, self.users[user].name, person=user, members={user, BOT})
            self.messages[ident] = []
        return self.channels[ident]

    def channel(self, name: str) -> Channel | None:
        """The channel of an id, a #name or a name."""
        bare = name.removeprefix("#")
        return self.channels.get(name) or next(
            (channel for channel in self.channels.values() if channel.name == bare and not channel.person), None
        )

    def find(self, channel: str, ts: str) -> Message | None:
        """The message that stands there, ephemeral and deleted ones not."""
        return next(
            (one for one in reversed(self.messages.get(channel, [])) if one.ts == ts and not one.deleted and one.only is None),
            None,
        )

    def root(self, message: Message) -> Message | None:
        """The first message of its thread."""
        return self.find(message.channel, message.thread_ts or message.ts)

    def thread(self, channel: str, ts: str) -> list[Message]:
        """A root and its replies, without the ephemeral ones."""
        return [one for one in self.messages.get(channel, []) if not one.deleted and one.only is None and ts in {one.ts, one.thread_ts}]

    def put(self, message: Message) -> Message:
        """Shows a message."""
        self.name(message)
        self.messages[message.channel].append(message)
        self.touch(message)
        return message

    def name(self, message: Message) -> None:
        """Gives its blocks and elements the ids that Slack would generate."""
        name_blocks(message.blocks)

    def touch(self, message: Message) -> None:
        """Tells that a message looks different now."""
        self.changed({"kind": "message", "message": self.message_for_page(message)})
        if message.thread_ts and message.thread_ts != message.ts and (root := self.find(message.channel, message.thread_ts)):
            self.changed({"kind": "message", "message": self.message_for_page(root)})

    def file_ready(self, wanted: Json) -> bool:
        """Whether a `slack_file` object names a picture that has been processed."""
        file = self.files.get(wanted.get("id", "")) or next(
            (one for one in self.files.values() if self.file_url(one) == wanted.get("url")), None
        )
        return bool(file and file.completed and self.clock() >= file.ready_at and file.mimetype.startswith("image/"))

    def file_url(self, file: File) -> str:
        """Where the file can be read, on this workspace's own server."""
        return f"{self.base}/files-pri/{TEAM}-{file.id}/{file.name}"

    def file_json(self, file: File) -> Json:
        """The file object of the Web API; until it is processed Slack does not know what it is."""
        ready = file.completed and self.clock() >= file.ready_at
        mimetype = file.mimetype if ready else ""
        return {
            "id": file.id,
            "name": file.name,
            "title": file.title or file.name,
            "mimetype": mimetype,
            "filetype": mimetype.rpartition("/")[2],
            "size": len(file.content or b""),
            "alt_txt": file.alt,
            "user": file.user,
            "url_private": self.file_url(file),
            "channels": [one for one in file.channels if one.startswith("C")],
            "ims": [one for one in file.channels if one.startswith("D")],
            "is_public": any(one.startswith("C") for one in file.channels),
        }

    def uploaded(self, name: str, content: str, user: str) -> File:
        """A file that a person has given to Slack, ready to be read."""
        data = content.encode()
        file = File(self.serial("F"), name, len(data), "", name, data, completed=True, ready_at=self.clock(), user=user)
        self.files[file.id] = file
        return file

    def new_view(self, user: str, payload: Json, previous: View | None = None) -> View:
        """A view that is not yet shown."""
        ident = self.serial("V")
        view = View(ident, user, payload, secrets.token_hex(8), previous.root if previous else ident, previous.id if previous else None)
        self._shown(view)
        self.views[ident] = view
        return view

    def change_view(self, view: View, payload: Json) -> None:
        """Shows other content in a view; what people typed into inputs that stay is kept."""
        view.payload, view.hash, view.errors = payload, secrets.token_hex(8), {}
        self._shown(view)

    def _shown(self, view: View) -> None:
        name_blocks(view.payload["blocks"])
        fresh, before = initial_state(view.payload["blocks"]), view.state
        view.state = {
            block: {action: before.get(block, {}).get(action, value) for action, value in values.items()} for block, values in fresh.items()
        }

    def tell_views(self, user: str) -> None:
        """Tells which modals and which home a person sees now."""
        self.changed({"kind": "views", **self.views_for_page(user)})

    # What the page gets: the Web API's objects and what only a client knows.

    def message_for_page(self, message: Message) -> Json:
        """The message as the page draws it."""
        replies = (
            [one for one in self.thread(message.channel, message.ts) if one.ts != message.ts]
            if not message.thread_ts or message.thread_ts == message.ts
            else []
        )
        return message.json() | {
            "channel": message.channel,
            "only": message.only,
            "deleted": message.deleted,
            "pings": list(message.pings),
            "edits": message.edits,
            "broadcast": message.broadcast,
            "replies": len(replies),
            "last_reply": replies[-1].ts if replies else None,
            "repliers": list(dict.fromkeys(one.user for one in replies)),
            "files": [
                self.file_json(file) | {"picture": file.mimetype.startswith("image/")}
                for file in map(self.files.__getitem__, message.files)
            ],
            "private_files": [file.id for file in self.files.values() if not file.channels],
        }

    def channel_for_page(self, channel: Channel) -> Json:
        """The channel as the page lists it."""
        return {
            "id": channel.id,
            "name": channel.name,
            "private": channel.private,
            "person": channel.person,
            "archived": channel.archived,
            "members": sorted(channel.members),
        }

    def views_for_page(self, user: str) -> Json:
        """A person's open modals, the topmost last, and their App Home."""
        home = self.homes.get(user)
        return {
            "user": user,
            "stack": [view.json() | {"errors": view.errors} for view in self.stacks.get(user, [])],
            "home": home.json() if home else None,
        }

    def for_page(self) -> Json:
        """Everything, for a page that has just been opened."""
        return {
            "kind": "workspace",
            "bot": BOT,
            "users": [user.json() for user in self.users.values()] + [User(SLACKBOT, "slackbot", bot=True).json()],
            "groups": [{"id": group.id, "handle": group.handle} for group in self.groups.values()],
            "channels": [self.channel_for_page(channel) for channel in self.channels.values()],
            "messages": [self.message_for_page(one) for channel in self.messages.values() for one in channel if not one.deleted],
            "views": [self.views_for_page(user.id) for user in self.people()],
            "commands": self.commands,
            "shortcuts": self.shortcuts,
            "home_tab": bool(self.manifest["features"].get("app_home", {}).get("home_tab_enabled")),
        }


#: For each kind of element, where its start value is written and where its current value is read.
VALUES = {
    "static_select": ("initial_option", "selected_option"),
    "external_select": ("initial_option", "selected_option"),
    "radio_buttons": ("initial_option", "selected_option"),
    "multi_static_select": ("initial_options", "selected_options"),
    "multi_external_select": ("initial_options", "selected_options"),
    "checkboxes": ("initial_options", "selected_options"),
    "users_select": ("initial_user", "selected_user"),
    "channels_select": ("initial_channel", "selected_channel"),
    "conversations_select": ("initial_conversation", "selected_conversation"),
    "multi_users_select": ("initial_users", "selected_users"),
    "multi_channels_select": ("initial_channels", "selected_channels"),
    "multi_conversations_select": ("initial_conversations", "selected_conversations"),
    "datepicker": ("initial_date", "selected_date"),
    "timepicker": ("initial_time", "selected_time"),
    "datetimepicker": ("initial_date_time", "selected_date_time"),
    **{f"{kind}_text_input": ("initial_value", "value") for kind in ("plain", "url", "email")},
    "plain_text_input": ("initial_value", "value"),
    "number_input": ("initial_value", "value"),
    "rich_text_input": ("initial_value", "rich_text_value"),
    "file_input": ("", "files"),
}


INTERACTIVE = {*VALUES, "button", "overflow", "feedback_buttons", "icon_button"}


def _interactive(block: Json) -> Iterator[Json]:
    for element in (*(block.get("elements") or ()), *(block.get("actions") or ()), block.get("accessory"), block.get("element")):
        if isinstance(element, dict) and element.get("type") in INTERACTIVE:
            yield element


def _nested(blocks: list[Json]) -> Iterator[Json]:
    for block in blocks:
        yield block
        yield from _nested(block.get("child_blocks") or [])


def find_element(blocks: list[Json], action_id: str) -> tuple[str, Json]:
    """The block id and the element with this action id among these blocks; KeyError when there is none."""
    for block in _nested(blocks):
        for element in _interactive(block):
            if element.get("action_id") == action_id:
                return block["block_id"], element
    raise KeyError(action_id)


def name_blocks(blocks: list[Json]) -> None:
    """Gives every block and interactive element without an id a short random one, as Slack does."""
    for block in _nested(blocks):
        block.setdefault("block_id", secrets.token_urlsafe(4))
        for element in _interactive(block):
            element.setdefault("action_id", secrets.token_urlsafe(4))


def initial_state(blocks: list[Json]) -> dict[str, Json]:
    """The `state.values` of blocks that nobody has touched yet."""
    state: dict[str, Json] = {}
    for block in _nested(blocks):
        for element in _interactive(block):
            if element["type"] in VALUES:
                start, now = VALUES[element["type"]]
                empty: Any = [] if now.endswith("s") else None
                state.setdefault(block["block_id"], {})[element["action_id"]] = {"type": element["type"], now: element.get(start, empty)}
    return state
