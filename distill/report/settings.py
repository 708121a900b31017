"""A recipe as a table of settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distill.config import Recipe
from mobileclip.tables import INLINE


@dataclass(frozen=True)
class Setting:
    """A setting's dotted name, its value as text, and whether it differs from the default."""

    name: str
    value: str
    chosen: bool


def settings(recipe: Recipe) -> list[Setting]:
    """List all settings of a recipe by dotted names: `optim.lr`, `photos[cats].file`, `stages[1].px`."""
    return list(_settings(recipe, ""))


def _settings(table: Any, prefix: str) -> Iterator[Setting]:
    for field in dataclasses.fields(table):
        value, default = getattr(table, field.name), _default(field)
        if INLINE in field.metadata:
            for key, item in value.items():
                yield from _entries(prefix + key, item, default.get(key))
        else:
            yield from _entries(prefix + field.name, value, default)


def _entries(name: str, value: Any, default: Any) -> Iterator[Setting]:
    if dataclasses.is_dataclass(value):
        yield from _settings(value, f"{name}.")
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        for number, item in enumerate(value, 1):
            yield from _settings(item, f"{name}[{getattr(item, 'name', number)}].")
    else:
        yield Setting(name, _text(value), value != default)


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting; for a required one, a value that equals nothing."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
