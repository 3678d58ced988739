"""`whatif`: a change that is pasted or attached is weighed, in a modal or by the words of a mention."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from msgspec.structs import replace
from slack_bolt.context.respond.async_respond import AsyncRespond
from slack_sdk.errors import SlackApiError

from bot import access, changes
from bot.changes import BadChange, Planned
from bot.manifests import BadSource
from handlers import say
from handlers.door import About, Visit
from handlers.errors import Denied, Stranger, Unanswerable
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.sweep import Sweeper
    from checks.finding import Finding
    from handlers.door import Door, Sees
    from handlers.errors import Told
    from handlers.say import Asked
    from templates.blocks import Message

MAX_FILE = 4 << 20  # bytes: what can be read while somebody waits
FETCH_S = 10.0  # how long Slack may take to give a file
SUBMIT_S = 2.0  # of the 3 s that Slack waits for the modal: what takes longer is answered in the channel
_PASTED = "the pasted text"
_FENCE = re.compile(r"\A```(?:[a-z]+\n)?(.*?)```\Z", re.DOTALL)


async def answer(asked: Asked) -> Message:
    """What the manifests in these words would introduce and resolve; raises Unanswerable."""
    return await _weighed(await _of_words(asked.words), asked.sweeper, asked.sees)


async def about(asked: Asked) -> About:
    """The objects in these words; raises Unanswerable."""
    return _about(await _of_words(asked.words), asked.sweeper)


async def _of_words(words: str) -> list[Planned]:
    text = words.strip()
    text = fenced[1] if (fenced := _FENCE.match(text)) else text
    if not text.strip():
        raise Unanswerable("What is to change? Type /mesh whatif in a channel, or mention me with whatif and attach the manifests.")
    return await _understood(text.encode(), _PASTED)


async def of_files(visit: Visit, files: Sequence[Mapping[str, Any]], door: Door) -> Told | None:
    """What the manifests in attached files would introduce and resolve."""
    planned: list[Planned] = []

    async def read(_: Sees) -> About:
        for file in files:
            planned.extend(await _understood(*await fetched(str(file.get("id")), door.client)))
        return _about(planned, door.sweeper)

    return await door.enter(visit, "whatif", read, lambda sees: _weighed(planned, door.sweeper, sees))


def _about(planned: Sequence[Planned], sweeper: Sweeper) -> About:
    """Where changes would land: with their namespaces, in the cluster that was named or in any."""
    clusters = [c.name for mesh in sweeper.meshes() for c in mesh.clusters]
    places = (frozenset((c, p.change.namespace) for c in ([p.change.cluster] if p.change.cluster else clusters)) for p in planned)
    return About(tuple(dict.fromkeys(places)), tuple(dict.fromkeys(p.ref for p in planned))[:20])


async def _weighed(planned: Sequence[Planned], sweeper: Sweeper, sees: Sees) -> Message:
    meshes = sweeper.meshes()

    def weigh() -> Message:
        aimed = changes.aim(planned, meshes)
        found = changes.weigh(aimed, meshes)
        kept = replace(found, introduced=_seen(found.introduced, sees), resolved=_seen(found.resolved, sees))
        left_out = len(found.introduced) + len(found.resolved) - len(kept.introduced) - len(kept.resolved)
        return messages.whatif(msgspec.to_builtins(changes.told(kept, aimed, meshes)), left_out=left_out)

    try:
        return await asyncio.to_thread(weigh)
    except BadChange as bad:
        raise Unanswerable(str(bad)) from None


def _seen(findings: Iterable[Finding], sees: Sees) -> tuple[Finding, ...]:
    return tuple(f for f in findings if sees(access.of_finding(f)))


async def _understood(data: bytes, shown: str, *, cluster: str = "", delete: bool = False) -> list[Planned]:
    try:
        return await asyncio.to_thread(changes.read_bytes, data, shown, cluster=cluster, delete=delete)
    except (BadChange, BadSource) as bad:
        raise Unanswerable(str(bad)) from None


async def fetched(file_id: str, client: AsyncWebClient) -> tuple[bytes, str]:
    """A file's content and name. Slack is asked where it is: what a payload says is no address to send the token to."""
    try:
        file = (await client.files_info(file=file_id))["file"]
    except SlackApiError as refused:
        raise Unanswerable(f"Slack does not give me the file ({refused.response.get('error')}).") from None
    name, url = str(file.get("name") or "the file"), str(file.get("url_private_download") or file.get("url_private") or "")
    if int(file.get("size") or 0) > MAX_FILE:
        raise Unanswerable(f"{name} is larger than {MAX_FILE >> 20} MiB; meshwhy whatif on the command line takes it.")
    host = urlsplit(url).hostname or ""
    if host != urlsplit(client.base_url).hostname and not host.endswith(".slack.com"):
        raise Unanswerable(f"{name} is not kept by Slack, so I do not fetch it.")
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=FETCH_S), trust_env=client.trust_env_in_session) as session,
            session.get(url, headers={"Authorization": f"Bearer {client.token}"}, ssl=client.ssl or True, proxy=client.proxy) as got,
        ):
            data = await got.content.read(MAX_FILE + 1) if got.status == 200 else b""
            while got.status == 200 and len(data) <= MAX_FILE and (more := await got.content.read(MAX_FILE)):
                data += more
    except (ClientError, TimeoutError):
        raise Unanswerable(f"{name} could not be fetched from Slack; try again.") from None
    # Without permission Slack answers with its page for logging in.
    if not data or "text/html" in got.headers.get("Content-Type", ""):
        raise Unanswerable(f"{name} could not be fetched from Slack (status {got.status}).")
    return data[: MAX_FILE + 1], name


async def open_modal(command: Mapping[str, Any], door: Door) -> None:
    """Open the dialog for who typed the command: at once, for Slack gives 3 s. Raises Unanswerable."""
    kept = json.dumps({"respond": command["response_url"], "channel": command["channel_id"]})
    names = [c.name for mesh in door.sweeper.meshes() for c in mesh.clusters]
    try:
        await door.client.views_open(trigger_id=command["trigger_id"], view=messages.whatif_modal(names, kept))
    except SlackApiError as refused:
        # A trigger opens one modal: the same command told twice has opened it already.
        if (why := refused.response.get("error")) != "exchanged_trigger_id":
            raise Unanswerable(f"Slack did not let me open the dialog ({why}); try again.") from None


def register(app: AsyncApp, door: Door) -> None:
    """Take what people put into the dialog: what is wrong is shown beside the input, the answer comes into the channel."""

    @app.view(messages.WHATIF)
    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], context: AsyncBoltContext) -> None:
        given = {block: next(iter(values.values())) for block, values in view["state"]["values"].items()}
        pasted, files = given.get(messages.PASTED, {}).get("value") or "", given.get(messages.FILE, {}).get("files") or []
        at = messages.FILE if files and not pasted.strip() else messages.PASTED
        if not files and not pasted.strip():
            await ack(response_action="errors", errors={at: "Paste the manifests here, or choose a file."})
            return
        chosen = (given.get(messages.CLUSTER, {}).get("selected_option") or {}).get("value", messages.EVERYWHERE)
        cluster = "" if chosen == messages.EVERYWHERE else chosen
        delete = bool(given.get(messages.DELETE, {}).get("selected_options"))
        where = json.loads(view["private_metadata"])
        visit = Visit.dialog(body, context, where["channel"])

        async def read() -> list[Planned]:
            found = await _understood(pasted.encode(), _PASTED, cluster=cluster, delete=delete) if pasted.strip() else []
            for file in files:
                data, name = await fetched(str(file.get("id")), door.client)
                found += await _understood(data, name, cluster=cluster, delete=delete)
            return found

        async def aimed() -> None:
            """What cannot be aimed is said where it can be mended, to whom may know what is there."""
            planned = await reading
            with suppress(Denied, Stranger):  # they are told so at the door
                await door.admit(visit, "whatif", of_planned)
                await asyncio.to_thread(changes.aim, planned, door.sweeper.meshes())

        async def of_planned(_: Sees) -> About:
            return _about(await reading, door.sweeper)

        async def weighed(sees: Sees) -> Message:
            return await say.shareable(await _weighed(await reading, door.sweeper, sees), door.store)

        reading = asyncio.ensure_future(read())
        aiming = asyncio.ensure_future(aimed())
        await asyncio.wait({aiming}, timeout=SUBMIT_S)
        if aiming.done() and isinstance(wrong := aiming.exception(), Unanswerable | BadChange):
            await ack(response_action="errors", errors={at: str(wrong)})
            return
        await ack()
        told = await door.enter(visit, "whatif", of_planned, weighed)
        await asyncio.wait({aiming})  # what went wrong with it was said by now
        if told is not None and told.message is not None:
            await _tell(told.message, where, visit.user, door.client)


async def _tell(message: Message, where: Mapping[str, str], user: str, client: AsyncWebClient) -> None:
    """Say it to the one person in the channel where the dialog was opened; where that is too long ago, in the channel of the two of us."""
    respond = AsyncRespond(response_url=where["respond"], proxy=client.proxy, ssl=client.ssl)
    if await say.whisper(message, respond):
        return
    with suppress(SlackApiError):
        await client.chat_postEphemeral(channel=where["channel"], user=user, text=message.text, blocks=list(message.blocks))
        return
    await say.aloud(message, client, user, None)
