"""How the command line speaks: data on stdout, all else on stderr, paths in the bytes they are made of."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from app.library.index.run import Progress


def prepare() -> None:
    """Make both streams UTF-8, whatever the locale; names that are no text leave as the bytes they are."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="surrogateescape")
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Our own warnings in one line; what libraries tell one another is not for the person."""
    from mobileclip.errors import TextCutWarning

    if issubclass(category, TextCutWarning):
        say(f"pocketclip: {message}")


def say(text: str, *, quiet: bool = False) -> None:
    """One line for the person, on stderr."""
    if not quiet:
        print(printable(text), file=sys.stderr)


def show_json(data: Any) -> None:
    """One JSON document on stdout; bytes of a path that are no text become `\\udc80` to `\\udcff`."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    # In JSON a lone surrogate can only stand inside a string, where this spelling of it is JSON's own.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def printable(text: str) -> str:
    """`text` on one line, without control characters that could move a cursor or forge a row."""
    return "".join(_escaped(letter) for letter in text) if not text.isprintable() else text


def _escaped(letter: str) -> str:
    # Surrogates carry the bytes of a name that is no text; they must leave as they came.
    if letter.isprintable() or "\udc80" <= letter <= "\udcff" or ord(letter) > 0x2FF:
        return letter
    return letter.encode("unicode_escape").decode()


def size(count: int) -> str:
    """Bytes for people: 1.4 MB, in powers of 1000."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def silence() -> None:
    """Point both streams at nothing: their reader is gone, and Python flushes once more on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream`, on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[["Progress"], None]]:
    """A bar with rate and time left on stderr, or nothing where nobody looks."""
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
