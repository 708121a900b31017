"""The command `pocketclip evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A bundle (name, folder or .zip) or a checkpoint.",
            show_default=False,
        ),
    ],
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Measure retrieval on this captions file.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Measure zero-shot accuracy on this labels file."
        ),
    ] = None,
    tags: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Measure tagging on this labels file, or on a .toml of labels with evidence. With a column `unsure`, "
            "the file has all labels of each photo, and every other tag is wrong.",
        ),
    ] = None,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="The column of --labels or --tags that holds the label.")
    ] = "label",
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A CSV table with the columns file and split.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Measure this split only.")] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Prompt templates instead of the built-in ones, one per line, with {} for the class name.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder of the photos of --tags, if they aren't relative to the file; of the data sets, for a .toml.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="For --tags with a column `unsure`: write a page that shows the wrong tags.",
        ),
    ] = None,
    limits: Annotated[
        bool,
        typer.Option(
            "--limits",
            help="Also measure numbers, positions and colors: captions with one wrong word.",
        ),
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Also compare what pairs of queries find: a table with the columns kind, query and variant.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model name or .toml, for a checkpoint without a configuration.",
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(metavar="ENGINE", help="Engine of a bundle. Default: onnx.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="Precision of a bundle. Default: its own.")
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads; 0 uses all.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Don't show progress.")] = False,
) -> None:
    """Measure a model on photos with captions, classes or tags.

    Files are CSV, TSV or JSONL with the columns `file` and `caption` or `label`. Photo paths are relative to the file.
    Every rate comes with a 95 % confidence interval from 1,000 resamples of the photos.

    [bold]Examples[/bold]

    \b
    pocketclip evaluate pocket --captions flickr8k/captions.jsonl --splits flickr8k/splits.csv --split test
    pocketclip evaluate runs/pocket/student --labels house-rooms/labels.csv --json
    pocketclip evaluate mobileclip_s2.pt --labels house-rooms/labels.csv --templates imagenet-templates.txt
    pocketclip evaluate pocket --tags my-album/tags.csv
    pocketclip evaluate pocket --tags distill/recipes/pocket/camera-roll.csv --data DATA --report wrong-tags.html
    pocketclip evaluate my-bundle --precision int8 --labels house-rooms/labels.csv
    """
    if sum(file is not None for file in (captions, labels, tags)) != 1:
        raise typer.BadParameter("pass exactly one of --captions, --labels and --tags")
    if queries is not None and captions is None:
        raise typer.BadParameter("--queries needs --captions")
    if (limits and captions is None) or (templates is not None and captions is not None):
        raise typer.BadParameter("--limits needs --captions; --templates needs --labels or --tags")
    evidence = tags is not None and tags.suffix == ".toml"
    if (evidence and data is None) or (data is not None and tags is None):
        raise typer.BadParameter("--tags LABELS.toml needs --data, and --data needs --tags")
    from distill.evaluate import run
    from distill.evaluate.camera_roll import evaluate_camera_roll
    from distill.evaluate.encoders import open_encoder
    from distill.progress import Bars
    from mobileclip.zeroshot import TEMPLATES

    complete = tags is not None and not evidence and run.has_all_labels(tags)
    if not complete and (report is not None or (data is not None and not evidence)):
        raise typer.BadParameter("--report, and --data with a table, need a --tags table with a column `unsure`")
    if complete and (splits or split or templates or column != "label"):
        raise typer.BadParameter("--splits, --split, --column and --templates aren't for tables with a column `unsure`")
    prompts = TEMPLATES if templates is None else run.read_templates(templates)
    encoder = open_encoder(model, threads or None, config, engine, precision)
    with Bars(quiet=quiet) as bars:

        def progress(done: int, total: int) -> None:
            bars.report("photos", done, total)

        if captions is not None:
            result = run.evaluate_captions(encoder, captions, splits, split, limits, progress, queries)
        elif labels is not None:
            result = run.evaluate_labels(encoder, labels, splits, split, column, prompts, progress)
        elif tags is not None and evidence and data is not None:
            result = run.evaluate_evidence(encoder, tags, data, progress)
        elif tags is not None and complete:
            result = evaluate_camera_roll(encoder, tags, data, report, progress)
        elif tags is not None:
            result = run.evaluate_tags(encoder, tags, splits, split, column, prompts, progress)
    show(result, as_json)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as JSON or as tables."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console

    from distill.evaluate.tables import for_terminal

    Console(soft_wrap=True).print(for_terminal(result), highlight=False)
