"""The results of `pocketclip evaluate` as tables, for the terminal and for a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

WORDS = {
    "n": "photos",
    "n_photos": "photos",
    "n_captions": "captions",
    "n_failed": "could not be read",
    "text_to_photo": "text → photo",
    "photo_to_text": "photo → text",
    "top1": "top-1",
    "top5": "top-5",
    "map": "mean average precision",
    "labels_with_threshold": "of them with a threshold",
    "calibration_error_given": "calibration error of given tags",
}
"""What a person calls a figure, where that is not its name with spaces."""
NO_RATES = {"tags_per_photo"}


@dataclass(frozen=True)
class Grid:
    """A table of texts: the first column names what the others measure."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def word(name: str) -> str:
    """Return what a person calls a figure."""
    return WORDS.get(name, name.replace("_", " "))


def counts(result: Mapping[str, Any]) -> str:
    """Say in one line what was measured on: `1,000 photos, 5,000 captions`."""
    numbers = [(name, value) for name, value in result.items() if type(value) is int and (value or name != "n_failed")]
    return ", ".join(f"{value:,} {word(name)}" for name, value in numbers)


def grids(result: Mapping[str, Any]) -> list[Grid]:
    """Lay out a result's rates in percent, each with its 95 % interval; what is no result is left out."""
    spread = result.get("intervals")
    spread = spread if isinstance(spread, dict) else {}
    made = []
    directions = {name: rates for name, rates in result.items() if name != "intervals" and _all_floats(rates)}
    if directions:
        columns = list(next(iter(directions.values())))
        rows = [
            (word(name), *(_rate(column, rates.get(column), _ends(spread, name, column)) for column in columns))
            for name, rates in directions.items()
        ]
        made.append(Grid(("", *columns), tuple(rows)))
    if rates := {name: value for name, value in result.items() if type(value) is float}:
        rows = [(word(name), _rate(name, value, _ends(spread, name))) for name, value in rates.items()]
        made.append(Grid(("", ""), tuple(rows)))
    limits = result.get("limits")
    if isinstance(limits, dict) and limits and all(isinstance(found, dict) for found in limits.values()):
        rows = [
            (word(probe), f"{found.get('n', 0):,}", _rate(probe, found.get("accuracy"), found.get("interval")))
            for probe, found in limits.items()
        ]
        made.append(Grid(("own caption before a wrong one", "captions", "accuracy"), tuple(rows)))
    return made


def for_terminal(result: Mapping[str, Any]) -> Group:
    """Make a result printable by rich."""
    parts: list[Text | Table] = [Text(counts(result))]
    for grid in grids(result):
        table = Table(box=box.SIMPLE_HEAD, show_header=any(grid.head), pad_edge=False)
        for number, title in enumerate(grid.head):
            table.add_column(Text(title), justify="right" if number else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        parts.append(table)
    if "map" in result and not result.get("labels_with_threshold"):
        parts.append(Text("None of these labels has a threshold in this model: they can be ranked, not decided."))
    return Group(*parts)


def _all_floats(rates: object) -> bool:
    return isinstance(rates, dict) and bool(rates) and all(type(value) is float for value in rates.values())


def _ends(spread: Mapping[str, Any], *names: str) -> object:
    found: object = spread
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _rate(name: str, value: object, ends: object) -> str:
    """A rate and its interval: `22.8 % (21.6–24.0)`."""
    if not isinstance(value, float):
        return "–"
    scale, places, unit = (1, 2, "") if name in NO_RATES else (100, 1, " %")
    text = f"{scale * value:.{places}f}{unit}"
    if isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, float) for end in ends):
        text += f" ({scale * ends[0]:.{places}f}–{scale * ends[1]:.{places}f})"
    return text
