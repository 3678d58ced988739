"""A person's App Home: their clusters, what is broken now, what they see to, and what is silent; each line leads to its thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates import words
from templates.blocks import Block, Message, Mrkdwn, actions, context, date, fragment, header, section
from templates.messages import matchers
from templates.words import Json, cut, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = 100
"""Slack's limit for a Home tab (docs.slack.dev/reference/views/home-tab-views)."""
REFRESH = "home_refresh"
"""action_id of the button that looks again."""
_ALERTS, _OWN, _CLUSTERS, _SILENCES = 30, 15, 15, 12  # lines of each list; the rest is counted


def home(told: Json) -> Block:
    """The view.

    {"at": epoch s, "clusters": [{"name", "mesh", "synced", "age_s", "unreadable": {kind: reason}}], "own": [ROW], "broken": [ROW], "silences": [SILENCE], "left_out":
    how many alerts the reader may not see}: a ROW is that of `messages.alerts` with "link", an address or ""; so is a SILENCE.
    """
    blocks = [
        header("You see to" if told["own"] else "You see to nothing now"),
        *_rows(told["own"], _OWN),
        header(_title(told)),
        *_rows(told["broken"], _ALERTS),
        *([context(Mrkdwn(f"{words.amount(told['left_out'], 'alert')} left out: you may not look there."))] if told["left_out"] else []),
        header(_clusters(told["clusters"])),
        *_some([_cluster(c) for c in told["clusters"]], _CLUSTERS),
        header("Silent" if told["silences"] else "Nothing is silenced"),
        *_some([_silence(s) for s in told["silences"]], _SILENCES),
        context(Mrkdwn(f"As of {date(told['at'], '{time_secs}')}. In a channel: `/mesh help`.")),
        *actions([("Look again", REFRESH, "-", None)]),
    ]
    return {"type": "home", "blocks": blocks[:BLOCKS]}


def sentence(message: Message) -> Block:
    """The view of who may not see any of it: why."""
    return {"type": "home", "blocks": list(message.blocks)[:BLOCKS]}


def _title(told: Json) -> str:
    everything = [*told["own"], *told["broken"]]
    failing = sum(not r["closed"] for r in everything)
    if not failing:
        unread = any(not c["synced"] or c["unreadable"] for c in told["clusters"])
        return "Nothing known is broken now" if unread or told["left_out"] else "Nothing is broken now"
    return f"Broken now: {words.amount(failing, 'alert')}" + (f", {len(told['own'])} of them yours" if told["own"] else "")


def _rows(rows: Sequence[Json], most: int) -> list[Block]:
    return _some([_row(r) for r in rows], most)


def _some(lines: Sequence[Mrkdwn], most: int) -> list[Block]:
    more = [context(Mrkdwn(f"and {len(lines) - most:,} more; `/mesh alerts` and `/mesh clusters` list them."))] if len(lines) > most else []
    return [*map(section, lines[:most]), *more]


def _row(row: Json) -> Mrkdwn:
    mark = "?" if row["unknown"] else "–" if row["closed"] else "✗"
    told = {**row, "mark": mark, "share": percent(row["share"]), "hosts": words.listed(row["hosts"], most=3)}
    (line,) = fragment("alert_row", **told)
    return Mrkdwn(f"{line} {_thread(row['link'])}".strip())


def _thread(link: str) -> str:
    (said,) = fragment("thread", link=link) if link else ("",)
    return said


def _clusters(clusters: Sequence[Json]) -> str:
    synced = sum(bool(c["synced"] and not c["unreadable"]) for c in clusters)
    return f"{synced} of {words.amount(len(clusters), 'cluster')} read completely" if clusters else "No cluster of yours is registered"


def _cluster(cluster: Json) -> Mrkdwn:
    unreadable = [f"{kind} ({cut(reason, 80)})" for kind, reason in dict(cluster["unreadable"]).items()]
    (line,) = fragment("home_cluster", **{**cluster, "age": words.age(cluster["age_s"]), "unreadable": words.listed(unreadable, most=3)})
    return line


def _silence(silence: Json) -> Mrkdwn:
    line = fragment("silence_row", **{**silence, "match": matchers(silence["match"])})[0]
    return Mrkdwn(f"{line} {_thread(silence['link'])}".strip())
