"""What all screens share: the library behind its worker threads, the pictures, the running index job, the settings."""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from app.library.errors import IndexBusyError, LibraryError
from app.library.gallery import Counts, Gallery, ModelAbout
from app.library.index.job import IndexJob, JobState
from app.library.index.run import Options
from app.library.pictures.pool import PicturePool
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.roots import list_roots
from app.ui.settings import Settings, load_settings, save_settings
from app.ui.worker import Deliver, Failed, Worker
from mobileclip.errors import PocketclipError
from mobileclip.home import Folders

if TYPE_CHECKING:
    from mobileclip.model import Model

T = TypeVar("T")
State = Literal["first_run", "ready", "broken"]

RELOAD_EVERY = 1.0
"""Least number of seconds between two reloads while the index grows."""


class Signal:
    """Callbacks for one kind of event."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def __iadd__(self, listener: Callable[[], None]) -> "Signal":
        self._listeners.append(listener)
        return self

    def __isub__(self, listener: Callable[[], None]) -> "Signal":
        if listener in self._listeners:
            self._listeners.remove(listener)
        return self

    def __call__(self) -> None:
        for listener in list(self._listeners):
            listener()


class Session:
    """One open gallery.

    Call everything from the thread of the screen. Questions that take time go to `ask` (the user waits for the answer)
    or `chore` (nobody waits); `quick` is the library in this thread, for calls of a few milliseconds.

    Args:
        folders: where the index, the cache and the settings are.
        load_model: opens the bundle; called in a worker thread, once.
        deliver: runs a callable in the thread of the screen.
        roots: folders of photos to index at once, in addition to those already indexed.

    Attributes:
        folders: see above.
        settings: what the gallery remembers between two runs.
        thumbnails, pool: small pictures on disk, and the threads that decode pictures.
        quick: the library in this thread; None if there is none or it can't be opened.
        trouble: why the library can't be opened, in one line, or "".
        job: the latest index job; None before the first.
        labels: every label that photos can have, once the model is known.
        model, model_trouble: the model in use, or why there is none.
        changed: photos or their vectors have changed.
        job_changed: the index job has got further.
        tags_changed: tags, labels or the model have changed.
        state_changed: the library was opened, or failed to open.
    """

    def __init__(
        self,
        folders: Folders,
        load_model: Callable[[], "Model"],
        deliver: Deliver,
        roots: Sequence[str] = (),
    ) -> None:
        self.folders, self._roots = folders, list(roots)
        self.load_model = once(load_model)
        self.settings_path = folders.config / "gallery.json"
        self.settings: Settings = load_settings(self.settings_path)
        self.thumbnails = Thumbnails(folders.cache / "thumbnails")
        self.pool = PicturePool(self.thumbnails, threads=2, waiting=1024)
        self._deliver = deliver
        self.quick: Gallery | None = None
        self.trouble = ""
        self.job: IndexJob | None = None
        self.labels: list[str] = []
        self.model: ModelAbout | None = None
        self.model_trouble = ""
        self.changed, self.job_changed, self.tags_changed, self.state_changed = Signal(), Signal(), Signal(), Signal()
        self._stamp, self._reloaded = "", 0.0
        self._last_job: JobState | None = None
        self._worker = Worker(self._open, deliver, "library")
        self._chores = Worker(self._open, deliver, "chores")

    def _open(self) -> Gallery:
        return Gallery(self.folders.index, self.thumbnails, self.load_model)

    @property
    def state(self) -> State:
        """Whether there is a library, none yet, or one that can't be opened."""
        if self.trouble:
            return "broken"
        if self.quick is None or (not list_roots(self.quick.store) and self.job is None):
            return "first_run"
        return "ready"

    def start(self) -> None:
        """Open the library, if there is one, and index the roots."""
        if self.folders.index.exists() or self._roots:
            self._open_quick()
        if self.quick is None:
            self.state_changed()
            return
        if self._roots:
            self.index(self._roots)
        else:
            self.refresh_labels()
        self.state_changed()

    def _open_quick(self) -> None:
        try:
            self.quick = self.quick or self._open()
            self._stamp = self.quick.store.stamp()
            self.trouble = ""
        except PocketclipError as error:
            self.quick, self.trouble = None, str(error)

    def start_again(self) -> str:
        """Rename an index that can't be opened, to make room for a new one; returns its new name.

        Raises:
            LibraryError: it can't be renamed.
        """
        index = self.folders.index
        renamed = index.with_name(f"{index.stem}-{datetime.now():%Y%m%d-%H%M%S}{index.suffix}")
        try:
            for ending in ("", "-wal", "-shm"):
                part = index.with_name(index.name + ending)
                if part.exists():
                    part.rename(renamed.with_name(renamed.name + ending))
        except OSError as error:
            raise LibraryError(f"cannot move {index}: {error.strerror}") from None
        self.trouble = ""
        self.state_changed()
        return renamed.name

    # questions

    def ask(self, call: Callable[[Gallery], T], then: Callable[[T], None], failed: Failed, lane: str = "") -> None:
        """Ask the library something that the user waits for; see `Worker.ask`."""
        self._worker.ask(call, then, failed, lane)

    def chore(self, call: Callable[[Gallery], T], then: Callable[[T], None], failed: Failed, lane: str = "") -> None:
        """Ask the library something that nobody waits for; see `Worker.ask`."""
        self._chores.ask(call, then, failed, lane)

    def drop(self, lane: str) -> None:
        """Drop the questions and answers of a lane."""
        self._worker.drop(lane)

    # labels and tags

    def refresh_labels(self) -> None:
        """Update all tags to the model and the corrections; also finds out whether there is a model."""
        self.chore(_labels_of, self._got_labels, self._model_failed, "tags")

    def _got_labels(self, answer: tuple[list[str], ModelAbout]) -> None:
        self.labels, self.model = answer
        self.model_trouble = ""
        self.tags_changed()

    def _model_failed(self, error: PocketclipError) -> None:
        self.model_trouble = str(error)
        self.tags_changed()

    @property
    def can_localize(self) -> bool:
        """Whether the model can say where in a photo something is; true until the model is known."""
        return self.model is None or self.model.can_localize

    # indexing

    @property
    def indexing(self) -> bool:
        """Whether photos are being read now."""
        return self.job is not None and self.job.state.running

    def index(self, roots: Sequence[str] = (), *, retry: bool = False) -> None:
        """Read new photos in the background: of these folders, or of all indexed folders by default."""
        if self.indexing:
            return
        if self.quick is None:
            self._open_quick()
        if self.quick is None:
            self.state_changed()
            return
        self.job = IndexJob(self.folders.index, self.load_model, list(roots), Options(retry=retry), self.thumbnails)
        self._last_job = None
        self.job.start()
        self.job_changed()

    def stop_indexing(self) -> None:
        """Ask the job to end after the photos that it is reading."""
        if self.job is not None:
            self.job.stop()

    def poll(self, now: float | None = None) -> None:
        """Notice progress of the job and changes of the index; call it a few times a second."""
        now = time.monotonic() if now is None else now
        if self.job is not None and self.job.state != self._last_job:
            # A short job may be over before the first call.
            self._last_job = self.job.state
            self.job_changed()
            if self._last_job.stage in ("done", "failed"):
                self.refresh_labels()
        if self.quick is not None and now - self._reloaded >= RELOAD_EVERY:
            self._look(now)

    def _look(self, now: float) -> None:
        assert self.quick is not None
        try:
            stamp = self.quick.store.stamp()
        except PocketclipError:
            return
        if stamp != self._stamp:
            self._stamp, self._reloaded = stamp, now
            self.changed()

    def counts(self) -> Counts:
        """How many photos, contents, tags and failures there are; all 0 without a library."""
        return self.quick.counts() if self.quick is not None else Counts(0, 0, 0, 0)

    # end

    def forget_everything(self, keep_decisions: bool, then: Callable[[None], None], failed: Failed) -> None:
        """Delete all index data; the photos aren't touched."""
        if self.indexing:
            failed(IndexBusyError("photos are being read; stop that first"))
            return
        self.job = self._last_job = None
        self.chore(lambda gallery: gallery.forget_everything(keep_decisions=keep_decisions), then, failed)

    def close(self) -> None:
        """Finish what is running, stop, and save the settings."""
        if self.job is not None:
            self.job.stop()
        self.pool.close()
        if self.job is not None:
            self.job.join(10.0)
        self._worker.close()
        self._chores.close()
        if self.quick is not None:
            self.quick.close()
        save_settings(self.settings, self.settings_path)


def _labels_of(gallery: Gallery) -> tuple[list[str], ModelAbout]:
    gallery.refresh_tags()
    return gallery.labels(), gallery.model_about()


def once(load: Callable[[], T]) -> Callable[[], T]:
    """Call `load` once for all threads; after an error the next call tries again."""
    lock = threading.Lock()
    loaded: list[T] = []

    @functools.wraps(load)
    def get() -> T:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    return get


def subfolders(folder: str) -> tuple[list[str], int]:
    """The folders in a folder, by name, without hidden ones, and how many photos are directly in it.

    Raises:
        LibraryError: the folder can't be opened.
    """
    from mobileclip.files import PHOTO_SUFFIXES

    names, photos = [], 0
    try:
        for entry in Path(folder).iterdir():
            if entry.name.startswith("."):
                continue
            if entry.suffix.lower() in PHOTO_SUFFIXES:
                photos += 1
            elif _is_folder(entry):
                names.append(entry.name)
    except OSError as error:
        raise LibraryError(error.strerror or str(error)) from None
    return sorted(names, key=str.casefold), photos


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
