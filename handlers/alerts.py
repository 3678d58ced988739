"""`alerts`: what is open, since when, who sees to it, and what is silenced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from bot import access
from bot.alerts import OUTAGE, State
from bot.postmortem import by_cause_and_team
from bot.settings import duration
from bot.store import DAY_S, ENDED_S
from bot.tell import UNSILENCE
from handlers.errors import Unanswerable
from templates import messages
from templates.words import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.alerts import Alert
    from bot.store import Store
    from handlers.door import Sees
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """One line for each message that speaks now, the worst first, and every silence, of what the person may look at; with `--since` what ended."""
    if asked.words:
        return await _ended(asked)
    told, left_out = await seen(asked.store, asked.sees)
    rows = sorted(map(row, told.values()), key=worst_first)
    silences = sorted((await asked.store.silences()).values(), key=lambda s: s.end)
    meshes = asked.sweeper.meshes()
    shown = [s for s in silences if any(asked.sees(place) for place in access.of_silence(s.match, meshes))]
    return messages.alerts(rows, msgspec.to_builtins(shown), UNSILENCE, left_out=left_out)


async def _ended(asked: Asked) -> Message:
    """What ended since then, by cause and team, of what the person may look at."""
    word = asked.words.replace("—", "--").removeprefix("--since").removeprefix("since").strip(" =")
    long = duration(word)
    if long is None or long > ENDED_S:
        raise Unanswerable(f"Since when? Write /mesh alerts --since 7d; what ended is kept for {ENDED_S // DAY_S} days.")
    since = time.time() - long
    found = await asked.store.ended(since)
    shown = [e for e in found if asked.sees(frozenset((e.cluster, namespace) for namespace in e.namespaces or ("",)))]
    return messages.ended(by_cause_and_team(shown), since, left_out=len(found) - len(shown))


async def seen(store: Store, sees: Sees) -> tuple[dict[str, list[Alert]], int]:
    """The open alerts that a person may look at, by their messages, and how many messages they may not see."""
    told: dict[str, list[Alert]] = {}
    left_out: set[str] = set()
    for alert in (await store.alerts()).values():
        if alert.state not in {State.FIRING, State.CLOSED}:
            continue
        if sees(access.of_finding(alert.finding)):
            told.setdefault(alert.message, []).append(alert)
        else:
            left_out.add(alert.message)
    return told, len(left_out - told.keys())


def worst_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The order of lines."""
    return bool(row["closed"]), bool(row["unknown"]), -row["share"], row["since"]


def row(members: list[Alert]) -> dict[str, Any]:
    """The line of the alerts of one message, in the form of `messages.alerts`."""
    worst = max(members, key=lambda a: (a.state is State.FIRING, a.finding.failing_share))
    lost = worst.finding.cause == OUTAGE
    return {
        "share": worst.finding.failing_share,
        "hosts": [] if lost else list(dict.fromkeys(short(a.finding.host) for a in members)),
        "cause": f"{worst.finding.cluster} cannot be read" if lost else f"{worst.finding.code} {worst.finding.cause}",
        **_standing(members, worst),
    }


def _standing(members: list[Alert], worst: Alert) -> dict[str, Any]:
    ack = next((a.ack for a in members if a.ack is not None), None)
    unknown = [a.unknown_since for a in members if a.unknown_since is not None]
    return {
        "since": min(a.since for a in members),
        "unknown": min(unknown) if len(unknown) == len(members) else None,
        "closed": worst.closed.by if worst.state is State.CLOSED and worst.closed is not None else "",
        "flapping": any(a.flapping for a in members),
        "ack": msgspec.to_builtins(ack) if ack is not None else None,
        "silenced": all(a.silence is not None for a in members),
    }
