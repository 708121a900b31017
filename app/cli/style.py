"""One style for the help of all commands, from any package."""

import re
from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup

_BRACKET = re.compile(r"\\?\[(?!/?bold\])")


class Command(TyperCommand):
    """A command with our usage line and option table."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return _without_braces(super().collect_usage_pieces(ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return arguments and options, including `--help`."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands with our usage line and option table."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return _without_braces(super().collect_usage_pieces(ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return options, including `--help`."""
        return _without_types(super().get_params(ctx))


def _without_braces(pieces: list[str]) -> list[str]:
    """Remove braces: newer Typer writes `{FILE}` for a required argument, where FILE is usual."""
    return [piece.replace("{", "").replace("}", "") for piece in pieces]


def _without_types(params: list[Any]) -> list[Any]:
    """Remove the `<bool>` and `<path>` that newer Typer adds to flags and arguments."""
    for param in params:
        param.help = _literal(param.help or "")
        if param.param_type_name == "argument":
            param.display_type_rich = _no_type
        elif param.is_flag:
            param.metavar = ""
    return params


def _no_type(ctx: Any) -> str:
    return ""


def reflow(docstring: str) -> str:
    r"""Prepare a docstring for Rich: join the lines of each paragraph, but keep the lines after a `\b`.

    Brackets are literal, except for `[bold]` and `[/bold]`.
    """
    return "\n\n".join(_reflow(part) for part in _literal(cleandoc(docstring)).split("\n\n"))


def _literal(text: str) -> str:
    """Escape brackets, which Rich would treat as markup, except for `[bold]`."""
    return _BRACKET.sub(r"\\[", text)


def _reflow(paragraph: str) -> str:
    if paragraph.startswith("\b"):
        return "\b" + paragraph[1:].lstrip("\n")  # Rich would show the line break after \b as an empty line
    return paragraph.replace("\n", " ")
