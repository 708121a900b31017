"""The recipe of a run, saved in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path

from distill.config.recipe import Recipe
from distill.files import write_whole
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.tables import build, to_table

RECIPE = "recipe.json"


def save_recipe(run: PathLike, recipe: Recipe) -> None:
    """Write a recipe, including changes made with `--set`, as `recipe.json` into the folder of its run.

    Raises:
        PocketclipError: the file can't be written.
    """
    text = json.dumps(to_table(recipe, defaults=True), indent=1, ensure_ascii=False)
    write_whole(Path(run) / RECIPE, lambda stream: stream.write(text.encode()))


def load_saved_recipe(run: PathLike) -> Recipe:
    """Read the recipe of a run.

    Raises:
        ConfigError: the folder has no recipe, or one of another version.
    """
    path = Path(run) / RECIPE
    try:
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the folder of a run") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    recipe: Recipe = build(Recipe, fields, str(path))
    return recipe
