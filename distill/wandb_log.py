"""The log of a run as a run of Weights & Biases."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.config import Recipe
from distill.files import write_whole
from distill.logs import LogError, tag
from mobileclip.errors import one_line
from mobileclip.extras import MissingExtraError
from mobileclip.files import PathLike
from mobileclip.tables import to_table

RUN_ID = "wandb-run.txt"
"""File in a run's folder with the id that Weights & Biases knows it by."""


def import_wandb() -> Any:
    """Import the package.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise MissingExtraError("--wandb", "wandb", error.name) from error
    return wandb


class WandbLog:
    """Sends each step's figures to a project of Weights & Biases, under the names that TensorBoard shows.

    A resumed run continues the same chart; steps that it repeats are left as they were. `wandb login` or WANDB_API_KEY
    gives access. With WANDB_MODE=offline, everything is written below the run's folder for a later `wandb sync`.

    Args:
        project: name of the project, or `entity/project`.
        folder: the run's folder, which exists or can be created.
        recipe: all settings, which are shown with the run.

    Raises:
        LogError: Weights & Biases refuses, for example because nobody has logged in.
        MissingExtraError: `wandb` isn't installed.
    """

    def __init__(self, project: str, folder: PathLike, recipe: Recipe) -> None:
        wandb = import_wandb()
        entity, _, name = project.rpartition("/")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                entity=entity or None,
                project=name,
                name=recipe.name,
                id=_run_id(folder),
                resume="allow",
                dir=str(folder),
                config=to_table(recipe, defaults=True),
            )
        except (wandb.Error, OSError) as error:
            raise LogError(f"Weights & Biases: {one_line(error)}") from error

    def write(self, figures: Mapping[str, float]) -> None:
        """Send a step's figures, by name, including `step`. NaN and infinity are left out."""
        values = {tag(name): value for name, value in figures.items() if name != "step" and math.isfinite(value)}
        self._run.log(values, step=int(figures["step"]))

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def _run_id(folder: Path) -> str:
    """Return the id of a run, the same whenever it resumes."""
    path = folder / RUN_ID
    if not path.exists():
        write_whole(path, lambda stream: stream.write(secrets.token_hex(8).encode()))
    return path.read_text("utf-8").strip()
