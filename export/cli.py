"""`pocketclip export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from export.config import ExportConfig
from mobileclip.extras import MissingExtraError

INCOMPLETE = 3
"""Exit code if something that was asked for is left out, as in `pocketclip index` for photos that failed."""
_FILE_WIDTH = 200
"""Columns of the table in a file, enough for all of it."""


def _file(help_text: str) -> Any:
    return typer.Option(metavar="FILE", exists=True, dir_okay=False, help=help_text)


def _folder(help_text: str) -> Any:
    return typer.Option(metavar="DIR", exists=True, file_okay=False, help=help_text)


Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A file or folder of weights (ours, OpenCLIP's, OpenAI's, Apple's), or `pocket`.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the bundle.", show_default=False)]
Formats = Annotated[str, typer.Option(metavar="LIST", help="Engines, separated by commas: onnx, litert, coreml.")]
Precisions = Annotated[
    str, typer.Option(metavar="LIST", help="fp32, fp16-weights, fp16, int8-weights, int8, …, separated by commas.")
]
Labels = Annotated[Path | None, _file("Labels file with evidence. Default: the one next to the checkpoint.")]
Data = Annotated[Path | None, _folder("Folder of the data sets that the evidence names; needed for labels.")]
Captions = Annotated[Path | None, _file("Captions file to measure retrieval on.")]
Splits = Annotated[Path | None, _file("A CSV table with the columns file and split.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Measure on this split; calibrate on the others.")]
Photos = Annotated[Path | None, _folder("Photos to measure and calibrate with, instead of captions.")]
Config = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Model name or .toml, for a checkpoint without a configuration.")
]
Uint8Pixels = Annotated[
    bool, typer.Option("--uint8-pixels", help="Let image towers take bytes, and scale and normalize them inside.")
]
Force = Annotated[bool, typer.Option("--force", help="Also write towers that miss the accuracy budget.")]
Name = Annotated[str, typer.Option(metavar="NAME", help="Name of the bundle.")]
Threads = Annotated[int, typer.Option(metavar="N", help="CPU threads; 0 uses all.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the parity report as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is left out on stderr.")]


def export(
    checkpoint: Checkpoint,
    out: Out,
    formats: Formats = "onnx",
    precision: Precisions = "fp16-weights",
    labels: Labels = None,
    data: Data = None,
    captions: Captions = None,
    splits: Splits = None,
    split: Split = None,
    photos: Photos = None,
    config: Config = None,
    uint8_pixels: Uint8Pixels = False,
    force: Force = False,
    name: Name = "",
    threads: Threads = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn a checkpoint into a quantized, verified bundle for the app.

    Merges branches and BatchNorm, converts both towers, quantizes them, and runs each in a separate process next to
    float32 PyTorch. A tower within the accuracy budget is written: it keeps 95 % of the ten nearest photos, and
    recall@10 falls by at most half a point. The smallest of each engine is the default. Label thresholds are fitted for
    every tower. The bundle holds the report as parity.json and parity.png. Exit code 3: something that was asked for is
    left out.

    [bold]Examples[/bold]

    \b
    pocketclip export pocket -o my-bundle --data ~/data
    pocketclip export mobileclip_s0.pt -o s0 --formats onnx,litert --precision fp32,fp16,int8 --photos ~/Pictures
    pocketclip export runs/mine/student -o my-bundle --precision fp16-weights,int8 --labels labels.toml --data ~/data
    """
    settings = ExportConfig(
        checkpoint=checkpoint,
        out=out,
        labels=labels,
        data=data,
        captions=captions,
        splits=splits,
        split=split,
        photos=photos,
        formats=formats,
        precisions=precision,
        uint8=uint8_pixels,
        force=force,
        model=config,
        name=name,
        threads=threads or None,
    )
    report = _export(settings, quiet)
    _print(report, as_json)
    if report["left_out"]:
        raise typer.Exit(INCOMPLETE)


def _export(config: ExportConfig, quiet: bool) -> dict[str, Any]:
    """Export with progress bars on stderr; returns the parity report."""
    try:
        from export.bundle import export_bundle
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "export", error.name) from error
    from distill.progress import Bars

    with Bars(quiet=quiet) as bars:
        report = export_bundle(config, bars.report, lambda message: None if quiet else bars.say(message))
        if quiet:
            for variant, why in report["left_out"].items():
                bars.say(f"{variant} is left out: {why}")
    return report


def _print(report: dict[str, Any], as_json: bool) -> None:
    """Print a parity report on stdout."""
    from export.measure import report as parity

    if as_json:
        print(parity.as_json(report))
        return
    from rich.console import Console

    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(parity.table(report), highlight=False)
