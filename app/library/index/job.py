"""Indexing in a separate thread, for a screen that polls its state."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal

from app.library.errors import LibraryError
from app.library.index.run import Options, Progress, Report, check_apart, index_folders
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.connection import Store
from app.library.store.roots import list_roots
from mobileclip.errors import PocketclipError, one_line

if TYPE_CHECKING:
    from mobileclip.model import Model

Stage = Literal["model", "scan", "index", "dates", "done", "failed"]


@dataclass(frozen=True)
class JobState:
    """How far indexing is.

    Attributes:
        running: whether its thread is working.
        stage: loading the "model", looking for photos ("scan"), reading them ("index"), reading the "dates" of those
            that an older version indexed; then "done" or "failed".
        done: photos so far in this stage.
        total: photos in all, 0 until that is known.
        failed: photos that could not be read.
        photos_per_second: over the whole stage.
        error: why it failed, in one line.
        report: what the run did, once it is done.
    """

    running: bool = False
    stage: Stage = "model"
    done: int = 0
    total: int = 0
    failed: int = 0
    photos_per_second: float = 0.0
    error: str = ""
    report: Report | None = None


class IndexJob:
    """One run over some folders. It never calls back; look at `state`."""

    def __init__(
        self,
        index: Path,
        load_model: "Callable[[], Model]",
        folders: Sequence[str],
        options: Options | None = None,
        thumbnails: Thumbnails | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            index: the SQLite file, created if it is missing.
            load_model: returns the model; called in the job's thread.
            folders: absolute paths; none for all that are indexed already.
            options: see `app.library.index.run.Options`.
            thumbnails: where to keep small pictures of what is decoded anyway.
        """
        self._index, self._load_model, self._folders = index, load_model, list(folders)
        self._options, self._thumbnails = options or Options(), thumbnails
        self._state = JobState()
        self._stop = Event()
        self._thread = Thread(target=self._work, name="index", daemon=True)
        self._since = 0.0

    @property
    def state(self) -> JobState:
        """The latest state, from any thread."""
        return self._state

    def start(self) -> None:
        """Start the thread; a job runs once."""
        self._state = JobState(running=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the job to end soon; what is decoded by then is kept. Returns at once."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; returns whether the job has ended."""
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            report = self._run()
        except PocketclipError as error:
            self._fail(str(error))
        except Exception as error:  # nobody else would report it
            self._fail(f"indexing stopped: {type(error).__name__}: {one_line(error)}")
        else:
            self._state = replace(self._state, running=False, stage="done", report=report)

    def _run(self) -> Report:
        if self._folders:
            check_apart(self._index, self._folders)
        with Store(self._index, create=True) as store:
            folders = self._folders or [root.path for root in list_roots(store)]
            if not folders:
                raise LibraryError("there is no folder to index yet; add one first")
            model = self._load_model()
            return index_folders(
                store,
                model,
                folders,
                self._options,
                thumbnails=self._thumbnails,
                progress=self._show,
                stop=self._stop.is_set,
            )

    def _show(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._state.stage:
            self._since = now
        rate = progress.done / (now - self._since) if now > self._since else 0.0
        stage: Stage = "scan" if progress.stage == "scan" else "dates" if progress.stage == "dates" else "index"
        self._state = JobState(True, stage, progress.done, progress.total, progress.failed, rate)

    def _fail(self, error: str) -> None:
        self._state = replace(self._state, running=False, stage="failed", error=error)
