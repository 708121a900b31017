"""Shared by all commands: options, exit codes, and opening the index and the model."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.style import reflow
from mobileclip.errors import PocketclipError
from mobileclip.home import user_folders

if TYPE_CHECKING:
    from app.library.store.connection import Store
    from mobileclip.model import Model

NOTHING, USAGE, SOME_FAILED, TROUBLE, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 130, 141
"""Exit codes: nothing found or indexed; wrong usage; some files failed; trouble with the index, a model or the disk;
interrupted; and the pipe was closed by its reader (as if killed by SIGPIPE)."""

ModelName = Annotated[
    str,
    typer.Option("--model", "-m", metavar="NAME", help="Name of a model, or the path of its folder or .zip."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads. Default: all.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors that users can cause into one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            try:
                command(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except PocketclipError as error:
            from app.library.errors import NothingIndexedError

            output.say(f"pocketclip: {error}")
            raise typer.Exit(NOTHING if isinstance(error, NothingIndexedError) else TROUBLE) from None
        except OSError as error:
            raise typer.Exit(report_os_error(error)) from None
        except KeyboardInterrupt:
            output.say("pocketclip: interrupted")
            raise typer.Exit(INTERRUPTED) from None

    run.__doc__ = reflow(command.__doc__ or "")
    return run


def report_os_error(error: OSError) -> int:
    """Report an error of the operating system, such as a full disk, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        output.silence(sys.stdout, sys.stderr)
        return BROKEN_PIPE
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    output.say(f"pocketclip: {where}{error.strerror or error}")
    output.silence(sys.stdout)  # it may have caused the error
    return TROUBLE


def load_model(name: str, threads: int | None = None) -> "Model":
    """Open a model; its towers load on first use."""
    from mobileclip.model import open_bundle

    return open_bundle(name, threads=threads)


def stop_without_labels(model: "Model", quiet: bool) -> None:
    """Exit with NOTHING if a model has no labels, like pulled models, which have no fitted thresholds."""
    if len(model.labels) == 0:
        output.say(f"pocketclip: {model.name} has no labels with fitted thresholds; search works", quiet=quiet)
        raise typer.Exit(NOTHING)


def open_store() -> "Store":
    """Open the existing index.

    Raises:
        NothingIndexedError: nothing is indexed yet.
    """
    from app.library.errors import NothingIndexedError
    from app.library.store.connection import Store

    path = user_folders().index
    if not path.exists():
        raise NothingIndexedError("nothing is indexed yet; run `pocketclip index DIR` first")
    return Store(path)


def absolute(folders: list[str] | None) -> list[str]:
    """Make paths absolute, as the index stores folders."""
    return [os.path.abspath(folder) for folder in folders or []]  # noqa: PTH100 (resolve() would follow links)


def processors() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
