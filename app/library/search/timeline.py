"""The photos in the order of their days, all or filtered.

A grid must know all photos but shows only a few. So the order of all of them is one array of ids, made in one query,
and the rows behind the ids are read a page at a time (`app.library.store.photos.list_photos`).
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from app.library.store.connection import Ids, Store
from app.library.store.filter import EVERYTHING, Filter
from app.library.store.photos import ids_and_times

_DAY = 24 * 3600
_EPOCH = date(1970, 1, 1)


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


def timeline(store: Store, only: Filter = EVERYTHING) -> Timeline:
    """All photos that pass a filter, newest first."""
    rows = ids_and_times(store, only)
    ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    numbers = np.floor(np.fromiter((row[1] for row in rows), np.float64, len(rows)) / _DAY).astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] + 1)) if len(rows) else np.empty(0, np.int64)
    counts = np.diff(starts, append=len(rows))
    days = zip(numbers[starts].tolist(), starts.tolist(), counts.tolist(), strict=True)
    return Timeline(ids, tuple(Day(_EPOCH + timedelta(days=number), start, count) for number, start, count in days))
