"""Results of `pocketclip evaluate` as tables, for the terminal and for a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

DISPLAY_NAMES = {
    "n": "photos",
    "n_photos": "photos",
    "n_captions": "captions",
    "n_failed": "could not be read",
    "labels_unknown": "labels that the model doesn't have",
    "text_to_photo": "text → photo",
    "photo_to_text": "photo → text",
    "top1": "top-1",
    "top5": "top-5",
    "map": "mean average precision",
    "labels_with_threshold": "of them with a threshold",
    "calibration_error_given": "calibration error of given tags",
    "people_without": "people in photos without",
}
"""Display names of figures, if different from the name with spaces."""
NOT_RATES = {"tags_per_photo"}
NOTED = ("n_failed", "labels_unknown")
"""Numbers that are worth a word only if they aren't 0."""
COUNTED = {
    "limits": ("prefers its own caption to a wrong one", "captions", "accuracy"),
    "queries": ("first ten photos in common if typed with another", "pairs", "in common"),
    "shown_at": ("tags shown with a score of", "tags", "right"),
}
"""Figures that have a number and an accuracy for each of several kinds, with the head of their table."""


@dataclass(frozen=True)
class Grid:
    """A table of strings; the first column names what the others measure."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def display_name(name: str) -> str:
    """Return the display name of a figure."""
    return DISPLAY_NAMES.get(name, name.replace("_", " "))


def counts(result: Mapping[str, Any]) -> str:
    """Summarize what was measured: `1,000 photos, 5,000 captions`."""
    numbers = [(name, value) for name, value in result.items() if type(value) is int and (value or name not in NOTED)]
    return ", ".join(f"{value:,} {display_name(name)}" for name, value in numbers)


def grids(result: Mapping[str, Any]) -> list[Grid]:
    """Format a result's rates in percent, each with its 95 % interval; ignores everything else."""
    intervals = result.get("intervals")
    intervals = intervals if isinstance(intervals, dict) else {}
    tables = []
    directions = {name: rates for name, rates in result.items() if name != "intervals" and _all_floats(rates)}
    if directions:
        columns = list(next(iter(directions.values())))
        rows = [
            (
                display_name(name),
                *(_rate(column, rates.get(column), _interval(intervals, name, column)) for column in columns),
            )
            for name, rates in directions.items()
        ]
        tables.append(Grid(("", *columns), tuple(rows)))
    if rates := {name: value for name, value in result.items() if type(value) is float}:
        rows = [(display_name(name), _rate(name, value, _interval(intervals, name))) for name, value in rates.items()]
        tables.append(Grid(("", ""), tuple(rows)))
    for name, head in COUNTED.items():
        counted = result.get(name)
        if isinstance(counted, dict) and counted and all(isinstance(found, dict) for found in counted.values()):
            rows = [
                (
                    display_name(what),
                    f"{found.get('n', 0):,}",
                    _rate(what, found.get("accuracy"), found.get("interval")),
                )
                for what, found in counted.items()
            ]
            tables.append(Grid(head, tuple(rows)))
    views = result.get("views")
    if isinstance(views, dict) and views and all(map(_all_floats, views.values())):
        names = list(next(iter(views.values())))
        rows = [(view, *(_rate(name, rates.get(name), None) for name in names)) for view, rates in views.items()]
        tables.append(Grid(("photos", *map(display_name, names)), tuple(rows)))
    return tables


def for_terminal(result: Mapping[str, Any]) -> Group:
    """Format a result for rich."""
    parts: list[Text | Table] = [Text(counts(result))]
    for grid in grids(result):
        table = Table(box=box.SIMPLE_HEAD, show_header=any(grid.head), pad_edge=False)
        for number, title in enumerate(grid.head):
            table.add_column(Text(title), justify="right" if number else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        parts.append(table)
    if "map" in result and not result.get("labels_with_threshold"):
        parts.append(Text("None of these labels has a threshold in this model, so they can be ranked, not decided."))
    return Group(*parts)


def _all_floats(rates: object) -> bool:
    return isinstance(rates, dict) and bool(rates) and all(type(value) is float for value in rates.values())


def _interval(intervals: Mapping[str, Any], *names: str) -> object:
    found: object = intervals
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _rate(name: str, value: object, interval: object) -> str:
    """Format a rate and its interval: `22.8 % (21.6–24.0)`."""
    if not isinstance(value, float):
        return "–"
    scale, places, unit = (1, 2, "") if name in NOT_RATES else (100, 1, " %")
    text = f"{scale * value:.{places}f}{unit}"
    if isinstance(interval, list) and len(interval) == 2 and all(isinstance(end, float) for end in interval):
        text += f" ({scale * interval[0]:.{places}f}–{scale * interval[1]:.{places}f})"
    return text
