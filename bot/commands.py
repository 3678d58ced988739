"""The command line: words of a person to one question, the answer to words, JSON or Slack's payload, and an exit status.

What must stay true: a question that cannot be answered gets one sentence on stderr and status 2, never a traceback; stdout carries the answer
and nothing else. Everything that a plain `meshwhy routes --from` does not need is imported where it is used: scripts start this often.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, suppress
from datetime import datetime  # noqa: TC003 - typer reads annotations at run time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

import msgspec
import typer

from templates import usage

if TYPE_CHECKING:
    from bot.audit import Entry, Wanted
    from bot.clusters import ClusterSource
    from bot.settings import State
    from bot.store import Store
    from checks.catalogue import Cause
    from checks.diagnosis import Diagnosis
    from checks.evidence import Evidence
    from checks.finding import Finding
    from checks.mesh import Cluster, Mesh
    from templates.blocks import Message

ANSWER_S = 30.0  # how long live clusters may take; what has not answered by then is unknown
COMPLETE_S = 2.0  # how long Tab may take
CLOSE_S = 1.0  # how long the bot's parts may take to close before they are asked again
PATIENCE_S = 1.0  # nobody needs a progress bar for less
WIDTH, WIDEST = 110, 140  # columns: without a terminal, and at most
ERROR, UNANSWERED = 1, 2
_MOMENTS = ["%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]

Serve = Callable[..., Coroutine[Any, Any, None]]
"""Runs the bot with these Settings, and by what their file (a Path, if it is given) says later."""


class Refused(Exception):
    """The question cannot be answered; the message is the sentence that says why."""


class Output(StrEnum):
    """What the answer is written for."""

    TEXT = "text"
    JSON = "json"
    SLACK = "slack"


class GateOutput(StrEnum):
    """What the answer about a change is written for."""

    TEXT = "text"
    JSON = "json"
    SLACK = "slack"
    GITHUB = "github"


class Colour(StrEnum):
    """When the answer is coloured."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


# --- what is asked ---------------------------------------------------------------------------------------------------------


class _Manifests(NamedTuple):
    """One --from: where the manifests are, and what their cluster and mesh are called."""

    path: str
    name: str
    mesh: str


_NAMED = re.compile(r"(?:(?P<mesh>[^\s/=:]+)/)?(?P<name>[^\s/=:]+)=(?P<path>.+)", re.DOTALL)
_SUFFIX = re.compile(r"(?:\.tar)?\.(?:ya?ml|json|gz|tgz|tar|zip|bz2|xz)$")
_VIEWPOINT = re.compile(r"(?:[^\s/:]+:)?[^\s/:]+(?:/[^\s/:]+)?")


def _manifests(word: str) -> _Manifests:
    """A --from as it was meant: a path that exists is a path, whatever characters it has."""
    if word == "-":
        return _Manifests("-", "stdin", "")
    if "=" in word and not os.path.lexists(word):
        found = _NAMED.fullmatch(word)
        if found is None:
            raise Refused(_refusals().bad_source(word))
        return _Manifests(found["path"], found["name"], found["mesh"] or "")
    if not word:
        raise Refused(_refusals().bad_source(word))
    name = _SUFFIX.sub("", Path(os.path.realpath(word)).name) or "cluster"
    return _Manifests(word, re.sub(r"[\s/=:]+", "-", name), "")


def _change(word: str) -> tuple[str, str]:
    """The cluster that a change is for (empty: wherever it fits) and its path; a path that exists is a path, whatever characters it has."""
    name, named, path = word.partition("=")
    if not named or os.path.lexists(word):
        return "", word
    if not name or not path:
        raise Refused(_refusals().bad_change(word))
    return name, path


class _Asked(NamedTuple):
    """The clusters of one question: manifests, and what is read live."""

    manifests: tuple[_Manifests, ...]
    live: tuple[ClusterSource, ...]


def _asked(contexts: Sequence[str] | None, froms: Sequence[str] | None, config: Path | None) -> _Asked:
    """Which clusters are meant; without a word about it the kubeconfig's current context, as kubectl and istioctl do."""
    if config is not None:
        if contexts or froms:
            raise Refused(_refusals().config_alone())
        from bot import settings
        from bot.clusters import ClusterSource

        return _Asked((), tuple(ClusterSource.registered(c) for c in settings.clusters(config)))
    manifests = tuple(_manifests(word) for word in froms or ())
    if sum(m.path == "-" for m in manifests) > 1:
        raise Refused(_refusals().twice_stdin())
    live: tuple[ClusterSource, ...] = ()
    if contexts or not manifests:
        from bot.clusters import ClusterSource

        live = tuple(ClusterSource(name=name, context=name) for name in contexts or (_current_context(),))
    names = [m.name for m in manifests] + [s.name for s in live]
    if doubled := next((n for n in names if names.count(n) > 1), None):
        raise Refused(_refusals().doubled(doubled))
    return _Asked(manifests, live)


def _current_context() -> str:
    from kubernetes.config import ConfigException, list_kube_config_contexts

    try:
        # Named here: the library's own default is what $KUBECONFIG was when it was imported.
        return str(list_kube_config_contexts(os.environ.get("KUBECONFIG") or "~/.kube/config")[1]["name"])
    except (ConfigException, OSError, TypeError, KeyError):
        raise Refused(_refusals().no_cluster()) from None


Progress = Callable[[str, int], None]


def _read(asked: _Asked, progress: Progress, timeout_s: float = ANSWER_S) -> tuple[list[Cluster], float]:
    """The clusters as they are at one instant, and that instant: now, or for files the time of the newest.

    Raises BadSource, NoSuchContext.
    """
    read: list[Cluster] = []
    instant = 0.0
    if asked.manifests:
        from bot import manifests

        # What stands in files does not age while one reads: all of it is as old as the newest.
        instant = max(_written(source.path) for source in asked.manifests)
        for source in asked.manifests:
            progress(source.name, 0)
            read.append(manifests.read(source.path, source.name, mesh=source.mesh, read_at=instant))
    if asked.live:
        import asyncio
        import time

        from bot import clusters

        read += asyncio.run(clusters.snapshot(asked.live, timeout_s=timeout_s, progress=progress))
        instant = time.time()
    return read, instant


def _written(path: str) -> float:
    """When a source was last written, in seconds since the epoch; 0 when that cannot be told."""
    try:
        if path == "-":
            return os.fstat(sys.stdin.fileno()).st_mtime
        inside = (f.stat().st_mtime for f in Path(path).rglob("*") if f.is_file()) if Path(path).is_dir() else ()
        return max(inside, default=0.0) or Path(path).stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def _meshes(asked: _Asked, progress: Progress) -> tuple[Mesh, ...]:
    """The meshes that are asked about; refused when nothing in them is Istio's."""
    from checks.mesh import Mesh

    clusters, instant = _read(asked, progress)
    if not any(_has_istio(c) for c in clusters):
        raise Refused(_refusals().no_istio([m.path for m in asked.manifests] or [c.name for c in clusters]))
    return Mesh.of(clusters, instant)


_MESH_LABELS = ("istio-injection", "istio.io/rev", "istio.io/dataplane-mode", "sidecar.istio.io/inject")
_MESH_CONTAINERS = {"istio-proxy", "discovery"}


def _has_istio(cluster: Cluster) -> bool:
    """Whether there is a trace of Istio; a cluster of which something could not be read may hold it there."""
    if cluster.unreadable:
        return True
    from checks.resources import KIND_OF, ConfigMap, Namespace, Pod, Workload

    for kind, spaces in cluster.objects.items():
        found = [o for space in spaces.values() for o in space.values()]
        if found and (kind is ConfigMap or KIND_OF[kind].group.endswith((".istio.io", "gateway.networking.k8s.io"))):
            return True
        for o in found:
            if isinstance(o, Namespace | Pod) and any(label in o.labels for label in _MESH_LABELS):
                return True
            spec = o.spec if isinstance(o, Pod) else o.spec.template.spec if isinstance(o, Workload) else None
            if spec is not None and any(c.name in _MESH_CONTAINERS for c in (*spec.containers, *(spec.init_containers or ()))):
                return True
    return any(m.reason for m in cluster.malformed)


def _nearest(word: str, known: Sequence[str]) -> list[str]:
    """What somebody may have meant: a longer word with the same beginning, else what is spelt nearly so."""
    import difflib

    return [k for k in known if word and k.startswith(word)][:3] or difflib.get_close_matches(word, known, n=3, cutoff=0.5)


def _refusals() -> Any:
    from templates import refusals

    return refusals


# --- what is answered ------------------------------------------------------------------------------------------------------


def _print(text: str | bytes) -> None:
    """Write to stdout; a reader that has gone (`| head`) has read enough."""
    try:
        if isinstance(text, bytes):
            sys.stdout.flush()
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.write(b"\n")
        else:
            sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at its end, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(answer: Any) -> None:
    _print(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def _show(
    answer: Any,
    output: Output,
    colour: Colour,
    *,
    text: Callable[[Any, Any, _Look], str],
    slack: Callable[[Any, Any], Message] | None,
) -> None:
    """Print an answer. `text` gets the terminal's words, `slack` the messages' (imported only now), then the answer as plain builtins."""
    match output:
        case Output.JSON:
            _json(answer)
        case Output.SLACK if slack is not None:
            from templates import messages

            message = slack(messages, msgspec.to_builtins(answer))
            _json({"text": message.text, "blocks": message.blocks})
        case _:
            from templates import terminal

            _print(text(terminal, msgspec.to_builtins(answer), _look(colour)))


class _Look(TypedDict):
    """How text is written here."""

    colour: bool
    width: int


def _look(colour: Colour) -> _Look:
    on_terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not on_terminal
    coloured = colour is Colour.ALWAYS or (colour is Colour.AUTO and not plain)
    return _Look(colour=coloured, width=min(shutil.get_terminal_size((WIDTH, 40)).columns, WIDEST) if on_terminal else WIDTH)


def _status(*, fails: bool, unknown: bool) -> int:
    """0 nothing at severity error, 1 some error, 2 not answered: what is known to fail counts before what is not known."""
    return ERROR if fails else UNANSWERED if unknown else 0


@contextmanager
def _patience(doing: str, color: Colour = Colour.AUTO) -> Iterator[Progress]:
    """A progress bar on stderr, when that is a terminal, once this takes longer than PATIENCE_S.

    The callback is told a cluster's name and how many of its objects have been read. Without colours it still moves the cursor.
    """
    if not sys.stderr.isatty():
        yield lambda _name, _count: None
        return
    told: dict[str, int] = {}
    over = threading.Event()

    def show() -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
        plain = True if color is Colour.NEVER else None  # None: as the terminal and NO_COLOR say
        with Progress(*columns, console=Console(stderr=True, no_color=plain), transient=True) as bar:
            task = bar.add_task(doing, total=None)
            while not over.wait(0.1):
                so_far = ", ".join(f"{name} {count:,}" if count else name for name, count in tuple(told.items()))
                bar.update(task, description=f"{doing} {so_far}".rstrip())

    timer = threading.Timer(PATIENCE_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield told.__setitem__
    finally:
        over.set()
        timer.cancel()
        timer.join()


# --- completion ------------------------------------------------------------------------------------------------------------


_Completing = Callable[[], Iterable[str]]


def _quietly(offer: _Completing) -> list[str]:
    """What can be offered at once; Tab is no place for a sentence."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123 - a device, no path
        try:
            return list(offer())
        except OSError:
            return []
        except _unanswerable():
            return []


def _complete_host(ctx: typer.Context, incomplete: str) -> list[str]:
    def offer() -> Iterator[str]:
        from checks.resources import Service, ServiceEntry, VirtualService

        given = ctx.params
        clusters, _ = _read(_asked(given.get("context"), given.get("from_"), given.get("config")), lambda _name, _count: None, COMPLETE_S)
        found: set[str] = set()
        for cluster in clusters:
            for o in cluster.all(Service):
                found.add(f"{o.name}.{o.namespace}")
                found.add(f"{o.name}.{o.namespace}.svc.cluster.local")
            for entry in cluster.all(ServiceEntry):
                found.update(entry.spec.hosts or ())
            for rules in cluster.all(VirtualService):
                found.update(h for h in rules.spec.hosts or () if "." in h)
        fitting = sorted(h for h in found if h.startswith(incomplete) and "*" not in h)
        # The long form of a Service is offered only to somebody who is typing it.
        short = [h for h in fitting if not h.endswith(".svc.cluster.local")]
        yield from short or fitting

    return _quietly(offer)


def _complete_context(incomplete: str) -> list[str]:
    def offer() -> Iterator[str]:
        from bot import clusters

        # bash breaks words at colons (an EKS context is arn:aws:eks:…) and replaces only what stands after the last one.
        before = os.environ.get(BEFORE, "")
        yield from sorted(name.removeprefix(before) for name in clusters.contexts() if name.startswith(before + incomplete))

    return _quietly(offer)


def _complete_check(incomplete: str) -> list[str]:
    from checks.catalogue import CAUSES

    codes = incomplete[:1].isupper()
    return [name for c in CAUSES.values() if (name := c.code if codes else c.id).startswith(incomplete)]


def _complete_verb(incomplete: str) -> list[str]:
    from bot.access import NEEDS

    return [verb for verb in NEEDS if verb.startswith(incomplete)]


BEFORE = "MESHWHY_COMPBEFORE"


def mend_bash_words(environ: MutableMapping[str, str]) -> None:
    """Put together again, in bash's own variables, the words that it broke at `=` and `:` before it asked what could complete them."""
    position = environ.get("COMP_CWORD", "")
    if "COMP_WORDS" not in environ or not position.isdigit():
        return
    broken = environ["COMP_WORDS"].split("\n")
    *before, current = [*broken, ""][: int(position) + 1]
    words: list[str] = []
    glue = False
    for word in before:
        if words and (glue or word in {"=", ":"}):
            words[-1] += word
        else:
            words.append(word)
        glue = word in {"=", ":"}
    environ[BEFORE] = ""
    if words and current in {"=", ":"}:
        environ[BEFORE], current = words.pop() + current, ""
    elif words and glue:
        environ[BEFORE] = words.pop()
    environ["COMP_WORDS"] = "\n".join([*words, current])
    environ["COMP_CWORD"] = str(len(words))


# --- the commands ----------------------------------------------------------------------------------------------------------

app = typer.Typer(
    help=usage.MESHWHY,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # help is read in pipes and pagers too, and [CLUSTER:]NAMESPACE is no markup
)

Host = Annotated[str, typer.Argument(metavar="HOST", help=usage.HOST, autocompletion=_complete_host, show_default=False)]
AnyHost = Annotated[str | None, typer.Argument(metavar="HOST", help=usage.HOST, autocompletion=_complete_host, show_default=False)]
As = Annotated[list[str] | None, typer.Option("--as", metavar="[CLUSTER:]NS[/POD]", help=usage.AS, show_default=False)]
Contexts = Annotated[
    list[str] | None, typer.Option("--context", metavar="NAME", help=usage.CONTEXT, autocompletion=_complete_context, show_default=False)
]
From = Annotated[list[str] | None, typer.Option("--from", metavar="SOURCE", help=usage.FROM, show_default=False)]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help=usage.CONFIG, show_default=False)]
SettingsFile = Annotated[Path, typer.Option("--config", metavar="FILE", help=usage.CONFIG_RUN, show_default=False)]
Probing = Annotated[bool, typer.Option("--probe", help=usage.PROBE)]
Lives = Annotated[list[str] | None, typer.Option("--live", metavar="[CLUSTER=]PATH", help=usage.LIVE, show_default=False)]
Envoys = Annotated[list[str] | None, typer.Option("--envoy", metavar="[CLUSTER:]NS/POD=WHERE", help=usage.ENVOY, show_default=False)]
Then = Annotated[str, typer.Option("--at", metavar="TIME", help=usage.THEN, show_default=False)]
For = Annotated[Output, typer.Option("-o", "--output", help=usage.OUTPUT)]
Colours = Annotated[Colour, typer.Option("--color", help=usage.COLOR)]


@app.callback()
def meshwhy(ctx: typer.Context, *, version: Annotated[bool, typer.Option("--version", help=usage.VERSION)] = False) -> None:
    """Without a command: what there is to ask."""
    if version:
        from importlib.metadata import version as installed

        _print(f"meshwhy {installed('meshwhy')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        _print(ctx.get_help())


@app.command(help=usage.WHY)
def why(
    host: Host,
    *,
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    envoy: Envoys = None,
    live: Lives = None,
    probe: Probing = False,
    at: Then = "",
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """The diagnosis of one host, as it is now or as a bot has seen it."""
    if at:
        if config is None or envoy or live or probe:
            raise Refused(_refusals().at_alone())
        return _then(host, at, config, output, color)
    with _patience("Reading", color) as progress:
        found = _diagnosed(host, _asked(context, from_, config), envoy or (), live or (), progress, probe=probe, allowed=config is None)
    _show(
        found.answer,
        output,
        color,
        text=lambda terminal, plain, look: terminal.why(plain, **look),
        slack=lambda messages, plain: messages.why(plain),
    )
    return found.status


class _Diagnosed(NamedTuple):
    """The answer about a host, and what it was made of."""

    answer: Diagnosis
    meshes: Sequence[Mesh]
    evidence: Evidence

    @property
    def status(self) -> int:
        """The exit status that says it."""
        from checks.diagnosis import Verdict

        fails = self.answer.failing_share > 0 or _any_error(self.answer.findings)
        return _status(fails=fails, unknown=self.answer.verdict is Verdict.UNKNOWN)


def _diagnosed(
    host: str, asked: _Asked, envoys: Sequence[str], lives: Sequence[str], progress: Progress, *, probe: bool, allowed: bool
) -> _Diagnosed:
    """The diagnosis of a host with what running parts, or what was saved of them, show; `probe` asks them, `allowed` whatever the settings say."""
    from checks import diagnosis
    from checks.evidence import NOTHING

    meshes = _meshes(asked, progress)
    with _among(meshes):
        evidence = _evidence(host, meshes, envoys) + _saved(meshes, lives)
        evidence += _probed(host, meshes, asked, allowed=allowed) if probe else NOTHING
        return _Diagnosed(diagnosis.why(host, meshes, evidence), meshes, evidence)


@app.command(help=usage.RUNBOOK)
def runbook(
    host: Host,
    *,
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    envoy: Envoys = None,
    live: Lives = None,
    probe: Probing = False,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """The steps that a specialist would take, and what each shows."""
    with _patience("Reading", color) as progress:
        from checks import diagnosis
        from checks import runbook as steps
        from checks.changed import changed

        found = _diagnosed(host, _asked(context, from_, config), envoy or (), live or (), progress, probe=probe, allowed=config is None)
        taken = steps.steps(found.answer, found.evidence, changes=changed(found.answer, found.meshes))
    answer = {
        "host": found.answer.host,
        "verdict": found.answer.verdict,
        "failing_share": found.answer.failing_share,
        "steps": taken,
        "found": [f for f in found.answer.findings if f.cause in diagnosis.live()],
    }
    _show(
        answer,
        output,
        color,
        text=lambda terminal, plain, look: terminal.runbook(plain, **look),
        slack=lambda messages, plain: messages.runbook({**plain, "others": 0, "running": False, "took_s": None}),
    )
    return found.status


def _then(host: str, at: str, config: Path, output: Output, color: Colour) -> int:
    """The diagnosis of a host as it stood at an instant of the last day, from what the bot of these settings kept."""
    view = _day(host, config, at)
    told = view["diagnosis"]
    if told is None:
        raise Refused(_refusals().not_kept(view))
    kept = {key: view[key] for key in ("at", "since", "until", "changes")}
    _show(
        {**told, "then": kept} if output is Output.JSON else view,
        output,
        color,
        text=lambda terminal, plain, look: terminal.then(plain, **look),
        slack=lambda messages, plain: messages.changes(plain),
    )
    return _status(fails=told["failing_share"] > 0, unknown=told["verdict"] == "unknown")


def _day(host: str, config: Path, at: str = "") -> dict[str, Any]:
    """A host's last day as the bot of these settings kept it, at an instant, else now. Raises Refused, UnknownHost, NoState, redis.RedisError."""
    import asyncio

    from bot import history, settings
    from checks import diagnosis

    if diagnosis.port_of(host) is not None:
        raise Refused(_refusals().no_port_then(host))
    now = time.time()
    instant = history.when(at, now, None) if at else now
    if instant is None:
        raise Refused(_refusals().bad_time(at))

    async def read() -> list[history.Past]:
        async with _opened(settings.state(config, os.environ)) as store:
            found = history.resolve(host, await history.hosts(store))
            return [await history.past(store, mesh, name, now) for name, mesh in found]

    return history.view(asyncio.run(read()), instant, now)


@app.command(help=usage.CHANGES)
def changes(
    host: Host,
    *,
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """What changed on a host's way: of registered clusters its last day as the bot kept it, of others what objects say of themselves."""
    if config is not None:
        _show(
            _day(host, config),
            output,
            color,
            text=lambda terminal, plain, look: terminal.changes(plain, **look),
            slack=lambda messages, plain: messages.changes(plain),
        )
        return 0
    with _patience("Reading", color) as progress:
        from checks import diagnosis
        from checks.changed import changed

        meshes = _meshes(_asked(context, from_, None), progress)
        with _among(meshes):
            answer = diagnosis.why(host, meshes)
        found = changed(answer, meshes)
    _show(
        {"host": answer.host, "changes": found},
        output,
        color,
        text=lambda terminal, plain, look: terminal.last_changes(plain, **look),
        slack=lambda messages, plain: messages.last_changes(plain),
    )
    return 0


def _evidence(host: str, meshes: Sequence[Mesh], envoys: Sequence[str]) -> Evidence:
    """What live Envoys, or their saved dumps, hold."""
    import asyncio

    from checks import diagnosis
    from checks.evidence import NOTHING, Evidence

    if not envoys:
        return NOTHING

    from bot.probes import envoy

    names = [c.name for mesh in meshes for c in mesh.clusters]
    try:
        wheres = [envoy.Where.parse(text, cluster=names[0] if len(names) == 1 else "") for text in envoys]
    except ValueError as error:
        raise Refused(_refusals().bad_envoy(str(error))) from None
    for w in wheres:  # of a pod that nobody knows the clusters' own names are told
        diagnosis.routes(meshes, host, [f"{w.cluster}:{w.namespace}/{w.pod}".removeprefix(":")])
    views, skipped = asyncio.run(envoy.read(wheres))
    return Evidence(envoys=tuple(views), skipped=tuple(skipped))


def _probed(host: str, meshes: Sequence[Mesh], asked: _Asked, *, allowed: bool) -> Evidence:
    """What running parts say now; `allowed`: as far as who asks is permitted, else as far as the settings allow."""
    import asyncio
    from contextlib import AsyncExitStack

    from bot.clusters import server
    from bot.informers import Pace
    from bot.probes import asking, gather
    from checks import diagnosis
    from checks.evidence import NOTHING

    async def probed() -> Evidence:
        async with AsyncExitStack() as stack:
            reach = {m.name: asking.Reach(None) for m in asked.manifests}
            for s in asked.live:
                opened = await stack.enter_async_context(server(s, Pace())) if s.path is None else None
                reach[s.name] = asking.Reach(
                    opened, allowed or s.deep, allowed or s.logs, s.in_cluster, s.access_log, s.prometheus, files=s.path is not None
                )
            found = NOTHING
            async for gathered in gather(asking.probing(reach.__getitem__)(diagnosis.why(host, meshes), meshes)):
                found = gathered.evidence
            return found

    return asyncio.run(probed())


def _saved(meshes: Sequence[Mesh], lives: Sequence[str]) -> Evidence:
    """What saved evidence says of the clusters."""
    from checks.evidence import NOTHING

    found = NOTHING
    known = [c.name for mesh in meshes for c in mesh.clusters]
    for word in lives:
        from bot.probes import saved

        name, named, path = word.partition("=")
        if not named or os.path.lexists(word):
            name, path = (known[0] if len(known) == 1 else ""), word
        if name not in known:
            raise Refused(_refusals().bad_live(word, known))
        if not os.path.lexists(path):
            raise Refused(_refusals().no_live(path))
        found += saved.read(path, cluster=name)
    return found


@app.command(help=usage.ROUTES)
def routes(
    host: AnyHost = None,
    *,
    as_: As = None,
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """The routes as callers' Envoys hold them."""
    for word in as_ or ():
        if not _VIEWPOINT.fullmatch(word):
            raise Refused(_refusals().bad_viewpoint(word))
    if output is Output.SLACK and host is None:
        raise Refused(_refusals().no_slack_form("routes without HOST"))
    with _patience("Reading", color) as progress:
        from checks import diagnosis

        meshes = _meshes(_asked(context, from_, config), progress)
        with _among(meshes):
            answer = diagnosis.routes(meshes, host, as_ or ())
    _show(
        {"routes": answer},
        output,
        color,
        text=lambda terminal, plain, look: terminal.routes(plain["routes"], **look),
        slack=lambda messages, plain: messages.routes(answer[0].host if answer else host, plain["routes"]),
    )
    return _status(fails=any(r.failing_share > 0 for r in answer), unknown=not _complete(meshes))


@app.command(help=usage.SWEEP)
def sweep(
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """Every finding of every host."""
    with _patience("Reading", color) as progress:
        from checks import diagnosis

        meshes = _meshes(_asked(context, from_, config), progress)
        parts = [diagnosis.sweep(mesh) for mesh in meshes]
    answer = diagnosis.Sweep(
        hosts=sum(part.hosts for part in parts),
        findings=diagnosis.once(f for part in parts for f in part.findings),
        skipped=tuple(dict.fromkeys(s for part in parts for s in part.skipped)),
        clusters=tuple(c for part in parts for c in part.clusters),
    )
    _show(
        answer,
        output,
        color,
        text=lambda terminal, plain, look: terminal.sweep(plain, **look),
        slack=lambda messages, plain: messages.broken(plain),
    )
    return _status(fails=_any_error(answer.findings), unknown=bool(answer.skipped))


@app.command(help=usage.WHATIF)
def whatif(
    change: Annotated[list[str] | None, typer.Argument(metavar="CHANGE", help=usage.CHANGE, show_default=False)] = None,
    *,
    delete: Annotated[list[str] | None, typer.Option("--delete", metavar="FILE", help=usage.DELETE, show_default=False)] = None,
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
    output: Annotated[GateOutput, typer.Option("-o", "--output", help=usage.OUTPUT_WHATIF)] = GateOutput.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """The findings that a change would introduce and resolve."""
    wanted = [(*_change(word), False) for word in change or ()] + [(*_change(word), True) for word in delete or ()]
    if not wanted:
        raise Refused(_refusals().no_change())
    with _patience("Weighing", color) as progress:
        from bot import changes

        asked = _asked(context, from_, config)
        if sum(path == "-" for path in [*(path for _, path, _ in wanted), *(m.path for m in asked.manifests)]) > 1:
            raise Refused(_refusals().stdin_once())
        passed: Counter[str] = Counter()
        planned: list[changes.Planned] = []
        empty: list[changes.NothingToWeigh] = []
        for cluster, path, gone in wanted:
            try:
                planned += changes.read(path, cluster=cluster, delete=gone, passed=passed)
            except changes.NothingToWeigh as nothing:
                empty.append(nothing)
        if not planned:
            raise empty[0]
        meshes = _meshes(asked, progress)
        aimed = changes.aim(planned, meshes)
        answer = changes.weigh(aimed, meshes)
    told = msgspec.to_builtins(changes.told(answer, aimed, meshes, passed, map(str, empty)))
    if output is GateOutput.GITHUB:
        from templates import terminal

        _print(terminal.github(told))
    else:
        _show(
            answer if output is GateOutput.JSON else told,
            Output(output.value),
            color,
            text=lambda terminal, plain, look: terminal.whatif(plain, **look),
            slack=lambda messages, plain: messages.whatif(plain),
        )
    if output in {GateOutput.JSON, GateOutput.GITHUB}:
        for note in told["notes"]:
            _tell(note)
    if told["unread"]:
        _tell(_refusals().unread(told["unread"]))
    return _status(fails=_any_error(answer.introduced), unknown=bool(told["unread"]))


@app.command(help=usage.CHECKS)
def checks(
    cause: Annotated[
        str | None, typer.Argument(metavar="ID|CODE", help=usage.CHECK, autocompletion=_complete_check, show_default=False)
    ] = None,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """The catalogue, or one cause explained."""
    from checks import diagnosis, finding
    from checks.case import SAME_AS, same_as
    from checks.catalogue import CAUSES, UNPATCHED

    pages = diagnosis.pages()

    def row(known: Cause) -> dict[str, Any]:
        return {
            **known._asdict(),
            "implemented": known.id in pages,
            "same_as": SAME_AS.get(known.id, ()),
            "no_patch": UNPATCHED.get(known.id),
        }

    known = finding.cause(cause) if cause is not None else None
    also = same_as(cause) if cause is not None and known is None else ()
    if len(also) == 1:
        (known,) = also
    if cause is None or len(also) > 1:
        if output is Output.SLACK:
            raise Refused(_refusals().no_slack_form(f"checks {cause}" if cause else "checks without a cause"))
        rows = [row(c) for c in also or CAUSES.values()]
        _show({"checks": rows}, output, color, text=lambda terminal, plain, look: terminal.checks(plain["checks"], **look), slack=None)
        return 0
    if known is None:
        codes = sorted({code for c in CAUSES.values() for code in (c.code, *SAME_AS.get(c.id, ()))})
        by_code = re.fullmatch(r"(?:MESH|IST|KIA)?\d*", cause.upper()) is not None
        wanted = f"MESH{cause}" if cause.isdigit() else cause.upper() if by_code else cause.lower()
        raise Refused(_refusals().no_check(cause, _nearest(wanted, codes if by_code else list(CAUSES))))
    page = pages.get(known.id)
    _show(
        {**row(known), "page": page},
        output,
        color,
        text=lambda terminal, plain, look: terminal.explain(plain, page, **look),
        slack=lambda messages, plain: messages.explain(plain, page),
    )
    return 0


@app.command(help=usage.RECORD)
def record(
    out: Annotated[str, typer.Option("--out", metavar="FILE", help=usage.OUT, show_default=False)],
    context: Contexts = None,
    from_: From = None,
    config: Config = None,
) -> int:
    """A snapshot of a cluster that every other command reads."""
    from bot import manifests

    with _patience("Reading") as progress:
        clusters, _ = _read(_asked(context, from_, config), progress)
    into = Path(out) if out.endswith("/") or os.path.isdir(out) else None  # noqa: PTH112 - Path's own raises where nobody may look
    if len(clusters) > 1 and into is None:
        raise Refused(_refusals().several_in_one_file())
    for cluster in clusters:
        path = out
        if into is not None:
            try:
                into.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Refused(_refusals().unwritable(out, error.strerror or str(error))) from None
            path = str(into / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', cluster.name)}.tar.gz")
        manifests.write(cluster, path)
        gaps = [f"{kind} ({reason})" for kind, reason in cluster.unreadable.items()]
        _tell(_refusals().recorded(cluster.name, path, gaps))
    return _status(fails=False, unknown=any("*" in c.unreadable for c in clusters))


@app.command(help=usage.RUN)
def run(ctx: typer.Context, config: SettingsFile) -> int:
    """The bot."""
    import logging

    from bot import settings

    logging.getLogger().setLevel(logging.INFO)
    return _until_told("bot", ctx.obj(settings.load(config, os.environ), config))


@app.command(help=usage.DEMO)
def demo(
    ctx: typer.Context,
    state: Annotated[Path | None, typer.Option("--state", metavar="DIR", help=usage.STATE, show_default=False)] = None,
    every_s: Annotated[float, typer.Option("--every", metavar="SECONDS", help=usage.EVERY, min=0)] = 90,
    port: Annotated[int, typer.Option("--port", help=usage.PORT, min=0, max=65535)] = 0,
) -> int:
    """The bot on recorded clusters beside a local Slack workspace."""
    from bot.demo import runner

    place = state.absolute() if state else runner.place(Path.cwd(), os.environ)
    return _until_told(
        "demo", runner.demo(ctx.obj, place, every_s=every_s, port=port, say=lambda page, why: _print(_refusals().demo(page, why)))
    )


def _until_told(what: str, work: Coroutine[Any, Any, None]) -> int:
    """Run something until SIGTERM or Ctrl-C, and let it close what it opened; the second signal does not wait for that."""
    import asyncio
    import signal

    async def supervised() -> None:
        loop, task, told = asyncio.get_running_loop(), asyncio.ensure_future(work), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        await asyncio.wait({task, asyncio.ensure_future(told.wait())}, return_when=asyncio.FIRST_COMPLETED)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        ending = {task}
        while not task.done():
            for one in ending:
                one.cancel()
            await asyncio.wait({task}, timeout=CLOSE_S)
            # Python 3.11's wait_for swallows a cancellation that comes together with what it waits for: whoever is still there is asked again.
            ending = asyncio.all_tasks() - {asyncio.current_task()}
        await task

    try:
        asyncio.run(supervised())
    except asyncio.CancelledError:
        return 0
    except OSError as error:
        raise Refused(_refusals().no_start(what, str(error))) from None
    return 0


@app.command(help=usage.DOCTOR)
def doctor(config: SettingsFile, output: For = Output.TEXT, color: Colours = Colour.AUTO) -> int:
    """What works, what does not, and how to mend it."""
    import asyncio

    from bot import doctor as doctors
    from bot import settings

    if output is Output.SLACK:
        raise Refused(_refusals().no_slack_form("doctor"))
    with _patience("Trying what the bot needs", color):
        rows = asyncio.run(doctors.examine(settings.load(config, os.environ)))
    _show({"doctor": rows}, output, color, text=lambda terminal, plain, look: terminal.doctor(plain["doctor"], **look), slack=None)
    return _status(fails=any(r["state"] == "bad" for r in rows), unknown=False)


@app.command("alert-routes", help=usage.ALERT_ROUTES)
def alert_routes(
    config: SettingsFile,
    namespace: Annotated[str, typer.Option("--namespace", "-n", metavar="NS", help=usage.ROUTED_NAMESPACE)] = "default",
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help=usage.ROUTED_CLUSTER)] = "",
    cause: Annotated[str, typer.Option("--cause", metavar="CODE", help=usage.ROUTED_CAUSE, autocompletion=_complete_check)] = "MESH101",
    share: Annotated[float, typer.Option("--share", min=0, max=1, help=usage.ROUTED_SHARE)] = 1.0,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help=usage.ROUTED_LABEL)] = None,
    team: Annotated[list[str] | None, typer.Option("--team", metavar="TEAM", help=usage.ROUTED_TEAM)] = None,
    when: Annotated[datetime | None, typer.Option("--at", formats=_MOMENTS, help=usage.ROUTED_AT)] = None,
    contexts: Contexts = None,
    froms: From = None,
    output: For = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """Where an alert would be told, and why."""
    from bot import routing, settings
    from checks.catalogue import CAUSES
    from checks.finding import Finding, Severity
    from checks.finding import cause as cause_named

    if output is Output.SLACK:
        raise Refused(_refusals().no_slack_form("alert-routes"))
    if (known := cause_named(cause)) is None:
        raise Refused(_refusals().no_check(cause, _nearest(cause, [name for c in CAUSES.values() for name in (c.id, c.code)])))
    given = settings.alerts(config)
    finding = Finding(
        cause=known.id,
        code=known.code,
        severity=Severity.ERROR,
        cluster=cluster,
        resource=f"Namespace {namespace}",
        path="",
        host=f"any.{namespace}.svc.cluster.local",
        viewpoints=(),
        failing_share=share,
        message="",
    )
    about = routing.about(finding, None)
    if contexts or froms:
        with _patience("Reading the cluster", color) as progress:
            meshes = _meshes(_asked(contexts, froms, None), progress)
        place = next(((m, c.name) for m in meshes for c in m.clusters if cluster in ("", c.name)), None)
        if place is not None:
            about = routing.about(msgspec.structs.replace(finding, cluster=place[1]), place[0])
    labels = (dict(word.partition("=")[::2] for word in label or ()),) if label else ()
    about = about._replace(labels=(*about.labels, *labels), teams=(*(team or ()), *about.teams))
    moment = when.timestamp() if when is not None else time.time()
    found = routing.route(about, given, moment)
    steps = [(step.after_s, routing.asked(step, given, moment + step.after_s)) for step in found.escalation]
    answer = {
        "receivers": found.receivers,
        "quiet": None if found.quiet is None else {"why": found.quiet.why, "until": found.quiet.until},
        "team": found.team,
        "escalation": [{"after_s": after_s, "to": asked.to, "words": asked.words} for after_s, asked in steps],
        "because": found.because,
    }
    _show(answer, output, color, text=lambda terminal, plain, look: terminal.alert_routes(plain, **look), slack=None)
    return 0


@app.command(help=usage.AUDIT)
def audit(
    config: SettingsFile,
    *,
    user: Annotated[str, typer.Option("--user", metavar="ID", help=usage.USER, show_default=False)] = "",
    verb: Annotated[str, typer.Option("--verb", metavar="VERB", help=usage.VERB, autocompletion=_complete_verb, show_default=False)] = "",
    since: Annotated[str, typer.Option("--since", metavar="DURATION", help=usage.SINCE, show_default=False)] = "",
    most: Annotated[int, typer.Option("-n", "--most", metavar="N", help=usage.MOST, min=1)] = 100,
    output: Annotated[Output, typer.Option("-o", "--output", help=usage.OUTPUT_AUDIT)] = Output.TEXT,
    color: Colours = Colour.AUTO,
) -> int:
    """What people did, and what they were refused."""
    import asyncio
    import time

    from bot import settings
    from bot.access import NEEDS
    from bot.audit import Wanted

    long = settings.duration(since) if since else 0.0
    if long is None:
        raise Refused(_refusals().bad_since(since))
    if verb and verb not in NEEDS:
        raise Refused(_refusals().no_verb(verb, _nearest(verb, list(NEEDS))))
    wanted = Wanted(user, verb, time.time() - long if since else 0.0)
    found = asyncio.run(_on_record(settings.state(config, os.environ), wanted, most))
    if output is Output.JSON:
        for entry in found:
            _print(msgspec.json.encode(entry).decode())
        return 0
    _show(
        {"audit": found},
        output,
        color,
        text=lambda terminal, plain, look: terminal.audit(plain["audit"], **look),
        slack=lambda messages, plain: messages.audit(plain["audit"], ""),
    )
    return 0


async def _on_record(state: State, wanted: Wanted, most: int) -> list[Entry]:
    """The newest entries that are wanted, from the store that the settings name. Raises NoState, redis.RedisError."""
    from bot.audit import Audit

    async with _opened(state) as store:
        found: list[Entry] = []
        async for _, entry in Audit(store).read(wanted):
            found.append(entry)
            if len(found) == most:
                break
        return found


@asynccontextmanager
async def _opened(state: State) -> AsyncIterator[Store]:
    """The store that the settings name. Raises NoState, redis.RedisError."""
    from contextlib import AsyncExitStack

    from bot.store import Store
    from bot.valkey import reached

    async with AsyncExitStack() as stack:
        given = state.redis.url
        url = given.get_secret_value() if given else await stack.enter_async_context(reached(state.state_dir.absolute() / "valkey"))
        store = Store(url)
        stack.push_async_callback(store.close)
        yield store


@contextmanager
def _among(meshes: Sequence[Mesh]) -> Iterator[None]:
    """What is not found is only known not to be there when everything could be read."""
    from checks.diagnosis import UnknownHost
    from checks.routes import UnknownViewpoint

    try:
        yield
    except (UnknownHost, UnknownViewpoint) as error:
        gaps = [f"{c.name}: {reason}" for mesh in meshes for c in mesh.clusters for reason in dict.fromkeys(c.missing.values())]
        if gaps and not (isinstance(error, UnknownHost) and error.ambiguous):
            raise Refused(_refusals().not_found(error.word, gaps)) from None
        raise


def _any_error(findings: Iterable[Finding]) -> bool:
    return any(f.severity == "error" for f in findings)


def _complete(meshes: Iterable[Mesh]) -> bool:
    """Whether every cluster could be read in full."""
    return all(c.synced and not c.missing for mesh in meshes for c in mesh.clusters)


# --- the door --------------------------------------------------------------------------------------------------------------


def answer(arguments: Sequence[str], serve: Serve) -> int:
    """Do what the arguments of a command line say; the exit status. `serve` is the bot, made of all its parts."""
    mend_bash_words(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without ✗ still gets its answer
    try:
        status = typer.main.get_command(app).main(args=list(arguments), prog_name="meshwhy", standalone_mode=False, obj=serve)
    except typer.TyperException as error:
        _tell(" ".join(error.format_message().replace("Value error, ", "").split()))
        return UNANSWERED
    except typer.Abort:
        return UNANSWERED
    except _unanswerable() as error:
        _tell(_sentence(error))
        return UNANSWERED
    return status if isinstance(status, int) else 0


def _tell(sentence: str) -> None:
    with suppress(BrokenPipeError):
        print(sentence, file=sys.stderr, flush=True)


def _unanswerable() -> tuple[type[Exception], ...]:
    """What a question may fail with, each worded for people; evaluated (and imported) only when one is raised."""
    from redis.exceptions import RedisError

    from bot.changes import BadChange
    from bot.clusters import NoSuchContext
    from bot.manifests import BadSource
    from bot.settings import BadSettings
    from bot.store import NewerSchema
    from bot.valkey import NoState
    from checks.diagnosis import UnknownHost
    from checks.routes import UnknownViewpoint

    return Refused, BadSource, BadChange, BadSettings, NoSuchContext, NoState, NewerSchema, RedisError, UnknownHost, UnknownViewpoint


def _sentence(error: Exception) -> str:
    from redis.exceptions import RedisError

    from checks.diagnosis import UnknownHost
    from checks.routes import UnknownViewpoint

    match error:
        case RedisError():
            return str(_refusals().no_store(str(error) or type(error).__name__))
        case UnknownHost():
            from templates import terminal

            return terminal.unknown_host(error.word, error.candidates, error.ambiguous)
        case UnknownViewpoint():
            return str(_refusals().no_viewpoint(error.word, error.known))
    return str(error)
