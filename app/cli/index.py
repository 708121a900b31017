"""`pocketclip index`: bring the index up to date."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.common import (
    INTERRUPTED,
    NOTHING,
    SOME_FAILED,
    AsJson,
    ModelName,
    Quiet,
    Threads,
    absolute,
    load_model,
    processors,
)
from mobileclip.home import user_folders

if TYPE_CHECKING:
    from app.library.index.run import Report

_SHOWN_FAILURES = 10


def index(
    folders: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR", help="Folders of photos. Default: all indexed folders."),
    ] = None,
    model: ModelName = "pocket",
    retry: Annotated[bool, typer.Option("--retry", help="Retry photos that failed before.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also enter hidden folders.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove photos from the index even if a whole folder became empty.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read new and changed photos into the index.

    Photos are only read, never changed, and nothing is written next to them.

    Unchanged photos are not opened again, and moved ones keep their vectors.

    You can stop at any time. The work so far is kept, and the next run
    continues.

    [bold]Examples[/bold]

    \b
    pocketclip index ~/Pictures /media/camera
    pocketclip index --retry
    """
    from app.library.index.run import Options, check_apart, index_folders
    from app.library.store.connection import Store

    path = user_folders().index
    roots = _roots(path, absolute(folders))
    check_apart(path, roots)
    loaded = load_model(model, threads)
    options = Options(retry=retry, include_hidden=hidden, allow_empty=purge, decoders=min(threads or processors(), 8))
    with (
        Store(path, create=True) as store,
        output.progress_bar(quiet=quiet) as progress,
        _stop_on_interrupt(quiet) as stop,
    ):
        report = index_folders(store, loaded, roots, options, progress=progress, stop=stop)
    _print_report(report, quiet)
    if as_json:
        output.show_json(_report_data(report))
    if report.interrupted:
        output.say("pocketclip: interrupted; the work so far is kept, run the same command again to continue")
        raise typer.Exit(INTERRUPTED)
    if report.failed or report.unread:
        raise typer.Exit(SOME_FAILED)
    if report.found == 0:
        raise typer.Exit(NOTHING)


def _roots(index: Path, folders: list[str]) -> list[str]:
    from app.library.store.connection import Store
    from app.library.store.roots import list_roots

    known: list[str] = []
    if index.exists():
        with Store(index) as store:
            known = [root.path for root in list_roots(store)]
    if not folders and not known:
        raise typer.BadParameter("name at least one folder of photos, such as pocketclip index ~/Pictures")
    for folder in folders:
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise typer.BadParameter(f"{folder} is not a folder")
        # A known folder may be on a drive that isn't plugged in, which the index handles.
        if not path.exists() and folder not in known:
            raise typer.BadParameter(f"{folder}: no such folder")
    return folders or known


def _print_report(report: "Report", quiet: bool) -> None:
    for failure in report.failures[:_SHOWN_FAILURES]:
        detail = f" ({failure.detail})" if failure.detail else ""
        output.say(f"{failure.path}: {failure.reason}{detail}", quiet=quiet)
    if len(report.failures) > _SHOWN_FAILURES:
        output.say(f"… and {len(report.failures) - _SHOWN_FAILURES} more: pocketclip status --failures", quiet=quiet)
    for path, reason in report.unread:
        output.say(f"{path}: could not be read ({reason}); its photos are kept", quiet=quiet)
    for path in report.spared:
        output.say(f"{path}: has no photos now; its photos are kept in the index (--purge removes them)", quiet=quiet)
    parts = [
        f"{report.embedded} new",
        f"{report.reused} moved or copied",
        f"{report.unchanged} unchanged",
        f"{report.removed} removed",
        f"{report.failed} failed",
    ]
    if report.failed_before:
        parts.append(f"{report.failed_before} failed before (use --retry to try again)")
    rate = f", {report.embedded / report.seconds:.1f} photos/s" if report.embedded and report.seconds else ""
    output.say(f"{report.found} photos: {', '.join(parts)} in {report.seconds:.1f} s{rate}", quiet=quiet)


def _report_data(report: "Report") -> dict[str, Any]:
    return {
        "found": report.found,
        "new": report.embedded,
        "reused": report.reused,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": [{"path": f.path, "reason": f.reason, "detail": f.detail} for f in report.failures or []],
        "failed_before": report.failed_before,
        "unread": [{"path": path, "reason": reason} for path, reason in report.unread or []],
        "spared": report.spared or [],
        "interrupted": report.interrupted,
        "seconds": round(report.seconds, 3),
    }


@contextmanager
def _stop_on_interrupt(quiet: bool) -> Iterator[Callable[[], bool]]:
    """Finish and store the current photos on the first Ctrl-C, and stop at once on the second."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        output.say("stopping; press Ctrl-C again to stop at once", quiet=quiet)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopping
    finally:
        signal.signal(signal.SIGINT, previous)
