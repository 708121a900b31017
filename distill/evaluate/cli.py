"""`pocketclip evaluate`."""

from __future__ import annotations

import json
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
    config: Annotated[
        str | None, typer.Option(help="Configuration of a checkpoint that does not carry one: a model name or .toml.")
    ] = None,
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
    pocketclip evaluate mobileclip_s2.pt --labels house-rooms/labels.csv
    """
    if (captions is None) == (labels is None):
        raise typer.BadParameter("name one of --captions FILE and --labels FILE")
    from distill.evaluate.model import open_encoder
    from distill.evaluate.run import evaluate_captions, evaluate_labels
    from distill.progress import Bars

    encoder = open_encoder(model, threads or None, config)
    with Bars(quiet=quiet) as bars:

        def report(done: int, total: int) -> None:
            bars.report("photos", done, total)

        if captions is not None:
            result = evaluate_captions(encoder, captions, splits, split, limits, report)
        elif labels is not None:
            result = evaluate_labels(encoder, labels, splits, split, column, report)
    print(json.dumps(result, indent=2) if as_json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """Lay a result out for people: rates in percent, counts as they are."""
    lines = []
    spread = result.get("intervals", {})
    for name, value in result.items():
        if name == "intervals":
            continue
        cells = list(value.items()) if isinstance(value, dict) else [("", value)]
        if name == "limits":
            cells = [(f"{probe} (of {found['n']:,})", found["accuracy"]) for probe, found in value.items()]
        ends = spread.get(name, {})
        ends = ends if isinstance(ends, dict) else {"": ends}
        row = "  ".join(f"{key} {_figure(cell)}{_interval(ends.get(key))}".strip() for key, cell in cells)
        lines.append(f"{name.replace('_', ' '):16}{row}")
    return "\n".join(lines)


def _interval(ends: list[float] | None) -> str:
    """The 95 % interval behind a rate."""
    return f" ({100 * ends[0]:.1f}–{100 * ends[1]:.1f})" if ends else ""


def _figure(value: float) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float) else f"{value:,}"
