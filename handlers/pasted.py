"""The message shortcut "Explain this error", and the same by words: what an error that somebody pasted means, and the diagnosis of the host that it names."""

from __future__ import annotations

import asyncio
import html
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from slack_sdk.errors import SlackApiError

from bot import access
from checks import diagnosis
from checks.diagnosis import UnknownHost
from checks.mesh import Unreadable
from checks.pasted import Pasted, read
from checks.resources import Service
from handlers import runbook, say
from handlers.door import About, Visit
from handlers.errors import Unanswerable
from handlers.whatif import fetched
from handlers.why import links
from templates import messages, pasted
from templates.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond
    from slack_sdk.web.async_client import AsyncWebClient

    from bot.sweep import Sweeper
    from checks.mesh import Mesh
    from handlers.door import Door, Sees
    from handlers.say import Asked
    from templates.blocks import Message

_LINK = re.compile(r"<(https?://[^<>|]*)(?:\|[^<>]*)?>")
_MARK = re.compile(r"<[@!#][^<>]*>")
_FILES = 3  # snippets of one message that are read
_PLAIN = 200_000  # bytes of a snippet


class _Named(NamedTuple):
    """Of the hosts that a text names those that are known, and how each was found or why not; `port` if it names one that the host has."""

    hosts: tuple[str, ...]
    note: str = ""
    port: int | None = None


async def answer(asked: Asked) -> Message:
    """What a text means; raises Unanswerable when it names nothing."""
    return await _explained(asked.words, asked.sweeper, asked.sees)


async def about(asked: Asked) -> About:
    """The host that a text names."""
    return await _about(asked.words, asked.sweeper.meshes())


async def _about(text: str, meshes: Sequence[Mesh]) -> About:
    hosts = (await asyncio.to_thread(_named, read(text), meshes)).hosts
    return About((access.of_host(hosts[0], meshes),), hosts) if len(hosts) == 1 else About()


async def _explained(text: str, sweeper: Sweeper, sees: Sees) -> Message:
    return await asyncio.to_thread(_told, read(text), sweeper, sees)


def _told(found: Pasted, sweeper: Sweeper, sees: Sees) -> Message:
    meshes = sweeper.meshes()
    named = _named(found, meshes)
    if not named.hosts and not named.note and not found.says:
        raise Unanswerable(pasted.unread())
    told = None
    note = named.note
    if len(named.hosts) == 1:
        told = msgspec.to_builtins(diagnosis.why(f"{named.hosts[0]}:{named.port}" if named.port else named.hosts[0], meshes))
    elif named.hosts:
        shown = [h for h in named.hosts if sees(access.of_host(h, meshes))]
        note = pasted.several(shown) if shown else ""
    return pasted.explained(msgspec.to_builtins(found), told, note, links(told, sweeper) if told is not None else ())


def _named(found: Pasted, meshes: Sequence[Mesh]) -> _Named:
    """The hosts that it names, as the meshes know them."""
    if found.host:
        try:
            host = diagnosis.resolve(found.host, meshes)[0][0]
        except UnknownHost as unknown:
            if unknown.ambiguous:
                return _Named(unknown.candidates)
            if not (hosts := _by_address(found.address, meshes)):
                return _Named((), did_you_mean(found.host, (), ambiguous=False))
            return _Named(hosts, pasted.by_address(found.address, hosts[0]))
        if found.port is None or found.port in diagnosis.ports(host, meshes):
            return _Named((host,), "", found.port)
        return _Named((host,), pasted.no_port(host, found.port))
    if hosts := _by_address(found.address, meshes):
        return _Named(hosts, pasted.by_address(found.address, hosts[0]))
    for dotted in (True, False):
        known: dict[str, None] = {}
        for word in (w for w in found.words if ("." in w) is dotted):
            with suppress(UnknownHost):
                known[diagnosis.resolve(word, meshes)[0][0]] = None
        if known:
            return _Named(tuple(known), pasted.by_words(next(iter(known))) if len(known) == 1 else "")
    return _Named(())


def _by_address(address: str, meshes: Sequence[Mesh]) -> tuple[str, ...]:
    """The hosts of the Services with an address (`10.96.0.7:80`); those of a cluster count there alone, so several may have it."""
    ip = address.rpartition(":")[0].strip("[]")
    if not ip:
        return ()
    hosts: dict[str, None] = {}
    for cluster in (c for mesh in meshes for c in mesh.clusters):
        with suppress(Unreadable):
            for service in cluster.all(Service):
                if ip in (*service.spec.cluster_ips, service.spec.cluster_ip):
                    with suppress(UnknownHost):
                        hosts[diagnosis.resolve(f"{service.metadata.name}.{service.metadata.namespace}", meshes)[0][0]] = None
    return tuple(hosts)


# --- messages ----------------------------------------------------------------------------------------------------------------


def written(message: Mapping[str, Any]) -> str:
    """What stands in a message: its text and its attachments', links and entities as they were typed, mentions gone."""
    parts = [str(message.get("text") or "")]
    for attachment in message.get("attachments") or ():
        parts += [str(attachment.get(key) or "") for key in ("pretext", "title", "text", "fallback")]
        parts += [f"{f.get('title', '')}: {f.get('value', '')}" for f in attachment.get("fields") or ()]
    return html.unescape(_MARK.sub(" ", _LINK.sub(r"\1", "\n".join(p for p in parts if p))))


async def _with_files(message: Mapping[str, Any], client: AsyncWebClient) -> str:
    """What stands in a message and in its snippets; one that Slack does not give is left out."""
    parts = [written(message)]
    for file in (message.get("files") or ())[:_FILES]:
        if str(file.get("mimetype") or "text/plain").startswith(("text/", "application/json")):
            with suppress(Unanswerable):
                content, _ = await fetched(str(file.get("id")), client)
                parts.append(content[:_PLAIN].decode("utf-8", "replace"))
    return "\n".join(p for p in parts if p.strip())


async def root_of(channel: str, thread: str, client: AsyncWebClient) -> str:
    """What stands in the message that a thread hangs from; empty where Slack does not say."""
    with suppress(SlackApiError):
        found: Any = (await client.conversations_replies(channel=channel, ts=thread, limit=1)).get("messages") or ()
        return await _with_files(found[0], client) if found else ""
    return ""


def register(app: AsyncApp, door: Door) -> None:
    """Explain a message in its thread."""

    @app.shortcut(pasted.EXPLAIN_THIS)
    async def explained(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        message, visit = body["message"], Visit.shortcut(body, context)
        text = live = ""

        async def about(_: Sees) -> About:
            nonlocal text, live
            text = await _with_files(message, door.client)
            found = await _about(text, door.sweeper.meshes())
            live = next(iter(found.names), "")
            return found

        told = await door.enter(visit, "explain", about, lambda sees: _explained(text, door.sweeper, sees))
        if told is None or told.message is None:
            return
        if told.alone or told.result != "done":  # what nothing was found in concerns nobody else
            await say.whisper(told.message, respond)
            return
        try:
            await say.aloud(told.message, door.client, visit.channel, visit.thread)
            await runbook.follow(
                told._replace(live=live), door, lambda message: say.aloud(message, door.client, visit.channel, visit.thread)
            )
        except SlackApiError as refused:
            why = refused.response.get("error")
            await say.whisper(told.message, respond)
            await say.whisper(
                messages.error(f"Only you see this: I cannot write in this channel ({why}). /invite me, and I answer in the thread."),
                respond,
            )
