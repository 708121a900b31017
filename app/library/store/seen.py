"""The temporary tables `seen` and `todo`: what a scan found on disk, and what of it has to be read.

Only in SQL can a million photos be compared with the index without being held in memory.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

from app.library.files.scan import Found
from app.library.store.connection import Store
from app.library.store.stored_paths import below

_PAGE = 256


def start_scan(store: Store) -> None:
    """Begin with empty tables."""
    store.sql.executescript(
        "DROP TABLE IF EXISTS temp.seen; DROP TABLE IF EXISTS temp.todo;"
        "CREATE TEMP TABLE seen (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, root_id INTEGER)"
        " WITHOUT ROWID;"
        "CREATE TEMP TABLE todo (id INTEGER PRIMARY KEY, path BLOB, size INTEGER, mtime_ns INTEGER,"
        " root_id INTEGER);"
    )


def add_seen(store: Store, found: Iterable[Found], root_id: int) -> None:
    """Record photos that the scan met below a root."""
    rows = [(os.fsencode(photo.path), photo.size, photo.mtime_ns, root_id) for photo in found]
    # Temporary tables are not part of the index: this transaction locks nobody out.
    store.sql.execute("BEGIN")
    store.sql.executemany("INSERT OR REPLACE INTO temp.seen VALUES (?, ?, ?, ?)", rows)
    store.sql.execute("COMMIT")


def any_seen_below(store: Store, folder: str) -> bool:
    """Whether the scan met any photo below `folder`."""
    query = "SELECT 1 FROM temp.seen WHERE path >= ? AND path < ? LIMIT 1"
    return store.sql.execute(query, below(folder)).fetchone() is not None


def plan(store: Store, model_id: int, *, retry: bool, retry_reasons: Sequence[str]) -> int:
    """List what has to be read: new, changed, without a vector of this model; returns how many.

    Args:
        store: the open index.
        model_id: whose vectors are wanted.
        retry: also read photos that failed and have not changed.
        retry_reasons: reasons of failures to try again in any case.
    """
    reasons = ", ".join("?" * len(retry_reasons))
    store.sql.execute(
        "INSERT INTO temp.todo (path, size, mtime_ns, root_id)"
        " SELECT s.path, s.size, s.mtime_ns, s.root_id FROM temp.seen s"
        " LEFT JOIN photos p ON (p.path, p.size, p.mtime_ns) = (s.path, s.size, s.mtime_ns)"
        " LEFT JOIN vectors v ON v.content_id = p.content_id AND v.model_id = ?"
        " LEFT JOIN failures f ON (f.path, f.size, f.mtime_ns) = (s.path, s.size, s.mtime_ns)"
        f" WHERE v.id IS NULL AND (f.path IS NULL OR ? OR f.reason IN ({reasons})) ORDER BY s.path",
        (model_id, retry, *retry_reasons),
    )
    return int(store.sql.execute("SELECT count(*) FROM temp.todo").fetchone()[0])


def count_known_failures(store: Store) -> int:
    """How many photos are skipped because they failed before and have not changed."""
    query = (
        "SELECT count(*) FROM temp.seen s JOIN failures f"
        " ON (f.path, f.size, f.mtime_ns) = (s.path, s.size, s.mtime_ns)"
        " WHERE s.path NOT IN (SELECT path FROM temp.todo)"
    )
    return int(store.sql.execute(query).fetchone()[0])


def todo(store: Store) -> Iterator[tuple[Found, int]]:
    """Yield (photo, root id) by path; the index may be written to meanwhile."""
    last = 0
    query = "SELECT id, path, size, mtime_ns, root_id FROM temp.todo WHERE id > ? ORDER BY id LIMIT ?"
    while page := store.sql.execute(query, (last, _PAGE)).fetchall():
        for last, path, size, mtime_ns, root_id in page:  # noqa: B007 (the last id starts the next page)
            yield Found(os.fsdecode(path), size, mtime_ns), root_id
