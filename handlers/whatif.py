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
from slack_bolt.context.respond.async_respond import AsyncRespond
from slack_sdk.errors import SlackApiError

from bot import changes
from bot.changes import BadChange, Planned
from bot.manifests import BadSource
from handlers import say
from handlers.errors import Unanswerable, answered
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.store import Store
    from bot.sweep import Sweeper
    from templates.blocks import Message

MAX_FILE = 4 << 20  # bytes: what can be read while somebody waits
FETCH_S = 10.0  # how long Slack may take to give a file
SUBMIT_S = 2.0  # of the 3 s that Slack waits for the modal: what takes longer is answered in the channel
_PASTED = "the pasted text"
_FENCE = re.compile(r"\A```(?:[a-z]+\n)?(.*?)```\Z", re.DOTALL)


async def answer(words: str, sweeper: Sweeper) -> Message:
    """What the manifests in these words would introduce and resolve; raises Unanswerable."""
    text = words.strip()
    text = fenced[1] if (fenced := _FENCE.match(text)) else text
    if not text.strip():
        raise Unanswerable("What is to change? Type /mesh whatif in a channel, or mention me with whatif and attach the manifests.")
    return await _weighed(await _understood(text.encode(), _PASTED), sweeper)


async def of_files(files: Sequence[Mapping[str, Any]], client: AsyncWebClient, sweeper: Sweeper) -> Message:
    """What the manifests in attached files would introduce and resolve; raises Unanswerable."""
    planned = [p for file in files for p in await _understood(*await _fetched(str(file.get("id")), client))]
    return await _weighed(planned, sweeper)


async def _weighed(planned: Sequence[Planned], sweeper: Sweeper) -> Message:
    meshes = sweeper.meshes()

    def weigh() -> Message:
        aimed = changes.aim(planned, meshes)
        return messages.whatif(msgspec.to_builtins(changes.told(changes.weigh(aimed, meshes), aimed, meshes)))

    try:
        return await asyncio.to_thread(weigh)
    except BadChange as bad:
        raise Unanswerable(str(bad)) from None


async def _understood(data: bytes, shown: str, *, cluster: str = "", delete: bool = False) -> list[Planned]:
    try:
        return await asyncio.to_thread(changes.read_bytes, data, shown, cluster=cluster, delete=delete)
    except (BadChange, BadSource) as bad:
        raise Unanswerable(str(bad)) from None


async def _fetched(file_id: str, client: AsyncWebClient) -> tuple[bytes, str]:
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


async def open_modal(command: Mapping[str, Any], client: AsyncWebClient, sweeper: Sweeper) -> None:
    """Open the modal for who typed the command: at once, for Slack gives 3 s."""
    kept = json.dumps({"respond": command["response_url"], "channel": command["channel_id"]})
    names = [c.name for mesh in sweeper.meshes() for c in mesh.clusters]
    await client.views_open(trigger_id=command["trigger_id"], view=messages.whatif_modal(names, kept))


def register(app: AsyncApp, sweeper: Sweeper, store: Store) -> None:
    """Take what people put into the modal: what is wrong is shown beside the input, the answer comes into the channel."""

    @app.view(messages.WHATIF)
    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient) -> None:
        given = {block: next(iter(values.values())) for block, values in view["state"]["values"].items()}
        pasted, files = given.get(messages.PASTED, {}).get("value") or "", given.get(messages.FILE, {}).get("files") or []
        at = messages.FILE if files and not pasted.strip() else messages.PASTED
        if not files and not pasted.strip():
            await ack(response_action="errors", errors={at: "Paste the manifests here, or choose a file."})
            return
        chosen = (given.get(messages.CLUSTER, {}).get("selected_option") or {}).get("value", messages.EVERYWHERE)
        cluster = "" if chosen == messages.EVERYWHERE else chosen
        delete = bool(given.get(messages.DELETE, {}).get("selected_options"))

        async def read() -> list[Planned]:
            found = await _understood(pasted.encode(), _PASTED, cluster=cluster, delete=delete) if pasted.strip() else []
            for file in files:
                data, name = await _fetched(str(file.get("id")), client)
                found += await _understood(data, name, cluster=cluster, delete=delete)
            meshes = sweeper.meshes()
            await asyncio.to_thread(changes.aim, found, meshes)  # what cannot be aimed is said where it can be mended
            return found

        reading = asyncio.ensure_future(read())
        await asyncio.wait({reading}, timeout=SUBMIT_S)
        if reading.done() and isinstance(wrong := reading.exception(), Unanswerable | BadChange):
            await ack(response_action="errors", errors={at: str(wrong)})
            return
        await ack()

        async def weighed() -> Message:
            try:
                planned = await reading
            except BadChange as bad:
                raise Unanswerable(str(bad)) from None
            return await _weighed(planned, sweeper)

        if await store.once(f"view:{view['id']}:{view['hash']}"):
            await _tell(await say.shareable(await answered(weighed()), store), view["private_metadata"], body["user"]["id"], client)


async def _tell(message: Message, kept: str, user: str, client: AsyncWebClient) -> None:
    """Say it to the one person in the channel where the modal was opened; where that is too long ago, in the channel of the two of us."""
    where = json.loads(kept)
    respond = AsyncRespond(response_url=where["respond"], proxy=client.proxy, ssl=client.ssl)
    if await say.whisper(message, respond):
        return
    with suppress(SlackApiError):
        await client.chat_postEphemeral(channel=where["channel"], user=user, text=message.text, blocks=list(message.blocks))
        return
    await say.aloud(message, client, user, None)
