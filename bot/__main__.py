"""The composition root: the one module that knows every room. `main` is the console script; `serve` is the bot made of all its parts.

What must stay true: whoever cancels `serve` finds everything closed that it started; a part that fails ends the others, and is said; no secret
is in a log line. The bot's parts are imported where they are put together: a question about a file need not load Slack.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from bot import commands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, MutableMapping, Sequence
    from pathlib import Path

    from pydantic import SecretStr
    from slack_bolt.app.async_app import AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    import handlers
    from bot.clusters import Clusters
    from bot.health import Pulse
    from bot.lease import Lease
    from bot.outbox import Outbox
    from bot.pager import Desk
    from bot.probes import Probe
    from bot.settings import Access, Settings, Slack
    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh

_STALE_S = 90.0  # a watch that is well says something every 45 s
_PING_S = 10  # Slack's connection counts as broken after four of these without an answer


def main() -> None:
    """The console script `meshwhy`."""
    # One question makes millions of small objects that live until its answer; looking for garbage among them doubles the time.
    gc.disable()
    sys.exit(commands.answer(sys.argv[1:], serve))


async def serve(settings: Settings, path: Path | None = None) -> None:
    """Run the bot until cancelled, with what its settings file says later if that is given. Raises what `_serve` does for the first settings."""
    if path is None:
        await _serve(settings, lambda _: None)
        return

    from bot.reload import Keeper, Watched

    watched = Watched(path, os.environ)
    with watched.signalled():
        await Keeper(_serve, watched).run(settings)


class _Bot:
    """What of a running bot goes by settings that can change."""

    def __init__(
        self,
        settings: Settings,
        sweeper: Sweeper,
        outbox: Outbox,
        desk: Desk,
        admit: Callable[[Access | None, Iterable[str]], None],
        store: Store,
        clusters: Clusters,
    ) -> None:
        self._settings = settings
        self._clusters = clusters
        self._sweeper = sweeper
        self._outbox = outbox
        self._desk = desk
        self._admit = admit
        self._store = store

    def heed(self, settings: Settings) -> None:
        """Go by these settings from now on."""
        before, self._settings = self._settings, settings
        self._sweeper.heed(settings.alerts)
        self._outbox.heed(settings.alerts.default_channel, settings.alerts.admin_channel)
        self._desk.heed(settings.alerts.pagers)
        self._clusters.heed({c.name: c.prometheus for c in settings.clusters})
        if (settings.access, settings.slack.teams) != (before.access, before.slack.teams):
            self._admit(settings.access, settings.slack.teams)

    async def report(self, ident: str, sentence: str) -> None:
        """Tell it in the channel of those who run the bot, if there is one, once of several bots."""
        import time

        from redis.exceptions import RedisError

        from bot import tell

        channel = self._settings.alerts.admin_channel
        with suppress(RedisError, OSError):
            if channel is not None and await self._store.once(f"notice:{ident}:{sentence}"):
                await self._store.commit({}, [tell.notice(ident, sentence, channel)], now=time.time())


async def _serve(settings: Settings, begun: Callable[[_Bot], None]) -> None:
    """Run the bot until cancelled. Raises NoState, NewerSchema, RedisError, and OSError when its port is taken."""
    import asyncio
    from contextlib import AsyncExitStack

    from slack_bolt.app.async_app import AsyncApp
    from slack_sdk.web.async_client import AsyncWebClient

    import handlers
    from bot import alertmanagers, health, metrics
    from bot.clusters import Clusters, ClusterSource
    from bot.deadman import Deadman
    from bot.incidents import Incidents
    from bot.lease import Lease
    from bot.outbox import Outbox
    from bot.pager import Desk
    from bot.postmortem import Clerk
    from bot.runbook import Runner
    from bot.sweep import Sweeper

    gc.enable()
    async with AsyncExitStack() as stack:
        stack.enter_context(_json_log(settings))
        store = await stack.enter_async_context(_open(settings))
        clusters = Clusters([ClusterSource.registered(c) for c in settings.clusters])
        looks = {c.name: c.links.model_dump(exclude_none=True) for c in settings.clusters if c.links is not None}
        sweeper = Sweeper(clusters, store, settings.alerts, looks)
        slack = AsyncWebClient(token=_value(settings.slack.bot_token), base_url=settings.slack.base_url, retry_handlers=[])
        app = AsyncApp(client=slack, signing_secret=_value(settings.slack.signing_secret), raise_error_for_unhandled_request=True)
        door = handlers.register(app, sweeper, store, settings.access, settings.slack.teams, _probing(settings, clusters))
        lease = Lease(store, settings.redis.lease_s)
        sharing = _sharing(settings, app, door, clusters, lease)
        connected = await stack.enter_async_context(_listening(app, settings.slack))
        outbox = Outbox(store, slack, settings.alerts.default_channel, admin_channel=settings.alerts.admin_channel, held=lease.held)
        desk = Desk(store, settings.alerts.pagers, held=lease.held)
        relay = alertmanagers.Relay(store, settings.alertmanager.send, slack, held=lease.held)
        receive = settings.alertmanager.receive
        parts: dict[str, _Part] = {
            "the sweep": sweeper,
            "the outbox": outbox,
            "the pagers": desk,
            "the relay": relay,
            "the incidents": Incidents(store, slack, held=lease.held),
            "the clerk": Clerk(store, slack, held=lease.held),
        }
        if settings.redis.divided:  # each runs those of what it looks at
            sharing.append(Runner(store.unfenced(), sweeper, door.probing).run)
        else:
            parts["the runbooks"] = Runner(store, sweeper, door.probing, held=lease.held)
        if settings.health.port is not None:
            await stack.enter_async_context(
                health.listening(
                    settings.health.port,
                    lambda: {name: part.pulse for name, part in parts.items()} if lease.leading else {},
                    lambda: _unready(clusters, store, connected),
                    lambda: metrics.page(store, clusters.followed, clusters.watches, leading=lease.leading),
                    [alertmanagers.receiver(receive, store, clusters, sweeper.meshes)] if receive is not None else (),
                )
            )

        begun(_Bot(settings, sweeper, outbox, desk, door.heed, store, clusters))
        async with asyncio.TaskGroup() as group:
            group.create_task(clusters.run())
            group.create_task(lease.run(lambda: _lead(store, slack, parts.values())))
            for part in (sweeper.history.run, *sharing):
                group.create_task(part())
            group.create_task(Deadman(slack, store=store, lease=lease, sweeper=sweeper, clusters=clusters, outbox=outbox).run())


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[Store]:
    """The store of the settings, or an embedded one. Raises NoState, NewerSchema, RedisError."""
    from contextlib import AsyncExitStack

    from bot.store import Store
    from bot.valkey import embedded

    async with AsyncExitStack() as stack:
        if settings.redis.url is None:
            url = await stack.enter_async_context(embedded(settings.state_dir.absolute() / "valkey"))
        else:
            url = settings.redis.url.get_secret_value()
        store = Store(url)
        stack.push_async_callback(store.close)
        await store.open()
        if settings.redis.url is None:
            await store.clear_lease()  # our own server: who had it is gone
        yield store


def _probing(settings: Settings, clusters: Clusters) -> Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]]:
    """What of running parts can be asked about a host, as far as the settings allow."""
    from bot.probes import asking, given

    ask = asking.probing(asking.registered(clusters))
    return lambda diagnosis, meshes: [*given.probes(settings.clusters, diagnosis), *ask(diagnosis, meshes)]


def _sharing(
    settings: Settings, app: AsyncApp, door: handlers.Door, clusters: Clusters, lease: Lease
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """What runs beside the rest when several bots share the clusters."""
    import handlers
    from bot.shares import Shares

    if not settings.redis.divided:
        return []
    meshes: dict[str, list[str]] = {}
    for cluster in settings.clusters:
        meshes.setdefault(cluster.mesh, []).append(cluster.name)
    shares = Shares(door.store, clusters, door.sweeper, lease, meshes)
    return [shares.run, handlers.hand_on(app, door, shares, lease)]


class _Part(Protocol):
    """What one of several bots does, the one that leads."""

    pulse: Pulse

    async def run(self) -> None:
        """Until cancelled."""


async def _lead(store: Store, slack: AsyncWebClient, parts: Collection[_Part]) -> None:
    """Keep the alerts, and tell of them, until cancelled."""
    import asyncio

    from bot import recall

    def beat() -> None:
        for part in parts:
            part.pulse.beat()

    await recall.remember(store, slack, beat)
    beat()
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part.run())


@asynccontextmanager
async def _listening(app: AsyncApp, slack: Slack) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Taking what people do in Slack, over Socket Mode or by HTTP; yields how to ask whether Slack can reach us. Raises OSError when the port is taken."""
    import asyncio

    if slack.mode == "http":
        from aiohttp import web

        runner = web.AppRunner(app.web_app("/slack/events"), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "0.0.0.0", slack.port).start()
            yield _always
        finally:
            await runner.cleanup()
        return

    from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler

    handler: Any = AsyncSocketModeHandler(app, _value(slack.app_token), ping_interval=_PING_S)  # its methods have no types
    # Tries until Slack lets it in, however long that takes; afterwards it mends its connection by itself.
    connecting = asyncio.create_task(handler.connect_async())
    try:
        yield handler.client.is_connected
    finally:
        connecting.cancel()
        await handler.close_async()


async def _always() -> bool:
    return True


async def _unready(clusters: Clusters, store: Store, connected: Callable[[], Awaitable[bool]]) -> list[str]:
    """A sentence for each thing without which the bot cannot do its work.

    A cluster that this process never reached is not one: a new pod must be able to take over from an old one that does not reach it either.
    """
    import time

    from redis.exceptions import RedisError

    wrong = [f"cluster {name} has not been read yet" for name in clusters.unsettled()]
    now, stale = time.time(), dict[str, list[tuple[str, float]]]()
    for watch in clusters.watches():
        if now - watch.alive_at > _STALE_S:
            stale.setdefault(watch.cluster, []).append((watch.kind, now - watch.alive_at))
    for cluster, kinds in stale.items():
        names = "" if kinds[0][0] == "*" else f": {', '.join(k for k, _ in kinds[:3])}{f' and {len(kinds) - 3} more' * (len(kinds) > 3)}"
        wrong.append(f"cluster {cluster} has given no sign of life for {max(age for _, age in kinds):.0f} s{names}")
    try:
        await store.ping()
    except (RedisError, OSError) as error:
        wrong.append(f"the store does not answer: {type(error).__name__}")
    if not await connected():
        wrong.append("Slack is not connected")
    return wrong


def _value(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@contextmanager
def _json_log(settings: Settings) -> Iterator[None]:
    """Every log line of this process as JSON on stderr, with secrets blanked out wherever a library may have put them."""
    import structlog

    pagers = settings.alerts.pagers.values()
    known = [settings.slack.bot_token, settings.slack.app_token, settings.slack.signing_secret, settings.redis.url]
    known += [to.token for to in settings.alertmanager.send]
    known += [settings.alertmanager.receive.token] if settings.alertmanager.receive is not None else []
    known += (secret for pager in pagers for secret in (pager.key, pager.secret))
    known += (secret for c in settings.clusters if c.prometheus is not None for secret in c.prometheus.secrets)
    secrets = [re.escape(value) for value in map(_value, known) if value]
    # Tokens; passwords in URLs; whoever has the ticket of a connection, or a response URL, may use it as the app may.
    secret = re.compile(
        "|".join(
            [
                *secrets,
                r"\bx(?:ox[a-z]|app)-[\w-]+",
                r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)",
                r"(?<=[?&]ticket=)[^&\s'\"]+",
                r"(?<=hooks\.slack\.com/)[\w/.-]+",
                r"(?<=[Bb]earer )[\w.~+/=-]+",
            ]
        )
    )

    def blank(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: secret.sub("•••", value) if isinstance(value, str) else value for key, value in line.items()}

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=["audit"]),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            blank,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


if __name__ == "__main__":
    main()
