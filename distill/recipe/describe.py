"""Every setting of a recipe, with its type, default and description, taken from the dataclasses in `distill.config`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distill.config import Recipe
from distill.losses import LOSSES
from mobileclip.tables import INLINE


@dataclass(frozen=True)
class SettingDoc:
    """A setting of a recipe.

    Attributes:
        name: dotted, such as "optim.lr"; "photos[].file" is a key of each [[photos]] table.
        type: in words, such as "number" or "list of texts".
        default: as it would be written in a recipe; None if the setting is required.
        description: one or more sentences.
    """

    name: str
    type: str
    default: str | None
    description: str


def all_settings() -> list[SettingDoc]:
    """Return every setting of a recipe, in the order of the dataclasses, tables after single settings."""
    return list(_settings(Recipe, ""))


def _settings(kind: type[Any], prefix: str) -> Iterator[SettingDoc]:
    hints, docs = typing.get_type_hints(kind), field_docs(kind)
    tables = []
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if INLINE not in field.metadata and _table_of(hint)[0] is None:
            yield SettingDoc(name, _type(hint), _default(field), docs.get(field.name, ""))
            continue
        inline = field.metadata[INLINE]() if INLINE in field.metadata else {field.name: hint}
        for key, item in inline.items():
            table, repeated = _table_of(item)
            if table is None:
                yield _loss(prefix, key)
            else:
                tables.append((table, f"{prefix}{key}[]." if repeated else f"{prefix}{key}."))
    for table, inner in tables:
        yield from _settings(table, inner)


def _loss(prefix: str, name: str) -> SettingDoc:
    loss = LOSSES[name]
    needs = "; ".join(sorted(need.value for need in loss.needs))
    description = f"Weight of a loss, 0 turns it off. {loss.description}" + (f" It needs {needs}." if needs else "")
    return SettingDoc(f"{prefix}{name}", "number", to_toml(loss.weight), description)


def field_docs(kind: type[Any]) -> Mapping[str, str]:
    """Return the docstring after each field of a dataclass and of the dataclasses it inherits from, on one line."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        waiting: list[str] = []
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                waiting.append(node.target.id)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
                docs |= dict.fromkeys(waiting, " ".join(str(node.value.value).split()))
                waiting = []
    return docs


def _table_of(hint: Any) -> tuple[type[Any] | None, bool]:
    """Return the dataclass that a field holds, if any, and whether it holds several."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(argument for argument in arguments if argument is not type(None))
    repeated = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if repeated else hint
    return (kind, repeated) if isinstance(kind, type) and dataclasses.is_dataclass(kind) else (None, False)


_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(to_toml(value) for value in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {count}{_type(arguments[0])}s"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"table of {_type(arguments[1])}s"
    return _WORDS[hint]


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return to_toml(field.default_factory())
    return None if field.default is dataclasses.MISSING else to_toml(field.default)


def to_toml(value: Any) -> str:
    """Write a single value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{to_toml(str(key))} = {to_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(to_toml, value))}]"
    return repr(value)
