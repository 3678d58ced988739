"""A local Slack workspace for tests, with the real slack_sdk and slack_bolt on the other side."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.demo.slack import LocalSlack
from bot.demo.workspace import MANIFEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

_SCOPES = (
    "app_mentions:read channels:history channels:join channels:manage channels:read chat:write chat:write.public commands files:read files:write groups:history groups:read "
    "im:history im:read im:write reactions:write usergroups:read users:read"
)
#: An app that may do everything that the workspace can check.
EVERYTHING: Mapping[str, Any] = {
    "features": {
        "app_home": {"home_tab_enabled": True},
        "slash_commands": MANIFEST["features"]["slash_commands"],
        "shortcuts": [{"name": "Explain this error", "type": "message", "callback_id": "explain", "description": "Finds the host"}],
    },
    "oauth_config": {"scopes": {"bot": _SCOPES.split()}},
    "settings": {"event_subscriptions": {"bot_events": ["app_mention", "message.im", "app_home_opened"]}},
}


class Clock:
    """A clock that stands until somebody moves it."""

    def __init__(self, now: float = 1_760_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(**how: Any) -> AsyncIterator[LocalSlack]:
    """A workspace on a free loopback port, whose app may do everything."""
    slack = LocalSlack(**{"manifest": EVERYTHING, **how})
    slack.delivery.ack_seconds = 1.0
    await slack.start()
    try:
        yield slack
    finally:
        await slack.stop()


def web(slack: LocalSlack, token: str | None = None) -> AsyncWebClient:
    """The SDK's client as the bot uses it; nothing is tried again behind the test's back."""
    return AsyncWebClient(token=token or slack.bot_token, base_url=slack.base_url, retry_handlers=[])


def app_of(slack: LocalSlack) -> AsyncApp:
    """A Bolt app without handlers."""
    return AsyncApp(client=web(slack), signing_secret=slack.signing_secret)


@asynccontextmanager
async def connected(slack: LocalSlack, app: AsyncApp, *, ping: float = 10) -> AsyncIterator[AsyncSocketModeHandler]:
    """This app, connected by Socket Mode."""
    handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=ping)
    before = len(slack.delivery.connections)
    await handler.connect_async()
    await slack.until(lambda: len(slack.delivery.connections) > before)
    try:
        yield handler
    finally:
        await handler.close_async()


async def refused(call: Awaitable[Any]) -> dict[str, Any]:
    """The body of Slack's refusal of a call; AssertionError when Slack accepts it."""

    try:
        await call
    except SlackApiError as error:
        return {**error.response.data, "status": error.response.status_code, "headers": error.response.headers}
    raise AssertionError("Slack accepted the call")
