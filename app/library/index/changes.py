"""Compare a scan with the index: what to read, and what to remove.

The scan is written into temporary tables first and compared with the index in SQL, so that a million photos are never
held in memory, and nothing is removed before everything is known.
"""

import os
import time
from collections.abc import Iterator, Sequence

from app.library.files.scan import BROKEN_LINK, Found, Identity, Inaccessible, NotAPhoto, walk
from app.library.index.decode import PASSING_REASONS
from app.library.index.excluded import Excluded
from app.library.index.record import record_failure
from app.library.store import contents, failures, photos, roots, seen
from app.library.store.connection import Store
from app.library.store.patterns import list_patterns
from app.library.store.stored_paths import within

_PAGE = 256


class Scan:
    """One scan of some roots, compared with the index of `store`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.found = 0
        self.not_photos: list[tuple[NotAPhoto, int]] = []
        self.inaccessible: list[Inaccessible] = []
        seen.start_scan(store)

    def read(self, root: str, root_id: int, *, include_hidden: bool, visited: set[Identity]) -> Iterator[int]:
        """Walk one root; yields the number of photos found so far, from time to time and at the end."""
        page: list[Found] = []
        excluded = Excluded(list_patterns(self.store))
        for event in walk(root, include_hidden=include_hidden, visited=visited, excluded=excluded):
            if isinstance(event, Found):
                page.append(event)
            elif isinstance(event, NotAPhoto):
                self.not_photos.append((event, root_id))
            elif event.reason != BROKEN_LINK or photos.any_below(self.store, event.path):
                self.inaccessible.append(event)
            if len(page) >= _PAGE:
                self._keep(page, root_id)
                yield self.found
        self._keep(page, root_id)
        yield self.found

    def _keep(self, page: list[Found], root_id: int) -> None:
        seen.add_seen(self.store, page, root_id)
        self.found += len(page)
        page.clear()

    def plan(self, model_id: int, *, retry: bool) -> int:
        """List what has to be read: new, changed, without a vector of this model; returns how many.

        A photo that failed and has not changed since is left out, unless `retry` or unless the reason may have passed
        (permissions, a decoder that is now installed).
        """
        return seen.plan(self.store, model_id, retry=retry, retry_reasons=PASSING_REASONS)

    def record_not_photos(self) -> int:
        """Record pipes and broken links with a photo's name; returns how many are new."""
        new = 0
        for event, root_id in self.not_photos:
            if not failures.failed_before(self.store, event.path, event.reason):
                record_failure(self.store, Found(event.path, 0, 0), root_id, event.reason, "")
                new += 1
        return new

    def sweep(self, folders: Sequence[str], *, allow_empty: bool) -> tuple[int, list[str]]:
        """Remove photos that are gone from disk, below what was really read.

        A root that held photos and now shows none at all looks like a drive that is not mounted: its photos stay,
        unless `allow_empty`.

        Returns:
            How many photos were removed, and the roots that were spared because they are empty.
        """
        inaccessible = [os.fsencode(event.path) for event in self.inaccessible]
        inaccessible += [os.fsencode(event.path) for event, _ in self.not_photos if event.reason == BROKEN_LINK]
        not_photos = {os.fsencode(event.path) for event, _ in self.not_photos}
        removed, spared = 0, []
        for root in folders:
            if not allow_empty and self._looks_unmounted(root):
                spared.append(root)
                continue
            gone = _not_within(photos.paths_not_seen(self.store, root), inaccessible)
            photos.remove_photos(self.store, gone)
            removed += len(gone)
            failed = _not_within(failures.paths_not_seen(self.store, root), inaccessible)
            failures.remove_failures(self.store, [path for path in failed if path not in not_photos])
            if os.fsencode(root) not in inaccessible:
                roots.mark_read(self.store, root, time.time())
        contents.forget_orphans(self.store)
        return removed, spared

    def _looks_unmounted(self, root: str) -> bool:
        return photos.any_below(self.store, root) and not seen.any_seen_below(self.store, root)


def _not_within(paths: Sequence[bytes], folders: Sequence[bytes]) -> list[bytes]:
    return [path for path in paths if not any(within(path, folder) for folder in folders)]
