"""Slack's Block Kit: the only place where blocks are built, measured and made smaller.

What comes from clusters and people is data. It goes into `rich_text` and `plain_text`, where nothing is parsed, or through a text fragment (`*.j2`) whose
every value is cut and escaped by `finalize`. So no name can become a mention, and none can cut an entity in half.
The numbers are Slack's; where Slack documents none, they are the ones that other bots met (reference: limits of messages and Block Kit).
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from msgspec import Struct
from msgspec.structs import force_setattr

from templates.words import clean, clock, cut, units

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Block = dict[str, Any]
Action = tuple[str, str, str, str | None]
"""A button: label, action_id, value, and style (`primary`, `danger` or None)."""
Choice = tuple[str, str]
"""Something to choose: its label (at most 75 characters) and its value."""
Menu = tuple[str, "Sequence[Choice]"]
"""Further buttons behind one: action_id, and two to five choices."""

TEXT = 3_900
"""Characters of a message's text: `chat.update` refuses more than 4,000, and every message may be updated."""
TOTAL = 12_000
"""Characters of all blocks together, as JSON: Slack answers `msg_blocks_too_long` at about 13,200, undocumented."""
ROOT_BLOCKS, ROOT_TOTAL = 12, 7_000
"""What a reduced message may have: it fits every limit with room."""
VALUE = 280
"""Characters of one value in a text fragment."""


class Message(Struct, frozen=True):
    """What Slack gets: `text` for notifications and screen readers (already escaped), and the blocks."""

    text: str
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        """Keep plain text only: what is kept in the store must be encodable."""
        force_setattr(self, "text", str(self.text))


# -- text -----------------------------------------------------------------------------------------------------------------------------


class Mrkdwn(str):
    """Text in Slack's markup, escaped already: `finalize` and `escape` leave it alone."""

    __slots__ = ()


# A pair that Slack would take for bold, italic or struck: shown by characters that look the same and mean nothing.
_PAIR = re.compile(r"(?<!\w)([*_~])(?=\S(?:.*\S)?\1(?!\w))")
_LOOK_ALIKE = {"*": "∗", "_": "＿", "~": "∼"}


def _entities(text: object) -> str:
    return html.escape(clean(text).replace("`", "ʼ"), quote=False)


def escape(text: object) -> Mrkdwn:
    """Text as Slack's markup shows it literally: & < > escaped once, control and bidirectional characters gone, no format opened or closed."""
    if isinstance(text, Mrkdwn):
        return text
    return Mrkdwn(_PAIR.sub(lambda m: _LOOK_ALIKE[m[1]], _entities(text)))


def code(text: object) -> Mrkdwn:
    """Text in a code span: safe inside back-ticks, on one line."""
    inside = _entities(text)
    return Mrkdwn(f"`{inside}`") if inside else Mrkdwn()


def date(epoch: float, form: str = "{date_short_pretty} {time}") -> Mrkdwn:
    """An instant (seconds since the epoch) in the reader's own time zone."""
    return Mrkdwn(f"<!date^{epoch:.0f}^{form}|{clock(epoch)}>")


_USER = re.compile(r"[UW][A-Z0-9]{2,24}")


def person(user_id: object) -> Mrkdwn:
    """A mention of one person; ValueError for what is no user's id, so that no other text can become one."""
    if not _USER.fullmatch(str(user_id)):
        raise ValueError(f"{user_id!r} is not a Slack user id")
    return Mrkdwn(f"<@{user_id}>")


def responder(ident: object) -> Mrkdwn:
    """A mention of one person or of one user group, as the settings name them; ValueError for any other text."""
    return Mrkdwn(f"<!subteam^{ident}>") if re.fullmatch(r"S[A-Z0-9]{2,24}", str(ident)) else person(ident)


def whom(ident: object) -> Mrkdwn:
    """A mention of a person, of a user group or of a channel's members; a name, where Slack does not say whose it is, as text."""
    if re.fullmatch(r"[CG][A-Z0-9]{2,24}", str(ident)):
        return Mrkdwn(f"the members of <#{ident}>")
    return code(ident) if str(ident)[:1] in "@#" else responder(ident)


def place(channel: object) -> Mrkdwn:
    """A channel, which Slack shows by its name, or the direct messages; anything else as text."""
    found = re.fullmatch(r"([CGD])[A-Z0-9]{2,24}", str(channel))
    return escape(channel) if found is None else Mrkdwn("direct messages") if found[1] == "D" else Mrkdwn(f"<#{channel}>")


_URL = re.compile(r"https?://[^\s<>|]+")


def link(url: object, words: object) -> Mrkdwn:
    """Words that lead to an address; the words alone for what is no address."""
    if not _URL.fullmatch(str(url)):
        return escape(words)
    return Mrkdwn(f"<{html.escape(str(url), quote=False)}|{escape(clean(words).replace('|', '¦'))}>")


def _value(value: object) -> Mrkdwn:
    return value if isinstance(value, Mrkdwn) else escape(cut(clean(value), VALUE))


_FRAGMENTS = SandboxedEnvironment(
    loader=PackageLoader("templates", ""),
    undefined=StrictUndefined,
    finalize=_value,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_FRAGMENTS.filters |= {"code": lambda text: code(cut(clean(text), VALUE)), "date": date}
_FRAGMENTS.filters |= {"link": link}
_FRAGMENTS.filters |= {"person": person, "responder": responder, "whom": whom, "place": place}


def fragment(name: str, /, **values: object) -> list[Mrkdwn]:
    """The paragraphs of a text fragment (`<name>.j2`) with these values, each cut to 280 characters and escaped."""
    text = _FRAGMENTS.get_template(f"{name}.j2").render(values)
    return [Mrkdwn(p.strip()) for p in re.split(r"\n\s*\n", text) if p.strip()]


# -- blocks ---------------------------------------------------------------------------------------------------------------------------


def _mrkdwn(text: Mrkdwn) -> Block:
    # verbatim: else Slack would make links, channels and some mentions out of plain words.
    return {"type": "mrkdwn", "text": str(text), "verbatim": True}


def _plain(text: str, limit: int) -> Block:
    return {"type": "plain_text", "text": cut(clean(text), limit) or "–", "emoji": False}


def header(text: str) -> Block:
    """A headline of at most 140 characters."""
    return {"type": "header", "text": _plain(text, 140)}


def section(text: Mrkdwn) -> Block:
    """A paragraph in markup."""
    return {"type": "section", "text": _mrkdwn(text)}


def fields(texts: Sequence[Mrkdwn]) -> Block:
    """At most six short facts in two columns."""
    return {"type": "section", "fields": [_mrkdwn(t) for t in texts[:6]]}


def context(*texts: Mrkdwn) -> Block:
    """Small print."""
    return {"type": "context", "elements": [_mrkdwn(t) for t in texts[:10]]}


def picture(file_id: str, alt: str) -> Block:
    """A picture that Slack already has."""
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": cut(clean(alt), 300) or "route"}


def actions(buttons: Sequence[Action | Menu]) -> list[Block]:
    """A row of buttons, or nothing; one whose value Slack would refuse is left out, since a button that cannot work is not shown."""
    elements: list[Block] = []
    for one in buttons[:25]:
        if len(one) == 2:
            elements.append({"type": "overflow", "action_id": one[0], "options": _options([c for c in one[1] if units(c[1]) <= 150])})
            continue
        label, action_id, value, style = one
        if units(value) > 2000:
            continue
        button: Block = {"type": "button", "text": _plain(label, 75), "action_id": action_id, "value": value}
        elements.append(button | {"style": style} if style else button)
    return [{"type": "actions", "elements": elements}] if elements else []


# -- modals -----------------------------------------------------------------------------------------------------------------------------


def modal(callback_id: str, title: str, submit: str, inputs: Sequence[Block], kept: str) -> Block:
    """A view with inputs; `kept` is given back with what people put in."""
    return {
        "type": "modal",
        "callback_id": callback_id,
        "title": _plain(title, 24),
        "submit": _plain(submit, 24),
        "close": _plain("Cancel", 24),
        "blocks": list(inputs),
        "private_metadata": kept,
    }


def _input(name: str, label: str, element: Block, hint: str = "", *, needed: bool = False) -> Block:
    """An input that may be left empty, unless it is `needed`: what is needed together is for the handler to say."""
    made: Block = {
        "type": "input",
        "block_id": name,
        "optional": not needed,
        "label": _plain(label, 2000),
        "element": {**element, "action_id": name},
    }
    return {**made, "hint": _plain(hint, 2000)} if hint else made


def text_input(
    name: str, label: str, placeholder: str, *, hint: str = "", filled: str = "", most: int = 3000, needed: bool = False
) -> Block:
    """Several lines of at most `most` characters (3,000 are Slack's limit), `filled` in already."""
    element = {"type": "plain_text_input", "multiline": True, "max_length": most, "placeholder": _plain(placeholder, 150)}
    return _input(name, label, element | ({"initial_value": cut(clean(filled, lines=True), most)} if filled else {}), hint, needed=needed)


def person_input(name: str, label: str) -> Block:
    """One person of the workspace."""
    return _input(name, label, {"type": "users_select"}, needed=True)


def moment_input(name: str, label: str, first: float) -> Block:
    """An instant, `first` (seconds since the epoch) unless somebody chooses."""
    return _input(name, label, {"type": "datetimepicker", "initial_date_time": int(first)}, needed=True)


def file_input(name: str, label: str) -> Block:
    """One file."""
    return _input(name, label, {"type": "file_input", "max_files": 1})


def choice_input(name: str, label: str, choices: Sequence[Choice], *, first: int = 0) -> Block:
    """One of several, the first (or the one of another place) unless somebody chooses."""
    options = _options(choices)
    return _input(name, label, {"type": "static_select", "options": options, "initial_option": options[first]})


def checkbox_input(name: str, label: str, choices: Sequence[Choice]) -> Block:
    """Any of several."""
    return _input(name, label, {"type": "checkboxes", "options": _options(choices)})


def _options(choices: Sequence[Choice]) -> list[Block]:
    return [{"text": _plain(label, 75), "value": value} for label, value in choices]


class Rich:
    """A `rich_text` block in the making: paragraphs, lists and preformatted text, where every text is data."""

    __slots__ = ("elements",)

    def __init__(self) -> None:
        self.elements: list[Block] = []

    def words(self, text: str, *, label: str = "", tail: str = "") -> Rich:
        """A paragraph of at most 1,200 characters, after a bold label and before a tail in code; a label alone says nothing and is left out."""
        text, tail = cut(clean(text), 1200), cut(clean(tail), 200)
        runs: list[Block] = []
        if label and (text or tail):
            runs.append({"type": "text", "text": f"{label}  ", "style": {"bold": True}})
        if text:
            runs.append({"type": "text", "text": text})
        if tail:
            runs += [{"type": "text", "text": "  "}, {"type": "text", "text": tail, "style": {"code": True}}]
        if runs:
            self.elements.append({"type": "rich_text_section", "elements": runs})
        return self

    def bullets(self, texts: Sequence[str], *, most: int = 8) -> Rich:
        """A list of at most `most` lines of 400 characters; how many more there are is said."""
        lines = [cut(clean(t), 400) for t in texts if clean(t)]
        if len(lines) > most:
            lines = [*lines[: most - 1], f"{len(lines) - most + 1} more"]
        if lines:
            items = [{"type": "rich_text_section", "elements": [{"type": "text", "text": t}]} for t in lines]
            self.elements.append({"type": "rich_text_list", "style": "bullet", "elements": items})
        return self

    def preformatted(self, text: str, *, limit: int = 2800) -> Rich:
        """Text as it stands, with its lines, in a fixed width."""
        if text := cut(clean(text, lines=True).strip("\n"), limit):
            self.elements.append({"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]})
        return self

    def blocks(self) -> list[Block]:
        """One block, or none when nothing was said."""
        return [{"type": "rich_text", "elements": self.elements}] if self.elements else []


# -- measuring ------------------------------------------------------------------------------------------------------------------------

# What each object may hold: the field's path (`*` every element, `#` how many) -> least and most, in characters or elements.
_LIMITS: dict[str, dict[str, tuple[int, int]]] = {
    "header": {"text/text": (1, 150)},
    "section": {"text/text": (1, 3000), "fields/#": (1, 10), "fields/*/text": (1, 2000)},
    "context": {"elements/#": (1, 10)},
    "context_actions": {"elements/#": (1, 5)},
    "actions": {"elements/#": (1, 25)},
    "divider": {},
    "file": {},
    "image": {"image_url": (1, 3000), "alt_text": (1, 2000), "title/text": (1, 2000)},
    "input": {"label/text": (1, 2000), "hint/text": (1, 2000)},
    "markdown": {"text": (1, 12_000)},
    "rich_text": {"elements/#": (1, 1000)},
    "table": {"rows/#": (1, 100), "rows/*/#": (1, 20), "column_settings/#": (1, 20)},
    "data_table": {"caption": (1, 2000), "rows/#": (2, 101), "rows/*/#": (1, 20)},
    "data_visualization": {"title": (1, 50)},
    "container": {"blocks/#": (1, 10), "child_blocks/#": (1, 10), "title/text": (1, 150), "subtitle/text": (1, 150)},
    "card": {"title/text": (1, 150), "subtitle/text": (1, 150), "body/text": (1, 200), "subtext/text": (1, 200), "actions/#": (1, 3)},
    "carousel": {"elements/#": (1, 10)},
    "plan": {"tasks/#": (1, 50)},
    "task_card": {},
    "video": {"alt_text": (1, 2000), "title/text": (1, 200)},
    "button": {"text/text": (1, 75), "value": (0, 2000), "url": (1, 3000), "accessibility_label": (1, 75)},
    "overflow": {"options/#": (1, 5)},
} | {
    f"{many}{kind}_select": {"options/#": (1, 100), "option_groups/#": (1, 100), "placeholder/text": (1, 150)}
    for many in ("", "multi_")
    for kind in ("static", "external", "users", "conversations", "channels")
}
_BLOCKS = frozenset(list(_LIMITS)[: list(_LIMITS).index("button")])
_REQUIRED = {
    "header": ("text",),
    "image": ("alt_text",),
    "actions": ("elements",),
    "context": ("elements",),
    "rich_text": ("elements",),
    "table": ("rows",),
}
_ANYWHERE = {"block_id": (1, 255), "action_id": (1, 255), "callback_id": (1, 255)}
_OPTION = {"text/text": (1, 75), "value": (1, 150), "description/text": (1, 75)}
_CONFIRM = {"title/text": (1, 100), "text/text": (1, 300), "confirm/text": (1, 30), "deny/text": (1, 30)}


def _fields(node: Any, path: Sequence[str], pointer: str) -> Iterator[tuple[str, Any]]:
    """The values at a path below a node, each with its JSON pointer; a missing field yields nothing."""
    if not path:
        yield pointer, node
        return
    step, rest = path[0], path[1:]
    if step == "*" and isinstance(node, list):
        for i, child in enumerate(node):
            yield from _fields(child, rest, f"{pointer}/{i}")
    elif step == "#" and isinstance(node, list):
        yield pointer, len(node)
    elif isinstance(node, dict) and step in node:
        yield from _fields(node[step], rest, f"{pointer}/{step}")


def _check(node: Block, limits: Mapping[str, tuple[int, int]], pointer: str) -> Iterator[str]:
    for path, (least, most) in limits.items():
        for where, value in _fields(node, path.split("/"), pointer):
            if isinstance(value, int):
                size, what = value, "elements"
            elif isinstance(value, str):
                size, what = units(value), "characters"
            else:
                yield f"{where}: not a string"
                continue
            if size > most:
                yield f"{where}: {size:,} {what}, at most {most:,}"
            elif size < least:
                yield f"{where}: empty"


def _nodes(node: Any, pointer: str) -> Iterator[tuple[Block, str]]:
    """Every object below a node, itself included, with its JSON pointer."""
    if isinstance(node, dict):
        yield node, pointer
        for key, child in node.items():
            if isinstance(child, dict | list | tuple):
                yield from _nodes(child, f"{pointer}/{key}")
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _nodes(child, f"{pointer}/{i}")


def _weight(node: Any) -> int:
    """Characters of every string below a node, types aside."""
    if isinstance(node, str):
        return units(node)
    if isinstance(node, dict):
        return sum(_weight(child) for key, child in node.items() if key != "type")
    return sum(map(_weight, node)) if isinstance(node, list | tuple) else 0


def _size(blocks: Sequence[Block]) -> int:
    """Characters of the blocks as JSON, which is what `msg_blocks_too_long` counts."""
    return units(json.dumps(list(blocks), ensure_ascii=False, separators=(",", ":")))


def _node_breaks(node: Block, pointer: str) -> Iterator[str]:
    kind = node.get("type", "")
    yield from _check(node, _ANYWHERE, pointer)
    yield from _check(node, _LIMITS.get(kind, {}), pointer)
    for name in _REQUIRED.get(kind, ()):
        if name not in node:
            yield f"{pointer}/{name}: missing"
    if kind == "section" and "text" not in node and "fields" not in node:
        yield f"{pointer}/text: missing"
    if kind == "image" and ("image_url" in node) == ("slack_file" in node):
        yield f"{pointer}: needs one of image_url and slack_file"
    for group in ("options", "initial_options"):
        for where, option in _fields(node, [group, "*"], pointer):
            yield from _check(option, _OPTION, where)
    for where, option in _fields(node, ["option_groups", "*", "options", "*"], pointer):
        yield from _check(option, _OPTION, where)
    for where, confirm in _fields(node, ["confirm"], pointer):
        yield from _check(confirm, _CONFIRM if isinstance(confirm, dict) else {}, where)
    if kind in {"actions", "context_actions"}:
        yield from _twice(node.get("elements", ()), "action_id", f"{pointer}/elements")


def _twice(nodes: Sequence[Block], name: str, pointer: str) -> Iterator[str]:
    ids = [n[name] for n in nodes if name in n]
    if len(set(ids)) < len(ids):
        yield f"{pointer}: {name} occurs twice"


def _sums(blocks: Sequence[Block]) -> Iterator[str]:
    """What no single block breaks: how many there are, of which types, and how much they hold together."""
    kinds = [b.get("type", "") for b in blocks]
    # An alert block is one of those that Slack takes in modals only.
    yield from (f"/blocks/{i}: no block of type {kind!r} in a message" for i, kind in enumerate(kinds) if kind not in _BLOCKS)
    if len(kinds) > 50:
        yield f"/blocks: {len(kinds)} blocks, at most 50"
    if (total := _size(blocks)) > TOTAL:
        yield f"/blocks: {total:,} characters together, at most {TOTAL:,}"
    for kind, most in (("table", 1), ("data_visualization", 2)):
        if kinds.count(kind) > most:
            yield f"/blocks: {kinds.count(kind)} {kind} blocks, at most {most}"
    for kind, most in (("table", 10_000), ("data_table", 20_000)):
        if (size := sum(_weight(b) for b in blocks if b.get("type") == kind)) > most:
            yield f"/blocks: {size:,} characters in {kind} blocks, at most {most:,}"
    if {"plan", "task_card"} <= set(kinds):
        yield "/blocks: plan and task_card exclude each other"
    yield from _twice(blocks, "block_id", "/blocks")


def measure(message: Message) -> list[str]:
    """Every limit of Slack that the message breaks, each with its JSON pointer; empty when it fits."""
    found: list[str] = []
    if units(message.text) > TEXT:
        found.append(f"/text: {units(message.text):,} characters, at most {TEXT:,}")
    if not message.text.strip():
        found.append("/text: empty")
    for node, pointer in _nodes(message.blocks, "/blocks"):
        found += _node_breaks(node, pointer)
    return found + list(_sums(message.blocks))


# -- the ladder -----------------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")


def _read(text: str) -> str:
    """Markup as a reader sees it: dates and links by their words, mentions gone, entities as characters."""
    words = _TOKEN.sub(lambda m: m[2] or ("" if m[1][:1] in "!@#" else m[1]), text)
    return html.unescape(re.sub(r"(?<!\w)\*(\S.*?)\*(?!\w)", r"\1", words))


def _shorten(node: Any, limit: int, most: int) -> Any:
    """The same rich text with every text cut to `limit` and every list to `most` lines."""
    if isinstance(node, list):
        return [_shorten(child, limit, most) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: _shorten(child, limit, most) if key == "elements" else child for key, child in node.items()}
    if node.get("type") == "text":
        node["text"] = cut(node["text"], limit)
    if node.get("type") == "rich_text_list" and len(node["elements"]) > most:
        rest = {"type": "rich_text_section", "elements": [{"type": "text", "text": f"{len(node['elements']) - most} more"}]}
        node["elements"] = [*node["elements"][:most], rest]
    return node


def _smaller(block: Block) -> list[Block]:
    """A block folded or cut to what the root of an alert can bear; none for one that can be missed."""
    match block.get("type"):
        case "header":
            return [header(str(block.get("text", {}).get("text", "")))]
        case "rich_text":
            return [_shorten(block, 900, 4)]
        case "section":
            out: Block = {"type": "section"}
            if "text" in block:
                text = block["text"].get("text", "")
                out["text"] = block["text"] if units(text) <= 900 else _mrkdwn(escape(cut(_read(text), 900)))
            if "fields" in block:
                out["fields"] = [f if units(f["text"]) <= 300 else _mrkdwn(escape(cut(_read(f["text"]), 300))) for f in block["fields"][:6]]
            return [out]
        case "context":
            texts = [str(e.get("text", "")) for e in block.get("elements", ())[:3]]
            return [context(*(Mrkdwn(t) if units(t) <= 400 else escape(cut(_read(t), 400)) for t in texts if t))] if any(texts) else []
        case "actions":
            return [block | {"elements": block["elements"][:5]}]
        case "table":
            return Rich().preformatted(_told(block), limit=900).blocks()
        case _:
            return []


def _reduced(message: Message) -> Message:
    """The message within the budget of an alert's root: texts cut, lists and tables folded, pictures gone, the last blocks first to go."""
    blocks = [small for block in message.blocks for small in _smaller(block)]
    note = context(Mrkdwn("Shortened to fit into one message."))
    while len(blocks) > ROOT_BLOCKS - 1 or _size(blocks) > ROOT_TOTAL - 200:
        last = next((i for i in reversed(range(len(blocks))) if blocks[i]["type"] not in {"header", "actions"}), None)
        if last is None:
            break
        del blocks[last]
    at = len(blocks) - 1 if blocks and blocks[-1]["type"] == "actions" else len(blocks)
    return Message(_short_text(message.text), (*blocks[:at], note, *blocks[at:]))


def _short_text(text: str) -> str:
    return text if units(text) <= TEXT else str(escape(cut(_read(text), 700)))


def _told(node: Any) -> str:
    """What a block says, as plain lines."""
    if isinstance(node, list | tuple):
        return "\n".join(t for t in map(_told, node) if t)
    if not isinstance(node, dict):
        return ""
    kind = node.get("type")
    if kind in {"actions", "image", "context_actions", "input"}:
        return ""
    if kind == "mrkdwn":
        return _read(node["text"])
    if kind == "rich_text_section":
        return "".join(str(e.get("text", "")) for e in node["elements"])
    if isinstance(node.get("text"), str):
        return str(node["text"])
    if kind == "table":
        return "\n".join("  ".join(_told(cell) for cell in row) for row in node["rows"])
    return "\n".join(t for key in ("text", "fields", "elements", "rows") if (t := _told(node.get(key))))


def _plain_text(message: Message) -> Message:
    """Everything as text without blocks."""
    told = clean("\n".join(t for t in map(_told, message.blocks) if t), lines=True) or _read(message.text)
    # Escaping may turn one character into five, so what is cut shrinks until the escaped text fits.
    limit = TEXT
    while units(text := _lines(cut(told, limit))) > TEXT:
        limit = limit * 4 // 5
    return Message(text if text.strip() else "–")


def _lines(text: str) -> str:
    return "\n".join(
        escape(line) if line.strip() == line else line[: len(line) - len(line.lstrip())] + escape(line) for line in text.split("\n")
    )


def ladder(message: Message) -> Iterator[Message]:
    """The message, then what is left of it when Slack refuses: reduced to the budget of an alert's root, then plain text.

    Every step fits by `measure`; the first is the message itself if it fits. The last has no blocks, so it always exists.
    """
    for step in (message, _reduced(message)) if message.blocks else (message,):
        if not measure(step):
            yield step
    if message.blocks or measure(message):
        yield _plain_text(message)


def fit(message: Message) -> Message:
    """The fullest form of the message that fits."""
    return next(ladder(message))


_TOKENS = re.compile(r"<!date\^(\d+)\^[^>|]*\|([^>]*)>|<@([UW][A-Z0-9]+)>|<([^>|]*)\|([^>]*)>|<([^>]*)>")


def plain(message: Message) -> list[str]:
    """What a message says, line by line, without Slack's signs: dates as UTC, people by their ids, links by their words."""
    return [line for block in message.blocks for text in _texts(block) for line in _unsigned(text).splitlines() if line.strip()]


def _texts(part: Any) -> Iterator[str]:
    """The texts of a block in order, those of one paragraph together; buttons say nothing."""
    if isinstance(part, dict):
        if part.get("type") in {"actions", "image", "button"}:
            return
        if part.get("type") in {"rich_text_section", "rich_text_preformatted"}:
            yield "".join(str(e.get("text", "")) for e in part["elements"])
        elif isinstance(part.get("text"), str):
            yield html.unescape(_TOKENS.sub(_word, part["text"])) if part.get("type") == "mrkdwn" else part["text"]
        else:
            for value in part.values():
                yield from _texts(value)
    elif isinstance(part, list | tuple):
        for one in part:
            yield from _texts(one)


def _word(token: re.Match[str]) -> str:
    when, _, person, _, said, link = token.groups()
    return clock(float(when)) if when else f"@{person}" if person else said or link or ""


def _unsigned(text: str) -> str:
    return re.sub(r"(?<!\w)[*_](\S(?:.*?\S)?)[*_](?!\w)", r"\1", text)
