"""The button Patch as a file: what a finding suggests, tried anew, as a file for a pull request in the alert's thread."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from slack_sdk.errors import SlackApiError

from bot.tell import PATCH
from checks import diagnosis, patches
from handlers import say
from handlers.ack import of_message, spoken
from handlers.door import Visit
from handlers.errors import Unanswerable
from templates import messages, snippet
from templates.words import short

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond

    from checks.finding import Finding
    from handlers.door import Door, Sees
    from templates.blocks import Message


async def _tried(message: str, door: Door) -> Finding:
    """The finding of an alert's message with its patch, as the clusters are now; raises Unanswerable where it is not suggested any more."""
    members = await spoken(message, door.store, "nothing needs to be mended")
    lead = max(members, key=lambda a: (a.finding.failing_share, a.id)).finding
    found = await asyncio.to_thread(diagnosis.why, lead.host, door.sweeper.meshes())
    fits = [f for f in found.findings if f.patch and (f.cause, f.cluster, f.resource) == (lead.cause, lead.cluster, lead.resource)]
    if not fits:
        raise Unanswerable(f"As the clusters are now, no patch that was tried mends {short(lead.host)}.")
    return fits[0]


def register(app: AsyncApp, door: Door) -> None:
    """Put the file into the thread of the alert, for everybody who reads it."""

    @app.action(PATCH)
    async def patch(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, context: AsyncBoltContext) -> None:
        await ack()
        visit, message, at = Visit.click(body, context), body["actions"][0]["value"], body["container"]

        async def written(_: Sees) -> Message:
            finding = await _tried(message, door)
            changed = patches.commanded(finding.patch or "")
            kind = changed.kind
            target = {
                "group": kind.group if kind is not None else "",
                "version": "",  # kustomize finds it by the rest, whatever version the repository has
                "kind": kind.kind if kind is not None else "",
                "namespace": changed.namespace,
                "name": changed.name,
            }
            tried = f"at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
            text = snippet.kustomize(msgspec.to_builtins(finding), target, changed.operations, tried)
            try:
                await door.client.files_upload_v2(
                    content=text,
                    filename=f"{changed.name}.patch.yaml",
                    title=f"Mends {short(finding.host)}"[:200],
                    channel=visit.channel,
                    thread_ts=visit.thread or at["message_ts"],
                )
            except SlackApiError as refused:
                raise Unanswerable(f"Slack did not take the file ({refused.response.get('error')}).") from None
            return messages.done("The patch is in the thread, as a kustomize component; nobody has applied it.")

        await say.told(await door.enter(visit, "patch", lambda _: of_message(message, door.store), written), respond)
