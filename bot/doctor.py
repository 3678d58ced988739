"""What meshwhy needs from the world around it, tried one by one: Slack's tokens, scopes and channels, Redis, and every cluster.

What must stay true: looking changes nothing (a token opens a Socket Mode address that nobody dials; a cluster is asked for one object of each
kind, and for a watch that is closed at once), every look is bounded in time, one that hangs delays no other, and no secret stands in a row.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict
from urllib.parse import urlsplit

import aiohttp
import msgspec
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError, NoPermissionError, RedisError  # noqa: A004 - redis-py's own
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot import manifests
from bot.access import EVERYONE, named
from bot.clusters import ClusterSource, server
from bot.informers import NoAccess, Pace, Refused, why
from bot.members import Members, Unread
from bot.pager import OPSGENIE, PAGERDUTY
from bot.probes import pods, portforward, prometheus
from bot.probes.admin import NotRead
from bot.routing import on_call, places
from bot.valkey import NoState, embedded
from checks.planes import planes
from checks.resources import KIND_OF, KINDS, ConfigMap, Deployment, Kind, Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from bot.informers import Server
    from bot.settings import Access, Prometheus, RegisteredCluster, Settings

SLACK_S = 15.0
REDIS_S = 10.0
ANSWER_S = 10.0  # one answer of an API server
CLUSTER_S = 40.0
STATE_S = 70.0  # an embedded Valkey may have to read a large append-only file first

SCOPES = {
    "app_mentions:read": "nobody can ask by @mention",
    "channels:history": "a message whose answer was lost may be posted twice in public channels",
    "channels:manage": "an incident gets no channel of its own",
    "channels:read": "public channels cannot be found by name",
    "chat:write": "nothing can be posted",
    "commands": "/mesh does not exist",
    "files:read": "whatif cannot take files",
    "files:write": "alerts have no pictures",
    "groups:history": "a message whose answer was lost may be posted twice in private channels",
    "groups:read": "private channels cannot be found by name",
    "im:history": "nobody can ask in a direct message",
    "usergroups:read": "nobody is known to be in a user group",
}
"""Every scope that manifest.yaml asks for, and what does not work without it."""


class Row(TypedDict):
    """One thing that was looked at; `mend` says what to do about it."""

    what: str
    state: Literal["ok", "bad", "skipped"]
    text: str
    mend: str


def _ok(what: str, text: str) -> Row:
    return Row(what=what, state="ok", text=text, mend="")


def _bad(what: str, text: str, mend: str) -> Row:
    return Row(what=what, state="bad", text=text, mend=mend)


def _skipped(what: str, text: str, mend: str = "") -> Row:
    return Row(what=what, state="skipped", text=text, mend=mend)


async def examine(settings: Settings) -> list[Row]:
    """Everything that these settings need, in the order of the settings file; what hangs is a bad row after its time."""
    looks: list[Awaitable[list[Row]]] = [
        _slack(settings),
        _state(settings),
        *map(_cluster, settings.clusters),
        _others(settings),
    ]
    return [row for rows in await asyncio.gather(*looks) for row in rows]


# --- Slack -------------------------------------------------------------------------------------------------------------------

_REINSTALL = "Slack's app page, OAuth & Permissions: add the scope (or paste manifest.yaml under App Manifest), then reinstall the app."
_BOT_TOKEN = "Take the Bot User OAuth Token (xoxb-…) from Slack's app page, OAuth & Permissions."  # noqa: S105 - a sentence
_APP_TOKEN = "Make one on Slack's app page, Basic Information, App-Level Tokens, with the scope connections:write."  # noqa: S105 - a sentence


async def _slack(settings: Settings) -> list[Row]:
    """The tokens, the bot's scopes, and every channel that alerts go to."""
    slack = settings.slack
    client = AsyncWebClient(token=slack.bot_token.get_secret_value(), base_url=slack.base_url, timeout=round(SLACK_S))
    rows: list[Row] = []
    if slack.mode == "socket" and slack.app_token is not None:
        rows.append(await _app_token(client, slack.app_token.get_secret_value()))
    else:
        rows.append(_skipped("slack requests", f"Slack calls port {slack.port} of the bot; whether it gets there only Slack can say."))
    access = settings.access
    channels = [place for place in places(settings.alerts) if place[0] not in "UW"]
    token, bot = await _bot_token(client)
    rows.append(token)
    if bot is None:
        asleep = [f"channel {c}" for c in channels] + [f"access of {who}" for who in (named(access) if access else ()) if who != EVERYONE]
        return [*rows, *(_skipped(what, "The bot token does not work.") for what in asleep)]
    rows.append(_scopes(bot.scopes))
    return [*rows, *await _channels(client, channels, bot.name), *await _access(client, access)]


async def _app_token(client: AsyncWebClient, token: str) -> Row:
    """Whether Socket Mode would open; the address that it answers with is not dialled."""
    what = "slack app token"
    try:
        async with asyncio.timeout(SLACK_S):
            await client.apps_connections_open(app_token=token)
    except SlackApiError as error:
        match _error_of(error):
            case "invalid_auth" | "not_authed" | "token_revoked" | "account_inactive" | "not_allowed_token_type" as name:
                return _bad(what, f"Slack refuses it ({name}).", _APP_TOKEN)
            case "missing_scope":
                return _bad(what, "It lacks the scope connections:write.", _APP_TOKEN)
            case "forbidden_team" | "access_denied" as name:
                return _bad(what, f"Slack does not let this app use Socket Mode ({name}).", "Slack's app page, Socket Mode: enable it.")
            case name:
                return _bad(what, f"Slack answers {name}.", "Try again; if it stays, look at Slack's status page.")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _unreached(what, error)
    return _ok(what, "Socket Mode opens.")


class _Bot(NamedTuple):
    """Who the bot token speaks for."""

    name: str
    scopes: frozenset[str]


async def _bot_token(client: AsyncWebClient) -> tuple[Row, _Bot | None]:
    """Whose token it is, and the scopes that Slack says it has; None if it does not work."""
    what = "slack bot token"
    try:
        async with asyncio.timeout(SLACK_S):
            answer = await client.auth_test()
    except SlackApiError as error:
        return _bad(what, f"Slack refuses it ({_error_of(error)}).", _BOT_TOKEN), None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return _unreached(what, error), None
    headers = {name.lower(): value for name, value in dict(answer.headers).items()}
    scopes = frozenset(s.strip() for s in headers.get("x-oauth-scopes", "").split(",") if s.strip())
    return _ok(what, f"It is @{answer.get('user')} of workspace {answer.get('team')}."), _Bot(str(answer.get("user")), scopes)


def _scopes(scopes: frozenset[str]) -> Row:
    """What the bot was installed with against what it uses."""
    what = "slack scopes"
    if not scopes:
        return _skipped(what, "Slack did not say which scopes the bot has.")
    missing = sorted(SCOPES.keys() - scopes)
    if missing:
        return _bad(what, " ".join(f"Without {s}, {SCOPES[s]}." for s in missing), _REINSTALL)
    more = sorted(scopes - SCOPES.keys())
    return _ok(what, f"All {len(SCOPES)} are there." + (f" Not needed: {', '.join(more)}." if more else ""))


async def _channels(client: AsyncWebClient, channels: list[str], bot: str) -> list[Row]:
    """Whether each channel is there and the bot is in it."""
    try:
        async with asyncio.timeout(2 * SLACK_S):
            known = await _listed(client)
    except SlackApiError as error:
        why = f"Slack does not show the channels ({_error_of(error)})."
        return [_skipped(f"channel {c}", why, _REINSTALL) for c in channels]
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return [_unreached(f"channel {c}", error) for c in channels]
    rows = []
    for name in channels:
        what, found = f"channel {name}", known.get(name)
        if found is None:
            rows.append(_bad(what, "There is none, or it is private and the bot is not in it.", f"Make it, or there: /invite @{bot}"))
        elif found.get("is_archived"):
            rows.append(_bad(what, "It is archived.", "Unarchive it, or name another one in the settings file."))
        elif not found.get("is_member"):
            rows.append(_bad(what, "The bot is not in it.", f"In that channel: /invite @{bot}"))
        else:
            rows.append(_ok(what, "The bot is in it."))
    return rows


async def _access(client: AsyncWebClient, access: Access | None) -> list[Row]:
    """Whether anybody is limited, and whom Slack says to be in each group and channel that the settings name."""
    if access is None:
        return [_ok("access", "The settings limit nobody: everybody in the workspace may look, acknowledge, silence and escalate.")]
    members = Members(client, access.remember_s)
    rows = []
    for who in named(access):
        if who == EVERYONE or who[0] in "UW":
            continue  # whether a person's id is anybody's needs a permission that nothing else needs
        try:
            people = await members.people(who)
        except Unread as why:
            mend = (
                _REINSTALL
                if "missing_scope" in str(why)
                else "Name an id or a name that Slack knows; a private channel needs the bot in it."
            )
            refused = "everything" if not access.look_without_groups else "what changes anything"
            rows.append(_bad(f"access of {who}", f"Slack does not say who that is ({why}), so they are refused {refused}.", mend))
        else:
            count = f"{len(people):,} {'person' if len(people) == 1 else 'people'}"
            rows.append(_ok(f"access of {who}", f"{count} in it." if people else "Nobody is in it."))
    everywhere = [g for g in access.admins if g.namespace is None and g.cluster is None]
    if not everywhere:
        rows.append(
            _bad(
                "access", "No admin may do everything everywhere, so nobody can read the audit.", "Give one without namespace and cluster."
            )
        )
    return rows


async def _listed(client: AsyncWebClient) -> dict[str, dict[str, Any]]:
    """Every channel that the bot may know of, by #name and by id; a refusal for being too fast is waited out, once a page."""
    found: dict[str, dict[str, Any]] = {}
    where: dict[str, Any] = {"types": "public_channel,private_channel", "limit": 999}
    while True:
        try:
            page: Any = await client.conversations_list(**where)
        except SlackApiError as error:
            if _error_of(error) != "ratelimited":
                raise
            response: Any = error.response
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
            page = await client.conversations_list(**where)
        for channel in page.get("channels") or ():
            found[channel["id"]] = found[f"#{channel['name']}"] = channel
        where["cursor"] = (page.get("response_metadata") or {}).get("next_cursor", "")
        if not where["cursor"]:
            return found


def _error_of(error: SlackApiError) -> str:
    """Slack's own word for a refusal; nothing else of the answer, which may repeat what was sent."""
    data: Any = getattr(error.response, "data", None)
    name = data.get("error") if isinstance(data, dict) else None
    return str(name or f"HTTP {getattr(error.response, 'status_code', '')}".strip())


def _unreached(what: str, error: Exception) -> Row:
    said = "no answer in time" if isinstance(error, TimeoutError) else why(error)
    return _bad(what, f"Slack cannot be reached ({said}).", "Let the bot call slack.com over HTTPS; behind a proxy set HTTPS_PROXY.")


# --- Redis -------------------------------------------------------------------------------------------------------------------


async def _state(settings: Settings) -> list[Row]:
    """Where alerts are kept: the configured Redis, or the embedded Valkey."""
    url = settings.redis.url
    return await (_embedded(settings.state_dir.absolute() / "valkey") if url is None else _redis("redis", url.get_secret_value()))


async def _embedded(directory: Path) -> list[Row]:
    """The embedded Valkey, started and ended again; a bot that runs there is asked instead."""
    what = "embedded valkey"
    try:
        async with asyncio.timeout(STATE_S), embedded(directory) as url:
            rows = await _redis(what, url)
    except NoState as error:
        rows = await _redis(what, f"unix://{directory}/valkey.sock")
        if rows[0]["state"] == "ok":
            return rows
        return [_bad(what, str(error), "Let state_dir be a directory that the bot alone may write, or set redis.url.")]
    except TimeoutError:
        return [_bad(what, f"It did not start in {directory} within {STATE_S:g} s.", "Look at the size of its files there.")]
    return rows


async def _redis(what: str, url: str) -> list[Row]:
    """Ping, version, role, scripts, persistence and what happens when memory runs out."""
    where = f"{urlsplit(url).hostname}:{urlsplit(url).port or 6379}" if urlsplit(url).hostname else urlsplit(url).path
    try:
        async with asyncio.timeout(REDIS_S):
            client: Any = Redis.from_url(url, decode_responses=True, socket_timeout=REDIS_S, socket_connect_timeout=REDIS_S)
            async with client:
                await client.ping()
                info = {k: v for part in ("server", "replication", "persistence", "memory") for k, v in (await client.info(part)).items()}
                await client.eval("return 1", 0)
                saves = await _saves(client)
    except ConnectionError as error:
        if not isinstance(error, AuthenticationError) and not isinstance(error.__cause__, AuthenticationError):
            return [_unusable(what, where, error)]
        return [_bad(what, f"{where} refuses the password or the user.", "Mend user and password in the URL of redis.url.")]
    except NoPermissionError:
        return [_bad(what, f"The user of {where} may not ping, info or eval.", "Give it: ACL SETUSER … +@all ~{meshwhy}:*")]
    except (RedisError, OSError, TimeoutError) as error:
        return [
            _bad(
                what, f"{where} cannot be used ({_plain(error)}).", "Let the bot reach it: address, port, TLS (rediss://), network policy."
            )
        ]
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version")
    rows = [_ok(what, f"{name} {version} at {where} answers.")]
    if info.get("role") == "slave":
        rows[0] = _bad(what, f"{name} {version} at {where} is a replica, which takes no writes.", "Name the primary in redis.url.")
    return [*rows, _persistence(what, info, saves), _memory(what, info)]


def _unusable(what: str, where: str, error: BaseException) -> Row:
    return _bad(what, f"{where} cannot be used ({_plain(error)}).", "Let the bot reach it: address, port, TLS (rediss://), network policy.")


async def _saves(client: Any) -> str | None:
    """The snapshots that are configured, or None where CONFIG is not allowed (managed services)."""
    try:
        found = await client.config_get("save")
    except RedisError:
        return None
    return str(found.get("save", ""))


def _persistence(what: str, info: dict[str, Any], saves: str | None) -> Row:
    what = f"{what} persistence"
    if info.get("aof_enabled"):
        return _ok(what, "The append-only file is on.")
    if saves:
        return _ok(what, f"Snapshots are on (save {saves}); what came after the last one is lost in a crash. appendonly yes loses less.")
    if saves is None:
        return _skipped(what, "CONFIG is not allowed here, and the append-only file is off; whether snapshots are made cannot be read.")
    return _bad(what, "It keeps nothing: after its restart every alert is posted anew.", "Set appendonly yes.")


def _memory(what: str, info: dict[str, Any]) -> Row:
    what = f"{what} memory"
    policy, most = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))
    if most and policy != "noeviction":
        return _bad(
            what, f"When {most >> 20} MiB are full it forgets alerts (maxmemory-policy {policy}).", "Set maxmemory-policy noeviction."
        )
    return _ok(
        what,
        f"At most {most >> 20} MiB, then it refuses (noeviction)." if most else "No limit is set (maxmemory 0), so nothing is forgotten.",
    )


def _plain(error: BaseException) -> str:
    """What went wrong without anything of the URL: redis-py repeats addresses, and a URL may carry a password."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = re.sub(r"\S*@\S*", "…", str(error)).strip().rstrip(".")
    return text[:200] or type(error).__name__


# --- who is woken ---


async def _others(settings: Settings) -> list[Row]:
    """Who is on call now, and whether the pagers and Alertmanagers can be reached; they are told nothing."""
    alerts = settings.alerts
    rows = [_ok(f"on call {name}", f"{on_call(schedule, time.time())} is.") for name, schedule in alerts.on_call.items()]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SLACK_S), trust_env=True) as http:
        pagers = [_answers(f"pager {name}", pager.url or _PAGERS[pager.kind], http) for name, pager in alerts.pagers.items()]
        return rows + await asyncio.gather(
            *pagers, *(_answers(f"alertmanager {to.url}", to.url, http) for to in settings.alertmanager.send)
        )


_PAGERS = {"pagerduty": PAGERDUTY, "opsgenie": OPSGENIE}


async def _answers(what: str, url: str, http: aiohttp.ClientSession) -> Row:
    where = urlsplit(url).hostname
    try:
        async with http.head(url, allow_redirects=False) as answer:
            return _ok(what, f"{where} answers (HTTP {answer.status}); whether it takes what it is told only an alert can say.")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        said = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        return _bad(what, f"{where} cannot be reached ({said}).", "Let the bot call it; behind a proxy set HTTPS_PROXY.")


# --- clusters ----------------------------------------------------------------------------------------------------------------


async def _cluster(registered: RegisteredCluster) -> list[Row]:
    """One registered cluster: whether it can be reached and read, and which Istio runs in it."""
    what = f"cluster {registered.name}"
    source = ClusterSource.registered(registered)
    try:
        async with asyncio.timeout(CLUSTER_S):
            rows = await (_recorded(what, source) if source.path is not None else _live(what, source))
    except TimeoutError:
        return [
            _bad(what, f"It did not answer everything within {CLUSTER_S:g} s.", "Look at the load and the network path of its API server.")
        ]
    if registered.prometheus is not None:
        rows.append(await _counts(f"{what} prometheus", registered.prometheus, registered.name))
    return rows


async def _counts(what: str, place: Prometheus, cluster: str) -> Row:
    """Whether a cluster's Prometheus answers who asks, and counts calls."""
    try:
        await prometheus.tried(place, cluster)
    except NotRead as error:
        remedy = "Look at prometheus of the cluster in the settings, and at what may reach it: who asks is this bot."
        return _bad(what, f"{prometheus.where(place)}: {error}.", remedy)
    return _ok(what, f"{prometheus.where(place)} answers, and counts calls of proxies.")


# What may happen instead of an answer of an API server.
_NO_ANSWER = (Refused, NoAccess, aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError)


async def _recorded(what: str, source: ClusterSource) -> list[Row]:
    """A cluster in files: whether they can be read, wholly."""
    try:
        found = await asyncio.to_thread(manifests.read, str(source.path), source.name, read_at=time.time())
    except manifests.BadSource as error:
        return [_bad(what, str(error), "Name a file, a directory or an archive of manifests under path.")]
    count = sum(len(named) for spaces in found.objects.values() for named in spaces.values())
    rows = [_ok(what, f"{count} objects in {source.path}.")]
    if found.malformed:
        first = found.malformed[0]
        text = f"{len(found.malformed)} of the objects cannot be read; the first is {first.ref}: {first.reason}."
        rows.append(_bad(f"{what} objects", text, "Mend or remove them; every answer about this cluster leaves them out."))
    istio = any(KIND_OF[struct].group == _ISTIO and spaces for struct, spaces in found.objects.items())
    istiods = [d for named in found.objects.get(Deployment, {}).values() for d in named.values() if d.labels.get("app") == "istiod"]
    rows.append(_istio(what, [d for d in istiods if isinstance(d, Deployment)], served=istio))
    return rows


_ISTIO = "networking.istio.io"


async def _live(what: str, source: ClusterSource) -> list[Row]:
    """A cluster behind an API server."""
    async with server(source, Pace(answer_s=ANSWER_S, silence_s=ANSWER_S)) as api:
        try:
            body, _ = await api.body("/version", {})
            version = msgspec.json.decode(body, type=_Version).git_version
        except msgspec.DecodeError:
            version = ""
        except Refused as error:
            if error.status == 401:
                return [_bad(what, f"The credentials are refused ({error}).", _credentials(source))]
            version = ""  # who may not ask for the version may still read
        except NoAccess as error:
            return [_bad(what, f"{str(error)[:1].upper()}{str(error)[1:]}.", _credentials(source))]
        except aiohttp.ClientSSLError as error:
            return [
                _bad(
                    what,
                    f"Its certificate is not trusted ({why(error)}).",
                    "Give the cluster's certificate-authority in the kubeconfig.",
                )
            ]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return [_bad(what, f"Its API server cannot be reached ({why(error)}).", "Check the address, DNS, firewall and network policy.")]
        rows = [_ok(what, f"Kubernetes {version} answers." if version else "Its API server answers.")]
        return [*rows, *await _rights(what, source, api), *await _probed(what, source, api)]


class _Version(msgspec.Struct):
    git_version: str = msgspec.field(default="", name="gitVersion")


class _ListMeta(msgspec.Struct, frozen=True):
    resource_version: str = msgspec.field(default="", name="resourceVersion")


class _List(msgspec.Struct):
    metadata: _ListMeta = _ListMeta()


class _Deployments(msgspec.Struct):
    items: tuple[Deployment, ...] | None = None


class _Denied(NamedTuple):
    """One thing that may not be done: a verb on a kind, in one namespace or all, on one object or all."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    who: str


async def _rights(what: str, source: ClusterSource, api: Server) -> list[Row]:
    """Which kinds may be listed and watched, and which Istio that shows."""
    gate = asyncio.Semaphore(8)  # an API server is not stormed
    absent: list[Kind] = []
    denied: list[_Denied] = []
    failed: list[str] = []

    async def look(kind: Kind, namespace: str, name: str) -> None:
        async with gate:
            try:
                path = await api.path(kind)
                if path is None:
                    absent.append(kind)
                    return
                where = f"{path}/namespaces/{namespace}/{kind.plural}" if namespace else f"{path}/{kind.plural}"
                query = {"fieldSelector": f"metadata.name={name}"} if name else {}
                denied.extend(_Denied(verb, kind, namespace, name, who) for verb, who in await _denied(api, where, query))
            except _NO_ANSWER as error:
                failed.append(f"{kind.key}: {why(error)}")

    deployments = await _istiods(api, source.namespaces or ("",))
    maps = {(d.namespace, name) for d in deployments for name in ("istio", *_revised(d))} or {("istio-system", "istio")}
    looks = [look(k, ns, "") for k in KINDS if k.struct is not ConfigMap for ns in (source.namespaces if k.namespaced else ()) or ("",)]
    looks += [look(KIND_OF[Secret], ns, "") for ns in source.secrets]
    await asyncio.gather(*looks, *(look(KIND_OF[ConfigMap], ns, name) for ns, name in sorted(maps)))
    kinds = f"{what} kinds"
    missing = {d.kind for d in denied}
    unseen = f" Not installed here, which is fine: {', '.join(sorted(k.key for k in set(absent)))}." if absent else ""
    if failed:
        rows = [
            _bad(
                kinds,
                f"{len(failed)} kinds could not be asked for; {min(failed)}.",
                "Try again; then look at the API server's health.",
            )
        ]
    elif denied:
        said = "; ".join(f"may not {d.verb} {_subject(d)}" for d in sorted(denied, key=lambda d: (d.kind.key, d.verb, d.namespace, d.name)))
        rows = [_bad(kinds, f"{denied[0].who or 'The account'} {said}.{unseen}", _grant(source, denied))]
    else:
        rows = [_ok(kinds, f"All {len(KINDS) - len(set(absent))} kinds may be listed and watched.{unseen}")]
    if KIND_OF[Deployment] in missing:
        return [*rows, _skipped(f"{what} istio", "Deployments may not be listed, so istiod cannot be found.")]
    return [*rows, _istio(what, deployments, served=not any(k.group == _ISTIO for k in absent))]


async def _probed(what: str, source: ClusterSource, api: Server) -> list[Row]:
    """Whether running parts may be asked, as far as the settings want it: tried on a pod that nobody has, of which who may is told just that."""
    namespace = (source.namespaces or ("istio-system",))[0]

    async def forward() -> None:
        socket = await api.socket(pods.path(namespace, _NOBODY, "portforward"), {"ports": "15000"}, protocol=portforward.PROTOCOL)
        await socket.close()

    async def read() -> None:
        await api.body(pods.path(namespace, _NOBODY, "log"), {"tailLines": "1"}, accept="*/*")

    wanted = (
        (source.deep, "deep", forward, "get,create", "portforward", "Envoys, ztunnels and istiods may be asked, by port-forward."),
        (source.logs, "logs", read, "get", "log", "The ends of logs may be read."),
    )
    return [
        await _tried(f"{what} {word}", attempt, well, f"{word}=true", f"--verb={verbs} --resource=pods/{of}")
        for on, word, attempt, verbs, of, well in wanted
        if on
    ]


async def _tried(what: str, attempt: Callable[[], Awaitable[None]], well: str, value: str, right: str) -> Row:
    try:
        await attempt()
    except _NO_ANSWER as error:
        status = error.status if isinstance(error, Refused) else 0
        if status == 403:
            grant = f"helm upgrade with --set {value} grants it; or give the account a clusterrole with {right}."
            return _bad(what, "It is on in the settings and not permitted in the cluster.", grant)
        if status != 404:
            return _bad(what, f"It could not be tried ({why(error)}).", "Try again; then look at the API server's health.")
    return _ok(what, well)


_NOBODY = "meshwhy-doctor-asks"


async def _denied(api: Server, where: str, query: dict[str, str]) -> list[tuple[str, str]]:
    """Which of list and watch are refused with 403, and to whom; raises for every other trouble."""
    refused = []
    since = "1"
    try:
        body, _ = await api.body(where, {**query, "limit": "1"})
        since = msgspec.json.decode(body, type=_List).metadata.resource_version or since
    except Refused as error:
        if error.status != 403:
            raise
        refused.append(("list", _who(str(error))))
    try:
        async with api.get(where, {**query, "watch": "1", "resourceVersion": since, "timeoutSeconds": "1"}):
            pass
    except Refused as error:
        if error.status not in {403, 410}:  # who is told that the past is gone may watch
            raise
        if error.status == 403:
            refused.append(("watch", _who(str(error))))
    return refused


async def _istiods(api: Server, namespaces: tuple[str, ...]) -> list[Deployment]:
    """The Deployments of istiod; none where they may not be listed, which another row says."""
    found: list[Deployment] = []
    for namespace in namespaces:
        where = f"/apis/apps/v1{f'/namespaces/{namespace}' if namespace else ''}/deployments"
        with suppress(*_NO_ANSWER):
            body, _ = await api.body(where, {"labelSelector": "app=istiod"})
            found += msgspec.json.decode(body, type=_Deployments).items or ()
    return [d for d in found if d.labels.get("app") == "istiod"]


def _revised(istiod: Deployment) -> tuple[str, ...]:
    """The ConfigMap that a revision other than the default has for itself."""
    revision = istiod.labels.get("istio.io/rev", "default")
    return () if revision == "default" else (f"istio-{revision}",)


def _istio(what: str, istiods: list[Deployment], *, served: bool) -> Row:
    """Which Istio runs here. `served`: its kinds are known here."""
    what = f"{what} istio"
    if istiods:
        said = [
            f"istiod {_tag(d)} in {d.namespace}"
            + (f" (revision {rev})" if (rev := d.labels.get("istio.io/rev", "default")) != "default" else "")
            for d in sorted(istiods, key=lambda d: (d.namespace, d.name))
        ]
        silent = any(p.version is None for d in istiods for p in planes([d], ()))
        open_ = " What names no version is taken for that of its newest proxy, else for the newest Istio." if silent else ""
        return _ok(what, f"{', '.join(said)}.{open_}")
    if served:
        return _skipped(
            what,
            "No istiod was found, so it runs elsewhere; the mesh's settings are taken from ConfigMap istio-system/istio, if it is there.",
        )
    return _bad(
        what, "There is no Istio: its kinds are not known here.", "Install Istio there, or take the cluster out of the settings file."
    )


def _tag(istiod: Deployment) -> str:
    """The version that the image of istiod says, else its labels; and which Istio that is where it is not the same."""
    images = [c.image for c in istiod.spec.template.spec.containers if c.image]
    name = images[0].partition("@")[0].rpartition("/")[2] if images else ""
    tag = name.partition(":")[2]
    (plane,) = planes([istiod], ())
    if plane.version is None:
        return f"{tag} (of no known version)" if tag else "of unknown version"
    return tag if tag.lstrip("v").startswith(str(plane.version)) else f"{tag} (Istio {plane.version})" if tag else str(plane.version)


_WHO = re.compile(r'User "([^"]+)"')


def _who(message: str) -> str:
    """Whom the API server names in a refusal."""
    found = _WHO.search(message)
    return found[1] if found else ""


def _subject(denied: _Denied) -> str:
    named = f" {denied.name}" if denied.name else ""
    return f"{denied.kind.key}{named}" + (f" in {denied.namespace}" if denied.namespace else "")


def _grant(source: ClusterSource, denied: list[_Denied]) -> str:
    """The commands that grant exactly what is missing."""
    who = next((d.who for d in denied if d.who), "")
    account = who.removeprefix("system:serviceaccount:")
    to = f"--serviceaccount={account}" if account != who else f"--user={who or 'NAME'}"
    kubectl = f"kubectl --context={source.context}" if source.context else "kubectl"
    groups: dict[tuple[str, str], set[str]] = {}
    for d in denied:
        groups.setdefault((d.namespace, d.name), set()).add(d.kind.key)
    lines = ["helm upgrade with this chart grants all that is read. Or exactly what is missing:"]
    for (namespace, name), keys in sorted(groups.items()):
        role, binding = ("role", "rolebinding") if namespace else ("clusterrole", "clusterrolebinding")
        into = f"{kubectl} -n {namespace}" if namespace else kubectl
        called = f"meshwhy-more-{name}" if name else "meshwhy-more"
        only = f" --resource-name={name}" if name else ""
        lines.append(f"{into} create {role} {called} --verb=get,list,watch --resource={','.join(sorted(keys))}{only}")
        lines.append(f"{into} create {binding} {called} --{role}={called} {to}")
    return "\n".join(lines)


def _credentials(source: ClusterSource) -> str:
    if source.in_cluster:
        return "The pod's ServiceAccount token is mounted by Kubernetes: look at automountServiceAccountToken."
    return f"Try: kubectl{f' --kubeconfig={source.kubeconfig}' if source.kubeconfig else ''}{f' --context={source.context}' if source.context else ''} version"
