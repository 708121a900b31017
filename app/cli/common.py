"""What all commands share: options, errors as exit codes, and the way to the index and the model."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from mobileclip.errors import PocketclipError
from mobileclip.home import user_folders

if TYPE_CHECKING:
    from app.library.store.store import Store
    from mobileclip.model import Model

NOTHING, USAGE, SOME_FAILED, TROUBLE, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 130, 141
"""Exit codes: nothing found or indexed, wrong usage, some files failed, trouble with the index or a model,
interrupted by a person, and the reader of a pipe went away (as if killed by SIGPIPE)."""

ModelName = Annotated[
    str,
    typer.Option("--model", "-m", metavar="NAME", help="A bundle's name, or the path of its folder or .zip."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Processor threads; all if not given.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors a person can meet into one line on stderr and a documented exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except PocketclipError as error:
            from app.library.errors import NothingIndexedError

            output.say(f"pocketclip: {error}")
            raise typer.Exit(NOTHING if isinstance(error, NothingIndexedError) else TROUBLE) from None
        except BrokenPipeError:
            output.silence()
            raise typer.Exit(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            output.say("pocketclip: interrupted")
            raise typer.Exit(INTERRUPTED) from None

    run.__doc__ = _flowing(command.__doc__ or "")
    return run


def _flowing(text: str) -> str:
    """Join the lines of each paragraph, for a terminal of any width to break; those that begin with \\b stay."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(one if one.startswith("\b") else one.replace("\n", " ") for one in paragraphs)


def load_model(name: str, threads: int | None = None) -> "Model":
    """Open a model bundle; its towers load when first used."""
    from mobileclip.model import open_bundle

    return open_bundle(name, threads=threads)


def stop_without_labels(model: "Model", quiet: bool) -> None:
    """End with the code for nothing where a model has no labels: a pulled one knows no thresholds to decide by."""
    if len(model.labels) == 0:
        output.say(f"pocketclip: {model.name} has no labels with fitted thresholds; search works", quiet=quiet)
        raise typer.Exit(NOTHING)


def open_store() -> "Store":
    """Open the index that is already there.

    Raises:
        NothingIndexedError: there is none yet.
    """
    from app.library.errors import NothingIndexedError
    from app.library.store.store import Store

    path = user_folders().index
    if not path.exists():
        raise NothingIndexedError("nothing is indexed yet; run `pocketclip index DIR` first")
    return Store(path)


def absolute(folders: list[str] | None) -> list[str]:
    """Absolute paths, as the index knows folders."""
    return [os.path.abspath(folder) for folder in folders or []]  # noqa: PTH100 (resolve() would follow links)


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
