"""Which photos to show: a filter, and its condition in SQL."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from app.library.store.stored_paths import below


@dataclass(frozen=True)
class Filter:
    """Photos that have all of the labels, are in any of the folders, and were taken from `first` to `last`."""

    labels: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None


EVERYTHING = Filter()


def condition(only: Filter) -> tuple[str, list[object]]:
    """A condition on the table `photos p`, and its values."""
    parts, values = ["1"], list[object]()
    for label in only.labels:
        parts.append("EXISTS (SELECT 1 FROM tags t WHERE t.content_id = p.content_id AND t.label = ?)")
        values.append(label)
    if only.folders:
        parts.append("(" + " OR ".join(["p.path >= ? AND p.path < ?"] * len(only.folders)) + ")")
        values += [bound for folder in only.folders for bound in below(folder)]
    if only.first is not None:
        parts.append("p.taken >= ?")
        values.append(_start(only.first))
    if only.last is not None and only.last < date.max:
        parts.append("p.taken < ?")
        values.append(_start(only.last + timedelta(days=1)))
    return " AND ".join(parts), values


def _start(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
