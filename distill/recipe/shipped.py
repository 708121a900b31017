"""The recipes that ship, found by name."""

from __future__ import annotations

from pathlib import Path

from mobileclip.errors import ConfigError
from mobileclip.files import PathLike

RECIPES = Path(__file__).parents[1] / "recipes"
RECIPE = "recipe.toml"


def shipped_recipes() -> dict[str, Path]:
    """Return name → file of the recipes that ship, sorted by name."""
    return {path.parent.name: path for path in sorted(RECIPES.glob(f"*/{RECIPE}"))}


def find_recipe(name_or_path: PathLike) -> Path:
    """Return the file of a recipe: the name of one that ships, such as "pocket", or a path.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir() and (path / RECIPE).is_file():
        return path / RECIPE
    shipped = shipped_recipes()
    if len(path.parts) == 1 and path.name in shipped:
        return shipped[path.name]
    raise ConfigError(f"no recipe {str(path)!r}: give a .toml file, or one of {', '.join(shipped)}")


def header(path: PathLike) -> str:
    """Return the comment at the top of a recipe: what it makes, what that costs, and the expected result."""
    lines = []
    for line in Path(path).read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)
