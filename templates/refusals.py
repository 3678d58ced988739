"""The one sentence for each question that the command line cannot answer, and for each thing that it did.

Words of a person or a cluster come in through arguments and are cleaned of control characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates.words import clean, listed, short, stood

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from templates.words import Json


def no_cluster() -> str:
    """Neither a source nor a current context."""
    return "Which cluster? Give --context NAME, --from PATH or --config FILE; the kubeconfig has no current context."


def no_istio(sources: Iterable[str]) -> str:
    """Manifests in which nothing is of Istio."""
    return f"There is no Istio in {_and(sources)}: no istiod, no sidecar, and no object of Istio or the Gateway API."


def doubled(name: str) -> str:
    """Two sources of one name."""
    return f'Two clusters are called "{clean(name)}"; name them apart: --from NAME=PATH.'


def bad_source(word: str) -> str:
    """A --from that is neither a path nor NAME=PATH."""
    return f'--from {clean(word)!r} is no source: write PATH, NAME=PATH or MESH/NAME=PATH, with names free of spaces, ":" and "/".'


def twice_stdin() -> str:
    """Two sources that are both standard input."""
    return "Standard input can be only one cluster: give --from - once."


def stdin_once() -> str:
    """Standard input for two things."""
    return "Standard input can be read only once: give - for one of the sources and changes."


def no_change() -> str:
    """A whatif without anything to weigh."""
    return "What is to change? Give CHANGE.yaml, --delete FILE, or both."


def bad_change(word: str) -> str:
    """A change that is neither a path nor NAME=PATH."""
    return f"{clean(word)!r} is no change: write FILE, or NAME=FILE for the one cluster that is called so."


def no_object(shown: str) -> str:
    """A file of changes in which nothing can be weighed."""
    return f"{clean(shown)} holds no object of a kind that meshwhy reads."


def bad_object(ref: str, reason: str, origin: tuple[str, int] | None) -> str:
    """An object, or a whole file, of a change that cannot be understood."""
    if origin is not None:
        return f"{clean(origin[0])}:{origin[1]}: {clean(ref)} cannot be understood: {clean(reason)}."
    return f"{clean(ref)}:{'' if reason[:1].isdigit() else ' '}{clean(reason).rstrip('.')}."


def no_such_cluster(name: str, known: Sequence[str]) -> str:
    """A change for a cluster that is not asked about."""
    return f'No cluster is called "{clean(name)}"; there {"is" if len(known) == 1 else "are"} {_and(known)}.'


def nothing_to_delete(ref: str, clusters: Sequence[str], unread: Sequence[str]) -> str:
    """A deletion of what is not there, or may not be."""
    if unread:
        return f"Whether there is {clean(ref)} to delete is not known: {'; '.join(clean(u) for u in unread[:3])}."
    return f"{clean(ref)} cannot be deleted: it is not in {_or(clusters)}."


def applied_and_deleted(ref: str, *files: str) -> str:
    """An object that one change brings and another one takes away."""
    return f"{clean(ref)} cannot be both applied and deleted: it is in {_and(files)}."


def gone(hosts: Sequence[str]) -> str:
    """Hosts that nothing would define any more, or nothing that a control plane reads."""
    told = [*map(short, hosts[:5]), *([f"{len(hosts) - 5} more"] if len(hosts) > 5 else [])]
    them = "it" if len(hosts) == 1 else "them"
    return f"No istiod would know {listed(told)} any more: no Service and no ServiceEntry that it reads would define {them}."


def which_cluster(ref: str, clusters: Sequence[str]) -> str:
    """A new object that belongs to one cluster, and none was named."""
    return f"{clean(ref)} is in none of {_and(clusters)}; say where it would be created: NAME=FILE."


def not_foreseen(workloads: Sequence[str]) -> str:
    """Workloads whose new pods nobody has seen."""
    return f"Not foreseen: the new pods of {listed(map(clean, workloads))}. Give them and their EndpointSlices as well if they count."


def passed_over(kinds: Mapping[str, int]) -> str:
    """Objects of kinds that are not read."""
    told = [f"{count} {clean(kind)}" for kind, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0]))]
    return f"Passed over, since meshwhy does not read these kinds: {listed(told)}."


def passed_over_whole(why: str) -> str:
    """A source of which nothing is read, beside others."""
    return f"Passed over: {clean(why)}"


def unread(gaps: Sequence[str]) -> str:
    """An answer that some things are missing in."""
    told = "; ".join(clean(g) for g in gaps[:4]) + (f"; and {len(gaps) - 4} more" if len(gaps) > 4 else "")
    return f"Not everything could be read: {told}."


def bad_viewpoint(word: str) -> str:
    """An --as of no known form."""
    return f"--as {clean(word)!r} is no viewpoint: write NAMESPACE, NAMESPACE/POD, or either with CLUSTER: before it."


def bad_envoy(reason: str) -> str:
    """An --envoy of no known form."""
    return f"--envoy {clean(reason)}."


def bad_live(word: str, clusters: Sequence[str]) -> str:
    """A --live of which nobody knows the cluster."""
    return f"--live {clean(word)} names no cluster that is read here: write CLUSTER=PATH with one of {', '.join(clean(c) for c in clusters[:6])}."


def no_live(path: str) -> str:
    """A --live that is not there."""
    return f"--live {clean(path)} is not there."


def no_viewpoint(word: str, nearest: Sequence[str]) -> str:
    """A caller that is in no cluster."""
    return f'Nobody calls as "{clean(word)}": there is no such namespace or pod.{_did_you_mean(nearest)}'


def not_found(word: str, gaps: Sequence[str]) -> str:
    """A host or caller that is not in what could be read, when not everything could be."""
    told = "; ".join(clean(g) for g in gaps[:3]) + (f"; and {len(gaps) - 3} more" if len(gaps) > 3 else "")
    return f'Whether there is "{clean(word)}" is not known, for not everything could be read: {told}.'


def unwritable(path: str, reason: str) -> str:
    """A place where nothing can be written."""
    return f"{clean(path)} cannot be written: {clean(reason)}."


def no_check(word: str, nearest: Sequence[str]) -> str:
    """A cause that the catalogue does not have."""
    return f'No known cause is called "{clean(word)}".{_did_you_mean(nearest)} meshwhy checks lists all.'


def several_causes(word: str, causes: Sequence[str]) -> str:
    """Another tool's code of more than one cause."""
    return f"{clean(word).upper()} is said of {len(causes)} causes: {listed(causes, most=20)}. Write one of them."


def bad_since(word: str) -> str:
    """A --since that is no duration."""
    return f"--since {clean(word)!r} is no duration: write 30m, 24h or 7d."


def no_verb(word: str, nearest: Sequence[str]) -> str:
    """A --verb that nobody can do."""
    return f'Nobody can do "{clean(word)}" in Slack.{_did_you_mean(nearest)}'


def no_slack_form(command: str) -> str:
    """A command whose answer Slack never shows."""
    return f"meshwhy {command} has no Slack form: choose -o text or -o json."


def config_alone() -> str:
    """--config together with another source."""
    return "--config names its own clusters; give it alone, without --context and --from."


def several_in_one_file() -> str:
    """Several clusters that are to be recorded in one file."""
    return "One file holds one cluster; for several, --out must be a directory, such as recordings/."


def recorded(cluster: str, path: str, gaps: Sequence[str]) -> str:
    """A recording that was written, with what it could not see."""
    said = f"Recorded {clean(cluster)} in {clean(path)}."
    return said + (f" It does not hold what could not be read: {'; '.join(clean(g) for g in gaps)}." if gaps else "")


def no_start(what: str, reason: str) -> str:
    """The bot or the demo that does not start."""
    return f"The {what} cannot start: {clean(reason)}."


def at_alone() -> str:
    """An --at without the settings of the bot that kept the past."""
    return "--at asks what a bot has seen: give its settings with --config FILE, and no evidence of running parts."


def bad_time(word: str) -> str:
    """An --at that is no time."""
    return f"--at {clean(word)!r} is no time: write 14:02, 2026-11-28T14:02, or 10m for ten minutes ago."


def no_port_then(host: str) -> str:
    """A port of which the past is asked."""
    return f"The past is kept of hosts and not of their ports: ask about {clean(host).partition(':')[0]}."


def not_kept(view: Json) -> str:
    """That it is not known how a host stood at an instant, and why."""
    return f"{short(view['host'])}: {stood(view)}"


def no_store(reason: str) -> str:
    """A Redis that does not answer."""
    return f"Redis cannot be used: {clean(reason)}."


def demo(page: str, no_envoy: str | None = None) -> str:
    """The demo has started: where to look, what to do; `no_envoy` is why the caller's Envoy does not run."""
    envoy = (
        f"No caller's Envoy: {no_envoy}. What running parts show is left out."
        if no_envoy
        else "the alert's thread shows the runbook; \"Send 20 requests\" through the caller's Envoy gives it 503s to read"
    )
    return f"""\
meshwhy demo is running: a Slack workspace of its own, two recorded clusters, {"" if no_envoy else "a real Envoy that calls, "}the bot.

  Open    {page}
  Type    /mesh why destination.mynamespace       95 % of its requests fail, and why
          /mesh why api-pl.partner.example        a doubled ServiceEntry
          /mesh broken    /mesh clusters    /mesh help
  Press   "Deploy v1": the alert in #mesh is edited to resolved; "Remove v1" breaks it again
  Look    {envoy}
  End     Ctrl-C"""


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f" Did you mean {_or(nearest)}?" if nearest else ""


def _or(words: Iterable[str]) -> str:
    return _joined(words, "or")


def _and(words: Iterable[str]) -> str:
    return _joined(words, "and")


def _joined(words: Iterable[str], last: str) -> str:
    *first, end = [clean(w) for w in words]
    return f"{', '.join(first)} {last} {end}" if first else end
