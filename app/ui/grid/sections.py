"""Photos in sections: by day, or by month where photos are shown small."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from app.library.search.timeline import Day
from app.ui.kit import strings

MONTHS_BELOW = 84.0
"""Side of a photo, in dp, below which days are too short for separate headings."""


@dataclass(frozen=True)
class Section:
    """A run of photos under one heading.

    Attributes:
        title: the heading; empty for none.
        count: photos in it.
        note: quieter text next to the heading.
        mark: what the fast scroller says while it is dragged past.
    """

    title: str
    count: int
    note: str = ""
    mark: str = ""


def by_date(days: Sequence[Day], cell: float, today: date) -> list[Section]:
    """One section per day, or per month for small photos.

    Args:
        days: as the library gives them, newest first.
        cell: side of a photo, in dp.
        today: for headings like Today.
    """
    if cell >= MONTHS_BELOW:
        return [Section(strings.day(day.date, today), day.count, "", strings.month(day.date)) for day in days]
    months = groupby(days, key=lambda day: (day.date.year, day.date.month))
    return [
        Section(strings.month(date(*month, 1)), sum(day.count for day in group), "", strings.month(date(*month, 1)))
        for month, group in months
    ]


def by_strength(count: int, strong: int, ranked: bool) -> list[Section]:
    """Search results: the strong matches, then the weak ones in a separate section.

    Args:
        count: all results.
        strong: how many of them, from the first on, are strong.
        ranked: false where the query has filters only, so that no result is better than another.
    """
    if not ranked:
        return [Section(strings.t("search.all"), count, strings.n("photos", count))] if count else []
    sections = []
    if strong:
        sections.append(Section(strings.t("search.strong"), strong, strings.n("photos", strong)))
    if count > strong:
        sections.append(Section(strings.t("search.weak"), count - strong, strings.t("search.weak.note")))
    return sections
