"""Which folders the library shows: forget a folder, hide files and folders, and undo that. Files are never touched."""

import os

from app.library.errors import LibraryError
from app.library.index.excluded import Excluded
from app.library.store import contents, failures, photos, roots
from app.library.store.connection import Store
from app.library.store.patterns import add_pattern, remove_pattern


def forget_root(store: Store, path: str) -> int:
    """Remove an indexed folder and its photos from the index; returns how many. Decisions on them are kept.

    Raises:
        LibraryError: not an indexed folder.
    """
    with store.transaction():
        found = [root_id for root_id, known in roots.root_paths(store).items() if known == path]
        if not found:
            raise LibraryError(f"{path} is not an indexed folder")
        removed = photos.remove_photos_of_root(store, found[0])
        roots.remove_root(store, found[0])
        contents.forget_orphans(store)
    return removed


def exclude(store: Store, pattern: str) -> int:
    """Hide what matches `pattern` (`app.library.index.excluded`), now and later; returns how many photos that hides.

    Raises:
        LibraryError: an empty pattern, or an indexed folder itself.
    """
    pattern = pattern.strip()
    if not pattern.strip("/\\"):
        raise LibraryError("a pattern is the name or the path of files or folders to exclude")
    indexed = roots.root_paths(store)
    if any(os.path.normcase(root) == os.path.normcase(pattern.rstrip("/\\")) for root in indexed.values()):
        raise LibraryError(f"{pattern} is an indexed folder itself; remove it instead")
    excluded = Excluded([pattern])
    with store.transaction():
        add_pattern(store, pattern)
        hidden, failed = (
            [path for path, root_id in known if excluded.hides(os.fsdecode(path), indexed[root_id])]
            for known in (photos.paths_with_roots(store), failures.paths_with_roots(store))
        )
        photos.remove_photos(store, hidden)
        failures.remove_failures(store, failed)
        contents.forget_orphans(store)
    return len(hidden)


def include(store: Store, pattern: str) -> None:
    """Remove a pattern; the next index run brings its photos back, and for a month without reading them again.

    Raises:
        LibraryError: not an excluded pattern.
    """
    with store.transaction():
        if not remove_pattern(store, pattern):
            raise LibraryError(f"{pattern} is not excluded")
