"""How much space the library takes on disk, and how to free all of it."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.library.index.lock import IndexLock
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.connection import Store


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes on disk: the index, the vector files made from it, and thumbnails."""

    index: int
    vectors: int
    thumbnails: int


def measure_storage(store: Store, thumbnails: Thumbnails) -> Storage:
    """How many bytes there are of each."""
    folder, name = store.path.parent, store.path.name
    return Storage(
        index=sum(_size(folder / f"{name}{suffix}") for suffix in ("", "-wal", "-shm")),
        vectors=sum(_size(path) for path in _matrices(store)),
        thumbnails=thumbnails.bytes(),
    )


def forget_everything(store: Store, thumbnails: Thumbnails, *, keep_decisions: bool) -> None:
    """Empty the index and remove all that was made from it; photos are not touched.

    Args:
        store: the open index.
        thumbnails: the cache of small pictures.
        keep_decisions: keep corrections, custom labels and excluded patterns; they hold no pictures.

    Raises:
        IndexBusyError: an indexing run is under way.
    """
    with IndexLock(store.path.with_name("index.lock")):
        store.empty(keep_decisions=keep_decisions)
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
