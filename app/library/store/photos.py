"""The table `photos`: which file holds which content, when it was taken, and how large it is."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from app.library.files.exif import Facts, TakenFrom, file_time, wall_clock
from app.library.files.scan import Found, inside
from app.library.store.connection import Ids, Store
from app.library.store.filter import EVERYTHING, Filter, condition
from app.library.store.stored_paths import below

# SQLite's oldest limit on the values of one statement is 999.
_PAGE = 500
# A cover is the newest of this many photos.
_COVERS = 12
_COLUMNS = "p.id, p.content_id, c.hash, p.path, p.taken, p.taken_from, p.width, p.height, p.size, p.mtime_ns"


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo, which is one file.

    Attributes:
        id: of the photo in this index.
        content_id: of what the file holds; copies share it.
        key: the content's hash in hex, the name of its thumbnail.
        path: of the file.
        taken: on the clock of the place where it was taken, see `app.library.files.exif.Facts`.
        taken_from: "camera" or "file".
        width: in pixels, upright; 0 if not known yet.
        height: in pixels, upright; 0 if not known yet.
        size: in bytes.
        mtime_ns: when the file was last changed, in nanoseconds since 1970.
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
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder and how many photos are directly in it."""

    path: str
    photos: int


# Write


def put_photo(store: Store, found: Found, root_id: int, content_id: int, facts: Facts | None) -> None:
    """Record which content `found` holds.

    Without `facts`, the photo is dated by its file, and the next index run reads its header.
    """
    taken = (file_time(found.mtime_ns), "file") if facts is None else (facts.taken, facts.taken_from)
    size = (None, None) if facts is None else (facts.width, facts.height)
    store.sql.execute(
        "INSERT INTO photos (root_id, path, size, mtime_ns, content_id, taken, taken_from, width, height)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (path) DO UPDATE SET root_id = excluded.root_id, size = excluded.size,"
        " mtime_ns = excluded.mtime_ns, content_id = excluded.content_id, taken = excluded.taken,"
        " taken_from = excluded.taken_from, width = excluded.width, height = excluded.height",
        (root_id, os.fsencode(found.path), found.size, found.mtime_ns, content_id, *taken, *size),
    )


def put_facts(store: Store, photo_id: int, facts: Facts) -> None:
    """Record what the header of a known photo says."""
    store.sql.execute(
        "UPDATE photos SET taken = ?, taken_from = ?, width = ?, height = ? WHERE id = ?",
        (facts.taken, facts.taken_from, facts.width, facts.height, photo_id),
    )


def move_to_root(store: Store, from_id: int, to_id: int) -> None:
    """Give the photos of one root to another."""
    store.sql.execute("UPDATE photos SET root_id = ? WHERE root_id = ?", (to_id, from_id))


def remove_photos(store: Store, paths: Iterable[bytes]) -> None:
    """Remove the photos at these stored paths from the index."""
    store.sql.executemany("DELETE FROM photos WHERE path = ?", [(path,) for path in paths])


def remove_photos_of_root(store: Store, root_id: int) -> int:
    """Remove all photos of a root from the index; returns how many."""
    return store.sql.execute("DELETE FROM photos WHERE root_id = ?", (root_id,)).rowcount


def remove_if_changed(store: Store, found: Found) -> None:
    """Remove what is known of an earlier state of a file."""
    store.sql.execute(
        "DELETE FROM photos WHERE path = ? AND (size, mtime_ns) <> (?, ?)",
        (os.fsencode(found.path), found.size, found.mtime_ns),
    )


# One photo


def list_photos(store: Store, ids: Sequence[int] | Ids) -> list[Photo]:
    """The photos with these ids, in the same order, without those that are gone."""
    wanted = [int(number) for number in ids]
    found: dict[int, Photo] = {}
    for start in range(0, len(wanted), _PAGE):
        page = wanted[start : start + _PAGE]
        query = (
            f"SELECT {_COLUMNS} FROM photos p JOIN contents c ON c.id = p.content_id"
            f" WHERE p.id IN ({', '.join('?' * len(page))})"
        )
        for row in store.sql.execute(query, page):
            found[row[0]] = _photo(row)
    return [found[number] for number in wanted if number in found]


def content_of(store: Store, photo_id: int) -> tuple[int, bytes] | None:
    """The id and the hash of a photo's content, or None if the photo is gone."""
    query = "SELECT c.id, c.hash FROM photos p JOIN contents c ON c.id = p.content_id WHERE p.id = ?"
    row: tuple[int, bytes] | None = store.sql.execute(query, (photo_id,)).fetchone()
    return row


def cover(store: Store, label: str) -> Photo | None:
    """The photo to show for a label: the newest of those that it fits best, one with a person's own tag if any has."""
    query = (
        f"SELECT {_COLUMNS} FROM ("
        " SELECT content_id, score, source FROM tags WHERE label = ? AND content_id IN (SELECT content_id FROM photos)"
        f" ORDER BY score DESC LIMIT {_COVERS}) t"
        " JOIN photos p ON p.content_id = t.content_id JOIN contents c ON c.id = p.content_id"
        " ORDER BY t.source DESC, p.taken DESC, p.id DESC LIMIT 1"
    )
    row = store.sql.execute(query, (label,)).fetchone()
    return None if row is None else _photo(row)


def _photo(row: Sequence[Any]) -> Photo:
    """A photo from the columns of `_COLUMNS`."""
    number, content_id, key, path, taken, taken_from, width, height, size, mtime_ns = row
    return Photo(
        id=number,
        content_id=content_id,
        key=key.hex(),
        path=os.fsdecode(path),
        taken=wall_clock(taken),
        taken_from=taken_from,
        width=width or 0,
        height=height or 0,
        size=size,
        mtime_ns=mtime_ns,
    )


# Many photos


def ids_and_times(store: Store, only: Filter = EVERYTHING) -> list[tuple[int, float]]:
    """(photo id, time taken) of the photos that pass a filter, newest first; see `Facts.taken`."""
    where, values = condition(only)
    query = f"SELECT p.id, p.taken FROM photos p WHERE {where} ORDER BY p.taken DESC, p.id DESC"
    return store.sql.execute(query, values).fetchall()


def contents_of(store: Store, only: Filter) -> Ids:
    """Sorted ids, int64 (n,), of the contents of the photos that pass a filter."""
    where, values = condition(only)
    rows = store.sql.execute(f"SELECT DISTINCT p.content_id FROM photos p WHERE {where}", values).fetchall()
    return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))


def photos_with(store: Store, contents: Sequence[int], only: Filter = EVERYTHING) -> dict[int, list[int]]:
    """Content id → the ids of its photos that pass the filter, oldest entry first; without those that have none."""
    where, values = condition(only)
    found: dict[int, list[int]] = {}
    for start in range(0, len(contents), _PAGE):
        page = list(contents[start : start + _PAGE])
        query = (
            f"SELECT p.content_id, p.id FROM photos p WHERE p.content_id IN ({', '.join('?' * len(page))})"
            f" AND {where} ORDER BY p.id"
        )
        for content_id, photo_id in store.sql.execute(query, [*page, *values]):
            found.setdefault(content_id, []).append(photo_id)
    return found


def paths_of(store: Store, content_id: int, folders: Sequence[str] = ()) -> list[str]:
    """The paths of all photos with this content, sorted; only those below `folders`, if given."""
    query = "SELECT path FROM photos WHERE content_id = ? ORDER BY path"
    paths = [os.fsdecode(row[0]) for row in store.sql.execute(query, (content_id,))]
    return [path for path in paths if not folders or any(inside(path, folder) for folder in folders)]


def paths_with_vector(store: Store, model_id: int, folders: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """(path, content id) of each photo with a vector of the model, by path; only those below `folders`, if given."""
    query = (
        "SELECT p.path, p.content_id FROM photos p JOIN vectors v ON v.content_id = p.content_id"
        " AND v.model_id = ? WHERE p.path >= ? AND p.path < ? ORDER BY p.path"
    )
    for low, high in [below(folder) for folder in folders] or [(b"", b"\xff" * 8)]:
        for path, content_id in store.sql.execute(query, (model_id, low, high)):
            yield os.fsdecode(path), content_id


def paths_with_roots(store: Store) -> Iterator[tuple[bytes, int]]:
    """(stored path, root id) of every photo."""
    yield from store.sql.execute("SELECT path, root_id FROM photos")


def list_folders(store: Store) -> list[Folder]:
    """Every folder that directly holds photos, by path."""
    counts: dict[bytes, int] = {}
    for (path,) in store.sql.execute("SELECT path FROM photos").fetchall():
        folder = os.path.dirname(path)  # noqa: PTH120 (paths are bytes)
        counts[folder] = counts.get(folder, 0) + 1
    return [Folder(os.fsdecode(path), count) for path, count in sorted(counts.items())]


def count_photos(store: Store) -> int:
    """How many photos there are, copies included."""
    return int(store.sql.execute("SELECT count(*) FROM photos").fetchone()[0])


def count_held_contents(store: Store) -> int:
    """How many different contents the photos hold."""
    return int(store.sql.execute("SELECT count(DISTINCT content_id) FROM photos").fetchone()[0])


# For the index run


def any_below(store: Store, folder: str) -> bool:
    """Whether any photo below `folder` is known."""
    query = "SELECT 1 FROM photos WHERE path >= ? AND path < ? LIMIT 1"
    return store.sql.execute(query, below(folder)).fetchone() is not None


def paths_not_seen(store: Store, folder: str) -> list[bytes]:
    """Stored paths below `folder` that the scan did not meet, see `app.library.store.seen`."""
    query = "SELECT path FROM photos WHERE path >= ? AND path < ? AND path NOT IN (SELECT path FROM temp.seen)"
    return [row[0] for row in store.sql.execute(query, below(folder))]


def count_without_facts(store: Store) -> int:
    """How many photos at most `without_facts` yields."""
    return int(store.sql.execute("SELECT count(*) FROM photos WHERE width IS NULL").fetchone()[0])


def without_facts(store: Store) -> Iterator[tuple[int, Found]]:
    """Yield (photo id, photo) of unchanged photos whose header was never read: an older version indexed them."""
    last = 0
    query = (
        "SELECT p.id, p.path, p.size, p.mtime_ns FROM photos p JOIN temp.seen s"
        " ON (s.path, s.size, s.mtime_ns) = (p.path, p.size, p.mtime_ns)"
        " WHERE p.width IS NULL AND p.id > ? ORDER BY p.id LIMIT ?"
    )
    while page := store.sql.execute(query, (last, _PAGE)).fetchall():
        for last, path, size, mtime_ns in page:
            yield last, Found(os.fsdecode(path), size, mtime_ns)
