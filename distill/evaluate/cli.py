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
    tags: Annotated[
        Path | None, typer.Option(help="Measure tagging on this labels file, or on a .toml of labels with evidence.")
    ] = None,
    column: Annotated[str, typer.Option(help="The column of --labels or --tags that holds the label.")] = "label",
    splits: Annotated[Path | None, typer.Option(help="A file,split table.")] = None,
    split: Annotated[str | None, typer.Option(help="Measure on this split only.")] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Prompts for class names, one a line with {} in it, instead of the own ones.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the photo sets that a .toml of labels names.")] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Also measure numbers, positions, colours: captions with one wrong word.")
    ] = False,
    config: Annotated[
        str | None, typer.Option(help="Configuration of a checkpoint that does not carry one: a model name or .toml.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Which of a bundle's engines; ONNX if it has it.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Which of that engine's towers, as `export` wrote them; the default otherwise.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure a model on photos with captions, classes or tags.

    Files are CSV, TSV or JSONL with the columns `file` and `caption` or `label`; photo paths are relative to them.
    Every rate comes with the interval that covers 95 % of 1,000 resamples of the photos.

    [bold]Examples[/bold]

    \b
    pocketclip evaluate pocket --captions flickr8k/captions.jsonl --splits flickr8k/splits.csv --split test
    pocketclip evaluate runs/pocket/student --labels house-rooms/labels.csv --json
    pocketclip evaluate mobileclip_s2.pt --labels house-rooms/labels.csv --templates imagenet-templates.txt
    pocketclip evaluate pocket --tags my-album/tags.csv
    pocketclip evaluate my-bundle --precision int8 --labels house-rooms/labels.csv
    """
    if sum(file is not None for file in (captions, labels, tags)) != 1:
        raise typer.BadParameter("name one of --captions FILE, --labels FILE and --tags FILE")
    if (limits and captions is None) or (templates is not None and captions is not None):
        raise typer.BadParameter("--limits goes with --captions; --templates with --labels and --tags")
    evidence = tags is not None and tags.suffix == ".toml"
    if evidence != (data is not None):
        raise typer.BadParameter("--data FOLDER goes with --tags LABELS.toml, and that needs it")
    from distill.evaluate import run
    from distill.evaluate.encoders import open_encoder
    from distill.progress import Bars
    from mobileclip.zeroshot import TEMPLATES

    prompts = TEMPLATES if templates is None else run.read_templates(templates)
    encoder = open_encoder(model, threads or None, config, engine, precision)
    with Bars(quiet=quiet) as bars:

        def report(done: int, total: int) -> None:
            bars.report("photos", done, total)

        if captions is not None:
            result = run.evaluate_captions(encoder, captions, splits, split, limits, report)
        elif labels is not None:
            result = run.evaluate_labels(encoder, labels, splits, split, column, prompts, report)
        elif tags is not None and data is not None:
            result = run.evaluate_evidence(encoder, tags, data, report)
        elif tags is not None:
            result = run.evaluate_tags(encoder, tags, splits, split, column, prompts, report)
    show(result, as_json)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result on stdout, as JSON or as tables."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console

    from distill.evaluate.tables import for_terminal

    Console(soft_wrap=True).print(for_terminal(result), highlight=False)
