"""TOML tables into frozen dataclasses; whatever these do not know is refused."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal

from mobileclip.errors import ConfigError


def build(kind: type[Any], fields: Any, where: str) -> Any:
    """Make a frozen dataclass from a TOML table, refusing what it does not know.

    Raises:
        ConfigError: naming the setting.
    """
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: a table is needed")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - set(known)):
        raise ConfigError(f"{where}: unknown setting {unknown[0]}; known are {', '.join(known)}")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in fields.items()}
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Fit a TOML value to a field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            name = where.rpartition(" ")[2]
            tables = f", [[{name}]]" if dataclasses.is_dataclass(arguments[0]) else ""
            raise ConfigError(f"{where}: a list is needed{tables}")
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise ConfigError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value
