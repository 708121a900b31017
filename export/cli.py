"""`pocketclip export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.errors import PocketclipError

WIDE = 200
INCOMPLETE = 3
"""Exit code if something that was asked for is left out, as in `pocketclip index` for photos that failed."""


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A file or folder of weights (ours, OpenCLIP's, OpenAI's, Apple's), or `pocket`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the bundle.",
            show_default=False,
        ),
    ],
    formats: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Engines, separated by commas: onnx, litert, coreml.",
        ),
    ] = "onnx",
    precision: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="fp32, fp16-weights, fp16, int8-weights, int8, …, separated by commas.",
        ),
    ] = "fp16-weights",
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Labels file with evidence. Default: the one next to the checkpoint.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder of the data sets that the evidence names; needed for labels.",
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Captions file to measure retrieval on.",
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A CSV table with the columns file and split.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Measure on this split; calibrate on the others.",
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Photos to measure and calibrate with, instead of captions.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model name or .toml, for a checkpoint without a configuration.",
        ),
    ] = None,
    uint8_pixels: Annotated[
        bool,
        typer.Option(
            "--uint8-pixels",
            help="Let image towers take bytes, and scale and normalize them inside.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also write towers that miss the accuracy budget.",
        ),
    ] = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the bundle.")] = "",
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads; 0 uses all.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the parity report as JSON.")] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print only what is left out on stderr.",
        ),
    ] = False,
) -> None:
    """Turn a checkpoint into a quantized, verified bundle for the app.

    Merges branches and BatchNorm, converts both towers, quantizes them, and runs each in a separate process next to
    float32 torch. A tower within the accuracy budget is written: it keeps 95 % of the ten nearest photos, and recall@10
    falls by at most half a point. The smallest of each engine is the default. Label thresholds are fitted for every
    tower. The bundle holds the report as parity.json and parity.png. Exit code 3: something that was asked for is left
    out.

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
