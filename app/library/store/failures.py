"""The table `failures`: photos that could not be read."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.library.files.scan import Found
from app.library.store.connection import Store
from app.library.store.stored_paths import below
from mobileclip.errors import one_line


@dataclass(frozen=True, slots=True)
class Failure:
    """A photo that could not be read; `reason` is a stable class, `detail` what the decoder said."""

    path: str
    reason: str
    detail: str
    attempts: int


def put_failure(store: Store, found: Found, root_id: int, reason: str, detail: str) -> None:
    """Record that `found` could not be read, in place of what was known of an earlier attempt."""
    store.sql.execute(
        "INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (path) DO UPDATE SET"
        " root_id = excluded.root_id, size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " reason = excluded.reason, detail = excluded.detail, attempts = attempts + 1,"
        " failed_at = excluded.failed_at",
        (
            os.fsencode(found.path),
            root_id,
            found.size,
            found.mtime_ns,
            _storable(reason),
            _storable(detail),
            time.time(),
        ),
    )


def list_failures(store: Store, *, since: float = 0.0) -> list[Failure]:
    """Photos that could not be read, by path; only failures from `since` on, in Unix seconds."""
    query = "SELECT path, reason, detail, attempts FROM failures WHERE failed_at >= ? ORDER BY path"
    return [Failure(os.fsdecode(row[0]), *row[1:]) for row in store.sql.execute(query, (since,))]


def count_failures(store: Store) -> int:
    """How many photos could not be read."""
    return int(store.sql.execute("SELECT count(*) FROM failures").fetchone()[0])


def failed_before(store: Store, path: str, reason: str) -> bool:
    """Whether the photo at `path` is known to fail for this reason."""
    query = "SELECT 1 FROM failures WHERE path = ? AND reason = ?"
    return store.sql.execute(query, (os.fsencode(path), reason)).fetchone() is not None


def paths_with_roots(store: Store) -> Iterator[tuple[bytes, int]]:
    """(stored path, root id) of every failure."""
    yield from store.sql.execute("SELECT path, root_id FROM failures")


def paths_not_seen(store: Store, folder: str) -> list[bytes]:
    """Stored paths below `folder` that the scan did not meet, see `app.library.store.seen`."""
    query = "SELECT path FROM failures WHERE path >= ? AND path < ? AND path NOT IN (SELECT path FROM temp.seen)"
    return [row[0] for row in store.sql.execute(query, below(folder))]


def remove_failures(store: Store, paths: Iterable[bytes]) -> None:
    """Remove what is known of these stored paths."""
    store.sql.executemany("DELETE FROM failures WHERE path = ?", [(path,) for path in paths])


def move_to_root(store: Store, from_id: int, to_id: int) -> None:
    """Give the failures of one root to another."""
    store.sql.execute("UPDATE failures SET root_id = ? WHERE root_id = ?", (to_id, from_id))


def _storable(text: str) -> str:
    # SQLite refuses lone surrogates, which stand for bytes of a file name that are not text.
    return one_line(text.encode("utf-8", "backslashreplace").decode()) if text.strip() else ""
