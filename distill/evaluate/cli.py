"""`pocketclip evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="A bundle (name, folder, zip) or a checkpoint.", show_default=False)],
    captions: Annotated[Path | None, typer.Option(help="Measure retrieval on this captions file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Measure zero-shot accuracy on this labels file.")] = None,
    column: Annotated[str, typer.Option(help="The column of --labels that holds the class.")] = "label",
    splits: Annotated[Path | None, typer.Option(help="A file,split table.")] = None,
    split: Annotated[str | None, typer.Option(help="Measure on this split only.")] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Also measure numbers, positions, colours: captions with one wrong word.")
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure a model on photos with captions or labels.

    Files are CSV, TSV or JSONL with the columns `file` and `caption` or `label`; photo paths are relative to them.

    [bold]Examples[/bold]

    \b
    pocketclip evaluate pocket --captions flickr8k/captions.jsonl --splits flickr8k/splits.csv --split test
    pocketclip evaluate runs/pocket/student --labels house-rooms/labels.csv --json
    """
    if (captions is None) == (labels is None):
        raise typer.BadParameter("name one of --captions FILE and --labels FILE")
    from distill.evaluate.model import open_encoder
    from distill.evaluate.run import evaluate_captions, evaluate_labels

    encoder = open_encoder(model, threads or None)
    with _Bar(quiet) as bar:
        if captions is not None:
            result = evaluate_captions(encoder, captions, splits, split, limits, bar.report)
        elif labels is not None:
            result = evaluate_labels(encoder, labels, splits, split, column, bar.report)
    print(json.dumps(result, indent=2) if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Lay a result out for people: rates in percent, counts as they are."""
    lines = []
    for name, value in result.items():
        cells = list(value.items()) if isinstance(value, dict) else [("", value)]
        if name == "limits":
            cells = [(f"{probe} (of {found['n']:,})", found["accuracy"]) for probe, found in value.items()]
        row = "  ".join(f"{key} {_figure(cell)}".strip() for key, cell in cells)
        lines.append(f"{name.replace('_', ' '):16}{row}")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"


class _Bar:
    """A progress bar on stderr, only on a terminal."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bars = Progress(console=Console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True)

    def __enter__(self) -> _Bar:
        self.bars.start()
        self.task = self.bars.add_task("photos", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def report(self, done: int, total: int) -> None:
        self.bars.update(self.task, completed=done, total=total)
