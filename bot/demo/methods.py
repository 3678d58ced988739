"""The Web API of the local workspace: what each method does, to whom it refuses, and with which of Slack's errors.

`WebApi.answer` is the one door; the order of refusals is Slack's: token, scope, rate, arguments, permission, content. Error names
are those of docs.slack.dev's method pages; a payload error carries JSON pointers in `response_metadata.messages`.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bot.demo import limits
from bot.demo.rates import Rates
from bot.demo.workspace import BOT, BOT_ID, SLACKBOT, TEAM, Channel, File, Message, View, Workspace

Json = dict[str, Any]

TRIGGER_SECONDS = 3.0
STACK = 3  # modals on top of each other
SNIPPET = 1_000_000
CHANNEL_NAME, CHANNEL_TOPIC = 80, 250
SHARED_WITH = 100
PICTURES = {"image/png", "image/jpeg", "image/gif"}


class SlackError(Exception):
    """A refusal: Slack's name of the error, and what else stands in the answer."""

    def __init__(
        self, error: str, *, status: int = 200, headers: Mapping[str, str] | None = None, messages: list[str] | None = None, **more: Any
    ) -> None:
        super().__init__(error)
        self.error, self.status, self.headers, self.messages, self.more = error, status, dict(headers or {}), messages, more

    def body(self) -> Json:
        """The JSON that the caller reads."""
        body: Json = {"ok": False, "error": self.error, **self.more}
        if self.messages:
            body |= {"errors": self.messages} if self.error.startswith("invalid_blocks") else {}
            body["response_metadata"] = {"messages": [f"[ERROR] {message}" for message in self.messages]}
        return body


class LostAnswer(Exception):
    """The caller's connection breaks without an answer."""


@dataclass
class Fault:
    """What the next `times` calls of `method` meet instead of an answer; `applied` means that the work is done first."""

    method: str
    error: str | None = None
    status: int | None = None
    retry_after: int | None = None
    applied: bool = False
    delay: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class _Method:
    run: Callable[["WebApi", Json], Awaitable[Json]]
    scopes: tuple[str, ...]
    token: str  # "bot", "app", "any" or "none"


_METHODS: dict[str, _Method] = {}
_Run = Callable[["WebApi", Json], Awaitable[Json]]


def _method(name: str, *scopes: str, token: str = "bot") -> Callable[[_Run], _Run]:  # noqa: S107 - a kind of token, no secret
    """Registers one method; any one of the scopes is enough."""

    def register(run: _Run) -> _Run:
        _METHODS[name] = _Method(run, scopes, token)
        return run

    return register


_READ = ("channels:read", "groups:read", "im:read", "mpim:read")
_HISTORY = ("channels:history", "groups:history", "im:history", "mpim:history")


def _required(args: Json, *names: str) -> None:
    missing = [name for name in names if args.get(name) in (None, "")]
    if missing:
        raise SlackError("invalid_arguments", messages=[f"missing required field: {name}" for name in missing])


def _decoded(value: Any, error: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise SlackError(error) from None


def _yes(value: Any) -> bool:
    return str(value).lower() in {"true", "1"}


def _page(items: list[Any], args: Json, most: int = 1000) -> tuple[list[Any], Json]:
    """One page of a list and the `response_metadata` that leads to the next one."""
    try:
        start, limit = int(args.get("cursor") or 0), min(int(args.get("limit") or 100), most)
    except ValueError:
        raise SlackError("invalid_cursor") from None
    following = str(start + limit) if start + limit < len(items) else ""
    return items[start : start + limit], {"response_metadata": {"next_cursor": following}}


@dataclass
class _Content:
    """What a message will say, once it has been found acceptable."""

    text: str
    blocks: list[Json]
    attachments: list[Json]
    warning: str | None = None


@dataclass
class WebApi:
    """The methods over one workspace, with its tokens, rates and faults."""

    workspace: Workspace
    rates: Rates
    enforce_rates: bool
    bot_token: str
    app_token: str
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, Json]] = field(default_factory=list)
    token_error: str | None = None  # what the bot's token is answered with once it is worth nothing
    paid_plan: bool = True  # user groups exist only on one
    processing: float = 0.3  # seconds until an upload can be shown in a block
    edit_window: float | None = None  # seconds after which the workspace forbids edits
    socket_mode: bool = True
    triggers: dict[str, tuple[str, float]] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    new_link: Callable[[], str] = lambda: ""

    async def answer(self, method: str, args: Json, token: str | None) -> tuple[int, dict[str, str], Json]:
        """The status, headers and body of one call; LostAnswer when the connection shall break instead."""
        known = _METHODS.get(method)
        headers: dict[str, str] = {}
        if known is None:
            return 200, headers, SlackError("unknown_method", req_method=method).body()
        try:
            headers = self._admit(known, token)
            self.calls.append((method, {name: value for name, value in args.items() if name != "token"}))
            self._spend(method, args)
            fault = next((one for one in self.faults if one.method == method), None)
            if fault:
                await self._break(fault, known, args)
            return 200, headers, {"ok": True, **await known.run(self, args)}
        except SlackError as refused:
            return refused.status, headers | refused.headers, refused.body()
        finally:
            self.workspace.changed({"kind": "call", "method": method})

    def _admit(self, method: _Method, token: str | None) -> dict[str, str]:
        if method.token == "none":  # noqa: S105 - a kind of token, no secret
            return {}
        if not token:
            raise SlackError("not_authed")
        kind = "bot" if secrets.compare_digest(token, self.bot_token) else "app" if secrets.compare_digest(token, self.app_token) else None
        if kind is None:
            raise SlackError("invalid_auth")
        if kind == "bot" and self.token_error:
            raise SlackError(self.token_error)
        if method.token not in {"any", kind}:
            raise SlackError("not_allowed_token_type")
        have = self.workspace.scopes if kind == "bot" else ["connections:write"]
        if method.scopes and not set(method.scopes) & set(have):
            raise SlackError("missing_scope", needed=",".join(method.scopes), provided=",".join(have))
        return {"x-oauth-scopes": ",".join(have), "x-accepted-oauth-scopes": ",".join(method.scopes)}

    def _spend(self, method: str, args: Json) -> None:
        channel = self.workspace.channel(str(args["channel"])) if method == "chat.postMessage" and args.get("channel") else None
        if self.enforce_rates and (seconds := self.rates.take(method, channel.id if channel else None)):
            raise SlackError("ratelimited", status=429, headers={"Retry-After": str(seconds)})

    async def _break(self, fault: Fault, method: _Method, args: Json) -> None:
        """Does what a fault says; returns when the call shall go on after a delay."""
        fault.times -= 1
        if fault.times <= 0:
            self.faults.remove(fault)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.applied:
            await method.run(self, args)
        if fault.retry_after is not None:
            raise SlackError("ratelimited", status=429, headers={"Retry-After": str(fault.retry_after)})
        if fault.error:
            raise SlackError(fault.error, status=fault.status or 200)
        if fault.status:
            raise SlackError("internal_error", status=fault.status)
        if fault.applied or not fault.delay:
            raise LostAnswer

    # What several methods ask.

    def _seen(self, name: Any) -> Channel:
        """The channel of this name or id, when the bot may know of it."""
        channel = self.workspace.channel(str(name or ""))
        if channel is None or (channel.private and BOT not in channel.members):
            raise SlackError("channel_not_found")
        return channel

    def _by_id(self, name: Any) -> Channel:
        """The channel of this id: edits and reads take no names."""
        if str(name) not in self.workspace.channels:
            raise SlackError("channel_not_found")
        return self._seen(name)

    def _writable(self, name: Any) -> Channel:
        user = self.workspace.users.get(str(name))
        channel = self.workspace.direct(user.id) if user and not user.bot else self._seen(name)
        if channel.archived:
            raise SlackError("is_archived")
        if BOT not in channel.members and "chat:write.public" not in self.workspace.scopes:
            raise SlackError("not_in_channel")
        return channel

    def _own(self, args: Json, error: str) -> Message:
        """The bot's own message that the call is about."""
        _required(args, "channel", "ts")
        channel = self._by_id(args["channel"])
        message = self.workspace.find(channel.id, str(args["ts"]))
        if message is None:
            raise SlackError("message_not_found")
        if message.user != BOT:
            raise SlackError(error)
        if channel.archived:
            raise SlackError("is_inactive" if error == "cant_update_message" else "is_archived")
        return message

    def _thread(self, channel: Channel, ts: Any) -> str | None:
        if not ts:
            return None
        parts = str(ts).split(".")
        if len(parts) != 2 or not all(part.isdigit() for part in parts):
            raise SlackError("invalid_thread_ts")
        root = self.workspace.find(channel.id, str(ts))
        if root is None:
            raise SlackError("thread_not_found")
        if root.thread_ts and root.thread_ts != root.ts:
            raise SlackError("cannot_reply_to_message")
        if root.locked:
            raise SlackError("restricted_action_thread_locked")
        return root.ts

    async def blocks(self, value: Any, surface: limits.Surface = "message", at: str = "/blocks") -> list[Json]:
        """These blocks, decoded and found acceptable; SlackError with pointers when they are not."""
        blocks = _decoded(value, "invalid_blocks_format")
        if not blocks:
            return []
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise SlackError("invalid_blocks_format")
        wrong = limits.wrong_blocks(blocks, surface, self.workspace.file_ready, at) or await self._unreachable(blocks, at)
        if wrong:
            raise SlackError("invalid_attachments" if limits.ONE_TABLE in wrong[0] else "invalid_blocks", messages=wrong)
        return blocks

    async def _unreachable(self, value: Any, at: str) -> list[str]:
        """Slack fetches every `image_url` while the message is posted; what it cannot fetch sinks the message."""
        if isinstance(value, list):
            return [wrong for number, item in enumerate(value) for wrong in await self._unreachable(item, f"{at}/{number}")]
        if not isinstance(value, dict):
            return []
        wrong: list[str] = []
        url = value.get("image_url") if value.get("type") == "image" else None
        if url and url not in self.workspace.pictures and not await self._fetched(url):
            wrong.append(f"downloading image failed [json-pointer:{at}/image_url]")
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                wrong += await self._unreachable(inner, f"{at}/{name}")
        return wrong

    async def _fetched(self, url: str) -> bool:
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session, session.get(url) as picture:
                found = picture.status == 200 and picture.content_type in PICTURES
                if found:
                    self.workspace.pictures[url] = (await picture.read(), picture.content_type)
                return found
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def content(self, args: Json, *, whole: bool = True) -> _Content:
        """What a message will say; SlackError when Slack would not take it. `whole` says that the sum of the blocks is limited."""
        if args.get("markdown_text"):
            if args.get("text") or args.get("blocks"):
                raise SlackError("markdown_text_conflict")
            if limits.size(args["markdown_text"]) > limits.MARKDOWN_TEXT:
                raise SlackError("msg_too_long")
            return _Content(args["markdown_text"], [{"type": "markdown", "text": args["markdown_text"]}], [])
        blocks = await self.blocks(args.get("blocks"))
        if whole and limits.too_long(blocks):
            raise SlackError("msg_blocks_too_long")
        attachments = _decoded(args.get("attachments"), "invalid_attachments") or []
        if len(attachments) > limits.ATTACHMENTS:
            raise SlackError("too_many_attachments")
        for number, attachment in enumerate(attachments):
            at = f"/attachments/{number}/blocks"
            if wrong := limits.wrong_blocks(attachment.get("blocks") or [], "message", self.workspace.file_ready, at):
                raise SlackError("invalid_attachments", messages=wrong)
        text = str(args.get("text") or "")
        if not (text.strip() or blocks or attachments):
            raise SlackError("no_text")
        cut = text[: limits.TEXT_CUT]
        return _Content(cut, blocks, attachments, "message_truncated" if cut != text else None)

    @staticmethod
    def _metadata(args: Json) -> Json | None:
        if args.get("metadata") in (None, ""):
            return None
        metadata = _decoded(args["metadata"], "invalid_metadata_format")
        if error := limits.wrong_metadata(metadata):
            raise SlackError(error)
        return dict(metadata)

    # chat.*

    @_method("chat.postMessage", "chat:write")
    async def _post(self, args: Json) -> Json:
        _required(args, "channel")
        channel = self._writable(args["channel"])
        metadata = self._metadata(args)
        content = await self.content(args)
        root = self._thread(channel, args.get("thread_ts"))
        message = self.workspace.put(
            Message(
                channel.id,
                self.workspace.next_ts(),
                BOT,
                content.text,
                content.blocks,
                content.attachments,
                thread_ts=root,
                broadcast=root is not None and _yes(args.get("reply_broadcast")),
                metadata=metadata,
            )
        )
        warned = {"warning": content.warning, "response_metadata": {"warnings": [content.warning]}} if content.warning else {}
        return {"channel": channel.id, "ts": message.ts, "message": message.json(), **warned}

    @_method("chat.update", "chat:write")
    async def _update(self, args: Json) -> Json:
        message = self._own(args, "cant_update_message")
        if self.edit_window is not None and self.workspace.clock() - float(message.ts) > self.edit_window:
            raise SlackError("edit_window_closed")
        changes = any(args.get(name) for name in ("text", "blocks", "attachments", "markdown_text"))
        if _yes(args.get("reply_broadcast")):
            if not message.thread_ts or message.thread_ts == message.ts:
                raise SlackError("cant_broadcast_message")
            if changes:
                raise SlackError("no_dual_broadcast_content_update")
            message.broadcast = True
        else:
            if limits.size(str(args.get("text") or "")) > limits.UPDATE_TEXT:
                raise SlackError("msg_too_long")
            metadata = self._metadata(args)
            content = await self.content(args)
            message.text, message.blocks, message.attachments = content.text, content.blocks, content.attachments
            message.metadata = metadata if metadata is not None else message.metadata
            message.marked_edited = not content.blocks
            message.edits += 1
            self.workspace.name(message)
        self.workspace.touch(message)
        return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": message.json()}

    @_method("chat.postEphemeral", "chat:write")
    async def _whisper(self, args: Json) -> Json:
        _required(args, "channel", "user")
        channel = self._writable(args["channel"])
        user = self.workspace.users.get(str(args["user"]))
        if user is None or user.deleted or user.id not in channel.members:
            raise SlackError("user_not_in_channel")
        content = await self.content(args)
        root = self._thread(channel, args.get("thread_ts"))
        message = self.workspace.put(
            Message(
                channel.id, self.workspace.next_ts(), BOT, content.text, content.blocks, content.attachments, thread_ts=root, only=user.id
            )
        )
        return {"message_ts": message.ts}

    @_method("chat.delete", "chat:write")
    async def _delete(self, args: Json) -> Json:
        message = self._own(args, "cant_delete_message")
        message.deleted = True
        self.workspace.touch(message)
        return {"channel": message.channel, "ts": message.ts}

    @_method("chat.getPermalink")
    async def _permalink(self, args: Json) -> Json:
        _required(args, "channel", "message_ts")
        channel = self._by_id(args["channel"])
        message = self.workspace.find(channel.id, str(args["message_ts"]))
        if message is None:
            raise SlackError("message_not_found")
        reply = f"?thread_ts={message.thread_ts}&cid={channel.id}" if message.thread_ts else ""
        return {"channel": channel.id, "permalink": f"{self.workspace.base}/archives/{channel.id}/p{message.ts.replace('.', '')}{reply}"}

    # conversations.*

    @_method("conversations.list", *_READ)
    async def _channels(self, args: Json) -> Json:
        wanted = set(str(args.get("types") or "public_channel").replace(" ", "").split(","))
        found = [
            channel.json()
            for channel in self.workspace.channels.values()
            if ("im" if channel.person else "private_channel" if channel.private else "public_channel") in wanted
            and not (channel.archived and _yes(args.get("exclude_archived")))
            and not (channel.private and BOT not in channel.members)
        ]
        page, more = _page(found, args)
        return {"channels": page, **more}

    @_method("users.conversations", *_READ)
    async def _joined(self, args: Json) -> Json:
        wanted = set(str(args.get("types") or "public_channel").replace(" ", "").split(","))
        found = [
            channel.json()
            for channel in self.workspace.channels.values()
            if BOT in channel.members
            and ("im" if channel.person else "private_channel" if channel.private else "public_channel") in wanted
            and not (channel.archived and _yes(args.get("exclude_archived")))
        ]
        page, more = _page(found, args)
        return {"channels": page, **more}

    @_method("conversations.info", *_READ)
    async def _channel_info(self, args: Json) -> Json:
        _required(args, "channel")
        return {"channel": self._by_id(args["channel"]).json()}

    @_method("conversations.members", *_READ)
    async def _members(self, args: Json) -> Json:
        _required(args, "channel")
        page, more = _page(sorted(self._by_id(args["channel"]).members), args)
        return {"members": page, **more}

    @_method("conversations.join", "channels:join")
    async def _join(self, args: Json) -> Json:
        _required(args, "channel")
        channel = self._by_id(args["channel"])
        if channel.person or channel.private:
            raise SlackError("method_not_supported_for_channel_type")
        if channel.archived:
            raise SlackError("is_archived")
        channel.members.add(BOT)
        self.workspace.changed({"kind": "channel", "channel": self.workspace.channel_for_page(channel)})
        return {"channel": channel.json()}

    @_method("conversations.create", "channels:manage")
    async def _create(self, args: Json) -> Json:
        name = str(args.get("name") or "")
        if _yes(args.get("is_private")):
            raise SlackError("missing_scope", needed="groups:write", provided=",".join(self.workspace.scopes))
        if not name:
            raise SlackError("invalid_name_required")
        if limits.size(name) > CHANNEL_NAME:
            raise SlackError("invalid_name_maxlength")
        if not all(sign.isalnum() or sign in "-_" for sign in name) or name != name.lower():
            raise SlackError("invalid_name_specials")
        if not any(sign.isalnum() for sign in name):
            raise SlackError("invalid_name_punctuation")
        if any(channel.name == name and not channel.person for channel in self.workspace.channels.values()):
            raise SlackError("name_taken")
        return {"channel": self.workspace.make_channel(name, BOT).json()}

    @_method("conversations.invite", "channels:manage", "channels:write.invites")
    async def _invite(self, args: Json) -> Json:
        channel = self._own_channel(args)
        users = [name for name in str(args.get("users") or "").split(",") if name]
        if not users:
            raise SlackError("no_user")
        errors = [{"user": user, "ok": False, "error": error} for user in users if (error := self._uninvitable(user, channel))]
        if errors:
            raise SlackError(str(errors[0]["error"]), errors=errors)
        channel.members.update(users)
        self.workspace.changed({"kind": "channel", "channel": self.workspace.channel_for_page(channel)})
        return {"channel": channel.json()}

    def _own_channel(self, args: Json) -> Channel:
        """The channel that the bot is in and that can be changed."""
        _required(args, "channel")
        channel = self._by_id(args["channel"])
        if channel.person:
            raise SlackError("method_not_supported_for_channel_type")
        if channel.archived:
            raise SlackError("is_archived")
        if BOT not in channel.members:
            raise SlackError("not_in_channel")
        return channel

    def _uninvitable(self, name: str, channel: Channel) -> str:
        user = self.workspace.users.get(name)
        if user is None or user.deleted:
            return "user_not_found"
        return "cant_invite_self" if name == BOT else "already_in_channel" if name in channel.members else ""

    @_method("conversations.setTopic", "channels:manage", "channels:write.topic")
    async def _topic(self, args: Json) -> Json:
        channel = self._own_channel(args)
        topic = str(args.get("topic") or "")
        if limits.size(topic) > CHANNEL_TOPIC:
            raise SlackError("too_long")
        channel.topic = topic
        self.workspace.changed({"kind": "channel", "channel": self.workspace.channel_for_page(channel)})
        return {"channel": channel.json()}

    @_method("conversations.open", "im:write", "mpim:write")
    async def _open(self, args: Json) -> Json:
        if args.get("channel"):
            channel = self._by_id(args["channel"])
            if not channel.person:
                raise SlackError("method_not_supported_for_channel_type")
            return {"channel": channel.json()}
        users = args.get("users") or ""
        names = users if isinstance(users, list) else [name for name in str(users).split(",") if name]
        if not names:
            raise SlackError("users_list_not_supplied")
        if len(names) > 1:
            raise SlackError("method_not_supported_for_channel_type")  # group messages do not exist here
        user = self.workspace.users.get(names[0])
        if user is None:
            raise SlackError("user_not_found")
        if user.deleted:
            raise SlackError("user_disabled")
        return {"channel": self.workspace.direct(user.id).json()}

    def _between(self, messages: list[Message], args: Json) -> list[Message]:
        try:
            oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
        except ValueError:
            raise SlackError("invalid_ts_oldest") from None
        same = _yes(args.get("inclusive"))
        return [one for one in messages if oldest < float(one.ts) < latest or (same and float(one.ts) in {oldest, latest})]

    @_method("conversations.history", *_HISTORY)
    async def _history(self, args: Json) -> Json:
        _required(args, "channel")
        channel = self._by_id(args["channel"])
        if BOT not in channel.members:
            raise SlackError("not_in_channel")
        shown = [
            one
            for one in reversed(self.workspace.messages[channel.id])
            if not one.deleted and one.only is None and (not one.thread_ts or one.thread_ts == one.ts or one.broadcast)
        ]
        page, more = _page(self._between(shown, args), args)
        return {"messages": [self._told(one, args) for one in page], "has_more": bool(more["response_metadata"]["next_cursor"]), **more}

    @_method("conversations.replies", *_HISTORY)
    async def _replies(self, args: Json) -> Json:
        _required(args, "channel", "ts")
        channel = self._by_id(args["channel"])
        named = self.workspace.find(channel.id, str(args["ts"]))
        if named is None:
            raise SlackError("thread_not_found")
        page, more = _page(self._between(self.workspace.thread(channel.id, named.thread_ts or named.ts), args), args)
        return {"messages": [self._told(one, args) for one in page], "has_more": bool(more["response_metadata"]["next_cursor"]), **more}

    def _told(self, message: Message, args: Json) -> Json:
        told = message.json(metadata=_yes(args.get("include_all_metadata")))
        replies = len(self.workspace.thread(message.channel, message.ts)) - 1
        if replies > 0 and not message.thread_ts:
            told |= {"thread_ts": message.ts, "reply_count": replies}
        if message.files:
            told |= {"files": [self.workspace.file_json(self.workspace.files[one]) for one in message.files], "subtype": "file_share"}
        return told

    # users.*, usergroups.*, reactions.*

    @_method("users.info", "users:read")
    async def _user(self, args: Json) -> Json:
        user = self.workspace.users.get(str(args.get("user")))
        if user is None:
            raise SlackError("user_not_found")
        return {"user": user.json()}

    @_method("users.list", "users:read")
    async def _users(self, args: Json) -> Json:
        page, more = _page([user.json() for user in self.workspace.users.values()], args)
        return {"members": page, **more}

    @_method("usergroups.list", "usergroups:read")
    async def _groups(self, args: Json) -> Json:
        self._paid()
        users, disabled = _yes(args.get("include_users")), _yes(args.get("include_disabled"))
        shown = [one.json(users=users) for one in self.workspace.groups.values() if disabled or not one.disabled]
        return {"usergroups": shown}

    @_method("usergroups.users.list", "usergroups:read")
    async def _group_users(self, args: Json) -> Json:
        self._paid()
        _required(args, "usergroup")
        group = self.workspace.groups.get(str(args["usergroup"]))
        if group is None or (group.disabled and not _yes(args.get("include_disabled"))):
            raise SlackError("no_such_subteam")
        return {"users": list(group.users)}

    def _paid(self) -> None:
        if not self.paid_plan:
            raise SlackError("plan_upgrade_required")

    @_method("reactions.add", "reactions:write")
    async def _react(self, args: Json) -> Json:
        if not args.get("channel") or not args.get("timestamp"):
            raise SlackError("no_item_specified")
        channel = self._by_id(args["channel"])
        if channel.archived:
            raise SlackError("is_archived")
        message = self.workspace.find(channel.id, str(args["timestamp"]))
        if message is None:
            raise SlackError("message_not_found")
        name = str(args.get("name") or "").strip(":")
        if not name or not all(sign.isalnum() or sign in "_+-'" for sign in name):
            raise SlackError("invalid_name")
        if BOT in message.reactions.get(name, []):
            raise SlackError("already_reacted")
        message.reactions.setdefault(name, []).append(BOT)
        self.workspace.touch(message)
        return {}

    # views.*

    def trigger(self, user: str) -> str:
        """A new trigger id for something that this person has just done."""
        ident = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self.triggers[ident] = (user, self.workspace.clock() + TRIGGER_SECONDS)
        return ident

    def _exchange(self, args: Json) -> str:
        ident = str(args.get("trigger_id") or args.get("interactivity_pointer") or "")
        if ident in self.spent:
            raise SlackError("exchanged_trigger_id")
        if ident not in self.triggers:
            raise SlackError("invalid_trigger_id")
        user, until = self.triggers.pop(ident)
        self.spent.add(ident)
        if self.workspace.clock() > until:
            raise SlackError("expired_trigger_id")
        return user

    async def view(self, value: Any, kind: str = "modal", instead_of: View | None = None) -> Json:
        """A view, decoded and found acceptable; SlackError with pointers when it is not."""
        payload = _decoded(value, "invalid_arguments")
        if not isinstance(payload, dict):
            raise SlackError("invalid_arguments", messages=["missing required field: view"])
        if len(json.dumps(payload, ensure_ascii=False).encode()) > limits.VIEW_BYTES:
            raise SlackError("view_too_large")
        wrong = limits.wrong_view(payload, self.workspace.file_ready)
        if not wrong and payload["type"] != kind:
            wrong = [f"unsupported type: {payload['type']} [json-pointer:/view/type]"]
        wrong = wrong or await self._unreachable(payload["blocks"], "/view/blocks")
        if wrong:
            raise SlackError("invalid_arguments", messages=wrong)
        external = payload.get("external_id")
        if external and any(one.payload.get("external_id") == external and one is not instead_of for one in self.workspace.views.values()):
            raise SlackError("duplicate_external_id")
        return payload

    @_method("views.open")
    async def _view_open(self, args: Json) -> Json:
        payload = await self.view(args.get("view"))
        user = self._exchange(args)
        view = self.workspace.new_view(user, payload)
        self.workspace.stacks[user] = [view]
        self.workspace.tell_views(user)
        return {"view": view.json()}

    @_method("views.push")
    async def _view_push(self, args: Json) -> Json:
        payload = await self.view(args.get("view"))
        user = self._exchange(args)
        return {"view": self.push(user, payload).json()}

    def push(self, user: str, payload: Json) -> View:
        """Puts a modal on top of a person's stack; SlackError when the stack is full or empty."""
        stack = self.workspace.stacks.get(user) or []
        if not stack:
            raise SlackError("not_found")
        if len(stack) >= STACK:
            raise SlackError("push_limit_reached")
        view = self.workspace.new_view(user, payload, stack[-1])
        stack.append(view)
        self.workspace.tell_views(user)
        return view

    @_method("views.update")
    async def _view_update(self, args: Json) -> Json:
        view = self.workspace.views.get(str(args.get("view_id"))) or next(
            (
                one
                for one in self.workspace.views.values()
                if args.get("external_id") and one.payload.get("external_id") == args["external_id"]
            ),
            None,
        )
        if view is None:
            raise SlackError("not_found")
        payload = await self.view(args.get("view"), view.payload["type"], view)
        if args.get("hash") and args["hash"] != view.hash:
            raise SlackError("hash_conflict")
        self.workspace.change_view(view, payload)
        self.workspace.tell_views(view.user)
        return {"view": view.json()}

    @_method("views.publish")
    async def _view_publish(self, args: Json) -> Json:
        _required(args, "user_id")
        user = str(args["user_id"])
        if not self.workspace.manifest["features"].get("app_home", {}).get("home_tab_enabled"):
            raise SlackError("not_enabled")
        if user not in self.workspace.users:
            raise SlackError("invalid_arguments", messages=["invalid `user_id`"])
        home = self.workspace.homes.get(user)
        payload = await self.view(args.get("view"), "home", home)
        if home and args.get("hash") and args["hash"] != home.hash:
            raise SlackError("hash_conflict")
        if home is None:
            home = self.workspace.homes[user] = self.workspace.new_view(user, payload)
        else:
            self.workspace.change_view(home, payload)
        self.workspace.tell_views(user)
        return {"view": home.json()}

    # files.*

    @_method("files.getUploadURLExternal", "files:write")
    async def _upload_url(self, args: Json) -> Json:
        if not args.get("filename") or not str(args.get("length") or "").isdigit() or int(args["length"]) < 1:
            raise SlackError("missing_argument")
        if limits.size(str(args.get("alt_txt") or "")) > 1000:
            raise SlackError("alt_txt_too_large")
        if args.get("snippet_type") and int(args["length"]) > SNIPPET:
            raise SlackError("snippet_too_large")
        file = File(self.workspace.serial("F"), str(args["filename"]), int(args["length"]), str(args.get("alt_txt") or ""))
        self.workspace.files[file.id] = file
        return {"upload_url": f"{self.workspace.base}/upload/v1/{file.id}", "file_id": file.id}

    @_method("files.completeUploadExternal", "files:write")
    async def _upload_done(self, args: Json) -> Json:
        wanted = _decoded(args.get("files"), "invalid_arguments")
        if not isinstance(wanted, list) or not wanted:
            raise SlackError("invalid_arguments", messages=["missing required field: files"])
        if args.get("initial_comment") and args.get("blocks"):
            raise SlackError("invalid_arguments", messages=["`initial_comment` and `blocks` are mutually exclusive"])
        names = [name for name in [args.get("channel_id"), *str(args.get("channels") or "").split(",")] if name]
        if len(names) > SHARED_WITH:
            raise SlackError("channels_limit_exceeded")
        channels = [self._by_id(name) for name in names]
        if any(BOT not in channel.members for channel in channels):
            raise SlackError("not_in_channel")
        if any(channel.archived for channel in channels):
            raise SlackError("posting_to_channel_denied")
        blocks = await self.blocks(args.get("blocks"))
        roots = [self._thread(channel, args.get("thread_ts")) for channel in channels]
        files = [self.workspace.files.get(str(one.get("id"))) for one in wanted]
        done = [file for file in files if file and file.content is not None and not file.completed]
        if len(done) != len(files):
            raise SlackError("file_not_found")
        for file, one in zip(done, wanted, strict=True):
            file.title, file.completed, file.ready_at = str(one.get("title") or file.name), True, self.workspace.clock() + self.processing
            file.channels = [channel.id for channel in channels]
        for channel, root in zip(channels, roots, strict=True):
            text = str(args.get("initial_comment") or "")
            self.workspace.put(
                Message(channel.id, self.workspace.next_ts(), BOT, text, blocks, thread_ts=root, files=[file.id for file in done])
            )
        return {"files": [self.workspace.file_json(file) for file in done]}

    @_method("files.info", "files:read")
    async def _file(self, args: Json) -> Json:
        file = self.workspace.files.get(str(args.get("file")))
        if file is None or not file.completed:
            raise SlackError("file_not_found")
        return {"file": self.workspace.file_json(file)}

    # The rest.

    @_method("api.test", token="none")  # noqa: S106 - a kind of token, no secret
    async def _test(self, args: Json) -> Json:
        if args.get("error"):
            raise SlackError(str(args["error"]))
        return {"args": args}

    @_method("auth.test", token="any")  # noqa: S106 - a kind of token, no secret
    async def _who(self, args: Json) -> Json:
        del args
        return {
            "url": f"{self.workspace.base}/",
            "team": "local",
            "team_id": TEAM,
            "user": self.workspace.users[BOT].name,
            "user_id": BOT,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    @_method("apps.connections.open", "connections:write", token="app")  # noqa: S106 - a kind of token, no secret
    async def _connect(self, args: Json) -> Json:
        del args
        if not self.socket_mode:
            raise SlackError("forbidden_team")
        return {"url": self.new_link()}

    @_method("blocks.validate", token="none")  # noqa: S106 - a kind of token, no secret
    async def _validate(self, args: Json) -> Json:
        given = [name for name in ("blocks", "message", "view") if args.get(name)]
        if len(given) != 1:
            raise SlackError("invalid_arguments", messages=["must provide exactly one of `blocks`, `view`, or `message`"])
        value = _decoded(args[given[0]], "invalid_arguments")
        if given[0] == "view":
            wrong = limits.wrong_view(value, self.workspace.file_ready)
        else:
            wrong = limits.wrong_blocks(
                value.get("blocks") or [] if given[0] == "message" else value, "message", self.workspace.file_ready, ""
            )
        if wrong:
            told = [one.removesuffix("]").partition(" [json-pointer:") for one in wrong]
            errors = [{"code": "failed_constraint", "message": sentence, "pointer": pointer} for sentence, _, pointer in told]
            raise SlackError(f"invalid_{given[0]}", errors=errors)
        return {}


def said_by_slack(workspace: Workspace, channel: str, user: str, text: str) -> Message:
    """Slackbot's note that only one person sees: what a client shows when an app does not answer."""
    return workspace.put(Message(channel, workspace.next_ts(), SLACKBOT, text, only=user))
