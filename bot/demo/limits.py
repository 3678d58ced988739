"""What Slack accepts in blocks and views, measured as Slack measures it, each refusal with Slack's words and a JSON pointer.

Pure: a payload in, sentences out. Numbers are those of docs.slack.dev's Block Kit reference; where Slack documents none (the
total of a message's blocks) it is the number that people measured. Lengths count UTF-16 units, so an emoji is two.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Surface = Literal["message", "modal", "home"]

BLOCKS = {"message": 50, "modal": 100, "home": 100}
ALL_BLOCKS = 13_200  # characters of the blocks' JSON; undocumented, measured in slackapi/bolt-js 2509 and 2867
TEXT_CUT, UPDATE_TEXT, MARKDOWN_TEXT = 40_000, 4_000, 12_000
ATTACHMENTS = 100
METADATA = 16_000  # ours: Slack refuses "too large" without a number
VIEW_BYTES = 250_000
URL = re.compile(r"(?:https?://[^\s/]+|mailto:\S+@|tel:\+?\d|slack://)\S*", re.IGNORECASE)


def size(text: str) -> int:
    """The length of a text in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@dataclass
class _Look:
    """One walk through one payload: where it will be shown, which files can be shown, and what is wrong."""

    surface: Surface
    shows: Callable[[Json], bool]
    errors: list[str] = field(default_factory=list)

    def error(self, sentence: str, at: str) -> None:
        self.errors.append(f"{sentence} [json-pointer:{at}]")


_Rule = Callable[[_Look, Any, str], None]


def _anything(look: _Look, value: Any, at: str) -> None:
    """Accepts every value."""


def _string(most: int, least: int = 1) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if not isinstance(value, str):
            look.error("must be a string", at)
        elif size(value) < least:
            look.error(f"must be more than {least - 1} characters", at)
        elif size(value) > most:
            look.error(f"must be less than {most + 1} characters", at)

    return rule


def _url(look: _Look, value: Any, at: str) -> None:
    before = len(look.errors)
    _string(3000)(look, value, at)
    if len(look.errors) == before and not URL.fullmatch(value):
        look.error("invalid url", at)


def _number(low: int, high: int) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            look.error("must be an integer", at)
        elif not low <= value <= high:
            look.error(f"must be between {low} and {high}", at)

    return rule


def _flag(look: _Look, value: Any, at: str) -> None:
    if not isinstance(value, bool):
        look.error("must be a boolean", at)


def _word(*words: str) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if value not in words:
            look.error(f"unsupported type: {value}" if at.endswith("/type") else f"must be one of: {', '.join(words)}", at)

    return rule


def _items(most: int, each: _Rule, least: int = 1) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if not isinstance(value, list):
            look.error("must be an array", at)
            return
        if len(value) > most:
            look.error(f"no more than {most} items allowed", at)
        if len(value) < least:
            look.error(f"no fewer than {least} items allowed", at)
        for number, item in enumerate(value[:most]):
            each(look, item, f"{at}/{number}")

    return rule


def _shape(*required: str, **fields: _Rule) -> _Rule:
    """An object with these fields and no others (`type` is always allowed)."""

    def rule(look: _Look, value: Any, at: str) -> None:
        if not isinstance(value, dict):
            look.error("must be an object", at)
            return
        for name in required:
            if value.get(name) is None:
                look.error(f"missing required field: {name}", at)
        for name, inner in value.items():
            if name in fields:
                if inner is not None:
                    fields[name](look, inner, f"{at}/{name}")
            elif name != "type":
                look.error(f"invalid additional property: {name}", at)

    return rule


def _text(most: int, *kinds: str) -> _Rule:
    allowed = kinds or ("plain_text", "mrkdwn")
    inner = _shape("type", "text", type=_word(*allowed), text=_string(most), emoji=_flag, verbatim=_flag)

    def rule(look: _Look, value: Any, at: str) -> None:
        before = len(look.errors)
        inner(look, value, at)
        if len(look.errors) > before and len(allowed) > 1:  # Slack names the union first, the leaf after it
            look.errors.insert(before, f"failed to match all allowed schemas [json-pointer:{at}]")

    return rule


def _plain(most: int) -> _Rule:
    return _text(most, "plain_text")


def _typed(rules: Mapping[str, _Rule]) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if not isinstance(value, dict):
            look.error("must be an object", at)
        elif not isinstance(value.get("type"), str):
            look.error("missing required field: type", at)
        elif value["type"] not in rules:
            look.error(f"unsupported type: {value['type']}", f"{at}/type")
        else:
            rules[value["type"]](look, value, at)

    return rule


def _also(rule: _Rule, more: _Rule) -> _Rule:
    """Both rules; the second only looks at what the first found sound."""

    def both(look: _Look, value: Any, at: str) -> None:
        before = len(look.errors)
        rule(look, value, at)
        if len(look.errors) == before:
            more(look, value, at)

    return both


def _exactly_one(first: str, second: str) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if (value.get(first) is None) == (value.get(second) is None):
            look.error(f"must define exactly one of: {first}, {second}", at)

    return rule


def _picture(look: _Look, value: Any, at: str) -> None:
    _exactly_one("image_url", "slack_file")(look, value, at)
    if (wanted := value.get("slack_file")) is not None and not look.shows(wanted):
        look.error("invalid slack file", f"{at}/slack_file")


def _initially_offered(look: _Look, value: Any, at: str) -> None:
    _exactly_one("options", "option_groups")(look, value, at)
    offered = value.get("options") or [option for group in value.get("option_groups") or () for option in group["options"]]
    for name, chosen in (("initial_option", [value.get("initial_option")]), ("initial_options", value.get("initial_options") or [])):
        if any(option is not None and option not in offered for option in chosen):
            look.error(f"{name} does not match any of the options", f"{at}/{name}")


_confirm = _shape(
    "title",
    "text",
    "confirm",
    "deny",
    title=_plain(100),
    text=_text(300),
    confirm=_plain(30),
    deny=_plain(30),
    style=_word("primary", "danger"),
)
_option = _shape("text", "value", text=_text(75), value=_string(150), description=_text(75), url=_url)
_options: dict[str, _Rule] = {
    "options": _items(100, _option),
    "option_groups": _items(100, _shape("label", "options", label=_plain(75), options=_items(100, _option))),
}
_id: dict[str, _Rule] = {"action_id": _string(255), "confirm": _confirm, "focus_on_load": _flag}
_hint: dict[str, _Rule] = {**_id, "placeholder": _plain(150)}
_many: dict[str, _Rule] = {**_hint, "max_selected_items": _number(1, 100), "initial_options": _items(100, _option)}
_style = _word("primary", "danger")
_picture_fields: dict[str, _Rule] = {
    "image_url": _url,
    "alt_text": _string(2000),
    "slack_file": _shape(id=_string(255), url=_string(3000)),
}

_button = _shape("text", text=_plain(75), url=_url, value=_string(2000, 0), style=_style, accessibility_label=_string(75), **_id)
_image_element = _also(_shape("alt_text", **_picture_fields), _picture)
_pickers: dict[str, _Rule] = {
    "static_select": _also(_shape(initial_option=_option, **_options, **_hint), _initially_offered),
    "multi_static_select": _also(_shape(**_options, **_many), _initially_offered),
    "external_select": _shape(initial_option=_option, min_query_length=_number(0, 1000), **_hint),
    "multi_external_select": _shape(min_query_length=_number(0, 1000), **_many),
    "datepicker": _shape(initial_date=_string(10), **_hint),
    "timepicker": _shape(initial_time=_string(5), timezone=_string(100), **_hint),
    "datetimepicker": _shape(initial_date_time=_number(0, 9_999_999_999), **_id),
    "checkboxes": _shape("options", options=_items(10, _option), initial_options=_items(10, _option), **_id),
    "radio_buttons": _shape("options", options=_items(10, _option), initial_option=_option, **_id),
    **{
        f"{kind}_select": _shape(
            response_url_enabled=_flag,
            default_to_current_conversation=_flag,
            filter=_anything,
            **{f"initial_{kind[:-1]}": _string(255)},
            **_hint,
        )
        for kind in ("users", "conversations", "channels")
    },
    **{
        f"multi_{kind}_select": _shape(
            default_to_current_conversation=_flag,
            filter=_anything,
            max_selected_items=_number(1, 100),
            **{f"initial_{kind}": _items(100, _string(255))},
            **_hint,
        )
        for kind in ("users", "conversations", "channels")
    },
}
_typing: dict[str, _Rule] = {**_hint, "initial_value": _string(3000, 0), "dispatch_action_config": _anything}
_inputs: dict[str, _Rule] = {
    **_pickers,
    "plain_text_input": _shape(multiline=_flag, min_length=_number(0, 3000), max_length=_number(1, 3000), **_typing),
    "url_text_input": _shape(**_typing),
    "email_text_input": _shape(**_typing),
    "number_input": _shape("is_decimal_allowed", is_decimal_allowed=_flag, min_value=_anything, max_value=_anything, **_typing),
    "rich_text_input": _shape(**(_typing | {"initial_value": _anything})),
    "file_input": _shape(filetypes=_items(100, _string(20)), max_files=_number(1, 10), action_id=_string(255)),
}
_pressed: dict[str, _Rule] = {
    "button": _button,
    "overflow": _shape("options", options=_items(5, _option), action_id=_string(255), confirm=_confirm),
}
_actions: dict[str, _Rule] = {**_pickers, **_pressed, "rich_text_input": _inputs["rich_text_input"]}
_feedback = _shape("text", "value", text=_plain(75), value=_string(2000), accessibility_label=_string(75))

_leaf_style = _shape(
    bold=_flag, italic=_flag, strike=_flag, code=_flag, underline=_flag, highlight=_flag, client_highlight=_flag, unlink=_flag
)
_leaf = _typed(
    {
        "text": _shape("text", text=_string(100_000), style=_leaf_style),
        "link": _shape("url", url=_url, text=_string(100_000, 0), unsafe=_flag, style=_leaf_style),
        "user": _shape("user_id", user_id=_string(255), style=_leaf_style),
        "usergroup": _shape("usergroup_id", usergroup_id=_string(255), style=_leaf_style),
        "channel": _shape("channel_id", channel_id=_string(255), style=_leaf_style),
        "emoji": _shape("name", name=_string(255), unicode=_string(255), skin_tone=_anything, style=_leaf_style),
        "broadcast": _shape("range", range=_word("here", "channel", "everyone"), style=_leaf_style),
        "date": _shape("timestamp", "format", timestamp=_anything, format=_string(255), fallback=_string(255), url=_url, style=_leaf_style),
        "color": _shape("value", value=_string(7), style=_leaf_style),
    }
)
_line = _shape("elements", elements=_items(1000, _leaf, 0))
_rich_text = _shape(
    "elements",
    block_id=_string(255),
    elements=_items(
        1000,
        _typed(
            {
                "rich_text_section": _line,
                "rich_text_list": _shape(
                    "elements",
                    "style",
                    elements=_items(1000, _typed({"rich_text_section": _line})),
                    style=_word("bullet", "ordered"),
                    indent=_number(0, 8),
                    offset=_number(0, 100_000),
                    border=_anything,
                ),
                "rich_text_preformatted": _shape("elements", elements=_items(1000, _leaf), border=_anything, language=_string(100)),
                "rich_text_quote": _shape("elements", elements=_items(1000, _leaf), border=_anything),
            }
        ),
    ),
)


def words(value: Any) -> list[str]:
    """Every text that a person would read in a block, in order, as it was sent (escaped where Slack wants it escaped)."""
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    if not isinstance(value, dict):
        return []
    found: list[str] = []
    for name, inner in value.items():
        if name in {"text", "alt_text", "caption"} and isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, dict | list):
            found += words(inner)
    return found


def _not_above(most: int) -> _Rule:
    def rule(look: _Look, value: Any, at: str) -> None:
        if sum(size(word) for word in words(value)) > most:
            look.error(f"must be less than {most + 1} characters", at)

    return rule


def _even_rows(look: _Look, value: Any, at: str) -> None:
    rows = value["rows"]
    if len({len(row) for row in rows}) > 1:
        look.error("all rows must have the same number of cells", f"{at}/rows")
    if any(cell["type"] == "rich_text" for cell in rows[0]):
        look.error("unsupported type: rich_text", f"{at}/rows/0")


_raw: dict[str, _Rule] = {
    "raw_text": _shape("text", text=_string(10_000)),
    "raw_number": _shape("value", value=_anything, text=_string(255)),
    "rich_text": _rich_text,
}
_column = _shape(align=_word("left", "center", "right"), is_wrapped=_flag)


def _column_or_default(look: _Look, value: Any, at: str) -> None:
    if value is not None:
        _column(look, value, at)


def _in_modals_only(look: _Look, value: Any, at: str) -> None:
    if look.surface != "modal":
        look.error(f"unsupported type: {value['type']}", f"{at}/type")


def _in_messages_only(look: _Look, value: Any, at: str) -> None:
    if look.surface != "message":
        look.error(f"unsupported type: {value['type']}", f"{at}/type")


def _in_views_only(look: _Look, value: Any, at: str) -> None:
    if look.surface == "message":
        look.error(f"unsupported type: {value['type']}", f"{at}/type")


def _said(look: _Look, value: Any, at: str) -> None:
    if value.get("text") is None and not value.get("fields"):
        look.error("missing required field: text", at)


def _own_action_ids(look: _Look, value: Any, at: str) -> None:
    seen: set[str] = set()
    for number, element in enumerate(value["elements"]):
        if (name := element.get("action_id")) in seen:
            look.error(f"`action_id` `{name}` already exists for this block", f"{at}/elements/{number}/action_id")
        elif name is not None:
            seen.add(name)


def _block(*required: str, **fields: _Rule) -> _Rule:
    return _shape(*required, block_id=_string(255), **fields)


_card = _block(
    title=_text(150),
    subtitle=_text(150),
    body=_text(200),
    subtext=_text(200),
    actions=_items(3, _typed({"button": _button})),
    hero_image=_image_element,
    icon=_image_element,
    slack_icon=_anything,
)
_chart = _block("title", "chart", title=_string(50), chart=_anything)


def _chart_sizes(look: _Look, value: Any, at: str) -> None:
    chart = value["chart"]
    if not isinstance(chart, dict):
        look.error("must be an object", f"{at}/chart")
        return
    _word("pie", "bar", "area", "line")(look, chart.get("type"), f"{at}/chart/type")
    series = chart.get("series") or []
    _items(12, _anything, 0)(look, series, f"{at}/chart/series")
    for name, points in [("segments", chart.get("segments") or [])] + [
        (f"series/{number}/data", one.get("data") or []) for number, one in enumerate(series) if isinstance(one, dict)
    ]:
        _items(20, _shape("label", "value", label=_string(20), value=_anything), 0)(look, points, f"{at}/chart/{name}")


_task = _block(
    "task_id",
    "title",
    "status",
    task_id=_string(255),
    title=_string(255),
    status=_word("pending", "in_progress", "complete", "error"),
    details=_rich_text,
    output=_rich_text,
    sources=_anything,
)
_input_block = _block(
    "label", "element", label=_plain(2000), element=_typed(_inputs), hint=_plain(2000), optional=_flag, dispatch_action=_flag
)

_blocks: dict[str, _Rule] = {
    "section": _also(
        _block(text=_text(3000), fields=_items(10, _text(2000)), accessory=_typed({**_actions, "image": _image_element}), expand=_flag),
        _said,
    ),
    "header": _block("text", text=_plain(150), level=_number(1, 4)),
    "divider": _block(),
    "context": _block("elements", elements=_items(10, _typed({"image": _image_element, "plain_text": _text(3000), "mrkdwn": _text(3000)}))),
    "actions": _also(_block("elements", elements=_items(25, _typed(_actions))), _own_action_ids),
    "context_actions": _also(
        _block(
            "elements",
            elements=_items(
                5,
                _typed(
                    {
                        "feedback_buttons": _shape(
                            "positive_button",
                            "negative_button",
                            action_id=_string(255),
                            positive_button=_feedback,
                            negative_button=_feedback,
                        ),
                        "icon_button": _shape(
                            "icon",
                            "text",
                            icon=_string(255),
                            text=_plain(75),
                            value=_string(2000),
                            visible_to_user_ids=_anything,
                            accessibility_label=_string(75),
                            **_id,
                        ),
                    }
                ),
            ),
        ),
        _own_action_ids,
    ),
    "image": _also(_block("alt_text", title=_plain(2000), **_picture_fields), _picture),
    "rich_text": _rich_text,
    "markdown": _also(_block("text", text=_string(MARKDOWN_TEXT)), _in_messages_only),
    "input": _also(_input_block, _in_views_only),
    "file": _block("external_id", "source", external_id=_string(255), source=_word("remote")),
    "video": _block(
        "alt_text",
        "title",
        "thumbnail_url",
        "video_url",
        alt_text=_string(2000),
        title=_plain(200),
        title_url=_url,
        thumbnail_url=_url,
        video_url=_url,
        author_name=_string(50),
        provider_name=_string(50),
        provider_icon_url=_url,
        description=_plain(200),
    ),
    "table": _also(
        _in_messages_only,
        _also(
            _block("rows", rows=_items(100, _items(20, _typed(_raw))), column_settings=_items(20, _column_or_default)), _not_above(10_000)
        ),
    ),
    "data_table": _also(
        _in_messages_only,
        _also(
            _also(
                _block(
                    "rows",
                    "caption",
                    caption=_string(255),
                    rows=_items(101, _items(20, _typed(_raw)), 2),
                    page_size=_number(1, 100),
                    row_header_column_index=_number(0, 19),
                ),
                _even_rows,
            ),
            _not_above(20_000),
        ),
    ),
    "data_visualization": _also(_chart, _chart_sizes),
    "alert": _also(_block("text", text=_text(200), level=_word("default", "info", "warning", "error", "success")), _in_modals_only),
    "card": _card,
    "carousel": _block("elements", elements=_items(10, _typed({"card": _card}))),
    "task_card": _task,
    "plan": _block("title", title=_string(255), tasks=_items(50, _typed({"task_card": _task}))),
}
_blocks["container"] = _block(
    "child_blocks",
    title=_plain(150),
    subtitle=_plain(150),
    child_blocks=_items(10, _typed({name: rule for name, rule in _blocks.items() if name not in {"input", "alert"}})),
    is_collapsible=_flag,
    default_collapsed=_flag,
    width=_word("narrow", "standard", "wide", "full"),
    icon=_image_element,
)
_one_block = _typed(_blocks)
ONE_TABLE = "only_one_table_allowed"
_TABLES = {"table", "data_table"}  # one family, nested ones count; refused as `invalid_attachments`


def _flat(blocks: Sequence[Json]) -> list[Json]:
    return [one for block in blocks for one in (block, *_flat(block.get("child_blocks") or ()))]


def wrong_blocks(blocks: Any, surface: Surface, shows: Callable[[Json], bool], at: str = "/blocks") -> list[str]:
    """Why Slack would refuse these blocks, in its words; empty when it would not.

    `shows` says whether a `slack_file` object names a file that Slack has finished processing.
    """
    look = _Look(surface, shows)
    _items(BLOCKS[surface], _one_block, 0)(look, blocks, at)
    if not look.errors:
        ids: set[str] = set()
        for number, block in enumerate(blocks):
            if (name := block.get("block_id")) in ids:
                look.error(f"`block_id` `{name}` already exists", f"{at}/{number}/block_id")
            elif name is not None:
                ids.add(name)
        kinds = [block["type"] for block in _flat(blocks)]
        if sum(kind in _TABLES for kind in kinds) > 1:
            look.error(ONE_TABLE, at)
        if kinds.count("data_visualization") > 2:
            look.error("no more than 2 data_visualization blocks allowed", at)
        if "plan" in kinds and "task_card" in kinds:
            look.error("plan and task_card are mutually exclusive", at)
        if sum(size(block["text"]) for block in blocks if block["type"] == "markdown") > MARKDOWN_TEXT:
            look.error(f"must be less than {MARKDOWN_TEXT + 1} characters", at)
    return look.errors


def too_long(blocks: Sequence[Json]) -> bool:
    """Whether all blocks of one message together are more than Slack stores."""
    return size(json.dumps(blocks, ensure_ascii=False, separators=(",", ":"))) > ALL_BLOCKS


_view_fields: dict[str, _Rule] = {
    "blocks": _anything,
    "callback_id": _string(255, 0),
    "private_metadata": _string(3000, 0),
    "external_id": _string(255, 0),
}
_views = {
    "modal": _shape(
        "title",
        "blocks",
        title=_plain(24),
        submit=_plain(24),
        close=_plain(24),
        clear_on_close=_flag,
        notify_on_close=_flag,
        submit_disabled=_flag,
        **_view_fields,
    ),
    "home": _shape("blocks", **_view_fields),
}


def wrong_view(view: Any, shows: Callable[[Json], bool]) -> list[str]:
    """Why Slack would refuse this view, in its words; empty when it would not."""
    look = _Look("modal", shows)
    _typed(_views)(look, view, "/view")
    if look.errors:
        return look.errors
    look.errors += wrong_blocks(view["blocks"], view["type"], shows, "/view/blocks")
    if not look.errors and view["type"] == "modal" and not view.get("submit") and any(block["type"] == "input" for block in view["blocks"]):
        look.error("missing required field: submit", "/view")
    return look.errors


def wrong_options(answer: Any) -> list[str]:
    """Why Slack would refuse this answer to an external select."""
    look = _Look("message", lambda _: False)
    _also(_shape(**_options), _exactly_one("options", "option_groups"))(look, answer, "")
    return look.errors


def wrong_metadata(metadata: Any) -> str | None:
    """The error that Slack answers to this message metadata, if any."""
    if not isinstance(metadata, dict):
        return "invalid_metadata_format"
    if set(metadata) - {"event_type", "event_payload", "entities"} or not (
        isinstance(metadata.get("event_type"), str) and metadata["event_type"] and isinstance(metadata.get("event_payload"), dict)
    ):
        return "invalid_metadata_schema"
    return "metadata_too_large" if len(json.dumps(metadata)) > METADATA else None
