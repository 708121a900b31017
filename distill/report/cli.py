"""`pocketclip report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.errors import PocketclipError


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder, as `train` wrote it.", show_default=False)],
) -> None:
    """Make the report and the loss plot of a run again.

    The run may still be going on. Results that `pocketclip evaluate --json` printed are part of the report where they
    lie in the run's folder as evaluation.json or evaluation-SOMETHING.json. Prints the report's path.

    [bold]Examples[/bold]

    \b
    pocketclip evaluate runs/pocket/student --labels house-rooms/labels.csv --json > runs/pocket/evaluation-rooms.json
    pocketclip report runs/pocket
    """
    try:
        from distill.config.saved import load_saved_recipe
        from distill.logs import METRICS
        from distill.report import plot_losses, write_report

        recipe = load_saved_recipe(run)
        plot_losses(run / METRICS, run / "losses.png")
        page = write_report(run, recipe)
    except ModuleNotFoundError as error:
        raise PocketclipError(f"a report needs {error.name}: pip install 'pocketclip[train]'") from error
    print(page)
