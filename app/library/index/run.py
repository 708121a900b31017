"""Bring the index up to date with the folders of photos.

Two phases: walk everything and compare it with what is known, then read what is new, in batches. Each batch is one
short transaction over pairs (photo, what became of it), so that the index is complete at any moment a process may die,
and a photo that fails does not affect the others. What is gone from disk is removed last.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from app.library.errors import LibraryError
from app.library.files.content import content_hash
from app.library.files.exif import Facts, file_time, read_facts
from app.library.files.scan import Found, Identity, identity, outermost
from app.library.index.changes import Scan
from app.library.index.decode import Pixels, ahead, guarded, read_photo
from app.library.index.lock import IndexLock
from app.library.index.record import record_failure, record_photo
from app.library.labels.rules import rules_of
from app.library.labels.tagging import label_fingerprint, refresh
from app.library.pictures.thumbnails import Thumbnails
from app.library.store import photos, seen, tags, vectors
from app.library.store.connection import Store
from app.library.store.failures import Failure, list_failures
from app.library.store.matrix import load_matrix
from app.library.store.roots import add_root
from mobileclip.errors import PhotoError

if TYPE_CHECKING:
    from mobileclip.model import Model

# Photos whose content is known need no model; they are written when a batch is full or this many are waiting.
_WAITING = 256


@dataclass(frozen=True)
class Options:
    """How to index.

    Attributes:
        retry: also read photos again that failed before and have not changed.
        include_hidden: also read hidden folders and files.
        allow_empty: remove the photos of a root that shows none at all, instead of taking it for unmounted.
        batch_size: photos per call of the image tower.
        decoders: threads that read and decode ahead of the tower.
    """

    retry: bool = False
    include_hidden: bool = False
    allow_empty: bool = False
    batch_size: int = 16
    decoders: int = 2


class Progress(NamedTuple):
    """How far a run is, in photos: `stage` is "scan", "index" or "dates", `total` is 0 until it is known."""

    stage: str
    done: int
    total: int
    failed: int


@dataclass
class Report:
    """What one run did; all counts are photos, one per path.

    Attributes:
        found: on disk.
        embedded: read and given a vector.
        reused: new or moved files whose content had its vector already.
        failed: could not be read in this run, see `failures`.
        failed_before: skipped, because they failed in an earlier run and have not changed.
        removed: removed from the index, because they are gone from disk.
        unread: (path, reason) of folders that could not be read; nothing below them was removed.
        spared: roots that show no photos now and kept those they had.
        failures: what failed in this run.
        interrupted: `stop` ended the run early; nothing was removed.
        seconds: wall time.
    """

    found: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    failed_before: int = 0
    removed: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def unchanged(self) -> int:
        """Photos that were known and needed nothing."""
        return max(0, self.found - self.embedded - self.reused - self.failed - self.failed_before)


class _Read(NamedTuple):
    """One photo and what became of it: its hash and header, and pixels if the content is new; or an error."""

    found: Found
    root_id: int
    hash: bytes | PhotoError
    facts: Facts | None = None
    pixels: Pixels | PhotoError | None = None


def index_folders(
    store: Store,
    model: "Model",
    folders: Sequence[str],
    options: Options = Options(),
    *,
    thumbnails: Thumbnails | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Index all photos below `folders`; reads nothing twice that has not changed.

    Args:
        store: the open index.
        model: whose vectors to make; vectors of other models are kept apart.
        folders: what to walk; the index remembers them as its roots.
        options: see Options.
        thumbnails: where to keep a small picture of each photo that is decoded anyway; None for nowhere.
        progress: called from this thread, about once per batch.
        stop: called often; once it returns true, what is decoded is still embedded and stored, then the run ends.

    Raises:
        IndexBusyError: another process is indexing into the same index.
        LibraryError, EngineError: the index cannot be written, or the model does not work. Earlier batches are kept.
    """
    check_apart(store.path, folders)
    with IndexLock(store.path.with_name("index.lock")):
        run = _Run(store, model, outermost(list(folders)), options, thumbnails, progress, stop)
        run.scan()
        if not stop():
            run.read()
            run.read_headers()
        run.finish()
        return run.report


def check_apart(index: Path, folders: Sequence[str]) -> None:
    """Make sure that the index file will not be directly in a folder of photos; call it before creating the file.

    Raises:
        LibraryError: it would.
    """
    own = identity(index.parent)
    if own is not None and own in {identity(folder) for folder in folders}:
        raise LibraryError(
            f"the index would lie in the folder of photos {index.parent}, where we never write;"
            " set POCKETCLIP_HOME to another folder"
        )


class _Run:
    def __init__(
        self,
        store: Store,
        model: "Model",
        roots: list[str],
        options: Options,
        thumbnails: Thumbnails | None,
        progress: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> None:
        self.store, self.model, self.roots, self.options = store, model, roots, options
        self.thumbnails = thumbnails
        self.progress, self.stop = progress, stop
        self.report = Report()
        self.started = time.time()
        self.scanned = Scan(store)
        self.total = 0
        self.done = 0
        self.tagged_by = label_fingerprint(model)
        with store.transaction():
            self.model_id = vectors.add_model(store, model.fingerprint, model.name, model.dim)
        self.rules = rules_of(store, model)

    def scan(self) -> None:
        # Our own files are not photos, even if someone indexes the whole home folder.
        own = identity(self.store.path.parent)
        visited: set[Identity] = set() if own is None else {own}
        for root in self.roots:
            with self.store.transaction():
                root_id = add_root(self.store, root)
            for found in self.scanned.read(root, root_id, include_hidden=self.options.include_hidden, visited=visited):
                self.progress(Progress("scan", found, 0, 0))
                if self.stop():
                    return
        self.report.found = self.scanned.found
        self.total = self.scanned.plan(self.model_id, retry=self.options.retry)
        self.report.failed_before = seen.count_known_failures(self.store)

    def read(self) -> None:
        """Hash, decode, embed and store all that the scan found new."""
        self.progress(Progress("index", 0, self.total, 0))
        with ThreadPoolExecutor(self.options.decoders, thread_name_prefix="decode") as pool:
            try:
                waiting: list[_Read] = []
                pixels = 0
                for read in self._read_ahead(pool):
                    waiting.append(read)
                    pixels += isinstance(read.pixels, np.ndarray)
                    if pixels >= self.options.batch_size or len(waiting) >= _WAITING:
                        self._write(waiting)
                        waiting, pixels = [], 0
                self._write(waiting)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read_ahead(self, pool: ThreadPoolExecutor) -> Iterator[_Read]:
        depth = self.options.batch_size + 2 * self.options.decoders
        hashed = ahead(pool, _hash, self._until_stopped(), 2 * self.options.decoders)
        return ahead(pool, self._decode, (self._known(read) for read in hashed), depth)

    def _until_stopped(self) -> Iterator[tuple[Found, int]]:
        for item in seen.todo(self.store):
            if self.stop():
                return
            yield item

    def _known(self, read: _Read) -> tuple[_Read, bool]:
        # Runs in the thread that owns the connection, between the two stages of the pool.
        return read, isinstance(read.hash, bytes) and vectors.has_vector(self.store, read.hash, self.model_id)

    def _decode(self, item: tuple[_Read, bool]) -> _Read:
        read, known = item
        if isinstance(read.hash, PhotoError):
            return read
        found, key = read.found, read.hash.hex()
        facts = _facts(found)
        if known:
            return read._replace(facts=facts)
        work = lambda: read_photo(found, self.model.recipe, self.thumbnails, key)  # noqa: E731
        return read._replace(facts=facts, pixels=guarded(work, found.path))

    def read_headers(self) -> None:
        """Read the headers of photos that were indexed before the index kept dates."""
        missing = photos.count_without_facts(self.store)
        done = 0
        with ThreadPoolExecutor(self.options.decoders, thread_name_prefix="header") as pool:
            headers = ahead(pool, _with_facts, photos.without_facts(self.store), _WAITING)
            while page := list(islice(headers, _WAITING)):
                with self.store.transaction():
                    for photo_id, facts in page:
                        photos.put_facts(self.store, photo_id, facts)
                done += len(page)
                self.progress(Progress("dates", done, missing, 0))
                if self.stop():
                    break

    def _write(self, batch: list[_Read]) -> None:
        """Embed what is new in a batch and store all of it in one transaction."""
        fresh = [(read, read.pixels) for read in batch if isinstance(read.pixels, np.ndarray)]
        embedded: dict[str, tuple[np.ndarray, list[tuple[str, float]]]] = {}
        if fresh:
            rows = self.model.encode_pixels(np.stack([pixels for _, pixels in fresh]))
            decided = self.rules.decide(vectors.as_stored(rows))
            for (read, _), vector, given in zip(fresh, rows, decided, strict=True):
                embedded[read.found.path] = vector, given
        with self.store.transaction():
            for read in batch:
                self._write_one(read, embedded.get(read.found.path))
        self.done += len(batch)
        self.progress(Progress("index", self.done, self.total, self.report.failed))

    def _write_one(self, read: _Read, embedded: tuple[np.ndarray, list[tuple[str, float]]] | None) -> None:
        error = read.hash if isinstance(read.hash, PhotoError) else read.pixels
        if isinstance(error, PhotoError):
            record_failure(self.store, read.found, read.root_id, error.reason, error.detail)
            self.report.failed += 1
            return
        assert isinstance(read.hash, bytes)
        content_id = record_photo(self.store, read.found, read.root_id, read.hash, read.facts)
        if embedded is None:
            self.report.reused += 1
            return
        vector, given = embedded
        vectors.put_vector(self.store, content_id, self.model_id, vector)
        tags.put_tags(self.store, content_id, given, self.tagged_by)
        self.report.embedded += 1

    def finish(self) -> None:
        """Remove what is gone, unless the run was cut short; prepare the search matrix."""
        report = self.report
        report.interrupted = self.stop() and (self.done < self.total or self.report.found == 0)
        if not report.interrupted:
            with self.store.transaction():
                report.failed += self.scanned.record_not_photos()
                report.removed, spared = self.scanned.sweep(self.roots, allow_empty=self.options.allow_empty)
            report.spared = spared
            matrix = load_matrix(self.store, self.model.fingerprint)
            # A person may have corrected photos or made a label while this run was under way.
            refresh(self.store, self.model, since=self.rules, matrix=matrix)
        report.unread = [(event.path, event.reason) for event in self.scanned.inaccessible]
        report.failures = list_failures(self.store, since=self.started) if report.failed else []
        report.seconds = time.time() - self.started


def _facts(found: Found) -> Facts | None:
    facts = guarded(lambda: read_facts(found.path, found.mtime_ns), found.path)
    return None if isinstance(facts, PhotoError) else facts


def _with_facts(item: tuple[int, Found]) -> tuple[int, Facts]:
    photo_id, found = item
    # If a header can't be read although the photo once could, a size of 0 keeps the next runs from trying again.
    return photo_id, _facts(found) or Facts(0, 0, file_time(found.mtime_ns), "file")


def _hash(item: tuple[Found, int]) -> _Read:
    found, root_id = item
    return _Read(found, root_id, guarded(lambda: content_hash(found.path), found.path))
