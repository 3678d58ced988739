"""What an error that somebody pasted says, before the diagnosis of the host that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates import flags, messages, words
from templates.blocks import Message, Rich, escape, fit, header
from templates.words import Json, clean, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from templates.flags import Flag

EXPLAIN_THIS = "explain_error"
"""callback_id of the message shortcut "Explain this error"."""
_SIBLINGS = frozenset("DC DR DPE DI FI RL RLSE IH RFCF UT UMSDR SI DT OM DO UDO".split())  # noqa: SIM905 - one glance
"""Flags of what is no fault of routing: that the clusters' objects are well is no news then."""


def explained(pasted: Json, diagnosis: Json | None, note: str = "", links: messages.Links = ()) -> Message:
    """What a pasted error says: the fields of checks.pasted.Pasted, the diagnosis of its host if one is known, and how the host was found or why not."""
    found = _flags(pasted)
    title = _title(pasted, found)
    said = Rich()
    for name, flag in found:
        said.words(flag.happened, label=name or "What it means")
    if found and (diagnosis is None or not diagnosis["findings"]):
        said.words(found[0][1].look, label="Where to look")
    said.bullets(_facts(pasted))
    said.words(note)
    if diagnosis is not None and diagnosis["verdict"] == "healthy" and _contradicts(pasted):
        said.words(
            "What the clusters say now breaks no request to it: this one failed at another time, on another way, or for what only running parts tell.",
            label="Now",
        )
    why = messages.why(diagnosis, links=links) if diagnosis is not None else None
    text = f"{title}. {why.text}" if why is not None else f"{title}. {note}"
    return fit(
        Message(
            str(escape(cut(clean(text), 600))) if why is None else f"{escape(title)}: {why.text}",
            (header(title), *said.blocks(), *(why.blocks if why is not None else ())),
        )
    )


def _flags(pasted: Json) -> list[tuple[str, Flag]]:
    """What its flags mean, each under its name; where there is none, what else tells who answered."""
    known = [(f"{name}: {flags.FLAGS[name].says}", flags.FLAGS[name]) for name in pasted["flags"] if name in flags.FLAGS]
    if pasted["cluster"] == "BlackHoleCluster":
        return [("", flags.BLACK_HOLE), *known]
    if known:
        return known
    if "rbac" in pasted["details"].lower():
        return [("", flags.DENIED)]
    if pasted["answered"]:
        return [("", flags.BY_SERVER)]
    return [("", flags.PASSTHROUGH)] if pasted["cluster"] == "PassthroughCluster" else []


def _title(pasted: Json, found: Sequence[tuple[str, Flag]]) -> str:
    code = "" if pasted["code"] is None else str(pasted["code"])
    name = ",".join(pasted["flags"])
    head = " ".join(x for x in (code, name) if x)
    says = found[0][1].says if found else ""
    if head and says:
        return f"{head}: {says}"
    return head or says or "What this error names"


def _facts(pasted: Json) -> list[str]:
    told: list[str] = []
    if pasted["cluster"]:
        told.append(f"Envoy cluster {pasted['cluster']}" + (f", subset {pasted['subset']}" if pasted["subset"] else ""))
    if pasted["upstream"]:
        told.append(f"sent to {pasted['upstream']}")
    if pasted["details"] and pasted["details"] != "via_upstream":
        told.append(f"details: {pasted['details']}")
    if pasted["failure"]:
        told.append(f"reason: {pasted['failure']}")
    if pasted["flags"] and not pasted["sure"]:
        told.append(f"the flag does not stand there: it is what goes with this answer of Envoy ({', '.join(pasted['flags'])})")
    if pasted["lines"] + pasted["others"] > 1:
        rest = f", {words.amount(pasted['others'], 'other')} something else" if pasted["others"] else ""
        told.append(f"{words.amount(pasted['lines'], 'line')} of it say{'s' if pasted['lines'] == 1 else ''} so{rest}")
    return told


def _contradicts(pasted: Json) -> bool:
    """Whether it tells of a fault that the objects of a cluster would show if they decided it."""
    return not pasted["answered"] and bool(set(pasted["flags"]) - _SIBLINGS)


def unread() -> str:
    """The sentence for a text in which nothing is found."""
    return (
        "I find no host, no status and no response flag in this. What I can read: an Envoy access line (text or JSON), the output of curl -v, "
        "the body of an answer, a URL, or the name of a host."
    )


def by_words(host: str) -> str:
    """That a host was taken from the words of a text."""
    return f"I took {words.short(host)} from its words; if another host is meant, ask /mesh why HOST."


def by_address(address: str, host: str) -> str:
    """That a host was found by the address that was called."""
    return f"{clean(address)} is the address of {words.short(host)}."


def several(hosts: Sequence[str]) -> str:
    """That a text names several hosts."""
    return f"It names {words.amount(len(hosts), 'host')}: {words.listed(map(words.short, hosts), most=8)}. Ask /mesh why about the one that is meant."


def no_port(host: str, port: int) -> str:
    """That the host is known, and has no such port."""
    return f"{words.short(host)} has no port {port}; this is about all of its ports."
