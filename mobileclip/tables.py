"""TOML and JSON tables ⇄ frozen dataclasses, checked against the dataclasses' types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from mobileclip.errors import ConfigError

__all__ = ["INLINE", "build", "inline_keys", "to_table"]

INLINE = "inline"
"""The metadata of a field that has inline keys."""


def inline_keys(types: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metadata of a mapping field whose items are keys of the dataclass's own table.

    Args:
        types: returns the keys that the mapping may have, and the type of each.
    """
    return {INLINE: types}


def build(kind: type[Any], fields: Any, where: str, *, ignore_unknown: bool = False) -> Any:
    """Build a frozen dataclass from a table.

    A field's key in the table is its name, or the `key` of its metadata; see also `inline_keys`. Field types may be
    scalars, other dataclasses, `tuple[…, ...]`, tuples of a fixed length, `Mapping[str, …]`, `Literal`, `Any`, and any
    of these `| None`.

    Args:
        kind: the dataclass.
        fields: the table, as `tomllib` or `json` returns it.
        where: what to call the table in errors; "" for none.
        ignore_unknown: skip unknown keys, which a newer version may have written, instead of refusing them.

    Raises:
        ConfigError: a key is missing, unknown or of the wrong type, or the dataclass raised ValueError. The message
            names the key or the table.
    """
    if not isinstance(fields, dict):
        raise ConfigError(f"{_prefix(where)}a table is needed")
    hints = typing.get_type_hints(kind)
    known = {_key(f): f for f in dataclasses.fields(kind) if INLINE not in f.metadata}
    inline = {
        key: (f.name, item)
        for f in dataclasses.fields(kind)
        if INLINE in f.metadata
        for key, item in f.metadata[INLINE]().items()
    }
    if not ignore_unknown and (unknown := sorted(fields.keys() - known.keys() - inline.keys())):
        raise ConfigError(f"{_prefix(where)}unknown setting {unknown[0]}; known are {', '.join((*inline, *known))}")
    values = {
        f.name: _convert(hints[f.name], fields[key], f"{_prefix(where)}{key}", ignore_unknown)
        for key, f in known.items()
        if key in fields
    }
    for key in inline.keys() & fields.keys():
        name, item = inline[key]
        values.setdefault(name, {})[key] = _convert(item, fields[key], f"{_prefix(where)}{key}", ignore_unknown)
    missing = [key for key, f in known.items() if key not in fields and _is_required(f)]
    if missing:
        raise ConfigError(f"{_prefix(where)}{missing[0]} is missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{_prefix(where)}{error}") from None


def to_table(value: Any, *, defaults: bool = False) -> Any:
    """Return the table that `build` reads back, in the order of the fields.

    Args:
        value: a dataclass, or a value of a field.
        defaults: write fields at their default too, but not those that are None.
    """
    if dataclasses.is_dataclass(value):
        table = {}
        for f in dataclasses.fields(value):
            item = getattr(value, f.name)
            if INLINE in f.metadata:
                table.update(to_table(item, defaults=defaults))
            elif (item is not None) if defaults else (_is_required(f) or item != _default(f)):
                table[_key(f)] = to_table(item, defaults=defaults)
        return table
    if isinstance(value, Mapping):
        return {key: to_table(item, defaults=defaults) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_table(item, defaults=defaults) for item in value]
    return value


def _key(field: dataclasses.Field[Any]) -> str:
    key: str = field.metadata.get("key", field.name)
    return key


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


def _convert(hint: Any, value: Any, where: str, ignore_unknown: bool) -> Any:
    """Convert a table's value to a field's type."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, where, ignore_unknown)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where, ignore_unknown=ignore_unknown)
    if origin is tuple:
        if not isinstance(value, list):
            name = where.rpartition(" ")[2]
            tables = f", [[{name}]]" if dataclasses.is_dataclass(arguments[0]) else ""
            raise ConfigError(f"{where}: a list is needed{tables}")
        kinds = arguments
        if arguments[-1] is Ellipsis:
            kinds = (arguments[0],) * len(value)
        elif len(value) != len(arguments):
            raise ConfigError(f"{where}: a list of {len(arguments)} is needed, not of {len(value)}")
        return tuple(_convert(kind, item, where, ignore_unknown) for kind, item in zip(kinds, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: a table is needed")
        return {key: _convert(arguments[1], item, f"{where}: {key}", ignore_unknown) for key, item in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise ConfigError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value
