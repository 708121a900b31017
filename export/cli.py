"""`pocketclip export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mobileclip.errors import PocketclipError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="The student's folder, as `train` wrote it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.", show_default=False)],
    labels: Annotated[Path, typer.Option(help="Labels file with evidence.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of the photo sets that the evidence names.", show_default=False)],
    name: Annotated[str, typer.Option(help="What the bundle calls itself.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Turn a checkpoint into an ONNX bundle for the app.

    Label thresholds are fitted on photos, through the very engine that the bundle is for. Prints the figures it
    measured as JSON.

    [bold]Examples[/bold]

    \b
    pocketclip export runs/pocket/student -o my-bundle --labels distill/recipes/pocket/labels.toml --data ~/data
    """
    try:
        from export.bundle import ExportConfig, export_bundle
    except ModuleNotFoundError as error:
        raise PocketclipError(f"exporting needs {error.name}: pip install 'pocketclip[export]'") from error
    from distill.progress import Bars

    config = ExportConfig(checkpoint, labels, data, out, name, threads or None)
    with Bars(quiet=quiet) as bars:
        figures = export_bundle(config, bars.report)
    print(json.dumps(figures, indent=2))
