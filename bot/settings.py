"""What the bot was told: one YAML file and the environment, as frozen settings, or one sentence for each thing that is wrong.

What must stay true: a key nobody knows and a value of the wrong form are named with their line; a secret stands in the environment or in a
file, never in the YAML, and never in a repr. Relative paths are relative to the settings file.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic and NamedTuple read annotations at run time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import urlsplit

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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

SLACK_API = "https://slack.com/api/"


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


Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Duration = Annotated[float, BeforeValidator(_seconds)]
LocalPath = Annotated[Path, BeforeValidator(_path)]
Words = Annotated[tuple[str, ...], BeforeValidator(_several)]
Channel = Annotated[str, BeforeValidator(_channel)]


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


class Prometheus(_Section):
    """A cluster's Prometheus."""

    url: str = Field(pattern=r"^https?://")


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


class Match(_Section):
    """What a finding must be for its alert to take a route; what is left out fits everything."""

    namespace: Words | None = None
    label: Annotated[dict[str, str], BeforeValidator(_labels)] | None = None
    cluster: Words | None = None
    severity: Literal["error", "warning", "info"] | None = None
    cause: Words | None = None


class AlertRoute(_Section):
    """Which channel gets what fits."""

    match: Match
    channel: Channel


class EscalationStep(_Section):
    """Who is told, so long after an alert fired, when nobody sees to it: a person or a user group, by id."""

    after_s: Duration = Field(alias="after")
    to: Annotated[str, BeforeValidator(_person)]


def _later(steps: tuple[EscalationStep, ...]) -> tuple[EscalationStep, ...]:
    if any(a.after_s >= b.after_s for a, b in pairwise(steps)):
        raise _wrong("must have its steps in the order of time, each later than the one before")
    return steps


class Alerts(_Section):
    """When a finding becomes a message, and where; seconds."""

    for_s: Duration = Field(default=10.0, alias="for")
    clear_s: Duration = Field(default=30.0, alias="clear")
    default_channel: Channel
    routes: tuple[AlertRoute, ...] = ()
    escalation: Annotated[tuple[EscalationStep, ...], AfterValidator(_later)] = ()


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
    health: Health = Health()
    access: Access | None = None
    """None: everybody in the workspace may do everything."""


class _OnlyClusters(BaseModel):
    """The part of the file that a question about the registered clusters needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)
    clusters: RegisteredClusters


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings that `path` holds, with secrets from `environ` and files.

    Without `state_dir`, state lives in `$XDG_STATE_HOME/meshwhy` (`~/.local/state/meshwhy`). Raises BadSettings.
    """
    document = _read(path)
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return _validate(Settings, document, {"state_dir": f"{state}/meshwhy"}, environ)


def clusters(path: Path) -> tuple[RegisteredCluster, ...]:
    """Only the clusters that `path` registers; no secret is looked up, so whoever may read the clusters may ask. Raises BadSettings."""
    return _validate(_OnlyClusters, _read(path), {}, None).clusters


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
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".") or "the file"
    match error["type"]:
        case "wrong":
            return f"{where}{key} {error['msg']}."
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


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a place."""
    for part in loc:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in {name, f.alias}), None)
        inner = _section_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
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
