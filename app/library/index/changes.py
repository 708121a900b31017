"""What a scan means for the index: what to read, and what to let go.

The scan is written into temporary tables first and compared with the index in SQL, so that a million photos
are never held in memory, and nothing is removed before everything is known.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence

from app.library.files.scan import BROKEN_LINK, Found, Identity, Odd, Unread, walk
from app.library.index.decode import PASSING_REASONS
from app.library.index.excluded import Excluded, patterns
from app.library.store.store import Store, below, within

# Contents that no photo holds any more keep their vectors for a month: a drive may come back, a file may only
# be on its way from one indexed folder to another.
GRACE_SECONDS = 30 * 24 * 3600.0

_PAGE = 256


class Scan:
    """One reading of some roots, compared with the index of `store`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sql = store.sql
        self.found = 0
        self.odd: list[tuple[Odd, int]] = []
        self.unread: list[Unread] = []
        self.sql.executescript(
            "DROP TABLE IF EXISTS temp.seen; DROP TABLE IF EXISTS temp.todo;"
            "CREATE TEMP TABLE seen (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, root_id INTEGER)"
            " WITHOUT ROWID;"
            "CREATE TEMP TABLE todo (id INTEGER PRIMARY KEY, path BLOB, size INTEGER, mtime_ns INTEGER,"
            " root_id INTEGER);"
        )

    def read(self, root: str, root_id: int, *, include_hidden: bool, visited: set[Identity]) -> Iterator[int]:
        """Walk one root; yields the number of photos found so far, now and then, and at the end."""
        page: list[tuple[bytes, int, int, int]] = []
        excluded = Excluded(patterns(self.store))
        for event in walk(root, include_hidden=include_hidden, visited=visited, excluded=excluded):
            if isinstance(event, Found):
                page.append((os.fsencode(event.path), event.size, event.mtime_ns, root_id))
            elif isinstance(event, Odd):
                self.odd.append((event, root_id))
            elif event.reason != BROKEN_LINK or self._known_below(event.path):
                self.unread.append(event)
            if len(page) >= _PAGE:
                self._keep(page)
                yield self.found
        self._keep(page)
        yield self.found

    def _keep(self, page: list[tuple[bytes, int, int, int]]) -> None:
        # Temporary tables are not the index: this transaction locks nobody out.
        self.sql.execute("BEGIN")
        self.sql.executemany("INSERT OR REPLACE INTO temp.seen VALUES (?, ?, ?, ?)", page)
        self.sql.execute("COMMIT")
        self.found += len(page)
        page.clear()

    def _known_below(self, folder: str) -> bool:
        query = "SELECT 1 FROM photos WHERE path >= ? AND path < ? LIMIT 1"
        return self.sql.execute(query, below(folder)).fetchone() is not None

    def plan(self, model_id: int, *, retry: bool) -> int:
        """List what has to be read: new, changed, without a vector of this model; returns how many.

        A photo that failed and has not changed since is left out, unless `retry` or unless the reason may
        have passed (permissions, a decoder that is now installed).
        """
        passing = ", ".join("?" * len(PASSING_REASONS))
        self.sql.execute(
            "INSERT INTO temp.todo (path, size, mtime_ns, root_id)"
            " SELECT s.path, s.size, s.mtime_ns, s.root_id FROM temp.seen s"
            " LEFT JOIN photos p ON (p.path, p.size, p.mtime_ns) = (s.path, s.size, s.mtime_ns)"
            " LEFT JOIN vectors v ON v.content_id = p.content_id AND v.model_id = ?"
            " LEFT JOIN failures f ON (f.path, f.size, f.mtime_ns) = (s.path, s.size, s.mtime_ns)"
            f" WHERE v.id IS NULL AND (f.path IS NULL OR ? OR f.reason IN ({passing})) ORDER BY s.path",
            (model_id, retry, *PASSING_REASONS),
        )
        return int(self.sql.execute("SELECT count(*) FROM temp.todo").fetchone()[0])

    def known_failures(self) -> int:
        """How many photos are passed over because they failed before and have not changed."""
        return int(
            self.sql.execute(
                "SELECT count(*) FROM temp.seen s JOIN failures f"
                " ON (f.path, f.size, f.mtime_ns) = (s.path, s.size, s.mtime_ns)"
                " WHERE s.path NOT IN (SELECT path FROM temp.todo)"
            ).fetchone()[0]
        )

    def todo(self) -> Iterator[tuple[Found, int]]:
        """Yield (photo, root id) in path order; the index may be written to meanwhile."""
        last = 0
        query = "SELECT id, path, size, mtime_ns, root_id FROM temp.todo WHERE id > ? ORDER BY id LIMIT ?"
        while page := self.sql.execute(query, (last, _PAGE)).fetchall():
            for last, path, size, mtime_ns, root_id in page:  # noqa: B007 (the last id starts the next page)
                yield Found(os.fsdecode(path), size, mtime_ns), root_id

    def count_without_facts(self) -> int:
        """How many photos at most `without_facts` yields."""
        return int(self.sql.execute("SELECT count(*) FROM photos WHERE width IS NULL").fetchone()[0])

    def without_facts(self) -> Iterator[tuple[int, Found]]:
        """Yield (photo id, photo) of unchanged photos whose header has never been read: an older version made them."""
        last = 0
        query = (
            "SELECT p.id, p.path, p.size, p.mtime_ns FROM photos p JOIN temp.seen s"
            " ON (s.path, s.size, s.mtime_ns) = (p.path, p.size, p.mtime_ns)"
            " WHERE p.width IS NULL AND p.id > ? ORDER BY p.id LIMIT ?"
        )
        while page := self.sql.execute(query, (last, _PAGE)).fetchall():
            for last, path, size, mtime_ns in page:
                yield last, Found(os.fsdecode(path), size, mtime_ns)

    def put_odd(self) -> int:
        """Record pipes and broken links with a photo's name; returns how many were not known yet."""
        new = 0
        known = "SELECT 1 FROM failures WHERE path = ? AND reason = ?"
        for odd, root_id in self.odd:
            if self.sql.execute(known, (os.fsencode(odd.path), odd.reason)).fetchone() is None:
                self.store.put_failure(Found(odd.path, 0, 0), root_id, odd.reason, "")
                new += 1
        return new

    def sweep(self, roots: Sequence[str], *, allow_empty: bool) -> tuple[int, list[str]]:
        """Remove photos that are gone from disk, below what was really read.

        A root that held photos and now shows not a single one looks like a drive that is not mounted: its photos
        stay, unless `allow_empty`.

        Returns:
            How many photos were removed, and the roots that were spared for being empty.
        """
        unread = [os.fsencode(event.path) for event in self.unread]
        unread += [os.fsencode(odd.path) for odd, _ in self.odd if odd.reason == BROKEN_LINK]
        odd = {os.fsencode(event.path) for event, _ in self.odd}
        removed, spared = 0, []
        for root in roots:
            if not allow_empty and self._looks_unmounted(root):
                spared.append(root)
                continue
            for table in ("photos", "failures"):
                gone = [
                    path
                    for path in self._not_seen(table, root)
                    if not any(within(path, folder) for folder in unread) and not (table == "failures" and path in odd)
                ]
                self.sql.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in gone])
                removed += len(gone) if table == "photos" else 0
            if os.fsencode(root) not in unread:
                self.sql.execute("UPDATE roots SET read_at = ? WHERE path = ?", (time.time(), os.fsencode(root)))
        forget_orphans(self.sql)
        return removed, spared

    def _looks_unmounted(self, root: str) -> bool:
        seen = "SELECT 1 FROM temp.seen WHERE path >= ? AND path < ? LIMIT 1"
        return self._known_below(root) and self.sql.execute(seen, below(root)).fetchone() is None

    def _not_seen(self, table: str, root: str) -> list[bytes]:
        unseen = "path NOT IN (SELECT path FROM temp.seen)"
        query = f"SELECT path FROM {table} WHERE path >= ? AND path < ? AND {unseen}"
        return [row[0] for row in self.sql.execute(query, below(root))]


def forget_orphans(sql: sqlite3.Connection) -> None:
    """Note which contents no photo holds any more, and let go of those that none has held for GRACE_SECONDS."""
    now = time.time()
    sql.execute(
        "UPDATE contents SET orphaned_at = ? WHERE orphaned_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM photos p WHERE p.content_id = contents.id)",
        (now,),
    )
    sql.execute(
        "DELETE FROM contents WHERE orphaned_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.content_id = contents.id AND t.source = 'you')",
        (now - GRACE_SECONDS,),
    )
