"""A recipe beside its run, and as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import Recipe, build
from distill.files import write_whole
from mobileclip.errors import ConfigError

RECIPE = "recipe.json"


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe, its dotted name and value as texts, and whether somebody chose it."""

    name: str
    value: str
    chosen: bool


def keep_recipe(out: Path, recipe: Recipe) -> None:
    """Write a recipe, `--set` and all, as `recipe.json` into its run's folder."""
    text = json.dumps(_without_none(dataclasses.asdict(recipe)), indent=1, ensure_ascii=False)
    write_whole(out / RECIPE, lambda stream: stream.write(text.encode()))


def kept_recipe(out: Path) -> Recipe:
    """Read the recipe of a run.

    Raises:
        ConfigError: there is none, or it is of another version.
    """
    path = out / RECIPE
    try:
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the folder of a run") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    recipe: Recipe = build(Recipe, fields, str(path))
    return recipe


def settings(recipe: Recipe) -> list[Setting]:
    """List all settings, those of tables under dotted names: `optim.lr`, `photos[cats].file`, `stages[1].px`."""
    return list(_settings(recipe, ""))


def _settings(table: Any, prefix: str) -> Iterator[Setting]:
    for field in dataclasses.fields(table):
        value, name = getattr(table, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{name}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for number, item in enumerate(value, 1):
                yield from _settings(item, f"{name}[{getattr(item, 'name', number)}].")
        else:
            yield Setting(name, _text(value), value != _default(field))


def _default(field: dataclasses.Field[Any]) -> Any:
    """What a setting is if nobody sets it; one that must be set has nothing equal."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {said}" for key, said in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value
