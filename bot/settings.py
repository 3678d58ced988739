"""What the bot was told: one YAML file and the environment, as frozen settings, or one sentence for each thing that is wrong.

What must stay true: a key nobody knows and a value of the wrong form are named with their line; a secret stands in the environment or in a
file, never in the YAML, and never in a repr. Relative paths are relative to the settings file.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sized
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bot import hours, links
from bot.hours import Span
from checks import accesslog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic_core import ErrorDetails

SLACK_API = "https://slack.com/api/"


_Several = TypeVar("_Several", bound=Sized)


class BadSettings(Exception):
    """The settings cannot be used: one sentence for each reason, each with file, line and key."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class _Surroundings(NamedTuple):
    """What a value may refer to; without `environ` secrets are not looked up (a person who asks about a cluster need not hold them)."""

    folder: Path
    environ: Mapping[str, str] | None


def _wrong(sentence: str) -> PydanticCustomError:
    """A refusal in our own words, taken literally: no part of a value is a format field."""
    return PydanticCustomError("wrong", "{sentence}", {"sentence": sentence})


def _surroundings(info: ValidationInfo) -> _Surroundings:
    given = info.context
    return given if isinstance(given, _Surroundings) else _Surroundings(Path(), None)


def _secret(value: object, info: ValidationInfo) -> object:
    """The secret that `{env: NAME}` or `{file: PATH}` refers to."""
    around = _surroundings(info)
    match value:
        case SecretStr():
            return value
        case {"env": str(name), **rest} if not rest:
            if around.environ is None:
                return SecretStr("")
            found = around.environ.get(name, "").strip()
            if not found:
                raise _wrong(f"refers to the environment variable {name}, which is not set")
            return SecretStr(found)
        case {"file": str(name), **rest} if not rest:
            if around.environ is None:
                return SecretStr("")
            try:
                found = (around.folder / Path(name).expanduser()).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise _wrong(f"refers to the file {name}, which cannot be read ({_reason(error)})") from None
            if not found:
                raise _wrong(f"refers to the file {name}, which is empty")
            return SecretStr(found)
        case str():
            raise _wrong("is a secret and must not stand in this file: write {env: NAME} or {file: PATH}")
    raise _wrong("must be {env: NAME} or {file: PATH}")


def _redis_url(value: object, info: ValidationInfo) -> object:
    """A Redis URL: a secret when it carries a password, else it may stand in the file."""
    if isinstance(value, str):
        if urlsplit(value).password:
            raise _wrong("carries a password and must not stand in this file: write {env: NAME} or {file: PATH}")
        value = SecretStr(value)
    secret = _secret(value, info)
    if isinstance(secret, SecretStr) and (url := secret.get_secret_value()) and urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise _wrong("must start with redis://, rediss:// or unix://")
    return secret


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def _seconds(value: object) -> object:
    """`10s`, `5m`, `1h30m`, or a plain number of seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong("must be a duration such as 10s, 5m or 1h30m")
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if not value.strip() or found is None:
            raise _wrong(f"must be a duration such as 10s, 5m or 1h30m, not {value!r}")
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds
    if not 0 <= value < math.inf:
        raise _wrong("must be a duration such as 10s, 5m or 1h30m, and not negative")
    return float(value)


def duration(text: str) -> float | None:
    """The seconds of `10s`, `5m`, `1h30m`, `2d`; None for anything else."""
    days, _, rest = text.strip().rpartition("d")
    found = _DURATION.fullmatch(rest)
    if not text.strip() or found is None or (days and not days.isdigit()) or not (days or rest):
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return (float(days) if days else 0.0) * 86400 + hours * 3600 + minutes * 60 + seconds


def _some(several: _Several) -> _Several:
    if not several:
        raise _wrong("must not be empty")
    return several


def _path(value: object, info: ValidationInfo) -> object:
    """A path, relative to the settings file, with `~` for the home."""
    if not isinstance(value, str | Path) or not str(value):
        raise _wrong("must be a path")
    try:
        return _surroundings(info).folder / Path(value).expanduser()
    except RuntimeError:
        raise _wrong("starts with ~, but there is no home directory") from None


def _several(value: object) -> object:
    """One word or a list of words."""
    return (value,) if isinstance(value, str) else value


def _labels(value: object) -> object:
    """`{team: payments}` or `team=payments,tier=1`."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",")]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise _wrong(f"must be labels such as team=payments, not {value!r}")
    return {key.strip(): label.strip() for key, _, label in pairs}


def _channel(value: object) -> object:
    """`#name` or a channel's id."""
    if not isinstance(value, str) or not re.fullmatch(r"#[^\s#@]{1,80}|[CGD][A-Z0-9]{6,}", value):
        raise _wrong('must be a channel: "#name" in quotes, because YAML takes # for a comment, or an id such as C0123ABCD')
    return value


def _person(value: object) -> object:
    """The id of a person or of a user group."""
    if not isinstance(value, str) or not re.fullmatch(r"[UWS][A-Z0-9]{2,24}", value):
        raise _wrong("must be the id of a person (U0ABCDEF) or of a user group (S0ABCDEF); Slack's profile menu copies it")
    return value


_ANYBODY = re.compile(r"everyone|[UWSCG][A-Z0-9]{2,24}|[@#][^\s#@,<>|]{1,80}")


def _somebody(value: object) -> object:
    """Somebody in Slack: everyone, a person, a user group, or whoever is in a channel."""
    if not isinstance(value, str) or not _ANYBODY.fullmatch(value):
        raise _wrong(
            'must be everyone, the id of a person (U0ABCDEF), a user group ("@oncall" or S0ABCDEF), or a channel whose members are meant '
            '("#mesh" or C0ABCDEF), in quotes where it starts with @ or #'
        )
    return value


def _grants(value: object) -> object:
    """Grants, or in short only who it is: `["@oncall", U0ABCDEF]`."""
    found = value if isinstance(value, list | tuple) else [value]
    return [{"who": one} if isinstance(one, str) else one for one in found]


def _team(value: object) -> object:
    """The id of a workspace or of an organisation."""
    if not isinstance(value, str) or not re.fullmatch(r"[TE][A-Z0-9]{2,24}", value):
        raise _wrong(
            "must be the id of a workspace (T0ABCDEF) or of an organisation (E0ABCDEF); it stands in the address of Slack in a browser"
        )
    return value


def _user(value: object) -> object:
    """The id of a person."""
    if not isinstance(value, str) or not re.fullmatch(r"[UW][A-Z0-9]{2,24}", value):
        raise _wrong("must be the id of a person (U0ABCDEF); Slack's profile menu copies it")
    return value


def _share(value: object) -> object:
    """`50%`, or a number from 0 to 1."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value.strip())):
        value = float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _wrong("must be a share of requests such as 50%")
    return float(value)


def _zone(value: object) -> object:
    """A time zone by its name."""
    try:
        ZoneInfo(str(value))
    except (OSError, ValueError, LookupError):  # what zoneinfo raises for names that are not there, and for those that cannot be
        raise _wrong("must be a time zone such as Europe/Berlin or UTC") from None
    return value


def _parsed(parse: Callable[[str], object]) -> BeforeValidator:
    """A validator for a text that bot.hours reads."""

    def parsed(value: object) -> object:
        try:
            return parse(str(value))
        except ValueError as error:
            raise _wrong(str(error)) from None

    return BeforeValidator(parsed)


def _minute(value: object) -> object:
    """A time of day; without quotes YAML reads 18:00 as the number of its minutes."""
    return f"{value // 60:02}:{value % 60:02}" if isinstance(value, int) and not isinstance(value, bool) else value


def _local(value: object) -> object:
    """A day and a time by the clock on the wall: `2026-11-30 09:00`."""
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise _wrong(f"must be a day and a time such as 2026-11-30 09:00, not {value!r}") from None
    if found.tzinfo is not None:
        raise _wrong("must have no offset: it is the time in location")
    return found


def _period(value: object) -> object:
    """`7d`, `12h`."""
    found = duration(value) if isinstance(value, str) else None
    if not found:
        raise _wrong(f"must be a duration such as 7d or 12h, not {value!r}")
    return found


Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Duration = Annotated[float, BeforeValidator(_seconds)]
LocalPath = Annotated[Path, BeforeValidator(_path)]


def _access_log(value: str) -> str:
    if not accesslog.operators(value):
        raise _wrong('is no format of access logs that tells of calls, as "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER%"')
    return value


def _envoy(value: str) -> str:
    from bot.probes.envoy import Where  # noqa: PLC0415 - its decoders cost time that most settings do not have to pay

    try:
        Where.parse(value, cluster="-")
    except ValueError as error:
        raise _wrong(f"names an Envoy in a way that cannot be read: {error}") from None
    return value


def _address(value: object) -> object:
    """An address, or a template of one."""
    why = links.wrong(value) if isinstance(value, str) else "must be an address such as https://kiali.example/kiali"
    if why is not None:
        raise _wrong(why)
    return value


def _bare_url(value: str) -> str:
    """A URL that paths can be added to."""
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise _wrong("carries a name or a password, which stand under basic: {user: …, password: {env: NAME}}")
    if not parts.hostname or parts.query or parts.fragment:
        raise _wrong("must be the address of a server, with a path before /api/v1 where it has one, and nothing after")
    return value


def _matcher(value: object) -> object:
    """`cluster=east`."""
    found = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)", value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(f"must be one label and its value such as cluster=east, not {value!r}")
    return found[1], found[2]


_TELLING = re.compile(r"authorization|cookie|token|secret|key|password", re.IGNORECASE)


def _headers(value: object, info: ValidationInfo) -> object:
    """`{X-Scope-OrgID: mesh}`; what tells who asks is a secret."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, dict):
        raise _wrong("must be headers such as {X-Scope-OrgID: mesh}")
    made = []
    for name, given in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise _wrong(f"has {name!r}, which is no name of a header")
        text = SecretStr(given) if isinstance(given, str) and not _TELLING.search(name) else given
        try:
            found = _secret(text, info)
        except PydanticCustomError as error:
            raise _wrong(f"has {name}, which {error.message()}") from None
        if not isinstance(found, SecretStr) or re.search(r"[\r\n\0]", found.get_secret_value()):
            raise _wrong(f"has {name} with a line break, which no header may have")
        made.append((name, found))
    return tuple(made)


Words = Annotated[tuple[str, ...], BeforeValidator(_several)]
Address = Annotated[str, BeforeValidator(_address)]
Channel = Annotated[str, BeforeValidator(_channel)]
Responder = Annotated[str, BeforeValidator(_person)]
Responders = Annotated[tuple[Responder, ...], BeforeValidator(_several)]
User = Annotated[str, BeforeValidator(_user)]
Share = Annotated[float, BeforeValidator(_share)]
Zone = Annotated[str, BeforeValidator(_zone)]
Minute = Annotated[int, _parsed(hours.minutes), BeforeValidator(_minute)]
LocalTime = Annotated[datetime, BeforeValidator(_local)]
Weekdays = tuple[Annotated[tuple[int, int], _parsed(hours.weekdays)], ...]


class _Section(BaseModel):
    """What every section shares: frozen, and no key that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Slack(_Section):
    """How the bot talks to Slack: over Socket Mode, or by HTTP requests that Slack signs."""

    mode: Literal["socket", "http"] = "socket"
    bot_token: Secret
    app_token: Secret | None = None
    signing_secret: Secret | None = None
    base_url: str = SLACK_API
    port: int = Field(default=3000, ge=0, le=65535)
    teams: Annotated[tuple[Annotated[str, BeforeValidator(_team)], ...], BeforeValidator(_several)] = ()
    """Workspaces and organisations whose people are answered beside those of the bot's own workspace."""

    @model_validator(mode="after")
    def _complete(self) -> Slack:
        if self.mode == "socket" and self.app_token is None:
            raise _wrong("needs app_token for Socket Mode (an app-level token, xapp-…, with the scope connections:write)")
        if self.mode == "http" and self.signing_secret is None:
            raise _wrong("needs signing_secret for mode http (Slack's app page, Basic Information)")
        for key, secret, prefix in (("bot_token", self.bot_token, "xoxb-"), ("app_token", self.app_token, "xapp-")):
            if secret is not None and secret.get_secret_value() and not secret.get_secret_value().startswith(prefix):
                raise _wrong(f"has a {key} that does not start with {prefix}")
        return self


class Redis(_Section):
    """Where state lives; without a URL in an embedded Valkey under state_dir. Of several bots on one URL the holder of the lease keeps the alerts."""

    url: Annotated[SecretStr, BeforeValidator(_redis_url)] | None = None
    lease_s: Duration = Field(default=10.0, alias="lease", gt=0)
    divided: bool = False
    """Whether several bots share the clusters, each mesh watched by two of them, instead of each watching all."""


class Basic(_Section):
    """A name and a password."""

    user: str = Field(min_length=1)
    password: Secret


class Prometheus(_Section):
    """A cluster's Prometheus, or what answers like one for several (Thanos, Mimir): then `cluster_label` tells this cluster's figures apart.

    Who asks is a bearer token, a name and a password, or a certificate with its key; `headers` are sent beside, for a tenant or a gateway.
    """

    url: Annotated[str, AfterValidator(_bare_url)] = Field(pattern=r"^https?://")
    token: Secret | None = None
    basic: Basic | None = None
    ca: LocalPath | None = None
    certificate: LocalPath | None = None
    key: LocalPath | None = None
    cluster_label: Annotated[tuple[str, str], BeforeValidator(_matcher)] | None = None
    headers: Annotated[tuple[tuple[str, SecretStr], ...], BeforeValidator(_headers)] = ()

    @model_validator(mode="after")
    def _one_who(self) -> Prometheus:
        if self.token is not None and self.basic is not None:
            raise _wrong("has a token and basic: who asks is one of them")
        if (self.certificate is None) != (self.key is None):
            raise _wrong("needs certificate and key together")
        if self.url.startswith("http:") and (self.ca is not None or self.certificate is not None):
            raise _wrong("has a ca or a certificate, which need a url that starts with https://")
        return self

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """What must stand in no log; of the headers those whose names tell so: a tenant's name is a word like others."""
        told = [value for name, value in self.headers if _TELLING.search(name)]
        return tuple(s for s in (self.token, self.basic.password if self.basic is not None else None, *told) if s is not None)


class Links(_Section):
    """Where else a cluster can be looked at: the address of each tool, or a template of one (bot.links)."""

    kiali: Address | None = None
    grafana: Address | None = None
    jaeger: Address | None = None


class RegisteredCluster(_Section):
    """One cluster, and the one way to reach it; a mesh of its own unless `mesh` says the same as another's."""

    name: str = Field(pattern=r"^[^\s/=:]+$")
    mesh: str = Field(default_factory=lambda given: str(given.get("name", "")), min_length=1)
    context: str | None = None
    kubeconfig: LocalPath | None = None
    in_cluster: bool = False
    path: LocalPath | None = None
    namespaces: Words | None = None
    secrets: Words | None = None
    prometheus: Prometheus | None = None
    deep: bool = False
    """Whether Envoys, istiods and ztunnels are asked, by port-forward."""
    logs: bool = False
    """Whether the ends of proxies', istiods' and applications' logs are read."""
    access_log: Annotated[str, AfterValidator(_access_log)] | None = None
    """The format string of its proxies' access logs, where it is neither Istio's default nor JSON."""
    envoys: Annotated[tuple[Annotated[str, AfterValidator(_envoy)], ...], BeforeValidator(_several)] = ()
    """Envoys whose admin address can be reached directly: `NS/POD=http://HOST:PORT` each."""
    links: Links | None = None
    evidence: LocalPath | None = None
    """Where evidence is saved that stands beside this cluster (bot.probes.saved)."""

    @model_validator(mode="after")
    def _one_way(self) -> RegisteredCluster:
        ways = [self.context is not None or self.kubeconfig is not None, self.in_cluster, self.path is not None]
        if sum(ways) != 1:
            raise _wrong("needs exactly one of context (with or without kubeconfig), in_cluster: true, or path")
        return self


def _names_differ(clusters: tuple[RegisteredCluster, ...]) -> tuple[RegisteredCluster, ...]:
    names = [c.name for c in clusters]
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        raise _wrong(f"has two clusters called {doubled[0]}")
    return clusters


RegisteredClusters = Annotated[tuple[RegisteredCluster, ...], Field(min_length=1), AfterValidator(_names_differ)]


class TimeOfDay(_Section):
    """From one time of a day to another, without its last minute."""

    start_time: Minute
    end_time: Minute

    @model_validator(mode="after")
    def _in_order(self) -> TimeOfDay:
        if self.start_time >= self.end_time:
            raise _wrong("must not end before it begins: what goes over midnight is two entries, up to 24:00 and from 00:00")
        return self


class TimeInterval(_Section):
    """Times in the form of Alertmanager's time_intervals; all that is given must fit."""

    times: tuple[TimeOfDay, ...] | None = None
    weekdays: Weekdays | None = None
    days_of_month: tuple[Annotated[tuple[int, int], _parsed(hours.days)], ...] | None = None
    months: tuple[Annotated[tuple[int, int], _parsed(hours.months)], ...] | None = None
    years: tuple[Annotated[tuple[int, int], _parsed(hours.years)], ...] | None = None
    location: Zone = "UTC"

    @property
    def span(self) -> Span:
        """The same for bot.hours."""
        times = None if self.times is None else tuple((t.start_time, t.end_time) for t in self.times)
        return Span(times, self.weekdays, self.days_of_month, self.months, self.years, self.location)


class Match(_Section):
    """What a finding must be for its alert to take a route; what is left out fits everything, and `*` stands for any text."""

    namespace: Words | None = None
    label: Annotated[dict[str, str], BeforeValidator(_labels)] | None = None
    team: Words | None = None
    cluster: Words | None = None
    severity: Literal["error", "warning", "info"] | None = None
    cause: Words | None = None


class _Place(_Section):
    """A channel, or a person who is written to directly, and who is mentioned there."""

    channel: Channel | None = None
    user: User | None = None
    mention: Responders | None = None

    @property
    def place(self) -> str | None:
        """The channel or the person."""
        return self.channel or self.user

    @model_validator(mode="after")
    def _one_place(self) -> _Place:
        if self.channel is not None and self.user is not None:
            raise _wrong("names a channel and a user: write two routes, the first one with continue: true")
        return self


class Outside(_Place):
    """What is told outside of the hours: held until they begin where less than `hold_below` of the requests fail, else in another place."""

    hold_below: Share = 0.0

    @model_validator(mode="after")
    def _something(self) -> Outside:
        if not self.hold_below and self.place is None and self.mention is None:
            raise _wrong("needs hold_below, or another channel, user or mention")
        return self


class Pager(_Section):
    """A service that wakes people: PagerDuty (Events API v2), Opsgenie, or any that takes a signed POST of JSON."""

    kind: Literal["pagerduty", "opsgenie", "webhook"]
    url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    key: Secret | None = None
    secret: Secret | None = None

    @model_validator(mode="after")
    def _complete(self) -> Pager:
        if self.kind == "webhook":
            if not self.url or self.secret is None or self.key is not None:
                raise _wrong("of kind webhook needs url, and secret, with which every request is signed")
        elif self.key is None or self.secret is not None:
            raise _wrong(f"of kind {self.kind} needs key: the integration's key")
        return self


class Substitute(_Section):
    """Somebody who is on call instead, from one time to another in the schedule's zone."""

    who: Responder
    since: LocalTime
    until: LocalTime


class OnCall(_Section):
    """Who is on call: these people by turns, each for as long as `every`, the first one from `since`, by the clocks of `location`."""

    people: Annotated[tuple[Responder, ...], AfterValidator(_some)]
    every: Annotated[float, BeforeValidator(_period)] = 7 * 86400.0
    since: LocalTime
    location: Zone = "UTC"
    instead: tuple[Substitute, ...] = ()


class EscalationStep(_Section):
    """Who is told, so long after an alert fired, when nobody sees to it: a person or a user group, who is on call, a channel, or a pager."""

    after_s: Duration = Field(alias="after")
    to: Responder | None = None
    on_call: str | None = None
    channel: Channel | None = None
    page: str | None = None

    @model_validator(mode="after")
    def _one(self) -> EscalationStep:
        if sum(way is not None for way in (self.to, self.on_call, self.channel, self.page)) != 1:
            raise _wrong("needs exactly one of to (a person or a user group), on_call, channel, or page")
        return self


def _later(steps: tuple[EscalationStep, ...]) -> tuple[EscalationStep, ...]:
    if any(a.after_s >= b.after_s for a, b in pairwise(steps)):
        raise _wrong("must have its steps in the order of time, each later than the one before")
    return steps


Escalation = Annotated[tuple[EscalationStep, ...], AfterValidator(_later)]


class AlertRoute(_Place):
    """Where what fits is told; what it leaves out is its parent's. The deepest first route that fits decides, unless it says `continue`."""

    match: Match = Match()
    hours: Words | None = None
    outside: Outside | None = None
    escalation: Escalation | None = None
    continue_: bool = Field(default=False, alias="continue")
    routes: tuple[AlertRoute, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> AlertRoute:
        if (self.hours is None) != (self.outside is None):
            raise _wrong("needs hours and outside, or none of them")
        return self


class Mute(_Section):
    """What is not told during some time intervals, or never."""

    match: Match
    during: Words | None = None
    why: str = ""

    @model_validator(mode="after")
    def _something(self) -> Mute:
        if not self.match.model_fields_set and self.during is None:
            raise _wrong("would mute everything for ever: say what in match, or when in during")
        return self


class Digest(_Place):
    """A list of what is broken or at risk, at a time of the day."""

    at: Minute
    weekdays: Weekdays | None = None
    location: Zone = "UTC"
    match: Match = Match()

    @property
    def days(self) -> Span:
        """The days on which it comes, for bot.hours."""
        return Span(weekdays=self.weekdays, zone=self.location)


class Alerts(_Section):
    """When a finding becomes a message, and where; seconds."""

    for_s: Duration = Field(default=10.0, alias="for")
    clear_s: Duration = Field(default=30.0, alias="clear")
    default_channel: Channel
    admin_channel: Channel | None = None
    routes: tuple[AlertRoute, ...] = ()
    time_intervals: dict[str, Annotated[tuple[TimeInterval, ...], AfterValidator(_some)]] = {}
    mutes: tuple[Mute, ...] = ()
    digests: tuple[Digest, ...] = ()
    escalation: Escalation = ()
    on_call: dict[str, OnCall] = {}
    pagers: dict[str, Pager] = {}


class Grant(_Section):
    """Who may do something, and for which namespaces and clusters; patterns with `*`, and what is left out is everywhere."""

    who: Annotated[tuple[Annotated[str, BeforeValidator(_somebody)], ...], BeforeValidator(_several), Field(min_length=1)]
    namespace: Words | None = None
    cluster: Words | None = None


Grants = Annotated[tuple[Grant, ...], BeforeValidator(_grants)]


class Access(_Section):
    """Who may look, who may see to alerts, who may do everything; each may what the ones before may. Who is in a group is asked anew after `remember`."""

    viewers: Grants = (Grant(who=("everyone",)),)
    responders: Grants = ()
    admins: Annotated[Grants, Field(min_length=1)]
    remember_s: Duration = Field(default=300.0, alias="remember", gt=0)
    look_without_groups: bool = False
    """Whether people may look while Slack does not say who is in a group; what changes anything is refused then."""


class AlertmanagerSend(_Section):
    """An Alertmanager that what fires is sent to, with these labels besides."""

    url: str = Field(pattern=r"^https?://\S+$")
    token: Secret | None = None
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = {}


class AlertmanagerReceive(_Section):
    """That Alertmanagers may post here, and the labels by which they name a host."""

    token: Secret
    host_labels: Words = ("destination_service", "destination_service_name", "service", "host")


class Alertmanagers(_Section):
    """Alertmanager on both sides."""

    send: tuple[AlertmanagerSend, ...] = ()
    receive: AlertmanagerReceive | None = None


class Health(_Section):
    """Where `/livez` and `/readyz` are answered; without a port nowhere."""

    port: int | None = Field(default=None, ge=0, le=65535)


class Settings(_Section):
    """Everything that `meshwhy run` and `meshwhy doctor` are told."""

    slack: Slack
    redis: Redis = Redis()
    state_dir: LocalPath
    clusters: RegisteredClusters
    alerts: Alerts
    alertmanager: Alertmanagers = Alertmanagers()
    health: Health = Health()

    @model_validator(mode="after")
    def _served(self) -> Settings:
        if self.alertmanager.receive is not None and self.health.port is None:
            raise _wrong("has alertmanager.receive, which is served on health.port: name one")
        return self

    access: Access | None = None
    """None: everybody in the workspace may do everything."""


class State(BaseModel):
    """The part of the file that says where state lives."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    redis: Redis = Redis()
    state_dir: LocalPath


class _OnlyClusters(BaseModel):
    """The part of the file that a question about the registered clusters needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    clusters: RegisteredClusters


class _OnlyAlerts(BaseModel):
    """The part of the file that a question about the routes needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    alerts: Alerts


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings that `path` holds, with secrets from `environ` and files.

    Without `state_dir`, state lives in `$XDG_STATE_HOME/meshwhy` (`~/.local/state/meshwhy`). Raises BadSettings.
    """
    document = _read(path)
    settings = _validate(Settings, document, _defaults(environ), environ)
    _defined(settings.alerts, document)
    return settings


def _defined(alerts: Alerts, document: _Document) -> Alerts:
    """The alerts' settings, where every time interval that is named is defined."""
    if wrong := [_at(document, loc, sentence) for loc, sentence in _undefined(alerts)]:
        raise BadSettings(*wrong)
    return alerts


_Loc = tuple[str | int, ...]


def _undefined(alerts: Alerts) -> Iterator[tuple[_Loc, str]]:
    """Where something is named that is not defined, and the sentence that says so."""

    def steps(escalation: Escalation | None, loc: _Loc) -> Iterator[tuple[_Loc, str, str]]:
        for i, step in enumerate(escalation or ()):
            yield from (((*loc, i, key), key, name) for key, name in (("on_call", step.on_call), ("page", step.page)) if name is not None)

    def below(routes: Sequence[AlertRoute], loc: _Loc) -> Iterator[tuple[_Loc, str, str]]:
        for i, route in enumerate(routes):
            yield from (((*loc, i, "hours"), "hours", name) for name in route.hours or ())
            yield from steps(route.escalation, (*loc, i, "escalation"))
            yield from below(route.routes, (*loc, i, "routes"))

    tables: dict[str, tuple[str, Mapping[str, object]]] = {
        "hours": ("time_intervals", alerts.time_intervals),
        "on_call": ("on_call", alerts.on_call),
        "page": ("pagers", alerts.pagers),
    }
    named = [*below(alerts.routes, ("alerts", "routes")), *steps(alerts.escalation, ("alerts", "escalation"))]
    named += [(("alerts", "mutes", i, "during"), "hours", name) for i, mute in enumerate(alerts.mutes) for name in mute.during or ()]
    for loc, key, name in named:
        title, table = tables[key]
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            yield loc, f"names {name}, which alerts.{title} does not define{hint}"


def state(path: Path, environ: Mapping[str, str]) -> State:
    """Only where state lives; of the secrets Redis' alone is looked up. Raises BadSettings."""
    return _validate(State, _read(path), _defaults(environ), environ)


def _defaults(environ: Mapping[str, str]) -> dict[str, str]:
    return {"state_dir": f"{environ.get('XDG_STATE_HOME') or '~/.local/state'}/meshwhy"}


def clusters(path: Path) -> tuple[RegisteredCluster, ...]:
    """Only the clusters that `path` registers; no secret is looked up, so whoever may read the clusters may ask. Raises BadSettings."""
    return _validate(_OnlyClusters, _read(path), {}, None).clusters


def alerts(path: Path) -> Alerts:
    """Only when and where `path` tells of alerts; no secret is looked up. Raises BadSettings."""
    document = _read(path)
    return _defined(_validate(_OnlyAlerts, document, {}, None).alerts, document)


_Model = TypeVar("_Model", bound=BaseModel)


def _validate(model: type[_Model], document: _Document, defaults: Mapping[str, Any], environ: Mapping[str, str] | None) -> _Model:
    try:
        return model.model_validate({**defaults, **document.content}, context=_Surroundings(document.path.parent, environ))
    except ValidationError as error:
        raise BadSettings(*(_sentence(model, document, e) for e in error.errors(include_url=False, include_input=False))) from None


def _sentence(model: type[BaseModel], document: _Document, error: ErrorDetails) -> str:
    """What is wrong, with file, line and key. The value itself is never repeated: it may be a secret in the wrong place."""
    loc = error["loc"]
    where = f"{document.path} line {document.line(loc)}: "
    key = _key(loc)
    match error["type"]:
        case "wrong":
            return _at(document, loc, f"{error['msg']}.")
        case "extra_forbidden":
            known = _keys(model, loc[:-1])
            near = difflib.get_close_matches(str(loc[-1]), known, n=1)
            return f"{where}{key} is not a setting; " + (
                f"did you mean {'.'.join(key.split('.')[:-1] + near)}?" if near else f"known here: {', '.join(known)}."
            )
        case "missing":
            return f"{where}{key} is missing."
        case "model_type" | "dict_type":
            return f"{where}{key} must hold keys of its own: {', '.join(_keys(model, loc)) or 'name: value'}."
        case "too_short":
            return f"{where}{key} must not be empty."
        case "string_pattern_mismatch" if loc[-1:] == ("name",):
            return f"{where}{key} must be a name without spaces, slashes, colons and equals signs."
        case "string_pattern_mismatch":
            return f"{where}{key} must start with http:// or https://."
        case "bool_parsing" | "bool_type":
            return f"{where}{key} must be true or false."
        case _:
            return f"{where}{key}: {error['msg'].replace('Input should', 'must', 1)}."


def _key(loc: tuple[str | int, ...]) -> str:
    """A place as people write it: `alerts.routes[0].match`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "the file"


def _at(document: _Document, loc: tuple[str | int, ...], sentence: str) -> str:
    """A sentence about a place, with file, line and key before it."""
    return f"{document.path} line {document.line(loc)}: {_key(loc)} {sentence}"


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a place."""
    named = False  # the next part is a name that people gave, as those of time intervals
    for part in loc:
        if isinstance(part, int) or named:
            named = False
            continue
        field = next((f for name, f in model.model_fields.items() if part in {name, f.alias}), None)
        inner = _section_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        model, named = inner, field is not None and get_origin(field.annotation) is dict
    return [f.alias or name for name, f in model.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, bare, optional or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_in(inner)) is not None), None)


class _Document(NamedTuple):
    """A YAML file as plain data, and the line where each key or list entry stands."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    def line(self, loc: tuple[str | int, ...]) -> int:
        """The line of a place, or of the nearest place around it that is written."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


def _read(path: Path) -> _Document:
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {_reason(error)}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadSettings(f"{path} line {mark.line + 1 if mark else 1}: not YAML, {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise BadSettings(f"{path} is not YAML: {error}.") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(content, dict):
        raise BadSettings(f"{path} holds no settings: it must be a YAML mapping with slack, clusters and alerts.")
    lines: dict[tuple[str | int, ...], int] = {}
    for loc, line in _places(node, ()) if node is not None else ():
        if loc in lines:
            raise BadSettings(f"{path} line {line}: {loc[-1]} stands twice, first in line {lines[loc]}.")
        lines[loc] = line
    return _Document(path, content, lines)


def _places(node: yaml.Node, loc: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Each key and list entry under a node with its line, from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*loc, key.value), key.start_mark.line + 1
            yield from _places(value, (*loc, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*loc, index), value.start_mark.line + 1
            yield from _places(value, (*loc, index))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
