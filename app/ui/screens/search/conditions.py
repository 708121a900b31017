"""The conditions of a search, apart from the words: labels, days, folders, what to leave out, and a photo to resemble.

Functions from query to query; nothing here asks the library.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from app.library.gallery import Query
from app.ui.kit.strings import MONTHS, t

Kind = Literal["like", "label", "dates", "folder", "without"]


@dataclass(frozen=True)
class Condition:
    """One condition of a query.

    Attributes:
        kind: what it is about.
        value: the label, folder or text; "" where a query can have only one condition of the kind.
        text: what a chip shows.
    """

    kind: Kind
    value: str
    text: str


def conditions_of(query: Query) -> list[Condition]:
    """All conditions of a query, in the order in which chips show them."""
    only = query.filter
    found = [Condition("like", "", t("chip.like"))] if query.terms else []
    found += [Condition("label", label, label) for label in only.labels]
    if only.first or only.last:
        found.append(Condition("dates", "", describe_days(only.first, only.last)))
    found += [Condition("folder", path, _folder_name(path)) for path in only.folders]
    return found + [Condition("without", text, t("chip.not", word=text)) for text in query.without]


def remove(query: Query, condition: Condition) -> Query:
    """The query without one of its conditions."""
    only, value = query.filter, condition.value
    if condition.kind == "like":
        return replace(query, terms=())
    if condition.kind == "without":
        return replace(query, without=tuple(text for text in query.without if text != value))
    if condition.kind == "label":
        only = replace(only, labels=tuple(label for label in only.labels if label != value))
    elif condition.kind == "folder":
        only = replace(only, folders=tuple(path for path in only.folders if path != value))
    else:
        only = replace(only, first=None, last=None)
    return replace(query, filter=only)


def add_label(query: Query, label: str) -> Query:
    """Only photos that have this label too."""
    only = query.filter
    if label in only.labels:
        return query
    return replace(query, filter=replace(only, labels=(*only.labels, label)))


def add_folder(query: Query, path: str) -> Query:
    """Photos of this folder too; the first one limits the search to it."""
    only = query.filter
    if path in only.folders:
        return query
    return replace(query, filter=replace(only, folders=(*only.folders, path)))


def leave_out(query: Query, text: str) -> Query:
    """No photos that show this."""
    text = text.strip()
    return query if not text or text in query.without else replace(query, without=(*query.without, text))


def between(query: Query, first: date | None, last: date | None) -> Query:
    """Only photos of these days, inclusive, in either order; None leaves an end open."""
    if first and last and last < first:
        first, last = last, first
    return replace(query, filter=replace(query.filter, first=first, last=last))


def describe_days(first: date | None, last: date | None) -> str:
    """A range of days in few words."""
    if first and last:
        if first == last:
            return _day(first)
        if (first.month, first.day, last.month, last.day) == (1, 1, 12, 31):
            return str(first.year) if first.year == last.year else f"{first.year} – {last.year}"
        return f"{_day(first)} – {_day(last)}"
    return f"{_day(first)} –" if first else f"– {_day(last)}" if last else ""


def usual_ranges(today: date) -> list[tuple[str, date, date]]:
    """Ranges that people often want: name, first day, last day."""
    return [
        (t("dates.week"), today - timedelta(days=6), today),
        (t("dates.month"), today.replace(day=1), today),
        (t("dates.year"), today.replace(month=1, day=1), today),
        (t("dates.last_year"), date(today.year - 1, 1, 1), date(today.year - 1, 12, 31)),
    ]


def _day(value: date) -> str:
    return f"{value.day} {MONTHS[value.month - 1][:3]} {value.year}"


def _folder_name(path: str) -> str:
    return path.rstrip("/\\").replace("\\", "/").split("/")[-1] or path
