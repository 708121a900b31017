"""The photos in the order of their days, whole or filtered, and rows of them for a screen.

A grid needs to know all photos but to see only a few. So the order of all of them is one array of ids, made in one
query, and the rows behind the ids are read a page at a time.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from app.library.files.exif import TakenFrom, wall_clock
from app.library.search.query import EVERYTHING, Filter
from app.library.store.store import Ids, Store, below

_DAY = 24 * 3600
_EPOCH = date(1970, 1, 1)
# SQLite's oldest limit on the values of one statement is 999.
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo, which is one file.

    Attributes:
        id: of the photo in this index.
        content_id: of what the file holds; copies share it.
        key: the content's hash in hex, under which its thumbnail lies.
        path: of the file.
        taken: on the clock of the place where it was taken, see `app.library.files.exif.Facts`.
        taken_from: "camera" or "file".
        width: upright, in pixels, as `height`; 0 where it is not known yet.
        height: see `width`.
        size: in bytes.
    """

    id: int
    content_id: int
    key: str
    path: str
    taken: datetime
    taken_from: TakenFrom
    width: int
    height: int
    size: int


@dataclass(frozen=True, slots=True)
class Day:
    """The photos of one day: `timeline.ids[start : start + count]`."""

    date: date
    start: int
    count: int


@dataclass(frozen=True)
class Timeline:
    """Photo ids, int64 (n,), newest first, and the days that they fall into."""

    ids: Ids
    days: tuple[Day, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder and how many photos lie directly in it."""

    path: str
    photos: int


def timeline(store: Store, only: Filter = EVERYTHING) -> Timeline:
    """All photos that pass a filter, newest first."""
    condition, values = _condition(only)
    query = f"SELECT p.id, p.taken FROM photos p WHERE {condition} ORDER BY p.taken DESC, p.id DESC"
    rows = store.sql.execute(query, values).fetchall()
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    numbers = np.floor(np.fromiter((row[1] for row in rows), np.float64, len(rows)) / _DAY).astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] + 1)) if len(rows) else np.empty(0, np.int64)
    counts = np.diff(starts, append=len(rows))
    days = zip(numbers[starts].tolist(), starts.tolist(), counts.tolist(), strict=True)
    return Timeline(ids, tuple(Day(_EPOCH + timedelta(days=number), start, count) for number, start, count in days))


def photos(store: Store, ids: "Sequence[int] | Ids") -> list[Photo]:
    """The photos with these ids, in the same order; those that are gone meanwhile are left out."""
    wanted = [int(number) for number in ids]
    found: dict[int, Photo] = {}
    for start in range(0, len(wanted), _PAGE):
        page = wanted[start : start + _PAGE]
        query = (
            "SELECT p.id, p.content_id, c.hash, p.path, p.taken, p.taken_from, p.width, p.height, p.size"
            f" FROM photos p JOIN contents c ON c.id = p.content_id WHERE p.id IN ({', '.join('?' * len(page))})"
        )
        for row in store.sql.execute(query, page):
            found[row[0]] = photo_of(row)
    return [found[number] for number in wanted if number in found]


def photo_of(row: Sequence[Any]) -> Photo:
    """A photo of the columns id, content_id, hash, path, taken, taken_from, width, height, size."""
    number, content_id, key, path, taken, taken_from, width, height, size = row
    return Photo(
        number, content_id, key.hex(), os.fsdecode(path), wall_clock(taken), taken_from, width or 0, height or 0, size
    )


def folders(store: Store) -> list[Folder]:
    """Every folder that directly holds photos, by path."""
    counts: dict[bytes, int] = {}
    for (path,) in store.sql.execute("SELECT path FROM photos"):
        folder = os.path.dirname(path)  # noqa: PTH120 (paths are bytes)
        counts[folder] = counts.get(folder, 0) + 1
    return [Folder(os.fsdecode(path), count) for path, count in sorted(counts.items())]


def contents_of(store: Store, only: Filter) -> Ids:
    """Sorted ids, int64 (n,), of the contents of the photos that pass a filter."""
    condition, values = _condition(only)
    rows = store.sql.execute(f"SELECT DISTINCT p.content_id FROM photos p WHERE {condition}", values).fetchall()
    return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))


def photos_with(store: Store, contents: Sequence[int], only: Filter = EVERYTHING) -> dict[int, list[int]]:
    """Content id → the ids of its photos that pass the filter, oldest entry first; without those that have none."""
    condition, values = _condition(only)
    found: dict[int, list[int]] = {}
    for start in range(0, len(contents), _PAGE):
        page = list(contents[start : start + _PAGE])
        query = (
            f"SELECT p.content_id, p.id FROM photos p WHERE p.content_id IN ({', '.join('?' * len(page))})"
            f" AND {condition} ORDER BY p.id"
        )
        for content_id, photo_id in store.sql.execute(query, [*page, *values]):
            found.setdefault(content_id, []).append(photo_id)
    return found


def _condition(only: Filter) -> tuple[str, list[object]]:
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
