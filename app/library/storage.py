"""What the library takes on disk, and how to give all of it back."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.library.index.lock import IndexLock
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.store import Store

_MADE_OF_PHOTOS = ("tags", "vectors", "failures", "photos", "contents", "roots", "decided", "searches", "models")
_DECIDED = ("corrections", "own_fits", "own_labels", "excluded")


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes on disk: the index, the vector files made from it, and thumbnails."""

    index: int
    vectors: int
    thumbnails: int


def storage(store: Store, thumbnails: Thumbnails) -> Storage:
    """How many bytes there are of each."""
    folder, name = store.path.parent, store.path.name
    return Storage(
        index=sum(_size(folder / f"{name}{suffix}") for suffix in ("", "-wal", "-shm")),
        vectors=sum(_size(path) for path in _matrices(store)),
        thumbnails=thumbnails.bytes(),
    )


def forget_everything(store: Store, thumbnails: Thumbnails, *, keep_decisions: bool) -> None:
    """Empty the index and remove all that was made from it; the photos stay as they are.

    Args:
        store: the open index.
        thumbnails: the cache of small pictures.
        keep_decisions: keep the corrections, own labels and excluded patterns; they hold no pictures.

    Raises:
        IndexBusyError: an indexing run is under way.
    """
    with IndexLock(store.path.with_name("index.lock")):
        with store.transaction():
            for table in (*_MADE_OF_PHOTOS, *(() if keep_decisions else _DECIDED)):
                store.sql.execute(f"DELETE FROM {table}")
        # Deleted rows stay legible in the file until it is written anew.
        store.sql.execute("VACUUM")
        store.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for path in _matrices(store):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        thumbnails.clear()


def _matrices(store: Store) -> list[Path]:
    return list(store.path.parent.glob("vectors-*.cache"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
