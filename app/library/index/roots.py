"""Which folders the gallery shows: let one go, pass some over, and take that back. Files are never touched."""

import os

from app.library.errors import LibraryError
from app.library.index.changes import forget_orphans
from app.library.index.excluded import Excluded, patterns
from app.library.store.store import Store


def forget_root(store: Store, path: str) -> int:
    """Let an indexed folder go with all of its photos; returns how many. What a person decided on them is kept."""
    with store.transaction():
        row = store.sql.execute("SELECT id FROM roots WHERE path = ?", (os.fsencode(path),)).fetchone()
        if row is None:
            raise LibraryError(f"{path} is not an indexed folder")
        removed = store.sql.execute("DELETE FROM photos WHERE root_id = ?", row).rowcount
        store.sql.execute("DELETE FROM roots WHERE id = ?", row)
        forget_orphans(store.sql)
    return removed


def exclude(store: Store, pattern: str) -> int:
    """Exclude what matches `pattern` (`app.library.index.excluded`); returns how many photos that hides.

    Raises:
        LibraryError: nothing but blanks, or an indexed folder itself.
    """
    pattern = pattern.strip()
    if not pattern.strip("/\\"):
        raise LibraryError("a pattern is the name or the path of folders or files to pass over")
    roots = {root_id: os.fsdecode(path) for root_id, path in store.sql.execute("SELECT id, path FROM roots")}
    if any(os.path.normcase(root) == os.path.normcase(pattern.rstrip("/\\")) for root in roots.values()):
        raise LibraryError(f"{pattern} is an indexed folder itself; let it go instead")
    excluded = Excluded([pattern])
    with store.transaction():
        store.sql.execute("INSERT OR IGNORE INTO excluded VALUES (?)", (pattern,))
        hidden = 0
        for table in ("photos", "failures"):
            rows = store.sql.execute(f"SELECT path, root_id FROM {table}")
            gone = [(path,) for path, root_id in rows if excluded.hides(os.fsdecode(path), roots[root_id])]
            store.sql.executemany(f"DELETE FROM {table} WHERE path = ?", gone)
            hidden += len(gone) if table == "photos" else 0
        forget_orphans(store.sql)
    return hidden


def include(store: Store, pattern: str) -> None:
    """Take a pattern back; its photos come back with the next indexing, and for a month need not be read again."""
    if pattern not in patterns(store):
        raise LibraryError(f"{pattern} is not excluded")
    with store.transaction():
        store.sql.execute("DELETE FROM excluded WHERE pattern = ?", (pattern,))
