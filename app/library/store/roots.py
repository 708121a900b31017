"""The table `roots`: the folders that were indexed."""

import os
from dataclasses import dataclass

from app.library.store import failures, photos
from app.library.store.connection import Store
from app.library.store.stored_paths import below, within


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `read_at` in Unix seconds, None if it was never read to the end."""

    path: str
    photos: int
    read_at: float | None


def add_root(store: Store, path: str) -> int:
    """Return the id of the root that holds `path`; a new root takes over the roots below it."""
    for root_id, known in store.sql.execute("SELECT id, path FROM roots").fetchall():
        if within(os.fsencode(path), known):
            return int(root_id)
    inner = store.sql.execute("SELECT id FROM roots WHERE path >= ? AND path < ?", below(path)).fetchall()
    added = store.sql.execute("INSERT INTO roots (path) VALUES (?)", (os.fsencode(path),)).lastrowid
    assert added is not None
    for (root_id,) in inner:
        photos.move_to_root(store, root_id, added)
        failures.move_to_root(store, root_id, added)
        remove_root(store, root_id)
    return added


def list_roots(store: Store) -> list[Root]:
    """All indexed folders, by path."""
    query = (
        "SELECT r.path, (SELECT count(*) FROM photos p WHERE p.root_id = r.id), r.read_at FROM roots r ORDER BY r.path"
    )
    return [Root(os.fsdecode(row[0]), row[1], row[2]) for row in store.sql.execute(query)]


def root_paths(store: Store) -> dict[int, str]:
    """The path of each root, by its id."""
    return {root_id: os.fsdecode(path) for root_id, path in store.sql.execute("SELECT id, path FROM roots")}


def mark_read(store: Store, path: str, read_at: float) -> None:
    """Record when a root was last read to the end, in Unix seconds."""
    store.sql.execute("UPDATE roots SET read_at = ? WHERE path = ?", (read_at, os.fsencode(path)))


def remove_root(store: Store, root_id: int) -> None:
    """Remove a root, and with it what still belongs to it."""
    store.sql.execute("DELETE FROM roots WHERE id = ?", (root_id,))
