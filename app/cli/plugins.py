"""Commands of the workstation half, which `app` may not import: they join by entry point.

Only the command that is asked for is loaded. The others are listed from the text of their source file, so
that `--help` starts no training library and a broken one breaks nothing but itself.
"""

import ast
import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import typer

from mobileclip.errors import PocketclipError

GROUP = "pocketclip.commands"
PANEL = "Workstation"


class CommandError(PocketclipError):
    """A workstation command that cannot be loaded."""


def attach(
    app: typer.Typer, arguments: Sequence[str], wrap: Callable[[Callable[..., None]], Callable[..., None]]
) -> None:
    """Add every entry point of the group to `app`; the one that `arguments` name is imported, no other.

    An entry point is a function, or a `typer.Typer` with commands of its own.

    Args:
        app: takes the commands.
        arguments: the command line, without the program.
        wrap: put around each command, to turn errors into exit codes.
    """
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name != asked:
            app.command(entry.name, help=summary(entry), rich_help_panel=PANEL)(_placeholder)
            continue
        try:
            command = entry.load()
        except Exception as error:
            app.command(entry.name, rich_help_panel=PANEL, context_settings=_TAKES_ANYTHING)(
                wrap(_broken(entry, error))
            )
        else:
            if isinstance(command, typer.Typer):
                app.add_typer(wrapped(command, wrap), name=entry.name, rich_help_panel=PANEL)
            else:
                app.command(entry.name, rich_help_panel=PANEL)(wrap(command))


_TAKES_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": list[str]()}


def wrapped(group: typer.Typer, wrap: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """The same group, each of its commands wrapped as one that stands alone would be."""
    for command in group.registered_commands:
        if command.callback is not None:
            command.callback = wrap(command.callback)
    own = group.registered_callback
    if own is not None and own.callback is not None:
        own.callback = wrap(own.callback)
    return group


def _placeholder() -> None:
    """Stands in the list of commands for one that was not asked for."""


def _broken(entry: EntryPoint, error: Exception) -> Callable[[], None]:
    def command() -> None:
        hint = ""
        if isinstance(error, ImportError):
            hint = "; it needs the workstation half: pip install 'pocketclip[train,export]'"
        raise CommandError(f"`{entry.name}` cannot be loaded: {error}{hint}")

    return command


def summary(entry: EntryPoint) -> str:
    """First line of a command's or group's docstring, read from its file without running it; "" where there is none."""
    try:
        path = _source(entry.module)
        tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
    except (OSError, SyntaxError, ValueError, ImportError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (node.name == entry.attr or _is_callback(node, entry.attr)):
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _is_callback(node: ast.FunctionDef, group: str) -> bool:
    """Whether a function is decorated with `@group.callback(…)`, so that its docstring is the group's."""
    called = (decorator.func for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    return any(ast.unparse(function) == f"{group}.callback" for function in called)


def _source(module: str) -> Path | None:
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest and spec.origin:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
