"""`pocketclip export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.errors import PocketclipError

WIDE = 200
INCOMPLETE = 3
"""Exit code where something asked for was left out, as `pocketclip index` has it for photos that failed."""


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A file or folder of weights (ours, OpenCLIP's, OpenAI's, Apple's), or `pocket`.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.", show_default=False)],
    formats: Annotated[str, typer.Option(help="Engines, joined by commas: onnx, litert, coreml.")] = "onnx",
    precision: Annotated[
        str, typer.Option(help="Joined by commas: fp32, fp16-weights, fp16, int8-weights, int8, … as the engine has.")
    ] = "fp16-weights",
    labels: Annotated[
        Path | None, typer.Option(help="Labels file with evidence; otherwise the one beside the checkpoint.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the photo sets that the evidence names. Without: no labels.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="Captions file to measure retrieval on.")] = None,
    splits: Annotated[Path | None, typer.Option(help="A file,split table for it.")] = None,
    split: Annotated[str | None, typer.Option(help="Measure on this split; calibrate on the others.")] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos to measure and calibrate with, instead of captions.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration of a checkpoint that does not carry one: a model name or .toml.")
    ] = None,
    uint8_pixels: Annotated[
        bool, typer.Option("--uint8-pixels", help="Image towers take bytes, and scale and normalise them inside.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write also what misses the accuracy budget.")] = False,
    name: Annotated[str, typer.Option(help="What the bundle calls itself.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the parity report as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but what is left out.")] = False,
) -> None:
    """Turn a checkpoint into a bundle for the app, small and with proof.

    Merges branches and BatchNorm, converts both towers, quantizes them, runs each in a process of its own beside
    float32 torch, and writes those within the budget: 95 % of the ten nearest photos stay, recall@10 falls by at most
    half a point. Of each engine the smallest is the default. Label thresholds are fitted for every one of them. The
    report, parity.json and parity.png, lies in the bundle. Exit code 3: something asked for was left out.

    [bold]Examples[/bold]

    \b
    pocketclip export pocket -o my-bundle --data ~/data
    pocketclip export mobileclip_s0.pt -o s0 --formats onnx,litert --precision fp32,fp16,int8 --photos ~/Pictures
    pocketclip export runs/mine/student -o my-bundle --precision fp16-weights,int8 --labels labels.toml --data ~/data
    """
    try:
        from export.bundle import export_bundle
        from export.config import ExportConfig
        from export.measure.report import as_json as written
        from export.measure.report import table
    except ModuleNotFoundError as error:
        raise PocketclipError(f"exporting needs {error.name}: pip install 'pocketclip[export]'") from error
    from distill.progress import Bars

    asked = ExportConfig(
        checkpoint=checkpoint,
        out=out,
        labels=labels,
        data=data,
        captions=captions,
        splits=splits,
        split=split,
        photos=photos,
        formats=_names(formats),
        precisions=_names(precision),
        uint8=uint8_pixels,
        force=force,
        model=config,
        name=name,
        threads=threads or None,
    )
    with Bars(quiet=quiet) as bars:

        def say(text: str) -> None:
            if not quiet:
                bars.say(text)

        report = export_bundle(asked, bars.report, say)
        if quiet:
            for variant, why in report["left_out"].items():
                bars.say(f"{variant} is left out: {why}")
    if as_json:
        print(written(report))
    else:
        from rich.console import Console

        console = Console(soft_wrap=True)
        if not console.is_terminal:
            console.width = WIDE  # no column is cut in a file
        console.print(table(report), highlight=False)
    if report["left_out"]:
        raise typer.Exit(INCOMPLETE)


def _names(joined: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in joined.split(",") if name.strip())
