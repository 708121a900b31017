"""Output: data on stdout, everything else on stderr, and paths with their original bytes."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from mobileclip.terminal import printable, say, show_json, size

if TYPE_CHECKING:
    from app.library.index.run import Progress

__all__ = ["is_terminal", "prepare", "printable", "progress_bar", "say", "show_json", "silence", "size"]


def prepare() -> None:
    """Make both streams UTF-8 in any locale. File names that aren't text are written with their original bytes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="surrogateescape")
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show our own warnings on one line, and hide those of other libraries."""
    from mobileclip.errors import TextCutWarning

    if issubclass(category, TextCutWarning):
        say(f"pocketclip: {message}")


def silence(*streams: TextIO) -> None:
    """Discard further output to streams that failed, because Python flushes them again when it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(devnull, stream.fileno())


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """Show a progress bar with rate and remaining time on stderr, if that is a terminal."""
    if quiet or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Looking for photos", total=None, rate="", failed="")

        def show(state: "Progress") -> None:
            if state.stage == "index":
                bar.update(task, description="Indexing", total=state.total)
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=state.done,
                rate=f"{speed:.1f} photos/s" if speed else "",
                failed=f"{state.failed} failed" if state.failed else "",
            )

        yield show
