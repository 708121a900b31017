"""The command `pocketclip report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.extras import MissingExtraError


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            exists=True,
            file_okay=False,
            help="Folder of a run.",
            show_default=False,
        ),
    ],
) -> None:
    """Recreate the report and the loss plot of a run, even while it is training.

    To include results of `pocketclip evaluate --json`, save them in the run's folder as evaluation.json or
    evaluation-NAME.json. Prints the report's path.

    [bold]Examples[/bold]

    \b
    pocketclip evaluate runs/pocket/student --labels house-rooms/labels.csv --json > runs/pocket/evaluation-rooms.json
    pocketclip report runs/pocket
    """
    try:
        from distill.config.saved import load_saved_recipe
        from distill.logs import METRICS
        from distill.report.charts import plot_losses
        from distill.report.page import write_report

        recipe = load_saved_recipe(run)
        plot_losses(run / METRICS, run / "losses.png")
        page = write_report(run, recipe)
    except ModuleNotFoundError as error:
        raise MissingExtraError("a report", "train", error.name) from error
    print(page)
