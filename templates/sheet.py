"""Answers as tables for a spreadsheet: comma-separated values, in which no cell is a formula."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from templates.words import Json, clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_ROUTES = (
    *("cluster", "caller", "namespace", "pod", "host", "port", "protocol", "source", "path", "match", "action", "failing_share"),
    *("envoy_cluster", "weight", "share", "usable", "healthy_endpoints", "endpoints", "destination_rule"),
)


def routes(routes: Sequence[Json]) -> str:
    """One row for each destination of each route (in the JSON form of `routes`), and one for a route without any."""
    return _table(_ROUTES, (row for route in routes for row in _rows(route)))


def _rows(route: Json) -> Iterator[list[object]]:
    caller = route["viewpoint"]
    own = [caller["cluster"], caller["kind"], caller["namespace"], caller["pod"]]
    own += [route[key] for key in ("host", "port", "protocol", "source", "path", "match", "action", "failing_share")]
    for to in route["destinations"] or [{}]:
        endpoints = to.get("endpoints", ())
        healthy = sum(e["state"] == "healthy" for e in endpoints)
        told = [to.get(key) for key in ("envoy_cluster", "weight", "share", "usable")]
        yield [*own, *told, *((healthy, len(endpoints)) if to else ("", "")), to.get("destination_rule")]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(head)
    table.writerows([_cell(value) for value in row] for row in rows)
    return written.getvalue()


def _cell(value: object) -> object:
    """A value as a spreadsheet shows it; a text that it would calculate is made text by an apostrophe."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text
