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
"""Least seconds between two reloads while the index grows."""


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

    Everything is called from the thread of the screen. Questions that take time go to `ask` (what a person waits for)
    or `chore` (what may take its time); `quick` is the library in this thread, for calls of a few milliseconds.

    Args:
        places: where our files lie.
        load_model: opens the bundle; called in worker threads, once.
        deliver: runs a callable in the thread of the screen.
        folders: to be indexed at once, beside those that are known.
    """

    def __init__(
        self,
        places: Folders,
        load_model: Callable[[], "Model"],
        deliver: Deliver,
        folders: Sequence[str] = (),
    ) -> None:
        self.places, self._folders = places, list(folders)
        self.load_model = once(load_model)
        self.settings_path = places.config / "gallery.json"
        self.settings: Settings = load_settings(self.settings_path)
        self.thumbnails = Thumbnails(places.cache / "thumbnails")
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
        return Gallery(self.places.index, self.thumbnails, self.load_model)

    @property
    def state(self) -> State:
        """Whether there is a library, none yet, or one that cannot be opened."""
        if self.trouble:
            return "broken"
        if self.quick is None or (not list_roots(self.quick.store) and self.job is None):
            return "first_run"
        return "ready"

    def start(self) -> None:
        """Open the library, if there is one, and begin what was asked for."""
        if self.places.index.exists() or self._folders:
            self._open_quick()
        if self.quick is None:
            self.state_changed()
            return
        if self._folders:
            self.index(self._folders)
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
        """Move an index that cannot be opened aside, so that a new one can be made; its new name.

        Raises:
            LibraryError: it cannot be moved.
        """
        index = self.places.index
        aside = index.with_name(f"{index.stem}-{datetime.now():%Y%m%d-%H%M%S}{index.suffix}")
        try:
            for ending in ("", "-wal", "-shm"):
                part = index.with_name(index.name + ending)
                if part.exists():
                    part.rename(aside.with_name(aside.name + ending))
        except OSError as error:
            raise LibraryError(f"cannot move {index}: {error.strerror}") from None
        self.trouble = ""
        self.state_changed()
        return aside.name

    # questions

    def ask(self, call: Callable[[Gallery], T], then: Callable[[T], None], failed: Failed, lane: str = "") -> None:
        """Ask the library what a person waits for; see Worker.ask."""
        self._worker.ask(call, then, failed, lane)

    def chore(self, call: Callable[[Gallery], T], then: Callable[[T], None], failed: Failed, lane: str = "") -> None:
        """Ask the library what may take its time."""
        self._chores.ask(call, then, failed, lane)

    def drop(self, lane: str) -> None:
        """The answer of a lane is not wanted any more."""
        self._worker.drop(lane)

    # labels and tags

    def refresh_labels(self) -> None:
        """Bring tags up to the model and the corrections; tells whether there is a usable model."""
        self.chore(_labels_of, self._labels_are, self._no_model, "tags")

    def _labels_are(self, answer: tuple[list[str], ModelAbout]) -> None:
        self.labels, self.model = answer
        self.model_trouble = ""
        self.tags_changed()

    def _no_model(self, error: PocketclipError) -> None:
        self.model_trouble = str(error)
        self.tags_changed()

    @property
    def can_localize(self) -> bool:
        """Whether where in a photo something is can be asked; true until the model is known."""
        return self.model is None or self.model.can_localize

    # indexing

    @property
    def indexing(self) -> bool:
        """Whether photos are being read now."""
        return self.job is not None and self.job.state.running

    def index(self, folders: Sequence[str] = (), *, retry: bool = False) -> None:
        """Read new photos in the background; all known folders where none is named."""
        if self.indexing:
            return
        if self.quick is None:
            self._open_quick()
        if self.quick is None:
            self.state_changed()
            return
        self.job = IndexJob(self.places.index, self.load_model, list(folders), Options(retry=retry), self.thumbnails)
        self._last_job = None
        self.job.start()
        self.job_changed()

    def stop_indexing(self) -> None:
        """Ask the job to end after what it has in hand."""
        if self.job is not None:
            self.job.stop()

    def poll(self, now: float | None = None) -> None:
        """Look at the job and at the index; call it a few times a second."""
        now = time.monotonic() if now is None else now
        if self.job is not None and self.job.state != self._last_job:
            # A short job may be over before it is looked at for the first time.
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

    # the end

    def forget_everything(self, keep_decisions: bool, then: Callable[[None], None], failed: Failed) -> None:
        """Delete all index data; the photos are not touched."""
        if self.indexing:
            failed(IndexBusyError("photos are being read; stop that first"))
            return
        self.job = self._last_job = None
        self.chore(lambda gallery: gallery.forget_everything(keep_decisions=keep_decisions), then, failed)

    def close(self) -> None:
        """Stop everything and keep the settings; what is in hand is finished first."""
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
    """Call `load` once for all threads; a failure is not kept, so that it can be tried again."""
    lock = threading.Lock()
    made: list[T] = []

    @functools.wraps(load)
    def get() -> T:
        with lock:
            if not made:
                made.append(load())
            return made[0]

    return get


def subfolders(folder: str) -> tuple[list[str], int]:
    """Folders in a folder, by name, without hidden ones, and how many files of photos lie directly in it.

    Raises:
        LibraryError: the folder may not be opened.
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
